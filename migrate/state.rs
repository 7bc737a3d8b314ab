//! How far a run is, in a file beside the data: the cursor of each source and database.
//!
//! Guarantees: a file of a run with other arguments is refused, because its cursors have passed by other keys; the file is replaced in one step, so a kill leaves the one before or the one after; a cursor of a server that was started
//! anew, or that is another one by now, is not used. Doing keys again does no harm: the target has them, and they are equal. Leaves to
//! others: moving keys (work).

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
}

impl State {
    /// The state in this file; nothing, if there is none.
    pub fn read(path: &Path, identity: &str) -> Outcome<Self> {
        let (mut cursors, mut unmoved) = (BTreeMap::new(), 0);
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
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [source, db, run_id, cursor] = words[..] else {
                return cannot(format!("{} is no state file: --state names another one", path.display()));
            };
            cursors.insert((source.to_owned(), db.parse().unwrap_or_default(), run_id.to_owned()), cursor.to_owned());
        }
        Ok(Self { path: path.to_owned(), identity: identity.to_owned(), unmoved, cursors })
    }

    /// Whether no run has begun before.
    pub fn is_new(&self) -> bool {
        self.cursors.is_empty()
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
            format!("{source} {db} {run_id} {cursor}\n")
        };
        let cursors: String = self.cursors.iter().map(line).collect();
        let text = format!("{}\n{unmoved}\n{cursors}", self.identity);
        let beside = self.path.with_extension("new");
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &self.path));
        written.or_else(|error| cannot(format!("the state file {} cannot be written: {error}", self.path.display())))
    }

    /// Removes the file: everything is done, or is to begin anew.
    pub fn remove(path: &Path) -> Outcome<()> {
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
