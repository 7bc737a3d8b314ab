//! Subscriptions: messages of channels, patterns and shard channels, as events on a queue.
//!
//! Guarantees: what was subscribed to is subscribed to again after a failover and after a lost connection, and the gap is told; messages
//! come in their order, and what is lost to a full buffer is counted; a subscription takes no place of `pool.max`, no room of its queue
//! and no thread. Leaves to others: which node it is (route), opening connections (pool), the buffer (queue/inbox).
//!
//! `wishes` is what is to be heard (pure), `feed` one connection, `poller` drives the feeds that no drain drives, `subscription` puts
//! them together and makes connections anew with `opening`, `gap` is what is told then, `link` what a replica's link to its primary
//! means for it (pure).

mod feed;
mod gap;
mod link;
mod opening;
mod poller;
mod subscription;
mod wishes;

use std::sync::{Arc, Weak};

pub use gap::{gap_causes, gap_map};
pub use subscription::Subscription;
pub(crate) use subscription::SubscriptionSpec;

use crate::error::Error;
use crate::meter::SubscriptionRow;
use crate::sys::rank::Rank;
use crate::sys::sync::Lock;
use crate::worker;

/// The subscriptions of a client.
pub(crate) struct Subscriptions {
    list: Lock<Vec<Weak<Subscription>>>,
}

impl Subscriptions {
    pub(crate) fn new() -> Self {
        Self { list: Lock::new(Rank::Subscriptions, Vec::new()) }
    }

    pub(crate) fn add(&self, subscription: &Arc<Subscription>) {
        let mut list = self.list.lock();
        if list.len() == list.capacity() {
            list.retain(|known| known.strong_count() > 0);
        }
        list.push(Arc::downgrade(subscription));
    }

    /// What each of them has heard; `None` without memory for that.
    pub(crate) fn rows(&self) -> Option<Vec<SubscriptionRow>> {
        let (all, mut rows) = (self.all(), Vec::new());
        rows.try_reserve_exact(all.len()).ok()?;
        rows.extend(all.iter().filter_map(|one| one.figures()));
        Some(rows)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list.lock().iter().filter(|one| one.strong_count() > 0).count()
    }

    fn all(&self) -> Vec<Arc<Subscription>> {
        self.list.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The topology may have changed: subscriptions without a connection try again now, on a worker, and those
    /// whose credentials were changed authenticate anew.
    pub(crate) fn changed(&self) {
        let waiting: Vec<_> = self.all().into_iter().filter(|one| one.is_waiting() || one.is_outdated()).collect();
        if !waiting.is_empty() {
            // Without a thread they try again when their pauses are over.
            let _ = worker::run(move || waiting.iter().for_each(|one| one.try_now()));
        }
    }

    /// Ends all of them at once, because the client was closed.
    pub(crate) fn end(&self, cause: &Error) {
        self.all().iter().for_each(|one| one.end(Some(cause.clone())));
    }
}
