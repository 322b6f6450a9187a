#!/usr/bin/env bash
# proxy-header 0.1.3, ProxyHeader::parse: does it read a LOCAL header of the PROXY protocol v2 whose family it need not know?
#
# Seen: only where the address block has the length that the family asks for. LOCAL over AF_INET without addresses, or
# with fewer bytes than two addresses and ports take, is refused (`BufferTooShort`); LOCAL over AF_UNSPEC is read. The
# specification (proxy-protocol.txt, section 2.2) has a receiver take LOCAL as its connection's own addresses and leave
# the family and the block aside, skipping as many bytes as the length says. Load balancers send LOCAL for their health
# checks, so those would be cut off.
#
# Ends with 1 when the one without addresses is read, or the one of AF_UNSPEC is not.
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
proxy-header = "=0.1.3"
TOML
cat >"$work/src/main.rs" <<'RUST'
use proxy_header::{ParseConfig, ProxyHeader};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A LOCAL header (version 2, command 0) of this family and protocol, with a block of so many zeros.
fn read(family: u8, length: u8) -> Result<usize, String> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20, family, 0, length]);
    bytes.extend(vec![0; length.into()]);
    let header = ProxyHeader::parse(&bytes, ParseConfig::default());
    header.map(|(_, read)| read).map_err(|error| format!("{error:?}"))
}

fn main() {
    let (unspecified, without, whole) = (read(0x00, 0), read(0x11, 0), read(0x11, 12));
    println!("AF_UNSPEC, no addresses: {unspecified:?}\nAF_INET, no addresses: {without:?}\nAF_INET, two addresses: {whole:?}");
    if unspecified.is_err() || whole.is_err() || without.is_ok() {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
cargo run --quiet
