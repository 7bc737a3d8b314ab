//! Commands that the table does not have: a server's own list (COMMAND) says which of them block.

use crate::calls;
use crate::completions;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::Status;
use vigie::time::Deadline;

const SOON: Duration = Duration::from_secs(20);
const EACH: u32 = CallFlags::EACH;

/// A primary whose module has a command that blocks and one that does not.
fn with_module() -> FakeNode {
    let node = Scripted::primary();
    let command = |name: &str, flags: &[&str]| {
        let flags = flags.iter().map(|flag| Value::Simple((*flag).into())).collect();
        Value::Array(vec![Value::bulk(name), Value::Int(-2), Value::Array(flags), Value::Int(1)])
    };
    let known =
        [command("get", &["readonly"]), command("mod.pop", &["write", "blocking"]), command("mod.set", &["write"])];
    node.fault("COMMAND", Fault::Reply(Value::Array(known.to_vec())));
    ["MOD.POP", "MOD.SET", "MOD.NEW"].iter().for_each(|name| node.fault(name, Fault::Reply(Value::ok())));
    node
}

/// The connection of the last command that began with this word.
#[track_caller]
fn conn(node: &FakeNode, word: &str) -> u64 {
    let log = node.log();
    let entry = log.iter().rfind(|entry| entry.text().starts_with(word));
    entry.unwrap_or_else(|| panic!("no {word} in {:?}", node.commands())).conn
}

/// Runs a command and a GET, and tells whether they shared a connection.
fn shares(node: &FakeNode, client: &Client, line: &str) -> bool {
    ok(client, line);
    ok(client, "GET k");
    conn(node, line) == conn(node, "GET")
}

fn submit(client: &Client, line: &str) -> String {
    let (queue, flags) = (completions::queue(2), CallFlags::from_bits(EACH).expect("known"));
    client.cmds_submit(&list(&[line]), flags, Timeout::Default, &queue, 1).expect("taken");
    completions::one(&queue).1.map(|reply| text(&reply)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn an_unknown_command_has_its_own_connection_until_the_server_has_said_that_it_does_not_block() {
    let node = with_module();
    let watch = told(&node.addr(), &[]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    assert!(!shares(&node, &client, "MOD.SET"), "nothing is known of it");
    node.wait_count("COMMAND", 1, SOON);
    eventually("the answer is known", SOON, || shares(&node, &client, "MOD.SET"));
    assert_ne!(conn(&node, "COMMAND"), conn(&node, "GET"), "the question was in nobody's way");
    for line in ["MOD.POP", "MOD.NEW"] {
        assert!(!shares(&node, &client, line), "{line} blocks, or is not in the list");
    }
    // A list blocks as long as its command does, and a transaction does not block at all.
    assert_eq!(json(&run(&client, &["GET k", "MOD.POP q"]).expect("a list")), r#"["v","OK"]"#);
    assert_ne!(conn(&node, "MOD.POP q"), {
        ok(&client, "GET k");
        conn(&node, "GET")
    });
    // Submitted ones go the same ways.
    assert_eq!(
        (submit(&client, "MOD.SET a"), submit(&client, "MOD.POP a"), submit(&client, "SET k w")),
        ("OK".into(), "OK".into(), "OK".into())
    );
    assert_eq!(
        (conn(&node, "MOD.SET a") == conn(&node, "SET k w"), conn(&node, "MOD.POP a") == conn(&node, "SET k w")),
        (true, false)
    );
    // Asked once: another client of the service knows it, too.
    let other = to_primary(&sentinel, &[]);
    ok(&other, "SET k v");
    assert!(shares(&node, &other, "MOD.SET") && node.count("COMMAND") == 1, "{:?}", node.commands());
}

#[test]
fn each_version_is_asked_once_and_a_refusal_is_an_answer() {
    let (old, same, newer) = (with_module(), with_module(), with_module());
    newer.state(|state| state.door.version = "8.0.2".into());
    newer.fault("COMMAND", Fault::Error("NOPERM User app has no permissions to run the 'command' command".into()));
    let watch = told(&old.addr(), &[same.addr(), newer.addr()]);
    let sentinel = handle(&watch, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    ok(&client, "MOD.SET");
    old.wait_count("COMMAND", 1, SOON);
    eventually("the answer is known", SOON, || shares(&old, &client, "MOD.SET"));
    let move_to = |node: &FakeNode| {
        watch.service(SERVICE, |state| state.switch_to(&node.addr()));
        sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
        ok(&client, "SET k v");
    };
    move_to(&same);
    assert!(shares(&same, &client, "MOD.SET") && same.count("COMMAND") == 0, "the same version");
    move_to(&newer);
    assert!(!shares(&newer, &client, "MOD.SET"), "another version");
    newer.wait_count("COMMAND", 1, SOON);
    (0..3).for_each(|_| assert!(!shares(&newer, &client, "MOD.SET"), "it has not said what it knows"));
    assert_eq!(newer.count("COMMAND"), 1);
}

#[test]
fn a_pool_full_of_blocked_commands_serves_ordinary_calls_and_says_what_it_is_full_of() {
    let node = with_module();
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[("pool.max", "4")]);
    ok(&client, "SET k v");
    ["MOD.POP q", "BLPOP q"].iter().for_each(|line| node.fault(line, Fault::Stall));
    let session = client.session(None).expect("a session");
    ok(&session, "GET k");
    let blocked = ["MOD.POP q", "BLPOP q 0"].map(|line| {
        let client = Arc::clone(&client);
        spawn(move || call(&client, line, 0, Timeout::Unlimited).map(|reply| text(&reply)))
    });
    eventually("both are blocked", SOON, || node.count("MOD.POP q") + node.count("BLPOP q") == 2);
    for line in ["MOD.POP other 1", "BLPOP other 1"] {
        let error = fails(Status::PoolTimeout, within(&client, line, 150));
        for words in ["in_use 3 (2 blocking commands, 1 session)", "pool.max 4"] {
            assert!(error.message().contains(words), "{error}");
        }
    }
    assert_eq!(
        (ok(&client, "GET k"), number(&client, "INCR n"), submit(&client, "GET k")),
        ("v".into(), 1, "v".into())
    );
    node.clear_faults();
    node.fault("MOD.POP", Fault::Reply(Value::ok()));
    // The stalled commands go on, and the scripted server does not know one of them.
    let ended = blocked.map(|job| join(&job));
    assert!(ended[0].is_err() || ended[0].as_deref().is_ok_and(|reply| reply == "OK"), "{ended:?}");
    assert!(ended[1].is_ok(), "{ended:?}");
}
