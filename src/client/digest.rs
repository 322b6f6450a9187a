//! API keys, known only by their digests, and the names of certificates that stand where a key does.
//!
//! A client may be known by a certificate in place of a key: `cert:` and its SHA-256 fingerprint in hexadecimal digits,
//! with or without colons, or `cert-san:` and one of its alternative names, both in either case. That is no secret, so
//! no caller is known by it who merely says it: it is never taken for a key ([`KeyDigest::of_possible`]).

use std::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 digest of an API key. Keys themselves are never kept, compared, printed or logged; neither are digests,
/// as a weak key could be guessed from its digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The most bytes of an API key. Whoever asks with a longer one has none, and costs no hash of it.
    pub const LONGEST_KEY: usize = 4096;

    /// The digest of `key`, or of the certificate that it names, however that is spelt.
    pub fn of(key: &[u8]) -> Self {
        let name = certificate(key);
        KeyDigest(Sha256::digest(name.as_deref().unwrap_or(key)).into())
    }

    /// The digest of what a caller sends as a key; none of what is too long to be one, or names a certificate.
    pub fn of_possible(key: &[u8]) -> Option<Self> {
        let may_be_one = key.len() <= KeyDigest::LONGEST_KEY && certificate(key).is_none();
        may_be_one.then(|| KeyDigest(Sha256::digest(key).into()))
    }

    /// The digest of the certificate that `name` names; none when it names none.
    pub fn of_certificate(name: &[u8]) -> Option<Self> {
        certificate(name).map(|name| KeyDigest(Sha256::digest(name).into()))
    }

    /// The digest that [`as_bytes`](KeyDigest::as_bytes) gave.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        KeyDigest(bytes)
    }

    /// The digest that [`hex`](KeyDigest::hex) gave, or that somebody else has made of a key; none when it is none.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(KeyDigest(bytes))
    }

    /// In hexadecimal digits, to be stored or given to whoever keeps all clients.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// The one spelling of the certificate that `key` names; none when it names none.
fn certificate(key: &[u8]) -> Option<Vec<u8>> {
    let (start, name) = key.split_at(key.iter().position(|byte| *byte == b':')? + 1);
    let mut spelt = start.to_vec();
    match start {
        b"cert-san:" if !name.is_empty() => spelt.extend(name.iter().map(u8::to_ascii_lowercase)),
        b"cert:" => {
            spelt.extend(name.iter().filter(|byte| **byte != b':').map(u8::to_ascii_lowercase));
            let digits = &spelt[start.len()..];
            if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
        }
        _ => return None,
    }
    Some(spelt)
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

    #[test]
    fn a_certificate_is_spelt_in_one_way_and_is_nobodys_key() {
        let digest = |text: &str| KeyDigest::of(text.as_bytes());
        let fingerprint = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        assert_eq!(digest(&format!("cert:{fingerprint}")), digest(&format!("cert:{colons}")));
        assert_eq!(digest("cert-san:Alice@Example.com"), digest("cert-san:alice@example.com"));
        for name in [&format!("cert:{fingerprint}"), &format!("cert:{colons}"), "cert-san:a"] {
            assert_eq!(KeyDigest::of_possible(name.as_bytes()), None, "{name}");
            assert_eq!(KeyDigest::of_certificate(name.as_bytes()), Some(digest(name)), "{name}");
        }
        for key in ["cert:", "cert:ab", "cert-san:", "CERT:", "certificate:a", ":", "", "Cert-San:A"] {
            assert_eq!(KeyDigest::of_possible(key.as_bytes()), Some(digest(key)), "{key}");
            assert_eq!(KeyDigest::of_certificate(key.as_bytes()), None, "{key}");
        }
        assert_ne!(digest("Certs:A"), digest("certs:a"));
    }
}
