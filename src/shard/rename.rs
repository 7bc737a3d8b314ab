//! A key that moves or is copied to another shard: RENAME, RENAMENX and COPY.
//!
//! Guarantees: value and time to live arrive as they are (DUMP and RESTORE, milliseconds); the source is deleted only if it has not changed
//! since it was read (WATCH), else the whole is repeated, or undone where the source is gone. Nothing is deleted before it stands in the
//! destination. What a RENAMENX or an undo replaces at the destination is what this call has put there: its dump is compared under WATCH,
//! and where it differs the error says so (a server may dump a large hash or set in another order than the one that it came from). Not
//! atomic: for a moment both are there. Leaves to others: keys on one shard, which the server renames by itself.

use std::sync::Arc;

use super::task::{Ask, Task, time};
use crate::client::steps::{AfterCancel, Next, Operation, StepCall, Told};
use crate::client::{CallFlags, Client};
use crate::error::{Error, Result, Status, flags};
use crate::resp::{Kind, Reply, ReplyBuilder, encode};

/// What is done with the two keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Rename,
    RenameNx,
    /// Whether it replaces what is there.
    Copy(bool),
}

/// A value as a server dumps it.
#[derive(Clone, Default)]
struct Dumped {
    payload: Vec<u8>,
    /// For RESTORE.
    ttl: i64,
    is_absolute: bool,
}

/// One key on its way.
pub(super) struct Rename {
    task: Task,
    way: Way,
    from: (usize, Vec<u8>),
    to: (usize, Vec<u8>),
    /// Holds the WATCH on the source.
    session: Option<Arc<Client>>,
    /// Holds the WATCH on the destination.
    other: Option<Arc<Client>>,
    value: Dumped,
    /// What the destination held before.
    before: Option<Dumped>,
    /// What an attempt has put there, as the source dumped it, while the source may have it too.
    ours: Option<Vec<u8>>,
    /// Whether the answer to a deletion was lost: what is gone then was deleted by this call.
    may_be_deleted: bool,
    /// How often a lost connection may be followed by another look at the source.
    tries: u32,
    phase: Phase,
}

/// How often the source is looked at because a connection was lost, the first time included.
const TRIES: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Reading,
    Restoring,
    Deleting,
    /// Whether the destination is as this call has left it: to replace it, or to take it back where the source is gone.
    Checking {
        is_gone: bool,
    },
    /// What this call had put there.
    Replacing,
    Undoing,
}

impl Rename {
    pub(super) fn new(task: Task, way: Way, from: (usize, Vec<u8>), to: (usize, Vec<u8>)) -> Self {
        let (session, other, before, ours, value) = (None, None, None, None, Dumped::default());
        let (may_be_deleted, tries, phase) = (false, TRIES, Phase::Begin);
        Self { task, way, from, to, session, other, value, before, ours, may_be_deleted, tries, phase }
    }

    fn call(&self, client: &Arc<Client>, list: &[&[&[u8]]], form: u32) -> Result<StepCall> {
        let mut commands = Vec::new();
        for args in list {
            encode::try_command(&mut commands, args)?;
        }
        let deadline = if self.ours.is_some() { self.task.at_last() } else { self.task.deadline };
        let (client, timeout) = (Arc::clone(client), time(deadline));
        Ok(StepCall { client, commands, flags: self.task.flags.with(form), timeout, beside: Vec::new() })
    }

    /// Reads the source under WATCH, and what RENAME is about to replace.
    fn read(&mut self) -> Result<Next> {
        self.phase = Phase::Reading;
        let source = self.task.state.client(self.from.0);
        let (from, to) = (&self.from.1[..], &self.to.1[..]);
        let look: [&[&[u8]]; 4] = [&[b"WATCH", from], &[b"DUMP", from], &[b"PTTL", from], &[b"PEXPIRETIME", from]];
        if !self.removes() {
            return Ok(Next::Call(self.call(source, &look[1..], CallFlags::ON_PRIMARY)?));
        }
        let session = source.session(None)?;
        let mut call = self.call(&session, &look, 0)?;
        if self.way == Way::Rename && self.ours.is_none() {
            let look: [&[&[u8]]; 3] = [&[b"DUMP", to], &[b"PTTL", to], &[b"PEXPIRETIME", to]];
            let on_primary = self.call(self.task.state.client(self.to.0), &look, CallFlags::ON_PRIMARY)?;
            call.beside.push(on_primary);
        }
        self.session = Some(session);
        Ok(Next::Call(call))
    }

    fn removes(&self) -> bool {
        !matches!(self.way, Way::Copy(_))
    }

    fn was_read(&mut self, told: Told) -> Result<Next> {
        let shards = [self.from.0, self.to.0];
        let mut answers = self.task.answers(shards, told).into_iter();
        let harmless = |answer: Result<Reply>| answer.map_err(|error| error.without_flags(flags::MAYBE_EXECUTED));
        let source = match answers.next() {
            // Nothing was changed: the watch begins anew, on another connection.
            Some(Err(error)) if self.looks_again(&error) => return self.read(),
            source => source.map_or_else(|| Ok(Reply::null()), harmless)?,
        };
        if let Some(destination) = answers.next() {
            self.before =
                dumped(&harmless(destination)?, 0).map_err(|error| self.task.state.named(self.to.0, error))?;
        }
        let first = u32::from(self.removes());
        if self.removes() {
            watched(&source).map_err(|error| self.task.state.named(self.from.0, error))?;
        }
        let value = dumped(&source, first).map_err(|error| self.task.state.named(self.from.0, error))?;
        let is_gone = value.is_none();
        self.value = value.unwrap_or_default();
        match (is_gone, self.ours.is_some()) {
            (true, true) if self.may_be_deleted => self.over(1),
            // An earlier attempt has put there what is gone now, or what has changed: RENAMENX replaces nobody else's value.
            (true, true) => self.check(is_gone),
            (false, true) if self.way == Way::RenameNx => self.check(is_gone),
            (true, false) => self.no_such_key(),
            (false, _) => self.restore(),
        }
    }

    fn no_such_key(&mut self) -> Result<Next> {
        self.ours = None;
        match self.removes() {
            true => Err(self.task.state.named(self.from.0, Error::from_server(b"ERR no such key", ""))),
            false => self.over(0),
        }
    }

    fn restore(&mut self) -> Result<Next> {
        self.phase = Phase::Restoring;
        let commands = restore(&self.to.1, &self.value, matches!(self.way, Way::Rename | Way::Copy(true)))?;
        Ok(self.task.ask(vec![Ask { shard: self.to.0, commands, form: CallFlags::EACH }]))
    }

    fn restored(&mut self, told: Told) -> Result<Next> {
        match self.task.answer(self.to.0, told) {
            Ok(_) if self.removes() => self.delete(),
            Ok(_) => self.over(1),
            Err(error) if error.server_code() == "BUSYKEY" => self.over(0),
            Err(error) if error.has(flags::MAYBE_EXECUTED) && self.ours.is_none() => Err(error
                .without_flags(flags::RETRYABLE)
                .with_note("; the source is as it was, and the destination may have its value already")),
            Err(error) => Err(error),
        }
    }

    fn delete(&mut self) -> Result<Next> {
        self.phase = Phase::Deleting;
        self.ours = Some(std::mem::take(&mut self.value.payload));
        let Some(session) = &self.session else {
            return Err(Error::new(Status::Internal, "no session watches the source"));
        };
        Ok(Next::Call(self.call(session, &[&[b"DEL", &self.from.1]], CallFlags::ATOMIC)?))
    }

    fn deleted(&mut self, told: Told) -> Result<Next> {
        match self.task.executed(self.from.0, told) {
            Ok(_) => self.over(1),
            // The source was changed, or the connection that watched it is lost: nothing was deleted.
            Err(error) if self.is_to_be_repeated(&error) => self.read(),
            // Whether the source is there tells whether it was deleted.
            Err(error) if error.has(flags::MAYBE_EXECUTED) && self.looks_again(&error) => {
                self.may_be_deleted = true;
                self.read().map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is another look at the source after its connection was lost.
    fn looks_again(&mut self, error: &Error) -> bool {
        let may = error.status() == Status::Io && !error.is_server_line() && !self.task.flags.has(CallFlags::NO_RETRY);
        let looks = may && self.tries > 1 && !self.task.deadline.is_over();
        self.tries -= u32::from(looks);
        looks
    }

    fn is_to_be_repeated(&self, error: &Error) -> bool {
        error.status() == Status::TxnAborted && !error.has(flags::MAYBE_EXECUTED) && !self.task.deadline.is_over()
    }

    /// Whether what this call has put there is still there, so that it can be replaced or taken away again.
    fn check(&mut self, is_gone: bool) -> Result<Next> {
        self.phase = Phase::Checking { is_gone };
        let session = self.task.state.client(self.to.0).session(None)?;
        let to = &self.to.1[..];
        let call = self.call(&session, &[&[b"WATCH", to], &[b"DUMP", to]], 0)?;
        self.other = Some(session);
        Ok(Next::Call(call))
    }

    fn checked(&mut self, is_gone: bool, told: Told) -> Result<Next> {
        let reply = self.task.answer(self.to.0, told)?;
        let is_read = |node: u32| matches!(reply.kind(node), Kind::String | Kind::Null);
        let read = watched(&reply).and_then(|()| match reply.child(0, 1) {
            Some(node) if is_read(node) => Ok(()),
            node => Err(Error::from_server(node.and_then(|node| reply.error_line(node)).unwrap_or(NO_DUMP), "")),
        });
        read.map_err(|error| self.task.state.named(self.to.0, error))?;
        let found = reply.child(0, 1).and_then(|node| reply.bytes(node));
        let is_ours = found.is_some() && found == self.ours.as_deref();
        match (&self.other, found) {
            (Some(session), _) if is_ours => {
                let commands = match (is_gone, &self.before) {
                    (false, _) => restore(&self.to.1, &self.value, true)?,
                    (true, Some(before)) => restore(&self.to.1, before, true)?,
                    (true, None) => {
                        let mut del = Vec::new();
                        encode::try_command(&mut del, &[b"DEL", &self.to.1])?;
                        del
                    }
                };
                let call = self.call(session, &[], CallFlags::ATOMIC)?;
                self.phase = if is_gone { Phase::Undoing } else { Phase::Replacing };
                Ok(Next::Call(StepCall { commands, ..call }))
            }
            // Somebody has deleted it.
            (_, None) if !is_gone => {
                self.ours = None;
                self.restore()
            }
            (_, None) if self.before.is_none() => self.no_such_key(),
            _ => Err(self.left_behind(is_gone)),
        }
    }

    /// What was done to the destination under WATCH.
    fn replaced(&mut self, is_gone: bool, told: Told) -> Result<Next> {
        match self.task.executed(self.to.0, told) {
            Ok(_) if is_gone => self.no_such_key(),
            Ok(_) => self.delete(),
            Err(error) if self.is_to_be_repeated(&error) => self.check(is_gone),
            Err(_) if is_gone => Err(self.left_behind(is_gone)),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn left_behind(&mut self, is_gone: bool) -> Error {
        self.ours = None;
        let text = match is_gone {
            true => {
                "ERR no such key: it was deleted while it was renamed, and the destination was changed meanwhile: look at it"
            }
            false => "BUSYKEY the source was changed while it was renamed, and so was the destination: look at both",
        };
        self.task.state.named(self.to.0, Error::from_server(text.as_bytes(), "")).with_flags(flags::MAYBE_EXECUTED)
    }

    fn over(&mut self, done: i64) -> Result<Next> {
        let mut out = ReplyBuilder::new();
        match self.way {
            Way::Rename => out.text_of(Kind::Status, b"OK"),
            _ => out.int(done),
        };
        Ok(Next::Over(Ok(Some(out.finish()))))
    }

    fn step(&mut self, told: Option<Told>) -> Result<Next> {
        let Some(told) = told else { return self.read() };
        match self.phase {
            Phase::Begin | Phase::Reading => self.was_read(told),
            Phase::Restoring => self.restored(told),
            Phase::Deleting => self.deleted(told),
            Phase::Checking { is_gone } => self.checked(is_gone, told),
            Phase::Replacing => self.replaced(false, told),
            Phase::Undoing => self.replaced(true, told),
        }
    }

    /// What an error means for the two keys.
    fn told_of(&self, error: Error) -> Error {
        if self.ours.is_none() {
            return error;
        }
        let note = match self.phase {
            Phase::Deleting | Phase::Reading if self.may_be_deleted || error.has(flags::MAYBE_EXECUTED) => {
                "; the destination has the value, and the source may still have it: compare the two, and delete one"
            }
            Phase::Deleting => {
                "; the destination has the value, and the source has it too: compare the two, and delete one"
            }
            _ => {
                "; the source was changed meanwhile, and the destination has a value of it: compare the two, and delete one"
            }
        };
        error.with_flags(flags::MAYBE_EXECUTED).without_flags(flags::RETRYABLE).with_note(note)
    }
}

const NO_DUMP: &[u8] = b"ERR DUMP was answered in another form than it has";

/// The answer to WATCH, which comes first: without it nothing shows that a key was changed.
fn watched(reply: &Reply) -> Result<()> {
    match reply.child(0, 0).and_then(|node| reply.error_line(node)) {
        Some(line) => Err(Error::from_server(line, "")),
        None => Ok(()),
    }
}

/// The answers to DUMP, PTTL and PEXPIRETIME. `None`: the key is not there.
fn dumped(reply: &Reply, first: u32) -> Result<Option<Dumped>> {
    let node = |at: u32| reply.child(0, first + at);
    if let Some(line) = node(0).and_then(|node| reply.error_line(node)) {
        return Err(Error::from_server(line, ""));
    }
    let Some(payload) = node(0).and_then(|node| reply.bytes(node)) else { return Ok(None) };
    let (left, until) = (node(1).and_then(|node| reply.int(node)), node(2).and_then(|node| reply.int(node)));
    let (ttl, is_absolute) = match (left, until) {
        (_, Some(until)) if until > 0 => (until, true),
        (Some(-1), _) => (0, false),
        // RESTORE takes 0 as no expiry.
        (Some(left), _) if left >= 0 => (left.max(1), false),
        (Some(_), _) => return Ok(None),
        (None, _) => {
            let line = node(1).and_then(|node| reply.error_line(node)).unwrap_or(b"ERR PTTL has no number");
            return Err(Error::from_server(line, ""));
        }
    };
    Ok(Some(Dumped { payload: encode::try_copy(payload)?, ttl, is_absolute }))
}

fn restore(key: &[u8], value: &Dumped, replaces: bool) -> Result<Vec<u8>> {
    let ttl = value.ttl.to_string();
    let mut args: Vec<&[u8]> = vec![b"RESTORE", key, ttl.as_bytes(), &value.payload];
    if replaces {
        args.push(b"REPLACE");
    }
    if value.is_absolute {
        args.push(b"ABSTTL");
    }
    let mut commands = Vec::new();
    encode::try_command(&mut commands, &args)?;
    Ok(commands)
}

impl Operation for Rename {
    fn next(&mut self, told: Option<Told>) -> Next {
        self.step(told).unwrap_or_else(|error| Next::Over(Err(self.told_of(error))))
    }

    fn after_cancel(&self) -> AfterCancel {
        AfterCancel::Settles
    }
}
