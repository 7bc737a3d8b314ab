//! How far it is, on stderr: one line that is written over on a terminal, else a line for each cell.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Tells how far it is.
pub struct Progress {
    began: Instant,
    terminal: bool,
    cells: usize,
}

impl Progress {
    /// So many cells are to come.
    pub fn new(cells: usize) -> Self {
        Self { began: Instant::now(), terminal: stderr().is_terminal(), cells }
    }

    /// A measurement begins: of this cell, counted from 0, of this candidate; `part` of the cell is done.
    pub fn step(&self, cell: usize, part: f64, title: &str, who: &str) {
        let number = cell + 1;
        if self.terminal {
            let left = self.left((cell as f64 + part) / self.cells as f64);
            let line = format!("[{number}/{}] {title}: {who}{left}", self.cells);
            let _ = write!(stderr(), "\r\x1b[K{line:.110}");
        } else if part == 0.0 {
            let _ = writeln!(stderr(), "[{number}/{}] {title}", self.cells);
        }
    }

    /// All cells are done.
    pub fn end(&self) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(stderr(), "{clear}measured for {} s", self.began.elapsed().as_secs());
    }

    fn left(&self, done: f64) -> String {
        let spent = self.began.elapsed();
        if spent < Duration::from_secs(3) || done <= 0.0 {
            return String::new();
        }
        format!(" ({:.0} s left)", spent.as_secs_f64() * (1.0 - done) / done)
    }
}
