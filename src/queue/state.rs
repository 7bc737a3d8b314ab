//! What the queue's lock protects: events in order, reserved room, wake-ups, and the drains that wait.
//!
//! Guarantees: nothing here waits. Leaves to others: the capacity, the condition variable.
//!
//! **Wake-ups.** Each call of `vigie_queue_wakeup()` adds one. Up to `waiting` of them belong to the drains that wait, the rest to drains
//! that begin later: a new drain cannot take the wake-up of one that waits. A drain that finds less than it asked for uses up one wake-up,
//! so a thread that drains until that happens uses up one.

use std::collections::{HashSet, VecDeque};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use super::event::Event;
use super::inbox::Inbox;
use super::ready_fd::ReadyFd;
use super::source::{Reactor, Source, Sources};
use crate::sort::SortedMap;
use crate::sys::waker::Waker;

/// How much room a queue keeps after a burst, in items.
const KEPT: usize = 1024;
/// So many events of one inbox are drained in a row, while something else waits.
const TURN: usize = 64;
/// At least this many of the latest cancellations are remembered. There is no limit to those of calls that are over or never existed.
const NOTES: usize = 4096;

enum Item {
    Event(Event),
    /// This many events are missing here. It takes no room: at most one follows each event.
    Lost(i64),
    /// The next events are those of this inbox, which is not empty. It takes no room.
    Inbox(u64),
}

pub(super) struct QueueState {
    items: VecDeque<Item>,
    /// The inboxes of subscriptions. Each one that is not empty has one place among the items.
    inboxes: SortedMap<u64, Inbox>,
    next_inbox: u64,
    /// How many events in a row the inbox in front has given.
    turn: usize,
    /// How many of them take room.
    events: usize,
    /// Room for the completions of outstanding calls.
    reserved: usize,
    /// The memory of outstanding calls and undrained replies, about.
    bytes: usize,
    /// Cancelled tokens whose calls may have been moving from one source to another at that moment.
    cancelled: HashSet<u64>,
    /// Older ones: those before the last [`NOTES`].
    cancelled_before: HashSet<u64>,
    /// Weak, so that a queue keeps no connection of a closed client open; calls in flight hold their sources.
    sources: Vec<Weak<dyn Source>>,
    /// Wakes the drain that runs the reactor; made with the first source.
    waker: Option<Arc<Waker>>,
    /// A drain runs the reactor.
    reactor_runs: bool,
    /// That drain sleeps in poll, and has not been woken yet.
    asleep: bool,
    /// A source was added that the drain does not know.
    unknown_source: bool,
    wakeups: usize,
    waiting: usize,
    closed: bool,
    ready_fd: Option<ReadyFd>,
}

impl QueueState {
    pub(super) fn new(ready_fd: ReadyFd) -> Self {
        Self {
            items: VecDeque::new(),
            inboxes: SortedMap::new(),
            next_inbox: 0,
            turn: 0,
            events: 0,
            reserved: 0,
            bytes: 0,
            cancelled: HashSet::new(),
            cancelled_before: HashSet::new(),
            sources: Vec::new(),
            waker: None,
            reactor_runs: false,
            asleep: false,
            unknown_source: false,
            wakeups: 0,
            waiting: 0,
            closed: false,
            ready_fd: Some(ready_fd),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn close(&mut self) -> Option<ReadyFd> {
        self.closed = true;
        self.ready_fd.take()
    }

    /// How much of the capacity is taken.
    pub(super) fn used(&self) -> usize {
        self.events + self.reserved
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline(always)]
    pub(super) fn add(&mut self, event: Event) {
        self.bytes += event.weight();
        self.items.push_back(Item::Event(event));
        self.events += 1;
    }

    pub(super) fn count_lost(&mut self) {
        match self.items.back_mut() {
            Some(Item::Lost(count)) => *count += 1,
            _ => self.items.push_back(Item::Lost(1)),
        }
    }

    pub(super) fn reserve(&mut self, n: usize, bytes: usize) {
        self.reserved += n;
        self.bytes += bytes;
    }

    /// Gives back room that a call does not need any more, or is about to use.
    #[inline]
    pub(super) fn release(&mut self, n: usize, bytes: usize) {
        self.reserved -= n;
        self.bytes -= bytes;
        if self.reserved == 0 && self.has_notes() {
            (self.cancelled, self.cancelled_before) = Default::default();
        }
    }

    pub(super) fn take(&mut self, out: &mut Vec<Event>, most: usize) -> usize {
        out.reserve(most.min(self.items.len()));
        let before = out.len();
        while out.len() - before < most && self.next(out, most - (out.len() - before)) {}
        self.shrink();
        out.len() - before
    }

    /// Takes events, oldest first, until one does not fit. True: all were taken.
    pub(super) fn take_while(&mut self, out: &mut Vec<Event>, mut fits: impl FnMut(&Event) -> bool) -> bool {
        out.reserve(self.items.len().min(KEPT));
        while let Some(item) = self.items.front() {
            let fits = match item {
                Item::Event(event) => fits(event),
                Item::Lost(count) => fits(&Event::dropped(0, *count)),
                Item::Inbox(id) => self.inboxes.get(id).and_then(|inbox| inbox.with_next(&mut fits)).unwrap_or(true),
            };
            if !fits {
                return false;
            }
            self.next(out, 1);
        }
        self.shrink();
        true
    }

    /// Takes the next event, and if it is of an inbox up to `most` of its turn. False: there is none.
    #[inline]
    fn next(&mut self, out: &mut Vec<Event>, most: usize) -> bool {
        match self.items.front() {
            None => return false,
            Some(Item::Inbox(id)) => {
                self.next_of_inbox(*id, out, most);
                return true;
            }
            Some(Item::Event(_) | Item::Lost(_)) => {}
        }
        match self.items.pop_front() {
            Some(Item::Event(event)) => {
                self.events -= 1;
                self.bytes -= event.weight();
                out.push(event);
            }
            Some(Item::Lost(count)) => out.push(Event::dropped(0, count)),
            Some(Item::Inbox(_)) | None => {}
        }
        true
    }

    /// The next events of the inbox in front. Its place goes to the end when it has had its turn, and when it is empty it has none.
    fn next_of_inbox(&mut self, id: u64, out: &mut Vec<Event>, most: usize) {
        let mut left = 0;
        if let Some(inbox) = self.inboxes.get_mut(&id) {
            let count = most.min(TURN - self.turn).min(inbox.len());
            out.reserve(count);
            (0..count).for_each(|_| out.extend(inbox.next()));
            self.turn += count;
            left = inbox.len();
        }
        if left == 0 || self.turn >= TURN {
            self.turn = 0;
            self.items.pop_front();
            if left > 0 {
                self.items.push_back(Item::Inbox(id));
            }
        }
    }

    // ---- inboxes ----------------------------------------------------------------------------

    pub(super) fn open_inbox(&mut self, inbox: Inbox) -> u64 {
        self.next_inbox += 1;
        self.inboxes.insert(self.next_inbox, inbox);
        self.next_inbox
    }

    /// Changes an inbox, which gets a place among the items if it is not empty any more.
    pub(super) fn with_inbox(&mut self, id: u64, change: impl FnOnce(&mut Inbox)) {
        let Some(inbox) = self.inboxes.get_mut(&id) else { return };
        let was_empty = inbox.len() == 0;
        change(inbox);
        if was_empty && inbox.len() > 0 {
            self.items.push_back(Item::Inbox(id));
        }
    }

    /// Removes an inbox. The caller drops what is returned outside the lock.
    pub(super) fn close_inbox(&mut self, id: u64) -> Option<Inbox> {
        let inbox = self.inboxes.remove(&id)?;
        if inbox.len() > 0 {
            if matches!(self.items.front(), Some(Item::Inbox(first)) if *first == id) {
                self.turn = 0;
            }
            self.items.retain(|item| !matches!(item, Item::Inbox(other) if *other == id));
            self.settle();
        }
        Some(inbox)
    }

    /// Whether something is left for another drain that waits.
    pub(super) fn leaves_some(&mut self) -> bool {
        !self.items.is_empty() && self.needs_notice()
    }

    fn shrink(&mut self) {
        if self.items.is_empty() {
            self.items.shrink_to(KEPT);
        }
    }

    pub(super) fn add_wakeup(&mut self) {
        self.wakeups = self.wakeups.saturating_add(1);
    }

    pub(super) fn is_due_to_newcomer(&self) -> bool {
        self.closed || !self.items.is_empty() || self.wakeups > self.waiting
    }

    pub(super) fn is_due_to_waiter(&self) -> bool {
        self.closed || !self.items.is_empty() || self.wakeups > 0
    }

    /// A drain begins to wait.
    pub(super) fn begin_wait(&mut self) {
        self.waiting += 1;
    }

    /// A drain ends. If it took all there was it uses up a wake-up that was due to it.
    pub(super) fn end_drain(&mut self, waited: bool, found_all: bool) {
        let was_due = waited || self.wakeups > self.waiting;
        self.waiting -= usize::from(waited);
        if was_due && found_all {
            self.wakeups = self.wakeups.saturating_sub(1);
        }
        self.settle();
    }

    /// Whether other drains wait beside the one that asks, which is counted.
    pub(super) fn others_wait(&self) -> bool {
        self.waiting > 1
    }

    /// Whether a drain has to be notified of something new. One that runs the reactor is woken here, or is awake and will look.
    #[inline]
    pub(super) fn needs_notice(&mut self) -> bool {
        if self.reactor_runs {
            self.wake_reactor();
            return false;
        }
        self.waiting > 0
    }

    // ---- sources ----------------------------------------------------------------------------

    /// Adds a source unless it is known.
    pub(super) fn attach(&mut self, source: &Arc<dyn Source>) {
        if self.closed || self.sources.iter().any(|other| std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(source))) {
            return;
        }
        if self.waker.is_none() {
            // Without a waker drains only sleep, and other threads read.
            self.waker = Waker::new().ok().map(Arc::new);
        }
        self.sources.retain(|source| source.strong_count() > 0);
        self.sources.push(Arc::downgrade(source));
        // A drain that drives the others has to drive this one, too.
        self.unknown_source = true;
        self.wake_reactor();
    }

    pub(super) fn detach_all(&mut self) {
        self.sources.clear();
    }

    /// The sources that are still there. The caller drops them outside the lock, because it may be the last to hold one.
    pub(super) fn sources(&self) -> Sources {
        self.sources.iter().filter_map(Weak::upgrade).collect()
    }

    /// The reactor, if there are sources and no other drain runs it.
    pub(super) fn take_reactor(&mut self) -> Option<Reactor> {
        if self.reactor_runs || self.closed {
            return None;
        }
        let waker = Arc::clone(self.waker.as_ref().filter(|_| !self.sources.is_empty())?);
        (self.reactor_runs, self.unknown_source) = (true, false);
        Some(Reactor::new(self.sources(), waker))
    }

    /// The drain that runs the reactor is about to sleep. False: something has come while it was awake. What comes from now on wakes it;
    /// what it finds itself before does not, because that would be a byte in the pipe for nobody.
    pub(super) fn begin_sleep(&mut self) -> bool {
        self.asleep = !self.is_due_to_waiter() && !self.unknown_source;
        self.asleep
    }

    pub(super) fn put_reactor_back(&mut self) {
        (self.reactor_runs, self.asleep) = (false, false);
    }

    pub(super) fn wake_reactor(&mut self) {
        if let (true, Some(waker)) = (self.asleep, &self.waker) {
            self.asleep = false;
            waker.wake();
        }
    }

    /// The drain that runs the reactor is awake again. If it was woken, a byte is in the pipe.
    pub(super) fn wake_up(&mut self) {
        if let (Some(waker), false) = (&self.waker, self.asleep) {
            waker.clear();
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

    /// New calls are not ended by a cancellation that came before them.
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

    pub(super) fn fd(&mut self) -> RawFd {
        let due = self.is_due();
        self.ready_fd.as_mut().map_or(-1, |ready_fd| ready_fd.fd(due))
    }

    /// Makes the descriptor readable.
    pub(super) fn set_ready(&mut self) {
        if let Some(ready_fd) = &mut self.ready_fd {
            ready_fd.set();
        }
    }

    fn settle(&mut self) {
        let due = self.is_due();
        if let Some(ready_fd) = &mut self.ready_fd {
            ready_fd.settle(due);
        }
    }

    fn is_due(&self) -> bool {
        !self.items.is_empty() || self.wakeups > 0
    }
}

#[cfg(test)]
impl QueueState {
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
        self.items.capacity()
    }
}
