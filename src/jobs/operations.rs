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
use super::hand_back::{All, One, Unread, lacks_lpos, no_time, stands, time};
use super::ledger::{self, Leaving, Ledger, RENEWAL, Standing};
use super::take::{GRACE, Other, Step, Take, is_refused, passes};
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

/// The time of an operation, and what its last attempt met.
struct Patience {
    deadline: Deadline,
    met: Option<Error>,
}

impl Patience {
    fn until(deadline: Deadline) -> Self {
        Self { deadline, met: None }
    }

    /// What failed is tried again after a pause, or is the end.
    fn again(&mut self, error: Error) -> std::result::Result<Next, Error> {
        if !is_to_be_tried_again(&error, self.deadline) {
            return Err(error);
        }
        self.met = Some(error);
        Ok(Next::Pause(PAUSE))
    }

    /// What the last attempt met, if the time is over: that says more than that there is no time.
    fn over(&mut self) -> Option<Error> {
        self.met.take_if(|_| self.deadline.is_over())
    }
}

/// A wait for a job. One at a time has the turn of its worker.
pub struct Taking {
    worker: Arc<Worker>,
    take: Take,
    waits: bool,
    deadline: Deadline,
    last: Deadline,
    pause: Duration,
    /// There was a pause since the last move.
    was_idle: bool,
    /// Workers whose leases are over, and what is handed back of one of them.
    dead: Vec<Other>,
    burial: Option<All>,
    /// What cannot be handed back, for a reason that lasts: told if there is no job.
    unburied: Option<Error>,
    /// A job that was handed out too often.
    aside: Option<One>,
    /// A job that cannot be read.
    unread: Option<Unread>,
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
            was_idle: false,
            dead: Vec::new(),
            burial: None,
            unburied: None,
            aside: None,
            unread: None,
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
            match burial.next(&worker.client, told.take(), &|lease| lease.is_none(), &Job::marked) {
                steps::Next::Call(call) => return Some(Next::Call(call)),
                steps::Next::Pause(time) => return Some(Next::Pause(time)),
                steps::Next::Over(Err(error)) => {
                    worker.ledger.lock().looked(Instant::now(), false);
                    // It stops neither the others that are dead nor the jobs that wait.
                    if !passes(&error) && self.unburied.is_none() {
                        self.unburied = Some(error);
                    }
                }
                steps::Next::Over(Ok(_)) => {}
            }
            let deadline = burial.deadline();
            self.burial = self.dead.pop().map(|other| worker.burial_of(other, deadline));
            // What was handed back can be taken, though that has used up the time.
            self.last = later(self.deadline);
        }
        None
    }

    /// Sets a job aside. `None`: that is done, or the next comparison of the lists tells what became of it.
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
        self.set_aside_ended(outcome, is_moved)
    }

    /// What follows when a job was to be set aside. `None`: the take goes on.
    fn set_aside_ended(&mut self, outcome: Result<bool>, is_moved: bool) -> Option<Next> {
        match outcome {
            Err(error) if !passes(&error) => Some(Next::Over(Err(self.worker.explain(error)))),
            Err(error) if !is_moved => Some(self.failed(error)),
            _ => None,
        }
    }

    /// Sets a job aside unread. `None`: that is done, or the next look at the list tells what became of it.
    fn set_aside_unread(&mut self, told: Option<Result<Reply>>) -> Option<Next> {
        let worker = Arc::clone(&self.worker);
        let owns = |lease: Option<&[u8]>| worker.ledger.lock().owns(lease);
        let outcome = match self.unread.as_mut()?.next(&worker.client, told, &owns) {
            steps::Next::Call(call) => return Some(Next::Call(call)),
            steps::Next::Pause(time) => return Some(Next::Pause(time)),
            steps::Next::Over(outcome) => outcome,
        };
        self.unread = None;
        {
            let mut ledger = worker.ledger.lock();
            if !ledger.has_old_commands && outcome.as_ref().is_err_and(is_refused) {
                ledger.has_old_commands = true;
                return None;
            }
        }
        let is_moved = matches!(outcome, Ok(true)) || stands(&outcome);
        worker.ledger.lock().set_aside(is_moved);
        worker.count_losses();
        self.set_aside_ended(outcome, is_moved)
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

    /// A pause, longer each time until a move ends without one.
    fn idle(&mut self) -> Next {
        let pause = self.pause;
        (self.pause, self.was_idle) = ((pause * 2).min(LONGEST_PAUSE), true);
        Next::Pause(self.deadline.left_or(pause).max(PAUSE))
    }

    fn failed(&mut self, error: Error) -> Next {
        if self.worker.is_stopped() {
            return Next::Over(Err(self.worker.cancelled()));
        }
        if !self.waits || self.deadline.is_over() {
            return Next::Over(Err(self.worker.explain(error)));
        }
        self.idle()
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
            told if self.unread.is_some() => {
                if let Some(next) = self.set_aside_unread(told) {
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
                let outcome = match (outcome, self.unburied.take()) {
                    (Ok(None), Some(error)) => Err(error),
                    (outcome, _) => outcome,
                };
                Next::Over(outcome.map_err(|error| self.worker.explain(error)))
            }
            Ok(Step::Failed(error)) => self.failed(error),
            Ok(Step::Idle) => self.idle(),
            Ok(Step::Atomic(list)) => {
                let timeout = if self.take.has_taken() { Timeout::Default } else { time(self.last) };
                self.worker.call_within(list, CallFlags::ATOMIC, timeout)
            }
            Ok(Step::One(list, own)) => {
                if !std::mem::take(&mut self.was_idle) {
                    self.pause = PAUSE;
                }
                let timeout = own.map_or_else(|| time(self.last), |own| Timeout::Ms(own.as_millis() as u64));
                self.worker.call_within(list, CallFlags::EACH, timeout)
            }
            Ok(Step::SetAside(job)) => {
                let deadline = self.worker.client.deadline(Timeout::Default);
                self.aside = Some(One::aside(&self.worker.ledger.lock().keys, &job, deadline));
                self.next(None)
            }
            Ok(Step::Unread) => {
                let deadline = self.worker.client.deadline(Timeout::Default);
                self.unread = Some(Unread::new(&self.worker.ledger.lock(), deadline));
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
    patience: Patience,
    /// The next question is whether the job is still there.
    is_doubtful: bool,
    /// It is asked without LPOS.
    reads_list: bool,
    /// What the ledger counted of them when it began.
    partings: u64,
}

impl Acking {
    pub fn begin(worker: &Arc<Worker>, id: &str, timeout: Timeout) -> Result<Self> {
        let deadline = worker.client.deadline(timeout);
        let mut ledger = worker.ledger.lock();
        let held = ledger.find(id)?;
        let (job, is_doubtful, patience) = (held.job.clone(), held.is_doubtful, Patience::until(deadline));
        let partings = ledger.partings;
        Ok(Self { worker: Arc::clone(worker), job, patience, is_doubtful, reads_list: false, partings })
    }

    /// The next call: the question, or the command itself.
    fn ask(&mut self) -> Next {
        if let Some(met) = self.patience.over() {
            return Next::Over(Err(self.worker.explain(met.with_flags(flags::MAYBE_EXECUTED))));
        }
        let (ledger, mut list) = (self.worker.ledger.lock(), Vec::new());
        let processing = &ledger.keys.processing[..];
        let (flag, written) = match self.is_doubtful {
            true => {
                ledger.renewal(&mut list);
                (CallFlags::ATOMIC, ledger::ask_for(&mut list, processing, &self.job, self.reads_list))
            }
            false => {
                let removal = [b"LREM", processing, b"1", self.job.encoded()];
                (CallFlags::EACH, encode::try_command(&mut list, &removal))
            }
        };
        drop(ledger);
        match written {
            Ok(()) => self.worker.call(list, flag, self.patience.deadline),
            Err(error) => Next::Over(Err(error)),
        }
    }

    /// Whether a job whose acknowledgement had no answer is gone. It was acknowledged if it is, and the lease was not over meanwhile.
    fn looked_up(&mut self, outcome: Result<Reply>) -> Next {
        if !self.reads_list && lacks_lpos(&outcome) {
            self.reads_list = true;
            return self.ask();
        }
        let is_gone = match outcome {
            Ok(reply) => self.is_gone(&reply),
            Err(error) if passes(&error) && !self.patience.deadline.is_over() => {
                self.patience.met = Some(error);
                return Next::Pause(PAUSE);
            }
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
        if ledger::stands_in(reply, RENEWAL, &self.job, self.reads_list) {
            return Ok(false);
        }
        let ledger = self.worker.ledger.lock();
        // A lease that was over in between, and a close, give what is in hand to others.
        match ledger.own_lease(reply, 0)? && ledger.partings == self.partings {
            true => Ok(true),
            false => Err(ledger::not_in_hand(&ledger.keys.name(), self.job.id()).with_flags(flags::MAYBE_EXECUTED)),
        }
    }

    /// The answer to an acknowledgement.
    fn removed(&self, reply: &Reply, done: Result<()>) -> Next {
        let mut ledger = self.worker.ledger.lock();
        ledger.forget(&self.job);
        if reply.int(0) == Some(0) {
            return Next::Over(Err(ledger::not_in_hand(&ledger.keys.name(), self.job.id())));
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
            if let Ok(held) = self.worker.ledger.lock().find(self.job.id()) {
                held.is_doubtful = true;
            }
            if !self.patience.deadline.is_over() {
                self.patience.met = Some(error);
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
    patience: Patience,
    was_doubtful: bool,
    renewing: Option<Renewing>,
}

impl Returning {
    pub fn begin(worker: &Arc<Worker>, id: &str, timeout: Timeout) -> Result<Self> {
        let deadline = worker.client.deadline(timeout);
        let mut ledger = worker.ledger.lock();
        let held = ledger.find(id)?;
        let (job, given) = (held.job.clone(), held.given);
        let one = One::back(&ledger.keys, &job, given, deadline);
        let patience = Patience::until(deadline);
        Ok(Self { worker: Arc::clone(worker), job, one, patience, was_doubtful: false, renewing: None })
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
                let renewing = Renewing::until(&self.worker, soon(self.patience.deadline));
                self.renewing.insert(renewing).next(None)
            }
            Ok(_) => {
                let name = self.worker.ledger.lock().keys.name();
                Next::Over(Err(ledger::not_in_hand(&name, self.job.id())))
            }
            Err(error) => {
                self.was_doubtful |= error.has(flags::MAYBE_EXECUTED);
                self.patience.again(error).unwrap_or_else(|error| Next::Over(Err(self.worker.explain(error))))
            }
        }
    }
}

impl Operation for Returning {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        if let Some(renewing) = &mut self.renewing {
            return renewing.next(told);
        }
        if let (None, Some(met)) = (&told, self.patience.over()) {
            return Next::Over(Err(self.worker.explain(met)));
        }
        match self.one.next(&self.worker.client, told) {
            steps::Next::Call(call) => Next::Call(call),
            steps::Next::Pause(time) => Next::Pause(time),
            steps::Next::Over(outcome) => self.over(outcome),
        }
    }
}

#[cold]
fn no_lease(ledger: &Ledger) -> Error {
    let (name, is_new) = (ledger.keys.name(), ledger.standing == Standing::New);
    let text = match (ledger.is_stopped, is_new) {
        (true, true) => format!("this worker of {name} was closed, and has no lease"),
        (false, true) => format!("this worker of {name} has no lease yet: its first take gets it"),
        _ => format!("the lease of this worker of {name} was over: other workers may have its jobs"),
    };
    Error::new(Status::InvalidState, text)
}

/// Renews the lease.
pub struct Renewing {
    worker: Arc<Worker>,
    patience: Patience,
}

impl Renewing {
    pub fn begin(worker: &Arc<Worker>, timeout: Timeout) -> Self {
        Self::until(worker, worker.client.deadline(timeout))
    }

    fn until(worker: &Arc<Worker>, deadline: Deadline) -> Self {
        Self { worker: Arc::clone(worker), patience: Patience::until(deadline) }
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
        Err(no_lease(&ledger))
    }
}

impl Operation for Renewing {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        match told {
            Some(Ok(reply)) => Next::Over(self.renewed(&reply)),
            Some(Err(error)) => {
                self.patience.again(error).unwrap_or_else(|error| Next::Over(Err(self.worker.explain(error))))
            }
            None => {
                if let Some(met) = self.patience.over() {
                    return Next::Over(Err(self.worker.explain(met)));
                }
                let (ledger, mut list) = (self.worker.ledger.lock(), Vec::new());
                if ledger.standing == Standing::New {
                    return Next::Over(Err(no_lease(&ledger)));
                }
                ledger.renewal(&mut list);
                drop(ledger);
                self.worker.call(list, CallFlags::ATOMIC, self.patience.deadline)
            }
        }
    }
}

/// Stops the worker, and hands back what is in hand.
pub struct Closing {
    worker: Arc<Worker>,
    patience: Patience,
    all: Option<All>,
    /// How often a take that was stopped may be waited for.
    waits: u32,
}

impl Closing {
    pub fn begin(worker: &Arc<Worker>, timeout: Timeout) -> Self {
        let patience = Patience::until(worker.client.deadline(timeout));
        Self { worker: Arc::clone(worker), patience, all: None, waits: 10 }
    }

    fn over(&mut self, outcome: Result<bool>) -> Next {
        self.all = None;
        if outcome.is_ok() || stands(&outcome) {
            self.worker.ledger.lock().give_up();
        }
        match outcome {
            Ok(_) => Next::Over(Ok(None)),
            Err(error) => {
                self.patience.again(error).unwrap_or_else(|error| Next::Over(Err(self.worker.explain(error))))
            }
        }
    }
}

impl Operation for Closing {
    fn next(&mut self, told: Option<Result<Reply>>) -> Next {
        if !self.worker.is_stopped() {
            self.worker.stop();
        }
        // What its last move has brought goes back too, if it ends soon.
        if self.all.is_none() && self.waits > 0 && self.worker.taking.load(Ordering::Acquire) {
            self.waits -= 1;
            return Next::Pause(PAUSE);
        }
        if let (None, Some(met)) = (&told, self.patience.over()) {
            return Next::Over(Err(self.worker.explain(met)));
        }
        let (worker, deadline) = (Arc::clone(&self.worker), self.patience.deadline);
        let all = self.all.get_or_insert_with(|| {
            let mut ledger = worker.ledger.lock();
            ledger.partings += 1;
            All::new(&ledger, &ledger.keys.worker, ledger.leaving(), deadline)
        });
        let permits = |lease: Option<&[u8]>| worker.ledger.lock().is_own_or_over(lease);
        match all.next(&worker.client, told, &permits, &|encoded| worker.ledger.lock().returned(encoded)) {
            steps::Next::Call(call) => Next::Call(call),
            steps::Next::Pause(time) => Next::Pause(time),
            steps::Next::Over(outcome) => self.over(outcome),
        }
    }
}

impl Worker {
    fn burial_of(&self, other: Other, deadline: Deadline) -> All {
        let leaving = if other.is_gone { Leaving::Gone } else { Leaving::Doubtful };
        All::new(&self.ledger.lock(), &other.name, leaving, deadline)
    }

    /// A call on the client, in what is left of this time.
    fn call(&self, commands: Vec<u8>, flag: u32, deadline: Deadline) -> Next {
        match time(deadline) {
            Timeout::DontWait => Next::Over(Err(self.explain(no_time(deadline)))),
            timeout => self.call_within(commands, flag, timeout),
        }
    }

    fn call_within(&self, commands: Vec<u8>, flag: u32, timeout: Timeout) -> Next {
        let flags = CallFlags::default().with(flag);
        Next::Call(StepCall { client: Arc::clone(&self.client), commands, flags, timeout, beside: Vec::new() })
    }
}
