//! A subscription to all events of one Sentinel that notices when the Sentinel is gone.
//!
//! Guarantees: never waits; a Sentinel counts as gone only when it leaves a PING unanswered for [`PATIENCE`]: a process
//! that was stopped first reads what arrived meanwhile, and asks again; channels that the user may not hear are
//! requested again every [`RENEW`]; a lost subscription is retried with growing pauses and jitter. Leaves to others:
//! what the events mean (handle_state).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer;
use super::events::{self, SentinelEvent};
use super::scope::{Scope, Stands};
use crate::config::Endpoint;
use crate::error::{Error, Status, clean_line};
use crate::net::{Link, LinkEvent, LinkOptions};
use crate::resp::{Reply, encode};
use crate::sys::poll::{Found, PollFd};
use crate::sys::random;
use crate::sys::waker::Waker;
use crate::time::Deadline;

/// The interval between two PINGs.
const PING: Duration = Duration::from_millis(900);
/// A Sentinel that leaves a PING unanswered for so long is gone (scenario 35: within 3 s).
const PATIENCE: Duration = Duration::from_millis(1600);
/// It is driven at least this often, even if nothing arrives.
const LOOKED_AT: Duration = Duration::from_millis(400);
/// If it was not driven for so long, this process was stopped, and the silence means nothing.
const STOPPED: Duration = Duration::from_millis(1200);
/// Refused channels are requested again after so long.
const RENEW: Duration = Duration::from_secs(60);
/// A subscription that lasted so long did not fail; one that ends earlier makes the next pause longer.
const STOOD: Duration = Duration::from_secs(3);
/// The pause before a retry: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A subscription to the events of one Sentinel.
pub(super) struct SentinelSubscription {
    endpoint: Endpoint,
    /// The id of the Sentinel at the other end, if it gives one: behind a load balancer each connection may have
    /// another.
    id: Option<String>,
    state: SubscriptionState,
    /// Whether it was last reported as up or as down.
    told: Option<bool>,
    /// Whether it was reported that the Sentinel refuses the credentials.
    told_refused: bool,
    pause: Duration,
    scope: Scope,
    told_deaf: Option<String>,
    /// When refused channels are requested again.
    renews: Option<Instant>,
    driven: Instant,
}

enum SubscriptionState {
    Away {
        until: Instant,
    },
    /// `introduced`: the reply to MYID has come. `until`: the deadline of the current phase; each has its own, because
    /// this thread may have been busy in between.
    Coming {
        link: Link,
        phase: u8,
        until: Deadline,
        introduced: bool,
    },
    Listening {
        link: Link,
        since: Instant,
        pinged: Instant,
        /// When it was pinged last; nothing has come since then.
        unanswered: Option<Instant>,
        /// PINGs that are not answered yet. A refusal does not say which command it answers, so no PING is sent while a
        /// subscription is requested.
        pings: usize,
    },
}

/// A change found by driving a subscription.
#[derive(Clone)]
pub(super) enum Change {
    /// It is up: events may have been missed before.
    Up,
    /// Another connection has taken its place, at a new address or with new options.
    Moved,
    /// It is down, for this reason.
    Down(Error),
}

impl SentinelSubscription {
    /// A subscription that connects at the next drive.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let now = Instant::now();
        let state = SubscriptionState::Away { until: now };
        Self {
            endpoint,
            id: None,
            state,
            told: None,
            told_refused: false,
            pause: PAUSES.0,
            scope: Scope::new(),
            told_deaf: None,
            renews: None,
            driven: now,
        }
    }

    /// Where it connects to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The id of the Sentinel at the other end, if it gives one.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The address of the other end, while it listens.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let SubscriptionState::Listening { link, .. } = &self.state else { return None };
        link.peer()
    }

    /// Does not connect before this time has passed.
    pub(super) fn rest(&mut self, time: Duration) {
        self.state = SubscriptionState::Away { until: Instant::now() + time };
        self.told = Some(false);
    }

    /// Whether it was last reported as up.
    pub(super) fn is_told_up(&self) -> bool {
        self.told == Some(true)
    }

    /// The channels that it does not hear, and why.
    pub(super) fn deaf(&self) -> Option<String> {
        self.scope.deaf().filter(|_| self.is_listening())
    }

    /// Whether events arrive.
    pub(super) fn is_listening(&self) -> bool {
        matches!(self.state, SubscriptionState::Listening { .. })
    }

    /// Whether it has something to do, or has not been driven for a while.
    pub(super) fn is_due(&self, found: &Found, now: Instant) -> bool {
        now.saturating_duration_since(self.driven) >= LOOKED_AT
            || self.wakes_at().is_some_and(|at| now >= at)
            || found.concerns(self.poll_fds())
    }

    /// Does what can be done without waiting; events are appended to `heard`.
    pub(super) fn drive(
        &mut self,
        options: &Arc<LinkOptions>,
        timeout: Duration,
        waker: &Arc<Waker>,
        heard: &mut Vec<SentinelEvent>,
    ) -> Option<Change> {
        let now = Instant::now();
        if let SubscriptionState::Away { until } = self.state {
            if now < until {
                return None;
            }
            // One deadline for connecting, shaking hands and subscribing.
            let until = Deadline::after(timeout * 2);
            let link = Link::begin(self.endpoint.clone(), Arc::clone(options), until, Some(waker));
            self.state = SubscriptionState::Coming { link, phase: 0, until, introduced: false };
        }
        let mut events = Vec::new();
        let driven = match &mut self.state {
            SubscriptionState::Coming { link, .. } | SubscriptionState::Listening { link, .. } => {
                link.drive(&mut events)
            }
            SubscriptionState::Away { .. } => return None,
        };
        let came = self.take(events, heard);
        match driven.and(came).and_then(|up| Ok(self.stay_alive(now, timeout, heard)? || up)) {
            Ok(true) => {
                self.told_deaf = self.scope.deaf();
                self.tell(true).then_some(Change::Up)
            }
            Ok(false) => None,
            Err(error) => {
                self.lose(now);
                // Its connection ends first, and the next one is refused.
                let is_refused = error.status() == Status::Auth;
                let is_new = is_refused && !std::mem::replace(&mut self.told_refused, is_refused);
                (self.tell(false) || is_new).then_some(Change::Down(error))
            }
        }
    }

    /// True if the subscription has just been confirmed.
    fn take(&mut self, events: Vec<LinkEvent>, heard: &mut Vec<SentinelEvent>) -> Result<bool, Error> {
        let mut up = false;
        let mut more = Vec::new();
        for event in events {
            let reply = match event {
                LinkEvent::Reply(reply) | LinkEvent::Push(reply) => reply,
                LinkEvent::Ready => {
                    let mut opening = Vec::new();
                    encode::command(&mut opening, &[b"SENTINEL", b"MYID"]);
                    opening.extend(self.scope.ask());
                    if let SubscriptionState::Coming { link, .. } = &mut self.state {
                        link.send(&opening, &mut more)?;
                    }
                    continue;
                }
            };
            up |= self.hear(&reply, heard)?;
        }
        Ok(if more.is_empty() { up } else { self.take(more, heard)? || up })
    }

    fn hear(&mut self, reply: &Reply, heard: &mut Vec<SentinelEvent>) -> Result<bool, Error> {
        if let SubscriptionState::Coming { introduced: introduced @ false, .. } = &mut self.state {
            *introduced = true;
            self.id = answer::read_id(reply);
            return Ok(false);
        }
        if let SubscriptionState::Listening { unanswered, .. } = &mut self.state {
            *unanswered = None;
        }
        let stands = match reply.error_line(0) {
            Some(line) if line.starts_with(b"NOPERM") && self.scope.is_asking() => self.scope.refuse(&clean_line(line)),
            // The user may not be permitted to PING either: a refusal is an answer too.
            Some(line) if line.starts_with(b"NOPERM") && self.is_listening() => {
                self.answered_ping();
                return Ok(false);
            }
            Some(line) => return Err(Error::from_server(line, &self.endpoint)),
            None => {
                let word = reply.child(0, 0).and_then(|node| reply.bytes(node));
                if !matches!(word, Some(b"psubscribe" | b"subscribe")) {
                    if !matches!(word, Some(b"pmessage" | b"message")) {
                        self.note_answer()?;
                    }
                    heard.extend(events::read(reply).filter(|_| self.is_listening()));
                    return Ok(false);
                }
                self.scope.grant()
            }
        };
        match stands {
            Stands::Waits => Ok(false),
            Stands::Asks(bytes) => {
                let mut more = Vec::new();
                if let SubscriptionState::Coming { link, .. } | SubscriptionState::Listening { link, .. } =
                    &mut self.state
                {
                    link.send(&bytes, &mut more)?;
                }
                self.take(more, heard)
            }
            Stands::Done => Ok(self.subscribed()),
        }
    }

    /// A message that is no event must answer a PING: nothing else was asked for.
    fn note_answer(&mut self) -> Result<(), Error> {
        if matches!(self.state, SubscriptionState::Listening { pings: 0, .. }) {
            return Err(answer::unasked(&self.endpoint));
        }
        self.answered_ping();
        Ok(())
    }

    fn answered_ping(&mut self) {
        if let SubscriptionState::Listening { pings, .. } = &mut self.state {
            *pings = pings.saturating_sub(1);
        }
    }

    /// All answers to the subscription have come; true if that is to be reported.
    fn subscribed(&mut self) -> bool {
        let now = Instant::now();
        self.renews = self.scope.deaf().map(|_| now + RENEW);
        match std::mem::replace(&mut self.state, SubscriptionState::Away { until: now }) {
            SubscriptionState::Coming { link, .. } => {
                self.state = SubscriptionState::Listening { link, since: now, pinged: now, unanswered: None, pings: 0 };
                true
            }
            other => {
                self.state = other;
                // Other channels are heard than was reported.
                if self.told_deaf != self.scope.deaf() {
                    self.told = None;
                }
                true
            }
        }
    }

    /// Ends the subscription if its Sentinel is silent; sends a PING or renews it when that is due. True if the renewal
    /// was confirmed at once.
    fn stay_alive(&mut self, now: Instant, timeout: Duration, heard: &mut Vec<SentinelEvent>) -> Result<bool, Error> {
        let stopped = now.saturating_duration_since(std::mem::replace(&mut self.driven, now)) >= STOPPED;
        match &mut self.state {
            SubscriptionState::Coming { link, phase, until, .. } if link.phase() != *phase || until.is_missed() => {
                (*phase, *until) = (link.phase(), until.renewed(timeout * 2));
                Ok(false)
            }
            SubscriptionState::Coming { link, until, .. } if until.end().is_some_and(|end| now >= end) => {
                Err(link.timed_out(until.elapsed()))
            }
            SubscriptionState::Listening { link, unanswered: Some(asked), .. }
                if !stopped && now.saturating_duration_since(*asked) >= PATIENCE =>
            {
                Err(link.timed_out(now.saturating_duration_since(*asked)))
            }
            SubscriptionState::Listening { link, pinged, unanswered, pings, .. }
                if now.saturating_duration_since(*pinged) >= PING =>
            {
                *pinged = now;
                // After a stop of the process an older question does not count.
                *unanswered = if stopped { Some(now) } else { unanswered.or(Some(now)) };
                let mut question = Vec::new();
                match (self.renews.is_some_and(|at| now >= at), *pings) {
                    (true, 0) => {
                        self.scope.renew();
                        self.renews = None;
                        question = self.scope.ask();
                    }
                    (true, _) => {}
                    (false, _) if self.scope.is_asking() => {}
                    (false, _) => {
                        *pings += 1;
                        encode::command(&mut question, &[b"PING"]);
                    }
                }
                // Sending also receives: these events do not come again.
                let mut events = Vec::new();
                let sent = link.send(&question, &mut events);
                let up = self.take(events, heard)?;
                sent.map(|()| up)
            }
            _ => Ok(false),
        }
    }

    fn lose(&mut self, now: Instant) {
        if matches!(self.state, SubscriptionState::Listening { since, .. } if now.saturating_duration_since(since) >= STOOD)
        {
            self.pause = PAUSES.0;
        }
        let jitter = self.pause.mul_f64(0.5 + random::rng().f64());
        self.state = SubscriptionState::Away { until: now + jitter };
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// Whether this has not been reported yet: a Sentinel that was never reached is reported as down once.
    fn tell(&mut self, up: bool) -> bool {
        let is_new = self.told != Some(up);
        self.told = Some(up);
        self.told_refused &= !up;
        is_new
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let link = match &self.state {
            SubscriptionState::Coming { link, .. } | SubscriptionState::Listening { link, .. } => Some(link),
            SubscriptionState::Away { .. } => None,
        };
        link.into_iter().flat_map(Link::poll_fds)
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match &self.state {
            SubscriptionState::Away { until } => Some(*until),
            SubscriptionState::Coming { link, until, .. } => [link.wakes_at(), until.end()].into_iter().flatten().min(),
            SubscriptionState::Listening { pinged, unanswered, .. } => {
                let end = unanswered.map(|asked| asked + PATIENCE);
                Some(end.map_or(*pinged + PING, |end| end.min(*pinged + PING)))
            }
        }
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
