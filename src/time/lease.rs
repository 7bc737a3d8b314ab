//! The lease of writes: whether they may be sent now. Open, shut, or open until a moment, unless it is renewed.
//!
//! Guarantees: a lease ends at its moment, even if the thread that would end it does not run. The clock is read only while there is
//! a limit. Leaves to others: when it opens and shuts (topology), and what is not sent (call, lane).

use std::sync::atomic::{AtomicU64, Ordering};

use super::Instant;

const OPEN: u64 = 0;
const SHUT: u64 = u64::MAX;

/// A lease; open at first.
#[derive(Debug)]
pub struct WriteLease {
    born: Instant,
    /// [`OPEN`], [`SHUT`], or when it ends: microseconds after `born`, plus one.
    word: AtomicU64,
}

/// Whether writes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Open until it is shut.
    Open,
    /// Open until this moment.
    Until(Instant),
    /// Shut.
    Shut,
}

impl Default for WriteLease {
    fn default() -> Self {
        Self { born: Instant::now(), word: AtomicU64::new(OPEN) }
    }
}

impl WriteLease {
    /// Sets it.
    pub fn set(&self, passage: Passage) {
        let word = match passage {
            Passage::Open => OPEN,
            Passage::Shut => SHUT,
            // Rounded down: a lease may end early, never late.
            Passage::Until(end) => micros(end.saturating_duration_since(self.born)),
        };
        self.word.store(word, Ordering::Release);
    }

    /// Whether nothing may be sent now.
    pub fn is_over(&self) -> bool {
        match self.word.load(Ordering::Acquire) {
            OPEN => false,
            word => self.has_ended(word),
        }
    }

    /// Whether it has a limit, which may have passed.
    pub fn is_limited(&self) -> bool {
        !matches!(self.word.load(Ordering::Acquire), OPEN | SHUT)
    }

    #[cold]
    fn has_ended(&self, end: u64) -> bool {
        end == SHUT || micros(self.born.elapsed()) >= end
    }
}

fn micros(since: std::time::Duration) -> u64 {
    u64::try_from(since.as_micros()).unwrap_or(SHUT).clamp(OPEN, SHUT - 2) + 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lease_ends_by_the_clock_and_can_be_renewed() {
        let lease = WriteLease::default();
        assert!(!lease.is_over() && !lease.is_limited());
        lease.set(Passage::Shut);
        assert!(lease.is_over() && !lease.is_limited());
        lease.set(Passage::Until(Instant::now() + Duration::from_secs(60)));
        assert!(!lease.is_over() && lease.is_limited());
        lease.set(Passage::Until(Instant::now()));
        assert!(lease.is_over() && lease.is_limited());
        lease.set(Passage::Until(Instant::now() + Duration::from_secs(60)));
        assert!(!lease.is_over());
        lease.set(Passage::Open);
        assert!(!lease.is_over());
    }
}
