//! Writes that succeed only when enough replicas have acknowledged them (rules 16 and 17), or when they are on disk.
//!
//! Guarantees: the write and its WAIT are one unit on a connection of their own; too few replicas is an error with the number of
//! those that have the write, and is never repeated. Leaves to others: the fence. Without it an acknowledgement by some of the
//! replicas would not survive a failover.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::{gate, judge, loaned, transaction};
use crate::config::{Replicas, WriteSettings};
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Failure, Outcome, Unit};
use crate::plan::{CallFlags, Plan};
use crate::pool::{Pool, Purpose};
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::route::Context;
use crate::time::Deadline;
use crate::topology::Source;

/// How late a server may notice that the timeout of a WAIT is over, with `hz 10` and nothing else to do.
const LATE: Duration = Duration::from_millis(120);
/// The longest WAIT: 24 days.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// The first version with WAITAOF.
const WAITAOF_SINCE: u32 = 0x07_0200;

/// Which servers must have a write before it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// How many replicas.
    pub(crate) replicas: u32,
    /// On disk: the primary and these replicas have written it to their append-only files.
    pub(crate) on_disk: bool,
}

impl Need {
    pub(crate) const NONE: Self = Self { replicas: 0, on_disk: false };
}

/// Which servers must have this write.
#[inline(always)]
pub(crate) fn needed(context: &Context, plan: &Plan<'_>, call: CallFlags) -> Result<Need> {
    if plan.reads || plan.blocks.is_some() {
        return Ok(Need::NONE);
    }
    configured(context, context.settings().write, call.replicas())
}

/// Which servers must have a write under these settings. `asked`: how many replicas its call asks for by itself, or 0.
#[inline(always)]
pub(crate) fn configured(context: &Context, write: WriteSettings, asked: u32) -> Result<Need> {
    match (asked, write.replicas, write.aof) {
        (0, Replicas::None, false) => Ok(Need::NONE),
        (asked, configured, on_disk) => {
            weigh_replicas(context, asked, configured).map(|replicas| Need { replicas, on_disk })
        }
    }
}

/// Refuses a write that a server cannot tell to be on disk, before it is sent.
pub(crate) fn check_server(need: Need, pool: &Pool) -> Result<()> {
    let version = pool.version();
    if !need.on_disk || version == 0 || version >= WAITAOF_SINCE {
        return Ok(());
    }
    let text = format!(
        "write.aof needs WAITAOF, which {} with version {}.{}.{} does not have (Redis 7.2, Valkey): nothing was sent; set \
         write.aof off, or use write.replicas",
        pool.name(),
        version >> 16,
        version >> 8 & 255,
        version & 255
    );
    Err(Error::new(Status::Unsupported, text).with_endpoint(pool.name()))
}

fn weigh_replicas(context: &Context, asked: u32, configured: Replicas) -> Result<u32> {
    let listed = || u32::try_from(context.service.load().replicas.len()).unwrap_or(u32::MAX);
    match (asked, configured) {
        (0, Replicas::None) => Ok(0),
        (0, Replicas::AtLeast(n)) => Ok(n),
        (0, Replicas::All) => match &context.service.load().unlisted {
            None => Ok(listed()),
            Some(line) => {
                let text = format!(
                    "write.replicas is all, and the Sentinels do not list the replicas to the ACL user of sentinel.username: {line}"
                );
                Err(Error::new(Status::Config, text))
            }
        },
        (n, _) if n >= listed() && context.service.load().unlisted.is_none() => Ok(n),
        (n, _) => match context.sentinel.settings().sentinel.lacks_guard() {
            None => Ok(n),
            Some(missing) => {
                let what = "what they acknowledge may be lost";
                let text = format!("VIGIE_CALL_REPLICAS below all replicas needs {missing}: {what}");
                Err(Error::new(Status::Config, text))
            }
        },
    }
}

/// Sends a write and its WAIT as one unit.
pub(crate) fn send(
    context: &Context,
    plan: &Plan<'_>,
    pool: &Arc<Pool>,
    need: Need,
    attempt: &Attempt<Arc<Pool>>,
) -> Outcome {
    let (unit, lease, deadline) = (attempt.unit(plan), gate::lease(context, plan), attempt.deadline);
    let mut loan = pool.loan(Purpose::Durable, deadline).map_err(Failure::unsent)?;
    check_server(need, pool).map_err(Failure::unsent)?;
    if unit.atomic {
        loaned::prepare_transaction(&mut loan, deadline)?;
    }
    gate::check(context, plan, &deadline, attempt.gate_wait).map_err(Failure::unsent)?;
    let bytes = with_wait(unit, need, deadline).map_err(Failure::unsent)?;
    let commands = unit.list.unwrap_or(1);
    let list = Some(commands + 1);
    let unit_with_wait = Unit { bytes: Bytes::Raw(&bytes), list, at_most_once: true, lease, atomic: unit.atomic };
    let outcome = loaned::run(loan, unit_with_wait, deadline);
    unwrap(context, plan, outcome, (unit.bytes.len(), unit.list), need, pool.name())
}

/// Encodes a write and its WAIT, whose timeout ends before the deadline.
pub(crate) fn with_wait(unit: Unit<'_>, need: Need, deadline: Deadline) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = unit.bytes.len() + 64;
    bytes.try_reserve_exact(room).map_err(|_| Error::no_memory(room, "a command"))?;
    unit.bytes.append_to(&mut bytes)?;
    let (replicas, patience) = (need.replicas.to_string(), patience(deadline.left()).as_millis().to_string());
    match need.on_disk {
        false => encode::command(&mut bytes, &[b"WAIT", replicas.as_bytes(), patience.as_bytes()]),
        true => encode::command(&mut bytes, &[b"WAITAOF", b"1", replicas.as_bytes(), patience.as_bytes()]),
    }
    Ok(bytes)
}

/// Adds to the error of too few replicas what the caller can do about it. `listed`: how many replicas the source lists.
fn explain(error: Error, need: Need, listed: usize, source: Source) -> Error {
    if error.status() != Status::Replicas || !error.server_code().is_empty() {
        return error;
    }
    if need.on_disk {
        return error.with_note("; it stands, and may be lost: see appendonly and appendfsync of these nodes");
    }
    let lists = match source {
        Source::Sentinels => "the Sentinels list",
        Source::Fixed => "replica.addrs lists",
    };
    let remedy = match need.replicas as usize > listed {
        true => "ask for no more than there are",
        false => "the others did not acknowledge it in time, see INFO replication of the primary",
    };
    error.with_note(format_args!("; it stands, and may be lost in a failover; {lists} {listed} replicas: {remedy}"))
}

/// The outcome of the write without its WAIT. `own`: how many bytes belong to the write, and how many commands if it is a list.
pub(crate) fn unwrap(
    context: &Context,
    plan: &Plan<'_>,
    outcome: Outcome,
    own: (usize, Option<u32>),
    need: Need,
    node: &str,
) -> Outcome {
    unwrap_of(context, plan, outcome, own, need, node, None)
}

/// As [`unwrap`]. `did_something`: whether a reply shows that there is a write, where the plan alone does not tell.
pub(crate) fn unwrap_of(
    context: &Context,
    plan: &Plan<'_>,
    outcome: Outcome,
    own: (usize, Option<u32>),
    need: Need,
    node: &str,
    did_something: Option<&dyn Fn(&Reply) -> bool>,
) -> Outcome {
    let (bytes, list) = own;
    let whole = outcome.map_err(|failure| Failure { sent: failure.sent.min(bytes), ..failure })?;
    judge_wait(plan, &whole, list, need, node, did_something).map_err(|failure| {
        let error = explain(failure.error, need, context.service.load().replicas.len(), context.service.source());
        Failure { error, ..failure }
    })
}

/// The timeout of WAIT. It leaves time for the answer before the deadline: an idle server checks the time only every 100 ms.
fn patience(left: Option<Duration>) -> Duration {
    // 0 would mean forever, even after the client is gone.
    let Some(left) = left else { return LONGEST };
    let margin = (left / 10).max(LATE.min(left / 2));
    (left - margin).clamp(Duration::from_millis(1), LONGEST)
}

/// The numbers that WAIT or WAITAOF gave: whether the primary has the write where it is to be, and how many replicas have.
fn counted(whole: &Reply, of_wait: u32, need: Need) -> (bool, i64) {
    let number = |node: Option<u32>| node.and_then(|node| whole.int(node)).unwrap_or(0).max(0);
    match need.on_disk {
        false => (true, number(Some(of_wait))),
        true => (number(whole.child(of_wait, 0)) > 0, number(whole.child(of_wait, 1))),
    }
}

/// Separates the reply of the write from the count of WAIT, and judges the count.
fn judge_wait(
    plan: &Plan<'_>,
    whole: &Reply,
    list: Option<u32>,
    need: Need,
    node: &str,
    did_something: Option<&dyn Fn(&Reply) -> bool>,
) -> Outcome {
    let commands = list.unwrap_or(1);
    let mut own = ReplyBuilder::new();
    match list {
        None => _ = own.part(whole, whole.child(0, 0).unwrap_or_default()),
        Some(_) => {
            own.array();
            whole.children(0).take(commands as usize).for_each(|child| _ = own.part(whole, child));
            own.end();
        }
    }
    // The write was executed, even if there is no memory for its reply.
    let reply = own.try_finish().map_err(|error| Failure::new(usize::MAX, error.with_endpoint(node)))?;
    let did_something = match list {
        _ if did_something.is_some() => did_something.is_some_and(|did_something| did_something(&reply)),
        _ if plan.is_atomic() => !transaction::did_nothing(plan, &reply),
        None => reply.error_line(0).is_none(),
        Some(_) => reply.children(0).any(|child| reply.error_line(child).is_none()),
    };
    let of_wait = whole.child(0, commands);
    let replicas = need.replicas;
    let (local, count) = of_wait.map_or((false, 0), |node| counted(whole, node, need));
    if !did_something || (local && count >= i64::from(replicas)) {
        return Ok(reply);
    }
    let error = match of_wait.and_then(|node| whole.error_line(node)) {
        Some(line) => {
            let refused = Error::from_server(line, node);
            let what = if need.on_disk { "it is on disk".to_owned() } else { format!("{replicas} replicas have it") };
            let text = format!("executed by {node}, but whether {what} is not known: {refused}");
            Error::new(Status::Replicas, text).with_server_code(refused.server_code())
        }
        None => {
            let text = match (need.on_disk, local) {
                (false, _) => format!("executed by {node}, but {count} of {replicas} replicas have it"),
                (true, true) => format!("executed by {node}, but {count} of {replicas} replicas have it on disk"),
                (true, false) => format!("executed by {node}, which does not have it on disk yet"),
            };
            Error::new(Status::Replicas, text)
        }
    };
    let error = error.with_endpoint(node).with_count(count);
    let error = if plan.is_atomic() { judge::with_results(plan, error, &reply) } else { error.with_reply(reply) };
    Err(Failure::new(usize::MAX, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is durable here does not matter: it is no transaction.
    fn write() -> Plan<'static> {
        Plan::command(&[b"SET", b"k", b"v"]).unwrap()
    }

    fn of(replicas: u32) -> Need {
        Need { replicas, on_disk: false }
    }

    #[test]
    fn on_disk_means_that_of_the_primary_and_those_of_the_replicas() {
        let told = |local: i64, count: i64, replicas: u32| {
            let whole = ReplyBuilder::new().array().text("OK").array().int(local).int(count).end().end().finish();
            judge_wait(&write(), &whole, None, Need { replicas, on_disk: true }, "n", None)
        };
        assert!(told(1, 0, 0).is_ok() && told(1, 2, 2).is_ok() && told(1, 3, 2).is_ok());
        for (local, count, replicas, words) in [
            (0, 0, 0, "which does not have it on disk yet"),
            (0, 2, 2, "on disk yet"),
            (1, 1, 2, "1 of 2 replicas have it on disk"),
        ] {
            let error = told(local, count, replicas).unwrap_err().error;
            assert_eq!((error.status(), error.count()), (Status::Replicas, count));
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn a_number_of_replicas_that_cannot_be_is_none() {
        let whole = ReplyBuilder::new().array().text("OK").int(-5).end().finish();
        let failure = judge_wait(&write(), &whole, None, of(1), "n", None).unwrap_err();
        assert_eq!(failure.error.count(), 0, "{}", failure.error);
    }

    #[test]
    fn too_few_replicas_is_an_error_with_their_number() {
        let whole = ReplyBuilder::new().array().text("OK").int(1).end().finish();
        let failure = judge_wait(&write(), &whole, None, of(2), "n", None).unwrap_err();
        assert_eq!((failure.error.status(), failure.error.count()), (Status::Replicas, 1));
        assert_eq!(
            failure.error.reply().and_then(|reply| reply.bytes(0)),
            Some(&b"OK"[..]),
            "what it answered is kept"
        );
        assert_eq!(judge_wait(&write(), &whole, None, of(1), "n", None).unwrap().bytes(0), Some(&b"OK"[..]));
    }

    #[test]
    fn more_than_there_are_is_told_apart_from_those_that_do_not_answer() {
        let whole = ReplyBuilder::new().array().text("OK").int(0).end().finish();
        let told = |replicas: u32| {
            explain(
                judge_wait(&write(), &whole, None, of(replicas), "n", None).unwrap_err().error,
                of(replicas),
                2,
                Source::Sentinels,
            )
        };
        for (replicas, more) in [(1, false), (2, false), (3, true)] {
            let message = told(replicas).message().to_owned();
            assert_eq!(message.contains("list 2 replicas: ask for no more than there are"), more, "{message}");
            assert_eq!(message.contains("did not acknowledge it in time"), !more, "{message}");
        }
    }

    #[test]
    fn a_wait_that_was_refused_says_so_and_has_the_sentinels_asked() {
        let line = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
        let whole = ReplyBuilder::new().array().text("OK").error(line).end().finish();
        let error = judge_wait(&write(), &whole, None, of(1), "n", None).unwrap_err().error;
        assert_eq!((error.status(), error.count(), error.server_code()), (Status::Replicas, 0, "UNBLOCKED"));
        assert!(error.message().contains(line), "{error}");
    }

    #[test]
    fn the_answer_comes_before_the_deadline_and_the_wait_has_an_end() {
        let ms = |left: u64| patience(Some(Duration::from_millis(left))).as_millis();
        assert_eq!([0, 1, 100, 240, 1000, 5000].map(ms), [1, 1, 50, 120, 880, 4500]);
        assert_eq!(patience(None), LONGEST);
        assert_eq!(patience(Some(Duration::MAX)), LONGEST);
    }

    #[test]
    fn what_was_refused_needs_no_replicas() {
        let whole = ReplyBuilder::new().array().error("READONLY no").int(0).end().finish();
        assert!(judge_wait(&write(), &whole, None, of(2), "n", None).unwrap().error_line(0).is_some());
        let whole = ReplyBuilder::new().array().int(1).error("ERR no").int(2).end().finish();
        assert_eq!(judge_wait(&write(), &whole, Some(2), of(2), "n", None).unwrap().count(0), 2);
    }
}
