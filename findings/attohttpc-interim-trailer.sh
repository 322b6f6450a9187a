#!/usr/bin/env bash
# crates attohttpc 0.31.0 and minreq 3.0.0, beside ureq 3.5.2: what do small clients make of an interim answer, and of a trailer?
#
# Seen: attohttpc and minreq take the first head that comes for the answer. Behind a server that sends 103 (or 102, or 100 unasked) the
# status is 103, and the answer proper, its status line and all, is the body. RFC 9110 section 15.2 has a client read any number of
# such answers before the final one, asked for or not. And attohttpc, whose readme has chunked bodies among its features, fails
# to read one that ends with a trailer, though the whole body has come; minreq puts the trailer among the headers, and ureq passes
# over it.
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
attohttpc = { version = "=0.31.0", default-features = false }
minreq = { version = "=3.0.0", default-features = false }
ureq = { version = "=3.5.2", default-features = false }
TOML
cat >src/main.rs <<'RUST'
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const PLAIN: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
const TRAILER: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nServer-Timing: all;dur=1\r\n\r\n";

/// Answers each request by its path, and closes.
fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let lines: Vec<String> = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let answer = match lines[0].split(' ').nth(1).unwrap() {
            "/plain" => PLAIN.to_string(),
            "/interim" => format!("{INTERIM}{PLAIN}"),
            _ => TRAILER.to_string(),
        };
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

fn body(read: Result<String, impl std::fmt::Display>) -> String {
    read.map_or_else(|_| "fails".to_string(), |text| format!("{text:?}"))
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(|| serve(listener));
    for path in ["plain", "interim", "trailer"] {
        let url = format!("http://{address}/{path}");
        let answer = attohttpc::get(&url).send().unwrap();
        println!("{path}: attohttpc {} {}", answer.status().as_u16(), body(answer.text()));
        let answer = minreq::get(&url).send().unwrap();
        println!("{path}: minreq {} {}", answer.status_code, body(answer.as_str().map(str::to_string)));
        let mut answer = ureq::get(&url).call().unwrap();
        println!("{path}: ureq {} {}", answer.status().as_u16(), body(answer.body_mut().read_to_string()));
    }
}
RUST
cargo run --quiet | tee seen
cat >before <<'TEXT'
plain: attohttpc 200 "body"
plain: minreq 200 "body"
plain: ureq 200 "body"
interim: attohttpc 103 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
interim: minreq 103 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
interim: ureq 200 "body"
trailer: attohttpc 200 fails
trailer: minreq 200 "body"
trailer: ureq 200 "body"
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
