//! Commands over several shards that take one round: each shard answers for its own keys, or for itself, and the answers are put together.
//!
//! Guarantees: one call for each shard, all at the same time; the order of the caller's keys is kept. A write that has failed on some of
//! the shards is an error that says which, and whose reply has the answer of each. Leaves to others: which commands these are (commands).

use std::collections::HashSet;

use super::task::{Ask, Task, put};
use crate::client::steps::{Next, Operation, Told};
use crate::error::{Error, Result, Status, flags};
use crate::resp::table::{self, Flags};
use crate::resp::{Body, Kind, Reply, ReplyBuilder, picked};
use crate::sys::random;

/// How the answers are put together.
#[derive(Clone, Copy)]
pub(super) enum Combine {
    /// One value for each key, in the caller's order.
    Values,
    /// The sum of the numbers.
    Sum,
    /// All have done the same.
    Same,
    /// One of the answers that is a value, whichever.
    Any,
    /// The elements of all, each once.
    Union,
    /// The elements that all have.
    Intersection,
    /// The elements of the first that no other one has.
    Difference,
    /// A map from the names of the shards to their answers; a shard that has failed has an error there. An error if all have failed.
    ByShard,
}

/// One round.
pub(super) struct Gather {
    task: Task,
    parts: Vec<Part>,
    combine: Combine,
    asks: Vec<Ask>,
    /// Nothing is changed by it, whatever has become of it.
    reads: bool,
}

/// What one shard is asked.
pub(super) struct Part {
    pub(super) shard: usize,
    /// The places of its keys among the caller's.
    pub(super) keys: Vec<usize>,
}

impl Gather {
    pub(super) fn new(task: Task, combine: Combine, parts: Vec<(Part, Ask)>) -> Self {
        let (parts, asks) = parts.into_iter().unzip();
        let reads = matches!(
            combine,
            Combine::Values | Combine::Union | Combine::Intersection | Combine::Difference | Combine::Any
        );
        Self { task, parts, combine, asks, reads }
    }

    /// For this command, which may only read.
    pub(super) fn of(self, args: &[&[u8]]) -> Self {
        let reads = self.reads || table::classify(&mut args.iter().copied()).flags.has(Flags::READ);
        Self { reads, ..self }
    }

    fn combined(&self, answers: &[Result<Reply>]) -> Result<Reply> {
        let shards: Vec<usize> = self.parts.iter().map(|part| part.shard).collect();
        // One that has answered has an answer for the program; where none has, all of them have failed.
        if matches!(self.combine, Combine::ByShard) && answers.iter().any(Result::is_ok) {
            return self.task.by_shard(&shards, answers);
        }
        let replies: Vec<&Reply> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        if replies.len() < answers.len() {
            return Err(match (self.combine, answers.iter().find_map(|answer| answer.as_ref().err())) {
                // These only read: what the others have answered is of no use.
                (Combine::Union | Combine::Intersection | Combine::Difference, Some(first)) => first.clone(),
                (Combine::Values, Some(first)) => self.with_values(first.clone(), answers),
                _ => self.task.failed_in_part(&shards, answers),
            });
        }
        match self.combine {
            Combine::Values => self.values(&replies),
            Combine::Sum => Ok(sum(&replies)),
            Combine::Any => Ok(any(&replies)),
            Combine::Same | Combine::ByShard => self.same(&shards, answers),
            Combine::Union => listed(&union(&replies), replies[0].kind(0)),
            Combine::Intersection => listed(&intersection(&replies), replies[0].kind(0)),
            Combine::Difference => listed(&difference(&replies), replies[0].kind(0)),
        }
    }

    /// Whether an answer has the form that can be put together with others.
    fn fits(&self, reply: &Reply, part: &Part) -> bool {
        match self.combine {
            Combine::Values => reply.kind(0) == Kind::Array && reply.count(0) as usize == part.keys.len(),
            Combine::Sum => reply.kind(0) == Kind::Int,
            Combine::Union | Combine::Intersection | Combine::Difference => is_set(reply),
            Combine::Same | Combine::Any | Combine::ByShard => true,
        }
    }

    fn values(&self, replies: &[&Reply]) -> Result<Reply> {
        let count = self.parts.iter().map(|part| part.keys.len()).sum();
        let mut places = vec![(0, 0); count];
        for (at, part) in self.parts.iter().enumerate() {
            for (index, place) in part.keys.iter().enumerate() {
                places[*place] = (at, index as u32);
            }
        }
        let bodies: Vec<&Body> = replies.iter().map(|reply| &***reply).collect();
        picked(&bodies, &places)
    }

    /// An error with the values of the shards that have answered, and with errors in the places of the others.
    #[cold]
    fn with_values(&self, error: Error, answers: &[Result<Reply>]) -> Error {
        let count = self.parts.iter().map(|part| part.keys.len()).sum();
        let mut places = vec![None; count];
        for (part, answer) in self.parts.iter().zip(answers) {
            for (key, index) in part.keys.iter().zip(0u32..) {
                places[*key] = Some((index, answer));
            }
        }
        let mut out = ReplyBuilder::new();
        out.array();
        for found in places {
            match found {
                Some((index, Ok(reply))) if index < reply.count(0) => {
                    _ = out.part(reply, reply.child(0, index).unwrap_or_default());
                }
                Some((_, failed @ Err(_))) => put(&mut out, failed),
                _ => _ = out.null(),
            }
        }
        out.end();
        // Without memory for them the error says which shard has failed all the same.
        match out.try_finish() {
            Ok(reply) => error.with_reply(reply).with_note("; vigie_error_reply() has the values of the others"),
            Err(_) => error,
        }
    }

    /// What all have answered, or a map where they differ.
    fn same(&self, shards: &[usize], answers: &[Result<Reply>]) -> Result<Reply> {
        let (first, rest) = answers.split_first().ok_or_else(nobody)?;
        let is_first = |answer: &Result<Reply>| match (first, answer) {
            (Ok(one), Ok(other)) => {
                one.kind(0) == other.kind(0) && one.bytes(0) == other.bytes(0) && one.int(0) == other.int(0)
            }
            _ => false,
        };
        match rest.iter().all(is_first) {
            true => first.clone(),
            false => self.task.by_shard(shards, answers),
        }
    }
}

/// Whether it is a set of texts.
pub(super) fn is_set(reply: &Reply) -> bool {
    matches!(reply.kind(0), Kind::Array | Kind::Set)
        && reply.children(0).all(|node| matches!(reply.kind(node), Kind::String | Kind::Status))
}

#[cold]
pub(super) fn misfit() -> Error {
    let text = "the server answered in another form than this command has: no answer can be made of it";
    Error::new(Status::Protocol, text).with_flags(flags::MAYBE_EXECUTED)
}

#[cold]
fn nobody() -> Error {
    Error::new(Status::Internal, "no shard was asked")
}

/// One of those that are not null, by chance.
fn any(replies: &[&Reply]) -> Reply {
    let values: Vec<&&Reply> = replies.iter().filter(|reply| reply.kind(0) != Kind::Null).collect();
    match values.is_empty() {
        true => Reply::null(),
        false => (*values[random::rng().usize(..values.len())]).clone(),
    }
}

fn sum(replies: &[&Reply]) -> Reply {
    let total = replies.iter().filter_map(|reply| reply.int(0)).fold(0i64, i64::saturating_add);
    ReplyBuilder::new().int(total).finish()
}

pub(super) fn elements(reply: &Reply) -> impl Iterator<Item = &[u8]> {
    reply.children(0).filter_map(|node| reply.bytes(node))
}

/// Each element once, in the order in which they came.
pub(super) fn union<'a>(replies: &[&'a Reply]) -> Vec<&'a [u8]> {
    let mut seen = HashSet::new();
    replies.iter().flat_map(|reply| elements(reply)).filter(|element| seen.insert(*element)).collect()
}

pub(super) fn intersection<'a>(replies: &[&'a Reply]) -> Vec<&'a [u8]> {
    let Some((first, rest)) = replies.split_first() else { return Vec::new() };
    let rest: Vec<HashSet<&[u8]>> = rest.iter().map(|reply| elements(reply).collect()).collect();
    elements(first).filter(|element| rest.iter().all(|others| others.contains(element))).collect()
}

pub(super) fn difference<'a>(replies: &[&'a Reply]) -> Vec<&'a [u8]> {
    let Some((first, rest)) = replies.split_first() else { return Vec::new() };
    let others: HashSet<&[u8]> = rest.iter().flat_map(|reply| elements(reply)).collect();
    elements(first).filter(|element| !others.contains(element)).collect()
}

fn listed(elements: &[&[u8]], kind: Kind) -> Result<Reply> {
    let mut out = ReplyBuilder::new();
    match kind {
        Kind::Set => out.set(),
        _ => out.array(),
    };
    elements.iter().for_each(|element| _ = out.bytes(element));
    out.end();
    out.try_finish()
}

impl Operation for Gather {
    fn next(&mut self, told: Option<Told>) -> Next {
        let Some(told) = told else { return self.task.ask(std::mem::take(&mut self.asks)) };
        let mut answers = self.task.answers(self.parts.iter().map(|part| part.shard), told);
        for (answer, part) in answers.iter_mut().zip(&self.parts) {
            if answer.as_ref().is_ok_and(|reply| !self.fits(reply, part)) {
                *answer = Err(self.task.state.named(part.shard, misfit()));
            }
        }
        let outcome = self.combined(&answers);
        let lost = |error: Error| if self.reads { error.without_flags(flags::MAYBE_EXECUTED) } else { error };
        Next::Over(outcome.map(Some).map_err(lost))
    }
}
