//! Sessions: one connection for WATCH, MULTI, SELECT and blocking commands; what its loss means; no other caller
//! inherits its state.

use crate::calls;
use crate::support;

use std::sync::Arc;
use std::time::Duration;

use calls::*;
use support::*;
use vigie::client::{Client, Target, Timeout, close_all};
use vigie::error::{Status, flags};
use vigie::resp::Kind;

const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);

fn session(client: &Arc<Client>) -> Arc<Client> {
    client.session(None).expect("a session")
}

/// CLIENT KILL for the connection of a session.
fn kill(node: &Node, id: i64) {
    assert_eq!(node.cmd(&["CLIENT", "KILL", "ID", &id.to_string()]).int(), Some(1));
}

#[test]
fn a_transaction_with_watch() {
    let d = single("transaction");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let own = session(&client);
    ok(&client, "SET k 1");
    assert_eq!(ok(&own, "WATCH k"), "OK");
    assert_eq!(ok(&own, "GET k"), "1");
    assert_eq!(ok(&own, "MULTI"), "OK");
    let queued = cmd(&own, "INCR k").expect("it is queued");
    assert_eq!((queued.kind(0), text(&queued).as_str()), (Kind::Status, "QUEUED"));
    assert_eq!(ok(&client, "GET k"), "1", "not yet");
    assert_eq!(json(&cmd(&own, "EXEC").expect("EXEC runs")), "[2]");
    // The key was changed meanwhile: EXEC answers null, which is a separate error.
    ok(&own, "WATCH k");
    ok(&client, "SET k 7");
    ok(&own, "MULTI");
    ok(&own, "INCR k");
    let error = fails(Status::TxnAborted, cmd(&own, "EXEC"));
    assert!(!error.has(flags::MAYBE_EXECUTED) && error.endpoint() == d.primary(SERVICE), "{error}");
    assert_eq!(ok(&client, "GET k"), "7");
    // The same as one list: the error is the same, and has the other replies.
    let lines = ["WATCH k", "MULTI", "INCR k", "EXEC"];
    assert_eq!(json(&run(&own, &lines).expect("a list")), r#"["OK","OK","QUEUED",[8]]"#);
    ok(&own, "WATCH k");
    ok(&client, "SET k 0");
    let error = fails(Status::TxnAborted, run(&own, &["ECHO x", "MULTI", "INCR k", "EXEC", "GET k"]));
    assert_eq!(error.reply().map(json).as_deref(), Some(r#"["x","OK","QUEUED",null,"0"]"#));
    assert!(!error.has(flags::MAYBE_EXECUTED) && error.endpoint() == d.primary(SERVICE), "{error}");
    // A null of another command is a value.
    assert_eq!(
        json(&run(&own, &["MULTI", "GET none", "EXEC", "GET none"]).expect("it ran")),
        r#"["OK","QUEUED",[null],null]"#
    );
    // Refused while queueing.
    ok(&own, "MULTI");
    assert_eq!(fails(Status::Server, cmd(&own, "NO.SUCH")).server_code(), "ERR");
    assert_eq!(fails(Status::Server, cmd(&own, "EXEC")).server_code(), "EXECABORT");
    ok(&own, "MULTI");
    ok(&own, "DISCARD");
    assert_eq!(ok(&own, "GET k"), "0", "the session goes on");
}

#[test]
fn state_is_refused_on_shared_connections_and_names_the_session() {
    let d = single("refused");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    for line in ["MULTI", "EXEC", "WATCH k", "SELECT 1", "CLIENT SETNAME x", "AUTH x", "HELLO 3", "RESET", "QUIT"] {
        let error = fails(Status::Unsupported, cmd(&client, line));
        let remedy = if line == "QUIT" { "vigie_client_disconnect" } else { "vigie_session_for" };
        assert!(error.message().contains(remedy), "{line}: {error}");
        fails(Status::Unsupported, run(&client, &["GET k", line]));
    }
    let own = session(&client);
    for line in ["SUBSCRIBE c", "PSUBSCRIBE c", "MONITOR", "CLIENT REPLY OFF", "SYNC"] {
        fails(Status::Unsupported, cmd(&client, line));
        fails(Status::Unsupported, cmd(&own, line));
    }
    fails(Status::Unsupported, run(&client, &["GET k", "BLPOP k 1"]));
    // A whole transaction as one list is refused too, and nothing of it is sent.
    for lines in [&["MULTI", "SET k w", "EXEC"][..], &["SET k w", "MULTI", "SET k x", "EXEC"]] {
        let error = fails(Status::Unsupported, run(&client, lines));
        assert!(error.message().contains("MULTI") && error.message().contains("vigie_session_for"), "{error}");
        assert!(!error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
    }
    assert_eq!(ok(&client, "EXISTS k"), "0");
    fails(Status::InvalidState, own.session(None));
    assert_eq!(ok(&own, "PING"), "PONG");
}

#[test]
fn databases_of_sessions() {
    let d = single("databases");
    let client = to_primary(&sentinel_of(&d, &[]), &[("db", "1")]);
    ok(&client, "SET where one");
    let own = session(&client);
    assert_eq!(ok(&own, "GET where"), "one");
    ok(&own, "SELECT 2");
    ok(&own, "SET where two");
    assert_eq!((ok(&client, "GET where"), ok(&own, "GET where")), ("one".into(), "two".into()));
    own.disconnect().expect("given back");
    assert_eq!(ok(&own, "GET where"), "one", "a new connection, in the client's database");
    // A database by option.
    let three = client.session(Some(&config(&[("db", "2")]))).expect("db may be overridden");
    assert_eq!(ok(&three, "GET where"), "two");
    let id = client_id(&three);
    drop(three);
    let next = session(&client);
    assert_eq!(ok(&next, "GET where"), "one", "nobody inherits it");
    assert_ne!(client_id(&next), id);
    let far = client.session(Some(&config(&[("db", "99")]))).expect("the server knows how many there are");
    let error = fails(Status::Config, cmd(&far, "PING"));
    for part in ["a session for service 'mymaster'", "db=99", "DB index", "choose a database"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let error = client.session(Some(&config(&[("client.name", "x")]))).err().expect("not for sessions");
    assert_eq!(error.status(), Status::Config);
}

#[test]
fn a_lost_connection_aborts_the_transaction() {
    let d = single("lost");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let own = session(&client);
    ok(&own, "WATCH k");
    ok(&own, "MULTI");
    ok(&own, "INCR k");
    kill(&node, own_id(&node));
    let error = fails(Status::TxnAborted, cmd(&own, "EXEC"));
    assert!(!error.has(flags::MAYBE_EXECUTED), "{error}");
    assert!(error.message().contains("new session") && error.message().contains("transaction anew"), "{error}");
    // From here on nothing can succeed on it: nothing is RETRYABLE, and a list gets the same error as a single command.
    for lines in [&["EXEC"][..], &["MULTI", "INCR k", "EXEC"], &["ECHO x", "EXEC"]] {
        let outcome = if lines.len() == 1 { cmd(&own, lines[0]) } else { run(&own, lines) };
        let error = fails(Status::TxnAborted, outcome);
        assert!(error.flags() == 0 && error.message().contains("transaction anew"), "{lines:?}: {error}");
    }
    for outcome in [cmd(&own, "GET k"), cmd(&own, "INCR k"), run(&own, &["GET k", "INCR k"])] {
        let error = fails(Status::Io, outcome);
        assert!(error.flags() == 0 && error.message().contains("lost"), "{error}");
        assert!(error.message().contains("make a new session"), "{error}");
    }
    assert_eq!((ok(&client, "EXISTS k"), node.calls("exec")), ("0".into(), 0), "it never ran");
    // It never moves by itself; on request it takes another connection.
    own.disconnect().expect("given back");
    assert_eq!(ok(&own, "INCR k"), "1");
    kill(&node, client_id(&own));
    fails(Status::Io, cmd(&own, "INCR k"));
    assert_eq!(ok(&client, "GET k"), "1");
}

/// The list notices first: WATCH was on the connection that is gone.
#[test]
fn a_transaction_as_a_list_is_aborted_as_a_single_exec_is() {
    let d = single("lost-list");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    for lines in [&["MULTI", "INCR k", "EXEC"][..], &["INCR k", "EXEC"]] {
        let own = session(&client);
        ok(&own, "WATCH k");
        let id = client_id(&own);
        if lines[0] != "MULTI" {
            ok(&own, "MULTI");
        }
        kill(&node, id);
        let error = fails(Status::TxnAborted, run(&own, lines));
        assert!(error.flags() == 0 && error.message().contains("transaction anew"), "{lines:?}: {error}");
    }
    assert_eq!((ok(&client, "EXISTS k"), node.calls("exec")), ("0".into(), 0), "none ran");
    let own = session(&client);
    kill(&node, client_id(&own));
    let error = fails(Status::Io, cmd(&own, "INCR k"));
    assert!(error.flags() == 0 && error.message().contains("make a new session"), "{error}");
}

/// The connection that is in a transaction.
fn own_id(node: &Node) -> i64 {
    let in_multi = |info: &node::ClientInfo| info.fields.get("multi").is_some_and(|multi| multi != "-1");
    node.client_list().iter().find(|info| in_multi(info)).map(|info| info.id as i64).expect("one is in a transaction")
}

#[test]
fn an_exec_whose_reply_is_lost_may_have_run() {
    let d = Deployment::new("lost-exec").replicas(0).sentinels(0).start();
    let proxy = Proxy::start(&d.node("mymaster-0").addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    for (trap, line, status) in [(Trap::LoseReply, "EXEC", Status::Io), (Trap::LoseReply, "INCR n", Status::Io)] {
        let own = session(&client);
        if line == "EXEC" {
            ok(&own, "MULTI");
            ok(&own, "INCR n");
        }
        proxy.trap(line.split(' ').next().expect("a name"), trap);
        let error = fails(status, cmd(&own, line));
        assert!(error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{line}: {error}");
    }
    assert_eq!(ok(&client, "GET n"), "2", "both did run, once");
}

#[test]
fn blocking_commands_in_a_session() {
    let d = single("blocking");
    let node = d.primary_node(SERVICE);
    let sentinel = sentinel_of(&d, &[("timeout.call", "400")]);
    let client = to_primary(&sentinel, &[]);
    let own = session(&client);
    let id = client_id(&own);
    let waits = {
        let own = own.clone();
        // Its own timeout is longer than timeout.call: the grace is for that.
        spawn(move || (text(&cmd(&own, "BLPOP queue 5").expect("somebody pushes")), client_id(&own)))
    };
    let blocked = || node.info("clients")["blocked_clients"].clone();
    eventually("it blocks", SOON, || blocked() == "1");
    ok(&client, "RPUSH queue job");
    assert_eq!(join(&waits), (r#"["queue","job"]"#.into(), id));
    let (reply, took) = timed(|| cmd(&own, "BLPOP queue 0.1").expect("null in time"));
    assert!(reply.kind(0) == Kind::Null && took >= Duration::from_millis(100), "{took:?}");
    // The call's own time ends first: the connection is useless then, and so is its place on the server.
    let outcome = takes_at_most("a budget of 100 ms", 150 * MS, || within(&own, "BLPOP queue 5", 100));
    let error = fails(Status::Timeout, outcome);
    assert!(error.has(flags::MAYBE_EXECUTED) && error.message().contains("nothing to answer yet"), "{error}");
    let service = sentinel.service(SERVICE);
    assert_eq!(service.suspicion(), None, "the server did nothing wrong");
    // The same without a session, for pops and for reads.
    for line in ["BLPOP queue 0", "BLPOP queue 5", "XREAD BLOCK 0 STREAMS s $"] {
        let error = fails(Status::Timeout, within(&client, line, 50));
        assert!(error.message().contains("nothing to answer yet"), "{line}: {error}");
        assert_eq!(service.suspicion(), None, "{line}");
    }
    eventually("nobody blocks", SOON, || blocked() == "0");
    ok(&client, "RPUSH queue kept");
    assert_eq!(ok(&client, "LLEN queue"), "1", "no dead caller took it");
    assert_eq!(ok(&client, "BLPOP queue 1"), r#"["queue","kept"]"#, "without a session, too");
    fails(Status::Server, cmd(&client, "BLPOP queue nonsense"));
}

#[test]
fn two_threads_on_one_session() {
    let d = single("two-threads");
    let client = to_primary(&sentinel_of(&d, &[]), &[("pool.max", "3")]);
    let own = session(&client);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let own = &own;
            scope.spawn(move || {
                for turn in 0..100 {
                    // A list is one unit: nothing comes between its commands.
                    let (set, get) = (format!("SET shared {thread}-{turn}"), "GET shared");
                    let reply = run(own, &["MULTI", &set, get, "EXEC"]).expect("a list");
                    assert!(json(&reply).ends_with(&format!(r#"["OK","{thread}-{turn}"]]"#)), "{}", json(&reply));
                    assert_eq!(ok(own, &format!("ECHO {thread}-{turn}")), format!("{thread}-{turn}"));
                }
            });
        }
    });
    let pool = primary_pool(&client);
    assert_eq!((pool.get("in_use"), pool.get("lanes")), (1, 0), "all on one connection");
    // The deadline of a second thread holds while the first one blocks.
    let waits = {
        let own = own.clone();
        spawn(move || cmd(&own, "BLPOP wake 40").map(|reply| reply.kind(0)))
    };
    eventually("it blocks", SOON, || d.primary_node(SERVICE).info("clients")["blocked_clients"] == "1");
    let outcome = takes_at_most("a budget of 150 ms", 200 * MS, || within(&own, "PING", 150));
    let error = fails(Status::Timeout, outcome);
    assert!(!error.has(flags::MAYBE_EXECUTED), "{error}");
    ok(&client, "RPUSH wake up");
    assert_eq!(join(&waits).expect("the pop ends"), Kind::Array);
    assert_eq!(ok(&own, "PING"), "PONG");
}

#[test]
fn a_session_is_closed_and_given_back_under_the_hands_of_another_thread() {
    let d = single("under-hands");
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let own = session(&client);
    let id = client_id(&own);
    let pop = |seconds: u32| {
        let own = own.clone();
        let waits = spawn(move || cmd(&own, &format!("BLPOP none {seconds}")).map(|reply| reply.kind(0)));
        eventually("it blocks", SOON, || node.info("clients")["blocked_clients"] == "1");
        waits
    };
    let waits = pop(1);
    takes_at_most("what does not wait", 100 * MS, || own.disconnect().expect("an open session"));
    assert_eq!(join(&waits).expect("the command under way ends by itself"), Kind::Null);
    assert_eq!(client_id(&own), id, "the connection was clean: it was given back, and taken again");
    let waits = pop(0);
    let close = || own.close(Timeout::Ms(20_000)).expect("closed");
    takes_at_most("the end of a blocking command", 100 * MS, close);
    fails(Status::Closed, join(&waits));
    fails(Status::Closed, cmd(&own, "PING"));
    assert_eq!(ok(&client, "PING"), "PONG");
    eventually("nobody blocks", SOON, || node.info("clients")["blocked_clients"] == "0");
    assert_eq!(primary_pool(&client).get("in_use"), 0);
}

#[test]
fn the_end_of_a_session_in_dirty_states() {
    let d = single("dirty-ends");
    let client = to_primary(&sentinel_of(&d, &[]), &[("pool.max", "3")]);
    type End = fn(Arc<Client>);
    let ends: [End; 3] = [
        |own| own.disconnect().expect("given back"),
        |own| own.close(Timeout::Default).expect("closed"),
        |own| drop(own),
    ];
    for end in ends {
        for dirt in ["MULTI", "WATCH k", "SELECT 4", "CLIENT SETNAME dirty"] {
            let own = session(&client);
            let id = client_id(&own);
            ok(&own, dirt);
            end(own);
            let next = session(&client);
            assert_ne!(client_id(&next), id, "{dirt}: it was closed");
            let info = ok(&next, "CLIENT INFO");
            assert!(info.contains(" db=0 ") && info.contains(" multi=-1 ") && !info.contains("name=dirty"), "{info}");
        }
    }
    // A session that lost its connection, and one that never had any.
    let own = session(&client);
    kill(&d.primary_node(SERVICE), client_id(&own));
    fails(Status::Io, cmd(&own, "PING"));
    drop(own);
    drop(session(&client));
    let closed = session(&client);
    closed.close(Timeout::Default).expect("closed before its first command");
    fails(Status::Closed, cmd(&closed, "PING"));
    let pool = primary_pool(&client);
    assert_eq!((pool.get("in_use"), pool.get("waiting")), (0, 0));
    assert!(pool.get("size") <= 3, "{pool:?}");
}

#[test]
fn the_end_of_its_client_is_the_end_of_a_session() {
    let d = single("parents");
    let sentinel = sentinel_of(&d, &[("client.name", "parents")]);
    let client = to_primary(&sentinel, &[]);
    let (own, idle) = (session(&client), session(&client));
    ok(&own, "WATCH k");
    client.close(Timeout::Ms(50)).expect("closed");
    fails(Status::Closed, cmd(&own, "GET k"));
    fails(Status::Closed, cmd(&idle, "GET k"));
    eventually("no connection is left", SOON, || named(&d.primary_node(SERVICE), "parents") == 0);
    // A client that is dropped first lives on in its session.
    let client = to_primary(&sentinel, &[]);
    let own = session(&client);
    drop(client);
    assert_eq!(ok(&own, "PING"), "PONG");
    close_all(&sentinel, Timeout::Ms(50)).expect("closed");
    fails(Status::Closed, cmd(&own, "PING"));
    eventually("no connection is left", SOON, || named(&d.primary_node(SERVICE), "parents") == 0);
}

#[test]
fn a_session_of_a_split_client_is_on_the_primary() {
    let d = Deployment::new("split-session").replicas(1).sentinels(1).quorum(1).start();
    let split = open(&sentinel_of(&d, &[]), Target::Split, &[]);
    let own = session(&split);
    ok(&own, "GET k");
    ok(&own, "SET k v");
    assert_eq!((d.primary_node(SERVICE).calls("get"), d.replica_nodes(SERVICE)[0].calls("get")), (1, 0));
    let reply = cmd(&own, "ROLE").expect("ROLE runs");
    assert_eq!(reply.child(0, 0).and_then(|id| reply.bytes(id)), Some(&b"master"[..]));
}

#[test]
fn a_session_waits_for_a_primary_and_never_moves() {
    let first = Scripted::primary();
    let second = Scripted::primary();
    let watch = told(&first.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    watch.service(SERVICE, |state| state.flags = "s_down,o_down,master".into());
    let own = session(&client);
    let waits = {
        let own = own.clone();
        spawn(move || number(&own, "INCR n"))
    };
    eventually("it looks for a primary", SOON, || watch.count("SENTINEL MASTER") > 2);
    watch.service(SERVICE, |state| state.flags = "master".into());
    assert_eq!(join(&waits), 1);
    watch.service(SERVICE, |state| state.switch_to(&second.addr()));
    first.state(|state| state.readonly = true);
    assert_eq!(fails(Status::Server, cmd(&own, "INCR n")).server_code(), "READONLY");
    first.down();
    fails(Status::Io, cmd(&own, "INCR n"));
    assert_eq!((second.count("INCR"), first.count("INCR")), (0, 2), "it did not move, nothing was repeated");
    own.disconnect().expect("given back");
    assert_eq!(number(&own, "INCR n"), 1, "now it is on the new primary");
}

/// Each call on the session, and the transaction, carries the flag of a failover.
#[test]
fn a_session_that_a_failover_ended_says_so_each_time() {
    let d = Deployment::new("session-failover").start();
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    let own = session(&client);
    ok(&own, "WATCH k");
    let old = d.failover(SERVICE);
    d.wait_switched(SERVICE, &old);
    ok(&client, "SET k v");
    for (line, status) in [("GET k", Status::Io), ("EXEC", Status::TxnAborted), ("SET k w", Status::Io)] {
        let error = fails(status, cmd(&own, line));
        assert_eq!(error.flags(), flags::FAILOVER, "{line}: {error:?}");
        assert!(error.message().contains("new session"), "{line}: {error}");
    }
    // The next session starts fresh: its connection is lost for another reason.
    own.disconnect().expect("given back");
    ok(&own, "GET k");
    kill(&d.primary_node(SERVICE), client_id(&own));
    assert_eq!(fails(Status::Io, cmd(&own, "GET k")).flags(), 0);
}
