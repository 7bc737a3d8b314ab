//! Statistics: what is counted is what the servers saw, and says why connections ended.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use stage::{Told, Watch};
use support::*;
use vigie::client::{CallFlags, Client, Timeout, metrics_of, stats_of};
use vigie::error::{Result, Status, flags};
use vigie::queue::kind;
use vigie::resp::Reply;
use vigie::topology::Sentinel;

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

/// A switch shuts the connections to a primary that hangs: neither errors nor events say that the primary did.
#[test]
fn who_closed_a_connection_is_told_truly_when_a_hanging_primary_is_replaced() {
    let stage = stage::stage(1, &[]);
    stage.listened();
    let told = Watch::kinds(&stage.sentinel, kind::CONNECTION, 5);
    let client = to_primary(&stage.sentinel, &[]);
    let session = client.session(None).unwrap();
    ok(&client, "SET k v");
    ok(&session, "SET k v");
    let lines = ["SET hangs 1", "BLPOP hangs 0", "LPUSH hangs 1"];
    lines.iter().for_each(|line| stage.p.fault(line, Fault::Stall));
    let start = |client: &Arc<Client>, line: &'static str| {
        let client = Arc::clone(client);
        spawn(move || cmd(&client, line))
    };
    let ends = [start(&client, lines[0]), start(&client, lines[1]), start(&session, lines[2])];
    for line in lines {
        eventually(line, PATIENCE, || seen(&stage.p, line) == 1);
    }
    stage.switch_all();
    for end in &ends {
        if let Err(error) = join(end) {
            let blames = ["closed by 1", "closed the connection", "reset by peer"];
            assert!(!blames.iter().any(|blame| error.to_string().contains(blame)), "{error}");
            let truths = ["its node is not used any more", "had not answered when"];
            assert!(truths.iter().any(|truth| error.to_string().contains(truth)), "{error}");
        }
    }
    let ended = |told: &Told| told.get("open") == "0" && told.get("node") == stage.p.addr();
    eventually("three at least", PATIENCE, || told.count(ended) >= 3);
    let causes: Vec<_> = told.all().into_iter().filter(ended).map(|told| told.get("cause").to_owned()).collect();
    assert!(causes.iter().all(|cause| cause == "role"), "{causes:?}");
}

/// A primary that hangs serves nobody long before the Sentinels say so: the gap begins with the first call that waits, also if its
/// connection was given up before the switch.
#[test]
fn the_gap_of_a_primary_that_hangs_begins_with_the_first_call_that_it_leaves_unanswered() {
    const DOWN_AFTER: i64 = 1500;
    let d = Deployment::new("gap").down_after(DOWN_AFTER as u64).start();
    let sentinel = sentinel_of(&d, &[]);
    let told = Watch::kinds(&sentinel, kind::TOPOLOGY, 5);
    for (round, timeout) in [(1, 8000), (2, 300)] {
        let client = to_primary(&sentinel, &[]);
        ok(&client, "SET k v");
        let hangs = d.settled_primary(SERVICE);
        hangs.stop();
        let begun = Instant::now();
        let write = || client.cmd_exec(&[b"SET", b"k", b"w"], CallFlags::default(), Timeout::Ms(timeout));
        eventually("another primary serves", PATIENCE, || write().is_ok());
        eventually("the switch is told", PATIENCE, || told.switches().len() == round);
        let most = begun.elapsed().as_millis() as i64;
        let switch = told.switches().pop().expect("a switch");
        let gap: i64 = switch.get("gap_ms").parse().expect("a gap");
        // No Sentinel raises the fence before it has waited for so long.
        assert!((DOWN_AFTER..=most).contains(&gap), "{timeout}: {gap} of {most}");
        let stats = stats_of(&sentinel).expect("an open handle");
        let services = stats.find(0, b"services").expect("services");
        let row = stats.child(services, 0).expect("a service");
        assert_eq!(stats.find(row, b"last_gap_ms").and_then(|at| stats.int(at)), Some(gap));
        hangs.cont();
        d.await_link(&hangs);
    }
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

/// These counters of a client.
fn counters<const N: usize>(client: &Client, keys: [&str; N]) -> [i64; N] {
    keys.map(|key| counter(client, key))
}

/// A figure of the handle.
fn of_handle(sentinel: &Sentinel, key: &str) -> i64 {
    let stats = stats_of(sentinel).expect("an open handle");
    stats.find(0, key.as_bytes()).and_then(|at| stats.int(at)).expect("a number")
}

/// The sum of the samples of a family.
fn metric(sentinel: &Sentinel, name: &str) -> i64 {
    let text = text(&metrics_of(sentinel, false).expect("an open handle"));
    let samples = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<i64>().ok()).expect("a number")).sum()
}

#[test]
fn what_becomes_of_transactions_and_scripts_is_counted() {
    const ENDS: [&str; 4] = ["transactions", "transactions_run", "transactions_aborted", "transactions_refused"];
    let d = single("deeds");
    let (node, sentinel) = (d.primary_node(SERVICE), sentinel_of(&d, &[("script.cache", "on")]));
    let (client, queue) = (to_primary(&sentinel, &[]), completions::queue(4));
    let atomic = CallFlags::from_bits(CallFlags::ATOMIC).unwrap();
    let exec = |on: &Client, lines: &[&str]| on.cmds_exec(&list(lines), atomic, Timeout::Default);
    let submit = |on: &Client, lines: &[&str]| -> Result<Reply> {
        on.cmds_submit(&list(lines), atomic, Timeout::Default, &queue, 1).expect("taken");
        completions::one(&queue).1
    };
    exec(&client, &["SET k v", "LPUSH k v"]).expect("it ran, whatever its commands said");
    submit(&client, &["INCR n"]).expect("it ran");
    assert_eq!(counters(&client, ENDS), [2, 2, 0, 0]);
    let session = client.session(None).unwrap();
    exec(&session, &["INCR n"]).expect("it ran");
    submit(&session, &["INCR n"]).expect("it ran");
    for run in [&exec as &dyn Fn(&Client, &[&str]) -> Result<Reply>, &submit] {
        ok(&session, "WATCH k");
        node.cmd(&["SET", "k", "changed"]);
        fails(Status::TxnAborted, run(&session, &["SET k w"]));
        fails(Status::Server, run(&session, &["SET k w", "NOSUCH x"]));
        fails(Status::Server, run(&client, &["SET k w", "NOSUCH x"]));
    }
    assert_eq!(counters(&client, ENDS), [10, 4, 2, 4]);
    node.kill();
    assert!(client.cmds_exec(&list(&["INCR n"]), atomic, Timeout::Ms(100)).is_err());
    assert_eq!(counters(&client, ENDS), [11, 4, 2, 4], "one without an answer is neither");
    node.restart();
    let metrics =
        ["run", "aborted", "refused"].map(|end| metric(&sentinel, &format!("vigie_transactions_{end}_total")));
    assert_eq!(metrics, [4, 2, 4]);

    let client = to_primary(&sentinel, &[]);
    let script = || ok(&client, "EVAL return(1) 0");
    eventually("it serves again", PATIENCE, || cmd(&client, "PING").is_ok());
    [script(), script(), script()].iter().for_each(|reply| assert_eq!(reply, "1"));
    assert_eq!(counters(&client, ["scripts_shortened", "scripts_healed"]), [2, 0]);
    node.cmd(&["SCRIPT", "FLUSH"]);
    ok(&client, "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 0");
    assert_eq!(counters(&client, ["scripts_shortened", "scripts_healed"]), [2, 1]);
    assert_eq!([of_handle(&sentinel, "scripts"), of_handle(&sentinel, "script_bytes")], [1, 9]);
    assert_eq!(metric(&sentinel, "vigie_script_bytes"), 9);

    assert_eq!((of_handle(&sentinel, "sentinels"), metric(&sentinel, "vigie_sentinels")), (1, 1));
    eventually("it is heard", PATIENCE, || of_handle(&sentinel, "sentinels_heard") == 1);
    d.sentinel_nodes().iter().for_each(|sentinel| sentinel.kill());
    eventually("it is not heard", PATIENCE, || metric(&sentinel, "vigie_sentinels_heard") == 0);
    assert_eq!(of_handle(&sentinel, "sentinels"), 1, "it is known");
}

#[test]
fn each_subscription_counts_what_it_hears_and_the_client_keeps_it() {
    const ALL: [&str; 4] = ["messages", "messages_dropped", "subscription_gaps", "subscriptions"];
    let d = single("heard");
    let (node, sentinel) = (d.primary_node(SERVICE), sentinel_of(&d, &[("client.name", "heard")]));
    let (client, queue) = (to_primary(&sentinel, &[]), completions::queue(4));
    let small = config(&[("sub.max_messages", "3")]);
    let wide = client.subscription(&queue, 5, None).unwrap();
    let narrow = client.subscription(&queue, 6, Some(&small)).unwrap();
    for sub in [&wide, &narrow] {
        sub.exec(&[b"SUBSCRIBE", b"c"], Timeout::Default).unwrap();
    }
    // The rows in the order of their making, without the bytes.
    let rows = || -> Vec<[i64; 5]> {
        let stats = client.stats().unwrap();
        let list = stats.find(0, b"subscription_list").expect("the list");
        let number =
            |id: u32, key: &str| stats.find(id, key.as_bytes()).and_then(|at| stats.int(at)).expect("a number");
        let keys = ["token", "messages", "dropped", "gaps", "buffered"];
        stats.children(list).map(|id| keys.map(|key| number(id, key))).collect()
    };
    assert_eq!(rows(), [[5, 0, 0, 0, 0], [6, 0, 0, 0, 0]], "answers are no messages");
    for _ in 0..5 {
        node.cmd(&["PUBLISH", "c", "hello"]);
    }
    eventually("all came", PATIENCE, || rows() == [[5, 5, 0, 0, 5], [6, 5, 2, 0, 3]]);
    assert_eq!(counters(&client, ALL), [10, 2, 0, 2]);
    let bytes = counter(&client, "message_bytes");
    assert!(bytes >= 10 * 5 && metric(&sentinel, "vigie_message_bytes_total") == bytes, "{bytes}");
    assert_eq!(metric(&sentinel, "vigie_messages_buffered"), 8);
    assert_eq!(metric(&sentinel, "vigie_messages_buffered_bytes"), bytes / 10 * 8, "equal messages");
    let mut events = Vec::new();
    eventually("all is drained", PATIENCE, || {
        queue.drain(vigie::time::Deadline::after(Duration::ZERO), &mut events, 100);
        rows().iter().all(|row| row[4] == 0)
    });
    node.clients_named("heard").iter().for_each(|one| {
        node.cmd(&["CLIENT", "KILL", "ID", &one.id.to_string()]);
    });
    eventually("both were made anew", PATIENCE, || {
        queue.drain(vigie::time::Deadline::after(Duration::ZERO), &mut events, 100);
        rows() == [[5, 5, 0, 1, 0], [6, 5, 2, 1, 0]]
    });
    assert_eq!(counters(&client, ALL), [10, 2, 2, 2]);
    narrow.free();
    assert_eq!(rows(), [[5, 5, 0, 1, 0]]);
    drop((wide, narrow));
    // A library thread may hold one for a moment longer.
    eventually("what was counted stays", PATIENCE, || counters(&client, ALL) == [10, 2, 2, 0]);
    let samples = |text: &str| text.lines().filter(|line| line.starts_with("vigie_messages_total{")).count();
    assert_eq!(samples(&text(&metrics_of(&sentinel, false).unwrap())), 1, "one sample, however many there were");
    drop(client);
    assert_eq!(metric(&sentinel, "vigie_messages_total"), 10);
}
