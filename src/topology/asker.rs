//! Asks one server the same question repeatedly, on a connection that stays open.
//!
//! Guarantees: never waits; one question at a time, each with the time at which it was sent; a server that does not
//! answer in time, or that sends what was not asked for, is dialled again. Leaves to others: what is asked, how often, and
//! what the answers mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer;
use crate::config::Endpoint;
use crate::error::Result;
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
        let mut came = Came::Nothing;
        if let Err(error) = self.exchange(question, now, &mut came) {
            self.lose(question);
            return if error.errno() == libc::ECONNREFUSED { Came::Refused(self.begun) } else { came };
        }
        if !matches!(came, Came::Answer(..)) && self.is_late(question, now) {
            self.lose(question);
        }
        came
    }

    /// Takes what has come, and then asks what is to be asked: what came before a question does not answer it.
    fn exchange(&mut self, question: &Question<'_>, now: Instant, came: &mut Came) -> Result<()> {
        let may_ask = self.ready && self.asked.is_none() && now >= self.next;
        let mut events = Vec::new();
        let driven = self.link.as_mut().map_or(Ok(()), |(link, _)| link.drive(&mut events));
        self.take(events, came).and(driven)?;
        let Some((link, until)) = self.link.as_mut().filter(|_| may_ask) else { return Ok(()) };
        if question.bytes.is_empty() {
            self.next = now + question.patience;
            return Ok(());
        }
        // Taken before the question is sent, because a lease is counted from here.
        let sent = Instant::now();
        (self.asked, self.due, *until) = (Some(sent), question.replies, Deadline::after(question.patience));
        self.next = sent + question.every;
        let mut events = Vec::new();
        let sent = link.send(question.bytes, &mut events);
        self.take(events, came).and(sent)
    }

    /// Whether an answer, or the connection, is late, by the time that was read before the socket was looked at
    /// (ARCHITECTURE.md, Silence).
    fn is_late(&mut self, question: &Question<'_>, now: Instant) -> bool {
        let Some((_, until)) = &mut self.link else { return false };
        let over = until.end().is_some_and(|end| now >= end);
        if !over || (self.asked.is_none() && self.ready) {
            return false;
        }
        if until.is_missed() {
            // This process was stopped for a while, so only what arrives from now on counts.
            *until = until.renewed(question.patience);
        }
        until.is_over()
    }

    fn take(&mut self, events: Vec<LinkEvent>, came: &mut Came) -> Result<()> {
        for event in events {
            let reply = match event {
                LinkEvent::Ready => {
                    (self.ready, *came) = (true, Came::Ready);
                    continue;
                }
                LinkEvent::Reply(reply) if self.due > 0 => reply,
                LinkEvent::Reply(_) | LinkEvent::Push(_) => return Err(answer::unasked(&self.endpoint)),
            };
            self.replies.push(reply);
            self.due -= 1;
            if self.due == 0 {
                *came = match self.asked.take() {
                    Some(asked) => Came::Answer(asked, std::mem::take(&mut self.replies)),
                    None => Came::Nothing,
                };
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::order_tests::support::{Fault, Scripted, eventually};
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_comes_before_a_question_does_not_answer_it() {
        const SOON: Duration = Duration::from_secs(20);
        let one = Scripted::sentinel("mymaster", "127.0.0.1:1");
        let mut config = Config::new();
        config.set("sentinel.addrs", &one.addr()).unwrap();
        let settings = config.settings().unwrap().sentinel;
        let options = Arc::new(LinkOptions::of_sentinel(&settings));
        let (mut asker, waker) = (Asker::new(settings.addrs[0].clone(), options), Arc::new(Waker::new().unwrap()));
        let question = Question { bytes: b"*1\r\n$4\r\nPING\r\n", replies: 1, every: Duration::ZERO, patience: SOON };
        one.fault_times("PING", 1, Fault::Raw(b"+PONG\r\n+STRAY\r\n".into()));
        let mut answers = Vec::new();
        eventually("it is answered three times", SOON, || {
            if let Came::Answer(_, replies) = asker.drive(&question, &waker) {
                answers.extend(replies.iter().map(|reply| reply.bytes(0).map(<[u8]>::to_vec)));
            }
            answers.len() >= 3
        });
        assert!(answers.iter().all(|answer| answer.as_deref() == Some(&b"PONG"[..])), "{answers:?}");
        assert_eq!(one.accepted(), 2, "on another connection");
    }
}
