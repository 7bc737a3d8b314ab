//! The line of submitted calls that cannot start at once: no primary, a fence, no connection yet, or something went wrong and they are
//! to be tried again.
//!
//! Guarantees: calls for the primary start in the order of their submission, also after a failure: a newer one never overtakes one that
//! did not run (rule 23). A call leaves at its deadline, when it is cancelled, and when the client is closed. Nothing here waits but for a
//! connection to be opened, on a worker, and two of those at a time in the process, so that hosts that vanish never hold up what
//! asks the Sentinels. Leaves to others: what an outcome means, and when a write is held back (exec, hold, judge).

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::core::{Core, lock};
use super::durable;
use super::exec::{Failed, Progress, Way};
use super::plan::Plan;
use super::submit::{Call, Flight, attach};
use crate::error::{Error, Status, flags};
use crate::lane::{Bytes, Failure, Outcome, Unit};
use crate::pool::{Post, Traffic};
use crate::queue::{Source, Tended};
use crate::sys::fork::PerProcess;
use crate::time::Deadline;
use crate::worker;

/// The lines of a client: for the primary, for replicas, for calls that block a connection of their own.
pub(super) const PRIMARY: usize = 0;
pub(super) const REPLICAS: usize = 1;
pub(super) const APART: usize = 2;
pub(super) const LINES: usize = 3;

/// How often a line that waits for a primary, a fence or a place looks again, beside being told.
const LOOK: Duration = Duration::from_millis(5);
/// Connections that lines open at the same time, in the process.
const OPENINGS: usize = 2;

static OPENING: PerProcess<AtomicUsize> = PerProcess::new();

/// Calls that wait for their start, or for a judgement.
pub(super) struct Line {
    core: Weak<Core>,
    number: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their submission.
    waiting: VecDeque<Waiting>,
    /// The errand has one in its hand: nothing may overtake it.
    in_hand: bool,
    /// The lanes that the last calls started on, by traffic.
    last: [Option<Arc<Post>>; 3],
    /// Calls that were started and have neither ended nor come back.
    flying: usize,
    /// A worker is looking after the line, and was asked to look again.
    runs: bool,
    again: bool,
    /// When it is looked after next.
    alarm: Option<Instant>,
}

struct Waiting {
    call: Arc<Call>,
    /// An attempt that is over and not judged yet.
    outcome: Option<(Way, Outcome)>,
    /// Pause until then, or until the topology has another version.
    pause: Option<(Instant, u64)>,
}

/// What became of a start.
enum Start {
    /// It flies, or it is over.
    Gone,
    /// It has to wait, so long at the most.
    Later(Waiting, Duration),
}

impl Line {
    pub(super) fn new(core: Weak<Core>, number: usize) -> Arc<Self> {
        Arc::new(Self { core, number, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts calls that are about to start on this lane; false: others wait before it, or fly on another connection whose end must
    /// be known first.
    pub(super) fn board(&self, post: &Arc<Post>, traffic: Traffic, calls: usize) -> bool {
        let mut state = self.lock();
        state.waiting.is_empty() && !state.in_hand && state.board(post, traffic, calls, self.number)
    }

    /// Calls that were counted have not started.
    pub(super) fn disembark(self: &Arc<Self>, calls: usize) {
        if calls > 0 {
            self.lock().flying -= calls - 1;
            self.land();
        }
    }

    /// A call that was started has ended or come back.
    pub(super) fn land(self: &Arc<Self>) {
        let mut state = self.lock();
        state.flying -= 1;
        let landed = state.flying == 0;
        let waited_for = landed && !state.waiting.is_empty();
        // A lane that has ended must not keep its descriptor because it was the last one.
        let ended = if landed { state.forget_ended() } else { Default::default() };
        drop(state);
        drop(ended);
        if waited_for {
            self.kick();
        }
    }

    /// A call takes its place, by the order of submission.
    pub(super) fn push(self: &Arc<Self>, call: Arc<Call>, outcome: Option<(Way, Outcome)>) {
        self.lock().insert(Waiting { call, outcome, pause: None });
        self.kick();
    }

    /// Has a worker look after the line now.
    pub(super) fn kick(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.runs {
            state.again = true;
        } else if !state.waiting.is_empty() {
            state.runs = true;
            drop(state);
            let line = Arc::clone(self);
            if let Err(error) = worker::run(move || line.errand()) {
                self.give_up(&error);
            }
        }
    }

    /// Without a thread nothing can be tried again.
    fn give_up(&self, error: &std::io::Error) {
        let mut state = self.lock();
        state.runs = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for Waiting { call, outcome, .. } in waiting {
            let error = Error::from_io(Status::Io, "no thread to start a submitted call", error);
            let maybe = match outcome {
                Some((_, Ok(_))) => true,
                Some((_, Err(failure))) => failure.sent > 0,
                None => false,
            };
            call.end(Err(error.with_flags(if maybe { flags::MAYBE_EXECUTED } else { flags::RETRYABLE })));
        }
    }

    /// A worker's visit: does what can be done, and comes back when there may be more.
    fn errand(self: &Arc<Self>) {
        let leave = OnErrand(self);
        loop {
            let pause = match self.core.upgrade() {
                Some(core) => self.round(&core),
                None => None,
            };
            let mut state = self.lock();
            if std::mem::take(&mut state.again) {
                continue;
            }
            state.runs = false;
            if let Some(pause) = pause {
                self.set_alarm(state, Instant::now() + pause);
            }
            break;
        }
        std::mem::forget(leave);
    }

    fn set_alarm(self: &Arc<Self>, mut state: MutexGuard<'_, State>, at: Instant) {
        if state.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        state.alarm = Some(at);
        drop(state);
        let line = Arc::clone(self);
        let ring = move || {
            let mut state = line.lock();
            if state.alarm == Some(at) {
                state.alarm = None;
            }
            drop(state);
            line.kick();
        };
        if let Err(error) = worker::after(at.saturating_duration_since(Instant::now()), ring) {
            self.give_up(&error);
        }
    }

    /// Judges what came back, ends what is over, starts what can be started; how long to wait for the rest.
    fn round(self: &Arc<Self>, core: &Arc<Core>) -> Option<Duration> {
        while let Some((waiting, way, outcome)) = self.take_judged() {
            let back = judge(core, waiting, way, outcome);
            self.put_back(back);
        }
        for waiting in self.take_over(core) {
            end_now(core, &waiting.call);
        }
        loop {
            let waiting = self.take_front()?;
            let pause = waiting.pause.filter(|(_, version)| *version == core.service.version());
            let left = pause.map_or(Duration::ZERO, |(until, _)| until.saturating_duration_since(Instant::now()));
            let start = if left.is_zero() { self.start(core, waiting) } else { Start::Later(waiting, left) };
            match start {
                Start::Gone => self.put_back(None),
                Start::Later(waiting, left) => {
                    self.put_back(Some(waiting));
                    let end = self.lock().next_end();
                    let until_end = end.map(|end| end.saturating_duration_since(Instant::now()));
                    return Some(until_end.map_or(left, |end| end.min(left)).max(Duration::from_micros(100)));
                }
            }
        }
    }

    fn take_judged(&self) -> Option<(Waiting, Way, Outcome)> {
        let mut state = self.lock();
        let at = state.waiting.iter().position(|waiting| waiting.outcome.is_some())?;
        let mut waiting = state.waiting.remove(at)?;
        let (way, outcome) = waiting.outcome.take()?;
        state.in_hand = true;
        Some((waiting, way, outcome))
    }

    fn take_front(&self) -> Option<Waiting> {
        let mut state = self.lock();
        // What came back meanwhile is judged first: it was submitted earlier than what waits behind it.
        if state.waiting.iter().any(|waiting| waiting.outcome.is_some()) {
            state.again = true;
            return None;
        }
        let front = state.waiting.pop_front()?;
        state.in_hand = true;
        Some(front)
    }

    fn put_back(&self, waiting: Option<Waiting>) {
        let mut state = self.lock();
        if let Some(waiting) = waiting {
            state.insert(waiting);
        }
        state.in_hand = false;
    }

    /// Takes out what has no time left, was cancelled, or belongs to a client that is closed.
    fn take_over(&self, core: &Core) -> Vec<Waiting> {
        let closed = core.is_closed();
        let mut state = self.lock();
        let is_over = |waiting: &Waiting| {
            waiting.outcome.is_none() && (closed || waiting.call.deadline.is_over() || is_cancelled(&waiting.call))
        };
        let (over, rest) = std::mem::take(&mut state.waiting).into_iter().partition(is_over);
        state.waiting = rest;
        Vec::from(over)
    }

    /// Tries to start a call.
    fn start(self: &Arc<Self>, core: &Arc<Core>, waiting: Waiting) -> Start {
        let Waiting { call, .. } = waiting;
        let kept = call.lock().progress.take();
        let plan = match call.plan() {
            Ok(plan) => plan,
            Err(error) => {
                call.end(Err(error));
                return Start::Gone;
            }
        };
        let tried_before = kept.is_some();
        let mut progress = kept.unwrap_or_else(|| new_progress(core, &call));
        let at_once = Deadline::after(Duration::ZERO);
        let failed = match core.prepare(&plan, call.flags, &mut progress, at_once) {
            Ok(way) => match self.post(core, &call, &way) {
                Ok(Some(post)) => {
                    let unit = plan.unit(progress.from);
                    call.lock().progress = tried_before.then_some(progress);
                    return self.fly(core, &call, unit, way, post);
                }
                Ok(None) => None,
                Err(error) => {
                    let outcome = Err(Failure::unsent(error));
                    core.conclude(&plan, call.flags, &mut progress, way, outcome).err()
                }
            },
            Err(Failed::ForNow(error)) if is_patient(&error) => {
                if error.status() == Status::Fenced {
                    core.service.freshen();
                }
                None
            }
            Err(failed) => Some(failed),
        };
        let Some(failed) = failed else {
            call.lock().progress = tried_before.then_some(progress);
            return Start::Later(Waiting { call, outcome: None, pause: None }, LOOK);
        };
        match again_or_over(core, &call, &plan, progress, failed) {
            Some(waiting) => Start::Later(waiting, Duration::ZERO),
            None => Start::Gone,
        }
    }

    /// The lane for a call; `None`: not yet.
    fn post(&self, core: &Core, call: &Call, way: &Way) -> crate::error::Result<Option<Arc<Post>>> {
        let traffic = call.facts.traffic;
        if let Some(post) = way.route.pool.post(traffic) {
            return Ok(Some(post));
        }
        let openings = OPENING.get_or_make(AtomicUsize::default);
        let _turn = Turn(openings);
        if openings.fetch_add(1, Ordering::AcqRel) >= OPENINGS {
            return Ok(None);
        }
        let limit = core.settings().timeout_connect;
        way.route.pool.open_post(traffic, call.deadline.within(limit))
    }

    fn fly(self: &Arc<Self>, core: &Arc<Core>, call: &Arc<Call>, unit: Unit<'_>, way: Way, post: Arc<Post>) -> Start {
        let traffic = call.facts.traffic;
        let later = || Waiting { call: Arc::clone(call), outcome: None, pause: None };
        if !self.lock().board(&post, traffic, 1, self.number) {
            // Whoever ends the last of those that fly tells.
            return Start::Later(later(), LOOK);
        }
        let address = call.address();
        if let Some((queue, _)) = &address {
            attach(queue, &post);
        }
        if traffic == Traffic::Apart {
            core.note_blocking(post.lane().socket());
        }
        let deadline = if traffic == Traffic::Plain { way.route.share_of(call.deadline) } else { call.deadline };
        let (own, list, once, replicas) = (unit.bytes.len(), unit.list, unit.once, way.replicas);
        let flight = Flight { way, post: Arc::clone(&post), own, list };
        let started = if replicas > 0 {
            let bytes = durable::with_wait(unit, replicas, deadline);
            let unit = Unit { bytes: Bytes::Raw(&bytes), list: Some(list.unwrap_or(1) + 1), once };
            call.start(unit, deadline, flight, None)
        } else {
            call.start(unit, deadline, flight, None)
        };
        if !started {
            if traffic == Traffic::Apart {
                core.forget_blocking(post.lane().socket());
                post.release(None);
            }
            self.lock().flying -= 1;
            return Start::Later(later(), Duration::ZERO);
        }
        if let Some((queue, token)) = address.filter(|(queue, token)| queue.is_cancelled(*token)) {
            post.lane().cancel(queue.id(), token);
        }
        Start::Gone
    }
}

impl State {
    fn insert(&mut self, waiting: Waiting) {
        let order = waiting.call.order;
        let at = self.waiting.iter().rposition(|other| other.call.order < order).map_or(0, |last| last + 1);
        self.waiting.insert(at, waiting);
    }

    fn board(&mut self, post: &Arc<Post>, traffic: Traffic, calls: usize, line: usize) -> bool {
        if line == PRIMARY {
            let last = &mut self.last[traffic as usize];
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, post)) {
                if self.flying > 0 {
                    return false;
                }
                *last = Some(Arc::clone(post));
            }
        }
        self.flying += calls;
        true
    }

    fn forget_ended(&mut self) -> [Option<Arc<Post>>; 3] {
        self.last.each_mut().map(|last| last.take_if(|post| post.lane().is_dead()))
    }

    /// When the next call in the line has no time left.
    fn next_end(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.call.deadline.end()).min()
    }
}

/// Judges an attempt that is over; what is to be tried again comes back.
fn judge(core: &Arc<Core>, waiting: Waiting, way: Way, outcome: Outcome) -> Option<Waiting> {
    let call = waiting.call;
    let kept = call.lock().progress.take();
    let mut progress = kept.unwrap_or_else(|| new_progress(core, &call));
    let plan = match call.plan() {
        Ok(plan) => plan,
        Err(error) => {
            call.end(Err(error));
            return None;
        }
    };
    match core.conclude(&plan, call.flags, &mut progress, way, outcome) {
        Ok((reply, pool)) => {
            call.end(Ok((progress.whole(reply), pool)));
            None
        }
        Err(failed) => again_or_over(core, &call, &plan, progress, failed),
    }
}

/// What follows from a failed attempt, as in the loop of a call that somebody waits for.
fn again_or_over(
    core: &Core,
    call: &Arc<Call>,
    plan: &Plan<'_>,
    mut progress: Box<Progress>,
    failed: Failed,
) -> Option<Waiting> {
    let error = match failed {
        Failed::ForGood(error) => {
            call.end(core.end(plan, *progress, error));
            return None;
        }
        Failed::ForNow(error) => progress.most_telling(error),
    };
    let cancelled = is_cancelled(call);
    if call.deadline.is_over() || core.is_closed() || progress.is_out_of_retries() || cancelled {
        let error = if cancelled { as_cancelled(error) } else { error };
        call.end(core.end(plan, *progress, error));
        return None;
    }
    core.count_retry();
    let version = core.service.version();
    let pause = progress.pause().map(|pause| (Instant::now() + pause, version));
    call.lock().progress = Some(progress);
    Some(Waiting { call: Arc::clone(call), outcome: None, pause })
}

/// Ends a call that has not started: with what stood in its way.
fn end_now(core: &Arc<Core>, call: &Arc<Call>) {
    let kept = call.lock().progress.take();
    let mut progress = kept.unwrap_or_else(|| new_progress(core, call));
    let result = call.plan().and_then(|plan| {
        if is_cancelled(call) {
            return core.end(
                &plan,
                *progress,
                as_cancelled(Error::new(Status::Cancelled, "cancelled before it began")),
            );
        }
        core.check_open()?;
        let error = match core.prepare(&plan, call.flags, &mut progress, call.deadline) {
            Err(Failed::ForGood(error) | Failed::ForNow(error)) => error,
            Ok(_) => {
                let text = "not sent: no connection was free in time";
                Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
            }
        };
        let error = progress.most_telling(error);
        core.end(&plan, *progress, error)
    });
    call.end(result);
}

fn new_progress(core: &Core, call: &Call) -> Box<Progress> {
    Box::new(Progress::new(core.settings().retry, call.deadline))
}

/// What a call waits out in its line, until its own deadline.
fn is_patient(error: &Error) -> bool {
    matches!(error.status(), Status::Timeout | Status::Fenced)
}

fn is_cancelled(call: &Call) -> bool {
    call.address().is_some_and(|(queue, token)| queue.is_cancelled(token))
}

fn as_cancelled(error: Error) -> Error {
    error.with_status(Status::Cancelled).without_flags(flags::RETRYABLE)
}

/// A line's turn to open a connection.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// If an errand panics the line has to be looked after again.
struct OnErrand<'a>(&'a Arc<Line>);

impl Drop for OnErrand<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.runs, state.in_hand) = (false, false);
        drop(state);
        self.0.kick();
    }
}

impl Source for Line {
    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn enter(&self) {}

    fn leave(&self) {}

    fn wants_write(&self) -> bool {
        false
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn tend(&self) -> Tended {
        Tended::Read
    }

    fn is_over(&self) -> bool {
        self.core.strong_count() == 0
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        let meant = |call: &Call| call.address().is_some_and(|(own, number)| own.id() == queue && number == token);
        let state = self.lock();
        let count = state.waiting.iter().filter(|waiting| meant(&waiting.call)).count();
        let line = self.core.upgrade().filter(|_| count > 0);
        drop(state);
        if let Some(core) = line {
            core.line(self.number).kick();
        }
        count
    }
}
