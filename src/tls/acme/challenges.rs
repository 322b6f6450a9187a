//! What authorities ask, and how it is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustls::sign::CertifiedKey;

/// What the path of an HTTP-01 challenge begins with, before its token.
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// By which an authority asks who is at a name (RFC 8737).
pub(in crate::tls) const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// The answers to what authorities ask now.
#[derive(Debug, Default)]
pub struct Challenges {
    /// Whether there are any, so that nobody else pays for them.
    any: AtomicBool,
    answers: RwLock<AskedAnswers>,
}

#[derive(Debug, Default)]
struct AskedAnswers {
    by_token: HashMap<String, Arc<str>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Challenges {
    /// What a request for `path` is answered, if an authority asks that.
    #[inline]
    pub fn answer(&self, path: &str) -> Option<Arc<str>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.answers.read().by_token.get(token).cloned()
    }

    /// What a handshake for `name` presents, if an authority asks that.
    pub(in crate::tls) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.answers.read().by_name.get(&name.to_ascii_lowercase()).cloned()
    }

    pub(super) fn put_answer(&self, token: String, answer: &str) {
        self.answers.write().by_token.insert(token, answer.into());
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn put_certificate(&self, name: String, certificate: CertifiedKey) {
        self.answers.write().by_name.insert(name, Arc::new(certificate));
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.any.store(false, Ordering::Relaxed);
        *self.answers.write() = AskedAnswers::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_answered_until_it_is_over() {
        let challenges = Challenges::default();
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
        challenges.put_answer("a".to_owned(), "a.b");
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a").as_deref(), Some("a.b"));
        for path in
            ["/.well-known/acme-challenge/b", "/.well-known/acme-challenge/", "/a", "/x/.well-known/acme-challenge/a"]
        {
            assert_eq!(challenges.answer(path), None, "{path}");
        }
        challenges.clear();
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
    }
}
