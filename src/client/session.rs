//! A client pinned to one connection: for WATCH, MULTI by hand, SELECT, CLIENT.
//!
//! Guarantees: commands run in call order on one connection, which never moves to another node; once it is lost, EXEC gives
//! TXN_ABORTED and anything else IO; nobody after it sees its state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::core::{Core, lock};
use super::exec::run_on_conn;
use super::judge::is_final;
use super::plan::Plan;
use super::{CallFlags, Target};
use crate::config::ClientSettings;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Failure, Unit};
use crate::pool::{Loan, Pool};
use crate::resp::Reply;
use crate::time::Deadline;

/// What a session client has beside its parent's core.
pub(super) struct Session {
    pub(super) settings: ClientSettings,
    pinned: Mutex<Pinned>,
    closed: AtomicBool,
}

/// The connection, and what was done to it.
#[derive(Default)]
struct Pinned {
    loan: Option<Loan>,
    /// It had a connection and lost it.
    lost: Option<Error>,
    in_multi: bool,
    watches: bool,
    /// Something that giving it back does not undo.
    changed: bool,
}

impl Session {
    pub(super) fn new(settings: ClientSettings) -> Self {
        Self { settings, pinned: Mutex::default(), closed: AtomicBool::new(false) }
    }

    pub(super) fn exec(&self, core: &Core, plan: &Plan<'_>, deadline: Deadline) -> Result<(Reply, Arc<Pool>)> {
        plan.check_paired()?;
        if core.target == Target::Replica && !plan.reads && plan.check_shared().is_ok() {
            let text = format!("{} writes, or is not known to only read: this session is on a replica", plan.name());
            return Err(Error::new(Status::ReadOnly, text));
        }
        let mut pinned = lock(&self.pinned);
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Status::Closed, "the session is closed"));
        }
        if let Some(cause) = &pinned.lost {
            return Err(lost(plan, cause));
        }
        if pinned.loan.is_none() {
            pinned.take(self.pin(core, plan, deadline)?, self.settings.db, deadline)?;
        }
        pinned.note(plan);
        pinned.run(core, plan, deadline)
    }

    /// Takes the connection: waits for the primary as any call does.
    fn pin(&self, core: &Core, plan: &Plan<'_>, deadline: Deadline) -> Result<Loan> {
        let (mut stale, mut pause) = (0, self.settings.retry.backoff_min);
        loop {
            let found = core.learn(stale, deadline).and_then(|()| core.route(plan, CallFlags::default(), &[]));
            let loan = found.and_then(|route| {
                let doubt = |error: &Error| core.service.suspect(route.pool.endpoint(), error.message());
                route.pool.loan(deadline).inspect_err(doubt)
            });
            let error = match loan {
                Ok(loan) => return Ok(loan),
                Err(error) => error,
            };
            if is_final(&error) || deadline.is_over() || core.is_closed() {
                let context = format!("a session for service {}", core.service.name());
                return Err(error
                    .in_context(context)
                    .with_note(format!(" (after {} ms)", deadline.elapsed().as_millis())));
            }
            stale = core.service.discovered();
            core.pause(deadline.left_or(pause));
            pause = (pause * 2).min(self.settings.retry.backoff_max);
        }
    }

    /// Gives the connection back, or closes it if it is dirty; the next command takes another.
    pub(super) fn give_back(&self) {
        *lock(&self.pinned) = Pinned::default();
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.give_back();
    }
}

impl Pinned {
    /// Makes a connection the session's own, in the session's database.
    fn take(&mut self, mut loan: Loan, db: u32, deadline: Deadline) -> Result<()> {
        if loan.db() != Some(db) {
            let text = db.to_string();
            let select = [&b"SELECT"[..], text.as_bytes()];
            let unit = Unit { bytes: Bytes::Args(&select), list: None };
            loan.spoil();
            let reply = run_on_conn(&mut loan, unit, deadline).map_err(|failure| failure.error)?;
            if let Some(line) = reply.error_line(0) {
                return Err(Error::from_server(line, loan.pool().name()));
            }
        }
        self.loan = Some(loan);
        Ok(())
    }

    /// Notes what the commands do to the connection, before they are sent: afterwards it may be too late to know.
    fn note(&mut self, plan: &Plan<'_>) {
        let Self { in_multi, watches, changed, .. } = self;
        let is_plain = plan.check_shared().is_ok();
        plan.each_name(|name| match &*name.to_ascii_uppercase() {
            b"MULTI" => *in_multi = true,
            b"WATCH" => *watches = true,
            b"EXEC" | b"DISCARD" => (*in_multi, *watches) = (false, false),
            b"UNWATCH" => *watches = false,
            _ => *changed |= !is_plain,
        });
    }

    fn run(&mut self, core: &Core, plan: &Plan<'_>, deadline: Deadline) -> Result<(Reply, Arc<Pool>)> {
        let Some(loan) = &mut self.loan else {
            return Err(Error::new(Status::Internal, "a session without a connection"));
        };
        let socket = loan.conn().map(|conn| Arc::clone(conn.socket()));
        if socket.as_ref().is_some_and(|socket| socket.is_closed_by_peer()) {
            // Known before EXEC is sent, this is an end without doubt.
            let text = format!("{} closed the connection", loan.pool().name());
            let error = Error::new(Status::Io, text).with_endpoint(loan.pool().name());
            return Err(self.lose(core, plan, Failure::unsent(error)));
        }
        let blocking = socket.filter(|_| plan.blocks.is_some());
        blocking.iter().for_each(|socket| core.note_blocking(socket));
        let outcome = run_on_conn(loan, plan.unit(0), deadline);
        blocking.iter().for_each(|socket| core.forget_blocking(socket));
        match outcome {
            Ok(reply) => {
                let refused = reply.error_line(0).is_some_and(|line| line.starts_with(b"READONLY"));
                if refused {
                    core.service.suspect(loan.pool().endpoint(), "it refused a write");
                }
                Ok((reply, Arc::clone(loan.pool())))
            }
            Err(failure) => Err(self.lose(core, plan, failure)),
        }
    }

    /// The connection is of no use any more; the session ends with it.
    fn lose(&mut self, core: &Core, plan: &Plan<'_>, failure: Failure) -> Error {
        if let Some(mut loan) = self.loan.take() {
            core.service.suspect(loan.pool().endpoint(), failure.error.message());
            loan.spoil();
        }
        self.lost = Some(failure.error.clone());
        let maybe = failure.sent >= plan.first_len(0) && !plan.repeatable;
        let error = match plan.is_exec() && !maybe {
            true => failure.error.with_status(Status::TxnAborted),
            false => failure.error,
        };
        let error = error.in_context(format!("{} in a session for service {}", plan.name(), core.service.name()));
        if maybe { error.with_flags(flags::MAYBE_EXECUTED) } else { error.with_flags(flags::RETRYABLE) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(loan) = &mut self.loan {
            if self.in_multi || self.watches || self.changed {
                loan.spoil();
            }
        }
    }
}

/// What a command gets after the connection was lost: nothing was sent.
fn lost(plan: &Plan<'_>, cause: &Error) -> Error {
    let status = if plan.is_exec() { Status::TxnAborted } else { Status::Io };
    let text = format!("{}: the session lost its connection: {}", plan.name(), cause.message());
    Error::new(status, text).with_endpoint(cause.endpoint()).with_flags(flags::RETRYABLE)
}
