//! What becomes of a client's API keys when it is written.

use crate::client::{ApiKey, KeyDigest, KeyId, MOST_KEYS};

/// What becomes of a client's API keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyChange {
    /// They stay.
    #[default]
    Keep,
    /// It has these and no others.
    Set(Vec<WantedKey>),
}

/// A key that a client is to have: one that is named by its id, by what it is, or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedKey {
    /// By what it is told from the others.
    pub id: Option<KeyId>,
    /// The key; one without is there already.
    pub digest: Option<KeyDigest>,
    /// The second since the Unix epoch from which it counts no more.
    pub expires_at: Option<u64>,
}

impl WantedKey {
    /// The key that is given as `api_key`.
    pub fn primary(digest: KeyDigest) -> Self {
        WantedKey { id: Some(KeyId::primary()), digest: Some(digest), expires_at: None }
    }
}

/// What is wrong with a change of a client's keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongKeys {
    /// It names one that is not there.
    #[error("names the key {0}, which is not there")]
    Unknown(KeyId),
    /// It names one twice.
    #[error("has one key twice")]
    Twice,
    /// The one that is to go is not there.
    #[error("has no key {0}")]
    Missing(KeyId),
    /// There are as many as there may be.
    #[error("has {MOST_KEYS} API keys, which is as many as a client may have; delete one first")]
    Many,
}

impl KeyChange {
    /// The keys that a client has after it, which had those `before`. One that is there already keeps its id.
    ///
    /// # Errors
    /// When it names a key that is not there, or one key twice.
    pub fn of(self, before: &[ApiKey]) -> Result<Vec<ApiKey>, WrongKeys> {
        let wanted = match self {
            KeyChange::Keep => return Ok(before.to_vec()),
            KeyChange::Set(wanted) => wanted,
        };
        let mut keys: Vec<ApiKey> = Vec::new();
        for WantedKey { id, digest, expires_at } in wanted {
            let same = |known: &&ApiKey| match (&digest, &id) {
                (Some(digest), _) => known.digest == *digest,
                (None, id) => Some(&known.id) == id.as_ref(),
            };
            let known = before.iter().find(same);
            let digest = match (digest.or(known.map(|known| known.digest)), &id) {
                (Some(digest), _) => digest,
                (None, Some(id)) => return Err(WrongKeys::Unknown(id.clone())),
                // It names nothing, and is no key.
                (None, None) => continue,
            };
            let id = id.or(known.map(|known| known.id.clone())).unwrap_or_else(KeyId::fresh);
            if keys.iter().any(|key| key.id == id || key.digest == digest) {
                return Err(WrongKeys::Twice);
            }
            keys.push(ApiKey { id, digest, expires_at });
        }
        Ok(in_order(keys))
    }
}

/// The keys with a new one.
///
/// # Errors
/// When there are as many as there may be.
pub fn with_key(before: &[ApiKey], new: ApiKey) -> Result<Vec<ApiKey>, WrongKeys> {
    if before.len() >= MOST_KEYS {
        return Err(WrongKeys::Many);
    }
    Ok(in_order(before.iter().cloned().chain([new]).collect()))
}

/// The keys without one.
///
/// # Errors
/// When it is not there.
pub fn without_key(before: &[ApiKey], key: &KeyId) -> Result<Vec<ApiKey>, WrongKeys> {
    let kept: Vec<_> = before.iter().filter(|known| known.id != *key).cloned().collect();
    if kept.len() == before.len() {
        return Err(WrongKeys::Missing(key.clone()));
    }
    Ok(kept)
}

/// The plain one first, as it is read.
fn in_order(mut keys: Vec<ApiKey>) -> Vec<ApiKey> {
    keys.sort_by_key(|key| !key.is_plain());
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(key: &str) -> KeyDigest {
        KeyDigest::of(key.as_bytes())
    }

    fn wanted(id: Option<&str>, key: Option<&str>, expires_at: Option<u64>) -> WantedKey {
        WantedKey { id: id.and_then(KeyId::parse), digest: key.map(digest), expires_at }
    }

    #[test]
    fn keys_are_named_by_what_they_are_or_by_their_ids() {
        let of = |wanted: Vec<WantedKey>, before: &[ApiKey]| KeyChange::Set(wanted).of(before);
        let made = of(vec![wanted(None, Some("x"), Some(9)), WantedKey::primary(digest("y"))], &[]).unwrap();
        let ids: Vec<_> = made.iter().map(|key| key.id.as_str()).collect();
        assert_eq!((ids[0], ids[1].len()), ("primary", 12));
        // By the id, and by the key without an id: the same ones.
        let again = vec![wanted(Some(ids[1]), None, Some(9)), wanted(None, Some("y"), None)];
        assert_eq!(of(again, &made), Ok(made.clone()));
        assert_eq!(KeyChange::Keep.of(&made), Ok(made.clone()));
        assert_eq!(of(vec![], &made), Ok(vec![]));
        let refused = |wanted: Vec<WantedKey>| of(wanted, &made).unwrap_err().to_string();
        assert_eq!(refused(vec![wanted(Some("k9"), None, None)]), "names the key k9, which is not there");
        assert_eq!(
            refused(vec![wanted(None, Some("y"), None), wanted(Some("primary"), None, None)]),
            "has one key twice"
        );
        let rest = without_key(&made, &KeyId::primary()).unwrap();
        assert_eq!(rest, made[1..]);
        assert_eq!(without_key(&rest, &KeyId::primary()).unwrap_err().to_string(), "has no key primary");
        let full: Vec<_> = (0..5).fold(Vec::new(), |keys, key: u8| {
            let new = ApiKey { id: KeyId::fresh(), digest: KeyDigest::of(&[key]), expires_at: None };
            with_key(&keys, new).unwrap()
        });
        assert_eq!(with_key(&full, made[0].clone()), Err(WrongKeys::Many));
    }
}
