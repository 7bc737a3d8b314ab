//! The queue of submitted calls that cannot start at once: there is no primary, the gate is shut, there is no connection yet, or an
//! attempt has failed and another one follows.
//!
//! Guarantees: calls start in the order that `order` keeps, also after a failure (rule 23). A call ends at its deadline, when it is
//! cancelled, and when the time of a close is over, whatever the calls before it wait for. Nothing here waits, and one thread at a
//! time runs a queue. The cost of a call does not grow with the number of waiting calls. Leaves to others: what an outcome means,
//! and when writes wait (call), opening connections (opening).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::call::{Call, InFlight, attach};
use super::opening;
use super::order::{OrderClass, StartOrder, Unjudged};
use crate::call::durable::{self, Need};
use crate::call::{Attempt, Facts, Next, Step, Way, conclude, end, gate, prepare};
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Completion, Failure, Outcome, Unit, transaction};
use crate::plan::Plan;
use crate::pool::{Pool, SubmitLane, Traffic};
use crate::queue::{Address, Driven, Source};
use crate::route::{Context, Route, Router, asking, with_question};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use crate::time::Deadline;
use crate::worker;

/// How often a queue that waits for a connection is run.
const LOOK: Duration = Duration::from_millis(5);
/// How often a queue that waits for a primary or at the gate is run. It is also woken when a discovery ends and when the fence
/// comes down.
const LOOK_TOLD: Duration = Duration::from_millis(50);
/// The longest pause between two runs, because a timer that is no longer needed still keeps a thread.
const LONGEST: Duration = Duration::from_millis(500);
/// A replica whose connection takes longer to open is skipped in the meantime.
const SLUGGISH: Duration = Duration::from_millis(10);
/// After this many starts a run ends the calls whose deadline has come before it goes on.
const STARTS: usize = 256;

/// Calls of one class that wait to be started or judged.
pub(crate) struct PendingQueue {
    router: Weak<Router>,
    class: OrderClass,
    state: Lock<PendingState>,
    me: Weak<Self>,
}

struct PendingState {
    order: StartOrder<Waiting, Returned, Connection>,
    /// The call that is being handled: it neither waits nor has come back.
    in_hand: Option<Arc<Call>>,
    /// The connections that are being opened.
    openings: Vec<Opening>,
    /// No waiting call has to be ended before this, unless one was cancelled.
    next_end: Option<Instant>,
    cancelled: bool,
    /// A worker runs the queue, and was asked to run it again.
    runs: bool,
    again: bool,
    /// When the queue is run next.
    alarm: Option<Instant>,
}

/// An attempt that is over and not judged yet.
type Returned = (Arc<Call>, Way, Outcome);

/// The connection of calls in flight.
#[derive(Clone)]
struct Connection(Arc<SubmitLane>);

struct Opening {
    order: u64,
    pool: Arc<Pool>,
    since: Instant,
}

struct Waiting {
    call: Arc<Call>,
    /// Not started before this, unless the topology has another version.
    pause: Option<(Instant, u64)>,
    /// The node that was chosen at its submission, and the version of the topology: only a connection was lacking.
    chosen: Option<(Route, u64)>,
    /// The connection that was opened for it.
    opened: Option<Opened>,
    cancelled: bool,
}

/// A connection that was opened for a call, which uses it unless the topology has changed.
struct Opened {
    route: Route,
    version: u64,
    /// Released if it is not used.
    submit_lane: Option<Arc<SubmitLane>>,
    own: bool,
}

/// The result of trying to start a call.
enum Start {
    /// The call is in flight, or over.
    Gone,
    /// It has to wait, at most this long.
    Later(Waiting, Duration),
    /// A connection has to be opened for it.
    Opens(Waiting, Way),
    /// Its connection has to be asked whether it carries transactions.
    Asks(Waiting, Way, Arc<SubmitLane>),
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PendingQueue {
    pub(super) fn new(router: Weak<Router>, class: OrderClass) -> Arc<Self> {
        let state = PendingState {
            order: StartOrder::new(class),
            in_hand: None,
            openings: Vec::new(),
            next_end: None,
            cancelled: false,
            runs: false,
            again: false,
            alarm: None,
        };
        let state = Lock::new(Rank::Pending, state);
        Arc::new_cyclic(|me| Self { router, class, state, me: Weak::clone(me) })
    }

    fn lock(&self) -> Locked<'_, PendingState> {
        self.state.lock()
    }

    /// Counts calls that are about to start on this connection. False: other calls wait before them, or are in flight on another
    /// connection and have to end first.
    pub(super) fn begin(&self, submit_lane: &Arc<SubmitLane>, traffic: Traffic, calls: usize) -> bool {
        self.lock().order.begin_new(&Connection(Arc::clone(submit_lane)), traffic as usize, calls)
    }

    /// Counts calls that have ended, have come back, or were not started after all.
    #[inline]
    pub(super) fn finish(self: &Arc<Self>, calls: usize) {
        if calls == 0 {
            return;
        }
        let mut state = self.lock();
        let all = state.order.finish(calls);
        let waited_for = all && state.order.has_work();
        // A lane that has ended must not keep its descriptor only because it was the last one used.
        let ended = if all { state.order.forget(|last| last.0.lane().is_dead()) } else { Default::default() };
        drop(state);
        drop(ended);
        if waited_for {
            self.wake();
        }
    }

    /// Adds a call, in the order of submission. `chosen`: the node that was chosen for it, and the version of the topology.
    pub(super) fn push(self: &Arc<Self>, call: Arc<Call>, chosen: Option<(Route, u64)>) {
        let mut state = self.lock();
        let end = call.deadline.end();
        state.insert(call.order, Waiting { chosen, ..Waiting::new(call) });
        let is_behind =
            state.order.waiting() > 1 && !state.cancelled && !state.runs && self.class != OrderClass::Replicas;
        let is_watched = end.is_none_or(|end| state.alarm.is_some_and(|alarm| alarm <= end));
        // The run that the first waiting call is due for serves this one as well.
        if !(is_behind && is_watched) {
            self.look_after(state);
        }
    }

    /// Adds a call whose attempt is over and has to be judged.
    pub(super) fn come_back(self: &Arc<Self>, call: Arc<Call>, way: Way, outcome: Outcome) {
        let mut state = self.lock();
        state.order.come_back((call, way, outcome));
        self.look_after(state);
    }

    /// Has a worker run the queue now.
    pub(crate) fn wake(self: &Arc<Self>) {
        self.look_after(self.lock());
    }

    fn look_after(self: &Arc<Self>, mut state: Locked<'_, PendingState>) {
        if state.runs {
            state.again = true;
        } else if state.order.has_work() {
            state.runs = true;
            drop(state);
            let queue = Arc::clone(self);
            if let Err(error) = worker::run(move || queue.run()) {
                self.give_up(&error);
            }
        }
    }

    /// Ends all calls, because there is no thread to try them again.
    fn give_up(&self, error: &std::io::Error) {
        let mut state = self.lock();
        state.runs = false;
        let (waiting, returned) = state.order.take_all();
        state.next_end = None;
        drop(state);
        let error = || Error::from_io(Status::Io, "no thread to start a submitted call", error);
        waiting.into_values().for_each(|waiting| over(&waiting.call, error().with_flags(flags::RETRYABLE)));
        for (call, _, outcome) in returned {
            let maybe = outcome.map_or_else(|failure| failure.sent > 0, |_| true);
            over(&call, error().with_flags(if maybe { flags::MAYBE_EXECUTED } else { flags::RETRYABLE }));
        }
    }

    /// Runs the queue on a worker: does what can be done now, and sets a timer for the rest.
    fn run(self: &Arc<Self>) {
        let unfinished = Unfinished(self);
        loop {
            let pause = match self.router.upgrade() {
                Some(router) => self.round(&router),
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
        std::mem::forget(unfinished);
    }

    fn set_alarm(self: &Arc<Self>, mut state: Locked<'_, PendingState>, at: Instant) {
        if state.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        state.alarm = Some(at);
        drop(state);
        let queue = Arc::clone(self);
        let ring = move || {
            let mut state = queue.lock();
            if state.alarm == Some(at) {
                state.alarm = None;
            }
            drop(state);
            queue.wake();
        };
        let delay = at.saturating_duration_since(Instant::now());
        // The timer is dropped together with the client.
        if let Err(error) = worker::after(delay, Weak::clone(&self.router), ring) {
            self.give_up(&error);
        }
    }

    /// Judges calls that came back, ends calls that are over, and starts those that can be started. Returns how long to wait for
    /// the rest.
    fn round(self: &Arc<Self>, router: &Arc<Router>) -> Option<Duration> {
        while let Some((call, way, outcome)) = self.take_returned() {
            let waiting = judge(router, call, way, outcome);
            self.put_back(waiting);
        }
        self.take_over(&router.context).iter().for_each(|(call, gated)| end_now(router, call, *gated));
        let (mut look, mut starts) = (None, 0);
        while let Some((waiting, gated)) = self.take_next() {
            let pause = waiting.pause.filter(|(_, version)| *version == router.context.service.version());
            let left = pause.map_or(Duration::ZERO, |(until, _)| until.saturating_duration_since(Instant::now()));
            let start = if left.is_zero() { self.start(router, waiting, gated) } else { Start::Later(waiting, left) };
            match start {
                Start::Gone => self.put_back(None),
                Start::Opens(waiting, way) => self.open(waiting, way),
                Start::Asks(waiting, way, submit_lane) => self.ask(waiting, way, submit_lane),
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

    fn take_returned(&self) -> Option<Returned> {
        let mut state = self.lock();
        let returned = state.order.take_returned()?;
        state.in_hand = Some(Arc::clone(&returned.0));
        Some(returned)
    }

    fn take_next(&self) -> Option<(Waiting, bool)> {
        let mut state = self.lock();
        match state.order.take_next() {
            Ok(next) => {
                state.note_removal();
                state.in_hand = next.as_ref().map(|(_, waiting, _)| Arc::clone(&waiting.call));
                next.map(|(_, waiting, gated)| (waiting, gated))
            }
            Err(Unjudged) => {
                state.again = true;
                None
            }
        }
    }

    fn put_back(&self, waiting: Option<Waiting>) {
        let mut state = self.lock();
        if let Some(waiting) = waiting {
            state.insert(waiting.call.order, waiting);
        }
        state.order.put_back(None);
        let looked_at = state.in_hand.take();
        drop(state);
        drop(looked_at);
    }

    /// Takes out the calls whose deadline has come, that were cancelled, or whose client's close is over. Each comes with whether
    /// it had to wait at the gate.
    fn take_over(&self, context: &Context) -> Vec<(Arc<Call>, bool)> {
        // A close ends blocking calls at once, and the others when its time is over.
        let all = context.is_ended() || (self.class == OrderClass::Blocking && context.is_closed());
        let now = Instant::now();
        let mut state = self.lock();
        let cancelled = std::mem::take(&mut state.cancelled);
        if !all && !cancelled && state.next_end.is_none_or(|end| end > now) {
            return Vec::new();
        }
        let (mut next_end, mut over) = (None, Vec::new());
        state.order.retain(|_, waiting| {
            let end = waiting.call.deadline.end();
            let ends = all || waiting.cancelled || end.is_some_and(|end| end <= now);
            if ends {
                over.push(Arc::clone(&waiting.call));
            } else {
                next_end = [next_end, end].into_iter().flatten().min();
            }
            !ends
        });
        state.next_end = next_end;
        over.into_iter().map(|call| (Arc::clone(&call), state.order.was_gated(call.order))).collect()
    }

    /// Tries to start a call.
    fn start(self: &Arc<Self>, router: &Arc<Router>, mut waiting: Waiting, gated: bool) -> Start {
        let (opened, chosen) = (waiting.opened.take(), waiting.chosen.take());
        let call = Arc::clone(&waiting.call);
        let plan = match call.plan() {
            Ok(plan) => plan,
            Err(error) => {
                call.end(Err(error));
                return Start::Gone;
            }
        };
        let mut attempt = call.take_attempt();
        if call.note_if_held_back() || gated {
            attempt.gate_wait.note();
        }
        if let Err(error) = attempt.may_begin(Instant::now()) {
            call.end(end(&router.context, &plan, &mut attempt, error));
            return Start::Gone;
        }
        let at_once = Deadline::after(Duration::ZERO);
        let step = match prepare(router, &plan, call.flags, &mut attempt, at_once) {
            Ok(way) => {
                let fits = |(route, version): &(Route, u64)| *version == way.version && !route.pool.is_retired();
                let way = match chosen.filter(fits) {
                    Some((route, _)) => Way { route, ..way },
                    None => way,
                };
                let (way, submit_lane) = Opened::take(opened, way, call.traffic());
                let unit = Unit { lease: gate::lease(&router.context, &plan), ..attempt.unit(&plan) };
                call.keep_attempt(attempt);
                return match submit_lane {
                    Some(submit_lane) if unit.atomic && !submit_lane.lane().carries_transactions() => {
                        Start::Asks(waiting, way, submit_lane)
                    }
                    Some(submit_lane) => self.begin_waiting(router, waiting, unit, way, submit_lane),
                    None => self.await_lane(waiting, way),
                };
            }
            Err(Step::Again(error)) if is_patient(&error) => {
                if error.status() == Status::Fenced {
                    self.lock().order.note_gated(call.order);
                    // The gate may be shut for want of a majority.
                    router.context.service.check_fence();
                    router.context.service.freshen();
                }
                call.keep_attempt(attempt);
                return Start::Later(waiting, LOOK_TOLD);
            }
            Err(step) => step,
        };
        match again_or_over(router, &call, &plan, attempt, step) {
            Some(waiting) => Start::Later(waiting, Duration::ZERO),
            None => Start::Gone,
        }
    }

    /// There is no lane for a call yet: it has to be opened, or is being opened.
    fn await_lane(&self, waiting: Waiting, way: Way) -> Start {
        let state = self.lock();
        let opening = state.openings.iter().find(|opening| Arc::ptr_eq(&opening.pool, &way.route.pool));
        if let Some(opening) = opening {
            let is_sluggish = opening.since.elapsed() > SLUGGISH && way.route.alternatives > 0;
            return match way.route.replica.filter(|_| is_sluggish) {
                Some(replica) => {
                    // Other replicas get the reads in the meantime.
                    let text = format!("no connection within {} ms", opening.since.elapsed().as_millis());
                    replica.cool_down(&Error::new(Status::Connect, text));
                    Start::Later(waiting, Duration::ZERO)
                }
                None => Start::Later(waiting, LOOK),
            };
        }
        Start::Opens(waiting, way)
    }

    /// Has a connection opened for a call. The call keeps its place.
    fn open(self: &Arc<Self>, waiting: Waiting, way: Way) {
        let call = Arc::clone(&waiting.call);
        let (order, pool, traffic) = (call.order, Arc::clone(&way.route.pool), call.traffic());
        let mut state = self.lock();
        state.openings.push(Opening { order, pool: Arc::clone(&pool), since: Instant::now() });
        state.insert(order, waiting);
        state.order.open(order);
        state.in_hand = None;
        drop(state);
        // Other calls may use the connection, too: the call's deadline ends the call, and not the opening.
        let limit = call.router().context.settings().timeout_connect;
        let queue = Arc::clone(self);
        opening::open(pool, traffic, limit, move |result| queue.opened(&call, way, result));
    }

    /// Asks a lane whether it carries transactions. The call keeps its place, as during the opening of a connection.
    fn ask(self: &Arc<Self>, waiting: Waiting, way: Way, submit_lane: Arc<SubmitLane>) {
        let call = Arc::clone(&waiting.call);
        if let Some(address) = call.address() {
            attach(&address.queue, &submit_lane);
        }
        let mut state = self.lock();
        state.insert(call.order, waiting);
        state.order.open(call.order);
        state.in_hand = None;
        drop(state);
        let deadline = call.share(&way.route);
        let asked = Asked { queue: Arc::clone(self), call, submit_lane: Arc::clone(&submit_lane), way };
        let question = Arc::new(Question { asked: Lock::new(Rank::Question, Some(asked)) });
        let completion = Arc::clone(&question) as Arc<dyn Completion>;
        if let Err(error) = submit_lane.start(transaction::question(), deadline, completion, None) {
            question.complete(Err(Failure::unsent(error)));
        }
    }

    /// Takes the result of an opening.
    fn opened(self: &Arc<Self>, call: &Arc<Call>, way: Way, result: opening::OpenResult) {
        let mut state = self.lock();
        state.openings.retain(|opening| opening.order != call.order);
        state.order.opened(call.order);
        let unused = match result {
            Ok(submit_lane) => {
                let own = call.traffic() == Traffic::Dedicated;
                let look = (Instant::now() + LOOK, way.version);
                let opened = submit_lane.map(|submit_lane| Opened {
                    route: way.route,
                    version: way.version,
                    submit_lane: Some(submit_lane),
                    own,
                });
                match state.order.get_mut(call.order) {
                    Some(waiting) => {
                        // The pool had no place. There may be one later.
                        waiting.pause = opened.is_none().then_some(look);
                        waiting.opened = opened;
                        None
                    }
                    None => opened,
                }
            }
            Err(error) => {
                if let Some(waiting) = state.order.remove(call.order) {
                    state.note_removal();
                    state.order.come_back((waiting.call, way, Err(Failure::unsent(error))));
                }
                None
            }
        };
        self.look_after(state);
        drop(unused);
    }

    /// Starts a call that has waited, if it may start on this connection.
    fn begin_waiting(
        self: &Arc<Self>,
        router: &Router,
        waiting: Waiting,
        unit: Unit<'_>,
        way: Way,
        submit_lane: Arc<SubmitLane>,
    ) -> Start {
        let call = &waiting.call;
        let traffic = call.traffic();
        if !self.lock().order.begin(&Connection(Arc::clone(&submit_lane)), traffic as usize, 1) {
            // The queue is woken by a call that comes back, and by the end of the last call in flight.
            return Start::Later(waiting, LOOK);
        }
        let address = call.address();
        if let Some(address) = &address {
            attach(&address.queue, &submit_lane);
        }
        if call.profile.traffic == Traffic::Dedicated {
            router.context.note_blocking(submit_lane.lane().socket());
        }
        if !send(call, unit, way, &submit_lane) {
            if traffic == Traffic::Dedicated {
                router.context.forget_blocking(submit_lane.lane().socket());
                submit_lane.release(None);
            }
            self.lock().order.finish(1);
            return Start::Later(waiting, Duration::ZERO);
        }
        if let Some((owner, token)) = address.filter(Address::is_cancelled).map(|address| address.owner()) {
            submit_lane.lane().cancel(owner, token);
        }
        Start::Gone
    }
}

/// Sends a call's unit, with the question in front of it or the WAIT behind it that it needs. False: the lane took nothing.
fn send(call: &Arc<Call>, unit: Unit<'_>, way: Way, submit_lane: &Arc<SubmitLane>) -> bool {
    let deadline = call.share(&way.route);
    let (need, asks) = (way.need, way.trip.as_ref().is_some_and(|trip| trip.asks));
    let checked = durable::check_server(need, &way.route.pool);
    let in_flight = InFlight { way, submit_lane: Arc::clone(submit_lane), own: unit.bytes.len(), list: unit.list };
    let extended = match (need, asks) {
        (Need::NONE, false) => return call.start(unit, deadline, in_flight, None),
        (Need::NONE, true) => asking(unit),
        (need, _) => checked.and_then(|()| durable::with_wait(unit, need, deadline)),
    };
    match extended {
        Ok(bytes) if need != Need::NONE => {
            let list = Some(unit.list.unwrap_or(1) + 1);
            call.start(Unit { bytes: Bytes::Raw(&bytes), list, ..unit }, deadline, in_flight, None)
        }
        Ok(bytes) => call.start(with_question(&bytes, unit), deadline, in_flight, None),
        Err(error) => call.fail_unstarted(in_flight, error),
    }
}

/// The question to a lane whether it carries transactions.
struct Question {
    asked: Lock<Option<Asked>>,
}

/// For which call a lane was asked.
struct Asked {
    queue: Arc<PendingQueue>,
    call: Arc<Call>,
    submit_lane: Arc<SubmitLane>,
    way: Way,
}

impl Completion for Question {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        let Some(asked) = self.asked.lock().take() else { return };
        let Asked { queue, call, submit_lane, way } = asked;
        let carries =
            outcome.map_err(|failure| failure.error).and_then(|replies| submit_lane.lane().note_transactions(&replies));
        if let (Err(error), Traffic::Dedicated) = (&carries, call.traffic()) {
            submit_lane.release(Some(error.clone()));
        }
        queue.opened(&call, way, carries.map(|()| Some(submit_lane)));
    }

    /// A call that is cancelled is found where it waits.
    fn is(&self, _owner: usize, _token: u64) -> bool {
        false
    }
}

impl Waiting {
    fn new(call: Arc<Call>) -> Self {
        Self { call, pause: None, chosen: None, opened: None, cancelled: false }
    }
}

impl Opened {
    /// The lane for a call that goes this way: the one that was opened for the call, or one that is open; `None`: there is none
    /// yet.
    fn take(opened: Option<Self>, way: Way, traffic: Traffic) -> (Way, Option<Arc<SubmitLane>>) {
        let fits = |opened: &Self| opened.version == way.version && !opened.route.pool.is_retired();
        if let Some(mut opened) = opened.filter(fits) {
            let submit_lane = opened.submit_lane.take();
            return (Way { route: opened.route.clone(), ..way }, submit_lane);
        }
        let submit_lane = way.route.pool.submit_lane(traffic);
        (way, submit_lane)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(submit_lane) = self.submit_lane.take().filter(|_| self.own) {
            submit_lane.release(None);
        }
    }
}

impl PendingState {
    fn insert(&mut self, order: u64, mut waiting: Waiting) {
        // A cancellation is noted before the queue is searched, so the call is found by one of the two.
        waiting.cancelled |= is_cancelled(&waiting.call);
        self.cancelled |= waiting.cancelled;
        self.next_end = [self.next_end, waiting.call.deadline.end()].into_iter().flatten().min();
        self.order.insert(order, waiting);
    }

    /// Follows the removal of a waiting call.
    fn note_removal(&mut self) {
        if self.order.waiting() == 0 {
            self.next_end = None;
        }
    }
}

/// Judges an attempt that is over. Returns the call if it is tried again.
fn judge(router: &Arc<Router>, call: Arc<Call>, way: Way, outcome: Outcome) -> Option<Waiting> {
    let mut attempt = call.take_attempt();
    let plan = match call.plan() {
        Ok(plan) => plan,
        Err(error) => {
            call.end(Err(error));
            return None;
        }
    };
    match conclude(router, &plan, call.flags, &mut attempt, &way, outcome) {
        Step::Done(reply) => {
            call.end(attempt.whole(&plan, reply).map(|reply| (reply, way.route.pool)));
            None
        }
        step => again_or_over(router, &call, &plan, attempt, step),
    }
}

/// Acts on a failed attempt. Returns the call if it is tried again.
fn again_or_over(
    router: &Router,
    call: &Arc<Call>,
    plan: &Plan<'_>,
    mut attempt: Box<Attempt<Arc<Pool>>>,
    step: Step,
) -> Option<Waiting> {
    let context = &router.context;
    let next = match step {
        Step::Again(error) => {
            let (now, closed, cancelled) = (Instant::now(), context.is_closed(), is_cancelled(call));
            attempt.next(error, Facts { now, closed, cancelled, jitter: random::rng().f64() })
        }
        Step::Over(error) => Next::Over(error),
        Step::Done(_) => return None,
    };
    let pause = match next {
        Next::Over(error) => {
            call.end(end(context, plan, &mut attempt, error));
            return None;
        }
        Next::Again => None,
        Next::Wait(pause) => Some((Instant::now() + context.service.pause(pause), context.service.version())),
    };
    context.count_retry();
    call.keep_attempt(attempt);
    Some(Waiting { pause, ..Waiting::new(Arc::clone(call)) })
}

/// Ends a call that could not be started, with the reason, or with what is known of earlier attempts.
fn end_now(router: &Router, call: &Arc<Call>, gated: bool) {
    if is_cancelled(call) {
        let error = Error::new(Status::Cancelled, "cancelled before it began").without_flags(flags::RETRYABLE);
        return over(call, error);
    }
    if let Err(closed) = router.context.check_open() {
        return over(call, closed);
    }
    let mut attempt = call.take_attempt();
    if gated {
        attempt.gate_wait.note();
    }
    let deadline = call.deadline;
    let result = call.plan().and_then(|plan| {
        let error = match prepare(router, &plan, call.flags, &mut attempt, deadline) {
            Err(Step::Over(error) | Step::Again(error)) => error,
            Ok(_) | Err(Step::Done(_)) => {
                let text = "not sent: no connection was ready in time (they were in use, or the node did not answer attempts to connect)";
                Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE)
            }
        };
        let error = attempt.most_telling(error);
        end(&router.context, &plan, &mut attempt, error)
    });
    call.end(result);
}

/// Ends a call with an error, and with what is known of its earlier attempts.
fn over(call: &Arc<Call>, error: Error) {
    let mut attempt = call.take_attempt();
    let result: Result<_> = call.plan().and_then(|plan| end(&call.router().context, &plan, &mut attempt, error));
    call.end(result);
}

/// Whether a call waits in its queue until its own deadline, rather than fail with this error.
fn is_patient(error: &Error) -> bool {
    matches!(error.status(), Status::Timeout | Status::Fenced)
}

fn is_cancelled(call: &Call) -> bool {
    call.address().is_some_and(|address| address.is_cancelled())
}

/// Has the queue run again after a panic.
struct Unfinished<'a>(&'a Arc<PendingQueue>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.runs = false;
        state.order.let_go();
        state.in_hand = None;
        drop(state);
        self.0.wake();
    }
}

impl Source for PendingQueue {
    fn drive(&self) -> Driven {
        Driven::Read
    }

    fn is_over(&self) -> bool {
        self.router.strong_count() == 0
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        let mut state = self.lock();
        let mut count = 0;
        for waiting in state.order.values_mut().filter(|waiting| waiting.call.is_of(queue, token)) {
            waiting.cancelled = true;
            count += 1;
        }
        count += state.order.returned().filter(|(call, ..)| call.is_of(queue, token)).count();
        count += state.in_hand.iter().filter(|call| call.is_of(queue, token)).count();
        state.cancelled |= count > 0;
        drop(state);
        if let Some(me) = self.me.upgrade().filter(|_| count > 0) {
            me.wake();
        }
        count
    }
}
