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
use http::Version;
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

/// What the first line of what may be a request says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::proxy) struct RequestLine<'h> {
    /// The method.
    pub(in crate::proxy) method: &'h str,
    /// The target.
    pub(in crate::proxy) target: &'h [u8],
    /// The version of HTTP.
    pub(in crate::proxy) protocol: Option<&'static str>,
}

impl RequestLine<'_> {
    /// Where nothing is known of it.
    pub(in crate::proxy) const UNKNOWN: RequestLine<'static> = RequestLine { method: "-", target: b"", protocol: None };
}

/// The first line of what may be a request, for the log; as far as it can be made out. None while there is none.
pub(in crate::proxy) fn request_line(head: &[u8]) -> Option<RequestLine<'_>> {
    let line = head.split(|byte| b"\r\n".contains(byte)).find(|line| !line.is_empty())?;
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().and_then(|word| str::from_utf8(word).ok());
    let method = method.filter(|word| (1..=20).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic()));
    let Some(method) = method else { return Some(RequestLine::UNKNOWN) };
    let target = words.next().unwrap_or_default();
    let protocol = match words.next() {
        Some(b"HTTP/1.0") => protocol_name(Version::HTTP_10),
        Some(b"HTTP/1.1") => protocol_name(Version::HTTP_11),
        _ => None,
    };
    Some(RequestLine { method, target, protocol })
}

/// What a version of HTTP is called in the access log, as web servers have it.
pub(in crate::proxy) fn protocol_name(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("HTTP/1.0"),
        Version::HTTP_11 => Some("HTTP/1.1"),
        Version::HTTP_2 => Some("HTTP/2.0"),
        _ => None,
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
mod tests;
