//! The gate in front of the primary: where writes wait for the fence, the majority and the lease (rules 5 to 7 and 18).
//!
//! Guarantees: a write that waits here does so within its own deadline, and has not been sent; a call that had to wait for a
//! connection passes the gate again; a write that passes under a lease is sent only as long as the lease lasts. Leaves to others:
//! what raises the fence (topology), and an answer that a failover makes doubtful (judge).

use std::sync::Arc;
use std::time::Duration;

use super::gate_wait::{GateWait, Permit};
use crate::error::{Error, Result, Status, flags};
use crate::plan::{Plan, Target};
use crate::route::Context;
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, WriteLease};
use crate::topology::Service;

/// How often a write that waits for a majority looks again when it is not woken.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until a call may be sent, for as long as `patience` allows; reads need not wait. Returns the failover sequence that the
/// call's answer is compared with. It is read before the gate is found open, so a failover that this check missed makes the answer
/// doubtful.
#[inline(always)]
pub(crate) fn wait(
    context: &Context,
    plan: &Plan<'_>,
    patience: Deadline,
    deadline: &Deadline,
    gate_wait: &mut GateWait,
) -> Result<u64> {
    let failover_seq = read_failover_seq(context);
    if plan.reads {
        return Ok(failover_seq);
    }
    if !is_shut(context) {
        gate_wait.check(deadline)?;
        seam::pass(Seam::GatePassed, &*context.service);
        return Ok(failover_seq);
    }
    wait_shut(context, patience, deadline, gate_wait)
}

/// As [`wait`], for a write that found the gate shut.
#[cold]
fn wait_shut(context: &Context, patience: Deadline, deadline: &Deadline, gate_wait: &mut GateWait) -> Result<u64> {
    if !gate_wait.has_waited() {
        context.count_held_back();
    }
    loop {
        wait_for_fence(context, patience, gate_wait)?;
        let majority = context.settings().write.majority;
        if let Some(limit) = majority {
            wait_for_majority(context, limit, patience, deadline, gate_wait)?;
        }
        let failover_seq = read_failover_seq(context);
        if !is_shut(context) {
            gate_wait.check(deadline)?;
            seam::pass(Seam::GatePassed, &*context.service);
            return Ok(failover_seq);
        }
    }
}

/// The failover sequence, for a call that checks the fence next.
pub(crate) fn read_failover_seq(context: &Context) -> u64 {
    let failover_seq = context.service.failover_seq();
    seam::pass(Seam::FailoverSeqRead, &*context.service);
    failover_seq
}

/// As [`wait`], for a session. Its reads wait as well, because what it reads from a primary may decide what it writes (rule 7).
pub(crate) fn wait_in_session(
    context: &Context,
    plan: &Plan<'_>,
    deadline: &Deadline,
    gate_wait: &mut GateWait,
) -> Result<()> {
    if context.target != Target::Replica {
        wait_for_fence(context, *deadline, gate_wait)?;
        gate_wait.check(deadline)?;
    }
    wait(context, plan, *deadline, deadline, gate_wait).map(drop)
}

/// Whether a write has to wait.
#[inline]
pub(crate) fn is_shut(context: &Context) -> bool {
    context.service.is_fenced() || lacks_majority(context)
}

fn lacks_majority(context: &Context) -> bool {
    let is_young = |limit: Duration| context.service.confirmed().is_some_and(|confirmed| confirmed.elapsed() <= limit);
    context.settings().write.majority.is_some_and(|limit| !is_young(limit))
}

/// Checks the gate again, without waiting, for a call that has waited for a connection.
pub(crate) fn check(context: &Context, plan: &Plan<'_>, deadline: &Deadline, gate_wait: GateWait) -> Result<()> {
    if plan.reads {
        return Ok(());
    }
    refuse_if(is_shut(context))?;
    gate_wait.check(deadline)
}

/// As [`check`], for a session. Returns the failover sequence for the answer, as [`wait`] does.
pub(crate) fn check_in_session(
    context: &Context,
    plan: &Plan<'_>,
    deadline: &Deadline,
    gate_wait: GateWait,
) -> Result<u64> {
    let failover_seq = read_failover_seq(context);
    refuse_if(context.target != Target::Replica && context.service.is_fenced())?;
    gate_wait.check(deadline)?;
    check(context, plan, deadline, gate_wait)?;
    seam::pass(Seam::GatePassed, &*context.service);
    Ok(failover_seq)
}

/// The lease under which this call is sent, if writes pass on lease at the moment.
#[inline]
pub(crate) fn lease<'a>(context: &'a Context, plan: &Plan<'_>) -> Option<&'a Arc<WriteLease>> {
    if plan.reads { None } else { context.service.lease() }
}

/// As [`lease`], for a session.
pub(crate) fn lease_in_session<'a>(context: &'a Context, plan: &Plan<'_>) -> Option<&'a Arc<WriteLease>> {
    if context.target == Target::Replica { lease(context, plan) } else { context.service.lease() }
}

fn wait_for_fence(context: &Context, patience: Deadline, gate_wait: &mut GateWait) -> Result<()> {
    if context.service.is_fenced() {
        gate_wait.note();
        context.service.await_open(patience, || context.is_ended())?;
        if context.is_ended() {
            context.check_open()?;
        }
    }
    Ok(())
}

/// Rule 18: a write waits if the last time that a majority of the Sentinels named the primary is longer ago than `limit`.
fn wait_for_majority(
    context: &Context,
    limit: Duration,
    patience: Deadline,
    deadline: &Deadline,
    gate_wait: &mut GateWait,
) -> Result<()> {
    let service = &context.service;
    // The age of the confirmation when it was last found too old.
    let mut missed = None;
    loop {
        let age = service.confirmed().map(|confirmed| confirmed.elapsed());
        let confirmed = age.is_some_and(|age| age <= limit);
        let permit = gate_wait.ask(confirmed, patience, deadline);
        if permit == Permit::Go {
            return Ok(());
        }
        if permit == Permit::Refuse || context.is_ended() {
            return Err(no_majority(service, if confirmed { missed.flatten() } else { age }));
        }
        missed = Some(age);
        service.freshen();
        service.wait_for_change(patience.left_or(LOOK), service.version(), || context.is_ended());
    }
}

/// The error of a write that no majority of the Sentinels has let through. `age`: how long ago one named the primary.
#[cold]
fn no_majority(service: &Service, age: Option<Duration>) -> Error {
    let since = age.map_or("yet".to_owned(), |age| format!("for {} ms", age.as_millis()));
    let sentinels = service.snapshot();
    let (tilted, all) = (sentinels.sentinels.iter().filter(|view| view.tilt).count(), sentinels.sentinels.len());
    let remedy = match tilted {
        0 => "try again when they are reachable".to_owned(),
        _ => format!(
            "{tilted} of {all} Sentinels are in TILT mode, in which their word does not count: it ends half a minute after they \
             run normally again, try again then"
        ),
    };
    let text = format!(
        "no majority of the Sentinels has named the primary {since}, as the option write.majority_ms asks: nothing was sent; {remedy}"
    );
    let error = match service.split_view() {
        Some(views) => Error::new(Status::SplitView, format!("{text}; they name {views}")),
        None => Error::new(Status::Fenced, text),
    };
    error.with_flags(flags::RETRYABLE)
}

fn refuse_if(is_shut: bool) -> Result<()> {
    match is_shut {
        true => Err(Error::new(Status::Fenced, "writes are held back").with_flags(flags::RETRYABLE)),
        false => Ok(()),
    }
}
