//! The sweep: one timer that looks after all pools of the process.
//!
//! Guarantees: the timer runs as long as there is a pool to look after, and keeps no thread after that; one thread at a time looks
//! after a pool. Leaves to others: what that means (upkeep).

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::sort;
use crate::sys::fork::PerProcess;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};
use crate::worker;

/// How often the pools are looked after, so that a lost connection is replaced within a second.
const TICK: Duration = Duration::from_millis(800);

static SWEEP: PerProcess<Sweep> = PerProcess::new();

/// Something that the sweep looks after.
pub(super) trait Swept: Send + Sync {
    fn look_after(self: Arc<Self>);
    /// Whether it needs no more upkeep.
    fn is_over(&self) -> bool;
    /// Told when the sweep ends, because there was no thread for it.
    fn forgotten(&self);
}

/// Keeps the sweep alive: everything that it looks after holds one.
pub(super) struct Needed;

struct Sweep(Lock<SweepState>);

/// When the last pool is gone, its timer is dropped without a tick: then what is over is forgotten, because the list keeps its memory.
struct Forgetting(&'static Sweep);

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.0.state().all.retain(|weak| weak.strong_count() > 0);
    }
}

#[derive(Default)]
struct SweepState {
    all: Vec<Weak<dyn Swept>>,
    /// Alive as long as there is anything to look after.
    needed: Weak<Needed>,
}

/// Looks after this from now on; `None`: there is no thread.
pub(super) fn add(what: Weak<dyn Swept>) -> Option<Arc<Needed>> {
    SWEEP.get_or_make(Sweep::new).add(what)
}

impl Sweep {
    fn new() -> Self {
        Self(Lock::new(Rank::Sweep, SweepState::default()))
    }

    fn state(&self) -> Locked<'_, SweepState> {
        self.0.lock()
    }

    fn add(&'static self, what: Weak<dyn Swept>) -> Option<Arc<Needed>> {
        let known = self.state().needed.upgrade();
        let needed = match known {
            Some(needed) => needed,
            None => self.begin()?,
        };
        self.state().all.push(what);
        Some(needed)
    }

    /// Begins the ticks, unless another thread does so at this moment. The timer is set without the lock, because a timer that cannot be
    /// set forgets what is over.
    fn begin(&'static self) -> Option<Arc<Needed>> {
        let needed = Arc::new(Needed);
        let weak = Arc::downgrade(&needed);
        self.tick_later(&weak).ok()?;
        let mut state = self.state();
        if let Some(other) = state.needed.upgrade() {
            return Some(other);
        }
        state.needed = weak;
        Some(needed)
    }

    fn tick_later(&'static self, needed: &Weak<Needed>) -> io::Result<()> {
        let (again, forgetting) = (Weak::clone(needed), Forgetting(self));
        worker::after(TICK, Weak::clone(needed), move || {
            std::mem::forget(forgetting);
            self.tick(&again);
        })
    }

    fn tick(&'static self, needed: &Weak<Needed>) {
        let all = self.state().all.clone();
        let mut over = Vec::new();
        for weak in &all {
            match weak.upgrade().filter(|swept| !swept.is_over()) {
                Some(swept) => swept.look_after(),
                None => over.push(weak.as_ptr().cast::<()>()),
            }
        }
        if !over.is_empty() {
            // Not under the lock, because a thread that has locked a pool locks the sweep.
            sort::by(&mut over, Ord::cmp);
            self.state().all.retain(|weak| over.binary_search(&weak.as_ptr().cast::<()>()).is_err());
        }
        if self.tick_later(needed).is_err() {
            // The next connection of each pool begins the sweep again.
            let mut state = self.state();
            state.needed = Weak::new();
            let all = std::mem::take(&mut state.all);
            drop(state);
            all.iter().filter_map(Weak::upgrade).for_each(|swept| swept.forgotten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl Swept for Idle {
        fn look_after(self: Arc<Self>) {}
        fn is_over(&self) -> bool {
            false
        }
        fn forgotten(&self) {}
    }

    #[test]
    fn nothing_is_kept_of_the_last_pool() {
        static OWN: PerProcess<Sweep> = PerProcess::new();
        let sweep = OWN.get_or_make(Sweep::new);
        for _ in 0..2 {
            let idle: Arc<dyn Swept> = Arc::new(Idle);
            let needed = sweep.add(Arc::downgrade(&idle)).expect("a thread");
            assert_eq!(sweep.state().all.len(), 1);
            drop((idle, needed));
            let late = std::time::Instant::now() + Duration::from_secs(60);
            while !sweep.state().all.is_empty() {
                assert!(std::time::Instant::now() < late, "its memory is still in the list");
                crate::sys::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
