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
    /// For each source the target that is the same server.
    same: Vec<Option<usize>>,
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

impl Layout {
    pub fn copy() -> Self {
        Self { shards: None, same: vec![None] }
    }

    pub fn shards(hash: Hash, tags: Tags, names: &[String], same: Vec<Option<usize>>) -> Self {
        Self { shards: Some(Shards { placement: Placement::new(hash, names), tags }), same }
    }

    /// Whether some source is a target as well.
    pub fn is_in_place(&self) -> bool {
        self.same.iter().any(Option::is_some)
    }

    pub fn way<'a>(&self, source: usize, key: &'a [u8]) -> Way<'a> {
        let Some(Shards { placement, tags }) = &self.shards else { return Way::To(0, key) };
        let tagged = match tags.of(key) {
            Ok(tagged) => tagged,
            Err(error) => return Way::Nowhere(error.message().to_owned()),
        };
        let target = placement.shard(tagged.part);
        match self.same.get(source).copied().flatten() {
            // Once it is stored without its tag, another run would take what is left of its name for the whole of it.
            Some(_) if tagged.stored != key => Way::Nowhere(
                "its tag is not stored with it, so it cannot be moved between servers that are source and target"
                    .to_owned(),
            ),
            Some(own) if own == target => Way::Stays,
            _ => Way::To(target, tagged.stored),
        }
    }
}
