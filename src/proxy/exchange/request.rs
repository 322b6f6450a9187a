//! A request as its backend gets it, in bytes.
//!
//! The lines are passed on as they came, in their order, without those that count for one connection only (RFC 9110
//! section 7.6.1) and with what tollgate says of the sender. For the requests that go by Pingora `headers::to_backend`
//! does the same; what is said of the sender is one piece of code, and a property test holds the rest together.

use crate::decimal::put_number;
use crate::proxy::gate::headers::{Sender, Underscores, Vouched};
use crate::proxy::gate::request_id::RequestId;
use crate::proxy::wire::lines::{LinesOf, is, line};

/// The names of the lines that a direct request may have and that are not passed on as they are.
const OWN: [&[u8]; 10] = [
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

/// Appends the header section of a request with this method, target and lines to `out`, and of its body what `framing`
/// says.
///
/// Long because each line is looked at once, in one pass that every request goes through.
pub(in crate::proxy) fn write<'h, I: Iterator<Item = (&'h [u8], &'h [u8])>>(
    out: &mut Vec<u8>,
    (method, target): (&str, &[u8]),
    lines: impl Fn() -> I,
    framing: Framing,
    (sender, id): (Sender, &RequestId),
) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let drops = sender.underscores == Underscores::Drop;
    let (mut host, mut hops, mut said) = (None, false, Vouched::default());
    let mut takes_trailers = TakesTrailers::default();
    for (name, value) in lines() {
        if drops && name.contains(&b'_') {
            continue;
        }
        // The first letters first: nearly all names end here.
        let own = matches!(name.len(), 2 | 9 | 10 | 12 | 15 | 16 | 17)
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
                _ => false,
            };
            if !kept {
                continue;
            }
        } else if is(name, b"host") {
            host = Some(value);
        }
        line(out, name, value);
    }
    match framing {
        Framing::AsSaid | Framing::Chunks => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            put_number(length as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::NewChunks => line(out, b"Transfer-Encoding", b"chunked"),
    }
    let hops = || {
        let all = hops.then(&lines).into_iter().flatten();
        all.filter(|(name, _)| is(name, b"x-forwarded-for")).map(|(_, value)| value)
    };
    sender.write(out, hops, (said, host), id);
    if takes_trailers == TakesTrailers::ASKED {
        line(out, b"Connection", b"TE");
        line(out, b"TE", b"trailers");
    }
    out.extend_from_slice(b"\r\n");
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
