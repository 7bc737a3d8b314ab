//! SHA-1 (RFC 3174), by which servers name their scripts. Pure.
//!
//! Guarantees: the digest of any text that fits into memory. Leaves to others: everything about security, because the digest is a
//! name here and protects nothing.

const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
const BLOCK: usize = 64;
/// Where the length of the text stands in the last block.
const LENGTH_AT: usize = BLOCK - 8;

/// The digest as servers write it: 40 hexadecimal digits in lower case.
pub(super) fn hex(text: &[u8]) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let words = digest(text);
    std::array::from_fn(|at| DIGITS[(words[at / 8] >> (28 - 4 * (at % 8)) & 15) as usize])
}

fn digest(text: &[u8]) -> [u32; 5] {
    let mut state = START;
    let (blocks, rest) = text.split_at(text.len() - text.len() % BLOCK);
    blocks.chunks_exact(BLOCK).for_each(|block| add(&mut state, block));
    let mut last = [0; 2 * BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    let end = if rest.len() < LENGTH_AT { BLOCK } else { 2 * BLOCK };
    last[end - 8..end].copy_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    last[..end].chunks_exact(BLOCK).for_each(|block| add(&mut state, block));
    state
}

fn add(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for at in 16..80 {
        words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (at, word) in words.iter().enumerate() {
        let (mixed, constant) = match at / 20 {
            0 => ((b & c) | (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let parts = [mixed, e, constant, *word];
        let next = parts.iter().fold(a.rotate_left(5), |sum, part| sum.wrapping_add(*part));
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
        *sum = sum.wrapping_add(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_3174_and_what_a_server_names_its_scripts() {
        let eighty = "01234567".repeat(8).repeat(10);
        for (text, digest) in [
            ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
            (&"a".repeat(1_000_000), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
            (&eighty, "dea356a2cddd90c7a7ecedc5ebb563934f460452"),
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
        ] {
            assert_eq!(std::str::from_utf8(&hex(text.as_bytes())), Ok(digest), "{} bytes", text.len());
        }
    }

    /// Around the end of a block the length needs another one.
    #[test]
    fn every_length_around_a_block_has_a_digest_of_its_own() {
        let text = [b'x'; 200];
        let mut digests: Vec<_> = (0..200).map(|len| hex(&text[..len])).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 200);
        assert_eq!(std::str::from_utf8(&hex(&[b'a'; 55])), Ok("c1c8bbdc22796e28c0e15163d20899b65621d65a"));
        assert_eq!(std::str::from_utf8(&hex(&[b'a'; 56])), Ok("c2db330f6083854c99d4b5bfb6e8f29f201be699"));
        assert_eq!(std::str::from_utf8(&hex(&[b'a'; 64])), Ok("0098ba824b5c16427bd7a1122a5a442a25ec644d"));
    }
}
