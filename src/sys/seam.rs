//! Seams: named places between two steps whose order matters (ARCHITECTURE.md). A unit test can run code there.
//!
//! Guarantees: outside of this crate's unit tests a seam is nothing. A hook runs on the thread that passes the seam, and only for
//! its own object, so that concurrent tests do not meet it. Leaves to others: what must hold there.

/// The places. Each names the step that was done last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seam {
    /// A call has read the failover sequence, and looks at the fence next.
    FailoverSeqRead,
    /// A call has passed the gate, and chooses its route next.
    GatePassed,
    /// A snapshot can be loaded; its version is the one before.
    SnapshotStored,
    /// The failover sequence has changed: replies to writes that were sent before are doubtful.
    FailoverSeqRaised,
    /// The fence has moved for those who check it; those who sleep have not been woken yet.
    FenceMoved,
    /// It was decided whether an event is about the present primary; acting on it comes next.
    WordJudged,
    /// Clients are told of the change next.
    ChangeTold,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn pass<T>(_seam: Seam, _of: &T) {}

#[cfg(test)]
pub(crate) use hooks::{on, pass};

#[cfg(test)]
mod hooks {
    use super::Seam;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    type Hook = Arc<dyn Fn() + Send + Sync>;

    static HOOKS: Mutex<Vec<(Seam, usize, Hook)>> = Mutex::new(Vec::new());

    fn hooks() -> MutexGuard<'static, Vec<(Seam, usize, Hook)>> {
        HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place<T>(of: &T) -> usize {
        std::ptr::from_ref(of).addr()
    }

    /// Passes a seam of this object.
    pub(crate) fn pass<T>(seam: Seam, of: &T) {
        let here = |(at, whose, _): &&(Seam, usize, Hook)| *at == seam && *whose == place(of);
        // Run without the lock, because a hook may pass seams, and other tests do.
        let found: Vec<Hook> = hooks().iter().filter(here).map(|(_, _, hook)| Arc::clone(hook)).collect();
        found.iter().for_each(|hook| hook());
    }

    /// Runs `hook` at a seam of this object until the guard is dropped.
    pub(crate) fn on<T>(seam: Seam, of: &T, hook: impl Fn() + Send + Sync + 'static) -> Hooked {
        let hook: Hook = Arc::new(hook);
        hooks().push((seam, place(of), Arc::clone(&hook)));
        Hooked(hook)
    }

    /// A hook, which is removed when this is dropped.
    pub(crate) struct Hooked(Hook);

    impl Drop for Hooked {
        fn drop(&mut self) {
            hooks().retain(|(_, _, hook)| !Arc::ptr_eq(hook, &self.0));
        }
    }
}
