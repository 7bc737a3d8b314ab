//! Forked children: a generation number, and values that a child makes anew.
//!
//! Guarantees: a child sees another generation than its parent before its first line of code runs; the parent's values are leaked
//! in the child, never locked and never dropped, because the owner of a lock may not exist there. Leaves to others: how a handle of
//! another generation answers.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Not a `Once`: a child whose parent was in the middle of one would wait for a thread that does not exist in the child.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// The generation of this process: 0, and a greater one in each forked child.
pub fn generation() -> u32 {
    if !REGISTERED.load(Ordering::Acquire) {
        register();
    }
    GENERATION.load(Ordering::Relaxed)
}

/// Two threads may both get here: a handler that runs twice does no harm.
#[cold]
fn register() {
    // SAFETY: the handler is a plain function without captures; it only touches atomics, which is allowed after fork.
    // The library is linked with -z nodelete, so it is never unmapped while the handler is registered.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    REGISTERED.store(true, Ordering::Release);
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    super::thread::forget_all();
    super::rank::forget_held();
}

/// A value that each process has once: a forked child makes its own and leaks its parent's.
pub struct PerProcess<T: Sync + 'static> {
    current: AtomicPtr<Tagged<T>>,
}

struct Tagged<T> {
    generation: u32,
    value: T,
}

impl<T: Sync> PerProcess<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value, made at the first call.
    pub fn get_or_make(&self, make: impl FnOnce() -> T) -> &'static T {
        let generation = generation();
        let found = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from Box::into_raw below and is never freed.
        if let Some(tagged) = unsafe { found.as_ref() } {
            if tagged.generation == generation {
                return &tagged.value;
            }
        }
        let fresh = Box::into_raw(Box::new(Tagged { generation, value: make() }));
        match self.current.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made, published, never freed.
            Ok(_) => unsafe { &(*fresh).value },
            Err(theirs) => {
                // SAFETY: nobody else saw `fresh`; `theirs` was published by another thread and is never freed.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &(*theirs).value
                }
            }
        }
    }
}

impl<T: Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lock of a `OnceLock` would be held forever in the child, by a thread that it does not have.
    #[test]
    fn a_child_that_was_forked_amid_the_making_makes_its_own() {
        static VALUE: PerProcess<i32> = PerProcess::new();
        let mut child = 0;
        VALUE.get_or_make(|| {
            // SAFETY: the child makes a value and leaves by _exit; an alarm ends it if it hangs.
            child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: plain numbers, in a process of its own.
                unsafe { libc::alarm(20) };
                let made = *VALUE.get_or_make(|| 7);
                // SAFETY: ends the process.
                unsafe { libc::_exit(made - 7) };
            }
            1
        });
        let mut status = -1;
        // SAFETY: a child of this process; writes into memory of this frame.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child hung");
    }

    #[test]
    fn one_value_for_all_threads() {
        static VALUE: PerProcess<usize> = PerProcess::new();
        let addresses: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|i| scope.spawn(move || VALUE.get_or_make(|| i) as *const usize as usize)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(addresses.iter().all(|address| *address == addresses[0]));
    }
}
