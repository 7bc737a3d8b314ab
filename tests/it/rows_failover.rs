//! Feature rows 63 to 81: failovers.

use crate::calls;
use crate::moving;
use crate::stage;
use crate::support;
use crate::writer;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::*;
use stage::{SOON, Stage, Watch, at, stage};
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::{Status, flags};
use vigie::queue::kind;
use vigie::time::Deadline;
use vigie::topology::Sentinel;
use writer::Writer;

/// No poll happens during a test: everything comes from events, or from requests of the test.
const NO_POLLS: (&str, &str) = ("monitor.interval", "60000");

fn refresh(sentinel: &Arc<Sentinel>) {
    sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is known");
}

/// Waits for one of these nodes to say that it is a primary; the time when it did.
fn promotion(nodes: &[Arc<Node>]) -> (Arc<Node>, Instant) {
    eventually_some("a replica is promoted", Duration::from_secs(10), || {
        // The Sentinel that promotes a replica ends its connections: no answer means nothing.
        let says_master = |node: &&Arc<Node>| {
            node.try_cmd(&["ROLE"]).is_ok_and(|role| role.items().first().is_some_and(|word| word.text() == "master"))
        };
        let promoted = nodes.iter().find(says_master)?;
        Some((Arc::clone(promoted), Instant::now()))
    })
}

/// Waits until writes reach every replica: in the second after a full sync they may not.
fn streaming(d: &Deployment) {
    for node in d.replica_nodes(SERVICE) {
        eventually("the replicas follow", SOON, || node.cmd(&["LLEN", "seq"]).int().unwrap_or(0) >= 50);
    }
}

#[test]
fn row_63_a_killed_primary() {
    let d = Deployment::new("row63").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let (old, replicas) = (d.primary_node(SERVICE), d.replica_nodes(SERVICE));
    let writer = Writer::start(&client, 5000);
    writer.wait(50);
    streaming(&d);
    old.kill();
    let (killed, pacing) = (Instant::now(), Pacing::start());
    let (_, promoted) = promotion(&replicas);
    let resumed = writer.wait_after(promoted);
    let pace = pacing.stop();
    pace.judge("writes after the promotion", resumed.duration_since(promoted), Duration::from_secs(1));
    pace.judge("writes after the kill", resumed.duration_since(killed), Duration::from_secs(4));
    let written = writer.stop();
    // Only calls in flight fail: all others wait.
    assert!(written.errors.len() <= 1, "{:?}", written.errors);
    for error in &written.errors {
        assert!(error.status() == Status::Io && error.has(flags::MAYBE_EXECUTED), "{error}");
    }
    let new = d.wait_switched(SERVICE, &old);
    let lost = written.missing(&new);
    // Replication is asynchronous: only the latest acknowledged writes may be lost.
    let late = lost.iter().filter(|at| **at + Duration::from_millis(100) < killed).count();
    assert_eq!((late, written.doubled(&new)), (0, 0), "{} lost", lost.len());
}

#[test]
fn row_64_forced_failover_with_healthy_old_primary() {
    let d = Deployment::new("row64").start();
    let sentinel = sentinel_of(&d, &[("client.name", "row64")]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let old = d.primary_node(SERVICE);
    let mut listeners: Vec<_> = d.sentinel_nodes().iter().map(|node| node.connect().expect("a connection")).collect();
    for listener in &mut listeners {
        listener.cmd(&["SUBSCRIBE", "+switch-master"]).expect("subscribed");
    }
    let writer = Writer::start(&client, 5000);
    writer.wait(50);
    streaming(&d);
    let (begun, watch, pacing) = (Instant::now(), Watch::on(&sentinel), Pacing::start());
    d.failover(SERVICE);
    let first = spawn(move || listeners.remove(1).read().map(|_| Instant::now()));
    let announced = join(&first).expect("+switch-master");
    let new = d.wait_switched(SERVICE, &old);
    writer.wait_after(announced + Duration::from_millis(700));
    assert_eq!(old.role_word(), "master", "it still takes writes");
    eventually("none of ours is left", Duration::from_secs(1), || named(&old, "row64") == 0);
    let (written, pace) = (writer.stop(), pacing.stop());
    let lost: Vec<_> = written.missing(&new).iter().map(|at| at.duration_since(begun)).collect();
    let fences: Vec<_> = watch.all().into_iter().map(|told| (told.at.duration_since(begun), told)).collect();
    assert!(lost.is_empty(), "acknowledged before, during and after: all are there: {lost:?} {fences:?}");
    assert!(written.acknowledged.iter().any(|(_, at)| *at > announced + Duration::from_millis(500)));
    pace.judge("the longest gap", written.longest_gap(), Duration::from_secs(3));
    assert_eq!(written.doubled(&new), 0);
    for error in &written.errors {
        assert!(error.has(flags::MAYBE_EXECUTED) && error.has(flags::FAILOVER), "{error}");
    }
    assert!(written.errors.len() <= 1, "{:?}", written.errors);
}

#[test]
fn row_65_switch_master_acted_on() {
    let stage = stage(3, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.listened();
    stage.quiet();
    // An event of another service: no discovery, no change.
    let (before, id) = (stage.asked(), client_id(&client));
    let (p, r) = (stage.p.port(), stage.r.port());
    for one in &stage.watch {
        one.publish("+switch-master", &format!("other 127.0.0.1 {p} 127.0.0.1 {r}"));
    }
    stage.word(0, "+kit-end");
    stage.told.wait_word("+kit-end");
    stage.quiet();
    assert!(stage.asked() <= before + 3, "the word that ended it has them asked once");
    assert_eq!((client_id(&client), at(&stage.service())), (id, stage.p.addr()));
    // Of this service, while the new primary says that it is a replica: not accepted.
    let own = format!("{SERVICE} 127.0.0.1 {p} 127.0.0.1 {r}");
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.switch_to(&stage.r.addr())));
    let roles = stage.r.count("ROLE");
    stage.watch[0].publish("+switch-master", &own);
    stage.r.wait_count("ROLE", roles + 1, SOON);
    assert_eq!((at(&stage.service()), stage.r.count("SET")), (stage.p.addr(), 0));
    // It says primary: accepted within 200 ms of the event.
    stage.quiet();
    stage.promote();
    let (pacing, word) = (Pacing::start(), Instant::now());
    stage.watch[1].publish("+switch-master", &own);
    let switch = stage.told.wait("the switch", SOON, |told| told.is_switch());
    pacing.stop().judge("the switch after the word", switch.at.duration_since(word), Duration::from_millis(200));
    ok(&client, "SET k w");
    assert_eq!((stage.p.count("SET"), stage.r.count("SET"), primary_pool(&client).endpoint), (1, 1, stage.r.addr()));
}

#[test]
fn row_65_a_switch_that_cannot_be_verified_yet_is_asked_for_again() {
    let stage = stage(3, &[]);
    stage.listened();
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.switch_to(&stage.r.addr())));
    let (p, r) = (stage.p.port(), stage.r.port());
    let roles = stage.r.count("ROLE");
    stage.watch[0].publish("+switch-master", &format!("{SERVICE} 127.0.0.1 {p} 127.0.0.1 {r}"));
    stage.r.wait_count("ROLE", roles + 1, SOON);
    stage.promote();
    // No further event, no call, and the next poll is a minute away.
    stage.wait_primary(&stage.r.addr());
}

#[test]
fn row_66_odown_acted_on() {
    let stage = stage(3, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.listened();
    stage.quiet();
    let id = client_id(&client);
    // Of another service: nothing happens.
    let before = stage.asked();
    stage.watch[0].publish("+odown", &format!("master other 127.0.0.1 {} #quorum 2/2", stage.p.port()));
    stage.watch[0].publish("+sdown", &format!("master other 127.0.0.1 {}", stage.p.port()));
    ok(&client, "SET k v");
    stage.quiet();
    assert_eq!(stage.asked(), before);
    // About a replica: that is no word about the primary, which does not count as dead.
    stage.word_of_replica(0, "+odown");
    stage.told.wait_word("+odown");
    let failover_seq = stage.service().failover_seq();
    stage.begin(0);
    stage.select(0);
    stage.promote();
    eventually("the candidate has spoken", SOON, || stage.service().failover_seq() != failover_seq);
    assert_eq!((at(&stage.service()), client_id(&client)), (stage.p.addr(), id));
    stage.abort(0, "not-elected");
    eventually("the fence is down", SOON, || !stage.service().is_fenced());
    stage.quiet();
    // Of this service: a discovery at once, and the next command uses its result.
    let before = stage.asked();
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.switch_to(&stage.r.addr())));
    stage.word(0, "+odown");
    eventually("they are asked", Duration::from_millis(500), || stage.asked() > before);
    stage.wait_primary(&stage.r.addr());
    ok(&client, "SET k w");
    assert_eq!(stage.r.count("SET"), 1);
}

#[test]
fn row_67_each_kind_of_event_reaches_the_user_once() {
    let stage = stage(3, &[]);
    stage.listened();
    let kinds = ["+slave", "+sdown", "-sdown", "+reboot", "+slave-reconf-done", "+convert-to-slave"];
    for channel in kinds {
        (0..3).for_each(|sentinel| stage.word_of_replica(sentinel, channel));
    }
    (0..3).for_each(|sentinel| stage.word(sentinel, "+reboot"));
    (0..3).for_each(|sentinel| stage.word(sentinel, "+kit-end"));
    stage.told.wait_word("+kit-end");
    // The same event of the others is still to come: each answers a PING after it.
    stage.listened();
    for channel in kinds {
        let of_replica = |told: &stage::Told| {
            told.is(
                kind::REPLICA,
                &[("reason", channel), ("replica", &stage.r.addr()), ("service", SERVICE), ("fit", "")],
            )
        };
        assert_eq!(stage.told.count(of_replica), 1, "{channel}");
    }
    let reboot = stage.told.wait("the reboot", SOON, |told| told.is(kind::NOTICE, &[("reason", "+reboot")]));
    assert_eq!((reboot.get("primary"), reboot.get("service"), reboot.get("epoch")), (&*stage.p.addr(), SERVICE, "5"));
    assert!(reboot.get("text").starts_with("said by 127.0.0.1:"), "{reboot:?}");
    assert_eq!(stage.told.count(|told| told.kind == kind::TOPOLOGY), 0, "the primary is the same");
    let peer = format!("sentinel abc 127.0.0.1 9 @ {SERVICE} 127.0.0.1 {}", stage.p.port());
    (0..3).for_each(|sentinel| drop(stage.watch[sentinel].publish("+sentinel", &peer).to_string()));
    stage.told.wait("the peer", SOON, |told| {
        told.is(kind::SENTINEL, &[("reason", "+sentinel"), ("sentinel", "127.0.0.1:9")])
    });
    // An event that happens again is reported again.
    stage.word_of_replica(1, "+sdown");
    eventually("the second time", SOON, || {
        stage.told.count(|told| told.is(kind::REPLICA, &[("reason", "+sdown")])) == 2
    });
}

#[test]
fn row_68_the_event_stream_survives_lost_sentinels_and_rediscovery() {
    let d = Deployment::new("row68").start();
    let sentinel = sentinel_of(&d, &[NO_POLLS, ("client.name", "row68")]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    let listening = |node: &Node| {
        node.is_serving() && node.clients_named("row68").iter().filter(|client| client.listens()).count() == 1
    };
    let all = d.sentinel_nodes();
    eventually("all are listened to", SOON, || all.iter().all(|node| listening(node)));
    refresh(&sentinel);
    refresh(&sentinel);
    assert!(all.iter().all(|node| listening(node)), "discoveries leave the subscriptions alone");
    all[0].kill();
    let old = d.failover(SERVICE);
    let switch = watch.wait("the switch", Duration::from_secs(10), |told| told.is_switch());
    assert_eq!(switch.get("to"), d.wait_switched(SERVICE, &old).addr());
    ok(&client, "SET k w");
    all.iter().for_each(|node| node.kill());
    watch.wait("the loss", SOON, |told| told.is(kind::DEGRADED, &[("on", "1")]));
    ok(&client, "SET k x");
    all.iter().for_each(|node| node.restart());
    eventually("all are listened to again", Duration::from_secs(5), || all.iter().all(|node| listening(node)));
    watch.wait("the end of it", SOON, |told| told.is(kind::DEGRADED, &[("on", "0")]));
}

#[test]
fn row_69_one_switch_is_one_rebuild_however_often_it_is_announced() {
    let stage = stage(3, &[]);
    // One lane: a call that meets a question for the role on it has another one opened, and later calls may take that.
    let client = to_primary(&stage.sentinel, &[("lane.max", "1")]);
    ok(&client, "SET k v");
    stage.listened();
    stage.quiet();
    let version = stage.service().version();
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    // The first call may meet the end of its connection to the old primary.
    let (id, retries) = (client_id(&client), counter(&client, "retries"));
    let (p, r) = (stage.p.port(), stage.r.port());
    for one in stage.watch.iter().chain(&stage.watch) {
        one.publish("+switch-master", &format!("{SERVICE} 127.0.0.1 {p} 127.0.0.1 {r}"));
    }
    stage.quiet();
    refresh(&stage.sentinel);
    assert_eq!((client_id(&client), stage.told.switches().len()), (id, 1));
    assert_eq!(stage.service().version(), version + 1, "one change of the topology");
    assert!(retries <= 1, "{retries} retries");
    assert_eq!((counter(&client, "retries"), stage.p.connections()), (retries, 0));
}

#[test]
fn row_70_readonly_has_the_sentinels_asked() {
    let stage = stage(1, &[("retry.backoff_min", "50"), ("retry.backoff_max", "200")]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.quiet();
    stage.p.clear_log();
    stage.p.state(|state| state.readonly = true);
    // By the policy: once.
    let before = stage.asked();
    let error = fails(Status::Server, call(&client, "SET k w", CallFlags::NO_RETRY, Timeout::Default));
    assert_eq!((error.server_code(), stage.p.count("SET")), ("READONLY", 1));
    ok(&client, "GET k");
    // The Sentinels keep agreeing: the call ends with its deadline, and did not flood the node.
    let outcome = takes_at_most("a refused write", Duration::from_millis(900), || within(&client, "SET k w", 700));
    let error = outcome.map(|_| ()).expect_err("every attempt was refused");
    // The last attempt may have been under way when the time was over.
    assert!(error.server_code() == "READONLY" || error.status() == Status::Timeout, "{error}");
    assert!((3..=12).contains(&stage.p.count("SET")), "{} times", stage.p.count("SET"));
    assert!(stage.asked() > before + 1, "and asked before each");
    // Meanwhile they name another primary: the command is answered there.
    let held = {
        let client = Arc::clone(&client);
        spawn(move || cmd(&client, "SET k new"))
    };
    let refused = stage.p.count("SET");
    stage.p.wait_count("SET", refused + 1, SOON);
    stage.promote();
    stage.watch[0].service(SERVICE, |state| state.switch_to(&stage.r.addr()));
    join(&held).expect("answered by the new primary");
    assert_eq!(stage.r.count("SET"), 1);
}

#[test]
fn row_70_readonly_inside_lists_scripts_and_transactions() {
    let d = Deployment::new("row70").replicas(1).sentinels(0).start();
    let (node, other) = (d.node("mymaster-0"), d.node("mymaster-1"));
    let watch = told(&node.addr(), &[other.addr()]);
    let sentinel = handle(&watch, &[NO_POLLS, ("client.name", "row70")]);
    let client = to_primary(&sentinel, &[]);
    let session = client.session(None).expect("a session");
    ok(&client, "SET k v");
    ok(&session, "GET k");
    let service = sentinel.service(SERVICE);
    let demote = || {
        other.cmd(&["REPLICAOF", "NO", "ONE"]);
        node.cmd(&["REPLICAOF", other.host(), &other.port().to_string()]);
    };
    let queued = client.session(None).expect("a session");
    ok(&queued, "MULTI");
    ok(&queued, "SET k w");
    demote();
    // The queued commands are discarded as a whole, and may be retried; the code is that of the server.
    let error = fails(Status::Server, cmd(&queued, "EXEC"));
    assert!(error.server_code() == "EXECABORT" && error.message().contains("READONLY"), "{error}");
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    drop(queued);
    // The whole transaction is refused, with the code, and the node is in doubt.
    let reply = run(&session, &["MULTI", "SET k w", "EXEC"]).expect("a reply for each");
    let lines: Vec<_> = reply.children(0).map(|child| reply.error_line(child).map(String::from_utf8_lossy)).collect();
    assert!(lines[0].is_none() && lines[1].as_ref().is_some_and(|line| line.starts_with("READONLY")), "{lines:?}");
    assert!(lines[2].as_ref().is_some_and(|line| line.starts_with("EXECABORT")), "{lines:?}");
    assert!(service.suspicion().is_some_and(|why| why.contains(&node.addr())), "the list was read");
    drop(session);
    eventually("its connections are closed", SOON, || named(&node, "row70") <= 1);
    // A pipeline and a script: the refused part is known; what a script did before is not repeated.
    let refused = list(&["GET k", "SET k w"]);
    let error = fails_soon(Status::Role, |ms| client.cmds_exec(&refused, CallFlags::default(), Timeout::Ms(ms)));
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "a replica is not written to: {error}");
    // The Sentinel follows: the new primary answers everything.
    watch.service(SERVICE, |state| state.switch_to(&other.addr()));
    refresh(&sentinel);
    assert_eq!(json(&run(&client, &["SET k w", "GET k"]).expect("both")), r#"["OK","w"]"#);
    node.cmd(&["REPLICAOF", "NO", "ONE"]);
    other.cmd(&["REPLICAOF", node.host(), &node.port().to_string()]);
    let words: [&[u8]; 4] = [b"EVAL", b"return redis.call('SET', KEYS[1], 'x')", b"1", b"k"];
    let error = fails(Status::Server, client.cmd_exec(&words, CallFlags::default(), Timeout::Default));
    assert!(error.message().contains("READONLY"), "{error}");
    assert!(service.suspicion().is_some_and(|why| why.contains(&other.addr())));
}

#[test]
fn row_71_a_hung_primary() {
    let d = Deployment::new("row71").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let old = d.primary_node(SERVICE);
    old.stop();
    let (outcome, took, pace) = paced(|| within(&client, "SET k w", 300));
    let error = fails(Status::Timeout, outcome);
    assert!(error.has(flags::MAYBE_EXECUTED) && took >= Duration::from_millis(290), "{error} {took:?}");
    pace.judge("a write to a hung primary", took, Duration::from_millis(400));
    let read = takes_at_most("a read of it", Duration::from_millis(300), || within(&client, "GET k", 200));
    assert!(read.is_err());
    let new = d.wait_switched(SERVICE, &old);
    ok(&client, "SET k new");
    assert_eq!(new.cmd(&["GET", "k"]).text(), "new");
    assert_eq!(proc::sockets_to(&[old.port()]), 0, "the connection was dropped");
    // It resumes, and says that it is a primary: nothing goes there.
    old.cont();
    let connections = old.info("stats")["total_connections_received"].clone();
    (0..20).for_each(|_| drop(ok(&client, "SET k newer")));
    assert_eq!(old.calls("set"), 2 - u64::from(old.cmd(&["GET", "k"]).text() == "v"), "what it held when it froze");
    assert_eq!(proc::sockets_to(&[old.port()]), 0);
    assert!(!connections.is_empty());
}

#[test]
fn row_72_commands_in_flight_end_with_the_switch() {
    let d = Deployment::new("row72").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    let session = client.session(None).expect("a session");
    ok(&client, "SET k v");
    ok(&session, "SET s v");
    let has_it = |node: &Arc<Node>| node.cmd(&["GET", "k"]).text() == "v";
    eventually("all replicas have it", SOON, || d.replica_nodes(SERVICE).iter().all(has_it));
    let watch = Watch::on(&sentinel);
    let old = d.primary_node(SERVICE);
    let call = |client: &Arc<Client>, line: &'static str| {
        let client = Arc::clone(client);
        spawn(move || (call(&client, line, 0, Timeout::Unlimited), Instant::now()))
    };
    let blocked = call(&client, "BLPOP l 0");
    eventually("it blocks", SOON, || old.info("clients")["blocked_clients"] == "1");
    old.stop();
    let lost = [blocked, call(&client, "INCR n"), call(&session, "SET s w")];
    let (read, pacing) = (call(&client, "GET k"), Pacing::start());
    let switch = watch.wait("the switch", Duration::from_secs(10), |told| told.is_switch());
    let mut ends = Vec::new();
    for call in &lost {
        let (outcome, at) = join(call);
        let error = fails(Status::Io, outcome);
        assert!(error.has(flags::MAYBE_EXECUTED) && error.has(flags::FAILOVER), "{error}");
        let why = ["had not answered when", "its node is not used any more"];
        assert!(
            error.message().contains(&old.addr()) && why.iter().any(|why| error.message().contains(why)),
            "{error}"
        );
        ends.push(at);
    }
    let (outcome, at) = join(&read);
    assert_eq!(text(&outcome.expect("a read is repeated")), "v");
    ends.push(at);
    let pace = pacing.stop();
    for at in ends {
        pace.judge("the end of a call", at.saturating_duration_since(switch.at), Duration::from_secs(1));
    }
    old.cont();
}

#[test]
fn row_73_the_outcome_of_a_write_is_told() {
    let d = Deployment::new("row73").replicas(0).sentinels(0).start();
    let proxy = Proxy::start(&d.node("mymaster-0").addr());
    let watch = told(&proxy.addr(), &[]);
    let client = to_primary(&handle(&watch, &[]), &[]);
    ok(&client, "PING");
    for trap in [Trap::LoseReply, Trap::CutReply(1)] {
        proxy.trap("INCR", trap);
        let error = fails(Status::Io, cmd(&client, "INCR n"));
        assert!(error.has(flags::MAYBE_EXECUTED) && !error.has(flags::RETRYABLE), "{error}");
    }
    assert_eq!(ok(&client, "GET n"), "2", "each at most once");
    proxy.trap("INCR", Trap::LoseReply);
    let repeated = call(&client, "INCR n", CallFlags::IDEMPOTENT, Timeout::Default).expect("by the caller's word");
    assert_eq!(repeated.int(0), Some(4));
    // Not sent at all: another code, and no doubt.
    proxy.refuse();
    proxy.cut();
    let error = within(&client, "INCR n", 300).map(|_| ()).expect_err("nobody is there");
    assert!(matches!(error.status(), Status::Connect | Status::NoPrimary), "{error}");
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    proxy.listen();
    assert_eq!(ok(&client, "GET n"), "4");
}

#[test]
fn row_74_retry_policy() {
    let stage = stage(1, &[]);
    let with = |pairs: &[(&str, &str)]| {
        let client = to_primary(&stage.sentinel, pairs);
        ok(&client, "GET k");
        stage.p.clear_log();
        client
    };
    // So many repetitions, each after a discovery. After the third end of a connection it would be over anyway.
    let client = with(&[("retry.max", "1")]);
    stage.quiet();
    let before = stage.asked();
    stage.p.fault("SET", Fault::Close);
    fails(Status::Io, call(&client, "SET k v", CallFlags::IDEMPOTENT, Timeout::Default));
    assert_eq!((stage.p.count("SET"), counter(&client, "retries")), (2, 1));
    assert!(stage.asked() > before, "{} questions", stage.asked() - before);
    // Until the deadline, with growing pauses, no two alike.
    let client = with(&[("retry.backoff_min", "100"), ("retry.backoff_max", "400")]);
    stage.p.fault("SET", Fault::Error("LOADING Redis is loading".into()));
    let (outcome, took, pace) = paced(|| within(&client, "SET k v", 1600));
    assert_eq!(fails(Status::Server, outcome).server_code(), "LOADING");
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    pace.judge("a write that is refused again and again", took, Duration::from_millis(1750));
    let sets: Vec<Instant> =
        stage.p.log().iter().filter(|entry| entry.text().starts_with("SET")).map(|entry| entry.at).collect();
    let pauses: Vec<Duration> = sets.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
    assert!((4..=10).contains(&pauses.len()), "{pauses:?}");
    pace.judge("the first repetition, without a pause,", pauses[0], Duration::from_millis(60));
    for (pause, full) in pauses[1..].iter().zip([100, 200, 400, 400, 400, 400].map(Duration::from_millis)) {
        // Each is noted before it is answered, and the pause begins with the reply: delays cannot shorten it.
        assert!(*pause >= full / 2, "{pause:?} of {full:?}: {pauses:?}");
        pace.judge("a pause", *pause, full + Duration::from_millis(150));
    }
}

#[test]
fn row_75_an_address_change_is_remembered_once() {
    let stage = stage(3, &[]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.listened();
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    eventually("the old connections are closed", Duration::from_secs(1), || stage.p.connections() == 0);
    ok(&client, "SET k w");
    stage.r.state(|state| state.role = FakeRole::replica_of(&stage.p.addr()));
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.add_replica(&stage.p.addr())));
    refresh_any(&stage);
    for one in &stage.watch {
        one.switch_master(SERVICE, &stage.p.addr());
    }
    stage.wait_primary(&stage.p.addr());
    eventually("the old connections are closed", Duration::from_secs(1), || stage.r.connections() == 0);
    // A plain reconnect: nothing else is dropped.
    let session = client.session(None).expect("a session");
    let (kept, id, version) = (client_id(&session), client_id(&client), stage.service().version());
    let others = stage.p.sessions().len();
    assert!(others >= 2 && kept != id);
    for _ in 0..3 {
        stage.p.fault_times("ECHO", 1, Fault::Close);
        assert_eq!(ok(&client, "ECHO again"), "again");
    }
    assert!(client_id(&client) != id, "the lane was made anew");
    assert_eq!((client_id(&session), stage.service().version(), stage.told.switches().len()), (kept, version, 2));
}

fn refresh_any(stage: &Stage) {
    let _ = stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON));
}

#[test]
fn row_76_an_old_primary_that_returns_gets_no_write() {
    let d = Deployment::new("row76").start();
    let sentinel = sentinel_of(&d, &[("client.name", "row76"), ("monitor.interval", "200")]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let old = d.primary_node(SERVICE);
    old.kill();
    d.wait_switched(SERVICE, &old);
    ok(&client, "SET k new");
    old.restart();
    // Three seconds, or longer if that is not enough to see something.
    let began = Instant::now();
    let mut as_primary = 0;
    while began.elapsed() < Duration::from_secs(if as_primary > 3 { 3 } else { 30 }) {
        ok(&client, "SET k newer");
        assert_eq!(named(&old, "row76"), 0);
        // The Sentinel that makes it a replica ends its connections: no answer means nothing.
        let Ok(role) = old.try_cmd(&["ROLE"]) else { continue };
        let role = role.items().first().map(|word| word.text()).unwrap_or_default();
        as_primary += usize::from(role == "master" && old.calls("set") == 0);
        if role != "master" {
            break;
        }
    }
    assert!(as_primary > 0, "it was there and could have been written to");
    // On a slow machine the Sentinels may have replaced the new primary too; then that is the place.
    eventually("it is where the Sentinels say", Duration::from_secs(10), || {
        at(&sentinel.service(SERVICE)) == d.primary(SERVICE)
    });
    ok(&client, "SET k newest");
    let now = d.primary_node(SERVICE);
    assert_eq!((now.cmd(&["GET", "k"]).text().as_str(), at(&sentinel.service(SERVICE))), ("newest", now.addr()));
    assert_ne!(now.addr(), old.addr());
}

#[test]
fn row_77_election_gap() {
    let stage = stage(3, &[("failover.fence", "off")]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.listened();
    stage.p.down();
    (0..3).for_each(|one| stage.flags(one, "s_down,o_down,master"));
    // Known only by the Sentinels' flags: a client that knows nothing yet.
    let addrs: Vec<String> = stage.watch.iter().map(|one| one.addr()).collect();
    let fresh = to_primary(&sentinel_at(&addrs, &[("failover.fence", "off")]), &[]);
    let (outcome, took, pace) = paced(|| within(&fresh, "SET k v", 600));
    let error = fails(Status::NoPrimary, outcome);
    assert!(error.has(flags::RETRYABLE) && took >= Duration::from_millis(590), "{error} {took:?}");
    pace.judge("a write of a client that knows nothing", took, Duration::from_millis(800));
    let outcome =
        takes_at_most("a write of one that did", Duration::from_millis(700), || within(&client, "SET k v", 500));
    let error = outcome.map(|_| ()).expect_err("there is no primary");
    assert!(matches!(error.status(), Status::NoPrimary | Status::Connect), "{error}");
    assert!(error.has(flags::RETRYABLE) && !error.has(flags::MAYBE_EXECUTED), "{error}");
    let pacing = Pacing::start();
    let (begins, begun) = std::sync::mpsc::channel();
    let held: Vec<_> = [&client, &fresh]
        .map(|client| {
            let (client, begins) = (Arc::clone(client), begins.clone());
            spawn(move || {
                begins.send(()).expect("the test listens");
                (within(&client, "INCR n", 8000), Instant::now())
            })
        })
        .into();
    held.iter().for_each(|_| begun.recv_timeout(SOON).expect("it is called"));
    let gap = Instant::now();
    eventually("the gap is over", SOON, || gap.elapsed() > Duration::from_millis(1500));
    let switched = Instant::now();
    stage.switch_all();
    let held: Vec<_> = held.iter().map(join).collect();
    let pace = pacing.stop();
    for (outcome, ended) in held {
        outcome.expect("it waited for the new primary");
        assert!(ended > switched, "before there was one");
        pace.judge("a write that waited", ended - switched, Duration::from_millis(1500));
    }
    assert_eq!(stage.r.count("INCR"), 2);
}

#[test]
fn row_78_all_sentinels_dead_connections_alive() {
    let d = Deployment::new("row78").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "300")]);
    let (client, reader) = (to_primary(&sentinel, &[]), to_replicas(&sentinel, &[]));
    ok(&client, "SET k v");
    let (id, watch) = (client_id(&client), Watch::on(&sentinel));
    d.sentinel_nodes().iter().for_each(|node| node.kill());
    let (pacing, began, mut longest) = (Pacing::start(), Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(3) {
        for (client, line) in [(&client, "SET k v"), (&client, "GET k"), (&reader, "GET k")] {
            longest = longest.max(timed(|| ok(client, line)).1);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    pacing.stop().judge("a call without Sentinels", longest, Duration::from_millis(250));
    assert_eq!(client_id(&client), id);
    watch.wait("the word of it", SOON, |told| told.is(kind::DEGRADED, &[("on", "1")]));
}

#[test]
fn row_79_all_sentinels_dead_and_the_connection_lost() {
    let d = Deployment::new("row79").start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let (primary, all) = (d.primary_node(SERVICE), d.sentinel_nodes());
    all.iter().for_each(|node| node.kill());
    // The last known primary serves, once its ROLE has said master.
    for _ in 0..3 {
        primary.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
        // The end of the connection may overtake the reply.
        let limit = Duration::from_millis(1000);
        let write = || call(&client, "SET k w", CallFlags::IDEMPOTENT, Timeout::Default);
        takes_at_most("a write that finds it again", limit, write).expect("it serves");
    }
    // Its ROLE is not master.
    let replica = d.node("mymaster-1");
    primary.cmd(&["REPLICAOF", replica.host(), &replica.port().to_string()]);
    primary.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    let write = || within(&client, "SET k x", 700);
    let error = fails(Status::NoSentinel, takes_at_most("a write to a replica", Duration::from_millis(1000), write));
    assert!(error.has(flags::RETRYABLE), "{error}");
    // The primary is gone.
    primary.stop();
    assert!(takes_at_most("a write to nobody", Duration::from_millis(1000), write).is_err());
    primary.kill();
    fails_soon(Status::NoSentinel, |ms| within(&client, "SET k x", ms));
    // No primary is known.
    let fresh = to_primary(&sentinel_of(&d, &[]), &[]);
    fails_soon(Status::NoSentinel, |ms| within(&fresh, "SET k x", ms));
    // Recovers by itself, as soon as one is back.
    primary.restart();
    let held = {
        let client = Arc::clone(&client);
        spawn(move || within(&client, "SET k y", 10_000))
    };
    all[2].restart();
    join(&held).expect("it recovers by itself");
}

#[test]
fn row_79_a_sentinel_returns_at_a_new_address_of_the_same_name() {
    let name = concat!(module_path!(), "::row_79_a_sentinel_returns_at_a_new_address_of_the_same_name");
    moving::run(name, follow_a_moving_sentinel);
}

fn follow_a_moving_sentinel(answer: &str) {
    let (p, r) = (Scripted::primary(), Scripted::primary());
    let (old, new) = (told(&p.addr(), &[r.addr()]), told(&p.addr(), &[r.addr()]));
    new.service(SERVICE, |state| state.switch_to(&r.addr()));
    std::fs::write(answer, "127.0.0.1").expect("written");
    let sentinel = sentinel_at(&[format!("{}:{}", moving::NAME, old.port())], &[NO_POLLS]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    stage::heard(&old);
    old.down();
    watch.wait("the loss", SOON, |told| told.is(kind::DEGRADED, &[("on", "1")]));
    ok(&client, "SET k v");
    // The same name and port now lead to another host, whose Sentinel knows of a switch.
    forward(TcpListener::bind(("127.0.0.29", old.port())).expect("a host of its own"), new.addr());
    std::fs::write(answer, "127.0.0.29").expect("written");
    watch.wait("the end of it", SOON, |told| told.is(kind::DEGRADED, &[("on", "0")]));
    watch.wait("the switch", SOON, |told| told.is_switch() && told.get("to") == r.addr());
    ok(&client, "SET k w");
    assert_eq!((p.count("SET"), r.count("SET")), (2, 1));
}

#[test]
fn row_79_the_name_of_a_sentinel_that_lives_on_moves() {
    let name = concat!(module_path!(), "::row_79_the_name_of_a_sentinel_that_lives_on_moves");
    moving::run(name, follow_a_name_without_a_loss);
}

fn follow_a_name_without_a_loss(answer: &str) {
    let p = Scripted::primary();
    let (old, new) = (told(&p.addr(), &[]), told(&p.addr(), &[]));
    std::fs::write(answer, "127.0.0.1").expect("written");
    let sentinel = sentinel_at(&[format!("{}:{}", moving::NAME, old.port())], &[]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    stage::heard(&old);
    forward(TcpListener::bind(("127.0.0.29", old.port())).expect("a host of its own"), new.addr());
    std::fs::write(answer, "127.0.0.29").expect("written");
    // The name is resolved again after half a minute.
    let listens = || new.publish("+kit-hello", "hello") == 1 && old.publish("+kit-hello", "hello") == 0;
    eventually("the subscription has followed the name", Duration::from_secs(90), listens);
    eventually("the questions have, too", Duration::from_secs(90), || {
        new.count("SENTINEL GET-MASTER-ADDR-BY-NAME") > 0
    });
    assert_eq!(watch.count(|told| told.is(kind::DEGRADED, &[])), 0, "nothing was lost: {:?}", watch.all());
    assert_eq!(watch.count(|told| told.is(kind::SENTINEL, &[("up", "")])), 0, "{:?}", watch.all());
    ok(&client, "SET k w");
}

/// Forwards connections, until the process ends.
fn forward(listener: TcpListener, to: String) {
    let lead = |mut from: TcpStream, mut to: TcpStream| {
        proc::thread("kit-forward", move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        });
    };
    proc::thread("kit-forward", move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            lead(client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
            lead(server, client);
        }
    });
}

#[test]
fn row_80_a_double_failover_leads_back() {
    let d = Deployment::new("row80").replicas(1).start();
    let sentinel = sentinel_of(&d, &[NO_POLLS]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    let first = d.failover(SERVICE);
    let second = d.wait_switched(SERVICE, &first);
    ok(&client, "SET k one");
    d.hurry();
    d.await_link(&first);
    d.wait_known(SERVICE, &first);
    assert_eq!(d.failover(SERVICE).port(), second.port());
    assert_eq!(d.wait_switched(SERVICE, &second).port(), first.port());
    eventually("it is followed back", SOON, || at(&sentinel.service(SERVICE)) == first.addr());
    ok(&client, "SET k two");
    assert_eq!(first.cmd(&["GET", "k"]).text(), "two");
    let switches: Vec<_> = watch.switches().iter().map(|told| told.get("to").to_owned()).collect();
    assert_eq!(switches, [second.addr(), first.addr()]);
}

#[test]
fn row_80_a_sleeping_primary_is_left() {
    let plan = Deployment::new("row80-sleep").down_after(600);
    // Before Redis 7.0 DEBUG is there without it.
    let d = if Feature::SentinelDebug.is_there() { plan.conf("enable-debug-command yes") } else { plan }.start();
    let sentinel = sentinel_of(&d, &[]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let old = d.primary_node(SERVICE);
    let mut sleeper = old.connect().expect("a connection");
    // Longer than the call below may take: a call that succeeds has left it.
    sleeper.send(&["DEBUG", "SLEEP", "60"]).expect("sent");
    eventually("it sleeps", SOON, || within(&client, "GET k", 100).is_err());
    // The call may have been sent before the switch.
    call(&client, "SET k new", CallFlags::IDEMPOTENT, Timeout::Ms(30_000)).expect("on another address");
    let new = d.wait_switched(SERVICE, &old);
    assert_eq!((at(&sentinel.service(SERVICE)), new.cmd(&["GET", "k"]).text()), (new.addr(), "new".into()));
}

#[test]
fn row_81_without_a_quorum_nothing_moves() {
    let d = Deployment::new("row81").start();
    let sentinel = sentinel_of(&d, &[("monitor.interval", "300")]);
    let (client, watch) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    let (primary, all) = (d.primary_node(SERVICE), d.sentinel_nodes());
    assert!(all[2].cmd(&["SENTINEL", "CKQUORUM", SERVICE]).text().starts_with("OK"));
    all[0].kill();
    all[1].kill();
    primary.stop();
    d.wait_s_down(SERVICE, &primary);
    let failed = within(&client, "SET k w", 500);
    assert!(failed.is_err());
    let ckquorum = || all[2].cmd(&["SENTINEL", "CKQUORUM", SERVICE]).text();
    eventually("CKQUORUM reports it", SOON, || ckquorum().starts_with("NOQUORUM"));
    assert_eq!((at(&sentinel.service(SERVICE)), watch.switches().len()), (primary.addr(), 0));
    primary.cont();
    eventually("the client has stayed", SOON, || within(&client, "SET k x", 300).is_ok());
    assert_eq!((primary.cmd(&["GET", "k"]).text().as_str(), watch.switches().len()), ("x", 0));
}

#[test]
fn row_81_a_sentinel_in_tilt_is_not_believed() {
    let stage = stage(3, &[("monitor.interval", "200")]);
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k v");
    stage.listened();
    stage.promote();
    stage.watch[0].state(|state| state.tilt = true);
    stage.watch[0].switch_master(SERVICE, &stage.r.addr());
    let polls = stage.service().discovered();
    eventually("some polls", SOON, || stage.service().discovered() > polls + 3);
    ok(&client, "SET k w");
    assert_eq!((at(&stage.service()), stage.r.count("SET"), stage.told.switches().len()), (stage.p.addr(), 0, 0));
    // Without TILT its word counts: a known replica under a newer epoch.
    stage.watch[0].state(|state| state.tilt = false);
    stage.wait_primary(&stage.r.addr());
}
