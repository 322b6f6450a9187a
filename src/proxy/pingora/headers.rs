//! The headers that tollgate adds to what goes by Pingora's loop.
//!
//! Pingora takes the hop-by-hop headers from requests (RFC 9110 section 7.6.1), `backend_side` from answers. What a
//! client says about itself in `X-Forwarded-*` and `X-Request-Id` is replaced, since anyone can say anything there, and
//! what it says in `Forwarded` is dropped; what a trusted proxy says is kept. `X-Real-IP` is one address and not a
//! list, so it is always the caller's as tollgate knows it, whoever claims another.
//!
//! A name with `_` is the same as one with `-` to CGI and WSGI, so a stranger's `X_Real_IP` would be ours there. Such
//! names are dropped ([`Underscores`]), after all that tollgate reads has been read. Trailers of requests do not reach
//! a backend.

use http::HeaderValue;
use http::header::{FORWARDED, HOST};
use pingora_http::RequestHeader;

use crate::proxy::gate::headers::{
    Sender, TRACESTATE, Underscores, Vouched, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};
use crate::proxy::gate::request_id::RequestId;

/// Prepares a request for the backend: says who sent it, to which host, and under which id. What a trusted proxy says
/// is kept and added to.
pub(in crate::proxy) fn to_backend(request: &mut RequestHeader, sender: Sender, id: &RequestId) {
    if sender.underscores == Underscores::Drop {
        let doubtful: Vec<_> = request.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
        doubtful.iter().for_each(|name| drop(request.remove_header(name)));
    }
    if !sender.trusted {
        for claim in [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            request.remove_header(&claim);
        }
    }
    if sender.trace.is_some_and(|trace| !trace.goes_on) {
        request.remove_header(&TRACESTATE);
    }
    let hops: Vec<_> = request.headers.get_all(X_FORWARDED_FOR).iter().cloned().collect();
    let host = request.headers.get(HOST).cloned();
    let (proto, to) = (X_FORWARDED_PROTO, X_FORWARDED_HOST);
    let said = Vouched { proto: request.headers.contains_key(proto), host: request.headers.contains_key(to) };
    let hops = || hops.iter().map(HeaderValue::as_bytes);
    sender.write(request, hops, (said, host.as_ref().map(HeaderValue::as_bytes)), id);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(peer: [u8; 4], trusted: bool) -> Sender {
        Sender {
            peer: peer.into(),
            caller: [203, 0, 113, 9].into(),
            trusted,
            secure: false,
            underscores: Underscores::Drop,
            trace: None,
        }
    }

    #[test]
    fn a_backend_learns_that_the_connection_is_tls() {
        for (trusted, claimed, expected) in [(false, "http", "https"), (true, "http", "http"), (true, "", "https")] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            if !claimed.is_empty() {
                request.insert_header(X_FORWARDED_PROTO, claimed).unwrap();
            }
            let secure = Sender { secure: true, ..sender([192, 0, 2, 7], trusted) };
            to_backend(&mut request, secure, &RequestId::random());
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
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("X_Real_IP", "1.2.3.4"),
            ("x_forwarded-for", "1.2.3.4"),
            ("_", "x"),
        ] {
            request.append_header(name, value).unwrap();
        }
        request.append_header("x-forwarded-for", "5.6.7.8").unwrap();
        let id = RequestId::random();
        to_backend(&mut request, sender([192, 0, 2, 7], false), &id);
        let all = |name: &str| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all("x-forwarded-proto"), ["http"]);
        assert_eq!(all("x-forwarded-host"), ["api.example.com:8080"]);
        assert_eq!(all("host"), ["api.example.com:8080"]);
        assert_eq!(all("x-request-id"), [id.to_string()]);
        assert_eq!(all("x-real-ip"), ["203.0.113.9"]);
        assert_eq!(request.headers.len(), 6, "{:?}", request.headers);
        request.append_header("x_y", "z").unwrap();
        let passing = Sender { underscores: Underscores::Pass, ..sender([192, 0, 2, 7], false) };
        to_backend(&mut request, passing, &id);
        assert_eq!((request.headers["x_y"].as_bytes(), request.headers.len()), (&b"z"[..], 7));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_added_to() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("host", "inner"),
            ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
            ("x-forwarded-for", ""),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "api.example.com"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
        ] {
            request.append_header(name, value).unwrap();
        }
        to_backend(&mut request, sender([10, 0, 0, 1], true), &RequestId::random());
        let all = |name: &str| request.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.1"]);
        assert_eq!((all("x-forwarded-proto"), all("x-forwarded-host")), (vec!["https"], vec!["api.example.com"]));
        assert_eq!((all("forwarded"), all("x-real-ip")), (vec!["for=1.2.3.4"], vec!["203.0.113.9"]));
        let mut bare = RequestHeader::build("GET", b"/", None).unwrap();
        to_backend(&mut bare, sender([10, 0, 0, 1], true), &RequestId::random());
        assert_eq!(bare.headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(bare.headers["x-forwarded-proto"], "http");
    }
}
