//! Asks a Sentinel whose events the user may not hear, often enough to notice a planned failover before the promotion.
//!
//! Guarantees: never waits; asks every [`EVERY`] on an open connection, and sends at most [`MOST`] questions a second
//! from this process to one Sentinel, however many handles and services there are. Leaves to others: what follows
//! (transition).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{self, Shown};
use super::asker::{Asker, Came, Question};
use crate::config::Endpoint;
use crate::net::LinkOptions;
use crate::resp::encode;
use crate::sys::poll::PollFd;
use crate::sys::waker::Waker;

const EVERY: Duration = Duration::from_millis(100);
const MOST: u32 = 100;
/// The number of questions about one service.
const QUESTIONS: u32 = 2;
/// A server that does not answer for so long is dialled again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The number of services that each Sentinel is asked about, over all handles of the process.
pub(super) type Crowd = HashMap<Endpoint, u32>;

/// A Sentinel that is asked.
pub(super) struct Overhear {
    asker: Asker,
    /// The services that it is asked about, in order.
    asked: Vec<String>,
    /// The interval that was last reported.
    pub(super) told: Option<Duration>,
}

/// What a Sentinel says about a service: the address that it names, and its view of the primary.
pub(super) struct Overheard {
    pub(super) service: String,
    pub(super) named: Option<Endpoint>,
    pub(super) shown: Option<Shown>,
}

impl Overhear {
    pub(super) fn new(endpoint: Endpoint, options: Arc<LinkOptions>) -> Self {
        Self { asker: Asker::new(endpoint, options), asked: Vec::new(), told: None }
    }

    /// Does what can be done without waiting. `crowd`: the number of services that this Sentinel is asked about.
    pub(super) fn drive(&mut self, services: &[String], crowd: u32, waker: &Arc<Waker>) -> Vec<Overheard> {
        if self.asked != services {
            // The question under way is about other services.
            self.asker.hang_up();
            self.asked = services.to_vec();
        }
        let mut bytes = Vec::new();
        for service in services {
            encode::command(&mut bytes, &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()]);
            encode::command(&mut bytes, &[b"SENTINEL", b"MASTER", service.as_bytes()]);
        }
        let (replies, every) = (services.len() * QUESTIONS as usize, pace(crowd));
        let question = Question { bytes: &bytes, replies, every, patience: PATIENCE.max(every) };
        let Came::Answer(_, replies) = self.asker.drive(&question, waker) else { return Vec::new() };
        let pairs = self.asked.iter().zip(replies.chunks(QUESTIONS as usize));
        pairs
            .map(|(service, pair)| Overheard {
                service: service.clone(),
                named: answer::named(&pair[0]),
                shown: pair.get(1).and_then(answer::shown),
            })
            .collect()
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.asker.poll_fds()
    }

    /// When to drive it again even if nothing happens.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.asker.wakes_at()
    }
}

/// The interval of questions about each service, by the number of services.
pub(super) fn pace(crowd: u32) -> Duration {
    EVERY.max(Duration::from_secs(1) * QUESTIONS * crowd / MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_hundred_questions_a_second_go_to_one_sentinel() {
        assert_eq!([0, 1, 5].map(pace), [EVERY; 3]);
        assert_eq!([10, 100].map(pace), [Duration::from_millis(200), Duration::from_secs(2)]);
    }
}
