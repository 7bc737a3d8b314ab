//! What is under the queue's lock: events in order, room that is reserved, wake-ups, and who waits.
//!
//! Guarantees: nothing here waits. Leaves to others: the capacity, the condition variable.
//!
//! **Wake-ups.** One for each call: up to `waiting` of them belong to the drains that wait, the rest to the next ones that
//! come. So a newcomer cannot take the wake-up of a drain that waits, and each drain that finds less than it asked for uses up
//! one at most: whoever drains until that is so uses up one.

use std::collections::{HashSet, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;

use super::bell::Bell;
use super::source::{Source, Watch};
use super::{Event, kind};
use crate::resp::ReplyBuilder;
use crate::sys::pipe::Pipe;

/// What a queue keeps after a burst, in entries.
const KEPT: usize = 1024;
/// So many of the latest cancellations are remembered: of calls that are over, or never were, there may be any number.
const NOTES: usize = 4096;

enum Entry {
    Event(Event),
    /// So many events are missing here. It takes no room: there is at most one behind each event.
    Lost(i64),
}

pub(super) struct State {
    entries: VecDeque<Entry>,
    /// Entries that take room.
    events: usize,
    /// Room of calls that are not over.
    reserved: usize,
    /// What calls that are not over and replies that are not drained take, about.
    bytes: usize,
    /// Tokens that were cancelled while calls of theirs may have been between two places.
    cancelled: HashSet<u64>,
    /// The same from before the last [`NOTES`] of them.
    cancelled_before: HashSet<u64>,
    sources: Arc<Vec<Arc<dyn Source>>>,
    /// Wakes the drain that has the watch; made with the first source.
    alarm: Option<Arc<Pipe>>,
    /// A drain looks after the sources.
    watched: bool,
    /// It sleeps in poll, and has not been woken yet.
    asleep: bool,
    wakeups: usize,
    waiting: usize,
    closed: bool,
    bell: Option<Bell>,
}

impl State {
    pub(super) fn new(bell: Bell) -> Self {
        Self {
            entries: VecDeque::new(),
            events: 0,
            reserved: 0,
            bytes: 0,
            cancelled: HashSet::new(),
            cancelled_before: HashSet::new(),
            sources: Arc::default(),
            alarm: None,
            watched: false,
            asleep: false,
            wakeups: 0,
            waiting: 0,
            closed: false,
            bell: Some(bell),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn close(&mut self) -> Option<Bell> {
        self.closed = true;
        self.bell.take()
    }

    /// How much of the capacity is in use.
    pub(super) fn used(&self) -> usize {
        self.events + self.reserved
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, event: Event) {
        self.bytes += weight(&event);
        self.entries.push_back(Entry::Event(event));
        self.events += 1;
    }

    pub(super) fn count_lost(&mut self) {
        match self.entries.back_mut() {
            Some(Entry::Lost(count)) => *count += 1,
            _ => self.entries.push_back(Entry::Lost(1)),
        }
    }

    pub(super) fn reserve(&mut self, n: usize, bytes: usize) {
        self.reserved += n;
        self.bytes += bytes;
    }

    /// Gives room back that a call no longer needs, or is about to use.
    pub(super) fn release(&mut self, n: usize, bytes: usize) {
        self.reserved -= n;
        self.bytes -= bytes;
        if self.reserved == 0 && self.has_notes() {
            (self.cancelled, self.cancelled_before) = Default::default();
        }
    }

    pub(super) fn take(&mut self, out: &mut Vec<Event>, most: usize) -> usize {
        let count = most.min(self.entries.len());
        out.reserve(count);
        out.extend((0..count).map_while(|_| self.next()));
        self.shrink();
        count
    }

    /// Takes events for as long as each of them fits, one after the other. True: that was all there is.
    pub(super) fn take_while(&mut self, out: &mut Vec<Event>, mut fits: impl FnMut(&Event) -> bool) -> bool {
        out.reserve(self.entries.len().min(KEPT));
        while let Some(entry) = self.entries.front() {
            let told;
            let event = match entry {
                Entry::Event(event) => event,
                Entry::Lost(count) => {
                    told = dropped(*count);
                    &told
                }
            };
            if !fits(event) {
                return false;
            }
            out.extend(self.next());
        }
        self.shrink();
        true
    }

    fn next(&mut self) -> Option<Event> {
        Some(match self.entries.pop_front()? {
            Entry::Event(event) => {
                self.events -= 1;
                self.bytes -= weight(&event);
                event
            }
            Entry::Lost(count) => dropped(count),
        })
    }

    fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries.shrink_to(KEPT);
        }
    }

    pub(super) fn add_wakeup(&mut self) {
        self.wakeups = self.wakeups.saturating_add(1);
    }

    pub(super) fn is_due_to_newcomer(&self) -> bool {
        self.closed || !self.entries.is_empty() || self.wakeups > self.waiting
    }

    pub(super) fn is_due_to_waiter(&self) -> bool {
        self.closed || !self.entries.is_empty() || self.wakeups > 0
    }

    /// A drain begins to wait.
    pub(super) fn come(&mut self) {
        self.waiting += 1;
    }

    /// A drain is over, and found all there was or not. It uses up a wake-up that was due to it.
    pub(super) fn leave(&mut self, waited: bool, found_all: bool) {
        let was_due = waited || self.wakeups > self.waiting;
        self.waiting -= usize::from(waited);
        if was_due && found_all {
            self.wakeups = self.wakeups.saturating_sub(1);
        }
        self.settle();
    }

    /// Whether drains wait beside the one that asks, which counts as one.
    pub(super) fn others_wait(&self) -> bool {
        self.waiting > 1
    }

    /// Whether a drain has to be told of something new; the one with the watch is woken here, or looks by itself.
    pub(super) fn needs_notice(&mut self) -> bool {
        if self.watched {
            self.sound_alarm();
            return false;
        }
        self.waiting > 0
    }

    // ---- sources ----------------------------------------------------------------------------

    /// Adds a source, unless it is there; what is returned is dropped outside the lock, as below.
    pub(super) fn attach(&mut self, source: &Arc<dyn Source>) -> Option<Arc<Vec<Arc<dyn Source>>>> {
        let is_same = |other: &Arc<dyn Source>| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(source));
        if self.closed || self.sources.iter().any(is_same) {
            return None;
        }
        if self.alarm.is_none() {
            // Without a pipe for it drains sleep, and others read.
            self.alarm = Pipe::new().ok().map(Arc::new);
        }
        let mut sources: Vec<_> = self.sources.iter().filter(|source| !source.is_over()).cloned().collect();
        sources.push(Arc::clone(source));
        // A drain that looks after the others has to look after this one too.
        self.sound_alarm();
        Some(std::mem::replace(&mut self.sources, Arc::new(sources)))
    }

    /// Lets go of sources that are over, and of their descriptors; what is returned is dropped outside the lock.
    pub(super) fn detach_over(&mut self) -> Option<Arc<Vec<Arc<dyn Source>>>> {
        self.sources.iter().any(|source| source.is_over()).then(|| {
            let kept = self.sources.iter().filter(|source| !source.is_over()).cloned().collect();
            std::mem::replace(&mut self.sources, Arc::new(kept))
        })
    }

    pub(super) fn detach_all(&mut self) -> Arc<Vec<Arc<dyn Source>>> {
        std::mem::take(&mut self.sources)
    }

    pub(super) fn sources(&self) -> Arc<Vec<Arc<dyn Source>>> {
        Arc::clone(&self.sources)
    }

    /// The watch over the sources, if there are any and no other drain has it.
    pub(super) fn take_watch(&mut self) -> Option<Watch> {
        if self.watched || self.closed {
            return None;
        }
        let alarm = self.alarm.as_ref().filter(|_| !self.sources.is_empty())?;
        (self.watched, self.asleep) = (true, true);
        Some(Watch::new(Arc::clone(&self.sources), Arc::clone(alarm)))
    }

    pub(super) fn end_watch(&mut self) {
        (self.watched, self.asleep) = (false, false);
    }

    pub(super) fn sound_alarm(&mut self) {
        if let (true, Some(alarm)) = (self.asleep, &self.alarm) {
            self.asleep = false;
            alarm.put();
        }
    }

    /// The drain with the watch is awake again. If it was sounded, the alarm's byte is in the pipe.
    pub(super) fn wake_up(&mut self) {
        if let (Some(alarm), false) = (&self.alarm, self.asleep) {
            alarm.take();
        }
        self.asleep = false;
    }

    // ---- cancellation -----------------------------------------------------------------------

    pub(super) fn note_cancelled(&mut self, token: u64) {
        if self.reserved > 0 {
            if self.cancelled.len() == NOTES {
                self.cancelled_before = std::mem::take(&mut self.cancelled);
            }
            self.cancelled.insert(token);
        }
    }

    fn has_notes(&self) -> bool {
        !self.cancelled.is_empty() || !self.cancelled_before.is_empty()
    }

    pub(super) fn is_cancelled(&self, token: u64) -> bool {
        self.has_notes() && (self.cancelled.contains(&token) || self.cancelled_before.contains(&token))
    }

    /// New calls with tokens that were cancelled before are new calls.
    pub(super) fn forget_cancelled(&mut self, token: u64, n: usize) {
        if !self.has_notes() {
            return;
        }
        for notes in [&mut self.cancelled, &mut self.cancelled_before] {
            if n < notes.len() {
                (0..n as u64).for_each(|i| _ = notes.remove(&token.wrapping_add(i)));
            } else {
                notes.retain(|old| old.wrapping_sub(token) >= n as u64);
            }
        }
    }

    pub(super) fn watch(&mut self) -> RawFd {
        let due = self.is_due();
        self.bell.as_mut().map_or(-1, |bell| {
            bell.watch(due);
            bell.fd()
        })
    }

    pub(super) fn ring(&mut self) {
        if let Some(bell) = &mut self.bell {
            bell.ring();
        }
    }

    fn settle(&mut self) {
        let due = self.is_due();
        if let Some(bell) = &mut self.bell {
            bell.settle(due);
        }
    }

    fn is_due(&self) -> bool {
        !self.entries.is_empty() || self.wakeups > 0
    }
}

/// What an event takes, about.
fn weight(event: &Event) -> usize {
    match &event.outcome {
        Ok(Some(reply)) => reply.weight(),
        Ok(None) => 0,
        Err(error) => error.reply().map_or(0, |reply| reply.weight()),
    }
}

fn dropped(count: i64) -> Event {
    Event { kind: kind::DROPPED, token: 0, outcome: Ok(Some(ReplyBuilder::new().int(count).finish())) }
}

#[cfg(test)]
impl State {
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn wakeups(&self) -> usize {
        self.wakeups
    }

    pub(super) fn notes(&self) -> usize {
        self.cancelled.len() + self.cancelled_before.len()
    }

    pub(super) fn room_kept(&self) -> usize {
        self.entries.capacity()
    }
}
