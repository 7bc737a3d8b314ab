//! The end of a discovery: its result is published, and the callers that wait are woken.
//!
//! Guarantees: the callers that wait are told however a discovery ends, a panic included; a result that was judged by
//! an outdated state is dropped. Leaves to others: running it (running), and what a switch means for calls
//! (transition).

use std::sync::Arc;
use std::time::Instant;

use super::cause::{Cause, Why};
use super::discovery::{Report, Views, Word};
use super::replicas;
use super::service::{DiscoveryState, Service, Urgency, Wanted};
use super::shared::closed;
use super::snapshot::{ReplicaView, SentinelView, Snapshot};
use super::source::Source;
use super::verify::Verified;
use super::watch::{SentinelChange, TopologyEvent};
use crate::config::MonitorMode;
use crate::error::{Error, Status};
use crate::net::Role;
use crate::sys::panic;
use crate::sys::sync::Locked;

/// A discovery under way. However it ends, a panic included, the callers that wait are told: at the latest when it is
/// dropped.
pub(super) struct Discovery {
    service: Arc<Service>,
    number: u64,
    /// The version of the snapshot when it began.
    version: u64,
    report: Option<Report>,
}

impl Discovery {
    /// A discovery that begins now.
    pub(super) fn new(service: Arc<Service>, number: u64) -> Self {
        let version = service.version();
        Self { service, number, version, report: None }
    }

    /// The requested discovery, unless its service is gone.
    pub(super) fn of(wanted: &Wanted) -> Option<Self> {
        wanted.service.upgrade().map(|service| Self::new(service, wanted.number))
    }

    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Whether this is the one that was requested.
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.number == wanted.number && std::ptr::eq(Arc::as_ptr(&self.service), wanted.service.as_ptr())
    }

    /// Ends it with this result.
    pub(super) fn finish(mut self, report: Report) {
        self.report = Some(report);
    }

    /// Ends it because its handle was closed.
    pub(super) fn abandon(self) {
        self.finish(failed(closed()));
    }

    /// The error that it ends with if nothing more is done.
    pub(super) fn prepare(&mut self, error: Error) {
        self.report = Some(failed(error));
    }

    /// Takes the prepared error back: somebody continues it.
    pub(super) fn unprepare(&mut self) {
        self.report = None;
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        let report = self.report.take();
        let report = report.unwrap_or_else(|| {
            let text = format!("a bug in libvigie: a discovery ended in a panic{}", panic::behind());
            failed(Error::new(Status::Internal, text))
        });
        self.service.finish(self.number, self.version, report);
    }
}

impl Service {
    /// Publishes the result of a discovery, and wakes the callers that wait.
    fn finish(self: &Arc<Self>, number: u64, version: u64, mut report: Report) {
        let moves = matches!(&report.outcome, Ok(found) if found.primary_announced != self.load().primary_announced);
        let silent = if moves { self.shared.silent_since(self.name()) } else { None };
        let mut state = self.state();
        if self.version() != version {
            // A candidate became the primary meanwhile, or address.map changed: a result that was judged by the old
            // state would undo that. The next discovery judges by the new state.
            (state.running, state.finished, state.again) = (false, number, Some(Urgency::Now));
            (state.last, state.proposed) = (Some((Instant::now(), None)), None);
            return self.start_again(state, None);
        }
        let before = self.snapshot();
        let outcome = std::mem::replace(&mut report.outcome, Err(Error::new(Status::Internal, "taken")));
        let (mut snapshot, error) = match outcome {
            Ok(found) => (found, None),
            Err(error) => (Snapshot { forgotten: false, ..(*before).clone() }, Some(error)),
        };
        if error.is_none() && snapshot.unlisted.is_some() {
            let of_before = |replica: &&ReplicaView| Some(&replica.announced) != snapshot.primary_announced.as_ref();
            snapshot.replicas = before.replicas.iter().filter(of_before).cloned().collect();
        }
        if state.failover.in_grace(Instant::now()) {
            replicas::keep_fitness(&mut snapshot.replicas, &before.replicas);
        }
        snapshot.version = before.version + u64::from(snapshot.matters(&before));
        snapshot.discovery = number;
        snapshot.sentinels = continued(std::mem::take(&mut report.sentinels), &before.sentinels);
        let found = error.is_none();
        if found && report.by_majority {
            state.confirmed = Some(report.begun);
        }
        if let Some((joined, strangers)) = report.membership.take() {
            state.membership.note(joined, strangers);
        }
        let after = self.publish(snapshot);
        if found {
            self.settle(&mut state, (&before, &after), &report, silent);
            self.note_verified(&after, report.verified.as_ref());
            self.following.forget_gone(&after);
        }
        self.note_views(&mut state, report.dissent, report.strangers, error.as_ref());
        if before.primary_announced.is_some() && before.primary_announced != after.primary_announced {
            // They are about the former primary.
            report.words.iter_mut().for_each(Word::forget);
        }
        self.heed_flags(&mut state, &report.words, &report.presence, report.begun);
        self.note_silence(error.as_ref(), &after);
        self.note_certificates();
        self.following.note_listed(&before, &after, &|node, fit, why| self.tell_replica(node, fit, why));
        self.tell_refused(&before, &after);
        (state.running, state.finished) = (false, number);
        state.last = Some((Instant::now(), error));
        let since = state.proposed.take().filter(|(known, _)| Some(known) == report.proposed.as_ref());
        let since = since.map_or_else(Instant::now, |(_, since)| since);
        state.proposed = report.proposed.map(|proposal| (proposal, since));
        state.unverified.take_if(|stale| number > *stale);
        if number > state.outdated {
            state.suspicion = None;
            state.failover.unreachable &= !found;
            if found {
                self.tell_recovery(state.toll.recovered(Instant::now()));
            }
        }
        self.start_again(state, report.verified.filter(|_| found));
        // Even if nothing changed: submitted calls wait for the end of a discovery.
        self.shared.changed(&self.name);
    }

    /// Starts the discovery that was requested meanwhile, and wakes the callers that wait. They find the connection
    /// that verified the primary in their pool.
    fn start_again(self: &Arc<Self>, mut state: Locked<'_, DiscoveryState>, verified: Option<Verified>) {
        if let Some(urgency) = state.again.take().filter(|_| !self.shared.is_closed()) {
            let _ = self.start(&mut state, urgency);
        }
        drop(state);
        if let Some(Verified { conn, options }) = verified {
            self.shared.offer(&self.name, conn, &options);
        }
        self.waiters.notify_all();
    }

    /// Applies a verified primary: a switch, or a confirmation.
    fn settle(
        &self,
        state: &mut DiscoveryState,
        (before, after): (&Snapshot, &Snapshot),
        report: &Report,
        silent: Option<Instant>,
    ) {
        state.failover.provisional = None;
        if before.primary_announced.is_some() && before.primary_announced != after.primary_announced {
            let why = match report.reset {
                true => Why::word(Cause::EpochReset),
                false => Why::own(Cause::SentinelsAgree, "the Sentinels agree"),
            };
            self.switched(state, (before, after), why, silent);
            if !report.tilt {
                self.lower_fence(state);
            }
        } else if report.reset {
            let text = format!("the Sentinels name it under the epoch {}, after {}", after.epoch, before.epoch);
            self.notice(Why::own(Cause::EpochReset, text));
        } else if self.source() == Source::Fixed && before.primary_announced.is_none() {
            let text = "the configuration gives the primary, and it has confirmed its role: no Sentinel is asked, and no other is looked for";
            self.notice(Why::own(Cause::Fixed, text));
        }
    }

    /// Notes what the primary said about itself when it was verified.
    fn note_verified(&self, after: &Snapshot, verified: Option<&Verified>) {
        let (Some(verified), Some(announced), Some(at)) = (verified, &after.primary_announced, &after.primary) else {
            return;
        };
        let told = verified.conn.info();
        if let Some(replication) = &told.replication {
            self.learn_lineage(announced, replication);
        }
        if let Some(why) = self.following.note_primary(at, told.role == Role::Unknown, self.source()) {
            self.notice(why);
        }
    }

    /// Warns about Sentinels that name different primaries, and about those of another deployment. Errors of another
    /// kind say nothing about that.
    fn note_views(
        &self,
        state: &mut DiscoveryState,
        dissent: Option<Views>,
        strangers: Option<Views>,
        error: Option<&Error>,
    ) {
        let says_nothing = error.is_some_and(|error| error.status() != Status::SplitView);
        let both =
            [(&mut state.dissent, dissent, Cause::SplitView), (&mut state.strangers, strangers, Cause::Strangers)];
        for (noted, views, cause) in both {
            if (says_nothing && views.is_none()) || !noted.note(views.as_ref()) {
                continue;
            }
            if let Some(Views { sentinels, text }) = views {
                let named: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
                let (service, text, why) = (Some(self.name.clone()), Some(text), Why::word(cause));
                let change = SentinelChange { sentinel: named.join(","), up: None, why, service, text };
                self.shared.tell(TopologyEvent::Sentinel(change));
            }
        }
    }

    /// Reports that files of TLS have changed and are no use.
    fn note_certificates(&self) {
        self.about_certificates().into_iter().for_each(|notice| self.shared.tell(notice));
    }

    /// Without subscriptions only a discovery shows that all Sentinels are gone, or that one is back.
    fn note_silence(&self, error: Option<&Error>, after: &Snapshot) {
        if self.shared.settings().sentinel.monitor.mode != MonitorMode::On {
            // A node may refuse credentials, too: then the Sentinels have answered.
            let refuse = || !after.sentinels.is_empty() && after.sentinels.iter().all(|view| view.state == "failed");
            let cause = |error: &Error| match error.status() {
                Status::NoSentinel => Some(Cause::Lost),
                Status::Auth if refuse() => Some(Cause::Refused),
                _ => None,
            };
            let silent = error.and_then(|error| Some(Why::own(cause(error)?, error.message())));
            self.shared.set_degraded(silent.is_some(), &silent.unwrap_or_else(|| Why::word(Cause::Answered)));
        }
    }

    /// Reports once which questions the user may not ask which Sentinel: their answers are missing from then on.
    fn tell_refused(&self, before: &Snapshot, after: &Snapshot) {
        for view in &after.sentinels {
            let known = before.sentinels.iter().find(|known| known.endpoint == view.endpoint);
            if let Some(lines) =
                view.refused.clone().filter(|_| known.is_none_or(|known| known.refused != view.refused))
            {
                let (sentinel, why) = (view.endpoint.to_string(), Why::own(Cause::QuestionsRefused, lines));
                self.shared.tell(TopologyEvent::Sentinel(SentinelChange::of(sentinel, None, why)));
            }
        }
    }
}

pub(super) fn failed(error: Error) -> Report {
    Report::failed(error, Instant::now())
}

/// Keeps the time since when each Sentinel has been in its state.
fn continued(mut now: Vec<SentinelView>, before: &[SentinelView]) -> Vec<SentinelView> {
    for view in &mut now {
        if matches!(view.state, "failed" | "skipped") {
            let old = before.iter().find(|old| old.endpoint == view.endpoint);
            let refused = view.text.starts_with("NOPERM").then(|| view.text.clone());
            view.refused = refused.or_else(|| old.and_then(|old| old.refused.clone()));
        }
        let same = |old: &&SentinelView| old.endpoint == view.endpoint && old.state == view.state;
        if let Some(old) = before.iter().find(same) {
            view.since = old.since;
        }
    }
    now
}
