//! What passes between a client and its backend once they have agreed on another protocol.
//!
//! The problem: nobody here knows where a message ends, so whatever comes has to leave at once, in both directions, for
//! hours; and most of the time nothing comes at all, on a great many of them.
//!
//! The rules. Nothing is lost: what the backend sent right behind its 101 and what the client sent ahead of it come
//! first. When one side ends, the other one is told, and goes on as long as it likes. One that breaks off is broken off
//! at the other side, after what it said before. One whose receiver takes nothing is not read any further. When nothing
//! has moved in either direction for `tunnel_timeout`, both are closed, and so they are at the end of a drain.
//!
//! What is read lies on the stack until it is written. Only what its receiver does not take at once is kept, so that a
//! silent tunnel has no buffers. `tokio::io::copy_bidirectional` keeps two, knows no silence, and forgets the counts
//! when it fails.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use humantime::format_duration;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::proxy::exchange::context::Context as Exchanged;
use crate::proxy::exchange::failure::STOPPED;

/// What is read at once, in bytes, and the most that is kept of a direction.
const PIECE: usize = 32 << 10;

/// What a tunnel came to.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Passed {
    /// Bytes that the client sent.
    pub(in crate::proxy) from_client: u64,
    /// Bytes that the client took.
    pub(in crate::proxy) to_client: u64,
    /// How it ended.
    pub(in crate::proxy) end: TunnelEnd,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum TunnelEnd {
    /// Both sides had said all they had to say.
    Both,
    /// The client broke off.
    Client,
    /// The backend broke off.
    Backend,
    /// The backend went before it took all that the client sent.
    BackendWent,
    /// Nothing moved for too long.
    Silence,
    /// The server stops.
    Stop,
}

impl TunnelEnd {
    /// The end as that of a request, after a silence of `silence` if it was one; words for it that no error has are
    /// noted in `ctx`.
    pub(in crate::proxy) fn told(self, ctx: &mut Exchanged, silence: Duration) -> Result<()> {
        const WHERE: &str = "in a tunnel";
        let why = match self {
            TunnelEnd::Both => return Ok(()),
            TunnelEnd::Client => return Err(Error::explain(ErrorType::ConnectionClosed, WHERE).into_down()),
            TunnelEnd::Backend => {
                let broken = ErrorType::Custom("connection broken after the upgrade");
                return Err(Error::explain(broken, WHERE).into_up());
            }
            TunnelEnd::BackendWent => "the backend closed the connection".to_owned(),
            TunnelEnd::Silence => format!("the tunnel was silent for {}", format_duration(silence)),
            TunnelEnd::Stop => STOPPED.to_owned(),
        };
        ctx.error = Some(why);
        Err(Error::explain(ErrorType::ConnectionClosed, WHERE).into_in())
    }
}

/// Lets bytes pass between `client`, of which `early` was read, and `backend`, of which `behind` was, until both have
/// ended, `stop` is ready, or nothing has moved for `silence`. `owed` is what the backend is to get before all else.
pub(in crate::proxy) async fn pass(
    (client, early): (&mut (impl AsyncRead + AsyncWrite + Unpin), BytesMut),
    (backend, behind): (&mut (impl AsyncRead + AsyncWrite + Unpin), BytesMut),
    owed: &[u8],
    (silence, clock): (Duration, &dyn Clock),
    stop: impl Future<Output = ()>,
) -> Passed {
    let (mut up, mut down) = (Direction::new(early, owed), Direction::new(behind, b""));
    let mut stop = pin!(stop);
    let (mut over, mut moved) = (pin!(sleep(silence)), clock.now());
    let end = poll_fn(|cx| {
        let before = up.moved + down.moved;
        // The answers first: a backend that says goodbye and goes is heard before it is written to in vain.
        let (heard, taken) = (down.poll(cx, backend, client), up.poll(cx, client, backend));
        if up.moved + down.moved != before {
            moved = clock.now();
        }
        match (heard, taken) {
            (Poll::Ready(Err(BrokenOff)), _) => return Poll::Ready(TunnelEnd::Backend),
            (_, Poll::Ready(Err(BrokenOff))) => return Poll::Ready(TunnelEnd::Client),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                let end = if down.refused { TunnelEnd::Client } else { TunnelEnd::Both };
                return Poll::Ready(if up.refused { TunnelEnd::BackendWent } else { end });
            }
            _ => {}
        }
        while over.as_mut().poll(cx).is_ready() {
            let passed = clock.now().saturating_duration_since(moved);
            match silence.checked_sub(passed).filter(|left| !left.is_zero()) {
                Some(left) => over.set(sleep(left)),
                None => return Poll::Ready(TunnelEnd::Silence),
            }
        }
        stop.as_mut().poll(cx).map(|()| TunnelEnd::Stop)
    });
    let end = end.await;
    Passed { from_client: up.read, to_client: down.written, end }
}

/// The one that bytes come from broke off.
struct BrokenOff;

/// One direction.
struct Direction {
    /// What was read and not taken yet.
    kept: BytesMut,
    state: DirectionState,
    /// Whether some of what was taken may not have left this process yet.
    unflushed: bool,
    /// Whether the receiver has broken off.
    refused: bool,
    /// Bytes that the sender sent.
    read: u64,
    /// Bytes of those that the receiver took.
    written: u64,
    /// Bytes that were read or written, and ends.
    moved: u64,
    /// Bytes at the start of `kept` that the sender did not send.
    owed: usize,
}

/// How far a direction is.
#[derive(PartialEq, Eq)]
enum DirectionState {
    /// Bytes come.
    Open,
    /// No more will come, which the receiver is to be told.
    Ended,
    /// Nothing is left to do.
    Over,
}

impl Direction {
    /// One of which `first` has come already, and whose receiver is to get `owed` before that.
    fn new(first: BytesMut, owed: &[u8]) -> Self {
        let read = first.len() as u64;
        let kept = if owed.is_empty() { first } else { BytesMut::from(&[owed, &first[..]].concat()[..]) };
        let (state, owed) = (DirectionState::Open, owed.len());
        Direction { kept, state, unflushed: false, refused: false, read, written: 0, moved: 0, owed }
    }

    /// Passes on what can be. Ready when no more ever will be.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<std::result::Result<(), BrokenOff>> {
        while self.state != DirectionState::Over {
            if !self.kept.is_empty() {
                ready!(self.poll_write_kept(cx, to));
                continue;
            }
            if self.state == DirectionState::Ended {
                // One that is gone has no use for it.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.state = DirectionState::Over;
                continue;
            }
            let mut piece = [const { MaybeUninit::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut *from).poll_read(cx, &mut piece) {
                Poll::Pending => {
                    if std::mem::take(&mut self.unflushed) && Pin::new(&mut *to).poll_flush(cx).is_pending() {
                        self.unflushed = true;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => self.take(cx, piece.filled(), to),
                Poll::Ready(Ok(())) => self.end(),
                // Over TLS, a client that goes without a goodbye.
                Poll::Ready(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => self.end(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(BrokenOff)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) {
        self.moved += 1;
        self.state = DirectionState::Ended;
    }

    /// Writes what was just read, and keeps what is not taken.
    fn take(&mut self, cx: &mut Context<'_>, piece: &[u8], to: &mut (impl AsyncWrite + Unpin)) {
        self.read += piece.len() as u64;
        self.moved += piece.len() as u64;
        let written = Pin::new(to).poll_write(cx, piece);
        let part = self.count(written).unwrap_or_default();
        if self.state == DirectionState::Open {
            self.kept.extend_from_slice(&piece[part..]);
        }
    }

    /// Writes some of what is kept. Ready when that may be gone on with.
    fn poll_write_kept(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) -> Poll<()> {
        let written = Pin::new(&mut *to).poll_write(cx, &self.kept);
        let Some(part) = self.count(written) else {
            if self.unflushed {
                // Whether it is done or not: what is kept is written when there is room.
                let _ = Pin::new(to).poll_flush(cx);
            }
            return Poll::Pending;
        };
        self.kept.advance(part);
        if self.kept.is_empty() {
            self.kept = BytesMut::new();
        }
        Poll::Ready(())
    }

    /// Takes note of what a write came to: how many bytes were taken, when that is known.
    fn count(&mut self, written: Poll<std::io::Result<usize>>) -> Option<usize> {
        match written {
            Poll::Pending => None,
            Poll::Ready(Ok(part @ 1..)) => {
                let owed = self.owed.min(part);
                self.owed -= owed;
                self.written += (part - owed) as u64;
                self.moved += part as u64;
                self.unflushed = true;
                Some(part)
            }
            // What the receiver has said before is still to be read.
            Poll::Ready(Ok(0) | Err(_)) => {
                (self.refused, self.state) = (true, DirectionState::Over);
                self.kept = BytesMut::new();
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests;
