//! Jobs that go back to the list: those of a worker whose lease is over, one that a program gives back, and all of them at the end.
//!
//! Guarantees: nothing is moved twice, and nothing of a worker that lives: WATCH holds the lease and the processing list as they were read.
//! What goes back is marked, and comes behind what waits already. A move that arrives after that is found: the name of its worker is kept
//! while one can be on its way. Leaves to others: when that happens (take, operations).

use std::sync::Arc;

use super::envelope::Job;
use super::keys::Keys;
use super::ledger::{self, Leaving, Ledger};
use super::take::{is_refused, is_too_large};
use crate::client::steps::{Next, StepCall};
use crate::client::{CallFlags, Client, Timeout};
use crate::error::{Error, Result, Status, flags};
use crate::meter::Deed;
use crate::resp::{Reply, encode};
use crate::time::Deadline;

/// How long the name of a worker that is gone is kept, as text in milliseconds. No packet of a process that ended is under way for longer,
/// nor does a server wait for longer with a blocking command for one that was cut off.
const MEMORY_MS: &[u8] = b"600000";

/// A transaction about what was read before, begun again while another one changes what is watched.
struct Watched {
    session: Option<Arc<Client>>,
    deadline: Deadline,
    moves: bool,
}

/// What follows from what was read.
enum Decision {
    Over(bool),
    Move(Vec<u8>),
}

impl Watched {
    fn new(deadline: Deadline) -> Self {
        Self { session: None, deadline, moves: false }
    }

    /// What comes next. `look`: the commands that watch and read.
    fn next(
        &mut self,
        client: &Arc<Client>,
        told: Option<Result<Reply>>,
        look: &dyn Fn() -> Result<Vec<u8>>,
        decide: &mut dyn FnMut(&Reply) -> Result<Decision>,
    ) -> Next<bool> {
        let deadline = self.deadline;
        let again = |error: &Error| error.status() == Status::TxnAborted && !deadline.is_over();
        let seen = match told.map(|outcome| outcome.and_then(|reply| ledger::check(&reply).map(|()| reply))) {
            Some(Err(error)) if !again(&error) => return Next::Over(Err(error)),
            Some(Ok(_)) if self.moves => return Next::Over(Ok(true)),
            Some(Ok(reply)) => reply,
            None | Some(Err(_)) => {
                self.moves = false;
                return match client.session(None).and_then(|session| Ok((session, look()?))) {
                    Ok((session, look)) => {
                        self.session = Some(Arc::clone(&session));
                        self.call(session, look, 0)
                    }
                    Err(error) => Next::Over(Err(error)),
                };
            }
        };
        match (decide(&seen), self.session.clone()) {
            (Ok(Decision::Move(moves)), Some(session)) => {
                self.moves = true;
                self.call(session, moves, CallFlags::ATOMIC)
            }
            (Ok(Decision::Over(outcome)), _) => Next::Over(Ok(outcome)),
            (Ok(_), None) => Next::Over(Err(Error::new(Status::Internal, "a transaction without a session"))),
            (Err(error), _) => Next::Over(Err(error)),
        }
    }

    fn call(&self, client: Arc<Client>, commands: Vec<u8>, flag: u32) -> Next<bool> {
        if self.deadline.is_over() {
            return Next::Over(Err(no_time(self.deadline)));
        }
        let flags = CallFlags::default().with(flag);
        Next::Call(StepCall { client, commands, flags, timeout: time(self.deadline), beside: Vec::new() })
    }
}

/// All that stands in the list of a worker.
pub struct All {
    watched: Watched,
    keys: Keys,
    worker: Vec<u8>,
    leaving: Leaving,
    has_old_commands: bool,
    /// Keeps the lease of the worker that hands back, which may take long job by job.
    keep_lease: Vec<u8>,
    /// Where a job goes that cannot be read: aside, or to the worker that hands back, which puts it aside if it is so.
    unread_to: Vec<u8>,
    part: Part,
    /// How many jobs the moves under way hand back, and put aside unread.
    moving: (usize, usize),
    /// Too few replicas know of what has gone back so far.
    lacking: Option<Error>,
}

/// How much of a list goes back at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The oldest job, because the list is too large for one answer.
    One,
    /// The oldest job, which is too large itself: it is moved unread.
    Unread,
}

impl All {
    pub fn new(ledger: &Ledger, worker: &[u8], leaving: Leaving, deadline: Deadline) -> Self {
        Self {
            watched: Watched::new(deadline),
            keys: ledger.keys.clone(),
            worker: worker.to_vec(),
            leaving,
            has_old_commands: ledger.has_old_commands,
            keep_lease: if ledger.keys.worker == worker { Vec::new() } else { ledger.keep_lease() },
            unread_to: if ledger.keys.worker == worker { &ledger.keys.failed } else { &ledger.keys.processing }.clone(),
            part: Part::Whole,
            moving: (0, 0),
            lacking: None,
        }
    }

    pub fn deadline(&self) -> Deadline {
        self.watched.deadline
    }

    /// What comes next. `permits`: whether a worker with this lease gives up what it has. `mark`: a job as it goes back.
    pub fn next(
        &mut self,
        client: &Arc<Client>,
        mut told: Option<Result<Reply>>,
        permits: &dyn Fn(Option<&[u8]>) -> bool,
        mark: &dyn Fn(&[u8]) -> Result<Job>,
    ) -> Next<bool> {
        if told.as_ref().is_some_and(|told| told.as_ref().is_err_and(is_too_large)) {
            self.read_less(client);
            told = None;
        }
        loop {
            let next = self.step(client, told.take(), permits, mark);
            let Next::Over(outcome) = next else { return next };
            let is_partial = self.part != Part::Whole && self.watched.moves;
            if outcome.is_ok() || stands(&outcome) {
                self.count_moved(client);
            }
            match outcome {
                Err(error) if is_partial && error.status() == Status::Replicas => self.lacking = Some(error),
                Err(error) if self.part == Part::Unread && !self.has_old_commands && is_refused(&error) => {
                    self.has_old_commands = true;
                }
                Ok(_) if is_partial && self.moving != (0, 0) => {}
                Ok(is_whole) => return Next::Over(self.lacking.take().map_or(Ok(is_whole), Err)),
                Err(error) => return Next::Over(Err(error)),
            }
            (self.moving, self.watched.moves, self.part) = ((0, 0), false, Part::One);
            if self.deadline().is_over() {
                return Next::Over(Err(self.out_of_time()));
            }
        }
    }

    /// An answer was larger than this client reads.
    fn read_less(&mut self, client: &Client) {
        if self.part == Part::Unread && self.watched.moves {
            // Its answer was on the way, so it was moved.
            self.count_moved(client);
        }
        self.part = if self.part == Part::One { Part::Unread } else { Part::One };
        self.watched.moves = false;
    }

    fn count_moved(&mut self, client: &Client) {
        if self.watched.moves {
            client.count(Deed::JobHandedBack, self.moving.0 as u64);
            let is_aside = self.unread_to == self.keys.failed;
            client.count(Deed::JobSetAside, if is_aside { self.moving.1 as u64 } else { 0 });
        }
    }

    #[cold]
    fn out_of_time(&self) -> Error {
        let after = self.deadline().elapsed().as_millis();
        let text = format!(
            "a list too large for one answer went back in part (after {after} ms): what is left goes back later"
        );
        Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
    }

    fn step(
        &mut self,
        client: &Arc<Client>,
        told: Option<Result<Reply>>,
        permits: &dyn Fn(Option<&[u8]>) -> bool,
        mark: &dyn Fn(&[u8]) -> Result<Job>,
    ) -> Next<bool> {
        let Self { watched, keys, worker, leaving, has_old_commands, keep_lease, unread_to, part, moving, .. } = self;
        let mut decide = |seen: &Reply| {
            *moving = (0, 0);
            let lease = seen.child(0, 1).and_then(|node| seen.bytes(node));
            if !permits(lease) {
                return Ok(Decision::Over(false));
            }
            let is_remembered = seen.child(0, 2).and_then(|node| seen.int(node)) == Some(1);
            let last = seen.child(0, 3).unwrap_or(u32::MAX);
            let found = match *part {
                Part::Whole => ledger::texts(seen, 3)?,
                Part::One => seen.bytes(last).map(encode::try_copy).transpose()?.into_iter().collect(),
                Part::Unread if seen.int(last) == Some(0) => Vec::new(),
                // Only a lease that was held all the time says that nobody has changed the list since it was read.
                Part::Unread if *unread_to == keys.failed && lease.is_none() => return Ok(Decision::Over(false)),
                Part::Unread => {
                    let mut moves = Vec::new();
                    moving.1 = 1;
                    ledger::move_oldest(&mut moves, &keys.of(worker).0, unread_to, *has_old_commands);
                    return Ok(Decision::Move(moves));
                }
            };
            moving.0 = found.len();
            let moves = match (*part, found.first()) {
                (Part::One, Some(oldest)) => [one_back(keys, worker, oldest, mark)?, keep_lease.clone()].concat(),
                _ => burial(keys, worker, &found, is_remembered, *leaving, mark)?,
            };
            Ok(if moves.is_empty() { Decision::Over(true) } else { Decision::Move(moves) })
        };
        watched.next(client, told, &|| Ok(look_at(keys, worker, *part)), &mut decide)
    }
}

/// Hands the oldest job of a worker back.
fn one_back(keys: &Keys, worker: &[u8], oldest: &[u8], mark: &dyn Fn(&[u8]) -> Result<Job>) -> Result<Vec<u8>> {
    let (processing, mut moves) = (keys.of(worker).0, Vec::new());
    encode::try_command(&mut moves, &[b"LREM", &processing, b"-1", oldest])?;
    encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, mark(oldest)?.encoded()])?;
    Ok(moves)
}

/// Puts the oldest job of this worker aside, which is too large to be read. Its lease must have been held since that was seen: then the job
/// is still the oldest.
pub struct Unread {
    watched: Watched,
    keys: Keys,
    has_old_commands: bool,
}

impl Unread {
    pub fn new(ledger: &Ledger, deadline: Deadline) -> Self {
        let watched = Watched::new(deadline);
        Self { watched, keys: ledger.keys.clone(), has_old_commands: ledger.has_old_commands }
    }

    /// What comes next. `owns`: whether this is its lease.
    pub fn next(
        &mut self,
        client: &Arc<Client>,
        told: Option<Result<Reply>>,
        owns: &dyn Fn(Option<&[u8]>) -> Result<bool>,
    ) -> Next<bool> {
        if self.watched.moves && told.as_ref().is_some_and(|told| told.as_ref().is_err_and(is_too_large)) {
            // Its answer was on the way, so it was moved.
            return Next::Over(Ok(true));
        }
        let Self { watched, keys, has_old_commands } = self;
        let look = || {
            let mut look = Vec::new();
            encode::command(&mut look, &[b"WATCH", &keys.processing, &keys.lease]);
            encode::command(&mut look, &[b"GET", &keys.lease]);
            Ok(look)
        };
        let mut decide = |seen: &Reply| {
            if !owns(seen.child(0, 1).and_then(|node| seen.bytes(node)))? {
                return Ok(Decision::Over(false));
            }
            let mut moves = Vec::new();
            ledger::move_oldest(&mut moves, &keys.processing, &keys.failed, *has_old_commands);
            Ok(Decision::Move(moves))
        };
        watched.next(client, told, &look, &mut decide)
    }
}

/// The commands that read what a worker left.
#[cfg(test)]
pub fn look(keys: &Keys, worker: &[u8]) -> Vec<u8> {
    look_at(keys, worker, Part::Whole)
}

fn look_at(keys: &Keys, worker: &[u8], part: Part) -> Vec<u8> {
    let ((processing, lease), memory) = (keys.of(worker), keys.memory_of(worker));
    let mut look = Vec::new();
    encode::command(&mut look, &[b"WATCH", &processing, &lease, &memory]);
    encode::command(&mut look, &[b"GET", &lease]);
    encode::command(&mut look, &[b"EXISTS", &memory]);
    match part {
        Part::Whole => encode::command(&mut look, &[b"LRANGE", &processing, b"0", b"-1"]),
        Part::One => encode::command(&mut look, &[b"LINDEX", &processing, b"-1"]),
        Part::Unread => encode::command(&mut look, &[b"LLEN", &processing]),
    }
    look
}

/// The commands that hand these jobs of a worker back. None: there is nothing to do yet.
pub fn burial(
    keys: &Keys,
    worker: &[u8],
    jobs: &[Vec<u8>],
    is_remembered: bool,
    leaving: Leaving,
    mark: &dyn Fn(&[u8]) -> Result<Job>,
) -> Result<Vec<u8>> {
    let ((processing, lease), memory) = (keys.of(worker), keys.memory_of(worker));
    let mut moves = Vec::new();
    if leaving == Leaving::Gone && jobs.is_empty() {
        if !is_remembered {
            encode::command(&mut moves, &[b"SREM", &keys.gone, worker]);
        }
        return Ok(moves);
    }
    // The oldest is the last of its list, and the first to come again.
    for encoded in jobs.iter().rev() {
        encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, mark(encoded)?.encoded()])?;
    }
    encode::command(&mut moves, &[b"DEL", &processing, &lease]);
    encode::command(&mut moves, &[b"SREM", &keys.workers, worker]);
    if leaving != Leaving::Certain {
        encode::command(&mut moves, &[b"SADD", &keys.gone, worker]);
        encode::command(&mut moves, &[b"SET", &memory, b"", b"PX", MEMORY_MS]);
    }
    Ok(moves)
}

/// Moves one job out of the processing list: back with another mark, or aside as it is. It ends with `false` if it is not there.
pub struct One {
    watched: Watched,
    keys: Keys,
    pub job: Job,
    mark: u32,
    is_aside: bool,
    /// The list is read to find the job, because this server or user has no LPOS.
    reads_list: bool,
}

impl One {
    /// `mark`: how often it may have been handed out.
    pub fn back(keys: &Keys, job: &Job, mark: u32, deadline: Deadline) -> Self {
        Self {
            watched: Watched::new(deadline),
            keys: keys.clone(),
            job: job.clone(),
            mark,
            is_aside: false,
            reads_list: false,
        }
    }

    pub fn aside(keys: &Keys, job: &Job, deadline: Deadline) -> Self {
        Self { is_aside: true, ..Self::back(keys, job, 0, deadline) }
    }

    pub fn next(&mut self, client: &Arc<Client>, told: Option<Result<Reply>>) -> Next<bool> {
        let mut told = told;
        if !self.reads_list && told.as_ref().is_some_and(lacks_lpos) {
            (self.reads_list, self.watched.moves, told) = (true, false, None);
        }
        let Self { watched, keys, job, mark, is_aside, reads_list } = self;
        let reads_list = *reads_list;
        let look = || {
            let mut look = Vec::new();
            encode::command(&mut look, &[b"WATCH", &keys.processing]);
            ledger::ask_for(&mut look, &keys.processing, job, reads_list)?;
            Ok(look)
        };
        let mut decide = |seen: &Reply| {
            if !ledger::stands_in(seen, 1, job, reads_list) {
                return Ok(Decision::Over(false));
            }
            let mut moves = Vec::new();
            encode::try_command(&mut moves, &[b"LREM", &keys.processing, b"1", job.encoded()])?;
            match is_aside {
                true => encode::try_command(&mut moves, &[b"LPUSH", &keys.failed, job.encoded()])?,
                false => {
                    let marked = Job::marked_as(job.encoded(), *mark)?;
                    encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, marked.encoded()])?;
                }
            }
            Ok(Decision::Move(moves))
        };
        watched.next(client, told, &look, &mut decide)
    }
}

/// Whether an answer says that this server or user has no LPOS.
pub fn lacks_lpos(told: &Result<Reply>) -> bool {
    match told {
        Ok(reply) => ledger::check(reply).is_err_and(|error| is_refused(&error)),
        Err(error) => is_refused(error),
    }
}

/// Whether it was handed back, though too few replicas know so.
pub fn stands<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.status() == Status::Replicas)
}

/// The error of a step for which there was no time. It was not sent.
#[cold]
pub fn no_time(deadline: Deadline) -> Error {
    let text = match deadline.elapsed().as_millis() {
        _ if deadline.budget().is_some_and(|budget| budget.is_zero()) => {
            String::from("nothing was sent: timeout_ms is 0 or less, which leaves no time")
        }
        after => format!("there was no time left for the next step (after {after} ms), which was not sent"),
    };
    Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
}

/// What is left. Without any time nothing is sent.
pub fn time(deadline: Deadline) -> Timeout {
    match deadline.left() {
        Some(left) if left.is_zero() => Timeout::DontWait,
        Some(left) => Timeout::Ms((left.as_millis() as u64).max(1)),
        None => Timeout::Default,
    }
}
