//! A discovery where the configuration gives the primary: nobody is asked who it is, only the primary for its role.
//!
//! Guarantees: ends within `timeout.connect`; a primary in the result has said itself that it is one; every error says that no other
//! primary is looked for. A known primary that nothing is wrong with is not asked again. Leaves to others: running it (running),
//! and whether a replica may be read from (follow, route).

use std::time::Instant;

use super::discovery::Report;
use super::judge::{Candidate, Known};
use super::pauses::Pauses;
use super::reach;
use super::snapshot::{ReplicaView, Snapshot};
use super::source::Source;
use super::verify::{self, Verified};
use crate::config::{Endpoint, Settings};
use crate::error::{Error, Result, Status, quoted};
use crate::net::Role;
use crate::time::Deadline;

/// Asks the primary for its role, unless it is known and trusted.
pub(super) fn discover(service: &str, settings: &Settings, known: &Known, pauses: &Pauses) -> Report {
    let begun = Instant::now();
    let mut report = Report::failed(Error::new(Status::NoPrimary, "not asked yet"), begun);
    let deadline = Deadline::after(settings.client.timeout_connect);
    report.outcome = match ask(settings, known, pauses, deadline) {
        Ok((announced, verified)) => {
            let replicas = replicas(settings, known, verified.as_ref());
            report.verified = verified;
            Ok(snapshot(announced, &replicas, settings))
        }
        Err(error) => Err(error.in_context(format_args!("service {}", quoted(service)))),
    };
    report
}

/// Waits until the primary has said that it is one.
pub(super) fn reach(settings: &Settings, deadline: Deadline) -> Result<()> {
    let pauses = Pauses::default();
    let reached = reach::insist(deadline, || {
        pauses.end();
        ask(settings, &Known::default(), &pauses, deadline).map(drop)
    });
    reached.map_err(|error| error.with_time(deadline.elapsed().as_millis(), ""))
}

/// The primary as the configuration gives it, and the connection on which it was asked, if it was.
fn ask(
    settings: &Settings,
    known: &Known,
    pauses: &Pauses,
    deadline: Deadline,
) -> Result<(Endpoint, Option<Verified>)> {
    let Some(primary) = settings.fixed.primary.clone() else {
        return Err(Error::new(Status::Internal, "a bug in libvigie: no primary is configured"));
    };
    let candidates = [Candidate { primary, epoch: 0, voices: Vec::new(), reset: false, tilt: false }];
    match verify::verify(&candidates, settings, known, 0, pauses, deadline) {
        Ok((candidate, verified)) => Ok((candidate.primary.clone(), verified)),
        Err(error) => Err(Source::Fixed.explain(error)),
    }
}

/// The replicas as they are given, or those that the primary says are connected to it.
fn replicas(settings: &Settings, known: &Known, verified: Option<&Verified>) -> Vec<Endpoint> {
    match verified.map(|verified| &verified.conn.info().role) {
        _ if !settings.fixed.asks_for_replicas => settings.fixed.replicas.clone(),
        Some(Role::Primary { replicas, .. }) => {
            replicas.iter().filter_map(|replica| Endpoint::tcp(&replica.host, replica.port).ok()).collect()
        }
        _ => known.replicas.clone(),
    }
}

/// What the configuration says. Sentinels would tell more of a replica; what it says of itself decides.
fn snapshot(announced: Endpoint, replicas: &[Endpoint], settings: &Settings) -> Snapshot {
    let map = &settings.client.address_map;
    let replica = |announced: &Endpoint| ReplicaView {
        endpoint: map.apply(announced),
        announced: announced.clone(),
        flags: String::new(),
        link_ok: true,
        follows: None,
        offset: 0,
        priority: 0,
        unfit: None,
        unfit_by_link: false,
    };
    Snapshot {
        primary: Some(map.apply(&announced)),
        primary_announced: Some(announced),
        replicas: replicas.iter().map(replica).collect(),
        asked: Some(Instant::now()),
        ..Snapshot::default()
    }
}
