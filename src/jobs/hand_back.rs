//! Jobs that go back to the list: those of a worker whose lease is over, one that a program gives back, and all of them at the end.
//!
//! Guarantees: nothing is moved twice, and nothing of a worker that lives: WATCH holds the lease and the processing list as they were read.
//! What goes back is marked, and comes behind what waits already. Leaves to others: when that happens (take, mod).

use super::envelope::Job;
use super::keys::Keys;
use super::ledger;
use crate::client::{CallFlags, Client, Timeout};
use crate::error::{Result, Status};
use crate::meter::Deed;
use crate::resp::encode;
use crate::time::Deadline;

/// Hands back what a worker has, if its lease permits that. `false`: it does not.
pub fn all_of(
    client: &std::sync::Arc<Client>,
    keys: &Keys,
    worker: &[u8],
    deadline: Deadline,
    permits: &dyn Fn(Option<&[u8]>) -> bool,
) -> Result<bool> {
    let (processing, lease) = keys.of(worker);
    repeat(deadline, || {
        let session = client.session(None)?;
        let mut look = Vec::new();
        encode::command(&mut look, &[b"WATCH", &processing, &lease]);
        encode::command(&mut look, &[b"GET", &lease]);
        encode::command(&mut look, &[b"LRANGE", &processing, b"0", b"-1"]);
        let seen = session.cmds_exec(&look, CallFlags::default(), time(deadline))?;
        ledger::check(&seen)?;
        if !permits(seen.child(0, 1).and_then(|node| seen.bytes(node))) {
            return Ok(false);
        }
        let (mut moves, mut count) = (Vec::new(), 0);
        // The oldest is the last of its list, and the first to come again.
        for encoded in ledger::texts(&seen, 2).iter().rev() {
            encode::try_command(&mut moves, &[b"LPUSH", &keys.ready, Job::marked(encoded)?.encoded()])?;
            count += 1;
        }
        encode::command(&mut moves, &[b"DEL", &processing, &lease]);
        encode::command(&mut moves, &[b"SREM", &keys.workers, worker]);
        run(&session, &moves, deadline)?;
        client.count(Deed::JobHandedBack, count);
        Ok(true)
    })
}

/// Hands one job back. `false`: it is not in the processing list.
pub fn one(client: &std::sync::Arc<Client>, keys: &Keys, job: &Job, deadline: Deadline) -> Result<bool> {
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
