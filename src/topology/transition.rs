//! A service during a failover: the fence that holds writes back, the candidate, the switch (rules 4 to 9).
//!
//! Guarantees: a call that waits at the fence is woken when it comes down; a reply that is read after the candidate
//! said that it is a primary, or after a switch, can be told from one read before; a word about a former primary
//! changes nothing. Leaves to others: what follows from each word (failover), verifying (discovery), holding calls back
//! (call).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::answer::Shown;
use super::cause::{Cause, Why};
use super::discovery::Word;
use super::failover::{Failover, Findings, Judged};
use super::identity::{Identity, Speaker};
use super::inquiry::{Agenda, Finding};
use super::presence::Presence;
use super::service::{DiscoveryState, Service, Urgency};
use super::shared::closed;
use super::snapshot::Snapshot;
use super::source::Source;
use super::watch::{FenceChange, Switch, TopologyEvent};
use crate::config::Endpoint;
use crate::error::{Error, Result, Status, flags};
use crate::log::lines;
use crate::resp::ReplyBuilder;
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Passage, WriteLease};
use crate::worker;

/// Writes what a line of the log is about: the service, and the replica that is about to be promoted.
pub(super) fn about_candidate(out: &mut ReplyBuilder, service: &Service, candidate: &Endpoint) {
    out.text("service").text(service.name()).text("candidate").text(&candidate.to_string());
}

/// How often a call that waits at the fence checks it.
const LOOK: Duration = Duration::from_millis(100);

impl Service {
    /// Whether writes are held back. A caller that finds that they are not sees what was published before the fence
    /// came down.
    pub fn is_fenced(&self) -> bool {
        self.write_lease.is_over()
    }

    /// The lease that lets writes pass while it lasts; `None`: no lease has to be checked.
    pub fn lease(&self) -> Option<&Arc<WriteLease>> {
        self.write_lease.is_limited().then_some(&self.write_lease)
    }

    /// Changes when the candidate says that it is a primary, and at every switch. If it changed between sending a write
    /// and reading its reply, the reply may come from a primary that is being replaced (rule 8).
    pub fn failover_seq(&self) -> u64 {
        self.failover_seq.load(Ordering::Acquire)
    }

    fn raise_failover_seq(&self) {
        self.failover_seq.fetch_add(1, Ordering::AcqRel);
        seam::pass(Seam::FailoverSeqRaised, self);
    }

    /// Waits until writes may pass, for a caller that may be ended meanwhile; it is woken by [`Service::wake`] then. A
    /// caller with almost no time left is refused as if it had waited in vain: a write without time for its reply would
    /// end as maybe executed.
    pub fn await_open(self: &Arc<Self>, deadline: Deadline, is_ended: impl Fn() -> bool) -> Result<()> {
        let mut state = self.state();
        let mut late = false;
        while late || (self.is_fenced() && !is_ended()) {
            if self.shared.is_closed() {
                return Err(closed());
            }
            if late || deadline.is_over() {
                let after = deadline.elapsed().as_millis();
                let text = format!(
                    "a failover of service {} is under way, and writes are held back: nothing was sent, try again, or give \
                     the call more time (after {after} ms)",
                    self.name
                );
                return Err(Error::new(Status::Fenced, text).with_flags(flags::RETRYABLE | flags::FAILOVER));
            }
            let wait = deadline.left_or(LOOK).min(LOOK);
            drop(self.waiters.wait_timeout(state, wait));
            self.check_fence();
            state = self.state();
            late = deadline.is_all_but_over();
        }
        Ok(())
    }

    /// Ends an expired fence and requests a discovery, for a call that waits: with `monitor = off`, or without a thread
    /// for the monitor, nothing else would.
    pub fn check_fence(self: &Arc<Self>) {
        if self.is_fenced() {
            self.expire_fence(Instant::now());
            self.freshen();
        }
    }

    /// When a majority of all Sentinels last named the primary; `None`: never. A configuration that gives it names it always.
    pub fn confirmed(&self) -> Option<Instant> {
        match self.source() {
            Source::Sentinels => self.state().confirmed,
            Source::Fixed => Some(Instant::now()),
        }
    }

    /// A Sentinel announced a failover of this primary. A word about a former primary is ignored.
    pub(super) fn raise_fence(&self, from: &Speaker, primary: Option<&Endpoint>, word: &str, begins: bool) {
        let fences = self.shared.settings().sentinel.failover.fence;
        let mut state = self.state();
        if fences && self.is_primary(primary) {
            state.failover.hear(from, begins, Instant::now());
            self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
        }
    }

    /// A Sentinel has aborted its failover.
    pub(super) fn release_fence(&self, from: &Speaker, word: &str) {
        let mut state = self.state();
        state.failover.take_back(from);
        self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
    }

    /// Whether this is the announced address of the primary. Called under the lock, because a switch would make the
    /// answer outdated.
    fn is_primary(&self, announced: Option<&Endpoint>) -> bool {
        let is_primary = announced.is_some() && self.load().primary_announced.as_ref() == announced;
        seam::pass(Seam::WordJudged, self);
        is_primary
    }

    /// A Sentinel says that this primary is objectively down, or not any more. A word about a former primary is
    /// ignored.
    pub(super) fn note_down(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        state.failover.note_down(from, down);
    }

    /// A Sentinel says that this primary is subjectively down, or not any more.
    pub(super) fn note_missed(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        state.failover.note_missed(from, down);
    }

    /// Whether any Sentinel considers the primary down.
    #[cfg(test)]
    pub(super) fn holds_for_down(&self) -> bool {
        self.state().failover.holds_for_down()
    }

    /// What the holders of the fence are to be asked now, and when that changes.
    pub(super) fn agenda(&self, hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> (Option<Agenda>, Option<Instant>) {
        self.state().failover.agenda(hears, now)
    }

    /// Applies the findings of an inquiry; when the fence has to be checked again even if nothing is found.
    pub(super) fn weigh(self: &Arc<Self>, findings: Vec<Finding>, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        if !state.failover.is_held() && findings.is_empty() {
            return None;
        }
        let known = self.identities();
        let Findings { reason, is_back } =
            state.failover.weigh(findings, &|announced| self.is_primary(announced), &known, now);
        let passage = self.set_fence_at(&mut state, now, &|passage| match (passage, &reason) {
            (_, Some(why)) => why.clone(),
            (Passage::Shut, None) => Why::own(Cause::LeaseOver, "the lease is over"),
            (_, None) => Why::own(Cause::FailoverOver, "no Sentinel holds it any more"),
        });
        drop(state);
        if is_back {
            self.request_discovery(Urgency::Now);
        }
        match passage {
            Passage::Until(end) => Some(end),
            Passage::Open | Passage::Shut => None,
        }
    }

    /// Applies the view of a Sentinel that is asked because its events may not be heard.
    pub(super) fn overhear(self: &Arc<Self>, from: &Speaker, named: Option<&Endpoint>, shown: Option<&Shown>) {
        if self.is_stranger(from) {
            return;
        }
        let fences = self.shared.settings().sentinel.failover.fence;
        let mut state = self.state();
        let mut ask = named.is_some() && !self.is_primary(named);
        if let Some(shown) = shown.filter(|shown| self.is_primary(shown.primary.as_ref())) {
            if fences && shown.has("failover_in_progress") {
                state.failover.flagged(from, Instant::now());
                let text = format!("the flag failover_in_progress at {}", from.announced);
                self.set_fence(&mut state, &Why::own(Cause::FailoverInProgress, text));
            }
            ask |= state.failover.overhear(from, shown);
        }
        drop(state);
        if ask {
            self.request_discovery(Urgency::Soon);
        }
    }

    /// Applies the flags that a discovery found, because an event can be missed (rule 5).
    pub(super) fn heed_flags(&self, state: &mut DiscoveryState, words: &[Word], presence: &Presence, asked: Instant) {
        let fences = self.shared.settings().sentinel.failover.fence;
        let now = Instant::now();
        let was_shut = state.failover.is_told_shut();
        state.failover.heed(words, presence, fences, asked, now);
        self.set_fence_at(state, now, &|passage| {
            let cause = if passage == Passage::Shut { Cause::FailoverInProgress } else { Cause::FailoverOver };
            Why::own(cause, "the flag failover_in_progress")
        });
        if state.failover.is_told_shut() != was_shut {
            // The monitor, which ends the fence in time and runs the inquiry, may sleep for longer than that.
            self.recheck();
        }
    }

    /// Ends a fence that has been up for too long; when that will be, if it is up.
    pub(super) fn expire_fence(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let max = self.shared.settings().sentinel.failover.fence_max;
        let mut state = self.state();
        let end = state.failover.expires_at(max, now)?;
        if end > now {
            return Some(end);
        }
        state.failover.expire();
        self.set_fence(&mut state, &Why::word(Cause::FenceExpired));
        drop(state);
        self.request_discovery(Urgency::Now);
        None
    }

    /// The candidate said that it is a replica; it was asked at this time.
    pub(super) fn candidate_is_replica(&self, announced: &Endpoint, asked: Instant) {
        self.state().failover.candidate_is_replica(announced, asked);
    }

    /// The candidate said that it is a primary (rules 8 and 9).
    pub(super) fn candidate_is_primary(self: &Arc<Self>, announced: &Endpoint) {
        let policy = self.shared.settings().sentinel.failover.probe;
        let silent = self.shared.silent_since(&self.name);
        let mut state = self.state();
        if self.load().primary_announced.as_ref() == Some(announced) {
            return;
        }
        self.end_pauses();
        // The fence first: a call that reads the raised number finds the fence up, even if it was down on lease.
        state.failover.candidate_is_primary(announced);
        let why = Why::own(Cause::CandidateIsPrimary, "the candidate says that it is a primary");
        self.set_fence(&mut state, &why);
        self.raise_failover_seq();
        let taken = state.failover.takes_candidate(policy) && self.is_known_node(&state.failover, announced);
        self.shared.log().write(lines::CANDIDATE, &|out| {
            about_candidate(out, self, announced);
            out.text("taken").bool(taken);
        });
        if taken {
            self.take_candidate(&mut state, announced, why, silent);
        }
        drop(state);
        if taken {
            self.shared.changed(&self.name);
        }
        self.request_discovery(Urgency::Now);
    }

    /// The leader says that it has promoted the candidate of a failover of this primary.
    pub(super) fn candidate_is_promoted(
        self: &Arc<Self>,
        primary: Option<&Endpoint>,
        candidate: &Endpoint,
        word: &str,
    ) {
        let policy = self.shared.settings().sentinel.failover.probe;
        let silent = self.shared.silent_since(&self.name);
        let mut state = self.state();
        if !self.is_primary(primary) {
            return;
        }
        state.failover.commit(candidate);
        let says_so = state.failover.says_primary.as_ref() == Some(candidate);
        let taken = says_so && state.failover.takes_candidate(policy) && self.is_known_node(&state.failover, candidate);
        if taken {
            let text = format!("{word}, and the candidate says that it is a primary");
            self.take_candidate(&mut state, candidate, Why::own(Cause::CandidateIsPrimary, text), silent);
        }
        drop(state);
        if taken {
            self.shared.changed(&self.name);
        }
    }

    /// Whether this was a replica of the service before, or its primary before the last switch, which was demoted and may not be listed
    /// yet: an unknown address that a single Sentinel speaks of needs a second one (rule 2). A user who may not ask for the
    /// replicas knows none of them.
    fn is_known_node(&self, failover: &Failover, announced: &Endpoint) -> bool {
        let snapshot = self.load();
        snapshot.unlisted.is_some()
            || failover.has_demoted(announced)
            || snapshot.replicas.iter().any(|replica| replica.announced == *announced)
    }

    /// Switches to a candidate before the Sentinels name it, because it said that it is a primary.
    fn take_candidate(&self, state: &mut DiscoveryState, announced: &Endpoint, why: Why, silent: Option<Instant>) {
        let before = self.snapshot();
        let now = Instant::now();
        let snapshot = Snapshot {
            primary: Some(self.shared.settings().client.address_map.apply(announced)),
            primary_announced: Some(announced.clone()),
            epoch: before.epoch + 1,
            replicas: before.replicas.iter().filter(|replica| replica.announced != *announced).cloned().collect(),
            asked: Some(now),
            version: before.version + 1,
            ..(*before).clone()
        };
        state.failover.provisional = Some(now);
        let after = self.publish(snapshot);
        self.switched(state, (&before, &after), why, silent);
        self.lower_fence(state);
        self.following.note_listed(&before, &after, &|node, fit, why| self.tell_replica(node, fit, why));
        self.waiters.notify_all();
    }

    /// Applies a published switch: calls can detect it before the fence comes down. `silent`: since when calls wait for the former primary.
    pub(super) fn switched(
        &self,
        state: &mut DiscoveryState,
        (before, after): (&Snapshot, &Snapshot),
        why: Why,
        silent: Option<Instant>,
    ) {
        self.raise_failover_seq();
        self.end_pauses();
        let now = Instant::now();
        state.failover.switch(before.primary_announced.clone(), now);
        let gap = state.toll.switched(now, silent);
        self.shared.tell(TopologyEvent::Topology(Switch {
            service: self.name.clone(),
            from: before.primary.clone(),
            to: after.primary.clone(),
            why,
            epoch: after.epoch,
            gap,
        }));
    }

    /// Brings the fence down after a switch, whichever Sentinels hold it.
    pub(super) fn lower_fence(&self, state: &mut DiscoveryState) {
        state.failover.clear_fence();
        self.set_fence(state, &Why::word(Cause::Switched));
    }

    fn set_fence(&self, state: &mut DiscoveryState, why: &Why) {
        self.set_fence_at(state, Instant::now(), &|_| why.clone());
    }

    /// Sets the write lease by the state of the fence, and reports a change.
    fn set_fence_at(&self, state: &mut DiscoveryState, now: Instant, why: &dyn Fn(Passage) -> Why) -> Passage {
        let Judged { passage, change } = state.failover.judge(&self.identities(), now, why);
        // Even without a change to report: a lease that has ended may be renewed.
        let was_shut = self.write_lease.is_over();
        self.write_lease.set(passage);
        seam::pass(Seam::FenceMoved, self);
        if was_shut && passage != Passage::Shut {
            self.waiters.notify_all();
        }
        let Some((on, why)) = change else { return passage };
        state.toll.fence(on, now);
        if !on {
            // Tells clients of submitted calls that wait, on a worker because the lock is held here. Without a worker
            // the calls check the fence themselves.
            let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
            let _ = worker::run(move || shared.changed(&name));
        }
        let since = std::mem::replace(&mut state.shut, on.then_some(now));
        let held = since.filter(|_| !on).map(|since| now.saturating_duration_since(since));
        self.shared.tell(TopologyEvent::Fence(FenceChange { service: self.name.clone(), on, why, held }));
        passage
    }

    /// The identities of the Sentinels that count.
    fn identities(&self) -> Vec<Identity> {
        self.shared.list().speakers().into_iter().map(|speaker| speaker.identity).collect()
    }
}
