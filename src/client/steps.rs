//! An operation of several submitted calls, with one completion: the outcome of each call is handed to the operation, which says what
//! comes next: one call, or several on different clients that run at the same time.
//!
//! Guarantees: no thread waits. The room for the completion is reserved at the beginning, so it is never refused; it comes exactly once. A
//! cancellation ends the call that is under way, and no other one begins but what takes back what was begun; a close ends the operation with
//! its next call. Between two calls a worker runs the operation, which only computes. A blocking command is first ended by its server, so
//! that what it takes in that moment is known. Leaves to others: the calls (submit, line), what comes next (scan, jobs, shard).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{CallFlags, Client};
use crate::error::{Error, Result, Status, flags};
use crate::pool::UNBLOCKING;
use crate::queue::{Driven, Queue, Reservation, Source, Step, owner_of};
use crate::resp::Reply;
use crate::submit::Submission;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::time::{Instant, Timeout};
use crate::worker;

/// A pause is looked at this often: a close of the client ends it.
const LOOK: Duration = Duration::from_millis(20);

/// What an operation does next.
pub(crate) enum Next<T = Option<Reply>> {
    /// This call, with those beside it. Its outcome is told.
    Call(StepCall),
    /// Nothing for this long.
    Pause(Duration),
    /// It is over, with this outcome.
    Over(Result<T>),
}

/// One call of an operation.
pub(crate) struct StepCall {
    /// The client, or a session of it.
    pub(crate) client: Arc<Client>,
    /// RESP-encoded, one after the other.
    pub(crate) commands: Vec<u8>,
    /// Of the call.
    pub(crate) flags: CallFlags,
    /// Of the call.
    pub(crate) timeout: Timeout,
    /// Calls that run at the same time. Only an operation that is told of them has any.
    pub(crate) beside: Vec<StepCall>,
}

/// The outcome of a call.
pub(crate) struct Told {
    /// A reply, or an error.
    pub(crate) outcome: Result<Reply>,
    /// Of a scan: the generation of its node, and the node's name.
    pub(crate) from: Option<(u64, String)>,
    /// The outcomes of the calls beside it, in their order.
    pub(crate) beside: Vec<Result<Reply>>,
}

impl Told {
    /// The outcome of one call.
    pub(crate) fn of(outcome: Result<Reply>) -> Self {
        Self { outcome, from: None, beside: Vec::new() }
    }
}

/// What becomes of the next call of an operation that was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AfterCancel {
    /// Nothing was sent: a pause ends it as well.
    Pauses,
    /// It is not sent, and the operation is over.
    Ends,
    /// It is refused, and the operation says what it has done; it comes to its end by itself.
    Settles,
    /// It is sent all the same, because it takes back what was begun. Its time is bounded.
    Finishes,
}

/// What is done in several steps. It only computes.
pub(crate) trait Operation: Send {
    /// What comes next. `told`: the outcome of the call before; `None` at the beginning and after a pause.
    fn next(&mut self, told: Option<Told>) -> Next;

    /// What becomes of the call that `next` has just asked for, if the operation was cancelled.
    fn after_cancel(&self) -> AfterCancel {
        AfterCancel::Ends
    }
}

/// An operation under way.
pub(crate) struct Steps {
    client: Arc<Client>,
    queue: Weak<Queue>,
    owner: (usize, u64),
    cancelled: AtomicBool,
    /// A cancellation that came before the call that is under way does not count for it.
    finishing: AtomicBool,
    over: AtomicBool,
    state: Lock<StepsState>,
    me: Weak<Self>,
}

struct StepsState {
    /// `None` while a thread runs it, and at its end.
    operation: Option<Box<dyn Operation>>,
    credit: Option<Reservation>,
    /// Until when it pauses.
    pause: Option<Instant>,
    /// The calls under way that run at the same time.
    fan: Fan,
}

/// Calls that run at the same time.
#[derive(Default)]
struct Fan {
    branches: Vec<Weak<Branch>>,
    outcomes: Vec<Option<Result<Reply>>>,
    /// How many have no outcome yet, and one more while they are being submitted.
    left: usize,
}

/// One of them.
struct Branch {
    steps: Arc<Steps>,
    at: usize,
}

impl Steps {
    /// Begins an operation, whose completion arrives on the queue with this token. Its first call starts here.
    pub(crate) fn begin(
        client: &Arc<Client>,
        operation: Box<dyn Operation>,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<Arc<Self>> {
        client.shared.context().check_open()?;
        let credit = queue.reserve(token, 1)?.next();
        Ok(Self::begin_with(client, operation, queue, token, credit))
    }

    /// As [`Steps::begin`], with room that was reserved before.
    pub(crate) fn begin_with(
        client: &Arc<Client>,
        operation: Box<dyn Operation>,
        queue: &Arc<Queue>,
        token: u64,
        credit: Option<Reservation>,
    ) -> Arc<Self> {
        let state = StepsState { operation: Some(operation), credit, pause: None, fan: Fan::default() };
        let steps = Arc::new_cyclic(|me| Self {
            client: Arc::clone(client),
            queue: Arc::downgrade(queue),
            owner: (queue.id(), token),
            cancelled: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            state: Lock::new(Rank::Steps, state),
            me: Weak::clone(me),
        });
        let source: Arc<dyn Source> = Arc::clone(&steps) as Arc<dyn Source>;
        queue.attach(&source);
        steps.run(None);
        steps
    }

    /// Ends the call that is under way, or a pause, and lets no other call begin.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.cancelled.store(true, Ordering::Release);
        let ids = self.ids();
        let is_asked = self.queue.upgrade().is_some_and(|queue| ids.iter().any(|id| queue.unblock_step(*id)));
        let me = Arc::clone(self);
        if !is_asked || worker::after(UNBLOCKING, Arc::downgrade(self), move || me.cancel_now()).is_err() {
            self.cancel_now();
        }
    }

    /// By which its calls are found.
    fn ids(self: &Arc<Self>) -> Vec<usize> {
        let branches: Vec<Arc<Branch>> = self.state.lock().fan.branches.iter().filter_map(Weak::upgrade).collect();
        let mut ids = vec![owner_of(&(Arc::clone(self) as Arc<dyn Step>))];
        ids.extend(branches.into_iter().map(|branch| owner_of(&(branch as Arc<dyn Step>))));
        ids
    }

    fn cancel_now(self: &Arc<Self>) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(queue) = self.queue.upgrade() {
            self.ids().into_iter().for_each(|id| queue.cancel_step(id));
        }
        self.wake(true);
    }

    /// Ends a pause if its time is over, or now.
    fn wake(self: &Arc<Self>, now: bool) {
        let mut state = self.state.lock();
        let Some(until) = state.pause else { return };
        let left = until.saturating_duration_since(Instant::now());
        if now || left.is_zero() {
            state.pause = None;
            drop(state);
            self.run_soon(None);
        } else {
            drop(state);
            self.set_alarm(left);
        }
    }

    fn set_alarm(self: &Arc<Self>, left: Duration) {
        let me = Arc::clone(self);
        let ring = move || me.wake(me.client.is_closed() || me.cancelled.load(Ordering::Acquire));
        // Without an alarm the pause ends here.
        if worker::after(left.min(LOOK), Arc::downgrade(self), ring).is_err() {
            self.wake(true);
        }
    }

    /// A cancellation that came while the call was on its way to a source has not found it.
    fn cancel_if_asked(self: &Arc<Self>) {
        if self.is_cancelled() {
            self.cancel_now();
        }
    }

    fn run_soon(self: &Arc<Self>, told: Option<Told>) {
        let me = Arc::clone(self);
        if let Err(error) = worker::run(move || me.run(told)) {
            let operation = self.state.lock().operation.take();
            drop(operation);
            let error = Error::from_io(Status::Io, "no thread to go on with a submitted operation", &error);
            self.end(Err(error.with_flags(flags::MAYBE_EXECUTED)));
        }
    }

    /// Runs it until a call is under way, or a pause, or its end.
    fn run(self: &Arc<Self>, mut told: Option<Told>) {
        let mut was_refused = false;
        loop {
            let Some(mut operation) = self.state.lock().operation.take() else { return };
            let next = operation.next(told.take());
            let is_cancelled = self.cancelled.load(Ordering::Acquire);
            let after = operation.after_cancel();
            self.finishing.store(after == AfterCancel::Finishes, Ordering::Release);
            let ends = match &next {
                Next::Pause(_) if after == AfterCancel::Pauses => is_cancelled,
                _ => was_refused && is_cancelled && after <= AfterCancel::Ends,
            };
            match next {
                Next::Over(outcome) => {
                    drop(operation);
                    return self.end(outcome);
                }
                _ if ends => {
                    drop(operation);
                    return self.end(Err(self.cancelled_error()));
                }
                Next::Pause(time) => {
                    let mut state = self.state.lock();
                    (state.operation, state.pause) = (Some(operation), Instant::now().checked_add(time));
                    drop(state);
                    return self.set_alarm(time);
                }
                Next::Call(call) if !call.beside.is_empty() => {
                    self.state.lock().operation = Some(operation);
                    let Some(outcomes) = self.submit_all(&call) else { return self.cancel_if_asked() };
                    was_refused = true;
                    told = outcomes;
                }
                Next::Call(call) => {
                    self.state.lock().operation = Some(operation);
                    let Err(error) = self.submit(&call, Arc::clone(self) as Arc<dyn Step>) else {
                        return self.cancel_if_asked();
                    };
                    was_refused = true;
                    told = Some(Told::of(Err(error)));
                }
            }
        }
    }

    /// Submits a call and those beside it. Their outcomes, if all are there already.
    fn submit_all(self: &Arc<Self>, call: &StepCall) -> Option<Option<Told>> {
        let calls: Vec<&StepCall> = std::iter::once(call).chain(&call.beside).collect();
        let branch = |at| Arc::new(Branch { steps: Arc::clone(self), at });
        let branches: Vec<Arc<Branch>> = (0..calls.len()).map(branch).collect();
        let outcomes = calls.iter().map(|_| None).collect();
        let weak = branches.iter().map(Arc::downgrade).collect();
        self.state.lock().fan = Fan { branches: weak, outcomes, left: calls.len() + 1 };
        for (call, branch) in calls.into_iter().zip(branches) {
            let at = branch.at;
            if let Err(error) = self.submit(call, branch) {
                self.note(Some((at, Err(error))));
            }
        }
        self.note(None).map(Some)
    }

    /// Notes the outcome of one of several calls, or that all are submitted. All outcomes, with the last one.
    fn note(&self, outcome: Option<(usize, Result<Reply>)>) -> Option<Told> {
        let mut state = self.state.lock();
        let fan = &mut state.fan;
        if let Some((at, outcome)) = outcome {
            fan.outcomes[at] = Some(outcome);
        }
        fan.left -= 1;
        if fan.left > 0 {
            return None;
        }
        let mut outcomes = std::mem::take(fan).outcomes.into_iter().flatten();
        let outcome = outcomes.next()?;
        Some(Told { outcome, from: None, beside: outcomes.collect() })
    }

    fn submit(self: &Arc<Self>, call: &StepCall, step: Arc<dyn Step>) -> Result<()> {
        let Some(queue) = self.queue.upgrade() else {
            return Err(Error::new(Status::Closed, "the queue of a submitted operation is gone"));
        };
        let is_finishing = self.finishing.load(Ordering::Acquire);
        if !is_finishing && (self.cancelled.load(Ordering::Acquire) || queue.is_cancelled(self.owner.1)) {
            self.cancelled.store(true, Ordering::Release);
            return Err(self.cancelled_error());
        }
        let submission = Submission::of(&call.commands, call.flags, call.timeout, &queue, self.owner.1);
        call.client.submit(Submission { step: Some(&step), ..submission })
    }

    #[cold]
    fn cancelled_error(&self) -> Error {
        Error::new(Status::Cancelled, "cancelled before its next command was sent")
    }

    fn end(&self, outcome: Result<Option<Reply>>) {
        self.over.store(true, Ordering::Release);
        let credit = self.state.lock().credit.take();
        if let Some(credit) = credit {
            credit.complete(outcome);
        }
    }
}

impl Step for Steps {
    fn told(self: Arc<Self>, outcome: Result<Option<Reply>>, from: Option<(u64, String)>) {
        self.run_soon(Some(Told { outcome: with_reply(outcome), from, beside: Vec::new() }));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) && !self.finishing.load(Ordering::Acquire)
    }
}

fn with_reply(outcome: Result<Option<Reply>>) -> Result<Reply> {
    let nothing = || Error::new(Status::Internal, "a call ended without a reply");
    outcome.and_then(|reply| reply.ok_or_else(nothing))
}

impl Step for Branch {
    fn told(self: Arc<Self>, outcome: Result<Option<Reply>>, _: Option<(u64, String)>) {
        if let Some(told) = self.steps.note(Some((self.at, with_reply(outcome)))) {
            self.steps.run_soon(Some(told));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.steps.is_cancelled()
    }
}

impl Source for Steps {
    fn drive(&self) -> Driven {
        Driven::Read
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn cancel(&self, owner: usize, token: u64) -> usize {
        let Some(me) = self.me.upgrade().filter(|_| self.owner == (owner, token) && !self.is_over()) else {
            return 0;
        };
        me.stop();
        1
    }
}
