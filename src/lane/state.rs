//! What a lane's lock protects: the ring, the buffers, the offsets, the two roles. No I/O, no waiting.
//!
//! Guarantees: comparing an entry's end offset with the sent offset tells whether its last byte was handed to the kernel (rules 10
//! and 12); bytes are taken back only while they are wholly in the append buffer (rule 13).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::role::LaneRole;
use super::unit::{Completion, Failure, Outcome, Unit};
use crate::config::LaneSettings;
use crate::error::{Error, Result};
use crate::meter::Latencies;
use crate::net::Out;
use crate::resp::Want;
use crate::sys::slot::{Completer, Order};
use crate::time::{Deadline, Instant, WriteLease};

/// This many bytes are never corked.
const PLENTY: usize = 64 * 1024;
/// The least that it costs both sides to send a call by itself. Corking pays as long as the round trip is shorter than that cost
/// for all calls in flight: with hundreds of callers it is their own work that makes the round trip long.
const ALONE_US: f32 = 4.0;
/// The same with TLS, where each send is a record for both sides: without corking the round trip would be so long that nothing would ever
/// be corked.
const ALONE_US_TLS: f32 = 24.0;

/// The receiver of a unit's outcome.
pub(super) enum Waiter {
    /// A caller that waits.
    Caller(Completer<Outcome>),
    /// A submitted call.
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
    /// The caller's timeout; `None`: no limit.
    budget: Option<Duration>,
    /// The deadline of a submitted call.
    due: Option<Instant>,
    /// It may be sent only as long as [`LaneState::leased`] lasts.
    leased: bool,
}

/// The replies that an entry consumes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryWant {
    One,
    List(u32),
    Transaction(u32),
    /// Its bytes were taken out of the buffer: nothing will come for it.
    Nothing,
}

impl Entry {
    #[inline]
    pub(super) fn new(waiter: Waiter, unit: &Unit<'_>, deadline: Deadline) -> Self {
        let due = if waiter.completer().is_some() { None } else { deadline.end() };
        let want = match unit.list {
            None => EntryWant::One,
            Some(n) if unit.atomic => EntryWant::Transaction(n),
            Some(n) => EntryWant::List(n),
        };
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
            // Its replies are kept for the look at how it ended, also if its caller has left.
            (EntryWant::Transaction(n), _) => Some(Want::Transaction(n)),
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
    pub(super) writer: LaneRole,
    pub(super) reader: LaneRole,
    /// The cork's timer ended while a writer was at work: the writer must not leave without these bytes.
    pub(super) overdue: bool,
    /// A caller keeps the timer for the bytes in the append buffer.
    pub(super) timed: bool,
    /// A unit that must not be sent twice is waiting: the peer is checked before the next send.
    pub(super) check_peer_first: bool,
    /// The lease of units in the append buffer, and of those that the writer has swapped out.
    leased: Option<Arc<WriteLease>>,
    out_leased: Option<Arc<WriteLease>>,
    appended: u64,
    pub(super) sent: u64,
    /// Whose round trips were recorded: the units up to this number, and as many more as were taken back unsent.
    recorded: u64,
    /// Unanswered batches: the number of the last entry in each, and when it was sent.
    marks: VecDeque<(u64, Instant)>,
    srtt_us: f32,
    alone_us: f32,
    pub(super) last_received: Instant,
    /// No submitted call has to be ended sooner than this.
    next_due: Option<Instant>,
    /// Since when it has been unused, if it has been asked for a sign of life since then.
    pub(super) unused_since: Option<Instant>,
    pub(super) dead: Option<Error>,
    /// The peer ended it.
    pub(super) hung_up: bool,
    /// The unit because of which the lane has ended, and what is wrong with it. The others get [`LaneState::dead`].
    at_fault: Option<(u64, Error)>,
}

impl LaneState {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            wbuf: Vec::new(),
            out: Out::default(),
            ring: VecDeque::new(),
            head: 0,
            writer: LaneRole::Free,
            reader: LaneRole::Free,
            overdue: false,
            timed: false,
            check_peer_first: false,
            leased: None,
            out_leased: None,
            appended: 0,
            sent: 0,
            recorded: 0,
            marks: VecDeque::new(),
            srtt_us: 0.0,
            alone_us: ALONE_US,
            last_received: Instant::now(),
            next_due: None,
            unused_since: None,
            dead: None,
            hung_up: false,
            at_fault: None,
        }
    }

    /// The same, for a connection with TLS.
    pub(super) fn of_tls() -> Self {
        Self { alone_us: ALONE_US_TLS, ..Self::new() }
    }

    /// Appends a unit's bytes and its entry. Returns the entry's number. Under a lease the bytes are sent only as long as it lasts.
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

    /// Appends a unit's bytes and its entry. Returns the entry's number.
    pub(super) fn push(&mut self, mut entry: Entry, append: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<u64> {
        entry.len = Append::run(&mut self.wbuf, append)?;
        self.appended += entry.len as u64;
        entry.end = self.appended;
        self.next_due = sooner(self.next_due, entry.due);
        self.ring.push_back(entry);
        Ok(self.tail() - 1)
    }

    /// Whether a unit of this length may be sent by its caller at once and without a copy, after what others have left.
    pub(super) fn goes_straight(&self, len: usize, settings: &LaneSettings, now: Instant) -> bool {
        let in_order = self.wbuf.is_empty() || self.out.is_empty();
        self.writer.is_free()
            && self.leased.is_none()
            && in_order
            && (len >= PLENTY || self.may_flush_at(settings, || now))
    }

    /// Adds the entry of a unit whose bytes its caller sends itself, after all others. Returns the entry's number.
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

    /// Whether nothing is in flight and both roles are free.
    pub(super) fn is_quiet(&self) -> bool {
        self.ring.is_empty() && self.writer.is_free() && self.reader.is_free()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.wbuf.is_empty() || !self.out.is_empty()
    }

    /// Whether the entry's last byte has been handed to the kernel.
    #[inline]
    pub(super) fn is_sent(&self, number: u64) -> bool {
        self.entry(number).is_none_or(|entry| entry.end <= self.sent)
    }

    /// Whether the kernel has all bytes of the first unit that waits for a reply.
    pub(super) fn is_head_sent(&self) -> bool {
        let mut due = self.ring.iter().filter(|entry| entry.want != EntryWant::Nothing);
        due.next().is_none_or(|entry| entry.end <= self.sent)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.ring.get(number.checked_sub(self.head)? as usize)
    }

    // ---- the cork ---------------------------------------------------------------------------

    /// Whether waiting bytes are sent now, or corked until the batch before them is answered, and then sent together. Corking pays
    /// only if the round trip is short and several calls are in flight.
    pub(super) fn may_flush(&self, settings: &LaneSettings) -> bool {
        self.may_flush_at(settings, Instant::now)
    }

    /// As [`LaneState::may_flush`], with a clock that is read only if it matters.
    pub(super) fn may_flush_at(&self, settings: &LaneSettings, now: impl FnOnce() -> Instant) -> bool {
        let corked = self.marks.len() >= settings.hold_batches.max(1)
            && self.ring.len() >= settings.hold_calls as usize
            && self.srtt_us > 0.0
            && self.srtt_us < self.cork_rtt_us(settings);
        !corked || self.overdue || self.is_half_sent() || self.wbuf.len() >= PLENTY || self.head_is_late(now)
    }

    /// Up to which round trip bytes are corked; zero: never.
    fn cork_rtt_us(&self, settings: &LaneSettings) -> f32 {
        let least = settings.hold_rtt.as_micros() as f32;
        if least > 0.0 { least.max(self.alone_us * self.ring.len() as f32) } else { 0.0 }
    }

    /// Whether enough bytes wait that they are not corked.
    pub(super) fn has_plenty(&self) -> bool {
        self.wbuf.len() >= PLENTY
    }

    /// Whether the socket was full: the rest of a batch is never corked.
    pub(super) fn is_half_sent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Until when the bytes that wait now may be corked (rule 21).
    pub(super) fn cork_end(&self, now: Instant) -> Instant {
        now + Duration::from_micros((self.srtt_us * 4.0) as u64).max(Duration::from_millis(1))
    }

    /// Whether the oldest unanswered batch is over the busy limit: then nothing is corked.
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

    /// Since when replies are due without a sign of life.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        Some(self.head_sent()?.max(self.last_received))
    }

    /// How long the peer has been silent with replies due, if that is longer than it may be (rule 14): twice the timeout of the
    /// first unit that has one, and at least `least`. Later entries do not count: the server has not reached them yet.
    pub(super) fn silent_beyond(&self, least: Duration) -> Option<Duration> {
        let silent = self.silent_since()?.elapsed();
        if silent < least {
            return None;
        }
        let due = self.ring.iter().filter(|entry| entry.want != EntryWant::Nothing);
        let limit = due.filter_map(|entry| entry.budget).next()?.saturating_mul(2);
        (silent >= limit).then_some(silent)
    }

    // ---- the writer's side ------------------------------------------------------------------

    /// Hands the waiting bytes to the writer, if it has none left.
    #[inline(always)]
    pub(super) fn swap_out(&mut self, now: Instant) {
        if !self.out.is_empty() || self.wbuf.is_empty() {
            return;
        }
        self.out.refill(&mut self.wbuf);
        self.out_leased = self.leased.take();
        (self.overdue, self.timed) = (false, false);
        self.marks.push_back((self.tail() - 1, now));
    }

    /// Whether the peer has to be checked before the bytes that were swapped out are sent.
    pub(super) fn take_peer_check(&mut self) -> bool {
        // Units that were not swapped out, because a batch was half sent, are checked in their turn.
        let check_peer_first = self.check_peer_first;
        self.check_peer_first &= !self.wbuf.is_empty();
        check_peer_first
    }

    /// The lease of the bytes that the writer swapped out, if any of them have one.
    pub(super) fn lease(&self) -> Option<Arc<WriteLease>> {
        self.out_leased.clone()
    }

    /// Whether the lease of units in the append buffer is over.
    #[inline]
    pub(super) fn is_lease_over(&self) -> bool {
        self.leased.as_ref().is_some_and(|lease| lease.is_over())
    }

    /// Takes back the units in the append buffer whose lease is over.
    pub(super) fn take_back(&mut self) -> Vec<(u64, Waiter, usize)> {
        self.leased = None;
        let boundary = self.appended - self.wbuf.len() as u64;
        self.abandon_where(|entry| entry.leased && entry.end - entry.len as u64 >= boundary)
    }

    /// Counts all bytes that the writer swapped out as sent, because it is not known how many were.
    pub(super) fn doubt_all(&mut self) {
        self.sent = self.appended - self.wbuf.len() as u64;
    }

    /// The last waiting caller whose bytes are not out yet: it has most reason to write. Not the reader, which sleeps in a receive
    /// where no order reaches it, and keeps a timer for its own bytes.
    pub(super) fn last_unsent_live(&self, but: u64) -> Option<(u64, &Completer<Outcome>)> {
        let from = self.head;
        let live = self.ring.iter().enumerate().rev().take_while(|(_, entry)| entry.end > self.sent);
        live.map(|(at, entry)| (from + at as u64, entry))
            .filter(|(number, _)| *number != but && !self.reader.is_with(*number))
            .find_map(|(number, entry)| entry.completer().map(|completer| (number, completer)))
    }

    // ---- the reader's side ------------------------------------------------------------------

    /// Copies what the entries after `copied` expect, as far as their bytes have left the append buffer.
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

    /// Takes the first entry that expects a reply out of the ring: its number and its waiter.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(u64, Option<Waiter>)> {
        loop {
            let entry = self.ring.pop_front()?;
            let number = self.head;
            self.head += 1;
            if entry.want != EntryWant::Nothing {
                return Some((number, entry.waiter));
            }
            self.recorded += 1;
        }
    }

    /// Notes that replies came: drops the marks of answered batches, measures the round trip, and records it for each reply.
    #[inline(always)]
    pub(super) fn received(&mut self, now: Instant, latencies: &Latencies) {
        self.last_received = now;
        self.trim();
        while let Some((last, sent)) = self.marks.front().copied() {
            if last >= self.head {
                if self.head > self.recorded {
                    let sample = now.saturating_duration_since(sent).as_secs_f32() * 1e6;
                    latencies.record(sample, self.head - self.recorded);
                    self.recorded = self.head;
                }
                return;
            }
            self.marks.pop_front();
            let sample = now.saturating_duration_since(sent).as_secs_f32() * 1e6;
            let answered = self.recorded.max(last + 1);
            latencies.record(sample, answered - self.recorded);
            self.recorded = answered;
            let gain = if sample < self.srtt_us { 0.25 } else { 0.02 };
            self.srtt_us =
                if self.srtt_us == 0.0 { sample.max(1.0) } else { self.srtt_us + gain * (sample - self.srtt_us) };
        }
    }

    /// Drops entries at the front that expect nothing, so that the ring becomes empty.
    #[inline(always)]
    fn trim(&mut self) {
        while self.ring.front().is_some_and(|entry| entry.want == EntryWant::Nothing) {
            self.ring.pop_front();
            self.head += 1;
            self.recorded += 1;
        }
    }

    /// The first waiting caller; the writer, which is busy, only if there is no other.
    pub(super) fn first_live(&self, but: u64) -> Option<(u64, &Completer<Outcome>)> {
        let live = (self.head..).zip(&self.ring).filter(|(number, _)| *number != but);
        let mut live = live.filter_map(|(number, entry)| entry.completer().map(|completer| (number, completer)));
        let first = live.next()?;
        if self.writer.is_with(first.0) { Some(live.next().unwrap_or(first)) } else { Some(first) }
    }

    // ---- the roles --------------------------------------------------------------------------

    /// Passes the reader's role to the first waiting caller, or frees it. Returns the unit whose caller has to be woken.
    pub(super) fn pass_reader(&mut self, but: u64) -> Option<u64> {
        let next = if self.dead.is_none() { self.first_live(but) } else { None };
        let (role, asleep) = LaneRole::given(next, Order::TakeReader);
        self.reader = role;
        asleep
    }

    /// Passes the writer's role to a waiting caller with unsent bytes, or frees it: the next caller then sends those bytes before
    /// its own. Returns the unit whose caller has to be woken.
    pub(super) fn pass_writer(&mut self, but: u64) -> Option<u64> {
        let (role, asleep) = LaneRole::given(self.last_unsent_live(but), Order::TakeWriter);
        self.writer = role;
        asleep
    }

    // ---- the end of a wait, the end of a lane -----------------------------------------------

    /// Abandons an entry. Returns how many of its bytes have been or will be sent; `None` if it is no longer in the ring.
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

    /// The earliest deadline of a submitted call.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// Abandons the submitted calls whose deadline has come, each with how much of it was sent.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(u64, Waiter, usize)> {
        if self.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let late = self.abandon_where(|entry| entry.due.is_some_and(|due| due <= now));
        self.next_due = self.ring.iter().filter_map(|entry| entry.due).min();
        late
    }

    /// Abandons the submitted calls that are meant.
    pub(super) fn cancel(&mut self, is_meant: impl Fn(&dyn Completion) -> bool) -> Vec<(u64, Waiter, usize)> {
        self.abandon_where(|entry| matches!(&entry.waiter, Some(Waiter::Call(call)) if is_meant(&**call)))
    }

    /// Whether one of the submitted calls is meant.
    pub(super) fn has_call(&self, is_meant: impl Fn(&dyn Completion) -> bool) -> bool {
        self.ring.iter().any(|entry| matches!(&entry.waiter, Some(Waiter::Call(call)) if is_meant(&**call)))
    }

    /// As [`LaneState::abandon`], for many in one pass: the waiters, each with how many of its bytes have been or will be sent.
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
                    // It has no bytes left: with its old length it would seem to begin before the buffer, or before the stream.
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

    /// Notes that the lane ends because of this unit.
    pub(super) fn blame(&mut self, number: u64, cause: Error) {
        self.at_fault.get_or_insert((number, cause));
    }

    /// The number of the unit whose replies are due next.
    pub(super) fn due_next(&self) -> u64 {
        self.head + self.first_due() as u64
    }

    /// Where in the ring the first entry is that expects a reply; 0 without one.
    fn first_due(&self) -> usize {
        self.ring.iter().position(|entry| entry.want != EntryWant::Nothing).unwrap_or_default()
    }

    /// Ends all units of a dead lane: a unit that was not sent completely has not been executed, the others may have been.
    pub(super) fn fail_all(&mut self) -> Vec<(u64, Waiter, Failure)> {
        let Some(cause) = self.dead.clone() else { return Vec::new() };
        let (head, sent) = (self.head, self.sent);
        self.head = self.tail();
        self.marks.clear();
        self.next_due = None;
        self.wbuf = Vec::new();
        let (hung_up, first, at_fault) = (self.hung_up, self.first_due(), self.at_fault.take());
        let cause_for = |number: u64| match &at_fault {
            Some((culprit, own)) if *culprit == number => own.clone(),
            _ => cause.clone(),
        };
        let entries = self.ring.drain(..).enumerate();
        let ended = entries.filter_map(|(at, entry)| {
            let reached = (sent + entry.len as u64).saturating_sub(entry.end) as usize;
            let sent = reached.min(entry.len);
            let at_head = hung_up && at == first && sent > 0;
            let number = head + at as u64;
            entry.waiter.map(|waiter| (number, waiter, Failure { sent, error: cause_for(number), at_head }))
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

/// Removes what was appended if appending fails or panics: half a command must never be sent.
struct Append<'a> {
    buffer: &'a mut Vec<u8>,
    keep: usize,
}

impl Append<'_> {
    /// Appends, and returns how much.
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
    use super::super::unit::Bytes;
    use super::*;
    use crate::error::Status;
    use crate::meter::Histogram;
    use crate::sys::slot::{self, Seen};

    fn one() -> Unit<'static> {
        Unit { bytes: Bytes::Raw(b""), list: None, at_most_once: false, lease: None, atomic: false }
    }

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
                let entry = Entry::new(Waiter::Caller(completer), &one(), Deadline::never());
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

    /// Drops the completers even if a test fails: a slot waits for its completer, and would wait forever.
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

    /// A submitted call with a number.
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
            let entry = Entry::new(Waiter::Call(Arc::new(Numbered(token))), &one(), Deadline::after(Duration::ZERO));
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
    fn each_reply_is_recorded_once_and_what_was_taken_back_is_not() {
        let (mut st, latencies) = (LaneState::new(), Latencies::default());
        let mut counts = Vec::new();
        with_units(4, &mut st, &mut |st, numbers| {
            st.abandon(numbers[1]);
            st.swap_out(Instant::now());
            for answered in [1, 0, 2] {
                (0..answered).for_each(|_| drop(st.pop()));
                st.received(Instant::now(), &latencies);
                let mut histogram = Histogram::default();
                histogram.add_latencies(&latencies);
                counts.push(histogram.count());
            }
        });
        assert_eq!(counts, [1, 1, 3]);
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
        // A round trip of 50 us, or of 1 ms, which is too long for corking; the batch before was sent then.
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
            // With nothing unanswered; after that batch; when the cork's timer has ended.
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
    fn what_is_wrong_with_one_unit_is_told_to_no_other() {
        let mut st = LaneState::new();
        with_units(3, &mut st, &mut |st, numbers| {
            st.swap_out(Instant::now());
            // The first was answered.
            drop(st.pop());
            st.sent = 30;
            assert_eq!(st.due_next(), numbers[1]);
            st.blame(st.due_next(), Error::new(Status::Limit, "too large"));
            st.dead = Some(Error::new(Status::Io, "because of another"));
            let told = st.fail_all().into_iter().map(|(number, _, failure)| (number, failure.error.status()));
            assert_eq!(told.collect::<Vec<_>>(), [(numbers[1], Status::Limit), (numbers[2], Status::Io)]);
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
