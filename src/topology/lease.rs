//! When the fence may come down although a Sentinel tries to fail over: while it cannot have won its election, or if it
//! was elected and is gone (step 4, point 5). No I/O; the caller gives the time.
//!
//! Guarantees: only answers to questions that were sent after the attempt was announced count. From `wait_start` to the
//! promotion a Sentinel needs at least two rounds of its timer, 52 to 100 ms each: a lease of [`LASTS`] from the time
//! when the question was *sent* ends before that. Leaves to others: asking (inquiry), and what a lease means for a
//! write (call, lane).

use std::time::{Duration, Instant};

use super::fence::{Holder, Stage};
use super::identity::Identity;
use crate::time::Passage;

/// No lease earlier after the announcement of an attempt: a planned failover is elected within this time.
pub const FROM: Duration = Duration::from_millis(150);
/// The duration of a lease, from the time when the question was sent.
pub const LASTS: Duration = Duration::from_millis(50);
/// Answers of the others that are older than this do not count.
const FRESH: Duration = Duration::from_secs(1);

/// What the other Sentinels and the nodes say, each with the time at which it was asked.
#[derive(Debug, Default)]
pub struct Witnesses {
    sentinels: Vec<Witness>,
    /// When the primary said that it is one.
    primary: Option<Instant>,
    /// When the candidate said that it is a replica.
    candidate: Option<Instant>,
    /// Sentinels that refused a connection, and when the dial began.
    refused: Vec<(Identity, Instant)>,
}

/// What a Sentinel that does not hold the fence says.
#[derive(Debug)]
pub struct Witness {
    /// The Sentinel.
    pub sentinel: Identity,
    /// When the question was sent.
    pub asked: Instant,
    /// It is not in TILT, and considers the primary neither down nor in a failover.
    pub sees_primary: bool,
    /// The Sentinels that it considers down or is not connected to.
    pub misses: Vec<Identity>,
}

impl Witnesses {
    /// A Sentinel has answered.
    pub fn hear(&mut self, witness: Witness) {
        self.sentinels.retain(|known| known.sentinel != witness.sentinel);
        self.sentinels.push(witness);
    }

    /// The primary said whether it is one; it was asked at this time.
    pub fn note_primary(&mut self, asked: Instant, is_master: bool) {
        self.primary = is_master.then_some(asked);
    }

    /// The candidate said that it is a replica; it was asked at this time.
    pub fn note_candidate(&mut self, asked: Instant) {
        self.candidate = Some(asked);
    }

    /// A Sentinel refused a connection; the dial began at this time.
    pub fn note_refused(&mut self, sentinel: &Identity, begun: Instant) {
        self.refused.retain(|(known, _)| known != sentinel);
        self.refused.push((sentinel.clone(), begun));
    }

    /// A Sentinel that was gone has answered.
    pub fn note_back(&mut self, sentinel: &Identity) {
        self.refused.retain(|(known, _)| known != sentinel);
    }

    /// Whether more than half of the Sentinels, except those of `but`, say so in recent answers to questions sent after
    /// `after`.
    fn most_of_others(
        &self,
        known: &[Identity],
        but: &dyn Fn(&Identity) -> bool,
        after: Instant,
        now: Instant,
        say: &dyn Fn(&Witness) -> bool,
    ) -> bool {
        let counts = |witness: &&Witness| {
            witness.asked >= after && now.saturating_duration_since(witness.asked) <= FRESH && say(witness)
        };
        let others = || known.iter().filter(|sentinel| !but(sentinel));
        let yes =
            others().filter(|other| self.sentinels.iter().filter(counts).any(|witness| witness.sentinel == **other));
        yes.count() * 2 > others().count()
    }

    /// Whether a Sentinel that was elected is gone, and its candidate is still a replica.
    pub fn say_gone(&self, leader: &Identity, known: &[Identity], now: Instant) -> bool {
        let refused = self.refused.iter().find(|(sentinel, _)| sentinel == leader);
        refused.is_some_and(|(_, begun)| {
            self.candidate.is_some_and(|asked| asked >= *begun)
                && self.most_of_others(known, &|sentinel| sentinel == leader, *begun, now, &|witness| {
                    witness.misses.contains(leader)
                })
        })
    }

    /// Whether the primary is up, according to the others and to itself, all asked after this time.
    fn say_up(&self, holders: &[Holder], known: &[Identity], after: Instant, now: Instant) -> bool {
        let recently = |asked: Instant| asked >= after && now.saturating_duration_since(asked) <= FRESH;
        let holds = |sentinel: &Identity| holders.iter().any(|holder| holder.sentinel == *sentinel);
        self.primary.is_some_and(recently)
            && self.most_of_others(known, &holds, after, now, &|witness| witness.sees_primary)
    }
}

/// Whether writes may pass while these Sentinels hold the fence.
pub(super) fn passage(holders: &[Holder], witnesses: &Witnesses, known: &[Identity], now: Instant) -> Passage {
    let mut end: Option<Instant> = None;
    let mut since: Option<Instant> = None;
    for holder in holders {
        match holder.stage {
            Stage::Gone => {}
            Stage::Tries(Some(asked)) if now >= holder.since + FROM && now < asked + LASTS => {
                end = Some(end.map_or(asked + LASTS, |end| end.min(asked + LASTS)));
                since = since.max(Some(holder.since));
            }
            Stage::Tries(_) | Stage::Leads => return Passage::Shut,
        }
    }
    match (end, since) {
        (Some(end), Some(since)) if witnesses.say_up(holders, known, since, now) => Passage::Until(end),
        (Some(_), _) => Passage::Shut,
        (None, _) => Passage::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::Fence;
    use super::super::identity::Speaker;
    use super::*;
    use crate::config::Endpoint;

    fn at(port: u16) -> Identity {
        Identity::Id(port.to_string())
    }

    fn by(port: u16) -> Speaker {
        Speaker { identity: at(port), announced: Endpoint::tcp("10.0.0.1", port).unwrap() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three Sentinels, of which the first tries since `begun`; it was asked 160 ms later, like the others: a lease is
    /// due.
    struct Case {
        fence: Fence,
        witnesses: Witnesses,
        known: Vec<Identity>,
        begun: Instant,
    }

    fn case(sentinels: u16) -> Case {
        let (mut fence, begun) = (Fence::default(), Instant::now());
        fence.attempt(&by(1), begun);
        fence.testify(&at(1), begun + ms(160), true);
        let mut case = Case { fence, witnesses: Witnesses::default(), known: (1..=sentinels).map(at).collect(), begun };
        case.witnesses.note_primary(begun + ms(160), true);
        (2..=sentinels).for_each(|port| case.hear(port, 160, true));
        case
    }

    impl Case {
        fn hear(&mut self, port: u16, asked: u64, sees_primary: bool) {
            let asked = self.begun + ms(asked);
            self.witnesses.hear(Witness { sentinel: at(port), asked, sees_primary, misses: Vec::new() });
        }

        fn at(&mut self, now: u64) -> Passage {
            let now = self.begun + ms(now);
            let passage = passage(self.fence.holders(), &self.witnesses, &self.known, now);
            self.fence.note(passage, now);
            passage
        }
    }

    #[test]
    fn a_sentinel_that_waits_for_its_election_holds_nothing_back_while_the_others_see_the_primary() {
        let mut case = case(3);
        let end = Passage::Until(case.begun + ms(210));
        assert_eq!([case.at(161), case.at(209)], [end, end]);
        assert_eq!(case.at(210), Passage::Shut, "it ends 50 ms after the question was sent");
        case.fence.testify(&at(1), case.begun + ms(220), true);
        assert_eq!(case.at(221), Passage::Until(case.begun + ms(270)));
    }

    #[test]
    fn no_lease_in_the_time_in_which_a_planned_failover_is_elected() {
        let mut case = case(3);
        case.fence.attempt(&by(1), case.begun + ms(50));
        case.fence.testify(&at(1), case.begun + ms(170), true);
        case.witnesses.note_primary(case.begun + ms(170), true);
        assert_eq!(case.at(199), Passage::Shut);
        assert_eq!(case.at(200), Passage::Until(case.begun + ms(220)));
    }

    #[test]
    fn all_have_to_be_asked_after_the_attempt_was_announced() {
        for stale in 0..3 {
            let mut case = case(3);
            case.fence.attempt(&by(1), case.begun + ms(200));
            let asked = |fresh: bool| if fresh { 360 } else { 199 };
            case.fence.testify(&at(1), case.begun + ms(asked(stale != 0)), true);
            case.witnesses.note_primary(case.begun + ms(asked(stale != 1)), true);
            case.hear(2, asked(stale != 2), true);
            case.hear(3, 360, true);
            assert_eq!(case.at(361), Passage::Shut, "{stale}");
        }
    }

    #[test]
    fn more_than_half_of_the_others_have_to_see_the_primary() {
        for (sentinels, blind, passes) in [(3, 1, false), (3, 0, true), (5, 1, true), (5, 2, false), (2, 1, false)] {
            let mut case = case(sentinels);
            (2..2 + blind).for_each(|port| case.hear(port, 161, false));
            assert_eq!(case.at(170) != Passage::Shut, passes, "{blind} of {sentinels}");
        }
        let mut alone = case(1);
        assert_eq!(alone.at(170), Passage::Shut, "nobody else is there to say so");
        let mut stranger = case(3);
        stranger.known.push(at(9));
        stranger.hear(3, 161, false);
        stranger.hear(7, 161, true);
        assert_eq!(stranger.at(170), Passage::Shut, "who is no member does not count");
    }

    #[test]
    fn two_that_are_cut_off_of_five_leave_three_to_say_that_the_primary_is_up() {
        let mut case = case(5);
        case.hear(2, 161, false);
        assert!(case.at(170) != Passage::Shut, "one tries, the other sees it down");
        case.fence.attempt(&by(2), case.begun);
        assert_eq!(case.at(170), Passage::Shut, "every one that tries has to be asked");
        case.fence.testify(&at(2), case.begun + ms(155), true);
        assert_eq!(case.at(170), Passage::Until(case.begun + ms(205)), "the first of both to end");
    }

    #[test]
    fn a_primary_that_is_none_or_does_not_say_so_gets_no_lease() {
        let mut case = case(3);
        case.witnesses.note_primary(case.begun + ms(165), false);
        assert_eq!(case.at(170), Passage::Shut);
    }

    #[test]
    fn a_won_election_ends_it_for_this_attempt() {
        let mut case = case(3);
        assert!(case.at(170) != Passage::Shut);
        case.fence.lead(&by(1), case.begun + ms(171));
        case.fence.testify(&at(1), case.begun + ms(165), true);
        case.fence.flagged(&by(1), case.begun + ms(172));
        assert_eq!(case.at(172), Passage::Shut);
        case.fence.attempt(&by(1), case.begun + ms(1000));
        assert_eq!(case.at(1000), Passage::Shut);
    }

    #[test]
    fn another_state_ends_it_and_so_does_a_server_that_tells_none() {
        let mut case = case(3);
        case.fence.testify(&at(1), case.begun + ms(180), false);
        case.fence.testify(&at(1), case.begun + ms(190), true);
        assert_eq!(case.at(195), Passage::Shut);
    }

    #[test]
    fn time_on_lease_is_not_time_held_back() {
        let mut case = case(3);
        assert_eq!(case.at(10), Passage::Shut);
        assert_eq!(case.fence.expires_at(ms(0)), Some(case.begun + ms(10)));
        case.at(170);
        assert_eq!(case.fence.expires_at(ms(0)), None);
        case.at(300);
        assert_eq!(case.fence.expires_at(ms(0)), Some(case.begun + ms(300)));
    }

    #[test]
    fn what_the_others_said_long_ago_counts_no_more() {
        let mut case = case(3);
        case.fence.testify(&at(1), case.begun + ms(1190), true);
        assert_eq!(case.at(1191), Passage::Shut);
    }

    /// A leader that was elected and refuses a dial begun at 300 ms; its candidate is a replica.
    fn dead_leader(misses: &[(u16, u64)], candidate: u64) -> Case {
        let mut case = case(3);
        case.fence.lead(&by(1), case.begun + ms(200));
        case.witnesses.note_refused(&at(1), case.begun + ms(300));
        case.witnesses.note_candidate(case.begun + ms(candidate));
        for (port, asked) in misses {
            let asked = case.begun + ms(*asked);
            case.witnesses.hear(Witness { sentinel: at(*port), asked, sees_primary: true, misses: vec![at(1)] });
        }
        case
    }

    #[test]
    fn a_leader_that_died_holds_nothing_back_if_its_candidate_was_not_promoted() {
        let both = [(2, 310), (3, 310)];
        for (misses, candidate, gone) in [
            (&both[..], 310, true),
            (&both[..1], 310, false),
            (&both[..], 290, false),
            (&[(2, 290), (3, 310)][..], 310, false),
        ] {
            let mut case = dead_leader(misses, candidate);
            let now = case.begun + ms(320);
            let says = case.witnesses.say_gone(&at(1), &case.known, now);
            assert_eq!(says, gone, "{misses:?} {candidate}");
            case.fence.note_all_gone(|_| says);
            assert_eq!(case.at(320) == Passage::Open, gone);
        }
        let mut alive = dead_leader(&both, 310);
        alive.witnesses.note_back(&at(1));
        assert!(!alive.witnesses.say_gone(&at(1), &alive.known, alive.begun + ms(320)));
    }

    #[test]
    fn the_candidates_word_or_the_leaders_answer_raises_it_again() {
        for back in [Fence::promoted as fn(&mut Fence), |fence| fence.note_back(&at(1))] {
            let mut case = dead_leader(&[(2, 310), (3, 310)], 310);
            case.fence.note_all_gone(|leader| *leader == at(1));
            assert_eq!(case.at(320), Passage::Open);
            back(&mut case.fence);
            assert_eq!(case.at(321), Passage::Shut);
        }
        let mut case = dead_leader(&[], 310);
        case.fence.note_all_gone(|leader| *leader == at(1));
        case.fence.forget_gone(ms(1000), case.begun + ms(999));
        assert!(case.fence.is_held());
        case.fence.forget_gone(ms(1000), case.begun + ms(1001));
        assert!(!case.fence.is_held());
    }

    #[test]
    fn one_that_tries_beside_one_that_is_gone_needs_its_own_lease() {
        let mut case = dead_leader(&[(2, 310), (3, 310)], 310);
        case.fence.note_all_gone(|leader| *leader == at(1));
        case.fence.attempt(&by(2), case.begun + ms(320));
        assert_eq!(case.at(600), Passage::Shut);
    }
}
