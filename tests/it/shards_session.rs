//! What a program sees of several shards beside its replies: a session's keys, the errors of shards, and the end of what was made before a change.

use std::sync::Arc;
use std::time::Duration;

use vigie::client::{CallFlags, CallHandle, Client, Timeout};
use vigie::error::{Error, Status, flags};
use vigie::queue::{Event, Queue};
use vigie::resp::Reply;
use vigie::shard::Shards;
use vigie::time::Deadline;

use crate::calls::{self, config, fails, json, list};
use crate::completions;
use crate::support::*;

/// By every way on which a session takes a list, as one call.
fn by_each_way(session: &Arc<Client>, lines: &[&str]) -> Vec<Result<String, Error>> {
    let (bytes, atomic) = (list(lines), CallFlags::from_bits(CallFlags::ATOMIC).unwrap());
    let mut outcomes = Vec::new();
    for flags in [CallFlags::default(), atomic] {
        outcomes.push(session.cmds_exec(&bytes, flags, Timeout::Default).map(|reply| json(&reply)));
        outcomes.push(submitted(session, &bytes, flags).map(|mut replies| replies.remove(0)));
        let handle = CallHandle::default();
        outcomes.push(handle.exec(session, &bytes, flags, Timeout::Default).map(|reply| json(&reply)));
    }
    outcomes
}

/// The outcomes of what was submitted, unless it was refused.
fn submitted(session: &Arc<Client>, bytes: &[u8], flags: CallFlags) -> Result<Vec<String>, Error> {
    let queue: Arc<Queue> = completions::queue(8);
    session.cmds_submit(bytes, flags, Timeout::Default, &queue, 1)?;
    let count = if flags == CallFlags::from_bits(CallFlags::EACH).unwrap() {
        vigie::resp::list::parse(bytes)?.len()
    } else {
        1
    };
    (0..count).map(|_| completions::one(&queue).1.map(|reply| json(&reply))).collect()
}

#[test]
fn a_session_takes_the_keys_of_its_shard_and_strips_tags_and_refuses_the_others() {
    let d = Deployment::new("shards-session").services(["a", "b", "c"]).replicas(0).sentinels(0).start();
    let nodes = ["a-0", "b-0", "c-0"].map(|name| d.node(name));
    let mut texts: Vec<String> =
        (1..).zip(&nodes).map(|(at, node)| format!("node_{at}=redis://{}", node.addr())).collect();
    let open = |texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Shards::open(None, &texts, Some(&config(&[]))).expect("shards")
    };
    let shards = open(&texts);
    // Of the three shards "a" is on the first, "hello" on the second, "foo" on the third.
    let session = shards.session(Some(b"a"), None).expect("a session");
    let got = |at: usize, key: &str| match nodes[at].cmd(&["EXISTS", key]) {
        Value::Int(0) => "null".to_owned(),
        _ => nodes[at].cmd(&["GET", key]).text(),
    };
    let refused = |error: &Error, key: &str, node: &str| {
        let text = error.message();
        assert_eq!(error.status(), Status::CrossShard, "{text}");
        assert!(
            text.contains(&format!("'{key}' is on {node}")) && text.contains("this session is on node_1"),
            "{text}"
        );
        assert!(text.contains("nothing was sent") && !error.has(flags::MAYBE_EXECUTED), "{text}");
    };
    // One command.
    let error = fails(Status::CrossShard, calls::cmd(&session, "SET foo orphan"));
    refused(&error, "foo", "node_3");
    refused(&fails(Status::CrossShard, calls::cmd(&session, "MGET a hello")), "hello", "node_2");
    refused(&fails(Status::CrossShard, calls::cmd(&session, "PUBLISH hello x")), "hello", "node_2");
    assert_eq!(calls::ok(&session, "SET t{a} 1"), "OK");
    assert_eq!((got(0, "t"), got(0, "t{a}")), ("1".into(), "null".into()));
    assert_eq!((calls::ok(&session, "GET t{a}"), calls::ok(&session, "GET t{a}")), ("1".into(), "1".into()));
    assert!(fails(Status::InvalidArg, calls::cmd(&session, "GET t{a")).message().contains("bad tag"));
    // Without keys, and what the table does not have.
    assert_eq!(calls::ok(&session, "ECHO hi"), "hi");
    assert_eq!(calls::ok(&session, "DBSIZE"), "1");
    assert!(fails(Status::Server, calls::cmd(&session, "VENDOR.CMD foo")).message().contains("unknown command"));
    // Lists, transactions, submits and call handles.
    for outcome in by_each_way(&session, &["INCR n{a}", "ECHO x", "DEL n{a} m{a}"]) {
        assert_eq!(outcome.expect("on its shard"), r#"[1,"x",1]"#);
    }
    for outcome in by_each_way(&session, &["SET a 1", "SET foo orphan"]) {
        let error = outcome.expect_err("elsewhere");
        refused(&error, "foo", "node_3");
        assert!(error.message().contains("command 2 of 2"), "{error}");
    }
    let each = CallFlags::from_bits(CallFlags::EACH).unwrap();
    let outcomes = submitted(&session, &list(&["INCR e{a}", "GET e{a}"]), each).expect("each is a call");
    assert_eq!(outcomes, ["1", "\"1\""]);
    refused(&submitted(&session, &list(&["SET a 1", "SET foo orphan"]), each).expect_err("elsewhere"), "foo", "node_3");
    // By hand: what is refused was not queued, and the transaction goes on.
    for line in ["WATCH w{a}", "MULTI", "SET w{a} 1"] {
        calls::ok(&session, line);
    }
    refused(&fails(Status::CrossShard, calls::cmd(&session, "SET hello orphan")), "hello", "node_2");
    assert_eq!(calls::ok(&session, "EXEC"), r#"["OK"]"#);
    assert_eq!((got(0, "w"), got(0, "a")), ("1".into(), "null".into()), "a refused list has sent nothing");
    for (at, key) in [(0, "foo"), (2, "foo"), (0, "hello"), (1, "hello")] {
        assert_eq!(got(at, key), "null", "{key} on {at}");
    }
    let eval = session.cmd_exec(
        &[b"EVAL", b"return redis.call('set', KEYS[1], ARGV[1])", b"1", b"s{a}", b"x{a}"],
        CallFlags::default(),
        Timeout::Default,
    );
    assert_eq!(json(&eval.expect("a script")), "\"OK\"");
    assert_eq!(got(0, "s"), "x{a}", "only keys are stripped");
    // A server of two names is one shard.
    texts.push(texts[0].replace("node_1", "node_4"));
    let four = open(&texts);
    let keys: Vec<String> = (0..64).map(|at| format!("k{at}")).collect();
    let on = |shard: usize| keys.iter().find(|key| four.shard_of(key.as_bytes()).unwrap() == shard).expect("one of 64");
    let session = four.session(Some(on(0).as_bytes()), None).expect("a session");
    assert_eq!(calls::ok(&session, &format!("SET {} 4", on(3))), "OK");
    fails(Status::CrossShard, calls::cmd(&session, &format!("SET {} 4", on(1))));
}

fn messages(queue: &Queue, count: usize) -> Vec<Event> {
    let (mut events, end) = (Vec::new(), Deadline::after(Duration::from_secs(20)));
    while events.len() < count && !end.is_over() {
        queue.drain(end, &mut events, count);
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn run(shards: &Shards, line: &str) -> Result<Reply, Error> {
    let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
    shards.cmd_exec(&words, CallFlags::default(), Timeout::Default)
}

#[test]
fn errors_of_shards_say_what_may_have_run_and_where_and_other_shards_are_asked_first() {
    let d = Deployment::new("shards-errors").services(["a", "b", "c"]).replicas(0).sentinels(0).start();
    let nodes = ["a-0", "b-0", "c-0"].map(|name| d.node(name));
    let texts: Vec<String> = (1..).zip(&nodes).map(|(at, node)| format!("node_{at}=redis://{}", node.addr())).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let options = config(&[("timeout.call", "3s")]);
    let shards = Shards::open(None, &texts, Some(&options)).expect("shards");
    // All have failed: an error, for what is answered by a map as for what is not.
    for line in ["CONFIG SET nothing 1", "DBSIZE x"] {
        let error = fails(Status::Server, run(&shards, line));
        assert!(error.message().starts_with("ERR ") && error.message().contains("3 of 3 shards"), "{line}: {error}");
        let reply = json(error.reply().expect("what each has answered"));
        assert!(reply.matches("node_").count() >= 3 && !error.has(flags::MAYBE_EXECUTED), "{line}: {reply}");
        assert_eq!(error.endpoint(), nodes[0].addr(), "{line}");
    }
    // The server of an error is named where it was read out of a list.
    for line in ["SET a text", "RPUSH hello x"] {
        run(&shards, line).expect(line);
    }
    for (line, at) in [("RENAME none a", 0), ("LMOVE hello a LEFT LEFT", 0), ("RENAME none hello", usize::MAX)] {
        let error = fails(Status::Server, run(&shards, line));
        let known = nodes.iter().any(|node| node.addr() == error.endpoint());
        assert!(
            known && (at == usize::MAX || line.starts_with("RENAME") || error.endpoint() == nodes[at].addr()),
            "{line}: {error} {:?}",
            error.endpoint()
        );
    }
    // What needs a session is refused without a shard, and a list with it before anything is sent.
    for line in ["MULTI", "SELECT 1", "WATCH hello"] {
        let error = fails(Status::Unsupported, run(&shards, line));
        assert!(!error.message().contains("node_"), "{line}: {error}");
    }
    fails(
        Status::Unsupported,
        shards.cmds_exec(&list(&["SET sent 1", "MULTI"]), CallFlags::default(), Timeout::Default),
    );
    assert_eq!(json(&run(&shards, "GET sent").unwrap()), "null");
    // Other shards: none is taken that does not answer.
    let queue = completions::queue(64);
    let sub = shards.subscription(&queue, 9, None).expect("a subscription");
    sub.exec(&[b"PSUBSCRIBE", b"*"], Timeout::Default).expect("on all nodes");
    messages(&queue, 3);
    let session = shards.session(Some(b"a"), None).expect("a session");
    calls::ok(&session, "GET a");
    let dead = deadend::refuse();
    let gone = format!("node_2=redis://{}", dead.addr());
    let error = shards.set(&[texts[0], &gone]).expect_err("it is not there");
    assert!(error.message().contains("node_2 cannot be used"), "{error}");
    assert_eq!((shards.shard_of(b"foo").unwrap(), calls::ok(&session, "GET a")), (2, "text".to_owned()));
    let degraded = Shards::open(None, &texts, Some(&config(&[("shard.degraded", "on")]))).expect("shards");
    degraded.set(&[texts[0], &gone]).expect("one of them may be down");
    // The end of what was made before is told once, with the reason.
    shards.set(&texts[..2]).expect("two shards");
    run(&shards, "GET a").expect("the shards before are given up");
    let told = |error: &Error| {
        assert_eq!(error.status(), Status::Closed, "{error}");
        assert!(error.message().contains("vigie_shards_set()") && error.message().contains("make it anew"), "{error}");
    };
    let events = messages(&queue, 1);
    told(events[0].outcome.as_ref().expect_err("the end"));
    told(&fails(Status::Closed, calls::cmd(&session, "GET a")));
    told(&fails(Status::Closed, sub.exec(&[b"PSUBSCRIBE", b"x*"], Timeout::Default)));
    let mut more = Vec::new();
    assert_eq!(queue.drain(Deadline::after(Duration::ZERO), &mut more, 8), 0, "{more:?}");
    // A read of which a part has failed is no write.
    nodes[1].kill();
    let error = run(&shards, "DBSIZE").expect_err("one is down");
    assert!(error.message().contains("1 of 2 shards") && !error.has(flags::MAYBE_EXECUTED), "{error}");
    let error = run(&shards, "DEL a hello").expect_err("one is down");
    assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
    sub.free();
}
