//! Asks a Sentinel whose events the user may not hear, often enough that a planned failover is known of before the promotion.
//!
//! Guarantees: never waits; every [`EVERY`], on an open connection, and at most [`MOST`] questions a second from this process to one Sentinel,
//! however many handles and services there are. Leaves to others: what follows (failover).

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
/// Questions about one service.
const QUESTIONS: u32 = 2;
/// Who does not answer is dialled anew.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many services are asked about at each Sentinel, of all handles of the process.
pub(super) type Crowd = HashMap<Endpoint, u32>;

/// The connection for it.
pub(super) struct Overhear {
    asker: Asker,
    /// What was asked about, in order.
    asked: Vec<String>,
    /// How often that is, as it was last told.
    pub(super) told: Option<Duration>,
}

/// What a Sentinel says of a service: the address that it names, and what it shows.
pub(super) struct Overheard {
    pub(super) service: String,
    pub(super) named: Option<Endpoint>,
    pub(super) shown: Option<Shown>,
}

impl Overhear {
    pub(super) fn new(endpoint: Endpoint, options: Arc<LinkOptions>) -> Self {
        Self { asker: Asker::new(endpoint, options), asked: Vec::new(), told: None }
    }

    /// Does what can be done now. `crowd`: how many services are asked about there.
    pub(super) fn drive(&mut self, services: &[String], crowd: u32, waker: &Arc<Waker>) -> Vec<Overheard> {
        if self.asked != services {
            // What is under way is about others.
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

    /// What to poll for.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd> {
        self.asker.poll_fds()
    }

    /// When it wants to be driven though nothing happened.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.asker.wakes_at()
    }
}

/// How often a Sentinel is asked about each of so many services.
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
