//! API keys, known only by their digests.

use std::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 digest of an API key. Keys themselves are never kept, compared, printed or logged; neither are digests,
/// as a weak key could be guessed from its digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The most bytes of an API key. Whoever asks with a longer one has none, and costs no hash of it.
    pub const LONGEST_KEY: usize = 4096;

    /// The digest of `key`.
    pub fn of(key: &[u8]) -> Self {
        KeyDigest(Sha256::digest(key).into())
    }

    /// The same of what may be a key; none of what is too long to be one.
    pub fn of_possible(key: &[u8]) -> Option<Self> {
        (key.len() <= KeyDigest::LONGEST_KEY).then(|| KeyDigest::of(key))
    }

    /// The digest that [`as_bytes`](KeyDigest::as_bytes) gave.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        KeyDigest(bytes)
    }

    /// Its bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha_256_and_does_not_show_itself() {
        let digest = KeyDigest::of(b"abc");
        assert_eq!(digest.as_bytes()[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(format!("{digest:?}"), "KeyDigest(..)");
    }
}
