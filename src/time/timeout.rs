//! The `timeout_ms` of the C interface: how long a call may take.
//!
//! Guarantees: each number has one meaning, in every function that takes a `timeout_ms`. Leaves to others: what a call does that may not
//! wait, and the time that stands for `VIGIE_TIMEOUT_DEFAULT`.

use std::time::Duration;

use super::Deadline;

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// As configured.
    Default,
    /// No limit.
    Unlimited,
    /// Milliseconds.
    Ms(u64),
    /// No time: the call does not wait.
    DontWait,
}

impl Timeout {
    /// `VIGIE_TIMEOUT_DEFAULT` of the header.
    pub const DEFAULT_MS: i64 = i32::MIN as i64;
    /// `VIGIE_TIMEOUT_NONE` of the header.
    pub const NONE_MS: i64 = i32::MAX as i64;

    /// The meaning of a `timeout_ms`.
    pub fn from_ms(timeout_ms: i64) -> Self {
        match timeout_ms {
            Self::DEFAULT_MS => Self::Default,
            Self::NONE_MS => Self::Unlimited,
            ms => u64::try_from(ms).ok().filter(|ms| *ms > 0).map_or(Self::DontWait, Self::Ms),
        }
    }

    /// The deadline that follows, with this configured timeout.
    #[inline(always)]
    pub fn deadline(self, configured: Duration) -> Deadline {
        self.deadline_or(|| Deadline::after(configured))
    }

    /// The deadline that follows where nothing is configured: then the default is no limit.
    pub fn deadline_or_never(self) -> Deadline {
        self.deadline_or(Deadline::never)
    }

    #[inline(always)]
    fn deadline_or(self, default: impl FnOnce() -> Deadline) -> Deadline {
        match self {
            Self::Default => default(),
            Self::Unlimited => Deadline::never(),
            Self::Ms(ms) => Deadline::after(Duration::from_millis(ms)),
            Self::DontWait => Deadline::after(Duration::ZERO),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_meaning() {
        for (ms, meaning) in [
            (Timeout::DEFAULT_MS, Timeout::Default),
            (Timeout::NONE_MS, Timeout::Unlimited),
            (0, Timeout::DontWait),
            (-1, Timeout::DontWait),
            (i64::MIN, Timeout::DontWait),
            (1, Timeout::Ms(1)),
            (i64::MAX, Timeout::Ms(i64::MAX as u64)),
        ] {
            assert_eq!(Timeout::from_ms(ms), meaning, "{ms}");
        }
    }

    #[test]
    fn the_default_is_what_is_configured_or_no_limit() {
        let configured = Duration::from_secs(5);
        assert_eq!(Timeout::Default.deadline(configured).budget(), Some(configured));
        assert_eq!(Timeout::Default.deadline_or_never().budget(), None);
        assert_eq!(Timeout::Unlimited.deadline(configured).budget(), None);
        assert_eq!(Timeout::Ms(7).deadline_or_never().budget(), Some(Duration::from_millis(7)));
        assert_eq!(Timeout::DontWait.deadline(configured).budget(), Some(Duration::ZERO));
    }
}
