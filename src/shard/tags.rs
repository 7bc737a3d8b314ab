//! Which part of a key says what shard it is on, and under which name it is stored there.
//!
//! | mode | a key | the part that counts | stored as |
//! |---|---|---|---|
//! | `rediscluster` | `real{hash}` | `hash` | `real` |
//! | | without a `{` | all of it | as it is |
//! | | any other | refused | |
//! | `cluster` | `a{hash}b`: between the first `{` and the first `}` behind it | `hash`, unless it is empty | as it is |
//! | `none` | any | all of it | as it is |
//!
//! Guarantees: parts of the given key, no copies; no key becomes an empty one. Not promised, because rediscluster's form cannot: that
//! `a`, `a{x}` and `a{y}` are different keys; they are one where their parts are on one shard. Leaves to others: what a part comes to (hash).

use crate::error::{Error, Result, Status, quoted};

/// How tags in keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tags {
    /// `real{hash}`: the tag ends the key, and is stripped.
    #[default]
    Rediscluster,
    /// As in Redis Cluster: what stands in the first braces counts, and the key stays as it is.
    Cluster,
    /// The whole key counts.
    None,
}

/// A key, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tagged<'a> {
    /// What says which shard it is on.
    pub part: &'a [u8],
    /// The name under which the server has it.
    pub stored: &'a [u8],
}

impl Tags {
    /// Its word in `shard.tags`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rediscluster => "rediscluster",
            Self::Cluster => "cluster",
            Self::None => "none",
        }
    }

    /// Whether a key may be stored under another name than the one given.
    pub fn strips(self) -> bool {
        self == Self::Rediscluster
    }

    /// Takes a key apart. An error: it has braces that are no tag, where tags are stripped.
    #[inline(always)]
    pub fn of(self, key: &[u8]) -> Result<Tagged<'_>> {
        let whole = Tagged { part: key, stored: key };
        if self == Self::None || !may_open(key) {
            return Ok(whole);
        }
        let Some(open) = memchr::memchr(b'{', key) else { return Ok(whole) };
        match self {
            Self::Rediscluster => stripped(key, open),
            _ => Ok(Tagged { part: between(key, open), stored: key }),
        }
    }

    /// The part of a channel's name that counts. The name itself is never changed, so braces that are no tag count as text.
    pub fn of_channel(self, name: &[u8]) -> &[u8] {
        self.of(name).map_or(name, |tagged| tagged.part)
    }
}

/// Whether a key may have a `{`. Most have none, and are so short that a search costs more to begin than to run: eight bytes at a time.
#[inline(always)]
fn may_open(key: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 255;
    let mut rest = key;
    while let Some((word, behind)) = rest.split_first_chunk() {
        // A byte is 0 where there is a brace; where a borrow makes another one look so, the search finds nothing.
        let zero = u64::from_le_bytes(*word) ^ (EACH * b'{' as u64);
        if zero.wrapping_sub(EACH) & !zero & (EACH << 7) != 0 {
            return true;
        }
        rest = behind;
    }
    rest.contains(&b'{')
}

fn stripped(key: &[u8], open: usize) -> Result<Tagged<'_>> {
    let (stored, tag) = (&key[..open], &key[open + 1..]);
    let Some((b'}', part)) = tag.split_last() else { return Err(fault(key, open)) };
    let has_brace = |text: &[u8]| memchr::memchr2(b'{', b'}', text).is_some();
    if stored.is_empty() || part.is_empty() || has_brace(stored) || has_brace(part) {
        return Err(fault(key, open));
    }
    Ok(Tagged { part, stored })
}

/// What stands between the first `{`, which is at `open`, and the next `}`; the whole key if there is nothing.
fn between(key: &[u8], open: usize) -> &[u8] {
    let behind = &key[open + 1..];
    match memchr::memchr(b'}', behind) {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

#[cold]
fn fault(key: &[u8], open: usize) -> Error {
    let behind = &key[open + 1..];
    let what = match memchr::memchr(b'}', behind) {
        _ if open == 0 => "nothing stands in front of '{', so that the stored key would be empty",
        _ if key[..open].contains(&b'}') => "a '}' stands in front of '{'",
        None => "its '{' is not closed",
        Some(0) => "nothing stands between its braces",
        Some(close) if behind[..close].contains(&b'{') => "it has braces within each other",
        Some(close) if behind[close + 1..].contains(&b'{') => "it has several tags",
        Some(close) if behind[close + 1..].starts_with(b"}") => "it has more closing braces than opening ones",
        Some(_) => "text stands behind its '}'",
    };
    let key = quoted(&String::from_utf8_lossy(key));
    let text = format!(
        "key {key} has a bad tag: {what}; with \"shard.tags\" rediscluster a tag ends a key, as in real{{hash}}, and is not stored \
         (cluster and none take any key as it is); nothing was sent"
    );
    Error::new(Status::InvalidArg, text)
}
