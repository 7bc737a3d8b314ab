//! The C border: one file per noun, thin functions, `guard` around each; no logic.
//!
//! Guarantees: no panic leaves the library; `*out` and `*err` are NULL unless something was put there; a wrong argument gives an
//! error that names it. Leaves to others: everything that a function does (`client`, `topology`, `queue`, `config`, `resp`).
//!
//! **The safety contract**, which every `unsafe extern "C"` function here relies on, stated once:
//! - A pointer to a handle is NULL or came from this library, and no other thread frees it during the call. What else
//!   can be told apart (another kind, another copy of the library, freed memory that is still recognisable) is refused,
//!   as a courtesy.
//! - A pointer with a length, and an array with a count, is NULL or readable for that long during the call.
//! - A text is NULL or ends with a NUL.
//! - An output pointer is NULL or writable; its alignment does not matter.
//! - What a function returns as a pointer into a handle is used only while that handle lives.
//!
//! The functions are written out, not made by macros: cbindgen has to see them, and their comments are the C manual.

#![allow(clippy::missing_safety_doc)] // the contract is above; "# Safety" headings would land in the C header
#![allow(rustdoc::broken_intra_doc_links)] // [T], [C] and [X] are the header's letters for thread safety

mod args;
pub mod batch;
pub mod call;
pub mod client;
pub mod config;
pub mod error;
mod handle;
mod inherited;
pub mod jobs;
mod packed;
pub mod queue;
pub mod reply;
pub mod scan;
pub mod sentinel;
pub mod shards;
pub mod sub;
pub mod types;
pub mod version;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result, Status};
use crate::sys::panic;
use types::{OK, vigie_error, vigie_status};

/// Runs the body of a function that can fail: clears `*err`, catches a panic, turns the error into a status and an
/// object.
///
/// # Safety
/// `err` is NULL or writable.
unsafe fn guard(name: &str, err: *mut *mut vigie_error, body: impl FnOnce() -> Result<()>) -> vigie_status {
    // SAFETY: as for this function.
    unsafe { args::reset(err) };
    let _whole = cancel::Off::new();
    match catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(internal(&*panic))) {
        Ok(()) => OK,
        // SAFETY: as for this function.
        Err(error) => unsafe { report(name, err, error) },
    }
}

/// Runs the body of a function that has no status: a panic gives `if_not`.
fn total<T>(if_not: T, body: impl FnOnce() -> Option<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Some(value)) => value,
        Ok(None) | Err(_) => if_not,
    }
}

/// Frees a handle. What happens in there is not reported.
///
/// # Safety
/// `handle` is NULL or a handle that no call uses now or later.
#[inline(always)]
unsafe fn dispose<N: handle::Noun>(handle: *mut N) {
    let _whole = cancel::Off::new(); // closing a socket is a point of cancellation
    // SAFETY: as for this function.
    unsafe { let_go(handle) };
}

/// As [`dispose`], for one of many; cancellation is off already.
///
/// # Safety
/// As for [`dispose`].
#[inline(always)]
unsafe fn let_go<N: handle::Noun>(handle: *mut N) {
    if !handle.is_null() {
        // SAFETY: as for this function.
        total((), || unsafe { handle::free(handle) });
    }
}

/// The status of an error, and the error itself in `*err` if the caller wants it.
///
/// # Safety
/// `err` is NULL or writable.
#[cold]
unsafe fn report(name: &str, err: *mut *mut vigie_error, error: Error) -> vigie_status {
    let status = error.status();
    if !err.is_null() {
        // A mistake of the caller is found by the name of the function; a failure of the network is not.
        let blame = matches!(status, Status::InvalidArg | Status::InvalidState | Status::Forked | Status::Internal);
        let error = if blame { error.in_context(name) } else { error };
        // SAFETY: as for this function.
        unsafe { args::put(err, error::Texts::new(error)) };
    }
    status.code()
}

#[cold]
fn internal(caught: &(dyn Any + Send)) -> Error {
    Error::new(Status::Internal, format!("a bug in libvigie: {}", panic::describe(caught)))
}

/// POSIX thread cancellation unwinds through every frame; here it would leave locks held, and abort. It waits until the call is
/// over.
mod cancel {
    use libc::c_int;

    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    }

    #[cfg(target_vendor = "apple")]
    const DISABLE: c_int = 0;
    #[cfg(not(target_vendor = "apple"))]
    const DISABLE: c_int = 1;

    /// While it exists this thread cannot be cancelled.
    pub(super) struct Off(c_int);

    impl Off {
        pub(super) fn new() -> Self {
            let mut old = DISABLE;
            // SAFETY: only changes a flag of this thread and writes the old one to a live variable.
            unsafe { pthread_setcancelstate(DISABLE, &raw mut old) };
            Self(old)
        }
    }

    impl Drop for Off {
        fn drop(&mut self) {
            let mut old = DISABLE;
            // SAFETY: as above; the state is the one that the thread came with.
            unsafe { pthread_setcancelstate(self.0, &raw mut old) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn a_panic_becomes_an_error_that_names_the_function() {
        let mut err = ptr::null_mut();
        // SAFETY: `err` is a live variable, and the error it gets is freed once.
        unsafe {
            assert_eq!(guard("vigie_test", &raw mut err, || panic!("on purpose")), Status::Internal.code());
            let message = std::ffi::CStr::from_ptr(error::vigie_error_message(err));
            assert!(message.to_str().unwrap().starts_with("vigie_test: a bug in libvigie: on purpose"));
            error::vigie_error_free(err);
        }
    }

    #[test]
    fn a_function_without_a_status_answers_its_default() {
        assert_eq!(total(7, || panic!("on purpose")), 7);
        assert_eq!(total(7, || None), 7);
        assert_eq!(total(7, || Some(8)), 8);
    }
}
