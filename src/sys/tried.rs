//! A value that a thread uses or is refused, without waiting.
//!
//! Guarantees: one thread that changes it, or several that only read; no thread waits, so it has no rank in the order of the locks, and its
//! user may wait. In a forked child those who read it in the parent do not count, because they changed nothing; a change that was under
//! way in the parent at the fork is never over there, and the value stays refused. Leaves to others: what a refused thread does.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::fork;

/// In the place of the number of readers: a thread changes the value.
const CHANGING: u32 = u32::MAX;

/// See the first lines of this file.
#[derive(Default)]
pub struct Tried<T> {
    /// How many threads read it, and the generation of the process that counts them above that.
    users: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: as for std's RwLock: `users` lets one thread change the value, or several read it.
unsafe impl<T: Send + Sync> Sync for Tried<T> {}

impl<T> Tried<T> {
    /// Nobody uses it.
    pub fn new(value: T) -> Self {
        Self { users: AtomicU64::new(0), value: UnsafeCell::new(value) }
    }

    /// The value to read; `None`: a thread changes it.
    pub fn read(&self) -> Option<Reading<'_, T>> {
        self.enter(|readers| (readers < CHANGING - 1).then(|| readers + 1)).then(|| Reading(self))
    }

    /// The value to change; `None`: a thread uses it.
    pub fn write(&self) -> Option<Writing<'_, T>> {
        self.enter(|readers| (readers == 0).then_some(CHANGING)).then(|| Writing(self))
    }

    fn enter(&self, next: impl Fn(u32) -> Option<u32>) -> bool {
        let entered = self
            .users
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |users| next(here(users)).map(with_generation));
        entered.is_ok()
    }

    fn leave(&self, next: impl Fn(u32) -> u32) {
        // What was entered in the parent does not count here, so nothing is to be left.
        let _ = self.users.fetch_update(Ordering::Release, Ordering::Relaxed, |users| {
            is_here(users).then(|| with_generation(next(users as u32)))
        });
    }
}

fn is_here(users: u64) -> bool {
    (users >> 32) as u32 == fork::generation()
}

fn with_generation(users: u32) -> u64 {
    u64::from(fork::generation()) << 32 | u64::from(users)
}

/// How many use it in this process.
fn here(users: u64) -> u32 {
    match users as u32 {
        CHANGING => CHANGING,
        readers if is_here(users) => readers,
        _ => 0,
    }
}

/// A value that is read.
pub struct Reading<'a, T>(&'a Tried<T>);

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while this counts as a reader no thread changes the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        self.0.leave(|readers| readers - 1);
    }
}

/// A value that is changed.
pub struct Writing<'a, T>(&'a Tried<T>);

impl<T> Deref for Writing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: no other thread uses the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Writing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        self.0.leave(|_| 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child_tests::holds_in_a_child;

    #[test]
    fn one_changes_or_several_read() {
        let value = Tried::new(1);
        let (one, other) = (value.read().unwrap(), value.read().unwrap());
        assert!(value.write().is_none() && *one + *other == 2);
        drop((one, other));
        *value.write().unwrap() += 1;
        let changing = value.write().unwrap();
        assert!(value.read().is_none() && value.write().is_none());
        drop(changing);
        assert_eq!(*value.read().unwrap(), 2);
    }

    #[test]
    fn a_child_is_refused_what_its_parent_changed_and_not_what_it_read() {
        let (read, changed) = (Tried::new(1), Tried::new(1));
        let (reading, _changing) = (read.read(), changed.write());
        let mut reading = Some(reading);
        assert!(holds_in_a_child(|| {
            let mut right = read.write().map(|mut value| *value += 1).is_some();
            // The thread that has forked may have been the reader.
            reading = None;
            right &= read.write().is_some_and(|value| *value == 2);
            right && changed.read().is_none() && changed.write().is_none()
        }));
        assert!(read.write().is_none());
    }
}
