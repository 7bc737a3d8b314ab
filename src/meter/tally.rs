//! What one connection counts: its bytes, and why it ended.
//!
//! Guarantees: its end is counted once, with the first reason that was noted; a connection for whose end nobody noted a reason was given
//! up by its user. Leaves to others: when a connection ends (net/wire), and the reasons (pool, lane).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::add;
use super::node::NodeMeter;
use crate::error::{Error, Status, flags};
use crate::time::Instant;

macro_rules! ends {
    ($($(#[$doc:meta])* $end:ident $word:literal $text:literal)*) => {
        /// Why a connection was closed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum End {
            $(#[doc = $text] $end,)*
        }

        impl End {
            /// Every reason, in the order of the enum.
            pub const TABLE: &'static [EndInfo] = &[$(EndInfo { end: Self::$end, word: $word, text: $text },)*];
        }
    };
}

/// A reason as the pages and the tests see it.
#[derive(Debug, Clone, Copy)]
pub struct EndInfo {
    /// The reason.
    pub end: End,
    /// Its word, which programs may act on.
    pub word: &'static str,
    /// What it means.
    pub text: &'static str,
}

ends! {
    Lost         "lost"         "The server ended it, or it broke."
    Silent       "silent"       "The server left it unanswered for too long (`lane.silent`, `sub.ping`)."
    Protocol     "protocol"     "The server sent what is no RESP, what was not asked for, or more than the limits allow."
    Idle         "idle"         "It was not used for `pool.idle`, or its place was needed."
    Lifetime     "lifetime"     "It was older than `pool.lifetime`."
    Disconnected "disconnected" "By `vigie_client_disconnect()`, a changed option, or because the node refused what a node of its role does."
    Role         "role"         "Its node is not used any more: its role has changed, or it left the service."
    Closed       "closed"       "Its client was closed or freed."
    GivenUp      "given_up"     "Its user gave it up: a session in a state of its own, a subscription, a blocking command, a call that was late."
}

impl End {
    /// The number of reasons.
    pub const COUNT: usize = Self::TABLE.len();

    /// The reason behind the error that ends a connection. `None`: the error names none.
    pub fn of(cause: &Error) -> Option<Self> {
        match cause.status() {
            Status::Closed => Some(Self::Closed),
            Status::Protocol | Status::Limit => Some(Self::Protocol),
            Status::Timeout => Some(Self::Silent),
            Status::Io if cause.is_unused() => Some(Self::Idle),
            Status::Io if cause.has(flags::FAILOVER) => Some(Self::Role),
            Status::Io => Some(Self::Lost),
            _ => None,
        }
    }

    /// The reason as the tables have it.
    pub fn info(self) -> &'static EndInfo {
        &Self::TABLE[self as usize]
    }
}

/// No reason was noted.
const NONE: u8 = u8::MAX;

/// The bytes of a connection. One thread at a time adds to each counter: the thread that sends, and the thread that receives.
#[derive(Debug, Default)]
pub struct Bytes {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Bytes {
    /// Counts bytes that the kernel took.
    #[inline]
    pub fn count_sent(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
    }

    /// Counts bytes that were received.
    #[inline]
    pub fn count_received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }
}

/// What a connection counts for its node.
pub struct Tally {
    bytes: Arc<Bytes>,
    node: Arc<NodeMeter>,
    opened: Instant,
    end: AtomicU8,
    ended: AtomicBool,
}

impl Tally {
    pub(super) fn new(node: Arc<NodeMeter>, bytes: Arc<Bytes>) -> Self {
        Self { bytes, node, opened: Instant::now(), end: AtomicU8::new(NONE), ended: AtomicBool::new(false) }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Arc<Bytes> {
        &self.bytes
    }

    /// The node at the other end.
    pub fn node(&self) -> &Arc<NodeMeter> {
        &self.node
    }

    /// Notes why it ends, unless that is known.
    pub fn note_end(&self, end: End) {
        let _ = self.end.compare_exchange(NONE, end as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Notes that it is given up, because nothing was answered since then.
    pub fn note_silence(&self, since: Instant) {
        self.node.silent(since);
    }

    /// Counts its end, once.
    pub fn ended(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            let noted = self.end.load(Ordering::Acquire);
            let end = End::TABLE.get(noted as usize).map_or(End::GivenUp, |info| info.end);
            self.node.closed(end, self.age());
        }
    }

    fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.ended();
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}
