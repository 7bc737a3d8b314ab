//! The writes of a session for which no replica was waited yet (rule 17), and the WAIT behind the unit with the last of them.
//!
//! Guarantees: no WAIT is sent inside a transaction that is open; behind it one WAIT counts for what was queued in it. What was refused
//! or aborted needs no replicas. Leaves to others: how many replicas a write needs, and what their number means (call/durable).

use crate::call::durable::{self, Need};
use crate::config::WriteSettings;
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Outcome, Unit};
use crate::plan::Plan;
use crate::pool::Pool;
use crate::resp::table::Flags;
use crate::resp::{Kind, Reply};
use crate::route::Context;
use crate::time::Deadline;

/// What a connection has written since its last WAIT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unwaited {
    pub(super) in_multi: bool,
    wrote: bool,
    /// A write waits in the open transaction for EXEC.
    queued: bool,
}

/// What is waited for behind a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    need: Need,
    /// What the connection had written before the unit.
    before: Unwaited,
}

impl Unwaited {
    /// Notes the commands of a unit before they are sent. True: it ends with writes that may be waited for.
    pub(super) fn note(&mut self, plan: &Plan<'_>) -> bool {
        self.walk(plan, None);
        !self.in_multi && std::mem::take(&mut self.wrote)
    }

    /// What is to be waited for behind a unit: under the settings of its session, and with the replicas that the call asks for by itself,
    /// or 0. `Err`: it is not to be sent.
    pub(super) fn awaited(
        self,
        context: &Context,
        plan: &Plan<'_>,
        (write, asked): (WriteSettings, u32),
        pool: &Pool,
    ) -> Result<Awaited> {
        let mut after = self;
        let need = match after.note(plan) && plan.blocks.is_none() {
            true => durable::configured(context, write, asked)?,
            false => Need::NONE,
        };
        if asked > 0 && after.queued {
            let text = "flags: VIGIE_CALL_REPLICAS: this session is in a transaction that was begun by hand, and nothing of it is \
                        written before EXEC: give the flag with EXEC";
            return Err(Error::new(Status::InvalidArg, text));
        }
        durable::check_server(need, pool)?;
        Ok(Awaited { need, before: self })
    }

    /// Goes through the commands of a unit, with their replies if they are there.
    fn walk(&mut self, plan: &Plan<'_>, reply: Option<&Reply>) {
        if plan.is_atomic() {
            self.wrote |= !plan.reads;
            return;
        }
        let mut at = 0;
        plan.each_class(|name, class| {
            let answer = reply.and_then(|reply| Some((reply, if plan.is_list() { reply.child(0, at)? } else { 0 })));
            at += 1;
            let is_refused = answer.is_some_and(|(reply, node)| reply.kind(node) == Kind::Error);
            match &*name.to_ascii_uppercase() {
                b"EXEC" => {
                    self.wrote |= self.queued && answer.is_none_or(|(reply, node)| did_something(reply, node));
                    (self.in_multi, self.queued) = (false, false);
                }
                b"DISCARD" | b"RESET" => (self.in_multi, self.queued) = (false, false),
                _ if is_refused => {}
                b"MULTI" => self.in_multi = true,
                _ if class.flags.has_any(NO_WRITES) => {}
                _ if self.in_multi => self.queued = true,
                _ => self.wrote |= class.blocks.is_none(),
            }
        });
    }
}

/// What reads, and what changes its connection only.
const NO_WRITES: Flags = Flags::READ.and(Flags::STATE).and(Flags::SUBSCRIBE).and(Flags::TXN);

/// Whether EXEC ran a command that was not refused.
fn did_something(reply: &Reply, exec: u32) -> bool {
    reply.kind(exec) == Kind::Array && reply.children(exec).any(|node| reply.kind(node) != Kind::Error)
}

impl Awaited {
    /// The bytes of the unit with its WAIT, if it needs one.
    pub(super) fn extended(self, unit: Unit<'_>, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        match self.need {
            Need::NONE => Ok(None),
            need => durable::with_wait(unit, need, deadline).map(Some),
        }
    }

    /// The unit with these bytes, of a unit and its WAIT. `None`: the unit itself.
    pub(super) fn unit<'a>(unit: Unit<'a>, extended: Option<&'a [u8]>) -> Unit<'a> {
        let Some(bytes) = extended else { return unit };
        Unit { bytes: Bytes::Raw(bytes), list: Some(unit.list.unwrap_or(1) + 1), at_most_once: true, ..unit }
    }

    /// Whether a transaction is open after the unit was answered so. It is not if the server has refused MULTI.
    pub(super) fn is_open_after(self, plan: &Plan<'_>, reply: &Reply) -> bool {
        let mut after = self.before;
        after.walk(plan, Some(reply));
        after.in_multi
    }

    /// The outcome of the unit without its WAIT: an error if its writes are on too few replicas.
    pub(super) fn unwrap(self, context: &Context, plan: &Plan<'_>, outcome: Outcome, node: &str) -> Outcome {
        if self.need == Need::NONE {
            return outcome;
        }
        let unit = plan.unit(0);
        let wrote = |reply: &Reply| {
            let mut after = self.before;
            after.walk(plan, Some(reply));
            after.wrote
        };
        let did_something: Option<&dyn Fn(&Reply) -> bool> = if plan.is_atomic() { None } else { Some(&wrote) };
        durable::unwrap_of(context, plan, outcome, (unit.bytes.len(), unit.list), self.need, node, did_something)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{ReplyBuilder, encode};

    /// Notes each line as one list of commands, and tells behind which of them is waited.
    fn waits(lines: &[&[&str]]) -> Vec<bool> {
        let mut unwaited = Unwaited::default();
        let told = |commands: &&[&str]| {
            let mut bytes = Vec::new();
            for command in *commands {
                let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
                encode::command(&mut bytes, &args);
            }
            unwaited.note(&Plan::list(&bytes).unwrap())
        };
        lines.iter().map(told).collect()
    }

    #[test]
    fn writes_are_waited_for_and_reads_and_what_blocks_are_not() {
        assert_eq!(waits(&[&["SET k v"], &["GET k"], &["GET k", "SET k v"]]), [true, false, true]);
        assert_eq!(
            waits(&[&["SELECT 1"], &["WATCH k", "GET k"], &["UNWATCH"], &["EVAL x 0"]]),
            [false, false, false, true]
        );
        assert_eq!(waits(&[&["NO.SUCH"], &["PUBLISH c m"]]), [true, true]);
    }

    #[test]
    fn in_an_open_transaction_nothing_is_waited_for_before_its_end() {
        assert_eq!(waits(&[&["MULTI"], &["SET k v"], &["GET k"], &["EXEC"]]), [false, false, false, true]);
        assert_eq!(waits(&[&["MULTI", "SET k v", "EXEC"], &["GET k"]]), [true, false]);
        assert_eq!(waits(&[&["MULTI", "GET k"], &["EXEC"]]), [false, false], "it has only read");
        assert_eq!(waits(&[&["MULTI", "SET k v"], &["DISCARD"], &["GET k"]]), [false, false, false]);
        assert_eq!(
            waits(&[&["SET k v", "MULTI"], &["DISCARD"], &["GET k"]]),
            [false, true, false],
            "the first one stands"
        );
        assert_eq!(waits(&[&["MULTI", "SET k v"], &["RESET"], &["EXEC"]]), [false, false, false]);
    }

    /// Whether a transaction by hand whose EXEC was answered so wrote something.
    fn wrote(answer: impl Fn(ReplyBuilder) -> ReplyBuilder) -> bool {
        let mut unwaited = Unwaited { in_multi: true, wrote: false, queued: true };
        let reply = answer(ReplyBuilder::new()).finish();
        unwaited.walk(&Plan::command(&[b"EXEC"]).unwrap(), Some(&reply));
        assert!(!unwaited.in_multi && !unwaited.queued);
        unwaited.wrote
    }

    #[test]
    fn what_exec_did_not_run_needs_no_replicas() {
        let built = |build: &dyn Fn(&mut ReplyBuilder)| {
            wrote(|mut reply| {
                build(&mut reply);
                reply
            })
        };
        assert!(built(&|reply| _ = reply.array().text("OK").end()));
        assert!(built(&|reply| _ = reply.array().error("ERR no").text("OK").end()));
        assert!(!built(&|reply| _ = reply.array().error("ERR no").end()), "each command was refused");
        assert!(!built(&|reply| _ = reply.null()), "a watched key was changed");
        assert!(!built(&|reply| _ = reply.error("EXECABORT discarded")));
    }

    #[test]
    fn a_transaction_whose_multi_was_refused_is_not_open() {
        let multi = Plan::command(&[b"MULTI"]).unwrap();
        let told =
            |reply: Reply| Awaited { need: Need::NONE, before: Unwaited::default() }.is_open_after(&multi, &reply);
        assert!(told(ReplyBuilder::new().text("OK").finish()));
        assert!(!told(ReplyBuilder::new().error("NOPERM no").finish()));
    }
}
