//! From the part of a key that counts to the number of its shard, in the three ways that `shard.hash` offers, or by a function of the
//! program.
//!
//! What another language has to compute for N shards named `node_1` to `node_N`, with the result counted from 0:
//!
//! - `crc32`: CRC-32 as in zlib (ISO-HDLC), modulo N. This is what rediscluster does.
//! - `crc16`: the slot is CRC-16/XMODEM modulo 16384, as in Redis Cluster. Shard i has the slots from round(i * 16384 / N) to before
//!   round((i + 1) * 16384 / N), halves rounded up: contiguous ranges, as `redis-cli --cluster create` deals them out.
//! - `rendezvous`: the shard whose name has the highest weight, of equal ones the first. The weight is mix(fnv(key) ^ mix(fnv(name))),
//!   where fnv is FNV-1a with 64 bits, and mix(x) is the finalizer of SplitMix64, all modulo 2^64: x ^= x >> 30;
//!   x *= 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31.
//!
//! Guarantees: no allocation for a key; with `rendezvous` one more shard takes 1 / (N + 1) of the keys, and no other key moves.
//! Leaves to others: which part of a key counts (tags).

use std::sync::Arc;

use crate::error::{Error, Result, Status, quoted};

/// How many slots Redis Cluster has.
pub const SLOTS: usize = 16384;

/// How keys are spread over shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hash {
    /// CRC-32 modulo the number of shards, as rediscluster does it.
    #[default]
    Crc32,
    /// By the slots of Redis Cluster, which are shared evenly.
    Crc16,
    /// By the names of the shards, so that few keys move when there is one more.
    Rendezvous,
}

impl Hash {
    /// Its word in `shard.hash`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc16 => "crc16",
            Self::Rendezvous => "rendezvous",
        }
    }
}

/// A hash function of the program, in place of the three.
pub trait OwnHash: Send + Sync {
    /// The index of the shard for a key of which this part counts, of so many shards. What is no index is refused.
    fn shard(&self, part: &[u8], count: usize) -> usize;
}

/// A hash and the shards over which it spreads keys.
#[derive(Clone)]
pub struct Placement {
    hash: Hash,
    own: Option<Arc<dyn OwnHash>>,
    /// Has looked at the processor once, in place of once for each key.
    crc32: crc32fast::Hasher,
    count: usize,
    /// The mixed hashes of the names, for `rendezvous`.
    seeds: Vec<u64>,
}

impl Placement {
    /// For shards of these names, in the order of their numbers. There has to be one.
    pub fn new(hash: Hash, names: &[String]) -> Self {
        let seeds = match hash {
            Hash::Rendezvous => names.iter().map(|name| mix(fnv(name.as_bytes()))).collect(),
            Hash::Crc32 | Hash::Crc16 => Vec::new(),
        };
        Self { hash, own: None, crc32: crc32fast::Hasher::new(), count: names.len().max(1), seeds }
    }

    /// With a function of the program in place of the hash.
    pub fn by(self, own: Option<Arc<dyn OwnHash>>) -> Self {
        Self { own, ..self }
    }

    /// As [`Placement::shard`], by the program's own function if there is one. An error: it gave no index of a shard.
    #[inline(always)]
    pub fn place(&self, part: &[u8]) -> Result<usize> {
        match &self.own {
            None => Ok(self.shard(part)),
            Some(own) => {
                let shard = own.shard(part, self.count);
                if shard < self.count { Ok(shard) } else { Err(no_shard(part, shard, self.count)) }
            }
        }
    }

    /// The way in which it spreads keys.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The index of the shard that a key is on of which this part counts.
    #[inline]
    pub fn shard(&self, part: &[u8]) -> usize {
        match self.hash {
            Hash::Crc32 => {
                let mut crc32 = self.crc32.clone();
                crc32.update(part);
                // In 32 bits, because a division of 64 takes some processors twice as long.
                (crc32.finalize() % self.count as u32) as usize
            }
            Hash::Crc16 => owner(slot(part), self.count),
            Hash::Rendezvous => heaviest(fnv(part), &self.seeds),
        }
    }
}

#[cold]
fn no_shard(part: &[u8], shard: usize, count: usize) -> Error {
    let text = format!(
        "the hash function of the program gave shard {shard} for {}, and there are {count}: it gives 0 to {}; nothing was sent",
        quoted(&String::from_utf8_lossy(part)),
        count - 1
    );
    Error::new(Status::InvalidArg, text)
}

/// The slot of Redis Cluster for a key of which this part counts.
pub fn slot(part: &[u8]) -> usize {
    usize::from(crc16(part)) % SLOTS
}

/// The first slot of a shard; that of the shard behind the last one is [`SLOTS`].
pub fn first_slot(shard: usize, count: usize) -> usize {
    (2 * shard * SLOTS + count) / (2 * count)
}

/// The shard that has a slot.
pub fn owner(slot: usize, count: usize) -> usize {
    // Where the exact border lies in front of the slot, the rounded one of the next shard may do so too.
    let below = slot * count / SLOTS;
    below + usize::from(below + 1 < count && first_slot(below + 1, count) <= slot)
}

/// CRC-16/XMODEM: the polynomial 0x1021, from 0, neither reflected nor inverted.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

static CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn heaviest(key: u64, seeds: &[u64]) -> usize {
    let (mut best, mut most) = (0, 0);
    for (shard, seed) in seeds.iter().enumerate() {
        let weight = mix(key ^ seed);
        if weight > most {
            (best, most) = (shard, weight);
        }
    }
    best
}

/// FNV-1a with 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
