//! A list of commands for several shards.
//!
//! Guarantees: the commands of one shard are one call, all shards are asked at the same time, and the replies come in the order of the list.
//! A command over several shards begins when those before it are over, and those behind it wait for its end, so that each key sees the
//! list's order. If a shard has failed the call fails, and its error has all other replies. Leaves to others: single commands.

use super::pipeline::Part;
use super::task::{Ask, Task, put};
use crate::client::steps::{AfterCancel, Next, Operation, Told};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Reply, ReplyBuilder};

/// What is done with a part of the list.
pub(super) enum Work {
    /// At the same time.
    Together(Vec<Part>),
    /// The command at this place.
    Apart(usize, Box<dyn Operation>),
}

/// The list.
pub(super) struct Split {
    task: Task,
    work: std::vec::IntoIter<Work>,
    answers: Vec<Option<Result<Reply>>>,
    now: Now,
}

/// What is under way.
enum Now {
    Nothing,
    /// The shards, with the places of their commands.
    Asked(Vec<(usize, Vec<usize>)>),
    Running(usize, Box<dyn Operation>),
}

impl Split {
    /// `count`: how many commands the list has.
    pub(super) fn new(task: Task, count: usize, work: Vec<Work>) -> Self {
        let answers = (0..count).map(|_| None).collect();
        Self { task, work: work.into_iter(), answers, now: Now::Nothing }
    }

    fn begin(&mut self) -> Next {
        match self.work.next() {
            None => Next::Over(self.whole()),
            Some(Work::Apart(at, operation)) => self.run(at, operation, None),
            Some(Work::Together(parts)) => {
                let ask =
                    |part: Part| (Ask { shard: part.shard, commands: part.bytes, form: 0 }, (part.shard, part.at));
                let (asks, asked) = parts.into_iter().map(ask).unzip();
                self.now = Now::Asked(asked);
                self.task.ask(asks)
            }
        }
    }

    fn run(&mut self, at: usize, mut operation: Box<dyn Operation>, told: Option<Told>) -> Next {
        match operation.next(told) {
            Next::Over(outcome) => {
                self.answers[at] = Some(outcome.map(|reply| reply.unwrap_or_else(Reply::null)));
                self.begin()
            }
            next => {
                self.now = Now::Running(at, operation);
                next
            }
        }
    }

    fn told(&mut self, asked: Vec<(usize, Vec<usize>)>, told: Told) -> Next {
        let answers = self.task.answers(asked.iter().map(|(shard, _)| *shard), told);
        for ((_, places), answer) in asked.into_iter().zip(answers) {
            for (index, place) in places.into_iter().enumerate() {
                self.answers[place] = Some(match &answer {
                    Ok(replies) => match replies.child(0, index as u32) {
                        Some(node) => Ok(replies.subtree(node)),
                        None => Err(Error::new(Status::Protocol, "a list has fewer replies than commands")),
                    },
                    Err(error) => Err(error.clone()),
                });
            }
        }
        self.begin()
    }

    fn whole(&mut self) -> Result<Option<Reply>> {
        let missing = || Err(Error::new(Status::Internal, "a command of a list was not run"));
        let answers: Vec<Result<Reply>> = self.answers.drain(..).map(|answer| answer.unwrap_or_else(missing)).collect();
        let mut out = ReplyBuilder::new();
        out.array();
        answers.iter().for_each(|answer| put(&mut out, answer));
        out.end();
        let reply = out.try_finish()?;
        let is_fatal = |answer: &&Result<Reply>| answer.as_ref().is_err_and(|error| error.status() != Status::Server);
        let Some(Err(first)) = answers.iter().find(is_fatal) else { return Ok(Some(reply)) };
        let unclear =
            answers.iter().any(|answer| !answer.as_ref().is_err_and(|error| !error.has(flags::MAYBE_EXECUTED)));
        let error =
            first.clone().without_flags(flags::RETRYABLE).with_flags(if unclear { flags::MAYBE_EXECUTED } else { 0 });
        let failed = answers.iter().filter(is_fatal).count();
        let note = format!("; {failed} of {} commands have failed: vigie_error_reply() has all replies", answers.len());
        Err(error.with_reply(reply).with_note(note))
    }
}

impl Operation for Split {
    fn next(&mut self, told: Option<Told>) -> Next {
        match (std::mem::replace(&mut self.now, Now::Nothing), told) {
            (Now::Running(at, operation), told) => self.run(at, operation, told),
            (Now::Asked(asked), Some(told)) => self.told(asked, told),
            _ => self.begin(),
        }
    }

    /// What ran before the cancellation is in the reply.
    fn after_cancel(&self) -> AfterCancel {
        match &self.now {
            Now::Running(_, operation) => operation.after_cancel().max(AfterCancel::Settles),
            _ => AfterCancel::Settles,
        }
    }
}
