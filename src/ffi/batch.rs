//! Lists of commands that are being built, for C and C++ (other languages can encode RESP themselves).

use std::ffi::{c_char, c_void};
use std::ops::DerefMut;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{self, Argv};
use super::handle::{self, InUse, Noun};
use super::types::{vigie_batch, vigie_client, vigie_error, vigie_queue, vigie_reply, vigie_status};
use super::{client, dispose, guard, total};
use crate::error::{Error, Result, Status};
use crate::resp::encode;
use crate::sys::tried::Tried;

impl Noun for vigie_batch {
    type Value = Batch;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.batc");
    const PLAIN: bool = true;
}

/// The mark in front of the text of a mistake. It is not RESP, so that such a list cannot run anywhere by accident.
const MARK: &str = "!vigie batch: ";
/// The text for a thread that reads a batch while another one uses it.
const SHARED: &str = "!vigie batch: batch is used by two threads at the same time: clear it with vigie_batch_clear(), and give each thread a batch of its own\r\n";

/// The encoded list.
#[derive(Default)]
pub(super) struct Batch {
    list: Tried<List>,
    /// Two threads used it at the same time: a command is missing, so the list cannot be used until it is cleared.
    shared: AtomicBool,
}

#[derive(Default)]
struct List {
    data: Vec<u8>,
    /// After a mistake `data` is a line that describes it; nothing more is added until the list is cleared.
    broken: Option<Status>,
}

impl Batch {
    /// The list, unless another thread has it.
    fn own(&self) -> Option<impl DerefMut<Target = List>> {
        let list = self.list.write();
        if list.is_none() {
            self.shared.store(true, Ordering::Release);
        }
        list
    }
}

impl List {
    fn add(&mut self, command: &Argv) {
        if self.broken.is_some() {
            return;
        }
        // SAFETY: the caller of vigie_batch_add() keeps the contract of ffi/mod.rs.
        let added = unsafe { command.with(|args| encode::try_command(&mut self.data, args)) };
        if let Err(error) = added {
            self.data = format!("{MARK}{}\r\n", error.message()).into_bytes();
            self.broken = Some(error.status());
        }
    }
}

/// Runs something with the list of a batch, which no other thread may use meanwhile.
///
/// # Safety
/// `batch` is NULL or a handle that no other thread frees meanwhile.
unsafe fn with_list(batch: *const vigie_batch, run: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
    // SAFETY: as for this function.
    let batch: InUse<'_, Batch> = unsafe { handle::borrow(batch, "batch") }?;
    let list = batch.own().filter(|_| !batch.shared.load(Ordering::Acquire));
    let Some(list) = list else { return Err(misused(SHARED.as_bytes(), Status::InvalidState)) };
    match list.broken {
        None => run(&list.data),
        Some(status) => Err(misused(&list.data, status)),
    }
}

/// The error that a marked line describes.
fn misused(line: &[u8], status: Status) -> Error {
    let text =
        String::from_utf8_lossy(line.strip_prefix(MARK.as_bytes()).unwrap_or(line).trim_ascii_end()).into_owned();
    let by_adding = if status == Status::InvalidState { "" } else { "vigie_batch_add: " };
    Error::new(status, format!("{by_adding}{text}"))
}

/// Refuses a list that carries the mark of a misused batch, in the words of the mistake.
pub(super) fn refuse_misused(commands: &[u8]) -> Result<()> {
    if commands == SHARED.as_bytes() {
        return Err(misused(commands, Status::InvalidState));
    }
    match commands.starts_with(MARK.as_bytes()) {
        true => Err(misused(commands, Status::InvalidArg)),
        false => Ok(()),
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
/// Errors: they stick: after a wrong argument (VIGIE_ERR_INVALID_ARG), without memory for the command (VIGIE_ERR_LIMIT), or
/// when two threads use the batch at the same time (VIGIE_ERR_INVALID_STATE) the list stays unusable until
/// vigie_batch_clear(): vigie_batch_exec() and vigie_batch_submit() refuse it with this status and the reason. A NULL batch
/// is a no-op.
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
        batch.own()?.add(&Argv { argc, argv, argvlen });
        Some(())
    });
}

/// Runs the list and waits for all replies, as vigie_cmds_exec() does. The list stays as it is, for another time.
///
/// Lengths: flags and timeout_ms are those of vigie_cmds_exec().
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL: the replies are discarded.
/// Blocks: up to timeout_ms.
/// Threads: client is [T]; batch is [X] during the whole call. Another thread that uses it meanwhile is refused, and
/// makes the list unusable until vigie_batch_clear(); the call itself is not affected.
/// Errors: as vigie_cmds_exec(); VIGIE_ERR_INVALID_STATE: two threads use the batch, or used it before;
/// VIGIE_ERR_INVALID_ARG, VIGIE_ERR_LIMIT: also what vigie_batch_add() met. Nothing was sent then.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_exec(
    client: *mut vigie_client,
    batch: *const vigie_batch,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_batch_exec", err, || {
            with_list(batch, |commands| client::exec_list(client, commands, flags, timeout_ms, out))
        })
    }
}

/// Runs the list without waiting, as vigie_cmds_submit() does.
///
/// Lengths: flags and timeout_ms are those of vigie_cmds_submit().
/// Ownership: the list is copied: the batch can be cleared and filled again at once. The queue may be freed while
/// calls are running: they go on, and their completions are dropped.
/// Blocks: no, as vigie_cmds_submit().
/// Threads: client and queue are [T]; batch is [X].
/// Errors: as vigie_cmds_submit(); VIGIE_ERR_INVALID_STATE: two threads use the batch, or used it before;
/// VIGIE_ERR_INVALID_ARG, VIGIE_ERR_LIMIT: also what vigie_batch_add() met. A list that is refused here has no completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_batch_submit(
    client: *mut vigie_client,
    batch: *const vigie_batch,
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_batch_submit", err, || {
            with_list(batch, |commands| client::submit_list(client, commands, flags, timeout_ms, queue, token))
        })
    }
}

/// The list as it is now: RESP, for vigie_cmds_exec(), vigie_cmds_submit(), or other uses. To run it,
/// vigie_batch_exec() and vigie_batch_submit() are shorter and safer.
///
/// Lengths: *len gets the bytes; len may be NULL. An empty list has length 0.
/// Ownership: belongs to the batch, valid until the next vigie_batch_add(), vigie_batch_clear() or
/// vigie_batch_free().
/// Blocks: no.
/// Threads: [X], for as long as the bytes are read. While another thread is inside a function of the batch, or after
/// that has happened, this gives a line that is not RESP in place of the list. Bytes that were returned before are not
/// protected: a vigie_batch_add() of another thread frees them while they are read, which is undefined behaviour.
/// Errors: none; NULL and length 0 for a NULL batch. After a mistake in vigie_batch_add() the line describes it; the
/// functions that take a list refuse it with VIGIE_ERR_INVALID_ARG or VIGIE_ERR_INVALID_STATE.
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

/// Empties a list and clears its mistake. The memory is kept for the next commands.
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
        list.broken = None;
        batch.shared.store(false, Ordering::Release);
        Some(())
    });
}

/// Frees a list.
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
            let other = handle::peek(batch).unwrap().list.write();
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            drop(other);
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            let error = refuse_misused(data(batch)).unwrap_err();
            assert!(error.message().contains("clear it with vigie_batch_clear()"), "{error}");
            assert_eq!(error.status(), Status::InvalidState);
            assert_eq!(with_list(batch, |_| Ok(())).unwrap_err().status(), Status::InvalidState);
            vigie_batch_clear(batch);
            // While a call runs the list no other thread may use it.
            let met = with_list(batch, |list| {
                assert_eq!(list, b"");
                vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
                vigie_batch_clear(batch);
                with_list(batch, |_| Ok(()))
            });
            assert_eq!(met.unwrap_err().status(), Status::InvalidState);
            assert_eq!(with_list(batch, |_| Ok(())).unwrap_err().status(), Status::InvalidState);
            vigie_batch_clear(batch);
            assert!(with_list(batch, |_| Ok(())).is_ok());
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
            let refused = with_list(batch, |_| Ok(())).unwrap_err();
            assert_eq!((refused.status(), refused.message()), (Status::InvalidArg, error.message()));
            vigie_batch_clear(batch);
            vigie_batch_add(batch, 1, argv.as_ptr(), ptr::null());
            assert!(refuse_misused(data(batch)).is_ok());
            assert_eq!(data(batch), b"*1\r\n$4\r\nPING\r\n");
            vigie_batch_free(batch);
        }
    }
}
