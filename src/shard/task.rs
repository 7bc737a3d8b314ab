//! What an operation over several shards needs: the shards, the flags and the time of its call; and the thread that waits for it.
//!
//! Guarantees: the calls of one round are sent to all shards at the same time; an error names the shard. Leaves to others: what is asked
//! (the operations), and an operation without a waiting thread (client/steps).

use std::sync::Arc;
use std::time::Duration;

use super::nodes::State;
use crate::client::steps::{Next, Operation, StepCall, Told};
use crate::client::{CallFlags, Submission, Timeout};
use crate::error::{Error, Result, Status, flags};
use crate::queue::{Event, Queue};
use crate::resp::{Reply, ReplyBuilder, encode};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::sys::thread;
use crate::time::Deadline;

/// How long what belongs to an operation that has begun may take beyond its time: to put back what was taken out.
const GRACE: Duration = Duration::from_millis(1000);

/// One call over several shards.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) state: Arc<State>,
    /// Those of the call, without the ones that say how its list is meant.
    pub(super) flags: CallFlags,
    pub(super) deadline: Deadline,
}

/// What one shard is asked in a round.
pub(super) struct Ask {
    pub(super) shard: usize,
    pub(super) commands: Vec<u8>,
    /// `CallFlags::EACH`: one command, whose reply is its own. `ATOMIC`: a transaction. 0: a list.
    pub(super) form: u32,
}

impl Ask {
    /// One command.
    pub(super) fn one(shard: usize, args: &[&[u8]]) -> Result<Self> {
        let mut commands = Vec::new();
        encode::try_command(&mut commands, args)?;
        Ok(Self { shard, commands, form: CallFlags::EACH })
    }

    /// Several commands.
    pub(super) fn list(shard: usize, form: u32, list: &[&[&[u8]]]) -> Result<Self> {
        let mut commands = Vec::new();
        for args in list {
            encode::try_command(&mut commands, args)?;
        }
        Ok(Self { shard, commands, form })
    }
}

impl Task {
    /// The same with reads from the primaries.
    pub(super) fn on_primary(&self) -> Self {
        Self { flags: self.flags.with(CallFlags::ON_PRIMARY), ..self.clone() }
    }

    /// One round: all of them at the same time.
    pub(super) fn ask(&self, asks: Vec<Ask>) -> Next {
        self.ask_until(asks, self.deadline)
    }

    /// As [`Task::ask`], for what has to be done although the time may be over.
    pub(super) fn ask_at_last(&self, asks: Vec<Ask>) -> Next {
        self.ask_until(asks, self.at_last())
    }

    /// The end of its time, or a moment from now: for what has to be done although the time may be over.
    pub(super) fn at_last(&self) -> Deadline {
        self.deadline.left().map_or(self.deadline, |left| self.deadline.renewed(left.max(GRACE)))
    }

    /// The deadline of a call that undoes what an operation had begun. `because`: why it is undone. The undo of a cancelled operation always
    /// has a deadline, even if the operation had none.
    pub(super) fn undo_until(&self, because: &Error) -> Deadline {
        match (self.deadline.left(), because.status()) {
            (None, Status::Cancelled) => Deadline::after(GRACE),
            _ => self.at_last(),
        }
    }

    /// As [`Task::ask`], to undo what an operation had begun. `because`: why it is undone.
    pub(super) fn ask_to_undo(&self, asks: Vec<Ask>, because: &Error) -> Next {
        self.ask_until(asks, self.undo_until(because))
    }

    fn ask_until(&self, asks: Vec<Ask>, deadline: Deadline) -> Next {
        let call = |ask: Ask| StepCall {
            client: Arc::clone(self.state.client(ask.shard)),
            commands: ask.commands,
            flags: self.flags.with(ask.form),
            timeout: time(deadline),
            beside: Vec::new(),
        };
        let mut calls = asks.into_iter().map(call);
        match calls.next() {
            Some(first) => Next::Call(StepCall { beside: calls.collect(), ..first }),
            None => Next::Over(Err(Error::new(Status::Internal, "a round without a question"))),
        }
    }

    /// The answers of a round, whose errors name the shards.
    pub(super) fn answers(&self, shards: impl IntoIterator<Item = usize>, told: Told) -> Vec<Result<Reply>> {
        let outcomes = std::iter::once(told.outcome).chain(told.beside);
        let named = |(shard, outcome): (usize, Result<Reply>)| outcome.map_err(|error| self.state.named(shard, error));
        shards.into_iter().zip(outcomes).map(named).collect()
    }

    /// The answer of a round that has one shard run a transaction; an error inside it is the error.
    pub(super) fn executed(&self, shard: usize, told: Told) -> Result<Reply> {
        let reply = self.answer(shard, told)?;
        match reply.children(0).find_map(|node| reply.error_line(node)) {
            Some(line) => Err(self.state.named(shard, Error::from_server(line, ""))),
            None => Ok(reply),
        }
    }

    /// The answer of a round that asks one shard.
    pub(super) fn answer(&self, shard: usize, told: Told) -> Result<Reply> {
        told.outcome.map_err(|error| self.state.named(shard, error))
    }

    /// The error of a round of which a part has failed: the first one, with what each shard has answered as its reply.
    #[cold]
    pub(super) fn failed_in_part(&self, shards: &[usize], answers: &[Result<Reply>]) -> Error {
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let Some(first) = answers.iter().find_map(|answer| answer.as_ref().err()) else {
            return Error::new(Status::Internal, "a part has failed, and none has");
        };
        let unclear = answers.iter().any(|answer| !answer.as_ref().is_err_and(|e| !e.has(flags::MAYBE_EXECUTED)));
        let error = first.clone().without_flags(flags::RETRYABLE);
        // Without memory for the answers the error says which shard has failed all the same.
        let error = match self.by_shard(shards, answers) {
            Ok(reply) => error.with_reply(reply),
            Err(_) => error,
        };
        let (error, of) = (error.with_flags(if unclear { flags::MAYBE_EXECUTED } else { 0 }), answers.len());
        error
            .with_note(format_args!("; {failed} of {of} shards have failed: vigie_error_reply() has each one's answer"))
    }

    /// A map from the names of shards to their answers.
    pub(super) fn by_shard(&self, shards: &[usize], answers: &[Result<Reply>]) -> Result<Reply> {
        let mut out = ReplyBuilder::new();
        out.map();
        for (shard, answer) in shards.iter().zip(answers) {
            out.text(self.state.name(*shard));
            put(&mut out, answer);
        }
        out.end();
        out.try_finish()
    }
}

/// Adds an answer, an error as what a server would say.
pub(super) fn put(out: &mut ReplyBuilder, answer: &Result<Reply>) {
    match answer {
        Ok(reply) => out.reply(reply),
        Err(error) => out.error(&line_of(error)),
    };
}

fn line_of(error: &Error) -> String {
    match error.is_server_line() {
        true => error.message().to_owned(),
        false => format!("{} {}", error.status().info().name.trim_start_matches("VIGIE_ERR_"), error.message()),
    }
}

/// What is left of a time.
pub(super) fn time(deadline: Deadline) -> Timeout {
    match deadline.left() {
        None => Timeout::Unlimited,
        Some(left) if left.is_zero() => Timeout::DontWait,
        Some(left) => Timeout::Ms((left.as_millis() as u64).max(1)),
    }
}

/// Queues for rounds that a thread waits for. One round at a time uses each.
pub(super) struct Rounds(Lock<Vec<Arc<Queue>>>);

impl Rounds {
    pub(super) fn new() -> Self {
        Self(Lock::new(Rank::Rounds, Vec::new()))
    }

    /// Runs an operation on this thread.
    pub(super) fn run(&self, operation: &mut dyn Operation, shards: usize) -> Result<Reply> {
        let mut told = None;
        loop {
            let call = match operation.next(told.take()) {
                Next::Over(outcome) => return outcome.map(|reply| reply.unwrap_or_else(Reply::null)),
                Next::Pause(time) => {
                    thread::sleep(time);
                    continue;
                }
                Next::Call(call) => call,
            };
            told = Some(match call.beside.is_empty() {
                true => Told::of(call.client.cmds_exec(&call.commands, call.flags, call.timeout)),
                false => self.round(&call, shards)?,
            });
        }
    }

    /// Sends the calls of a round at the same time, and waits for all of them. Each of them ends at its own deadline.
    fn round(&self, call: &StepCall, shards: usize) -> Result<Told> {
        let calls: Vec<&StepCall> = std::iter::once(call).chain(&call.beside).collect();
        let spare = self.0.lock().pop();
        // More calls than shards are there if one shard is asked twice.
        let queue = match spare.filter(|_| calls.len() <= shards) {
            Some(queue) => queue,
            None => Queue::create(calls.len().max(shards))?,
        };
        let mut outcomes: Vec<Option<Result<Reply>>> = calls.iter().map(|_| None).collect();
        let (mut left, mut apart) = (0, Vec::new());
        for (at, call) in calls.iter().enumerate() {
            let submit = |queue: &Arc<Queue>| {
                let submission = Submission::of(&call.commands, call.flags, call.timeout, queue, at as u64);
                call.client.submit(Submission { is_checked: true, ..submission })
            };
            let submitted = match submit(&queue) {
                // `submit.max_bytes` bounds what a program submits, and this one waits: a large call has a queue of its own.
                Err(error) if error.status() == Status::QueueFull => Queue::create(1).and_then(|own| {
                    submit(&own)?;
                    apart.push(own);
                    Ok(())
                }),
                Err(error) => Err(error),
                Ok(()) => {
                    left += 1;
                    Ok(())
                }
            };
            outcomes[at] = submitted.err().map(Err);
        }
        take(&queue, left, &mut outcomes);
        apart.iter().for_each(|own| take(own, 1, &mut outcomes));
        self.0.lock().push(queue);
        let mut outcomes = outcomes.into_iter().flatten();
        let first = outcomes.next().ok_or_else(|| Error::new(Status::Internal, "a round without an outcome"))?;
        Ok(Told { outcome: first, from: None, beside: outcomes.collect() })
    }
}

/// Takes so many outcomes from a queue, each to the place that its token says.
fn take(queue: &Queue, mut left: usize, outcomes: &mut [Option<Result<Reply>>]) {
    let mut events = Vec::with_capacity(left);
    while left > 0 {
        queue.drain(Deadline::never(), &mut events, left);
        for Event { token, outcome, .. } in events.drain(..) {
            let nothing = || Error::new(Status::Internal, "a call ended without a reply");
            if let Some(place) = outcomes.get_mut(token as usize).filter(|place| place.is_none()) {
                *place = Some(outcome.and_then(|reply| reply.ok_or_else(nothing)));
                left -= 1;
            }
        }
    }
}
