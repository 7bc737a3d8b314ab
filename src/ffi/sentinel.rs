//! Sentinels as C sees them.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{self, Noun};
use super::types::{vigie_config, vigie_error, vigie_queue, vigie_reply, vigie_sentinel, vigie_status};
use super::{args, config, dispose, guard, reply};
use crate::client::{self, Timeout};
use crate::config::Config;
use crate::topology::Sentinel;

impl Noun for vigie_sentinel {
    type Value = Arc<Sentinel>;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.sent");
    const PLAIN: bool = false;
}

/// Checks the settings as a whole and starts with them. Clients are made from the handle: vigie_primary_for() and the
/// like. With a primary in place of Sentinels (the option primary.addr, or a URI redis://host:port/db) it is the same handle:
/// every service name leads to that primary, and nobody else is asked. What is said of Sentinels below holds for the primary then:
/// it must be there, and have confirmed its role.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT, and any value <= 0: do not wait; the first command
/// asks the Sentinels. Above 0, and VIGIE_TIMEOUT_NONE: a Sentinel must answer in that time. One that refuses the
/// connection, or that is no Sentinel, is tried again until the time is over, because it may be starting; with
/// VIGIE_TIMEOUT_NONE there is no limit. The function returns at once if all Sentinels that can be reached refuse the
/// credentials.
/// Ownership: *out is the caller's, for vigie_sentinel_free(). The config is copied, and may be changed or freed
/// afterwards.
/// Blocks: up to timeout_ms.
/// Threads: [T]; the config is [C] meanwhile.
/// Errors: VIGIE_ERR_CONFIG: settings that are missing or contradict each other; VIGIE_ERR_NO_SENTINEL: none answered
/// in time; VIGIE_ERR_NO_PRIMARY, VIGIE_ERR_ROLE: the given primary did not, or is none; VIGIE_ERR_AUTH: they refuse the credentials (a command that the user may not run is reported by the first
/// call that needs it); VIGIE_ERR_INVALID_ARG: config or out is NULL; VIGIE_ERR_INVALID_STATE: another thread changes
/// the config; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_create(
    config: *const vigie_config,
    timeout_ms: i64,
    out: *mut *mut vigie_sentinel,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_create", err, || {
            args::wanted(out)?;
            let settings = config::read(config, "config", Config::settings)?;
            let wait = match Timeout::from_ms(timeout_ms) {
                Timeout::Default | Timeout::DontWait => None,
                timeout => Some(timeout.deadline(Duration::ZERO)),
            };
            args::put(out, Sentinel::create(settings, wait)?);
            Ok(())
        })
    }
}

/// What is known now, without asking the Sentinels: a MAP for the service with its primary, replicas, Sentinels and
/// epoch. service NULL: all services that were asked for. TOPOLOGY.md lists the keys. A service that was never asked
/// for gives VIGIE_OK and a map without a primary; vigie_sentinel_refresh() asks the Sentinels whether it exists. The
/// library asks about a name that no Sentinel knows after growing pauses, and forgets it 60 s after its last use. A watch
/// of the handle (vigie_sentinel_watch()) holds all services that were asked for.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. service is copied.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL, or service is empty; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_topology(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_topology", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            let service = args::optional(service, "service")?;
            reply::put(out, sentinel.topology(service)?);
            Ok(())
        })
    }
}

/// Asks the Sentinels now, verifies what they say, and answers as vigie_sentinel_topology(). service NULL: all services that
/// were asked for, and the one of the configuration; it fails only if none of them was found, and the key error of each
/// service says what is wrong with that one. From then on the service is followed.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no
/// limit. Any other value <= 0: VIGIE_ERR_TIMEOUT at once.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. service is copied.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: VIGIE_ERR_NO_SENTINEL, VIGIE_ERR_UNKNOWN_SERVICE, VIGIE_ERR_NO_PRIMARY, VIGIE_ERR_SPLIT_VIEW: the message
/// has the answer of each Sentinel; VIGIE_ERR_AUTH; VIGIE_ERR_TIMEOUT; VIGIE_ERR_INVALID_ARG; VIGIE_ERR_CLOSED;
/// VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_refresh(
    sentinel: *mut vigie_sentinel,
    service: *const c_char,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_refresh", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            let service = args::optional(service, "service")?;
            let deadline = Timeout::from_ms(timeout_ms).deadline(sentinel.settings().client.timeout_call);
            reply::put(out, sentinel.refresh(service, deadline)?);
            Ok(())
        })
    }
}

/// Watches the services of this handle from now on: events arrive on the queue with this token. What holds already is not
/// told: vigie_sentinel_topology() has it. While the watch lasts, a service is followed as soon as a client is made for it
/// or vigie_sentinel_refresh() names it, without a call, and until the watch ends, even if nobody uses it any more. The first
/// primary of a service that was unknown is a NOTICE (+monitor), because nothing was switched. Every event's reply is a MAP. EVENTS.md lists the kinds, the keys of their maps, and the values of the key
/// cause, which gives the reason in a form that a program can act on: VIGIE_EVENT_TOPOLOGY: service, from, to;
/// VIGIE_EVENT_NOTICE: service, primary; VIGIE_EVENT_FENCE: service, on; VIGIE_EVENT_DEGRADED: on;
/// VIGIE_EVENT_REPLICA: service, replica, fit (NULL: it was only mentioned); VIGIE_EVENT_SENTINEL: sentinel, up (NULL:
/// it was only mentioned).
///
/// Lengths: event_kinds are VIGIE_EVENT_* bits, or VIGIE_EVENT_ALL; 0 ends the watch. There is one watch per handle
/// and queue: a new one replaces the one before.
/// Ownership: nothing changes hands; the watch ends when the queue is freed.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: NULL, or kinds that cannot be watched; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_watch(
    sentinel: *mut vigie_sentinel,
    event_kinds: u32,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_watch", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            let queue = handle::borrow(queue, "queue")?;
            sentinel.watch(event_kinds, &queue.0, token)
        })
    }
}

/// Changes an option that CONFIGURATION.md marks as dynamic: credentials, db, address map. It holds for connections
/// made from now on.
///
/// Ownership: key and value are copied.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_CONFIG: unknown or not dynamic, or a bad value; VIGIE_ERR_INVALID_ARG: NULL, or not UTF-8;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_configure(
    sentinel: *mut vigie_sentinel,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_configure", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            sentinel.configure(args::text(key, "key")?, args::text(value, "value")?)
        })
    }
}

/// Closes the Sentinels and every client made from the handle, as vigie_client_close() does. A second close is a
/// no-op.
///
/// Lengths: timeout_ms is in milliseconds, for the calls that are running, all clients together.
/// VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: they end at
/// once.
/// Ownership: nothing is freed: handles are still to be freed, in any order.
/// Blocks: up to timeout_ms, and for each client up to 100 ms more until the blocking commands that it ended have returned.
/// Threads: [T].
/// Errors: VIGIE_ERR_TIMEOUT: other calls were running at the end and were ended (it is closed all the same);
/// VIGIE_ERR_INVALID_ARG: NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_close(
    sentinel: *mut vigie_sentinel,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_close", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            client::close_all(&sentinel, Timeout::from_ms(timeout_ms))
        })
    }
}

/// Frees a sentinel. Clients made from it keep what they need and go on.
///
/// Ownership: the handle is gone; NULL is a no-op. Freeing twice is not safe. In a forked child the memory is left
/// alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_free(sentinel: *mut vigie_sentinel) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(sentinel) };
}
