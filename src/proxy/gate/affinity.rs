//! What a request has by which its backend is chosen: the key of `balance: hash`, and the token of a sticky cookie.
//!
//! The problem: a backend is chosen for each attempt, also where the request's header is not at hand any more; and most
//! pools choose by nothing that a request has.
//!
//! The rule: what the pool goes by is looked up once, when the request is let in, and kept at a fixed size. A request
//! to any other pool has none of it. Of several headers or cookies of one name the first counts.

use std::net::IpAddr;

use http::HeaderName;
use http::header::COOKIE;

use crate::proxy::gate::headers::X_FORWARDED_PROTO;
use crate::proxy::gate::identify::Caller;
use crate::proxy::wire::lines::Fields;
use crate::upstream::{HashBy, HashKey, Pool, StickyToken};

/// What a request has by which its backend is chosen.
#[derive(Clone, Debug)]
pub struct Affinity {
    /// What tells it from others; none when it has nothing of the kind.
    pub(in crate::proxy) key: Option<HashKey>,
    /// The backend that its client was sent to before, if that still is one of its pool and ready.
    pub(in crate::proxy) token: Option<StickyToken>,
    /// Whether a trusted proxy says that its client speaks TLS.
    pub(in crate::proxy) secure: bool,
}

impl Affinity {
    /// That of a request of `caller` with these `fields` for `path`, which goes to `pool`. None where the pool asks for
    /// none.
    pub(in crate::proxy) fn of(
        pool: &Pool,
        caller: &Caller,
        (fields, path): (&impl Fields, &str),
    ) -> Option<Box<Self>> {
        let settings = pool.settings();
        if !settings.balance.needs().caller && settings.sticky.is_none() {
            return None;
        }
        let hashed = |bytes: &[u8]| (!bytes.is_empty()).then(|| HashKey::of(bytes));
        let key = match settings.hash.as_ref().unwrap_or(&HashBy::Client) {
            HashBy::Client => match &caller.client {
                Some((client, _)) => hashed(client.id.as_str().as_bytes()),
                None => Some(of_address(caller.address)),
            },
            HashBy::Address => Some(of_address(caller.address)),
            HashBy::Path => hashed(path.as_bytes()),
            HashBy::Header(name) => fields.all_of(name).next().and_then(hashed),
            HashBy::Cookie(name) => cookies(fields, name).next().and_then(hashed),
        };
        let token = settings.sticky.as_ref().and_then(|name| token(pool, (fields, name)));
        let secure = caller.behind_proxy() && fields.all_of(&X_FORWARDED_PROTO).next() == Some(b"https");
        Some(Box::new(Affinity { key, token, secure }))
    }
}

/// The token that a request has of a backend of `pool` which can have it, in a cookie of this name.
pub(in crate::proxy) fn token(pool: &Pool, (fields, name): (&impl Fields, &str)) -> Option<StickyToken> {
    cookies(fields, name).filter_map(StickyToken::parse).find(|token| pool.keeps(*token))
}

fn of_address(address: IpAddr) -> HashKey {
    match address {
        IpAddr::V4(address) => HashKey::of(&address.octets()),
        IpAddr::V6(address) => HashKey::of(&address.octets()),
    }
}

/// What cookies of this name say.
fn cookies<'h>(fields: &'h impl Fields, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    const NAME: &HeaderName = &COOKIE;
    fields.all_of(NAME).flat_map(|line| line.split(|byte| *byte == b';')).filter_map(move |pair| {
        let (found, value) = named(pair)?;
        (found == name.as_bytes()).then_some(value)
    })
}

/// The name of a cookie and what it says.
pub(in crate::proxy) fn named(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = pair.trim_ascii();
    let at = memchr::memchr(b'=', pair)?;
    Some((&pair[..at], &pair[at + 1..]))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;

    use super::*;
    use crate::upstream::{Balance, PoolSettings};

    fn key(by: HashBy, headers: &[(&str, &str)]) -> Option<HashKey> {
        let balance = Balance::named("hash").unwrap();
        let pool = Pool::new(PoolSettings { balance, hash: Some(by), ..PoolSettings::default() });
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect();
        let address = [192, 0, 2, 1].into();
        let caller = Caller { address, walk: None, key: None, unknown_key: false, client: None };
        Affinity::of(&pool, &caller, (&headers, "/a/b")).unwrap().key
    }

    #[test]
    fn a_key_is_what_the_pool_goes_by() {
        let is = |text: &str| Some(HashKey::of(text.as_bytes()));
        assert_eq!(key(HashBy::Path, &[]), is("/a/b"));
        let header = HashBy::Header("x-user".parse().unwrap());
        assert_eq!(key(header.clone(), &[("x-user", "u1"), ("x-user", "u2")]), is("u1"));
        assert_eq!((key(header.clone(), &[]), key(header, &[("x-user", "")])), (None, None));
        let cookie = HashBy::Cookie("id".to_owned());
        assert_eq!(key(cookie.clone(), &[("cookie", "a=b; xid=1;id=7=8 ; id=9")]), is("7=8"));
        assert_eq!(key(cookie, &[("cookie", "id; ID=1")]), None, "names of cookies are compared as they are");
        assert_eq!(key(HashBy::Address, &[]), key(HashBy::Client, &[]), "whom nobody knows goes by its address");
    }

    #[test]
    fn who_asks_for_nothing_gets_nothing() {
        let caller = Caller { address: [192, 0, 2, 1].into(), walk: None, key: None, unknown_key: false, client: None };
        let of = |settings| Affinity::of(&Pool::new(settings), &caller, (&HeaderMap::new(), "/"));
        assert!(of(PoolSettings::default()).is_none());
        let sticky = Some(Arc::from("tg_backend"));
        assert!(of(PoolSettings { sticky, ..PoolSettings::default() }).is_some());
    }
}
