//! vigie-migrate between servers of different versions.
//!
//! VIGIE_OTHER_SERVERS names the programs of the targets, parted by ':' (scripts/test-servers, `make test-all`); the source is the server of
//! all tests. Without it the target is that server, and values go by their types, as they do to a server that refuses what the source dumps.

use std::collections::BTreeMap;

use crate::migrate::{Program, fill, two, uri};
use crate::support::*;

/// A key whose fields have ends of their own, where the server has such fields.
const WITH_FIELD_ENDS: &str = "fields";

fn knows(node: &Node, command: &str) -> bool {
    matches!(node.cmd(&["COMMAND", "INFO", command]), Value::Array(rows) if matches!(rows.first(), Some(Value::Array(row)) if !row.is_empty()))
}

/// What is at the edges of the types.
fn fill_edges(node: &Node) {
    let mut connection = node.connect().expect("a connection");
    let mut run = |line: &str| {
        let reply = connection.cmd(&line.split(' ').collect::<Vec<_>>()).expect("a reply");
        assert!(!reply.is_error(), "{line}: {reply:?}");
    };
    // More than a page of each, and numbers that are none of the usual.
    for at in 0..1500 {
        run(&format!("RPUSH big:list {at}"));
        run(&format!("HSET big:hash f{at} {at}"));
        run(&format!("ZADD big:zset {}.125 m{at}", at - 700));
    }
    run("ZADD scores inf a -inf b 1e300 c 0.1 d");
    run("SET number 12345");
    run("SET empty ");
    run("SET ends x PX 86400123");
    // A stream without entries, and one with an entry that is pending and deleted, a consumer that has nothing, and two groups.
    run("XGROUP CREATE stream:empty g $ MKSTREAM");
    for at in 1..=5 {
        run(&format!("XADD stream {at}-{at} f {at}"));
    }
    run("XGROUP CREATE stream g 0");
    run("XGROUP CREATE stream h 3-3");
    run("XREADGROUP GROUP g c1 COUNT 3 STREAMS stream >");
    run("XREADGROUP GROUP g c2 COUNT 1 STREAMS stream >");
    run("XGROUP CREATECONSUMER stream h idle");
    run("XCLAIM stream g c2 0 1-1");
    run("XDEL stream 2-2");
}

/// Fields with ends of their own, where there are any.
fn fill_fields(node: &Node) {
    if knows(node, "HPEXPIREAT") {
        node.cmd(&["HSET", WITH_FIELD_ENDS, "stays", "1", "ends", "2", "later", "3"]);
        for (ms, field) in [("86400123", "ends"), ("172800000", "later")] {
            let reply = node.cmd(&["HPEXPIRE", WITH_FIELD_ENDS, ms, "FIELDS", "1", field]);
            assert_eq!(reply, Value::Array(vec![Value::Int(1)]));
        }
    }
}

/// The items of an answer, in an order that no server chooses.
fn ordered(value: Value, step: usize) -> String {
    let Value::Array(items) = value else { return format!("{value:?}") };
    let mut parts: Vec<String> = items.chunks(step).map(|part| format!("{part:?}")).collect();
    parts.sort();
    parts.concat()
}

/// What a program sees of a key, in words of both versions.
fn seen(connection: &mut Client, key: &[u8], field_ends: bool) -> String {
    let mut ask = |words: &[&[u8]]| connection.cmd(words).expect("a reply");
    let kind = ask(&[b"TYPE", key]).text();
    let value = match kind.as_str() {
        "string" => format!("{:?}", ask(&[b"GET", key])),
        "list" => format!("{:?}", ask(&[b"LRANGE", key, b"0", b"-1"])),
        "set" => ordered(ask(&[b"SMEMBERS", key]), 1),
        "zset" => scores(ask(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])),
        "hash" => {
            let ends = match field_ends && key == WITH_FIELD_ENDS.as_bytes() {
                true => format!("{:?}", ask(&[b"HPEXPIRETIME", key, b"FIELDS", b"3", b"stays", b"ends", b"later"])),
                false => String::new(),
            };
            ordered(ask(&[b"HGETALL", key]), 2) + &ends
        }
        "stream" => stream(&mut ask, key),
        other => panic!("{other}"),
    };
    format!("{kind} {value}")
}

/// Members with their scores, which versions write differently.
fn scores(value: Value) -> String {
    let Value::Array(items) = value else { panic!("an array") };
    let score = |pair: &[Value]| pair[1].text().parse::<f64>().expect("a number");
    items.chunks(2).map(|pair| format!("{:?} {} ", pair[0], score(pair))).collect()
}

fn stream(ask: &mut dyn FnMut(&[&[u8]]) -> Value, key: &[u8]) -> String {
    let mut text = format!("{:?}", ask(&[b"XRANGE", key, b"-", b"+"]));
    let last = |info: Value| format!("{:?}", field(&info, "last-generated-id"));
    text += &last(ask(&[b"XINFO", b"STREAM", key]));
    let Value::Array(groups) = ask(&[b"XINFO", b"GROUPS", key]) else { panic!("groups") };
    for group in groups {
        let name = field(&group, "name").expect("a name").text();
        text += &format!("{name} {:?}", field(&group, "last-delivered-id"));
        let Value::Array(rows) = ask(&[b"XPENDING", key, name.as_bytes(), b"-", b"+", b"100"]) else { panic!("rows") };
        for row in rows {
            let Value::Array(row) = row else { panic!("a row") };
            // Since when it is pending does not count.
            text += &format!("{:?} {:?} {:?}", row[0], row[1], row[3]);
        }
        let Value::Array(consumers) = ask(&[b"XINFO", b"CONSUMERS", key, name.as_bytes()]) else { panic!("consumers") };
        let mut names: Vec<String> = consumers.iter().map(|one| field(one, "name").expect("a name").text()).collect();
        names.sort();
        text += &names.concat();
    }
    text
}

fn field(map: &Value, name: &str) -> Option<Value> {
    let Value::Array(items) = map else { return None };
    items.chunks(2).find(|pair| pair[0].text() == name).map(|pair| pair[1].clone())
}

/// By name what a program sees of each key, and in how many ms it ends.
fn contents(node: &Node, field_ends: bool) -> BTreeMap<Vec<u8>, (String, i64)> {
    let mut connection = node.connect().expect("a connection");
    let Value::Array(names) = connection.cmd(&["KEYS", "*"]).expect("names") else { panic!("an array") };
    let mut all = BTreeMap::new();
    for name in names {
        let Value::Bulk(name) = name else { panic!("a name") };
        let left = connection.cmd(&[&b"PTTL"[..], &name]).expect("a number").int().expect("a number");
        let value = seen(&mut connection, &name, field_ends);
        all.insert(name, (value, left));
    }
    all
}

/// Copies to one server, and compares by the tests' own eyes.
fn copies(from: &Deployment, to: &Deployment, program: &Program, more: &[&str]) {
    let (source, target) = (from.node("a-0"), to.node("b-0"));
    let (from, to) = (uri(from, "a-0"), uri(to, "b-0"));
    let args = [&["copy", "--source", &from, "--target", &to, "--digest"][..], more].concat();
    let has_ends = knows(&source, "HPEXPIREAT");
    let takes_ends = knows(&target, "HPEXPIREAT");
    if has_ends && !takes_ends {
        // What cannot go is named, and everything else goes.
        let text = program.ends(1, &args);
        assert!(text.contains(&format!("\"{WITH_FIELD_ENDS}\"")) && text.contains("1 failed"), "{text}");
        source.cmd(&["DEL", WITH_FIELD_ENDS]);
    }
    let text = program.ends(0, &args);
    assert!(text.contains(": equal"), "the digests: {text}");
    let (ours, theirs) = (contents(&source, has_ends && takes_ends), contents(&target, has_ends && takes_ends));
    assert!(ours.len() > 200 && ours.keys().eq(theirs.keys()), "{} and {} keys", ours.len(), theirs.len());
    for (name, (value, left)) in &ours {
        let (other, later) = &theirs[name];
        let name = String::from_utf8_lossy(name);
        assert_eq!(value, other, "{name}");
        // The target was asked later.
        assert!(
            *left == *later && *left == -1 || *later > 0 && (left - later).abs() < 60_000,
            "{name}: {left}, {later}"
        );
    }
}

#[test]
fn keys_of_every_type_go_to_servers_of_other_versions() {
    let from = two("migrate-versions");
    fill(&from.node("a-0"), 210);
    fill_edges(&from.node("a-0"));
    let others = std::env::var("VIGIE_OTHER_SERVERS").unwrap_or_default();
    let others: Vec<&str> = others.split(':').filter(|other| !other.is_empty()).collect();
    for other in &others {
        fill_fields(&from.node("a-0"));
        let to = Deployment::new("migrate-other").services(["b"]).replicas(0).sentinels(0).server(other).start();
        copies(&from, &to, &Program::new("other"), &[]);
    }
    if others.is_empty() {
        fill_fields(&from.node("a-0"));
        copies(&from, &from, &Program::new("other"), &["--by-type"]);
    }
}
