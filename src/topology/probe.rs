//! Asks a node for its role repeatedly (rule 9).
//!
//! Guarantees: never waits; a candidate is asked every [`EVERY`], until it says that it is a primary. Leaves to others:
//! whether a candidate is taken at its word (failover).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asker::{Asker, Came, Question};
use crate::config::{ClientSettings, Endpoint};
use crate::net::{Expect, LinkOptions, Role, Tells};
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;

/// The interval of questions to a candidate.
pub(super) const EVERY: Duration = Duration::from_millis(12);
/// A node that does not answer for so long is dialled again.
const PATIENCE: Duration = Duration::from_millis(500);
/// A node that is asked.
pub(super) struct Probe {
    /// As announced.
    pub(super) announced: Endpoint,
    asker: Asker,
    every: Duration,
    once: bool,
    begun: Instant,
    /// It has said that it is a primary.
    pub(super) says_primary: bool,
    /// When the latest question was sent that it answered as a replica.
    pub(super) says_replica: Option<Instant>,
}

impl Probe {
    /// A probe of a candidate, which ends when it says that it is a primary.
    pub(super) fn candidate(announced: Endpoint, settings: &ClientSettings) -> Self {
        Self { once: true, ..Self::new(announced, settings, EVERY) }
    }

    /// A probe that asks until it is dropped.
    pub(super) fn new(announced: Endpoint, settings: &ClientSettings, every: Duration) -> Self {
        let endpoint = settings.address_map.apply(&announced);
        let asker = Asker::new(endpoint, Arc::new(LinkOptions::of_node(settings, Expect::Any)));
        let (begun, says_primary, says_replica) = (Instant::now(), false, None);
        Self { announced, asker, every, once: false, begun, says_primary, says_replica }
    }

    fn is_done(&self) -> bool {
        self.once && self.says_primary
    }

    /// How long the probe has been running.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Does what can be done without waiting; whether the node says that it is a primary, and when that question was
    /// sent.
    pub(super) fn drive(&mut self, waker: &Arc<Waker>) -> Option<(Instant, bool)> {
        if self.is_done() {
            return None;
        }
        // Nothing is asked if no permitted command reports the role.
        let tells = self.asker.info().map(|info| info.tells);
        let bytes = tells.and_then(Tells::question).unwrap_or_default();
        let question = Question { bytes: &bytes, replies: 1, every: self.every, patience: PATIENCE };
        let Came::Answer(asked, replies) = self.asker.drive(&question, waker) else { return None };
        let says = match tells.zip(replies.first()).and_then(|(tells, reply)| tells.read(reply))? {
            Role::Primary { .. } => true,
            Role::Replica { .. } => false,
            Role::Sentinel(_) | Role::Unknown => return None,
        };
        self.says_primary = says;
        if !says {
            self.says_replica = Some(asked);
        } else if self.once {
            self.asker.hang_up();
        }
        Some((asked, says))
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.asker.poll_fds()
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        if self.is_done() { None } else { self.asker.wakes_at() }
    }
}
