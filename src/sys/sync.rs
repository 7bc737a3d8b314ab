//! Locks with a place in the order of all locks (rank), and the atomics and cells of the code that a model checks: std's, or loom's
//! under `cfg(loom)`, which tries every order of them.
//!
//! Guarantees: a lock is never poisoned, because no code under a lock leaves a torn state behind when it panics; in a release build a
//! lock is the standard library's own, and costs no instruction more. The model is src/lane/model_tests.rs. std's locks, and not
//! parking_lot's, because a forked child must not inherit a process-wide table of parked threads.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::time::Duration;

use super::rank::{Held, Place, Rank, may_wait};

#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{Mutex, MutexGuard, atomic},
};
#[cfg(not(loom))]
pub use std::sync::atomic;
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

/// A value that threads use one after the other. In debug builds a thread that takes it out of order panics.
pub struct Lock<T> {
    place: Place,
    inner: Mutex<T>,
}

/// The value of a lock, for the thread that has locked it.
pub struct Locked<'a, T> {
    // Unlocked first, then forgotten.
    inner: MutexGuard<'a, T>,
    #[cfg_attr(loom, allow(dead_code))] // A model has no conditions.
    held: Held,
}

impl<T> Lock<T> {
    /// A lock of this rank, which no other lock has.
    pub fn new(rank: Rank, value: T) -> Self {
        Self { place: Place::new(rank), inner: Mutex::new(value) }
    }

    /// Waits until no other thread has it.
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> Locked<'_, T> {
        let held = self.place.enter();
        Locked { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner), held }
    }

    /// Whether a thread has it at this moment.
    #[cfg(test)]
    pub fn is_locked(&self) -> bool {
        self.inner.try_lock().is_err()
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Locked<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Where threads sleep until another one has changed what a lock guards.
#[cfg(not(loom))]
#[derive(Default)]
pub struct Condvar(std::sync::Condvar);

#[cfg(not(loom))]
impl Condvar {
    /// Nobody sleeps yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the lock go, sleeps until it is woken, and takes the lock again. It may also return for no reason.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn wait<'a, T>(&self, locked: Locked<'a, T>) -> Locked<'a, T> {
        let Locked { inner, held } = locked;
        held.may_sleep();
        Locked { inner: self.0.wait(inner).unwrap_or_else(PoisonError::into_inner), held }
    }

    /// As [`Condvar::wait`], for this long at most.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn wait_timeout<'a, T>(&self, locked: Locked<'a, T>, time: Duration) -> Locked<'a, T> {
        let Locked { inner, held } = locked;
        held.may_sleep();
        Locked { inner: self.0.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0, held }
    }

    /// Wakes one thread.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A cell that threads use one at a time, by an agreement of their own.
#[cfg(not(loom))]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// Holds this value.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Gives a pointer to the value. The caller has to be its only user.
    pub fn with_mut<R>(&self, using: impl FnOnce(*mut T) -> R) -> R {
        using(self.0.get())
    }
}

/// Waits a moment for another thread that is about to do its last step; longer after many tries.
pub fn pause(spins: u32) {
    may_wait("the last step of another thread");
    #[cfg(loom)]
    loom::thread::yield_now();
    if cfg!(loom) {
        return;
    }
    if spins < 64 { std::thread::yield_now() } else { std::thread::sleep(std::time::Duration::from_micros(50)) }
}

#[cfg(all(debug_assertions, not(loom)))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fork, poll, thread};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// What this says when it panics.
    fn panic_of(what: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(what)).expect_err("it did not panic");
        panic.downcast::<String>().map_or_else(|_| "no text".to_owned(), |text| *text)
    }

    fn two() -> (Lock<i32>, Lock<i32>) {
        (Lock::new(Rank::Pool, 1), Lock::new(Rank::Lane, 2))
    }

    #[test]
    fn locks_are_taken_in_their_order_and_let_go_in_any() {
        let (first, second) = two();
        let (a, b) = (first.lock(), second.lock());
        drop(a);
        assert!(!first.is_locked() && second.is_locked());
        drop(b);
        assert_eq!(*first.lock() + *second.lock(), 3);
    }

    #[test]
    fn a_wrong_order_panics_with_both_names_and_spoils_neither_lock() {
        let (first, second) = two();
        let held = second.lock();
        let text = panic_of(|| drop(first.lock()));
        for part in ["Lane (Lane.state (lane))", "Pool (Pool.inner (pool))"] {
            assert!(text.contains(part), "{text}");
        }
        let other = Lock::new(Rank::Lane, 3);
        assert!(panic_of(|| drop(other.lock())).contains("takes Lane"), "two locks of one rank");
        assert!(!first.is_locked() && !other.is_locked());
        drop(held);
        assert_eq!((*first.lock(), *other.lock()), (1, 3));
    }

    #[test]
    fn the_order_is_each_threads_own() {
        let (first, second) = two();
        let _held = second.lock();
        std::thread::scope(|scope| scope.spawn(|| drop(first.lock())).join().unwrap());
    }

    #[test]
    fn a_panic_under_a_lock_leaves_it_usable() {
        let (first, _) = two();
        panic_of(|| {
            *first.lock() = 7;
            let text = String::from("on purpose");
            std::panic::resume_unwind(Box::new(text));
        });
        assert_eq!(*first.lock(), 7);
    }

    #[test]
    fn a_wait_under_a_lock_panics_and_under_a_role_it_does_not() {
        let (pool, _) = two();
        let moment = Duration::from_millis(1);
        let wait = |what: &dyn Fn()| panic_of(what);
        let held = pool.lock();
        assert!(wait(&|| thread::sleep(moment)).contains("holds Pool (Pool.inner (pool)) waits for a sleep"));
        assert!(wait(&|| drop(poll::wait(&mut [], Some(moment)))).contains("waits for poll"));
        assert!(wait(&|| pause(1)).contains("waits for the last step"));
        let (lane, condvar) = (Lock::new(Rank::Lane, ()), Condvar::new());
        assert!(wait(&|| drop(condvar.wait_timeout(lane.lock(), moment))).contains("waits for a condition"));
        assert!(poll::wait(&mut [], Some(Duration::ZERO)).is_ok(), "a look waits for nothing");
        drop(held);
        drop(condvar.wait_timeout(lane.lock(), moment));
        let reader = Lock::new(Rank::LaneReader, ());
        let _role = reader.lock();
        thread::sleep(moment);
        drop(condvar.wait_timeout(lane.lock(), moment));
    }

    #[test]
    fn a_forked_child_holds_nothing() {
        let (first, second) = two();
        let _ = fork::generation();
        let held = second.lock();
        // SAFETY: the child takes a lock that was free, and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let fine = catch_unwind(AssertUnwindSafe(|| *first.lock() == 1)).unwrap_or(false);
            // SAFETY: ends the process.
            unsafe { libc::_exit(libc::c_int::from(!fine)) };
        }
        let mut status = -1;
        // SAFETY: a child of this process; writes into memory of this frame.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child took over what its parent's thread had held");
        drop(held);
    }

    #[test]
    fn the_table_is_in_the_order_of_the_ranks() {
        for (at, row) in Rank::TABLE.iter().enumerate() {
            assert_eq!((row.rank as usize, row.name), (at, &*format!("{:?}", row.rank)));
        }
    }
}
