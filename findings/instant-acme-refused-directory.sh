#!/usr/bin/env bash
# crate instant-acme 0.8.5: what is told when an authority refuses with a problem document (RFC 7807), as RFC 8555 section 6.7 has it?
#
# Seen: where it answers a POST, the library hands on what the authority says, its kind and its words. The same answer, 503 with
# `rateLimited`, to the request for the directory is told as JSON with a field missing, and to the request for a nonce as an error
# of that resource: neither the status nor a word of the authority's is in the error. An answer with status 404 that holds a
# directory all the same is taken for one.
#
# Ends with 1 when this is no longer so.
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
bytes = "=1.10.1"
http = "=1.3.1"
http-body-util = "=0.1.3"
instant-acme = { version = "=0.8.5", default-features = false, features = ["ring"] }
tokio = { version = "1", features = ["rt"] }
TOML
cat >src/main.rs <<'RUST'
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use instant_acme::{Account, BodyWrapper, BytesResponse, Error, HttpClient, NewAccount};

const DIRECTORY: &str = r#"{"newNonce":"https://ca.example/nonce","newAccount":"https://ca.example/account","newOrder":"https://ca.example/order"}"#;
const REFUSAL: &str = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"Closed for an hour","status":503}"#;

/// An authority that refuses what is asked at one path.
struct Authority {
    refuses: &'static str,
    status: u16,
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let path = request.uri().path();
        let (status, body) = match path {
            _ if path == self.refuses => (503, REFUSAL),
            "/directory" => (self.status, DIRECTORY),
            _ => (200, ""),
        };
        let answer = Response::builder().status(status).header("Replay-Nonce", "bm9uY2U");
        let answer = answer.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        Box::pin(async move { Ok(BytesResponse::from(answer)) })
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (refuses, status) in [("/account", 200), ("/directory", 200), ("/nonce", 200), ("/account", 404)] {
        let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(Authority { refuses, status }));
        let asked = builder.create(&new, "https://ca.example/directory".to_string(), None);
        let said = runtime.block_on(asked).err().map(|error| error.to_string());
        println!("directory {status}, {refuses} refused: {}", said.unwrap_or("nothing".to_string()));
    }
}
RUST
cargo run --quiet | tee seen
cat >before <<'TEXT'
directory 200, /account refused: API error: Closed for an hour (urn:ietf:params:acme:error:rateLimited)
directory 200, /directory refused: failed to (de)serialize JSON: missing field `newNonce` at line 1 column 92
directory 200, /nonce refused: missing data: error response from newNonce resource
directory 404, /account refused: API error: Closed for an hour (urn:ietf:params:acme:error:rateLimited)
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
