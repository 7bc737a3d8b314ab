//! Sentinel administration (rows 83 to 91): a program's own commands to the Sentinels of its handle.

use crate::calls;
use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use calls::{SERVICE, call, config, fails, json, sentinel_at, sentinel_of, single, text, to_primary};
use support::*;
use vigie::client::{CallFlags, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::resp::{Kind, Reply};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, To};

const SOON: Duration = Duration::from_secs(20);

fn run(sentinel: &Arc<Sentinel>, line: &str, to: To<'_>, typed: bool) -> Result<Reply> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    sentinel.exec(&words, to, typed, Deadline::after(SOON))
}

/// At the first that answers.
#[track_caller]
fn ask(sentinel: &Arc<Sentinel>, line: &str) -> Reply {
    run(sentinel, line, To::First, false).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[track_caller]
fn typed(sentinel: &Arc<Sentinel>, line: &str) -> Reply {
    run(sentinel, line, To::First, true).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// At all: the outcome at each address.
#[track_caller]
fn all(sentinel: &Arc<Sentinel>, line: &str) -> BTreeMap<String, String> {
    outcomes(&run(sentinel, line, To::All, false).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// At all, which refuse it: what each says.
#[track_caller]
fn refused(sentinel: &Arc<Sentinel>, line: &str) -> BTreeMap<String, String> {
    let error = fails(Status::Server, run(sentinel, line, To::All, false));
    assert!(error.message().contains("no Sentinel has accepted it"), "{error}");
    outcomes(error.reply().expect("what each has said"))
}

fn outcomes(reply: &Reply) -> BTreeMap<String, String> {
    assert_eq!(reply.kind(0), Kind::Map);
    let ids: Vec<u32> = reply.children(0).collect();
    let shown = |id: u32| match reply.error_line(id) {
        Some(line) => format!("-{}", String::from_utf8_lossy(line)),
        None => text(&reply.subtree(id)),
    };
    ids.chunks(2).map(|pair| (text(&reply.subtree(pair[0])), shown(pair[1]))).collect()
}

fn field<'a>(reply: &'a Reply, at: u32, key: &str) -> (Kind, Option<i64>, Option<&'a [u8]>) {
    let id = reply.find(at, key.as_bytes()).unwrap_or_else(|| panic!("no {key} in {}", json(reply)));
    (reply.kind(id), reply.int(id), reply.bytes(id))
}

#[test]
fn row_83_services_replicas_and_sentinels_with_their_types() {
    let d = Deployment::new("admin-83").start();
    let sentinel = sentinel_of(&d, &[]);
    let masters = typed(&sentinel, "MASTERS");
    assert_eq!((masters.kind(0), masters.count(0)), (Kind::Array, 1));
    let first = masters.child(0, 0).expect("one service");
    assert_eq!(field(&masters, first, "name").2, Some(SERVICE.as_bytes()));
    let port = d.primary_node(SERVICE).port();
    assert_eq!(field(&masters, first, "port").1, Some(i64::from(port)));
    for key in ["config-epoch", "quorum", "num-slaves", "down-after-milliseconds"] {
        assert_eq!(field(&masters, first, key).0, Kind::Int, "{key}");
    }
    assert_eq!(field(&masters, first, "flags").0, Kind::Set);
    let master = typed(&sentinel, &format!("MASTER {SERVICE}"));
    assert_eq!((master.kind(0), field(&master, 0, "num-other-sentinels").1), (Kind::Map, Some(2)));
    for line in [format!("REPLICAS {SERVICE}"), format!("SLAVES {SERVICE}")] {
        let replicas = typed(&sentinel, &line);
        assert_eq!(replicas.count(0), 2);
        for id in replicas.children(0) {
            assert_eq!(field(&replicas, id, "master-link-status").2, Some(&b"ok"[..]));
            assert_eq!(field(&replicas, id, "slave-priority").1, Some(100));
            assert_eq!(field(&replicas, id, "slave-repl-offset").0, Kind::Int);
        }
    }
    assert_eq!(typed(&sentinel, &format!("SENTINELS {SERVICE}")).count(0), 2);
    // Without the flag the reply is the server's.
    let plain = ask(&sentinel, &format!("MASTER {SERVICE}"));
    assert_ne!(field(&plain, 0, "quorum").0, Kind::Int);
    let alone = single("admin-83-one");
    let others = typed(&sentinel_of(&alone, &[]), &format!("SENTINELS {SERVICE}"));
    assert_eq!((others.kind(0), others.count(0)), (Kind::Array, 0));
}

#[test]
fn row_84_an_address_is_a_pair_and_an_unknown_name_gives_null() {
    let d = single("admin-84");
    let sentinel = sentinel_of(&d, &[]);
    let primary = d.primary_node(SERVICE);
    let known = typed(&sentinel, &format!("GET-MASTER-ADDR-BY-NAME {SERVICE}"));
    assert_eq!(json(&known), format!(r#"["{}",{}]"#, primary.host(), primary.port()));
    assert_eq!(typed(&sentinel, "GET-MASTER-ADDR-BY-NAME nobody").kind(0), Kind::Null);
}

#[test]
fn row_85_monitor_set_and_remove_at_all_sentinels() {
    let d = Deployment::new("admin-85").replicas(0).start();
    let sentinel = sentinel_of(&d, &[]);
    let port = d.primary_node(SERVICE).port();
    for line in [format!("MONITOR more 127.0.0.1 {port} 2"), "SET more quorum 10".into(), "REMOVE more".into()] {
        let error = fails(Status::InvalidArg, run(&sentinel, &line, To::First, false));
        assert!(error.message().contains("VIGIE_CALL_ALL") && error.message().contains("_exec_at()"), "{error}");
    }
    let everywhere = |line: &str| {
        let told = all(&sentinel, line);
        assert_eq!(told.keys().cloned().collect::<Vec<_>>(), sorted(d.sentinel_addrs()), "{line}");
        told
    };
    let agrees = |line: &str| assert!(everywhere(line).values().all(|said| said == "OK"), "{line}");
    agrees(&format!("MONITOR more 127.0.0.1 {port} 2"));
    let read = typed(&sentinel, "GET-MASTER-ADDR-BY-NAME more");
    assert_eq!(json(&read), format!(r#"["127.0.0.1",{port}]"#));
    agrees("SET more quorum 10");
    let quorums = run(&sentinel, "MASTER more", To::All, true).expect("they answer");
    for id in quorums.children(0).skip(1).step_by(2) {
        assert_eq!(field(&quorums, id, "quorum").1, Some(10));
    }
    // The server's own words, at each.
    let bad = refused(&sentinel, "SET more no-such-option 1");
    assert!(bad.values().all(|said| said.starts_with("-ERR")), "{bad:?}");
    agrees("REMOVE more");
    let gone = refused(&sentinel, "REMOVE more");
    assert!(gone.values().all(|said| said.contains("No such master")), "{gone:?}");
    let one = d.sentinel_addrs()[1].clone();
    let error = fails(Status::Server, run(&sentinel, "REMOVE more", To::At(&one), false));
    assert!(error.message().contains("No such master") && error.endpoint() == one, "{error}");
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[test]
fn row_86_a_failover_is_begun_and_a_refusal_passes_through() {
    let d = Deployment::new("admin-86").replicas(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let old = d.primary_node(SERVICE);
    let error = fails(Status::InvalidArg, run(&sentinel, &format!("FAILOVER {SERVICE}"), To::All, false));
    assert!(error.message().contains("each would begin one"), "{error}");
    let without = Deployment::new("admin-86-none").replicas(0).sentinels(1).quorum(1).start();
    let error =
        fails(Status::Server, run(&sentinel_of(&without, &[]), &format!("FAILOVER {SERVICE}"), To::First, false));
    assert_eq!(error.server_code(), "NOGOODSLAVE", "{error}");
    d.wait_ready(SERVICE);
    assert_eq!(text(&ask(&sentinel, &format!("FAILOVER {SERVICE}"))), "OK");
    assert_ne!(d.wait_switched(SERVICE, &old).port(), old.port());
}

#[test]
fn row_87_a_quorum_that_cannot_be_reached_is_the_servers_error() {
    let d = Deployment::new("admin-87").replicas(0).sentinels(2).quorum(2).start();
    let sentinel = sentinel_of(&d, &[]);
    let reached = typed(&sentinel, &format!("CKQUORUM {SERVICE}"));
    assert_eq!(field(&reached, 0, "usable").1, Some(2));
    let nodes = d.sentinel_nodes();
    nodes[1].kill();
    let line = format!("CKQUORUM {SERVICE}");
    eventually("the other one misses it", SOON, || {
        run(&sentinel, &line, To::First, true).is_err_and(|error| error.server_code() == "NOQUORUM")
    });
    nodes[1].restart();
    eventually("the quorum is there again", SOON, || run(&sentinel, &line, To::First, true).is_ok());
}

#[test]
fn row_88_the_other_commands_are_callable_and_their_replies_read() {
    let d = Deployment::new("admin-88").replicas(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let config = typed(&sentinel, "CONFIG GET *");
    assert_eq!(field(&config, 0, "resolve-hostnames").2, Some(&b"no"[..]));
    let changed = all(&sentinel, "CONFIG SET announce-port 0");
    assert!(changed.len() == 3 && changed.values().all(|said| said == "OK"), "{changed:?}");
    assert!(all(&sentinel, "FLUSHCONFIG").values().all(|said| said == "OK"));
    let cache = typed(&sentinel, &format!("INFO-CACHE {SERVICE}"));
    let nodes = cache.find(0, SERVICE.as_bytes()).expect("the service");
    let info = cache.child(nodes, 0).and_then(|node| cache.find(node, b"info")).expect("the primary's INFO");
    assert_eq!(field(&cache, info, "role").2, Some(&b"master"[..]));
    let ids = all(&sentinel, "MYID");
    assert!(ids.values().all(|id| id.len() == 40), "{ids:?}");
    assert_eq!(field(&typed(&sentinel, "INFO sentinel"), 0, "sentinel_masters").1, Some(1));
    assert_eq!(ask(&sentinel, "PENDING-SCRIPTS").count(0), 0);
}

#[test]
fn row_88_a_reset_goes_from_one_to_the_next_when_the_replicas_are_known_again() {
    if lacks(Feature::SentinelDebug) {
        return;
    }
    let d = Deployment::new("admin-reset").start();
    let sentinel = sentinel_of(&d, &[]);
    // Replicas are found by INFO, which Sentinels otherwise ask for every ten seconds.
    d.sentinel_debug("info-period", 100);
    let told = all(&sentinel, &format!("RESET {SERVICE}"));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.values().all(|said| said == "1"), "{told:?}");
    // When the call returns every one of them knows the replicas.
    for node in d.sentinel_nodes() {
        assert_eq!(node.cmd(&["SENTINEL", "REPLICAS", SERVICE]).items().len(), 2, "{}", node.name());
    }
    assert!(run(&sentinel, "RESET *", To::First, false).is_err());
}

/// A Sentinel that never finds its replica again: the next one keeps what it knows.
#[test]
fn row_88_a_reset_that_loses_the_replicas_goes_no_further() {
    let primary = Scripted::primary();
    let replica = Scripted::replica(&primary.addr());
    let watch = Scripted::sentinels(2, SERVICE, &primary.addr());
    watch.iter().for_each(|one| one.service(SERVICE, |state| state.add_replica(&replica.addr())));
    // Scripted Sentinels do not know RESET: this one forgets.
    watch.iter().for_each(|one| one.fault("SENTINEL RESET", Fault::Reply(Value::Int(1))));
    let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
    // Nobody else asks for the replicas.
    let sentinel = sentinel_at(&addrs, &[("timeout.sentinel", "5s"), ("monitor", "off")]);
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("they answer");
    watch.iter().for_each(|one| one.fault_from("SENTINEL REPLICAS", 1, Fault::Reply(Value::Array(Vec::new()))));
    let words: [&[u8]; 2] = [b"RESET", b"*"];
    let reply =
        sentinel.exec(&words, To::All, false, Deadline::after(Duration::from_millis(700))).expect("one was reset");
    let told = outcomes(&reply);
    let said: Vec<&String> = told.values().collect();
    assert_eq!(said.iter().filter(|said| **said == "1").count(), 1, "{told:?}");
    let left = said.iter().find(|said| said.starts_with("-VIGIE_ERR_TIMEOUT not sent")).expect("the other one");
    assert!(left.contains(&replica.addr()) && left.contains(SERVICE), "{left}");
    assert_eq!(watch.iter().map(|one| one.count("SENTINEL RESET")).sum::<usize>(), 1);
}

#[test]
fn row_89_any_sub_command_goes_out_with_the_word_sentinel_and_binary_arguments() {
    let d = single("admin-89");
    let sentinel = sentinel_of(&d, &[]);
    assert!(ask(&sentinel, "HELP").count(0) > 5);
    let any: &[u8] = b"\0\xff\r\n no such name";
    let words: [&[u8]; 2] = [b"GET-MASTER-ADDR-BY-NAME", any];
    let reply = sentinel.exec(&words, To::First, true, Deadline::after(SOON)).expect("an answer");
    assert_eq!(reply.kind(0), Kind::Null);
    let error = fails(Status::Server, run(&sentinel, "NO-SUCH-COMMAND", To::First, false));
    assert!(error.message().contains("NO-SUCH-COMMAND"), "{error}");
    let error = fails(Status::InvalidArg, run(&sentinel, "SENTINEL MASTERS", To::First, false));
    assert!(error.message().contains("without that word"), "{error}");
    let error = fails(Status::Unsupported, run(&sentinel, "SUBSCRIBE +sdown", To::First, false));
    assert!(error.message().contains("vigie_sentinel_watch()"), "{error}");
}

#[test]
fn row_90_ping_and_role_of_sentinels_and_the_role_of_data_nodes() {
    let d = Deployment::new("admin-90").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    assert_eq!(text(&ask(&sentinel, "PING")), "PONG");
    assert_eq!(json(&typed(&sentinel, "ROLE")), format!(r#"{{"role":"sentinel","services":["{SERVICE}"]}}"#));
    let client = to_primary(&sentinel, &[]);
    let role = call(&client, "ROLE", CallFlags::TYPED, Timeout::Default).expect("a role");
    assert_eq!(field(&role, 0, "role").2, Some(&b"master"[..]));
    assert_eq!(field(&role, 0, "offset").0, Kind::Int);
    let replicas = role.find(0, b"replicas").expect("its replicas");
    let first = role.child(replicas, 0).expect("one replica");
    assert_eq!(field(&role, first, "port").1, Some(i64::from(d.node("mymaster-1").port())));
    let reader = calls::to_replicas(&sentinel, &[("replica.fallback", "error")]);
    let role = call(&reader, "role", CallFlags::TYPED, Timeout::Default).expect("a role");
    assert_eq!(field(&role, 0, "role").2, Some(&b"slave"[..]));
    assert_eq!(field(&role, 0, "port").1, Some(i64::from(d.node("mymaster-0").port())));
    assert_eq!(field(&role, 0, "state").2, Some(&b"connected"[..]));
    let info = call(&client, "INFO replication", CallFlags::TYPED, Timeout::Default).expect("a map");
    assert_eq!(field(&info, 0, "connected_slaves").1, Some(1));
    // Nothing else has a typed form, and a client has no Sentinels to ask.
    let error = fails(Status::InvalidArg, call(&client, "GET k", CallFlags::TYPED, Timeout::Default));
    assert!(error.message().contains("ROLE and INFO"), "{error}");
    let list = calls::list(&["ROLE"]);
    let flags = CallFlags::from_bits(CallFlags::TYPED).expect("a known flag");
    fails(Status::InvalidArg, client.cmds_exec(&list, flags, Timeout::Default));
    let error = fails(Status::InvalidArg, CallFlags::from_bits(CallFlags::ALL));
    assert!(error.message().contains("vigie_sentinel_exec()"), "{error}");
}

#[test]
fn row_91_with_the_first_sentinel_dead_the_next_one_answers() {
    let d = Deployment::new("admin-91").replicas(0).start();
    let sentinel = sentinel_of(&d, &[]);
    let addrs = d.sentinel_addrs();
    let nodes = d.sentinel_nodes();
    nodes[0].kill();
    for _ in 0..3 {
        assert_eq!(ask(&sentinel, "MASTERS").count(0), 1);
    }
    // One address is asked alone.
    let error = fails(Status::Connect, run(&sentinel, "MASTERS", To::At(&addrs[0]), false));
    assert!(error.message().contains("SENTINEL MASTERS") && error.message().contains(&addrs[0]), "{error}");
    assert!(run(&sentinel, "MASTERS", To::At(&addrs[1]), false).is_ok());
    // Under all the dead one has an outcome, too.
    let told = all(&sentinel, "PING");
    assert_eq!((told.len(), told[&addrs[1]].as_str(), told[&addrs[2]].as_str()), (3, "PONG", "PONG"));
    assert!(told[&addrs[0]].starts_with("-VIGIE_ERR_CONNECT "), "{told:?}");
    nodes[1..].iter().for_each(|node| node.kill());
    for to in [To::First, To::All] {
        let error = fails(Status::NoSentinel, run(&sentinel, "MASTERS", to, false));
        assert!(addrs.iter().all(|addr| error.message().contains(addr)), "{error}");
        assert_eq!(error.reply().is_some(), to == To::All, "the outcomes are there");
    }
    let error = fails(Status::InvalidArg, run(&sentinel, "PING", To::At("h:70000"), false));
    assert!(error.message().starts_with("address: "), "{error}");
}

/// Two Sentinels that fail over at the same time promote two replicas, so a second FAILOVER goes to where the first one went.
#[test]
fn what_acts_goes_to_the_sentinels_in_one_order() {
    let primary = Scripted::primary();
    let mut watch = Scripted::sentinels(3, SERVICE, &primary.addr());
    watch.sort_by_key(|one| one.addr());
    let addrs: Vec<String> = watch.iter().rev().map(|one| one.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[]);
    watch.iter().for_each(|one| one.fault("SENTINEL FAILOVER", Fault::Reply(Value::ok())));
    let refresh = || sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("found");
    let fail_over = || run(&sentinel, &format!("FAILOVER {SERVICE}"), To::First, false).expect("accepted");
    refresh();
    fail_over();
    // One that has failed is asked last by those that read.
    watch[0].down();
    refresh();
    watch[0].up();
    fail_over();
    assert_eq!(watch.iter().map(|one| one.count("SENTINEL FAILOVER")).collect::<Vec<_>>(), [2, 0, 0]);
}

/// The reply is lost behind the command: what reads goes on to the next one, what acts does not.
#[test]
fn row_91_what_may_have_run_is_not_sent_to_another() {
    let primary = Scripted::primary();
    let watch = Scripted::sentinels(2, SERVICE, &primary.addr());
    let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[("timeout.sentinel", "5s")]);
    let count = |command: &str| watch.iter().map(|one| one.count(command)).sum::<usize>();
    for one in &watch {
        one.fault("SENTINEL FAILOVER", Fault::Close);
        one.fault_times("SENTINEL MASTERS", 1, Fault::Close);
    }
    let error = fails(Status::Io, run(&sentinel, &format!("FAILOVER {SERVICE}"), To::First, false));
    assert!(error.has(flags::MAYBE_EXECUTED), "{error:?}");
    assert_eq!(count("SENTINEL FAILOVER"), 1, "it was sent once");
    // Both lose the reply once.
    let error = fails(Status::NoSentinel, run(&sentinel, "MASTERS", To::First, false));
    assert!(!error.has(flags::MAYBE_EXECUTED) && error.has(flags::RETRYABLE), "{error:?}");
    assert_eq!(count("SENTINEL MASTERS"), 2);
    assert_eq!(ask(&sentinel, "MASTERS").count(0), 1);
    // A Sentinel that refuses connections was not sent anything.
    watch[0].down();
    watch[1].clear_faults();
    watch[1].fault("SENTINEL FAILOVER", Fault::Reply(Value::ok()));
    assert_eq!(text(&ask(&sentinel, &format!("FAILOVER {SERVICE}"))), "OK");
}

#[test]
fn one_sentinel_under_two_names_gets_a_command_once() {
    let d = single("admin-names");
    let node = d.sentinel_nodes()[0].clone();
    let names = [node.addr(), format!("localhost:{}", node.port())];
    let sentinel = sentinel_at(&names, &[]);
    let told = all(&sentinel, &format!("MONITOR more 127.0.0.1 {} 1", d.primary_node(SERVICE).port()));
    assert_eq!(told.values().collect::<Vec<_>>(), ["OK"], "{told:?}");
}

#[test]
fn refused_credentials_are_an_auth_error_and_a_fixed_primary_has_no_sentinel() {
    let d = Deployment::new("admin-auth").replicas(0).sentinel_password("watch-pw").start();
    let sentinel = sentinel_of(&d, &[("sentinel.password", "wrong")]);
    let error = fails(Status::Auth, run(&sentinel, "MASTERS", To::First, false));
    assert!(error.message().contains("sentinel.password") && !error.message().contains("wrong"), "{error}");
    sentinel.configure("sentinel.password", "watch-pw").expect("a dynamic option");
    assert_eq!(ask(&sentinel, "MASTERS").count(0), 1);
    let settings = config(&[("uri", "redis://127.0.0.1:1")]).settings().expect("settings");
    let fixed = Sentinel::create(settings, None).expect("a lazy handle");
    let unsupported = |error: Error| assert!(error.message().contains("primary.addr"), "{error}");
    unsupported(fails(Status::Unsupported, run(&fixed, "MASTERS", To::First, false)));
    unsupported(fails(Status::Unsupported, fixed.services(true, Deadline::after(SOON))));
    fixed.close();
    fails(Status::Closed, run(&fixed, "MASTERS", To::First, false));
    let late = sentinel.exec(&[b"PING"], To::First, false, Deadline::after(Duration::ZERO));
    fails(Status::Timeout, late);
}

#[test]
fn all_services_of_a_deployment_are_discovered_in_one_call() {
    let d = Deployment::new("admin-services").services(["users", "orders"]).replicas(1).start();
    let sentinel = sentinel_at(&d.sentinel_addrs()[..1], &[]);
    let said = sentinel.services(false, Deadline::after(SOON)).expect("they answer");
    for name in ["orders", "users"] {
        let id = said.find(0, name.as_bytes()).unwrap_or_else(|| panic!("no {name} in {}", json(&said)));
        assert_eq!(field(&said, id, "primary").2, Some(d.primary(name).as_bytes()));
        assert_eq!((field(&said, id, "verified").1, field(&said, id, "quorum").1), (Some(0), Some(2)));
        assert_eq!(field(&said, id, "named_by").1, Some(3), "the others were learned from the one that is given");
    }
    assert_eq!(
        json(&sentinel.topology(None).expect("open")).matches("\"primary\":\"").count(),
        0,
        "nothing is followed"
    );
    let followed = sentinel.services(true, Deadline::after(SOON)).expect("they answer");
    for name in ["orders", "users"] {
        let id = followed.find(0, name.as_bytes()).expect("the service");
        assert_eq!((field(&followed, id, "verified").1, field(&followed, id, "replicas").1), (Some(1), Some(1)));
        assert_eq!(field(&followed, id, "error").0, Kind::Null);
    }
    let known = json(&sentinel.topology(None).expect("open"));
    assert!(
        ["orders", "users"].iter().all(|name| known.contains(&format!("\"primary\":\"{}\"", d.primary(name)))),
        "{known}"
    );
    d.sentinel_nodes().iter().for_each(|node| node.kill());
    let error = fails(Status::NoSentinel, sentinel.services(true, Deadline::after(SOON)));
    assert!(error.message().contains("the services"), "{error}");
}

#[test]
fn a_service_that_cannot_be_discovered_is_listed_with_the_reason() {
    let primary = Scripted::primary();
    let watch = Scripted::sentinel(SERVICE, &primary.addr());
    primary.down();
    let sentinel = sentinel_at(&[watch.addr()], &[("timeout.sentinel", "5s")]);
    let said = sentinel.services(true, Deadline::after(SOON)).expect("the Sentinel answers");
    let id = said.find(0, SERVICE.as_bytes()).expect("the service");
    assert_eq!(field(&said, id, "verified").1, Some(0));
    assert_eq!(field(&said, id, "primary").2, Some(primary.addr().as_bytes()));
    let error = String::from_utf8_lossy(field(&said, id, "error").2.expect("a reason")).into_owned();
    assert!(error.contains("cannot verify") && error.contains(&primary.addr()), "{error}");
}

/// A handle that was never used knows one of three addresses.
#[test]
fn all_are_those_that_the_given_one_knows_too() {
    let d = Deployment::new("admin-learn").replicas(0).start();
    let addrs = d.sentinel_addrs();
    let settings = config(&[("sentinel.addrs", &addrs[0])]).settings().expect("settings");
    let sentinel = Sentinel::create(settings, None).expect("a lazy handle");
    let told = all(&sentinel, &format!("SET {SERVICE} quorum 3"));
    assert_eq!(told.keys().cloned().collect::<Vec<_>>(), sorted(addrs));
    assert_eq!(json(&sentinel.topology(None).expect("open")), "{}", "no service is followed for that");
}

#[test]
fn sentinels_that_speak_tls_only_are_asked_by_tls() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let plan = TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let d = Deployment::new("admin-tls").replicas(0).sentinels(1).quorum(1).sentinel_tls(plan).start();
    let sentinel = sentinel_of(&d, &[("sentinel.tls", "on"), ("sentinel.tls.ca", &ca.file())]);
    assert_eq!(ask(&sentinel, "MASTERS").count(0), 1);
    assert!(all(&sentinel, "PING").values().all(|said| said == "PONG"));
    let plain = sentinel_of(&d, &[]);
    assert!(run(&plain, "MASTERS", To::First, false).is_err());
}
