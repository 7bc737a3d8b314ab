//! Bad input of every kind gives a code and a sentence within the deadline. The process goes on, nothing leaks, and
//! other clients of the handle do not notice.

use crate::calls;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::config::Config;
use vigie::error::{Error, Status, flags};
use vigie::topology::Sentinel;

const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

/// Sets and checks one option beside the address of a Sentinel.
fn configured(key: &str, value: &str) -> vigie::error::Result<()> {
    let mut config = Config::new();
    if key != "sentinel.addrs" && key != "uri" {
        config.set("sentinel.addrs", "127.0.0.1:1")?;
    }
    config.set(key, value)?;
    config.settings().map(drop)
}

#[test]
fn bad_uris_options_and_ports() {
    for uri in [
        "",
        "nonsense",
        "http://h:1/s",
        "redis://",
        "redis://h:1,h:2",
        "redis://h:1/s",
        "redis-sentinel://",
        "redis-sentinel:///s",
        "redis-sentinel://h:0/s",
        "redis-sentinel://h:65536/s",
        "redis-sentinel://h:-1/s",
        "redis-sentinel://h:port/s",
        "redis-sentinel://h:1:2/s",
        "redis-sentinel://[::1/s",
        "redis-sentinel://[zz]:1/s",
        "redis-sentinel://h,,g/s",
        "redis-sentinel://h/s?nokey=1",
        "redis-sentinel://h/s?db=x",
        "redis-sentinel://h/s?db",
        "redis-sentinel://u:%zz@h/s",
        "redis-sentinel://u:%ff@h/s",
        "redis-sentinel://h/s#fragment",
    ] {
        let error = fails(Status::Config, configured("uri", uri));
        assert!(error.message().len() > 15, "{uri}: a sentence, not {error}");
    }
    for (key, value) in [
        ("sentinel.addrs", ""),
        ("sentinel.addrs", "h:70000"),
        ("sentinel.addrs", "h:1,,g:2"),
        ("sentinel.addrs", "h:1:2"),
        ("sentinel.addrs", "h p:1"),
        ("timeout.call", "0"),
        ("timeout.call", "-5"),
        ("timeout.call", "5 parsecs"),
        ("timeout.call", "99999999999999999999"),
        ("pool.max", "1"),
        ("pool.min", "17"),
        ("protocol", "4"),
        ("client.name", "two words"),
        ("client.no_evict", "maybe"),
        ("lane.share_at", "NaN"),
        ("replica.pick", "any"),
        ("address.map", "a=b=c"),
        ("auth.username", "user without a password"),
        ("reply.max_depth", "0"),
        ("tcp_keepalive", "1"),
    ] {
        let error = fails(Status::Config, configured(key, value));
        assert!(error.message().contains(key), "{key}={value:?} is named: {error}");
    }
    let secret = fails(Status::Config, configured("uri", "redis-sentinel://u:hunter2@h:70000/s"));
    assert!(!secret.message().contains("hunter2"), "{secret}");
    let misspelt = fails(Status::Config, configured("pool.maxx", "3"));
    assert!(misspelt.message().contains("pool.max"), "the nearest one is suggested: {misspelt}");
    fails(Status::Config, Config::new().settings());
    fails(Status::InvalidArg, CallFlags::from_bits(1 << 20));
}

#[test]
fn bad_commands_and_lists() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    let plain = CallFlags::default();
    for args in [&[][..], &[&b""[..]], &[b"", b"x"]] {
        fails(Status::InvalidArg, client.cmd_exec(args, plain, Timeout::Default));
    }
    for bytes in [
        "PING\r\n",
        "*1\r\n",
        "*1\r\n$4\r\nPIN",
        "*1\r\n$4\r\nPING",
        "*1\r\n$5\r\nPING\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n:4\r\n",
        "*99999999999\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "",
        "*1\r\n$4\r\nPING\r\nrest",
        "\r\n",
        "\0",
        "*1\r\n$0\r\n\r\n",
        "*1\r\n$4\r\nPING\r\n*2\r\n$0\r\n\r\n$1\r\nx\r\n",
    ] {
        let run = || client.cmds_exec(bytes.as_bytes(), plain, Timeout::Default);
        fails(Status::InvalidArg, takes_at_most(&format!("{bytes:?}"), 50 * MS, run));
    }
    assert_eq!((node.accepted(), node.log().len()), (0, 0), "nothing of it went out");
    let error = fails(Status::Timeout, client.cmd_exec(&[b"GET", b"k"], plain, Timeout::DontWait));
    assert_eq!(error.flags(), 0, "the same call fails again: {error}");
    assert_eq!(json(&run(&client, &["SET k v", "GET k"]).expect("it goes on")), r#"["OK","v"]"#);
}

/// Servers that are no Sentinels, each with the text that its part of the message has.
fn pretenders(data: &Node) -> Vec<(Scripted, String)> {
    let silent = Scripted::start(|_| Act::Silence);
    let closing = Scripted::start(|_| Act::Close);
    let ok = Scripted::start(|_| Act::Reply(Value::ok()));
    let http = Scripted::start(|_| Act::Silence);
    http.fault("*", Fault::Raw(b"HTTP/1.1 400 Bad Request\r\nServer: web\r\n\r\n<html>".to_vec()));
    let greeting = Scripted::start(|_| Act::Silence);
    greeting.fault("@accept", Fault::Raw(b"220 mail.example ESMTP\r\n".to_vec()));
    let endless = Scripted::start(|_| Act::Silence);
    endless.fault("*", Fault::Endless);
    let zeros = Scripted::start(|_| Act::Silence);
    zeros.fault("*", Fault::Raw(vec![0; 1 << 20]));
    let named = [silent, closing, ok, http, greeting, endless, zeros];
    let mut all: Vec<(Scripted, String)> = named.into_iter().map(|one| (one, String::new())).collect();
    all.iter_mut().for_each(|(one, addr)| *addr = one.addr());
    all.push((Scripted::start(|_| Act::Silence), data.addr()));
    all
}

#[test]
fn sentinels_that_are_none() {
    let d = Deployment::new("no-sentinel").replicas(0).sentinels(0).start();
    let data = d.node("mymaster-0");
    let pretenders = pretenders(&data);
    let addrs: Vec<String> = pretenders.iter().map(|(_, addr)| addr.clone()).collect();
    for addr in &addrs {
        let sentinel = sentinel_at(std::slice::from_ref(addr), &[("timeout.sentinel", "150")]);
        let client = to_primary(&sentinel, &[]);
        let run = |ms| takes_at_most(addr, MS * ms as u32 + 100 * MS, || within(&client, "GET k", ms));
        let is_so = |error: &Error| error.status() == Status::NoSentinel;
        let outcome = patiently(run, |outcome| outcome.as_ref().err().is_some_and(is_so));
        let error = fails(Status::NoSentinel, outcome);
        assert!(error.message().contains(addr) && error.message().contains(SERVICE), "{error}");
        assert!(!error.has(flags::MAYBE_EXECUTED), "{error}");
    }
    // All of them beside a good Sentinel: nothing fails.
    let watch = told(&data.addr(), &[]);
    let all = [addrs, vec![watch.addr()]].concat();
    let client = to_primary(&sentinel_at(&all, &[("timeout.sentinel", "300")]), &[]);
    assert_eq!(takes_at_most("the first write", 600 * MS, || ok(&client, "INCR n")), "1");
    assert_eq!(data.cmd(&["GET", "n"]).int(), Some(1));
}

/// A client of another service of the same handle, which calls all the time; `end` returns its result.
struct Bystander {
    node: FakeNode,
    done: Arc<AtomicBool>,
    outcome: std::sync::mpsc::Receiver<(u32, Vec<Error>, Duration)>,
    pacing: Pacing,
}

impl Bystander {
    fn of(sentinel: &Arc<Sentinel>, watch: &FakeSentinel) -> Bystander {
        let node = Scripted::primary();
        watch.state(|state| {
            drop(state.services.insert("healthy".into(), fake_sentinel::ServiceState::of(&node.addr())))
        });
        let client = Client::open(sentinel, Some("healthy"), Target::Primary, None).expect("a lazy client");
        let done = Arc::new(AtomicBool::new(false));
        let mut errors: Vec<Error> = cmd(&client, "SET k 0").err().into_iter().collect();
        let seen = done.clone();
        let outcome = spawn(move || {
            let (mut calls, mut longest) = (0, Duration::ZERO);
            while !seen.load(Ordering::Relaxed) {
                let (outcome, took) = pace::unhindered(|| cmd(&client, "INCR k"));
                errors.extend(outcome.err());
                (calls, longest) = (calls + 1, longest.max(took));
                std::thread::sleep(Duration::from_millis(1));
            }
            (calls, errors, longest)
        });
        Bystander { node, done, outcome, pacing: Pacing::start() }
    }

    #[track_caller]
    fn end(self) {
        self.done.store(true, Ordering::Relaxed);
        let (calls, errors, longest) = join(&self.outcome);
        assert!(calls > 20 && errors.is_empty(), "{calls} calls, {errors:?}");
        self.pacing.stop().judge("the slowest call of another service", longest, 100 * MS);
        // All calls share the connection that verified the primary.
        assert_eq!((self.node.accepted(), self.node.count("INCR")), (1, calls as usize));
    }
}

/// Faults of a data node, and what a read with 250 ms gets.
fn faults() -> Vec<(&'static str, Fault, &'static [Status])> {
    let raw = |bytes: &[u8]| Fault::Raw(bytes.to_vec());
    let nested = b"*1\r\n".repeat(200);
    vec![
        ("no RESP", raw(b"HTTP/1.1 200 OK\r\n\r\n"), &[Status::Protocol]),
        ("bytes", raw(&[0xff; 64]), &[Status::Protocol]),
        ("a bad length", raw(b"$-7\r\nx\r\n"), &[Status::Protocol]),
        ("a bad number", raw(b":12x\r\n"), &[Status::Protocol]),
        ("a wrong end", raw(b"$3\r\nabcXY"), &[Status::Protocol]),
        ("a huge length", raw(b"$99999999999999999999\r\n"), &[Status::Protocol, Status::Limit]),
        ("a huge bulk", raw(b"$5000000000\r\n"), &[Status::Limit]),
        ("half a reply", raw(b"$10\r\nhalf"), &[Status::Timeout]),
        ("half a line", raw(b"+OK"), &[Status::Timeout]),
        ("half and closed", Fault::Half, &[Status::Io]),
        ("a billion elements", Fault::Endless, &[Status::Timeout, Status::Limit]),
        ("a million elements", raw(b"*1000000\r\n:1\r\n"), &[Status::Timeout]),
        ("too deep", raw(&nested), &[Status::Limit]),
        ("two replies", raw(b"+OK\r\n+OK\r\n"), &[]),
        ("a streamed type", raw(b"$?\r\n;3\r\nabc\r\n;0\r\n"), &[Status::Protocol, Status::Unsupported]),
        ("no answer", Fault::Stall, &[Status::Timeout]),
        ("a close", Fault::Close, &[Status::Io]),
        ("a reset", Fault::Reset, &[Status::Io]),
    ]
}

#[test]
fn data_nodes_that_send_rubbish_are_survived() {
    alone(concat!(module_path!(), "::data_nodes_that_send_rubbish_are_survived"), || {
        let node = Scripted::primary();
        let watch = told(&node.addr(), &[]);
        let empty = held();
        let sentinel = handle(&watch, &[("lane.silent", "200")]);
        let bystander = Bystander::of(&sentinel, &watch);
        for (what, fault, expected) in faults() {
            let client = to_primary(&sentinel, &[]);
            let session = client.session(None).expect("a session");
            ok(&client, "SET k v");
            for own in [false, true] {
                let caller = if own { &session } else { &client };
                let run = |ms| {
                    node.fault("INCR", fault.clone());
                    let outcome = takes_at_most(what, MS * ms as u32 + 50 * MS, || within(caller, "INCR n", ms));
                    node.clear_faults();
                    outcome
                };
                let outcome = patiently(run, |outcome| match outcome {
                    Ok(_) => expected.is_empty(),
                    Err(error) => expected.contains(&error.status()) && error.has(flags::MAYBE_EXECUTED),
                });
                match (outcome, expected) {
                    (Ok(_), []) => {}
                    (Err(error), expected) if expected.contains(&error.status()) => {
                        let told = error.message();
                        assert!(told.contains(&node.addr()) && told.contains(SERVICE), "{what}: {error}");
                        assert!(error.has(flags::MAYBE_EXECUTED), "{what}: {error}");
                    }
                    (other, _) => panic!("{what}, own: {own}: {other:?}"),
                }
                // The next call succeeds, on a connection without remains of the old one.
                session.disconnect().expect("an open session");
                eventually(what, SOON, || within(caller, "GET k", 300).is_ok_and(|reply| text(&reply) == "v"));
            }
        }
        bystander.end();
        drop(sentinel);
        eventually("no connection is left", SOON, || node.connections() == 0);
        back_to(empty);
    });
}

#[test]
fn handshakes_that_go_wrong_are_survived() {
    alone(concat!(module_path!(), "::handshakes_that_go_wrong_are_survived"), || {
        let node = Scripted::primary();
        let watch = told(&node.addr(), &[]);
        let empty = held();
        let sentinel = handle(&watch, &[("timeout.connect", "120")]);
        let bystander = Bystander::of(&sentinel, &watch);
        let ready = to_primary(&sentinel, &[]);
        for (pattern, (what, fault, _)) in
            ["HELLO", "ROLE"].into_iter().flat_map(|at| faults().into_iter().map(move |f| (at, f)))
        {
            ok(&ready, "SET k v");
            node.fault(pattern, fault);
            let client = to_primary(&sentinel, &[]);
            let outcome = takes_at_most(what, 150 * MS, || within(&client, "INCR n", 60));
            node.clear_faults();
            let error = outcome.expect_err("nobody shakes hands like that");
            assert!(error.message().contains(SERVICE) && error.message().len() > 30, "{what} at {pattern}: {error}");
            assert!(!error.has(flags::MAYBE_EXECUTED), "{what} at {pattern}: {error}");
            eventually(what, SOON, || within(&client, "GET k", 500).is_ok());
        }
        assert_eq!(node.count("INCR"), 0, "no command before a handshake");
        bystander.end();
        drop((ready, sentinel));
        back_to(empty);
    });
}

#[test]
fn a_billion_elements_announced_cost_no_memory() {
    alone(concat!(module_path!(), "::a_billion_elements_announced_cost_no_memory"), || {
        let node = Scripted::primary();
        let watch = told(&node.addr(), &[]);
        let sentinel = handle(&watch, &[("reply.max_nodes", "4294967295")]);
        let client = to_primary(&sentinel, &[]);
        ok(&client, "SET k v");
        let before = peak_memory();
        for bytes in [&b"*1000000000\r\n"[..], b"%1000000000\r\n", b"*2\r\n*1000000000\r\n", b"$500000000\r\nx"] {
            node.fault("GET", Fault::Raw(bytes.to_vec()));
            let error = within(&client, "GET k", 80).expect_err("it never comes");
            assert!(matches!(error.status(), Status::Timeout | Status::Limit), "{error}");
            client.disconnect().expect("an open client");
            node.clear_faults();
        }
        let grown = peak_memory() - before;
        assert!(grown < 20_000, "{grown} kB more than before");
        assert_eq!(ok(&client, "GET k"), "v");
    });
}

/// The most memory that this process ever had, in kB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn limits_of_replies() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let limits = [("reply.max_bytes", "2000"), ("reply.max_depth", "3"), ("reply.max_nodes", "50")];
    let client = to_primary(&handle(&watch, &limits), &[]);
    ok(&client, "SET k v");
    let ints = |n: usize| Value::Array((0..n).map(|n| Value::Int(n as i64)).collect());
    let wrapped = |value: Value| Value::Array(vec![value]);
    for (fits, too_much) in [
        (Value::bulk("x".repeat(1900)), Value::bulk("x".repeat(2001))),
        (ints(49), ints(50)),
        (wrapped(wrapped(ints(1))), wrapped(wrapped(wrapped(ints(1))))),
    ] {
        node.fault_times("GET", 1, Fault::Reply(fits));
        ok(&client, "GET k");
        node.fault("GET", Fault::Reply(too_much));
        let run = || within(&client, "GET k", 4000);
        let error = fails(Status::Limit, takes_at_most("what asking again would not help", 300 * MS, run));
        assert!(error.message().contains("a reply") && error.endpoint() == node.addr(), "{error}");
        node.clear_faults();
        assert_eq!(ok(&client, "GET k"), "v");
    }
}
