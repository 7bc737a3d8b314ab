//! What is known about a service at one moment: immutable, shared, loaded without waiting.
//!
//! Guarantees: a snapshot never changes; its version differs from the previous one if anything changed that matters to
//! a connection.

use super::cause::Why;
use crate::config::{AddressMap, Endpoint};
use std::time::Instant;

/// A service, as of the last discovery.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Changes when the primary, its epoch, or the set or fitness of the replicas does.
    pub version: u64,
    /// The number of its discovery; 0 before the first.
    pub discovery: u64,
    /// Where to connect for the primary.
    pub primary: Option<Endpoint>,
    /// The primary as the Sentinels announce it.
    pub primary_announced: Option<Endpoint>,
    /// The configuration epoch under which it was named.
    pub epoch: u64,
    /// How many Sentinels must agree that the primary is down.
    pub quorum: u64,
    /// The replicas, fit or not.
    pub replicas: Vec<ReplicaView>,
    /// Why no Sentinel lists the replicas, as it refused to: then the known ones are kept.
    pub unlisted: Option<String>,
    /// What each Sentinel said.
    pub sentinels: Vec<SentinelView>,
    /// When the primary was last confirmed.
    pub asked: Option<Instant>,
    /// The service has been unused for so long that it is not polled any more: its next user waits for a discovery.
    pub forgotten: bool,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaView {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// As the Sentinels announce it.
    pub announced: Endpoint,
    /// Its flags at the Sentinel that won.
    pub flags: String,
    /// Whether its link to the primary stands.
    pub link_ok: bool,
    /// The primary that it follows by its own INFO, as the Sentinel that won heard it last.
    pub follows: Option<Endpoint>,
    /// Its replication offset, as old as the Sentinel's last INFO.
    pub offset: i64,
    /// Its priority for promotion.
    pub priority: i64,
    /// Why it must not be read from; `None`: it may.
    pub unfit: Option<Why>,
    /// Its link to the primary is the only reason why it is unfit.
    pub unfit_by_link: bool,
}

/// A Sentinel.
#[derive(Debug, Clone)]
pub struct SentinelView {
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// One word: ok, stranger, unknown, unused, failed or skipped.
    pub state: &'static str,
    /// It answered in TILT mode.
    pub tilt: bool,
    /// What it said, or what went wrong.
    pub text: String,
    /// The questions that the user is not permitted to ask, as the Sentinel refused them.
    pub refused: Option<String>,
    /// Since when it has been in this state.
    pub since: Instant,
}

impl Snapshot {
    /// Whether a connection would notice the difference.
    pub(super) fn matters(&self, before: &Self) -> bool {
        let key = |snapshot: &Self| (snapshot.primary.clone(), snapshot.primary_announced.clone(), snapshot.epoch);
        let fitness = |r: &ReplicaView| (r.endpoint.clone(), r.follows.clone(), r.unfit.is_some(), r.unfit_by_link);
        self.forgotten != before.forgotten
            || key(self) != key(before)
            || !self.replicas.iter().map(fitness).eq(before.replicas.iter().map(fitness))
    }

    /// The snapshot with its announced addresses mapped again.
    pub(super) fn mapped(&self, map: &AddressMap) -> Self {
        let mut mapped = self.clone();
        mapped.primary = self.primary_announced.as_ref().map(|announced| map.apply(announced));
        for replica in &mut mapped.replicas {
            replica.endpoint = map.apply(&replica.announced);
        }
        mapped
    }
}
