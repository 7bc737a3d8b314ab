//! The fence on lease: a Sentinel that cannot win its election does not hold back writes again and again (step 4, point
//! 5).

use crate::calls;
use crate::stage;
use crate::support;
use crate::writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calls::*;
use stage::{SOON, Stage, Watch, stage};
use support::*;
use vigie::client::Client;
use vigie::queue::kind;
use vigie::time::Deadline;

/// A client with open connections, and all Sentinels subscribed to.
fn warm(stage: &Stage) -> Arc<Client> {
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k before");
    stage.listened();
    client
}

/// The state of the leader's failover, as it reports it; empty: it does not.
fn state(stage: &Stage, leader: usize, state: &str) {
    stage.watch[leader].service(SERVICE, |service| service.failover_state = state.into());
}

/// What the other Sentinels report of this one.
fn seen_as(stage: &Stage, sentinel: usize, flags: &str) {
    let port = stage.watch[sentinel].port();
    for one in &stage.watch {
        one.service(SERVICE, |service| {
            service.peers.iter_mut().filter(|peer| peer.port == port).for_each(|peer| peer.flags = flags.into());
        });
    }
}

/// The reported reasons of the fence, in order.
fn fences(stage: &Stage) -> Vec<(bool, String)> {
    let fences = stage.told.all().into_iter().filter(|told| told.kind == kind::FENCE);
    fences.map(|told| (told.get("on") == "1", told.get("reason").to_owned())).collect()
}

/// The fence goes up with the next attempt and comes down by its own time, never on lease.
#[track_caller]
fn held_to_the_end(stage: &Stage) {
    stage.told.wait_fence(false, "fence_expired");
    let told = fences(stage);
    assert!(told.iter().all(|(_, reason)| !reason.contains("on lease")), "{told:?}");
}

#[test]
fn writes_pass_while_a_sentinel_waits_for_its_election_and_the_others_see_the_primary() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    for _ in 0..2 {
        state(&stage, 0, "wait_start");
        stage.begin(0);
        stage.told.wait_fence(true, "+try-failover");
        // Longer than one lease: it is renewed.
        for _ in 0..40 {
            ok(&client, "INCR n");
            std::thread::sleep(Duration::from_millis(5));
        }
        stage.abort(0, "not-elected");
        eventually("nobody holds it", SOON, || !stage.service().is_fenced() && stage.service().lease().is_none());
    }
    stage.told.wait_fence(false, "on lease");
    assert_eq!((ok(&client, "GET n"), stage.told.switches().len()), ("80".into(), 0));
}

/// The first check after the lease begins reports it: usually a poll.
#[test]
fn a_poll_that_finds_the_fence_on_lease_tells_that() {
    let stage = stage(3, &[]);
    let _client = warm(&stage);
    let over = Arc::new(AtomicBool::new(false));
    let polls = {
        let (sentinel, over) = (Arc::clone(&stage.sentinel), Arc::clone(&over));
        spawn(move || {
            while !over.load(Ordering::Acquire) {
                sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
            }
        })
    };
    for _ in 0..5 {
        let before = fences(&stage).len();
        state(&stage, 0, "wait_start");
        stage.begin(0);
        // What was told of the attempt before may come a moment later.
        let of_this_one = || fences(&stage).into_iter().skip(before).skip_while(|(on, _)| !on).collect::<Vec<_>>();
        eventually("it is on lease", SOON, || of_this_one().iter().any(|(on, _)| !on));
        let told = of_this_one();
        assert!(told.iter().all(|(on, reason)| *on || reason.contains("on lease")), "{told:?}");
        stage.abort(0, "not-elected");
        eventually("nobody holds it", SOON, || !stage.service().is_fenced() && stage.service().lease().is_none());
    }
    over.store(true, Ordering::Release);
    join(&polls);
}

/// A stage whose failover was on lease until its Sentinel told that it had won: by its state, or by this event while its state stays
/// as before. On a busy machine the lease may be over before that is heard: then another stage tries.
fn won(end: &str, word: &str) -> (Stage, Arc<Client>) {
    let expected = if word.is_empty() { format!("in the state {end}") } else { word.to_owned() };
    let mut reasons = Vec::new();
    while reasons.len() < 10 {
        let stage = stage(3, &[]);
        let client = warm(&stage);
        state(&stage, 0, "wait_start");
        stage.begin(0);
        stage.told.wait_fence(false, "on lease");
        if word.is_empty() {
            state(&stage, 0, end);
        } else {
            stage.word(0, word);
        }
        let reason = eventually_some("the fence is up again", SOON, || {
            let told = fences(&stage);
            let on_lease = told.iter().position(|(on, _)| !on)?;
            told[on_lease..].iter().find(|(on, _)| *on).map(|(_, reason)| reason.clone())
        });
        if reason.contains(&expected) {
            return (stage, client);
        }
        assert!(reason.contains("the lease is over"), "{expected}: {reason}");
        reasons.push(reason);
    }
    panic!("{expected}: {reasons:?}");
}

#[test]
fn a_won_election_ends_the_lease() {
    for (end, word) in [("", "+elected-leader"), ("", "+failover-state-select-slave"), ("select_slave", "")] {
        let (stage, _client) = won(end, word);
        let asked = stage.watch[0].count("SENTINEL MASTER");
        state(&stage, 0, "wait_start");
        stage.word(0, "+kit-nothing");
        stage.told.wait_word("+kit-nothing");
        assert!(stage.service().is_fenced(), "for this attempt: {:?}", fences(&stage));
        state(&stage, 0, "wait_start");
        stage.begin(0);
        stage.watch[0].wait_count("SENTINEL MASTER", asked + 2, SOON);
        eventually("another attempt, another lease", SOON, || !stage.service().is_fenced());
    }
}

#[test]
fn a_lease_ends_by_the_clock_when_the_sentinel_answers_no_more() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    state(&stage, 0, "wait_start");
    stage.begin(0);
    stage.told.wait_fence(false, "on lease");
    stage.watch[0].fault("SENTINEL MASTER", Fault::Stall);
    eventually("the lease is over", SOON, || stage.service().is_fenced() && stage.service().lease().is_none());
    let held = fails(vigie::error::Status::Fenced, within(&client, "SET k v", 30));
    for part in ["held back", "nothing was sent, try again", "more time", "SET for"] {
        assert!(held.message().contains(part), "{part}: {held}");
    }
}

#[test]
fn a_server_that_does_not_tell_its_state_gets_no_lease() {
    let stage = stage(3, &[("failover.fence_max", "1000")]);
    let _client = warm(&stage);
    stage.begin(0);
    held_to_the_end(&stage);
}

#[test]
fn without_most_of_the_others_there_is_no_lease() {
    for case in ["s_down", "o_down", "failover_in_progress", "tilt", "silent", "role", "elsewhere"] {
        let stage = stage(3, &[("failover.fence_max", "1000"), ("monitor.interval", "60000")]);
        let _client = warm(&stage);
        let other = &stage.watch[1];
        match case {
            "tilt" => other.state(|state| state.tilt = true),
            "silent" => other.fault("SENTINEL MASTER", Fault::Stall),
            "role" => stage.p.fault("ROLE", Fault::Stall),
            "elsewhere" => other.service(SERVICE, |service| service.port += 1),
            flag => other.service(SERVICE, |service| service.flags = format!("master,{flag}")),
        }
        state(&stage, 0, "wait_start");
        stage.begin(0);
        let told = stage.told.wait("the end", SOON, |told| {
            told.kind == kind::FENCE && told.get("on") == "0" && told.get("reason") == "fence_expired"
        });
        assert!(fences(&stage).iter().all(|(_, reason)| !reason.contains("on lease")), "{case}: {told:?}");
    }
}

#[test]
fn five_sentinels_of_which_two_are_cut_off_and_both_try() {
    let stage = stage(5, &[]);
    let client = warm(&stage);
    for cut in [0, 1] {
        state(&stage, cut, "wait_start");
        stage.flags(cut, "s_down,o_down,master");
        stage.begin(cut);
    }
    stage.told.wait_fence(false, "on lease");
    ok(&client, "SET k v");
    stage.word(1, "+elected-leader");
    stage.told.wait_fence(true, "+elected-leader");
}

#[test]
fn five_real_sentinels_of_which_two_are_cut_off_hold_writes_for_a_moment_in_each_attempt() {
    if !netns::available() {
        return;
    }
    let deployment = Deployment::new("cutoff").network(Layout::Apart).replicas(1).sentinels(5).quorum(2);
    let deployment = deployment.down_after(500).failover_timeout(2000).start();
    let sentinel = sentinel_of(&deployment, &[]);
    let told = Watch::on(&sentinel);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    for one in deployment.sentinel_nodes() {
        let addr = one.addr();
        told.wait("it is up", SOON, |told| told.is(kind::SENTINEL, &[("sentinel", &addr), ("up", "1")]));
    }
    let sentinels = deployment.sentinel_nodes();
    let (cut, others) = sentinels.split_at(2);
    let writer = writer::Writer::start(&client, 5000);
    writer.wait(1);
    // They agree that the primary is down, but two votes of five elect nobody.
    let attempts = || cut.iter().map(|one| one.logged("+try-failover ")).sum::<usize>();
    let pacing = Pacing::start();
    for one in cut {
        let rest = others.iter().cloned().chain(deployment.data_nodes(SERVICE));
        rest.for_each(|node| one.netns().cut_off(node.host()));
    }
    eventually("three attempts", deployment::PATIENCE, || attempts() >= 3);
    let ended = || cut.iter().map(|one| one.logged("-failover-abort-not-elected ")).sum::<usize>();
    eventually("the last of them ends", deployment::PATIENCE, || ended() >= 3);
    let pace = pacing.stop();
    let written = writer.stop();
    assert!(written.errors.is_empty(), "{:?}", written.errors);
    // At most 0.3 s on a quiet machine; without a lease it is the whole attempt, 2 s.
    pace.judge("an attempt held writes back, which", written.longest_gap(), Duration::from_secs(1));
    told.wait_fence(true, "+try-failover");
    told.wait_fence(false, "on lease");
    assert_eq!((told.switches().len(), deployment.promotions()), (0, 0));
    assert!(written.missing(&deployment.primary_node(SERVICE)).is_empty());
}

#[test]
fn a_leader_that_dies_before_it_promoted_anybody_holds_nothing_back() {
    let stage = stage(3, &[("monitor.interval", "60000")]);
    let client = warm(&stage);
    stage.begin(0);
    stage.word(0, "+elected-leader");
    stage.select(0);
    stage.told.wait_word("+selected-slave");
    stage.r.wait_count("ROLE", 1, SOON);
    stage.watch[0].down();
    stage.told.wait("the Sentinel is lost", SOON, |told| told.is(kind::SENTINEL, &[("up", "0")]));
    let asked = stage.watch[1].count("SENTINEL SENTINELS");
    stage.watch[1].wait_count("SENTINEL SENTINELS", asked + 2, SOON);
    assert!(stage.service().is_fenced(), "the others still hear it");
    seen_as(&stage, 0, "sentinel,disconnected");
    stage.told.wait_fence(false, "is gone, and its candidate is a replica");
    ok(&client, "SET k v");
    // It had sent its command nevertheless.
    stage.promote();
    stage.told.wait_fence(true, "the candidate says that it is a primary");
}

#[test]
fn a_leader_that_comes_back_raises_the_fence_until_it_shows_no_failover() {
    let stage = stage(3, &[("monitor.interval", "60000")]);
    let client = warm(&stage);
    stage.begin(0);
    stage.select(0);
    stage.told.wait_word("+selected-slave");
    stage.watch[0].down();
    seen_as(&stage, 0, "sentinel,s_down");
    stage.told.wait_fence(false, "is gone, and its candidate is a replica");
    stage.watch[0].up();
    stage.told.wait_fence(true, "the leader of the failover is back");
    stage.flags(0, "master");
    eventually("it shows no failover", SOON, || !stage.service().is_fenced());
    ok(&client, "SET k v");
}

#[test]
fn a_planned_failover_on_a_sentinel_in_tilt_holds_nothing_back() {
    let deployment = Deployment::new("tilt").start();
    let sentinel = sentinel_of(&deployment, &[]);
    let told = Watch::on(&sentinel);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET n 0");
    let node = &deployment.sentinel_nodes()[0];
    // A stop of more than 2 s puts it into TILT.
    node.stop();
    std::thread::sleep(Duration::from_millis(2500));
    node.cont();
    eventually("it is in TILT", SOON, || node.cmd(&["INFO", "sentinel"]).text().contains("sentinel_tilt:1"));
    eventually("it begins a failover", SOON, || node.cmd(&["SENTINEL", "FAILOVER", SERVICE]).is_ok());
    // By the event, or by the flag if the Sentinel was considered lost meanwhile.
    told.wait_fence(true, "");
    told.wait_fence(false, "on lease");
    for _ in 0..50 {
        ok(&client, "INCR n");
    }
    assert_eq!((ok(&client, "GET n").as_str(), told.switches().len()), ("50", 0));
}

/// The next poll finds another identity at the address of the holder: the one that spoke is gone for good.
fn released(change: impl Fn(&FakeSentinel)) {
    let stage = stage(3, &[("failover.fence_max", "60000")]);
    let client = warm(&stage);
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    stage.flags(0, "master");
    change(&stage.watch[0]);
    ok(&client, "SET k v");
    stage.told.wait_fence(false, "failover_in_progress");
}

#[test]
fn a_sentinel_that_restarts_with_another_id_holds_nothing_back() {
    released(|one| {
        one.state(|state| state.id = "f".repeat(40));
        one.close_all();
    });
}

#[test]
fn a_sentinel_that_does_not_tell_its_id_any_more_holds_nothing_back() {
    released(|one| {
        one.fault("SENTINEL MYID", Fault::Error("NOPERM this user has no permissions".into()));
        one.close_all();
    });
}

#[test]
fn a_sentinel_that_does_not_watch_the_service_any_more_holds_nothing_back() {
    released(|one| one.state(|state| state.services.clear()));
}
