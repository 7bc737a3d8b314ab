//! The writer's role: sends what callers have appended, in order.
//!
//! Guarantees: `sent` counts exactly the bytes that the kernel took; a writer whose own bytes are out does at most [`ROUNDS`] more
//! rounds if another caller can go on at once, and a few more if not; a full socket never stops the reading. The end of the role
//! answers the waiters of a lane that has died.

use std::io::{ErrorKind, IoSlice};
use std::iter::once;
use std::time::Duration;

use super::role::NOBODY;
use super::state::{LaneState, Waiter};
use super::{Caller, Failure, Lane, RoleGuard};
use crate::error::{Error, Status};
use crate::net::{Out, Sending};
use crate::resp::encode::Pieces;
use crate::sys::slot::Order;
use crate::sys::sync::Locked;
use crate::time::{Instant, WriteLease};

/// Rounds for others, after the writer's own bytes are out.
const ROUNDS: u32 = 4;
/// The most rounds, when no other caller can take the role at once.
const MOST_ROUNDS: u32 = 16;
/// How often a writer that waits for room checks whether it has become the reader.
const ROLE_CHECK: Duration = Duration::from_millis(5);

/// How one round of sending ended.
enum Round {
    Sent,
    /// The caller's deadline came while the socket was full.
    Late,
    Broken(Error),
}

impl Lane {
    /// Takes the writer's role, or has been given it, and sends until nothing may be sent. Without a unit of its own it never
    /// waits.
    pub(super) fn flush<'a>(&'a self, st: Locked<'a, LaneState>, call: Option<&Caller<'_>>) -> Locked<'a, LaneState> {
        self.flush_with(st, call, None)
    }

    /// As [`Lane::flush`], with a unit that is in no buffer. It follows all bytes that are there at the beginning.
    #[inline]
    pub(super) fn flush_with<'a>(
        &'a self,
        st: Locked<'a, LaneState>,
        call: Option<&Caller<'_>>,
        mut straight: Option<&Pieces<'_>>,
    ) -> Locked<'a, LaneState> {
        let _guard = RoleGuard::new(self, Order::TakeWriter);
        // On a panic this is unlocked before the guard runs; a parameter would be unlocked after it.
        let mut st = st;
        let mut rounds = 0;
        let own = call.map_or(NOBODY, |call| call.number);
        st.writer.take(own);
        loop {
            if st.is_lease_over() {
                let late = st.take_back();
                st = self.give_back(st, late);
            }
            if st.dead.is_some() || (straight.is_none() && !st.has_unsent()) {
                return self.end_writing(st, None);
            }
            st.swap_out(call.and_then(|call| call.fresh.get()).unwrap_or_else(Instant::now));
            let (check_peer_first, lease) = (st.take_peer_check(), st.lease());
            let lease = lease.as_deref();
            let mut out = std::mem::take(&mut st.out);
            drop(st);
            let (taken, mut round) = match straight {
                // Bytes that are sent on a connection that the peer has closed look as if it might have read them.
                _ if check_peer_first && self.wire.is_closed_by_peer() => (0, Round::Broken(self.closed())),
                None => self.send(&mut [IoSlice::new(out.rest())], lease, call),
                Some(pieces) => self.send(&mut in_parts(out.rest(), pieces), lease, call),
            };
            out.took(taken);
            if let Some(pieces) = straight.take() {
                match round {
                    Round::Broken(_) => {}
                    Round::Sent | Round::Late => {
                        // Only the caller, which may leave, has the rest of the unit: without a copy the stream cannot go on.
                        out.keep_rest(pieces).unwrap_or_else(|error| round = Round::Broken(error));
                    }
                }
                if matches!(round, Round::Broken(_)) {
                    out = Out::default();
                }
            }
            st = self.lock();
            st.sent += taken as u64;
            st.out = out;
            if let (Some(call), true) = (call, st.has_unsent()) {
                call.fresh.set(None);
            }
            match round {
                Round::Broken(error) => return self.hear_out(st, own, error),
                Round::Late => return self.pass_writer(st, own),
                Round::Sent if st.dead.is_some() => return self.end_writing(st, None),
                Round::Sent if !st.has_unsent() => return self.end_writing(st, None),
                // The bytes that an earlier writer left may have been sent before the writer's own.
                Round::Sent if call.is_some() && !st.is_sent(own) => continue,
                Round::Sent if !st.may_flush(&self.settings) => return self.end_writing(st, None),
                Round::Sent => rounds += 1,
            }
            // A reader receives no orders: a few more rounds save it from waiting until it looks again.
            if rounds > ROUNDS && st.last_unsent_live(own).is_some() || rounds > MOST_ROUNDS {
                return self.pass_writer(st, own);
            }
        }
    }

    /// Passes the writer's role to a caller whose bytes are not out yet.
    pub(super) fn pass_writer<'a>(&'a self, mut st: Locked<'a, LaneState>, but: u64) -> Locked<'a, LaneState> {
        if st.dead.is_some() {
            return self.end_writing(st, None);
        }
        let asleep = st.pass_writer(but);
        self.publish(&st);
        drop(st);
        self.wake(asleep);
        self.lock()
    }

    #[inline(always)]
    fn end_writing<'a>(&'a self, mut st: Locked<'a, LaneState>, broken: Option<Error>) -> Locked<'a, LaneState> {
        st.writer.give_up();
        match broken {
            Some(cause) => self.hang_up(st, cause),
            None if st.dead.is_some() => self.fail_all(st),
            None => {
                self.publish(&st);
                st
            }
        }
    }

    /// Sending has failed. What the server has sent before belongs to the waiters, and may give the reason: it is read first, by
    /// the reader, or here.
    fn hear_out<'a>(&'a self, mut st: Locked<'a, LaneState>, own: u64, cause: Error) -> Locked<'a, LaneState> {
        // Without memory for the rest of the writer's own unit, the others have only lost their connection.
        let cause = if cause.status() == Status::Limit { self.blame(&mut st, own, "bytes of", cause) } else { cause };
        let (free, reads) = (st.reader.is_free(), own != NOBODY && st.reader.is_with(own));
        if st.dead.is_some() || !(free || reads) {
            // This wakes the reader, which ends the lane if a reply is missing. If none is missing the lane ends at its next use.
            self.wire.shutdown();
            st.writer.give_up();
            return if st.dead.is_some() { self.fail_all(st) } else { st };
        }
        let _guard = RoleGuard::new(self, Order::TakeReader);
        st.reader.take(own);
        drop(st);
        self.read_rest();
        let mut st = self.lock();
        if free {
            st.reader.give_up();
        }
        self.end_writing(st, Some(cause))
    }

    pub(super) fn closed(&self) -> Error {
        Error::new(Status::Io, format!("{} closed the connection", self.endpoint))
    }

    /// Answers units that were taken back unsent.
    fn give_back<'a>(&'a self, st: Locked<'a, LaneState>, late: Vec<(u64, Waiter, usize)>) -> Locked<'a, LaneState> {
        self.publish(&st);
        drop(st);
        for (number, waiter, sent) in late {
            let text = format!("not sent to {}: writes are held back", self.endpoint);
            let error = Error::new(Status::Fenced, text).with_endpoint(&self.endpoint);
            self.fail(number, waiter, Failure::new(sent, error));
        }
        self.lock()
    }

    /// Sends until all bytes are taken, the deadline comes, or the connection breaks. Under a lease the clock is checked before
    /// every send. Bytes that were swapped out cannot be taken back, so the connection ends together with the lease.
    #[inline(always)]
    fn send(&self, parts: &mut [IoSlice<'_>], lease: Option<&WriteLease>, call: Option<&Caller<'_>>) -> (usize, Round) {
        #[cfg(test)]
        self.at(super::Point::Sending);
        let mut sending = Sending::new(parts);
        let round = self.send_until_done(&mut sending, lease, call);
        (sending.sent(), round)
    }

    #[inline(always)]
    fn send_until_done(
        &self,
        sending: &mut Sending<'_, '_>,
        lease: Option<&WriteLease>,
        call: Option<&Caller<'_>>,
    ) -> Round {
        while !sending.is_done() {
            if lease.is_some_and(WriteLease::is_over) {
                let text = format!("writes are held back while bytes for {} were being sent", self.endpoint);
                return Round::Broken(Error::new(Status::Io, text));
            }
            let taken = if lease.is_some() { self.wire.send_piece(sending) } else { self.wire.send(sending) };
            match taken {
                Ok(()) => {
                    #[cfg(test)]
                    self.at(super::Point::Sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let Some(call) = call.filter(|call| !call.deadline.is_over()) else {
                        return Round::Late;
                    };
                    if let Err(error) = self.wait_for_room(call) {
                        return Round::Broken(error);
                    }
                }
                Err(error) => {
                    let what = format!("sending to {}", self.endpoint);
                    return Round::Broken(Error::from_io(Status::Io, what, &error));
                }
            }
        }
        Round::Sent
    }

    /// Waits until the socket takes more. The server may be waiting for its replies to be read, so they are read first if there is
    /// no reader.
    fn wait_for_room(&self, call: &Caller<'_>) -> Result<(), Error> {
        call.fresh.set(None);
        if call.slot.take(Order::TakeReader) {
            call.is_reader.set(true);
        }
        let is_reader = call.is_reader.get();
        let mut st = self.lock();
        let reads = is_reader || st.reader.is_free();
        if reads {
            st.reader.take(call.number);
        }
        drop(st);
        let left = call.deadline.left();
        let limit = if reads { left } else { Some(left.map_or(ROLE_CHECK, |left| left.min(ROLE_CHECK))) };
        let ready = self.wire.wait(reads, true, limit);
        if reads && matches!(&ready, Ok(ready) if ready.read) {
            self.read_available();
        }
        if reads && !is_reader {
            self.pass_reader(self.lock(), call.number);
        }
        match ready {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::from_io(Status::Io, format!("waiting to send to {}", self.endpoint), &error)),
        }
    }
}

fn in_parts<'a>(before: &'a [u8], pieces: &'a Pieces<'_>) -> Vec<IoSlice<'a>> {
    once(before).chain(pieces.iter()).map(IoSlice::new).collect()
}
