//! Rows of the feature page about what a call may be, and about the end of clients; blocking commands in failovers (scenario 63),
//! and a close in every state (scenario 70).

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use stage::{Stage, Watch, stage};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout, close_all};
use vigie::error::{Status, flags};
use vigie::resp::Kind;
use vigie::topology::Sentinel;

const NAME: &str = "rows-calls";
const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

#[test]
fn row_18_a_connection_has_its_name_and_marks_and_is_closed_when_it_idles() {
    let d = single("row18");
    let node = d.primary_node(SERVICE);
    let marked = Feature::NoEvict.is_there();
    let no_evict = if marked { "true" } else { "false" };
    let marks = [("client.name", NAME), ("client.no_evict", no_evict), ("pool.idle", "200"), ("pool.min", "1")];
    let client = to_primary(&sentinel_of(&d, &marks), &[]);
    let own: Vec<_> = (0..3).map(|_| client.session(None).expect("a session")).collect();
    assert!(own.iter().all(|session| ok(session, "PING") == "PONG") && ok(&client, "PING") == "PONG");
    let all = node.clients_named(NAME);
    assert!(all.len() >= 4 && all.iter().all(|info| info.flags.contains('e') == marked), "{all:?}");
    drop(own);
    eventually("only pool.min is left", SOON, || named(&node, NAME) == 1);
    assert_eq!(ok(&client, "PING"), "PONG", "the next call notices nothing");
    assert!(client.session(None).is_ok_and(|session| ok(&session, "PING") == "PONG"));
}

#[test]
fn row_59_what_idles_is_closed_on_request_and_what_works_when_it_has_ended() {
    let d = Deployment::new("row59").replicas(2).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[("client.name", NAME), ("pool.min", "0"), ("monitor.interval", "60000")]);
    let (primary, replicas) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE));
    let (client, readers) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[]));
    ok(&client, "SET k v");
    let blocked = {
        let client = client.clone();
        spawn(move || ok(&client, "BLPOP row59 0"))
    };
    eventually("the pop waits", SOON, || primary.info("clients")["blocked_clients"] == "1");
    let read = || ok(&readers, "CLIENT INFO");
    let on = |info: &str| info.split(' ').find_map(|field| field.strip_prefix("laddr=")).map(str::to_owned);
    let before = on(&read()).expect("its address");
    client.disconnect().expect("an open client");
    readers.disconnect().expect("an open client");
    let connected = |nodes: &[Arc<Node>]| nodes.iter().map(|node| named(node, NAME)).sum::<usize>();
    eventually("no replica is connected", SOON, || connected(&replicas) == 0);
    eventually("the pop is", SOON, || named(&primary, NAME) == 1);
    let after: Vec<_> = (0..2).filter_map(|_| on(&read())).collect();
    assert!(after.iter().any(|addr| *addr != before), "the rotation goes on: {before}, {after:?}");
    assert_eq!(ok(&client, "RPUSH row59 x"), "1", "the next call connects");
    assert_eq!(join(&blocked), r#"["row59","x"]"#);
}

/// A call that comes after the close is refused, and is none that the close has to wait for or end.
#[test]
fn calls_that_a_closed_client_refuses_are_not_told_as_running() {
    let stage = stage(1, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    let over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let _ = cmd(&client, "GET k");
                }
            });
        }
        let told: Vec<_> = (0..3000).map(|_| client.close(Timeout::Ms(20_000))).filter_map(Result::err).collect();
        over.store(true, Ordering::Release);
        told
    });
    assert!(told.is_empty(), "{} of 3000: {}", told.len(), told[0]);
}

#[test]
fn row_92_any_command_may_be_sent_and_its_answer_is_the_servers() {
    let d = single("row92");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let unknown = fails(Status::Server, cmd(&client, "NOSUCH.COMMAND a b"));
    // Redis 6.2 quotes with a backtick.
    let begins = |quote| unknown.message().starts_with(&format!("ERR unknown command {quote}NOSUCH.COMMAND"));
    assert!(begins('\'') || begins('`'), "{unknown}");
    let odd = [0, 0xff, b'\r', b'\n', b'*', b'1'];
    let echo = client.cmd_exec(&[b"ECHO", &odd], CallFlags::default(), Timeout::Default).expect("bytes are bytes");
    assert_eq!(echo.bytes(0), Some(&odd[..]));
    let empty =
        client.cmd_exec(&[b"ECHO", b""], CallFlags::default(), Timeout::Default).expect("nothing is bytes, too");
    assert_eq!(empty.bytes(0), Some(&b""[..]));
    assert_eq!(ok(&client, "OBJECT ENCODING none"), "null");
    assert!(fails(Status::Server, cmd(&client, "GET")).message().contains("wrong number of arguments"));
}

#[test]
fn row_93_a_thousand_commands_take_one_round_trip_and_one_error_hides_no_other_reply() {
    let d = Deployment::new("row93").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let proxy = Proxy::start(&node.addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[("protocol", "2")]), &[]);
    ok(&client, "SET text v");
    // The list gets a connection of its own; it is open before the replies are held back.
    run(&client, &vec!["INCR warm"; 1000]).expect("a thousand");
    proxy.stall(Way::Down, true);
    let sent = {
        let client = client.clone();
        spawn(move || {
            let mut lines = vec!["INCR n"; 1000];
            lines[499] = "LPUSH text x";
            run(&client, &lines)
        })
    };
    eventually("all have run before one was answered", SOON, || node.cmd(&["GET", "n"]).text() == "999");
    proxy.stall(Way::Down, false);
    let reply = join(&sent).expect("an answer for each");
    let children: Vec<u32> = reply.children(0).collect();
    assert_eq!(children.len(), 1000);
    for (at, id) in children.into_iter().enumerate() {
        match at {
            499 => assert!(reply.error_line(id).is_some_and(|line| line.starts_with(b"WRONGTYPE"))),
            _ => assert_eq!(reply.int(id), Some(at as i64 + i64::from(at < 499)), "command {at}"),
        }
    }
}

#[test]
fn row_95_a_blocking_pop_has_its_own_time_and_ends_with_its_primary() {
    let d = single("row95");
    let client = to_primary(&sentinel_of(&d, &[("timeout.call", "250")]), &[]);
    let (reply, took) = timed(|| cmd(&client, "BLPOP none 1").expect("a null, and no timeout"));
    assert!(reply.kind(0) == Kind::Null && took >= Duration::from_secs(1), "{took:?}: {}", json(&reply));
    let node = d.primary_node(SERVICE);
    let blocked = {
        let client = client.clone();
        spawn(move || cmd(&client, "BLPOP none 0"))
    };
    eventually("the pop waits", SOON, || node.info("clients")["blocked_clients"] == "1");
    node.kill();
    let error = fails(Status::Io, join(&blocked));
    assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
}

#[test]
fn row_99_the_reply_that_nobody_waits_for_is_nobody_elses() {
    let d = Deployment::new("row99").replicas(0).sentinels(0).start();
    let proxy = Proxy::start(&d.node("mymaster-0").addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    (0..50).for_each(|n| drop(ok(&client, &format!("SET k{n} v{n}"))));
    for round in 0..3 {
        proxy.stall(Way::Down, true);
        fails(Status::Timeout, within(&client, &format!("GET k{round}"), 60));
        proxy.stall(Way::Down, false);
        for n in 0..50 {
            assert_eq!(ok(&client, &format!("GET k{n}")), format!("v{n}"));
        }
    }
}

#[test]
fn row_100_a_write_waits_for_the_replicas_that_it_asks_for() {
    let d = Deployment::new("row100").start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let asked = |replicas: u32, ms| call(&client, "SET k v", (replicas & 0xff) << 24, Timeout::Ms(ms));
    asked(1, 20_000).expect("one has it");
    asked(2, 20_000).expect("both have it");
    let error = fails(Status::Replicas, asked(5, 200));
    assert_eq!((error.count(), error.has(flags::MAYBE_EXECUTED)), (2, false), "{error}");
}

#[test]
fn row_102_a_closed_client_refuses_everything_and_opens_no_connection() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[("monitor.interval", "60000")]);
    let client = to_primary(&sentinel, &[]);
    let session = client.session(None).expect("a session");
    assert!(ok(&client, "PING") == "PONG" && ok(&session, "PING") == "PONG" && !client.is_closed());
    (0..2).for_each(|_| client.close(Timeout::Default).expect("twice is nothing"));
    eventually("no connection is left", SOON, || node.connections() == 0);
    let accepted = node.accepted();
    assert!(client.is_closed() && session.is_closed());
    let queue = completions::queue(4);
    for _ in 0..20 {
        fails(Status::Closed, cmd(&client, "GET k"));
        fails(Status::Closed, cmd(&session, "GET k"));
        fails(Status::Closed, run(&client, &["GET k", "GET l"]));
        fails(Status::Closed, client.session(None));
        fails(Status::Closed, client.cmds_submit(&list(&["GET k"]), CallFlags::default(), Timeout::Default, &queue, 1));
        fails(Status::Closed, client.disconnect());
    }
    assert_eq!((node.accepted(), node.connections()), (accepted, 0));
}

#[test]
fn row_103_a_parent_closes_its_children_and_a_thousand_failed_opens_leave_nothing() {
    alone(
        concat!(module_path!(), "::row_103_a_parent_closes_its_children_and_a_thousand_failed_opens_leave_nothing"),
        || {
            let (node, nowhere) = (Scripted::primary(), refuse());
            let watch = told(&node.addr(), &[]);
            let empty = held();
            let sentinel = handle(&watch, &[]);
            let clients = [to_primary(&sentinel, &[]), to_primary(&sentinel, &[]), to_replicas(&sentinel, &[])];
            let session = clients[0].session(None).expect("a session");
            assert!(
                ok(&clients[0], "PING") == "PONG"
                    && ok(&clients[1], "PING") == "PONG"
                    && ok(&session, "PING") == "PONG"
            );
            close_all(&sentinel, Timeout::Default).expect("it closes");
            assert!(clients.iter().chain([&session]).all(|client| client.is_closed()));
            eventually("all is closed", SOON, || node.connections() + watch.connections() == 0);
            drop((clients, session, sentinel));
            back_to(empty);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..250 {
                            let client = to_primary(&sentinel_at(&[nowhere.addr()], &[]), &[]);
                            let error = within(&client, "GET k", 2).map(drop).expect_err("nobody is there");
                            assert!(matches!(error.status(), Status::NoSentinel | Status::Timeout), "{error}");
                        }
                    });
                }
            });
            back_to(empty);
        },
    );
}

/// A blocking call on a thread of its own.
fn blocking(
    client: &Arc<Client>,
    line: &'static str,
) -> std::sync::mpsc::Receiver<(vigie::error::Result<vigie::resp::Reply>, Instant)> {
    let client = Arc::clone(client);
    spawn(move || (call(&client, line, 0, Timeout::Unlimited), Instant::now()))
}

#[test]
fn scenario_63_blocking_commands_end_with_a_killed_primary_and_reads_go_on() {
    let d = Deployment::new("scenario63").start();
    let sentinel = sentinel_of(&d, &[]);
    let (client, watch, old) = (to_primary(&sentinel, &[]), Watch::on(&sentinel), d.primary_node(SERVICE));
    let pops = [blocking(&client, "BLPOP l 0"), blocking(&client, "BRPOP m 3600")];
    let reads = blocking(&client, "XREAD BLOCK 0 STREAMS s 0");
    eventually("all three wait", SOON, || old.info("clients")["blocked_clients"] == "3");
    let pacing = Pacing::start();
    let killed = Instant::now();
    old.kill();
    let ends: Vec<_> = pops.iter().map(join).collect();
    let pace = pacing.stop();
    for (outcome, at) in ends {
        let error = fails(Status::Io, outcome);
        assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
        pace.judge("the end of a pop whose primary was killed", at.saturating_duration_since(killed), 500 * MS);
    }
    watch.wait("the switch", SOON, |told| told.is_switch());
    let new = d.wait_switched(SERVICE, &old);
    eventually("the read waits at the new primary", SOON, || new.info("clients")["blocked_clients"] == "1");
    ok(&client, "XADD s * field value");
    let (entries, _) = join(&reads);
    assert!(json(&entries.expect("it went on")).contains(r#""field","value""#));
    assert_eq!(ok(&client, "RPUSH l x"), "1", "no pop is left behind");
}

/// Closes the handle while `call` is under way; both end soon, the call with CLOSED.
fn closes(what: &str, sentinel: &Arc<Sentinel>, client: &Arc<Client>, line: &'static str, begun: impl Fn() -> bool) {
    let under_way = blocking(client, line);
    eventually(what, SOON, begun);
    let pacing = Pacing::start();
    let closing = Instant::now();
    let (one, other) = (sentinel.clone(), sentinel.clone());
    let beside = spawn(move || close_all(&one, Timeout::Ms(50)).map_err(|error| error.status()));
    let told = close_all(&other, Timeout::Ms(50)).map_err(|error| error.status());
    let closed = [told, join(&beside)];
    let (outcome, at) = join(&under_way);
    let pace = pacing.stop();
    assert!(closed.iter().all(|told| matches!(told, Ok(()) | Err(Status::Timeout))), "{what}: {closed:?}");
    pace.judge(what, at.saturating_duration_since(closing), 1000 * MS);
    fails(Status::Closed, outcome);
    fails(Status::Closed, cmd(client, "PING"));
    assert!(close_all(sentinel, Timeout::Ms(50)).is_ok(), "{what}: once more is nothing");
}

#[test]
fn scenario_70_a_close_ends_in_every_state_and_leaves_nothing() {
    alone(concat!(module_path!(), "::scenario_70_a_close_ends_in_every_state_and_leaves_nothing"), || {
        let empty = held();
        {
            let hole = blackhole();
            let watch = told(&hole.addr(), &[]);
            let sentinel = handle(&watch, &[("timeout.connect", "30000")]);
            let client = to_primary(&sentinel, &[]);
            closes("it connects to a host that is silent", &sentinel, &client, "GET k", || {
                watch.count("SENTINEL GET-MASTER-ADDR-BY-NAME") > 0
            });
        }
        {
            let node = Scripted::primary();
            let watch = told(&node.addr(), &[]);
            watch.fault("*", Fault::Stall);
            let sentinel = handle(&watch, &[("timeout.sentinel", "30000")]);
            let client = to_primary(&sentinel, &[]);
            closes("the Sentinel is frozen", &sentinel, &client, "SET k v", || watch.accepted() > 0);
        }
        {
            let stage: Stage = stage(2, &[]);
            let client = to_primary(&stage.sentinel, &[]);
            ok(&client, "PING");
            stage.begin(0);
            stage.told.wait_fence(true, "+try-failover");
            closes("a write waits at the fence", &stage.sentinel, &client, "SET k v", || {
                counter(&client, "held_back") > 0
            });
        }
        {
            let node = Scripted::primary();
            let watch = told(&node.addr(), &[]);
            let sentinel = handle(&watch, &[]);
            let client = open(&sentinel, Target::Primary, &[]);
            node.fault("BLPOP", Fault::Stall);
            closes("a command blocks", &sentinel, &client, "BLPOP l 0", || node.count("BLPOP") == 1);
        }
        back_to(empty);
    });
}
