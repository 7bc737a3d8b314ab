//! How far the replicas are behind. Measured by ROLE on the primary, because what the Sentinels say about it is up to ten seconds
//! old.
//!
//! Guarantees: with `replica.max_lag` a replica is read from only if it was within the bound at the last measurement; while the
//! primary is away or being replaced the last measurement counts (rule 32). There is one measurement at a time in the process, so
//! that a frozen primary blocks at most one worker. The first read starts the measurements, and they end with the client. Leaves to
//! others: the choice among the replicas within the bound (choice).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::Endpoint;
use crate::lane::{Bytes, Unit};
use crate::net::{Replication, Role, RoleReplica};
use crate::pool::Pool;
use crate::sys::fork::PerProcess;
use crate::sys::random;
use crate::sys::tried::Tried;
use crate::time::Deadline;
use crate::topology::{ReplicaView, Service};
use crate::worker::{self, Host};

/// The time between two measurements. A replica confirms its offset once a second, so measuring more often would show nothing new.
const EVERY: Duration = Duration::from_secs(1);
/// How long the primary may take to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// When to look again while another client's measurement is under way.
const NEXT_TRY_MS: u64 = 20;

const UNKNOWN: i64 = -1;
const ABSENT: i64 = i64::MAX;

/// One measurement at a time.
static TURN: PerProcess<Tried<()>> = PerProcess::new();

/// How far one replica is behind.
#[derive(Debug)]
pub(super) struct Lag(AtomicI64);

/// Whose replicas are measured.
pub(super) trait Measured: Send + Sync + Sized + 'static {
    fn measurements(&self) -> &Measurements<Self>;
    /// The bound; `None` ends the measurements.
    fn bound(&self) -> Option<u64>;
    /// Measures all replicas once. False: the primary did not answer.
    fn measure(&self, max: u64) -> bool;
}

/// The state of a client's measurements.
pub(super) struct Measurements<M> {
    of: Weak<M>,
    runs: AtomicBool,
    /// The last measurement failed: replicas that were never measured need not wait for one.
    blind: AtomicBool,
}

impl Default for Lag {
    fn default() -> Self {
        Self(AtomicI64::new(UNKNOWN))
    }
}

impl<M: Measured> Measurements<M> {
    pub(super) fn new(of: Weak<M>) -> Self {
        Self { of, runs: AtomicBool::new(false), blind: AtomicBool::new(false) }
    }

    /// Starts the measurements. Returns whether replicas that were never measured count as near enough.
    pub(super) fn ensure(&self) -> bool {
        if !self.runs.load(Ordering::Relaxed) && !self.runs.swap(true, Ordering::AcqRel) {
            let of = Weak::clone(&self.of);
            if worker::dial(host_of(&self.of), false, move || tick(&of)).is_err() {
                // The next read tries again.
                self.runs.store(false, Ordering::Release);
            }
        }
        self.blind.load(Ordering::Relaxed)
    }
}

impl Lag {
    /// Why the replica must not be read from with this bound.
    pub(super) fn objection(&self, max: u64) -> Option<String> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => Some("its lag is not known yet".to_owned()),
            ABSENT => Some("not connected to the primary".to_owned()),
            lag if lag as u64 > max => Some(format!("lags {lag} bytes")),
            _ => None,
        }
    }

    /// Whether it is within this bound. `blind`: it need not have been measured.
    pub(super) fn is_within(&self, max: u64, blind: bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => blind,
            lag => lag as u64 <= max,
        }
    }

    /// Takes a measurement. With `in_grace`, while the primary is being replaced, a value above the bound does not replace one
    /// within it.
    fn note(&self, lag: i64, max: u64, in_grace: bool) {
        if !(in_grace && self.is_within(max, false)) {
            self.0.store(lag, Ordering::Relaxed);
        }
    }
}

/// Asks the primary how far each of these replicas is behind. False: it did not answer.
pub(super) fn measure<'a>(
    primary: Option<&Arc<Pool>>,
    replicas: impl Iterator<Item = (&'a Endpoint, &'a Lag)>,
    service: &Service,
    max: u64,
) -> bool {
    let Some((offset, listed)) = primary.and_then(ask_primary) else { return false };
    let (in_grace, snapshot) = (service.in_grace(), service.load());
    for (endpoint, lag) in replicas {
        let replica = snapshot.replicas.iter().find(|replica| replica.endpoint == *endpoint);
        let confirmed = replica.and_then(|replica| confirmed(replica, &listed));
        let behind = confirmed.map_or(ABSENT, |confirmed| offset.saturating_sub(confirmed).max(0));
        lag.note(behind, max, in_grace);
    }
    true
}

/// The primary's offset, and what its replicas have confirmed.
fn ask_primary(pool: &Arc<Pool>) -> Option<(i64, Vec<RoleReplica>)> {
    let ask = |args: &[&[u8]]| {
        let unit = Unit { bytes: Bytes::Args(args), list: None, at_most_once: false, lease: None, atomic: false };
        pool.exec(unit, false, Deadline::after(PATIENCE)).ok()
    };
    let reply = ask(&[b"ROLE"])?;
    // A user that may not call ROLE may be allowed INFO.
    let role = match reply.error_line(0) {
        None => Role::parse(&reply),
        Some(_) => Replication::parse(&ask(&[b"INFO", b"replication"])?).map(|told| told.role),
    };
    match role {
        Some(Role::Primary { offset, replicas }) => Some((offset, replicas)),
        _ => None,
    }
}

/// The offset that a replica has confirmed to its primary. If the Sentinels announce a name and the primary lists an address, or
/// the other way round, the port identifies the replica, provided that no other one has the same port.
fn confirmed(replica: &ReplicaView, listed: &[RoleReplica]) -> Option<i64> {
    let Endpoint::Tcp { host, port } = &replica.announced else { return None };
    let same = |one: &&RoleReplica| {
        one.port == *port && Endpoint::tcp(&one.host, one.port).is_ok_and(|listed| listed == replica.announced)
    };
    if let Some(exact) = listed.iter().find(same) {
        return exact.offset;
    }
    let is_name = |host: &str| host.parse::<std::net::IpAddr>().is_err();
    let mut by_port = listed.iter().filter(|one| one.port == *port && (is_name(&one.host) || is_name(host)));
    by_port.next().filter(|_| by_port.next().is_none()).and_then(|one| one.offset)
}

fn tick<M: Measured>(of: &Weak<M>) {
    let Some(this) = of.upgrade() else { return };
    let measurements = this.measurements();
    let Some(max) = this.bound() else {
        // A bound that is set later starts them again.
        return measurements.runs.store(false, Ordering::Release);
    };
    let pause = match TURN.get_or_make(Tried::default).write() {
        Some(_turn) => {
            measurements.blind.store(!this.measure(max), Ordering::Relaxed);
            EVERY.mul_f64(0.9 + random::rng().f64() / 10.0)
        }
        None => Duration::from_millis(NEXT_TRY_MS + random::rng().u64(0..NEXT_TRY_MS)),
    };
    let next = Weak::clone(of);
    let again = move || {
        let of = Weak::clone(&next);
        if let (Err(_), Some(this)) = (worker::dial(host_of(&of), false, move || tick(&of)), next.upgrade()) {
            this.measurements().runs.store(false, Ordering::Release);
        }
    };
    if worker::after(pause, Weak::clone(of), again).is_err() {
        measurements.runs.store(false, Ordering::Release);
    }
}

/// Each client's primary counts as a host of its own, because it is another node after a failover.
fn host_of<M>(of: &Weak<M>) -> Host {
    Host::of(("lag", of.as_ptr().addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(announced: &str) -> ReplicaView {
        let endpoint = Endpoint::tcp(announced, 7001).unwrap();
        ReplicaView {
            announced: endpoint.clone(),
            endpoint,
            flags: "slave".into(),
            link_ok: true,
            follows: None,
            offset: 0,
            priority: 100,
            unfit: None,
            unfit_by_link: false,
        }
    }

    fn listed(host: &str, port: u16, offset: i64) -> RoleReplica {
        RoleReplica { host: host.into(), port, offset: Some(offset) }
    }

    #[test]
    fn the_bound_decides_and_the_unknown_waits_unless_nothing_can_be_known() {
        let lag = Lag::default();
        assert!(!lag.is_within(100, false) && lag.is_within(100, true));
        assert!(lag.objection(100).is_some_and(|why| why.contains("not known")));
        lag.note(100, 100, false);
        assert!(lag.is_within(100, false) && lag.objection(100).is_none());
        lag.note(101, 100, false);
        assert!(!lag.is_within(100, true));
        assert_eq!(lag.objection(100).as_deref(), Some("lags 101 bytes"));
        lag.note(ABSENT, 100, false);
        assert!(lag.objection(1 << 50).is_some_and(|why| why.contains("not connected")));
    }

    #[test]
    fn while_the_primary_is_replaced_only_better_news_counts() {
        let lag = Lag::default();
        lag.note(5, 100, true);
        lag.note(ABSENT, 100, true);
        assert!(lag.is_within(100, false), "{lag:?}");
        lag.note(ABSENT, 100, false);
        lag.note(7, 100, true);
        assert!(lag.is_within(100, false), "{lag:?}");
    }

    #[test]
    fn a_replica_is_found_by_its_address_or_behind_a_name_by_its_port() {
        let list = [listed("127.0.0.1", 7001, 5), listed("127.0.0.2", 7001, 6)];
        assert_eq!(confirmed(&replica("127.0.0.2"), &list), Some(6));
        assert_eq!(confirmed(&replica("127.0.0.3"), &list), None);
        assert_eq!(confirmed(&replica("127.0.0.1"), &[listed("redis-1", 7001, 9)]), Some(9));
        assert_eq!(confirmed(&replica("redis-1"), &[listed("redis-2", 7001, 9), listed("x", 7001, 8)]), None);
    }
}
