//! Lists of jobs as C sees them.

use std::ffi::{c_char, c_void};

use super::args;
use super::handle::{self, Noun};
use super::shards;
use super::types::{vigie_client, vigie_error, vigie_jobs, vigie_queue, vigie_reply, vigie_status};
use super::{dispose, guard, reply};
use crate::client::Timeout;
use crate::error::Result;
use crate::jobs::{self, Jobs};

impl Noun for vigie_jobs {
    type Value = Jobs;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.jobs");
    const PLAIN: bool = false;
}

/// Runs `act` with the handle and the id of a job.
///
/// # Safety
/// As for the functions that call it.
unsafe fn with_id(jobs: *mut vigie_jobs, id: *const c_char, act: impl FnOnce(&Jobs, &str) -> Result<()>) -> Result<()> {
    // SAFETY: as for this function.
    let (jobs, id) = unsafe { (handle::borrow(jobs, "jobs")?, args::text(id, "id")?) };
    act(&jobs, id)
}

/// A worker of a list of jobs: it takes them one by one, and each of them is done at least once, whatever happens to workers and
/// primaries. A job that is taken stands in the worker's processing list until vigie_jobs_ack(). A worker that ends without that, or
/// hangs, has a lease that ends: others then hand its jobs back. What may have been handed out before is marked. docs/jobs.md has the
/// keys, the format, and what producers need. Nothing is sent before the first vigie_jobs_take().
///
/// name is the key of the list. worker names this worker, and each handle needs another one: one that starts again under the
/// same name has at once what it had in hand. NULL: a random name; then the others hand that back when the lease is over.
///
/// Lengths: lease_ms is in milliseconds, at least 100; VIGIE_TIMEOUT_DEFAULT: 30 s. Each function of the handle that asks the server
/// renews it, a vigie_jobs_take() that waits too: a job that takes longer needs vigie_jobs_renew().
/// Ownership: *out is the caller's, for vigie_jobs_free(). name and worker are copied. client is kept alive.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: client, name or out is NULL, name or worker is empty, name has braces without a hash tag, is nothing
/// but a hash tag, or looks like a key of another list, worker has more than 128 bytes, or lease_ms is too short;
/// VIGIE_ERR_INVALID_STATE: client is a session or for replicas; VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_for(
    client: *mut vigie_client,
    name: *const c_char,
    worker: *const c_char,
    lease_ms: i64,
    out: *mut *mut vigie_jobs,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_jobs_for", err, || {
            args::wanted(out)?;
            let (client, name) = shards::home_of(client, args::text(name, "name")?)?;
            let worker = args::optional(worker, "worker", "a random one")?;
            args::put(out, Jobs::new(&client, &name, worker, Timeout::from_ms(lease_ms))?);
            Ok(())
        })
    }
}

/// Limits how often a job is handed out: a job whose redelivered is max_deliveries or more is not handed out by this worker any more. It goes
/// to the list {name}:failed, from which nobody takes, and the next job is looked for. So a job at which every worker dies stops nobody. 0,
/// as from the beginning: no limit. redelivered counts also what may not have been handed out, after lost answers and in failovers.
///
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: [T]. A take under way may go by the limit before.
/// Errors: VIGIE_ERR_INVALID_ARG: jobs is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_limit_deliveries(
    jobs: *mut vigie_jobs,
    max_deliveries: u32,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_limit_deliveries", err, || {
            handle::borrow(jobs, "jobs")?.limit_deliveries(max_deliveries);
            Ok(())
        })
    }
}

/// Pushes a job to the list with this key. To keep it through failovers the client needs the option write.replicas. It is never pushed
/// twice: after an error with VIGIE_EF_MAYBE_EXECUTED it may be there or not.
///
/// Lengths: payload_len is the bytes of payload. id has 1 to 64 of A-Z a-z 0-9 . _ -; NULL: a random one. timeout_ms is in milliseconds.
/// Ownership: nothing changes hands; name, id and payload are only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_cmd_exec(); VIGIE_ERR_INVALID_ARG: client or name is NULL, payload is NULL with a length, a bad name or id.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_push(
    client: *mut vigie_client,
    name: *const c_char,
    id: *const c_char,
    payload: *const c_void,
    payload_len: usize,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_push", err, || {
            let (client, name) = shards::home_of(client, args::text(name, "name")?)?;
            let id = args::optional(id, "id", "a random one")?;
            let payload = args::bytes(payload.cast(), payload_len, "payload")?;
            jobs::push(&client, &name, id, payload, Timeout::from_ms(timeout_ms))
        })
    }
}

/// Pushes a job without waiting: as vigie_jobs_push(), and the length of the list is the reply of one VIGIE_EVENT_COMPLETION with this
/// token, an INT.
///
/// Lengths: payload_len is the bytes of payload. id as for vigie_jobs_push(). timeout_ms is in milliseconds.
/// Ownership: nothing changes hands; name, id and payload are copied.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: as vigie_batch_submit(); VIGIE_ERR_INVALID_ARG: client, name or queue is NULL, payload is
/// NULL with a length, a bad name or id. The others of vigie_jobs_push() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_push_submit(
    client: *mut vigie_client,
    name: *const c_char,
    id: *const c_char,
    payload: *const c_void,
    payload_len: usize,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_push_submit", err, || {
            let (client, name) = shards::home_of(client, args::text(name, "name")?)?;
            let (queue, id) = (handle::borrow(queue, "queue")?, args::optional(id, "id", "a random one")?);
            let payload = args::bytes(payload.cast(), payload_len, "payload")?;
            jobs::push_submit(&client, &name, id, payload, Timeout::from_ms(timeout_ms), (&queue.0, token))
        })
    }
}

/// Takes the next job: a MAP of id, payload and redelivered, an INT that is above 0 if the job may have been handed out before. *out is
/// NULL with VIGIE_OK if there was none in the time. The first take of a handle begins with what its worker's name had in hand;
/// takes look, twice in the length of a lease, for workers whose lease is over. While there is no primary it waits for the next one.
/// After a lost answer it compares the lists, and nothing is lost.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. VIGIE_TIMEOUT_NONE: no limit. Any other value
/// <= 0: what is there now, without waiting for more.
/// Ownership: *out is the caller's, for vigie_reply_free().
/// Blocks: up to timeout_ms, 0.25 s more where the server's last answer is late, and up to timeout.call more for a job that came
/// at the end, or to hand back what a dead worker has, for which it looks at its beginning. With timeout_ms <= 0 up to timeout.call for the
/// server's answers. vigie_jobs_stop() ends all of that.
/// Threads: [T], but one thread at a time takes.
/// Errors: as vigie_cmds_exec(), when the list was out of reach at the end of the time; VIGIE_ERR_CANCELLED: after vigie_jobs_stop();
/// VIGIE_ERR_INVALID_STATE: another thread takes with this handle, or another process has the same worker name; VIGIE_ERR_REPLICAS: fewer
/// replicas than write.replicas have it: it stays in the processing list, and is tried again by the next take; VIGIE_ERR_INVALID_ARG:
/// jobs or out is NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_take(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    out: *mut *mut vigie_reply,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_jobs_take", err, || {
            args::wanted(out)?;
            if let Some(job) = handle::borrow(jobs, "jobs")?.take(Timeout::from_ms(timeout_ms))? {
                reply::put(out, job.shown()?);
            }
            Ok(())
        })
    }
}

/// Takes the next job without waiting: as vigie_jobs_take(), and the job is the reply of one VIGIE_EVENT_COMPLETION with this token. A
/// completion with VIGIE_OK and no reply: there was none in the time. No thread waits meanwhile: neither for a job, nor for a primary.
///
/// vigie_queue_cancel() with the token and vigie_jobs_stop() end it with VIGIE_ERR_CANCELLED, within about 50 ms where a server waits for
/// a job. What it had taken by then stays in the processing list: the next take hands it out, marked.
///
/// Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// Ownership: nothing changes hands. The handle may be freed before the completion arrives.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_INVALID_STATE: another take is
/// under way; VIGIE_ERR_QUEUE_FULL;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_take() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_take_submit(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_take_submit", err, || {
            let (jobs, queue) = (handle::borrow(jobs, "jobs")?, handle::borrow(queue, "queue")?);
            jobs.take_submit(Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// Acknowledges a job: it is done, and is removed. If the answer is lost, the processing list is looked at before it is sent again.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// Ownership: nothing changes hands; id is only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_cmd_exec(): the job stays in the hand of this worker, whose takes do
/// not hand it out again: acknowledge it again with the same id; but for VIGIE_ERR_REPLICAS: removed, and fewer
/// replicas know of it; VIGIE_ERR_INVALID_STATE: it is not in hand, or not any more, because the lease was over: it is done again
/// elsewhere; VIGIE_ERR_INVALID_ARG: jobs or id is NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_ack(
    jobs: *mut vigie_jobs,
    id: *const c_char,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { guard("vigie_jobs_ack", err, || with_id(jobs, id, |jobs, id| jobs.ack(id, Timeout::from_ms(timeout_ms)))) }
}

/// Acknowledges a job without waiting: as vigie_jobs_ack(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
/// A lost answer is looked up as there. After vigie_queue_cancel() the job is acknowledged or in hand: to acknowledge it again finds out.
///
/// Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
/// value <= 0 is refused.
/// Ownership: nothing changes hands; id is only read. The handle may be freed before the completion arrives.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs, id or queue is NULL; VIGIE_ERR_INVALID_STATE:
/// the job is not in hand; VIGIE_ERR_QUEUE_FULL;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_ack() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_ack_submit(
    jobs: *mut vigie_jobs,
    id: *const c_char,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_ack_submit", err, || {
            let (jobs, queue) = (handle::borrow(jobs, "jobs")?, handle::borrow(queue, "queue")?);
            let id = args::text(id, "id")?;
            jobs.ack_submit(id, Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// Hands a job back: it comes behind those that wait, and is taken again by any worker, marked.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// Ownership: nothing changes hands; id is only read.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_jobs_ack(); VIGIE_ERR_REPLICAS: handed back, and fewer replicas than write.replicas know so.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_return(
    jobs: *mut vigie_jobs,
    id: *const c_char,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_return", err, || {
            with_id(jobs, id, |jobs, id| jobs.give_back(id, Timeout::from_ms(timeout_ms)))
        })
    }
}

/// Hands a job back without waiting: as vigie_jobs_return(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
///
/// Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
/// value <= 0 is refused.
/// Ownership: nothing changes hands; id is only read. The handle may be freed before the completion arrives.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs, id or queue is NULL; VIGIE_ERR_INVALID_STATE:
/// the job is not in hand; VIGIE_ERR_QUEUE_FULL;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of vigie_jobs_return() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_return_submit(
    jobs: *mut vigie_jobs,
    id: *const c_char,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_return_submit", err, || {
            let (jobs, queue) = (handle::borrow(jobs, "jobs")?, handle::borrow(queue, "queue")?);
            let id = args::text(id, "id")?;
            jobs.give_back_submit(id, Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// Renews the lease, for a job that takes longer than that.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// Ownership: nothing changes hands.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_cmds_exec(); VIGIE_ERR_INVALID_STATE: the lease was over, and other workers may have the jobs, or another process has
/// the same worker name; VIGIE_ERR_INVALID_ARG: jobs is NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_renew(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { guard("vigie_jobs_renew", err, || handle::borrow(jobs, "jobs")?.renew(Timeout::from_ms(timeout_ms))) }
}

/// Renews the lease without waiting: as vigie_jobs_renew(), and its outcome is one VIGIE_EVENT_COMPLETION with this token, without a reply.
///
/// Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
/// value <= 0 is refused.
/// Ownership: nothing changes hands. The handle may be freed before the completion arrives.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_QUEUE_FULL;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of
/// vigie_jobs_renew() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_renew_submit(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_renew_submit", err, || {
            let (jobs, queue) = (handle::borrow(jobs, "jobs")?, handle::borrow(queue, "queue")?);
            jobs.renew_submit(Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// Ends the vigie_jobs_take() or vigie_jobs_take_submit() under way, and all later ones, with VIGIE_ERR_CANCELLED. A job that comes in that moment is handed out, or
/// stays in the list. What is in hand can be acknowledged.
///
/// Ownership: nothing changes hands.
/// Blocks: no.
/// Threads: any thread, also while another one takes; not from a signal handler.
/// Errors: VIGIE_ERR_INVALID_ARG: jobs is NULL; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_stop(jobs: *mut vigie_jobs, err: *mut *mut vigie_error) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_stop", err, || {
            handle::borrow(jobs, "jobs")?.stop();
            Ok(())
        })
    }
}

/// Stops the worker, hands back what it has in hand, and ends its lease, so that others need not wait for its end.
///
/// Lengths: timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT: the option timeout.call.
/// Ownership: nothing changes hands; the handle is still for vigie_jobs_free().
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as vigie_cmds_exec(): others hand the jobs back when the lease is over; VIGIE_ERR_REPLICAS: handed back and closed, and
/// fewer replicas than write.replicas know so; VIGIE_ERR_INVALID_ARG: jobs is NULL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_close(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { guard("vigie_jobs_close", err, || handle::borrow(jobs, "jobs")?.close(Timeout::from_ms(timeout_ms))) }
}

/// Stops the worker at once, and closes it without waiting: as vigie_jobs_close(), and its outcome is one VIGIE_EVENT_COMPLETION with this
/// token, without a reply. A vigie_jobs_take_submit() under way ends with VIGIE_ERR_CANCELLED before.
///
/// Lengths: timeout_ms is in milliseconds, for the whole operation. VIGIE_TIMEOUT_DEFAULT: the option timeout.call. Any other
/// value <= 0 is refused.
/// Ownership: nothing changes hands. The handle may be freed before the completion arrives.
/// Blocks: no.
/// Threads: [T].
/// Errors: refused, and without a completion: VIGIE_ERR_TIMEOUT: timeout_ms leaves no time; VIGIE_ERR_INVALID_ARG: jobs or queue is NULL; VIGIE_ERR_QUEUE_FULL;
/// VIGIE_ERR_CLOSED; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL. The others of
/// vigie_jobs_close() arrive with the completion.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_close_submit(
    jobs: *mut vigie_jobs,
    timeout_ms: i64,
    queue: *mut vigie_queue,
    token: u64,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        guard("vigie_jobs_close_submit", err, || {
            let (jobs, queue) = (handle::borrow(jobs, "jobs")?, handle::borrow(queue, "queue")?);
            jobs.close_submit(Timeout::from_ms(timeout_ms), &queue.0, token)
        })
    }
}

/// Frees a worker. What it has in hand stays in its processing list: vigie_jobs_close() hands it back before.
///
/// Ownership: the handle is gone; NULL is a no-op. In a forked child the memory is left alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_jobs_free(jobs: *mut vigie_jobs) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(jobs) };
}
