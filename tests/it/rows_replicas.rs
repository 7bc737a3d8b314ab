//! Feature rows 36, 40, 44 and 46: several services, and what replicas are read from when the topology changes.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use stage::{SOON, Watch};
use support::*;
use vigie::client::{Client, Target};
use vigie::error::{Status, flags};
use vigie::queue::kind;
use vigie::resp::Reply;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

/// No poll happens during a test: everything comes from events, or from requests of the test.
const NO_POLLS: (&str, &str) = ("monitor.interval", "60000");

fn refresh(sentinel: &Arc<Sentinel>) {
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is known");
}

/// Which of these nodes answer, if a client reads often enough to reach all that it uses.
fn readers(client: &Client, nodes: &[Arc<Node>]) -> Vec<u16> {
    let before: Vec<u64> = nodes.iter().map(|node| node.calls("get")).collect();
    for _ in 0..8 {
        within(client, "GET k", 1000).unwrap_or_else(|error| panic!("{error}"));
    }
    let used = |(node, before): (&Arc<Node>, u64)| (node.calls("get") > before).then(|| node.port());
    nodes.iter().zip(before).filter_map(used).collect()
}

fn ports(nodes: &[Arc<Node>]) -> Vec<u16> {
    nodes.iter().map(|node| node.port()).collect()
}

#[test]
fn row_36_several_services_and_the_failover_of_one() {
    let d = Deployment::new("row36").services(["one", "two"]).replicas(1).start();
    let sentinel = sentinel_of(&d, &[NO_POLLS, ("client.name", "row36")]);
    let open = |service, target| Client::open(&sentinel, Some(service), target, None).expect("a client");
    let (one, two, reads_two) =
        (open("one", Target::Primary), open("two", Target::Primary), open("two", Target::Replica));
    let session = two.session(None).expect("a session");
    ok(&one, "SET k one");
    ok(&two, "SET k two");
    ok(&session, "WATCH k");
    eventually("it is replicated", SOON, || ok(&reads_two, "GET k") == "two");
    let ids = || (client_id(&two), client_id(&session), client_id(&reads_two));
    let before = ids();
    let watch = Watch::on(&sentinel);
    let old = d.failover("one");
    let new = d.wait_switched("one", &old);
    eventually("the one is followed", SOON, || primary_pool(&one).endpoint == new.addr());
    ok(&one, "SET k new");
    assert_eq!(ids(), before, "the other keeps its connections");
    assert_eq!(
        (ok(&one, "GET k"), ok(&two, "GET k"), ok(&reads_two, "GET k")),
        ("new".into(), "two".into(), "two".into())
    );
    assert_eq!(
        json(&run(&session, &["MULTI", "SET k three", "EXEC"]).expect("still watched")),
        r#"["OK","QUEUED",["OK"]]"#
    );
    let (ours, others): (Vec<_>, Vec<_>) = watch.switches().into_iter().partition(|told| told.get("service") == "one");
    assert_eq!((ours.len(), others.len()), (1, 0));
    assert!(!watch.all().iter().any(|told| told.kind == kind::FENCE && told.get("service") == "two"));
}

#[test]
fn row_40_a_broken_link_to_the_primary_takes_a_replica_out() {
    let d = Deployment::new("row40").password("right").start();
    let sentinel =
        sentinel_of(&d, &[("auth.password", "right"), ("monitor.interval", "300"), ("replica.fallback", "error")]);
    let (client, nodes) = (to_replicas(&sentinel, &[]), d.replica_nodes(SERVICE));
    d.primary_node(SERVICE).cmd(&["SET", "k", "v"]);
    assert_eq!(readers(&client, &nodes), ports(&nodes));
    // It still answers with its old data: only the Sentinels report it.
    nodes[0].cmd(&["CONFIG", "SET", "masterauth", "wrong"]);
    d.primary_node(SERVICE).cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
    d.sentinel_debug("info-period", 100);
    eventually("the link is seen to be broken", SOON, || readers(&client, &nodes) == [nodes[1].port()]);
    let topology = json(&client.topology().expect("known"));
    assert!(topology.contains("link to the primary is broken"), "{topology}");
    nodes[0].cmd(&["CONFIG", "SET", "masterauth", "right"]);
    eventually("it is read from again", SOON, || readers(&client, &nodes) == ports(&nodes));
}

#[test]
fn row_40_a_missing_link_status_is_no_fault() {
    let (p, r, s) = (Scripted::primary(), Scripted::primary(), Scripted::primary());
    let watch = told(&p.addr(), &[r.addr(), s.addr()]);
    for node in [&r, &s] {
        node.state(|state| state.role = FakeRole::replica_of(&p.addr()));
    }
    watch.service(SERVICE, |state| state.replicas[0].link = String::new());
    let sentinel = handle(&watch, &[("replica.fallback", "error")]);
    let client = to_replicas(&sentinel, &[]);
    (0..4).for_each(|_| drop(ok(&client, "GET k")));
    assert_eq!((r.count("GET"), s.count("GET")), (2, 2));
    watch.service(SERVICE, |state| state.replicas[0].link = "err".into());
    refresh(&sentinel);
    (0..4).for_each(|_| drop(ok(&client, "GET k")));
    assert_eq!((r.count("GET"), s.count("GET")), (2, 6));
}

#[test]
fn row_44_the_primary_stands_in_when_no_replica_is_there() {
    let d = Deployment::new("row44").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "1000")]);
    let (client, strict) = (to_replicas(&sentinel, &[]), to_replicas(&sentinel, &[("replica.fallback", "error")]));
    let (nodes, primary) = (d.replica_nodes(SERVICE), d.primary_node(SERVICE));
    primary.cmd(&["SET", "k", "v"]);
    assert_eq!((readers(&client, &nodes), readers(&strict, &nodes)), (ports(&nodes), ports(&nodes)));
    assert_eq!(counter(&client, "fallbacks"), 0);
    nodes.iter().for_each(|node| node.kill());
    let gets = primary.calls("get");
    assert_eq!(ok(&client, "GET k"), "v");
    assert!(primary.calls("get") > gets && counter(&client, "fallbacks") == 1);
    let error = fails_soon(Status::NoReplica, |ms| within(&strict, "GET k", ms));
    assert!(error.has(flags::RETRYABLE), "{error}");
    fails(Status::ReadOnly, cmd(&client, "SET k w"));
    assert_eq!(counter(&strict, "fallbacks"), 0);
    nodes.iter().for_each(|node| d.wait_s_down(SERVICE, node));
    assert_eq!(ok(&client, "GET k"), "v");
    nodes[0].restart();
    d.await_link(&nodes[0]);
    d.wait_known(SERVICE, &nodes[0]);
    takes_at_most("the way back to the replica", Duration::from_millis(1500), || {
        eventually("reads leave the primary", SOON, || readers(&client, &[Arc::clone(&primary)]).is_empty());
    });
    let fallbacks = counter(&client, "fallbacks");
    let live = [Arc::clone(&nodes[0]), primary];
    assert!(fallbacks >= 2 && readers(&client, &live) == [nodes[0].port()]);
    assert_eq!((readers(&strict, &live), counter(&client, "fallbacks")), (vec![nodes[0].port()], fallbacks));
}

#[test]
fn row_46_the_read_set_follows_a_failover() {
    let d = Deployment::new("row46").start();
    let sentinel = sentinel_of(&d, &[("replica.fallback", "error")]);
    let (client, old) = (to_replicas(&sentinel, &[]), d.primary_node(SERVICE));
    old.cmd(&["SET", "k", "v"]);
    let all = d.data_nodes(SERVICE);
    let watch = Watch::on(&sentinel);
    assert!(!readers(&client, &all).contains(&old.port()));
    d.failover(SERVICE);
    let switch = watch.wait("the switch", Duration::from_secs(10), |told| told.is_switch());
    let pacing = Pacing::start();
    let new = d.wait_switched(SERVICE, &old);
    assert_eq!(switch.get("to"), new.addr());
    let other: Vec<u16> = ports(&all).into_iter().filter(|port| ![old.port(), new.port()].contains(port)).collect();
    eventually("the promoted one is not read from any more", SOON, || readers(&client, &all) == other);
    pacing.stop().judge("leaving the promoted one", switch.at.elapsed(), Duration::from_secs(2));
    d.hurry();
    let demoted = |node: &Node| {
        let info = node.try_cmd(&["INFO", "replication"]).map(|info| info.text()).unwrap_or_default();
        info.contains("role:slave") && info.contains("master_link_status:up")
    };
    // A Sentinel that knows no SENTINEL DEBUG waits for ten seconds before it demotes it.
    eventually("the old one is a replica in sync", Duration::from_secs(30), || demoted(&old));
    takes_at_most("taking the old one in", Duration::from_secs(2), || {
        eventually("the old one is read from", SOON, || readers(&client, &all).contains(&old.port()));
    });
    assert!(!readers(&client, &all).contains(&new.port()));
}

/// A read on another client, with its own connections.
fn fresh_read(sentinel: &Arc<Sentinel>) -> Reply {
    let client = to_replicas(sentinel, &[("replica.fallback", "error")]);
    within(&client, "GET k", 5000).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn rule_32_replicas_that_lack_nothing_but_their_link_serve_before_an_error_does() {
    let p = Scripted::primary();
    let replicas = [Scripted::replica(&p.addr()), Scripted::replica(&p.addr())];
    let watch = told(&p.addr(), &[replicas[0].addr(), replicas[1].addr()]);
    let sentinel = handle(&watch, &[NO_POLLS, ("replica.fallback", "error")]);
    let client = to_replicas(&sentinel, &[]);
    ok(&client, "GET k");
    let cut = |state: &str| {
        for node in &replicas {
            node.state(|node| node.role = FakeRole::replica_linked(&p.addr(), state));
        }
    };
    // The replicas know first: the Sentinels ask them every ten seconds.
    cut("connect");
    fresh_read(&sentinel);
    for one in 0..2 {
        watch.service(SERVICE, |state| state.replicas[one].link = "err".into());
    }
    refresh(&sentinel);
    let before = [replicas[0].count("GET"), replicas[1].count("GET")];
    for _ in 0..4 {
        ok(&client, "GET k");
        fresh_read(&sentinel);
    }
    assert!(replicas.iter().zip(before).all(|(node, before)| node.count("GET") > before), "both are used");
    // A replica that is loading new data has none to serve.
    replicas[0].state(|node| node.role = FakeRole::replica_linked(&p.addr(), "sync"));
    let before = replicas[0].count("GET");
    for _ in 0..6 {
        fresh_read(&sentinel);
    }
    assert_eq!(replicas[0].count("GET"), before);
}

#[test]
fn rule_32_reads_go_on_without_the_primary_and_just_after_a_switch() {
    let d = Deployment::new("rule32").start();
    let sentinel = sentinel_of(&d, &[("replica.fallback", "error")]);
    let (old, nodes) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE));
    old.cmd(&["SET", "k", "v"]);
    nodes.iter().for_each(|node| eventually("replicated", SOON, || node.cmd(&["GET", "k"]).text() == "v"));
    let (client, watch) = (to_replicas(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "GET k");
    old.kill();
    let is_cut = |node: &Arc<Node>| {
        let info = node.try_cmd(&["INFO", "replication"]).map(|info| info.text()).unwrap_or_default();
        info.contains("role:slave") && info.contains("master_link_status:down")
    };
    let all_cut = || nodes.iter().all(is_cut);
    let (mut reads, mut cut, mut after) = (0, 0, 0);
    eventually("reads have gone on beyond the switch", Duration::from_secs(20), || {
        let before = all_cut();
        for reply in [within(&client, "GET k", 5000).unwrap_or_else(|error| panic!("{error}")), fresh_read(&sentinel)] {
            assert_eq!(text(&reply), "v", "after {reads} reads");
        }
        reads += 1;
        cut += usize::from(before && all_cut());
        after += usize::from(!watch.switches().is_empty());
        after > 20
    });
    assert!(cut > 2, "they did not wait for a link: {cut} of {reads} reads began and ended without any");
}

#[test]
fn row_43_after_the_first_slow_read_the_next_ones_go_elsewhere() {
    let p = Scripted::primary();
    let replicas = [Scripted::replica(&p.addr()), Scripted::replica(&p.addr()), Scripted::replica(&p.addr())];
    let watch = told(&p.addr(), &replicas.each_ref().map(|node| node.addr()));
    let sentinel = handle(&watch, &[NO_POLLS, ("replica.fallback", "error")]);
    let client = to_replicas(&sentinel, &[]);
    (0..6).for_each(|_| drop(ok(&client, "GET k")));
    replicas[0].fault("GET", Fault::Stall);
    let stalled = || replicas[0].count("GET");
    let (mut checked, began) = (0, Instant::now());
    while checked < 20 {
        assert!(began.elapsed() < Duration::from_secs(30), "only {checked} reads within a replica's rest");
        let before = stalled();
        eventually("a read meets the stalled one", SOON, || {
            within(&client, "GET k", 900).expect("another replica answers in time");
            stalled() > before
        });
        // The node has a pause of a second.
        let slow = Instant::now();
        for _ in 0..20 {
            ok(&client, "GET k");
            if slow.elapsed() > Duration::from_millis(800) {
                break;
            }
            assert_eq!(stalled(), before + 1, "the next ones are quick");
            checked += 1;
        }
    }
}
