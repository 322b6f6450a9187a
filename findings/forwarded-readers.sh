#!/usr/bin/env bash
# crate forwarded-header-value 0.1.1 and npm forwarded-parse 2.2.0: do they read the Forwarded headers of RFC 7239?
#
# Seen: each refuses the whole header, with all its addresses, for one valid part, and reads what the other refuses. The crate cuts at
# commas and semicolons between quotation marks too, and takes no port behind `unknown`, no obfuscated port behind an address
# (RFC 7239 section 6 has both), and no backslash between quotation marks. The npm package refuses an empty element of the list and a
# semicolon with no pair behind it: the grammar of section 4 has the second, and RFC 9110 section 5.6.1.2 has readers take the
# first, which comes about where one of several header lines is empty.
#
# Ends with 1 when more, or less, is read.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . forwarded-parse@2.2.0 >/dev/null
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
forwarded-header-value = "=0.1.1"
TOML
cat >src/main.rs <<'RUST'
fn main() {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match forwarded_header_value::ForwardedHeaderValue::from_forwarded(&line) {
            Ok(value) => println!("crate: {line} -> {} read", value.len()),
            Err(_) => println!("crate: {line} -> refused"),
        }
    }
}
RUST
cat >check.cjs <<'JS'
const parse = require("forwarded-parse");

for (const line of require("node:fs").readFileSync(0, "utf8").trim().split("\n")) {
  try {
    console.log(`npm: ${line} -> ${parse(line).length} read`);
  } catch {
    console.log(`npm: ${line} -> refused`);
  }
}
JS
cat >headers <<'TEXT'
for=192.0.2.43, for="[2001:db8::17]:4711";proto=https
for=192.0.2.43, for=_hidden;note="a, b"
for=192.0.2.43, for=_hidden;note="a; b"
for=192.0.2.43, for="192.0.2.60:_port"
for=192.0.2.43, for="unknown:4711"
for=192.0.2.43, for="192.0.2\.60"
for=192.0.2.43, , for=192.0.2.60
for=192.0.2.43;, for=192.0.2.60
TEXT
{ cargo run --quiet <headers; node check.cjs <headers; } | tee seen
{
    sed 's/^/crate: /; 1s/$/ -> 2 read/; 2,6s/$/ -> refused/; 7,8s/$/ -> 2 read/' headers
    sed 's/^/npm: /; 1,6s/$/ -> 2 read/; 7,8s/$/ -> refused/' headers
} >before
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
