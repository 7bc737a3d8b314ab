//! Rules 8 and 10 to 16 on the retry engine: a table of outcomes and what follows, and random histories against a model of a server.

use std::time::Duration;

use super::*;
use crate::plan::Shape;
use crate::resp::{Kind, ReplyBuilder, encode};

impl NodeId for &'static str {
    fn name(&self) -> &str {
        self
    }

    fn is(&self, other: &Self) -> bool {
        self == other
    }
}

const I: u32 = CallFlags::IDEMPOTENT;
const N: u32 = CallFlags::NO_RETRY;
/// In front of commands that are one transaction.
const ATOMIC: &str = "ATOMIC ";

fn encoded(commands: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands.trim_start_matches(ATOMIC).split("; ") {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        encode::command(&mut bytes, &args);
    }
    bytes
}

/// The plan of these commands: a list if there is a semicolon, one transaction behind the word.
fn plan<'a>(commands: &str, bytes: &'a [u8]) -> Plan<'a> {
    match () {
        () if commands.starts_with(ATOMIC) => Plan::atomic(bytes).unwrap(),
        () if commands.contains(';') => Plan::list(bytes).unwrap(),
        () => Plan::one(bytes).unwrap(),
    }
}

/// An outcome from a few words: `ok`, `null`, an error line, or of a list its replies with `|` between them; `cut`, `timeout` or a
/// status, with how much was sent (`none`, `part`, `first`, `all`).
fn outcome(plan: &Plan<'_>, from: usize, words: &str) -> Outcome {
    outcome_of(plan, Stretch { from, by_body: false }, words)
}

fn outcome_of(plan: &Plan<'_>, stretch: Stretch, words: &str) -> Outcome {
    let (what, sent) = words.split_once(' ').unwrap_or((words, ""));
    let whole = plan.unit_of(stretch).bytes.len();
    let sent = match sent.trim_end_matches(" head") {
        "none" => 0,
        "part" => plan.first_len_of(stretch) - 1,
        "first" => plan.first_len_of(stretch),
        _ => whole,
    };
    let failed = |status| {
        let error = Error::new(status, "the attempt failed").with_endpoint("n");
        Err(Failure { sent, error, at_head: words.ends_with("head") })
    };
    match what {
        "cut" => failed(Status::Io),
        "timeout" => failed(Status::Timeout),
        "connect" => failed(Status::Connect).map_err(|failure| with_flag(failure, flags::RETRYABLE)),
        "refused-for-good" => failed(Status::Connect),
        "role" => failed(Status::Role),
        "protocol" => failed(Status::Protocol),
        "limit" => failed(Status::Limit),
        "replicas" => failed(Status::Replicas),
        _ => Ok(replies(plan, words)),
    }
}

fn with_flag(failure: Failure, flag: u32) -> Failure {
    Failure { error: failure.error.with_flags(flag), ..failure }
}

fn replies(plan: &Plan<'_>, words: &str) -> Reply {
    let mut reply = ReplyBuilder::new();
    let one = |reply: &mut ReplyBuilder, word: &str| {
        _ = match word {
            "ok" => reply.text("OK"),
            "null" => reply.null(),
            "queued" => reply.text_of(Kind::Status, b"QUEUED"),
            // The results of a transaction.
            words if words.starts_with('[') => {
                reply.array();
                words.trim_matches(['[', ']']).split(',').for_each(|word| match word {
                    "ok" => _ = reply.text("OK"),
                    line => _ = reply.error(line),
                });
                reply.end()
            }
            line => reply.error(line),
        }
    };
    if plan.shape() == Shape::One {
        one(&mut reply, words);
        return reply.finish();
    }
    reply.array();
    words.split('|').for_each(|word| one(&mut reply, word));
    reply.end().finish()
}

fn leg(node: &'static &'static str) -> Leg<'static, &'static str> {
    let now = Instant::now();
    Leg { node, replica: false, pinned: false, doubted: false, version: 7, discovered: 3, now }
}

/// The step in a few words: `done`, `again` or `over STATUS`, then `maybe`, `retry`, and what is reported about the node.
fn in_words(step: &Step, effect: &Option<Effect>) -> String {
    let flagged = |error: &Error| {
        let maybe = if error.has(flags::MAYBE_EXECUTED) { " maybe" } else { "" };
        let retry = if error.has(flags::RETRYABLE) { " retry" } else { "" };
        format!("{maybe}{retry}")
    };
    let told = match effect {
        None => "",
        Some(Effect::Doubt(_)) => " +doubt",
        Some(Effect::Suspect(_)) => " +suspect",
        Some(Effect::CoolDown(_)) => " +cool",
    };
    match step {
        Step::Done(_) => format!("done{told}"),
        Step::Again(error) => format!("again{}{told}", flagged(error)),
        Step::Over(error) => format!("over {:?}{}{told}", error.status(), flagged(error)),
    }
}

const READONLY: &str = "READONLY You can't write against a read only replica.";
const LOADING: &str = "LOADING Redis is loading the dataset in memory";
const UNBLOCKED: &str = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
const IN_SCRIPT: &str =
    "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.";

/// The rule, the commands, the call's flags, the outcome of its first attempt on the primary, and what follows.
const TABLE: &[(&str, &str, u32, &str, &str)] = &[
    // 10 a: a command that was certainly not sent whole was not executed.
    ("10a", "INCR k", 0, "cut none", "again retry +suspect"),
    ("10a", "INCR k", 0, "cut part", "again retry +suspect"),
    ("10a", "INCR k", 0, "timeout none", "again retry +suspect"),
    ("10a", "INCR k", 0, "timeout part", "again retry +suspect"),
    ("10a", "INCR k", 0, "connect none", "again retry +suspect"),
    ("10a", "INCR k", 0, "role none", "again retry +suspect"),
    ("10a", "INCR k", N, "cut part", "again retry +suspect"),
    ("10a", "EVAL s 0", 0, "cut part", "again retry +suspect"),
    ("10a", "SCAN 5", 0, "cut part", "again retry +suspect"),
    ("10a", "INCR a; INCR b", 0, "cut part", "again retry +suspect"),
    ("10a", "INCR k", 0, "refused-for-good none", "over Connect"),
    ("10a", "INCR k", 0, "limit none", "over Limit"),
    // 10: the caller gets the unknown outcome of a write.
    ("10", "INCR k", 0, "cut all", "over Io maybe +suspect"),
    ("10", "INCR k", 0, "timeout all", "over Timeout maybe +suspect"),
    ("10", "INCR k", 0, "protocol all", "over Protocol maybe +suspect"),
    ("10", "NEW.COMMAND k", 0, "cut all", "over Io maybe +suspect"),
    ("10", "EVAL s 0", 0, "cut all", "over Io maybe +suspect"),
    ("10", "INCR a; INCR b", 0, "cut all", "over Io maybe +suspect"),
    ("10", "INCR a; INCR b", 0, "cut first", "over Io maybe +suspect"),
    ("10", "GET a; INCR b", 0, "cut first", "over Io maybe +suspect"),
    // 10 b: what only reads is sent again, the SCAN family excepted.
    ("10b", "GET k", 0, "cut all", "again maybe retry +suspect"),
    ("10b", "GET k", 0, "timeout all", "again maybe retry +suspect"),
    ("10b", "GET k", 0, "protocol all", "again maybe retry"),
    ("10b", "GET a; GET b", 0, "cut all", "again maybe retry +suspect"),
    ("10b", "SCAN 5", 0, "cut all", "over Io maybe +suspect"),
    ("10b", "HSCAN h 0", 0, "timeout all", "over Timeout maybe +suspect"),
    ("10b", "SCAN 0; GET k", 0, "cut all", "over Io maybe +suspect"),
    ("10b", "GET k", N, "cut all", "over Io maybe retry"),
    // 10 c: the caller allows it.
    ("10c", "INCR k", I, "cut all", "again maybe retry +suspect"),
    ("10c", "EVAL s 0", I, "timeout all", "again maybe retry +suspect"),
    ("10c", "SCAN 5", I, "cut all", "again maybe retry +suspect"),
    ("10c", "INCR k", I | N, "cut all", "over Io maybe retry"),
    ("10c", "INCR k", I, "limit all", "over Limit maybe +suspect"),
    // 10 d: the server says that it did not run.
    ("10d", "INCR k", 0, READONLY, "again retry +doubt"),
    ("10d", "INCR k", 0, "MASTERDOWN Link with MASTER is down", "again retry +doubt"),
    ("10d", "GET k", 0, "MASTERDOWN Link with MASTER is down", "again retry +doubt"),
    ("10d", "INCR k", 0, LOADING, "again retry"),
    ("10d", "INCR k", 0, "BUSY Redis is busy running a script.", "again retry"),
    ("10d", "INCR k", 0, "NOREPLICAS Not enough good replicas to write.", "done"),
    ("10d", "INCR k", 0, "MISCONF Redis is configured to save RDB snapshots", "done"),
    ("10d", "INCR k", 0, "OOM command not allowed", "done"),
    ("10d", "INCR k", 0, "WRONGTYPE Operation against a key", "done"),
    ("10d", "INCR k", N, LOADING, "over Server retry"),
    ("10d", "SCAN 5", 0, LOADING, "again retry"),
    // Never for a script: what it did before the refusal was executed.
    ("10d", "EVAL s 0", 0, READONLY, "done +doubt"),
    ("10d", "EVAL s 0", 0, IN_SCRIPT, "done +doubt"),
    ("10d", "FCALL f 0", 0, LOADING, "done"),
    ("10d", "EVAL s 0", I, READONLY, "done +doubt"),
    ("10d", "EVAL s 0; INCR k", 0, "ok|READONLY no", "done +doubt"),
    // Unblocked by a demotion: only for commands that wait for data, never for WAIT.
    ("10d", "BLPOP q 0", 0, UNBLOCKED, "again retry +doubt"),
    ("10d", "BLPOP q 0", 0, "UNBLOCKED client unblocked via CLIENT UNBLOCK", "done"),
    ("10d", "WAIT 1 0", 0, UNBLOCKED, "done +doubt"),
    ("10d", "MODULE.BLOCKS k 0", 0, UNBLOCKED, "done +doubt"),
    ("10d", "INCR k; GET k", 0, LOADING_BOTH, "again retry"),
    // 11: only the end of a list, of which nothing was executed.
    ("11", "INCR a; INCR b", 0, "ok|ok", "done"),
    ("11", "INCR a; INCR b", 0, "ok|READONLY no", "again retry +doubt"),
    ("11", "INCR a; INCR b", 0, "READONLY no|READONLY no", "again retry +doubt"),
    ("11", "INCR a; INCR b", 0, "READONLY no|ok", "done +doubt"),
    ("11", "INCR a; GET b; INCR c", 0, "READONLY no|ok|READONLY no", "again retry +doubt"),
    ("11", "INCR a; INCR b", 0, "WRONGTYPE no|READONLY no", "again retry +doubt"),
    ("11", "INCR a; INCR b", N, "ok|READONLY no", "over Server retry +doubt"),
    // 11: a transaction is sent again as a whole, as long as the last byte of EXEC was not sent, or if the server has discarded it for
    // a reason that passes. What was sent completely is never sent again, even if it only reads.
    ("11", "ATOMIC INCR a; INCR b", 0, "ok|queued|queued|[ok,ok]", "done"),
    ("11", "ATOMIC INCR a; INCR b", 0, "cut none", "again retry +suspect"),
    ("11", "ATOMIC INCR a; INCR b", 0, "cut part", "again retry +suspect"),
    ("11", "ATOMIC INCR a; INCR b", 0, "timeout part", "again retry +suspect"),
    ("11", "ATOMIC EVAL s 0", 0, "cut part", "again retry +suspect"),
    ("11", "ATOMIC INCR a; INCR b", 0, "cut all", "over Io maybe +suspect"),
    ("11", "ATOMIC INCR a; INCR b", 0, "timeout all", "over Timeout maybe +suspect"),
    ("11", "ATOMIC GET a; GET b", 0, "cut all", "over Io maybe +suspect"),
    ("11", "ATOMIC INCR a; INCR b", N, "cut part", "again retry +suspect"),
    ("11", "ATOMIC INCR a", 0, "ok|READONLY no|EXECABORT previous errors.", "again retry +doubt"),
    ("11", "ATOMIC EVAL s 0", 0, "ok|READONLY no|EXECABORT previous errors.", "again retry +doubt"),
    ("11", "ATOMIC INCR a", 0, "ok|queued|EXECABORT because of: READONLY no", "again retry +doubt"),
    ("11", "ATOMIC INCR a", 0, "ok|queued|EXECABORT because of: LOADING no", "again retry"),
    ("11", "ATOMIC INCR a", 0, "ok|queued|EXECABORT because of: NOREPLICAS no", "over Server retry"),
    ("11", "ATOMIC INCR a", 0, "ok|queued|EXECABORT because of: OOM no", "over Server"),
    ("11", "ATOMIC INCR a", N, "ok|READONLY no|EXECABORT previous errors.", "over Server retry +doubt"),
    ("11", "ATOMIC NO.SUCH a; INCR b", 0, "ok|ERR unknown|queued|EXECABORT previous errors.", "over Server"),
    (
        "11",
        "ATOMIC NO.SUCH a; INCR b",
        0,
        "ok|ERR unknown|READONLY no|EXECABORT previous errors.",
        "over Server +doubt",
    ),
    // It ran: the errors of single commands are among its results, and show what the node is.
    ("11", "ATOMIC INCR a; INCR b", 0, "ok|queued|queued|[WRONGTYPE no,ok]", "done"),
    ("11", "ATOMIC EVAL s 0; INCR b", 0, "ok|queued|queued|[READONLY no,ok]", "done +doubt"),
    ("11", "ATOMIC INCR a; INCR b", 0, "ok|queued|queued|null", "over TxnAborted retry"),
    // MULTI was refused all the same: what ran without it is in doubt, and what was refused with it is not.
    ("11", "ATOMIC INCR a; INCR b", 0, "NOPERM no|ok|ok|ERR EXEC without MULTI", "over Unsupported maybe"),
    ("11", "ATOMIC EVAL s 0", 0, "NOPERM no|ERR in the script|ERR EXEC without MULTI", "over Unsupported maybe"),
    ("11", "ATOMIC INCR a; INCR b", 0, "NOPERM no|NOPERM no|NOPERM no|NOPERM no", "over Unsupported"),
    ("11", "ATOMIC INCR a", 0, "LOADING no|LOADING no|ERR EXEC without MULTI", "again retry"),
    // EXEC was refused: nothing ran.
    ("11", "ATOMIC INCR a", 0, "ok|queued|NOPERM no", "over Unsupported"),
    ("11", "ATOMIC INCR a", 0, "ok|queued|ok", "over Protocol maybe"),
    // 16: a write with too few replicas is known to have been executed.
    ("16", "INCR k", 0, "replicas all", "over Replicas"),
];

const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";
const NO_HASHES: &str = "NOPERM User app has no permissions to run the 'evalsha' command";

/// With a script `b` that was seen before, of which `SHA` is the hash: the commands, the outcome of the first attempt and what
/// follows, then the same of the second one.
const SCRIPTS: &[(&str, &str, &str, &str, &str)] = &[
    ("EVAL b 0", "ok", "done", "", ""),
    ("EVAL b 0", NOSCRIPT, "again retry", "ok", "done"),
    ("EVAL_RO b 0", NOSCRIPT, "again retry", "ok", "done"),
    ("EVALSHA SHA 0", NOSCRIPT, "again retry", "ok", "done"),
    ("EVALSHA_RO SHA 0", NOSCRIPT, "again retry", "ok", "done"),
    // By its body it is the script as before: what is unknown stays unknown, and only what was not sent is sent again.
    ("EVAL b 0", NOSCRIPT, "again retry", "cut all", "over Io maybe +suspect"),
    ("EVALSHA SHA 0", NOSCRIPT, "again retry", "cut all", "over Io maybe +suspect"),
    ("EVAL b 0", NOSCRIPT, "again retry", "cut part", "again retry +suspect"),
    ("EVALSHA SHA 0", NOSCRIPT, "again retry", "cut part", "again retry +suspect"),
    ("EVAL b 0", NOSCRIPT, "again retry", READONLY, "done +doubt"),
    // These are the script's own words: a body cannot be lacking.
    ("EVAL b 0", NOSCRIPT, "again retry", NOSCRIPT, "done"),
    ("EVALSHA SHA 0", "NOSCRIPT the word of a script", "done", "", ""),
    // The hash is shorter than the body: sent as a whole it may have run.
    ("EVAL b 0", "cut all", "over Io maybe +suspect", "", ""),
    ("EVAL b 0", "cut part", "again retry +suspect", NOSCRIPT, "again retry"),
    ("EVAL b 0", READONLY, "done +doubt", "", ""),
    // A server that takes no hashes gets the body, unless the hash is the caller's own.
    ("EVAL b 0", NO_HASHES, "again retry", "ok", "done"),
    ("EVAL b 0", "ERR unknown command 'EVALSHA', with args beginning with: ", "again retry", "ok", "done"),
    ("EVALSHA SHA 0", NO_HASHES, "done", "", ""),
    ("EVAL b 0", "NOPERM User app has no permissions to run the 'get' command", "done", "", ""),
    ("EVALSHA 0123 0", NOSCRIPT, "done", "", ""),
    // Of a list only the last command: to repeat another one would run what follows it twice.
    ("INCR a; EVAL b 0", LACKS_LAST, "again retry", "ok", "done"),
    ("INCR a; EVALSHA SHA 0", LACKS_LAST, "again retry", "cut all", "over Io maybe +suspect"),
    ("EVALSHA SHA 0; INCR a", LACKS_FIRST, "done", "", ""),
    ("ATOMIC EVALSHA SHA 0", "ok|queued|[NOSCRIPT No matching script.]", "done", "", ""),
];

const LACKS_LAST: &str = "ok|NOSCRIPT No matching script. Please use EVAL.";
const LACKS_FIRST: &str = "NOSCRIPT No matching script. Please use EVAL.|ok";

#[test]
fn a_script_that_a_server_lacks_is_sent_by_its_body_once_and_at_once() {
    let scripts = crate::script::Scripts::default();
    let sha = [b"b", b"b"].map(|body| scripts.note(body))[1].expect("seen before");
    for (commands, first, then, second, end) in SCRIPTS {
        let commands = commands.replace(" SHA ", &format!(" {} ", String::from_utf8_lossy(&sha)));
        let bytes = encoded(&commands);
        let mut plan = plan(&commands, &bytes);
        plan.use_scripts(&scripts, true);
        let retry = RetrySettings { max: 1, ..crate::config::ClientSettings::default().retry };
        let mut attempt = Attempt::new(retry, Deadline::after(Duration::from_secs(5)));
        let step = |attempt: &mut Attempt<&'static str>, words: &str| {
            let outcome = outcome_of(&plan, attempt.sends(), words);
            attempt.conclude(&plan, CallFlags::default(), &leg(&"n"), outcome)
        };
        let (one, effect) = step(&mut attempt, first);
        assert_eq!(in_words(&one, &effect), *then, "{commands}: {first}");
        let Step::Again(error) = one else { continue };
        let next = attempt.next(error, facts(0.5));
        let is_at_once = attempt.sends().by_body;
        assert_eq!(matches!(next, Next::Again), is_at_once, "{commands}: {first}: {next:?}");
        assert_eq!(attempt.rounds() > 0, !is_at_once, "{commands}: the body of a script is no repetition");
        let (two, effect) = step(&mut attempt, second);
        assert_eq!(in_words(&two, &effect), *end, "{commands}: {first}, then {second}");
        if let Step::Done(reply) = two {
            let whole = attempt.whole(&plan, reply).expect("memory");
            assert_eq!(whole.count(0), if plan.shape() == Shape::List { plan.count() } else { 0 }, "{commands}");
        }
    }
    let late = Facts { closed: true, ..facts(0.5) };
    let bytes = encoded("EVAL b 0");
    let mut plan = plan("EVAL b 0", &bytes);
    plan.use_scripts(&scripts, true);
    let mut attempt = get_attempt(None);
    let (Step::Again(error), _) =
        attempt.conclude(&plan, CallFlags::default(), &leg(&"n"), Ok(replies(&plan, NOSCRIPT)))
    else {
        panic!("again")
    };
    assert!(matches!(attempt.next(error, late), Next::Over(_)), "not after a close");
}

const LOADING_BOTH: &str = "LOADING Redis is loading|LOADING Redis is loading";

fn first_step(commands: &str, call: u32, leg: &Leg<'_, &'static str>, words: &str) -> String {
    let bytes = encoded(commands);
    let plan = plan(commands, &bytes);
    let retry = crate::config::ClientSettings::default().retry;
    let mut attempt = Attempt::new(retry, Deadline::after(Duration::from_secs(5)));
    let outcome = outcome(&plan, 0, words);
    let (step, effect) = attempt.conclude(&plan, CallFlags::from_bits(call).unwrap(), leg, outcome);
    in_words(&step, &effect)
}

#[test]
fn rules_10_to_16_what_follows_from_the_first_attempt() {
    assert!(TABLE.len() >= 60, "{}", TABLE.len());
    let mut wrong = Vec::new();
    for (rule, commands, call, words, expected) in TABLE {
        let found = first_step(commands, *call, &leg(&"n"), words);
        if found != *expected {
            wrong.push(format!("rule {rule}: {commands} ({call:#x}), {words}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rule_8_what_was_answered_during_a_failover_is_no_success() {
    let doubted = || Leg { doubted: true, ..leg(&"n") };
    for (commands, words, expected) in [
        ("INCR k", "ok", "over Io maybe +suspect"),
        ("GET k", "ok", "done"),
        ("INCR k", "OOM command not allowed", "done"),
        ("INCR k", READONLY, "again retry +doubt"),
        ("INCR a; INCR b", "ok|ok", "over Io maybe +suspect"),
        ("INCR a; INCR b", "ok|READONLY no", "over Io maybe +suspect"),
        ("BLPOP q 1", "null", "done"),
        ("EVAL s 0", "null", "over Io maybe +suspect"),
        ("INCR k", "cut part", "again retry +suspect"),
        ("INCR k", "cut all", "over Io maybe +suspect"),
        ("ATOMIC INCR k", "ok|queued|[ok]", "over Io maybe +suspect"),
        ("ATOMIC INCR k", "ok|queued|[WRONGTYPE no]", "done"),
        ("ATOMIC GET k", "ok|queued|[ok]", "done"),
        ("ATOMIC INCR k", "ok|queued|null", "over TxnAborted retry"),
        ("ATOMIC INCR k", "ok|READONLY no|EXECABORT previous errors.", "again retry +doubt"),
        ("ATOMIC INCR k", "NOPERM no|ok|ERR EXEC without MULTI", "over Io maybe +suspect"),
    ] {
        assert_eq!(first_step(commands, 0, &doubted(), words), expected, "{commands}: {words}");
    }
}

#[test]
fn rule_15_a_replica_that_fails_makes_way_and_a_pinned_one_is_asked_again() {
    let replica = || Leg { replica: true, ..leg(&"r") };
    let pinned = || Leg { pinned: true, ..replica() };
    assert_eq!(first_step("GET k", 0, &replica(), "cut all"), "again maybe retry +cool");
    assert_eq!(first_step("GET k", 0, &replica(), "connect none"), "again retry +cool");
    assert_eq!(first_step("SCAN 5", 0, &pinned(), "cut part"), "again retry");
    assert_eq!(first_step("SCAN 5", 0, &pinned(), "connect none"), "again retry +cool");
    assert_eq!(first_step("GET k", 0, &replica(), LOADING), "again retry");
}

fn get_attempt(budget: Option<Duration>) -> Attempt<&'static str> {
    let deadline = budget.map_or_else(Deadline::never, Deadline::after);
    Attempt::new(crate::config::ClientSettings::default().retry, deadline)
}

fn facts(jitter: f64) -> Facts {
    Facts { now: Instant::now(), closed: false, cancelled: false, jitter }
}

fn cut() -> Error {
    Error::new(Status::Io, "cut").with_flags(flags::RETRYABLE)
}

#[test]
fn the_first_repetition_is_immediate_and_then_the_pauses_grow() {
    let mut attempt = get_attempt(None);
    assert!(matches!(attempt.next(cut(), facts(1.0)), Next::Wait(Duration::ZERO)));
    for ms in [10, 20, 40, 80, 160, 320, 500, 500] {
        let Next::Wait(pause) = attempt.next(cut(), facts(1.0)) else { panic!("a pause") };
        assert_eq!(pause, Duration::from_millis(ms));
    }
    let Next::Wait(pause) = attempt.next(cut(), facts(0.0)) else { panic!("a pause") };
    assert_eq!(pause, Duration::from_millis(250), "the jitter takes up to half of it");
}

#[test]
fn no_pause_is_longer_than_the_time_left() {
    let mut attempt = get_attempt(Some(Duration::from_secs(1)));
    let end = attempt.deadline.end().unwrap();
    let late = Facts { now: end - Duration::from_millis(3), ..facts(1.0) };
    assert!(matches!(attempt.next(cut(), late), Next::Wait(Duration::ZERO)));
    assert!(matches!(attempt.next(cut(), late), Next::Wait(pause) if pause == Duration::from_millis(3)));
    assert!(attempt.may_begin(end - Duration::from_millis(1)).is_ok());
    assert!(attempt.may_begin(end).is_err(), "the pause took the rest of the time");
}

#[test]
fn what_ends_a_call_ends_it_with_what_is_known() {
    let mut attempt = get_attempt(Some(Duration::from_secs(1)));
    let over = Facts { now: attempt.deadline.end().unwrap(), ..facts(0.0) };
    assert!(matches!(attempt.next(cut(), over), Next::Over(error) if error.status() == Status::Io));
    let closed = Facts { closed: true, ..facts(0.0) };
    assert!(matches!(get_attempt(None).next(cut(), closed), Next::Over(_)));
    let cancelled = Facts { cancelled: true, ..facts(0.0) };
    let Next::Over(error) = get_attempt(None).next(cut(), cancelled) else { panic!("it was cancelled") };
    assert!(error.status() == Status::Cancelled && !error.has(flags::RETRYABLE));
    let mut few = get_attempt(None);
    few.retry.max = 2;
    assert!(matches!(few.next(cut(), facts(0.0)), Next::Wait(Duration::ZERO)));
    assert!(matches!(few.next(cut(), facts(0.0)), Next::Wait(_)));
    assert!(matches!(few.next(cut(), facts(0.0)), Next::Over(_)), "two repetitions");
}

#[test]
fn the_most_telling_error_is_kept() {
    let none = || Error::new(Status::NoReplica, "no fit replica").with_flags(flags::RETRYABLE);
    let late = || Error::new(Status::Timeout, "no time was left").with_flags(flags::RETRYABLE);
    let mut attempt = get_attempt(None);
    assert_eq!(attempt.most_telling(none()).status(), Status::NoReplica);
    assert_eq!(attempt.most_telling(cut()).status(), Status::NoReplica, "that one of them failed says less");
    assert_eq!(attempt.most_telling(late()).status(), Status::NoReplica);
    let sent = cut().with_flags(flags::MAYBE_EXECUTED);
    assert_eq!(attempt.most_telling(sent).status(), Status::Io, "that it may have run says most");
    assert_eq!(attempt.most_telling(late()).status(), Status::Io);
    let mut refused = get_attempt(None);
    let loading = Error::new(Status::Server, "LOADING it loads its data").with_flags(flags::RETRYABLE);
    assert_eq!(refused.most_telling(loading).status(), Status::Server);
    assert_eq!(refused.most_telling(Error::unused("n")).status(), Status::Server, "the library closed that one itself");
    assert_eq!(refused.most_telling(cut()).status(), Status::Io, "it is gone now");
    let mut unused = get_attempt(None);
    assert_eq!(unused.most_telling(Error::unused("n")).status(), Status::Io);
    assert_eq!(unused.most_telling(late()).status(), Status::Timeout, "it says less than any other");
}

#[test]
fn a_unit_at_which_the_connection_ends_three_times_is_the_cause() {
    let bytes = encoded("GET k");
    let plan = plan("GET k", &bytes);
    let mut attempt = get_attempt(None);
    let mut end_at = |node: &'static &'static str| {
        let outcome = outcome(&plan, 0, "cut all head");
        let (step, effect) = attempt.conclude(&plan, CallFlags::default(), &leg(node), outcome);
        in_words(&step, &effect)
    };
    assert_eq!(end_at(&"a"), "again maybe retry +suspect");
    assert_eq!(end_at(&"a"), "again maybe retry +suspect");
    assert_eq!(end_at(&"b"), "again maybe retry +suspect", "another node may fare better");
    assert_eq!(end_at(&"b"), "again maybe retry +suspect");
    assert_eq!(end_at(&"b"), "over Io maybe +suspect");
    assert!(attempt.goes_alone());
}

#[test]
fn a_list_goes_on_behind_what_ran_and_comes_back_whole() {
    let commands = "INCR a; INCR b; INCR c";
    let bytes = encoded(commands);
    let plan = plan(commands, &bytes);
    let mut attempt = get_attempt(None);
    let (step, _) =
        attempt.conclude(&plan, CallFlags::default(), &leg(&"n"), Ok(replies(&plan, "ok|READONLY no|READONLY no")));
    assert!(matches!(step, Step::Again(_)) && attempt.from() == 1);
    let (step, _) = attempt.conclude(&plan, CallFlags::default(), &leg(&"m"), Ok(replies(&plan, "ok|ok")));
    let Step::Done(rest) = step else { panic!("the rest ran") };
    assert_eq!(attempt.whole(&plan, rest).unwrap().count(0), 3);
    // Refused to the end: what ran, and the refusals of the rest.
    let mut attempt = get_attempt(None);
    let (step, _) =
        attempt.conclude(&plan, CallFlags::default(), &leg(&"n"), Ok(replies(&plan, "ok|LOADING no|LOADING no")));
    let Step::Again(error) = step else { panic!("again") };
    let End::Refused(reply, "n") = attempt.end(&plan, error) else { panic!("known to the command") };
    let errors = reply.children(0).filter(|child| reply.kind(*child) == Kind::Error).count();
    assert_eq!((reply.count(0), errors), (3, 2));
}

/// A server that executes, refuses, stalls and dies by chance, and counts what it executed.
struct Model {
    rng: fastrand::Rng,
    start: Instant,
    passed: Duration,
    /// What it has executed of each command.
    executed: Vec<u32>,
    /// How often anything of the unit reached it.
    sends: u32,
    /// This many more attempts meet a fault.
    faults: u32,
}

impl Model {
    fn now(&self) -> Instant {
        self.start + self.passed
    }

    fn pass(&mut self, most_ms: u64) {
        self.passed += Duration::from_micros(1000 + self.rng.u64(0..most_ms * 1000));
    }

    fn run(&mut self, commands: std::ops::Range<usize>) {
        commands.for_each(|at| self.executed[at] += 1);
    }

    /// What becomes of a unit, from the command at `from` on.
    fn serve(&mut self, plan: &Plan<'_>, commands: &[String], from: usize) -> Outcome {
        self.pass(50);
        let faulty = self.faults > 0;
        self.faults = self.faults.saturating_sub(1);
        match if faulty { self.rng.u8(..6) } else { 5 } {
            0 => outcome(plan, from, "connect none"),
            1..=2 => self.cut(plan, commands, from),
            3..=4 => self.refuse(plan, commands, from),
            _ => {
                self.sends += 1;
                self.run(from..commands.len());
                Ok(replies(plan, &vec!["ok"; commands.len() - from].join("|")))
            }
        }
    }

    /// Any part of the unit reaches it, and it executes any part of what reached it whole.
    fn cut(&mut self, plan: &Plan<'_>, commands: &[String], from: usize) -> Outcome {
        let sent = self.rng.usize(0..=plan.unit(from).bytes.len());
        let (mut end, mut whole) = (0, from);
        for command in &commands[from..] {
            end += encoded(command).len();
            whole += usize::from(end <= sent);
        }
        self.sends += u32::from(sent > 0);
        let ran = self.rng.usize(from..=whole);
        self.run(from..ran);
        let status = if self.rng.bool() { Status::Io } else { Status::Timeout };
        let at_head = sent > 0 && self.rng.bool();
        Err(Failure { sent, error: Error::new(status, "cut").with_endpoint("n"), at_head })
    }

    /// From some command on it is a replica, which only reads, or it does nothing at all.
    fn refuse(&mut self, plan: &Plan<'_>, commands: &[String], from: usize) -> Outcome {
        self.sends += 1;
        let demoted = self.rng.bool();
        let at = if demoted { self.rng.usize(from..=commands.len()) } else { from };
        let mut words = Vec::new();
        for (place, command) in commands.iter().enumerate().skip(from) {
            let reads = command.starts_with("GET") || command.starts_with("SCAN");
            let runs = place < at || (demoted && reads);
            if runs {
                self.run(place..place + 1);
            }
            words.push(match (runs, demoted) {
                (true, _) => "ok",
                (false, true) => "READONLY You can't write",
                (false, false) => "LOADING Redis is loading",
            });
        }
        Ok(replies(plan, &words.join("|")))
    }
}

/// Runs one call from its beginning to its end. Returns how often anything was sent.
fn history(seed: u64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let kinds = ["GET k", "INCR k", "EVAL s 0", "SCAN 5", "NEW.COMMAND k"];
    let count = if rng.bool() { 1 } else { rng.usize(2..6) };
    let commands: Vec<String> = (0..count).map(|_| rng.choice(kinds).unwrap().to_owned()).collect();
    let text = commands.join("; ");
    let bytes = encoded(&text);
    let plan = plan(&text, &bytes);
    let call = [0, 0, I, N, I | N][rng.usize(..5)];
    let budget = rng.bool().then(|| Duration::from_millis(rng.u64(1..1500)));
    let mut attempt = get_attempt(budget);
    if rng.u8(..8) == 0 {
        attempt.retry.max = rng.u32(1..4);
    }
    let faults = rng.u32(..12);
    let start = attempt.deadline.end().map_or_else(Instant::now, |end| end - budget.unwrap_or_default());
    let executed = vec![0; count];
    let mut model = Model { rng, start, passed: Duration::ZERO, executed, sends: 0, faults };
    let end = live(&plan, CallFlags::from_bits(call).unwrap(), &commands, &mut attempt, &mut model);
    let allowed = |command: &str| call & I != 0 || command.starts_with("GET");
    for (command, times) in commands.iter().zip(&model.executed) {
        assert!(*times <= 1 || allowed(command), "{command} ran {times} times");
    }
    if call & N != 0 {
        assert!(model.executed.iter().all(|times| *times <= 1), "it ran twice in spite of NO_RETRY");
    }
    check_truth(&plan, &commands, &model, &end);
    model.sends
}

fn live(
    plan: &Plan<'_>,
    call: CallFlags,
    commands: &[String],
    attempt: &mut Attempt<&'static str>,
    model: &mut Model,
) -> std::result::Result<Reply, End<&'static str>> {
    for _ in 0..10_000 {
        if let Err(error) = attempt.may_begin(model.now()) {
            return Err(attempt.end(plan, error));
        }
        let late = attempt.deadline.end().is_some_and(|end| model.now() >= end);
        assert!(!late, "an attempt begins after the deadline");
        let node = if model.rng.bool() { &"a" } else { &"b" };
        let outcome = model.serve(plan, commands, attempt.from());
        let doubted = model.faults > 0 && model.rng.u8(..8) == 0;
        let leg = Leg { doubted, replica: plan.reads && model.rng.bool(), now: model.now(), ..leg(node) };
        let error = match attempt.conclude(plan, call, &leg, outcome).0 {
            Step::Done(reply) => return Ok(attempt.whole(plan, reply).unwrap()),
            Step::Over(error) => return Err(attempt.end(plan, error)),
            Step::Again(error) => error,
        };
        let facts = Facts { now: model.now(), closed: false, cancelled: false, jitter: model.rng.f64() };
        match attempt.next(error, facts) {
            Next::Again => {}
            Next::Wait(pause) => model.passed += pause,
            Next::Over(error) => return Err(attempt.end(plan, error)),
        }
    }
    panic!("the call has no end");
}

/// Checks that the caller's result is true.
fn check_truth(
    plan: &Plan<'_>,
    commands: &[String],
    model: &Model,
    end: &std::result::Result<Reply, End<&'static str>>,
) {
    let check = |reply: &Reply, is_known: bool| {
        let nodes: Vec<u32> = if plan.is_list() { reply.children(0).collect() } else { vec![0] };
        assert_eq!(nodes.len(), commands.len(), "one reply for each command");
        for (place, node) in nodes.into_iter().enumerate() {
            match reply.kind(node) == Kind::Error {
                true => {
                    assert!(!is_known || model.executed[place] == 0, "{} ran, and is told as refused", commands[place])
                }
                false => assert!(model.executed[place] > 0, "{} did not run, and is told as done", commands[place]),
            }
        }
    };
    match end {
        Ok(reply) => check(reply, model.sends == 1),
        Err(End::Refused(reply, _)) => check(reply, true),
        Err(End::Failed(error)) if !error.has(flags::MAYBE_EXECUTED) && !plan.reads => {
            let kept = error.reply().map_or(0, |reply| reply.children(0).count());
            let unknown = &model.executed[kept.min(commands.len())..];
            assert!(unknown.iter().all(|times| *times == 0), "it ran, and {error} says that it did not: {unknown:?}");
        }
        Err(End::Failed(_)) => {}
    }
}

#[test]
fn rules_10_to_15_random_histories_never_run_twice_never_late_and_always_end() {
    let mut sends = 0;
    for seed in 0..10_000 {
        let ran = std::panic::catch_unwind(|| history(seed));
        match ran {
            Ok(count) => sends += count,
            Err(_) => panic!("seed {seed}"),
        }
    }
    assert!(sends > 10_000, "the histories repeat: {sends} sends");
}

/// One attempt of a transaction on a server that runs it at most when all of it has arrived.
fn serve_transaction(rng: &mut fastrand::Rng, plan: &Plan<'_>, executed: &mut u32) -> Outcome {
    let count = plan.count() as usize;
    let all = |word: &str| vec![word; count].join("|");
    let aborted = |reason: &str| Ok(replies(plan, &format!("ok|{}|EXECABORT because of: {reason}", all("queued"))));
    match rng.u8(..6) {
        0 | 1 => {
            let whole = plan.unit(0).bytes.len();
            let sent = if rng.bool() { whole } else { rng.usize(0..=whole) };
            *executed += u32::from(sent == whole && rng.bool());
            let status = if rng.bool() { Status::Io } else { Status::Timeout };
            let error = Error::new(status, "cut").with_endpoint("n");
            Err(Failure { sent, error, at_head: sent > 0 && rng.bool() })
        }
        2 => Ok(replies(plan, &format!("ok|{}|EXECABORT previous errors.", all("READONLY no")))),
        3 => aborted(rng.choice(["LOADING no", "OOM no", "READONLY no"]).unwrap()),
        _ => {
            *executed += 1;
            Ok(replies(plan, &format!("ok|{}|[{}]", all("queued"), vec!["ok"; count].join(","))))
        }
    }
}

#[test]
fn rule_11_random_histories_of_transactions_never_run_twice_and_tell_the_truth() {
    let (mut again, mut done) = (0, 0);
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kinds = ["GET k", "INCR k", "EVAL s 0", "NEW.COMMAND k"];
        let commands: Vec<_> = (0..rng.usize(1..5)).map(|_| rng.choice(kinds).unwrap()).collect();
        let bytes = encoded(&commands.join("; "));
        let plan = Plan::atomic(&bytes).unwrap();
        let call = CallFlags::from_bits(*rng.choice(&[0, 0, N]).unwrap()).unwrap();
        let (mut attempt, mut executed) = (get_attempt(None), 0);
        attempt.retry.max = rng.u32(0..3);
        let outcome = loop {
            let before = executed;
            let outcome = serve_transaction(&mut rng, &plan, &mut executed);
            let doubted = rng.u8(..8) == 0;
            match attempt.conclude(&plan, call, &Leg { doubted, ..leg(&"n") }, outcome).0 {
                Step::Done(reply) => break Ok(attempt.whole(&plan, reply).unwrap()),
                Step::Over(error) => break Err(error),
                Step::Again(error) => {
                    assert_eq!(executed, before, "seed {seed}: what has run is not sent again");
                    again += 1;
                    if let Next::Over(error) = attempt.next(error, facts(0.5)) {
                        break Err(error);
                    }
                }
            }
        };
        assert!(executed <= 1, "seed {seed}: it ran {executed} times");
        match outcome {
            Ok(reply) => {
                done += 1;
                assert_eq!((executed, reply.children(0).count()), (1, commands.len()), "seed {seed}");
            }
            Err(error) => match attempt.end(&plan, error) {
                End::Refused(..) => panic!("seed {seed}: a transaction has no rest"),
                End::Failed(error) => {
                    let maybe = error.has(flags::MAYBE_EXECUTED);
                    assert!(maybe || executed == 0, "seed {seed}: it ran, and {error} says that it did not");
                }
            },
        }
    }
    assert!(again > 1000 && done > 1000, "{again} sent again, {done} done");
}
