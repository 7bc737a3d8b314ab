//! The fence: which Sentinels announced a failover, how far it is, and whether writes are held back for it (rules 5 to
//! 8). No I/O.
//!
//! Guarantees: the fence goes up with the first word of any Sentinel; each Sentinel counts once, under however many
//! addresses it speaks; the fence comes down when each of them has taken its word back, by a verified switch, when it
//! has been up for `failover.fence_max`, or on lease (see `lease`). Leaves to others: asking the Sentinels (inquiry),
//! and the calls that wait (transition).

use std::time::{Duration, Instant};

use super::identity::{Identity, Speaker};
use crate::config::Endpoint;
use crate::time::Passage;

/// The fence of one service.
#[derive(Debug, Default)]
pub struct Fence {
    /// The Sentinels that announced a failover.
    holders: Vec<Holder>,
    up_since: Option<Instant>,
    /// The holders when the fence expired: they do not count until they announce a failover again.
    expired: Vec<Identity>,
}

/// A Sentinel that announced a failover.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) sentinel: Identity,
    /// Where it was heard.
    pub(super) announced: Endpoint,
    /// When this attempt was announced, or first heard of.
    pub(super) since: Instant,
    pub(super) stage: Stage,
}

/// The progress of its failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It may still wait for its election; with the time at which the last question was sent that it answered so.
    Tries(Option<Instant>),
    /// It was elected, or does not say.
    Leads,
    /// It was elected, and is gone without having promoted a replica.
    Gone,
}

impl Fence {
    /// Whether a Sentinel holds it; writes may pass on lease all the same.
    pub fn is_held(&self) -> bool {
        !self.holders.is_empty()
    }

    /// Whether this Sentinel holds it.
    pub fn is_held_by(&self, sentinel: &Identity) -> bool {
        self.holders.iter().any(|holder| holder.sentinel == *sentinel)
    }

    /// A Sentinel begins an attempt: what was known of an earlier one does not apply to it.
    pub fn attempt(&mut self, from: &Speaker, now: Instant) {
        self.release(&from.identity, None);
        self.hold(from, now, Stage::Tries(None));
    }

    /// A Sentinel continues a failover: it was elected.
    pub fn lead(&mut self, from: &Speaker, now: Instant) {
        self.expired.retain(|held| *held != from.identity);
        self.hold(from, now, Stage::Leads).stage = Stage::Leads;
    }

    /// A Sentinel reports the flag failover_in_progress; that is nothing new if its failover has expired.
    pub fn flagged(&mut self, from: &Speaker, now: Instant) {
        if !self.expired.contains(&from.identity) {
            self.hold(from, now, Stage::Tries(None));
        }
    }

    fn hold(&mut self, from: &Speaker, since: Instant, stage: Stage) -> &mut Holder {
        let known = self.holders.iter().position(|holder| holder.sentinel == from.identity);
        let place = known.unwrap_or_else(|| {
            let Speaker { identity: sentinel, announced } = from.clone();
            self.holders.push(Holder { sentinel, announced, since, stage });
            self.holders.len() - 1
        });
        &mut self.holders[place]
    }

    /// A Sentinel answered whether it waits for its election; the question was sent at `sent`.
    pub fn testify(&mut self, sentinel: &Identity, sent: Instant, waits: bool) {
        let asked = |holder: &&mut Holder| holder.sentinel == *sentinel && sent >= holder.since;
        if let Some(holder) = self.holders.iter_mut().find(asked) {
            holder.stage = match holder.stage {
                Stage::Tries(last) if waits => Stage::Tries(last.max(Some(sent))),
                // An older answer does not undo a won election.
                _ => Stage::Leads,
            };
        }
    }

    /// Marks elected Sentinels that are gone; returns those that were not marked before.
    pub fn note_all_gone(&mut self, is_gone: impl Fn(&Identity) -> bool) -> Vec<Endpoint> {
        let leaders = self.holders.iter_mut().filter(|holder| holder.stage == Stage::Leads);
        let gone = leaders.filter(|holder| is_gone(&holder.sentinel));
        gone.map(|holder| {
            holder.stage = Stage::Gone;
            holder.announced.clone()
        })
        .collect()
    }

    /// A Sentinel that was gone is back.
    pub fn note_back(&mut self, sentinel: &Identity) {
        let gone = |holder: &&mut Holder| holder.stage == Stage::Gone && holder.sentinel == *sentinel;
        self.holders.iter_mut().filter(gone).for_each(|holder| holder.stage = Stage::Leads);
    }

    /// The candidate is a primary: a leader that is gone has promoted it.
    pub fn promoted(&mut self) {
        for holder in self.holders.iter_mut().filter(|holder| holder.stage == Stage::Gone) {
            holder.stage = Stage::Leads;
        }
    }

    /// A Sentinel aborted its failover, or did not report the flag when it was asked at `asked`.
    pub fn release(&mut self, sentinel: &Identity, asked: Option<Instant>) {
        self.expired.retain(|held| held != sentinel);
        self.holders.retain(|holder| holder.sentinel != *sentinel || asked.is_some_and(|asked| holder.since >= asked));
    }

    /// Releases Sentinels that have left, by answers to questions sent at `asked`.
    pub fn release_left(&mut self, has_left: impl Fn(&Identity, &Endpoint) -> bool, asked: Instant) {
        self.holders.retain(|holder| holder.since >= asked || !has_left(&holder.sentinel, &holder.announced));
    }

    /// A switch was verified.
    pub fn clear(&mut self) {
        self.holders.clear();
        self.expired.clear();
    }

    /// The Sentinels that hold it.
    pub(super) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Notes whether writes may pass now: while they may not, the fence is up.
    pub fn note(&mut self, passage: Passage, now: Instant) {
        match passage {
            Passage::Shut => drop(self.up_since.get_or_insert(now)),
            Passage::Open | Passage::Until(_) => self.up_since = None,
        }
    }

    /// When it will have been up for too long.
    pub fn expires_at(&self, max: Duration) -> Option<Instant> {
        self.up_since.map(|since| since + max)
    }

    /// Ends it because it has been up for too long.
    pub fn expire(&mut self) {
        self.expired.extend(self.holders.drain(..).map(|holder| holder.sentinel));
    }

    /// Forgets Sentinels that have been gone for so long.
    pub fn forget_gone(&mut self, max: Duration, now: Instant) {
        self.holders.retain(|holder| holder.stage != Stage::Gone || now.saturating_duration_since(holder.since) <= max);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::{self, Witnesses};
    use super::*;

    fn at(port: u16) -> Identity {
        Identity::Id(port.to_string())
    }

    fn by(port: u16) -> Speaker {
        Speaker { identity: at(port), announced: Endpoint::tcp("10.0.0.1", port).unwrap() }
    }

    fn is_up(fence: &mut Fence, now: Instant) -> bool {
        let passage = lease::passage(&fence.holders, &Witnesses::default(), &[], now);
        fence.note(passage, now);
        passage != Passage::Open
    }

    #[test]
    fn it_stays_up_until_all_who_spoke_have_taken_it_back() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        assert!(!is_up(&mut fence, now));
        fence.attempt(&by(1), now);
        fence.lead(&by(2), now);
        fence.release(&at(1), None);
        assert!(is_up(&mut fence, now));
        fence.release(&at(2), None);
        assert!(!is_up(&mut fence, now) && !fence.is_held());
    }

    #[test]
    fn a_switch_clears_it_and_an_expiry_lasts_until_the_next_word() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        fence.attempt(&by(1), now);
        fence.clear();
        assert!(!is_up(&mut fence, now));
        for speak in [Fence::attempt, Fence::lead] {
            fence.attempt(&by(1), now);
            assert!(is_up(&mut fence, now));
            assert_eq!(fence.expires_at(Duration::from_secs(1)), Some(now + Duration::from_secs(1)));
            fence.expire();
            fence.flagged(&by(1), now);
            assert!(!is_up(&mut fence, now) && fence.expires_at(Duration::ZERO).is_none());
            speak(&mut fence, &by(1), now);
            assert!(is_up(&mut fence, now));
        }
    }

    #[test]
    fn a_missing_flag_releases_only_what_was_held_before_the_question() {
        let (mut fence, now) = (Fence::default(), Instant::now());
        fence.flagged(&by(1), now);
        fence.release(&at(1), Some(now));
        assert!(is_up(&mut fence, now));
        fence.release(&at(1), Some(now + Duration::from_millis(1)));
        assert!(!is_up(&mut fence, now));
    }
}
