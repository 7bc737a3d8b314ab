//! What the listeners of several handles hear and are told, over a socket.

use super::super::order_tests::support::{FakeSentinel, Fault, Login, Scripted, eventually};
use super::*;
use crate::config::Config;
use crate::sys::poll::Found;
use crate::sys::waker::Waker;

const SOON: Duration = Duration::from_secs(20);

fn options(address: &str, password: &str) -> Arc<LinkOptions> {
    let mut config = Config::new();
    config.set("sentinel.addrs", address).unwrap();
    config.set("sentinel.password", password).unwrap();
    Arc::new(LinkOptions::of_sentinel(&config.settings().unwrap().sentinel))
}

/// What one handle uses, and what it was told.
struct Ear {
    listener: Listener,
    options: Arc<LinkOptions>,
    heard: Vec<(Speaker, SentinelEvent)>,
    changes: Vec<&'static str>,
}

struct Set {
    one: FakeSentinel,
    all: Subscriptions,
    waker: Arc<Waker>,
    ears: Vec<Ear>,
}

impl Set {
    /// A Sentinel with the password "first", and one listener, which is up.
    fn listening() -> Self {
        let one = Scripted::sentinel("mymaster", "127.0.0.1:1");
        one.state(|state| state.door.login = Some(Login::password("first")));
        let waker = Arc::new(Waker::new().unwrap());
        let mut set = Self { one, all: Subscriptions::default(), waker, ears: Vec::new() };
        set.join("first");
        set.turn_until("it listens", |set| set.ears[0].changes == ["up"]);
        set
    }

    fn options(&self, password: &str) -> Arc<LinkOptions> {
        options(&self.one.addr(), password)
    }

    fn join(&mut self, password: &str) {
        let endpoint = Endpoint::tcp("127.0.0.1", self.one.port()).unwrap();
        let options = self.options(password);
        let listener = Listener::new(endpoint.clone(), endpoint.clone(), self.all.get(&endpoint, &options, SOON));
        self.ears.push(Ear { listener, options, heard: Vec::new(), changes: Vec::new() });
    }

    /// One turn of the monitor.
    fn turn(&mut self) {
        for ear in &mut self.ears {
            ear.listener.use_options(&mut self.all, &ear.options, SOON);
        }
        self.all.drive(&Found::all(), &self.waker);
        for ear in &mut self.ears {
            let change = ear.listener.hear(&mut ear.heard);
            ear.changes.extend(change.map(|change| match change {
                Change::Up => "up",
                Change::Moved => "moved",
                Change::Down(error) if error.status() == Status::Auth => "refused",
                Change::Down(_) => "down",
            }));
        }
    }

    fn turn_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        eventually(what, SOON, || {
            self.turn();
            is_so(self)
        });
    }

    fn changes(&self) -> Vec<&[&'static str]> {
        self.ears.iter().map(|ear| ear.changes.as_slice()).collect()
    }

    /// How many events each of them has heard since the last question.
    fn take_heard(&mut self) -> Vec<usize> {
        self.ears.iter_mut().map(|ear| std::mem::take(&mut ear.heard).len()).collect()
    }

    fn announce(&self) -> usize {
        self.one.publish("+sdown", "master mymaster 127.0.0.1 1")
    }
}

#[test]
fn handles_with_the_same_options_share_one_connection_and_hear_the_same() {
    let mut set = Set::listening();
    (0..5).for_each(|_| set.join("first"));
    set.turn();
    assert!(set.ears.iter().all(|ear| ear.changes == ["up"]), "each was told once: {:?}", set.changes());
    assert_eq!(set.announce(), 1, "one connection");
    set.turn_until("all have heard it", |set| set.ears.iter().all(|ear| ear.heard.len() == 1));
    set.take_heard();
    // It lasts as long as one of them listens.
    set.ears.drain(..5);
    set.turn();
    assert_eq!(set.announce(), 1);
    set.turn_until("the last one hears", |set| set.ears[0].heard.len() == 1);
    assert_eq!(set.one.accepted(), 1);
    set.one.close_all();
    set.turn_until("it is up again", |set| set.ears[0].changes == ["up", "down", "up"]);
    set.ears.clear();
    set.turn();
    eventually("nobody listens", SOON, || set.announce() == 0);
}

#[test]
fn one_that_joins_a_subscription_that_is_down_is_told_why() {
    let mut set = Set::listening();
    set.join("wrong");
    set.turn_until("it is refused", |set| set.ears[1].changes == ["refused"]);
    set.join("wrong");
    set.turn();
    assert_eq!(set.changes(), [&["up"][..], &["refused"], &["refused"]]);
    assert!(set.ears[2].listener.is_lost() && !set.ears[0].listener.is_lost());
}

#[test]
fn changed_options_are_taken_without_a_gap() {
    let mut set = Set::listening();
    set.join("first");
    set.turn();
    set.one.state(|state| state.door.login = Some(Login::password("second")));
    set.ears[1].options = set.options("second");
    set.turn_until("the new one listens", |set| set.ears[1].changes.len() == 2);
    assert_eq!(set.changes(), [&["up"][..], &["up", "moved"]], "the other one stays where it is");
    assert!(set.ears[1].listener.next.is_none());
    assert_eq!(set.announce(), 2);
    set.turn_until("both hear", |set| set.ears.iter().all(|ear| ear.heard.len() == 1));
    set.take_heard();
    set.ears[0].options = set.options("second");
    set.turn();
    assert_eq!(set.changes(), [&["up", "moved"][..], &["up", "moved"]], "it is open already");
    set.turn();
    eventually("one is left", SOON, || set.announce() == 1);
    assert_eq!(set.one.accepted(), 2);
}

#[test]
fn the_old_one_listens_on_while_the_new_options_are_refused() {
    let mut set = Set::listening();
    set.ears[0].options = set.options("wrong");

    set.turn_until("it was refused twice", |set| set.one.count("HELLO 3 AUTH default wrong") > 1);
    assert!(set.ears[0].listener.is_listening());
    assert_eq!(set.changes(), [&["up"]], "nothing has changed for those who watch");
    assert_eq!(set.announce(), 1);
    set.turn_until("it is heard", |set| set.ears[0].heard.len() == 1);
    // Once the old one has ended, the refusal is what is told.
    set.one.close_all();
    set.turn_until("it is told", |set| set.ears[0].changes == ["up", "refused"]);
    set.one.state(|state| state.door.login = Some(Login::password("wrong")));
    set.turn_until("it is up with the new options", |set| set.ears[0].changes.last() == Some(&"up"));
}

#[test]
fn options_that_change_back_leave_the_old_subscription() {
    let mut set = Set::listening();
    set.ears[0].options = set.options("wrong");
    set.turn();
    set.ears[0].options = set.options("first");
    set.turn();
    assert!(set.ears[0].listener.next.is_none() && set.ears[0].listener.is_listening());
    assert_eq!(set.changes(), [&["up"]]);
}

#[test]
fn what_new_options_may_not_hear_is_told_at_the_exchange() {
    let mut set = Set::listening();
    for words in ["PSUBSCRIBE", "SUBSCRIBE"] {
        let line = "NOPERM this user has no permissions to access one of the channels";
        set.one.fault(words, Fault::Error(line.into()));
    }
    set.one.state(|state| state.door.login = Some(Login::password("second")));
    set.ears[0].options = set.options("second");
    set.turn_until("the new one listens", |set| set.ears[0].changes.len() == 2);
    assert_eq!(set.changes(), [&["up", "up"]]);
    assert!(set.ears[0].listener.deaf().is_some());
}

#[test]
fn another_time_limit_is_another_subscription() {
    let mut set = Set::listening();
    let endpoint = set.ears[0].listener.endpoint().clone();
    let same = set.all.get(&endpoint, &set.options("first"), SOON);
    let other = set.all.get(&endpoint, &set.options("first"), SOON * 2);
    assert!(Rc::ptr_eq(&same, &set.ears[0].listener.current) && !Rc::ptr_eq(&other, &same));
}

#[test]
fn a_panic_over_one_ends_its_connection_alone() {
    let mut set = Set::listening();
    let endpoint = set.ears[0].listener.endpoint().clone();
    set.ears[0].listener.current.restart(&endpoint);
    let change = set.ears[0].listener.hear(&mut Vec::new());
    assert!(matches!(change, Some(Change::Down(error)) if error.status() == Status::Internal));
    set.turn_until("it listens again", |set| set.ears[0].changes == ["up", "up"]);
    assert_eq!(set.one.accepted(), 2);
}
