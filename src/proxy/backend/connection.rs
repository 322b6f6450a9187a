//! One connection to a backend while it has a request.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::clock::Alarm;
use crate::upstream::BackendStream;

/// A connection, and what was read of the answer and not used yet.
#[derive(Debug)]
pub(in crate::proxy) struct BackendConnection {
    pub(in crate::proxy) connection: BackendStream,
    pub(in crate::proxy) buffer: BytesMut,
    /// The rest of a request that it began to answer before it took all of it.
    unsent: Vec<u8>,
}

impl BackendConnection {
    /// A connection that is to get a request, with room for so many bytes of the answer at first.
    pub(in crate::proxy) fn new(connection: BackendStream, room: usize) -> Self {
        BackendConnection { connection, buffer: BytesMut::with_capacity(room), unsent: Vec::new() }
    }

    /// Sends a request. A backend that speaks before it has taken all of it gets the rest while it is
    /// [read](Self::read).
    ///
    /// # Errors
    /// When it neither takes a part nor speaks within `limit`, or it fails.
    pub(in crate::proxy) async fn send(&mut self, head: &[u8], body: &[u8], limit: Duration) -> Result<()> {
        let (mut head, mut body, mut alarm) = (head, body, Alarm::default());
        while !(head.is_empty() && body.is_empty()) {
            let sent = poll_fn(|cx| {
                let connection = Pin::new(&mut self.connection);
                let sent = match body.is_empty() {
                    // Cheaper than a vector with an empty part.
                    true => connection.poll_write(cx, head),
                    false => connection.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
                };
                match sent {
                    Poll::Pending => self.connection.poll_read_ready(cx).map_ok(|()| None),
                    sent => sent.map_ok(Some),
                }
            });
            let sent = match alarm.within(limit, sent).await {
                Ok(Ok(Some(0))) => Err(Error::explain(ErrorType::WriteError, "sending a request")),
                Ok(Ok(Some(sent))) => Ok(sent),
                Ok(Ok(None)) => {
                    self.unsent = [head, body].concat();
                    return Ok(());
                }
                Ok(Err(error)) => Err(Error::because(ErrorType::WriteError, "sending a request", error)),
                Err(_) => Err(Error::explain(ErrorType::WriteTimedout, "sending a request")),
            };
            let sent = sent.map_err(|error| error.into_up())?;
            let of_head = sent.min(head.len());
            (head, body) = (&head[of_head..], &body[sent - of_head..]);
        }
        Ok(())
    }

    /// The connection, what was read of it and not used, and what it is still to get of its request.
    pub(in crate::proxy) fn into_parts(self) -> (BackendStream, BytesMut, Vec<u8>) {
        (self.connection, self.buffer, self.unsent)
    }

    /// Has the kernel acknowledge at once what came, and what comes next.
    ///
    /// A backend that writes header and body apart and leaves Nagle's algorithm on sends the body only once the header
    /// is acknowledged, which a kernel puts off by 40 ms, in the hope of something to send along with it. It is a
    /// system call, and the kernel forgets it soon, so it is for when a body is awaited.
    pub(in crate::proxy) fn acknowledge(&self) {
        if let Some(tcp) = self.connection.tcp() {
            // Where it fails the answer is late, and no worse.
            let _ = rustix::net::sockopt::set_tcp_quickack(tcp, true);
        }
    }

    /// Whether it has got all of its request.
    pub(in crate::proxy) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Reads on, at least a byte and at most what the buffer has room for; 0 at the end of the connection. `meanwhile`
    /// is polled while nothing comes.
    ///
    /// # Errors
    /// When nothing comes within `limit`, which `alarm` is for, when it fails, or when `meanwhile` does.
    pub(in crate::proxy) async fn read(
        &mut self,
        (limit, alarm): (Duration, &mut Alarm),
        mut meanwhile: impl FnMut(&mut Context<'_>, &mut BackendStream) -> Poll<Box<Error>>,
    ) -> Result<usize> {
        let BackendConnection { connection, buffer, unsent } = self;
        let read = poll_fn(|cx| {
            // It keeps nothing from one poll to the next.
            if let Poll::Ready(read) = pin!(connection.read_buf(buffer)).poll(cx) {
                let failed = |error| Error::because(ErrorType::ReadError, "reading an answer", error).into_up();
                return Poll::Ready(read.map_err(failed));
            }
            // Where it fails, what the backend says all the same is still to be read.
            while !unsent.is_empty()
                && let Poll::Ready(Ok(sent @ 1..)) = Pin::new(&mut *connection).poll_write(cx, unsent)
            {
                unsent.drain(..sent);
            }
            meanwhile(cx, connection).map(Err)
        });
        match alarm.within(limit, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::explain(ErrorType::ReadTimedout, "reading an answer").into_up()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// Longer than anything takes.
    const LONG: Duration = Duration::from_secs(20);

    /// Both ends of a connection that takes little at a time.
    async fn narrow() -> (BackendStream, TcpStream) {
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_recv_buffer_size(4 << 10).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let near = TcpSocket::new_v4().unwrap();
        near.set_send_buffer_size(4 << 10).unwrap();
        let (near, far) = tokio::join!(near.connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap().into(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_backend_that_takes_nothing_is_given_up_in_time() {
        let (near, _far) = narrow().await;
        let sent = BackendConnection::new(near, 100).send(b"POST", &[b'x'; 1 << 20], Duration::from_millis(50)).await;
        assert_eq!(sent.unwrap_err().etype(), &ErrorType::WriteTimedout);
    }

    #[tokio::test]
    async fn what_is_said_before_the_request_was_taken_is_heard_and_the_rest_is_sent() {
        let (near, mut far) = narrow().await;
        let (mut backend, body) = (BackendConnection::new(near, 100), vec![b'x'; 1 << 20]);
        far.write_all(b"early").await.unwrap();
        let mut alarm = Alarm::default();
        backend.send(b"POST", &body, LONG).await.unwrap();
        assert!(!backend.is_sent());
        assert_eq!(backend.read((LONG, &mut alarm), |_, _| Poll::Pending).await.unwrap(), 5);
        let rest = async {
            let mut taken = vec![0; 4 + body.len()];
            far.read_exact(&mut taken).await.unwrap();
            assert!(taken.starts_with(b"POSTx") && taken[4..] == body);
            far.write_all(b"late").await.unwrap();
        };
        assert_eq!(tokio::join!(backend.read((LONG, &mut alarm), |_, _| Poll::Pending), rest).0.unwrap(), 4);
        assert!(backend.is_sent());
        assert_eq!(&backend.buffer[..], b"earlylate");
    }
}
