//! The end of a connection.

use std::time::Duration;

use bytes::BytesMut;
use nix::sys::socket::{MsgFlags, recv};
use pingora_core::protocols::Stream;
use pingora_timeout::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::gate::rejection::LINGER;

/// The longest a single read lasts while a connection is being closed.
const LINGER_READ: Duration = Duration::from_secs(1);

/// Closes the connection. When the client may still be sending, its bytes are read for a while first: closing with
/// unread data makes the kernel send a reset, which can overtake the answer (RFC 9112 section 9.6).
pub(in crate::proxy) async fn close(stream: Stream, more: bool) {
    close_and_read(stream, if more { LINGER } else { Duration::ZERO }).await;
}

/// The same, reading for at most `linger`.
pub(in crate::proxy) async fn close_and_read(mut stream: Stream, linger: Duration) {
    // The kernel says goodbye for a plain connection when it is let go of, a call less for each of those that are not
    // kept.
    if linger.is_zero() && stream.get_ssl_digest().is_none() && !has_unread(&stream) {
        return;
    }
    // Over TLS this says goodbye first, and waits until the client has taken what was written before. Pingora's own way
    // warns of each client that is gone already.
    let shutdown = timeout(LINGER, AsyncWriteExt::shutdown(&mut stream)).await;
    if shutdown.is_err() {
        return;
    }
    // What came meanwhile, or lay beyond what was read, counts as well.
    let linger = if linger.is_zero() && has_unread(&stream) { LINGER } else { linger };
    if linger.is_zero() {
        return;
    }
    let discard = async {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        while let Ok(Ok(1..)) = timeout(LINGER_READ, stream.read_buf(&mut bytes)).await {
            bytes.clear();
        }
    };
    let _ = timeout(linger, discard).await;
}

/// Whether bytes of the client lie in the kernel. One look, without waiting: tokio knows of them only after its next
/// turn. By nix: Pingora's stream tells its descriptor as a number, which rustix takes by unsafe code only.
fn has_unread(stream: &Stream) -> bool {
    recv(stream.id(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).is_ok_and(|unread| unread > 0)
}
