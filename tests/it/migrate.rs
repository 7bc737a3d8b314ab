//! vigie-migrate and resp-gen: rows 139 to 146 of the table of features, on real servers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use vigie::sys::random;

use crate::installed::fresh_dir;
use crate::support::*;

const SOON: Duration = Duration::from_secs(30);

pub fn two(name: &str) -> Deployment {
    Deployment::new(name).services(["a", "b"]).replicas(0).sentinels(0).start()
}

/// Two servers, of which the first one has so many keys, and their URIs.
fn filled(name: &str, keys: usize) -> (Deployment, [Arc<Node>; 2], [String; 2]) {
    let d = two(name);
    let nodes = ["a-0", "b-0"].map(|node| d.node(node));
    fill(&nodes[0], keys);
    let uris = ["a-0", "b-0"].map(|node| uri(&d, node));
    (d, nodes, uris)
}

pub fn uri(d: &Deployment, node: &str) -> String {
    format!("redis://{}", d.node(node).addr())
}

/// The program in a directory of its own, where its state is.
pub struct Program {
    dir: PathBuf,
}

impl Program {
    pub fn new(name: &str) -> Self {
        Self { dir: fresh_dir(&format!("migrate-{name}")) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigie-migrate"));
        command.args(args).current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// A run that must end with this status. Returns what it printed.
    #[track_caller]
    pub fn ends(&self, status: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{args:?}: {out}{err}");
        format!("{out}{err}")
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.dir).expect("its directory").count()
    }
}

/// Keys of every type, some with an end.
pub fn fill(node: &Node, keys: usize) {
    let mut connection = node.connect().expect("a connection");
    let mut run = |args: &[&[u8]]| {
        let reply = connection.cmd(args).expect("a reply");
        assert!(!reply.is_error(), "{args:?}: {reply:?}");
    };
    for at in 0..keys {
        let name = format!("k{at}");
        // Some names are no text.
        let name: Vec<u8> = if at % 11 == 0 { [name.as_bytes(), b"\xff\0\n"].concat() } else { name.into_bytes() };
        let value = vec![(at % 251) as u8; at % 300];
        match at % 7 {
            0 => run(&[b"SET", &name, &value]),
            1 => (0..at % 40).chain([at]).for_each(|n| run(&[b"RPUSH", &name, n.to_string().as_bytes()])),
            2 => (0..=at % 40).for_each(|n| run(&[b"SADD", &name, format!("m{n}").as_bytes()])),
            3 => (0..=at % 40).for_each(|n| run(&[b"HSET", &name, format!("f{n}").as_bytes(), &value])),
            4 => (0..=at % 40)
                .for_each(|n| run(&[b"ZADD", &name, format!("{}.25", n).as_bytes(), format!("m{n}").as_bytes()])),
            5 => run(&[b"PFADD", &name, b"a", b"b", at.to_string().as_bytes()]),
            _ => {
                for n in 1..5 {
                    run(&[b"XADD", &name, format!("{n}-1").as_bytes(), b"f", &value]);
                }
                run(&[b"XGROUP", b"CREATE", &name, b"g", b"0"]);
                run(&[b"XREADGROUP", b"GROUP", b"g", b"c1", b"COUNT", b"2", b"STREAMS", &name, b">"]);
                run(&[b"XDEL", &name, b"1-1"]);
            }
        }
        if at % 3 == 0 {
            run(&[b"PEXPIRE", &name, (3_600_000 + at).to_string().as_bytes()]);
        }
    }
}

fn sorted(value: Value, step: usize) -> Value {
    let Value::Array(items) = value else { return value };
    let mut parts: Vec<Vec<Value>> = items.chunks(step).map(<[Value]>::to_vec).collect();
    parts.sort_by_key(|part| part.iter().map(Value::text).collect::<Vec<_>>());
    Value::Array(parts.concat())
}

/// What a server has: by name the value and when it ends.
fn contents(node: &Node, db: u32) -> BTreeMap<Vec<u8>, (Value, i64)> {
    let mut connection = node.connect().expect("a connection");
    connection.cmd(&["SELECT", &db.to_string()]).expect("a database");
    let Value::Array(names) = connection.cmd(&["KEYS", "*"]).expect("names") else { panic!("an array") };
    let mut all = BTreeMap::new();
    for name in names {
        let Value::Bulk(name) = name else { panic!("a name") };
        // Sets and hashes have no order, so their dumps may differ.
        let dump = match connection.cmd(&[&b"TYPE"[..], &name]).expect("a type").text().as_str() {
            "set" => sorted(connection.cmd(&[&b"SMEMBERS"[..], &name]).expect("members"), 1),
            "hash" => sorted(connection.cmd(&[&b"HGETALL"[..], &name]).expect("fields"), 2),
            _ => connection.cmd(&[&b"DUMP"[..], &name]).expect("a dump"),
        };
        let ends = connection.cmd(&[&b"PEXPIRETIME"[..], &name]).expect("a number").int().expect("a number");
        all.insert(name, (dump, ends));
    }
    all
}

fn names(node: &Node) -> usize {
    node.cmd(&["DBSIZE"]).int().and_then(|keys| usize::try_from(keys).ok()).expect("a number")
}

#[test]
fn rows_140_142_143_145_a_copy_has_everything_and_the_source_stays_as_it_is() {
    if lacks(Feature::ExpireTime) {
        return;
    }
    let (_d, [source, target], [from, to]) = filled("migrate-copy", 500);
    let before = contents(&source, 0);
    let program = Program::new("copy");
    // A dry run writes nothing.
    let text = program.ends(0, &["copy", "--source", &from, "--target", &to, "--dry-run"]);
    assert!(text.contains("dry run: 500 keys") && names(&target) == 0 && program.files() == 0, "{text}");
    let asked = (source.calls("keys"), source.calls("scan"));
    let text = program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest", "--json"]);
    assert!(source.calls("keys") == asked.0 && source.calls("scan") > asked.1, "names are found by SCAN");
    assert!(
        text.contains(r#""status":0"#) && text.contains(r#""moved":500"#) && text.contains(r#""complete":true"#),
        "{text}"
    );
    assert!(
        contents(&target, 0) == before && contents(&source, 0) == before,
        "the same values and ends, and no key more"
    );
    assert_eq!(program.files(), 0, "nothing is left beside the data");
    // Again: everything is there already.
    let text = program.ends(0, &["copy", "--source", &from, "--target", &to]);
    assert!(text.contains("500 equal"), "{text}");
    // A key of the target that is another one is kept, and told; only --replace overwrites it.
    target.cmd(&["SET", "k1", "mine"]);
    let text = program.ends(1, &["copy", "--source", &from, "--target", &to]);
    assert!(text.contains("\"k1\"") && text.contains("1 kept") && text.contains("--replace"), "{text}");
    assert_eq!(target.cmd(&["GET", "k1"]).text(), "mine");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--replace"]);
    assert!(contents(&target, 0) == before);
    // A filter, and pairs of databases.
    let text =
        program.ends(0, &["copy", "--source", &from, "--target", &to, "--databases", "0:2,5:1", "--match", "k1?"]);
    assert!(
        contents(&target, 2).keys().all(|name| name.starts_with(b"k1")) && !contents(&target, 2).is_empty(),
        "{text}"
    );
    // The digests differ where a value does, and --flush empties what is in the way.
    target.cmd(&["SET", "extra", "1"]);
    assert!(program.ends(1, &["copy", "--source", &from, "--target", &to, "--digest"]).contains("different"));
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest", "--flush"]);
    assert!(contents(&target, 0) == before);
    // What is no use is refused.
    assert!(program.ends(2, &["copy", "--source", &from, "--target", &from]).contains("same server"));
    assert!(program.ends(2, &["copy", "--source", "redis://:secret@h:x", "--target", &to]).find("secret").is_none());
    program.ends(2, &["copy", "--source", &from]);
    let node = format!("node_1={from}");
    let chain = [
        "reshard",
        "--hash",
        "crc32",
        "--tags",
        "none",
        "--source",
        &from,
        "--target",
        &node,
        "--databases",
        "0:1,1:2",
    ];
    assert!(program.ends(2, &chain).contains("Use two runs"));
    program.ends(3, &["copy", "--source", "redis://127.0.0.1:1", "--target", &to, "--timeout", "1"]);
    // By type it is the same, without DUMP and RESTORE.
    target.cmd(&["FLUSHALL"]);
    let restored = target.calls("restore");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--by-type", "--digest"]);
    assert_eq!((names(&target), target.calls("restore")), (500, restored));
    // Deleted at the source only what the target has.
    source.cmd(&["SET", "k1", "changed"]);
    let text = program.ends(1, &["copy", "--source", &from, "--target", &to, "--delete-moved"]);
    assert!(text.contains("1 kept") && names(&source) == 500, "{text}");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--replace", "--delete-moved"]);
    assert_eq!((names(&source), names(&target)), (0, 500));
}

#[test]
fn row_139_each_key_is_on_the_node_that_a_client_computes() {
    if lacks(Feature::ExpireTime) {
        return;
    }
    let d = Deployment::new("migrate-reshard").services(["old", "a", "b", "c"]).replicas(0).sentinels(0).start();
    fill(&d.node("old-0"), 300);
    let source = contents(&d.node("old-0"), 0);
    let program = Program::new("reshard");
    let targets: Vec<String> =
        ["a-0", "b-0", "c-0"].iter().zip(1..).map(|(node, at)| format!("node_{at}={}", uri(&d, node))).collect();
    let old = uri(&d, "old-0");
    for hash in ["rendezvous", "crc32"] {
        for node in ["a-0", "b-0", "c-0"] {
            d.node(node).cmd(&["FLUSHALL"]);
        }
        let args = [
            "reshard",
            "--source",
            &old,
            "--target",
            &targets[2],
            "--target",
            &targets[0],
            "--target",
            &targets[1],
            "--hash",
            hash,
            "--digest",
        ];
        program.ends(0, &args);
        let texts: Vec<&str> = targets.iter().map(String::as_str).collect();
        let config = crate::calls::config(&[("shard.hash", hash)]);
        let shards = vigie::shard::Shards::open(None, &texts, Some(&config)).expect("shards");
        let mut found = 0;
        for (at, node) in ["a-0", "b-0", "c-0"].iter().enumerate() {
            for (name, value) in contents(&d.node(node), 0) {
                assert_eq!(shards.shard_of(&name).unwrap(), at);
                assert!(source[&name] == value);
                found += 1;
            }
        }
        assert_eq!(found, 300, "each key once");
    }
    // In place: one more shard takes its part, and nothing is left where it was.
    let two: Vec<String> = vec![format!("node_1={}", uri(&d, "a-0")), format!("node_2={}", uri(&d, "b-0"))];
    for node in ["a-0", "b-0", "c-0"] {
        d.node(node).cmd(&["FLUSHALL"]);
    }
    program.ends(0, &["reshard", "--source", &old, "--target", &two[0], "--target", &two[1], "--hash", "rendezvous"]);
    let (a, b) = (uri(&d, "a-0"), uri(&d, "b-0"));
    let args = [
        "reshard",
        "--source",
        &a,
        "--source",
        &b,
        "--target",
        &targets[0],
        "--target",
        &targets[1],
        "--target",
        &targets[2],
        "--hash",
        "rendezvous",
    ];
    program.ends(0, &args);
    program.ends(0, &[&args[..], &["--delete-moved"]].concat());
    let all: usize = ["a-0", "b-0", "c-0"].iter().map(|node| names(&d.node(node))).sum();
    assert!(all == 300 && names(&d.node("c-0")) > 30, "{all}");
}

#[test]
fn rows_141_144_runs_go_on_where_they_ended_and_one_at_a_time_writes() {
    if lacks(Feature::ExpireTime) {
        return;
    }
    let (_d, [source, target], [from, to]) = filled("migrate-kill", 11);
    let program = Program::new("kill");
    for moved in [3, 6, 9, 11] {
        program.ends(0, &["copy", "--source", &from, "--target", &to, "--limit", "3", "--batch", "4"]);
        assert_eq!(names(&target), moved);
    }
    assert!(contents(&source, 0) == contents(&target, 0), "nothing is doubled");
    // Killed at random, again and again.
    target.cmd(&["FLUSHALL"]);
    source.cmd(&["FLUSHALL"]);
    fill(&source, 2000);
    let kills: u32 = std::env::var("VIGIE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut rng = random::rng();
    let base = ["copy", "--source", &from, "--target", &to, "--batch", "20", "--threads", "2", "--lock", "1"];
    let mut killed = 0;
    for round in 0..kills {
        let by_type = round % 3 == 2;
        let args = if by_type { [&base[..], &["--by-type"]].concat() } else { base.to_vec() };
        let mut child = program.command(&args).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(rng.u64(1..120)));
        killed += u32::from(matches!(child.try_wait(), Ok(None)));
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().expect("it ended");
        // A lock of a run that was killed ends by itself.
        eventually("the lock is free", SOON, || target.cmd(&["EXISTS", "vigie-migrate:lock"]) == Value::Int(0));
        if round % 5 == 4 {
            target.cmd(&["FLUSHALL"]);
            program.ends(0, &["copy", "--source", &from, "--target", &to, "--clean"]);
        }
    }
    assert!(killed > 0, "some were killed");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest"]);
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--clean"]);
    let (ours, theirs) = (contents(&source, 0), contents(&target, 0));
    assert!(ours.len() == 2000 && ours.keys().eq(theirs.keys()) && program.files() == 0);
    assert!(ours.iter().all(|(name, (_, ends))| theirs[name].1 == *ends));
    // What a run could not move is told by the one that goes on with it, and its state is no other run's.
    target.cmd(&["FLUSHALL"]);
    for at in 0..2000 {
        target.cmd(&["SET", &format!("k{at}"), "mine"]);
    }
    program.ends(1, &["copy", "--source", &from, "--target", &to, "--limit", "50", "--batch", "20"]);
    assert!(
        program.ends(2, &["copy", "--source", &from, "--target", &to, "--match", "k1*"]).contains("other arguments")
    );
    target.cmd(&["FLUSHALL"]);
    let text = program.ends(1, &["copy", "--source", &from, "--target", &to]);
    assert!(text.contains("were not moved by the runs"), "{text}");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest"]);
    // Two at the same time: the second one refuses, and so does --clean.
    target.cmd(&["SET", "vigie-migrate:lock", "somebody", "PX", "60000"]);
    for more in [&[][..], &["--clean"]] {
        let text = program.ends(3, &[&["copy", "--source", &from, "--target", &to][..], more].concat());
        assert!(text.contains("another run writes"), "{text}");
    }
}

/// The source fails over while it is read: its cursors mean nothing to the next primary.
#[test]
fn a_copy_goes_on_after_a_failover_of_its_source_and_of_its_target() {
    let d = Deployment::new("migrate-failover").services(["a", "b"]).replicas(1).sentinels(3).start();
    let keys = 1500;
    fill(&d.primary_node("a"), keys);
    let replicated = |service: &str| d.primary_node(service).cmd(&["WAIT", "1", "20000"]) == Value::Int(1);
    assert!(replicated("a"));
    let uri = |service: &str| format!("redis-sentinel://{}/{service}", d.sentinel_addrs().join(","));
    let (from, to) = (uri("a"), uri("b"));
    let program = Program::new("failover");
    let child = program
        .command(&["copy", "--source", &from, "--target", &to, "--batch", "1", "--threads", "1"])
        .spawn()
        .expect("it starts");
    eventually("it has begun", SOON, || d.primary_node("b").cmd(&["DBSIZE"]).int().is_some_and(|keys| keys > 10));
    // Both at the same time: the copy cannot end before.
    std::thread::scope(|scope| {
        scope.spawn(|| d.failover("a"));
        d.failover("b");
    });
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        let left = d.settled_primary("b").cmd(&["KEYS", "vigie-migrate:*"]);
        assert!(names(&d.settled_primary("b")) == keys && text.contains("looked at once more"), "{text} {left:?}");
        program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest"]);
    };
    ended(child);
    // By type, where the steps of a value are on one connection.
    d.primary_node("b").cmd(&["FLUSHALL"]);
    let args = ["copy", "--source", &from, "--target", &to, "--batch", "1", "--threads", "1", "--by-type"];
    let child = program.command(&args).spawn().expect("it starts");
    eventually("it has begun", SOON, || d.primary_node("b").cmd(&["DBSIZE"]).int().is_some_and(|keys| keys > 10));
    d.failover("b");
    ended(child);
}

/// The user of the source may not run KEYS, so names are found by SCAN alone.
#[test]
fn row_145_both_sides_ask_for_passwords_and_no_keys_command_is_needed() {
    let secrets = ["source-secret", "target-secret"];
    let server = |name: &str| Deployment::new(name).services([name]).replicas(0).sentinels(0);
    let by_acl = server("acl").acl("mover", secrets[0]).start();
    let by_password = server("password").password(secrets[1]).start();
    let (source, target) = (by_acl.node("acl-0"), by_password.node("password-0"));
    assert!(!source.cmd(&["ACL", "SETUSER", "mover", "-keys"]).is_error());
    fill(&source, 70);
    let from = format!("redis://mover:{}@{}", secrets[0], source.addr());
    let to = format!("redis://:{}@{}", secrets[1], target.addr());
    let program = Program::new("passwords");
    program.ends(0, &["copy", "--source", &from, "--target", &to, "--digest"]);
    assert_eq!(target.cmd(&["DBSIZE"]), Value::Int(70));
    // The other way, from files, so that no password is among the arguments.
    source.cmd(&["FLUSHALL"]);
    for (name, uri) in [("from", &to), ("to", &from)] {
        std::fs::write(program.dir.join(name), format!("{uri}\n")).expect("a file");
    }
    program.ends(0, &["copy", "--source", "@from", "--target", "@to", "--digest"]);
    assert_eq!(source.cmd(&["DBSIZE"]), Value::Int(70));
    // A password that is wrong, or that is missing, on either side: the program says where, and shows none.
    let (wrong, open) = (from.replace(secrets[0], "bad-secret"), uri(&by_password, "password-0"));
    for (from, to, side) in [(&wrong, &to, "--source"), (&to, &wrong, "--target"), (&from, &open, "--target")] {
        let text = program.ends(3, &["copy", "--source", from, "--target", to]);
        assert!(text.contains(side) && !text.contains("-secret"), "{text}");
    }
    assert_eq!(source.calls("keys"), 0);
}

#[test]
fn row_146_lines_of_commands_become_resp() {
    let d = Deployment::new("resp-gen").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let run = |text: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_resp-gen"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("a pipe").write_all(text).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let output = run(b"SET a \"x y\\n\\xff\\\"\"\nSET 'b c' 'it\\'s'\n\nRPUSH l 1 2 \"\"\n");
    assert!(output.status.success());
    let mut connection = node.connect().expect("a connection");
    connection.send_bytes(&output.stdout).expect("sent");
    for _ in 0..3 {
        assert!(!connection.read().expect("a reply").is_error());
    }
    assert_eq!(node.cmd(&["GET", "a"]), Value::bulk(b"x y\n\xff\""));
    assert_eq!(node.cmd(&["GET", "b c"]).text(), "it's");
    assert_eq!(node.cmd(&["LLEN", "l"]), Value::Int(3));
    let output = run(b"SET a 1\nSET a \"open\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains('2'), "the line is named");
}

/// Two names of one server are one server: what is on it stays, whichever of them is its shard.
#[test]
fn keys_stay_where_they_are_if_two_targets_are_one_server() {
    let d = two("migrate-same");
    let a = d.node("a-0");
    for at in 0..200 {
        a.cmd(&["SET", &format!("k{at}"), "v"]);
    }
    let (other, program) = (d.node("b-0"), Program::new("same"));
    let (from, by_name) = (uri(&d, "a-0"), uri(&d, "a-0").replace("127.0.0.1", "localhost"));
    let targets = [format!("node_1={from}"), format!("node_2={by_name}"), format!("node_3={}", uri(&d, "b-0"))];
    let mut args = vec!["reshard", "--source", &from, "--hash", "rendezvous", "--delete-moved"];
    targets.iter().for_each(|target| args.extend(["--target", target.as_str()]));
    let text = program.ends(0, &args);
    assert!(names(&a) + names(&other) == 200 && names(&other) > 30, "{text}");
    // Where no key ends they are not asked for their ends; where one does all are.
    let program = Program::new("lasting");
    let (here, asked) = (names(&a), a.calls("pexpiretime"));
    let target = format!("{}/5", uri(&d, "b-0"));
    program.ends(0, &["copy", "--source", &from, "--target", &target]);
    assert_eq!((contents(&other, 5).len(), a.calls("pexpiretime")), (here, asked));
    a.cmd(&["SET", "ends", "v", "PX", "3600000"]);
    other.cmd(&["FLUSHDB"]);
    let target = format!("{}/6", uri(&d, "b-0"));
    program.ends(0, &["copy", "--source", &from, "--target", &target]);
    assert!(contents(&other, 6) == contents(&a, 0) && contents(&a, 0)[&b"ends"[..]].1 > 0);
    a.cmd(&["DEL", "ends"]);
    // Another database of the same server is another place.
    other.cmd(&["FLUSHALL"]);
    let targets = [format!("node_1={from}/1"), format!("node_2={}/1", uri(&d, "b-0"))];
    let mut args = vec!["reshard", "--source", &from, "--hash", "rendezvous"];
    targets.iter().for_each(|target| args.extend(["--target", target.as_str()]));
    let here = names(&a);
    let text = program.ends(0, &args);
    assert_eq!(contents(&a, 1).len() + contents(&other, 1).len(), here, "{text}");
}

/// In place nothing is moved by a hash that nobody has said, and what a run passes over is named.
#[test]
fn in_place_the_hash_is_said_and_a_forgotten_source_is_named() {
    let d = two("migrate-forgotten");
    let (a, b) = (uri(&d, "a-0"), uri(&d, "b-0"));
    for at in 0..100 {
        d.node("a-0").cmd(&["SET", &format!("k{at}"), "v"]);
        d.node("b-0").cmd(&["SET", &format!("l{at}"), "v"]);
    }
    let program = Program::new("forgotten");
    let targets = [format!("node_1={a}"), format!("node_2={b}")];
    let reshard = ["reshard", "--source", &a, "--target", &targets[0], "--target", &targets[1]];
    let text = program.ends(2, &reshard);
    assert!(text.contains("say --hash"), "{text}");
    let text = program.ends(0, &[&reshard[..], &["--hash", "rendezvous"]].concat());
    assert!(text.contains("keys are placed by rendezvous, tags: cluster"), "{text}");
    assert!(text.contains("node_2 (127.0.0.1:") && text.contains("is no source, and of"), "{text}");
    let text = program.ends(0, &[&reshard[..], &["--hash", "rendezvous", "--source", &b]].concat());
    assert!(!text.contains("is no source"), "{text}");
    let third = format!("node_3={b}");
    let gap = [&reshard[..5], &["--target", &third, "--hash", "crc32"]].concat();
    let text = program.ends(2, &gap);
    assert!(text.contains("--target node_3 is given, but there are 2 targets"), "{text}");
    let text = program.ends(2, &["reshard", "--source", &a, "--target", &b]);
    assert!(text.contains("--target 1 of 1 has no number: node_1=URI"), "{text}");
}

/// A run that goes on with one that was cut short empties nothing, and says so; one without --flush is another run.
#[test]
fn targets_are_emptied_once_and_a_run_that_goes_on_says_that_it_did_not() {
    let (_d, [source, target], [from, to]) = filled("migrate-emptied", 300);
    let program = Program::new("emptied");
    let copy = |status: i32, more: &[&str]| {
        program.ends(status, &[&["copy", "--source", &from, "--target", &to], more].concat())
    };
    target.cmd(&["SET", "before", "v"]);
    let text = copy(0, &["--limit", "100", "--batch", "10", "--flush"]);
    assert!(text.contains("there is more") && names(&target) == 100, "{text}");
    target.cmd(&["SET", "ghost", "v"]);
    let text = copy(2, &[]);
    assert!(text.contains("of a run with other arguments"), "{text}");
    let text = copy(0, &["--flush"]);
    assert!(text.contains("does not empty them again") && names(&target) == 301, "{text}");
    let text = copy(0, &["--flush", "--digest"]);
    assert!(!text.contains("does not empty them again") && contents(&target, 0) == contents(&source, 0), "{text}");
}

/// A run goes on only where its targets have what the runs before moved; and a state is of a pair of databases.
#[test]
fn a_run_begins_anew_if_its_target_has_lost_what_was_moved() {
    let (_d, [source, target], [from, to]) = filled("migrate-anew", 300);
    let program = Program::new("anew");
    let copy =
        |to: &str, more: &[&str]| program.ends(0, &[&["copy", "--source", &from, "--target", to], more].concat());
    let text = copy(&to, &["--limit", "100", "--batch", "10"]);
    assert!(text.contains("there is more") && names(&target) == 100, "{text}");
    target.cmd(&["FLUSHALL"]);
    let text = copy(&to, &[]);
    assert!(text.contains("began anew") && names(&target) == 300, "{text}");
    // The database in the URI counts as well.
    target.cmd(&["FLUSHALL"]);
    copy(&to, &["--limit", "100", "--batch", "10"]);
    let one = format!("{to}/1");
    assert!(program.ends(2, &["copy", "--source", &from, "--target", &one]).contains("other arguments"));
    assert!(copy(&to, &["--clean"]).contains("cleaned"));
    copy(&one, &[]);
    assert_eq!(contents(&target, 1).len(), 300);
    // Each database that is written has the lock, wherever the URI points; and only a file can be a state file.
    target.cmd(&["SET", "vigie-migrate:lock", "somebody", "PX", "60000"]);
    for to in [&one, &to] {
        let text = program.ends(3, &["copy", "--source", &from, "--target", to, "--databases", "0:0"]);
        assert!(text.contains("another run writes"), "{text}");
    }
    target.cmd(&["FLUSHALL"]);
    let fifo = program.dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let text = program.ends(2, &["copy", "--source", &from, "--target", &to, "--state", &fifo.to_string_lossy()]);
    assert!(text.contains("no regular file"), "{text}");
    // What a run passes by is told, and so are keys that the target gives up for want of memory.
    let mut connection = source.connect().expect("a connection");
    connection.cmd(&["SELECT", "3"]).expect("a database");
    connection.cmd(&["SET", "k", "v"]).expect("a key");
    target.cmd(&["FLUSHALL"]);
    assert!(copy(&to, &["--dry-run", "--limit", "10"]).contains("10 moved"));
    let text = copy(&to, &[]);
    assert!(text.contains("other databases are no part of this run: 3 (1 keys)"), "{text}");
    target.cmd(&["FLUSHALL"]);
    target.cmd(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    target.cmd(&["CONFIG", "SET", "maxmemory", "4mb"]);
    for at in 0..300 {
        source.cmd(&["SET", &format!("large{at}"), &"x".repeat(20_000)]);
    }
    let text = program.ends(1, &["copy", "--source", &from, "--target", &to, "--delete-moved"]);
    assert!(text.contains("evicted") && text.contains("nothing was deleted") && names(&source) == 600, "{text}");
}

/// Where tags are not stored, keys with different tags may come to one name: then one of them goes, and the others are told.
#[test]
fn keys_that_lose_their_tags_are_never_taken_for_each_other() {
    let d = two("migrate-tags");
    let (source, target) = (d.node("a-0"), d.node("b-0"));
    for key in ["x{a}", "x{b}", "x{c}", "y", "y{a}", "z{a}"] {
        source.cmd(&["SET", key, "same"]);
    }
    let (from, to, program) = (uri(&d, "a-0"), format!("node_1={}", uri(&d, "b-0")), Program::new("tags"));
    for more in [&["--dry-run"][..], &[], &["--delete-moved"]] {
        let args = [&["reshard", "--source", &from, "--target", &to][..], more].concat();
        let text = program.ends(1, &args);
        assert!(text.contains("3 failed") && text.contains("another key of the sources has this name"), "{text}");
    }
    assert_eq!((names(&source), names(&target)), (6, 3));
    let args = ["reshard", "--source", &from, "--target", &to, "--tags", "none", "--delete-moved"];
    target.cmd(&["FLUSHALL"]);
    program.ends(0, &args);
    assert_eq!((names(&source), names(&target)), (0, 6));
}

#[test]
fn what_is_told_has_no_password() {
    let d = two("migrate-secrets");
    let (from, program) = (uri(&d, "a-0"), Program::new("secrets"));
    let secret = "redis://user:pass:word@127.0.0.1:1/0";
    for args in [
        &["copy", secret][..],
        &["copy", "--source", &from, "--target", &from, "--limit", secret],
        &["copy", "--source", &from, "--target", &from, "--databases", secret],
        &["copy", "--source", &from, "--target", &from, "--tags", secret],
        &["reshard", "--source", &from, "--target", secret, "--hash", secret],
        &[secret],
    ] {
        let text = program.ends(2, args);
        assert!(!text.contains("pass") && !text.contains("word"), "{args:?}: {text}");
    }
}
