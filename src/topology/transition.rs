//! A service during a failover: the fence that holds writes back, the candidate, the switch (rules 4 to 9).
//!
//! Guarantees: a call that waits at the fence is woken when it comes down; a reply that is read after the candidate said "primary", or
//! after a switch, can be told from one read before; a word about a node that is not the primary any more changes nothing. Leaves to
//! others: what follows from each word (failover), verifying (discovery), holding calls back (call).

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Shown;
use super::cause::{Cause, Why};
use super::discovery::Word;
use super::failover::{Findings, Judged};
use super::identity::{Identity, Speaker};
use super::inquiry::{Agenda, Finding};
use super::presence::Presence;
use super::service::{DiscoveryState, Service, Urgency};
use super::shared::closed;
use super::snapshot::Snapshot;
use super::watch::{FenceChange, Switch, TopologyEvent};
use crate::config::Endpoint;
use crate::error::{Error, Result, Status, flags};
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Passage, WriteLease};
use crate::worker;

/// How often a call that waits at the fence looks after it.
const LOOK: Duration = Duration::from_millis(100);

impl Service {
    /// Whether writes are held back. Who finds that they are not sees what was published before the fence came down.
    pub fn is_fenced(&self) -> bool {
        self.write_lease.is_over()
    }

    /// What writes may pass by, while that ends by the clock; `None`: there is nothing to look at.
    pub fn lease(&self) -> Option<&Arc<WriteLease>> {
        self.write_lease.is_limited().then_some(&self.write_lease)
    }

    /// Changes when the candidate of a failover says that it is a primary, and at every switch: a write's reply that was read
    /// under another number than it was sent under may come from a primary that is being replaced (rule 8).
    pub fn failover_seq(&self) -> u64 {
        self.failover_seq.load(Ordering::Acquire)
    }

    fn raise_failover_seq(&self) {
        self.failover_seq.fetch_add(1, Ordering::AcqRel);
        seam::pass(Seam::FailoverSeqRaised, self);
    }

    /// Waits until writes are not held back any more, for a caller that may be ended meanwhile and knocks with [`Service::wake`] then.
    /// Who waited until next to nothing is left is told the same as who waited in vain: what is sent without time for an answer ends as
    /// maybe executed.
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
            drop(self.waiters.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner));
            self.check_fence();
            state = self.state();
            late = deadline.is_all_but_over();
        }
        Ok(())
    }

    /// Ends the fence in time and has the Sentinels asked again, for a call that waits at it: with `monitor = off`, and without a thread for
    /// the monitor, nothing else would.
    pub fn check_fence(self: &Arc<Self>) {
        if self.is_fenced() {
            self.expire_fence(Instant::now());
            self.freshen();
        }
    }

    /// When a majority of all Sentinels last named the primary; `None`: never.
    pub fn confirmed(&self) -> Option<Instant> {
        self.state().confirmed
    }

    /// A Sentinel spoke of a failover of this primary. Of one that is none any more it is history.
    pub(super) fn raise_fence(&self, from: &Speaker, primary: Option<&Endpoint>, word: &str, begins: bool) {
        let fences = self.shared.settings().sentinel.failover.fence;
        let mut state = self.state();
        if fences && self.is_primary(primary) {
            state.failover.hear(from, begins, Instant::now());
            self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
        }
    }

    /// A Sentinel has given its failover up.
    pub(super) fn release_fence(&self, from: &Speaker, word: &str) {
        let mut state = self.state();
        state.failover.take_back(from);
        self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
    }

    /// Whether this is the primary as announced. Asked under the lock: a switch in between would make history of the answer.
    fn is_primary(&self, announced: Option<&Endpoint>) -> bool {
        let is_primary = announced.is_some() && self.load().primary_announced.as_ref() == announced;
        seam::pass(Seam::WordJudged, self);
        is_primary
    }

    /// A Sentinel says that this primary is objectively down, or not any more. Of one that is none any more it is history.
    pub(super) fn note_down(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        state.failover.note_down(from, down);
    }

    /// The same of a Sentinel that speaks for itself alone.
    pub(super) fn note_missed(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        state.failover.note_missed(from, down);
    }

    /// Whether any Sentinel holds the primary for down.
    #[cfg(test)]
    pub(super) fn holds_for_down(&self) -> bool {
        self.state().failover.holds_for_down()
    }

    /// What the Sentinels that hold the fence call to be asked, and when that will have changed.
    pub(super) fn agenda(&self, hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> (Option<Agenda>, Option<Instant>) {
        self.state().failover.agenda(hears, now)
    }

    /// What was found by asking; when the fence has to be looked at again though nothing is found.
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
            self.poke(Urgency::Now);
        }
        match passage {
            Passage::Until(end) => Some(end),
            Passage::Open | Passage::Shut => None,
        }
    }

    /// What a Sentinel says when it is asked because its events may not be heard.
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
            self.poke(Urgency::Soon);
        }
    }

    /// What the Sentinels' flags in a discovery say of a failover, because an event can be missed (rule 5).
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
            // The one who ends it when its time is over, or asks what could, may sleep for longer than that.
            self.recheck();
        }
    }

    /// Brings the fence down when it has been up for too long; when it will, if it is up.
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
        self.poke(Urgency::Now);
        None
    }

    /// The candidate, asked then, says that it is a replica.
    pub(super) fn candidate_is_replica(&self, asked: Instant) {
        self.state().failover.candidate_is_replica(asked);
    }

    /// The candidate says that it is a primary (rules 8 and 9).
    pub(super) fn candidate_is_primary(self: &Arc<Self>, announced: &Endpoint) {
        let policy = self.shared.settings().sentinel.failover.probe;
        let mut state = self.state();
        if self.load().primary_announced.as_ref() == Some(announced) {
            return;
        }
        self.end_pauses();
        // The fence first: who reads the raised number finds it up, also where it was down on lease.
        state.failover.candidate_is_primary(announced);
        let why = Why::own(Cause::CandidateIsPrimary, "the candidate says that it is a primary");
        self.set_fence(&mut state, &why);
        self.raise_failover_seq();
        let taken = state.failover.takes_candidate(policy);
        if taken {
            self.take_candidate(&mut state, announced, why);
        }
        drop(state);
        if taken {
            self.shared.changed(&self.name);
        }
        self.poke(Urgency::Now);
    }

    /// The switch before the Sentinels agree on it: the candidate said itself that it is a primary.
    fn take_candidate(&self, state: &mut DiscoveryState, announced: &Endpoint, why: Why) {
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
        self.switched(state, &before, &after, why);
        self.lower_fence(state);
        self.waiters.notify_all();
    }

    /// Notes a switch that was published: a call in doubt can see it, and only then the fence may come down.
    pub(super) fn switched(&self, state: &mut DiscoveryState, before: &Snapshot, after: &Snapshot, why: Why) {
        self.raise_failover_seq();
        self.end_pauses();
        state.failover.switch(before.primary_announced.clone(), Instant::now());
        self.shared.tell(TopologyEvent::Topology(Switch {
            service: self.name.clone(),
            from: before.primary.clone(),
            to: after.primary.clone(),
            why,
            epoch: after.epoch,
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

    /// Sets the write lease as those who hold the fence want it, and tells of it when that is a change.
    fn set_fence_at(&self, state: &mut DiscoveryState, now: Instant, why: &dyn Fn(Passage) -> Why) -> Passage {
        let Judged { passage, change } = state.failover.judge(&self.identities(), now, why);
        // Not only with an event: a lease that the clock had ended may be renewed.
        let was_shut = self.write_lease.is_over();
        self.write_lease.set(passage);
        seam::pass(Seam::FenceMoved, self);
        if was_shut && passage != Passage::Shut {
            self.waiters.notify_all();
        }
        let Some((on, why)) = change else { return passage };
        if !on {
            // Those who wait without a thread; not from here, because the lock is held. Without a thread they look by themselves.
            let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
            let _ = worker::run(move || shared.changed(&name));
        }
        self.shared.tell(TopologyEvent::Fence(FenceChange { service: self.name.clone(), on, why }));
        passage
    }

    /// The Sentinels that count, by who they are.
    fn identities(&self) -> Vec<Identity> {
        self.shared.list().speakers().into_iter().map(|speaker| speaker.identity).collect()
    }
}
