//! The choice of a node: the primary, or one among the replicas.
//!
//! Guarantees: a replica that is unfit, lags or has just failed is skipped as long as there is a better one; the error of a call
//! that finds none gives the reason for each replica. Leaves to others: what makes a replica unfit (topology), its lag (lag).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::context::Context;
use super::view::{ReplicaTarget, Route, View};
use crate::config::{ClientSettings, Endpoint, Fallback, Pick};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::plan::Scan;
use crate::sys::random;
use crate::topology::Why;

/// When replicas are chosen by latency every 64th call goes to another one, so that the figures of all stay fresh.
const EXPLORE: usize = 64;

/// What the choice of a node depends on.
pub(super) struct Choice<'a> {
    pub(super) context: &'a Context,
    pub(super) view: &'a View,
    /// Counts the choices among replicas.
    pub(super) turn: &'a AtomicUsize,
    /// Replicas that were never measured count as near enough.
    pub(super) blind: bool,
}

impl Choice<'_> {
    #[inline(always)]
    pub(super) fn primary(&self) -> Result<Route> {
        match &self.view.primary {
            Some(pool) => Ok(Route::to(pool, None, 0)),
            None => Err(no_primary(self.context)),
        }
    }

    /// A replica, or the primary in its place. `tried`: the replicas at which the call has failed.
    pub(super) fn replica(&self, tried: &[String]) -> Result<Route> {
        let (view, service) = (self.view, &self.context.service);
        if view.replicas.is_empty() || view.replicas.iter().any(|replica| replica.unfit.is_some()) {
            service.freshen();
        }
        let settings = self.context.settings();
        let untried = |replica: &&Arc<ReplicaTarget>| !tried.iter().any(|name| name == replica.pool.name());
        let fit: Vec<_> = view.replicas.iter().filter(|replica| self.is_fit(replica)).filter(untried).collect();
        let cool: Vec<_> = fit.iter().copied().filter(|replica| !replica.is_cooling_down()).collect();
        let choice = if cool.is_empty() { fit } else { cool };
        if let Some(replica) = self.pick(&choice, &settings) {
            let spare = choice.len() - 1 + usize::from(settings.replica.fallback == Fallback::Primary);
            return Ok(Route::to(&replica.pool, Some(replica), spare));
        }
        if settings.replica.fallback == Fallback::Primary && view.primary.is_some() {
            self.context.count_fallback();
            return self.primary();
        }
        // Rule 32: during a failover the link of every replica is broken, and its data are better than an error.
        let unlinked: Vec<_> = view.replicas.iter().filter(|replica| replica.lacks_only_its_link(tried)).collect();
        if let Some(replica) = self.pick(&unlinked, &settings) {
            replica.admission.accept_broken_link();
            let spare = unlinked.len() - 1;
            return Ok(Route::to(&replica.pool, Some(replica), spare));
        }
        Err(self.no_replica(tried))
    }

    fn pick<'r>(&self, choice: &[&'r Arc<ReplicaTarget>], settings: &ClientSettings) -> Option<&'r Arc<ReplicaTarget>> {
        if choice.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = |among: &[&'r Arc<ReplicaTarget>]| among.get(turn % among.len().max(1)).copied();
        match settings.replica.pick {
            Pick::RoundRobin => in_turn(choice),
            Pick::Random => Some(choice[random::rng().usize(..choice.len())]),
            Pick::Latency if turn % EXPLORE == 0 => in_turn(choice),
            // A replica without a figure comes first, so that it gets one.
            Pick::Latency => choice.iter().copied().min_by_key(|replica| replica.pool.srtt().unwrap_or_default()),
            Pick::Preferred => {
                let preferred = &settings.replica.preferred;
                let place = |replica: &ReplicaTarget| {
                    let same =
                        |endpoint: &Endpoint| *endpoint == replica.announced || endpoint == replica.pool.endpoint();
                    preferred.iter().position(same).unwrap_or(preferred.len())
                };
                let best = choice.iter().map(|replica| place(replica)).min()?;
                let best: Vec<_> = choice.iter().copied().filter(|replica| place(replica) == best).collect();
                in_turn(&best)
            }
        }
    }

    /// A node for scans. The scans of a replica client begin on one replica as long as it is fit, and an unknown cursor goes there,
    /// too.
    pub(super) fn pinned(&self, scan: Option<Scan>, tried: &[String], pin: &mut Option<String>) -> Result<Route> {
        let goes_on = scan == Some(Scan::GoesOn);
        let pinned =
            pin.as_ref().and_then(|name| self.view.pools().find(|pool| pool.name() == name && !tried.contains(name)));
        if let Some(pool) = pinned {
            let replica = self.view.replicas.iter().find(|replica| Arc::ptr_eq(&replica.pool, pool));
            if goes_on || replica.is_none_or(|replica| self.is_fit(replica)) {
                return Ok(Route { pinned: true, ..Route::to(pool, replica, 0) });
            }
        }
        if goes_on {
            let text = match pin.take() {
                Some(node) => {
                    format!("the cursor belongs to a node that is not read from any more ({node}): begin with cursor 0")
                }
                None => "this client has not given that cursor, or has forgotten it; a cursor goes on only in the client that \
                         gave it: begin with cursor 0"
                    .to_owned(),
            };
            return Err(Error::new(Status::ScanInterrupted, text));
        }
        let route = self.replica(tried)?;
        *pin = Some(route.pool.name().to_owned());
        Ok(route)
    }

    /// Whether a replica may be read from.
    pub(super) fn is_fit(&self, replica: &ReplicaTarget) -> bool {
        let max_lag = self.context.settings().replica.max_lag;
        replica.unfit.is_none() && max_lag.is_none_or(|max| replica.lag.is_within(max, self.blind))
    }

    fn no_replica(&self, tried: &[String]) -> Error {
        let service = &self.context.service;
        let mut text = format!("no fit replica of service {}", quoted(service.name()));
        // A new reason alone makes no new view; the snapshot has it.
        let snapshot = service.load();
        for replica in &self.view.replicas {
            let failed = tried.iter().any(|name| name == replica.pool.name()).then(|| replica.last_failure());
            let known = snapshot.replicas.iter().find(|known| &known.endpoint == replica.pool.endpoint());
            let unfit = known.map_or(replica.unfit.as_deref(), |known| known.unfit.as_ref().map(Why::text));
            let lags = self.context.settings().replica.max_lag.and_then(|max| replica.lag.objection(max));
            let weighed = service.objection_to(replica.pool.endpoint());
            let why = unfit
                .or(lags.as_deref())
                .or(weighed.as_ref().map(Why::text))
                .or(failed.as_deref())
                .unwrap_or("not tried");
            text.push_str(&format!("; {}: {why}", replica.pool.name()));
        }
        let Some(line) = &snapshot.unlisted else {
            return Error::new(Status::NoReplica, text).with_flags(flags::RETRYABLE);
        };
        text.push_str(&format!(
            "; the Sentinels do not list its replicas to the ACL user of sentinel.username: {line}"
        ));
        Error::new(Status::NoReplica, text)
    }
}

fn no_primary(context: &Context) -> Error {
    let text = format!("no primary of service {} is known", quoted(context.service.name()));
    Error::new(Status::NoPrimary, text).with_flags(flags::RETRYABLE)
}
