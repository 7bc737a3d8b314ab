//! Whether a call has had to wait at the gate, and what follows when it asks again. Pure.
//!
//! Guarantees: a call that had to wait at the gate is not sent when no time is left for an answer, even if the gate is open by
//! then. Leaves to others: what it waits for (gate).

use crate::error::{Error, Result, Status, flags};
use crate::time::Deadline;

/// Whether a call has had to wait at the gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GateWait(bool);

/// The answer to a call that asks whether it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    Go,
    Wait,
    Refuse,
}

impl GateWait {
    /// The call has to wait.
    pub(crate) fn note(&mut self) {
        self.0 = true;
    }

    /// Whether the call has had to wait.
    pub(crate) fn has_waited(self) -> bool {
        self.0
    }

    /// An error if the call has waited and no time is left for an answer.
    #[inline]
    pub(crate) fn check(self, deadline: &Deadline) -> Result<()> {
        if self.0 { check_time(deadline) } else { Ok(()) }
    }

    /// Asks whether the call may be sent. `open`: the gate is open at this moment. `patience`: how long the call may wait here.
    pub(super) fn ask(&mut self, open: bool, patience: Deadline, deadline: &Deadline) -> Permit {
        if self.check(deadline).is_err() || (!open && patience.is_over()) {
            return Permit::Refuse;
        }
        self.0 |= !open;
        if open { Permit::Go } else { Permit::Wait }
    }
}

fn check_time(deadline: &Deadline) -> Result<()> {
    match deadline.is_all_but_over() {
        true => {
            let text = "held back until no time was left: it was not sent, try again, or give the call more time";
            Err(Error::new(Status::Fenced, text).with_flags(flags::RETRYABLE))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The answer with so much time left, and whether the call counts as one that had to wait from then on.
    fn ask(was: bool, open: bool, left: Option<Duration>) -> (Permit, bool) {
        let deadline = left.map_or(Deadline::never(), Deadline::after);
        let mut gate_wait = GateWait(was);
        (gate_wait.ask(open, deadline, &deadline), gate_wait.0)
    }

    #[test]
    fn rule_18_what_was_held_goes_only_while_there_is_time_for_an_answer() {
        let (plenty, none) = (Some(Duration::from_secs(9)), Some(Duration::ZERO));
        let little = Some(Duration::from_micros(900));
        // A call that was not held back may use its last microsecond.
        for left in [None, plenty, little, none] {
            assert_eq!(ask(false, true, left), (Permit::Go, false));
        }
        for left in [None, plenty] {
            assert_eq!(ask(false, false, left), (Permit::Wait, true));
            assert_eq!(ask(true, false, left), (Permit::Wait, true));
            assert_eq!(ask(true, true, left), (Permit::Go, true), "what it waited for came in time");
        }
        assert_eq!(ask(false, false, none).0, Permit::Refuse);
        for left in [little, none] {
            assert_eq!(ask(true, true, left).0, Permit::Refuse, "what it waited for came too late");
            assert_eq!(ask(true, false, left).0, Permit::Refuse);
        }
    }

    #[test]
    fn a_look_without_waiting_refuses_only_what_is_held_at_this_moment() {
        let mut gate_wait = GateWait::default();
        let (at_once, deadline) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(9)));
        assert_eq!(gate_wait.ask(false, at_once, &deadline), Permit::Refuse);
        gate_wait.note();
        assert_eq!(gate_wait.ask(true, at_once, &deadline), Permit::Go);
    }

    #[test]
    fn a_call_that_was_held_until_no_time_is_left_is_fenced_and_not_sent() {
        let (mut gate_wait, deadline) = (GateWait::default(), Deadline::after(Duration::from_micros(500)));
        assert!(gate_wait.check(&deadline).is_ok());
        gate_wait.note();
        let error = gate_wait.check(&deadline).unwrap_err();
        assert!(error.status() == Status::Fenced && error.has(flags::RETRYABLE));
    }
}
