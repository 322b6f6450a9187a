//! Interim answers on their way to a client of HTTP/1.1.
//!
//! The problem: a backend may send them as fast as it likes, and a client may take none. Were each waited for until it
//! is taken, nobody would read from the backend meanwhile. Over HTTP/2, where header sections have no window, all that
//! it goes on to send is kept by the h2 crate.
//!
//! The rule: they are kept here, and sent while the backend is waited for, or together with what follows them. Of a
//! client that has [`MOST`] of them to take, and takes nothing, further ones are dropped: they say nothing that the
//! final answer does not say.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What may be untaken when one more is kept, in bytes.
const MOST: usize = 16 << 10;

/// What the client has not taken of them. Allocates only when there is one.
#[derive(Debug, Default)]
pub(in crate::proxy) struct InterimAnswers {
    bytes: Vec<u8>,
    unflushed: bool,
}

impl InterimAnswers {
    /// Keeps what `write` appends, one of them, where there is room.
    pub(in crate::proxy) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() < MOST {
            write(&mut self.bytes);
        }
    }

    /// Whether nothing of them is here.
    pub(in crate::proxy) fn are_sent(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Takes what is left of them, for who sends it himself.
    pub(in crate::proxy) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    /// Sends them as far as the client takes them; ready when it has taken all.
    pub(in crate::proxy) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.bytes))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.drain(..sent);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_bounded_and_what_is_begun_is_sent_whole() {
        let (mut near, mut far) = duplex(100);
        let mut interim = InterimAnswers::default();
        assert!(interim.are_sent());
        let mut cx = Context::from_waker(Waker::noop());
        for number in 0..MOST {
            interim.add(|out| out.extend_from_slice(format!("{number:10}").as_bytes()));
            assert!(interim.poll_send(&mut cx, &mut near).is_pending() || number < 10);
        }
        assert!(interim.bytes.len() <= MOST + 10, "{}", interim.bytes.len());
        let rest = interim.take();
        assert!(interim.are_sent());
        let mut taken = [0; 100];
        far.read_exact(&mut taken).await.unwrap();
        let all = [&taken[..], &rest].concat();
        let numbers: Vec<usize> =
            all.chunks(10).map(|one| str::from_utf8(one).unwrap().trim().parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    }
}
