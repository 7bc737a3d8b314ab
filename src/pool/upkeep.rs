//! What keeps a pool in shape while nobody looks: warm connections up to `pool.min`, idle and old ones closed, dead ones found and
//! replaced.
//!
//! Guarantees: begins with the first connection, ends with the pool; runs on a worker, one tick at a time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Pool;
use crate::lane::Lane;
use crate::time::Deadline;
use crate::worker;

/// How often a pool is looked after: a lost connection is replaced within a second.
const TICK: Duration = Duration::from_millis(500);
/// A connection that was silent for so long is asked for a sign of life: a host that vanished sends no reset.
const SILENT: Duration = Duration::from_secs(2);

impl Pool {
    /// Begins to look after the pool, once: now, and then at every tick.
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.upkeep_runs || inner.ended.is_some() {
            return;
        }
        let pool = Arc::downgrade(self);
        inner.upkeep_runs = worker::run(move || tick(&pool)).is_ok();
    }

    fn look_after(self: &Arc<Self>) {
        self.grown.store(false, Ordering::Relaxed);
        self.close_offered();
        self.lanes.load().iter().chain(&self.own_posts()).for_each(|lane| lane.check());
        self.drop_dead_lanes();
        let draining = self.lock().draining.clone();
        draining.iter().for_each(|lane| lane.check());
        drop(draining);
        self.drop_drained(&mut self.lock());
        self.replace_old();
        self.close_idle();
        self.lanes.load().iter().chain(&self.own_posts()).for_each(|lane| lane.ask_for_life(SILENT));
        self.close_lifeless();
        self.refill();
    }

    /// Closes what has been idle for too long, down to `pool.min`, and what is too old.
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
            !idle_for.is_zero() && (old || over(idle_for))
        };
        self.keep_lanes(|lane| !lane_over(lane));
        let mut inner = self.lock();
        let gone = inner.loans.sweep(|conn, idle_for| !(self.is_too_old(conn) || over(idle_for)));
        inner.total -= gone.len();
        self.serve_waiting(&mut inner);
        drop(inner);
        drop(gone);
    }

    /// Opens successors of lanes that are too old and always in use, one after the other; without a place for one an old lane ends when it
    /// is idle.
    fn replace_old(self: &Arc<Self>) {
        let Some(lifetime) = self.settings.lifetime else { return };
        let is_old = |lane: &Lane| lane.born().elapsed() > lifetime && !lane.is_dead() && lane.idle_for().is_zero();
        for old in self.lanes.load().iter().filter(|lane| is_old(lane)) {
            if !self.reserve() {
                return;
            }
            let opened = self.open(Deadline::after(self.connect.load().timeout_connect));
            if !self.succeed(old, opened.ok().map(|(conn, round)| (self.new_lane(conn), round))) {
                return;
            }
        }
        self.replace_old_posts(is_old);
    }

    /// Closes idle loans that were asked for a sign of life and gave none, and asks those that have been silent.
    fn close_lifeless(&self) {
        let limit = self.lane_settings.silent;
        let mut inner = self.lock();
        let gone = inner.loans.ask_for_life(SILENT, limit);
        inner.total -= gone.len();
        self.serve_waiting(&mut inner);
        drop(inner);
        drop(gone);
    }

    /// Opens connections until `pool.min` are there; the first failure ends it until the next tick.
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

fn tick(pool: &Weak<Pool>) {
    let Some(this) = pool.upgrade() else { return };
    if this.is_retired() {
        return;
    }
    this.look_after();
    let next = Weak::clone(pool);
    drop(this);
    if worker::after(TICK, Weak::clone(pool), move || tick(&next)).is_err() {
        // No thread could be started: the next connection that is opened begins anew.
        if let Some(this) = pool.upgrade() {
            this.lock().upkeep_runs = false;
        }
    }
}
