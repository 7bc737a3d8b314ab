//! A call with a handle: any thread can cancel it, and a signal can interrupt the wait for it.
//!
//! The call goes the way of a submitted one, with a queue of its own: the waiting thread drives the connections, and no other thread
//! takes part. So the wait can end while the call is under way, and go on later.
//!
//! Guarantees: a handle has one call at a time; a cancellation stays, also one that came before the call; what a blocking command has
//! taken from the server is delivered, cancelled or not. Leaves to others: the life of a submitted call (submit), and what a
//! cancelled call says of itself (lane).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{CallFlags, Client, Timeout};
use crate::error::{Error, Result, Status};
use crate::plan::Plan;
use crate::pool::UNBLOCKING;
use crate::queue::Queue;
use crate::resp::fields::{
    self, Field, MapInfo,
    Value::{Bool, Int, TextOrNull},
    field,
};
use crate::resp::{Kind, Reply, ReplyBuilder, encode};
use crate::submit::{Spent, Submission, Times};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::Deadline;

const TIMES: &[Field<Spent>] = &[
    field(
        "total_us",
        Int(|of| us(of, 0)),
        "µs",
        "From the beginning of the call until its end, or until now. The next four add up to it.",
    ),
    field(
        "queue_us",
        Int(|of| us(of, 1)),
        "µs",
        "Before it was first sent: planning it, waiting for its turn, for the primary to be known, or for a connection to be opened. A call that \
         was never sent has all its time here and in `fence_us`.",
    ),
    field(
        "fence_us",
        Int(|of| us(of, 2)),
        "µs",
        "Held back by the fence, or by `write.majority_ms`, until it was sent.",
    ),
    field(
        "wire_us",
        Int(|of| us(of, 3)),
        "µs",
        "From the start of an attempt until its outcome, all attempts together. Behind the last one, until the caller had it.",
    ),
    field(
        "retry_us",
        Int(|of| us(of, 4)),
        "µs",
        "Between attempts: after a failed one, until the next one was sent. 0 with one attempt.",
    ),
    field("attempts", Int(|of| i64::from(of.attempts)), "", "How often it was sent."),
    field(
        "endpoint",
        TextOrNull(|of| of.endpoint.as_deref().map(Into::into)),
        "",
        "The node of the last attempt: `host:port`. NULL: it was not sent.",
    ),
    field("over", Bool(|of| of.is_over()), "", "Whether it is over."),
];

/// The whole, or one of its parts.
fn us(of: &Spent, part: usize) -> i64 {
    of.micros()[part] as i64
}

/// The map of [`CallHandle::times`], for STATISTICS.md.
pub fn times_map() -> MapInfo {
    fields::describe("times", TIMES)
}

/// A handle for one call after another.
pub struct CallHandle {
    cancelled: AtomicBool,
    /// A thread runs a call, or waits for one.
    busy: AtomicBool,
    /// The longest wait without an interruption, in milliseconds. 0: only a signal interrupts.
    slice: AtomicU64,
    state: Lock<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Made with the first call.
    queue: Option<Arc<Queue>>,
    running: Option<Running>,
    /// That of the latest call.
    token: u64,
    /// Where the time of the latest call went.
    times: Option<Arc<Times>>,
}

/// A call that is under way.
#[derive(Clone)]
struct Running {
    queue: Arc<Queue>,
    token: u64,
    name: String,
    blocks: bool,
    begun: Instant,
    ending: Ending,
    times: Arc<Times>,
}

/// How far a cancellation is.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Not,
    /// The server was asked to end the blocking command.
    Asked(Instant),
    Cancelled,
}

impl Default for CallHandle {
    fn default() -> Self {
        let state = Lock::new(Rank::CallHandle, Progress::default());
        Self { cancelled: AtomicBool::new(false), busy: AtomicBool::new(false), slice: AtomicU64::new(0), state }
    }
}

/// The turn of the one thread that uses the handle for a call.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl CallHandle {
    /// Runs one command, as [`Client::cmd_exec`].
    pub fn cmd_exec(&self, client: &Client, args: &[&[u8]], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        if flags.has(CallFlags::EACH) {
            return Err(Error::new(Status::InvalidArg, "flags: VIGIE_CALL_EACH is for lists of commands"));
        }
        let mut command = Vec::new();
        encode::try_command(&mut command, args)?;
        self.exec(client, &command, flags.with(CallFlags::EACH), timeout)
    }

    /// Runs a list of commands, as [`Client::cmds_exec`].
    pub fn exec(&self, client: &Client, commands: &[u8], flags: CallFlags, timeout: Timeout) -> Result<Reply> {
        self.run(commands, flags, |queue, token, times| {
            client.submit(Submission { times: Some(times), ..Submission::of(commands, flags, timeout, queue, token) })
        })
    }

    /// As [`CallHandle::exec`], with the submit that begins the call.
    pub(crate) fn run(
        &self,
        commands: &[u8],
        flags: CallFlags,
        begin: impl FnOnce(&Arc<Queue>, u64, &Arc<Times>) -> Result<()>,
    ) -> Result<Reply> {
        let _turn = self.turn()?;
        let plan = if flags.has(CallFlags::EACH) { Plan::one(commands)? } else { Plan::list(commands)? };
        let (name, blocks) = (plan.name().to_string(), plan.blocks.is_some());
        if self.is_cancelled() {
            return Err(Error::new(
                Status::Cancelled,
                format!("{name} was not sent: the call was cancelled before it began"),
            ));
        }
        let times = Arc::new(Times::new());
        let (queue, token) = self.next(&times)?;
        begin(&queue, token, &times).inspect_err(|_| times.over())?;
        self.await_end(Running { queue, token, name, blocks, begun: Instant::now(), ending: Ending::Not, times })
    }

    /// Goes on with the call that was interrupted.
    pub fn wait(&self) -> Result<Reply> {
        let _turn = self.turn()?;
        let running = self.state.lock().running.take();
        let nothing = || Error::new(Status::InvalidState, "no call is under way on this call handle");
        self.await_end(running.ok_or_else(nothing)?)
    }

    /// Cancels the call that is under way, or else the next one. It stays cancelled.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        let queue = self.state.lock().queue.clone();
        queue.iter().for_each(|queue| queue.wakeup());
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Interrupts each wait that has lasted for this time, as a signal would; zero: no more. A signal that comes just before the wait
    /// interrupts nothing, and a runtime that only notes it would wait on.
    pub fn interrupt_every(&self, slice: Duration) {
        self.slice.store(slice.as_millis() as u64, Ordering::Relaxed);
    }

    fn turn(&self) -> Result<Turn<'_>> {
        match self.busy.swap(true, Ordering::AcqRel) {
            false => Ok(Turn(&self.busy)),
            true => Err(Error::new(Status::InvalidState, "another thread runs a call with this call handle")),
        }
    }

    /// Where the time of the call went that runs, or ran last.
    pub fn times(&self) -> Result<Reply> {
        let times = self.state.lock().times.clone();
        let none = || Error::new(Status::InvalidState, "no call was made with this call handle");
        let spent = times.ok_or_else(none)?.spent();
        let mut out = ReplyBuilder::new();
        fields::write(&mut out, TIMES, &spent);
        out.try_finish()
    }

    /// The queue for the next call, and its token there.
    fn next(&self, times: &Arc<Times>) -> Result<(Arc<Queue>, u64)> {
        let mut state = self.state.lock();
        if let Some(running) = &state.running {
            let text = format!(
                "{} is still under way on this call handle: go on with vigie_call_wait(), or use another handle",
                running.name
            );
            return Err(Error::new(Status::InvalidState, text));
        }
        if state.queue.is_none() {
            state.queue = Some(Queue::create(1)?);
        }
        state.token += 1;
        state.times = Some(Arc::clone(times));
        let token = state.token;
        state.queue.clone().map(|queue| (queue, token)).ok_or_else(|| Error::new(Status::Internal, "no queue"))
    }

    /// Waits until the call is over, or a signal interrupts the wait.
    fn await_end(&self, mut running: Running) -> Result<Reply> {
        let mut events = Vec::new();
        loop {
            // Again in each round: a cancellation wakes the drain.
            if self.is_cancelled() {
                running.go_on_ending();
            }
            let look = running.next_look(self.slice.load(Ordering::Relaxed));
            let interrupted = running.queue.drain_interruptibly(look, &mut events);
            if let Some(event) = events.pop() {
                return running.over(event.outcome);
            }
            if (interrupted || look.is_over()) && running.ending == Ending::Not && !self.is_cancelled() {
                let (name, after) = (running.name.clone(), running.begun.elapsed().as_millis());
                self.state.lock().running = Some(running);
                let who = if interrupted { "a signal" } else { "vigie_call_interrupt_every()" };
                let text = format!(
                    "{who} interrupted the wait for {name}, which is still under way (after {after} ms): vigie_call_wait() goes on \
                     with it, vigie_call_cancel() ends it"
                );
                return Err(Error::new(Status::Interrupted, text));
            }
        }
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let Some(running) = state.running {
            running.queue.cancel(running.token);
        }
        if let Some(queue) = state.queue {
            queue.close();
        }
    }
}

impl Running {
    /// Ends the call: a blocking command by the server if it can, so that nothing that it takes is lost on the way.
    fn go_on_ending(&mut self) {
        let now = Instant::now();
        self.ending = match self.ending {
            Ending::Not if self.blocks && self.queue.unblock(self.token) => Ending::Asked(now + UNBLOCKING),
            Ending::Asked(until) if now < until => return,
            Ending::Cancelled => return,
            Ending::Not | Ending::Asked(_) => {
                self.queue.cancel(self.token);
                Ending::Cancelled
            }
        };
    }

    /// When the wait ends if nothing comes. `slice`: that of the handle.
    fn next_look(&self, slice: u64) -> Deadline {
        match self.ending {
            Ending::Asked(until) => Deadline::after(until.saturating_duration_since(Instant::now())),
            Ending::Not if slice > 0 => Deadline::after(Duration::from_millis(slice)),
            Ending::Not | Ending::Cancelled => Deadline::never(),
        }
    }

    /// What the caller gets.
    fn over(self, outcome: Result<Option<Reply>>) -> Result<Reply> {
        self.times.over();
        let reply = outcome?.ok_or_else(|| Error::new(Status::Internal, "a completion without a reply"))?;
        // The server has ended the blocking command as it was asked to: it has taken nothing.
        let is_unblocked = matches!(self.ending, Ending::Asked(_)) && reply.kind(0) == Kind::Null;
        match is_unblocked {
            true => Err(Error::new(Status::Cancelled, format!("{} was cancelled, and has taken nothing", self.name))),
            false => Ok(reply),
        }
    }
}
