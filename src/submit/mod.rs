//! Calls that are submitted: they run without a thread that waits for them.
//!
//! Guarantees: a submit never waits. What was accepted is completed exactly once; calls for the primary start in the order of their
//! submission, also after a failure. Leaves to others: attempts and what they mean (call), completions and drains (queue).
//!
//! `order` is the pure order of starts, `pending` the queue of calls that cannot start at once, `opening` opens connections for them, `call`
//! is one call.

mod call;
mod opening;
mod order;
mod pending;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use call::{Call, Facts, Flight, State, SubmitGuard, attach};
use order::Class;
use pending::PendingQueue;

use crate::call::{Way, durable, gate};
use crate::config::Replicas;
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Unit};
use crate::plan::{Budget, CallFlags, Plan};
use crate::pool::Traffic;
use crate::queue::{Queue, Source};
use crate::resp::list;
use crate::route::{Route, Router};
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Instant};
use crate::topology::Child;

/// Whether there is memory for so many bytes is tried before they are copied.
const TRIED: usize = 64 * 1024;

/// So many calls of one list are sent in two halves.
const HALVED: usize = 32;

/// Takes the submitted calls of a client.
pub(crate) struct Submitter {
    router: Arc<Router>,
    pending: [Arc<PendingQueue>; Class::COUNT],
    /// The place of the next call among all of this client.
    next: AtomicU64,
}

impl Submitter {
    pub(crate) fn new(router: &Arc<Router>) -> Self {
        let classes = [Class::Primary, Class::Replicas, Class::Blocking];
        let pending = classes.map(|class| PendingQueue::new(Arc::downgrade(router), class));
        Self { router: Arc::clone(router), pending, next: AtomicU64::new(0) }
    }

    fn pending(&self, class: Class) -> &Arc<PendingQueue> {
        &self.pending[class as usize]
    }

    /// Something has changed: what waits is looked at again.
    pub(crate) fn wake(&self) {
        self.pending.iter().for_each(PendingQueue::wake);
    }

    /// Copies a list of commands and runs it without waiting, on behalf of this client; its completion arrives on the queue. With `EACH`
    /// every command is a call of its own. What is refused here is refused whole, and has no completion.
    pub(crate) fn submit(
        &self,
        client: Arc<dyn Child>,
        commands: &[u8],
        call: CallFlags,
        budget: Budget,
        queue: &Arc<Queue>,
        token: u64,
    ) -> Result<()> {
        let settings = self.router.context.settings();
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
        let guard = SubmitGuard::new(&self.router, client)?;
        let mut credits = queue.reserve_bytes(token, parts.len(), commands.len(), most)?;
        let list = copy(commands)?;
        let make = |(part, commands, facts, deadline): (Range<usize>, u32, Facts, Deadline)| {
            let state = Mutex::new(State::new(credits.next_of(part.len())));
            let (guard, list, order) = (guard.clone(), Arc::clone(&list), self.next.fetch_add(1, Ordering::Relaxed));
            let pending = Arc::clone(self.pending(facts.class));
            Arc::new(Call {
                guard,
                pending,
                list,
                part,
                bare: each,
                commands,
                flags: call,
                deadline,
                order,
                facts,
                state,
            })
        };
        let calls: Vec<Arc<Call>> = parts.into_iter().map(make).collect();
        // What goes the same way is begun together; of reads each replica gets its share.
        let together = |a: &Arc<Call>, b: &Arc<Call>| a.facts == b.facts && a.facts.class == Class::Primary;
        calls.chunk_by(together).for_each(|calls| self.begin(calls, queue));
        Ok(())
    }

    /// Looks a call up, and refuses what cannot be submitted.
    fn facts(&self, plan: &Plan<'_>, call: CallFlags, durable: bool) -> Result<Facts> {
        plan.check_shared().map_err(|error| error.with_note("; a session cannot be submitted: its calls wait"))?;
        self.router.context.check_target(plan)?;
        let from_replicas = self.router.reads_from_replicas(plan, call);
        let traffic = match plan.blocks {
            Some(_) => Traffic::Dedicated,
            // Where writes are durable by configuration everything for the primary goes the same way, so that it starts in order.
            None if !from_replicas && (durable || durable::replicas_needed(&self.router.context, plan, call)? > 0) => {
                Traffic::Durable
            }
            None => Traffic::Plain,
        };
        let class = match traffic {
            Traffic::Dedicated => Class::Blocking,
            _ if from_replicas => Class::Replicas,
            _ => Class::Primary,
        };
        let slow = from_replicas && (plan.slow || call.has(CallFlags::SLOW));
        Ok(Facts { reads: plan.reads, scans: plan.scan.is_some(), slow, traffic, class })
    }

    /// Starts calls that go the same way, if that can be done now; else they take their places in the queue.
    fn begin(&self, calls: &[Arc<Call>], queue: &Queue) {
        let (started, chosen) = self.start_now(calls, queue);
        if started < calls.len() {
            let pending = self.pending(calls[0].facts.class);
            let source: Arc<dyn Source> = Arc::clone(pending) as Arc<dyn Source>;
            queue.attach(&source);
            calls[started..].iter().for_each(|call| pending.push(Arc::clone(call), chosen.clone()));
        }
    }

    /// The short way: nothing waits before them, the primary is known and not fenced, the lane is open. How many were started; and the node
    /// that was chosen, with the version of the topology, if only a connection to it is lacking.
    fn start_now(&self, calls: &[Arc<Call>], queue: &Queue) -> (usize, Option<(Route, u64)>) {
        let Facts { reads, scans, traffic, class, .. } = calls[0].facts;
        let context = &self.router.context;
        let failover_seq = gate::read_failover_seq(context);
        if traffic != Traffic::Plain || scans || (!reads && gate::holds_writes(context)) {
            return (0, None);
        }
        seam::pass(Seam::NotHeld, &*context.service);
        let version = context.service.version();
        let Some(route) = self.router.route_now(class == Class::Replicas) else { return (0, None) };
        let Some(submit_lane) = route.pool.submit_lane(Traffic::Plain) else { return (0, Some((route, version))) };
        let pending = self.pending(class);
        if !pending.begin(&submit_lane, Traffic::Plain, calls.len()) {
            return (0, None);
        }
        attach(queue, &submit_lane);
        let (now, once) = (Instant::now(), !reads);
        let gate = if reads { None } else { context.service.lease() };
        let start = |call: &Arc<Call>| {
            let list = (!call.bare).then_some(call.commands);
            let unit = Unit { bytes: Bytes::Raw(call.bytes()), list, once, gate };
            let way = Way { route: route.clone(), replicas: 0, failover_seq, version, trip: None };
            call.start(
                unit,
                call.share(&route),
                Flight { way, submit_lane: Arc::clone(&submit_lane), own: 0, list },
                Some(now),
            )
        };
        // The server begins with the first half while the second one is written.
        let half = if calls.len() >= HALVED { calls.len() / 2 } else { 0 };
        let mut started = calls[..half].iter().take_while(|call| start(call)).count();
        if half > 0 {
            submit_lane.send();
        }
        if started == half {
            started += calls[half..].iter().take_while(|call| start(call)).count();
        }
        submit_lane.send();
        pending.finish(calls.len() - started);
        (started, None)
    }
}

/// A copy in one block of its own. There is no such block that can be refused: a large one is tried first.
fn copy(commands: &[u8]) -> Result<Arc<[u8]>> {
    if commands.len() >= TRIED && Vec::<u8>::new().try_reserve_exact(commands.len() + TRIED).is_err() {
        return Err(Error::no_memory(commands.len(), "submitted commands"));
    }
    Ok(commands.into())
}
