//! Elements that move from a list on one shard to a list on another: RPOPLPUSH, LMOVE, BRPOPLPUSH and BLMOVE.
//!
//! Guarantees: the destination's type is looked at before anything is taken. An element that was taken and surely not pushed is put back
//! where it was, also after a cancellation; if it may have been pushed, or is not surely put back, the error carries it as its reply, with
//! MAYBE_EXECUTED. Not atomic: between the pop and the push the element is in neither list, and is lost if the process ends in that moment.
//! If the answer to the pop is lost nobody knows the element that may have been taken: the error says so.

use super::task::{Ask, Task};
use crate::client::steps::{AfterCancel, Next, Operation, Told};
use crate::error::{Error, Result, flags};
use crate::resp::{Kind, Reply, ReplyBuilder, encode};

/// Which end of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ListEnd {
    Left,
    Right,
}

/// One move.
pub(super) struct ListMove {
    pub(super) task: Task,
    pub(super) from: (usize, Vec<u8>, ListEnd),
    pub(super) to: (usize, Vec<u8>, ListEnd),
    /// The seconds of a blocking move, as the caller wrote them.
    pub(super) blocks: Option<Vec<u8>>,
    pub(super) phase: Phase,
}

/// How far it is.
pub(super) enum Phase {
    Begin,
    Looking,
    Popping,
    Pushing(Vec<u8>),
    /// The element, and why it goes back.
    PuttingBack(Vec<u8>, Error),
}

impl ListEnd {
    fn push(self) -> &'static [u8] {
        if self == Self::Left { b"LPUSH" } else { b"RPUSH" }
    }

    fn pop(self, blocks: bool) -> &'static [u8] {
        match (self, blocks) {
            (Self::Left, false) => b"LPOP",
            (Self::Right, false) => b"RPOP",
            (Self::Left, true) => b"BLPOP",
            (Self::Right, true) => b"BRPOP",
        }
    }
}

impl ListMove {
    fn step(&mut self, told: Option<Told>) -> Result<Next> {
        let Some(told) = told else {
            self.phase = Phase::Looking;
            let on_primary = self.task.on_primary();
            return Ok(on_primary.ask(vec![
                Ask::one(self.from.0, &[b"TYPE", &self.from.1])?,
                Ask::one(self.to.0, &[b"TYPE", &self.to.1])?,
            ]));
        };
        match std::mem::replace(&mut self.phase, Phase::Begin) {
            Phase::Begin | Phase::Looking => self.looked(told),
            Phase::Popping => self.popped(told),
            Phase::Pushing(element) => self.pushed(element, told),
            Phase::PuttingBack(element, error) => Err(self.put_back(&element, error, told)),
        }
    }

    fn looked(&mut self, told: Told) -> Result<Next> {
        let shards = [self.from.0, self.to.0];
        for (answer, shard) in self.task.answers(shards, told).into_iter().zip(shards) {
            let kind = answer.map_err(|error| error.without_flags(flags::MAYBE_EXECUTED))?;
            match kind.bytes(0) {
                // Nothing is moved, whatever the destination is.
                Some(b"none") if shard == self.from.0 && self.blocks.is_none() => {
                    return Ok(Next::Over(Ok(Some(Reply::null()))));
                }
                Some(b"list" | b"none") => {}
                _ => {
                    let line = b"WRONGTYPE Operation against a key holding the wrong kind of value";
                    return Err(self.task.state.named(shard, Error::from_server(line, "")));
                }
            }
        }
        self.phase = Phase::Popping;
        let (shard, key, end) = &self.from;
        let pop = end.pop(self.blocks.is_some());
        Ok(self.task.ask(vec![match &self.blocks {
            Some(seconds) => Ask::one(*shard, &[pop, key, seconds])?,
            None => Ask::one(*shard, &[pop, key])?,
        }]))
    }

    fn popped(&mut self, told: Told) -> Result<Next> {
        let reply = match self.task.answer(self.from.0, told) {
            Ok(reply) => reply,
            Err(error) => return Err(self.not_popped(error)),
        };
        let Some(element) = self.element(&reply) else { return Ok(Next::Over(Ok(Some(Reply::null())))) };
        let push = [self.to.2.push(), &self.to.1, element];
        match Ask::one(self.to.0, &push).and_then(|ask| Ok((ask, encode::try_copy(element)?))) {
            Ok((ask, element)) => {
                self.phase = Phase::Pushing(element);
                Ok(self.task.ask_at_last(vec![ask]))
            }
            Err(error) => {
                let error = error.with_flags(flags::MAYBE_EXECUTED).with_reply(reply);
                Err(error.with_note("; the element was taken: vigie_error_reply() has it, as the pop has answered"))
            }
        }
    }

    /// The element in the answer to the pop.
    fn element<'a>(&self, reply: &'a Reply) -> Option<&'a [u8]> {
        // A blocking pop answers the key and the element.
        let at = if self.blocks.is_some() { reply.child(0, 1) } else { Some(0) };
        at.filter(|_| reply.kind(0) != Kind::Null).and_then(|at| reply.bytes(at))
    }

    #[cold]
    fn not_popped(&self, error: Error) -> Error {
        match error.has(flags::MAYBE_EXECUTED) {
            true => error.without_flags(flags::RETRYABLE).with_note(
                "; the first element of that end may have been taken from the source, and was not pushed: its value is not known here",
            ),
            false => error,
        }
    }

    fn pushed(&mut self, element: Vec<u8>, told: Told) -> Result<Next> {
        match self.task.answer(self.to.0, told) {
            Ok(_) => Ok(Next::Over(Ok(Some(ReplyBuilder::new().bytes(&element).finish())))),
            Err(error) if error.has(flags::MAYBE_EXECUTED) => {
                let note = "; the element was taken, and may have been pushed: vigie_error_reply() has it";
                Err(carrying(&element, error).with_note(note))
            }
            Err(error) => {
                let ask = match Ask::one(self.from.0, &[self.from.2.push(), &self.from.1, &element]) {
                    Ok(ask) => ask,
                    Err(other) => return Err(taken_for_good(&element, error, &other)),
                };
                let next = self.task.ask_to_undo(vec![ask], &error);
                self.phase = Phase::PuttingBack(element, error);
                Ok(next)
            }
        }
    }

    fn put_back(&self, element: &[u8], error: Error, told: Told) -> Error {
        match self.task.answer(self.from.0, told) {
            Ok(_) => error.with_note("; the element was put back"),
            Err(other) => taken_for_good(element, error, &other),
        }
    }
}

fn taken_for_good(element: &[u8], error: Error, other: &Error) -> Error {
    let (why, is_unclear) = (other.message(), other.has(flags::MAYBE_EXECUTED));
    let how = if is_unclear { "may not have been" } else { "could not be" };
    let note = format!("; the element was taken, and {how} put back ({why}): vigie_error_reply() has it");
    carrying(element, error).with_note(note)
}

fn carrying(element: &[u8], error: Error) -> Error {
    let reply = ReplyBuilder::new().bytes(element).finish();
    error.with_flags(flags::MAYBE_EXECUTED).without_flags(flags::RETRYABLE).with_reply(reply)
}

impl Operation for ListMove {
    fn next(&mut self, told: Option<Told>) -> Next {
        self.step(told).unwrap_or_else(|error| Next::Over(Err(error)))
    }

    fn after_cancel(&self) -> AfterCancel {
        match self.phase {
            Phase::PuttingBack(..) => AfterCancel::Finishes,
            _ => AfterCancel::Settles,
        }
    }
}
