//! Connections for one caller: what is sent and received on them at the same time, and what a caller is told if a
//! server cuts one.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calls::*;
use completions::*;
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::Event;
use vigie::resp::{Reply, encode};
use vigie::time::Deadline;

/// Longer than anything here takes on a loaded machine.
const LONG: Timeout = Timeout::Ms(60_000);
const MB: usize = 1 << 20;
const NO_POLLS: (&str, &str) = ("monitor.interval", "60s");
const TOO_LONG: &str = "ERR Protocol error: invalid bulk length";

/// VIGIE_CALL_REPLICAS of the header.
const ONE_REPLICA: u32 = 1 << 24;

/// So many ECHO of 2000 bytes.
fn echoes(count: usize) -> Vec<u8> {
    let (text, mut list) = ([b'x'; 2000], Vec::new());
    (0..count).for_each(|_| encode::command(&mut list, &[b"ECHO", &text]));
    list
}

fn run_list(client: &Client, list: &[u8], flags: u32) -> Result<Reply> {
    client.cmds_exec(list, CallFlags::from_bits(flags).expect("known flags"), LONG)
}

#[track_caller]
fn all_echoed(outcome: Result<Reply>, count: u32) {
    let reply = outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reply.count(0), count);
    assert!(reply.children(0).all(|child| reply.bytes(child).is_some_and(|text| text.len() == 2000)));
}

/// Their connections have no more right to a place than a caller that waits for one.
#[test]
fn submitted_commands_that_blocked_and_are_over_leave_room_for_sessions() {
    let d = single("own-idle");
    let (client, queue) = (to_primary(&sentinel_of(&d, &[("pool.max", "6")]), &[]), completions::queue(16));
    ok(&client, "SET k v");
    let each = CallFlags::from_bits(CallFlags::EACH).expect("known");
    for token in 0..5 {
        client.cmds_submit(&list(&["BLPOP none 0.1"]), each, Timeout::Default, &queue, token).expect("taken");
    }
    let ended = completions::drain(&queue, 5).into_iter().filter(|event| event.outcome.is_ok()).count();
    assert!(ended >= 4, "{ended}: one place is kept for calls that share a connection");
    let own: Vec<_> = (0..5).map(|_| client.session(None).expect("a session")).collect();
    own.iter().for_each(|session| assert_eq!(ok(session, "PING"), "PONG"));
    drop(own);
    assert_eq!(ok(&client, "BLPOP none 0.01"), "null");
}

#[test]
fn a_long_list_is_read_while_it_is_written() {
    let d = Deployment::new("both-ways").replicas(1).sentinels(1).quorum(1).start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    call(&client, "SET streaming yes", ONE_REPLICA, LONG).expect("the replica is there");
    let list = echoes(10_000);
    // The server cuts off a client that leaves 4 MB of its replies unread.
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "client-output-buffer-limit", "normal 4mb 0 0"]);
    all_echoed(run_list(&client, &list, 0), 10_000);
    all_echoed(run_list(&client.session(None).expect("a session"), &list, 0), 10_000);
    let mut durable = list.clone();
    encode::command(&mut durable, &[b"SET", b"k", b"v"]);
    let reply = run_list(&client, &durable, ONE_REPLICA).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((reply.count(0), reply.bytes(reply.child(0, 10_000).expect("the last"))), (10_001, Some(&b"OK"[..])));
    let queue = queue(10_001);
    client.cmds_submit(&list, CallFlags::from_bits(EACH).expect("flags"), LONG, &queue, 7).expect("room for all");
    assert!(drain(&queue, 10_000).iter().all(|event| event.outcome.is_ok()));
    assert_eq!(counter(&client, "retries"), 0);
}

/// The server's own line and nothing else; the command was certainly not executed.
#[track_caller]
fn is_refused(outcome: Result<Reply>) -> Error {
    let error = fails(Status::Server, outcome);
    assert_eq!((error.message(), error.server_code()), (TOO_LONG, "ERR"));
    assert!(!error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
    error
}

#[test]
fn what_the_server_said_before_it_cut_the_connection_is_told() {
    let d = Deployment::new("last-words").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    call(&client, "SET streaming yes", ONE_REPLICA, LONG).expect("the replica is there");
    let primary = d.primary_node(SERVICE);
    primary.cmd(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    let value = vec![b'x'; 20 * MB];
    let set = |client: &Arc<Client>, flags: u32| {
        let flags = CallFlags::from_bits(flags).expect("known flags");
        client.cmd_exec(&[b"SET", b"k", &value], flags, LONG)
    };
    is_refused(set(&client, 0));
    is_refused(set(&client, CallFlags::IDEMPOTENT));
    is_refused(set(&client, ONE_REPLICA));
    let own = client.session(None).expect("a session");
    is_refused(set(&own, 0));
    // The connection is gone, and with it the session.
    fails(Status::Io, cmd(&own, "PING"));
    // A lane, because there is no place for another connection.
    let narrow = to_primary(&sentinel, &[("pool.max", "2"), ("lane.max", "1")]);
    ok(&narrow, "PING");
    let _taken = narrow.session(None).map(|own| (ok(&own, "PING"), own)).expect("a session");
    is_refused(set(&narrow, 0));
    // A submitted one.
    let (queue, mut bytes) = (queue(10), Vec::new());
    encode::command(&mut bytes, &[b"SET", b"k", &value]);
    client.cmds_submit(&bytes, CallFlags::from_bits(EACH).expect("flags"), LONG, &queue, 9).expect("room");
    is_refused(one(&queue).1);
    assert_eq!(counter(&client, "retries") + counter(&narrow, "retries"), 0);
    assert_eq!(ok(&client, "EXISTS k"), "0");
}

#[test]
fn of_a_list_that_the_server_cut_what_ran_is_known() {
    let d = single("cut-list");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    d.primary_node(SERVICE).cmd(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    let (mut list, value) = (Vec::new(), vec![b'x'; 20 * MB]);
    for command in [&[&b"INCR"[..], b"a"][..], &[b"SET", b"k", &value], &[b"INCR", b"b"]] {
        encode::command(&mut list, command);
    }
    let reply = run_list(&client, &list, 0).unwrap_or_else(|error| panic!("{error}"));
    let line = Some(TOO_LONG.as_bytes());
    assert_eq!((reply.count(0), reply.int(1), reply.error_line(2), reply.error_line(3)), (3, Some(1), line, line));
    assert_eq!(
        (ok(&client, "GET a"), ok(&client, "EXISTS k b"), counter(&client, "retries")),
        ("1".into(), "0".into(), 0)
    );
}

/// A command and its flags.
type Flagged = (Vec<Vec<u8>>, u32);

/// A primary and its client: commands with a value of 24 MB, blocking ones, and ones that count replicas. Each has its
/// own connection.
fn with_long_commands() -> (FakeNode, FakeSentinel, Arc<Client>, [Flagged; 2]) {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &["127.0.0.1:1".into()]);
    let client = to_primary(&handle(&watch, &[NO_POLLS]), &[]);
    primary.fault("WAIT", Fault::Reply(Value::Int(1)));
    ok(&client, "SET n 0");
    let value = vec![b'x'; 24 * MB];
    let [blocking, durable] =
        [[b"BLPOP".to_vec(), value.clone(), b"1".to_vec()], [b"SET".to_vec(), b"k".to_vec(), value]];
    (primary, watch, client, [(blocking.to_vec(), 0), (durable.to_vec(), ONE_REPLICA)])
}

fn run_args(client: &Client, args: &[Vec<u8>], flags: u32) -> Result<Reply> {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    client.cmd_exec(&args, CallFlags::from_bits(flags).expect("known flags"), LONG)
}

/// The server stops reading until its reply is taken: that is more than the sockets hold.
#[test]
fn a_reply_that_comes_while_a_blocking_or_durable_command_is_still_sent_is_taken() {
    let (primary, _watch, client, commands) = with_long_commands();
    let begin = [b"*2\r\n$1\r\nk\r\n".to_vec(), Vec::new()];
    for ((args, flags), begin) in commands.iter().zip(begin) {
        let said = 24 * MB;
        let early = [&begin[..], format!("${said}\r\n").as_bytes(), &vec![b'y'; said]].concat();
        primary.fault_times("@long", 1, Fault::Raw(early));
        let name = String::from_utf8_lossy(&args[0]).into_owned();
        primary.fault_times(&name, 1, Fault::Raw(b"\r\n".to_vec()));
        let reply = run_args(&client, args, *flags).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = if begin.is_empty() { 0 } else { reply.child(0, 1).expect("what was popped") };
        assert_eq!(reply.bytes(text).map(<[u8]>::len), Some(said), "{name}");
        assert_eq!((primary.count(&name), primary.count("WAIT")), if *flags == 0 { (1, 0) } else { (2, 1) }, "{name}");
    }
    assert_eq!(counter(&client, "retries"), 0);
}

#[test]
fn the_last_word_about_a_blocking_or_durable_command_that_is_still_sent_is_told() {
    let (primary, _watch, client, commands) = with_long_commands();
    primary.fault("@long", Fault::Last(format!("-{TOO_LONG}\r\n").into_bytes()));
    for (args, flags) in &commands {
        is_refused(run_args(&client, args, *flags));
    }
    assert_eq!((primary.count("BLPOP"), primary.count("SET k"), primary.count("WAIT")), (0, 0, 0));
    assert_eq!((counter(&client, "retries"), ok(&client, "GET n").as_str()), (0, "0"));
}

/// How many connections 64 threads open within 5 s to a primary that stops serving but stays the primary.
fn made_meanwhile(change: impl FnOnce(&FakeNode), options: &[(&str, &str)], status: &[Status]) -> u64 {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    let client = to_primary(&handle(&watch, options), &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    change(&primary);
    let before = primary.accepted();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            spawn(move || within(&client, "SET k v", 5000))
        })
        .collect();
    for call in &calls {
        let error = join(call).expect_err("it does not serve");
        // The outcome of the last call is unknown.
        let late = error.status() == Status::Timeout;
        assert!(status.contains(&error.status()) && (late || !error.has(flags::MAYBE_EXECUTED)), "{error:?}");
    }
    let made = primary.accepted() - before;
    // It serves again: no call waits for long.
    primary.clear_faults();
    primary.state(|state| (state.role, state.loading) = (FakeRole::Primary, false));
    assert_eq!(ok(&client, "SET k v"), "OK");
    made
}

#[test]
fn all_callers_share_the_pause_of_a_node_that_does_not_serve() {
    let demoted = |node: &FakeNode| node.state(|state| state.role = FakeRole::replica_of("127.0.0.1:1"));
    let made = made_meanwhile(demoted, &[], &[Status::Role, Status::NoPrimary]);
    assert!((5..40).contains(&made), "{made} connections to a primary that was demoted");
    let loading = |node: &FakeNode| {
        node.state(|state| state.loading = true);
        node.close_all();
    };
    let made = made_meanwhile(loading, &[], &[Status::Server]);
    assert!((5..40).contains(&made), "{made} connections to a primary that loads its data");
}

/// A node with the role of a primary that does not serve: a discovery that can ask it for its role ends no pause.
#[test]
fn all_callers_share_the_pause_of_a_primary_that_refuses_what_it_is_asked_to_do() {
    for line in ["READONLY You can't write against a read only replica.", "MASTERDOWN Link with MASTER is down"] {
        let refusing = |node: &FakeNode| node.fault("SET", Fault::Error(line.into()));
        let made = made_meanwhile(refusing, &[], &[Status::Server, Status::NoPrimary, Status::Timeout]);
        assert!((3..40).contains(&made), "{made} connections to a primary that answers {line}");
    }
    let closing = |node: &FakeNode| {
        node.fault("SELECT", Fault::Close);
        node.close_all();
    };
    let made = made_meanwhile(closing, &[("db", "3")], &[Status::Io, Status::Connect, Status::NoPrimary]);
    assert!((3..40).contains(&made), "{made} connections to a primary that closes at SELECT");
}

/// Waiting does not mend it, and each call is told at once; but the server is not asked by each of them.
#[test]
fn all_callers_share_the_pause_of_a_primary_that_refuses_their_options() {
    for (command, line, options, status) in [
        (
            "HELLO",
            "WRONGPASS invalid username-password pair or user is disabled.",
            ("auth.password", "old"),
            Status::Auth,
        ),
        ("SELECT", "ERR DB index is out of range", ("db", "3"), Status::Config),
    ] {
        let primary = Arc::new(Scripted::primary());
        let watch = told(&primary.addr(), &[]);
        let client = to_primary(&handle(&watch, &[options]), &[]);
        assert_eq!(ok(&client, "SET k v"), "OK");
        primary.fault(command, Fault::Error(line.into()));
        primary.close_all();
        let before = primary.accepted();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (client, primary) = (client.clone(), Arc::clone(&primary));
                spawn(move || {
                    let mut refused = 0;
                    while primary.accepted() - before < 6 {
                        let error = cmd(&client, "GET k").expect_err("it does not serve");
                        refused += u64::from(error.status() == status);
                    }
                    refused
                })
            })
            .collect();
        let refused: u64 = callers.iter().map(join).sum();
        let made = primary.accepted() - before;
        assert!(refused > 100 && made < 20, "{made} connections for {refused} calls that were told of {line}");
        primary.clear_faults();
        eventually("it serves", Duration::from_secs(20), || cmd(&client, "SET k v").is_ok());
    }
}

#[test]
fn a_word_about_the_nodes_ends_the_pause() {
    let (primary, replica) = (Scripted::primary(), Scripted::replica("127.0.0.1:1"));
    let watch = told(&primary.addr(), &[replica.addr()]);
    let slow = [("retry.backoff_min", "60s"), ("retry.backoff_max", "60s"), ("monitor.interval", "60s")];
    let client = to_primary(&handle(&watch, &slow), &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    let (p, r) = (primary.port(), replica.port());
    let about = format!("master {SERVICE} 127.0.0.1 {p}");
    let chosen = format!("slave 127.0.0.1:{r} 127.0.0.1 {r} @ {SERVICE} 127.0.0.1 {p}");
    for (channel, payload) in [("+reboot", &about), ("+selected-slave", &chosen)] {
        primary.state(|state| state.role = FakeRole::replica_of("127.0.0.1:1"));
        primary.close_all();
        let call = {
            let client = client.clone();
            spawn(move || within(&client, "GET k", 50_000))
        };
        // Either it said what it is, or a connection that was being established was closed with the others: from then on it has a
        // pause that is longer than anything here waits, and a call ends with the reason and without a dial.
        eventually("it has a pause", Duration::from_secs(20), || {
            let dialled = primary.accepted();
            let error = within(&client, "GET k", 300).expect_err("a replica");
            let expected = [Status::Role, Status::NoPrimary, Status::Timeout, Status::Connect];
            assert!(expected.contains(&error.status()), "{error:?}");
            error.status() != Status::Timeout && primary.accepted() == dialled
        });
        let dialled = primary.count("ROLE");
        primary.state(|state| state.role = FakeRole::Primary);
        within(&client, "GET k", 300).expect_err("it is left alone");
        assert_eq!(primary.count("ROLE"), dialled);
        eventually("somebody listens", Duration::from_secs(5), || watch.publish(channel, payload) > 0);
        assert_eq!(text(&join(&call).expect("it is dialled again")), "v");
    }
}

#[test]
fn nobody_inherits_the_bad_luck_of_the_first_caller() {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    let sentinel = handle(&watch, &[("timeout.connect", "60s")]);
    // Another client runs the discovery: the next connection is that of the first caller.
    ok(&to_primary(&sentinel, &[]), "PING");
    let client = to_primary(&sentinel, &[]);
    let begun = primary.accepted();
    primary.fault_times("HELLO", 1, Fault::Stall);
    let call = |line: &'static str| {
        let client = client.clone();
        spawn(move || within(&client, line, 50_000))
    };
    let first = call("SET k first");
    eventually("its handshake is stalled", Duration::from_secs(5), || primary.accepted() > begun);
    let second = call("SET k second");
    assert!(join(&second).is_ok(), "a connection of its own luck");
    assert!(first.try_recv().is_err(), "the first one is still at its handshake");
    assert_eq!(ok(&client, "GET k"), "second");
    primary.clear_faults();
    assert!(join(&first).is_ok());
}

/// The first call of a client, of each kind.
fn first_call(kind: &str, client: &Arc<Client>) {
    match kind {
        "call" => drop(ok(client, "SET k v")),
        "session" => drop(ok(&client.session(None).expect("a session"), "SET k v")),
        _ => {
            let queue = queue(1);
            let flags = CallFlags::from_bits(EACH).expect("flags");
            client.cmds_submit(&list(&["SET k v"]), flags, LONG, &queue, 1).expect("room");
            drain(&queue, 1)[0].outcome.as_ref().expect("it ran");
        }
    }
}

#[test]
fn the_connection_that_verified_the_primary_is_the_first_of_the_pool() {
    let options = [("db", "3"), ("client.name", "it"), ("client.no_evict", "true"), NO_POLLS];
    for kind in ["call", "session", "submit"] {
        let primary = Scripted::primary();
        let watch = told(&primary.addr(), &[]);
        let client = to_primary(&handle(&watch, &options), &[]);
        first_call(kind, &client);
        assert_eq!((primary.accepted(), primary.count("ROLE"), primary.sessions()[0].db), (1, 1, 3), "{kind}");
        assert_eq!(primary_pool(&client).get("size"), 1, "{kind}");
    }
}

#[test]
fn a_connection_in_another_database_is_not_the_first() {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    let client = to_primary(&handle(&watch, &[NO_POLLS]), &[("db", "4")]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    assert_eq!(primary.accepted(), 2);
    eventually("the other one is closed", Duration::from_secs(5), || primary.connections() == 1);
    assert_eq!(primary.sessions()[0].db, 4);
}

#[test]
fn a_connection_on_which_something_was_refused_is_not_the_first() {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    primary.fault_times("SELECT", 1, Fault::Error("ERR not now".into()));
    let client = to_primary(&handle(&watch, &[("db", "3"), NO_POLLS]), &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    let on = primary.log().iter().find(|entry| entry.text() == "SET k v").map(|entry| entry.conn);
    assert_eq!((on, primary.accepted()), (Some(2), 2));
}

/// Types of replies differ between the protocols.
#[test]
fn all_connections_of_a_pool_speak_as_the_first_one_does() {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    primary.fault_times("HELLO", 1, Fault::Error("ERR unknown command 'HELLO'".into()));
    let client = to_primary(&handle(&watch, &[NO_POLLS]), &[]);
    assert_eq!(ok(&client, "SET k v"), "OK");
    let session = client.session(None).expect("a session");
    assert_eq!((ok(&session, "GET k").as_str(), primary.accepted(), primary.count("HELLO")), ("v", 2, 1));
    assert!(primary.sessions().iter().all(|session| session.protocol == 2));
}

#[test]
fn a_client_that_nobody_calls_keeps_no_connection_of_a_discovery() {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    let sentinel = handle(&watch, &[NO_POLLS]);
    let client = to_primary(&sentinel, &[]);
    sentinel.service(SERVICE).verify(Deadline::after(Duration::from_secs(20))).expect("a primary");
    assert!(primary.accepted() == 1 && pools(&client).iter().all(|pool| pool.get("size") == 0));
    eventually("it is closed", Duration::from_secs(5), || primary.connections() == 0);
}

/// A primary that ends the connection at one command, and serves all others.
fn with_a_bad_command(fault: Fault) -> (FakeNode, FakeSentinel, Arc<Client>) {
    let primary = Scripted::primary();
    let watch = told(&primary.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[("lane.max", "1")]);
    assert_eq!(ok(&client, "SET n 0"), "OK");
    primary.fault("GET bad", fault);
    (primary, watch, client)
}

/// Sent three times: first on the shared lane, then on its own connections.
#[track_caller]
fn sent_thrice(primary: &FakeNode) {
    let log = primary.log();
    let on = |line: &str| log.iter().filter(|entry| entry.text() == line).map(|entry| entry.conn).collect::<Vec<_>>();
    let bad = on("GET bad");
    assert_eq!(bad.len(), 3, "{bad:?}");
    assert!(bad[1..].iter().all(|conn| bad.iter().filter(|other| *other == conn).count() == 1), "{bad:?}");
    let others = on("INCR n");
    assert!(!others.is_empty() && bad[1..].iter().all(|conn| !others.contains(conn)), "{bad:?} {others:?}");
}

#[test]
fn a_command_at_which_the_connection_ends_again_and_again_is_given_up() {
    for (fault, status) in [(Fault::Lost, Status::Io), (Fault::Raw(b"rubbish\r\n".to_vec()), Status::Protocol)] {
        let (primary, _watch, client) = with_a_bad_command(fault);
        // Others use the lane all the time. Only the first end can cost one of them its reply.
        let over = Arc::new(AtomicBool::new(false));
        let others = {
            let (client, over) = (client.clone(), over.clone());
            spawn(move || {
                let mut lost = 0;
                while !over.load(Ordering::Acquire) {
                    lost += usize::from(call(&client, "INCR n", 0, LONG).is_err());
                }
                lost
            })
        };
        primary.wait_count("INCR n", 10, Duration::from_secs(5));
        let error = fails(status, call(&client, "GET bad", 0, LONG));
        assert!(error.message().contains("ended 3 times") && !error.has(flags::RETRYABLE), "{error}");
        over.store(true, Ordering::Release);
        assert!(join(&others) <= 1);
        sent_thrice(&primary);
        // The same for a submitted call; those behind it continue.
        primary.clear_log();
        let queue = queue(10);
        let lines = list(&["GET bad", "INCR n", "INCR n"]);
        client.cmds_submit(&lines, CallFlags::from_bits(EACH).expect("flags"), LONG, &queue, 1).expect("room");
        let events = drain(&queue, 3);
        let is_told =
            |event: &Event| event.outcome.as_ref().is_err_and(|error| error.message().contains("ended 3 times"));
        assert_eq!(events.iter().filter(|event| is_told(event)).count(), 1);
        ok(&client, "INCR n");
        sent_thrice(&primary);
    }
}

/// A command at which the connection has ended twice is in flight for the third time when `change` happens: its
/// outcome.
fn after_two_ends(
    submitted: bool,
    change: impl FnOnce(&Arc<Client>, &FakeNode, &FakeNode, &FakeSentinel),
) -> Result<Reply> {
    let (old, new) = (Scripted::primary(), Scripted::primary());
    new.state(|state| state.role = FakeRole::replica_of(&old.addr()));
    let watch = told(&old.addr(), &[new.addr()]);
    let client = to_primary(&handle(&watch, &[]), &[("lane.max", "1")]);
    ok(&client, "SET n 0");
    new.state(|state| state.data.insert(b"k".to_vec(), b"new".to_vec()));
    old.state(|state| state.data.insert(b"k".to_vec(), b"old".to_vec()));
    old.fault("GET k", Fault::Stall);
    old.fault_times("GET k", 2, Fault::Lost);
    let call = {
        let client = client.clone();
        spawn(move || {
            if !submitted {
                return call(&client, "GET k", 0, LONG);
            }
            let queue = queue(1);
            client.cmds_submit(&list(&["GET k"]), CallFlags::default(), LONG, &queue, 1)?;
            one(&queue).1
        })
    };
    old.wait_count("GET k", 3, Duration::from_secs(20));
    change(&client, &old, &new, &watch);
    join(&call)
}

#[test]
fn an_end_that_is_our_own_or_under_another_generation_is_none_of_the_three() {
    // The third connection is ended here, and the next two by another primary.
    let switch = |_: &Arc<Client>, old: &FakeNode, new: &FakeNode, watch: &FakeSentinel| {
        new.fault_times("GET k", 2, Fault::Lost);
        new.state(|state| state.role = FakeRole::Primary);
        watch.service(SERVICE, |state| state.switch_to(&new.addr()));
        let (from, to) = (old.port(), new.port());
        let word = format!("{SERVICE} 127.0.0.1 {from} 127.0.0.1 {to}");
        eventually("it is listened to", Duration::from_secs(20), || watch.publish("+switch-master", &word) > 0);
    };
    // A connection in use is not closed.
    let disconnect = |client: &Arc<Client>, old: &FakeNode, _: &FakeNode, _: &FakeSentinel| {
        client.disconnect().expect("an open client");
        old.clear_faults();
    };
    for submitted in [false, true] {
        let reply = after_two_ends(submitted, switch).unwrap_or_else(|error| panic!("{submitted}: {error}"));
        assert_eq!(text(&reply), if submitted { "[\"new\"]" } else { "new" });
        let reply = after_two_ends(submitted, disconnect).unwrap_or_else(|error| panic!("{submitted}: {error}"));
        assert_eq!(text(&reply), if submitted { "[\"old\"]" } else { "old" });
    }
}
