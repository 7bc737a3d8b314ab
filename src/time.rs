//! Deadlines: one budget covers a whole call.
//!
//! Guarantees: only the monotonic clock is read; a deadline never moves once made. A wall clock that jumps changes nothing.

mod lease;
mod timeout;

pub use lease::{Passage, WriteLease};
pub use timeout::Timeout;

use std::time::Duration;

#[cfg(not(loom))]
pub use std::time::Instant;

#[cfg(loom)]
pub use model::Instant;

/// No thread that is ready to run waits this long, unless the whole process is stopped.
const STOPPED: Duration = Duration::from_millis(500);

/// When a call has to be over, and when it began. Every message says after how long something happened.
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

    /// Whether it is noticed so late that this process must have been stopped. Code that judges by the clock then looks at the
    /// sockets first, and gives them a moment more ([`Deadline::renewed`]).
    pub fn is_missed(&self) -> bool {
        self.end.is_some_and(|end| Instant::now().saturating_duration_since(end) >= STOPPED)
    }

    /// The same beginning, and an end this far from now.
    pub fn renewed(&self, budget: Duration) -> Self {
        Self { start: self.start, end: Instant::now().checked_add(budget) }
    }

    /// Whether too little is left to wait for an answer: a write that had to wait until now is not sent.
    pub fn is_all_but_over(&self) -> bool {
        self.left().is_some_and(|left| left < Duration::from_millis(1))
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

/// A clock that stands still until a model sets it.
#[cfg(loom)]
pub mod model {
    use loom::sync::atomic::{AtomicU64, Ordering};
    use std::ops::{Add, Sub};
    use std::sync::atomic;
    use std::time::Duration;

    loom::lazy_static! {
        /// The time that the threads of a model read; they may see a new one late, as threads do.
        static ref CLOCK: AtomicU64 = AtomicU64::new(0);
    }
    static MOVES: atomic::AtomicBool = atomic::AtomicBool::new(false);
    static LATEST: atomic::AtomicU64 = atomic::AtomicU64::new(0);

    /// A reading of the model's clock.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(Duration);

    impl Instant {
        /// What the clock shows.
        pub fn now() -> Self {
            Self(Duration::from_micros(if moves() { CLOCK.load(Ordering::Acquire) } else { 0 }))
        }

        /// How long ago it was.
        pub fn elapsed(&self) -> Duration {
            Self::now().saturating_duration_since(*self)
        }

        /// From an earlier reading to this one.
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }

        /// Later by so much, if there is such a time.
        pub fn checked_add(&self, time: Duration) -> Option<Self> {
            self.0.checked_add(time).map(Self)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;
        fn add(self, time: Duration) -> Self {
            Self(self.0 + time)
        }
    }

    impl Sub for Instant {
        type Output = Duration;
        fn sub(self, earlier: Self) -> Duration {
            self.saturating_duration_since(earlier)
        }
    }

    /// The clock as it is, and not as a thread sees it.
    pub fn latest() -> Instant {
        Instant(Duration::from_micros(LATEST.load(atomic::Ordering::Relaxed)))
    }

    /// Sets the clock back to its beginning, for another run; says whether it will move in this one.
    pub fn start(moves: bool) {
        MOVES.store(moves, atomic::Ordering::Relaxed);
        LATEST.store(0, atomic::Ordering::Relaxed);
    }

    /// Whether the clock can move in this run.
    pub fn moves() -> bool {
        MOVES.load(atomic::Ordering::Relaxed)
    }

    /// Sets the clock; never back.
    pub fn set(to: Instant) {
        assert!(moves(), "time passes in a model without time");
        let micros = to.0.as_micros() as u64;
        CLOCK.fetch_max(micros, Ordering::AcqRel);
        LATEST.fetch_max(micros, atomic::Ordering::Relaxed);
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

    #[cfg(not(loom))] // The model's clock does not go back.
    #[test]
    fn one_that_is_noticed_late_can_be_renewed() {
        let past = |ms| {
            let ago = Instant::now() - Duration::from_millis(ms);
            Deadline { start: ago, end: Some(ago) }
        };
        assert!(past(600).is_over() && past(600).is_missed());
        assert!(past(10).is_over() && !Deadline::after(Duration::ZERO).is_missed() && !Deadline::never().is_missed());
        let renewed = past(600).renewed(Duration::from_secs(60));
        assert!(!renewed.is_over() && !renewed.is_missed() && renewed.elapsed() >= Duration::from_millis(600));
    }

    #[test]
    fn zero_is_over_at_once() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        assert_eq!(Deadline::after(Duration::ZERO).left(), Some(Duration::ZERO));
    }
}
