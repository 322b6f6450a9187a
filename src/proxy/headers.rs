//! The headers that tollgate adds and takes away.
//!
//! Pingora takes the hop-by-hop headers from requests (RFC 9110 section 7.6.1), not from the answers of HTTP/1.1
//! backends; that is done here. What a client says about itself in `X-Forwarded-*` and `X-Request-Id` is replaced, since
//! anyone can say anything there.

use http::header::{CONNECTION, HOST, PROXY_AUTHENTICATE, TE, TRAILER, UPGRADE};
use http::{HeaderName, StatusCode};
use pingora_core::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use std::net::IpAddr;

use super::RequestId;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Prepares a request for the backend: says who sent it, to which host, and under which id.
///
/// # Errors
/// Never in practice: every value is a valid one.
pub(super) fn to_backend(request: &mut RequestHeader, client: Option<IpAddr>, id: RequestId) -> Result<()> {
    match client {
        Some(client) => request.insert_header(X_FORWARDED_FOR, client.to_string())?,
        None => drop(request.remove_header(&X_FORWARDED_FOR)),
    }
    request.insert_header(X_FORWARDED_PROTO, "http")?;
    match request.headers.get(HOST).cloned() {
        Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
        None => drop(request.remove_header(&X_FORWARDED_HOST)),
    }
    request.insert_header(X_REQUEST_ID, id.as_str())
}

/// Takes the hop-by-hop headers from a backend's answer. `Transfer-Encoding` stays: it says how Pingora frames the body
/// for the client.
pub(super) fn to_client(answer: &mut ResponseHeader) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
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
        to_backend(&mut request, Some("192.0.2.7".parse().unwrap()), id).unwrap();
        let all = |name: &str| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all("x-forwarded-proto"), ["http"]);
        assert_eq!(all("x-forwarded-host"), ["api.example.com:8080"]);
        assert_eq!(all("host"), ["api.example.com:8080"]);
        assert_eq!(all("x-request-id"), [id.to_string()]);
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

    #[test]
    fn switching_protocols_keeps_its_headers() {
        let mut answer = ResponseHeader::build(101, None).unwrap();
        answer.append_header("connection", "upgrade").unwrap();
        answer.append_header("upgrade", "websocket").unwrap();
        to_client(&mut answer);
        assert_eq!(answer.headers.len(), 2);
    }
}
