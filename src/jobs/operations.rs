//! What a worker does, step by step: each operation says which call comes next, and what its outcome means. A thread that waits and an
//! event loop run the same steps.
//!
//! Guarantees: an operation only computes; after a stop no move begins any more, on which a close relies; an acknowledgement whose answer
//! was lost is looked up before it is sent again. Leaves to others: the running of the calls (mod, client), which command comes next in a
//! take (take), what goes back (hand_back).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::envelope::Job;
use super::hand_back::{All, One, stands, time};
use super::ledger::{self, Leaving, RENEWAL, Standing};
use super::take::{GRACE, Other, Step, Take, passes};
use super::{LONGEST_PAUSE, PAUSE, Worker};
use crate::client::steps::{self, StepCall};
use crate::client::{CallFlags, Timeout};
use crate::error::{Error, Result, Status, flags};
use crate::meter::Deed;
use crate::resp::{Reply, encode};
use crate::time::{Deadline, Instant};

/// What an operation does next. It ends with a job, or without one.
pub type Next = steps::Next<Option<Job>>;

/// An operation of a worker.
pub trait Operation: Send {
    /// What comes next. `told`: the outcome of the call before; `None` at the beginning and after a pause.
    fn next(&mut self, told: Option<Result<Reply>>) -> Next;
}

/// What is left for a question, and at least what an answer takes.
fn soon(deadline: Deadline) -> Deadline {
    deadline.left().map_or(deadline, |left| deadline.renewed(left.max(GRACE)))
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

/// Whether what failed so may be tried again in the time.
fn is_to_be_tried_again(error: &Error, deadline: Deadline) -> bool {
    passes(error) && error.status() != Status::Replicas && !deadline.is_over()
}

/// A wait for a job. One at a time has the turn of its worker.
pub struct Taking {
    worker: Arc<Worker>,
    take: Take,
    waits: bool,
    deadline: Deadline,
    last: Deadline,
    pause: Duration,
    /// Workers whose leases are over, and what is handed back of one of them.
    dead: Vec<Other>,
    burial: Option<All>,
    /// A job that was handed out too often.
    aside: Option<One>,
}

impl Taking {
    pub fn begin(worker: &Arc<Worker>, timeout: Timeout) -> Result<Self> {
        if worker.taking.swap(true, Ordering::AcqRel) {
            return Err(Error::new(Status::InvalidState, "another take is under way with this handle"));
        }
        let waits = timeout != Timeout::DontWait;
        let deadline = worker.client.deadline(if waits { timeout } else { Timeout::Default });
        Ok(Self {
            worker: Arc::clone(worker),
            take: Take::new(waits),
            waits,
            deadline,
            last: later(deadline),
            pause: PAUSE,
            dead: Vec::new(),
            burial: None,
            aside: None,
        })
    }

    /// Hands back what workers have whose leases are over. What does not succeed is tried again by the next one who looks. `None`: that
    /// is done.
    fn bury(&mut self, mut told: Option<Result<Reply>>) -> Option<Next> {
        let worker = Arc::clone(&self.worker);
        while let Some(burial) = &mut self.burial {
            if worker.is_stopped() {
                return Some(Next::Over(Err(worker.cancelled())));
            }
            match burial.next(&worker.client, told.take(), &|lease| lease.is_none()) {
                steps::Next::Call(call) => return Some(Next::Call(call)),
                steps::Next::Pause(time) => return Some(Next::Pause(time)),
                steps::Next::Over(Err(error)) if !passes(&error) => {
                    return Some(Next::Over(Err(worker.explain(error))));
                }
                steps::Next::Over(Err(_)) => worker.ledger.lock().looked(Instant::now(), false),
                steps::Next::Over(Ok(_)) => {}
            }
            let deadline = burial.deadline();
            self.burial = self.dead.pop().map(|other| worker.burial_of(other, deadline));
            // What was handed back can be taken, though that has used up the time.
            self.last = later(self.deadline);
        }
        None
    }

    /// Puts a job aside. `None`: that is done, or the next comparison of the lists tells what became of it.
    fn set_aside(&mut self, told: Option<Result<Reply>>) -> Option<Next> {
        let one = self.aside.as_mut()?;
        let outcome = match one.next(&self.worker.client, told) {
            steps::Next::Call(call) => return Some(Next::Call(call)),
            steps::Next::Pause(time) => return Some(Next::Pause(time)),
            steps::Next::Over(outcome) => outcome,
        };
        let is_moved = matches!(outcome, Ok(true)) || stands(&outcome);
        {
            let mut ledger = self.worker.ledger.lock();
            ledger.forget(&one.job);
            if !is_moved {
                ledger.doubt();
            }
        }
        self.worker.client.count(Deed::JobSetAside, u64::from(is_moved));
        self.aside = None;
        match outcome {
            Err(error) if !passes(&error) => Some(Next::Over(Err(self.worker.explain(error)))),
            Err(error) if !is_moved => Some(self.failed(error)),
            _ => None,
        }
    }

    /// What the take does next.
    fn step(&mut self) -> Result<Step> {
        let mut ledger = self.worker.ledger.lock();
        if ledger.is_stopped && !self.take.has_taken() {
            drop(ledger);
            return Err(self.worker.cancelled());
        }
        Ok(self.take.next(&mut ledger, Instant::now(), self.deadline.left()))
    }

    fn failed(&mut self, error: Error) -> Next {
        if self.worker.is_stopped() {
            return Next::Over(Err(self.worker.cancelled()));
        }
        if !self.waits || self.deadline.is_over() {
            return Next::Over(Err(self.worker.explain(error)));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Next::Pause(self.deadline.left_or(pause))
    }
}

impl Operation for Taking {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        match told {
            told if self.aside.is_some() => {
                if let Some(next) = self.set_aside(told) {
                    return next;
                }
            }
            told if self.burial.is_some() => {
                if let Some(next) = self.bury(told) {
                    return next;
                }
            }
            Some(outcome) => {
                self.take.told(&mut self.worker.ledger.lock(), Instant::now(), outcome);
                self.worker.count_losses();
            }
            None => {}
        }
        if self.last.is_over() && self.take.may_end() {
            return Next::Over(match self.take.saw_none() {
                true => Ok(None),
                false => Err(self.worker.explain(out_of_time(self.deadline))),
            });
        }
        match self.step() {
            Err(stopped) => Next::Over(Err(stopped)),
            Ok(Step::Over(outcome)) => {
                self.worker.count(&outcome);
                Next::Over(outcome.map_err(|error| self.worker.explain(error)))
            }
            Ok(Step::Failed(error)) => self.failed(error),
            Ok(Step::Atomic(list)) => {
                let timeout = if self.take.has_taken() { Timeout::Default } else { time(self.last) };
                self.worker.call(list, CallFlags::ATOMIC, timeout)
            }
            Ok(Step::One(list, own)) => {
                self.pause = PAUSE;
                let timeout = own.map_or_else(|| time(self.last), |own| Timeout::Ms(own.as_millis() as u64));
                self.worker.call(list, CallFlags::EACH, timeout)
            }
            Ok(Step::SetAside(job)) => {
                let deadline = self.worker.client.deadline(Timeout::Default);
                self.aside = Some(One::aside(&self.worker.ledger.lock().keys, &job, deadline));
                self.next(None)
            }
            Ok(Step::HandBack(dead)) => {
                // In the time of one call, however short the take is.
                let deadline = self.worker.client.deadline(Timeout::Default);
                self.dead = dead;
                self.burial = self.dead.pop().map(|other| self.worker.burial_of(other, deadline));
                self.next(None)
            }
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.worker.taking.store(false, Ordering::Release);
    }
}

/// Removes a job that is done.
pub struct Acking {
    worker: Arc<Worker>,
    job: Job,
    deadline: Deadline,
    /// The next question is whether the job is still there.
    is_doubtful: bool,
}

impl Acking {
    pub fn begin(worker: &Arc<Worker>, id: &str, timeout: Timeout) -> Result<Self> {
        let deadline = worker.client.deadline(timeout);
        let mut ledger = worker.ledger.lock();
        let held = ledger.find(id)?;
        Ok(Self { worker: Arc::clone(worker), job: held.job.clone(), deadline, is_doubtful: held.is_doubtful })
    }

    /// The next call: the question, or the command itself.
    fn ask(&self) -> Next {
        let (ledger, mut list) = (self.worker.ledger.lock(), Vec::new());
        let processing = &ledger.keys.processing[..];
        let flag = match self.is_doubtful {
            true => {
                ledger.renewal(&mut list);
                encode::command(&mut list, &[b"LRANGE", processing, b"0", b"-1"]);
                CallFlags::ATOMIC
            }
            false => match encode::try_command(&mut list, &[b"LREM", processing, b"1", self.job.encoded()]) {
                Ok(()) => CallFlags::EACH,
                Err(error) => return Next::Over(Err(error)),
            },
        };
        drop(ledger);
        self.worker.call(list, flag, time(self.deadline))
    }

    /// Whether a job whose acknowledgement had no answer is gone. It was acknowledged if it is, and the lease was not over meanwhile.
    fn looked_up(&mut self, outcome: Result<Reply>) -> Next {
        let is_gone = match outcome {
            Ok(reply) => self.is_gone(&reply),
            Err(error) if passes(&error) && !self.deadline.is_over() => return Next::Pause(PAUSE),
            Err(error) => Err(self.worker.explain(error.with_flags(flags::MAYBE_EXECUTED))),
        };
        match is_gone {
            Ok(true) => {
                self.worker.ledger.lock().forget(&self.job);
                self.worker.client.count(Deed::JobAcknowledged, 1);
                Next::Over(Ok(None))
            }
            Ok(false) => {
                self.is_doubtful = false;
                self.ask()
            }
            Err(error) => Next::Over(Err(error)),
        }
    }

    fn is_gone(&self, reply: &Reply) -> Result<bool> {
        ledger::check(reply)?;
        if ledger::texts(reply, RENEWAL).iter().any(|encoded| encoded == self.job.encoded()) {
            return Ok(false);
        }
        let ledger = self.worker.ledger.lock();
        match ledger.own_lease(reply, 0)? {
            true => Ok(true),
            false => Err(ledger::not_in_hand(&ledger.keys.name(), &self.job.id()).with_flags(flags::MAYBE_EXECUTED)),
        }
    }

    /// The answer to an acknowledgement.
    fn removed(&self, reply: &Reply, done: Result<()>) -> Next {
        let mut ledger = self.worker.ledger.lock();
        ledger.forget(&self.job);
        if reply.int(0) == Some(0) {
            return Next::Over(Err(ledger::not_in_hand(&ledger.keys.name(), &self.job.id())));
        }
        self.worker.client.count(Deed::JobAcknowledged, 1);
        Next::Over(done.map(|()| None))
    }

    fn failed(&mut self, error: Error) -> Next {
        if error.status() == Status::Replicas {
            let reply = error.reply().cloned().unwrap_or_else(Reply::null);
            return self.removed(&reply, Err(error));
        }
        if error.has(flags::MAYBE_EXECUTED) {
            self.is_doubtful = true;
            if let Ok(held) = self.worker.ledger.lock().find(&self.job.id()) {
                held.is_doubtful = true;
            }
            if !self.deadline.is_over() {
                return self.ask();
            }
        }
        Next::Over(Err(self.worker.explain(error)))
    }
}

impl Operation for Acking {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        match told {
            None => self.ask(),
            Some(outcome) if self.is_doubtful => self.looked_up(outcome),
            Some(Ok(reply)) => self.removed(&reply, Ok(())),
            Some(Err(error)) => self.failed(error),
        }
    }
}

/// Gives a job back to the list, and renews the lease.
pub struct Returning {
    worker: Arc<Worker>,
    job: Job,
    one: One,
    deadline: Deadline,
    was_doubtful: bool,
    renewing: Option<Renewing>,
}

impl Returning {
    pub fn begin(worker: &Arc<Worker>, id: &str, timeout: Timeout) -> Result<Self> {
        let deadline = worker.client.deadline(timeout);
        let mut ledger = worker.ledger.lock();
        let job = ledger.find(id)?.job.clone();
        let one = One::back(&ledger.keys, &job, deadline);
        Ok(Self { worker: Arc::clone(worker), job, one, deadline, was_doubtful: false, renewing: None })
    }

    fn over(&mut self, outcome: Result<bool>) -> Next {
        // The answer that was missing is the first one: it was moved.
        let is_moved = matches!(outcome, Ok(moved) if moved || self.was_doubtful) || stands(&outcome);
        if is_moved {
            self.worker.client.count(Deed::JobHandedBack, 1);
        }
        if is_moved || outcome.is_ok() {
            self.worker.ledger.lock().forget(&self.job);
        }
        match outcome {
            Ok(_) if is_moved => {
                let renewing = Renewing::until(&self.worker, soon(self.deadline));
                self.renewing.insert(renewing).next(None)
            }
            Ok(_) => {
                let name = self.worker.ledger.lock().keys.name();
                Next::Over(Err(ledger::not_in_hand(&name, &self.job.id())))
            }
            Err(error) if is_to_be_tried_again(&error, self.deadline) => {
                self.was_doubtful |= error.has(flags::MAYBE_EXECUTED);
                Next::Pause(PAUSE)
            }
            Err(error) => Next::Over(Err(self.worker.explain(error))),
        }
    }
}

impl Operation for Returning {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        if let Some(renewing) = &mut self.renewing {
            return renewing.next(told);
        }
        match self.one.next(&self.worker.client, told) {
            steps::Next::Call(call) => Next::Call(call),
            steps::Next::Pause(time) => Next::Pause(time),
            steps::Next::Over(outcome) => self.over(outcome),
        }
    }
}

/// Renews the lease.
pub struct Renewing {
    worker: Arc<Worker>,
    deadline: Deadline,
}

impl Renewing {
    pub fn begin(worker: &Arc<Worker>, timeout: Timeout) -> Self {
        Self::until(worker, worker.client.deadline(timeout))
    }

    fn until(worker: &Arc<Worker>, deadline: Deadline) -> Self {
        Self { worker: Arc::clone(worker), deadline }
    }

    fn renewed(&self, reply: &Reply) -> Result<Option<Job>> {
        ledger::check(reply)?;
        let noted = self.worker.ledger.lock().renewed(reply, 0, Instant::now());
        self.worker.count_losses();
        noted?;
        let ledger = self.worker.ledger.lock();
        if ledger.own_lease(reply, 0)? {
            return Ok(None);
        }
        let text =
            format!("the lease of this worker of {} was over: other workers may have its jobs", ledger.keys.name());
        Err(Error::new(Status::InvalidState, text))
    }
}

impl Operation for Renewing {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        match told {
            Some(Ok(reply)) => Next::Over(self.renewed(&reply)),
            Some(Err(error)) if is_to_be_tried_again(&error, self.deadline) => Next::Pause(PAUSE),
            Some(Err(error)) => Next::Over(Err(self.worker.explain(error))),
            None => {
                let (ledger, mut list) = (self.worker.ledger.lock(), Vec::new());
                if ledger.standing == Standing::New {
                    return Next::Over(Ok(None));
                }
                ledger.renewal(&mut list);
                drop(ledger);
                self.worker.call(list, CallFlags::ATOMIC, time(self.deadline))
            }
        }
    }
}

/// Stops the worker, and hands back what is in hand.
pub struct Closing {
    worker: Arc<Worker>,
    deadline: Deadline,
    all: Option<All>,
    /// How often a take that was stopped may be waited for.
    patience: u32,
}

impl Closing {
    pub fn begin(worker: &Arc<Worker>, timeout: Timeout) -> Self {
        let deadline = worker.client.deadline(timeout);
        Self { worker: Arc::clone(worker), deadline, all: None, patience: 10 }
    }

    fn over(&mut self, outcome: Result<bool>) -> Next {
        self.all = None;
        if outcome.is_ok() || stands(&outcome) {
            self.worker.ledger.lock().give_up();
        }
        match outcome {
            Ok(_) => Next::Over(Ok(None)),
            Err(error) if is_to_be_tried_again(&error, self.deadline) => Next::Pause(PAUSE),
            Err(error) => Next::Over(Err(self.worker.explain(error))),
        }
    }
}

impl Operation for Closing {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        if !self.worker.is_stopped() {
            self.worker.stop();
        }
        // What its last move has brought goes back too, if it ends soon.
        if self.all.is_none() && self.patience > 0 && self.worker.taking.load(Ordering::Acquire) {
            self.patience -= 1;
            return Next::Pause(PAUSE);
        }
        let (worker, deadline) = (Arc::clone(&self.worker), self.deadline);
        let all = self.all.get_or_insert_with(|| {
            let ledger = worker.ledger.lock();
            All::new(&ledger.keys, &ledger.keys.worker, ledger.leaving(), deadline)
        });
        match all.next(&worker.client, told, &|lease| worker.ledger.lock().is_own_or_over(lease)) {
            steps::Next::Call(call) => Next::Call(call),
            steps::Next::Pause(time) => Next::Pause(time),
            steps::Next::Over(outcome) => self.over(outcome),
        }
    }
}

impl Worker {
    fn burial_of(&self, other: Other, deadline: Deadline) -> All {
        let leaving = if other.is_gone { Leaving::Gone } else { Leaving::Doubtful };
        All::new(&self.ledger.lock().keys, &other.name, leaving, deadline)
    }

    /// A call on the client.
    fn call(&self, commands: Vec<u8>, flag: u32, timeout: Timeout) -> Next {
        let flags = CallFlags::default().with(flag);
        Next::Call(StepCall { client: Arc::clone(&self.client), commands, flags, timeout })
    }
}
