//! What a request has of a connection to a backend: all of it, or a stream.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use h2::Reason;
use http::{HeaderMap, StatusCode};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::clock::Alarm;
use crate::proxy::backend::sink::RequestSink;
use crate::proxy::backend::stream::{BackendStreamed, RequestFields};
use crate::proxy::wire::trailers::Trailers;
use crate::upstream::{BackendStream, Link};

/// What a request has of a connection.
#[derive(Debug)]
pub(in crate::proxy) enum BackendLink {
    /// All of it, over which HTTP/1.1 is spoken.
    Alone(BackendStream),
    /// A stream of one in HTTP/2.
    Streamed(Box<BackendStreamed>),
}

impl BackendLink {
    /// Reads on, at least a byte and, of a connection, at most what `buffer` has room for; 0 at the end.
    pub(in crate::proxy) fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Result<usize>> {
        match self {
            // It keeps nothing from one poll to the next.
            BackendLink::Alone(connection) => pin!(connection.read_buf(buffer))
                .poll(cx)
                .map_err(|error| Error::because(ErrorType::ReadError, "reading an answer", error).into_up()),
            BackendLink::Streamed(stream) => stream.poll_fill(cx, buffer),
        }
    }

    /// Reads the header section of an answer in fields, in which only a stream has it.
    pub(in crate::proxy) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(StatusCode, HeaderMap)>> {
        match self {
            BackendLink::Alone(_) => Poll::Ready(Err(Error::new_str("fields over HTTP/1.1").into_in())),
            BackendLink::Streamed(stream) => stream.poll_head(cx),
        }
    }
}

impl RequestSink for BackendLink {
    fn poll_parts(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>], last: bool) -> Poll<io::Result<usize>> {
        match self {
            BackendLink::Alone(connection) => connection.poll_parts(cx, parts, last),
            BackendLink::Streamed(stream) => stream.poll_parts(cx, parts, last),
        }
    }

    fn finish(&mut self, trailers: &Trailers) -> io::Result<()> {
        match self {
            BackendLink::Alone(connection) => connection.finish(trailers),
            BackendLink::Streamed(stream) => stream.finish(trailers),
        }
    }

    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        if let BackendLink::Streamed(stream) = self {
            stream.look_ahead(cx);
        }
    }
}

/// A connection or a stream, and what was read of the answer and not used yet.
#[derive(Debug)]
pub(in crate::proxy) struct BackendConnection {
    pub(in crate::proxy) connection: BackendLink,
    pub(in crate::proxy) buffer: BytesMut,
    /// The rest of a request that it began to answer before it took all of it.
    unsent: Vec<u8>,
}

impl BackendConnection {
    /// One that is to get a request, with room for so many bytes of the answer at first, where it comes in bytes.
    pub(in crate::proxy) fn new(link: Link, room: usize) -> Self {
        let (connection, room) = match link {
            Link::Alone(connection) => (BackendLink::Alone(connection), room),
            Link::Shared(seat) => (BackendLink::Streamed(Box::new(BackendStreamed::new(seat))), 0),
        };
        BackendConnection { connection, buffer: BytesMut::with_capacity(room), unsent: Vec::new() }
    }

    /// Whether it is one of many on its connection.
    pub(in crate::proxy) fn is_streamed(&self) -> bool {
        matches!(self.connection, BackendLink::Streamed(_))
    }

    /// Sends the header section of a request whose body is given to the connection, where that is not bytes, too.
    ///
    /// # Errors
    /// When the connection takes no more, or the request is none of its protocol.
    pub(in crate::proxy) fn open(&mut self, head: &[u8]) -> Result<()> {
        match &mut self.connection {
            BackendLink::Alone(_) => Ok(()),
            BackendLink::Streamed(stream) => stream.open(head, None),
        }
    }

    /// Sends the header section of a request in the fields of HTTP/2, and `body` if that is all of it.
    ///
    /// # Errors
    /// When the connection takes no more, or the request is none of its protocol.
    pub(in crate::proxy) fn open_in_fields(&mut self, head: Option<RequestFields>, body: Option<&[u8]>) -> Result<()> {
        match &mut self.connection {
            BackendLink::Alone(_) => Err(Error::new_str("fields over HTTP/1.1").into_in()),
            BackendLink::Streamed(stream) => stream.open_in_fields(head, body),
        }
    }

    /// Sends a request. A backend that speaks before it has taken all of it gets the rest while it is
    /// [waited for](Self::wait).
    ///
    /// # Errors
    /// When it neither takes a part nor speaks within `limit`, or it fails.
    pub(in crate::proxy) async fn send(&mut self, head: &[u8], body: &[u8], limit: Duration) -> Result<()> {
        let connection = match &mut self.connection {
            BackendLink::Alone(connection) => connection,
            BackendLink::Streamed(stream) => return stream.open(head, Some(body)),
        };
        let (mut head, mut body, mut alarm) = (head, body, Alarm::default());
        while !(head.is_empty() && body.is_empty()) {
            let sent = poll_fn(|cx| {
                let to = Pin::new(&mut *connection);
                let sent = match body.is_empty() {
                    // Cheaper than a vector with an empty part.
                    true => to.poll_write(cx, head),
                    false => to.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
                };
                match sent {
                    Poll::Pending => connection.poll_read_ready(cx).map_ok(|()| None),
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

    /// The connection, what was read of it and not used, and what it is still to get of its request; `None` for one
    /// that is shared.
    pub(in crate::proxy) fn into_parts(self) -> Option<(BackendStream, BytesMut, Vec<u8>)> {
        match self.connection {
            BackendLink::Alone(connection) => Some((connection, self.buffer, self.unsent)),
            BackendLink::Streamed(_) => None,
        }
    }

    /// Whether nothing follows of the answer behind what was read, as far as frames say so.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        matches!(&self.connection, BackendLink::Streamed(stream) if stream.is_over())
    }

    /// The trailers that came in a frame, once the end was read.
    pub(in crate::proxy) fn take_trailers(&mut self) -> Trailers {
        match &mut self.connection {
            BackendLink::Alone(_) => Trailers::default(),
            BackendLink::Streamed(stream) => stream.take_trailers(),
        }
    }

    /// Gives the request up, for a reason that the backend is told if it can be. A connection that it shares gets no
    /// more requests when it was waited for in vain.
    pub(in crate::proxy) fn give_up(&mut self, reason: Reason, in_vain: bool) {
        if let BackendLink::Streamed(stream) = &mut self.connection {
            stream.reset(reason, in_vain);
        }
    }

    /// Has the kernel acknowledge at once what came, and what comes next.
    ///
    /// A backend that writes header and body apart and leaves Nagle's algorithm on sends the body only once the header
    /// is acknowledged, which a kernel puts off by 40 ms, in the hope of something to send along with it. It is a
    /// system call, and the kernel forgets it soon, so it is for when a body is awaited.
    pub(in crate::proxy) fn acknowledge(&self) {
        if let BackendLink::Alone(connection) = &self.connection
            && let Some(tcp) = connection.tcp()
        {
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
    /// As [`wait`](Self::wait).
    #[cfg(any(fuzzing, test))]
    pub(in crate::proxy) async fn read(
        &mut self,
        within: (Duration, &mut Alarm),
        meanwhile: impl FnMut(&mut Context<'_>, &mut BackendLink) -> Poll<Box<Error>>,
    ) -> Result<usize> {
        self.wait(within, BackendLink::poll_fill, meanwhile).await
    }

    /// Waits for what `poll` is ready with; `meanwhile` is polled while that is nothing.
    ///
    /// # Errors
    /// When nothing comes within `limit`, which `alarm` is for, when it fails, or when `meanwhile` does.
    pub(in crate::proxy) async fn wait<T>(
        &mut self,
        (limit, alarm): (Duration, &mut Alarm),
        mut poll: impl FnMut(&mut BackendLink, &mut Context<'_>, &mut BytesMut) -> Poll<Result<T>>,
        mut meanwhile: impl FnMut(&mut Context<'_>, &mut BackendLink) -> Poll<Box<Error>>,
    ) -> Result<T> {
        let BackendConnection { connection, buffer, unsent } = self;
        let read = poll_fn(|cx| {
            let read = poll(connection, cx, buffer);
            if read.is_ready() {
                return read;
            }
            // Where it fails, what the backend says all the same is still to be read.
            while !unsent.is_empty()
                && let Poll::Ready(Ok(sent @ 1..)) = connection.poll_parts(cx, &[IoSlice::new(unsent)], false)
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
        let sent = BackendConnection::new(Link::Alone(near), 100)
            .send(b"POST", &[b'x'; 1 << 20], Duration::from_millis(50))
            .await;
        assert_eq!(sent.unwrap_err().etype(), &ErrorType::WriteTimedout);
    }

    #[tokio::test]
    async fn what_is_said_before_the_request_was_taken_is_heard_and_the_rest_is_sent() {
        let (near, mut far) = narrow().await;
        let (mut backend, body) = (BackendConnection::new(Link::Alone(near), 100), vec![b'x'; 1 << 20]);
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
