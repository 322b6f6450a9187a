//! The lines behind a body, in whatever protocol it comes.
//!
//! The problem: trailers come when everything has been decided by the header, so one that says what a header says
//! (where the message ends, whom it is for, who sends it) is read by some and not by others.
//!
//! The rule: trailers pass over every pair of protocols that has them, between both sides as lines of HTTP/1.1. Those
//! that RFC 9110 section 6.5.1 forbids there are dropped, and so is what tollgate itself says to backends and clients.
//! HAProxy passes all of them, Envoy and nginx none unless they are told to.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::wire::chunked::MAX_OVERHEAD;
use crate::proxy::wire::lines::{is, line};

/// What no trailer may say: how the message is framed or coded, where it goes, who sends it, how it is to be kept.
const FORBIDDEN: [&[u8]; 43] = [
    b"accept-encoding",
    b"age",
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"forwarded",
    b"host",
    b"http2-settings",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"keep-alive",
    b"location",
    b"max-forwards",
    b"pragma",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"vary",
    b"www-authenticate",
    b"x-client-id",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"x-request-id",
];

/// Trailers that may be passed on, each a line that ends in CR LF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Trailers(Vec<u8>);

impl Trailers {
    /// Those of `section`, the lines behind the last chunk, which were found to be well formed.
    pub(in crate::proxy) fn of_lines(section: &[u8]) -> Self {
        Trailers::of(split(section))
    }

    /// Those of `map`.
    pub(in crate::proxy) fn of_map(map: &HeaderMap) -> Self {
        Trailers::of(map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
    }

    fn of<'h>(lines: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Self {
        let mut kept = Vec::new();
        for (name, value) in lines.filter(|(name, _)| !FORBIDDEN.iter().any(|forbidden| is(name, forbidden))) {
            line(&mut kept, name, value);
        }
        Trailers(kept)
    }

    /// The same without those that have `_` in their name.
    pub(in crate::proxy) fn without_underscores(self) -> Self {
        if memchr::memchr(b'_', &self.0).is_none() {
            return self;
        }
        Trailers::of(self.iter().filter(|(name, _)| !name.contains(&b'_')))
    }

    /// Whether they are larger than those that come in chunks may be.
    pub(in crate::proxy) fn are_too_large(&self) -> bool {
        self.0.len() > MAX_OVERHEAD
    }

    /// Whether there are none.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As lines.
    pub(in crate::proxy) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Names and values.
    pub(in crate::proxy) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        split(&self.0)
    }

    /// As a map.
    pub(in crate::proxy) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in self.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }
}

/// The names and values of lines that end in CR LF.
fn split(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_said_in_a_trailer_is_dropped() {
        let section = b"X-Sum: 1\r\ncontent-length: 5\r\nHost:b\r\nx_Real: 2\r\nGrpc-Status:0 \r\nAuthorization: x\r\nX-Client-ID: root\r\n";
        let trailers = Trailers::of_lines(section);
        assert_eq!(trailers.as_bytes(), b"X-Sum: 1\r\nx_Real: 2\r\nGrpc-Status: 0\r\n");
        let map = trailers.to_map();
        assert_eq!((map.len(), map["grpc-status"].as_bytes()), (3, &b"0"[..]));
        assert_eq!(Trailers::of_map(&map).to_map(), map);
        assert_eq!(trailers.without_underscores().as_bytes(), b"X-Sum: 1\r\nGrpc-Status: 0\r\n");
        assert!(Trailers::of_lines(b"").is_empty());
    }
}
