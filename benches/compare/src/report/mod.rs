//! What comes out: tables for people, targets with a verdict, JSON, a plot, and the part of a Markdown file.

use crate::drive::Sample;
use crate::machine::Machine;
use crate::plan::{Measured, Row};

pub mod json;
pub mod markdown;
pub mod plot;
pub mod targets;

use targets::Target;

/// Everything that there is to tell.
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// How often.
    pub rounds: usize,
    /// The command that was given.
    pub command: String,
    /// Whether the figures mean nothing.
    pub quick: bool,
    /// What was measured.
    pub cells: Vec<Measured>,
    /// What was to be reached.
    pub targets: Vec<Target>,
    /// What there is to say besides: who is missing.
    pub notes: Vec<String>,
}

/// The columns of the tables, in their order.
const COLUMNS: [&str; 8] = ["", "ops/s", "ratio", "p50 us", "p99 us", "client us/op", "server us/op", "connections"];

/// A row's figures as text, in the order of `COLUMNS`; the ratio is that of the rates, to the first row of the cell.
fn figures(row: &Row, first: &Row) -> [String; 8] {
    let rate = |sample: &Sample| sample.rate;
    let ratio = row.median(rate) / first.median(rate).max(1.0);
    [
        row.label.clone(),
        format!("{:.0}", row.median(rate)),
        format!("{ratio:.2}"),
        short(row.median(|s| s.p50)),
        short(row.median(|s| s.p99)),
        format!("{:.2}", row.median(|s| s.client_cpu)),
        format!("{:.2}", row.median(|s| s.server_cpu)),
        format!("{:.0}", row.median(|s| s.connections)),
    ]
}

/// Three digits are enough.
fn short(us: f64) -> String {
    if us < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
}

/// What stands over the rows of a cell.
fn heading(cell: &Measured) -> String {
    let plural = if cell.parallel == 1 { "" } else { "s" };
    format!("{}, {} thread{plural}", cell.title, cell.parallel)
}

impl Report {
    /// The cell of these threads that has this title, in this part.
    pub fn cell(&self, section: &str, title: &str, parallel: usize) -> Option<&Measured> {
        find(&self.cells, section, title, parallel)
    }

    /// The tables, for a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for line in self.head() {
            out += &format!("{line}\n");
        }
        for cell in &self.cells {
            out += &format!("\n{:<50}", heading(cell));
            out += &COLUMNS[1..].iter().map(|name| format!("{name:>13}")).collect::<String>();
            out += "\n";
            for row in &cell.rows {
                let [label, figures @ ..] = figures(row, &cell.rows[0]);
                out += &format!("  {label:<48}");
                out += &figures.iter().map(|figure| format!("{figure:>13}")).collect::<String>();
                out += "\n";
            }
        }
        out += &format!("\n{:<74}{:>10}  {:<10}\n", "Targets", "target", "measured");
        for target in &self.targets {
            let (value, verdict) = (target.measured(), target.verdict());
            out += &format!("  {:<72}{:>10}  {value:<10}{verdict}\n", target.figure, target.bound.text());
        }
        out
    }

    /// Machine, software, how it was measured, what is missing.
    fn head(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Machine: {}.", self.machine.hardware),
            format!("Software: {}.", self.machine.software),
            format!(
                "{}: medians of {} interleaved rounds. The ratio is that of the ops/s to the first row; CPU is user and system, \
                 of the whole client and of all servers.",
                self.machine.date, self.rounds
            ),
        ];
        if self.quick {
            lines.push("A quick run: it shows that everything works; its figures mean nothing.".to_owned());
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

/// The cell of these threads that has this title, in this part.
fn find<'a>(cells: &'a [Measured], section: &str, title: &str, parallel: usize) -> Option<&'a Measured> {
    cells.iter().find(|cell| cell.section == section && cell.title == title && cell.parallel == parallel)
}
