//! What of a request's body is there with its header.
//!
//! The problem: a body without a length (chunked, or of most HTTP/2 clients that stream) goes to an HTTP/1.1 backend in
//! chunks, and many of those read it as empty: WSGI knows no body without `Content-Length`, so Django's own server and
//! others answer 200 to a form that they never saw.
//!
//! The rule: one whose end is there with its header has a length, and is told with it. Nothing else is held back: what
//! is looked at is what has come, up to [`MAX_BODY`]. Clients write the header and a short body one after the other, so
//! for a body without a length the look lasts up to [`GRACE`], once. A body with a length is not waited for at all.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use pingora_core::protocols::Stream;
use pingora_timeout::timeout;
use tokio::io::AsyncReadExt;

use crate::proxy::downstream::head::Head;
use crate::proxy::wire::chunked::Chunked;
use crate::proxy::wire::request_body::Body;

/// The largest body that is waited for, or read before its request begins, in bytes; and how much of one is kept until
/// the answer begins, to be sent once more if need be.
pub(in crate::proxy) const MAX_BODY: u64 = 64 << 10;

/// How long the end of a body without a length may come after its header and still be there with it. Longer than it
/// takes a busy client to write again, shorter than anybody notices.
pub(in crate::proxy) const GRACE: Duration = Duration::from_millis(25);
/// What is read at once of chunks.
const CHUNK: usize = 16 << 10;

/// Reads what has come of the body behind `head`.
pub(in crate::proxy) async fn read_what_is_there(stream: &mut Stream, buffer: &mut BytesMut, head: &Head) {
    match &head.body {
        Body::Length(length @ 0..=MAX_BODY) => read_bytes(stream, buffer, head.end, *length),
        Body::Length(_) => {}
        // Cut off only between reads.
        Body::Chunked(chunked) => drop(timeout(GRACE, read_chunks(stream, buffer, head.end, chunked.clone())).await),
    }
}

/// Reads what has come of a body of so many bytes, without waiting for more.
fn read_bytes(stream: &mut Stream, buffer: &mut BytesMut, start: usize, length: u64) {
    let whole = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    while buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        if !matches!(stream.read_buf(buffer).now_or_never(), Some(Ok(1..))) {
            return;
        }
    }
}

/// Reads on to the end of the chunks, unless they are too many or none.
async fn read_chunks(stream: &mut Stream, buffer: &mut BytesMut, start: usize, mut chunked: Chunked) {
    let (mut at, most) = (start, start + MAX_BODY as usize);
    while let Ok(part) = chunked.follow(&buffer[at..]) {
        at += part;
        if chunked.is_done() || buffer.len() > most {
            return;
        }
        buffer.reserve(CHUNK);
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// What is in the chunks of a body that has come as a whole, when it can go directly: without trailers, and not too
/// long.
pub(in crate::proxy) fn data_of(mut chunked: Chunked, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    chunked.decode(bytes, |piece| data.extend_from_slice(piece)).ok()?;
    (chunked.is_done() && !chunked.has_trailers() && data.len() as u64 <= MAX_BODY).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_body_without_trailers_has_a_length() {
        let data = |bytes: &[u8]| data_of(Chunked::new(), bytes);
        assert_eq!(data(b"5;x\r\nhello\r\n1\r\n!\r\n0\r\n\r\n").as_deref(), Some(&b"hello!"[..]));
        assert_eq!(data(b"0\r\n\r\n").as_deref(), Some(&b""[..]));
        for not in [&b"5\r\nhello\r\n0\r\n"[..], b"0\r\nX-Sum: 1\r\n\r\n", b"x\r\n", b""] {
            assert_eq!(data(not), None, "{}", not.escape_ascii());
        }
        let body = |bytes: u64| format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes as usize));
        assert!(data(body(MAX_BODY).as_bytes()).is_some() && data(body(MAX_BODY + 1).as_bytes()).is_none());
    }
}
