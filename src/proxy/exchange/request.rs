//! A request as its backend gets it, in bytes, or in the fields of HTTP/2.
//!
//! The lines are passed on as they came, in their order, without those that count for one connection only (RFC 9110
//! section 7.6.1) and with what tollgate says of the sender. For the requests that go by Pingora `headers::to_backend`
//! does the same; what is said of the sender is one piece of code, and a property test holds the rest together.
//!
//! Which lines are passed on is decided once, by [`pass_on`]; where they go is compiled apart: into bytes, or into a
//! map for a backend that is known to speak HTTP/2, which nobody has to read once more. A line that has come in a map
//! goes there as it is.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::decimal::put_number;
use crate::proxy::gate::headers::{Sender, Underscores, Vouched};
use crate::proxy::gate::own_lines::{OwnLines, OwnName, OwnValue};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::wire::lines::{LinesOf, is, line};

/// The names of the lines that a direct request may have and that are not passed on as they are.
const OWN: [&[u8]; 12] = [
    b"connection",
    b"keep-alive",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-request-id",
    b"x-real-ip",
    b"forwarded",
    b"te",
    b"transfer-encoding",
    b"traceparent",
    b"tracestate",
];

/// Whether a request with these lines is one of nearly all: none of them asks for more than one plain exchange, and
/// those that are not for its backend are of the few that `write` knows.
pub(in crate::proxy) fn is_plain<'h>(mut lines: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> bool {
    const NOT_PLAIN: [&[u8]; 6] =
        [b"upgrade", b"expect", b"http2-settings", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"];
    let mut connections = 0;
    lines.all(|(name, value)| match name.len() {
        6 | 7 | 14 | 16 | 18 | 19 => !NOT_PLAIN.iter().any(|known| is(name, known)),
        10 if is(name, b"connection") => {
            connections += 1;
            connections == 1 && (is(value, b"keep-alive") || is(value, b"close") || is(value, b"te"))
        }
        _ => true,
    })
}

/// Whether the client says that this request is its last one.
pub(in crate::proxy) fn is_last(lines: LinesOf<'_>) -> bool {
    lines.iter().any(|(name, value)| is(name, b"connection") && is(value, b"close"))
}

/// What a backend is told of where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Framing {
    /// What the lines say, but for chunks.
    AsSaid,
    /// That it has so many bytes, which the lines do not tell.
    Length(usize),
    /// That it comes in chunks, in the words of the lines.
    Chunks,
    /// That it comes in chunks, which the lines do not tell.
    NewChunks,
}

/// A line of a request, in the form in which it came.
pub(in crate::proxy) trait SentLine<'h>: Copy {
    /// Its name and its value.
    fn bytes(self) -> (&'h [u8], &'h [u8]);

    /// The same for a map; none when it is no line that one has.
    fn field(self) -> Option<(HeaderName, HeaderValue)>;
}

impl<'h> SentLine<'h> for (&'h [u8], &'h [u8]) {
    #[inline(always)]
    fn bytes(self) -> (&'h [u8], &'h [u8]) {
        self
    }

    fn field(self) -> Option<(HeaderName, HeaderValue)> {
        Some((HeaderName::from_bytes(self.0).ok()?, HeaderValue::from_bytes(self.1).ok()?))
    }
}

impl<'h> SentLine<'h> for (&'h HeaderName, &'h HeaderValue) {
    fn bytes(self) -> (&'h [u8], &'h [u8]) {
        (self.0.as_str().as_bytes(), self.1.as_bytes())
    }

    fn field(self) -> Option<(HeaderName, HeaderValue)> {
        Some((self.0.clone(), self.1.clone()))
    }
}

/// What takes the lines that a backend gets.
trait RequestLines: OwnLines {
    /// Takes a line as it came.
    fn pass<'h>(&mut self, line: impl SentLine<'h>);

    /// Says of the body what the lines do not tell.
    fn frame(&mut self, framing: Framing);

    /// Says that trailers are taken.
    fn take_trailers(&mut self);
}

impl RequestLines for Vec<u8> {
    #[inline(always)]
    fn pass<'h>(&mut self, sent: impl SentLine<'h>) {
        let (name, value) = sent.bytes();
        line(self, name, value);
    }

    fn frame(&mut self, framing: Framing) {
        match framing {
            Framing::AsSaid | Framing::Chunks => {}
            Framing::Length(length) => {
                self.extend_from_slice(b"Content-Length: ");
                put_number(length as u64, self);
                self.extend_from_slice(b"\r\n");
            }
            Framing::NewChunks => line(self, b"Transfer-Encoding", b"chunked"),
        }
    }

    fn take_trailers(&mut self) {
        line(self, b"Connection", b"TE");
        line(self, b"TE", b"trailers");
    }
}

/// Fields of HTTP/2. Frames say where a body ends.
#[derive(Default)]
struct GatheredFields {
    fields: HeaderMap,
    /// Whether there was a line that is no field.
    is_malformed: bool,
}

impl OwnLines for GatheredFields {
    fn line(&mut self, name: &'static OwnName, value: impl OwnValue) {
        self.fields.line(name, value);
    }
}

impl RequestLines for GatheredFields {
    fn pass<'h>(&mut self, sent: impl SentLine<'h>) {
        match sent.field() {
            // Of the connection alone.
            Some((name, _)) if [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name) => {}
            Some((name, value)) => drop(self.fields.append(name, value)),
            None => self.is_malformed = true,
        }
    }

    fn frame(&mut self, framing: Framing) {
        if let Framing::Length(length) = framing {
            self.fields.insert(CONTENT_LENGTH, length.into());
        }
    }

    fn take_trailers(&mut self) {
        self.fields.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Appends the header section of a request with this method, target and lines to `out`, and of its body what `framing`
/// says.
pub(in crate::proxy) fn write<'h, I: Iterator<Item = (&'h [u8], &'h [u8])>>(
    out: &mut Vec<u8>,
    (method, target): (&str, &[u8]),
    lines: impl Fn() -> I,
    framing: Framing,
    by: (Sender, &RequestId),
) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    pass_on(out, lines, (framing, TakesTrailers::default()), by);
    out.extend_from_slice(b"\r\n");
}

/// The fields that a backend of HTTP/2 gets of a request with these lines, among them its host; none when a line is no
/// field. What its client says in `TE` counts without `Connection` when that has come `in_fields`, too.
pub(in crate::proxy) fn fields<'h, L: SentLine<'h>, I: Iterator<Item = L>>(
    lines: impl Fn() -> I,
    framing: Framing,
    in_fields: bool,
    by: (Sender, &RequestId),
) -> Option<HeaderMap> {
    let mut gathered = GatheredFields { fields: HeaderMap::with_capacity(16), is_malformed: false };
    pass_on(&mut gathered, lines, (framing, TakesTrailers { named: in_fields, said: false }), by);
    (!gathered.is_malformed).then_some(gathered.fields)
}

/// Passes on to `out` what its backend gets of a request's lines, and what tollgate says of it.
///
/// Long because each line is looked at once, in one pass that every request goes through.
#[inline(always)]
fn pass_on<'h, L: SentLine<'h>, I: Iterator<Item = L>>(
    out: &mut impl RequestLines,
    lines: impl Fn() -> I,
    (framing, mut takes_trailers): (Framing, TakesTrailers),
    (sender, id): (Sender, &RequestId),
) {
    let drops = sender.underscores == Underscores::Drop;
    let (mut host, mut hops, mut said) = (None, false, Vouched::default());
    for sent in lines() {
        let (name, value) = sent.bytes();
        if drops && name.contains(&b'_') {
            continue;
        }
        // The first letters first: nearly all names end here.
        let own = matches!(name.len(), 2 | 9..=12 | 15 | 16 | 17)
            && matches!(name[0] | 0x20, b'c' | b'f' | b'k' | b't' | b'x');
        if own && let Some(which) = OWN.iter().position(|known| is(name, known)) {
            let kept = match which {
                2 => {
                    hops |= sender.trusted;
                    false
                }
                3 => {
                    said.proto |= sender.trusted;
                    said.proto
                }
                4 => {
                    said.host |= sender.trusted;
                    said.host
                }
                0 | 8 => takes_trailers.note(which == 8, value),
                7 => sender.trusted,
                9 => framing == Framing::Chunks,
                10 => sender.trace.is_none(),
                11 => sender.trace.is_none_or(|trace| trace.goes_on),
                _ => false,
            };
            if !kept {
                continue;
            }
        } else if is(name, b"host") {
            host = Some(value);
        }
        out.pass(sent);
    }
    out.frame(framing);
    let hops = || {
        let all = hops.then(&lines).into_iter().flatten().map(L::bytes);
        all.filter(|(name, _)| is(name, b"x-forwarded-for")).map(|(_, value)| value)
    };
    sender.write(out, hops, (said, host), id);
    if takes_trailers == TakesTrailers::ASKED {
        out.take_trailers();
    }
}

/// Whether the client takes trailers, which its backend is told in its own words: by `TE`, where `Connection` names it
/// (RFC 9110 section 10.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TakesTrailers {
    named: bool,
    said: bool,
}

impl TakesTrailers {
    const ASKED: Self = TakesTrailers { named: true, said: true };

    /// Takes note of a line of `Connection`, or of `TE`; neither is passed on as it is.
    fn note(&mut self, te: bool, value: &[u8]) -> bool {
        // What nearly all of them say is longer.
        if te || value.len() == 2 || memchr::memchr(b',', value).is_some() {
            let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            if te {
                self.said |= members.any(|one| is(one, b"trailers"))
            } else {
                self.named |= members.any(|one| is(one, b"te"))
            }
        }
        false
    }
}

/// Whether carrying the request out twice is the same as once (RFC 9110 section 9.2.2).
pub(in crate::proxy) fn is_idempotent(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].contains(&method)
}

#[cfg(test)]
mod tests;
