//! The accounts that only the inside can see: which drain a wake-up belongs to, and what memory is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::sys::waker::Waker;

fn queue() -> Arc<Queue> {
    Queue::create(8).unwrap()
}

fn event(token: u64) -> Event {
    Event { kind: kind::TOPOLOGY, token, outcome: Ok(None) }
}

/// Waits until this many drains wait in the queue.
fn until_waiting(queue: &Queue, wanted: usize) {
    let begun = Instant::now();
    while queue.lock().waiting() != wanted {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} drains wait, not {wanted}", queue.lock().waiting());
        std::thread::yield_now();
    }
}

fn drain_for_long(queue: &Queue) -> usize {
    queue.drain(Deadline::after(Duration::from_secs(20)), &mut Vec::new(), 8)
}

#[test]
fn a_wakeup_returns_exactly_one_of_the_drains_that_wait() {
    let queue = queue();
    std::thread::scope(|scope| {
        let drains: Vec<_> = (0..3).map(|_| scope.spawn(|| drain_for_long(&queue))).collect();
        until_waiting(&queue, 3);
        queue.wakeup();
        until_waiting(&queue, 2);
        assert_eq!(queue.lock().wakeups(), 0);
        assert!(queue.push(event(1)));
        until_waiting(&queue, 1);
        queue.close();
        let mut counts: Vec<_> = drains.into_iter().map(|drain| drain.join().unwrap()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 1]);
    });
}

#[test]
fn as_many_drains_return_as_were_woken_waiting_or_not() {
    let queue = queue();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(drain_for_long(&queue), 0));
        }
        until_waiting(&queue, 2);
        for _ in 0..4 {
            queue.wakeup();
        }
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(drain_for_long(&queue), 0));
        }
    });
    assert_eq!(queue.lock().waiting(), 0);
    assert_eq!(queue.lock().wakeups(), 0);
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(20)), &mut Vec::new(), 8), 0);
}

#[test]
fn a_newcomer_leaves_the_wakeup_of_a_waiting_drain_alone() {
    let queue = queue();
    let mut state = queue.lock();
    state.begin_wait();
    state.add_wakeup();
    assert!(!state.is_due_to_newcomer());
    state.end_drain(false, true);
    assert!(state.is_due_to_waiter());
    state.end_drain(true, true);
    assert_eq!((state.waiting(), state.wakeups()), (0, 0));
    state.add_wakeup();
    assert!(state.is_due_to_newcomer());
    state.end_drain(false, false);
    assert!(state.is_due_to_newcomer(), "a full drain leaves it");
    state.end_drain(false, true);
    assert!(!state.is_due_to_newcomer());
}

/// Whichever of the two is woken first: an event that one has no room for comes to the other.
#[test]
fn what_does_not_fit_one_drain_that_waits_comes_to_another() {
    for round in 0..20 {
        let queue = queue();
        std::thread::scope(|scope| {
            let narrow = || queue.drain_while(Deadline::after(Duration::from_secs(20)), &mut Vec::new(), |_| false);
            let (queue, mut first, mut second) = (&queue, None, None);
            for place in 0..2 {
                match place == round % 2 {
                    true => first = Some(scope.spawn(narrow)),
                    false => second = Some(scope.spawn(|| drain_for_long(queue))),
                }
                until_waiting(queue, place + 1);
            }
            assert!(queue.push(event(1)));
            assert_eq!(second.map(|drain| drain.join().unwrap()), Some(1));
            queue.wakeup(); // for the narrow one, if it saw nothing of the event
            first.map(|drain| drain.join().unwrap());
        });
    }
}

#[test]
fn memory_of_a_burst_is_given_back() {
    let queue = Queue::create(100_000).unwrap();
    for token in 0..100_000 {
        assert!(queue.push(event(token)));
    }
    let mut out = Vec::new();
    assert_eq!(queue.drain(Deadline::never(), &mut out, usize::MAX), 100_000);
    assert!(queue.lock().room_kept() < 5000);
}

/// An application may cancel each call after its end, as a context in Go does. That costs neither memory nor time while another
/// call is running.
#[test]
fn cancellations_of_calls_that_are_over_do_not_pile_up() {
    let queue = queue();
    let mut long = queue.reserve(1, 1).unwrap();
    let long = long.next().unwrap();
    for token in 100..1_000_000 {
        queue.cancel(token);
    }
    let notes = queue.lock().notes();
    assert!(notes <= 8192, "{notes} are remembered");
    queue.cancel(7);
    assert!(queue.is_cancelled(7) && queue.is_cancelled(999_999) && !queue.is_cancelled(8));
    drop(queue.reserve(6, 2).unwrap());
    assert!(!queue.is_cancelled(7), "a token that is used again is a new call");
    queue.cancel(7);
    queue.lock().forget_cancelled(0, usize::MAX);
    assert_eq!(queue.lock().notes(), 0);
    queue.cancel(9);
    long.complete(Ok(None));
    assert!(!queue.is_cancelled(9));
}

/// A source that is always readable, as a connection that has ended. It is over once it was driven.
struct Ended {
    waker: Waker,
    looks: AtomicUsize,
}

impl Source for Ended {
    fn fd(&self) -> Option<RawFd> {
        Some(self.waker.fd())
    }

    fn drive(&self) -> Driven {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Driven::Read
    }

    fn is_over(&self) -> bool {
        self.looks.load(Ordering::Relaxed) > 0
    }

    fn cancel(&self, _queue: usize, _token: u64) -> usize {
        0
    }
}

#[test]
fn a_drain_that_waits_lets_go_of_a_connection_that_ends_meanwhile() {
    let (queue, waker) = (queue(), Waker::new().unwrap());
    waker.wake();
    let ended = Arc::new(Ended { waker, looks: AtomicUsize::new(0) });
    let source: Arc<dyn Source> = ended.clone();
    queue.attach(&source);
    drop(source);
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(50)), &mut Vec::new(), 8), 0);
    let looks = ended.looks.load(Ordering::Relaxed);
    assert!((1..5).contains(&looks), "{looks} looks while nothing was to come");
    assert_eq!(Arc::strong_count(&ended), 1, "nor is its descriptor kept");
}

/// A queue outlives clients that were closed, and their descriptors must not wait for it.
#[test]
fn a_queue_keeps_no_source_that_nobody_else_holds() {
    let queue = Queue::create(4).unwrap();
    let source: Arc<dyn Source> = Arc::new(Idle);
    queue.attach(&source);
    let mut events = Vec::new();
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(5)), &mut events, 4), 0);
    let seen = Arc::downgrade(&source);
    drop(source);
    assert!(seen.upgrade().is_none());
    assert_eq!(queue.cancel(7), 0);
    assert_eq!(queue.drain(Deadline::after(Duration::from_millis(5)), &mut events, 4), 0);
}

/// A source from which nothing comes.
struct Idle;

impl Source for Idle {
    fn drive(&self) -> Driven {
        Driven::Read
    }

    fn is_over(&self) -> bool {
        false
    }

    fn cancel(&self, _queue: usize, _token: u64) -> usize {
        0
    }
}

/// A readable source from which an event comes; or one that only adds that source, when it is looked at first.
struct Adds {
    waker: Waker,
    queue: Arc<Queue>,
    adds: Option<Arc<dyn Source>>,
    looks: AtomicUsize,
}

impl Source for Adds {
    fn fd(&self) -> Option<RawFd> {
        Some(self.waker.fd())
    }

    fn is_eager(&self) -> bool {
        self.adds.is_some()
    }

    fn drive(&self) -> Driven {
        let is_first = self.looks.fetch_add(1, Ordering::Relaxed) == 0;
        match &self.adds {
            Some(source) if is_first => self.queue.attach(source),
            Some(_) => {}
            None => _ = self.queue.push(event(7)),
        }
        Driven::Read
    }

    fn is_over(&self) -> bool {
        false
    }

    fn cancel(&self, _queue: usize, _token: u64) -> usize {
        0
    }
}

#[test]
fn a_source_that_is_added_while_a_drain_looks_at_others_is_driven_at_once() {
    let queue = queue();
    let source = |adds| {
        let waker = Waker::new().unwrap();
        Arc::new(Adds { waker, queue: Arc::clone(&queue), adds, looks: AtomicUsize::new(0) })
    };
    let added = source(None);
    added.waker.wake();
    let first: Arc<dyn Source> = source(Some(added));
    queue.attach(&first);
    let mut events = Vec::new();
    assert_eq!(queue.drain(Deadline::after(Duration::from_secs(20)), &mut events, 8), 1);
    assert_eq!(events[0].token, 7);
}

fn message(text: &str) -> Letter {
    Letter::Message(crate::resp::ReplyBuilder::new().text(text).finish())
}

fn told(text: &str) -> Letter {
    Letter::Told(Event {
        kind: kind::SUB_GAP,
        token: 0,
        outcome: Ok(Some(crate::resp::ReplyBuilder::new().text(text).finish())),
    })
}

fn inlet(queue: &Arc<Queue>, messages: usize, drops_oldest: bool) -> Inlet {
    queue.open_inbox(5, Bounds { messages, bytes: 1 << 20, drops_oldest })
}

/// What is drained: texts, `-n` for n lost messages, and the kind of events that carry nothing.
fn drained(queue: &Queue, most: usize) -> Vec<String> {
    let mut events = Vec::new();
    queue.drain(Deadline::after(Duration::ZERO), &mut events, most);
    let shown = |event: &Event| match &event.outcome {
        Ok(Some(reply)) if event.kind == kind::DROPPED => format!("-{}", reply.int(0).unwrap()),
        Ok(Some(reply)) => String::from_utf8_lossy(reply.bytes(0).unwrap()).into_owned(),
        _ => event.token.to_string(),
    };
    let of_inbox = |event: &&Event| matches!(event.kind, kind::MESSAGE | kind::SUB_GAP);
    assert!(events.iter().filter(of_inbox).all(|event| event.token == 5));
    events.iter().map(shown).collect()
}

#[test]
fn messages_take_no_room_of_the_queue_and_keep_their_order() {
    let queue = queue();
    let inlet = inlet(&queue, 100, true);
    assert_eq!(inlet.put((0..100).map(|n| message(&n.to_string()))).0, Put::Taken);
    assert!((0..8).all(|token| queue.push(event(token))) && !queue.push(event(8)));
    // Events wait for a turn of messages, and not for all of them.
    let first = drained(&queue, 64);
    assert_eq!(first, (0..64).map(|n| n.to_string()).collect::<Vec<_>>());
    let next = drained(&queue, 9);
    assert_eq!(next, ["0", "1", "2", "3", "4", "5", "6", "7", "-1"].map(String::from));
    assert_eq!(drained(&queue, 1000), (64..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(drained(&queue, 1).is_empty());
}

#[test]
fn a_full_inbox_loses_the_oldest_messages_and_nothing_that_is_told() {
    let queue = queue();
    let inlet = inlet(&queue, 3, true);
    let letters = [message("a"), told("gap"), message("b"), message("c"), message("d"), message("e")];
    assert_eq!(inlet.put(letters).0, Put::Taken);
    assert!(!inlet.has_room());
    assert_eq!(drained(&queue, 9), ["-2", "gap", "c", "d", "e"]);
    assert!(inlet.has_room());
    inlet.put([message("f")]);
    assert_eq!(drained(&queue, 9), ["f"], "the loss is reported once");
}

#[test]
fn a_full_inbox_that_keeps_the_oldest_says_so_and_counts_the_rest() {
    let queue = queue();
    let inlet = inlet(&queue, 2, false);
    assert_eq!(inlet.put(["a", "b", "c", "d"].map(message)).0, Put::Full);
    assert_eq!(drained(&queue, 9), ["-2", "a", "b"]);
}

#[test]
fn bytes_are_bounded_but_one_message_is_always_taken() {
    let queue = queue();
    let inlet = queue.open_inbox(5, Bounds { messages: 100, bytes: 2000, drops_oldest: true });
    let large = "x".repeat(5000);
    assert_eq!(inlet.put([message("a"), message(&large)]).0, Put::Taken);
    assert_eq!(drained(&queue, 9), ["-1", large.as_str()]);
    inlet.put((0..100).map(|n| message(&n.to_string())));
    let kept = drained(&queue, 1000);
    assert!(kept.len() < 20 && kept.last().is_some_and(|last| last == "99"), "{kept:?}");
}

#[test]
fn a_closed_inbox_leaves_nothing_behind() {
    let queue = queue();
    let (first, second) = (inlet(&queue, 9, true), inlet(&queue, 9, true));
    first.put([message("a")]);
    second.put([message("b"), message("c")]);
    assert_eq!(drained(&queue, 1), ["a"]);
    first.put([message("d")]);
    drop(second);
    assert_eq!(drained(&queue, 9), ["d"]);
    drop(first);
    assert_eq!(queue.drain(Deadline::after(Duration::ZERO), &mut Vec::new(), 9), 0);
    let late = inlet(&queue, 9, true);
    queue.close();
    assert_eq!(late.put([message("x")]).0, Put::Closed);
}

#[test]
fn several_drains_share_what_came_at_once() {
    let queue = queue();
    let inlet = inlet(&queue, 100, true);
    std::thread::scope(|scope| {
        let drains: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| queue.drain(Deadline::after(Duration::from_secs(20)), &mut Vec::new(), 2)))
            .collect();
        until_waiting(&queue, 3);
        inlet.put((0..6).map(|n| message(&n.to_string())));
        assert!(drains.into_iter().all(|drain| drain.join().unwrap() == 2));
    });
}
