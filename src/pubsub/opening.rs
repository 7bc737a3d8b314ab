//! Opens the connection of a subscription, on a thread that may wait for the network.
//!
//! Guarantees: the outcome is always delivered, even after a panic, as long as the subscription is there; a host that does not answer
//! delays no other host (worker). Leaves to others: what follows (subscription).

use std::sync::Weak;
use std::time::Duration;

use crate::error::{Error, Result, Status, flags};
use crate::net::Conn;
use crate::route::Route;
use crate::time::Deadline;
use crate::worker::{self, Host};

/// Who wanted the connection.
pub(super) trait Opens: Send + Sync {
    /// The attempt of this number is over.
    fn opened(&self, number: u64, route: Route, outcome: Result<Conn>);
}

struct Job {
    owner: Weak<dyn Opens>,
    number: u64,
    route: Option<Route>,
    outcome: Option<Result<Conn>>,
}

/// Opens a connection to the node of this route within `limit`.
pub(super) fn open(owner: Weak<dyn Opens>, number: u64, route: Route, limit: Duration) {
    let host = Host::of(route.pool.name());
    let job = Job { owner, number, route: Some(route), outcome: None };
    // Without a thread for it the job is dropped, which delivers that.
    let _ = worker::dial(host, true, move || job.run(limit));
}

impl Job {
    fn run(mut self, limit: Duration) {
        if self.owner.strong_count() > 0 {
            self.outcome = self.route.as_ref().map(|route| route.pool.open_apart(Deadline::after(limit)));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let (Some(owner), Some(route)) = (self.owner.upgrade(), self.route.take()) {
            let none = || Error::new(Status::Io, "no thread to open a connection").with_flags(flags::RETRYABLE);
            let outcome = self.outcome.take().unwrap_or_else(|| Err(none()));
            owner.opened(self.number, route, outcome);
        }
    }
}
