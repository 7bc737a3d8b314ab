//! The rules about what may be sent again (10 to 15), about deadlines, and about the end of a client.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout, close_all};
use vigie::error::{Error, Status, flags};
use vigie::topology::Sentinel;

const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);
const IDEMPOTENT: u32 = CallFlags::IDEMPOTENT;
const NO_RETRY: u32 = CallFlags::NO_RETRY;

/// A real server behind a proxy, and a scripted Sentinel that names the proxy.
struct Proxied {
    d: Deployment,
    proxy: Proxy,
    sentinel: Arc<Sentinel>,
    _watch: FakeSentinel,
}

fn proxied(name: &str, pairs: &[(&str, &str)]) -> Proxied {
    let d = Deployment::new(name).replicas(0).sentinels(0).start();
    let proxy = Proxy::start(&d.node("mymaster-0").addr());
    let watch = told(&proxy.addr(), &[]);
    let sentinel = handle(&watch, pairs);
    Proxied { d, proxy, sentinel, _watch: watch }
}

impl Proxied {
    fn node(&self) -> Arc<Node> {
        self.d.node("mymaster-0")
    }
}

/// A scripted primary and a handle that finds it.
struct Staged {
    node: FakeNode,
    watch: FakeSentinel,
    sentinel: Arc<Sentinel>,
}

fn staged(pairs: &[(&str, &str)]) -> Staged {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, pairs);
    Staged { node, watch, sentinel }
}

fn refusal(code: &str) -> Fault {
    Fault::Error(format!("{code} refused"))
}

#[test]
fn rule_10_a_write_whose_reply_is_lost_is_not_repeated() {
    let stage = proxied("lost-write", &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "PING");
    for (turn, trap) in [Trap::LoseReply, Trap::CutReply(2), Trap::LoseReply].into_iter().enumerate() {
        stage.proxy.trap("INCR", trap);
        let error = fails(Status::Io, cmd(&client, "INCR n"));
        assert!(error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
        assert_eq!(error.endpoint(), stage.proxy.addr());
        assert_eq!(ok(&client, "GET n"), (turn + 1).to_string(), "executed once, and the client goes on");
    }
    // The unit never reached the server, which the client cannot know.
    stage.proxy.trap("INCR", Trap::CloseBefore);
    assert!(fails(Status::Io, cmd(&client, "INCR n")).has(flags::MAYBE_EXECUTED));
    assert_eq!((stage.node().calls("incr"), stage.proxy.traps_left()), (3, 0));
    assert_eq!((counter(&client, "maybe_executed"), counter(&client, "retries")), (4, 0));
}

#[test]
fn rule_10_a_lost_read_and_an_idempotent_write_are_repeated() {
    let stage = proxied("lost-read", &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    for trap in [Trap::LoseReply, Trap::CutReply(3), Trap::CloseBefore] {
        stage.proxy.trap("GET", trap);
        assert_eq!(ok(&client, "GET k"), "v");
    }
    stage.proxy.trap("INCR", Trap::LoseReply);
    let again = call(&client, "INCR n", IDEMPOTENT, Timeout::Default).expect("it is sent again");
    assert_eq!((again.int(0), counter(&client, "maybe_executed")), (Some(2), 0));
    stage.proxy.trap("INCR", Trap::LoseReply);
    let once = call(&client, "INCR n", IDEMPOTENT | NO_RETRY, Timeout::Default);
    assert!(fails(Status::Io, once).has(flags::MAYBE_EXECUTED));
    stage.proxy.trap("GET", Trap::LoseReply);
    fails(Status::Io, call(&client, "GET n", NO_RETRY, Timeout::Default));
    assert_eq!((ok(&client, "GET n"), stage.proxy.traps_left()), ("3".into(), 0));
}

#[test]
fn rule_10_what_an_earlier_attempt_may_have_done_is_not_forgotten() {
    let stage = staged(&[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "PING");
    stage.node.fault_times("INCR", 1, Fault::Lost);
    stage.node.fault("ROLE", Fault::Close);
    let error = call(&client, "INCR n", IDEMPOTENT, Timeout::Ms(1000)).expect_err("no primary can be reached again");
    assert!(error.has(flags::MAYBE_EXECUTED), "the first attempt was executed: {error}");
    assert_eq!(stage.node.count("INCR"), 1);
}

/// Bytes in the send queues of sockets to this port.
fn queued_to(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let of = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let to = u16::from_str_radix(fields.get(2)?.rsplit(':').next()?, 16).ok()?;
        let queue = u64::from_str_radix(fields.get(4)?.split(':').next()?, 16).ok()?;
        (to == port).then_some(queue)
    };
    table.lines().skip(1).filter_map(of).sum()
}

#[test]
fn rule_10_what_was_not_completely_sent_is_repeated() {
    let stage = proxied("unsent", &[("timeout.call", "60000")]);
    let client = to_primary(&stage.sentinel, &[("pool.max", "2")]);
    let value = "x".repeat(24 << 20);
    // First on the shared connection, while the only other place is taken, then on that other one. Both are open before
    // anything stalls, because a handshake would stall too.
    let take = || {
        let session = client.session(None).expect("a session");
        ok(&session, "PING");
        session
    };
    let mut taken = Some(take());
    let (mut own, mut whole) = (false, 0);
    loop {
        ok(&client, "PING");
        if own {
            // The session's was cut with the others.
            drop(taken.take());
            drop(take());
            eventually("it is free", SOON, || primary_pool(&client).get("idle") == 1);
        }
        // Made before anything stalls: a connection that is silent for too long meanwhile is given up.
        let key = own.to_string();
        let args = [&b"APPEND"[..], key.as_bytes(), value.as_bytes()].map(<[u8]>::to_vec);
        let mut list = Vec::new();
        vigie::resp::encode::command(&mut list, &args.each_ref().map(|arg| &arg[..]));
        let open = stage.proxy.accepted();
        stage.proxy.stall(Way::Up, true);
        let large = {
            let client = client.clone();
            spawn(move || match own {
                true => client.cmds_exec(&list, CallFlags::default(), Timeout::Default).map(drop),
                false => {
                    let args = args.each_ref().map(|arg| &arg[..]);
                    client.cmd_exec(&args, CallFlags::default(), Timeout::Default).map(drop)
                }
            })
        };
        let is_under_way = eventually_some("it is being sent, or another connection opened", SOON, || {
            let is_under_way = queued_to(stage.proxy.port()) > 100_000;
            (is_under_way || stage.proxy.accepted() > open).then_some(is_under_way)
        });
        if !is_under_way {
            // It has to open a connection, and the handshake fails: one more attempt.
            whole += 1;
            assert!(whole < 10, "it opens another connection each time");
            stage.proxy.stall(Way::Up, false);
            join(&large).expect("it is sent");
            ok(&client, &format!("DEL {own}"));
            // What has carried so much has buffers for all of it: over new connections.
            stage.proxy.cut();
            if !own {
                drop(taken.take());
                taken = Some(take());
            }
            continue;
        }
        eventually("the session's, or the large one's own", SOON, || primary_pool(&client).get("in_use") == 1);
        stage.proxy.cut();
        stage.proxy.stall(Way::Up, false);
        join(&large).expect("it is sent again, whole");
        assert_eq!(number(&client, &format!("STRLEN {own}")), value.len() as i64, "executed once");
        if own {
            break;
        }
        own = true;
    }
    assert_eq!(stage.node().calls("append"), 2 + whole);
    assert!(counter(&client, "retries") >= 2);
}

#[test]
fn rule_10_a_refusal_is_repeated_within_the_deadline() {
    let stage = staged(&[]);
    let client = to_primary(&stage.sentinel, &[]);
    for (count, code) in ["READONLY", "LOADING", "MASTERDOWN", "BUSY"].into_iter().enumerate() {
        let before = stage.node.count("INCR");
        stage.node.fault_times("INCR", 3, refusal(code));
        assert_eq!(number(&client, "INCR n"), count as i64 + 1, "{code}");
        assert_eq!(stage.node.count("INCR") - before, 4, "{code}");
    }
    for code in ["READONLY", "BUSY"] {
        stage.node.fault("INCR", refusal(code));
        let outcome = takes_at_most(code, 270 * MS, || within(&client, "INCR n", 250));
        let error = outcome.map(|_| ()).expect_err("every attempt was refused");
        match error.status() {
            // The reply to the last attempt may be late.
            Status::Timeout => assert!(error.has(flags::MAYBE_EXECUTED), "{error}"),
            _ => {
                assert_eq!((error.server_code(), error.message()), (code, format!("{code} refused").as_str()));
                assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
            }
        }
        stage.node.clear_faults();
    }
    // A script may have had effects: it is not repeated, but the node is asked for its role first.
    for line in ["EVAL x 0", "EVALSHA x 0", "FCALL f 0"] {
        let name = line.split(' ').next().expect("a name");
        stage.node.fault(name, refusal("READONLY"));
        let error = fails(Status::Server, cmd(&client, line));
        assert_eq!((error.server_code(), stage.node.count(name)), ("READONLY", 1));
        ok(&client, "GET n");
        let log = stage.node.log();
        let conn = |word: &str| log.iter().rfind(|entry| entry.text().starts_with(word)).map(|entry| entry.conn);
        assert_ne!(conn("GET"), conn(name), "{line}");
        let asked = log.iter().any(|entry| Some(entry.conn) == conn("GET") && entry.text() == "ROLE");
        assert!(asked, "{line}");
    }
    // A script that only reads is not repeated either: the table cannot know what it does before it is refused.
    for line in ["EVAL_RO x 0", "EVALSHA_RO x 0", "FCALL_RO f 0"] {
        let name = line.split(' ').next().expect("a name");
        for code in ["LOADING", "BUSY", "MASTERDOWN"] {
            stage.node.clear_log();
            stage.node.fault(name, refusal(code));
            let error = fails(Status::Server, cmd(&client, line));
            assert_eq!((error.server_code(), stage.node.count(name)), (code, 1), "{line}");
            assert!(!error.has(flags::RETRYABLE), "{line}: {error:?}");
        }
    }
    // Other errors are returned to the caller.
    stage.node.fault("INCR", refusal("OOM"));
    let before = stage.node.count("INCR");
    assert_eq!(fails(Status::Server, cmd(&client, "INCR n")).server_code(), "OOM");
    assert_eq!(stage.node.count("INCR") - before, 1);
}

#[test]
fn rule_10_noreplicas_and_misconf_by_option() {
    let stage = staged(&[]);
    let plain = to_primary(&stage.sentinel, &[]);
    let (first, second) = ("retry.noreplicas", "retry.misconf");
    let insists = to_primary(&stage.sentinel, &[(first, "true"), (second, "true")]);
    for code in ["NOREPLICAS", "MISCONF"] {
        stage.node.clear_log();
        stage.node.fault_times("INCR", 2, refusal(code));
        assert_eq!(fails(Status::Server, cmd(&plain, "INCR n")).server_code(), code);
        assert_eq!(stage.node.count("INCR"), 1, "{code} is the caller's by default");
        number(&insists, "INCR n");
        assert_eq!(stage.node.count("INCR"), 3, "{code} is repeated by option");
    }
    // The same with a real server that requires a replica.
    let d = single("noreplicas");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[]), &[(first, "true")]);
    ok(&client, "SET n 41");
    assert!(node.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]).is_ok());
    let waits = {
        let client = client.clone();
        spawn(move || number(&client, "INCR n"))
    };
    eventually("it was refused and is repeated", SOON, || counter(&client, "retries") > 1);
    assert!(node.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]).is_ok());
    assert_eq!(join(&waits), 42);
}

#[test]
fn rule_10_no_retry_sends_once_but_waits_for_a_primary() {
    let stage = staged(&[]);
    let client = to_primary(&stage.sentinel, &[]);
    stage.watch.service(SERVICE, |state| state.flags = "s_down,o_down,master".into());
    let waits = {
        let client = client.clone();
        spawn(move || call(&client, "INCR n", NO_RETRY, Timeout::Default).map(|reply| reply.int(0)))
    };
    eventually("it looked for a primary in vain", SOON, || counter(&client, "retries") > 1);
    assert_eq!(stage.node.count("INCR"), 0);
    stage.watch.service(SERVICE, |state| state.flags = "master".into());
    assert_eq!(join(&waits).expect("there is a primary now"), Some(1));
    stage.node.fault("INCR", refusal("READONLY"));
    let outcome = takes_at_most("a refusal", 200 * MS, || call(&client, "INCR n", NO_RETRY, Timeout::Default));
    assert_eq!(fails(Status::Server, outcome).server_code(), "READONLY");
    assert_eq!(stage.node.count("INCR"), 2);
}

/// Redis unblocks waiting clients when it becomes a replica: such a pop has taken nothing, and waits at the next
/// primary.
#[test]
fn rule_10_a_pop_whose_primary_is_demoted_waits_at_the_next_one() {
    let d = Deployment::new("demoted-pop").replicas(1).sentinels(0).start();
    let (first, second) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let watch = told(&first.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    ok(&client, "SET k v");
    let queue = completions::queue(4);
    let submit = |line: &str, token| {
        let each = CallFlags::from_bits(CallFlags::EACH).expect("known");
        client.cmds_submit(&list(&[line]), each, Timeout::Default, &queue, token).expect("taken");
    };
    let pops = {
        let client = client.clone();
        spawn(move || text(&cmd(&client, "BLPOP q 0").expect("somebody pushes")))
    };
    submit("BRPOP q 0", 1);
    let blocked = |node: &Node, count: &str| node.info("clients")["blocked_clients"] == count;
    eventually("both wait", SOON, || blocked(&first, "2"));
    let asked = watch.count("SENTINEL GET-MASTER-ADDR-BY-NAME");

    assert!(second.cmd(&["REPLICAOF", "NO", "ONE"]).is_ok());
    let to_port = second.port().to_string();
    assert!(first.cmd(&["REPLICAOF", second.host(), &to_port]).is_ok());
    watch.wait_count("SENTINEL GET-MASTER-ADDR-BY-NAME", asked + 1, SOON);
    watch.service(SERVICE, |state| state.switch_to(&second.addr()));
    eventually("both wait at the next primary", Duration::from_secs(10), || blocked(&second, "2"));
    assert!(second.cmd(&["RPUSH", "q", "a", "b"]).int() == Some(2));
    let mut got = vec![join(&pops), completions::said(&completions::drain(&queue, 1)[0])];
    got.sort();
    assert_eq!(got, [r#"["q","a"]"#, r#"["q","b"]"#]);
    // An error from CLIENT UNBLOCK is an error like any other.
    let retries = counter(&client, "retries");
    let pops = {
        let client = client.clone();
        spawn(move || cmd(&client, "BLPOP q 0").map(drop))
    };
    eventually("it waits", SOON, || blocked(&second, "1"));
    let waits = second.client_list().into_iter().find(|info| info.cmd == "blpop").expect("it waits");
    assert_eq!(second.cmd(&["CLIENT", "UNBLOCK", &waits.id.to_string(), "ERROR"]).int(), Some(1));
    let error = fails(Status::Server, join(&pops));
    assert!(error.server_code() == "UNBLOCKED" && !error.has(flags::RETRYABLE), "{error}");
    assert_eq!(counter(&client, "retries"), retries);
}

/// The write before the WAIT has run: nothing is repeated.
#[test]
fn rule_10_a_wait_whose_primary_is_demoted_is_not_repeated() {
    let d = Deployment::new("demoted-wait").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    let own = client.session(None).expect("a session");
    ok(&own, "SET k v");
    let asked = watch.count("SENTINEL GET-MASTER-ADDR-BY-NAME");
    let durable = {
        let client = client.clone();
        spawn(move || call(&client, "INCR n", 1 << 24, Timeout::Default).map(drop))
    };
    let waits = spawn(move || cmd(&own, "WAIT 1 0").map(drop));
    let beside = {
        let mut raw = node.connect().expect("a connection");
        spawn(move || raw.cmd(&["WAIT", "1", "0"]).map(|reply| reply.is_error()))
    };
    eventually("all wait", SOON, || node.info("clients")["blocked_clients"] == "3");
    assert!(node.cmd(&["REPLICAOF", "127.0.0.1", "1"]).is_ok());
    let error = fails(Status::Server, join(&waits));
    assert!(error.server_code() == "UNBLOCKED" && !error.has(flags::RETRYABLE), "{error}");
    let error = fails(Status::Replicas, join(&durable));
    assert!(error.message().contains("UNBLOCKED") && error.count() == 0, "{error}");
    assert_eq!(error.reply().map(json).as_deref(), Some("1"), "what it answered is kept");
    watch.wait_count("SENTINEL GET-MASTER-ADDR-BY-NAME", asked + 1, SOON);
    assert!(join(&beside).expect("an answer"), "it has failed, too");
    let (writes, waits) = (node.calls("incr"), node.calls("wait"));
    // Redis 8 and Valkey 8 count a WAIT that they end a second time.
    assert!(writes == 1 && matches!(waits, 3 | 6), "{writes} INCR, {waits} WAIT");
}

#[test]
fn rule_11_of_a_list_only_a_suffix_of_which_nothing_ran() {
    let stage = staged(&[]);
    let client = to_primary(&stage.sentinel, &[]);
    let abc = ["INCR a", "INCR b", "INCR c"];
    let counts = || abc.map(|line| stage.node.count(line));
    let begin = |faults: &[(&str, Fault)]| {
        stage.node.clear_log();
        stage.node.clear_faults();
        stage.node.state(|state| state.data.clear());
        faults.iter().for_each(|(line, fault)| stage.node.fault_times(line, 1, fault.clone()));
    };
    // The rest was refused, and is sent again, in order.
    begin(&[("INCR b", refusal("READONLY")), ("INCR c", refusal("READONLY"))]);
    assert_eq!(json(&run(&client, &abc).expect("the rest runs later")), "[1,1,1]");
    assert_eq!(counts(), [1, 2, 2]);
    // One in the middle was refused, but what came after it ran, so nothing is sent again.
    begin(&[("INCR b", refusal("READONLY"))]);
    assert_eq!(
        json(&run(&client, &abc).expect("a list has its errors inside")),
        r#"[1,{"error":"READONLY refused"},1]"#
    );
    assert_eq!(counts(), [1, 1, 1]);
    // The connection broke in the middle: the outcome is unknown.
    begin(&[("INCR b", Fault::Lost)]);
    let error = fails(Status::Io, run(&client, &abc));
    assert!(error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
    assert_eq!(counts(), [1, 1, 0]);
    // A list of reads is sent again as a whole.
    begin(&[("GET b", Fault::Lost)]);
    assert_eq!(json(&run(&client, &["GET a", "GET b", "GET c"]).expect("reads")), "[null,null,null]");
    assert_eq!((stage.node.count("GET a"), stage.node.count("GET b"), stage.node.count("GET c")), (2, 2, 1));
    // With a script in it, nothing is sent again.
    begin(&[("EVAL", refusal("READONLY"))]);
    run(&client, &["INCR a", "EVAL x 0"]).expect("a list has its errors inside");
    assert_eq!((stage.node.count("INCR a"), stage.node.count("EVAL")), (1, 1));
}

#[test]
fn rule_11_a_list_refused_to_the_end_says_what_ran() {
    let stage = staged(&[]);
    let client = to_primary(&stage.sentinel, &[("retry.max", "2")]);
    let lines = ["INCR a", "INCR b", "INCR c"];
    stage.node.fault("INCR b", refusal("READONLY"));
    stage.node.fault("INCR c", refusal("READONLY"));
    let refused = r#"{"error":"READONLY refused"}"#;
    let list = list(&lines);
    for flags in [0, NO_RETRY] {
        let flags = CallFlags::from_bits(flags).expect("known");
        let reply = client.cmds_exec(&list, flags, Timeout::Default).expect("what ran is told");
        assert!(json(&reply).ends_with(&format!(",{refused},{refused}]")), "{}", json(&reply));
        assert_eq!((reply.count(0), reply.int(1)), (3, Some(stage.node.count("INCR a") as i64)));
    }
    assert_eq!(stage.node.count("INCR a"), 2, "once for each call");
}

#[test]
fn rule_13_deadlines_shift_no_replies() {
    let stage = proxied("impatient", &[("monitor", "off")]);
    let client = to_primary(&stage.sentinel, &[("lane.max", "1"), ("lane.silent", "60000")]);
    (0..20).for_each(|n| drop(ok(&client, &format!("SET k{n} value-{n}"))));
    let connections = stage.proxy.accepted();
    stage.proxy.delay(Way::Down, Duration::from_millis(20));
    let late = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (client, late) = (&client, &late);
            scope.spawn(move || {
                for turn in 0..25 {
                    match within(client, &format!("GET k{n}"), [5, 19, 20, 21, 25, 5000][(n + turn) % 6]) {
                        Ok(reply) => assert_eq!(text(&reply), format!("value-{n}")),
                        Err(error) => {
                            assert_eq!(error.status(), Status::Timeout, "{error}");
                            late.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert!((50..500).contains(&late.into_inner()), "some were late, some were not");
    (0..20).for_each(|n| assert_eq!(ok(&client, &format!("GET k{n}")), format!("value-{n}")));
    assert_eq!(stage.proxy.accepted(), connections, "all of it on one connection");
}

#[test]
fn rule_14_a_timeout_does_not_close_a_shared_lane() {
    let stage = staged(&[("monitor", "off")]);
    let client = to_primary(&stage.sentinel, &[("lane.max", "1"), ("lane.silent", "400")]);
    ok(&client, "SET k v");
    let lanes = stage.node.accepted();
    stage.node.fault_times("GET", 1, Fault::Stall);
    let patient: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            spawn(move || within(&client, "GET k", 20_000).map(|reply| text(&reply)))
        })
        .collect();
    eventually("they wait", SOON, || primary_pool(&client).get("in_flight") == 8);
    let outcome = takes_at_most("a short deadline", 100 * MS, || within(&client, "INCR n", 60));
    let error = fails(Status::Timeout, outcome);
    assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
    stage.node.clear_faults();
    patient.iter().for_each(|call| assert_eq!(join(call).expect("one impatient caller costs the others nothing"), "v"));
    assert_eq!((stage.node.accepted(), ok(&client, "GET n")), (lanes, "1".into()));
    // Silence with replies due, for longer than the limit, ends it.
    stage.node.fault_times("GET", 1, Fault::Stall);
    let began = Instant::now();
    eventually("a new connection answers", SOON, || within(&client, "GET k", 50).is_ok());
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(stage.node.accepted() > lanes);
}

/// A caller without a limit would wait forever; those behind it would not.
#[test]
fn rule_14_a_caller_without_a_limit_keeps_no_silent_lane_open() {
    let stage = staged(&[("monitor", "off")]);
    let client = to_primary(&stage.sentinel, &[("lane.max", "1"), ("lane.silent", "400")]);
    ok(&client, "SET k v");
    stage.node.fault_times("GET", 1, Fault::Stall);
    let patient = {
        let client = client.clone();
        spawn(move || call(&client, "GET k", 0, Timeout::Unlimited).map(|reply| text(&reply)))
    };
    stage.node.wait_count("GET", 1, SOON);
    let began = Instant::now();
    eventually("a new connection answers", SOON, || within(&client, "GET k", 50).is_ok());
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(join(&patient).expect("a read is sent again"), "v");
}

#[test]
fn rule_15_scan_cursors_belong_to_a_node() {
    let d = Deployment::new("scan").sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let (split, readers) = (open(&sentinel, Target::Split, &[]), to_replicas(&sentinel, &[]));
    (0..200).for_each(|n| drop(ok(&split, &format!("HSET {n} f v"))));
    let replicas = d.replica_nodes(SERVICE);
    eventually("the replicas have all", SOON, || replicas.iter().all(|node| node.cmd(&["DBSIZE"]).int() == Some(200)));
    assert_eq!(scan(&split), 200);
    assert!(replicas.iter().all(|node| node.calls("scan") == 0) && d.primary_node(SERVICE).calls("scan") > 5);
    assert_eq!(scan(&readers), 200);
    assert_eq!(replicas.iter().filter(|node| node.calls("scan") > 0).count(), 1, "one replica, and the same");
    ok(&readers, "HSCAN 7 0");
    let reply = cmd(&readers, "SCAN 0 COUNT 10").expect("SCAN runs");
    let cursor = reply.child(0, 0).and_then(|id| reply.int(id)).expect("a cursor");
    let pinned = replicas.iter().find(|node| node.calls("scan") > 0).expect("one was scanned");
    assert_eq!(pinned.calls("hscan"), 1);
    pinned.kill();
    let error = fails(Status::ScanInterrupted, cmd(&readers, &format!("SCAN {cursor} COUNT 10")));
    assert!(error.message().contains(&pinned.addr()), "{error}");
    assert_eq!(scan(&readers), 200, "from the beginning, on the other one");
}

/// Scans to the end; the number of keys.
fn scan(client: &Client) -> u32 {
    let (mut cursor, mut keys) = (0, 0);
    loop {
        let reply = cmd(client, &format!("SCAN {cursor} COUNT 10")).expect("SCAN runs");
        keys += reply.child(0, 1).map_or(0, |id| reply.count(id));
        cursor = reply.child(0, 0).and_then(|id| reply.int(id)).expect("a cursor");
        if cursor == 0 {
            return keys;
        }
    }
}

#[test]
fn rule_12_a_demotion_by_hand_and_the_promotion_after_it() {
    let d = Deployment::new("by-hand").replicas(1).sentinels(0).start();
    let (old, new) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let watch = told(&old.addr(), &[new.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    assert_eq!(number(&client, "INCR n"), 1);
    eventually("it is replicated", SOON, || new.cmd(&["GET", "n"]).int() == Some(1));
    let replica_of = |node: &Node, host: &str, port: &str| assert!(node.cmd(&["REPLICAOF", host, port]).is_ok());
    replica_of(&new, "NO", "ONE");
    replica_of(&old, "127.0.0.1", &new.port().to_string());
    let waits = {
        let client = client.clone();
        spawn(move || number(&client, "INCR n"))
    };
    eventually("it is refused and waits", SOON, || counter(&client, "retries") > 1);
    watch.service(SERVICE, |state| state.switch_to(&new.addr()));
    let told = takes_at_most("the way to the new primary", 1000 * MS, || join(&waits));
    assert_eq!(told, 2, "executed once, on the new primary");
    assert_eq!((new.cmd(&["GET", "n"]).int(), counter(&client, "errors")), (Some(2), 0));
    assert_eq!(number(&client, "INCR n"), 3);
}

#[test]
fn a_deadline_is_kept_when_the_primary_stands_still() {
    let d = single("stopped");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    ok(&client, "SET k v");
    let node = d.primary_node(SERVICE);
    node.stop();
    let (mut over, pacing): (Vec<Duration>, _) = (Vec::new(), Pacing::start());
    for (line, maybe) in [("GET k", false), ("SET k w", true), ("GET k", false), ("PING", false), ("INCR n", true)] {
        for own in [false, true] {
            let session = client.session(None).expect("a session");
            let (outcome, took) = timed(|| within(if own { &session } else { &client }, line, 150));
            let error = outcome.expect_err("a frozen server does not answer");
            assert!(matches!(error.status(), Status::Timeout | Status::NoPrimary), "{error}");
            // No connection for the session finishes its handshake: nothing was sent.
            assert!(!error.has(flags::MAYBE_EXECUTED) || maybe || line != "SET k w", "{error}");
            assert!(took >= Duration::from_millis(149), "{took:?}");
            over.push(took - Duration::from_millis(149));
        }
    }
    over.sort_unstable();
    let pace = pacing.stop();
    pace.judge("half of the calls, beyond their deadlines,", over[over.len() / 2], 10 * MS);
    pace.judge("the last of the calls, beyond its deadline,", over[over.len() - 1], 50 * MS);
    node.cont();
    eventually("it goes on", SOON, || cmd(&client, "GET k").is_ok());
}

#[test]
fn row_104_close_ends_blocking_commands_at_once_and_gives_the_others_time() {
    let stage = proxied("close", &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    let session = client.session(None).expect("a session");
    ok(&session, "PING");
    let blocked = {
        let (client, session) = (client.clone(), session.clone());
        [spawn(move || timed(|| cmd(&client, "BLPOP none 0"))), spawn(move || timed(|| cmd(&session, "BRPOP none 30")))]
    };
    eventually("both wait", SOON, || stage.node().info("clients")["blocked_clients"] == "2");
    stage.proxy.stall(Way::Down, true);
    let under_way = {
        let client = client.clone();
        spawn(move || cmd(&client, "GET k").map(|reply| text(&reply)))
    };
    eventually("a call is under way", SOON, || primary_pool(&client).get("in_flight") == 1);
    let closing = {
        let client = client.clone();
        spawn(move || client.close(Timeout::Ms(15_000)).expect("it closes"))
    };
    for call in &blocked {
        let (outcome, _) = join(call);
        fails(Status::Closed, outcome);
    }
    stage.proxy.stall(Way::Down, false);
    assert_eq!(join(&under_way).expect("it had time to end"), "v");
    takes_at_most("a close after its last call", 500 * MS, || join(&closing));
    fails(Status::Closed, cmd(&client, "GET k"));
    fails(Status::Closed, cmd(&session, "GET k"));
    assert!(client.stats().is_err() && client.session(None).is_err());
    client.close(Timeout::Default).expect("twice is nothing");
    eventually("no connection is left", SOON, || stage.proxy.connections() == 0);
}

#[test]
fn close_ends_what_has_not_ended_in_its_time() {
    let stage = staged(&[("timeout.sentinel", "4000")]);
    let client = to_primary(&stage.sentinel, &[("pool.max", "2")]);
    ok(&client, "PING");
    stage.node.fault("*", Fault::Stall);
    stage.watch.fault("*", Fault::Stall);
    let job = |line: &'static str, own: bool| {
        let client = client.clone();
        spawn(move || {
            let client = if own { client.session(None).expect("a session") } else { client };
            let outcome = within(&client, line, 8000);
            (line, outcome, Instant::now())
        })
    };
    let mut calls: Vec<_> = ["GET k", "SET k v", "INCR n"].into_iter().map(|line| job(line, false)).collect();
    eventually("three are sent", SOON, || primary_pool(&client).get("in_flight") == 3);
    // One waits for a handshake, one for its turn; a client more waits for the Sentinels.
    calls.push(job("GET own", true));
    eventually("a handshake is under way", SOON, || primary_pool(&client).get("size") == 2);
    calls.push(job("GET turn", true));
    eventually("one waits for its turn", SOON, || primary_pool(&client).get("waiting") == 1);
    let pacing = Pacing::start();
    let (told, took) = timed(|| client.close(Timeout::Ms(100)).expect_err("calls were running").status());
    let closed = Instant::now();
    let ends: Vec<_> = calls.iter().map(join).collect();
    let pace = pacing.stop();
    assert_eq!(told, Status::Timeout);
    pace.judge("the close", took, 150 * MS);
    for (line, outcome, end) in ends {
        let error = fails(Status::Closed, outcome);
        pace.judge(line, end.saturating_duration_since(closed), 100 * MS);
        let was_sent = ["GET k", "SET k v", "INCR n"].contains(&line);
        assert_eq!(error.has(flags::MAYBE_EXECUTED), was_sent, "{line}: {error}");
    }
}

#[test]
fn close_ends_what_waits_for_the_sentinels() {
    let stage = staged(&[("timeout.sentinel", "4000")]);
    stage.watch.fault("*", Fault::Stall);
    for whole in [false, true] {
        let client = to_primary(&stage.sentinel, &[]);
        let waits = {
            let client = client.clone();
            spawn(move || (within(&client, "SET k v", 8000), Instant::now()))
        };
        eventually("the Sentinel was asked", SOON, || stage.watch.accepted() > 0);
        let pacing = Pacing::start();
        match whole {
            false => client.close(Timeout::Ms(50)).expect("it closes"),
            true => close_all(&stage.sentinel, Timeout::Ms(50)).expect("it closes"),
        }
        let closed = Instant::now();
        let (outcome, end) = join(&waits);
        let error = fails(Status::Closed, outcome);
        assert!(!error.has(flags::MAYBE_EXECUTED), "{error}");
        pacing.stop().judge("the end of what waits", end.saturating_duration_since(closed), 100 * MS);
    }
}

/// If closing a client ends a blocking command of its own, no other client is affected, and that alone makes no close
/// fail.
#[test]
fn what_our_own_close_ends_says_so() {
    let stage = staged(&[]);
    stage.node.fault("BLPOP", Fault::Stall);
    let ends = |error: &Error, who: &str| {
        let text = error.message();
        assert!(text.contains(who) && text.contains("was closed"), "{error:?}");
        assert!(!text.contains("closed the connection") && !text.contains("connection closed by"), "{error:?}");
        assert_eq!(error.errno(), 0, "{error:?}");
    };
    for own in [false, true] {
        let client = to_primary(&stage.sentinel, &[]);
        let sent = stage.node.count("BLPOP");
        let running = client.clone();
        let call = spawn(move || {
            let client = if own { running.session(None).expect("a session") } else { running };
            within(&client, "BLPOP list 0", 60_000)
        });
        stage.node.wait_count("BLPOP", sent + 1, SOON);
        client.close(Timeout::Ms(0)).expect("only an idle command was ended");
        ends(&fails(Status::Closed, join(&call)), "client of service 'mymaster'");
    }
    // Closing only a session.
    let client = to_primary(&stage.sentinel, &[]);
    let session = client.session(None).expect("a session");
    let (sent, running) = (stage.node.count("BLPOP"), session.clone());
    let call = spawn(move || within(&running, "BLPOP list 0", 60_000));
    stage.node.wait_count("BLPOP", sent + 1, SOON);
    session.close(Timeout::Ms(0)).expect("closed");
    ends(&join(&call).expect_err("the session was closed"), "session");
    // A submitted one.
    let queue = completions::queue(4);
    let sent = stage.node.count("BLPOP");
    let flags = CallFlags::default();
    client.cmds_submit(&list(&["BLPOP list 0"]), flags, Timeout::Ms(60_000), &queue, 1).expect("taken");
    let drained = queue.clone();
    let one = spawn(move || completions::one(&drained).1);
    stage.node.wait_count("BLPOP", sent + 1, SOON);
    client.close(Timeout::Ms(0)).expect("only an idle command was ended");
    ends(&fails(Status::Closed, join(&one)), "client of service 'mymaster'");
}
