//! What holds a write back, and what makes its answer doubtful: the fence, the majority, a switch (rules 5 to 8 and 18).
//!
//! Guarantees: a held call waits inside its own deadline and was surely not sent, nor is it when it may go with no time left; whoever had to
//! wait for a connection is held again; while writes pass on lease, whoever hands bytes to the kernel looks at the clock before; a write that was answered by a primary which was being replaced is never called a success.
//! Leaves to others: what raises the fence (topology).

use std::sync::Arc;
use std::time::Duration;

use super::Target;
use super::core::Core;
use super::plan::Plan;
use crate::error::{Error, Result, Status, flags};
use crate::lane::{Failure, Outcome};
use crate::resp::{Kind, Reply};
use crate::sys::seam::{self, Seam};
use crate::time::{Deadline, Gate};

/// How often a write that waits for a majority looks again, beside being woken.
const LOOK: Duration = Duration::from_millis(20);

/// Whether a call has been held back. Such a call is not sent any more once its time is over, whatever has come by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held(bool);

/// What follows for a call that asks whether it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    Wait,
    Refuse,
}

impl Held {
    /// The call has been held back.
    pub(super) fn note(&mut self) {
        self.0 = true;
    }

    /// Whether there is still time to send it, before the call has to be over.
    pub(super) fn check(self, deadline: &Deadline) -> Result<()> {
        match self.0 && deadline.is_all_but_over() {
            true => {
                let text = "held back until no time was left: it was not sent";
                Err(Error::new(Status::Fenced, text).with_flags(flags::RETRYABLE))
            }
            false => Ok(()),
        }
    }

    /// `open`: nothing holds it back at this moment. `patience`: how long it may wait here.
    fn step(&mut self, open: bool, patience: Deadline, deadline: &Deadline) -> Step {
        if self.check(deadline).is_err() || (!open && patience.is_over()) {
            return Step::Refuse;
        }
        self.0 |= !open;
        if open { Step::Go } else { Step::Wait }
    }
}

impl Core {
    /// Waits until a call may be sent, as long as `patience` lasts; reads always may. Gives the number of doubts for its answer, read before
    /// the look that found nothing to hold it back: a failover that this look missed makes the answer doubtful.
    pub(super) fn hold_back(
        &self,
        plan: &Plan<'_>,
        patience: Deadline,
        deadline: &Deadline,
        held: &mut Held,
    ) -> Result<u64> {
        loop {
            let doubts = self.read_doubts();
            if plan.reads {
                return Ok(doubts);
            }
            if !self.holds_writes() {
                held.check(deadline)?;
                seam::pass(Seam::NotHeld, &*self.service);
                return Ok(doubts);
            }
            self.hold_at_fence(patience, held)?;
            if let Some(limit) = self.settings().write.majority {
                self.await_majority(limit, patience, deadline, held)?;
            }
        }
    }

    /// The number of doubts, for a call that looks at the fence next.
    pub(super) fn read_doubts(&self) -> u64 {
        let doubts = self.service.doubts();
        seam::pass(Seam::DoubtsRead, &*self.service);
        doubts
    }

    /// The same for a session: what it reads from a primary may decide what it writes (rule 7).
    pub(super) fn hold_session_back(&self, plan: &Plan<'_>, deadline: &Deadline, held: &mut Held) -> Result<()> {
        if self.target != Target::Replica {
            self.hold_at_fence(*deadline, held)?;
            held.check(deadline)?;
        }
        self.hold_back(plan, *deadline, deadline, held).map(drop)
    }

    /// Whether a write has to wait: a glance, for a call that begins.
    pub(super) fn holds_writes(&self) -> bool {
        let is_young = |limit: Duration| self.service.confirmed().is_some_and(|confirmed| confirmed.elapsed() <= limit);
        self.service.is_fenced() || self.settings().write.majority.is_some_and(|limit| !is_young(limit))
    }

    /// Once more, without waiting, for a call that has waited for a connection meanwhile.
    pub(super) fn check_held(&self, plan: &Plan<'_>, deadline: &Deadline, held: Held) -> Result<()> {
        if plan.reads {
            return Ok(());
        }
        refuse_if(self.holds_writes())?;
        held.check(deadline)
    }

    /// The same for a session; gives the number of doubts for the answer, as [`Core::hold_back`].
    pub(super) fn check_session_held(&self, plan: &Plan<'_>, deadline: &Deadline, held: Held) -> Result<u64> {
        let doubts = self.read_doubts();
        refuse_if(self.target != Target::Replica && self.service.is_fenced())?;
        held.check(deadline)?;
        self.check_held(plan, deadline, held)?;
        seam::pass(Seam::NotHeld, &*self.service);
        Ok(doubts)
    }

    /// What this call may be sent by, while writes pass on lease.
    pub(super) fn lease(&self, plan: &Plan<'_>) -> Option<&Arc<Gate>> {
        if plan.reads { None } else { self.service.lease() }
    }

    /// The same for a session.
    pub(super) fn session_lease(&self, plan: &Plan<'_>) -> Option<&Arc<Gate>> {
        if self.target == Target::Replica { self.lease(plan) } else { self.service.lease() }
    }

    fn hold_at_fence(&self, patience: Deadline, held: &mut Held) -> Result<()> {
        if self.service.is_fenced() {
            held.note();
            self.service.await_open(patience, || self.is_ended())?;
            if self.is_ended() {
                self.check_open()?;
            }
        }
        Ok(())
    }

    /// Rule 18: no writes while no majority of the Sentinels has named the primary for so long.
    fn await_majority(&self, limit: Duration, patience: Deadline, deadline: &Deadline, held: &mut Held) -> Result<()> {
        // Of the last look that was in vain.
        let mut missed = None;
        loop {
            let age = self.service.confirmed().map(|confirmed| confirmed.elapsed());
            let confirmed = age.is_some_and(|age| age <= limit);
            let step = held.step(confirmed, patience, deadline);
            if step == Step::Go {
                return Ok(());
            }
            if step == Step::Refuse || self.is_ended() {
                let age = if confirmed { missed.flatten() } else { age };
                let since = age.map_or("ever".to_owned(), |age| format!("for {} ms", age.as_millis()));
                let text = format!("no majority of the Sentinels has named the primary {since}: writes are refused");
                let error = match self.service.split_view() {
                    Some(views) => Error::new(Status::SplitView, format!("{text}; they name {views}")),
                    None => Error::new(Status::Fenced, text),
                };
                return Err(error.with_flags(flags::RETRYABLE));
            }
            missed = Some(age);
            self.service.freshen();
            self.service.rest(patience.left_or(LOOK), self.service.version(), || self.is_ended());
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
                Err(Failure::new(usize::MAX, error))
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

pub(super) fn refuse_if(held: bool) -> Result<()> {
    match held {
        true => Err(Error::new(Status::Fenced, "writes are held back").with_flags(flags::RETRYABLE)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows with so much time left, and whether it counts as held from then on.
    fn step(was: bool, open: bool, left: Option<Duration>) -> (Step, bool) {
        let deadline = left.map_or(Deadline::never(), Deadline::after);
        let mut held = Held(was);
        (held.step(open, deadline, &deadline), held.0)
    }

    #[test]
    fn rule_18_what_was_held_goes_only_while_there_is_time_for_an_answer() {
        let (plenty, none) = (Some(Duration::from_secs(9)), Some(Duration::ZERO));
        let little = Some(Duration::from_micros(900));
        // Nothing held it back: how much time it has is its own affair.
        for left in [None, plenty, little, none] {
            assert_eq!(step(false, true, left), (Step::Go, false));
        }
        for left in [None, plenty] {
            assert_eq!(step(false, false, left), (Step::Wait, true));
            assert_eq!(step(true, false, left), (Step::Wait, true));
            assert_eq!(step(true, true, left), (Step::Go, true), "what it waited for came in time");
        }
        assert_eq!(step(false, false, none).0, Step::Refuse);
        for left in [little, none] {
            assert_eq!(step(true, true, left).0, Step::Refuse, "what it waited for came too late");
            assert_eq!(step(true, false, left).0, Step::Refuse);
        }
    }

    #[test]
    fn a_look_without_waiting_refuses_only_what_is_held_at_this_moment() {
        let mut held = Held::default();
        let (at_once, deadline) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(9)));
        assert_eq!(held.step(false, at_once, &deadline), Step::Refuse);
        held.note();
        assert_eq!(held.step(true, at_once, &deadline), Step::Go);
    }

    #[test]
    fn who_was_held_until_no_time_is_left_is_fenced_and_not_sent() {
        let (mut held, deadline) = (Held::default(), Deadline::after(Duration::from_micros(500)));
        assert!(held.check(&deadline).is_ok());
        held.note();
        let error = held.check(&deadline).unwrap_err();
        assert!(error.status() == Status::Fenced && error.has(flags::RETRYABLE));
    }
}
