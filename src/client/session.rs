//! A client pinned to one connection: for WATCH, MULTI by hand, SELECT, CLIENT.
//!
//! Guarantees: commands run in call order on one connection, which never moves to another node. Once the connection is lost, EXEC,
//! alone or in a list, gives TXN_ABORTED and anything else gives IO; neither is RETRYABLE, because nothing can succeed on this
//! session. The connection's next user does not see its state. Threads that share a session take turns, each within its own
//! deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::home::Home;
use super::line::{self, Line, Link};
use super::shared::Shared;
use super::unwaited::{Awaited, Unwaited};
use crate::call::blocking::again;
use crate::call::judge;
use crate::call::{Attempt, GateWait, Leg, Step, apply, gate, loaned, logged_out, refused_wait, without_sentinels};
use crate::config::{ClientSettings, Credentials, WriteSettings};
use crate::error::{Error, Result, Status, clean_line, flags};
use crate::lane::{Bytes, Failure, Unit};
use crate::meter::End;
use crate::net::{Socket, no_database};
use crate::plan::{CallFlags, Plan, Target};
use crate::pool::{Loan, Pool, Purpose, SubmitLane};
use crate::resp::Reply;
use crate::resp::table::Flags;
use crate::route::{Context, Router};
use crate::sys::rank::Rank;
use crate::sys::sync::{Condvar, Lock};
use crate::time::{Deadline, Instant};

/// How long a close waits for a command that it has ended.
const LAST: Duration = Duration::from_millis(100);

/// What changes the state of a connection.
const STATEFUL: Flags = Flags::STATE.and(Flags::SUBSCRIBE).and(Flags::TXN);

/// What belongs to a session alone.
pub(super) struct Session {
    pub(super) settings: ClientSettings,
    /// Knows the keys of its shard, if it is on one of several.
    pub(super) home: Option<Arc<dyn Home>>,
    pinned: Lock<Pinned>,
    turns: Turns,
    /// Its submitted calls.
    pub(super) line: Line,
    closed: AtomicBool,
    /// The running command gives the connection back when it ends.
    gives_back: AtomicBool,
}

/// A lock whose waiters have deadlines.
struct Turns {
    now: Lock<Now>,
    ended: Condvar,
}

#[derive(Default)]
struct Now {
    taken: bool,
    /// The connection of the running command, and whether the command blocks.
    socket: Option<(Arc<Socket>, bool)>,
}

/// The right to use the connection.
struct Turn<'a>(&'a Turns);

/// The connection and its state.
#[derive(Default)]
struct Pinned {
    loan: Option<Loan>,
    /// Why the connection was lost.
    lost: Option<Error>,
    marks: Marks,
    /// The failover sequence at the last good reply.
    answered: u64,
    /// What it is authenticated with.
    auth: Credentials,
}

/// What the commands of a session have made of its connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// Whether a transaction is open, and the writes that no WAIT has covered.
    pub(super) unwaited: Unwaited,
    watches: bool,
    /// Its state was changed in a way that cannot be undone, so the connection is closed in the end.
    changed: bool,
    /// The program has authenticated it by itself.
    own_user: bool,
}

impl Marks {
    /// Whether something was begun that a failover ends.
    pub(super) fn is_in_transaction(self) -> bool {
        self.unwaited.in_multi || self.watches
    }

    /// Whether the program has authenticated it by itself.
    pub(super) fn own_user(self) -> bool {
        self.own_user
    }

    /// Notes how the commands change the connection's state. This is done before they are sent, because afterwards the connection
    /// may be lost. True: the connection may get another user.
    pub(super) fn note(&mut self, plan: &Plan<'_>) -> bool {
        let Self { unwaited, watches, changed, own_user } = self;
        unwaited.note(plan);
        let mut new_user = false;
        plan.each_class(|name, class| match &*name.to_ascii_uppercase() {
            b"MULTI" => {}
            b"WATCH" => *watches = true,
            b"EXEC" | b"DISCARD" | b"UNWATCH" => *watches = false,
            name => {
                *changed |= class.flags.has_any(STATEFUL);
                *watches &= name != b"RESET";
                *own_user |= matches!(name, b"AUTH" | b"HELLO");
                new_user |= matches!(name, b"AUTH" | b"HELLO" | b"RESET");
            }
        });
        // The EXEC of a transaction in one call.
        *watches &= !plan.is_atomic();
        new_user
    }

    /// Refuses a transaction in one call where it cannot be sent. `carries`: the server has accepted MULTI on this connection.
    pub(super) fn check_atomic(self, carries: bool) -> Result<()> {
        if self.unwaited.in_multi {
            let text = "VIGIE_CALL_ATOMIC: this session is in a transaction that was begun by hand: send EXEC or DISCARD first";
            return Err(Error::new(Status::InvalidState, text));
        }
        if !carries {
            let text = "VIGIE_CALL_ATOMIC: the server has refused MULTI on this connection, or its user was changed while keys are \
                        watched: nothing was sent; send UNWATCH, and begin anew";
            return Err(Error::new(Status::Unsupported, text));
        }
        Ok(())
    }
}

impl Session {
    pub(super) fn new(settings: ClientSettings, home: Option<Arc<dyn Home>>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            settings,
            home,
            pinned: Lock::new(Rank::SessionState, Pinned::default()),
            turns: Turns::new(),
            line: Line::new(me),
            closed: AtomicBool::new(false),
            gives_back: AtomicBool::new(false),
        })
    }

    /// Refuses what cannot run in a session.
    pub(super) fn check(&self, context: &Context, plan: &Plan<'_>, call: CallFlags) -> Result<()> {
        context.check_on_primary(call)?;
        plan.check_paired()?;
        if context.target == Target::Replica && !plan.reads && plan.check_shared().is_ok() {
            let instead = "a session of a client of vigie_primary_for() or vigie_split_for()";
            return Err(plan.read_only("this session is on a replica", instead));
        }
        Ok(())
    }

    /// Whether it was closed, not counting the client that it was made from.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn exec(
        self: &Arc<Self>,
        client: &Arc<Shared>,
        plan: &Plan<'_>,
        call: CallFlags,
        deadline: Deadline,
    ) -> Result<(Reply, Arc<Pool>)> {
        let router = client.router();
        let mut gate_wait = GateWait::default();
        loop {
            if self.line.is_used() {
                return line::exec(self, client, plan, call, deadline);
            }
            gate::wait_in_session(&router.context, plan, &deadline, &mut gate_wait)?;
            let turn = self.turns.take(deadline).map_err(|error| error.in_context(plan.name()))?;
            if self.line.is_used() {
                drop(turn);
                return line::exec(self, client, plan, call, deadline);
            }
            let mut pinned = self.pinned.lock();
            self.give_back_if_asked(&mut pinned);
            let outcome = self.run(&mut pinned, &turn, router, (plan, call), deadline, gate_wait);
            self.give_back_if_asked(&mut pinned);
            match outcome {
                // The fence was raised while the command waited for its turn or for the connection.
                Err(error) if error.status() == Status::Fenced => gate_wait.note(),
                Err(error) if error.status() == Status::Io && self.closed.load(Ordering::Acquire) => {
                    let text = format!("{}: the session was closed", plan.name());
                    return Err(error.caused_by(Status::Closed, text).with_time(deadline.elapsed().as_millis(), ""));
                }
                Err(error) if error.status() != Status::Server && self.closed.load(Ordering::Acquire) => {
                    return Err(error.with_status(Status::Closed));
                }
                outcome => return outcome,
            }
        }
    }

    fn run(
        &self,
        pinned: &mut Pinned,
        turn: &Turn<'_>,
        router: &Router,
        (plan, call): (&Plan<'_>, CallFlags),
        deadline: Deadline,
        gate_wait: GateWait,
    ) -> Result<(Reply, Arc<Pool>)> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Status::Closed, "the session is closed"));
        }
        if let Some(cause) = &pinned.lost {
            return Err(lost(plan, cause).with_flags(pinned.failover(router)));
        }
        let fresh = pinned.loan.is_none();
        if fresh {
            pinned.auth = router.context.settings().auth.clone();
            pinned.take(self.pin(router, plan, deadline)?, self.settings.db, deadline).map_err(|error| {
                let error = error.in_service("a session", router.context.service.name());
                error.with_time(deadline.elapsed().as_millis(), "")
            })?;
        }
        pinned.authenticate(router, plan, deadline)?;
        pinned.prepare_transaction(router, plan, deadline)?;
        let failover_seq = gate::check_in_session(&router.context, plan, &deadline, gate_wait).inspect_err(|_| {
            if fresh {
                *pinned = Pinned::default();
            }
        })?;
        if fresh {
            pinned.answered = failover_seq;
        }
        pinned.check_failover(router, plan, failover_seq)?;
        let awaited = pinned.awaited(router, plan, (self.settings.write, call.replicas()))?;
        pinned.note(plan);
        let socket = pinned.socket();
        turn.announce(socket.as_ref().map(|socket| (Arc::clone(socket), plan.blocks.is_some())));
        if let (true, Some(socket)) = (self.closed.load(Ordering::Acquire), socket) {
            // The session was closed before the close could see this command.
            socket.shutdown_as(End::Closed);
        }
        pinned.run(router, plan, awaited, failover_seq, deadline)
    }

    /// Takes the connection for the session's submitted calls: the one that it has, or another one. `None`: another thread uses it.
    pub(super) fn take_link(
        &self,
        router: &Router,
        plan: &Plan<'_>,
        attempt: &mut Attempt<Arc<Pool>>,
        deadline: Deadline,
    ) -> std::result::Result<Option<Link>, Step> {
        let Ok(_turn) = self.turns.take(Deadline::after(Duration::ZERO)) else { return Ok(None) };
        let mut pinned = self.pinned.lock();
        self.give_back_if_asked(&mut pinned);
        if let Some(cause) = &pinned.lost {
            return Err(Step::Over(cause.clone()));
        }
        let unused = pinned.loan.is_none();
        if unused {
            let (stale, version) = attempt.wanting();
            router.ensure_topology(stale, version, Deadline::after(Duration::ZERO))?;
            let failover_seq = gate::read_failover_seq(&router.context);
            pinned.auth = router.context.settings().auth.clone();
            let loan = Self::try_pin(router, plan, attempt, deadline)?;
            pinned.take(loan, self.settings.db, deadline).map_err(Step::from)?;
            pinned.answered = failover_seq;
        }
        let Some(mut loan) = pinned.loan.take() else { return Ok(None) };
        let asks = loan.conn().is_some_and(|conn| !conn.carries_transactions()) && !pinned.marks.is_in_transaction();
        if asks {
            // A refusal is told to the call that needs the answer.
            if let Err(failure) = loaned::prepare_transaction(&mut loan, deadline) {
                if failure.error.server_code().is_empty() {
                    return Err(if unused { Step::Again(failure.error) } else { Step::Over(failure.error) });
                }
            }
        }
        let pinned = std::mem::take(&mut *pinned);
        let Some(lane) = SubmitLane::of_loan(&mut loan) else { return Ok(None) };
        let Pinned { marks, answered, auth, .. } = &pinned;
        Ok(Some(Link { loan, lane, marks: *marks, answered: *answered, auth: auth.clone(), unused }))
    }

    /// Takes the connection. Waits for the primary as any call does.
    fn pin(&self, router: &Router, plan: &Plan<'_>, deadline: Deadline) -> Result<Loan> {
        let context = &router.context;
        let mut attempt = Attempt::new(self.settings.retry, deadline);
        loop {
            let version = context.service.version();
            let step = match Self::try_pin(router, plan, &mut attempt, deadline) {
                Ok(loan) => return Ok(loan),
                Err(step) => step,
            };
            // The last error is the most informative one here.
            let last = if let Step::Again(error) = &step { Some(error.clone()) } else { None };
            if let Err(error) = again(context, &mut attempt, version, step) {
                return Err(without_sentinels(context, last.unwrap_or(error))
                    .in_service("a session", context.service.name())
                    .with_time(deadline.elapsed().as_millis(), ""));
            }
        }
    }

    fn try_pin(
        router: &Router,
        plan: &Plan<'_>,
        attempt: &mut Attempt<Arc<Pool>>,
        deadline: Deadline,
    ) -> std::result::Result<Loan, Step> {
        // A session of a split client is on the primary.
        let call = CallFlags::on_primary();
        let service = &router.context.service;
        let (stale, version) = attempt.wanting();
        let seen = router.ensure_topology(stale, version, deadline)?;
        let version = service.version();
        let route = router.route(seen, plan, call, attempt.tried()).map_err(|error| {
            attempt.unrouted(version, service.discovered());
            Step::from(error)
        })?;
        route.pool.loan(Purpose::Session, deadline).map_err(|error| {
            let leg = Leg {
                node: &route.pool,
                replica: route.replica.is_some(),
                pinned: route.pinned,
                doubted: false,
                version,
                discovered: service.discovered(),
                now: Instant::now(),
            };
            let (step, effect) = attempt.conclude(plan, call, &leg, Err(Failure::unsent(error)));
            effect.into_iter().for_each(|effect| apply(router, &route, effect));
            step
        })
    }

    /// Gives the connection back, or closes it if its state was changed, when the running command ends. The next command takes
    /// another one.
    pub(super) fn give_back(&self) {
        if self.line.is_used() {
            return self.line.give_back();
        }
        self.gives_back.store(true, Ordering::Release);
        if let Ok(_turn) = self.turns.take(Deadline::after(Duration::ZERO)) {
            self.give_back_if_asked(&mut self.pinned.lock());
        }
    }

    fn give_back_if_asked(&self, pinned: &mut Pinned) {
        if self.gives_back.swap(false, Ordering::AcqRel) {
            *pinned = Pinned::default();
        }
    }

    /// Ends a blocking command at once, lets another one run until the deadline, and gives the connection back.
    pub(super) fn close(self: &Arc<Self>, deadline: Deadline) {
        self.closed.store(true, Ordering::Release);
        if self.line.is_used() {
            Line::close(self, deadline, LAST);
        }
        self.turns.shut(true);
        let turn = self.turns.take(deadline).or_else(|_| {
            self.turns.shut(false);
            // A command that waits for its turn finds the session closed; one that opens a connection ends at its own deadline.
            self.turns.take(Deadline::after(LAST))
        });
        match turn {
            Ok(_turn) => *self.pinned.lock() = Pinned::default(),
            Err(_) => self.gives_back.store(true, Ordering::Release),
        }
    }
}

impl Turns {
    fn new() -> Self {
        Self { now: Lock::new(Rank::Turns, Now::default()), ended: Condvar::new() }
    }

    fn take(&self, deadline: Deadline) -> Result<Turn<'_>> {
        let mut now = self.now.lock();
        while now.taken {
            if deadline.is_over() {
                let text =
                    format!("not sent: another thread uses the session (after {} ms)", deadline.elapsed().as_millis());
                return Err(Error::new(Status::Timeout, text).with_flags(flags::RETRYABLE));
            }
            now = match deadline.left() {
                Some(left) => self.ended.wait_timeout(now, left),
                None => self.ended.wait(now),
            };
        }
        now.taken = true;
        Ok(Turn(self))
    }

    /// Shuts down the connection of the running command.
    fn shut(&self, only_blocking: bool) {
        match &self.now.lock().socket {
            Some((socket, blocks)) if *blocks || !only_blocking => socket.shutdown_as(End::Closed),
            _ => {}
        }
    }
}

impl Turn<'_> {
    /// Notes which connection is in use.
    fn announce(&self, socket: Option<(Arc<Socket>, bool)>) {
        self.0.now.lock().socket = socket;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.now.lock() = Now::default();
        self.0.ended.notify_one();
    }
}

impl Pinned {
    /// Takes a connection, and selects the session's database on it.
    fn take(&mut self, mut loan: Loan, db: u32, deadline: Deadline) -> Result<()> {
        if loan.db() != Some(db) {
            let text = db.to_string();
            let select = [&b"SELECT"[..], text.as_bytes()];
            let unit =
                Unit { bytes: Bytes::Args(&select), list: None, at_most_once: false, lease: None, atomic: false };
            loan.discard();
            let reply = loaned::exchange(&mut loan, unit, deadline).map_err(|failure| failure.error)?;
            if let Some(line) = reply.error_line(0) {
                return Err(no_database(db, line).with_endpoint(loan.pool().name()));
            }
        }
        self.loan = Some(loan);
        Ok(())
    }

    /// Authenticates anew if user or password were changed; in a transaction that waits for its end. A refusal is the caller's, and leaves
    /// the connection as it was.
    fn authenticate(&mut self, router: &Router, plan: &Plan<'_>, deadline: Deadline) -> Result<()> {
        if self.auth == router.context.settings().auth || self.marks.own_user || self.marks.is_in_transaction() {
            return Ok(());
        }
        let auth = router.context.settings().auth.clone();
        let (Some(command), Some(loan)) = (auth.command(), self.loan.as_mut()) else { return Ok(()) };
        let unit = Unit { bytes: Bytes::Args(&command), list: None, at_most_once: false, lease: None, atomic: false };
        let name = loan.pool().name().to_owned();
        let refusal = match loaned::exchange(loan, unit, deadline) {
            Err(failure) => return Err(self.lose(router, plan, Failure { sent: 0, ..failure }, true)),
            Ok(reply) => reply.error_line(0).map(<[u8]>::to_vec),
        };
        let Some(line) = refusal else {
            self.auth = auth;
            return Ok(());
        };
        Err(login_refused(&name, &line).in_service(plan.name(), router.context.service.name()))
    }

    /// Asks whether the connection carries transactions, before a transaction is sent as one unit, and before the first WATCH: the
    /// question ends with DISCARD, which would forget the watched keys.
    fn prepare_transaction(&mut self, router: &Router, plan: &Plan<'_>, deadline: Deadline) -> Result<()> {
        let mut watches = false;
        plan.each_name(|name| watches |= name.eq_ignore_ascii_case(b"WATCH"));
        if !watches && !plan.is_atomic() {
            return Ok(());
        }
        if plan.is_atomic() {
            self.marks.check_atomic(true)?;
        }
        let Some(loan) = self.loan.as_mut() else { return Ok(()) };
        if loan.conn().is_none_or(|conn| conn.carries_transactions() || conn.is_broken() || conn.is_closed_by_peer()) {
            return Ok(());
        }
        if self.marks.is_in_transaction() {
            return if plan.is_atomic() { self.marks.check_atomic(false) } else { Ok(()) };
        }
        match loaned::prepare_transaction(loan, deadline) {
            Ok(()) => Ok(()),
            Err(Failure { error, .. }) if !error.server_code().is_empty() => {
                let error = error.in_service(plan.name(), router.context.service.name());
                if plan.is_atomic() { Err(error) } else { Ok(()) }
            }
            Err(failure) => Err(self.lose(router, plan, failure, true)),
        }
    }

    /// Ends a transaction between whose beginning and this command a failover was: the keys that it watches, and what it has read, were
    /// those of the former primary.
    fn check_failover(&mut self, router: &Router, plan: &Plan<'_>, failover_seq: u64) -> Result<()> {
        if !self.marks.is_in_transaction() || failover_seq == self.answered {
            return Ok(());
        }
        let name = self.loan.as_ref().map_or("", |loan| loan.pool().name()).to_owned();
        let error = taken_over(&name);
        Err(self.lose(router, plan, Failure::unsent(error), false))
    }

    /// Notes how the commands change the connection's state.
    fn note(&mut self, plan: &Plan<'_>) {
        if self.marks.note(plan) {
            self.loan.as_mut().and_then(Loan::conn).iter_mut().for_each(|conn| conn.note_transactions(false));
        }
    }

    /// What is waited for behind these commands.
    fn awaited(&self, router: &Router, plan: &Plan<'_>, wanted: (WriteSettings, u32)) -> Result<Awaited> {
        let Some(loan) = &self.loan else {
            return Err(Error::new(Status::Internal, "a session without a connection"));
        };
        self.marks.unwaited.awaited(&router.context, plan, wanted, loan.pool())
    }

    fn socket(&mut self) -> Option<Arc<Socket>> {
        self.loan.as_mut().and_then(|loan| loan.conn()).map(|conn| Arc::clone(conn.socket()))
    }

    /// `failover_seq`: read before the gate was found open.
    fn run(
        &mut self,
        router: &Router,
        plan: &Plan<'_>,
        awaited: Awaited,
        failover_seq: u64,
        deadline: Deadline,
    ) -> Result<(Reply, Arc<Pool>)> {
        let Some(loan) = &mut self.loan else {
            return Err(Error::new(Status::Internal, "a session without a connection"));
        };
        let socket = loan.conn().map(|conn| Arc::clone(conn.socket()));
        // A command on a connection that was closed while idle has certainly not run, if it is not sent.
        if loan.conn().is_none_or(|conn| conn.is_broken() || conn.is_closed_by_peer()) {
            let error = loan.conn().and_then(|conn| conn.ended_here()).unwrap_or_else(|| {
                let text = format!("{} closed the connection while it was idle", loan.pool().name());
                Error::new(Status::Io, text).with_endpoint(loan.pool().name())
            });
            return Err(self.lose(router, plan, Failure::unsent(error), true));
        }
        let blocking = socket.filter(|_| plan.blocks.is_some());
        blocking.iter().for_each(|socket| router.context.note_blocking(socket));
        let unit = Unit { lease: gate::lease_in_session(&router.context, plan), ..plan.unit(0) };
        let bytes = awaited.extended(unit, deadline)?;
        let outcome = loaned::exchange(loan, Awaited::unit(unit, bytes.as_deref()), deadline);
        let outcome = awaited.unwrap(&router.context, plan, outcome, loan.pool().name());
        let doubted = router.context.service.failover_seq() != failover_seq;
        let outcome = if doubted { judge::doubt(plan, outcome) } else { outcome };
        blocking.iter().for_each(|socket| router.context.forget_blocking(socket));
        match outcome {
            Ok(reply) => {
                let (pool, service) = (Arc::clone(loan.pool()), router.context.service.name());
                self.marks.unwaited.in_multi = awaited.is_open_after(plan, &reply);
                if let Some(text) = logged_out(&reply, &pool) {
                    // The next command logs in first.
                    self.auth = Credentials::default();
                    router.context.service.tell_refusal(pool.endpoint(), text);
                }
                let (result, demotion) = read(plan, reply, &pool, service);
                if let Some(demotion) = demotion {
                    router.doubt(&pool, &demotion);
                }
                self.answered = failover_seq;
                result.map(|reply| (reply, pool))
            }
            Err(failure) if failure.error.status() == Status::Replicas => {
                let pool = Arc::clone(loan.pool());
                self.answered = failover_seq;
                if let Some(why) = refused_wait(&failure.error) {
                    router.doubt(&pool, &why);
                }
                Err(too_few(plan, failure.error, router.context.service.name()))
            }
            // The lease ended before a byte was sent: the connection and its state are unchanged, except for what was noted of
            // EXEC.
            Err(failure) if failure.sent == 0 && failure.error.status() == Status::Fenced => {
                self.marks.changed = true;
                Err(failure.error)
            }
            Err(failure) if plan.is_ended_by_caller(&failure, deadline, Instant::now()) => {
                Err(self.lose(router, plan, Failure { error: plan.waited(failure.error), ..failure }, false))
            }
            Err(failure) => {
                let error = router.context.explain_end(plan, failure.error);
                let suspect = error.status() != Status::Closed;
                Err(self.lose(router, plan, Failure { error, ..failure }, suspect))
            }
        }
    }

    /// FAILOVER, if a failover is in progress or has happened since the last good reply.
    fn failover(&self, router: &Router) -> u32 {
        let service = &router.context.service;
        let in_failover = service.is_fenced() || service.failover_seq() != self.answered;
        if in_failover { flags::FAILOVER } else { 0 }
    }

    /// Gives up the connection, and with it the state of the session. `suspect`: the node may be the cause.
    fn lose(&mut self, router: &Router, plan: &Plan<'_>, failure: Failure, suspect: bool) -> Error {
        if let Some(mut loan) = self.loan.take() {
            if suspect {
                router.context.service.suspect(loan.pool().endpoint(), failure.error.message());
            }
            loan.discard();
        }
        let failure = Failure { error: failure.error.with_flags(self.failover(router)), ..failure };
        self.lost = Some(failure.error.clone());
        told_of_loss(plan, failure, router.context.service.name())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(loan) = &mut self.loan {
            if self.marks.is_in_transaction() || self.marks.changed {
                loan.discard();
            }
        }
    }
}

/// The error of a command after the connection was lost. Nothing was sent, and nothing will be on this session.
pub(super) fn lost(plan: &Plan<'_>, cause: &Error) -> Error {
    let status = if plan.is_exec() { Status::TxnAborted } else { Status::Io };
    let text = format!("{}: the session lost its connection: {}{}", plan.name(), cause.message(), remedy(plan));
    Error::new(status, text).with_endpoint(cause.endpoint()).with_flags(cause.flags() & flags::FAILOVER)
}

/// The error of the command with which the connection was lost.
pub(super) fn told_of_loss(plan: &Plan<'_>, failure: Failure, service: &str) -> Error {
    let maybe = failure.sent >= plan.first_len(0) && !plan.repeatable && !plan.reads && !plan.only_watches();
    let error = match plan.is_exec() && !maybe {
        true => failure.error.with_status(Status::TxnAborted),
        false => failure.error,
    };
    let error = error.in_service(format_args!("{} in a session", plan.name()), service);
    let error = error.with_note(remedy(plan)).without_flags(flags::RETRYABLE);
    if maybe { error.with_flags(flags::MAYBE_EXECUTED) } else { error }
}

/// The error of writes that were executed, and are on too few replicas. The session goes on.
pub(super) fn too_few(plan: &Plan<'_>, error: Error, service: &str) -> Error {
    error.in_service(format_args!("{} in a session", plan.name()), service)
}

/// The error of a call before which the session could not log in anew. The server's sentence may hold the user's name, and is left out.
pub(super) fn login_refused(name: &str, line: &[u8]) -> Error {
    let code = clean_line(line.split(|byte| *byte == b' ').next().unwrap_or_default());
    let text = format!("{name} refuses the changed user and password ({code}); nothing was sent");
    Error::new(Status::Auth, text).with_server_code(&code).with_endpoint(name)
}

/// The error of a transaction that was begun before a failover.
pub(super) fn taken_over(name: &str) -> Error {
    let text = format!("another primary has taken over from {name} since the transaction was begun there");
    Error::new(Status::Io, text).with_endpoint(name).with_flags(flags::FAILOVER)
}

/// What a reply means, and whether it shows that the node has lost its role.
pub(super) fn read(plan: &Plan<'_>, reply: Reply, pool: &Pool, service: &str) -> (Result<Reply>, Option<Error>) {
    if !plan.is_atomic() {
        let demotion = judge::shown_demotion(&reply);
        return (Ok(reply), demotion);
    }
    let (result, demotion) = judge::of_transaction(plan, &reply);
    let in_context = |error: Error| {
        error.with_endpoint(pool.name()).in_service(format_args!("{} in a session", plan.name()), service)
    };
    (result.map_err(in_context), demotion)
}

/// The reply, or an error if a transaction in it was not executed.
#[inline(always)]
pub(super) fn executed(
    plan: &Plan<'_>,
    service: &str,
    (reply, pool): (Reply, Arc<Pool>),
) -> Result<(Reply, Arc<Pool>)> {
    if !plan.was_aborted(&reply) {
        return Ok((reply, pool));
    }
    let text = format!(
        "{} answered null: a watched key was changed, and nothing of the transaction was executed; begin it anew",
        pool.name()
    );
    let error = Error::new(Status::TxnAborted, text).with_endpoint(pool.name()).in_service("EXEC", service);
    let error = error.with_flags(flags::RETRYABLE);
    Err(if plan.is_list() { error.with_reply(reply) } else { error })
}

/// What the caller can do about a lost connection.
fn remedy(plan: &Plan<'_>) -> &'static str {
    match plan.is_exec() {
        true => "; its WATCH and its MULTI are gone: begin the transaction anew, in a new session",
        false => "; the state of the session is gone: make a new session, and begin anew what this one had begun",
    }
}
