//! Lists of jobs for workers, at least once: a job is taken into the worker's own list, and removed from there when it is
//! acknowledged. docs/jobs.md has the keys and the format.
//!
//! Guarantees: a job whose push was acknowledged is handed out until it is acknowledged, whatever happens to workers, and to primaries as
//! far as `write.replicas` covers them; an acknowledgement whose answer was lost is looked up before it is sent again; a list that is
//! empty or out of reach costs no busy loop; a thread that waits and an event loop run the same steps. Leaves to others: the calls
//! themselves (client), what each operation does (operations), which command comes next (take, pure), what is known of the lists (ledger,
//! pure), what goes back (hand_back).

mod envelope;
mod hand_back;
mod keys;
mod ledger;
mod operations;
mod take;
#[cfg(test)]
mod take_tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use envelope::Job;

use crate::client::steps::{self, StepCall, Steps, Told};
use crate::client::{CallFlags, CallHandle, Client, Target, Timeout};
use crate::error::{Error, Result, Status, quoted};
use crate::meter::Deed;
use crate::queue::Queue;
use crate::resp::{Reply, encode};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock};
use hand_back::no_time;
use keys::Keys;
use ledger::Ledger;
use operations::{Acking, Closing, Next, Operation, Renewing, Returning, Taking};

const LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_millis(100);
/// Before something is tried again.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What a worker that was stopped may take to make sure of the job that came in that moment.
const LAST_MOMENT: u64 = 1000;

/// One worker of a list of jobs.
pub struct Jobs(Arc<Worker>);

/// What its operations share.
struct Worker {
    client: Arc<Client>,
    ledger: Lock<Ledger>,
    /// Ends a pause.
    stopped: Condvar,
    /// Ends a call under way of a thread that takes.
    call: CallHandle,
    /// A take is under way.
    taking: AtomicBool,
    /// The latest take by submit.
    submitted: Lock<(u64, Weak<Steps>)>,
    /// Counts the takes by submit, in their order.
    takes: AtomicU64,
}

/// Pushes a job, with this id or a random one.
pub fn push(client: &Client, name: &str, id: Option<&str>, payload: &[u8], timeout: Timeout) -> Result<()> {
    let (keys, job) = (Keys::new(name, "-")?, Job::new(id, 0, payload)?);
    client.cmd_exec(&[b"LPUSH", &keys.ready, job.encoded()], CallFlags::default(), timeout).map(|_| ())
}

/// As [`push`], without waiting: the length of the list arrives on the queue with this token.
pub fn push_submit(
    client: &Client,
    name: &str,
    id: Option<&str>,
    payload: &[u8],
    timeout: Timeout,
    (queue, token): (&Arc<Queue>, u64),
) -> Result<()> {
    let (keys, job) = (Keys::new(name, "-")?, Job::new(id, 0, payload)?);
    let mut command = Vec::new();
    encode::try_command(&mut command, &[b"LPUSH", &keys.ready, job.encoded()])?;
    client.cmds_submit(&command, CallFlags::default().with(CallFlags::EACH), timeout, queue, token)
}

/// An operation by submit: the job that it ends with is the reply of its completion.
struct Submitted(Box<dyn Operation>);

impl steps::Operation for Submitted {
    fn next(&mut self, told: Option<Told>) -> steps::Next {
        match self.0.next(told.map(|told| told.outcome)) {
            Next::Call(call) => steps::Next::Call(call),
            Next::Pause(time) => steps::Next::Pause(time),
            Next::Over(Ok(Some(job))) => steps::Next::Over(job.shown().map(Some)),
            Next::Over(outcome) => steps::Next::Over(outcome.map(|_| None)),
        }
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
        Ok(Self(Arc::new(Worker {
            client: Arc::clone(client),
            ledger: Lock::new(Rank::Jobs, ledger),
            stopped: Condvar::new(),
            call: CallHandle::default(),
            taking: AtomicBool::new(false),
            submitted: Lock::new(Rank::JobsTake, (0, Weak::new())),
            takes: AtomicU64::new(0),
        })))
    }

    /// Puts a job aside that was handed out this often; 0: none.
    pub fn limit_deliveries(&self, most: u32) {
        self.0.ledger.lock().max_deliveries = most;
    }

    /// The next job; `None`: there was none in the time.
    pub fn take(&self, timeout: Timeout) -> Result<Option<Job>> {
        let mut taking = Taking::begin(&self.0, timeout)?;
        self.0.run(&mut taking, &|call| self.0.take_call(call))
    }

    /// As [`Jobs::take`], without waiting: the job arrives on the queue with this token.
    pub fn take_submit(&self, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        let taking = Taking::begin(&self.0, timeout)?;
        // It has the turn: a later take counts later, even if this thread is held up below.
        let turn = 1 + self.0.takes.fetch_add(1, Ordering::Relaxed);
        let steps = self.submit(taking, queue, token)?;
        {
            let mut latest = self.0.submitted.lock();
            if latest.0 < turn {
                *latest = (turn, Arc::downgrade(&steps));
            }
        }
        // A stop in between has not seen it.
        if self.0.is_stopped() {
            steps.stop();
        }
        Ok(())
    }

    /// Removes a job that is done.
    pub fn ack(&self, id: &str, timeout: Timeout) -> Result<()> {
        self.run(&mut Acking::begin(&self.0, id, timeout)?)
    }

    /// As [`Jobs::ack`], without waiting.
    pub fn ack_submit(&self, id: &str, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        self.submit_timed(Acking::begin(&self.0, id, timeout)?, timeout, queue, token)
    }

    /// Gives a job back to the list: it is taken again, by any worker, with a mark.
    pub fn give_back(&self, id: &str, timeout: Timeout) -> Result<()> {
        self.run(&mut Returning::begin(&self.0, id, timeout)?)
    }

    /// As [`Jobs::give_back`], without waiting.
    pub fn give_back_submit(&self, id: &str, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        self.submit_timed(Returning::begin(&self.0, id, timeout)?, timeout, queue, token)
    }

    /// Renews the lease: for a job that takes longer.
    pub fn renew(&self, timeout: Timeout) -> Result<()> {
        self.run(&mut Renewing::begin(&self.0, timeout))
    }

    /// As [`Jobs::renew`], without waiting.
    pub fn renew_submit(&self, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        self.submit_timed(Renewing::begin(&self.0, timeout), timeout, queue, token)
    }

    /// Ends the take under way and every later one.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Hands back what is in hand, and ends the lease, so that others need not wait for its end.
    pub fn close(&self, timeout: Timeout) -> Result<()> {
        self.run(&mut Closing::begin(&self.0, timeout))
    }

    /// As [`Jobs::close`], without waiting.
    pub fn close_submit(&self, timeout: Timeout, queue: &Arc<Queue>, token: u64) -> Result<()> {
        self.submit_timed(Closing::begin(&self.0, timeout), timeout, queue, token)
    }

    fn run(&self, operation: &mut dyn Operation) -> Result<()> {
        let exec = |call: StepCall| call.client.cmds_exec(&call.commands, call.flags, call.timeout);
        self.0.run(operation, &exec).map(drop)
    }

    /// An operation other than a take, which needs time.
    fn submit_timed(
        &self,
        operation: impl Operation + 'static,
        timeout: Timeout,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        if timeout == Timeout::DontWait {
            return Err(self.0.explain(no_time(self.0.client.deadline(timeout))));
        }
        self.submit(operation, queue, token).map(drop)
    }

    fn submit(&self, operation: impl Operation + 'static, queue: &Arc<Queue>, token: u64) -> Result<Arc<Steps>> {
        Steps::begin(&self.0.client, Box::new(Submitted(Box::new(operation))), queue, token)
    }
}

impl Worker {
    /// Runs an operation on this thread.
    fn run(&self, operation: &mut dyn Operation, exec: &dyn Fn(StepCall) -> Result<Reply>) -> Result<Option<Job>> {
        let mut told = None;
        loop {
            match operation.next(told.take()) {
                Next::Over(outcome) => return outcome,
                Next::Call(call) => told = Some(exec(call)),
                Next::Pause(time) => drop(self.stopped.wait_timeout(self.ledger.lock(), time)),
            }
        }
    }

    /// Runs a call of a take so that [`Jobs::stop`] ends it. After that there is a moment for what was taken already.
    fn take_call(&self, call: StepCall) -> Result<Reply> {
        let StepCall { client, commands, flags, timeout, .. } = call;
        if self.call.is_cancelled() {
            return client.cmds_exec(&commands, flags, Timeout::Ms(LAST_MOMENT));
        }
        let mut outcome = self.call.exec(&client, &commands, flags, timeout);
        while outcome.as_ref().is_err_and(|error| error.status() == Status::Interrupted) {
            outcome = self.call.wait();
        }
        outcome
    }

    fn stop(&self) {
        self.ledger.lock().is_stopped = true;
        self.stopped.notify_all();
        self.call.cancel();
        let submitted = self.submitted.lock().1.upgrade();
        submitted.iter().for_each(Steps::stop);
    }

    fn is_stopped(&self) -> bool {
        self.ledger.lock().is_stopped
    }

    /// Counts a job that is handed out.
    fn count(&self, outcome: &Result<Option<Job>>) {
        if let Ok(Some(job)) = outcome {
            self.client.count(Deed::JobTaken, 1);
            self.client.count(Deed::JobMarked, u64::from(job.redelivered() > 0));
        }
    }

    /// Counts the leases that were found to be over, and the jobs that were put aside unread.
    fn count_losses(&self) {
        let mut ledger = self.ledger.lock();
        let (lost, unread) = (std::mem::take(&mut ledger.leases_lost), std::mem::take(&mut ledger.unreadable));
        drop(ledger);
        self.client.count(Deed::LeaseLost, lost);
        self.client.count(Deed::JobSetAside, unread);
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
