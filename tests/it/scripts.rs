//! Scripts (row 96, scenario 66): by their hashes where a server knows them, by their bodies where it does not, and never twice.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, ScanLoop, Target, Timeout};
use vigie::error::{Result, Status, flags};
use vigie::resp::Reply;

const SOON: Duration = Duration::from_secs(20);
const COUNTS: &str = "return(redis.call('INCR',KEYS[1]))";
const READS: &str = "return(redis.call('GET',KEYS[1]))";
const NO_RETRY: u32 = CallFlags::NO_RETRY;
const ATOMIC: u32 = CallFlags::ATOMIC;
const EACH: u32 = CallFlags::EACH;

fn exec(client: &Client, lines: &[&str], flags: u32) -> Result<Reply> {
    client.cmds_exec(&list(lines), CallFlags::from_bits(flags).expect("known"), Timeout::Default)
}

fn submit(client: &Client, lines: &[&str], flags: u32) -> Result<Reply> {
    let (queue, flags) = (completions::queue(8), CallFlags::from_bits(flags).expect("known"));
    client.cmds_submit(&list(lines), flags, Timeout::Default, &queue, 1).expect("taken");
    completions::one(&queue).1
}

/// How often a node ran these commands.
fn calls_of<const N: usize>(node: &Node, names: [&str; N]) -> [u64; N] {
    let stats = node.commandstats();
    names.map(|name| stats.get(name).copied().unwrap_or(0))
}

/// Runs the script in every way that a program can, on a server that does not know it, and counts that each ran once.
fn every_way(client: &Arc<Client>, primary: &Node, sha: &str) {
    let (hash, forget) = (format!("EVALSHA {sha} 1 n"), || assert!(primary.cmd(&["SCRIPT", "FLUSH"]).is_ok()));
    let (hash, mut count) = (hash.as_str(), number(client, "INCR n"));
    type Way<'a> = (&'a str, Box<dyn Fn() -> Result<Reply> + 'a>, usize);
    let in_session = |flags: u32| move || exec(&client.session(None).expect("a session"), &["INCR n", hash], flags);
    let ways: [Way<'_>; 12] = [
        ("alone", Box::new(|| cmd(client, hash)), 1),
        ("sent once", Box::new(|| call(client, hash, NO_RETRY, Timeout::Default)), 1),
        ("a list of one", Box::new(|| exec(client, &[hash], 0)), 1),
        ("last in a list", Box::new(|| exec(client, &["INCR n", hash], 0)), 2),
        ("anywhere in a list", Box::new(|| exec(client, &[hash, "INCR n", hash, "INCR n"], 0)), 4),
        ("a transaction", Box::new(|| exec(client, &[hash, "INCR n"], ATOMIC)), 2),
        ("submitted", Box::new(|| submit(client, &[hash], EACH)), 1),
        ("submitted, sent once", Box::new(|| submit(client, &[hash], EACH | NO_RETRY)), 1),
        ("last in a submitted list", Box::new(|| submit(client, &["INCR n", hash], 0)), 2),
        ("anywhere in a submitted list", Box::new(|| submit(client, &[hash, "INCR n"], 0)), 2),
        ("a submitted transaction", Box::new(|| submit(client, &[hash, "INCR n"], ATOMIC)), 2),
        ("a session", Box::new(in_session(0)), 2),
    ];
    for (what, run, adds) in ways {
        forget();
        let reply = run().unwrap_or_else(|error| panic!("{what}: {:?} {error}", error.status()));
        let counts: Vec<i64> = (count + 1..=count + adds as i64).collect();
        let expected = if reply.count(0) == 0 { counts[0].to_string() } else { format!("{counts:?}").replace(' ', "") };
        assert_eq!(json(&reply), expected, "{what}");
        count += adds as i64;
    }
    forget();
    let session = client.session(None).expect("a session");
    let by_hand = run(&session, &["MULTI", hash, "EXEC"]).expect("a transaction by hand");
    assert_eq!(json(&by_hand), format!("[\"OK\",\"QUEUED\",[{}]]", count + 1));
    assert_eq!(json(&submit(&session, &[hash], EACH).expect("a submit on a session")), (count + 2).to_string());
}

#[test]
fn row_96_scenario_66_a_loaded_script_runs_in_every_way_and_after_a_failover() {
    if lacks(Feature::ReadOnlyScripts) {
        return;
    }
    let d = Deployment::new("scripts").start();
    let sentinel = sentinel_of(&d, &[]);
    let (client, readers) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[]));
    let sha = ok(&client, &format!("SCRIPT LOAD {COUNTS}"));
    let reads = ok(&client, &format!("SCRIPT LOAD {READS}")).to_uppercase();
    assert_eq!(number(&client, &format!("EVALSHA {sha} 1 n")), 1);
    every_way(&client, &d.primary_node(SERVICE), &sha);
    // A replica has no scripts of its primary: it is given this one, as a read.
    let has_all = |node: &Arc<Node>| node.cmd(&["GET", "n"]).text() == ok(&client, "GET n");
    eventually("all is replicated", SOON, || d.replica_nodes(SERVICE).iter().all(has_all));
    for _ in 0..4 {
        assert_eq!(ok(&readers, &format!("EVALSHA_RO {reads} 1 n")), ok(&client, "GET n"));
    }
    let on_replicas = d
        .replica_nodes(SERVICE)
        .iter()
        .map(|node| calls_of(node, ["evalsha_ro", "eval_ro"]))
        .fold([0, 0], |sum: [u64; 2], one| [sum[0] + one[0], sum[1] + one[1]]);
    assert!(on_replicas[0] >= 4 && (1..=4).contains(&on_replicas[1]), "{on_replicas:?}");
    let before = number(&client, "INCR n");
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    // The first call after the switch, on a server that has never seen the script.
    assert_eq!(number(&client, &format!("EVALSHA {sha} 1 n")), before + 1);
    assert_eq!(calls_of(&new, ["evalsha", "eval"]), [1, 1]);
    assert_eq!(number(&client, &format!("EVALSHA {sha} 1 n")), before + 2);
    assert_eq!(calls_of(&new, ["evalsha", "eval"]), [2, 1]);
    every_way(&client, &new, &sha);
}

#[test]
fn a_script_that_was_seen_before_is_sent_by_its_hash() {
    let d = single("script-cache");
    let sentinel = sentinel_of(&d, &[]);
    let (client, node) = (to_primary(&sentinel, &[]), d.primary_node(SERVICE));
    let counts = || calls_of(&node, ["eval", "evalsha"]);
    let script = format!("EVAL {COUNTS} 1 n");
    assert_eq!((number(&client, &script), counts()), (1, [1, 0]), "the server learns it");
    assert_eq!((number(&client, &script), counts()), (2, [1, 1]));
    // Another client of the handle knows it as well.
    let other = to_primary(&sentinel, &[]);
    assert_eq!((number(&other, &script), counts()), (3, [1, 2]));
    assert_eq!(json(&exec(&client, &["INCR n", &script], 0).expect("a list")), "[4,5]");
    assert_eq!(counts(), [1, 3]);
    assert!(node.cmd(&["SCRIPT", "FLUSH"]).is_ok());
    assert_eq!(json(&exec(&client, &["INCR n", &script], 0).expect("a list")), "[6,7]");
    assert_eq!(counts(), [2, 4], "the hash, and then the body");
    // What could not be repeated without its neighbours, and what is submitted, stays as it is.
    assert_eq!(json(&exec(&client, &[&script, "INCR n"], 0).expect("a list")), "[8,9]");
    assert_eq!(json(&exec(&client, &[&script], ATOMIC).expect("a transaction")), "[10]");
    assert_eq!(json(&submit(&client, &[&script], EACH).expect("a submit")), "11");
    assert_eq!(json(&call(&client, &script, NO_RETRY, Timeout::Default).expect("once")), "12");
    assert_eq!((counts(), node.cmd(&["GET", "n"]).text()), ([6, 4], "12".into()));
    // A user who may not send hashes.
    assert!(node.cmd(&["ACL", "SETUSER", "default", "-evalsha"]).is_ok());
    assert_eq!(number(&client, &script), 13);
    assert_eq!(counts()[0], 7);
    let sha = node.cmd(&["SCRIPT", "LOAD", COUNTS]).text();
    let refused = fails(Status::Server, cmd(&client, &format!("EVALSHA {sha} 1 n")));
    assert_eq!(refused.server_code(), "NOPERM", "the caller's own hash");
}

#[test]
fn without_the_cache_a_script_is_what_the_caller_sends() {
    let d = single("script-off");
    let (sentinel, node) = (sentinel_of(&d, &[]), d.primary_node(SERVICE));
    let client = to_primary(&sentinel, &[("script.cache", "off")]);
    let script = format!("EVAL {COUNTS} 1 n");
    (1..=3).for_each(|n| assert_eq!(number(&client, &script), n));
    let sha = ok(&client, &format!("SCRIPT LOAD {COUNTS}"));
    assert_eq!(calls_of(&node, ["eval", "evalsha"]), [3, 0]);
    assert!(node.cmd(&["SCRIPT", "FLUSH"]).is_ok());
    for outcome in
        [cmd(&client, &format!("EVALSHA {sha} 1 n")), submit(&client, &[&format!("EVALSHA {sha} 1 n")], EACH)]
    {
        let error = fails(Status::Server, outcome);
        assert_eq!(error.server_code(), "NOSCRIPT", "{error}");
    }
    let kept = exec(&client, &["INCR n", &format!("EVALSHA {sha} 1 n")], 0).expect("a list has its errors inside");
    assert_eq!((kept.int(1), kept.count(0)), (Some(4), 2));
    // A script that nobody has sent.
    let client = to_primary(&sentinel, &[]);
    let unknown = fails(Status::Server, cmd(&client, &format!("EVALSHA {} 0", "0".repeat(40))));
    assert_eq!(unknown.server_code(), "NOSCRIPT", "{unknown}");
}

/// The calls that were submitted behind it may have run before it, and the next ones find it loaded.
#[test]
fn many_submitted_hashes_run_once_each() {
    let d = single("script-submits");
    let client = open(&sentinel_of(&d, &[]), Target::Split, &[]);
    let sha = ok(&client, &format!("SCRIPT LOAD {COUNTS}"));
    assert!(d.primary_node(SERVICE).cmd(&["SCRIPT", "FLUSH"]).is_ok());
    let (queue, line) = (completions::queue(500), format!("EVALSHA {sha} 1 n"));
    let lines = vec![line.as_str(); 500];
    client
        .cmds_submit(&list(&lines), CallFlags::from_bits(EACH).expect("known"), Timeout::Default, &queue, 0)
        .expect("taken");
    let mut numbers: Vec<i64> = completions::drain(&queue, 500)
        .iter()
        .map(|event| completions::said(event).parse().unwrap_or_else(|_| panic!("{}", completions::said(event))))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
}

/// Four threads, each call with a key of its own, on a primary and then on one that has never seen the script.
/// Ends the threads that look at it.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn under_load_no_script_runs_twice_through_a_failover() {
    let d = Deployment::new("script-load").start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let sha = ok(&client, &format!("SCRIPT LOAD {COUNTS}"));
    let (ends, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = |thread: usize| {
        for n in 0.. {
            if ends.load(Ordering::Relaxed) {
                return n;
            }
            let key = format!("k:{thread}:{n}");
            let outcome = match n % 3 {
                0 => cmd(&client, &format!("EVALSHA {sha} 1 {key}")),
                1 => cmd(&client, &format!("EVAL {COUNTS} 1 {key}")),
                _ => submit(&client, &[&format!("EVALSHA {sha} 1 {key}")], EACH),
            };
            match outcome {
                Ok(reply) => assert_eq!(reply.int(0), Some(1), "{key} ran twice"),
                Err(error) => assert!(error.has(flags::MAYBE_EXECUTED), "{key}: {:?} {error}", error.status()),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        0
    };
    let more = |what: &str, count: usize| {
        let end = answered.load(Ordering::Relaxed) + count;
        eventually(what, SOON, || answered.load(Ordering::Relaxed) >= end);
    };
    let called: usize = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..4).map(|thread| threads.spawn(move || work(thread))).collect();
        // The scope waits for the threads also where an assertion fails.
        let end = Ends(&ends);
        more("it runs", 400);
        let old = d.failover(SERVICE);
        let new = d.wait_switched(SERVICE, &old);
        more("it runs on the new primary", 400);
        let stats = format!("{:?}", new.commandstats());
        // Before Redis 7 scripts are replicated, and none is missing.
        assert!(new.calls("eval") + new.calls("script") >= 1 && new.calls("evalsha") >= 100, "{stats}");
        drop(end);
        workers.into_iter().map(|worker| worker.join().expect("no assertion failed")).sum()
    });
    let (scan, mut keys) =
        (Arc::new(ScanLoop::new(&client, &[b"SCAN", b"0", b"COUNT", b"500"], 0).expect("a scan")), 0);
    while let Some(page) = scan.next(Timeout::Default).expect("a page") {
        let names = page.children(0).filter_map(|id| page.bytes(id));
        let command: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(names).collect();
        let values = client.cmd_exec(&command, CallFlags::default(), Timeout::Default).expect("values");
        assert!(values.children(0).all(|id| values.int(id) == Some(1)), "{}", json(&values));
        keys += values.count(0);
    }
    assert!(keys >= 800 && called >= 800, "{keys} keys of {called} calls");
}
