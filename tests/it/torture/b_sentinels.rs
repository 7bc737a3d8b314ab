//! Section B: Sentinels wrong, slow, gone.

use super::cuts::{self, Cut};
use super::extra::{self, Added};
use super::figures::{Outcome, ms};
use super::probe::{Habits, Kind, Sample, Seen, list_of};
use super::rig::{Handle, Heard, Rig, Stage, word};
use crate::calls::{self, SERVICE, within};
use crate::support::{
    Deployment, FakeSentinel, Fault, Layout, Proxy, Scripted, Value, Way, blackhole, eventually, eventually_some,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vigie::client::{CallFlags, Target, Timeout};
use vigie::error::Status;
use vigie::queue::kind;
use vigie::time::Deadline;

scenarios! {
    scenario_20_minority_split(20, "minority split, client sees both", split, needs_root: true);
    scenario_20_minority_split_durable(20, "the same, write.replicas = all", split_durable, needs_root: true);
    scenario_20_minority_split_by_proxy(20, "the same by proxy and SIGSTOP", split_by_proxy, needs_root: false);
    scenario_21_client_in_the_minority(21, "client isolated with the primary", isolated, needs_root: true);
    scenario_21_majority_silent(21, "two of three Sentinels silent", majority_silent, needs_root: false);
    scenario_22_stale_sentinel_rejoins(22, "stale Sentinel rejoins", rejoins, needs_root: false);
    scenario_23_permanently_split(23, "permanently split Sentinels", permanently_split, needs_root: false);
    scenario_25_all_killed(25, "all Sentinels killed", all_killed, needs_root: false);
    scenario_26_all_killed_and_dropped(26, "all killed + CLIENT KILL", all_killed_and_dropped, needs_root: false);
    scenario_27_all_stopped(27, "all Sentinels stopped", all_stopped, needs_root: false);
    scenario_28_one_blackholed(28, "one Sentinel blackholed, first", one_blackholed, needs_root: false);
    scenario_30_refusals(30, "refusals of Sentinels", refusals, needs_root: false);
    scenario_31_name_unknown_to_one(31, "name unknown to one Sentinel", unknown_to_one, needs_root: false);
    scenario_32_plain_server(32, "plain server given as Sentinel", plain_server, needs_root: false);
    scenario_34_many_clients(34, "many clients reconnect", many_clients, needs_root: false);
    scenario_35_half_open(35, "half-open subscription", half_open, needs_root: false);
    scenario_36_missed_switch(36, "missed +switch-master", missed_switch, needs_root: false);
    scenario_37_foreign_group(37, "foreign group fails over", foreign_group, needs_root: false);
    scenario_38_replaced(38, "all Sentinels at new addresses", replaced, needs_root: true);
    scenario_39_added_and_removed(39, "Sentinel added and removed", added_and_removed, needs_root: false);
    scenario_41_many_masters(41, "2000 masters on the Sentinels", many_masters, needs_root: false);
    scenario_42_event_storm(42, "event storm of 200 groups", event_storm, needs_root: false);
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Fences that went up, or came down.
fn fences(handle: &Handle, up: bool) -> Vec<Heard> {
    let is = |heard: &Heard| word(&heard.text, "on") == up.to_string();
    handle.events_of(kind::FENCE).into_iter().filter(is).collect()
}

fn was_told(handle: &Handle, kind: u32, key: &str, value: &str) -> Option<Instant> {
    handle.events_of(kind).iter().find(|heard| word(&heard.text, key) == value).map(|heard| heard.at)
}

/// Acknowledged writes that are missing, though they were sent behind a fence that went up at `at`; what was in flight then is given
/// a moment.
fn lost_since(seen: &Seen, at: Instant) -> usize {
    seen.missing.iter().filter(|ended| **ended > at + millis(10)).count()
}

// 20

fn split(rig: &Rig) -> Outcome {
    split_network(rig, &[])
}

fn split_durable(rig: &Rig) -> Outcome {
    split_network(rig, &[("write.replicas", "all")])
}

/// The first host, with the primary and the first Sentinel, is cut off from the others; the client reaches all.
fn split_network(rig: &Rig, options: &[(&str, &str)]) -> Outcome {
    let stage = rig.stage(rig.deployment("split").network(Layout::Paired), options);
    let durable = !options.is_empty();
    let mut probe = stage.probe();
    probe.run_for(millis(500));
    let hosts = stage.deployment.data_nodes(SERVICE);
    probe.fault();
    let fault = Instant::now();
    for other in &hosts[1..] {
        hosts[0].netns().cut_off(other.netns().ip());
    }
    let old = hosts[0].clone();
    let was = old.addr();
    eventually("a switch", Duration::from_secs(12), || stage.handle.primary() != was);
    let switched = fault.elapsed();
    probe.run_for(millis(rig.pick(1500, 12_000)));
    let left = old.clients_named(super::rig::NAME).len();
    hosts[0].netns().heal();
    probe.run_for(millis(rig.pick(1500, 12_000)));
    // Neither what the stale Sentinel says nor what the primary of old says of itself draws anybody there.
    let drawn = old.clients_named(super::rig::NAME).len();
    let new = stage.deployment.data_nodes(SERVICE).into_iter().find(|node| node.addr() == stage.handle.primary());
    let (switches, up, story) = (stage.handle.switches(), fences(&stage.handle, true), stage.story());
    let seen = probe.stop_with(|| list_of(&new.expect("one of the nodes"), "torture"));
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.note(format!("switched after {} ms", switched.as_millis()));
    outcome.must("one switch", switches.len() == 1, story.clone());
    outcome.must("nobody is left on the old primary", left + drawn == 0, format!("{left}, {drawn}"));
    let lost = up.first().map(|first| lost_since(&seen, first.at));
    outcome.must("L = 0 behind the fence", lost == Some(0), format!("{lost:?}\n{story}"));
    if durable {
        outcome.expect_lost(0);
    } else {
        outcome.expect_failover_gap(2500.0);
        outcome.expect_errors(2, |kind| kind.maybe());
        outcome.expect_no_duplicates();
    }
    outcome
}

/// Replicas and Sentinels know the primary by a proxy's address, the client by its own: cutting the proxy is a partition. The first
/// Sentinel sleeps through the failover and comes back with the old epoch.
fn split_by_proxy(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("split-proxy").start();
    let old = deployment.primary_node(SERVICE);
    let proxy = Proxy::start(&old.addr());
    extra::move_primary_behind(&deployment, &proxy);
    let map = format!("{}={}", proxy.addr(), old.addr());
    let stage = rig.stage_on(deployment, &[("address.map", &map)]);
    let mut probe = stage.probe();
    probe.run_for(millis(500));
    let stale = stage.sentinel(0);
    probe.fault();
    stale.stop();
    proxy.refuse();
    proxy.cut();
    eventually("a switch", Duration::from_secs(12), || stage.handle.primary() != old.addr());
    stale.cont();
    probe.run_for(millis(rig.pick(2000, 6000)));
    let new = stage.deployment.data_nodes(SERVICE).into_iter().find(|node| node.addr() == stage.handle.primary());
    let (switches, up, story) = (stage.handle.switches(), fences(&stage.handle, true), stage.story());
    let seen = probe.stop_with(|| list_of(&new.expect("one of the nodes"), "torture"));
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.must("one switch", switches.len() == 1, story.clone());
    let lost = up.first().map(|first| lost_since(&seen, first.at));
    outcome.must("L = 0 behind the fence", lost == Some(0), format!("{lost:?}\n{story}"));
    outcome.expect_failover_gap(2500.0);
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome
}

// 21

const MAJORITY: [(&str, &str); 2] = [("monitor.interval", "400"), ("write.majority_ms", "1000")];

/// The client sees nothing but the primary and the first Sentinel, which see nothing else either.
fn isolated(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("isolated").network(Layout::Paired), &MAJORITY);
    let hosts = stage.deployment.data_nodes(SERVICE);
    let client = stage.deployment.network().client_ip();
    let cut = || {
        for other in &hosts[1..] {
            hosts[0].netns().cut_off(other.netns().ip());
            other.netns().cut_off(&client);
        }
    };
    let heal = || hosts.iter().for_each(|host| host.netns().heal());
    refuse_writes(rig, stage, cut, heal)
}

/// By proxies: a Sentinel that was stopped believes nothing itself for 30 s (TILT).
fn majority_silent(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("silent").start();
    let (proxies, map) = proxied(&deployment);
    let options = [MAJORITY[0], MAJORITY[1], ("address.map", map.as_str())];
    let stage = rig.stage_on(deployment, &options);
    let silent = |on: bool| {
        for proxy in &proxies[1..] {
            proxy.swallow(Way::Up, on);
            proxy.swallow(Way::Down, on);
            proxy.cut();
        }
    };
    refuse_writes(rig, stage, || silent(true), || silent(false))
}

fn refuse_writes(rig: &Rig, stage: Stage, cut: impl FnOnce(), heal: impl FnOnce()) -> Outcome {
    let habits = Habits { timeout: Timeout::Ms(700), ..Habits::default() };
    let mut probe = stage.probe_with(habits);
    probe.run_for(millis(600));
    probe.fault();
    let fault = Instant::now();
    cut();
    let cut_after = fault.elapsed();
    probe.run_for(millis(rig.pick(4000, 12_000)));
    let healed = Instant::now();
    heal();
    probe.run_for(millis(500));
    probe.await_writes(20);
    let back = healed.elapsed();
    let seen = probe.stop(&stage.deployment);
    let mut outcome = stage.close();
    outcome.take(&seen);
    let last = seen.writes.iter().filter(|one| one.is_ok() && one.ended < healed).map(|one| one.began).max();
    let last = last.map_or(0.0, |at| ms(at.saturating_duration_since(fault)));
    let slack = ms(cut_after);
    outcome.expect_ms("last write after the cut", last - slack, 1000.0);
    outcome.expect_ms_of_sentinels("back after", ms(back), rig.pick(8000.0, 12_000.0));
    outcome.must("refused as fenced", !seen.errors.is_empty(), outcome.error_text());
    // A call that ends just when they are back may hear both sides.
    let fits = |one: &Sample, kind: &Kind| {
        kind.name == "FENCED" || kind.name == "SPLIT_VIEW" && !kind.maybe() && one.ended > healed
    };
    let errors = seen.writes.iter().filter_map(|one| one.outcome.as_ref().err().map(|(kind, text)| (one, kind, text)));
    let other: Vec<_> = errors.filter(|(one, kind, _)| !fits(one, kind)).map(|(_, kind, text)| (kind, text)).collect();
    outcome.must("nothing but fenced", other.is_empty(), format!("{other:?}"));
    let (reads, failed) = (seen.reads.len(), seen.read_errors.values().sum::<usize>());
    outcome.must("reads go on", failed == 0 && reads > 100, format!("{failed} of {reads}: {:?}", seen.read_errors));
    outcome
}

// 22

fn rejoins(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("rejoins"), &[("monitor.interval", "1000")]);
    let mut probe = stage.probe();
    let stale = stage.sentinel(0);
    stale.stop();
    probe.run_for(millis(300));
    probe.fault();
    let old = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    let new = stage.deployment.wait_switched(SERVICE, &old);
    stage.handle.await_primary(&new.addr(), Duration::from_secs(5));
    stale.cont();
    // A client that begins with the stale one, in its first second.
    let (mut wrong, mut found) = (0, 0);
    let until = Instant::now() + millis(rig.pick(1500, 3000));
    while Instant::now() < until {
        let fresh = calls::sentinel_at(&[stale.addr()], &[("monitor", "off")]);
        let service = fresh.service(SERVICE);
        if let Ok(snapshot) = service.discover(0, Deadline::after(millis(900))) {
            let primary = snapshot.primary.as_ref().map(ToString::to_string).unwrap_or_default();
            wrong += usize::from(primary == old.addr());
            found += usize::from(primary == new.addr());
        }
        fresh.close();
    }
    let (switches, story) = (stage.handle.switches(), stage.story());
    let (mut outcome, _) = stage.finish(probe);
    outcome.note(format!("{found} fresh clients found the new primary"));
    outcome.must("no fresh client believes the stale one", wrong == 0, format!("{wrong} of {}", wrong + found));
    outcome.must("one switch", switches.len() == 1, story);
    outcome.expect_lost(0);
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome.expect_failover_gap(1500.0);
    outcome
}

// 23

fn permanently_split(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("2-1"), &[("monitor.interval", "500")]);
    let probe = stage.probe();
    let (odd, other) = (stage.sentinel(2), stage.deployment.replica_nodes(SERVICE).remove(0));
    let was = stage.handle.primary();
    odd.cmd(&["SENTINEL", "REMOVE", SERVICE]);
    let port = other.port().to_string();
    odd.cmd(&["SENTINEL", "MONITOR", SERVICE, other.host(), &port, "2"]);
    odd.cmd(&["SENTINEL", "SET", SERVICE, "down-after-milliseconds", "60000"]);
    probe.run_for(millis(rig.pick(6000, 20_000)));
    let told = stage.handle.events_of(kind::SENTINEL);
    let warning = told.iter().find(|heard| word(&heard.text, "reason").starts_with("split_view"));
    let (switches, is, story) = (stage.handle.switches(), stage.handle.primary(), stage.story());
    let count = told.iter().filter(|heard| word(&heard.text, "reason").starts_with("split_view")).count();
    let warned = warning.is_some();
    let (mut outcome, _) = stage.finish(probe);
    outcome.must("the two win", is == was && switches.is_empty(), story.clone());
    outcome.must("one warning", warned && count == 1, format!("{count}\n{story}"));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_gap(50.0);
    outcome
}

// 25 to 27

fn kill_all(stage: &Stage) {
    stage.deployment.sentinel_nodes().iter().for_each(|node| node.kill());
}

fn all_killed(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("all-killed"), &[]);
    let primary = stage.primary();
    kill_all(&stage);
    // The first tries come close together.
    std::thread::sleep(millis(1000));
    let began = (Instant::now(), extra::library_time());
    let probe = stage.probe();
    probe.run_for(Duration::from_secs(rig.pick(6, 60)));
    let share = 100.0 * (extra::library_time() - began.1).as_secs_f64() / began.0.elapsed().as_secs_f64();
    let degraded = was_told(&stage.handle, kind::DEGRADED, "on", "true");
    let seen = probe.stop_with(|| list_of(&primary, "torture"));
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.note(format!("own threads {share:.2} %"));
    outcome.must("the library's threads take less than 1 %", share < 1.0, format!("{share:.2} %"));
    outcome.must("degraded is told", degraded.is_some(), "");
    let rate = outcome.queries.unwrap_or(f64::MAX);
    outcome.must("Q backs off", rate < 3.0, format!("{rate:.2}"));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_gap(50.0);
    outcome
}

fn all_killed_and_dropped(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("all-dropped"), &[]);
    let primary = stage.primary();
    let probe = stage.probe();
    kill_all(&stage);
    eventually("degraded is told", Duration::from_secs(5), || {
        was_told(&stage.handle, kind::DEGRADED, "on", "true").is_some()
    });
    let mut cuts = Vec::new();
    for _ in 0..rig.pick(3, 12) {
        cuts.push(Cut::all(&primary));
        probe.run_for(millis(1000));
    }
    let restarted = Instant::now();
    stage.sentinel(0).restart();
    let back = eventually_some("one is heard again", Duration::from_secs(10), || {
        was_told(&stage.handle, kind::DEGRADED, "on", "false")
    });
    let seen = probe.stop_with(|| list_of(&primary, "torture"));
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.expect_ms_of_sentinels("heard again after", ms(back.saturating_duration_since(restarted)), 3000.0);
    outcome.expect_lost(0);
    cuts::excuse(&mut outcome, &seen, &cuts);
    outcome.expect_no_errors();
    outcome.expect_gap(300.0);
    outcome
}

fn all_stopped(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("all-stopped"), &[]);
    let primary = stage.primary();
    let probe = stage.probe();
    let sentinels = stage.deployment.sentinel_nodes();
    sentinels.iter().for_each(|node| node.stop());
    let fresh = Handle::open(&stage.deployment.sentinel_addrs(), &[]);
    let service = fresh.sentinel.service(SERVICE);
    let (error, took) = calls::timed(|| service.discover(0, Deadline::after(Duration::from_secs(5))));
    let error = error.expect_err("nobody answers");
    // A call goes on asking until its own deadline, and not a moment longer.
    let (call, waited) = calls::timed(|| within(&fresh.client, "GET k", 900));
    let status = call.expect_err("nobody answers").status();
    drop(fresh);
    let cut = Cut::all(&primary);
    probe.run_for(Duration::from_secs(rig.pick(3, 12)));
    sentinels.iter().for_each(|node| node.cont());
    probe.run_for(millis(500));
    let seen = probe.stop_with(|| list_of(&primary, "torture"));
    let mut outcome = stage.close();
    outcome.take(&seen);
    outcome.expect_ms("discovery error after", ms(took), 520.0);
    outcome.must("nobody answered", error.status() == Status::NoSentinel, error.message());
    outcome.expect_ms("the call ends after", ms(waited), 920.0);
    outcome.must("the call tells why", status == Status::NoSentinel, format!("{status:?}"));
    outcome.expect_lost(0);
    cuts::excuse(&mut outcome, &seen, &[cut]);
    outcome.expect_no_errors();
    outcome.expect_gap(800.0);
    outcome
}

// 28 to 32

fn one_blackholed(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("blackholed").start();
    let hole = blackhole();
    let addrs: Vec<String> =
        std::iter::once(hole.addr()).chain(deployment.sentinel_addrs().into_iter().skip(1)).collect();
    let mut outcome = Outcome::default();
    let mut worst = Duration::ZERO;
    for _ in 0..rig.pick(5, 30) {
        let sentinel = calls::sentinel_at(&addrs, &[]);
        let client = calls::to_primary(&sentinel, &[]);
        let (reply, took) = calls::timed(|| calls::cmd(&client, "PING"));
        outcome.must("the first call goes well", reply.is_ok(), format!("{reply:?}"));
        worst = worst.max(took);
        sentinel.close();
    }
    outcome.expect_ms("first connect", ms(worst), 300.0);
    outcome
}

fn refusals(_rig: &Rig) -> Outcome {
    let primary = Scripted::primary();
    let error = |line: &str| Fault::Error(line.into());
    let cases = [
        ("LOADING", error("LOADING Redis is loading the dataset in memory"), Status::NoSentinel, "LOADING"),
        ("NOAUTH", error("NOAUTH Authentication required."), Status::Auth, "NOAUTH"),
        ("NOPERM", error("NOPERM this user has no permissions to run it"), Status::Auth, "NOPERM"),
        ("ERR", error("ERR unknown command 'SENTINEL'"), Status::NoSentinel, "unknown command"),
        ("null", Fault::Reply(Value::NilArray), Status::UnknownService, "does not know"),
    ];
    let mut outcome = Outcome::default();
    let mut texts = HashSet::new();
    for (name, fault, status, part) in cases {
        let sentinels = Scripted::sentinels(3, SERVICE, &primary.addr());
        let addrs: Vec<String> = sentinels.iter().map(|one| one.addr()).collect();
        let lay = |one: &FakeSentinel| {
            if name == "null" {
                one.state(|state| drop(state.services.remove(SERVICE)));
            } else {
                one.fault("SENTINEL", fault.clone());
            }
        };
        lay(&sentinels[0]);
        let sentinel = calls::sentinel_at(&addrs, &[]);
        let client = calls::to_primary(&sentinel, &[]);
        let (reply, took) = calls::timed(|| calls::cmd(&client, "GET k"));
        outcome.must(&format!("{name}: the others serve"), reply.is_ok(), format!("{reply:?}"));
        outcome.expect_ms(&format!("{name} after"), ms(took), 300.0);
        sentinel.close();
        sentinels[1..].iter().for_each(lay);
        let sentinel = calls::sentinel_at(&addrs, &[]);
        let client = calls::to_primary(&sentinel, &[]);
        match within(&client, "GET k", 300) {
            Ok(_) => outcome.must(&format!("{name} of all: fails"), false, "it did not"),
            Err(error) => {
                let text = error.message();
                let good = error.status() == status && text.contains(part);
                outcome.must(&format!("{name} of all: its own error"), good, format!("{:?}: {text}", error.status()));
                texts.insert(text.replace(|letter: char| letter.is_ascii_digit(), ""));
            }
        }
        sentinel.close();
    }
    outcome.must("the errors differ", texts.len() == 5, format!("{texts:?}"));
    outcome
}

fn unknown_to_one(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("unknown-to-one").start();
    let without = deployment.node("sentinel-0");
    without.cmd(&["SENTINEL", "REMOVE", SERVICE]);
    let addrs = deployment.sentinel_addrs();
    let mut outcome = Outcome::default();
    for _ in 0..rig.pick(5, 30) {
        let sentinel = calls::sentinel_at(&addrs, &[("monitor", "off")]);
        let client = calls::to_primary(&sentinel, &[]);
        let (reply, took) = calls::timed(|| calls::cmd(&client, "PING"));
        outcome.must("the others serve", reply.is_ok(), format!("{reply:?}"));
        outcome.expect_ms("first connect", ms(took), 300.0);
        let service = sentinel.service(SERVICE);
        let again = service.discover(service.discovered(), Deadline::after(Duration::from_secs(5))).expect("found");
        let first = again.sentinels.first().map(|view| view.endpoint.to_string()).unwrap_or_default();
        outcome.must("it is not the first", first != without.addr(), first);
        sentinel.close();
    }
    outcome
}

fn plain_server(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("plain").start();
    let plain = deployment.primary_node(SERVICE).addr();
    let mut outcome = Outcome::default();
    let sentinel = calls::sentinel_at(std::slice::from_ref(&plain), &[]);
    let reply = within(&calls::to_primary(&sentinel, &[]), "PING", 500);
    let text = reply.as_ref().map_or_else(|error| error.message().to_owned(), calls::text);
    outcome.must("not a Sentinel", reply.is_err() && text.contains("not a Sentinel"), text);
    sentinel.close();
    let addrs: Vec<String> = std::iter::once(plain).chain(deployment.sentinel_addrs().into_iter().skip(1)).collect();
    let sentinel = calls::sentinel_at(&addrs, &[]);
    let (reply, took) = calls::timed(|| calls::cmd(&calls::to_primary(&sentinel, &[]), "PING"));
    outcome.must("the others serve", reply.is_ok(), format!("{reply:?}"));
    outcome.expect_ms("first connect", ms(took), 300.0);
    sentinel.close();
    outcome
}

// 34

fn many_clients(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("many"), &[]);
    let count = rig.pick(40, 200);
    let stop = Arc::new(AtomicBool::new(false));
    let jobs: Vec<_> = (0..count)
        .map(|_| {
            let (client, stop) = (stage.handle.client(Target::Primary, &[]), stop.clone());
            calls::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::Acquire) {
                    match client.cmd_exec(&[b"INCR", b"n"], CallFlags::default(), Timeout::Ms(5000)) {
                        Ok(_) => good += 1,
                        Err(error) if error.has(vigie::error::flags::MAYBE_EXECUTED) => {}
                        Err(error) => bad.push(error.message().to_owned()),
                    }
                    std::thread::sleep(millis(20));
                }
                (good, bad)
            })
        })
        .collect();
    let mut probe = stage.probe();
    probe.run_for(millis(500));
    let sentinels = stage.deployment.sentinel_nodes();
    let load = || -> Vec<(u64, u64)> { sentinels.iter().map(|node| extra::load(node)).collect() };
    let subscriptions: Vec<usize> = sentinels.iter().map(|node| extra::subscriptions(node)).collect();
    let (before, began) = (load(), Instant::now());
    probe.fault();
    let old = stage.primary();
    old.kill();
    // The kit's own questions would count.
    eventually("the switch", Duration::from_secs(15), || stage.handle.primary() != old.addr());
    probe.run_for(millis(rig.pick(1500, 5000)));
    let wall = began.elapsed().as_secs_f64();
    let asked = load();
    stop.store(true, Ordering::Release);
    let ended: Vec<(usize, Vec<String>)> = jobs.iter().map(calls::join).collect();
    let (mut outcome, _) = stage.finish(probe);
    let bad: Vec<&String> = ended.iter().flat_map(|(_, bad)| bad).collect();
    outcome.must("every client gets over it", bad.is_empty(), format!("{:?}", bad.first()));
    outcome.must(
        "one subscription per Sentinel",
        subscriptions.iter().all(|count| *count == 1),
        format!("{subscriptions:?}"),
    );
    let most = |pick: fn(&(u64, u64)) -> u64| {
        before.iter().zip(&asked).map(|(before, after)| pick(after) - pick(before)).max().unwrap_or_default()
    };
    let (connections, commands) = (most(|load| load.0), most(|load| load.1));
    outcome
        .note(format!("{count} clients; per Sentinel in {wall:.1} s: {connections} connections, {commands} commands"));
    // As many as one client makes, whatever their number.
    outcome.must(
        "Sentinels are not stormed",
        (connections as f64) < 20.0 + 5.0 * wall,
        format!("{connections} in {wall:.1} s"),
    );
    outcome.expect_failover_gap(2500.0);
    outcome
}

// 35, 36

/// A proxy in front of each Sentinel, and the map that leads through them.
fn proxied(deployment: &Deployment) -> (Vec<Proxy>, String) {
    let addrs = deployment.sentinel_addrs();
    let proxies: Vec<Proxy> = addrs.iter().map(|addr| Proxy::start(addr)).collect();
    let pairs: Vec<String> =
        addrs.iter().zip(&proxies).map(|(addr, proxy)| format!("{addr}={}", proxy.addr())).collect();
    (proxies, pairs.join(","))
}

fn half_open(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("half-open").start();
    let (proxies, map) = proxied(&deployment);
    let stage = rig.stage_on(deployment, &[("address.map", &map)]);
    let probe = stage.probe();
    let mut outcome_checks = Vec::new();
    for proxy in &proxies[..rig.pick(1, 3)] {
        let since = Instant::now();
        proxy.swallow(Way::Up, true);
        proxy.swallow(Way::Down, true);
        let lost = |heard: &Heard| {
            heard.at > since && word(&heard.text, "sentinel") == proxy.addr() && word(&heard.text, "up") == "false"
        };
        let dead = eventually_some("the loss is noticed", Duration::from_secs(10), || {
            stage.handle.events_of(kind::SENTINEL).into_iter().find(lost)
        });
        outcome_checks.push(ms(dead.at - since));
        proxy.clear();
        let found = |heard: &Heard| heard.at > dead.at && word(&heard.text, "up") == "true";
        eventually("it is heard again", Duration::from_secs(5), || {
            stage.handle.events_of(kind::SENTINEL).iter().any(found)
        });
    }
    let (mut outcome, _) = stage.finish(probe);
    let worst = outcome_checks.into_iter().fold(0.0, f64::max);
    outcome.expect_ms("dead after", worst, 3000.0);
    outcome.must("dead within 3.2 s", worst < 3200.0, format!("{worst:.0} ms"));
    outcome.expect_no_errors();
    outcome.expect_gap(50.0);
    outcome
}

/// Nobody hears a word, nothing fails: only a poll can tell.
fn missed_switch(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("missed").start();
    let (proxies, map) = proxied(&deployment);
    let stage = rig.stage_on(deployment, &[("address.map", &map)]);
    let service = stage.handle.sentinel.service(SERVICE);
    // Words that were on their way have been heard, and the poll that comes next is a whole interval away.
    std::thread::sleep(millis(500));
    proxies.iter().for_each(|proxy| proxy.drop_chunks(Way::Down, "pmessage"));
    let asked = service.discovered();
    eventually("a poll", Duration::from_secs(8), || service.discovered() > asked);
    let old = stage.primary();
    let began = Instant::now();
    stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    eventually("the library knows of the failover", Duration::from_secs(10), || {
        service.is_fenced() || stage.handle.primary() != old.addr()
    });
    let noticed = began.elapsed();
    eventually("the library follows", Duration::from_secs(10), || stage.handle.primary() != old.addr());
    let took = began.elapsed();
    let reply = within(stage.client(), "SET after 1", 1000);
    let mut outcome = stage.close();
    outcome.must("a write goes through at once", reply.is_ok(), format!("{reply:?}"));
    outcome.expect_ms_of_sentinels("noticed after", ms(noticed), 5000.0);
    outcome.note(format!("followed after {} ms", took.as_millis()));
    outcome.must("within one poll interval", noticed < millis(5300), format!("{} ms", noticed.as_millis()));
    outcome
}

// 37

fn foreign_group(rig: &Rig) -> Outcome {
    // A Sentinel that a busy machine keeps waiting must not take a node for down: that would be told, and rightly.
    let deployment = rig.deployment("foreign").services([SERVICE, "other"]).replicas(1).down_after(30_000).start();
    let stage = rig.stage_on(deployment, &[]);
    let probe = stage.probe();
    let (primary, service) = (stage.primary(), stage.handle.sentinel.service(SERVICE));
    let mine = || -> HashSet<u64> { primary.clients_named(super::rig::NAME).iter().map(|client| client.id).collect() };
    // Each Sentinel that is listened to from now on is asked at once: that comes first.
    let mut asked = service.discovered();
    eventually("nothing is asked but by polls", Duration::from_secs(20), || {
        probe.run_for(millis(500));
        let now = service.discovered();
        std::mem::replace(&mut asked, now) == now
    });
    let (connections, version) = (mine(), service.version());
    let began = Instant::now();
    let events = stage.handle.events().len();
    for _ in 0..rig.pick(1, 3) {
        let old = stage.deployment.failover("other");
        stage.deployment.wait_switched("other", &old);
        probe.run_for(millis(500));
    }
    let (after, now, asked_now) = (mine(), service.version(), service.discovered());
    let polls = 1 + began.elapsed().as_millis() as u64 / 4000;
    let told = stage.handle.events().split_off(events);
    let (of_sentinels, about): (Vec<_>, Vec<_>) = told.into_iter().partition(|heard| heard.kind == kind::SENTINEL);
    let [of_sentinels, about] = [of_sentinels, about].map(|told| told.into_iter().map(|heard| heard.text));
    let (of_sentinels, about): (Vec<String>, Vec<String>) = (of_sentinels.collect(), about.collect());
    // One that a busy machine kept silent for too long is asked again when it is back, and when others tell of it.
    let polls = polls + of_sentinels.len() as u64;
    let (mut outcome, _) = stage.finish(probe);
    outcome.must(
        "the pools are untouched",
        connections == after && !after.is_empty(),
        format!("{connections:?} {after:?}"),
    );
    outcome.must("the topology is untouched", version == now, format!("{version} {now}"));
    outcome.must("nothing is told", about.is_empty(), about.join("\n"));
    outcome.must(
        "no question more than by polls",
        asked_now - asked <= polls,
        format!("{} in {polls}: {of_sentinels:?}", asked_now - asked),
    );
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_gap(50.0);
    outcome
}

// 38, 39

/// In a mount namespace of its own, so that the names can move.
fn replaced(rig: &Rig) -> Outcome {
    extra::with_names(&["vigie-s0", "vigie-s1", "vigie-s2"], "127.0.0.1", |names| replaced_there(rig, names))
}

fn replaced_there(rig: &Rig, names: &extra::Names) -> Outcome {
    let deployment = rig.deployment("replaced").start();
    let nodes = deployment.sentinel_nodes();
    let addrs: Vec<String> =
        nodes.iter().enumerate().map(|(index, node)| format!("vigie-s{index}:{}", node.port())).collect();
    let primary = deployment.primary_node(SERVICE);
    let stage = Stage::new(deployment, &addrs, &[]);
    let probe = stage.probe();
    probe.run_for(millis(300));
    nodes.iter().for_each(|node| node.kill());
    let new: Vec<Added> =
        nodes.iter().map(|node| Added::start("127.0.0.7", node.port(), &primary, &stage.deployment)).collect();
    new.iter().for_each(|one| one.await_peers(2));
    let moved = Instant::now();
    names.point_to("127.0.0.7");
    let found = eventually_some("a Sentinel is heard again", Duration::from_secs(10), || {
        was_told(&stage.handle, kind::DEGRADED, "on", "false")
    });
    let degraded = stage.handle.events_of(kind::DEGRADED).len();
    let heard = found.saturating_duration_since(moved);
    // The lost subscriptions come back one by one.
    probe.run_for(millis(2500));
    new[0].cmd(&["SENTINEL", "FAILOVER", SERVICE]);
    eventually("the switch is followed", Duration::from_secs(10), || stage.handle.primary() != primary.addr());
    probe.run_for(millis(rig.pick(500, 12_000)));
    let (now, story) = (stage.handle.primary(), stage.story());
    let node = stage.deployment.data_nodes(SERVICE).into_iter().find(|node| node.addr() == now).expect("one of ours");
    let seen = probe.stop_with(|| list_of(&node, "torture"));
    let mut outcome = stage.close();
    drop(new);
    outcome.take(&seen);
    outcome.expect_ms_of_sentinels("heard at the new addresses after", ms(heard), 3500.0);
    outcome.must("degraded once, and back", degraded == 2 && found > moved, story.clone());
    outcome.note(format!("{} switches", story.matches("switched").count()));
    outcome.expect_lost(0);
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome.expect_failover_gap(1500.0);
    outcome
}

fn added_and_removed(rig: &Rig) -> Outcome {
    let port = crate::support::ports::reserve();
    let stage = rig.stage(rig.deployment("added"), &[("monitor.interval", "500")]);
    let service = stage.handle.sentinel.service(SERVICE);
    let probe = stage.probe();
    let known = || service.snapshot().sentinels.iter().filter(|view| view.state != "skipped").count();
    let primary = stage.primary();
    let added = Added::start("127.0.0.1", port.number, &primary, &stage.deployment);
    let began = Instant::now();
    let addr = added.addr();
    eventually("the new one is known", Duration::from_secs(8), || known() == 4);
    let grown = began.elapsed();
    let heard = |up: &str| {
        let is = |one: &Heard| word(&one.text, "sentinel") == addr && word(&one.text, "up") == up;
        stage.handle.events_of(kind::SENTINEL).iter().any(is)
    };
    eventually("the new one is listened to", Duration::from_secs(5), || heard("true"));
    drop(added);
    let gone = Instant::now();
    for node in stage.deployment.sentinel_nodes() {
        node.cmd(&["SENTINEL", "RESET", SERVICE]);
    }
    eventually("it is forgotten", Duration::from_secs(rig.pick(12, 20)), || known() == 3);
    let shrunk = gone.elapsed();
    stage.deployment.wait_ready(SERVICE);
    let switches = stage.handle.switches();
    let (mut outcome, _) = stage.finish(probe);
    outcome.note(format!("known after {} ms, forgotten after {} ms", grown.as_millis(), shrunk.as_millis()));
    outcome.must("nothing else changes", switches.is_empty(), format!("{switches:?}"));
    outcome.expect_lost(0);
    outcome.expect_no_errors();
    outcome.expect_gap(50.0);
    outcome
}

// 41, 42

/// Scripted Sentinels that watch our service and so many others.
fn crowded(others: usize) -> (crate::support::FakeNode, Vec<FakeSentinel>) {
    let primary = Scripted::primary();
    let sentinels = Scripted::sentinels(3, SERVICE, &primary.addr());
    for one in &sentinels {
        one.state(|state| {
            let peers = state.services[SERVICE].peers.clone();
            for index in 0..others {
                let port = 1000 + index % 60_000;
                let mut service = crate::support::fake_sentinel::ServiceState::of(&format!("10.9.8.7:{port}"));
                service.peers = peers.clone();
                state.services.insert(format!("group-{index}"), service);
            }
        });
    }
    (primary, sentinels)
}

fn addrs_of(sentinels: &[FakeSentinel]) -> Vec<String> {
    sentinels.iter().map(|one| one.addr()).collect()
}

fn many_masters(rig: &Rig) -> Outcome {
    let (_primary, sentinels) = crowded(2000);
    let mut outcome = Outcome::default();
    let sentinel = calls::sentinel_at(&addrs_of(&sentinels), &[("monitor.interval", "500")]);
    let client = calls::to_primary(&sentinel, &[]);
    let (reply, took) = calls::timed(|| calls::cmd(&client, "GET k"));
    outcome.must("found", reply.is_ok(), format!("{reply:?}"));
    outcome.expect_ms("first connect", ms(took), 300.0);
    let began = (Instant::now(), extra::library_time());
    std::thread::sleep(millis(rig.pick(3000, 10_000)));
    let share = 100.0 * (extra::library_time() - began.1).as_secs_f64() / began.0.elapsed().as_secs_f64();
    outcome.note(format!("own threads {share:.2} % at two polls per second"));
    for one in &sentinels {
        outcome.must("SENTINEL MASTERS is never used", one.count("SENTINEL MASTERS") == 0, "");
        outcome.must("SENTINEL MASTER is", one.count("SENTINEL MASTER") > 2, one.commands().join("; "));
    }
    sentinel.close();
    outcome
}

fn event_storm(rig: &Rig) -> Outcome {
    let (primary, sentinels) = crowded(200);
    let new = Scripted::replica(&primary.addr());
    for one in &sentinels {
        one.service(SERVICE, |state| state.add_replica(&new.addr()));
    }
    let mut outcome = Outcome::default();
    let handle = Handle::open(&addrs_of(&sentinels), &[]);
    calls::ok(&handle.client, "SET k 1");
    sentinels.iter().for_each(|one| one.wait_count("PSUBSCRIBE", 1, Duration::from_secs(5)));
    let service = handle.sentinel.service(SERVICE);
    let (asked, own) = (service.discovered(), extra::library_time());
    let rounds = rig.pick(50, 400);
    let storm = |count: usize| {
        for _ in 0..count {
            for group in 0..200 {
                let payload = format!("master group-{group} 10.9.8.7 {}", 1000 + group);
                for one in &sentinels {
                    one.publish(["+sdown", "-sdown"][group % 2], &payload);
                }
            }
        }
    };
    let began = Instant::now();
    storm(rounds / 2);
    let questions = service.discovered() - asked;
    new.state(|state| state.role = crate::support::FakeRole::Primary);
    let switched = Instant::now();
    for one in &sentinels {
        one.switch_master(SERVICE, &new.addr());
    }
    let waiter = calls::spawn({
        let service = service.clone();
        let goal = new.addr();
        move || {
            eventually("the switch is not lost in the storm", Duration::from_secs(20), || {
                service.load().primary.as_ref().is_some_and(|primary| primary.to_string() == goal)
            });
            switched.elapsed()
        }
    });
    storm(rounds - rounds / 2);
    let wall = began.elapsed();
    let followed = calls::join(&waiter);
    let spent = extra::library_time() - own;
    let events = (rounds * 200 * 3) as f64;
    let each = spent.as_secs_f64() * 1e6 / events;
    outcome.note(format!("{events} events in {:.1} s, {each:.1} us of the library each", wall.as_secs_f64()));
    outcome.expect_ms_of_sentinels("followed after", ms(followed), 300.0);
    let polls = 2 + wall.as_secs() / 4;
    outcome.must("no question because of others", questions <= polls, format!("{questions} in {wall:?}"));
    outcome.must("an event takes less than 100 us", each < 100.0, format!("{each:.1} us"));
    let foreign = handle.events().iter().filter(|heard| heard.text.contains("group-")).count();
    outcome.must("nothing of others is told", foreign == 0, foreign.to_string());
    outcome
}
