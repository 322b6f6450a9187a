#!/usr/bin/env bash
# rustls-webpki 0.103.17: a server shows a self-signed certificate with `CA:TRUE`, as `openssl req -x509` makes them, and the
# client has that very certificate as its trust anchor. Is it verified?
#
# Seen: no, `CaUsedAsEndEntity`. The same key and names without basic constraints are verified, and `openssl verify` takes both.
# RFC 5280 section 6.1 leaves what a trust anchor may be to the verifier; whoever moves a client that pins such a server from
# OpenSSL to rustls has to verify by another way, or to make the certificate anew.
#
# Ends with 1 when the first is verified, or the second is not.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
command -v openssl >/dev/null || { echo "needs openssl" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
rustls-pki-types = "1"
rustls-webpki = { version = "=0.103.17", features = ["ring", "std"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Whether the certificate in this file is verified with itself as the anchor, as rustls asks.
fn verified(file: &str) -> Result<(), String> {
    let cert = CertificateDer::from(std::fs::read(file).unwrap());
    let anchor = anchor_from_trusted_cert(&cert).unwrap();
    let now = UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let end = EndEntityCert::try_from(&cert).map_err(|error| format!("{error:?}"))?;
    let anchors = [anchor];
    let path = end.verify_for_usage(algorithms, &anchors, &[], now, KeyUsage::server_auth(), None, None);
    path.map(drop).map_err(|error| format!("{error:?}"))
}

fn main() {
    let (ca, plain) = (verified("ca.der"), verified("plain.der"));
    println!("rustls-webpki 0.103.17, its own trust anchor\nwith CA:TRUE: {ca:?}\nwithout: {plain:?}");
    if !ca.is_err_and(|why| why.contains("CaUsedAsEndEntity")) || plain.is_err() {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
make_pair() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out "$1.pem" -days 2 \
        -subj /CN=a.example -config <(printf '[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nsubjectAltName=DNS:a.example\n%s\n' "$2") 2>/dev/null
    openssl x509 -in "$1.pem" -outform DER -out "$1.der"
    openssl verify -CAfile "$1.pem" -purpose sslserver "$1.pem"
}
make_pair ca "basicConstraints=critical,CA:TRUE"
make_pair plain ""
cargo run --quiet
