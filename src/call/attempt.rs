//! The retry engine: what follows each attempt of a call (rules 10 to 15). Pure: no clock, no randomness, no socket.
//!
//! A blocking call sleeps as the engine says, a submitted call waits in its queue, a session takes its connection by it. Each
//! attempt goes through [`Attempt::may_begin`], is sent, and is judged by [`Attempt::conclude`]; [`Attempt::next`] then says what
//! follows.
//!
//! Guarantees: what may have run is sent again only if it only reads or the caller said IDEMPOTENT; nothing is sent after the
//! deadline; the pauses between attempts grow as long as none succeeds; the error at the end is the most informative one. A call
//! whose first attempt succeeds allocates nothing here. Leaves to others: waiting, routing, sending, and acting on what an attempt
//! shows about a node ([`Effect`]).

use std::sync::Arc;
use std::time::Duration;

use super::gate_wait::GateWait;
use super::judge::{self, Again, Verdict, is_final, join};
use crate::config::RetrySettings;
use crate::error::{Error, Status, flags};
use crate::lane::{Failure, Outcome, Unit};
use crate::plan::{CallFlags, Plan, Stretch};
use crate::pool::Pool;
use crate::resp::Reply;
use crate::time::{Deadline, Instant};

/// A unit at which the connection has ended this often is not sent again: most likely it is the cause.
const MOST_ENDS: u32 = 3;
/// A pause is doubled at most this often.
const MOST_DOUBLED: u32 = 16;

/// The identity of a node, which is all that the engine needs of it.
pub(crate) trait NodeId: Clone {
    fn name(&self) -> &str;
    fn is(&self, other: &Self) -> bool;
}

impl NodeId for Arc<Pool> {
    fn name(&self) -> &str {
        Pool::name(self)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

/// Where a call stands between two attempts.
pub(crate) struct Attempt<N> {
    pub(crate) retry: RetrySettings,
    pub(crate) deadline: Deadline,
    /// Whether it has had to wait at the gate.
    pub(crate) gate_wait: GateWait,
    /// `None` before the first failure.
    history: Option<Box<History<N>>>,
}

/// What is known from earlier attempts.
struct History<N> {
    rounds: u32,
    /// The topology was found outdated: that of this discovery or an earlier one, or of this version.
    stale: u64,
    version: u64,
    /// The replicas at which an attempt failed.
    tried: Vec<String>,
    /// Replies to a list of which the rest was refused, each with the number of its first replies that are final.
    kept: Vec<(Reply, usize)>,
    /// What is sent again.
    sends: Stretch,
    /// The next attempt follows at once, because the server only lacks a script.
    at_once: bool,
    /// How often in a row the connection ended at this unit, and on which node: another node may be able to answer it.
    ends: u32,
    ended_at: Option<N>,
    /// The node that refused the rest of the list.
    refused_by: Option<N>,
    /// An attempt may have run.
    maybe_executed: bool,
    /// The most informative error so far.
    telling: Option<Error>,
}

/// The node that an attempt was made on, and the state of the topology at its end.
pub(crate) struct Leg<'a, N> {
    pub(crate) node: &'a N,
    /// The node is a replica; with `pinned` no other node will do.
    pub(crate) replica: bool,
    pub(crate) pinned: bool,
    /// The failover sequence has changed since the attempt began.
    pub(crate) doubted: bool,
    /// The version of the topology by which the node was chosen.
    pub(crate) version: u64,
    /// The number of the last discovery.
    pub(crate) discovered: u64,
    /// When it ended.
    pub(crate) now: Instant,
}

/// What an attempt ended with.
#[derive(Debug)]
pub(crate) enum Step {
    /// The call is over, with this reply.
    Done(Reply),
    /// The call is over, with this error.
    Over(Error),
    /// It may be tried again, unless this is the last error.
    Again(Error),
}

/// What has to be reported about the node.
#[derive(Debug)]
pub(crate) enum Effect {
    /// It has lost its role: its connections serve nothing new, and the Sentinels are asked.
    Doubt(Error),
    /// It did not answer as it should.
    Suspect(String),
    /// It is a replica that failed: others come first for a while.
    CoolDown(Error),
}

/// The caller's situation when an attempt has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    /// The client is being closed.
    pub(crate) closed: bool,
    pub(crate) cancelled: bool,
    /// A random number from 0 to 1, so that the pauses of many calls do not end together.
    pub(crate) jitter: f64,
}

/// What follows a failed attempt.
#[derive(Debug)]
pub(crate) enum Next {
    /// Another attempt, now.
    Again,
    /// Another attempt after this pause, or after the node's own pause if it has one, or as soon as the topology has changed.
    Wait(Duration),
    /// No other attempt.
    Over(Error),
}

/// The end of a call that did not succeed.
#[derive(Debug)]
pub(crate) enum End<N> {
    /// The final replies to a list and the refusals of its rest, which this node gave.
    Refused(Reply, N),
    Failed(Error),
}

impl From<Error> for Step {
    fn from(error: Error) -> Self {
        if is_final(&error) { Self::Over(error) } else { Self::Again(error) }
    }
}

impl<N> Default for History<N> {
    fn default() -> Self {
        Self {
            rounds: 0,
            stale: 0,
            version: 0,
            tried: Vec::new(),
            kept: Vec::new(),
            sends: Stretch::default(),
            at_once: false,
            ends: 0,
            ended_at: None,
            refused_by: None,
            maybe_executed: false,
            telling: None,
        }
    }
}

impl<N: NodeId> Attempt<N> {
    #[inline]
    pub(crate) fn new(retry: RetrySettings, deadline: Deadline) -> Self {
        Self { retry, deadline, gate_wait: GateWait::default(), history: None }
    }

    fn history(&mut self) -> &mut History<N> {
        self.history.get_or_insert_default()
    }

    /// What of the plan is sent.
    #[inline]
    fn sends(&self) -> Stretch {
        self.history.as_ref().map_or(Stretch::default(), |history| history.sends)
    }

    /// Whether the last command is sent by the body of its script, because a server did not know the hash.
    pub(crate) fn sends_by_body(&self) -> bool {
        self.sends().by_body
    }

    /// The first command to send.
    #[inline]
    pub(crate) fn from(&self) -> usize {
        self.sends().from
    }

    /// The unit to send.
    #[inline]
    pub(crate) fn unit<'a>(&self, plan: &'a Plan<'_>) -> Unit<'a> {
        plan.unit_of(self.sends())
    }

    /// The replicas at which an attempt failed.
    #[inline]
    pub(crate) fn tried(&self) -> &[String] {
        self.history.as_ref().map_or(&[], |history| &history.tried)
    }

    /// The topology that was found outdated: the number of its discovery (0: none was), and its version.
    #[inline]
    pub(crate) fn wanting(&self) -> (u64, u64) {
        self.history.as_ref().map_or((0, 0), |history| (history.stale, history.version))
    }

    /// Whether the next attempt gets a connection of its own, because it may end the connection and cost other calls their answers.
    #[inline]
    pub(crate) fn goes_alone(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.ends > 0)
    }

    /// How many attempts were made before this one.
    pub(crate) fn rounds(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.rounds)
    }

    /// Whether any attempt has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.history.is_some()
    }

    /// Whether another attempt may begin. An error if the pause before it took the rest of the time.
    pub(crate) fn may_begin(&mut self, now: Instant) -> Result<(), Error> {
        let late = self.deadline.end().is_some_and(|end| now >= end);
        match &self.history {
            Some(history) if late && history.rounds > 0 => Err(history.telling.clone().unwrap_or_else(out_of_time)),
            _ => Ok(()),
        }
    }

    /// No node was found for the call. When no untried replica is left, the next attempt begins with fresh topology.
    pub(crate) fn unrouted(&mut self, version: u64, discovered: u64) {
        let history = self.history();
        history.tried.clear();
        (history.stale, history.version) = (discovered, version);
    }

    /// What an attempt's outcome means.
    pub(crate) fn conclude(
        &mut self,
        plan: &Plan<'_>,
        call: CallFlags,
        leg: &Leg<'_, N>,
        outcome: Outcome,
    ) -> (Step, Option<Effect>) {
        let ended_often = self.note_end(leg.node, &outcome);
        let outcome = if leg.doubted { judge::doubt(plan, outcome) } else { outcome };
        let by_caller = outcome.as_ref().is_err_and(|failure| plan.is_ended_by_caller(failure, self.deadline, leg.now));
        let outcome = match by_caller {
            true => outcome.map_err(|failure| Failure { error: plan.waited(failure.error), ..failure }),
            false => outcome,
        };
        match judge::judge(plan, self.sends(), call, &self.retry, outcome) {
            Verdict::Done { reply, demotion } => (Step::Done(reply), demotion.map(Effect::Doubt)),
            Verdict::Failed(error) => {
                let effect = effect_of_end(&error, by_caller);
                (Step::Over(error), effect)
            }
            Verdict::Refused { error, demotion } => {
                let error = if error.endpoint().is_empty() { error.with_endpoint(leg.node.name()) } else { error };
                (Step::Over(error), demotion.map(Effect::Doubt))
            }
            Verdict::Again(again) => {
                let again = Again { suspect: again.suspect && !by_caller, ..again };
                match self.note_failure(again, leg, call) {
                    (Step::Again(error), effect) if ended_often => (Step::Over(ended_again(error)), effect),
                    noted => noted,
                }
            }
        }
    }

    /// Counts how often the connection ended at this unit. True when that has happened often enough.
    fn note_end(&mut self, node: &N, outcome: &Outcome) -> bool {
        if !outcome.as_ref().is_err_and(|failure| failure.at_head) {
            return false;
        }
        let history = self.history();
        let same = history.ended_at.as_ref().is_some_and(|known| known.is(node));
        history.ends = if same { history.ends + 1 } else { 1 };
        history.ended_at = Some(node.clone());
        history.ends >= MOST_ENDS
    }

    /// Notes what a failure means for the next attempt.
    fn note_failure(&mut self, again: Again, leg: &Leg<'_, N>, call: CallFlags) -> (Step, Option<Effect>) {
        let error = match again.error.endpoint() {
            "" => again.error.with_endpoint(leg.node.name()),
            _ => again.error,
        };
        let history = self.history();
        (history.sends.by_body, history.at_once) = (history.sends.by_body || again.by_body, again.by_body);
        if let Some((reply, ran)) = again.kept {
            history.sends.from += ran;
            history.kept.push((reply, ran));
            history.refused_by = Some(leg.node.clone());
        }
        if again.was_sent && call.has(CallFlags::NO_RETRY) {
            // The next call must not meet the same node.
            let demoted = again.suspect && !leg.replica && error.status() == Status::Server;
            return (Step::Over(error.clone()), demoted.then_some(Effect::Doubt(error)));
        }
        history.maybe_executed |= error.has(flags::MAYBE_EXECUTED);
        if !again.suspect {
            return (Step::Again(error), None);
        }
        let effect = match leg.replica {
            // The node may still be there, and a cursor is lost only together with its node.
            true if leg.pinned && error.status() == Status::Io => None,
            true => {
                history.tried.push(leg.node.name().to_owned());
                Some(Effect::CoolDown(error.clone()))
            }
            false => {
                (history.stale, history.version) = (leg.discovered, leg.version);
                // The primary that was read in place of the replicas has failed as well: the replicas are tried again.
                history.tried.clear();
                Some(match error.status() {
                    Status::Server => Effect::Doubt(error.clone()),
                    _ => Effect::Suspect(error.message().to_owned()),
                })
            }
        };
        (Step::Again(error), effect)
    }

    /// What follows an attempt that failed with this error, which is not final.
    pub(crate) fn next(&mut self, error: Error, facts: Facts) -> Next {
        let (retry, end) = (self.retry, self.deadline.end());
        let history = self.history();
        let may_go_on = !facts.cancelled && !facts.closed && end.is_none_or(|end| facts.now < end);
        // Nothing has failed: the server asks for the body of a script.
        if std::mem::take(&mut history.at_once) && may_go_on {
            return Next::Again;
        }
        let error = history.most_telling(error);
        if facts.cancelled {
            return Next::Over(error.with_status(Status::Cancelled).without_flags(flags::RETRYABLE));
        }
        let out_of_retries = retry.max != 0 && history.rounds >= retry.max;
        if facts.closed || out_of_retries || end.is_some_and(|end| facts.now >= end) {
            return Next::Over(error);
        }
        history.rounds += 1;
        // Another replica is tried without a pause.
        if !history.tried.is_empty() {
            return Next::Again;
        }
        // The first repetition follows without a pause of its own; the node may have a pause.
        if history.rounds == 1 {
            return Next::Wait(Duration::ZERO);
        }
        let doubled = retry.backoff_min.saturating_mul(1 << (history.rounds - 2).min(MOST_DOUBLED));
        let pause = doubled.min(retry.backoff_max).mul_f64(0.5 + facts.jitter / 2.0);
        Next::Wait(end.map_or(pause, |end| pause.min(end.saturating_duration_since(facts.now))))
    }

    /// The error to end with, when this is the last one.
    pub(crate) fn most_telling(&mut self, error: Error) -> Error {
        self.history().most_telling(error)
    }

    /// Ends a call with this error. If the server has refused the rest of a list to the end, the result is what is known of the
    /// list.
    pub(crate) fn end(&mut self, plan: &Plan<'_>, error: Error) -> End<N> {
        let Some(history) = self.history.as_mut() else { return End::Failed(as_seen(plan, error, false)) };
        let refused = history.sends.from > 0 || error.status() == Status::Server;
        let known = !history.maybe_executed && !error.has(flags::MAYBE_EXECUTED);
        match history.refused_by.take() {
            Some(node) if refused && known => match history.with_refusals() {
                Ok(reply) => End::Refused(reply, node),
                Err(error) => End::Failed(as_seen(plan, error, history.sends.from > 0)),
            },
            _ => {
                let maybe_executed = history.maybe_executed;
                End::Failed(as_seen(plan, history.with_kept(error), maybe_executed))
            }
        }
    }

    /// The whole reply, which may have come in parts. If there is no memory for it, the error says of a write that it was executed.
    #[inline(always)]
    pub(crate) fn whole(&self, plan: &Plan<'_>, last: Reply) -> Result<Reply, Error> {
        match &self.history {
            Some(history) if !history.kept.is_empty() => join(&history.kept, &last).map_err(|error| match plan.reads {
                true => error,
                false => error.with_flags(flags::MAYBE_EXECUTED),
            }),
            _ => Ok(last),
        }
    }
}

impl<N> History<N> {
    /// Adds the final replies of earlier attempts to an error.
    fn with_kept(&self, error: Error) -> Error {
        if self.kept.is_empty() {
            return error;
        }
        // Without memory for the replies the error stands alone.
        match join(&self.kept, error.reply().unwrap_or(&Reply::null())) {
            Ok(whole) => error.with_reply(whole),
            Err(_) => error,
        }
    }

    /// The final replies, and the refusals of the rest.
    fn with_refusals(&self) -> Result<Reply, Error> {
        match self.kept.split_last() {
            Some(((last, _), earlier)) => join(earlier, last),
            None => Ok(Reply::null()),
        }
    }

    /// Chooses between this error and the one kept so far. "No fit replica" says more than the failure of the last replica, and any
    /// error says more than a deadline that came during a discovery, or than a connection that the library closed.
    fn most_telling(&mut self, error: Error) -> Error {
        let was_sent = error.has(flags::MAYBE_EXECUTED);
        let vague = match &self.telling {
            None => false,
            Some(_) if was_sent || matches!(error.status(), Status::NoReplica | Status::Server) => false,
            Some(telling) if telling.is_unused() => false,
            Some(telling) => {
                telling.status() == Status::NoReplica || error.status() == Status::Timeout || error.is_unused()
            }
        };
        if vague {
            return self.telling.clone().unwrap_or(error);
        }
        self.telling = Some(error.clone());
        error
    }
}

/// What the last error of a call shows about the node.
fn effect_of_end(error: &Error, by_caller: bool) -> Option<Effect> {
    if error.has(flags::MAYBE_EXECUTED) {
        return (!by_caller).then(|| Effect::Suspect(error.message().to_owned()));
    }
    refused_wait(error).map(Effect::Doubt)
}

/// The doubt about a node that has refused a WAIT because of its role.
pub(crate) fn refused_wait(error: &Error) -> Option<Error> {
    // A server without WAITAOF, or without an append-only file, is a primary all the same.
    let is_role = error.server_code() != "ERR" || error.message().contains("replica instances");
    let refused_wait = error.status() == Status::Replicas && !error.server_code().is_empty() && is_role;
    refused_wait.then(|| Error::new(Status::Role, error.message()).with_flags(flags::RETRYABLE))
}

/// Sets the flags that tell the caller whether the call may have run, and whether to try again.
fn as_seen(plan: &Plan<'_>, error: Error, maybe_executed: bool) -> Error {
    match plan.only_scans() {
        true if is_final(&error) => error.without_flags(flags::MAYBE_EXECUTED),
        true => error.without_flags(flags::MAYBE_EXECUTED).with_flags(flags::RETRYABLE),
        false if maybe_executed && !plan.repeatable => error.with_flags(flags::MAYBE_EXECUTED),
        false => error,
    }
}

fn ended_again(error: Error) -> Error {
    let note = format!("; the connection ended {MOST_ENDS} times at this command: it is not sent again");
    error.with_note(note).without_flags(flags::RETRYABLE)
}

fn out_of_time() -> Error {
    Error::new(Status::Timeout, "no time was left for an attempt").with_flags(flags::RETRYABLE)
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
