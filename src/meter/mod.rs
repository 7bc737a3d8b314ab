//! What is counted while calls run: latencies, bytes, and how connections begin and end.
//!
//! Guarantees: a counter on a call's way has one writer at a time (the holder of a lane's lock, or of one of its roles), so threads on
//! different connections write to no common cache line; what a connection has counted stays counted when it is gone; nothing here waits.
//! Leaves to others: the counters of calls (route/context), and how all of it is shown (client).
//!
//! `histogram` keeps latencies, `tally` is what one connection counts, `node` adds up the connections of one client to one node, `deeds`
//! counts what few calls do, `figures` is all of it at one moment.

mod deeds;
mod figures;
mod histogram;
mod node;
mod tally;

use std::sync::atomic::{AtomicU64, Ordering};

pub use deeds::{Deed, DeedCounts, Deeds};
pub use figures::{ClientFigures, NodeNow, NodeRow, SubscriptionRow, add_client, add_node};
pub use histogram::{Histogram, Latencies};
pub use node::{NodeFigures, NodeMeter, Tells};
pub use tally::{Bytes, End, EndInfo, Tally};

/// Adds to a counter that has one writer at a time: a load and a store, which lock no cache line.
#[inline(always)]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
