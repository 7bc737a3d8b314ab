//! The returned maps match the tables from which STATISTICS.md, TOPOLOGY.md and EVENTS.md are written: every returned
//! key is in its table with that type, and every key of a table is returned. The events of all other tests are checked
//! against the tables as well (support/stage.rs).

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::time::Duration;

use calls::*;
use stage::tables::{Seen, check_event};
use stage::{SOON, Stage, Watch, stage};
use support::*;
use vigie::client::{stats_maps, stats_of};
use vigie::queue::kind;
use vigie::resp::Reply;
use vigie::time::Deadline;
use vigie::topology::{WATCHABLE, event_maps, topology_maps};

const NOPERM: &str = "NOPERM this user has no permissions to run this command";

#[test]
fn statistics_have_the_keys_of_their_tables() {
    let (stage, maps, mut seen) = (stage(1, &[]), stats_maps(), Seen::default());
    let client = to_primary(&stage.sentinel, &[]);
    seen.check(&client.stats().unwrap(), 0, &maps[0], &maps);
    assert!(!seen.keys.contains("pool.endpoint"), "no pool before the first call");
    ok(&client, "SET k v");
    let _heard = client.subscription(&completions::queue(1), 1, None).unwrap();
    assert!(cmd(&client, "SELECT 1").is_err(), "errors are listed by their status");
    for client in [client, to_replicas(&stage.sentinel, &[])] {
        let _ = cmd(&client, "GET k");
        seen.check(&client.stats().unwrap(), 0, &maps[0], &maps);
    }
    seen.check(&stats_of(&stage.sentinel).unwrap(), 0, &maps[4], &maps);
    seen.is_all_of(&maps);
    assert_eq!(seen.keys, seen.values, "none is ever null");
}

#[test]
fn topologies_have_the_keys_of_their_tables() {
    let (stage, maps, mut seen) = (stage(3, &[]), topology_maps(), Seen::default());
    let client = to_primary(&stage.sentinel, &[]);
    let mut look = |reply: &Reply| seen.check(reply, 0, &maps[0], &maps);
    look(&stage.sentinel.topology(Some("nobody-asked-for-it")).unwrap());
    look(&client.topology().unwrap());
    // One Sentinel does not answer a question, one is not heard, and all consider the replica down.
    stage.watch[0].fault("SENTINEL REPLICAS", Fault::Error(NOPERM.into()));
    for pattern in ["PSUBSCRIBE", "SUBSCRIBE"] {
        stage.watch[1].fault(pattern, Fault::Error(NOPERM.into()));
    }
    stage.watch[1].close_all();
    let deaf = |told: &stage::Told| told.is(kind::SENTINEL, &[("cause", "events_refused")]);
    stage.told.wait("it is not heard", SOON, deaf);
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.replicas[0].flags = "slave,s_down".into()));
    stage.polled();
    look(&client.topology().unwrap());
    let services = stage.sentinel.services(true, Deadline::after(SOON)).unwrap();
    seen.check(&services, services.find(0, SERVICE.as_bytes()).unwrap(), &maps[3], &maps);
    let mut look = |reply: &Reply| seen.check(reply, 0, &maps[0], &maps);
    stage.watch.iter().for_each(|one| one.down());
    assert!(stage.sentinel.refresh(Some(SERVICE), Deadline::after(Duration::from_millis(300))).is_err());
    let all = stage.sentinel.topology(None).unwrap();
    let ids: Vec<u32> = all.children(0).collect();
    assert_eq!(ids.len(), 2, "a map of one service");
    look(&all.subtree(ids[1]));
    seen.is_all_of(&maps);
    let unseen: Vec<_> = seen.keys.difference(&seen.values).collect();
    assert_eq!(unseen, ["deployment.error", "service.split_view", "service.suspected"], "without a value");
}

/// A second watch, which keeps the events as they come.
fn drain(watch: &Watch, seen: &mut Seen) {
    let mut events = Vec::new();
    watch.queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    events.iter().for_each(|event| check_event(event, seen));
}

#[test]
fn events_have_the_keys_of_their_tables_and_a_cause_that_is_listed() {
    let scene: Stage = stage(3, &[("monitor.interval", "200")]);
    let beside = Watch::kinds(&scene.sentinel, WATCHABLE, 8);
    scene.listened();
    scene.word(0, "+sdown");
    scene.told.wait_word("+sdown");
    scene.word_of_replica(0, "+sdown");
    scene.begin(1);
    scene.told.wait_fence(true, "+try-failover");
    scene.switch_all();
    scene.told.wait("the switch", SOON, stage::Told::is_switch);
    scene.watch.iter().for_each(|one| one.down());
    scene.told.wait("all are gone", SOON, |told| told.is(kind::DEGRADED, &[("on", "1"), ("cause", "lost")]));
    let mut seen = Seen::default();
    drain(&beside, &mut seen);
    let maps: Vec<_> = event_maps().into_iter().map(|(_, map)| map).collect();
    seen.is_all_of(&maps);
    let unseen: Vec<_> = seen.keys.difference(&seen.values).collect();
    assert_eq!(unseen, ["SENTINEL.service", "SENTINEL.text"], "they come with a split view (tests of deployments)");
}
