//! What a waiting drain does beside waiting: it reads the sockets of the calls that are outstanding.
//!
//! Guarantees: one drain at a time has the watch; it returns from its sleep when a source is ready, a deadline of one comes, or
//! somebody else has an event for it. Leaves to others: what a source is (client), reading while no drain waits (pool).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::pipe::Pipe;
use crate::sys::poll::{self, PollFd};

/// Where completions come from.
pub trait Source: Send + Sync {
    /// The descriptor that becomes readable when something came; `None`: others look after it.
    fn fd(&self) -> Option<RawFd> {
        None
    }
    /// A drain looks after it from now on: nobody else needs to.
    fn enter(&self) {}
    /// The drain is over.
    fn leave(&self) {}
    /// Whether it waits for room to send.
    fn wants_write(&self) -> bool {
        false
    }
    /// When it has to be looked after although nothing came.
    fn due(&self) -> Option<Instant> {
        None
    }
    /// Does what can be done without waiting.
    fn tend(&self) -> Tended;
    /// Nothing will come from it any more.
    fn is_over(&self) -> bool;
    /// Ends the calls of this queue and token; how many there were.
    fn cancel(&self, queue: usize, token: u64) -> usize;
}

/// How a source was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// What there was has been read.
    Read,
    /// Another thread is reading.
    Busy,
}

/// The sources, and what wakes who looks after them.
pub(super) struct Watch {
    sources: Arc<Vec<Arc<dyn Source>>>,
    alarm: Arc<Pipe>,
}

impl Watch {
    pub(super) fn new(sources: Arc<Vec<Arc<dyn Source>>>, alarm: Arc<Pipe>) -> Self {
        sources.iter().for_each(|source| source.enter());
        Self { sources, alarm }
    }

    pub(super) fn leave(&self) {
        self.sources.iter().for_each(|source| source.leave());
    }

    /// Sleeps until something is ready, or due, or the time is over: which of the sources have to be looked after.
    pub(super) fn wait(&self, left: Option<Duration>) -> Vec<bool> {
        let mut fds = Vec::with_capacity(self.sources.len() + 1);
        fds.push(PollFd::new(self.alarm.fd(), true, false));
        let polled = self.sources.iter().map(|source| (source.fd().unwrap_or(-1), source.wants_write()));
        fds.extend(polled.map(|(fd, writes)| PollFd::new(fd, true, writes)));
        let due = self.sources.iter().filter_map(|source| source.due()).min();
        let until = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.map_or(until, |left| Some(until.map_or(left, |until| until.min(left))));
        // After a failure of poll all are looked after: who tends a source does not wait.
        let failed = poll::wait(&mut fds, left).is_err();
        let now = due.map(|_| Instant::now());
        let is_due = |source: &Arc<dyn Source>| now.is_some_and(|now| source.due().is_some_and(|due| due <= now));
        let ready = self.sources.iter().zip(&fds[1..]);
        ready.map(|(source, fd)| failed || fd.readable() || fd.writable() || is_due(source)).collect()
    }

    /// Looks after all sources that have a descriptor.
    pub(super) fn tend_all(&self) {
        self.sources.iter().filter(|source| source.fd().is_some()).for_each(|source| _ = source.tend());
    }

    /// Looks after the sources that were found ready. True: some were, and all of them are in other hands.
    pub(super) fn tend(&self, found: &[bool]) -> bool {
        let ready = self.sources.iter().zip(found).filter(|(_, ready)| **ready);
        let (mut seen, mut read) = (false, false);
        for (source, _) in ready {
            seen = true;
            read |= source.tend() == Tended::Read;
        }
        seen && !read
    }
}
