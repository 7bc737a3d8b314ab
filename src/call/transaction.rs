//! What the replies to a transaction mean: `MULTI`, `QUEUED` for each command, and the answer to `EXEC` (rules 10 and 11). Pure.
//!
//! Guarantees: a transaction that certainly did nothing is told apart from one that ran, and from commands that ran without a
//! transaction. Leaves to others: whether the node moves, and what is sent again (judge).

use crate::error::{Error, Status, flags};
use crate::lane::transaction::{is_left_open, refused};
use crate::plan::Plan;
use crate::resp::{Kind, Reply, ReplyBuilder};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Txn {
    /// EXEC ran it: the node of its results.
    Ran(u32),
    /// EXEC answered null: a watched key was changed. Nothing ran.
    Watched,
    /// The server has discarded it, or refused all of it. Nothing ran.
    Discarded,
    /// MULTI was accepted and EXEC was not. Nothing ran.
    NotEnded,
    /// MULTI was refused, and commands behind it were not.
    Unprotected,
    /// The replies are not those to a transaction.
    Nonsense,
}

/// How the transaction with these replies ended.
pub(super) fn read(plan: &Plan<'_>, replies: &Reply) -> Txn {
    let count = plan.count();
    let (Some(multi), Some(exec)) = (replies.child(0, 0), replies.child(0, count + 1)) else { return Txn::Nonsense };
    let is_error = |node: u32| replies.kind(node) == Kind::Error;
    if is_error(multi) {
        // A script may have written before its error.
        let all_refused = !plan.runs_scripts() && queued(plan, replies).all(is_error);
        return if all_refused { Txn::Discarded } else { Txn::Unprotected };
    }
    match replies.kind(exec) {
        Kind::Array if replies.count(exec) == count => Txn::Ran(exec),
        Kind::Null => Txn::Watched,
        Kind::Error if is_cut(replies.error_line(exec)) => Txn::Discarded,
        Kind::Error if is_left_open(replies) => Txn::NotEnded,
        Kind::Error => Txn::Discarded,
        _ => Txn::Nonsense,
    }
}

/// Whether the server understood nothing from some command on, and closed the connection.
fn is_cut(exec: Option<&[u8]>) -> bool {
    exec.is_some_and(|line| line.starts_with(b"ERR Protocol error"))
}

/// The nodes of what was answered to its commands before EXEC.
fn queued<'a>(plan: &Plan<'_>, replies: &'a Reply) -> impl Iterator<Item = u32> + 'a {
    replies.children(0).skip(1).take(plan.count() as usize)
}

/// Why the server has discarded a transaction: the lines of its refusals. Those of single commands come before EXEC's own reason.
pub(super) fn reasons<'a>(plan: &Plan<'_>, replies: &'a Reply) -> Vec<&'a [u8]> {
    let lines = |node: u32| replies.error_line(node);
    let mut reasons: Vec<&[u8]> = replies.child(0, 0).and_then(lines).into_iter().collect();
    reasons.extend(queued(plan, replies).filter_map(lines));
    let exec = replies.child(0, plan.count() + 1).and_then(lines).unwrap_or_default();
    match because(exec) {
        Some(reason) => reasons.push(reason),
        None if reasons.is_empty() => reasons.push(exec),
        None => {}
    }
    reasons
}

/// The reason that the server gives behind EXECABORT, if it is a line with a code of its own.
pub(super) fn because(exec: &[u8]) -> Option<&[u8]> {
    let mark = b"because of: ";
    let text = exec.strip_prefix(b"EXECABORT ")?;
    memchr::memmem::find(text, mark).map(|at| &text[at + mark.len()..])
}

/// The results of a transaction that ran, or what is known of another one: the answers to its commands.
pub(super) fn results(plan: &Plan<'_>, replies: &Reply) -> Result<Reply, Error> {
    if let Txn::Ran(exec) = read(plan, replies) {
        let no_memory = || Error::new(Status::Limit, "no memory for the results of the transaction");
        return replies.try_subtree(exec).ok_or_else(no_memory);
    }
    let mut results = ReplyBuilder::new();
    results.array();
    queued(plan, replies).for_each(|node| _ = results.part(replies, node));
    results.end();
    results.try_finish()
}

/// Whether the server has certainly done nothing, or nothing but refuse each command.
pub(super) fn did_nothing(plan: &Plan<'_>, replies: &Reply) -> bool {
    match read(plan, replies) {
        Txn::Ran(exec) => !plan.runs_scripts() && replies.children(exec).all(|node| replies.kind(node) == Kind::Error),
        Txn::Watched | Txn::Discarded | Txn::NotEnded => true,
        Txn::Unprotected | Txn::Nonsense => false,
    }
}

/// The error of a transaction that did not run, or not as one.
pub(super) fn error_of(plan: &Plan<'_>, replies: &Reply) -> Error {
    let line = |index: u32| replies.child(0, index).and_then(|node| replies.error_line(node)).unwrap_or_default();
    let error = match read(plan, replies) {
        Txn::Watched => {
            let text = "EXEC answered null: a watched key was changed, and nothing of the transaction was executed; begin it anew";
            Error::new(Status::TxnAborted, text).with_flags(flags::RETRYABLE)
        }
        Txn::NotEnded => {
            let so = "nothing of the transaction was executed, and the connection was closed";
            refused("EXEC", line(plan.count() + 1), so)
        }
        Txn::Unprotected => {
            let so = "its commands ran one by one, without a transaction: vigie_error_reply() has their replies";
            refused("MULTI", line(0), so).with_flags(flags::MAYBE_EXECUTED)
        }
        Txn::Discarded if !line(0).is_empty() => refused("MULTI", line(0), "nothing was executed"),
        Txn::Discarded => discarded(plan, replies, line(plan.count() + 1)),
        Txn::Ran(_) | Txn::Nonsense => {
            let text = "the replies to MULTI and EXEC are not those to a transaction";
            Error::new(Status::Protocol, text).with_flags(flags::MAYBE_EXECUTED)
        }
    };
    match results(plan, replies) {
        Ok(results) => error.with_reply(results),
        // Without memory for the replies the error stands alone.
        Err(_) => error,
    }
}

/// The error for EXECABORT. It names the first command that the server has refused.
fn discarded(plan: &Plan<'_>, replies: &Reply, exec: &[u8]) -> Error {
    let error = Error::from_server(exec, "");
    let first = queued(plan, replies).enumerate().find_map(|(at, node)| Some((at, replies.error_line(node)?)));
    match first {
        Some((at, line)) => {
            let line = Error::from_server(line, "");
            error.with_note(format_args!("; {} was refused: {}", plan.command_at(at), line.message()))
        }
        None => error,
    }
}
