//! Rows of the feature page about clients: bytes, protocols, and the choice of replicas.

use crate::calls;
use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use calls::*;
use support::door::Door;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Status, flags};
use vigie::resp::Kind;

const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// One primary with two replicas and one Sentinel: for tests that need replicas, but no vote.
fn with_replicas(name: &str) -> Deployment {
    Deployment::new(name).sentinels(1).quorum(1).start()
}

/// Writes and reads a value by one command and by a list, also as part of a key.
fn set_and_get(client: &Client, key: &[u8], value: &[u8]) {
    let (plain, budget) = (CallFlags::default(), Timeout::Default);
    let set = client.cmd_exec(&[b"SET", key, value], plain, budget).expect("SET runs");
    assert_eq!(set.kind(0), Kind::Status);
    let got = client.cmd_exec(&[b"GET", key], plain, budget).expect("GET runs");
    assert_eq!((got.kind(0), got.bytes(0)), (Kind::String, Some(value)));
    let mut list = Vec::new();
    let swapped = [b"swapped", value].concat();
    for command in [&[&b"GET"[..], key][..], &[b"SET", &swapped, key], &[b"GET", &swapped], &[b"DEL", &swapped]] {
        vigie::resp::encode::command(&mut list, command);
    }
    let reply = client.cmds_exec(&list, plain, budget).expect("the list runs");
    assert_eq!((reply.count(0), reply.bytes(1), reply.bytes(3)), (4, Some(value), Some(key)));
}

#[test]
fn row_11_all_byte_values_in_keys_and_values() {
    let d = single("bytes");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let all: Vec<u8> = (0..=255).collect();
    for byte in 0..=255u8 {
        set_and_get(&client, &[b'k', byte], &[b'v', byte, byte, 0]);
        set_and_get(&client, &[byte], &[0, byte, b'\r', b'\n', byte]);
    }
    let long: Vec<u8> = all.iter().cycle().take(1 << 20).copied().collect();
    for (key, value) in [
        (&all[..], &all[..]),
        (b"", b"empty key"),
        (b"empty value", b""),
        (b"long", &long),
        (b"like a reply", b"-ERR no\r\n:1\r\n$-1\r\n"),
        (b"like a number", b"0017"),
        (b"latin 1", b"\xe4\xf6\xfc\xff"),
    ] {
        set_and_get(&client, key, value);
    }
    let mut other = d.primary_node(SERVICE).connect().expect("the primary answers");
    assert_eq!(
        other.cmd(&[&b"GET"[..], &all]).expect("it answers"),
        Value::Bulk(all.clone()),
        "the server has the same"
    );
    // Nothing is decoded unless it is asked for.
    let reply = cmd(&client, "GET nothing").expect("GET runs");
    assert_eq!((reply.kind(0), reply.bytes(0)), (Kind::Null, None));
    ok(&client, "SET number 0017");
    let reply = cmd(&client, "GET number").expect("GET runs");
    assert_eq!((reply.bytes(0), reply.int(0)), (Some(&b"0017"[..]), Some(17)));
}

#[test]
fn row_12_both_protocols_pass() {
    let d = single("protocols");
    let mut told = Vec::new();
    for (protocol, version) in [("2", "2"), ("3", "3"), ("auto", "3")] {
        let sentinel = sentinel_of(&d, &[("protocol", protocol)]);
        let client = to_primary(&sentinel, &[]);
        ok(&client, "FLUSHALL");
        let info = ok(&client, "CLIENT INFO");
        // Before Redis 7.0 the server does not say it, but its replies do.
        let is_told = info.contains(&format!(" resp={version}"));
        assert!(is_told || !Feature::SubCommands.is_there() && !info.contains(" resp="), "{protocol}: {info}");
        told.push(representative(&client, version == "3"));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[1], told[2]);
}

/// All kinds of replies, in the form that both protocols share.
fn representative(client: &Arc<Client>, three: bool) -> Vec<String> {
    let kind = |line: &str| cmd(client, line).unwrap_or_else(|error| panic!("{line}: {error}")).kind(0);
    ok(client, "HSET h f1 v1 f2 v2");
    ok(client, "SADD s one");
    ok(client, "ZADD z 1.5 m inf n");
    ok(client, "RPUSH l a b c");
    ok(client, "XADD x 1-1 f v");
    assert_eq!(kind("HGETALL h"), if three { Kind::Map } else { Kind::Array });
    assert_eq!(kind("SMEMBERS s"), if three { Kind::Set } else { Kind::Array });
    assert_eq!(kind("ZSCORE z m"), if three { Kind::Double } else { Kind::String });
    assert_eq!(
        (kind("GET none"), kind("LPOP none 1"), kind("PING"), kind("STRLEN h2")),
        (Kind::Null, Kind::Null, Kind::Status, Kind::Int)
    );
    let map = cmd(client, "HGETALL h").expect("HGETALL runs");
    let find = |key: &[u8]| map.find(0, key).and_then(|id| map.bytes(id)).map(<[u8]>::to_vec);
    assert_eq!((find(b"f2"), find(b"f3")), (Some(b"v2".to_vec()), None));
    let score = |line: &str| cmd(client, line).expect("a score").double(0);
    assert_eq!((score("ZSCORE z m"), score("ZSCORE z n")), (Some(1.5), Some(f64::INFINITY)));
    let mut told =
        vec![ok(client, "LRANGE l 0 -1"), ok(client, "XRANGE x - +"), ok(client, "EVAL return{1,'a',{2}} 0")];
    told.push(ok(client, "BLPOP l 1"));
    told.push(json(&run(client, &["SET a 1", "INCR a", "LPUSH a x", "GET none", "MGET a none"]).expect("a list")));
    told.push(fails(Status::Server, cmd(client, "LPUSH a x")).server_code().to_owned());
    told.push(ok(client, &format!("ECHO {}", "long".repeat(50_000))));
    let session = client.session(None).expect("a session");
    ok(&session, "MULTI");
    ok(&session, "INCR a");
    told.push(ok(&session, "EXEC"));
    told.push(ok(client, "SCAN 0 MATCH a COUNT 1000"));
    told
}

/// A primary with replies of every kind.
fn talkative() -> Scripted {
    Scripted::start(|call| {
        if let Some(act) = Door::open("standalone").answer("master", call) {
            return act;
        }
        Act::Reply(match call.word(0).as_str() {
            "ROLE" => Value::Array(vec![Value::bulk("master"), Value::Int(7), Value::Array(Vec::new())]),
            "GET" => Value::bulk("with\r\n$5\r\nbreaks"),
            "HGETALL" => Value::fields([("field", "value"), ("empty", "")]),
            "INCR" => Value::Int(-17),
            "LPUSH" => Value::error("WRONGTYPE Operation against a key"),
            "XRANGE" => Value::Array(vec![Value::Nil, Value::texts(["1-1", "f"]), Value::Array(Vec::new())]),
            _ => Value::ok(),
        })
    })
}

#[test]
fn row_12_replies_split_at_every_byte() {
    for protocol in ["2", "3"] {
        let node = talkative();
        let watch = told(&node.addr(), &[]);
        let sentinel = handle(&watch, &[("protocol", protocol)]);
        let client = to_primary(&sentinel, &[]);
        let session = client.session(None).expect("a session");
        let whole = told_by(&client);
        assert!(whole.contains("breaks") && whole.contains("-17") && whole.contains("WRONGTYPE"), "{whole}");
        // The handshake of connections, too.
        node.fault("*", Fault::Pieces(1, Duration::ZERO));
        client.disconnect().expect("an open client");
        for size in 1..=40 {
            node.clear_faults();
            node.fault("*", Fault::Pieces(size, Duration::from_micros(200)));
            assert_eq!(told_by(&client), whole, "pieces of {size} on a shared connection");
            assert_eq!(told_by(&session), whole, "pieces of {size} on one's own");
        }
    }
}

/// The replies of a server with large output, one by one and as a list.
fn told_by(client: &Client) -> String {
    let lines = ["GET k", "HGETALL h", "INCR n", "XRANGE x", "SET k v"];
    let mut told: Vec<String> = lines.iter().map(|line| ok(client, line)).collect();
    told.push(fails(Status::Server, cmd(client, "LPUSH k v")).message().to_owned());
    told.push(json(&run(client, &[lines[0], lines[1], "LPUSH k v", lines[2], lines[3]]).expect("the list runs")));
    told.join("\n")
}

#[test]
fn row_38_read_pool_separate_from_write_pool() {
    let d = with_replicas("separate");
    let sentinel = sentinel_of(&d, &[]);
    let (readers, split) = (to_replicas(&sentinel, &[]), open(&sentinel, Target::Split, &[]));
    ok(&split, "SET k v");
    eventually("the replicas have it", SOON, || {
        d.replica_nodes(SERVICE).iter().all(|node| node.cmd(&["GET", "k"]).text() == "v")
    });
    d.nodes().iter().filter(|node| node.service().is_some()).for_each(|node| drop(node.cmd(&["CONFIG", "RESETSTAT"])));
    for _ in 0..50 {
        assert_eq!(ok(&readers, "GET k"), "v");
        assert_eq!(ok(&split, "GET k"), "v");
        ok(&split, "INCR n");
    }
    let replicas = d.replica_nodes(SERVICE);
    assert_eq!(replicas.iter().map(|node| node.calls("get")).sum::<u64>(), 100);
    assert!(replicas.iter().all(|node| node.calls("get") == 50), "each has its share");
    let primary = d.primary_node(SERVICE);
    assert_eq!((primary.calls("get"), primary.calls("incr")), (0, 50));
    let on_primary = call(&split, "GET k", CallFlags::ON_PRIMARY, Timeout::Default).expect("it runs");
    assert_eq!((text(&on_primary).as_str(), primary.calls("get")), ("v", 1));
    assert!(pools(&readers).iter().all(|pool| (pool.role == "primary") == (pool.get("size") == 0)));
}

/// A script exists only where it was loaded; functions and the text of a script reach every node.
#[test]
fn row_38_a_loaded_script_is_run_on_the_primary() {
    if lacks(Feature::Functions) {
        return;
    }
    let d = with_replicas("loaded");
    // Otherwise the library would give the replicas the script: scripts.rs.
    let sentinel = sentinel_of(&d, &[("script.cache", "off")]);
    let split = open(&sentinel, Target::Split, &[]);
    let run = |words: &[&str]| {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        split.cmd_exec(&words, CallFlags::default(), Timeout::Default).map(|reply| text(&reply))
    };
    let sha = run(&["SCRIPT", "LOAD", "return 'loaded'"]).expect("it is loaded");
    let function = "#!lua name=f\nredis.register_function{function_name='f', callback=function() return 'f' end, \
                    flags={'no-writes'}}";
    run(&["FUNCTION", "LOAD", function]).expect("it is loaded");
    let has = |node: &Arc<Node>| !node.cmd(&["FUNCTION", "LIST"]).items().is_empty();
    eventually("the replicas have the function", SOON, || d.replica_nodes(SERVICE).iter().all(has));
    for _ in 0..4 {
        assert_eq!(run(&["EVALSHA_RO", &sha, "0"]).expect("the primary has it"), "loaded");
        assert_eq!(run(&["EVAL_RO", "return 'text'", "0"]).expect("any node does"), "text");
        assert_eq!(run(&["FCALL_RO", "f", "0"]).expect("every node has it"), "f");
    }
    let calls = |name: &str| {
        let replicas = d.replica_nodes(SERVICE).iter().map(|node| node.calls(name)).sum::<u64>();
        (d.primary_node(SERVICE).calls(name), replicas)
    };
    assert_eq!([calls("evalsha_ro"), calls("eval_ro"), calls("fcall_ro")], [(4, 0), (0, 4), (0, 4)]);
    // A client for replicas has no other node.
    let readers = to_replicas(&sentinel, &[]);
    assert_eq!(fails(Status::Server, cmd(&readers, &format!("EVALSHA_RO {sha} 0"))).server_code(), "NOSCRIPT");
}

#[test]
fn row_39_flagged_replicas_are_never_tried() {
    let primary = Scripted::primary();
    let replicas: Vec<FakeNode> = (0..4).map(|_| Scripted::replica(&primary.addr())).collect();
    let addrs: Vec<String> = replicas.iter().map(|node| node.addr()).collect();
    let watch = told(&primary.addr(), &addrs);
    watch.service(SERVICE, |state| {
        for (replica, flag) in state.replicas.iter_mut().zip(["s_down,slave", "o_down,slave", "slave,disconnected"]) {
            replica.flags = flag.into();
        }
    });
    let client = to_replicas(&handle(&watch, &[]), &[]);
    (0..50).for_each(|_| drop(ok(&client, "GET k")));
    assert_eq!(replicas.iter().map(|node| node.accepted()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert_eq!((replicas[3].count("GET"), primary.count("GET")), (50, 0));
}

#[test]
fn row_39_a_killed_replica_is_not_tried_once_it_is_s_down() {
    let d = with_replicas("s-down");
    let sentinel = sentinel_of(&d, &[]);
    let client = to_replicas(&sentinel, &[]);
    (0..4).for_each(|_| drop(ok(&client, "GET k")));
    let gone = d.replica_nodes(SERVICE).remove(0);
    gone.kill();
    d.wait_s_down(SERVICE, &gone);
    sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)).expect("the Sentinel answers");
    let served =
        |client: &Client| pools(client).iter().find(|pool| pool.endpoint == gone.addr()).map(|pool| pool.get("served"));
    let before = served(&client);
    (0..50).for_each(|_| drop(ok(&client, "GET k")));
    assert_eq!(served(&client), before, "no attempt to it");
    assert_eq!((counter(&client, "retries"), counter(&client, "errors")), (0, 0));
}

#[test]
fn row_41_a_loading_replica_is_not_used() {
    let primary = Scripted::primary();
    let (loading, fit) = (Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr()));
    let watch = told(&primary.addr(), &[loading.addr(), fit.addr()]);
    let sentinel = handle(&watch, &[]);
    for pattern in ["HELLO", "ROLE"] {
        // At the handshake.
        loading.fault(pattern, Fault::Error("LOADING Redis is loading the dataset in memory".into()));
        let client = to_replicas(&sentinel, &[]);
        (0..4).for_each(|_| drop(ok(&client, "GET k")));
        assert_eq!((loading.count("GET"), primary.count("GET"), counter(&client, "errors")), (0, 0, 0));
        loading.clear_faults();
    }
    // At the command.
    loading.state(|state| state.loading = true);
    let client = to_replicas(&sentinel, &[]);
    takes_at_most("ten reads", 500 * MS, || (0..10).for_each(|_| drop(ok(&client, "GET k"))));
    assert_eq!((primary.count("GET"), counter(&client, "errors")), (0, 0));
    assert!(loading.count("GET") <= 2, "refused once, it is left alone for a while: {}", loading.count("GET"));
    loading.state(|state| state.loading = false);
    eventually("it is read from again", SOON, || {
        ok(&client, "GET k");
        loading.count("GET") > 2
    });
}

#[test]
fn row_42_round_robin_with_random_start() {
    let d = with_replicas("round-robin");
    let sentinel = sentinel_of(&d, &[]);
    let replicas = d.replica_nodes(SERVICE);
    let shaken = || replicas.iter().map(|node| node.calls("hello")).collect::<Vec<_>>();
    let client = to_replicas(&sentinel, &[]);
    for _ in 0..1000 {
        ok(&client, "GET k");
        client.disconnect().expect("an open client");
    }
    let connections = shaken();
    assert_eq!(connections.iter().sum::<u64>(), 1000);
    assert!(connections.iter().all(|count| (450..=550).contains(count)), "{connections:?}");
    for _ in 0..200 {
        ok(&to_replicas(&sentinel, &[]), "GET k");
    }
    let first: Vec<u64> = shaken().iter().zip(connections).map(|(now, before)| now - before).collect();
    assert!(first.iter().all(|count| *count >= 60), "the first choice of 200 clients is mixed: {first:?}");
}

#[test]
fn row_43_failing_or_stalled_replica_next_one() {
    let d = with_replicas("next-one");
    let sentinel = sentinel_of(&d, &[("timeout.connect", "400"), ("client.name", "row43")]);
    let client = to_replicas(&sentinel, &[]);
    (0..4).for_each(|_| drop(ok(&client, "GET k")));
    let replicas = d.replica_nodes(SERVICE);
    replicas[0].stop();
    // New connections: the stopped server completes them and stays silent.
    let fresh = || timed(|| ok(&to_replicas(&sentinel, &[]), "GET k")).1;
    let pacing = Pacing::start();
    let mut took: Vec<Duration> = (0..5).map(|_| fresh()).collect();
    took.sort_unstable();
    let pace = pacing.stop();
    pace.judge("half of the reads, elsewhere within the connect timeout,", took[2], 440 * MS);
    pace.judge("the slowest read", took[4], 500 * MS);
    // Connections from before: within the deadline of the call.
    (0..4).for_each(|_| drop(call(&client, "GET k", 0, Timeout::Ms(3000)).expect("another replica answers in time")));
    replicas[0].cont();
    replicas[0].kill();
    for _ in 0..100 {
        ok(&client, "GET k");
    }
    assert_eq!(counter(&client, "errors"), 0);
    assert_eq!(named(&d.primary_node(SERVICE), "row43"), 0, "the primary was never needed");
}

#[test]
fn row_45_replica_role_verified() {
    let d = Deployment::new("role").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_replicas(&sentinel, &[("replica.fallback", "error")]);
    let role =
        || cmd(&client, "ROLE").map(|reply| reply.child(0, 0).and_then(|id| reply.bytes(id).map(<[u8]>::to_vec)));
    assert_eq!(role().expect("a replica answers"), Some(b"slave".to_vec()));
    let old = d.failover(SERVICE);
    let new = {
        let (sender, switched) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(sender.send(d.wait_switched(SERVICE, &old))));
            loop {
                assert_eq!(role().expect("a replica answers within the deadline"), Some(b"slave".to_vec()));
                if let Ok(new) = switched.try_recv() {
                    break new;
                }
            }
        })
    };
    for _ in 0..100 {
        assert_eq!(role().expect("a replica answers"), Some(b"slave".to_vec()));
    }
    // With the fallback and no replica left, reads go to the primary, and that is visible.
    let fallback = to_replicas(&sentinel, &[]);
    d.data_nodes(SERVICE).iter().filter(|node| node.port() != new.port()).for_each(|node| node.kill());
    let reply = cmd(&fallback, "ROLE").expect("the primary answers");
    assert_eq!(reply.child(0, 0).and_then(|id| reply.bytes(id)), Some(&b"master"[..]));
    assert!(counter(&fallback, "fallbacks") >= 1);
}

#[test]
fn row_45_a_wrong_role_is_never_read_from() {
    let primary = Scripted::primary();
    let (promoted, fit) = (Scripted::primary(), Scripted::replica(&primary.addr()));
    let watch = told(&primary.addr(), &[promoted.addr(), fit.addr()]);
    let client = to_replicas(&handle(&watch, &[]), &[]);
    (0..10).for_each(|_| drop(ok(&client, "GET k")));
    assert_eq!((promoted.count("GET"), fit.count("GET"), primary.count("GET")), (0, 10, 0));
}

#[test]
fn row_47_write_through_read_handle_rejected() {
    let d = Deployment::new("read-only").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_replicas(&sentinel, &[]);
    let replica = d.replica_nodes(SERVICE).remove(0);
    refuses_writes(&client);
    assert_eq!(replica.calls("hello"), 1, "one connection, still usable");
    // In a session on the replica too: SELECT works there, a write does not.
    let session = client.session(None).expect("a session");
    ok(&session, "SELECT 1");
    fails(Status::ReadOnly, cmd(&session, "SET k v"));
    assert_eq!(ok(&session, "DBSIZE"), "0");
    drop(session);
    replica.kill();
    refuses_writes(&client);
    assert!(counter(&client, "fallbacks") >= 1, "that was the primary");
    let primary = d.primary_node(SERVICE);
    assert_eq!((primary.cmd(&["DBSIZE"]).int(), primary.calls("set"), primary.calls("eval")), (Some(0), 0, 0));
}

fn refuses_writes(client: &Client) {
    let before = client_id(client);
    for line in ["SET k v", "INCR n", "EVAL return{1} 0", "FLUSHALL", "NO.SUCH.COMMAND", "GETEX k EX 9"] {
        let error = fails(Status::ReadOnly, cmd(client, line));
        assert!(!error.has(flags::RETRYABLE | flags::MAYBE_EXECUTED), "{error}");
        let name = line.split(' ').next().expect("a name");
        assert!(error.message().contains(name) && error.message().contains("replica"), "{error}");
    }
    fails(Status::ReadOnly, run(client, &["GET k", "SET k v", "GET k"]));
    assert_eq!(ok(client, "GET k"), "null");
    assert_eq!(client_id(client), before, "the connection is still the same");
}

#[test]
fn row_48_replica_not_found_is_its_own_error() {
    let d = with_replicas("no-replica");
    let sentinel = sentinel_of(&d, &[]);
    let client = to_replicas(&sentinel, &[("replica.fallback", "error")]);
    ok(&client, "GET k");
    let replicas = d.replica_nodes(SERVICE);
    replicas.iter().for_each(|node| node.kill());
    for budget in [250, 333, 600] {
        let limit = MS * budget + 50 * MS;
        let outcome = takes_at_most("the search", limit, || within(&client, "GET k", budget.into()));
        let error = fails(Status::NoReplica, outcome);
        assert!(error.has(flags::RETRYABLE) && error.message().contains(SERVICE), "{error}");
        assert!(replicas.iter().all(|node| error.message().contains(&node.addr())), "each is named: {error}");
    }
    replicas.iter().for_each(|node| d.wait_s_down(SERVICE, node));
    let error = fails_soon(Status::NoReplica, |ms| within(&client, "GET k", ms));
    assert!(error.message().contains("s_down"), "{error}");
    ok(&to_primary(&sentinel, &[]), "GET k");
    let alone = single("no-replicas-at-all");
    let client = to_replicas(&sentinel_of(&alone, &[]), &[("replica.fallback", "error")]);
    fails_soon(Status::NoReplica, |ms| within(&client, "GET k", ms));
}

#[test]
fn row_56_the_same_service_twice() {
    let d = single("twice");
    let sentinel = sentinel_of(&d, &[]);
    let (one, two) = (to_primary(&sentinel, &[]), to_primary(&sentinel, &[]));
    // Each client has its own pools; two clients share what is known of the service.
    let ids = BTreeSet::from([client_id(&one), client_id(&two)]);
    assert_eq!(ids.len(), 2);
    ok(&one, "SET k v");
    one.close(Timeout::Default).expect("closed");
    fails(Status::Closed, cmd(&one, "GET k"));
    assert_eq!((ok(&two, "GET k"), ids.contains(&client_id(&two))), ("v".into(), true));
    drop(one);
    assert_eq!(ok(&two, "GET k"), "v");
    assert_eq!(sentinel.children().len(), 1, "a handle that is gone leaves nothing behind");
}

#[test]
fn row_57_reopen_after_closing_one_handle() {
    let d = Deployment::new("reopen").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let writes = to_primary(&sentinel, &[]);
    ok(&writes, "SET k v");
    for _ in 0..3 {
        let reads = to_replicas(&sentinel, &[]);
        eventually("the replica has it", SOON, || ok(&reads, "GET k") == "v");
        reads.close(Timeout::Default).expect("closed");
        fails(Status::Closed, cmd(&reads, "GET k"));
        assert_eq!(ok(&writes, "GET k"), "v", "the others go on");
    }
    let value = takes_at_most("the first call of a new handle", 500 * MS, || ok(&to_replicas(&sentinel, &[]), "GET k"));
    assert_eq!(value, "v");
}

#[test]
fn replicas_are_picked_as_configured() {
    let d = with_replicas("picked");
    let replicas = d.replica_nodes(SERVICE);
    let sentinel = sentinel_of(&d, &[]);
    let reads = |overrides: &[(&str, &str)]| {
        let before: Vec<u64> = replicas.iter().map(|node| node.calls("get")).collect();
        let client = to_replicas(&sentinel, overrides);
        (0..200).for_each(|_| drop(ok(&client, "GET k")));
        let now = replicas.iter().map(|node| node.calls("get"));
        (now.zip(before).map(|(now, before)| now - before).collect::<Vec<_>>(), client)
    };
    let (random, _) = reads(&[("replica.pick", "random")]);
    assert!(random.iter().all(|count| (50..=150).contains(count)), "{random:?}");
    let (latency, _) = reads(&[("replica.pick", "latency")]);
    assert!(latency.iter().sum::<u64>() == 200 && latency.iter().all(|count| *count > 0), "explored: {latency:?}");
    let (preferred, client) = reads(&[("replica.pick", "preferred"), ("replica.preferred", &replicas[1].addr())]);
    assert_eq!(preferred, [0, 200]);
    // Without it the others serve.
    replicas[1].kill();
    (0..20).for_each(|_| drop(ok(&client, "GET k")));
}

#[test]
fn data_nodes_are_reached_over_unix_sockets() {
    let d = Deployment::new("over-unix").services([SERVICE]).replicas(1).unix_socket(true).start();
    let map: Vec<String> = d
        .data_nodes(SERVICE)
        .iter()
        .map(|node| format!("{}={}", node.addr(), node.unix_addr().expect("it was asked for")))
        .collect();
    let sentinel = sentinel_of(&d, &[("address.map", &map.join(",")), ("client.name", "over-unix")]);
    ok(&to_primary(&sentinel, &[]), "SET k v");
    eventually("the replica has it", Duration::from_secs(5), || ok(&to_replicas(&sentinel, &[]), "GET k") == "v");
    let client = to_primary(&sentinel, &[]);
    let told = ok(&client, "CLIENT INFO");
    assert!(told.contains("/s:0") || told.contains("flags=U") || told.contains("unix"), "{told}");
}
