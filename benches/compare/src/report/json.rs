//! Everything that was measured, all rounds, as JSON.

use std::fmt::Write as _;

use super::Report;
use crate::drive::Sample;
use crate::plan::{Measured, Row};

/// A text with its quotes.
fn text(value: &str) -> String {
    let mut out = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Infinity and its like have no place in JSON.
fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "null".to_owned() }
}

fn list(values: impl Iterator<Item = String>, indent: &str) -> String {
    let values: Vec<String> = values.map(|value| format!("\n{indent}  {value}")).collect();
    format!("[{}\n{indent}]", values.join(","))
}

fn sample(sample: &Sample) -> String {
    let crossings = sample.crossings.map_or(String::new(), |n| format!(", \"crossings\": {}", number(n)));
    format!(
        "{{\"rate\": {}, \"p50_us\": {}, \"p99_us\": {}, \"client_cpu_us\": {}, \"server_cpu_us\": {}, \
         \"connections\": {}{crossings}}}",
        number(sample.rate),
        number(sample.p50),
        number(sample.p99),
        number(sample.client_cpu),
        number(sample.server_cpu),
        number(sample.connections),
    )
}

fn row(row: &Row) -> String {
    format!("{{\"name\": {}, \"rounds\": {}}}", text(&row.label), list(row.samples.iter().map(sample), "        "))
}

fn cell(cell: &Measured) -> String {
    format!(
        "{{\"section\": {}, \"title\": {}, \"threads\": {}, \"rows\": {}}}",
        text(cell.section),
        text(&cell.title),
        cell.parallel,
        list(cell.rows.iter().map(row), "      "),
    )
}

/// The whole report.
pub fn json(report: &Report) -> String {
    let targets = report.targets.iter().map(|target| {
        let value = target.value.map_or("null".to_owned(), number);
        let (figure, bound, verdict) = (text(&target.figure), text(&target.bound.text()), text(target.verdict()));
        format!("{{\"figure\": {figure}, \"target\": {bound}, \"value\": {value}, \"verdict\": {verdict}}}")
    });
    format!(
        "{{\n  \"machine\": {},\n  \"software\": {},\n  \"date\": {},\n  \"command\": {},\n  \"quick\": {},\n  \
         \"notes\": {},\n  \"cells\": {},\n  \"targets\": {}\n}}\n",
        text(&report.machine.hardware),
        text(&report.machine.software),
        text(&report.machine.date),
        text(&report.command),
        report.quick,
        list(report.notes.iter().map(|note| text(note)), "  "),
        list(report.cells.iter().map(cell), "  "),
        list(targets, "  "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_valid() {
        assert_eq!(text("a \"b\" \\ \n"), "\"a \\\"b\\\" \\\\ \\u000a\"");
        assert_eq!((number(1.5).as_str(), number(f64::NAN).as_str()), ("1.500", "null"));
    }
}
