//! Settings as C sees them.

use std::ffi::c_char;

use super::handle::{self, Noun};
use super::types::{vigie_config, vigie_error, vigie_reply, vigie_status};
use super::{args, dispose, guard, reply, total};
use crate::config::{Config, Described};
use crate::error::{Error, Result, Status};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::tried::Tried;

impl Noun for vigie_config {
    type Value = Tried<Config>;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.conf");
    const PLAIN: bool = true;
}

/// The error when another thread uses it.
fn refused() -> Error {
    Error::new(Status::InvalidState, "the config is being changed by another thread")
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
    let guard = config.read().ok_or_else(refused)?;
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
    total(std::ptr::null_mut(), || Some(handle::into_raw(Tried::new(Config::new()))))
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
            config.write().ok_or_else(refused)?.set(key, value)
        })
    }
}

/// Every option, for tools and for bindings that check their own documentation: an ARRAY with one MAP for each option,
/// with the texts key, value (as set here; a secret is "***"), default, type, range, text and since, and the booleans
/// dynamic (vigie_sentinel_configure() can change it) and override (a client may have its own).
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
            reply::put(out, table(&rows));
            Ok(())
        })
    }
}

/// Frees a config. Handles that were made from it are not affected.
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

fn table(options: &[Described]) -> Reply {
    let mut reply = ReplyBuilder::new();
    reply.array();
    for option in options {
        let texts = [
            ("key", option.key),
            ("value", &option.value),
            ("default", option.default),
            ("type", option.type_name),
            ("range", &option.range),
            ("text", option.text),
            ("since", option.since),
        ];
        reply.map();
        for (key, text) in texts {
            reply.text(key).text(text);
        }
        reply.text("dynamic").bool(option.dynamic).text("override").bool(option.per_client).end();
    }
    reply.end().finish()
}

/// Runs `make` with the overrides; NULL is none.
///
/// # Safety
/// `overrides` is NULL or a live handle.
pub(super) unsafe fn with_overrides<R>(
    overrides: *const vigie_config,
    make: impl FnOnce(Option<&Config>) -> Result<R>,
) -> Result<R> {
    if overrides.is_null() {
        return make(None);
    }
    // SAFETY: as for this function.
    unsafe { read(overrides, "overrides", |config| make(Some(config))) }
}

#[cfg(test)]
mod tests {
    use super::super::error::{vigie_error_free, vigie_error_status};
    use super::*;
    use std::ptr;

    #[test]
    fn a_config_that_another_thread_uses_is_refused_not_waited_for() {
        let config = vigie_config_new();
        let mut err = ptr::null_mut();
        // SAFETY: live handles and variables, each freed once.
        unsafe {
            let lock = handle::peek(config).unwrap();
            let reader = lock.read().unwrap();
            let busy = vigie_config_set(config, c"db".as_ptr(), c"1".as_ptr(), &raw mut err);
            assert_eq!((busy, vigie_error_status(err)), (Status::InvalidState.code(), Status::InvalidState.code()));
            vigie_error_free(err);
            assert_eq!(vigie_config_describe(config, ptr::null_mut(), ptr::null_mut()), 0);
            drop(reader);
            let writer = lock.write().unwrap();
            let busy = vigie_config_describe(config, ptr::null_mut(), ptr::null_mut());
            assert_eq!(busy, Status::InvalidState.code());
            drop(writer);
            assert_eq!(vigie_config_set(config, c"db".as_ptr(), c"1".as_ptr(), ptr::null_mut()), 0);
            vigie_config_free(config);
        }
    }

    #[test]
    fn every_option_is_described() {
        let reply = table(&Config::new().describe());
        assert_eq!(reply.count(0) as usize, Config::new().describe().len());
        let first = reply.child(0, 0).unwrap();
        for key in ["key", "value", "default", "type", "range", "text", "since", "dynamic", "override"] {
            assert!(reply.find(first, key.as_bytes()).is_some(), "{key}");
        }
    }
}
