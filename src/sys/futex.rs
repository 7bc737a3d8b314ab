//! Waiting and waking by bits: one wake-up call for up to 32 waiters of a word.
//!
//! Guarantees: a waiter that read the word's count before it announced itself never misses a wake-up that came after;
//! returns may be spurious; deadlines are on the monotonic clock. Linux uses FUTEX_WAIT_BITSET; elsewhere a condition
//! variable for each word serves.

use crate::time::Instant;

#[cfg(all(target_os = "linux", not(loom)))]
pub use linux::Word;
#[cfg(loom)]
pub use model::{Word, pass_time, start};
#[cfg(not(any(target_os = "linux", loom)))]
pub use portable::Word;

#[cfg(all(target_os = "linux", not(loom)))]
mod linux {
    use super::Instant;
    use crate::sys::fork::PerProcess;
    use crate::sys::rank::may_wait;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A word that threads wait on, told apart by bits.
    #[derive(Default)]
    pub struct Word(AtomicU32);

    impl Word {
        /// The count to give to [`Word::wait`]; read it before announcing the wait.
        pub fn ticket(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        /// Sleeps until one of `bits` is woken, the ticket is out of date, or the end comes.
        pub fn wait(&self, ticket: u32, bits: u32, end: Option<Instant>) {
            may_wait("a word");
            let until = end.map(monotonic);
            let until = until.as_ref().map_or(std::ptr::null(), |time| time as *const libc::timespec);
            let op = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the word outlives the call (borrowed); the time is null or points into this frame.
            unsafe {
                libc::syscall(libc::SYS_futex, self.0.as_ptr(), op, ticket, until, std::ptr::null::<u32>(), bits);
            }
        }

        /// Wakes all that wait for one of `bits`.
        pub fn wake(&self, bits: u32) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let op = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
            let none = std::ptr::null::<libc::timespec>();
            // SAFETY: the word outlives the call (borrowed); no other pointer is given.
            unsafe {
                libc::syscall(libc::SYS_futex, self.0.as_ptr(), op, i32::MAX, none, std::ptr::null::<u32>(), bits);
            }
        }
    }

    /// The kernel wants an absolute time; an `Instant` does not show its own, so it is counted from one that is known in both.
    fn monotonic(end: Instant) -> libc::timespec {
        static BASE: PerProcess<(Instant, Kernel)> = PerProcess::new();
        let (instant, Kernel(base)) = BASE.get_or_make(read_both);
        let left = end.saturating_duration_since(*instant).min(Duration::from_secs(1 << 30));
        let nanos = base.tv_nsec + left.subsec_nanos() as libc::c_long;
        let (carry, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        libc::timespec { tv_sec: base.tv_sec + left.as_secs() as libc::time_t + carry as libc::time_t, tv_nsec: nanos }
    }

    /// A time on the kernel's clock.
    struct Kernel(libc::timespec);

    /// The closest of several readings, because a thread may be interrupted between the two clocks.
    fn read_both() -> (Instant, Kernel) {
        let readings = (0..8).map(|_| {
            let before = Instant::now();
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: writes into memory of this frame.
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
            (before.elapsed(), before, now)
        });
        let best = readings.min_by_key(|(took, _, _)| *took);
        let (at, now) =
            best.map_or_else(|| (Instant::now(), libc::timespec { tv_sec: 0, tv_nsec: 0 }), |(_, at, now)| (at, now));
        (at, Kernel(now))
    }
}

#[cfg(all(any(test, not(target_os = "linux")), not(loom)))]
mod portable {
    use super::Instant;
    use crate::sys::rank::{Rank, may_wait};
    use crate::sys::sync::{Condvar, Lock};

    /// A word that threads wait on, told apart by bits (every wake-up wakes all of them here: they look again).
    pub struct Word {
        count: Lock<u32>,
        woken: Condvar,
    }

    impl Default for Word {
        fn default() -> Self {
            Self { count: Lock::new(Rank::Word, 0), woken: Condvar::new() }
        }
    }

    impl Word {
        /// The count to give to [`Word::wait`]; read it before announcing the wait.
        pub fn ticket(&self) -> u32 {
            *self.count.lock()
        }

        /// Sleeps until a wake-up, or until the end comes.
        pub fn wait(&self, ticket: u32, _bits: u32, end: Option<Instant>) {
            may_wait("a word");
            let count = self.count.lock();
            if *count != ticket {
                return;
            }
            match end.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(left) => drop(self.woken.wait_timeout(count, left)),
                None => drop(self.woken.wait(count)),
            }
        }

        /// Wakes all that wait.
        pub fn wake(&self, _bits: u32) {
            let mut count = self.count.lock();
            *count = count.wrapping_add(1);
            self.woken.notify_all();
        }
    }
}

/// The kernel's part in a model: words like futexes, and a time that passes when the model says so, and when all threads sleep.
#[cfg(loom)]
mod model {
    use super::Instant;
    use crate::sys::rank::may_wait;
    use crate::time::model;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread::{self, Thread};
    use std::cell::RefCell;

    /// The sleeping threads. As in the kernel, comparing a word's count and joining this list is one step.
    /// All threads of a model are one thread of the system.
    fn sleepers<R>(use_them: impl FnOnce(&mut Vec<Sleeper>) -> R) -> R {
        thread_local!(static SLEEPERS: RefCell<Vec<Sleeper>> = const { RefCell::new(Vec::new()) });
        SLEEPERS.with_borrow_mut(use_them)
    }

    /// How many waits with an end are explored in every order; a run with more of them goes on in one order.
    const MOST_LOOKS: usize = 8;
    static LOOKS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

    struct Sleeper {
        word: usize,
        bits: u32,
        end: Option<Instant>,
        thread: Thread,
    }

    /// A word that threads wait on, told apart by bits.
    #[derive(Default)]
    pub struct Word(AtomicU32);

    impl Word {
        /// The count to give to [`Word::wait`]; read it before announcing the wait.
        pub fn ticket(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        /// Sleeps until one of `bits` is woken, the ticket is out of date, or the end comes.
        pub fn wait(&self, ticket: u32, bits: u32, end: Option<Instant>) {
            // The kernel compares under a lock, so that it never sees an old count: a load might, here.
            if self.0.fetch_add(0, Ordering::SeqCst) != ticket {
                return;
            }
            may_wait("a word");
            let end = end.filter(|_| model::moves());
            let thread = thread::current();
            let id = thread.id();
            sleepers(|all| all.push(Sleeper { word: self as *const Self as usize, bits, end, thread }));
            let sleeps = || sleepers(|all| all.iter().any(|sleeper| sleeper.thread.id() == id));
            match end {
                None => {
                    while sleeps() {
                        thread::park();
                    }
                }
                Some(end) => {
                    // Two threads that read the clock by turns while a third one is never scheduled: loom would explore that
                    // forever.
                    if LOOKS.fetch_add(1, Ordering::Relaxed) >= MOST_LOOKS {
                        loom::skip_branch();
                    }
                    if end > model::latest() {
                        thread::yield_now();
                    }
                    if sleeps() {
                        pass_time(end);
                    }
                }
            }
        }

        /// Wakes all that wait for one of `bits`.
        pub fn wake(&self, bits: u32) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let word = self as *const Self as usize;
            wake(|sleeper| sleeper.word == word && sleeper.bits & bits != 0);
        }
    }

    fn wake(which: impl Fn(&Sleeper) -> bool) {
        let woken = sleepers(|all| {
            let (woken, rest) = all.drain(..).partition::<Vec<_>, _>(which);
            *all = rest;
            woken
        });
        woken.into_iter().for_each(|sleeper: Sleeper| sleeper.thread.unpark());
    }

    /// Begins a new run of the model: no thread sleeps, and the clock is at its beginning. With `time` it will move; otherwise the
    /// end of a wait never comes, and a thread that relies on one shows as a deadlock.
    pub fn start(time: bool) {
        sleepers(Vec::clear);
        LOOKS.store(0, Ordering::Relaxed);
        model::start(time);
    }

    /// Lets time pass until this moment, and wakes the threads whose wait has ended.
    pub fn pass_time(to: Instant) {
        model::set(to);
        wake(|sleeper| sleeper.end.is_some_and(|end| end <= to));
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    macro_rules! word_tests {
        ($name:ident, $word:ty) => {
            #[test]
            fn $name() {
                let word = <$word>::default();
                let ready = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while !ready.load(Ordering::SeqCst) {
                            let ticket = word.ticket();
                            if !ready.load(Ordering::SeqCst) {
                                word.wait(ticket, 4, Some(Instant::now() + Duration::from_secs(10)));
                            }
                        }
                    });
                    ready.store(true, Ordering::SeqCst);
                    word.wake(4);
                });
                let begun = Instant::now();
                word.wait(word.ticket(), 1, Some(begun + Duration::from_millis(5)));
                assert!(begun.elapsed() >= Duration::from_millis(5));
                word.wait(word.ticket().wrapping_sub(1), 1, None);
            }
        };
    }

    #[cfg(target_os = "linux")]
    word_tests!(the_kernels_word_waits_and_wakes, super::linux::Word);
    word_tests!(the_portable_word_waits_and_wakes, super::portable::Word);
}
