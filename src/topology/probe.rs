//! Asks a node for its role, again and again (rule 9).
//!
//! Guarantees: never waits; a candidate is asked every [`EVERY`], and no more once it has said that it is a primary. Leaves to others: whether a candidate is taken at its word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asker::{Asker, Came, Question};
use crate::config::{ClientSettings, Endpoint};
use crate::net::{Expect, LinkOptions, Role, Tells};
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;

/// Between two questions to a candidate.
pub(super) const EVERY: Duration = Duration::from_millis(12);
/// A node that does not answer is dialled anew.
const PATIENCE: Duration = Duration::from_millis(500);
/// A node under question.
pub(super) struct Probe {
    /// As announced.
    pub(super) announced: Endpoint,
    asker: Asker,
    every: Duration,
    once: bool,
    begun: Instant,
    /// It has said that it is a primary.
    pub(super) says_primary: bool,
    /// When it was asked last of the times when it said that it is a replica.
    pub(super) says_replica: Option<Instant>,
}

impl Probe {
    /// A candidate, which is asked until it says that it is a primary.
    pub(super) fn candidate(announced: Endpoint, settings: &ClientSettings) -> Self {
        Self { once: true, ..Self::new(announced, settings, EVERY) }
    }

    /// A node that is asked as long as this lives.
    pub(super) fn new(announced: Endpoint, settings: &ClientSettings, every: Duration) -> Self {
        let endpoint = settings.address_map.apply(&announced);
        let asker = Asker::new(endpoint, Arc::new(LinkOptions::of_node(settings, Expect::Any)));
        let (begun, says_primary, says_replica) = (Instant::now(), false, None);
        Self { announced, asker, every, once: false, begun, says_primary, says_replica }
    }

    fn is_done(&self) -> bool {
        self.once && self.says_primary
    }

    /// For how long it has been asked.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Does what can be done now; what it has said about being a primary, and when it was asked that.
    pub(super) fn drive(&mut self, waker: &Arc<Waker>) -> Option<(Instant, bool)> {
        if self.is_done() {
            return None;
        }
        // Of one that tells its role by nothing the Sentinels' word alone is to be had.
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

    /// What to poll for.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.asker.poll_fds()
    }

    /// When it wants to be driven though nothing happened.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        if self.is_done() { None } else { self.asker.wakes_at() }
    }
}
