//! The library's own threads: the only place that starts one.
//!
//! Guarantees: all signals are blocked in them; their stacks are 256 KiB; a panic ends only the body in which it happens;
//! [`join_all`] waits for the end of each. Leaves to others: what a thread does, and how it is stopped.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fork::PerProcess;
use super::rank::{Rank, may_wait};
use super::sync::{Lock, Locked};
use crate::time::Deadline;

/// Enough for the deepest call here, with room to spare; getaddrinfo needs most.
const STACK: usize = 256 * 1024;

static LIVE: AtomicU32 = AtomicU32::new(0);
/// Each process has its own: a thread of the parent may have held the lock at the fork.
static HANDLES: PerProcess<Lock<Vec<JoinHandle<()>>>> = PerProcess::new();

/// Which thread this is, while it lives. The standard library would allocate for a thread that is not its own.
pub fn id() -> libc::pthread_t {
    // SAFETY: it has no preconditions.
    unsafe { libc::pthread_self() }
}

/// Starts a thread with this name and body.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    super::panic::keep_quiet();
    LIVE.fetch_add(1, Ordering::AcqRel);
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let started = with_signals_blocked(|| {
        builder.spawn(move || {
            // The owner of the body notices its end.
            let _ = catch_unwind(AssertUnwindSafe(body));
            // Here, and not where a thread is started: that is done under locks.
            reap(JoinHandle::is_finished);
            LIVE.fetch_sub(1, Ordering::AcqRel);
        })
    });
    match started {
        Ok(handle) => {
            handles().push(handle);
            Ok(())
        }
        Err(error) => {
            LIVE.fetch_sub(1, Ordering::AcqRel);
            Err(error)
        }
    }
}

/// How many threads of the library are running.
pub fn live() -> u32 {
    LIVE.load(Ordering::Acquire)
}

/// Waits until no thread of the library is left. False: the deadline came first.
pub fn join_all(deadline: Deadline) -> bool {
    loop {
        // Only threads that have ended: one that starts at this moment would delay the join beyond the deadline.
        reap(JoinHandle::is_finished);
        if live() == 0 && handles().is_empty() {
            return true;
        }
        if deadline.is_over() {
            return false;
        }
        sleep(deadline.left_or(Duration::from_millis(1)));
    }
}

/// Sleeps for this long.
pub fn sleep(time: Duration) {
    may_wait("a sleep");
    std::thread::sleep(time);
}

/// In a forked child no thread of the parent exists: forget the count.
pub(super) fn forget_all() {
    LIVE.store(0, Ordering::Relaxed);
}

fn handles() -> Locked<'static, Vec<JoinHandle<()>>> {
    HANDLES.get_or_make(|| Lock::new(Rank::Threads, Vec::new())).lock()
}

/// Joins the threads that have ended, so that their stacks are given back.
fn reap(which: impl Fn(&JoinHandle<()>) -> bool) {
    let mut handles = handles();
    let (ended, rest): (Vec<_>, Vec<_>) = handles.drain(..).partition(which);
    *handles = rest;
    drop(handles);
    may_wait("the end of a thread");
    for handle in ended {
        let _ = handle.join();
    }
}

/// A new thread inherits the mask of the thread that starts it: all signals are blocked for that moment.
fn with_signals_blocked<R>(make: impl FnOnce() -> R) -> R {
    // SAFETY: both sets are plain memory owned by this frame, filled by sigfillset and pthread_sigmask before they are read.
    let before = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    };
    let made = make();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_blocks_every_signal_and_survives_a_panic() {
        let (sender, receiver) = mpsc::channel();
        spawn("vigie-test", move || {
            // SAFETY: only reads the mask into memory of this frame.
            let blocked = unsafe {
                let mut mask: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut mask);
                libc::sigismember(&mask, libc::SIGUSR1) == 1 && libc::sigismember(&mask, libc::SIGINT) == 1
            };
            sender.send(blocked).unwrap();
        })
        .unwrap();
        assert!(receiver.recv().unwrap());
    }

    #[test]
    fn a_forked_child_starts_a_thread_though_its_parent_was_at_its_list() {
        let at_the_list = handles();
        // SAFETY: the child starts one thread, waits for it and leaves by _exit; an alarm ends it if it hangs.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: plain numbers, in a process of its own.
            unsafe { libc::alarm(20) };
            let started = spawn("vigie-test", || ());
            let ended = join_all(Deadline::after(Duration::from_secs(10)));
            // SAFETY: ends the process.
            unsafe { libc::_exit(libc::c_int::from(started.is_err() || !ended)) };
        }
        drop(at_the_list);
        let mut status = -1;
        // SAFETY: writes into memory of this frame.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child hung, or could not start a thread");
    }
}
