//! The rules of judgement, case by case.

use super::*;
use crate::topology::answer::ServiceView;

fn at(name: &str) -> Endpoint {
    Endpoint::tcp(name, 6379).unwrap()
}

fn replica(name: &str) -> ReplicaAnswer {
    let flags = String::from("slave");
    ReplicaAnswer {
        announced: at(name),
        flags,
        link_ok: true,
        follows: None,
        offset: 0,
        priority: 100,
        announces: true,
    }
}

/// A Sentinel's answer: "address epoch [flags] [replica replica]".
fn says(text: &str) -> Answer {
    let mut words = text.split(' ');
    let primary = at(words.next().unwrap());
    let epoch = words.next().unwrap().parse().unwrap();
    let flags = words.next().unwrap_or("master").to_owned();
    let view = ServiceView { primary, epoch, flags, quorum: 2, replicas: words.map(replica).collect(), unlisted: None };
    Answer {
        id: None,
        tilt: false,
        heard: Heard::Known(view),
        peers: Vec::new(),
        services: Vec::new(),
        hides_services: false,
        refused: Vec::new(),
    }
}

/// The voices of these, out of so many known Sentinels.
fn heard(answers: &[Answer], all: usize) -> Vec<Voice<'_>> {
    voices(&answers.iter().enumerate().collect::<Vec<_>>(), all)
}

fn known(primary: &str, epoch: u64, replicas: &[&str]) -> Known {
    let replicas = replicas.iter().map(|name| at(name)).collect();
    Known { primary: Some(at(primary)), epoch, replicas, ..Known::default() }
}

fn decide(texts: &[&str], known: &Known) -> Decision {
    let answers: Vec<_> = texts.iter().map(|text| says(text)).collect();
    judge(&heard(&answers, texts.len()), known, texts.len(), 0)
}

/// The candidates as "address epoch address epoch", or the name of the refusal.
fn short(verdict: &Decision) -> String {
    match verdict {
        Decision::Candidates(list, _) => {
            let parts: Vec<_> = list
                .iter()
                .map(|one| format!("{} {}", one.primary.to_string().trim_end_matches(":6379"), one.epoch))
                .collect();
            parts.join(" ")
        }
        Decision::Refused(status, ..) => format!("{status:?}"),
    }
}

fn check(texts: &[&str], known: &Known, expected: &str) {
    let verdict = decide(texts, known);
    assert_eq!(short(&verdict), expected, "{texts:?}: {verdict:?}");
}

#[test]
fn nothing_known_before() {
    let nothing = Known::default();
    check(&["a 1", "a 1", "a 1"], &nothing, "a 1");
    check(&["a 1"], &nothing, "a 1");
    check(&["a 0"], &nothing, "a 0");
    check(&["a 1", "b 1"], &nothing, "SplitView");
    check(&["a 1", "b 2"], &nothing, "SplitView");
    check(&["a 1", "b 1", "c 1"], &nothing, "SplitView");
    check(&["a 1", "a 1", "b 1"], &nothing, "a 1");
    check(&["a 1", "a 1", "b 1", "b 1"], &nothing, "SplitView");
    check(&[], &nothing, "NoPrimary");
}

#[test]
fn the_highest_epoch_wins_when_it_is_no_stranger() {
    let before = known("a", 1, &["b", "c"]);
    check(&["a 1", "a 1", "b 2"], &before, "b 2 a 1");
    check(&["a 1", "b 2", "b 2"], &before, "b 2 a 1");
    check(&["a 1", "a 1", "x 2"], &before, "a 1");
    check(&["a 1", "x 2", "x 2"], &before, "x 2 a 1");
    // The same on a first start, if another Sentinel lists the promoted node as a replica.
    check(&["a 1 master b c", "a 1 master b c", "b 2"], &Known::default(), "b 2 a 1");
}

#[test]
fn a_liar_with_a_huge_epoch_changes_nothing() {
    let before = known("a", 7, &["b", "c"]);
    check(&["a 7", "a 7", "x 999999"], &before, "a 7");
    check(&["a 7", "x 999999"], &before, "a 7");
    // It names a replica: that node is asked for its ROLE, says replica, and the next candidate is taken.
    check(&["a 7", "a 7", "b 999999"], &before, "b 999999 a 7");
    // It raises the epoch of the old primary above a promotion, or above the right one.
    check(&["a 999999", "b 8", "b 8"], &before, "b 8 a 7");
    check(&["a 999999", "a 7", "b 8"], &before, "b 8 a 7");
    check(&["a 7", "a 7", "a 999999"], &before, "a 7");
    // It invents the address and the replica list.
    check(&["x 9 master x y", "a 7", "a 7"], &before, "a 7");
}

#[test]
fn scenario_22_a_stale_sentinel_is_ignored() {
    let before = known("b", 2, &["a", "c"]);
    check(&["a 1", "b 2", "b 2"], &before, "b 2");
    // Not even if it is alone for a moment.
    let alone = [says("a 1")];
    let refused = judge(&heard(&alone, 3), &before, 3, 0);
    assert!(
        matches!(&refused, Decision::Refused(Status::NoPrimary, why, None) if why.contains("stale")),
        "{refused:?}"
    );
    check(&["a 1", "b 2"], &before, "b 2");
}

#[test]
fn scenario_23_permanently_split_sentinels_two_win_against_one() {
    check(&["a 0 master b", "a 0 master b", "b 0 master a"], &known("a", 0, &["b"]), "a 0");
    check(&["a 0 master b", "a 0 master b", "b 0 master a"], &Known::default(), "a 0");
    let split = decide(&["a 0 master b", "b 0 master a"], &known("a", 0, &["b"]));
    let Decision::Refused(Status::SplitView, why, None) = split else { panic!("{split:?}") };
    assert!(why.contains("1 x a:6379 (epoch 0)") && why.contains("1 x b:6379 (epoch 0)"), "{why}");
}

#[test]
fn rule_3_epochs_restart_only_when_a_majority_agrees_twice() {
    let mut before = known("a", 9, &["b"]);
    let Decision::Refused(Status::NoPrimary, _, Some(proposal)) = decide(&["b 0", "b 0"], &before) else { panic!() };
    // Not within the time that Sentinels take to hear of a switch: the others may not know this one.
    before.proposed = Some((proposal.clone(), EPOCH_RESET_AFTER - Duration::from_millis(1)));
    let early = decide(&["b 0", "b 0"], &before);
    assert!(matches!(&early, Decision::Refused(Status::NoPrimary, _, Some(again)) if *again == proposal), "{early:?}");
    before.proposed = Some((proposal, EPOCH_RESET_AFTER));
    let Decision::Candidates(second, None) = decide(&["b 0", "b 0"], &before) else { panic!() };
    assert!(second[0].reset && second[0].epoch == 0);
    // Not if the second poll differs, if a Sentinel still names the known primary, or if only a part agrees.
    check(&["b 1", "b 1"], &before, "NoPrimary");
    check(&["b 0", "b 0", "a 9"], &before, "a 9");
    check(&["b 0", "c 0", "b 0", "c 0"], &before, "SplitView");
    // A majority of all known Sentinels, not of those that answer.
    assert_eq!(short(&judge(&heard(&[says("b 0"), says("b 0")], 4), &before, 4, 0)), "NoPrimary");
    assert_eq!(short(&judge(&heard(&[says("b 0"), says("b 0")], 3), &before, 3, 0)), "b 0");
    // An equal epoch is not newer.
    before = known("a", 9, &["b"]);
    check(&["b 9", "b 9"], &before, "NoPrimary");
    before.proposed = Some((Proposal { primary: at("b"), epoch: 9 }, EPOCH_RESET_AFTER));
    check(&["b 9", "b 9"], &before, "b 9");
}

#[test]
fn rule_3_the_epoch_of_the_known_primary_goes_back_no_sooner() {
    let mut before = known("a", 9, &["b"]);
    let Decision::Candidates(stays, Some(proposal)) = decide(&["a 3", "a 3"], &before) else { panic!() };
    assert!(stays[0].epoch == 9 && !stays[0].reset);
    before.proposed = Some((proposal.clone(), EPOCH_RESET_AFTER / 2));
    check(&["a 3", "a 3"], &before, "a 9");
    before.proposed = Some((proposal, EPOCH_RESET_AFTER));
    let Decision::Candidates(back, None) = decide(&["a 3", "a 3"], &before) else { panic!() };
    assert!(back[0].epoch == 3 && back[0].reset);
    // Not while a Sentinel still names the known epoch, not by less than a majority, not in TILT, and not behind a
    // candidate.
    let stays = |answers: &[Answer], known: &Known, all| {
        let verdict = judge(&heard(answers, all), known, all, 0);
        assert!(
            matches!(&verdict, Decision::Candidates(all, None) if all[0].epoch == 9 && !all[0].reset),
            "{verdict:?}"
        );
    };
    stays(&[says("a 9"), says("a 3"), says("a 3")], &before, 3);
    stays(&[says("a 3"), says("a 3")], &before, 4);
    stays(&[tilted("a 3"), tilted("a 3")], &before, 3);
    stays(&[says("a 3"), says("a 3")], &Known { provisional: true, ..before.clone() }, 3);
}

#[test]
fn rule_3_after_a_switch_there_and_back_sentinels_that_lag_behind_turn_nothing_back() {
    // b under 8, and a again under 9: one Sentinel knows both, one half of it, one nothing.
    let before = known("a", 9, &["b"]);
    check(&["a 9", "b 8", "a 7"], &before, "a 9");
    check(&["b 8", "a 7"], &before, "a 9");
    check(&["b 8", "b 8"], &before, "NoPrimary");
}

#[test]
fn an_unknown_address_from_a_single_sentinel_never_wins() {
    let before = known("a", 1, &["b"]);
    let answers = [says("x 2")];
    let verdict = judge(&heard(&answers, 3), &before, 3, 0);
    assert!(matches!(&verdict, Decision::Refused(Status::NoPrimary, _, None)), "{verdict:?}");
    // Unless it is the only Sentinel of the deployment, and says so twice.
    let Decision::Refused(_, _, Some(proposal)) = decide(&["x 2"], &before) else { panic!() };
    check(&["x 2"], &Known { proposed: Some((proposal, Duration::ZERO)), ..before.clone() }, "x 2");
    // Under an epoch that goes back it takes longer.
    let Decision::Refused(_, _, Some(proposal)) = decide(&["x 1"], &before) else { panic!() };
    check(
        &["x 1"],
        &Known { proposed: Some((proposal.clone(), EPOCH_RESET_AFTER / 2)), ..before.clone() },
        "NoPrimary",
    );
    check(&["x 1"], &Known { proposed: Some((proposal, EPOCH_RESET_AFTER)), ..before }, "x 1");
}

#[test]
fn those_who_cannot_be_believed_have_no_voice() {
    let mut tilted = says("x 9");
    tilted.tilt = true;
    let unknown = Answer { heard: Heard::Unknown, ..says("x 9") };
    let null = Answer { heard: Heard::NoAddress("names no address".into()), ..says("x 9") };
    let answers = [tilted, unknown, null, says("a 1")];
    let voices = heard(&answers, 4);
    assert_eq!(voices.iter().map(|voice| voice.index).collect::<Vec<_>>(), [3]);
    assert_eq!(short(&judge(&voices, &Known::default(), 4, 0)), "a 1");
}

#[test]
fn one_sentinel_under_two_addresses_has_one_voice() {
    let twice = |text| Answer { id: Some("same".into()), ..says(text) };
    let answers = [twice("x 9"), twice("x 9"), says("a 1"), says("a 1")];
    let voices = heard(&answers, 4);
    assert_eq!(voices.len(), 3);
    assert_eq!(short(&judge(&voices, &Known::default(), 4, 0)), "a 1");
}

#[test]
fn row_27_a_primary_that_most_hold_for_down_is_not_used() {
    for flag in ["o_down", "s_down", "disconnected"] {
        let down = format!("a 1 master,{flag}");
        let verdict = decide(&[&down, &down, "a 1"], &Known::default());
        assert!(matches!(&verdict, Decision::Refused(Status::NoPrimary, why, _) if why.contains(flag)), "{verdict:?}");
        check(&[&down, "a 1", "a 1"], &Known::default(), "a 1");
    }
    check(&["a 1 master,s_down_not", "a 1"], &Known::default(), "a 1");
}

#[test]
fn a_promoted_replica_needs_no_sentinel_that_is_connected_already() {
    let known = known("a", 1, &["b"]);
    check(&["b 2 master,disconnected", "b 2 master,disconnected"], &known, "b 2");
    let verdict = decide(&["b 2 master,s_down", "b 2 master,s_down"], &known);
    assert!(matches!(verdict, Decision::Refused(Status::NoPrimary, ..)), "{verdict:?}");
}

#[test]
fn row_19_enough_others_must_agree() {
    let answers = [says("a 1"), says("a 1"), says("b 1")];
    let voices = heard(&answers, 3);
    assert_eq!(short(&judge(&voices, &Known::default(), 3, 1)), "a 1");
    let verdict = judge(&voices, &Known::default(), 3, 2);
    assert!(
        matches!(&verdict, Decision::Refused(Status::NoPrimary, why, _) if why.contains("min_others")),
        "{verdict:?}"
    );
}

#[test]
fn waiting_ends_when_more_than_half_of_all_agree() {
    let settled = |texts: &[&str], all, min_others| {
        let answers: Vec<_> = texts.iter().map(|text| says(text)).collect();
        is_settled(&heard(&answers, all), |_| true, all, min_others)
    };
    assert!(settled(&["a 1", "a 1"], 3, 0));
    assert!(settled(&["a 1"], 1, 0));
    assert!(!settled(&["a 1"], 2, 0));
    assert!(!settled(&["a 1", "a 2"], 3, 0));
    assert!(!settled(&["a 1", "a 1", "b 2"], 4, 0));
    assert!(!settled(&["a 1", "a 1"], 3, 2));
    assert!(settled(&["a 2", "b 1", "a 2"], 3, 1));
    assert!(!settled(&[], 0, 0));
}

#[test]
fn who_does_not_decide_settles_nothing() {
    let answers = [says("a 1"), says("a 1"), says("a 1")];
    let voices = heard(&answers, 3);
    assert!(!is_settled(&voices, |voice| voice.index == 0, 3, 0), "one of three who decide");
    assert!(is_settled(&voices, |voice| voice.index < 2, 3, 2), "two of three, and two others agree");
}

fn tilted(text: &str) -> Answer {
    Answer { tilt: true, ..says(text) }
}

#[test]
fn tilt_counts_less_and_not_nothing() {
    let agree = [tilted("a 1"), tilted("a 1")];
    let nothing = Known::default();
    let decide = |answers: &[Answer], known: &Known, all, min_others| {
        short(&judge(&heard(answers, all), known, all, min_others))
    };
    assert_eq!(decide(&agree, &nothing, 3, 0), "a 1");
    let Decision::Candidates(found, _) = judge(&heard(&agree, 3), &nothing, 3, 0) else { panic!() };
    assert!(found[0].tilt);
    // Not half of all known Sentinels, not if they differ, not beside one that is not in TILT.
    assert_eq!(decide(&agree, &nothing, 4, 0), "NoPrimary");
    assert_eq!(decide(&[tilted("a 1"), tilted("a 1"), tilted("b 2")], &nothing, 3, 0), "NoPrimary");
    assert_eq!(decide(&[tilted("x 9"), tilted("x 9"), says("a 1")], &nothing, 3, 0), "a 1");
    // Not for min_others, nor for an epoch that goes back.
    assert_eq!(decide(&agree, &nothing, 2, 1), "NoPrimary");
    let mut before = known("a", 9, &["b"]);
    before.proposed = Some((Proposal { primary: at("b"), epoch: 0 }, EPOCH_RESET_AFTER));
    assert_eq!(decide(&[says("b 0"), says("b 0")], &before, 2, 0), "b 0");
    assert_eq!(decide(&[tilted("b 0"), tilted("b 0")], &before, 2, 0), "NoPrimary");
    // They wait for one that is not in TILT.
    assert!(!is_settled(&heard(&agree, 3), |_| true, 3, 0));
}

#[test]
fn one_id_that_contradicts_itself_is_no_two_voices() {
    let same = |text| Answer { id: Some("same".into()), ..says(text) };
    let of = |answers: &[Answer]| heard(answers, 3).iter().map(|voice| voice.index).collect::<Vec<_>>();
    assert_eq!(of(&[same("a 1"), same("b 2"), says("a 1")]), [1, 2], "its newer word");
    assert_eq!(of(&[same("b 2"), same("a 1")]), [0]);
    assert_eq!(of(&[same("a 1"), same("b 1"), says("c 1")]), [2], "neither is newer");
}
