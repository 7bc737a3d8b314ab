//! Fence and probe: rules 5 to 9, and both ways to do without the monitor's connections (row 105).

use crate::calls;
use crate::completions;
use crate::stage;
use crate::support;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use calls::*;
use stage::{SOON, Stage, Told, Watch, at, stage};
use support::*;
use vigie::client::{CallFlags, Client, Timeout};
use vigie::error::{Error, Result, Status, flags};
use vigie::queue::kind;
use vigie::resp::Reply;
use vigie::time::Deadline;

const ON: (&str, &str) = ("on", "1");

/// A call on a thread of its own.
fn later(client: &Arc<Client>, line: &'static str) -> Receiver<Result<Reply>> {
    let client = Arc::clone(client);
    spawn(move || cmd(&client, line))
}

#[track_caller]
fn join_ok(call: &Receiver<Result<Reply>>) -> String {
    text(&join(call).unwrap_or_else(|error| panic!("{:?} {error}", error.status())))
}

/// A client with open connections, and all Sentinels subscribed to.
fn warm(stage: &Stage) -> Arc<Client> {
    let client = to_primary(&stage.sentinel, &[]);
    ok(&client, "SET k before");
    stage.listened();
    stage.p.clear_log();
    client
}

/// The error of a write that may be lost.
#[track_caller]
fn doubtful(error: &Error) {
    let all = flags::MAYBE_EXECUTED | flags::FAILOVER;
    assert!(error.status() == Status::Io && error.has(flags::MAYBE_EXECUTED) && error.has(flags::FAILOVER), "{error}");
    assert_eq!(error.flags() & all, all);
}

/// A write that has reached the primary and is not answered.
fn in_flight(stage: &Stage, client: &Arc<Client>) -> Receiver<Result<Reply>> {
    stage.p.fault("SET", Fault::Stall);
    let write = later(client, "SET k late");
    stage.p.wait_count("SET", 1, SOON);
    write
}

fn speaks(stage: &Stage, failover_seq: u64) {
    let service = stage.service();
    eventually("the candidate has said that it is a primary", SOON, || service.failover_seq() != failover_seq);
}

/// The error of a held back write: it says that nothing was sent, and what to do.
#[track_caller]
fn held_back<T>(outcome: Result<T>) -> Error {
    let error = fails(Status::Fenced, outcome);
    let told = |words: &str| error.message().contains(words);
    assert!((told("nothing was sent") || told("not sent")) && told("try again"), "{error:?}");
    assert_eq!(error.message().matches("(after ").count(), 1, "{error:?}");
    assert!(error.has(flags::RETRYABLE), "{error:?}");
    error
}

#[test]
fn rule_5_the_fence_is_held_by_each_sentinel_that_tries() {
    let stage = stage(3, &[]);
    let (client, service) = (warm(&stage), stage.service());
    stage.begin(0);
    let on = stage.told.wait_fence(true, "+try-failover by ");
    assert!(on.get("reason").ends_with(&stage.watch[0].addr()), "{on:?}");
    stage.begin(1);
    stage.word(1, "+elected-leader");
    stage.told.wait_word("+elected-leader");
    let write = later(&client, "SET k held");
    stage.abort(0, "not-elected");
    stage.told.wait_word("-failover-abort-not-elected");
    assert!(service.is_fenced(), "the other one still tries");
    assert_eq!(stage.p.count("SET"), 0);
    stage.abort(1, "slave-timeout");
    stage.told.wait_fence(false, "-failover-abort-slave-timeout");
    assert_eq!(join_ok(&write), "OK");
    assert_eq!((stage.p.count("SET"), at(&service)), (1, stage.p.addr()));
    // A poll that began before the end may find the flag that was there then.
    let by_flag = |told: &Told| ["failover_in_progress", "failover_over"].contains(&told.get("cause"));
    let by_word = |told: &Told| told.kind == kind::FENCE && !by_flag(told);
    let fences: Vec<_> = stage.told.all().into_iter().filter(by_word).collect();
    assert_eq!(fences.len(), 2, "once up, once down: {fences:?}");
}

#[test]
fn each_call_that_is_held_back_is_counted_also_by_submit() {
    let stage = stage(1, &[]);
    let (client, queue) = (warm(&stage), completions::queue(16));
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover by ");
    let by_exec = [later(&client, "SET k a"), later(&client, "SET k b")];
    eventually("both wait", SOON, || counter(&client, "held_back") == 2);
    for token in 0..6 {
        let line = if token == 2 { "GET k" } else { "SET k c" };
        client
            .cmds_submit(
                &list(&[line]),
                CallFlags::from_bits(CallFlags::EACH).expect("EACH"),
                Timeout::Default,
                &queue,
                token,
            )
            .expect("taken");
    }
    stage.abort(0, "not-elected");
    completions::drain(&queue, 6).into_iter().for_each(|event| assert!(event.outcome.is_ok(), "{event:?}"));
    by_exec.iter().for_each(|call| assert_eq!(join_ok(call), "OK"));
    // The read has waited for its turn, and was not held back.
    assert_eq!(counter(&client, "held_back"), 7);
}

#[test]
fn rule_5_the_flag_tells_of_a_failover_whose_words_were_missed() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    // No discovery from the start is running that could find it instead.
    stage.quiet();
    let asked = stage.asked();
    // Missed while the connection was down, and found after the next subscription.
    stage.flags(1, "master,failover_in_progress");
    assert!(stage.asked() == asked && !stage.service().is_fenced(), "nobody has looked yet");
    stage.watch[1].close_all();
    // A discovery waits only a moment for the slowest. On a busy machine that may be this one, and a later one asks it again.
    let mut closed = Instant::now();
    eventually("it is found", SOON, || {
        if !stage.service().is_fenced() && closed.elapsed() > Duration::from_secs(3) {
            stage.watch[1].close_all();
            closed = Instant::now();
        }
        stage.service().is_fenced()
    });
    stage.told.wait_fence(true, "failover_in_progress");
    let write = later(&client, "SET k held");
    // The end is missed too, and found by a poll.
    stage.watch[1].wait_count("SENTINEL MASTER", stage.watch[1].count("SENTINEL MASTER") + 1, SOON);
    assert!(stage.service().is_fenced() && stage.p.count("SET") == 0);
    stage.flags(1, "master");
    stage.told.wait_fence(false, "failover_in_progress");
    assert_eq!(join_ok(&write), "OK");
}

#[test]
fn rule_5_a_poll_finds_the_flag() {
    let stage = stage(3, &[("monitor.interval", "200")]);
    let client = warm(&stage);
    stage.flags(2, "master,failover_in_progress");
    stage.told.wait_fence(true, "failover_in_progress");
    stage.flags(2, "master");
    stage.told.wait_fence(false, "failover_in_progress");
    ok(&client, "SET k after");
}

/// The events of a failover, in the order of sentinel.c, and whether each is about the replica.
const WORDS: [(&str, bool); 8] = [
    ("+try-failover", false),
    ("+elected-leader", false),
    ("+failover-state-select-slave", false),
    ("+selected-slave", true),
    ("+failover-state-send-slaveof-noone", true),
    ("+failover-state-wait-promotion", true),
    ("+promoted-slave", true),
    ("+failover-state-reconf-slaves", false),
];

#[test]
fn rule_5_each_word_alone_raises_the_fence() {
    for (word, of_replica) in WORDS {
        // No poll and no flag: only the event is known.
        let stage = stage(2, &[]);
        let client = warm(&stage);
        stage.quiet();
        if of_replica {
            stage.word_of_replica(0, word);
        } else {
            stage.word(0, word);
        }
        let up = stage.told.wait_fence(true, word);
        assert!(up.get("reason").ends_with(&stage.watch[0].addr()), "{up:?}");
        assert_eq!(stage.p.count("SET"), 0);
        stage.abort(0, "not-elected");
        stage.told.wait_fence(false, "");
        ok(&client, "SET k after");
    }
}

#[test]
fn rule_5_words_about_the_primary_before_a_switch_raise_nothing() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    let fences = |on: &str| stage.told.count(|told| told.is(kind::FENCE, &[("on", on)]));
    let before = fences("1");
    for (word, of_replica) in WORDS {
        for one in 0..3 {
            if of_replica {
                stage.word_of_replica(one, word);
            } else {
                stage.word(one, word);
            }
        }
    }
    for (one, last) in ["+kit-0", "+kit-1", "+kit-2"].into_iter().enumerate() {
        // An event about the former primary would not be reported.
        stage.word_of_replica(one, last);
        stage.told.wait_word(last);
    }
    assert_eq!((fences("1"), stage.service().is_fenced()), (before, false));
    ok(&client, "SET k new");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), at(&stage.service())), (1, 0, stage.r.addr()));
}

#[test]
fn rule_5_each_abort_releases_the_fence_and_writes_go_on_where_they_were() {
    let stage = stage(2, &[]);
    let client = warm(&stage);
    let id = client_id(&client);
    for (turn, why) in ["not-elected", "no-good-slave", "slave-timeout"].into_iter().enumerate() {
        stage.begin(turn % 2);
        eventually("the fence is up", SOON, || stage.service().is_fenced());
        let write = later(&client, "INCR n");
        assert!(held_back(within(&client, "SET k v", 30)).has(flags::RETRYABLE));
        stage.abort(turn % 2, why);
        assert_eq!(join_ok(&write), (turn + 1).to_string());
    }
    assert_eq!((client_id(&client), stage.p.count("SET")), (id, 0));
    assert_eq!((stage.r.count("INCR"), stage.told.switches().len()), (0, 0));
}

#[test]
fn who_was_held_until_no_time_is_left_is_not_let_through() {
    let stage = stage(2, &[]);
    let (_client, service) = (warm(&stage), stage.service());
    for _ in 0..20 {
        stage.begin(0);
        eventually("the fence is up", SOON, || service.is_fenced());
        let deadline = Deadline::after(Duration::from_millis(50));
        let held = spawn({
            let service = Arc::clone(&service);
            move || (deadline.left(), service.await_open(deadline, || false))
        });
        while deadline.left() > Some(Duration::from_micros(700)) {
            std::hint::spin_loop();
        }
        stage.abort(0, "not-elected");
        // A thread that was scheduled late did not wait.
        match join(&held) {
            (left, Ok(())) => {
                assert!(left < Some(Duration::from_millis(25)), "let through, begun {left:?} before its end")
            }
            (_, outcome) => assert!(held_back(outcome).has(flags::RETRYABLE)),
        }
        eventually("the fence is down", SOON, || !service.is_fenced());
    }
}

#[test]
fn rule_5_a_write_that_waited_for_its_connection_is_held_by_a_fence_that_came_up_meanwhile() {
    for (mode, overrides) in [("lane", vec![]), ("loan", vec![("write.replicas", "1")]), ("session", vec![])] {
        let stage = stage(2, &[]);
        let client = to_primary(&stage.sentinel, &overrides);
        ok(&client, "GET k");
        stage.listened();
        stage.p.fault("WAIT", Fault::Reply(Value::Int(1)));
        // The next connection is being established.
        stage.p.close_all();
        stage.p.clear_log();
        stage.p.fault("ROLE", Fault::Stall);
        let caller = if mode == "session" { client.session(None).expect("a session") } else { Arc::clone(&client) };
        let write = later(&caller, "SET k v");
        stage.p.wait_count("ROLE", 1, SOON);
        stage.begin(0);
        eventually("the fence is up", SOON, || stage.service().is_fenced());
        stage.p.clear_faults();
        stage.p.fault("WAIT", Fault::Reply(Value::Int(1)));
        ok(&client, "GET k");
        let begun = std::time::Instant::now();
        eventually("time enough to send it", SOON, || begun.elapsed() > Duration::from_millis(50));
        assert!(stage.service().is_fenced() && stage.p.count("SET") == 0, "{mode}: {:?}", stage.p.commands());
        stage.abort(0, "not-elected");
        assert_eq!(join_ok(&write), "OK", "{mode}");
        assert_eq!(stage.p.count("SET"), 1, "{mode}");
    }
}

#[test]
fn rule_6_the_fence_has_an_end_of_its_own() {
    let stage = stage(2, &[("failover.fence_max", "400")]);
    let client = warm(&stage);
    stage.begin(0);
    let up = stage.told.wait_fence(true, "+try-failover");
    let asked = stage.watch[1].count("SENTINEL GET-MASTER-ADDR-BY-NAME");
    let held = takes_at_most("a write behind the fence", Duration::from_secs(2), || cmd(&client, "SET k v"));
    held.expect("it goes on with the old primary");
    let down = stage.told.wait_fence(false, "fence_expired");
    assert!(down.at.duration_since(up.at) > Duration::from_millis(300), "{up:?} {down:?}");
    assert_eq!(down.get("reason"), "fence_expired");
    // After another discovery: the flag, which is still set, is not a new failover.
    stage.watch[1].wait_count("SENTINEL GET-MASTER-ADDR-BY-NAME", asked + 1, SOON);
    let discovered = stage.service().discovered();
    for _ in 0..2 {
        stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
    }
    assert!(stage.service().discovered() >= discovered + 2 && !stage.service().is_fenced());
    assert_eq!((at(&stage.service()), stage.told.switches().len()), (stage.p.addr(), 0));
    // A new event is.
    stage.begin(0);
    eventually("it is up again", SOON, || stage.told.count(|told| told.is(kind::FENCE, &[ON])) == 2);
}

/// At most 300 ms later and never earlier. Nothing else wakes the thread that watches the time: no poll, and hardly a
/// PING.
#[test]
fn rule_6_the_fence_is_gone_when_its_time_is_over() {
    const MAX: Duration = Duration::from_millis(110);
    let stage = stage(1, &[("failover.fence_max", "110")]);
    let client = warm(&stage);
    stage.quiet();
    let ups = || stage.told.count(|told| told.is(kind::FENCE, &[ON]));
    let downs = || stage.told.count(|told| told.is(kind::FENCE, &[("on", "0")]));
    let gone = |raise: &dyn Fn()| {
        for _ in 0..5 {
            let (before, ended) = (ups(), downs());
            let (up, took, pace) = paced(|| {
                raise();
                // On a busy machine it may have come down again.
                let told = || stage.told.all().into_iter().filter(|told| told.is(kind::FENCE, &[ON])).nth(before);
                let up = eventually_some("the fence was up", SOON, told);
                ok(&client, "SET k v");
                up.at.elapsed()
            });
            assert!(took >= MAX, "let through after {took:?}");
            // Not counting the time to raise it, which takes several discoveries.
            pace.judge("the fence", up, MAX + Duration::from_millis(300));
            // Callers see the end by the clock; a new fence begins only after the end was reported.
            eventually("its end is told", SOON, || downs() > ended);
        }
    };
    gone(&|| stage.begin(0));
    // The same for a failover without an event.
    stage.flags(0, "master");
    stage.quiet();
    gone(&|| {
        // An expired flag counts again only after it was cleared.
        for flags in ["master", "master,failover_in_progress"] {
            stage.flags(0, flags);
            stage.polled();
        }
    });
}

#[test]
fn rule_7_what_is_not_known_to_read_waits_and_reads_go_on() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let (reader, split) = (to_replicas(&stage.sentinel, &[]), open(&stage.sentinel, vigie::client::Target::Split, &[]));
    let session = client.session(None).expect("a session");
    ok(&session, "GET k");
    ok(&reader, "GET k");
    stage.begin(2);
    stage.told.wait_fence(true, "+try-failover");
    stage.p.clear_log();
    for line in ["SET k v", "EVAL return 0", "FCALL f 0", "VIGIE.UNKNOWN k", "INCR n", "BLPOP l 0"] {
        for client in [&client, &split] {
            let (outcome, took, pace) = paced(|| within(client, line, 40));
            let error = held_back(outcome);
            assert!(error.has(flags::RETRYABLE) && error.has(flags::FAILOVER), "{line}: {error}");
            assert!(!error.has(flags::MAYBE_EXECUTED) && error.message().contains(SERVICE), "{line}: {error}");
            assert!(took >= Duration::from_millis(40), "{line}: {took:?}");
            pace.judge(line, took, Duration::from_millis(300));
        }
        assert_eq!(stage.p.count(line.split(' ').next().unwrap()), 0, "{line} was sent");
    }
    held_back(session.cmds_exec(&list(&["GET k", "SET k v"]), Default::default(), Timeout::Ms(40)));
    held_back(client.cmds_exec(&list(&["GET k", "SET k v"]), Default::default(), Timeout::Ms(40)));
    for line in ["SET k v", "WATCH k", "GET k"] {
        held_back(within(&session, line, 40));
    }
    assert_eq!((stage.p.count("SET"), stage.p.count("WATCH"), stage.p.count("GET")), (0, 0, 0));
    // Reads from the primary and from replicas, on both kinds of clients, as single calls and as lists.
    assert_eq!(ok(&client, "GET k"), "before");
    run(&client, &["GET k", "GET k"]).expect("a list that only reads");
    let before = stage.r.count("GET");
    ok(&reader, "GET k");
    ok(&split, "GET k");
    ok(&reader.session(None).expect("a session"), "GET k");
    assert_eq!((stage.r.count("GET"), stage.p.count("GET")), (before + 3, 3));
    assert!(stage.service().is_fenced());
}

/// A session may decide by its reads what it writes, so its reads are held back too, even if the fence goes up while it
/// waits for its connection.
#[test]
fn rule_7_a_session_that_waited_for_its_connection_does_not_read_under_the_fence() {
    let stage = stage(2, &[]);
    let client = warm(&stage);
    let session = client.session(None).expect("a session");
    stage.p.fault("ROLE", Fault::Stall);
    let read = later(&session, "GET own");
    stage.p.wait_count("ROLE", 1, SOON);
    stage.begin(0);
    eventually("the fence is up", SOON, || stage.service().is_fenced());
    stage.p.clear_faults();
    let begun = std::time::Instant::now();
    eventually("time enough to send it", SOON, || begun.elapsed() > Duration::from_millis(50));
    assert!(stage.service().is_fenced() && stage.p.count("GET own") == 0, "{:?}", stage.p.commands());
    stage.abort(0, "not-elected");
    assert_eq!((join_ok(&read).as_str(), stage.p.count("GET own")), ("null", 1));
}

#[test]
fn rule_7_whoever_waits_goes_to_the_new_primary() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let session = client.session(None).expect("a session");
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    let held: Vec<_> = (0..10).map(|_| later(&client, "INCR n")).collect();
    let of_session = later(&session, "SET s v");
    stage.switch_all();
    let mut numbers: Vec<_> = held.iter().map(join_ok).collect();
    numbers.sort_by_key(|number| number.parse::<u32>().unwrap_or(0));
    assert_eq!(numbers, (1..=10).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!((join_ok(&of_session).as_str(), stage.r.count("INCR"), stage.r.count("SET s")), ("OK", 10, 1));
    assert_eq!((stage.p.count("INCR"), stage.p.count("SET")), (0, 0));
    stage.told.wait_fence(false, "switched");
}

/// The discovery that finds the switch also hears a Sentinel that still describes a failover of the former primary: that word holds
/// no write of the new one.
#[test]
fn rule_7_a_word_about_the_former_primary_that_came_with_the_switch_holds_nothing() {
    let stage = stage(3, &[("failover.probe", "off")]);
    let client = warm(&stage);
    stage.begin(1);
    stage.told.wait_fence(true, "+try-failover");
    stage.promote();
    let before = stage.service().discovered();
    for knows in [0, 2] {
        stage.watch[knows].service(SERVICE, |state| state.switch_to(&stage.r.addr()));
    }
    stage.polled();
    assert!(
        stage.service().discovered() > before
            && stage.watch[1].service(SERVICE, |state| state.flags.contains("failover"))
    );
    stage.wait_primary(&stage.r.addr());
    assert_eq!(ok(&client, "SET k v"), "OK");
    let fences: Vec<_> = stage.told.all().into_iter().filter(|told| told.is(kind::FENCE, &[])).collect();
    let told: Vec<_> = fences.iter().map(|told| (told.get("on"), told.get("reason"))).collect();
    assert_eq!(told[1..], [("0", "switched")], "{told:?}");
}

#[test]
fn rule_8_an_answer_after_the_candidate_spoke_is_no_success() {
    for probe in ["auto", "off"] {
        let stage = stage(3, &[("failover.probe", probe)]);
        let client = warm(&stage);
        let write = in_flight(&stage, &client);
        let failover_seq = stage.service().failover_seq();
        stage.begin(0);
        stage.select(0);
        stage.told.wait_fence(true, "+try-failover");
        stage.r.wait_count("ROLE", 2, SOON);
        assert_eq!(stage.service().failover_seq(), failover_seq, "it still says that it is a replica");
        stage.promote();
        speaks(&stage, failover_seq);
        stage.p.clear_faults();
        doubtful(&fails(Status::Io, join(&write)));
        assert_eq!(at(&stage.service()), stage.p.addr(), "{probe}: not taken at its word");
        assert!(stage.p.state(|state| state.data[&b"k".to_vec()] == b"late"), "it was executed, and will be lost");
        // Reads from the primary continue until the switch.
        assert_eq!(ok(&client, "GET k"), "late");
    }
}

/// The candidate says that it is a primary while this call waits for its reply.
fn answered_after_the_candidate_spoke<T>(stage: &Stage, name: &str, call: impl FnOnce() -> T) -> T {
    stage.p.fault(name, Fault::Stall);
    let call = call();
    stage.p.wait_count(name, 1, SOON);
    let failover_seq = stage.service().failover_seq();
    stage.begin(0);
    stage.select(0);
    stage.promote();
    speaks(stage, failover_seq);
    stage.p.clear_faults();
    call
}

#[test]
fn rule_8_holds_for_what_was_submitted() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let queue = completions::queue(4);
    let each = CallFlags::from_bits(CallFlags::EACH).expect("known");
    let submit = |line: &str| client.cmds_submit(&list(&[line]), each, Timeout::Default, &queue, 1).expect("taken");
    // Its connection is open.
    submit("SET k before");
    completions::one(&queue).1.expect("no failover yet");
    stage.p.clear_log();
    answered_after_the_candidate_spoke(&stage, "SET", || submit("SET k late"));
    doubtful(&fails(Status::Io, completions::one(&queue).1));
    assert_eq!((stage.p.count("SET"), stage.r.count("SET")), (1, 0), "not sent again");
}

#[test]
fn rule_8_holds_in_a_session() {
    let stage = stage(3, &[]);
    let session = warm(&stage).session(None).expect("a session");
    ok(&session, "SET k before");
    stage.p.clear_log();
    let write = answered_after_the_candidate_spoke(&stage, "SET", || later(&session, "SET k late"));
    doubtful(&fails(Status::Io, join(&write)));
    assert_eq!((stage.p.count("SET"), stage.r.count("SET")), (1, 0), "not sent again");
}

/// Part of the list ran: the refusal of the rest says nothing about that part.
#[test]
fn rule_8_holds_for_a_list_of_which_a_part_was_refused() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let lists = answered_after_the_candidate_spoke(&stage, "INCR b", || {
        let client = Arc::clone(&client);
        let lists = spawn(move || run(&client, &["INCR a", "INCR b"]));
        stage.p.wait_count("INCR b", 1, SOON);
        // The first command has run.
        stage.p.state(|state| state.readonly = true);
        lists
    });
    let error = fails(Status::Io, join(&lists));
    doubtful(&error);
    let kept = error.reply().map(json).unwrap_or_default();
    assert!(kept.starts_with(r#"[1,{"error":"READONLY "#), "{kept}");
    assert_eq!((stage.p.count("INCR"), stage.r.count("INCR")), (2, 0), "nothing is sent again");
}

/// Replies just after the candidate has said that it is a primary.
fn answered_late(lines: &[&str], keys: &[&str]) -> Result<Reply> {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.p.state(|state| {
        keys.iter().for_each(|key| _ = state.data.insert(key.as_bytes().to_vec(), b"data".to_vec()));
    });
    let name = lines[0].split(' ').next().expect("a name").to_owned();
    let flags = if lines.len() > 1 { 0 } else { CallFlags::EACH };
    let flags = CallFlags::from_bits(flags).expect("known");
    let commands = list(lines);
    let call = || spawn(move || client.cmds_exec(&commands, flags, Timeout::Default));
    join(&answered_after_the_candidate_spoke(&stage, &name, call))
}

#[test]
fn rule_8_a_pop_that_timed_out_has_taken_nothing() {
    let null = answered_late(&["BLPOP q 1"], &[]).expect("a null is a null");
    assert_eq!(json(&null), "null");
    // A null reply of a command that has written.
    doubtful(&answered_late(&["SET new v GET"], &[]).expect_err("it is written"));
}

#[test]
fn rule_8_what_a_doubtful_answer_carried_is_kept() {
    for (lines, kept) in [
        (&["BLPOP q 1"][..], r#"["q","data"]"#),
        (&["LPOP q"], r#""data""#),
        (&["LPOP q", "GET q"], r#"["data",null]"#),
    ] {
        let error = answered_late(lines, &["q"]).expect_err("the pop may be lost with the primary");
        doubtful(&error);
        assert_eq!(error.reply().map(json).as_deref(), Some(kept), "{lines:?}");
    }
}

#[test]
fn rule_8_an_answer_before_the_candidate_spoke_is_a_success() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let write = in_flight(&stage, &client);
    stage.begin(0);
    stage.select(0);
    stage.told.wait_fence(true, "+try-failover");
    stage.r.wait_count("ROLE", 2, SOON);
    stage.p.clear_faults();
    assert_eq!(join_ok(&write), "OK");
}

/// A refused command was not executed, in a list either: nothing is in doubt, and the whole list runs on the next
/// primary.
#[test]
fn rule_8_a_list_that_was_refused_whole_is_not_in_doubt() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.p.fault("INCR", Fault::Stall);
    let other = Arc::clone(&client);
    let lists = spawn(move || run(&other, &["INCR a", "INCR b"]));
    stage.p.wait_count("INCR", 1, SOON);
    let failover_seq = stage.service().failover_seq();
    stage.begin(0);
    stage.select(0);
    stage.promote();
    speaks(&stage, failover_seq);
    stage.p.state(|state| state.readonly = true);
    stage.p.clear_faults();
    eventually("the refusals were read", SOON, || counter(&client, "retries") >= 1);
    stage.switch_all();
    assert_eq!(json(&join(&lists).expect("it runs on the next primary")), "[1,1]");
}

#[test]
fn rule_8_what_is_in_flight_at_the_switch_ends_with_it() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let write = in_flight(&stage, &client);
    stage.begin(0);
    stage.switch_all();
    // Without another call, and without a reply.
    doubtful(&fails(Status::Io, join(&write)));
    assert_eq!((stage.p.count("SET"), stage.r.count("SET")), (1, 0), "not sent again");
    ok(&client, "SET k next");
    assert_eq!(stage.r.count("SET"), 1);
}

#[test]
fn rule_9_eager_takes_the_candidate_at_its_word() {
    let stage = stage(3, &[("failover.probe", "eager")]);
    let client = warm(&stage);
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "+try-failover");
    stage.r.wait_count("ROLE", 3, SOON);
    let write = later(&client, "SET k new");
    assert_eq!((stage.told.switches().len(), stage.p.count("SET")), (0, 0));
    stage.promote();
    assert_eq!(join_ok(&write), "OK");
    assert_eq!((stage.r.count("SET"), at(&stage.service())), (1, stage.r.addr()));
    let switch = stage.told.wait("a switch", SOON, |told| told.is_switch());
    assert_eq!((switch.get("from"), switch.get("to")), (&*stage.p.addr(), &*stage.r.addr()));
    // The Sentinels, which still name the old primary, do not undo it; when they follow, that is no second switch.
    stage.sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)).ok();
    assert_eq!(at(&stage.service()), stage.r.addr());
    stage.switch_all();
    stage.sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)).expect("they agree");
    ok(&client, "SET k newer");
    assert_eq!((stage.told.switches().len(), stage.r.count("SET"), stage.p.count("SET")), (1, 2, 0));
    assert_eq!(stage.service().load().epoch, 6);
}

/// It was taken under a newer epoch than that of the old primary: neither repetition nor an old primary that is up
/// leads back.
#[test]
fn rule_9_what_the_sentinels_still_name_does_not_turn_the_candidate_back() {
    let stage = stage(3, &[("failover.probe", "eager")]);
    let client = warm(&stage);
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "+try-failover");
    stage.promote();
    stage.wait_primary(&stage.r.addr());
    for poll in 1..=3 {
        let _ = stage.sentinel.refresh(Some(SERVICE), Deadline::after(SOON));
        assert_eq!(at(&stage.service()), stage.r.addr(), "turned back by poll {poll}");
        ok(&client, &format!("SET k {poll}"));
    }
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), stage.told.switches().len()), (3, 0, 1));
}

#[test]
fn rule_9_a_question_under_way_does_not_turn_the_candidate_back() {
    let stage = stage(3, &[("failover.probe", "eager"), ("timeout.sentinel", "3000")]);
    let client = warm(&stage);
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "+try-failover");
    stage.r.wait_count("ROLE", 2, SOON);
    // The Sentinels are asked while the old primary is up, and answer after it was left.
    let asked: Vec<_> = stage.watch.iter().map(|one| one.count("SENTINEL GET-MASTER-ADDR-BY-NAME")).collect();
    stage.watch.iter().for_each(|one| one.fault("SENTINEL MASTER", Fault::Delay(Duration::from_millis(300))));
    let service = stage.service();
    spawn(move || drop(service.discover(service.discovered(), vigie::time::Deadline::after(SOON))));
    for (one, asked) in stage.watch.iter().zip(asked) {
        one.wait_count("SENTINEL GET-MASTER-ADDR-BY-NAME", asked + 1, SOON);
    }
    let discovered = stage.service().discovered();
    stage.promote();
    stage.wait_primary(&stage.r.addr());
    eventually("the question is over", SOON, || stage.service().discovered() > discovered);
    assert_eq!(at(&stage.service()), stage.r.addr());
    assert!(!stage.service().is_fenced(), "the flag of the failover that is over");
    ok(&client, "SET k new");
    assert_eq!((stage.told.switches().len(), stage.r.count("SET"), stage.p.count("SET")), (1, 1, 0));
}

#[test]
fn rule_9_auto_waits_for_the_leader_when_the_primary_lives() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let failover_seq = stage.service().failover_seq();
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "+try-failover");
    let write = later(&client, "SET k new");
    stage.promote();
    speaks(&stage, failover_seq);
    assert_eq!((at(&stage.service()), stage.r.count("SET")), (stage.p.addr(), 0));
    assert!(stage.service().is_fenced());
    // Only the leader is committed; the two others still name the old primary.
    stage.commit(1);
    assert_eq!(join_ok(&write), "OK");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), at(&stage.service())), (1, 0, stage.r.addr()));
    assert_eq!(stage.told.switches().len(), 1);
}

/// The user has lost the right to ask which primary the Sentinels name; their events are heard.
#[test]
fn rule_9_the_leaders_word_and_the_candidates_are_enough_where_nobody_may_be_asked() {
    for committed_first in [false, true] {
        let stage = stage(3, &[]);
        let client = warm(&stage);
        stage.listened();
        let refusal = "NOPERM User vig has no permissions to run the 'sentinel|get-master-addr-by-name' command";
        let asks = "SENTINEL GET-MASTER-ADDR-BY-NAME";
        stage.watch.iter().for_each(|one| one.fault(asks, Fault::Error(refusal.into())));
        let failover_seq = stage.service().failover_seq();
        stage.begin(1);
        stage.select(1);
        stage.told.wait_fence(true, "+try-failover");
        let write = later(&client, "SET k new");
        if committed_first {
            stage.commit(1);
            stage.told.wait_word("+promoted-slave");
            assert_eq!((at(&stage.service()), stage.r.count("SET")), (stage.p.addr(), 0), "it is a replica still");
            stage.promote();
        } else {
            stage.promote();
            speaks(&stage, failover_seq);
            stage.commit(1);
        }
        assert_eq!(join_ok(&write), "OK");
        assert_eq!((stage.r.count("SET"), stage.p.count("SET"), at(&stage.service())), (1, 0, stage.r.addr()));
        let refused = |told: &Told| told.get("cause") == "questions_refused" && told.get("reason").contains("NOPERM");
        eventually("it is told", SOON, || {
            drop(stage.sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)));
            stage.told.count(refused) == 3
        });
    }
}

#[test]
fn rule_2_an_unknown_candidate_of_a_single_sentinel_is_not_taken() {
    for probe in ["auto", "eager"] {
        let stage = stage(3, &[("failover.probe", probe)]);
        let client = warm(&stage);
        stage.listened();
        let stranger = Scripted::primary();
        let failover_seq = stage.service().failover_seq();
        stage.word(1, "+odown");
        stage.begin(1);
        let (s, p) = (stranger.port(), stage.p.port());
        let about = format!("slave 127.0.0.1:{s} 127.0.0.1 {s} @ {SERVICE} 127.0.0.1 {p}");
        stage.watch[1].publish("+selected-slave", &about);
        stage.watch[1].publish("+promoted-slave", &about);
        speaks(&stage, failover_seq);
        stage.told.wait_word("+promoted-slave");
        stage.polled();
        assert_eq!(at(&stage.service()), stage.p.addr(), "{probe}");
        stage.abort(1, "no-good-slave");
        stage.told.wait_fence(false, "");
        ok(&client, "SET k v");
        assert_eq!((stage.told.switches().len(), stranger.count("SET")), (0, 0), "{probe}");
    }
}

#[test]
fn rule_9_auto_takes_the_candidate_when_the_primary_is_dead() {
    // Announced by an event, or found as a flag by a poll.
    for announced in [true, false] {
        let stage = stage(3, &[]);
        let client = warm(&stage);
        stage.p.down();
        stage.flags(1, "master,s_down,o_down");
        if announced {
            stage.word(1, "+sdown");
            stage.word(1, "+odown");
        } else {
            let discovered = stage.service().discovered();
            let service = stage.service();
            spawn(move || drop(service.discover(service.discovered(), vigie::time::Deadline::after(SOON))));
            eventually("a poll is over", SOON, || stage.service().discovered() > discovered);
        }
        stage.begin(1);
        stage.select(1);
        stage.told.wait_fence(true, "");
        let write = later(&client, "SET k new");
        stage.promote();
        assert_eq!(join_ok(&write), "OK");
        assert_eq!((stage.r.count("SET"), at(&stage.service())), (1, stage.r.addr()), "announced: {announced}");
    }
}

/// The new primary dies before the Sentinels list the former one as its replica.
#[test]
fn rule_9_the_former_primary_is_a_candidate_that_is_known() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.listened();
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    stage.p.state(|state| state.role = FakeRole::replica_of(&stage.r.addr()));
    stage.polled();
    ok(&client, "SET k between");
    stage.r.down();
    stage.flags(1, "master,s_down,o_down,failover_in_progress");
    let (p, r) = (stage.p.port(), stage.r.port());
    for channel in ["+sdown", "+odown", "+try-failover"] {
        stage.watch[1].publish(channel, &format!("master {SERVICE} 127.0.0.1 {r}"));
    }
    let asked = stage.p.count("ROLE");
    stage.watch[1].publish("+selected-slave", &format!("slave 127.0.0.1:{p} 127.0.0.1 {p} @ {SERVICE} 127.0.0.1 {r}"));
    stage.told.wait_fence(true, "");
    // It has said that it is a replica: what it says from now on means that it was promoted.
    stage.p.wait_count("ROLE", asked + 3, SOON);
    let write = later(&client, "SET k new");
    stage.p.state(|state| state.role = FakeRole::Primary);
    assert_eq!(join_ok(&write), "OK");
    assert_eq!(at(&stage.service()), stage.p.addr());
}

#[test]
fn rule_9_auto_takes_the_candidate_when_its_leader_and_we_have_lost_the_primary() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.p.down();
    stage.flags(1, "master,s_down");
    stage.word(1, "+sdown");
    let write = later(&client, "SET k new");
    eventually("it is out of reach", SOON, || stage.service().suspicion().is_some());
    stage.begin(1);
    stage.flags(1, "master,s_down,failover_in_progress");
    stage.select(1);
    stage.told.wait_fence(true, "");
    stage.promote();
    assert_eq!(join_ok(&write), "OK");
    assert_eq!((stage.r.count("SET"), at(&stage.service())), (1, stage.r.addr()));
}

/// A primary that was lost for a moment and found again is not lost: what only its leader says does not make it dead.
#[test]
fn rule_9_auto_waits_for_the_leader_when_a_lost_primary_was_found_again() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    let service = stage.service();
    stage.p.down();
    let write = later(&client, "SET k lost");
    eventually("it is out of reach", SOON, || service.suspicion().is_some());
    stage.p.up();
    assert_eq!(join_ok(&write), "OK");
    eventually("it is found again", SOON, || service.suspicion().is_none());
    stage.flags(1, "master,s_down");
    stage.word(1, "+sdown");
    stage.told.wait_word("+sdown");
    let failover_seq = service.failover_seq();
    stage.begin(1);
    stage.select(1);
    stage.told.wait_fence(true, "");
    let write = later(&client, "SET k new");
    stage.promote();
    speaks(&stage, failover_seq);
    assert_eq!((at(&service), stage.r.count("SET")), (stage.p.addr(), 0), "not before the leader is committed");
    stage.commit(1);
    assert_eq!(join_ok(&write), "OK");
    assert_eq!((stage.r.count("SET"), at(&service)), (1, stage.r.addr()));
}

#[test]
fn rule_9_off_waits_for_what_the_sentinels_agree_on() {
    let stage = stage(3, &[("failover.probe", "off")]);
    let client = warm(&stage);
    let failover_seq = stage.service().failover_seq();
    stage.word(0, "+odown");
    stage.begin(0);
    stage.select(0);
    stage.told.wait_fence(true, "+try-failover");
    stage.promote();
    speaks(&stage, failover_seq);
    assert_eq!(at(&stage.service()), stage.p.addr());
    held_back(within(&client, "SET k v", 50));
    stage.switch_all();
    ok(&client, "SET k new");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), stage.told.switches().len()), (1, 0, 1));
}

#[test]
fn fence_off_holds_nothing_back_and_still_switches() {
    let stage = stage(3, &[("failover.fence", "off")]);
    let client = warm(&stage);
    stage.begin(0);
    stage.told.wait_word("+try-failover");
    ok(&client, "SET k meanwhile");
    assert_eq!((stage.p.count("SET"), stage.service().is_fenced()), (1, false));
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    ok(&client, "SET k after");
    assert_eq!((stage.r.count("SET"), stage.told.count(|told| told.kind == kind::FENCE)), (1, 0));
}

#[test]
fn fence_off_still_asks_the_candidate() {
    let stage = stage(3, &[("failover.fence", "off"), ("failover.probe", "eager")]);
    let client = warm(&stage);
    let write = in_flight(&stage, &client);
    stage.begin(0);
    stage.select(0);
    stage.r.wait_count("ROLE", 4, SOON);
    stage.promote();
    doubtful(&fails(Status::Io, join(&write)));
    stage.wait_primary(&stage.r.addr());
}

#[test]
fn the_same_address_may_become_primary_again() {
    let stage = stage(3, &[]);
    let client = warm(&stage);
    stage.switch_all();
    stage.wait_primary(&stage.r.addr());
    ok(&client, "SET k one");
    stage.p.state(|state| state.role = FakeRole::replica_of(&stage.r.addr()));
    stage.watch.iter().for_each(|one| one.service(SERVICE, |state| state.add_replica(&stage.p.addr())));
    stage.sentinel.refresh(Some(SERVICE), vigie::time::Deadline::after(SOON)).expect("they agree");
    stage.p.state(|state| state.role = FakeRole::Primary);
    stage.r.state(|state| state.role = FakeRole::replica_of(&stage.p.addr()));
    for one in &stage.watch {
        one.switch_master(SERVICE, &stage.p.addr());
    }
    stage.wait_primary(&stage.p.addr());
    ok(&client, "SET k two");
    assert_eq!((stage.r.count("SET"), stage.p.count("SET"), stage.service().load().epoch), (1, 1, 7));
    // The fence works as before.
    stage.begin(0);
    stage.told.wait_fence(true, "+try-failover");
    held_back(within(&client, "SET k three", 40));
}

#[test]
fn monitor_off_asks_only_when_something_fails() {
    let p = Scripted::primary();
    let watch = Scripted::sentinels(2, SERVICE, &p.addr());
    let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
    let sentinel = sentinel_at(&addrs, &[("monitor", "off"), ("monitor.interval", "100")]);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    eventually("no connection is left", SOON, || watch.iter().all(|one| one.connections() == 0));
    let asked = || watch.iter().map(|one| one.count("SENTINEL GET-MASTER-ADDR-BY-NAME")).sum::<usize>();
    let (before, began) = (asked(), std::time::Instant::now());
    while began.elapsed() < Duration::from_millis(600) {
        ok(&client, "SET k v");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((asked(), watch.iter().map(|one| one.count("PSUBSCRIBE")).sum::<usize>()), (before, 0));
    // The primary changes without an event: the first failure causes a discovery.
    let r = Scripted::primary();
    p.down();
    for one in &watch {
        one.switch_master(SERVICE, &r.addr());
    }
    ok(&client, "SET k new");
    assert!(asked() > before && r.count("SET") == 1);
    eventually("no connection is left", SOON, || watch.iter().all(|one| one.connections() == 0));
}

/// Nothing fails while writes wait, so only the waiting call can cause a discovery.
#[test]
fn rule_6_without_a_monitor_the_waiting_call_ends_the_fence() {
    for (fence_max, flag_stays) in [("60000", false), ("1500", true)] {
        let p = Scripted::primary();
        let watch = Scripted::sentinels(2, SERVICE, &p.addr());
        let addrs: Vec<String> = watch.iter().map(|one| one.addr()).collect();
        let sentinel = sentinel_at(&addrs, &[("monitor", "off"), ("failover.fence_max", fence_max)]);
        watch[0].service(SERVICE, |state| state.flags = "master,failover_in_progress".into());
        let client = to_primary(&sentinel, &[]);
        // On a slow machine a discovery takes longer than the time of the held back call.
        sentinel.refresh(Some(SERVICE), Deadline::after(SOON)).expect("the primary is there");
        held_back(within(&client, "SET k early", 200));
        if !flag_stays {
            watch[0].service(SERVICE, |state| state.flags = "master".into());
        }
        cmd(&client, "SET k called").expect("the fence has come down");
        assert_eq!(p.count("SET"), 1);
    }
}

#[test]
fn row_105_monitor_disconnect_keeps_no_connection_between_polls() {
    let deployment = single("disconnect");
    let node = deployment.node("sentinel-0");
    let options = [("monitor", "disconnect"), ("monitor.interval", "400"), ("client.name", "seldom")];
    let sentinel = sentinel_of(&deployment, &options);
    let client = to_primary(&sentinel, &[]);
    ok(&client, "SET k v");
    let service = sentinel.service(SERVICE);
    let mut empty = 0;
    for _ in 0..3 {
        let polled = service.discovered();
        eventually("the next poll", SOON, || service.discovered() > polled);
        eventually("CLIENT LIST is empty", Duration::from_millis(300), || node.clients_named("seldom").is_empty());
        empty += 1;
    }
    assert_eq!(empty, 3);
    assert!(node.calls("psubscribe") == 0 && node.client_list().iter().all(|client| client.name != "seldom"));
    // With events too: one connection for events, one for questions.
    let sentinel = sentinel_of(&deployment, &[("client.name", "listener")]);
    ok(&to_primary(&sentinel, &[]), "SET k v");
    eventually("two connections are left", SOON, || {
        let named = node.clients_named("listener");
        named.len() == 2 && named.iter().filter(|client| client.listens()).count() == 1
    });
}

#[test]
fn row_105_monitor_disconnect_follows_a_switch_by_its_polls() {
    let p = Scripted::primary();
    let r = Scripted::replica(&p.addr());
    let watch = told(&p.addr(), &[r.addr()]);
    let sentinel = handle(&watch, &[("monitor", "disconnect"), ("monitor.interval", "150")]);
    let (client, events) = (to_primary(&sentinel, &[]), Watch::on(&sentinel));
    ok(&client, "SET k v");
    watch.service(SERVICE, |state| state.flags = "master,failover_in_progress".into());
    events.wait_fence(true, "failover_in_progress");
    held_back(within(&client, "SET k v", 40));
    r.state(|state| state.role = FakeRole::Primary);
    watch.service(SERVICE, |state| {
        state.flags = "master".into();
        state.switch_to(&r.addr());
    });
    events.wait("a switch", SOON, |told| told.is_switch());
    ok(&client, "SET k new");
    assert_eq!((p.count("SET"), r.count("SET"), watch.count("PSUBSCRIBE")), (1, 1, 0));
}

#[test]
fn rule_5_the_flag_of_a_sentinel_in_tilt_raises_the_fence_and_its_silence_does_not_lower_it() {
    let stage = stage(3, &[("monitor.interval", "200")]);
    let client = warm(&stage);
    stage.watch[2].state(|state| state.tilt = true);
    stage.flags(2, "master,failover_in_progress");
    stage.told.wait_fence(true, "failover_in_progress");
    let write = later(&client, "SET k held");
    stage.flags(2, "master");
    let asked = stage.watch[2].count("SENTINEL REPLICAS");
    stage.watch[2].wait_count("SENTINEL REPLICAS", asked + 2, SOON);
    assert!(stage.service().is_fenced() && stage.p.count("SET") == 0, "{:?}", stage.told.all());
    stage.watch[2].state(|state| state.tilt = false);
    stage.told.wait_fence(false, "failover_in_progress");
    assert_eq!(join_ok(&write), "OK");
}
