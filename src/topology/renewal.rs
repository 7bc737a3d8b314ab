//! A subscription that is renewed without a gap when the Sentinel's name leads to another address.
//!
//! Guarantees: never waits; the new connection is made beside the old one, which listens until the new one does;
//! watchers are told nothing of the exchange. Leaves to others: the subscription itself (subscription), and changed
//! options (listener).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::SentinelEvent;
use super::subscription::{Change, SentinelSubscription};
use crate::config::Endpoint;
use crate::net::{LinkOptions, resolve};
use crate::sys::poll::{Found, PollFd};
use crate::sys::waker::Waker;

/// A name is resolved again after so long.
const RENEW: Duration = Duration::from_secs(30);
/// No other attempt beside the old subscription before so long.
const PAUSE: Duration = Duration::from_secs(2);

/// A subscription and, while it is being renewed, the next one.
pub(super) struct RenewedSubscription {
    current: SentinelSubscription,
    options: Arc<LinkOptions>,
    beside: Option<Box<SentinelSubscription>>,
    /// No attempt beside it before this.
    rests_until: Option<Instant>,
    /// When the name is resolved again.
    renews: Instant,
    lookup: Option<resolve::Lookup>,
}

impl RenewedSubscription {
    /// A subscription that connects at the next drive.
    pub(super) fn new(endpoint: Endpoint, options: Arc<LinkOptions>) -> Self {
        let current = SentinelSubscription::new(endpoint);
        Self { current, options, beside: None, rests_until: None, renews: Instant::now() + RENEW, lookup: None }
    }

    /// The one that listens.
    pub(super) fn current(&self) -> &SentinelSubscription {
        &self.current
    }

    /// Whether one of them has something to do.
    pub(super) fn is_due(&self, found: &Found, now: Instant) -> bool {
        let renews = self.renews_at().is_some_and(|at| now >= at);
        renews || self.current.is_due(found, now) || self.beside.iter().any(|beside| beside.is_due(found, now))
    }

    /// Does what can be done without waiting; events are appended to `heard`.
    pub(super) fn drive(
        &mut self,
        timeout: Duration,
        waker: &Arc<Waker>,
        heard: &mut Vec<SentinelEvent>,
    ) -> Option<Change> {
        let now = Instant::now();
        let change = self.current.drive(&self.options, timeout, waker, heard);
        self.renew(waker, now);
        let Some(beside) = &mut self.beside else { return change };
        match beside.drive(&self.options, timeout, waker, heard) {
            Some(Change::Up) => self.exchange(now).or(change),
            Some(Change::Down(_)) => {
                (self.beside, self.rests_until) = (None, Some(now + PAUSE));
                change
            }
            Some(Change::Moved) | None => change,
        }
    }

    /// Begins to connect beside the present connection, if the name leads elsewhere.
    fn renew(&mut self, waker: &Arc<Waker>, now: Instant) {
        let rests = self.rests_until.is_some_and(|until| now < until);
        if self.beside.is_none() && !rests && self.has_moved(waker, now) {
            self.beside = Some(Box::new(SentinelSubscription::new(self.current.endpoint().clone())));
        }
    }

    /// When it looks at its name again.
    fn renews_at(&self) -> Option<Instant> {
        self.needs_name().then(|| self.rests_until.map_or(self.renews, |until| self.renews.max(until)))
    }

    fn needs_name(&self) -> bool {
        !self.current.endpoint().is_ip() && self.current.is_listening() && self.beside.is_none()
    }

    /// Whether the name no longer leads where the subscription is.
    fn has_moved(&mut self, waker: &Arc<Waker>, now: Instant) -> bool {
        let Endpoint::Tcp { host, port } = self.current.endpoint() else { return false };
        if !self.needs_name() {
            self.lookup = None;
            return false;
        }
        if self.lookup.is_none() && now >= self.renews {
            self.renews = now + RENEW;
            self.lookup = Some(resolve::begin(host, *port, Some(waker)));
        }
        let Some(found) = self.lookup.as_ref().and_then(|lookup| lookup.poll(RENEW)) else { return false };
        self.lookup = None;
        found.is_ok_and(|all| !all.is_empty() && self.current.peer().is_some_and(|peer| !all.contains(&peer)))
    }

    /// The new one takes the place of the old one.
    fn exchange(&mut self, now: Instant) -> Option<Change> {
        let next = *self.beside.take()?;
        let was_up = self.current.is_told_up() && self.current.deaf() == next.deaf();
        (self.current, self.renews, self.lookup) = (next, now + RENEW, None);
        Some(if was_up { Change::Moved } else { Change::Up })
    }

    /// Does not connect before a pause is over.
    pub(super) fn rest(&mut self) {
        self.current.rest(PAUSE);
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        let beside = self.beside.iter().flat_map(|beside| beside.poll_fds());
        self.current.poll_fds().chain(beside)
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let beside = self.beside.iter().filter_map(|beside| beside.wakes_at());
        let renews = self.renews_at();
        self.current.wakes_at().into_iter().chain(beside).chain(renews).min()
    }
}
