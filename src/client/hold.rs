//! What holds a write back, and what makes its answer doubtful: the fence, the majority, a switch (rules 5 to 8 and 18).
//!
//! Guarantees: a held call waits inside its own deadline and was surely not sent, nor is it when it may go with no time left; whoever had to
//! wait for a connection is held again; a write that was answered by a primary which was being replaced is never called a success.
//! Leaves to others: what raises the fence (topology).

use std::time::Duration;

use super::Target;
use super::core::Core;
use super::plan::Plan;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Failure, Outcome};
use crate::resp::{Kind, Reply};
use crate::time::Deadline;

/// How often a write that waits for a majority looks again, beside being woken.
const LOOK: Duration = Duration::from_millis(20);

impl Core {
    /// Waits until a call may be sent; reads always may.
    pub(super) fn hold_back(&self, plan: &Plan<'_>, deadline: Deadline) -> Result<()> {
        if plan.reads {
            return Ok(());
        }
        self.hold_at_fence(deadline)?;
        match self.settings().write.majority {
            Some(limit) => self.await_majority(limit, deadline),
            None => Ok(()),
        }
    }

    /// The same for a session: what it reads from a primary may decide what it writes (rule 7).
    pub(super) fn hold_session_back(&self, plan: &Plan<'_>, deadline: Deadline) -> Result<()> {
        if self.target != Target::Replica {
            self.hold_at_fence(deadline)?;
        }
        self.hold_back(plan, deadline)
    }

    /// Whether a write has to wait: a glance, for a call that begins.
    pub(super) fn holds_writes(&self) -> bool {
        let is_young = |limit: Duration| self.service.confirmed().is_some_and(|confirmed| confirmed.elapsed() <= limit);
        self.service.is_fenced() || self.settings().write.majority.is_some_and(|limit| !is_young(limit))
    }

    /// Once more, without waiting, for a call that has waited for a connection meanwhile.
    pub(super) fn check_held(&self, plan: &Plan<'_>) -> Result<()> {
        refuse_if(!plan.reads && self.holds_writes())
    }

    /// The same for a session.
    pub(super) fn check_session_held(&self, plan: &Plan<'_>) -> Result<()> {
        refuse_if(self.target != Target::Replica && self.service.is_fenced())?;
        self.check_held(plan)
    }

    fn hold_at_fence(&self, deadline: Deadline) -> Result<()> {
        if self.service.is_fenced() {
            self.service.await_open(deadline, || self.is_ended())?;
            if self.is_ended() {
                self.check_open()?;
            }
        }
        Ok(())
    }

    /// Rule 18: no writes while no majority of the Sentinels has named the primary for so long.
    fn await_majority(&self, limit: Duration, deadline: Deadline) -> Result<()> {
        // Of the last look that was in vain.
        let mut missed = None;
        loop {
            let age = self.service.confirmed().map(|confirmed| confirmed.elapsed());
            let confirmed = age.is_some_and(|age| age <= limit);
            let late = missed.is_some() && deadline.is_all_but_over();
            if confirmed && !late {
                return Ok(());
            }
            if late || deadline.is_over() || self.is_ended() {
                let age = if confirmed { missed.flatten() } else { age };
                let since = age.map_or("ever".to_owned(), |age| format!("for {} ms", age.as_millis()));
                let text = format!("no majority of the Sentinels has named the primary {since}: writes are refused");
                return Err(Error::new(Status::Fenced, text).with_flags(flags::RETRYABLE));
            }
            missed = Some(age);
            self.service.freshen();
            self.service.rest(deadline.left_or(LOOK), self.service.version(), || self.is_ended());
        }
    }

    /// Rule 8: a write whose answer was read after the candidate had said that it is a primary, or after a switch, is not a
    /// success. `doubts` is the number under which it was sent.
    pub(super) fn doubt_answer(&self, plan: &Plan<'_>, doubts: u64, outcome: Outcome) -> Outcome {
        if self.service.doubts() == doubts {
            return outcome;
        }
        match outcome {
            Ok(reply) if plan.reads || did_nothing(plan, &reply) => Ok(reply),
            Ok(reply) => {
                let text = "answered while another primary was taking over: the write may be lost";
                let error = Error::new(Status::Io, text).with_flags(flags::FAILOVER).with_reply(reply);
                Err(Failure { sent: usize::MAX, error })
            }
            Err(failure) if failure.error.status() == Status::Io => {
                Err(Failure { error: failure.error.with_flags(flags::FAILOVER), ..failure })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What a server refused it did not do, nor what waited until its time was over, nor a transaction that was aborted.
fn did_nothing(plan: &Plan<'_>, reply: &Reply) -> bool {
    let is_nothing = |node: u32| match reply.kind(node) {
        Kind::Error => true,
        Kind::Null => plan.pops(),
        _ => false,
    };
    match plan.is_list() {
        true => reply.children(0).all(is_nothing),
        false => is_nothing(0) || plan.was_aborted(reply),
    }
}

fn refuse_if(held: bool) -> Result<()> {
    match held {
        true => Err(Error::new(Status::Fenced, "writes are held back").with_flags(flags::RETRYABLE)),
        false => Ok(()),
    }
}
