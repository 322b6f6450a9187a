//! What a request's header must look like before Pingora sees it.
//!
//! Two parsers that read one message differently are what request smuggling lives on. So a header that leaves any doubt
//! about where the request ends or whom it is for is refused (RFC 9112 sections 2.2, 3.2 and 6.3, RFC 9110 section
//! 7.2), instead of being repaired: a bare CR or LF, a repeated or listed `Content-Length`, `Content-Length` beside
//! `Transfer-Encoding`, any transfer coding but one `chunked`, a missing, repeated or malformed `Host`, a target in
//! none of the forms of RFC 9112 section 3.2. Pingora repairs some of these and answers others with an empty body.
//!
//! An absolute target names a host of its own, and `Host` does not count beside it, whatever it says (RFC 9112 section
//! 3.2.2). So that nobody behind can see two hosts, such a request is written anew at once, in origin form and with
//! that host in `Host`.
//!
//! The parser is httparse, the one that Pingora uses, so what passes here means the same there.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use bytes::{BufMut, BytesMut};
use httparse::{Error, Header, Request, Status};

use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::chunked::Chunked;
use crate::proxy::wire::lines::{ByteSpan, Lines, is};
use crate::proxy::wire::lines::{MAX_HEADERS, length_of};
use crate::proxy::wire::request_body::Body;

/// The longest header section that is read, in bytes. nginx takes 32 KiB, HAProxy 16 KiB, Envoy 60 KiB.
pub(in crate::proxy) const MAX_HEAD: usize = 64 << 10;
/// How a client begins that speaks HTTP/2 without having agreed on it (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const OVER_TLS_ONLY: &str = "HTTP/2 is offered over TLS only, where the client asks for it by ALPN";

/// Whether `head` holds a whole header section, given that nothing of its first `seen` bytes ended one.
///
/// A client that sends byte by byte costs one look at each byte, not one parse of everything for each.
pub(in crate::proxy) fn is_whole(head: &[u8], seen: usize) -> bool {
    let start = seen.saturating_sub(3);
    let fresh = &head[start..];
    fresh.windows(4).any(|end| end == b"\r\n\r\n") || fresh.windows(2).any(|end| end == b"\n\n")
}

/// A header section that is complete and beyond doubt.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Head {
    /// Where it ends.
    pub(in crate::proxy) end: usize,
    /// The body that follows.
    pub(in crate::proxy) body: Body,
    /// Where the method is.
    pub(in crate::proxy) method: ByteSpan,
    /// Where the target is.
    pub(in crate::proxy) target: ByteSpan,
    /// The minor version of HTTP/1.
    pub(in crate::proxy) version: u8,
}

/// Checks the header section at the start of `head`, and notes where its lines are in `lines`. `None` when it is
/// incomplete and what is there is fine.
///
/// # Errors
/// The answer that the client gets.
pub(in crate::proxy) fn check(head: &[u8], lines: &mut Lines) -> Result<Option<Head>, Rejection> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let end = match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(Status::Complete(end)) => end,
        Ok(Status::Partial) if head.len() > MAX_HEAD => return Err(Rejection::HeaderTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => return Err(Rejection::HeaderTooLarge),
        Err(_) if head.starts_with(PREFACE) => return Err(Rejection::BadRequest(OVER_TLS_ONLY)),
        Err(error) => return Err(Rejection::BadRequest(parse_error(error))),
    };
    if end > MAX_HEAD {
        return Err(Rejection::HeaderTooLarge);
    }
    let method = request.method.unwrap_or_default();
    let refuse = |how| Err(Rejection::BadRequest(how));
    if !lines_end_in_crlf(&head[..end]) {
        return refuse("a line of the header does not end in CR LF");
    }
    if !is_target_clear(method, request.path.unwrap_or_default()) {
        return refuse("malformed request target");
    }
    if !is_host_clear(request.headers, request.version) {
        return refuse("Host is missing, repeated or malformed");
    }
    let Some(body) = body(request.headers, request.version) else {
        return refuse("doubtful Content-Length or Transfer-Encoding");
    };
    if method == "CONNECT" {
        return Err(Rejection::MethodNotAllowed);
    }
    lines.fill(head, request.headers);
    let target = request.path.unwrap_or_default().as_bytes();
    Ok(Some(Head {
        end,
        body,
        method: ByteSpan::of(head, method.as_bytes()),
        target: ByteSpan::of(head, target),
        version: request.version.unwrap_or_default(),
    }))
}

fn parse_error(error: Error) -> &'static str {
    match error {
        Error::HeaderName => "malformed header name",
        Error::HeaderValue => "malformed header value",
        Error::NewLine => "malformed line end",
        Error::Token => "malformed request line",
        Error::Version => "unknown HTTP version",
        Error::Status | Error::TooManyHeaders => "malformed header",
    }
}

/// The method and the target of what may be a request, for the log; as far as they can be made out.
pub(in crate::proxy) fn request_line(head: &[u8]) -> (&str, &[u8]) {
    let line = head.split(|byte| b"\r\n".contains(byte)).find(|line| !line.is_empty()).unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().and_then(|word| str::from_utf8(word).ok());
    let method = method.filter(|word| (1..=20).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic()));
    match method {
        Some(method) => (method, words.next().unwrap_or_default()),
        None => ("-", b""),
    }
}

/// Whether what may be a request asks by HEAD, so that its answer has no body.
pub(in crate::proxy) fn is_for_head(head: &[u8]) -> bool {
    let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or_default();
    head[start..].starts_with(b"HEAD ")
}

fn lines_end_in_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// The request at the start of `bytes`, which [`check`] took as `head` and `lines`, with its target in origin form;
/// none when it is so already. What follows the header is as it was.
pub(in crate::proxy) fn in_origin_form(bytes: &[u8], head: &Head, lines: &Lines) -> Option<BytesMut> {
    let target = head.target.of_bytes(bytes);
    if matches!(target.first(), Some(b'/' | b'*')) {
        return None;
    }
    let (host, rest) = absolute(str::from_utf8(target).ok()?)?;
    let method = head.method.of_bytes(bytes);
    let mut written = BytesMut::with_capacity(bytes.len() + 16);
    written.put_slice(method);
    // RFC 9112 section 3.2.4: nothing behind the host, asked for by OPTIONS, is the server itself.
    written.put_slice(match rest.as_bytes().first() {
        None if method == b"OPTIONS" => b" *",
        None | Some(b'?') => b" /",
        Some(_) => b" ",
    });
    written.put_slice(rest.as_bytes());
    written.put_slice(if head.version == 0 { b" HTTP/1.0\r\nHost: " } else { b" HTTP/1.1\r\nHost: " });
    written.put_slice(host.as_bytes());
    written.put_slice(b"\r\n");
    for (name, value) in lines.of(bytes).iter().filter(|(name, _)| !is(name, b"host")) {
        for part in [name, b": ", value, b"\r\n"] {
            written.put_slice(part);
        }
    }
    written.put_slice(b"\r\n");
    written.put_slice(&bytes[head.end..]);
    Some(written)
}

/// The host of an absolute target, maybe with a port, and what follows it.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let after = |scheme: &str| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after("http://").or_else(|| after("https://"))?;
    Some(rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())))
}

/// Origin form, absolute form, `*` for OPTIONS alone, and what CONNECT names (which is refused afterwards). Of the
/// characters that RFC 3986 wants escaped those pass that Pingora takes.
fn is_target_clear(method: &str, target: &str) -> bool {
    match target.as_bytes().first() {
        Some(b'/' | b'*') => is_origin_form_clear(method, target),
        _ if method == "CONNECT" => true,
        _ => is_absolute_form_clear(method, target),
    }
}

/// A path with or without a query, or `*` for OPTIONS.
pub(in crate::proxy) fn is_origin_form_clear(method: &str, target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_path = path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#<>`".contains(&byte))
        && query.bytes().all(|byte| byte.is_ascii_graphic() && !b"#<>\"".contains(&byte));
    is_path || (target == "*" && method == "OPTIONS")
}

/// A host, which is not empty (RFC 9110 section 4.2.1), and behind it nothing, or what may stand in origin form.
fn is_absolute_form_clear(method: &str, target: &str) -> bool {
    absolute(target).is_some_and(|(host, rest)| {
        let named = is_authority(host.as_bytes()) && !host.is_empty() && !host.starts_with(':');
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        named && is_origin_form_clear(method, &rest)
    })
}

fn is_host_clear(headers: &[Header<'_>], version: Option<u8>) -> bool {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_authority(host),
        (None, _) => version == Some(0),
        _ => false,
    }
}

/// A host and maybe a port, without user information. May be empty (RFC 9110 section 7.2). Of what RFC 3986 allows in a
/// name, escapes and the characters with which nobody is named are left out.
pub(in crate::proxy) fn is_authority(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let literal = name.strip_prefix('[').map(|rest| rest.strip_suffix(']').is_some_and(is_ipv6));
    let plain = || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let port_ok = port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    port_ok && literal.unwrap_or_else(plain)
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// The body that the header announces; `None` when there is any doubt.
fn body(headers: &[Header<'_>], version: Option<u8>) -> Option<Body> {
    let mut lengths = values(headers, "content-length");
    let mut codings = values(headers, "transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return None;
    }
    match (length, coding) {
        (None, None) => Some(Body::Length(0)),
        (Some(length), None) => length_of(length).map(Body::Length),
        (None, Some(coding)) if version == Some(1) && coding.eq_ignore_ascii_case(b"chunked") => {
            Some(Body::Chunked(Chunked::new()))
        }
        _ => None,
    }
}

fn values<'h>(headers: &'h [Header<'_>], name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(head: &str) -> Result<Option<Head>, Rejection> {
        check(head.as_bytes(), &mut Lines::default())
    }

    #[test]
    fn ordinary_requests_pass() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a.example.com:8080\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST /x?y=%20 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET HTTPS://B:443?x HTTP/1.1\r\nHost:\r\n\r\n",
            "OPTIONS http://[::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M-SEARCH /%ff;a=b HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n",
        ] {
            assert!(matches!(outcome(head), Ok(Some(_))), "{head:?}");
        }
    }

    #[test]
    fn doubtful_requests_are_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::::]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://?x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //a HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a@/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a%20b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/<b> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\u{7f}T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert!(matches!(outcome(head), Err(Rejection::BadRequest(_))), "{head:?}");
        }
        let connect = outcome("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
        assert_eq!(connect.err(), Some(Rejection::MethodNotAllowed));
    }

    #[test]
    fn http2_is_told_where_it_is_offered() {
        let why = |head: &str| outcome(head).err();
        let told = Some(Rejection::BadRequest(OVER_TLS_ONLY));
        assert_eq!(why("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"), told);
        assert_eq!((why("PRI * HTTP/2.0"), why("PRI * HTTP/2.0\r\n\r\n")), (told, told));
        assert_ne!(why("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), told);
    }

    #[test]
    fn the_log_learns_what_can_be_made_out() {
        for (head, expected) in [
            (&b"GET /a?b HTTP/1.1\r\nHost: a"[..], ("GET", &b"/a?b"[..])),
            (b"\r\nGET /a\nHost: a", ("GET", b"/a")),
            (b"GARBAGE", ("GARBAGE", b"")),
            (b"\x16\x03\x01 x", ("-", b"")),
            (b"", ("-", b"")),
        ] {
            assert_eq!(request_line(head), expected, "{head:?}");
        }
    }

    #[test]
    fn an_absolute_target_is_written_in_origin_form_with_its_own_host() {
        for (line, host, expected) in [
            ("GET http://a/x?y HTTP/1.1", "Host: a\r\n", "GET /x?y HTTP/1.1\r\nHost: a\r\n"),
            ("GET http://b HTTP/1.1", "hOST: a\r\n", "GET / HTTP/1.1\r\nHost: b\r\n"),
            ("GET http://B:80?x=1 HTTP/1.1", "Host: a\r\n", "GET /?x=1 HTTP/1.1\r\nHost: B:80\r\n"),
            ("GET HTTP://a//x/../y HTTP/1.0", "", "GET //x/../y HTTP/1.0\r\nHost: a\r\n"),
            ("OPTIONS https://[::1]:8443 HTTP/1.1", "Host:\r\n", "OPTIONS * HTTP/1.1\r\nHost: [::1]:8443\r\n"),
            ("OPTIONS http://a/ HTTP/1.1", "Host: a\r\n", "OPTIONS / HTTP/1.1\r\nHost: a\r\n"),
            ("OPTIONS http://a?x HTTP/1.1", "Host: a\r\n", "OPTIONS /?x HTTP/1.1\r\nHost: a\r\n"),
        ] {
            let text = format!("{line}\r\nX-A: b \r\n{host}Content-Length: 2\r\n\r\nhi and more");
            let mut lines = Lines::default();
            let head = check(text.as_bytes(), &mut lines).unwrap().unwrap();
            let written = in_origin_form(text.as_bytes(), &head, &lines).unwrap();
            let expected = format!("{expected}X-A: b\r\nContent-Length: 2\r\n\r\nhi and more");
            assert_eq!(str::from_utf8(&written), Ok(expected.as_str()), "{line}");
            let head = check(&written, &mut lines).unwrap().unwrap();
            assert_eq!(in_origin_form(&written, &head, &lines), None, "{line}");
        }
    }

    #[test]
    fn a_request_by_head_is_known_before_it_is_whole() {
        for head in [&b"HEAD "[..], b"HEAD / HTTP/1.1\r\nX", b"\r\nHEAD /\n"] {
            assert!(is_for_head(head), "{head:?}");
        }
        for head in [&b""[..], b"\r\n", b"HEAD", b"HEADER / HTTP/1.1", b"head / HTTP/1.1", b"GET / HTTP/1.1\r\nHEAD "] {
            assert!(!is_for_head(head), "{head:?}");
        }
    }

    #[test]
    fn the_body_is_what_the_header_announces() {
        let body =
            |headers: &str| outcome(&format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).unwrap().unwrap().body;
        assert!(matches!(body(""), Body::Length(0)));
        assert!(matches!(body("Content-Length: 12\r\n"), Body::Length(12)));
        assert!(matches!(body("Transfer-Encoding: chunked\r\n"), Body::Chunked(_)));
        assert!(matches!(body("Upgrade: websocket\r\nConnection: upgrade\r\n"), Body::Length(0)));
        assert!(matches!(outcome("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None)));
    }

    #[test]
    fn too_much_header_is_refused() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(outcome(&many).err(), Some(Rejection::HeaderTooLarge));
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD));
        assert_eq!(outcome(&long).err(), Some(Rejection::HeaderTooLarge));
        assert_eq!(outcome(&long[..long.len() - 4]).err(), Some(Rejection::HeaderTooLarge), "before it is complete");
    }

    #[test]
    fn the_end_is_found_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let ends: Vec<_> = (1..=head.len()).map(|length| is_whole(&head[..length], length - 1)).collect();
        assert_eq!(ends.iter().filter(|whole| **whole).count(), 1);
        assert!(is_whole(head, 0) && is_whole(b"GET /\n\n", 6));
    }

    proptest! {
        /// What is written anew passes too, and means the same.
        #[test]
        fn what_is_written_in_origin_form_passes_again(rest in "([/?][!-~]{0,12})?", options: bool, old: bool) {
            let (method, version) = (if options { "OPTIONS" } else { "GET" }, if old { "1.0" } else { "1.1" });
            let text = format!("{method} http://a.example:80{rest} HTTP/{version}\r\nHost: b\r\nX: y\r\n\r\nbody");
            let mut lines = Lines::default();
            if let Ok(Some(head)) = check(text.as_bytes(), &mut lines) {
                let written = in_origin_form(text.as_bytes(), &head, &lines).unwrap();
                let again = check(&written, &mut lines).unwrap().unwrap();
                prop_assert_eq!((again.version, &written[again.end..]), (head.version, &b"body"[..]));
                let hosts: Vec<_> = lines.of(&written).iter().filter(|(name, _)| is(name, b"host")).map(|(_, host)| host).collect();
                prop_assert_eq!(hosts, [b"a.example:80"]);
            }
        }

        /// What passes, Pingora's own type for a header takes as well: so every refusal is ours, in our words.
        #[test]
        fn what_passes_here_passes_in_pingora(target in "(http://a)?/[!-~]{0,12}") {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            if outcome(&head).is_ok() {
                prop_assert!(pingora_http::RequestHeader::build("GET", target.as_bytes(), None).is_ok());
            }
        }

        #[test]
        fn no_bytes_panic(head in prop::collection::vec(any::<u8>(), 0..300), seen in 0_usize..400) {
            let _ = check(&head, &mut Lines::default());
            let _ = is_whole(&head, seen.min(head.len()));
        }
    }
}
