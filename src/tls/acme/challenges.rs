//! What authorities ask, and how it is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustls::sign::CertifiedKey;

use super::elsewhere::SeenBoard;

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
    /// Where other nodes see them, and have theirs.
    board: Option<SeenBoard>,
}

#[derive(Debug, Default)]
struct AskedAnswers {
    by_token: HashMap<String, Arc<str>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Challenges {
    pub(super) fn new(board: Option<SeenBoard>) -> Self {
        Challenges { board, ..Challenges::default() }
    }

    /// What a request for `path` is answered, if an authority asks that.
    #[inline]
    pub fn answer(&self, path: &str) -> Option<Arc<str>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        self.answers.read().by_token.get(token).cloned()
    }

    /// Whether another node may know what a request for `path` is answered.
    #[inline]
    pub fn may_be_elsewhere(&self, path: &str) -> bool {
        let Some(board) = &self.board else { return false };
        path.strip_prefix(CHALLENGE_PATH).is_some_and(|token| board.may_have(token))
    }

    /// What that is, if one does.
    pub async fn answer_elsewhere(&self, path: &str) -> Option<String> {
        self.board.as_ref()?.answer(path.strip_prefix(CHALLENGE_PATH)?).await
    }

    /// Has asked for what other nodes know.
    pub(super) fn look_elsewhere(&self) {
        self.board.iter().for_each(SeenBoard::begin);
    }

    /// What a handshake for `name` presents, if an authority asks that.
    pub(in crate::tls) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.answers.read().by_name.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Has `token` answered, by other nodes as well.
    pub(super) async fn put_answer(&self, token: &str, answer: &str) {
        self.answers.write().by_token.insert(token.to_owned(), answer.into());
        self.any.store(true, Ordering::Relaxed);
        if let Some(seen) = &self.board {
            seen.board.put(token, answer).await;
        }
    }

    pub(super) fn put_certificate(&self, name: String, certificate: CertifiedKey) {
        self.answers.write().by_name.insert(name, Arc::new(certificate));
    }

    /// Forgets all of them.
    pub(super) async fn clear(&self) {
        self.any.store(false, Ordering::Relaxed);
        let tokens: Vec<_> = std::mem::take(&mut *self.answers.write()).by_token.into_keys().collect();
        if let Some(seen) = self.board.as_ref().filter(|_| !tokens.is_empty()) {
            seen.board.remove(&tokens).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_is_answered_until_it_is_over() {
        let challenges = Challenges::default();
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
        challenges.put_answer("a", "a.b").await;
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a").as_deref(), Some("a.b"));
        for path in
            ["/.well-known/acme-challenge/b", "/.well-known/acme-challenge/", "/a", "/x/.well-known/acme-challenge/a"]
        {
            assert_eq!(challenges.answer(path), None, "{path}");
        }
        challenges.clear().await;
        assert_eq!(challenges.answer("/.well-known/acme-challenge/a"), None);
    }
}
