//! What an HTTP/2 request must look like, and how it reads as one that HTTP/1.1 can carry.
//!
//! A CONNECT that asks for a WebSocket (RFC 8441) becomes the GET that asks for one in HTTP/1.1. Any other is refused.
//!
//! A request goes on to its backend in HTTP/1.1, where pseudo-headers become a request line and `Host`. What is in
//! doubt there must be refused here (RFC 9113 sections 8.2 and 8.3), by the rules that hold for HTTP/1.1 clients: see
//! [`head`].
//!
//! The h2 crate itself resets streams with an unknown, repeated, missing or late pseudo-header, a name that is not in
//! lower case, a byte in a value that no value may have, a header that belongs to a connection (`connection`,
//! `transfer-encoding`, `upgrade`, ...), a `te` other than `trailers`, an authority or path that does not parse, and a
//! body of another length than announced. That it does is proved by tests and not done again.

use base64::prelude::{BASE64_STANDARD, Engine};
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::proxy::downstream::head;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::lines::{MAX_HEADERS, length_of};

/// Checks a request's header and writes it as an HTTP/1.1 client would have sent it: a target in origin form, one
/// `Host`, one `Cookie`. What is refused stays as it was.
///
/// # Errors
/// The answer that the client gets.
pub(in crate::proxy) fn rewrite(parts: &mut Parts) -> Result<(), Rejection> {
    let refuse = |how| Err(Rejection::BadRequest(how));
    if parts.headers.len() > MAX_HEADERS {
        return Err(Rejection::HeaderTooLarge);
    }
    let tunnel = parts.method == Method::CONNECT;
    if tunnel && !asks_for_websocket(parts) {
        return Err(Rejection::MethodNotAllowed);
    }
    if parts.headers.values().any(has_blank_ends) {
        return refuse("a blank at the start or the end of a header value");
    }
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return refuse("the scheme is neither http nor https");
    }
    let Some(target) = parts.uri.path_and_query().cloned() else { return refuse("malformed request target") };
    if !head::is_origin_form_clear(parts.method.as_str(), target.as_str()) {
        return refuse("malformed request target");
    }
    let Some(host) = host(&parts.uri, &parts.headers) else {
        return refuse("the authority is missing, malformed, or another than in Host");
    };
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let doubtful = lengths.next().is_some_and(|length| length_of(length.as_bytes()).is_none());
    if doubtful || lengths.next().is_some() {
        return refuse("doubtful Content-Length");
    }
    parts.headers.insert(HOST, host);
    if let Some(cookie) = joined_cookie(&parts.headers) {
        parts.headers.insert(COOKIE, cookie);
    }
    parts.uri = Uri::from(target);
    if tunnel {
        parts.method = Method::GET;
        // HTTP/1.1 has one, and RFC 8441 none: nobody but the backend looks at it.
        parts.headers.entry(SEC_WEBSOCKET_KEY).or_insert_with(websocket_key);
    }
    Ok(())
}

/// Whether a CONNECT is the one of RFC 8441, which offers a WebSocket. No other protocol is known to come so.
fn asks_for_websocket(parts: &Parts) -> bool {
    parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// Sixteen random bytes, in Base64 (RFC 6455 section 4.1).
fn websocket_key() -> HeaderValue {
    let bytes: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).expect("Base64 is visible ASCII")
}

/// Whether a value begins or ends with a blank, which HTTP/2 forbids (RFC 9113 section 8.2.1). In HTTP/1.1 a blank
/// there is no part of the value, so the backend would take it for another one than was looked at here: a key, say.
fn has_blank_ends(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

/// Whom the request is for: `:authority`, or `Host` when there is none. Where there are both they must name the same,
/// compared without case and the scheme's own port (RFC 9113 section 8.3.1), and the backend gets the first.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut hosts = headers.get_all(HOST).iter();
    let (given, repeated) = (hosts.next(), hosts.next().is_some());
    let port: &[u8] = if uri.scheme_str() == Some("http") { b":80" } else { b":443" };
    let host = match (uri.authority(), given) {
        (Some(authority), None) => HeaderValue::from_str(authority.as_str()).ok()?,
        (Some(authority), Some(given)) if is_same_host(authority.as_str().as_bytes(), given.as_bytes(), port) => {
            HeaderValue::from_str(authority.as_str()).ok()?
        }
        (None, Some(given)) => given.clone(),
        _ => return None,
    };
    (!repeated && !host.is_empty() && head::is_authority(host.as_bytes())).then_some(host)
}

/// Whether two hosts with their ports are the same, `port` being the one that counts where none is named.
fn is_same_host(one: &[u8], other: &[u8], port: &[u8]) -> bool {
    let bare = |host| [port, b":"].into_iter().find_map(|end| <[u8]>::strip_suffix(host, end)).unwrap_or(host);
    bare(one).eq_ignore_ascii_case(bare(other))
}

/// The crumbs of a cookie as one (RFC 9113 section 8.2.3); none when there are not several.
fn joined_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return None;
    }
    // Every byte comes from a value, or is one that a value may have.
    HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use pingora_http::RequestHeader;

    use super::*;

    fn outcome(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<RequestHeader, Rejection> {
        let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        rewrite(&mut parts).map(|()| RequestHeader::from(parts))
    }

    #[test]
    fn a_request_reads_as_http_1_has_it() {
        for (method, uri, headers, target, host) in [
            ("GET", "https://a.example:8443/x?y=%20", &[][..], "/x?y=%20", "a.example:8443"),
            ("GET", "https://a", &[("host", "A")], "/", "a"),
            ("GET", "/x", &[("host", "a")], "/x", "a"),
            ("GET", "https://a:443/", &[("host", "A")], "/", "a:443"),
            ("GET", "https://a", &[("host", "a:443")], "/", "a"),
            ("GET", "http://a", &[("host", "a:80")], "/", "a"),
            ("GET", "https://[::1]/", &[("host", "[::1]:")], "/", "[::1]"),
            ("OPTIONS", "*", &[("host", "a")], "*", "a"),
            ("POST", "https://[::1]:443//x/../y", &[("content-length", "12")], "//x/../y", "[::1]:443"),
        ] {
            let head = outcome(method, uri, headers).unwrap();
            assert_eq!((str::from_utf8(head.raw_path()), head.headers[HOST].as_bytes()), (Ok(target), host.as_bytes()));
            assert_eq!(head.uri.authority(), None, "{uri}");
        }
        let crumbs = [("cookie", "a=b"), ("x", "y"), ("cookie", "c=d; e=f"), ("cookie", "")];
        let head = outcome("GET", "https://a/", &crumbs).unwrap();
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d; e=f; "]);
    }

    #[test]
    fn doubtful_requests_are_refused() {
        for (method, uri, headers) in [
            ("GET", "/x", &[][..]),
            ("GET", "https://a/", &[("host", "b")]),
            ("GET", "https://a/", &[("host", "a:80")]),
            ("GET", "http://a/", &[("host", "a:443")]),
            ("GET", "https://a:8443/", &[("host", "a")]),
            ("GET", "https://a/", &[("host", "user@a")]),
            ("GET", "https://a/", &[("host", "")]),
            ("GET", "https://a/", &[("host", "a"), ("host", "a")]),
            ("GET", "/", &[("host", "a, b")]),
            ("GET", "/", &[("host", "")]),
            ("GET", "https://user@a/", &[]),
            ("GET", "https://a:99999/", &[]),
            ("GET", "ftp://a/", &[]),
            ("GET", "*", &[("host", "a")]),
            ("GET", "https://a/<b>", &[]),
            ("GET", "https://a/?\"", &[]),
            ("GET", "https://a/", &[("authorization", " Bearer key")]),
            ("GET", "https://a/", &[("x", "y\t")]),
            ("POST", "https://a/", &[("content-length", "1"), ("content-length", "1")]),
            ("POST", "https://a/", &[("content-length", "+1")]),
            ("POST", "https://a/", &[("content-length", "1, 1")]),
            ("POST", "https://a/", &[("content-length", "")]),
            ("POST", "https://a/", &[("content-length", "9999999999999999999")]),
        ] {
            // What no URI can say cannot arrive either.
            let Ok(uri) = uri.parse::<Uri>() else { continue };
            let refused = outcome(method, &uri.to_string(), headers);
            assert!(matches!(refused, Err(Rejection::BadRequest(_))), "{method} {uri} {headers:?}: {refused:?}");
        }
        assert_eq!(outcome("CONNECT", "a:443", &[]).unwrap_err(), Rejection::MethodNotAllowed);
        let many = vec![("x", "y"); MAX_HEADERS + 1];
        assert_eq!(outcome("GET", "https://a/", &many).unwrap_err(), Rejection::HeaderTooLarge);
    }
}
