//! Asks one server the same question repeatedly, on a connection that stays open.
//!
//! Guarantees: never waits; one question at a time, each with the time at which it was sent; a server that does not
//! answer in time is dialled again. Leaves to others: what is asked, how often, and what the answers mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Endpoint;
use crate::net::{Link, LinkEvent, LinkOptions, ServerInfo};
use crate::resp::Reply;
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;
use crate::time::Deadline;

/// A server that is asked.
pub(super) struct Asker {
    endpoint: Endpoint,
    options: Arc<LinkOptions>,
    link: Option<(Link, Deadline)>,
    /// When the dial of the connection began.
    begun: Instant,
    /// When the question was sent that has not been answered yet.
    asked: Option<Instant>,
    ready: bool,
    due: usize,
    replies: Vec<Reply>,
    /// No question and no dial before this.
    next: Instant,
}

/// What is asked, and how.
pub(super) struct Question<'a> {
    /// Empty if there is nothing to ask.
    pub(super) bytes: &'a [u8],
    /// How many replies it has.
    pub(super) replies: usize,
    /// The interval between two questions.
    pub(super) every: Duration,
    /// How long an answer, or a connection, may take.
    pub(super) patience: Duration,
}

/// The result of driving.
pub(super) enum Came {
    Nothing,
    /// The connection is established: the server is there.
    Ready,
    /// The answer, and when its question was sent.
    Answer(Instant, Vec<Reply>),
    /// The connection was refused; its dial began at this time.
    Refused(Instant),
}

impl Asker {
    pub(super) fn new(endpoint: Endpoint, options: Arc<LinkOptions>) -> Self {
        let now = Instant::now();
        let (link, asked, ready, due, replies) = (None, None, false, 0, Vec::new());
        Self { endpoint, options, link, begun: now, asked, ready, due, replies, next: now }
    }

    /// Does what can be done without waiting.
    pub(super) fn drive(&mut self, question: &Question<'_>, waker: &Arc<Waker>) -> Came {
        let now = Instant::now();
        if self.link.is_none() {
            if now < self.next {
                return Came::Nothing;
            }
            let until = Deadline::after(question.patience);
            let link = Link::begin(self.endpoint.clone(), Arc::clone(&self.options), until, Some(waker));
            (self.link, self.begun, self.ready, self.asked, self.due) = (Some((link, until)), now, false, None, 0);
            self.replies.clear();
        }
        let Some((link, until)) = &mut self.link else { return Came::Nothing };
        let mut events = Vec::new();
        let mut driven = link.drive(&mut events);
        if driven.is_ok() && self.ready && self.asked.is_none() && now >= self.next && question.bytes.is_empty() {
            self.next = now + question.patience;
        } else if driven.is_ok() && self.ready && self.asked.is_none() && now >= self.next {
            // Taken before the question is sent, because a lease is counted from here.
            let sent = Instant::now();
            (self.asked, self.due, *until) = (Some(sent), question.replies, Deadline::after(question.patience));
            self.next = sent + question.every;
            driven = link.send(question.bytes, &mut events);
        }
        // By the time that was read before the socket was looked at (ARCHITECTURE.md, Silence).
        let over = until.end().is_some_and(|end| now >= end);
        let late = over && (self.asked.is_some() || !self.ready);
        if late && until.is_missed() {
            // This process was stopped for a while, so only what arrives from now on counts.
            *until = until.renewed(question.patience);
        }
        let late = late && until.is_over();
        let came = self.take(events);
        if let Err(error) = driven {
            let refused = error.errno() == libc::ECONNREFUSED;
            self.lose(question);
            return if refused { Came::Refused(self.begun) } else { came };
        }
        if late && !matches!(came, Came::Answer(..)) {
            self.lose(question);
        }
        came
    }

    fn take(&mut self, events: Vec<LinkEvent>) -> Came {
        let mut came = Came::Nothing;
        for event in events {
            match event {
                LinkEvent::Ready => (self.ready, came) = (true, Came::Ready),
                LinkEvent::Reply(reply) if self.due > 0 => {
                    self.replies.push(reply);
                    self.due -= 1;
                }
                LinkEvent::Reply(_) | LinkEvent::Push(_) => {}
            }
        }
        match self.asked {
            Some(asked) if self.due == 0 => {
                self.asked = None;
                Came::Answer(asked, std::mem::take(&mut self.replies))
            }
            _ => came,
        }
    }

    fn lose(&mut self, question: &Question<'_>) {
        self.link = None;
        self.next = self.next.max(Instant::now() + question.every);
    }

    /// What the handshake found out, once the connection is ready.
    pub(super) fn info(&self) -> Option<&ServerInfo> {
        self.link.as_ref().and_then(|(link, _)| link.info())
    }

    /// Closes the connection; the next drive opens another one, and asks at once.
    pub(super) fn hang_up(&mut self) {
        (self.link, self.next) = (None, Instant::now());
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.link.iter().flat_map(|(link, _)| link.poll_fds())
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match &self.link {
            Some((link, until)) if !self.ready => [link.wakes_at(), until.end()].into_iter().flatten().min(),
            Some((_, until)) if self.asked.is_some() => until.end(),
            _ => Some(self.next),
        }
    }
}
