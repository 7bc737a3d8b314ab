//! One link to a Sentinel, over a socket.

use super::super::order_tests::support::{FakeSentinel, Fault, Scripted, eventually};
use super::*;
use crate::config::Config;

const SOON: Duration = Duration::from_secs(20);

/// A link to a Sentinel, and the results of its questions.
struct Set {
    one: FakeSentinel,
    link: CommandLink,
    ended: Ended,
    asked: usize,
}

impl Set {
    fn new() -> Self {
        let one = Scripted::sentinel("mymaster", "127.0.0.1:1");
        let link = link_to(&one.addr());
        Self { one, link, ended: Vec::new(), asked: 0 }
    }

    /// On an open connection.
    fn opened() -> Self {
        let mut set = Self::new();
        let first = set.ask(&[b"PING"], SOON, false);
        set.drive_until("it is open", |set| set.ended.len() == 1);
        set.outcome(first).expect("answered");
        set
    }

    fn ask(&mut self, words: &[&[u8]], timeout: Duration, urgent: bool) -> usize {
        let index = self.asked;
        self.asked += 1;
        self.link.ask(ask(index, words, timeout, urgent, Some(Instant::now())));
        index
    }

    fn drive_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        eventually(what, SOON, || {
            self.link.drive(None, &mut self.ended);
            assert!(self.link.due <= MOST, "{} replies are due", self.link.due);
            is_so(self)
        });
    }

    fn outcome(&mut self, index: usize) -> Result<Answered> {
        let place = self.ended.iter().position(|(ticket, _)| ticket.index == index).expect("it has ended");
        self.ended.remove(place).1
    }
}

fn link_to(address: &str) -> CommandLink {
    CommandLink::new(key_of(address, SOON))
}

fn key_of(address: &str, timeout: Duration) -> LinkKey {
    let mut config = Config::new();
    config.set("sentinel.addrs", address).unwrap();
    let settings = config.settings().unwrap().sentinel;
    LinkKey { endpoint: settings.addrs[0].clone(), options: Arc::new(LinkOptions::of_sentinel(&settings)), timeout }
}

/// Otherwise the first late answer, by the shorter limit, would end the questions of the other handle.
#[test]
fn handles_with_different_time_limits_do_not_share_a_link() {
    let link = CommandLink::new(key_of("127.0.0.1:1", Duration::from_secs(2)));
    assert!(link.is(&key_of("127.0.0.1:1", Duration::from_secs(2))));
    assert!(!link.is(&key_of("127.0.0.1:1", Duration::from_millis(20))));
}

fn ask(index: usize, words: &[&[u8]], timeout: Duration, urgent: bool, info_since: Option<Instant>) -> Ask {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, words);
    Ask { ticket: Ticket { asker: 1, index }, bytes, replies: 1, timeout, urgent, info_since }
}

#[test]
fn all_questions_go_over_one_connection_on_which_who_it_is_is_asked_once() {
    let mut set = Set::new();
    let began = Instant::now();
    for index in 0..100 {
        let question = ask(index, &[b"PING"], SOON, false, Some(began));
        set.link.ask(question);
    }
    set.drive_until("all are answered", |set| set.ended.len() == 100);
    let order: Vec<usize> = set.ended.iter().map(|(ticket, _)| ticket.index).collect();
    assert!(order.is_sorted() && set.ended.iter().all(|(_, outcome)| outcome.is_ok()));
    let count = |words| set.one.count(words);
    assert_eq!((set.one.accepted(), count("SENTINEL MYID"), count("INFO sentinel"), count("PING")), (1, 1, 1, 100));
}

#[test]
fn what_is_urgent_goes_next() {
    let mut set = Set::new();
    let all: Vec<usize> = (0..40).map(|index| set.ask(&[b"PING"], SOON, index == 39)).collect();
    set.drive_until("all are answered", |set| set.ended.len() == all.len());
    assert_eq!(set.ended[0].0.index, 39);
}

#[test]
fn one_that_is_late_makes_all_fail_at_once_until_it_answers_and_late_answers_are_dropped() {
    let mut set = Set::opened();
    set.one.fault_times("PING", 1, Fault::Delay(Duration::from_millis(600)));
    let late = set.ask(&[b"PING"], Duration::from_millis(50), false);
    let behind = set.ask(&[b"PING"], SOON, false);
    set.drive_until("both fail", |set| set.ended.len() == 2);
    for index in [late, behind] {
        assert_eq!(set.outcome(index).expect_err("it is silent").status(), Status::Timeout);
    }
    set.drive_until("it answers again", |set| set.link.silent.is_none());
    let next = set.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"mymaster"], SOON, false);
    set.drive_until("the next is answered", |set| set.ended.len() == 1);
    let answered = set.outcome(next).expect("answered");
    assert!(super::super::answer::named(&answered.replies[0]).is_some(), "not by a late one");
    assert_eq!(set.one.accepted(), 1, "over the same connection");
}

#[test]
fn one_that_stays_silent_is_dialled_beside() {
    let mut set = Set::opened();
    set.one.fault_times("PING", 1, Fault::Stall);
    let late = set.ask(&[b"PING"], Duration::from_millis(50), false);
    set.drive_until("it is silent", |set| set.ended.len() == 1);
    set.outcome(late).expect_err("it is silent");
    let refused = set.ask(&[b"PING"], SOON, false);
    set.drive_until("it fails at once", |set| set.ended.len() == 1);
    set.outcome(refused).expect_err("it is silent");
    assert!(set.link.coming.is_none(), "a poll can wait for it to answer");
    let urgent = set.ask(&[b"PING"], SOON, true);
    set.drive_until("it fails at once", |set| set.ended.len() == 1);
    set.outcome(urgent).expect_err("it is silent");
    set.drive_until("another connection is there", |set| set.link.silent.is_none());
    let next = set.ask(&[b"PING"], SOON, false);
    set.drive_until("the next is answered", |set| set.ended.len() == 1);
    set.outcome(next).expect("answered");
    assert_eq!(set.one.accepted(), 2);
}

#[test]
fn what_was_sent_on_a_connection_that_ends_is_sent_once_more() {
    let mut set = Set::new();
    set.one.fault_times("PING", 1, Fault::Close);
    let first = set.ask(&[b"PING"], SOON, false);
    set.drive_until("it is answered", |set| set.ended.len() == 1);
    set.outcome(first).expect("the second time");
    assert_eq!((set.one.accepted(), set.one.count("PING")), (2, 2));
    set.one.fault("PING", Fault::Close);
    let second = set.ask(&[b"PING"], SOON, false);
    set.drive_until("it fails", |set| set.ended.len() == 1);
    set.outcome(second).expect_err("not a third time");
}

#[test]
fn one_that_refuses_is_not_dialled_at_every_question() {
    let mut set = Set::new();
    set.one.down();
    let began = Instant::now();
    let mut failed = 0;
    while failed < 8 {
        let index = set.ask(&[b"PING"], SOON, false);
        set.drive_until("it fails", |set| !set.ended.is_empty());
        let error = set.outcome(index).expect_err("nobody is there");
        assert_eq!((error.status(), error.errno()), (Status::Connect, libc::ECONNREFUSED));
        failed += 1;
    }
    assert!(began.elapsed() >= PAUSE * (1 + 2 + 4 + 8 + 16 + 32) + LONGEST_PAUSE, "the pauses between two dials grow");
}

#[test]
fn what_waits_for_its_turn_is_not_waited_for_in_a_spin() {
    let mut set = Set::opened();
    // A second dial has failed before.
    set.link.rests_until = Some(Instant::now());
    set.one.fault("PING", Fault::Stall);
    for _ in 0..40 {
        set.ask(&[b"PING"], SOON, false);
    }
    set.drive_until("as many are under way as may be", |set| set.link.due >= MOST - 1 && !set.link.queue.is_empty());
    let wakes_at = set.link.wakes_at().expect("the first of them may be late");
    assert!(wakes_at > Instant::now() + SOON / 2, "nothing is to be done before an answer comes");
    set.one.clear_faults();
    set.drive_until("all are answered", |set| set.ended.len() == 40);
}

#[test]
fn a_name_is_resolved_anew_only_while_a_connection_stands() {
    let mut set = Set::opened();
    set.link.renews = Some(Instant::now());
    set.one.down();
    set.drive_until("it is lost", |set| set.link.live.is_none());
    assert_eq!(set.link.wakes_at(), None, "nothing is to be done until somebody asks");
}

#[test]
fn a_message_that_was_not_asked_for_ends_the_connection() {
    for unasked in [&b"+PONG\r\n+OK\r\n"[..], b"+PONG\r\n>2\r\n+message\r\n+x\r\n"] {
        let mut set = Set::opened();
        set.one.fault_times("PING", 1, Fault::Raw(unasked.into()));
        let first = set.ask(&[b"PING"], SOON, false);
        set.drive_until("it is answered, and the connection ended", |set| {
            !set.ended.is_empty() && set.link.live.is_none()
        });
        set.outcome(first).expect("the answer came first");
        let next = set.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"mymaster"], SOON, false);
        set.drive_until("the next is answered", |set| set.ended.len() == 1);
        let answered = set.outcome(next).expect("answered");
        assert!(super::super::answer::named(&answered.replies[0]).is_some(), "not by what was left");
        assert_eq!(set.one.accepted(), 2);
    }
}

#[test]
fn a_question_waits_for_the_connection_beside_one_that_has_been_silent_for_long() {
    let mut set = Set::opened();
    set.one.fault_times("PING", 1, Fault::Stall);
    let late = set.ask(&[b"PING"], Duration::from_millis(50), false);
    set.drive_until("it is silent", |set| set.ended.len() == 1);
    set.outcome(late).expect_err("it is silent");
    let since = &mut set.link.silent.as_mut().expect("it is silent").1;
    *since = since.checked_sub(SOON * 2).expect("the clock has run for longer");
    let next = set.ask(&[b"PING"], SOON, false);
    set.drive_until("it is answered", |set| set.ended.len() == 1);
    set.outcome(next).expect("over another connection");
    assert_eq!(set.one.accepted(), 2);
}

#[test]
fn one_that_closes_after_each_answer_is_dialled_ever_more_rarely() {
    let mut set = Set::new();
    let began = Instant::now();
    for _ in 0..8 {
        set.one.fault_times("PING", 1, Fault::Last(b"+PONG\r\n".into()));
        let index = set.ask(&[b"PING"], SOON, false);
        set.drive_until("it is answered, and closed", |set| set.ended.len() == 1 && set.link.live.is_none());
        set.outcome(index).expect("answered");
    }
    // The pause after the last one has not passed yet.
    assert!(began.elapsed() >= PAUSE * (1 + 2 + 4 + 8 + 16 + 32) + LONGEST_PAUSE);
    set.link.since = Instant::now().checked_sub(STOOD);
    let last = set.ask(&[b"PING"], SOON, false);
    set.drive_until("it is answered", |set| set.ended.len() == 1);
    set.outcome(last).expect("answered");
    set.link.since = set.link.since.and_then(|since| since.checked_sub(STOOD));
    set.one.close_all();
    set.drive_until("it is lost", |set| set.link.live.is_none());
    assert_eq!(set.link.failures, 1, "that one had lasted");
}
