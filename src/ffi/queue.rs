//! Queues as C sees them.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::handle::{self, Noun};
use super::types::{OK, vigie_error, vigie_event, vigie_node, vigie_queue, vigie_reply, vigie_status};
use super::{args, cancel, dispose, error, guard, let_go, packed, total};
use crate::error::{Error, Result, Status};
use crate::queue::{Event, Queue};
use crate::resp::Reply;
use crate::time::{Deadline, Timeout};

impl Noun for vigie_queue {
    type Value = Owned;
    const MAGIC: u64 = u64::from_be_bytes(*b"vgi.queu");
    const PLAIN: bool = false;
}

/// The application's handle of a queue. Senders of events keep the queue alive on their own.
pub(super) struct Owned(pub(super) Arc<Queue>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close();
        // Nobody can take these events any more, and a sender may keep the queue for long.
        self.0.drain(Deadline::never(), &mut Vec::new(), usize::MAX);
    }
}

impl From<Event> for vigie_event {
    fn from(event: Event) -> Self {
        let mut made = Self { kind: event.kind, token: event.token, ..EMPTY };
        match event.outcome {
            Ok(None) => {}
            Ok(Some(reply)) => made.carry(reply),
            Err(error) => {
                made.status = error.status().code();
                made.error = handle::into_raw(error::Texts::new(error));
            }
        }
        made
    }
}

/// An event after vigie_events_clear().
const EMPTY: vigie_event = vigie_event {
    kind: 0,
    status: OK,
    token: 0,
    reply: ptr::null_mut(),
    error: ptr::null_mut(),
    nodes: ptr::null(),
    data: ptr::null(),
    node_count: 0,
    data_len: 0,
};

impl vigie_event {
    fn carry(&mut self, reply: Reply) {
        self.reply = handle::of_reply(reply);
        // SAFETY: just made, and owned by this event.
        if let Some(reply) = unsafe { handle::peek::<vigie_reply>(self.reply) } {
            (self.nodes, self.node_count) = (reply.nodes().as_ptr().cast::<vigie_node>(), reply.nodes().len() as u64);
            (self.data, self.data_len) = (reply.data().as_ptr().cast(), reply.data().len() as u64);
        }
    }
}

/// A queue for events: they wait here until the application takes them.
///
/// Lengths: capacity is the most that the queue holds, from 1 to 1048576, running calls of vigie_cmds_submit()
/// included. An event that arrives while the queue is full is lost and counted: a VIGIE_EVENT_DROPPED in its place has
/// the number.
/// Ownership: *out is the caller's, for vigie_queue_free(). It has three descriptors of the process, and three more from
/// its first vigie_cmds_submit() on.
/// Blocks: no.
/// Threads: [T].
/// Errors: VIGIE_ERR_INVALID_ARG: capacity is out of range, or out is NULL; VIGIE_ERR_IO: no descriptor is left to the
/// process; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_create(
    capacity: usize,
    out: *mut *mut vigie_queue,
    err: *mut *mut vigie_error,
) -> vigie_status {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe {
        args::reset(out);
        guard("vigie_queue_create", err, || {
            args::wanted(out)?;
            args::put(out, Owned(Queue::create(capacity)?));
            Ok(())
        })
    }
}

/// The descriptor to poll for reading: readable while there are events, or a wake-up is due. When it is readable,
/// drain until the count is below the capacity given, or until vigie_queue_drain_packed() gives 0. It is always the
/// same one, and it does not matter whether the byte in it is read, as some event loops do.
///
/// Ownership: belongs to the queue: do not close it or make it blocking. An event loop that closes what it polls gets
/// a copy from dup(). Take it out of the loop before vigie_queue_free(), which closes it.
/// Blocks: no.
/// Threads: [T].
/// Errors: none; -1 for NULL, for anything that is not a queue, and in a forked child.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_fd(queue: *const vigie_queue) -> c_int {
    let _whole = cancel::Off::new();
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(-1, || unsafe { handle::borrow(queue, "queue") }.ok().map(|queue| queue.0.fd()))
}

/// Takes events, oldest first, and waits for the first one if there is none. It returns without events when the
/// timeout is over, and after vigie_queue_wakeup(). Several threads may drain a queue: each event goes to one of them.
///
/// Lengths: events has room for capacity events; as many of them as the returned number are written, the others are
/// not touched. timeout_ms is in milliseconds. VIGIE_TIMEOUT_DEFAULT and VIGIE_TIMEOUT_NONE: no limit. Any other value
/// <= 0 takes what is there, without waiting: -1 too, which means no limit to poll() and epoll_wait().
/// Ownership: what the events hold is the caller's, for vigie_events_clear(). What was in the array before is not freed.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: as a negative number. VIGIE_ERR_INVALID_ARG: queue or events is NULL, or capacity is 0; VIGIE_ERR_FORKED;
/// VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_drain(
    queue: *mut vigie_queue,
    timeout_ms: i64,
    events: *mut vigie_event,
    capacity: u32,
) -> i32 {
    let mut count = 0;
    let body = || {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        let queue = unsafe { handle::borrow(queue, "queue") }?;
        // SAFETY: as above.
        count = unsafe { fill(&queue.0, Timeout::from_ms(timeout_ms).deadline_or_never(), events, capacity) }?;
        Ok(())
    };
    // SAFETY: there is no output for the error.
    let status = unsafe { guard("vigie_queue_drain", ptr::null_mut(), body) };
    if status == OK { count } else { status }
}

/// # Safety
/// `events` is NULL or has room for `capacity` events.
unsafe fn fill(queue: &Queue, deadline: Deadline, events: *mut vigie_event, capacity: u32) -> Result<i32> {
    if events.is_null() {
        return Err(args::invalid("events is NULL"));
    }
    if capacity == 0 {
        return Err(args::invalid("capacity is 0"));
    }
    let mut drained = Vec::new();
    let count = queue.drain(deadline, &mut drained, capacity.min(i32::MAX as u32) as usize);
    for (i, event) in drained.into_iter().enumerate() {
        // SAFETY: as for this function; `i` is below `capacity`.
        unsafe { events.add(i).write_unaligned(event.into()) };
    }
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

/// Takes events as vigie_queue_drain() does, and writes them into one buffer, one vigie_packed_event after the other,
/// with everything that they carry: nothing has to be read elsewhere, and nothing has to be freed. For languages in
/// which each read of foreign memory is expensive: one call for a whole batch. Each text is copied once for it;
/// vigie_queue_drain() copies none, and can be used on the same queue.
///
/// Lengths: buf has room for buf_len bytes, 64 or more. Records begin at multiples of 8 from buf, whose own alignment
/// does not matter. An event that does not fit into the rest of buf stays in the queue and comes next. *used, which
/// may be NULL, is set to the bytes written; if even the first event does not fit, to the bytes that it needs;
/// otherwise to 0. timeout_ms as for vigie_queue_drain().
/// Ownership: nothing to free; buf is the caller's.
/// Blocks: up to timeout_ms.
/// Threads: [T].
/// Errors: the number of events, or a negative number. VIGIE_ERR_BUFFER_TOO_SMALL: the first event does not fit; nothing was
/// taken. Drain again with a buffer of *used bytes, or take it with vigie_queue_drain(). VIGIE_ERR_INVALID_ARG: queue or
/// buf is NULL, or buf_len is below 64 or above 4 GiB; VIGIE_ERR_FORKED; VIGIE_ERR_INTERNAL.
/// Since: 0.1.0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_drain_packed(
    queue: *mut vigie_queue,
    timeout_ms: i64,
    buf: *mut c_void,
    buf_len: usize,
    used: *mut usize,
) -> i32 {
    let (mut count, mut bytes) = (0, 0);
    let body = || {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        let queue = unsafe { handle::borrow(queue, "queue") }?;
        // SAFETY: as above.
        count = unsafe {
            pack(&queue.0, Timeout::from_ms(timeout_ms).deadline_or_never(), buf.cast(), buf_len, &mut bytes)
        }?;
        Ok(())
    };
    // SAFETY: there is no output for the error.
    let status = unsafe { guard("vigie_queue_drain_packed", ptr::null_mut(), body) };
    if !used.is_null() {
        // SAFETY: the caller keeps the contract of ffi/mod.rs.
        unsafe { used.write_unaligned(bytes) };
    }
    if status == OK { count } else { status }
}

/// # Safety
/// `buf` is NULL or writable for `buf_len` bytes.
unsafe fn pack(queue: &Queue, deadline: Deadline, buf: *mut u8, buf_len: usize, used: &mut usize) -> Result<i32> {
    if buf.is_null() {
        return Err(args::invalid("buf is NULL"));
    }
    let lengths = packed::SMALLEST..=args::MAX_BYTES;
    if !lengths.contains(&buf_len) {
        return Err(args::invalid(format!("buf_len is {buf_len}, not {} to {}", lengths.start(), lengths.end())));
    }
    let (mut drained, mut left, mut next) = (Vec::new(), buf_len, 0);
    queue.drain_while(deadline, &mut drained, |event| {
        next = packed::size_of_record(event);
        let rest = left.checked_sub(next);
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    if drained.is_empty() && next > 0 {
        *used = next;
        return Err(Error::new(
            Status::BufferTooSmall,
            format!("the next event takes {next} bytes, buf has {buf_len}"),
        ));
    }
    let count = i32::try_from(drained.len()).unwrap_or(i32::MAX);
    for event in drained {
        // SAFETY: as for this function; the sizes of all events together are within `buf_len`.
        *used += unsafe { packed::write(&event, buf.add(*used)) };
    }
    Ok(count)
}

/// Ends the calls of vigie_cmds_submit() with this token, and of the other functions that submit. Their completions still arrive, with VIGIE_ERR_CANCELLED,
/// and with VIGIE_EF_MAYBE_EXECUTED if bytes had been sent; a call that ends at this moment may complete with its own
/// outcome. Returns how many calls were found.
///
/// Lengths: the number returned counts calls: with VIGIE_CALL_EACH each command is one.
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none; 0 for NULL, for anything that is not a queue, and in a forked child.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_cancel(queue: *mut vigie_queue, token: u64) -> usize {
    let _whole = cancel::Off::new();
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total(0, || unsafe { handle::borrow(queue, "queue") }.ok().map(|queue| queue.0.cancel(token)))
}

/// Makes one drain return: one that waits now, or the next one. The descriptor becomes readable. A drain that returns
/// as many events as it has room for, or leaves one that did not fit, leaves the wake-up to the next drain.
///
/// Ownership: nothing to free.
/// Blocks: no.
/// Threads: [T].
/// Errors: none; nothing happens for NULL, for anything that is not a queue, and in a forked child.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_wakeup(queue: *mut vigie_queue) {
    let _whole = cancel::Off::new();
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    total((), || unsafe { handle::borrow(queue, "queue") }.ok().map(|queue| queue.0.wakeup()));
}

/// Frees the replies and errors of events, and zeroes the events. To keep a reply or an error, take it out before: set
/// the field to NULL.
///
/// Lengths: count is the number of events; with NULL nothing happens, whatever the count.
/// Ownership: the replies and errors are gone; the array is the caller's. Clearing twice is safe.
/// Blocks: no.
/// Threads: any thread, when no other uses these events.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_events_clear(events: *mut vigie_event, count: usize) {
    if events.is_null() {
        return;
    }
    let _whole = cancel::Off::new();
    for i in 0..count {
        // SAFETY: the caller keeps the contract of ffi/mod.rs; `i` is below `count`.
        unsafe {
            let event = events.add(i).read_unaligned();
            let_go(event.reply);
            let_go(event.error);
            events.add(i).write_unaligned(EMPTY);
        }
    }
}

/// Frees a queue, and the events that were not drained. Senders go on, and their events are dropped.
///
/// Ownership: the handle is gone and its descriptor closed; NULL is a no-op. Freeing twice is not safe. In a forked child
/// the memory is left alone.
/// Blocks: no.
/// Threads: any thread, when no other uses this handle.
/// Errors: none.
/// Since: 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vigie_queue_free(queue: *mut vigie_queue) {
    // SAFETY: the caller keeps the contract of ffi/mod.rs.
    unsafe { dispose(queue) };
}

#[cfg(test)]
mod tests {
    use super::super::error::vigie_error_status;
    use super::super::reply::{vigie_reply_int, vigie_reply_nodes};
    use super::*;
    use crate::error::{Error, Status};
    use crate::queue::kind;
    use crate::resp::ReplyBuilder;

    fn create(capacity: usize) -> (*mut vigie_queue, Arc<Queue>) {
        let mut made = ptr::null_mut();
        // SAFETY: a live variable, and a handle that lives until its test frees it.
        unsafe {
            assert_eq!(vigie_queue_create(capacity, &raw mut made, ptr::null_mut()), OK);
            (made, Arc::clone(&handle::borrow(made, "queue").unwrap().0))
        }
    }

    fn event(token: u64) -> Event {
        let reply = ReplyBuilder::new().map().text("service").text(&"o".repeat(200)).finish();
        Event { kind: kind::TOPOLOGY, token, outcome: Ok(Some(reply)) }
    }

    #[test]
    fn everything_that_an_event_carries_reaches_c() {
        let (queue, sender) = create(3);
        assert!(sender.push(event(u64::MAX)));
        let error = Error::new(Status::Timeout, "late");
        assert!(sender.push(Event { kind: kind::COMPLETION, token: 7, outcome: Err(error) }));
        assert!(sender.push(Event { kind: kind::FENCE, token: 8, outcome: Ok(None) }));
        assert!(!sender.push(event(9)));
        let mut events = [EMPTY; 5];
        // SAFETY: live handles and variables, each freed once.
        unsafe {
            assert_eq!(vigie_queue_drain(queue, 0, events.as_mut_ptr(), 5), 4);
            let [map, late, fence, dropped, rest] = &events;
            assert_eq!((map.kind, map.status, map.token), (kind::TOPOLOGY, OK, u64::MAX));
            let (mut count, mut data, mut len) = (0, ptr::null(), 0);
            let nodes = vigie_reply_nodes(map.reply, &raw mut count, &raw mut data, &raw mut len);
            assert_eq!((map.nodes, map.node_count, map.data, map.data_len), (nodes, count as u64, data, len as u64));
            assert_eq!((count, len, (*nodes).count), (3, 7 + 1 + 200 + 1, 2));
            assert_eq!((late.kind, late.status, late.token), (kind::COMPLETION, Status::Timeout.code(), 7));
            assert_eq!((vigie_error_status(late.error), late.reply.is_null()), (late.status, true));
            assert_eq!((late.nodes, late.node_count), (ptr::null(), 0));
            assert_eq!((fence.token, fence.reply.is_null(), fence.error.is_null()), (8, true, true));
            assert_eq!((dropped.kind, dropped.token, vigie_reply_int(dropped.reply, 0, -1)), (kind::DROPPED, 0, 1));
            assert_eq!((rest.kind, rest.reply.is_null()), (0, true));
            for _ in 0..2 {
                vigie_events_clear(events.as_mut_ptr(), 5);
                assert!(events.iter().all(|e| e.kind == 0 && e.reply.is_null() && e.error.is_null() && e.token == 0));
            }
            vigie_queue_free(queue);
        }
    }

    #[test]
    fn senders_outlive_the_handle_without_harm() {
        let (queue, sender) = create(4);
        let call = sender.reserve(1, 1).unwrap().next().unwrap();
        assert!(sender.push(event(2)));
        // SAFETY: a live handle, freed once; its descriptor is only looked at.
        unsafe {
            let fd = vigie_queue_fd(queue);
            assert!(fd >= 0 && libc::fcntl(fd, libc::F_GETFD) >= 0);
            vigie_queue_free(queue);
        }
        assert_eq!(sender.fd(), -1);
        assert_eq!(sender.drain(Deadline::never(), &mut Vec::new(), 9), 0, "undrained events went with the handle");
        assert!(!sender.push(event(3)));
        sender.wakeup();
        call.complete(Ok(None));
        assert_eq!(Arc::strong_count(&sender), 1);
    }
}
