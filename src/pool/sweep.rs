//! The sweep: one timer that looks after all pools of the process.
//!
//! Guarantees: the timer runs as long as there is a pool to look after, and keeps no thread after that; one thread at a time looks
//! after a pool. Leaves to others: what that means (upkeep).

use std::sync::{Arc, Weak};
use std::time::Duration;

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
        let mut state = self.state();
        let needed = match state.needed.upgrade() {
            Some(needed) => needed,
            None => {
                let needed = Arc::new(Needed);
                let weak = Arc::downgrade(&needed);
                worker::after(TICK, Arc::downgrade(&needed), move || self.tick(&weak)).ok()?;
                state.needed = Arc::downgrade(&needed);
                needed
            }
        };
        state.all.push(what);
        Some(needed)
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
            over.sort_unstable();
            self.state().all.retain(|weak| over.binary_search(&weak.as_ptr().cast::<()>()).is_err());
        }
        let again = Weak::clone(needed);
        if worker::after(TICK, Weak::clone(needed), move || self.tick(&again)).is_err() {
            // The next connection of each pool begins the sweep again.
            let mut state = self.state();
            state.needed = Weak::new();
            let all = std::mem::take(&mut state.all);
            drop(state);
            all.iter().filter_map(Weak::upgrade).for_each(|swept| swept.forgotten());
        }
    }
}
