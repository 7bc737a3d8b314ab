//! MSETNX over several shards.
//!
//! Guarantees: nothing is set if one of the keys is there when the call begins. If one appears in between, what was set is deleted again, but
//! only where the value is still the one that this call has set; what remains is listed in the error. Not atomic: others see the keys of
//! one shard before those of another one. Leaves to others: keys on one shard, for which the server does it.

use std::sync::Arc;

use super::task::{Ask, Task};
use crate::client::steps::{AfterCancel, Next, Operation, StepCall, Told};
use crate::client::{CallFlags, Client};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::resp::{Reply, ReplyBuilder, encode};

/// What one shard sets: keys and values.
pub(super) struct Part {
    pub(super) shard: usize,
    pub(super) pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One call.
pub(super) struct SetNx {
    pub(super) task: Task,
    pub(super) parts: Vec<Part>,
    pub(super) phase: Phase,
}

/// How far it is.
pub(super) enum Phase {
    Begin,
    /// Whether any of the keys is there.
    Looking,
    Setting,
    /// What is to be undone, the last one first, and why.
    Undoing(Undo),
}

/// What was set on these shards is taken back.
pub(super) struct Undo {
    left: Vec<usize>,
    session: Option<Arc<Client>>,
    /// The answer to the call, or its error.
    because: Option<Error>,
    remaining: Vec<Vec<u8>>,
    /// Shards whose answer was lost, and which have not been found to have what they were given.
    unclear: Vec<usize>,
    /// How often the look at a shard may begin anew because a connection was lost.
    tries: u32,
    /// Whether the values are looked at, and not deleted.
    is_looking: bool,
}

/// How often a shard is looked at.
const TRIES: u32 = 3;

impl SetNx {
    fn shards(&self) -> Vec<usize> {
        self.parts.iter().map(|part| part.shard).collect()
    }

    fn ask_each(&self, task: &Task, name: &[u8], with_values: bool) -> Result<Next> {
        let ask = |part: &Part| {
            let mut args: Vec<&[u8]> = vec![name];
            for (key, value) in &part.pairs {
                args.push(key);
                args.extend(with_values.then_some(&value[..]));
            }
            Ask::one(part.shard, &args)
        };
        Ok(task.ask(self.parts.iter().map(ask).collect::<Result<_>>()?))
    }

    fn looked(&mut self, told: Told) -> Result<Next> {
        let answers = self.task.answers(self.shards(), told);
        for answer in answers {
            let reply = answer.map_err(|error| error.without_flags(flags::MAYBE_EXECUTED))?;
            if reply.int(0) != Some(0) {
                return over(0);
            }
        }
        self.phase = Phase::Setting;
        self.ask_each(&self.task, b"MSETNX", true)
    }

    fn set(&mut self, told: Told) -> Result<Next> {
        let answers = self.task.answers(self.shards(), told);
        let is_set = |answer: &Result<Reply>| match answer {
            Ok(reply) => reply.int(0) == Some(1),
            // It may be: the look at its values tells.
            Err(error) => error.has(flags::MAYBE_EXECUTED),
        };
        if answers.iter().all(|answer| answer.as_ref().is_ok_and(|reply| reply.int(0) == Some(1))) {
            return over(1);
        }
        let left = (0..answers.len()).filter(|at| is_set(&answers[*at])).collect();
        let lost = |at: &usize| answers[*at].as_ref().is_err_and(|error| error.has(flags::MAYBE_EXECUTED));
        let unclear = (0..answers.len()).filter(lost).collect();
        let because = answers.into_iter().find_map(Result::err);
        self.phase = Phase::Undoing(Undo {
            left,
            session: None,
            because,
            remaining: Vec::new(),
            unclear,
            tries: TRIES,
            is_looking: true,
        });
        self.undo_next()
    }

    /// Looks at the next shard's values, under WATCH.
    fn undo_next(&mut self) -> Result<Next> {
        let Phase::Undoing(undo) = &mut self.phase else { return over(0) };
        let Some(part) = undo.left.last().map(|at| &self.parts[*at]) else { return self.undone() };
        let session = match undo.session.clone().map_or_else(|| self.task.state.client(part.shard).session(None), Ok) {
            Ok(session) => session,
            Err(_) => return self.undo_failed(),
        };
        (undo.session, undo.is_looking) = (Some(Arc::clone(&session)), true);
        let keys: Vec<&[u8]> = part.pairs.iter().map(|(key, _)| &key[..]).collect();
        let with = |name: &'static [u8]| [&[name][..], &keys].concat();
        let ask = Ask::list(part.shard, 0, &[&with(b"WATCH"), &with(b"MGET")])?;
        Ok(self.at_last(session, ask))
    }

    fn undo_failed(&mut self) -> Result<Next> {
        if let Phase::Undoing(undo) = &mut self.phase {
            let part = undo.left.last().map(|at| &self.parts[*at]);
            undo.remaining.extend(part.into_iter().flat_map(|part| &part.pairs).map(|(key, _)| key.clone()));
        }
        self.undo_another()
    }

    fn undo_another(&mut self) -> Result<Next> {
        if let Phase::Undoing(undo) = &mut self.phase {
            (undo.session, undo.tries, _) = (None, TRIES, undo.left.pop());
        }
        self.undo_next()
    }

    fn at_last(&self, client: Arc<Client>, ask: Ask) -> Next {
        let next = match &self.phase {
            Phase::Undoing(Undo { because: Some(because), .. }) => self.task.ask_to_undo(vec![ask], because),
            _ => self.task.ask_at_last(vec![ask]),
        };
        match next {
            Next::Call(call) => Next::Call(StepCall { client, ..call }),
            other => other,
        }
    }

    /// What the look has found, or what the deletion has answered.
    fn undo(&mut self, told: Told) -> Result<Next> {
        let Phase::Undoing(undo) = &mut self.phase else { return over(0) };
        let Some(part) = undo.left.last().map(|at| &self.parts[*at]) else { return self.undone() };
        let looked = undo.is_looking;
        let is_error = |reply: &Reply| reply.children(0).any(|node| reply.error_line(node).is_some());
        let values = match told.outcome {
            Ok(reply) if !looked && !is_error(&reply) => return self.undo_another(),
            Ok(reply)
                if looked
                    && !is_error(&reply)
                    && reply.count(0) == 2
                    && reply.child(0, 1).is_some_and(|node| reply.kind(node).is_aggregate()) =>
            {
                reply
            }
            // Refused, or no answer to these commands: what was set there may still be there.
            Ok(_) => return self.undo_failed(),
            // One of them was changed: the look begins anew, on a session whose connection may be another one.
            Err(error) if error.status() == Status::TxnAborted && !self.task.deadline.is_over() => {
                undo.session = None;
                return self.undo_next();
            }
            // What is looked at under WATCH, and deleted only where it is ours, can be done again.
            Err(error) if !error.is_server_line() && undo.tries > 1 => {
                (undo.session, undo.tries) = (None, undo.tries - 1);
                return self.undo_next();
            }
            Err(_) => return self.undo_failed(),
        };
        let found = values.child(0, 1).unwrap_or_default();
        let mut del: Vec<&[u8]> = vec![b"DEL"];
        for (at, (key, value)) in part.pairs.iter().enumerate() {
            let is_ours = values.children(found).nth(at).and_then(|node| values.bytes(node)) == Some(&value[..]);
            del.extend(is_ours.then_some(&key[..]));
        }
        let (Some(session), true) = (undo.session.clone(), del.len() > 1) else { return self.undo_another() };
        undo.unclear.retain(|at| undo.left.last() != Some(at));
        undo.is_looking = false;
        let mut commands = Vec::new();
        encode::try_command(&mut commands, &del)?;
        let ask = Ask { shard: part.shard, commands, form: CallFlags::ATOMIC };
        Ok(self.at_last(session, ask))
    }

    fn undone(&mut self) -> Result<Next> {
        let Phase::Undoing(undo) = &mut self.phase else { return over(0) };
        let names = |keys: &[Vec<u8>]| {
            let names: Vec<String> = keys.iter().map(|key| quoted(&String::from_utf8_lossy(key))).collect();
            names.join(", ")
        };
        let nodes: Vec<&str> = undo.unclear.iter().map(|at| self.task.state.name(self.parts[*at].shard)).collect();
        let note = match (undo.remaining.is_empty(), nodes.is_empty()) {
            (false, _) => format!("; what was set may not have been deleted again: {}", names(&undo.remaining)),
            (true, false) => format!(
                "; what was set was deleted again; {} has lost its answer, and has not set anything until now",
                nodes.join(", ")
            ),
            (true, true) => String::from("; what was set was deleted again"),
        };
        let is_unclear = !undo.remaining.is_empty() || !undo.unclear.is_empty();
        match (undo.because.take(), is_unclear) {
            (Some(error), false) => Err(error.without_flags(flags::MAYBE_EXECUTED).with_note(note)),
            (Some(error), true) => {
                Err(error.with_flags(flags::MAYBE_EXECUTED).without_flags(flags::RETRYABLE).with_note(note))
            }
            (None, false) => over(0),
            (None, true) => {
                let text = format!("MSETNX: one of the keys appeared meanwhile{note}");
                Err(Error::new(Status::Io, text).with_flags(flags::MAYBE_EXECUTED))
            }
        }
    }
}

fn over(set: i64) -> Result<Next> {
    Ok(Next::Over(Ok(Some(ReplyBuilder::new().int(set).finish()))))
}

impl Operation for SetNx {
    fn next(&mut self, told: Option<Told>) -> Next {
        let next = match (told, &self.phase) {
            (None, _) => {
                self.phase = Phase::Looking;
                let on_primary = self.task.on_primary();
                self.ask_each(&on_primary, b"EXISTS", false)
            }
            (Some(told), Phase::Begin | Phase::Looking) => self.looked(told),
            (Some(told), Phase::Setting) => self.set(told),
            (Some(told), Phase::Undoing(_)) => self.undo(told),
        };
        next.unwrap_or_else(|error| Next::Over(Err(error)))
    }

    fn after_cancel(&self) -> AfterCancel {
        match self.phase {
            Phase::Undoing(_) => AfterCancel::Finishes,
            _ => AfterCancel::Settles,
        }
    }
}
