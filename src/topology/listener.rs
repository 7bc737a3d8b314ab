//! What one handle hears of one Sentinel.
//!
//! Guarantees: a handle that joins an open subscription is told that it is up, once; changed options are taken without a
//! gap: the old subscription is heard until the new one listens. Leaves to others: the subscription, which other handles
//! may share (subscriptions).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::events::SentinelEvent;
use super::identity::{Identity, Speaker};
use super::subscription::Change;
use super::subscriptions::{SharedSubscription, Subscriptions};
use crate::config::Endpoint;
use crate::error::Status;
use crate::net::LinkOptions;

/// What one handle hears of one Sentinel.
pub(super) struct Listener {
    /// Its address as given or announced.
    pub(super) announced: Endpoint,
    endpoint: Endpoint,
    current: Rc<SharedSubscription>,
    /// The subscription with changed options, until it listens.
    next: Option<Rc<SharedSubscription>>,
    /// Whether the handle was last told that it is up or down.
    told: Option<bool>,
}

impl Listener {
    /// To the Sentinel at `endpoint`.
    pub(super) fn new(announced: Endpoint, endpoint: Endpoint, current: Rc<SharedSubscription>) -> Self {
        Self { announced, endpoint, current, next: None, told: None }
    }

    /// Where it connects to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Takes the options for the next connection; the present one stays until that listens.
    pub(super) fn use_options(&mut self, all: &mut Subscriptions, options: &Arc<LinkOptions>, timeout: Duration) {
        match self.current.has(options, timeout) {
            true => self.next = None,
            false if self.next.as_ref().is_some_and(|next| next.has(options, timeout)) => {}
            false => self.next = Some(all.get(&self.endpoint, options, timeout)),
        }
    }

    /// The Sentinel at the other end.
    pub(super) fn speaker(&self) -> Speaker {
        let identity = Identity::new(self.current.connection().id(), &self.announced);
        Speaker { identity, announced: self.announced.clone() }
    }

    /// Whether events arrive.
    pub(super) fn is_listening(&self) -> bool {
        self.current.connection().is_listening()
    }

    /// Whether it was tried and failed; one that is connecting for the first time may still succeed.
    pub(super) fn is_lost(&self) -> bool {
        self.told == Some(false)
    }

    /// The channels that it does not hear, and why.
    pub(super) fn deaf(&self) -> Option<String> {
        self.current.connection().deaf()
    }

    /// What this turn has brought: events, and a change that the handle was not told yet.
    pub(super) fn hear(&mut self, heard: &mut Vec<(Speaker, SentinelEvent)>) -> Option<Change> {
        self.take_events(heard);
        let change = self.change();
        let Some(next) = self.next.take() else { return change };
        let is_better = next.connection().is_listening();
        if !is_better && self.is_listening() {
            self.next = Some(next);
            return change;
        }
        let was_deaf = self.deaf();
        self.current = next;
        if !is_better {
            return self.refusal().or(change);
        }
        self.take_events(heard);
        let was_up = self.told.replace(true) == Some(true);
        // What is heard now may be another part of the events.
        Some(if was_up && was_deaf == self.deaf() { Change::Moved } else { Change::Up })
    }

    /// That the new options were refused while the old subscription still listened: that was not told then.
    fn refusal(&mut self) -> Option<Change> {
        let error = self.current.down().filter(|error| error.status() == Status::Auth)?;
        self.told = Some(false);
        Some(Change::Down(error))
    }

    fn take_events(&self, heard: &mut Vec<(Speaker, SentinelEvent)>) {
        let events = self.current.heard();
        if !events.is_empty() {
            let speaker = self.speaker();
            heard.extend(events.iter().map(|event| (speaker.clone(), event.clone())));
        }
    }

    fn change(&mut self) -> Option<Change> {
        let change = match (self.current.change(), self.told) {
            (Some(change), _) => change,
            (None, None) if self.is_listening() => Change::Up,
            (None, None) => Change::Down(self.current.down()?),
            (None, Some(_)) => return None,
        };
        let is_up = !matches!(change, Change::Down(_));
        let was = self.told.replace(is_up);
        match (&change, was) {
            // Of another subscription it was told already.
            (Change::Down(error), Some(false)) if error.status() != Status::Auth => None,
            (Change::Moved, Some(false) | None) => Some(Change::Up),
            _ => Some(change),
        }
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
