//! Section A: the primary fails.

use super::figures::{Outcome, ms};
use super::probe::{Habits, Kind, Seen, list_of};
use super::rig::{Rig, Stage};
use crate::calls::{self, SERVICE};
use crate::support::deployment::{PATIENCE, told_primary};
use crate::support::{Deployment, Layout, Node, Proxy, Trap, eventually, eventually_some, proc};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Error, Status, flags};
use vigie::queue::kind;
use vigie::resp::encode;

scenarios! {
    scenario_01_planned_failover(1, "planned failover", planned, needs_root: false);
    scenario_01_planned_failover_eager(1, "planned failover, probe = eager", planned_eager, needs_root: false);
    scenario_01_planned_failover_50_ms(1, "planned failover, deadline 50 ms", planned_hasty, needs_root: false);
    scenario_76_coordinated_failover(76, "coordinated failover (Valkey 9)", coordinated, needs_root: false);
    scenario_02_killed(2, "SIGKILL of the primary", killed, needs_root: false);
    scenario_03_stopped_and_thawed(3, "SIGSTOP of the primary, thawed later", stopped, needs_root: false);
    scenario_04_host_vanishes(4, "the primary's host vanishes", vanishes, needs_root: false);
    scenario_05_host_of_primary_and_sentinel_vanishes(5, "host of primary and first Sentinel vanishes", vanishes_with_sentinel, needs_root: false);
    scenario_06_event_missed_while_away(6, "primary and Sentinel killed, event missed", event_missed, needs_root: false);
    scenario_07_sentinel_killed_and_planned(7, "Sentinel 1 killed + planned failover", sentinel_killed, needs_root: false);
    scenario_08_twice_within_5_s(8, "two failovers within 5 s", twice, needs_root: false);
    scenario_10_restarts_empty(10, "primary restarts at once, empty", restarts_empty, needs_root: false);
    scenario_11_is_loading(11, "primary restarts and is LOADING", is_loading, needs_root: false);
    scenario_12_aborted(12, "failover aborted, no good replica", aborted, needs_root: false);
    scenario_14_host_lost_under_threads(14, "host lost, 10,000 commands of 500 threads", lost_under_threads, needs_root: false);
    scenario_14_host_lost_under_a_long_list(14, "host lost, lists of 10,000 commands", lost_under_lists, needs_root: false);
    scenario_14_host_lost_half_sent(14, "host lost, 20 MB in flight of 500 threads", lost_half_sent, needs_root: false);
    scenario_15_reply_lost(15, "reply lost, not idempotent", reply_lost, needs_root: false);
    scenario_16_readonly_without_disconnect(16, "READONLY without disconnect", readonly, needs_root: false);
    scenario_17_readonly_in_script_and_exec(17, "READONLY inside a script and EXEC", readonly_inside, needs_root: false);
    scenario_18_masterdown(18, "MASTERDOWN of a replica", masterdown, needs_root: false);
    scenario_19_noreplicas(19, "NOREPLICAS", noreplicas, needs_root: false);
}

/// What was under way when a node went away.
fn in_flight(kind: &Kind) -> bool {
    kind.maybe()
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// When a replica first says that it is a primary.
fn promotion(deployment: &Deployment) -> impl FnOnce() -> Option<Instant> + use<> {
    let primary = deployment.primary(SERVICE);
    let replicas: Vec<Arc<Node>> =
        deployment.data_nodes(SERVICE).into_iter().filter(|node| node.addr() != primary).collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    proc::thread("kit-promotion", move || {
        // The Sentinel that promotes a replica also ends its connections.
        let mut connections: Vec<_> = replicas.iter().map(|node| (node, node.connect().ok())).collect();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (node, connection) in &mut connections {
                let role = connection.as_mut().and_then(|connection| connection.cmd(&["ROLE"]).ok());
                match role.as_ref().and_then(|role| role.items().first()) {
                    Some(word) if word.text() == "master" => {
                        let _ = sender.send(Instant::now());
                        return;
                    }
                    Some(_) => {}
                    None => *connection = node.connect().ok(),
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    move || receiver.recv_timeout(PATIENCE).ok()
}

/// When a Sentinel next says that it has promoted a replica, by its log.
fn word_of_leader(deployment: &Deployment) -> impl FnOnce() -> Option<Instant> + use<> {
    let sentinels = deployment.sentinel_nodes();
    let said = move || sentinels.iter().map(|node| node.logged("+promoted-slave ")).sum::<usize>();
    let before = said();
    let (sender, receiver) = std::sync::mpsc::channel();
    proc::thread("kit-leader", move || {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if said() > before {
                let _ = sender.send(Instant::now());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    move || receiver.recv_timeout(PATIENCE).ok()
}

/// The library switched so often, each time from where it was and to a newer epoch.
fn expect_switches(outcome: &mut Outcome, switches: &[super::rig::Heard], count: usize) {
    use super::rig::word;
    let steps: Vec<(&str, &str)> =
        switches.iter().map(|heard| (word(&heard.text, "from"), word(&heard.text, "to"))).collect();
    let story = switches.iter().map(|heard| heard.text.as_str()).collect::<Vec<_>>().join("\n");
    outcome.must(&format!("{count} switches"), steps.len() == count, &story);
    let follow = steps.windows(2).all(|pair| pair[0].1 == pair[1].0);
    outcome.must("each switch begins where the last one ended", follow, &story);
    let epochs: Vec<Option<u64>> = switches.iter().map(|heard| word(&heard.text, "epoch").parse().ok()).collect();
    outcome.must("no switch goes back to an older epoch", epochs.windows(2).all(|pair| pair[0] < pair[1]), &story);
}

/// The library ended where the Sentinels did. Two of them may be elected, each in an epoch of its own, and promote a replica each: then
/// there are two switches, if the Sentinels' logs show that.
fn expect_arrival(outcome: &mut Outcome, switches: &[super::rig::Heard], promotions: usize, last: &str) {
    use super::rig::word;
    let count = switches.len().clamp(1, promotions.max(1));
    expect_switches(outcome, switches, count);
    let to = switches.last().map(|heard| word(&heard.text, "to")).unwrap_or_default();
    outcome.must("the last switch leads to the primary", to == last, format!("{to}, not {last}"));
    if count > 1 {
        outcome.note("two failovers at a time");
    }
}

// ---- 1, 7: planned ----

fn plan_and_switch(stage: Stage, rig: &Rig, habits: Habits, wait: (f64, f64)) -> (Outcome, Seen) {
    let mut probe = stage.probe_with(habits);
    probe.run_for(seconds(0.3));
    probe.fault();
    let old = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    stage.deployment.wait_switched(SERVICE, &old);
    // The old primary takes writes for ten seconds more.
    probe.run_for(seconds(rig.pick(wait.0, wait.1)));
    let switches = stage.handle.switches();
    let (mut outcome, seen) = stage.finish(probe);
    expect_switches(&mut outcome, &switches, 1);
    outcome.expect_lost(0);
    (outcome, seen)
}

fn planned(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("planned"), &[]);
    let (mut outcome, seen) = plan_and_switch(stage, rig, Habits::default(), (1.0, 12.0));
    outcome.expect_no_errors();
    outcome.expect_failover_gap(1500.0);
    outcome.expect_ms("X beyond G", ms(seen.longest) - ms(seen.gap), 50.0);
    outcome
}

fn planned_eager(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("eager"), &[("failover.probe", "eager")]);
    let (mut outcome, seen) = plan_and_switch(stage, rig, Habits::default(), (1.0, 12.0));
    outcome.expect_no_errors();
    outcome.expect_failover_gap(400.0);
    outcome.expect_ms("X beyond G", ms(seen.longest) - ms(seen.gap), 50.0);
    outcome
}

fn planned_hasty(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("hasty"), &[]);
    let habits = Habits { timeout: Timeout::Ms(50), ..Habits::default() };
    let (mut outcome, _) = plan_and_switch(stage, rig, habits, (1.0, 5.0));
    outcome.expect_errors(100, |kind| kind.retryable() || kind.maybe());
    outcome.expect_longest(60.0);
    outcome
}

fn sentinel_killed(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("bitnami"), &[]);
    stage.sentinel(0).kill();
    let (mut outcome, seen) = plan_and_switch(stage, rig, Habits::default(), (1.0, 12.0));
    outcome.expect_no_errors();
    outcome.expect_failover_gap(1500.0);
    outcome.expect_ms("X beyond G", ms(seen.longest) - ms(seen.gap), 50.0);
    outcome
}

// ---- 76: the servers hand over by themselves ----

/// Where scripts/setup puts a server that can.
const VALKEY_9: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build/bin/valkey-server-9");

/// Writes to a node as a client does that knows nothing of Sentinels; when one was first refused, or its connection ended.
fn refused(node: &Arc<Node>) -> impl FnOnce() -> Option<Instant> + use<> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut connection = node.connect().expect("a connection");
    proc::thread("kit-plain", move || {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match connection.cmd(&["INCR", "plain"]) {
                Ok(reply) if reply.int().is_some() => std::thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
        }
        let _ = sender.send(Instant::now());
    });
    move || receiver.recv_timeout(PATIENCE).ok()
}

fn coordinated(rig: &Rig) -> Outcome {
    if !std::path::Path::new(VALKEY_9).exists() {
        return Outcome::skipped("needs Valkey 9");
    }
    let stage = rig.stage(rig.deployment("coordinated").server(VALKEY_9), &[]);
    let old = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    let (promoted, refused) = (promotion(&stage.deployment), refused(&old));
    probe.fault();
    let fault = Instant::now();
    eventually("the failover begins", PATIENCE, || {
        stage.sentinel(1).cmd(&["SENTINEL", "FAILOVER", SERVICE, "COORDINATED"]).is_ok()
    });
    let since = |at: Option<Instant>| at.map_or(f64::INFINITY, |at| ms(at - fault));
    let (promoted, paused) = (since(promoted()), since(refused()));
    stage.deployment.wait_switched(SERVICE, &old);
    probe.run_for(seconds(rig.pick(0.5, 5.0)));
    let switches = stage.handle.switches();
    let (mut outcome, seen) = stage.finish(probe);
    expect_switches(&mut outcome, &switches, 1);
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    // The server holds its writers until the Sentinel has seen the new primary, and then ends all connections to both.
    outcome.expect_ms("G beyond the server's own pause", ms(seen.gap) - paused, 100.0);
    outcome.expect_ms("X beyond G", ms(seen.longest) - ms(seen.gap), 50.0);
    outcome.note(format!("promoted {promoted:.0} ms after, paused for {paused:.0}"));
    outcome
}

// ---- 2 to 6: the primary is gone ----

fn killed(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("killed"), &[]);
    let old = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    let promoted = promotion(&stage.deployment);
    let fault = Instant::now();
    probe.fault_by(|| old.kill());
    let promoted = promoted().map_or(f64::INFINITY, |at| ms(at - fault));
    stage.deployment.wait_switched(SERVICE, &old);
    probe.run_for(seconds(rig.pick(0.5, 5.0)));
    let (switches, last) = (stage.handle.switches(), stage.primary().addr());
    let promotions = stage.deployment.promotions();
    let (mut outcome, seen) = stage.finish(probe);
    expect_arrival(&mut outcome, &switches, promotions, &last);
    outcome.note(format!("promoted {promoted:.0} ms after"));
    outcome.expect_lost_only_late();
    outcome.expect_errors(1, in_flight);
    outcome.expect_ms("G beyond the promotion", ms(seen.gap) - promoted, 100.0);
    outcome.expect_ms("X beyond G", ms(seen.longest) - ms(seen.gap), 50.0);
    outcome
}

fn stopped(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("stopped"), &[]);
    let old = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault();
    let fault = Instant::now();
    old.stop();
    stage.deployment.wait_switched(SERVICE, &old);
    std::thread::sleep(seconds(rig.pick(4.0, 12.0)).saturating_sub(fault.elapsed()));
    let before = old.is_stopped();
    old.cont();
    probe.run_for(seconds(rig.pick(2.0, 12.0)));
    let users = old.clients_named(super::rig::NAME).len();
    let (switches, last) = (stage.handle.switches(), stage.primary().addr());
    let promotions = stage.deployment.promotions();
    let (mut outcome, _) = stage.finish(probe);
    expect_arrival(&mut outcome, &switches, promotions, &last);
    outcome.must("it was frozen until then", before, "");
    outcome.must("nobody is connected to the thawed primary", users == 0, format!("{users}"));
    outcome.expect_lost(0);
    outcome.expect_errors(1, in_flight);
    outcome.expect_failover_gap(2500.0);
    outcome.expect_longest(5020.0);
    outcome
}

/// A host goes away without a word: dropped packets, or, without a network of our own, stopped processes.
fn lose_hosts(rig: &Rig, nodes: &[Arc<Node>]) {
    for node in nodes {
        match rig.has_network() {
            true => node.netns().vanish(),
            false => node.stop(),
        }
    }
}

fn vanishes(rig: &Rig) -> Outcome {
    lost_host(rig, Layout::Apart, |stage| vec![stage.primary()])
}

fn vanishes_with_sentinel(rig: &Rig) -> Outcome {
    lost_host(rig, Layout::Paired, |stage| vec![stage.primary(), stage.sentinel(0)])
}

fn lost_host(rig: &Rig, layout: Layout, nodes: fn(&Stage) -> Vec<Arc<Node>>) -> Outcome {
    let plan = rig.deployment("vanished");
    let stage = rig.stage(if rig.has_network() { plan.network(layout) } else { plan }, &[]);
    let (old, nodes) = (stage.primary(), nodes(&stage));
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault_by(|| lose_hosts(rig, &nodes));
    stage.deployment.wait_switched(SERVICE, &old);
    probe.run_for(seconds(rig.pick(1.0, 20.0)));
    let (switches, last) = (stage.handle.switches(), stage.primary().addr());
    let promotions = stage.deployment.promotions();
    let (mut outcome, _) = stage.finish(probe);
    expect_arrival(&mut outcome, &switches, promotions, &last);
    if !rig.has_network() {
        outcome.note("SIGSTOP form");
    }
    outcome.expect_lost_only_late();
    outcome.expect_errors(1, in_flight);
    outcome.expect_failover_gap(2500.0);
    outcome.expect_longest(5020.0);
    outcome
}

fn event_missed(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("missed").start();
    let sentinels = deployment.sentinel_nodes();
    let doors: Vec<Proxy> = sentinels[1..].iter().map(|node| Proxy::start(&node.addr())).collect();
    let pairs = sentinels[1..].iter().zip(&doors).map(|(node, door)| format!("{}={}", node.addr(), door.addr()));
    let map = pairs.collect::<Vec<_>>().join(",");
    let stage = rig.stage_on(deployment, &[("address.map", &map)]);
    let old = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault_by(|| old.kill());
    stage.sentinel(0).kill();
    // Nobody hears what is announced from here on.
    for door in &doors {
        door.refuse();
        door.cut();
    }
    stage.deployment.wait_switched(SERVICE, &old);
    let back = Instant::now();
    doors.iter().for_each(Proxy::listen);
    probe.await_writes(1);
    probe.run_for(seconds(rig.pick(0.5, 5.0)));
    let (switches, last) = (stage.handle.switches(), stage.primary().addr());
    let promotions = stage.deployment.promotions();
    let (mut outcome, seen) = stage.finish(probe);
    expect_arrival(&mut outcome, &switches, promotions, &last);
    outcome.expect_lost_only_late();
    outcome.expect_errors(20, |kind| kind.maybe() || kind.retryable());
    let found = seen.first_after(back).map_or(f64::INFINITY, |at| ms(at - back));
    outcome.expect_ms_of_sentinels("from the Sentinels' return to the next write", found, 5000.0);
    outcome.expect_longest(5020.0);
    outcome
}

// ---- 8: twice ----

fn repeated((kind, count): (&Kind, &usize)) -> impl Iterator<Item = Kind> {
    std::iter::repeat_n(kind.clone(), *count)
}

fn twice(rig: &Rig) -> Outcome {
    let mut notes = Vec::new();
    let stage = rig.stage(rig.deployment("twice"), &[]);
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    let first = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    let begun = Instant::now();
    let second = stage.deployment.wait_switched(SERVICE, &first);
    // A data node that is still told to be a primary would be chosen, and lose what was written since: the Sentinels' doing.
    stage.deployment.hurry();
    let others = stage.deployment.data_nodes(SERVICE).into_iter().filter(|node| node.port() != second.port());
    others.for_each(|node| stage.deployment.await_link(&node));
    let within = begun.elapsed();
    stage.handle.await_primary(&second.addr(), Duration::from_secs(5));
    let told = word_of_leader(&stage.deployment);
    let killed = Instant::now();
    probe.fault_by(|| second.kill());
    // The first failover's Sentinel may hang in it for as long as the primary that it promoted is down. It names that one under the epoch
    // of the second failover, then, and who hears that first from it never leaves: one that has left is enough.
    let names = |addr: &str| {
        let sentinels = stage.deployment.sentinel_nodes();
        sentinels.iter().filter(|one| told_primary(one, SERVICE).as_deref() == Some(addr)).count()
    };
    eventually("a Sentinel has led the second failover", PATIENCE, || {
        stage.deployment.lone_primary(SERVICE).is_some_and(|third| names(&third.addr()) > 0)
    });
    probe.run_for(seconds(rig.pick(2.0, 15.0)));
    let told = told().map_or(f64::INFINITY, |at| ms(at.saturating_duration_since(killed)));
    notes.push(format!("the leader told of it {told:.0} ms after the kill"));
    let last = eventually_some("one primary", PATIENCE, || stage.deployment.lone_primary(SERVICE));
    if names(&last.addr()) < 3 {
        notes.push(format!("{} of 3 Sentinels hang in the first failover", 3 - names(&last.addr())));
    }
    let switches = stage.handle.switches();
    // A Sentinel that does not see the new primary in time fails over once more.
    let promotions = stage.deployment.promotions();
    if promotions > 2 {
        notes.push(format!("the Sentinels failed over {promotions} times"));
    }
    let seen = probe.stop_at(&last);
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.must("two failovers", promotions >= 2, format!("{promotions}"));
    expect_switches(&mut outcome, &switches, switches.len().clamp(2, promotions.max(2)));
    notes.into_iter().for_each(|note| outcome.note(note));
    outcome.expect_lost_only_late();
    let more = promotions.saturating_sub(2);
    if more > 0 {
        // Writes that wait through all of them come to the end of their time.
        let held: Vec<Kind> =
            outcome.errors.iter().filter(|(kind, _)| kind.name == "FENCED").flat_map(repeated).collect();
        outcome.excuse("of a further failover", held);
    }
    outcome.expect_errors(1 + more, in_flight);
    outcome.expect_ms_of_sentinels("between the failovers", ms(within), 5000.0);
    outcome.expect_ms("G beyond the leader's word", ms(seen.gap) - told, 100.0);
    outcome.expect_failover_gap(2500.0);
    outcome.expect_longest(5020.0);
    let asked = outcome.queries.unwrap_or_default();
    outcome.must("the Sentinels are not asked without end", asked < 60.0, format!("{asked:.1} questions/s"));
    outcome
}

// ---- 10, 11: the primary restarts ----

/// After a restart without its data: only what was acknowledged since can be missing.
fn lost_since(outcome: &mut Outcome, seen: &Seen, since: Instant) {
    let lost = seen.missing.iter().filter(|at| **at > since).count();
    outcome.lost = Some((lost, 0));
    outcome.expect_lost(0);
}

fn restarts_empty(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("restarts"), &[]);
    // The Sentinels see a new run id in the next INFO.
    stage.deployment.sentinel_debug("info-period", rig.pick(500, 10_000));
    let node = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault();
    node.restart();
    let up = Instant::now();
    let heard = |stage: &Stage| stage.handle.events().iter().any(|heard| heard.text.contains("+reboot"));
    eventually("+reboot is heard", PATIENCE, || heard(&stage));
    probe.run_for(seconds(rig.pick(0.5, 5.0)));
    let switches = stage.handle.switches();
    let (mut outcome, seen) = stage.finish(probe);
    expect_switches(&mut outcome, &switches, 0);
    lost_since(&mut outcome, &seen, up);
    outcome.expect_errors(1, in_flight);
    outcome.expect_gap(1000.0);
    outcome
}

fn is_loading(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("loading"), &[]);
    let node = stage.primary();
    let keys = rig.pick(300, 2000);
    let mut client = node.connect().expect("a primary that answers");
    for key in 0..keys {
        client.cmd(&["SET", &format!("filler-{key}"), &"x".repeat(64)]).expect("a primary that answers");
    }
    client.cmd(&["SAVE"]).expect("a primary that answers");
    drop(client);
    // 10 ms for each key, and a look at the clients every kilobyte.
    let mut conf = fs::File::options().append(true).open(node.dir().join("node.conf")).expect("its configuration");
    conf.write_all(b"\nkey-load-delay 10000\nloading-process-events-interval-bytes 1024\n").expect("it can be written");
    drop(conf);
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault();
    node.restart();
    let info = |node: &Node| node.try_cmd(&["INFO", "persistence"]).map(|reply| reply.text()).unwrap_or_default();
    let began = Instant::now();
    let was_loading = info(&node).contains("\nloading:1");
    eventually("it has loaded", Duration::from_secs(60), || info(&node).contains("\nloading:0"));
    let (loaded, took) = (Instant::now(), began.elapsed());
    let refused = node.info("errorstats").get("errorstat_LOADING").cloned().unwrap_or_default();
    let refused: f64 = refused.trim_start_matches("count=").parse().unwrap_or(0.0);
    probe.await_writes(1);
    probe.run_for(seconds(0.5));
    let switches = stage.handle.switches();
    let (mut outcome, seen) = stage.finish(probe);
    expect_switches(&mut outcome, &switches, 0);
    lost_since(&mut outcome, &seen, loaded);
    outcome.must("it was loading", was_loading, "");
    // Two callers with back-off: eight quick attempts, then one or two a second; the replicas try as well.
    let most = 40.0 + 10.0 * took.as_secs_f64();
    outcome.must("not hammered", refused <= most, format!("{refused} refusals in {took:.1?}"));
    outcome.note(format!("{refused} LOADING in {:.1} s", took.as_secs_f64()));
    outcome.expect_errors(2 + 2 * (took.as_secs() as usize / 5), |kind| kind.maybe() || kind.name == "SERVER LOADING");
    outcome.expect_gap(ms(took) + 1000.0);
    outcome.expect_longest(5020.0);
    outcome
}

// ---- 12: aborted ----

fn aborted(rig: &Rig) -> Outcome {
    let plan = rig.deployment("aborted").node_conf("mymaster-1", "replica-priority 0");
    let stage = rig.stage(plan.node_conf("mymaster-2", "replica-priority 0"), &[]);
    let node = stage.primary();
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    probe.fault();
    node.stop();
    eventually("a failover is aborted", PATIENCE, || {
        stage.handle.events().iter().any(|heard| heard.text.contains("-failover-abort-no-good-slave"))
    });
    let back = Instant::now();
    node.cont();
    probe.await_writes(1);
    probe.run_for(seconds(rig.pick(1.0, 15.0)));
    let fence: Vec<bool> =
        stage.handle.events_of(kind::FENCE).iter().map(|heard| heard.text.contains("\"on\":true")).collect();
    let switches = stage.handle.switches();
    let (mut outcome, seen) = stage.finish(probe);
    expect_switches(&mut outcome, &switches, 0);
    let both = fence.first() == Some(&true) && fence.last() == Some(&false);
    outcome.must("the fence went up and came down", both, format!("{fence:?}"));
    outcome.expect_lost(0);
    outcome.expect_errors(2, |kind| kind.maybe() || kind.name == "TIMEOUT");
    let again = seen.first_after(back).map_or(f64::INFINITY, |at| ms(at - back));
    outcome.expect_ms("from the primary's return to the next write", again, 1000.0);
    outcome.expect_longest(5020.0);
    outcome
}

// ---- 14: ten thousand in flight ----

/// How commands ended, by their number.
#[derive(Default)]
struct Ends {
    done: Vec<(u64, Instant)>,
    refused: Vec<u64>,
    maybe: Vec<u64>,
    errors: BTreeMap<Kind, (usize, String)>,
    longest: Duration,
}

impl Ends {
    fn note(&mut self, numbers: std::ops::Range<u64>, outcome: Result<vigie::resp::Reply, Error>, took: Duration) {
        let now = Instant::now();
        self.longest = self.longest.max(took);
        match outcome {
            Ok(reply) => {
                for (number, child) in numbers.zip(reply.children(0)) {
                    match reply.error_line(child) {
                        None => self.done.push((number, now)),
                        Some(_) => self.refused.push(number),
                    }
                }
            }
            Err(error) => {
                let count = self.errors.entry(Kind::of(&error)).or_insert((0, error.message().to_owned()));
                count.0 += 1;
                match error.has(flags::MAYBE_EXECUTED) {
                    true => self.maybe.extend(numbers),
                    false => self.refused.extend(numbers),
                }
            }
        }
    }
}

/// A list that appends these numbers, each command with so many bytes more that are not kept.
fn pushes(numbers: std::ops::Range<u64>, ballast: usize) -> Vec<u8> {
    let (mut list, ballast) = (Vec::new(), vec![b'x'; ballast]);
    for number in numbers {
        let number = number.to_string();
        let script = b"return redis.call('RPUSH', KEYS[1], ARGV[1])";
        match ballast.len() {
            0 => encode::command(&mut list, &[b"RPUSH", b"torture", number.as_bytes()]),
            _ => encode::command(&mut list, &[b"EVAL", script, b"1", b"torture", number.as_bytes(), &ballast]),
        }
    }
    list
}

/// Threads that send lists, one after the other, each command with a number of its own.
fn load(
    client: &Arc<Client>,
    threads: usize,
    commands: u64,
    ballast: usize,
    stop: &Arc<AtomicBool>,
) -> (Arc<Mutex<Ends>>, Arc<AtomicU64>, Vec<std::thread::JoinHandle<()>>) {
    let (ends, next): (Arc<Mutex<Ends>>, Arc<AtomicU64>) = Default::default();
    let issued = next.clone();
    let thread = |_| {
        let (client, stop, ends, next) = (client.clone(), stop.clone(), ends.clone(), next.clone());
        proc::thread("kit-probe-load", move || {
            while !stop.load(Ordering::Acquire) {
                let first = next.fetch_add(commands, Ordering::AcqRel);
                let list = pushes(first..first + commands, ballast);
                let (outcome, took) = calls::timed(|| client.cmds_exec(&list, CallFlags::default(), Timeout::Ms(5000)));
                ends.lock().expect("no panic under the lock").note(first..first + commands, outcome, took);
                // A pace at which one list of all numbers stays small enough to compare.
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let handles = (0..threads).map(thread).collect();
    (ends, issued, handles)
}

fn lost_under_threads(rig: &Rig) -> Outcome {
    lost_under_load(rig, 500, 20, 0)
}

fn lost_under_lists(rig: &Rig) -> Outcome {
    lost_under_load(rig, 1, 10_000, 0)
}

/// More than the buffers of a socket hold: of some nothing is sent, of some a part.
fn lost_half_sent(rig: &Rig) -> Outcome {
    lost_under_load(rig, 500, 20, 2000)
}

fn lost_under_load(rig: &Rig, threads: usize, commands: u64, ballast: usize) -> Outcome {
    let plan = rig.deployment("load");
    let stage = rig.stage(if rig.has_network() { plan.network(Layout::Apart) } else { plan }, &[]);
    let (old, stop) = (stage.primary(), Arc::new(AtomicBool::new(false)));
    let (ends, issued, handles) = load(stage.client(), threads, commands, ballast, &stop);
    let done = || ends.lock().expect("no panic under the lock").done.len();
    eventually("the load runs", PATIENCE, || done() >= 20_000);
    // Frozen first, until every caller has a list on its way; then the host is lost, with the lists that it had not read.
    old.stop();
    let fault = Instant::now();
    std::thread::sleep(seconds(0.2));
    if rig.has_network() {
        old.netns().vanish();
        old.cont();
    }
    let gone = Instant::now();
    let new = stage.deployment.wait_switched(SERVICE, &old);
    let before = done();
    eventually("the load runs again", PATIENCE, || done() > before);
    std::thread::sleep(seconds(rig.pick(0.3, 3.0)));
    stop.store(true, Ordering::Release);
    handles.into_iter().for_each(|thread| thread.join().expect("the load does not panic"));
    let there = list_of(&new, "torture");
    let before = if rig.has_network() { healed_list(&old) } else { Vec::new() };
    let mut outcome = stage.close();
    let ends = std::mem::take(&mut *ends.lock().expect("no panic under the lock"));
    let ended = ends.done.len() + ends.refused.len() + ends.maybe.len();
    let issued = issued.load(Ordering::Acquire) as usize;
    outcome.must("every command ends exactly once", ended == issued, format!("{ended} of {issued}"));
    judge_ends(&mut outcome, &ends, &there, &before, fault..=gone);
    outcome
}

/// What the lost host holds, asked before it is told to be a replica.
fn healed_list(old: &Node) -> Vec<u64> {
    old.netns().heal();
    eventually_some("the lost host answers", Duration::from_secs(5), || old.try_cmd(&["PING"]).ok());
    list_of(old, "torture")
}

/// `fault`: from the freeze until nothing more can come. What was answered before the freeze is read until then.
fn judge_ends(outcome: &mut Outcome, ends: &Ends, there: &[u64], before: &[u64], fault: RangeInclusive<Instant>) {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    there.iter().for_each(|number| *counts.entry(*number).or_default() += 1);
    let missing: Vec<Instant> =
        ends.done.iter().filter(|(number, _)| !counts.contains_key(number)).map(|(_, at)| *at).collect();
    let is_late = |at: &Instant| *at + Duration::from_millis(300) >= *fault.start() && at <= fault.end();
    let late = missing.iter().filter(|at| is_late(at)).count();
    outcome.lost = Some((missing.len(), late));
    if late < missing.len() {
        let times: Vec<_> = missing
            .iter()
            .filter(|at| !is_late(at))
            .take(8)
            .map(|at| fault.end().saturating_duration_since(*at))
            .collect();
        outcome.note(format!("acknowledged so long before the host was lost, and missing: {times:?}"));
    }
    outcome.duplicates = Some(counts.values().filter(|count| **count > 1).count());
    outcome.longest = Some(ms(ends.longest));
    for (kind, (count, text)) in &ends.errors {
        outcome.errors.insert(kind.clone(), *count);
        outcome.examples.insert(kind.clone(), text.clone());
    }
    outcome.note(format!("{} done, {} not executed, {} maybe", ends.done.len(), ends.refused.len(), ends.maybe.len()));
    let ghosts = ends.refused.iter().filter(|number| counts.contains_key(number) || before.contains(number)).count();
    outcome.must("nothing is there that was told as not executed", ghosts == 0, ghosts.to_string());
    // Behind what both hosts have in common, one number on both was sent twice.
    let common = there.iter().zip(before).take_while(|(one, other)| one == other).count();
    let tail: std::collections::HashSet<&u64> = before[common.min(before.len())..].iter().collect();
    let twice = there[common..].iter().filter(|number| tail.contains(number)).count();
    outcome.must("nothing was sent to both hosts", twice == 0, twice.to_string());
    outcome.expect_lost_only_late();
    let most: usize = ends.errors.values().map(|(count, _)| count).sum();
    outcome.expect_errors(most, |kind| kind.maybe() || kind.retryable());
    outcome.expect_longest(5020.0);
}

// ---- 15: the reply is lost ----

fn reply_lost(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("lost").start();
    let node = deployment.primary_node(SERVICE);
    let door = Proxy::start(&node.addr());
    let map = format!("{}={}", node.addr(), door.addr());
    let stage = rig.stage_on(deployment, &[("address.map", &map)]);
    let client = stage.client().clone();
    let times = rig.pick(20, 200);
    let (mut silent, mut kinds, mut longest) = (0, Vec::new(), Duration::ZERO);
    for round in 0..times {
        let trap = if round % 2 == 0 { Trap::LoseReply } else { Trap::CutReply(1) };
        door.trap("torture-count", trap);
        let (outcome, took) = calls::timed(|| calls::cmd(&client, "INCR torture-count"));
        longest = longest.max(took);
        match outcome {
            Ok(_) => silent += 1,
            Err(error) => kinds.push(error),
        }
        calls::ok(&client, "PING");
    }
    let count = node.cmd(&["GET", "torture-count"]).int().unwrap_or(0);
    door.trap("torture-set", Trap::LoseReply);
    let repeated = calls::call(&client, "SET torture-set 1", CallFlags::IDEMPOTENT, Timeout::Default);
    let traps = door.traps_left();
    drop(client);
    let mut outcome = stage.close();
    outcome.duplicates = Some((count - times).unsigned_abs() as usize);
    outcome.longest = Some(ms(longest));
    for error in &kinds {
        *outcome.errors.entry(Kind::of(error)).or_default() += 1;
        outcome.examples.insert(Kind::of(error), error.message().to_owned());
    }
    outcome.expect_no_duplicates();
    outcome.must("no call claims success", silent == 0, silent.to_string());
    outcome.must("all traps were stepped into", traps == 0, traps.to_string());
    outcome.expect_errors(times as usize, in_flight);
    outcome.must("an idempotent call is repeated", repeated.is_ok(), format!("{:?}", repeated.err()));
    outcome.expect_longest(100.0);
    outcome
}

// ---- 16, 17: the primary is made a replica by hand ----

/// Makes the primary a replica, without ending its connections; its replica keeps nothing, being one itself.
fn demote(stage: &Stage) -> Arc<Node> {
    let node = stage.primary();
    let other = stage.deployment.replica_nodes(SERVICE).into_iter().next().expect("a replica");
    let reply = node.cmd(&["REPLICAOF", other.host(), &other.port().to_string()]);
    assert!(reply.is_ok(), "{}", reply.text());
    node
}

fn readonly(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("readonly"), &[]);
    let service = stage.handle.sentinel.service(SERVICE);
    let mut probe = stage.probe();
    probe.run_for(seconds(0.3));
    let asked = service.discovered();
    probe.fault();
    let node = demote(&stage);
    let demoted = Instant::now();
    eventually("the Sentinels are asked at once", Duration::from_secs(1), || service.discovered() > asked);
    let noticed = demoted.elapsed();
    std::thread::sleep(seconds(rig.pick(1.0, 3.0)).saturating_sub(demoted.elapsed()));
    node.cmd(&["REPLICAOF", "NO", "ONE"]);
    let back = Instant::now();
    probe.await_writes(1);
    probe.run_for(seconds(0.5));
    drop(service);
    let (mut outcome, seen) = stage.finish(probe);
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_ms("until the Sentinels were asked", ms(noticed), 50.0);
    let again = seen.first_after(back).map_or(f64::INFINITY, |at| ms(at - back));
    outcome.expect_ms("from the primary's return to the next write", again, 600.0);
    outcome.expect_longest(5020.0);
    outcome
}

fn readonly_inside(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("scripts"), &[]);
    let client = stage.client().clone();
    let service = stage.handle.sentinel.service(SERVICE);
    let script: [&[u8]; 4] = [b"EVAL", b"return redis.call('INCR', KEYS[1])", b"1", b"torture-script"];
    let run = || client.cmd_exec(&script, CallFlags::default(), Timeout::Ms(2000));
    run().expect("a primary");
    let session = client.session(None).expect("an open client");
    calls::ok(&session, "MULTI");
    calls::ok(&session, "INCR torture-exec");
    let asked = service.discovered();
    let node = demote(&stage);
    // By its body or by its hash.
    let runs = || node.calls("eval") + node.calls("evalsha");
    let before = runs();
    let (inside, took) = calls::timed(run);
    let evals = runs() - before;
    let exec = calls::cmd(&session, "EXEC");
    let asks = || service.discovered() > asked;
    eventually("the Sentinels are asked", Duration::from_secs(1), asks);
    node.cmd(&["REPLICAOF", "NO", "ONE"]);
    let again = eventually_some("the script runs again", Duration::from_secs(5), || run().ok());
    let _ = calls::cmd(&session, "DISCARD");
    let fresh = client.session(None).expect("an open client");
    let transaction = ["MULTI", "INCR torture-exec", "EXEC"].map(|line| calls::cmd(&fresh, line).map(|_| ()));
    let (count, executed) = (again.int(0), node.cmd(&["GET", "torture-exec"]).int());
    drop((session, fresh, client, service));
    let mut outcome = stage.close();
    outcome.longest = Some(ms(took));
    let code = |error: &Error| (error.status(), error.server_code().to_owned());
    let told = inside.as_ref().err().map(code);
    outcome.must(
        "the script's READONLY is told",
        told.as_ref().is_some_and(|(status, code)| *status == Status::Server && code == "READONLY"),
        format!("{told:?}"),
    );
    outcome.must("the script ran once", evals <= 1, evals.to_string());
    let told = exec.as_ref().err().map(code);
    outcome.must("EXEC is an error", told.is_some(), "");
    outcome.note(format!("EXEC: {}", told.map_or("ok".into(), |(_, code)| code)));
    outcome.must("a new session's transaction runs", transaction.iter().all(Result::is_ok), format!("{transaction:?}"));
    outcome.must("every script ran once", count == Some(2), format!("{count:?}"));
    outcome.must("the transaction ran once", executed == Some(1), format!("{executed:?}"));
    outcome.expect_longest(2020.0);
    outcome
}

// ---- 18, 19: what a server refuses for a while ----

fn masterdown(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("masterdown").conf("replica-serve-stale-data no"), &[]);
    let reader = stage.handle.client(Target::Replica, &[]);
    stage.primary().cmd(&["SET", "torture-reads", "1"]);
    let victim = stage.deployment.replica_nodes(SERVICE).into_iter().next().expect("a replica");
    (0..10).for_each(|_| drop(calls::ok(&reader, "GET torture-reads")));
    victim.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    eventually("the replica answers MASTERDOWN", Duration::from_secs(5), || {
        victim.cmd(&["GET", "torture-reads"]).text().starts_with("MASTERDOWN")
    });
    let end = Instant::now() + seconds(rig.pick(2.0, 10.0));
    let (mut longest, mut errors, mut reads) = (Duration::ZERO, Vec::new(), 0);
    while Instant::now() < end {
        let (outcome, took) = calls::timed(|| calls::within(&reader, "GET torture-reads", 1000));
        longest = longest.max(took);
        reads += 1;
        errors.extend(outcome.err());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(reader);
    let mut outcome = stage.close();
    outcome.longest = Some(ms(longest));
    for error in &errors {
        *outcome.errors.entry(Kind::of(error)).or_default() += 1;
        outcome.examples.insert(Kind::of(error), error.message().to_owned());
    }
    outcome.note(format!("{reads} reads"));
    outcome.expect_no_errors();
    outcome.expect_longest(100.0);
    outcome
}

fn noreplicas(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("noreplicas").conf("min-replicas-to-write 1"), &[]);
    let patient = stage.handle.client(Target::Primary, &[("retry.noreplicas", "true")]);
    calls::ok(stage.client(), "INCR torture-a");
    calls::ok(&patient, "INCR torture-b");
    let (node, replicas) = (stage.primary(), stage.deployment.replica_nodes(SERVICE));
    replicas.iter().for_each(|replica| replica.kill());
    eventually("the primary refuses", Duration::from_secs(5), || {
        node.cmd(&["SET", "torture-x", "1"]).text().starts_with("NOREPLICAS")
    });
    let (at_once, took) = calls::timed(|| calls::cmd(stage.client(), "INCR torture-a"));
    let (late, waited) = calls::timed(|| calls::within(&patient, "INCR torture-b", 500));
    let caller = patient.clone();
    let job = calls::spawn(move || calls::within(&caller, "INCR torture-b", 10_000));
    replicas.iter().for_each(|replica| replica.restart());
    let back = calls::join(&job);
    drop(patient);
    let mut outcome = stage.close();
    outcome.longest = Some(ms(waited));
    for error in [&at_once, &late].into_iter().filter_map(|outcome| outcome.as_ref().err()) {
        *outcome.errors.entry(Kind::of(error)).or_default() += 1;
        outcome.examples.insert(Kind::of(error), error.message().to_owned());
    }
    outcome.expect_errors(2, |kind| kind.name == "SERVER NOREPLICAS" && kind.retryable() && !kind.maybe());
    outcome.must("both are refused", at_once.is_err() && late.is_err(), "");
    outcome.expect_ms("told at once", ms(took), 20.0);
    outcome.expect_longest(520.0);
    let value = back.as_ref().ok().and_then(|reply| reply.int(0));
    outcome.must(
        "retried until the replicas are back, and done once",
        value == Some(2),
        format!("{back:?}", back = back.err()),
    );
    outcome
}
