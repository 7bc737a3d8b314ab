//! What a client has done beside its calls: transactions, scripts, scans, jobs and messages.
//!
//! Guarantees: nothing of it is counted on the way of a plain call; counters never go back. Leaves to others: their names (client).

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A transaction that EXEC ran.
    TransactionRun,
    /// One that was given up because of WATCH.
    TransactionAborted,
    /// One that the server has refused.
    TransactionRefused,
    /// A script that was sent by its hash in place of its body.
    ScriptShortened,
    /// A script whose body was sent because the server did not know its hash.
    ScriptHealed,
    /// A page of a scan loop.
    ScanPage,
    /// A scan loop that began anew.
    ScanRestart,
    /// A scan that was interrupted.
    ScanInterrupted,
    /// A job that was handed out.
    JobTaken,
    /// One of them that may have been handed out before.
    JobMarked,
    /// A job that was acknowledged.
    JobAcknowledged,
    /// A job that went back to its list.
    JobHandedBack,
    /// A job that was handed out too often, and was put aside.
    JobSetAside,
    /// A lease that was over before its worker has renewed it.
    LeaseLost,
    /// A message of a subscription.
    Message,
    /// A byte of a message.
    MessageByte,
    /// A message that was lost to a full buffer.
    MessageDropped,
    /// A gap of a subscription.
    Gap,
}

/// How many kinds there are.
const COUNT: usize = Deed::Gap as usize + 1;

/// The counters.
#[derive(Debug)]
pub struct Deeds([AtomicU64; COUNT]);

/// Their values at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeedCounts([u64; COUNT]);

impl Default for Deeds {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNT])
    }
}

impl Deeds {
    /// Counts so many more.
    pub fn add(&self, deed: Deed, more: u64) {
        if more > 0 {
            self.0[deed as usize].fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Their values.
    pub fn counts(&self) -> DeedCounts {
        DeedCounts(std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

impl DeedCounts {
    /// How many of this kind.
    pub fn of(&self, deed: Deed) -> u64 {
        self.0[deed as usize]
    }

    /// Adds those of another client.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, one)| *sum += one);
    }
}
