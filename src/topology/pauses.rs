//! The pauses of the nodes of a service: one for each node and role, shared by all that connect to it.
//!
//! Guarantees: a pause belongs to the configuration epoch in which the node failed; a caller that waits for a pause
//! notices when all are ended. Leaves to others: the length of a pause (net), and what ends it (service, handle_state).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{Endpoint, RetrySettings};
use crate::net::Pause;
use crate::sys::rank::Rank;
use crate::sys::sync::{Lock, Locked};

/// The pauses of the nodes of a service.
pub(super) struct Pauses {
    known: Lock<Vec<NodePause>>,
    /// How many times all pauses were ended.
    ended: AtomicU64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { known: Lock::new(Rank::Pauses, Vec::new()), ended: AtomicU64::new(0) }
    }
}

struct NodePause {
    endpoint: Endpoint,
    as_primary: bool,
    epoch: u64,
    pause: Arc<Pause>,
}

impl Pauses {
    /// The pause of a node in this role.
    pub(super) fn of(&self, endpoint: &Endpoint, as_primary: bool, retry: &RetrySettings) -> Arc<Pause> {
        let mut known = self.lock();
        let same = |known: &&NodePause| known.endpoint == *endpoint && known.as_primary == as_primary;
        if let Some(known) = known.iter().find(same) {
            return Arc::clone(&known.pause);
        }
        // Drops the pauses of nodes that are gone and did not fail.
        known.retain(|known| Arc::strong_count(&known.pause) > 1 || known.pause.left().is_some());
        let pause = Arc::new(Pause::new(retry.backoff_min, retry.backoff_max));
        known.push(NodePause { endpoint: endpoint.clone(), as_primary, epoch: 0, pause: Arc::clone(&pause) });
        pause
    }

    /// The pause of the primary of this epoch: what the node did under another epoch does not count.
    pub(super) fn of_primary(&self, endpoint: &Endpoint, epoch: u64, retry: &RetrySettings) -> Arc<Pause> {
        let pause = self.of(endpoint, true, retry);
        let mut known = self.lock();
        if let Some(known) = known.iter_mut().find(|known| Arc::ptr_eq(&known.pause, &pause)) {
            if std::mem::replace(&mut known.epoch, epoch) != epoch {
                pause.clear();
            }
        }
        pause
    }

    /// The remaining pause of the primary; `None`: it may be dialled.
    pub(super) fn left(&self) -> Option<Duration> {
        self.lock().iter().filter(|known| known.as_primary).filter_map(|known| known.pause.left()).min()
    }

    /// How many times all pauses were ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends all pauses: something has changed, and every node may be dialled.
    pub(super) fn end(&self) {
        self.lock().iter().for_each(|known| known.pause.clear());
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> Locked<'_, Vec<NodePause>> {
        self.known.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Status, flags};

    fn at(port: u16) -> Endpoint {
        Endpoint::tcp("127.0.0.1", port).unwrap()
    }

    fn slow() -> RetrySettings {
        let hour = Duration::from_secs(3600);
        RetrySettings { backoff_min: hour, backoff_max: hour, ..RetrySettings::default() }
    }

    fn fail(pause: &Arc<Pause>) {
        pause.attempt().unwrap().told(&Err::<(), _>(Error::new(Status::Role, "no").with_flags(flags::RETRYABLE)));
    }

    #[test]
    fn each_node_has_its_own_in_each_role() {
        let pauses = Pauses::default();
        fail(&pauses.of(&at(1), true, &slow()));
        assert!(pauses.of(&at(1), true, &slow()).left().is_some() && pauses.left().is_some());
        assert!(pauses.of(&at(1), false, &slow()).left().is_none());
        assert!(pauses.of(&at(2), true, &slow()).left().is_none());
        pauses.end();
        assert!(pauses.left().is_none());
        assert_eq!(pauses.ended(), 1);
        fail(&pauses.of(&at(1), false, &slow()));
        assert!(pauses.left().is_none(), "nobody who wants a primary waits for a replica");
    }

    #[test]
    fn another_epoch_is_another_generation() {
        let pauses = Pauses::default();
        fail(&pauses.of_primary(&at(1), 5, &slow()));
        assert!(pauses.of_primary(&at(1), 5, &slow()).left().is_some());
        assert!(pauses.of_primary(&at(1), 6, &slow()).left().is_none());
    }
}
