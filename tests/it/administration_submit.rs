//! Sentinel administration by submit (rows 83 to 91): the same outcomes without a thread that waits, and what ends a command early.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::{SERVICE, fails, json, sentinel_at, sentinel_of, single, text};
use completions::{drain, one, queue};
use support::*;
use vigie::client::{Timeout, close_all};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::{Event, Queue};
use vigie::resp::Reply;
use vigie::time::Deadline;
use vigie::topology::{Sentinel, To};

const SOON: Duration = Duration::from_secs(20);

fn submit(sentinel: &Arc<Sentinel>, line: &str, to: To<'_>, queue: &Arc<Queue>, token: u64) -> Result<()> {
    submit_within(sentinel, line, to, Deadline::after(SOON), queue, token)
}

fn submit_within(
    sentinel: &Arc<Sentinel>,
    line: &str,
    to: To<'_>,
    deadline: Deadline,
    queue: &Arc<Queue>,
    token: u64,
) -> Result<()> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    sentinel.submit(&words, to, true, deadline, queue, token)
}

/// What a command gives that a thread waits for, and one that was submitted.
fn both(sentinel: &Arc<Sentinel>, line: &str, to: To<'_>, queue: &Arc<Queue>) -> [Result<Reply>; 2] {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let waited = sentinel.exec(&words, to, true, Deadline::after(SOON));
    submit(sentinel, line, to, queue, 7).unwrap_or_else(|error| panic!("{line}: {error}"));
    let (token, submitted) = one(queue);
    assert_eq!(token, 7);
    [waited, submitted]
}

/// The reply, or what an error says to a program.
fn shown(outcome: &Result<Reply>) -> String {
    let of = |error: &Error| {
        let said = error.reply().map(json).unwrap_or_default();
        format!("{:?} {} {} {said}", error.status(), error.server_code(), error.endpoint())
    };
    outcome.as_ref().map_or_else(of, json)
}

#[test]
fn rows_83_to_91_a_submitted_command_gives_what_one_gives_that_is_waited_for() {
    let d = Deployment::new("admin-submit").replicas(1).start();
    let (sentinel, queue) = (sentinel_of(&d, &[]), queue(4));
    let (port, one_of_them) = (d.primary_node(SERVICE).port(), d.sentinel_addrs()[1].clone());
    let at = To::At(&one_of_them);
    for (line, to) in [
        (format!("SENTINELS {SERVICE}-unknown"), To::First),
        (format!("GET-MASTER-ADDR-BY-NAME {SERVICE}"), To::First),
        ("GET-MASTER-ADDR-BY-NAME nobody".into(), To::All),
        (format!("CKQUORUM {SERVICE}"), To::All),
        ("ROLE".into(), To::First),
        ("PING".into(), To::All),
        ("MYID".into(), at),
        ("CONFIG GET resolve-hostnames".into(), To::First),
        ("PENDING-SCRIPTS".into(), at),
        (format!("SET {SERVICE} quorum 2"), To::All),
        (format!("SET {SERVICE} no-such-option 2"), To::All),
        ("REMOVE nobody".into(), at),
        ("NO-SUCH-COMMAND".into(), To::First),
    ] {
        let [waited, submitted] = both(&sentinel, &line, to, &queue);
        assert_eq!(shown(&submitted), shown(&waited), "{line} {to:?}");
    }
    // Several at a time, whose completions come as they end.
    let tokens = [(1, To::First), (2, To::All), (3, at), (4, To::First)];
    tokens.iter().for_each(|(token, to)| submit(&sentinel, "PING", *to, &queue, *token).expect("room for four"));
    let mut told: Vec<u64> = drain(&queue, 4).iter().map(|event| event.token).collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4]);

    submit(&sentinel, &format!("MONITOR more 127.0.0.1 {port} 2"), To::All, &queue, 1).expect("taken");
    assert_eq!(json(&one(&queue).1.expect("all agree")).matches("\"OK\"").count(), 3);
    sentinel.submit_services(true, Deadline::after(SOON), &queue, 2).expect("taken");
    let services = one(&queue).1.expect("they answer");
    let id = services.find(0, SERVICE.as_bytes()).unwrap_or_else(|| panic!("{SERVICE} in {}", json(&services)));
    assert_eq!(services.find(id, b"verified").and_then(|id| services.int(id)), Some(1), "{}", json(&services));
    assert!(services.find(0, b"more").is_some(), "{}", json(&services));
    let old = d.primary_node(SERVICE);
    submit(&sentinel, "REMOVE more", To::All, &queue, 3).expect("taken");
    one(&queue).1.expect("all agree");
    d.wait_ready(SERVICE);
    submit(&sentinel, &format!("FAILOVER {SERVICE}"), To::First, &queue, 4).expect("taken");
    assert_eq!(text(&one(&queue).1.expect("begun")), "OK");
    assert_ne!(d.wait_switched(SERVICE, &old).port(), old.port());
}

#[test]
fn what_is_refused_has_no_completion_and_a_full_queue_takes_no_more() {
    let d = single("admin-submit-full");
    let (sentinel, queue) = (sentinel_of(&d, &[]), queue(1));
    for (line, to, status) in [
        ("RESET *", To::First, Status::InvalidArg),
        ("SENTINEL MASTERS", To::First, Status::InvalidArg),
        ("PING", To::At("h:70000"), Status::InvalidArg),
        ("SUBSCRIBE +sdown", To::First, Status::Unsupported),
    ] {
        fails(status, submit(&sentinel, line, to, &queue, 1));
    }
    fails(Status::Timeout, submit_within(&sentinel, "PING", To::First, Deadline::after(Duration::ZERO), &queue, 1));
    submit(&sentinel, "PING", To::First, &queue, 2).expect("room for one");
    let full = fails(Status::QueueFull, submit(&sentinel, "PING", To::First, &queue, 3));
    assert!(full.has(flags::RETRYABLE), "{full:?}");
    fails(Status::QueueFull, sentinel.submit_services(false, Deadline::after(SOON), &queue, 3));
    assert_eq!(one(&queue).0, 2);
    submit(&sentinel, "PING", To::First, &queue, 4).expect("room again");
    assert_eq!(one(&queue).0, 4);
    let fixed = calls::config(&[("uri", "redis://127.0.0.1:1")]).settings().expect("settings");
    let fixed = Sentinel::create(fixed, None).expect("a lazy handle");
    fails(Status::Unsupported, submit(&fixed, "PING", To::First, &queue, 5));
    fails(Status::Unsupported, fixed.submit_services(false, Deadline::after(SOON), &queue, 5));
    let mut none = Vec::new();
    assert_eq!(queue.drain(Deadline::after(Duration::ZERO), &mut none, 1), 0);
    // A queue that is gone drops the completion, and nothing else suffers.
    submit(&sentinel, "PING", To::First, &queue, 6).expect("taken");
    queue.close();
    drop(queue);
    close_all(&sentinel, Timeout::Ms(20_000)).expect("it ends by itself");
}

/// The errors of completions, by token.
fn errors(events: Vec<Event>) -> Vec<(u64, Status, bool)> {
    let mut told: Vec<_> = events
        .into_iter()
        .map(|event| {
            let error = event.outcome.expect_err("an error");
            (event.token, error.status(), error.has(flags::MAYBE_EXECUTED))
        })
        .collect();
    told.sort_unstable_by_key(|(token, ..)| *token);
    told
}

/// Two Sentinels that know each other, of which the first one does not answer FAILOVER and MASTERS.
fn stalled() -> (FakeNode, Vec<FakeSentinel>, Arc<Sentinel>) {
    let primary = Scripted::primary();
    let watch = Scripted::sentinels(2, SERVICE, &primary.addr());
    ["SENTINEL FAILOVER", "SENTINEL MASTERS"].iter().for_each(|command| watch[0].fault(command, Fault::Stall));
    let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[("timeout.sentinel", "30s")]);
    (primary, watch, sentinel)
}

#[test]
fn a_cancelled_command_ends_at_once_and_says_whether_it_may_have_run() {
    let (_primary, watch, sentinel) = stalled();
    let (queue, addr, fail_over) = (queue(8), watch[0].addr(), format!("FAILOVER {SERVICE}"));
    let at = To::At(&addr);
    submit_within(&sentinel, &fail_over, at, Deadline::never(), &queue, 1).expect("taken");
    submit_within(&sentinel, "MASTERS", at, Deadline::never(), &queue, 2).expect("taken");
    watch[0].wait_count("SENTINEL FAILOVER", 1, SOON);
    watch[0].wait_count("SENTINEL MASTERS", 1, SOON);
    // A third one waits for the two.
    submit_within(&sentinel, &fail_over, at, Deadline::never(), &queue, 3).expect("taken");
    let cancelled: Vec<usize> = (1..=4).map(|token| queue.cancel(token)).collect();
    assert_eq!(cancelled, [1, 1, 1, 0]);
    let told = errors(drain(&queue, 3));
    let cancelled = |token, maybe| (token, Status::Cancelled, maybe);
    assert_eq!(told, [cancelled(1, true), cancelled(2, false), cancelled(3, false)]);
    // The threads are free again, and what waited was not sent.
    watch[0].clear_faults();
    submit(&sentinel, "PING", at, &queue, 5).expect("taken");
    assert_eq!(text(&one(&queue).1.expect("an answer")), "PONG");
    assert_eq!(watch[0].count("SENTINEL FAILOVER"), 1);
}

#[test]
fn a_sentinel_that_hangs_holds_up_no_other_and_what_waits_for_it_ends_in_time() {
    let (_primary, watch, sentinel) = stalled();
    let (queue, addr) = (queue(8), watch[0].addr());
    let at = To::At(&addr);
    for token in [1, 2] {
        submit_within(&sentinel, "MASTERS", at, Deadline::never(), &queue, token).expect("taken");
    }
    watch[0].wait_count("SENTINEL MASTERS", 2, SOON);
    let soon = Deadline::after(Duration::from_millis(50));
    submit_within(&sentinel, &format!("FAILOVER {SERVICE}"), at, soon, &queue, 3).expect("taken");
    let late = one(&queue).1.expect_err("there was no thread for it");
    assert!(late.status() == Status::Timeout && late.has(flags::RETRYABLE) && !late.has(flags::MAYBE_EXECUTED));
    assert!(late.message().starts_with("SENTINEL FAILOVER: not sent") && late.message().contains(" ms)"), "{late}");
    let other = watch[1].addr();
    submit(&sentinel, "PING", To::At(&other), &queue, 4).expect("taken");
    assert_eq!(text(&one(&queue).1.expect("an answer")), "PONG");
    // One that was begun ends at its deadline as well, with what happened.
    let (_primary, watch, sentinel) = stalled();
    let soon = Deadline::after(Duration::from_millis(200));
    let addr = watch[0].addr();
    submit_within(&sentinel, &format!("FAILOVER {SERVICE}"), To::At(&addr), soon, &queue, 5).expect("taken");
    let late = one(&queue).1.expect_err("no answer");
    assert_eq!(late.status(), Status::Timeout, "{late}");
}

#[test]
fn a_close_ends_what_is_under_way_when_its_time_is_over() {
    let (_primary, watch, sentinel) = stalled();
    let (queue, addr) = (queue(8), watch[0].addr());
    for (token, line) in [(1, format!("FAILOVER {SERVICE}")), (2, "MASTERS".into()), (3, "MASTERS".into())] {
        submit_within(&sentinel, &line, To::At(&addr), Deadline::never(), &queue, token).expect("taken");
    }
    watch[0].wait_count("SENTINEL MASTERS", 1, SOON);
    watch[0].wait_count("SENTINEL FAILOVER", 1, SOON);
    let error = fails(Status::Timeout, close_all(&sentinel, Timeout::Ms(1)));
    // The third one never began: it may have ended before those under way are counted.
    assert!(error.message().contains(" submitted commands were running"), "{error}");
    let closed = |token, maybe| (token, Status::Closed, maybe);
    assert_eq!(errors(drain(&queue, 3)), [closed(1, true), closed(2, false), closed(3, false)]);
    fails(Status::Closed, submit(&sentinel, "PING", To::First, &queue, 4));
    close_all(&sentinel, Timeout::Ms(1)).expect("nothing is left");
}
