//! The submitted calls of a session: they start in call order on the session's connection, and no thread waits for them.
//!
//! With the first submit the connection becomes a lane that the session has to itself. From then on a blocking call of the session goes
//! the same way, behind the calls that were submitted before it.
//!
//! Guarantees: calls start in call order; every accepted call is completed exactly once, at its deadline at the latest. A call that
//! has not run, because it was late or cancelled, ends the session, so that nothing runs that was submitted in reliance on it.
//! Leaves to others: what a session's connection knows (session), reading (lane, pool, queue).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::home;
use super::session::{Marks, Session, executed};
use super::shared::Shared;
use super::unwaited::Awaited;
use crate::call::judge;
use crate::call::{Attempt, Facts, GateWait, Next, Step, gate, logged_out, refused_wait};
use crate::config::Credentials;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Completion, Failure, Outcome, Unit, transaction};
use crate::meter::End;
use crate::plan::{CallFlags, Keep, Plan, Shape, Target, spelled_out};
use crate::pool::{Loan, Pool, SubmitLane};
use crate::queue::{Address, Driven, Queue, Reservation, Source};
use crate::resp::{Reply, list};
use crate::route::Context;
use crate::submit::{Submission, Times};
use crate::sys::random;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock, Locked};
use crate::time::{Deadline, Instant};
use crate::worker::{self, Host};

/// How often calls that wait for the fence, for a connection, or for the end of a blocking call are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The submitted calls of a session.
pub(super) struct Line {
    /// There was a submit: every call goes this way from then on.
    used: AtomicBool,
    state: Lock<LineState>,
    idle: Condvar,
    source: Arc<Waiting>,
}

/// The waiting calls of a session, as a queue knows them: a queue keeps no session.
struct Waiting(Weak<Session>);

#[derive(Default)]
struct LineState {
    waiting: VecDeque<Arc<LineCall>>,
    /// Calls on the connection, and those of them that block it.
    started: usize,
    blocking: usize,
    link: Option<Link>,
    /// Why the session has lost its connection.
    lost: Option<Error>,
    /// Why it is lost once the calls that wait now have been started: one behind them has not run.
    doomed: Option<Error>,
    /// The retry engine of an opening, and why the last one failed.
    attempt: Option<Box<Attempt<Arc<Pool>>>>,
    failed: Option<Error>,
    not_before: Option<Instant>,
    opening: bool,
    /// It logs in anew: no call is started meanwhile.
    logs_in: bool,
    /// A thread starts calls, and was asked to look again.
    runs: bool,
    again: bool,
    alarm: bool,
    gives_back: bool,
}

/// The connection of a session, as a lane.
pub(super) struct Link {
    pub(super) loan: Loan,
    pub(super) lane: Arc<SubmitLane>,
    pub(super) marks: Marks,
    /// The failover sequence when the transaction that is under way was begun.
    pub(super) answered: u64,
    /// What it is authenticated with.
    pub(super) auth: Credentials,
    /// Nothing was sent on it, and nothing depends on it.
    pub(super) unused: bool,
}

/// What a call's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    List,
    /// Between MULTI and EXEC.
    Wrapped,
}

/// A call of a session.
struct LineCall {
    session: Arc<Session>,
    client: Admitted,
    bytes: Arc<[u8]>,
    part: Range<usize>,
    form: Form,
    /// The replicas that it asks for by itself, or 0.
    replicas: u32,
    deadline: Deadline,
    /// A caller waits for it, which judges an error reply itself.
    is_awaited: bool,
    /// Of a call with a call handle.
    times: Option<Arc<Times>>,
    state: Lock<CallState>,
}

struct CallState {
    credit: Option<Reservation>,
    gate_wait: GateWait,
    cancelled: bool,
    /// Where it was started, and the failover sequence at that moment.
    on: Option<(Arc<Pool>, Arc<SubmitLane>, u64)>,
    /// What is waited for behind it.
    awaited: Option<Awaited>,
}

/// Keeps a client open for a call; false: its caller does.
struct Admitted {
    client: Arc<Shared>,
    counts: bool,
    /// The call has its outcome.
    has_outcome: AtomicBool,
}

impl Admitted {
    fn new(client: &Arc<Shared>) -> Result<Self> {
        std::mem::forget(client.context().admit()?);
        Ok(Self::of(client, true))
    }

    fn another(&self) -> Self {
        self.client.context().admit_another();
        Self::of(&self.client, true)
    }

    /// Of a call that was admitted where it waits.
    fn of_awaited(client: &Arc<Shared>) -> Self {
        Self::of(client, false)
    }

    fn of(client: &Arc<Shared>, counts: bool) -> Self {
        Self { client: Arc::clone(client), counts, has_outcome: AtomicBool::new(false) }
    }

    /// The call gets its outcome now.
    fn note_outcome(&self) {
        if self.counts && !self.has_outcome.swap(true, Ordering::AcqRel) {
            self.client.context().note_outcome();
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        match (self.counts, *self.has_outcome.get_mut()) {
            (false, _) => {}
            (true, true) => self.client.context().leave_with_outcome(),
            (true, false) => self.client.context().leave(),
        }
    }
}

impl Line {
    pub(super) fn new(session: &Weak<Session>) -> Self {
        let state = Lock::new(Rank::SessionLine, LineState::default());
        let source = Arc::new(Waiting(Weak::clone(session)));
        Self { used: AtomicBool::new(false), state, idle: Condvar::new(), source }
    }

    /// Whether the calls of the session go this way.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    fn lock(&self) -> Locked<'_, LineState> {
        self.state.lock()
    }

    /// Gives the connection up when nothing is under way any more.
    pub(super) fn give_back(&self) {
        let mut state = self.lock();
        state.gives_back = true;
        let link = state.take_back();
        drop(state);
        drop(link);
    }

    /// Ends calls that block at once and the others at the deadline, and gives the connection back.
    pub(super) fn close(session: &Arc<Session>, deadline: Deadline, last: Duration) {
        run(session);
        let line = &session.line;
        let shut = |state: &LineState| {
            state.link.iter().for_each(|link| link.lane.lane().socket().shutdown_as(End::Closed));
        };
        let mut state = line.lock();
        if state.blocking > 0 {
            shut(&state);
        }
        let mut end = deadline;
        let mut is_last = false;
        while state.started > 0 {
            if end.is_over() {
                if is_last {
                    break;
                }
                shut(&state);
                (end, is_last) = (Deadline::after(last), true);
            }
            state = line.idle.wait_timeout(state, end.left_or(LOOK));
        }
        state.gives_back = true;
        let link = state.take_back();
        drop(state);
        drop(link);
    }
}

impl LineState {
    /// The connection and its state, if they are to be given up now.
    fn take_back(&mut self) -> Option<Link> {
        if !self.gives_back || self.started > 0 || self.opening {
            return None;
        }
        (self.gives_back, self.lost, self.doomed) = (false, None, None);
        (self.attempt, self.failed, self.not_before) = (None, None, None);
        self.link.take()
    }
}

/// Copies a list of commands and starts it on the connection of a session, behind all calls before it. Its completion arrives on the
/// queue.
pub(super) fn submit(session: &Arc<Session>, client: &Arc<Shared>, submission: Submission<'_>) -> Result<()> {
    let Submission { flags, timeout, queue, .. } = submission;
    let stored = match &session.home {
        Some(home) => home::stored(&**home, submission.commands)?,
        None => None,
    };
    let submission = Submission { commands: stored.as_deref().unwrap_or(submission.commands), ..submission };
    // A session sends nothing again, so the scripts that are known go out by their bodies.
    let spelled = client.context().scripts().and_then(|scripts| spelled_out(submission.commands, scripts, Keep::None));
    let submission = Submission { commands: spelled.as_deref().unwrap_or(submission.commands), ..submission };
    let (whole, form) = match (flags.has(CallFlags::ATOMIC), flags.has(CallFlags::EACH)) {
        (true, _) => {
            flags.check_atomic()?;
            (Some(transaction::wrap(submission.commands)?), Form::Wrapped)
        }
        (false, true) => (None, Form::One),
        (false, false) => (None, Form::List),
    };
    let bytes = whole.as_deref().unwrap_or(submission.commands);
    let context = client.context();
    context.check_on_primary(flags)?;
    let configured = session.settings.timeout_call;
    let mut parts: Vec<(Range<usize>, Deadline)> = Vec::new();
    let mut add = |plan: &Plan<'_>, range: Range<usize>| {
        session.check(context, plan, flags)?;
        parts.push((range, plan.deadline(timeout, configured)));
        Ok::<_, Error>(())
    };
    match form {
        Form::Wrapped => add(&Plan::wrapped(bytes)?, 0..bytes.len())?,
        Form::List => add(&Plan::list(bytes)?, 0..bytes.len())?,
        Form::One => list::commands(bytes).try_for_each(|command| {
            let command = command?;
            add(&Plan::single(&command), command.range())
        })?,
    }
    if parts.is_empty() {
        return Err(Error::new(Status::InvalidArg, "commands: the list is empty"));
    }
    if session.is_closed() {
        return Err(Error::new(Status::Closed, "the session is closed"));
    }
    let client = Admitted::new(client)?;
    let most_bytes = context.settings().submit_bytes;
    let mut credits = submission.reserve(parts.len(), bytes.len(), most_bytes)?;
    let source: Arc<dyn Source> = Arc::clone(&session.line.source) as Arc<dyn Source>;
    let bytes: Arc<[u8]> = bytes.into();
    let calls = parts.into_iter().map(|(part, deadline)| {
        context.count_call();
        let credit = credits.next_of(part.len());
        let call = LineCall::new(session, client.another(), Arc::clone(&bytes), part, form, deadline, credit);
        LineCall { times: submission.times.cloned(), replicas: flags.replicas(), ..call }
    });
    let calls: Vec<_> = calls.map(Arc::new).collect();
    add_calls(session, calls);
    queue.attach(&source);
    run(session);
    Ok(())
}

/// Runs a call of a session whose calls go this way, and waits for it.
pub(super) fn exec(
    session: &Arc<Session>,
    client: &Arc<Shared>,
    plan: &Plan<'_>,
    call: CallFlags,
    deadline: Deadline,
) -> Result<(Reply, Arc<Pool>)> {
    let (mut bytes, replicas) = (Vec::new(), call.replicas());
    plan.unit(0).bytes.append_to(&mut bytes)?;
    let form = match plan.shape() {
        Shape::One => Form::One,
        Shape::List => Form::List,
        Shape::Atomic => Form::Wrapped,
    };
    let queue = Queue::create(1)?;
    let credit = queue.reserve(0, 1)?.next();
    let (part, client) = (0..bytes.len(), Admitted::of_awaited(client));
    let call = LineCall::new(session, client, bytes.into(), part, form, deadline, credit);
    let call = Arc::new(LineCall { is_awaited: true, replicas, ..call });
    add_calls(session, vec![Arc::clone(&call)]);
    run(session);
    // The call ends at its deadline.
    let mut events = Vec::new();
    while queue.drain(Deadline::never(), &mut events, 1) == 0 {}
    let outcome = events.pop().map(|event| event.outcome);
    let pool = call.state.lock().on.take().map(|(pool, ..)| pool);
    match (outcome, pool) {
        (Some(Ok(Some(reply))), Some(pool)) => Ok((reply, pool)),
        (Some(Err(error)), _) => Err(error),
        _ => Err(Error::new(Status::Internal, "a call of a session ended without an outcome")),
    }
}

fn add_calls(session: &Session, calls: Vec<Arc<LineCall>>) {
    session.line.used.store(true, Ordering::Release);
    let mut state = session.line.lock();
    let Some(cause) = state.doomed.clone() else { return state.waiting.extend(calls) };
    drop(state);
    calls.iter().for_each(|call| call.end(Err(call.lost(&cause))));
}

/// Starts what can be started, and looks again later if calls are left. One thread at a time does so.
pub(super) fn run(session: &Arc<Session>) {
    let line = &session.line;
    let mut state = line.lock();
    if std::mem::replace(&mut state.runs, true) {
        state.again = true;
        return;
    }
    drop(state);
    let running = Running(line);
    loop {
        end_those_over(session);
        while start_next(session) {}
        let mut state = line.lock();
        if !std::mem::take(&mut state.again) {
            state.runs = false;
            let waits = !state.waiting.is_empty() && !std::mem::replace(&mut state.alarm, true);
            drop(state);
            std::mem::forget(running);
            if waits {
                set_alarm(session);
            }
            return;
        }
    }
}

/// Lets another thread start calls after a panic.
struct Running<'a>(&'a Line);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().runs = false;
    }
}

fn set_alarm(session: &Arc<Session>) {
    let owner = Arc::clone(session);
    let ring = move || {
        owner.line.lock().alarm = false;
        run(&owner);
    };
    if worker::after(LOOK, Arc::downgrade(session), ring).is_err() {
        let mut state = session.line.lock();
        state.alarm = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let error = || Error::new(Status::Io, "no thread to start a submitted call").with_flags(flags::RETRYABLE);
        waiting.iter().for_each(|call| call.end(Err(error())));
    }
}

/// Ends the waiting calls that are late or cancelled, or whose session or client was closed; and with them those behind, because they
/// may rely on what has not run.
fn end_those_over(session: &Arc<Session>) {
    let line = &session.line;
    let mut state = line.lock();
    if state.waiting.is_empty() {
        return;
    }
    let all = session.is_closed() || state.waiting[0].client.client.context().is_ended();
    let is_over = |call: &Arc<LineCall>| call.deadline.is_over() || call.is_cancelled();
    let Some(first) = state.waiting.iter().position(|call| all || is_over(call)) else { return };
    let over: Vec<_> = state.waiting.drain(first..).collect();
    let failed = state.failed.clone().filter(|_| first == 0);
    drop(state);
    let Some((late, behind)) = over.split_first() else { return };
    let cause = late.why_over(session, failed);
    if first == 0 {
        lose(session, late, &cause, false);
    } else {
        session.line.lock().doomed.get_or_insert_with(|| cause.clone());
    }
    late.end(Err(cause.clone()));
    behind.iter().for_each(|call| call.end(Err(call.lost(&cause))));
}

/// Starts the next waiting call. True: another one may follow.
fn start_next(session: &Arc<Session>) -> bool {
    let line = &session.line;
    let mut state = line.lock();
    let Some(call) = state.waiting.front().cloned() else {
        // The connection goes once it is given back, or with the session: calls may be under way on it.
        let doomed = state.doomed.take();
        state.lost = state.lost.take().or(doomed);
        return false;
    };
    let (lost, has_link, busy) =
        (state.lost.clone(), state.link.is_some(), state.opening || state.logs_in || state.gives_back);
    drop(state);
    if let Some(cause) = lost {
        line.lock().waiting.pop_front();
        let error = call.lost(&cause);
        call.end(Err(error));
        return true;
    }
    if busy {
        let link = line.lock().take_back();
        return link.is_some();
    }
    let plan = match call.plan() {
        Ok(plan) => plan,
        Err(error) => return refuse(session, &call, error),
    };
    let (context, gate_wait) = (call.client.client.context(), call.state.lock().gate_wait);
    // While the fence is up a connection would be one to the primary that is about to go.
    let is_held = context.target != Target::Replica && context.service.is_fenced();
    if !has_link && !is_held {
        open(session, &call);
        return false;
    }
    match gate::check_in_session(context, &plan, &call.deadline, gate_wait) {
        Ok(failover_seq) => start(session, &call, &plan, failover_seq),
        Err(error) if error.status() == Status::Fenced => {
            call.times.iter().for_each(|times| times.held_back());
            call.state.lock().gate_wait.note();
            context.service.check_fence();
            context.service.freshen();
            false
        }
        Err(error) => refuse(session, &call, error),
    }
}

/// Ends the next waiting call with an error; nothing of it was sent.
fn refuse(session: &Session, call: &Arc<LineCall>, error: Error) -> bool {
    session.line.lock().waiting.pop_front();
    call.end(Err(error));
    true
}

fn start(session: &Arc<Session>, call: &Arc<LineCall>, plan: &Plan<'_>, failover_seq: u64) -> bool {
    let line = &session.line;
    let context = call.client.client.context();
    let mut state = line.lock();
    let Some(link) = state.link.as_mut() else { return true };
    let is_unused = std::mem::take(&mut link.unused);
    if is_unused && link.lane.lane().is_dead() {
        state.link = None;
        return true;
    }
    let (pool, lane) = (Arc::clone(link.loan.pool()), Arc::clone(&link.lane));
    if link.marks.is_in_transaction() && link.answered != failover_seq {
        state.waiting.pop_front();
        drop(state);
        let error = super::session::taken_over(pool.name());
        call.state.lock().on = Some((pool, lane, failover_seq));
        let told = call.failed(session, plan, Failure::unsent(error), false);
        call.end(Err(told));
        return true;
    }
    if let Some(auth) = link.next_login(context) {
        link.unused = is_unused;
        (state.logs_in, state.started) = (true, state.started + 1);
        drop(state);
        Login { session: Arc::clone(session), call: Arc::clone(call), pool, auth }.start(&lane);
        return false;
    }
    link.answered = failover_seq;
    if plan.is_atomic() {
        if let Err(error) = link.marks.check_atomic(lane.lane().carries_transactions()) {
            drop(state);
            return refuse(session, call, error);
        }
    }
    let wanted = (session.settings.write, call.replicas);
    let awaited = match link.marks.unwaited.awaited(context, plan, wanted, &pool) {
        Ok(awaited) => awaited,
        Err(error) => {
            drop(state);
            return refuse(session, call, error);
        }
    };
    link.marks.note(plan);
    state.waiting.pop_front();
    // Noted before the call is sent, because the answer may come at once.
    call.times.iter().for_each(|times| times.started(pool.name()));
    state.started += 1;
    state.blocking += usize::from(plan.blocks.is_some());
    drop(state);
    {
        let mut own = call.state.lock();
        (own.on, own.awaited) = (Some((pool, Arc::clone(&lane), failover_seq)), Some(awaited));
    }
    let address = call.address();
    if let Some(address) = &address {
        let source: Arc<dyn Source> = Arc::clone(&lane) as Arc<dyn Source>;
        address.queue.attach(&source);
    }
    if plan.blocks.is_some() {
        context.note_blocking(lane.lane().socket());
    }
    let unit = Unit { lease: gate::lease_in_session(context, plan), ..plan.unit(0) };
    let completion = Arc::clone(call) as Arc<dyn Completion>;
    let started = awaited
        .extended(unit, call.deadline)
        .and_then(|bytes| lane.start(Awaited::unit(unit, bytes.as_deref()), call.deadline, completion, None));
    if let Err(cause) = started {
        if is_unused {
            return take_back_unsent(session, call, plan);
        }
        Arc::clone(call).complete(Err(Failure::unsent(cause)));
        return true;
    }
    if let Some((owner, token)) = address.filter(Address::is_cancelled).map(|address| address.owner()) {
        lane.lane().cancel(owner, token);
    }
    true
}

impl Link {
    /// Other credentials than it has, if it may take them now: not within a transaction, and not if the program has logged in by itself.
    fn next_login(&self, context: &Context) -> Option<Credentials> {
        let settings = context.settings();
        let keeps = settings.auth == self.auth || self.marks.own_user() || self.marks.is_in_transaction();
        (!keeps && settings.auth.command().is_some()).then(|| settings.auth.clone())
    }
}

/// Logs in anew, ahead of a call.
struct Login {
    session: Arc<Session>,
    call: Arc<LineCall>,
    pool: Arc<Pool>,
    auth: Credentials,
}

impl Login {
    fn start(self, lane: &Arc<SubmitLane>) {
        let login = Arc::new(self);
        let Some(command) = login.auth.command() else { return };
        let unit = Unit { bytes: Bytes::Args(&command), list: None, at_most_once: false, lease: None, atomic: false };
        if let Some(address) = login.call.address() {
            let source: Arc<dyn Source> = Arc::clone(lane) as Arc<dyn Source>;
            address.queue.attach(&source);
        }
        let completion = Arc::clone(&login) as Arc<dyn Completion>;
        if let Err(cause) = lane.start(unit, login.call.deadline, completion, None) {
            login.complete(Err(Failure::unsent(cause)));
        }
    }

    /// Notes the outcome; the error of a refusal is that of the call.
    fn settle(&self, outcome: Outcome) -> Option<Error> {
        match outcome {
            Ok(reply) => {
                if let Some(line) = reply.error_line(0) {
                    return Some(super::session::login_refused(self.pool.name(), line));
                }
                self.session.line.lock().link.iter_mut().for_each(|link| link.auth = self.auth.clone());
            }
            Err(failure) => lose(&self.session, &self.call, &failure.error, true),
        }
        None
    }
}

impl Completion for Login {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        let refusal = self.settle(outcome);
        let mut state = self.session.line.lock();
        (state.logs_in, state.started) = (false, state.started - 1);
        let is_front = state.waiting.front().is_some_and(|front| Arc::ptr_eq(front, &self.call));
        let refused = refusal.filter(|_| is_front);
        if refused.is_some() {
            state.waiting.pop_front();
        }
        let link = state.take_back();
        drop(state);
        drop(link);
        self.session.line.idle.notify_all();
        if let (Some(error), Ok(plan)) = (refused, self.call.plan()) {
            self.call.end(Err(error.in_service(plan.name(), self.call.client.client.context().service.name())));
        }
        // This may be the thread that reads the lane. Without another one the alarm does it.
        let session = Arc::clone(&self.session);
        let _ = worker::run(move || run(&session));
    }

    fn is(&self, _: usize, _: u64) -> bool {
        false
    }
}

/// The first call of a connection could not be started on it. Nothing depends on that connection yet, so the call waits for another one.
fn take_back_unsent(session: &Session, call: &Arc<LineCall>, plan: &Plan<'_>) -> bool {
    call.times.iter().for_each(|times| times.not_started());
    call.state.lock().on = None;
    let mut state = session.line.lock();
    state.started -= 1;
    state.blocking -= usize::from(plan.blocks.is_some());
    state.waiting.push_front(Arc::clone(call));
    let link = state.link.take();
    drop(state);
    if let Some(link) = link.filter(|_| plan.blocks.is_some()) {
        call.client.client.context().forget_blocking(link.lane.lane().socket());
    }
    true
}

/// Has the connection taken by a thread that may wait for the network.
fn open(session: &Arc<Session>, call: &Arc<LineCall>) {
    let mut state = session.line.lock();
    if state.opening || state.not_before.is_some_and(|at| at > Instant::now()) {
        return;
    }
    state.opening = true;
    let retry = session.settings.retry;
    let attempt = state.attempt.take().unwrap_or_else(|| Box::new(Attempt::new(retry, call.deadline)));
    drop(state);
    let job = Opening { session: Arc::clone(session), call: Arc::clone(call), attempt: Some(attempt), result: None };
    // Without a thread for it the job is dropped, which tells the line.
    let host = Host::of(call.client.client.context().service.name());
    let _ = worker::dial(host, true, move || job.run());
}

/// Takes the connection, and tells the line of it, even after a panic.
struct Opening {
    session: Arc<Session>,
    call: Arc<LineCall>,
    attempt: Option<Box<Attempt<Arc<Pool>>>>,
    result: Option<std::result::Result<Option<Link>, Step>>,
}

impl Opening {
    fn run(mut self) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        let router = self.call.client.client.router();
        let limit = self.call.deadline.left_or(router.context.settings().timeout_connect);
        let plan = match self.call.plan() {
            Ok(plan) => plan,
            Err(error) => return self.result = Some(Err(Step::Over(error))),
        };
        let taken = self.session.take_link(router, &plan, attempt, Deadline::after(limit));
        self.result = Some(taken);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let no_thread = || Error::new(Status::Io, "no thread to open a connection").with_flags(flags::RETRYABLE);
        let result = self.result.take().unwrap_or_else(|| Err(Step::Again(no_thread())));
        if let Some(attempt) = self.attempt.take() {
            opened(&self.session, &self.call, attempt, result);
        }
    }
}

/// Takes the result of an opening.
fn opened(
    session: &Arc<Session>,
    call: &Arc<LineCall>,
    mut attempt: Box<Attempt<Arc<Pool>>>,
    result: std::result::Result<Option<Link>, Step>,
) {
    let context = call.client.client.context();
    let mut state = session.line.lock();
    state.opening = false;
    let over = match result {
        Ok(link) => {
            // Without one another thread uses the session: it is looked for later.
            state.link = link;
            None
        }
        Err(Step::Again(error)) => {
            state.failed = Some(error.clone());
            let (now, closed) = (Instant::now(), context.is_closed());
            let facts = Facts { now, closed, cancelled: false, jitter: random::rng().f64() };
            match attempt.next(error, facts) {
                Next::Over(error) => Some(error),
                Next::Again => None,
                Next::Wait(pause) => {
                    state.not_before = Some(now + pause);
                    None
                }
            }
        }
        Err(Step::Over(error)) => Some(error),
        Err(Step::Done(_)) => None,
    };
    if over.is_none() && state.link.is_none() {
        state.attempt = Some(attempt);
    } else {
        (state.attempt, state.failed, state.not_before) = (None, None, None);
    }
    drop(state);
    if let Some(error) = over {
        let error = error.in_service("a session", context.service.name());
        lose(session, call, &error, false);
        let mut state = session.line.lock();
        let is_front = state.waiting.front().is_some_and(|front| Arc::ptr_eq(front, call));
        if is_front {
            state.waiting.pop_front();
        }
        drop(state);
        if is_front {
            call.end(Err(error.with_time(call.deadline.elapsed().as_millis(), "")));
        }
    }
    run(session);
}

/// Gives up the connection, and with it the state of the session. `suspect`: the node may be the cause.
fn lose(session: &Session, call: &LineCall, cause: &Error, suspect: bool) {
    let mut state = session.line.lock();
    let is_first = state.lost.is_none();
    if is_first {
        state.lost = Some(cause.clone());
    }
    let link = state.link.take();
    drop(state);
    let Some(link) = link else { return };
    link.lane.lane().socket().shutdown_as(End::GivenUp);
    if suspect && is_first {
        let (client, pool, why) =
            (Arc::clone(&call.client.client), Arc::clone(link.loan.pool()), cause.message().to_owned());
        let _ = worker::run(move || client.context().service.suspect(pool.endpoint(), &why));
    }
}

impl LineCall {
    fn new(
        session: &Arc<Session>,
        client: Admitted,
        bytes: Arc<[u8]>,
        part: Range<usize>,
        form: Form,
        deadline: Deadline,
        credit: Option<Reservation>,
    ) -> Self {
        let state = CallState { credit, gate_wait: GateWait::default(), cancelled: false, on: None, awaited: None };
        let (session, state) = (Arc::clone(session), Lock::new(Rank::SessionCall, state));
        Self { session, client, bytes, part, form, replicas: 0, deadline, is_awaited: false, times: None, state }
    }

    fn plan(&self) -> Result<Plan<'_>> {
        let bytes = &self.bytes[self.part.clone()];
        match self.form {
            Form::One => Plan::one(bytes),
            Form::List => Plan::list(bytes),
            Form::Wrapped => Plan::wrapped(bytes),
        }
    }

    /// Where its completion goes, until it is over.
    fn address(&self) -> Option<Address> {
        self.state.lock().credit.as_ref().map(Reservation::address)
    }

    fn is_cancelled(&self) -> bool {
        self.state.lock().cancelled
    }

    /// Why it ends before it was started.
    fn why_over(&self, session: &Session, failed: Option<Error>) -> Error {
        let context = self.client.client.context();
        let after = self.deadline.elapsed().as_millis();
        let is_gated = self.state.lock().gate_wait != GateWait::default();
        let error = if self.is_cancelled() {
            return Error::new(Status::Cancelled, "cancelled before it began");
        } else if session.is_closed() {
            return Error::new(Status::Closed, "the session is closed");
        } else if let Err(closed) = context.check_open() {
            return closed;
        } else if is_gated {
            Error::new(Status::Fenced, "writes were held back until no time was left: it was not sent")
        } else if let Some(failed) = failed {
            failed
        } else {
            Error::new(
                Status::Timeout,
                "not sent: no connection was ready in time (they were in use, or the node did not answer attempts to connect)",
            )
        };
        error.in_service("a session", context.service.name()).with_time(after, "").with_flags(flags::RETRYABLE)
    }

    /// The error of a call that was not sent, because the session has lost its connection.
    fn lost(&self, cause: &Error) -> Error {
        match self.plan() {
            Ok(plan) => super::session::lost(&plan, cause),
            Err(error) => error,
        }
    }

    /// The error of a call whose connection has ended, and with it the session.
    fn failed(&self, session: &Session, plan: &Plan<'_>, failure: Failure, suspect: bool) -> Error {
        let context = self.client.client.context();
        let began = self.state.lock().on.as_ref().map(|(_, _, failover_seq)| *failover_seq);
        let in_failover =
            context.service.is_fenced() || began.is_some_and(|began| began != context.service.failover_seq());
        let is_taken_over = failure.error.has(flags::FAILOVER);
        let flags = if in_failover || is_taken_over { flags::FAILOVER } else { 0 };
        let failure = Failure { error: failure.error.with_flags(flags), ..failure };
        lose(session, self, &failure.error, suspect);
        super::session::told_of_loss(plan, failure, context.service.name())
    }

    /// Completes the call.
    fn end(&self, result: Result<Reply>) {
        let credit = self.state.lock().credit.take();
        let result = match self.is_awaited {
            true => result,
            false => {
                let (context, is_atomic) = (self.client.client.context(), self.form == Form::Wrapped);
                let result = result.map_err(|error| context.report(error));
                is_atomic.then(|| context.count_transaction_end(&result));
                result
            }
        };
        if let Some(credit) = credit {
            self.client.note_outcome();
            credit.complete(result.map(Some));
        }
    }

    /// What the outcome of its unit means.
    fn settle(&self, plan: &Plan<'_>, outcome: Outcome) -> Result<Reply> {
        let context = self.client.client.context();
        let Some((pool, lane, failover_seq)) = self.state.lock().on.clone() else {
            return Err(Error::new(Status::Internal, "a call of a session that was not started"));
        };
        if plan.blocks.is_some() {
            context.forget_blocking(lane.lane().socket());
        }
        let awaited = self.state.lock().awaited;
        let outcome = match awaited {
            Some(awaited) => awaited.unwrap(context, plan, outcome, pool.name()),
            None => outcome,
        };
        let doubted = context.service.failover_seq() != failover_seq;
        let outcome = if doubted { judge::doubt(plan, outcome) } else { outcome };
        match outcome {
            Ok(reply) => self.answered(plan, &pool, reply),
            Err(failure) if failure.error.status() == Status::Replicas => Err(self.too_few(plan, &pool, failure.error)),
            Err(failure) if failure.error.status() == Status::Cancelled => {
                let maybe = if failure.sent >= plan.first_len(0) { flags::MAYBE_EXECUTED } else { 0 };
                lose(&self.session, self, &failure.error, false);
                Err(failure.error.with_flags(maybe))
            }
            Err(failure) if plan.is_ended_by_caller(&failure, self.deadline, Instant::now()) => {
                let failure = Failure { error: plan.waited(failure.error), ..failure };
                Err(self.failed(&self.session, plan, failure, false))
            }
            Err(failure) => {
                let error = context.explain_end(plan, failure.error);
                let error = match self.session.is_closed() && error.status() == Status::Io {
                    true => error.caused_by(Status::Closed, format!("{}: the session was closed", plan.name())),
                    false => error,
                };
                let suspect = error.status() != Status::Closed;
                Err(self.failed(&self.session, plan, Failure { error, ..failure }, suspect))
            }
        }
    }

    /// As that of the session, for a thread that may not wait.
    fn too_few(&self, plan: &Plan<'_>, pool: &Arc<Pool>, error: Error) -> Error {
        if let Some(why) = refused_wait(&error) {
            let (client, pool) = (Arc::clone(&self.client.client), Arc::clone(pool));
            let _ = worker::run(move || client.router().doubt(&pool, &why));
        }
        super::session::too_few(plan, error, self.client.client.context().service.name())
    }

    fn answered(&self, plan: &Plan<'_>, pool: &Arc<Pool>, reply: Reply) -> Result<Reply> {
        let service = self.client.client.context().service.name();
        if let Some(text) = logged_out(&reply, pool) {
            // The next call is sent behind a login.
            self.session.line.lock().link.iter_mut().for_each(|link| link.auth = Credentials::default());
            let (client, pool) = (Arc::clone(&self.client.client), Arc::clone(pool));
            let _ = worker::run(move || client.context().service.tell_refusal(pool.endpoint(), text));
        }
        let (result, demotion) = super::session::read(plan, reply, pool, service);
        if let Some(demotion) = demotion {
            let (client, pool) = (Arc::clone(&self.client.client), Arc::clone(pool));
            let _ = worker::run(move || client.router().doubt(&pool, &demotion));
        }
        let reply = result?;
        if self.is_awaited {
            return Ok(reply);
        }
        let (reply, _) = executed(plan, service, (reply, Arc::clone(pool)))?;
        match reply.error_line(0).filter(|_| self.form == Form::One) {
            Some(line) => Err(judge::error_of(plan, line, pool.name())),
            None => Ok(reply),
        }
    }
}

impl Completion for LineCall {
    fn complete(self: Arc<Self>, outcome: Outcome) {
        self.times.iter().for_each(|times| times.ended());
        let (result, blocks) = match self.plan() {
            Ok(plan) => (self.settle(&plan, outcome), plan.blocks.is_some()),
            Err(error) => (Err(error), false),
        };
        let mut state = self.session.line.lock();
        state.started -= 1;
        state.blocking -= usize::from(blocks);
        let link = state.take_back();
        drop(state);
        drop(link);
        self.session.line.idle.notify_all();
        self.end(result);
    }

    fn is(&self, owner: usize, token: u64) -> bool {
        self.state.lock().credit.as_ref().is_some_and(|credit| credit.is_of(owner, token))
    }
}

impl Source for Waiting {
    fn drive(&self) -> Driven {
        Driven::Read
    }

    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    fn cancel(&self, queue: usize, token: u64) -> usize {
        let Some(session) = self.0.upgrade() else { return 0 };
        let state = session.line.lock();
        let found: Vec<_> = state.waiting.iter().filter(|call| call.is(queue, token)).cloned().collect();
        drop(state);
        found.iter().for_each(|call| call.state.lock().cancelled = true);
        if !found.is_empty() {
            run(&session);
        }
        found.len()
    }
}
