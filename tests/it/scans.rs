//! Scans (rule 15): which node a cursor belongs to, on every kind of client, for several scans at a time; a useless
//! cursor is an error.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, ScanLoop, Target, Timeout};
use vigie::error::{Error, Status, flags};
use vigie::queue::Queue;
use vigie::time::Deadline;
use vigie::topology::Sentinel;

const SOON: Duration = Duration::from_secs(20);
const KINDS: [&str; 4] = ["SCAN", "HSCAN h", "SSCAN s", "ZSCAN z"];

/// Answers every scan with this cursor.
fn answers(node: &FakeNode, cursor: &str) {
    let reply = Value::Array(vec![Value::bulk(cursor), Value::Array(Vec::new())]);
    for kind in KINDS {
        let name = kind.split(' ').next().expect("a name");
        node.fault(name, Fault::Reply(reply.clone()));
    }
}

fn refresh(sentinel: &Arc<Sentinel>) {
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
}

#[track_caller]
fn interrupted(client: &Client, line: &str, node: &str) {
    let error = fails(Status::ScanInterrupted, cmd(client, line));
    assert!(error.message().contains(node) && error.message().contains("cursor 0"), "{line}: {error}");
    assert!(!error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{line}: {error}");
}

/// The cursor in a reply of a scan.
fn cursor(client: &Client, line: &str) -> i64 {
    let reply = cmd(client, line).unwrap_or_else(|error| panic!("{line}: {:?} {error}", error.status()));
    reply.child(0, 0).and_then(|id| reply.int(id)).expect("a cursor")
}

#[test]
fn a_cursor_of_an_old_primary_is_told() {
    for target in [Target::Primary, Target::Split] {
        let (old, new) = (Scripted::primary(), Scripted::primary());
        let watch = told(&old.addr(), &[new.addr()]);
        let sentinel = handle(&watch, &[]);
        let client = open(&sentinel, target, &[]);
        answers(&old, "17");
        answers(&new, "0");
        for kind in KINDS {
            assert_eq!(cursor(&client, &format!("{kind} 0 COUNT 10")), 17);
        }
        // Two more: one that has continued, and one whose next step fails.
        assert_eq!(cursor(&client, "SCAN 0 MATCH a*"), 17);
        old.fault("SCAN 17 MATCH b*", Fault::Error("ERR for once".into()));
        assert_eq!(cursor(&client, "SCAN 0 MATCH b*"), 17);
        fails(Status::Server, cmd(&client, "SCAN 17 MATCH b*"));
        assert_eq!(old.count("INFO server"), 1, "asked once: {:?}", old.commands());
        watch.service(SERVICE, |state| state.switch_to(&new.addr()));
        refresh(&sentinel);
        for kind in KINDS {
            interrupted(&client, &format!("{kind} 17 COUNT 20"), &old.addr());
            // It is reported once; from then on the cursor is like any unknown one.
            assert_eq!(cursor(&client, &format!("{kind} 17")), 0);
        }
        interrupted(&client, "SCAN 17 MATCH a*", &old.addr());
        interrupted(&client, "SCAN 17 MATCH b*", &old.addr());
        assert_eq!(cursor(&client, "SCAN 99"), 0, "nothing is known of it");
        assert_eq!((new.count("INFO server"), new.count("SCAN 17 MATCH a*")), (1, 0));
    }
}

#[test]
fn a_scan_that_goes_on_leaves_no_cursor_behind() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    answers(&old, "17");
    assert_eq!(cursor(&client, "SCAN 0"), 17);
    answers(&old, "23");
    assert_eq!(cursor(&client, "SCAN 17"), 23);
    answers(&old, "0");
    assert_eq!(cursor(&client, "SCAN 23"), 0);
    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    refresh(&sentinel);
    answers(&new, "5");
    // The scan is over: what comes now belongs to another one.
    assert_eq!((cursor(&client, "SCAN 17"), cursor(&client, "SCAN 23")), (5, 5));
}

/// As many cursors are kept as rule 15 says; nothing is known of dropped ones.
#[test]
fn four_thousand_and_ninety_six_cursors_are_kept() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    answers(&old, "17");
    answers(&new, "0");
    for n in 0..=4096 {
        assert_eq!(cursor(&client, &format!("SCAN 0 MATCH {n}")), 17);
    }
    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    refresh(&sentinel);
    assert_eq!(cursor(&client, "SCAN 17 MATCH 0"), 0, "the oldest had to go");
    interrupted(&client, "SCAN 17 MATCH 1", &old.addr());
    interrupted(&client, "SCAN 17 MATCH 4096", &old.addr());
}

#[test]
fn in_lists_and_in_what_is_submitted() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    let queue = completions::queue(8);
    let submit = |lines: &[&str], flags: u32| {
        let flags = CallFlags::from_bits(flags).expect("known");
        client.cmds_submit(&list(lines), flags, Timeout::Default, &queue, 1).expect("taken");
        completions::one(&queue).1
    };
    answers(&old, "17");
    answers(&new, "0");
    // The INFO that identifies the server leaves no trace in the replies.
    let of_list = run(&client, &["ECHO a", "SCAN 0", "HSCAN h 0", "ECHO b"]).expect("a list");
    assert_eq!(json(&of_list), r#"["a",["17",[]],["17",[]],"b"]"#);
    assert_eq!(json(&submit(&["SSCAN s 0"], CallFlags::EACH).expect("a call")), r#"["17",[]]"#);
    assert_eq!(json(&submit(&["ZSCAN z 0", "ECHO c"], 0).expect("a list")), r#"[["17",[]],"c"]"#);
    assert_eq!(json(&submit(&["SET k v", "HSCAN i 0"], 0).expect("a list")), r#"["OK",["17",[]]]"#);
    assert_eq!(old.count("INFO server"), 2, "once for each connection: what is submitted has its own");
    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    refresh(&sentinel);
    // However a cursor came, and however it is used.
    fails(Status::ScanInterrupted, submit(&["SCAN 17"], CallFlags::EACH));
    fails(Status::ScanInterrupted, submit(&["ECHO a", "HSCAN h 17"], 0));
    fails(Status::ScanInterrupted, run(&client, &["SET k w", "SSCAN s 17"]));
    interrupted(&client, "ZSCAN z 17", &old.addr());
    interrupted(&client, "HSCAN i 17", &old.addr());
    assert_eq!(new.count("SET"), 0, "a list with such a cursor is not begun");
    assert_eq!(json(&run(&client, &["SCAN 0", "SSCAN s 17"]).expect("unknown now")), r#"[["0",[]],["0",[]]]"#);
}

/// The same address, but another server: its cursors mean something else.
#[test]
fn a_server_that_was_started_anew_is_another_one() {
    for info in [true, false] {
        let d = Deployment::new("started-anew").replicas(0).sentinels(0).start();
        let node = d.node("mymaster-0");
        let watch = told(&node.addr(), &[]);
        let client = to_primary(&handle(&watch, &[]), &[]);
        let fill = || {
            // The connection numbers that follow are higher than those after a start.
            (0..60).for_each(|n| _ = node.cmd(&["SET", &format!("key-{n}"), "v"]));
            if !info {
                assert!(node.cmd(&["ACL", "SETUSER", "default", "-info"]).is_ok());
            }
        };
        fill();
        let at = cursor(&client, "SCAN 0 COUNT 10");
        let other = cursor(&client, "SCAN 0 MATCH key* COUNT 20");
        assert!(at != 0 && other != 0);
        // Another connection to the same server is not another server.
        let next = cursor(&client, &format!("SCAN {at} COUNT 10"));
        client.disconnect().expect("an open client");
        let after = cursor(&client, &format!("SCAN {next} COUNT 10"));
        assert!(next != 0 && after != 0);
        node.restart();
        // Without INFO the connection numbers show the restart; with INFO they need not.
        let connections = if info { 200 } else { 5 };
        (0..connections).for_each(|n| _ = node.cmd(&["SET", &format!("key-{}", n % 5), "v"]));
        if !info {
            assert!(node.cmd(&["ACL", "SETUSER", "default", "-info"]).is_ok());
        }
        interrupted(&client, &format!("SCAN {after} COUNT 10"), &node.addr());
        interrupted(&client, &format!("SCAN {other} MATCH key*"), &node.addr());
        assert_eq!(cursor(&client, "SCAN 0 COUNT 100"), 0, "from the beginning");
    }
}

#[test]
fn a_replica_client_goes_on_where_the_cursor_came_from() {
    let primary = Scripted::primary();
    let replicas = [Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr())];
    let watch = told(&primary.addr(), &replicas.each_ref().map(|node| node.addr()));
    let sentinel = handle(&watch, &[]);
    let readers = to_replicas(&sentinel, &[]);
    answers(&replicas[0], "17");
    answers(&replicas[1], "23");
    let first = cursor(&readers, "SCAN 0");
    let (own, other) = if first == 17 { (0, 1) } else { (1, 0) };
    let flags = |at: usize, flags: &str| {
        watch.service(SERVICE, |state| state.replicas[at].flags = flags.into());
        refresh(&sentinel);
    };
    // Its replica is unfit: new scans start on the other one.
    flags(own, "s_down,slave");
    let second = cursor(&readers, "SCAN 0");
    assert_ne!(second, first);
    // Fit again: each continues where it was.
    flags(own, "slave");
    assert_eq!(cursor(&readers, &format!("SCAN {first}")), first);
    assert_eq!(cursor(&readers, &format!("SCAN {second}")), second);
    let counts = || replicas.each_ref().map(|node| node.count("SCAN"));
    assert_eq!(counts(), [2, 2]);
    // Cursors of different nodes cannot be in one list; neither is lost by that.
    fails(Status::ScanInterrupted, run(&readers, &[&format!("SCAN {first}"), &format!("SCAN {second}")]));
    assert_eq!((cursor(&readers, &format!("SCAN {first}")), counts()[own]), (first, 3));
    let (first, second) = (cursor(&readers, "HSCAN h 0"), cursor(&readers, "SSCAN s 0"));
    assert_eq!((first, second), (if other == 0 { 17 } else { 23 }, if other == 0 { 17 } else { 23 }), "the last pin");
    flags(other, "s_down,slave");
    interrupted(&readers, &format!("HSCAN h {first}"), &replicas[other].addr());
    interrupted(&readers, &format!("SSCAN s {second}"), &replicas[other].addr());
    assert_eq!(primary.count("SCAN") + primary.count("HSCAN"), 0);
}

#[test]
fn many_scans_at_a_time_find_all_there_is() {
    let d = single("many-scans");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    for n in 0..500 {
        ok(&client, &format!("SET key-{n} v"));
    }
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for turn in 0..5 {
                    let (mut at, mut keys) = (0, 0);
                    loop {
                        let line = format!("SCAN {at} MATCH key-* COUNT {}", 10 + thread + turn);
                        let reply = cmd(client, &line).unwrap_or_else(|error| panic!("{line}: {error}"));
                        keys += reply.child(0, 1).map_or(0, |id| reply.count(id));
                        at = reply.child(0, 0).and_then(|id| reply.int(id)).expect("a cursor");
                        if at == 0 {
                            break;
                        }
                    }
                    assert_eq!(keys, 500);
                }
            });
        }
    });
}

/// A scan changes nothing: its failure is retryable, whatever was sent.
#[test]
fn a_failed_scan_never_asks_whether_it_ran() {
    let primary = Scripted::primary();
    let replica = Scripted::replica(&primary.addr());
    let watch = told(&primary.addr(), &[replica.addr()]);
    let sentinel = handle(&watch, &[]);
    let queue = completions::queue(8);
    for (target, node) in [(Target::Replica, &replica), (Target::Primary, &primary)] {
        let client = open(&sentinel, target, &[]);
        answers(node, "17");
        assert_eq!(cursor(&client, "SCAN 0"), 17);
        let flagged = |what: &str, error: &vigie::error::Error| {
            let good = error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED);
            assert!(good, "{what} of {target:?}: {:?} {} {error}", error.status(), error.flags());
        };
        node.fault_times("SCAN 17", 1, Fault::Close);
        flagged("closed", &fails(Status::Io, cmd(&client, "SCAN 17")));
        assert_eq!(cursor(&client, "SCAN 17"), 17, "the same call, and it goes on");
        node.fault_times("SCAN 17", 1, Fault::Close);
        flagged("a list", &fails(Status::Io, run(&client, &["ECHO a", "SCAN 17"])));
        node.fault_times("SCAN 17", 1, Fault::Close);
        let each = CallFlags::from_bits(CallFlags::EACH).expect("known");
        client.cmds_submit(&list(&["SCAN 17"]), each, Timeout::Default, &queue, 1).expect("taken");
        flagged("submitted", &fails(Status::Io, completions::one(&queue).1));
        node.fault_times("SCAN 17", 1, Fault::Stall);
        flagged("stalled", &fails(Status::Timeout, within(&client, "SCAN 17", 60)));
    }
    // Its node is gone: the next call says so.
    let readers = to_replicas(&sentinel, &[]);
    assert_eq!(cursor(&readers, "SCAN 0"), 17);
    replica.down();
    watch.service(SERVICE, |state| state.replicas[0].flags = "s_down,slave".into());
    refresh(&sentinel);
    interrupted(&readers, "SCAN 17", &replica.addr());
}

fn looped(client: &Arc<Client>, line: &str, most_restarts: u32) -> Result<Arc<ScanLoop>, Error> {
    ScanLoop::new(client, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>(), most_restarts).map(Arc::new)
}

/// The elements of the next page; empty at the end.
fn elements(scan: &Arc<ScanLoop>) -> Result<Vec<String>, Error> {
    scan.next(Timeout::Default).map(words)
}

/// The same by submit.
fn submitted(scan: &Arc<ScanLoop>, queue: &Arc<Queue>) -> Result<Vec<String>, Error> {
    scan.next_submit(Timeout::Default, queue, 7)?;
    completed(queue)
}

/// The page that arrives on the queue, which holds nothing else.
fn completed(queue: &Arc<Queue>) -> Result<Vec<String>, Error> {
    let event = completions::drain(queue, 1).remove(0);
    assert_eq!(event.token, 7);
    event.outcome.map(words)
}

fn words(page: Option<vigie::resp::Reply>) -> Vec<String> {
    let word = |page: &vigie::resp::Reply, id| String::from_utf8_lossy(page.bytes(id).unwrap_or_default()).into_owned();
    let words = page.map(|page| page.children(0).map(|id| word(&page, id)).collect::<Vec<_>>());
    assert!(words.as_ref().is_none_or(|words| !words.is_empty()), "a page has elements");
    words.unwrap_or_default()
}

fn gives(node: &FakeNode, line: &str, cursor: &str, elements: &[&str]) {
    let elements = elements.iter().map(|element| Value::bulk(*element)).collect();
    node.fault(line, Fault::Reply(Value::Array(vec![Value::bulk(cursor), Value::Array(elements)])));
}

#[test]
fn the_loop_goes_on_where_it_was_and_never_on_another_node() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    gives(&old, "SCAN 0", "17", &["a"]);
    gives(&old, "SCAN 17", "23", &[]);
    gives(&old, "SCAN 23", "42", &["b", "c"]);
    let [strict, patient] = [("SCAN 0 MATCH x*", 0), ("scan 0 MATCH y*", 1)]
        .map(|(line, most_restarts)| looped(&client, line, most_restarts).expect("a scan"));
    assert_eq!([&strict, &patient].map(|scan| elements(scan).expect("a page")), [["a"], ["a"]]);
    // A page without elements is none, and one whose answer is lost is asked for again.
    old.fault_times("SCAN 23", 1, Fault::Close);
    assert_eq!(elements(&strict).expect("a page"), ["b", "c"]);
    assert!(old.count("SCAN 17") == 1 && old.count("SCAN 23") >= 2, "{:?}", old.commands());
    // After an error of another kind it is where it was.
    fails(Status::Timeout, strict.next(Timeout::DontWait));
    old.fault_times("SCAN 42", 1, Fault::Error("ERR for once".into()));
    fails(Status::Server, strict.next(Timeout::Default));
    old.fault_times("SCAN 42", 1, Fault::Reply(Value::Int(3)));
    fails(Status::Protocol, strict.next(Timeout::Default));
    gives(&old, "SCAN 42", "43", &["d"]);
    assert_eq!(elements(&strict).expect("a page"), ["d"]);
    gives(&old, "SCAN 43", "43", &[]);
    let error = fails(Status::Timeout, strict.next(Timeout::Ms(60)));
    assert!(error.has(flags::RETRYABLE), "{error}");
    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    refresh(&sentinel);
    gives(&new, "SCAN 0", "0", &["e"]);
    for _ in 0..2 {
        let error = fails(Status::ScanInterrupted, strict.next(Timeout::Default));
        assert!(error.message().contains(&old.addr()), "{error}");
    }
    assert_eq!((new.count("SCAN"), strict.restarts()), (0, Some(0)));
    assert_eq!((elements(&patient).expect("a page"), patient.restarts()), (vec!["e".to_owned()], Some(1)));
    assert_eq!([&patient, &patient].map(|scan| elements(scan).expect("the end")), [[""; 0], [""; 0]]);
    assert_eq!((new.count("SCAN"), new.count("SCAN 23")), (1, 0));
    let counted = ["scan_pages", "scans_interrupted", "scan_restarts"].map(|key| counter(&client, key));
    assert_eq!(counted, [5, 2, 1], "pages without elements and answers that were lost are none");
}

#[test]
fn the_loop_by_submit_keeps_to_the_same_rules_and_gives_one_completion_for_a_page() {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    // Room for one completion, though a page may take several commands.
    let queue = completions::queue(1);
    gives(&old, "SCAN 0", "17", &["a"]);
    gives(&old, "SCAN 17", "23", &[]);
    gives(&old, "SCAN 23", "42", &["b", "c"]);
    let [strict, patient] = [("SCAN 0 MATCH x*", 0), ("scan 0 MATCH y*", 1)]
        .map(|(line, most_restarts)| looped(&client, line, most_restarts).expect("a scan"));
    assert_eq!([&strict, &patient].map(|scan| submitted(scan, &queue).expect("a page")), [["a"], ["a"]]);
    old.fault_times("SCAN 23", 1, Fault::Close);
    assert_eq!(submitted(&strict, &queue).expect("a page"), ["b", "c"]);
    assert!(old.count("SCAN 17") == 1 && old.count("SCAN 23") >= 2, "{:?}", old.commands());
    fails(Status::Timeout, strict.next_submit(Timeout::DontWait, &queue, 7));
    old.fault_times("SCAN 42", 1, Fault::Error("ERR for once".into()));
    fails(Status::Server, submitted(&strict, &queue));

    // One page at a time; a cancelled one leaves the scan where it was.
    old.fault("SCAN 42", Fault::Stall);
    let asked = old.count("SCAN 42");
    strict.next_submit(Timeout::Default, &queue, 7).expect("taken");
    fails(Status::InvalidState, strict.next(Timeout::Default));
    fails(Status::InvalidState, strict.next_submit(Timeout::Default, &queue, 8));
    fails(Status::QueueFull, patient.next_submit(Timeout::Default, &queue, 8));
    assert_eq!((strict.restarts(), patient.restarts()), (None, Some(0)));
    eventually("the command is on its way", SOON, || old.count("SCAN 42") > asked);
    assert_eq!((queue.cancel(8), queue.cancel(7)), (0, 1));
    fails(Status::Cancelled, completed(&queue));
    old.clear_faults();
    gives(&old, "SCAN 42", "43", &["d"]);
    assert_eq!(submitted(&strict, &queue).expect("a page"), ["d"]);
    // The server gives nothing, and the time is over.
    gives(&old, "SCAN 43", "43", &[]);
    strict.next_submit(Timeout::Ms(60), &queue, 7).expect("taken");
    let error = fails(Status::Timeout, completed(&queue));
    assert!(error.has(flags::RETRYABLE), "{error}");

    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    refresh(&sentinel);
    gives(&new, "SCAN 0", "0", &["e"]);
    (0..2).for_each(|_| _ = fails(Status::ScanInterrupted, submitted(&strict, &queue)));
    assert_eq!((submitted(&patient, &queue).expect("a page"), patient.restarts()), (vec!["e".to_owned()], Some(1)));
    assert_eq!([&patient, &patient].map(|scan| submitted(scan, &queue).expect("the end")), [[""; 0], [""; 0]]);

    let counted = ["scan_pages", "scans_interrupted", "scan_restarts"].map(|key| counter(&client, key));
    assert_eq!(counted, [5, 2, 1], "as of pages that a thread waits for");

    // A close ends it, in the middle of the empty pages of a server.
    gives(&new, "SCAN 0", "5", &[]);
    gives(&new, "SCAN 5", "5", &[]);
    let endless = looped(&client, "SCAN 0 MATCH z*", 0).expect("a scan");
    endless.next_submit(Timeout::Unlimited, &queue, 7).expect("taken");
    eventually("it goes on", SOON, || new.count("SCAN 5") > 2);
    let _ = client.close(Timeout::Ms(1000));
    fails(Status::Closed, completed(&queue));
    fails(Status::Closed, endless.next_submit(Timeout::Default, &queue, 7));
}

#[test]
fn the_loop_runs_on_what_has_cursors_and_on_no_session() {
    let primary = Scripted::primary();
    let client = to_primary(&handle(&told(&primary.addr(), &[]), &[]), &[]);
    for line in ["GET k", "SCAN", "SCAN 5", "HSCAN h", "HSCAN h 1", "BF.SCANDUMP k 0", ""] {
        fails(Status::InvalidArg, looped(&client, line, 0).map(drop));
    }
    let session = client.session(None).expect("a session");
    fails(Status::InvalidState, looped(&session, "SCAN 0", 0).map(drop));
    assert!(KINDS.iter().all(|kind| looped(&client, &format!("{kind} 0 COUNT 5"), 0).is_ok()));
    client.close(Timeout::Ms(1000)).expect("nothing runs");
    fails(Status::Closed, looped(&client, "SCAN 0", 0).map(drop));
}

#[test]
fn scenario_65_a_scan_ends_or_begins_anew_at_a_failover() {
    let d = Deployment::new("scan-loop").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    let mut lines = Vec::new();
    // More fields than a hash gives on one page.
    for n in 0..600 {
        lines.extend([
            format!("SET key-{n} v"),
            format!("HSET h f{n} v"),
            format!("SADD s m{n}"),
            format!("ZADD z {n} m{n}"),
        ]);
    }
    run(&client, &lines.iter().map(String::as_str).collect::<Vec<_>>()).expect("written");
    call(&client, "SET last v", (2 & 0xFF) << 24, Timeout::Default).expect("both replicas have all");
    let queue = completions::queue(1);
    let rest = |scan: &Arc<ScanLoop>| {
        let mut found = std::collections::BTreeSet::new();
        loop {
            match submitted(scan, &queue).unwrap_or_else(|error| panic!("{:?} {error}", error.status())) {
                page if page.is_empty() => return found,
                page => found.extend(page),
            }
        }
    };
    let whole = |line: &str, most| looped(&client, line, most).expect("a scan");
    assert_eq!(rest(&whole("SCAN 0 MATCH key-* COUNT 20", 0)).len(), 600);
    let pairs =
        ["HSCAN h 0 COUNT 20", "SSCAN s 0 COUNT 20", "ZSCAN z 0 COUNT 20"].map(|line| rest(&whole(line, 0)).len());
    assert_eq!(pairs, [601, 600, 1200], "fields with one value; members; members and scores");
    let begun = ["SCAN 0 MATCH key-* COUNT 20", "HSCAN h 0 COUNT 20"].map(|line| [0, 5].map(|most| whole(line, most)));
    begun.iter().flatten().for_each(|scan| assert!(!elements(scan).expect("a first page").is_empty()));
    let old = d.failover(SERVICE);
    let new = d.wait_switched(SERVICE, &old);
    eventually("the client is there", SOON, || client.topology().is_ok() && ok(&client, "SET moved v") == "OK");
    assert_eq!(new.cmd(&["GET", "moved"]).text(), "v");
    for [strict, patient] in &begun {
        fails(Status::ScanInterrupted, submitted(strict, &queue));
        fails(Status::ScanInterrupted, strict.next(Timeout::Default));
        let found = rest(patient).len();
        assert!([600, 601].contains(&found) && patient.restarts() == Some(1), "{found} {:?}", patient.restarts());
    }
}
