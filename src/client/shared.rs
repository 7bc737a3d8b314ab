//! What a client and its sessions share: the router, the submitter, and what a sentinel handle asks of its clients.
//!
//! Guarantees: a close admits no new call, ends blocking commands and subscriptions at once and other calls at its deadline. Leaves to others: each
//! single call (call, submit).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::stats;
use crate::config::{ClientSettings, Config};
use crate::error::{Error, Result, Status, quoted};
use crate::meter::ClientFigures;
use crate::net::{Conn, ConnectOptions};
use crate::plan::Target;
use crate::pubsub::{Subscription, SubscriptionSpec, Subscriptions};
use crate::queue::Queue;
use crate::resp::Reply;
use crate::route::{Context, Router};
use crate::submit::{Submission, Submitter};
use crate::time::Deadline;
use crate::topology::{Child, Sentinel};

/// How long a close waits beyond its time for the blocking commands that it has ended, and for calls that have their outcome.
const ON_THE_WAY_OUT: Duration = Duration::from_millis(100);

/// What a client and its sessions share.
pub(super) struct Shared {
    router: Arc<Router>,
    submitter: Submitter,
    subscriptions: Subscriptions,
    me: Weak<Self>,
}

impl Shared {
    pub(super) fn new(
        sentinel: &Arc<Sentinel>,
        service: Option<&str>,
        target: Target,
        overrides: Option<&Config>,
    ) -> Result<Arc<Self>> {
        let router = Router::new(sentinel, service, target, overrides)?;
        let submitter = Submitter::new(&router);
        let shared =
            Arc::new_cyclic(|me| Self { router, submitter, subscriptions: Subscriptions::new(), me: Weak::clone(me) });
        let child: Weak<dyn Child> = Arc::downgrade(&shared) as Weak<dyn Child>;
        sentinel.adopt(shared.context().service.name(), child);
        Ok(shared)
    }

    #[inline]
    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    #[inline]
    pub(super) fn context(&self) -> &Context {
        &self.router.context
    }

    pub(super) fn submit(&self, submission: Submission<'_>) -> Result<()> {
        let Some(me) = self.me.upgrade() else {
            return Err(Error::new(Status::Internal, "a submit on a client that is gone"));
        };
        self.submitter.submit(me, submission)
    }

    /// A subscription, which keeps the client alive.
    pub(super) fn subscribe(
        &self,
        settings: ClientSettings,
        queue: &Arc<Queue>,
        token: u64,
        together: Option<&Arc<AtomicUsize>>,
    ) -> Result<Arc<Subscription>> {
        let Some(me) = self.me.upgrade() else {
            return Err(Error::new(Status::Internal, "a subscription on a client that is gone"));
        };
        let from_replicas = self.context().target == Target::Replica;
        let together = together.cloned();
        let spec =
            SubscriptionSpec { router: &self.router, client: me, from_replicas, settings, queue, token, together };
        let subscription = Subscription::open(spec);
        self.subscriptions.add(&subscription);
        // A close at this moment may not have seen it.
        self.context().check_open().inspect_err(|_| subscription.free())?;
        Ok(subscription)
    }

    pub(super) fn close(&self, deadline: Deadline) -> Result<()> {
        let context = self.context();
        let ended = context.shut();
        if let Err(closed) = context.check_open() {
            self.subscriptions.end(&closed);
        }
        self.submitter.wake();
        let mut running = context.await_idle(deadline);
        if (1..=ended + context.on_the_way_out()).contains(&running) {
            // These are the blocking commands that were ended, and calls whose outcome the program may have already.
            running = context.await_idle(Deadline::after(ON_THE_WAY_OUT));
        }
        self.router.end();
        self.submitter.wake();
        context.service.wake();
        if running == 0 {
            return Ok(());
        }
        let (name, after) = (quoted(context.service.name()), deadline.elapsed().as_millis());
        let calls = if running == 1 { "1 call was".to_owned() } else { format!("{running} calls were") };
        let text = format!("closing the client of service {name}: {calls} running after {after} ms and ended then");
        Err(Error::new(Status::Timeout, text))
    }

    pub(super) fn topology(&self) -> Result<Reply> {
        let context = self.context();
        context.sentinel.topology(Some(context.service.name()))
    }

    pub(super) fn stats(&self) -> Result<Reply> {
        stats::of(self.figures())
    }

    pub(super) fn figures(&self) -> ClientFigures {
        let (figures, rows) = (self.router.figures(), self.subscriptions.rows());
        ClientFigures {
            subscriptions: self.subscriptions.count() as u64,
            lacks_rows: figures.lacks_rows || rows.is_none(),
            subscription_rows: rows.unwrap_or_default(),
            ..figures
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // First, so that the end of its connections is counted.
        self.router.end();
        self.context().sentinel.bury(self.figures());
    }
}

impl Child for Shared {
    fn figures(&self) -> ClientFigures {
        Shared::figures(self)
    }

    fn close(&self, deadline: Deadline) -> Result<()> {
        Shared::close(self, deadline)
    }

    fn changed(&self) {
        self.router.renew();
        self.submitter.wake();
        self.subscriptions.changed();
    }

    fn silent_since(&self) -> Option<Instant> {
        self.router.silent_since()
    }

    fn heard_at(&self) -> Option<Instant> {
        self.router.heard_at()
    }

    /// A connection is taken only while calls are running, because they are certain to use it.
    fn offer(&self, conn: Conn, options: &ConnectOptions) -> Option<Conn> {
        let is_awaited =
            self.context().target != Target::Replica && self.context().active().load(Ordering::Acquire) > 0;
        if is_awaited { self.router.offer(conn, options) } else { Some(conn) }
    }
}
