//! Call handles: a cancellation from another thread loses nothing that a command has taken, and a call goes on after an
//! interrupted wait.

use crate::calls;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use calls::*;
use stage::tables::Seen;
use stage::{SOON, stage};
use support::*;
use vigie::client::{CallFlags, CallHandle, Client, Timeout, times_map};
use vigie::error::{Result, Status, flags};
use vigie::resp::Reply;

fn exec(call: &CallHandle, client: &Client, line: &str, timeout: Timeout) -> Result<Reply> {
    let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
    call.cmd_exec(client, &words, CallFlags::default(), timeout)
}

fn start(call: &Arc<CallHandle>, client: &Arc<Client>, line: &'static str) -> Receiver<Result<Reply>> {
    let (call, client) = (Arc::clone(call), Arc::clone(client));
    spawn(move || exec(&call, &client, line, Timeout::Unlimited))
}

fn blocked(primary: &Node) -> usize {
    primary.info("clients")["blocked_clients"].parse().expect("a number")
}

#[test]
fn a_call_handle_runs_what_a_client_runs() {
    let d = single("call-handle");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let call = CallHandle::default();
    assert_eq!(text(&exec(&call, &client, "SET k v", Timeout::Default).expect("it runs")), "OK");
    assert_eq!(text(&exec(&call, &client, "GET k", Timeout::Default).expect("once more")), "v");
    let list = call.exec(&client, &list(&["GET k", "STRLEN k"]), CallFlags::default(), Timeout::Default);
    assert_eq!(json(&list.expect("a list")), r#"["v",1]"#);
    let wrong = fails(Status::Server, exec(&call, &client, "INCR k", Timeout::Default));
    assert_eq!(wrong.server_code(), "ERR");
    fails(Status::InvalidState, call.wait());
}

/// A number of where the time of the call went.
fn spent(call: &CallHandle, key: &str) -> i64 {
    let times = call.times().expect("a call was made");
    times.int(times.find(0, key.as_bytes()).expect("the key")).unwrap_or(-1)
}

fn add_up(call: &CallHandle) {
    let parts: i64 = ["queue_us", "fence_us", "wire_us", "retry_us"].iter().map(|key| spent(call, key)).sum();
    let total = spent(call, "total_us");
    assert_eq!(parts, total, "{}", json(&call.times().unwrap()));
}

#[test]
fn a_handle_says_where_the_time_of_its_call_went() {
    let stage = stage(2, &[]);
    let (client, call) = (to_primary(&stage.sentinel, &[]), Arc::new(CallHandle::default()));
    fails(Status::InvalidState, call.times());
    exec(&call, &client, "SET k v", Timeout::Default).expect("it runs");
    let (mut seen, maps) = (Seen::default(), [times_map()]);
    seen.check(&call.times().unwrap(), 0, &maps[0], &maps);
    let told = call.times().unwrap();
    assert_eq!(told.bytes(told.find(0, b"endpoint").unwrap()), Some(stage.p.addr().as_bytes()));
    assert_eq!((spent(&call, "attempts"), spent(&call, "over"), spent(&call, "fence_us")), (1, 1, 0));
    assert_eq!(spent(&call, "retry_us"), 0, "it was sent once: {}", json(&told));
    add_up(&call);

    // On the wire, and again after a lost connection.
    stage.p.fault("GET slow", Fault::Delay(Duration::from_millis(100)));
    let _ = exec(&call, &client, "GET slow", Timeout::Default);
    assert!(spent(&call, "wire_us") >= 100_000 && spent(&call, "attempts") == 1 && spent(&call, "retry_us") == 0);
    stage.p.fault_times("GET lost", 1, Fault::Close);
    exec(&call, &client, "GET lost", Timeout::Default).expect("a read is sent again");
    assert_eq!(spent(&call, "attempts"), 2);
    add_up(&call);

    // Held back; it is told while it lasts.
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    let write = start(&call, &client, "SET k held");
    eventually("it is held back", SOON, || spent(&call, "fence_us") > 1000);
    assert_eq!((spent(&call, "over"), spent(&call, "attempts")), (0, 0));
    stage.abort(0, "not-elected");
    assert_eq!(text(&join(&write).expect("it went out")), "OK");
    let held = spent(&call, "fence_us");
    assert!(held > 1000 && spent(&call, "attempts") == 1, "{}", json(&call.times().unwrap()));
    add_up(&call);

    // In a session, too.
    let session = client.session(None).unwrap();
    exec(&call, &session, "SELECT 0", Timeout::Default).expect("it runs");
    assert_eq!((spent(&call, "attempts"), spent(&call, "over"), spent(&call, "fence_us")), (1, 1, 0));
    add_up(&call);
    stage.p.down();
    let _ = exec(&call, &client, "SET k v", Timeout::Ms(50));
    assert_eq!(spent(&call, "over"), 1, "also if it failed");
    add_up(&call);
}

/// It counts also if it came before the call, and stays.
#[test]
fn a_cancelled_handle_sends_nothing() {
    let d = single("call-before");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let call = CallHandle::default();
    call.cancel();
    for _ in 0..2 {
        let error = fails(Status::Cancelled, exec(&call, &client, "SET k v", Timeout::Default));
        assert!(!error.has(flags::MAYBE_EXECUTED) && error.message().contains("before it began"), "{error}");
    }
    assert_eq!(d.primary_node(SERVICE).calls("set"), 0);
}

/// The server ends it, so that its connection goes on.
#[test]
fn a_blocking_command_is_cancelled_by_the_server() {
    if lacks(Feature::SubCommands) {
        return;
    }
    let d = single("call-unblock");
    for protocol in ["2", "3"] {
        is_cancelled_by_the_server(&d, protocol);
    }
}

fn is_cancelled_by_the_server(d: &Deployment, protocol: &str) {
    let client = to_primary(&sentinel_of(d, &[("protocol", protocol)]), &[]);
    ok(&client, "DEL q");
    let primary = d.primary_node(SERVICE);
    let (call, pops) = (Arc::new(CallHandle::default()), primary.calls("client|unblock"));
    let popping = start(&call, &client, "BLPOP q 0");
    eventually("it blocks", SOON, || blocked(&primary) == 1);
    call.cancel();
    let error = fails(Status::Cancelled, join(&popping));
    assert!(!error.has(flags::MAYBE_EXECUTED) && error.message().contains("has taken nothing"), "{error}");
    assert_eq!((blocked(&primary), primary.calls("client|unblock") - pops), (0, 1));
    ok(&client, "RPUSH q 1");
    assert_eq!(ok(&client, "LLEN q"), "1", "nobody takes it any more");
    // CLIENT UNBLOCK may come late, so no other blocking command gets that connection.
    let listed = || primary.cmd(&["CLIENT", "LIST"]).text();
    eventually("its connection is closed", SOON, || !listed().contains("cmd=blpop"));
}

/// In a session too: its connection goes on.
#[test]
fn a_blocking_command_of_a_session_is_cancelled_by_the_server() {
    let d = single("call-session");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let session = client.session(None).expect("a session");
    let primary = d.primary_node(SERVICE);
    let own = number(&session, "CLIENT ID");
    let call = Arc::new(CallHandle::default());
    let popping = start(&call, &session, "BLPOP q 0");
    eventually("it blocks", SOON, || blocked(&primary) == 1);
    call.cancel();
    let error = fails(Status::Cancelled, join(&popping));
    assert!(error.message().contains("has taken nothing"), "{error}");
    assert_eq!(number(&session, "CLIENT ID"), own);
}

/// An element that is taken in the moment of the cancellation is delivered, or it stays in the list.
#[test]
fn no_element_is_lost_by_a_cancellation() {
    let d = single("call-race");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let primary = d.primary_node(SERVICE);
    let (mut taken, mut left) = (0, 0);
    for round in 0..60u64 {
        let call = Arc::new(CallHandle::default());
        let popping = start(&call, &client, "BLPOP q 0");
        eventually("it blocks", SOON, || blocked(&primary) == 1);
        let pushing = {
            let client = client.clone();
            spawn(move || number(&client, "RPUSH q x"))
        };
        // The two meet in all orders.
        (0..round % 20 * 1000).for_each(|_| std::hint::spin_loop());
        call.cancel();
        match join(&popping) {
            Ok(reply) => {
                assert_eq!(json(&reply), r#"["q","x"]"#);
                taken += 1;
            }
            Err(error) => {
                assert_eq!((error.status(), error.has(flags::MAYBE_EXECUTED)), (Status::Cancelled, false), "{error}");
            }
        }
        join(&pushing);
        left += number(&client, "LLEN q");
        ok(&client, "DEL q");
    }
    assert_eq!(taken + left, 60);
}

#[test]
fn another_command_is_cancelled_at_once_and_says_whether_it_may_have_run() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    ok(&client, "SET k v");
    s.p.fault("INCR", Fault::Stall);
    let call = Arc::new(CallHandle::default());
    let counting = start(&call, &client, "INCR n");
    s.p.wait_count("INCR n", 1, SOON);
    // A handle has one call at a time.
    fails(Status::InvalidState, exec(&call, &client, "GET k", Timeout::Default));
    fails(Status::InvalidState, call.wait());
    call.cancel();
    let error = fails(Status::Cancelled, join(&counting));
    assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
}

/// Without RESP3 the server gives its connections no number: the connection is closed.
#[test]
fn a_blocking_command_that_cannot_be_ended_by_the_server_ends_all_the_same() {
    if lacks(Feature::SubCommands) {
        return;
    }
    let d = single("call-cut");
    let primary = d.primary_node(SERVICE);
    let said = primary.cmd(&["ACL", "SETUSER", "default", "-client|unblock"]);
    assert_eq!(said.text(), "OK");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let call = Arc::new(CallHandle::default());
    let popping = start(&call, &client, "BLPOP q 0");
    eventually("it blocks", SOON, || blocked(&primary) == 1);
    call.cancel();
    let error = fails(Status::Cancelled, join(&popping));
    assert!(error.has(flags::MAYBE_EXECUTED), "{error}");
    eventually("its connection is closed", SOON, || blocked(&primary) == 0);
}

/// The deadline is that of the call, however it is waited for.
#[test]
fn a_call_ends_at_its_deadline() {
    let s = stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    ok(&client, "SET k v");
    s.p.fault("GET", Fault::Stall);
    let call = CallHandle::default();
    fails(Status::Timeout, exec(&call, &client, "GET k", Timeout::Ms(60)));
    s.p.clear_faults();
    eventually("the handle is of use again", SOON, || exec(&call, &client, "GET k", Timeout::Ms(200)).is_ok());
}
