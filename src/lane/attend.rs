//! Calls that nobody waits for: how they begin on a lane, and how it is looked after from outside.
//!
//! Guarantees: nothing here waits. A call that was accepted is completed exactly once: with its reply, at its deadline, at the lane's
//! end, or because it was cancelled. Leaves to others: looking after the lane when its socket is ready and when a deadline comes
//! (pool, queue), and what a completion means (client).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::reader::Read;
use super::role::NOBODY;
use super::state::{Entry, Waiter};
use super::{Completion, Failure, Lane, RoleGuard, TRUSTED, Tended, Unit};
use crate::error::{Error, Result, Status};
use crate::net::Socket;
use crate::sys::slot::Order;
use crate::sys::sync::MutexGuard;
use crate::time::{Deadline, Instant};

/// How many buffers are read at one go: others have something to say too.
const BUFFERS: u32 = 16;

impl Lane {
    /// Appends a unit that nobody waits for, and sends it if that can be done now. Refused only by a dead lane: nothing was sent then,
    /// and the call is not completed. Says when somebody has to look after the lane for its sake. Of a list, whose beginning is
    /// given, it is sent by [`Lane::send_now`] together with the others.
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
        st.careful |= unit.once && !looked;
        let entry = Entry::new(Waiter::Call(call), unit.list, deadline);
        st.push_leased(entry, unit.gate, |wbuf| unit.bytes.append_to(wbuf))?;
        self.glance.pushes.fetch_add(1, Ordering::Relaxed);
        self.glance.in_flight.store(st.in_flight() as u32, Ordering::Relaxed);
        let due = st.next_due();
        let filled = if of_list.is_none() || st.has_plenty() { self.send_on(st) } else { None };
        Ok(filled.or(due))
    }

    /// Sends what waits, unless it is held until the batch before it is answered. Says when somebody has to look after the lane for
    /// its sake, as [`Lane::start`].
    pub fn send_now(&self) -> Option<Instant> {
        self.send_on(self.lock())
    }

    /// At once, if this has filled the socket: whoever polls it meanwhile does so for reading alone.
    fn send_on(&self, st: MutexGuard<'_, super::St>) -> Option<Instant> {
        let was_full = st.is_half_sent();
        let st = self.flush_if_due(st, None);
        (!was_full && st.is_half_sent()).then(Instant::now)
    }

    /// Reads and sends what can be without waiting, and ends the calls whose time is over.
    pub fn tend(&self) -> Tended {
        let mut st = self.lock();
        let led = !st.reader.is_free();
        if !led && st.dead.is_none() {
            st.reader.take(NOBODY);
            drop(st);
            self.pass_lead(self.read_all(), NOBODY);
            st = self.lock();
        }
        let st = self.flush_if_due(st, None);
        drop(st);
        self.expire();
        let st = self.lock();
        Tended {
            in_flight: st.in_flight(),
            due: st.next_due(),
            wants_write: st.is_half_sent() && st.writer.is_free(),
            led,
            dead: st.dead.is_some(),
        }
    }

    /// Ends the calls of this owner and number; how many there were.
    pub fn cancel(&self, owner: usize, token: u64) -> usize {
        let mut st = self.lock();
        let cancelled = st.cancel(|call| call.is(owner, token));
        self.publish(&st);
        drop(st);
        let count = cancelled.len();
        for (number, waiter, sent) in cancelled {
            let error = Error::new(Status::Cancelled, "cancelled by the caller").with_endpoint(&self.endpoint);
            self.fail(number, waiter, Failure::new(sent, error));
        }
        count
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Its descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// When a call has to be ended at the earliest.
    pub fn next_due(&self) -> Option<Instant> {
        self.lock().next_due()
    }

    /// Whether the socket was full, and nobody is at work to send the rest.
    pub fn wants_write(&self) -> bool {
        let st = self.lock();
        st.is_half_sent() && st.writer.is_free() && st.dead.is_none()
    }

    /// With the reader's role: reads until nothing more is there.
    fn read_all(&self) -> MutexGuard<'_, super::St> {
        let _guard = RoleGuard::new(self, Order::Lead);
        for _ in 0..BUFFERS {
            let taken = self.take_in(Some(Instant::now()), None);
            if taken.held {
                // The server goes on with what was held back while the replies are looked at here.
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
