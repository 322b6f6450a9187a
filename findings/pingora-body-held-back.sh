#!/usr/bin/env bash
# pingora-proxy 0.9.1: a server sends an answer of known length in two parts, a second apart. When does the client of a
# minimal proxy get the first part?
#
# Seen: with the second. Header and 700 bytes of 1,400 are sent at once; the client gets the header at once and of the
# body nothing for a second, then all of it. The HTTP/1 session writes a body of known length into a buffer of 1,460 bytes
# and flushes that only when it is full or the body ends. The same parts in chunks (no Content-Length) come at once.
# Who waits for the first part before sending more (long polling, progress lines with a length) waits for ever.
#
# Ends with 1 when the first part of known length comes within half a second, or the chunked one does not.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer), cmake and a C compiler" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "held"
version = "0.1.0"
edition = "2021"
[dependencies]
async-trait = "0.1"
pingora-core = { version = "=0.9.1", features = ["rustls"] }
pingora-proxy = { version = "=0.9.1", features = ["rustls"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Pass(SocketAddr);

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

const PART: usize = 700;

/// Answers in two parts, of known length or, for /chunked, in chunks.
fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let chunked = request[..read].starts_with(b"GET /chunked");
            let framing = if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", 2 * PART) };
            let part = "x".repeat(PART);
            let part = if chunked { format!("{PART:x}\r\n{part}\r\n") } else { part };
            let end = if chunked { "0\r\n\r\n" } else { "" };
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}").as_bytes());
            std::thread::sleep(Duration::from_secs(1));
            let _ = stream.write_all(format!("{part}{end}").as_bytes());
            let _ = stream.read(&mut request);
        });
    }
}

/// How long it takes until the first byte of the body is there.
fn wait_of(proxy: SocketAddr, path: &str) -> Duration {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let (began, mut answer, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
    while !answer.contains(&b'x') {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the proxy closed");
        answer.extend_from_slice(&buffer[..read]);
    }
    began.elapsed()
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(listener));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = free.local_addr().unwrap();
    drop(free);
    std::thread::spawn(move || {
        let mut server = Server::new(None).unwrap();
        server.bootstrap();
        let mut service = http_proxy_service(&server.configuration, Pass(backend));
        service.add_tcp(&proxy.to_string());
        server.add_service(service);
        server.run_forever();
    });
    let began = Instant::now();
    while TcpStream::connect(proxy).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the proxy does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (known, chunked) = (wait_of(proxy, "/known"), wait_of(proxy, "/chunked"));
    println!("first byte of the body: known length after {known:.2?}, chunked after {chunked:.2?}");
    let as_seen = known > Duration::from_millis(500) && chunked < Duration::from_millis(500);
    if !as_seen {
        eprintln!("this is not what was seen");
    }
    std::process::exit(i32::from(!as_seen));
}
RUST
cd "$work"
cargo run --quiet
