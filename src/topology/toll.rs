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
    /// Since when it does not serve, as the log was told.
    told: Option<Instant>,
    /// Calls wait for it, and it is silent.
    hangs: bool,
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
            self.trouble_since.get_or_insert(now);
        } else if let Some(since) = self.fenced_since.take() {
            self.fenced += now.saturating_duration_since(since);
        }
    }

    /// The primary has failed a connection or a call. True: the log is to be told.
    pub(super) fn trouble(&mut self, now: Instant) -> bool {
        self.trouble_since.get_or_insert(now);
        self.told.is_none() && self.told.insert(now) == &now
    }

    /// Calls have waited for the primary since then, and it has answered nothing. True: the log is to be told.
    pub(super) fn silent(&mut self, since: Instant) -> bool {
        self.hangs = true;
        self.trouble_since = self.trouble_since.into_iter().chain([since]).min();
        self.told.is_none() && self.told.insert(since) == &since
    }

    /// The primary has said that it is one. Returns for how long it did not serve, if the log was told that.
    pub(super) fn recovered(&mut self, now: Instant) -> Option<Duration> {
        if self.fenced_since.is_some() || self.hangs {
            return None;
        }
        self.trouble_since = None;
        self.told.take().map(|since| now.saturating_duration_since(since))
    }

    /// No call waits for the primary too long. `heard`: when it last sent anything. Returns for how long it was silent, if it was and has
    /// answered since then.
    pub(super) fn answers(&mut self, now: Instant, heard: Option<Instant>) -> Option<Duration> {
        let since = self.told.filter(|_| std::mem::take(&mut self.hangs))?;
        if heard.is_none_or(|heard| heard <= since) {
            // Nobody waits any more: a discovery will find out.
            return None;
        }
        if self.fenced_since.is_none() {
            self.trouble_since = None;
        }
        self.told = None;
        Some(now.saturating_duration_since(since))
    }

    /// Whether the primary was silent when that was last looked at.
    pub(super) fn hangs(&self) -> bool {
        self.hangs
    }

    /// Another primary is used from now on. `silent`: since when the one before had answered nothing, as far as calls waited for it. Returns
    /// how long nothing served; `None` without a sign of that.
    pub(super) fn switched(&mut self, now: Instant, silent: Option<Instant>) -> Option<Duration> {
        self.failovers += 1;
        (self.told, self.hangs) = (None, false);
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
        assert_eq!(toll.recovered(at(30)), None, "nothing was told");
        assert!(toll.trouble(at(100)) && !toll.trouble(at(130)), "the first sign");
        toll.fence(true, at(140));
        assert_eq!(toll.recovered(at(145)), None, "the fence is up");
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

    #[test]
    fn a_primary_that_does_not_serve_is_told_once_and_once_that_it_serves_again() {
        let (start, mut toll) = (Instant::now(), Toll::default());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(toll.answers(at(1), Some(at(1))), None, "it was not silent");
        // It hangs, and answers again; a discovery meanwhile says nothing about that.
        assert!(toll.silent(at(100)) && !toll.silent(at(100)) && toll.hangs());
        assert!(!toll.trouble(at(700)), "told already");
        assert_eq!(toll.recovered(at(800)), None);
        assert_eq!(toll.answers(at(900), Some(at(850))), Some(ms(800)));
        assert_eq!((toll.answers(at(910), Some(at(905))), toll.recovered(at(910))), (None, None), "once");
        // Its connections were given up: only a discovery knows.
        assert!(toll.silent(at(1000)));
        assert_eq!(toll.answers(at(2000), Some(at(990))), None);
        assert_eq!((toll.recovered(at(2500)), toll.recovered(at(2600))), (Some(ms(1500)), None));
        // Its connection failed, and it was there again.
        assert!(toll.trouble(at(3000)));
        assert_eq!(toll.recovered(at(3700)), Some(ms(700)));
        // It answers again under a fence that no switch follows: the gap goes on.
        assert!(toll.silent(at(4000)));
        toll.fence(true, at(5000));
        assert_eq!(toll.answers(at(5500), Some(at(5400))), Some(ms(1500)));
        assert_eq!(toll.switched(at(6000), None), Some(ms(2000)));
        // A switch is told in its own line.
        assert!(toll.silent(at(7000)));
        toll.fence(false, at(7500));
        toll.switched(at(8000), None);
        assert_eq!((toll.answers(at(9000), Some(at(9000))), toll.recovered(at(9000))), (None, None));
    }
}
