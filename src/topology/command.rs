//! The one connection on which a Sentinel is asked. It carries the questions of all services, in order.
//!
//! Guarantees: never waits; at most [`MOST`] replies are outstanding, and urgent questions go first; the time of a
//! question begins when it is sent. The first late reply marks the link as silent: all its questions fail at once, and
//! so do new ones, until the Sentinel answers; once the silence is older than a question's time, the question waits for
//! the connection that is dialled beside. Late replies are dropped; a message that was not asked for ends the link. A
//! lost or silent link is dialled again. MYID is asked once for each connection, INFO once for all questions of the same
//! moment. Leaves to others: what is asked, and what the answers mean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{self, OwnState};
use crate::config::Endpoint;
use crate::error::{Error, Result, Status};
use crate::net::{Link, LinkEvent, LinkOptions, resolve};
use crate::resp::{Reply, encode};
use crate::sys::poll::{self, Found, PollFd};
use crate::sys::waker::Waker;
use crate::time::Deadline;

/// How many replies may be outstanding on one link.
const MOST: usize = 16;
/// The pause before a link is dialled again after a failure.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between failures, each of which doubles it.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A connection that lasted so long was no failure.
const STOOD: Duration = Duration::from_secs(3);
/// How often a host name is resolved again.
const RENEW: Duration = Duration::from_secs(30);

/// Who asks: a discovery, and the index of the Sentinel in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) asker: u64,
    pub(super) index: usize,
}

/// A question.
pub(super) struct Ask {
    pub(super) ticket: Ticket,
    pub(super) bytes: Vec<u8>,
    /// How many replies it has.
    pub(super) replies: usize,
    /// The time limit for an answer, for the connection, and for the handshake, each.
    pub(super) timeout: Duration,
    /// It goes before questions that are not urgent.
    pub(super) urgent: bool,
    /// The answer needs an INFO that was asked no earlier than this; `None`: it needs none.
    pub(super) info_since: Option<Instant>,
}

/// The answer to a question.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) replies: Vec<Reply>,
    /// The reply to MYID on this connection.
    pub(super) id: Arc<Reply>,
    /// The latest reply to INFO.
    pub(super) info: Option<Arc<OwnState>>,
}

/// How questions ended.
pub(super) type Ended = Vec<(Ticket, Result<Answered>)>;

/// A question that was sent and has not been answered yet.
struct Sent {
    what: SentKind,
    due: usize,
    replies: Vec<Reply>,
    until: Deadline,
}

enum SentKind {
    Id,
    Info,
    /// `again`: it was sent before, on a connection that was lost.
    Question {
        ask: Ask,
        again: bool,
    },
    /// The asker does not wait for it any more.
    Dropped,
}

/// A connection that is being established.
struct Coming {
    link: Link,
    phase: u8,
    /// The deadline of the current phase; each phase has its own, so that a slow network does not count three times.
    until: Deadline,
    timeout: Duration,
    ready: bool,
}

/// Where a link leads, and how. Questions share a link if all of it is equal, so that the time limit of one handle ends no question
/// of another.
#[derive(Clone, PartialEq)]
pub(super) struct LinkKey {
    pub(super) endpoint: Endpoint,
    pub(super) options: Arc<LinkOptions>,
    /// The time limit of each question.
    pub(super) timeout: Duration,
}

/// The link to one Sentinel.
pub(super) struct CommandLink {
    endpoint: Endpoint,
    options: Arc<LinkOptions>,
    timeout: Duration,
    live: Option<Box<Link>>,
    coming: Option<Box<Coming>>,
    queue: VecDeque<(Ask, bool)>,
    in_flight: VecDeque<Sent>,
    due: usize,
    id: Option<Arc<Reply>>,
    info: Option<Arc<OwnState>>,
    info_asked: Option<Instant>,
    /// Why the link is silent and since when; `None`: it is not.
    silent: Option<(Error, Instant)>,
    /// No dial before this.
    rests_until: Option<Instant>,
    /// Failures since a connection that lasted.
    failures: u32,
    /// When the live connection was ready.
    since: Option<Instant>,
    /// When the host name is resolved again, and the lookup that is under way.
    renews: Option<Instant>,
    lookup: Option<resolve::Lookup>,
}

impl CommandLink {
    /// A link that is dialled with the first question.
    pub(super) fn new(key: LinkKey) -> Self {
        Self {
            endpoint: key.endpoint,
            options: key.options,
            timeout: key.timeout,
            live: None,
            coming: None,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            due: 0,
            id: None,
            info: None,
            info_asked: None,
            silent: None,
            rests_until: None,
            failures: 0,
            since: None,
            renews: None,
            lookup: None,
        }
    }

    /// Whether it is this link.
    pub(super) fn is(&self, key: &LinkKey) -> bool {
        self.timeout == key.timeout && self.endpoint == key.endpoint && *self.options == *key.options
    }

    /// Whether no asker waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.iter().all(|sent| matches!(sent.what, SentKind::Dropped))
    }

    /// Whether there is something to do.
    fn is_due(&self, found: &Found, now: Instant) -> bool {
        !self.queue.is_empty() || self.wakes_at().is_some_and(|at| now >= at) || found.concerns(self.poll_fds())
    }

    /// Queues a question; it is sent as soon as the link allows.
    pub(super) fn ask(&mut self, ask: Ask) {
        let place = match ask.urgent {
            true => self.queue.iter().take_while(|(queued, _)| queued.urgent).count(),
            false => self.queue.len(),
        };
        self.queue.insert(place, (ask, false));
    }

    /// Moves the questions of this asker before those that are not urgent.
    fn hurry(&mut self, asker: u64) {
        let (hurried, others): (VecDeque<_>, VecDeque<_>) =
            self.queue.drain(..).partition(|(ask, _)| ask.urgent || ask.ticket.asker == asker);
        self.queue = hurried;
        self.queue.iter_mut().for_each(|(ask, _)| ask.urgent = true);
        self.queue.extend(others);
    }

    /// Drops all questions of this asker.
    pub(super) fn cancel(&mut self, asker: u64) {
        self.queue.retain(|(ask, _)| ask.ticket.asker != asker);
        for sent in &mut self.in_flight {
            if matches!(&sent.what, SentKind::Question { ask, .. } if ask.ticket.asker == asker) {
                sent.what = SentKind::Dropped;
            }
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn drive(&mut self, waker: Option<&Arc<Waker>>, ended: &mut Ended) {
        let now = Instant::now();
        self.dial_if_needed(now, waker, ended);
        if let Some(link) = &mut self.live {
            let mut events = Vec::new();
            let driven = link.drive(&mut events);
            if let Err(error) = self.take(events, ended).and(driven) {
                self.lose(error, now, ended);
                self.dial_if_needed(now, waker, ended);
            }
        }
        self.advance_coming(now, ended);
        self.judge(now, ended);
        self.send_due(now, ended);
        self.dial_if_needed(now, waker, ended);
        self.renew_name(now, waker);
    }

    /// Dials if something is to be asked and the link is lost or silent. Questions to a link that has just become silent
    /// fail at once; only an urgent one has it dialled then, because a Sentinel that is late for a poll may just be busy.
    fn dial_if_needed(&mut self, now: Instant, waker: Option<&Arc<Waker>>, ended: &mut Ended) {
        let silence = self.silent.as_ref().map(|(_, since)| now.saturating_duration_since(*since));
        let is_worth_it = |ask: &Ask| silence.is_none_or(|silence| ask.urgent || silence >= ask.timeout);
        let wanted = self.queue.front().filter(|(ask, _)| is_worth_it(ask)).map(|(ask, _)| ask.timeout);
        let is_live = self.live.is_some() && self.silent.is_none();
        let may = self.rests_until.is_none_or(|until| now >= until);
        if let Some(timeout) = wanted.filter(|_| !is_live && self.coming.is_none() && may) {
            self.dial(timeout, waker);
        }
        if let Some((why, since)) = self.silent.take() {
            self.fail_queued(&why, ended, |ask| now.saturating_duration_since(since) < ask.timeout);
            self.silent = Some((why, since));
        }
    }

    /// The pause after one more failure.
    fn pause(&mut self) -> Duration {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }

    fn fail_queued(&mut self, why: &Error, ended: &mut Ended, fails: impl Fn(&Ask) -> bool) {
        self.queue.retain(|(ask, _)| {
            let fails = fails(ask);
            ended.extend(fails.then(|| (ask.ticket, Err(why.clone()))));
            !fails
        });
    }

    fn dial(&mut self, timeout: Duration, waker: Option<&Arc<Waker>>) {
        let until = Deadline::after(timeout);
        let link = Link::begin(self.endpoint.clone(), Arc::clone(&self.options), until, waker);
        self.coming = Some(Box::new(Coming { link, phase: 0, until, timeout, ready: false }));
    }

    /// Replaces the connection by the new one, once that is ready and nothing is in flight on the old one.
    fn advance_coming(&mut self, now: Instant, ended: &mut Ended) {
        let Some(coming) = &mut self.coming else { return };
        let mut events = Vec::new();
        let driven = coming.link.drive(&mut events);
        let unasked = events.iter().any(|event| !matches!(event, LinkEvent::Ready));
        coming.ready |= !events.is_empty();
        let driven = driven.and(if unasked { Err(answer::unasked(&self.endpoint)) } else { Ok(()) });
        if coming.link.phase() != coming.phase {
            (coming.phase, coming.until) = (coming.link.phase(), Deadline::after(coming.timeout));
        } else if coming.until.is_missed() {
            // This process was stopped for a while, so only what arrives from now on counts.
            coming.until = coming.until.renewed(coming.timeout);
        }
        let late = !coming.ready && coming.until.end().is_some_and(|end| now >= end);
        let failed = driven.err().or_else(|| late.then(|| coming.link.timed_out(coming.until.elapsed())));
        if let Some(error) = failed {
            self.coming = None;
            self.rests_until = Some(now + self.pause());
            if self.live.is_none() || self.silent.is_some() {
                self.fail_queued(&error, ended, |_| true);
            }
        } else if coming.ready && (self.live.is_none() || self.is_drained()) {
            let link = self.coming.take().map(|coming| Box::new(coming.link));
            self.forget_connection();
            (self.live, self.rests_until, self.since) = (link, None, Some(now));
            self.renews = (!self.endpoint.is_ip()).then(|| now + RENEW);
        }
    }

    /// Whether no question with a waiting asker is in flight.
    fn is_drained(&self) -> bool {
        self.in_flight.iter().all(|sent| !matches!(sent.what, SentKind::Question { .. }))
    }

    fn forget_connection(&mut self) {
        // A lookup is only of use for an established connection: the next dial resolves the name anyway.
        (self.live, self.renews, self.lookup) = (None, None, None);
        self.in_flight.clear();
        (self.due, self.silent, self.id, self.info, self.info_asked) = (0, None, None, None, None);
    }

    /// The connection was lost. Questions that were sent on it are sent once more on the next one: a Sentinel that
    /// restarts ends good connections.
    fn lose(&mut self, error: Error, now: Instant, ended: &mut Ended) {
        let sent = std::mem::take(&mut self.in_flight);
        self.forget_connection();
        for sent in sent.into_iter().rev() {
            match sent.what {
                SentKind::Question { ask, again: false } => self.queue.push_front((ask, true)),
                SentKind::Question { ask, again: true } => ended.push((ask.ticket, Err(error.clone()))),
                SentKind::Id | SentKind::Info | SentKind::Dropped => {}
            }
        }
        if self.since.take().is_some_and(|since| now.saturating_duration_since(since) >= STOOD) {
            self.failures = 0;
        }
        // After a connection that lasted the next dial need not wait.
        let waits = self.failures > 0 || self.queue.iter().all(|(_, again)| !again);
        let pause = self.pause();
        self.rests_until = waits.then(|| now + pause);
    }

    /// Takes what came. A message that was not asked for is an error: the next one might be taken for the answer to another question.
    fn take(&mut self, events: Vec<LinkEvent>, ended: &mut Ended) -> Result<()> {
        for event in events {
            let reply = match event {
                LinkEvent::Ready => continue,
                LinkEvent::Push(_) => return Err(answer::unasked(&self.endpoint)),
                LinkEvent::Reply(reply) => reply,
            };
            let Some(sent) = self.in_flight.front_mut() else { return Err(answer::unasked(&self.endpoint)) };
            self.silent = None;
            self.due -= 1;
            sent.due -= 1;
            sent.replies.push(reply);
            if sent.due == 0 {
                if let Some(sent) = self.in_flight.pop_front() {
                    self.answered(sent, ended);
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, mut sent: Sent, ended: &mut Ended) {
        match sent.what {
            SentKind::Id => self.id = sent.replies.pop().map(Arc::new),
            SentKind::Info => self.info = sent.replies.pop().map(|info| Arc::new(OwnState::read(&info))),
            SentKind::Question { ask, .. } => {
                // MYID is the first question on each connection.
                let (id, info) = (self.id.clone(), self.info.clone().filter(|_| ask.info_since.is_some()));
                let nameless = || Error::new(Status::Protocol, "an answer before that to MYID");
                let answered = id.map(|id| Answered { replies: sent.replies, id, info });
                ended.push((ask.ticket, answered.ok_or_else(nameless)));
            }
            SentKind::Dropped => {}
        }
    }

    /// Marks the link as silent if a question has been unanswered for too long, by the time that was read before the
    /// socket was looked at.
    fn judge(&mut self, now: Instant, ended: &mut Ended) {
        let Some(link) = self.live.as_ref().filter(|_| self.silent.is_none()) else { return };
        let Some(oldest) = self.in_flight.front() else { return };
        if oldest.until.is_missed() {
            for sent in &mut self.in_flight {
                sent.until = sent.until.renewed(sent.until.budget().unwrap_or_default());
            }
            return;
        }
        if oldest.until.end().is_none_or(|end| now < end) {
            return;
        }
        let why = link.timed_out(oldest.until.elapsed());
        for sent in &mut self.in_flight {
            if let SentKind::Question { ask, .. } = &sent.what {
                ended.push((ask.ticket, Err(why.clone())));
                sent.what = SentKind::Dropped;
            }
        }
        self.fail_queued(&why, ended, |_| true);
        self.silent = Some((why, now));
    }

    /// Sends all questions that may be sent, in one write.
    fn send_due(&mut self, now: Instant, ended: &mut Ended) {
        if self.live.is_none() || self.silent.is_some() || self.coming.as_ref().is_some_and(|coming| coming.ready) {
            return;
        }
        let mut bytes = Vec::new();
        while let Some((ask, _)) = self.queue.front() {
            let (timeout, info_since) = (ask.timeout, ask.info_since);
            let asks_id = self.id.is_none() && !self.in_flight.iter().any(|sent| matches!(sent.what, SentKind::Id));
            let asks_info = info_since.is_some_and(|since| self.info_asked.is_none_or(|asked| asked < since));
            if self.due > 0 && self.due + ask.replies + usize::from(asks_id) + usize::from(asks_info) > MOST {
                break;
            }
            if asks_id {
                encode::command(&mut bytes, &[b"SENTINEL", b"MYID"]);
                self.note_sent(SentKind::Id, 1, timeout);
            }
            if asks_info {
                encode::command(&mut bytes, &[b"INFO", b"sentinel"]);
                self.info_asked = Some(now);
                self.note_sent(SentKind::Info, 1, timeout);
            }
            if let Some((ask, again)) = self.queue.pop_front() {
                bytes.extend_from_slice(&ask.bytes);
                let replies = ask.replies;
                self.note_sent(SentKind::Question { ask, again }, replies, timeout);
            }
        }
        let Some(link) = self.live.as_mut().filter(|_| !bytes.is_empty()) else { return };
        let mut events = Vec::new();
        let sent = link.send(&bytes, &mut events);
        if let Err(error) = self.take(events, ended).and(sent) {
            self.lose(error, now, ended);
        }
    }

    fn note_sent(&mut self, what: SentKind, due: usize, timeout: Duration) {
        self.due += due;
        self.in_flight.push_back(Sent { what, due, replies: Vec::new(), until: Deadline::after(timeout) });
    }

    /// Resolves the host name again. If the address has changed, the new one is dialled beside the old connection, and
    /// then replaces it.
    fn renew_name(&mut self, now: Instant, waker: Option<&Arc<Waker>>) {
        let Some(link) = &self.live else { return };
        if let Some(lookup) = &self.lookup {
            let Some(found) = lookup.poll(RENEW) else { return };
            let moved = found.is_ok_and(|all| !all.is_empty() && link.peer().is_some_and(|peer| !all.contains(&peer)));
            self.lookup = None;
            if moved && self.coming.is_none() {
                self.dial(RENEW / 10, waker);
            }
        } else if self.renews.is_some_and(|at| now >= at) {
            self.renews = Some(now + RENEW);
            if let Endpoint::Tcp { host, port } = &self.endpoint {
                self.lookup = Some(resolve::begin(host, *port, waker));
            }
        }
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let coming = self.coming.iter().filter(|coming| !coming.ready).map(|coming| &coming.link);
        self.live.iter().map(|link| &**link).chain(coming).flat_map(Link::poll_fds)
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let late = self.in_flight.front().filter(|_| self.silent.is_none()).and_then(|sent| sent.until.end());
        let coming = self.coming.iter().filter(|coming| !coming.ready);
        let coming = coming.flat_map(|coming| [coming.link.wakes_at(), coming.until.end()]).flatten();
        let dials = (self.live.is_none() || self.silent.is_some()) && self.coming.is_none() && !self.queue.is_empty();
        let dial = self.rests_until.filter(|_| dials);
        coming.chain(late).chain(dial).chain(self.renews).min()
    }
}

/// The links to all Sentinels that are asked from one thread.
#[derive(Default)]
pub(super) struct CommandLinks(Vec<CommandLink>);

impl CommandLinks {
    /// Asks a Sentinel.
    pub(super) fn ask(&mut self, endpoint: &Endpoint, options: &Arc<LinkOptions>, ask: Ask) {
        let key = LinkKey { endpoint: endpoint.clone(), options: Arc::clone(options), timeout: ask.timeout };
        let place = self.0.iter().position(|link| link.is(&key)).unwrap_or_else(|| {
            self.0.push(CommandLink::new(key));
            self.0.len() - 1
        });
        self.0[place].ask(ask);
    }

    /// Moves the questions of this asker before those that are not urgent.
    pub(super) fn hurry(&mut self, asker: u64) {
        self.0.iter_mut().for_each(|link| link.hurry(asker));
    }

    /// Drops all questions of this asker.
    pub(super) fn cancel(&mut self, asker: u64) {
        self.0.iter_mut().for_each(|link| link.cancel(asker));
    }

    /// Does what can be done without waiting, after a poll that found these descriptors ready.
    pub(super) fn drive(&mut self, found: &Found, waker: Option<&Arc<Waker>>) -> Ended {
        let (mut ended, now) = (Vec::new(), Instant::now());
        for link in self.0.iter_mut().filter(|link| link.is_due(found, now)) {
            link.drive(waker, &mut ended);
        }
        ended
    }

    /// Closes links that are not wanted, unless an asker waits on them.
    pub(super) fn tidy(&mut self, is_wanted: &dyn Fn(&CommandLink) -> bool) {
        self.0.retain(|link| is_wanted(link) || !link.is_idle());
    }

    /// Waits until there is something to do, at most until `until`.
    pub(super) fn wait(&self, waker: Option<&Arc<Waker>>, until: Instant) {
        let until = self.wakes_at().map_or(until, |at| at.min(until));
        let mut fds: Vec<PollFd> = self.poll_fds().collect();
        fds.extend(waker.map(|waker| PollFd::new(waker.fd(), true, false)));
        // If poll fails, the links still do what they can, and their deadlines are checked.
        let _ = poll::wait(&mut fds, Some(until.saturating_duration_since(Instant::now())));
        waker.inspect(|waker| waker.clear());
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.0.iter().flat_map(CommandLink::poll_fds)
    }

    /// When to drive them again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.0.iter().filter_map(CommandLink::wakes_at).min()
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
