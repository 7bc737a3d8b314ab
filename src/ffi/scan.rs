//! Scan loops as C sees them.

use std::ffi::c_char;
use std::sync::Arc;

use super::args::{self, Argv};
use super::handle::{self, Either, Noun};
use super::shards;
use super::types::{vigie_client, vigie_error, vigie_queue, vigie_reply, vigie_scan, vigie_status};
use super::{dispose, guard, reply, total};
use crate::client::{ScanLoop, Timeout};

impl Noun for vigie_scan {
    type Value = Arc<ScanLoop>;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.scan");
    const PLAIN: bool = false;
}

/// A scan from its beginning to its end: SCAN, HSCAN, SSCAN or ZSCAN with cursor 0 and any other arguments.
/// vigie_scan_next() gives its pages. All of them come from one server, in one role: a cursor means something only there.
///
/// After a failover, a restart of the server, or when the replica that is scanned is no longer read from, nobody can say
/// which elements were given already. Then the scan ends with VIGIE_ERR_SCAN_INTERRUPTED, or begins anew on the present
/// node, at most max_restarts times, and gives elements a second time; vigie_scan_restarts() counts that.
///
/// Lengths: argc, argv and argvlen as for vigie_cmd_exec(); VIGIE_CMD() makes them.
/// Ownership: *out is the caller's, for vigie_scan_free(). Arguments are copied; the client is kept alive.
/// Blocks: no: the first vigie_scan_next() sends the first command.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client or out is NULL, another command, a cursor other than 0, a bad argc, argv or
/// argvlen; VIGIE_ERR_INVALID_STATE: client is a session; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_scan_for(
    client: *mut vigie_client,
    argc: usize,
    argv: *const *const c_char,
    argvlen: *const usize,
    max_restarts: u32,
    out: *mut *mut vigie_scan,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_scan_for", err, || {
            args::wanted(out)?;
            let client = shards::any(client)?;
            let scan = Argv { argc, argv, argvlen }.with(|args| match &client {
                Either::One(client) => ScanLoop::new(client, args, max_restarts),
                Either::Other(shards) => shards.scan(args, max_restarts),
            })?;
            args::put(out, Arc::new(scan));
            Ok(())
        })
    }
}

/// The next page of a scan: an ARRAY with at least one element: names of SCAN and SSCAN, pairs of HSCAN and ZSCAN, as the
/// server gives them. VIGIE_OK without a reply: the scan is over, and every element that was there from the beginning to
/// the end of the last pass was given; one may come twice, as with every SCAN.
///
/// A page that was lost with its connection is asked for again within the time. After any other error than
/// VIGIE_ERR_SCAN_INTERRUPTED the next call goes on where the scan was.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit.
/// Any other value <= 0: VIGIE_ERR_TIMEOUT, and nothing is sent.
/// Ownership: *out is the caller's, for vigie_reply_free(); NULL at the end. out may be NULL: the page is discarded.
/// Blocks: up to timeout_ms.
/// Threads: [X].
/// Errors: VIGIE_ERR_SCAN_INTERRUPTED: see vigie_scan_for(), and every later call gives it again;
/// VIGIE_ERR_INVALID_STATE: another thread waits for a page, or a vigie_scan_submit() is under way; VIGIE_ERR_INVALID_ARG: scan is NULL; as vigie_cmd_exec().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_scan_next(
    scan: *mut vigie_scan,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_scan_next", err, || {
            if let Some(page) = handle::borrow(scan, "scan")?.next(Timeout::from_ms(timeout_ms))? {
                reply::put(out, page);
            }
            Ok(())
        })
    }
}

/// Asks for the next page without waiting: as vigie_scan_next(), and the page arrives on the queue as the reply of one
/// VIGIE_EVENT_COMPLETION with this token. A completion with VIGIE_OK and no reply: the scan is over. One page at a time is under way.
///
/// A page may take several commands, where the server gives no element, or where the scan begins anew; each of them goes to the
/// same node by the rules of vigie_scan_next(), and the room in the queue that is taken now is for the one completion.
/// vigie_queue_cancel() with the token ends the wait, and the next call goes on where the scan was.
///
/// Lengths: timeout_ms as for vigie_scan_next().
/// Ownership: nothing changes hands. The scan may be freed before its completion arrives.
/// Blocks: no.
/// Threads: [X].
/// Errors: refused, and without a completion: VIGIE_ERR_INVALID_ARG: scan or queue is NULL; VIGIE_ERR_INVALID_STATE: another page is
/// under way; VIGIE_ERR_QUEUE_FULL; VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Every other one of vigie_scan_next() arrives with the completion, and VIGIE_ERR_CANCELLED.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_scan_submit(
    scan: *mut vigie_scan,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_scan_submit", err, || {
            let (scan, queue) = (handle::borrow(scan, "scan")?, handle::borrow(queue, "queue")?);
            scan.next_submit(Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// How often a scan has begun anew. If the number has grown with a page, this page is the first one of another pass.
///
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: [X].
/// Errors: none: 0 for NULL, for what is no scan, and while a page is being waited for.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_scan_restarts(scan: *const vigie_scan) -> u32 {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::borrow(scan, "scan").ok().and_then(|scan| scan.restarts()) })
}

/// Frees a scan, at its end or before.
///
/// Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_scan_free(scan: *mut vigie_scan) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(scan) };
}
