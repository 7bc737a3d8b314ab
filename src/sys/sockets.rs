//! Which descriptors are sockets of the library, so that a forked child can close its copies of them.
//!
//! Guarantees: the copies are closed before the child's first line of code, when each number is certain to stand for that socket; a close
//! neither sends anything nor waits, because the parent has the connection open still; no lock. A socket that is opened or closed at the
//! moment of the fork may be left open, and none is closed that is not the library's. Leaves to others: which sockets are marked (own).
//!
//! Why they are closed: a connection lasts as long as any process has it open. Without this the transactions, blocking commands and
//! subscriptions of a parent that was killed would go on at the server as long as its children live.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Descriptors beyond this many are left to the child.
const MOST: usize = 1 << 16;
const BITS: usize = u64::BITS as usize;

/// One bit for each descriptor.
static OPEN: [AtomicU64; MOST / BITS] = [const { AtomicU64::new(0) }; MOST / BITS];
/// So many words of them have ever been used.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Marks a socket that was just opened.
pub(super) fn mark(fd: RawFd) {
    if let Some((word, bit)) = place(fd) {
        USED.fetch_max(word + 1, Ordering::Relaxed);
        OPEN[word].fetch_or(bit, Ordering::Release);
    }
}

/// Takes the mark from a socket that is about to be closed: a child that is forked before that keeps a copy, and closes nothing that is
/// not the library's.
pub(super) fn unmark(fd: RawFd) {
    if let Some((word, bit)) = place(fd) {
        OPEN[word].fetch_and(!bit, Ordering::AcqRel);
    }
}

#[cfg(test)]
pub(super) fn is_marked(fd: RawFd) -> bool {
    place(fd).is_some_and(|(word, bit)| OPEN[word].load(Ordering::Acquire) & bit != 0)
}

fn place(fd: RawFd) -> Option<(usize, u64)> {
    let fd = usize::try_from(fd).ok().filter(|fd| *fd < MOST)?;
    Some((fd / BITS, 1 << (fd % BITS)))
}

/// Closes the copies, in a child whose other code has not run yet.
pub(super) fn close_copies() {
    for (at, word) in OPEN.iter().enumerate().take(USED.load(Ordering::Relaxed)) {
        let mut open = word.swap(0, Ordering::Relaxed);
        while open != 0 {
            let bit = open.trailing_zeros() as usize;
            open &= open - 1;
            // SAFETY: close takes a number. At the fork it stood for a socket of the library, and nothing has run in the child since.
            unsafe { libc::close((at * BITS + bit) as RawFd) };
        }
    }
}
