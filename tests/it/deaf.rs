//! Subscriptions: what a Sentinel does not let a user hear, and what counts as silence (step 4, points 6 and 7).

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use stage::{SOON, Watch, stage};
use support::*;
use vigie::error::{Status, flags};
use vigie::queue::kind;

const NOPERM: &str = "NOPERM this user has no permissions to access one of the channels used as arguments";

/// Ends the writers also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn refuse(one: &FakeSentinel, pattern: &str) {
    one.fault(pattern, Fault::Error(NOPERM.into()));
}

#[test]
fn the_patterns_of_both_signs_and_then_the_channels_themselves_are_asked_for() {
    for (refused, granted) in
        [(&["PSUBSCRIBE *"][..], "PSUBSCRIBE +* -*"), (&["PSUBSCRIBE"][..], "SUBSCRIBE +try-failover")]
    {
        let p = Scripted::primary();
        let watch = Scripted::sentinels(1, SERVICE, &p.addr());
        refused.iter().for_each(|pattern| refuse(&watch[0], pattern));
        let sentinel = sentinel_at(&[watch[0].addr()], &[]);
        let told = Watch::on(&sentinel);
        ok(&to_primary(&sentinel, &[]), "SET k v");
        told.wait("it listens", SOON, |told| told.is(kind::SENTINEL, &[("up", "1"), ("reason", "listening")]));
        assert!(watch[0].commands().iter().any(|command| command.starts_with(granted)), "{:?}", watch[0].commands());
        watch[0].publish("+try-failover", &format!("master {SERVICE} 127.0.0.1 {}", p.port()));
        told.wait_fence(true, "+try-failover");
    }
}

#[test]
fn a_user_that_may_hear_nothing_is_told_so_and_the_sentinel_is_asked_instead() {
    let stage = stage(3, &[]);
    for one in &stage.watch {
        refuse(one, "PSUBSCRIBE");
        refuse(one, "SUBSCRIBE");
        one.close_all();
    }
    for one in &stage.watch {
        stage.told.wait("it is told", SOON, |told| {
            told.kind == kind::SENTINEL && told.get("sentinel") == one.addr() && told.get("reason").contains("NOPERM")
        });
    }
    let wanted = format!("refused: {NOPERM}; it is asked every 100 ms instead");
    eventually("the topology tells that, and how often each is asked instead", SOON, || {
        let topology = stage.sentinel.topology(Some(SERVICE)).unwrap();
        let sentinels = topology.find(0, b"sentinels").unwrap();
        let mut views = topology.children(sentinels);
        views.all(|view| topology.bytes(topology.find(view, b"events").unwrap()) == Some(wanted.as_bytes()))
    });
    // The flag is found by a question, long before the next poll.
    let accepted: Vec<u64> = stage.watch.iter().map(|one| one.accepted()).collect();
    stage.flags(1, "master,failover_in_progress");
    stage.told.wait_fence(true, "failover_in_progress");
    let asked = stage.watch[0].count("SENTINEL GET-MASTER-ADDR-BY-NAME");
    stage.watch[0].wait_count("SENTINEL GET-MASTER-ADDR-BY-NAME", asked + 5, SOON);
    stage.flags(1, "master");
    stage.told.wait_fence(false, "failover_in_progress");
    // The questions use an open connection; other connections are for discoveries and the lease.
    let more = stage.watch.iter().zip(accepted).map(|(one, before)| one.accepted() - before);
    assert!(more.max().unwrap() < 20, "no reconnect loop");
    // A new address is found in the same way.
    stage.promote();
    for one in &stage.watch {
        one.service(SERVICE, |state| state.switch_to(&stage.r.addr()));
    }
    stage.wait_primary(&stage.r.addr());
}

#[test]
fn a_planned_failover_loses_nothing_though_the_user_may_hear_nothing() {
    let deployment = Deployment::new("deaf").sentinel_conf("user app on >pw ~* resetchannels +@all").start();
    let login = [("sentinel.username", "app"), ("sentinel.password", "pw")];
    let sentinel = sentinel_at(&deployment.sentinel_addrs(), &login);
    let told = Watch::on(&sentinel);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    for one in deployment.sentinel_nodes() {
        told.wait("it is told", SOON, |told| {
            told.kind == kind::SENTINEL && told.get("sentinel") == one.addr() && told.get("reason").contains("NOPERM")
        });
    }
    let ended = AtomicBool::new(false);
    let acknowledged: Vec<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, ended) = (&client, &ended);
                scope.spawn(move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                        let text = format!("{writer}.{number}");
                        if cmd(client, &format!("RPUSH log {text}")).is_ok() {
                            done.push(text);
                        }
                    }
                    done
                })
            })
            .collect();
        let end = End(&ended);
        let old = deployment.failover(SERVICE);
        deployment.wait_switched(SERVICE, &old);
        eventually("the switch is followed", 4 * SOON, || !told.switches().is_empty());
        ok(&client, "SET k after");
        drop(end);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let new = deployment.primary_node(SERVICE);
    let kept: std::collections::HashSet<String> =
        new.cmd(&["LRANGE", "log", "0", "-1"]).items().iter().map(Value::text).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|text| !kept.contains(*text)).collect();
    assert!(
        !acknowledged.is_empty() && lost.is_empty(),
        "{} of {} lost; {:#?}",
        lost.len(),
        acknowledged.len(),
        told.all()
    );
}

#[test]
fn a_quiet_sentinel_is_there_as_long_as_it_answers_its_pings() {
    let stage = stage(2, &[]);
    stage.listened();
    let begun = Instant::now();
    stage.watch[0].wait_count("PING", 4, 4 * SOON);
    eventually("for longer than a dead one is waited for", SOON, || begun.elapsed() >= Duration::from_millis(2700));
    assert_eq!(stage.watch[0].count("PSUBSCRIBE"), 1, "one connection");
    assert_eq!(stage.told.count(|told| told.is(kind::SENTINEL, &[("up", "0")])), 0);
}

#[test]
fn a_sentinel_that_leaves_a_ping_unanswered_is_gone() {
    let stage = stage(2, &[]);
    stage.listened();
    stage.watch[0].fault("PING", Fault::Stall);
    let gone = stage.told.wait("it is gone", 2 * SOON, |told| told.is(kind::SENTINEL, &[("up", "0")]));
    assert_eq!(gone.get("sentinel"), stage.watch[0].addr());
}

/// The field of the first Sentinel in the topology, as text; empty if it is null.
fn refused_by_first(stage: &stage::Stage) -> String {
    let topology = stage.sentinel.topology(Some(SERVICE)).unwrap();
    let first = topology.children(topology.find(0, b"sentinels").unwrap()).next().unwrap();
    let field = topology.find(first, b"refused").unwrap();
    String::from_utf8_lossy(topology.bytes(field).unwrap_or_default()).into_owned()
}

#[test]
fn each_question_that_a_user_may_not_ask_is_told_once_by_event_and_by_the_topology() {
    for question in ["REPLICAS", "SENTINELS", "MYID"] {
        let stage = stage(1, &[]);
        let line = format!("NOPERM this user has no permissions to run the 'sentinel|{question}' command");
        stage.watch[0].fault(&format!("SENTINEL {question}"), Fault::Error(line.clone()));
        // A Sentinel is asked for its id once on each connection.
        stage.watch[0].close_all();
        stage.polled();
        stage.told.wait("it is told", SOON, |told| told.is(kind::SENTINEL, &[("reason", &line)]));
        stage.polled();
        assert_eq!(stage.told.count(|told| told.is(kind::SENTINEL, &[("reason", &line)])), 1);
        assert_eq!(refused_by_first(&stage), line);
    }
}

#[test]
fn a_list_of_replicas_that_is_refused_is_the_reason_in_the_error_and_takes_nothing_back_that_was_known() {
    const LINE: &str = "NOPERM this user has no permissions to run the 'sentinel|replicas' command";
    let stage = stage(3, &[]);
    stage.watch.iter().for_each(|one| one.fault("SENTINEL REPLICAS", Fault::Error(LINE.into())));
    stage.polled();
    let known: Vec<_> = stage.service().load().replicas.iter().map(|replica| replica.endpoint.to_string()).collect();
    assert_eq!(known, [stage.r.addr()]);
    // A client that never knew any replicas.
    let addrs: Vec<String> = stage.watch.iter().map(|one| one.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[]);
    let error = fails(Status::NoReplica, cmd(&to_replicas(&sentinel, &[("replica.fallback", "error")]), "GET k"));
    assert!(error.message().contains(LINE) && !error.has(flags::RETRYABLE), "{error}");
    assert!(!error.message().contains("attempts"), "it is told at once: {error}");
    let error = fails(Status::Config, cmd(&to_primary(&sentinel, &[("write.replicas", "all")]), "SET k v"));
    assert!(error.message().contains(LINE), "{error}");
    assert_eq!(stage.p.count("SET"), 0, "nothing was sent");
    // One Sentinel that lists them is enough.
    stage.watch[2].clear_faults();
    stage.polled();
    sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)).expect("the primary is there");
}

#[test]
fn a_missing_permission_is_not_told_as_refused_credentials() {
    let stage = stage(1, &[]);
    let line = "NOPERM this user has no permissions to run the 'sentinel|master' command";
    stage.watch[0].fault("SENTINEL MASTER", Fault::Error(line.into()));
    let sentinel = sentinel_at(&[stage.watch[0].addr()], &[]);
    let error = fails(Status::Auth, cmd(&to_primary(&sentinel, &[]), "GET k"));
    assert!(error.message().contains("lacks a permission") && error.message().contains(line), "{error}");
    assert!(!error.message().contains("sentinel.password"), "{error}");
}
