//! Lines of a header that tollgate itself writes, to a client or to a backend, in whatever protocol.
//!
//! The problem: HTTP/1.1 wants bytes, HTTP/2 a map with names in lower case, Pingora a map that knows how names were
//! spelt. Written apart for each, the same line says three things sooner or later.
//!
//! The rule: whoever has something to say says it once, line by line, into an [`OwnLines`]. For each kind of them that
//! is compiled apart: into bytes goes what goes into bytes, and no more.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::decimal::{put_address, put_number};
use crate::proxy::gate::request_id::RequestId;
use crate::telemetry::TraceParent;

/// Why no line of ours is refused by a map.
const VALID: &str = "what tollgate writes is a name and a value";

/// The name of a line of ours.
#[derive(Debug)]
pub(in crate::proxy) struct OwnName {
    /// As it is written, with what follows it.
    start: &'static str,
    /// In lower case. Not the name itself, which is no constant to the compiler.
    lower: fn() -> HeaderName,
}

impl OwnName {
    /// The name of lines that begin with `start`, a colon and a blank included; it is `lower` in lower case.
    pub(in crate::proxy) const fn new(start: &'static str, lower: fn() -> HeaderName) -> Self {
        OwnName { start, lower }
    }

    /// As it is written.
    pub(in crate::proxy) fn title(&self) -> &'static str {
        &self.start[..self.start.len() - 2]
    }
}

/// What a line of ours says.
pub(in crate::proxy) trait OwnValue {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// The same for a map.
    fn to_value(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(48);
        self.put(&mut text);
        HeaderValue::from_maybe_shared(Bytes::from(text)).expect(VALID)
    }
}

impl OwnValue for &'static str {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn to_value(&self) -> HeaderValue {
        HeaderValue::from_static(self)
    }
}

impl OwnValue for &[u8] {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl OwnValue for u64 {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_number(*self, out);
    }

    fn to_value(&self) -> HeaderValue {
        HeaderValue::from(*self)
    }
}

impl OwnValue for IpAddr {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_address(*self, out);
    }
}

impl OwnValue for &RequestId {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl OwnValue for TraceParent {
    fn put(&self, out: &mut Vec<u8>) {
        TraceParent::put(*self, out);
    }
}

/// A header section that lines of ours are written into. In a map they take the place of what was there under their
/// name.
pub(in crate::proxy) trait OwnLines {
    /// Writes one line.
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue);
}

/// A header section of an answer of our own, which lines of the configuration's are written into, too.
pub(in crate::proxy) trait AnswerLines: OwnLines {
    /// Writes one, beside what was there under its name, which is spelt so.
    fn configured(&mut self, spelt: &str, value: &HeaderValue);
}

impl OwnLines for Vec<u8> {
    #[inline(always)]
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue) {
        self.extend_from_slice(name.start.as_bytes());
        value.put(self);
        self.extend_from_slice(b"\r\n");
    }
}

impl OwnLines for HeaderMap {
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue) {
        self.insert((name.lower)(), value.to_value());
    }
}

impl OwnLines for ResponseHeader {
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue) {
        self.insert_header(name.title(), value.to_value()).expect(VALID);
    }
}

impl OwnLines for RequestHeader {
    /// It goes to the end, wherever what it replaces stood.
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue) {
        self.remove_header(&(name.lower)());
        self.insert_header(name.title(), value.to_value()).expect(VALID);
    }
}

impl AnswerLines for Vec<u8> {
    fn configured(&mut self, spelt: &str, value: &HeaderValue) {
        for part in [spelt.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.extend_from_slice(part);
        }
    }
}

impl AnswerLines for HeaderMap {
    fn configured(&mut self, spelt: &str, value: &HeaderValue) {
        self.append(HeaderName::from_bytes(spelt.as_bytes()).expect(VALID), value.clone());
    }
}

impl AnswerLines for ResponseHeader {
    fn configured(&mut self, spelt: &str, value: &HeaderValue) {
        self.append_header(spelt.to_owned(), value.clone()).expect(VALID);
    }
}
