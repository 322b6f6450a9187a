//! A small HTTP/1.1 client on a plain socket, which can also send what no client should.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::now;
use super::wire::{Framing, Head, Wire};

/// How long a client waits for each read and write.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    wire: Wire,
}

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Body<'a>,
}

/// A request's body and its framing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// No body, no framing.
    None,
    /// With a content-length.
    Length(&'a [u8]),
    /// In chunks of so many bytes.
    Chunked(&'a [u8], usize),
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        Request { method, target, host: "test.example", headers: &[], body: Body::None }
    }

    pub(crate) fn body(self, body: Body<'a>) -> Self {
        Request { body, ..self }
    }

    pub(crate) fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Request { headers, ..self }
    }

    pub(crate) fn host(self, host: &'a str) -> Self {
        Request { host, ..self }
    }

    /// The request as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host).into_bytes();
        for (name, value) in self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Length(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Body::Chunked(body, size) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                bytes.extend_from_slice(&chunks(body, size));
            }
        }
        bytes
    }
}

/// `body` in chunks of `size` bytes, with the last chunk.
pub(crate) fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + body.len() / size * 8 + 32);
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) framing: Option<Framing>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// The name of the backend that answered, or nothing.
    pub(crate) fn backend(&self) -> &str {
        self.header("x-backend").unwrap_or_default()
    }

    /// Whether the connection ends after this answer.
    pub(crate) fn closes(&self) -> bool {
        self.framing == Some(Framing::Close)
            || self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Client {
    /// Connects, or panics.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CLIENT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        Ok(Client { address, wire: Wire::new(stream) })
    }

    /// A handle on the socket for another thread.
    pub(crate) fn stream(&self) -> TcpStream {
        self.wire.stream().try_clone().unwrap()
    }

    /// How long each further read waits.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.wire.stream().set_read_timeout(Some(timeout)).unwrap();
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Says that no more will be sent.
    pub(crate) fn finish(&self) {
        // The other side may have reset the connection, and then there is nothing left to say.
        let _ = self.wire.stream().shutdown(Shutdown::Write);
    }

    /// Goes with a reset, as a client does that has died.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.wire.stream(), Some(Duration::ZERO)).unwrap();
    }

    /// Reads the answer to a request with this method, past any 1xx.
    pub(crate) fn read(&mut self, method: &str) -> io::Result<Response> {
        self.read_all(method, &mut Vec::new())
    }

    /// The same; the headers of the 1xx go to `interim`.
    pub(crate) fn read_all(&mut self, method: &str, interim: &mut Vec<Head>) -> io::Result<Response> {
        loop {
            let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = status(&head.first)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
                continue;
            }
            let framing = head.framing()?;
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let framing = if bodiless { framing } else { framing.or(Some(Framing::Close)) };
            let body = match framing {
                Some(framing) if !bodiless => self.wire.body(framing)?,
                _ => Vec::new(),
            };
            return Ok(Response { status, head, framing, body });
        }
    }

    /// Reads exactly `length` bytes, whatever they are.
    pub(crate) fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.wire.body(Framing::Length(length))
    }

    /// All that still comes until the other side ends the connection, in either way; `Err` holds what came when it does
    /// not end in time.
    pub(crate) fn rest(&mut self, limit: Duration) -> Result<String, String> {
        let end = now() + limit;
        loop {
            self.set_timeout(end.saturating_duration_since(now()).max(Duration::from_millis(1)));
            match self.wire.fill() {
                Ok(true) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(format!("still open after {limit:?}: {}", self.wire.take_unread().escape_ascii()));
                }
                Ok(false) | Err(_) => return Ok(String::from_utf8_lossy(&self.wire.take_unread()).into_owned()),
            }
        }
    }

    /// Whether something to read comes within `limit`.
    pub(crate) fn has_answer(&mut self, limit: Duration) -> bool {
        self.set_timeout(limit);
        let some = self.wire.has_unread() || self.wire.stream().peek(&mut [0]).is_ok_and(|read| read > 0);
        self.set_timeout(CLIENT_TIMEOUT);
        some
    }

    /// Sends a request and reads its answer.
    pub(crate) fn call(&mut self, request: &Request<'_>) -> io::Result<Response> {
        self.send(&request.encode())?;
        self.read(request.method)
    }

    /// Asks for `target` with GET.
    pub(crate) fn get(&mut self, target: &str) -> io::Result<Response> {
        self.call(&Request::new("GET", target))
    }

    /// As [`call`](Self::call), and connects again when the answer ends the connection.
    pub(crate) fn call_again(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let response = self.call(request)?;
        if response.closes() {
            *self = Self::try_connect(self.address)?;
        }
        Ok(response)
    }

    /// Waits until the other side ends the connection, in either way; `Err` holds what came instead.
    pub(crate) fn wait_closed(&mut self, limit: Duration) -> Result<(), String> {
        self.set_timeout(limit);
        if self.wire.has_unread() {
            return Err("unread bytes".to_owned());
        }
        match self.wire.fill() {
            Ok(false) => Ok(()),
            Ok(true) => Err("more bytes".to_owned()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err("nothing happened".to_owned())
            }
            Err(_) => Ok(()),
        }
    }
}

fn status(line: &str) -> io::Result<u16> {
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let code = words.next().unwrap_or_default();
    if matches!(version, "HTTP/1.1" | "HTTP/1.0")
        && code.len() == 3
        && let Ok(status) = code.parse()
    {
        return Ok(status);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("status line {line:?}")))
}
