//! Bodies that can be told apart, and a checksum over them.
//!
//! FNV-1a over words of eight bytes: any lost, repeated, swapped or changed byte shows, and a debug build still sums
//! 100 KB in a fraction of a millisecond, which bytewise it does not.

use std::sync::OnceLock;

const NOISE: usize = 1 << 20;

/// A checksum of `bytes`.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for word in words {
        // The rotation carries the high bits down, which a multiplication alone never does.
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(23);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME).rotate_left(23);
    }
    hash
}

/// `length` bytes that only this `seed` has, the same in every process.
pub(crate) fn body(seed: u64, length: usize) -> Vec<u8> {
    static CELL: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = CELL.get_or_init(noise);
    let mut body = Vec::with_capacity(length + 8);
    body.extend_from_slice(&seed.to_le_bytes());
    let mut from = (seed as usize).wrapping_mul(7919) % NOISE;
    while body.len() < length {
        let piece = &noise[from..NOISE.min(from + length - body.len())];
        body.extend_from_slice(piece);
        from = 0;
    }
    body.truncate(length);
    body
}

fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..NOISE)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn the_checksum_sees_any_single_change() {
    let whole = body(7, 1003);
    assert_eq!(whole, body(7, 1003));
    assert_ne!(whole, body(8, 1003));
    let mut sums = vec![sum(&whole), sum(&whole[..1002]), sum(&whole[1..]), sum(&body(8, 1003))];
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x80;
        sums.push(sum(&changed));
    }
    let mut swapped = whole;
    swapped.swap(16, 24);
    sums.push(sum(&swapped));
    let all = sums.len();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), all, "two of them have the same sum");
}

#[test]
fn bodies_have_the_length_that_was_asked_for() {
    for length in [0, 1, 7, 8, 9, 100 << 10, NOISE + 5, 3 * NOISE] {
        assert_eq!(body(u64::MAX, length).len(), length);
    }
}
