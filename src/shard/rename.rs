//! A key that moves or is copied to another shard: RENAME, RENAMENX and COPY.
//!
//! Guarantees: value and time to live arrive as they are (DUMP and RESTORE, milliseconds); the source is deleted only if it has not changed
//! since it was read (WATCH), else the whole is repeated, or undone where the source is gone. Nothing is deleted before it stands in the
//! destination. Not atomic: for a moment both are there. Leaves to others: keys on one shard, which the server renames by itself.

use std::sync::Arc;

use super::task::{Ask, Task, time};
use crate::client::steps::{Next, Operation, StepCall, Told};
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
    value: Dumped,
    /// What the destination held before.
    before: Option<Dumped>,
    /// An attempt has put a value there.
    is_ours: bool,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Begin,
    Reading,
    Restoring,
    Deleting,
    /// Whether the destination is as this call has left it.
    Checking,
    Undoing,
}

impl Rename {
    pub(super) fn new(task: Task, way: Way, from: (usize, Vec<u8>), to: (usize, Vec<u8>)) -> Self {
        let (session, before, value) = (None, None, Dumped::default());
        Self { task, way, from, to, session, value, before, is_ours: false, phase: Phase::Begin }
    }

    fn call(&self, client: &Arc<Client>, list: &[&[&[u8]]], form: u32) -> Result<StepCall> {
        let mut commands = Vec::new();
        for args in list {
            encode::try_command(&mut commands, args)?;
        }
        let flags = self.task.flags.with(form);
        let (client, timeout) = (Arc::clone(client), time(self.task.deadline));
        Ok(StepCall { client, commands, flags, timeout, beside: Vec::new() })
    }

    /// Reads the source under WATCH, and what RENAME is about to replace.
    fn read(&mut self) -> Result<Next> {
        self.phase = Phase::Reading;
        let session = self.task.state.client(self.from.0).session(None)?;
        let (from, to) = (&self.from.1[..], &self.to.1[..]);
        let look: [&[&[u8]]; 4] = [&[b"WATCH", from], &[b"DUMP", from], &[b"PTTL", from], &[b"PEXPIRETIME", from]];
        let mut call = self.call(&session, if self.removes() { &look } else { &look[1..] }, 0)?;
        if self.way == Way::Rename && !self.is_ours {
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
        let source = answers.next().map_or_else(|| Ok(Reply::null()), harmless)?;
        if let Some(destination) = answers.next() {
            self.before =
                dumped(&harmless(destination)?, 0).map_err(|error| self.task.state.named(self.to.0, error))?;
        }
        let first = u32::from(self.removes());
        match dumped(&source, first).map_err(|error| self.task.state.named(self.from.0, error))? {
            Some(value) => {
                self.value = value;
                self.restore()
            }
            // An earlier attempt has put there what is gone now.
            None if self.is_ours => self.check(),
            None => self.no_such_key(),
        }
    }

    fn no_such_key(&self) -> Result<Next> {
        match self.removes() {
            true => Err(self.task.state.named(self.from.0, Error::from_server(b"ERR no such key", ""))),
            false => self.over(0),
        }
    }

    fn restore(&mut self) -> Result<Next> {
        self.phase = Phase::Restoring;
        // What an earlier attempt has put there is ours.
        let replaces = matches!(self.way, Way::Rename | Way::Copy(true)) || self.is_ours;
        let ask =
            Ask { shard: self.to.0, commands: restore(&self.to.1, &self.value, replaces)?, form: CallFlags::EACH };
        Ok(self.task.ask(vec![ask]))
    }

    fn restored(&mut self, told: Told) -> Result<Next> {
        match self.task.answer(self.to.0, told) {
            Ok(_) if self.removes() => {
                self.is_ours = true;
                self.delete()
            }
            Ok(_) => self.over(1),
            Err(error) if error.server_code() == "BUSYKEY" => self.over(0),
            Err(error) => Err(error),
        }
    }

    fn delete(&mut self) -> Result<Next> {
        self.phase = Phase::Deleting;
        let Some(session) = &self.session else {
            return Err(Error::new(Status::Internal, "no session watches the source"));
        };
        Ok(Next::Call(self.call(session, &[&[b"DEL", &self.from.1]], CallFlags::ATOMIC)?))
    }

    fn deleted(&mut self, told: Told) -> Result<Next> {
        match self.task.answer(self.from.0, told) {
            Ok(_) => self.over(1),
            // The source was changed, or the connection that watched it is lost: nothing was deleted.
            Err(error) if error.status() == Status::TxnAborted && !self.task.deadline.is_over() => self.read(),
            Err(error) => Err(error.with_flags(flags::MAYBE_EXECUTED).with_note(
                "; the destination has the value, and the source may still have it: compare the two, and delete one",
            )),
        }
    }

    /// Whether what this call has put there is still there, so that it can be taken away again.
    fn check(&mut self) -> Result<Next> {
        self.phase = Phase::Checking;
        let session = self.task.state.client(self.to.0).session(None)?;
        let to = &self.to.1[..];
        let call = self.call(&session, &[&[b"WATCH", to], &[b"DUMP", to]], 0)?;
        self.session = Some(session);
        Ok(Next::Call(call))
    }

    fn checked(&mut self, told: Told) -> Result<Next> {
        let reply = self.task.answer(self.to.0, told)?;
        let is_ours = reply.child(0, 1).and_then(|node| reply.bytes(node)) == Some(&self.value.payload[..]);
        let Some(session) = self.session.clone().filter(|_| is_ours) else { return Err(self.left_behind()) };
        self.phase = Phase::Undoing;
        let mut commands = Vec::new();
        match &self.before {
            Some(before) => commands.extend(restore(&self.to.1, before, true)?),
            None => encode::try_command(&mut commands, &[b"DEL", &self.to.1])?,
        }
        let call = self.call(&session, &[], CallFlags::ATOMIC)?;
        Ok(Next::Call(StepCall { commands, ..call }))
    }

    fn left_behind(&self) -> Error {
        let text = "ERR no such key: it was deleted while it was renamed, and the destination was changed meanwhile: look at it";
        self.task.state.named(self.to.0, Error::from_server(text.as_bytes(), "")).with_flags(flags::MAYBE_EXECUTED)
    }

    fn over(&self, done: i64) -> Result<Next> {
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
            Phase::Checking => self.checked(told),
            Phase::Undoing => match self.task.answer(self.to.0, told) {
                Ok(_) => self.no_such_key(),
                Err(_) => Err(self.left_behind()),
            },
        }
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
        self.step(told).unwrap_or_else(|error| Next::Over(Err(error)))
    }
}
