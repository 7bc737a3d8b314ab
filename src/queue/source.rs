//! The reactor: while a drain waits it drives the connections of the calls that are outstanding.
//!
//! Guarantees: one drain at a time runs the reactor. It wakes when a source is ready, when a source's deadline comes, and when another
//! thread adds an event. Leaves to others: what a source is (submit), driving it while no drain waits (pool).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::poll::{self, PollFd};
use crate::sys::waker::Waker;

/// Where completions come from.
pub trait Source: Send + Sync {
    /// The descriptor that becomes readable when something came; `None`: the source is not driven by drains.
    fn fd(&self) -> Option<RawFd> {
        None
    }
    /// A drain drives it from now on, and no other thread needs to.
    fn begin_drain(&self) {}
    /// The drain has ended.
    fn end_drain(&self) {}
    /// Whether it waits until the socket takes more.
    fn wants_write(&self) -> bool {
        false
    }
    /// Whether a drain looks at it before it sleeps, because something has most likely come by then.
    fn is_eager(&self) -> bool {
        true
    }
    /// When it has to be driven although nothing came.
    fn due(&self) -> Option<Instant> {
        None
    }
    /// Does what can be done without waiting.
    fn drive(&self) -> Driven;
    /// Whether nothing will come from it any more.
    fn is_over(&self) -> bool;
    /// Has the server end the blocking command of this queue and token, whose completion arrives then. False: that cannot be asked for.
    fn unblock(&self, _queue: usize, _token: u64) -> bool {
        false
    }
    /// Ends the calls of this queue and token, and returns how many there were.
    fn cancel(&self, queue: usize, token: u64) -> usize;
}

/// What driving a source found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// What there was has been read.
    Read,
    /// Another thread is reading.
    Busy,
}

/// What ended a sleep.
#[derive(Default)]
pub(super) struct Woken {
    /// Which sources are ready.
    pub(super) ready: Vec<bool>,
    /// A signal.
    pub(super) interrupted: bool,
}

/// Sources that are held for the moment.
pub(super) type Sources = Vec<Arc<dyn Source>>;

/// The sources, and what wakes the drain that drives them.
pub(super) struct Reactor {
    sources: Sources,
    waker: Arc<Waker>,
}

impl Reactor {
    pub(super) fn new(sources: Sources, waker: Arc<Waker>) -> Self {
        sources.iter().for_each(|source| source.begin_drain());
        Self { sources, waker }
    }

    pub(super) fn end(&self) {
        self.sources.iter().for_each(|source| source.end_drain());
    }

    /// Sleeps until a source is ready or due, the time is over, or a signal comes. Tells which of the sources have to be driven.
    pub(super) fn wait(&self, left: Option<Duration>) -> Woken {
        let mut fds = Vec::with_capacity(self.sources.len() + 1);
        fds.push(PollFd::new(self.waker.fd(), true, false));
        // A connection that has ended is always readable: with it among the descriptors no drain would sleep.
        let fd = |source: &Arc<dyn Source>| source.fd().filter(|_| !source.is_over()).unwrap_or(-1);
        let polled = self.sources.iter().map(|source| (fd(source), source.wants_write()));
        fds.extend(polled.map(|(fd, writes)| PollFd::new(fd, true, writes)));
        let due = self.sources.iter().filter_map(|source| source.due()).min();
        let until = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.map_or(until, |left| Some(until.map_or(left, |until| until.min(left))));
        // After a failure of poll all are driven: that never waits.
        let polled = poll::wait_or_interrupted(&mut fds, left);
        let (failed, interrupted) = (polled.is_err(), matches!(polled, Ok(None)));
        let now = due.map(|_| Instant::now());
        let is_due = |source: &Arc<dyn Source>| now.is_some_and(|now| source.due().is_some_and(|due| due <= now));
        let ready = self.sources.iter().zip(&fds[1..]);
        let ready = ready.map(|(source, fd)| failed || fd.readable() || fd.writable() || is_due(source)).collect();
        Woken { ready, interrupted }
    }

    /// Drives all sources that have a descriptor and for which a look is worth its cost.
    pub(super) fn drive_all(&self) {
        let eager = |source: &&Arc<dyn Source>| source.fd().is_some() && source.is_eager();
        self.sources.iter().filter(eager).for_each(|source| _ = source.drive());
    }

    /// Drives the sources that were found ready. True: some were, and another thread is reading each of them.
    pub(super) fn drive(&self, found: &[bool]) -> bool {
        let ready = self.sources.iter().zip(found).filter(|(_, ready)| **ready);
        let (mut seen, mut read) = (false, false);
        for (source, _) in ready {
            seen = true;
            read |= source.drive() == Driven::Read;
        }
        seen && !read
    }
}
