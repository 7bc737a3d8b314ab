//! Throughput and p99 against threads as SVG: two panels, a line for each candidate.

use std::fmt::Write as _;

use super::Report;
use super::targets::{P99, RATE, What};
use crate::candidate::{Job, SMALL};
use crate::plan::{Measured, title};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const GAP: f64 = 80.0;
const COLOURS: [&str; 7] = ["#555555", "#c8102e", "#1f6fb2", "#2e8b57", "#d98200", "#7b4fa3", "#008b8b"];

/// One panel: what it shows, and how a value becomes a height.
struct Panel {
    left: f64,
    name: &'static str,
    what: What,
    /// The lines across, lowest first.
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Panel {
    fn new(left: f64, name: &'static str, what: What, values: &[f64], logarithmic: bool) -> Self {
        let most = values.iter().copied().fold(1.0, f64::max);
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(most, f64::min);
        let ticks = if logarithmic { decades(least, most) } else { even_steps(most) };
        Self { left, name, what, ticks, logarithmic }
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        let part = if self.logarithmic {
            (value.max(low) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        TOP + HEIGHT * (1.0 - part)
    }
}

/// Whole powers of ten around the values: at least two.
fn decades(least: f64, most: f64) -> Vec<f64> {
    let low = least.log10().floor() as i32;
    let high = (most.log10().ceil() as i32).max(low + 1);
    (low..=high).map(|power| 10f64.powi(power)).collect()
}

/// From 0 in steps of 1, 2 or 5 times a power of ten; the last is not below the largest value.
fn even_steps(most: f64) -> Vec<f64> {
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| step * 6.0 >= most).unwrap_or(most);
    (0..=(most / step).ceil() as usize).map(|n| n as f64 * step).collect()
}

/// 120000 as 120 k.
fn label(value: f64) -> String {
    if value >= 1000.0 { format!("{} k", value / 1000.0) } else { format!("{value}") }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{what}</text>");
}

fn line(out: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

/// Where the cell of this number stands: thread counts are evenly spaced, whatever they are.
fn x(panel: &Panel, at: usize, count: usize) -> f64 {
    panel.left + WIDTH * (at as f64 + 0.5) / count as f64
}

fn frame(out: &mut String, panel: &Panel, cells: &[&Measured]) {
    text(out, panel.left, TOP - 16.0, "start", panel.name);
    for tick in &panel.ticks {
        let y = panel.y(*tick);
        line(out, [panel.left, y, panel.left + WIDTH, y], "#dddddd", 1.0);
        text(out, panel.left - 6.0, y + 4.0, "end", &label(*tick));
    }
    for (at, cell) in cells.iter().enumerate() {
        text(out, x(panel, at, cells.len()), TOP + HEIGHT + 18.0, "middle", &cell.parallel.to_string());
    }
    text(out, panel.left + WIDTH / 2.0, TOP + HEIGHT + 36.0, "middle", "threads or tasks");
}

fn curve(out: &mut String, panel: &Panel, cells: &[&Measured], name: &str, colour: &str) {
    let mut points = String::new();
    for (at, cell) in cells.iter().enumerate() {
        let Some(row) = cell.rows.iter().find(|row| row.label == name) else { continue };
        let (x, y) = (x(panel, at, cells.len()), panel.y(row.median(panel.what)));
        let _ = write!(points, "{x:.1},{y:.1} ");
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let width = if name == "vigie" { 3 } else { 1 };
    let points = points.trim_end();
    let _ = writeln!(out, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>");
}

/// The plot; `None` if the cells it needs were not measured.
pub fn svg(report: &Report) -> Option<String> {
    let wanted = title(Job::Get(SMALL));
    let cells: Vec<&Measured> =
        report.cells.iter().filter(|cell| cell.section == "threads" && cell.title == wanted).collect();
    let has = |cell: &Measured, name: &str| cell.rows.iter().any(|row| row.label == name);
    // Whoever takes part in one cell alone makes no line.
    let names = cells.first()?.rows.iter().map(|row| row.label.as_str());
    let names: Vec<&str> =
        names.filter(|name| cells.len() == 1 || cells.iter().filter(|cell| has(cell, name)).count() > 1).collect();
    let values = |what: What| -> Vec<f64> {
        cells.iter().flat_map(|cell| cell.rows.iter().map(move |row| row.median(what))).collect()
    };
    let panels = [
        Panel::new(LEFT, "GET of 64 bytes: operations per second", RATE, &values(RATE), false),
        Panel::new(LEFT + WIDTH + GAP, "p99, microseconds", P99, &values(P99), true),
    ];
    let (width, below) = (LEFT + 2.0 * WIDTH + GAP + 20.0, TOP + HEIGHT + 56.0);
    let height = below + 18.0 * names.len().div_ceil(4) as f64 + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222222\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for panel in &panels {
        frame(&mut out, panel, &cells);
        for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
            curve(&mut out, panel, &cells, name, colour);
        }
    }
    for (at, (name, colour)) in names.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (x, y) = (LEFT + (at % 4) as f64 * 220.0, below + (at / 4) as f64 * 18.0);
        line(&mut out, [x, y, x + 20.0, y], colour, 3.0);
        text(&mut out, x + 26.0, y + 4.0, "start", name);
    }
    out += "</svg>\n";
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_all_values() {
        for most in [0.9, 7.0, 99.0, 100.0, 123_456.0, 640_000.0] {
            let ticks = even_steps(most);
            assert!((2..=12).contains(&ticks.len()) && ticks[0] == 0.0, "{most}: {ticks:?}");
            assert!(ticks[ticks.len() - 1] >= most, "{most}: {ticks:?}");
        }
        assert_eq!(decades(12.0, 2300.0), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(decades(10.0, 10.0), [10.0, 100.0]);
    }

    #[test]
    fn heights_grow_with_values() {
        for logarithmic in [false, true] {
            let panel = Panel::new(0.0, "x", |sample| sample.rate, &[3.0, 500.0], logarithmic);
            assert!(panel.y(500.0) < panel.y(30.0) && panel.y(30.0) < panel.y(3.0));
            assert!(panel.y(500.0) >= TOP && panel.y(3.0) <= TOP + HEIGHT);
        }
    }
}
