//! Header sections that are written anew on their way to a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

/// A header section that is being written, and what has been made of it.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Rewriter {
    /// What has come of it.
    head: Vec<u8>,
    /// What of the new one has not left yet.
    unsent: BytesMut,
}

impl Rewriter {
    /// Takes the next bytes of a header section. How many of them belong to it, and whether it is whole now and was
    /// written anew by `rewrite`.
    pub(in crate::proxy) fn take(&mut self, bytes: &[u8], rewrite: impl FnOnce(&[u8]) -> Vec<u8>) -> (usize, bool) {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        let Some(end) = memchr::memmem::find(&self.head[from..], b"\r\n\r\n").map(|at| from + at + 4) else {
            return (bytes.len(), false);
        };
        self.head.truncate(end);
        self.unsent.extend_from_slice(&rewrite(&self.head));
        self.head.clear();
        (end - before, true)
    }

    /// Sends what there is to send.
    pub(in crate::proxy) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(to.as_mut().poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes there are to send.
    pub(in crate::proxy) fn unsent(&self) -> usize {
        self.unsent.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the bytes are cut, the header section ends where it ends.
        #[test]
        fn cuts_change_nothing(cut in 0_usize..12, more in "[a-z\r\n]{0,5}") {
            let bytes = format!("GET /\r\n\r\n{more}");
            let (first, second) = bytes.as_bytes().split_at(cut.min(bytes.len()));
            let mut rewriter = Rewriter::default();
            let anew = |head: &[u8]| head.to_ascii_lowercase();
            let (mut taken, mut whole) = rewriter.take(first, anew);
            if !whole {
                let (part, now) = rewriter.take(second, anew);
                (taken, whole) = (taken + part, now);
            }
            prop_assert!(whole && taken == 9);
            prop_assert_eq!(&rewriter.unsent[..], b"get /\r\n\r\n");
        }
    }
}
