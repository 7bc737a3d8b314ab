//! Blocking calls: attempts on the caller's thread, until one succeeds or the engine ends the call.
//!
//! Guarantees: the call returns at its deadline; a call whose first attempt succeeds allocates nothing here. Leaves to others: what
//! follows a failed attempt (attempt).

use std::sync::Arc;

use super::attempt::{Attempt, Facts, Next, Step};
use super::durable::{self, Need};
use super::way::{self, Way};
use super::{gate, judge, loaned};
use crate::config::RetrySettings;
use crate::error::{Error, Result, Status};
use crate::lane::{Failure, Outcome, Unit};
use crate::plan::{CallFlags, Plan};
use crate::pool::{Loan, Pool, Purpose};
use crate::resp::Reply;
use crate::route::{Context, Router, asking, with_question};
use crate::sys::random;
use crate::time::{Deadline, Instant};

/// Runs a call to its end. Returns the reply and the node that gave it.
pub(crate) fn exec(
    router: &Router,
    plan: &Plan<'_>,
    call: CallFlags,
    deadline: Deadline,
    retry: RetrySettings,
) -> Result<(Reply, Arc<Pool>)> {
    plan.check_shared()?;
    router.context.check_target(plan, call)?;
    let mut attempt = Attempt::new(retry, deadline);
    loop {
        let version = router.context.service.version();
        let error = match attempt_once(router, plan, call, &mut attempt) {
            Ok((reply, pool)) => return attempt.whole(plan, reply).map(|reply| (reply, pool)),
            Err(failed) => failed,
        };
        if let Err(error) = again(&router.context, &mut attempt, version, error) {
            return way::end(&router.context, plan, &mut attempt, error);
        }
    }
}

/// Waits before the attempt that follows a failed one, or returns the error that ends the call. `version`: that of the topology
/// when the failed attempt began.
#[cold]
pub(crate) fn again(
    context: &Context,
    attempt: &mut Attempt<Arc<Pool>>,
    version: u64,
    step: Step,
) -> std::result::Result<(), Error> {
    let error = match step {
        Step::Again(error) => error,
        Step::Over(error) => return Err(error),
        Step::Done(_) => return Ok(()),
    };
    let facts =
        Facts { now: Instant::now(), closed: context.is_closed(), cancelled: false, jitter: random::rng().f64() };
    match attempt.next(error, facts) {
        Next::Again => {}
        Next::Over(error) => return Err(error),
        Next::Wait(pause) => {
            let pause = attempt.deadline.left_or(context.service.pause(pause));
            context.count_retry();
            context.service.wait_for_change(pause, version, || context.is_closed());
            return attempt.may_begin(Instant::now());
        }
    }
    context.count_retry();
    attempt.may_begin(Instant::now())
}

/// One attempt.
#[inline]
fn attempt_once(
    router: &Router,
    plan: &Plan<'_>,
    call: CallFlags,
    attempt: &mut Attempt<Arc<Pool>>,
) -> std::result::Result<(Reply, Arc<Pool>), Step> {
    let slow = plan.slow || call.has(CallFlags::SLOW);
    loop {
        let way = way::prepare(router, plan, call, attempt, attempt.deadline)?;
        let outcome = match (way.need, &way.trip) {
            (Need::NONE, None) => send(router, plan, attempt.unit(plan), &way, slow, attempt),
            _ => send_extended(router, plan, &way, slow, attempt),
        };
        match outcome {
            Ok(reply) if way.trip.is_none() && is_done(&router.context, plan, &way, &reply) => {
                return Ok((reply, way.route.pool));
            }
            // The fence was raised while the call waited for a connection. The call waits for the fence, too, as long as there is
            // time.
            Err(failure) if failure.sent == 0 && failure.error.status() == Status::Fenced => attempt.gate_wait.note(),
            outcome => {
                return match way::conclude(router, plan, call, attempt, &way, outcome) {
                    Step::Done(reply) => Ok((reply, way.route.pool)),
                    step => Err(step),
                };
            }
        }
    }
}

/// Whether a reply ends the call without being judged.
#[inline]
fn is_done(context: &Context, plan: &Plan<'_>, way: &Way, reply: &Reply) -> bool {
    (plan.reads || context.service.failover_seq() == way.failover_seq) && judge::is_plain(plan, reply)
}

/// Sends a unit that has a question in front of it, or WAIT behind it.
#[cold]
fn send_extended(router: &Router, plan: &Plan<'_>, way: &Way, slow: bool, attempt: &Attempt<Arc<Pool>>) -> Outcome {
    let unit = attempt.unit(plan);
    match (way.need, &way.trip) {
        (Need::NONE, Some(trip)) if trip.asks => {
            let bytes = asking(unit).map_err(Failure::unsent)?;
            send(router, plan, with_question(&bytes, unit), way, slow, attempt)
        }
        (Need::NONE, _) => send(router, plan, unit, way, slow, attempt),
        (need, _) => durable::send(&router.context, plan, &way.route.pool, need, attempt),
    }
}

#[inline(always)]
fn send(
    router: &Router,
    plan: &Plan<'_>,
    unit: Unit<'_>,
    way: &Way,
    slow: bool,
    attempt: &Attempt<Arc<Pool>>,
) -> Outcome {
    let (context, route) = (&router.context, &way.route);
    let unit = Unit { lease: gate::lease(context, plan), ..unit };
    let deadline = if slow { attempt.deadline } else { route.share_of(attempt.deadline) };
    let may_go = || gate::check(context, plan, &attempt.deadline, attempt.gate_wait);
    if plan.apart {
        let loan = route.pool.loan(Purpose::Blocking, deadline).map_err(Failure::unsent)?;
        may_go().map_err(Failure::unsent)?;
        return match plan.blocks.is_some() || plan.waits {
            true => send_blocking(context, loan, unit, deadline),
            false => loaned::run(loan, unit, deadline),
        };
    }
    if attempt.goes_alone() || (slow && plan.slow) {
        if let Some(mut loan) = route.pool.loan_for_unit(deadline) {
            if unit.atomic {
                loaned::prepare_transaction(&mut loan, deadline)?;
            }
            may_go().map_err(Failure::unsent)?;
            return loaned::run(loan, unit, deadline);
        }
    }
    let slow = slow || attempt.goes_alone();
    route.pool.exec_among(unit, slow, deadline, Some(context.active()), &may_go)
}

/// Runs a unit that blocks its connection. A close can end it.
fn send_blocking(context: &Context, mut loan: Loan, unit: Unit<'_>, deadline: Deadline) -> Outcome {
    let socket = loan.conn().map(|conn| Arc::clone(conn.socket()));
    socket.iter().for_each(|socket| context.note_blocking(socket));
    let outcome = loaned::run_untimed(loan, unit, deadline);
    socket.iter().for_each(|socket| context.forget_blocking(socket));
    outcome
}
