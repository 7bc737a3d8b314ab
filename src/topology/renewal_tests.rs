//! When a subscription is renewed, and that nothing is missed or told meanwhile, over a socket.

use super::super::order_tests::support::{FakeSentinel, Login, Scripted, eventually};
use super::*;
use crate::config::Config;

const SOON: Duration = Duration::from_secs(20);

fn options(address: &str, password: &str) -> Arc<LinkOptions> {
    let mut config = Config::new();
    config.set("sentinel.addrs", address).unwrap();
    config.set("sentinel.password", password).unwrap();
    Arc::new(LinkOptions::of_sentinel(&config.settings().unwrap().sentinel))
}

struct Set {
    one: FakeSentinel,
    subscription: RenewedSubscription,
    waker: Arc<Waker>,
    heard: Vec<SentinelEvent>,
    changes: Vec<&'static str>,
}

impl Set {
    /// One that listens with the password "first".
    fn listening() -> Self {
        let one = Scripted::sentinel("mymaster", "127.0.0.1:1");
        one.state(|state| state.door.login = Some(Login::password("first")));
        let endpoint = Endpoint::tcp("127.0.0.1", one.port()).unwrap();
        let first = options(&one.addr(), "first");
        let subscription = RenewedSubscription::new(endpoint.clone(), endpoint, Arc::clone(&first));
        let waker = Arc::new(Waker::new().unwrap());
        let mut set = Self { one, subscription, waker, heard: Vec::new(), changes: Vec::new() };
        set.drive_until("it listens", &first, |set| set.changes == ["up"]);
        set
    }

    fn drive_until(&mut self, what: &str, options: &Arc<LinkOptions>, is_so: impl Fn(&Self) -> bool) {
        eventually(what, SOON, || {
            let change = self.subscription.drive(options, SOON, &self.waker, &mut self.heard);
            self.changes.extend(change.map(|change| match change {
                Change::Up => "up",
                Change::Moved => "moved",
                Change::Down(_) => "down",
            }));
            is_so(self)
        });
    }
}

#[test]
fn changed_options_are_taken_without_a_gap() {
    let mut set = Set::listening();
    set.one.state(|state| state.door.login = Some(Login::password("second")));
    let second = options(&set.one.addr(), "second");
    set.drive_until("the new one listens", &second, |set| set.changes.len() == 2);
    assert_eq!(set.changes, ["up", "moved"]);
    assert!(set.subscription.current().is_listening() && set.subscription.beside.is_none());
    set.drive_until("one is left, and hears", &second, |set| set.one.publish("+kit-hello", "hello") == 1);
    assert_eq!(set.one.accepted(), 2);
}

#[test]
fn the_old_one_listens_on_while_the_new_options_are_refused() {
    let mut set = Set::listening();
    let wrong = options(&set.one.addr(), "wrong");
    set.drive_until("it was refused", &wrong, |set| set.subscription.rests_until.is_some());
    assert!(set.subscription.current().is_listening());
    // It rests before the next attempt.
    let accepted = set.one.accepted();
    let rests_until = set.subscription.rests_until;
    for _ in 0..20 {
        assert!(set.subscription.drive(&wrong, SOON, &set.waker, &mut set.heard).is_none());
    }
    assert_eq!((set.one.accepted(), set.subscription.rests_until), (accepted, rests_until));
    assert_eq!(set.changes, ["up"], "nothing has changed for those who watch");
    assert_eq!(set.one.publish("+kit-hello", "hello"), 1);
}
