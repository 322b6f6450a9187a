//! Reading HTTP/1.1 messages off a socket, strictly: for the client and for the scripted backends alike.
//!
//! Strict on purpose. A bare LF, a chunk size that is not plain hex or a body that ends early is an error here, so
//! whatever the proxy sends has to be right, not just close enough.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The start line and the headers of a message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The request line or the status line.
    pub(crate) first: String,
    /// Names as they were sent, and values without the spaces around them, in order.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of all headers of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The framing that the headers declare; `None` when they declare none.
    pub(crate) fn framing(&self) -> io::Result<Option<Framing>> {
        match (self.all("transfer-encoding")[..].to_vec(), self.all("content-length")[..].to_vec()) {
            (te, cl) if te.is_empty() && cl.is_empty() => Ok(None),
            (te, cl) if te.len() == 1 && cl.is_empty() && te[0].eq_ignore_ascii_case("chunked") => {
                Ok(Some(Framing::Chunked))
            }
            (te, cl) if te.is_empty() && cl.len() == 1 && cl[0].bytes().all(|b| b.is_ascii_digit()) => {
                cl[0].parse().map(|length| Some(Framing::Length(length))).map_err(|_| broken("content-length"))
            }
            (te, cl) => Err(broken(&format!("framing: transfer-encoding {te:?}, content-length {cl:?}"))),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(usize),
    /// After the last chunk.
    Chunked,
    /// Where the connection ends.
    Close,
}

/// A socket with the bytes that were read and not yet used.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Wire { stream, buffer: Vec::new(), used: 0 }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads more into the buffer; `false` at the end of the stream.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        let mut piece = [0; 16 << 10];
        let read = loop {
            match self.stream.read(&mut piece) {
                // A process that is stopped and goes on finds the reads broken off that have a timeout (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read > 0)
    }

    /// Whether bytes lie here that nobody has used yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.used < self.buffer.len()
    }

    /// The bytes that lie here, which are used by that.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        let unread = self.buffer.split_off(self.used);
        self.used = self.buffer.len();
        unread
    }

    /// The next line without its CRLF; `None` when the stream ends before its first byte.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[self.used + searched..].iter().position(|b| *b == b'\n') {
                let end = self.used + searched + at;
                let line = self.buffer[self.used..end].strip_suffix(b"\r").ok_or_else(|| broken("a bare LF"))?;
                let line = String::from_utf8(line.to_vec()).map_err(|_| broken("a line that is not UTF-8"))?;
                self.used = end + 1;
                return if line.contains('\r') { Err(broken("a bare CR")) } else { Ok(Some(line)) };
            }
            searched = self.buffer.len() - self.used;
            if !self.fill()? {
                return if searched == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next start line and headers; `None` when the stream ends before their first byte.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(first) = self.line()? else { return Ok(None) };
        let mut head = Head { first, headers: Vec::new() };
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken(&format!("header line {line:?}")))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(broken(&format!("header name {name:?}")));
            }
            head.headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// The body, whole.
    pub(crate) fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match framing {
            Framing::Length(length) => self.take(length, &mut body)?,
            Framing::Close => {
                body.extend_from_slice(&self.buffer[self.used..]);
                self.used = self.buffer.len();
                self.stream.read_to_end(&mut body)?;
            }
            Framing::Chunked => loop {
                let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let digits = line.split(';').next().unwrap_or_default();
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(broken(&format!("chunk size {line:?}")));
                }
                let size = usize::from_str_radix(digits, 16).map_err(|_| broken("chunk size"))?;
                if size == 0 {
                    while !self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                    break;
                }
                self.take(size, &mut body)?;
                let mut end = Vec::new();
                self.take(2, &mut end)?;
                if end != b"\r\n" {
                    return Err(broken("a chunk longer than its size"));
                }
            },
        }
        Ok(body)
    }

    /// Moves exactly `length` bytes to the end of `body`.
    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let here = length.min(self.buffer.len() - self.used);
        body.extend_from_slice(&self.buffer[self.used..self.used + here]);
        self.used += here;
        // Long bodies go straight to where they belong; short rests through the buffer, which then holds what follows.
        let mut left = length - here;
        if left > 32 << 10 {
            body.reserve(left);
            let read = (&mut self.stream).take(left as u64).read_to_end(body)?;
            left -= read;
            return if left == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if left > 0 {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return self.take(left, body);
        }
        Ok(())
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
