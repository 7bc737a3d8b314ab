//! What all parts of a client share: its service, settings, counters, and whether it is open.
//!
//! Guarantees: a close admits no new call, ends blocking commands at once, and waits for other calls until its deadline; a call
//! that begins at the same moment is either refused or waited for. Leaves to others: pools (router), and ending the calls that a
//! close does not wait for (client).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use crossbeam_utils::CachePadded;

use super::nodes::Nodes;
use crate::config::{ClientSettings, Config};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::meter::{ClientFigures, Deed, Deeds, End, NodeMeter, Tells};
use crate::net::Socket;
use crate::plan::{CallFlags, Plan, Target};
use crate::script::Scripts;
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock};
use crate::time::Deadline;
use crate::topology::{Sentinel, Service};

/// How often a close looks again. A call that ended before it could see the close wakes nobody.
const LOOK: Duration = Duration::from_millis(20);

/// What all parts of a client share.
pub(crate) struct Context {
    pub(crate) sentinel: Arc<Sentinel>,
    pub(crate) service: Arc<Service>,
    pub(crate) target: Target,
    settings: ArcSwap<ClientSettings>,
    /// The options that the client was opened with, which override the handle's settings.
    pub(super) overrides: Option<Config>,
    counters: Counters,
    nodes: Nodes,
    life: Life,
}

/// Whether the client is open, and how many calls it serves.
struct Life {
    closed: AtomicBool,
    /// Why, if it was not the program that closed it.
    why: ArcSwapOption<&'static str>,
    /// The time of the close is over: no attempt begins any more.
    ended: AtomicBool,
    calls: CachePadded<Calls>,
    /// The sockets of running blocking commands: a close shuts them down.
    blocking: Lock<Vec<Weak<Socket>>>,
    idle: Lock<()>,
    changed: Condvar,
}

/// The counters that each call writes at its beginning and its end.
#[derive(Default)]
struct Calls {
    active: AtomicUsize,
    /// Those of them that have their outcome, and are about to leave.
    on_the_way_out: AtomicUsize,
    all: AtomicU64,
}

struct Counters {
    retries: AtomicU64,
    /// By their places in `Status::ALL`.
    errors: [AtomicU64; Status::ALL.len()],
    maybe_executed: AtomicU64,
    fallbacks: AtomicU64,
    held_back: AtomicU64,
    transactions: AtomicU64,
    deeds: Deeds,
}

impl Default for Counters {
    fn default() -> Self {
        let [retries, maybe_executed, fallbacks, held_back, transactions] = [const { AtomicU64::new(0) }; 5];
        let errors = [const { AtomicU64::new(0) }; Status::ALL.len()];
        let deeds = Deeds::default();
        Self { retries, errors, maybe_executed, fallbacks, held_back, transactions, deeds }
    }
}

impl Default for Life {
    fn default() -> Self {
        Self {
            closed: AtomicBool::new(false),
            why: ArcSwapOption::empty(),
            ended: AtomicBool::new(false),
            calls: CachePadded::default(),
            blocking: Lock::new(Rank::Blocking, Vec::new()),
            idle: Lock::new(Rank::Idle, ()),
            changed: Condvar::new(),
        }
    }
}

impl Context {
    pub(super) fn new(
        sentinel: &Arc<Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Self> {
        let base = sentinel.settings();
        let settings = overrides.map_or_else(|| Ok(base.client.clone()), |config| config.overlay(&base.client))?;
        settings.settle_with(&base.sentinel)?;
        let name = service.or(base.service.as_deref()).unwrap_or_default();
        if name.is_empty() {
            let text = "no service: name it in the call, in the URI, or in the option \"service\"";
            return Err(Error::new(Status::Config, text));
        }
        Ok(Self {
            sentinel: Arc::clone(sentinel),
            service: sentinel.service(name),
            target,
            settings: ArcSwap::from_pointee(settings),
            overrides: overrides.cloned(),
            counters: Counters::default(),
            nodes: Nodes::new(),
            life: Life::default(),
        })
    }

    pub(crate) fn settings(&self) -> Guard<Arc<ClientSettings>> {
        self.settings.load()
    }

    /// The scripts that were sent, if they are kept.
    pub(crate) fn scripts(&self) -> Option<&Scripts> {
        self.settings().script_cache.then(|| self.sentinel.scripts())
    }

    /// The options that the client was opened with.
    pub(crate) fn overrides(&self) -> Option<&Config> {
        self.overrides.as_ref()
    }

    pub(super) fn set_settings(&self, settings: ClientSettings) {
        self.settings.store(Arc::new(settings));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.life.closed.load(Ordering::Acquire)
    }

    /// Whether the time of a close is over, so that no attempt may begin.
    pub(crate) fn is_ended(&self) -> bool {
        self.life.ended.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.is_closed() {
            true => Err(self.refused_by_close()),
            false => Ok(()),
        }
    }

    #[cold]
    fn refused_by_close(&self) -> Error {
        let closed = || format!("the client of service {} is closed", quoted(self.service.name()));
        Error::new(Status::Closed, self.life.why.load().as_deref().map_or_else(closed, |why| (*why).to_owned()))
    }

    /// Says why it is about to be closed, in place of that it was.
    pub(crate) fn explain_close(&self, why: &'static str) {
        self.life.why.store(Some(Arc::new(why)));
    }

    /// Refuses a read of the primary on a client for replicas.
    pub(crate) fn check_on_primary(&self, call: CallFlags) -> Result<()> {
        if self.target == Target::Replica && call.has(CallFlags::ON_PRIMARY) {
            let text = "flags: VIGIE_CALL_ON_PRIMARY: this client reads from replicas; use a client of vigie_primary_for() or \
                 vigie_split_for()";
            return Err(Error::new(Status::InvalidArg, text));
        }
        Ok(())
    }

    /// Refuses a write, and a read of the primary, on a client for replicas.
    #[inline]
    pub(crate) fn check_target(&self, plan: &Plan<'_>, call: CallFlags) -> Result<()> {
        self.check_on_primary(call)?;
        match self.target {
            Target::Replica if !plan.reads => Err(plan
                .read_only("this client reads from replicas", "a client of vigie_primary_for() or vigie_split_for()")),
            _ => Ok(()),
        }
    }

    /// Admits and counts a blocking call.
    pub(crate) fn enter(&self) -> Result<CallGuard<'_>> {
        let guard = self.admit()?;
        self.count_call();
        Ok(guard)
    }

    /// Admits a call, so that a close waits for it; [`Context::enter`] without counting it.
    #[inline(always)]
    pub(crate) fn admit(&self) -> Result<CallGuard<'_>> {
        // A call that comes after a close must not keep it waiting, not even for a moment.
        self.check_open()?;
        self.admit_another();
        let guard = CallGuard(self);
        self.check_open()?;
        Ok(guard)
    }

    /// Admits a call on behalf of one that was admitted. [`Context::leave`] has to follow.
    pub(crate) fn admit_another(&self) {
        self.life.calls.active.fetch_add(1, Ordering::AcqRel);
    }

    /// The end of an admitted call.
    #[inline]
    pub(crate) fn leave(&self) {
        if self.life.calls.active.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_closed() {
            drop(self.life.idle.lock());
            self.life.changed.notify_all();
        }
    }

    /// A submitted call gets its outcome now. The program may have it before the call has left: a close that comes then waits for
    /// [`Context::leave_with_outcome`], and does not call it running.
    pub(crate) fn note_outcome(&self) {
        self.life.calls.on_the_way_out.fetch_add(1, Ordering::AcqRel);
    }

    /// The end of an admitted call that has had its outcome.
    pub(crate) fn leave_with_outcome(&self) {
        self.leave();
        self.life.calls.on_the_way_out.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many calls have their outcome and have not left yet.
    pub(crate) fn on_the_way_out(&self) -> usize {
        self.life.calls.on_the_way_out.load(Ordering::Acquire)
    }

    pub(crate) fn count_call(&self) {
        self.life.calls.all.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_retry(&self) {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_fallback(&self) {
        self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that is held back at the gate.
    pub(crate) fn count_held_back(&self) {
        self.counters.held_back.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a transaction that begins.
    pub(crate) fn count_transaction(&self) {
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a transaction. One that was not answered is neither run nor refused.
    #[cold]
    pub(crate) fn count_transaction_end<T>(&self, outcome: &Result<T>) {
        let deed = match outcome {
            Ok(_) => Deed::TransactionRun,
            Err(error) => match error.status() {
                // EXEC ran it.
                Status::Replicas => Deed::TransactionRun,
                Status::TxnAborted => Deed::TransactionAborted,
                Status::Server | Status::Unsupported => Deed::TransactionRefused,
                _ => return,
            },
        };
        self.count(deed, 1);
    }

    /// Counts so many more of this.
    pub(crate) fn count(&self, deed: Deed, more: u64) {
        self.counters.deeds.add(deed, more);
    }

    /// Where the connections to a node in this role are counted.
    pub(super) fn meter(&self, endpoint: &str, role: &'static str) -> Arc<NodeMeter> {
        let service: Weak<dyn Tells> = Arc::downgrade(&self.service) as Weak<dyn Tells>;
        self.nodes.meter(endpoint, role, service)
    }

    /// What was counted, without what there is at this moment.
    pub(super) fn figures(&self) -> ClientFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let nodes = self.nodes.rows();
        ClientFigures {
            service: self.service.name().to_owned(),
            target: self.target.word(),
            calls: of(&self.life.calls.all),
            in_flight: self.life.calls.active.load(Ordering::Relaxed) as u64,
            retries: of(&self.counters.retries),
            errors: self.counters.errors.iter().map(of).collect(),
            maybe_executed: of(&self.counters.maybe_executed),
            fallbacks: of(&self.counters.fallbacks),
            held_back: of(&self.counters.held_back),
            transactions: of(&self.counters.transactions),
            deeds: self.counters.deeds.counts(),
            subscriptions: 0,
            subscription_rows: Vec::new(),
            lacks_rows: nodes.is_none(),
            nodes: nodes.unwrap_or_default(),
        }
    }

    /// How many calls are admitted at this moment.
    pub(crate) fn active(&self) -> &AtomicUsize {
        &self.life.calls.active
    }

    /// Counts an error that a caller gets. Its status becomes CLOSED if a close ended the call.
    pub(crate) fn report(&self, error: Error) -> Error {
        if error.has(flags::MAYBE_EXECUTED) {
            self.counters.maybe_executed.fetch_add(1, Ordering::Relaxed);
        }
        let by_close = self.is_closed() && !matches!(error.status(), Status::Server | Status::Closed);
        let error = if by_close { self.ended_by_close(error) } else { error };
        let place = Status::ALL.iter().position(|info| info.status == error.status());
        place
            .and_then(|at| self.counters.errors.get(at))
            .iter()
            .for_each(|one| _ = one.fetch_add(1, Ordering::Relaxed));
        error
    }

    fn ended_by_close(&self, error: Error) -> Error {
        let text = format!("{}; until then", self.closed_text());
        error.in_context(text).with_status(Status::Closed).without_flags(flags::RETRYABLE)
    }

    /// Notes the socket of a blocking command, so that a close can end it.
    pub(crate) fn note_blocking(&self, socket: &Arc<Socket>) {
        let mut blocking = self.life.blocking.lock();
        blocking.retain(|socket| socket.strong_count() > 0);
        blocking.push(Arc::downgrade(socket));
        drop(blocking);
        if self.is_closed() {
            socket.shutdown_as(End::Closed);
        }
    }

    /// Forgets the socket, because the blocking command is over.
    pub(crate) fn forget_blocking(&self, socket: &Arc<Socket>) {
        self.life.blocking.lock().retain(|noted| !std::ptr::eq(noted.as_ptr(), Arc::as_ptr(socket)));
    }

    /// Begins a close: admits nothing new, and ends blocking commands. Returns how many.
    pub(crate) fn shut(&self) -> usize {
        self.life.closed.store(true, Ordering::Release);
        let blocking = std::mem::take(&mut *self.life.blocking.lock());
        blocking.iter().filter_map(Weak::upgrade).inspect(|socket| socket.shutdown_as(End::Closed)).count()
    }

    /// The error of a call whose connection broke: if the close of this client ended it, that is said in place of what was seen of it.
    pub(crate) fn explain_end(&self, plan: &Plan<'_>, error: Error) -> Error {
        let by_close = self.is_ended() || (plan.blocks.is_some() && self.is_closed());
        match by_close && error.status() == Status::Io {
            true => error.caused_by(Status::Closed, self.closed_text()),
            false => error,
        }
    }

    /// What the calls are told that a close has ended.
    pub(super) fn closed_text(&self) -> String {
        let closed = || format!("the client of service {} was closed", quoted(self.service.name()));
        self.life.why.load().as_deref().map_or_else(closed, |why| (*why).to_owned())
    }

    /// Waits until no call is running, or until the deadline. Returns how many are running.
    pub(crate) fn await_idle(&self, deadline: Deadline) -> usize {
        self.service.wake();
        let mut idle = self.life.idle.lock();
        self.life.changed.notify_all();
        loop {
            // Read once: a call that comes after this is refused, and is none to wait for.
            let running = self.life.calls.active.load(Ordering::Acquire);
            if running == 0 || deadline.is_over() {
                return running;
            }
            idle = self.life.changed.wait_timeout(idle, deadline.left_or(LOOK));
        }
    }

    /// Ends a close: no attempt begins any more.
    pub(super) fn end(&self) {
        self.life.ended.store(true, Ordering::Release);
    }
}

/// An admitted call.
pub(crate) struct CallGuard<'a>(&'a Context);

impl Drop for CallGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}
