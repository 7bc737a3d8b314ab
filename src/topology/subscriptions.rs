//! The subscriptions of the process: one to each Sentinel for each set of connection options, shared by all handles.
//!
//! Guarantees: never waits; a subscription lasts as long as a handle listens to it; each turn of the monitor drives it
//! once, and all its listeners hear the same. Leaves to others: the subscription itself (renewal, subscription), and
//! what a handle is told of it (listener).

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::SentinelEvent;
use super::renewal::RenewedSubscription;
use super::subscription::{Change, SentinelSubscription};
use crate::config::Endpoint;
use crate::error::Error;
use crate::net::LinkOptions;
use crate::sys::poll::{Found, PollFd};
use crate::sys::waker::Waker;

/// All subscriptions of the process.
#[derive(Default)]
pub(super) struct Subscriptions {
    all: HashMap<Endpoint, Vec<Rc<SharedSubscription>>>,
}

/// A subscription that several handles may use.
pub(super) struct SharedSubscription {
    options: Arc<LinkOptions>,
    /// The time limit of its steps: the longest of those who use it.
    timeout: Cell<Duration>,
    state: RefCell<SharedState>,
}

struct SharedState {
    subscription: RenewedSubscription,
    /// What the present turn has brought.
    heard: Vec<SentinelEvent>,
    change: Option<Change>,
    /// Why it is down.
    down: Option<Error>,
}

impl Subscriptions {
    /// The subscription to this Sentinel with these options; a new one connects at the next drive.
    pub(super) fn get(
        &mut self,
        endpoint: &Endpoint,
        options: &Arc<LinkOptions>,
        timeout: Duration,
    ) -> Rc<SharedSubscription> {
        let there = self.all.entry(endpoint.clone()).or_default();
        if let Some(shared) = there.iter().find(|shared| *shared.options == **options) {
            shared.timeout.set(shared.timeout.get().max(timeout));
            return Rc::clone(shared);
        }
        let subscription = RenewedSubscription::new(endpoint.clone(), Arc::clone(options));
        let state = SharedState { subscription, heard: Vec::new(), change: None, down: None };
        let (options, timeout) = (Arc::clone(options), Cell::new(timeout));
        let shared = Rc::new(SharedSubscription { options, timeout, state: RefCell::new(state) });
        there.push(Rc::clone(&shared));
        shared
    }

    /// Ends the subscriptions that nobody uses, and drives the others.
    pub(super) fn drive(&mut self, found: &Found, waker: &Arc<Waker>) {
        let now = Instant::now();
        self.all.retain(|_, there| {
            there.retain(|shared| Rc::strong_count(shared) > 1);
            !there.is_empty()
        });
        for shared in self.all.values().flatten() {
            shared.drive(found, waker, now);
        }
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> Vec<PollFd> {
        let mut fds = Vec::new();
        for shared in self.all.values().flatten() {
            fds.extend(shared.state.borrow().subscription.poll_fds());
        }
        fds
    }

    /// When to drive them again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.all.values().flatten().filter_map(|shared| shared.state.borrow().subscription.wakes_at()).min()
    }
}

impl SharedSubscription {
    fn drive(&self, found: &Found, waker: &Arc<Waker>, now: Instant) {
        let mut state = self.state.borrow_mut();
        state.heard.clear();
        state.change = None;
        if !state.subscription.is_due(found, now) {
            return;
        }
        let SharedState { subscription, heard, change, down } = &mut *state;
        *change = subscription.drive(self.timeout.get(), waker, heard);
        match change {
            Some(Change::Up | Change::Moved) => *down = None,
            Some(Change::Down(error)) => *down = Some(error.clone()),
            None => {}
        }
    }

    /// Whether it connects with these options.
    pub(super) fn has(&self, options: &LinkOptions) -> bool {
        *self.options == *options
    }

    /// The present connection.
    pub(super) fn current(&self) -> Ref<'_, SentinelSubscription> {
        Ref::map(self.state.borrow(), |state| state.subscription.current())
    }

    /// The events of this turn.
    pub(super) fn heard(&self) -> Ref<'_, [SentinelEvent]> {
        Ref::map(self.state.borrow(), |state| state.heard.as_slice())
    }

    /// What has changed in this turn.
    pub(super) fn change(&self) -> Option<Change> {
        self.state.borrow().change.clone()
    }

    /// Why it is down, if it was tried and failed.
    pub(super) fn down(&self) -> Option<Error> {
        self.state.borrow().down.clone()
    }
}
