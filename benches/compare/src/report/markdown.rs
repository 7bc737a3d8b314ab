//! The part of a Markdown file that holds the last full run.

use std::fmt::Write as _;
use std::path::Path;

use super::{COLUMNS, Report, figures, heading};
use crate::fail;

const BEGIN: &str = "<!-- bench -->";
const END: &str = "<!-- /bench -->";

fn line(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

/// The whole report; `plot` is where the plot is, seen from the file.
fn markdown(report: &Report, plot: Option<&str>) -> String {
    let mut out = String::new();
    for sentence in report.head() {
        let _ = writeln!(out, "{sentence}");
    }
    let _ = write!(
        out,
        "Command: `{}`.\n\n### Targets\n\n| Figure | Target | Measured | |\n|---|---|---|---|\n",
        report.command
    );
    for target in &report.targets {
        let (bound, verdict) = (target.bound.text(), target.verdict().to_owned());
        line(&mut out, &[target.figure.clone(), bound, target.measured(), verdict]);
    }
    if let Some(plot) = plot {
        let _ = write!(out, "\n![Throughput and p99 against threads]({plot})\n");
    }
    let _ = write!(out, "\n### Everything\n\n");
    line(&mut out, &COLUMNS.map(str::to_owned));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(COLUMNS.len() - 1));
    for cell in &report.cells {
        line(&mut out, &[format!("**{}**{}", heading(cell), " |".repeat(COLUMNS.len() - 1))]);
        for row in &cell.rows {
            line(&mut out, &figures(row, &cell.rows[0]));
        }
    }
    out
}

/// The text with its marked part replaced.
fn replaced(text: &str, part: &str) -> Result<String, String> {
    let (before, rest) = text.split_once(BEGIN).ok_or(format!("it has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("it has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

/// Writes the marked part of a file; one that is not there yet consists of it.
pub fn write(report: &Report, path: &Path, plot: Option<&Path>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| format!("{BEGIN}\n{END}\n"));
    let plot = plot.map(|plot| {
        let inside = path.parent().and_then(|parent| plot.strip_prefix(parent).ok()).unwrap_or(plot);
        inside.to_string_lossy().into_owned()
    });
    let text = replaced(&text, &markdown(report, plot.as_deref()));
    let written = text.and_then(|text| std::fs::write(path, text).map_err(|e| e.to_string()));
    written.unwrap_or_else(|e| fail(format!("{}: {e}", path.display())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_changes() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = replaced(&text, "new\n").expect("both marks are there");
        assert_eq!(new, format!("above\n{BEGIN}\nnew\n{END}\nbelow\n"));
        assert!(replaced("no marks", "new").is_err());
        assert!(replaced(BEGIN, "new").is_err());
    }
}
