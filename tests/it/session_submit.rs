//! Submitted calls of a session: in call order, on its connection, without a thread that waits.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calls::*;
use completions::{EACH, drain, one, queue, said};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::Queue;
use vigie::resp::Reply;
use vigie::time::Deadline;

const ATOMIC: u32 = CallFlags::ATOMIC;
const SOON: Duration = Duration::from_secs(20);

fn session(client: &Arc<Client>) -> Arc<Client> {
    client.session(None).expect("a session")
}

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
fn submit(client: &Client, lines: &[&str], flags: u32, queue: &Arc<Queue>, token: u64) {
    submit_with(client, lines, flags, Timeout::Default, queue, token).expect("taken");
}

/// Submits, and drains the one completion.
#[track_caller]
fn answer(client: &Client, lines: &[&str], flags: u32, queue: &Arc<Queue>) -> Result<Reply> {
    submit(client, lines, flags, queue, 77);
    let (token, outcome) = one(queue);
    assert_eq!(token, 77);
    outcome
}

fn kill(node: &Node, id: i64) {
    assert_eq!(node.cmd(&["CLIENT", "KILL", "ID", &id.to_string()]).int(), Some(1));
}

#[test]
fn row_94_watch_and_a_transaction_without_a_thread_that_waits() {
    let d = single("submit-watch");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let (own, queue) = (session(&client), queue(16));
    ok(&client, "SET k 1");
    submit(&own, &["WATCH k", "GET k"], EACH, &queue, 0);
    assert_eq!(
        drain(&queue, 2).iter().map(|event| (event.token, said(event))).collect::<Vec<_>>(),
        [(0, "OK".into()), (1, "1".into())]
    );
    ok(&client, "SET k 2");
    let error = fails(Status::TxnAborted, answer(&own, &["SET k 3"], ATOMIC, &queue));
    assert!(error.flags() == flags::RETRYABLE && error.message().contains("a watched key was changed"), "{error}");
    assert_eq!(ok(&client, "GET k"), "2");
    // All of it at once; a list of the session's own; by hand.
    submit(&own, &["WATCH k"], EACH, &queue, 0);
    submit(&own, &["INCR k", "GET k"], ATOMIC, &queue, 1);
    submit(&own, &["WATCH k", "MULTI", "INCR k", "EXEC"], 0, &queue, 2);
    submit(&own, &["MULTI", "INCR k", "EXEC"], EACH, &queue, 3);
    let told: Vec<_> = drain(&queue, 6).iter().map(|event| (event.token, said(event))).collect();
    let expected = ["OK", r#"[3,"3"]"#, r#"["OK","OK","QUEUED",[4]]"#, "OK", "QUEUED", "[5]"];
    assert_eq!(told, expected.iter().enumerate().map(|(at, text)| (at as u64, (*text).into())).collect::<Vec<_>>());
    // EXEC answered null, as a single command and in a list.
    submit(&own, &["WATCH k"], EACH, &queue, 0);
    drain(&queue, 1);
    ok(&client, "SET k 9");
    submit(&own, &["MULTI", "INCR k", "EXEC"], EACH, &queue, 0);
    assert!(said(&drain(&queue, 3)[2]).starts_with("TxnAborted"));
    submit(&own, &["NO.SUCH"], EACH, &queue, 0);
    assert!(said(&drain(&queue, 1)[0]).starts_with("Server ERR unknown command"));
    let error = fails(Status::Server, answer(&own, &["INCR k", "NO.SUCH"], ATOMIC, &queue));
    assert_eq!((error.server_code(), ok(&client, "GET k")), ("EXECABORT", "9".into()));
    submit(&own, &["MULTI"], EACH, &queue, 0);
    drain(&queue, 1);
    fails(Status::InvalidState, answer(&own, &["INCR k"], ATOMIC, &queue));
    assert_eq!(ok(&own, "DISCARD"), "OK");
}

#[test]
fn exec_and_submit_share_the_connection_and_its_order() {
    let d = single("submit-mixed");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let (own, queue) = (session(&client), queue(4000));
    let id = client_id(&own);
    ok(&client, "SET k 1");
    ok(&own, "SELECT 3");
    ok(&own, "SET where three");
    ok(&own, "WATCH where");
    assert_eq!(answer(&own, &["CLIENT ID"], EACH, &queue).expect("a number").int(0), Some(id));
    assert_eq!(text(&answer(&own, &["GET where"], EACH, &queue).expect("a text")), "three");
    // What exec has watched is watched still.
    let other = client.session(Some(&config(&[("db", "3")]))).expect("a session");
    ok(&other, "SET where else");
    fails(Status::TxnAborted, answer(&own, &["SET where wrong"], ATOMIC, &queue));
    assert_eq!((client_id(&own), ok(&own, "GET where")), (id, "else".into()));
    for turn in 0..300u64 {
        submit(&own, &["INCR n", "INCR n"], EACH, &queue, 2 * turn);
        if turn % 10 == 0 {
            assert_eq!(number(&own, "GET n"), 2 * turn as i64 + 2, "behind all that was submitted before");
        }
    }
    for (at, event) in drain(&queue, 600).iter().enumerate() {
        assert_eq!((event.token, said(event)), (at as u64, (at + 1).to_string()));
    }
    // An event loop of many sessions, one connection each.
    let sessions: Vec<_> = (0..8).map(|_| session(&client)).collect();
    for round in 0..50 {
        for (at, own) in sessions.iter().enumerate() {
            submit(own, &[&format!("ECHO {at}:{round}")], EACH, &queue, at as u64);
        }
    }
    let mut rounds = HashMap::new();
    for event in drain(&queue, 400) {
        let round = rounds.entry(event.token).or_insert(0);
        assert_eq!(said(&event), format!("{}:{round}", event.token));
        *round += 1;
    }
    drop((own, other, sessions));
    eventually("their places are free again", SOON, || primary_pool(&client).get("in_use") == 0);
    assert_eq!(ok(&client, "GET k"), "1");
}

#[test]
fn what_a_session_does_not_run_is_refused_at_the_submit() {
    let d = Deployment::new("submit-refused").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let (client, queue) = (to_primary(&sentinel, &[]), queue(2));
    let own = session(&client);
    let refused = |own: &Client, lines: &[&str], flags: u32, timeout: Timeout, status: Status| -> Error {
        fails(status, submit_with(own, lines, flags, timeout, &queue, 1))
    };
    refused(&own, &["SUBSCRIBE c"], EACH, Timeout::Default, Status::Unsupported);
    refused(&own, &["GET k", "BLPOP q 1"], 0, Timeout::Default, Status::Unsupported);
    refused(&own, &["WATCH k"], ATOMIC, Timeout::Default, Status::InvalidArg);
    refused(&own, &[], 0, Timeout::Default, Status::InvalidArg);
    refused(&own, &["GET k"], EACH, Timeout::DontWait, Status::Timeout);
    refused(&own, &["GET k", "GET k", "GET k"], EACH, Timeout::Default, Status::QueueFull);
    let reads = session(&to_replicas(&sentinel, &[]));
    refused(&reads, &["SET k v"], EACH, Timeout::Default, Status::ReadOnly);
    assert_eq!(json(&answer(&reads, &["GET k", "GET k"], ATOMIC, &queue).expect("a replica reads")), "[null,null]");
    let far = client.session(Some(&config(&[("db", "99")]))).expect("the server knows how many there are");
    let error = fails(Status::Config, answer(&far, &["PING"], EACH, &queue));
    assert!(error.message().contains("db=99"), "{error}");
    own.close(Timeout::Default).expect("closed");
    refused(&own, &["GET k"], EACH, Timeout::Default, Status::Closed);
}

#[test]
fn the_loss_of_the_connection_ends_all_that_was_submitted_behind() {
    let d = single("submit-lost");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let (own, queue) = (session(&client), queue(16));
    submit(&own, &["CLIENT ID", "WATCH k"], EACH, &queue, 0);
    let id = drain(&queue, 2)[0].outcome.as_ref().ok().and_then(|reply| reply.as_ref()?.int(0)).expect("its id");
    kill(&node, id);
    let error = fails(Status::TxnAborted, answer(&own, &["SET k v"], ATOMIC, &queue));
    assert!(!error.has(flags::MAYBE_EXECUTED) && error.message().contains("new session"), "{error}");
    for (lines, flags, status) in [
        (&["GET k"][..], EACH, Status::Io),
        (&["EXEC"], EACH, Status::TxnAborted),
        (&["SET k v"], ATOMIC, Status::TxnAborted),
    ] {
        let error = fails(status, answer(&own, lines, flags, &queue));
        assert!(error.flags() == 0 && error.message().contains("new session"), "{lines:?}: {error}");
    }
    fails(Status::Io, cmd(&own, "GET k"));
    assert_eq!((ok(&client, "EXISTS k"), node.calls("exec")), ("0".into(), 0));
    own.disconnect().expect("given back");
    assert_eq!(text(&answer(&own, &["SET k v"], EACH, &queue).expect("on another connection")), "OK");
    // A call that is late, and one that is cancelled: what was submitted behind them does not run.
    for cancelled in [false, true] {
        let timeout = if cancelled { Timeout::Unlimited } else { Timeout::Ms(100) };
        let own = session(&client);
        submit_with(&own, &["BLPOP none 0"], EACH, timeout, &queue, 1).expect("taken");
        submit(&own, &["SET k wrong"], EACH, &queue, 2);
        if cancelled {
            eventually("it blocks", SOON, || node.info("clients")["blocked_clients"] == "1");
            assert_eq!(queue.cancel(1), 1);
        }
        let events = drain(&queue, 2);
        let by_token = |token: u64| events.iter().find(|event| event.token == token).expect("it came");
        let expected = if cancelled { "Cancelled" } else { "Timeout" };
        assert!(said(by_token(1)).starts_with(expected), "{}", said(by_token(1)));
        assert!(said(by_token(2)).starts_with("Io"), "{}", said(by_token(2)));
        assert_eq!(ok(&client, "GET k"), "v", "it did not run");
    }
}

#[test]
fn closes_end_what_was_submitted() {
    let d = single("submit-closed");
    let node = d.primary_node(SERVICE);
    let sentinel = sentinel_of(&d, &[("client.name", "closing")]);
    let queue = queue(16);
    for by_client in [false, true] {
        let client = to_primary(&sentinel, &[]);
        let own = session(&client);
        submit_with(&own, &["BLPOP none 0"], EACH, Timeout::Unlimited, &queue, 1).expect("taken");
        submit_with(&own, &["PING"], EACH, Timeout::Unlimited, &queue, 2).expect("taken");
        eventually("it blocks", SOON, || node.info("clients")["blocked_clients"] == "1");
        if by_client {
            client.close(Timeout::Ms(5000)).expect("nothing but blocking calls was ended");
        } else {
            own.close(Timeout::Ms(5000)).expect("closed");
        }
        for event in drain(&queue, 2) {
            assert!(said(&event).starts_with("Closed"), "{}", said(&event));
        }
        drop((client, own));
        eventually("no connection is left", SOON, || node.clients_named("closing").is_empty());
    }
    // A freed session finishes what it took.
    let client = to_primary(&sentinel, &[]);
    let own = session(&client);
    for token in 0..10 {
        submit(&own, &["INCR n"], EACH, &queue, token);
    }
    drop((client, own));
    assert_eq!(said(&drain(&queue, 10)[9]), "10");
    eventually("no connection is left", SOON, || node.clients_named("closing").is_empty());
}

#[test]
fn calls_wait_for_a_primary_and_behind_the_fence_within_their_deadlines() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    watch.service(SERVICE, |state| state.flags = "s_down,o_down,master".into());
    let (own, queue) = (session(&client), queue(16));
    submit(&own, &["INCR n", "INCR n"], EACH, &queue, 0);
    let late = session(&client);
    submit_with(&late, &["INCR n"], EACH, Timeout::Ms(50), &queue, 9).expect("taken");
    let (token, outcome) = one(&queue);
    assert!(token == 9 && outcome.is_err_and(|error| error.has(flags::RETRYABLE)));
    watch.service(SERVICE, |state| state.flags = "master".into());
    assert_eq!(drain(&queue, 2).iter().map(said).collect::<Vec<_>>(), ["1", "2"]);

    let s = stage::stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    let own = session(&client);
    answer(&own, &["SET k v"], EACH, &queue).expect("it runs");
    s.listened();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    submit(&own, &["INCR n"], EACH, &queue, 1);
    // One that is late takes those behind it along, and not the one before it.
    submit_with(&own, &["INCR late"], EACH, Timeout::Ms(50), &queue, 2).expect("taken");
    submit(&own, &["INCR behind"], EACH, &queue, 3);
    let events = drain(&queue, 2);
    assert!(said(&events[0]).starts_with("Fenced") || said(&events[0]).starts_with("Timeout"), "{}", said(&events[0]));
    assert!(events[1].token == 3 && said(&events[1]).starts_with("Io"), "{}", said(&events[1]));
    assert!(said(&drain_one_of(&own, &queue)).starts_with("Io"), "nor what is submitted later");
    assert_eq!((s.p.count("INCR"), s.r.count("INCR")), (0, 0), "held back");
    s.abort(0, "not-elected");
    assert_eq!(said(&drain(&queue, 1)[0]), "1");
    assert!(said(&drain_one_of(&own, &queue)).starts_with("Io"), "the session is lost");
    own.disconnect().expect("given back");
    assert_eq!(text(&answer(&own, &["GET n"], EACH, &queue).expect("begun anew")), "1");
}

/// Nothing depends on a connection before the first call, so it is that of the primary that takes over.
#[test]
fn a_session_that_begins_behind_the_fence_begins_on_the_next_primary() {
    let s = stage::stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    s.listened();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    let (own, queue) = (session(&client), queue(16));
    submit(&own, &["WATCH k", "GET k"], EACH, &queue, 0);
    [&s.p, &s.r].iter().for_each(|node| node.fault("WATCH", Fault::Reply(Value::ok())));
    s.switch_all();
    s.p.close_all();
    assert_eq!(drain(&queue, 2).iter().map(said).collect::<Vec<_>>(), ["OK", "null"]);
    assert_eq!((s.p.count("WATCH"), s.r.count("WATCH")), (0, 1));
}

/// Submits one more call, and drains its completion.
fn drain_one_of(own: &Client, queue: &Arc<Queue>) -> vigie::queue::Event {
    submit(own, &["INCR later"], EACH, queue, 4);
    drain(queue, 1).remove(0)
}

/// Scenario 62 on one event loop: many counters of WATCH, GET and a transaction in flight during a real failover, from one thread.
#[test]
fn scenario_62_watch_on_an_event_loop_through_a_failover() {
    let d = Deployment::new("loop-62").start();
    // A Sentinel promotes a replica that has not read its last writes; those that count as done are on both.
    let client = open(&sentinel_of(&d, &[("timeout.call", "15000")]), Target::Primary, &[("write.replicas", "2")]);
    let queue = queue(64);
    let switched = AtomicBool::new(false);
    let (mut done, mut maybe, mut after) = (0i64, 0i64, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let old = d.failover(SERVICE);
            d.wait_switched(SERVICE, &old);
            switched.store(true, Ordering::Release);
        });
        let begin = |slot: u64| {
            let own = session(&client);
            submit(&own, &["WATCH n", "GET n"], EACH, &queue, 10 * slot);
            own
        };
        let mut sessions: Vec<_> = (0..6).map(begin).collect();
        let mut open = sessions.len();
        while open > 0 {
            for event in drain_some(&queue) {
                let (slot, step) = (event.token / 10, event.token % 10);
                let own = &sessions[slot as usize];
                match (step, event.outcome) {
                    (0, _) => {}
                    (1, Ok(reply)) => {
                        let next = 1 + reply.and_then(|reply| reply.int(0)).unwrap_or(0);
                        submit(own, &[&format!("SET n {next}")], ATOMIC, &queue, 10 * slot + 2);
                    }
                    (_, outcome) => {
                        match outcome {
                            Ok(_) => {
                                done += 1;
                                after += usize::from(switched.load(Ordering::Acquire));
                            }
                            Err(error) if error.has(flags::MAYBE_EXECUTED) || error.status() == Status::Replicas => {
                                maybe += 1
                            }
                            Err(_) => {}
                        }
                        match after < 20 {
                            true => sessions[slot as usize] = begin(slot),
                            false => open -= 1,
                        }
                    }
                }
            }
        }
    });
    let counted = number(&client, "GET n");
    assert!(done <= counted && counted <= done + maybe, "{done} done, {maybe} maybe, {counted} counted");
}

fn drain_some(queue: &Queue) -> Vec<vigie::queue::Event> {
    let mut events = Vec::new();
    queue.drain(Deadline::after(SOON), &mut events, 64);
    assert!(!events.is_empty(), "calls never ended");
    events
}
