//! Which node gave each cursor of the scans in progress. Pure.
//!
//! Guarantees: the number of cursors is limited, and the oldest are dropped first; a used cursor is replaced by the next one of its
//! scan; the arguments themselves are not kept. Leaves to others: what a node is, and what follows when a cursor belongs to another
//! one (`scan`).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

/// Identifies a cursor together with the command's key and its other arguments.
pub(super) type Key = [u64; 2];

/// A node between two changes of its role, and between two starts of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) generation: u64,
    pub(super) node: Arc<str>,
}

/// Cursors, and the nodes that gave them.
pub(super) struct Cursors {
    hashers: [RandomState; 2],
    entries: HashMap<Key, Cursor>,
    /// By the order in which they were given last.
    ages: VecDeque<(u64, Key)>,
    next: u64,
    most: usize,
}

#[derive(Default)]
struct Cursor {
    /// The nodes, each with the number of its scans that are at this cursor.
    givers: Vec<(Origin, u32)>,
    /// 0: not given yet.
    age: u64,
}

impl Cursors {
    pub(super) fn new(most: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self { hashers, entries: HashMap::new(), ages: VecDeque::new(), next: 1, most }
    }

    /// The key of a cursor that is at position `at` among the arguments of a command, or will be there. COUNT does not matter,
    /// because it may change from call to call.
    pub(super) fn key(&self, args: &[&[u8]], at: usize, cursor: &[u8]) -> Key {
        self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            args.first().map(|name| name.to_ascii_uppercase()).hash(&mut hasher);
            cursor.hash(&mut hasher);
            let mut rest = args.iter().enumerate().skip(1).filter(|(place, _)| *place != at);
            while let Some((place, arg)) = rest.next() {
                match place > at && arg.eq_ignore_ascii_case(b"COUNT") {
                    true => drop(rest.next()),
                    false => arg.hash(&mut hasher),
                }
            }
            hasher.finish()
        })
    }

    /// The nodes that gave this cursor; none if it is unknown.
    pub(super) fn givers(&self, key: &Key) -> impl Iterator<Item = &Origin> {
        self.entries.get(key).into_iter().flat_map(|entry| entry.givers.iter().map(|(origin, _)| origin))
    }

    /// Notes that a scan got this cursor from this node.
    pub(super) fn give(&mut self, key: Key, origin: Origin) {
        let entry = self.entries.entry(key).or_default();
        take_out(&mut self.ages, entry.age);
        entry.age = self.next;
        self.ages.push_back((self.next, key));
        self.next += 1;
        // A cursor of an earlier generation of the node could not be told from this one.
        entry.givers.retain(|(other, _)| other.node != origin.node || other.generation == origin.generation);
        match entry.givers.iter_mut().find(|(other, _)| *other == origin) {
            Some((_, scans)) => *scans += 1,
            None => entry.givers.push((origin, 1)),
        }
        while self.entries.len() > self.most {
            let Some((_, oldest)) = self.ages.pop_front() else { return };
            self.entries.remove(&oldest);
        }
    }

    /// Notes that a scan continued from this cursor on the node that gave it.
    pub(super) fn take(&mut self, key: &Key, generation: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        for (origin, scans) in &mut entry.givers {
            *scans -= u32::from(origin.generation == generation);
        }
        entry.givers.retain(|(_, scans)| *scans > 0);
        if entry.givers.is_empty() {
            self.forget(key);
        }
    }

    /// Drops a cursor that is no longer valid.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            take_out(&mut self.ages, entry.age);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.ages.len());
        self.entries.len()
    }
}

/// Takes the entry of this age out of a list in the order of ages, if it is there.
fn take_out(ages: &mut VecDeque<(u64, Key)>, age: u64) {
    if let Ok(at) = ages.binary_search_by_key(&age, |(age, _)| *age) {
        ages.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(generation: u64, node: &str) -> Origin {
        Origin { generation, node: node.into() }
    }

    fn key(cursors: &Cursors, command: &str, at: usize) -> Key {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        cursors.key(&args, at, args[at])
    }

    fn generations(cursors: &Cursors, key: &Key) -> Vec<u64> {
        cursors.givers(key).map(|origin| origin.generation).collect()
    }

    #[test]
    fn a_scan_is_its_command_its_key_and_its_arguments_but_count() {
        let cursors = Cursors::new(9);
        let same = |a: (&str, usize), b: (&str, usize)| key(&cursors, a.0, a.1) == key(&cursors, b.0, b.1);
        assert!(same(("scan 17 MATCH a* COUNT 10", 1), ("SCAN 17 MATCH a*", 1)));
        assert!(same(("HSCAN h 5 count 1 NOVALUES", 2), ("HSCAN h 5 COUNT 200 NOVALUES", 2)));
        for (a, b) in [
            (("SCAN 17", 1), ("SCAN 18", 1)),
            (("SCAN 17 MATCH a*", 1), ("SCAN 17 MATCH b*", 1)),
            (("SCAN 17 MATCH a*", 1), ("SCAN 17", 1)),
            (("HSCAN h 17", 2), ("SSCAN h 17", 2)),
            (("HSCAN h 17", 2), ("HSCAN i 17", 2)),
            (("HSCAN COUNT 17", 2), ("HSCAN h 17", 2)),
            (("HSCAN 1 7", 2), ("HSCAN 17 7", 2)),
        ] {
            assert!(!same(a, b), "{a:?} {b:?}");
        }
        let args: [&[u8]; 2] = [b"SCAN", b"0"];
        assert_eq!(
            cursors.key(&args, 1, b"17"),
            key(&cursors, "SCAN 17", 1),
            "the next cursor takes the place of the last"
        );
    }

    #[test]
    fn a_cursor_that_is_used_is_gone_unless_another_scan_is_there_too() {
        let mut cursors = Cursors::new(9);
        let at = key(&cursors, "SCAN 17", 1);
        cursors.give(at, origin(1, "a"));
        cursors.give(at, origin(1, "a"));
        cursors.give(at, origin(2, "b"));
        assert_eq!(generations(&cursors, &at), [1, 2]);
        cursors.take(&at, 1);
        assert_eq!(generations(&cursors, &at), [1, 2], "two scans were there");
        cursors.take(&at, 1);
        cursors.take(&at, 1);
        assert_eq!(generations(&cursors, &at), [2]);
        cursors.take(&at, 2);
        assert_eq!((cursors.len(), generations(&cursors, &at)), (0, vec![]));
        cursors.give(at, origin(3, "c"));
        cursors.forget(&at);
        cursors.forget(&at);
        assert_eq!(cursors.len(), 0);
    }

    #[test]
    fn a_node_gives_in_its_last_generation_only() {
        let mut cursors = Cursors::new(9);
        let at = key(&cursors, "SCAN 17", 1);
        [(1, "a"), (2, "b"), (3, "a")].into_iter().for_each(|(g, node)| cursors.give(at, origin(g, node)));
        assert_eq!(generations(&cursors, &at), [2, 3]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut cursors = Cursors::new(3);
        let keys: Vec<Key> = (0..5).map(|n| key(&cursors, &format!("SCAN {n}"), 1)).collect();
        keys[..3].iter().for_each(|key| cursors.give(*key, origin(1, "a")));
        assert_eq!(cursors.len(), 3);
        // Given once more: it is the youngest.
        cursors.give(keys[0], origin(1, "a"));
        keys[3..].iter().for_each(|key| cursors.give(*key, origin(1, "a")));
        let known: Vec<bool> = keys.iter().map(|key| !generations(&cursors, key).is_empty()).collect();
        assert_eq!((known, cursors.len()), (vec![true, false, false, true, true], 3));
        // The first of all is the oldest, too.
        let mut cursors = Cursors::new(3);
        keys[..4].iter().for_each(|key| cursors.give(*key, origin(1, "a")));
        let known: Vec<bool> = keys[..4].iter().map(|key| !generations(&cursors, key).is_empty()).collect();
        assert_eq!(known, [false, true, true, true]);
    }
}
