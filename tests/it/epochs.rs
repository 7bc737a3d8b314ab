//! Epochs that go back (rule 3): a switch is never undone by Sentinels that have not heard of it yet, and rebuilt
//! Sentinels are followed.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use stage::{SOON, Stage, Watch, at, stage};
use support::*;
use vigie::client::Client;
use vigie::queue::kind;
use vigie::time::Deadline;

/// The time between two polls that put an epoch back: the time that Sentinels take to tell each other of a switch.
const APART: Duration = Duration::from_secs(2);

/// A client with open connections, and all Sentinels subscribed to.
fn warm(stage: &Stage) -> Arc<Client> {
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k before");
    stage.listened();
    stage.p.clear_log();
    client
}

/// Sets what one Sentinel names.
fn names(one: &FakeSentinel, node: &FakeNode, epoch: u64) {
    one.service(SERVICE, |state| (state.port, state.epoch) = (node.port(), epoch));
}

/// Runs one discovery, whatever the Sentinels say.
fn poll(stage: &Stage) {
    let _ = stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON));
}

/// The client uses the replica whose promotion only the first Sentinel knows.
fn promoted(options: &[(&str, &str)]) -> Stage {
    let stage = stage(3, options);
    stage.promote();
    names(&stage.watch[0], &stage.r, 6);
    poll(&stage);
    stage.wait_primary(&stage.r.addr());
    stage
}

#[test]
fn rule_3_a_leader_that_is_too_slow_in_two_polls_is_not_overruled() {
    let stage = promoted(&[("timeout.sentinel", "150")]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k new");
    let asked = stage.watch[0].count("SENTINEL MASTER");
    // The polls are only a moment apart, and the others have not heard of the switch.
    stage.watch[0].fault_times("SENTINEL MASTER", 2, Fault::Delay(Duration::from_millis(600)));
    while stage.watch[0].count("SENTINEL MASTER") < asked + 2 {
        poll(&stage);
    }
    eventually("the leader answers again", SOON, || {
        stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).is_ok()
    });
    ok(&client, "SET k newer");
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.r.addr(), 1), "{:?}", stage.told.switches());
    assert_eq!((stage.r.count("SET"), stage.p.count("SET")), (2, 0));
}

#[test]
fn rule_3_two_polls_that_agree_count_only_when_none_between_them_says_otherwise() {
    let stage = promoted(&[("timeout.sentinel", "100")]);
    let began = Instant::now();
    while began.elapsed() < APART + Duration::from_millis(500) {
        let asked = stage.watch[0].count("SENTINEL MASTER");
        stage.watch[0].fault_times("SENTINEL MASTER", 1, Fault::Delay(Duration::from_millis(400)));
        while stage.watch[0].count("SENTINEL MASTER") == asked {
            poll(&stage);
        }
        eventually("the leader answers", SOON, || stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).is_ok());
    }
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.r.addr(), 1), "{:?}", stage.told.switches());
}

#[test]
fn rule_3_after_a_switch_there_and_back_sentinels_that_lag_behind_turn_nothing_back() {
    let stage = stage(3, &[]);
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.add_replica(&stage.p.addr())));
    stage.promote();
    names(&stage.watch[0], &stage.r, 6);
    poll(&stage);
    stage.wait_primary(&stage.r.addr());
    // A switch back to the first node; the second Sentinel knows the switch before, the third neither.
    names(&stage.watch[1], &stage.r, 6);
    names(&stage.watch[0], &stage.p, 7);
    poll(&stage);
    stage.wait_primary(&stage.p.addr());
    for _ in 0..4 {
        poll(&stage);
    }
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.p.addr(), 2), "{:?}", stage.told.switches());
    assert_eq!(stage.service().load().epoch, 7);
}

#[test]
fn rule_3_epochs_that_restart_are_followed_after_two_polls() {
    let stage = stage(3, &[("monitor.interval", "300")]);
    let client = warm(&stage);
    stage.promote();
    let began = Instant::now();
    for one in &stage.watch {
        names(one, &stage.r, 0);
        one.service(SERVICE, |state| state.replicas.clear());
    }
    let switch = stage.told.wait("a switch", SOON, |told| told.is_switch());
    assert_eq!((switch.get("reason"), switch.get("epoch")), ("epoch_reset", "0"));
    assert_eq!((switch.get("from"), switch.get("to")), (&*stage.p.addr(), &*stage.r.addr()));
    // Two polls a moment apart are not enough while the known primary says that it is one.
    assert!(
        switch.at.saturating_duration_since(began) >= APART,
        "after {:?}",
        switch.at.saturating_duration_since(began)
    );
    ok(&client, "SET k new");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET")), (1, 0));
}

#[test]
fn rule_3_a_lower_epoch_never_turns_back() {
    let stage = stage(3, &[("monitor.interval", "200")]);
    let client = warm(&stage);
    let after_switch = |one: &FakeSentinel, epoch: u64, addr: &str| {
        one.service(SERVICE, |state| {
            state.port = addr.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
            state.epoch = epoch;
        })
    };
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    // The old primary is back and says that it is one; a stale Sentinel names it again.
    after_switch(&stage.watch[0], 5, &stage.p.addr());
    stage.watch[0]
        .publish("+switch-master", &format!("{SERVICE} 127.0.0.1 {} 127.0.0.1 {}", stage.r.port(), stage.p.port()));
    let polls = |count: u64| {
        let from = stage.service().discovered();
        eventually("some polls", SOON, || stage.service().discovered() >= from + count);
    };
    polls(4);
    assert_eq!(at(&stage.service()), stage.r.addr());
    // Two of three, while a reachable Sentinel defends the known primary.
    after_switch(&stage.watch[1], 5, &stage.p.addr());
    polls(4);
    assert_eq!(at(&stage.service()), stage.r.addr());
    // Only the stale Sentinel is reachable: one of three is no majority.
    after_switch(&stage.watch[1], 6, &stage.r.addr());
    stage.watch[1].down();
    stage.watch[2].down();
    polls(4);
    assert_eq!(at(&stage.service()), stage.r.addr());
    ok(&client, "SET k new");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), stage.told.switches().len()), (1, 0, 1));
}

#[test]
fn rule_3_a_sentinel_that_answers_late_defends_the_known_primary() {
    let stage = stage(3, &[("monitor.interval", "200")]);
    stage.promote();
    stage.watch[0].service(SERVICE, |state| state.switch_to(&stage.r.addr()));
    stage.wait_primary(&stage.r.addr());
    // The others, which have not heard of it yet, are faster.
    stage.watch[0].fault("SENTINEL MASTER", Fault::Delay(Duration::from_millis(150)));
    let from = stage.service().discovered();
    eventually("some polls", SOON, || stage.service().discovered() >= from + 5);
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.r.addr(), 1));
}

#[test]
fn rule_3_a_restart_of_epochs_that_keeps_the_primary_is_told_and_then_failovers_are_followed_at_once() {
    let stage = stage(3, &[("monitor.interval", "300")]);
    let client = warm(&stage);
    stage.watch.iter().for_each(|one| names(one, &stage.p, 0));
    let about = stage.told.wait("it is told", SOON, |told| told.is(kind::NOTICE, &[("reason", "epoch_reset")]));
    assert_eq!((about.get("primary"), about.get("epoch")), (&*stage.p.addr(), "0"));
    assert_eq!(stage.told.switches().len(), 0);
    stage.promote();
    names(&stage.watch[0], &stage.r, 1);
    poll(&stage);
    let switch = stage.told.wait("a switch", SOON, |told| told.is_switch());
    assert_eq!((switch.get("to"), switch.get("epoch")), (&*stage.r.addr(), "1"), "{switch:?}");
    assert_ne!(switch.get("reason"), "epoch_reset");
    ok(&client, "SET k new");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET")), (1, 0));
}

#[test]
fn rule_3_real_sentinels_that_are_told_of_another_primary_are_followed() {
    let d = Deployment::new("rebuilt").start();
    let before = d.failover(SERVICE);
    let old = d.wait_switched(SERVICE, &before);
    let sentinel = sentinel_of(&d, &[("monitor.interval", "500")]);
    let (client, told) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k old");
    let service = sentinel.service(SERVICE);
    eventually("the epoch of the failover is known", SOON, || service.load().epoch == 1);
    let new = d.replica_nodes(SERVICE).into_iter().find(|node| node.addr() != old.addr()).expect("a replica");
    for one in d.sentinel_nodes() {
        assert!(one.cmd(&["SENTINEL", "REMOVE", SERVICE]).is_ok());
    }
    assert!(new.cmd(&["REPLICAOF", "NO", "ONE"]).is_ok());
    for one in d.sentinel_nodes() {
        assert!(one.cmd(&["SENTINEL", "MONITOR", SERVICE, "127.0.0.1", &new.port().to_string(), "2"]).is_ok());
    }
    let switch = told.wait("a switch", deployment::PATIENCE, |told| told.is_switch());
    assert_eq!((switch.get("reason"), switch.get("epoch")), ("epoch_reset", "0"));
    assert_eq!((switch.get("from"), switch.get("to")), (&*old.addr(), &*new.addr()));
    assert_eq!(old.role_word(), "master", "it went on as a primary");
    ok(&client, "SET k new");
    assert_eq!(new.cmd(&["GET", "k"]).text(), "new");
}
