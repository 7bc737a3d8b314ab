//! Vectors of all three hashes, and what each promises when the number of shards changes.

use super::hash::*;

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("node_{number}")).collect()
}

/// The numbers of the nodes of a key, for 1 to 8 of them.
fn nodes(hash: Hash, key: &[u8]) -> [usize; 8] {
    std::array::from_fn(|at| Placement::new(hash, &names(at + 1)).shard(key) + 1)
}

/// From rediscluster-py and from its PHP sister on a 64-bit machine.
const CRC32: &[(&[u8], u32, [usize; 8])] = &[
    (b"", 0, [1, 1, 1, 1, 1, 1, 1, 1]),
    (b"a", 3904355907, [1, 2, 1, 4, 3, 4, 5, 4]),
    (b"b", 1908338681, [1, 2, 3, 2, 2, 6, 5, 2]),
    (b"c", 112844655, [1, 2, 1, 4, 1, 4, 1, 8]),
    (b"d", 2564639436, [1, 1, 1, 1, 2, 1, 3, 5]),
    (b"e", 4024072794, [1, 1, 1, 3, 5, 1, 1, 3]),
    (b"foo", 2356372769, [1, 2, 3, 2, 5, 6, 3, 2]),
    (b"bar", 1996459178, [1, 1, 3, 3, 4, 3, 1, 3]),
    (b"foobar", 2666930069, [1, 2, 3, 2, 5, 6, 7, 6]),
    (b"hello", 907060870, [1, 1, 2, 3, 1, 5, 3, 7]),
    (b"user:1", 2074460802, [1, 1, 1, 3, 3, 1, 2, 3]),
    (b"user:1000", 2675185635, [1, 2, 1, 4, 1, 4, 4, 4]),
    (b"key", 2324736937, [1, 2, 2, 2, 3, 2, 6, 2]),
    (b"my key", 613016092, [1, 1, 2, 1, 3, 5, 4, 5]),
    ("漢字".as_bytes(), 2573319087, [1, 2, 1, 4, 3, 4, 4, 8]),
    ("ü".as_bytes(), 1675192789, [1, 2, 2, 2, 5, 2, 5, 6]),
    (b"\0", 3523407757, [1, 2, 2, 2, 3, 2, 3, 6]),
    (b"123456789", 3421780262, [1, 1, 3, 3, 3, 3, 6, 7]),
    (b"node_1", 251332395, [1, 2, 1, 4, 1, 4, 7, 4]),
    (b"and", 133536621, [1, 2, 1, 2, 2, 4, 2, 6]),
    (b"or", 498562439, [1, 2, 3, 4, 5, 6, 5, 8]),
    (b"xor", 4190996354, [1, 1, 3, 3, 5, 3, 7, 3]),
    (b"not", 134610293, [1, 2, 3, 2, 4, 6, 7, 6]),
    (b"k1", 2517541033, [1, 2, 2, 2, 4, 2, 1, 2]),
    (b"k2", 252178707, [1, 2, 1, 4, 3, 4, 5, 4]),
    (b"k3", 2013315461, [1, 2, 3, 2, 2, 6, 4, 6]),
    (b"\xfc", 1711886778, [1, 1, 1, 3, 4, 1, 1, 3]),
];

#[test]
fn row_106_crc32_gives_the_nodes_of_rediscluster() {
    for (key, crc, wanted) in CRC32 {
        assert_eq!(crc32fast::hash(key), *crc, "{}", key.escape_ascii());
        assert_eq!(nodes(Hash::Crc32, key), *wanted, "{}", key.escape_ascii());
    }
}

#[test]
fn crc16_gives_the_slots_of_redis_cluster() {
    assert_eq!(crc16(b"123456789"), 0x31c3);
    assert_eq!(crc16(b""), 0);
    // CLUSTER KEYSLOT of a server.
    for (key, wanted) in [("foo", 12182), ("bar", 5061), ("hello", 866), ("somekey", 11058)] {
        assert_eq!(slot(key.as_bytes()), wanted, "{key}");
    }
}

/// As redis-cli computes them, in floats of 32 bits. With 78 shards and more its sum of floats is off by a slot here and there.
fn dealt_out(count: usize) -> Vec<usize> {
    let share = SLOTS as f32 / count as f32;
    let (mut cursor, mut first, mut all) = (0.0_f32, 0, Vec::new());
    for _ in 0..count {
        all.push(first);
        first = f64::from(cursor + share - 1.0).round() as usize + 1;
        cursor += share;
    }
    all
}

#[test]
fn slots_are_shared_as_redis_cli_shares_them() {
    for count in 1..78 {
        let all: Vec<usize> = (0..count).map(|shard| first_slot(shard, count)).collect();
        assert_eq!(all, dealt_out(count), "{count} shards");
    }
    assert_eq!([0, 1, 2, 3].map(|shard| first_slot(shard, 3)), [0, 5461, 10923, SLOTS]);
}

#[test]
fn every_slot_has_the_shard_in_whose_range_it_is() {
    for count in [1, 2, 3, 5, 6, 7, 16, 77, 100, 1000, 1024] {
        for slot in 0..SLOTS {
            let shard = owner(slot, count);
            let range = first_slot(shard, count)..first_slot(shard + 1, count);
            assert!(shard < count && range.contains(&slot), "slot {slot} of {count} shards: {shard}, {range:?}");
        }
    }
}

/// Computed by another program from the description at the head of hash.rs.
const RENDEZVOUS: &[(&[u8], [usize; 8])] = &[
    (b"", [1, 1, 3, 3, 3, 3, 3, 3]),
    (b"a", [1, 1, 1, 1, 1, 1, 1, 1]),
    (b"foo", [1, 2, 2, 2, 2, 6, 6, 6]),
    (b"bar", [1, 2, 2, 2, 2, 2, 2, 2]),
    (b"foobar", [1, 1, 3, 4, 4, 4, 4, 4]),
    (b"user:1000", [1, 1, 3, 4, 4, 4, 4, 4]),
    ("漢字".as_bytes(), [1, 1, 1, 1, 1, 1, 1, 1]),
    (b"\0", [1, 1, 1, 1, 1, 1, 7, 7]),
    (b"123456789", [1, 1, 3, 3, 3, 3, 3, 8]),
];

#[test]
fn rendezvous_gives_what_its_description_says() {
    for (key, wanted) in RENDEZVOUS {
        assert_eq!(nodes(Hash::Rendezvous, key), *wanted, "{}", key.escape_ascii());
    }
}

#[test]
fn with_rendezvous_only_keys_of_the_new_shard_move() {
    const KEYS: usize = 20_000;
    for count in [1, 2, 3, 7, 15] {
        let [before, after] = [count, count + 1].map(|count| Placement::new(Hash::Rendezvous, &names(count)));
        let mut moved = 0;
        for number in 0..KEYS {
            let key = format!("user:{number}");
            let [old, new] = [&before, &after].map(|placement| placement.shard(key.as_bytes()));
            assert!(old == new || new == count, "{key} moved from {old} to {new} of {count} + 1 shards");
            moved += usize::from(old != new);
        }
        let fair = KEYS / (count + 1);
        assert!(moved.abs_diff(fair) < fair / 8, "{moved} of {KEYS} keys moved to shard {count}, {fair} would be fair");
    }
}

#[test]
fn every_hash_uses_all_shards_evenly() {
    const KEYS: usize = 40_000;
    for hash in [Hash::Crc32, Hash::Crc16, Hash::Rendezvous] {
        for count in [2, 3, 8] {
            let placement = Placement::new(hash, &names(count));
            let mut taken = vec![0_usize; count];
            (0..KEYS).for_each(|number| taken[placement.shard(format!("key:{number}").as_bytes())] += 1);
            let fair = KEYS / count;
            assert!(taken.iter().all(|keys| keys.abs_diff(fair) < fair / 8), "{}: {taken:?}", hash.name());
        }
    }
}
