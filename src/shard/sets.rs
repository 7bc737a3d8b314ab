//! Sets over several shards that change one of them: SDIFFSTORE, SINTERSTORE, SUNIONSTORE and SMOVE.
//!
//! Guarantees: a destination is replaced as a whole, whatever it held before, and is gone where the result is empty; it is written in one
//! transaction. SMOVE puts the member into the destination before it takes it from the source, so that it is in one of them at every
//! moment: if the second part fails it may be in both, and the error says so. Neither is atomic over the shards: what is written to the
//! sources meanwhile counts or does not. Leaves to others: sets that are only read (gather).

use super::gather;
use super::task::{Ask, Task};
use crate::client::CallFlags;
use crate::client::steps::{AfterCancel, Next, Operation, Told};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Reply, ReplyBuilder};

/// Which sets are computed.
#[derive(Clone, Copy)]
pub(super) enum Algebra {
    Union,
    Intersection,
    Difference,
}

/// One of the STORE forms.
pub(super) struct Store {
    task: Task,
    algebra: Algebra,
    /// The shards that are asked, in the order of their questions.
    sources: Vec<usize>,
    asks: Vec<Ask>,
    destination: (usize, Vec<u8>),
    /// How many members it has got.
    stored: Option<i64>,
}

/// How many members one SADD carries.
const PIECE: usize = 1024;

impl Store {
    pub(super) fn new(task: Task, algebra: Algebra, asks: Vec<Ask>, destination: (usize, Vec<u8>)) -> Self {
        let sources = asks.iter().map(|ask| ask.shard).collect();
        Self { task, algebra, sources, asks, destination, stored: None }
    }

    fn store(&mut self, told: Told) -> Result<Next> {
        let answers = self.task.answers(self.sources.iter().copied(), told);
        let replies = answers.iter().map(|answer| answer.as_ref().map_err(Error::clone)).collect::<Result<Vec<_>>>();
        // Nothing was written yet.
        let replies = replies.map_err(|error| error.without_flags(flags::MAYBE_EXECUTED))?;
        if let Some((_, shard)) = replies.iter().zip(&self.sources).find(|(reply, _)| !gather::is_set(reply)) {
            return Err(self.task.state.named(*shard, gather::misfit()).without_flags(flags::MAYBE_EXECUTED));
        }
        let members = match self.algebra {
            Algebra::Union => gather::union(&replies),
            Algebra::Intersection => gather::intersection(&replies),
            Algebra::Difference => gather::difference(&replies),
        };
        let (shard, key) = &self.destination;
        self.stored = i64::try_from(members.len()).ok();
        let mut list: Vec<Vec<&[u8]>> = vec![vec![b"DEL", key]];
        for piece in members.chunks(PIECE) {
            let mut add: Vec<&[u8]> = vec![b"SADD", key];
            add.extend(piece);
            list.push(add);
        }
        let list: Vec<&[&[u8]]> = list.iter().map(Vec::as_slice).collect();
        Ok(self.task.ask(vec![Ask::list(*shard, CallFlags::ATOMIC, &list)?]))
    }

    fn stored(&self, stored: i64, told: Told) -> Result<Reply> {
        self.task.executed(self.destination.0, told).map(|_| ReplyBuilder::new().int(stored).finish())
    }
}

impl Operation for Store {
    fn next(&mut self, told: Option<Told>) -> Next {
        match (told, self.stored) {
            // What is stored has to be what the primaries have.
            (None, _) => self.task.on_primary().ask(std::mem::take(&mut self.asks)),
            (Some(told), None) => self.store(told).unwrap_or_else(|error| Next::Over(Err(error))),
            (Some(told), Some(stored)) => Next::Over(self.stored(stored, told).map(Some)),
        }
    }
}

/// SMOVE from one shard to another.
pub(super) struct Move {
    task: Task,
    from: (usize, Vec<u8>),
    to: (usize, Vec<u8>),
    member: Vec<u8>,
    phase: MovePhase,
}

enum MovePhase {
    Begin,
    /// Whether the source has it, and what the destination is.
    Looking,
    Adding,
    /// Whether this call has added it.
    Removing(bool),
    /// The source had lost it in between.
    Undoing,
}

impl Move {
    pub(super) fn new(task: Task, from: (usize, Vec<u8>), to: (usize, Vec<u8>), member: Vec<u8>) -> Self {
        Self { task, from, to, member, phase: MovePhase::Begin }
    }

    fn step(&mut self, told: Option<Told>) -> Result<Next> {
        let (from, to, member) = (&self.from, &self.to, &self.member[..]);
        let number = |reply: &Reply| reply.int(0).unwrap_or(0);
        let over = |moved: i64| Ok(Next::Over(Ok(Some(ReplyBuilder::new().int(moved).finish()))));
        let Some(told) = told else {
            self.phase = MovePhase::Looking;
            let looks = vec![
                Ask::list(from.0, 0, &[&[b"EXISTS", &from.1], &[b"SISMEMBER", &from.1, member]])?,
                Ask::one(to.0, &[b"SISMEMBER", &to.1, member])?,
            ];
            // Both on their primaries: a replica may not have the member yet.
            let on_primary = self.task.on_primary();
            return Ok(on_primary.ask(looks));
        };
        match self.phase {
            MovePhase::Begin | MovePhase::Looking => {
                let mut answers = self.task.answers([from.0, to.0], told).into_iter();
                let (Some(source), Some(destination)) = (answers.next(), answers.next()) else {
                    return Err(Error::new(Status::Internal, "two shards were asked"));
                };
                let harmless = |error: Error| error.without_flags(flags::MAYBE_EXECUTED);
                let source = source.map_err(harmless)?;
                let answer = |at: u32| source.child(0, at).and_then(|node| source.int(node));
                if answer(0) == Some(0) {
                    return over(0);
                }
                if let Some(line) = source.child(0, 1).and_then(|node| source.error_line(node)) {
                    return Err(self.task.state.named(from.0, Error::from_server(line, "")));
                }
                destination.map_err(harmless)?;
                if answer(1) != Some(1) {
                    return over(0);
                }
                self.phase = MovePhase::Adding;
                Ok(self.task.ask(vec![Ask::one(to.0, &[b"SADD", &to.1, member])?]))
            }
            MovePhase::Adding => {
                let added = self.task.answer(to.0, told).map_err(|error| match error.has(flags::MAYBE_EXECUTED) {
                    true => error.with_note("; the source still has the member, and the destination may have it too"),
                    false => error,
                })?;
                let added = number(&added) > 0;
                self.phase = MovePhase::Removing(added);
                Ok(self.task.ask_at_last(vec![Ask::one(from.0, &[b"SREM", &from.1, member])?]))
            }
            MovePhase::Removing(added) => match self.task.answer(from.0, told) {
                Ok(reply) if number(&reply) > 0 => over(1),
                Ok(_) if added => {
                    self.phase = MovePhase::Undoing;
                    Ok(self.task.ask_at_last(vec![Ask::one(to.0, &[b"SREM", &to.1, member])?]))
                }
                Ok(_) => over(0),
                Err(error) => Err(error.with_flags(flags::MAYBE_EXECUTED).with_note(
                    "; the member is in the destination, and may still be in the source: SREM takes it from there",
                )),
            },
            MovePhase::Undoing => {
                self.task.answer(to.0, told).map_err(|error| {
                    error
                        .with_flags(flags::MAYBE_EXECUTED)
                        .with_note("; the source had lost the member meanwhile, and it may be left in the destination")
                })?;
                over(0)
            }
        }
    }
}

impl Operation for Move {
    fn next(&mut self, told: Option<Told>) -> Next {
        self.step(told).unwrap_or_else(|error| Next::Over(Err(error)))
    }

    fn after_cancel(&self) -> AfterCancel {
        match self.phase {
            MovePhase::Undoing => AfterCancel::Finishes,
            _ => AfterCancel::Settles,
        }
    }
}
