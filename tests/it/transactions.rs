//! Transactions: VIGIE_CALL_ATOMIC on real servers, what is refused before anything runs, and WATCH across failovers (rule 11,
//! scenario 62).

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use calls::*;
use completions::{EACH, queue};
use support::*;
use vigie::client::{CallFlags, Client, Target, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::kind;
use vigie::resp::Reply;

const ATOMIC: u32 = CallFlags::ATOMIC;
const NO_RETRY: u32 = CallFlags::NO_RETRY;
const SOON: Duration = Duration::from_secs(20);

/// VIGIE_CALL_REPLICAS of the header.
const fn replicas(n: u32) -> u32 {
    n << 24
}

/// How a list is run: with a thread that waits, or without.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Exec,
    Submit,
}

const WAYS: [Way; 2] = [Way::Exec, Way::Submit];

fn run_by(way: Way, client: &Client, lines: &[&str], flags: u32, timeout: Timeout) -> Result<Reply> {
    let (list, flags) = (list(lines), CallFlags::from_bits(flags).expect("known flags"));
    match way {
        Way::Exec => client.cmds_exec(&list, flags, timeout),
        Way::Submit => {
            let queue = queue(4);
            client.cmds_submit(&list, flags, timeout, &queue, 7)?;
            completions::one(&queue).1
        }
    }
}

fn atomic_by(way: Way, client: &Client, lines: &[&str]) -> Result<Reply> {
    run_by(way, client, lines, ATOMIC, Timeout::Default)
}

fn atomic(client: &Client, lines: &[&str]) -> Result<Reply> {
    atomic_by(Way::Exec, client, lines)
}

fn results(outcome: Result<Reply>) -> String {
    json(&outcome.unwrap_or_else(|error| panic!("{:?} {error}", error.status())))
}

/// What an error carries.
fn carried(error: &Error) -> String {
    error.reply().map(json).unwrap_or_default()
}

#[test]
fn row_94_a_list_is_one_transaction_and_its_results_are_one_array() {
    let d = single("atomic");
    let (sentinel, node) = (sentinel_of(&d, &[]), d.primary_node(SERVICE));
    for (turn, way) in WAYS.into_iter().enumerate() {
        let client = to_primary(&sentinel, &[]);
        let (multi, discard) = (node.calls("multi"), node.calls("discard"));
        assert_eq!(results(atomic_by(way, &client, &["SET k v", "GET k", "GET none"])), r#"["OK","v",null]"#);
        assert_eq!((node.calls("multi"), node.calls("discard")), (multi + 2, discard + 1), "the connection was asked");
        assert_eq!(results(atomic_by(way, &client, &["INCR n"])), format!("[{}]", turn + 1), "one command is a list");
        assert_eq!((node.calls("multi"), node.calls("discard")), (multi + 3, discard + 1), "and is asked once");
        // An error of a single command is its result; the others ran.
        let mixed = atomic_by(way, &client, &["SET text x", "LPUSH text y", "GET text"]);
        let mixed = mixed.expect("the transaction ran");
        assert_eq!((mixed.count(0), mixed.bytes(3)), (3, Some(&b"x"[..])), "{}", json(&mixed));
        assert!(mixed.error_line(2).is_some_and(|line| line.starts_with(b"WRONGTYPE")));
        // A command that the server does not take in: nothing ran.
        let error = fails(Status::Server, atomic_by(way, &client, &["SET text y", "NO.SUCH a", "SET text z"]));
        assert_eq!((error.server_code(), error.flags(), error.endpoint()), ("EXECABORT", 0, node.addr().as_str()));
        assert!(error.message().contains("NO.SUCH (command 2 of 3) was refused: ERR unknown command"), "{error}");
        assert!(carried(&error).starts_with(r#"["QUEUED",{"error":"ERR unknown command"#), "{}", carried(&error));
        assert_eq!(ok(&client, "GET text"), "x");
        // Inside a transaction nothing blocks, and nothing needs a connection of its own.
        let opened = node.client_list().len();
        assert_eq!(results(atomic_by(way, &client, &["BLPOP q 0", "WAIT 0 0"])), "[null,0]");
        assert_eq!(node.client_list().len(), opened);
    }
}

/// Three transactions at a time through a pool that has room for one shared connection, beside ordinary calls on it.
#[test]
fn row_94_transactions_of_many_threads_share_a_connection_and_do_not_mix() {
    let d = single("atomic-threads");
    let client = to_primary(&sentinel_of(&d, &[]), &[("pool.max", "2"), ("lane.max", "1")]);
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let client = Arc::clone(&client);
            spawn(move || {
                for turn in 0..100 {
                    let way = WAYS[(number + turn) % 2];
                    let reply = atomic_by(way, &client, &["INCR a", "ECHO between", "INCR b"]).expect("it runs");
                    assert_eq!(reply.int(1), reply.int(3), "nobody comes between: {}", json(&reply));
                    let echo = format!("{number}:{turn}");
                    assert_eq!(ok(&client, &format!("ECHO {echo}")), echo, "replies stay with their calls");
                }
            })
        })
        .collect();
    threads.iter().for_each(join);
    assert_eq!((ok(&client, "GET a"), ok(&client, "GET b")), ("600".into(), "600".into()));
}

#[test]
fn what_cannot_be_part_of_a_transaction_is_refused_before_anything_is_sent() {
    let node = Scripted::primary();
    let watch = told(&node.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    let own = client.session(None).expect("a session");
    for line in [
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH k",
        "UNWATCH",
        "SELECT 1",
        "AUTH x",
        "HELLO 3",
        "RESET",
        "QUIT",
        "MONITOR",
        "SUBSCRIBE c",
        "CLIENT SETNAME x",
        "CLIENT REPLY OFF",
        "SCAN 0",
        "HSCAN h 0",
    ] {
        for (way, client) in [(Way::Exec, &client), (Way::Submit, &client), (Way::Exec, &own)] {
            let error = fails(Status::InvalidArg, atomic_by(way, client, &["GET k", line]));
            let name = line.split(' ').next().expect("a name");
            assert!(error.message().contains(name) && error.message().contains("(command 2 of 2)"), "{line}: {error}");
            assert!(error.flags() == 0 && error.message().contains("VIGIE_CALL_ATOMIC"), "{line}: {error}");
        }
    }
    for (flags, lines) in
        [(ATOMIC | EACH, &["INCR n"][..]), (ATOMIC | CallFlags::IDEMPOTENT, &["INCR n"]), (ATOMIC, &[])]
    {
        for way in WAYS {
            fails(Status::InvalidArg, run_by(way, &client, lines, flags, Timeout::Default));
        }
    }
    fails(Status::InvalidArg, call(&client, "INCR n", ATOMIC, Timeout::Default));
    assert_eq!(node.accepted(), 0, "not even a connection was made");
}

/// A user without MULTI, and servers on which it has another name.
#[test]
fn where_multi_is_refused_nothing_runs() {
    let user = &[("auth.username", "app"), ("auth.password", "app")][..];
    for (name, conf, options) in [
        ("no-multi", "user app on >app ~* &* +@all -multi", user),
        ("no-discard", "user app on >app ~* &* +@all -discard", user),
        ("renamed", "rename-command MULTI \"\"", &[]),
    ] {
        let d = Deployment::new(name).replicas(0).sentinels(1).quorum(1).conf(conf).start();
        let client = to_primary(&sentinel_of(&d, options), &[]);
        let own = client.session(None).expect("a session");
        let large = "x".repeat(80 * 1024);
        for (way, client, lines, flags) in [
            (Way::Exec, &client, &["INCR n", "INCR n"][..], 0),
            (Way::Submit, &client, &["INCR n"], 0),
            (Way::Exec, &client, &["INCR n"], replicas(1)),
            (Way::Submit, &client, &["INCR n"], replicas(1)),
            (Way::Exec, &client, &["INCR n", &format!("SET large {large}")], 0),
            (Way::Exec, &own, &["INCR n"], 0),
        ] {
            let error = fails(Status::Unsupported, run_by(way, client, lines, ATOMIC | flags, Timeout::Default));
            assert_eq!(error.flags(), 0, "{name}, {way:?}: {error}");
            assert!(error.message().contains("nothing was sent") && !error.server_code().is_empty(), "{name}: {error}");
        }
        let error = fails(Status::Unsupported, {
            cmd(&own, "WATCH n").expect("it watches all the same");
            atomic(&own, &["INCR n"])
        });
        assert!(error.message().contains("nothing was sent"), "{error}");
        assert_eq!((ok(&client, "EXISTS n"), d.primary_node(SERVICE).calls("incr")), ("0".into(), 0), "{name}");
    }
}

#[test]
fn a_permission_that_is_taken_away_meanwhile_is_told_with_what_ran() {
    let d = Deployment::new("revoked").replicas(0).sentinels(1).quorum(1).conf("user app on >app ~* &* +@all").start();
    let node = d.primary_node(SERVICE);
    let client = to_primary(&sentinel_of(&d, &[("auth.username", "app"), ("auth.password", "app")]), &[]);
    let own = client.session(None).expect("a session");
    for (way, client) in [(Way::Exec, &client), (Way::Submit, &client), (Way::Exec, &own)] {
        let may = |rule: &str| assert!(node.cmd(&["ACL", "SETUSER", "app", rule]).is_ok());
        ok(client, "DEL n");
        assert_eq!(results(atomic_by(way, client, &["INCR n"])), "[1]");
        may("-multi");
        let error = fails(Status::Unsupported, atomic_by(way, client, &["INCR n", "LPUSH n x"]));
        assert_eq!((error.flags(), error.server_code()), (flags::MAYBE_EXECUTED, "NOPERM"), "{error}");
        assert!(carried(&error).starts_with(r#"[2,{"error":"WRONGTYPE"#), "{}", carried(&error));
        assert!(error.message().contains("ran one by one"), "{error}");
        may("+multi");
        // Without EXEC the transaction would stay open on a connection that others share.
        may("-exec");
        let error = fails(Status::Server, atomic_by(way, client, &["INCR n", "INCR n"]));
        assert_eq!((error.flags(), error.server_code()), (0, "EXECABORT"), "{error}");
        assert!(error.message().contains("because of: NOPERM"), "{error}");
        may("+exec");
        assert_eq!(ok(client, "GET n"), "2", "the next call is answered, and not queued");
        assert_eq!(results(atomic_by(way, client, &["INCR n"])), "[3]");
    }
}

#[test]
fn rule_11_a_transaction_whose_reply_is_lost_is_not_sent_again() {
    let d = Deployment::new("lost-atomic").replicas(0).sentinels(0).start();
    let node = d.node("mymaster-0");
    let proxy = Proxy::start(&node.addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    let mut done = 0;
    for way in WAYS {
        assert_eq!(results(atomic_by(way, &client, &["INCR n"])), format!("[{}]", done + 1));
        done += 1;
        for lines in [&["INCR n"][..], &["INCR n", "GET n"]] {
            proxy.trap("EXEC", Trap::LoseReply);
            let error = fails(Status::Io, atomic_by(way, &client, lines));
            assert_eq!(error.flags(), flags::MAYBE_EXECUTED, "{error}");
            done += 1;
            assert_eq!((ok(&client, "GET n"), proxy.traps_left()), (done.to_string(), 0), "executed once");
        }
        // Not even one that only reads.
        proxy.trap("EXEC", Trap::LoseReply);
        let execs = node.calls("exec");
        fails(Status::Io, atomic_by(way, &client, &["GET n"]));
        assert_eq!((node.calls("exec"), proxy.traps_left()), (execs + 1, 0));
        // The question may be lost and asked again: nothing of the transaction was sent.
        proxy.trap("DISCARD", Trap::LoseReply);
        assert_eq!(results(atomic_by(way, &client, &["INCR n"])), format!("[{}]", done + 1));
        (done, _) = (done + 1, assert_eq!(proxy.traps_left(), 0));
    }
}

/// The Sentinels have switched, and the client has not heard of it: its connections to the former primary live on.
#[test]
fn row_70_readonly_inside_exec_moves_the_pool_and_the_transaction_runs_whole_on_the_new_primary() {
    let d = Deployment::new("atomic-moves").replicas(1).sentinels(0).start();
    let (mut from, mut to) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let watch = told(&from.addr(), &[]);
    let client = to_primary(&handle(&watch, &[("monitor", "off")]), &[]);
    for (way, flags) in [(Way::Exec, 0), (Way::Submit, 0), (Way::Exec, NO_RETRY)] {
        assert_eq!(results(atomic_by(way, &client, &["DEL a b"])).len(), 3, "the connection is open, and asked");
        assert!(to.cmd(&["REPLICAOF", "NO", "ONE"]).is_ok());
        assert!(from.cmd(&["REPLICAOF", to.host(), &to.port().to_string()]).is_ok());
        watch.service(SERVICE, |state| state.switch_to(&to.addr()));
        let discarded = from.info("errorstats").get("errorstat_EXECABORT").cloned();
        let known: u64 = discarded.map_or(0, |count| count.trim_start_matches("count=").parse().expect("a number"));
        let outcome = run_by(way, &client, &["INCR a", "EVAL return{1} 0", "INCR b"], ATOMIC | flags, Timeout::Default);
        match flags {
            0 => assert_eq!(results(outcome), "[1,[1],1]"),
            _ => {
                let error = fails(Status::Server, outcome);
                assert_eq!((error.server_code(), error.flags()), ("READONLY", flags::RETRYABLE), "{error}");
                assert_eq!(results(atomic(&client, &["INCR a", "INCR b"])), "[1,1]", "the pool has moved");
            }
        }
        let discarded = from.info("errorstats")["errorstat_EXECABORT"].clone();
        assert_eq!(discarded, format!("count={}", known + 1), "refused once, not again and again");
        assert_eq!(to.cmd(&["GET", "a"]).text(), "1");
        d.await_link(&from);
        std::mem::swap(&mut from, &mut to);
    }
}

#[test]
fn rule_17_the_replicas_are_waited_for_behind_exec() {
    let d = Deployment::new("atomic-durable").start();
    let (sentinel, primary) = (sentinel_of(&d, &[]), d.primary_node(SERVICE));
    let (plain, durable) = (to_primary(&sentinel, &[]), to_primary(&sentinel, &[("write.replicas", "all")]));
    call(&plain, "SET streaming yes", replicas(2), Timeout::Default).expect("both replicas are there");
    let mut n = 0;
    for way in WAYS {
        for (client, flags) in [(&plain, ATOMIC | replicas(2)), (&durable, ATOMIC)] {
            let waits = primary.calls("wait");
            let outcome = run_by(way, client, &["INCR n", "GET n"], flags, Timeout::Default);
            n += 1;
            assert_eq!((results(outcome), primary.calls("wait")), (format!("[{n},\"{n}\"]"), waits + 1));
        }
        let error = fails(
            Status::Replicas,
            run_by(way, &plain, &["INCR n", "LPUSH n x"], ATOMIC | replicas(9), Timeout::Ms(400)),
        );
        n += 1;
        assert_eq!((error.count(), error.flags()), (2, 0), "{error}");
        assert!(carried(&error).starts_with(&format!("[{n},{{\"error\":\"WRONGTYPE")), "{}", carried(&error));
        // What did not run needs no replicas.
        let outcome = run_by(way, &plain, &["INCR n", "NO.SUCH"], ATOMIC | replicas(9), Timeout::Ms(400));
        assert_eq!(fails(Status::Server, outcome).server_code(), "EXECABORT");
        assert_eq!(number(&plain, "GET n"), n, "and nothing is repeated");
    }
}

#[test]
fn a_transaction_in_a_session_is_aborted_by_a_change_of_a_watched_key() {
    let d = single("atomic-watch");
    let client = to_primary(&sentinel_of(&d, &[]), &[]);
    for _ in 0..2 {
        // The second time on the connection that the first one has given back.
        let own = client.session(None).expect("a session");
        ok(&client, "SET k 1");
        ok(&own, "WATCH k");
        ok(&client, "SET k 2");
        let error = fails(Status::TxnAborted, atomic(&own, &["SET k 3", "GET k"]));
        assert!(error.flags() == flags::RETRYABLE && error.message().contains("a watched key was changed"), "{error}");
        assert_eq!((ok(&client, "GET k"), error.endpoint()), ("2".into(), d.primary(SERVICE).as_str()));
        // The same session begins anew.
        assert_eq!((ok(&own, "WATCH k"), ok(&own, "GET k")), ("OK".into(), "2".into()));
        assert_eq!(results(atomic(&own, &["INCR k", "GET k"])), r#"[3,"3"]"#);
        // EXEC has ended the watch.
        ok(&client, "SET k 9");
        assert_eq!(results(atomic(&own, &["INCR k"])), "[10]");
        ok(&own, "MULTI");
        let error = fails(Status::InvalidState, atomic(&own, &["INCR k"]));
        assert!(error.message().contains("DISCARD"), "{error}");
        ok(&own, "DISCARD");
        assert_eq!(results(atomic(&own, &["INCR k"])), "[11]");
        let few = run_by(Way::Exec, &own, &["INCR k"], ATOMIC | replicas(1), Timeout::Ms(300));
        assert_eq!((fails(Status::Replicas, few).count(), ok(&own, "GET k")), (0, "12".into()));
    }
}

/// A transaction that only reads may go to a replica; one that writes is refused there.
#[test]
fn a_transaction_goes_where_its_commands_may_go() {
    let d = Deployment::new("atomic-split").replicas(1).sentinels(1).quorum(1).start();
    let sentinel = sentinel_of(&d, &[]);
    let (primary, replica) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE).remove(0));
    let (split, reader) = (open(&sentinel, Target::Split, &[]), to_replicas(&sentinel, &[]));
    for way in WAYS {
        let execs = (primary.calls("exec"), replica.calls("exec"));
        assert_eq!(results(atomic_by(way, &split, &["GET none", "EXISTS none"])), "[null,0]");
        assert_eq!((primary.calls("exec"), replica.calls("exec")), (execs.0, execs.1 + 1));
        assert_eq!(results(atomic_by(way, &split, &["SET k v", "GET k"])), r#"["OK","v"]"#);
        assert_eq!(primary.calls("exec"), execs.0 + 1);
        let on_primary = run_by(way, &split, &["GET k"], ATOMIC | CallFlags::ON_PRIMARY, Timeout::Default);
        assert_eq!((results(on_primary), primary.calls("exec")), (r#"["v"]"#.into(), execs.0 + 2));
        let error = fails(Status::ReadOnly, atomic_by(way, &reader, &["GET k", "SET k w"]));
        assert!(error.message().contains("SET (command 2 of 2) writes"), "{error}");
    }
}

fn session(client: &Arc<Client>) -> Arc<Client> {
    client.session(None).expect("a session")
}

/// Adds one to a counter: WATCH, GET, and a transaction. How often it succeeded, and how often that is not known.
struct Increments {
    done: AtomicI64,
    maybe: AtomicI64,
    aborted: AtomicI64,
}

impl Increments {
    /// One attempt in a session of its own. `by_hand`: with MULTI and EXEC in place of VIGIE_CALL_ATOMIC.
    fn once(&self, client: &Arc<Client>, by_hand: bool) {
        let own = session(client);
        let attempt = || -> Result<()> {
            cmd(&own, "WATCH n")?;
            let next = 1 + cmd(&own, "GET n")?.int(0).unwrap_or(0);
            let set = format!("SET n {next}");
            if by_hand {
                cmd(&own, "MULTI")?;
                cmd(&own, &set)?;
                cmd(&own, "EXEC").map(drop)
            } else {
                atomic(&own, &[&set, "INCR checks"]).map(drop)
            }
        };
        match attempt() {
            Ok(()) => self.done.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.has(flags::MAYBE_EXECUTED) || error.status() == Status::Replicas => {
                self.maybe.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) if error.status() == Status::TxnAborted => self.aborted.fetch_add(1, Ordering::Relaxed),
            // The session was lost before its EXEC, or had no time: nothing of it ran.
            Err(_) => 0,
        };
    }
}

/// Scenario 62 with real failovers: no two transactions read the same value and both succeed, and none succeeds on a node that is not
/// the primary any more.
#[test]
fn scenario_62_a_watch_never_outlives_a_failover() {
    let d = Deployment::new("scenario-62").start();
    // A Sentinel promotes a replica that has not read its last writes; those that count as done are on both.
    let client = to_primary(&sentinel_of(&d, &[("timeout.call", "15000")]), &[("write.replicas", "2")]);
    let (over, counts) = (
        AtomicBool::new(false),
        Increments { done: AtomicI64::new(0), maybe: AtomicI64::new(0), aborted: AtomicI64::new(0) },
    );
    // Both forms begin before the failover and end after it.
    let (held, by_hand) = (session(&client), session(&client));
    ok(&client, "SET kept before");
    for own in [&held, &by_hand] {
        assert_eq!((ok(own, "WATCH kept"), ok(own, "GET kept")), ("OK".into(), "before".into()));
    }
    ok(&by_hand, "MULTI");
    ok(&by_hand, "SET kept wrong");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (client, over, counts) = (&client, &over, &counts);
            scope.spawn(move || {
                let mut turn = number;
                while !over.load(Ordering::Acquire) {
                    counts.once(client, turn % 2 == 0);
                    turn += 1;
                }
            });
        }
        let old = d.failover(SERVICE);
        d.wait_switched(SERVICE, &old);
        let switched = counts.done.load(Ordering::Relaxed);
        eventually("transactions run on the new primary", SOON, || counts.done.load(Ordering::Relaxed) > switched + 20);
        over.store(true, Ordering::Release);
    });
    let (done, maybe) = (counts.done.into_inner(), counts.maybe.into_inner());
    let counted = number(&client, "GET n");
    assert!(done <= counted && counted <= done + maybe, "{done} done, {maybe} maybe, and {counted} were counted");
    assert!(counts.aborted.into_inner() > 0, "threads have met each other, or the failover");
    // What was begun before the failover is aborted, though no key was changed; nothing of it is on any node.
    for outcome in [atomic(&held, &["SET kept wrong"]), cmd(&by_hand, "EXEC")] {
        let error = fails(Status::TxnAborted, outcome);
        assert_eq!(error.flags(), flags::FAILOVER, "{error:?}");
        assert!(error.message().contains("new session"), "{error}");
    }
    assert_eq!(ok(&client, "GET kept"), "before");
    // A new session begins anew.
    let own = session(&client);
    ok(&own, "WATCH kept");
    assert_eq!(results(atomic(&own, &["SET kept after", "GET kept"])), r#"["OK","after"]"#);
}

/// The connection to the former primary lives on, and that server would still take writes.
#[test]
fn scenario_62_what_was_begun_before_a_candidate_took_over_is_aborted_on_a_living_connection_too() {
    let s = stage::stage(1, &[]);
    let client = to_primary(&s.sentinel, &[]);
    for (command, answer) in [
        ("WATCH", Value::ok()),
        ("MULTI", Value::ok()),
        ("DISCARD", Value::ok()),
        ("EXEC", Value::Array(vec![Value::ok()])),
    ] {
        s.p.fault(command, Fault::Reply(answer));
    }
    s.listened();
    let (by_hand, held, plain) = (session(&client), session(&client), session(&client));
    [&by_hand, &held].iter().for_each(|own| assert_eq!(ok(own, "WATCH k"), "OK"));
    assert_eq!((ok(&by_hand, "MULTI"), ok(&plain, "SET k v")), ("OK".into(), "OK".into()));
    let (service, connections) = (s.service(), s.p.connections());
    let before = service.failover_seq();
    s.begin(0);
    s.told.wait_fence(true, "+try-failover");
    s.select(0);
    s.promote();
    eventually("the candidate has said that it is a primary", SOON, || service.failover_seq() != before);
    // The failover is called off; nobody was cut off, and no topology was published.
    s.r.state(|state| state.role = FakeRole::replica_of(&s.p.addr()));
    s.abort(0, "not-elected");
    s.told.wait("writes go on", SOON, |told| told.is(kind::FENCE, &[("on", "0")]));
    let execs = s.p.count("EXEC");
    for outcome in [cmd(&by_hand, "EXEC"), atomic(&held, &["SET k w"])] {
        let error = fails(Status::TxnAborted, outcome);
        assert_eq!(error.flags(), flags::FAILOVER, "{error:?}");
        assert!(error.message().contains("has taken over from"), "{error}");
    }
    assert_eq!((s.p.count("EXEC"), s.r.count("EXEC")), (execs, 0), "it was sent to no node");
    // A session without a transaction goes on.
    assert_eq!((ok(&plain, "GET k"), s.p.connections() <= connections), ("v".into(), true));
}
