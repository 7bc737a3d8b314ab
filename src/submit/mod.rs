//! Submitted calls: they run without a thread that waits for them.
//!
//! Guarantees: a submit never waits. An accepted call is completed exactly once; calls for the primary start in the order of their
//! submission, also after a failure. Leaves to others: attempts and what they mean (call), completions and drains (queue).
//!
//! `order` decides which call may start (pure), `pending` is the queue of calls that cannot start at once, `times` is where the time of a call goes, `opening` opens
//! connections for them, `call` is one call.

mod call;
mod opening;
mod order;
mod pending;
mod times;

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use call::{Call, CallProfile, CallState, InFlight, SubmitGuard, attach};
use order::OrderClass;
use pending::PendingQueue;
pub(crate) use times::{Spent, Times};

use crate::call::durable::{self, Need};
use crate::call::{Way, gate};
use crate::config::Replicas;
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Unit, transaction};
use crate::plan::{CallFlags, Keep, Plan, spelled_out};
use crate::pool::Traffic;
use crate::queue::{Credits, Queue, Source, Step};
use crate::resp::list;
use crate::route::{Route, Router};
use crate::sys::rank::Rank;
use crate::sys::seam::{self, Seam};
use crate::sys::sync::Lock;
use crate::time::{Deadline, Instant, Timeout};
use crate::topology::Child;

/// Copies of at least this size are tried first, so that a lack of memory is an error.
const TRIED: usize = 64 * 1024;

/// A list of at least this many calls is sent in two halves.
const HALVED: usize = 32;

/// What a caller submits: a list of commands, and where its completion goes.
#[derive(Clone, Copy)]
pub(crate) struct Submission<'a> {
    /// RESP-encoded, one after the other.
    pub(crate) commands: &'a [u8],
    pub(crate) flags: CallFlags,
    pub(crate) timeout: Timeout,
    pub(crate) queue: &'a Arc<Queue>,
    /// Of its completion; with `EACH` that of the first command, and the next command has the next number.
    pub(crate) token: u64,
    /// Of a call with a call handle: where its time goes.
    pub(crate) times: Option<&'a Arc<Times>>,
    /// Of a step: the operation that gets its outcome in place of the queue.
    pub(crate) step: Option<&'a Arc<dyn Step>>,
    /// Room that was reserved before; what is refused leaves it there.
    pub(crate) room: Option<&'a Cell<Option<Credits>>>,
    /// One command that the library has encoded itself, so that nothing is left to check.
    pub(crate) is_checked: bool,
}

impl<'a> Submission<'a> {
    /// For this queue, and nothing beside it.
    pub(crate) fn of(
        commands: &'a [u8],
        flags: CallFlags,
        timeout: Timeout,
        queue: &'a Arc<Queue>,
        token: u64,
    ) -> Self {
        Self { commands, flags, timeout, queue, token, times: None, step: None, room: None, is_checked: false }
    }

    /// Room for the completions of its calls.
    pub(crate) fn reserve(&self, calls: usize, bytes: usize, most: usize) -> Result<Credits> {
        match (self.step, self.room.and_then(Cell::take)) {
            (_, Some(room)) => Ok(room),
            (None, None) => self.queue.reserve_bytes(self.token, calls, bytes, most),
            (Some(step), None) => Ok(Credits::of_step(self.queue, self.token, step)),
        }
    }
}

/// One call of a submission.
struct Part {
    range: Range<usize>,
    commands: u32,
    profile: CallProfile,
    scripts: bool,
    deadline: Deadline,
}

/// Takes the submitted calls of a client.
pub(crate) struct Submitter {
    router: Arc<Router>,
    pending: [Arc<PendingQueue>; OrderClass::COUNT],
    /// The number of the next call, in the order of submission.
    next: AtomicU64,
}

impl Submitter {
    pub(crate) fn new(router: &Arc<Router>) -> Self {
        let classes = [OrderClass::Primary, OrderClass::Replicas, OrderClass::Blocking];
        let pending = classes.map(|class| PendingQueue::new(Arc::downgrade(router), class));
        Self { router: Arc::clone(router), pending, next: AtomicU64::new(0) }
    }

    fn pending(&self, class: OrderClass) -> &Arc<PendingQueue> {
        &self.pending[class as usize]
    }

    /// Has the pending calls looked at again, because something has changed.
    pub(crate) fn wake(&self) {
        self.pending.iter().for_each(PendingQueue::wake);
    }

    /// Copies a list of commands and runs it without waiting, on behalf of this client. Its completion arrives on the queue. With `EACH`
    /// every command is a call of its own. What is refused here is refused as a whole, and has no completion.
    pub(crate) fn submit(&self, client: Arc<dyn Child>, submission: Submission<'_>) -> Result<()> {
        let wrapped = match submission.flags.has(CallFlags::ATOMIC) {
            true => Some(wrap(submission)?),
            false => None,
        };
        let whole = Submission { commands: wrapped.as_deref().unwrap_or(submission.commands), ..submission };
        let (parts, most_bytes) = self.parts(whole)?;
        match self.spelled_out(submission, &parts) {
            None => self.accept(client, whole, parts, most_bytes),
            Some(commands) => self.submit(client, Submission { commands: &commands, ..submission }),
        }
    }

    /// The commands by the bodies of the scripts that could not be sent again by them; `None`: there are none.
    fn spelled_out(&self, submission: Submission<'_>, parts: &[Part]) -> Option<Vec<u8>> {
        if !parts.iter().any(|part| part.scripts) {
            return None;
        }
        let keep = match submission.flags {
            flags if flags.has(CallFlags::ATOMIC | CallFlags::NO_RETRY) => Keep::None,
            flags if flags.has(CallFlags::EACH) => Keep::Each,
            _ => Keep::Last,
        };
        spelled_out(submission.commands, self.router.context.scripts()?, keep)
    }

    /// Takes calls that were looked up.
    fn accept(
        &self,
        client: Arc<dyn Child>,
        submission: Submission<'_>,
        parts: Vec<Part>,
        most_bytes: usize,
    ) -> Result<()> {
        let Submission { commands, flags, queue, .. } = submission;
        let guard = SubmitGuard::new(&self.router, client)?;
        let mut credits = submission.reserve(parts.len(), commands.len(), most_bytes)?;
        let list = match copy(commands) {
            Ok(list) => list,
            Err(error) => {
                submission.room.inspect(|room| room.set(Some(credits)));
                return Err(error);
            }
        };
        let bare = flags.has(CallFlags::EACH);
        let make = |part: Part| {
            Arc::new(Call {
                guard: guard.clone(),
                pending: Arc::clone(self.pending(part.profile.class)),
                list: Arc::clone(&list),
                is_held: AtomicBool::new(false),
                state: Lock::new(Rank::Call, CallState::new(credits.next_of(part.range.len()))),
                part: part.range,
                bare,
                commands: part.commands,
                flags,
                deadline: part.deadline,
                order: self.next.fetch_add(1, Ordering::Relaxed),
                profile: part.profile,
                times: submission.times.cloned(),
                scripts: part.scripts && !flags.has(CallFlags::NO_RETRY),
            })
        };
        let calls: Vec<Arc<Call>> = parts.into_iter().map(make).collect();
        // Calls that go the same way are started together; reads are spread over the replicas one by one.
        let together = |a: &Arc<Call>, b: &Arc<Call>| a.profile == b.profile && a.profile.class == OrderClass::Primary;
        calls.chunk_by(together).for_each(|calls| self.begin(calls, queue));
        Ok(())
    }

    /// The calls of a submission, looked up; and how many bytes may be outstanding.
    fn parts(&self, submission: Submission<'_>) -> Result<(Vec<Part>, usize)> {
        let Submission { commands, flags, timeout, .. } = submission;
        let settings = self.router.context.settings();
        let (configured, most_bytes) = (settings.timeout_call, settings.submit_bytes);
        let durable = settings.write.replicas != Replicas::None || settings.write.aof;
        drop(settings);
        let shared = timeout.deadline(configured);
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |plan: &mut Plan<'_>, range: Range<usize>| {
            let deadline = plan.blocks.map_or(shared, |_| plan.deadline(timeout, configured));
            let scripts = plan.wants_care() && self.take_care(plan);
            let profile = self.profile(plan, flags, durable)?;
            parts.try_reserve(1).map_err(|_| Error::no_memory(commands.len(), "submitted commands"))?;
            parts.push(Part { range, commands: plan.count(), profile, scripts, deadline });
            Ok::<_, Error>(())
        };
        if submission.is_checked && flags.has(CallFlags::EACH) {
            let command = list::unchecked(commands)?;
            add(&mut Plan::single(&command), command.range())?;
        } else if flags.has(CallFlags::EACH) {
            let mut place = 0;
            list::commands(commands).try_for_each(|command| {
                let command = command?;
                place += 1;
                let is_alone = command.range().len() == commands.len();
                let refused = |error: Error| error.in_context(format_args!("command {place} of the list"));
                add(&mut Plan::single(&command), command.range())
                    .map_err(|error| if is_alone { error } else { refused(error) })
            })?;
        } else if flags.has(CallFlags::ATOMIC) {
            add(&mut Plan::wrapped(commands)?, 0..commands.len())?;
        } else {
            add(&mut Plan::list(commands)?, 0..commands.len())?;
        }
        if parts.is_empty() {
            return Err(Error::new(Status::InvalidArg, "commands: the list is empty"));
        }
        Ok((parts, most_bytes))
    }

    /// Keeps the scripts of a call, and finds out whether it needs a connection of its own. Whether it has scripts.
    #[cold]
    fn take_care(&self, plan: &mut Plan<'_>) -> bool {
        if !plan.is_known() {
            self.router.place(plan);
        }
        if plan.has_scripts() {
            self.router.context.scripts().iter().for_each(|scripts| plan.use_scripts(scripts, false));
        }
        plan.has_scripts()
    }

    /// Describes a call, and refuses what cannot be submitted.
    fn profile(&self, plan: &Plan<'_>, call: CallFlags, durable: bool) -> Result<CallProfile> {
        plan.check_shared()?;
        self.router.context.check_target(plan, call)?;
        let from_replicas = self.router.reads_from_replicas(plan, call);
        let traffic = match plan.apart {
            true => Traffic::Dedicated,
            // Where writes are durable by configuration, all calls for the primary share a lane, so that they start in order.
            false
                if !from_replicas && (durable || durable::needed(&self.router.context, plan, call)? != Need::NONE) =>
            {
                Traffic::Durable
            }
            false => Traffic::Plain,
        };
        let class = match traffic {
            Traffic::Dedicated => OrderClass::Blocking,
            _ if from_replicas => OrderClass::Replicas,
            _ => OrderClass::Primary,
        };
        let slow = from_replicas && (plan.slow || call.has(CallFlags::SLOW));
        let atomic = plan.is_atomic();
        Ok(CallProfile { reads: plan.reads, scans: plan.scan.is_some(), atomic, slow, traffic, class })
    }

    /// Starts calls that go the same way, if that is possible now. The others are queued.
    fn begin(&self, calls: &[Arc<Call>], queue: &Queue) {
        let (started, chosen) = self.start_now(calls, queue);
        if started < calls.len() {
            let pending = self.pending(calls[0].profile.class);
            let source: Arc<dyn Source> = Arc::clone(pending) as Arc<dyn Source>;
            queue.attach(&source);
            calls[started..].iter().for_each(|call| {
                call.note_if_held_back();
                pending.push(Arc::clone(call), chosen.clone());
            });
        }
    }

    /// Starts calls at once: nothing waits before them, the primary is known, the gate is open, and the lane is open. Returns how
    /// many were started. If only a connection is lacking it also returns the node that was chosen, with the version of the
    /// topology.
    fn start_now(&self, calls: &[Arc<Call>], queue: &Queue) -> (usize, Option<(Route, u64)>) {
        let CallProfile { reads, scans, atomic, traffic, class, .. } = calls[0].profile;
        let context = &self.router.context;
        let failover_seq = gate::read_failover_seq(context);
        if traffic != Traffic::Plain || scans || (!reads && gate::is_shut(context)) {
            return (0, None);
        }
        seam::pass(Seam::GatePassed, &*context.service);
        let version = context.service.version();
        let Some(route) = self.router.route_now(class == OrderClass::Replicas) else { return (0, None) };
        let Some(submit_lane) = route.pool.submit_lane(Traffic::Plain) else { return (0, Some((route, version))) };
        if atomic && !submit_lane.lane().carries_transactions() {
            return (0, Some((route, version)));
        }
        let pending = self.pending(class);
        if !pending.begin(&submit_lane, Traffic::Plain, calls.len()) {
            return (0, None);
        }
        attach(queue, &submit_lane);
        let (now, at_most_once) = (Instant::now(), !reads);
        let lease = if reads { None } else { context.service.lease() };
        let start = |call: &Arc<Call>| {
            let list = call.replies();
            let unit =
                Unit { bytes: Bytes::Raw(call.bytes()), list, at_most_once: at_most_once || atomic, lease, atomic };
            let way = Way { route: route.clone(), need: Need::NONE, failover_seq, version, trip: None };
            call.start(
                unit,
                call.share(&route),
                InFlight { way, submit_lane: Arc::clone(&submit_lane), own: 0, list },
                Some(now),
            )
        };
        // The server works on the first half while the second one is written.
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

/// The list of a transaction, between MULTI and EXEC.
#[cold]
fn wrap(submission: Submission<'_>) -> Result<Vec<u8>> {
    submission.flags.check_atomic()?;
    transaction::wrap(submission.commands)
}

/// Copies the commands into one shared block. Its allocation cannot fail gracefully, so that of a large one is tried first.
fn copy(commands: &[u8]) -> Result<Arc<[u8]>> {
    if commands.len() >= TRIED && Vec::<u8>::new().try_reserve_exact(commands.len() + TRIED).is_err() {
        return Err(Error::no_memory(commands.len(), "submitted commands"));
    }
    Ok(commands.into())
}
