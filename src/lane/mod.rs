//! One shared connection: many callers, one ring of units that wait for their replies, two roles.
//!
//! There is no I/O thread. A caller appends its bytes and an entry to the ring; whoever finds no writer sends for everybody,
//! whoever finds no reader receives for everybody and hands the role on once its own reply has come. A lone caller therefore
//! encodes, sends, receives and returns on its own thread.
//!
//! Guarantees: every unit that was accepted ends exactly once, with its reply or with a [`Failure`] that says how much
//! of it was sent; a caller returns at its deadline; one caller's deadline costs the others nothing. No lock is held
//! during a system call. Leaves to others: which lane to use (pool), what may be sent again (client).
//!
//! TLS will stand between `St::out` and the socket (rule 24): the writer drains ciphertext in order, the reader feeds
//! ciphertext to the session before it decodes; offsets and entries stay as they are.

mod reader;
mod state;
mod writer;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LaneSettings;
use crate::error::{Error, Status};
use crate::net::{Conn, Socket};
use crate::resp::{Reply, encode};
use crate::sys::futex::Word;
use crate::sys::slot::{self, Order, Seen, Slot};
use crate::time::Deadline;

use reader::Rd;
use state::{Entry, St};

/// Words that waiters sleep on; a waiter's place follows from its number in the ring.
const WORDS: usize = 32;
/// An idle lane is looked at before it is used again after so long: the peer may have closed it.
const TRUSTED: Duration = Duration::from_micros(100);

/// What a unit ends with.
pub type Outcome = Result<Reply, Failure>;

/// Why there is no reply, and how much of the unit the server may have seen all the same.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How many of its bytes were handed to the kernel, or may yet be: a command whose last byte is not among them was surely
    /// not executed.
    pub sent: usize,
    /// What happened.
    pub error: Error,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn unsent(error: Error) -> Self {
        Self { sent: 0, error }
    }
}

/// A unit: one call's bytes and the replies that it waits for.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    /// What is sent.
    pub bytes: Bytes<'a>,
    /// `None`: one reply, as it is. `Some(n)`: n replies, as the children of one ARRAY.
    pub list: Option<u32>,
}

/// The bytes of a unit, encoded or still to be encoded.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// One command's arguments.
    Args(&'a [&'a [u8]]),
    /// RESP, one command after the other.
    Raw(&'a [u8]),
}

impl Bytes<'_> {
    /// Appends them to a buffer.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Bytes::Args(args) => encode::command(out, args),
            Bytes::Raw(raw) => out.extend_from_slice(raw),
        }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Bytes::Args(args) => encode::command_len(args),
            Bytes::Raw(raw) => raw.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One shared connection.
pub struct Lane {
    socket: Arc<Socket>,
    endpoint: String,
    settings: LaneSettings,
    born: Instant,
    state: Mutex<St>,
    /// What belongs to the reader's role; whoever has the role is the only one who locks it.
    reader: Mutex<Rd>,
    words: [Word; WORDS],
    glance: Glance,
}

/// Copies of the state for choosing a lane without taking its lock.
#[derive(Default)]
struct Glance {
    in_flight: AtomicU32,
    /// When the oldest unanswered batch was sent: microseconds after birth, plus one; 0 with none.
    head_sent: AtomicU64,
    srtt_us: AtomicU32,
    pushes: AtomicU32,
    dead: AtomicBool,
}

impl Lane {
    /// A lane over a connection that has shaken hands and has nothing in flight.
    pub fn new(conn: Conn, endpoint: String, settings: LaneSettings) -> Self {
        let born = conn.opened();
        let (socket, decoder, rest) = conn.into_parts();
        Self {
            socket,
            endpoint,
            settings,
            born,
            state: Mutex::new(St::new()),
            reader: Mutex::new(Rd::new(decoder, &rest)),
            words: Default::default(),
            glance: Glance::default(),
        }
    }

    /// Sends a unit and waits for its replies, until the deadline.
    pub fn exec(&self, unit: Unit<'_>, deadline: Deadline) -> Outcome {
        slot::scope(|slot, token| {
            let mut st = self.lock();
            if st.is_quiet() && st.last_received.elapsed() > TRUSTED && self.socket.is_closed_by_peer() {
                let cause =
                    Error::new(Status::Io, format!("{} closed the connection while it was idle", self.endpoint));
                st = self.kill(st, cause);
            }
            if let Some(cause) = &st.dead {
                return Err(Failure::unsent(cause.clone()));
            }
            let number = st.push(Entry::new(token, unit.list), |wbuf| unit.bytes.append_to(wbuf));
            self.glance.pushes.fetch_add(1, Ordering::Relaxed);
            let mut call = Call { lane: self, slot, number, deadline, held_until: None, leads: Cell::new(false) };
            if st.writer || !st.may_flush(&self.settings) {
                call.held_until = Some(st.hold_end());
            } else {
                st = self.flush(st, Some(&call));
            }
            self.publish(&st);
            call.wait(st)
        })
    }

    /// Whether the lane takes no more units.
    pub fn is_dead(&self) -> bool {
        self.glance.dead.load(Ordering::Relaxed)
    }

    /// Units that wait for replies.
    pub fn in_flight(&self) -> u32 {
        self.glance.in_flight.load(Ordering::Relaxed)
    }

    /// Units ever pushed, wrapping.
    pub fn pushes(&self) -> u32 {
        self.glance.pushes.load(Ordering::Relaxed)
    }

    /// The smoothed round trip; zero before the first.
    pub fn srtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.glance.srtt_us.load(Ordering::Relaxed)))
    }

    /// Whether the oldest unanswered unit is so old that new calls should go elsewhere.
    pub fn is_busy(&self) -> bool {
        let head = self.glance.head_sent.load(Ordering::Relaxed);
        let limit = (8 * self.srtt()).max(Duration::from_millis(1));
        head != 0 && self.born.elapsed().saturating_sub(Duration::from_micros(head - 1)) > limit
    }

    /// When its connection was opened.
    pub fn born(&self) -> Instant {
        self.born
    }

    /// How long nothing has been in flight; zero while something is.
    pub fn idle_for(&self) -> Duration {
        let st = self.lock();
        if st.is_quiet() { st.last_received.elapsed() } else { Duration::ZERO }
    }

    /// Ends the lane now: the connection is shut down, whoever waits is answered with this cause.
    pub fn shut(&self, cause: Error) {
        drop(self.kill(self.lock(), cause));
    }

    /// Looks after a lane that nobody may be using: ends it when the peer closed it, or when it has been silent for too long
    /// with replies due.
    pub fn check(&self) {
        let st = self.lock();
        if st.dead.is_some() {
            return;
        }
        if st.is_quiet() && self.socket.is_closed_by_peer() {
            let cause = Error::new(Status::Io, format!("{} closed the connection while it was idle", self.endpoint));
            drop(self.kill(st, cause));
        } else {
            drop(self.kill_if_silent(st, 2 * self.settings.silent));
        }
    }

    fn lock(&self) -> MutexGuard<'_, St> {
        // A panic under the lock is answered by the role guards, which end the lane; the state stays readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, number: u64) -> (&Word, u32) {
        (&self.words[(number / 32) as usize % WORDS], 1 << (number % 32))
    }

    fn publish(&self, st: &St) {
        self.glance.in_flight.store(st.in_flight() as u32, Ordering::Relaxed);
        let head = st.head_sent().map_or(0, |sent| sent.saturating_duration_since(self.born).as_micros() as u64 + 1);
        self.glance.head_sent.store(head, Ordering::Relaxed);
        self.glance.srtt_us.store(st.srtt_us() as u32, Ordering::Relaxed);
    }

    /// Marks the lane dead and shuts the connection down; the ring is sorted now, or by the writer when it comes back
    /// (rule 12: bytes that were swapped out count as sent until the writer has reported what the kernel took).
    fn kill<'a>(&'a self, mut st: MutexGuard<'a, St>, cause: Error) -> MutexGuard<'a, St> {
        if st.dead.is_none() {
            st.dead = Some(cause.with_endpoint(&self.endpoint));
            self.glance.dead.store(true, Ordering::Relaxed);
            self.socket.shutdown();
        }
        if st.writer { st } else { self.bury(st) }
    }

    /// Answers everybody who still waits on a dead lane.
    fn bury<'a>(&'a self, mut st: MutexGuard<'a, St>) -> MutexGuard<'a, St> {
        let ended = st.bury();
        self.publish(&st);
        drop(st);
        for (number, token, failure) in ended {
            if token.deliver(Err(failure)) {
                let (word, bit) = self.word(number);
                word.wake(bit);
            }
        }
        self.lock()
    }

    /// Rule 14: a lane is closed only when it was silent for long with replies due.
    fn kill_if_silent<'a>(&'a self, st: MutexGuard<'a, St>, limit: Duration) -> MutexGuard<'a, St> {
        let limit = limit.max(self.settings.silent);
        match st.silent_for() {
            Some(silent) if silent >= limit && st.dead.is_none() => {
                let text = format!("{} sent nothing for {} ms with replies due", self.endpoint, silent.as_millis());
                self.kill(st, Error::new(Status::Timeout, text))
            }
            _ => st,
        }
    }

    /// Gives the reader's role to the first who still waits, or to nobody. `but` will look for itself.
    fn pass_lead<'a>(&'a self, mut st: MutexGuard<'a, St>, but: u64) -> MutexGuard<'a, St> {
        match st.first_live(but) {
            Some((number, token)) if st.dead.is_none() => {
                if token.order(Order::Lead) {
                    let (word, bit) = self.word(number);
                    word.wake(bit);
                }
            }
            _ => st.reader = false,
        }
        st
    }
}

/// No entry of the ring.
const NOBODY: u64 = u64::MAX;

/// One caller's stay in the ring.
struct Call<'a> {
    lane: &'a Lane,
    slot: &'a Slot<Outcome>,
    number: u64,
    deadline: Deadline,
    /// Its bytes wait for a writer, or are held back until the batch before them is answered; but not longer than this.
    held_until: Option<Instant>,
    /// It has the reader's role.
    leads: Cell<bool>,
}

impl<'a> Call<'a> {
    /// Waits for the outcome; takes roles as they come.
    fn wait(&mut self, st: MutexGuard<'a, St>) -> Outcome {
        let (word, bit) = self.lane.word(self.number);
        self.lead_if_free(st);
        loop {
            if self.leads.get() {
                // Its deadline came while it led.
                if let Some(failure) = self.give_up() {
                    return Err(failure);
                }
                self.deadline = Deadline::never();
            }
            let end = self.held_until.or(self.deadline.end());
            match self.slot.wait(word, bit, end) {
                Seen::Done(outcome) => return outcome,
                Seen::Order(Order::Lead) => self.lane.lead(self),
                Seen::Order(Order::Flush) => self.lead_if_free(self.lane.flush(self.lane.lock(), Some(self))),
                Seen::Released => return Err(self.lost()),
                Seen::Late if self.held_until.take().is_some() => self.end_hold(),
                Seen::Late => {
                    if let Some(failure) = self.give_up() {
                        return Err(failure);
                    }
                    // Popped already: only the store is still to come.
                    self.deadline = Deadline::never();
                }
            }
        }
    }

    /// Somebody must read as long as somebody waits: whoever comes back from writing looks.
    fn lead_if_free(&self, mut st: MutexGuard<'_, St>) {
        if st.dead.is_none() && !st.reader && !self.slot.is_settled() {
            st.reader = true;
            drop(st);
            self.lane.lead(self);
        }
    }

    /// The answer that was waited for is late: send what was held back.
    fn end_hold(&self) {
        let st = self.lane.lock();
        if !st.writer && st.dead.is_none() && st.has_unsent() {
            self.lead_if_free(self.lane.flush(st, Some(self)));
        }
    }

    /// The deadline came (rule 13). `None`: the reply is being handed over at this moment.
    fn give_up(&self) -> Option<Failure> {
        let mut st = self.lane.lock();
        let abandoned = st.abandon(self.number);
        if self.leads.take() {
            st = self.lane.pass_lead(st, NOBODY);
        }
        // Orders are given under the lock and only to entries in the ring: after this look there can be no more.
        while let Some(order) = self.slot.peek_order() {
            st = match order {
                Order::Lead => self.lane.pass_lead(st, NOBODY),
                Order::Flush => self.lane.pass_flush(st),
            };
        }
        let sent = abandoned?;
        st = self.lane.kill_if_silent(st, 2 * self.deadline.budget().unwrap_or_default());
        self.lane.publish(&st);
        drop(st);
        let (endpoint, waited) = (&self.lane.endpoint, self.deadline.elapsed().as_millis());
        let text = match sent {
            0 => format!("not sent to {endpoint}: the connection was busy for {waited} ms"),
            _ => format!("no answer from {endpoint} after {waited} ms"),
        };
        Some(Failure { sent, error: Error::new(Status::Timeout, text).with_endpoint(endpoint) })
    }

    fn lost(&self) -> Failure {
        let error = Error::new(Status::Internal, "the lane dropped a caller without an answer");
        Failure { sent: usize::MAX, error: error.with_endpoint(&self.lane.endpoint) }
    }
}

/// Ends the lane when the holder of a role panics, so that nobody waits for it for ever.
struct RoleGuard<'a> {
    lane: &'a Lane,
    role: Order,
}

impl Drop for RoleGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut st = self.lane.lock();
            match self.role {
                Order::Flush => st.writer = false,
                Order::Lead => st.reader = false,
            }
            drop(self.lane.kill(st, Error::new(Status::Internal, "a panic while working for others on a connection")));
        }
    }
}
