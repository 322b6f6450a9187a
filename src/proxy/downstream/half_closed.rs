//! A client that has ended its side of the connection behind a request, and waits for the answer.
//!
//! The problem: `nc -N`, a shell's `/dev/tcp`, and clients with a writer and a reader of their own say by their FIN
//! that no further request comes. To the kernel that is what a client that has gone says first, too. nginx and HAProxy
//! take all of them for gone.
//!
//! The rule: such a client gets its answer, and those to the requests that it sent ahead, and then the connection is
//! closed; `limits.abort_on_half_close` takes it for gone as soon as its end is seen. One that has really gone answers
//! the first bytes that it gets by a reset, and one that crashes or is killed often sends one by itself. A reset must
//! end the exchange with the backend, or whoever opens requests and goes would keep backends busy for nothing. After
//! the end of what comes in neither reading nor epoll tells anything more (tokio's readiness stays as it is), so the
//! state of the connection is looked at from time to time. That costs nothing where no client ends its side.
//!
//! An end in the middle of a header or a body is no half close but an aborted request.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often it is looked whether the client is still there.
const LOOK: Duration = Duration::from_millis(250);
/// The state of a connection that was reset (TCP_CLOSE in the kernel's `tcp_states.h`).
const CLOSED: u8 = 7;

/// Watches over a client that has ended its side.
#[derive(Debug)]
pub(in crate::proxy) struct HalfClosed(Interval);

impl HalfClosed {
    /// A watch that begins now.
    pub(in crate::proxy) fn new() -> Self {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        HalfClosed(looks)
    }

    /// Waits until the client, which is at the other end of `stream`, has reset the connection.
    pub(in crate::proxy) fn poll_reset(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<()> {
        loop {
            ready!(self.0.poll_tick(cx));
            let info = stream.get_socket_digest().and_then(|digest| digest.tcp_info());
            if info.is_some_and(|info| info.tcpi_state == CLOSED) {
                return Poll::Ready(());
            }
        }
    }
}

/// Whether a read says that the client has ended its side: over TLS with or without a goodbye.
pub(in crate::proxy) fn is_end(read: &io::Result<()>, filled: usize) -> bool {
    match read {
        Ok(()) => filled == 0,
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}
