//! Drives the feeds that no drain drives: one job on a worker for the whole process.
//!
//! Guarantees: a feed is driven when its socket is ready and when it is due; a thread that drains in a loop is not interfered with;
//! while drains drive all feeds the job sleeps. It is never the thread that watches the Sentinels. Leaves to others: what a feed does
//! with what it reads (feed).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::feed::Feed;
use crate::queue::{Driven, Source};
use crate::sys::fork::PerProcess;
use crate::sys::poll::{self, PollFd};
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::sys::waker::Waker;
use crate::worker;

/// How often the job looks whether a drain that ended was followed by another one; and how often it looks without a waker.
const LOOK: Duration = Duration::from_millis(10);
/// For how long a feed is left to another thread that is reading it.
const READER_GRACE: Duration = Duration::from_millis(1);

struct Poller {
    registry: Lock<Registry>,
    /// The job looks again soon, so that the end of a drain need not wake it.
    looks: AtomicBool,
}

#[derive(Default)]
struct Registry {
    feeds: Vec<Arc<Feed>>,
    /// Its job runs on a worker.
    runs: bool,
    /// The job has not taken over the last additions.
    changed: bool,
    /// Without one, because no descriptor was left, the job looks often instead.
    waker: Option<Arc<Waker>>,
}

/// What one look at all feeds has found.
struct Found {
    fds: Vec<PollFd>,
    next: Option<Instant>,
    /// A drain has ended lately: another one may follow, or none.
    soon: bool,
}

static POLLER: PerProcess<Poller> = PerProcess::new();

fn poller() -> &'static Poller {
    POLLER
        .get_or_make(|| Poller { registry: Lock::new(Rank::Feeds, Registry::default()), looks: AtomicBool::new(false) })
}

/// Drives this feed, too, until it is over.
pub(super) fn add(feed: &Arc<Feed>) {
    poller().add(feed);
}

/// Has the job look at all feeds now.
pub(super) fn wake() {
    poller().wake();
}

/// A drain has ended. Unless another one follows soon, its feeds are the job's.
pub(super) fn drain_ended() {
    let poller = poller();
    if !poller.looks.swap(true, Ordering::SeqCst) {
        poller.wake();
    }
}

impl Poller {
    fn add(&'static self, feed: &Arc<Feed>) {
        let mut registry = self.registry.lock();
        registry.feeds.push(Arc::clone(feed));
        registry.changed = true;
        if registry.runs {
            drop(registry);
            return self.wake();
        }
        self.start(&mut registry);
    }

    /// Without a thread only drains drive the feeds, and the next feed tries again.
    fn start(&'static self, registry: &mut Registry) {
        registry.runs = worker::run(|| self.run()).is_ok();
        if registry.runs && registry.waker.is_none() {
            registry.waker = Waker::new().ok().map(Arc::new);
        }
    }

    fn wake(&self) {
        let waker = self.registry.lock().waker.clone();
        waker.iter().for_each(|waker| waker.wake());
    }

    fn run(&'static self) {
        let restart = Restart(self);
        let mut feeds = Vec::new();
        while let Some(waker) = self.gather(&mut feeds) {
            self.poll_once(&feeds, waker.as_deref());
        }
        std::mem::forget(restart);
    }

    /// The feeds, and what wakes the job; `None`: there are none, and the job ends.
    fn gather(&self, known: &mut Vec<Arc<Feed>>) -> Option<Option<Arc<Waker>>> {
        let mut registry = self.registry.lock();
        // Dropped after the lock, because what they own may take others.
        let mut before = Vec::new();
        if registry.changed || known.iter().any(|feed| feed.is_over()) {
            registry.changed = false;
            let kept = registry.feeds.iter().filter(|feed| !feed.is_over()).cloned().collect();
            before.push(std::mem::replace(&mut registry.feeds, kept));
            before.push(std::mem::replace(known, registry.feeds.clone()));
        }
        let waker = registry.waker.clone();
        let ends = registry.feeds.is_empty();
        if ends {
            (registry.runs, registry.waker) = (false, None);
        }
        drop(registry);
        (!ends).then_some(waker)
    }

    /// Waits once, and drives the feeds that are ready or due.
    fn poll_once(&self, feeds: &[Arc<Feed>], waker: Option<&Waker>) {
        self.looks.store(true, Ordering::SeqCst);
        let mut found = look(feeds, waker);
        if !found.soon {
            self.looks.store(false, Ordering::SeqCst);
            // A drain that ended in between has not woken this job.
            if feeds.iter().any(|feed| feed.was_drained()) {
                self.looks.store(true, Ordering::SeqCst);
                found.soon = true;
            }
        }
        let now = Instant::now();
        let soon = (found.soon || waker.is_none()).then(|| now + LOOK);
        // The upkeep of pools is due while this job lasts, too.
        let next = [found.next, soon, worker::keep_the_clock()].into_iter().flatten().min();
        // After a failure of poll all are driven: that never waits.
        let failed = poll::wait(&mut found.fds, next.map(|next| next.saturating_duration_since(now))).is_err();
        if let (true, Some(waker)) = (found.fds[0].readable(), waker) {
            waker.clear();
        }
        let now = Instant::now();
        for (feed, fd) in feeds.iter().zip(&found.fds[1..]) {
            let is_due = feed.due().is_some_and(|due| due <= now);
            let is_ready = failed || fd.readable() || fd.writable() || is_due || feed.wants_write();
            let is_free = !feed.is_drained() && feed.is_left_until(now).is_none();
            if is_ready && is_free && feed.drive() == Driven::Busy {
                feed.leave_alone(READER_GRACE);
            }
        }
    }
}

/// What to wait for: the sockets of the feeds that no drain drives, and when one of them is due or free.
fn look(feeds: &[Arc<Feed>], waker: Option<&Waker>) -> Found {
    let now = Instant::now();
    let mut found = Found { fds: Vec::with_capacity(feeds.len() + 1), next: None, soon: false };
    found.fds.push(PollFd::new(waker.map_or(-1, Waker::fd), true, false));
    for feed in feeds {
        found.soon |= feed.was_drained();
        let (fd, at) = match (feed.is_drained(), feed.is_left_until(now)) {
            (true, _) => (-1, None),
            (false, Some(until)) => (-1, Some(until)),
            (false, None) => (feed.fd().unwrap_or(-1), feed.due()),
        };
        found.next = [found.next, at].into_iter().flatten().min();
        found.fds.push(PollFd::new(fd, true, feed.wants_write()));
    }
    found
}

/// Starts the job again after a panic. The feed at which it happened has been given up by its owner, or panics again.
struct Restart(&'static Poller);

impl Drop for Restart {
    fn drop(&mut self) {
        self.0.start(&mut self.0.registry.lock());
    }
}
