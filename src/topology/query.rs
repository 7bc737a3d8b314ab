//! One flight of questions to all Sentinels at the same time, from one thread.
//!
//! Guarantees: no Sentinel may take longer than timeout.sentinel to accept, to shake hands, or to answer; those that are slow or dead
//! delay nobody else. A query that is dropped closes its connections. Leaves to others: what the answers mean, when enough have
//! come, and the limit for all of it.

use crate::config::Endpoint;
use crate::error::{Error, Result};
use crate::net::{Link, LinkEvent, LinkOptions};
use crate::resp::Reply;
use crate::sys::poll::{self, PollFd};
use crate::sys::waker::Waker;
use crate::time::Deadline;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a question to one Sentinel ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its replies.
    Answered(Vec<Reply>),
    /// What went wrong.
    Failed(Error),
}

/// Questions under way.
pub struct Query {
    options: Arc<LinkOptions>,
    flight: Vec<u8>,
    replies: usize,
    timeout: Duration,
    waker: Option<Arc<Waker>>,
    probes: Vec<Probe>,
}

struct Probe {
    link: Link,
    phase: u8,
    /// The end of the present phase: a slow network must not count three times.
    until: Deadline,
    due: usize,
    replies: Vec<Reply>,
    done: bool,
}

impl Query {
    /// A query that asks nobody yet: these bytes, which have so many replies.
    pub fn new(options: LinkOptions, flight: Vec<u8>, replies: usize, timeout: Duration) -> Self {
        Self { options: Arc::new(options), flight, replies, timeout, waker: None, probes: Vec::new() }
    }

    /// Asks one more Sentinel. Its index is the number of those before it.
    pub fn add(&mut self, endpoint: Endpoint) {
        // Without a waker a name that is resolved is noticed at the next event or timeout.
        if self.waker.is_none() && !endpoint.is_ip() {
            self.waker = Waker::new().ok().map(Arc::new);
        }
        let until = Deadline::after(self.timeout);
        let link = Link::begin(endpoint, Arc::clone(&self.options), until, self.waker.as_ref());
        self.probes.push(Probe { link, phase: 0, until, due: self.replies, replies: Vec::new(), done: false });
    }

    /// Asks one that has answered something more; its outcome comes again, with the new replies behind the others.
    pub fn ask_more(&mut self, index: usize, bytes: &[u8], replies: Vec<Reply>) -> Option<Outcome> {
        let probe = &mut self.probes[index];
        (probe.replies, probe.due, probe.done) = (replies, 1, false);
        probe.until = Deadline::after(self.timeout);
        let mut events = Vec::new();
        let sent = probe.link.send(bytes, &mut events);
        probe.finish(sent, events, &self.flight, self.timeout, Instant::now())
    }

    /// How many have neither answered nor failed.
    pub fn unfinished(&self) -> usize {
        self.probes.iter().filter(|probe| !probe.done).count()
    }

    /// Lets the links go on as far as they can, waiting for the first event until `limit`; who has come to an end by then.
    pub fn step(&mut self, limit: Instant) -> Vec<(usize, Outcome)> {
        let mut ended = self.drive();
        if ended.is_empty() && self.unfinished() > 0 {
            self.wait(limit);
            ended = self.drive();
        }
        ended
    }

    fn drive(&mut self) -> Vec<(usize, Outcome)> {
        if let Some(waker) = &self.waker {
            waker.clear();
        }
        let (mut ended, now) = (Vec::new(), Instant::now());
        for (index, probe) in self.probes.iter_mut().enumerate().filter(|(_, probe)| !probe.done) {
            let mut events = Vec::new();
            let driven = probe.link.drive(&mut events);
            if let Some(outcome) = probe.finish(driven, events, &self.flight, self.timeout, now) {
                ended.push((index, outcome));
            }
        }
        ended
    }

    fn wait(&self, limit: Instant) {
        let waiting = || self.probes.iter().filter(|probe| !probe.done);
        let mut fds: Vec<PollFd> = waiting().flat_map(|probe| probe.link.poll_fds()).collect();
        if let Some(waker) = &self.waker {
            fds.push(PollFd::new(waker.fd(), true, false));
        }
        let wakes = waiting().flat_map(|probe| [probe.until.end(), probe.link.wakes_at()]).flatten();
        let until = wakes.fold(limit, Instant::min);
        // After a failure of poll the links go on as far as they can all the same, and the deadlines are looked at.
        let _ = poll::wait(&mut fds, Some(until.saturating_duration_since(Instant::now())));
    }
}

impl Probe {
    /// Takes what a link brought, and ends when all is there, something broke, or the time was over before the link was driven.
    fn finish(
        &mut self,
        mut driven: Result<()>,
        events: Vec<LinkEvent>,
        flight: &[u8],
        timeout: Duration,
        now: Instant,
    ) -> Option<Outcome> {
        let mut more = Vec::new();
        for event in events {
            match event {
                LinkEvent::Ready => driven = driven.and_then(|()| self.link.send(flight, &mut more)),
                LinkEvent::Reply(reply) => self.keep(reply),
                LinkEvent::Push(_) => {}
            }
        }
        for event in more {
            if let LinkEvent::Reply(reply) = event {
                self.keep(reply);
            }
        }
        if self.link.phase() != self.phase {
            (self.phase, self.until) = (self.link.phase(), Deadline::after(timeout));
        } else if self.until.is_missed() {
            // This process was stopped: it judges by what comes from now on.
            self.until = Deadline::after(timeout);
        }
        let outcome = if self.due == 0 {
            Outcome::Answered(std::mem::take(&mut self.replies))
        } else if let Err(error) = driven {
            Outcome::Failed(error)
        } else if self.until.end().is_some_and(|end| now >= end) {
            Outcome::Failed(self.link.timed_out(self.until.elapsed()))
        } else {
            return None;
        };
        self.done = true;
        Some(outcome)
    }

    fn keep(&mut self, reply: Reply) {
        self.replies.push(reply);
        self.due = self.due.saturating_sub(1);
    }
}
