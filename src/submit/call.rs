//! A submitted call: what it consists of, how an attempt of it starts, how it ends.
//!
//! Guarantees: nothing here waits, connects or resolves. A call that was accepted is completed exactly once, by the same rules as a call
//! whose caller waits. Leaves to others: reading (lane, pool, queue), what an outcome means (call), calls that cannot start at once
//! (pending).

use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use super::order::Class;
use super::pending::PendingQueue;
use crate::call::judge::{self, Verdict, judge};
use crate::call::{Attempt, Way, durable};
use crate::error::{Error, Result, Status};
use crate::lane::{self, Completion, Failure, Outcome, Unit};
use crate::plan::{CallFlags, Plan};
use crate::pool::{Pool, SubmitLane, Traffic};
use crate::queue::{Driven, Queue, Reservation, Source};
use crate::resp::{Kind, Reply};
use crate::route::{Route, Router, lock};
use crate::time::{Deadline, Instant};
use crate::topology::Child;

/// A submitted call that a client has admitted, and which keeps it open to news and to a close. Each copy counts as a call; the first one
/// is the submit itself.
pub(super) struct SubmitGuard {
    router: Arc<Router>,
    client: Arc<dyn Child>,
}

impl SubmitGuard {
    pub(super) fn new(router: &Arc<Router>, client: Arc<dyn Child>) -> Result<Self> {
        std::mem::forget(router.context.admit()?);
        Ok(Self { router: Arc::clone(router), client })
    }
}

impl Clone for SubmitGuard {
    fn clone(&self) -> Self {
        self.router.context.admit_another();
        self.router.context.count_call();
        Self { router: Arc::clone(&self.router), client: Arc::clone(&self.client) }
    }
}

impl Drop for SubmitGuard {
    fn drop(&mut self) {
        self.router.context.leave();
    }
}

/// A submitted call.
pub(super) struct Call {
    pub(super) guard: SubmitGuard,
    /// Where it waits if it cannot start at once.
    pub(super) pending: Arc<PendingQueue>,
    /// The list that it was submitted with, and its part of it.
    pub(super) list: Arc<[u8]>,
    pub(super) part: Range<usize>,
    /// One command, whose reply is its own.
    pub(super) bare: bool,
    pub(super) commands: u32,
    pub(super) flags: CallFlags,
    pub(super) deadline: Deadline,
    /// Its place among the calls of this client.
    pub(super) order: u64,
    pub(super) profile: CallProfile,
    pub(super) state: Mutex<CallState>,
}

/// What is known of a call without looking at its bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallProfile {
    pub(super) reads: bool,
    /// It has scans: where they go on has to be found out.
    pub(super) scans: bool,
    /// It reads from a replica and takes its time there.
    pub(super) slow: bool,
    pub(super) traffic: Traffic,
    pub(super) class: Class,
}

/// What changes while a call is under way.
#[derive(Default)]
pub(super) struct CallState {
    credit: Option<Reservation>,
    in_flight: Option<InFlight>,
    /// A connection has ended at it: it gets one of its own.
    alone: bool,
    /// Kept when an attempt has failed.
    attempt: Option<Box<Attempt<Arc<Pool>>>>,
}

impl CallState {
    pub(super) fn new(credit: Option<Reservation>) -> Self {
        Self { credit, ..Self::default() }
    }
}

/// An attempt that is under way.
pub(super) struct InFlight {
    pub(super) way: Way,
    pub(super) submit_lane: Arc<SubmitLane>,
    /// Of a durable write: how many bytes are its own, before WAIT, and how many commands.
    pub(super) own: usize,
    pub(super) list: Option<u32>,
}

/// Has the drains of a queue look after a lane.
pub(super) fn attach(queue: &Queue, submit_lane: &Arc<SubmitLane>) {
    let source: Arc<dyn Source> = Arc::clone(submit_lane) as Arc<dyn Source>;
    queue.attach(&source);
}

impl Call {
    pub(super) fn router(&self) -> &Arc<Router> {
        &self.guard.router
    }

    /// How its attempts stand.
    pub(super) fn take_attempt(&self) -> Box<Attempt<Arc<Pool>>> {
        let kept = self.lock().attempt.take();
        kept.unwrap_or_else(|| Box::new(Attempt::new(self.router().context.settings().retry, self.deadline)))
    }

    /// Keeps how its attempts stand, if one has failed.
    pub(super) fn keep_attempt(&self, attempt: Box<Attempt<Arc<Pool>>>) {
        let mut state = self.lock();
        state.alone = attempt.goes_alone();
        state.attempt = Some(attempt).filter(|attempt| attempt.has_failed());
    }

    /// How long an attempt may take: a stalled replica must leave time for the others, what is slow needs it.
    pub(super) fn share(&self, route: &Route) -> Deadline {
        let whole = self.profile.slow || self.profile.traffic != Traffic::Plain;
        if whole { self.deadline } else { route.share_of(self.deadline) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.list[self.part.clone()]
    }

    /// Its plan, looked up again: for what happens rarely.
    pub(super) fn plan(&self) -> Result<Plan<'_>> {
        if self.bare { Plan::one(self.bytes()) } else { Plan::list(self.bytes()) }
    }

    /// Begins an attempt; false: the lane took nothing. With the time of a list, more calls of it follow, and what they send goes out
    /// behind the last of them.
    pub(super) fn start(
        self: &Arc<Self>,
        unit: Unit<'_>,
        deadline: Deadline,
        in_flight: InFlight,
        of_list: Option<Instant>,
    ) -> bool {
        let submit_lane = Arc::clone(&in_flight.submit_lane);
        self.lock().in_flight = Some(in_flight);
        let started = submit_lane.start(unit, deadline, Arc::clone(self) as Arc<dyn Completion>, of_list);
        let Err(cause) = started else { return true };
        let in_flight = self.lock().in_flight.take();
        match in_flight {
            // Another lane has no more memory for it.
            Some(in_flight) if cause.status() == Status::Limit => self.fail_unstarted(in_flight, cause),
            _ => false,
        }
    }

    /// An attempt that was not begun is over, and counts as one that was.
    pub(super) fn fail_unstarted(self: &Arc<Self>, in_flight: InFlight, cause: Error) -> bool {
        self.lock().in_flight = Some(in_flight);
        Arc::clone(self).complete(Err(Failure::unsent(cause)));
        true
    }

    /// What it goes with.
    pub(super) fn traffic(&self) -> Traffic {
        if self.lock().alone { Traffic::Dedicated } else { self.profile.traffic }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CallState> {
        lock(&self.state)
    }

    /// Its queue and number, while it is not over.
    pub(super) fn address(&self) -> Option<(Arc<Queue>, u64)> {
        let state = self.lock();
        state.credit.as_ref().map(|credit| (Arc::clone(credit.queue()), credit.token()))
    }

    /// Whether it was submitted with this queue and token.
    pub(super) fn is_of(&self, queue: usize, token: u64) -> bool {
        let state = self.lock();
        state.credit.as_ref().is_some_and(|credit| credit.token() == token && credit.queue().id() == queue)
    }

    /// The call is over.
    pub(super) fn end(&self, result: Result<(Reply, Arc<Pool>)>) {
        let reply = result.and_then(|(reply, pool)| match reply.error_line(0).filter(|_| self.bare) {
            Some(line) => Err(self.plan().map_or_else(|error| error, |plan| judge::error_of(&plan, line, pool.name()))),
            None => Ok(reply),
        });
        let outcome = reply.map(Some).map_err(|error| self.router().context.report(error));
        let credit = self.lock().credit.take();
        if let Some(credit) = credit {
            credit.complete(outcome);
        }
    }

    /// Whether a reply ends the call as it is: nothing happened since it was begun, and what errors there are in it are final.
    fn is_final(&self, reply: &Reply, failover_seq: u64) -> bool {
        if !self.profile.reads && self.router().context.service.failover_seq() != failover_seq {
            return false;
        }
        let is_error = |node: u32| reply.kind(node) == Kind::Error;
        if if self.bare { !is_error(0) } else { !reply.children(0).any(is_error) } {
            return true;
        }
        let Ok(plan) = self.plan() else { return false };
        let verdict = judge(&plan, 0, self.flags, &self.router().context.settings().retry, Ok(reply.clone()));
        matches!(verdict, Verdict::Done { demotion: None, .. })
    }
}

impl Completion for Call {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        let mut state = self.lock();
        let (in_flight, retried) = (state.in_flight.take(), state.attempt.is_some());
        drop(state);
        let Some(in_flight) = in_flight else { return };
        let pending = Arc::clone(&self.pending);
        let outcome = in_flight.arrive(&self, outcome);
        match outcome {
            Ok(reply) if !retried && !self.profile.scans && self.is_final(&reply, in_flight.way.failover_seq) => {
                self.end(Ok((reply, in_flight.way.route.pool)));
            }
            outcome => pending.come_back(self, in_flight.way, outcome),
        }
        pending.finish(1);
    }

    fn is(&self, owner: usize, token: u64) -> bool {
        self.is_of(owner, token)
    }
}

impl InFlight {
    /// The attempt is over: its lane is given back if it was for it alone, and the answer of WAIT is taken off.
    fn arrive(&self, call: &Call, outcome: Outcome) -> Outcome {
        if call.traffic() == Traffic::Dedicated {
            call.router().context.forget_blocking(self.submit_lane.lane().socket());
            self.submit_lane.release(outcome.as_ref().err().map(|failure| failure.error.clone()));
        }
        match self.way.replicas {
            0 => outcome,
            n => durable::unwrap(outcome, self.own, self.list, n, self.way.route.pool.name()),
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

    fn cancel(&self, queue: usize, token: u64) -> usize {
        self.lane().cancel(queue, token)
    }
}
