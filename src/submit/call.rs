//! A submitted call: its parts, how an attempt of it starts, and how it ends.
//!
//! Guarantees: nothing here waits, connects or resolves. An accepted call is completed exactly once, by the same rules as a
//! blocking call. Leaves to others: reading (lane, pool, queue), what an outcome means (call), calls that cannot start at once
//! (pending).

use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::order::OrderClass;
use super::pending::PendingQueue;
use super::times::Times;
use crate::call::durable::{self, Need};
use crate::call::judge::{self, Verdict, judge, judge_atomic};
use crate::call::{Attempt, Way, gate, is_logged_out};
use crate::error::{Error, Result, Status};
use crate::lane::{self, Completion, Failure, Outcome, Unit, transaction};
use crate::plan::{CallFlags, Plan, Stretch};
use crate::pool::{Pool, SubmitLane, Traffic};
use crate::queue::{Address, Driven, Queue, Reservation, Source};
use crate::resp::{Kind, Reply};
use crate::route::{Route, Router};
use crate::sys::sync::{Lock, Locked};
use crate::time::{Deadline, Instant};
use crate::topology::Child;

/// Keeps a client open for a submitted call, as [`Context::enter`](crate::route::Context::enter) does for a blocking one. Each
/// clone counts as a call; the first one stands for the submit itself.
pub(super) struct SubmitGuard {
    router: Arc<Router>,
    client: Arc<dyn Child>,
    /// The call has its outcome.
    has_outcome: AtomicBool,
}

impl SubmitGuard {
    pub(super) fn new(router: &Arc<Router>, client: Arc<dyn Child>) -> Result<Self> {
        std::mem::forget(router.context.admit()?);
        Ok(Self { router: Arc::clone(router), client, has_outcome: AtomicBool::new(false) })
    }

    /// The call gets its outcome now.
    fn note_outcome(&self) {
        if !self.has_outcome.swap(true, Ordering::AcqRel) {
            self.router.context.note_outcome();
        }
    }
}

impl Clone for SubmitGuard {
    fn clone(&self) -> Self {
        self.router.context.admit_another();
        self.router.context.count_call();
        let has_outcome = AtomicBool::new(false);
        Self { router: Arc::clone(&self.router), client: Arc::clone(&self.client), has_outcome }
    }
}

impl Drop for SubmitGuard {
    fn drop(&mut self) {
        match *self.has_outcome.get_mut() {
            true => self.router.context.leave_with_outcome(),
            false => self.router.context.leave(),
        }
    }
}

/// A submitted call.
pub(super) struct Call {
    pub(super) guard: SubmitGuard,
    /// Where it waits while it cannot start.
    pub(super) pending: Arc<PendingQueue>,
    /// The submitted list, and the part of it that is this call.
    pub(super) list: Arc<[u8]>,
    pub(super) part: Range<usize>,
    /// A single command, whose reply is not wrapped in an ARRAY.
    pub(super) bare: bool,
    pub(super) commands: u32,
    pub(super) flags: CallFlags,
    pub(super) deadline: Deadline,
    /// Its number, in the order of submission.
    pub(super) order: u64,
    pub(super) profile: CallProfile,
    /// Of a call with a call handle.
    pub(super) times: Option<Arc<Times>>,
    /// It may have to be sent again by the body of a script.
    pub(super) scripts: bool,
    /// It was counted as held back.
    pub(super) is_held: AtomicBool,
    pub(super) state: Lock<CallState>,
}

/// What is known of a call without parsing its bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallProfile {
    pub(super) reads: bool,
    /// It has scans, which have to be routed by their cursors.
    pub(super) scans: bool,
    /// It is a transaction, for which the lane has to be asked first.
    pub(super) atomic: bool,
    /// It reads from a replica, and may take long there.
    pub(super) slow: bool,
    pub(super) traffic: Traffic,
    pub(super) class: OrderClass,
}

/// What changes during a call.
#[derive(Default)]
pub(super) struct CallState {
    credit: Option<Reservation>,
    in_flight: Option<InFlight>,
    /// A connection has ended at this call, so it gets a connection of its own.
    alone: bool,
    /// The state of the retry engine, once an attempt has failed.
    attempt: Option<Box<Attempt<Arc<Pool>>>>,
}

impl CallState {
    pub(super) fn new(credit: Option<Reservation>) -> Self {
        Self { credit, ..Self::default() }
    }
}

/// An attempt in flight.
pub(super) struct InFlight {
    pub(super) way: Way,
    pub(super) submit_lane: Arc<SubmitLane>,
    /// Of a durable write: how many bytes and commands are its own, before WAIT.
    pub(super) own: usize,
    pub(super) list: Option<u32>,
}

/// Has the drains of a queue drive a lane.
pub(super) fn attach(queue: &Queue, submit_lane: &Arc<SubmitLane>) {
    let source: Arc<dyn Source> = Arc::clone(submit_lane) as Arc<dyn Source>;
    queue.attach(&source);
}

impl Call {
    pub(super) fn router(&self) -> &Arc<Router> {
        &self.guard.router
    }

    /// Takes the state of the retry engine, or makes a new one.
    pub(super) fn take_attempt(&self) -> Box<Attempt<Arc<Pool>>> {
        let kept = self.lock().attempt.take();
        kept.unwrap_or_else(|| Box::new(Attempt::new(self.router().context.settings().retry, self.deadline)))
    }

    /// Keeps the state of the retry engine, if an attempt has failed.
    pub(super) fn keep_attempt(&self, attempt: Box<Attempt<Arc<Pool>>>) {
        let mut state = self.lock();
        state.alone = attempt.goes_alone();
        state.attempt = Some(attempt).filter(|attempt| attempt.has_failed());
    }

    /// The deadline of an attempt. A replica that stalls must leave time for the others; a slow call gets all of its time.
    pub(super) fn share(&self, route: &Route) -> Deadline {
        let whole = self.profile.slow || self.profile.traffic != Traffic::Plain;
        if whole { self.deadline } else { route.share_of(self.deadline) }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.list[self.part.clone()]
    }

    /// Parses the call again. Needed only when an attempt fails or the call waits.
    pub(super) fn plan(&self) -> Result<Plan<'_>> {
        let mut plan = match (self.bare, self.profile.atomic) {
            (true, _) => Plan::one(self.bytes()),
            (false, true) => Plan::wrapped(self.bytes()),
            (false, false) => Plan::list(self.bytes()),
        }?;
        if let Some(scripts) = self.router().context.scripts().filter(|_| self.scripts) {
            plan.use_scripts(scripts, false);
        }
        Ok(plan)
    }

    /// How many replies its unit has, if they are a list.
    pub(super) fn replies(&self) -> Option<u32> {
        let added = if self.profile.atomic { transaction::ADDED } else { 0 };
        (!self.bare).then_some(self.commands + added)
    }

    /// Starts an attempt; false: the lane took nothing. `of_list`: more calls of the same list follow, and the bytes are sent
    /// together behind the last of them.
    #[inline]
    pub(super) fn start(
        self: &Arc<Self>,
        unit: Unit<'_>,
        deadline: Deadline,
        in_flight: InFlight,
        of_list: Option<Instant>,
    ) -> bool {
        let submit_lane = Arc::clone(&in_flight.submit_lane);
        // Noted before the call is sent, because the answer may come at once.
        self.times.iter().for_each(|times| times.started(in_flight.way.route.pool.name()));
        self.lock().in_flight = Some(in_flight);
        let started = submit_lane.start(unit, deadline, Arc::clone(self) as Arc<dyn Completion>, of_list);
        let Err(cause) = started else { return true };
        self.times.iter().for_each(|times| times.not_started());
        let in_flight = self.lock().in_flight.take();
        match in_flight {
            // Another lane would have no memory for it, either.
            Some(in_flight) if cause.status() == Status::Limit => self.fail_unstarted(in_flight, cause),
            _ => false,
        }
    }

    /// Ends an attempt that could not be started. It counts as one that failed before anything was sent.
    pub(super) fn fail_unstarted(self: &Arc<Self>, in_flight: InFlight, cause: Error) -> bool {
        self.lock().in_flight = Some(in_flight);
        Arc::clone(self).complete(Err(Failure::unsent(cause)));
        true
    }

    /// Notes that it is held back, if it is. A read that waits for its turn behind a write is not.
    pub(super) fn note_if_held_back(&self) -> bool {
        let context = &self.router().context;
        let is_held = !self.profile.reads && gate::is_shut(context);
        if is_held {
            if !self.is_held.swap(true, Ordering::Relaxed) {
                context.count_held_back();
            }
            self.times.iter().for_each(|times| times.held_back());
        }
        is_held
    }

    /// The kind of lane that it needs.
    #[inline]
    pub(super) fn traffic(&self) -> Traffic {
        if self.lock().alone { Traffic::Dedicated } else { self.profile.traffic }
    }

    #[inline]
    pub(super) fn lock(&self) -> Locked<'_, CallState> {
        self.state.lock()
    }

    /// Where its completion goes, until it is over.
    pub(super) fn address(&self) -> Option<Address> {
        self.lock().credit.as_ref().map(Reservation::address)
    }

    /// Whether it was submitted with this queue and token, or is the step of this operation.
    pub(super) fn is_of(&self, owner: usize, token: u64) -> bool {
        self.lock().credit.as_ref().is_some_and(|credit| credit.is_of(owner, token))
    }

    /// Completes the call.
    #[inline]
    pub(super) fn end(&self, result: Result<(Reply, Arc<Pool>)>) {
        let scanned = result.as_ref().ok().filter(|_| self.profile.scans);
        let from = scanned.map(|(_, pool)| (self.router().scan_generation(pool), pool.name().to_owned()));
        let reply = result.and_then(|(reply, pool)| match reply.error_line(0).filter(|_| self.bare) {
            Some(line) => Err(self.plan().map_or_else(|error| error, |plan| judge::error_of(&plan, line, pool.name()))),
            None => Ok(reply),
        });
        let context = &self.router().context;
        let outcome = reply.map(Some).map_err(|error| context.report(error));
        if self.profile.atomic {
            context.count_transaction_end(&outcome);
        }
        let credit = self.lock().credit.take();
        if let Some(credit) = credit {
            self.guard.note_outcome();
            credit.complete_from(outcome, from);
        }
    }

    /// The reply to the call, if it ends it: the failover sequence has not changed since the call began, and the errors in the reply
    /// are final.
    fn ended_by(&self, reply: Reply, failover_seq: u64) -> std::result::Result<Reply, Reply> {
        if self.profile.atomic {
            return self.transaction_ended_by(reply, failover_seq);
        }
        if self.is_final(&reply, failover_seq) { Ok(reply) } else { Err(reply) }
    }

    #[cold]
    fn transaction_ended_by(&self, reply: Reply, failover_seq: u64) -> std::result::Result<Reply, Reply> {
        let doubted = !self.profile.reads && self.router().context.service.failover_seq() != failover_seq;
        let Some(plan) = self.plan().ok().filter(|_| !doubted && !is_logged_out(&reply)) else { return Err(reply) };
        match judge_atomic(&plan, &self.router().context.settings().retry, &reply) {
            Verdict::Done { reply, demotion: None } => Ok(reply),
            _ => Err(reply),
        }
    }

    fn is_final(&self, reply: &Reply, failover_seq: u64) -> bool {
        if !self.profile.reads && self.router().context.service.failover_seq() != failover_seq {
            return false;
        }
        let is_error = |node: u32| reply.kind(node) == Kind::Error;
        if if self.bare { !is_error(0) } else { !reply.children(0).any(is_error) } {
            return true;
        }
        let Some(plan) = self.plan().ok().filter(|_| !is_logged_out(reply)) else { return false };
        let verdict =
            judge(&plan, Stretch::default(), self.flags, &self.router().context.settings().retry, Ok(reply.clone()));
        matches!(verdict, Verdict::Done { demotion: None, .. })
    }
}

impl Completion for Call {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        let mut state = self.lock();
        let (in_flight, retried) = (state.in_flight.take(), state.attempt.is_some());
        drop(state);
        let Some(in_flight) = in_flight else { return };
        self.times.iter().for_each(|times| times.ended());
        let pending = Arc::clone(&self.pending);
        let outcome = in_flight.arrive(&self, outcome);
        let ended = match outcome {
            Ok(reply) if !retried && !self.profile.scans => {
                self.ended_by(reply, in_flight.way.failover_seq).map_err(Ok)
            }
            outcome => Err(outcome),
        };
        match ended {
            Ok(reply) => self.end(Ok((reply, in_flight.way.route.pool))),
            Err(outcome) => pending.come_back(self, in_flight.way, outcome),
        }
        pending.finish(1);
    }

    fn is(&self, owner: usize, token: u64) -> bool {
        self.is_of(owner, token)
    }
}

impl InFlight {
    /// Ends an attempt: releases a dedicated lane, and takes off the answer to WAIT.
    fn arrive(&self, call: &Call, outcome: Outcome) -> Outcome {
        if call.traffic() == Traffic::Dedicated {
            call.router().context.forget_blocking(self.submit_lane.lane().socket());
            self.submit_lane.release(outcome.as_ref().err().map(|failure| failure.error.clone()));
        }
        match self.way.need {
            Need::NONE => outcome,
            need => {
                let (context, own) = (&call.router().context, (self.own, self.list));
                let plan = call.plan().map_err(|error| Failure::new(usize::MAX, error))?;
                durable::unwrap(context, &plan, outcome, own, need, self.way.route.pool.name())
            }
        }
    }
}

impl Source for SubmitLane {
    fn fd(&self) -> Option<RawFd> {
        Some(SubmitLane::fd(self))
    }

    fn begin_drain(&self) {
        SubmitLane::begin_drain(self);
    }

    fn end_drain(&self) {
        SubmitLane::end_drain(self);
    }

    fn wants_write(&self) -> bool {
        self.lane().wants_write()
    }

    fn due(&self) -> Option<Instant> {
        self.lane().next_due()
    }

    fn drive(&self) -> Driven {
        match self.lane().drive() {
            lane::Driven::Read => Driven::Read,
            lane::Driven::Busy => Driven::Busy,
        }
    }

    fn is_over(&self) -> bool {
        self.lane().is_dead() && self.lane().in_flight() == 0
    }

    fn unblock(&self, queue: usize, token: u64) -> bool {
        self.lane().has_call(queue, token) && SubmitLane::unblock(self)
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        self.lane().cancel(queue, token)
    }
}
