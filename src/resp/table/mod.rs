//! The command table: whether a command only reads, blocks, or changes its connection, and where its keys are.
//!
//! Guarantees: a command is READ only if it certainly changes nothing, and an unknown command is not; a lookup neither allocates
//! nor scans. Covers Redis 7.0 to 8.x with its modules, and Valkey 8 and 9. Leaves to others: the rows (`rows`), what follows from
//! the flags.

mod class;
mod keys;
mod rows;
mod spec;

pub use class::{Blocks, Class, classify};
pub use keys::{Named, Places, named};
pub use spec::{Flags, Keys, Spec, Writes};

/// Slots of the index: a power of two, at least twice the rows, so that a probe is short.
const SLOTS: usize = 2048;
/// A slot without a row.
const EMPTY: u16 = u16::MAX;

/// Where each name is in [`rows::SPECS`], by its hash; a taken slot leads on to the next.
static INDEX: [u16; SLOTS] = index();

const fn index() -> [u16; SLOTS] {
    let mut slots = [EMPTY; SLOTS];
    let mut row = 0;
    while row < rows::SPECS.len() {
        let mut slot = hash(SEED, rows::SPECS[row].name.as_bytes()) as usize % SLOTS;
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = row as u16;
        row += 1;
    }
    slots
}

const SEED: u32 = 0x811c_9dc5;

/// FNV-1a over letters without their case.
const fn hash(seed: u32, name: &[u8]) -> u32 {
    let mut hash = seed;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ (name[at] & 0xdf) as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash ^ hash >> 15
}

/// What is known about a command, in any case of letters.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > rows::LONGEST {
        return None;
    }
    probe(hash(SEED, name), |spec| spec.space == 0 && is_same(spec.name.as_bytes(), name))
}

/// What is known about a sub-command of a container.
pub fn lookup2(container: &[u8], sub: &[u8]) -> Option<&'static Spec> {
    let len = container.len() + 1 + sub.len();
    if len > rows::LONGEST {
        return None;
    }
    let mut name = [b' '; rows::LONGEST];
    name[..container.len()].copy_from_slice(container);
    name[container.len() + 1..len].copy_from_slice(sub);
    let name = &name[..len];
    probe(hash(SEED, name), |spec| usize::from(spec.space) == container.len() && is_same(spec.name.as_bytes(), name))
}

/// Whether two names differ at most in upper and lower case. A loop of its own, which takes less than a call where the library is built for size.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

fn probe(hash: u32, is_it: impl Fn(&Spec) -> bool) -> Option<&'static Spec> {
    let mut slot = hash as usize % SLOTS;
    // An empty slot ends the search; there are always some.
    while let Some(spec) = rows::SPECS.get(usize::from(INDEX[slot])) {
        if is_it(spec) {
            return Some(spec);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Every row.
pub fn all() -> &'static [Spec] {
    &rows::SPECS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_name_only() {
        for spec in all() {
            let lower = spec.name.to_ascii_lowercase();
            let found = match lower.split_once(' ') {
                None => lookup(lower.as_bytes()),
                Some((container, sub)) => {
                    assert!(lookup(lower.as_bytes()).is_none(), "{lower} is no single word");
                    assert!(
                        lookup(container.as_bytes()).is_some_and(|spec| spec.flags.has(Flags::CONTAINER)),
                        "{lower}"
                    );
                    lookup2(container.as_bytes(), sub.as_bytes())
                }
            };
            assert!(found.is_some_and(|found| std::ptr::eq(found, spec)), "{}", spec.name);
        }
        let longest = "X".repeat(1000);
        for unknown in ["", "G", "GETT", "NOSUCH", "CLIENT", longest.as_str()] {
            assert!(lookup2(b"GET", unknown.as_bytes()).is_none());
            assert!(unknown == "CLIENT" || lookup(unknown.as_bytes()).is_none());
        }
        assert!(lookup2(b"", b"").is_none() && lookup2(b"CLIENT", b"").is_none());
    }

    #[test]
    fn flags_do_not_contradict_each_other() {
        for Spec { name, flags, .. } in all() {
            assert!(!(flags.has(Flags::READ) && flags.has_any(Flags::STATE.and(Flags::REPEAT))), "{name}");
            assert!(!(flags.has(Flags::SUBSCRIBE) || flags.has(Flags::TXN)) || flags.has(Flags::STATE), "{name}");
            assert!(!flags.has(Flags::CONTAINER) || !flags.has(Flags::ARGS), "{name}");
        }
    }

    #[test]
    fn a_probe_is_short() {
        let taken = |slot: &usize| INDEX[slot % SLOTS] != EMPTY;
        let longest = (0..SLOTS).map(|slot| (slot..).take_while(taken).count()).max();
        assert!(longest.is_some_and(|longest| longest <= 16), "{longest:?}");
    }
}
