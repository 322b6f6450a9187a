//! A client's socket.
//!
//! Pingora's own stream counts by the clock how long each read waits, which is two readings of it a request, and keeps
//! two buffers and what it knows of the socket: 2.3 KiB for a connection that says nothing. This one keeps nothing that
//! an idle connection does not need. What Pingora asks of a socket it gets when it asks.
//!
//! TLS reads records in small pieces. Where it does ([`ClientSocket::gathering`]), one system call takes all that has
//! come, and what TLS does not take at once is kept until it does.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once for TLS, in bytes: about a record.
const GATHERED: usize = 16 << 10;

/// A client's socket.
#[derive(Debug)]
pub struct ClientSocket {
    stream: TcpStream,
    peer: SocketAddr,
    listener: SocketAddr,
    gathers: bool,
    /// What was read and nobody has taken yet.
    ahead: BytesMut,
    digest: OnceLock<Arc<SocketDigest>>,
}

impl ClientSocket {
    /// The socket of a client at `peer` that came in by `listener`.
    pub fn new(stream: TcpStream, peer: SocketAddr, listener: SocketAddr) -> Self {
        ClientSocket { stream, peer, listener, gathers: false, ahead: BytesMut::new(), digest: OnceLock::new() }
    }

    /// The same for one who reads in small pieces.
    pub(in crate::proxy) fn gathering(self) -> Self {
        ClientSocket { gathers: true, ..self }
    }

    /// The address at the other end.
    pub(in crate::proxy) fn peer(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// The listener that it came in by.
    pub(in crate::proxy) fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Waits for more to come, which stays to be read; false at the end of the connection.
    ///
    /// # Errors
    /// When the socket fails.
    pub(in crate::proxy) async fn more(&mut self) -> io::Result<bool> {
        let (before, nothing) = (self.ahead.len(), &mut ReadBuf::new(&mut []));
        std::future::poll_fn(|cx| self.poll_gather(cx, nothing)).await?;
        Ok(self.ahead.len() > before)
    }

    /// What has come and stays to be read.
    pub(in crate::proxy) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes note that the first `length` bytes of what has come said that it is from `source`, if that is told.
    pub(in crate::proxy) fn introduced(&mut self, length: usize, source: Option<SocketAddr>) {
        self.ahead.advance(length);
        self.let_go();
        if let Some(source) = source {
            self.peer = source;
            // Made of the other address, if anybody has asked already.
            self.digest = OnceLock::new();
        }
    }

    /// Keeps no memory for what was taken.
    fn let_go(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Reads what has come: into `buf` what it has room for, and the rest ahead.
    fn poll_gather(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [const { MaybeUninit::uninit() }; GATHERED];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let (part, rest) = read.filled().split_at(read.filled().len().min(buf.remaining()));
        buf.put_slice(part);
        self.ahead.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if !socket.ahead.is_empty() {
            let part = socket.ahead.len().min(buf.remaining());
            buf.put_slice(&socket.ahead[..part]);
            socket.ahead.advance(part);
            socket.let_go();
            return Poll::Ready(Ok(()));
        }
        match socket.gathers && buf.remaining() < GATHERED {
            true => socket.poll_gather(cx, buf),
            false => Pin::new(&mut socket.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for ClientSocket {
    async fn shutdown(&mut self) {
        // Who is gone already needs none.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for ClientSocket {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl GetSocketDigest for ClientSocket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let digest = self.digest.get_or_init(|| {
            let digest = SocketDigest::from_raw_fd(self.stream.as_raw_fd());
            // It was made just now, so nobody else has set it.
            let _ = digest.peer_addr.set(Some(self.peer.into()));
            Arc::new(digest)
        });
        Some(Arc::clone(digest))
    }
}

impl GetTimingDigest for ClientSocket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl Ssl for ClientSocket {}

impl GetProxyDigest for ClientSocket {
    fn get_proxy_digest(&self) -> Option<Arc<pingora_core::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl Peek for ClientSocket {}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ClientSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (near, peer) = near.unwrap();
        (ClientSocket::new(near, peer, address), far.unwrap())
    }

    #[tokio::test]
    async fn what_is_gathered_is_read_piece_by_piece_and_then_kept_no_more() {
        let (socket, mut far) = pair().await;
        let mut socket = socket.gathering();
        let sent: Vec<u8> = (0..40_000_u32).map(|byte| byte as u8).collect();
        far.write_all(&sent).await.unwrap();
        assert!(socket.more().await.unwrap());
        assert_eq!(socket.ahead()[..3], [0, 1, 2], "it stays");
        let mut came = Vec::new();
        let mut piece = [0; 700];
        while came.len() < sent.len() {
            let part = socket.read(&mut piece).await.unwrap();
            came.extend_from_slice(&piece[..part]);
        }
        assert!(came == sent && socket.ahead.capacity() == 0);
        drop(far);
        assert_eq!((socket.more().await.unwrap(), socket.read(&mut piece).await.unwrap()), (false, 0));
    }

    #[tokio::test]
    async fn who_does_not_gather_reads_what_was_seen_first() {
        let (mut socket, mut far) = pair().await;
        far.write_all(b"GET").await.unwrap();
        assert!(socket.more().await.unwrap() && socket.ahead().starts_with(b"G"));
        let mut came = [0; 3];
        socket.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"GET");
    }

    #[tokio::test]
    async fn one_that_is_introduced_has_another_address_and_what_came_behind() {
        let (mut socket, mut far) = pair().await;
        far.write_all(b"headGET").await.unwrap();
        while socket.ahead().len() < 7 {
            assert!(socket.more().await.unwrap());
        }
        socket.introduced(4, Some("[::ffff:192.0.2.7]:1".parse().unwrap()));
        assert_eq!(socket.peer(), "192.0.2.7".parse::<IpAddr>().unwrap());
        let digest = socket.get_socket_digest().unwrap();
        assert_eq!(digest.peer_addr().and_then(|peer| peer.as_inet()).map(SocketAddr::port), Some(1));
        let mut came = [0; 3];
        socket.read_exact(&mut came).await.unwrap();
        assert_eq!((&came, socket.ahead.capacity()), (b"GET", 0));
    }

    #[tokio::test]
    async fn pingora_learns_whose_it_is() {
        let (socket, far) = pair().await;
        let digest = socket.get_socket_digest().unwrap();
        assert_eq!(digest.peer_addr().and_then(|peer| peer.as_inet()), Some(&far.local_addr().unwrap()));
        assert!(Arc::ptr_eq(&digest, &socket.get_socket_digest().unwrap()));
        assert_eq!(socket.peer(), far.local_addr().unwrap().ip());
    }
}
