//! API keys that are made here.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use crate::admin::api::ApiError;
use crate::client::KeyDigest;

/// A key that was made and is shown once.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// Makes one of 256 random bits: `tg_` and 43 characters. The prefix lets scanners of leaked secrets know it.
    ///
    /// # Errors
    /// 503 when the system gives no random bytes.
    pub(super) fn generate() -> Result<Self, ApiError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| ApiError::unavailable(format!("The system gives no random bytes for a key: {error}")))?;
        Ok(Secret(format!("tg_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// What is kept of it.
    pub(super) fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.0.as_bytes())
    }

    /// It, to be shown.
    pub(super) fn reveal(self) -> String {
        self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_each_its_own() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!((format!("{one:?}"), one.digest() == other.digest()), ("Secret(..)".to_owned(), false));
        let text = one.reveal();
        assert!(text.len() == 46 && text.starts_with("tg_"), "{text}");
    }
}
