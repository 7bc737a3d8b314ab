//! Submitted calls that cannot start at once: their deadlines, a close while they wait, their errors, and how many
//! there may be.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use completions::*;
use stage::{SOON, Stage, stage};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Status, flags};
use vigie::queue::Queue;
use vigie::time::Deadline;

const MS: Duration = Duration::from_millis(1);

#[track_caller]
fn submit(client: &Client, lines: &[&str], flags: u32, timeout: Timeout, queue: &Arc<Queue>, token: u64) {
    let flags = CallFlags::from_bits(flags).expect("known flags");
    client.cmds_submit(&list(lines), flags, timeout, queue, token).expect("taken");
}

/// A stage on which writes are held back.
fn fenced() -> Stage {
    let s = stage(3, &[]);
    s.listened();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    s
}

#[test]
fn a_deadline_is_kept_while_a_connection_is_being_opened() {
    let s = stage(1, &[("timeout.connect", "3000")]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    s.p.fault("HELLO", Fault::Stall);
    submit(&client, &["SET k v"], EACH, Timeout::Default, &queue, 0);
    s.p.wait_count("HELLO", 1, SOON);
    let (token, outcome) = takes_at_most("a deadline of 50 ms", 200 * MS, || {
        submit(&client, &["SET k w"], EACH, Timeout::Ms(50), &queue, 1);
        one(&queue)
    });
    let error = fails(Status::Timeout, outcome);
    assert!(token == 1 && error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    submit(&client, &["SET k x"], EACH, Timeout::Default, &queue, 2);
    let token = takes_at_most("the end of a cancelled call", 200 * MS, || {
        assert_eq!(queue.cancel(2), 1);
        one(&queue).0
    });
    assert_eq!(token, 2);
    s.p.clear_faults();
    assert_eq!(said(&drain(&queue, 1)[0]), "OK");
    assert_eq!(seen(&s.p, "SET"), 1);
}

#[test]
fn a_replica_that_takes_no_connection_holds_no_other_reads_up() {
    let primary = Scripted::primary();
    let replicas = [Scripted::replica(&primary.addr()), Scripted::replica(&primary.addr())];
    let addrs: Vec<String> = replicas.iter().map(|replica| replica.addr()).collect();
    let sentinel = told(&primary.addr(), &addrs);
    let client = open(&handle(&sentinel, &[("timeout.connect", "3000")]), Target::Replica, &[]);
    let queue = queue(1000);
    // The first calls find both nodes.
    submit(&client, &["PING"; 4], EACH, Timeout::Default, &queue, 0);
    drain(&queue, 4);
    replicas[0].fault("HELLO", Fault::Stall);
    replicas[0].reset_all();
    let hellos = replicas[0].count("HELLO");
    let (mut token, mut asked) = (1, false);
    while !asked {
        submit(&client, &["GET k"], EACH, Timeout::Default, &queue, token);
        token += 1;
        asked = replicas[0].count("HELLO") > hellos;
        std::thread::sleep(Duration::from_millis(2));
        assert!(token < 900, "no call went to the other replica");
    }
    let (pacing, begun, mut longest) = (Pacing::start(), Instant::now(), Duration::ZERO);
    while begun.elapsed() < 500 * MS {
        let sent = Instant::now();
        submit(&client, &["ECHO x"; 10], EACH, Timeout::Default, &queue, 10_000);
        let mut left = 10;
        while left > 0 {
            let mut events = Vec::new();
            queue.drain(Deadline::after(SOON), &mut events, 1);
            left -= events.iter().filter(|event| event.token >= 10_000).count();
        }
        longest = longest.max(sent.elapsed());
    }
    pacing.stop().judge("ten reads of the other replica", longest, 200 * MS);
    replicas[0].clear_faults();
}

#[test]
fn what_was_submitted_before_a_close_has_the_time_of_the_close() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    s.p.fault("HELLO", Fault::Delay(Duration::from_millis(100)));
    submit(&client, &["SET k v", "GET k"], EACH, Timeout::Default, &queue, 0);
    client.close(Timeout::Ms(10_000)).expect("all have ended");
    let events = drain(&queue, 2);
    assert_eq!((said(&events[0]), said(&events[1])), ("OK".into(), "v".into()));
    // Calls that have not started by then end with CLOSED, at once.
    let s = fenced();
    let client = to_primary(&s.sentinel, &[]);
    submit(&client, &["INCR n"], EACH, Timeout::Unlimited, &queue, 2);
    let other = Arc::clone(&client);
    let waits = spawn(move || call(&other, "INCR n", 0, Timeout::Unlimited));
    eventually("both are inside", SOON, || counter(&client, "calls") >= 2);
    let (closed, took, pace) = paced(|| client.close(Timeout::Ms(150)));
    fails(Status::Timeout, closed);
    assert!(took >= 149 * MS, "{took:?}");
    pace.judge("a close within 150 ms", took, 250 * MS);
    let ends = || [one(&queue).1, join(&waits)];
    for outcome in takes_at_most("the end of those that the fence held", 200 * MS, ends) {
        let error = fails(Status::Closed, outcome);
        assert!(!error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
    }
}

/// Rule 4 during a close: no call goes to a former primary.
#[test]
fn what_waits_while_a_client_is_being_closed_goes_to_the_next_primary() {
    let s = fenced();
    let client = to_primary(&s.sentinel, &[]);
    assert_eq!(cmd(&client, "GET k").map(|reply| json(&reply)).expect("reads go on"), "null");
    let queue = queue(16);
    submit(&client, &["INCR n"], EACH, Timeout::Ms(15_000), &queue, 0);
    let other = Arc::clone(&client);
    let waits = spawn(move || within(&other, "INCR n", 15_000));
    eventually("both are inside", SOON, || counter(&client, "calls") >= 3);
    let other = Arc::clone(&client);
    let close = spawn(move || other.close(Timeout::Ms(15_000)));
    eventually("the close has begun", SOON, || client.stats().is_err());
    s.switch_all();
    join(&close).expect("all have ended");
    let mut numbers = [join(&waits), one(&queue).1].map(|reply| reply.expect("it ran").int(0).expect("a number"));
    numbers.sort_unstable();
    assert_eq!((numbers, seen(&s.p, "INCR n")), ([1, 2], 0), "nothing went to the old primary");
}

#[test]
fn what_may_have_run_is_told_so_when_the_client_is_closed() {
    let s = stage(1, &[("retry.backoff_min", "5000"), ("retry.backoff_max", "5000")]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    submit(&client, &["SET k v"], EACH, Timeout::Default, &queue, 0);
    drain(&queue, 1);
    s.p.fault("INCR", Fault::Lost);
    submit(&client, &["INCR n"], EACH | CallFlags::IDEMPOTENT, Timeout::Unlimited, &queue, 1);
    eventually("it waits for its third attempt", SOON, || seen(&s.p, "INCR n") >= 2);
    let _ = client.close(Timeout::DontWait);
    assert!(fails(Status::Closed, one(&queue).1).has(flags::MAYBE_EXECUTED));
}

#[test]
fn a_list_of_which_a_part_ran_says_so_when_the_client_is_closed() {
    // After a refusal it waits for longer than the test lasts.
    let s = stage(1, &[("retry.backoff_min", "60s"), ("retry.backoff_max", "60s")]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(16);
    s.p.fault("INCR b", Fault::Error("READONLY You can't write against a read only replica.".into()));
    submit(&client, &["INCR a", "INCR b"], 0, Timeout::Unlimited, &queue, 1);
    let is_answered = || pools(&client).iter().all(|pool| pool.get("in_flight") == 0);
    eventually("the rest was refused", SOON, || seen(&s.p, "INCR b") >= 1 && is_answered());
    let _ = client.close(Timeout::DontWait);
    let reply = one(&queue).1.expect("what is known of it");
    assert_eq!((reply.count(0), reply.int(1), seen(&s.p, "INCR a")), (2, Some(1), 1));
    assert!(reply.error_line(2).is_some_and(|line| line.starts_with(b"READONLY")));
}

#[test]
fn retry_max_holds_for_what_was_submitted() {
    let s = stage(1, &[]);
    let queue = queue(16);
    s.p.fault("INCR", Fault::Error("READONLY You can't write against a read only replica.".into()));
    let refused = |max: &str| {
        let client = to_primary(&s.sentinel, &[("retry.max", max)]);
        s.p.clear_log();
        submit(&client, &["INCR n"], EACH, Timeout::Unlimited, &queue, 1);
        assert_eq!(fails(Status::Server, one(&queue).1).server_code(), "READONLY");
        seen(&s.p, "INCR n")
    };
    assert_eq!([refused("1"), refused("3")], [2, 4], "once, and as often again");
}

/// A number is the program's own, and two queues may have the same.
#[test]
fn what_is_cancelled_on_one_queue_goes_on_on_another() {
    // Pending, and in flight.
    for in_line in [true, false] {
        let s = stage(1, &[]);
        let client = to_primary(&s.sentinel, &[]);
        let queues = [queue(4), queue(4)];
        submit(&client, &["SET k v"], EACH, Timeout::Default, &queues[0], 0);
        drain(&queues[0], 1);
        if in_line {
            s.listened();
            s.begin(0);
            s.told.wait_fence(true, "+try-failover");
        } else {
            s.p.fault("INCR", Fault::Stall);
        }
        queues.iter().for_each(|queue| submit(&client, &["INCR n"], EACH, Timeout::Default, queue, 7));
        if !in_line {
            s.p.wait_count("INCR n", 1, SOON);
        }
        // None is found if it is being tried at this moment: it ends all the same.
        assert!(queues[0].cancel(7) <= 1);
        fails(Status::Cancelled, one(&queues[0]).1);
        if in_line {
            s.abort(0, "no-good-slave");
        } else {
            s.p.clear_faults();
        }
        let number = one(&queues[1]).1.expect("nobody cancelled it").int(0);
        assert_eq!(number, Some(if in_line { 1 } else { 2 }));
    }
}

/// Rule 23, if connections are replaced under a call: later calls wait for its end.
#[test]
fn what_follows_a_disconnect_starts_after_what_is_in_flight() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let queue = queue(4);
    submit(&client, &["SET k v"], EACH, Timeout::Default, &queue, 0);
    drain(&queue, 1);
    s.p.fault("INCR", Fault::Stall);
    submit(&client, &["INCR n"], EACH, Timeout::Default, &queue, 1);
    s.p.wait_count("INCR n", 1, SOON);
    client.disconnect().expect("an open client");
    submit(&client, &["GET n"], EACH, Timeout::Default, &queue, 2);
    let begun = Instant::now();
    eventually("time enough to start it", SOON, || begun.elapsed() > Duration::from_millis(100));
    assert_eq!(seen(&s.p, "GET n"), 0, "the first one has not ended");
    s.p.clear_faults();
    let events = drain(&queue, 2);
    assert_eq!((events[0].token, said(&events[0]), said(&events[1])), (1, "1".into(), "1".into()));
}

/// The cost of a pending call does not grow with the number of pending calls.
#[test]
fn a_hundred_thousand_calls_that_waited_run_soon_and_in_order() {
    const CALLS: usize = 100_000;
    let s = fenced();
    let client = to_primary(&s.sentinel, &[("submit.max_bytes", "1000000000")]);
    let queue = queue(CALLS);
    for at in (0..CALLS).step_by(100) {
        submit(&client, &["INCR n"; 100], EACH, Timeout::Unlimited, &queue, at as u64);
    }
    s.switch_all();
    // Thirty seconds are plenty; they were too short when each start examined all pending calls.
    let events = drain(&queue, CALLS);
    for (i, event) in events.iter().enumerate() {
        assert_eq!((event.token, said(event)), (i as u64, (i + 1).to_string()));
    }
}

/// Pending queues are told when there may be something to do: they need not check all the time.
#[test]
fn the_lines_of_many_clients_cost_little_while_they_wait() {
    alone(concat!(module_path!(), "::the_lines_of_many_clients_cost_little_while_they_wait"), || {
        let ticks = || {
            let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
            let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
            [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number")).iter().sum::<u64>()
        };
        let s = fenced();
        let clients: Vec<_> = (0..400).map(|_| to_primary(&s.sentinel, &[])).collect();
        let queue = queue(1000);
        for (at, client) in clients.iter().enumerate() {
            submit(client, &["INCR n"], EACH, Timeout::Unlimited, &queue, at as u64);
        }
        let start = ticks();
        assert_eq!(queue.drain(Deadline::after(Duration::from_secs(1)), &mut Vec::new(), 9), 0);
        let spent = ticks() - start;
        assert!(spent < 60, "{spent} hundredths of a second in one second, for 400 clients");
        s.abort(0, "no-good-slave");
        drain(&queue, 400);
    });
}
