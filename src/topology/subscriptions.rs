//! The subscriptions of the process: one to each Sentinel for each set of connection options, shared by all handles.
//!
//! Guarantees: never waits; a subscription lasts as long as a handle listens to it; each turn of the monitor drives it
//! once, and all its listeners hear the same; a panic over one ends its connection alone. Leaves to others: the
//! subscription itself (renewal, subscription), and what a handle is told of it (listener).

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::SentinelEvent;
use super::renewal::RenewedSubscription;
use super::subscription::{Change, SentinelSubscription};
use crate::config::Endpoint;
use crate::error::{Error, Status};
use crate::net::LinkOptions;
use crate::sys::panic;
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
    /// The time limit of its steps.
    timeout: Duration,
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
        if let Some(shared) = there.iter().find(|shared| shared.has(options, timeout)) {
            return Rc::clone(shared);
        }
        let state = RefCell::new(SharedState::new(endpoint, options));
        let shared = Rc::new(SharedSubscription { options: Arc::clone(options), timeout, state });
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
        for (endpoint, there) in &self.all {
            for shared in there {
                if catch_unwind(AssertUnwindSafe(|| shared.drive(found, waker, now))).is_err() {
                    shared.restart(endpoint);
                }
            }
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

impl SharedState {
    fn new(endpoint: &Endpoint, options: &Arc<LinkOptions>) -> Self {
        let subscription = RenewedSubscription::new(endpoint.clone(), Arc::clone(options));
        Self { subscription, heard: Vec::new(), change: None, down: None }
    }
}

impl SharedSubscription {
    /// After a panic: its connection ends, and another one is opened after a pause.
    pub(super) fn restart(&self, endpoint: &Endpoint) {
        let mut state = self.state.borrow_mut();
        *state = SharedState::new(endpoint, &self.options);
        state.subscription.rest();
        let text = format!("a bug in libvigie: a panic while {endpoint} was listened to{}", panic::behind());
        let error = Error::new(Status::Internal, text).with_endpoint(endpoint);
        (state.change, state.down) = (Some(Change::Down(error.clone())), Some(error));
    }

    fn drive(&self, found: &Found, waker: &Arc<Waker>, now: Instant) {
        let mut state = self.state.borrow_mut();
        state.heard.clear();
        state.change = None;
        if !state.subscription.is_due(found, now) {
            return;
        }
        let SharedState { subscription, heard, change, down } = &mut *state;
        *change = subscription.drive(self.timeout, waker, heard);
        match change {
            Some(Change::Up | Change::Moved) => *down = None,
            Some(Change::Down(error)) => *down = Some(error.clone()),
            None => {}
        }
    }

    /// Whether it connects in this way.
    pub(super) fn has(&self, options: &LinkOptions, timeout: Duration) -> bool {
        *self.options == *options && self.timeout == timeout
    }

    /// The connection that listens, or is about to.
    pub(super) fn connection(&self) -> Ref<'_, SentinelSubscription> {
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
