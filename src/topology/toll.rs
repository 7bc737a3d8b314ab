//! What failovers have cost a service: how often there were some, how long writes were held back, how long nothing served them.
//!
//! Guarantees: its counters never go back. No I/O, no lock. Leaves to others: when a failover begins and ends (transition, service).

use std::time::{Duration, Instant};

/// What failovers have cost.
#[derive(Debug, Default)]
pub(super) struct Toll {
    failovers: u64,
    fences: u64,
    fenced: Duration,
    fenced_since: Option<Instant>,
    /// The first sign that the primary does not serve: a fence, or a connection that failed.
    trouble_since: Option<Instant>,
    last_gap: Duration,
    gaps: Duration,
}

/// What failovers have cost a service, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceFigures {
    /// Its name.
    pub service: String,
    /// How often another primary took over.
    pub failovers: u64,
    /// How long the last one took: from its first sign, or the first call that was not answered, until the new primary was used.
    pub last_gap: Duration,
    /// How long all took, together.
    pub gaps: Duration,
    /// How often the fence went up.
    pub fences: u64,
    /// How long it was up, together.
    pub fenced: Duration,
    /// Whether it is up.
    pub is_fenced: bool,
}

impl Toll {
    /// The fence went up, or came down.
    pub(super) fn fence(&mut self, on: bool, now: Instant) {
        if on {
            self.fences += u64::from(self.fenced_since.is_none());
            self.fenced_since.get_or_insert(now);
            self.trouble(now);
        } else if let Some(since) = self.fenced_since.take() {
            self.fenced += now.saturating_duration_since(since);
        }
    }

    /// The primary does not serve, or may not serve for much longer. True: this is the first sign of it.
    pub(super) fn trouble(&mut self, now: Instant) -> bool {
        let is_first = self.trouble_since.is_none();
        self.trouble_since.get_or_insert(now);
        is_first
    }

    /// The primary serves as before.
    pub(super) fn recovered(&mut self) {
        if self.fenced_since.is_none() {
            self.trouble_since = None;
        }
    }

    /// Another primary is used from now on. `silent`: since when the one before had answered nothing, as far as calls waited for it. Returns
    /// how long nothing served; `None` without a sign of that.
    pub(super) fn switched(&mut self, now: Instant, silent: Option<Instant>) -> Option<Duration> {
        self.failovers += 1;
        let since = self.trouble_since.take().into_iter().chain(silent).min();
        let gap = since.map(|since| now.saturating_duration_since(since));
        self.last_gap = gap.unwrap_or_default();
        self.gaps += self.last_gap;
        gap
    }

    pub(super) fn figures(&self, service: &str, now: Instant) -> ServiceFigures {
        let present = self.fenced_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        ServiceFigures {
            service: service.to_owned(),
            failovers: self.failovers,
            last_gap: self.last_gap,
            gaps: self.gaps,
            fences: self.fences,
            fenced: self.fenced + present,
            is_fenced: self.fenced_since.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_the_first_sign_to_the_switch_and_a_fence_that_comes_down_without_one_is_none() {
        let (start, mut toll) = (Instant::now(), Toll::default());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let ms = |of: Duration| of.as_millis();
        toll.fence(true, at(0));
        toll.fence(true, at(5));
        let up = toll.figures("s", at(10));
        assert_eq!((up.fences, ms(up.fenced), up.is_fenced, up.failovers), (1, 10, true, 0));
        toll.fence(false, at(20));
        toll.fence(false, at(25));
        toll.recovered();
        assert!(toll.trouble(at(100)) && !toll.trouble(at(130)), "the first sign");
        toll.fence(true, at(140));
        toll.recovered();
        assert_eq!(toll.switched(at(150), Some(at(120))).map(ms), Some(50), "silent only later");
        toll.fence(false, at(160));
        let over = toll.figures("s", at(500));
        assert_eq!((over.failovers, ms(over.last_gap), ms(over.gaps)), (1, 50, 50));
        assert_eq!((over.fences, ms(over.fenced), over.is_fenced), (2, 40, false));
        assert_eq!(toll.switched(at(600), None), None);
        let again = toll.figures("s", at(600));
        assert_eq!((again.failovers, ms(again.last_gap), ms(again.gaps)), (2, 0, 50), "without a sign before it");
        // A primary that hangs serves nothing long before anybody says so.
        toll.fence(true, at(900));
        assert_eq!(toll.switched(at(1000), Some(at(700))).map(ms), Some(300));
        assert_eq!(ms(toll.figures("s", at(1000)).gaps), 350);
    }
}
