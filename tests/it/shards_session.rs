//! A session of a client over several shards: whatever way its commands take, their keys are on its shard and stored as elsewhere.

use std::sync::Arc;

use vigie::client::{CallFlags, CallHandle, Client, Timeout};
use vigie::error::{Error, Status, flags};
use vigie::queue::Queue;
use vigie::shard::Shards;

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
