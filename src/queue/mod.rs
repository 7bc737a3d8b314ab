//! The queue: completions and events for the application, with a descriptor that an event loop can wait for.
//!
//! Guarantees: each event that was accepted is drained exactly once, in the order of acceptance; outstanding calls and undrained events
//! together never exceed the capacity; events that a full queue could not take are counted, and the count is reported in their place.
//! The descriptor is readable while something is due, and nothing here waits except a drain. Leaves to others: what an event
//! says, and who may send it.
//!
//! Drains wait in one place (`Queue::wait`), apart from the taking. One of them at a time runs the reactor (`source`), which reads the
//! sockets of outstanding calls: a thread that submits and drains needs no other thread.

mod credit;
mod event;
mod inbox;
mod inlet;
mod ready_fd;
mod source;
mod state;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result, Status, flags};
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::time::Deadline;

use ready_fd::ReadyFd;
use source::{Reactor, Woken};
use state::QueueState;

pub use credit::{Address, Credits, Reservation, Step, owner_of};
pub use event::{Event, kind};
pub use inbox::{Bounds, Counted, Letter};
pub use inlet::{Inlet, Put};
pub use source::{Driven, Source};

/// How soon a drain looks again at a source that another thread is reading.
const NUDGE: Duration = Duration::from_millis(1);

/// The most that a queue may be asked to hold.
pub const MAX_CAPACITY: usize = 1 << 20;

/// Completions and events on their way to the application.
pub struct Queue {
    capacity: usize,
    state: Lock<QueueState>,
    /// Drains wait on it. Notified when something is due to one of them.
    changed: Condvar,
}

impl Queue {
    /// An empty queue for up to `capacity` events, outstanding calls included.
    pub fn create(capacity: usize) -> Result<Arc<Self>> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            let text = format!("capacity is {capacity}, not 1 to {MAX_CAPACITY}");
            return Err(Error::new(Status::InvalidArg, text));
        }
        let ready = ReadyFd::new().map_err(|e| Error::from_io(Status::Io, "the pipe of a queue cannot be made", &e))?;
        let state = Lock::new(Rank::Queue, QueueState::new(ready));
        Ok(Arc::new(Self { capacity, state, changed: Condvar::new() }))
    }

    /// Adds an event for which no room was reserved. False: the queue is full, and counts the event as lost, or is closed.
    pub fn push(&self, event: Event) -> bool {
        let mut state = self.lock();
        if state.is_closed() {
            return false; // `event` is dropped after the lock, here and below
        }
        let taken = state.used() < self.capacity;
        if taken {
            state.add(event);
        } else {
            state.count_lost();
        }
        self.announce(state);
        taken
    }

    /// Reserves room for the completions of `n` calls, whose tokens are `token` and the numbers that follow it. All or nothing.
    pub fn reserve(self: &Arc<Self>, token: u64, n: usize) -> Result<Credits> {
        self.reserve_bytes(token, n, 0, usize::MAX)
    }

    /// As [`Queue::reserve`], for calls that take `bytes` together, if the outstanding and undrained bytes then stay within `most`. With
    /// nothing outstanding any size is accepted, because draining could not make more room.
    pub fn reserve_bytes(self: &Arc<Self>, token: u64, n: usize, bytes: usize, most: usize) -> Result<Credits> {
        let mut state = self.lock();
        if state.is_closed() {
            return Err(Error::new(Status::Closed, "the queue was closed"));
        }
        let used = state.used();
        if n > self.capacity {
            let text = format!(
                "{n} calls never fit into a queue of {}: make it larger, or submit fewer at a time",
                self.capacity
            );
            return Err(Error::new(Status::QueueFull, text));
        }
        if n > self.capacity - used {
            let text = format!("the queue holds {used} of {}, no room for {n} more: drain it first", self.capacity);
            return Err(Error::new(Status::QueueFull, text).with_flags(flags::RETRYABLE));
        }
        let held = state.bytes();
        if held > 0 && held.saturating_add(bytes) > most {
            let text = format!(
                "submit.max_bytes: the queue holds {held} bytes of {most} (calls that are under way, and replies that were not \
                 drained), no room for {bytes} more: drain it, or wait for what is under way"
            );
            return Err(Error::new(Status::QueueFull, text).with_flags(flags::RETRYABLE));
        }
        state.reserve(n, bytes);
        state.forget_cancelled(token, n);
        Ok(Credits::new(Arc::clone(self), token, n, bytes))
    }

    /// Drains that wait drive this source from now on, until it is over or nobody else holds it. A source without a descriptor is driven
    /// by other threads.
    pub fn attach(&self, source: &Arc<dyn Source>) {
        self.lock().attach(source);
    }

    /// Ends the calls with this token, wherever they are. Their completions arrive as usual. Returns how many calls were found.
    pub fn cancel(&self, token: u64) -> usize {
        let mut state = self.lock();
        state.note_cancelled(token);
        let sources = state.sources();
        drop(state);
        sources.iter().map(|source| source.cancel(self.id(), token)).sum()
    }

    /// Ends the step that is under way of this operation ([`owner_of`]), wherever it is.
    pub fn cancel_step(&self, owner: usize) {
        let sources = self.lock().sources();
        for source in sources {
            source.cancel(owner, 0);
        }
    }

    /// As [`Queue::unblock`], for the step that is under way of this operation.
    pub fn unblock_step(&self, owner: usize) -> bool {
        let sources = self.lock().sources();
        sources.iter().any(|source| source.unblock(owner, 0))
    }

    /// Whether this token was cancelled, for a call that was moving from one source to another at that moment.
    pub fn is_cancelled(&self, token: u64) -> bool {
        self.lock().is_cancelled(token)
    }

    /// Identifies this queue among others.
    pub fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Takes up to `most` events, oldest first, and returns how many. Waits until there is an event or a wake-up, the queue is closed, or
    /// the deadline comes. A drain that takes `most` events leaves a wake-up to the next drain, because its caller drains again anyway.
    pub fn drain(&self, deadline: Deadline, out: &mut Vec<Event>, most: usize) -> usize {
        if most == 0 {
            return 0;
        }
        let mut count = 0;
        self.drain_by(deadline, None, |state| {
            count = state.take(out, most);
            count < most
        });
        count
    }

    /// As [`Queue::drain`] of one event, which a signal to this thread ends too. True: one did, and nothing else.
    pub fn drain_interruptibly(&self, deadline: Deadline, out: &mut Vec<Event>) -> bool {
        let interrupted = Cell::new(false);
        self.drain_by(deadline, Some(&interrupted), |state| state.take(out, 1) < 1);
        interrupted.get() && out.is_empty()
    }

    /// Has the server end the blocking command with this token; its completion arrives as usual. False: that cannot be asked for.
    pub fn unblock(&self, token: u64) -> bool {
        let sources = self.lock().sources();
        sources.iter().any(|source| source.unblock(self.id(), token))
    }

    /// As [`Queue::drain`], until an event does not fit: that event and those behind it stay, and the result is false. `fits` is called
    /// under the lock, so it only computes.
    pub fn drain_while(&self, deadline: Deadline, out: &mut Vec<Event>, fits: impl FnMut(&Event) -> bool) -> bool {
        self.drain_by(deadline, None, |state| state.take_while(out, fits))
    }

    /// With `interrupted` a signal ends the wait, and is noted there. An event that stays is left to another drain that waits: this one has
    /// taken the notification.
    fn drain_by(
        &self,
        deadline: Deadline,
        interrupted: Option<&Cell<bool>>,
        take: impl FnOnce(&mut QueueState) -> bool,
    ) -> bool {
        let mut state = self.lock();
        let waits = !state.is_due_to_newcomer() && !deadline.is_over();
        if waits {
            state = self.wait(state, deadline, interrupted);
        }
        let all = take(&mut state);
        state.end_drain(waits, all);
        let leaves_some = state.leaves_some();
        drop(state);
        if leaves_some {
            self.changed.notify_one();
        }
        all
    }

    /// The descriptor to poll for reading; -1 once closed. It belongs to the queue, and costs nothing until it is asked for.
    pub fn fd(&self) -> RawFd {
        self.lock().fd()
    }

    /// Makes one drain return: one that waits now, or the next one.
    pub fn wakeup(&self) {
        let mut state = self.lock();
        state.add_wakeup();
        self.announce(state);
    }

    /// Closes the descriptor and refuses new events and calls. Drains return at once from now on, with events that were accepted before.
    pub fn close(&self) {
        let mut state = self.lock();
        let ready_fd = state.close();
        state.detach_all();
        state.wake_reactor();
        drop(state);
        self.changed.notify_all();
        drop(ready_fd);
    }

    fn wait<'a>(
        &'a self,
        mut state: Locked<'a, QueueState>,
        deadline: Deadline,
        interrupted: Option<&Cell<bool>>,
    ) -> Locked<'a, QueueState> {
        state.begin_wait();
        while !state.is_due_to_waiter() {
            if deadline.is_over() || interrupted.is_some_and(Cell::get) {
                break;
            }
            state = match state.take_reactor() {
                Some(reactor) => {
                    drop(state);
                    self.run_reactor(reactor, deadline, interrupted)
                }
                None => self.sleep(state, deadline.left()),
            };
        }
        state
    }

    fn sleep<'a>(&'a self, state: Locked<'a, QueueState>, left: Option<Duration>) -> Locked<'a, QueueState> {
        match left {
            None => self.changed.wait(state),
            Some(left) => self.changed.wait_timeout(state, left),
        }
    }

    /// Waits for the sources once, and drives those that are ready.
    fn run_reactor(
        &self,
        reactor: Reactor,
        deadline: Deadline,
        interrupted: Option<&Cell<bool>>,
    ) -> Locked<'_, QueueState> {
        let guard = ReactorGuard { queue: self, reactor };
        // Most likely replies have come already, while the caller of this drain was at work.
        guard.reactor.drive_all();
        let sleeps = self.lock().begin_sleep();
        let Woken { ready, interrupted: by_signal } =
            if sleeps { guard.reactor.wait(deadline.left()) } else { Woken::default() };
        interrupted.iter().for_each(|noted| noted.set(by_signal));
        if sleeps {
            self.lock().wake_up();
        }
        let idle = guard.reactor.drive(&ready);
        drop(guard);
        let state = self.lock();
        // A source that another thread is reading stays ready; its replies arrive as events.
        if idle && !state.is_due_to_waiter() { self.sleep(state, Some(NUDGE)) } else { state }
    }

    /// Announces something new. One drain is notified; if it leaves some of it, it notifies the next one.
    fn announce(&self, mut state: Locked<'_, QueueState>) {
        state.set_ready();
        let notify = state.needs_notice();
        drop(state);
        if notify {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> Locked<'_, QueueState> {
        self.state.lock()
    }
}

/// Runs the reactor for one drain; when it is dropped another drain may run it.
struct ReactorGuard<'a> {
    queue: &'a Queue,
    reactor: Reactor,
}

impl Drop for ReactorGuard<'_> {
    fn drop(&mut self) {
        self.reactor.end();
        let mut state = self.queue.lock();
        state.put_reactor_back();
        let others = state.others_wait();
        drop(state);
        if others {
            self.queue.changed.notify_one();
        }
    }
}
