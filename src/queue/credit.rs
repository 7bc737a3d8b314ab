//! Room for completions. It is reserved before a call is started, so the completion of an accepted call is never refused.
//!
//! Guarantees: a call ends with exactly one completion, even if its owner drops it; a call that was not started gives its
//! room back and has no completion. Leaves to others: when a call is over, and with what.

use std::sync::Arc;

use super::{Event, Queue, kind};
use crate::error::{Error, Result, Status, flags};
use crate::resp::Reply;
use crate::sys::panic;

/// Room for several calls, which is given out one by one. When it is dropped the rest goes back to the queue.
#[must_use]
pub struct Credits {
    queue: Arc<Queue>,
    token: u64,
    left: usize,
    bytes: usize,
}

impl Credits {
    pub(super) fn new(queue: Arc<Queue>, token: u64, left: usize, bytes: usize) -> Self {
        Self { queue, token, left, bytes }
    }

    /// Room for the next call, which takes `bytes` of the reserved bytes. Its token is one above that of the call before.
    pub fn next_of(&mut self, bytes: usize) -> Option<Reservation> {
        self.left = self.left.checked_sub(1)?;
        let (token, bytes) = (self.token, bytes.min(self.bytes));
        self.token = token.wrapping_add(1);
        self.bytes -= bytes;
        Some(Reservation { queue: Arc::clone(&self.queue), token, bytes, open: true })
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
        if self.left > 0 || self.bytes > 0 {
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
}

impl Reservation {
    /// The queue that the completion goes to.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The token that the application gave.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Ends the call. A queue that was closed drops the completion.
    #[inline]
    pub fn complete(mut self, outcome: Result<Option<Reply>>) {
        self.end(outcome);
    }

    #[inline]
    fn end(&mut self, outcome: Result<Option<Reply>>) {
        self.open = false;
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
            self.end(Err(error.with_flags(flags::MAYBE_EXECUTED)));
        }
    }
}
