//! The line of submitted calls that cannot start at once: no primary, a fence, no connection yet, or something went wrong and they are
//! to be tried again.
//!
//! Guarantees: calls for the primary start in the order of their submission, also after a failure: a newer one never overtakes one that
//! did not run (rule 23). A call leaves at its deadline, when it is cancelled, and when the time of a close is over, whatever those before
//! it wait for. Nothing here waits: connections are opened by jobs of their own, two at a time in the process, so that hosts that
//! vanish never hold up what asks the Sentinels. What a call costs here does not grow with how many there are. Leaves to others: what
//! an outcome means, and when a write is held back (exec, hold, judge).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::core::{Core, lock};
use super::durable;
use super::exec::{Failed, Progress, Way};
use super::plan::Plan;
use super::route::Route;
use super::scan;
use super::submit::{Call, Flight, attach};
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Completion, Failure, Outcome, Unit};
use crate::pool::{Pool, Post, Traffic};
use crate::queue::{Source, Tended};
use crate::sys::fork::PerProcess;
use crate::time::Deadline;
use crate::worker;

/// The lines of a client: for the primary, for replicas, for calls that block a connection of their own.
pub(super) const PRIMARY: usize = 0;
pub(super) const REPLICAS: usize = 1;
pub(super) const APART: usize = 2;
pub(super) const LINES: usize = 3;

/// How often a line that waits for a place looks again.
const LOOK: Duration = Duration::from_millis(5);
/// The same of one that waits for a primary or for the fence, and is told when a discovery has ended, or the fence has come down.
const LOOK_TOLD: Duration = Duration::from_millis(50);
/// The longest pause between two looks, because a timer that nobody needs any more keeps a thread.
const LONGEST: Duration = Duration::from_millis(500);
/// Connections that lines open at the same time, in the process.
const OPENINGS: usize = 2;
/// A replica whose connection takes longer than this to open is passed over meanwhile.
const SLUGGISH: Duration = Duration::from_millis(10);
/// After so many starts the line looks again who has no time left.
const STARTS: usize = 256;

static OPENING: PerProcess<AtomicUsize> = PerProcess::new();

/// Calls that wait for their start, or for a judgement.
pub(super) struct Line {
    core: Weak<Core>,
    number: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the order of their submission.
    waiting: BTreeMap<u64, Waiting>,
    /// Attempts that are over and not judged yet.
    back: VecDeque<(Arc<Call>, Way, Outcome)>,
    /// The errand has one in its hand: nothing may overtake it.
    in_hand: bool,
    /// Connections that are being opened, each for the call of this order.
    openings: Vec<Opening>,
    /// Calls up to this number in the order of submission were held back.
    held_to: Option<u64>,
    /// No call that waits has to be ended before this, unless one was cancelled.
    next_end: Option<Instant>,
    cancelled: bool,
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

struct Opening {
    order: u64,
    pool: Arc<Pool>,
    since: Instant,
}

struct Waiting {
    call: Arc<Call>,
    /// Pause until then, or until the topology has another version.
    pause: Option<(Instant, u64)>,
    /// The connection that was opened for it.
    opened: Option<Opened>,
    cancelled: bool,
    /// It has been held back, or waited behind one that was.
    held: bool,
}

/// A connection that was opened for a call, which takes it unless the topology has changed meanwhile.
struct Opened {
    route: Route,
    version: u64,
    /// Given back if it is not taken.
    post: Option<Arc<Post>>,
    apart: bool,
}

/// What became of a start.
enum Start {
    /// It flies, or it is over.
    Gone,
    /// It has to wait, so long at the most.
    Later(Waiting, Duration),
    /// A connection has to be opened for it.
    Opens(Waiting, Way, Turn),
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
        !state.is_awaited(self.number) && state.board(post, traffic, calls, self.number)
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
        let waited_for = landed && state.has_work();
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
        let mut state = self.lock();
        match outcome {
            Some((way, outcome)) => state.back.push_back((call, way, outcome)),
            None => {
                let end = call.deadline.end();
                state.insert(Waiting::new(call));
                let is_behind = state.waiting.len() > 1 && !state.cancelled && !state.runs && self.number != REPLICAS;
                let is_watched = end.is_none_or(|end| state.alarm.is_some_and(|alarm| alarm <= end));
                if is_behind && is_watched {
                    // Whoever looks after the first one looks after this one too.
                    return;
                }
            }
        }
        self.see_to_it(state);
    }

    /// Has a worker look after the line now.
    pub(super) fn kick(self: &Arc<Self>) {
        self.see_to_it(self.lock());
    }

    fn see_to_it(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.runs {
            state.again = true;
        } else if state.has_work() {
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
        let (waiting, back) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.back));
        state.next_end = None;
        drop(state);
        let error = || Error::from_io(Status::Io, "no thread to start a submitted call", error);
        waiting.into_values().for_each(|waiting| over(&waiting.call, error().with_flags(flags::RETRYABLE)));
        for (call, _, outcome) in back {
            let maybe = outcome.map_or_else(|failure| failure.sent > 0, |_| true);
            over(&call, error().with_flags(if maybe { flags::MAYBE_EXECUTED } else { flags::RETRYABLE }));
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
        // Without its client a line does nothing more.
        if let Err(error) = worker::after(at.saturating_duration_since(Instant::now()), Weak::clone(&self.core), ring) {
            self.give_up(&error);
        }
    }

    /// Judges what came back, ends what is over, starts what can be started; how long to wait for the rest.
    fn round(self: &Arc<Self>, core: &Arc<Core>) -> Option<Duration> {
        while let Some((call, way, outcome)) = self.take_back() {
            let waiting = judge(core, call, way, outcome);
            self.put_back(waiting);
        }
        self.take_over(core).iter().for_each(|(call, held)| end_now(call, *held));
        let (mut look, mut starts) = (None, 0);
        while let Some(waiting) = self.take_front() {
            let pause = waiting.pause.filter(|(_, version)| *version == core.service.version());
            let left = pause.map_or(Duration::ZERO, |(until, _)| until.saturating_duration_since(Instant::now()));
            let start = if left.is_zero() { self.start(core, waiting) } else { Start::Later(waiting, left) };
            match start {
                Start::Gone => self.put_back(None),
                Start::Opens(waiting, way, turn) => self.open(waiting, way, turn),
                Start::Later(waiting, left) => {
                    self.put_back(Some(waiting));
                    look = Some(left);
                    break;
                }
            }
            starts += 1;
            if starts == STARTS {
                self.lock().again = true;
                break;
            }
        }
        let end = self.lock().next_end;
        let until_end = end.map(|end| end.saturating_duration_since(Instant::now()));
        let pause = [look, until_end].into_iter().flatten().min();
        pause.map(|pause| pause.clamp(Duration::from_micros(100), LONGEST))
    }

    fn take_back(&self) -> Option<(Arc<Call>, Way, Outcome)> {
        let mut state = self.lock();
        let back = state.back.pop_front()?;
        state.in_hand = true;
        Some(back)
    }

    /// The first call that can start. For the primary, and of those that block, no other one goes before it.
    fn take_front(&self) -> Option<Waiting> {
        let mut state = self.lock();
        // What came back meanwhile is judged first: it was submitted earlier than what waits behind it.
        if !state.back.is_empty() {
            state.again = true;
            return None;
        }
        let is_opening = |order: &u64| state.openings.iter().any(|opening| opening.order == *order);
        let order = match self.number {
            REPLICAS => *state.waiting.keys().find(|order| !is_opening(order))?,
            _ => *state.waiting.keys().next().filter(|order| !is_opening(order))?,
        };
        let mut front = state.remove(order)?;
        front.held = state.was_held(order);
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

    /// Takes out what has no time left, was cancelled, or belongs to a client whose close is over.
    fn take_over(&self, core: &Core) -> Vec<(Arc<Call>, bool)> {
        // What blocks ends at once at a close, and the rest when its time is over.
        let all = core.is_ended() || (self.number == APART && core.is_closed());
        let (now, mut over) = (Instant::now(), Vec::new());
        let mut state = self.lock();
        let cancelled = std::mem::take(&mut state.cancelled);
        if !all && !cancelled && state.next_end.is_none_or(|end| end > now) {
            return over;
        }
        let (mut next_end, held_to) = (None, state.held_to);
        state.waiting.retain(|order, waiting| {
            let end = waiting.call.deadline.end();
            let ends = all || waiting.cancelled || end.is_some_and(|end| end <= now);
            if ends {
                over.push((Arc::clone(&waiting.call), Some(*order) <= held_to));
            } else {
                next_end = [next_end, end].into_iter().flatten().min();
            }
            !ends
        });
        state.next_end = next_end;
        over
    }

    /// Tries to start a call.
    fn start(self: &Arc<Self>, core: &Arc<Core>, mut waiting: Waiting) -> Start {
        let opened = waiting.opened.take();
        let call = Arc::clone(&waiting.call);
        let kept = call.lock().progress.take();
        let plan = match call.plan() {
            Ok(plan) => plan,
            Err(error) => {
                call.end(Err(error));
                return Start::Gone;
            }
        };
        let tried_before = kept.is_some();
        let mut progress = kept.unwrap_or_else(|| new_progress(&call));
        if waiting.held {
            progress.held.note();
        }
        let at_once = Deadline::after(Duration::ZERO);
        let failed = match core.prepare(&plan, call.flags, &mut progress, at_once) {
            Ok(way) => {
                let (way, post) = Opened::take(opened, way, call.traffic());
                let unit = Unit { gate: core.lease(&plan), ..plan.unit(progress.from) };
                call.lock().progress = tried_before.then_some(progress);
                return match post {
                    Some(post) => self.fly(core, waiting, unit, way, post),
                    None => self.await_post(waiting, way),
                };
            }
            Err(Failed::ForNow(error)) if is_patient(&error) => {
                if error.status() == Status::Fenced {
                    self.lock().hold(call.order);
                    // What holds it back may be the majority.
                    core.service.attend_fence();
                    core.service.freshen();
                }
                call.lock().progress = tried_before.then_some(progress);
                return Start::Later(waiting, LOOK_TOLD);
            }
            Err(failed) => failed,
        };
        match again_or_over(core, &call, &plan, progress, failed) {
            Some(waiting) => Start::Later(waiting, Duration::ZERO),
            None => Start::Gone,
        }
    }

    /// There is no lane for a call: one has to be opened, or is being opened.
    fn await_post(&self, waiting: Waiting, way: Way) -> Start {
        let state = self.lock();
        let opening = state.openings.iter().find(|opening| Arc::ptr_eq(&opening.pool, &way.route.pool));
        if let Some(opening) = opening {
            let is_sluggish = opening.since.elapsed() > SLUGGISH && way.route.alternatives > 0;
            return match way.route.reader.filter(|_| is_sluggish) {
                Some(reader) => {
                    // The others have the reads meanwhile.
                    let text = format!("no connection within {} ms", opening.since.elapsed().as_millis());
                    reader.rest(&Error::new(Status::Connect, text));
                    Start::Later(waiting, Duration::ZERO)
                }
                None => Start::Later(waiting, LOOK),
            };
        }
        drop(state);
        match Turn::take() {
            Some(turn) => Start::Opens(waiting, way, turn),
            None => Start::Later(waiting, LOOK),
        }
    }

    /// Has a connection opened for a call, which keeps its place meanwhile.
    fn open(self: &Arc<Self>, waiting: Waiting, way: Way, turn: Turn) {
        let call = Arc::clone(&waiting.call);
        let opening = Opening { order: call.order, pool: Arc::clone(&way.route.pool), since: Instant::now() };
        let mut state = self.lock();
        state.openings.push(opening);
        state.insert(waiting);
        state.in_hand = false;
        drop(state);
        let job = OpeningJob { line: Arc::clone(self), call, way: Some(way), result: None, _turn: turn };
        // Without a thread for it the job is dropped, and tells that itself.
        let _ = worker::run(move || job.run());
    }

    /// A connection was opened for a call, or not.
    fn opened(self: &Arc<Self>, call: &Arc<Call>, way: Way, result: Result<Option<Arc<Post>>>) {
        let mut state = self.lock();
        state.openings.retain(|opening| opening.order != call.order);
        let unused = match result {
            Ok(post) => {
                let apart = call.traffic() == Traffic::Apart;
                let look = (Instant::now() + LOOK, way.version);
                let opened =
                    post.map(|post| Opened { route: way.route, version: way.version, post: Some(post), apart });
                match state.waiting.get_mut(&call.order) {
                    Some(waiting) => {
                        // There was no place: later there may be one.
                        waiting.pause = opened.is_none().then_some(look);
                        waiting.opened = opened;
                        None
                    }
                    None => opened,
                }
            }
            Err(error) => {
                if let Some(waiting) = state.remove(call.order) {
                    state.back.push_back((waiting.call, way, Err(Failure::unsent(error))));
                }
                None
            }
        };
        self.see_to_it(state);
        drop(unused);
    }

    fn fly(self: &Arc<Self>, core: &Arc<Core>, waiting: Waiting, unit: Unit<'_>, way: Way, post: Arc<Post>) -> Start {
        let call = &waiting.call;
        let traffic = call.traffic();
        if !self.lock().board(&post, traffic, 1, self.number) {
            // Whoever ends the last of those that fly tells.
            return Start::Later(waiting, LOOK);
        }
        let address = call.address();
        if let Some((queue, _)) = &address {
            attach(queue, &post);
        }
        if call.facts.traffic == Traffic::Apart {
            core.note_blocking(post.lane().socket());
        }
        let deadline = call.share(&way.route);
        let (own, list, once, gate, replicas) = (unit.bytes.len(), unit.list, unit.once, unit.gate, way.replicas);
        let asks = way.trip.as_ref().is_some_and(|trip| trip.asks);
        let flight = Flight { way, post: Arc::clone(&post), own, list };
        let started = if replicas > 0 {
            match durable::with_wait(unit, replicas, deadline) {
                Ok(bytes) => {
                    let unit = Unit { bytes: Bytes::Raw(&bytes), list: Some(list.unwrap_or(1) + 1), once, gate };
                    call.start(unit, deadline, flight, None)
                }
                Err(error) => call.end_flight(flight, error),
            }
        } else if asks {
            match scan::asking(unit) {
                Ok(bytes) => call.start(scan::with_question(&bytes, unit), deadline, flight, None),
                Err(error) => call.end_flight(flight, error),
            }
        } else {
            call.start(unit, deadline, flight, None)
        };
        if !started {
            if traffic == Traffic::Apart {
                core.forget_blocking(post.lane().socket());
                post.release(None);
            }
            self.lock().flying -= 1;
            return Start::Later(waiting, Duration::ZERO);
        }
        if let Some((queue, token)) = address.filter(|(queue, token)| queue.is_cancelled(*token)) {
            post.lane().cancel(queue.id(), token);
        }
        Start::Gone
    }
}

impl Waiting {
    fn new(call: Arc<Call>) -> Self {
        Self { call, pause: None, opened: None, cancelled: false, held: false }
    }
}

impl Opened {
    /// The lane for a call that goes this way: the one that was opened for it, or one that is open; `None`: not yet.
    fn take(opened: Option<Self>, way: Way, traffic: Traffic) -> (Way, Option<Arc<Post>>) {
        let fits = |opened: &Self| opened.version == way.version && !opened.route.pool.is_retired();
        if let Some(mut opened) = opened.filter(fits) {
            let post = opened.post.take();
            return (Way { route: opened.route.clone(), ..way }, post);
        }
        let post = way.route.pool.post(traffic);
        (way, post)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(post) = self.post.take().filter(|_| self.apart) {
            post.release(None);
        }
    }
}

impl State {
    fn insert(&mut self, mut waiting: Waiting) {
        // Who cancels notes it before it looks here: one of the two finds the other.
        waiting.cancelled |= is_cancelled(&waiting.call);
        self.cancelled |= waiting.cancelled;
        self.next_end = [self.next_end, waiting.call.deadline.end()].into_iter().flatten().min();
        self.waiting.insert(waiting.call.order, waiting);
    }

    fn remove(&mut self, order: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&order);
        if self.waiting.is_empty() {
            self.next_end = None;
        }
        waiting
    }

    /// This call is held back, and with it all that wait behind it.
    fn hold(&mut self, order: u64) {
        let last = self.waiting.last_key_value().map(|(order, _)| *order);
        self.held_to = self.held_to.max(last).max(Some(order));
    }

    fn was_held(&self, order: u64) -> bool {
        Some(order) <= self.held_to
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.back.is_empty()
    }

    /// Whether a new call has to wait for those in the line. Reads of other replicas need not wait for one that is being opened.
    fn is_awaited(&self, line: usize) -> bool {
        let is_opening = |order: &u64| self.openings.iter().any(|opening| opening.order == *order);
        let only_openings = line == REPLICAS && self.waiting.keys().all(is_opening);
        self.in_hand || !self.back.is_empty() || !(self.waiting.is_empty() || only_openings)
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
}

/// Judges an attempt that is over; what is to be tried again comes back.
fn judge(core: &Arc<Core>, call: Arc<Call>, way: Way, outcome: Outcome) -> Option<Waiting> {
    let kept = call.lock().progress.take();
    let mut progress = kept.unwrap_or_else(|| new_progress(&call));
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
    let pause = progress.pause().map(|pause| (Instant::now() + core.service.pause(pause), version));
    let mut state = call.lock();
    state.alone = progress.goes_alone();
    state.progress = Some(progress);
    drop(state);
    Some(Waiting { pause, ..Waiting::new(Arc::clone(call)) })
}

/// Ends a call that has not started: with what stood in its way, or what is known of earlier attempts.
fn end_now(call: &Arc<Call>, held: bool) {
    let core = call.core();
    if is_cancelled(call) {
        return over(call, as_cancelled(Error::new(Status::Cancelled, "cancelled before it began")));
    }
    if let Err(closed) = core.check_open() {
        return over(call, closed);
    }
    let kept = call.lock().progress.take();
    let mut progress = kept.unwrap_or_else(|| new_progress(call));
    if held {
        progress.held.note();
    }
    let result = call.plan().and_then(|plan| {
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

/// Ends a call with an error, and with what is known of its earlier attempts.
fn over(call: &Arc<Call>, error: Error) {
    let kept = call.lock().progress.take();
    let progress = kept.unwrap_or_else(|| new_progress(call));
    call.end(call.plan().and_then(|plan| call.core().end(&plan, *progress, error)));
}

fn new_progress(call: &Call) -> Box<Progress> {
    Box::new(Progress::new(call.core().settings().retry, call.deadline))
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
struct Turn(&'static AtomicUsize);

impl Turn {
    fn take() -> Option<Self> {
        let turn = Self(OPENING.get_or_make(AtomicUsize::default));
        (turn.0.fetch_add(1, Ordering::AcqRel) < OPENINGS).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens a connection for a call; however that ends, a panic included, the line is told.
struct OpeningJob {
    line: Arc<Line>,
    call: Arc<Call>,
    way: Option<Way>,
    result: Option<Result<Option<Arc<Post>>>>,
    _turn: Turn,
}

impl OpeningJob {
    fn run(mut self) {
        // The connection is not for this call alone: its deadline ends the call, and not the opening.
        let limit = self.call.core().settings().timeout_connect;
        if let Some(way) = &self.way {
            self.result = Some(way.route.pool.open_post(self.call.traffic(), Deadline::after(limit)));
        }
    }
}

impl Drop for OpeningJob {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            self.line.opened(&self.call, way, self.result.take().unwrap_or(Ok(None)));
        }
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
    fn tend(&self) -> Tended {
        Tended::Read
    }

    fn is_over(&self) -> bool {
        self.core.strong_count() == 0
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        let mut state = self.lock();
        let mut count = 0;
        for waiting in state.waiting.values_mut().filter(|waiting| waiting.call.is(queue, token)) {
            waiting.cancelled = true;
            count += 1;
        }
        count += state.back.iter().filter(|(call, ..)| call.is(queue, token)).count();
        state.cancelled |= count > 0;
        let core = self.core.upgrade().filter(|_| count > 0);
        drop(state);
        if let Some(core) = core {
            core.line(self.number).kick();
        }
        count
    }
}
