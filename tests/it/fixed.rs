//! A primary without Sentinels: `redis://host` gives the handle that a program has in production.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::{cmd, config, fails, json, number, ok, open, text, within};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Result, Status, flags};
use vigie::queue::{Queue, kind};
use vigie::time::Deadline;
use vigie::topology::{Sentinel, WATCHABLE};

const SOON: Duration = Duration::from_secs(20);
/// What each error about such a primary ends with.
const NO_SUCCESSOR: &str = "there is no Sentinel to follow";

/// Data nodes alone.
fn nodes(name: &str, replicas: usize) -> Deployment {
    Deployment::new(name).replicas(replicas).sentinels(0).start()
}

fn handle(uri: &str) -> Arc<Sentinel> {
    create(uri, None).unwrap_or_else(|error| panic!("{uri}: {error}"))
}

fn create(uri: &str, wait: Option<Deadline>) -> Result<Arc<Sentinel>> {
    Sentinel::create(config(&[("uri", uri)]).settings()?, wait)
}

fn uri_of(primary: &str, replicas: &[String]) -> String {
    match replicas.is_empty() {
        true => format!("redis://{primary}"),
        false => format!("redis://{primary}?replica.addrs={}", replicas.join(",")),
    }
}

fn topology(sentinel: &Arc<Sentinel>) -> String {
    json(&sentinel.topology(None).expect("an open handle"))
}

#[test]
fn the_program_that_will_ship_runs_without_sentinels() {
    let d = nodes("fixed-same", 2);
    let (primary, replicas) = (d.node("mymaster-0"), [d.node("mymaster-1"), d.node("mymaster-2")]);
    let sentinel = handle(&uri_of(&primary.addr(), &[replicas[0].addr(), replicas[1].addr()]));
    let writer = open(&sentinel, Target::Primary, &[]);
    assert_eq!(ok(&writer, "SET k v"), "OK");
    assert_eq!(primary.cmd(&["WAIT", "2", "5000"]), Value::Int(2));
    // A name leads to the same primary as none.
    let reader = Client::open(&sentinel, Some("orders"), Target::Replica, None).expect("a client");
    let split = Client::open(&sentinel, Some("users"), Target::Split, None).expect("a client");
    for client in [&reader, &split] {
        for _ in 0..4 {
            assert_eq!(ok(client, "GET k"), "v");
        }
    }
    assert_eq!((primary.calls("get"), replicas[0].calls("get"), replicas[1].calls("get")), (0, 4, 4));
    assert_eq!(fails(Status::ReadOnly, cmd(&reader, "SET k w")).status(), Status::ReadOnly);
    assert_eq!(number(&split, "INCR n"), 1);
    // A durable write, and the options that need Sentinels.
    let strict = [("write.replicas", "2"), ("write.majority_ms", "10000")];
    assert_eq!(ok(&open(&sentinel, Target::Primary, &strict), "SET durable yes"), "OK");
    let all = open(&sentinel, Target::Primary, &[("write.replicas", "all")]);
    assert_eq!(ok(&all, "SET durable all"), "OK");
    let session = writer.session(None).expect("a session");
    assert_eq!(ok(&session, "SELECT 3"), "OK");
    let queue = completions::queue(8);
    let submitted = split.cmds_submit(&calls::list(&["GET k"]), CallFlags::default(), Timeout::Default, &queue, 7);
    submitted.expect("taken");
    assert_eq!(completions::one(&queue).0, 7);
    assert!(json(&writer.stats().expect("statistics")).contains(&primary.addr()));
    sentinel.close();
    assert_eq!(fails(Status::Closed, sentinel.topology(None)).status(), Status::Closed);
}

#[test]
fn no_thread_watches_where_nobody_is_to_be_watched() {
    calls::alone(concat!(module_path!(), "::no_thread_watches_where_nobody_is_to_be_watched"), || {
        let primary = Scripted::primary();
        let sentinel = handle(&uri_of(&primary.addr(), &[]));
        let queue = Queue::create(8).expect("a queue");
        sentinel.watch(WATCHABLE, &queue, 1).expect("a watch");
        ok(&open(&sentinel, Target::Primary, &[]), "SET k v");
        sentinel.refresh(None, Deadline::after(SOON)).expect("the primary answers");
        assert!(proc::threads_named("vigie-monitor").is_empty(), "{:?}", proc::threads());
        // The connection that verified it is the client's first: nobody dials twice.
        assert_eq!(primary.count("SET"), 1);
    });
}

#[test]
fn the_topology_and_an_event_say_that_nothing_is_discovered() {
    let d = nodes("fixed-told", 1);
    let (primary, replica) = (d.node("mymaster-0").addr(), d.node("mymaster-1").addr());
    let sentinel = handle(&uri_of(&primary, std::slice::from_ref(&replica)));
    let queue = Queue::create(100).expect("a queue");
    sentinel.watch(WATCHABLE, &queue, 5).expect("a watch");
    let client = open(&sentinel, Target::Split, &[]);
    ok(&client, "PING");
    eventually("the replica is read from", SOON, || {
        ok(&client, "GET k");
        d.node("mymaster-1").calls("get") > 0
    });
    let told = topology(&sentinel);
    for part in [
        &format!(r#""primary":"{primary}""#),
        &format!(r#""addr":"{replica}""#),
        r#""discovery":"fixed""#,
        r#""sentinels":[]"#,
        r#""error":null"#,
        r#""fenced":false"#,
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    let notices: Vec<_> = events.iter().filter(|event| event.kind == kind::NOTICE).collect();
    assert_eq!(notices.len(), 1, "{events:?}");
    let notice = notices[0].outcome.as_ref().ok().and_then(Option::as_ref).expect("a map");
    let notice = json(notice);
    assert!(notice.contains(r#""cause":"fixed""#) && notice.contains(&primary), "{notice}");
    // Asked again, it is not told again.
    sentinel.refresh(None, Deadline::after(SOON)).expect("the primary answers");
    events.clear();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, usize::MAX);
    assert!(events.iter().all(|event| event.kind != kind::NOTICE), "{events:?}");
}

#[test]
fn a_dead_primary_is_waited_for_and_its_error_says_that_nobody_is_followed() {
    let d = nodes("fixed-dead", 0);
    let primary = d.node("mymaster-0");
    let sentinel = handle(&uri_of(&primary.addr(), &[]));
    let client = open(&sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    primary.kill();
    let error = calls::fails_soon(Status::NoPrimary, |ms| within(&client, "INCR n", ms));
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error:?}");
    let message = error.message();
    assert!(message.contains(&primary.addr()) && message.matches(NO_SUCCESSOR).count() == 1, "{message}");
    assert!(!message.contains("Sentinels"), "{message}");
    let refreshed = fails(Status::NoPrimary, sentinel.refresh(None, Deadline::after(Duration::from_secs(2))));
    assert!(refreshed.message().contains(NO_SUCCESSOR), "{refreshed}");
    // A call that begins while it is dead runs when it is back.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| within(&client, "INCR n", 20_000).map(|reply| text(&reply)));
        primary.restart();
        let outcome = waits.join().expect("no panic");
        assert!(outcome.is_ok(), "{outcome:?}");
    });
    assert_eq!(ok(&client, "GET n"), "1");
}

#[test]
fn a_submitted_call_waits_for_a_dead_primary_too() {
    let primary = Scripted::primary();
    let sentinel = handle(&uri_of(&primary.addr(), &[]));
    let client = open(&sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    primary.down();
    let queue = completions::queue(8);
    let submit = |token, ms| {
        let list = calls::list(&["SET k w"]);
        client.cmds_submit(&list, CallFlags::default(), Timeout::Ms(ms), &queue, token).expect("taken");
    };
    submit(1, 300);
    let (token, outcome) = completions::one(&queue);
    let error = outcome.expect_err("the primary is dead");
    assert!(token == 1 && error.message().contains(NO_SUCCESSOR), "{error}");
    submit(2, 20_000);
    primary.up();
    let (token, outcome) = completions::one(&queue);
    assert!(token == 2 && outcome.is_ok(), "{outcome:?}");
}

#[test]
fn a_demoted_primary_gets_no_write_and_serves_when_it_is_promoted_again() {
    let d = nodes("fixed-demoted", 1);
    let (primary, other) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let sentinel = handle(&uri_of(&primary.addr(), &[]));
    let client = open(&sentinel, Target::Primary, &[]);
    ok(&client, "SET k v");
    other.cmd(&["REPLICAOF", "NO", "ONE"]);
    primary.cmd(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    let error = calls::fails_soon(Status::Role, |ms| within(&client, "SET k w", ms));
    assert!(error.has(flags::RETRYABLE), "{error:?}");
    let message = error.message();
    assert!(message.contains("replica of") && message.matches(NO_SUCCESSOR).count() == 1, "{message}");
    primary.cmd(&["REPLICAOF", "NO", "ONE"]);
    let reply = within(&client, "SET k x", 20_000).map(|reply| text(&reply));
    assert_eq!(reply.expect("it is a primary again"), "OK");
    assert_eq!(primary.cmd(&["GET", "k"]).text(), "x");
}

#[test]
fn a_replica_that_follows_somebody_else_is_not_read_from() {
    let (primary, stranger) = (Scripted::primary(), Scripted::primary());
    stranger.state(|state| state.replid = Some("e".repeat(40)));
    let (ours, theirs) = (Scripted::replica(&primary.addr()), Scripted::replica(&stranger.addr()));
    theirs.state(|state| state.replid = Some("e".repeat(40)));
    let uri = uri_of(&primary.addr(), &[ours.addr(), theirs.addr(), stranger.addr()]);
    let sentinel = handle(&uri);
    let client = open(&sentinel, Target::Replica, &[("replica.fallback", "error")]);
    for _ in 0..20 {
        let _ = ok(&client, "GET k");
    }
    assert_eq!((theirs.count("GET"), stranger.count("GET"), primary.count("GET")), (0, 0, 0));
    assert_eq!(ours.count("GET"), 20);
    assert!(topology(&sentinel).contains("not the primary"), "{}", topology(&sentinel));
    // The one that is left goes, and no other is taken in its place.
    ours.down();
    let error = calls::fails_soon(Status::NoReplica, |ms| within(&client, "GET k", ms));
    assert!(error.message().contains(&theirs.addr()), "{error}");
    let falls_back = open(&sentinel, Target::Replica, &[]);
    let _ = ok(&falls_back, "GET k");
    assert_eq!(primary.count("GET"), 1);
    // It is read from again when it is back.
    ours.up();
    eventually("the replica is back", SOON, || within(&client, "GET k", 500).is_ok());
}

#[test]
fn making_the_handle_waits_for_the_primary_if_it_is_to() {
    let primary = Scripted::primary();
    let uri = uri_of(&primary.addr(), &[]);
    create(&uri, Some(Deadline::after(SOON))).expect("it is there");
    primary.down();
    let begun = Instant::now();
    let error = fails(Status::NoPrimary, create(&uri, Some(Deadline::after(Duration::from_millis(200)))));
    assert!(begun.elapsed() >= Duration::from_millis(150), "it is tried again until the time is over: {error}");
    assert!(error.message().contains(NO_SUCCESSOR) && error.message().contains(" ms)"), "{error}");
    create(&uri, None).expect("a lazy handle asks nobody");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| create(&uri, Some(Deadline::after(SOON))).map(drop));
        primary.up();
        waits.join().expect("no panic").expect("it came up in time");
    });
    let replica = Scripted::replica(&primary.addr());
    // Its time is over before a slow machine has asked it: then it gets more.
    let refused = |ms| {
        let until = Deadline::after(Duration::from_millis(ms));
        create(&uri_of(&replica.addr(), &[]), Some(until)).map(drop).expect_err("a replica")
    };
    let mut errors = [50, 500, 5000].into_iter().map(refused);
    let error = errors.find(|error| error.status() == Status::Role).expect("it says what it is");
    assert!(error.message().contains("has the role replica of"), "{error}");
}

#[test]
fn credentials_are_the_data_nodes_and_change_while_it_runs() {
    let d = Deployment::new("fixed-auth").replicas(0).sentinels(0).password("p@ss").start();
    let addr = d.node("mymaster-0").addr();
    let sentinel = create(&format!("redis://:wrong@{addr}"), None).expect("a lazy handle");
    let client = open(&sentinel, Target::Primary, &[]);
    let error = fails(Status::Auth, cmd(&client, "PING"));
    assert!(!error.message().contains("wrong") && error.message().contains("auth."), "{error}");
    let made = create(&format!("redis://:wrong@{addr}"), Some(Deadline::after(SOON)));
    assert_eq!(fails(Status::Auth, made).status(), Status::Auth);
    sentinel.configure("auth.password", "p@ss").expect("a dynamic option");
    assert_eq!(ok(&client, "PING"), "PONG");
    let elsewhere = Scripted::primary();
    sentinel.configure("address.map", &format!("{addr}={}", elsewhere.addr())).expect("a dynamic option");
    eventually("calls go where the map leads", SOON, || {
        let _ = cmd(&client, "SET mapped yes");
        elsewhere.count("SET") > 0
    });
    let refused = fails(Status::Config, sentinel.configure("primary.addr", "h:1"));
    assert!(refused.message().contains("cannot be changed"), "{refused}");
}

#[test]
fn a_database_in_the_path_and_a_unix_socket() {
    let d = Deployment::new("fixed-unix").replicas(0).sentinels(0).unix_socket(true).start();
    let node = d.node("mymaster-0");
    let client = open(&handle(&format!("redis://{}/5", node.addr())), Target::Primary, &[]);
    ok(&client, "SET where five");
    let path = node.unix_addr().expect("a socket");
    let settings = config(&[("primary.addr", &path), ("db", "5")]).settings().expect("settings");
    let client = open(&Sentinel::create(settings, None).expect("a handle"), Target::Primary, &[]);
    assert_eq!(ok(&client, "GET where"), "five");
}

#[test]
fn a_primary_that_speaks_tls_only_is_given_with_rediss() {
    if lacks(Feature::Tls) {
        return;
    }
    let ca = Ca::new();
    let plan = TlsPlan { ca: ca.file(), pair: ca.local("server"), wants_clients: false };
    let d = Deployment::new("fixed-tls").replicas(1).sentinels(0).tls(plan).start();
    let (primary, replica) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let uri = format!("rediss://{}/2?tls.ca={}&replica.addrs={}", primary.addr(), ca.file(), replica.addr());
    let sentinel = create(&uri, Some(Deadline::after(SOON))).expect("it has confirmed its role");
    ok(&open(&sentinel, Target::Primary, &[]), "SET k v");
    assert_eq!(primary.cmd(&["WAIT", "1", "5000"]), Value::Int(1));
    let reader = open(&sentinel, Target::Replica, &[("replica.fallback", "error")]);
    assert_eq!(ok(&reader, "GET k"), "v");
    let plain = handle(&format!("redis://{}", primary.addr()));
    assert!(within(&open(&plain, Target::Primary, &[]), "PING", 500).is_err());
}
