//! A backend that the test itself plays, byte for byte: it takes a connection, reads a request, sends what it likes.
//!
//! For what a script would need a word of its own for. Everything happens in the test's thread, so it is in the order
//! in which it is written there.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::PATIENCE;
use super::client::CLIENT_TIMEOUT;
use super::ports::free_address;
use super::wire::{Framing, Head, Wire};

/// A listener whose connections the test takes one by one.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) address: SocketAddr,
    connections: Receiver<TcpStream>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Taken {
    wire: Wire,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Played {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel();
        // It ends with the first connection that nobody takes, or with the process.
        std::thread::spawn(move || while listener.accept().is_ok_and(|(stream, _)| sender.send(stream).is_ok()) {});
        Played { address, connections }
    }

    /// The next connection, when one comes within `limit`.
    pub(crate) fn take_within(&self, limit: Duration) -> Option<Taken> {
        let stream = self.connections.recv_timeout(limit).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        Some(Taken { wire: Wire::new(stream) })
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn take(&self) -> Taken {
        self.take_within(PATIENCE).expect("nobody connected")
    }

    /// The next connection, with the request that came over it.
    #[track_caller]
    pub(crate) fn take_request(&self) -> (Taken, Got) {
        let mut taken = self.take();
        let got = taken.request();
        (taken, got)
    }
}

impl Taken {
    /// The next request, or `None` when the proxy closes.
    pub(crate) fn next(&mut self) -> io::Result<Option<Got>> {
        let Some(head) = self.wire.head()? else { return Ok(None) };
        let body = head.framing()?.map_or(Ok(Vec::new()), |framing| self.wire.body(framing))?;
        Ok(Some(Got { head, body }))
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Got {
        self.next().unwrap().expect("the proxy closed the connection")
    }

    /// The start line of the next request, when one begins within `limit`.
    pub(crate) fn request_within(&mut self, limit: Duration) -> Option<String> {
        self.wire.stream().set_read_timeout(Some(limit.max(Duration::from_millis(1)))).unwrap();
        let begins = self.wire.has_unread() || self.wire.stream().peek(&mut [0]).is_ok_and(|read| read > 0);
        self.wire.stream().set_read_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        begins.then(|| self.request().head.first)
    }

    /// Exactly `length` bytes, whatever they are.
    pub(crate) fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.wire.body(Framing::Length(length))
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The proxy may have closed already, which is for the test to find out.
        let _ = self.wire.send(bytes);
    }

    /// Whether the proxy closes the connection without another byte.
    pub(crate) fn is_closed(&mut self, limit: Duration) -> bool {
        self.wire.stream().set_read_timeout(Some(limit)).unwrap();
        let closed = match self.wire.fill() {
            Ok(more) => !more,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.wire.stream().set_read_timeout(Some(CLIENT_TIMEOUT)).unwrap();
        closed
    }

    /// A handle on the socket.
    pub(crate) fn stream(&self) -> TcpStream {
        self.wire.stream().try_clone().unwrap()
    }
}
