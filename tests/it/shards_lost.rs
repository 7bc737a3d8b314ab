//! Commands over two shards of which one answer is lost, or one command: what is on both sides then, and what the error says of it.
//!
//! Each shard is a real server behind a relay, which loses what a test chooses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vigie::client::{CallFlags, Timeout};
use vigie::error::{Result, Status, flags};
use vigie::resp::{Kind, Reply};
use vigie::shard::Shards;

use crate::calls::{config, json, list, text};
use crate::completions;
use crate::support::*;

/// What the error says where the copy may have been made.
const DOUBT: &str = "the source is as it was, and the destination may have its value already";

const SOON: Duration = Duration::from_secs(20);

/// What a relay does before it passes a command on.
type Hook = Box<dyn FnMut(&Call) + Send>;

/// A server that passes all commands on to a real one, connection by connection.
struct Relay {
    front: Scripted,
    hook: Arc<Mutex<Option<Hook>>>,
    /// What it answers itself to a command of this name.
    own: Arc<Mutex<Option<(&'static str, Value)>>>,
}

impl Relay {
    fn before(node: &Arc<Node>) -> Self {
        let (node, conns) = (Arc::clone(node), Mutex::new(BTreeMap::<u64, Client>::new()));
        let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
        let hooked = Arc::clone(&hook);
        let own: Arc<Mutex<Option<(&'static str, Value)>>> = Arc::default();
        let answers = Arc::clone(&own);
        let front = Scripted::start(move |call| {
            // The kit's client speaks RESP2.
            if call.word(0) == "HELLO" {
                return Act::Reply(Value::error("ERR unknown command 'HELLO'"));
            }
            // Without the lock: a hook may use the library, or change what is hooked.
            let taken = hooked.lock().unwrap().take();
            if let Some(mut run) = taken {
                run(call);
                hooked.lock().unwrap().get_or_insert(run);
            }
            if let Some((name, value)) = &*answers.lock().unwrap() {
                if call.word(0) == *name {
                    return Act::Reply(value.clone());
                }
            }
            let mut conns = conns.lock().unwrap();
            let conn = conns.entry(call.conn).or_insert_with(|| node.connect().expect("the server is there"));
            conn.cmd(call.args).map_or(Act::Close, Act::Reply)
        });
        Self { front, hook, own }
    }

    /// Runs this once, before the first command of this name is passed on.
    fn once_before(&self, name: &'static str, run: impl FnOnce() + Send + 'static) {
        let mut run = Some(run);
        let hook = move |call: &Call| {
            if call.word(0) == name {
                run.take().into_iter().for_each(|run| run());
            }
        };
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

/// Two shards, each behind a relay. Keys with the tag {A} are on the first, with {B} on the second, and are stored without it.
struct Pair {
    nodes: [Arc<Node>; 2],
    relays: [Relay; 2],
    shards: Arc<Shards>,
    tags: [String; 2],
    _d: Deployment,
}

impl Pair {
    fn new(name: &str) -> Self {
        let d = Deployment::new(name).services(["a", "b"]).replicas(0).sentinels(0).start();
        let nodes = [d.node("a-0"), d.node("b-0")];
        let relays = [Relay::before(&nodes[0]), Relay::before(&nodes[1])];
        let texts = [1, 2].map(|at| format!("node_{at}=redis://{}", relays[at - 1].front.addr()));
        let options = config(&[("timeout.call", "20s"), ("timeout.connect", "5s")]);
        let shards = Shards::open(None, &[&texts[0], &texts[1]], Some(&options)).expect("shards");
        let tag = |shard| {
            let is_there = |tag: &String| shards.shard_of(format!("x{{{tag}}}").as_bytes()).unwrap() == shard;
            (0..).map(|n| format!("t{n}")).find(is_there).unwrap()
        };
        let tags = [tag(0), tag(1)];
        Self { nodes, relays, shards, tags, _d: d }
    }

    fn line(&self, line: &str) -> String {
        line.replace("{A}", &format!("{{{}}}", self.tags[0])).replace("{B}", &format!("{{{}}}", self.tags[1]))
    }

    /// Exactly this is on the two servers.
    fn set_up(&self, lines: [&[&str]; 2]) {
        for (node, lines) in self.nodes.iter().zip(lines) {
            node.cmd(&["FLUSHALL"]);
            lines.iter().for_each(|line| _ = on(node, line));
        }
        for relay in &self.relays {
            relay.front.clear_faults();
            *relay.hook.lock().unwrap() = None;
        }
    }

    /// By exec, or by submit, whose steps take another way through the library.
    fn run_by(&self, way: Way, line: &str) -> Result<Reply> {
        if way == Way::Exec {
            return self.run(line);
        }
        let (queue, line) = (completions::queue(1), self.line(line));
        let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
        self.shards.cmds_submit(&list(&[&line]), each, Timeout::Default, &queue, 1).expect("taken");
        completions::one(&queue).1
    }

    fn run(&self, line: &str) -> Result<Reply> {
        let line = self.line(line);
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        self.shards.cmd_exec(&words, CallFlags::default(), Timeout::Default)
    }

    /// What is on both servers: `key=value ... | key=value ...`.
    fn data(&self) -> String {
        self.nodes.each_ref().map(|node| all(node)).join(" | ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Exec,
    Submit,
}

const WAYS: [Way; 2] = [Way::Exec, Way::Submit];

fn on(node: &Node, line: &str) -> Value {
    node.cmd(&line.split_whitespace().collect::<Vec<_>>())
}

fn all(node: &Node) -> String {
    let mut keys: Vec<String> = node.cmd(&["KEYS", "*"]).items().iter().map(Value::text).collect();
    keys.sort();
    let shown = |key: &String| {
        let value = match node.cmd(&["TYPE", key]).text().as_str() {
            "string" => node.cmd(&["GET", key]).text(),
            "list" => {
                node.cmd(&["LRANGE", key, "0", "-1"]).items().iter().map(Value::text).collect::<Vec<_>>().join(",")
            }
            "set" => {
                let mut members: Vec<String> = node.cmd(&["SMEMBERS", key]).items().iter().map(Value::text).collect();
                members.sort();
                members.join(",")
            }
            other => other.to_owned(),
        };
        format!("{key}={value}")
    };
    keys.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// An outcome in short: the reply, or the status, `maybe`, `again`, and the reply of the error.
fn short(outcome: &Result<Reply>) -> String {
    match outcome {
        Ok(reply) => text(reply),
        Err(error) => {
            let mut short = format!("{:?}", error.status());
            for (flag, word) in [(flags::MAYBE_EXECUTED, " maybe"), (flags::RETRYABLE, " again")] {
                short += if error.has(flag) { word } else { "" };
            }
            let told = |reply: &Reply, node| match reply.error_line(node) {
                Some(line) => format!("error {}", String::from_utf8_lossy(line).split(' ').next().unwrap_or_default()),
                None => json(&reply.subtree(node)),
            };
            match error.reply() {
                Some(reply) if reply.kind(0) == Kind::Map => {
                    let parts: Vec<String> = reply.children(0).map(|node| told(reply, node)).collect();
                    format!("{short} has {}", parts.join(" ").replace('"', ""))
                }
                Some(reply) => format!("{short} has {}", json(reply).replace('"', "")),
                None => short,
            }
        }
    }
}

/// A command, what was there before, and what becomes of it when something is lost.
struct Case {
    line: &'static str,
    before: [&'static [&'static str]; 2],
    /// On which shard what is lost: the answer to the command that runs, or the command; the outcome, the data, and a part of the error's
    /// sentence.
    rows: &'static [Row],
}

type Row = (usize, &'static str, Lost, &'static str, &'static str, &'static str);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    Answer,
    Command,
}
use Lost::{Answer, Command};

/// Runs all cases, and tells all that differ.
fn check(pair: &Pair, cases: &[Case]) {
    let mut wrong = String::new();
    for case in cases {
        for ((shard, command, lost, outcome, data, said), way) in
            case.rows.iter().flat_map(|row| WAYS.map(|way| (row, way)))
        {
            pair.set_up(case.before);
            let fault = if *lost == Answer { Fault::Lost } else { Fault::Close };
            pair.relays[*shard].front.fault_times(command, 1, fault);
            let got = pair.run_by(way, case.line);
            let (short, found) = (short(&got), pair.data());
            let message = got.as_ref().err().map(|error| error.message().to_owned()).unwrap_or_default();
            if (&short[..], &found[..], message.contains(said)) != (outcome, data, true) {
                wrong += &format!(
                    "{} {way:?}\n  ({shard}, {command:?}, {lost:?}, {short:?}, {found:?}, {message:?})\n",
                    case.line
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn whatever_is_lost_of_a_command_over_two_shards_is_told() {
    let pair = Pair::new("shards-lost");
    check(&pair, MOVES);
}

/// A change by somebody else, directly on a server.
fn change(node: &Arc<Node>, lines: &'static [&'static str]) -> impl FnOnce() + Send + 'static {
    let node = Arc::clone(node);
    move || lines.iter().for_each(|line| _ = on(&node, line))
}

/// A command during which others change something: before which command on which shard, what is done on each of the servers, the outcome,
/// the data, and a part of the error's sentence.
type Meddled = (&'static str, [&'static [&'static str]; 2], usize, &'static str, [&'static [&'static str]; 2], Row2);
type Row2 = (&'static str, &'static str, &'static str);

#[test]
fn what_others_do_while_a_command_over_two_shards_runs_is_neither_lost_nor_replaced() {
    let pair = Pair::new("shards-meddled");
    let mut wrong = String::new();
    for ((line, before, shard, command, changes, (outcome, data, said)), way) in
        MEDDLED.iter().flat_map(|row| WAYS.map(|way| (row, way)))
    {
        pair.set_up(*before);
        let [first, second] = [0, 1].map(|at| change(&pair.nodes[at], changes[at]));
        let run = move || {
            first();
            second();
        };
        pair.relays[*shard].once_before(command, run);
        let got = pair.run_by(way, line);
        pair.nodes.iter().for_each(|node| _ = on(node, "CONFIG SET maxmemory 0"));
        let (short, found) = (short(&got), pair.data());
        let message = got.as_ref().err().map(|error| error.message().to_owned()).unwrap_or_default();
        if (&short[..], &found[..], message.contains(said)) != (*outcome, *data, true) {
            wrong += &format!("{line} {way:?} with {changes:?}\n  ({short:?}, {found:?}, {message:?})\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// No replica confirms anything: each write stands, the command is done as a whole, and the error says so.
#[test]
fn a_command_whose_writes_too_few_replicas_have_is_done_all_the_same() {
    let pair = Pair::new("shards-short");
    let one = CallFlags::from_bits(1 << 24).expect("one replica");
    for (line, before, reply, data) in [
        ("RENAME from{A} to{B}", SOURCE, "OK", " | to=v"),
        ("RENAMENX from{A} to{B}", NONE, "1", " | to=v"),
        ("COPY from{A} to{B}", NONE, "1", "from=v | to=v"),
        ("SMOVE from{A} to{B} m", SET, "1", "from=n | to=m,o"),
        ("RPOPLPUSH from{A} to{B}", LIST, "2", "from=1 | to=2,3"),
        ("MSETNX p{A} 1 q{B} 2", EMPTY, "1", "p=1 | q=2"),
        ("SUNIONSTORE to{B} s{A} t{B}", STORE, "3", "s=1,2 | t=3 to=1,2,3"),
    ] {
        let words = pair.line(line);
        let words: Vec<&[u8]> = words.split_whitespace().map(str::as_bytes).collect();
        let within = |ms| {
            pair.set_up(before);
            pair.shards.cmd_exec(&words, one, Timeout::Ms(ms)).expect_err("there is no replica")
        };
        // All of the time is waited for replicas; on a busy machine a server may need more than that for its answer.
        let error = Some(within(300)).filter(|error| error.status() != Status::Timeout).unwrap_or_else(|| within(5000));
        assert_eq!((error.status(), error.count()), (Status::Replicas, 0), "{line}: {error}");
        assert!(!error.has(flags::MAYBE_EXECUTED) && error.message().starts_with("node_"), "{line}: {error}");
        assert_eq!((error.reply().map(text).as_deref(), &pair.data()[..]), (Some(reply), data), "{line}: {error}");
    }
}

/// A step that is refused, or answered in a form that it does not have, ends the command with an error; nothing is taken for done, and nothing
/// is replaced or deleted for it.
#[test]
fn a_step_that_is_refused_or_answered_wrongly_is_not_taken_for_done() {
    let pair = Pair::new("shards-refused");
    let no = |command: &str| Value::error(format!("NOPERM this user has no permissions to run {command}"));
    let failed = || Value::Array(vec![Value::error("ERR no")]);
    let odd = || Value::Simple("OK".into());
    for (line, before, own, outcome, data) in [
        // Without the watch a write between the copy and the deletion would be lost.
        ("RENAME from{A} to{B}", SOURCE, (0, "WATCH", no("watch")), "Server", "from=v | to=old"),
        ("RENAMENX from{A} to{B}", NONE, (0, "WATCH", no("watch")), "Server", "from=v | "),
        // An error inside EXEC is no deletion.
        ("RENAME from{A} to{B}", SOURCE, (0, "EXEC", failed()), "Server maybe", "from=v | to=v"),
        ("SDIFFSTORE to{B} s{A} t{B}", STORE, (0, "SMEMBERS", odd()), "Protocol", "s=1,2 | t=3 to=old"),
        ("SUNIONSTORE to{B} s{A} t{B}", STORE, (0, "SUNION", Value::Int(3)), "Protocol", "s=1,2 | t=3 to=old"),
        ("SUNIONSTORE to{B} s{A} t{B}", STORE, (0, "SUNION", failed()), "Protocol", "s=1,2 | t=3 to=old"),
        ("SUNION s{A} t{B}", STORE, (0, "SUNION", failed()), "Protocol", "s=1,2 | t=3 to=old"),
    ] {
        for way in WAYS {
            pair.set_up(before);
            let (at, name, value) = own.clone();
            *pair.relays[at].own.lock().unwrap() = Some((name, value));
            let got = pair.run_by(way, line);
            *pair.relays[at].own.lock().unwrap() = None;
            assert_eq!((&short(&got)[..], &pair.data()[..]), (outcome, data), "{line} {way:?} {name}: {got:?}");
        }
    }
}

/// What MSETNX has set, and cannot look at to take it back, is told.
#[test]
fn what_msetnx_cannot_take_back_is_named() {
    let pair = Pair::new("shards-kept");
    for way in WAYS {
        pair.set_up(EMPTY);
        pair.relays[1].once_before("MSETNX", change(&pair.nodes[1], &["SET q x"]));
        *pair.relays[0].own.lock().unwrap() = Some(("MGET", Value::error("NOPERM no permissions to run mget")));
        let error = pair.run_by(way, "MSETNX p{A} 1 q{B} 2").expect_err("q is there");
        *pair.relays[0].own.lock().unwrap() = None;
        assert!(error.has(flags::MAYBE_EXECUTED) && error.message().contains("may not have been deleted"), "{error}");
        assert_eq!(pair.data(), "p=1 | q=x");
    }
}

/// That a command may run twice is not that one of its steps may: the second answer would say that there was nothing to do.
#[test]
fn a_command_that_may_run_twice_loses_nothing_of_a_lost_step() {
    let pair = Pair::new("shards-twice");
    let twice = CallFlags::from_bits(CallFlags::IDEMPOTENT).expect("a flag");
    for (line, before, (at, step), data) in [
        ("SMOVE from{A} to{B} m", SET, (0, "SREM"), "from=n | to=m,o"),
        ("LMOVE from{A} to{B} LEFT RIGHT", LIST, (1, "RPUSH"), "from=2 | to=3,1"),
        ("RENAMENX from{A} to{B}", NONE, (1, "RESTORE"), "from=v | to=v"),
    ] {
        pair.set_up(before);
        pair.relays[at].front.fault_times(step, 1, Fault::Lost);
        let line = pair.line(line);
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        let error = pair.shards.cmd_exec(&words, twice, Timeout::Default).expect_err("an answer was lost");
        assert!(error.has(flags::MAYBE_EXECUTED), "{line}: {error}");
        assert_eq!(pair.data(), data, "{line}: {error}");
    }
}

#[test]
fn what_was_begun_is_taken_back_or_told_also_after_a_cancellation() {
    let pair = Pair::new("shards-undone");
    // Taken back with a lost answer: the element is in the error, because it may be in no list.
    pair.set_up(LIST);
    pair.relays[1].once_before("RPUSH", change(&pair.nodes[1], &["DEL to", "SET to x"]));
    pair.relays[0].front.fault_times("LPUSH", 1, Fault::Close);
    let outcome = pair.run("LMOVE from{A} to{B} LEFT RIGHT");
    assert_eq!((&short(&outcome)[..], &pair.data()[..]), ("Server maybe has 1", "from=2 | to=x"));
    let error = outcome.expect_err("not pushed");
    assert!(error.message().contains("may not have been put back"), "{error}");

    // A key appears, and a look before the deletion is lost: it is looked at again.
    pair.set_up(EMPTY);
    let node = Arc::clone(&pair.nodes[0]);
    let other = change(&pair.nodes[1], &["SET q other"]);
    pair.relays[1].once_before("MSETNX", move || {
        eventually("the first shard has its key", SOON, || all(&node) == "p=1");
        other();
    });
    pair.relays[0].front.fault_times("WATCH", 1, Fault::Lost);
    assert_eq!((&short(&pair.run("MSETNX p{A} 1 q{B} 2"))[..], &pair.data()[..]), ("0", " | q=other"));
    // What somebody else has made of a key stays.
    pair.set_up(EMPTY);
    let node = Arc::clone(&pair.nodes[0]);
    let others = [change(&pair.nodes[0], &["SET p changed"]), change(&pair.nodes[1], &["SET q other"])];
    pair.relays[1].once_before("MSETNX", move || {
        eventually("the first shard has its key", SOON, || all(&node) == "p=1");
        others.into_iter().for_each(|change| change());
    });
    assert_eq!((&short(&pair.run("MSETNX p{A} 1 q{B} 2"))[..], &pair.data()[..]), ("0", "p=changed | q=other"));
    // What cannot be deleted again is in the error.
    pair.set_up(EMPTY);
    pair.relays[1].once_before("MSETNX", change(&pair.nodes[1], &["SET q other"]));
    pair.relays[0].front.fault("WATCH", Fault::Close);
    let error = pair.run("MSETNX p{A} 1 q{B} 2").expect_err("one of them remains");
    assert!(
        error.has(flags::MAYBE_EXECUTED) && error.message().contains("may not have been deleted again: 'p'"),
        "{error}"
    );
    assert_eq!(pair.data(), "p=1 | q=other");

    // The destination cannot be reached when the element has been taken, and the call is cancelled: the element goes back.
    pair.set_up([&[], &["RPUSH to 3"]]);
    let queue = completions::queue(4);
    let submit = |line: &str, token| {
        let line = pair.line(line);
        let flags = CallFlags::from_bits(CallFlags::EACH).unwrap();
        pair.shards.cmds_submit(&list(&[&line]), flags, Timeout::Unlimited, &queue, token).expect("taken");
    };
    submit("BLMOVE from{A} to{B} LEFT RIGHT 0", 5);
    eventually("it waits", SOON, || pair.nodes[0].info("clients")["blocked_clients"] == "1");
    pair.relays[1].front.down();
    on(&pair.nodes[0], "RPUSH from e");
    eventually("it was taken", SOON, || on(&pair.nodes[0], "LLEN from") == Value::Int(0));
    assert_eq!(queue.cancel(5), 1);
    let error = completions::one(&queue).1.expect_err("it was cancelled");
    assert_eq!((error.status(), error.has(flags::MAYBE_EXECUTED)), (Status::Cancelled, false), "{error}");
    assert!(error.message().contains("put back"), "{error}");
    assert_eq!(pair.data(), "from=e | to=3");

    // A list that was cancelled in the middle says what it had done.
    let lines =
        [pair.line("SET x{A} 1"), pair.line("SET y{B} 2"), pair.line("MGET x{A} y{B}"), pair.line("SET z{A} 3")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.shards.cmds_submit(&list(&lines), CallFlags::default(), Timeout::Unlimited, &queue, 6).expect("taken");
    eventually("the first shard has its part", SOON, || on(&pair.nodes[0], "EXISTS x") == Value::Int(1));
    assert_eq!(queue.cancel(6), 1);
    let error = completions::one(&queue).1.expect_err("it was cancelled");
    let replies = json(error.reply().expect("all replies"));
    assert!(error.status() == Status::Cancelled && error.has(flags::MAYBE_EXECUTED), "{error}");
    // The first command may still have waited for its answer.
    let count = error.reply().map_or(0, |reply| reply.count(0));
    assert!(count == 4 && replies.ends_with("cancelled before its next command was sent\"}]"), "{replies}");
    assert_eq!(on(&pair.nodes[0], "EXISTS z"), Value::Int(0));
}

const MEDDLED: &[Meddled] = &[
    // The source changes: what is there in the end is moved, and nothing of anybody else is replaced.
    ("RENAMENX from{A} to{B}", NONE, 0, "EXEC", [&["SET from v2"], &[]], ("1", " | to=v2", "")),
    (
        "RENAMENX from{A} to{B}",
        NONE,
        0,
        "EXEC",
        [&["SET from v2"], &["SET to other"]],
        (
            "Server maybe",
            "from=v2 | to=other",
            "BUSYKEY the source was changed while it was renamed, and so was the destination: look at both",
        ),
    ),
    ("RENAMENX from{A} to{B}", NONE, 0, "EXEC", [&["SET from v2"], &["DEL to"]], ("1", " | to=v2", "")),
    ("RENAMENX from{A} to{B}", NONE, 0, "EXEC", [&["DEL from"], &[]], ("Server", " | ", "ERR no such key")),
    (
        "RENAMENX from{A} to{B}",
        NONE,
        0,
        "EXEC",
        [&["DEL from"], &["SET to other"]],
        (
            "Server maybe",
            " | to=other",
            "ERR no such key: it was deleted while it was renamed, and the destination was changed meanwhile: look at it",
        ),
    ),
    ("RENAMENX from{A} to{B}", NONE, 0, "EXEC", [&["DEL from"], &["DEL to"]], ("Server", " | ", "ERR no such key")),
    ("RENAMENX from{A} to{B}", NONE, 1, "RESTORE", [&[], &["SET to other"]], ("0", "from=v | to=other", "")),
    ("RENAME from{A} to{B}", SOURCE, 0, "EXEC", [&["SET from v2"], &[]], ("OK", " | to=v2", "")),
    ("RENAME from{A} to{B}", SOURCE, 0, "EXEC", [&["DEL from"], &[]], ("Server", " | to=old", "ERR no such key")),
    (
        "RENAME from{A} to{B}",
        SOURCE,
        0,
        "EXEC",
        [&["DEL from"], &["SET to other"]],
        (
            "Server maybe",
            " | to=other",
            "ERR no such key: it was deleted while it was renamed, and the destination was changed meanwhile: look at it",
        ),
    ),
    (
        "RENAME from{A} to{B}",
        SOURCE,
        0,
        "EXEC",
        [&["SET from v2"], &["CONFIG SET maxmemory 1"]],
        (
            "Server maybe",
            "from=v2 | to=v",
            "the source was changed meanwhile, and the destination has a value of it: compare the two, and delete one",
        ),
    ),
    ("SMOVE from{A} to{B} m", SET, 0, "SREM", [&["SREM from m"], &[]], ("0", "from=n | to=o", "")),
    ("RPOPLPUSH from{A} to{B}", LIST, 0, "RPOP", [&["DEL from"], &[]], ("null", " | to=3", "")),
    (
        "RPOPLPUSH from{A} to{B}",
        LIST,
        1,
        "LPUSH",
        [&[], &["DEL to", "SET to x"]],
        ("Server", "from=1,2 | to=x", "the element was put back"),
    ),
    (
        "BLMOVE from{A} to{B} LEFT RIGHT 5",
        LIST,
        1,
        "RPUSH",
        [&[], &["CONFIG SET maxmemory 1"]],
        ("Server", "from=1,2 | to=3", "the element was put back"),
    ),
    ("MSETNX p{A} 1 q{B} 2", EMPTY, 1, "MSETNX", [&[], &["SET q other"]], ("0", " | q=other", "")),
    (
        "SUNIONSTORE to{B} s{A} t{B}",
        STORE,
        1,
        "EXEC",
        [&["SADD s 9"], &["SET to x"]],
        ("3", "s=1,2,9 | t=3 to=1,2,3", ""),
    ),
];

const EMPTY: [&[&str]; 2] = [&[], &[]];
const SET: [&[&str]; 2] = [&["SADD from m n"], &["SADD to o"]];
const LIST: [&[&str]; 2] = [&["RPUSH from 1 2"], &["RPUSH to 3"]];
const STORE: [&[&str]; 2] = [&["SADD s 1 2"], &["SADD t 3", "SET to old"]];
const SOURCE: [&[&str]; 2] = [&["SET from v"], &["SET to old"]];
const NONE: [&[&str]; 2] = [&["SET from v"], &[]];

const MOVES: &[Case] = &[
    Case {
        line: "RENAME from{A} to{B}",
        before: SOURCE,
        rows: &[
            (0, "WATCH", Answer, "OK", " | to=v", ""),
            (0, "WATCH", Command, "OK", " | to=v", ""),
            (0, "DUMP", Answer, "OK", " | to=v", ""),
            (1, "DUMP", Answer, "OK", " | to=v", ""),
            (1, "DUMP", Command, "OK", " | to=v", ""),
            (1, "RESTORE", Answer, "Io maybe", "from=v | to=v", DOUBT),
            (1, "RESTORE", Command, "Io maybe", "from=v | to=old", DOUBT),
            (0, "EXEC", Answer, "OK", " | to=v", ""),
            (0, "EXEC", Command, "OK", " | to=v", ""),
        ],
    },
    Case {
        line: "RENAMENX from{A} to{B}",
        before: NONE,
        rows: &[
            (0, "WATCH", Answer, "1", " | to=v", ""),
            (0, "WATCH", Command, "1", " | to=v", ""),
            (1, "RESTORE", Answer, "Io maybe", "from=v | to=v", DOUBT),
            (1, "RESTORE", Command, "Io maybe", "from=v | ", DOUBT),
            (0, "EXEC", Answer, "1", " | to=v", ""),
            (0, "EXEC", Command, "1", " | to=v", ""),
        ],
    },
    Case {
        line: "COPY from{A} to{B}",
        before: NONE,
        rows: &[
            (0, "DUMP", Answer, "1", "from=v | to=v", ""),
            (1, "RESTORE", Answer, "Io maybe", "from=v | to=v", DOUBT),
            (1, "RESTORE", Command, "Io maybe", "from=v | ", DOUBT),
        ],
    },
    Case {
        line: "SMOVE from{A} to{B} m",
        before: SET,
        rows: &[
            (0, "SISMEMBER", Answer, "1", "from=n | to=m,o", ""),
            (1, "SISMEMBER", Command, "1", "from=n | to=m,o", ""),
            (
                1,
                "SADD",
                Answer,
                "Io maybe",
                "from=m,n | to=m,o",
                "the source still has the member, and the destination may have it too",
            ),
            (
                1,
                "SADD",
                Command,
                "Io maybe",
                "from=m,n | to=o",
                "the source still has the member, and the destination may have it too",
            ),
            (
                0,
                "SREM",
                Answer,
                "Io maybe",
                "from=n | to=m,o",
                "the member is in the destination, and may still be in the source: SREM takes it from there",
            ),
            (
                0,
                "SREM",
                Command,
                "Io maybe",
                "from=m,n | to=m,o",
                "the member is in the destination, and may still be in the source: SREM takes it from there",
            ),
        ],
    },
    Case {
        line: "RPOPLPUSH from{A} to{B}",
        before: LIST,
        rows: &[
            (0, "TYPE", Answer, "2", "from=1 | to=2,3", ""),
            (1, "TYPE", Command, "2", "from=1 | to=2,3", ""),
            (
                0,
                "RPOP",
                Answer,
                "Io maybe",
                "from=1 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                0,
                "RPOP",
                Command,
                "Io maybe",
                "from=1,2 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                1,
                "LPUSH",
                Answer,
                "Io maybe has 2",
                "from=1 | to=2,3",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
            (
                1,
                "LPUSH",
                Command,
                "Io maybe has 2",
                "from=1 | to=3",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
        ],
    },
    Case {
        line: "LMOVE from{A} to{B} LEFT RIGHT",
        before: LIST,
        rows: &[
            (
                0,
                "LPOP",
                Answer,
                "Io maybe",
                "from=2 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                0,
                "LPOP",
                Command,
                "Io maybe",
                "from=1,2 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                1,
                "RPUSH",
                Answer,
                "Io maybe has 1",
                "from=2 | to=3,1",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
            (
                1,
                "RPUSH",
                Command,
                "Io maybe has 1",
                "from=2 | to=3",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
        ],
    },
    Case {
        line: "BLMOVE from{A} to{B} LEFT RIGHT 5",
        before: LIST,
        rows: &[
            (
                0,
                "BLPOP",
                Answer,
                "Io maybe",
                "from=2 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                0,
                "BLPOP",
                Command,
                "Io maybe",
                "from=1,2 | to=3",
                "the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            (
                1,
                "RPUSH",
                Answer,
                "Io maybe has 1",
                "from=2 | to=3,1",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
            (
                1,
                "RPUSH",
                Command,
                "Io maybe has 1",
                "from=2 | to=3",
                "the element was taken, and may have been pushed: vigie_error_reply() has it",
            ),
        ],
    },
    Case {
        line: "MSETNX p{A} 1 q{B} 2",
        before: EMPTY,
        rows: &[
            (0, "EXISTS", Answer, "1", "p=1 | q=2", ""),
            (1, "EXISTS", Command, "1", "p=1 | q=2", ""),
            (0, "MSETNX", Answer, "Io", " | ", "what was set was deleted again"),
            (0, "MSETNX", Command, "Io maybe", " | ", "node_1 has lost its answer, and has not set anything until now"),
            (1, "MSETNX", Answer, "Io", " | ", "what was set was deleted again"),
            (1, "MSETNX", Command, "Io maybe", " | ", "node_2 has lost its answer, and has not set anything until now"),
        ],
    },
    Case {
        line: "SUNIONSTORE to{B} s{A} t{B}",
        before: STORE,
        rows: &[
            (0, "SUNION", Answer, "3", "s=1,2 | t=3 to=1,2,3", ""),
            (1, "SUNION", Command, "3", "s=1,2 | t=3 to=1,2,3", ""),
            (1, "EXEC", Answer, "Io maybe", "s=1,2 | t=3 to=1,2,3", "node_2: "),
            (1, "EXEC", Command, "Io maybe", "s=1,2 | t=3 to=old", "node_2: "),
        ],
    },
    Case {
        line: "MSET p{A} 1 q{B} 2",
        before: [&[], &["SET q 0"]],
        rows: &[
            (
                0,
                "MSET",
                Answer,
                "Io maybe has node_1 error IO node_2 OK",
                "p=1 | q=2",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                0,
                "MSET",
                Command,
                "Io maybe has node_1 error IO node_2 OK",
                " | q=2",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                1,
                "MSET",
                Answer,
                "Io maybe has node_1 OK node_2 error IO",
                "p=1 | q=2",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                1,
                "MSET",
                Command,
                "Io maybe has node_1 OK node_2 error IO",
                "p=1 | q=0",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
        ],
    },
    Case {
        line: "DEL p{A} q{B}",
        before: [&["SET p 1"], &["SET q 2"]],
        rows: &[
            (
                0,
                "DEL",
                Answer,
                "Io maybe has node_1 error IO node_2 1",
                " | ",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                0,
                "DEL",
                Command,
                "Io maybe has node_1 error IO node_2 1",
                "p=1 | ",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                1,
                "DEL",
                Answer,
                "Io maybe has node_1 1 node_2 error IO",
                " | ",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
            (
                1,
                "DEL",
                Command,
                "Io maybe has node_1 1 node_2 error IO",
                " | q=2",
                "1 of 2 shards have failed: vigie_error_reply() has each one's answer",
            ),
        ],
    },
];

/// A server that answers in another form than the command has: that is an error, and no value that is not there.
#[test]
fn an_answer_of_another_form_is_no_answer() {
    let pair = Pair::new("shards-forms");
    pair.set_up([&["SET a 1", "SET c 1"], &["SET b 1"]]);
    let short = Value::Array(vec![Value::Bulk(b"1".to_vec())]);
    for (line, name, answer) in [
        ("MGET a{A} c{A} b{B}", "MGET", short),
        ("MGET a{A} c{A} b{B}", "MGET", Value::Int(1)),
        ("EXISTS a{A} b{B}", "EXISTS", Value::Bulk(b"many".to_vec())),
        ("DEL a{A} b{B}", "DEL", Value::Array(Vec::new())),
        ("SUNION a{A} b{B}", "SUNION", Value::Int(7)),
        ("DBSIZE", "DBSIZE", Value::Bulk(b"some".to_vec())),
        ("KEYS *", "KEYS", Value::Int(7)),
    ] {
        *pair.relays[0].own.lock().unwrap() = Some((name, answer));
        let error = pair.run(line).expect_err(line);
        let told = error.to_string();
        assert!(error.status() == Status::Protocol && told.contains("node_1"), "{line}: {told}");
        assert!(name != "DEL" || error.has(flags::MAYBE_EXECUTED), "{line}: {told}");
        assert!(!matches!(name, "MGET" | "SUNION") || !error.has(flags::MAYBE_EXECUTED), "{line}: {told}");
    }
}
