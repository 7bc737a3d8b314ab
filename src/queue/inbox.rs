//! The messages of one subscription on their way to the application, beside the queue's own events.
//!
//! Guarantees: an inbox has a bound of its own, in messages and in bytes, and takes nothing of the queue's capacity; its letters come
//! in their order; a message that does not fit is counted, and the count is reported in its place; once an inbox is closed nothing of
//! it is drained any more. What is told about a subscription is not lost to its messages. Leaves to others: what a letter says
//! (pubsub), and which inbox is drained next (state).

use std::collections::VecDeque;

use super::event::{Event, kind};
use crate::resp::Reply;

/// How much room an inbox keeps after a burst, in letters.
const KEPT: usize = 256;
/// Beyond this number what is told about a subscription counts as its messages do. Only a program that does not drain gets there.
const MOST_TOLD: usize = 1024;

/// How much an inbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Bytes of memory, about. An empty inbox takes a message of any size.
    pub bytes: usize,
    /// Whether the oldest message makes room for a new one. Otherwise the new one is lost.
    pub drops_oldest: bool,
}

/// What is put into an inbox.
#[derive(Debug)]
pub enum Letter {
    /// A message, which may be lost to the bound.
    Message(Reply),
    /// An event about the subscription. It carries the token of the inbox.
    Told(Event),
}

/// The letters of one subscription. The lock of the queue guards it.
pub(super) struct Inbox {
    token: u64,
    bounds: Bounds,
    letters: VecDeque<Kept>,
    /// How many of them are messages, and how many bytes these take.
    messages: usize,
    bytes: usize,
    /// Messages that were lost since the last report.
    lost: i64,
    counted: Counted,
}

/// A letter that waits.
struct Kept {
    event: Event,
    /// Of a message: how many bytes it takes. Kept here, because a look at the message itself costs more.
    size: Option<u32>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.size.map_or(0, |size| size as usize)
    }
}

/// What an inbox has counted since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that came, those that were lost included.
    pub messages: u64,
    /// Their bytes, as the bound counts them.
    pub bytes: u64,
    /// Messages that were lost to the bound.
    pub dropped: u64,
}

impl Counted {
    /// What has come since.
    pub fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            dropped: self.dropped - before.dropped,
        }
    }
}

impl Inbox {
    pub(super) fn new(token: u64, bounds: Bounds) -> Self {
        Self { token, bounds, letters: VecDeque::new(), messages: 0, bytes: 0, lost: 0, counted: Counted::default() }
    }

    /// How many events a drain can take from it.
    pub(super) fn len(&self) -> usize {
        self.letters.len() + usize::from(self.lost > 0)
    }

    /// What it has counted, and how many messages and bytes wait in it.
    pub(super) fn figures(&self) -> (Counted, usize, usize) {
        (self.counted, self.messages, self.bytes)
    }

    /// Whether half of it is free.
    pub(super) fn has_room(&self) -> bool {
        self.messages <= self.bounds.messages / 2 && self.bytes <= self.bounds.bytes / 2
    }

    /// Adds a letter. False: it is a message that did not fit. What was dropped for it goes to `dropped`.
    pub(super) fn put(&mut self, letter: Letter, dropped: &mut Vec<Event>) -> bool {
        let (event, is_message) = match letter {
            Letter::Message(reply) => {
                (Event { kind: kind::MESSAGE, token: self.token, outcome: Ok(Some(reply)) }, true)
            }
            Letter::Told(event) => {
                let is_message = self.letters.len() - self.messages >= MOST_TOLD;
                (Event { token: self.token, ..event }, is_message)
            }
        };
        let kept = Kept { size: is_message.then(|| u32::try_from(event.weight()).unwrap_or(u32::MAX)), event };
        let size = kept.bytes();
        self.counted.messages += u64::from(is_message);
        self.counted.bytes += size as u64;
        while is_message && !self.fits(size) {
            if !self.bounds.drops_oldest {
                self.lose();
                dropped.push(kept.event);
                return false;
            }
            match self.take_oldest_message() {
                Some(oldest) => dropped.push(oldest),
                None => break,
            }
        }
        self.messages += usize::from(is_message);
        self.bytes += size;
        self.letters.push_back(kept);
        true
    }

    fn lose(&mut self) {
        self.lost += 1;
        self.counted.dropped += 1;
    }

    fn fits(&self, size: usize) -> bool {
        self.messages == 0
            || (self.messages < self.bounds.messages && self.bytes.saturating_add(size) <= self.bounds.bytes)
    }

    fn take_oldest_message(&mut self) -> Option<Event> {
        let at = self.letters.iter().position(|kept| kept.size.is_some())?;
        let oldest = self.letters.remove(at)?;
        self.lose();
        self.forget(&oldest);
        Some(oldest.event)
    }

    /// The event that is drained next, as it would be built.
    pub(super) fn with_next<R>(&self, look: impl FnOnce(&Event) -> R) -> Option<R> {
        if self.lost > 0 {
            return Some(look(&self.report()));
        }
        self.letters.front().map(|kept| look(&kept.event))
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        if self.lost > 0 {
            let report = self.report();
            self.lost = 0;
            return Some(report);
        }
        let kept = self.letters.pop_front()?;
        self.forget(&kept);
        if self.letters.is_empty() {
            self.letters.shrink_to(KEPT);
        }
        Some(kept.event)
    }

    /// A letter has left.
    fn forget(&mut self, kept: &Kept) {
        self.messages -= usize::from(kept.size.is_some());
        self.bytes -= kept.bytes();
    }

    fn report(&self) -> Event {
        Event::dropped(self.token, self.lost)
    }
}
