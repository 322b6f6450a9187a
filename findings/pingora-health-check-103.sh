#!/usr/bin/env bash
# pingora-load-balancing 0.9.1, HttpHealthCheck: what does it say of a server that sends 103 (Early Hints) before its 200?
#
# Seen: that it is ill. The check reads one header section, takes the interim 103 for the answer, and fails with
# a "non 200 code" of 103 (its default wants 200), though the 200 follows at once. A server that answers 200 alone is healthy.
# RFC 9110 section 15.2 has a client parse interim answers and go on to the final one. Whoever checks servers that send
# 103 needs a check of their own.
#
# Ends with 1 when the first server is found healthy, or the second is not.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer), cmake and a C compiler" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
pingora-load-balancing = { version = "=0.9.1", features = ["rustls"] }
tokio = { version = "1", features = ["io-util", "macros", "net", "rt"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn verdict(answer: String) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut request).await;
    });
    let check = HttpHealthCheck::new("example", false);
    let said = check.check(&Backend::new(&address).unwrap()).await.map_err(|error| format!("{:?}", error.etype()));
    server.abort();
    said
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plain = verdict(FINAL.to_owned()).await;
    let hinted = verdict(format!("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n{FINAL}")).await;
    println!("200 alone: {plain:?}\n103, then 200: {hinted:?}");
    if plain.is_err() || !hinted.is_err_and(|why| why.contains("103")) {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
cargo run --quiet
