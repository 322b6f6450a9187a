//! The clients: one connection each, one request after another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::backend::content_length;
use crate::cases::{Case, Protocol};
use crate::server::NAME;

/// A connection that asks the requests of one case.
pub(crate) trait Client {
    /// Asks `count` times, and reads each answer to its end; each has `status`, if that is given.
    fn ask(&mut self, count: u32, status: Option<u16>);
}

/// Connects to the listener that the case is for.
pub(crate) fn connect(case: &'static Case, plain: SocketAddr, tls: SocketAddr) -> Box<dyn Client> {
    match case.protocol {
        Protocol::Plain => Box::new(Http1::new(case, tcp(plain))),
        Protocol::Tls => {
            let name = ServerName::try_from(NAME).expect("a name");
            let session = ClientConnection::new(config(b"http/1.1"), name).expect("the configuration is whole");
            Box::new(Http1::new(case, StreamOwned::new(session, tcp(tls))))
        }
        Protocol::Http2 => Box::new(Http2::connect(case, tls)),
    }
}

/// Connects, as soon as the proxy listens.
fn tcp(address: SocketAddr) -> TcpStream {
    let tries = (0..1_000).find_map(|_| {
        let stream = TcpStream::connect(address).ok();
        if stream.is_none() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        stream
    });
    let stream = tries.expect("the proxy listens");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

/// Believes the one certificate.
fn config(protocol: &[u8]) -> Arc<ClientConfig> {
    let path = std::env::var_os("CERTIFICATE").expect("the other process says where it is");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path).expect("a certificate")).expect("it can be a root");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// The n-th of a request's further headers.
fn header(number: usize) -> (String, &'static str) {
    match number {
        0 => ("user-agent".to_owned(), "allocations/1.0"),
        _ => (format!("x-some-header-{number}"), "a value of ordinary length"),
    }
}

/// HTTP/1.1 over anything.
struct Http1<S> {
    stream: S,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Http1<S> {
    fn new(case: &'static Case, stream: S) -> Self {
        let method = if case.body > 0 { "POST" } else { "GET" };
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: {NAME}\r\n", case.path);
        for (name, value) in (0..case.headers).map(header) {
            request += &format!("{name}: {value}\r\n");
        }
        if case.body > 0 {
            request += &format!("Content-Length: {}\r\n", case.body);
        }
        let mut request = (request + "\r\n").into_bytes();
        request.resize(request.len() + case.body, b'y');
        Http1 { stream, request, buffer: vec![0; 256 << 10] }
    }
}

impl<S: Read + Write> Client for Http1<S> {
    fn ask(&mut self, count: u32, status: Option<u16>) {
        let start = status.map_or("HTTP/1.1 ".to_owned(), |status| format!("HTTP/1.1 {status} "));
        for _ in 0..count {
            self.stream.write_all(&self.request).expect("the proxy reads");
            let (mut have, mut all) = (0, None);
            while all.is_none_or(|all| have < all) {
                let count = self.stream.read(&mut self.buffer[have..]).expect("the proxy answers");
                assert!(count > 0, "the proxy closed the connection");
                have += count;
                let read = &self.buffer[..have];
                if all.is_none()
                    && let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n")
                {
                    all = Some(end + 4 + content_length(&read[..end]));
                }
            }
            assert!(self.buffer.starts_with(start.as_bytes()), "an answer does not begin with {start}");
        }
    }
}

/// HTTP/2 over TLS.
struct Http2 {
    case: &'static Case,
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

impl Http2 {
    fn connect(case: &'static Case, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let send = runtime.block_on(async {
            let stream = tcp(address);
            stream.set_nonblocking(true).expect("it is TCP");
            let stream = tokio::net::TcpStream::from_std(stream).expect("the runtime takes it");
            let name = ServerName::try_from(NAME).expect("a name");
            let stream = TlsConnector::from(config(b"h2")).connect(name, stream).await.expect("a handshake");
            let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            send
        });
        Http2 { case, runtime, send }
    }
}

impl Client for Http2 {
    fn ask(&mut self, count: u32, status: Option<u16>) {
        let case = self.case;
        self.runtime.block_on(async {
            for _ in 0..count {
                let mut request = Request::get(format!("https://{NAME}{}", case.path));
                for (name, value) in (0..case.headers).map(header) {
                    request = request.header(name, value);
                }
                let request = request.body(()).expect("a whole request");
                let (answer, _) = self.send.send_request(request, true).expect("a free stream");
                let answer = answer.await.expect("the proxy answers");
                assert!(status.is_none_or(|status| answer.status() == status), "{}", answer.status());
                let mut body = answer.into_body();
                while let Some(data) = body.data().await {
                    let count = data.expect("the whole body").len();
                    body.flow_control().release_capacity(count).expect("it was taken");
                }
            }
        });
    }
}
