//! Section C: replicas fail, lag, come and go, while a client reads from them.

use super::figures::{Outcome, ms};
use super::probe::{Habits, Probe};
use super::rig::{Rig, Stage, word};
use crate::calls::{self, SERVICE};
use crate::support::{FakeNode, Fault, Layout, Node, Proxy, Scripted, Value, Way, eventually};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie::client::{Client, Target, Timeout};
use vigie::error::Status;
use vigie::queue::kind;

scenarios! {
    scenario_43_replica_killed(43, "replica killed while reading", replica_killed, needs_root: false);
    scenario_43_replica_stopped(43, "replica stopped while reading", replica_stopped, needs_root: false);
    scenario_43_replica_vanished(43, "replica's host vanishes while reading", replica_vanished, needs_root: true);
    scenario_44_all_replicas_down(44, "all replicas down", all_replicas_down, needs_root: false);
    scenario_45_replica_link_down(45, "replica's link down", replica_link_down, needs_root: false);
    scenario_46_lagging_replica(46, "lagging replica", lagging_replica, needs_root: true);
    scenario_46_lag_by_role(46, "lag as ROLE tells it", lag_by_role, needs_root: false);
    scenario_47_replica_promoted(47, "replica promoted", replica_promoted, needs_root: false);
    scenario_48_new_replica(48, "new replica", new_replica, needs_root: false);
    scenario_49_replica_returns(49, "replica returns", replica_returns, needs_root: false);
    scenario_50_far_replica(50, "one far replica", far_replica, needs_root: false);
}

const SECOND: Duration = Duration::from_secs(1);
/// What a read of these scenarios may take.
const READ_MS: u64 = 1000;

/// Writes to the primary, reads from the replicas.
fn readers(stage: &Stage, overrides: &[(&str, &str)]) -> (Arc<Client>, Probe) {
    readers_with(stage, overrides, Habits { timeout: Timeout::Ms(READ_MS), ..Habits::default() })
}

fn readers_with(stage: &Stage, overrides: &[(&str, &str)], habits: Habits) -> (Arc<Client>, Probe) {
    let client = stage.handle.client(Target::Split, overrides);
    let probe = Probe::start(&client, habits);
    (client, probe)
}

/// Calls that this node has served for the client, as primary or as replica.
fn served(client: &Client, node: &Node) -> i64 {
    let of_node = |pool: &&calls::PoolStats| pool.endpoint.ends_with(&format!(":{}", node.port()));
    calls::pools(client).iter().filter(of_node).map(|pool| pool.get("served")).sum()
}

/// Waits until reads reach the node; how long that took.
#[track_caller]
fn await_reads(client: &Client, node: &Node, within: Duration) -> Duration {
    let began = Instant::now();
    let before = served(client, node);
    eventually(&format!("reads reach {}", node.name()), within, || served(client, node) > before + 3);
    began.elapsed()
}

/// Waits until no read has reached the node for half a second; when the last one did, counted from now.
#[track_caller]
fn await_no_reads(client: &Client, node: &Node, within: Duration) -> Duration {
    let began = Instant::now();
    let (mut last, mut at) = (served(client, node), Duration::ZERO);
    eventually(&format!("no reads reach {}", node.name()), within, || {
        let now = served(client, node);
        if now != last {
            (last, at) = (now, began.elapsed());
        }
        began.elapsed() > at + Duration::from_millis(500)
    });
    at
}

/// One of the replicas.
fn a_replica(stage: &Stage) -> Arc<Node> {
    stage.deployment.replica_nodes(SERVICE).into_iter().next().expect("a replica")
}

fn replica_killed(rig: &Rig) -> Outcome {
    replica_fault(rig, rig.stage(rig.deployment("replica-killed"), &[]), &|node| node.kill(), &|node| node.restart())
}

fn replica_stopped(rig: &Rig) -> Outcome {
    replica_fault(rig, rig.stage(rig.deployment("replica-stopped"), &[]), &|node| node.stop(), &|node| node.cont())
}

fn replica_vanished(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("replica-vanished").network(Layout::Apart), &[]);
    replica_fault(rig, stage, &|node| node.netns().vanish(), &|node| node.netns().heal())
}

/// Reads go on with the other replica inside their deadline, and come back when the node does.
fn replica_fault(rig: &Rig, stage: Stage, break_it: &dyn Fn(&Node), heal: &dyn Fn(&Node)) -> Outcome {
    let (client, mut probe) = readers(&stage, &[]);
    let victim = a_replica(&stage);
    await_reads(&client, &victim, 5 * SECOND);
    probe.fault();
    break_it(&victim);
    let last = await_no_reads(&client, &victim, 6 * SECOND);
    probe.run_for(Duration::from_millis(rig.pick(300, 8000)));
    heal(&victim);
    let back = await_reads(&client, &victim, 20 * SECOND);
    probe.run_for(Duration::from_millis(300));
    let (mut outcome, seen) = stage.finish(probe);
    outcome.note(format!(
        "read gap {:.0} ms, last tried after {:.0} ms, back {:.1} s after the end of the fault",
        ms(seen.read_gap),
        ms(last),
        back.as_secs_f64()
    ));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_longest(READ_MS as f64);
    outcome.expect_ms("read gap", ms(seen.read_gap), READ_MS as f64);
    outcome
}

fn all_replicas_down(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("no-replicas"), &[]);
    let (client, mut probe) = readers(&stage, &[]);
    let strict = stage.handle.client(Target::Replica, &[("replica.fallback", "error")]);
    calls::ok(&strict, "PING");
    let replicas = stage.deployment.replica_nodes(SERVICE);
    probe.fault();
    replicas.iter().for_each(|node| node.kill());
    replicas.iter().for_each(|node| stage.deployment.wait_s_down(SERVICE, node));
    let (refused, took) = calls::timed(|| calls::within(&strict, "GET k", 300));
    let fallbacks = calls::counter(&client, "fallbacks");
    probe.run_for(Duration::from_millis(rig.pick(500, 5000)));
    let more = calls::counter(&client, "fallbacks");
    replicas[0].restart();
    await_reads(&client, &replicas[0], 20 * SECOND);
    let after = calls::counter(&client, "fallbacks");
    probe.run_for(Duration::from_millis(500));
    let still = calls::counter(&client, "fallbacks");
    calls::ok(&strict, "PING");
    let (mut outcome, seen) = stage.finish(probe);
    let status = refused.as_ref().err().map(|error| error.status());
    outcome.must(
        "without fallback: NO_REPLICA",
        status == Some(Status::NoReplica),
        format!("{refused:?}").chars().take(300).collect::<String>(),
    );
    outcome.expect_ms("the refusal", ms(took), 320.0);
    outcome.must("reads fall back to the primary", more > fallbacks && fallbacks > 0, format!("{fallbacks}, {more}"));
    outcome.must("and come back from it", still - after < 10, format!("{after}, {still}"));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_longest(READ_MS as f64);
    outcome.expect_ms("read gap", ms(seen.read_gap), READ_MS as f64);
    outcome
}

/// A replica that cannot log in at its primary: it serves what it has, which grows old.
fn replica_link_down(rig: &Rig) -> Outcome {
    let builder = rig.deployment("link-down").password("right").conf("loglevel warning");
    let stage = rig.stage(builder, &[("auth.password", "right")]);
    let (client, mut probe) = readers(&stage, &[("replica.max_lag", "100000000")]);
    let (plain, plain_probe) = readers_with(&stage, &[], Habits { key: "other".into(), ..Habits::default() });
    let victim = a_replica(&stage);
    await_reads(&client, &victim, 5 * SECOND);
    if !rig.is_full() {
        // Sentinel learns of it by INFO, which it asks for every ten seconds.
        stage.deployment.sentinel_debug("info-period", 1000);
    }
    probe.fault();
    victim.cmd(&["CONFIG", "SET", "masterauth", "wrong"]);
    victim.cmd(&["CLIENT", "KILL", "TYPE", "master"]);
    let by_lag = await_no_reads(&client, &victim, 6 * SECOND);
    let by_link = await_no_reads(&plain, &victim, 30 * SECOND);
    victim.cmd(&["CONFIG", "SET", "masterauth", "right"]);
    await_reads(&plain, &victim, 20 * SECOND);
    await_reads(&client, &victim, 20 * SECOND);
    drop(plain_probe.stop_with(Vec::new));
    let (mut outcome, _) = stage.finish(probe);
    outcome.expect_ms_of_sentinels("out by max_lag", ms(by_lag), 2000.0);
    // The Sentinels' next INFO, then the next poll.
    outcome.expect_ms_of_sentinels("out by its link", ms(by_link), rig.pick(6500.0, 16_000.0));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome
}

/// The replica gets nothing of its primary any more, and its link looks well.
fn lagging_replica(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("lagging").network(Layout::Apart), &[]);
    let (client, mut probe) = readers(&stage, &[("replica.max_lag", "50000")]);
    let victim = a_replica(&stage);
    await_reads(&client, &victim, 5 * SECOND);
    let primary = stage.primary();
    probe.fault();
    let began = Instant::now();
    victim.netns().drop_from(primary.host());
    let big = "x".repeat(200_000);
    primary.cmd(&["SET", "big", &big]);
    await_no_reads(&client, &victim, 8 * SECOND);
    let out = began.elapsed() - Duration::from_millis(500);
    probe.run_for(Duration::from_millis(rig.pick(300, 3000)));
    victim.netns().heal();
    await_reads(&client, &victim, 20 * SECOND);
    let (mut outcome, seen) = stage.finish(probe);
    outcome.expect_ms_of_sentinels("out by its lag", ms(out), 2500.0);
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_ms("read gap", ms(seen.read_gap), 100.0);
    outcome
}

/// ROLE as a primary at `offset` tells it, with what its replicas have confirmed.
fn role(offset: i64, replicas: &[(&FakeNode, i64)]) -> Fault {
    let one = |(node, offset): &(&FakeNode, i64)| {
        Value::Array(["127.0.0.1", &node.port().to_string(), &offset.to_string()].iter().map(Value::bulk).collect())
    };
    let list = replicas.iter().map(one).collect();
    Fault::Reply(Value::Array(vec![Value::bulk("master"), Value::Int(offset), Value::Array(list)]))
}

fn lag_by_role(_rig: &Rig) -> Outcome {
    let mut outcome = Outcome::default();
    let primary = Scripted::primary();
    let (near, far) = (Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr()));
    let sentinel = calls::told(&primary.addr(), &[near.addr(), far.addr()]);
    let say = |far_offset: Option<i64>| {
        primary.clear_faults();
        let mut list = vec![(&near, 995)];
        list.extend(far_offset.map(|offset| (&far, offset)));
        primary.fault("ROLE", role(1000, &list));
    };
    say(Some(890));
    let handle = calls::handle(&sentinel, &[("monitor.interval", "500")]);
    let client = calls::open(&handle, Target::Replica, &[("replica.max_lag", "100"), ("replica.fallback", "error")]);
    let reads = |node: &FakeNode| {
        let before = calls::seen(node, "GET");
        (0..20).for_each(|_| drop(calls::ok(&client, "GET k")));
        calls::seen(node, "GET") - before
    };
    calls::ok(&client, "GET k");
    outcome.must(
        "110 bytes behind, bound 100: not read from, from the first read on",
        calls::seen(&far, "GET") == 0,
        "",
    );
    say(Some(950));
    eventually("within the bound it is read from", 3 * SECOND, || reads(&far) > 0);
    say(None);
    eventually("absent from the primary's list it is not", 3 * SECOND, || reads(&far) == 0);
    say(Some(1000));
    eventually("it is read from again", 3 * SECOND, || reads(&far) > 0);
    primary.fault("ROLE", role(1000, &[(&near, 0), (&far, 0)]));
    say(None);
    primary.clear_faults();
    primary.fault("ROLE", role(1000, &[(&near, 0), (&far, 0)]));
    let mut told = String::new();
    eventually("with all behind the error tells by how much", 4 * SECOND, || {
        match calls::within(&client, "GET k", 100) {
            Err(error) if error.status() == Status::NoReplica => {
                told = error.message().to_owned();
                true
            }
            _ => false,
        }
    });
    outcome.must("the error names the lag", told.contains("lags 1000 bytes"), told.clone());
    outcome
}

fn replica_promoted(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("promoted"), &[]);
    let (client, mut probe) = readers_with(&stage, &[], Habits::default());
    probe.run_for(Duration::from_millis(300));
    probe.fault();
    let old = stage.deployment.failover(SERVICE);
    let new = stage.deployment.wait_switched(SERVICE, &old);
    stage.handle.await_primary(&new.addr(), 5 * SECOND);
    let switched = Instant::now();
    let role_of = |node: &Node| {
        let pools = calls::pools(&client);
        pools.iter().find(|pool| pool.endpoint == node.addr()).map(|pool| pool.role.clone()).unwrap_or_default()
    };
    eventually("the promoted one is no replica any more", 2 * SECOND, || role_of(&new) == "primary");
    let left = switched.elapsed();
    if !rig.is_full() {
        stage.deployment.hurry();
    }
    let mut too_early = 0;
    eventually("the old primary is a replica with its link up", 40 * SECOND, || {
        too_early += usize::from(role_of(&old) == "replica" && served(&client, &old) > 3);
        let role = old.cmd(&["ROLE"]);
        let word = |index: usize| role.items().get(index).map(Value::text).unwrap_or_default();
        word(0) == "slave" && word(3) == "connected"
    });
    let (synced, took) = (switched.elapsed(), await_reads(&client, &old, 20 * SECOND));
    probe.run_for(Duration::from_millis(300));
    let story = stage.story();
    let (mut outcome, _) = stage.finish(probe);
    outcome.note(format!("demoted after {:.1} s", synced.as_secs_f64()));
    outcome.must(
        "the old primary is not read from before it is in sync",
        too_early == 0,
        format!("{too_early}\n{story}"),
    );
    outcome.expect_ms_of_sentinels("the promoted one left the readers after", ms(left), 2000.0);
    outcome.expect_ms_of_sentinels("the demoted one joined after", ms(took), 2000.0);
    outcome.expect_lost(0);
    outcome.expect_errors(3, |kind| kind.maybe());
    outcome
}

/// One that the Sentinels have never heard of, and that they would not promote.
fn new_replica(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("new-replica").node_conf("mymaster-2", "replica-priority 0").start();
    let added = deployment.node("mymaster-2");
    added.kill();
    let sentinels = deployment.serving_sentinels();
    let primary = deployment.primary_node(SERVICE);
    eventually("the primary has one replica", 5 * SECOND, || {
        primary.info("replication").get("connected_slaves").is_some_and(|count| count == "1")
    });
    sentinels.iter().for_each(|sentinel| drop(sentinel.cmd(&["SENTINEL", "RESET", SERVICE])));
    let field = |sentinel: &Node, key: &str| sentinel.cmd(&["SENTINEL", "MASTER", SERVICE]).field(key);
    eventually("the Sentinels know one replica, and each other", 20 * SECOND, || {
        let knows = |sentinel: &Arc<Node>| {
            field(sentinel, "num-slaves").as_deref() == Some("1")
                && field(sentinel, "num-other-sentinels").as_deref() == Some("2")
        };
        sentinels.iter().all(knows)
    });
    let stage = rig.stage_on(deployment, &[]);
    let (client, probe) = readers(&stage, &[]);
    if !rig.is_full() {
        stage.deployment.sentinel_debug("info-period", 200);
    }
    added.restart();
    stage.deployment.await_link(&added);
    let told = |sentinel: &Arc<Node>| {
        let list = sentinel.cmd(&["SENTINEL", "REPLICAS", SERVICE]);
        let port = added.port().to_string();
        list.items().iter().any(|one| {
            one.field("port").as_deref() == Some(&port) && one.field("master-link-status").as_deref() == Some("ok")
        })
    };
    eventually("a majority of the Sentinels knows the new replica", 25 * SECOND, || {
        stage.deployment.serving_sentinels().iter().filter(|one| told(one)).count() >= 2
    });
    let took = await_reads(&client, &added, 20 * SECOND);
    let heard = stage.handle.events_of(kind::REPLICA);
    let named =
        heard.iter().any(|heard| word(&heard.text, "replica") == added.addr() && word(&heard.text, "fit") == "true");
    let story = stage.story();
    let (mut outcome, _) = stage.finish(probe);
    outcome.must("an event tells that it is read from", named, story);
    // Until the next poll where the last Sentinel's word came without an event.
    outcome.expect_ms_of_sentinels("read from after", ms(took), 5500.0);
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome
}

/// It comes back empty, loads, synchronises: no call is to meet any of that.
fn replica_returns(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("replica-returns"), &[]);
    let primary = stage.primary();
    primary.cmd(&["DEBUG", "POPULATE", if rig.is_full() { "2000000" } else { "200000" }]);
    let (client, probe) = readers(&stage, &[]);
    let victim = a_replica(&stage);
    victim.kill();
    stage.deployment.wait_s_down(SERVICE, &victim);
    await_no_reads(&client, &victim, 6 * SECOND);
    let began = Instant::now();
    victim.restart();
    stage.deployment.await_link(&victim);
    let synced = began.elapsed();
    let back = await_reads(&client, &victim, 20 * SECOND);
    let again = Instant::now();
    probe.run_for(Duration::from_millis(rig.pick(500, 3000)));
    let (mut outcome, seen) = stage.finish(probe);
    let late = seen.reads.iter().filter(|read| read.began >= again).map(|read| read.took()).max().unwrap_or_default();
    outcome.note(format!("in sync after {:.1} s, read from {:.1} s later", synced.as_secs_f64(), back.as_secs_f64()));
    outcome.expect_ms("longest read after its return", ms(late), 100.0);
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_longest(READ_MS as f64);
    outcome
}

fn far_replica(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("far").start();
    let replicas = deployment.replica_nodes(SERVICE);
    let far = Proxy::start(&replicas[0].addr());
    far.delay(Way::Down, Duration::from_millis(20));
    let map = format!("{}={}", replicas[0].addr(), far.addr());
    let stage = rig.stage_on(deployment, &[("address.map", &map), ("replica.pick", "latency")]);
    let client = stage.handle.client(Target::Replica, &[]);
    let mut slow = 0;
    let total = rig.pick(1500, 20_000);
    let began = Instant::now();
    for _ in 0..total {
        let (_, took) = calls::timed(|| calls::ok(&client, "GET k"));
        slow += usize::from(took > Duration::from_millis(15));
    }
    let mean = ms(began.elapsed()) / f64::from(total);
    let near = 100.0 - 100.0 * slow as f64 / f64::from(total);
    let accepted = far.accepted();
    drop(client);
    let mut outcome = stage.close();
    outcome.note(format!("{near:.1} % of {total} reads near, {mean:.2} ms each"));
    outcome.must(">= 95 % of the reads are near", near >= 95.0, format!("{near:.1} %"));
    outcome.must("the far one is looked at", accepted > 0, "");
    outcome
}
