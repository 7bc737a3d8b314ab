//! The sender's end of an inbox.
//!
//! Guarantees: nothing here waits; the letters of one call are taken together; when the inlet is dropped the inbox is closed. Leaves to
//! others: the bound (inbox).

use std::sync::Arc;

use super::Queue;
use super::inbox::{Bounds, Inbox, Letter};

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

    /// Adds letters, in their order.
    pub fn put(&self, letters: impl IntoIterator<Item = Letter>) -> Put {
        let (mut dropped, mut put, mut count) = (Vec::new(), Put::Taken, 0);
        let mut state = self.queue.lock();
        if state.is_closed() {
            return Put::Closed;
        }
        state.with_inbox(self.id, |inbox| {
            for letter in letters {
                count += 1;
                if !inbox.put(letter, &mut dropped) {
                    put = Put::Full;
                }
            }
        });
        if count > 0 {
            self.queue.announce(state);
        }
        put
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
