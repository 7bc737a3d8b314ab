//! Lists of commands in the making, for C and C++ (other languages can encode RESP themselves).

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::args::{self, Argv};
use super::handle::{self, Noun};
use super::types::vigie_batch;
use super::{dispose, total};
use crate::error::Result;
use crate::resp::encode;

impl Noun for vigie_batch {
    type Value = Batch;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.batc");
    const PLAIN: bool = true;
}

/// Stands in front of what went wrong with a batch. It is not RESP, so that such a list cannot run anywhere by
/// mistake.
const MARK: &str = "!vigie batch: ";
/// What a thread gets that reads a batch while another one uses it.
const SHARED: &str = "!vigie batch: used by two threads at the same time\r\n";

/// The encoded list.
#[derive(Default)]
pub(super) struct Batch {
    list: Mutex<List>, // only ever tried, never waited for
    /// Two threads met: a command is missing, so the list is of no use until it is cleared.
    shared: AtomicBool,
}

#[derive(Default)]
struct List {
    data: Vec<u8>,
    /// After a mistake `data` is a line that says which; nothing more is added until it is cleared.
    broken: bool,
}

impl Batch {
    /// The list, unless another thread has it.
    fn own(&self) -> Option<MutexGuard<'_, List>> {
        let list = self.list.try_lock().ok();
        if list.is_none() {
            self.shared.store(true, Ordering::Release);
        }
        list
    }
}

impl List {
    fn broke(&mut self, text: &str) {
        self.data = format!("{MARK}{text}\r\n").into_bytes();
        self.broken = true;
    }
}

/// Refuses a list that carries the mark of a misused batch, in the words of the mistake.
pub(super) fn refuse_misused(commands: &[u8]) -> Result<()> {
    match commands.strip_prefix(MARK.as_bytes()) {
        Some(text) => {
            Err(args::invalid(format!("vigie_batch_add: {}", String::from_utf8_lossy(text.trim_ascii_end()))))
        }
        None => Ok(()),
    }
}

/// An empty list.
///
/// Ownership: the caller's, for vigie_batch_free().
/// Blocks: no.
/// Threads: [T].
/// Errors: none: it cannot fail.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_batch_new() -> *mut vigie_batch {
    total(ptr::null_mut(), || Some(handle::into_raw(Batch::default())))
}

/// Adds a command to a list.
///
/// Lengths: argc, argv and argvlen are those of vigie_cmd_exec().
/// Ownership: the arguments are copied. What vigie_batch_data() gave before is no longer valid.
/// Blocks: no.
/// Threads: [X].
/// Errors: they stick: after a wrong argument the list stays unusable until vigie_batch_clear(), and
/// vigie_cmds_exec() and vigie_cmds_submit() refuse it with VIGIE_ERR_INVALID_ARG and the reason. A NULL batch is a no-op.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_add(
    batch: *mut vigie_batch,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total((), || unsafe {
        let batch = handle::borrow(batch, "batch").ok()?;
        let mut list = batch.own()?;
        if !list.broken {
            let added = Argv { argc, argv, argvlen }.with(|args| {
                encode::command(&mut list.data, args);
                Ok(())
            });
            if let Err(error) = added {
                list.broke(error.message());
            }
        }
        Some(())
    });
}

/// The list as it is now, for vigie_cmds_exec() and vigie_cmds_submit().
///
/// Lengths: *len gets the bytes; len may be NULL. An empty list has length 0.
/// Ownership: belongs to the batch, valid until the next vigie_batch_add(), vigie_batch_clear() or
/// vigie_batch_free().
/// Blocks: no.
/// Threads: [X].
/// Errors: none; NULL and length 0 for a NULL batch.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_data(batch: *const vigie_batch, len: *mut usize) -> *const c_void {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    let (data, bytes) = total((ptr::null(), 0), || {
        let batch = unsafe { handle::borrow(batch, "batch") }.ok()?;
        let list = batch.own().filter(|_| !batch.shared.load(Ordering::Acquire));
        Some(list.map_or((SHARED.as_ptr(), SHARED.len()), |list| (list.data.as_ptr(), list.data.len())))
    });
    if !len.is_null() {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        unsafe { len.write_unaligned(bytes) };
    }
    data.cast()
}

/// Empties a list, and forgets a mistake. The memory is kept for the next commands.
///
/// Ownership: what vigie_batch_data() gave before is no longer valid.
/// Blocks: no.
/// Threads: [X].
/// Errors: none; a NULL batch is a no-op.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_clear(batch: *mut vigie_batch) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total((), || unsafe {
        let batch = handle::borrow(batch, "batch").ok()?;
        let mut list = batch.own()?;
        list.data.clear();
        list.broken = false;
        batch.shared.store(false, Ordering::Release);
        Some(())
    });
}

/// Gives a list back.
///
/// Ownership: the list and its data are gone; NULL is a no-op. Freeing twice is not safe.
/// Blocks: no.
/// Threads: any thread, when no other uses the batch.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_free(batch: *mut vigie_batch) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(batch) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    /// # Safety
    /// `batch` is a live handle.
    unsafe fn data<'a>(batch: *const vigie_batch) -> &'a [u8] {
        let mut len = 0;
        // SAFETY: a live handle gives a pointer that is readable for `len` bytes.
        unsafe { slice::from_raw_parts(vigie_batch_data(batch, &raw mut len).cast(), len) }
    }

    #[test]
    fn commands_are_encoded_one_after_the_other() {
        let batch = vigie_batch_new();
        let argv = [c"GET".as_ptr(), c"k".as_ptr()];
        // SAFETY: a live handle, arrays with as many elements as said.
        unsafe {
            assert_eq!(data(batch), b"");
            vigie_batch_add(batch, 2, argv.as_ptr(), ptr::null());
            vigie_batch_add(batch, 1, argv.as_ptr(), [3usize].as_ptr());
            assert_eq!(data(batch), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$3\r\nGET\r\n");
            vigie_batch_free(batch);
        }
    }

    #[test]
    fn two_threads_on_one_batch_spoil_it_until_it_is_cleared() {
        let batch = vigie_batch_new();
        let argv = [c"PING".as_ptr()];
        // SAFETY: a live handle, an array with as many elements as said.
        unsafe {
            let other = handle::peek(batch).unwrap().list.lock().unwrap();
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            drop(other);
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            assert!(refuse_misused(data(batch)).is_err_and(|error| error.message().contains("two threads")));
            vigie_batch_clear(batch);
            assert_eq!(data(batch), b"");
            vigie_batch_free(batch);
        }
    }

    #[test]
    fn a_mistake_sticks_until_the_batch_is_cleared() {
        let batch = vigie_batch_new();
        let argv = [c"PING".as_ptr(), ptr::null()];
        // SAFETY: a live handle, arrays with as many elements as said.
        unsafe {
            vigie_batch_add(batch, 2, argv.as_ptr(), ptr::null());
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            let error = refuse_misused(data(batch)).unwrap_err();
            assert_eq!(error.message(), "vigie_batch_add: argv[1] is NULL and argvlen is NULL");
            vigie_batch_clear(batch);
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            assert!(refuse_misused(data(batch)).is_ok());
            assert_eq!(data(batch), b"*1\r\n$4\r\nPING\r\n");
            vigie_batch_free(batch);
        }
    }
}
