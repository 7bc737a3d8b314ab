//! An operation of several writes of which fewer replicas have one than were asked for (`VIGIE_CALL_REPLICAS`, `write.replicas`).
//!
//! Guarantees: such a write was executed, so the operation goes on with its answer, and nothing stands half done for it; at its end the call
//! is that error, with the operation's reply, as a write to one shard is. Leaves to others: the operations, and how many replicas a write
//! needs (call/durable).

use super::task::Task;
use crate::client::steps::{AfterCancel, Next, Operation, StepCall, Told};
use crate::error::{Error, Result, Status};
use crate::resp::Reply;

/// The operation, and the first write that too few replicas have.
pub(super) struct Confirmed {
    task: Task,
    operation: Box<dyn Operation>,
    /// The services of the calls under way, by which their shards are found.
    asked: Vec<String>,
    short: Option<Error>,
}

impl Confirmed {
    pub(super) fn new(task: Task, operation: Box<dyn Operation>) -> Self {
        Self { task, operation, asked: Vec::new(), short: None }
    }

    /// The answer of a write that was executed.
    fn taken(&mut self, at: usize, outcome: Result<Reply>) -> Result<Reply> {
        let error = match outcome {
            Err(error) if error.status() == Status::Replicas => error,
            other => return other,
        };
        let Some(reply) = error.reply().cloned() else { return Err(error) };
        let state = &self.task.state;
        let is_it =
            |shard: &usize| self.asked.get(at).is_some_and(|asked| state.client(*shard).service_name() == asked);
        let shard = state.servers().iter().copied().find(is_it).unwrap_or_default();
        self.short.get_or_insert_with(|| state.named(shard, error));
        Ok(reply)
    }
}

impl Operation for Confirmed {
    fn next(&mut self, told: Option<Told>) -> Next {
        let told = told.map(|Told { outcome, from, beside }| {
            let outcome = self.taken(0, outcome);
            let beside = beside.into_iter().zip(1..).map(|(outcome, at)| self.taken(at, outcome)).collect();
            Told { outcome, from, beside }
        });
        match (self.operation.next(told), self.short.take()) {
            (Next::Over(Ok(reply)), Some(short)) => {
                Next::Over(Err(reply.into_iter().fold(short, |short, reply| short.with_reply(reply))))
            }
            (next, short) => {
                if let Next::Call(call) = &next {
                    let service = |call: &StepCall| call.client.service_name().to_owned();
                    self.asked = std::iter::once(service(call)).chain(call.beside.iter().map(service)).collect();
                }
                self.short = short;
                next
            }
        }
    }

    fn after_cancel(&self) -> AfterCancel {
        self.operation.after_cancel()
    }
}
