//! Lists of jobs for workers, at least once: a job is taken into the worker's own list, and removed from there when it is
//! acknowledged. docs/jobs.md has the keys and the format.
//!
//! Guarantees: a job whose push was acknowledged is handed out until it is acknowledged, whatever happens to workers, and to primaries as
//! far as `write.replicas` covers them; an acknowledgement whose answer was lost is looked up before it is sent again; a list that is
//! empty or out of reach costs no busy loop. Leaves to others: the calls themselves (client), which command comes next (take, pure),
//! what is known of the lists (ledger, pure), what goes back (hand_back).

mod envelope;
mod hand_back;
mod keys;
mod ledger;
mod take;
#[cfg(test)]
mod take_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use envelope::Job;

use crate::client::{CallFlags, CallHandle, Client, Target, Timeout};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::meter::Deed;
use crate::resp::{Reply, encode};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock};
use crate::time::{Deadline, Instant};
use hand_back::time;
use keys::Keys;
use ledger::{Leaving, Ledger, RENEWAL, Standing};
use take::{GRACE, Other, Step, Take, passes};

const LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What a worker that was stopped may take to make sure of the job that came in that moment.
const LAST_MOMENT: u64 = 1000;

/// One worker of a list of jobs.
pub struct Jobs {
    client: Arc<Client>,
    ledger: Lock<Ledger>,
    /// Ends a pause.
    stopped: Condvar,
    /// Ends a call under way.
    call: CallHandle,
    taking: AtomicBool,
}

/// Pushes a job, with this id or a random one.
pub fn push(client: &Client, name: &str, id: Option<&str>, payload: &[u8], timeout: Timeout) -> Result<()> {
    let (keys, job) = (Keys::new(name, "-")?, Job::new(id, 0, payload)?);
    client.cmd_exec(&[b"LPUSH", &keys.ready, job.encoded()], CallFlags::default(), timeout).map(|_| ())
}

/// What is left for a question, and at least what an answer takes.
fn soon(deadline: Deadline) -> Timeout {
    deadline.left().map_or(Timeout::Default, |left| Timeout::Ms(left.max(GRACE).as_millis() as u64))
}

/// Until when the answers to a take that ends at this time may come.
fn later(deadline: Deadline) -> Deadline {
    deadline.left().map_or(deadline, |left| deadline.renewed(left + GRACE))
}

#[cold]
fn out_of_time(deadline: Deadline) -> Error {
    let after = deadline.elapsed().as_millis();
    let text = format!(
        "the server's answers came too late, or did not confirm a job that was taken (after {after} ms): take with more time"
    );
    Error::new(Status::Timeout, text)
}

/// The turn of the one thread that takes.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Jobs {
    /// A worker with this name, or a random one. Nothing is sent yet.
    pub fn new(client: &Arc<Client>, name: &str, worker: Option<&str>, lease: Timeout) -> Result<Self> {
        let fits = client.session(None).map(|_| client.target() != Target::Replica);
        let why = match fits {
            Ok(true) => None,
            Ok(false) => {
                Some("this client reads from replicas: take one from vigie_primary_for() or vigie_split_for()")
            }
            Err(error) if error.status() == Status::InvalidState => {
                Some("this client is a session: take the client that it was made from")
            }
            Err(closed) => return Err(closed),
        };
        if let Some(why) = why {
            return Err(Error::new(
                Status::InvalidState,
                format!("a worker of {} needs the primary, and {why}", quoted(name)),
            ));
        }
        let lease = match lease {
            Timeout::Default => LEASE,
            Timeout::Ms(ms) if Duration::from_millis(ms) >= SHORTEST_LEASE => Duration::from_millis(ms),
            _ => {
                let text = format!("lease_ms: at least {}, or VIGIE_TIMEOUT_DEFAULT", SHORTEST_LEASE.as_millis());
                return Err(Error::new(Status::InvalidArg, text));
            }
        };
        let random = format!("{:032x}", random::rng().u128(..));
        let ledger = Ledger::new(Keys::new(name, worker.unwrap_or(&random))?, lease);
        Ok(Self {
            client: Arc::clone(client),
            ledger: Lock::new(Rank::Jobs, ledger),
            stopped: Condvar::new(),
            call: CallHandle::default(),
            taking: AtomicBool::new(false),
        })
    }

    /// The next job; `None`: there was none in the time.
    pub fn take(&self, timeout: Timeout) -> Result<Option<Job>> {
        if self.taking.swap(true, Ordering::AcqRel) {
            return Err(Error::new(Status::InvalidState, "another thread takes a job with this handle"));
        }
        let _turn = Turn(&self.taking);
        let waits = timeout != Timeout::DontWait;
        let deadline = self.client.deadline(if waits { timeout } else { Timeout::Default });
        let (mut take, mut pause, mut last) = (Take::new(waits), FIRST_PAUSE, later(deadline));
        loop {
            if last.is_over() && take.may_end() {
                return if take.saw_none() { Ok(None) } else { Err(self.explain(out_of_time(deadline))) };
            }
            match self.next_step(&mut take, deadline)? {
                Step::Over(outcome) => {
                    self.count(&outcome);
                    return outcome.map_err(|error| self.explain(error));
                }
                Step::Failed(_) if self.call.is_cancelled() => return Err(self.cancelled()),
                Step::Failed(error) if !waits || deadline.is_over() => return Err(self.explain(error)),
                Step::Failed(_) => {
                    self.pause(pause.min(deadline.left_or(pause)));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Step::Atomic(list) => {
                    let timeout = if take.has_taken() { Timeout::Default } else { time(last) };
                    let outcome = self.run(&self.client, &list, CallFlags::ATOMIC, timeout);
                    take.told(&mut self.ledger.lock(), Instant::now(), outcome);
                    self.count_losses();
                }
                Step::One(list, own) => {
                    pause = FIRST_PAUSE;
                    let timeout = own.map_or_else(|| time(last), |own| Timeout::Ms(own.as_millis() as u64));
                    let outcome = self.run(&self.client, &list, CallFlags::EACH, timeout);
                    take.told(&mut self.ledger.lock(), Instant::now(), outcome);
                }
                Step::HandBack(dead) => {
                    self.hand_back_of(&dead)?;
                    // What was handed back can be taken, though that has used up the time.
                    last = later(deadline);
                }
            }
        }
    }

    /// What the take does next. After a stop no move is begun any more, on which [`Jobs::close`] relies.
    fn next_step(&self, take: &mut Take, deadline: Deadline) -> Result<Step> {
        let mut ledger = self.ledger.lock();
        if ledger.is_stopped && !take.has_taken() {
            drop(ledger);
            return Err(self.cancelled());
        }
        Ok(take.next(&mut ledger, Instant::now(), deadline.left()))
    }

    /// Removes a job that is done.
    pub fn ack(&self, id: &str, timeout: Timeout) -> Result<()> {
        let deadline = self.client.deadline(timeout);
        let (job, mut is_doubtful) = {
            let mut ledger = self.ledger.lock();
            let held = ledger.find(id)?;
            (held.job.clone(), held.is_doubtful)
        };
        loop {
            if is_doubtful && !self.still_there(&job, deadline)? {
                self.ledger.lock().forget(&job);
                self.client.count(Deed::JobAcknowledged, 1);
                return Ok(());
            }
            let processing = self.ledger.lock().keys.processing.clone();
            let lrem = [&b"LREM"[..], &processing, b"1", job.encoded()];
            match self.client.cmd_exec(&lrem, CallFlags::default(), time(deadline)) {
                Ok(reply) => return self.removed(&job, &reply, Ok(())),
                Err(error) if error.status() == Status::Replicas => {
                    let reply = error.reply().cloned().unwrap_or_else(Reply::null);
                    return self.removed(&job, &reply, Err(error));
                }
                Err(error) if error.has(flags::MAYBE_EXECUTED) => {
                    is_doubtful = true;
                    if let Ok(held) = self.ledger.lock().find(id) {
                        held.is_doubtful = true;
                    }
                    if deadline.is_over() {
                        return Err(self.explain(error));
                    }
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// Gives a job back to the list: it is taken again, by any worker, with a mark.
    pub fn give_back(&self, id: &str, timeout: Timeout) -> Result<()> {
        let deadline = self.client.deadline(timeout);
        let (job, keys) = {
            let mut ledger = self.ledger.lock();
            (ledger.find(id)?.job.clone(), ledger.keys.clone())
        };
        let mut was_doubtful = false;
        loop {
            let outcome = hand_back::one(&self.client, &keys, &job, deadline);
            if hand_back::stands(&outcome) {
                self.ledger.lock().forget(&job);
                self.client.count(Deed::JobHandedBack, 1);
            }
            match outcome {
                // The answer that was missing is the first one: it was moved.
                Ok(moved) if moved || was_doubtful => {
                    self.ledger.lock().forget(&job);
                    self.client.count(Deed::JobHandedBack, 1);
                    return self.renew(soon(deadline));
                }
                Ok(_) => {
                    self.ledger.lock().forget(&job);
                    return Err(ledger::not_in_hand(&keys.name(), id));
                }
                Err(error) if passes(&error) && error.status() != Status::Replicas && !deadline.is_over() => {
                    was_doubtful |= error.has(flags::MAYBE_EXECUTED);
                    self.pause(FIRST_PAUSE);
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// Renews the lease: for a job that takes longer.
    pub fn renew(&self, timeout: Timeout) -> Result<()> {
        let deadline = self.client.deadline(timeout);
        let list = {
            let ledger = self.ledger.lock();
            let mut list = Vec::new();
            if ledger.standing == Standing::New {
                return Ok(());
            }
            ledger.renewal(&mut list);
            list
        };
        let atomic = CallFlags::from_bits(CallFlags::ATOMIC)?;
        let reply = loop {
            match self.client.cmds_exec(&list, atomic, time(deadline)) {
                Err(error) if passes(&error) && error.status() != Status::Replicas && !deadline.is_over() => {
                    self.pause(FIRST_PAUSE);
                }
                outcome => break outcome.map_err(|error| self.explain(error))?,
            }
        };
        ledger::check(&reply)?;
        let noted = self.ledger.lock().renewed(&reply, 0, Instant::now());
        self.count_losses();
        noted?;
        let ledger = self.ledger.lock();
        if ledger.own_lease(&reply, 0)? {
            return Ok(());
        }
        let text =
            format!("the lease of this worker of {} was over: other workers may have its jobs", ledger.keys.name());
        Err(Error::new(Status::InvalidState, text))
    }

    /// Ends the take under way and every later one.
    pub fn stop(&self) {
        self.ledger.lock().is_stopped = true;
        self.stopped.notify_all();
        self.call.cancel();
    }

    /// Hands back what is in hand, and ends the lease, so that others need not wait for its end.
    pub fn close(&self, timeout: Timeout) -> Result<()> {
        self.stop();
        let deadline = self.client.deadline(timeout);
        let keys = self.ledger.lock().keys.clone();
        let permits = |lease: Option<&[u8]>| self.ledger.lock().is_own_or_over(lease);
        let run = |session: &Arc<Client>, list: &[u8], flag, timeout| {
            session.cmds_exec(list, CallFlags::from_bits(flag)?, timeout)
        };
        loop {
            let leaving = self.ledger.lock().leaving();
            let outcome = hand_back::all_of(&self.client, &keys, (&keys.worker, leaving), deadline, &permits, &run);
            if hand_back::stands(&outcome) {
                self.ledger.lock().give_up();
            }
            match outcome {
                Ok(_) => break,
                Err(error) if error.status() == Status::Replicas => return Err(self.explain(error)),
                Err(error) if passes(&error) && !deadline.is_over() => self.wait(FIRST_PAUSE),
                Err(error) => return Err(self.explain(error)),
            }
        }
        self.ledger.lock().give_up();
        Ok(())
    }

    /// Whether a job whose acknowledgement had no answer is still in the list. It was acknowledged if it is not, and the lease was not
    /// over meanwhile.
    fn still_there(&self, job: &Job, deadline: Deadline) -> Result<bool> {
        let mut list = Vec::new();
        {
            let ledger = self.ledger.lock();
            ledger.renewal(&mut list);
            encode::command(&mut list, &[b"LRANGE", &ledger.keys.processing, b"0", b"-1"]);
        }
        let atomic = CallFlags::from_bits(CallFlags::ATOMIC)?;
        loop {
            match self.client.cmds_exec(&list, atomic, time(deadline)) {
                Ok(reply) => {
                    ledger::check(&reply)?;
                    if ledger::texts(&reply, RENEWAL).iter().any(|encoded| encoded == job.encoded()) {
                        return Ok(true);
                    }
                    let ledger = self.ledger.lock();
                    return match ledger.own_lease(&reply, 0)? {
                        true => Ok(false),
                        false => {
                            Err(ledger::not_in_hand(&ledger.keys.name(), &job.id()).with_flags(flags::MAYBE_EXECUTED))
                        }
                    };
                }
                Err(error) if passes(&error) && !deadline.is_over() => self.pause(FIRST_PAUSE),
                Err(error) => return Err(self.explain(error.with_flags(flags::MAYBE_EXECUTED))),
            }
        }
    }

    /// The answer to an acknowledgement.
    fn removed(&self, job: &Job, reply: &Reply, done: Result<()>) -> Result<()> {
        let mut ledger = self.ledger.lock();
        ledger.forget(job);
        match reply.int(0) {
            Some(0) => Err(ledger::not_in_hand(&ledger.keys.name(), &job.id())),
            _ => {
                self.client.count(Deed::JobAcknowledged, 1);
                done
            }
        }
    }

    /// Counts a job that is handed out.
    fn count(&self, outcome: &Result<Option<Job>>) {
        if let Ok(Some(job)) = outcome {
            self.client.count(Deed::JobTaken, 1);
            self.client.count(Deed::JobMarked, u64::from(job.redelivered() > 0));
        }
    }

    /// Counts the leases that were found to be over.
    fn count_losses(&self) {
        let lost = std::mem::take(&mut self.ledger.lock().leases_lost);
        self.client.count(Deed::LeaseLost, lost);
    }

    /// Hands back what workers have whose leases are over, in the time of one call, however short the take is. What does not succeed is
    /// tried again by the next one who looks.
    fn hand_back_of(&self, dead: &[Other]) -> Result<()> {
        let (keys, deadline) = (self.ledger.lock().keys.clone(), self.client.deadline(Timeout::Default));
        let run = |session: &Arc<Client>, list: &[u8], flag, timeout| match self.call.is_cancelled() {
            true => Err(self.cancelled()),
            false => self.run(session, list, flag, timeout),
        };
        for worker in dead {
            let left = (&worker.name[..], if worker.is_gone { Leaving::Gone } else { Leaving::Doubtful });
            match hand_back::all_of(&self.client, &keys, left, deadline, &|lease| lease.is_none(), &run) {
                Err(_) if self.call.is_cancelled() => return Err(self.cancelled()),
                Err(error) if !passes(&error) => return Err(self.explain(error)),
                Err(_) => self.ledger.lock().looked(Instant::now(), false),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Runs a list so that [`Jobs::stop`] ends it. After that there is a moment for what was taken already.
    fn run(&self, client: &Client, list: &[u8], flag: u32, timeout: Timeout) -> Result<Reply> {
        let flags = CallFlags::from_bits(flag)?;
        if self.call.is_cancelled() {
            return client.cmds_exec(list, flags, Timeout::Ms(LAST_MOMENT));
        }
        let mut outcome = self.call.exec(client, list, flags, timeout);
        while outcome.as_ref().is_err_and(|error| error.status() == Status::Interrupted) {
            outcome = self.call.wait();
        }
        outcome
    }

    /// Sleeps, unless it is stopped.
    fn pause(&self, time: Duration) {
        if !self.ledger.lock().is_stopped {
            self.wait(time);
        }
    }

    fn wait(&self, time: Duration) {
        drop(self.stopped.wait_timeout(self.ledger.lock(), time));
    }

    fn cancelled(&self) -> Error {
        let name = self.ledger.lock().keys.name();
        Error::new(Status::Cancelled, format!("no job is taken from {name}: the worker was stopped"))
    }

    fn explain(&self, error: Error) -> Error {
        let name = self.ledger.lock().keys.name();
        error.in_context(format_args!("the jobs of {name}"))
    }
}
