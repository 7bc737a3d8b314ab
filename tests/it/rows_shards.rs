//! Several primaries behind one handle: rows 106 to 138 of the table of features, on real servers. The rows that need none are with the
//! sources (src/shard/*_tests.rs), the comparison with one big server is shards_model.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vigie::client::{CallFlags, CallHandle, Client, Target, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::{Event, Queue, kind};
use vigie::resp::{Kind, Reply};
use vigie::shard::{OwnHash, Shards};
use vigie::time::Deadline;

use crate::calls::{self, config, fails, json, list, text};
use crate::completions;
use crate::support::*;

const SOON: Duration = Duration::from_secs(20);

/// Three primaries, with this many replicas each.
fn three(name: &str, replicas: usize) -> Deployment {
    Deployment::new(name).services(["a", "b", "c"]).replicas(replicas).sentinels(0).start()
}

fn texts(d: &Deployment) -> Vec<String> {
    let nodes = ["a-0", "b-0", "c-0"].into_iter().zip(1..);
    nodes.map(|(name, at)| format!("node_{at}=redis://{}", d.node(name).addr())).collect()
}

fn open_of(texts: &[String], options: &[(&str, &str)]) -> Result<Arc<Shards>> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Shards::open(None, &texts, Some(&config(options)))
}

fn open(d: &Deployment, options: &[(&str, &str)]) -> Arc<Shards> {
    open_of(&texts(d), options).expect("shards")
}

fn cmd(shards: &Shards, line: &str) -> Result<Reply> {
    let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
    shards.cmd_exec(&words, CallFlags::default(), Timeout::Default)
}

#[track_caller]
fn ok(shards: &Shards, line: &str) -> String {
    match cmd(shards, line) {
        Ok(reply) => text(&reply),
        Err(error) => panic!("{line}: {:?} {error}", error.status()),
    }
}

#[track_caller]
fn number(shards: &Shards, line: &str) -> i64 {
    let reply = cmd(shards, line).unwrap_or_else(|error| panic!("{line}: {:?} {error}", error.status()));
    reply.int(0).unwrap_or_else(|| panic!("{line}: no number: {}", json(&reply)))
}

#[track_caller]
fn refused(shards: &Shards, line: &str, status: Status) -> Error {
    let error = fails(status, cmd(shards, line));
    assert!(!error.has(flags::MAYBE_EXECUTED), "{line}: {error}");
    error
}

fn value(node: &Node, line: &str) -> Value {
    node.cmd(&line.split_whitespace().collect::<Vec<_>>())
}

fn sorted(reply: &Reply) -> BTreeSet<String> {
    reply.children(0).map(|node| String::from_utf8_lossy(reply.bytes(node).unwrap_or_default()).into_owned()).collect()
}

fn set_of(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn rows_108_109_111_112_tags_say_where_keys_are_and_are_stripped() {
    let d = three("shards-tags", 0);
    let shards = open(&d, &[]);
    // foo is on node_3 of three, and so is what it tags.
    assert_eq!((shards.shard_of(b"foo").unwrap(), shards.shard_of(b"bar{foo}").unwrap()), (2, 2));
    assert!(json(&shards.topology().expect("open")).contains(&d.node("c-0").addr()));
    assert_eq!(ok(&shards, "SET bar{hello} 1"), "OK");
    assert_eq!(value(&d.node("b-0"), "GET bar").text(), "1");
    // Tags on the second and on later keys.
    assert_eq!(ok(&shards, "RENAME bar{hello} b{hello}"), "OK");
    assert_eq!(value(&d.node("b-0"), "GET b").text(), "1");
    assert_eq!(ok(&shards, "MSET x 1 bar{hello} 2"), "OK");
    assert_eq!(ok(&shards, "MGET x bar{hello}"), r#"["1","2"]"#);
    assert_eq!(ok(&shards, "MGET bar{hello} x"), r#"["2","1"]"#);
    assert_eq!(ok(&shards, "MSET q{a} 1 q{hello} 2 q{foo} 3"), "OK");
    for (node, stored) in [("a-0", "1"), ("b-0", "2"), ("c-0", "3")] {
        assert_eq!(value(&d.node(node), "GET q").text(), stored);
    }
    // A list with tags in every command, by exec and by submit.
    let lines = ["SET l{a} 1", "INCR l{a}", "SET l{hello} 5", "GET l{a}", "MGET l{a} l{hello}"];
    let reply = shards.cmds_exec(&list(&lines), CallFlags::default(), Timeout::Default).expect("a list");
    assert_eq!(json(&reply), r#"["OK",2,"OK","2",["2","5"]]"#);
    let queue = completions::queue(8);
    shards.cmds_submit(&list(&lines), CallFlags::default(), Timeout::Default, &queue, 4).expect("taken");
    let (token, reply) = completions::one(&queue);
    assert_eq!((token, json(&reply.expect("a list"))), (4, r#"["OK",2,"OK","2",["2","5"]]"#.to_owned()));
    let error = refused(&shards, "GET {a}", Status::InvalidArg);
    assert!(error.message().contains("bad tag"), "{error}");
    assert!(
        fails(
            Status::InvalidArg,
            shards.cmds_exec(&list(&["SET x 2", "GET x{a"]), CallFlags::default(), Timeout::Default)
        )
        .message()
        .contains("command 2 of 2")
    );
    assert_eq!(ok(&shards, "GET x"), "1", "a list with a bad tag is not sent at all");
}

#[test]
fn rows_113_114_115_116_replicas_are_found_and_read_from() {
    let d = three("shards-replicas", 1);
    let (primary, replica) = (d.node("a-0"), d.node("a-1"));
    let shards = open(&d, &[("shard.default_node", "node_2")]);
    assert_eq!(ok(&shards, "SET a 1"), "OK");
    assert_eq!(primary.cmd(&["WAIT", "1", "10000"]), Value::Int(1));
    let before = replica.calls("get");
    for _ in 0..8 {
        assert_eq!(ok(&shards, "GET a"), "1");
    }
    assert_eq!(replica.calls("get"), before + 8, "the replica that the primary names answers reads");
    let fresh = CallFlags::from_bits(CallFlags::ON_PRIMARY).unwrap();
    shards.cmd_exec(&[b"GET", b"a"], fresh, Timeout::Default).expect("from the primary");
    assert_eq!(replica.calls("get"), before + 8);
    // Only primaries.
    let strict = open(&d, &[("shard.primaries_only", "on")]);
    assert_eq!(ok(&strict, "MGET a b"), r#"["1",null]"#);
    assert_eq!(replica.calls("mget"), 0);
    // A command without a key goes to the default node, and is refused where there is none.
    assert_eq!(ok(&shards, "ECHO hi"), "hi");
    assert_eq!(d.node("b-0").calls("echo") + d.node("b-1").calls("echo"), 1);
    assert!(refused(&strict, "ECHO hi", Status::Unsupported).message().contains("shard.default_node"));
    assert!(
        fails(Status::Config, open_of(&texts(&d), &[("shard.default_node", "node_9")])).message().contains("node_9")
    );
    // A replica that is given, with its primary.
    let pair = vec![format!("node_1=redis://{}|redis://{}", primary.addr(), replica.addr())];
    let given = open_of(&pair, &[]).expect("a pair");
    let before = replica.calls("get");
    assert_eq!(ok(&given, "GET a"), "1");
    assert_eq!(replica.calls("get"), before + 1);
    // A dead replica: reads go to the primary without an error, and come back with it.
    replica.kill();
    for _ in 0..8 {
        assert_eq!(ok(&shards, "GET a"), "1");
    }
    replica.restart();
    d.await_link(&replica);
    eventually("the replica is read from again", SOON, || {
        ok(&shards, "GET a");
        replica.calls("get") > 0
    });
}

#[test]
fn rows_117_118_119_a_node_that_is_down_stops_only_its_keys() {
    let d = three("shards-down", 0);
    let error = fails(Status::Config, open_of(&["node_1=redis://h:1".into(), "node_3=redis://h:2".into()], &[]));
    assert!(error.message().contains("node_3"), "{error}");
    // Two names for one server count once.
    let mut twice = texts(&d);
    twice.push(twice[0].replace("node_1", "node_4"));
    let shards = open_of(&twice, &[]).expect("two names");
    assert_eq!(ok(&shards, "MSET a 1 b 2 c 3 hello 4"), "OK");
    assert_eq!(number(&shards, "DBSIZE"), 4);
    assert_eq!(sorted(&cmd(&shards, "KEYS *").unwrap()), set_of(&["a", "b", "c", "hello"]));
    assert_eq!(cmd(&shards, "PING").unwrap().children(0).count(), 2 * 3);
    let shards = open(&d, &[("timeout.call", "1500")]);
    assert_eq!(ok(&shards, "FLUSHALL").matches("OK").count(), 3);
    assert_eq!(ok(&shards, "MSET a 1 hello 2 b 3"), "OK");
    d.node("b-0").kill();
    let error = fails(
        Status::Connect,
        open_of(&texts(&d), &[("timeout.call", "300"), ("timeout.connect", "300")])
            .map(drop)
            .map_err(|error| error.with_status(Status::Connect)),
    );
    assert!(error.message().contains("node_2 cannot be used") && error.message().contains("shard.degraded"), "{error}");
    let degraded = open(&d, &[("shard.degraded", "on"), ("timeout.call", "1500")]);
    for shards in [&shards, &degraded] {
        assert_eq!((ok(shards, "GET a"), ok(shards, "GET b")), ("1".into(), "3".into()));
        let error = cmd(shards, "GET hello").expect_err("it is down");
        assert!(error.message().starts_with("node_2: "), "{error}");
        let error = cmd(shards, "MGET a hello b").expect_err("one of them is down");
        let reply = json(error.reply().expect("the values of the others"));
        assert!(reply.starts_with('[') && reply.contains("node_2: ") && reply.matches(',').count() >= 2, "{reply}");
        assert!(error.message().contains("node_2"), "{error}");
        // What all are asked has an error entry for it.
        let times = json(&cmd(shards, "TIME").expect("a map"));
        assert!(
            times.contains("node_1") && times.contains("node_2") && times.matches("node_2: ").count() == 1,
            "{times}"
        );
        let error = cmd(shards, "DBSIZE").expect_err("a sum without one of them is none");
        assert!(error.reply().is_some_and(|reply| json(reply).contains("node_3")), "{error}");
    }
    // A write on several nodes says what it has done.
    let error = cmd(&shards, "MSET a 5 hello 5").expect_err("one of them is down");
    let reply = json(error.reply().expect("each node's answer"));
    assert!(error.has(flags::MAYBE_EXECUTED) && reply.contains(r#""node_1":"OK""#), "{error} {reply}");
    assert_eq!(ok(&shards, "GET a"), "5");
    let lines = list(&["GET a", "GET hello", "GET b"]);
    let error = shards.cmds_exec(&lines, CallFlags::default(), Timeout::Ms(1000)).expect_err("one of them is down");
    let reply = json(error.reply().expect("the other replies"));
    assert!(reply.starts_with(r#"["5","#) && reply.ends_with(r#","3"]"#), "{reply}");
    // A replica in place of a primary.
    d.node("c-0").cmd(&["REPLICAOF", "127.0.0.1", &d.node("a-0").port().to_string()]);
    let mut wrong = texts(&d);
    wrong.remove(1);
    let wrong: Vec<String> = wrong.iter().map(|text| text.replace("node_3", "node_2")).collect();
    let error = open_of(&wrong, &[("timeout.call", "1000")]).map(drop).expect_err("it is a replica");
    assert!(error.status() == Status::Role && error.message().contains("node_2"), "{:?} {error}", error.status());
}

#[test]
fn rows_122_to_125_keys_on_several_nodes() {
    let d = three("shards-keys", 0);
    let shards = open(&d, &[]);
    assert_eq!(ok(&shards, "MSET a 1 hello 2 b 3"), "OK");
    let before: Vec<u64> = ["a-0", "b-0", "c-0"].iter().map(|node| d.node(node).calls("mget")).collect();
    assert_eq!(ok(&shards, "MGET b none a hello c hello"), r#"["3",null,"1","2",null,"2"]"#);
    let after: Vec<u64> = ["a-0", "b-0", "c-0"].iter().map(|node| d.node(node).calls("mget")).collect();
    assert!(after.iter().zip(&before).all(|(after, before)| after - before <= 1), "one question for each node");
    refused(&shards, "MGET", Status::InvalidArg);
    refused(&shards, "MSET a", Status::InvalidArg);
    assert_eq!(number(&shards, "MSETNX a 7 key 7 k3 7"), 0);
    assert_eq!(number(&shards, "EXISTS key k3"), 0, "none was set");
    assert_eq!(number(&shards, "MSETNX c 7 key 7 k3 7"), 1);
    assert_eq!(number(&shards, "EXISTS a c key k3 none a"), 5);
    assert_eq!(number(&shards, "TOUCH a key none"), 2);
    assert_eq!(number(&shards, "DEL a key none"), 2);
    assert_eq!(number(&shards, "UNLINK c k3 hello b"), 4);
    assert_eq!(number(&shards, "DBSIZE"), 0);
    // What a thread waits for is not bounded by what a program may submit.
    let bounded = open(&d, &[("submit.max_bytes", "1024")]);
    let large = "v".repeat(100_000);
    assert_eq!(ok(&bounded, &format!("MSET a {large} hello {large} b {large}")), "OK");
    assert_eq!(ok(&bounded, "MGET a hello b").len(), 3 * (100_000 + 3) + 1);
    assert_eq!(number(&bounded, "DEL a hello b"), 3);
    // Sets, with members that are no text.
    shards.cmd_exec(&[b"SADD", b"a", b"1", b"2", b"\xff\0"], CallFlags::default(), Timeout::Default).expect("a set");
    shards
        .cmd_exec(&[b"SADD", b"hello", b"2", b"\xff\0", b"3"], CallFlags::default(), Timeout::Default)
        .expect("a set");
    assert_eq!(cmd(&shards, "SUNION a hello none").unwrap().children(0).count(), 4);
    assert_eq!(cmd(&shards, "SINTER a hello").unwrap().children(0).count(), 2);
    assert_eq!(sorted(&cmd(&shards, "SDIFF a hello b").unwrap()), set_of(&["1"]));
    assert_eq!(cmd(&shards, "SINTER a hello none").unwrap().children(0).count(), 0);
    assert_eq!(ok(&shards, "SET b text"), "OK");
    assert_eq!(fails(Status::Server, cmd(&shards, "SUNION a b")).server_code(), "WRONGTYPE");
}

#[test]
fn rows_126_to_129_sets_lists_and_keys_move_between_nodes() {
    let d = three("shards-moves", 0);
    let shards = open(&d, &[]);
    for line in ["SADD a 1 2", "SADD hello 2 3", "SET b text"] {
        cmd(&shards, line).expect(line);
    }
    // The destination is replaced, of whatever type it was, and is gone where nothing is left.
    assert_eq!(number(&shards, "SUNIONSTORE b a hello"), 3);
    assert_eq!(sorted(&cmd(&shards, "SMEMBERS b").unwrap()), set_of(&["1", "2", "3"]));
    assert_eq!(number(&shards, "SDIFFSTORE b b hello"), 1);
    assert_eq!(number(&shards, "SINTERSTORE b a none hello"), 0);
    assert_eq!(number(&shards, "EXISTS b"), 0);
    // SMOVE
    assert_eq!(number(&shards, "SMOVE a b 1"), 1, "the destination was not there");
    assert_eq!(number(&shards, "SMOVE a b 9"), 0);
    assert_eq!(number(&shards, "SMOVE a hello 2"), 1, "it was there already");
    assert_eq!((number(&shards, "EXISTS a"), number(&shards, "SCARD hello")), (0, 2));
    cmd(&shards, "SET k1 text").unwrap();
    assert_eq!(fails(Status::Server, cmd(&shards, "SMOVE b k1 1")).server_code(), "WRONGTYPE");
    assert_eq!(number(&shards, "SCARD b"), 1, "nothing was taken");
    // Lists: nothing is taken where it cannot be put.
    assert_eq!(number(&shards, "RPUSH a 1 2 3"), 3);
    assert_eq!(fails(Status::Server, cmd(&shards, "RPOPLPUSH a k1")).server_code(), "WRONGTYPE");
    assert_eq!(number(&shards, "LLEN a"), 3);
    assert_eq!(ok(&shards, "RPOPLPUSH a key"), "3");
    assert_eq!(ok(&shards, "LMOVE a key LEFT RIGHT"), "1");
    assert_eq!(ok(&shards, "LRANGE key 0 -1"), r#"["3","1"]"#);
    assert_eq!(ok(&shards, "BLMOVE a key LEFT LEFT 1"), "2");
    assert_eq!(cmd(&shards, "RPOPLPUSH a key").unwrap().kind(0), Kind::Null);
    assert_eq!(cmd(&shards, "BRPOPLPUSH a key 0.02").unwrap().kind(0), Kind::Null);
    let (waiting, pushed) = (
        Arc::clone(&shards),
        calls::spawn({
            let shards = Arc::clone(&shards);
            move || ok(&shards, "BRPOPLPUSH a key 20")
        }),
    );
    eventually("it waits", SOON, || d.node("a-0").info("clients").get("blocked_clients").is_some_and(|n| n == "1"));
    shards.cmd_exec(&[b"LPUSH", b"a", b""], CallFlags::default(), Timeout::Default).expect("an empty element");
    assert_eq!((calls::join(&pushed), number(&waiting, "LLEN key")), (String::new(), 4));
    refused(&shards, "LMOVE a key UP DOWN", Status::InvalidArg);
    // Keys of every type, with their time to live in milliseconds.
    for line in [
        "SET a 1 PX 654321",
        "RPUSH c 3 1 2",
        "SADD d x",
        "ZADD e 1.5 m",
        "XADD k2 1-1 f v",
        "PFADD user:1 x y",
        "HSET user:1000 f v",
    ] {
        cmd(&shards, line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for (from, to) in [("a", "hello"), ("c", "key"), ("d", "k1"), ("e", "b"), ("k2", "k3"), ("user:1", "foo")] {
        let kind = ok(&shards, &format!("TYPE {from}"));
        assert_eq!(ok(&shards, &format!("RENAME {from} {to}")), "OK", "{from} {to}");
        assert_eq!((number(&shards, &format!("EXISTS {from}")), ok(&shards, &format!("TYPE {to}"))), (0, kind));
    }
    assert!((600_000..=654_321).contains(&number(&shards, "PTTL hello")));
    assert_eq!((ok(&shards, "LRANGE key 0 -1"), ok(&shards, "ZSCORE b m")), (r#"["3","1","2"]"#.into(), "1.5".into()));
    assert_eq!(ok(&shards, "XRANGE k3 - +"), r#"[["1-1",["f","v"]]]"#);
    assert_eq!((number(&shards, "PFCOUNT foo"), number(&shards, "PTTL key")), (2, -1));
    assert_eq!(number(&shards, "RENAMENX hello b"), 0);
    assert_eq!((number(&shards, "EXISTS hello"), ok(&shards, "TYPE b")), (1, "zset".into()));
    assert_eq!(number(&shards, "RENAMENX hello a"), 1);
    assert_eq!(
        fails(Status::Server, cmd(&shards, "RENAME none hello")).message().split(" (").next(),
        Some("ERR no such key")
    );
    assert_eq!((number(&shards, "COPY a b"), number(&shards, "COPY a b REPLACE")), (0, 1));
    assert!((number(&shards, "PTTL b"), number(&shards, "EXISTS a")) > (600_000, 0));
    assert_eq!(ok(&shards, "RENAME a a"), "OK");
    // A dump that the other server does not take leaves both as they are.
    d.node("c-0").cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(fails(Status::Server, cmd(&shards, "RENAME user:1000 bar")).server_code(), "OOM");
    assert_eq!((number(&shards, "EXISTS user:1000"), number(&shards, "EXISTS bar")), (1, 0));
    assert_eq!(number(&shards, "RPUSH c 1 2"), 2);
    let error = fails(Status::Server, cmd(&shards, "LMOVE c k9 RIGHT LEFT"));
    assert!(error.server_code() == "OOM" || error.message().contains("put back"), "{error}");
    assert_eq!(ok(&shards, "LRANGE c 0 -1"), r#"["1","2"]"#, "the element was put back");
}

#[test]
fn rows_130_131_136_137_what_cannot_be_done_right_is_refused() {
    let d = three("shards-refused", 0);
    let shards = open(&d, &[]);
    for line in [
        "BITOP XOR a hello b",
        "PFCOUNT a hello",
        "PFMERGE a hello",
        "ZUNIONSTORE a 2 hello b",
        "ZINTERSTORE a 1 hello",
        "SORT a STORE hello",
        "BLPOP a hello 1",
        "BRPOP hello b 0",
        "SINTERCARD 2 a hello",
        "LMPOP 2 a hello LEFT",
        "EVAL return 2 a hello",
        "XREAD STREAMS a hello 0 0",
        "ZDIFF 2 a hello",
        "GEOSEARCHSTORE a hello FROMMEMBER m BYRADIUS 1 m",
    ] {
        let error = refused(&shards, line, Status::CrossShard);
        assert!(error.message().contains("node_2"), "{line}: {error}");
        let submitted =
            shards.cmds_submit(&list(&[line]), CallFlags::default(), Timeout::Default, &completions::queue(1), 1);
        assert_eq!(fails(Status::CrossShard, submitted).status(), Status::CrossShard, "{line}");
    }
    // With one tag they go to one node.
    assert_eq!(number(&shards, "PFADD a{t} 1"), 1);
    assert_eq!((ok(&shards, "PFMERGE a{t} b{t}"), number(&shards, "PFCOUNT a{t} b{t}")), ("OK".into(), 1));
    assert_eq!(number(&shards, "EVAL return(#KEYS) 2 a{t} b{t}"), 2);
    let atomic = CallFlags::from_bits(CallFlags::ATOMIC).unwrap();
    let reply =
        shards.cmds_exec(&list(&["SET x{t} 1", "INCR x{t}", "GET y{t}"]), atomic, Timeout::Default).expect("one node");
    assert_eq!(json(&reply), r#"["OK",2,null]"#);
    let error =
        fails(Status::CrossShard, shards.cmds_exec(&list(&["SET a 1", "SET hello 1"]), atomic, Timeout::Default));
    assert!(error.message().contains("node_1") && error.message().contains("node_2"), "{error}");
    // What is for all nodes is not run on one of them.
    for all in ["DBSIZE", "FLUSHDB", "KEYS *", "INFO", "CONFIG GET maxmemory", "SCRIPT FLUSH"] {
        let outcome = shards.cmds_exec(&list(&["INCR x{t}", all]), atomic, Timeout::Default);
        assert!(fails(Status::CrossShard, outcome).message().contains("for all shards"), "{all}");
    }
    assert_eq!(
        json(&shards.cmds_exec(&list(&["GET x{t}", "PING"]), atomic, Timeout::Default).unwrap()),
        r#"["2","PONG"]"#
    );
    for line in ["MULTI", "EXEC", "SELECT 1", "AUTH x", "SUBSCRIBE c", "HELLO 3"] {
        refused(&shards, line, Status::Unsupported);
    }
    assert!(refused(&shards, "VENDOR.CMD a", Status::Unsupported).message().contains("vigie_session_for"));
    assert_eq!(number(&shards, "DBSIZE"), 2);
    // A transaction by hand, on the node of its key.
    let session = shards.session(Some(b"hello"), None).expect("a session");
    for line in ["WATCH hello", "MULTI", "SET hello 1"] {
        calls::ok(&session, line);
    }
    assert_eq!(calls::ok(&session, "EXEC"), r#"["OK"]"#);
    assert_eq!(value(&d.node("b-0"), "GET hello").text(), "1");
}

#[test]
fn rows_132_133_135_138_all_nodes_together() {
    let d = three("shards-all", 0);
    let shards = open(&d, &[]);
    let names: Vec<String> = (0..500).map(|n| format!("n{n}")).collect();
    for name in &names {
        cmd(&shards, &format!("SET {name} {name}")).expect("set");
    }
    assert_eq!(number(&shards, "DBSIZE"), 500);
    assert_eq!(sorted(&cmd(&shards, "KEYS n1?").unwrap()).len(), 10);
    for cursor in ["1", "12345"] {
        refused(&shards, &format!("SCAN {cursor}"), Status::ScanInterrupted);
    }
    let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
    loop {
        let reply = cmd(&shards, &format!("SCAN {cursor} COUNT 30")).expect("a page");
        let page = reply.child(0, 1).expect("names");
        seen.extend(reply.children(page).map(|node| String::from_utf8_lossy(reply.bytes(node).unwrap()).into_owned()));
        cursor = String::from_utf8_lossy(reply.bytes(reply.child(0, 0).unwrap()).unwrap()).into_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, names.iter().cloned().collect());
    let scan = Arc::new(shards.scan(&[b"SCAN", b"0", b"COUNT", b"50"], 0).expect("a scan"));
    let mut looped = BTreeSet::new();
    while let Some(page) = scan.next(Timeout::Default).expect("a page") {
        looped.extend(sorted(&page));
    }
    assert_eq!(looped, seen);
    assert!(names.contains(&ok(&shards, "RANDOMKEY")));
    for line in [
        "INFO server",
        "PING",
        "TIME",
        "LASTSAVE",
        "CONFIG GET maxmemory",
        "CLIENT LIST",
        "BGSAVE",
        "CONFIG SET maxmemory 0",
    ] {
        let reply = cmd(&shards, line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!((reply.kind(0), reply.children(0).count()), (Kind::Map, 6), "{line}: {}", json(&reply));
    }
    assert_eq!(ok(&shards, "OBJECT ENCODING n1"), "embstr");
    let sha = ok(&shards, "SCRIPT LOAD return(1)");
    assert_eq!(sha.len(), 40, "all nodes have the same");
    assert_eq!(number(&shards, &format!("EVALSHA {sha} 1 hello")), 1);
    assert_eq!(ok(&shards, "FLUSHALL").matches("OK").count(), 3);
    // Keys and values at their edges.
    shards.cmd_exec(&[b"SET", b"5", b""], CallFlags::default(), Timeout::Default).expect("an empty value");
    assert_eq!(cmd(&shards, "GET 5").unwrap().kind(0), Kind::String);
    assert_eq!(cmd(&shards, "GET 6").unwrap().kind(0), Kind::Null);
    shards.cmd_exec(&[b"SET", b"", b"x"], CallFlags::default(), Timeout::Default).expect("an empty key");
    assert_eq!(value(&d.node("a-0"), "DBSIZE"), Value::Int(1), "the empty key is on node_1");
    for args in [&[b"".as_slice()][..], &[]] {
        assert_eq!(
            fails(Status::InvalidArg, shards.cmd_exec(args, CallFlags::default(), Timeout::Default)).status(),
            Status::InvalidArg
        );
    }
}

/// So many messages.
fn messages(queue: &Queue, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let left = count - events.len();
        assert!(queue.drain(Deadline::after(SOON), &mut events, left) > 0, "{} of {count} came", events.len());
    }
    events
}

#[test]
fn row_134_publisher_and_subscriber_meet_on_one_node() {
    let d = three("shards-pubsub", 0);
    let shards = open(&d, &[]);
    let queue = completions::queue(64);
    let sub = shards.subscription(&queue, 9, None).expect("a subscription");
    sub.exec(&[b"SUBSCRIBE", b"a", b"hello", b"foo"], Timeout::Default).expect("on three nodes");
    sub.exec(&[b"PSUBSCRIBE", b"x*"], Timeout::Default).expect("on every node");
    messages(&queue, 3 + 3);
    for channel in ["a", "hello", "foo", "x1", "x2", "x3"] {
        assert_eq!(number(&shards, &format!("PUBLISH {channel} m:{channel}")), 1, "{channel}");
    }
    let heard: BTreeSet<String> = messages(&queue, 6)
        .iter()
        .map(|event| {
            assert_eq!((event.kind, event.token), (kind::MESSAGE, 9));
            json(event.outcome.as_ref().expect("a message").as_ref().expect("a reply"))
                .split("m:")
                .nth(1)
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(heard.len(), 6);
    sub.exec(&[b"UNSUBSCRIBE"], Timeout::Default).expect("all");
    assert_eq!(number(&shards, "PUBLISH hello gone"), 0);
    assert_eq!(fails(Status::Unsupported, sub.exec(&[b"GET", b"a"], Timeout::Default)).status(), Status::Unsupported);
    sub.free();
}

#[test]
fn calls_with_a_handle_end_when_they_are_cancelled() {
    let d = three("shards-calls", 0);
    let shards = open(&d, &[]);
    let call = CallHandle::default();
    let args = |line: &str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let run = |line: &str| {
        let args = args(line);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        shards.call_cmd_exec(&call, &args, CallFlags::default(), Timeout::Default)
    };
    assert_eq!(text(&run("MSET a 1 hello 2").unwrap()), "OK");
    assert_eq!(text(&run("GET hello").unwrap()), "2");
    assert_eq!(text(&run("MGET hello a").unwrap()), r#"["2","1"]"#);
    // A move between two nodes that waits: nothing is taken when it is cancelled.
    let (handle, waits) = (Arc::new(call), Arc::clone(&shards));
    let own = Arc::clone(&handle);
    let waiting = calls::spawn(move || {
        waits.call_cmd_exec(
            &own,
            &[b"BLMOVE", b"c", b"key", b"LEFT", b"LEFT", b"0"],
            CallFlags::default(),
            Timeout::Unlimited,
        )
    });
    eventually("it waits", SOON, || d.node("a-0").info("clients").get("blocked_clients").is_some_and(|n| n == "1"));
    handle.cancel();
    let outcome = calls::join(&waiting);
    assert!(
        outcome.as_ref().is_err_and(|error| error.status() == Status::Cancelled)
            || outcome.as_ref().is_ok_and(|reply| reply.kind(0) == Kind::Null),
        "{outcome:?}"
    );
    assert_eq!((number(&shards, "RPUSH c 1"), number(&shards, "LLEN c")), (1, 1));
}

#[test]
fn other_shards_take_over_and_each_key_sees_its_calls_in_order() {
    let d = three("shards-set", 0);
    let two: Vec<String> = texts(&d)[..2].to_vec();
    let shards = open_of(&two, &[]).expect("two");
    // foo is on node_2 of two and on node_3 of three.
    assert_eq!((ok(&shards, "SET foo old"), ok(&shards, "SET d 1")), ("OK".into(), "OK".into()));
    let session = shards.session(Some(b"foo"), None).expect("a session");
    assert_eq!(calls::ok(&session, "GET foo"), "old");
    let slow = {
        let shards = Arc::clone(&shards);
        calls::spawn(move || cmd(&shards, "BLPOP foo:list 20").map(|reply| json(&reply)))
    };
    eventually("a call is running", SOON, || {
        ["a-0", "b-0"].iter().any(|node| d.node(node).info("clients").get("blocked_clients").is_some_and(|n| n == "1"))
    });
    let all = texts(&d);
    let page = cmd(&shards, "SCAN 0").expect("a page");
    let cursor = String::from_utf8_lossy(page.bytes(page.child(0, 0).unwrap()).unwrap()).into_owned();
    assert_ne!(cursor, "0");
    shards.set(&all.iter().map(String::as_str).collect::<Vec<_>>()).expect("three");
    // A cursor of the shards before would pass by keys.
    refused(&shards, &format!("SCAN {cursor}"), Status::ScanInterrupted);
    assert_eq!(shards.shard_of(b"foo").unwrap(), 2);
    // A key that stays goes on; one that moves waits for what began before.
    assert_eq!(ok(&shards, "GET d"), "1");
    let error =
        fails(Status::Timeout, shards.cmd_exec(&[b"SET", b"foo", b"new"], CallFlags::default(), Timeout::Ms(200)));
    assert!(error.message().contains("moves to another shard") && error.has(flags::RETRYABLE), "{error}");
    let queue = completions::queue(4);
    shards.cmds_submit(&list(&["SET foo new"]), CallFlags::default(), Timeout::Default, &queue, 3).expect("taken");
    // One that waits can be cancelled.
    let cancelled = completions::queue(1);
    shards
        .cmds_submit(&list(&["SET foo never"]), CallFlags::default(), Timeout::Unlimited, &cancelled, 8)
        .expect("taken");
    assert_eq!(cancelled.cancel(8), 1);
    let error = fails(Status::Cancelled, completions::one(&cancelled).1);
    assert!(!error.has(flags::MAYBE_EXECUTED), "{error}");
    assert!(fails(Status::InvalidState, shards.set(&[&all[0]])).has(flags::RETRYABLE), "one change at a time");
    for node in ["a-0", "b-0"] {
        d.node(node).cmd(&["RPUSH", "foo:list", "x"]);
    }
    assert!(calls::join(&slow).expect("a job").contains("foo:list"));
    completions::one(&queue).1.expect("after the end of what began before");
    assert_eq!(
        (value(&d.node("c-0"), "GET foo").text(), value(&d.node("b-0"), "GET foo").text()),
        ("new".to_owned(), "old".to_owned())
    );
    eventually("the session of the old shards is told", SOON, || {
        ok(&shards, "GET foo");
        calls::cmd(&session, "GET foo").is_err_and(|error| error.status() == Status::Closed)
    });
    assert_eq!(ok(&shards, "MGET d foo"), r#"["1","new"]"#);
    shards.close(Timeout::Default).expect("closed");
    assert_eq!(fails(Status::Closed, cmd(&shards, "GET a")).status(), Status::Closed);
    assert!(shards.is_closed());
}

/// A call that waits for the map before its own is not in the way of itself when the next change has come meanwhile.
#[test]
fn changes_that_follow_each_other_stop_no_call() {
    let d = three("shards-changes", 0);
    let all = texts(&d);
    // Without a look at the new primaries the changes follow each other at once.
    let shards = open_of(&all[..2], &[("shard.degraded", "on")]).expect("two");
    let over = AtomicBool::new(false);
    let (mut changes, mut turn) = (0, 0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (shards, over) = (&shards, &over);
            scope.spawn(move || {
                let mut number = 0;
                while !over.load(Ordering::Acquire) {
                    let (key, value) = (format!("k{}", number % 50 + thread * 50), number.to_string());
                    assert_eq!(ok(shards, &format!("SET {key} {value}")), "OK");
                    number += 1;
                }
            });
        }
        let began = Instant::now();
        while changes < 300 && began.elapsed() < SOON {
            turn += 1;
            let next: Vec<&str> = all[..2 + turn % 2].iter().map(String::as_str).collect();
            changes += usize::from(shards.set(&next).is_ok());
        }
        over.store(true, Ordering::Release);
    });
    assert!(changes > 10, "{changes}");
    // A list of single calls is refused whole, on one shard and over several.
    for list_of in [&["INCR foo", "INCR d"][..], &["INCR foo", "INCR foo"]] {
        let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
        let error = fails(Status::InvalidArg, shards.cmds_exec(&list(list_of), each, Timeout::Default));
        assert!(error.message().contains("exactly one at a time"), "{error}");
    }
    assert_eq!(ok(&shards, "EXISTS foo d"), "0");
}

/// By the last byte of what counts; "x" is on no shard.
struct LastByte;

impl OwnHash for LastByte {
    fn shard(&self, part: &[u8], count: usize) -> usize {
        match part.last() {
            Some(b'x') => count,
            Some(byte) => usize::from(*byte) % count,
            None => 0,
        }
    }
}

#[test]
fn row_121_a_hash_function_of_the_program_says_where_keys_and_channels_are() {
    let d = three("shards-hash", 0);
    let texts = texts(&d);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let shards = Shards::open_by(None, &texts, None, Some(Arc::new(LastByte))).expect("shards");
    // "0" is divisible by 3. What counts is the hash part, and the key is stored without it.
    assert_eq!(ok(&shards, "MSET k0 0 k1 1 k2 2 other{1} tagged"), "OK");
    for (node, key, stored) in [("a-0", "k0", "0"), ("b-0", "k1", "1"), ("c-0", "k2", "2"), ("b-0", "other", "tagged")]
    {
        assert_eq!(value(&d.node(node), &format!("GET {key}")).text(), stored);
    }
    assert_eq!((shards.shard_of(b"k2").unwrap(), shards.shard_of(b"any{0}").unwrap()), (2, 0));
    let reply = shards.cmds_exec(&list(&["GET k0", "GET k1", "MGET k2 k0"]), CallFlags::default(), Timeout::Default);
    assert_eq!(json(&reply.expect("a list")), r#"["0","1",["2","0"]]"#);
    let session = shards.session(Some(b"k2"), None).expect("a session");
    assert_eq!(calls::ok(&session, "GET k2"), "2");
    // Publisher and subscriber meet on the shard of the name.
    let queue = completions::queue(16);
    let sub = shards.subscription(&queue, 9, None).expect("a subscription");
    sub.exec(&[b"SUBSCRIBE", b"news1", b"news2"], Timeout::Default).expect("on two nodes");
    messages(&queue, 2);
    assert_eq!((number(&shards, "PUBLISH news1 a"), number(&shards, "PUBLISH news2 b")), (1, 1));
    assert_eq!(value(&d.node("c-0"), "PUBSUB NUMSUB news2").items()[1], Value::Int(1));
    messages(&queue, 2);
    // What is no index is refused before anything is sent: alone, over several shards, in lists, by submit, as a channel.
    for line in ["GET x", "MSET k0 lost x 1", "PUBLISH x a", "MGET k0 x"] {
        let error = refused(&shards, line, Status::InvalidArg);
        assert!(error.message().contains("gave shard 3 for 'x', and there are 3"), "{error}");
    }
    let lines = list(&["SET k0 lost", "SET x 1"]);
    fails(Status::InvalidArg, shards.cmds_exec(&lines, CallFlags::default(), Timeout::Default));
    for flags in [0, CallFlags::EACH] {
        let flags = CallFlags::from_bits(flags).unwrap();
        fails(Status::InvalidArg, shards.cmds_submit(&lines, flags, Timeout::Default, &queue, 1));
    }
    fails(Status::InvalidArg, sub.exec(&[b"SUBSCRIBE", b"x"], Timeout::Default));
    fails(Status::InvalidArg, shards.session(Some(b"x"), None));
    assert_eq!(ok(&shards, "GET k0"), "0");
    // Other shards, by the same function.
    shards.set(&texts[..2]).expect("two");
    assert_eq!((shards.shard_of(b"k1").unwrap(), shards.shard_of(b"k2").unwrap()), (1, 0));
    assert_eq!((ok(&shards, "GET k1"), cmd(&shards, "GET k2").unwrap().kind(0)), ("1".into(), Kind::Null));
    sub.free();
}

/// Several threads submit lists of single calls to a queue that has room for one and a half of them.
#[test]
fn a_list_of_single_calls_over_shards_is_refused_whole_or_every_call_is_completed() {
    let d = three("shards-room", 0);
    let shards = open(&d, &[]);
    let queue = completions::queue(6);
    let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
    let lines = list(&["INCR a", "INCR hello", "MGET a hello", "INCR b"]);
    let submitters: Vec<_> = (0..4u64)
        .map(|thread| {
            let (shards, queue, lines) = (Arc::clone(&shards), Arc::clone(&queue), lines.clone());
            calls::spawn(move || {
                let mut taken = Vec::new();
                for round in 0..300u64 {
                    let token = (thread << 32) + 4 * round;
                    match shards.cmds_submit(&lines, each, Timeout::Default, &queue, token) {
                        Ok(()) => taken.extend(token..token + 4),
                        Err(error) => {
                            assert!(error.status() == Status::QueueFull && error.has(flags::RETRYABLE), "{error}");
                            std::thread::yield_now();
                        }
                    }
                }
                taken
            })
        })
        .collect();
    let (drained, stop) = (Arc::clone(&queue), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let drains = calls::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut tokens = BTreeSet::new();
            loop {
                let (mut events, was_last) = (Vec::new(), stop.load(std::sync::atomic::Ordering::Acquire));
                drained.drain(Deadline::after(Duration::from_millis(20)), &mut events, 8);
                if events.is_empty() && was_last && drained.reserve(0, 6).is_ok() {
                    return tokens;
                }
                for event in events {
                    assert_eq!(event.kind, kind::COMPLETION, "nothing was lost");
                    assert!(event.outcome.is_ok() && tokens.insert(event.token), "{}", completions::said(&event));
                }
            }
        }
    });
    let taken: BTreeSet<u64> = submitters.iter().flat_map(calls::join).collect();
    stop.store(true, std::sync::atomic::Ordering::Release);
    assert!(!taken.is_empty());
    let drained = calls::join(&drains);
    assert!(drained == taken, "{} completions for {} calls", drained.len(), taken.len());
    let counted: i64 =
        ["GET a", "GET hello", "GET b"].map(|line| ok(&shards, line).parse::<i64>().unwrap()).iter().sum();
    assert_eq!(counted, taken.len() as i64 / 4 * 3, "what was refused was not sent");
}

/// Row 120 and scenario 73: each shard is a service of the same Sentinels.
#[test]
fn row_120_scenario_73_a_failover_of_one_shard_touches_only_its_keys() {
    let d = Deployment::new("shards-73").services(["s1", "s2", "s3", "s4"]).replicas(1).sentinels(3).start();
    let sentinel = calls::sentinel_of(&d, &[]);
    let texts = ["node_1=sentinel:s1", "node_2=sentinel:s2", "node_3=sentinel:s3", "node_4=sentinel:s4"];
    let shards = Shards::open(Some(&sentinel), &texts, None).expect("shards");
    // One key for each of the four.
    let keys: Vec<String> = (0..4)
        .map(|shard| {
            (0..).map(|n| format!("w{n}")).find(|key| shards.shard_of(key.as_bytes()).unwrap() == shard).unwrap()
        })
        .collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = keys
        .iter()
        .map(|key| {
            let (shards, stop, key) = (Arc::clone(&shards), Arc::clone(&stop), key.clone());
            calls::spawn(move || {
                let (mut done, mut errors) = (0u64, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    match shards.cmd_exec(
                        &[b"RPUSH", key.as_bytes(), done.to_string().as_bytes()],
                        CallFlags::default(),
                        Timeout::Ms(20_000),
                    ) {
                        Ok(_) => done += 1,
                        Err(error) => errors.push(error.to_string()),
                    }
                }
                (done, errors)
            })
        })
        .collect();
    let length = |service: &str, key: &str| match value(&d.primary_node(service), &format!("LLEN {key}")) {
        Value::Int(len) => len,
        other => panic!("{other:?}"),
    };
    let grown = |services: &[(&str, &str)], more: i64| {
        let before: Vec<i64> = services.iter().map(|(service, key)| length(service, key)).collect();
        eventually("all go on", SOON, || {
            services.iter().zip(&before).all(|((service, key), before)| length(service, key) >= before + more)
        });
    };
    let services = ["s1", "s2", "s3", "s4"];
    let of: Vec<(&str, &str)> = services.iter().copied().zip(keys.iter().map(String::as_str)).collect();
    grown(&of, 20);
    d.failover("s1");
    grown(&of, 50);
    // A primary is killed: the others go on while its Sentinels find out.
    let old = d.primary_node("s2");
    old.kill();
    grown(&[of[0], of[2], of[3]], 100);
    d.wait_switched("s2", &old);
    grown(&of, 50);
    let publish = |channel: &str| cmd(&shards, &format!("PUBLISH {channel} x")).map(drop);
    publish("news").expect("a channel has a shard");
    stop.store(true, std::sync::atomic::Ordering::Release);
    for (at, writer) in writers.iter().enumerate() {
        let (done, errors) = calls::join(writer);
        assert!(errors.len() <= usize::from(at == 1) * 2, "{}: {errors:?}", services[at]);
        let stored = length(services[at], &keys[at]) as u64;
        assert!(
            stored >= done && stored <= done + errors.len() as u64,
            "{}: {stored} of {done} acknowledged",
            services[at]
        );
    }
    let per = json(&shards.stats().expect("statistics"));
    assert!(services.iter().all(|service| per.contains(service)), "{per}");
    drop(Client::open(&sentinel, Some("s1"), Target::Primary, None).expect("the same handle serves other clients"));
    shards.close(Timeout::Default).expect("closed");
    sentinel.close();
}
