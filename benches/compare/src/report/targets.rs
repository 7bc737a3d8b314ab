//! The figures that are to be reached, each with what was measured. A figure is a ratio of medians, unless it says otherwise.

use super::find;
use crate::candidate::{Job, SMALL};
use crate::drive::Sample;
use crate::plan::{Measured, title};

/// What a figure is to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
}

impl Bound {
    /// From text, such as `>= 6`.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, number) = text.trim().split_once(' ')?;
        let number = number.trim().parse().ok()?;
        match sign {
            ">=" => Some(Self::AtLeast(number)),
            "<=" => Some(Self::AtMost(number)),
            "<" => Some(Self::Below(number)),
            _ => None,
        }
    }

    /// The reverse of `parse`.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(number) => format!(">= {number}"),
            Self::AtMost(number) => format!("<= {number}"),
            Self::Below(number) => format!("< {number}"),
        }
    }

    /// Whether it is reached, or only almost: within 5 % of it counts as met too, and is told apart.
    fn verdict(self, value: f64) -> &'static str {
        let (met, within) = match self {
            Self::AtLeast(number) => (value >= number, value >= number * 0.95),
            Self::AtMost(number) => (value <= number, value <= number * 1.05),
            Self::Below(number) => (value < number, value < number * 1.05),
        };
        if met {
            "met"
        } else if within {
            "within 5 %"
        } else {
            "MISSED"
        }
    }
}

/// One figure.
pub struct Target {
    /// What it is.
    pub figure: String,
    /// What it is to be.
    pub bound: Bound,
    /// What it is; `None`: not measured in this run.
    pub value: Option<f64>,
}

impl Target {
    /// What was measured, as text.
    pub fn measured(&self) -> String {
        self.value.map_or_else(
            || "-".to_owned(),
            |value| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") },
        )
    }

    /// What to say of it.
    pub fn verdict(&self) -> &'static str {
        self.value.map_or("not measured", |value| self.bound.verdict(value))
    }
}

/// Figures that another program measured, a line each: name, value, bound, with tabs between.
pub fn from_lines(text: &str) -> Result<Vec<Target>, String> {
    let target = |line: &str| {
        let mut parts = line.split('\t');
        let (figure, value, bound) = (parts.next()?, parts.next()?.parse().ok()?, Bound::parse(parts.next()?)?);
        Some(Target { figure: figure.to_owned(), bound, value: Some(value) })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| target(line).ok_or(format!("no figure: {line:?}"))).collect()
}

/// A figure of a sample.
pub type What = fn(&Sample) -> f64;

/// Commands per second.
pub const RATE: What = |sample| sample.rate;
const P50: What = |sample| sample.p50;
/// The latency that 99 % of the calls do not exceed.
pub const P99: What = |sample| sample.p99;
const CLIENT: What = |sample| sample.client_cpu;
const BOTH: What = |sample| sample.client_cpu + sample.server_cpu;

const BENCHMARK: &str = "redis-benchmark -c 64 -P 1";
const BATCHES: &str = "redis-benchmark -c 1 -P 64";
const PIPELINE: &str = "hiredis, pipeline of 64";

/// How many threads, whose figure, next to whose, what, to be what.
type Wanted = (usize, &'static str, &'static str, &'static str, What, Bound);

const THREADS: &[Wanted] = &[
    (1, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(1.05)),
    (1, "vigie", "redis-plus-plus", "ops/s", RATE, Bound::AtLeast(1.05)),
    (1, "vigie", "hiredis", "p50", P50, Bound::AtMost(1.0)),
    (1, "vigie", "hiredis", "client CPU per op", CLIENT, Bound::AtMost(0.9)),
    (1, "vigie, spin", "hiredis", "ops/s", RATE, Bound::AtLeast(1.4)),
    (2, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(1.15)),
    (4, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(1.1)),
    (6, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(1.0)),
    (8, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(1.35)),
    (64, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(2.6)),
    (64, "vigie", "redis-plus-plus", "ops/s", RATE, Bound::AtLeast(2.6)),
    (64, "vigie", BENCHMARK, "ops/s", RATE, Bound::AtLeast(2.4)),
    (64, "vigie", "hiredis", "p99", P99, Bound::AtMost(0.4)),
    (64, "vigie", "hiredis", "client CPU per op", CLIENT, Bound::AtMost(0.55)),
    (64, "vigie", "hiredis", "client + server CPU per op", BOTH, Bound::AtMost(0.4)),
    (256, "vigie", "hiredis", "ops/s", RATE, Bound::AtLeast(2.4)),
    (256, "vigie", "hiredis", "p99", P99, Bound::AtMost(0.5)),
];

const SUBMIT: &[Wanted] = &[
    (1, "vigie, window 64", PIPELINE, "ops/s", RATE, Bound::AtLeast(1.6)),
    (1, "vigie, window 64", BATCHES, "ops/s", RATE, Bound::AtLeast(0.95)),
    (1, "vigie, window 256", PIPELINE, "ops/s", RATE, Bound::AtLeast(2.6)),
    (1, "vigie, window 256", BATCHES, "ops/s", RATE, Bound::AtLeast(1.3)),
];

/// All figures that this program measures.
pub fn from_cells(cells: &[Measured]) -> Vec<Target> {
    let get = title(Job::Get(SMALL));
    let ratio = |section, title: &str, (parallel, whose, next_to, name, what, bound): &Wanted| {
        let cell = find(cells, section, title, *parallel);
        let of = |label: &str| cell.and_then(|cell| median(cell, label, what)).filter(|value| *value > 0.0);
        let value = of(whose).zip(of(next_to)).map(|(mine, theirs)| mine / theirs);
        let plural = if *parallel == 1 { "" } else { "s" };
        let figure = format!("{parallel} thread{plural}: {name}, {whose} to {next_to}");
        Target { figure, bound: *bound, value }
    };
    let mut targets: Vec<Target> = THREADS.iter().map(|wanted| ratio("threads", &get, wanted)).collect();
    let alone = |section, title: &str, parallel, label, what: What| {
        find(cells, section, title, parallel).and_then(|cell| median(cell, label, &what))
    };
    targets.push(Target {
        figure: "64 threads: connections of vigie".to_owned(),
        bound: Bound::AtMost(4.0),
        value: alone("threads", &get, 64, "vigie", |sample| sample.connections),
    });
    let submitted = format!("{get}, submitted");
    targets.extend(SUBMIT.iter().map(|wanted| ratio("submit", &submitted, wanted)));
    targets.push(Target {
        figure: "vigie, window 256: calls into the library per command".to_owned(),
        bound: Bound::Below(0.1),
        value: alone("submit", &submitted, 1, "vigie, window 256", |sample| sample.crossings.unwrap_or(f64::NAN)),
    });
    targets
}

fn median(cell: &Measured, label: &str, what: &What) -> Option<f64> {
    let row = cell.rows.iter().find(|row| row.label == label)?;
    Some(row.median(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Row;

    #[test]
    fn verdicts_know_their_margin() {
        for (bound, value, verdict) in [
            (Bound::AtLeast(2.0), 2.0, "met"),
            (Bound::AtLeast(2.0), 1.91, "within 5 %"),
            (Bound::AtLeast(2.0), 1.89, "MISSED"),
            (Bound::AtMost(1.0), 1.0, "met"),
            (Bound::AtMost(1.0), 1.04, "within 5 %"),
            (Bound::AtMost(1.0), 1.06, "MISSED"),
            (Bound::Below(2.0), 2.0, "within 5 %"),
        ] {
            assert_eq!(bound.verdict(value), verdict, "{bound:?} {value}");
            assert_eq!(Bound::parse(&bound.text()), Some(bound));
        }
    }

    #[test]
    fn figures_of_others_are_read() {
        let targets = from_lines("speed\t11.5\t>= 6\n\nsize\t1.3\t< 2.5\n").expect("two figures");
        assert_eq!(targets.len(), 2);
        assert_eq!((targets[0].value, targets[1].bound), (Some(11.5), Bound::Below(2.5)));
        assert!(from_lines("speed\tfast\t>= 6").is_err());
    }

    #[test]
    fn a_ratio_is_that_of_the_medians_and_what_is_missing_says_so() {
        let row = |label: &str, rates: [f64; 3]| Row {
            label: label.to_owned(),
            samples: rates.map(|rate| Sample { rate, ..Sample::default() }).into(),
        };
        let rows = vec![row("hiredis", [10.0, 30.0, 20.0]), row("vigie", [90.0, 50.0, 10.0])];
        let cell = Measured { section: "threads", title: title(Job::Get(SMALL)), parallel: 8, rows };
        let targets = from_cells(&[cell]);
        let of = |text: &str| targets.iter().find(|target| target.figure.contains(text)).expect("it is there");
        assert_eq!((of("8 threads: ops/s").value, of("8 threads: ops/s").verdict()), (Some(2.5), "met"));
        assert_eq!(of("6 threads: ops/s").verdict(), "not measured");
    }
}
