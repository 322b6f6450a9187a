//! The headers that tollgate adds and takes away.
//!
//! Pingora takes the hop-by-hop headers from requests (RFC 9110 section 7.6.1), not from the answers of HTTP/1.1
//! backends; that is done here. What a client says about itself in `X-Forwarded-*` and `X-Request-Id` is replaced, since
//! anyone can say anything there; what a trusted proxy says is kept.

use http::HeaderName;
use http::header::{CONNECTION, HOST, PROXY_AUTHENTICATE, TE, TRAILER, UPGRADE};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use std::net::IpAddr;

use super::RequestId;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Writes an absolute target (`GET http://a/x`) in origin form, which every backend knows; `Host` says the same as the
/// authority that goes (RFC 9112 section 3.2.1).
///
/// # Errors
/// Never in practice: it is a part of a target that was taken.
pub(super) fn to_origin_form(request: &mut RequestHeader) -> Result<()> {
    if request.raw_path().starts_with(b"/") || request.raw_path() == b"*" {
        return Ok(());
    }
    // Of an absolute target Pingora's `uri` has only what follows the authority.
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    request.set_raw_path(target.as_bytes())
}

/// Who sent a request, and how, as the backend learns it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// At the other end of the connection.
    pub(super) peer: IpAddr,
    /// Whether that is a trusted proxy.
    pub(super) trusted: bool,
    /// Whether the connection is TLS.
    pub(super) secure: bool,
}

/// Prepares a request for the backend: says who sent it, to which host, and under which id. What a trusted proxy says is
/// kept and added to.
///
/// # Errors
/// Never in practice: every value is a valid one.
pub(super) fn to_backend(request: &mut RequestHeader, sender: Sender, id: &RequestId) -> Result<()> {
    let Sender { peer, trusted, secure } = sender;
    let said = request.headers.get_all(X_FORWARDED_FOR).iter().filter(|_| trusted);
    let mut hops: Vec<u8> = said.flat_map(|line| [line.as_bytes(), b", "]).flatten().copied().collect();
    hops.extend_from_slice(peer.to_string().as_bytes());
    request.insert_header(X_FORWARDED_FOR, hops)?;
    if !(trusted && request.headers.contains_key(X_FORWARDED_PROTO)) {
        request.insert_header(X_FORWARDED_PROTO, if secure { "https" } else { "http" })?;
    }
    if !(trusted && request.headers.contains_key(X_FORWARDED_HOST)) {
        match request.headers.get(HOST).cloned() {
            Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
    }
    request.insert_header(X_REQUEST_ID, id.as_str())
}

/// Takes the hop-by-hop headers from a backend's answer. `Transfer-Encoding` stays: it says how Pingora frames the body
/// for the client.
pub(super) fn to_client(answer: &mut ResponseHeader) {
    let named: Vec<HeaderName> = answer
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in &named {
        answer.remove_header(name);
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_AUTHENTICATE, &PROXY_CONNECTION, &TE, &TRAILER, &UPGRADE] {
        answer.remove_header(name);
    }
}

/// What a `Connection` header may not take away, because the message would change its meaning or its length.
fn is_end_to_end(name: &HeaderName) -> bool {
    use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING};
    [CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING].contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(peer: [u8; 4], trusted: bool) -> Sender {
        Sender { peer: peer.into(), trusted, secure: false }
    }

    #[test]
    fn a_backend_learns_that_the_connection_is_tls() {
        for (trusted, claimed, expected) in [(false, "http", "https"), (true, "http", "http"), (true, "", "https")] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            if !claimed.is_empty() {
                request.insert_header(X_FORWARDED_PROTO, claimed).unwrap();
            }
            let secure = Sender { secure: true, ..sender([192, 0, 2, 7], trusted) };
            to_backend(&mut request, secure, &RequestId::random()).unwrap();
            assert_eq!(request.headers[X_FORWARDED_PROTO], expected, "{trusted} {claimed}");
        }
    }

    #[test]
    fn what_the_client_says_of_itself_is_replaced() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("host", "api.example.com:8080"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-request-id", "mine"),
        ] {
            request.append_header(name, value).unwrap();
        }
        request.append_header("x-forwarded-for", "5.6.7.8").unwrap();
        let id = RequestId::random();
        to_backend(&mut request, sender([192, 0, 2, 7], false), &id).unwrap();
        let all = |name: &str| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all("x-forwarded-proto"), ["http"]);
        assert_eq!(all("x-forwarded-host"), ["api.example.com:8080"]);
        assert_eq!(all("host"), ["api.example.com:8080"]);
        assert_eq!(all("x-request-id"), [id.to_string()]);
    }

    #[test]
    fn an_absolute_target_becomes_a_path() {
        for (target, expected) in [
            ("http://a/x?y", "/x?y"),
            ("http://a", "/"),
            ("http://a?y", "/?y"),
            ("HTTP://a:80//x/../y", "//x/../y"),
            ("/x?y", "/x?y"),
            ("*", "*"),
        ] {
            let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            to_origin_form(&mut request).unwrap();
            assert_eq!(str::from_utf8(request.raw_path()), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_added_to() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("host", "inner"),
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "api.example.com"),
        ] {
            request.append_header(name, value).unwrap();
        }
        to_backend(&mut request, sender([10, 0, 0, 1], true), &RequestId::random()).unwrap();
        let all = |name: &str| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.1"]);
        assert_eq!((all("x-forwarded-proto"), all("x-forwarded-host")), (vec!["https"], vec!["api.example.com"]));
        let mut bare = RequestHeader::build("GET", b"/", None).unwrap();
        to_backend(&mut bare, sender([10, 0, 0, 1], true), &RequestId::random()).unwrap();
        assert_eq!(bare.headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(bare.headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn hop_by_hop_headers_do_not_reach_the_client() {
        let mut answer = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("connection", "close, X-Internal, Content-Length"),
            ("keep-alive", "timeout=5"),
            ("x-internal", "1"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ] {
            answer.append_header(name, value).unwrap();
        }
        to_client(&mut answer);
        let mut left: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "transfer-encoding", "x-kept"]);
    }
}
