//! Room for completions. It is reserved before a call is started, so the completion of an accepted call is never refused.
//!
//! Guarantees: a call ends with exactly one completion, even if its owner drops it; a call that was not started gives its
//! room back and has no completion. Leaves to others: when a call is over, and with what.

use std::sync::Arc;

use super::{Event, Queue, kind};
use crate::error::{Error, Result, Status, flags};
use crate::resp::Reply;
use crate::sys::panic;

/// Takes the outcome of a call that is one step of an operation: the operation has room in the queue, and its steps need none.
pub trait Step: Send + Sync {
    /// The step is over. `from`: of a scan, the generation of its node, and the node's name. Called on any thread, so it returns at once.
    fn told(self: Arc<Self>, outcome: Result<Option<Reply>>, from: Option<(u64, String)>);
    /// Whether the operation was cancelled.
    fn is_cancelled(&self) -> bool;
}

/// Where the completion of a call goes.
pub struct Address {
    /// The queue that it goes to in the end.
    pub queue: Arc<Queue>,
    token: u64,
    step: Option<Arc<dyn Step>>,
}

impl Address {
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        match &self.step {
            Some(step) => step.is_cancelled(),
            None => self.queue.is_cancelled(self.token),
        }
    }

    /// By which the call is found in its source. A step is found by its operation, which is the call that the program knows.
    pub fn owner(&self) -> (usize, u64) {
        match &self.step {
            Some(step) => (owner_of(step), 0),
            None => (self.queue.id(), self.token),
        }
    }
}

/// Identifies an operation among others, and among queues.
pub fn owner_of(step: &Arc<dyn Step>) -> usize {
    Arc::as_ptr(step).cast::<()>() as usize
}

/// Room for several calls, which is given out one by one. When it is dropped the rest goes back to the queue.
#[must_use]
pub struct Credits {
    queue: Arc<Queue>,
    token: u64,
    left: usize,
    bytes: usize,
    step: Option<Arc<dyn Step>>,
}

impl Credits {
    pub(super) fn new(queue: Arc<Queue>, token: u64, left: usize, bytes: usize) -> Self {
        Self { queue, token, left, bytes, step: None }
    }

    /// For one step of an operation, which takes no room.
    pub fn of_step(queue: &Arc<Queue>, token: u64, step: &Arc<dyn Step>) -> Self {
        Self { queue: Arc::clone(queue), token, left: 1, bytes: 0, step: Some(Arc::clone(step)) }
    }

    /// Room for the next `calls`, which take `bytes` of the reserved bytes together.
    pub fn split(&mut self, calls: usize, bytes: usize) -> Self {
        let (calls, bytes) = (calls.min(self.left), bytes.min(self.bytes));
        let part =
            Self { queue: Arc::clone(&self.queue), token: self.token, left: calls, bytes, step: self.step.clone() };
        self.token = self.token.wrapping_add(calls as u64);
        (self.left, self.bytes) = (self.left - calls, self.bytes - bytes);
        part
    }

    /// Room for the next call, which takes `bytes` of the reserved bytes. Its token is one above that of the call before.
    pub fn next_of(&mut self, bytes: usize) -> Option<Reservation> {
        self.left = self.left.checked_sub(1)?;
        let (token, bytes) = (self.token, bytes.min(self.bytes));
        self.token = token.wrapping_add(1);
        self.bytes -= bytes;
        Some(Reservation { queue: Arc::clone(&self.queue), token, bytes, open: true, step: self.step.clone() })
    }
}

/// Room for the next call. Its token is one above that of the call before.
impl Iterator for Credits {
    type Item = Reservation;

    fn next(&mut self) -> Option<Reservation> {
        self.next_of(0)
    }
}

impl Drop for Credits {
    fn drop(&mut self) {
        if self.step.is_none() && (self.left > 0 || self.bytes > 0) {
            self.queue.lock().release(self.left, self.bytes);
        }
    }
}

/// Room for one call's completion.
#[must_use]
pub struct Reservation {
    queue: Arc<Queue>,
    token: u64,
    bytes: usize,
    open: bool,
    step: Option<Arc<dyn Step>>,
}

impl Reservation {
    /// Where the completion goes.
    pub fn address(&self) -> Address {
        Address { queue: Arc::clone(&self.queue), token: self.token, step: self.step.clone() }
    }

    /// Whether this is the call that [`Address::owner`] names.
    #[inline]
    pub fn is_of(&self, owner: usize, token: u64) -> bool {
        match &self.step {
            Some(step) => owner_of(step) == owner,
            None => self.token == token && self.queue.id() == owner,
        }
    }

    /// Ends the call. A queue that was closed drops the completion.
    #[inline]
    pub fn complete(mut self, outcome: Result<Option<Reply>>) {
        self.end(outcome, None);
    }

    /// Ends the call; `from` as for [`Step::told`].
    #[inline]
    pub fn complete_from(mut self, outcome: Result<Option<Reply>>, from: Option<(u64, String)>) {
        self.end(outcome, from);
    }

    #[inline]
    fn end(&mut self, outcome: Result<Option<Reply>>, from: Option<(u64, String)>) {
        self.open = false;
        if let Some(step) = self.step.take() {
            return step.told(outcome, from);
        }
        let event = Event { kind: kind::COMPLETION, token: self.token, outcome };
        let mut state = self.queue.lock();
        state.release(1, self.bytes);
        if !state.is_closed() {
            state.add(event);
            self.queue.announce(state);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            let text = format!("a bug in libvigie: the call was given up without an outcome{}", panic::behind());
            let error = Error::new(Status::Internal, text);
            self.end(Err(error.with_flags(flags::MAYBE_EXECUTED)), None);
        }
    }
}
