//! What an outcome means: done, failed for good, or to be tried again (rules 10 to 15). No I/O.
//!
//! Guarantees: what may have run is repeated only if it only reads or the caller said IDEMPOTENT; after a refusal only what the
//! server has certainly not run is repeated; the error of what is not repeated says whether it may have been executed.

use super::transaction::{self, Txn};
use crate::config::RetrySettings;
use crate::error::{Error, Status, flags};
use crate::lane::{Failure, Outcome};
use crate::plan::{CallFlags, Plan, Shape, Stretch};
use crate::resp::{Kind, Reply};

/// What to do with an outcome.
pub(crate) enum Verdict {
    /// The call is over, with this reply. `demotion`: the reply shows that the node has lost its role.
    Done { reply: Reply, demotion: Option<Error> },
    /// The call is over, with this error.
    Failed(Error),
    /// The call is over, with this error for what the server answered. `demotion`: as above.
    Refused { error: Error, demotion: Option<Error> },
    /// The call, or what is left of it, may be sent again.
    Again(Again),
}

/// What is to be sent again, and why.
pub(crate) struct Again {
    pub(crate) error: Error,
    /// The node is in doubt: the Sentinels are asked, or another replica is tried.
    pub(crate) suspect: bool,
    /// Final replies of a list of which the rest was refused, and how many they are.
    pub(crate) kept: Option<(Reply, usize)>,
    /// It was sent: with NO_RETRY the caller gets the error now.
    pub(crate) was_sent: bool,
    /// The server does not know the script by its hash: its body is sent.
    pub(crate) by_body: bool,
}

/// The ways in which a server refuses a command without executing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The node has lost its role: READONLY, MASTERDOWN.
    Moved,
    /// The node cannot execute it at the moment: LOADING, BUSY, and by option NOREPLICAS, MISCONF.
    Later,
}

/// Whether a reply needs no judgement: it has no error in it.
#[inline]
pub(crate) fn is_plain(plan: &Plan<'_>, reply: &Reply) -> bool {
    let is_error = |node: u32| reply.kind(node) == Kind::Error;
    match plan.shape() {
        Shape::One => !is_error(0),
        Shape::List => !reply.children(0).any(is_error),
        Shape::Atomic => false,
    }
}

/// Rule 8: a write that was answered after the candidate said that it is a primary, or after a switch, is not a success.
pub(crate) fn doubt(plan: &Plan<'_>, outcome: Outcome) -> Outcome {
    match outcome {
        Ok(reply) if plan.reads || did_nothing(plan, &reply) => Ok(reply),
        Ok(reply) => {
            let text = "answered while another primary was taking over: the write may be lost";
            let error = Error::new(Status::Io, text).with_flags(flags::FAILOVER);
            let error = match plan.shape() {
                Shape::Atomic => with_results(plan, error, &reply),
                _ => error.with_reply(reply),
            };
            Err(Failure::new(usize::MAX, error))
        }
        Err(failure) if failure.error.status() == Status::Io => {
            Err(Failure { error: failure.error.with_flags(flags::FAILOVER), ..failure })
        }
        Err(failure) => Err(failure),
    }
}

/// Whether the server has certainly done nothing: it refused, its wait timed out, or it aborted the transaction.
fn did_nothing(plan: &Plan<'_>, reply: &Reply) -> bool {
    let is_nothing = |node: u32| match reply.kind(node) {
        Kind::Error => true,
        Kind::Null => plan.pops(),
        _ => false,
    };
    match plan.shape() {
        Shape::One => is_nothing(0) || plan.was_aborted(reply),
        Shape::List => reply.children(0).all(is_nothing),
        Shape::Atomic => transaction::did_nothing(plan, reply),
    }
}

/// Judges the outcome of a call of which this stretch was sent.
pub(crate) fn judge(
    plan: &Plan<'_>,
    sent: Stretch,
    call: CallFlags,
    retry: &RetrySettings,
    outcome: Outcome,
) -> Verdict {
    match outcome {
        Err(failure) => judge_failure(plan, sent, call, failure),
        Ok(reply) => match plan.shape() {
            Shape::One => judge_reply(plan, sent, retry, reply),
            Shape::List => judge_list(plan, sent, retry, reply),
            Shape::Atomic => judge_atomic(plan, retry, &reply),
        },
    }
}

fn judge_failure(plan: &Plan<'_>, sent: Stretch, call: CallFlags, failure: Failure) -> Verdict {
    let maybe_executed = failure.sent >= plan.first_len_of(sent);
    let suspect = matches!(
        failure.error.status(),
        Status::Io | Status::Connect | Status::Resolve | Status::Timeout | Status::Role | Status::Server
    );
    if !maybe_executed {
        let error = failure.error;
        return match is_final(&error) {
            true => Verdict::Failed(error),
            false => Verdict::Again(Again {
                error: error.with_flags(flags::RETRYABLE),
                suspect,
                kept: None,
                was_sent: false,
                by_body: false,
            }),
        };
    }
    if failure.error.status() == Status::Replicas {
        // The write was executed; the count says how many replicas have it.
        return Verdict::Failed(failure.error);
    }
    let error = failure.error.with_flags(flags::MAYBE_EXECUTED);
    match (plan.repeatable || call.has(CallFlags::IDEMPOTENT)) && !is_final(&error) {
        true => Verdict::Again(Again {
            error: error.with_flags(flags::RETRYABLE),
            suspect,
            kept: None,
            was_sent: true,
            by_body: false,
        }),
        false => Verdict::Failed(error),
    }
}

/// Whether waiting cannot change this error.
pub(crate) fn is_final(error: &Error) -> bool {
    // A refused connection, or the want of a replica, carries the flag RETRYABLE if the reason may pass.
    if matches!(error.status(), Status::Server | Status::Connect | Status::NoReplica) && !error.has(flags::RETRYABLE) {
        return true;
    }
    !matches!(
        error.status(),
        Status::Io
            | Status::Connect
            | Status::Resolve
            | Status::Timeout
            | Status::Role
            | Status::Server
            | Status::NoSentinel
            | Status::NoPrimary
            | Status::NoReplica
            | Status::SplitView
            | Status::Fenced
            | Status::Protocol
    )
}

fn judge_reply(plan: &Plan<'_>, sent: Stretch, retry: &RetrySettings, reply: Reply) -> Verdict {
    let Some(line) = reply.error_line(0) else { return Verdict::Done { reply, demotion: None } };
    if lacks_script(plan, sent, line) {
        return by_body(Error::from_server(line, ""), None);
    }
    match refusal(plan, line, retry) {
        Some(refusal) if may_repeat(plan) => Verdict::Again(Again {
            error: Error::from_server(line, "").with_flags(flags::RETRYABLE),
            suspect: refusal == Refusal::Moved,
            kept: None,
            was_sent: true,
            by_body: false,
        }),
        _ => Verdict::Done { demotion: demotion(line), reply },
    }
}

/// Whether the server has certainly not run the last command, because it does not know the script by its hash, or knows no hashes
/// at all; and whether its body can be sent.
fn lacks_script(plan: &Plan<'_>, sent: Stretch, line: &[u8]) -> bool {
    plan.has_forms()
        && !sent.by_body
        && (line.starts_with(b"NOSCRIPT No matching script") || (plan.is_shortened() && refuses_hashes(line)))
}

/// Whether a server refuses EVALSHA as such: its user may not send it, or it was renamed. A script cannot give these words, because
/// it cannot call EVALSHA.
fn refuses_hashes(line: &[u8]) -> bool {
    (line.starts_with(b"NOPERM ") && memchr::memmem::find(line, b"'evalsha").is_some())
        || line.starts_with(b"ERR unknown command")
}

/// The script is sent once more, by its body. `kept`: the replies to the commands before it.
fn by_body(error: Error, kept: Option<(Reply, usize)>) -> Verdict {
    let error = error.with_flags(flags::RETRYABLE);
    Verdict::Again(Again { error, suspect: false, kept, was_sent: true, by_body: true })
}

/// Rule 11: only a suffix of which nothing ran is sent again.
fn judge_list(plan: &Plan<'_>, sent: Stretch, retry: &RetrySettings, reply: Reply) -> Verdict {
    let refused = |child: u32| reply.error_line(child).and_then(|line| refusal(plan, line, retry));
    let children: Vec<u32> = reply.children(0).collect();
    let last = children.last().and_then(|child| reply.error_line(*child));
    if let Some(line) = last.filter(|line| lacks_script(plan, sent, line)) {
        let error = Error::from_server(line, "");
        return by_body(error, Some((reply, children.len() - 1)));
    }
    let ran = children.iter().rposition(|child| refused(*child).is_none()).map_or(0, |last| last + 1);
    match children.get(ran) {
        Some(first) if may_repeat(plan) => {
            let line = reply.error_line(*first).unwrap_or_default();
            let error = Error::from_server(line, "").with_flags(flags::RETRYABLE);
            let suspect = refused(*first) == Some(Refusal::Moved);
            Verdict::Again(Again { error, suspect, kept: Some((reply, ran)), was_sent: true, by_body: false })
        }
        _ => Verdict::Done { demotion: shown_demotion(&reply), reply },
    }
}

/// Rule 11: a transaction is sent again as a whole, and only if the server has refused it for a reason that passes. Nothing of it ran
/// then, not even a script.
/// Judges the replies to a transaction.
pub(crate) fn judge_atomic(plan: &Plan<'_>, retry: &RetrySettings, replies: &Reply) -> Verdict {
    let txn = transaction::read(plan, replies);
    if let Txn::Ran(_) = txn {
        return match transaction::results(plan, replies) {
            Ok(reply) => Verdict::Done { demotion: shown_demotion(&reply), reply },
            Err(error) => Verdict::Failed(error.with_flags(flags::MAYBE_EXECUTED)),
        };
    }
    let reasons = match txn {
        Txn::Discarded | Txn::NotEnded => transaction::reasons(plan, replies),
        _ => Vec::new(),
    };
    let refused = |retry: &RetrySettings| -> Option<Vec<Refusal>> {
        let refusals = reasons.iter().map(|line| refusal(plan, line, retry)).collect::<Option<Vec<_>>>();
        refusals.filter(|refusals| !refusals.is_empty())
    };
    if let (Some(refusals), Some(line)) = (refused(retry), reasons.first()) {
        return Verdict::Again(Again {
            error: with_results(plan, Error::from_server(line, "").with_flags(flags::RETRYABLE), replies),
            suspect: refusals.contains(&Refusal::Moved),
            kept: None,
            was_sent: true,
            by_body: false,
        });
    }
    let passes = refused(&every_refusal()).is_some();
    let error = transaction::error_of(plan, replies);
    let error = if passes { error.with_flags(flags::RETRYABLE) } else { error };
    Verdict::Refused { error, demotion: reasons.iter().find_map(|line| demotion(line)) }
}

/// The outcome of a transaction in a session, where nothing is sent again; and whether it shows that the node has lost its role.
pub(crate) fn of_transaction(plan: &Plan<'_>, replies: &Reply) -> (Result<Reply, Error>, Option<Error>) {
    match judge_atomic(plan, &every_refusal(), replies) {
        Verdict::Done { reply, demotion } => (Ok(reply), demotion),
        Verdict::Failed(error) => (Err(error), None),
        Verdict::Refused { error, demotion } => (Err(error), demotion),
        Verdict::Again(Again { error, suspect, .. }) => (Err(error.clone()), suspect.then_some(error)),
    }
}

/// An error with what is known of the results of a transaction. Without memory for them the error stands alone.
pub(super) fn with_results(plan: &Plan<'_>, error: Error, replies: &Reply) -> Error {
    match transaction::results(plan, replies) {
        Ok(results) => error.with_reply(results),
        Err(_) => error,
    }
}

/// Settings under which each refusal that may pass is one.
fn every_refusal() -> RetrySettings {
    RetrySettings { noreplicas: true, misconf: true, ..RetrySettings::default() }
}

/// A script may have written before it was refused (rule 10 d). A WAIT asks about the writes of its own connection: on another one
/// its answer would mean nothing.
fn may_repeat(plan: &Plan<'_>) -> bool {
    !plan.runs_scripts() && !plan.awaits
}

fn refusal(plan: &Plan<'_>, line: &[u8], retry: &RetrySettings) -> Option<Refusal> {
    match line.split(|byte| *byte == b' ').next().unwrap_or_default() {
        b"READONLY" | b"MASTERDOWN" => Some(Refusal::Moved),
        // The write of a WAIT, or what a module or a script did before it blocked, has been executed.
        b"UNBLOCKED" if plan.pops() && is_unblocked_by_demotion(line) => Some(Refusal::Moved),
        b"LOADING" | b"BUSY" => Some(Refusal::Later),
        b"NOREPLICAS" if retry.noreplicas => Some(Refusal::Later),
        b"MISCONF" if retry.misconf => Some(Refusal::Later),
        _ => None,
    }
}

/// Whether the server ended the wait because it becomes a replica of another primary. CLIENT UNBLOCK gives another text.
fn is_unblocked_by_demotion(line: &[u8]) -> bool {
    line.starts_with(b"UNBLOCKED ") && memchr::memmem::find(line, b"instance state changed").is_some()
}

/// A server's error as the caller gets it. It is RETRYABLE if the whole command was refused, and the reason may pass.
pub(crate) fn error_of(plan: &Plan<'_>, line: &[u8], endpoint: &str) -> Error {
    let all = every_refusal();
    // A discarded transaction has executed nothing, whatever is in it; the reason has a code of its own.
    let worth_it = match transaction::because(line) {
        Some(reason) => refusal(plan, reason, &all).is_some(),
        None => may_repeat(plan) && refusal(plan, line, &all).is_some(),
    };
    let error = Error::from_server(line, endpoint);
    if worth_it { error.with_flags(flags::RETRYABLE) } else { error }
}

/// Whether a line has the server's own words for a demotion: as the code of the error, or passed on by a script or by EXEC, which
/// put their own words in front (`-ERR Error running script ... -READONLY You can't write against ...`). The text of a script
/// itself shows nothing.
fn shows_demotion(line: &[u8]) -> bool {
    let code = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(code, b"READONLY" | b"MASTERDOWN")
        || memchr::memmem::find(line, b"READONLY You can't write").is_some()
        || is_unblocked_by_demotion(line)
}

fn demotion(line: &[u8]) -> Option<Error> {
    shows_demotion(line).then(|| Error::from_server(line, "").with_flags(flags::RETRYABLE))
}

/// The error in a reply, or in one of the replies to a list, that shows that the node is no longer a primary.
pub(crate) fn shown_demotion(reply: &Reply) -> Option<Error> {
    std::iter::once(0).chain(reply.children(0)).find_map(|node| reply.error_line(node).and_then(demotion))
}

/// Joins the replies of a list that was sent in several parts. An error when there is no memory for them.
pub(super) fn join(parts: &[(Reply, usize)], last: &Reply) -> Result<Reply, Error> {
    let mut whole = crate::resp::ReplyBuilder::new();
    whole.array();
    for (part, kept) in parts {
        part.children(0).take(*kept).for_each(|child| _ = whole.part(part, child));
    }
    if last.kind(0) == Kind::Array {
        last.children(0).for_each(|child| _ = whole.part(last, child));
    }
    whole.end().try_finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ReplyBuilder;

    const RETRY: fn() -> RetrySettings = || crate::config::ClientSettings::default().retry;

    fn judged(args: &[&str], flags: u32, outcome: Outcome) -> Verdict {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let plan = Plan::command(&args).unwrap();
        judge(&plan, Stretch::default(), CallFlags::from_bits(flags).unwrap(), &RETRY(), outcome)
    }

    fn lost(sent: usize) -> Outcome {
        Err(Failure::new(sent, Error::new(Status::Io, "cut")))
    }

    fn error_reply(line: &str) -> Outcome {
        Ok(ReplyBuilder::new().error(line).finish())
    }

    #[test]
    fn a_write_whose_answer_is_lost_is_not_repeated() {
        assert!(
            matches!(judged(&["INCR", "k"], 0, lost(1000)), Verdict::Failed(error) if error.has(flags::MAYBE_EXECUTED))
        );
        assert!(
            matches!(judged(&["INCR", "k"], 0, lost(3)), Verdict::Again(again) if !again.error.has(flags::MAYBE_EXECUTED))
        );
        assert!(matches!(judged(&["INCR", "k"], CallFlags::IDEMPOTENT, lost(1000)), Verdict::Again(_)));
        assert!(matches!(judged(&["GET", "k"], 0, lost(1000)), Verdict::Again(_)));
        assert!(matches!(judged(&["SCAN", "5"], 0, lost(1000)), Verdict::Failed(_)));
    }

    #[test]
    fn a_refusal_is_repeated_but_not_a_scripts() {
        let readonly = "READONLY You can't write against a read only replica.";
        assert!(matches!(judged(&["SET", "k", "v"], 0, error_reply(readonly)), Verdict::Again(again) if again.suspect));
        assert!(matches!(
            judged(&["EVAL", "s", "0"], 0, error_reply(readonly)),
            Verdict::Done { demotion: Some(_), .. }
        ));
        let old = "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write";
        assert!(matches!(judged(&["EVAL", "s", "0"], 0, error_reply(old)), Verdict::Done { demotion: Some(_), .. }));
        assert!(
            matches!(judged(&["GET", "k"], 0, error_reply("LOADING Redis is loading")), Verdict::Again(again) if !again.suspect)
        );
        assert!(matches!(
            judged(&["SET", "k", "v"], 0, error_reply("NOREPLICAS Not enough")),
            Verdict::Done { demotion: None, .. }
        ));
        assert!(matches!(judged(&["SET", "k", "v"], 0, error_reply("OOM command")), Verdict::Done { .. }));
    }

    #[test]
    fn only_the_servers_own_words_show_a_demotion() {
        // What scripts give was recorded on a replica with redis 7.0.15 (their hashes are cut), but for `Error running script`, the form of
        // redis 6, which was not run. The lines without a script are written by hand.
        for line in [
            "READONLY You can't write against a read only replica. script: d223ed8c, on @user_script:1.",
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica.",
            "ERR user_script:1: READONLY You can't write against a read only replica. script: 3b28a20c, on @user_script:1.",
            "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        ] {
            assert!(shows_demotion(line.as_bytes()), "{line}");
        }
        for line in [
            "ERR it is READONLY here",
            "my READONLY word",
            "READONLYISH word",
            "ERR user_script:1: READONLY own script: 31a4364d, on @user_script:1.",
            "ERR Write commands are not allowed from read-only scripts. script: 34c8c9d3, on @user_script:2.",
            "MASTERDOWNS own word",
        ] {
            assert!(!shows_demotion(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn what_was_refused_for_a_while_is_worth_trying_again_a_script_is_not() {
        let get = Plan::command(&[b"INCR", b"k"]).unwrap();
        let script = Plan::command(&[b"EVAL", b"return 1", b"0"]).unwrap();
        for line in [&b"NOREPLICAS Not enough good replicas to write."[..], b"LOADING Redis is loading", b"READONLY no"]
        {
            assert!(error_of(&get, line, "n").has(flags::RETRYABLE));
            assert!(!error_of(&script, line, "n").has(flags::RETRYABLE));
        }
        assert!(!error_of(&get, b"WRONGTYPE Operation against a key", "n").has(flags::RETRYABLE));
    }

    const DEMOTED: &str =
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

    #[test]
    fn who_was_unblocked_by_a_demotion_took_nothing() {
        for line in ["BLPOP q 0", "BLMOVE a b LEFT LEFT 5", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >"] {
            let args: Vec<&str> = line.split(' ').collect();
            assert!(matches!(judged(&args, 0, error_reply(DEMOTED)), Verdict::Again(again) if again.suspect), "{line}");
        }
        // What came before it has run, or may have.
        for line in ["WAIT 1 0", "WAITAOF 1 0 0", "MODULE.BLOCKS k 0", "FCALL f 0", "EVAL s 0"] {
            let args: Vec<&str> = line.split(' ').collect();
            assert!(
                matches!(judged(&args, 0, error_reply(DEMOTED)), Verdict::Done { demotion: Some(_), .. }),
                "{line}: the caller's, and the Sentinels are asked"
            );
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            assert!(!error_of(&Plan::command(&args).unwrap(), DEMOTED.as_bytes(), "n").has(flags::RETRYABLE), "{line}");
        }
        let unblocked = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
        assert!(matches!(
            judged(&["BLPOP", "q", "0"], 0, error_reply(unblocked)),
            Verdict::Done { demotion: None, .. }
        ));
        let pop = Plan::command(&[b"BLPOP", b"q", b"0"]).unwrap();
        assert!(!error_of(&pop, unblocked.as_bytes(), "n").has(flags::RETRYABLE));
        assert!(error_of(&pop, DEMOTED.as_bytes(), "n").has(flags::RETRYABLE));
    }

    #[test]
    fn a_wait_is_never_sent_on_another_connection() {
        let loading = "LOADING Redis is loading the dataset in memory";
        assert!(matches!(judged(&["WAIT", "1", "0"], 0, error_reply(loading)), Verdict::Done { .. }));
        let plan = Plan::list(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n").unwrap();
        for line in [loading, DEMOTED] {
            let reply = ReplyBuilder::new().array().error(line).end().finish();
            assert!(matches!(
                judge(&plan, Stretch::default(), CallFlags::default(), &RETRY(), Ok(reply)),
                Verdict::Done { .. }
            ));
        }
    }

    #[test]
    fn a_transaction_that_was_discarded_for_a_while_is_worth_repeating() {
        let exec = Plan::command(&[b"EXEC"]).unwrap();
        let discarded = |why: &str| error_of(&exec, format!("EXECABORT Transaction discarded {why}").as_bytes(), "n");
        for code in ["READONLY You can't write", "LOADING Redis is loading", "MASTERDOWN Link", "NOREPLICAS Not"] {
            assert!(discarded(&format!("because of: {code}")).has(flags::RETRYABLE), "{code}");
        }
        for why in ["because of previous errors.", "because of: OOM command not allowed", "because of: WRONGTYPE x"] {
            assert!(!discarded(why).has(flags::RETRYABLE), "{why}");
        }
    }

    #[test]
    fn of_a_list_only_the_refused_rest_is_repeated() {
        let list = b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*2\r\n$4\r\nINCR\r\n$1\r\nb\r\n";
        let plan = Plan::list(list).unwrap();
        let reply = ReplyBuilder::new().array().int(1).error("READONLY no").end().finish();
        let verdict = judge(&plan, Stretch::default(), CallFlags::default(), &RETRY(), Ok(reply));
        let Verdict::Again(Again { kept: Some((reply, 1)), .. }) = verdict else { panic!("the rest is sent again") };
        let rest = ReplyBuilder::new().array().int(7).end().finish();
        let whole = join(&[(reply, 1)], &rest).unwrap();
        assert_eq!((whole.count(0), whole.int(1), whole.int(2)), (2, Some(1), Some(7)));
        let reply = ReplyBuilder::new().array().error("READONLY no").int(2).end().finish();
        let verdict = judge(&plan, Stretch::default(), CallFlags::default(), &RETRY(), Ok(reply));
        assert!(matches!(verdict, Verdict::Done { demotion: Some(_), .. }));
    }
}
