//! What a client and its sessions share: settings, the way to the pools, counters, and whether it is open.
//!
//! Guarantees: a close lets nothing new in, ends blocking commands at once and everything else at its deadline; when the last
//! handle is gone the connections are too.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::Target;
use super::lag;
use super::line::{LINES, Line};
use super::route::View;
use super::scan::Scans;
use crate::config::{ClientSettings, Config};
use crate::error::{Error, Result, Status, flags, quoted};
use crate::net::{Conn, ConnectOptions, Socket};
use crate::resp::{Reply, ReplyBuilder};
use crate::sys::apart::Apart;
use crate::sys::random;
use crate::time::Deadline;
use crate::topology::{Child, Sentinel, Service};

/// What a client and its sessions share.
pub(super) struct Core {
    pub(super) sentinel: Arc<Sentinel>,
    pub(super) service: Arc<Service>,
    pub(super) target: Target,
    pub(super) settings: ArcSwap<ClientSettings>,
    pub(super) overrides: Option<Config>,
    pub(super) view: ArcSwap<View>,
    /// One thread at a time makes a new view.
    pub(super) renewal: Mutex<()>,
    /// Whose turn it is among the replicas.
    pub(super) turn: AtomicUsize,
    /// Whose the cursors of scans are.
    pub(super) scans: Mutex<Scans>,
    /// How far the replicas are behind.
    pub(super) lag: lag::Watch,
    pub(super) counters: Counters,
    /// Submitted calls that cannot start at once, or have to be tried again.
    lines: [Arc<Line>; LINES],
    orders: AtomicU64,
    life: Life,
}

/// Whether the client is open, and who is inside.
#[derive(Default)]
struct Life {
    closed: AtomicBool,
    /// The time of the close is over: nothing begins any more.
    ended: AtomicBool,
    traffic: Apart<Traffic>,
    /// The sockets of blocking commands under way: a close ends them at once.
    blocking: Mutex<Vec<Weak<Socket>>>,
    door: Mutex<()>,
    changed: Condvar,
}

/// What each call writes to when it enters and when it leaves.
#[derive(Default)]
struct Traffic {
    active: AtomicUsize,
    calls: AtomicU64,
}

/// What a client counts.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) retries: AtomicU64,
    errors: AtomicU64,
    maybe_executed: AtomicU64,
    pub(super) fallbacks: AtomicU64,
}

impl Core {
    pub(super) fn new(
        sentinel: &Arc<Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Arc<Self>> {
        if sentinel.is_closed() {
            return Err(Error::new(Status::Closed, "the sentinel handle is closed"));
        }
        let base = sentinel.settings();
        let settings = overrides.map_or_else(|| Ok(base.client.clone()), |config| config.overlay(&base.client))?;
        settings.settle_with(&base.sentinel)?;
        let name = service.or(base.service.as_deref()).unwrap_or_default();
        if name.is_empty() {
            let text = "no service: name it in the call, in the URI, or in the option \"service\"";
            return Err(Error::new(Status::Config, text));
        }
        let core = Arc::new_cyclic(|me: &Weak<Self>| Self {
            sentinel: Arc::clone(sentinel),
            service: sentinel.service(name),
            target,
            settings: ArcSwap::from_pointee(settings),
            overrides: overrides.cloned(),
            view: ArcSwap::default(),
            renewal: Mutex::default(),
            turn: AtomicUsize::new(random::rng().usize(..)),
            scans: Mutex::default(),
            lag: lag::Watch::new(Weak::clone(me)),
            counters: Counters::default(),
            lines: std::array::from_fn(|number| Line::new(Weak::clone(me), number)),
            orders: AtomicU64::new(0),
            life: Life::default(),
        });
        let child: Weak<dyn Child> = Arc::downgrade(&core) as Weak<dyn Child>;
        sentinel.adopt(child);
        Ok(core)
    }

    /// For what must not keep it alive.
    pub(super) fn myself(&self) -> Weak<Self> {
        self.lag.core()
    }

    pub(super) fn line(&self, number: usize) -> &Arc<Line> {
        &self.lines[number]
    }

    /// The place of the next submitted call among all of this client.
    pub(super) fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn settings(&self) -> Guard<Arc<ClientSettings>> {
        self.settings.load()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.life.closed.load(Ordering::Acquire)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.life.ended.load(Ordering::Acquire)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.is_closed() {
            true => Err(Error::new(
                Status::Closed,
                format!("the client of service {} is closed", quoted(self.service.name())),
            )),
            false => Ok(()),
        }
    }

    /// Counts a call that is inside, so that a close can wait for it.
    pub(super) fn enter(&self) -> Result<Inside<'_>> {
        let inside = self.come_in()?;
        self.life.traffic.calls.fetch_add(1, Ordering::Relaxed);
        Ok(inside)
    }

    /// The same without counting it.
    fn come_in(&self) -> Result<Inside<'_>> {
        self.life.traffic.active.fetch_add(1, Ordering::AcqRel);
        let inside = Inside(self);
        self.check_open()?;
        Ok(inside)
    }

    pub(super) fn count_retry(&self) {
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls are inside.
    pub(super) fn in_flight(&self) -> &AtomicUsize {
        &self.life.traffic.active
    }

    /// Counts an error, and says CLOSED of what a close ended.
    pub(super) fn told(&self, error: Error) -> Error {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        if error.has(flags::MAYBE_EXECUTED) {
            self.counters.maybe_executed.fetch_add(1, Ordering::Relaxed);
        }
        let ended = self.is_closed() && error.status() != Status::Server;
        if ended { error.with_status(Status::Closed).without_flags(flags::RETRYABLE) } else { error }
    }

    /// Notes the socket of a blocking command, so that a close can end it.
    pub(super) fn note_blocking(&self, socket: &Arc<Socket>) {
        let mut blocking = lock(&self.life.blocking);
        blocking.retain(|socket| socket.strong_count() > 0);
        blocking.push(Arc::downgrade(socket));
        drop(blocking);
        if self.is_closed() {
            socket.shutdown();
        }
    }

    /// Its socket serves something else again.
    pub(super) fn forget_blocking(&self, socket: &Arc<Socket>) {
        lock(&self.life.blocking).retain(|noted| !std::ptr::eq(noted.as_ptr(), Arc::as_ptr(socket)));
    }

    pub(super) fn close(&self, deadline: Deadline) -> Result<()> {
        self.life.closed.store(true, Ordering::Release);
        self.lines.iter().for_each(Line::kick);
        let blocking = std::mem::take(&mut *lock(&self.life.blocking));
        blocking.iter().filter_map(Weak::upgrade).for_each(|socket| socket.shutdown());
        let mut door = lock(&self.life.door);
        self.life.changed.notify_all();
        self.service.wake();
        while self.life.traffic.active.load(Ordering::Acquire) > 0 && !deadline.is_over() {
            // A call that left just before it could see the close does not knock: look again soon.
            let wait = deadline.left_or(Duration::from_millis(20));
            door = self.life.changed.wait_timeout(door, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(door);
        let running = self.life.traffic.active.load(Ordering::Acquire);
        self.end_pools();
        self.lines.iter().for_each(Line::kick);
        self.service.wake();
        if running == 0 {
            return Ok(());
        }
        let (name, after) = (quoted(self.service.name()), deadline.elapsed().as_millis());
        let text = format!(
            "closing the client of service {name}: {running} calls were running after {after} ms and were ended"
        );
        Err(Error::new(Status::Timeout, text))
    }

    pub(super) fn disconnect(&self) {
        self.view.load().pools().for_each(|pool| pool.disconnect());
    }

    fn end_pools(&self) {
        let _renewal = lock(&self.renewal);
        self.life.ended.store(true, Ordering::Release);
        let view = self.view.swap(Arc::default());
        let cause =
            Error::new(Status::Closed, format!("the client of service {} was closed", quoted(self.service.name())));
        view.pools().for_each(|pool| pool.retire(cause.clone()));
    }

    pub(super) fn topology(&self) -> Result<Reply> {
        self.sentinel.topology(Some(self.service.name()))
    }

    pub(super) fn stats(&self) -> Result<Reply> {
        let mut map = ReplyBuilder::new();
        map.map();
        let calls = &self.life.traffic.calls;
        let Counters { retries, errors, maybe_executed, fallbacks } = &self.counters;
        let named = ["calls", "retries", "errors", "maybe_executed", "fallbacks"];
        for (name, counter) in named.into_iter().zip([calls, retries, errors, maybe_executed, fallbacks]) {
            map.text(name).int(counter.load(Ordering::Relaxed) as i64);
        }
        map.text("pools").array();
        for (pool, role) in self.view.load().pools_with_roles() {
            let counts = pool.counts();
            map.map().text("endpoint").text(pool.name()).text("role").text(role);
            for (name, value) in [
                ("size", counts.total),
                ("lanes", counts.lanes),
                ("idle", counts.idle),
                ("in_use", counts.lent),
                ("waiting", counts.waiting),
                ("in_flight", counts.in_flight),
                ("served", counts.served),
            ] {
                map.text(name).int(value as i64);
            }
            map.text("srtt_us").int(pool.srtt().map_or(-1, |srtt| srtt.as_micros() as i64)).end();
        }
        map.end().end().try_finish()
    }
}

impl Child for Core {
    fn close(&self, deadline: Deadline) -> Result<()> {
        Core::close(self, deadline)
    }

    fn changed(&self, service: &str) {
        if service == self.service.name() {
            drop(self.current_view());
            self.lines.iter().for_each(Line::kick);
        }
    }

    /// Only calls that are inside make a use of it sure.
    fn offer(&self, service: &str, conn: Conn, options: &ConnectOptions) -> Option<Conn> {
        let is_awaited = service == self.service.name()
            && self.target != Target::Replica
            && self.in_flight().load(Ordering::Acquire) > 0;
        if !is_awaited {
            return Some(conn);
        }
        match &self.current_view().primary {
            Some(pool) => pool.offer(conn, options),
            None => Some(conn),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.end_pools();
    }
}

/// A call inside a client.
pub(super) struct Inside<'a>(&'a Core);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.life.leave();
    }
}

impl Life {
    fn leave(&self) {
        if self.traffic.active.fetch_sub(1, Ordering::AcqRel) == 1 && self.closed.load(Ordering::Acquire) {
            drop(lock(&self.door));
            self.changed.notify_all();
        }
    }
}

/// A submitted call inside a client, which it keeps alive. Each copy counts as a call; the first one is the submit itself.
pub(super) struct Stay(Arc<Core>);

impl Stay {
    pub(super) fn new(core: &Arc<Core>) -> Result<Self> {
        std::mem::forget(core.come_in()?);
        Ok(Self(Arc::clone(core)))
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Clone for Stay {
    fn clone(&self) -> Self {
        self.0.life.traffic.active.fetch_add(1, Ordering::AcqRel);
        self.0.life.traffic.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.life.leave();
    }
}

/// Nothing under these locks leaves a half-made state behind.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
