//! One request of a client that speaks HTTP/2.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Version};

use crate::proxy::backend::stream::RequestFields;
use crate::proxy::exchange::client::ReceivedRequest;
use crate::proxy::exchange::request;
use crate::proxy::exchange::request::Framing;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::exchange::upgrade;
use crate::proxy::gate::admit::RequestTarget;
use crate::proxy::gate::grpc::is_grpc;
use crate::proxy::gate::headers::Sender;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::wire::lines::length_of;
use crate::proxy::wire::lines::{Fields, is};
use crate::upstream::Protocol;

/// What a request with this header asks for. It has been rewritten as one of HTTP/1.1.
pub(in crate::proxy) fn purpose_of(parts: &Parts) -> Purpose {
    match request::is_plain(lines(parts)) {
        _ if parts.extensions.get::<h2::ext::Protocol>().is_some() => Purpose::Upgrade,
        true => Purpose::Answer,
        false if parts.headers.contains_key(EXPECT) => Purpose::Expectation,
        false => Purpose::Special,
    }
}

/// The lines of a request.
fn lines(parts: &Parts) -> impl Iterator<Item = (&[u8], &[u8])> {
    parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// What a request says of the length of its body; none when it says nothing.
pub(in crate::proxy) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|length| length_of(length.as_bytes()))
}

/// A request, of whose body all is there, or what is not sent on.
#[derive(Debug)]
pub(in crate::proxy) struct Http2Request {
    parts: Box<Parts>,
    asks: Purpose,
    body: Bytes,
    framing: Framing,
    /// Whether some of its body is to come.
    is_part: bool,
}

impl Http2Request {
    /// A request with this header, and with the body that followed it, if one did.
    pub(in crate::proxy) fn new(parts: Box<Parts>, asks: Purpose, body: Option<Bytes>) -> Self {
        let untold = !parts.headers.contains_key(CONTENT_LENGTH);
        // An empty body is one where the method has a use for it (RFC 9110 section 8.6).
        let meant =
            |body: &Bytes| !body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
        let told = body.as_ref().filter(|body| untold && meant(body));
        let framing = told.map_or(Framing::AsSaid, |body| Framing::Length(body.len()));
        Http2Request { parts, asks, body: body.unwrap_or_default(), framing, is_part: false }
    }

    /// A request with this header, the body of which is sent on.
    pub(in crate::proxy) fn part(parts: Box<Parts>, asks: Purpose) -> Self {
        let untold = !parts.headers.contains_key(CONTENT_LENGTH);
        let framing = if untold { Framing::NewChunks } else { Framing::AsSaid };
        Http2Request { parts, asks, body: Bytes::new(), framing, is_part: true }
    }
}

impl Http2Request {
    /// The protocol that it offers.
    fn offered(&self) -> Option<&'static [u8]> {
        (self.asks == Purpose::Upgrade).then_some(b"websocket")
    }

    /// Its header.
    pub(in crate::proxy) fn into_parts(self) -> Box<Parts> {
        self.parts
    }

    /// Why it is not let in, when its body is there and turns out to be larger than so many bytes.
    pub(in crate::proxy) fn too_large(&self, max_body: u64) -> Option<Rejection> {
        let is_larger = self.body.len() as u64 > max_body && !is_grpc(&self.parts.headers);
        is_larger.then_some(Rejection::BodyTooLarge(max_body))
    }
}

impl ReceivedRequest for Http2Request {
    fn fields(&self) -> impl Fields {
        &self.parts.headers
    }

    fn target(&self) -> RequestTarget<'_> {
        let host = self.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        RequestTarget { method: self.parts.method.as_str(), host, path: self.parts.uri.path() }
    }

    fn version(&self) -> Version {
        Version::HTTP_2
    }

    fn asked(&self) -> &[u8] {
        self.parts.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes()
    }

    fn body(&self) -> &[u8] {
        &self.body
    }

    fn length(&self) -> Option<u64> {
        if self.is_part { announced(&self.parts.headers) } else { Some(self.body.len() as u64) }
    }

    fn write(&self, out: &mut Vec<u8>, to: Protocol, sender: Sender, id: &RequestId) {
        let target = self.parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let (asked, by) = ((self.parts.method.as_str(), target.as_bytes()), (sender, id));
        if to == Protocol::Http1 && self.asks == Purpose::Answer {
            return request::write(out, asked, || lines(&self.parts), self.framing, by);
        }
        // What it says in `TE` is for another one that speaks HTTP/2, where no `Connection` has to name it.
        let named: Option<(&[u8], &[u8])> = (to != Protocol::Http1).then_some((b"connection", b"te"));
        let going_on = || {
            let lines = named.into_iter().chain(lines(&self.parts));
            lines.filter(|(name, _)| !upgrade::is_of_the_hop(name))
        };
        request::write(out, asked, going_on, self.framing, by);
        upgrade::append(out, self.offered().into_iter());
    }

    fn in_fields(&self, sender: Sender, id: &RequestId) -> Option<RequestFields> {
        let lines = || {
            let all = self.asks == Purpose::Answer;
            self.parts.headers.iter().filter(move |(name, _)| all || !upgrade::is_of_the_hop(name.as_str().as_bytes()))
        };
        let target = self.parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let fields = request::fields(lines, self.framing, true, (sender, id))?;
        Some(RequestFields { method: self.parts.method.clone(), target, fields })
    }

    fn tunnels_by_success(&self) -> bool {
        self.offered().is_some()
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        self.offered().is_some_and(|offered| is(protocol, offered))
    }
}

/// The header map behind a reference.
impl Fields for &HeaderMap {
    fn all_of<'h>(&'h self, name: &'h HeaderName) -> impl DoubleEndedIterator<Item = &'h [u8]> {
        (**self).all_of(name)
    }
}
