//! A C handle: a tagged header and a value on the heap.
//!
//! Guarantees: NULL, a handle of another kind, of another copy of the library, from before a fork (unless its kind makes its value anew),
//! or poisoned by a panic is refused with an error that names the argument. A freed handle is recognised as long as its memory was not allocated again: this
//! is not a promise. Leaves to others: what may be done with the value.

use std::mem::offset_of;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use super::types::{
    Sharded, vigie_batch, vigie_call, vigie_client, vigie_config, vigie_error, vigie_jobs, vigie_queue, vigie_reply,
    vigie_scan, vigie_sentinel, vigie_sub,
};
use crate::error::{Error, Result, Status};
use crate::resp::{Allocation, Body, Reply};
use crate::sys::{fork, panic};

/// A kind of handle: the C type that stands for it.
pub(super) trait Noun {
    /// What the handle holds.
    type Value;
    /// Stands in the header while the handle lives.
    const MAGIC: u64;
    /// Plain memory works in a forked child; sockets and threads do not.
    const PLAIN: bool;
    /// Whether the value can be dropped in a forked child, because it leaks what is the parent's by itself.
    const INHERITED: bool = false;

    /// In a forked child, whose handle this was not yet: makes its value anew. Several threads may come at once.
    fn reopen(_value: &Self::Value, name: &str) -> Result<()> {
        Err(forked(name, ""))
    }
}

/// The error in a forked child.
#[cold]
pub(super) fn forked(name: &str, more: &str) -> Error {
    Error::new(Status::Forked, format!("{name} was made before fork(): make a new one in the child{more}"))
}

/// The first word after `_free`.
const GONE: u64 = u64::from_be_bytes(*b"vgi.gone");

/// Every kind with its name, to say what was passed instead.
const KINDS: [(u64, &str); 13] = [
    (vigie_config::MAGIC, "a vigie_config"),
    (vigie_sentinel::MAGIC, "a vigie_sentinel"),
    (vigie_client::MAGIC, "a vigie_client"),
    (Sharded::MAGIC, "a client of vigie_shards_for(), which this function has no use for"),
    (vigie_queue::MAGIC, "a vigie_queue"),
    (vigie_call::MAGIC, "a vigie_call"),
    (vigie_scan::MAGIC, "a vigie_scan"),
    (vigie_batch::MAGIC, "a vigie_batch"),
    (vigie_sub::MAGIC, "a vigie_sub"),
    (vigie_jobs::MAGIC, "a vigie_jobs"),
    (vigie_reply::MAGIC, "a vigie_reply"),
    (vigie_error::MAGIC, "a vigie_error"),
    (GONE, "a handle that was freed"),
];

/// Its address distinguishes this copy of the library from another one in the same process (static and shared, or two versions).
static COPY: u8 = 0;

/// All kinds of handles share this layout, so that a wrong pointer can be recognised. The tag follows the first 16 bytes, which
/// allocators overwrite with their lists of free blocks.
#[repr(C)]
struct Header {
    copy: usize,
    /// Of the process that uses it; stored when the value is of that process.
    generation: AtomicU32,
    poisoned: AtomicBool,
    magic: AtomicU64,
}

const _: () = assert!(offset_of!(Header, magic) >= 16 || usize::BITS < 64);

/// A handle on the heap.
#[repr(C)]
struct Handle<T> {
    header: Header,
    value: T,
}

/// A handle in use by a call. A panic of the call poisons it, as it poisons std's Mutex.
pub(super) struct InUse<'a, T> {
    handle: &'a Handle<T>,
    was_panicking: bool,
}

impl<T> Deref for InUse<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.handle.value
    }
}

impl<T> Drop for InUse<'_, T> {
    fn drop(&mut self) {
        if !self.was_panicking && thread::panicking() {
            self.handle.header.poisoned.store(true, Ordering::Release);
        }
    }
}

fn copy() -> usize {
    &raw const COPY as usize
}

impl Header {
    fn new<N: Noun>() -> Self {
        Self {
            copy: copy(),
            generation: AtomicU32::new(if N::PLAIN { 0 } else { fork::generation() }),
            poisoned: AtomicBool::new(false),
            magic: AtomicU64::new(N::MAGIC),
        }
    }
}

/// Moves a value into a new handle, for `free`.
pub(super) fn into_raw<N: Noun>(value: N::Value) -> *mut N {
    panic::keep_quiet();
    Box::into_raw(Box::new(Handle { header: Header::new::<N>(), value })).cast()
}

/// Makes a handle of a reply in place, because a command should not cost another allocation. For `free`.
pub(super) fn of_reply<N: Noun<Value = Body>>(reply: Reply) -> *mut N {
    let handle = Box::into_raw(reply.into_allocation()).cast::<Handle<Body>>();
    // SAFETY: the block is ours and laid out as a handle (see below); its room in front is what the header goes to.
    unsafe { (&raw mut (*handle).header).write(Header::new::<N>()) };
    handle.cast()
}

const _: () = {
    assert!(
        size_of::<Handle<Body>>() == size_of::<Allocation>() && align_of::<Handle<Body>>() == align_of::<Allocation>()
    );
    assert!(offset_of!(Handle<Body>, value) == Allocation::BODY && size_of::<Header>() <= Allocation::BODY);
};

/// The handle's value for the length of a call.
///
/// # Safety
/// `handle` is NULL, or points to memory that can be read as a handle, and no other thread frees it meanwhile.
#[inline]
pub(super) unsafe fn borrow<'a, N: Noun>(handle: *const N, name: &str) -> Result<InUse<'a, N::Value>> {
    // SAFETY: as for this function.
    let handle = unsafe { tagged(handle) }.map_err(|what| wrong(name, what))?;
    in_use::<N>(handle, name)
}

/// One of two kinds that C sees as one.
pub(super) enum Either<'a, N: Noun, M: Noun> {
    One(InUse<'a, N::Value>),
    Other(InUse<'a, M::Value>),
}

/// As [`borrow`], for a handle that may be of another kind as well, which is looked for second.
///
/// # Safety
/// As for [`borrow`].
#[inline]
pub(super) unsafe fn borrow_either<'a, N: Noun, M: Noun>(handle: *const N, name: &str) -> Result<Either<'a, N, M>> {
    // SAFETY: as for this function; both kinds begin with the same header.
    unsafe {
        match tagged(handle) {
            Ok(handle) => in_use::<N>(handle, name).map(Either::One),
            Err(what) => match tagged(handle.cast::<M>()) {
                Ok(handle) => in_use::<M>(handle, name).map(Either::Other),
                Err(_) => Err(wrong(name, what)),
            },
        }
    }
}

#[cold]
fn wrong(name: &str, what: &str) -> Error {
    Error::new(Status::InvalidArg, format!("{name} is {what}"))
}

#[inline]
fn in_use<'a, N: Noun>(handle: &'a Handle<N::Value>, name: &str) -> Result<InUse<'a, N::Value>> {
    let header = &handle.header;
    if !N::PLAIN && header.generation.load(Ordering::Acquire) != fork::generation() {
        reopen::<N>(handle, name)?;
    }
    if header.poisoned.load(Ordering::Acquire) {
        let text = format!("{name} was in use when the library failed (a caught panic): free it and make a new one");
        return Err(Error::new(Status::Internal, text));
    }
    Ok(InUse { handle, was_panicking: thread::panicking() })
}

/// The first use of a handle in a forked child.
#[cold]
#[inline(never)]
fn reopen<N: Noun>(handle: &Handle<N::Value>, name: &str) -> Result<()> {
    N::reopen(&handle.value, name)?;
    let generation = fork::generation();
    if handle.header.generation.swap(generation, Ordering::AcqRel) != generation {
        // What a panic of the parent may have left behind is not in the new value.
        handle.header.poisoned.store(false, Ordering::Release);
    }
    Ok(())
}

/// The value of a plain handle, or `None` for anything that is not one: for functions that cannot fail.
///
/// # Safety
/// As for [`borrow`].
pub(super) unsafe fn peek<'a, N: Noun>(handle: *const N) -> Option<&'a N::Value> {
    // SAFETY: as for this function.
    unsafe { tagged(handle) }.ok().map(|handle| &handle.value)
}

/// Checks the tag; otherwise says what was passed instead.
///
/// # Safety
/// As for [`borrow`].
#[inline]
unsafe fn tagged<'a, N: Noun>(handle: *const N) -> std::result::Result<&'a Handle<N::Value>, &'static str> {
    let handle: *const Handle<N::Value> = handle.cast();
    if handle.is_null() {
        return Err("NULL");
    }
    if !handle.is_aligned() {
        return Err("not a handle of this library");
    }
    // SAFETY: not NULL, aligned, and by the caller's contract readable as the header that every handle begins with.
    let header = unsafe { &*handle.cast::<Header>() };
    let magic = header.magic.load(Ordering::Acquire);
    if magic != N::MAGIC {
        let known = KINDS.iter().find(|(kind, _)| *kind == magic);
        return Err(known.map_or("not a handle of this library", |(_, what)| *what));
    }
    if header.copy != copy() {
        return Err("a handle of another copy of libvigie in this process");
    }
    // SAFETY: the tag is that of this kind, made by this copy of the library, so a whole handle is there.
    Ok(unsafe { &*handle })
}

/// Takes a handle back and drops its value. Anything that is not a live handle of this kind is left alone; in a
/// forked child what is not plain memory, and was not made anew, is leaked on purpose, because its locks and sockets belong to the parent.
/// `None`: left alone.
///
/// # Safety
/// As for [`borrow`]; no call uses the handle now or later.
pub(super) unsafe fn free<N: Noun>(handle: *mut N) -> Option<()> {
    // SAFETY: as for this function.
    let live = unsafe { tagged(handle.cast_const()) }.ok()?;
    if !N::PLAIN && !N::INHERITED && live.header.generation.load(Ordering::Acquire) != fork::generation() {
        return None;
    }
    live.header.magic.compare_exchange(N::MAGIC, GONE, Ordering::AcqRel, Ordering::Acquire).ok()?;
    // SAFETY: made by `into_raw` or `of_reply`, and the exchange lets only one caller come here.
    drop(unsafe { Box::from_raw(handle.cast::<Handle<N::Value>>()) });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::batch::Batch;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::ptr;

    fn status<T>(result: Result<InUse<'_, T>>) -> Option<(Status, String)> {
        result.err().map(|error| (error.status(), error.message().to_owned()))
    }

    #[test]
    fn null_foreign_and_wrong_kinds_are_named() {
        let batch: *mut vigie_batch = into_raw(Batch::default());
        // SAFETY: the pointers are NULL, a live handle, or lie inside memory of this test.
        unsafe {
            let null = status(borrow(ptr::null::<vigie_batch>(), "batch"));
            assert_eq!(null, Some((Status::InvalidArg, "batch is NULL".into())));
            let wrong = status(borrow(batch.cast::<vigie_reply>(), "reply"));
            assert_eq!(wrong, Some((Status::InvalidArg, "reply is a vigie_batch".into())));
            let odd = status(borrow(batch.cast::<u8>().add(1).cast::<vigie_batch>(), "batch"));
            assert_eq!(odd, Some((Status::InvalidArg, "batch is not a handle of this library".into())));
            let rubbish = [0x5au64; 8];
            let rubbish = status(borrow(rubbish.as_ptr().cast::<vigie_batch>(), "batch"));
            assert_eq!(rubbish, Some((Status::InvalidArg, "batch is not a handle of this library".into())));
            (*batch.cast::<Handle<Batch>>()).header.copy ^= 8;
            let other = status(borrow(batch, "batch"));
            assert!(other.is_some_and(|(_, text)| text.contains("another copy")));
            (*batch.cast::<Handle<Batch>>()).header.copy ^= 8;
            free(batch);
        }
    }

    #[test]
    fn a_panic_poisons_the_handles_of_its_call_only() {
        let batch: *mut vigie_batch = into_raw(Batch::default());
        let other: *mut vigie_batch = into_raw(Batch::default());
        // SAFETY: both handles live until the end.
        unsafe {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _used = borrow(batch, "batch");
                panic!("on purpose");
            }));
            assert!(caught.is_err());
            assert_eq!(status(borrow(batch, "batch")).map(|(status, _)| status), Some(Status::Internal));
            assert!(borrow(other, "batch").is_ok());
            free(batch);
            free(other);
        }
    }
}
