//! Durable writes: the rules 16 to 18, on real servers.

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use calls::*;
use stage::SOON;
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::topology::Sentinel;

/// VIGIE_CALL_REPLICAS of the header.
const fn replicas(n: u32) -> u32 {
    (n & 0xFF) << 24
}

fn durable(sentinel: &Arc<Sentinel>, replicas: &str) -> Arc<Client> {
    to_primary(sentinel, &[("write.replicas", replicas)])
}

/// Waits until both replicas are in sync: in the second after a full sync nothing is sent to them.
fn streaming(client: &Client) {
    call(client, "SET streaming yes", replicas(2), Timeout::Default).expect("both replicas are there");
}

/// Executed, but on too few replicas: nothing to retry, nothing in doubt.
#[track_caller]
fn too_few<T>(outcome: Result<T>, count: i64, primary: &Node) -> Error {
    let error = fails(Status::Replicas, outcome);
    assert_eq!((error.count(), error.endpoint()), (count, primary.addr().as_str()), "{error}");
    assert!(!error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    error
}

#[test]
fn rule_17_a_write_is_done_when_enough_replicas_have_it() {
    let d = Deployment::new("durable").start();
    let sentinel = sentinel_of(&d, &[]);
    let (primary, nodes) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE));
    let plain = to_primary(&sentinel, &[]);
    for n in ["1", "2", "all"] {
        let waits = primary.calls("wait");
        let client = durable(&sentinel, n);
        assert_eq!((ok(&client, &format!("SET k{n} v")), primary.calls("wait")), ("OK".into(), waits + 1));
        assert_eq!(ok(&client, &format!("GET k{n}")), "v");
        assert_eq!(primary.calls("wait"), waits + 1, "a read waits for nobody");
        let has = nodes.iter().filter(|node| node.cmd(&["EXISTS", &format!("k{n}")]).int() == Some(1)).count();
        assert!(has >= n.parse().unwrap_or(2), "{n}: {has} have it");
    }
    for n in [1, 2] {
        call(&plain, "SET k v", replicas(n), Timeout::Default).expect("both replicas are there");
    }
    // Requested by the call instead of the option; 0 means the option.
    too_few(call(&durable(&sentinel, "1"), "INCR more", replicas(3), Timeout::Ms(300)), 2, &primary);
    let waits = primary.calls("wait");
    call(&plain, "SET k v", replicas(0), Timeout::Default).expect("as configured");
    assert_eq!((primary.calls("wait"), ok(&plain, "GET more")), (waits, "1".into()));
}

#[test]
fn rule_17_too_few_is_an_error_with_their_number_and_nothing_is_repeated() {
    let d = Deployment::new("durable-few").start();
    let sentinel = sentinel_of(&d, &[]);
    let (primary, stopped) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE).remove(0));
    let (two, all, plain) = (durable(&sentinel, "2"), durable(&sentinel, "all"), to_primary(&sentinel, &[]));
    ok(&two, "SET text v");
    streaming(&all);
    stopped.stop();
    let (outcome, took, pace) = paced(|| within(&two, "INCR n", 400));
    too_few(outcome, 1, &primary);
    assert!(took >= Duration::from_millis(270), "it waits for as long as it may: {took:?}");
    pace.judge("a write that too few have", took, Duration::from_millis(450));
    too_few(call(&two, "INCR n", CallFlags::IDEMPOTENT, Timeout::Ms(200)), 1, &primary);
    too_few(within(&all, "INCR n", 200), 1, &primary);
    too_few(call(&plain, "INCR n", replicas(2), Timeout::Ms(200)), 1, &primary);
    assert_eq!((ok(&plain, "GET n").as_str(), primary.calls("incr")), ("4", 4), "each ran once");
    // Enough for one replica.
    ok(&durable(&sentinel, "1"), "INCR n");
    call(&two, "INCR n", replicas(1), Timeout::Default).expect("one has it");
    // Lists: one WAIT after them. With the error the replies are lost, the effects are not.
    let incrs = list(&["INCR a", "INCR b"]);
    too_few(two.cmds_exec(&incrs, CallFlags::default(), Timeout::Ms(200)), 1, &primary);
    let waits = primary.calls("wait");
    let reply =
        two.cmds_exec(&incrs, CallFlags::from_bits(replicas(1)).unwrap(), Timeout::Default).expect("one has it");
    assert_eq!((json(&reply), primary.calls("wait")), ("[2,2]".into(), waits + 1));
    // A refused command needs no replicas.
    let error = fails(Status::Server, cmd(&two, "INCR text"));
    assert!(error.message().starts_with("ERR value is not an integer"), "{error}");
    let refused = two.cmds_exec(&list(&["INCR text", "LPUSH text x"]), CallFlags::default(), Timeout::Default);
    assert_eq!(refused.expect("an answer for each").count(0), 2);
    too_few(two.cmds_exec(&list(&["INCR text", "INCR a"]), CallFlags::default(), Timeout::Ms(200)), 1, &primary);
    // Reads and blocking writes do not wait.
    assert!(cmd(&two, "GET n").is_ok() && within(&two, "RPUSH l x", 200).is_err());
    assert!(cmd(&two, "BLPOP l 1").is_ok());
    stopped.cont();
    eventually("both are there again", SOON, || within(&two, "SET k v", 300).is_ok());
}

/// Single commands, lists, transactions in one call and by hand, and submitted calls: on the session's connection, which they keep.
#[test]
fn rule_17_a_session_waits_for_its_writes_as_its_client_does() {
    let d = Deployment::new("durable-session").start();
    let sentinel = sentinel_of(&d, &[]);
    let (primary, stopped) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE).remove(0));
    let (two, plain) = (durable(&sentinel, "2"), to_primary(&sentinel, &[]));
    streaming(&plain);
    let session = two.session(None).expect("a session");
    let (id, queue) = (number(&session, "CLIENT ID"), completions::queue(4));
    let flagged = |client: &Client, lines: &[&str], flags: u32, ms: u64| {
        client.cmds_exec(&list(lines), CallFlags::from_bits(flags).expect("known"), Timeout::Ms(ms))
    };
    let submitted = |client: &Client, lines: &[&str], flags: u32, ms: u64| {
        let flags = CallFlags::from_bits(flags).expect("known");
        client.cmds_submit(&list(lines), flags, Timeout::Ms(ms), &queue, 1).expect("taken");
        completions::one(&queue).1
    };
    // Both have it: a WAIT behind each unit that writes, and the replies are those of the program's commands.
    let waits = primary.calls("wait");
    assert_eq!(number(&session, "INCR n"), 1);
    assert_eq!(json(&flagged(&session, &["INCR n", "GET n"], 0, 5000).expect("a list")), "[2,\"2\"]");
    assert_eq!(json(&flagged(&session, &["INCR n"], CallFlags::ATOMIC, 5000).expect("a transaction")), "[3]");
    assert_eq!(primary.calls("wait"), waits + 3);
    assert_eq!((ok(&session, "MULTI"), ok(&session, "INCR n")), ("OK".into(), "QUEUED".into()));
    let error = fails(Status::InvalidArg, call(&session, "INCR n", replicas(1), Timeout::Default));
    assert!(error.message().contains("EXEC"), "{error}");
    assert_eq!(primary.calls("wait"), waits + 3, "nothing is sent into an open transaction");
    assert_eq!((json(&cmd(&session, "EXEC").expect("it ran")), primary.calls("wait")), ("[4]".into(), waits + 4));
    // What only reads, what is given up, and what was aborted.
    assert!(cmd(&session, "GET n").is_ok() && run(&session, &["MULTI", "INCR n", "DISCARD"]).is_ok());
    stopped.stop();
    let before = number(&plain, "GET n");
    for by_hand in [false, true] {
        ok(&session, "WATCH w");
        ok(&plain, "INCR w");
        let outcome = match by_hand {
            false => flagged(&session, &["INCR n"], CallFlags::ATOMIC, 600),
            true => run(&session, &["MULTI", "INCR n"]).and_then(|_| within(&session, "EXEC", 600)),
        };
        fails(Status::TxnAborted, outcome);
    }
    let refused = flagged(&session, &["MULTI", "NO.SUCH", "EXEC"], 0, 600).expect("an answer for each");
    assert!(refused.error_line(refused.child(0, 2).expect("EXEC")).is_some());
    // Too few: executed once, told with the number and the replies, and the session goes on.
    too_few(within(&session, "INCR n", 400), 1, &primary);
    let error = too_few(flagged(&session, &["INCR n", "GET n"], 0, 400), 1, &primary);
    assert_eq!(error.reply().map(json), Some(format!("[{},\"{}\"]", before + 2, before + 2)));
    too_few(flagged(&session, &["INCR n"], CallFlags::ATOMIC, 400), 1, &primary);
    ok(&session, "WATCH n");
    let error = too_few(flagged(&session, &["INCR n"], CallFlags::ATOMIC, 400), 1, &primary);
    assert_eq!(error.reply().map(json), Some(format!("[{}]", before + 4)));
    run(&session, &["MULTI", "INCR n"]).expect("queued");
    too_few(within(&session, "EXEC", 400), 1, &primary);
    too_few(flagged(&session, &["MULTI", "INCR n", "EXEC"], 0, 400), 1, &primary);
    call(&session, "INCR n", replicas(1), Timeout::Default).expect("one has it");
    let own = plain.session(None).expect("a session");
    too_few(call(&own, "INCR n", replicas(2), Timeout::Ms(400)), 1, &primary);
    let overridden = plain.session(Some(&config(&[("write.replicas", "2")]))).expect("a session");
    too_few(within(&overridden, "INCR n", 400), 1, &primary);
    let without = two.session(Some(&config(&[("write.replicas", "0")]))).expect("a session");
    ok(&without, "SET k v");
    // The program's own WAIT is left alone.
    let waits = primary.calls("wait");
    assert_eq!((number(&own, "INCR n"), number(&own, "WAIT 2 50")), (before + 10, 1));
    assert_eq!((number(&session, "WAIT 2 50"), primary.calls("wait")), (1, waits + 2));
    // Submitted, and from then on a blocking call too, which goes the same way.
    for (lines, flags) in
        [(&["INCR n"][..], CallFlags::EACH), (&["INCR n", "GET n"], 0), (&["INCR n"], CallFlags::ATOMIC)]
    {
        too_few(submitted(&session, lines, flags, 400), 1, &primary);
    }
    too_few(within(&session, "INCR n", 400), 1, &primary);
    submitted(&session, &["INCR n"], CallFlags::EACH | replicas(1), 5000).expect("one has it");
    assert_eq!(json(&submitted(&session, &["MULTI", "INCR n"], 0, 5000).expect("queued")), "[\"OK\",\"QUEUED\"]");
    too_few(submitted(&session, &["EXEC"], CallFlags::EACH, 400), 1, &primary);
    assert_eq!(number(&session, "GET n"), before + 16, "each ran once");
    assert_eq!(number(&session, "CLIENT ID"), id, "on one connection");
    stopped.cont();
    eventually("both are there again", SOON, || submitted(&session, &["SET k v"], CallFlags::EACH, 1000).is_ok());
}

#[test]
fn rule_17_who_waits_holds_up_nobody() {
    let d = Deployment::new("durable-lane").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    streaming(&client);
    d.replica_nodes(SERVICE)[0].stop();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = Arc::clone(&client);
            spawn(move || call(&client, "INCR n", replicas(2), Timeout::Ms(900)))
        })
        .collect();
    let primary = d.primary_node(SERVICE);
    eventually("all four wait", SOON, || primary.client_list().iter().filter(|one| one.cmd == "wait").count() == 4);
    for _ in 0..20 {
        takes_at_most("a write beside them", Duration::from_millis(300), || ok(&client, "SET k v"));
    }
    waiting.iter().for_each(|call| drop(too_few(join(call), 1, &primary)));
    assert_eq!((ok(&client, "GET n").as_str(), primary_pool(&client).get("lanes")), ("4", 1));
}

#[test]
fn rule_16_some_replicas_without_the_fence_are_a_configuration_error() {
    let refused = |pairs: &[(&str, &str)], names: &[&str]| {
        let mut all = config(&[("sentinel.addrs", "127.0.0.1:1"), ("service", SERVICE)]);
        pairs.iter().for_each(|(key, value)| all.set(key, value).expect("valid by itself"));
        let error = fails(Status::Config, all.settings());
        assert!(names.iter().all(|name| error.message().contains(name)), "{error}");
    };
    let accepted = |pairs: &[(&str, &str)]| drop(sentinel_at(&["127.0.0.1:1".into()], pairs));
    refused(&[("failover.fence", "off"), ("write.replicas", "1")], &["write.replicas", "failover.fence"]);
    let unfenced = to_primary(&sentinel_at(&["127.0.0.1:1".into()], &[("failover.fence", "off")]), &[]);
    let error = fails(Status::Config, unfenced.session(Some(&config(&[("write.replicas", "1")]))));
    assert!(error.message().contains("failover.fence"), "{error}");
    for mode in ["off", "disconnect"] {
        refused(&[("monitor", mode), ("write.replicas", "1")], &["write.replicas", "\"monitor\" on"]);
        accepted(&[("monitor", mode), ("write.replicas", "all")]);
    }
    accepted(&[("failover.fence", "off"), ("write.replicas", "all")]);
    accepted(&[("write.replicas", "1")]);
    refused(&[("write.majority_ms", "9999")], &["write.majority_ms", "monitor.interval", "9999", "5000"]);
    refused(&[("write.majority_ms", "20000"), ("monitor", "off")], &["write.majority_ms", "monitor"]);
    accepted(&[("write.majority_ms", "10000")]);
    accepted(&[("write.majority_ms", "10000"), ("monitor", "disconnect")]);
    // The option works for a client as for the handle.
    let opened = |handle: &[(&str, &str)], client: &[(&str, &str)]| {
        let sentinel = sentinel_at(&["127.0.0.1:1".into()], handle);
        Client::open(&sentinel, None, Target::Primary, Some(&config(client)))
    };
    fails(Status::Config, opened(&[("failover.fence", "off")], &[("write.replicas", "2")]));
    fails(Status::Config, opened(&[("monitor", "disconnect")], &[("write.replicas", "2")]));
    fails(Status::Config, opened(&[("monitor", "off")], &[("write.majority_ms", "60000")]));
    fails(Status::Config, opened(&[], &[("write.majority_ms", "5000")]));
    opened(&[("failover.fence", "off")], &[("write.replicas", "all")]).expect("all is safe by itself");
}

#[test]
fn rule_16_some_replicas_of_a_call_without_the_fence_are_refused() {
    let (p, watch) = (Scripted::primary(), Scripted::primary());
    let sentinel = told(&p.addr(), &[watch.addr(), format!("127.0.0.1:{}", watch.port() + 1)]);
    for (option, value) in [("monitor", "off"), ("monitor", "disconnect"), ("failover.fence", "off")] {
        let client = to_primary(&handle(&sentinel, &[(option, value)]), &[]);
        let error = fails(Status::Config, call(&client, "SET k w", replicas(1), Timeout::Default));
        assert!(error.message().contains("VIGIE_CALL_REPLICAS") && error.message().contains(option), "{error}");
    }
    let client = to_primary(&handle(&sentinel, &[("failover.fence", "off")]), &[]);
    ok(&client, "SET k v");
    fails(Status::Config, call(&client, "SET k w", replicas(1), Timeout::Default));
    assert_eq!((p.count("SET"), p.count("WAIT")), (1, 0), "nothing was sent");
    // "All" means all listed replicas; the WAIT always has a time limit.
    p.fault("WAIT", Fault::Reply(Value::Int(2)));
    call(&client, "SET k w", replicas(2), Timeout::Ms(1000)).expect("both have it");
    p.fault("WAIT", Fault::Reply(Value::Int(0)));
    let error = fails(Status::Replicas, call(&client, "SET k w", replicas(2), Timeout::Unlimited));
    assert_eq!(error.count(), 0);
    let waits: Vec<_> = p.commands().into_iter().filter(|command| command.starts_with("WAIT")).collect();
    let patience = |wait: &str| wait.rsplit(' ').next().and_then(|ms| ms.parse::<u64>().ok()).expect("a number");
    assert!(waits.len() == 2 && waits.iter().all(|wait| wait.starts_with("WAIT 2 ")), "{waits:?}");
    assert!((1..=1000).contains(&patience(&waits[0])), "{waits:?}");
    // Without a limit the WAIT is long, but never 0, which would be forever.
    assert!(patience(&waits[1]) > 1_000_000, "{waits:?}");
}

/// Writes until `stop`; returns what was acknowledged, in order.
fn write_on(client: &Client, stop: &AtomicBool) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        match within(client, &format!("RPUSH seq {number}"), 2500) {
            Ok(_) => acknowledged.push(number),
            // A pause, so that calls that fail at once do not fill the list.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    acknowledged
}

#[test]
fn rule_16_no_acknowledged_write_is_lost_in_a_planned_failover() {
    let services = ["fenced", "all"];
    let d = Arc::new(Deployment::new("durable-failover").services(services).start());
    let options = [("fenced", "on", "1"), ("all", "off", "all")];
    let running: Vec<_> = options
        .map(|(service, fence, n)| {
            let d = Arc::clone(&d);
            spawn(move || {
                let sentinel = sentinel_of(&d, &[("failover.fence", fence), ("service", service)]);
                let client = durable(&sentinel, n);
                // Without the fence only "all" may be requested: two here.
                streaming(&client);
                let stop = Arc::new(AtomicBool::new(false));
                let (writing, over) = (Arc::clone(&client), Arc::clone(&stop));
                let writer = spawn(move || write_on(&writing, &over));
                let old = d.failover(service);
                let new = d.wait_switched(service, &old);
                let length = || new.cmd(&["LLEN", "seq"]).int().unwrap_or(0);
                let before = length();
                eventually("writes go to the new primary", SOON, || length() > before);
                stop.store(true, Ordering::Release);
                let acknowledged = join(&writer);
                let kept = new.cmd(&["LRANGE", "seq", "0", "-1"]);
                let kept: Vec<u64> = kept.items().iter().filter_map(|item| item.text().parse().ok()).collect();
                let lost = acknowledged.iter().filter(|number| !kept.contains(number)).count();
                assert!(!acknowledged.is_empty(), "{service}: {} acknowledged", acknowledged.len());
                assert_eq!(lost, 0, "{service}: of {} acknowledged", acknowledged.len());
            })
        })
        .into();
    running.iter().for_each(join);
}

#[test]
fn rule_18_without_a_majority_of_the_sentinels_no_write_is_sent() {
    let d = Deployment::new("durable-majority").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "200"), ("write.majority_ms", "1000")]);
    let client = to_primary(&sentinel, &[]);
    let primary = d.primary_node(SERVICE);
    let session = client.session(None).expect("a session");
    ok(&session, "SET s v");
    // While there is a majority, nothing is held back, however old the last poll is.
    let (began, pacing, mut longest) = (Instant::now(), Pacing::start(), Duration::ZERO);
    while began.elapsed() < Duration::from_millis(1500) {
        longest = longest.max(timed(|| ok(&client, "SET k v")).1);
        std::thread::sleep(Duration::from_millis(10));
    }
    pacing.stop().judge("a write with a majority", longest, Duration::from_millis(500));
    let sentinels = d.sentinel_nodes();
    sentinels[0].kill();
    sentinels[1].stop();
    let gone = Instant::now();
    eventually("writes are refused", SOON, || {
        within(&client, "SET k v", 20).is_err_and(|error| error.status() == Status::Fenced)
    });
    assert!(gone.elapsed() > Duration::from_millis(300), "not at once: {:?}", gone.elapsed());
    let sets = primary.calls("set");
    for client in [&client, &session] {
        let error = fails(Status::Fenced, within(client, "SET k refused", 300));
        assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
        assert!(error.message().contains("majority"), "{error}");
    }
    assert_eq!((ok(&client, "GET k").as_str(), primary.calls("set")), ("v", sets), "reads go on, nothing was sent");
    // A client without the option is not affected.
    ok(&to_primary(&sentinel, &[("write.majority_ms", "off")]), "SET other v");
    let held = {
        let client = Arc::clone(&client);
        spawn(move || within(&client, "SET k held", 10_000))
    };
    sentinels[1].cont();
    join(&held).expect("two of three are a majority again");
    assert_eq!(ok(&client, "GET k"), "held");
}

/// Durable on disk, on a scripted server that has WAITAOF.
#[test]
fn a_write_on_disk_is_done_when_the_primary_and_the_replicas_have_it_there() {
    let node = Scripted::primary();
    node.state(|state| state.door.version = "7.2.4".into());
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    let answers = |local: i64, count: i64| {
        node.fault("WAITAOF", Fault::Reply(Value::Array(vec![Value::Int(local), Value::Int(count)])));
    };
    let alone = to_primary(&sentinel, &[("write.aof", "on")]);
    answers(1, 0);
    assert_eq!((ok(&alone, "SET k v").as_str(), node.count("WAITAOF 1 0"), node.count("WAIT")), ("OK", 1, 0));
    assert_eq!((ok(&alone, "GET k").as_str(), node.count("WAITAOF")), ("v", 1), "a read waits for nobody");
    answers(0, 0);
    let error = too_few_on_disk(cmd(&alone, "INCR n"), 0);
    assert!(error.message().contains("does not have it on disk yet"), "{error}");
    let with_two = to_primary(&sentinel, &[("write.aof", "on"), ("write.replicas", "2")]);
    answers(1, 1);
    let error = too_few_on_disk(cmd(&with_two, "INCR n"), 1);
    assert!(error.message().contains("1 of 2 replicas have it on disk"), "{error}");
    let (queue, each) = (completions::queue(4), CallFlags::from_bits(CallFlags::EACH).expect("known"));
    let submit = |client: &Client| {
        client.cmds_submit(&list(&["INCR n"]), each, Timeout::Default, &queue, 1).expect("taken");
        completions::one(&queue).1
    };
    too_few_on_disk(submit(&with_two), 1);
    answers(1, 2);
    assert_eq!((number(&with_two, "INCR n"), json(&submit(&with_two).expect("two have it"))), (4, "5".into()));
    assert_eq!(node.count("WAITAOF 1 2"), 4);
    let session = with_two.session(None).expect("a session");
    assert_eq!((ok(&session, "SET k w"), node.count("WAITAOF 1 2")), ("OK".into(), 5));
    answers(1, 1);
    too_few_on_disk(cmd(&session, "SET k x"), 1);
    answers(1, 2);
    // One call asks for more than the option.
    call(&alone, "INCR n", replicas(2), Timeout::Default).expect("two have it");
    // No append-only file: the write stands, and the server is the primary all the same.
    let line = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";
    node.fault("WAITAOF", Fault::Error(line.into()));
    let (conns, error) = (node.accepted(), too_few_on_disk(cmd(&alone, "INCR n"), 0));
    assert!(
        error.message().contains("whether it is on disk is not known") && error.message().contains("appendonly"),
        "{error}"
    );
    too_few_on_disk(cmd(&alone, "INCR n"), 0);
    assert_eq!((ok(&alone, "GET n").as_str(), node.accepted()), ("8", conns), "each ran once, on the same connections");
}

#[track_caller]
fn too_few_on_disk<T>(outcome: Result<T>, count: i64) -> Error {
    let error = fails(Status::Replicas, outcome);
    assert!(error.count() == count && !error.has(flags::RETRYABLE | flags::MAYBE_EXECUTED), "{error}");
    error
}

#[test]
fn a_server_that_cannot_tell_what_is_on_disk_is_sent_no_such_write() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[("write.aof", "on")]);
    let (queue, each) = (completions::queue(4), CallFlags::from_bits(CallFlags::EACH).expect("known"));
    client.cmds_submit(&list(&["SET k v"]), each, Timeout::Default, &queue, 1).expect("taken");
    let session = client.session(None).expect("a session");
    let of_session = cmd(&session, "SET k v");
    for outcome in
        [completions::one(&queue).1, of_session, cmd(&client, "SET k v"), run(&client, &["SET k v", "INCR n"])]
    {
        let error = fails(Status::Unsupported, outcome);
        for words in ["7.0.15", "WAITAOF", "nothing was sent", &node.addr()] {
            assert!(error.message().contains(words), "{error}");
        }
        assert!(!error.has(flags::RETRYABLE | flags::MAYBE_EXECUTED), "{error}");
    }
    assert_eq!(
        (node.count("SET"), node.count("INCR"), json(&cmd(&client, "GET k").expect("a read"))),
        (0, 0, "null".into())
    );
}

/// On Redis 7.2 or later (`VIGIE_SERVER`) what is on the disks of real nodes; before, nothing is sent.
#[test]
fn a_real_server_tells_what_is_on_its_disk_if_it_can() {
    let d = Deployment::new("on-disk").replicas(1).sentinels(1).quorum(1).start();
    let (primary, replica) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE).remove(0));
    [&primary, &replica].iter().for_each(|node| assert!(node.cmd(&["CONFIG", "SET", "appendonly", "yes"]).is_ok()));
    let sentinel = sentinel_of(&d, &[("write.aof", "on")]);
    let (alone, both) = (to_primary(&sentinel, &[]), to_primary(&sentinel, &[("write.replicas", "1")]));
    if primary.cmd(&["WAITAOF", "0", "0", "1"]).is_error() {
        fails(Status::Unsupported, cmd(&alone, "SET k v"));
        fails(Status::Unsupported, cmd(&both, "SET k v"));
        return assert_eq!(primary.cmd(&["EXISTS", "k"]).int(), Some(0));
    }
    eventually("the replica writes its file", SOON, || within(&both, "SET k v", 3000).is_ok());
    assert_eq!((number(&alone, "INCR n"), ok(&alone, "GET k")), (1, "v".into()));
    assert!(primary.calls("waitaof") >= 2);
    assert!(replica.cmd(&["CONFIG", "SET", "appendonly", "no"]).is_ok());
    let error = fails(Status::Replicas, within(&both, "INCR n", 2500));
    assert!(error.count() == 0 && error.message().contains("0 of 1 replicas have it on disk"), "{error}");
    assert_eq!(number(&alone, "INCR n"), 3);
    assert!(primary.cmd(&["CONFIG", "SET", "appendonly", "no"]).is_ok());
    let error = fails(Status::Replicas, cmd(&alone, "INCR n"));
    assert!(error.message().contains("appendonly"), "{error}");
}
