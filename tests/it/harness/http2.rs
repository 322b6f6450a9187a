//! HTTP/2 clients: one that keeps the rules, and one that sends whatever frames it is told to.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::client::Response;
use super::tls::{self, Blocking};
use super::wire::Head;

/// What is offered to get HTTP/2.
const PROTOCOLS: &[&str] = &["h2"];

/// A connection on which HTTP/2 is spoken by the rules.
pub(crate) struct Http2 {
    pub(crate) runtime: Runtime,
    pub(crate) send: SendRequest<Bytes>,
    /// How the connection ended.
    pub(crate) end: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Connects to the TLS listener at `address`. Opens no more than a hundred streams before it knows how many it may,
    /// as real clients do (RFC 9113 section 6.5.2).
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::with(address, Builder::new().initial_max_send_streams(100))
    }

    /// The same, with settings.
    #[track_caller]
    pub(crate) fn with(address: SocketAddr, settings: &Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (send, end) = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let connector = TlsConnector::from(tls::config(rustls::ALL_VERSIONS, PROTOCOLS));
            let tls = connector.connect(ServerName::try_from(tls::NAME).unwrap(), tcp).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (send, connection) = settings.handshake(tls).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Http2 { runtime, send, end }
    }

    /// Connects to the plain listener at `address`, by prior knowledge.
    #[track_caller]
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (send, end) = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (send, connection) = Builder::new().initial_max_send_streams(100).handshake(tcp).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Http2 { runtime, send, end }
    }

    /// Opens a stream; without `end`, a body follows.
    pub(crate) fn open(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let send = self.send.clone();
        let mut send = self.runtime.block_on(send.ready())?;
        let _entered = self.runtime.enter();
        send.send_request(request, end)
    }

    /// Sends a request with `body` and reads its answer.
    pub(crate) fn call(&mut self, request: Request<()>, body: &[u8]) -> Result<Response, h2::Error> {
        let (answer, stream) = self.open(request, body.is_empty())?;
        let body = Bytes::copy_from_slice(body);
        self.runtime.block_on(async {
            if body.is_empty() {
                return read(answer).await;
            }
            // An answer may come, and end the stream, before all is sent.
            let sending = tokio::spawn(send_all(stream, body));
            let answer = read(answer).await;
            sending.abort();
            answer
        })
    }

    /// Asks for `target` of the host `test.example` with GET.
    pub(crate) fn get(&mut self, target: &str) -> Result<Response, h2::Error> {
        self.call(get(target), &[])
    }
}

/// `GET https://test.example{target}`.
pub(crate) fn get(target: &str) -> Request<()> {
    request("GET", target)
}

/// A request to `https://test.example{target}`.
pub(crate) fn request(method: &str, target: &str) -> Request<()> {
    let uri = format!("https://{}{target}", tls::NAME);
    Request::builder().version(http::Version::HTTP_2).method(method).uri(uri).body(()).unwrap()
}

/// Sends as fast as the windows allow.
pub(crate) async fn send_all(mut stream: SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => {
                let part = body.split_to(room?.min(body.len()));
                stream.send_data(part, body.is_empty())?;
            }
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Reads an answer whole.
pub(crate) async fn read(answer: ResponseFuture) -> Result<Response, h2::Error> {
    let (parts, mut stream) = answer.await?.into_parts();
    let body = read_body(&mut stream).await?;
    let headers =
        parts.headers.iter().map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
    let head = Head { first: format!("HTTP/2 {}", parts.status), headers: headers.collect() };
    Ok(Response { status: parts.status.as_u16(), head, framing: None, body })
}

/// Reads a body to its end.
pub(crate) async fn read_body(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body)
}

/// A connection on which any frames can be sent.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: Blocking,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl Frames {
    /// Connects, and sends the preface and empty settings.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let config = tls::config(rustls::ALL_VERSIONS, PROTOCOLS);
        let mut frames = Frames { stream: tls::handshake(address, &config)?.1 };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        frames.send(SETTINGS, 0, 0, &[])?;
        Ok(frames)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    /// Opens a stream with these header lines, pseudo-headers included, as they are.
    pub(crate) fn headers(&mut self, stream: u32, flags: u8, lines: &[(&str, &str)]) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS | flags, stream, &encode(lines))
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }

    /// The next frame of one of these kinds, past others.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.next().unwrap().unwrap_or_else(|| panic!("the connection ended before {kinds:?}"));
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }

    /// Whether the connection ends, in either way, before anything of these kinds comes.
    pub(crate) fn ends_without(&mut self, kinds: &[u8]) -> bool {
        loop {
            match self.next() {
                Ok(Some(frame)) if kinds.contains(&frame.kind) => return false,
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }
}

/// Header lines as HPACK literals without indexing (RFC 7541 section 6.2.2).
pub(crate) fn encode(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The error code in RST_STREAM and at the end of GOAWAY.
pub(crate) fn error_code(frame: &Frame) -> u32 {
    let at = if frame.kind == GOAWAY { 4 } else { 0 };
    u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap())
}
