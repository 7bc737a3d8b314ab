//! What can go wrong on a shared connection, one test for each hazard.

use crate::peer;
use crate::support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::scope;
use std::time::{Duration, Instant};

use support::{Deployment, Pacing, paced, takes_at_most};

use peer::{Peer, Server, after, assert_text, echo, echo_len, eventually, pool_echo};
use vigie::config::{LaneSettings, PoolSettings};
use vigie::error::Status;
use vigie::lane::{Bytes, Completion, Lane, Outcome, Unit};
use vigie::pool::Pool;
use vigie::resp::Limits;
use vigie::time::Deadline;

const MS: Duration = Duration::from_millis(1);

/// Silence ends a lane only in tests about that: a loaded machine may be silent for long between two steps.
const PATIENT: Duration = Duration::from_secs(60);

/// Never holds back.
fn eager() -> LaneSettings {
    LaneSettings { hold_rtt: Duration::ZERO, silent: PATIENT, ..LaneSettings::default() }
}

/// A server for one lane; the test tells its script when to go on, and gets its results.
fn in_step(script: impl Fn(&mut Peer, &Receiver<()>, &Sender<Vec<u8>>) + Send + Sync + 'static) -> Steps {
    let (go, wait) = channel();
    let (tell, heard) = channel();
    let ends = Mutex::new(Some((wait, tell)));
    let server = Server::start(move |mut peer, _| {
        let (wait, tell) = ends.lock().unwrap().take().unwrap();
        script(&mut peer, &wait, &tell);
    });
    Steps { server, go, heard: Mutex::new(heard) }
}

struct Steps {
    server: Server,
    go: Sender<()>,
    heard: Mutex<Receiver<Vec<u8>>>,
}

impl Steps {
    fn hear(&self) -> Vec<u8> {
        self.heard.lock().unwrap().recv_timeout(Duration::from_secs(10)).expect("the server heard nothing")
    }
}

#[test]
fn a_leader_leaves_in_the_middle_of_its_reply_and_nothing_is_shifted() {
    let steps = in_step(|peer, go, tell| {
        for _ in 0..2 {
            tell.send(peer.next_arg().unwrap()).unwrap();
        }
        peer.say("$5\r\nfi");
        go.recv().unwrap();
        peer.say("rst\r\n$6\r\nsecond\r\n");
        peer.echo();
    });
    let lane = steps.server.lane(eager());
    scope(|threads| {
        let leader = threads.spawn(|| echo(&lane, b"first", after(200)));
        assert_eq!(steps.hear(), b"first");
        let follower = threads.spawn(|| echo(&lane, b"second", after(10_000)));
        assert_eq!(steps.hear(), b"second");
        let failure = leader.join().unwrap().unwrap_err();
        assert_eq!((failure.error.status(), failure.sent), (Status::Timeout, echo_len(b"first")));
        steps.go.send(()).unwrap();
        assert_text(&follower.join().unwrap(), b"second");
    });
    assert_text(&echo(&lane, b"third", after(10_000)), b"third");
    assert_eq!(lane.in_flight(), 0);
}

#[test]
fn a_follower_that_gives_up_leaves_its_reply_to_be_consumed() {
    let steps = in_step(|peer, go, tell| {
        let texts: Vec<_> = (0..3).map(|_| peer.next_arg().inspect(|text| tell.send(text.clone()).unwrap())).collect();
        go.recv().unwrap();
        texts.iter().flatten().for_each(|text| assert!(peer.say_bulk(text)));
        peer.echo();
    });
    let lane = steps.server.lane(eager());
    scope(|threads| {
        let mut calls = Vec::new();
        for (text, deadline) in [("first", 10_000), ("second", 100), ("third", 10_000)] {
            let lane = &lane;
            calls.push((text, threads.spawn(move || echo(lane, text.as_bytes(), after(deadline)))));
            assert_eq!(steps.hear(), text.as_bytes());
        }
        let failure = calls.remove(1).1.join().unwrap().unwrap_err();
        assert_eq!((failure.error.status(), failure.sent), (Status::Timeout, echo_len(b"second")));
        steps.go.send(()).unwrap();
        calls.into_iter().for_each(|(text, call)| assert_text(&call.join().unwrap(), text.as_bytes()));
    });
    assert_text(&echo(&lane, b"fourth", after(10_000)), b"fourth");
}

#[test]
fn what_is_given_up_in_the_buffer_never_reaches_the_server() {
    let steps = in_step(|peer, go, tell| {
        go.recv().unwrap();
        while let Some(text) = peer.next_arg() {
            peer.say_bulk(&text[..text.len().min(9)]);
            tell.send(text).unwrap();
        }
    });
    let lane = steps.server.lane(eager());
    let large = vec![b'x'; 24 << 20];
    scope(|threads| {
        let writer = threads.spawn(|| echo(&lane, &large, after(20_000)));
        eventually("the writer is in the ring", || lane.in_flight() == 1);
        let late = threads.spawn(|| echo(&lane, b"given up", after(600)));
        eventually("and another behind it", || lane.in_flight() == 2);
        let next = threads.spawn(|| echo(&lane, b"next", after(20_000)));
        let failure = late.join().unwrap().unwrap_err();
        assert_eq!((failure.error.status(), failure.sent), (Status::Timeout, 0));
        assert!(failure.error.message().contains("not sent"), "{}", failure.error.message());
        steps.go.send(()).unwrap();
        assert_text(&writer.join().unwrap(), &large[..9]);
        assert_text(&next.join().unwrap(), b"next");
    });
    assert_text(&echo(&lane, b"later", after(10_000)), b"later");
    drop(lane);
    let heard: Vec<_> = (0..3).map(|_| steps.hear().len()).collect();
    assert_eq!(heard, [large.len(), 4, 5]);
}

#[test]
fn callers_leave_a_full_socket_at_their_deadlines() {
    let steps = in_step(|peer, go, _| {
        go.recv().unwrap();
        peer.echo();
    });
    let lane = steps.server.lane(LaneSettings { silent: Duration::from_secs(60), ..eager() });
    let large = vec![b'x'; 8 << 20];
    scope(|threads| {
        // This caller may be or become the writer; no other caller waits for what it waits for.
        let patient = threads.spawn(|| echo(&lane, &large, after(60_000)));
        let calls: Vec<_> = (1..=6u64)
            .map(|n| {
                let (lane, large) = (&lane, &large);
                threads.spawn(move || {
                    let begun = Instant::now();
                    let failure = echo(lane, large, after(40 * n)).unwrap_err();
                    (40 * n, begun.elapsed(), failure)
                })
            })
            .collect();
        for call in calls {
            let (deadline, took, failure) = call.join().unwrap();
            assert_eq!(failure.error.status(), Status::Timeout, "{failure:?}");
            // Nothing else ends their wait earlier than that of the patient caller.
            assert!(took >= Duration::from_millis(deadline) && took < Duration::from_secs(20), "{took:?}");
        }
        steps.go.send(()).unwrap();
        assert_text(&patient.join().unwrap(), &large);
    });
    // The half sent unit was completed, and its replies were consumed.
    assert_text(&echo(&lane, b"after all that", after(20_000)), b"after all that");
}

#[test]
fn a_server_that_writes_before_it_reads_is_read_first() {
    let server = Server::echo();
    let lane = server.lane(LaneSettings::default());
    scope(|threads| {
        for n in 0..8u8 {
            let lane = &lane;
            threads.spawn(move || {
                for size in [1 << 20, 3 << 20, 10, 2 << 20] {
                    let text = vec![b'a' + n; size];
                    assert_text(&echo(lane, &text, after(20_000)), &text);
                }
            });
        }
    });
}

#[test]
fn a_lone_writer_reads_its_own_replies_when_the_socket_is_full() {
    let server = Server::echo();
    let lane = server.lane(LaneSettings::default());
    let text = vec![b'x'; 512 << 10];
    let mut raw = Vec::new();
    (0..48).for_each(|_| Bytes::Args(&[b"ECHO", &text]).append_to(&mut raw).unwrap());
    let reply = lane
        .exec(
            Unit { bytes: Bytes::Raw(&raw), list: Some(48), at_most_once: false, lease: None, atomic: false },
            after(20_000),
        )
        .unwrap();
    assert_eq!(reply.count(0), 48);
    assert!((0..48).all(|at| reply.bytes(reply.child(0, at).unwrap()) == Some(&text)));
}

#[test]
fn a_writer_that_is_made_the_reader_while_it_waits_for_room_reads() {
    let steps = in_step(|peer, go, tell| {
        tell.send(peer.next_arg().unwrap()).unwrap();
        go.recv().unwrap();
        // More than the sockets hold; nothing is read before it is sent.
        assert!(peer.say_bulk(&vec![b'x'; 24 << 20]));
        peer.echo();
    });
    let lane = steps.server.lane(eager());
    let large = vec![b'w'; 24 << 20];
    scope(|threads| {
        let reader = threads.spawn(|| echo(&lane, b"reader", after(800)));
        assert_eq!(steps.hear(), b"reader");
        let writer = threads.spawn(|| echo(&lane, &large, after(20_000)));
        eventually("the writer is in the ring", || lane.in_flight() == 2);
        assert_eq!(reader.join().unwrap().unwrap_err().error.status(), Status::Timeout);
        assert_eq!(lane.in_flight(), 2);
        steps.go.send(()).unwrap();
        assert_text(&writer.join().unwrap(), &large);
    });
}

#[test]
fn at_death_everybody_is_told_truthfully_what_was_sent() {
    let received = Arc::new(Mutex::new(HashSet::new()));
    let answered = Arc::new(Mutex::new(HashSet::new()));
    let all_wait = Arc::new(AtomicBool::new(false));
    let server = {
        let (received, answered, all_wait) = (received.clone(), answered.clone(), all_wait.clone());
        Server::start(move |mut peer, _| {
            eventually("all wait", || all_wait.load(Ordering::SeqCst));
            while let Some(text) = peer.next_arg() {
                let number: usize = std::str::from_utf8(&text[..6]).unwrap().parse().unwrap();
                received.lock().unwrap().insert(number);
                if received.lock().unwrap().len() <= 20 {
                    answered.lock().unwrap().insert(number);
                    peer.say_bulk(&text[..6]);
                }
                if received.lock().unwrap().len() == 60 {
                    return;
                }
            }
        })
    };
    let lane = server.lane(eager());
    let (mut lost, mut unsent) = (0, 0);
    scope(|threads| {
        let calls: Vec<_> = (0..200)
            .map(|n| {
                let lane = &lane;
                threads.spawn(move || {
                    let mut text = format!("{n:06}").into_bytes();
                    text.resize(100 << 10, b'x');
                    (n, echo(lane, &text, Deadline::never()), echo_len(&text))
                })
            })
            .collect();
        eventually("200 callers wait", || lane.in_flight() == 200);
        all_wait.store(true, Ordering::SeqCst);
        for call in calls {
            let (n, outcome, len) = call.join().unwrap();
            match outcome {
                Ok(reply) => {
                    assert_eq!(reply.bytes(0), Some(format!("{n:06}").as_bytes()));
                    assert!(answered.lock().unwrap().contains(&n));
                }
                Err(failure) => {
                    lost += 1;
                    assert!(failure.sent <= len);
                    if failure.sent < len {
                        unsent += 1;
                        assert!(
                            !received.lock().unwrap().contains(&n),
                            "{n} was received, {} of {len} sent",
                            failure.sent
                        );
                    }
                }
            }
        }
    });
    assert!(lost >= 180 && unsent > 0 && unsent < lost, "{lost} lost, {unsent} of them unsent");
    assert!(lane.is_dead() && lane.in_flight() == 0);
    assert_eq!(echo(&lane, b"x", after(1000)).unwrap_err().sent, 0);
}

/// A submitted call: its number, and its outcome, which must come once.
struct Told(usize, Mutex<Vec<Outcome>>);

impl Completion for Told {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        self.1.lock().unwrap().push(outcome);
    }

    fn is(&self, _owner: usize, _token: u64) -> bool {
        false
    }
}

#[test]
fn ten_thousand_who_wait_are_told_truthfully_at_death() {
    const STARTED: usize = 9_900;
    const ALL: usize = 10_000;
    let text = |n: usize| format!("{n:02000}").into_bytes();
    let received = Arc::new(Mutex::new(HashSet::new()));
    let (go, wait) = channel::<()>();
    let server = {
        let (received, wait) = (received.clone(), Mutex::new(wait));
        Server::start(move |mut peer, _| {
            wait.lock().unwrap().recv().unwrap();
            while let Some(text) = peer.next_arg() {
                let number: usize = std::str::from_utf8(&text).unwrap().parse().unwrap();
                let mut received = received.lock().unwrap();
                received.insert(number);
                match received.len() {
                    ..=1000 => drop(peer.say_bulk(&text)),
                    2000.. => return,
                    _ => {}
                }
            }
        })
    };
    let lane = server.lane(eager());
    let started: Vec<_> = (0..STARTED).map(|n| Arc::new(Told(n, Mutex::default()))).collect();
    for told in &started {
        let text = text(told.0);
        let args: [&[u8]; 2] = [b"ECHO", &text];
        let unit = Unit { bytes: Bytes::Args(&args), list: None, at_most_once: false, lease: None, atomic: false };
        assert!(lane.start(unit, Deadline::never(), told.clone(), None).is_ok());
    }
    let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
    let call = |n: usize| (n, echo(&lane, &text(n), Deadline::never()));
    scope(|threads| {
        let call = &call;
        let calls: Vec<_> = (STARTED..ALL).map(|n| threads.spawn(move || call(n))).collect();
        eventually("ten thousand wait", || lane.in_flight() as usize == ALL);
        go.send(()).unwrap();
        outcomes.extend(calls.into_iter().map(|call| call.join().unwrap()));
    });
    for told in started {
        let mut ends = std::mem::take(&mut *told.1.lock().unwrap());
        assert_eq!(ends.len(), 1, "call {} ended {} times", told.0, ends.len());
        outcomes.push((told.0, ends.remove(0)));
    }
    let received = received.lock().unwrap();
    let (mut good, mut unsent, mut doubtful) = (0, 0, 0);
    for (n, outcome) in &outcomes {
        match outcome {
            Ok(reply) => {
                good += 1;
                assert!(reply.bytes(0) == Some(&text(*n)) && received.contains(n), "{n} was answered");
            }
            Err(failure) if failure.sent == echo_len(&text(*n)) => doubtful += 1,
            Err(failure) => {
                unsent += 1;
                assert!(!received.contains(n), "{n} was received, and {} bytes of it sent", failure.sent);
            }
        }
    }
    println!("{good} replies, {doubtful} in doubt, {unsent} not sent");
    assert!(outcomes.len() == ALL && good <= 1000 && doubtful >= 1000 && unsent >= 1000);
    assert!(lane.is_dead() && lane.in_flight() == 0);
}

#[test]
fn a_shut_lane_answers_all_at_once_even_with_a_writer_at_work() {
    let server = Server::start(|_, _| std::thread::park_timeout(Duration::from_secs(20)));
    let lane = server.lane(eager());
    let large = vec![b'x'; 32 << 20];
    scope(|threads| {
        let (lane, large) = (&lane, &large);
        let writer = threads.spawn(move || echo(lane, large, Deadline::never()));
        eventually("the writer is in the ring", || lane.in_flight() == 1);
        let behind: Vec<_> = (0..20).map(|_| threads.spawn(move || echo(lane, b"behind", Deadline::never()))).collect();
        eventually("all are in the ring", || lane.in_flight() == 21);
        let (pacing, begun) = (Pacing::start(), Instant::now());
        lane.shut(vigie::error::Error::new(Status::Closed, "the end"));
        let failure = writer.join().unwrap().unwrap_err();
        assert!(failure.error.status() == Status::Closed && failure.sent < echo_len(large) && failure.sent > 0);
        for call in behind {
            let failure = call.join().unwrap().unwrap_err();
            assert_eq!((failure.error.status(), failure.sent), (Status::Closed, 0));
        }
        let took = begun.elapsed();
        pacing.stop().judge("the end of all", took, 500 * MS);
    });
}

/// The first connection misbehaves like this; the next call must succeed.
fn one_bad_connection(bad: impl Fn(&mut Peer) + Send + Sync + 'static, expect: Option<Status>) {
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let server = Server::start(move |mut peer, number| {
        if number == 0 {
            peer.next();
            bad(&mut peer);
            is_done.store(true, Ordering::SeqCst);
            peer.await_end();
        } else {
            peer.echo();
        }
    });
    let mut spec = server.spec(PoolSettings::default());
    spec.lane.max = 1;
    spec.connect = peer::connect_options(Limits { max_bytes: 1000, ..Limits::default() });
    let pool = Pool::new(spec);
    let first = pool_echo(&pool, b"first", after(20_000));
    match (first, expect) {
        (Ok(reply), None) => assert_eq!(reply.bytes(0), Some(b"first".as_slice())),
        (Err(failure), Some(status)) => {
            assert_eq!(failure.error.status(), status, "{failure:?}");
            assert_eq!(failure.sent, echo_len(b"first"));
        }
        (outcome, _) => panic!("{outcome:?}"),
    }
    eventually("it has misbehaved", || done.load(Ordering::SeqCst));
    // Long enough for the lane to be checked before its next use.
    let begun = Instant::now();
    eventually("some time has passed", || begun.elapsed() > 20 * MS);
    assert_text(&pool_echo(&pool, b"second", after(20_000)), b"second");
    assert_eq!(server.accepted(), 2);
    assert_eq!(pool.counts().lanes, 1);
}

#[test]
fn a_surplus_reply_ends_the_lane() {
    one_bad_connection(|peer| assert!(peer.say("$5\r\nfirst\r\n+surplus\r\n")), None);
}

#[test]
fn a_surplus_reply_on_an_idle_lane_is_nobodys() {
    let bad = |peer: &mut Peer| {
        peer.say("$5\r\nfirst\r\n");
        std::thread::park_timeout(5 * MS);
        peer.say("+surplus\r\n");
    };
    one_bad_connection(bad, None);
}

#[test]
fn a_malformed_reply_ends_the_lane() {
    one_bad_connection(|peer| assert!(peer.say("HTTP/1.1 200 OK\r\n")), Some(Status::Protocol));
}

#[test]
fn a_reply_over_the_limits_ends_the_lane() {
    one_bad_connection(|peer| assert!(peer.say("$2000\r\n")), Some(Status::Limit));
}

#[test]
fn a_reply_over_the_limits_is_told_to_its_caller_and_the_others_have_lost_their_connection() {
    let server = Server::start(|mut peer, number| {
        if number > 0 {
            return peer.echo();
        }
        (0..3).for_each(|_| drop(peer.next()));
        peer.say("$2000\r\n");
        peer.await_end();
    });
    let mut spec = server.spec(PoolSettings::default());
    spec.lane.max = 1;
    spec.connect = peer::connect_options(Limits { max_bytes: 1000, ..Limits::default() });
    let pool = Pool::new(spec);
    let failures: Vec<_> = scope(|threads| {
        let calls: Vec<_> = (0..3).map(|_| threads.spawn(|| pool_echo(&pool, b"text", after(20_000)))).collect();
        calls.into_iter().map(|call| call.join().unwrap().unwrap_err()).collect()
    });
    let with = |status: Status| failures.iter().filter(move |failure| failure.error.status() == status);
    assert_eq!((with(Status::Limit).count(), with(Status::Io).count()), (1, 2), "{failures:?}");
    for failure in with(Status::Io) {
        let message = failure.error.message();
        assert!(
            message.contains("because of the reply to another call") && message.contains("the limit is 1000"),
            "{message}"
        );
        assert!(failure.sent == echo_len(b"text") && !failure.at_head, "{failure:?}");
    }
    assert_text(&pool_echo(&pool, b"second", after(20_000)), b"second");
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_the_next_call_nothing() {
    one_bad_connection(
        |peer| {
            peer.say("$5\r\nfirst\r\n");
            peer.cut();
        },
        None,
    );
}

#[test]
fn what_must_not_be_sent_twice_is_not_sent_into_a_connection_whose_end_has_come() {
    // Each connection ends with its first reply, just before the next call.
    let server = Server::start(|mut peer, _| {
        let Some(text) = peer.next_arg() else { return };
        peer.say_last(format!("${}\r\n{}\r\n", text.len(), String::from_utf8_lossy(&text)));
    });
    let pool = server.pool(PoolSettings::default());
    let once = |text: &[u8]| {
        pool.exec(
            Unit { bytes: Bytes::Args(&[b"ECHO", text]), list: None, at_most_once: true, lease: None, atomic: false },
            false,
            after(10_000),
        )
    };
    for turn in 0..50 {
        assert_text(&once(format!("{turn}").as_bytes()), format!("{turn}").as_bytes());
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 50);
}

#[test]
fn an_idle_lane_that_the_peer_closed_sends_nothing() {
    let server = Server::start(|mut peer, _| {
        let text = peer.next_arg().unwrap();
        peer.say_bulk(&text);
    });
    let lane = server.lane(eager());
    assert_text(&echo(&lane, b"first", after(20_000)), b"first");
    eventually("the server has closed", || server.open.load(Ordering::SeqCst) == 0);
    let begun = Instant::now();
    eventually("and the kernel knows", || begun.elapsed() > 5 * MS);
    let failure = echo(&lane, b"second", after(20_000)).unwrap_err();
    assert_eq!((failure.error.status(), failure.sent), (Status::Io, 0), "{failure:?}");
}

/// A lane after one round trip, which corks from the first unanswered call on; and how long a cork lasts there at most.
fn holding_lane(steps: &Steps) -> (Lane, Duration) {
    let (hold_calls, hold_rtt, silent) = (1, 10_000 * MS, PATIENT);
    let lane = steps.server.lane(LaneSettings { hold_calls, hold_rtt, silent, ..LaneSettings::default() });
    let (warm, took, _) = paced(|| echo(&lane, b"warm", after(10_000)));
    assert_text(&warm, b"warm");
    (lane, 4 * took)
}

/// Answers the first call after 150 ms, so that a cork lasts 600 ms; reports what comes next, and does not answer that
/// until it is told to.
fn slow_first() -> Steps {
    first_after(150 * MS)
}

fn first_after(time: Duration) -> Steps {
    in_step(move |peer, go, tell| {
        let warm = peer.next_arg().unwrap();
        std::thread::sleep(time);
        peer.say_bulk(&warm);
        let texts: Vec<_> = (0..2).map(|_| peer.next_arg().inspect(|text| tell.send(text.clone()).unwrap())).collect();
        go.recv().unwrap();
        texts.iter().flatten().for_each(|text| assert!(peer.say_bulk(text)));
        peer.echo();
    })
}

#[test]
fn held_bytes_go_out_at_the_end_of_the_hold_though_the_answer_before_them_is_late() {
    let steps = slow_first();
    let (lane, hold) = holding_lane(&steps);
    scope(|threads| {
        let first = threads.spawn(|| echo(&lane, b"first", after(10_000)));
        assert_eq!(steps.hear(), b"first");
        let (pacing, begun) = (Pacing::start(), Instant::now());
        let held = threads.spawn(|| echo(&lane, b"held", after(10_000)));
        assert_eq!(steps.hear(), b"held");
        let waited = begun.elapsed();
        assert!(waited > 300 * MS, "held for {waited:?}");
        pacing.stop().judge("the hold", waited, hold + 100 * MS);
        steps.go.send(()).unwrap();
        assert_text(&first.join().unwrap(), b"first");
        assert_text(&held.join().unwrap(), b"held");
    });
}

#[test]
fn held_bytes_go_out_though_who_looked_after_them_has_given_up() {
    // A cork of more than a second.
    let steps = first_after(300 * MS);
    let (lane, hold) = holding_lane(&steps);
    scope(|threads| {
        let first = threads.spawn(|| echo(&lane, b"first", after(10_000)));
        assert_eq!(steps.hear(), b"first");
        let watcher = threads.spawn(|| echo(&lane, b"watcher", after(500)));
        eventually("the first of those who are held", || lane.in_flight() == 2);
        let held = threads.spawn(|| echo(&lane, b"held", after(10_000)));
        assert_eq!(watcher.join().unwrap().unwrap_err().sent, 0);
        takes_at_most("the rest of the hold", hold + 100 * MS, || assert_eq!(steps.hear(), b"held"));
        steps.go.send(()).unwrap();
        assert_text(&first.join().unwrap(), b"first");
        assert_text(&held.join().unwrap(), b"held");
    });
}

#[test]
fn a_reader_whose_own_bytes_are_held_sends_them_at_the_end_of_the_hold() {
    let steps = slow_first();
    let (lane, hold) = holding_lane(&steps);
    scope(|threads| {
        let failure = echo(&lane, b"first", after(100)).unwrap_err();
        assert_eq!(failure.sent, echo_len(b"first"));
        assert_eq!(steps.hear(), b"first");
        // No caller reads: this one becomes the reader while its bytes are still in the buffer.
        let held = takes_at_most("the hold", hold + 100 * MS, || {
            let held = threads.spawn(|| echo(&lane, b"held", after(10_000)));
            assert_eq!(steps.hear(), b"held");
            held
        });
        steps.go.send(()).unwrap();
        assert_text(&held.join().unwrap(), b"held");
    });
}

#[test]
fn a_silent_lane_ends_at_the_right_time_and_not_before() {
    let server = Server::start(|mut peer, _| peer.await_end());
    let lane = server.lane(LaneSettings { silent: 300 * MS, ..eager() });
    let ((), took, pace) = paced(|| {
        eventually("it ends", || {
            assert!(echo(&lane, b"x", after(20)).is_err());
            lane.check();
            lane.is_dead()
        });
    });
    assert!(took >= 300 * MS, "ended after {took:?}");
    pace.judge("the end", took, 400 * MS);
}

#[test]
fn the_impatient_do_not_end_a_lane_under_a_patient_caller() {
    let steps = in_step(|peer, go, tell| {
        tell.send(peer.next_arg().unwrap()).unwrap();
        go.recv().unwrap();
        peer.say_bulk(b"slow");
        peer.echo();
    });
    let lane = steps.server.lane(LaneSettings { silent: 50 * MS, ..eager() });
    scope(|threads| {
        let patient = threads.spawn(|| echo(&lane, b"slow", after(10_000)));
        steps.hear();
        let begun = Instant::now();
        while begun.elapsed() < 400 * MS {
            let failure = echo(&lane, b"x", after(10)).unwrap_err();
            assert_eq!(failure.error.status(), Status::Timeout, "{failure:?}");
            lane.check();
        }
        steps.go.send(()).unwrap();
        assert_text(&patient.join().unwrap(), b"slow");
    });
    assert_text(&echo(&lane, b"y", after(10_000)), b"y");
}

#[test]
fn a_reply_that_nobody_waits_for_is_consumed_by_the_check() {
    let steps = in_step(|peer, go, _| {
        let text = peer.next_arg().unwrap();
        go.recv().unwrap();
        peer.say_bulk(&text);
        peer.echo();
    });
    let lane = steps.server.lane(eager());
    assert!(echo(&lane, b"given up", after(200)).is_err());
    assert_eq!(lane.in_flight(), 1);
    steps.go.send(()).unwrap();
    eventually("the lane is idle again", || {
        lane.check();
        lane.in_flight() == 0
    });
    assert!(!lane.is_dead());
    assert_text(&echo(&lane, b"next", after(10_000)), b"next");
}

#[test]
fn a_caller_returns_at_its_deadline_though_others_trickle() {
    let server = Server::start(|mut peer, _| {
        peer.next();
        while peer.say(">2\r\n+out\r\n+of band\r\n") {
            std::thread::sleep(MS);
        }
    });
    let lane = server.lane(eager());
    let (outcome, took, pace) = paced(|| echo(&lane, b"x", after(100)));
    assert_eq!(outcome.unwrap_err().error.status(), Status::Timeout);
    // The trickle goes on as long as a client is connected.
    assert!(took >= 100 * MS, "{took:?}");
    pace.judge("a deadline of 100 ms", took, 150 * MS);
}

#[test]
fn a_reply_that_comes_byte_by_byte_extends_no_deadline() {
    let server = Server::start(|mut peer, _| {
        peer.next();
        peer.say("$1000000\r\n");
        while peer.say("x") {
            std::thread::sleep(MS);
        }
    });
    let lane = server.lane(eager());
    let pacing = Pacing::start();
    let mut ends = Vec::new();
    scope(|threads| {
        // The caller that reads it, and one behind it.
        let calls = [100, 160].map(|deadline| {
            let lane = &lane;
            threads.spawn(move || {
                let begun = Instant::now();
                (deadline * MS, echo(lane, b"x", after(deadline.into())), begun.elapsed())
            })
        });
        for call in calls {
            let (deadline, outcome, took) = call.join().unwrap();
            assert_eq!(outcome.unwrap_err().error.status(), Status::Timeout);
            assert!(took >= deadline, "{took:?} of {deadline:?}");
            ends.push((deadline, took));
        }
    });
    let pace = pacing.stop();
    ends.iter().for_each(|(deadline, took)| pace.judge("a deadline", *took, *deadline + 50 * MS));
}

/// A server that replies with the caller's own text, but late or in pieces at times.
fn moody(seed: u64) -> Server {
    Server::start(move |mut peer, number| {
        let mut random = fastrand::Rng::with_seed(seed ^ (number as u64 + 1) << 32);
        while let Some(text) = peer.next_arg() {
            match random.u32(..2000) {
                0 => return,
                1..20 => std::thread::sleep(Duration::from_micros(random.u64(..8000))),
                20..25 => {
                    // In two pieces.
                    peer.say(format!("${}\r\n", text.len()));
                    std::thread::sleep(Duration::from_micros(random.u64(..3000)));
                    peer.say([&text[..], b"\r\n"].concat());
                    continue;
                }
                _ => {}
            }
            if !peer.say_bulk(&text) {
                return;
            }
        }
    })
}

#[test]
fn under_stress_everybody_gets_its_own_reply_or_an_error_in_time() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let server = moody(seed);
    let pool = server.pool(PoolSettings { max: 6, ..PoolSettings::default() });
    // Three seconds, or longer if that is not enough to see something.
    let (end, patience) = (Instant::now() + 3000 * MS, Instant::now() + 60_000 * MS);
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (pacing, most_over) = (Pacing::start(), Mutex::new(Duration::ZERO));
    let goes_on = || {
        let seen = good.load(Ordering::Relaxed) > 2000 && bad.load(Ordering::Relaxed) > 0;
        Instant::now() < if seen { end } else { patience }
    };
    scope(|threads| {
        for thread in 0..64u64 {
            let (pool, good, bad, most_over, goes_on) = (&pool, &good, &bad, &most_over, &goes_on);
            threads.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(thread));
                let mut call = 0u64;
                while goes_on() {
                    call += 1;
                    let mut text = format!("{thread}:{call}:").into_bytes();
                    let large = random.u32(..200) == 0;
                    text.resize(text.len() + random.usize(..if large { 300_000 } else { 100 }), b'.');
                    let budget = if random.u32(..4) == 0 { random.u64(1..12) } else { 10_000 };
                    let begun = Instant::now();
                    let outcome = pool_echo(pool, &text, after(budget));
                    let took = begun.elapsed();
                    match outcome {
                        Ok(reply) => {
                            assert_eq!(reply.bytes(0), Some(text.as_slice()), "SEED={seed}: another's reply");
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            let timeout = failure.error.status() == Status::Timeout;
                            assert!(!timeout || took >= Duration::from_millis(budget), "SEED={seed}: {failure:?}");
                            assert_ne!(failure.error.status(), Status::Protocol, "SEED={seed}: {failure:?}");
                            bad.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    let over = took.saturating_sub(MS * budget as u32);
                    if !over.is_zero() {
                        let mut most = most_over.lock().unwrap();
                        *most = over.max(*most);
                    }
                }
            });
        }
    });
    pacing.stop().judge("a call, beyond its deadline,", most_over.into_inner().unwrap(), 300 * MS);
    let (good, bad) = (good.into_inner(), bad.into_inner());
    println!("{good} replies, {bad} errors, {} connections", server.accepted());
    assert!(good > 2000 && bad > 0, "SEED={seed}: {good} replies, {bad} errors");
    assert!(
        server.most_open.load(Ordering::SeqCst) <= 8,
        "{} connections at one time",
        server.most_open.load(Ordering::SeqCst)
    );
}

#[test]
fn a_hundred_threads_never_get_each_others_replies_from_redis() {
    let deployment = Deployment::new("hundred").replicas(0).sentinels(0).start();
    let mut spec = Server::echo().spec(PoolSettings::default());
    let port = deployment.node("mymaster-0").port();
    spec.endpoint = vigie::config::Endpoint::Tcp { host: "127.0.0.1".into(), port };
    let pool = Pool::new(spec);
    scope(|threads| {
        for thread in 0..100 {
            let pool = &pool;
            threads.spawn(move || {
                for call in 0..2000 {
                    let text = format!("{thread}:{call}");
                    assert_text(&pool_echo(pool, text.as_bytes(), after(20_000)), text.as_bytes());
                }
            });
        }
    });
    // The upkeep may ping an idle lane now.
    support::eventually("everything was answered", Duration::from_secs(20), || pool.counts().in_flight == 0);
    assert!(pool.counts().total <= 4);
}

/// A server that receives one command and the beginning of the next, and ends the connection with these last words.
fn cutting(last_words: &'static [u8]) -> Steps {
    in_step(move |peer, go, tell| {
        tell.send(peer.next_arg().unwrap()).unwrap();
        go.recv().unwrap();
        peer.say(last_words);
        // Bytes that come now are answered with a reset.
        peer.cut();
    })
}

#[test]
fn what_the_server_said_before_it_cut_a_writer_off_is_heard() {
    let steps = cutting(b"$5\r\nfirst\r\n-ERR Protocol error: too long\r\n");
    let (lane, large) = (steps.server.lane(eager()), vec![b'w'; 24 << 20]);
    scope(|threads| {
        let reader = threads.spawn(|| echo(&lane, b"first", after(20_000)));
        assert_eq!(steps.hear(), b"first");
        let writer = threads.spawn(|| echo(&lane, &large, after(20_000)));
        eventually("both are in flight", || lane.in_flight() == 2);
        steps.go.send(()).unwrap();
        assert_text(&reader.join().unwrap(), b"first");
        let reply = writer.join().unwrap().unwrap();
        assert_eq!(reply.error_line(0), Some(&b"ERR Protocol error: too long"[..]));
    });
    lane.check();
    assert!(lane.is_dead() && lane.in_flight() == 0);
}

#[test]
fn a_list_of_which_the_server_understood_only_the_beginning_is_completed() {
    let steps = cutting(b"$5\r\nfirst\r\n-ERR Protocol error: too long\r\n");
    let (lane, mut raw) = (&steps.server.lane(eager()), Vec::new());
    for text in [&b"first"[..], &vec![b'w'; 24 << 20], b"third"] {
        Bytes::Args(&[b"ECHO", text]).append_to(&mut raw).unwrap();
    }
    scope(|threads| {
        let unit = Unit { bytes: Bytes::Raw(&raw), list: Some(3), at_most_once: false, lease: None, atomic: false };
        let writer = threads.spawn(move || lane.exec(unit, after(20_000)));
        assert_eq!(steps.hear(), b"first");
        steps.go.send(()).unwrap();
        let reply = writer.join().unwrap().unwrap();
        let refused = Some(&b"ERR Protocol error: too long"[..]);
        assert_eq!((reply.bytes(1), reply.error_line(2), reply.error_line(3)), (Some(&b"first"[..]), refused, refused));
    });
    lane.check();
    assert!(lane.is_dead() && lane.in_flight() == 0);
}
