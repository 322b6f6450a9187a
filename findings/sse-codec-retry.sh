#!/usr/bin/env bash
# crate sse-codec 0.3.3: does it read the `retry` that it writes?
#
# Seen: no. It writes `retry: 3000`, with a space behind the colon, and its own decoder drops that line without a
# word; `retry:3000` it reads. Of the fields `data`, `event` and `id` it takes the space away, as the HTML standard (section
# 9.2.6) has it for every field. The `match` on it in the documentation's example never comes to its turn, and a client
# connects again at its own pace, whatever the server says.
#
# Ends with 1 when it is read, or written otherwise.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
futures = "0.3"
sse-codec = "=0.3.3"
TOML
cat >src/main.rs <<'RUST'
use futures::{executor::block_on, io::Cursor, SinkExt, StreamExt};
use sse_codec::{decode_stream, encode_stream, Event};

fn read(stream: &[u8]) -> Vec<Event> {
    let events = decode_stream(Cursor::new(stream.to_vec())).map(|event| event.unwrap());
    let events = block_on(events.collect());
    println!("{:?} => {events:?}", String::from_utf8_lossy(stream));
    events
}

fn main() {
    let sent = [Event::retry(3000), Event::message("message", "a", "7")];
    let mut written = Cursor::new(Vec::new());
    for event in &sent {
        block_on(encode_stream(&mut written).send(event.clone())).unwrap();
    }
    let written = written.into_inner();
    let own = read(&written);
    let without_space = read(&String::from_utf8(written.clone()).unwrap().replace("retry: ", "retry:").into_bytes());
    if written != b"retry: 3000\n\nid: 7\ndata: a\n\n" || own != sent[1..] || without_space != sent {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cargo run --quiet
