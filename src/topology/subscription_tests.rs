//! What a subscription requests again, over a socket, with a clock that the test sets.

use super::super::order_tests::support::{FakeSentinel, Fault, Scripted, eventually};
use super::*;
use crate::config::Config;

const NOPERM: &str = "NOPERM this user has no permissions to access one of the channels used as arguments";
const SOON: Duration = Duration::from_secs(20);

/// A subscription, and what it has reported.
struct Set {
    one: FakeSentinel,
    subscription: SentinelSubscription,
    options: Arc<LinkOptions>,
    waker: Arc<Waker>,
    heard: Vec<SentinelEvent>,
    ups: usize,
}

impl Set {
    /// A Sentinel that refuses commands with these beginnings.
    fn refused(patterns: &[&str]) -> Self {
        let one = Scripted::sentinel("mymaster", "127.0.0.1:1");
        let mut config = Config::new();
        config.set("sentinel.addrs", &one.addr()).unwrap();
        let settings = config.settings().unwrap().sentinel;
        let endpoint = settings.addrs[0].clone();
        let (options, waker) = (Arc::new(LinkOptions::of_sentinel(&settings)), Arc::new(Waker::new().unwrap()));
        let subscription = SentinelSubscription::new(endpoint);
        let set = Self { one, subscription, options, waker, heard: Vec::new(), ups: 0 };
        set.refuse(patterns);
        set
    }

    fn refuse(&self, patterns: &[&str]) {
        self.one.clear_faults();
        patterns.iter().for_each(|pattern| self.one.fault(pattern, Fault::Error(NOPERM.into())));
    }

    fn drive_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        eventually(what, SOON, || {
            let change = self.subscription.drive(&self.options, SOON, &self.waker, &mut self.heard);
            match change {
                Some(Change::Up) => self.ups += 1,
                Some(Change::Down(error)) => panic!("{error}"),
                Some(Change::Moved) | None => {}
            }
            is_so(self)
        });
    }

    fn pings(&self) -> usize {
        self.one.count("PING")
    }

    fn subscriptions(&self) -> usize {
        self.one.count("PSUBSCRIBE *")
    }

    /// Sets when the subscription was confirmed.
    fn stands_since(&mut self, then: Instant) {
        let SubscriptionState::Listening { since, .. } = &mut self.subscription.state else {
            panic!("it does not listen")
        };
        *since = then;
    }

    /// Ends the minute.
    fn a_minute_later(&mut self) {
        let due = self.subscription.renews.expect("it is asked for again");
        assert!(due.saturating_duration_since(Instant::now()) <= RENEW);
        self.subscription.renews = Some(Instant::now());
    }
}

#[test]
fn what_was_refused_is_asked_for_again_after_a_minute_and_not_before() {
    let mut set = Set::refused(&["PSUBSCRIBE", "SUBSCRIBE"]);
    set.drive_until("it is deaf", |set| set.subscription.deaf().is_some());
    assert_eq!((set.ups, set.subscriptions()), (1, 1));
    // Permitted meanwhile, which shows when it is requested.
    set.refuse(&[]);
    let before = set.pings();
    set.drive_until("it was asked whether it is there", |set| set.pings() >= before + 2);
    assert_eq!((set.ups, set.subscriptions()), (1, 1), "nothing is asked for before its time");
    assert!(set.subscription.deaf().is_some());
    set.a_minute_later();
    set.drive_until("it hears", |set| set.subscription.deaf().is_none());
    assert_eq!((set.ups, set.subscriptions(), set.one.accepted()), (2, 2, 1), "told, and on the same connection");
    assert!(set.subscription.renews.is_none(), "there is nothing more to ask for");
    set.one.publish("+try-failover", "master mymaster 127.0.0.1 1");
    set.drive_until("the word came", |set| !set.heard.is_empty());
}

#[test]
fn what_is_refused_again_is_asked_for_after_another_minute() {
    let mut set = Set::refused(&["PSUBSCRIBE", "SUBSCRIBE"]);
    set.drive_until("it is deaf", |set| set.subscription.deaf().is_some());
    for round in 2..4 {
        set.a_minute_later();
        set.drive_until("it was refused", |set| {
            assert!(set.subscription.deaf().is_some(), "the refusal stands until it is taken back");
            set.subscriptions() == round && set.subscription.renews.is_some()
        });
        assert!(set.subscription.renews.is_some_and(|at| at > Instant::now() + RENEW / 2), "a minute from now");
        assert_eq!((set.ups, set.one.accepted()), (1, 1), "nothing is new, and no connection is lost");
    }
    // A part of it is permitted, and that is reported.
    set.refuse(&["PSUBSCRIBE", "SUBSCRIBE +try-failover"]);
    set.a_minute_later();
    set.drive_until("most is heard", |set| set.ups == 2);
    let deaf = set.subscription.deaf().expect("one channel is refused");
    assert!(deaf.starts_with("refused: 1 of "), "{deaf}");
    assert!(set.subscription.renews.is_some() && set.subscription.is_listening());
}

#[test]
fn a_refused_ping_is_not_taken_for_the_subscription_that_is_asked_for_again() {
    let mut set = Set::refused(&["PSUBSCRIBE", "SUBSCRIBE", "PING"]);
    set.drive_until("it is deaf", |set| set.subscription.deaf().is_some());
    let before = set.pings();
    set.drive_until("it was asked whether it is there", |set| set.pings() > before);
    set.refuse(&["PING"]);
    set.a_minute_later();
    set.drive_until("it hears", |set| set.subscription.deaf().is_none());
    // All replies to the subscription have come when another PING is refused.
    let before = set.pings();
    set.drive_until("it was asked whether it is there", |set| set.pings() >= before + 2);
    assert_eq!(set.one.count("PSUBSCRIBE +*"), 1, "at the first time; now all was granted at once");
    assert_eq!((set.ups, set.subscriptions(), set.one.accepted()), (2, 2, 1));
}

#[test]
fn a_subscription_that_ends_at_once_is_a_failure_and_makes_the_next_pause_longer() {
    let mut set = Set::refused(&[]);
    // The last one lasted.
    for (stood, milliseconds) in
        [200, 400, 800, 1600, 2000, 2000].map(|pause| (false, pause)).into_iter().chain([(true, 200)])
    {
        // The pause is over.
        set.subscription.state = SubscriptionState::Away { until: Instant::now() };
        set.drive_until("it listens", |set| set.subscription.is_listening());
        set.stands_since(if stood { Instant::now() - STOOD } else { Instant::now() + SOON });
        set.one.close_all();
        eventually("it has gone", SOON, || {
            let change = set.subscription.drive(&set.options, SOON, &set.waker, &mut set.heard);
            matches!(change, Some(Change::Down(_)))
        });
        assert_eq!(set.subscription.pause, Duration::from_millis(milliseconds));
    }
    assert_eq!((set.ups, set.one.accepted()), (7, 7), "one connection and one event for each coming");
}
