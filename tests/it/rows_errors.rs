//! Rows of the feature page about errors and lifetimes: each kind has one code and a sentence, and leaves nothing
//! behind.

use crate::calls;
use crate::completions;
use crate::support;

use std::collections::BTreeMap;
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout, close_all};
use vigie::config::Config;
use vigie::error::{Error, Result, Status, flags};
use vigie::resp::Reply;

/// The outcome of a call that was made to fail, and what its text must contain.
struct Case {
    status: Status,
    error: Error,
    parts: Vec<String>,
}

fn case<T>(status: Status, outcome: Result<T>, parts: &[&str]) -> Case {
    let error = outcome.err().unwrap_or_else(|| panic!("expected {status:?}"));
    Case { status, error, parts: parts.iter().map(|part| part.to_string()).collect() }
}

/// The same for a call within so many milliseconds; a loaded machine may need more.
fn case_within<T>(status: Status, parts: &[&str], run: impl Fn(u64) -> Result<T>) -> Case {
    let is_so = |error: &Error| error.status() == status && parts.iter().all(|part| error.message().contains(part));
    case(status, patiently(run, |outcome| outcome.as_ref().err().is_some_and(is_so)), parts)
}

/// Errors of the caller.
fn of_the_caller() -> Vec<Case> {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    let (client, plain) = (to_primary(&sentinel, &[]), CallFlags::default());
    let mut cases = vec![
        case(Status::InvalidArg, client.cmd_exec(&[], plain, Timeout::Default), &["name"]),
        case(Status::InvalidArg, client.cmds_exec(b"*1\r\n$9\r\nGE", plain, Timeout::Default), &["byte"]),
        case(Status::Config, Config::new().set("pool.maxi", "3"), &["pool.maxi", "pool.max"]),
        case(Status::Unsupported, cmd(&client, "SELECT 1"), &["SELECT", "vigie_session_for"]),
        case(Status::InvalidState, client.session(None).and_then(|own| own.session(None)), &["session"]),
        case(Status::ReadOnly, cmd(&to_replicas(&sentinel, &[]), "SET k v"), &["SET", "replica"]),
    ];
    client.close(Timeout::DontWait).expect("closed");
    cases.push(case(Status::Closed, cmd(&client, "GET k"), &["closed", SERVICE]));
    cases
}

/// Errors on the side of the Sentinels: none there, service unknown, no primary, different ones.
fn of_the_sentinels() -> Vec<Case> {
    let (node, nowhere) = (Scripted::primary(), refuse());
    let ask = |sentinel: &FakeSentinel, ms| within(&to_primary(&handle(sentinel, &[]), &[]), "GET k", ms);
    let gone = sentinel_at(&[nowhere.addr()], &[]);
    let watch = told(&node.addr(), &[]);
    let other = Client::open(&handle(&watch, &[]), Some("other"), Target::Primary, None).expect("a lazy client");
    let mut cases = vec![
        case_within(Status::NoSentinel, &[SERVICE, &nowhere.addr(), "refused"], |ms| {
            within(&to_primary(&gone, &[]), "GET k", ms)
        }),
        case(Status::UnknownService, cmd(&other, "GET k"), &["other", &watch.addr(), "know"]),
    ];
    watch.service(SERVICE, |state| state.flags = "s_down,o_down,master".into());
    let parts = [SERVICE, &watch.addr(), &node.addr(), "o_down"];
    cases.push(case_within(Status::NoPrimary, &parts, |ms| ask(&watch, ms)));
    let primary = Scripted::primary();
    let replica = Scripted::replica(&primary.addr());
    let stale = told(&replica.addr(), &[]);
    cases.push(case_within(Status::Role, &[SERVICE, &replica.addr(), "replica"], |ms| ask(&stale, ms)));
    let split = Scripted::sentinels(3, SERVICE, &node.addr());
    let others = [Scripted::primary(), Scripted::primary()];
    for (sentinel, other) in split.iter().zip(&others) {
        sentinel.service(SERVICE, |state| (state.host, state.port) = fake_sentinel::split(&other.addr()));
    }
    let addrs: Vec<String> = split.iter().map(|sentinel| sentinel.addr()).collect();
    let parts = [SERVICE, &addrs[0], &addrs[1], &addrs[2], &node.addr(), &others[0].addr(), &others[1].addr()];
    cases.push(case_within(Status::SplitView, &parts, |ms| {
        within(&to_primary(&sentinel_at(&addrs, &[]), &[]), "GET k", ms)
    }));
    let watch = told(&primary.addr(), &[nowhere.addr()]);
    let readers = to_replicas(&handle(&watch, &[]), &[("replica.fallback", "error")]);
    cases.push(case_within(Status::NoReplica, &[SERVICE, &nowhere.addr()], |ms| within(&readers, "GET k", ms)));
    cases
}

/// Errors on the way to a data node, and by it.
fn of_the_nodes() -> Vec<Case> {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[("reply.max_bytes", "1024")]);
    let client = to_primary(&sentinel, &[]);
    let addr = node.addr();
    ok(&client, "SET k v");
    let with = |status: Status, fault: Fault, line: &str, parts: &[&str]| {
        case_within(status, parts, |ms| {
            node.fault(line.split(' ').next().expect("a name"), fault.clone());
            let outcome = within(&client, line, ms);
            node.clear_faults();
            outcome
        })
    };
    let wrong = Fault::Error("WRONGTYPE Operation against a key holding the wrong kind of value".into());
    let mut cases = vec![
        with(Status::Server, wrong, "LPUSH k v", &["WRONGTYPE Operation against a key"]),
        with(Status::Timeout, Fault::Stall, "INCR n", &[SERVICE, &addr, "INCR", "ms"]),
        with(Status::Io, Fault::Close, "INCR n", &[SERVICE, &addr, "INCR", "closed"]),
        with(Status::Io, Fault::Reset, "INCR n", &[SERVICE, &addr, "INCR"]),
        with(Status::Protocol, Fault::Raw(b"what?\r\n".to_vec()), "INCR n", &[SERVICE, &addr, "RESP"]),
        with(Status::Limit, Fault::Reply(Value::bulk("x".repeat(2000))), "INCR n", &[SERVICE, &addr, "1024"]),
    ];
    node.fault("EXEC", Fault::Reply(Value::NilArray));
    let own = client.session(None).expect("a session");
    cases.push(case(Status::TxnAborted, cmd(&own, "EXEC"), &["EXEC", "watched"]));
    let locked = Scripted::primary();
    locked.state(|state| state.door.login = Some(Login::password("secret")));
    let watch = told(&locked.addr(), &[]);
    let guess = to_primary(&handle(&watch, &[("auth.password", "guess")]), &[]);
    cases.push(case(Status::Auth, cmd(&guess, "GET k"), &[SERVICE, &locked.addr()]));
    assert!(cases.iter().all(|case| !case.error.message().contains("guess")), "no secret in a message");
    cases.extend(of_the_pool(&addr));
    cases.extend(of_a_cursor());
    cases
}

fn of_the_pool(addr: &str) -> Vec<Case> {
    let of = |wait: &str| {
        let watch = told(addr, &[]);
        let client = to_primary(&handle(&watch, &[("pool.max", "2"), ("pool.wait", wait)]), &[]);
        let held = client.session(None).expect("a session");
        ok(&held, "PING");
        cmd(&client.session(None).expect("a session"), "PING")
    };
    vec![
        case(Status::PoolTimeout, of("60"), &[SERVICE, addr, "in_use 1", "pool.max 2"]),
        case(Status::PoolBusy, of("0"), &[SERVICE, addr, "in_use 1", "pool.max 2"]),
    ]
}

fn of_a_cursor() -> Vec<Case> {
    let primary = Scripted::primary();
    let replica = Scripted::replica(&primary.addr());
    let watch = told(&primary.addr(), &[replica.addr()]);
    let readers = to_replicas(&handle(&watch, &[]), &[("replica.fallback", "error")]);
    replica.fault("SCAN", Fault::Reply(Value::Array(vec![Value::bulk("17"), Value::Array(Vec::new())])));
    ok(&readers, "SCAN 0");
    replica.down();
    vec![case(Status::ScanInterrupted, cmd(&readers, "SCAN 17"), &[&replica.addr(), "cursor 0"])]
}

#[test]
fn row_147_each_kind_is_one_code_and_a_sentence() {
    let mut names: BTreeMap<&str, i32> = BTreeMap::new();
    for Case { status, error, parts } in of_the_caller().into_iter().chain(of_the_sentinels()).chain(of_the_nodes()) {
        assert_eq!(error.status(), status, "{error}");
        for part in parts {
            assert!(error.message().contains(&part), "{status:?}: no {part:?} in: {error}");
        }
        let info = status.info();
        assert_eq!((info.status, Status::from_code(status.code())), (status, Some(status)));
        assert_eq!(*names.entry(info.name).or_insert(status.code()), status.code());
        assert_eq!(error.server_code().is_empty(), ![Status::Server, Status::Auth].contains(&status), "{error}");
    }
    assert!(names.len() >= 20, "{names:?}");
    let codes: std::collections::BTreeSet<i32> = names.values().copied().collect();
    assert_eq!(codes.len(), names.len(), "no two kinds share a code");
    // Errors that need a resolver, TLS, a fork, a queue, shards, or a bug are not made here.
}

#[test]
fn row_147_an_error_says_where_it_happened() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    node.fault("INCR", Fault::Error("OOM command not allowed".into()));
    let error = fails(Status::Server, cmd(&client, "INCR n"));
    assert_eq!((error.server_code(), error.endpoint()), ("OOM", node.addr().as_str()));
    assert_eq!(error.message(), "OOM command not allowed", "the server's line, unaltered");
    let refused = refuse();
    let watch = told(&refused.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    let names_it = |error: &Error| error.message().contains("refused");
    let outcome = patiently(|ms| within(&client, "GET k", ms), |outcome| outcome.as_ref().err().is_some_and(names_it));
    let error = outcome.expect_err("nobody is there");
    assert!(
        error.message().contains("refused") && error.message().contains(&refused.addr()),
        "the last cause: {error}"
    );
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
}

/// Handles are opened, used and closed, in every order of ends.
fn round(watch: &FakeSentinel, order: usize) {
    let sentinel = handle(watch, &[("pool.min", "2"), ("pool.max", "4")]);
    let (client, readers) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[]));
    let own = client.session(None).expect("a session");
    let reply: Reply = cmd(&client, "SET k v").expect("SET runs");
    ok(&readers, "GET k");
    ok(&own, "GET k");
    let ends: [Box<dyn FnOnce()>; 4] = [
        Box::new(move || drop(sentinel)),
        Box::new(move || drop(client)),
        Box::new(move || drop(readers)),
        Box::new(move || drop(own)),
    ];
    let mut ends: Vec<_> = ends.into_iter().map(Some).collect();
    // The order with this number, of 24.
    let (mut left, mut rest) = ((0..4).collect::<Vec<usize>>(), order);
    for n in (1..=4).rev() {
        let next = left.remove(rest % n);
        rest /= n;
        ends[next].take().expect("each once")();
    }
    assert_eq!(reply.bytes(0), Some(&b"OK"[..]), "a reply outlives all");
}

#[test]
fn row_148_lifetimes_in_every_order_leave_nothing_behind() {
    alone(concat!(module_path!(), "::row_148_lifetimes_in_every_order_leave_nothing_behind"), || {
        let primary = Scripted::primary();
        let replica = Scripted::replica(&primary.addr());
        let watch = told(&primary.addr(), &[replica.addr()]);
        let empty = held();
        (0..24).for_each(|order| round(&watch, order));
        eventually("all connections are closed", Duration::from_secs(10), || {
            primary.connections() + replica.connections() + watch.connections() == 0
        });
        // Closed explicitly, then dropped; and closed while others call.
        for _ in 0..5 {
            let sentinel = handle(&watch, &[]);
            let clients: Vec<_> = (0..3).map(|_| to_primary(&sentinel, &[])).collect();
            std::thread::scope(|scope| {
                for client in &clients {
                    scope.spawn(|| while cmd(client, "INCR n").is_ok() {});
                }
                eventually("all call", Duration::from_secs(10), || {
                    clients.iter().all(|client| counter(client, "calls") > 3)
                });
                close_all(&sentinel, Timeout::Ms(20_000)).expect("closed");
            });
        }
        back_to(empty);
    });
}

#[test]
fn row_148_two_hundred_failing_opens_leave_nothing_behind() {
    alone(concat!(module_path!(), "::row_148_two_hundred_failing_opens_leave_nothing_behind"), || {
        let (primary, nowhere) = (Scripted::primary(), refuse());
        let watch = told(&primary.addr(), &[]);
        primary.state(|state| state.door.login = Some(Login::password("secret")));
        let empty = held();
        for turn in 0..200 {
            match turn % 4 {
                // A wrong password, an address that refuses, an unknown service, an eager client that cannot connect.
                0 => drop(fails(Status::Auth, cmd(&to_primary(&handle(&watch, &[]), &[]), "GET k"))),
                1 => {
                    let sentinel = sentinel_at(&[nowhere.addr()], &[]);
                    let error = within(&to_primary(&sentinel, &[]), "GET k", 5).expect_err("nobody is there");
                    assert!(matches!(error.status(), Status::NoSentinel | Status::Timeout), "{error}");
                }
                2 => {
                    let sentinel = handle(&watch, &[]);
                    let client = Client::open(&sentinel, Some("other"), Target::Primary, None).expect("lazy");
                    fails(Status::UnknownService, cmd(&client, "GET k"));
                }
                _ => {
                    let eager = config(&[("pool.eager", "true")]);
                    let outcome = Client::open(&handle(&watch, &[]), None, Target::Primary, Some(&eager));
                    fails(Status::Auth, outcome);
                }
            }
        }
        eventually("all connections are closed", Duration::from_secs(10), || {
            primary.connections() + watch.connections() == 0
        });
        back_to(empty);
    });
}

#[test]
fn what_no_waiting_mends_ends_at_once_and_names_its_option() {
    let (p, r) = (Scripted::primary(), Scripted::primary());
    r.state(|state| state.role = FakeRole::replica_of(&p.addr()));
    let watch = told(&p.addr(), &[r.addr()]);
    let select = |line: &str| [&p, &r].iter().for_each(|node| node.fault("SELECT", Fault::Error(line.into())));
    for (line, status) in [
        ("ERR DB index is out of range", Status::Config),
        ("NOPERM this user has no permissions to run the 'select' command", Status::Auth),
        ("ERR unknown command 'SELECT', with args beginning with: '7'", Status::Unsupported),
    ] {
        select(line);
        let sentinel = handle(&watch, &[("db", "7"), ("replica.fallback", "error")]);
        let (primary, replicas) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[]));
        let queue = completions::queue(4);
        let submit = || {
            primary.cmds_submit(&list(&["SET k v"]), CallFlags::default(), Timeout::Ms(30_000), &queue, 1)?;
            completions::one(&queue).1
        };
        let in_session = || cmd(&*primary.session(None)?, "GET k");
        let kinds: [&dyn Fn() -> Result<Reply>; 4] =
            [&|| within(&primary, "SET k v", 30_000), &|| within(&replicas, "GET k", 30_000), &submit, &in_session];
        for (number, call) in kinds.into_iter().enumerate() {
            let asked = || p.count("SELECT") + r.count("SELECT");
            // Callers whose options a node refuses share a pause, in which they are told the same without another attempt.
            let (tried, error) = eventually_some("an attempt of its own", Duration::from_secs(20), || {
                let before = asked();
                let error = fails(status, call());
                // The discovery before the first call also selects the database, and ignores a failure.
                let tried = (asked() - before).saturating_sub(usize::from(number == 0));
                (tried > 0).then_some((tried, error))
            });
            assert_eq!(tried, 1, "{number}: {line}: tried once");
            assert!(!error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{number}: {error:?}");
            let tried =
                ["SET for service 'mymaster'", "GET for service 'mymaster'", "(SET, ...) for service", "a session for"]
                    [number];
            assert!(error.message().contains(tried) && error.message().contains("db=7: SELECT"), "{number}: {error}");
            let remedies = ["choose a database", "leave the option out"];
            assert!(remedies.iter().any(|remedy| error.message().contains(remedy)), "{number}: {error}");
        }
    }
    // Temporary errors are waited for.
    select("LOADING Redis is loading the dataset in memory");
    let sentinel = handle(&watch, &[("db", "7")]);
    let client = to_primary(&sentinel, &[]);
    let waits = spawn(move || within(&client, "SET k v", 20_000).map(drop));
    p.wait_count("SELECT", p.count("SELECT") + 3, Duration::from_secs(10));
    [&p, &r].iter().for_each(|node| node.clear_faults());
    join(&waits).expect("it has passed");
    // Protected mode is not temporary.
    p.fault("@accept", Fault::Raw(b"-DENIED Redis is running in protected mode\r\n".to_vec()));
    let sentinel = handle(&watch, &[]);
    let before = p.accepted();
    let error = fails(Status::Connect, within(&to_primary(&sentinel, &[]), "SET k v", 30_000));
    assert!(!error.has(flags::RETRYABLE) && error.message().contains("protected mode"), "{error:?}");
    assert!(p.accepted() - before <= 2, "{} connections", p.accepted() - before);
}
