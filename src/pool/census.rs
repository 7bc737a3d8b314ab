//! Counts the connections to a node, and notices when its server begins to number them anew.
//!
//! Guarantees: connections that are opened concurrently may be counted in any order without looking like a restart.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::sys::rank::Rank;
use crate::sys::sync::Lock;

/// The count of a node's connections.
pub(super) struct Census {
    opened: AtomicU64,
    /// The version of the server; 0 if no connection has told it.
    version: AtomicU32,
    numbers: Lock<Numbers>,
}

/// The numbers that the server gave to its connections (CLIENT ID); 0 where it gives none.
#[derive(Default)]
struct Numbers {
    highest: u64,
    /// When the connection with that number had been opened.
    since: Option<Instant>,
    restarts: u64,
}

impl Default for Census {
    fn default() -> Self {
        let numbers = Lock::new(Rank::Census, Numbers::default());
        Self { opened: AtomicU64::new(0), version: AtomicU32::new(0), numbers }
    }
}

impl Census {
    /// Counts a connection whose dial began at `begun`, and to which a server of this version gave this number.
    pub(super) fn count(&self, number: u64, version: u32, begun: Instant) {
        self.version.store(version, Ordering::Relaxed);
        if number > 0 {
            let mut numbers = self.numbers.lock();
            let later = numbers.since.is_none_or(|since| begun >= since);
            numbers.restarts += u64::from(later && number < numbers.highest);
            if later || number > numbers.highest {
                (numbers.highest, numbers.since) = (number, Some(Instant::now()));
            }
        }
        self.opened.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.numbers.lock().restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_go_back_are_a_restart_unless_the_dials_were_side_by_side() {
        let census = Census::default();
        let early = Instant::now();
        census.count(7, 0, Instant::now());
        census.count(9, 0, Instant::now());
        census.count(8, 0, early);
        assert_eq!((census.opened(), census.restarts()), (3, 0));
        census.count(0, 0, Instant::now());
        census.count(3, 0, Instant::now());
        assert_eq!((census.opened(), census.restarts()), (5, 1));
        census.count(4, 0, Instant::now());
        assert_eq!((census.opened(), census.restarts()), (6, 1));
    }
}
