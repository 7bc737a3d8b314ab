//! The texts of errors: what was tried, where, what happened, and what to do about it.

use crate::api as vigie_kit;
use crate::calls;
use crate::support;

use std::time::Duration;

use support::{Deployment, Fault, Scripted, Value, eventually, refuse};
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::config::Config;
use vigie::error::{Error, Status, flags};
use vigie::queue::{Queue, kind};
use vigie::time::Deadline;
use vigie_kit::*;

#[track_caller]
fn says(error: &Error, status: Status, parts: &[&str]) {
    assert_eq!(error.status(), status, "{error:?}");
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in: {}", error.message());
    }
}

/// The error of a GET with a short timeout that must say all this; where the machine is too slow for it, of one with a longer timeout.
#[track_caller]
fn says_soon(client: &Client, status: Status, parts: &[&str]) -> Error {
    let fits = |error: &Error| error.status() == status && parts.iter().all(|part| error.message().contains(part));
    let error = calls::patiently(|ms| fails(client, &["GET", "k"], Timeout::Ms(ms)), fits);
    says(&error, status, parts);
    error
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
    let error = fails(&stranger, &["GET", "k"], Timeout::Ms(20_000));
    says(&error, Status::UnknownService, &["GET: no Sentinel", "they know 'orders', 'users'", "ord\\u{1b}[31mres"]);
    assert!(!error.message().contains(&"x".repeat(100)) && !error.message().contains('\u{1b}'), "{error:?}");
    assert_eq!(times(&error, "(after "), 1, "{error:?}");
    assert_eq!(times(&error, "did you mean"), 0, "nothing is like it: {error:?}");
    let mistyped = Client::open(&sentinel, Some("user"), Target::Primary, None).unwrap();
    let error = fails(&mistyped, &["GET", "k"], Timeout::Ms(20_000));
    says(&error, Status::UnknownService, &["did you mean 'users'? they know 'orders', 'users'"]);
}

#[test]
fn a_primary_that_cannot_be_reached_is_told_as_it_was_announced() {
    let nowhere = refuse();
    let sentinels = [Scripted::sentinel(SERVICE, &nowhere.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = says_soon(
        &client(&sentinel, Target::Primary),
        Status::NoPrimary,
        &["the Sentinels announce", &nowhere.addr(), "address.map", "GET: ", "service 'mymaster': "],
    );
    assert_eq!((times(&error, "(after "), times(&error, "service '")), (1, 1), "{error:?}");
}

/// The node was reached, so a hint about its address would be wrong.
#[test]
fn a_primary_that_hangs_up_is_not_told_as_one_that_cannot_be_reached() {
    let node = Scripted::primary();
    node.fault("*", Fault::Close);
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = says_soon(&client(&sentinel, Target::Primary), Status::NoPrimary, &[&node.addr()]);
    assert_eq!(times(&error, "address.map"), 0, "{error:?}");
}

#[test]
fn sentinels_that_want_a_password_are_told_as_such() {
    let sentinels = [Scripted::sentinel(SERVICE, "127.0.0.1:1")];
    sentinels[0].fault("*", Fault::Error("NOAUTH Authentication required.".into()));
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = fails(&client(&sentinel, Target::Primary), &["GET", "k"], Timeout::Ms(5000));
    says(&error, Status::Auth, &["want a password", "set the option sentinel.password"]);
    assert_eq!(times(&error, "refuse sentinel.username"), 0, "{error:?}");
}

#[test]
fn a_replica_that_failed_says_how() {
    let nowhere = refuse();
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    sentinels[0].service(SERVICE, |service| service.add_replica(&nowhere.addr()));
    let sentinel = connect(&uri_of(&sentinels), &[("replica.fallback", "error")]);
    says_soon(&client(&sentinel, Target::Replica), Status::NoReplica, &["failed just now: ", "cannot connect to"]);
}

#[test]
fn a_call_without_time_names_the_words_for_no_limit() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let parts = ["was not sent", "timeout_ms", "VIGIE_TIMEOUT_NONE", "VIGIE_TIMEOUT_DEFAULT"];
    says(&fails(&primary, &["GET", "k"], Timeout::from_ms(-1)), Status::Timeout, &parts);
    let list = encoded(&[&[b"GET", b"k"]]);
    let error = primary.cmds_submit(&list, CallFlags::default(), Timeout::from_ms(-1), &queue, 1).unwrap_err();
    says(&error, Status::Timeout, &parts);
}

#[test]
fn what_cannot_go_this_way_names_the_one_that_is_open() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let submit = |command: &[&[u8]]| {
        let list = encoded(&[command]);
        primary.cmds_submit(&list, CallFlags::default(), Timeout::Default, &queue, 1).unwrap_err()
    };
    says(&submit(&[b"MULTI"]), Status::Unsupported, &["MULTI", "vigie_session_for()"]);
    for error in [submit(&[b"SUBSCRIBE", b"c"]), fails(&primary, &["SUBSCRIBE", "c"], Timeout::Default)] {
        says(&error, Status::Unsupported, &["SUBSCRIBE", "vigie_sub_for()"]);
    }
    says(&submit(&[b"MONITOR"]), Status::Unsupported, &["MONITOR", "another client"]);
}

#[test]
fn a_full_queue_is_worth_another_try_and_one_that_is_too_small_is_not() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&sentinel, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let submit = |commands: usize| {
        let list = encoded(&vec![&[&b"GET"[..], b"k"][..]; commands]);
        let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
        primary.cmds_submit(&list, each, Timeout::Ms(60_000), &queue, 1)
    };
    let never = submit(5).unwrap_err();
    says(&never, Status::QueueFull, &["5 calls never fit into a queue of 4"]);
    assert!(!never.has(vigie::error::flags::RETRYABLE), "{never:?}");
    submit(3).unwrap();
    let full = submit(2).unwrap_err();
    says(&full, Status::QueueFull, &["no room for 2 more"]);
    assert!(full.has(vigie::error::flags::RETRYABLE), "{full:?}");
    primary.close(Timeout::Ms(Duration::from_secs(5).as_millis() as u64)).ok();
}

/// Rust's standard library appends the error number to the system's text; it is at vigie_error_errno() instead.
#[test]
fn the_systems_words_come_without_a_number_and_a_time_is_told_once() {
    let nowhere = refuse();
    let error = says_soon(
        &client(&connect(&uri(&[nowhere.addr()]), &[]), Target::Primary),
        Status::NoSentinel,
        &["GET", "service 'mymaster'", "Connection refused", &nowhere.addr()],
    );
    assert_eq!(
        (times(&error, "os error"), times(&error, "(after "), times(&error, "service '")),
        (0, 1, 1),
        "{error:?}"
    );
    let node = Scripted::primary();
    node.fault("GET", Fault::Stall);
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = says_soon(
        &client(&sentinel, Target::Primary),
        Status::Timeout,
        &["GET for service 'mymaster'", &node.addr(), "(after "],
    );
    assert_eq!(times(&error, "after "), 1, "{error:?}");
}

/// The error of a call during which Sentinels that refuse connections begin to hang.
fn search_that_hangs(sentinels: &[support::FakeSentinel], ms: u64) -> Error {
    sentinels[0].down();
    // Short pauses: the last attempt begins after the Sentinel hangs.
    let sentinel = connect(&uri_of(sentinels), &[("timeout.sentinel", "60000"), ("retry.backoff_max", "20")]);
    let primary = client(&sentinel, Target::Primary);
    let caller = primary.clone();
    let call = calls::spawn(move || fails(&caller, &["GET", "k"], Timeout::Ms(ms)));
    // A search that failed before the call began says nothing about the call, and a call whose time is over waits for nothing.
    let has_searched_or_ended = || calls::counter(&primary, "retries") >= 2 || calls::counter(&primary, "errors") > 0;
    eventually("nobody answers", Duration::from_secs(20), has_searched_or_ended);
    sentinels[0].fault("*", Fault::Stall);
    sentinels[0].up();
    calls::join(&call)
}

#[test]
fn a_search_that_outlasts_the_call_tells_what_the_one_before_it_met() {
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    // On a stalling machine the Sentinel may come back too late for the call.
    let error = calls::patiently(|ms| search_that_hangs(&sentinels, 8 * ms), |error| times(error, "still being") == 1);
    let parts = ["GET", "still being looked for", "service 'mymaster'", "Connection refused", &sentinels[0].addr()];
    says(&error, Status::NoSentinel, &parts);
    assert_eq!((times(&error, "after "), times(&error, "service '")), (1, 1), "{error:?}");
}

#[test]
fn refused_credentials_name_their_options_and_nothing_else_is_told() {
    let node = Scripted::primary();
    node.fault("HELLO", Fault::Error("WRONGPASS invalid username-password pair or user is disabled.".into()));
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr()), Scripted::sentinel(SERVICE, &node.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[("auth.password", "wrong")]);
    let error = fails(&client(&sentinel, Target::Primary), &["GET", "k"], Timeout::Ms(20_000));
    says(&error, Status::Auth, &["GET", "WRONGPASS", &node.addr(), "correct auth.username and auth.password"]);
    assert_eq!((times(&error, "epoch"), times(&error, "service '")), (0, 1), "{error:?}");
}

/// A failed handshake says what was tried, even under a code whose message is otherwise the server's line.
#[test]
fn a_server_that_cannot_greet_yet_is_told_with_the_command() {
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[("db", "7")]);
    node.fault("SELECT", Fault::Error("LOADING Redis is loading the dataset in memory".into()));
    let error = says_soon(
        &client(&sentinel, Target::Primary),
        Status::Server,
        &["GET for service 'mymaster'", "db=7: SELECT: LOADING", &node.addr(), "(after "],
    );
    assert!(error.has(flags::RETRYABLE) && error.server_code() == "LOADING", "{error:?}");
}

#[test]
fn a_cursor_that_this_client_has_not_given_is_told_as_such() {
    let (node, replica) = (Scripted::primary(), Scripted::replica(&Scripted::primary().addr()));
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    sentinels[0].service(SERVICE, |service| service.add_replica(&replica.addr()));
    let sentinel = connect(&uri_of(&sentinels), &[]);
    for cursor in ["77", "abc"] {
        let error = fails(&client(&sentinel, Target::Replica), &["SCAN", cursor], Timeout::Ms(20_000));
        let parts = ["SCAN for service 'mymaster'", "this client has not given that cursor", "begin with cursor 0"];
        says(&error, Status::ScanInterrupted, &parts);
        assert!(!error.message().contains("none"), "{error:?}");
    }
}

#[test]
fn who_is_refused_is_told_what_to_do() {
    let lonely = connect(&uri(&["127.0.0.1:1"]), &[]);
    let primary = client(&lonely, Target::Primary);
    let queue = Queue::create(4).unwrap();
    let words = ["VIGIE_EVENT_TOPOLOGY", "VIGIE_EVENT_SENTINEL", "VIGIE_EVENT_ALL", "0x7ffff027"];
    says(&lonely.watch(u32::MAX >> 1, &queue, 1).unwrap_err(), Status::InvalidArg, &words);
    lonely.watch(kind::TOPOLOGY | kind::SENTINEL, &queue, 1).unwrap();
    let reply = fails(&primary, &["CLIENT", "REPLY", "OFF"], Timeout::Default);
    says(&reply, Status::Unsupported, &["CLIENT REPLY is not answered"]);
    for (key, value, parts) in [
        ("sentinel.addrs", "redis-sentinel://h1:26379,h2/mymaster", &["option \"uri\"", "host:port"][..]),
        ("timeout.call", "off", &["VIGIE_TIMEOUT_NONE", "\"off\""]),
        ("uri", "redis-sentinel://::1:26379/m", &["\"::1:26379\"", "brackets"]),
    ] {
        says(&Config::new().set(key, value).unwrap_err(), Status::Config, parts);
    }
}

#[test]
fn full_pools_and_missing_replicas_name_the_remedy() {
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    let options = [("pool.max", "2"), ("pool.wait", "50")];
    let sentinel = connect(&uri_of(&sentinels), &options);
    let primary = client(&sentinel, Target::Primary);
    let session = primary.session(None).unwrap();
    cmd(&session, &["GET", "k"]);
    let full = fails(&primary.session(None).unwrap(), &["GET", "k"], Timeout::Ms(20_000));
    says(&full, Status::PoolTimeout, &["raise pool.max or pool.wait", "for a shorter time"]);
    let late = fails(&primary.session(None).unwrap(), &["GET", "k"], Timeout::Ms(10));
    says(&late, Status::PoolTimeout, &["raise pool.max, give the call more time"]);
    assert_eq!(times(&full, "(after "), 1, "{full:?}");
    drop(session);
    node.fault("WAIT", Fault::Reply(Value::Int(2)));
    let call = CallFlags::from_bits(5 << 24).unwrap();
    let few = primary.cmd_exec(&[b"SET", b"k", b"v"], call, Timeout::Ms(1000)).unwrap_err();
    says(&few, Status::Replicas, &["SET for service 'mymaster'", "2 of 5 replicas have it", "list 0 replicas"]);
}

#[test]
fn a_refresh_without_time_does_not_say_that_a_known_primary_is_looked_for() {
    let node = Scripted::primary();
    let sentinels = [Scripted::sentinel(SERVICE, &node.addr())];
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let hurry = || sentinel.refresh(Some(SERVICE), Deadline::after(Duration::ZERO)).unwrap_err();
    says(&hurry(), Status::Timeout, &["the primary of service 'mymaster' is still being looked for"]);
    cmd(&client(&sentinel, Target::Primary), &["GET", "k"]);
    let known = format!("the primary known before is {}", node.addr());
    says(&hurry(), Status::Timeout, &["service 'mymaster'", "when the time was over", &known]);
}

/// No request of a caller is ignored.
#[test]
fn a_flag_that_this_client_cannot_keep_is_refused() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let readers = client(&sentinel, Target::Replica);
    let on_primary = CallFlags::from_bits(CallFlags::ON_PRIMARY).unwrap();
    let parts = ["VIGIE_CALL_ON_PRIMARY", "reads from replicas"];
    for client in [readers.clone(), readers.session(None).unwrap()] {
        let error = client.cmd_exec(&[b"GET", b"k"], on_primary, Timeout::Ms(20_000)).unwrap_err();
        says(&error, Status::InvalidArg, &parts);
    }
    let queue = Queue::create(4).unwrap();
    let list = encoded(&[&[b"GET", b"k"]]);
    says(&readers.cmds_submit(&list, on_primary, Timeout::Default, &queue, 1).unwrap_err(), Status::InvalidArg, &parts);
}

#[test]
fn who_may_not_ask_for_the_services_does_not_say_that_there_are_none() {
    let sentinels = [Scripted::sentinel("other", "127.0.0.1:1")];
    sentinels[0].fault("INFO", Fault::Error("NOPERM this user has no permissions to run 'info'".into()));
    let sentinel = connect(&uri_of(&sentinels), &[]);
    let error = fails(&client(&sentinel, Target::Primary), &["GET", "k"], Timeout::Ms(20_000));
    says(&error, Status::UnknownService, &["may not ask", "INFO"]);
    assert_eq!(times(&error, "they know none"), 0, "{error:?}");
}

#[test]
fn a_subcommand_that_changes_a_connection_is_named() {
    let sentinel = connect(&uri(&["127.0.0.1:1"]), &[]);
    let error = fails(&client(&sentinel, Target::Primary), &["CLIENT", "SETNAME", "me"], Timeout::Default);
    says(&error, Status::Unsupported, &["CLIENT SETNAME changes the state"]);
    let error = fails(&client(&sentinel, Target::Primary), &["SELECT", "1"], Timeout::Default);
    says(&error, Status::Unsupported, &["SELECT changes the state"]);
}
