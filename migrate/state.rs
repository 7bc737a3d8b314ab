//! How far a run is, in a file of its own: the cursor of each source and database, and some keys that were moved.
//!
//! Guarantees: a file of a run with other arguments is refused, because its cursors have passed by other keys; the file is replaced in one
//! step, so a kill leaves the one before or the one after; a cursor of a server that was started anew, or that is another one by now, is not
//! used. By the run ids of the targets and the keys that were moved the next run sees whether a target still has them. Doing keys again does
//! no harm: the target has them, and they are equal. Leaves to others: moving keys (work).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::outcome::{Outcome, cannot, usage};

/// The cursor behind the last key.
pub const DONE: &str = "done";

pub struct State {
    path: PathBuf,
    /// What the run is for.
    identity: String,
    /// How many keys earlier runs could not move.
    pub unmoved: u64,
    /// By source, database and run id of its server.
    cursors: BTreeMap<(String, u32, String), String>,
    /// The run ids of the targets.
    pub targets: Vec<String>,
    /// Some keys that were moved: target, database and name.
    pub seen: Vec<Seen>,
}

/// A key that was moved: the index of its target, its database and its name there.
pub type Seen = (usize, u32, Vec<u8>);

/// A key's name in the file.
fn hex(name: &[u8]) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

impl State {
    /// The state in this file; nothing, if there is none.
    pub fn read(path: &Path, identity: &str) -> Outcome<Self> {
        let mut unmoved = 0;
        // A file that takes the place of another one is a file.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return usage(format!("--state {} is no regular file: name one that is, or none", path.display()));
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return cannot(format!("the state file {} cannot be read: {error}", path.display())),
        };
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (None, _) => {}
            (Some(known), Some(count)) if known == identity => unmoved = count.parse().unwrap_or_default(),
            _ => {
                return usage(format!(
                    "the state file {} is of a run with other arguments: --clean with those removes it, --state names another one",
                    path.display()
                ));
            }
        }
        let mut state = Self {
            path: path.to_owned(),
            identity: identity.to_owned(),
            unmoved,
            cursors: BTreeMap::new(),
            targets: Vec::new(),
            seen: Vec::new(),
        };
        match lines.try_for_each(|line| state.add(line)) {
            Some(()) => Ok(state),
            None => cannot(format!("{} is no state file: --state names another one", path.display())),
        }
    }

    /// Reads a line. `None`: it is none of this program.
    fn add(&mut self, line: &str) -> Option<()> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["cursor", source, db, run_id, cursor] => {
                let key = (source.to_owned(), db.parse().ok()?, run_id.to_owned());
                self.cursors.insert(key, cursor.to_owned());
            }
            ["target", run_id] => self.targets.push(run_id.to_owned()),
            ["seen", target, db, name] => {
                self.seen.push((target.parse().ok()?, db.parse().ok()?, unhex(name)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// Begins anew. How many keys could not be moved stays.
    pub fn forget(&mut self) {
        self.cursors.clear();
        self.seen.clear();
    }

    /// Whether no run has begun before.
    pub fn is_new(&self) -> bool {
        self.cursors.is_empty()
    }

    /// Whether a run before has read this database of another server at the same place.
    pub fn knew_another(&self, source: &str, db: u32, run_id: &str) -> bool {
        let name = plain(source);
        let mut known =
            self.cursors.keys().filter(|(source, of, _)| *source == name && *of == db).map(|(_, _, id)| id).peekable();
        known.peek().is_some() && known.all(|id| id != run_id)
    }

    /// Where a run goes on.
    pub fn cursor(&self, source: &str, db: u32, run_id: &str) -> String {
        let key = (plain(source), db, run_id.to_owned());
        self.cursors.get(&key).cloned().unwrap_or_else(|| "0".to_owned())
    }

    /// Notes a cursor and how many keys all runs could not move so far, and writes the file.
    pub fn note(&mut self, source: &str, db: u32, run_id: &str, cursor: &str, unmoved: u64) -> Outcome<()> {
        self.cursors.insert((plain(source), db, run_id.to_owned()), cursor.to_owned());
        let line = |((source, db, run_id), cursor): (&(String, u32, String), &String)| {
            format!("cursor {source} {db} {run_id} {cursor}\n")
        };
        let cursors: String = self.cursors.iter().map(line).collect();
        let targets: String = self.targets.iter().map(|run_id| format!("target {run_id}\n")).collect();
        let seen: String =
            self.seen.iter().map(|(target, db, name)| format!("seen {target} {db} {}\n", hex(name))).collect();
        let text = format!("{}\n{unmoved}\n{cursors}{targets}{seen}", self.identity);
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &self.path));
        written.or_else(|error| cannot(format!("the state file {} cannot be written: {error}", self.path.display())))
    }

    /// Removes the file: everything is done, or is to begin anew.
    pub fn remove(path: &Path) -> Outcome<()> {
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return usage(format!("--state {} is no regular file", path.display()));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                cannot(format!("the state file {} cannot be removed: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// A name without blanks.
pub fn plain(name: &str) -> String {
    name.chars().map(|one| if one.is_ascii_alphanumeric() || ".-_:[]".contains(one) { one } else { '_' }).collect()
}
