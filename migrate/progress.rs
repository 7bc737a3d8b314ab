//! How far a database is done while several of its pages are under way.
//!
//! Guarantees: a cursor is given out only when all pages before it are done, and only for the server that gave it. Pure: no clock and no
//! socket. Leaves to others: reading and moving pages (work), keeping the cursor (state).

use std::collections::BTreeMap;

use crate::outcome::Tally;
use crate::state::DONE;

pub struct Progress {
    /// The server that was the primary when it was last asked.
    pub run_id: String,
    /// The first page that is surely that server's.
    since: u64,
    /// Behind the last page that was read.
    pub next: String,
    /// Whether all pages were read.
    pub is_read: bool,
    /// How many pages were read, and how many of these are done without a gap.
    read: u64,
    done: u64,
    /// Up to where cursors were given out.
    noted: u64,
    /// By page the cursor behind it, for those that are not done.
    behind: BTreeMap<u64, String>,
    /// Behind the last page that is done without a gap.
    reached: String,
    /// Pages that are done, with a page before them that is not.
    early: BTreeMap<u64, Tally>,
}

impl Progress {
    pub fn new(run_id: String, cursor: String) -> Self {
        let (behind, early) = (BTreeMap::new(), BTreeMap::new());
        Self {
            run_id,
            since: 0,
            reached: cursor.clone(),
            next: cursor,
            is_read: false,
            read: 0,
            done: 0,
            noted: 0,
            behind,
            early,
        }
    }

    /// A page was read, and this is the cursor behind it. Returns its number.
    pub fn read(&mut self, next: String) -> u64 {
        self.is_read = next == "0";
        self.behind.insert(self.read, if self.is_read { DONE.to_owned() } else { next.clone() });
        self.next = next;
        self.read += 1;
        self.read - 1
    }

    /// A page is done. It is counted when all before it are, so that nothing is counted by this run and again by the one that goes on.
    pub fn done(&mut self, number: u64, tally: Tally, all: &mut Tally) {
        self.early.insert(number, tally);
        while let Some(tally) = self.early.remove(&self.done) {
            all.add(tally);
            self.reached = self.behind.remove(&self.done).unwrap_or_default();
            self.done += 1;
        }
    }

    /// How many pages were read, and are not done.
    pub fn under_way(&self) -> usize {
        self.behind.len() - self.early.len()
    }

    pub fn unnoted(&self) -> u64 {
        self.done - self.noted
    }

    pub fn is_over(&self) -> bool {
        self.is_read && self.behind.is_empty()
    }

    /// The cursor to keep, if it is of this server, which is the primary now.
    pub fn cursor_of(&mut self, run_id: String) -> Option<String> {
        self.noted = self.done;
        if run_id != self.run_id {
            // Any of the pages that were read may be of either.
            (self.run_id, self.since) = (run_id, self.read);
        }
        (self.done > self.since || self.since == 0).then(|| self.reached.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Fate;

    fn moved(keys: u64) -> Tally {
        let mut tally = Tally::default();
        tally.count(Fate::Moved, keys);
        tally
    }

    #[test]
    fn a_cursor_waits_for_the_pages_before_it_and_so_do_their_counts() {
        let (mut progress, mut all) = (Progress::new("a".into(), "0".into()), Tally::default());
        assert_eq!([progress.read("7".into()), progress.read("9".into()), progress.read("0".into())], [0, 1, 2]);
        assert!(progress.is_read && progress.under_way() == 3);
        progress.done(2, moved(1), &mut all);
        progress.done(1, moved(2), &mut all);
        assert_eq!((progress.under_way(), progress.unnoted(), all.keys()), (1, 0, 0));
        assert_eq!(progress.cursor_of("a".into()).as_deref(), Some("0"));
        progress.done(0, moved(4), &mut all);
        assert!(progress.is_over() && progress.unnoted() == 3 && all.keys() == 7);
        assert_eq!(progress.cursor_of("a".into()).as_deref(), Some(DONE));
    }

    #[test]
    fn a_cursor_that_another_server_may_have_given_is_not_kept() {
        let (mut progress, mut all) = (Progress::new("a".into(), "0".into()), Tally::default());
        progress.read("7".into());
        progress.read("9".into());
        progress.done(0, moved(1), &mut all);
        assert_eq!(progress.cursor_of("b".into()), None, "it was read before the change was seen");
        progress.done(1, moved(1), &mut all);
        assert_eq!(progress.cursor_of("b".into()), None);
        progress.read("11".into());
        progress.done(2, moved(1), &mut all);
        assert_eq!(progress.cursor_of("b".into()).as_deref(), Some("11"));
        assert_eq!(progress.run_id, "b");
    }
}
