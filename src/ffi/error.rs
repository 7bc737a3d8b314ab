//! Errors as C sees them.

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use super::handle::{self, Noun};
use super::types::{OK, vigie_error, vigie_reply, vigie_status};
use super::{dispose, total};
use crate::error::Error;

impl Noun for vigie_error {
    type Value = Texts;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.erro");
    const PLAIN: bool = true;
}

/// An error with its texts ready for C.
pub(super) struct Texts {
    error: Error,
    message: CString,
    server_code: CString,
    endpoint: CString,
    /// NULL without one.
    reply: *mut vigie_reply,
}

impl Texts {
    pub(super) fn new(error: Error) -> Self {
        let (message, server_code) = (c_text(error.message()), c_text(error.server_code()));
        let endpoint = c_text(error.endpoint());
        let reply = error.reply().map_or(ptr::null_mut(), |reply| handle::of_reply(reply.clone()));
        Self { error, message, server_code, endpoint, reply }
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        // SAFETY: NULL or made above, and lent only for as long as the error lives.
        unsafe { dispose(self.reply) };
    }
}

/// A NUL inside a text (a server may send one) would end it for C: it is escaped instead.
fn c_text(text: &str) -> CString {
    CString::new(text).or_else(|_| CString::new(text.replace('\0', "\\0"))).unwrap_or_default()
}

/// The status of an error; VIGIE_OK for NULL.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; anything that is not an error gives VIGIE_OK.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_status(error: *const vigie_error) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(OK, || unsafe { handle::peek(error) }.map(|texts| texts.error.status().code()))
}

/// The message: what was tried, where, what happened and after how long. For VIGIE_ERR_SERVER it is the server's line,
/// unaltered; where a server refuses a new connection its line follows what was tried. On a client of vigie_shards_for() the name of
/// the shard stands behind the line, as in " (node_2)", and behind that what became of the others. Never NULL.
///
/// Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
/// Blocks: no.
/// Threads: [C].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_message(error: *const vigie_error) -> *const c_char {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(c"".as_ptr(), || unsafe { handle::peek(error) }.map(|texts| texts.message.as_ptr()))
}

/// The first word of the server's error, such as "WRONGTYPE"; "" when the error is not a server's. Never NULL.
///
/// Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
/// Blocks: no.
/// Threads: [C].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_server_code(error: *const vigie_error) -> *const c_char {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(c"".as_ptr(), || unsafe { handle::peek(error) }.map(|texts| texts.server_code.as_ptr()))
}

/// The server that it happened with, such as "10.0.0.3:6379"; "" when there is none. Never NULL.
///
/// Ownership: belongs to the error, valid until vigie_error_free(); "" (static) for NULL.
/// Blocks: no.
/// Threads: [C].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_endpoint(error: *const vigie_error) -> *const c_char {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(c"".as_ptr(), || unsafe { handle::peek(error) }.map(|texts| texts.endpoint.as_ptr()))
}

/// The VIGIE_EF_* bits of the error: whether to try again, and whether it may have run. Unknown bits must be ignored.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; 0 for NULL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_flags(error: *const vigie_error) -> u32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::peek(error) }.map(|texts| texts.error.flags()))
}

/// For VIGIE_ERR_REPLICAS how many replicas have the write; -1 for every other error.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; -1 for NULL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_count(error: *const vigie_error) -> i64 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(-1, || unsafe { handle::peek(error) }.map(|texts| texts.error.count()))
}

/// The system's error number (errno), such as ECONNREFUSED; 0 when the error is not from the system.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [C].
/// Errors: none; 0 for NULL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_errno(error: *const vigie_error) -> c_int {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::peek(error) }.map(|texts| texts.error.errno()))
}

/// The server's answer to a call that failed despite it: for VIGIE_ERR_IO the answer that came while another primary
/// was taking over, for VIGIE_ERR_REPLICAS that of the write, for VIGIE_ERR_TXN_ABORTED the replies to the list with
/// the EXEC; for a list whose end failed, the known replies, from the first command on. So what an LPOP has taken, for
/// example, is not lost with the error. NULL if there is no such answer, as with most errors.
///
/// Ownership: belongs to the error, valid until vigie_error_free(); not for vigie_reply_free().
/// Blocks: no.
/// Threads: [C].
/// Errors: none; NULL for NULL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_reply(error: *const vigie_error) -> *const vigie_reply {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(ptr::null(), || unsafe { handle::peek(error) }.map(|texts| texts.reply.cast_const()))
}

/// Frees an error.
///
/// Ownership: the error, its texts and its reply are gone; NULL is a no-op. Freeing twice is not safe.
/// Blocks: no.
/// Threads: any thread, when no other uses the error.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_error_free(error: *mut vigie_error) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(error) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Status, flags};
    use crate::resp::ReplyBuilder;
    use std::ffi::CStr;

    #[test]
    fn everything_that_an_error_knows_reaches_c() {
        let error = Error::from_server(b"WRONGTYPE a\0b", "127.0.0.1:1").with_flags(flags::FAILOVER).with_count(3);
        let error: *mut vigie_error = handle::into_raw(Texts::new(error));
        // SAFETY: a live handle, freed once at the end.
        unsafe {
            assert_eq!(vigie_error_status(error), Status::Server.code());
            assert_eq!(CStr::from_ptr(vigie_error_message(error)), c"WRONGTYPE a\\0b");
            assert_eq!(CStr::from_ptr(vigie_error_server_code(error)), c"WRONGTYPE");
            assert_eq!(CStr::from_ptr(vigie_error_endpoint(error)), c"127.0.0.1:1");
            assert_eq!((vigie_error_flags(error), vigie_error_count(error)), (flags::FAILOVER, 3));
            assert_eq!(vigie_error_errno(error), 0);
            assert!(vigie_error_reply(error).is_null() && vigie_error_reply(ptr::null()).is_null());
            vigie_error_free(error);
        }
    }

    #[test]
    fn the_reply_of_an_error_is_read_like_any_other_and_lives_as_long_as_the_error() {
        let reply = ReplyBuilder::new().array().text("kept").int(7).end().finish();
        let error: *mut vigie_error = handle::into_raw(Texts::new(Error::new(Status::Io, "").with_reply(reply)));
        // SAFETY: a live handle, freed once at the end; what is read of it is read before.
        unsafe {
            let reply = vigie_error_reply(error);
            assert_eq!(handle::peek(reply).and_then(|reply| reply.bytes(1)), Some(&b"kept"[..]));
            assert_eq!(handle::peek(vigie_error_reply(error)).and_then(|reply| reply.int(2)), Some(7));
            vigie_error_free(error);
        }
    }
}
