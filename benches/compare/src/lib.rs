//! The comparison that `make bench` runs: libvigie, as it is installed, next to other clients of Redis, in one run.
//!
//! `plan` says what is measured, `drive` measures it, `candidate` has a file for each client, `report` makes tables, targets, JSON and
//! a plot of it. Every candidate of a cell runs in every round, so that the machine's moods meet all of them alike.

pub mod candidate;
pub mod drive;
pub mod histogram;
pub mod machine;
pub mod options;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod report;
pub mod vigie;

/// Ends the program: a figure next to a failed call would mean nothing.
pub fn fail(what: impl std::fmt::Display) -> ! {
    eprintln!("\nbench: {what}");
    std::process::exit(1);
}

/// The middle one; of an even number the lower of the two. 0 for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
