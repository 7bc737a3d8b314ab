//! Where each key goes: to the one target of a copy, or to the node that a program with these shards computes.
//!
//! Guarantees: the placement is the library's own (`vigie::shard`); the bookkeeping of this program goes nowhere. Leaves to others:
//! moving keys.

use vigie::shard::{Hash, Placement, Tags};

/// What each key of this program begins with.
pub const OWN: &[u8] = b"vigie-migrate:";

/// The shards of a `reshard`.
pub struct Shards {
    placement: Placement,
    tags: Tags,
}

pub struct Layout {
    shards: Option<Shards>,
    /// By source and target: whether they are the same server.
    same: Vec<Vec<bool>>,
}

/// Where a key goes.
pub enum Way<'a> {
    /// To a target, under this name.
    To(usize, &'a [u8]),
    /// It is there already.
    Stays,
    /// It cannot go.
    Nowhere(String),
}

/// The name of a shard, by its index.
pub fn node(at: usize) -> String {
    format!("node_{}", at + 1)
}

impl Layout {
    pub fn copy() -> Self {
        Self { shards: None, same: Vec::new() }
    }

    pub fn shards(hash: Hash, tags: Tags, names: &[String], same: Vec<Vec<bool>>) -> Self {
        Self { shards: Some(Shards { placement: Placement::new(hash, names), tags }), same }
    }

    /// Whether the targets are the shards of a program.
    pub fn has_shards(&self) -> bool {
        self.shards.is_some()
    }

    /// Whether some source is a target as well.
    pub fn is_in_place(&self) -> bool {
        self.same.iter().flatten().any(|same| *same)
    }

    /// Whether a key that a target has is on the right shard.
    pub fn belongs(&self, target: usize, key: &[u8]) -> bool {
        let Some(Shards { placement, tags }) = &self.shards else { return true };
        tags.of(key).is_ok_and(|tagged| placement.shard(tagged.part) == target)
    }

    /// Whether a target is a source as well.
    pub fn reads(&self, target: usize) -> bool {
        self.same.iter().any(|of| of.get(target) == Some(&true))
    }

    /// Whether keys are stored under other names than those that a program gives.
    pub fn strips(&self) -> bool {
        self.shards.as_ref().is_some_and(|shards| shards.tags.strips())
    }

    /// For a key of this database of a source, which goes to that one of its target.
    pub fn way<'a>(&self, source: usize, (from, to): (u32, u32), key: &'a [u8]) -> Way<'a> {
        let Some(Shards { placement, tags }) = &self.shards else { return Way::To(0, key) };
        let tagged = match tags.of(key) {
            Ok(tagged) => tagged,
            Err(error) => return Way::Nowhere(error.message().to_owned()),
        };
        let target = placement.shard(tagged.part);
        let same = self.same.get(source).map(Vec::as_slice).unwrap_or_default();
        // Once it is stored without its tag, another run would take what is left of its name for the whole of it.
        if tagged.stored != key && same.contains(&true) {
            return Way::Nowhere(
                "its tag is not stored with it, so it cannot be moved between servers that are source and target"
                    .to_owned(),
            );
        }
        // Several targets may be one server: a key is where it belongs if its target is the server that it is on, by whichever name.
        match from == to && same.get(target) == Some(&true) {
            true => Way::Stays,
            false => Way::To(target, tagged.stored),
        }
    }
}
