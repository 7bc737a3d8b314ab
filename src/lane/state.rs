//! What a lane's lock protects: the ring, the buffers, the offsets, the two role flags. No I/O, no waiting.
//!
//! Guarantees: an entry's end offset against the sent offset always tells whether its last byte was handed to the kernel
//! (rules 10 and 12); bytes are taken out again only while they are wholly in the append buffer (rule 13).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::role::Role;
use super::unit::{Completion, Failure, Outcome};
use crate::config::LaneSettings;
use crate::error::{Error, Result};
use crate::net::Out;
use crate::resp::Want;
use crate::sys::slot::{Completer, Order};
use crate::time::{Deadline, Instant, WriteLease};

/// From here on bytes are sent whatever is in flight.
const PLENTY: usize = 64 * 1024;
/// What it costs the two sides at the least to send a call by itself. Holding pays as long as the round trip is shorter than what the
/// calls in flight would cost so, however it came to its length: with hundreds of callers it is their own work that makes it long.
const ALONE_US: f32 = 4.0;

/// Who is told of a unit's end.
pub(super) enum Waiter {
    /// A thread that waits in its call.
    Caller(Completer<Outcome>),
    /// A call that nobody waits for.
    Call(Arc<dyn Completion>),
}

impl Waiter {
    fn completer(&self) -> Option<&Completer<Outcome>> {
        match self {
            Waiter::Caller(completer) => Some(completer),
            Waiter::Call(_) => None,
        }
    }
}

/// One unit in the ring.
pub(super) struct Entry {
    waiter: Option<Waiter>,
    want: EntryWant,
    len: usize,
    end: u64,
    /// How long its caller is ready to wait; `None`: without limit.
    budget: Option<Duration>,
    /// When a call that nobody waits for has to be ended.
    due: Option<Instant>,
    /// It may be sent only as long as [`LaneState::leased`] is open.
    leased: bool,
}

/// The replies that an entry consumes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryWant {
    One,
    List(u32),
    /// Its bytes were taken out of the buffer: nothing will come for it.
    Nothing,
}

impl Entry {
    pub(super) fn new(waiter: Waiter, list: Option<u32>, deadline: Deadline) -> Self {
        let due = if waiter.completer().is_some() { None } else { deadline.end() };
        let want = list.map_or(EntryWant::One, EntryWant::List);
        Self { waiter: Some(waiter), want, len: 0, end: 0, budget: deadline.budget(), due, leased: false }
    }

    fn completer(&self) -> Option<&Completer<Outcome>> {
        self.waiter.as_ref().and_then(Waiter::completer)
    }

    fn want(&self) -> Option<Want> {
        match (self.want, self.waiter.is_some()) {
            (EntryWant::Nothing, _) => None,
            (EntryWant::One, true) => Some(Want::One),
            (EntryWant::List(n), true) => Some(Want::List(n)),
            (EntryWant::One, false) => Some(Want::Skip(1)),
            (EntryWant::List(n), false) => Some(Want::Skip(n)),
        }
    }
}

/// The state of a lane.
pub(super) struct LaneState {
    /// Bytes of callers that wait for a writer.
    wbuf: Vec<u8>,
    /// Bytes that a writer has swapped out.
    pub(super) out: Out,
    ring: VecDeque<Entry>,
    /// The number of the ring's first entry.
    head: u64,
    pub(super) writer: Role,
    pub(super) reader: Role,
    /// The end of a hold came while a writer was at work: it must not leave without these bytes.
    pub(super) overdue: bool,
    /// One of those whose bytes wait in the append buffer looks after them, should they not be sent soon.
    pub(super) timed: bool,
    /// Something waits to be sent that must not be sent twice.
    pub(super) check_peer_first: bool,
    /// Something in the append buffer, or in the writer's, is sent only as long as this is open.
    leased: Option<Arc<WriteLease>>,
    out_leased: Option<Arc<WriteLease>>,
    appended: u64,
    pub(super) sent: u64,
    /// Batches that are not answered yet: the number of the last entry in each, and when it was sent.
    marks: VecDeque<(u64, Instant)>,
    srtt_us: f32,
    pub(super) last_received: Instant,
    /// No call that nobody waits for has to be ended sooner than this.
    next_due: Option<Instant>,
    /// Since when nobody has used it, if it has been asked for a sign of life since then.
    pub(super) unused_since: Option<Instant>,
    pub(super) dead: Option<Error>,
    /// That it is dead is the other side's doing.
    pub(super) hung_up: bool,
}

impl LaneState {
    pub(super) fn new() -> Self {
        Self {
            wbuf: Vec::new(),
            out: Out::default(),
            ring: VecDeque::new(),
            head: 0,
            writer: Role::Free,
            reader: Role::Free,
            overdue: false,
            timed: false,
            check_peer_first: false,
            leased: None,
            out_leased: None,
            appended: 0,
            sent: 0,
            marks: VecDeque::new(),
            srtt_us: 0.0,
            last_received: Instant::now(),
            next_due: None,
            unused_since: None,
            dead: None,
            hung_up: false,
        }
    }

    /// Appends a unit's bytes and its entry; the entry's number. Under a lease they are sent only as long as it lasts.
    pub(super) fn push_leased(
        &mut self,
        mut entry: Entry,
        lease: Option<&Arc<WriteLease>>,
        append: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<u64> {
        if let Some(lease) = lease {
            entry.leased = true;
            self.leased = Some(Arc::clone(lease));
        }
        self.push(entry, append)
    }

    /// Appends a unit's bytes and its entry; the entry's number.
    pub(super) fn push(&mut self, mut entry: Entry, append: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<u64> {
        entry.len = Append::run(&mut self.wbuf, append)?;
        self.appended += entry.len as u64;
        entry.end = self.appended;
        self.next_due = sooner(self.next_due, entry.due);
        self.ring.push_back(entry);
        Ok(self.tail() - 1)
    }

    /// Whether a unit of this length may be sent by its caller at once and without a copy: behind what others left.
    pub(super) fn goes_straight(&self, len: usize, settings: &LaneSettings, now: Instant) -> bool {
        let in_order = self.wbuf.is_empty() || self.out.is_empty();
        self.writer.is_free()
            && self.leased.is_none()
            && in_order
            && (len >= PLENTY || self.may_flush_at(settings, || now))
    }

    /// Adds the entry of a unit whose bytes its caller sends itself, behind all that is there; the entry's number.
    pub(super) fn push_straight(&mut self, mut entry: Entry, len: usize, now: Instant) -> u64 {
        self.swap_out(now);
        entry.len = len;
        self.appended += len as u64;
        entry.end = self.appended;
        self.ring.push_back(entry);
        self.marks.push_back((self.tail() - 1, now));
        self.tail() - 1
    }

    fn tail(&self) -> u64 {
        self.head + self.ring.len() as u64
    }

    pub(super) fn in_flight(&self) -> usize {
        self.ring.len()
    }

    /// Nothing in flight, nobody at work.
    pub(super) fn is_quiet(&self) -> bool {
        self.ring.is_empty() && self.writer.is_free() && self.reader.is_free()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.wbuf.is_empty() || !self.out.is_empty()
    }

    /// Whether the entry's last byte has been handed to the kernel.
    pub(super) fn is_sent(&self, number: u64) -> bool {
        self.entry(number).is_none_or(|entry| entry.end <= self.sent)
    }

    /// Whether the kernel has all of the first unit that a reply is due for.
    pub(super) fn is_head_sent(&self) -> bool {
        let mut due = self.ring.iter().filter(|entry| entry.want != EntryWant::Nothing);
        due.next().is_none_or(|entry| entry.end <= self.sent)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.ring.get(number.checked_sub(self.head)? as usize)
    }

    // ---- holding back -----------------------------------------------------------------------

    /// Whether waiting bytes should go out now, or be held until the batch before them is answered: then they go out
    /// together, in one send. Holding pays only where a round trip is short and several calls are in flight.
    pub(super) fn may_flush(&self, settings: &LaneSettings) -> bool {
        self.may_flush_at(settings, Instant::now)
    }

    /// As [`LaneState::may_flush`], by a clock that is only looked at when it matters.
    pub(super) fn may_flush_at(&self, settings: &LaneSettings, now: impl FnOnce() -> Instant) -> bool {
        let corked = self.marks.len() >= settings.hold_batches.max(1)
            && self.ring.len() >= settings.hold_calls as usize
            && self.srtt_us > 0.0
            && self.srtt_us < self.cork_rtt_us(settings);
        !corked || self.overdue || self.is_half_sent() || self.wbuf.len() >= PLENTY || self.head_is_late(now)
    }

    /// Up to which round trip bytes are held back; zero: never.
    fn cork_rtt_us(&self, settings: &LaneSettings) -> f32 {
        let least = settings.hold_rtt.as_micros() as f32;
        if least > 0.0 { least.max(ALONE_US * self.ring.len() as f32) } else { 0.0 }
    }

    /// As much waits as is sent whatever is in flight.
    pub(super) fn has_plenty(&self) -> bool {
        self.wbuf.len() >= PLENTY
    }

    /// The socket was full: the rest of a batch must go out whatever is in flight.
    pub(super) fn is_half_sent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Until when what waits now may be held (rule 21).
    pub(super) fn cork_end(&self, now: Instant) -> Instant {
        now + Duration::from_micros((self.srtt_us * 4.0) as u64).max(Duration::from_millis(1))
    }

    /// Never hold behind a head that is over the busy limit.
    fn head_is_late(&self, now: impl FnOnce() -> Instant) -> bool {
        let limit = Duration::from_micros((self.srtt_us * 8.0) as u64).max(Duration::from_millis(1));
        self.head_sent().is_some_and(|sent| now().saturating_duration_since(sent) > limit)
    }

    pub(super) fn head_sent(&self) -> Option<Instant> {
        self.marks.front().map(|(_, sent)| *sent)
    }

    #[cfg(test)]
    pub(super) fn set_srtt_us(&mut self, srtt_us: f32) {
        self.srtt_us = srtt_us;
    }

    pub(super) fn srtt_us(&self) -> f32 {
        self.srtt_us
    }

    /// How long the peer has been silent with replies due, if that is longer than the first of them may take (rule 14):
    /// twice its caller's deadline, and at least so long. Of callers that wait without limit the next one with a limit counts.
    /// Who comes after him is not asked: the server is not at his unit yet.
    pub(super) fn silent_beyond(&self, least: Duration) -> Option<Duration> {
        let silent = self.head_sent()?.max(self.last_received).elapsed();
        if silent < least {
            return None;
        }
        let due = self.ring.iter().filter(|entry| entry.want != EntryWant::Nothing);
        let limit = due.filter_map(|entry| entry.budget).next()?.saturating_mul(2);
        (silent >= limit).then_some(silent)
    }

    // ---- the writer's side ------------------------------------------------------------------

    /// Makes waiting bytes the writer's own, if it has none left.
    pub(super) fn swap_out(&mut self, now: Instant) {
        if !self.out.is_empty() || self.wbuf.is_empty() {
            return;
        }
        self.out.refill(&mut self.wbuf);
        self.out_leased = self.leased.take();
        (self.overdue, self.timed) = (false, false);
        self.marks.push_back((self.tail() - 1, now));
    }

    /// Whether there is something among what was swapped out that must not be sent twice.
    pub(super) fn take_peer_check(&mut self) -> bool {
        // What did not fit behind a half-sent batch is looked after when its turn comes.
        let check_peer_first = self.check_peer_first;
        self.check_peer_first &= !self.wbuf.is_empty();
        check_peer_first
    }

    /// What the bytes that a writer swapped out may be sent by, if there is anything of the kind among them.
    pub(super) fn lease(&self) -> Option<Arc<WriteLease>> {
        self.out_leased.clone()
    }

    /// Whether a lease is over by which something in the append buffer was to be sent.
    #[inline]
    pub(super) fn is_lease_over(&self) -> bool {
        self.leased.as_ref().is_some_and(|lease| lease.is_over())
    }

    /// Takes out of the append buffer what may not be sent any more, because its lease is over.
    pub(super) fn take_back(&mut self) -> Vec<(u64, Waiter, usize)> {
        self.leased = None;
        let boundary = self.appended - self.wbuf.len() as u64;
        self.abandon_where(|entry| entry.leased && entry.end - entry.len as u64 >= boundary)
    }

    /// Counts all that a writer swapped out as sent: it is gone, and nobody knows how far it came.
    pub(super) fn doubt_all(&mut self) {
        self.sent = self.appended - self.wbuf.len() as u64;
    }

    /// The last who waits and whose bytes are not out yet: it has most reason to write. Not the reader: it sleeps in a receive,
    /// where no order reaches it; it looks after its own bytes itself.
    pub(super) fn last_unsent_live(&self, but: u64) -> Option<(u64, &Completer<Outcome>)> {
        let from = self.head;
        let live = self.ring.iter().enumerate().rev().take_while(|(_, entry)| entry.end > self.sent);
        live.map(|(at, entry)| (from + at as u64, entry))
            .filter(|(number, _)| *number != but && !self.reader.is_with(*number))
            .find_map(|(number, entry)| entry.completer().map(|completer| (number, completer)))
    }

    // ---- the reader's side ------------------------------------------------------------------

    /// What the entries after `copied` consume, as far as their bytes have left the append buffer.
    pub(super) fn expect(&self, copied: &mut u64, into: &mut VecDeque<Want>) {
        let boundary = self.appended - self.wbuf.len() as u64;
        *copied = (*copied).max(self.head);
        while let Some(entry) = self.entry(*copied) {
            if entry.end > boundary && entry.want != EntryWant::Nothing {
                return;
            }
            into.extend(entry.want());
            *copied += 1;
        }
    }

    /// Takes the first entry that consumes something out of the ring: its number, and who is to be told.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(u64, Option<Waiter>)> {
        loop {
            let entry = self.ring.pop_front()?;
            let number = self.head;
            self.head += 1;
            if entry.want != EntryWant::Nothing {
                return Some((number, entry.waiter));
            }
        }
    }

    /// Notes that replies came: drops the marks that they answer and takes the round trip's measure.
    #[inline(always)]
    pub(super) fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.trim();
        while let Some((last, sent)) = self.marks.front().copied() {
            if last >= self.head {
                return;
            }
            self.marks.pop_front();
            let sample = now.saturating_duration_since(sent).as_secs_f32() * 1e6;
            let gain = if sample < self.srtt_us { 0.25 } else { 0.02 };
            self.srtt_us =
                if self.srtt_us == 0.0 { sample.max(1.0) } else { self.srtt_us + gain * (sample - self.srtt_us) };
        }
    }

    /// Entries that consume nothing do not keep the ring from being empty.
    fn trim(&mut self) {
        while self.ring.front().is_some_and(|entry| entry.want == EntryWant::Nothing) {
            self.ring.pop_front();
            self.head += 1;
        }
    }

    /// The first who still waits; the writer, who is busy, only if nobody else does.
    pub(super) fn first_live(&self, but: u64) -> Option<(u64, &Completer<Outcome>)> {
        let live = (self.head..).zip(&self.ring).filter(|(number, _)| *number != but);
        let mut live = live.filter_map(|(number, entry)| entry.completer().map(|completer| (number, completer)));
        let first = live.next()?;
        if self.writer.is_with(first.0) { Some(live.next().unwrap_or(first)) } else { Some(first) }
    }

    // ---- the roles --------------------------------------------------------------------------

    /// Passes the reader's role to the first unit with a waiting caller, or frees it. Gives the unit whose caller has to be woken.
    pub(super) fn pass_reader(&mut self, but: u64) -> Option<u64> {
        let next = if self.dead.is_none() { self.first_live(but) } else { None };
        let (role, asleep) = Role::given(next, Order::TakeReader);
        self.reader = role;
        asleep
    }

    /// Passes the writer's role to a unit with a waiting caller and unsent bytes, or frees it: the next caller then sends those bytes in front
    /// of its own. Gives the unit whose caller has to be woken.
    pub(super) fn pass_writer(&mut self, but: u64) -> Option<u64> {
        let (role, asleep) = Role::given(self.last_unsent_live(but), Order::TakeWriter);
        self.writer = role;
        asleep
    }

    // ---- the end of a wait, the end of a lane -----------------------------------------------

    /// Nobody waits for this entry any more: how many of its bytes are sent or will be; `None` when it is no longer in the ring.
    pub(super) fn abandon(&mut self, number: u64) -> Option<usize> {
        let at = number.checked_sub(self.head)? as usize;
        let boundary = self.appended - self.wbuf.len() as u64;
        let entry = self.ring.get_mut(at)?;
        (entry.waiter, entry.due) = (None, None);
        let (len, end) = (entry.len, entry.end);
        if end - (len as u64) < boundary {
            return Some(len);
        }
        (entry.want, entry.len) = (EntryWant::Nothing, 0);
        let from = (end - len as u64 - boundary) as usize;
        self.wbuf.drain(from..from + len);
        self.appended -= len as u64;
        self.ring.range_mut(at..).for_each(|entry| entry.end -= len as u64);
        self.trim();
        Some(0)
    }

    /// When a call that nobody waits for has to be ended at the earliest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// Abandons the calls that nobody waits for and whose time is over: each with how much of it was sent.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(u64, Waiter, usize)> {
        if self.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let late = self.abandon_where(|entry| entry.due.is_some_and(|due| due <= now));
        self.next_due = self.ring.iter().filter_map(|entry| entry.due).min();
        late
    }

    /// Abandons the calls that nobody waits for and that are meant.
    pub(super) fn cancel(&mut self, is_meant: impl Fn(&dyn Completion) -> bool) -> Vec<(u64, Waiter, usize)> {
        self.abandon_where(|entry| matches!(&entry.waiter, Some(Waiter::Call(call)) if is_meant(&**call)))
    }

    /// As [`LaneState::abandon`] for many at once, in one pass: who is to be told, and how many of its bytes are sent or will be.
    fn abandon_where(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<(u64, Waiter, usize)> {
        let boundary = self.appended - self.wbuf.len() as u64;
        let (mut abandoned, mut shift, mut kept) = (Vec::new(), 0, Vec::new());
        let mut copied = 0;
        for (number, entry) in (self.head..).zip(&mut self.ring) {
            let (len, start) = (entry.len, entry.end - entry.len as u64);
            if which(entry) {
                let sent = if start < boundary { len } else { 0 };
                if let Some(waiter) = entry.waiter.take() {
                    abandoned.push((number, waiter, sent));
                }
                entry.due = None;
                if start >= boundary {
                    // An entry without bytes: with its length it would seem to begin before them, or before the stream.
                    (entry.want, entry.len) = (EntryWant::Nothing, 0);
                    let from = (start - boundary) as usize;
                    kept.extend_from_slice(&self.wbuf[copied..from]);
                    (copied, shift) = (from + len, shift + len as u64);
                }
            }
            entry.end -= shift;
        }
        if shift > 0 {
            kept.extend_from_slice(&self.wbuf[copied..]);
            (self.wbuf, self.appended) = (kept, self.appended - shift);
        }
        self.trim();
        abandoned
    }

    /// Sorts the ring of a dead lane: what was not completely sent was not executed, the rest may have been.
    pub(super) fn fail_all(&mut self) -> Vec<(u64, Waiter, Failure)> {
        let Some(cause) = self.dead.clone() else { return Vec::new() };
        let (head, sent) = (self.head, self.sent);
        self.head = self.tail();
        self.marks.clear();
        self.next_due = None;
        self.wbuf = Vec::new();
        let (hung_up, first) = (self.hung_up, self.ring.iter().position(|entry| entry.want != EntryWant::Nothing));
        let first = first.unwrap_or_default();
        let entries = self.ring.drain(..).enumerate();
        let ended = entries.filter_map(|(at, entry)| {
            let reached = (sent + entry.len as u64).saturating_sub(entry.end) as usize;
            let sent = reached.min(entry.len);
            let at_head = hung_up && at == first && sent > 0;
            let failure = Failure { sent, error: cause.clone(), at_head };
            entry.waiter.map(|waiter| (head + at as u64, waiter, failure))
        });
        ended.collect()
    }
}

fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Takes what was appended back out when appending fails or panics: half a command must never be sent.
struct Append<'a> {
    buffer: &'a mut Vec<u8>,
    keep: usize,
}

impl Append<'_> {
    /// How much was appended.
    fn run(buffer: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<usize> {
        let before = buffer.len();
        let mut this = Append { buffer, keep: before };
        append(this.buffer)?;
        this.keep = this.buffer.len();
        Ok(this.keep - before)
    }
}

impl Drop for Append<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.keep);
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;
    use crate::sys::slot::{self, Seen};

    /// Pushes n units of 10 bytes each and gives their slots to `test`.
    fn with_units(n: usize, st: &mut LaneState, test: &mut dyn FnMut(&mut LaneState, &mut Vec<u64>)) {
        fn nest(
            n: usize,
            st: &mut LaneState,
            numbers: &mut Vec<u64>,
            test: &mut dyn FnMut(&mut LaneState, &mut Vec<u64>),
        ) {
            if n == 0 {
                return test(st, numbers);
            }
            slot::scope(|slot, completer| {
                let entry = Entry::new(Waiter::Caller(completer), None, Deadline::never());
                let append = |buf: &mut Vec<u8>| {
                    buf.extend_from_slice(b"0123456789");
                    Ok(())
                };
                numbers.push(st.push(entry, append).unwrap());
                let burial = Burial(st);
                nest(n - 1, burial.0, numbers, test);
                drop(burial);
                assert!(matches!(slot.peek(), Some(Seen::Released | Seen::Done(_))));
            });
        }
        nest(n, st, &mut Vec::new(), test);
    }

    /// Drops the tokens also when a test fails: a slot waits for its token, and would wait for ever.
    struct Burial<'a>(&'a mut LaneState);

    impl Drop for Burial<'_> {
        fn drop(&mut self) {
            self.0.dead.get_or_insert(Error::new(Status::Closed, "end of test"));
            self.0.fail_all();
        }
    }

    #[test]
    fn a_test_that_fails_ends() {
        let failing = std::panic::AssertUnwindSafe(|| {
            with_units(3, &mut LaneState::new(), &mut |_, _| std::panic::resume_unwind(Box::new("on purpose")));
        });
        assert!(std::panic::catch_unwind(failing).is_err());
    }

    /// A call that nobody waits for, with a number.
    struct Numbered(u64);

    impl Completion for Numbered {
        fn complete(self: Arc<Self>, _outcome: Outcome) {}

        fn is(&self, _owner: usize, token: u64) -> bool {
            self.0 == token
        }
    }

    #[test]
    fn calls_are_taken_out_one_after_the_other() {
        let mut st = LaneState::new();
        let mut start = |token, len: usize| {
            let entry = Entry::new(Waiter::Call(Arc::new(Numbered(token))), None, Deadline::after(Duration::ZERO));
            let append = |buf: &mut Vec<u8>| {
                buf.resize(buf.len() + len, token as u8);
                Ok(())
            };
            st.push(entry, append).unwrap();
            if token == 0 {
                st.swap_out(Instant::now());
            }
        };
        // Each is longer than all before it; the first one has left, so that those behind it stay in the ring.
        [1, 20, 300, 4000, 50_000].into_iter().enumerate().for_each(|(token, len)| start(token as u64, len));
        let taken_out = |st: &mut LaneState, token| {
            let cancelled = st.cancel(|call| call.is(0, token));
            cancelled.into_iter().map(|(_, _, sent)| sent).collect::<Vec<_>>()
        };
        assert_eq!(taken_out(&mut st, 2), [0]);
        assert_eq!(taken_out(&mut st, 1), [0]);
        assert_eq!(taken_out(&mut st, 4), [0]);
        assert!(st.wbuf == [3; 4000] && taken_out(&mut st, 2).is_empty());
        let late = st.expire(Instant::now()).into_iter().map(|(_, _, sent)| sent);
        assert_eq!(late.collect::<Vec<_>>(), [1, 0], "the first was sent");
        assert!(st.wbuf.is_empty() && st.ring.len() == 5);
    }

    #[test]
    fn what_is_still_in_the_buffer_is_taken_out_and_later_offsets_move() {
        let mut st = LaneState::new();
        with_units(3, &mut st, &mut |st, numbers| {
            assert_eq!(st.abandon(numbers[1]), Some(0));
            assert_eq!(st.wbuf.len(), 20);
            assert_eq!(st.entry(numbers[2]).unwrap().end, 20);
            let (mut copied, mut wants) = (0, VecDeque::new());
            st.swap_out(Instant::now());
            st.expect(&mut copied, &mut wants);
            assert_eq!(wants.len(), 2);
            assert_eq!(st.pop().unwrap().0, numbers[0]);
            assert_eq!(st.pop().unwrap().0, numbers[2]);
        });
    }

    #[test]
    fn what_was_swapped_out_stays_and_consumes_its_reply() {
        let mut st = LaneState::new();
        with_units(2, &mut st, &mut |st, numbers| {
            st.swap_out(Instant::now());
            assert_eq!(st.abandon(numbers[0]), Some(10));
            assert_eq!(st.out.rest().len(), 20);
            let (mut copied, mut wants) = (0, VecDeque::new());
            st.expect(&mut copied, &mut wants);
            assert_eq!(wants, [Want::Skip(1), Want::One]);
        });
    }

    #[test]
    fn the_reader_expects_nothing_that_may_still_be_taken_out() {
        let mut st = LaneState::new();
        with_units(1, &mut st, &mut |st, _| {
            let (mut copied, mut wants) = (0, VecDeque::new());
            st.expect(&mut copied, &mut wants);
            assert!(wants.is_empty());
            st.swap_out(Instant::now());
            st.expect(&mut copied, &mut wants);
            assert_eq!(wants.len(), 1);
        });
    }

    #[test]
    fn rule_21_nothing_is_held_behind_a_head_that_is_late() {
        let settings = LaneSettings::default();
        let now = Instant::now();
        let (soon, long_ago) = (now + Duration::from_secs(60), now.checked_sub(Duration::from_millis(20)));
        // A round trip of 50 us, or of 1 ms, which is too long to hold for; the batch before was sent then.
        for (srtt_us, sent, corked) in [(50.0, Some(soon), true), (50.0, long_ago, false), (1000.0, Some(soon), false)]
        {
            let mut st = LaneState::new();
            st.set_srtt_us(srtt_us);
            let mut may = Vec::new();
            with_units(3, &mut st, &mut |st, _| {
                may.push(st.may_flush(&settings));
                st.swap_out(sent.unwrap_or(now));
                st.out.took(st.out.rest().len());
                may.push(st.may_flush(&settings));
                st.overdue = true;
                may.push(st.may_flush(&settings));
            });
            // With nothing unanswered; behind that batch; at the end of the hold.
            assert_eq!(may, [true, !corked, true], "{srtt_us} us");
        }
    }

    #[test]
    fn a_round_trip_that_many_calls_make_long_is_no_reason_not_to_hold() {
        for (rtt_us, calls, corked) in [(150, 40, false), (150, 300, true), (0, 300, false)] {
            let settings = LaneSettings { hold_rtt: Duration::from_micros(rtt_us), ..LaneSettings::default() };
            let mut st = LaneState::new();
            st.set_srtt_us(1000.0);
            let mut may = Vec::new();
            with_units(calls, &mut st, &mut |st, _| {
                st.swap_out(Instant::now() + Duration::from_secs(60));
                st.out.took(st.out.rest().len());
                may.push(st.may_flush(&settings));
            });
            assert_eq!(may, [!corked], "{calls} calls in flight");
        }
    }

    #[test]
    fn the_last_who_waits_for_his_bytes_is_asked_to_write_and_never_the_reader() {
        let mut st = LaneState::new();
        let mut asked = Vec::new();
        with_units(5, &mut st, &mut |st, numbers| {
            st.swap_out(Instant::now());
            st.sent = 15;
            let mut ask = |st: &LaneState, but: usize| {
                asked.push(st.last_unsent_live(numbers[but]).map(|(number, _)| number - numbers[0]));
            };
            ask(st, 0);
            st.reader.take(numbers[4]);
            ask(st, 3);
            st.abandon(numbers[2]);
            st.abandon(numbers[3]);
            ask(st, 0);
            st.sent = 20;
            ask(st, 0);
        });
        assert_eq!(asked, [Some(4), Some(2), Some(1), None]);
    }

    #[test]
    fn death_sorts_by_what_the_kernel_took() {
        let mut st = LaneState::new();
        with_units(3, &mut st, &mut |st, _| {
            st.swap_out(Instant::now());
            st.sent = 15;
            st.dead = Some(Error::new(Status::Io, "cut"));
            let reached: Vec<usize> = st.fail_all().iter().map(|(_, _, failure)| failure.sent).collect();
            assert_eq!(reached, [10, 5, 0]);
        });
    }

    #[test]
    fn at_the_head_was_who_is_due_next_and_only_if_the_other_side_hung_up() {
        for (hung_up, sent, heads) in [(true, 15, vec![1]), (true, 10, vec![]), (false, 30, vec![])] {
            let mut st = LaneState::new();
            with_units(3, &mut st, &mut |st, numbers| {
                // The first was answered.
                st.swap_out(Instant::now());
                drop(st.pop());
                (st.sent, st.hung_up) = (sent, hung_up);
                st.dead = Some(Error::new(Status::Io, "cut"));
                let ended = st.fail_all();
                let at_head = ended.iter().filter(|(_, _, failure)| failure.at_head);
                assert_eq!(at_head.map(|(number, ..)| number - numbers[0]).collect::<Vec<_>>(), heads);
            });
        }
    }
}
