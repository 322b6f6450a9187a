//! The API keys of a client: several, so that one can be replaced by another while both count.
//!
//! A key ends at a moment in whole seconds, if ever, which is a moment of the wall clock as it is set when a request
//! comes: one that was wrong at the start, or stood still while the machine slept, ends or keeps no key once it is right.
//!
//! Refused: the limiter's time, which goes on evenly whatever becomes of the wall clock; a key would outlive its end
//! until the next start.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::KeyDigest;

/// The most API keys that one client has.
pub const MOST_KEYS: usize = 5;

/// By what a client's key is told from its others: 1 to 32 characters of `A-Za-z0-9_-`. It says nothing of the key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Reads one; none when it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        ((1..=32).contains(&text.len()) && text.bytes().all(allowed)).then(|| KeyId(text.into()))
    }

    /// That of the key that is given as `api_key`.
    pub fn primary() -> Self {
        KeyId("primary".into())
    }

    /// One that no other key has had, as good as surely: a script that knows an old one must not meet a new key.
    pub fn fresh() -> Self {
        KeyId(format!("{:012x}", fastrand::u64(..) >> 16).into())
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// One API key of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// By what it is told from the others.
    pub id: KeyId,
    /// The key.
    pub digest: KeyDigest,
    /// The second since the Unix epoch from which it counts no more; none when it always does.
    pub expires_at: Option<u64>,
}

impl ApiKey {
    /// The key that is given as `api_key`.
    pub fn primary(digest: KeyDigest) -> Self {
        ApiKey { id: KeyId::primary(), digest, expires_at: None }
    }

    /// Whether it is the one that is given as `api_key`, and always counts.
    pub fn is_plain(&self) -> bool {
        self.expires_at.is_none() && self.id.as_str() == "primary"
    }

    /// Whether it counts at `now`, by the wall clock as it is set then: people say when a key ends.
    pub fn counts(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|end| now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() < end)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_counts_up_to_its_second_and_not_in_it() {
        let key = ApiKey { expires_at: Some(7), ..ApiKey::primary(KeyDigest::of(b"k")) };
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!(
            (key.counts(at(6_999_999_999)), key.counts(at(7_000_000_000)), key.is_plain()),
            (true, false, false)
        );
        let key = ApiKey::primary(KeyDigest::of(b"k"));
        assert_eq!((key.counts(at(u64::MAX)), key.is_plain()), (true, true));
        assert_ne!(KeyId::fresh(), KeyId::fresh());
        assert_eq!(KeyId::parse(KeyId::fresh().as_str()).map(|id| id.as_str().len()), Some(12));
        assert_eq!((KeyId::parse(""), KeyId::parse("a/b"), KeyId::parse(&"x".repeat(33))), (None, None, None));
    }
}
