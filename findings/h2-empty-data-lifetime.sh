#!/usr/bin/env bash
# h2 0.4.20, client: how many answers with an empty DATA frame in them does one connection bear?
#
# Seen: 100 in all. Each answer here is a header section, one empty DATA frame, and one of a byte that ends it, as a
# server writes that flushes before it has anything to say. Request after request, each read to its end, is answered; at the
# 101st such frame the client gives up the whole connection with ENHANCE_YOUR_CALM. The count is for the life of the connection, and
# nothing that comes between takes anything off it: without the empty frames as many requests as are tried are answered.
# RFC 9113 section 6.1 allows DATA without octets; section 10.5 has receivers look for many of them that do no work.
# Whoever keeps connections to such a server for long sees one break now and then, and has to send again.
#
# Ends with 1 when that is no longer so.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
bytes = "1"
h2 = "=0.4.20"
http = "1"
tokio = { version = "1", features = ["io-util", "macros", "rt"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use bytes::Bytes;
use http::{Request, Response};

const TRIED: usize = 300;

/// Answers each request, with an empty DATA frame or without, until the connection ends.
async fn serve(io: tokio::io::DuplexStream, empty: bool) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
        if empty && body.send_data(Bytes::new(), false).is_err() {
            return;
        }
        if body.send_data(Bytes::from_static(b"x"), true).is_err() {
            return;
        }
    }
}

/// How many requests in turn are answered over one connection, and why no more.
async fn answered(empty: bool) -> (usize, String) {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(serve(far, empty));
    let (sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    for number in 0..TRIED {
        let request = Request::get("http://example/").body(()).unwrap();
        let outcome: Result<(), h2::Error> = async {
            let mut ready = sender.clone().ready().await?;
            let (answer, _) = ready.send_request(request, true)?;
            let mut body = answer.await?.into_body();
            while let Some(piece) = body.data().await {
                let _ = body.flow_control().release_capacity(piece?.len());
            }
            Ok(())
        }
        .await;
        if let Err(error) = outcome {
            return (number, format!("{:?}, by this side: {}", error.reason(), error.is_library()));
        }
    }
    (TRIED, "all were".to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (with, without) = (answered(true).await, answered(false).await);
    println!("h2 0.4.20, answers over one connection\nwith an empty DATA frame each: {with:?}\nwithout: {without:?}");
    if with.0 != 100 || !with.1.contains("ENHANCE_YOUR_CALM") || without.0 != TRIED {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
cargo run --quiet
