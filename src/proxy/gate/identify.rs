//! Who calls: plain values in, plain values out.
//!
//! 1. An API key, in the configured header or as `Authorization: Bearer`, that a client has: that client.
//! 2. Else, where certificates count, the one that was shown in the handshake, by its fingerprint or else by a name in
//!    it: that client.
//! 3. Else the caller's address, by the longest prefix among the clients' addresses: that client.
//! 4. Else anonymous.
//!
//! A key that no client has opens no bucket of its own, or every new key would be a new bucket: its caller goes by
//! address, and may be refused, as configured. That costs a token too, or keys could be guessed without end. Two
//! different keys in one request are refused, because whoever sends them wants one part of the way to see the one and
//! another part the other.
//!
//! The address is the connection's own. Only when that is a trusted proxy's is `X-Forwarded-For` looked at, from the
//! right, which is the end that our proxies write: past trusted addresses to the first that is not. Something that is
//! no address ends the walk at the last good one; an empty element is nothing. All other headers that name addresses
//! (`Forwarded`, `X-Real-IP`, ...) are ignored here; what backends get of them says `headers`.
//!
//! Keys are never written anywhere, names of clients are: into the access log, the latest refusals, the admin API. That
//! is so too of a name that is its client's API key, as it is when the client has no other credential: a name is
//! public, and whoever wants a secret gives the client an `api_key`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use http::header::AUTHORIZATION;
use ipnet::IpNet;

use crate::client::{Client, Directory, KeyDigest, Networks};
use crate::proxy::gate::certificate::ShownCertificate;
use crate::proxy::gate::headers::{Underscores, X_FORWARDED_FOR};
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::lines::Fields;

/// How callers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The header that holds an API key. Default `x-api-key`.
    pub api_key_header: HeaderName,
    /// What becomes of a caller whose key no client has. Default: it goes by its address.
    pub unknown_api_key: UnknownKey,
    /// The proxies whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Networks,
    /// Anonymous IPv6 callers share a bucket for each prefix of so many bits, at most 64. Default 64.
    pub ipv6_prefix: u8,
    /// What becomes of headers with `_` in their name. Default: they are dropped.
    pub underscores: Underscores,
    /// Whether backends get the API key that a client is known by. Default: yes.
    pub forward_api_key: bool,
    /// Whether clients are known by the certificates that they show. Default: no.
    pub client_certificates: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            api_key_header: HeaderName::from_static("x-api-key"),
            unknown_api_key: UnknownKey::ByAddress,
            trusted_proxies: Networks::default(),
            ipv6_prefix: 64,
            underscores: Underscores::Drop,
            forward_api_key: true,
            client_certificates: false,
        }
    }
}

/// What becomes of a caller whose key no client has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKey {
    /// It goes by its address.
    #[default]
    ByAddress,
    /// It gets 401.
    Reject,
}

/// Who calls, and how that was found out.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address that counts as the caller's.
    pub address: IpAddr,
    /// How the walk through `X-Forwarded-For` ended; `None` when the connection does not come from a trusted proxy.
    pub walk: Option<Walk>,
    /// Where an API key was read from, when there was one.
    pub key: Option<KeySource>,
    /// Whether it has a key that no client has, and that is a reason to refuse it.
    pub unknown_key: bool,
    /// The client, and how it was recognised; `None` when nobody knows the caller.
    pub client: Option<(Arc<Client>, Recognised)>,
}

impl Caller {
    /// Whether the connection itself comes from a trusted proxy.
    pub fn behind_proxy(&self) -> bool {
        self.walk.is_some()
    }

    /// How it was recognised, as the access log names it.
    pub fn identity(&self) -> &'static str {
        match &self.client {
            Some((_, Recognised::ApiKey)) => "api_key",
            Some((_, Recognised::Certificate)) => "certificate",
            Some((_, Recognised::Address(_))) => "address",
            None => "anonymous",
        }
    }
}

/// How a client was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// By its API key.
    ApiKey,
    /// By its certificate.
    Certificate,
    /// By its address, which is in this network of the client's.
    Address(IpNet),
}

/// How a walk through `X-Forwarded-For` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// At an address that is not trusted: the caller's.
    Untrusted,
    /// At something that is no address: the last good one counts.
    Broken,
    /// At the end of the list, of which all are trusted: the leftmost counts, or the connection's when there is no
    /// list.
    End,
}

/// Where an API key was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The header that is configured for keys.
    Header,
    /// `Authorization: Bearer`.
    Bearer,
}

/// Finds out who sent a request with these headers over a connection from `peer`, in whose handshake `certificate` was
/// shown, at `now` by the wall clock: a key that has ended is no client's.
///
/// # Errors
/// When it has two different keys.
pub fn identify(
    headers: &impl Fields,
    (peer, certificate, now): (IpAddr, Option<&ShownCertificate>, SystemTime),
    identity: &Identity,
    directory: &Directory,
) -> Result<Caller, Rejection> {
    let (address, walk) = origin(headers, peer, identity);
    let key = api_key(headers, &identity.api_key_header)?;
    let by_key = key.map(|(_, key)| KeyDigest::of_possible(key).and_then(|digest| directory.by_key(&digest, now)));
    let unknown_key = matches!(by_key, Some(None)) && identity.unknown_api_key == UnknownKey::Reject;
    let by_key = by_key.flatten().map(|client| (client, Recognised::ApiKey));
    let by_address = || directory.longest_match(address).map(|(net, client)| (client, Recognised::Address(net)));
    let by_certificate = || {
        let client = certificate.filter(|_| identity.client_certificates)?.client(directory, now)?;
        Some((client, Recognised::Certificate))
    };
    let client = by_key.or_else(by_certificate).or_else(by_address).map(|(client, how)| (Arc::clone(client), how));
    Ok(Caller { address, walk, key: key.map(|(source, _)| source), unknown_key, client })
}

/// The address that counts as the caller's, and how the walk to it ended when the connection comes from a trusted
/// proxy.
pub(in crate::proxy) fn origin(headers: &impl Fields, peer: IpAddr, identity: &Identity) -> (IpAddr, Option<Walk>) {
    let peer = peer.to_canonical();
    let trusted = |address| identity.trusted_proxies.contains(address);
    if !trusted(peer) {
        return (peer, None);
    }
    let (address, walk) = forwarded_for(headers, peer, trusted);
    (address, Some(walk))
}

/// The key of a request, if it has one. Empty ones do not count.
fn api_key<'h>(headers: &'h impl Fields, name: &'h HeaderName) -> Result<Option<(KeySource, &'h [u8])>, Rejection> {
    let own = headers.all_of(name).map(|value| (KeySource::Header, value));
    let bearer = headers.all_of(&AUTHORIZATION).filter_map(bearer);
    let bearer = bearer.map(|token| (KeySource::Bearer, token));
    let mut keys = own.chain(bearer).map(|(source, key)| (source, key.trim_ascii())).filter(|(_, key)| !key.is_empty());
    let first = keys.next();
    match first.is_none_or(|(_, first)| keys.all(|(_, key)| key == first)) {
        true => Ok(first),
        false => Err(Rejection::BadRequest("two different API keys")),
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 section 11.1).
pub(super) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// The first address from the right that is not trusted; where the list ends or is broken, the last good one.
fn forwarded_for(headers: &impl Fields, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> (IpAddr, Walk) {
    let mut last_good = peer;
    for line in headers.all_of(&X_FORWARDED_FOR).rev() {
        for entry in line.rsplit(|&byte| byte == b',') {
            // RFC 9110 section 5.6.1: whoever reads a list skips empty elements.
            let entry = entry.trim_ascii();
            if entry.is_empty() {
                continue;
            }
            let Some(address) = address(entry) else { return (last_good, Walk::Broken) };
            if !trusted(address) {
                return (address, Walk::Untrusted);
            }
            last_good = address;
        }
    }
    (last_good, Walk::End)
}

/// Reads one entry: an address, with a port when a proxy wrote one (`192.0.2.7:4711`, `[2001:db8::7]:4711`). A zone
/// (`fe80::1%eth0`) means something to the machine that wrote it, and nothing here: such an entry is none.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok().filter(|text| !text.contains('%'))?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    let plain = text.parse::<IpAddr>().ok().or_else(bracketed);
    let address = plain.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
