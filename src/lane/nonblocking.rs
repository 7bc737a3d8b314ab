//! Submitted calls on a lane: how they start, and how the lane is driven without a caller that waits.
//!
//! Guarantees: nothing here waits. A call that was accepted is completed exactly once: with its reply, at its deadline, at the end of
//! the lane, or because it was cancelled. Leaves to others: driving the lane when its socket is ready and when a deadline comes
//! (pool, queue), and what a completion means (submit).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::reader::Read;
use super::role::NOBODY;
use super::state::{Entry, Waiter};
use super::{Completion, Driven, Failure, Lane, RoleGuard, TRUSTED, Unit};
use crate::error::{Error, Result, Status};
use crate::net::Socket;
use crate::sys::slot::Order;
use crate::sys::sync::Locked;
use crate::time::{Deadline, Instant};

/// How many buffers are read in one go: other lanes have to be driven, too.
const BUFFERS: u32 = 16;

impl Lane {
    /// Appends the unit of a submitted call, and sends it if that is possible now. Only a dead lane refuses it: then nothing was sent,
    /// and the call is not completed. Returns when the lane has to be driven for this call. `of_list`: when the list that the call
    /// belongs to was started; its calls are sent together by [`Lane::send_now`].
    pub fn start(
        &self,
        unit: Unit<'_>,
        deadline: Deadline,
        call: Arc<dyn Completion>,
        of_list: Option<Instant>,
    ) -> Result<Option<Instant>> {
        let mut st = self.lock();
        let mut looked = false;
        if st.is_quiet() {
            let now = of_list.unwrap_or_else(Instant::now);
            looked = now.saturating_duration_since(st.last_received) > TRUSTED;
            if looked {
                st = self.look_at_idle(st);
            }
        }
        if let Some(cause) = &st.dead {
            return Err(cause.clone());
        }
        st.unused_since = None;
        st.check_peer_first |= unit.at_most_once && !looked;
        let entry = Entry::new(Waiter::Call(call), &unit, deadline);
        st.push_leased(entry, unit.lease, |wbuf| unit.bytes.append_to(wbuf))?;
        self.hints.pushes.fetch_add(1, Ordering::Relaxed);
        self.hints.in_flight.store(st.in_flight() as u32, Ordering::Relaxed);
        let due = st.next_due();
        let filled = if of_list.is_none() || st.has_plenty() { self.send_on(st) } else { None };
        Ok(filled.or(due))
    }

    /// Sends what waits in the buffer, unless it is held until the batch before it is answered. Returns when the lane has to be driven
    /// for it, as [`Lane::start`] does.
    pub fn send_now(&self) -> Option<Instant> {
        self.send_on(self.lock())
    }

    /// Sends what is due. The lane has to be driven at once if this has filled the socket: until now it was polled for reading only.
    fn send_on(&self, st: Locked<'_, super::LaneState>) -> Option<Instant> {
        let was_full = st.is_half_sent();
        let st = self.flush_if_due(st, None);
        (!was_full && st.is_half_sent()).then(Instant::now)
    }

    /// Reads and sends what can be read and sent without waiting, and ends the calls whose deadline has come.
    pub fn drive(&self) -> Driven {
        let mut st = self.lock();
        let driven = if st.reader.is_free() { Driven::Read } else { Driven::Busy };
        if driven == Driven::Read && st.dead.is_none() {
            st.reader.take(NOBODY);
            drop(st);
            self.pass_reader(self.read_all(), NOBODY);
            st = self.lock();
        }
        drop(self.flush_if_due(st, None));
        self.expire();
        driven
    }

    /// Ends the calls of this queue and token, and returns how many there were.
    pub fn cancel(&self, queue: usize, token: u64) -> usize {
        let mut st = self.lock();
        let cancelled = st.cancel(|call| call.is(queue, token));
        self.publish(&st);
        drop(st);
        let count = cancelled.len();
        for (number, waiter, sent) in cancelled {
            let error = Error::new(Status::Cancelled, "cancelled by the caller").with_endpoint(&self.endpoint);
            self.fail(number, waiter, Failure::new(sent, error));
        }
        count
    }

    /// Whether the call of this owner and token is in flight here.
    pub fn has_call(&self, queue: usize, token: u64) -> bool {
        self.lock().has_call(|call| call.is(queue, token))
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<Socket> {
        self.wire.socket()
    }

    /// The socket's descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.wire.fd()
    }

    /// The earliest deadline of a submitted call.
    pub fn next_due(&self) -> Option<Instant> {
        self.lock().next_due()
    }

    /// Whether the socket was full, and no writer is at work on the rest.
    pub fn wants_write(&self) -> bool {
        let st = self.lock();
        st.is_half_sent() && st.writer.is_free() && st.dead.is_none()
    }

    /// Reads until nothing more is there. The caller has the reader's role.
    fn read_all(&self) -> Locked<'_, super::LaneState> {
        let _guard = RoleGuard::new(self, Order::TakeReader);
        for _ in 0..BUFFERS {
            let taken = self.take_in(Some(Instant::now()), None);
            if taken.corked {
                // The server works on what was held back while the replies are handled here.
                drop(self.flush_if_due(self.lock(), None));
                self.deliver_stranded();
            }
            self.finish(taken.finished);
            match taken.read {
                Read::Full => {}
                Read::Some | Read::Nothing => break,
                Read::Broken(error) => return self.hang_up(self.lock(), error),
            }
        }
        self.lock()
    }

    /// Ends the calls whose deadline has come (rules 13 and 14).
    fn expire(&self) {
        let mut st = self.lock();
        let late = st.expire(Instant::now());
        if late.is_empty() {
            return;
        }
        let st = self.kill_if_silent(st);
        self.publish(&st);
        drop(st);
        for (number, waiter, sent) in late {
            let text = match sent {
                0 => format!("not sent to {}: the connection was busy", self.endpoint),
                _ => format!("no answer from {}", self.endpoint),
            };
            let error = Error::new(Status::Timeout, text).with_endpoint(&self.endpoint);
            self.fail(number, waiter, Failure::new(sent, error));
        }
    }
}
