//! The value of a key, apart from how a server stores it: what goes type by type, and what is compared.
//!
//! Guarantees: two values have the same mark if and only if (but for a collision of 128 bits) a program could not tell them apart, with
//! the exceptions that docs/migrate.md names: since when an entry of a stream is pending, and how many entries were ever added. Leaves to
//! others: asking for values (read), writing them (write).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The fields of a hash: each with its value, and when it expires.
pub type Fields = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

/// An entry of a stream: its id, and its fields and values one after the other.
pub type StreamEntry = (Vec<u8>, Vec<Vec<u8>>);

/// The commands that make a value.
pub enum Value {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    /// Each field with its value, and when it expires (Unix time in ms).
    Fields(Fields),
    /// Each member with its score.
    Scores(BTreeMap<Vec<u8>, f64>),
    Stream(Stream),
}

#[derive(Default)]
pub struct Stream {
    pub entries: Vec<StreamEntry>,
    pub last: Vec<u8>,
    /// Since Redis 7.0.
    pub added: Option<i64>,
    pub max_deleted: Option<Vec<u8>>,
    pub groups: Vec<Group>,
}

#[derive(Default)]
pub struct Group {
    pub name: Vec<u8>,
    pub last: Vec<u8>,
    pub read: Option<i64>,
    pub consumers: BTreeSet<Vec<u8>>,
    pub pending: Vec<Pending>,
}

pub struct Pending {
    pub id: Vec<u8>,
    pub consumer: Vec<u8>,
    /// When it was delivered last: Unix time in ms.
    pub delivered: i64,
    pub times: i64,
}

/// A key with its value.
pub struct Entry {
    pub value: Value,
    /// Unix time in ms.
    pub expires: Option<i64>,
}

/// 128 bits of a text: two hashes with different beginnings.
#[derive(Clone)]
struct Marker([DefaultHasher; 2]);

impl Marker {
    fn new(kind: u8) -> Self {
        let mut hashers = [DefaultHasher::new(), DefaultHasher::new()];
        hashers.iter_mut().zip([0u8, 1]).for_each(|(hasher, side)| (side, kind).hash(hasher));
        Self(hashers)
    }

    fn add(&mut self, part: impl Hash) {
        self.0.iter_mut().for_each(|hasher| part.hash(hasher));
    }

    fn mark(&self) -> u128 {
        let [high, low] = self.0.each_ref().map(Hasher::finish);
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Value {
    /// The same for equal values.
    pub fn mark(&self) -> u128 {
        match self {
            Self::Text(text) => marked(1, |marker| marker.add(text)),
            Self::List(items) => marked(2, |marker| marker.add(items)),
            Self::Set(members) => marked(3, |marker| marker.add(members)),
            Self::Fields(fields) => marked(4, |marker| {
                for (field, (value, expires)) in fields {
                    marker.add((field, value, expires));
                }
            }),
            Self::Scores(scores) => marked(5, |marker| {
                for (member, score) in scores {
                    marker.add((member, score.to_bits()));
                }
            }),
            Self::Stream(stream) => stream.mark(),
        }
    }

    /// How many elements it has, as its type counts them.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.len(),
            Self::Set(members) => members.len(),
            Self::Fields(fields) => fields.len(),
            Self::Scores(scores) => scores.len(),
            Self::Stream(stream) => stream.entries.len(),
        }
    }
}

impl Stream {
    fn mark(&self) -> u128 {
        marked(6, |marker| {
            marker.add((&self.entries, &self.last));
            for group in &self.groups {
                marker.add((&group.name, &group.last, &group.consumers));
                for pending in &group.pending {
                    marker.add((&pending.id, &pending.consumer, pending.times));
                }
            }
        })
    }
}

fn marked(kind: u8, fill: impl FnOnce(&mut Marker)) -> u128 {
    let mut marker = Marker::new(kind);
    fill(&mut marker);
    marker.mark()
}

/// A key's part of the digest of a side, which is their sum: the order of keys does not count.
pub fn key_mark(db: u32, name: &[u8], entry: &Entry) -> u128 {
    // Rounded to what clocks of two hosts, and a TTL that is read relative to now, may differ by.
    let expires = entry.expires.map(|at| at.div_euclid(TOLERANCE));
    marked(0, |marker| marker.add((db, name, entry.value.mark(), expires)))
}

/// By how many ms the ends of two keys may differ that count as equal.
pub const TOLERANCE: i64 = 1000;

pub fn expires_alike(left: Option<i64>, right: Option<i64>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left.abs_diff(right) <= TOLERANCE.unsigned_abs(),
        (left, right) => left == right,
    }
}
