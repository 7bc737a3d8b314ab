//! Section D: names, translated addresses, IPv6, credentials, old servers, storms of connections.

use super::cuts::{self, Cut};
use super::figures::{Outcome, ms};
use super::probe::{Habits, Probe};
use super::rig::{Handle, NAME, Rig, Stage};
use crate::calls::{self, SERVICE};
use crate::support::{Deployment, Node, Proxy, eventually, proc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vigie::client::{Client, Target, Timeout};
use vigie::error::Status;

scenarios! {
    scenario_51_hostnames(51, "host names", hostnames, needs_root: false);
    scenario_52_nat(52, "every address translated", nat, needs_root: false);
    scenario_53_ipv6(53, "IPv6 only", ipv6, needs_root: false);
    scenario_53_mixed(53, "IPv6 clients, IPv4 nodes", mixed, needs_root: false);
    scenario_55_credentials(55, "two users, one wrong password, rotation", credentials, needs_root: false);
    scenario_57_old_server(57, "servers without HELLO", old_server, needs_root: false);
    scenario_58_connection_storm(58, "storm of connections", connection_storm, needs_root: false);
}

const SECOND: Duration = Duration::from_secs(1);

/// A planned failover, then the end of the new primary, under the standard probe: two switches.
fn two_switches(rig: &Rig, stage: Stage) -> Outcome {
    let mut probe = stage.probe();
    probe.run_for(Duration::from_millis(300));
    probe.fault();
    let old = stage.deployment.failover_by(SERVICE, &stage.sentinel(1));
    let new = stage.deployment.wait_switched(SERVICE, &old);
    probe.await_writes(20);
    let planned = stage.handle.switches().len();
    if rig.is_full() {
        probe.run_for(Duration::from_secs(12));
    }
    let mut crash = Outcome::default();
    if rig.is_full() {
        new.kill();
        stage.deployment.wait_switched(SERVICE, &new);
        probe.await_writes(20);
        crash.must("the crash is a second switch", stage.handle.switches().len() == planned + 1, stage.story());
    }
    let (mut outcome, _) = stage.finish(probe);
    outcome.checks.extend(crash.checks);
    outcome.must("the planned failover is one switch", planned == 1, planned.to_string());
    if rig.is_full() {
        outcome.expect_lost(1)
    } else {
        outcome.expect_lost(0)
    }
    outcome.expect_errors(4, |kind| kind.maybe());
    outcome.expect_failover_gap(rig.pick(1500.0, 2500.0));
    outcome
}

fn hostnames(rig: &Rig) -> Outcome {
    let stage = rig.stage(rig.deployment("names").hostnames(true), &[]);
    let named = stage.handle.primary().starts_with("localhost:");
    let mut outcome = two_switches(rig, stage);
    outcome.must("the primary is known by its name", named, "");
    outcome
}

/// In front of each node a proxy, whose address is the only one that the library may dial.
struct Nat {
    proxies: Vec<(Arc<Node>, Proxy)>,
}

impl Nat {
    fn before(deployment: &Deployment) -> Nat {
        Nat { proxies: deployment.nodes().into_iter().map(|node| (node.clone(), Proxy::start(&node.addr()))).collect() }
    }
    fn map(&self) -> String {
        let pairs = self.proxies.iter().map(|(node, proxy)| format!("{}={}", node.addr(), proxy.addr()));
        pairs.collect::<Vec<_>>().join(",")
    }
    /// The library's connections that did not come through a proxy.
    fn direct(&self) -> usize {
        let of = |(node, proxy): &(Arc<Node>, Proxy)| match node.is_serving() {
            true => node.clients_named(NAME).len().saturating_sub(proxy.connections()),
            false => 0,
        };
        self.proxies.iter().map(of).sum()
    }
}

fn nat(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("nat").start();
    let nat = Nat::before(&deployment);
    let own: Vec<String> = deployment.sentinel_addrs();
    let seen = |addr: &String| nat.proxies.iter().find(|(node, _)| node.addr() == *addr).map(|(_, proxy)| proxy.addr());
    let addrs: Vec<String> = own.iter().filter_map(seen).collect();
    let stage = Stage::new(deployment, &addrs, &[("address.map", &nat.map())]);
    let readers = stage.handle.client(Target::Split, &[]);
    let mut probe = Probe::start(&readers, Habits::default());
    probe.run_for(Duration::from_millis(300));
    let direct = nat.direct();
    let first = stage.handle.primary();
    let old = stage.primary();
    probe.fault_by(|| old.kill());
    let new = stage.deployment.wait_switched(SERVICE, &old);
    probe.await_writes(20);
    let after = nat.direct();
    let primary = stage.handle.primary();
    let mapped = nat.proxies.iter().find(|(node, _)| node.addr() == new.addr()).map(|(_, proxy)| proxy.addr());
    let story = stage.story();
    let told = stage.handle.switches();
    let known = addrs.len();
    let topology = calls::json(&super::rig::topology(&stage.handle));
    // The proxies hold descriptors of this process.
    nat.proxies.iter().for_each(|(_, proxy)| proxy.cut());
    let (mut outcome, _) = stage.finish(probe);
    outcome.checks.retain(|check| !matches!(check, super::figures::Check::Must { what, .. } if what == "FD as before"));
    outcome.must("every connection goes through a proxy", direct + after == 0, format!("{direct}, {after}"));
    outcome.must("the new primary is known by its mapped address", Some(&primary) == mapped.as_ref(), primary.clone());
    outcome.must(
        "the event tells the mapped addresses",
        told.len() == 1 && told[0].text.contains(&first) && told[0].text.contains(&primary),
        story,
    );
    let listed = topology.matches("\"state\":").count();
    outcome.must("no Sentinel is known twice", listed == known, topology);
    outcome.expect_lost_only_late();
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome.expect_failover_gap(2500.0);
    outcome
}

fn ipv6(rig: &Rig) -> Outcome {
    let deployment = rig.deployment("ipv6").ipv6(true).start();
    // Another spelling of the same addresses, each twice.
    let long = |node: &Arc<Node>| format!("[0:0:0:0:0:0:0:1]:{}", node.port());
    let mut addrs: Vec<String> = deployment.sentinel_nodes().iter().map(long).collect();
    addrs.extend(deployment.sentinel_addrs());
    let handle = Handle::open(&addrs, &[]);
    calls::ok(&handle.client, "PING");
    let known = calls::json(&super::rig::topology(&handle)).matches("\"state\":").count();
    drop(handle);
    let mut outcome = two_switches(rig, rig.stage_on(deployment, &[]));
    outcome.must("each Sentinel is known once", known == 3, known.to_string());
    outcome
}

/// The client and the Sentinels' addresses are IPv6, what they announce is IPv4.
fn mixed(rig: &Rig) -> Outcome {
    let mut builder = rig.deployment("mixed");
    for index in 0..3 {
        builder = builder.node_conf(&format!("sentinel-{index}"), "bind 127.0.0.1 ::1");
    }
    let deployment = builder.start();
    let v6 = |node: &Arc<Node>| format!("[::1]:{}", node.port());
    let addrs: Vec<String> = deployment.sentinel_nodes().iter().map(v6).collect();
    two_switches(rig, Stage::new(deployment, &addrs, &[]))
}

/// The ids of our subscriptions in the answer to CLIENT LIST.
fn subscriptions(list: &str) -> Vec<String> {
    let ours = list.lines().filter(|line| line.contains(&format!(" name={NAME} ")) && !line.contains(" psub=0 "));
    ours.filter_map(|line| Some(line.split_once("id=")?.1.split(' ').next()?.to_owned())).collect()
}

fn credentials(rig: &Rig) -> Outcome {
    let builder = rig.deployment("credentials").acl("app", "one").sentinel_acl("watch", "two");
    let options = [
        ("auth.username", "app"),
        ("auth.password", "one"),
        ("sentinel.username", "watch"),
        ("sentinel.password", "two"),
    ];
    let stage = rig.stage(builder, &options);
    let odd = stage.sentinel(0);
    let mut inside = odd.connect().expect("a login");
    let mut ask = |words: &[&str]| inside.cmd(words).expect("an answer");
    // Not the Sentinels' own links: those are logged in already, and stay.
    ask(&["ACL", "SETUSER", "watch", ">other", "<two"]);
    let kill_named = |ask: &mut dyn FnMut(&[&str]) -> crate::support::Value| {
        let list = ask(&["CLIENT", "LIST"]).text();
        let ours = list.lines().filter(|line| line.contains(&format!(" name={NAME} ")));
        let ids: Vec<String> =
            ours.filter_map(|line| Some(line.split_once("id=")?.1.split(' ').next()?.to_owned())).collect();
        ids.iter().map(|id| Cut::by(|| drop(ask(&["CLIENT", "KILL", "ID", id])))).collect::<Vec<_>>()
    };
    let mut probe = stage.probe();
    probe.fault();
    kill_named(&mut ask);
    // A handle that meets the wrong password from the first moment on.
    let began = Instant::now();
    let late = calls::sentinel_of(&stage.deployment, &options);
    let client = calls::to_primary(&late, &[]);
    calls::ok(&client, "PING");
    let first = began.elapsed();
    let told = calls::json(&late.topology(Some(SERVICE)).expect("an open handle"));
    let named = told.contains(&odd.addr()) && told.contains("WRONGPASS");
    drop(vigie::client::close_all(&late, Timeout::Ms(500)));
    probe.run_for(Duration::from_millis(rig.pick(2000, 10_000)));
    let refused: u64 = refused_logins(&ask(&["ACL", "LOG", "128"]));
    let seconds = probe.since_fault().as_secs_f64();
    // Rotation: both passwords are good for a while, then the library is told, then the old one goes.
    let primary = stage.primary();
    for node in stage.deployment.data_nodes(SERVICE) {
        node.cmd(&["ACL", "SETUSER", "app", ">three"]);
    }
    stage.handle.sentinel.configure("auth.password", "three").expect("a new password");
    let mut data = primary.connect().expect("a login");
    data.cmd(&["ACL", "SETUSER", "app", "<one"]).expect("an answer");
    let cuts = kill_named(&mut |words: &[&str]| data.cmd(words).expect("an answer"));
    probe.await_writes(50);
    ask(&["ACL", "SETUSER", "watch", ">four", "<other"]);
    for sentinel in stage.deployment.sentinel_nodes().iter().skip(1) {
        sentinel.cmd(&["ACL", "SETUSER", "watch", ">four"]);
    }
    // A subscription that stands is replaced without an event: only the Sentinels tell that it is another one.
    let others: Vec<_> = stage.deployment.sentinel_nodes().into_iter().skip(1).collect();
    let mut subscribed = || -> Vec<Vec<String>> {
        let lists = others.iter().map(|node| node.cmd(&["CLIENT", "LIST"]).text());
        lists.chain([ask(&["CLIENT", "LIST"]).text()]).map(|list| subscriptions(&list)).collect()
    };
    let before = subscribed();
    stage.handle.sentinel.configure("sentinel.password", "four").expect("a new password");
    eventually("all Sentinels are heard with the new password", 30 * SECOND, || {
        subscribed().iter().zip(&before).all(|(now, before)| now.iter().any(|id| !before.contains(id)))
    });
    probe.await_writes(50);
    data.cmd(&["ACL", "SETUSER", "app", ">one"]).expect("an answer");
    drop((data, inside));
    let (mut outcome, seen) = stage.finish(probe);
    outcome.must("the topology names the Sentinel and the cause", named, told);
    outcome.note(format!("{refused} refused logins in {seconds:.1} s"));
    outcome.must("no storm of logins", (refused as f64) < 4.0 * seconds + 8.0, format!("{refused} in {seconds} s"));
    outcome.expect_ms("first answer with one wrong password of three", ms(first), 300.0);
    outcome.expect_lost(0);
    cuts::excuse(&mut outcome, &seen, &cuts);
    outcome.expect_no_errors();
    outcome.expect_gap(300.0);
    outcome
}

/// How often ACL LOG counts a refused login.
fn refused_logins(log: &crate::support::Value) -> u64 {
    let count = |entry: &crate::support::Value| {
        let auth = entry.field("reason").as_deref() == Some("auth");
        auth.then(|| entry.field("count")?.parse::<u64>().ok()).flatten()
    };
    log.items().iter().filter_map(count).sum()
}

fn old_server(rig: &Rig) -> Outcome {
    let builder = rig.deployment("old").conf("rename-command HELLO \"\"");
    let stage = rig.stage(builder, &[]);
    // A replica under the primary's address is refused all the same: the role is asked.
    let replica = stage.deployment.replica_nodes(SERVICE)[0].clone();
    let lying = crate::support::Scripted::sentinel(SERVICE, &replica.addr());
    let liar = calls::handle(&lying, &[]);
    let refused = calls::within(&calls::to_primary(&liar, &[]), "PING", 300);
    let status = refused.err().map(|error| error.status());
    drop(vigie::client::close_all(&liar, Timeout::Ms(500)));
    drop(lying);
    let mut outcome = two_switches(rig, stage);
    outcome.must("a replica is not taken for a primary", status == Some(Status::Role), format!("{status:?}"));
    outcome
}

/// Many clients with many threads lose their primary at once, and the next one has little room.
fn connection_storm(rig: &Rig) -> Outcome {
    let (handles, threads) = rig.pick((12_i64, 4), (50, 8));
    let builder = rig.deployment("storm").conf("maxclients 1000").conf("tcp-backlog 128");
    let stage = rig.stage(builder, &[]);
    let others: Vec<_> = (0..handles)
        .map(|_| {
            let sentinel = calls::sentinel_of(&stage.deployment, &[("pool.max", "64"), ("client.name", NAME)]);
            let client = calls::to_primary(&sentinel, &[]);
            (sentinel, client)
        })
        .collect();
    // However this ends, the crowd goes home.
    let stop = Stop::default();
    let failed: Arc<AtomicU64> = Arc::default();
    let longest: Arc<AtomicU64> = Arc::default();
    let mut crowd = Vec::new();
    for (_, client) in &others {
        for _ in 0..threads {
            let (client, stop) = (client.clone(), stop.0.clone());
            let (failed, longest) = (failed.clone(), longest.clone());
            crowd.push(proc::thread("kit-crowd", move || storm_writer(&client, &stop, &failed, &longest)));
        }
    }
    let mut probe = stage.probe();
    probe.run_for(Duration::from_millis(500));
    let old = stage.primary();
    probe.fault_by(|| old.kill());
    let new = stage.deployment.wait_switched(SERVICE, &old);
    probe.await_writes(50);
    probe.run_for(Duration::from_millis(rig.pick(1000, 5000)));
    let seconds = probe.since_fault().as_secs_f64();
    let connections: i64 = others.iter().map(|(_, client)| calls::primary_pool(client).get("size")).sum();
    drop(stop);
    crowd.into_iter().for_each(|thread| thread.join().expect("the crowd does not panic"));
    for (sentinel, _) in &others {
        drop(vigie::client::close_all(sentinel, Timeout::Ms(500)));
    }
    drop(others);
    // Only now there is a place for one who asks.
    let more = rejected(&new);
    let (mut outcome, _) = stage.finish(probe);
    outcome.note(format!("{handles} clients x {threads} threads: {connections} connections at the end, {more} refused by the new primary in {seconds:.1} s"));
    let (failed, longest) = (failed.load(Ordering::Acquire), longest.load(Ordering::Acquire));
    outcome.must("nobody in the crowd fails but for what was in flight", failed == 0, failed.to_string());
    outcome.expect_ms("longest call in the crowd", longest as f64 / 1000.0, 3000.0);
    // Calls share connections: 50 clients that may open 64 each are content with four.
    outcome.must("at most four connections for each client", connections <= 4 * handles, connections.to_string());
    outcome.must("no connection is refused", more == 0, more.to_string());
    outcome.expect_lost_only_late();
    outcome.expect_errors(2, |kind| kind.maybe());
    outcome.expect_failover_gap(2500.0);
    outcome
}

fn storm_writer(client: &Client, stop: &AtomicBool, failed: &AtomicU64, longest: &AtomicU64) {
    while !stop.load(Ordering::Acquire) {
        let (reply, took) = calls::timed(|| calls::within(client, "INCR crowd", 5000));
        longest.fetch_max(took.as_micros() as u64, Ordering::AcqRel);
        let in_flight = |error: &vigie::error::Error| error.has(vigie::error::flags::MAYBE_EXECUTED);
        if reply.is_err_and(|error| !in_flight(&error)) {
            failed.fetch_add(1, Ordering::AcqRel);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends those who hold a copy when it goes.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Connections that a node had no place for.
fn rejected(node: &Node) -> u64 {
    node.info("stats").get("rejected_connections").and_then(|count| count.parse().ok()).unwrap_or_default()
}
