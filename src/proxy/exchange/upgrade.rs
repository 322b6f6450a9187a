//! What a request offers to speak instead of HTTP, what its backend gets of the offer, and whether that may take it up.
//!
//! The problem: after a 101 the bytes of both sides pass unseen, so whatever a client can get switched, it can do
//! behind the back of limits, routes and logs.
//!
//! The rules (RFC 9110 section 7.8). An offer counts in a request without a body whose `Connection` names it. Every
//! protocol may be offered, but none by which HTTP goes on where nobody reads it: `h2c` and `h2`, which servers take up
//! on requests that only look like plain ones ("h2c smuggling"), `HTTP/…` and `TLS/…`. Such a one is taken from the
//! offer, and `HTTP2-Settings` with it, as Envoy does; HAProxy drops the whole offer, nginx passes on what it is told
//! to. Where nothing is left, the request is one like any other. So is one with a body: two readers would have to agree
//! on its end before the protocol changes. A server may change to what was offered and to nothing else.

use crate::proxy::wire::lines::{LinesOf, is, line};

/// Protocols that are HTTP again.
const HTTP_AGAIN: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];

/// Lines that count for the client's own connection (RFC 9110 section 7.6.1), beside those that plain requests have.
const OF_THE_HOP: [&[u8]; 5] =
    [b"upgrade", b"http2-settings", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"];

/// Lines that `Connection` does not take away, whatever it names: they say where the request ends, whom it is for and
/// who sent it. So a client cannot have a trusted proxy's word about it dropped. What `TE` says counts only where it is
/// named there.
const PROTECTED: [&[u8]; 9] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"te",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];
/// The most options of `Connection` that are looked at for each line; nobody has as many.
const MOST_OPTIONS: usize = 64;

/// Whether a request with these lines, which has an `Upgrade`, may change its protocol.
pub(in crate::proxy) fn takes(lines: LinesOf<'_>) -> bool {
    !lines.iter().any(|(name, _)| is(name, b"transfer-encoding"))
        && listed(lines, b"connection").all(|option| !PROTECTED[..3].iter().any(|name| is(option, name)))
}

/// Whether `Connection` has this option.
pub(in crate::proxy) fn has_option(lines: LinesOf<'_>, option: &[u8]) -> bool {
    listed(lines, b"connection").any(|given| is(given, option))
}

/// What a request with these lines, which has no body, offers and may.
pub(in crate::proxy) fn offers<'h>(lines: LinesOf<'h>) -> impl Iterator<Item = &'h [u8]> {
    let meant = has_option(lines, b"upgrade");
    listed(lines, b"upgrade").filter(move |protocol| meant && is_protocol(protocol) && !is_http_again(protocol))
}

/// Whether an answer with these lines takes up what was offered, as `is_offered` says.
pub(in crate::proxy) fn takes_up(lines: LinesOf<'_>, is_offered: impl Fn(&[u8]) -> bool) -> bool {
    let mut protocols = listed(lines, b"upgrade").peekable();
    protocols.peek().is_some() && protocols.all(is_offered)
}

/// Whether lines of this name count for the client's own connection only.
pub(in crate::proxy) fn is_of_the_hop(name: &[u8]) -> bool {
    OF_THE_HOP.iter().any(|known| is(name, known))
}

/// Whether a line of a request with these `lines` is for its backend, too.
pub(in crate::proxy) fn goes_on(name: &[u8], lines: LinesOf<'_>) -> bool {
    let named = || listed(lines, b"connection").take(MOST_OPTIONS).any(|option| option.eq_ignore_ascii_case(name));
    !is_of_the_hop(name) && (PROTECTED.iter().any(|known| is(name, known)) || !named())
}

/// Adds the offer to the header section at the end of `out`.
pub(in crate::proxy) fn append<'h>(out: &mut Vec<u8>, mut offers: impl Iterator<Item = &'h [u8]>) {
    let Some(first) = offers.next() else { return };
    // The empty line comes last.
    out.truncate(out.len() - 2);
    line(out, b"Connection", b"Upgrade");
    out.extend_from_slice(b"Upgrade: ");
    out.extend_from_slice(first);
    for other in offers {
        out.extend_from_slice(b", ");
        out.extend_from_slice(other);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// The members of the list that all lines of this name make up.
fn listed<'h>(lines: LinesOf<'h>, name: &'static [u8]) -> impl Iterator<Item = &'h [u8]> {
    let named = lines.iter().filter(move |(given, _)| is(given, name));
    let members = named.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// A name, and maybe a version behind a slash.
fn is_protocol(bytes: &[u8]) -> bool {
    let is_token = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let mut parts = bytes.splitn(2, |byte| *byte == b'/');
    parts.all(is_token)
}

fn is_http_again(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    HTTP_AGAIN.iter().any(|known| is(name, known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::wire::lines::Lines;

    /// What `with` makes of these lines.
    fn with_lines<T>(text: &str, with: impl FnOnce(LinesOf<'_>) -> T) -> T {
        let text = format!("{text}\r\n");
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let httparse::Status::Complete((_, headers)) = httparse::parse_headers(text.as_bytes(), &mut headers).unwrap()
        else {
            panic!("it is incomplete");
        };
        let mut lines = Lines::default();
        lines.fill(text.as_bytes(), headers);
        with(lines.of(text.as_bytes()))
    }

    fn appended(text: &str) -> String {
        let mut out = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        with_lines(text, |lines| append(&mut out, offers(lines)));
        String::from_utf8(out).unwrap().replace("GET / HTTP/1.1\r\n", "")
    }

    #[test]
    fn every_protocol_is_offered_but_http_under_another_name() {
        for (text, offered) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "websocket"),
            ("connection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\n", "WebSocket"),
            ("Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: a/1, b\r\nUpgrade: c\r\n", "a/1, b, c"),
            ("Connection: Upgrade\r\nUpgrade: h2c, websocket,\r\n", "websocket"),
        ] {
            assert_eq!(appended(text), format!("Connection: Upgrade\r\nUpgrade: {offered}\r\n\r\n"), "{text}");
        }
        for text in [
            "Upgrade: websocket\r\n",
            "Connection: close\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade\r\n",
            "Connection: Upgrade\r\nUpgrade:\r\n",
            "Connection: Upgrade\r\nUpgrade: web socket\r\n",
            "Connection: Upgrade\r\nUpgrade: /1\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
            "Connection: Upgrade\r\nUpgrade: H2C\r\n",
            "Connection: Upgrade\r\nUpgrade: h2\r\n",
            "Connection: Upgrade\r\nUpgrade: HTTP/2.0, TLS/1.2\r\n",
        ] {
            assert_eq!(appended(text), "\r\n", "{text}");
        }
    }

    #[test]
    fn what_counts_for_the_hop_ends_there() {
        let text = "Connection: Upgrade, X-Private\r\nUpgrade: h2c\r\n";
        let goes = |name: &str| with_lines(text, |lines| goes_on(name.as_bytes(), lines));
        for name in ["Upgrade", "HTTP2-Settings", "x-private", "Proxy-Connection"] {
            assert!(!goes(name), "{name}");
        }
        assert!(goes("Sec-WebSocket-Key") && goes("Host") && goes("TE"));
        let text = "Connection: X-Forwarded-For, Host, a\r\n";
        let goes = |name: &str| with_lines(text, |lines| goes_on(name.as_bytes(), lines));
        assert!(goes("x-forwarded-for") && goes("host") && !goes("A"), "what is protected stays");
    }

    #[test]
    fn what_is_in_doubt_is_not_taken() {
        let taken = |text: &str| with_lines(text, takes);
        assert!(taken("Connection: Upgrade\r\nUpgrade: websocket\r\n") && taken("Upgrade: x\r\nContent-Length: 1\r\n"));
        for text in [
            "Upgrade: x\r\nTransfer-Encoding: chunked\r\n",
            "Connection: upgrade, content-length\r\nUpgrade: x\r\nContent-Length: 1\r\n",
            "Connection: upgrade\r\nConnection: Host\r\nUpgrade: x\r\n",
        ] {
            assert!(!taken(text), "{text}");
        }
    }

    #[test]
    fn only_what_was_offered_is_taken_up() {
        let up = |text: &str| with_lines(text, |lines| takes_up(lines, |one| is(one, b"a") || is(one, b"b/1")));
        assert!(up("Upgrade: A\r\n") && up("Upgrade: b/1, a\r\n"));
        assert!(!up("") && !up("Upgrade: c\r\n") && !up("Upgrade: a, c\r\n") && !up("Upgrade:\r\n"));
    }
}
