//! Jobs that go back to the list: those of a worker whose lease is over, one that a program gives back, and all of them at the end.
//!
//! Guarantees: nothing is moved twice, and nothing of a worker that lives: WATCH holds the lease and the processing list as they were read.
//! What goes back is marked, and comes behind what waits already. A move that arrives after that is found: the name of its worker is kept
//! while one can be on its way. Leaves to others: when that happens (take, mod).

use std::sync::Arc;

use super::envelope::Job;
use super::keys::Keys;
use super::ledger::{self, Leaving};
use crate::client::{CallFlags, Client, Timeout};
use crate::error::{Result, Status};
use crate::meter::Deed;
use crate::resp::{Reply, encode};
use crate::time::Deadline;

/// How long the name of a worker that is gone is kept, as text in milliseconds. No packet of a process that ended is under way for longer,
/// nor does a server wait for longer with a blocking command for one that was cut off.
const MEMORY_MS: &[u8] = b"600000";

/// Runs commands of a session, with these flags.
pub type Run<'a> = &'a dyn Fn(&Arc<Client>, &[u8], u32, Timeout) -> Result<Reply>;

/// Hands back what a worker has, if its lease permits that. `false`: it does not.
pub fn all_of(
    client: &Arc<Client>,
    keys: &Keys,
    (worker, leaving): (&[u8], Leaving),
    deadline: Deadline,
    permits: &dyn Fn(Option<&[u8]>) -> bool,
    run: Run<'_>,
) -> Result<bool> {
    repeat(deadline, || {
        let session = client.session(None)?;
        let seen = run(&session, &look(keys, worker), 0, time(deadline))?;
        ledger::check(&seen)?;
        if !permits(seen.child(0, 1).and_then(|node| seen.bytes(node))) {
            return Ok(false);
        }
        let is_remembered = seen.child(0, 2).and_then(|node| seen.int(node)) == Some(1);
        let jobs = ledger::texts(&seen, 3);
        let moves = burial(keys, worker, &jobs, is_remembered, leaving)?;
        let outcome = match moves.is_empty() {
            true => Ok(()),
            false => run(&session, &moves, CallFlags::ATOMIC, time(deadline)).and_then(|reply| ledger::check(&reply)),
        };
        if outcome.is_ok() || stands(&outcome) {
            client.count(Deed::JobHandedBack, jobs.len() as u64);
        }
        outcome.map(|()| true)
    })
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

/// Hands one job back. `false`: it is not in the processing list.
pub fn one(client: &Arc<Client>, keys: &Keys, job: &Job, deadline: Deadline) -> Result<bool> {
    repeat(deadline, || {
        let session = client.session(None)?;
        let mut look = Vec::new();
        encode::command(&mut look, &[b"WATCH", &keys.processing]);
        encode::command(&mut look, &[b"LRANGE", &keys.processing, b"0", b"-1"]);
        let seen = session.cmds_exec(&look, CallFlags::default(), time(deadline))?;
        ledger::check(&seen)?;
        if !ledger::texts(&seen, 1).iter().any(|encoded| encoded == job.encoded()) {
            return Ok(false);
        }
        let mut moves = Vec::new();
        encode::try_command(&mut moves, &[b"LREM", &keys.processing, b"1", job.encoded()])?;
        encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, Job::marked(job.encoded())?.encoded()])?;
        run(&session, &moves, deadline)?;
        Ok(true)
    })
}

/// Begins again while another one changes what is watched.
fn repeat(deadline: Deadline, mut attempt: impl FnMut() -> Result<bool>) -> Result<bool> {
    loop {
        match attempt() {
            Err(error) if error.status() == Status::TxnAborted && !deadline.is_over() => {}
            outcome => return outcome,
        }
    }
}

/// Whether it was handed back, though too few replicas know so.
pub fn stands<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.status() == Status::Replicas)
}

fn run(session: &Client, moves: &[u8], deadline: Deadline) -> Result<()> {
    let atomic = CallFlags::from_bits(CallFlags::ATOMIC)?;
    ledger::check(&session.cmds_exec(moves, atomic, time(deadline))?)
}

/// What is left. Without any time nothing is sent.
pub fn time(deadline: Deadline) -> Timeout {
    match deadline.left() {
        Some(left) if left.is_zero() => Timeout::DontWait,
        Some(left) => Timeout::Ms((left.as_millis() as u64).max(1)),
        None => Timeout::Default,
    }
}
