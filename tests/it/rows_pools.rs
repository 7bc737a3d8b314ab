//! Rows of the feature page about pools: sizes, waiting, dirty connections, losses, rotation, databases, many threads.

use crate::calls;
use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::config::Config;
use vigie::error::{Status, flags};

const NAME: &str = "rows-pools";
const NAMED: &[(&str, &str)] = &[("client.name", NAME)];
const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// Options for a pool with these limits.
fn bounds<'a>(min: &'a str, max: &'a str) -> [(&'a str, &'a str); 2] {
    [("pool.min", min), ("pool.max", max)]
}

/// Sessions of a client, each holding its connection, and the connections' numbers.
fn sessions(client: &Arc<Client>, count: usize) -> (Vec<Arc<Client>>, Vec<i64>) {
    let sessions: Vec<_> = (0..count).map(|_| client.session(None).expect("a session")).collect();
    let ids = sessions.iter().map(|session| client_id(session)).collect();
    (sessions, ids)
}

#[test]
fn row_17_pool_min_max_and_their_validation() {
    let d = single("bounds");
    let sentinel = sentinel_of(&d, NAMED);
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel, &bounds("10", "10"));
    assert_eq!(ok(&client, "PING"), "PONG");
    eventually("ten connections, all idle", SOON, || {
        let pool = primary_pool(&client);
        (pool.get("size"), pool.get("in_use"), pool.get("in_flight")) == (10, 0, 0) && named(&node, NAME) == 10
    });
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(named(&node, NAME), Ordering::Relaxed);
            }
        });
        hundred_mixed_threads(&client);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(most.into_inner(), 10, "never more than max");
    assert_eq!(named(&node, NAME), 10, "nor fewer than min afterwards");
    for (min, max, named) in
        [("11", "10", "pool.min"), ("0", "0", "pool.max"), ("0", "-1", "pool.max"), ("-1", "4", "pool.min")]
    {
        let mut config = Config::new();
        let set = config.set("sentinel.addrs", "127.0.0.1").and_then(|()| config.set("pool.min", min));
        let outcome = set.and_then(|()| config.set("pool.max", max)).and_then(|()| config.settings().map(drop));
        let error = fails(Status::Config, outcome);
        assert!(error.message().contains(named), "{min}, {max}: {error}");
    }
}

/// 100 threads with ordinary, blocking and session calls at once.
fn hundred_mixed_threads(client: &Arc<Client>) {
    std::thread::scope(|scope| {
        for thread in 0..100 {
            scope.spawn(move || {
                for turn in 0..6 {
                    match (thread + turn) % 3 {
                        0 => drop(ok(client, &format!("BLPOP none:{thread} 0.005"))),
                        1 => drop(client_id(&client.session(None).expect("a session"))),
                        _ => drop(ok(client, &format!("SET k:{thread} {turn}"))),
                    }
                }
            });
        }
    });
}

#[test]
fn row_17_never_more_than_max_counted_by_the_server() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &bounds("0", "3"));
    ok(&client, "PING");
    eventually("the discovery's own connection is gone", SOON, || node.connections() == 1);
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let client = &client;
            scope.spawn(move || {
                for turn in 0..10 {
                    match (thread + turn) % 2 {
                        0 => drop(ok(&client.session(None).expect("a session"), "PING")),
                        _ => drop(ok(client, "GET k")),
                    }
                }
            });
        }
    });
    assert!((2..=3).contains(&node.peak()), "the server saw {} connections at a time", node.peak());
}

#[test]
fn row_49_no_sockets_before_first_use() {
    let d = single("lazy");
    let ports: Vec<u16> = d.nodes().iter().map(|node| node.port()).collect();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &bounds("5", "8"));
    let session = client.session(None).expect("a session");
    assert_eq!(proc::sockets_to(&ports), 0);
    assert!(pools(&client).is_empty(), "no pool before the first call");
    let topology = client.topology().expect("an open client");
    let primary = topology.find(0, b"primary").expect("a field for the primary");
    assert_eq!(topology.kind(primary), vigie::resp::Kind::Null, "no address either");
    assert_eq!(proc::sockets_to(&ports), 0);
    assert_eq!(ok(&session, "PING"), "PONG");
    assert!(proc::sockets_to(&ports) > 0);
}

#[test]
fn row_50_min_connections_opened_and_checked() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    // No more than that: while the upkeep has one of them in hand, a session would open another.
    let client = to_primary(&sentinel, &bounds("5", "5"));
    ok(&client, "PING");
    eventually("five connections", SOON, || node.connections() == 5);
    // The first one is the connection of the discovery.
    eventually("each has said that it is a primary", SOON, || node.count("ROLE") == 5);
    eventually("the pool says so too", SOON, || primary_pool(&client).get("size") == 5);
    // All of them work: one is shared, four are loans.
    let sessions: Vec<_> = (0..4).map(|_| client.session(None).expect("a session")).collect();
    sessions.iter().for_each(|session| drop(ok(session, "PING")));
    ok(&client, "PING");
    let pingers: std::collections::BTreeSet<u64> =
        node.log().iter().filter(|entry| entry.text() == "PING").map(|entry| entry.conn).collect();
    assert_eq!((pingers.len(), node.accepted()), (5, 5));
    drop(sessions);
}

#[test]
fn row_51_pool_exhausted_bounded_wait_or_fail_fast() {
    let d = single("exhausted");
    let sentinel = sentinel_of(&d, &[]);
    // One place is kept for the shared connection: three places are two loans.
    let client = to_primary(&sentinel, &bounds("0", "3"));
    let (mut busy, ids) = sessions(&client, 2);
    let waits = {
        let client = client.clone();
        spawn(move || client_id(&client.session(None).expect("a session")))
    };
    eventually("the third waits", SOON, || primary_pool(&client).get("waiting") == 1);
    assert_eq!(ok(&client, "PING"), "PONG", "ordinary calls do not wait for loans");
    let released = busy.pop().expect("two sessions");
    released.close(Timeout::Default).expect("it is given back");
    assert_eq!(join(&waits), ids[1], "it gets the one that was freed");
    let again = client.session(None).expect("a session");
    assert_eq!(client_id(&again), ids[1]);
    busy.push(again);

    let limited = to_primary(&sentinel, &[("pool.max", "3"), ("pool.wait", "150")]);
    let (_held, _) = sessions(&limited, 2);
    let (outcome, took, pace) = paced(|| within(&limited.session(None).expect("a session"), "PING", 3000));
    let error = fails(Status::PoolTimeout, outcome);
    assert!(took >= 150 * MS, "{took:?}");
    pace.judge("a wait of 150 ms", took, 200 * MS);
    assert!(error.has(flags::RETRYABLE) && error.endpoint() == d.primary(SERVICE), "{error}");
    // Blocking commands take loans too.
    fails(Status::PoolTimeout, within(&limited, "BLPOP none 1", 3000));

    let hasty = to_primary(&sentinel, &[("pool.max", "3"), ("pool.wait", "0")]);
    ok(&hasty, "PING");
    let (_held, _) = sessions(&hasty, 2);
    let hurry = || cmd(&hasty.session(None).expect("a session"), "PING");
    let error = fails(Status::PoolBusy, takes_at_most("no wait", 50 * MS, hurry));
    for part in ["size 3", "in_use 2", "connected 3", SERVICE, &d.primary(SERVICE)] {
        assert!(error.message().contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn row_51_the_deadline_of_the_call_bounds_the_wait() {
    let d = single("waits");
    let client = to_primary(&sentinel_of(&d, &[]), &bounds("0", "2"));
    let (_held, _) = sessions(&client, 1);
    let (outcome, took, pace) = paced(|| within(&client.session(None).expect("a session"), "PING", 200));
    fails(Status::PoolTimeout, outcome);
    assert!(took >= 200 * MS, "{took:?}");
    pace.judge("a wait of 200 ms", took, 250 * MS);
    assert_eq!(primary_pool(&client).get("waiting"), 0);
}

#[test]
fn row_52_released_connections_are_reused_dirty_ones_are_not() {
    let d = single("dirty");
    let client = to_primary(&sentinel_of(&d, NAMED), &bounds("0", "3"));
    let (first, ids) = sessions(&client, 1);
    let session = &first[0];
    ok(session, "SET k v");
    ok(session, "WATCH k");
    ok(session, "UNWATCH");
    ok(session, "MULTI");
    ok(session, "INCR n");
    assert_eq!(json(&cmd(session, "EXEC").expect("EXEC runs")), "[1]");
    // Returned twice, and once more by the drop: a clean connection comes back once.
    session.close(Timeout::Default).expect("given back");
    session.close(Timeout::Default).expect("a second time does nothing");
    fails(Status::Closed, cmd(session, "PING"));
    drop(first);
    let mut last = ids[0];
    assert_eq!(sessions(&client, 1).1[0], last, "the connection is reused");

    let dirty: &[&[&str]] = &[
        &["MULTI"],
        &["MULTI", "SET left behind"],
        &["WATCH k"],
        &["SELECT 3"],
        &["CLIENT SETNAME other"],
        &["CLIENT NO-EVICT ON"],
        &["READONLY.UNKNOWN"],
    ];
    for lines in dirty {
        let session = client.session(None).expect("a session");
        let id = client_id(&session);
        for line in *lines {
            let _ = cmd(&session, line);
        }
        drop(session);
        let next = client.session(None).expect("a session");
        let reused = client_id(&next) == id;
        let unknown = lines[0].starts_with("READONLY.");
        assert_eq!(reused, unknown, "{lines:?}: only what changed nothing is reused");
        let info = ok(&next, "CLIENT INFO");
        assert!(
            info.contains(" db=0 ") && info.contains(" multi=-1 ") && info.contains(&format!("name={NAME} ")),
            "{info}"
        );
        assert!(!info.contains("flags=x") && !info.contains("flags=e"), "{info}");
        last = client_id(&next);
    }
    assert_eq!(ok(&client, "EXISTS left"), "0", "nothing that was queued by a session that ended has run");
    // Outstanding replies: a session whose call timed out.
    let session = client.session(None).expect("a session");
    fails(Status::Timeout, within(&session, "BLPOP none 5", 50));
    drop(session);
    assert_ne!(sessions(&client, 1).1[0], last);
    eventually("only what is in use or idle is connected", SOON, || {
        named(&d.primary_node(SERVICE), NAME) as i64 == primary_pool(&client).get("size")
    });
}

#[test]
fn row_53_closed_connections_are_replaced_partial_loss_refills() {
    let d = single("losses");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, NAMED), &bounds("3", "4"));
    ok(&client, "PING");
    let whole = || named(&node, NAME) == 3 && primary_pool(&client).get("size") == 3;
    eventually("three connections", SOON, whole);
    for round in 0..3 {
        kill_named(&node, 3);
        assert_eq!(number(&client, "INCR n"), round + 1, "the next command works, once");
        takes_at_most("three again", 1000 * MS, || eventually("three again", SOON, whole));
    }
    kill_named(&node, 2);
    assert_eq!(number(&client, "INCR n"), 4);
    takes_at_most("three again after the loss of two", 1000 * MS, || eventually("three again", SOON, whole));
    assert_eq!(counter(&client, "errors"), 0);
    // Without callers too.
    kill_named(&node, 2);
    takes_at_most("three again without a call", 2000 * MS, || eventually("three again", SOON, whole));
}

/// CLIENT KILL for so many of the named connections.
fn kill_named(node: &Node, count: usize) {
    let all = node.clients_named(NAME);
    assert_eq!(all.len(), 3);
    for info in &all[..count] {
        assert_eq!(node.cmd(&["CLIENT", "KILL", "ID", &info.id.to_string()]).int(), Some(1));
    }
}

#[test]
fn row_54_busy_connections_not_chosen() {
    let d = single("busy");
    let client = to_primary(&sentinel_of(&d, &[]), &bounds("0", "4"));
    ok(&client, "PING");
    let blocked = {
        let client = client.clone();
        spawn(move || text(&within(&client, "BLPOP wake 40", 50_000).expect("somebody pushes")))
    };
    eventually("the pop waits", SOON, || primary_pool(&client).get("in_use") == 1);
    // Behind the pop they would wait as long as it does.
    let pacing = Pacing::start();
    let longest = (0..300).map(|n| timed(|| ok(&client, &format!("SET k{n} v"))).1).max();
    pacing.stop().judge("the slowest of 300 SETs", longest.expect("300 SETs"), 50 * MS);
    assert_eq!(ok(&client, "RPUSH wake up"), "1");
    assert_eq!(join(&blocked), r#"["wake","up"]"#);
}

#[test]
fn row_55_fair_rotation() {
    let d = single("rotation");
    // Loans take turns: five of them beside the shared connection.
    let client = to_primary(&sentinel_of(&d, &[]), &bounds("6", "6"));
    ok(&client, "PING");
    eventually("five idle loans", SOON, || primary_pool(&client).get("idle") == 5);
    let mut calls: BTreeMap<i64, u32> = BTreeMap::new();
    for _ in 0..1000 {
        *calls.entry(client_id(&client.session(None).expect("a session"))).or_default() += 1;
    }
    assert_eq!(calls.len(), 5, "{calls:?}");
    assert!(calls.values().all(|count| (150..=250).contains(count)), "{calls:?}");
}

#[test]
fn row_60_another_database_for_the_whole_pool() {
    let d = single("database");
    let node = d.primary_node(SERVICE);
    let sentinel = sentinel_of(&d, NAMED);
    let client = to_primary(&sentinel, &bounds("3", "5"));
    let own_db = to_primary(&sentinel, &[("db", "2")]);
    ok(&client, "SET where zero");
    ok(&own_db, "SET where two");
    eventually("three connections and one", SOON, || named(&node, NAME) == 4);
    let (held, _) = sessions(&client, 1);
    sentinel.configure("db", "5").expect("a dynamic option");
    assert_eq!(ok(&client, "EXISTS where"), "0");
    ok(&client, "SET where five");
    drop(held);
    eventually("idle and new ones follow", SOON, || {
        let mut dbs: Vec<u32> = node.clients_named(NAME).iter().map(|info| info.db).collect();
        dbs.sort_unstable();
        dbs == [2, 5, 5, 5]
    });
    let (new, _) = sessions(&client, 4);
    assert!(new.iter().all(|session| ok(session, "GET where") == "five"));
    assert_eq!(ok(&own_db, "GET where"), "two", "a client with a database of its own keeps it");
    let error = fails(Status::Config, sentinel.configure("db", "many"));
    assert!(error.message().contains("db"), "{error}");
    assert_eq!(ok(&client, "GET where"), "five");
}

#[test]
fn row_62_thread_safety() {
    let d = single("threads");
    let client = to_primary(&sentinel_of(&d, &[]), &[("timeout.call", "20000")]);
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let client = &client;
            scope.spawn(move || {
                own_keys(client, thread);
                ten_thousand(client, thread);
            });
        }
    });
    assert_eq!(counter(&client, "errors"), 0);
}

/// Ten thousand times SET and GET of an own key.
fn ten_thousand(client: &Client, thread: usize) {
    let key = format!("own:{thread}");
    for turn in 0..10_000 {
        let value = format!("{thread}-{turn}");
        let mut pair = Vec::with_capacity(96);
        vigie::resp::encode::command(&mut pair, &[b"SET", key.as_bytes(), value.as_bytes()]);
        vigie::resp::encode::command(&mut pair, &[b"GET", key.as_bytes()]);
        let reply = client.cmds_exec(&pair, CallFlags::default(), Timeout::Default).expect("the pair runs");
        assert_eq!(reply.bytes(2), Some(value.as_bytes()));
    }
}

/// Writes and reads its own keys, one by one and in lists, and checks the values.
fn own_keys(client: &Client, thread: usize) {
    for turn in 0..60 {
        let (key, value) =
            (format!("{thread}:{}", turn % 7), format!("{thread}-{turn}-{}", "x".repeat(turn * thread % 300)));
        assert_eq!(ok(client, &format!("SET {key} {value}")), "OK");
        assert_eq!(ok(client, &format!("GET {key}")), value);
        let (set, echo) = (format!("SET {key} {turn}"), format!("ECHO {thread}"));
        let reply = run(client, &[&set, &echo, &format!("GET {key}"), "GET nothing"]).expect("the list runs");
        assert_eq!(json(&reply), format!(r#"["OK","{thread}","{turn}",null]"#));
    }
}
