//! How the role of a node is found out for a user who may not use ROLE, and which replicas are read from: those whose
//! link is up and leads to the primary that the Sentinels name.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use stage::{SOON, Watch, at, stage};
use support::resp::Value;
use support::*;
use vigie::client::Client;
use vigie::error::Status;
use vigie::queue::kind;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const NO_POLLS: (&str, &str) = ("monitor.interval", "60000");
const STRICT: (&str, &str) = ("replica.fallback", "error");
const NOPERM: &str = "NOPERM this user has no permissions to run the command";

fn refresh(sentinel: &Arc<Sentinel>) {
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is known");
}

fn refuse(node: &FakeNode, command: &str) {
    node.fault(command, Fault::Error(NOPERM.into()));
}

/// A primary and two replicas, scripted, with one Sentinel.
fn three() -> (FakeNode, [FakeNode; 2], FakeSentinel) {
    let p = Scripted::primary();
    let replicas = [Scripted::replica(&p.addr()), Scripted::replica(&p.addr())];
    let watch = told(&p.addr(), &[replicas[0].addr(), replicas[1].addr()]);
    (p, replicas, watch)
}

/// How many of some reads each of these answers.
fn reads(client: &Client, nodes: &[&FakeNode]) -> Vec<usize> {
    let before: Vec<usize> = nodes.iter().map(|node| node.count("GET")).collect();
    for _ in 0..6 {
        within(client, "GET k", 2000).unwrap_or_else(|error| panic!("{error}"));
    }
    nodes.iter().zip(before).map(|(node, before)| node.count("GET") - before).collect()
}

// Roles without the command ROLE.

#[test]
fn users_without_role_are_served_by_real_servers() {
    let d = Deployment::new("norole").start();
    let users = [("app", "+@all -@dangerous -@admin"), ("rw", "+@read +@write +@connection"), ("info", "+@all -role")];
    for node in d.data_nodes(SERVICE) {
        for (user, rules) in users {
            let rules: Vec<&str> = rules.split(' ').collect();
            node.cmd(&[&["ACL", "SETUSER", user, "on", ">pw", "~*", "&*"][..], &rules].concat());
        }
    }
    let primary = d.primary_node(SERVICE);
    for (user, protocol) in [("app", "auto"), ("rw", "auto"), ("rw", "2"), ("info", "auto")] {
        let login = [("auth.username", user), ("auth.password", "pw"), ("protocol", protocol), NO_POLLS];
        let sentinel = sentinel_of(&d, &login);
        let before: u64 = primary.info("stats")["total_connections_received"].parse().expect("a number");
        let (writer, reader) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[STRICT]));
        for round in 0..20 {
            ok(&writer, &format!("SET {user} {round}"));
        }
        eventually("it is replicated", SOON, || ok(&reader, &format!("GET {user}")) == "19");
        let after: u64 = primary.info("stats")["total_connections_received"].parse().expect("a number");
        assert!(after - before < 6, "{user}: {} connections for one client", after - before);
        // A replica is no primary, even if HELLO reports the role.
        assert_eq!(primary_pool(&writer).endpoint, primary.addr());
    }
    // INFO reports the lag where ROLE is refused.
    let sentinel = sentinel_of(&d, &[("auth.username", "info"), ("auth.password", "pw"), NO_POLLS]);
    let near = to_replicas(&sentinel, &[STRICT, ("replica.max_lag", "1000000")]);
    eventually("the lag is known", SOON, || within(&near, "GET info", 500).is_ok());
    assert_eq!(counter(&near, "fallbacks"), 0);
}

#[test]
fn a_failover_is_followed_by_a_user_without_role() {
    let s = stage(3, &[("failover.probe", "eager")]);
    refuse(&s.p, "ROLE");
    refuse(&s.r, "ROLE");
    s.listened();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    s.select(0);
    s.r.wait_count("HELLO", 3, SOON);
    assert_eq!(at(&s.service()), s.p.addr());
    s.promote();
    s.wait_primary(&s.r.addr());
    let client = to_primary(&s.sentinel, &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    assert_eq!(s.r.count("SET"), 1);
}

#[test]
fn who_may_ask_for_no_role_at_all_is_served_and_told() {
    let (p, [r, q], watch) = three();
    for node in [&p, &r, &q] {
        node.fault("HELLO", Fault::Error("ERR unknown command 'HELLO'".into()));
        refuse(node, "ROLE");
        refuse(node, "INFO");
    }
    let sentinel = handle(&watch, &[NO_POLLS]);
    let seen = Watch::on(&sentinel);
    let (writer, reader) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[STRICT]));
    ok(&writer, "SET k v");
    assert_eq!(reads(&reader, &[&r, &q]), [3, 3]);
    for _ in 0..3 {
        refresh(&sentinel);
    }
    let unproven = |told: &stage::Told| told.is(kind::NOTICE, &[("reason", "role_unknown")]);
    seen.wait("the role is taken on trust", SOON, unproven);
    assert_eq!(seen.count(unproven), 1, "once");
    let of_replica = |told: &stage::Told| told.kind == kind::REPLICA && told.get("reason").contains("Sentinels' word");
    assert_eq!(seen.count(of_replica), 2, "once for each");
    for node in [&r, &q] {
        assert_eq!(fits(&seen, &node.addr()), ["1", ""], "it comes in, and is spoken of");
    }
}

/// What was reported of a replica: whether it is fit, in order.
fn fits(seen: &Watch, replica: &str) -> Vec<String> {
    let of_it = |told: &stage::Told| told.kind == kind::REPLICA && told.get("replica") == replica;
    seen.all().into_iter().filter(of_it).map(|told| told.get("fit").to_owned()).collect()
}

/// The word of the Sentinels and that of the replica may change at the same time: watchers are told the result of both.
#[test]
fn that_a_replica_came_in_or_went_out_is_told_once() {
    let (p, [r, q], watch) = three();
    let sentinel = handle(&watch, &[NO_POLLS]);
    let seen = Watch::on(&sentinel);
    let reader = to_replicas(&sentinel, &[]);
    let flags = |flags: &str| watch.service(SERVICE, |state| state.replicas[0].flags = flags.into());
    let told = || fits(&seen, &r.addr());
    assert_eq!(reads(&reader, &[&r, &q]), [3, 3]);
    assert_eq!(told(), ["1"]);
    // First its own word, then that of the Sentinels, which changes nothing; and back.
    r.state(|node| node.role = FakeRole::replica_linked(&p.addr(), "sync"));
    r.close_all();
    eventually("it is out by its own word", SOON, || reads(&reader, &[&r, &q])[0] == 0 && told().len() == 2);
    for word in ["slave,s_down", "slave", "slave,s_down"] {
        flags(word);
        refresh(&sentinel);
    }
    assert_eq!(told(), ["1", "0"]);
    flags("slave");
    r.state(|node| node.role = FakeRole::replica_of(&p.addr()));
    refresh(&sentinel);
    eventually("it is back", SOON, || reads(&reader, &[&r, &q])[0] > 0);
    assert_eq!(told(), ["1", "0", "1"]);
}

#[test]
fn the_roles_of_dragonfly_and_keydb_are_understood() {
    let (p, [r, q], watch) = three();
    let text = |words: &[&str]| Value::Array(words.iter().map(Value::bulk).collect());
    let port = p.port().to_string();
    p.fault("ROLE", Fault::Reply(Value::Array(vec![Value::bulk("master"), Value::Array(vec![])])));
    r.fault("ROLE", Fault::Reply(text(&["replica", "127.0.0.1", &port, "stable_sync"])));
    let active = |word: &str| {
        let port = Value::Int(p.port().into());
        Value::Array(vec![Value::bulk(word), Value::bulk("127.0.0.1"), port, Value::bulk("connected"), Value::Int(5)])
    };
    q.fault("ROLE", Fault::Reply(Value::Array(vec![active("active-replica"), active("active-replica")])));
    let sentinel = handle(&watch, &[NO_POLLS]);
    let (writer, reader) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[STRICT]));
    ok(&writer, "SET k v");
    assert_eq!(reads(&reader, &[&r, &q]), [3, 3]);
    // An active replica takes writes: it may be named as the primary.
    p.fault("ROLE", Fault::Reply(active("active-replica")));
    writer.disconnect().expect("an open client");
    ok(&writer, "SET k w");
    r.fault("ROLE", Fault::Reply(text(&["replica", "127.0.0.1", &port, "full_sync"])));
    r.fault("INFO", Fault::Error("ERR unknown command".into()));
    reader.disconnect().expect("an open client");
    assert_eq!(reads(&reader, &[&r, &q]), [0, 6], "it is not synchronised");
}

// Which replicas are read from.

#[test]
fn an_ordinary_replica_is_asked_for_nothing_more_than_its_role() {
    let (p, [r, q], watch) = three();
    let sentinel = handle(&watch, &[NO_POLLS]);
    let reader = to_replicas(&sentinel, &[STRICT]);
    assert_eq!(reads(&reader, &[&r, &q]), [3, 3]);
    assert_eq!((r.count("INFO"), q.count("INFO"), r.count("ROLE"), r.accepted()), (0, 0, 1, 1));
    assert_eq!((p.count("INFO"), p.accepted()), (1, 1), "in the flight that verifies the primary");
}

#[test]
fn a_replica_that_synchronises_is_not_read_from() {
    let (p, [r, q], watch) = three();
    let link = |state: &str| r.state(|node| node.role = FakeRole::replica_linked(&p.addr(), state));
    for state in ["sync", "connect", "handshake"] {
        link(state);
        let sentinel = handle(&watch, &[NO_POLLS]);
        let seen = Watch::on(&sentinel);
        let (strict, loose) = (to_replicas(&sentinel, &[STRICT]), to_replicas(&sentinel, &[]));
        assert_eq!(reads(&strict, &[&r, &q]), [0, 6], "{state}");
        assert_eq!(reads(&loose, &[&r, &q]), [0, 6], "{state}");
        let topology = json(&strict.topology().expect("known"));
        assert!(topology.contains(&format!(r#""unfit":"its link to the primary is down ({state})"#)), "{topology}");
        let out = |told: &stage::Told| told.is(kind::REPLICA, &[("replica", &r.addr()), ("fit", "0")]);
        seen.wait("it is told", SOON, out);
        link("connected");
        eventually("it is read from again", SOON, || reads(&strict, &[&r, &q])[0] > 0);
        let words: Vec<stage::Told> = seen.all().into_iter().filter(|told| told.kind == kind::REPLICA).collect();
        let of_r = words.iter().filter(|told| told.get("replica") == r.addr()).map(|told| told.get("fit")).last();
        assert_eq!(of_r, Some("1"), "that is told: {words:?}");
        let topology = json(&strict.topology().expect("known"));
        assert!(!topology.contains(r#""unfit":"its link"#), "{state}: {topology}");
    }
}

#[test]
fn a_replica_of_another_primary_at_a_known_address_is_never_read_from() {
    let (p, [r, q], watch) = three();
    let other = Scripted::primary();
    r.state(|node| node.role = FakeRole::replica_of(&other.addr()));
    let sentinel = handle(&watch, &[NO_POLLS]);
    let (strict, loose) = (to_replicas(&sentinel, &[STRICT]), to_replicas(&sentinel, &[]));
    assert_eq!((reads(&strict, &[&r, &q]), reads(&loose, &[&r, &q])), (vec![0, 6], vec![0, 6]));
    let topology = json(&strict.topology().expect("known"));
    assert!(topology.contains(&format!("it follows {}, not the primary {}", other.addr(), p.addr())), "{topology}");
    q.down();
    let error = fails_soon(Status::NoReplica, |ms| within(&strict, "GET k", ms));
    assert!(error.message().contains(&format!("it follows {}", other.addr())), "{error}");
    assert_eq!(r.count("GET"), 0, "not even before an error");
    ok(&loose, "GET k");
    assert_eq!((r.count("GET"), p.count("GET")), (0, 1), "the primary stands in");
}

#[test]
fn a_replica_that_is_led_elsewhere_while_it_is_read_from_is_left() {
    let (_p, [r, q], watch) = three();
    let other = Scripted::primary();
    let sentinel = handle(&watch, &[NO_POLLS]);
    let reader = to_replicas(&sentinel, &[STRICT]);
    assert_eq!(reads(&reader, &[&r, &q]), [3, 3]);
    r.state(|node| node.role = FakeRole::replica_of(&other.addr()));
    watch.service(SERVICE, |state| state.replicas[0].follows = Some(other.addr()));
    refresh(&sentinel);
    assert_eq!(reads(&reader, &[&r, &q]), [0, 6]);
}

#[test]
fn equal_replication_ids_decide_where_addresses_do_not_tell() {
    for (why, name) in [("a name", "redis-0.internal"), ("an address behind a gateway", "203.0.113.7")] {
        let (p, [r, q], watch) = three();
        let id = format!("{:040x}", p.port());
        r.state(|node| {
            node.role = FakeRole::replica_of(&format!("{name}:6379"));
            node.replid = Some(id.clone());
        });
        // Its data are those of another primary, although the words are the same.
        q.state(|node| {
            node.role = FakeRole::replica_of(&format!("{name}:6379"));
            node.replid = Some("f".repeat(40));
        });
        let sentinel = handle(&watch, &[NO_POLLS]);
        let reader = to_replicas(&sentinel, &[STRICT]);
        assert_eq!(reads(&reader, &[&r, &q]), [6, 0], "{why}");
        assert_eq!(r.count("INFO"), 1, "once for the connection");
        // The primary was restarted: its replication id is new, and it is asked again.
        p.state(|node| node.replid = Some("e".repeat(40)));
        r.state(|node| node.replid = Some("e".repeat(40)));
        reader.disconnect().expect("an open client");
        assert_eq!(reads(&reader, &[&r, &q]), [6, 0], "{why}");
    }
}

#[test]
fn where_ids_are_refused_the_sentinels_word_decides_and_that_is_told() {
    let (p, [r, q], watch) = three();
    for node in [&r, &q] {
        node.state(|node| node.role = FakeRole::replica_of("redis-0.internal:6379"));
        refuse(node, "INFO");
    }
    refuse(&p, "INFO");
    watch.service(SERVICE, |state| state.replicas[0].follows = Some("redis-0.internal:6379".into()));
    let sentinel = handle(&watch, &[NO_POLLS]);
    let seen = Watch::on(&sentinel);
    let reader = to_replicas(&sentinel, &[STRICT]);
    assert_eq!(reads(&reader, &[&r, &q]), [6, 0], "of the other one the Sentinels say something else");
    let spoken_of =
        |told: &stage::Told| told.is(kind::REPLICA, &[("replica", &r.addr()), ("fit", ""), ("cause", "unproven")]);
    seen.wait("it is told", SOON, |told| spoken_of(told) && told.get("reason").contains("Sentinels' word"));
    watch.service(SERVICE, |state| state.replicas[0].link = "err".into());
    q.state(|node| node.role = FakeRole::replica_of(&p.addr()));
    refresh(&sentinel);
    eventually("the broken link counts", SOON, || reads(&reader, &[&r, &q]) == [0, 6]);
}

#[test]
fn replicas_of_the_candidate_are_read_from_during_a_failover() {
    let s = stage(1, &[("failover.probe", "off")]);
    let q = Scripted::replica(&s.p.addr());
    s.watch[0].service(SERVICE, |state| state.add_replica(&q.addr()));
    refresh(&s.sentinel);
    let reader = to_replicas(&s.sentinel, &[STRICT]);
    s.listened();
    s.begin(0);
    s.select(0);
    s.told.wait_fence(true, "");
    s.promote();
    // The leader reconfigures the other replica before it announces the switch.
    q.state(|node| node.role = FakeRole::replica_of(&s.r.addr()));
    eventually("the candidate has spoken", SOON, || s.service().failover_seq() > 0);
    assert!((0..6).all(|_| within(&reader, "GET k", 2000).is_ok()) && q.count("GET") > 0);
}

#[test]
fn an_empty_replica_is_not_read_from_before_it_has_the_data() {
    let d = Deployment::new("empty").conf("repl-diskless-sync-delay 2").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "1000")]);
    let (reader, nodes) = (to_replicas(&sentinel, &[]), d.replica_nodes(SERVICE));
    d.primary_node(SERVICE).cmd(&["SET", "k", "v"]);
    nodes.iter().for_each(|node| eventually("replicated", SOON, || node.cmd(&["GET", "k"]).text() == "v"));
    let cold = to_replicas(&sentinel, &[STRICT]);
    for _ in 0..8 {
        assert_eq!((ok(&reader, "GET k"), ok(&cold, "GET k")), ("v".into(), "v".into()));
    }
    for dump in ["dump.rdb", "appendonly.aof"] {
        let _ = std::fs::remove_file(nodes[0].dir().join(dump));
    }
    nodes[0].kill();
    nodes[0].restart();
    let gets = nodes[0].calls("get");
    let mut others = 0;
    eventually("it is read from again", Duration::from_secs(20), || {
        for client in [&reader, &cold] {
            let reply = within(client, "GET k", 5000).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(text(&reply), "v", "after {others} answers of others");
        }
        others += 1;
        nodes[0].calls("get") > gets
    });
    assert!(nodes[0].info("replication")["master_link_status"] == "up");
}
