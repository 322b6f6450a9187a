//! Who gets in.
//!
//! With tokens: whoever shows one. Only the probes need none, since an orchestrator that asks whether the process lives
//! has no secret. Tokens are compared by their SHA-256 digests, in constant time, and always all of them, so that the
//! time of an answer tells neither a prefix nor a length.
//!
//! Over a Unix socket: whoever may connect, which its owner, group and mode say.
//!
//! Without a token the API else listens on loopback only, and everything on this machine may use it. That includes the
//! browser, which runs other people's pages. Two ways lead from such a page to here, and both are shut for every path:
//! - A name of theirs is made to mean 127.0.0.1 (DNS rebinding); then `Host` is that name. So `Host` must be a loopback
//!   name.
//! - Their page asks for `http://127.0.0.1:9901/…` itself. A browser then says so with `Origin` on every request that
//!   could change something, and with `Sec-Fetch-Site`. So an `Origin` must be this very API, and no request may be
//!   cross-site. A request that names no host, which HTTP/1.0 allows, is for no API that an `Origin` could be.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::Request;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, StatusCode, Version};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::ApiError;

/// What those are told whose token is not among ours.
const WRONG_TOKEN: &str = "The token is wrong; the right ones are those of admin.token_file or TOLLGATE_ADMIN_TOKEN";
/// What those are told whose request is for no host, or for several.
const WRONG_HOST: &str = "Exactly one Host header is required";
/// What the history calls whoever came over loopback without a token.
const LOOPBACK: &str = "loopback";
/// What it calls whoever came over a Unix socket.
const SOCKET: &str = "socket";

/// That a request came over TLS. An extension of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct OverTls;

/// A token and what its holder is called in the history.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What its holder is called.
    pub name: String,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever is on this machine: only for a loopback address.
    Loopback,
    /// Whoever has one of these, at least one.
    Tokens(Vec<Token>),
    /// Whoever can connect: only for a Unix socket, whose mode says who can.
    Anyone,
}

/// Who sent a request that was let in, by the name that the history gets. An extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Actor(pub(in crate::admin) String);

impl Actor {
    /// Who sent `request`.
    pub(in crate::admin) fn of(request: &Request) -> String {
        request.extensions().get::<Actor>().map_or_else(|| LOOPBACK.to_owned(), |actor| actor.0.clone())
    }
}

/// Who gets in now, which a reload may change: each request is judged by the [`Access`] of the moment it came.
#[derive(Debug)]
pub(in crate::admin) struct Entrance {
    access: Arc<ArcSwap<Access>>,
    /// The gate of an `Access`, made anew once that is no longer the present one.
    gate: ArcSwap<(Arc<Access>, Doorkeeper)>,
}

impl Entrance {
    /// The entrance that lets in whom `access` says.
    pub(in crate::admin) fn new(access: Arc<ArcSwap<Access>>) -> Self {
        let present = access.load_full();
        let gate = Doorkeeper::new(Access::clone(&present));
        Entrance { access, gate: ArcSwap::from_pointee((present, gate)) }
    }

    /// Who sends this request.
    pub(super) fn admit(&self, request: &Request) -> Result<Actor, ApiError> {
        let (present, known) = (self.access.load(), self.gate.load());
        // An `Access` that is held here is at an address that no other one gets.
        if Arc::ptr_eq(&present, &known.0) {
            return known.1.admit(request);
        }
        let made = Arc::new((Arc::clone(&present), Doorkeeper::new(Access::clone(&present))));
        self.gate.store(Arc::clone(&made));
        made.1.admit(request)
    }
}

/// [`Access`], ready to be asked. Keeps no secret, only digests.
#[derive(Debug)]
pub(in crate::admin) enum Doorkeeper {
    /// Whoever is on this machine.
    Loopback,
    /// Names and the digests of their tokens.
    Tokens(Vec<(String, [u8; 32])>),
    /// Whoever can connect.
    Anyone,
}

impl Doorkeeper {
    /// The gate that lets in whom `access` says.
    pub(in crate::admin) fn new(access: Access) -> Self {
        match access {
            Access::Loopback => Doorkeeper::Loopback,
            Access::Anyone => Doorkeeper::Anyone,
            Access::Tokens(tokens) => {
                let digest = |token: Token| (token.name, Sha256::digest(token.secret.as_bytes()).into());
                Doorkeeper::Tokens(tokens.into_iter().map(digest).collect())
            }
        }
    }

    /// Who sends this request.
    fn admit(&self, request: &Request) -> Result<Actor, ApiError> {
        let host = host(request)?;
        match self {
            // No page of a browser gets to a socket of the file system.
            Doorkeeper::Anyone => Ok(Actor(SOCKET.to_owned())),
            Doorkeeper::Loopback => {
                check_same_site(request, host.as_deref())?;
                Ok(Actor(LOOPBACK.to_owned()))
            }
            Doorkeeper::Tokens(_) if matches!(request.uri().path(), "/healthz" | "/readyz") => {
                Ok(Actor("probe".to_owned()))
            }
            Doorkeeper::Tokens(tokens) => {
                let given = bearer(request.headers()).ok_or_else(|| {
                    ApiError::new(StatusCode::UNAUTHORIZED, "A token is required: Authorization: Bearer TOKEN")
                })?;
                let name = holder(tokens, given.as_bytes());
                name.map(Actor).ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, WRONG_TOKEN))
            }
        }
    }
}

/// Whose token this is. Looks at all of them, whichever it is.
fn holder(tokens: &[(String, [u8; 32])], given: &[u8]) -> Option<String> {
    let given: [u8; 32] = Sha256::digest(given).into();
    let mut found = Choice::from(0);
    let mut place = 0_u64;
    for (index, (_, digest)) in (0_u64..).zip(tokens) {
        let same = digest.ct_eq(&given);
        place.conditional_assign(&index, same);
        found |= same;
    }
    let place = usize::try_from(place).ok()?;
    bool::from(found).then(|| tokens.get(place).map(|(name, _)| name.clone())).flatten()
}

/// The token in the one `Authorization` header, when there is one of that kind.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}

/// The host and port that the request is for: of its target when that has one, else of its `Host` header. None only for
/// an HTTP/1.0 request with neither, which no browser sends.
fn host(request: &Request) -> Result<Option<String>, ApiError> {
    let mut all = request.headers().get_all(HOST).iter();
    let given = match (all.next(), all.next()) {
        (Some(only), None) => Some(only.to_str().map_err(|_| WRONG_HOST)),
        (None, _) if request.version() == Version::HTTP_10 => None,
        _ => Some(Err(WRONG_HOST)),
    };
    let given = given.transpose().map_err(ApiError::bad_request)?;
    Ok(request.uri().authority().map(|authority| authority.as_str()).or(given).map(str::to_owned))
}

fn check_same_site(request: &Request, host: Option<&str>) -> Result<(), ApiError> {
    let forbidden = |message: &str| Err(ApiError::new(StatusCode::FORBIDDEN, message));
    if host.is_some_and(|host| !is_loopback(host)) {
        return forbidden(
            "The Host is not a loopback name such as 127.0.0.1 or localhost; to be asked by another name, tollgate needs a \
             token: set admin.token_file or TOLLGATE_ADMIN_TOKEN",
        );
    }
    let (scheme, port) = match request.extensions().get::<OverTls>() {
        Some(OverTls) => ("https://", ":443"),
        None => ("http://", ":80"),
    };
    for origin in request.headers().get_all(ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme));
        let plain = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
        if same.is_none() || same.map(plain) != host.map(plain) {
            return forbidden("The Origin is another one than this API; without a token pages of others are refused");
        }
    }
    if request.headers().get_all("sec-fetch-site").iter().any(|site| site == "cross-site") {
        return forbidden("The request comes from another site's page; without a token those are refused");
    }
    Ok(())
}

/// Whether a host, with or without a port, is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if name.contains(':') => (name, port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let address = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    port_is_one && (address || name.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request {
        let start = http::Request::builder().uri(target);
        headers.iter().fold(start, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap()
    }

    fn tokens() -> Doorkeeper {
        let token = |name: &str, secret: &str| Token { name: name.to_owned(), secret: secret.to_owned() };
        Doorkeeper::new(Access::Tokens(vec![token("ops", "first-secret"), token("ci", "second")]))
    }

    #[test]
    fn a_token_gives_its_holder_a_name() {
        let admit = |authorization: &str| {
            let headers = [("host", "admin.example"), ("authorization", authorization)];
            tokens().admit(&request("/clients", &headers)).map(|actor| actor.0).map_err(|error| error.status.as_u16())
        };
        assert_eq!(admit("Bearer first-secret"), Ok("ops".to_owned()));
        assert_eq!(admit("bearer  second"), Ok("ci".to_owned()));
        for wrong in ["Bearer", "Bearer ", "Bearer first", "Bearer first-secret2", "Basic second", "second", ""] {
            assert_eq!(admit(wrong), Err(401), "{wrong}");
        }
        let host = ("host", "admin.example");
        assert_eq!(tokens().admit(&request("/clients", &[host])).unwrap_err().status, 401);
        let two = [host, ("authorization", "Bearer second"), ("authorization", "Bearer second")];
        assert_eq!(tokens().admit(&request("/clients", &two)).unwrap_err().status, 401);
        for open in ["/healthz", "/readyz"] {
            assert!(tokens().admit(&request(open, &[host])).is_ok());
        }
        assert!(!format!("{:?}", tokens()).contains("secret"));
    }

    #[test]
    fn another_access_counts_from_the_next_request_on() {
        let only = |secret: &str| Access::Tokens(vec![Token { name: "ops".to_owned(), secret: secret.to_owned() }]);
        let access = Arc::new(ArcSwap::from_pointee(only("old")));
        let entrance = Entrance::new(Arc::clone(&access));
        let admit = |secret: &str| {
            let bearer = format!("Bearer {secret}");
            entrance.admit(&request("/clients", &[("host", "127.0.0.1"), ("authorization", &bearer)])).is_ok()
        };
        assert!(admit("old") && !admit("new"));
        access.store(Arc::new(only("new")));
        assert!(admit("new") && !admit("old"));
        access.store(Arc::new(Access::Loopback));
        assert!(entrance.admit(&request("/clients", &[("host", "127.0.0.1")])).is_ok());
        access.store(Arc::new(only("old")));
        assert!(admit("old") && !admit("new"));
    }

    #[test]
    fn without_a_token_the_host_must_be_loopback() {
        let admit = |host: &str| Doorkeeper::Loopback.admit(&request("/healthz", &[("host", host)])).is_ok();
        for host in ["127.0.0.1", "127.0.0.1:9901", "127.9.9.9", "localhost", "LOCALHOST:80", "[::1]", "[::1]:9901"] {
            assert!(admit(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9901",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "::1",
            "[127.0.0.1]",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "localhost@evil.example",
            "2130706433",
        ] {
            assert!(!admit(host), "{host}");
        }
        let absolute = request("http://evil.example/clients", &[("host", "127.0.0.1")]);
        assert_eq!(Doorkeeper::Loopback.admit(&absolute).unwrap_err().status, 403);
        let two = request("/clients", &[("host", "127.0.0.1"), ("host", "127.0.0.1")]);
        assert_eq!(Doorkeeper::Loopback.admit(&two).unwrap_err().status, 400);
        assert_eq!(Doorkeeper::Loopback.admit(&request("/clients", &[])).unwrap_err().status, 400);
    }

    #[test]
    fn over_a_socket_nobody_is_asked_and_over_tls_an_origin_is_another_one() {
        let anyone = Doorkeeper::new(Access::Anyone);
        let actor = anyone.admit(&request("/clients", &[("host", "whatever")])).unwrap();
        assert_eq!(actor.0, "socket");
        let admit = |origin: &str| {
            let mut request = request("/clients", &[("host", "127.0.0.1:9901"), ("origin", origin)]);
            request.extensions_mut().insert(OverTls);
            Doorkeeper::Loopback.admit(&request).is_ok()
        };
        assert!(admit("https://127.0.0.1:9901") && !admit("http://127.0.0.1:9901"));
    }

    #[test]
    fn an_old_request_is_no_way_around() {
        let admit = |target: &str, headers: &[(&str, &str)]| {
            let mut request = request(target, headers);
            *request.version_mut() = Version::HTTP_10;
            Doorkeeper::Loopback.admit(&request).map_err(|error| error.status.as_u16()).map(drop)
        };
        assert_eq!(admit("/clients", &[]), Ok(()));
        assert_eq!(admit("/clients", &[("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(admit("http://127.0.0.1:9901/clients", &[("origin", "http://127.0.0.1:9901")]), Ok(()));
        assert_eq!(admit("http://evil.example/clients", &[]), Err(403));
        assert_eq!(admit("http://127.0.0.1:9901/clients", &[("origin", "http://evil.example")]), Err(403));
        for origin in ["http://evil.example", "http://127.0.0.1:9901", "http://", "null", ""] {
            assert_eq!(admit("/clients", &[("origin", origin)]), Err(403), "{origin}");
        }
        assert_eq!(admit("/clients", &[("sec-fetch-site", "cross-site")]), Err(403));
        assert_eq!(admit("/clients", &[("host", "localhost"), ("host", "localhost")]), Err(400));
    }

    #[test]
    fn without_a_token_pages_of_others_are_refused() {
        let admit = |name: &str, value: &str| {
            let headers = [("host", "127.0.0.1:9901"), (name, value)];
            Doorkeeper::Loopback.admit(&request("/clients", &headers)).map_err(|error| error.status.as_u16()).is_ok()
        };
        assert!(admit("origin", "http://127.0.0.1:9901"));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://127.0.0.1:8080",
            "https://127.0.0.1:9901",
            "http://localhost:9901",
        ] {
            assert!(!admit("origin", origin), "{origin}");
        }
        assert!(!admit("sec-fetch-site", "cross-site"));
        assert!(admit("sec-fetch-site", "same-origin") && admit("sec-fetch-site", "none"));
    }
}
