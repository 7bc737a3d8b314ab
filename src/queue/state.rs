//! What is under the queue's lock: events in order, room that is reserved, wake-ups, and who waits.
//!
//! Guarantees: nothing here waits. Leaves to others: the capacity, the condition variable.
//!
//! **Wake-ups.** One for each call: up to `waiting` of them belong to the drains that wait, the rest to the next ones that
//! come. So a newcomer cannot take the wake-up of a drain that waits, and each drain that finds less than it asked for uses up
//! one at most: whoever drains until that is so uses up one.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::bell::Bell;
use super::{Event, kind};
use crate::resp::ReplyBuilder;

/// What a queue keeps after a burst, in entries.
const KEPT: usize = 1024;

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

    pub(super) fn add(&mut self, event: Event) {
        self.entries.push_back(Entry::Event(event));
        self.events += 1;
    }

    pub(super) fn count_lost(&mut self) {
        match self.entries.back_mut() {
            Some(Entry::Lost(count)) => *count += 1,
            _ => self.entries.push_back(Entry::Lost(1)),
        }
    }

    pub(super) fn reserve(&mut self, n: usize) {
        self.reserved += n;
    }

    /// Gives room back that a call no longer needs, or is about to use.
    pub(super) fn release(&mut self, n: usize) {
        self.reserved -= n;
    }

    pub(super) fn take(&mut self, out: &mut Vec<Event>, most: usize) -> usize {
        let count = most.min(self.entries.len());
        out.reserve(count);
        for entry in self.entries.drain(..count) {
            out.push(match entry {
                Entry::Event(event) => {
                    self.events -= 1;
                    event
                }
                Entry::Lost(count) => dropped(count),
            });
        }
        if self.entries.is_empty() {
            self.entries.shrink_to(KEPT);
        }
        count
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

    pub(super) fn somebody_waits(&self) -> bool {
        self.waiting > 0
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

    pub(super) fn room_kept(&self) -> usize {
        self.entries.capacity()
    }
}
