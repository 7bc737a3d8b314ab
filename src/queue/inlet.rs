//! The sender's end of an inbox.
//!
//! Guarantees: nothing here waits; the letters of one call are taken together; when the inlet is dropped the inbox is closed. Leaves to
//! others: the bound (inbox).

use std::sync::Arc;

use super::Queue;
use super::inbox::{Bounds, Counted, Inbox, Letter};

/// What has become of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// They were taken; messages may have been dropped for them.
    Taken,
    /// At least one message did not fit.
    Full,
    /// The queue was closed: nobody will drain them.
    Closed,
}

/// The sender's end of an inbox. When it is dropped the inbox is closed, and what was not drained is gone.
pub struct Inlet {
    queue: Arc<Queue>,
    id: u64,
}

impl Queue {
    /// Opens an inbox, whose events carry this token.
    pub fn open_inbox(self: &Arc<Self>, token: u64, bounds: Bounds) -> Inlet {
        let id = self.lock().open_inbox(Inbox::new(token, bounds));
        Inlet { queue: Arc::clone(self), id }
    }
}

impl Inlet {
    /// The queue that drains it.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Adds letters, in their order. Also says what was counted for them.
    pub fn put(&self, letters: impl IntoIterator<Item = Letter>) -> (Put, Counted) {
        let (mut dropped, mut put, mut count) = (Vec::new(), Put::Taken, 0);
        let mut counted = Counted::default();
        let mut state = self.queue.lock();
        if state.is_closed() {
            return (Put::Closed, counted);
        }
        state.with_inbox(self.id, |inbox| {
            let (before, ..) = inbox.figures();
            for letter in letters {
                count += 1;
                if !inbox.put(letter, &mut dropped) {
                    put = Put::Full;
                }
            }
            counted = inbox.figures().0.since(before);
        });
        if count > 0 {
            self.queue.announce(state);
        }
        (put, counted)
    }

    /// What the inbox has counted, and how many messages and bytes wait in it.
    pub fn figures(&self) -> (Counted, usize, usize) {
        let mut figures = Default::default();
        self.queue.lock().with_inbox(self.id, |inbox| figures = inbox.figures());
        figures
    }

    /// Whether half of the inbox is free; true once the queue is closed.
    pub fn has_room(&self) -> bool {
        let mut state = self.queue.lock();
        let mut room = true;
        state.with_inbox(self.id, |inbox| room = inbox.has_room());
        room
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        // The events are dropped after the lock, because what they own may take others.
        let gone = self.queue.lock().close_inbox(self.id);
        drop(gone);
    }
}
