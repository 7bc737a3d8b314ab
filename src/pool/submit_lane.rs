//! Lanes for submitted calls. Each is driven by a drain that waits on a queue, or by the poller: one worker for the whole process.
//!
//! Guarantees: while a submitted call is in flight its lane is driven when its socket is ready and when its deadline comes; the poller
//! does not interfere with a thread that submits and drains in turn; the poller's job ends after a while without work. Blocking calls
//! use such a lane only if the pool has no place for another connection. Leaves to others: what a completion means (submit).

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::lanes::stays;
use super::{Inner, Loan, Pool};
use crate::config::LaneSettings;
use crate::error::{Error, Result, Status};
use crate::lane::{Bytes, Completion, Driven, Lane, Unit};
use crate::meter::End;
use crate::resp::encode;
use crate::sys::fork::PerProcess;
use crate::sys::poll::{self, PollFd};
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use crate::sys::waker::Waker;
use crate::time::{Deadline, Instant};
use crate::worker::{self, Host};

/// For how long the poller leaves a lane to a drain that has just ended, because the drain is likely to be repeated.
const DRAIN_GRACE: Duration = Duration::from_millis(5);
/// How often the poller checks whether a drain still drives a lane.
const DRAIN_CHECK: Duration = Duration::from_millis(10);
/// For how long the poller leaves a lane to a caller that has the reader's role.
const READER_GRACE: Duration = Duration::from_millis(1);
/// Two batches may be unanswered: while the server works on one, the next one is being written.
const BATCHES: usize = 2;
/// How long the server may take to end a blocking command that it was asked to end.
pub const UNBLOCKING: Duration = Duration::from_millis(50);
/// The poller forgets a lane that has been idle for this long; the pool's upkeep still checks it.
const IDLE: Duration = Duration::from_secs(2);

/// The kinds of submitted calls. Each has lanes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Ordinary calls, in the order of their start.
    Plain,
    /// Writes with their WAIT, which holds up whatever comes after it (rule 17).
    Durable,
    /// A single call that has its connection to itself, because it blocks, or may end the connection.
    Dedicated,
}

/// A lane for submitted calls.
pub struct SubmitLane {
    lane: Arc<Lane>,
    /// Its connection was opened for submitted calls, and blocking calls do not use it.
    pub(super) own: bool,
    /// Of a dedicated lane: a call has it.
    claimed: AtomicBool,
    /// Of a dedicated lane: its pool, and the server's number of the connection if it gave one.
    unblock: Option<(Weak<Pool>, u64)>,
    /// The server was asked to end its blocking command. That may come late, and must not meet another command.
    asked_to_unblock: AtomicBool,
    born: Instant,
    drains: AtomicUsize,
    /// Until when the poller leaves it alone, in microseconds since `born`.
    left_until: AtomicU64,
    /// The poller knows of it.
    registered: AtomicBool,
    /// When the poller looks at it next at the latest, in microseconds since `born`.
    next_look: AtomicU64,
}

impl SubmitLane {
    fn new(lane: Arc<Lane>, own: bool, unblock: Option<(Weak<Pool>, u64)>) -> Arc<Self> {
        Arc::new(Self {
            lane,
            own,
            claimed: AtomicBool::new(false),
            unblock,
            asked_to_unblock: AtomicBool::new(false),
            born: Instant::now(),
            drains: AtomicUsize::new(0),
            left_until: AtomicU64::new(0),
            registered: AtomicBool::new(false),
            next_look: AtomicU64::new(0),
        })
    }

    /// Makes a lane of a connection on loan, for the submitted calls of its one user. It ends with the loan, whose end its reader finds.
    pub fn of_loan(loan: &mut Loan) -> Option<Arc<Self>> {
        let conn = loan.take()?;
        let (carries, pool) = (conn.carries_transactions(), loan.pool());
        let settings = LaneSettings { hold_batches: BATCHES, ..pool.lane_settings };
        let unblock = Some((Arc::downgrade(pool), conn.info().id));
        let lane = Lane::new(conn.into_wire(), pool.name.clone(), settings).untimed();
        lane.set_transactions(carries);
        Some(Self::new(Arc::new(lane), true, unblock))
    }

    /// Starts a call, as [`Lane::start`], on a lane that is driven from then on.
    #[inline]
    pub fn start(
        self: &Arc<Self>,
        unit: Unit<'_>,
        deadline: Deadline,
        call: Arc<dyn Completion>,
        of_list: Option<Instant>,
    ) -> Result<()> {
        let due = self.lane.start(unit, deadline, call, of_list)?;
        self.register(due);
        Ok(())
    }

    /// Sends what [`SubmitLane::start`] has left in the buffer for the calls of a list.
    pub fn send(self: &Arc<Self>) {
        if let Some(due) = self.lane.send_now() {
            self.register(Some(due));
        }
    }

    /// The lane.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Ends the claim of the one call that had it. With a `cause` the connection is closed: a reply may still be due on it. It is closed
    /// too if CLIENT UNBLOCK was sent for it, because that could end the next command.
    pub fn release(&self, cause: Option<Error>) {
        let asked = self.asked_to_unblock.load(Ordering::Acquire);
        let unblocked = || Error::new(Status::Io, "its blocking command was to be ended by the server");
        if let Some(cause) = cause.or_else(|| asked.then(unblocked)) {
            self.lane.note_end(End::GivenUp);
            self.lane.shut(cause);
        }
        self.claimed.store(false, Ordering::Release);
    }

    /// Asks the server, on another connection, to end the blocking command on this one. False: the server has not numbered it.
    pub fn unblock(&self) -> bool {
        let Some((pool, number)) = self.unblock.as_ref().filter(|(_, number)| *number != 0) else { return false };
        let Some(pool) = pool.upgrade() else { return false };
        self.asked_to_unblock.store(true, Ordering::Release);
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &[b"CLIENT", b"UNBLOCK", number.to_string().as_bytes()]);
        let asked = worker::dial(Host::of(pool.name()), true, move || {
            let unit = Unit { bytes: Bytes::Raw(&bytes), list: None, at_most_once: true, lease: None, atomic: false };
            // The caller waits for the command to end, and closes its connection if it does not.
            drop(pool.exec_among(unit, false, Deadline::after(UNBLOCKING), None, &|| Ok(())));
        });
        asked.is_ok()
    }

    /// Takes a dedicated lane for one call. False: another one has it.
    pub(super) fn claim(&self) -> bool {
        !self.lane.is_dead() && self.lane.in_flight() == 0 && !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// The socket's descriptor, for poll.
    pub fn fd(&self) -> RawFd {
        self.lane.fd()
    }

    /// A drain drives it from now on.
    pub fn begin_drain(&self) {
        self.drains.fetch_add(1, Ordering::AcqRel);
    }

    /// The drain has ended.
    pub fn end_drain(&self) {
        self.leave_alone(DRAIN_GRACE);
        self.drains.fetch_sub(1, Ordering::AcqRel);
    }

    fn leave_alone(&self, time: Duration) {
        self.left_until.store(self.micros(Instant::now() + time), Ordering::Release);
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_micros() as u64
    }

    /// Registers it with the poller, which drives it at `due` at the latest.
    #[inline]
    fn register(self: &Arc<Self>, due: Option<Instant>) {
        if !self.registered.swap(true, Ordering::AcqRel) {
            poller().add(self);
        } else if due.is_some_and(|due| self.micros(due) < self.next_look.load(Ordering::Acquire)) {
            poller().wake();
        }
    }

    /// When the poller may drive it; `None`: now.
    fn free_at(&self, now: Instant) -> Option<Instant> {
        if self.drains.load(Ordering::Acquire) > 0 {
            return Some(now + DRAIN_CHECK);
        }
        let until = self.born + Duration::from_micros(self.left_until.load(Ordering::Acquire));
        (until > now).then_some(until)
    }
}

impl Pool {
    /// The lane for submitted calls of this kind, if it is open. A dedicated lane has to be claimed instead.
    pub fn submit_lane(&self, traffic: Traffic) -> Option<Arc<SubmitLane>> {
        self.slot(traffic)?.load_full().filter(|submit_lane| !submit_lane.lane.is_dead())
    }

    fn slot(&self, traffic: Traffic) -> Option<&ArcSwapOption<SubmitLane>> {
        match traffic {
            Traffic::Plain => Some(&self.submit_lanes[0]),
            Traffic::Durable => Some(&self.submit_lanes[1]),
            Traffic::Dedicated => None,
        }
    }

    /// The lane for submitted calls of this kind, which is opened if there is none. Without a place for another connection ordinary
    /// calls share the pool's first lane. `None`: there is no place at the moment.
    pub fn open_submit_lane(self: &Arc<Self>, traffic: Traffic, deadline: Deadline) -> Result<Option<Arc<SubmitLane>>> {
        if let Some(submit_lane) = self.submit_lane(traffic).or_else(|| self.claim_dedicated(traffic)) {
            return Ok(Some(submit_lane));
        }
        // A lane that has ended frees its place.
        self.drop_dead_lanes();
        if self.reserve() {
            return self.open_own(traffic, deadline).map(Some);
        }
        self.lock().check()?;
        if traffic != Traffic::Plain {
            return Ok(None);
        }
        let submit_lane = SubmitLane::new(self.first_lane(deadline)?, false, None);
        let mut inner = self.lock();
        inner.check()?;
        replace(&mut inner, &self.submit_lanes[0], &submit_lane);
        Ok(Some(submit_lane))
    }

    /// Opens a lane on a connection of its own, in a place that was reserved.
    fn open_own(self: &Arc<Self>, traffic: Traffic, deadline: Deadline) -> Result<Arc<SubmitLane>> {
        let (conn, round) = self.open(deadline).inspect_err(|_| self.free_place(&mut self.lock()))?;
        self.start_upkeep();
        let settings = LaneSettings { hold_batches: BATCHES, ..self.lane_settings };
        let unblock = (traffic == Traffic::Dedicated).then(|| (Arc::downgrade(self), conn.info().id));
        let lane = Lane::new(conn.into_wire(), self.name.clone(), settings);
        let lane = Arc::new(if traffic == Traffic::Dedicated { lane.untimed() } else { lane });
        self.place(SubmitLane::new(lane, true, unblock), traffic, round)
    }

    /// Opens successors of lanes that are too old although they are in use.
    pub(super) fn replace_old_submit_lanes(self: &Arc<Self>, is_old: impl Fn(&Lane) -> bool) {
        for traffic in [Traffic::Plain, Traffic::Durable] {
            let old = self.submit_lane(traffic).filter(|submit_lane| submit_lane.own && is_old(&submit_lane.lane));
            let limit = Deadline::after(self.connect.load().timeout_connect);
            if old.is_some() && (!self.reserve() || self.open_own(traffic, limit).is_err()) {
                return;
            }
        }
    }

    fn claim_dedicated(&self, traffic: Traffic) -> Option<Arc<SubmitLane>> {
        let inner = self.lock();
        let mut submit_lanes = inner.dedicated.iter().filter(|_| traffic == Traffic::Dedicated);
        submit_lanes.find(|submit_lane| submit_lane.claim()).cloned()
    }

    fn place(&self, submit_lane: Arc<SubmitLane>, traffic: Traffic, round: u64) -> Result<Arc<SubmitLane>> {
        let mut inner = self.lock();
        if let Err(cause) = inner.check() {
            self.free_place(&mut inner);
            return Err(cause);
        }
        if round != inner.loans.round() {
            // The options have changed since it was opened: it serves one call.
            submit_lane.lane.note_end(End::Disconnected);
            inner.draining.push(Arc::clone(&submit_lane.lane));
            return Ok(submit_lane);
        }
        match self.slot(traffic) {
            Some(slot) => replace(&mut inner, slot, &submit_lane),
            None => {
                submit_lane.claim();
                inner.dedicated.push(Arc::clone(&submit_lane));
            }
        }
        Ok(submit_lane)
    }

    /// All lanes that only submitted calls use.
    pub(super) fn own_submit_lanes(&self) -> Vec<Arc<Lane>> {
        let dedicated = self.lock().dedicated.clone();
        let submit_lanes = self.submit_lanes.iter().filter_map(|slot| slot.load_full());
        submit_lanes
            .chain(dedicated)
            .filter(|submit_lane| submit_lane.own)
            .map(|submit_lane| Arc::clone(&submit_lane.lane))
            .collect()
    }

    /// Takes the lanes out of use to which `ends` gives a reason; calls in flight on them go on.
    pub(super) fn drain_submit_lanes(&self, inner: &mut Inner, ends: impl Fn(&Lane) -> Option<End>) {
        for slot in &self.submit_lanes {
            let Some(submit_lane) = slot.load_full() else { continue };
            let is_shared = || self.lanes.load().iter().any(|lane| Arc::ptr_eq(lane, &submit_lane.lane));
            if if submit_lane.own { !stays(&submit_lane.lane, &ends) } else { !is_shared() } {
                slot.store(None);
                inner.draining.extend(Some(&submit_lane.lane).filter(|_| submit_lane.own).cloned());
            }
        }
        let (kept, gone): (Vec<_>, Vec<_>) =
            inner.dedicated.drain(..).partition(|submit_lane| stays(&submit_lane.lane, &ends));
        inner.dedicated = kept;
        inner.draining.extend(gone.iter().map(|submit_lane| Arc::clone(&submit_lane.lane)));
    }
}

/// Puts a lane where new calls find it. The lane that was there before counts until it has answered everything.
fn replace(inner: &mut Inner, slot: &ArcSwapOption<SubmitLane>, submit_lane: &Arc<SubmitLane>) {
    let other = slot.swap(Some(Arc::clone(submit_lane)));
    other.iter().filter(|other| other.own).for_each(|other| other.lane.note_end(End::Lifetime));
    inner.draining.extend(other.filter(|other| other.own).map(|other| Arc::clone(&other.lane)));
}

/// Drives all submit lanes of the process that have calls in flight and that no drain drives.
struct Poller {
    registry: Lock<Registry>,
}

#[derive(Default)]
struct Registry {
    submit_lanes: Vec<Arc<SubmitLane>>,
    /// Its job runs on a worker.
    runs: bool,
    /// Wakes the job. Without one, because no descriptor was left, the job looks often instead.
    waker: Option<Arc<Waker>>,
}

static POLLER: PerProcess<Poller> = PerProcess::new();

fn poller() -> &'static Poller {
    POLLER.get_or_make(Poller::new)
}

impl Poller {
    fn new() -> Self {
        Self { registry: Lock::new(Rank::Poller, Registry::default()) }
    }

    fn add(&'static self, submit_lane: &Arc<SubmitLane>) {
        let mut registry = self.lock();
        registry.submit_lanes.push(Arc::clone(submit_lane));
        if registry.runs {
            drop(registry);
            return self.wake();
        }
        self.start(&mut registry);
    }

    #[inline]
    fn start(&'static self, registry: &mut Registry) {
        registry.runs = worker::run(|| self.run()).is_ok();
        if registry.runs {
            registry.waker = Waker::new().ok().map(Arc::new);
        } else {
            // No thread: drains drive the lanes, and the next call tries again.
            let unregister = |submit_lane: Arc<SubmitLane>| submit_lane.registered.store(false, Ordering::Release);
            registry.submit_lanes.drain(..).for_each(unregister);
        }
    }

    fn wake(&self) {
        let waker = self.lock().waker.clone();
        waker.iter().for_each(|waker| waker.wake());
    }

    fn lock(&self) -> Locked<'_, Registry> {
        self.registry.lock()
    }

    fn run(&'static self) {
        let restart = Restart(self);
        let mut submit_lanes = Vec::new();
        while let Some(waker) = self.gather(&mut submit_lanes) {
            poll_once(&submit_lanes, waker.as_deref());
        }
        std::mem::forget(restart);
    }

    /// The lanes to drive, and what wakes the job; `None`: there are no lanes, and the job ends.
    fn gather(&self, submit_lanes: &mut Vec<Arc<SubmitLane>>) -> Option<Option<Arc<Waker>>> {
        let mut registry = self.lock();
        registry.submit_lanes.retain(|submit_lane| {
            let idle = submit_lane.lane.idle_for();
            let over = if submit_lane.lane.is_dead() { submit_lane.lane.in_flight() == 0 } else { idle > IDLE };
            if !over {
                return true;
            }
            submit_lane.registered.store(false, Ordering::SeqCst);
            // A call that started at this moment may have found it registered.
            submit_lane.lane.idle_for().is_zero()
                && !submit_lane.lane.is_dead()
                && !submit_lane.registered.swap(true, Ordering::SeqCst)
        });
        submit_lanes.clone_from(&registry.submit_lanes);
        if submit_lanes.is_empty() {
            (registry.runs, registry.waker) = (false, None);
            return None;
        }
        Some(registry.waker.clone())
    }
}

/// Waits once, and drives the lanes that are ready or due.
fn poll_once(submit_lanes: &[Arc<SubmitLane>], waker: Option<&Waker>) {
    let now = Instant::now();
    let mut next = now + if waker.is_some() { IDLE } else { DRAIN_CHECK };
    // The upkeep of pools is due while this job lasts, too.
    next = worker::keep_the_clock().map_or(next, |due| due.min(next));
    let mut fds = vec![PollFd::new(waker.map_or(-1, Waker::fd), true, false)];
    let mut full = Vec::with_capacity(submit_lanes.len());
    for submit_lane in submit_lanes {
        let free_at = submit_lane.free_at(now);
        let due = submit_lane.lane.next_due();
        next = [free_at, due].into_iter().flatten().fold(next, Instant::min);
        let fd = if free_at.is_some() { -1 } else { submit_lane.fd() };
        let wants_write = submit_lane.lane.wants_write();
        fds.push(PollFd::new(fd, true, wants_write));
        full.push(wants_write);
    }
    let note_look = |submit_lane: &Arc<SubmitLane>| {
        submit_lane.next_look.store(submit_lane.micros(next), Ordering::Release);
    };
    submit_lanes.iter().for_each(note_look);
    // What changed between the look and the store is found here: a nearer deadline, or a socket that was filled.
    let filled = submit_lanes.iter().zip(full).any(|(submit_lane, full)| !full && submit_lane.lane.wants_write());
    let nearest = || submit_lanes.iter().filter_map(|submit_lane| submit_lane.lane.next_due()).min();
    let due = if filled { Some(now) } else { nearest() };
    let early = due.map_or(next, |due| due.min(next));
    // After a failure of poll all are driven: that never waits.
    let failed = poll::wait(&mut fds, Some(early.saturating_duration_since(Instant::now()))).is_err();
    if fds[0].readable() {
        waker.iter().for_each(|waker| waker.clear());
    }
    let now = Instant::now();
    for (submit_lane, fd) in submit_lanes.iter().zip(&fds[1..]) {
        let lane = &submit_lane.lane;
        let is_due = lane.next_due().is_some_and(|due| due <= now);
        let is_ready = failed || fd.readable() || fd.writable() || is_due || lane.wants_write();
        if is_ready && lane.drive() == Driven::Busy {
            submit_lane.leave_alone(READER_GRACE);
        }
    }
}

/// Starts the poller's job again after a panic in a completion. The lane of that completion has been ended by its own guard.
struct Restart(&'static Poller);

impl Drop for Restart {
    fn drop(&mut self) {
        self.0.start(&mut self.0.lock());
    }
}
