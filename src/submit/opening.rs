//! Opens connections for submitted calls, on threads that may wait for the network.
//!
//! Guarantees: a host that does not answer delays no other host (worker); the result of an opening is always delivered, even after
//! a panic. Leaves to others: which call gets the connection (pending).

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::pool::{Pool, SubmitLane, Traffic};
use crate::time::Deadline;
use crate::worker::{self, Host};

/// The result of an opening; `None`: the pool has no place.
pub(super) type OpenResult = Result<Option<Arc<SubmitLane>>>;

/// Opens a connection within `limit`, and calls `tell` with the result.
pub(super) fn open<F: FnOnce(OpenResult) + Send + 'static>(
    pool: Arc<Pool>,
    traffic: Traffic,
    limit: Duration,
    tell: F,
) {
    let job = OpenJob { tell: Some(tell), opened: None };
    // Without a thread for it the job is dropped, which calls `tell`.
    let _ = worker::dial(Host::of(pool.name()), true, move || job.run(&pool, traffic, limit));
}

struct OpenJob<F: FnOnce(OpenResult)> {
    tell: Option<F>,
    opened: Option<OpenResult>,
}

impl<F: FnOnce(OpenResult)> OpenJob<F> {
    fn run(mut self, pool: &Arc<Pool>, traffic: Traffic, limit: Duration) {
        self.opened = Some(pool.open_submit_lane(traffic, Deadline::after(limit)));
    }
}

impl<F: FnOnce(OpenResult)> Drop for OpenJob<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.opened.take().unwrap_or(Ok(None)));
        }
    }
}
