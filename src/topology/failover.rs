//! What is known of a failover of one service, and what follows from each word about it (rules 4 to 9). No I/O, no lock.
//!
//! Guarantees: the fence goes up with the first word and comes down by a verified switch, by all taking it back, or by time; what others
//! have to be told comes back to the caller. Leaves to others: hearing the words (monitor), verifying (discovery), and what follows for
//! calls and watchers (transition).

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

/// For so long after a switch, and while one is under way, a replica's link and lag count as known before (rule 32).
const GRACE: Duration = Duration::from_secs(10);
/// For so long after a switch the Sentinels are polled often, because the old primary will join the replicas.
const POLLED_FAST: Duration = Duration::from_secs(40);

/// What is known of the failover that is under way.
#[derive(Default)]
pub(super) struct Failover {
    fence: Fence,
    witnesses: Witnesses,
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
    switched: Option<Instant>,
    /// The primary before that one, as announced: replicas may follow it for a while yet.
    pub(super) previous: Option<Endpoint>,
}

/// How the fence stands.
pub(super) struct Judged {
    /// What writes may pass.
    pub(super) passage: Passage,
    /// Whether writes are held back now, and why, if the opposite was told last.
    pub(super) change: Option<(bool, Why)>,
}

/// What asking has shown.
pub(super) struct Findings {
    /// Why the fence moves, if it does by that.
    pub(super) reason: Option<Why>,
    /// The leader of the failover was gone, and is back.
    pub(super) is_back: bool,
}

impl Failover {
    /// Whether the Sentinels are to be polled often.
    pub(super) fn polls_fast(&self, now: Instant) -> bool {
        self.fence.is_held() || self.provisional.is_some() || self.has_switched_within(POLLED_FAST, now)
    }

    /// Whether links and lag count as known before.
    pub(super) fn in_grace(&self, now: Instant) -> bool {
        self.fence.is_held()
            || self.provisional.is_some()
            || !self.down.is_empty()
            || self.has_switched_within(GRACE, now)
    }

    fn has_switched_within(&self, span: Duration, now: Instant) -> bool {
        self.switched.is_some_and(|since| now.saturating_duration_since(since) < span)
    }

    /// Whether anybody holds the fence, though writes may pass for the moment.
    pub(super) fn is_held(&self) -> bool {
        self.fence.is_held()
    }

    /// Whether writes were last told to be held back.
    pub(super) fn is_told_shut(&self) -> bool {
        self.told_shut
    }

    /// Whether any Sentinel holds the primary for down.
    #[cfg(test)]
    pub(super) fn holds_for_down(&self) -> bool {
        !self.down.is_empty() || !self.missed.is_empty()
    }

    /// A Sentinel speaks of a failover of the primary: it begins one, or goes on with it.
    pub(super) fn hear(&mut self, from: &Speaker, begins: bool, now: Instant) {
        match begins {
            true => self.fence.attempt(from, now),
            false => self.fence.lead(from, now),
        }
    }

    /// A Sentinel has given its failover up.
    pub(super) fn take_back(&mut self, from: &Speaker) {
        self.fence.release(&from.identity, None);
    }

    /// A Sentinel holds the primary for objectively down, or not any more.
    pub(super) fn note_down(&mut self, from: &Speaker, is_down: bool) {
        set(&mut self.down, from, is_down);
    }

    /// The same of a Sentinel that speaks for itself alone.
    pub(super) fn note_missed(&mut self, from: &Speaker, is_down: bool) {
        set(&mut self.missed, from, is_down);
    }

    /// A Sentinel that was asked because its events may not be heard shows the primary so; whether that calls for a discovery, which alone
    /// takes something back, because it knows whether the Sentinel is in TILT.
    pub(super) fn overhear(&self, from: &Speaker, shown: &Shown) -> bool {
        let was_down = self.missed.iter().any(|known| known.identity == from.identity);
        let is_over = self.fence.is_held_by(&from.identity) && !shown.has("failover_in_progress");
        is_over || shown.has("s_down") != was_down
    }

    /// A Sentinel shows the flag of a failover in progress.
    pub(super) fn flagged(&mut self, from: &Speaker, now: Instant) {
        self.fence.flagged(from, now);
    }

    /// What the Sentinels' flags in a discovery, whose questions went out at `asked`, say of a failover: an event can be missed (rule 5).
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
        // What those have said who are not there any more under that identity: nobody else will take it back.
        self.fence.release_left(|who, announced| presence.has_left_calmly(who, announced), asked);
        for list in [&mut self.down, &mut self.missed] {
            list.retain(|known| !presence.has_left(&known.identity, &known.announced));
        }
    }

    /// What the Sentinels that hold the fence call to be asked, and when that will have changed.
    pub(super) fn agenda(&self, hears: &dyn Fn(&Endpoint) -> bool, now: Instant) -> (Option<Agenda>, Option<Instant>) {
        let holders: &[Holder] = self.fence.holders();
        (Agenda::of(holders, hears, now), Agenda::begins_at(holders).filter(|at| *at > now))
    }

    /// What was found by asking. `is_primary`: whether an address is the present primary's; `known`: the Sentinels of the deployment.
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

    /// What is told of it, if the fence moves by it.
    fn take_finding(&mut self, finding: Finding, is_primary: &dyn Fn(Option<&Endpoint>) -> bool) -> Option<Why> {
        let Self { fence, witnesses, .. } = self;
        match finding {
            // What it says of another primary is about another failover; that it shows none any more is found by the next poll, which
            // knows whether it is in TILT.
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

    /// The candidate, asked then, says that it is a replica.
    pub(super) fn candidate_is_replica(&mut self, asked: Instant) {
        self.witnesses.note_candidate(asked);
    }

    /// The candidate says that it is a primary (rule 8).
    pub(super) fn candidate_is_primary(&mut self, announced: &Endpoint) {
        self.says_primary = Some(announced.clone());
        self.fence.promoted();
    }

    /// Whether the candidate is taken at its word (rule 9).
    pub(super) fn takes_candidate(&self, policy: ProbePolicy) -> bool {
        match policy {
            ProbePolicy::Eager => true,
            ProbePolicy::Auto => self.is_dead(),
            ProbePolicy::Off => false,
        }
    }

    /// Whether the primary is dead (rule 9): objectively down, or lost by who leads the failover, and from here.
    fn is_dead(&self) -> bool {
        !self.down.is_empty()
            || (self.unreachable && self.missed.iter().any(|sentinel| self.fence.is_held_by(&sentinel.identity)))
    }

    /// The service has another primary than this one.
    pub(super) fn switch(&mut self, previous: Option<Endpoint>, now: Instant) {
        (self.switched, self.previous) = (Some(now), previous);
        self.down.clear();
        self.missed.clear();
        (self.unreachable, self.says_primary) = (false, None);
    }

    /// A switch was verified, or a candidate was taken: nobody holds the fence any more.
    pub(super) fn clear_fence(&mut self) {
        self.fence.clear();
        self.witnesses = Witnesses::default();
    }

    /// Forgets what is older than `max`; when the fence will have been up for so long, if it is up.
    pub(super) fn expires_at(&mut self, max: Duration, now: Instant) -> Option<Instant> {
        self.provisional.take_if(|since| now.saturating_duration_since(*since) > max);
        self.fence.forget_gone(max, now);
        self.fence.expires_at(max)
    }

    /// Brings the fence down because it has been up for too long.
    pub(super) fn expire(&mut self) {
        self.fence.expire();
    }

    /// How the fence stands now; `why` says why it moves, where it does.
    pub(super) fn judge(&mut self, known: &[Identity], now: Instant, why: &dyn Fn(Passage) -> Why) -> Judged {
        let passage = lease::passage(self.fence.holders(), &self.witnesses, known, now);
        self.fence.note(passage, now);
        let on = passage == Passage::Shut;
        let has_changed = std::mem::replace(&mut self.told_shut, on) != on;
        // Whatever had the fence looked at: a poll may be the first to find that it is on lease.
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
