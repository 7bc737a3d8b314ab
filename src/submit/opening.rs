//! Connections that are opened for submitted calls, on worker threads.
//!
//! Guarantees: two at a time in the process, so that hosts that vanish never hold up what asks the Sentinels; whatever becomes of an
//! opening, a panic included, the one who asked is told. Leaves to others: which call gets the connection (pending).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::pool::{Pool, Post, Traffic};
use crate::sys::fork::PerProcess;
use crate::time::Deadline;
use crate::worker;

/// Connections that are opened at the same time, in the process.
const MOST: usize = 2;

static OPENING: PerProcess<AtomicUsize> = PerProcess::new();

/// What came of an opening; `None`: the pool has no place.
pub(super) type Opened = Result<Option<Arc<Post>>>;

/// The right to open a connection.
pub(super) struct Turn(&'static AtomicUsize);

impl Turn {
    /// A turn, unless all are taken.
    pub(super) fn take() -> Option<Self> {
        let turn = Self(OPENING.get_or_make(AtomicUsize::default));
        (turn.0.fetch_add(1, Ordering::AcqRel) < MOST).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens a connection within `limit`, and tells what came of it.
pub(super) fn open<F: FnOnce(Opened) + Send + 'static>(
    pool: Arc<Pool>,
    traffic: Traffic,
    limit: Duration,
    turn: Turn,
    tell: F,
) {
    let job = Job { tell: Some(tell), opened: None, _turn: turn };
    // Without a thread for it the job is dropped, and tells that itself.
    let _ = worker::run(move || job.run(&pool, traffic, limit));
}

struct Job<F: FnOnce(Opened)> {
    tell: Option<F>,
    opened: Option<Opened>,
    _turn: Turn,
}

impl<F: FnOnce(Opened)> Job<F> {
    fn run(mut self, pool: &Arc<Pool>, traffic: Traffic, limit: Duration) {
        self.opened = Some(pool.open_post(traffic, Deadline::after(limit)));
    }
}

impl<F: FnOnce(Opened)> Drop for Job<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.opened.take().unwrap_or(Ok(None)));
        }
    }
}
