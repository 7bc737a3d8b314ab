//! Section F: several services of the same Sentinels.

use super::figures::Outcome;
use super::probe::{Habits, Probe, Seen, list_of};
use super::rig::{Handle, Rig, Stage, await_stream_of, word};
use crate::calls::{self, SERVICE};
use crate::stage;
use crate::support::{Deployment, Node, Scripted, ServiceState, Value, eventually, proc};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie::client::{Client, Target};
use vigie::time::Deadline;
use vigie::topology::Service;

scenarios! {
    scenario_77_services_fail_over_in_turn(77, "planned failovers of many services", in_turn, needs_root: false);
    scenario_78_one_of_very_many_services(78, "primary gone, one of 2,000 services", one_of_many, needs_root: false);
}

/// Writers of each service.
const WRITERS: usize = 8;
/// Sentinels turn the old primary into a replica 8 s after the switch.
const REJOINED: Duration = Duration::from_secs(60);

fn in_turn(rig: &Rig) -> Outcome {
    let (services, rounds, replicas) = rig.pick((3, 2, 1), (10, 20, 2));
    let names: Vec<String> = (0..services).map(service_name).collect();
    let stage = rig.stage(rig.deployment("in-turn").services(names.clone()).replicas(replicas), &[]);
    // All Sentinels soon know that the old primary is a replica again.
    stage.deployment.sentinel_debug("info-period", rig.pick(500, 1000));
    let probes: Vec<(String, String, Probe)> = names.iter().flat_map(|name| write_to(&stage.handle, name)).collect();
    std::thread::scope(|scope| {
        for (index, name) in names.iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || {
                // Some failovers at a time, and not all.
                std::thread::sleep(Duration::from_millis(700) * index as u32);
                for round in 0..rounds {
                    let (old, new) = fail_over(&stage.deployment, name, index + round);
                    if !rig.is_full() {
                        // The Sentinels would say it 8 s later.
                        assert!(old.cmd(&["REPLICAOF", new.host(), &new.port().to_string()]).is_ok());
                    }
                    await_replicas(&stage.deployment, name, &new, replicas);
                }
            });
        }
    });
    let seen = Seen::of_all(probes.into_iter().map(|(service, key, probe)| {
        let deployment = &stage.deployment;
        probe.stop_with(|| list_of(&deployment.settled_primary(&service), &key))
    }));
    finish(stage, &names, rounds, &seen)
}

fn service_name(index: usize) -> String {
    if index == 0 { SERVICE.to_owned() } else { format!("service-{index}") }
}

/// Starts the writers of a service: its name, the key of each, the writer.
fn write_to(handle: &Handle, service: &str) -> Vec<(String, String, Probe)> {
    let client = Client::open(&handle.sentinel, Some(service), Target::Primary, None).expect("a lazy client");
    let start = |writer| {
        let key = format!("torture-{writer}");
        let habits = Habits { key: key.clone(), pace: Duration::from_millis(15), reads: false, ..Habits::default() };
        (service.to_owned(), key, Probe::start(&Arc::clone(&client), habits))
    };
    (0..WRITERS).map(start).collect()
}

/// One planned failover, led by each Sentinel in turn: the old primary and the new one.
fn fail_over(deployment: &Deployment, service: &str, turn: usize) -> (Arc<Node>, Arc<Node>) {
    let sentinels = deployment.sentinel_nodes();
    let old = deployment.failover_by(service, &sentinels[turn % sentinels.len()]);
    let new = deployment.wait_switched(service, &old);
    (old, new)
}

/// Waits until the old primary and the other replicas follow the new one, and all Sentinels know it: one that has not seen the replica as
/// such makes it a replica again as soon as it is promoted.
fn await_replicas(deployment: &Deployment, service: &str, primary: &Node, replicas: usize) {
    let follows = |entry: &Value| {
        entry.field("role-reported").as_deref() == Some("slave")
            && entry.field("flags").as_deref() == Some("slave")
            && entry.field("master-link-status").as_deref() == Some("ok")
    };
    eventually(&format!("all Sentinels know the replicas of {service}"), REJOINED, || {
        deployment.sentinel_nodes().iter().all(|sentinel| {
            let listed = sentinel.cmd(&["SENTINEL", "REPLICAS", service]);
            listed.items().len() == replicas && listed.items().iter().all(follows)
        })
    });
    await_stream_of(primary, replicas, REJOINED);
}

fn finish(stage: Stage, services: &[String], rounds: usize, seen: &Seen) -> Outcome {
    let switches = stage.handle.switches();
    if switches.len() != services.len() * rounds || seen.lost > 0 {
        // Whether the Sentinels or the library went astray.
        let logs = stage.deployment.sentinel_nodes().iter().map(|one| one.log_tail(200)).collect::<Vec<_>>();
        eprintln!("{}\n{}", stage.story(), logs.join("\n---\n"));
    }
    let mut outcome = stage.close();
    outcome.take(seen);
    for service in services {
        let of_it = switches.iter().filter(|heard| word(&heard.text, "service") == service);
        let count = of_it.count();
        outcome.must(&format!("{rounds} switches of {service}"), count == rounds, count.to_string());
    }
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    let (failovers, written) = (services.len() * rounds, seen.acknowledged());
    outcome.note(format!("{failovers} failovers, {written} writes acknowledged"));
    outcome
}

/// One service of very many on one handle loses its primary. The Sentinels are scripted: real ones share no work between services, and
/// 2,000 of them would take more than this machine has.
fn one_of_many(rig: &Rig) -> Outcome {
    let services = rig.pick(200, 2000);
    let mut outcome = Outcome::default();
    let alone = after_promotion(0, &mut outcome);
    let among = after_promotion(services - 1, &mut outcome);
    outcome.expect_ms("from the promotion to the next write", among, 100.0);
    outcome.expect_ms("beyond that of a service alone", among - alone, 50.0);
    outcome.note(format!("{services} services; {alone:.1} ms alone"));
    outcome
}

/// How long after the promotion the next write is acknowledged, in ms, with so many other services on the handle.
fn after_promotion(others: usize, outcome: &mut Outcome) -> f64 {
    let stage = stage::stage(3, &[("monitor.interval", "5000")]);
    stage.listened();
    let _used = use_others(&stage, others);
    let client = calls::to_primary(&stage.sentinel, &[]);
    calls::ok(&client, "SET k v");
    stage.p.down();
    for one in 0..3 {
        stage.flags(one, "master,s_down,o_down");
        stage.word(one, "+odown");
    }
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "");
    let (sender, receiver) = std::sync::mpsc::channel();
    proc::thread("kit-writer", move || {
        let written = calls::within(&client, "SET k after", 20_000).map(|_| Instant::now());
        sender.send(written).expect("somebody waits for it");
    });
    // The writer waits at the gate, and polls of the others go on.
    std::thread::sleep(Duration::from_millis(300));
    let promoted = Instant::now();
    stage.promote();
    let written = receiver.recv().expect("the writer ends");
    outcome.must("the write is acknowledged", written.is_ok(), format!("{written:?}"));
    written.map_or(f64::INFINITY, |at| super::figures::ms(at.saturating_duration_since(promoted)))
}

/// Other services with one primary among them, all of which were found and are polled.
fn use_others(stage: &stage::Stage, count: usize) -> Vec<Arc<Service>> {
    let primary = Scripted::primary();
    let names: Vec<String> = (1..=count).map(service_name).collect();
    for one in &stage.watch {
        one.state(|state| {
            let peers = state.services[SERVICE].peers.clone();
            for name in &names {
                let service = ServiceState { peers: peers.clone(), ..ServiceState::of(&primary.addr()) };
                state.services.insert(name.clone(), service);
            }
        });
    }
    let services: Vec<Arc<Service>> = names.iter().map(|name| stage.sentinel.service(name)).collect();
    for service in &services {
        let found = service.discover(service.discovered(), Deadline::after(Duration::from_secs(20)));
        found.unwrap_or_else(|error| panic!("{}: {error}", service.name()));
    }
    services
}
