//! Calls of the C library that hold locks which a child of fork() would inherit locked.
//!
//! Guarantees: a fork waits until no thread of this library is in such a call, but for 100 ms at most; a thread that is about to begin one
//! waits until the fork is over. Leaves to others: which calls these are. One is known: glibc's getaddrinfo has a lock, held for less than
//! a millisecond, that its fork does not let go of in the child, where every later getaddrinfo would wait for it forever. Calls of the
//! program itself do not count here.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::rank::may_wait;

/// How many threads are in such a call.
static INSIDE: AtomicU32 = AtomicU32::new(0);
/// How many forks are under way.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// What a fork waits at most: a server of names may need seconds, and no lock is held while it is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long to wait between two looks. No condition: its lock would be one more that a child inherits.
const LOOK: Duration = Duration::from_micros(100);

struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs such a call.
pub fn apart_from_forks<R>(call: impl FnOnce() -> R) -> R {
    may_wait("the end of a fork");
    let _inside = loop {
        let inside = enter();
        if FORKS.load(Ordering::SeqCst) == 0 {
            break inside;
        }
        drop(inside);
        std::thread::sleep(LOOK);
    };
    call()
}

fn enter() -> Inside {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    Inside
}

/// Before a fork, in the thread that forks, which is one of the program: it holds no lock of the library.
pub(super) fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    let begun = Instant::now();
    while INSIDE.load(Ordering::SeqCst) > 0 && begun.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

/// After it, in the parent.
pub(super) fn after_fork() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

/// After it, in the child, which has no other thread.
pub(super) fn forget() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child_tests::holds_in_a_child;
    use crate::sys::fork;
    use std::net::ToSocketAddrs;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, Mutex, PoisonError};

    /// A call that lasts would end the patience of the other test's forks.
    static ALONE: Mutex<()> = Mutex::new(());

    /// A lock of the C library, as it is after a fork.
    static HELD: AtomicBool = AtomicBool::new(false);

    #[test]
    fn no_child_finds_a_lock_of_a_short_call_held() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let _registered = fork::generation();
        let over = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    apart_from_forks(|| {
                        HELD.store(true, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(300));
                        HELD.store(false, Ordering::SeqCst);
                    });
                }
            });
            let found = (0..100).filter(|_| held_in_a_child()).count();
            over.store(true, Ordering::SeqCst);
            found
        });
        // A machine that lets a thread wait for long makes the fork go on; without the guard it is most of them.
        assert!(found <= 50, "{found} of 100");
    }

    #[test]
    fn a_fork_waits_for_no_call_that_lasts() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let _registered = fork::generation();
        let (begun, over) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                apart_from_forks(|| {
                    begun.wait();
                    over.wait();
                })
            });
            begun.wait();
            held_in_a_child();
            over.wait();
        });
    }

    /// Without the guard children hang with glibc 2.36.
    #[test]
    fn a_child_resolves_names_though_its_parent_does_so_all_the_time() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let _registered = fork::generation();
        let over = AtomicBool::new(false);
        let resolve = || apart_from_forks(|| ("localhost", 0).to_socket_addrs().is_ok());
        let failed = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        resolve();
                    }
                });
            }
            let failed = (0..50).filter(|_| !holds_in_a_child(resolve)).count();
            over.store(true, Ordering::SeqCst);
            failed
        });
        assert!(failed <= 5, "{failed} of 50");
    }

    fn held_in_a_child() -> bool {
        !holds_in_a_child(|| !HELD.load(Ordering::SeqCst))
    }
}
