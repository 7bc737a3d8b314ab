//! Asks a candidate for its role, again and again, until it says that it is a primary (rule 9).
//!
//! Guarantees: never waits; asks every [`EVERY`]; ends at the first "master" and says so once. Leaves to others: whether the
//! candidate is taken at its word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Event, Link, LinkOptions};
use crate::config::{ClientSettings, Endpoint};
use crate::net::{Expect, Waker};
use crate::sys::poll::PollFd;
use crate::time::Deadline;

/// Between an answer and the next question.
const EVERY: Duration = Duration::from_millis(12);
/// A candidate that does not answer is dialled anew.
const PATIENCE: Duration = Duration::from_millis(500);

/// A candidate under question.
pub(super) struct Probe {
    /// As announced.
    pub(super) announced: Endpoint,
    endpoint: Endpoint,
    options: Arc<LinkOptions>,
    link: Option<(Link, Deadline)>,
    begun: Instant,
    next: Instant,
    ready: bool,
    asked: bool,
    /// It has said that it is a primary.
    pub(super) says_primary: bool,
}

impl Probe {
    pub(super) fn new(announced: Endpoint, endpoint: Endpoint, settings: &ClientSettings) -> Self {
        let options = Arc::new(LinkOptions::for_node(settings, Expect::Any));
        let now = Instant::now();
        let (link, ready, asked, says_primary) = (None, false, false, false);
        Self { announced, endpoint, options, link, begun: now, next: now, ready, asked, says_primary }
    }

    /// For how long it has been asked.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Does what can be done now; true when the candidate says for the first time that it is a primary.
    pub(super) fn drive(&mut self, waker: &Arc<Waker>) -> bool {
        if self.says_primary {
            return false;
        }
        let now = Instant::now();
        if self.link.is_none() {
            if now < self.next {
                return false;
            }
            let until = Deadline::after(PATIENCE);
            let link = Link::begin(self.endpoint.clone(), Arc::clone(&self.options), until, Some(waker));
            self.link = Some((link, until));
            (self.ready, self.asked) = (false, false);
        }
        let Some((link, until)) = &mut self.link else { return false };
        let mut events = Vec::new();
        let mut driven = link.drive(&mut events);
        if driven.is_ok() && self.ready && !self.asked && now >= self.next {
            // Of one that tells its role by nothing the Sentinels' word alone is to be had.
            if let Some(question) = link.info().and_then(|info| info.tells.question()) {
                (self.asked, *until) = (true, Deadline::after(PATIENCE));
                driven = link.send(&question, &mut events);
            } else {
                self.next = now + PATIENCE;
            }
        }
        let late = until.is_over() && (self.asked || !self.ready);
        for event in events {
            self.next = now + EVERY;
            match event {
                Event::Ready => self.ready = true,
                Event::Reply(reply) => {
                    self.asked = false;
                    let told = link.info().and_then(|info| info.tells.read(&reply));
                    self.says_primary |= told.is_some_and(|role| role.is_primary());
                }
                Event::Push(_) => {}
            }
        }
        if self.says_primary || driven.is_err() || late {
            self.link = None;
            self.next = now + EVERY;
        }
        self.says_primary
    }

    /// What to poll for.
    pub(super) fn poll_fd(&self) -> Option<PollFd> {
        self.link.as_ref().and_then(|(link, _)| link.poll_fd())
    }

    /// When it wants to be driven though nothing happened.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match &self.link {
            _ if self.says_primary => None,
            Some((_, until)) if self.asked || !self.ready => until.end(),
            _ => Some(self.next),
        }
    }
}
