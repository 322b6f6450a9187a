#!/usr/bin/env bash
# ppp 2.3.0, HeaderResult::parse: what does it make of a whole "PROXY UNKNOWN" line with words behind it?
#
# Seen: with up to four words it is read; with more it is "incomplete", as if the line went on, though its CRLF is there and it is
# shorter than the 107 bytes that a line may have. The specification (proxy-protocol.txt, section 2.1) has a receiver ignore
# anything between UNKNOWN and the CRLF. Whoever waits for more of an incomplete header waits for bytes that never come.
#
# Ends with 1 when the long line is read, or the short one is not.
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
ppp = "=2.3.0"
TOML
cat >"$work/src/main.rs" <<'RUST'
use ppp::{HeaderResult, PartialResult};

fn main() {
    let mut read = Vec::new();
    for count in 0..10 {
        let line = format!("PROXY UNKNOWN{}\r\n", " x".repeat(count));
        let result = HeaderResult::parse(line.as_bytes());
        println!("{count} words behind it: complete {}, {result:?}", result.is_complete());
        read.push(format!("{result:?}").contains("Ok("));
    }
    if read != [true, true, true, true, true, false, false, false, false, false] {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
cargo run --quiet
