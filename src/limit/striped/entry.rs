//! A key and its bucket in 40 bytes.
//!
//! | bytes | holds |
//! |---|---|
//! | 16 | the key's 128 bits |
//! | 8 | the instant of the last write |
//! | 8 | tokens, lower 64 bits |
//! | 4 | tokens, upper 26 bits; then the kind of its scope, and whether it was changed since it was last exported |
//! | 4 | the terms it last saw, as a number in its stripe's book: its quota and its scope |
//!
//! 10⁹ tokens are 10²⁷ units, 90 bits; so six bits of the 96 are free for the rest.

use crate::client::MAX_CAPACITY;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::key::Key;
use crate::limit::striped::terms::TermsId;

/// Where the kind of the key's scope starts in the upper word.
const SCOPE: u32 = 27;
/// The scope of a slot without an entry.
const NOBODY: u32 = 31;
/// Set when the bucket was changed since it was last exported.
const CHANGED: u32 = 1 << 26;
/// The upper bits of the tokens.
const TOKENS: u32 = CHANGED - 1;

const _: () = assert!(MAX_CAPACITY as u128 * Tokens::ONE.units() <= Tokens::MOST.units());
const _: () = assert!(Tokens::MOST.units() <= (TOKENS as u128) << 64);
const _: () = assert!(size_of::<BucketEntry>() == 40);

/// A key and its bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketEntry {
    bits: [u64; 2],
    at: Nanos,
    lower: u64,
    upper: u32,
    terms: TermsId,
}

impl BucketEntry {
    /// The entry of a bucket that was never exported.
    pub(super) fn new(key: Key, bucket: Bucket, terms: TermsId) -> Self {
        let upper = key.scope().kind() << SCOPE;
        let mut entry = BucketEntry { bits: key.halves(), at: 0, lower: 0, upper, terms };
        entry.set_bucket(bucket);
        entry
    }

    /// No entry.
    pub(super) const VACANT: BucketEntry =
        BucketEntry { bits: [0; 2], at: 0, lower: 0, upper: NOBODY << SCOPE, terms: 0 };

    /// Whether it is no entry.
    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.upper >> SCOPE == NOBODY
    }

    /// Whether it is the entry of `key`.
    #[inline]
    pub(super) fn is_of(&self, key: Key) -> bool {
        self.bits == key.halves() && self.upper >> SCOPE == key.scope().kind()
    }

    /// Whose bucket it is: the halves of the key's bits. Its scope is in its terms.
    #[inline]
    pub(super) fn halves(&self) -> [u64; 2] {
        self.bits
    }

    /// The bucket.
    #[inline]
    pub(super) fn bucket(&self) -> Bucket {
        let upper = u128::from(self.upper & TOKENS);
        Bucket::resume(Tokens::from_units(upper << 64 | u128::from(self.lower)), self.at)
    }

    /// Writes the bucket, and marks it changed. It holds at most [`MOST`](Tokens::MOST).
    #[inline]
    pub(super) fn set_bucket(&mut self, bucket: Bucket) {
        let units = bucket.tokens().units();
        self.at = bucket.at();
        self.lower = units as u64;
        self.upper = (self.upper & !TOKENS) | CHANGED | ((units >> 64) as u32 & TOKENS);
    }

    /// The terms that it last saw.
    #[inline]
    pub(super) fn terms(&self) -> TermsId {
        self.terms
    }

    /// Notes the terms that it now sees.
    pub(super) fn set_terms(&mut self, terms: TermsId) {
        self.terms = terms;
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
    use crate::limit::key::{PolicySlot, Scope};

    #[test]
    fn everything_fits() {
        let scopes = [Scope::Client, Scope::Address, Scope::Policy(PolicySlot(0)), Scope::OwnInPolicy(PolicySlot(!0))];
        for key in
            scopes.map(|scope| [Key::new(scope, 0), Key::new(scope, 5), Key::new(scope, !0)]).into_iter().flatten()
        {
            for tokens in [Tokens::default(), Tokens::ONE, Tokens::from_parts(999_999_999, 999_999_999_999_999_999)] {
                let mut entry = BucketEntry::new(key, Bucket::resume(tokens, u64::MAX), 7);
                assert!(entry.take_changed() && !entry.take_changed());
                entry.set_bucket(Bucket::resume(Tokens::whole(1_000_000_000), 3));
                assert_eq!(entry.bucket(), Bucket::resume(Tokens::whole(1_000_000_000), 3));
                entry.set_bucket(Bucket::resume(tokens, 9));
                entry.set_terms(u32::MAX);
                assert!(entry.take_changed());
                assert_eq!((entry.halves(), entry.terms()), (key.halves(), u32::MAX));
                assert!(entry.is_of(key) && !entry.is_of(Key::client(1)) && !entry.is_vacant());
                assert_eq!(entry.bucket(), Bucket::resume(tokens, 9));
            }
        }
        let both = [Scope::Policy(PolicySlot(1)), Scope::OwnInPolicy(PolicySlot(1))].map(|scope| Key::new(scope, 9));
        assert!(BucketEntry::new(both[0], Bucket::resume(Tokens::ONE, 0), 0).is_of(both[1]), "it is one bucket");
    }
}
