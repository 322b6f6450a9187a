//! A key and its bucket in 32 bytes, so that two share a cache line and none lies across two.
//!
//! | bytes | holds |
//! |---|---|
//! | 8 | the key's 64 bits |
//! | 8 | the instant of the last write |
//! | 8 | tokens, lower 64 bits |
//! | 4 | tokens, upper 26 bits; then the key's kind, and whether it was changed since it was last exported |
//! | 4 | the quota it last saw, as a number in its stripe's book |
//!
//! 10⁹ tokens are 10²⁷ units, 90 bits; so six bits of the 96 are free for the rest.

use crate::client::MAX_CAPACITY;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::key::Key;
use crate::limit::striped::quotas::QuotaId;

/// Where the key's kind starts in the upper word.
const KIND: u32 = 27;
/// The kind of a slot without an entry.
const NOBODY: u32 = 31;
/// Set when the bucket was changed since it was last exported.
const CHANGED: u32 = 1 << 26;
/// The upper bits of the tokens.
const TOKENS: u32 = CHANGED - 1;

const _: () = assert!(MAX_CAPACITY as u128 * Tokens::ONE.units() <= (TOKENS as u128) << 64);
const _: () = assert!(size_of::<Entry>() == 32);

/// A key and its bucket.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Entry {
    payload: u64,
    at: Nanos,
    lower: u64,
    upper: u32,
    quota: QuotaId,
}

impl Entry {
    /// The entry of a bucket that was never exported.
    pub(super) fn new(key: Key, bucket: Bucket, quota: QuotaId) -> Self {
        let (kind, payload) = key.parts();
        let mut entry = Entry { payload, at: 0, lower: 0, upper: u32::from(kind) << KIND, quota };
        entry.set_bucket(bucket);
        entry
    }

    /// No entry.
    pub(super) const VACANT: Entry = Entry { payload: 0, at: 0, lower: 0, upper: NOBODY << KIND, quota: 0 };

    /// Whether it is no entry.
    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.upper >> KIND == NOBODY
    }

    /// What [`is_of`](Entry::is_of) compares, computed once for many entries.
    #[inline]
    pub(super) fn tag(key: Key) -> (u32, u64) {
        let (kind, payload) = key.parts();
        (u32::from(kind), payload)
    }

    /// Whether it is the entry of the key with this [`tag`](Entry::tag).
    #[inline]
    pub(super) fn is_of(&self, (kind, payload): (u32, u64)) -> bool {
        self.payload == payload && self.upper >> KIND == kind
    }

    /// Whose bucket it is.
    pub(super) fn key(&self) -> Key {
        Key::from_parts((self.upper >> KIND) as u8, self.payload).expect("the parts came from a key")
    }

    /// The bucket.
    #[inline]
    pub(super) fn bucket(&self) -> Bucket {
        let upper = u128::from(self.upper & TOKENS);
        Bucket::resume(Tokens::from_units(upper << 64 | u128::from(self.lower)), self.at)
    }

    /// Writes the bucket, and marks it changed. It holds at most [`MAX_CAPACITY`].
    #[inline]
    pub(super) fn set_bucket(&mut self, bucket: Bucket) {
        let units = bucket.tokens().units();
        self.at = bucket.at();
        self.lower = units as u64;
        self.upper = (self.upper & !TOKENS) | CHANGED | ((units >> 64) as u32 & TOKENS);
    }

    /// The quota that it last saw.
    #[inline]
    pub(super) fn quota(&self) -> QuotaId {
        self.quota
    }

    /// Notes the quota that it now sees.
    pub(super) fn set_quota(&mut self, quota: QuotaId) {
        self.quota = quota;
    }

    /// Lets it count as changed.
    pub(super) fn mark_changed(&mut self) {
        self.upper |= CHANGED;
    }

    /// Whether it was changed since the last call of this.
    pub(super) fn take_changed(&mut self) -> bool {
        let changed = self.upper & CHANGED != 0;
        self.upper &= !CHANGED;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits() {
        let address = |text: &str| Key::address(text.parse().unwrap(), 64);
        for key in [Key::client(0), Key::client(u64::MAX), address("255.1.2.3"), address("ffff:ffff::")] {
            for tokens in [Tokens::default(), Tokens::ONE, Tokens::from_parts(999_999_999, 999_999_999_999_999_999)] {
                let mut entry = Entry::new(key, Bucket::resume(tokens, u64::MAX), 7);
                assert!(entry.take_changed() && !entry.take_changed());
                entry.set_bucket(Bucket::resume(Tokens::whole(1_000_000_000), 3));
                assert_eq!(entry.bucket(), Bucket::resume(Tokens::whole(1_000_000_000), 3));
                entry.set_bucket(Bucket::resume(tokens, 9));
                entry.set_quota(u32::MAX);
                assert!(entry.take_changed());
                assert_eq!((entry.key(), entry.quota()), (key, u32::MAX));
                assert!(entry.is_of(Entry::tag(key)) && !entry.is_of(Entry::tag(Key::client(1))));
                assert_eq!(entry.bucket(), Bucket::resume(tokens, 9));
            }
        }
    }
}
