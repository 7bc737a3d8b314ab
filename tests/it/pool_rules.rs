//! The rules of a pool: how many connections, who gets the next one, what is closed and what is opened again.

use crate::peer;
use crate::support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::scope;
use std::time::{Duration, Instant};

use support::{paced, takes_at_most};

use peer::{Peer, Server, after, assert_text, eventually, pool_echo};
use vigie::config::{Endpoint, PoolSettings};
use vigie::error::{Error, Status, flags};
use vigie::lane::{Bytes, Completion, Outcome, Unit};
use vigie::net::Conn;
use vigie::pool::{Loan, Pool, Purpose, Traffic};
use vigie::resp::{Limits, Want};
use vigie::time::Deadline;

const MS: Duration = Duration::from_millis(1);

fn pool_of(max: usize) -> PoolSettings {
    PoolSettings { max, ..PoolSettings::default() }
}

/// One round trip on a loan; which connection of the server answered.
fn ask(loan: &mut Loan) -> Vec<u8> {
    let mut bytes = Vec::new();
    Bytes::Args(&[b"WHO"]).append_to(&mut bytes).unwrap();
    let reply = loan.conn().unwrap().request(&bytes, Want::One, after(20_000)).unwrap();
    reply.bytes(0).unwrap().to_vec()
}

/// A server that answers WHO with the number of the connection, and everything else with the last argument.
fn numbered() -> Server {
    Server::start(|mut peer, number| {
        while let Some(text) = peer.next_arg() {
            let who = if text == b"WHO" { number.to_string().into_bytes() } else { text };
            if !peer.say_bulk(&who) {
                return;
            }
        }
    })
}

#[test]
fn pool_max_is_never_exceeded_however_loans_and_calls_mix() {
    let server = numbered();
    let pool = server.pool(pool_of(7));
    // A second and a half, or longer if that is not enough to see something.
    let (end, patience) = (Instant::now() + 1500 * MS, Instant::now() + 60_000 * MS);
    let (loans, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let goes_on = || {
        let seen = loans.load(Ordering::Relaxed) > 100 && calls.load(Ordering::Relaxed) > 1000;
        Instant::now() < if seen { end } else { patience }
    };
    scope(|threads| {
        for thread in 0..100u64 {
            let (pool, loans, calls, goes_on) = (&pool, &loans, &calls, &goes_on);
            threads.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                while goes_on() {
                    if random.u32(..3) > 0 {
                        let text = format!("{thread} {}", random.u64(..));
                        assert_text(&pool_echo(pool, text.as_bytes(), after(10_000)), text.as_bytes());
                        calls.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let mut loan = pool.loan(Purpose::Session, after(10_000)).unwrap();
                    ask(&mut loan);
                    assert!(pool.counts().total <= 7);
                    if random.u32(..200) == 0 {
                        loan.discard();
                    }
                    loans.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(loans.into_inner() > 100 && calls.into_inner() > 1000);
    let most = server.most_open.load(Ordering::SeqCst);
    assert!((3..=7).contains(&most), "{most} connections at one time");
    let counts = pool.counts();
    assert_eq!((counts.lent, counts.waiting, counts.total), (0, 0, counts.lanes + counts.idle));
}

#[test]
fn a_unit_waits_for_a_connection_of_its_own_only_behind_others_that_carry_one() {
    let server = numbered();
    let pool = server.pool(pool_of(3));
    let long: Vec<_> = (0..2).map(|_| pool.loan(Purpose::Session, after(10_000)).unwrap()).collect();
    assert!(pool.loan_for_unit(after(10_000)).is_none(), "nobody knows when those come back");
    drop(long);
    let unit = pool.loan_for_unit(after(10_000)).expect("an idle one");
    let other = pool.loan(Purpose::Session, after(10_000)).unwrap();
    let order = Mutex::new(Vec::new());
    scope(|threads| {
        for place in 0..4 {
            let (pool, order) = (&pool, &order);
            threads.spawn(move || {
                let loan = pool.loan_for_unit(after(60_000)).expect("its turn comes");
                order.lock().unwrap().push(place);
                drop(loan);
            });
            eventually("it waits", || pool.counts().waiting == place + 1);
        }
        assert!(pool.loan_for_unit(after(10_000)).is_none(), "four wait for one already");
        drop(unit);
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    drop(other);
    assert_eq!((pool.counts().lent, pool.counts().waiting, pool.counts().idle), (0, 0, 2));
    let _all: Vec<_> = (0..2).map(|_| pool.loan(Purpose::Session, after(10_000)).unwrap()).collect();
    assert!(pool.loan_for_unit(after(10_000)).is_none(), "each that came back is counted as back");
}

#[test]
fn a_place_is_kept_for_ordinary_calls_when_all_loans_are_out() {
    let server = numbered();
    let pool = server.pool(PoolSettings { wait: Some(Duration::ZERO), ..pool_of(4) });
    let loans: Vec<_> = (0..3).map(|_| pool.loan(Purpose::Session, after(20_000)).unwrap()).collect();
    let error = pool.loan(Purpose::Session, after(20_000)).err().expect("a fourth loan of four places");
    assert_eq!(error.status(), Status::PoolBusy);
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED));
    for text in ["size 3", "in_use 3", "idle 0", "connected 3", "waiting 0", "pool.max 4"] {
        assert!(error.message().contains(text), "{text}: {}", error.message());
    }
    assert_text(&pool_echo(&pool, b"ordinary", after(20_000)), b"ordinary");
    assert_eq!((pool.counts().total, server.accepted()), (4, 4));
    drop(loans);
    assert_eq!(pool.counts().idle, 3);
}

#[test]
fn a_waiter_is_told_after_pool_wait_or_at_its_deadline() {
    let server = numbered();
    let pool = server.pool(PoolSettings { wait: Some(600 * MS), ..pool_of(2) });
    let _loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    for (deadline, limit) in [(10_000, 600), (100, 100)] {
        let (outcome, took, pace) = paced(|| pool.loan(Purpose::Session, after(deadline)));
        let error = outcome.err().unwrap();
        assert_eq!(error.status(), Status::PoolTimeout, "{error:?}");
        assert!(took >= MS * limit, "{took:?}");
        pace.judge("the wait", took, MS * limit + 50 * MS);
        assert!(error.message().contains("(after ") && error.message().contains("in_use 1"), "{}", error.message());
    }
    assert_eq!(pool.counts().waiting, 0);
}

#[test]
fn who_comes_first_is_served_first() {
    let server = numbered();
    let pool = server.pool(pool_of(2));
    let loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    let served = Mutex::new(Vec::new());
    scope(|threads| {
        for n in 0..10 {
            let (pool, served) = (&pool, &served);
            threads.spawn(move || {
                let mut loan = pool.loan(Purpose::Session, after(10_000)).unwrap();
                served.lock().unwrap().push(n);
                ask(&mut loan);
                if n % 3 == 0 {
                    // The next caller opens a connection in this place.
                    loan.discard();
                }
            });
            eventually("it waits", || pool.counts().waiting == n + 1);
        }
        drop(loan);
    });
    assert_eq!(*served.lock().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!((server.accepted(), pool.counts().total), (4, 0));
}

#[test]
fn a_connection_on_its_way_to_a_waiter_counts() {
    let server = numbered();
    let pool = server.pool(pool_of(2));
    let most = AtomicUsize::new(0);
    let end = Instant::now() + Duration::from_millis(400);
    scope(|threads| {
        for _ in 0..12 {
            threads.spawn(|| {
                while Instant::now() < end {
                    let loan = pool.loan(Purpose::Session, after(10_000)).unwrap();
                    most.fetch_max(pool.counts().lent, Ordering::Relaxed);
                    drop(loan);
                }
            });
        }
    });
    assert_eq!((most.into_inner(), server.accepted()), (1, 1));
    assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
    assert_eq!(pool.counts().total, 2);
}

#[test]
fn what_was_spoiled_or_broken_does_not_come_back() {
    let server = numbered();
    let pool = server.pool(pool_of(4));
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    assert_eq!(ask(&mut loan), b"0");
    loan.discard();
    drop(loan);
    assert_eq!(pool.counts().total, 0);
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    assert_eq!(ask(&mut loan), b"1");
    // An unread reply is still to come.
    let mut bytes = Vec::new();
    Bytes::Args(&[b"WHO"]).append_to(&mut bytes).unwrap();
    loan.conn().unwrap().send_all(&bytes, after(20_000)).unwrap();
    eventually("the reply is there", || !loan.conn().unwrap().is_quiet());
    drop(loan);
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    assert_eq!(ask(&mut loan), b"2");
    drop(loan);
    server.kill_all();
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    assert_eq!(ask(&mut loan), b"3");
    assert_eq!(pool.counts().total, 1);
}

#[test]
fn idle_connections_take_turns() {
    let server = numbered();
    let pool = server.pool(pool_of(8));
    drop((0..5).map(|_| pool.loan(Purpose::Session, after(20_000)).unwrap()).collect::<Vec<_>>());
    assert_eq!(pool.counts().idle, 5);
    let mut uses = HashMap::new();
    for _ in 0..1000 {
        *uses.entry(ask(&mut pool.loan(Purpose::Session, after(20_000)).unwrap())).or_insert(0) += 1;
    }
    assert!(uses.len() == 5 && uses.values().all(|uses| (150..=250).contains(uses)), "{uses:?}");
}

#[test]
fn pool_min_is_kept_also_after_kills() {
    let server = numbered();
    let pool = server.pool(PoolSettings { min: 4, ..pool_of(6) });
    assert_text(&pool_echo(&pool, b"first", after(20_000)), b"first");
    eventually("it is warm", || pool.counts().total == 4 && server.open.load(Ordering::SeqCst) == 4);
    for round in 1..=2 {
        server.kill_all();
        let is_warm = || server.accepted() == 4 * (round + 1) && server.open.load(Ordering::SeqCst) == 4;
        takes_at_most("the warming", 2000 * MS, || eventually("it is warm again", is_warm));
    }
    assert_eq!(pool.counts().lanes, 1);
    assert_text(&pool_echo(&pool, b"last", after(20_000)), b"last");
}

#[test]
fn idle_connections_are_closed_down_to_pool_min() {
    let server = numbered();
    let pool = server.pool(PoolSettings { min: 2, idle: Some(50 * MS), ..pool_of(8) });
    assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
    eventually("it is warm", || pool.counts().idle == 1);
    let loans: Vec<_> = (0..5).map(|_| pool.loan(Purpose::Session, after(20_000)).unwrap()).collect();
    // The lane may have been idle long enough to be closed.
    assert!((5..=6).contains(&pool.counts().total));
    drop(loans);
    eventually("the rest is closed", || pool.counts().total == 2 && server.open.load(Ordering::SeqCst) == 2);
    let accepted = server.accepted();
    std::thread::sleep(700 * MS); // Longer than a tick: what stays must stay.
    assert_eq!((pool.counts().total, server.accepted()), (2, accepted));
}

#[test]
fn a_connection_ends_with_its_lifetime() {
    let server = numbered();
    let pool = server.pool(PoolSettings { lifetime: Some(60 * MS), ..pool_of(8) });
    assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    let first = ask(&mut loan);
    let begun = Instant::now();
    eventually("it is too old", || begun.elapsed() > 70 * MS);
    assert_eq!(ask(&mut loan), first, "a loan is not taken away");
    drop(loan);
    assert_eq!(pool.counts().idle, 0);
    assert_ne!(ask(&mut pool.loan(Purpose::Session, after(20_000)).unwrap()), first);
    eventually("the old lane is closed too", || pool.counts().total == 0 && server.open.load(Ordering::SeqCst) == 0);
}

/// Offers a connection to a pool; whether it was kept.
fn offer(server: &Server, pool: &Arc<Pool>) -> bool {
    let options = peer::connect_options(Limits::default());
    let conn = Conn::open(&server.endpoint, &options, after(20_000)).unwrap();
    pool.offer(conn, &options).is_none()
}

#[test]
fn what_was_offered_is_the_first_connection() {
    for lends in [true, false] {
        let server = numbered();
        let pool = server.pool(pool_of(2));
        assert!(offer(&server, &pool));
        assert_eq!(pool.counts().total, 1);
        let loan = lends.then(|| pool.loan(Purpose::Session, after(20_000)).unwrap());
        if !lends {
            assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
        }
        assert_eq!((pool.counts().total, server.accepted()), (1, 1));
        assert!(!offer(&server, &pool), "it has one");
        drop(loan);
        let older = server.pool(pool_of(2));
        assert!(offer(&server, &older));
        eventually("the server has it", || server.open.load(Ordering::SeqCst) == 2);
        older.retire(Error::new(Status::Io, "over"));
        eventually("it ends with its pool", || server.open.load(Ordering::SeqCst) == 1);
        assert!(!offer(&server, &older), "it has ended");
    }
}

#[test]
fn what_was_offered_and_is_not_taken_ends() {
    let ends: [fn(&Arc<Pool>); 3] = [
        |_| (),
        |pool| pool.disconnect(),
        |pool| pool.reconfigure(peer::connect_options(Limits { max_bytes: 1000, ..Limits::default() }), false),
    ];
    for end in ends {
        let server = numbered();
        let pool = server.pool(pool_of(2));
        assert!(offer(&server, &pool));
        end(&pool);
        eventually("it is closed", || pool.counts().total == 0 && server.open.load(Ordering::SeqCst) == 0);
        drop(pool.loan(Purpose::Session, after(20_000)).unwrap());
        assert_eq!(server.accepted(), 2);
    }
    let server = numbered();
    let pool = server.pool(pool_of(2));
    pool.reconfigure(peer::connect_options(Limits { max_bytes: 1000, ..Limits::default() }), false);
    assert!(!offer(&server, &pool), "it would have opened another one");
}

#[test]
fn a_retired_pool_answers_everybody_at_once() {
    let server = Server::start(|mut peer, _| peer.await_end());
    let pool = server.pool(pool_of(3));
    let mut loans =
        vec![pool.loan(Purpose::Session, after(20_000)).unwrap(), pool.loan(Purpose::Session, after(20_000)).unwrap()];
    scope(|threads| {
        let waiting = threads.spawn(|| pool.loan(Purpose::Session, Deadline::never()).err().unwrap());
        let calling = threads.spawn(|| pool_echo(&pool, b"x", Deadline::never()).unwrap_err().error);
        let mut loan = loans.pop().unwrap();
        let reading = threads.spawn(move || loan.conn().unwrap().recv(Want::One, Deadline::never()).unwrap_err());
        eventually("all wait", || pool.counts().waiting == 1 && pool.counts().in_flight == 1);
        takes_at_most("the answers to all", 100 * MS, || {
            pool.retire(Error::new(Status::Closed, "another primary"));
            assert_eq!(waiting.join().unwrap().status(), Status::Closed);
            assert_eq!(calling.join().unwrap().status(), Status::Closed);
            reading.join().unwrap();
        });
    });
    drop(loans);
    assert_eq!(pool.loan(Purpose::Session, after(20_000)).err().unwrap().status(), Status::Closed);
    let failure = pool_echo(&pool, b"x", after(20_000)).unwrap_err();
    assert_eq!((failure.error.status(), failure.sent), (Status::Closed, 0));
    assert_eq!(pool.counts().total, 0);
    eventually("all are closed", || server.open.load(Ordering::SeqCst) == 0);
}

#[test]
fn disconnect_closes_what_is_idle_and_lets_the_rest_finish() {
    let go = Arc::new(AtomicBool::new(false));
    let server = {
        let go = go.clone();
        Server::start(move |mut peer: Peer, number| {
            while let Some(text) = peer.next_arg() {
                if text == b"slow" {
                    eventually("the test goes on", || go.load(Ordering::SeqCst));
                }
                let who = if text == b"WHO" { number.to_string().into_bytes() } else { text };
                peer.say_bulk(&who);
            }
        })
    };
    let pool = server.pool(pool_of(8));
    scope(|threads| {
        let slow = threads.spawn(|| pool_echo(&pool, b"slow", after(10_000)));
        eventually("it is on its way", || pool.counts().in_flight == 1);
        let (mut busy, idle) =
            (pool.loan(Purpose::Session, after(20_000)).unwrap(), pool.loan(Purpose::Session, after(20_000)).unwrap());
        drop(idle);
        assert_eq!((pool.counts().total, server.accepted()), (3, 3));
        pool.disconnect();
        eventually("the idle one is closed", || server.open.load(Ordering::SeqCst) == 2);
        assert_eq!(ask(&mut busy), b"1");
        drop(busy);
        eventually("and the lent one when it came back", || server.open.load(Ordering::SeqCst) == 1);
        assert_text(&pool_echo(&pool, b"new", after(20_000)), b"new");
        assert_eq!(server.accepted(), 4);
        go.store(true, Ordering::SeqCst);
        assert_text(&slow.join().unwrap(), b"slow");
    });
    eventually("only the new one is left", || pool.counts().total == 1 && server.open.load(Ordering::SeqCst) == 1);
}

#[test]
fn connections_that_cannot_be_opened_leave_no_trace() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut spec = Server::echo().spec(PoolSettings { min: 2, ..pool_of(3) });
    spec.endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port };
    let pool = Pool::new(spec);
    scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(pool.loan(Purpose::Session, after(20_000)).err().unwrap().status(), Status::Connect);
                    let failure = pool_echo(&pool, b"x", after(20_000)).unwrap_err();
                    assert_eq!((failure.error.status(), failure.sent), (Status::Connect, 0));
                }
            });
        }
    });
    let counts = pool.counts();
    assert_eq!((counts.total, counts.waiting, counts.lent), (0, 0, 0));
}

#[test]
fn a_waiter_learns_of_a_place_that_a_lane_left() {
    let cut = Arc::new(AtomicBool::new(false));
    let server = {
        let cut = cut.clone();
        Server::start(move |mut peer, number| {
            if number == 1 {
                return eventually("the test goes on", || cut.load(Ordering::SeqCst));
            }
            peer.echo();
        })
    };
    let pool = server.pool(pool_of(3));
    let unit =
        Unit { bytes: Bytes::Args(&[b"ECHO", b"x"]), list: None, at_most_once: false, lease: None, atomic: false };
    // The first call opens the first lane; the second asks for another.
    (0..2).for_each(|_| assert_text(&pool.exec(unit, true, after(20_000)), b"x"));
    eventually("there is a second lane", || pool.counts().lanes == 2);
    let _lent = pool.loan(Purpose::Session, after(20_000)).unwrap();
    assert_eq!(pool.counts().total, 3);
    scope(|threads| {
        let waiting = threads.spawn(|| pool.loan(Purpose::Session, after(10_000)));
        eventually("it waits", || pool.counts().waiting == 1);
        cut.store(true, Ordering::SeqCst);
        let loan = takes_at_most("the way of the place to the waiter", 1500 * MS, || waiting.join().unwrap());
        assert!(loan.is_ok());
        assert_eq!((pool.counts().total, pool.counts().lanes), (3, 1));
    });
}

/// While calls take this long, so many threads call.
fn load(pool: &Arc<Pool>, threads: usize, calls: usize) {
    scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for call in 0..calls {
                    let text = format!("{thread}.{call}");
                    assert_text(&pool_echo(pool, text.as_bytes(), after(10_000)), text.as_bytes());
                }
            });
        }
    });
}

#[test]
fn lanes_grow_with_the_load_up_to_their_bounds() {
    for (pool_max, lane_max, most) in [(16, 4, 4), (3, 4, 2), (2, 4, 1), (16, 2, 2)] {
        let server = Server::start(|mut peer, _| {
            while let Some(text) = peer.next_arg() {
                std::thread::sleep(MS);
                peer.say_bulk(&text);
            }
        });
        let mut spec = server.spec(pool_of(pool_max));
        spec.lane.max = lane_max;
        let pool = Pool::new(spec);
        assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
        assert_eq!(pool.counts().lanes, 1);
        eventually("it grows", || {
            load(&pool, 6, 5);
            pool.counts().lanes == most
        });
        load(&pool, 12, 10);
        assert_eq!((pool.counts().lanes, server.most_open.load(Ordering::SeqCst)), (most, most));
    }
}

#[test]
fn calls_avoid_a_busy_lane_and_slow_ones_the_shared_lane() {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let server = Server::start(move |mut peer, number| {
        while let Some(text) = peer.next_arg() {
            if text == b"slow" {
                let _ = gate.lock().unwrap().recv();
                peer.say_bulk(number.to_string().as_bytes());
            } else {
                peer.say_bulk(&text);
            }
        }
    });
    let mut spec = server.spec(pool_of(4));
    spec.lane.silent = Duration::from_secs(60);
    let pool = Pool::new(spec);
    let slow = || {
        let unit = Unit {
            bytes: Bytes::Args(&[b"ECHO", b"slow"]),
            list: None,
            at_most_once: false,
            lease: None,
            atomic: false,
        };
        let reply = pool.exec(unit, true, after(60_000)).unwrap();
        reply.bytes(0).unwrap().to_vec()
    };
    let quick = |ms| pool_echo(&pool, b"quick", after(ms));
    let usual = (0..5).map(|_| paced(|| assert_text(&quick(10_000), b"quick")).1).max().unwrap();
    // The first slow call finds a single lane, and asks for a second.
    scope(|threads| {
        let slow = threads.spawn(slow);
        eventually("there is a second lane", || pool.counts().lanes == 2);
        // By then the slow call is late; calls behind it would wait as long.
        std::thread::sleep(200 * MS + 16 * usual);
        (0..50).for_each(|_| assert_text(&quick(10_000), b"quick"));
        go.send(()).unwrap();
        slow.join().unwrap();
    });
    let lanes = pool.counts().lanes;
    scope(|threads| {
        let slow = threads.spawn(slow);
        eventually("it is on its way", || pool.counts().in_flight == 1);
        (0..50).for_each(|_| assert_text(&quick(10_000), b"quick"));
        go.send(()).unwrap();
        assert_ne!(slow.join().unwrap(), b"0", "of {lanes} lanes the first");
    });
}

#[test]
fn idle_connections_to_a_host_that_vanished_are_found_dead_and_others_live_on() {
    let gone = Arc::new(AtomicBool::new(false));
    let deaf = Arc::clone(&gone);
    let server = Server::start(move |mut peer, _| {
        while let Some(text) = peer.next_arg() {
            if !deaf.load(Ordering::Acquire) && !peer.say_bulk(&text) {
                return;
            }
        }
    });
    let pool = server.pool(PoolSettings { idle: Some(4500 * MS), ..pool_of(4) });
    assert_text(&pool_echo(&pool, b"x", after(20_000)), b"x");
    let mut loan = pool.loan(Purpose::Session, after(20_000)).unwrap();
    ask(&mut loan);
    drop(loan);
    // PINGs were sent and answered, and do not count as use.
    let begun = Instant::now();
    while begun.elapsed() < 3500 * MS {
        assert_eq!((pool.counts().lanes, pool.counts().idle), (1, 1), "after {:?}", begun.elapsed());
        std::thread::sleep(50 * MS);
    }
    eventually("unused connections are closed", || pool.counts().total == 0);
    // Long before the idle limit.
    let pool = server.pool(PoolSettings { idle: Some(600_000 * MS), ..pool_of(4) });
    assert_text(&pool_echo(&pool, b"y", after(20_000)), b"y");
    drop(pool.loan(Purpose::Session, after(20_000)).unwrap());
    assert_eq!((pool.counts().lanes, pool.counts().idle), (1, 1));
    gone.store(true, Ordering::Release);
    eventually("silent connections are closed", || pool.counts().total == 0);
}

/// A submitted call whose end is recorded.
struct Seen(Mutex<Option<Outcome>>);

impl Completion for Seen {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        assert!(self.0.lock().unwrap().replace(outcome).is_none(), "it ends once");
    }

    fn is(&self, _owner: usize, _token: u64) -> bool {
        false
    }
}

/// Starts an ECHO on the lane of submitted calls.
fn start_echo(pool: &Arc<Pool>, text: &[u8]) -> Arc<Seen> {
    let seen = Arc::new(Seen(Mutex::default()));
    let args: [&[u8]; 2] = [b"ECHO", text];
    // A lane that is being replaced takes no more calls.
    eventually("a lane takes it", || {
        let submit_lane = pool.open_submit_lane(Traffic::Plain, after(20_000)).unwrap().expect("a lane");
        let unit = Unit { bytes: Bytes::Args(&args), list: None, at_most_once: false, lease: None, atomic: false };
        submit_lane.start(unit, after(20_000), seen.clone(), None).is_ok()
    });
    seen
}

#[track_caller]
fn await_echo(seen: &Seen, text: &[u8]) {
    eventually("the call ends", || seen.0.lock().unwrap().is_some());
    assert_text(seen.0.lock().unwrap().as_ref().unwrap(), text);
}

#[test]
fn what_a_full_socket_left_of_a_submitted_call_follows_as_soon_as_it_takes_more() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |mut peer, _| {
        // After the first call the worker sleeps; then nothing is read until the test says so.
        let text = peer.next_arg().unwrap();
        peer.say_bulk(&text);
        let _ = wait.lock().unwrap().recv();
        peer.echo();
    });
    let pool = server.pool(PoolSettings::default());
    await_echo(&start_echo(&pool, b"small"), b"small");
    std::thread::sleep(20 * MS); // the worker has gone to sleep in poll
    let large = vec![b'x'; 8 << 20];
    let seen = start_echo(&pool, &large);
    assert!(pool.submit_lane(Traffic::Plain).unwrap().lane().wants_write(), "the socket is full");
    go.send(()).unwrap();
    // The worker's sleep ends by itself after two seconds.
    takes_at_most("the rest", 1000 * MS, || await_echo(&seen, &large));
}

#[test]
fn the_place_of_a_submit_lane_that_ended_is_given_back_when_the_first_lane_takes_over() {
    let server = Server::echo();
    let pool = server.pool(PoolSettings { max: 2, ..PoolSettings::default() });
    assert_text(&pool_echo(&pool, b"first", after(20_000)), b"first");
    await_echo(&start_echo(&pool, b"own"), b"own");
    let submit_lane = pool.submit_lane(Traffic::Plain).unwrap();
    assert_eq!(pool.counts().total, 2);
    submit_lane.lane().shut(Error::new(Status::Io, "on purpose"));
    await_echo(&start_echo(&pool, b"again"), b"again");
    pool.disconnect();
    drop(submit_lane);
    eventually("all places are free", || pool.counts().total == 0);
}

#[test]
fn a_submit_lane_that_was_idle_for_long_is_closed_though_others_still_know_it() {
    let server = Server::echo();
    let pool = server.pool(PoolSettings { idle: Some(100 * MS), ..PoolSettings::default() });
    await_echo(&start_echo(&pool, b"x"), b"x");
    let submit_lane = pool.submit_lane(Traffic::Plain).unwrap();
    eventually("its place is free", || pool.counts().total == 0);
    eventually("its connection is closed", || server.open.load(Ordering::SeqCst) == 0);
    drop(submit_lane);
}

/// A server that answers WHO with the number of the connection, "slow" when the test goes on, and everything else with the last argument.
fn pausing() -> (Server, Arc<AtomicBool>) {
    let go = Arc::new(AtomicBool::new(false));
    let goes = go.clone();
    let server = Server::start(move |mut peer, number| {
        while let Some(text) = peer.next_arg() {
            if text == b"slow" {
                eventually("the test goes on", || goes.load(Ordering::SeqCst));
            }
            let who = if text == b"WHO" { number.to_string().into_bytes() } else { text };
            peer.say_bulk(&who);
        }
    });
    (server, go)
}

fn who(pool: &Arc<Pool>, ms: u64) -> Option<Vec<u8>> {
    pool_echo(pool, b"WHO", after(ms)).ok().and_then(|reply| reply.bytes(0).map(<[u8]>::to_vec))
}

#[test]
fn a_lane_that_is_always_in_use_ends_with_its_lifetime() {
    let (server, go) = pausing();
    let mut spec = server.spec(PoolSettings { lifetime: Some(60 * MS), ..pool_of(4) });
    spec.lane.max = 1;
    let pool = Pool::new(spec);
    assert_eq!(who(&pool, 5000), Some(b"0".to_vec()));
    scope(|threads| {
        let slow = threads.spawn(|| pool_echo(&pool, b"slow", after(20_000)));
        eventually("it is on its way", || pool.counts().in_flight == 1);
        let on_submit_lanes = start_echo(&pool, b"slow");
        let old = pool.submit_lane(Traffic::Plain).unwrap();
        eventually("its successor is open", || who(&pool, 50).is_some_and(|number| number != b"0"));
        eventually("and so is that of submitted calls", || {
            pool.submit_lane(Traffic::Plain).is_some_and(|submit_lane| !Arc::ptr_eq(&submit_lane, &old))
        });
        go.store(true, Ordering::SeqCst);
        assert_text(&slow.join().unwrap(), b"slow");
        await_echo(&on_submit_lanes, b"slow");
        eventually("the old ones are closed", || old.lane().is_dead());
    });
    assert!(server.most_open.load(Ordering::SeqCst) <= 4);
}

#[test]
fn without_a_place_for_its_successor_an_old_lane_ends_when_it_is_idle() {
    let (server, go) = pausing();
    let pool = server.pool(PoolSettings { lifetime: Some(60 * MS), ..pool_of(2) });
    assert_eq!(who(&pool, 5000), Some(b"0".to_vec()));
    let _lent = pool.loan(Purpose::Session, after(5000)).unwrap();
    scope(|threads| {
        let slow = threads.spawn(|| pool_echo(&pool, b"slow", after(20_000)));
        eventually("it is on its way", || pool.counts().in_flight == 1);
        std::thread::sleep(700 * MS); // Longer than a tick: it is too old, and stays.
        assert_eq!((pool.counts().lanes, pool.counts().total, server.accepted()), (1, 2, 2));
        go.store(true, Ordering::SeqCst);
        assert_text(&slow.join().unwrap(), b"slow");
    });
    eventually("it is closed", || pool.counts().total == 1);
    assert_eq!(who(&pool, 5000), Some(b"2".to_vec()));
}

#[test]
fn pool_max_holds_while_lanes_drain() {
    let (server, go) = pausing();
    let pool = server.pool(pool_of(2));
    assert_eq!(who(&pool, 5000), Some(b"0".to_vec()));
    scope(|threads| {
        let slow = threads.spawn(|| pool_echo(&pool, b"slow", after(20_000)));
        eventually("it is on its way", || pool.counts().in_flight == 1);
        let lent = pool.loan(Purpose::Session, after(5000)).unwrap();
        pool.disconnect();
        let failure = pool_echo(&pool, b"no place", after(100)).unwrap_err();
        assert_eq!((failure.error.status(), failure.sent), (Status::Timeout, 0));
        assert_eq!((server.accepted(), pool.counts().total), (2, 2));
        let waiting = threads.spawn(|| who(&pool, 20_000));
        go.store(true, Ordering::SeqCst);
        assert_text(&slow.join().unwrap(), b"slow");
        // The next lane takes the place of the drained one.
        assert_eq!(waiting.join().unwrap(), Some(b"2".to_vec()));
        drop(lent);
    });
    assert_eq!(server.most_open.load(Ordering::SeqCst), 2);
}

#[test]
fn pool_max_holds_however_often_all_connections_are_renewed() {
    let server = numbered();
    let pool = server.pool(pool_of(5));
    let end = Instant::now() + Duration::from_millis(1000);
    scope(|threads| {
        for thread in 0..20u64 {
            let pool = &pool;
            threads.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                while Instant::now() < end {
                    match random.u32(..20) {
                        0 => pool.disconnect(),
                        1 => drop(pool.open_submit_lane(Traffic::Plain, after(20_000)).unwrap()),
                        2..8 => drop(ask(&mut pool.loan(Purpose::Session, after(20_000)).unwrap())),
                        _ => assert_text(&pool_echo(pool, b"x", after(20_000)), b"x"),
                    }
                    assert!(pool.counts().total <= 5);
                }
            });
        }
    });
    let counts = pool.counts();
    assert_eq!((counts.lent, counts.waiting), (0, 0));
}

#[test]
fn the_load_goes_to_the_next_lane_while_the_head_of_the_first_is_late() {
    let (server, go) = pausing();
    let mut spec = server.spec(pool_of(4));
    // All calls share one lane from the start.
    (spec.lane.max, spec.lane.share_at) = (2, 0.0);
    let pool = Pool::new(spec);
    assert_eq!(who(&pool, 5000), Some(b"0".to_vec()));
    scope(|threads| {
        let slow = threads.spawn(|| pool_echo(&pool, b"slow", Deadline::never()));
        eventually("it is on its way", || pool.counts().in_flight == 1);
        // A caller that finds all lanes late requests another one, and waits behind the head of the first.
        eventually("there is a second lane", || {
            let _ = who(&pool, 20);
            pool.counts().lanes == 2
        });
        for _ in 0..50 {
            assert_eq!(who(&pool, 20_000), Some(b"1".to_vec()));
        }
        go.store(true, Ordering::SeqCst);
        assert_text(&slow.join().unwrap(), b"slow");
    });
}
