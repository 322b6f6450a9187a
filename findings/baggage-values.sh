#!/usr/bin/env bash
# crate opentelemetry_sdk 0.33.1 and Python opentelemetry-api 1.45.2: which baggage does a service hand on?
#
# Seen: Rust cuts a value at the first `=` in it, so that base64 loses its padding, and takes the escapes out of a property, whose
# blanks then stand in the header as they are. Python makes the properties behind a `;` a part of the value, and sends that on
# escaped, so that the next service can no longer tell the two apart: for it, the value is `gold;since=2020`. W3C's Baggage has
# `=` among the characters of a value and no blanks in properties, and bids services to keep the value as it came.
#
# Ends with 1 when one of them hands on something else.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentelemetry-api==1.45.2
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
opentelemetry = { version = "=0.33.1", default-features = false, features = ["trace"] }
opentelemetry_sdk = { version = "=0.33.1", default-features = false, features = ["trace"] }
TOML
cat >src/main.rs <<'RUST'
use opentelemetry::propagation::TextMapPropagator;
use std::collections::HashMap;

fn main() {
    let propagator = opentelemetry_sdk::propagation::BaggagePropagator::new();
    for line in std::io::stdin().lines() {
        let carrier = HashMap::from([("baggage".to_string(), line.unwrap())]);
        let mut sent = HashMap::<String, String>::new();
        propagator.inject_context(&propagator.extract(&carrier), &mut sent);
        println!("Rust: {} -> {}", carrier["baggage"], sent.get("baggage").map_or("nothing", |text| text));
    }
}
RUST
cat >check.py <<'PY'
import sys

from opentelemetry.baggage.propagation import W3CBaggagePropagator

propagator = W3CBaggagePropagator()
for baggage in sys.stdin.read().split():
    sent = {}
    propagator.inject(sent, propagator.extract({"baggage": baggage}))
    print(f"Python: {baggage} -> {sent.get('baggage', 'nothing')}")
PY
cat >members <<'TEXT'
plain=1
token=YQ==
plan=gold;since=2020
plan=gold;by=a%20b
TEXT
{ venv/bin/python check.py <members; cargo run --quiet <members; } | tee seen
cat >before <<'TEXT'
Python: plain=1 -> plain=1
Python: token=YQ== -> token=YQ%3D%3D
Python: plan=gold;since=2020 -> plan=gold%3Bsince%3D2020
Python: plan=gold;by=a%20b -> plan=gold%3Bby%3Da+b
Rust: plain=1 -> plain=1
Rust: token=YQ== -> token=YQ
Rust: plan=gold;since=2020 -> plan=gold;since=2020
Rust: plan=gold;by=a%20b -> plan=gold;by=a b
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
