//! Submitted calls: exactly one completion each, their order, credits, deadlines and cancellation; the same rules of
//! retry and failover as for blocking calls; and both ways in which completions come.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use completions::*;
use stage::{SOON, stage};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::{Event, Queue};
use vigie::resp::Kind;
use vigie::sys::poll::{PollFd, wait};
use vigie::time::Deadline;

fn submit_with(
    client: &Client,
    lines: &[&str],
    flags: u32,
    timeout: Timeout,
    queue: &Arc<Queue>,
    token: u64,
) -> Result<()> {
    client.cmds_submit(&list(lines), CallFlags::from_bits(flags).expect("known flags"), timeout, queue, token)
}

#[track_caller]
fn submit(client: &Client, lines: &[&str], queue: &Arc<Queue>, token: u64) {
    submit_with(client, lines, EACH, Timeout::Default, queue, token).expect("taken");
}

fn nothing_more(queue: &Queue) {
    let mut events = Vec::new();
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(30)), &mut events, 9), 0, "{events:?}");
}

fn blocked(primary: &Node) -> usize {
    primary.info("clients")["blocked_clients"].parse().expect("a number")
}

/// Rule 23: calls start in the order of submission; replies come in that order, each with its token.
#[test]
fn rule_23_ten_thousand_calls_complete_once_each_and_in_order() {
    let d = single("submit-order");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let queue = queue(256);
    let (mut sent, mut seen) = (0u64, 0u64);
    while seen < 10_000 {
        let room = (256 - (sent - seen)).min(10_000 - sent);
        if room > 0 {
            let lines = vec!["INCR n"; room as usize];
            submit(&client, &lines, &queue, sent);
            sent += room;
        }
        let mut events = Vec::new();
        queue.drain(Deadline::after(SOON), &mut events, 256);
        for event in &events {
            assert_eq!((event.token, said(event)), (seen, (seen + 1).to_string()));
            seen += 1;
        }
        assert!(!events.is_empty(), "stuck after {seen}");
    }
    nothing_more(&queue);
    assert_eq!(number(&client, "INCR n"), 10_001);
}

#[test]
fn a_list_completes_as_one_array_and_each_command_alone_with_its_own_error() {
    let d = single("submit-forms");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let queue = queue(16);
    let lines = ["SET k v", "INCR k", "GET k"];
    submit_with(&client, &lines, 0, Timeout::Default, &queue, 7).expect("taken");
    let (token, reply) = one(&queue);
    let reply = reply.expect("a list is no error");
    assert_eq!((token, reply.kind(0), reply.count(0)), (7, Kind::Array, 3));
    assert_eq!((reply.kind(2), reply.bytes(3)), (Kind::Error, Some(&b"v"[..])));
    submit(&client, &lines, &queue, u64::MAX);
    let events = drain(&queue, 3);
    let tokens: Vec<u64> = events.iter().map(|event| event.token).collect();
    assert_eq!(tokens, [u64::MAX, 0, 1], "token + i, wrapping");
    assert_eq!((said(&events[0]).as_str(), said(&events[2]).as_str()), ("OK", "v"));
    let error = events[1].outcome.as_ref().expect_err("INCR of a text");
    assert_eq!((error.status(), error.endpoint()), (Status::Server, d.primary(SERVICE).as_str()));
    // The same form of vigie_cmds_exec().
    let each = CallFlags::from_bits(EACH).expect("a known flag");
    assert_eq!(text(&client.cmds_exec(&list(&["GET k"]), each, Timeout::Default).expect("one command")), "v");
    fails(Status::Server, client.cmds_exec(&list(&["INCR k"]), each, Timeout::Default));
    fails(Status::InvalidArg, client.cmds_exec(&list(&["GET k", "GET k"]), each, Timeout::Default));
    fails(Status::InvalidArg, client.cmd_exec(&[b"GET", b"k"], each, Timeout::Default));
}

#[test]
fn what_is_refused_is_refused_whole_and_has_no_completion() {
    let d = single("submit-refused");
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    let queue = queue(8);
    let refused = |lines: &[&str], timeout| submit_with(&client, lines, EACH, timeout, &queue, 1);
    fails(Status::QueueFull, refused(&["INCR n"; 9], Timeout::Default));
    let error = fails(Status::Unsupported, refused(&["INCR n", "SELECT 1"], Timeout::Default));
    assert!(error.message().starts_with("command 2 of the list: SELECT"), "{error}");
    assert_eq!(fails(Status::Timeout, refused(&["INCR n"], Timeout::DontWait)).flags(), 0, "the same call fails again");
    fails(Status::InvalidArg, refused(&[], Timeout::Default));
    fails(
        Status::InvalidArg,
        client.cmds_submit(b"*1\r\n$4\r\nPIN", CallFlags::default(), Timeout::Default, &queue, 1),
    );
    fails(Status::ReadOnly, submit_with(&to_replicas(&sentinel, &[]), &["INCR n"], EACH, Timeout::Default, &queue, 1));
    let session = client.session(None).expect("a session");
    fails(Status::Unsupported, submit_with(&session, &["INCR n", "MONITOR"], EACH, Timeout::Default, &queue, 1));
    nothing_more(&queue);
    // Released room is available: the capacity is as before.
    submit(&client, &["INCR n"; 8], &queue, 1);
    fails(Status::QueueFull, refused(&["INCR n"], Timeout::Default));
    let events = drain(&queue, 8);
    assert_eq!(said(&events[7]), "8", "nothing of what was refused has run");
    submit(&client, &["GET n"], &queue, 2);
    assert_eq!(said(&drain(&queue, 1)[0]), "8");
}

#[test]
fn a_queue_holds_so_many_bytes_and_no_more() {
    let d = single("submit-bytes");
    let client = to_primary(&sentinel_of(&d, &[]), &[("submit.max_bytes", "100000")]);
    let queue = queue(1000);
    let big = format!("SET k {}", "x".repeat(60_000));
    submit(&client, &[&big], &queue, 1);
    // The reply of a SET is small: when it is drained, the room is free again.
    let full = || submit_with(&client, &[&big], EACH, Timeout::Default, &queue, 2);
    eventually("the first one is over", SOON, || full().is_ok());
    drain(&queue, 2);
    submit(&client, &["GET k"], &queue, 3);
    eventually("an undrained reply counts", SOON, || {
        let outcome = submit_with(&client, &["GET k"], EACH, Timeout::Default, &queue, 4);
        outcome.is_err_and(|error| error.status() == Status::QueueFull && error.message().contains("bytes"))
    });
    let mut events = Vec::new();
    while queue.drain(Deadline::after(Duration::from_millis(50)), &mut events, 1000) > 0 {}
    // With nothing outstanding any size is accepted.
    let huge = format!("SET k {}", "x".repeat(300_000));
    submit(&client, &[&huge], &queue, 5);
    assert_eq!(said(&drain(&queue, 1)[0]), "OK");
}

/// Rule 31 and the pipe: without a drain a thread of the library reads, and the descriptor becomes readable.
#[test]
fn rule_31_a_worker_reads_while_nobody_drains() {
    let d = single("submit-fd");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let queue = queue(64);
    let fd = queue.fd();
    for round in 0..200u64 {
        submit(&client, &["INCR n", "GET n"], &queue, round * 2);
        let (mut events, end) = (Vec::new(), Instant::now() + SOON);
        while events.len() < 2 {
            let mut fds = [PollFd::new(fd, true, false)];
            wait(&mut fds, Some(end.saturating_duration_since(Instant::now()))).expect("poll");
            assert!(fds[0].readable(), "round {round}: the descriptor never became readable");
            while queue.drain(Deadline::after(Duration::ZERO), &mut events, 64) == 64 {}
        }
        assert_eq!((events[0].token, said(&events[1])), (round * 2, (round + 1).to_string()));
    }
    let mut fds = [PollFd::new(fd, true, false)];
    assert_eq!(wait(&mut fds, Some(Duration::ZERO)).expect("poll"), 0, "drained: nothing to see");
}

#[test]
fn many_threads_submit_and_drain_and_nothing_is_lost_or_doubled() {
    let d = single("submit-crowd");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let queue = queue(512);
    let (total, seen, over) = (20_000u64, AtomicU64::new(0), AtomicBool::new(false));
    let sums: Vec<u64> = std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (client, queue) = (&client, &queue);
            scope.spawn(move || {
                for i in 0..total / 4 {
                    while let Err(error) =
                        submit_with(client, &["INCR n"], EACH, Timeout::Default, queue, thread << 32 | i)
                    {
                        assert_eq!(error.status(), Status::QueueFull, "{error}");
                        std::thread::yield_now();
                    }
                }
            });
        }
        let drains: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = 0;
                    while !over.load(Ordering::Acquire) {
                        let mut events = Vec::new();
                        queue.drain(Deadline::after(SOON), &mut events, 64);
                        for event in &events {
                            sum +=
                                event.outcome.as_ref().ok().and_then(|r| r.as_ref()?.int(0)).expect("a number") as u64;
                        }
                        let all = seen.fetch_add(events.len() as u64, Ordering::AcqRel) + events.len() as u64;
                        if all == total && !over.swap(true, Ordering::AcqRel) {
                            queue.wakeup();
                        }
                    }
                    sum
                })
            })
            .collect();
        drains.into_iter().map(|drain| drain.join().expect("no panic")).collect()
    });
    assert_eq!(sums.iter().sum::<u64>(), total * (total + 1) / 2, "each number came once");
}

#[test]
fn a_deadline_ends_a_call_with_the_truth_and_shifts_no_reply() {
    let s = stage(1, &[("lane.silent", "60000")]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    submit(&client, &["SET k v"], &queue, 0);
    assert_eq!(said(&drain(&queue, 1)[0]), "OK");
    s.p.fault("GET", Fault::Stall);
    let begun = Instant::now();
    submit_with(&client, &["GET k"], EACH, Timeout::Ms(80), &queue, 1).expect("taken");
    submit(&client, &["ECHO after"], &queue, 2);
    let (token, outcome) = one(&queue);
    let error = fails(Status::Timeout, outcome);
    assert!(token == 1 && begun.elapsed() >= Duration::from_millis(79), "{:?}", begun.elapsed());
    assert!(error.message().contains("GET") && error.message().contains("ms"), "{error}");
    s.p.clear_faults();
    assert_eq!(one(&queue).1.map(|reply| text(&reply)).expect("its own reply"), "after");
    // A write that was sent may have been executed.
    s.p.fault("INCR", Fault::Stall);
    submit_with(&client, &["INCR n"], EACH, Timeout::Ms(50), &queue, 3).expect("taken");
    assert!(fails(Status::Timeout, one(&queue).1).has(flags::MAYBE_EXECUTED));
    s.p.clear_faults();
}

#[test]
fn a_deadline_is_kept_when_nobody_drains() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    let fd = queue.fd();
    submit(&client, &["SET k v"], &queue, 0);
    drain(&queue, 1);
    s.p.fault("INCR", Fault::Stall);
    submit_with(&client, &["INCR n"], EACH, Timeout::Ms(60), &queue, 1).expect("taken");
    let mut fds = [PollFd::new(fd, true, false)];
    assert_eq!(wait(&mut fds, Some(SOON)).expect("poll"), 1);
    fails(Status::Timeout, one(&queue).1);
    s.p.clear_faults();
}

#[test]
fn a_cancelled_call_completes_as_cancelled_wherever_it_is() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    submit(&client, &["SET k v"], &queue, 0);
    drain(&queue, 1);
    assert_eq!(queue.cancel(0), 0, "it is over");
    s.p.fault("INCR", Fault::Stall);
    submit(&client, &["INCR n"], &queue, 1);
    s.p.wait_count("INCR", 1, SOON);
    submit(&client, &["ECHO behind"], &queue, 2);
    assert_eq!(queue.cancel(1), 1);
    let (token, outcome) = one(&queue);
    let error = fails(Status::Cancelled, outcome);
    assert!(token == 1 && error.has(flags::MAYBE_EXECUTED), "{error}");
    s.p.clear_faults();
    assert_eq!(one(&queue).1.map(|reply| text(&reply)).expect("not shifted"), "behind");
    // Pending, because writes are fenced.
    s.listened();
    s.begin(0);
    // By the event, or by the flag: a poll may come in between.
    s.told.wait_fence(true, "");
    submit(&client, &["INCR n", "INCR n"], &queue, 3);
    eventually("it is found in the line", SOON, || queue.cancel(4) == 1);
    let (token, outcome) = one(&queue);
    let error = fails(Status::Cancelled, outcome);
    assert!(token == 4 && !error.has(flags::MAYBE_EXECUTED), "{error}");
    s.abort(0, "no-good-slave");
    assert_eq!(
        one(&queue)
            .1
            .and_then(|reply| reply.int(0).ok_or_else(|| Error::new(Status::Internal, "no number")))
            .expect("a number"),
        2
    );
    assert_eq!(seen(&s.p, "INCR n"), 2, "what was cancelled was never sent");
    // A token may be used again.
    submit(&client, &["ECHO again"], &queue, 4);
    assert_eq!(one(&queue).1.map(|reply| text(&reply)).expect("a new call"), "again");
}

/// Rules 7 and 23: fenced writes wait in order, within their deadlines; reads continue.
#[test]
fn rule_7_writes_wait_behind_the_fence_in_order_and_run_on_the_new_primary() {
    let s = stage(3, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(2000);
    submit(&client, &["SET k v"], &queue, 0);
    drain(&queue, 1);
    s.listened();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    submit(&client, &["GET k"], &queue, 1);
    assert_eq!(said(&drain(&queue, 1)[0]), "v", "reads of the primary go on");
    for i in 0..1000 {
        submit(&client, &["INCR n"], &queue, 10 + i);
    }
    submit_with(&client, &["INCR late"], EACH, Timeout::Ms(50), &queue, 5).expect("taken");
    let (token, outcome) = one(&queue);
    assert_eq!((token, fails(Status::Fenced, outcome).has(flags::RETRYABLE)), (5, true));
    nothing_more(&queue);
    s.switch_all();
    let events = drain(&queue, 1000);
    for (i, event) in events.iter().enumerate() {
        assert_eq!((event.token, said(event)), (10 + i as u64, (i + 1).to_string()));
    }
    assert_eq!(seen(&s.p, "INCR n"), 0, "nothing went to the old primary");
}

/// Rules 10 (d) and 23: calls that were refused unexecuted run on the new primary, in the order of submission.
#[test]
fn rule_10_refused_calls_are_repeated_in_order() {
    // On a machine that stalls the switch may come before any refusal was read: then all of them are in doubt.
    assert!((0..5).any(|_| refused_calls_are_repeated()));
}

/// False: none was repeated.
fn refused_calls_are_repeated() -> bool {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(1000);
    submit(&client, &["SET k v"], &queue, 0);
    drain(&queue, 1);
    s.listened();
    s.p.state(|state| state.readonly = true);
    submit(&client, &["INCR n"; 300], &queue, 0);
    eventually("it was refused", SOON, || seen(&s.p, "INCR n") > 0);
    s.switch_all();
    // They run in order; the result of a call that was sent earlier may come a moment later.
    let mut events = drain(&queue, 300);
    events.sort_by_key(|event| event.token);
    let (mut ran, mut doubtful) = (0, 0);
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.token, i as u64);
        match &event.outcome {
            // It was sent once more when its connection was shut down by the switch.
            Err(error) if error.has(flags::MAYBE_EXECUTED) => doubtful += 1,
            _ => {
                ran += 1;
                assert_eq!(said(event), ran.to_string(), "{i}");
            }
        }
    }
    assert_eq!(ran + doubtful, 300, "{ran} ran, {doubtful} may have run");
    if ran == 0 {
        return false;
    }
    let stored = s.r.state(|state| state.data[&b"n"[..]].clone());
    assert_eq!(stored, ran.to_string().into_bytes(), "each ran once, on the new primary");
    // A caller that wants no repetition gets the error.
    s.r.state(|state| state.readonly = true);
    submit_with(&client, &["INCR n"], EACH | CallFlags::NO_RETRY, Timeout::Default, &queue, 9).expect("taken");
    let error = fails(Status::Server, one(&queue).1);
    assert!(error.message().starts_with("READONLY"), "{error}");
    true
}

/// Rules 10 to 12: when the lane ends, each call gets the truth, reads are repeated, and unexecuted calls run in order.
#[test]
fn rule_12_the_death_of_the_lane_is_told_truly() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(4000);
    for round in 0..10u64 {
        s.p.state(|state| state.data.clear());
        submit(&client, &["SET k v"], &queue, 0);
        drain(&queue, 1);
        let skip = 37 * round as u32;
        s.p.fault_after("INCR", skip, Fault::Reset);
        submit(&client, &["INCR n"; 1000], &queue, 0);
        submit(&client, &["GET k"], &queue, 5000);
        let events: BTreeMap<u64, Event> = drain(&queue, 1001).into_iter().map(|event| (event.token, event)).collect();
        assert_eq!(said(&events[&5000]), "v", "a read is repeated");
        let (mut done, mut maybe) = (0, 0);
        for token in 0..1000 {
            match &events[&token].outcome {
                Ok(_) => done += 1,
                Err(error) if error.has(flags::MAYBE_EXECUTED) => maybe += 1,
                Err(error) => panic!("{token}: not executed is repeated within the deadline: {error}"),
            }
        }
        let ran: u64 = s.p.state(|state| {
            let stored =
                state.data.get(&b"n"[..]).map_or("0".into(), |text| String::from_utf8_lossy(text).into_owned());
            stored.parse().expect("a number")
        });
        assert!(done <= ran && ran <= done + maybe, "{done} done, {maybe} maybe, {ran} ran");
        s.p.clear_faults();
    }
}

#[test]
fn a_planned_failover_loses_nothing_and_doubles_nothing() {
    let d = Deployment::new("submit-failover").start();
    let client = to_primary(&sentinel_of(&d, &[("timeout.call", "15000")]), &[]);
    let queue = queue(64);
    let (over, mut tokens, mut acknowledged) = (AtomicBool::new(false), 0u64, Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            d.failover(SERVICE);
            over.store(true, Ordering::Release);
        });
        let (mut open, mut after) = (0, 0);
        while open > 0 || after < 500 {
            while open < 32 && after < 500 {
                submit(&client, &[&format!("RPUSH l {tokens}")], &queue, tokens);
                (tokens, open) = (tokens + 1, open + 1);
                after += usize::from(over.load(Ordering::Acquire));
            }
            let mut events = Vec::new();
            queue.drain(Deadline::after(Duration::from_secs(20)), &mut events, 64);
            assert!(!events.is_empty(), "{open} calls never ended");
            open -= events.len();
            for event in events {
                match event.outcome {
                    Ok(_) => acknowledged.push(event.token.to_string()),
                    Err(error) => assert!(error.has(flags::MAYBE_EXECUTED), "{}: {error}", event.token),
                }
            }
        }
    });
    let reply = cmd(&client, "LRANGE l 0 -1").expect("the list");
    let stored: Vec<String> =
        reply.children(0).filter_map(|id| reply.bytes(id)).map(|b| String::from_utf8_lossy(b).into()).collect();
    let mut sorted: Vec<u64> = stored.iter().map(|text| text.parse().expect("a number")).collect();
    assert!(sorted.is_sorted(), "in the order of submission");
    sorted.dedup();
    assert_eq!(sorted.len(), stored.len(), "nothing is there twice");
    let lost: Vec<_> = acknowledged.iter().filter(|token| !stored.contains(token)).collect();
    assert!(lost.is_empty(), "{} acknowledged writes are lost: {lost:?}", lost.len());
}

#[test]
fn blocking_commands_hold_up_nobody_and_end_with_the_client() {
    let d = single("submit-blocking");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let queue = queue(16);
    submit(&client, &["BLPOP a 0", "BLPOP b 0", "SET k v"], &queue, 0);
    let (token, outcome) = one(&queue);
    assert_eq!((token, text(&outcome.expect("SET"))), (2, "OK".into()));
    let primary = d.primary_node(SERVICE);
    eventually("both block", SOON, || blocked(&primary) == 2);
    ok(&client, "RPUSH b x");
    let (token, outcome) = one(&queue);
    assert_eq!((token, json(&outcome.expect("BLPOP"))), (1, r#"["b","x"]"#.into()));
    // Its connection serves the next one.
    submit(&client, &["BLPOP b 0"], &queue, 3);
    eventually("it blocks", SOON, || blocked(&primary) == 2);
    assert_eq!(queue.cancel(0), 1);
    assert!(fails(Status::Cancelled, one(&queue).1).has(flags::MAYBE_EXECUTED));
    eventually("what was cancelled takes nothing any more", SOON, || blocked(&primary) == 1);
    client.close(Timeout::Ms(5000)).expect("blocking commands end at once");
    let (token, outcome) = one(&queue);
    assert_eq!((token, fails(Status::Closed, outcome).has(flags::RETRYABLE)), (3, false));
}

#[test]
fn rule_17_durable_writes_wait_for_replicas_on_a_lane_of_their_own() {
    let d = Deployment::new("submit-durable").start();
    let sentinel = sentinel_of(&d, &[]);
    let (client, plain) = (to_primary(&sentinel, &[("write.replicas", "all")]), to_primary(&sentinel, &[]));
    let primary = d.primary_node(SERVICE);
    let queue = queue(1000);
    submit(&client, &["INCR n"; 50], &queue, 0);
    for (i, event) in drain(&queue, 50).iter().enumerate() {
        assert_eq!((event.token, said(event)), (i as u64, (i + 1).to_string()));
    }
    assert_eq!(primary.calls("wait"), 50);
    submit_with(&client, &["INCR n", "INCR n"], 0, Timeout::Default, &queue, 1).expect("taken");
    assert_eq!(json(&one(&queue).1.expect("a list")), "[51,52]");
    submit_with(&plain, &["INCR n"], EACH | 9 << 24, Timeout::Ms(400), &queue, 2).expect("taken");
    let error = fails(Status::Replicas, one(&queue).1);
    assert_eq!((error.count(), number(&plain, "INCR n")), (2, 54), "executed, and not repeated");
}

/// Rule 18 for submits: they go straight to their lane while a majority names the primary, and wait like others when
/// none does.
#[test]
fn rule_18_a_submitted_write_waits_for_a_majority_and_not_longer() {
    let s = stage(3, &[("monitor.interval", "100"), ("write.majority_ms", "600")]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    for round in 0..20 {
        submit(&client, &["INCR n"], &queue, round);
        assert_eq!(said(&drain(&queue, 1)[0]), (round + 1).to_string());
    }
    s.watch[..2].iter().for_each(|one| one.down());
    eventually("writes are held back", SOON, || {
        within(&client, "INCR m", 20).is_err_and(|error| error.status() == Status::Fenced)
    });
    submit_with(&client, &["INCR n"], EACH, Timeout::Ms(100), &queue, 30).expect("taken");
    let error = fails(Status::Fenced, one(&queue).1);
    assert!(error.message().contains("majority") && !error.has(flags::MAYBE_EXECUTED), "{error}");
    submit(&client, &["GET n"], &queue, 31);
    assert_eq!(said(&drain(&queue, 1)[0]), "20", "reads go on");
    submit(&client, &["INCR n"], &queue, 32);
    s.watch[0].up();
    assert_eq!(said(&drain(&queue, 1)[0]), "21", "two of three are a majority again");
}

#[test]
fn reads_go_to_the_replicas_and_to_the_next_one_when_one_stalls() {
    let primary = Scripted::primary();
    let replicas = [Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr())];
    let addrs: Vec<String> = replicas.iter().map(|replica| replica.addr()).collect();
    let sentinel = told(&primary.addr(), &addrs);
    let client = open(&handle(&sentinel, &[]), Target::Split, &[]);
    let queue = queue(1000);
    submit(&client, &["SET k v"], &queue, 0);
    assert_eq!(said(&drain(&queue, 1)[0]), "OK");
    for replica in &replicas {
        replica.state(|state| state.data.insert(b"k".to_vec(), b"r".to_vec()));
    }
    // The call whose connection is ready first may take more of those that come before the other one.
    eventually("both are connected", SOON, || {
        submit(&client, &["GET k"; 2], &queue, 0);
        drain(&queue, 2);
        replicas.iter().all(|replica| seen(replica, "GET k") > 0)
    });
    replicas.iter().for_each(|replica| replica.clear_log());
    submit(&client, &["GET k"; 100], &queue, 0);
    assert!(drain(&queue, 100).iter().all(|event| said(event) == "r"));
    assert!(replicas.iter().all(|replica| seen(replica, "GET k") >= 40), "both take their turns");
    assert_eq!(seen(&primary, "GET k"), 0);
    replicas[0].fault("GET", Fault::Stall);
    submit_with(&client, &["GET k"; 10], EACH, Timeout::Ms(3000), &queue, 0).expect("taken");
    assert!(drain(&queue, 10).iter().all(|event| said(event) == "r"), "the next replica answers inside the deadline");
    submit_with(&client, &["GET k"], EACH | CallFlags::ON_PRIMARY, Timeout::Default, &queue, 1).expect("taken");
    assert_eq!(said(&drain(&queue, 1)[0]), "v");
    replicas[0].clear_faults();
}

#[test]
fn a_close_ends_all_and_a_freed_client_finishes_what_it_took() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(1000);
    submit(&client, &["SET k v"], &queue, 0);
    drain(&queue, 1);
    submit(&client, &["ECHO last"], &queue, 1);
    drop(client);
    assert_eq!(said(&drain(&queue, 1)[0]), "last");
    let client = to_primary(&s.sentinel, &[]);
    s.p.fault("INCR", Fault::Stall);
    submit(&client, &["INCR n"; 100], &queue, 0);
    s.p.wait_count("INCR", 1, SOON);
    let close = || client.close(Timeout::Ms(100));
    fails(Status::Timeout, takes_at_most("a close within 100 ms", Duration::from_millis(200), close));
    let events = drain(&queue, 100);
    assert!(events.iter().all(|event| event.outcome.as_ref().is_err_and(|error| error.status() == Status::Closed)));
    fails(Status::Closed, submit_with(&client, &["INCR n"], EACH, Timeout::Default, &queue, 1));
    s.p.clear_faults();
}

#[test]
fn a_pool_without_a_place_shares_the_first_lane() {
    let d = single("submit-shared");
    let client = to_primary(&sentinel_of(&d, &[]), &[("pool.max", "2")]);
    let session = client.session(None).expect("a session");
    ok(&session, "SELECT 1");
    ok(&client, "SET k v");
    let queue = queue(1000);
    for round in 0..20 {
        submit(&client, &["GET k"; 50], &queue, round * 50);
        assert_eq!(ok(&client, "GET k"), "v", "a caller beside them");
        assert!(drain(&queue, 50).iter().all(|event| said(event) == "v"));
    }
    assert_eq!(primary_pool(&client).get("size"), 2);
}

#[test]
fn threads_and_descriptors_go_home() {
    alone(concat!(module_path!(), "::threads_and_descriptors_go_home"), || {
        let d = single("submit-home");
        let start = held();
        for round in 0..5 {
            let client = to_primary(&sentinel_of(&d, &[]), &[]);
            let queue = queue(256);
            if round % 2 == 0 {
                queue.fd();
            }
            submit(&client, &["INCR n"; 200], &queue, 0);
            drain(&queue, 200);
            client.close(Timeout::Ms(5000)).expect("nothing runs");
        }
        back_to(start);
    });
}

#[test]
fn a_queue_that_lives_on_holds_no_connection_of_a_client_that_is_gone() {
    alone(concat!(module_path!(), "::a_queue_that_lives_on_holds_no_connection_of_a_client_that_is_gone"), || {
        let sockets = || {
            let links = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
            let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
        };
        let d = single("submit-gone");
        let (start, queue) = (sockets(), queue(256));
        let client = to_primary(&sentinel_of(&d, &[]), &[]);
        submit(&client, &["INCR n"; 100], &queue, 0);
        drain(&queue, 100);
        assert!(sockets() > start);
        drop(client);
        eventually("all connections are closed", SOON, || {
            queue.drain(Deadline::after(Duration::ZERO), &mut Vec::new(), 1);
            sockets() == start
        });
    });
}

#[test]
fn submitted_calls_are_counted_once() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    submit(&client, &["INCR n"; 10], &queue, 0);
    drain(&queue, 10);
    submit_with(&client, &["INCR n"; 3], 0, Timeout::Default, &queue, 0).expect("taken");
    drain(&queue, 1);
    assert_eq!(counter(&client, "calls"), 11);
}

/// As for a blocking call: a stalled replica must leave time for the others, and a slow one needs its time.
#[test]
fn a_slow_read_has_the_whole_time_on_one_replica() {
    let primary = Scripted::primary();
    let replicas = [Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr())];
    let addrs: Vec<String> = replicas.iter().map(|replica| replica.addr()).collect();
    let sentinel = told(&primary.addr(), &addrs);
    let client = open(&handle(&sentinel, &[]), Target::Replica, &[]);
    let queue = queue(16);
    replicas.iter().for_each(|replica| replica.fault("GET", Fault::Delay(Duration::from_millis(900))));
    for sent in 1..=3 {
        submit_with(&client, &["GET k"], EACH | CallFlags::SLOW, Timeout::Ms(2000), &queue, 0).expect("taken");
        one(&queue).1.expect("a reply");
        assert_eq!(replicas.iter().map(|replica| seen(replica, "GET k")).sum::<usize>(), sent);
    }
}

#[test]
fn a_close_that_comes_with_the_last_completion_finds_no_call_running() {
    let stage = stage(1, &[]);
    let queue = Queue::create(16).expect("a queue");
    let mut late = Vec::new();
    for round in 0..300 {
        let client = to_primary(&stage.sentinel, &[]);
        let mut ready = [PollFd::new(queue.fd(), true, false)];
        submit(&client, &["SET k v"], &queue, round);
        assert_eq!(wait(&mut ready, Some(SOON)).expect("a poll"), 1);
        let mut events = Vec::new();
        queue.drain(Deadline::after(SOON), &mut events, 1);
        assert_eq!((events.len(), events[0].token), (1, round));
        late.extend(client.close(Timeout::from_ms(0)).err());
    }
    // A close gives the thread of such a call 100 ms. A loaded machine may let a thread wait for longer, but not again and again.
    assert!(late.len() <= 2, "its outcome was here, {} times of 300: {late:?}", late.len());
}
