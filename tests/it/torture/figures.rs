//! What a scenario measured and what was expected of it: figures, checks, lines, medians.

use super::probe::{Kind, Seen};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How strictly times are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// As the targets say.
    Exact,
    /// With what a machine that a test shares with others may have added to a call while the scenario ran (`Pace::allowance`).
    Loose(Duration),
}

/// On a machine that may have added more to a call, the steps of the Sentinels take as long as they take: how long the service was away
/// is judged by `make torture`, and a test asserts that it comes back.
const CALM: Duration = Duration::from_millis(10);
const COMES_BACK: f64 = 30_000.0;

impl Judge {
    /// How far a time may lie above its target: what is configured does not grow with the load.
    fn allows(self, sentinels: bool) -> f64 {
        match self {
            Judge::Exact => 0.0,
            Judge::Loose(allowance) if allowance > CALM && sentinels => COMES_BACK,
            Judge::Loose(allowance) => 100.0 + ms(allowance),
        }
    }
}

/// One expectation.
#[derive(Clone, Debug)]
pub enum Check {
    /// A time in ms, and its target; medians are judged.
    /// `sentinels`: they have their part in it.
    Time { what: String, measured: f64, target: f64, sentinels: bool },
    /// What must hold in every run.
    Must { what: String, holds: bool, detail: String },
}

/// The outcome of one run of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub gap: Option<f64>,
    pub lost: Option<(usize, usize)>,
    pub duplicates: Option<usize>,
    pub errors: BTreeMap<Kind, usize>,
    pub examples: BTreeMap<Kind, String>,
    /// Errors that are told apart from those that are judged, by what excuses them.
    pub excused: BTreeMap<String, BTreeMap<Kind, usize>>,
    pub longest: Option<f64>,
    /// Per cent of a core: the whole process with the probe, and the library's own threads.
    pub cpu: Option<(f64, f64)>,
    /// Before, most, after.
    pub descriptors: Option<(usize, usize, usize)>,
    pub threads: Option<(usize, usize, usize)>,
    /// Questions to Sentinels per second.
    pub queries: Option<f64>,
    /// Connections of the library on the primary at the end.
    pub connections: Option<usize>,
    pub checks: Vec<Check>,
    pub notes: Vec<String>,
    /// Why it did not run.
    pub skipped: Option<String>,
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Outcome {
    pub fn skipped(why: &str) -> Outcome {
        Outcome { skipped: Some(why.into()), ..Outcome::default() }
    }

    /// Takes the figures of a probe over. Nothing may ever be there that was told as not executed.
    pub fn take(&mut self, seen: &Seen) {
        self.gap = Some(ms(seen.gap));
        self.lost = Some((seen.lost, seen.lost_late));
        self.duplicates = Some(seen.duplicates);
        self.longest = Some(ms(seen.longest));
        for (kind, count) in seen.errors.iter().chain(&seen.read_errors) {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.examples.extend(seen.examples.clone());
        if let Some(fault) = seen.fault.filter(|_| seen.lost > seen.lost_late) {
            let after = |at: &Instant| {
                at.saturating_duration_since(fault).as_millis() as i64
                    - fault.saturating_duration_since(*at).as_millis() as i64
            };
            let times: Vec<i64> = seen.missing.iter().take(8).map(after).collect();
            let done = seen.struck.map_or(0, |struck| after(&struck));
            self.note(format!(
                "the first missing were acknowledged {times:?} ms after the fault, which took {done} ms"
            ));
        }
        self.must("nothing is there that was told as not executed", seen.ghosts == 0, format!("{}", seen.ghosts));
    }

    /// What must hold in every run.
    pub fn must(&mut self, what: &str, holds: bool, detail: impl Into<String>) {
        self.checks.push(Check::Must { what: what.into(), holds, detail: detail.into() });
    }
    /// A time with its target in ms.
    pub fn expect_ms(&mut self, what: &str, measured: f64, target: f64) {
        self.checks.push(Check::Time { what: what.into(), measured, target, sentinels: false });
    }
    /// The same of a time in which the Sentinels have their part: they must fail over, come back, or answer a poll.
    pub fn expect_ms_of_sentinels(&mut self, what: &str, measured: f64, target: f64) {
        self.checks.push(Check::Time { what: what.into(), measured, target, sentinels: true });
    }
    /// Longest time without an acknowledged write, where the Sentinels fail over.
    pub fn expect_failover_gap(&mut self, target: f64) {
        let gap = self.gap.unwrap_or(f64::INFINITY);
        self.expect_ms_of_sentinels("G", gap, target);
    }
    /// Longest time without an acknowledged write.
    pub fn expect_gap(&mut self, target: f64) {
        let gap = self.gap.unwrap_or(f64::INFINITY);
        self.expect_ms("G", gap, target);
    }
    /// Longest single call.
    pub fn expect_longest(&mut self, target: f64) {
        let longest = self.longest.unwrap_or(f64::INFINITY);
        self.expect_ms("X", longest, target);
    }
    /// At most so many acknowledged writes are missing, and none twice.
    pub fn expect_lost(&mut self, most: usize) {
        let lost = self.lost.unwrap_or((usize::MAX, 0)).0;
        self.must(&format!("L <= {most}"), lost <= most, lost.to_string());
        self.expect_no_duplicates();
    }
    /// For a host that dies: what was acknowledged within 100 ms before may go with it, no more.
    pub fn expect_lost_only_late(&mut self) {
        let (lost, late) = self.lost.unwrap_or((usize::MAX, 0));
        self.must(
            "only writes of the last 100 ms before the fault are lost",
            lost == late,
            format!("{lost}, {late} late"),
        );
        self.expect_no_duplicates();
    }
    pub fn expect_no_duplicates(&mut self) {
        let twice = self.duplicates.unwrap_or(usize::MAX);
        self.must("D = 0", twice == 0, twice.to_string());
    }
    /// At most so many errors, each of an allowed kind.
    pub fn expect_errors(&mut self, most: usize, allowed: impl Fn(&Kind) -> bool) {
        let count: usize = self.errors.values().sum();
        let text = |kind: &Kind| self.examples.get(kind).map_or("", String::as_str);
        let others: Vec<String> =
            self.errors.keys().filter(|kind| !allowed(kind)).map(|kind| format!("{kind}: {}", text(kind))).collect();
        self.must("errors are of the allowed kinds", others.is_empty(), others.join("; "));
        self.must(&format!("E <= {most}"), count <= most, format!("{count}: {}", self.error_text()));
    }
    pub fn expect_no_errors(&mut self) {
        self.expect_errors(0, |_| false);
    }
    /// Tells these errors apart: they are not judged any more.
    pub fn excuse(&mut self, what: &str, kinds: impl IntoIterator<Item = Kind>) {
        let apart = self.excused.entry(what.into()).or_default();
        for kind in kinds {
            *apart.entry(kind.clone()).or_default() += 1;
            let left = self.errors.entry(kind).or_default();
            *left = left.saturating_sub(1);
        }
        self.errors.retain(|_, count| *count > 0);
    }
    /// Threads and descriptors as before.
    pub fn expect_flat(&mut self) {
        let flat = |figure: Option<(usize, usize, usize)>| figure.is_some_and(|(before, _, after)| after <= before);
        let (threads, descriptors) = (self.threads, self.descriptors);
        self.must("TH as before", flat(threads), format!("{threads:?}"));
        self.must("FD as before", flat(descriptors), format!("{descriptors:?}"));
    }
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What was not met.
    pub fn failures(&self, judge: Judge) -> Vec<String> {
        self.checks.iter().filter_map(|check| check.failure(judge)).collect()
    }

    pub fn error_text(&self) -> String {
        let excused = self.excused.iter().map(|(what, errors)| format!("; {what}: {}", words(errors)));
        words(&self.errors) + &excused.collect::<String>()
    }

    /// The cells of the table, in the order of `HEADS`.
    pub fn cells(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or("".into(), |value| format!("{value:.0}"));
        let span = |value: Option<(usize, usize, usize)>| value.map_or("".into(), |(a, b, c)| format!("{a}/{b}/{c}"));
        let lost = self.lost.map_or("".into(), |(lost, late)| match late {
            0 => lost.to_string(),
            _ => format!("{lost} ({late} late)"),
        });
        vec![
            number(self.gap),
            lost,
            self.duplicates.map_or("".into(), |count| count.to_string()),
            self.error_text(),
            number(self.longest),
            self.cpu.map_or("".into(), |(all, own)| format!("{all:.1} ({own:.2})")),
            span(self.descriptors),
            span(self.threads),
            self.queries.map_or("".into(), |rate| format!("{rate:.1}")),
            self.connections.map_or("".into(), |count| count.to_string()),
        ]
    }

    /// One line with all figures.
    pub fn line(&self) -> String {
        if let Some(why) = &self.skipped {
            return format!("skipped: {why}");
        }
        let pairs = HEADS.iter().zip(self.cells()).filter(|(_, cell)| !cell.is_empty());
        let mut line: Vec<String> = pairs.map(|(head, cell)| format!("{head} {cell}")).collect();
        line.extend(self.checks.iter().filter_map(|check| match check {
            Check::Time { what, measured, target, .. } if what != "G" && what != "X" => {
                Some(format!("{what} {measured:.0} (<= {target:.0})"))
            }
            _ => None,
        }));
        line.extend(self.notes.iter().cloned());
        line.join(" | ")
    }
}

fn words(errors: &BTreeMap<Kind, usize>) -> String {
    let words: Vec<String> = errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if words.is_empty() { "0".into() } else { words.join(", ") }
}

pub const HEADS: [&str; 10] = ["G", "L", "D", "E", "X", "CPU", "FD", "TH", "Q", "CN"];

impl Check {
    fn failure(&self, judge: Judge) -> Option<String> {
        match self {
            Check::Must { holds: true, .. } => None,
            Check::Must { what, detail, .. } => Some(format!("{what}: {detail}")),
            Check::Time { what, measured, target, sentinels } => {
                let allowed = judge.allows(*sentinels);
                (*measured > target + allowed)
                    .then(|| format!("{what} is {measured:.0} ms, target {target:.0}, allowed {allowed:.0} more"))
            }
        }
    }
}

/// The median of several runs: of times the median, of what must not happen the worst.
pub fn median(runs: &[Outcome]) -> Outcome {
    let ran: Vec<&Outcome> = runs.iter().filter(|run| run.skipped.is_none()).collect();
    let Some(last) = ran.last() else { return runs.last().cloned().unwrap_or_default() };
    let of = |pick: &dyn Fn(&Outcome) -> Option<f64>| middle(ran.iter().filter_map(|run| pick(run)).collect());
    let mut whole = Outcome {
        gap: of(&|run| run.gap),
        longest: of(&|run| run.longest),
        cpu: of(&|run| run.cpu.map(|cpu| cpu.0)).zip(of(&|run| run.cpu.map(|cpu| cpu.1))),
        queries: of(&|run| run.queries),
        lost: ran.iter().filter_map(|run| run.lost).max(),
        duplicates: ran.iter().filter_map(|run| run.duplicates).max(),
        descriptors: ran
            .iter()
            .filter_map(|run| run.descriptors)
            .max_by_key(|span| (span.2.saturating_sub(span.0), span.1)),
        threads: ran.iter().filter_map(|run| run.threads).max_by_key(|span| (span.2.saturating_sub(span.0), span.1)),
        connections: ran.iter().filter_map(|run| run.connections).max(),
        notes: last.notes.clone(),
        ..Outcome::default()
    };
    for run in &ran {
        for (kind, count) in &run.errors {
            let most = whole.errors.entry(kind.clone()).or_default();
            *most = (*most).max(*count);
        }
        for (what, errors) in &run.excused {
            let apart = whole.excused.entry(what.clone()).or_default();
            for (kind, count) in errors {
                let most = apart.entry(kind.clone()).or_default();
                *most = (*most).max(*count);
            }
        }
        whole.examples.extend(run.examples.clone());
    }
    for check in &last.checks {
        whole.checks.push(match check {
            Check::Time { what, target, sentinels, .. } => {
                let same = |check: &Check| match check {
                    Check::Time { what: other, measured, .. } if other == what => Some(*measured),
                    _ => None,
                };
                let all = ran.iter().filter_map(|run| run.checks.iter().find_map(same)).collect();
                let measured = middle(all).unwrap_or(f64::INFINITY);
                Check::Time { what: what.clone(), measured, target: *target, sentinels: *sentinels }
            }
            Check::Must { what, .. } => {
                let broken = ran
                    .iter()
                    .flat_map(|run| &run.checks)
                    .find(|check| matches!(check, Check::Must { what: other, holds: false, .. } if other == what));
                broken.unwrap_or(check).clone()
            }
        });
    }
    whole
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    // The benchmark, which takes this file in, is built without a harness and so without these tests.
    #[allow(unused_imports)]
    use super::*;

    #[test]
    fn a_loose_judge_allows_what_the_machine_took_and_no_multiple_of_the_target() {
        let failures = |longest: f64, allowance: u64| {
            let mut outcome = Outcome { longest: Some(longest), ..Outcome::default() };
            outcome.expect_longest(5020.0);
            let judge = Judge::Loose(Duration::from_millis(allowance));
            (outcome.failures(Judge::Exact).len(), outcome.failures(judge).len())
        };
        assert_eq!(failures(5010.0, 0), (0, 0));
        assert_eq!(failures(5100.0, 10), (1, 0));
        assert_eq!(failures(5200.0, 20), (1, 1));
        assert_eq!(failures(10_040.0, 500), (1, 1));
        let mut outcome = Outcome { gap: Some(4000.0), ..Outcome::default() };
        outcome.expect_failover_gap(1500.0);
        let failures = |allowance| outcome.failures(Judge::Loose(Duration::from_millis(allowance))).len();
        assert_eq!((failures(10), failures(11)), (1, 0), "on a busy machine the Sentinels take their time");
        outcome.gap = None;
        outcome.expect_failover_gap(1500.0);
        assert_eq!(outcome.failures(Judge::Loose(Duration::from_secs(1))).len(), 1, "it did not come back");
        let mut outcome = Outcome { gap: Some(4000.0), ..Outcome::default() };
        outcome.expect_gap(300.0);
        assert_eq!(outcome.failures(Judge::Loose(Duration::from_secs(1))).len(), 1, "no Sentinel has a part in it");
    }
}
