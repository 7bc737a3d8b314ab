//! What a run comes to: its exit status, its counts, and what is told at its end.
//!
//! Guarantees: a name of a key commands no terminal and breaks no JSON; the list of names is bounded, and says how many it leaves out.
//! Leaves to others: counting (work, verify).

use std::fmt::Write as _;

use vigie::error::Error;

/// Exit statuses.
pub const DONE: u8 = 0;
/// Something was not moved, or differs.
pub const UNMOVED: u8 = 1;
pub const USAGE: u8 = 2;
/// It could not run, or not to its end.
pub const CANNOT: u8 = 3;
/// Names that are kept.
const MOST_NAMES: usize = 1000;

/// Why a run ends before its end.
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub text: String,
}

pub type Outcome<T> = Result<T, Failure>;

/// Bad arguments.
pub fn usage<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure { status: USAGE, text: text.into() })
}

/// It could not run.
pub fn cannot<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure { status: CANNOT, text: text.into() })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: CANNOT, text: format!("{} ({})", error.message(), error.status().info().name) }
    }
}

/// What became of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was written to its target.
    Moved,
    /// Its target had it already, with the same value.
    Equal,
    /// It is where it belongs.
    Stayed,
    /// It expired or was deleted before it could be read.
    Gone,
    /// Its target has another value under its name.
    Kept,
    /// It could not go.
    Failed,
    /// Deleted at the source, because its target has it.
    Deleted,
    /// Not deleted at the source, because its target has it not.
    Undeleted,
}

pub const FATES: [(Fate, &str); 8] = [
    (Fate::Moved, "moved"),
    (Fate::Equal, "equal"),
    (Fate::Stayed, "stayed"),
    (Fate::Gone, "gone"),
    (Fate::Kept, "kept"),
    (Fate::Failed, "failed"),
    (Fate::Deleted, "deleted"),
    (Fate::Undeleted, "undeleted"),
];

/// A key of which something is to be said.
struct Named {
    key: String,
    db: u32,
    why: String,
}

/// Counts, and the names of keys that were not moved.
#[derive(Default)]
pub struct Tally {
    counts: [u64; FATES.len()],
    names: Vec<Named>,
    left_off: u64,
}

impl Tally {
    pub fn count(&mut self, fate: Fate, more: u64) {
        self.counts[fate as usize] += more;
    }

    /// Counts a key, and keeps its name.
    pub fn name(&mut self, fate: Fate, key: &[u8], db: u32, why: impl Into<String>) {
        self.count(fate, 1);
        match self.names.len() < MOST_NAMES {
            true => self.names.push(Named { key: shown(key), db, why: why.into() }),
            false => self.left_off += 1,
        }
    }

    /// How many keys are not at their targets.
    pub fn unmoved(&self) -> u64 {
        self.of(Fate::Kept) + self.of(Fate::Failed)
    }

    pub fn of(&self, fate: Fate) -> u64 {
        self.counts[fate as usize]
    }

    pub fn add(&mut self, other: Tally) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, more)| *mine += more);
        self.left_off += other.left_off;
        let room = MOST_NAMES.saturating_sub(self.names.len());
        self.left_off += other.names.len().saturating_sub(room) as u64;
        self.names.extend(other.names.into_iter().take(room));
    }

    /// Takes over from a look at all keys before: what was moved then is equal now.
    pub fn follow(&mut self, first: &Tally) {
        let moved = first.of(Fate::Moved);
        let equal = self.counts[Fate::Equal as usize];
        self.counts[Fate::Equal as usize] = equal.saturating_sub(moved);
        self.counts[Fate::Moved as usize] += moved;
    }

    /// All keys of the source that were looked at.
    pub fn keys(&self) -> u64 {
        FATES
            .iter()
            .filter(|(fate, _)| !matches!(fate, Fate::Deleted | Fate::Undeleted))
            .map(|(fate, _)| self.of(*fate))
            .sum()
    }
}

/// What is told at the end.
#[derive(Default)]
pub struct Report {
    pub mode: &'static str,
    pub is_dry: bool,
    pub is_complete: bool,
    pub tally: Tally,
    /// How many keys earlier runs, which this one went on with, could not move.
    pub unmoved_before: u64,
    pub seconds: f64,
    /// Of the source and of the target.
    pub digests: Option<[u128; 2]>,
    /// Which shard a key is on: hash and tags.
    pub placement: Option<(&'static str, &'static str)>,
    /// In a dry run: how many keys each target would get.
    pub placed: Vec<(String, u64)>,
    /// How many keys the targets have given up meanwhile for want of memory.
    pub evicted: u64,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// Of --clean: how many keys of the bookkeeping it has removed.
    pub removed: Option<u64>,
}

impl Report {
    /// Whether everything is at its target.
    pub fn is_clean(tally: &Tally) -> bool {
        tally.unmoved() == 0 && tally.of(Fate::Undeleted) == 0
    }

    pub fn status(&self) -> u8 {
        let is_bad = !Self::is_clean(&self.tally) || (self.is_complete && self.unmoved_before > 0);
        let differs = self.digests.is_some_and(|[source, target]| source != target);
        if is_bad || differs || self.evicted > 0 { UNMOVED } else { DONE }
    }

    fn rate(&self) -> f64 {
        self.tally.keys() as f64 / self.seconds.max(0.001)
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(removed) = self.removed {
            return format!("cleaned: the state file and {removed} keys of the bookkeeping are gone\n");
        }
        if let Some((hash, tags)) = self.placement {
            let _ = writeln!(out, "keys are placed by {hash}, tags: {tags}");
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {}", line(note));
        }
        if self.evicted > 0 {
            let _ = writeln!(
                out,
                "the targets evicted {} keys while the run was under way: they want memory (maxmemory); --digest says whether all is there",
                self.evicted
            );
        }
        for named in &self.tally.names {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}  db {}  {}", named.key, named.db, line(&named.why));
        }
        if self.tally.left_off > 0 {
            let _ = writeln!(out, "and {} others", self.tally.left_off);
        }
        if self.unmoved_before > 0 {
            let keys = self.unmoved_before;
            let _ = writeln!(
                out,
                "{keys} keys were not moved by the runs that this one went on with: run it once more to have them named"
            );
        }
        for (target, keys) in &self.placed {
            let _ = writeln!(out, "{target}: {keys} keys");
        }
        if let Some([source, target]) = self.digests {
            let word = if source == target { "equal" } else { "different" };
            let _ = writeln!(out, "digests: source {source:032x}, target {target:032x}: {word}");
        }
        let counts: Vec<String> = FATES
            .iter()
            .filter(|(fate, _)| self.tally.of(*fate) > 0)
            .map(|(fate, word)| format!("{} {word}", self.tally.of(*fate)))
            .collect();
        let dry = if self.is_dry { "dry run: " } else { "" };
        let end = if self.is_complete { "" } else { "; there is more: run it again" };
        let counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
        let _ = writeln!(
            out,
            "{dry}{} keys: {counts}; {:.1} s, {:.0} keys/s{end}",
            self.tally.keys(),
            self.seconds,
            self.rate()
        );
        out
    }

    pub fn json(&self) -> String {
        let mut out = format!(
            "{{\"version\":\"{}\",\"status\":{},\"mode\":\"{}\",\"dry_run\":{},\"complete\":{},\"keys\":{}",
            env!("CARGO_PKG_VERSION"),
            self.status(),
            self.mode,
            self.is_dry,
            self.is_complete,
            self.tally.keys()
        );
        for (fate, word) in FATES {
            let _ = write!(out, ",\"{word}\":{}", self.tally.of(fate));
        }
        let _ = write!(out, ",\"unmoved_before\":{},\"evicted\":{}", self.unmoved_before, self.evicted);
        if let Some((hash, tags)) = self.placement {
            let _ = write!(out, ",\"hash\":\"{hash}\",\"tags\":\"{tags}\"");
        }
        let notes: Vec<String> = self.notes.iter().map(|note| quoted(note)).collect();
        let _ = write!(out, ",\"notes\":[{}]", notes.join(","));
        if let Some(removed) = self.removed {
            let _ = write!(out, ",\"removed\":{removed}");
        }
        let _ = write!(out, ",\"seconds\":{:.3},\"rate\":{:.0}", self.seconds, self.rate());
        if let Some([source, target]) = self.digests {
            let _ = write!(out, ",\"digests\":{{\"source\":\"{source:032x}\",\"target\":\"{target:032x}\"}}");
        }
        let placed: Vec<String> =
            self.placed.iter().map(|(target, keys)| format!("{}:{keys}", quoted(target))).collect();
        if !placed.is_empty() {
            let _ = write!(out, ",\"targets\":{{{}}}", placed.join(","));
        }
        let names: Vec<String> = self.tally.names.iter().map(Named::json).collect();
        let _ = writeln!(out, ",\"names\":[{}],\"names_left_off\":{}}}", names.join(","), self.tally.left_off);
        out
    }
}

impl Named {
    fn json(&self) -> String {
        format!("{{\"key\":{},\"db\":{},\"why\":{}}}", quoted(&self.key), self.db, quoted(&self.why))
    }
}

/// The JSON object of a run that could not be.
pub fn failure(failure: &Failure) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let text = quoted(&masked(&failure.text));
    format!("{{\"version\":\"{version}\",\"status\":{},\"error\":{text}}}\n", failure.status)
}

/// A key as redis-cli shows it: printable ASCII as it is, any other byte as `\xHH`.
pub fn shown(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len() + 2);
    out.push('"');
    for byte in key {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
    out.push('"');
    out
}

/// A text of a server as one line, without what a terminal takes for a command.
pub fn line(text: &str) -> String {
    text.chars()
        .flat_map(|one| if one.is_control() { one.escape_default().collect::<Vec<_>>() } else { vec![one] })
        .collect()
}

/// A text without what stands in front of the '@' of a URI.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for row in text.split_inclusive('\n') {
        match row.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => _ = write!(out, "{scheme}://***@{rest}"),
            None => out.push_str(row),
        }
    }
    out
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for one in text.chars() {
        match one {
            '"' | '\\' => out.extend(['\\', one]),
            one if one.is_control() => _ = write!(out, "\\u{:04x}", u32::from(one)),
            one => out.push(one),
        }
    }
    out + "\""
}
