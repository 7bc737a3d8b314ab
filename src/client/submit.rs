//! Calls that are submitted: what one consists of, how it begins, how it ends.
//!
//! Guarantees: nothing here waits, connects or resolves. What was accepted is completed exactly once, by the same rules as a call
//! that somebody waits for; calls for the primary start in the order of their submission. A call that cannot start at once, or has to
//! be tried again, goes to its line (`line`). Leaves to others: reading (lane, pool, queue), what an outcome means (judge).

use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use super::core::{Core, Stay, lock};
use super::durable;
use super::exec::{Progress, Way};
use super::judge::{self, Verdict, judge};
use super::line::{APART, PRIMARY, REPLICAS};
use super::plan::Plan;
use super::route::Route;
use super::{Budget, CallFlags, Client, NO_TIME};
use crate::config::Replicas;
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Completion, Failure, Outcome, Unit};
use crate::pool::{Pool, Post, Traffic};
use crate::queue::{Queue, Reservation, Source, Tended};
use crate::resp::{Kind, Reply, list};
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Instant};

/// Whether there is memory for so many bytes is tried before they are copied.
const TRIED: usize = 64 * 1024;

/// So many calls of one list are sent in two halves.
const HALVED: usize = 32;

/// A submitted call.
pub(super) struct Call {
    stay: Stay,
    /// The list that it was submitted with, and its part of it.
    list: Arc<[u8]>,
    part: Range<usize>,
    /// One command, whose reply is its own.
    bare: bool,
    commands: u32,
    pub(super) flags: CallFlags,
    pub(super) deadline: Deadline,
    /// Its place among the calls of this client.
    pub(super) order: u64,
    pub(super) facts: Facts,
    state: Mutex<State>,
}

/// What is known of a call without looking at its bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) reads: bool,
    /// It has scans: where they go on has to be found out.
    scans: bool,
    /// It reads from a replica and takes its time there.
    slow: bool,
    pub(super) traffic: Traffic,
    /// Which of the client's lines it belongs to.
    pub(super) line: usize,
}

/// What changes while a call is under way.
#[derive(Default)]
pub(super) struct State {
    credit: Option<Reservation>,
    flight: Option<Flight>,
    /// A connection has ended at it: it gets one of its own.
    pub(super) alone: bool,
    /// Made when the call does not come off at once.
    pub(super) progress: Option<Box<Progress>>,
}

/// An attempt that is under way.
pub(super) struct Flight {
    pub(super) way: Way,
    pub(super) post: Arc<Post>,
    /// Of a durable write: how many bytes are its own, before WAIT, and how many commands.
    pub(super) own: usize,
    pub(super) list: Option<u32>,
}

impl Client {
    /// Copies a list of commands and runs it without waiting; its completion arrives on the queue. With `EACH` every command is a
    /// call of its own. What is refused here is refused whole, and has no completion.
    pub fn cmds_submit(
        &self,
        commands: &[u8],
        call: CallFlags,
        budget: Budget,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        if self.session.is_some() {
            let text =
                "a session runs its commands in call order on one connection: submit on the client it was made from";
            return Err(Error::new(Status::Unsupported, text));
        }
        if budget == Budget::DontWait {
            let text = format!("the list was not sent: {NO_TIME}");
            return Err(self.core.told(Error::new(Status::Timeout, text)));
        }
        self.core.check_open()?;
        self.core.submit(commands, call, budget, queue, token)
    }
}

impl Core {
    fn submit(
        self: &Arc<Self>,
        commands: &[u8],
        call: CallFlags,
        budget: Budget,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        let settings = self.settings();
        let (timeout, most) = (settings.timeout_call, settings.submit_bytes);
        let durable = settings.write.replicas != Replicas::None;
        drop(settings);
        let (each, deadline) = (call.has(CallFlags::EACH), budget.deadline(timeout));
        let mut parts: Vec<(Range<usize>, u32, Facts, Deadline)> = Vec::new();
        let mut add = |plan: &Plan<'_>, part: Range<usize>| {
            let own = plan.blocks.map_or(deadline, |_| plan.deadline(budget, timeout));
            let part = (part, plan.count(), self.facts(plan, call, durable)?, own);
            parts.try_reserve(1).map_err(|_| Error::no_memory(commands.len(), "submitted commands"))?;
            parts.push(part);
            Ok::<_, Error>(())
        };
        if each {
            list::commands(commands).try_for_each(|command| {
                let command = command?;
                add(&Plan::single(&command), command.range())
            })?;
        } else {
            add(&Plan::list(commands)?, 0..commands.len())?;
        }
        if parts.is_empty() {
            return Err(Error::new(Status::InvalidArg, "commands: the list is empty"));
        }
        let stay = Stay::new(self)?;
        let mut credits = queue.reserve_bytes(token, parts.len(), commands.len(), most)?;
        let list = copy(commands)?;
        let make = |(part, commands, facts, deadline): (Range<usize>, _, _, _)| {
            let state = Mutex::new(State { credit: credits.next_of(part.len()), ..State::default() });
            let (stay, list, order) = (stay.clone(), Arc::clone(&list), self.next_order());
            Arc::new(Call { stay, list, part, bare: each, commands, flags: call, deadline, order, facts, state })
        };
        let calls: Vec<Arc<Call>> = parts.into_iter().map(make).collect();
        // What goes the same way is begun together; of reads each replica gets its share.
        let together = |a: &Arc<Call>, b: &Arc<Call>| a.facts == b.facts && a.facts.line == PRIMARY;
        calls.chunk_by(together).for_each(|calls| self.begin(calls, queue));
        Ok(())
    }

    /// Looks a call up, and refuses what cannot be submitted.
    fn facts(&self, plan: &Plan<'_>, call: CallFlags, durable: bool) -> Result<Facts> {
        plan.check_shared().map_err(|error| error.with_note("; a session cannot be submitted: its calls wait"))?;
        self.check_target(plan)?;
        let from_replicas = self.reads_from_replicas(plan, call);
        let traffic = match plan.blocks {
            Some(_) => Traffic::Apart,
            // Where writes are durable by configuration everything for the primary goes the same way, so that it starts in order.
            None if !from_replicas && (durable || self.replicas_needed(plan, call)? > 0) => Traffic::Durable,
            None => Traffic::Plain,
        };
        let line = match traffic {
            Traffic::Apart => APART,
            _ if from_replicas => REPLICAS,
            _ => PRIMARY,
        };
        let slow = from_replicas && (plan.slow || call.has(CallFlags::SLOW));
        Ok(Facts { reads: plan.reads, scans: plan.scan.is_some(), slow, traffic, line })
    }

    /// Starts calls that go the same way, if that can be done now; else they take their places in the line.
    fn begin(self: &Arc<Self>, calls: &[Arc<Call>], queue: &Queue) {
        let started = self.start_now(calls, queue);
        if started < calls.len() {
            let line = self.line(calls[0].facts.line);
            let source: Arc<dyn Source> = Arc::clone(line) as Arc<dyn Source>;
            queue.attach(&source);
            calls[started..].iter().for_each(|call| line.push(Arc::clone(call), None));
        }
    }

    /// The short way: nothing waits before them, the primary is known and not fenced, the lane is open. How many were started.
    fn start_now(self: &Arc<Self>, calls: &[Arc<Call>], queue: &Queue) -> usize {
        let Facts { reads, scans, traffic, line, .. } = calls[0].facts;
        let doubts = self.read_doubts();
        if traffic != Traffic::Plain || scans || (!reads && self.holds_writes()) {
            return 0;
        }
        seam::pass(Seam::NotHeld, &*self.service);
        let version = self.service.version();
        let Some(route) = self.route_now(&calls[0]) else { return 0 };
        let Some(post) = route.pool.post(Traffic::Plain) else { return 0 };
        let line = self.line(line);
        if !line.board(&post, Traffic::Plain, calls.len()) {
            return 0;
        }
        attach(queue, &post);
        let (now, once) = (Instant::now(), !reads);
        let gate = if reads { None } else { self.service.lease() };
        let start = |call: &Arc<Call>| {
            let list = (!call.bare).then_some(call.commands);
            let unit = Unit { bytes: Bytes::Raw(call.bytes()), list, once, gate };
            let way = Way { route: route.clone(), replicas: 0, doubts, version, trip: None };
            call.start(unit, call.share(&route), Flight { way, post: Arc::clone(&post), own: 0, list }, Some(now))
        };
        // The server begins with the first half while the second one is written.
        let half = if calls.len() >= HALVED { calls.len() / 2 } else { 0 };
        let mut started = calls[..half].iter().take_while(|call| start(call)).count();
        if half > 0 {
            post.send();
        }
        if started == half {
            started += calls[half..].iter().take_while(|call| start(call)).count();
        }
        post.send();
        line.disembark(calls.len() - started);
        started
    }

    /// The route of a call that begins, if the topology is known.
    fn route_now(&self, call: &Call) -> Option<Route> {
        let from_replicas = call.facts.line == REPLICAS;
        self.current_view().serves(self.target).then(|| self.route_for(from_replicas, &[]).ok()).flatten()
    }
}

/// A copy in one block of its own. There is no such block that can be refused: a large one is tried first.
fn copy(commands: &[u8]) -> Result<Arc<[u8]>> {
    if commands.len() >= TRIED && Vec::<u8>::new().try_reserve_exact(commands.len() + TRIED).is_err() {
        return Err(Error::no_memory(commands.len(), "submitted commands"));
    }
    Ok(commands.into())
}

/// Has the drains of a queue look after a lane.
pub(super) fn attach(queue: &Queue, post: &Arc<Post>) {
    let source: Arc<dyn Source> = Arc::clone(post) as Arc<dyn Source>;
    queue.attach(&source);
}

impl Call {
    pub(super) fn core(&self) -> &Arc<Core> {
        self.stay.core()
    }

    /// How long an attempt may take: a stalled replica must leave time for the others, what is slow needs it.
    pub(super) fn share(&self, route: &Route) -> Deadline {
        let whole = self.facts.slow || self.facts.traffic != Traffic::Plain;
        if whole { self.deadline } else { route.share_of(self.deadline) }
    }

    fn bytes(&self) -> &[u8] {
        &self.list[self.part.clone()]
    }

    /// Its plan, looked up again: for what happens rarely.
    pub(super) fn plan(&self) -> Result<Plan<'_>> {
        if self.bare { Plan::one(self.bytes()) } else { Plan::list(self.bytes()) }
    }

    /// Begins an attempt; false: the lane took nothing.
    /// With the time of a list, more calls of it follow, and what they send goes out behind the last of them.
    pub(super) fn start(
        self: &Arc<Self>,
        unit: Unit<'_>,
        deadline: Deadline,
        flight: Flight,
        of_list: Option<Instant>,
    ) -> bool {
        let post = Arc::clone(&flight.post);
        self.lock().flight = Some(flight);
        let started = post.start(unit, deadline, Arc::clone(self) as Arc<dyn Completion>, of_list);
        let Err(cause) = started else { return true };
        let flight = self.lock().flight.take();
        match flight {
            // Another lane has no more memory for it.
            Some(flight) if cause.status() == Status::Limit => self.end_flight(flight, cause),
            _ => false,
        }
    }

    /// An attempt that was not begun is over, and counts as one that was.
    pub(super) fn end_flight(self: &Arc<Self>, flight: Flight, cause: Error) -> bool {
        self.lock().flight = Some(flight);
        Arc::clone(self).complete(Err(Failure::unsent(cause)));
        true
    }

    /// What it goes with.
    pub(super) fn traffic(&self) -> Traffic {
        if self.lock().alone { Traffic::Apart } else { self.facts.traffic }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Its queue and number, while it is not over.
    pub(super) fn address(&self) -> Option<(Arc<Queue>, u64)> {
        let state = self.lock();
        state.credit.as_ref().map(|credit| (Arc::clone(credit.queue()), credit.token()))
    }

    /// The call is over.
    pub(super) fn end(&self, result: Result<(Reply, Arc<Pool>)>) {
        let reply = result.and_then(|(reply, pool)| match reply.error_line(0).filter(|_| self.bare) {
            Some(line) => Err(self.plan().map_or_else(|error| error, |plan| judge::error_of(&plan, line, pool.name()))),
            None => Ok(reply),
        });
        let outcome = reply.map(Some).map_err(|error| self.core().told(error));
        let credit = self.lock().credit.take();
        if let Some(credit) = credit {
            credit.complete(outcome);
        }
    }

    /// Whether a reply ends the call as it is: nothing happened since it was begun, and what errors there are in it are final.
    fn is_final(&self, reply: &Reply, doubts: u64) -> bool {
        if !self.facts.reads && self.core().service.doubts() != doubts {
            return false;
        }
        let is_error = |node: u32| reply.kind(node) == Kind::Error;
        if if self.bare { !is_error(0) } else { !reply.children(0).any(is_error) } {
            return true;
        }
        let Ok(plan) = self.plan() else { return false };
        let verdict = judge(&plan, 0, self.flags, &self.core().settings().retry, Ok(reply.clone()));
        matches!(verdict, Verdict::Done { ask: false, .. })
    }
}

impl Completion for Call {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        let mut state = self.lock();
        let (flight, retried) = (state.flight.take(), state.progress.is_some());
        drop(state);
        let Some(flight) = flight else { return };
        let line = Arc::clone(self.core().line(self.facts.line));
        let outcome = flight.arrive(&self, outcome);
        match outcome {
            Ok(reply) if !retried && !self.facts.scans && self.is_final(&reply, flight.way.doubts) => {
                self.end(Ok((reply, flight.way.route.pool)));
            }
            outcome => line.push(self, Some((flight.way, outcome))),
        }
        line.land();
    }

    fn is(&self, owner: usize, token: u64) -> bool {
        let state = self.lock();
        state.credit.as_ref().is_some_and(|credit| credit.token() == token && credit.queue().id() == owner)
    }
}

impl Flight {
    /// The attempt is over: its lane is given back if it was for it alone, and the answer of WAIT is taken off.
    fn arrive(&self, call: &Call, outcome: Outcome) -> Outcome {
        if call.traffic() == Traffic::Apart {
            call.core().forget_blocking(self.post.lane().socket());
            self.post.release(outcome.as_ref().err().map(|failure| failure.error.clone()));
        }
        match self.way.replicas {
            0 => outcome,
            n => durable::unwrap(outcome, self.own, self.list, n, self.way.route.pool.name()),
        }
    }
}

impl Source for Post {
    fn fd(&self) -> Option<RawFd> {
        Some(Post::fd(self))
    }

    fn enter(&self) {
        Post::enter(self);
    }

    fn leave(&self) {
        Post::leave(self);
    }

    fn wants_write(&self) -> bool {
        self.lane().wants_write()
    }

    fn due(&self) -> Option<Instant> {
        self.lane().next_due()
    }

    fn tend(&self) -> Tended {
        if self.lane().tend().led { Tended::Busy } else { Tended::Read }
    }

    fn is_over(&self) -> bool {
        self.lane().is_dead() && self.lane().in_flight() == 0
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        self.lane().cancel(queue, token)
    }
}
