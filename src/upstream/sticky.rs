//! What a client is told of its backend, so that it comes back to it.
//!
//! The problem: a cookie that names a backend tells strangers where it is, and lets them choose one.
//!
//! The rule: the token of a backend is an authentication code (HMAC-SHA-256, its first 128 bits) over the names of its
//! pool and its address. It needs no list of who was told what: each process that has the key finds the same token for
//! the same backend, after a restart, an upgrade or a reload, and whatever else a client sends is no token. The key is
//! made of the secret that the database keeps.
//!
//! Refused: the address beside a code, or encrypted, which costs a request a computation where this costs a look into
//! a table; a number for each backend, which changes with the file.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::ConnectAddress;

/// How many bytes of a code there are.
const CODE: usize = 16;
/// How long a token is: in base64.
const TOKEN: usize = 22;

/// What stands for a backend in a cookie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StickyToken([u8; TOKEN]);

impl StickyToken {
    /// Reads what a client sent, if it can be one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(StickyToken)
    }

    /// As it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StickyToken {
    /// Whoever has it can be taken for its client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyToken(..)")
    }
}

/// What tokens are made with. A clone is the same.
#[derive(Clone)]
pub struct StickyKey(Arc<hmac::Key>);

impl StickyKey {
    /// The key that comes of a secret.
    pub fn new(secret: u128) -> Self {
        // Another key than what else is made of the secret.
        let kept = hmac::Key::new(hmac::HMAC_SHA256, &secret.to_le_bytes());
        let own = hmac::sign(&kept, b"tollgate sticky");
        StickyKey(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref())))
    }
}

impl Default for StickyKey {
    /// One that nobody can guess.
    fn default() -> Self {
        let mut secret = [0; 16];
        // Only where the system has no randomness, and then nothing else works, either.
        let _ = getrandom::fill(&mut secret);
        StickyKey::new(u128::from_le_bytes(secret))
    }
}

impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StickyKey(..)")
    }
}

/// Makes the tokens of one pool's backends.
#[derive(Clone, Debug)]
pub struct TokenMaker {
    key: StickyKey,
    pool: Arc<str>,
}

impl TokenMaker {
    /// For the pool of this name.
    pub(super) fn new(key: &StickyKey, pool: &str) -> Self {
        TokenMaker { key: key.clone(), pool: pool.into() }
    }

    fn token(&self, address: &ConnectAddress) -> StickyToken {
        // No name of a pool has a zero in it.
        let code = hmac::sign(&self.key.0, format!("{}\0{address}", self.pool).as_bytes());
        let mut token = [0; TOKEN];
        let length = URL_SAFE_NO_PAD.encode_slice(&code.as_ref()[..CODE], &mut token);
        debug_assert_eq!(length, Ok(TOKEN));
        StickyToken(token)
    }
}

/// The tokens of some backends.
#[derive(Debug)]
pub(super) struct StickyTokens {
    by_place: Box<[StickyToken]>,
    places: Box<[(StickyToken, usize)]>,
}

impl StickyTokens {
    /// Those of the backends at `addresses`.
    pub(super) fn new<'a>(maker: &TokenMaker, addresses: impl Iterator<Item = &'a ConnectAddress>) -> Self {
        let by_place: Box<[_]> = addresses.map(|address| maker.token(address)).collect();
        let mut places: Box<[_]> = by_place.iter().enumerate().map(|(place, token)| (*token, place)).collect();
        places.sort_unstable();
        StickyTokens { by_place, places }
    }

    /// That of the one at `place`.
    pub(super) fn of(&self, place: usize) -> StickyToken {
        self.by_place[place]
    }

    /// Where the backend of `token` is.
    pub(super) fn place(&self, token: StickyToken) -> Option<usize> {
        let found = self.places.binary_search_by_key(&token, |(token, _)| *token).ok()?;
        Some(self.places[found].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secret: u128, pool: &str) -> StickyTokens {
        let addresses = [1, 2, 3].map(|port| ConnectAddress::Tcp(([10, 0, 0, 1], port).into()));
        StickyTokens::new(&TokenMaker::new(&StickyKey::new(secret), pool), addresses.iter())
    }

    #[test]
    fn a_token_leads_back_to_its_backend_with_the_same_secret_and_pool_only() {
        let known = tokens(1, "app");
        for place in 0..3 {
            let token = StickyToken::parse(known.of(place).as_bytes()).unwrap();
            assert_eq!(tokens(1, "app").place(token), Some(place));
            assert_eq!((tokens(2, "app").place(token), tokens(1, "other").place(token)), (None, None));
        }
    }

    #[test]
    fn what_was_changed_is_no_token() {
        let known = tokens(1, "app");
        let token = known.of(0);
        for at in 0..TOKEN {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert_eq!(known.place(StickyToken::parse(&bytes).unwrap()), None, "{at}");
        }
        assert!(StickyToken::parse(&token.as_bytes()[1..]).is_none() && StickyToken::parse(b"").is_none());
    }

    #[test]
    fn it_goes_into_a_cookie_and_not_into_a_log() {
        let token = tokens(1, "app").of(0);
        assert!(token.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
        assert_eq!(format!("{token:?} {:?}", StickyKey::default()), "StickyToken(..) StickyKey(..)");
    }
}
