//! The choice of a lane: one for each call while few calls are in flight, and a shared one above that.
//!
//! Guarantees: a call does not wait for a new connection if there is one that it can share; the first lane is opened by the caller
//! that needs it (the others wait for that attempt and share its error, unless it takes long), and further lanes by a worker. The
//! thresholds were found by measurement, and are options (`lane.*`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Inner, Pool};
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Failure, Lane, Outcome, Unit};
use crate::meter::End;
use crate::time::Deadline;
use crate::worker::{self, Host};

/// If an attempt at the first lane takes longer, a packet may have been lost: another caller makes a second attempt beside it.
const SLOW: Duration = Duration::from_millis(250);
/// The longest wait for an attempt that will notify.
const LONG: Duration = Duration::from_secs(60);
/// How often a caller that waits for a place for the first lane looks for one.
const LOOK: Duration = Duration::from_millis(5);

/// The load is measured at every 16th call of a lane, because reading the counters of other lanes costs more than the call's own
/// lock.
const SAMPLE_EVERY: u32 = 16;

/// Runs a transaction on a lane, which is asked first whether it carries one.
#[cold]
fn run_transaction(lane: &Lane, unit: Unit<'_>, deadline: Deadline, may_go: &dyn Fn() -> Result<()>) -> Outcome {
    if !lane.carries_transactions() {
        lane.prepare_transaction(deadline)?;
        may_go().map_err(Failure::unsent)?;
    }
    lane.exec(unit, deadline)
}

impl Pool {
    /// Sends a unit on the lane that fits, and waits for its replies. With `slow` it avoids the lane that other calls share. A lane
    /// that turns out to be dead before a byte was sent is replaced by another one.
    pub fn exec(self: &Arc<Self>, unit: Unit<'_>, slow: bool, deadline: Deadline) -> Outcome {
        self.exec_among(unit, slow, deadline, None, &|| Ok(()))
    }

    /// As [`Pool::exec`]. `calls`: the number of calls that the client has in flight. `may_go` is called if the call had to wait
    /// for a connection.
    #[inline(always)]
    pub fn exec_among(
        self: &Arc<Self>,
        unit: Unit<'_>,
        slow: bool,
        deadline: Deadline,
        calls: Option<&AtomicUsize>,
        may_go: &dyn Fn() -> Result<()>,
    ) -> Outcome {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut lanes_left = self.lanes_at_most();
        loop {
            let lane = self.lane(slow, deadline, may_go).map_err(Failure::unsent)?;
            let outcome = match unit.atomic {
                true => run_transaction(&lane, unit, deadline, may_go),
                false => lane.exec_among(unit, deadline, calls),
            };
            match outcome {
                Err(failure) if lane.is_dead() => {
                    self.drop_dead_lanes();
                    // The server may have closed all idle lanes at once: each is found dead before a byte was sent.
                    if failure.sent > 0 || lanes_left == 0 || deadline.is_over() {
                        return Err(failure);
                    }
                    lanes_left -= 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The lane for the next call.
    fn lane(self: &Arc<Self>, slow: bool, deadline: Deadline, may_go: &dyn Fn() -> Result<()>) -> Result<Arc<Lane>> {
        let lanes = self.lanes.load();
        if lanes.is_empty() || lanes.iter().any(|lane| lane.is_dead()) {
            drop(lanes);
            self.drop_dead_lanes();
            let lane = self.first_lane(deadline)?;
            may_go()?;
            return Ok(lane);
        }
        if slow {
            return Ok(self.slow_lane(&lanes));
        }
        let lane = self.choose(&lanes);
        if lane.pushes() % SAMPLE_EVERY == 0 {
            self.sample(&lanes);
        }
        Ok(Arc::clone(lane))
    }

    fn choose<'a>(self: &Arc<Self>, lanes: &'a [Arc<Lane>]) -> &'a Arc<Lane> {
        let shared = f64::from(self.load.load(Ordering::Relaxed)) >= self.lane_settings.share_at * 256.0;
        if !shared {
            let own = &lanes[thread_number() % lanes.len()];
            if own.in_flight() == 0 {
                return own;
            }
            if let Some(idle) = lanes.iter().find(|lane| lane.in_flight() == 0) {
                return idle;
            }
            self.grow(lanes.len());
        }
        match lanes.iter().find(|lane| !lane.is_busy()) {
            Some(lane) => lane,
            None => {
                self.grow(lanes.len());
                &lanes[0]
            }
        }
    }

    /// A slow call uses the last lane. If there is only one a second is opened for the next time.
    fn slow_lane(self: &Arc<Self>, lanes: &[Arc<Lane>]) -> Arc<Lane> {
        if lanes.len() == 1 {
            self.grow(1);
        }
        Arc::clone(&lanes[lanes.len() - 1])
    }

    fn sample(&self, lanes: &[Arc<Lane>]) {
        let now: u32 = lanes.iter().map(|lane| lane.in_flight()).sum::<u32>() * 256;
        let mean = self.load.load(Ordering::Relaxed);
        let next = if now > mean { mean + (now - mean).div_ceil(4) } else { mean - (mean - now) / 4 };
        self.load.store(next, Ordering::Relaxed);
    }

    /// Opens one more lane in the background, if there may be one.
    fn grow(self: &Arc<Self>, lanes: usize) {
        let enough = lanes >= self.lanes_at_most() || self.grown.load(Ordering::Relaxed);
        if enough || self.pause.has_refused() || self.growing.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::downgrade(self);
        let begun = worker::dial(Host::of(self.name()), false, move || {
            let Some(pool) = pool.upgrade() else { return };
            let mut done = pool.reserve();
            if done {
                // A failure has no consequences: calls go on with the lanes that there are.
                let opened = pool.open(Deadline::after(pool.connect.load().timeout_connect));
                done = pool.settle(opened.ok().map(|(conn, round)| (pool.new_lane(conn), round)));
            }
            pool.grown.store(!done, Ordering::Relaxed);
            pool.growing.store(false, Ordering::Release);
        });
        if begun.is_err() {
            self.growing.store(false, Ordering::Release);
        }
    }

    /// Counts a connection that is about to be opened. False: there is no room for it.
    pub(super) fn reserve(&self) -> bool {
        let mut inner = self.lock();
        let room = inner.ended.is_none() && self.has_room(&inner);
        inner.total += usize::from(room);
        room
    }

    /// Whether there is room for another connection. One place is kept for the first lane, also while lanes drain.
    pub(super) fn has_room(&self, inner: &Inner) -> bool {
        let kept = usize::from(inner.first.opening == 0 && self.lanes.load().is_empty());
        inner.total + kept < self.settings.max
    }

    /// Adds a lane that was opened in a reserved place. False: it is not kept, and the place was given back.
    fn settle(&self, opened: Option<(Arc<Lane>, u64)>) -> bool {
        let mut inner = self.lock();
        let lanes = self.lanes.load_full();
        match opened {
            Some((lane, round))
                if inner.ended.is_none() && round == inner.loans.round() && lanes.len() < self.lanes_at_most() =>
            {
                let mut lanes = Vec::clone(&lanes);
                lanes.push(lane);
                self.lanes.store(Arc::new(lanes));
                true
            }
            opened => {
                opened.iter().for_each(|(lane, _)| lane.note_end(End::Idle));
                self.free_place(&mut inner);
                false
            }
        }
    }

    /// Replaces an older lane, which ends when it has answered everything, by one that was opened in a reserved place. False: the
    /// place was given back.
    pub(super) fn succeed(&self, old: &Arc<Lane>, opened: Option<(Arc<Lane>, u64)>) -> bool {
        let mut inner = self.lock();
        let mut lanes = Vec::clone(&self.lanes.load());
        let at = lanes.iter().position(|lane| Arc::ptr_eq(lane, old));
        match (opened, at) {
            (Some((lane, round)), Some(at)) if inner.ended.is_none() && round == inner.loans.round() => {
                old.note_end(End::Lifetime);
                inner.draining.push(std::mem::replace(&mut lanes[at], lane));
                self.lanes.store(Arc::new(lanes));
                // Submitted calls may have shared the older one.
                self.drain_submit_lanes(&mut inner, |_| None);
                true
            }
            _ => {
                self.free_place(&mut inner);
                false
            }
        }
    }

    /// Removes dead lanes from the choice.
    pub(super) fn drop_dead_lanes(&self) {
        // A dead lane knows itself why.
        self.keep_lanes(|lane| lane.is_dead().then_some(End::Lost));
    }

    /// Keeps the lanes in the choice to which `ends` gives no reason. The others end when nothing is in flight on them any more.
    pub(super) fn keep_lanes(&self, ends: impl Fn(&Lane) -> Option<End>) {
        self.drain_lanes(&mut self.lock(), ends);
    }

    pub(super) fn drain_lanes(&self, inner: &mut Inner, ends: impl Fn(&Lane) -> Option<End>) {
        let lanes = self.lanes.load_full();
        let (kept, gone): (Vec<_>, Vec<_>) = lanes.iter().cloned().partition(|lane| stays(lane, &ends));
        if !gone.is_empty() {
            self.lanes.store(Arc::new(kept));
            inner.draining.extend(gone);
        }
        self.drain_submit_lanes(inner, ends);
        self.drop_drained(inner);
    }

    /// Ends and forgets lanes that were removed from the choice, as soon as they have answered everything. Queues and submitted
    /// calls may hold them for longer, but a connection that no longer counts must not stay open for that.
    pub(super) fn drop_drained(&self, inner: &mut Inner) {
        let before = inner.draining.len();
        let unused = || Error::unused(&self.name);
        inner.draining.retain(|lane| !lane.is_dead() && !lane.shut_if_idle(unused));
        inner.total -= before - inner.draining.len();
        self.serve_waiting(inner);
    }

    /// Opens the first lane, or waits for the caller that is doing so.
    pub(super) fn first_lane(self: &Arc<Self>, deadline: Deadline) -> Result<Arc<Lane>> {
        let mut inner = self.lock();
        let (mut unlucky, mut waits) = (false, None);
        loop {
            inner.check()?;
            if let Some(lane) = self.lanes.load().first() {
                waits.iter().for_each(|begun: &Instant| self.meter.waited(begun.elapsed()));
                return Ok(Arc::clone(lane));
            }
            if deadline.is_over() {
                let text = format!("waiting for a connection to {}: no time was left", self.name);
                return Err(Error::new(Status::Timeout, text).with_endpoint(&self.name).with_flags(flags::RETRYABLE));
            }
            let Some(wait) = self.before_opening(&mut inner, unlucky) else { break };
            let attempt = inner.first.attempts;
            let wait = deadline.left_or(wait);
            waits.get_or_insert_with(Instant::now);
            inner = self.first_opened.wait_timeout(inner, wait);
            match &inner.first.failure {
                // Another caller's deadline, or a lost packet, says nothing about the node.
                Some(error) if inner.first.attempts > attempt && !is_late(error) => return Err(error.clone()),
                _ => unlucky |= inner.first.attempts > attempt,
            }
        }
        let changes = inner.first.changes;
        inner.first.opening += 1;
        inner.first.since = Some(Instant::now());
        inner.total += 1;
        drop(inner);
        let opened = self.open(deadline).map(|(conn, round)| (self.new_lane(conn), round));
        self.first_done(opened, changes)
    }

    /// How long a caller has to wait before it may open the first lane; `None`: it may now. `unlucky`: it has waited for an attempt
    /// that failed.
    fn before_opening(&self, inner: &mut Inner, unlucky: bool) -> Option<Duration> {
        let slow_in = inner.first.since.map_or(Duration::ZERO, |since| SLOW.saturating_sub(since.elapsed()));
        match inner.first.opening {
            0 if inner.total >= self.settings.max => {
                // Earlier lanes and loans take all places.
                self.drop_drained(inner);
                self.drop_idle(inner);
                (inner.total >= self.settings.max).then_some(LOOK)
            }
            0 if unlucky => self.pause_left(),
            0 => None,
            1 if slow_in.is_zero() && inner.total < self.settings.max => None,
            1 if !slow_in.is_zero() => Some(slow_in),
            _ => Some(LONG),
        }
    }

    /// `changes`: how often the options had changed when the attempt began.
    fn first_done(self: &Arc<Self>, opened: Result<(Arc<Lane>, u64)>, changes: u64) -> Result<Arc<Lane>> {
        let placed = self.settle(opened.as_ref().ok().cloned());
        let mut inner = self.lock();
        inner.first.opening -= 1;
        if inner.first.opening == 0 {
            inner.first.since = None;
        }
        inner.first.attempts += 1;
        inner.first.failure = opened.as_ref().err().filter(|_| inner.first.changes == changes).cloned();
        let ended = inner.check();
        drop(inner);
        self.first_opened.notify_all();
        // Another caller or a worker may have opened a lane in the meantime, or taken all places for lanes.
        let instead = if placed { None } else { self.lanes.load().first().cloned() };
        let lane = match (opened, instead) {
            (Ok((lane, _)), None) => lane,
            (Ok(_), Some(instead)) => instead,
            (Err(error), Some(instead)) if is_late(&error) => instead,
            (Err(error), _) => return Err(error),
        };
        if let Err(cause) = ended {
            lane.shut(cause.clone());
            return Err(cause);
        }
        self.start_upkeep();
        Ok(lane)
    }
}

/// Whether a lane stays in the choice. One that does not knows from then on why it ends.
pub(super) fn stays(lane: &Lane, ends: &impl Fn(&Lane) -> Option<End>) -> bool {
    let end = ends(lane);
    end.iter().for_each(|end| lane.note_end(*end));
    end.is_none()
}

/// Whether an attempt failed for lack of time.
fn is_late(error: &Error) -> bool {
    error.status() == Status::Timeout || error.errno() == libc::ETIMEDOUT
}

/// A small number for the calling thread. With it threads keep to lanes of their own as long as there are enough.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    // A thread that is ending has lost its number.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}
