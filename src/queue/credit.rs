//! Room for completions, taken before a call is begun: so each call that was accepted has a place for its end.
//!
//! Guarantees: a call ends with exactly one completion, also when its owner forgets it; a call that was not begun gives its
//! room back and ends with none. Leaves to others: when a call is over, and with what.

use std::sync::Arc;

use super::{Event, Queue, kind};
use crate::error::{Error, Result, Status, flags};
use crate::resp::Reply;
use crate::sys::panic;

/// Room for several calls, given out one by one; what is left at the end goes back.
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

    /// The next call, which takes so many of the bytes; its token is one above that of the call before.
    pub fn next_of(&mut self, bytes: usize) -> Option<Reservation> {
        self.left = self.left.checked_sub(1)?;
        let (token, bytes) = (self.token, bytes.min(self.bytes));
        self.token = token.wrapping_add(1);
        self.bytes -= bytes;
        Some(Reservation { queue: Arc::clone(&self.queue), token, bytes, open: true })
    }
}

/// The next call; its token is one above that of the call before.
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

/// The place of one call's completion.
#[must_use]
pub struct Reservation {
    queue: Arc<Queue>,
    token: u64,
    bytes: usize,
    open: bool,
}

impl Reservation {
    /// The queue that it is in.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The number that the application gave.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Ends the call. On a queue that was closed nobody is told.
    pub fn complete(mut self, outcome: Result<Option<Reply>>) {
        self.end(outcome);
    }

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
