//! What errors say, line by line: what was tried, where, what happened, and what to do about it.

mod support;
#[path = "support/vigie.rs"]
mod vigie_kit;

use std::time::Duration;

use support::{Deployment, Scripted, refuse};
use vigie::client::{Budget, CallFlags, Client, Target};
use vigie::error::{Error, Status};
use vigie::queue::Queue;
use vigie_kit::*;

#[track_caller]
fn says(error: &Error, status: Status, parts: &[&str]) {
    assert_eq!(error.status(), status, "{error:?}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in: {}", error.message());
    }
}

/// How often a text stands in an error.
fn times(error: &Error, text: &str) -> usize {
    error.message().matches(text).count()
}

fn encoded(list: &[&[&[u8]]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    list.iter().for_each(|args| vigie::resp::encode::command(&mut bytes, args));
    bytes
}

#[test]
fn an_unknown_service_is_named_once_and_so_are_those_that_there_are() {
    let deployment = Deployment::new("messages-services").services(["orders", "users"]).start();
    let uri = format!("redis-sentinel://{}/", deployment.sentinel_addrs().join(","));
    let name = format!("ord\u{1b}[31mres{}", "x".repeat(500));
    let sentinel = connect(&uri, &[]);
    let stranger = Client::open(&sentinel, Some(&name), Target::Primary, None).unwrap();
    let error = fails(&stranger, &["GET", "k"], Budget::Ms(20_000));
    says(&error, Status::UnknownService, &["GET for service", "they know 'orders', 'users'", "ord\\u{1b}[31mres"]);
    assert!(!error.message().contains(&"x".repeat(100)) && !error.message().contains('\u{1b}'), "{error:?}");
    assert_eq!(times(&error, "(after "), 1, "{error:?}");
}

#[test]
fn a_primary_that_cannot_be_reached_is_told_as_it_was_announced() {
    let nowhere = refuse();
    let sentinels = [Scripted::sentinel(SERVICE, &nowhere.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = fails(&client(&sentinel, Target::Primary), &["GET", "k"], Budget::Ms(300));
    says(
        &error,
        Status::NoPrimary,
        &["the Sentinels announce", &nowhere.addr(), "address.map", "GET: service 'mymaster'"],
    );
    assert_eq!((times(&error, "(after "), times(&error, "service '")), (1, 1), "{error:?}");
}

#[test]
fn a_replica_that_failed_says_how() {
    let nowhere = refuse();
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    sentinels[0].service(SERVICE, |service| service.add_replica(&nowhere.addr()));
    let sentinel = connect(&uri_of(&sentinels), &[("replica.fallback", "error")]);
    let error = fails(&client(&sentinel, Target::Replica), &["GET", "k"], Budget::Ms(300));
    says(&error, Status::NoReplica, &["failed just now: ", "cannot connect to"]);
}

#[test]
fn a_call_without_time_names_the_words_for_no_limit() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let parts = ["was not sent", "timeout_ms", "VIGIE_TIMEOUT_NONE", "VIGIE_TIMEOUT_DEFAULT"];
    says(&fails(&primary, &["GET", "k"], Budget::from_ms(-1)), Status::Timeout, &parts);
    let list = encoded(&[&[b"GET", b"k"]]);
    let error = primary.cmds_submit(&list, CallFlags::default(), Budget::from_ms(-1), &queue, 1).unwrap_err();
    says(&error, Status::Timeout, &parts);
}

#[test]
fn what_cannot_go_this_way_names_the_one_that_is_open() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let submit = |command: &[&[u8]]| {
        let list = encoded(&[command]);
        primary.cmds_submit(&list, CallFlags::default(), Budget::Default, &queue, 1).unwrap_err()
    };
    says(&submit(&[b"MULTI"]), Status::Unsupported, &["MULTI", "vigie_session_for()", "a session cannot be submitted"]);
    for error in [submit(&[b"SUBSCRIBE", b"c"]), fails(&primary, &["SUBSCRIBE", "c"], Budget::Default)] {
        says(&error, Status::Unsupported, &["SUBSCRIBE", "another client"]);
    }
}

#[test]
fn a_full_queue_is_worth_another_try_and_one_that_is_too_small_is_not() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let submit = |commands: usize| {
        let list = encoded(&vec![&[&b"GET"[..], b"k"][..]; commands]);
        let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
        primary.cmds_submit(&list, each, Budget::Ms(60_000), &queue, 1)
    };
    let never = submit(5).unwrap_err();
    says(&never, Status::QueueFull, &["5 calls never fit into a queue of 4"]);
    assert!(!never.has(vigie::error::flags::RETRYABLE), "{never:?}");
    submit(3).unwrap();
    let full = submit(2).unwrap_err();
    says(&full, Status::QueueFull, &["no room for 2 more"]);
    assert!(full.has(vigie::error::flags::RETRYABLE), "{full:?}");
    primary.close(Budget::Ms(Duration::from_secs(5).as_millis() as u64)).ok();
}
