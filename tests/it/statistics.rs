//! Statistics: what is counted is what the servers saw, and says why connections ended.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use stage::{Told, Watch};
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::{Status, flags};
use vigie::queue::kind;

const PATIENCE: Duration = deployment::PATIENCE;
const PING: i64 = b"*1\r\n$4\r\nPING\r\n".len() as i64;

/// The counts of a list in the statistics of a client, by their words.
fn counts(client: &Client, list: &str, word: &str) -> Vec<(String, i64)> {
    let stats = client.stats().expect("an open client");
    let list = stats.find(0, list.as_bytes()).expect("the list");
    let row = |id: u32| {
        let text = stats.find(id, word.as_bytes()).and_then(|at| stats.bytes(at)).expect("a word");
        let count = stats.find(id, b"count").and_then(|at| stats.int(at)).expect("a count");
        (String::from_utf8_lossy(text).into_owned(), count)
    };
    stats.children(list).map(row).filter(|(_, count)| *count > 0).collect()
}

fn ends(client: &Client) -> Vec<(String, i64)> {
    counts(client, "closed_by", "reason")
}

fn is_closed(client: &Client, reason: &str, count: i64) -> bool {
    ends(client).iter().any(|(word, closed)| word == reason && *closed == count)
}

/// Waits until so many connections were closed for this reason.
#[track_caller]
fn closed(client: &Client, reason: &str, count: i64) {
    eventually(&format!("{count} closed: {reason}"), PATIENCE, || is_closed(client, reason, count));
}

#[test]
fn row_58_statistics_are_what_the_server_lists_and_counts() {
    let d = single("statistics");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[("client.name", "counted")]), &[]);
    for _ in 0..50 {
        ok(&client, "SET k 0123456789");
    }
    let (error, session) = (fails(Status::Server, cmd(&client, "LPUSH k v")), client.session(None).unwrap());
    assert!(!error.has(flags::MAYBE_EXECUTED));
    ok(&session, "SELECT 1");
    let pool = primary_pool(&client);
    assert_eq!((pool.get("size"), pool.get("in_use")), (2, 1));
    assert_eq!((pool.get("opened") - pool.get("closed"), named(&node, "counted")), (2, 2));
    assert_eq!(counts(&client, "errors_by", "status"), [("VIGIE_ERR_SERVER".to_owned(), 1)]);
    assert_eq!((counter(&client, "errors"), counter(&client, "calls"), counter(&client, "in_flight")), (1, 52, 0));
    // The library asks idle connections for a sign of life.
    let bytes = |line: &str| list(&[line]).len() as i64;
    let own = 50 * bytes("SET k 0123456789") + bytes("LPUSH k v") + bytes("SELECT 1");
    let extra = pool.get("bytes_sent") - own;
    assert!(extra >= 0 && extra % PING == 0, "{extra} bytes more than {own}");
    let replies = 51 * b"+OK\r\n".len() as i64;
    assert!(pool.get("bytes_received") > replies, "{pool:?}");
    assert!((51..=53).contains(&pool.get("answered")), "calls of sessions are not counted: {pool:?}");
    let times = ["p50_us", "p99_us", "p999_us"].map(|key| counter(&client, key));
    assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    assert!(counter(&client, "latency_sum_us") >= times[0] * 16 / 17 * 25, "half of them took at least the median");

    // Each connection that ends has its reason.
    drop(session);
    closed(&client, "given_up", 1);
    for info in node.clients_named("counted") {
        node.cmd(&["CLIENT", "KILL", "ID", &info.id.to_string()]);
    }
    closed(&client, "lost", 1);
    ok(&client, "GET k");
    client.disconnect().unwrap();
    closed(&client, "disconnected", 1);
    let pool = primary_pool(&client);
    assert_eq!((pool.get("size"), pool.get("opened"), pool.get("closed")), (0, 3, 3));
    eventually("the server has none", PATIENCE, || named(&node, "counted") == 0);
    let brief = to_primary(&sentinel_of(&d, &[]), &[("pool.idle", "100ms")]);
    ok(&brief, "GET k");
    closed(&brief, "idle", 1);
}

#[test]
fn a_call_that_waits_for_its_reply_is_in_the_latencies_and_a_blocking_one_is_not() {
    let node = Scripted::primary();
    let sentinel = told(&node.addr(), &[]);
    let client = to_primary(&handle(&sentinel, &[]), &[]);
    for _ in 0..99 {
        ok(&client, "SET k v");
    }
    assert!(counter(&client, "p999_us") < 300_000);
    node.fault("GET slow", Fault::Delay(Duration::from_millis(300)));
    let _ = cmd(&client, "GET slow");
    let answered = counter(&client, "answered");
    let slowest = counter(&client, "p999_us");
    assert!((300_000..20_000_000).contains(&slowest), "{slowest}");
    node.fault("BLPOP q 0.4", Fault::Delay(Duration::from_millis(400)));
    let _ = cmd(&client, "BLPOP q 0.4");
    let queue = vigie::queue::Queue::create(4).unwrap();
    let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
    client.cmds_submit(&list(&["BLPOP q 0.4"]), each, Timeout::Default, &queue, 1).unwrap();
    let mut events = Vec::new();
    while queue.drain(vigie::time::Deadline::after(PATIENCE), &mut events, 1) == 0 {}
    assert_eq!(counter(&client, "calls"), 102);
    assert!(counter(&client, "answered") - answered <= 2, "signs of life at most");
    client.cmds_submit(&list(&["GET k", "GET k"]), each, Timeout::Default, &queue, 1).unwrap();
    eventually("submitted ones are", PATIENCE, || counter(&client, "answered") >= answered + 2);
    assert_eq!(primary_pool(&client).get("submit_lanes"), 2, "one of them for the blocking command");
}

#[test]
fn connections_are_told_of_when_they_are_opened_and_closed_and_why() {
    let d = single("connections");
    let (node, sentinel) = (d.primary_node(SERVICE), sentinel_of(&d, &[("client.name", "told")]));
    let (all, watch) = (Watch::on(&sentinel), Watch::kinds(&sentinel, kind::CONNECTION, 5));
    let client = to_primary(&sentinel, &[]);
    let mut told = 0;
    let mut next = |open: &str, cause: &str| {
        let is_it = |told: &Told| told.is(kind::CONNECTION, &[("open", open), ("cause", cause)]);
        watch.wait(cause, PATIENCE, |told| is_it(told));
        told += 1;
        let events = watch.all();
        assert!(events.len() == told && is_it(&events[told - 1]), "in order, and nothing else: {events:?}");
        let is_about = [("service", SERVICE), ("node", &*node.addr()), ("role", "primary")];
        assert!(events[told - 1].is(kind::CONNECTION, &is_about) && events[told - 1].token == 5, "{events:?}");
    };
    ok(&client, "SET k v");
    next("1", "opened");
    node.cmd(&["CLIENT", "KILL", "ID", &node.clients_named("told")[0].id.to_string()]);
    next("0", "lost");
    let session = client.session(None).unwrap();
    ok(&session, "SELECT 1");
    watch.wait("another one", PATIENCE, |_| true);
    drop(session);
    watch.wait("the session's", PATIENCE, |told| told.is(kind::CONNECTION, &[("cause", "given_up")]));
    ok(&client, "GET k");
    drop(client);
    watch.wait("the client's", PATIENCE, |told| told.is(kind::CONNECTION, &[("cause", "closed")]));
    let (opened, closed) = (of_open(&watch, "1"), of_open(&watch, "0"));
    assert_eq!((opened, closed), (3, 3), "{:?}", watch.all());
    assert_eq!(all.count(|told| told.kind == kind::CONNECTION), 0, "only who asks for it is told");
    let unwatched = to_primary(&sentinel, &[]);
    sentinel.watch(0, &watch.queue, 5).unwrap();
    ok(&unwatched, "GET k");
    assert_eq!(of_open(&watch, "1"), 3);
}

fn of_open(watch: &Watch, open: &str) -> usize {
    watch.count(|told| told.is(kind::CONNECTION, &[("open", open)]))
}

#[test]
fn what_the_fence_holds_back_is_counted_once_for_each_call() {
    let stage = stage::stage(2, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    ok(&client, "GET k");
    assert_eq!(counter(&client, "held_back"), 0, "a read passes");
    let queue = vigie::queue::Queue::create(4).unwrap();
    let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
    client.cmds_submit(&list(&["SET k w"]), each, Timeout::Default, &queue, 1).unwrap();
    let write = spawn({
        let client = Arc::clone(&client);
        move || cmd(&client, "SET k x").map(drop)
    });
    eventually("both wait", PATIENCE, || counter(&client, "held_back") == 2);
    assert_eq!(counter(&client, "in_flight"), 2);
    stage.abort(0, "not-elected");
    join(&write).unwrap();
    let mut events = Vec::new();
    while queue.drain(vigie::time::Deadline::after(PATIENCE), &mut events, 1) == 0 {}
    assert_eq!(counter(&client, "held_back"), 2);
    eventually("both are over", PATIENCE, || counter(&client, "in_flight") == 0);
}
