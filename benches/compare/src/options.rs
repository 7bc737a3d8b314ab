//! What the command line and the script say.

use std::path::PathBuf;
use std::time::Duration;

use crate::drive::Span;
use crate::fail;

/// The parts of the run, in their order; `--only` names them.
pub const SECTIONS: [&str; 6] = ["threads", "sizes", "lists", "pipelines", "submit", "replicas"];

const HELP: &str = "\
options of make bench BENCH_ARGS='...':
  --quick        one short round: shows that everything works; the figures mean nothing
  --rounds N     rounds of each cell (5)
  --only NAME    one part: threads, sizes, lists, pipelines, submit or replicas; may be given several times
  --json FILE    everything, all rounds
  --svg FILE     a plot of throughput and p99 against threads
  --md FILE      the tables, between the marks <!-- bench --> and <!-- /bench --> of a file that has them";

/// What was asked for.
pub struct Options {
    /// Short and without meaning.
    pub quick: bool,
    /// How often every candidate of a cell runs.
    pub rounds: usize,
    only: Vec<String>,
    /// Where the tables go.
    pub markdown: Option<PathBuf>,
    /// Where the numbers go.
    pub json: Option<PathBuf>,
    /// Where the plot goes.
    pub svg: Option<PathBuf>,
    /// The words as they were given.
    pub words: Vec<String>,
}

impl Options {
    /// From the command line; a wrong one ends the program.
    pub fn read() -> Self {
        Self::parse(std::env::args().skip(1).collect()).unwrap_or_else(|e| fail(format!("{e}\n{HELP}")))
    }

    fn parse(words: Vec<String>) -> Result<Self, String> {
        let mut rest = words.iter();
        let mut options = Self {
            quick: false,
            rounds: 0,
            only: Vec::new(),
            markdown: None,
            json: None,
            svg: None,
            words: words.clone(),
        };
        while let Some(word) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => {
                    let rounds = value()?.parse().ok().filter(|n| (1..=1000).contains(n));
                    options.rounds = rounds.ok_or("--rounds wants a number from 1 to 1000")?;
                }
                "--only" => {
                    let name = value()?;
                    if !SECTIONS.contains(&name.as_str()) {
                        return Err(format!("--only knows no {name}"));
                    }
                    options.only.push(name.clone());
                }
                "--md" => options.markdown = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                other => return Err(format!("{other} is no option")),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 1 } else { 5 };
        }
        Ok(options)
    }

    /// Whether a part of the run was asked for.
    pub fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == section)
    }

    /// How long one measurement takes; so many milliseconds of it count in a full run.
    pub fn span(&self, counted: u64) -> Span {
        let (warm, counted) = if self.quick { (5, 20) } else { (counted / 5, counted) };
        Span { warm: Duration::from_millis(warm), counted: Duration::from_millis(counted) }
    }
}

/// What scripts/bench says by a variable of the environment.
pub fn told(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| fail(format!("{variable} is not set: run me by make bench")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn each_option_is_taken() {
        let options = parse("--only submit --only sizes --rounds 7 --json a --svg b --md c").expect("all are known");
        assert_eq!((options.rounds, options.quick), (7, false));
        assert!(options.wants("submit") && options.wants("sizes") && !options.wants("threads"));
        assert_eq!(options.json.as_deref(), Some("a".as_ref()));
        assert_eq!(options.svg.as_deref(), Some("b".as_ref()));
        assert_eq!(options.markdown.as_deref(), Some("c".as_ref()));
        let quick = parse("--quick").expect("known");
        assert_eq!(quick.rounds, 1);
        assert!(SECTIONS.iter().all(|section| quick.wants(section)));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in ["--rounds", "--rounds 0", "--rounds x", "--only all", "--md", "bench"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
