//! The digests of both sides.
//!
//! Guarantees: the order of keys does not count, the order of a list does; a key counts with its database, its name at the target, its
//! value and the second of its end. Leaves to others: what a value is (value).

use crate::layout::{OWN, Way};
use crate::outcome::{Outcome, cannot, shown};
use crate::place::Place;
use crate::read::{self, Read};
use crate::value::key_mark;
use crate::work::{Work, scan};

impl Work<'_> {
    /// Of the sources and of the targets.
    pub fn digests(&self) -> Outcome<[u128; 2]> {
        let (mut source, mut target) = (0u128, 0u128);
        for (at, place) in self.sources.iter().enumerate() {
            for (from, to) in self.databases(at) {
                self.side(place, from, &mut |key, entry| {
                    match self.layout.way(at, (from, to), key) {
                        Way::To(_, name) => source = source.wrapping_add(key_mark(to, name, entry)),
                        Way::Stays => source = source.wrapping_add(key_mark(to, key, entry)),
                        Way::Nowhere(_) => {}
                    };
                })?;
            }
        }
        let mut dbs: Vec<u32> = (0..self.sources.len()).flat_map(|at| self.databases(at)).map(|(_, to)| to).collect();
        dbs.sort_unstable();
        dbs.dedup();
        for place in self.targets {
            for db in &dbs {
                self.side(place, *db, &mut |key, entry| target = target.wrapping_add(key_mark(*db, key, entry)))?;
            }
        }
        Ok([source, target])
    }

    fn side(&self, place: &Place, db: u32, each: &mut dyn FnMut(&[u8], &crate::value::Entry)) -> Outcome<()> {
        let client = place.client(db)?;
        let (mut cursor, mut seen) = ("0".to_owned(), std::collections::HashSet::new());
        loop {
            let (page, next) = scan(place, &client, &cursor, self.wanted)?;
            // SCAN may give a key twice.
            let keys: Vec<&[u8]> = page.iter().map(Vec::as_slice).filter(|key| !key.starts_with(OWN)).collect();
            let keys: Vec<&[u8]> = keys.into_iter().filter(|key| seen.insert(key.to_vec())).collect();
            for (key, one) in keys.iter().zip(read::read(read::From { place, client: &client }, &keys)?) {
                match one {
                    Read::Entry(entry) => each(key, &entry),
                    Read::Gone => {}
                    Read::Not(why) => return cannot(format!("no digest: {} of {}: {why}", shown(key), place.name)),
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
