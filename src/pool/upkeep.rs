//! The upkeep of a pool: keeps connections warm up to `pool.min`, closes idle and old ones, finds dead ones and replaces them.
//!
//! Guarantees: it begins with the first connection and ends with the pool. It never waits: connections are opened by jobs of their
//! own. Leaves to others: when a pool is looked after (sweep).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Pool;
use super::sweep::{self, Swept};
use crate::lane::Lane;
use crate::meter::End;
use crate::time::Deadline;
use crate::worker::{self, Host};

/// A connection that was silent for this long is sent a PING, because a host that vanished sends no reset.
const SILENT: Duration = Duration::from_secs(2);

impl Pool {
    /// Begins the upkeep, once: now, and then at every tick.
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.upkeep.is_some() || inner.ended.is_some() {
            return;
        }
        let pool: Weak<dyn Swept> = Arc::downgrade(self) as Weak<dyn Swept>;
        inner.upkeep = sweep::add(pool);
        drop(inner);
        self.open_what_lacks();
    }

    /// Has successors of old lanes and connections up to `pool.min` opened, if any are needed.
    fn open_what_lacks(self: &Arc<Self>) {
        let lacks = self.lock().total < self.settings.min
            || self.lanes.load().iter().chain(&self.own_submit_lanes()).any(|lane| self.is_old(lane));
        if !lacks || self.opening.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::downgrade(self);
        let begun = worker::dial(Host::of(self.name()), false, move || {
            let Some(pool) = pool.upgrade() else { return };
            let _done = OpeningMark(&pool);
            pool.replace_old();
            pool.refill();
        });
        if begun.is_err() {
            self.opening.store(false, Ordering::Release);
        }
    }

    /// Whether a lane is too old, and in use.
    fn is_old(&self, lane: &Lane) -> bool {
        let over = |lifetime: Duration| lane.born().elapsed() > lifetime;
        self.settings.lifetime.is_some_and(over) && !lane.is_dead() && lane.idle_for().is_zero()
    }

    /// Closes connections that have been idle for too long, down to `pool.min`, and those that are too old.
    fn close_idle(&self) {
        let spare = self.lock().total.saturating_sub(self.settings.min);
        let spare = std::cell::Cell::new(spare);
        let over = |idle_for: Duration| {
            let over = self.settings.idle.is_some_and(|limit| idle_for > limit) && spare.get() > 0;
            spare.set(spare.get() - usize::from(over));
            over
        };
        let lane_over = |lane: &Lane| {
            let idle_for = lane.idle_for();
            let old = self.settings.lifetime.is_some_and(|lifetime| lane.born().elapsed() > lifetime);
            match idle_for.is_zero() {
                true => None,
                false if old => Some(End::Lifetime),
                false => over(idle_for).then_some(End::Idle),
            }
        };
        self.keep_lanes(lane_over);
        let mut inner = self.lock();
        let gone = inner.loans.sweep(|conn, idle_for| match self.is_too_old(conn) {
            true => Some(End::Lifetime),
            false => over(idle_for).then_some(End::Idle),
        });
        inner.total -= gone.len();
        self.serve_waiting(&mut inner);
        drop(inner);
        drop(gone);
    }

    /// Opens successors of lanes that are too old and in use, one after the other. Without a place for a successor an old lane ends
    /// when it is idle.
    fn replace_old(self: &Arc<Self>) {
        for old in self.lanes.load().iter().filter(|lane| self.is_old(lane)) {
            if !self.reserve() {
                return;
            }
            let opened = self.open(Deadline::after(self.connect.load().timeout_connect));
            if !self.succeed(old, opened.ok().map(|(conn, round)| (self.new_lane(conn), round))) {
                return;
            }
        }
        self.replace_old_submit_lanes(|lane| self.is_old(lane));
    }

    /// Closes idle loans that were asked for a sign of life and have not answered, and asks those that have been silent.
    fn close_lifeless(&self) {
        let limit = self.lane_settings.silent;
        let mut inner = self.lock();
        let gone = inner.loans.ask_for_life(SILENT, limit);
        inner.total -= gone.len();
        self.serve_waiting(&mut inner);
        drop(inner);
        drop(gone);
    }

    /// Opens connections until there are `pool.min`. A failure ends it until the next tick.
    fn refill(self: &Arc<Self>) {
        while self.lock().total < self.settings.min {
            let deadline = Deadline::after(self.connect.load().timeout_connect);
            let done = if self.lanes.load().is_empty() {
                self.first_lane(deadline).is_ok()
            } else {
                self.reserve_loan() && self.keep_warm(self.open(deadline))
            };
            if !done {
                return;
            }
        }
    }
}

/// Marks the job that opens what the pool lacks. When it ends, also by a panic, another one may begin.
struct OpeningMark<'a>(&'a Pool);

impl Drop for OpeningMark<'_> {
    fn drop(&mut self) {
        self.0.opening.store(false, Ordering::Release);
    }
}

impl Swept for Pool {
    fn look_after(self: Arc<Self>) {
        self.grown.store(false, Ordering::Relaxed);
        self.close_offered();
        self.lanes.load().iter().chain(&self.own_submit_lanes()).for_each(|lane| lane.check());
        self.drop_dead_lanes();
        let draining = self.lock().draining.clone();
        draining.iter().for_each(|lane| lane.check());
        drop(draining);
        self.drop_drained(&mut self.lock());
        self.make_room();
        self.close_idle();
        self.lanes.load().iter().chain(&self.own_submit_lanes()).for_each(|lane| lane.ask_for_life(SILENT));
        self.close_lifeless();
        self.open_what_lacks();
    }

    fn is_over(&self) -> bool {
        self.is_retired()
    }

    fn forgotten(&self) {
        self.lock().upkeep = None;
    }
}
