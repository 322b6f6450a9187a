#!/usr/bin/env bash
# crate prometheus-parse 0.2.5: what is left of a page of metrics whose label values have more than letters in them?
#
# Seen: a sample is gone, without an error, where a label's value has a closing brace (a route such as `/users/{id}`), where its
# braces are empty, or where the name has a colon, as that of a recording rule in an answer of /federate. A value is cut at its
# first comma, backslashes stay before the quotes and backslashes that they escape, and a space behind a comma becomes a part
# of the next label's name. The text format allows all of them: any UTF-8 in a value, blanks between tokens, colons in names.
#
# Ends with 1 when more, or less, is read.
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
prometheus-parse = "=0.2.5"
TOML
cat >src/main.rs <<'RUST'
/// Of each line of a page by itself: the line, and what is read of it.
fn main() {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let scrape = prometheus_parse::Scrape::parse(std::iter::once(Ok(line.clone()))).unwrap();
        let read: Vec<String> = scrape.samples.iter().map(|sample| {
            let mut labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("[{name}]=[{value}]")).collect();
            labels.sort();
            format!("{} {}", sample.metric, labels.join(" "))
        }).collect();
        println!("{line} -> {}", if read.is_empty() { "nothing".to_string() } else { read.join("; ") });
    }
}
RUST
cat >page <<'TEXT'
requests{route="/users"} 1
requests{route="/users/{id}"} 1
requests{} 1
job:requests:rate5m 1
requests{query="a,b",code="200"} 1
requests{agent="a \"b\""} 1
requests{path="C:\\d"} 1
requests{route="/", code="200"} 1
TEXT
cargo run --quiet <page | tee seen
cat >before <<'TEXT'
requests{route="/users"} 1 -> requests [route]=[/users]
requests{route="/users/{id}"} 1 -> nothing
requests{} 1 -> nothing
job:requests:rate5m 1 -> nothing
requests{query="a,b",code="200"} 1 -> requests [code]=[200] [query]=[a]
requests{agent="a \"b\""} 1 -> requests [agent]=[a \"b\]
requests{path="C:\\d"} 1 -> requests [path]=[C:\\d]
requests{route="/", code="200"} 1 -> requests [ code]=[200] [route]=[/]
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
