//! How often a service is polled, and until when.

use super::super::order_tests::calls::{ok, to_primary};
use super::super::order_tests::stage::{SOON, stage};
use super::super::order_tests::support::eventually;
use super::*;
use crate::config::Config;

fn service_state() -> ServiceState {
    ServiceState { next_poll: Instant::now(), seen_in: 0, unused: None, unknown: None, probe: None, inquiry: None }
}

fn seen(discovered: u64, unknown: Option<bool>) -> PollFacts {
    PollFacts { discovered, running: false, polls_fast: false, unsettled: unknown.is_some(), unknown }
}

#[test]
fn a_name_that_no_sentinel_knows_is_asked_for_ever_more_rarely() {
    let (mut service_state, interval) = (service_state(), Duration::from_secs(5));
    let mut pauses = |discovered| service_state.pace(&seen(discovered, Some(false)), interval).as_secs();
    let asked: Vec<u64> = (1..=9).map(&mut pauses).collect();
    assert_eq!(asked, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(pauses(9), 60, "looking at it is no question");
    assert_eq!(pauses(11), 1, "somebody else has asked for it");
    assert_eq!(pauses(12), 2);
}

#[test]
fn a_name_that_was_known_is_asked_for_every_second_and_a_found_one_as_usual() {
    let (mut service_state, interval) = (service_state(), Duration::from_secs(5));
    for discovered in 1..5 {
        assert_eq!(service_state.pace(&seen(discovered, Some(true)), interval), Duration::from_secs(1));
    }
    assert_eq!(service_state.pace(&seen(6, None), interval), interval);
    assert_eq!(service_state.pace(&PollFacts { unsettled: true, ..seen(6, None) }, interval), FAST_POLL);
    assert_eq!(service_state.pace(&seen(7, Some(false)), interval), Duration::from_secs(1), "from the beginning");
}

#[test]
fn a_poll_under_way_does_not_keep_a_service_that_nobody_uses() {
    let mut config = Config::new();
    config.set("sentinel.addrs", "127.0.0.1:1").unwrap();
    // No thread looks at it, because nothing was asked for yet.
    let sentinel = Sentinel::create(config.settings().unwrap(), None).unwrap();
    let service = sentinel.service("mistyped");
    let (mut service_state, now, idle) = (service_state(), Instant::now(), seen(1, Some(false)));
    assert!(service_state.is_in_use(&service, &idle, false, now), "not for long");
    // A discovery holds it.
    let (polled, later) = (PollFacts { running: true, ..seen(1, Some(false)) }, now + KEPT);
    let discovery = Arc::clone(&service);
    assert!(service_state.is_in_use(&service, &polled, false, later), "until it has ended");
    assert!(!service.is_forgotten());
    let caller = Arc::clone(&service);
    sentinel.drop_unknown(&service);
    assert!(sentinel.known_service("mistyped").is_some(), "others hold it");
    drop((discovery, caller));
    assert!(!service_state.is_in_use(&service, &idle, false, later) && service.is_forgotten());
    sentinel.drop_unknown(&service);
    assert!(sentinel.known_service("mistyped").is_none(), "nothing is known of it that is worth keeping");
}

#[test]
fn a_service_that_nobody_uses_is_forgotten_and_asked_for_before_it_is_used_again() {
    // No regular poll comes in between.
    let stage = stage(2, &[("monitor.interval", "3600000")]);
    stage.listened();
    stage.quiet();
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    let service = stage.service();
    let (mut service_state, now, idle) = (service_state(), Instant::now(), seen(1, None));
    assert!(service_state.is_in_use(&service, &idle, false, now), "a client holds it");
    drop(client);
    eventually("nobody else holds it", SOON, || Arc::strong_count(&service) == 2);
    assert!(service_state.is_in_use(&service, &idle, false, now), "not for long");
    let later = now + KEPT;
    assert!(service_state.is_in_use(&service, &idle, true, later), "somebody watches");
    assert!(service_state.is_in_use(&service, &idle, false, later), "from now on nobody does");
    assert!(!service_state.is_in_use(&service, &idle, false, later + KEPT) && service.is_forgotten());
    stage.sentinel.drop_unknown(&service);
    assert!(stage.sentinel.known_service(service.name()).is_some(), "it had a primary");
    let known = service.load();
    assert!(known.primary.is_some() && known.epoch == 5 && known.asked.is_some(), "what was known stays");
    let asked = service.discovered();
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    assert!(service.discovered() > asked && !service.is_forgotten());
    assert!(service_state.is_in_use(&service, &idle, false, later + KEPT));
}
