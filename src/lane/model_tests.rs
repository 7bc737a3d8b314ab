//! The roles of a lane in every order of two or three threads, by loom.
//!
//! This is the lane itself, not a copy: state, reader, writer, slots and their orders. Only the kernel is replaced: by words that
//! sleep and wake like futexes (sys/futex.rs), and by a connection in memory (net/scripted.rs). The clock moves when a model moves
//! it, and when all threads sleep that can; in a model without time a wait has no end, so that nothing in it can rely on a timeout.
//! What is proven, for up to two, three or four preemptions: no caller is left without a reader or a writer (loom ends a run in
//! which all sleep), each unit ends once and with its own answer, a caller whose deadline comes passes its roles on, and the
//! outcome of a unit on a dead lane is true. Not modelled: panics (src/lane/tests.rs), the cork, the copies in `Hints`.
//! tests/it/loom.rs runs this, and then again with each of the faults that are named in the sources (sys/fault.rs), which have to
//! be detected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::thread;

use super::role::LaneRole;
use super::{Bytes, Completion, Lane, Outcome, Unit};
use crate::config::LaneSettings;
use crate::error::{Error, Status};
use crate::net::{ANSWER, COMMAND, In, Script, Socket, Wire};
use crate::resp::Limits;
use crate::sys::futex;
use crate::sys::slot::{self, Order, Seen};
use crate::time::{Deadline, Instant};

/// A deadline that no other wait of a lane comes near.
const HOUR: Duration = Duration::from_secs(3600);

/// Tries all orders with at most this many preemptions. With `time` the clock may move.
fn try_all(preemptions: usize, time: bool, model: impl Fn() + Send + Sync + 'static) {
    // Loom cannot unwind from the middle of an order: the first message about a fault is the last one.
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|fault| {
            eprintln!("{fault}");
            std::process::exit(101);
        }));
    });
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.location = true;
    builder.max_branches = 10_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        futex::start(time);
        model();
    });
    println!("{} orders", runs.load(Ordering::Relaxed));
}

fn lane(script: Script) -> Arc<Lane> {
    let settings = LaneSettings { hold_rtt: Duration::ZERO, silent: 100 * HOUR, ..LaneSettings::default() };
    let wire = Wire::new(Arc::new(Socket::scripted(script)));
    Arc::new(Lane::new((wire, In::new(Limits::default(), 16 * 1024, 16 * 1024)), "server".to_owned(), settings))
}

const ECHO: Script = Script { room: usize::MAX, silent: false };
const SILENT: Script = Script { room: usize::MAX, silent: true };

fn call(lane: &Lane, letter: char, deadline: Deadline) -> Outcome {
    lane.exec(
        Unit {
            bytes: Bytes::Args(&[letter.to_string().as_bytes()]),
            list: None,
            at_most_once: false,
            lease: None,
            atomic: false,
        },
        deadline,
    )
}

#[track_caller]
fn assert_own(letter: char, outcome: &Outcome) {
    match outcome {
        Ok(reply) => assert_eq!(reply.bytes(0), Some(letter.to_string().as_bytes())),
        Err(failure) => panic!("{letter}: {failure:?}"),
    }
}

/// Its own reply, or its deadline.
#[track_caller]
fn assert_own_or_late(letter: char, outcome: &Outcome) {
    match outcome {
        Err(failure) if failure.error.status() == Status::Timeout => {
            assert!([0, COMMAND].contains(&failure.sent), "{failure:?}");
        }
        _ => assert_own(letter, outcome),
    }
}

/// A caller with this deadline, in a thread.
fn caller(lane: &Arc<Lane>, letter: char, deadline: Deadline) -> thread::JoinHandle<Outcome> {
    let lane = lane.clone();
    thread::spawn(move || call(&lane, letter, deadline))
}

/// Lets the time of this deadline pass, at any moment.
fn pass(deadline: Deadline) {
    futex::pass_time(deadline.end().unwrap());
}

/// No role is held, and nothing is in flight once one more caller has been served.
fn assert_well(lane: &Lane) {
    let st = lane.lock();
    assert_eq!((st.reader, st.writer), (LaneRole::Free, LaneRole::Free));
    drop(st);
    assert_own('z', &call(lane, 'z', Deadline::never()));
    let st = lane.lock();
    assert_eq!((st.in_flight(), st.reader, st.writer, st.has_unsent()), (0, LaneRole::Free, LaneRole::Free, false));
}

// ---- the slot ---------------------------------------------------------------------------------

/// What the delivering thread does with its completer, in the order of the list.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Lead,
    Flush,
    Deliver,
    Drop,
}

/// A waiter that sees everything that is done with the completer, although its deadline may come meanwhile.
fn a_waiter_sees(steps: &'static [Does]) {
    try_all(3, true, move || {
        let word = Arc::new(futex::Word::default());
        let end = Instant::now() + HOUR;
        let clock = thread::spawn(move || futex::pass_time(end));
        let seen = slot::scope(|slot, completer| {
            let theirs = word.clone();
            thread::spawn(move || {
                let mut completer = Some(completer);
                for step in steps {
                    let wake = match step {
                        Does::Lead => completer.as_ref().unwrap().order(Order::TakeReader),
                        Does::Flush => completer.as_ref().unwrap().order(Order::TakeWriter),
                        Does::Deliver => completer.take().unwrap().deliver('v'),
                        Does::Drop => {
                            drop(completer.take());
                            true
                        }
                    };
                    if wake {
                        theirs.wake(2);
                    }
                }
            });
            let (mut end, mut seen) = (Some(end), Vec::new());
            loop {
                match slot.wait(&word, 2, end) {
                    Seen::Order(Order::TakeReader) => seen.push(Does::Lead),
                    Seen::Order(Order::TakeWriter) => seen.push(Does::Flush),
                    Seen::Done(value) => {
                        assert_eq!(value, 'v');
                        seen.push(Does::Deliver);
                        return seen;
                    }
                    Seen::Released => {
                        seen.push(Does::Drop);
                        return seen;
                    }
                    Seen::Late => end = None,
                }
            }
        });
        clock.join().unwrap();
        assert!(seen.last() == steps.last() && seen.len() == steps.len(), "something was lost");
        assert!(steps.iter().all(|step| seen.contains(step)), "something else was seen");
    });
}

#[test]
fn a_slot_gets_its_value() {
    a_waiter_sees(&[Does::Deliver]);
}

#[test]
fn a_slot_gets_its_orders_before_its_value() {
    a_waiter_sees(&[Does::Lead, Does::Flush, Does::Deliver]);
}

#[test]
fn a_slot_learns_that_its_token_is_gone() {
    a_waiter_sees(&[Does::Flush, Does::Drop]);
}

#[test]
fn a_slot_outlives_its_token_though_nobody_waits() {
    try_all(3, false, || {
        let handle = slot::scope(|_, completer| thread::spawn(move || completer.deliver('v')));
        assert!(!handle.join().unwrap(), "nobody slept");
    });
}

// ---- the roles --------------------------------------------------------------------------------

#[test]
fn two_callers() {
    try_all(4, false, || {
        let lane = lane(ECHO);
        let b = caller(&lane, 'b', Deadline::never());
        assert_own('a', &call(&lane, 'a', Deadline::never()));
        assert_own('b', &b.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn three_callers() {
    try_all(3, false, || {
        let lane = lane(ECHO);
        let b = caller(&lane, 'b', Deadline::never());
        let c = caller(&lane, 'c', Deadline::never());
        assert_own('a', &call(&lane, 'a', Deadline::never()));
        assert_own('b', &b.join().unwrap());
        assert_own('c', &c.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn two_callers_whose_answers_come_in_pieces() {
    try_all(3, false, || {
        let lane = lane(SILENT);
        let a = caller(&lane, 'a', Deadline::never());
        let b = caller(&lane, 'b', Deadline::never());
        lane.socket().say(ANSWER - 2);
        lane.socket().say(ANSWER);
        lane.socket().speak();
        assert_own('a', &a.join().unwrap());
        assert_own('b', &b.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn a_caller_whose_deadline_comes_hands_on_what_it_had() {
    try_all(3, true, || {
        let lane = lane(SILENT);
        let hour = Deadline::after(HOUR);
        let a = caller(&lane, 'a', hour);
        let b = caller(&lane, 'b', Deadline::never());
        lane.socket().say(ANSWER - 2);
        pass(hour);
        lane.socket().speak();
        assert_own_or_late('a', &a.join().unwrap());
        assert_own('b', &b.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn a_writer_whose_deadline_comes_hands_its_role_on() {
    try_all(2, true, || {
        let lane = lane(Script { room: 5, silent: false });
        let hour = Deadline::after(HOUR);
        let a = caller(&lane, 'a', hour);
        let b = caller(&lane, 'b', Deadline::never());
        pass(hour);
        lane.socket().make_room(usize::MAX);
        assert_own_or_late('a', &a.join().unwrap());
        assert_own('b', &b.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn a_writer_leaves_its_role_to_one_that_is_not_the_reader() {
    try_all(0, true, || {
        let lane = lane(Script { room: 5, silent: false });
        let hour = Deadline::after(HOUR);
        let a = caller(&lane, 'a', hour);
        let b = caller(&lane, 'b', Deadline::never());
        let c = caller(&lane, 'c', Deadline::never());
        // All three wait before the time passes, and look before there is room. With one preemption that is 600,000 orders, which
        // were tried once; here the situation is set up, and the few orders around it are tried.
        thread::yield_now();
        pass(hour);
        thread::yield_now();
        lane.socket().make_room(usize::MAX);
        assert_own_or_late('a', &a.join().unwrap());
        assert_own('b', &b.join().unwrap());
        assert_own('c', &c.join().unwrap());
        assert_well(&lane);
    });
}

#[test]
fn both_deadlines_come() {
    try_all(2, true, || {
        let lane = lane(Script { room: 16, silent: true });
        let hour = Deadline::after(HOUR);
        let a = caller(&lane, 'a', hour);
        let b = caller(&lane, 'b', hour);
        pass(hour);
        lane.socket().make_room(usize::MAX);
        assert_own_or_late('a', &a.join().unwrap());
        assert_own_or_late('b', &b.join().unwrap());
        lane.socket().speak();
        assert_well(&lane);
    });
}

// ---- submitted calls ----------------------------------------------------------------------

/// Counts how often its call was ended, and how often with a reply.
#[derive(Default)]
struct Told {
    ended: AtomicUsize,
    well: AtomicUsize,
}

impl Completion for Told {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        if outcome.is_ok() {
            assert_own('s', &outcome);
            self.well.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is(&self, _owner: usize, _token: u64) -> bool {
        true
    }
}

/// A call is submitted beside a caller, and this is done to it. The thread that submitted it drives the lane until it has ended.
fn started(time: bool, script: Script, then: fn(&Lane), well: Option<usize>) {
    try_all(3, time, move || {
        let lane = lane(script);
        let a = caller(&lane, 'a', Deadline::never());
        let told = Arc::new(Told::default());
        let unit = Unit { bytes: Bytes::Args(&[b"s"]), list: None, at_most_once: false, lease: None, atomic: false };
        assert!(lane.start(unit, Deadline::after(HOUR), told.clone(), None).is_ok());
        then(&lane);
        while told.ended.load(Ordering::Relaxed) == 0 {
            lane.drive();
            thread::yield_now();
        }
        assert_own('a', &a.join().unwrap());
        assert_well(&lane);
        assert_eq!(told.ended.load(Ordering::Relaxed), 1);
        assert!(well.is_none_or(|well| well == told.well.load(Ordering::Relaxed)));
    });
}

#[test]
fn a_call_is_started_beside_a_caller() {
    started(false, ECHO, |_| (), Some(1));
}

#[test]
fn a_call_is_started_that_is_late() {
    let then = |lane: &Lane| {
        futex::pass_time(Instant::now() + HOUR);
        lane.socket().speak();
    };
    started(true, SILENT, then, None);
}

#[test]
fn a_call_is_started_and_cancelled() {
    let then = |lane: &Lane| {
        lane.cancel(0, 0);
    };
    started(false, ECHO, then, None);
}

// ---- the end of a lane ------------------------------------------------------------------------

/// Two callers, of which the second one's command is at most half sent; the connection ends at any moment.
fn the_end(end: fn(&Lane)) {
    try_all(3, false, move || {
        let lane = lane(Script { room: COMMAND + 5, silent: false });
        let a = caller(&lane, 'a', Deadline::never());
        let b = caller(&lane, 'b', Deadline::never());
        end(&lane);
        let outcomes = [('a', a.join().unwrap()), ('b', b.join().unwrap())];
        let heard = lane.socket().heard();
        for (letter, outcome) in outcomes {
            match outcome {
                Ok(_) => assert_own(letter, &outcome),
                Err(failure) if failure.sent < COMMAND => assert!(!heard.contains(&letter), "{letter}: {failure:?}"),
                Err(failure) => assert_eq!(failure.sent, COMMAND),
            }
        }
        let st = lane.lock();
        assert_eq!((st.in_flight(), st.reader, st.writer), (0, LaneRole::Free, LaneRole::Free));
        assert!(st.dead.is_some());
    });
}

#[test]
fn the_server_ends_it() {
    the_end(|lane| lane.socket().shutdown());
}

#[test]
fn it_is_shut() {
    the_end(|lane| lane.shut(Error::new(Status::Closed, "the end")));
}
