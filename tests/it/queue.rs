//! The queue: order, exactly once, its descriptor, wake-ups, capacity and losses, reservations, deadlines, the close.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::calls::alone;
use vigie::error::{Error, Status, flags};
use vigie::queue::{Credits, Event, MAX_CAPACITY, Queue, kind};
use vigie::resp::ReplyBuilder;
use vigie::sys::poll::{PollFd, wait};
use vigie::time::Deadline;

fn queue(capacity: usize) -> Arc<Queue> {
    Queue::create(capacity).expect("a queue")
}

fn event(token: u64) -> Event {
    let reply = ReplyBuilder::new().map().text("service").text("orders").finish();
    Event { kind: kind::TOPOLOGY, token, outcome: Ok(Some(reply)) }
}

fn at_once() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn drain(queue: &Queue, most: usize) -> Vec<Event> {
    let mut out = Vec::new();
    let count = queue.drain(at_once(), &mut out, most);
    assert_eq!(count, out.len());
    out
}

fn tokens(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.token).collect()
}

/// The number of events that a DROPPED event counts; 0 for any other event.
fn lost(event: &Event) -> i64 {
    match (&event.outcome, event.kind) {
        (Ok(Some(reply)), kind::DROPPED) => reply.int(0).expect("an INT"),
        _ => 0,
    }
}

/// Whether the descriptor of a queue becomes readable. Asked for once, as an application does: asking adds a missing
/// byte.
fn readable(fd: RawFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, true, false)];
    wait(&mut fds, Some(timeout)).expect("poll") == 1
}

fn is_readable(fd: RawFd) -> bool {
    readable(fd, Duration::ZERO)
}

/// Reads the bytes that are there, as the stream of an event loop does.
fn steal(fd: RawFd) -> usize {
    // SAFETY: the queue of the test outlives the call and does not close its descriptor meanwhile.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().expect("a copy of the descriptor");
    File::from(fd).read(&mut [0; 64]).unwrap_or(0)
}

fn status(outcome: &Result<Option<vigie::resp::Reply>, Error>) -> Option<Status> {
    outcome.as_ref().err().map(Error::status)
}

fn one(mut credits: Credits) -> vigie::queue::Reservation {
    credits.next().expect("one")
}

#[test]
fn a_capacity_out_of_range_is_refused() {
    for capacity in [0, MAX_CAPACITY + 1, usize::MAX] {
        let error = Queue::create(capacity).map(|_| ()).expect_err("refused");
        assert_eq!(error.status(), Status::InvalidArg);
        assert!(error.message().contains(&capacity.to_string()), "{error}");
    }
    assert!(Queue::create(MAX_CAPACITY).is_ok());
}

#[test]
fn events_come_in_order_and_as_many_as_asked_for() {
    let queue = queue(16);
    for token in 0..10 {
        assert!(queue.push(event(token)));
    }
    assert!(drain(&queue, 0).is_empty());
    assert_eq!(tokens(&drain(&queue, 3)), [0, 1, 2]);
    assert!(queue.push(event(10)));
    let rest = drain(&queue, 100);
    assert_eq!(tokens(&rest), (3..=10).collect::<Vec<_>>());
    let reply = rest[0].outcome.as_ref().expect("no error").as_ref().expect("a reply");
    assert_eq!(reply.find(0, b"service").and_then(|id| reply.bytes(id)), Some(&b"orders"[..]));
    assert!(drain(&queue, 1).is_empty());
}

#[test]
fn eight_producers_and_four_drainers_lose_and_double_nothing() {
    const EACH: u64 = 5_000;
    let queue = queue(64);
    let seen = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let mut out = Vec::new();
                    queue.drain(Deadline::after(Duration::from_secs(20)), &mut out, 7);
                    in_order_per_producer(&out);
                    seen.lock().unwrap().extend(tokens(&out));
                }
            });
        }
        let producers: Vec<_> = (0..8u64)
            .map(|producer| {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..EACH {
                        one(reserve(queue, producer << 32 | number)).complete(Ok(None));
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        for _ in 0..4 {
            queue.wakeup();
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.extend(tokens(&drain(&queue, usize::MAX)));
    seen.sort_unstable();
    let wanted: Vec<_> = (0..8u64).flat_map(|producer| (0..EACH).map(move |number| producer << 32 | number)).collect();
    assert_eq!(seen.len(), wanted.len());
    assert!(seen == wanted, "each event came once");
}

/// Waits for room, as a caller does after QUEUE_FULL.
fn reserve(queue: &Arc<Queue>, token: u64) -> Credits {
    loop {
        match queue.reserve(token, 1) {
            Ok(credits) => return credits,
            Err(error) => assert_eq!(error.status(), Status::QueueFull),
        }
        std::thread::yield_now();
    }
}

fn in_order_per_producer(events: &[Event]) {
    let mut last = HashMap::new();
    for event in events {
        let before = last.insert(event.token >> 32, event.token);
        assert!(before < Some(event.token), "{before:?} before {}", event.token);
    }
}

#[test]
fn the_descriptor_is_readable_while_something_is_due() {
    let queue = queue(16);
    let fd = queue.fd();
    assert!(!is_readable(fd));
    for token in 0..5 {
        queue.push(event(token));
        assert!(is_readable(fd));
    }
    assert_eq!(drain(&queue, 2).len(), 2);
    assert!(is_readable(fd), "three are left");
    assert_eq!(drain(&queue, 3).len(), 3);
    assert!(!is_readable(fd));
    assert!(drain(&queue, 3).is_empty());
    assert!(!is_readable(fd));
    queue.wakeup();
    assert!(is_readable(fd));
    assert!(drain(&queue, 3).is_empty());
    assert!(!is_readable(fd));
}

#[test]
fn a_descriptor_asked_for_late_tells_of_what_was_before() {
    let (with_event, woken, drained) = (queue(4), queue(4), queue(4));
    with_event.push(event(1));
    woken.wakeup();
    drained.push(event(1));
    drain(&drained, 4);
    assert!(is_readable(with_event.fd()) && is_readable(woken.fd()) && !is_readable(drained.fd()));
    assert_eq!(with_event.fd(), with_event.fd());
}

#[test]
fn it_does_not_matter_who_reads_the_byte() {
    let queue = queue(16);
    let fd = queue.fd();
    assert!(!is_readable(fd));
    for round in 0..3 {
        for token in 0..4 {
            queue.push(event(token));
        }
        assert_eq!(steal(fd), 1, "one byte, however many events");
        assert!(!is_readable(fd));
        assert_eq!(drain(&queue, 3).len(), 3);
        assert!(is_readable(fd), "round {round}: one is left");
        assert_eq!(drain(&queue, 3).len(), 1);
        assert!(!is_readable(fd));
        assert_eq!(steal(fd), 0);
    }
}

#[test]
fn an_application_that_closes_the_descriptor_gets_no_signal() {
    alone(concat!(module_path!(), "::an_application_that_closes_the_descriptor_gets_no_signal"), || {
        let queue = queue(4);
        let given = queue.fd();
        // SAFETY: a signal's disposition and a descriptor of this test; what is opened in its place is closed by the queue.
        let (before, null) = unsafe {
            let before = libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            assert_eq!(libc::dup2(null, given), given); // as close() and somebody else's open() would
            (before, null)
        };
        for token in 0..3 {
            assert!(queue.push(event(token)));
            assert_eq!(drain(&queue, 4).len(), 1);
        }
        // SAFETY: as above.
        unsafe {
            libc::close(null);
            libc::signal(libc::SIGPIPE, before);
        }
    });
}

#[test]
fn a_wakeup_is_kept_for_the_next_drain_and_for_one_only() {
    let queue = queue(4);
    queue.wakeup();
    let begun = Instant::now();
    assert_eq!(queue.drain(Deadline::after(Duration::from_secs(20)), &mut Vec::new(), 4), 0);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let begun = Instant::now();
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(30)), &mut Vec::new(), 4), 0);
    assert!(begun.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_drain_waits_for_an_event_but_not_beyond_its_deadline() {
    let queue = queue(4);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let mut out = Vec::new();
            queue.drain(Deadline::never(), &mut out, 4);
            tokens(&out)
        });
        assert!(queue.push(event(7)));
        assert_eq!(drain.join().unwrap(), [7]);
    });
    let begun = Instant::now();
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(50)), &mut Vec::new(), 4), 0);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(50) && took < Duration::from_secs(5), "{took:?}");
    queue.push(event(8));
    assert_eq!(queue.drain(at_once(), &mut Vec::new(), 4), 1, "what is there comes without time left, too");
}

/// The tokens that fit, in order, and whether these were all.
fn drain_sum(queue: &Queue, deadline: Deadline, most: u64) -> (Vec<u64>, bool) {
    let (mut out, mut left) = (Vec::new(), most);
    let all = queue.drain_while(deadline, &mut out, |event| {
        let rest = left.checked_sub(event.token);
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    (tokens(&out), all)
}

#[test]
fn a_drain_by_size_leaves_what_does_not_fit_in_its_place() {
    let queue = queue(4);
    let fd = queue.fd();
    assert!([3, 9, 1, 1].into_iter().all(|token| queue.push(event(token))));
    assert_eq!(drain_sum(&queue, Deadline::never(), 5), (vec![3], false), "the small ones do not overtake");
    queue.wakeup();
    assert_eq!(drain_sum(&queue, Deadline::never(), 8), (vec![], false));
    assert!(is_readable(fd));
    let error = queue.reserve(0, 2).map(|_| ()).expect_err("three have stayed");
    assert_eq!(error.status(), Status::QueueFull);
    assert_eq!(drain_sum(&queue, at_once(), 10), (vec![9, 1], false));
    assert_eq!(drain_sum(&queue, at_once(), 1), (vec![1], true));
    assert!(!is_readable(fd), "the drain that left nothing took the wake-up with it");
    drop(queue.reserve(0, 4).expect("all room is free again"));
    let begun = Instant::now();
    assert_eq!(drain_sum(&queue, Deadline::after(Duration::from_millis(30)), 1), (vec![], true));
    assert!(begun.elapsed() >= Duration::from_millis(30));
    queue.wakeup();
    assert_eq!(drain_sum(&queue, Deadline::never(), 1), (vec![], true));
    assert!(queue.push(event(7)));
    queue.close();
    assert_eq!(drain_sum(&queue, Deadline::never(), 6), (vec![], false));
    assert_eq!(drain_sum(&queue, Deadline::never(), 7), (vec![7], true));
    assert_eq!(drain_sum(&queue, Deadline::never(), 7), (vec![], true));
}

#[test]
fn a_drain_by_size_sees_a_loss_as_an_event() {
    let queue = queue(1);
    assert!((1..4).map(|token| queue.push(event(token))).eq([true, false, false]));
    let mut out = Vec::new();
    assert!(!queue.drain_while(at_once(), &mut out, |event| event.kind != kind::DROPPED));
    assert_eq!(tokens(&out), [1]);
    assert!(queue.push(event(4)));
    assert!(queue.drain_while(at_once(), &mut out, |_| true));
    assert_eq!(out.iter().map(|event| (event.token, lost(event))).collect::<Vec<_>>(), [(1, 0), (0, 2), (4, 0)]);
}

#[test]
fn what_a_full_queue_could_not_take_is_told_in_its_place() {
    let queue = queue(3);
    assert!((0..3).all(|token| queue.push(event(token))));
    assert!((3..8).all(|token| !queue.push(event(token))));
    assert_eq!(tokens(&drain(&queue, 1)), [0]);
    assert!(queue.push(event(8)));
    assert!(!queue.push(event(9)));
    let events = drain(&queue, 100);
    assert_eq!(
        events.iter().map(|event| (event.token, lost(event))).collect::<Vec<_>>(),
        [(1, 0), (2, 0), (0, 5), (8, 0), (0, 1)]
    );
    assert!(queue.push(event(10)));
    assert_eq!(tokens(&drain(&queue, 100)), [10]);
}

#[test]
fn losses_are_told_even_while_calls_hold_all_room() {
    let queue = queue(1);
    let fd = queue.fd();
    let call = one(reserve(&queue, 5));
    assert!(!queue.push(event(1)) && !queue.push(event(2)));
    assert!(is_readable(fd));
    call.complete(Ok(None));
    let events = drain(&queue, 100);
    assert_eq!((lost(&events[0]), events[1].token, events.len()), (2, 5, 2));
    assert!(!is_readable(fd));
}

#[test]
fn a_full_queue_takes_nothing_and_a_drain_makes_room() {
    let queue = queue(4);
    assert!(queue.push(event(0)));
    let error = queue.reserve(0, 4).map(|_| ()).expect_err("three fit");
    assert_eq!(error.status(), Status::QueueFull);
    assert!(error.message().contains("1 of 4"), "{error}");
    let calls: Vec<_> = queue.reserve(u64::MAX, 3).expect("three fit").collect();
    assert_eq!(queue.reserve(0, usize::MAX).map(|_| ()).expect_err("full").status(), Status::QueueFull);
    assert!(!queue.push(event(9)), "an event does not take a call's place");
    for call in calls {
        call.complete(Ok(Some(ReplyBuilder::new().int(1).finish())));
    }
    assert_eq!(queue.reserve(0, 1).map(|_| ()).expect_err("undrained").status(), Status::QueueFull);
    let events = drain(&queue, 100);
    assert_eq!(tokens(&events), [0, 0, u64::MAX, 0, 1], "the second is the loss");
    assert!(events[2..].iter().all(|event| event.kind == kind::COMPLETION));
    assert_eq!(queue.reserve(0, 4).expect("empty again").count(), 4);
}

#[test]
fn a_call_that_was_not_begun_gives_its_room_back_and_one_that_was_forgotten_ends() {
    let queue = queue(4);
    let mut credits = queue.reserve(10, 4).expect("four fit");
    let begun = [credits.next(), credits.next()];
    drop(credits);
    assert!(queue.reserve(0, 3).is_err() && drain(&queue, 9).is_empty());
    drop(begun);
    let events = drain(&queue, 9);
    assert_eq!(tokens(&events), [10, 11]);
    for event in &events {
        assert_eq!((event.kind, status(&event.outcome)), (kind::COMPLETION, Some(Status::Internal)));
        let error = event.outcome.as_ref().expect_err("an error");
        assert!(error.has(flags::MAYBE_EXECUTED), "nobody knows: {error:?}");
    }
    assert!(queue.reserve(0, 4).is_ok());
}

#[test]
fn a_close_ends_waiting_and_refuses_what_is_new_but_loses_nothing() {
    let queue = queue(4);
    let call = one(reserve(&queue, 1));
    assert!(queue.fd() >= 0);
    std::thread::scope(|scope| {
        let drains: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| queue.drain(Deadline::after(Duration::from_secs(20)), &mut Vec::new(), 4)))
            .collect();
        queue.close();
        assert!(drains.into_iter().all(|drain| drain.join().unwrap() == 0));
    });
    assert_eq!(queue.fd(), -1);
    assert!(!queue.push(event(2)));
    assert_eq!(queue.reserve(0, 1).map(|_| ()).expect_err("closed").status(), Status::Closed);
    call.complete(Ok(None));
    queue.wakeup();
    queue.close();
    assert_eq!(queue.drain(Deadline::never(), &mut Vec::new(), 4), 0);

    let full = self::queue(2);
    assert!((0..3).map(|token| full.push(event(token))).eq([true, true, false]));
    full.close();
    let mut out = Vec::new();
    assert_eq!(full.drain(Deadline::never(), &mut out, 100), 3);
    assert_eq!((tokens(&out[..2]), lost(&out[2])), (vec![0, 1], 1));
}

/// The counts of the threads of the stress test.
#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    drained: AtomicUsize,
    told_lost: AtomicUsize,
    done: AtomicBool,
}

impl Tally {
    fn count(&self, events: &[Event], capacity: usize) {
        let told: i64 = events.iter().map(lost).sum();
        let plain = events.iter().filter(|event| event.kind != kind::DROPPED).count();
        assert!(plain <= capacity, "{plain} events at once from a queue for {capacity}");
        self.told_lost.fetch_add(told as usize, Ordering::SeqCst);
        self.drained.fetch_add(plain, Ordering::SeqCst);
    }

    fn add(&self, accepted: bool) {
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

fn pause(random: &mut fastrand::Rng) {
    for _ in 0..random.u32(..4) {
        std::thread::yield_now();
    }
}

fn produce(queue: &Arc<Queue>, tally: &Tally, random: &mut fastrand::Rng) {
    for token in 0..3_000 {
        match random.u32(..8) {
            0..4 => tally.add(queue.push(event(token))),
            4 => drop(queue.reserve(token, 2)),
            5 => queue.wakeup(),
            _ => {
                for call in queue.reserve(token, random.usize(1..4)).into_iter().flatten() {
                    pause(random);
                    if random.bool() {
                        call.complete(Ok(None))
                    } else {
                        drop(call)
                    }
                    tally.add(true);
                }
            }
        }
        pause(random);
    }
}

/// Drains by waiting in the library, by count or by size, until the end is reported.
fn consume_waiting(queue: &Queue, tally: &Tally, random: &mut fastrand::Rng, capacity: usize) {
    while !tally.done.load(Ordering::SeqCst) {
        let mut out = Vec::new();
        let deadline = if random.bool() { Deadline::never() } else { Deadline::after(Duration::from_micros(50)) };
        let mut room = 0..random.usize(..9);
        if random.bool() {
            queue.drain(deadline, &mut out, room.end + 1);
        } else {
            queue.drain_while(deadline, &mut out, |_| room.next().is_some());
        }
        tally.count(&out, capacity);
        pause(random);
    }
}

/// Drains when the descriptor is readable, as an event loop does; sometimes the loop has read the byte itself.
fn consume_polling(queue: &Queue, tally: &Tally, random: &mut fastrand::Rng, capacity: usize) {
    let fd = queue.fd();
    while !tally.done.load(Ordering::SeqCst) {
        assert!(readable(fd, Duration::from_secs(20)), "nothing became readable");
        if random.bool() {
            steal(fd);
            pause(random);
        }
        let most = random.usize(1..9);
        loop {
            let out = drain(queue, most);
            tally.count(&out, capacity);
            if out.len() < most {
                break;
            }
        }
    }
}

#[test]
fn nothing_is_lost_or_slept_through_under_any_order_of_steps() {
    let seed = std::env::var("VIGIE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed} (VIGIE_SEED={seed} repeats it)"); // the harness shows this only when the test fails
    for round in 0..4u64 {
        let random = |thread: u64| fastrand::Rng::with_seed(seed ^ (round << 32) ^ thread);
        let capacity = [1, 3, 16, 200][round as usize];
        let (queue, tally) = (queue(capacity), Tally::default());
        std::thread::scope(|scope| {
            let (queue, tally) = (&queue, &tally);
            scope.spawn(move || consume_polling(queue, tally, &mut random(1), capacity));
            scope.spawn(move || consume_polling(queue, tally, &mut random(2), capacity));
            scope.spawn(move || consume_waiting(queue, tally, &mut random(3), capacity));
            let producers: Vec<_> =
                (10..14).map(|n| scope.spawn(move || produce(queue, tally, &mut random(n)))).collect();
            for producer in producers {
                producer.join().unwrap();
            }
            tally.done.store(true, Ordering::SeqCst);
            for _ in 0..3 {
                queue.wakeup();
            }
        });
        tally.count(&drain(&queue, usize::MAX), capacity);
        let of = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        assert_eq!(of(&tally.accepted), of(&tally.drained), "round {round}, seed {seed}");
        assert_eq!(of(&tally.refused), of(&tally.told_lost), "round {round}, seed {seed}");
        assert_eq!(queue.reserve(0, capacity).expect("all room is free again").count(), capacity);
    }
}
