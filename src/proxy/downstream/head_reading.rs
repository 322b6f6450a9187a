//! Reads a header section.

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

use crate::proxy::downstream::head;
use crate::proxy::downstream::head::Head;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::wire::lines::Lines;

/// What is read at once while one is coming.
const CHUNK: usize = 4 << 10;

/// Reads the rest of a header, with its target in origin form; `None` when the client went.
pub(in crate::proxy) async fn read_head(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    lines: &mut Lines,
) -> Result<Option<Head>, Rejection> {
    let mut seen = 0;
    loop {
        // A header is parsed when its end may be there, and once before that, to refuse what never was one.
        if (seen == 0 || head::is_whole(buffer, seen) || buffer.len() > head::MAX_HEAD)
            && let Some(head) = head::check(buffer, lines)?
        {
            let Some(rewritten) = head::in_origin_form(buffer, &head, lines) else { return Ok(Some(head)) };
            *buffer = rewritten;
            return head::check(buffer, lines);
        }
        seen = buffer.len();
        buffer.reserve(CHUNK);
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return Ok(None);
        }
    }
}
