//! The way of an attempt: through the gate and over the route to its outcome, for blocking and for submitted calls.
//!
//! Guarantees: the failover sequence is read before the gate is passed, and the route is chosen after that; what an attempt shows
//! about a node is reported. Leaves to others: what follows (attempt), and sending (blocking, submit).

use std::sync::Arc;

use super::attempt::{Attempt, Effect, End, Leg, Step};
use super::durable::{self, Need};
use super::gate;
use crate::error::{Error, Result, Status, flags};
use crate::lane::Outcome;
use crate::meter::Deed;
use crate::plan::{CallFlags, Plan};
use crate::pool::Pool;
use crate::resp::Reply;
use crate::route::{Context, Landed, Route, Router, Trip};
use crate::time::{Deadline, Instant};

/// The way of an attempt.
pub(crate) struct Way {
    pub(crate) route: Route,
    /// Which servers must have the write.
    pub(crate) need: Need,
    /// The failover sequence when the attempt began. If it has changed by the end, the answer is doubtful.
    pub(crate) failover_seq: u64,
    /// The version of the topology by which the node was chosen.
    pub(crate) version: u64,
    /// Set for a plan with scans.
    pub(crate) trip: Option<Box<Trip>>,
}

/// Finds the way of an attempt. Waits for the topology and at the gate until `patience` is over.
#[inline(always)]
pub(crate) fn prepare(
    router: &Router,
    plan: &Plan<'_>,
    call: CallFlags,
    attempt: &mut Attempt<Arc<Pool>>,
    patience: Deadline,
) -> std::result::Result<Way, Step> {
    let context = &router.context;
    let (stale, version) = attempt.wanting();
    let seen = router.ensure_topology(stale, version, patience)?;
    // Before the route is chosen: any change from here on makes the answer doubtful.
    let failover_seq = gate::wait(context, plan, patience, &attempt.deadline, &mut attempt.gate_wait)?;
    let need = durable::needed(context, plan, call)?;
    let version = context.service.version();
    match router.route(seen, plan, call, attempt.tried()) {
        Ok(route) => {
            let scans = plan.scan.filter(|_| need == Need::NONE);
            let trip = scans.map(|_| router.begin_scan(&route.pool));
            Ok(Way { route, need, failover_seq, version, trip })
        }
        Err(error) => {
            attempt.unrouted(version, context.service.discovered());
            Err(Step::from(error))
        }
    }
}

/// Judges an attempt's outcome, and reports what it shows about the node.
pub(crate) fn conclude(
    router: &Router,
    plan: &Plan<'_>,
    call: CallFlags,
    attempt: &mut Attempt<Arc<Pool>>,
    way: &Way,
    outcome: Outcome,
) -> Step {
    let outcome = match &way.trip {
        None => outcome,
        Some(trip) => match router.land_scan(plan, attempt.from(), &way.route.pool, trip, outcome) {
            Landed::Outcome(outcome) => outcome,
            Landed::Again(error) => return Step::Again(error),
            Landed::Over(error) => return Step::Over(error),
        },
    };
    let service = &router.context.service;
    tell_refusal(router, &way.route.pool, &outcome);
    let leg = Leg {
        node: &way.route.pool,
        replica: way.route.replica.is_some(),
        pinned: way.route.pinned,
        doubted: service.failover_seq() != way.failover_seq,
        version: way.version,
        discovered: service.discovered(),
        now: Instant::now(),
    };
    let was_by_body = attempt.sends_by_body();
    let (step, effect) = attempt.conclude(plan, call, &leg, outcome);
    if attempt.sends_by_body() && !was_by_body {
        router.context.count(Deed::ScriptHealed, 1);
    }
    if let Some(effect) = effect {
        apply(router, &way.route, effect);
    }
    step
}

/// Tells the program that a node refuses its user or password. A connection that the node had accepted is replaced, because the next one
/// authenticates with what is set now.
fn tell_refusal(router: &Router, pool: &Pool, outcome: &Outcome) {
    let text = match outcome {
        Err(failure) if failure.error.status() == Status::Auth => failure.error.message().to_owned(),
        Ok(reply) => {
            let Some(text) = logged_out(reply, pool) else { return };
            pool.disconnect();
            text
        }
        Err(_) => return,
    };
    router.context.service.tell_refusal(pool.endpoint(), text);
}

/// What is to be told of a reply which shows that a connection is not authenticated any more: a token has expired, or its user was reset.
pub(crate) fn logged_out(reply: &Reply, pool: &Pool) -> Option<String> {
    is_logged_out(reply).then(|| format!("{} answered NOAUTH on a connection that it had accepted", pool.name()))
}

/// Whether a reply shows that a connection is not authenticated any more.
pub(crate) fn is_logged_out(reply: &Reply) -> bool {
    let first = reply.child(0, 0).unwrap_or(0);
    reply.error_line(first).is_some_and(|line| line.starts_with(b"NOAUTH"))
}

/// Reports what an attempt has shown about a node.
pub(crate) fn apply(router: &Router, route: &Route, effect: Effect) {
    let (pool, service) = (&route.pool, &router.context.service);
    match effect {
        Effect::Doubt(why) => router.doubt(pool, &why),
        Effect::Suspect(why) => service.suspect(pool.endpoint(), &why),
        Effect::CoolDown(error) => {
            route.replica.iter().for_each(|replica| replica.cool_down(&error));
            service.suspect(pool.endpoint(), error.message());
        }
    }
}

/// The result of a call that did not succeed, as its caller gets it: the error says what was tried, for which service, how often,
/// and for how long.
pub(crate) fn end(
    context: &Context,
    plan: &Plan<'_>,
    attempt: &mut Attempt<Arc<Pool>>,
    error: Error,
) -> Result<(Reply, Arc<Pool>)> {
    let error = match attempt.end(plan, context.explain_end(plan, error)) {
        End::Refused(reply, node) => return Ok((reply, node)),
        // A refusal until the deadline: the server's line stays unaltered. The refusal of a handshake is reported with what was
        // tried.
        End::Failed(error) if error.is_server_line() => return Err(error),
        End::Failed(error) => error,
    };
    let again = match attempt.rounds() {
        0 => String::new(),
        rounds => format!(", {} attempts", rounds + 1),
    };
    let after = attempt.deadline.elapsed().as_millis();
    Err(without_sentinels(context, error).in_service(plan.name(), context.service.name()).with_time(after, again))
}

/// Rule 34: when no Sentinel answers and no known node is a primary, the error names the Sentinels, because they are what has to be
/// repaired. On a handle that has none, it says that no other primary is looked for.
pub(crate) fn without_sentinels(context: &Context, error: Error) -> Error {
    let error = context.service.source().explain(error);
    let gone = matches!(error.status(), Status::Connect | Status::Resolve | Status::Role | Status::NoPrimary);
    if !gone || error.has(flags::MAYBE_EXECUTED) {
        return error;
    }
    match context.service.last_error() {
        Some(last) if last.status() == Status::NoSentinel => {
            let silent = match context.service.hears_strangers() {
                true => {
                    "no Sentinel of this deployment answers, those that answer belong to another one and are not believed"
                }
                false => "no Sentinel answers",
            };
            error
                .with_status(Status::NoSentinel)
                .in_context(format_args!("{silent}, and the last known node does not serve"))
        }
        _ => error,
    }
}
