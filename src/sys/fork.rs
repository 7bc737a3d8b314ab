//! Forked children: a generation number, and values that a child makes anew.
//!
//! Guarantees: a child sees another generation than its parent before its first line of code runs; the parent's values are leaked
//! in the child, never locked and never dropped, because the owner of a lock may not exist there; a child that is forked while a value
//! is made anew makes its own. Leaves to others: how a handle of another generation answers, and what is read of a parent's value.
//!
//! The generation comes from pthread_atfork(), because a load is all that a call pays for it; asking for the process id is a system call.
//! A child of the bare system call (clone, glibc's _Fork) runs no handler, and is taken for its parent.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use super::rank::Rank;
use super::sync::Lock;

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
    // SAFETY: the handlers are plain functions without captures; that of the child touches atomics and calls close(), which is allowed there.
    // The library is linked with -z nodelete, so it is never unmapped while the handler is registered.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    REGISTERED.store(true, Ordering::Release);
}

extern "C" fn before() {
    super::unforked::before_fork();
}

extern "C" fn in_parent() {
    super::unforked::after_fork();
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    super::unforked::forget();
    super::thread::forget_all();
    super::rank::forget_held();
    super::sockets::close_copies();
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

/// For the moment in which a value is replaced. Each process has its own.
static REPLACING: PerProcess<Lock<()>> = PerProcess::new();

/// A value that a forked child may make anew from its parent's, which it leaks.
pub struct Inherited<T> {
    /// Of the process whose value it is.
    generation: AtomicU32,
    value: UnsafeCell<ManuallyDrop<Arc<T>>>,
}

// SAFETY: the value is replaced by one thread, under a lock, before any thread of this process has a reference to it (`here` and `get`).
unsafe impl<T: Send + Sync> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    /// The value of this process.
    pub fn new(value: Arc<T>) -> Self {
        Self { generation: AtomicU32::new(generation()), value: UnsafeCell::new(ManuallyDrop::new(value)) }
    }

    /// The value, if this process has made it.
    pub fn here(&self) -> Option<&Arc<T>> {
        // SAFETY: it is of this process, so it is not replaced any more.
        (self.generation.load(Ordering::Acquire) == generation()).then(|| unsafe { self.get() })
    }

    /// The value, without a look at whose it is.
    ///
    /// # Safety
    /// This process has made the value, and this thread has seen that.
    #[inline(always)]
    pub unsafe fn get(&self) -> &Arc<T> {
        // SAFETY: as for this function: nobody writes any more.
        unsafe { &*self.value.get() }
    }

    /// Makes the value anew from the parent's, unless this process has one. Of several threads that come at once one is the first: its
    /// value stays, and it is told so.
    pub fn renew<E>(&self, make: impl FnOnce(&T) -> Result<Arc<T>, E>) -> Result<bool, E> {
        if self.here().is_some() {
            return Ok(false);
        }
        // Another thread may replace the value meanwhile: the pointer is read as it is written, and what it points to is leaked.
        let parents = self.pointer().load(Ordering::Acquire);
        // SAFETY: the bits are those of an `Arc` that is never dropped in this process.
        let parents = unsafe { std::mem::transmute_copy::<*mut (), ManuallyDrop<Arc<T>>>(&parents) };
        let fresh = make(&parents)?;
        let replacing = REPLACING.get_or_make(|| Lock::new(Rank::Replacing, ())).lock();
        if self.here().is_some() {
            drop(replacing);
            return Ok(false);
        }
        // SAFETY: an `Arc` is one pointer (see `pointer`), and its reference goes with the bits.
        let bits = unsafe { std::mem::transmute_copy::<ManuallyDrop<Arc<T>>, *mut ()>(&ManuallyDrop::new(fresh)) };
        self.pointer().store(bits, Ordering::Release);
        self.generation.store(generation(), Ordering::Release);
        Ok(true)
    }

    /// The bits of the value: a grandchild that is forked while they are written finds the old ones or the new ones.
    fn pointer(&self) -> &AtomicPtr<()> {
        const { assert!(size_of::<Arc<T>>() == size_of::<AtomicPtr<()>>()) };
        const { assert!(align_of::<Arc<T>>() == align_of::<AtomicPtr<()>>()) };
        // SAFETY: the size and the alignment are those of a pointer, and who reads it otherwise has seen the last write (`get`).
        unsafe { AtomicPtr::from_ptr(self.value.get().cast()) }
    }
}

impl<T> Drop for Inherited<T> {
    fn drop(&mut self) {
        if self.here().is_some() {
            // SAFETY: it is of this process, and nobody uses it any more.
            unsafe { ManuallyDrop::drop(self.value.get_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child_tests::holds_in_a_child;

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

    /// Counts how often it is dropped.
    struct Dropped(i32, Arc<AtomicU32>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn again(parents: &Dropped) -> Result<Arc<Dropped>, ()> {
        Ok(Arc::new(Dropped(parents.0 + 1, Arc::clone(&parents.1))))
    }

    #[test]
    fn a_child_makes_its_value_from_its_parents_and_a_grandchild_from_that() {
        let drops = Arc::new(AtomicU32::new(0));
        let value = Inherited::new(Arc::new(Dropped(1, Arc::clone(&drops))));
        assert_eq!(value.renew(again), Ok(false));
        assert_eq!(value.here().map(|value| value.0), Some(1));
        assert!(holds_in_a_child(|| {
            let parents = value.here().is_none() && value.renew(again) == Ok(true) && value.renew(again) == Ok(false);
            let grandchild = holds_in_a_child(|| {
                value.here().is_none() && value.renew(again) == Ok(true) && value.here().unwrap().0 == 3
            });
            let own = value.here().is_some_and(|value| value.0 == 2);
            let kept = drops.load(Ordering::Acquire) == 0;
            drop(value);
            parents && grandchild && own && kept && drops.load(Ordering::Acquire) == 1
        }));
    }

    #[test]
    fn a_child_that_made_nothing_drops_nothing() {
        let drops = Arc::new(AtomicU32::new(0));
        let value = Inherited::new(Arc::new(Dropped(1, Arc::clone(&drops))));
        assert!(holds_in_a_child(|| {
            let failed = value.renew(|_| Err(())) == Err(()) && value.here().is_none();
            drop(value);
            failed && drops.load(Ordering::Acquire) == 0
        }));
    }

    #[test]
    fn of_several_threads_of_a_child_one_has_made_the_value() {
        let drops = Arc::new(AtomicU32::new(0));
        let value = Inherited::new(Arc::new(Dropped(1, Arc::clone(&drops))));
        assert!(holds_in_a_child(|| {
            let barrier = std::sync::Barrier::new(4);
            let first = || {
                barrier.wait();
                let first = value.renew(again) == Ok(true);
                (first, Arc::as_ptr(value.here().unwrap()) as usize)
            };
            let made: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(first)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            made.iter().filter(|(first, _)| *first).count() == 1 && made.iter().all(|(_, at)| *at == made[0].1)
        }));
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
