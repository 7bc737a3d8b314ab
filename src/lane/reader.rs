//! The reader's role: receives for all callers, and passes the role on.
//!
//! Guarantees: replies go to the entries in the order of the ring; after its own reply a reader handles at most the rest of one
//! buffer for others; the state of the decoder outlives the role, so a reader may leave in the middle of a reply. A surplus or
//! malformed reply ends the lane.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::Waiter;
use super::transaction::is_left_open;
use super::{Caller, Completion, Lane, LaneState, Outcome, RoleGuard};
use crate::error::{Error, Status};
use crate::net::{Filled, In};
use crate::resp::{DecodeError, Decoded, Reply, Want};
use crate::sys::fault::Fault;
use crate::sys::slot::{Completer, Order};
use crate::sys::sync::Locked;
use crate::time::Instant;

/// How many calls sleep after one has spun in vain.
const SPIN_PAUSES: u32 = 63;

/// Submitted calls with their replies.
pub(super) type Finished = Vec<(Arc<dyn Completion>, Reply)>;

/// The state of the reader's role.
pub(super) struct ReaderState {
    input: In,
    /// The replies that the units in the ring expect, up to `copied`.
    expect: VecDeque<Want>,
    copied: u64,
    /// Complete replies of this buffer (`None`: skipped).
    complete: Vec<Option<Reply>>,
    deliveries: Vec<(u64, Completer<Outcome>, Reply)>,
    /// Submitted calls with their replies. They are completed once this state is unlocked.
    finished: Finished,
    /// Bytes wait to be sent. The callers' replies are delivered after that.
    corked: bool,
}

impl ReaderState {
    pub(super) fn new(input: In) -> Self {
        Self {
            input,
            expect: VecDeque::new(),
            copied: 0,
            complete: Vec::new(),
            deliveries: Vec::new(),
            finished: Vec::new(),
            corked: false,
        }
    }
}

/// What receiving one buffer has brought.
pub(super) struct Taken {
    pub(super) read: Read,
    pub(super) finished: Finished,
    /// Corked bytes are to be sent, then [`Lane::deliver_stranded`] is to be called.
    pub(super) corked: bool,
}

/// How a stretch of reading ended.
pub(super) enum Read {
    /// As much as the buffer holds: there may be more.
    Full,
    Some,
    Nothing,
    Broken(Error),
}

/// After so many buffers in a row a reader looks at the clock.
const LOOKS: u32 = 64;
/// At most so many buffers are read of a connection that is given up.
const REST: u32 = 4096;

impl Lane {
    /// Reads until the caller's own outcome is there, then passes the role on. The caller checks its slot afterwards. If its
    /// deadline comes first it keeps the role until it has given up.
    #[inline(always)]
    pub(super) fn read_until_done(&self, call: &Caller<'_>) {
        let _guard = RoleGuard::new(self, Order::TakeReader);
        call.is_reader.set(true);
        if call.slot.take(Order::TakeWriter) {
            drop(self.flush(self.lock(), Some(call)));
        }
        let mut looks = 0u32;
        while !call.slot.is_settled() {
            // Once its bytes are sent the next receive may last until the deadline, which is cheaper.
            if call.corked_until.get().is_some() && self.lock().is_sent(call.number) {
                call.corked_until.set(None);
            }
            match self.read_for(call) {
                Read::Broken(error) => {
                    let mut st = self.lock();
                    call.is_reader.set(false);
                    st.reader.give_up();
                    drop(self.hang_up(st, error));
                    return;
                }
                // After a stop of the process the reply may be in the socket.
                Read::Nothing if call.deadline.is_over() => {
                    self.read_available();
                    if !call.slot.is_settled() {
                        return;
                    }
                }
                Read::Nothing if call.corked_until.get().is_none_or(|end| Instant::now() < end) => {}
                Read::Nothing => drop(call.uncork()),
                Read::Some | Read::Full if call.slot.is_settled() => {}
                Read::Some | Read::Full => {
                    looks = looks.wrapping_add(1);
                    // A peer that sends without end, and not the reply, must not hold the call beyond its deadline.
                    if looks % LOOKS == 0 && call.deadline.is_over() {
                        return;
                    }
                    drop(self.flush_if_due(self.lock(), Some(call)));
                }
            }
        }
        call.is_reader.set(false);
        if Fault::ReaderPassesNothing.is_made() {
            return self.lock().reader.give_up();
        }
        self.pass_reader(self.lock(), call.number);
    }

    fn read_for(&self, call: &Caller<'_>) -> Read {
        if !self.settings.spin.is_zero() && self.is_alone(call) && self.spin_pays() {
            if let Some(read) = self.spin(call) {
                return read;
            }
            call.fresh.set(None);
        }
        self.read(call.next_look(), call.fresh.take())
    }

    /// Polls the socket for the reply without sleeping, for as long as the option says.
    fn spin(&self, call: &Caller<'_>) -> Option<Read> {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            if now - begun >= self.settings.spin || call.next_look().is_some_and(|end| now >= end) {
                self.hints.spin_pauses.store(SPIN_PAUSES, Ordering::Relaxed);
                return None;
            }
            match self.read(Some(now), Some(now)) {
                Read::Nothing if self.is_alone(call) => std::hint::spin_loop(),
                Read::Nothing => return None,
                other => return Some(other),
            }
            #[cfg(test)]
            self.at(super::Point::Spinning);
        }
    }

    /// Whether spinning keeps no other call from its work.
    fn is_alone(&self, call: &Caller<'_>) -> bool {
        let calls = call.calls.map_or(usize::MAX, |calls| calls.load(Ordering::Relaxed));
        calls <= 1 && self.in_flight() <= 1
    }

    /// Not shortly after it was in vain. The round trip is no measure: a caller that sleeps measures how long the system takes to
    /// wake it, which may be several times what the server takes.
    fn spin_pays(&self) -> bool {
        let rests = self.hints.spin_pauses.load(Ordering::Relaxed);
        if rests > 0 {
            self.hints.spin_pauses.store(rests - 1, Ordering::Relaxed);
        }
        rests == 0
    }

    /// Sends corked bytes if the batch before them is answered.
    pub(super) fn flush_if_due<'a>(
        &'a self,
        st: Locked<'a, LaneState>,
        call: Option<&Caller<'_>>,
    ) -> Locked<'a, LaneState> {
        if st.writer.is_free() && st.dead.is_none() && st.has_unsent() && st.may_flush(&self.settings) {
            self.flush(st, call)
        } else {
            st
        }
    }

    /// Delivers replies whose units were popped: after corked bytes were sent, or when a reader panicked.
    pub(super) fn deliver_stranded(&self) {
        self.deliver(&mut self.reader.lock());
    }

    /// Discards what was received, because a reader has panicked in the middle of it.
    pub(super) fn stop_reading(&self) {
        self.reader.lock().input.close();
    }

    /// Reads once, without waiting. For a writer that waits for room and has the reader's role meanwhile.
    pub(super) fn read_available(&self) {
        if let Read::Broken(error) = self.read(Some(Instant::now()), None) {
            drop(self.hang_up(self.lock(), error));
        }
    }

    /// Reads what is left on a connection on which nothing can be sent any more.
    pub(super) fn read_rest(&self) {
        for _ in 0..REST {
            if !matches!(self.read(Some(Instant::now()), None), Read::Full | Read::Some) {
                return;
            }
        }
    }

    /// Receives one buffer, and answers the units whose replies are complete. `now`: the time, if the clock was just read.
    #[inline(always)]
    fn read(&self, end: Option<Instant>, now: Option<Instant>) -> Read {
        let taken = self.take_in(end, now);
        if taken.corked {
            // The server works on these bytes while the callers are woken here.
            drop(self.flush_if_due(self.lock(), None));
            self.deliver_stranded();
        }
        if !taken.finished.is_empty() {
            self.finish(taken.finished);
        }
        taken.read
    }

    /// Completes submitted calls. The caller still has the reader's role, so that they are completed in order.
    pub(super) fn finish(&self, mut finished: Finished) {
        for (call, reply) in finished.drain(..) {
            call.complete(Ok(reply));
        }
        self.reader.lock().finished = finished;
    }

    /// Receives one buffer and answers the callers, unless corked bytes have to be sent first. Submitted calls are left to
    /// [`Lane::finish`].
    #[inline(always)]
    pub(super) fn take_in(&self, end: Option<Instant>, now: Option<Instant>) -> Taken {
        let mut rd = self.reader.lock();
        let read = self.receive_and_answer(&mut rd, end, now);
        Taken { read, finished: std::mem::take(&mut rd.finished), corked: std::mem::take(&mut rd.corked) }
    }

    fn receive_and_answer(&self, rd: &mut ReaderState, end: Option<Instant>, now: Option<Instant>) -> Read {
        // Bytes that were received before the connection became a lane come first.
        let filled = if rd.input.is_empty() { self.receive(rd, end, now) } else { Ok(Filled::Part) };
        let filled = match filled {
            Ok(Filled::Closed) => return self.ended(rd, self.closed()),
            Ok(filled) => filled,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Read::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Read::Nothing,
            Err(error) => {
                let what = format!("receiving from {}", self.endpoint);
                return self.ended(rd, Error::from_io(Status::Io, what, &error));
            }
        };
        #[cfg(test)]
        self.at(super::Point::Received);
        let decoded = self.decode(rd);
        self.answer(rd);
        match decoded {
            Err(error) => {
                rd.input.close();
                Read::Broken(error)
            }
            Ok(()) if filled == Filled::Part => Read::Some,
            Ok(()) => Read::Full,
        }
    }

    /// Handles the end of the connection. It completes a list of which the server has said that it understands no more.
    #[cold]
    fn ended(&self, rd: &mut ReaderState, cause: Error) -> Read {
        if let Some(reply) = rd.input.refuse_rest() {
            rd.expect.pop_front();
            rd.complete.push(Some(reply));
            self.answer(rd);
        }
        Read::Broken(cause)
    }

    fn receive(&self, rd: &mut ReaderState, end: Option<Instant>, now: Option<Instant>) -> std::io::Result<Filled> {
        let left = end.map(|end| end.saturating_duration_since(now.unwrap_or_else(Instant::now)));
        self.wire.fill(&mut rd.input, left)
    }

    /// Decodes all complete replies that were received; what is incomplete stays in the decoder.
    fn decode(&self, rd: &mut ReaderState) -> Result<(), Error> {
        loop {
            let want = match rd.expect.front() {
                Some(want) => *want,
                None => {
                    self.lock().expect(&mut rd.copied, &mut rd.expect);
                    // No reply is due: only an out-of-band push may come. Anything else is caught below.
                    rd.expect.front().copied().unwrap_or(Want::One)
                }
            };
            let reply = match rd.input.drain(want).map_err(|error| self.not_resp(error))? {
                None => return Ok(()),
                Some(Decoded::Push(_)) if rd.input.is_empty() => return Ok(()),
                Some(Decoded::Push(_)) => continue,
                Some(Decoded::Reply(reply)) if matches!(want, Want::Transaction(_)) && is_left_open(&reply) => {
                    return Err(self.left_open(rd, reply));
                }
                Some(Decoded::Reply(reply)) => Some(reply),
                Some(Decoded::Skipped) => None,
            };
            if rd.expect.pop_front().is_none() {
                let text = format!("{} sent a reply that was not asked for", self.endpoint);
                return Err(Error::new(Status::Protocol, text));
            }
            rd.complete.push(reply);
            if rd.input.is_empty() {
                return Ok(());
            }
        }
    }

    /// Completes a unit that has left a transaction open, and returns why the lane ends: what was sent behind the unit was queued and
    /// did not run, and must not be taken for answered.
    #[cold]
    fn left_open(&self, rd: &mut ReaderState, reply: Reply) -> Error {
        rd.expect.pop_front();
        rd.complete.push(Some(reply));
        let text = format!("{} did not end a transaction: the connection was closed", self.endpoint);
        Error::new(Status::Io, text)
    }

    fn not_resp(&self, error: DecodeError) -> Error {
        error.error(match &error {
            DecodeError::Protocol(text) => format!("{} sent no RESP: {text}", self.endpoint),
            DecodeError::Limit(text) | DecodeError::NoMemory(text) => format!("a reply of {}: {text}", self.endpoint),
        })
    }

    /// Pops an entry for each complete reply, and delivers the replies. While bytes are corked the callers' replies are left to
    /// [`Lane::deliver_stranded`].
    #[inline(always)]
    fn answer(&self, rd: &mut ReaderState) {
        let mut st = self.lock();
        for reply in rd.complete.drain(..) {
            // A unit that was abandoned during the decoding of its reply has no waiter; a skipped one has no reply.
            match (st.pop(), reply) {
                (Some((number, Some(Waiter::Caller(completer)))), Some(reply)) => {
                    rd.deliveries.push((number, completer, reply));
                }
                (Some((_, Some(Waiter::Call(call)))), Some(reply)) => rd.finished.push((call, reply)),
                _ => {}
            }
        }
        st.received(Instant::now(), &self.latencies);
        self.publish(&st);
        rd.corked = st.has_unsent();
        drop(st);
        #[cfg(test)]
        self.at(super::Point::Popped);
        if !rd.corked {
            self.deliver(rd);
        }
    }

    /// Stores the replies, and wakes the sleeping callers: one system call wakes up to 32 of them.
    #[inline(always)]
    fn deliver(&self, rd: &mut ReaderState) {
        let mut due = (0, 0);
        for (number, completer, reply) in rd.deliveries.drain(..) {
            if !completer.deliver(Ok(reply)) {
                continue;
            }
            if due.0 / 32 != number / 32 && due.1 != 0 {
                self.word(due.0).0.wake(due.1);
                due.1 = 0;
            }
            due = (number, due.1 | self.word(number).1);
        }
        if due.1 != 0 {
            self.word(due.0).0.wake(due.1);
        }
    }
}
