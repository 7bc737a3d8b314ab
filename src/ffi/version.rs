//! The library as a whole: its version, its features, its status codes, its threads.

use std::ffi::{CStr, c_char, c_int};

use super::types::{OK, vigie_status};
use super::{guard, total};
use crate::error::{Error, Status};
use crate::sys::thread;
use crate::time::Timeout;
use crate::worker;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The features for which vigie_has_feature() gives 1.
#[cfg(feature = "tls")]
const FEATURES: &[&CStr] = &[c"resp3", c"unix", c"tls"];
#[cfg(not(feature = "tls"))]
const FEATURES: &[&CStr] = &[c"resp3", c"unix"];

/// Every code of the header, VIGIE_OK first.
static CODES: [vigie_status; Status::ALL.len() + 1] = {
    let mut codes = [OK; Status::ALL.len() + 1];
    let mut i = 0;
    while i < Status::ALL.len() {
        codes[i + 1] = Status::ALL[i].status as vigie_status;
        i += 1;
    }
    codes
};

const fn part(text: &str) -> u32 {
    let mut number = 0;
    let mut i = 0;
    while i < text.len() {
        number = number * 10 + (text.as_bytes()[i] - b'0') as u32;
        i += 1;
    }
    number
}

const NUMBER: u32 = part(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | part(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | part(env!("CARGO_PKG_VERSION_PATCH"));

/// The version of the library that runs, such as "0.1.0"; the header's is in VIGIE_VERSION_MAJOR and the like.
///
/// Ownership: a static text, never NULL, not to be freed.
/// Blocks: no.
/// Threads: [T].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library that runs as a number, to compare with VIGIE_VERSION_NUMBER of the header.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_version_number() -> u32 {
    NUMBER
}

/// Whether this build of the library has a feature: 1 or 0. This version knows "resp3", "unix" (Unix sockets
/// for data nodes) and "tls" (not in a build with TLS=0).
///
/// Ownership: the name is only read; nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none; NULL and unknown names give 0.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_has_feature(name: *const c_char) -> c_int {
    total(0, || {
        if name.is_null() {
            return None;
        }
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        let name = unsafe { CStr::from_ptr(name) };
        Some(c_int::from(FEATURES.contains(&name)))
    })
}

/// The name of a status code as in this header, such as "VIGIE_ERR_TIMEOUT"; "VIGIE_OK" for 0.
///
/// Ownership: a static text, never NULL, not to be freed.
/// Blocks: no.
/// Threads: [T].
/// Errors: none; a number that is not a code gives "unknown status code".
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_status_name(code: vigie_status) -> *const c_char {
    if code == OK {
        return c"VIGIE_OK".as_ptr();
    }
    let unknown = c"unknown status code".as_ptr();
    total(unknown, || Status::from_code(code).map(|status| status.info().name_nul.as_ptr().cast()))
}

/// Every status code of the library, VIGIE_OK first: for bindings that make their error classes from it.
///
/// Lengths: returns how many there are; *codes points to the first one. codes may be NULL.
/// Ownership: *codes is a static array, not to be freed.
/// Blocks: no.
/// Threads: [T].
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_status_list(codes: *mut *const vigie_status) -> usize {
    if !codes.is_null() {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        unsafe { codes.write_unaligned(CODES.as_ptr()) };
    }
    CODES.len()
}

/// Waits until no thread of the library is left. Idle threads end at once meanwhile, so that it returns within moments
/// once the last handle is freed; a host name that the system's resolver does not answer can keep one of them longer, and
/// so can a file that log.fd stood for and that hangs.
/// For a clean end under a leak checker, and before a plugin's host unloads it.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT and VIGIE_TIMEOUT_NONE: no limit. Any other value <=
/// 0: only looks.
/// Ownership: nothing to free.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: VIGIE_ERR_TIMEOUT: threads are left; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_threads_join(timeout_ms: i64) -> vigie_status {
    let body = || {
        let deadline = Timeout::from_ms(timeout_ms).deadline_or_never();
        let _dismissal = worker::dismiss();
        if thread::join_all(deadline) { Ok(()) } else { Err(Error::new(Status::Timeout, "threads are left")) }
    };
    // SAFETY: there is no output.
    unsafe { guard("vigie_threads_join", std::ptr::null_mut(), body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_agree() {
        assert_eq!(CODES.len(), Status::ALL.len() + 1);
        for code in CODES {
            // SAFETY: the function returns a static text.
            let name = unsafe { CStr::from_ptr(vigie_status_name(code)) }.to_str().unwrap();
            assert_eq!(name, Status::from_code(code).map_or("VIGIE_OK", |status| status.info().name));
        }
    }

    #[test]
    fn the_number_is_the_version() {
        let text = format!("{}.{}.{}", NUMBER >> 16, NUMBER >> 8 & 255, NUMBER & 255);
        assert_eq!(VERSION.to_str(), Ok(text.as_str()));
    }
}
