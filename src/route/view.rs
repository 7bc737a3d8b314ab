//! A service as connection pools: one for the primary, and one for each replica. And the route of a call to one of them.
//!
//! Guarantees: this is data; a replica keeps its lag and its pause from view to view. Leaves to others: making views (router), and
//! the choice (choice).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::admit::Admission;
use super::lag::Lag;
use crate::config::Endpoint;
use crate::error::Error;
use crate::plan::Target;
use crate::pool::Pool;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Deadline;
use crate::topology::ReplicaView;

/// How long a replica that failed is skipped.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// A service as pools.
#[derive(Default)]
pub(super) struct View {
    /// The version of the snapshot that it was made from.
    pub(super) version: u64,
    /// The version of the configuration that it was made from.
    pub(super) configured: u64,
    pub(super) primary: Option<Arc<Pool>>,
    pub(super) replicas: Vec<Arc<ReplicaTarget>>,
}

/// A replica to read from.
pub(crate) struct ReplicaTarget {
    pub(super) pool: Arc<Pool>,
    pub(super) announced: Endpoint,
    pub(super) unfit: Option<String>,
    unfit_by_link: bool,
    /// The node that it follows, as the Sentinels say.
    pub(super) follows: Option<Endpoint>,
    pub(super) admission: Arc<Admission>,
    pub(super) lag: Arc<Lag>,
    /// Milliseconds since `born` until which it is skipped.
    cools_until: AtomicU64,
    /// The message of its last failure.
    failure: Lock<String>,
    born: Instant,
}

/// Where a call goes.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) pool: Arc<Pool>,
    /// The replica; `None`: the primary.
    pub(crate) replica: Option<Arc<ReplicaTarget>>,
    /// How many other nodes could be tried after this one.
    pub(crate) alternatives: usize,
    /// No other node will do, because a cursor belongs to this one.
    pub(crate) pinned: bool,
}

impl Route {
    pub(super) fn to(pool: &Arc<Pool>, replica: Option<&Arc<ReplicaTarget>>, alternatives: usize) -> Self {
        Self { pool: Arc::clone(pool), replica: replica.cloned(), alternatives, pinned: false }
    }

    /// The deadline of an attempt: a replica that stalls must leave time for the others.
    #[inline(always)]
    pub(crate) fn share_of(&self, deadline: Deadline) -> Deadline {
        match self.alternatives {
            0 => deadline,
            others => deadline.left().map_or(deadline, |left| deadline.within(left / (others as u32 + 1))),
        }
    }
}

impl ReplicaTarget {
    /// A replica of a new view; `kept` is the same one in the view before.
    pub(super) fn new(
        replica: &ReplicaView,
        pool: Arc<Pool>,
        admission: Arc<Admission>,
        kept: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let failure = kept.map(|kept| kept.failure.lock().clone()).unwrap_or_default();
        Arc::new(Self {
            pool,
            announced: replica.announced.clone(),
            unfit: replica.unfit.as_ref().map(ToString::to_string),
            unfit_by_link: replica.unfit_by_link,
            follows: replica.follows.clone(),
            admission,
            lag: kept.map_or_else(Arc::default, |kept| Arc::clone(&kept.lag)),
            cools_until: AtomicU64::new(kept.map_or(0, |kept| kept.cools_until.load(Ordering::Relaxed))),
            failure: Lock::new(Rank::Replica, failure),
            born: kept.map_or_else(Instant::now, |kept| kept.born),
        })
    }

    /// Skips it for a while, because it failed.
    pub(crate) fn cool_down(&self, why: &Error) {
        why.message().clone_into(&mut self.failure.lock());
        let until = (self.born.elapsed() + COOL_DOWN).as_millis() as u64;
        self.cools_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn is_cooling_down(&self) -> bool {
        let until = self.cools_until.load(Ordering::Relaxed);
        until != 0 && (self.born.elapsed().as_millis() as u64) < until
    }

    pub(super) fn last_failure(&self) -> String {
        format!("failed just now: {}", *self.failure.lock())
    }

    /// Whether nothing is wrong but its link, and this call has not failed at it for that reason. Such a replica serves if there is
    /// no better one.
    pub(super) fn lacks_only_its_link(&self, tried: &[String]) -> bool {
        let times = tried.iter().filter(|name| *name == self.pool.name()).count();
        (self.unfit_by_link && times == 0) || (self.admission.has_refused_by_link() && times < 2)
    }
}

impl View {
    /// All its pools.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.primary.iter().chain(self.replicas.iter().map(|replica| &replica.pool))
    }

    /// Whether it has a node for a client of this target.
    pub(super) fn serves(&self, target: Target) -> bool {
        self.primary.is_some() || (target != Target::Primary && !self.replicas.is_empty())
    }

    /// All its pools, each with its node's role.
    pub(super) fn pools_with_roles(&self) -> impl Iterator<Item = (&Arc<Pool>, &'static str)> {
        let replicas = self.replicas.iter().map(|replica| (&replica.pool, "replica"));
        self.primary.iter().map(|pool| (pool, "primary")).chain(replicas)
    }
}
