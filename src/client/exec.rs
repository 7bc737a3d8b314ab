//! The loop around a call: route it, run it, judge the outcome, ask the Sentinels, try again; all inside one deadline.
//!
//! Guarantees: at most one thing is repeated at a time, in order; without progress there is a pause that grows, with jitter;
//! the error at the end says what was tried last, how often, and for how long.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::Core;
use super::hold::Held;
use super::judge::{Again, Verdict, is_final, join, judge};
use super::plan::Plan;
use super::route::Route;
use super::scan::{self, Trip};
use super::{CallFlags, Target};
use crate::config::RetrySettings;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Bytes, Failure, Outcome, Unit};
use crate::pool::{Loan, Pool};
use crate::resp::{Reply, Want};
use crate::sys::random;
use crate::time::Deadline;
use crate::topology::{Haste, Service};

/// A unit at which the connection has ended so often is not sent again: it is most likely the cause.
const MOST_ENDS: u32 = 3;

/// The way of an attempt.
pub(super) struct Way {
    pub(super) route: Route,
    /// How many replicas must have it.
    pub(super) replicas: u32,
    /// The number under which it was begun: another one makes its answer doubtful.
    pub(super) doubts: u64,
    /// The version of the topology by which it was chosen.
    pub(super) version: u64,
    /// Of a plan with scans.
    pub(super) trip: Option<Box<Trip>>,
}

/// Where a call stands between two attempts.
pub(super) struct Progress {
    pub(super) retry: RetrySettings,
    pub(super) deadline: Deadline,
    rounds: u32,
    /// Topology of this discovery or an earlier one, or of this version, has been found wanting.
    stale: u64,
    version: u64,
    /// The version by which the last attempt chose its node.
    routed_by: u64,
    tried: Vec<String>,
    /// Replies to a list whose rest was refused, each with how many of them stand.
    kept: Vec<(Reply, usize)>,
    pub(super) from: usize,
    /// It has been held back, by the fence or for want of a majority.
    pub(super) held: Held,
    /// How often in a row the connection ended at this unit, and in which pool: in another one it may fare better.
    ends: u32,
    ended_in: Option<Arc<Pool>>,
    /// Who refused the rest.
    refused_by: Option<Arc<Pool>>,
    /// An attempt may have run.
    maybe_executed: bool,
    /// What says best why it has not come off yet.
    told: Option<Error>,
}

impl Core {
    /// Runs a call to its end: the reply, and the node that gave it.
    pub(super) fn exec(
        &self,
        plan: &Plan<'_>,
        call: CallFlags,
        deadline: Deadline,
        retry: RetrySettings,
    ) -> Result<(Reply, Arc<Pool>)> {
        plan.check_shared()?;
        self.check_target(plan)?;
        let mut progress = Progress::new(retry, deadline);
        loop {
            let version = self.service.version();
            let error = match self.attempt(plan, call, &mut progress) {
                Ok((reply, pool)) => return Ok((progress.whole(reply), pool)),
                Err(Failed::ForGood(error)) => return self.end(plan, progress, error),
                Err(Failed::ForNow(error)) => progress.most_telling(error),
            };
            if deadline.is_over() || self.is_closed() || progress.is_out_of_retries() {
                return self.end(plan, progress, error);
            }
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            if let Some(pause) = progress.pause() {
                let pause = deadline.left_or(self.service.pause(pause));
                self.service.rest(pause, version, || self.is_closed());
            }
            if deadline.is_over() {
                return self.end(plan, progress, error);
            }
        }
    }

    /// A client for replicas carries no writes.
    pub(super) fn check_target(&self, plan: &Plan<'_>) -> Result<()> {
        match self.target {
            Target::Replica if !plan.reads => {
                let text =
                    format!("{} writes, or is not known to only read: this client reads from replicas", plan.name());
                Err(Error::new(Status::ReadOnly, text))
            }
            _ => Ok(()),
        }
    }

    /// The end of a call that did not come off: an error, or what is known of a list whose rest was refused to the end.
    pub(super) fn end(&self, plan: &Plan<'_>, mut progress: Progress, error: Error) -> Result<(Reply, Arc<Pool>)> {
        let refused = progress.from > 0 || error.status() == Status::Server;
        match progress.refused_by.take() {
            Some(pool) if refused && !progress.maybe_executed && !error.has(flags::MAYBE_EXECUTED) => {
                Ok((progress.with_refusals(), pool))
            }
            _ => Err(self.in_words(plan, &progress, error)),
        }
    }

    fn attempt(
        &self,
        plan: &Plan<'_>,
        call: CallFlags,
        progress: &mut Progress,
    ) -> std::result::Result<(Reply, Arc<Pool>), Failed> {
        let slow = plan.slow || call.has(CallFlags::SLOW);
        loop {
            let way = self.prepare(plan, call, progress, progress.deadline)?;
            let unit = plan.unit(progress.from);
            let outcome = match (way.replicas, &way.trip) {
                (0, Some(trip)) if trip.asks => match scan::asking(unit) {
                    Ok(bytes) => self.send(plan, scan::with_question(&bytes, unit), &way.route, slow, progress),
                    Err(error) => Err(Failure::unsent(error)),
                },
                (0, _) => self.send(plan, unit, &way.route, slow, progress),
                (n, _) => self.send_durably(plan, &way.route.pool, n, progress),
            };
            match outcome {
                // What came in its way while it waited for a connection is waited for as well, as long as there is time.
                Err(failure) if failure.sent == 0 && failure.error.status() == Status::Fenced => progress.held.note(),
                outcome => return self.conclude(plan, call, progress, way, outcome),
            }
        }
    }

    /// Finds the way of an attempt; waits for topology and for the fence until `patience` is over.
    pub(super) fn prepare(
        &self,
        plan: &Plan<'_>,
        call: CallFlags,
        progress: &mut Progress,
        patience: Deadline,
    ) -> std::result::Result<Way, Failed> {
        self.learn(progress.stale, progress.version, patience)?;
        // Before the route is chosen: what changes from here on makes the answer doubtful.
        let doubts = self.hold_back(plan, patience, &progress.deadline, &mut progress.held)?;
        let replicas = self.replicas_needed(plan, call)?;
        progress.routed_by = self.service.version();
        match self.route(plan, call, &progress.tried) {
            Ok(route) => {
                let scans = plan.scan.filter(|_| replicas == 0);
                let trip = scans.map(|_| self.begin_scan(&route.pool));
                Ok(Way { route, replicas, doubts, version: progress.routed_by, trip })
            }
            Err(error) => {
                // Every replica failed this call: begin anew, with fresh topology.
                progress.tried.clear();
                progress.outdate(&self.service);
                Err(Failed::from(error))
            }
        }
    }

    /// What an attempt's outcome means.
    pub(super) fn conclude(
        &self,
        plan: &Plan<'_>,
        call: CallFlags,
        progress: &mut Progress,
        way: Way,
        outcome: Outcome,
    ) -> std::result::Result<(Reply, Arc<Pool>), Failed> {
        let Way { route, doubts, version, trip, .. } = way;
        progress.routed_by = version;
        let ends = progress.ends_again(&route.pool, &outcome);
        let outcome = match trip {
            None => outcome,
            Some(trip) => self.land_scan(plan, progress.from, &route.pool, &trip, outcome)?,
        };
        let outcome = self.doubt_answer(plan, doubts, outcome);
        let deadline = progress.deadline;
        let by_caller = outcome.as_ref().is_err_and(|failure| plan.is_ended_by_caller(failure, deadline));
        let outcome = match by_caller {
            true => outcome.map_err(|failure| Failure { error: plan.waited(failure.error), ..failure }),
            false => outcome,
        };
        match judge(plan, progress.from, call, &progress.retry, outcome) {
            Verdict::Done { reply, ask } => {
                if ask {
                    self.doubt(&route.pool, "it refused a write");
                }
                Ok((reply, route.pool))
            }
            Verdict::Failed(error) => {
                if error.has(flags::MAYBE_EXECUTED) && !by_caller {
                    self.service.suspect(route.pool.endpoint(), error.message());
                } else if error.status() == Status::Replicas && !error.server_code().is_empty() {
                    self.doubt(&route.pool, error.message());
                }
                Err(Failed::ForGood(error))
            }
            Verdict::Again(again) => {
                match self.note_failure(Again { suspect: again.suspect && !by_caller, ..again }, route, call, progress)
                {
                    Failed::ForNow(error) if ends => Err(Failed::ForGood(ended_again(error))),
                    failed => Err(failed),
                }
            }
        }
    }

    /// Makes sure that the topology is newer than what was found wanting.
    pub(super) fn learn(&self, stale: u64, version: u64, deadline: Deadline) -> Result<()> {
        let serves = self.current_view().serves(self.target);
        let is_newer = || self.service.version() != version || self.service.discovered() > stale;
        if serves && (stale == 0 || is_newer()) {
            return Ok(());
        }
        if serves && self.sentinel.is_degraded() {
            self.service.poke(Haste::Lazy);
            return Ok(());
        }
        match self.service.discover_unless(stale, deadline, || self.is_closed()) {
            // Without Sentinels the last known nodes serve: whatever is opened there is asked for its role first.
            Err(error) if error.status() == Status::NoSentinel && self.current_view().serves(self.target) => Ok(()),
            other => other.map(drop),
        }
    }

    #[inline(always)]
    fn send(&self, plan: &Plan<'_>, unit: Unit<'_>, route: &Route, slow: bool, progress: &Progress) -> Outcome {
        let unit = Unit { gate: self.lease(plan), ..unit };
        let deadline = if slow { progress.deadline } else { route.share_of(progress.deadline) };
        let may_go = || self.check_held(plan, &progress.deadline, progress.held);
        if plan.blocks.is_some() {
            let loan = route.pool.loan(deadline).map_err(Failure::unsent)?;
            may_go().map_err(Failure::unsent)?;
            return self.send_blocking(loan, unit, deadline);
        }
        if progress.goes_alone() || (slow && plan.slow) {
            if let Some(loan) = route.pool.loan_for_unit(deadline) {
                may_go().map_err(Failure::unsent)?;
                return run_on(loan, unit, deadline);
            }
        }
        let slow = slow || progress.goes_alone();
        route.pool.exec_among(unit, slow, deadline, Some(self.in_flight()), &may_go)
    }

    /// Runs a unit that blocks on a connection of its own.
    fn send_blocking(&self, mut loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
        let socket = loan.conn().map(|conn| Arc::clone(conn.socket()));
        socket.iter().for_each(|socket| self.note_blocking(socket));
        let outcome = run_on(loan, unit, deadline);
        socket.iter().for_each(|socket| self.forget_blocking(socket));
        outcome
    }

    /// What follows from a failure for the next attempt.
    fn note_failure(&self, again: Again, route: Route, call: CallFlags, progress: &mut Progress) -> Failed {
        let error = match again.error.endpoint() {
            "" => again.error.with_endpoint(route.pool.name()),
            _ => again.error,
        };
        if let Some((reply, ran)) = again.kept {
            progress.from += ran;
            progress.kept.push((reply, ran));
            progress.refused_by = Some(Arc::clone(&route.pool));
        }
        if again.was_sent && call.has(CallFlags::NO_RETRY) {
            return Failed::ForGood(error);
        }
        progress.maybe_executed |= error.has(flags::MAYBE_EXECUTED);
        if again.suspect {
            match &route.reader {
                // The node itself may well be there: a cursor is lost only with the node.
                Some(_) if route.pinned && error.status() == Status::Io => {}
                Some(reader) => {
                    reader.rest(&error);
                    self.service.suspect(route.pool.endpoint(), error.message());
                    progress.tried.push(route.pool.name().to_owned());
                }
                None => {
                    match error.status() {
                        Status::Server => self.doubt(&route.pool, error.message()),
                        _ => self.service.suspect(route.pool.endpoint(), error.message()),
                    }
                    progress.outdate(&self.service);
                    // The primary that stood in for the replicas is gone as well: they are tried anew.
                    progress.tried.clear();
                }
            }
        }
        Failed::ForNow(error)
    }

    /// The node is not what it was: its connections are not used for anything new, and the Sentinels are asked.
    pub(super) fn doubt(&self, pool: &Arc<Pool>, why: &str) {
        pool.disconnect();
        self.service.suspect(pool.endpoint(), why);
        self.service.poke(Haste::Lazy);
    }

    /// Rule 34: with all Sentinels gone, and nothing left that says it is a primary, that they are gone is what has to be mended.
    pub(super) fn without_sentinels(&self, error: Error) -> Error {
        let gone = matches!(error.status(), Status::Connect | Status::Resolve | Status::Role | Status::NoPrimary);
        if !gone || error.has(flags::MAYBE_EXECUTED) {
            return error;
        }
        match self.service.last_error() {
            Some(last) if last.status() == Status::NoSentinel => error
                .with_status(Status::NoSentinel)
                .in_context("no Sentinel answers, and the last known node does not serve"),
            _ => error,
        }
    }

    /// The error as the caller gets it: what was tried, for which service, how often.
    fn in_words(&self, plan: &Plan<'_>, progress: &Progress, error: Error) -> Error {
        let error = progress.with_kept(error);
        let maybe_executed = progress.maybe_executed && !plan.repeatable;
        let error = match plan.only_scans() {
            true if is_final(&error) => error.without_flags(flags::MAYBE_EXECUTED),
            true => error.without_flags(flags::MAYBE_EXECUTED).with_flags(flags::RETRYABLE),
            false if maybe_executed => error.with_flags(flags::MAYBE_EXECUTED),
            false => error,
        };
        if error.status() == Status::Server {
            // A refusal that outlasted the deadline: the server's line stays unaltered.
            return error;
        }
        let again = match progress.rounds {
            0 => String::new(),
            rounds => format!(", {} attempts", rounds + 1),
        };
        let after = progress.deadline.elapsed().as_millis();
        self.without_sentinels(error).in_service(plan.name(), self.service.name()).with_time(after, again)
    }
}

fn ended_again(error: Error) -> Error {
    let note = format!("; the connection ended {MOST_ENDS} times at this command: it is not sent again");
    error.with_note(note).without_flags(flags::RETRYABLE)
}

/// How an attempt failed.
pub(super) enum Failed {
    ForGood(Error),
    ForNow(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if is_final(&error) { Self::ForGood(error) } else { Self::ForNow(error) }
    }
}

impl Progress {
    pub(super) fn new(retry: RetrySettings, deadline: Deadline) -> Self {
        Self {
            retry,
            deadline,
            rounds: 0,
            stale: 0,
            version: 0,
            routed_by: 0,
            tried: Vec::new(),
            kept: Vec::new(),
            from: 0,
            held: Held::default(),
            ends: 0,
            ended_in: None,
            refused_by: None,
            maybe_executed: false,
            told: None,
        }
    }

    /// Counts the ends of a connection at this unit; true when it has been tried often enough.
    fn ends_again(&mut self, pool: &Arc<Pool>, outcome: &Outcome) -> bool {
        if !outcome.as_ref().is_err_and(|failure| failure.at_head) {
            return false;
        }
        let same = self.ended_in.as_ref().is_some_and(|known| Arc::ptr_eq(known, pool));
        self.ends = if same { self.ends + 1 } else { 1 };
        self.ended_in = Some(Arc::clone(pool));
        self.ends >= MOST_ENDS
    }

    /// Whether the next attempt has a connection of its own, because it may cost others their answers.
    pub(super) fn goes_alone(&self) -> bool {
        self.ends > 0
    }

    /// The whole reply, if it came in parts.
    #[inline]
    pub(super) fn whole(&mut self, last: Reply) -> Reply {
        if self.kept.is_empty() { last } else { join(&self.kept, &last) }
    }

    /// What was known when the attempt began has been found wanting; a switch since then is news enough to try again.
    fn outdate(&mut self, service: &Service) {
        (self.stale, self.version) = (service.discovered(), self.routed_by);
    }

    /// An error, with the replies that stand in front of its own.
    fn with_kept(&self, error: Error) -> Error {
        if self.kept.is_empty() {
            return error;
        }
        let whole = join(&self.kept, error.reply().unwrap_or(&Reply::null()));
        error.with_reply(whole)
    }

    /// The replies that stand, and the refusals of the rest.
    fn with_refusals(&self) -> Reply {
        match self.kept.split_last() {
            Some(((last, _), earlier)) => join(earlier, last),
            None => Reply::null(),
        }
    }

    /// Which error to end with if nothing better comes: that no replica was fit says more than that the last of them failed, and
    /// anything says more than that the deadline came during a discovery.
    pub(super) fn most_telling(&mut self, error: Error) -> Error {
        let was_sent = error.has(flags::MAYBE_EXECUTED);
        let vague = match &self.told {
            None => false,
            Some(_) if was_sent || matches!(error.status(), Status::NoReplica | Status::Server) => false,
            Some(told) => told.status() == Status::NoReplica || error.status() == Status::Timeout,
        };
        if vague {
            return self.told.clone().unwrap_or(error);
        }
        self.told = Some(error.clone());
        error
    }

    pub(super) fn is_out_of_retries(&self) -> bool {
        self.retry.max != 0 && self.rounds >= self.retry.max
    }

    /// How long to wait before the next attempt; none before the first repetition, and none while there are other replicas.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.rounds += 1;
        if self.rounds == 1 || !self.tried.is_empty() {
            return None;
        }
        let doubled = self.retry.backoff_min.saturating_mul(1 << (self.rounds - 2).min(16));
        let pause = doubled.min(self.retry.backoff_max).mul_f64(0.5 + random::rng().f64() / 2.0);
        Some(self.deadline.left_or(pause))
    }
}

/// Sends a unit on a connection of its own and reads its replies; a connection on which something went wrong is closed.
pub(super) fn run_on(mut loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let outcome = run_on_conn(&mut loan, unit, deadline);
    if outcome.is_err() {
        loan.spoil();
    }
    outcome
}

pub(super) fn run_on_conn(loan: &mut Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let Some(conn) = loan.conn() else {
        return Err(Failure::unsent(Error::new(Status::Internal, "a loan without a connection")));
    };
    let (want, gate) = (unit.list.map_or(Want::One, Want::List), unit.gate.map(|gate| &**gate));
    let outcome = match (unit.bytes, unit.bytes.pieces()) {
        (_, Some(pieces)) => {
            conn.exchange(&mut pieces.iter().map(IoSlice::new).collect::<Vec<_>>(), want, gate, deadline)
        }
        (Bytes::Raw(raw), None) => conn.exchange(&mut [IoSlice::new(raw)], want, gate, deadline),
        (args, None) => {
            let mut encoded = Vec::new();
            args.append_to(&mut encoded).map_err(Failure::unsent)?;
            conn.exchange(&mut [IoSlice::new(&encoded)], want, gate, deadline)
        }
    };
    outcome.map_err(|failed| {
        // Nothing else is on it.
        let at_head = failed.sent > 0 && matches!(failed.error.status(), Status::Io | Status::Protocol);
        Failure { sent: failed.sent, error: failed.error, at_head }
    })
}
