//! The state of a failover of one service, and what follows from each word about it (rules 4 to 9). No I/O, no lock.
//!
//! Guarantees: the fence goes up with the first word; it comes down by a verified switch, when all take their word
//! back, or by time; what has to be reported is returned to the caller. Leaves to others: hearing the words
//! (handle_state), verifying (discovery), and applying what follows (transition).

use std::time::{Duration, Instant};

use super::answer::Shown;
use super::cause::{Cause, Why};
use super::discovery::Word;
use super::fence::{Fence, Holder};
use super::identity::{Identity, Speaker};
use super::inquiry::{Agenda, Finding};
use super::lease::{self, Witnesses};
use super::presence::Presence;
use crate::config::{Endpoint, ProbePolicy};
use crate::time::Passage;

/// During a failover, and for so long after a switch, the link and the lag of a replica count as they were before (rule
/// 32).
const GRACE: Duration = Duration::from_secs(10);
/// For so long after a switch the Sentinels are polled more often, because the old primary is about to become a
/// replica.
const POLLED_FAST: Duration = Duration::from_secs(40);

/// The failover that is under way.
#[derive(Default)]
pub(super) struct Failover {
    fence: Fence,
    witnesses: Witnesses,
    /// Whether it was last reported that writes are held back.
    told_shut: bool,
    /// Sentinels that consider the primary objectively down.
    down: Vec<Speaker>,
    /// Sentinels that consider the primary subjectively down.
    missed: Vec<Speaker>,
    /// A connection from here to the primary failed, and no discovery has reached it since.
    pub(super) unreachable: bool,
    /// The candidate, once it has said that it is a primary.
    pub(super) says_primary: Option<Endpoint>,
    /// The replica that a leader said it has promoted.
    committed: Option<Endpoint>,
    /// Since when a candidate is the primary by its own word, not yet named by the Sentinels.
    pub(super) provisional: Option<Instant>,
    switched: Option<Instant>,
    /// The primary before the last switch, as announced: replicas may still follow it.
    pub(super) previous: Option<Endpoint>,
    /// Whether that one has said since that it is a replica.
    demoted: bool,
}

/// The state of the fence.
pub(super) struct Judged {
    /// What writes may pass.
    pub(super) passage: Passage,
    /// Whether writes are held back, and why, if this has to be reported.
    pub(super) change: Option<(bool, Why)>,
}

/// The result of an inquiry.
pub(super) struct Findings {
    /// Why the fence changes, if it does.
    pub(super) reason: Option<Why>,
    /// A leader that was gone is back.
    pub(super) is_back: bool,
}

impl Failover {
    /// Whether the Sentinels are to be polled often.
    pub(super) fn polls_fast(&self, now: Instant) -> bool {
        self.fence.is_held() || self.provisional.is_some() || self.has_switched_within(POLLED_FAST, now)
    }

    /// Whether links and lag count as they were before.
    pub(super) fn in_grace(&self, now: Instant) -> bool {
        self.fence.is_held()
            || self.provisional.is_some()
            || !self.down.is_empty()
            || self.has_switched_within(GRACE, now)
    }

    fn has_switched_within(&self, span: Duration, now: Instant) -> bool {
        self.switched.is_some_and(|since| now.saturating_duration_since(since) < span)
    }

    /// Whether a Sentinel holds the fence; writes may pass on lease all the same.
    pub(super) fn is_held(&self) -> bool {
        self.fence.is_held()
    }

    /// Whether it was last reported that writes are held back.
    pub(super) fn is_told_shut(&self) -> bool {
        self.told_shut
    }

    /// Whether any Sentinel considers the primary down.
    #[cfg(test)]
    pub(super) fn holds_for_down(&self) -> bool {
        !self.down.is_empty() || !self.missed.is_empty()
    }

    /// A Sentinel announced a failover of the primary: it begins one, or continues it.
    pub(super) fn hear(&mut self, from: &Speaker, begins: bool, now: Instant) {
        match begins {
            true => self.fence.attempt(from, now),
            false => self.fence.lead(from, now),
        }
    }

    /// A Sentinel has aborted its failover.
    pub(super) fn take_back(&mut self, from: &Speaker) {
        self.fence.release(&from.identity, None);
    }

    /// A Sentinel considers the primary objectively down, or not any more.
    pub(super) fn note_down(&mut self, from: &Speaker, is_down: bool) {
        set(&mut self.down, from, is_down);
    }

    /// A Sentinel considers the primary subjectively down, or not any more.
    pub(super) fn note_missed(&mut self, from: &Speaker, is_down: bool) {
        set(&mut self.missed, from, is_down);
    }

    /// Whether the view of a Sentinel that is asked instead of heard calls for a discovery. Only a discovery takes a
    /// word back, because it knows whether the Sentinel is in TILT.
    pub(super) fn overhear(&self, from: &Speaker, shown: &Shown) -> bool {
        let was_down = self.missed.iter().any(|known| known.identity == from.identity);
        let is_over = self.fence.is_held_by(&from.identity) && !shown.has("failover_in_progress");
        is_over || shown.has("s_down") != was_down
    }

    /// A Sentinel reports the flag failover_in_progress.
    pub(super) fn flagged(&mut self, from: &Speaker, now: Instant) {
        self.fence.flagged(from, now);
    }

    /// Applies the flags that a discovery found, because an event can be missed (rule 5). `asked`: when its questions
    /// were sent.
    pub(super) fn heed(&mut self, words: &[Word], presence: &Presence, fences: bool, asked: Instant, now: Instant) {
        for word in words {
            if !word.tilt {
                set(&mut self.down, &word.sentinel, word.o_down);
                set(&mut self.missed, &word.sentinel, word.s_down);
            }
            match word.in_failover {
                Some(true) if fences => self.fence.flagged(&word.sentinel, now),
                None => {}
                _ if word.tilt => {}
                _ => self.fence.release(&word.sentinel.identity, Some(asked)),
            }
        }
        // Sentinels that are gone under that identity: nobody else takes their word back.
        self.fence.release_left(|who, announced| presence.has_left_calmly(who, announced), asked);
        for list in [&mut self.down, &mut self.missed] {
            list.retain(|known| !presence.has_left(&known.identity, &known.announced));
        }
    }

    /// What the holders of the fence are to be asked now, and when that changes.
    pub(super) fn agenda(&self, hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> (Option<Agenda>, Option<Instant>) {
        let holders: &[Holder] = self.fence.holders();
        (Agenda::of(holders, hears, now), Agenda::begins_at(holders).filter(|at| *at > now))
    }

    /// Applies the findings of an inquiry. `is_primary`: whether an address is that of the primary; `known`: the
    /// Sentinels of the deployment.
    pub(super) fn weigh(
        &mut self,
        findings: Vec<Finding>,
        is_primary: &dyn Fn(Option<&Endpoint>) -> bool,
        known: &[Identity],
        now: Instant,
    ) -> Findings {
        let (mut reason, mut is_back) = (None, false);
        for finding in findings {
            is_back |= matches!(finding, Finding::Back(_));
            reason = self.take_finding(finding, is_primary).or(reason);
        }
        let Self { fence, witnesses, .. } = self;
        for leader in fence.note_all_gone(|leader| witnesses.say_gone(leader, known, now)) {
            let text = format!("{leader}, which led the failover, is gone, and its candidate is a replica");
            reason = Some(Why::own(Cause::LeaderGone, text));
        }
        Findings { reason, is_back }
    }

    /// Applies one finding; the reason to report if it changes the fence.
    fn take_finding(&mut self, finding: Finding, is_primary: &dyn Fn(Option<&Endpoint>) -> bool) -> Option<Why> {
        let Self { fence, witnesses, .. } = self;
        match finding {
            // A view of another primary is about another failover. A missing flag is left to the next poll, which knows
            // whether the Sentinel is in TILT.
            Finding::Holder(_, _, shown)
                if !is_primary(shown.primary.as_ref()) || !shown.has("failover_in_progress") =>
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

    /// The candidate said that it is a replica; it was asked at this time.
    pub(super) fn candidate_is_replica(&mut self, announced: &Endpoint, asked: Instant) {
        self.demoted |= self.previous.as_ref() == Some(announced);
        self.witnesses.note_candidate(asked);
    }

    /// The candidate said that it is a primary (rule 8).
    pub(super) fn candidate_is_primary(&mut self, announced: &Endpoint) {
        self.says_primary = Some(announced.clone());
        self.fence.promoted();
    }

    /// The leader says that it has promoted the candidate.
    pub(super) fn commit(&mut self, candidate: &Endpoint) {
        self.committed = Some(candidate.clone());
    }

    /// Whether the candidate becomes the primary by its own word (rule 9). The word of its leader is enough beside it,
    /// because the user may not be allowed to ask which primary the Sentinels name.
    pub(super) fn takes_candidate(&self, policy: ProbePolicy) -> bool {
        match policy {
            ProbePolicy::Eager => true,
            ProbePolicy::Auto => self.is_dead() || (self.committed.is_some() && self.committed == self.says_primary),
            ProbePolicy::Off => false,
        }
    }

    /// Whether the primary is dead (rule 9): objectively down, or unreachable both for the leader of the failover and
    /// from here.
    fn is_dead(&self) -> bool {
        !self.down.is_empty()
            || (self.unreachable && self.missed.iter().any(|sentinel| self.fence.is_held_by(&sentinel.identity)))
    }

    /// The service has a new primary; `previous` is the old one.
    pub(super) fn switch(&mut self, previous: Option<Endpoint>, now: Instant) {
        (self.switched, self.previous) = (Some(now), previous);
        self.down.clear();
        self.missed.clear();
        (self.unreachable, self.says_primary, self.committed, self.demoted) = (false, None, None, false);
    }

    /// Whether this is the former primary, and has been demoted: that it says to be a primary means that it was promoted, and not that
    /// it was overlooked.
    pub(super) fn has_demoted(&self, announced: &Endpoint) -> bool {
        self.demoted && self.previous.as_ref() == Some(announced)
    }

    /// Nobody holds the fence any more, because of a switch.
    pub(super) fn clear_fence(&mut self) {
        self.fence.clear();
        self.witnesses = Witnesses::default();
    }

    /// Forgets what is older than `max`; when the fence will have been up for so long.
    pub(super) fn expires_at(&mut self, max: Duration, now: Instant) -> Option<Instant> {
        self.provisional.take_if(|since| now.saturating_duration_since(*since) > max);
        self.fence.forget_gone(max, now);
        self.fence.expires_at(max)
    }

    /// Ends a fence that has been up for too long.
    pub(super) fn expire(&mut self) {
        self.fence.expire();
        self.committed = None;
    }

    /// Judges the fence by what is known now. `why` gives the reason for a change.
    pub(super) fn judge(&mut self, known: &[Identity], now: Instant, why: &dyn Fn(Passage) -> Why) -> Judged {
        let passage = lease::passage(self.fence.holders(), &self.witnesses, known, now);
        self.fence.note(passage, now);
        let on = passage == Passage::Shut;
        let has_changed = std::mem::replace(&mut self.told_shut, on) != on;
        // The lease is the reason, whatever caused the check: a poll may be the first to notice it.
        let why = || match passage {
            Passage::Until(_) => {
                Why::own(Cause::OnLease, "on lease: the failover waits for its election, and the primary is up")
            }
            Passage::Open | Passage::Shut => why(passage),
        };
        Judged { passage, change: has_changed.then(|| (on, why())) }
    }
}

fn set(list: &mut Vec<Speaker>, sentinel: &Speaker, on: bool) {
    list.retain(|known| known.identity != sentinel.identity);
    if on {
        list.push(sentinel.clone());
    }
}

#[cfg(test)]
#[path = "failover_tests.rs"]
mod tests;
