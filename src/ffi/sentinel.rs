//! Sentinels as C sees them.

use std::ffi::c_char;
use std::time::Duration;

use super::args::{self, Argv};
use super::handle::{self, InUse, Noun};
use super::inherited::OpenSentinel;
use super::types::{
    vigie_config, vigie_error, vigie_queue, vigie_reply, vigie_sentinel, vigie_services_flag, vigie_status,
};
use super::{config, dispose, guard, reply};
use crate::client::{self, CallFlags, Timeout};
use crate::config::Config;
use crate::error::Result;
use crate::time::Deadline;
use crate::topology::{Sentinel, To};

impl Noun for vigie_sentinel {
    type Value = OpenSentinel;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.sent");
    const PLAIN: bool = false;
    const INHERITED: bool = true;

    fn reopen(value: &OpenSentinel, name: &str) -> Result<()> {
        value.reopen(name)
    }
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
/// credentials, or if there is no TLS with any of them. A signal does not end the wait.
/// Ownership: *out is the caller's, for vigie_sentinel_free(). The config is copied, and may be changed or freed
/// afterwards.
/// Blocks: up to timeout_ms.
/// Threads: [T]; the config is [C] meanwhile.
/// Errors: VIGIE_ERR_CONFIG: settings that are missing or contradict each other; VIGIE_ERR_NO_SENTINEL: none answered
/// in time; VIGIE_ERR_NO_PRIMARY, VIGIE_ERR_ROLE: the given primary did not, or is none; VIGIE_ERR_TLS: no TLS with any,
/// for example because a certificate is refused; VIGIE_ERR_AUTH: they refuse the credentials (a command that the user may not run is
/// reported by the first call that needs it); VIGIE_ERR_INVALID_ARG: config or out is NULL; VIGIE_ERR_INVALID_STATE: another thread changes
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
            args::put(out, OpenSentinel::new(Sentinel::create(settings, wait)?));
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
            let service = args::optional(service, "service", "the configured one")?;
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
            let service = args::optional(service, "service", "the configured one")?;
            let deadline = Timeout::from_ms(timeout_ms).deadline(sentinel.settings().client.timeout_call);
            reply::put(out, sentinel.refresh(service, deadline)?);
            Ok(())
        })
    }
}

/// Runs a command at a Sentinel: any sub-command of SENTINEL, given without that word ("MASTERS", "FAILOVER", ...), or PING,
/// ROLE, INFO, ACL, CLIENT, COMMAND, PUBLISH or SHUTDOWN. It goes to the first Sentinel that answers; with VIGIE_CALL_ALL to
/// every one that is known, one after the other. It goes to the next one only if it just reads, or if it was not sent completely:
/// a FAILOVER whose reply was lost is VIGIE_ERR_IO with VIGIE_EF_MAYBE_EXECUTED. What acts goes to the Sentinels in the same
/// order each time, so that a second FAILOVER meets the first one (-INPROG) instead of a Sentinel that promotes another replica.
/// What changes one Sentinel and not the deployment (MONITOR, REMOVE, SET, RESET, CONFIG SET, FLUSHCONFIG, DEBUG,
/// SIMULATE-FAILURE, SHUTDOWN, ACL SETUSER and the like) wants VIGIE_CALL_ALL, or an address by vigie_sentinel_exec_at(). Changed
/// settings of a service do not count for the clients of this handle before they ask the Sentinels the next time.
///
/// With VIGIE_CALL_ALL the reply is a MAP with one entry for each Sentinel: from its address to its reply, or to an ERROR node, whose
/// text is the server's line, or VIGIE_ERR_... and a sentence if it gave none. If none of them accepts the command, that is an error, and
/// vigie_error_reply() has the MAP. One that is known by two names gets the command
/// once. Known are those that are given, and those that were learned from them; if nothing was discovered yet, one is asked for the others first.
/// RESET waits at each Sentinel until that one lists its usable replicas again, because without them it could not fail over; the
/// others are not reset if that takes longer than timeout_ms. Sentinels ask their primaries every 10 s: give it that long for each.
///
/// With VIGIE_CALL_TYPED numbers are INT, flags a SET of words, and pairs a MAP; fields that the library does not know stay texts, and
/// a reply of another form than expected stays as it came. MASTERS, REPLICAS (SLAVES), SENTINELS, PENDING-SCRIPTS: ARRAY of MAP.
/// MASTER, CONFIG GET, INFO: MAP. GET-MASTER-ADDR-BY-NAME: ARRAY of host and port (INT), or NULL for an unknown name. CKQUORUM: MAP of
/// usable and text. INFO-CACHE: MAP from services to ARRAY of MAP of age_ms and info (MAP or NULL). IS-MASTER-DOWN-BY-ADDR: MAP of
/// down, leader and leader-epoch. ROLE: MAP of role and services; at data nodes (vigie_cmd_exec()) of role, offset and replicas
/// (ARRAY of MAP of host, port, offset), or of role, host, port, state and offset.
///
/// Lengths: argc counts argv; argvlen has the bytes of each argument, or is NULL when each ends with a NUL. flags:
/// VIGIE_CALL_ALL, VIGIE_CALL_TYPED, or 0. timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// VIGIE_TIMEOUT_NONE: no limit. Any other value <= 0: VIGIE_ERR_TIMEOUT at once. A Sentinel that hangs is left after the option
/// timeout.sentinel if there is another one.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. Arguments are only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: VIGIE_ERR_SERVER: an error reply; VIGIE_ERR_NO_SENTINEL: none answered, and the message has what happened at each;
/// VIGIE_ERR_AUTH: they refuse the credentials; VIGIE_ERR_IO, VIGIE_ERR_TIMEOUT; VIGIE_ERR_INVALID_ARG: NULL, other flags, SENTINEL
/// as the first argument, a command that wants an address or VIGIE_CALL_ALL, or FAILOVER with VIGIE_CALL_ALL;
/// VIGIE_ERR_UNSUPPORTED: a subscription, AUTH, HELLO, QUIT; or a primary without Sentinels (primary.addr); VIGIE_ERR_LIMIT;
/// VIGIE_ERR_PROTOCOL; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_exec(
    sentinel: *mut vigie_sentinel,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_exec", err, || {
            let asked =
                Asked { sentinel, to: first_or_all(flags), argv: Argv { argc, argv, argvlen }, flags, timeout_ms };
            asked.exec(out)
        })
    }
}

/// As vigie_sentinel_exec(), at one Sentinel: the one at this address, known or not. No other one is asked.
///
/// Lengths: address is host, host:port or [ipv6]:port (26379 if there is none), as the Sentinels are announced: the option
/// address.map counts. argc, argv, argvlen and timeout_ms are as for vigie_sentinel_exec(); flags: VIGIE_CALL_TYPED, or 0.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. address and arguments are only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_sentinel_exec(), with VIGIE_ERR_CONNECT and VIGIE_ERR_RESOLVE in place of VIGIE_ERR_NO_SENTINEL;
/// VIGIE_ERR_INVALID_ARG: address is NULL or no address, or flags has VIGIE_CALL_ALL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_exec_at(
    sentinel: *mut vigie_sentinel,
    address: *const c_char,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_exec_at", err, || {
            let to = To::At(args::text(address, "address")?);
            Asked { sentinel, to, argv: Argv { argc, argv, argvlen }, flags, timeout_ms }.exec(out)
        })
    }
}

/// As vigie_sentinel_exec(), without waiting: the outcome arrives on a queue, as one VIGIE_EVENT_COMPLETION with this token. A thread of the
/// library carries the command. For one handle two are under way at a time, and for each address of vigie_sentinel_submit_at() two more; the
/// others wait for them, within their timeouts. They do not keep the order of their submission: submit what relies on another one when
/// that one has completed. vigie_queue_cancel() ends it at once, and vigie_sentinel_close() when its time is over; what may have run then
/// has VIGIE_EF_MAYBE_EXECUTED. vigie_sentinel_free() does not end it.
///
/// Lengths: argc, argv, argvlen, flags and timeout_ms are those of vigie_sentinel_exec().
/// Ownership: the arguments are copied. The queue may be freed while the command is under way: it goes on, and its completion is dropped.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_QUEUE_FULL: the queue has no room for the completion, or holds as many bytes as the option submit.max_bytes allows:
/// drain it, then submit again; VIGIE_ERR_TIMEOUT: timeout_ms <= 0, and neither VIGIE_TIMEOUT_DEFAULT nor VIGIE_TIMEOUT_NONE;
/// VIGIE_ERR_INVALID_ARG: sentinel or queue is NULL, or as vigie_sentinel_exec(); VIGIE_ERR_UNSUPPORTED; VIGIE_ERR_CLOSED;
/// VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. What is refused here has no completion; what the Sentinels say is in the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_submit(
    sentinel: *mut vigie_sentinel,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_submit", err, || {
            let asked =
                Asked { sentinel, to: first_or_all(flags), argv: Argv { argc, argv, argvlen }, flags, timeout_ms };
            asked.submit(queue, token)
        })
    }
}

/// As vigie_sentinel_submit(), at one Sentinel: the one at this address, as for vigie_sentinel_exec_at().
///
/// Lengths: address is that of vigie_sentinel_exec_at(), and so are flags and the others.
/// Ownership: address and arguments are copied.
/// Blocks: no.
/// Threads: [T].
/// Errors: as vigie_sentinel_submit(); VIGIE_ERR_INVALID_ARG: address is NULL or no address, or flags has VIGIE_CALL_ALL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_submit_at(
    sentinel: *mut vigie_sentinel,
    address: *const c_char,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_submit_at", err, || {
            let to = To::At(args::text(address, "address")?);
            Asked { sentinel, to, argv: Argv { argc, argv, argvlen }, flags, timeout_ms }.submit(queue, token)
        })
    }
}

/// To whom a command without an address goes.
fn first_or_all(flags: u32) -> To<'static> {
    if flags & CallFlags::ALL != 0 { To::All } else { To::First }
}

/// What a program asks Sentinels for.
struct Asked<'a> {
    sentinel: *mut vigie_sentinel,
    to: To<'a>,
    argv: Argv,
    flags: u32,
    timeout_ms: i64,
}

impl Asked<'_> {
    /// # Safety
    /// The pointers are those of vigie_sentinel_exec(), or of vigie_sentinel_exec_at().
    unsafe fn exec(&self, out: *mut *mut vigie_reply) -> Result<()> {
        // SAFETY: as for this function.
        unsafe {
            let (sentinel, typed, deadline) = self.read()?;
            let reply = self.argv.with(|args| sentinel.exec(args, self.to, typed, deadline))?;
            reply::put(out, reply);
            Ok(())
        }
    }

    /// # Safety
    /// As for [`Asked::exec`]; `queue` is a queue or NULL.
    unsafe fn submit(&self, queue: *mut vigie_queue, token: u64) -> Result<()> {
        // SAFETY: as for this function.
        unsafe {
            let (sentinel, typed, deadline) = self.read()?;
            let queue = handle::borrow(queue, "queue")?;
            self.argv.with(|args| sentinel.submit(args, self.to, typed, deadline, &queue.0, token))
        }
    }

    /// The handle, whether the reply is to be typed, and until when.
    ///
    /// # Safety
    /// As for [`Asked::exec`].
    unsafe fn read<'h>(&self) -> Result<(InUse<'h, OpenSentinel>, bool, Deadline)> {
        if matches!(self.to, To::At(_)) && self.flags & CallFlags::ALL != 0 {
            return Err(args::invalid("flags: VIGIE_CALL_ALL and an address exclude each other"));
        }
        // SAFETY: as for this function.
        let sentinel = unsafe { handle::borrow(self.sentinel, "sentinel") }?;
        let others = self.flags & !(CallFlags::TYPED | CallFlags::ALL);
        if others != 0 {
            return Err(args::invalid(format!(
                "flags: {others:#x} has no meaning for a Sentinel; VIGIE_CALL_ALL and VIGIE_CALL_TYPED have"
            )));
        }
        let deadline = until(&sentinel, self.timeout_ms);
        Ok((sentinel, self.flags & CallFlags::TYPED != 0, deadline))
    }
}

/// Until when a call of a handle may last.
fn until(sentinel: &Sentinel, timeout_ms: i64) -> Deadline {
    Timeout::from_ms(timeout_ms).deadline(sentinel.settings().client.timeout_call)
}

/// All services that the Sentinels of the deployment watch: a MAP from the name of each to a MAP with its primary; TOPOLOGY.md
/// lists the keys ("deployment"). All Sentinels that are known are asked, because one may not have heard of a service yet. Without
/// flags the addresses are what the Sentinels say, and nothing is verified or followed.
///
/// Lengths: flags: VIGIE_SERVICES_FOLLOW, or 0. With it all services are discovered at the same time: the key verified says whether
/// the primary has confirmed its role, and error why a service could not be discovered. timeout_ms is as for
/// vigie_sentinel_refresh().
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: VIGIE_ERR_NO_SENTINEL: none answered; VIGIE_ERR_AUTH; VIGIE_ERR_UNSUPPORTED: a primary without Sentinels (primary.addr);
/// VIGIE_ERR_INVALID_ARG: NULL, or other flags; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. A service that could not be
/// discovered is no error of the call.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_services(
    sentinel: *mut vigie_sentinel,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_services", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            reply::put(out, sentinel.services(follows(flags)?, until(&sentinel, timeout_ms))?);
            Ok(())
        })
    }
}

/// As vigie_sentinel_services(), without waiting: the outcome arrives on a queue, as for vigie_sentinel_submit().
///
/// Lengths: flags and timeout_ms are those of vigie_sentinel_services().
/// Ownership: nothing changes hands. The queue may be freed meanwhile: the completion is dropped.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_QUEUE_FULL, VIGIE_ERR_TIMEOUT: as vigie_sentinel_submit(); VIGIE_ERR_UNSUPPORTED: a primary without Sentinels
/// (primary.addr); VIGIE_ERR_INVALID_ARG: NULL, or other flags; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. What is refused
/// here has no completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_services_submit(
    sentinel: *mut vigie_sentinel,
    flags: u32,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_services_submit", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            let queue = handle::borrow(queue, "queue")?;
            sentinel.submit_services(follows(flags)?, until(&sentinel, timeout_ms), &queue.0, token)
        })
    }
}

/// Whether the services are to be followed.
fn follows(flags: u32) -> Result<bool> {
    let follow = vigie_services_flag::VIGIE_SERVICES_FOLLOW as u32;
    match flags & !follow {
        0 => Ok(flags != 0),
        unknown => Err(args::invalid(format!("flags: {unknown:#x} is unknown; VIGIE_SERVICES_FOLLOW is known"))),
    }
}

/// What the handle and its clients have done: a MAP with the Sentinels and the services, each with its failovers, how long they and the
/// fence lasted, and its clients, those that were freed included. STATISTICS.md lists the keys ("handle").
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL; VIGIE_ERR_LIMIT: no memory for the reply; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_stats(
    sentinel: *mut vigie_sentinel,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_stats", err, || {
            reply::put(out, client::stats_of(&*handle::borrow(sentinel, "sentinel")?)?);
            Ok(())
        })
    }
}

/// The same figures as text for Prometheus: a reply with one STRING, to be served as it is. Without flags it is the format 0.0.4
/// (Content-Type: text/plain; version=0.0.4); with VIGIE_METRICS_OPENMETRICS it is OpenMetrics, which ends with # EOF (Content-Type:
/// application/openmetrics-text; version=1.0.0; charset=utf-8). The names begin with vigie_; STATISTICS.md lists them. A program with
/// several handles gives one of them at an address, or adds a label of its own.
///
/// Lengths: flags: VIGIE_METRICS_OPENMETRICS, or 0.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: sentinel is NULL, or other flags; VIGIE_ERR_LIMIT: no memory for the text; VIGIE_ERR_CLOSED;
/// VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_metrics(
    sentinel: *mut vigie_sentinel,
    flags: u32,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_sentinel_metrics", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            let is_open = args::is_open_metrics(flags)?;
            reply::put(out, client::metrics_of(&sentinel, is_open)?);
            Ok(())
        })
    }
}

/// Watches the services of this handle from now on: events arrive on the queue with this token. What holds already is not told:
/// vigie_sentinel_topology() has it. While the watch lasts, a service is followed as soon as a client is made for it or
/// vigie_sentinel_refresh() names it, without a call, and until the watch ends, even if nobody uses it any more. The first
/// primary of a service that was unknown is a NOTICE (+monitor), because nothing was switched. Every event's reply is a MAP.
/// EVENTS.md lists the kinds, the keys of their maps, and the values of the key cause, which gives the reason in a form that a
/// program can act on: VIGIE_EVENT_TOPOLOGY: service, from, to, gap_ms; VIGIE_EVENT_NOTICE: service, primary; VIGIE_EVENT_FENCE:
/// service, on, held_ms; VIGIE_EVENT_DEGRADED: on; VIGIE_EVENT_REPLICA: service, replica, fit (NULL: it was only mentioned);
/// VIGIE_EVENT_SENTINEL: sentinel, up (NULL: it was only mentioned); VIGIE_EVENT_CONNECTION: service, node, open.
/// VIGIE_EVENT_LOG, which VIGIE_EVENT_ALL does not contain, gives the lines that the option log.level admits.
///
/// Lengths: event_kinds are VIGIE_EVENT_* bits, or VIGIE_EVENT_ALL (all of these but VIGIE_EVENT_CONNECTION); 0 ends the watch.
/// There is one watch per handle and queue: a new one replaces the one before.
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

/// Changes an option that CONFIGURATION.md marks as dynamic: credentials, db, address map, for connections
/// made from now on; and the log, at once. Credentials that belong together, a user and its password, are changed by
/// vigie_sentinel_configure_all(), which says what becomes of open connections.
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

/// Changes all options that are set in config at the same moment, as vigie_sentinel_configure() changes one: for a password that is renewed, or
/// another user. Options that cannot be changed may be set there if they are as they were, so that the config of
/// vigie_sentinel_create() can be used again. New connections use what is set from now on, to Sentinels and data nodes. Existing ones are
/// replaced, idle ones at once and busy ones when they are done, if the database or the credentials of the data nodes were changed; a session
/// authenticates anew before its next command, after a transaction that is under way, unless the program has authenticated it by itself;
/// a subscription authenticates anew at once, with RESP2 on a new connection (VIGIE_EVENT_SUB_GAP).
///
/// Ownership: config is copied.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_CONFIG: an option that is not dynamic differs, or the options do not fit together: then nothing is changed;
/// VIGIE_ERR_INVALID_ARG: NULL; VIGIE_ERR_INVALID_STATE: another thread is changing the config; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_sentinel_configure_all(
    sentinel: *mut vigie_sentinel,
    config: *const vigie_config,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_sentinel_configure_all", err, || {
            let sentinel = handle::borrow(sentinel, "sentinel")?;
            config::read(config, "config", |config| sentinel.configure_all(config))
        })
    }
}

/// Closes the Sentinels and every client made from the handle, as vigie_client_close() does; commands of vigie_sentinel_submit() end in
/// the same way. A second close is a no-op.
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

/// Frees a sentinel. Clients made from it keep what they need and go on, and so do commands of vigie_sentinel_submit().
///
/// Ownership: the handle is gone; NULL is a no-op. Freeing twice is not safe. In a forked child what is the parent's is left
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
