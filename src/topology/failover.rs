//! A failover of one service: the fence, the candidate, the switch (rules 4 to 9).
//!
//! Guarantees: the fence goes up with the first word and comes down by a verified switch, by all taking it back, or by time; who waits
//! at it is woken at once; a reply that is read after the candidate said "primary", or after a switch, can be told from one read
//! before. Leaves to others: hearing the words (monitor), verifying (discovery), holding calls back (client).

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::answer::Shown;
use super::cause::{Cause, Why};
use super::discovery::Word;
use super::fence::{Fence, Holder};
use super::identity::{Identity, Speaker};
use super::inquiry::{Agenda, Finding};
use super::lease::Witnesses;
use super::monitor;
use super::presence::Presence;
use super::sentinel::closed;
use super::service::{DiscoveryState, Service, Urgency};
use super::snapshot::{ReplicaView, Snapshot};
use super::watch::{FenceChange, Switch, TopologyEvent};
use crate::config::{Endpoint, ProbePolicy};
use crate::error::{Error, Result, Status, flags};
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Passage, WriteLease};
use crate::worker;

/// For so long after a switch, and while one is under way, a replica's link and lag count as known before (rule 32).
const GRACE: Duration = Duration::from_secs(10);
/// How often a call that waits at the fence looks after it.
const LOOK: Duration = Duration::from_millis(100);
/// For so long after a switch the Sentinels are polled often, because the old primary will join the replicas.
pub(super) const POLLED_FAST: Duration = Duration::from_secs(40);

/// What is known of the failover that is under way.
#[derive(Default)]
pub(super) struct Failover {
    pub(super) fence: Fence,
    pub(super) witnesses: Witnesses,
    /// Whether writes were last told to be held back.
    told_shut: bool,
    /// Sentinels that hold the primary for objectively down.
    down: Vec<Speaker>,
    /// Sentinels that hold it for down, each by itself.
    missed: Vec<Speaker>,
    /// Something went wrong with it from here, and no discovery has reached it since.
    pub(super) unreachable: bool,
    /// The replica chosen for promotion has said that it is a primary.
    pub(super) says_primary: Option<Endpoint>,
    /// A candidate that was taken at its word, not named by the Sentinels yet; since when.
    pub(super) provisional: Option<Instant>,
    pub(super) switched: Option<Instant>,
    /// The primary before that one, as announced: replicas may follow it for a while yet.
    pub(super) previous: Option<Endpoint>,
}

impl Failover {
    pub(super) fn polls_fast(&self, now: Instant) -> bool {
        let recently = |since: Instant, span| now.saturating_duration_since(since) < span;
        self.fence.is_held()
            || self.provisional.is_some()
            || self.switched.is_some_and(|since| recently(since, POLLED_FAST))
    }

    /// Whether the primary is dead (rule 9): objectively down, or lost by who leads the failover, and from here.
    fn is_dead(&self) -> bool {
        !self.down.is_empty()
            || (self.unreachable && self.missed.iter().any(|sentinel| self.fence.is_held_by(&sentinel.identity)))
    }

    /// What those have said who are not there any more under that identity: nobody else will take it back.
    fn note_left(&mut self, presence: &Presence, asked: Instant) {
        self.fence.release_left(|who, announced| presence.has_left_calmly(who, announced), asked);
        for list in [&mut self.down, &mut self.missed] {
            list.retain(|known| !presence.has_left(&known.identity, &known.announced));
        }
    }

    /// Whether links and lag count as known before.
    pub(super) fn in_grace(&self, now: Instant) -> bool {
        let recently = self.switched.is_some_and(|since| now.saturating_duration_since(since) < GRACE);
        self.fence.is_held() || self.provisional.is_some() || !self.down.is_empty() || recently
    }
}

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
            let now = Instant::now();
            match begins {
                true => state.failover.fence.attempt(from, now),
                false => state.failover.fence.lead(from, now),
            }
            self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
        }
    }

    /// Whether this is the primary as announced. Asked under the lock: a switch in between would make history of the answer.
    fn is_primary(&self, announced: Option<&Endpoint>) -> bool {
        let is_primary = announced.is_some() && self.load().primary_announced.as_ref() == announced;
        seam::pass(Seam::WordJudged, self);
        is_primary
    }

    /// A Sentinel has given its failover up.
    pub(super) fn release_fence(&self, from: &Speaker, word: &str) {
        let mut state = self.state();
        state.failover.fence.release(&from.identity, None);
        self.set_fence(&mut state, &Why::said(word, format!("{word} by {}", from.announced)));
    }

    /// What the Sentinels that hold the fence call to be asked, and when that will have changed.
    pub(super) fn agenda(&self, hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> (Option<Agenda>, Option<Instant>) {
        let state = self.state();
        let holders: &[Holder] = state.failover.fence.holders();
        (Agenda::of(holders, hears, now), Agenda::begins_at(holders).filter(|at| *at > now))
    }

    /// What was found by asking; when the fence has to be looked at again though nothing is found.
    pub(super) fn weigh(self: &Arc<Self>, findings: Vec<Finding>, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        if !state.failover.fence.is_held() && findings.is_empty() {
            return None;
        }
        let (mut reason, mut is_back) = (None, false);
        for finding in findings {
            is_back |= matches!(finding, Finding::Back(_));
            reason = self.take_finding(&mut state.failover, finding).or(reason);
        }
        let known = self.identities();
        let Failover { fence, witnesses, .. } = &mut state.failover;
        for leader in fence.note_all_gone(|leader| witnesses.say_gone(leader, &known, now)) {
            let text = format!("{leader}, which led the failover, is gone, and its candidate is a replica");
            reason = Some(Why::own(Cause::LeaderGone, text));
        }
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

    /// What is told of it, if the fence moves by it.
    fn take_finding(&self, failover: &mut Failover, finding: Finding) -> Option<Why> {
        let Failover { fence, witnesses, .. } = failover;
        match finding {
            // What it says of another primary is about another failover; that it shows none any more is found by the next poll, which
            // knows whether it is in TILT.
            Finding::Holder(_, _, shown)
                if !self.is_primary(shown.primary.as_ref()) || !shown.has("failover_in_progress") =>
            {
                return None;
            }
            Finding::Holder(sentinel, sent, shown) => {
                let state = shown.failover_state.as_deref().unwrap_or("unknown");
                let waits = state == "wait_start";
                fence.testify(&sentinel, sent, waits);
                return (!waits)
                    .then(|| Why::own(Cause::ElectionOver, format!("the failover is in the state {state}")));
            }
            Finding::Witness(witness) => witnesses.hear(witness),
            Finding::Primary(asked, is_master) => witnesses.note_primary(asked, is_master),
            Finding::Refused(sentinel, begun) => witnesses.note_refused(&sentinel, begun),
            Finding::Back(sentinel) => {
                witnesses.note_back(&sentinel);
                fence.note_back(&sentinel);
                return Some(Why::own(Cause::LeaderBack, "the leader of the failover is back"));
            }
        }
        None
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
            let in_failover = shown.has("failover_in_progress");
            if in_failover && fences {
                state.failover.fence.flagged(from, Instant::now());
                let text = format!("the flag failover_in_progress at {}", from.announced);
                self.set_fence(&mut state, &Why::own(Cause::FailoverInProgress, text));
            }
            // What takes something back is for a discovery, which knows whether it is in TILT.
            let was_down = state.failover.missed.iter().any(|known| known.identity == from.identity);
            ask |= (state.failover.fence.is_held_by(&from.identity) && !in_failover) || shown.has("s_down") != was_down;
        }
        drop(state);
        if ask {
            self.poke(Urgency::Soon);
        }
    }

    /// The candidate, asked then, says that it is a replica.
    pub(super) fn candidate_is_replica(&self, asked: Instant) {
        self.state().failover.witnesses.note_candidate(asked);
    }

    /// The Sentinels that count, by who they are.
    fn identities(&self) -> Vec<Identity> {
        self.shared.list().speakers().into_iter().map(|speaker| speaker.identity).collect()
    }

    /// Brings the fence down when it has been up for too long; when it will, if it is up.
    pub(super) fn expire_fence(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let max = self.shared.settings().sentinel.failover.fence_max;
        let mut state = self.state();
        if state.failover.provisional.is_some_and(|since| now.saturating_duration_since(since) > max) {
            state.failover.provisional = None;
        }
        state.failover.fence.forget_gone(max, now);
        let end = state.failover.fence.expires_at(max)?;
        if end > now {
            return Some(end);
        }
        state.failover.fence.expire();
        self.set_fence(&mut state, &Why::word(Cause::FenceExpired));
        drop(state);
        self.poke(Urgency::Now);
        None
    }

    fn set_fence(&self, state: &mut DiscoveryState, why: &Why) {
        self.set_fence_at(state, Instant::now(), &|_| why.clone());
    }

    /// Sets the write lease as those who hold the fence want it, and tells of it when that is a change.
    fn set_fence_at(&self, state: &mut DiscoveryState, now: Instant, why: &dyn Fn(Passage) -> Why) -> Passage {
        let known = self.identities();
        let Failover { fence, witnesses, told_shut, .. } = &mut state.failover;
        let passage = fence.judge(witnesses, &known, now);
        // Not only with an event: a lease that the clock had ended may be renewed.
        let was_shut = self.write_lease.is_over();
        self.write_lease.set(passage);
        seam::pass(Seam::FenceMoved, self);
        if was_shut && passage != Passage::Shut {
            self.waiters.notify_all();
        }
        let on = passage == Passage::Shut;
        if std::mem::replace(told_shut, on) == on {
            return passage;
        }
        if !on {
            // Those who wait without a thread; not from here, because the lock is held. Without a thread they look by themselves.
            let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
            let _ = worker::run(move || shared.changed(&name));
        }
        // Whatever had the fence looked at: a poll may be the first to find that it is on lease.
        let why = match passage {
            Passage::Until(_) => {
                Why::own(Cause::OnLease, "on lease: the failover waits for its election, and the primary is up")
            }
            Passage::Open | Passage::Shut => why(passage),
        };
        self.shared.tell(TopologyEvent::Fence(FenceChange { service: self.name.clone(), on, why }));
        passage
    }

    /// A Sentinel says that this primary is objectively down, or not any more. Of one that is none any more it is history.
    pub(super) fn note_down(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        set(&mut state.failover.down, from, down);
    }

    /// The same of a Sentinel that speaks for itself alone.
    pub(super) fn note_missed(&self, from: &Speaker, primary: Option<&Endpoint>, down: bool) {
        let mut state = self.state();
        let down = down && self.is_primary(primary);
        set(&mut state.failover.missed, from, down);
    }

    /// Whether any Sentinel holds the primary for down.
    #[cfg(test)]
    pub(super) fn holds_for_down(&self) -> bool {
        let state = self.state();
        !state.failover.down.is_empty() || !state.failover.missed.is_empty()
    }

    /// Whether links and lag count as known before, because the primary is down, being replaced, or new (rule 32).
    pub fn in_grace(&self) -> bool {
        self.state().failover.in_grace(Instant::now())
    }

    /// The candidate says that it is a primary (rules 8 and 9).
    pub(super) fn candidate_is_primary(self: &Arc<Self>, announced: &Endpoint) {
        let policy = self.shared.settings().sentinel.failover.probe;
        let mut state = self.state();
        if self.load().primary_announced.as_ref() == Some(announced) {
            return;
        }
        state.failover.says_primary = Some(announced.clone());
        self.end_pauses();
        // The fence first: who reads the raised number finds it up, also where it was down on lease.
        state.failover.fence.promoted();
        let why = Why::own(Cause::CandidateIsPrimary, "the candidate says that it is a primary");
        self.set_fence(&mut state, &why);
        self.raise_failover_seq();
        let taken = match policy {
            ProbePolicy::Eager => true,
            ProbePolicy::Auto => state.failover.is_dead(),
            ProbePolicy::Off => false,
        };
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
        state.failover.switched = Some(Instant::now());
        state.failover.previous = before.primary_announced.clone();
        state.failover.down.clear();
        state.failover.missed.clear();
        state.failover.unreachable = false;
        state.failover.says_primary = None;
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
        state.failover.fence.clear();
        state.failover.witnesses = Witnesses::default();
        self.set_fence(state, &Why::word(Cause::Switched));
    }

    /// What the Sentinels' flags in a discovery say of a failover, because an event can be missed (rule 5).
    pub(super) fn heed_flags(&self, state: &mut DiscoveryState, words: &[Word], presence: &Presence, asked: Instant) {
        let fences = self.shared.settings().sentinel.failover.fence;
        let now = Instant::now();
        for word in words {
            if !word.tilt {
                set(&mut state.failover.down, &word.sentinel, word.o_down);
                set(&mut state.failover.missed, &word.sentinel, word.s_down);
            }
            match word.in_failover {
                Some(true) if fences => state.failover.fence.flagged(&word.sentinel, now),
                None => {}
                _ if word.tilt => {}
                _ => state.failover.fence.release(&word.sentinel.identity, Some(asked)),
            }
        }
        state.failover.note_left(presence, asked);
        let was_shut = state.failover.told_shut;
        self.set_fence_at(state, now, &|passage| {
            let cause = if passage == Passage::Shut { Cause::FailoverInProgress } else { Cause::FailoverOver };
            Why::own(cause, "the flag failover_in_progress")
        });
        if state.failover.told_shut != was_shut {
            // The one who ends it when its time is over, or asks what could, may sleep for longer than that.
            monitor::recheck();
        }
    }
}

fn set(list: &mut Vec<Speaker>, sentinel: &Speaker, on: bool) {
    list.retain(|known| known.identity != sentinel.identity);
    if on {
        list.push(sentinel.clone());
    }
}

/// Rule 32: after the loss of a primary every replica reports a broken link for seconds; that says nothing about the replica.
pub(super) fn keep_fitness(replicas: &mut [ReplicaView], before: &[ReplicaView]) {
    for replica in replicas.iter_mut().filter(|replica| replica.unfit_by_link) {
        let known = before.iter().find(|known| known.announced == replica.announced);
        if known.is_some_and(|known| known.unfit.is_none()) {
            (replica.unfit, replica.unfit_by_link) = (None, false);
        }
    }
}
