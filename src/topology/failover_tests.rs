//! What follows from each word about a failover, without a socket and by a clock that the test sets.

use super::*;

fn at(port: u16) -> Endpoint {
    Endpoint::tcp("10.0.0.1", port).unwrap()
}

fn by(port: u16) -> Speaker {
    Speaker { identity: Identity::Id(port.to_string()), announced: at(port) }
}

fn word(port: u16, in_failover: Option<bool>) -> Word {
    Word { sentinel: by(port), in_failover, o_down: false, s_down: false, tilt: false }
}

fn shown(flags: &str, state: &str) -> Shown {
    Shown { primary: Some(at(1)), flags: flags.into(), failover_state: Some(state.into()) }
}

/// Judges the fence; whether writes are held back from now on, if that has to be reported.
fn told(failover: &mut Failover, now: Instant) -> Option<bool> {
    let why = Why::own(Cause::FailoverInProgress, "a test");
    failover.judge(&[], now, &|_| why.clone()).change.map(|(on, _)| on)
}

#[test]
fn the_first_word_shuts_the_fence_and_the_last_that_is_taken_back_opens_it() {
    let (mut failover, now) = (Failover::default(), Instant::now());
    assert_eq!(told(&mut failover, now), None);
    failover.hear(&by(7), true, now);
    assert_eq!(told(&mut failover, now), Some(true));
    failover.hear(&by(8), false, now);
    assert_eq!(told(&mut failover, now), None, "it is told once");
    failover.take_back(&by(7));
    assert_eq!(told(&mut failover, now), None);
    failover.take_back(&by(8));
    assert_eq!(told(&mut failover, now), Some(false));
    assert!(!failover.is_held() && !failover.is_told_shut());
}

#[test]
fn flags_take_back_only_what_they_may() {
    let now = Instant::now();
    let later = now + Duration::from_millis(1);
    let tilted = Word { tilt: true, ..word(7, Some(false)) };
    for (heard, asked, opens) in [
        (word(7, Some(false)), later, true),
        (word(7, Some(false)), now, false), // asked before it spoke
        (word(7, None), later, false),      // it names another primary: a verified switch ends it
        (tilted, later, false),
        (word(8, Some(false)), later, false),
    ] {
        let mut failover = Failover::default();
        failover.hear(&by(7), true, now);
        failover.heed(&[heard], &Presence::default(), true, asked, later);
        assert_eq!(failover.is_held(), !opens);
    }
    for fences in [true, false] {
        let mut failover = Failover::default();
        failover.heed(&[word(7, Some(true))], &Presence::default(), fences, now, now);
        assert_eq!(failover.is_held(), fences, "failover.fence");
    }
}

#[test]
fn a_candidate_is_taken_at_its_word_when_the_primary_is_dead() {
    type Case = (&'static str, fn(&mut Failover), bool);
    let cases: [Case; 5] = [
        ("nothing was said", |_| {}, false),
        ("objectively down", |failover| failover.note_down(&by(8), true), true),
        ("not any more", |failover| (failover.note_down(&by(8), true), failover.note_down(&by(8), false)).1, false),
        (
            "lost by another than the leader, and from here",
            |failover| {
                failover.unreachable = true;
                failover.note_missed(&by(8), true);
            },
            false,
        ),
        (
            "lost by the leader, and from here",
            |failover| {
                failover.unreachable = true;
                failover.note_missed(&by(7), true);
            },
            true,
        ),
    ];
    for (what, say, dead) in cases {
        let mut failover = Failover::default();
        failover.hear(&by(7), false, Instant::now());
        say(&mut failover);
        failover.candidate_is_primary(&at(2));
        assert_eq!(failover.takes_candidate(ProbePolicy::Auto), dead, "{what}");
        assert!(failover.takes_candidate(ProbePolicy::Eager) && !failover.takes_candidate(ProbePolicy::Off));
    }
}

#[test]
fn a_candidate_is_taken_at_its_word_and_its_leaders() {
    let takes = |say: fn(&mut Failover)| {
        let mut failover = Failover::default();
        failover.hear(&by(7), false, Instant::now());
        say(&mut failover);
        (failover.takes_candidate(ProbePolicy::Auto), failover.takes_candidate(ProbePolicy::Off))
    };
    assert_eq!(takes(|failover| failover.commit(&at(2))), (false, false));
    let another = |failover: &mut Failover| (failover.commit(&at(3)), failover.candidate_is_primary(&at(2))).1;
    assert_eq!(takes(another), (false, false));
    let both = |failover: &mut Failover| (failover.commit(&at(2)), failover.candidate_is_primary(&at(2))).1;
    assert_eq!(takes(both), (true, false));
    let earlier = |failover: &mut Failover| {
        failover.commit(&at(2));
        failover.expire();
        failover.candidate_is_primary(&at(2));
    };
    assert_eq!(takes(earlier), (false, false), "the fence's time was over");
}

#[test]
fn a_switch_ends_what_was_said_of_the_primary_before() {
    let (mut failover, now) = (Failover::default(), Instant::now());
    failover.hear(&by(7), false, now);
    failover.note_down(&by(8), true);
    failover.note_missed(&by(7), true);
    failover.unreachable = true;
    failover.candidate_is_primary(&at(2));
    assert_eq!(told(&mut failover, now), Some(true));
    failover.switch(Some(at(1)), now);
    assert!(failover.is_held() && !failover.holds_for_down() && !failover.unreachable, "the fence is another matter");
    assert_eq!((failover.says_primary.clone(), failover.previous.clone()), (None, Some(at(1))));
    failover.clear_fence();
    assert_eq!(told(&mut failover, now), Some(false));
    assert!(failover.in_grace(now) && failover.polls_fast(now));
    assert!(!failover.in_grace(now + GRACE) && failover.polls_fast(now + GRACE));
    assert!(!failover.polls_fast(now + POLLED_FAST));
}

#[test]
fn a_sentinel_that_is_asked_calls_for_a_discovery_when_it_takes_something_back_or_sees_something_new() {
    let mut failover = Failover::default();
    assert!(!failover.overhear(&by(7), &shown("master", "none")));
    assert!(failover.overhear(&by(7), &shown("master,s_down", "none")), "it holds the primary for down");
    failover.note_missed(&by(7), true);
    assert!(!failover.overhear(&by(7), &shown("master,s_down", "none")));
    assert!(failover.overhear(&by(7), &shown("master", "none")), "and not any more");
    failover.note_missed(&by(7), false);
    failover.flagged(&by(7), Instant::now());
    assert!(!failover.overhear(&by(7), &shown("master,failover_in_progress", "wait_start")));
    assert!(failover.overhear(&by(7), &shown("master", "none")), "its failover is over");
}

#[test]
fn a_finding_about_another_primary_changes_nothing() {
    let now = Instant::now();
    let later = now + Duration::from_millis(1);
    for (is_primary, flags, state, cause) in [
        (true, "master,failover_in_progress", "select_slave", Some("election_over")),
        (true, "master,failover_in_progress", "wait_start", None),
        (true, "master", "select_slave", None),
        (false, "master,failover_in_progress", "select_slave", None),
    ] {
        let mut failover = Failover::default();
        failover.hear(&by(7), true, now);
        let finding = Finding::Holder(by(7).identity, later, shown(flags, state));
        let found = failover.weigh(vec![finding], &|_| is_primary, &[], later);
        assert_eq!(found.reason.as_ref().map(Why::cause), cause, "{is_primary} {flags} {state}");
        assert!(!found.is_back && failover.is_held());
    }
    let mut failover = Failover::default();
    let found = failover.weigh(vec![Finding::Back(by(7).identity)], &|_| true, &[], now);
    assert!(found.is_back && found.reason.is_some_and(|why| why.cause() == "leader_back"));
}

#[test]
fn a_fence_that_is_up_for_too_long_comes_down_and_a_candidate_is_not_provisional_forever() {
    let (mut failover, now) = (Failover::default(), Instant::now());
    let max = Duration::from_secs(60);
    assert_eq!(failover.expires_at(max, now), None);
    failover.hear(&by(7), false, now);
    assert_eq!(told(&mut failover, now), Some(true));
    failover.provisional = Some(now);
    assert_eq!(failover.expires_at(max, now + max), Some(now + max));
    assert!(failover.provisional.is_some());
    failover.expire();
    assert_eq!(told(&mut failover, now + max), Some(false));
    assert_eq!(failover.expires_at(max, now + max * 2), None);
    assert!(failover.provisional.is_none());
}
