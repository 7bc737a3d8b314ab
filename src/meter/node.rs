//! What the connections of one client to one node have counted, those that are gone included.
//!
//! Guarantees: its counters never go back; they outlive the pool, because a node that comes back goes on where it was. Leaves to others:
//! who keeps it (route).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::histogram::{Histogram, Latencies};
use super::tally::{Bytes, End, Tally};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Instant;

/// Who is told of connections that were opened and closed, under whatever locks that is.
pub trait Tells: Send + Sync {
    /// One to this node in this role was opened, or was closed for this reason after so long.
    fn connection(&self, node: &str, role: &'static str, closed: Option<(End, Duration)>);
}

/// The counters of one client for one node in one role.
pub struct NodeMeter {
    node: String,
    role: &'static str,
    told: Option<Weak<dyn Tells>>,
    opened: AtomicU64,
    refused: AtomicU64,
    closed: [AtomicU64; End::COUNT],
    waits: AtomicU64,
    waited_us: AtomicU64,
    parts: Lock<Parts>,
}

/// For how long after its last connection was given up a node counts as silent: longer than the Sentinels usually take.
const SILENCE_COUNTS: Duration = Duration::from_secs(120);

/// What connections count for themselves.
#[derive(Default)]
struct Parts {
    /// Since when the node has answered nothing, if a connection was given up for that, and when the last one was.
    silence: Option<(Instant, Instant)>,
    latencies: Vec<Arc<Latencies>>,
    bytes: Vec<Arc<Bytes>>,
    /// Of connections that are gone.
    gone: Sums,
    /// Of calls that had a connection to themselves.
    loans: Latencies,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    latencies: Histogram,
    sent: u64,
    received: u64,
}

/// The counters of a node as they are at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFigures {
    /// Connections that were opened.
    pub opened: u64,
    /// Attempts to open one that failed.
    pub refused: u64,
    /// Connections that were closed, by reason.
    pub closed: [u64; End::COUNT],
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Calls that had to wait for a connection.
    pub waits: u64,
    /// How long they waited, together, in microseconds.
    pub waited_us: u64,
    /// The latencies of answered calls.
    pub latencies: Histogram,
}

impl Default for NodeMeter {
    fn default() -> Self {
        Self {
            node: String::new(),
            role: "",
            told: None,
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: [const { AtomicU64::new(0) }; End::COUNT],
            waits: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            parts: Lock::new(Rank::Meter, Parts::default()),
        }
    }
}

impl NodeMeter {
    /// The meter of a node in this role. `told` hears of its connections.
    pub fn new(node: &str, role: &'static str, told: Weak<dyn Tells>) -> Self {
        Self { node: node.to_owned(), role, told: Some(told), ..Self::default() }
    }

    fn tell(&self, closed: Option<(End, Duration)>) {
        let told = self.told.as_ref().and_then(Weak::upgrade);
        told.iter().for_each(|told| told.connection(&self.node, self.role, closed));
    }

    /// Counts a connection that is ready for use.
    pub fn opened(self: &Arc<Self>) -> Tally {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let bytes = Arc::<Bytes>::default();
        let mut parts = self.parts.lock();
        parts.silence = None;
        parts.add_bytes(&bytes);
        drop(parts);
        self.tell(None);
        Tally::new(Arc::clone(self), bytes)
    }

    /// Counts an attempt to connect that failed.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a connection is given up, because nothing was answered on it since then.
    pub fn silent(&self, since: Instant) {
        let mut parts = self.parts.lock();
        let since = parts.silence.map_or(since, |(first, _)| first.min(since));
        parts.silence = Some((since, Instant::now()));
    }

    /// Since when the node has answered nothing on connections that were given up for that, unless one was opened since. Old silences do
    /// not count: the node may have recovered while nobody used it.
    pub fn silent_since(&self) -> Option<Instant> {
        let (since, last) = self.parts.lock().silence?;
        (last.elapsed() < SILENCE_COUNTS).then_some(since)
    }

    pub(super) fn closed(&self, end: End, age: Duration) {
        self.closed[end as usize].fetch_add(1, Ordering::Relaxed);
        self.tell(Some((end, age)));
    }

    /// Counts a call that had to wait for a connection for so long.
    pub fn waited(&self, time: Duration) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Records the latency of a call that had a connection to itself.
    pub fn answered(&self, took: Duration) {
        self.parts.lock().loans.record(took.as_secs_f32() * 1e6, 1);
    }

    /// Where a new lane records its latencies.
    pub fn lane(&self) -> Arc<Latencies> {
        let latencies = Arc::<Latencies>::default();
        let mut parts = self.parts.lock();
        parts.fold();
        parts.latencies.push(Arc::clone(&latencies));
        latencies
    }

    /// The counters now.
    #[inline(never)]
    pub fn figures(&self) -> NodeFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut parts = self.parts.lock();
        parts.fold();
        let mut sums = parts.gone.clone();
        sums.latencies.add_latencies(&parts.loans);
        parts.latencies.iter().for_each(|one| sums.latencies.add_latencies(one));
        parts.bytes.iter().for_each(|one| sums.add_bytes(one));
        drop(parts);
        let mut closed = [0; End::COUNT];
        closed.iter_mut().zip(&self.closed).for_each(|(figure, counter)| *figure = of(counter));
        NodeFigures {
            // After the closed ones, of which there are never more.
            opened: of(&self.opened),
            refused: of(&self.refused),
            closed,
            sent: sums.sent,
            received: sums.received,
            waits: of(&self.waits),
            waited_us: of(&self.waited_us),
            latencies: sums.latencies,
        }
    }
}

impl Parts {
    fn add_bytes(&mut self, bytes: &Arc<Bytes>) {
        self.fold();
        self.bytes.push(Arc::clone(bytes));
    }

    /// Adds up what belongs to connections that are gone.
    fn fold(&mut self) {
        let gone = &mut self.gone;
        self.latencies.retain_mut(|one| match Arc::get_mut(one) {
            None => true,
            Some(one) => {
                gone.latencies.add_latencies(one);
                false
            }
        });
        self.bytes.retain_mut(|one| match Arc::get_mut(one) {
            None => true,
            Some(one) => {
                gone.add_bytes(one);
                false
            }
        });
    }
}

impl Sums {
    fn add_bytes(&mut self, of: &Bytes) {
        self.sent += of.sent.load(Ordering::Relaxed);
        self.received += of.received.load(Ordering::Relaxed);
    }
}

impl NodeFigures {
    /// Adds those of another client or node.
    #[inline(never)]
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.refused += other.refused;
        self.closed.iter_mut().zip(&other.closed).for_each(|(sum, one)| *sum += one);
        self.sent += other.sent;
        self.received += other.received;
        self.waits += other.waits;
        self.waited_us += other.waited_us;
        self.latencies.add(&other.latencies);
    }

    /// All connections that were closed.
    pub fn all_closed(&self) -> u64 {
        self.closed.iter().sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_has_counted_stays_when_it_is_gone() {
        let node = Arc::<NodeMeter>::default();
        let (tally, lane) = (node.opened(), node.lane());
        tally.bytes().count_sent(30);
        tally.bytes().count_received(7);
        lane.record(10.0, 1);
        let open = node.figures();
        assert_eq!((open.opened, open.all_closed(), open.sent, open.received), (1, 0, 30, 7));
        assert_eq!(open.latencies.count(), 1);
        tally.note_end(End::Silent);
        tally.note_end(End::Lost);
        tally.ended();
        tally.bytes().count_sent(1);
        drop((tally, lane));
        let closed = node.figures();
        assert_eq!((closed.closed[End::Silent as usize], closed.all_closed()), (1, 1), "once, with the first reason");
        assert_eq!((closed.sent, &closed.latencies), (31, &open.latencies));
        assert!(node.parts.lock().bytes.is_empty() && node.parts.lock().latencies.is_empty());
        drop(node.opened());
        assert_eq!(node.figures().closed[End::GivenUp as usize], 1, "nobody said why");
        let mut twice = closed.clone();
        twice.add(&closed);
        assert_eq!((twice.opened, twice.sent, twice.latencies.count()), (2, 62, 2));
    }
}
