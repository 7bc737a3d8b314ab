//! A lane: one multiplexed connection, which many callers share. It has a ring of units that wait for their replies, and two roles.
//!
//! There is no I/O thread. A caller appends its bytes and an entry to the ring. If there is no writer, the caller becomes the writer and
//! sends all bytes of the lane. If there is no reader, it becomes the reader, receives the replies of all callers, and passes the role
//! on once its own reply has come. So a lone caller encodes, sends, receives and returns on its own thread.
//!
//! Guarantees: every accepted unit ends exactly once, with its reply or with a [`Failure`] that says how much of it was sent; a
//! caller returns at its deadline; the deadline of one caller does not affect the others. Nothing that can wait is done under the lane's lock.
//! Leaves to others: which lane to use (pool), what may be sent again (call).
//!
//! A lane's connection is a [`Wire`] in its three parts: the wire itself, which both roles use at once without a lock; its `In`, under the
//! reader's lock; its `Out`, under the lane's lock, from which the writer takes it while it sends. TLS stands in the wire (rule 24):
//! offsets and entries count plaintext.

#[cfg(all(test, loom))]
mod model_tests;
mod nonblocking;
mod reader;
mod role;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;
pub mod transaction;
mod unit;
mod writer;

use std::cell::Cell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::config::LaneSettings;
use crate::error::{Error, Result, Status};
use crate::meter::{End, Latencies};
use crate::net::{In, Wire};
use crate::resp::Reply;
use crate::sys::fault::Fault;
use crate::sys::futex::Word;
use crate::sys::panic;
use crate::sys::rank::Rank;
use crate::sys::slot::{self, Order, Seen, Slot};
use crate::sys::sync::{Lock, Locked};
use crate::time::{Deadline, Instant};

pub use unit::{Bytes, Completion, Driven, Failure, Outcome, Unit};

use reader::ReaderState;
use role::NOBODY;
use state::{Entry, LaneState, Waiter};

/// Words that waiters sleep on. The number of a unit determines its word and its bit.
const WORDS: usize = 32;
/// A lane that has been idle for longer is checked before it is used again, because the peer may have closed it.
const TRUSTED: Duration = Duration::from_micros(100);

/// How often a caller whose bytes wait for a writer checks that there still is one.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a caller whose process was stopped beyond its deadline still waits for its reply.
const MOMENT: Duration = Duration::from_millis(250);

/// A multiplexed connection.
pub struct Lane {
    wire: Wire,
    endpoint: String,
    settings: LaneSettings,
    state: Lock<LaneState>,
    /// The state of the reader's role. Only the holder of the role locks it, so the holder may wait meanwhile.
    reader: Lock<ReaderState>,
    words: CachePadded<[Word; WORDS]>,
    hints: CachePadded<Hints>,
    /// Written under the lock of the state.
    latencies: Arc<Latencies>,
    #[cfg(test)]
    hook: std::sync::OnceLock<Hook>,
}

/// Copies of the state, for choosing a lane without taking its lock.
#[derive(Default)]
struct Hints {
    in_flight: AtomicU32,
    /// When the oldest unanswered batch was sent: microseconds after birth, plus one; 0 with none.
    head_sent: AtomicU64,
    srtt_us: AtomicU32,
    pushes: AtomicU32,
    dead: AtomicBool,
    /// It was asked whether it carries transactions, and does.
    carries_transactions: AtomicBool,
    /// How many more calls sleep before one spins again, see [`LaneSettings::spin`].
    spin_pauses: AtomicU32,
}

impl Lane {
    /// A lane over a connection that has shaken hands and has nothing in flight.
    pub fn new((wire, input): (Wire, In), endpoint: String, settings: LaneSettings) -> Self {
        let surplus = input.first().is_some_and(|first| first != b'>');
        // On a single processor a caller that spins keeps the server from answering.
        let processors =
            if settings.spin.is_zero() { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let spin = if processors > 1 { settings.spin } else { Duration::ZERO };
        let settings = LaneSettings { spin, ..settings };
        let state = if wire.is_secured() { LaneState::of_tls() } else { LaneState::new() };
        let latencies = wire.tally().map_or_else(Arc::default, |tally| tally.node().lane());
        let lane = Self {
            latencies,
            wire,
            endpoint,
            settings,
            state: Lock::new(Rank::Lane, state),
            reader: Lock::new(Rank::LaneReader, ReaderState::new(input)),
            words: Default::default(),
            hints: CachePadded::default(),
            #[cfg(test)]
            hook: Default::default(),
        };
        if surplus {
            lane.shut(Error::new(Status::Protocol, format!("{} sent more than was asked for", lane.endpoint)));
        }
        lane
    }

    /// Sends a unit and waits for its replies, until the deadline.
    pub fn exec(&self, unit: Unit<'_>, deadline: Deadline) -> Outcome {
        self.exec_among(unit, deadline, None)
    }

    /// As [`Lane::exec`]. `calls`: how many calls the client has in flight; a lone call may spin for its reply instead of sleeping.
    #[inline(always)]
    pub fn exec_among(&self, unit: Unit<'_>, deadline: Deadline, calls: Option<&AtomicUsize>) -> Outcome {
        let pieces = unit.bytes.pieces();
        slot::scope(|slot, completer| {
            // Before the lock, because others wait for the lock.
            let now = Instant::now();
            let mut st = self.lock();
            let looked = st.is_quiet() && now.saturating_duration_since(st.last_received) > TRUSTED;
            if looked {
                st = self.look_at_idle(st);
            }
            if let Some(cause) = &st.dead {
                return Err(Failure::unsent(cause.clone()));
            }
            st.unused_since = None;
            st.check_peer_first |= unit.at_most_once && !looked;
            let entry = Entry::new(Waiter::Caller(completer), &unit, deadline);
            // A large unit is copied only if another thread has to send it.
            let straight = pieces.as_ref().filter(|_| unit.lease.is_none());
            let straight = straight.filter(|pieces| st.goes_straight(pieces.len(), &self.settings, now));
            let number = match straight {
                Some(pieces) => st.push_straight(entry, pieces.len(), now),
                None => match st.push_leased(entry, unit.lease, |wbuf| unit.bytes.append_to(wbuf)) {
                    Ok(number) => number,
                    Err(cause) => return Err(Failure::unsent(cause)),
                },
            };
            self.hints.pushes.fetch_add(1, Ordering::Relaxed);
            self.hints.in_flight.store(st.in_flight() as u32, Ordering::Relaxed);
            let mut call = Caller::new(self, slot, number, deadline);
            call.calls = calls;
            call.fresh.set(Some(now));
            if straight.is_some() {
                st = self.flush_with(st, Some(&call), straight);
            } else if !st.writer.is_free() || !st.may_flush_at(&self.settings, || now) {
                // A timer for each sleeper would cost as much as waking it.
                if !st.timed {
                    call.keep_timer(&mut st, now);
                }
                self.publish(&st);
            } else {
                st = self.flush(st, Some(&call));
            }
            call.wait(st)
        })
    }

    /// Asks the server whether the lane carries transactions, unless it is known that it does. A failure means that nothing of the
    /// transaction was sent.
    pub fn prepare_transaction(&self, deadline: Deadline) -> std::result::Result<(), Failure> {
        if self.carries_transactions() {
            return Ok(());
        }
        let unsent = |failure| Failure { sent: 0, ..failure };
        let replies = self.exec(transaction::question(), deadline).map_err(unsent)?;
        self.note_transactions(&replies).map_err(Failure::unsent)
    }

    /// Whether the lane is known to carry transactions.
    pub fn carries_transactions(&self) -> bool {
        self.hints.carries_transactions.load(Ordering::Relaxed)
    }

    /// Takes the replies to [`transaction::question`].
    pub fn note_transactions(&self, replies: &Reply) -> Result<()> {
        transaction::carries(replies, &self.endpoint)?;
        self.set_transactions(true);
        Ok(())
    }

    /// Sets whether the lane is known to carry transactions.
    pub fn set_transactions(&self, carries: bool) {
        self.hints.carries_transactions.store(carries, Ordering::Relaxed);
    }

    /// Whether the lane takes no more units.
    pub fn is_dead(&self) -> bool {
        self.hints.dead.load(Ordering::Relaxed)
    }

    /// Units that wait for replies.
    pub fn in_flight(&self) -> u32 {
        self.hints.in_flight.load(Ordering::Relaxed)
    }

    /// How many units have been pushed, wrapping.
    pub fn pushes(&self) -> u32 {
        self.hints.pushes.load(Ordering::Relaxed)
    }

    /// The smoothed round trip; zero before the first.
    pub fn srtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.hints.srtt_us.load(Ordering::Relaxed)))
    }

    /// Whether the oldest unanswered unit is so old that new calls should use another lane.
    pub fn is_busy(&self) -> bool {
        let head = self.hints.head_sent.load(Ordering::Relaxed);
        let limit = (8 * self.srtt()).max(Duration::from_millis(1));
        head != 0 && self.born().elapsed().saturating_sub(Duration::from_micros(head - 1)) > limit
    }

    /// When its connection was opened.
    pub fn born(&self) -> Instant {
        self.wire.opened()
    }

    /// For how long nothing has been in flight; zero while something is.
    pub fn idle_for(&self) -> Duration {
        let st = self.lock();
        if st.is_quiet() { st.unused_since.unwrap_or(st.last_received).elapsed() } else { Duration::ZERO }
    }

    /// When something was last received; and since when replies are due without a sign of life, if they are.
    pub fn silence(&self) -> (Instant, Option<Instant>) {
        let st = self.lock();
        // Nobody may have read the answer yet, if its caller gave up.
        let silent = st.silent_since().filter(|_| st.dead.is_none() && !self.has_signs_of_life(&st));
        (st.last_received, silent)
    }

    /// Sends a PING if nothing was received for `silent`, without waiting for the answer. [`Lane::check`] reads the answer, or ends
    /// the lane when none comes, before a caller meets a host that has vanished.
    pub fn ask_for_life(&self, silent: Duration) {
        let st = self.lock();
        if st.dead.is_some() || !st.is_quiet() || st.last_received.elapsed() < silent {
            return;
        }
        let (since, pushes) = (st.unused_since.unwrap_or(st.last_received), self.pushes());
        drop(st);
        // Without time to wait the PING is sent, and the next reader consumes its answer.
        let ping = Unit { bytes: Bytes::Args(&[b"PING"]), list: None, at_most_once: false, lease: None, atomic: false };
        drop(self.exec(ping, Deadline::after(Duration::ZERO)));
        let mut st = self.lock();
        if self.pushes() == pushes.wrapping_add(1) {
            st.unused_since = Some(since);
        }
    }

    /// Ends the lane now: shuts the connection down, and answers all waiters with this cause.
    pub fn shut(&self, cause: Error) {
        drop(self.kill(self.lock(), cause));
    }

    /// Keeps its latencies out of those of its node: calls that block tell nothing about the server.
    pub fn untimed(self) -> Self {
        Self { latencies: Arc::default(), ..self }
    }

    /// Notes why its connection ends, unless that is known.
    pub fn note_end(&self, end: End) {
        self.wire.note_end(end);
    }

    /// As [`Lane::shut`], if nothing is in flight. Returns true if the lane has ended; its other owners find it dead.
    pub fn shut_if_idle(&self, cause: impl FnOnce() -> Error) -> bool {
        let st = self.lock();
        if st.dead.is_none() && !st.is_quiet() {
            return false;
        }
        drop(self.kill(st, cause()));
        true
    }

    /// Checks a lane that may be unused: ends it if the peer has closed it, or has been silent for too long with replies due.
    pub fn check(&self) {
        let st = self.lock();
        if st.dead.is_some() {
            return;
        }
        if st.is_quiet() {
            drop(self.look_at_idle(st));
        } else if st.reader.is_free() {
            drop(self.read_for_nobody(st));
        } else {
            drop(self.kill_if_silent(st));
        }
    }

    /// Checks a lane with nothing in flight. The end of the connection, or bytes that were not asked for, end the lane before a new
    /// unit could take them for its reply. Out-of-band messages wait for the next reader.
    fn look_at_idle<'a>(&'a self, st: Locked<'a, LaneState>) -> Locked<'a, LaneState> {
        let (status, what) = match self.wire.peek() {
            Ok(Some(b'>')) => return st,
            Ok(Some(_)) => (Status::Protocol, "sent a reply that was not asked for"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return st,
            Ok(None) | Err(_) => (Status::Io, "closed the connection while it was idle"),
        };
        self.kill(st, Error::new(status, format!("{} {what}", self.endpoint)))
    }

    /// Consumes the replies of abandoned units, so that the lane becomes idle again.
    fn read_for_nobody<'a>(&'a self, mut st: Locked<'a, LaneState>) -> Locked<'a, LaneState> {
        let _guard = RoleGuard::new(self, Order::TakeReader);
        st.reader.take(NOBODY);
        drop(st);
        self.read_available();
        self.pass_reader(self.lock(), NOBODY);
        self.kill_if_silent(self.lock())
    }

    #[inline]
    fn lock(&self) -> Locked<'_, LaneState> {
        // After a panic under the lock the role guards end the lane; the state stays readable.
        self.state.lock()
    }

    fn word(&self, number: u64) -> (&Word, u32) {
        (&self.words[(number / 32) as usize % WORDS], 1 << (number % 32))
    }

    #[inline(always)]
    fn publish(&self, st: &LaneState) {
        self.hints.in_flight.store(st.in_flight() as u32, Ordering::Relaxed);
        let head = st.head_sent().map_or(0, |sent| sent.saturating_duration_since(self.born()).as_micros() as u64 + 1);
        self.hints.head_sent.store(head, Ordering::Relaxed);
        self.hints.srtt_us.store(st.srtt_us() as u32, Ordering::Relaxed);
    }

    /// Marks the lane dead and shuts the connection down. The waiters are answered now, or by the writer when it comes back (rule
    /// 12: bytes that were swapped out count as sent until the writer has reported what the kernel took).
    fn kill<'a>(&'a self, mut st: Locked<'a, LaneState>, cause: Error) -> Locked<'a, LaneState> {
        if st.dead.is_none() {
            let cause = self.truth(cause);
            let end = End::of(&cause);
            st.dead = Some(cause.with_endpoint(&self.endpoint));
            self.hints.dead.store(true, Ordering::Relaxed);
            end.iter().for_each(|end| self.wire.note_end(*end));
            self.wire.shutdown();
        }
        if st.writer.is_free() || Fault::SortedTooSoon.is_made() { self.fail_all(st) } else { st }
    }

    /// As [`Lane::kill`], for a connection that the peer has ended, or made useless. A reply over a limit is told to the caller whose
    /// reply it is; the others have lost their connection.
    fn hang_up<'a>(&'a self, mut st: Locked<'a, LaneState>, cause: Error) -> Locked<'a, LaneState> {
        if st.dead.is_some() {
            return st;
        }
        st.hung_up = self.wire.socket().ended_as().is_none();
        let culprit = st.due_next();
        let cause =
            if cause.status() == Status::Limit { self.blame(&mut st, culprit, "reply to", cause) } else { cause };
        self.kill(st, cause)
    }

    /// The cause, or that this side has ended the connection if the peer is blamed for it.
    fn truth(&self, cause: Error) -> Error {
        let blames_peer = End::of(&cause) == Some(End::Lost);
        blames_peer.then(|| self.wire.ended_here(&self.endpoint)).flatten().unwrap_or(cause)
    }

    /// Notes that the lane ends because of this unit. Returns the cause for the others.
    #[cold]
    fn blame(&self, st: &mut LaneState, culprit: u64, part: &str, cause: Error) -> Error {
        let text = format!("the connection was ended because of the {part} another call: {cause}");
        st.blame(culprit, cause.with_endpoint(&self.endpoint));
        Error::new(Status::Io, text)
    }

    /// Answers all waiters of a dead lane.
    fn fail_all<'a>(&'a self, mut st: Locked<'a, LaneState>) -> Locked<'a, LaneState> {
        let ended = st.fail_all();
        self.publish(&st);
        drop(st);
        ended.into_iter().for_each(|(number, waiter, failure)| self.fail(number, waiter, failure));
        self.lock()
    }

    /// Delivers the failure of a unit.
    fn fail(&self, number: u64, waiter: Waiter, failure: Failure) {
        match waiter {
            Waiter::Caller(completer) => {
                if completer.deliver(Err(failure)) {
                    let (word, bit) = self.word(number);
                    word.wake(bit);
                }
            }
            Waiter::Call(call) => call.complete(Err(failure)),
        }
    }

    /// Rule 14: ends a lane that has been silent for long with replies due. The socket is checked first: after a stop of this
    /// process, replies may be waiting in it.
    fn kill_if_silent<'a>(&'a self, st: Locked<'a, LaneState>) -> Locked<'a, LaneState> {
        match st.silent_beyond(self.settings.silent) {
            Some(silent) if st.dead.is_none() && !self.has_signs_of_life(&st) => {
                let text = format!("{} sent nothing for {} ms with replies due", self.endpoint, silent.as_millis());
                st.silent_since().into_iter().for_each(|since| self.wire.note_silence(since));
                self.kill(st, Error::new(Status::Timeout, text))
            }
            _ => st,
        }
    }

    /// Whether there is something to read, or the peer takes more of what has not been sent yet.
    fn has_signs_of_life(&self, st: &LaneState) -> bool {
        let takes_more = || self.wire.wait(false, true, Some(Duration::ZERO)).is_ok_and(|ready| ready.write);
        matches!(self.wire.peek(), Ok(Some(_))) || (!st.is_head_sent() && takes_more())
    }

    /// Passes the reader's role to the first waiting caller, or frees it. `but`: the unit of a caller that will look for itself.
    #[inline(always)]
    fn pass_reader(&self, mut st: Locked<'_, LaneState>, but: u64) {
        let asleep = st.pass_reader(but);
        drop(st);
        self.wake(asleep);
    }

    /// Wakes a sleeping caller that was given an order. Not under the lock, because it takes the lock first.
    #[inline]
    fn wake(&self, asleep: Option<u64>) {
        if let Some(number) = asleep.filter(|_| !Fault::NotWoken.is_made()) {
            let (word, bit) = self.word(number);
            word.wake(bit);
        }
    }
}

/// A caller with a unit in the ring.
struct Caller<'a> {
    lane: &'a Lane,
    slot: &'a Slot<Outcome>,
    number: u64,
    deadline: Deadline,
    /// The moment after a stop of the process was given. Once only: where reading is slow each end of a deadline is noticed late.
    had_moment: bool,
    /// It keeps the timer for bytes that wait for a writer or are corked: when to look at them next.
    corked_until: Cell<Option<Instant>>,
    /// When those bytes have to be sent, as long as they may not have been.
    cork_end: Cell<Option<Instant>>,
    /// It has the reader's role.
    is_reader: Cell<bool>,
    /// How many calls its client has in flight, if that is known.
    calls: Option<&'a AtomicUsize>,
    /// The time when the call began, until it has waited for something. Reading the clock costs as much as a lock.
    fresh: Cell<Option<Instant>>,
}

impl<'a> Caller<'a> {
    fn new(lane: &'a Lane, slot: &'a Slot<Outcome>, number: u64, deadline: Deadline) -> Self {
        let (corked_until, cork_end, fresh) = Default::default();
        let (had_moment, is_reader) = (false, Cell::new(false));
        Self { lane, slot, number, deadline, had_moment, corked_until, cork_end, is_reader, calls: None, fresh }
    }

    /// Waits for the outcome, and takes the roles that it is given.
    #[inline]
    fn wait(&mut self, st: Locked<'a, LaneState>) -> Outcome {
        let (word, bit) = self.lane.word(self.number);
        self.read_if_free(st);
        self.fresh.set(None);
        loop {
            if self.is_reader.get() {
                // This process was stopped, and what the caller asked may have been sent only now.
                if self.takes_moment() {
                    self.lane.read_until_done(self);
                    continue;
                }
                // Its deadline came while it was the reader.
                if let Some(failure) = self.give_up() {
                    return Err(failure);
                }
                self.deadline = Deadline::never();
            }
            match self.slot.wait(word, bit, self.next_look()) {
                Seen::Done(outcome) => return outcome,
                Seen::Order(Order::TakeReader) => {
                    self.take_reader();
                    self.lane.read_until_done(self);
                }
                Seen::Order(Order::TakeWriter) => self.read_if_free(self.lane.flush(self.lane.lock(), Some(self))),
                Seen::Released => return Err(self.lost()),
                Seen::Late if !self.deadline.is_over() => self.read_if_free(self.uncork()),
                // The reader was stopped, too, and the reply may be in the socket.
                Seen::Late if self.takes_moment() => {}
                Seen::Late => {
                    if let Some(failure) = self.give_up() {
                        return Err(failure);
                    }
                    // The entry was popped already: the reply is about to be stored.
                    (self.deadline, self.corked_until) = (Deadline::never(), Cell::new(None));
                }
            }
        }
    }

    /// Whether the deadline was missed, because the process was stopped: then the call has a moment more.
    fn takes_moment(&mut self) -> bool {
        if self.had_moment || !self.deadline.is_missed() {
            return false;
        }
        (self.had_moment, self.deadline) = (true, self.deadline.renewed(MOMENT));
        true
    }

    /// When to look again even if nothing comes: at the deadline, or when the cork's timer ends.
    fn next_look(&self) -> Option<Instant> {
        match (self.corked_until.get(), self.deadline.end()) {
            (Some(hold), Some(end)) => Some(hold.min(end)),
            (hold, end) => hold.or(end),
        }
    }

    /// There must be a reader as long as there is a waiter, so a caller that comes back from writing checks. It may have been given
    /// the role while it wrote.
    #[inline(always)]
    fn read_if_free(&self, mut st: Locked<'_, LaneState>) {
        let free =
            st.dead.is_none() && st.reader.is_free() && !self.slot.is_settled() && !Fault::WriterDoesNotLook.is_made();
        if free {
            st.reader.take(self.number);
            self.look_after_own(&mut st);
        }
        drop(st);
        if free || self.is_reader.get() {
            self.lane.read_until_done(self);
        }
    }

    /// Keeps the timer for the bytes in the append buffer. A writer may leave them behind, and find no caller that it could pass
    /// the role to.
    fn keep_timer(&self, st: &mut LaneState, now: Instant) {
        let end = st.cork_end(now);
        self.cork_end.set(Some(end));
        self.corked_until.set(Some(if st.writer.is_free() { end } else { end.min(now + LOOK_AGAIN) }));
        st.timed = true;
    }

    /// A reader receives no orders: as long as its own bytes wait it keeps a timer for them, even if another caller does, too.
    #[inline(always)]
    fn look_after_own(&self, st: &mut LaneState) {
        if self.corked_until.get().is_none() && !st.is_sent(self.number) {
            self.keep_timer(st, Instant::now());
        }
    }

    /// Takes the reader's role, as it was ordered to.
    fn take_reader(&self) {
        let mut st = self.lane.lock();
        st.reader.take(self.number);
        self.look_after_own(&mut st);
    }

    /// When the timer has ended: sends the bytes, or has the writer send them in its next round. Before that it waits on.
    fn uncork(&self) -> Locked<'a, LaneState> {
        let mut st = self.lane.lock();
        self.corked_until.set(None);
        if st.dead.is_some() || st.is_sent(self.number) {
            return st;
        }
        let now = Instant::now();
        let end = self.cork_end.get().filter(|end| now < *end);
        if !st.writer.is_free() {
            // The writer may leave at its deadline, and cannot pass its role to a reader: look again.
            st.overdue |= end.is_none();
            self.corked_until.set(Some(now + LOOK_AGAIN));
            return st;
        }
        // The writer has left. The bytes that it left behind are corked like any others.
        if end.is_some() && !st.may_flush_at(&self.lane.settings, || now) {
            self.corked_until.set(end);
            return st;
        }
        self.lane.flush(st, Some(self))
    }

    /// Gives up at the deadline (rule 13). `None`: the reply is being delivered at this moment.
    fn give_up(&self) -> Option<Failure> {
        let mut st = self.lane.lock();
        let abandoned = st.abandon(self.number);
        if self.is_reader.take() && !Fault::LateReaderKeepsRole.is_made() {
            self.lane.pass_reader(st, NOBODY);
            st = self.lane.lock();
        }
        // Orders are given under the lock, and only to entries that have a waiter: there are no more after these.
        while let Some(order) = self.slot.peek_order().filter(|_| !Fault::LateOrderOverlooked.is_made()) {
            match order {
                Order::TakeReader => self.lane.pass_reader(st, NOBODY),
                Order::TakeWriter => drop(self.lane.pass_writer(st, NOBODY)),
            }
            st = self.lane.lock();
        }
        let sent = abandoned?;
        if sent == 0 && self.corked_until.take().is_some() {
            st = self.drop_timer(st);
        }
        st = self.lane.kill_if_silent(st);
        self.lane.publish(&st);
        drop(st);
        let (endpoint, waited) = (&self.lane.endpoint, self.deadline.elapsed().as_millis());
        let text = match sent {
            0 => format!("not sent to {endpoint}: the connection was busy (after {waited} ms)"),
            _ => format!("no answer from {endpoint} (after {waited} ms)"),
        };
        Some(Failure::new(sent, Error::new(Status::Timeout, text).with_endpoint(endpoint)))
    }

    /// Gives up the timer for the bytes of others: they are sent now, or by the writer.
    fn drop_timer(&self, mut st: Locked<'a, LaneState>) -> Locked<'a, LaneState> {
        st.timed = false;
        if st.dead.is_some() || !st.has_unsent() {
            return st;
        }
        st.overdue = true;
        if st.writer.is_free() { self.lane.flush(st, None) } else { st }
    }

    fn lost(&self) -> Failure {
        let error = Error::new(Status::Internal, "the lane dropped a caller without an answer");
        Failure::new(usize::MAX, error.with_endpoint(&self.lane.endpoint))
    }
}

/// Ends the lane if the holder of a role panics, so that no waiter is left without an answer.
struct RoleGuard<'a> {
    lane: &'a Lane,
    role: Order,
    /// The thread may be panicking for another reason already: a destructor may make a call.
    panicked_before: bool,
}

impl<'a> RoleGuard<'a> {
    fn new(lane: &'a Lane, role: Order) -> Self {
        Self { lane, role, panicked_before: std::thread::panicking() }
    }
}

impl Drop for RoleGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.panicked_before || !std::thread::panicking() {
            return;
        }
        if self.role == Order::TakeReader {
            self.lane.stop_reading();
        }
        let mut st = self.lane.lock();
        match self.role {
            Order::TakeWriter => {
                st.writer.give_up();
                st.doubt_all();
            }
            Order::TakeReader => st.reader.give_up(),
        }
        let text = format!("a bug in libvigie: a panic while working for others on a connection{}", panic::behind());
        let cause = Error::new(Status::Internal, text);
        drop(self.lane.kill(st, cause));
        self.lane.deliver_stranded();
        // Completers that the panic dropped have woken nobody.
        self.lane.words.iter().for_each(|word| word.wake(u32::MAX));
    }
}

/// Places at which the tests of this room stop the holder of a role, or make it panic.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Received,
    Spinning,
    Popped,
    Sending,
    Sent,
}

#[cfg(test)]
type Hook = Box<dyn Fn(&Lane, Point) + Send + Sync>;

#[cfg(test)]
impl Lane {
    fn at(&self, point: Point) {
        if let Some(hook) = self.hook.get() {
            hook(self, point);
        }
    }
}
