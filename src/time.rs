//! Deadlines: the one budget that covers a whole call.
//!
//! Guarantees: only the monotonic clock is read; a deadline never moves once made. A wall clock that jumps changes nothing.

use std::time::{Duration, Instant};

/// When a call has to be over, and when it began (every message says after how long something happened).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    start: Instant,
    end: Option<Instant>,
}

impl Deadline {
    /// A deadline this far from now. A budget that the clock cannot hold counts as none.
    pub fn after(budget: Duration) -> Self {
        let start = Instant::now();
        Self { start, end: start.checked_add(budget) }
    }

    /// No limit.
    pub fn never() -> Self {
        Self { start: Instant::now(), end: None }
    }

    /// The same beginning, an end not later than `budget` from now: for a step that has a limit of its own.
    pub fn within(&self, budget: Duration) -> Self {
        let step = Instant::now().checked_add(budget);
        let end = match (self.end, step) {
            (Some(whole), Some(step)) => Some(whole.min(step)),
            (whole, step) => whole.or(step),
        };
        Self { start: self.start, end }
    }

    /// What is left: `None` without a limit, zero once it has passed.
    pub fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// What is left, but never more than `most`.
    pub fn left_or(&self, most: Duration) -> Duration {
        self.left().map_or(most, |left| left.min(most))
    }

    /// Whether it has passed.
    pub fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// The instant it ends at; `None` without a limit.
    pub fn end(&self) -> Option<Instant> {
        self.end
    }

    /// The budget as it was given; `None` without a limit.
    pub fn budget(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(self.start))
    }

    /// How long the call has been running.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_never_outlives_the_call() {
        let call = Deadline::after(Duration::from_millis(50));
        assert_eq!(call.within(Duration::from_secs(9)).end(), call.end());
        assert!(call.within(Duration::from_millis(1)).end() < call.end());
        assert!(Deadline::never().within(Duration::from_millis(1)).end().is_some());
    }

    #[test]
    fn a_budget_beyond_the_clock_is_no_limit() {
        assert_eq!(Deadline::after(Duration::MAX).left(), None);
    }

    #[test]
    fn zero_is_over_at_once() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        assert_eq!(Deadline::after(Duration::ZERO).left(), Some(Duration::ZERO));
    }
}
