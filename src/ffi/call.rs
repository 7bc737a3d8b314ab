//! Call handles as C sees them: calls that can be cancelled from another thread, and interrupted by a signal.

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use super::args::{self, Argv};
use super::handle::{self, Either, Noun};
use super::shards;
use super::types::{vigie_call, vigie_client, vigie_error, vigie_reply, vigie_status};
use super::{batch, dispose, guard, reply, total};
use crate::client::{CallFlags, CallHandle, Timeout};
use crate::error::{Error, Status};

/// The longest slice of a wait: an hour.
const LONGEST_SLICE_MS: u64 = 3_600_000;

impl Noun for vigie_call {
    type Value = CallHandle;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.call");
    const PLAIN: bool = false;
}

/// A call handle, for one call after another. It costs nothing else until its first call, which gives it five descriptors of
/// its own until vigie_call_free().
///
/// Ownership: the handle is the caller's, for vigie_call_free().
/// Blocks: no.
/// Threads: any.
/// Errors: none; never NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn vigie_call_new() -> *mut vigie_call {
    total(std::ptr::null_mut(), || Some(handle::into_raw::<vigie_call>(CallHandle::default())))
}

/// As vigie_cmd_exec(), with a call handle: vigie_call_cancel() ends it from any thread, and a signal whose handler returns
/// (SIGINT in Python and Ruby) ends the wait for it with VIGIE_ERR_INTERRUPTED while the call goes on;
/// vigie_call_wait() then waits again. A signal that comes while nothing waits in the kernel does not interrupt: where its
/// handler only notes that it came, vigie_call_interrupt_every() bounds how long that goes unseen.
/// The arguments are copied, and the call shares the connections of vigie_cmds_submit().
///
/// Lengths: as vigie_cmd_exec(), and so are the flags.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: up to timeout_ms.
/// Threads: [X]: one call at a time; vigie_call_cancel() and vigie_call_is_cancelled() from any thread.
/// Errors: as vigie_cmd_exec(), and those of vigie_cmds_submit(); VIGIE_ERR_INTERRUPTED: the call is still under way;
/// VIGIE_ERR_CANCELLED: vigie_error_flags() says whether it may have run, and a call that was cancelled before it began
/// was not sent; VIGIE_ERR_INVALID_STATE: another thread uses the call handle, or its call is still under way.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_cmd_exec(
    call: *mut vigie_call,
    client: *mut vigie_client,
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
        guard("vigie_call_cmd_exec", err, || {
            let (call, client) = (handle::borrow(call, "call")?, shards::any(client)?);
            let (flags, timeout) = (CallFlags::from_bits(flags)?, Timeout::from_ms(timeout_ms));
            let reply = Argv { argc, argv, argvlen }.with(|args| match &client {
                Either::One(client) => call.cmd_exec(client, args, flags, timeout),
                Either::Other(shards) => shards.call_cmd_exec(&call, args, flags, timeout),
            });
            reply::put(out, reply?);
            Ok(())
        })
    }
}

/// As vigie_cmds_exec(), with a call handle: see vigie_call_cmd_exec().
///
/// Lengths: as vigie_cmds_exec(), and so are the flags.
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL. commands is copied.
/// Blocks: up to timeout_ms.
/// Threads: [X], as vigie_call_cmd_exec().
/// Errors: as vigie_cmds_exec(), and those of vigie_call_cmd_exec().
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_cmds_exec(
    call: *mut vigie_call,
    client: *mut vigie_client,
    commands: *const c_void,
    commands_len: usize,
    flags: u32,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_call_cmds_exec", err, || {
            let commands = args::bytes(commands.cast(), commands_len, "commands")?;
            batch::refuse_misused(commands)?;
            let (call, client) = (handle::borrow(call, "call")?, shards::any(client)?);
            let (flags, timeout) = (CallFlags::from_bits(flags)?, Timeout::from_ms(timeout_ms));
            let reply = match &client {
                Either::One(client) => call.exec(client, commands, flags, timeout),
                Either::Other(shards) => shards.call_exec(&call, commands, flags, timeout),
            };
            reply::put(out, reply?);
            Ok(())
        })
    }
}

/// Goes on with the call that VIGIE_ERR_INTERRUPTED left under way. Its deadline is the one that it had.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: up to the timeout_ms that the call was given, counted from its beginning.
/// Threads: [X], as vigie_call_cmd_exec().
/// Errors: those of the call; VIGIE_ERR_INTERRUPTED: once more; VIGIE_ERR_INVALID_STATE: no call is under way, or another
/// thread uses the call handle; VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_wait(
    call: *mut vigie_call,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_call_wait", err, || {
            reply::put(out, handle::borrow(call, "call")?.wait()?);
            Ok(())
        })
    }
}

/// Has each wait for a call of this handle end with VIGIE_ERR_INTERRUPTED after slice_ms at the latest, although no signal came;
/// vigie_call_wait() goes on. For runtimes whose signal handlers only set a flag that the waiting thread looks at: a signal that
/// comes just before the wait would go unseen until the next one.
///
/// Lengths: slice_ms in milliseconds, 1 to 3600000; 0 takes it back.
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: any thread; a wait that has begun keeps the slice that it began with.
/// Errors: VIGIE_ERR_INVALID_ARG: call is NULL, or slice_ms is out of range; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_interrupt_every(
    call: *mut vigie_call,
    slice_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_call_interrupt_every", err, || {
            let call = handle::borrow(call, "call")?;
            let fits = u64::try_from(slice_ms).ok().filter(|ms| *ms <= LONGEST_SLICE_MS);
            let wrong = || {
                Error::new(Status::InvalidArg, format!("slice_ms is {slice_ms}: it must be 0 to {LONGEST_SLICE_MS}"))
            };
            call.interrupt_every(Duration::from_millis(fits.ok_or_else(wrong)?));
            Ok(())
        })
    }
}

/// Where the time of a call went: of the one that runs with this handle, or of the last one. A MAP with total_us, queue_us, fence_us,
/// wire_us, retry_us, attempts, endpoint and over; STATISTICS.md ("times") says what each is. Calls without a handle are not timed.
/// docs/tracing.md maps it to the names of OpenTelemetry.
///
/// Ownership: *out is the caller's, for vigie_reply_free(). out may be NULL.
/// Blocks: no.
/// Threads: any thread, also while another one runs or waits for the call.
/// Errors: VIGIE_ERR_INVALID_STATE: no call was made with it; VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_LIMIT: no memory for the
/// reply; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_times(
    call: *const vigie_call,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_call_times", err, || {
            reply::put(out, handle::borrow(call, "call")?.times()?);
            Ok(())
        })
    }
}

/// Cancels the call that runs with this handle, or the next one if none does; the handle stays cancelled. The call ends with
/// VIGIE_ERR_CANCELLED in the thread that waits for it. A blocking command is ended by the server (CLIENT UNBLOCK) if that
/// takes no more than 50 ms and the server speaks RESP3 and lets the user do it: an element that it has taken all the
/// same is delivered as the reply. Otherwise, and for all other commands, the wait ends at once.
///
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: any thread, also while another one runs or waits for the call; not from a signal handler.
/// Errors: VIGIE_ERR_INVALID_ARG: call is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_cancel(call: *mut vigie_call, err: *mut *mut vigie_error) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_call_cancel", err, || {
            handle::borrow(call, "call")?.cancel();
            Ok(())
        })
    }
}

/// Whether vigie_call_cancel() was called.
///
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: any.
/// Errors: none: 0 for NULL and for what is no call handle.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_is_cancelled(call: *const vigie_call) -> c_int {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::borrow(call, "call").ok().map(|call| c_int::from(call.is_cancelled())) })
}

/// Frees a call handle. A call that is still under way is cancelled, and its outcome is lost.
///
/// Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_call_free(call: *mut vigie_call) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(call) };
}
