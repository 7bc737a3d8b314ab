//! The library's own threads: the only place that starts one.
//!
//! Guarantees: all signals are blocked in them; stacks are 256 KiB; a panic in a body ends that body and nothing else;
//! [`join_all`] sees each one end. Leaves to others: what a thread does, and how it is told to stop.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::time::Deadline;

/// Enough for the deepest call here with room to spare; getaddrinfo is what needs most.
const STACK: usize = 256 * 1024;

static LIVE: AtomicU32 = AtomicU32::new(0);
static HANDLES: Mutex<Vec<(u32, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// Starts a thread with this name and body.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let generation = super::fork::generation();
    LIVE.fetch_add(1, Ordering::AcqRel);
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let started = with_signals_blocked(|| {
        builder.spawn(move || {
            // The panic hook has reported it; the owner of the body sees the end of it.
            let _ = catch_unwind(AssertUnwindSafe(body));
            LIVE.fetch_sub(1, Ordering::AcqRel);
        })
    });
    match started {
        Ok(handle) => {
            keep(generation, handle);
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

/// Waits until no thread of the library is left; false when the deadline came first.
pub fn join_all(deadline: Deadline) -> bool {
    while live() > 0 {
        if deadline.is_over() {
            return false;
        }
        std::thread::sleep(deadline.left_or(Duration::from_millis(1)));
    }
    reap(super::fork::generation(), |_| true);
    true
}

/// In a forked child no thread of the parent exists: forget the count; the handles are leaked.
pub(super) fn forget_all() {
    LIVE.store(0, Ordering::Relaxed);
}

fn keep(generation: u32, handle: JoinHandle<()>) {
    reap(generation, |handle| handle.is_finished());
    if let Ok(mut handles) = HANDLES.lock() {
        handles.push((generation, handle));
    }
}

/// Joins the threads that have ended, so that their stacks are given back.
fn reap(generation: u32, which: impl Fn(&JoinHandle<()>) -> bool) {
    let Ok(mut handles) = HANDLES.lock() else { return };
    let (ended, rest): (Vec<_>, Vec<_>) =
        handles.drain(..).partition(|(made, handle)| *made != generation || which(handle));
    *handles = rest;
    drop(handles);
    for (made, handle) in ended {
        if made == generation {
            let _ = handle.join();
        } else {
            std::mem::forget(handle);
        }
    }
}

/// A new thread inherits its maker's mask: block everything for the moment of making it.
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
}
