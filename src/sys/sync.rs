//! The locks, atomics and cells of the code that a model checks: std's, or loom's under `cfg(loom)`, which tries every order of
//! them.
//!
//! Guarantees: without `cfg(loom)` these are the standard library's own. The model is src/lane/model_tests.rs.

pub use std::sync::PoisonError;

#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{Mutex, MutexGuard, atomic},
};
#[cfg(not(loom))]
pub use std::sync::{Mutex, MutexGuard, atomic};

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
    #[cfg(loom)]
    loom::thread::yield_now();
    if cfg!(loom) {
        return;
    }
    if spins < 64 { std::thread::yield_now() } else { std::thread::sleep(std::time::Duration::from_micros(50)) }
}
