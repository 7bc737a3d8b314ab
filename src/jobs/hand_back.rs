//! Jobs that go back to the list: those of a worker whose lease is over, one that a program gives back, and all of them at the end.
//!
//! Guarantees: nothing is moved twice, and nothing of a worker that lives: WATCH holds the lease and the processing list as they were read.
//! What goes back is marked, and comes behind what waits already. A move that arrives after that is found: the name of its worker is kept
//! while one can be on its way. Leaves to others: when that happens (take, operations).

use std::sync::Arc;

use super::envelope::Job;
use super::keys::Keys;
use super::ledger::{self, Leaving};
use crate::client::steps::{Next, StepCall};
use crate::client::{CallFlags, Client, Timeout};
use crate::error::{Error, Result, Status};
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
        look: &dyn Fn() -> Vec<u8>,
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
                return match client.session(None) {
                    Ok(session) => {
                        self.session = Some(Arc::clone(&session));
                        self.call(session, look(), 0)
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
        Next::Call(StepCall { client, commands, flags: CallFlags::default().with(flag), timeout: time(self.deadline) })
    }
}

/// Hands back what a worker has, if its lease permits that. It ends with `false` if it does not.
pub struct All {
    watched: Watched,
    keys: Keys,
    worker: Vec<u8>,
    leaving: Leaving,
    jobs: usize,
}

impl All {
    pub fn new(keys: &Keys, worker: &[u8], leaving: Leaving, deadline: Deadline) -> Self {
        Self { watched: Watched::new(deadline), keys: keys.clone(), worker: worker.to_vec(), leaving, jobs: 0 }
    }

    pub fn deadline(&self) -> Deadline {
        self.watched.deadline
    }

    pub fn next(
        &mut self,
        client: &Arc<Client>,
        told: Option<Result<Reply>>,
        permits: &dyn Fn(Option<&[u8]>) -> bool,
    ) -> Next<bool> {
        let Self { watched, keys, worker, leaving, jobs } = self;
        let mut decide = |seen: &Reply| {
            if !permits(seen.child(0, 1).and_then(|node| seen.bytes(node))) {
                return Ok(Decision::Over(false));
            }
            let is_remembered = seen.child(0, 2).and_then(|node| seen.int(node)) == Some(1);
            let found = ledger::texts(seen, 3);
            *jobs = found.len();
            let moves = burial(keys, worker, &found, is_remembered, *leaving)?;
            Ok(if moves.is_empty() { Decision::Over(true) } else { Decision::Move(moves) })
        };
        let next = watched.next(client, told, &|| look(keys, worker), &mut decide);
        if let Next::Over(outcome) = &next {
            if watched.moves && (outcome.is_ok() || stands(outcome)) {
                client.count(Deed::JobHandedBack, *jobs as u64);
            }
        }
        next
    }
}

/// The commands that read what a worker left.
pub fn look(keys: &Keys, worker: &[u8]) -> Vec<u8> {
    let ((processing, lease), memory) = (keys.of(worker), keys.memory_of(worker));
    let mut look = Vec::new();
    encode::command(&mut look, &[b"WATCH", &processing, &lease, &memory]);
    encode::command(&mut look, &[b"GET", &lease]);
    encode::command(&mut look, &[b"EXISTS", &memory]);
    encode::command(&mut look, &[b"LRANGE", &processing, b"0", b"-1"]);
    look
}

/// The commands that hand these jobs of a worker back. None: there is nothing to do yet.
pub fn burial(keys: &Keys, worker: &[u8], jobs: &[Vec<u8>], is_remembered: bool, leaving: Leaving) -> Result<Vec<u8>> {
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
        encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, Job::marked(encoded)?.encoded()])?;
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
    is_aside: bool,
}

impl One {
    pub fn back(keys: &Keys, job: &Job, deadline: Deadline) -> Self {
        Self { watched: Watched::new(deadline), keys: keys.clone(), job: job.clone(), is_aside: false }
    }

    pub fn aside(keys: &Keys, job: &Job, deadline: Deadline) -> Self {
        Self { is_aside: true, ..Self::back(keys, job, deadline) }
    }

    pub fn next(&mut self, client: &Arc<Client>, told: Option<Result<Reply>>) -> Next<bool> {
        let Self { watched, keys, job, is_aside } = self;
        let look = || {
            let mut look = Vec::new();
            encode::command(&mut look, &[b"WATCH", &keys.processing]);
            encode::command(&mut look, &[b"LRANGE", &keys.processing, b"0", b"-1"]);
            look
        };
        let mut decide = |seen: &Reply| {
            if !ledger::texts(seen, 1).iter().any(|encoded| encoded == job.encoded()) {
                return Ok(Decision::Over(false));
            }
            let mut moves = Vec::new();
            encode::try_command(&mut moves, &[b"LREM", &keys.processing, b"1", job.encoded()])?;
            match is_aside {
                true => encode::try_command(&mut moves, &[b"LPUSH", &keys.failed, job.encoded()])?,
                false => {
                    let marked = Job::marked(job.encoded())?;
                    encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, marked.encoded()])?;
                }
            }
            Ok(Decision::Move(moves))
        };
        watched.next(client, told, &look, &mut decide)
    }
}

/// Whether it was handed back, though too few replicas know so.
pub fn stands<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.status() == Status::Replicas)
}

/// What is left. Without any time nothing is sent.
pub fn time(deadline: Deadline) -> Timeout {
    match deadline.left() {
        Some(left) if left.is_zero() => Timeout::DontWait,
        Some(left) => Timeout::Ms((left.as_millis() as u64).max(1)),
        None => Timeout::Default,
    }
}
