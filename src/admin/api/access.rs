//! Who gets in.
//!
//! With tokens: whoever shows one. Only the probes need none, since an orchestrator that asks whether the process lives
//! has no secret, and the files of the page, which hold no data: the page asks for a token and sends it then. A viewer's
//! token reads, and asks the two questions that come by POST and change nothing; that is told by method and path, here,
//! before any handler, so that a call that somebody adds is a write until it is named here. Tokens are compared by their
//! SHA-256 digests, in constant time, and always all of them, so that the time of an answer tells neither a prefix nor a
//! length.
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
use http::{HeaderMap, Method, StatusCode, Version};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::ApiError;

/// What those are told whose token is not among ours.
const WRONG_TOKEN: &str = "The token is wrong; the right ones are those of admin.token_file or TOLLGATE_ADMIN_TOKEN";
/// What those are told whose request is for no host, or for several.
const WRONG_HOST: &str = "Exactly one Host header is required";
/// What viewers are told that want to change something.
const VIEWER: &str = "The token is a viewer's, which may read, explain and simulate, and change nothing";
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
    /// Whether its holder may only look.
    pub viewer: bool,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("viewer", &self.viewer).finish_non_exhaustive()
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

/// Who sent a request that was let in. An extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Actor {
    /// The name that the history gets.
    pub(in crate::admin) name: String,
    /// Whether it may only look.
    pub(in crate::admin) viewer: bool,
}

impl Actor {
    fn named(name: &str) -> Self {
        Actor { name: name.to_owned(), viewer: false }
    }

    /// The name of who sent `request`.
    pub(in crate::admin) fn of(request: &Request) -> String {
        Self::sent(request).name
    }

    /// Who sent `request`.
    pub(in crate::admin) fn sent(request: &Request) -> Self {
        request.extensions().get::<Actor>().cloned().unwrap_or_else(|| Actor::named(LOOPBACK))
    }
}

/// Whether `request` asks and changes nothing.
fn only_asks(request: &Request) -> bool {
    let path = request.uri().path();
    let question = path == "/explain" || path.starts_with("/clients/") && path.ends_with("/simulate");
    request.method().is_safe() || request.method() == Method::POST && question
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
    /// Who they are, and the digests of their tokens.
    Tokens(Vec<(Actor, [u8; 32])>),
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
                let digest = |Token { name, secret, viewer }: Token| {
                    (Actor { name, viewer }, Sha256::digest(secret.as_bytes()).into())
                };
                Doorkeeper::Tokens(tokens.into_iter().map(digest).collect())
            }
        }
    }

    /// Who sends this request.
    fn admit(&self, request: &Request) -> Result<Actor, ApiError> {
        let host = host(request)?;
        match self {
            // No page of a browser gets to a socket of the file system.
            Doorkeeper::Anyone => Ok(Actor::named(SOCKET)),
            Doorkeeper::Loopback => {
                check_same_site(request, host.as_deref())?;
                Ok(Actor::named(LOOPBACK))
            }
            Doorkeeper::Tokens(_) if is_open(request.uri().path()) => Ok(Actor::named("probe")),
            Doorkeeper::Tokens(tokens) => {
                let given = bearer(request.headers()).ok_or_else(|| {
                    ApiError::new(StatusCode::UNAUTHORIZED, "A token is required: Authorization: Bearer TOKEN")
                })?;
                match holder(tokens, given.as_bytes()) {
                    None => Err(ApiError::new(StatusCode::UNAUTHORIZED, WRONG_TOKEN)),
                    Some(actor) if actor.viewer && !only_asks(request) => {
                        Err(ApiError::new(StatusCode::FORBIDDEN, VIEWER))
                    }
                    Some(actor) => Ok(actor),
                }
            }
        }
    }
}

/// Whether a path needs no token: it holds nothing of anybody.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/") || path.starts_with("/ui/")
}

/// Whose token this is. Looks at all of them, whichever it is.
fn holder(tokens: &[(Actor, [u8; 32])], given: &[u8]) -> Option<Actor> {
    let given: [u8; 32] = Sha256::digest(given).into();
    let mut found = Choice::from(0);
    let mut place = 0_u64;
    for (index, (_, digest)) in (0_u64..).zip(tokens) {
        let same = digest.ct_eq(&given);
        place.conditional_assign(&index, same);
        found |= same;
    }
    let place = usize::try_from(place).ok()?;
    bool::from(found).then(|| tokens.get(place).map(|(actor, _)| actor.clone())).flatten()
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
mod tests;
