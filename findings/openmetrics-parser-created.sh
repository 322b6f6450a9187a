#!/usr/bin/env bash
# crate openmetrics-parser 0.5.1 with Python prometheus_client 0.26.0: does one read the OpenMetrics of the other?
#
# Seen: no summary, and no histogram that names its unit. The Python client writes with each summary when it was created, and the crate
# asks that `_created` line for the label `quantile`; of histograms and summaries it says that they cannot have units. Either
# refuses the whole text, with every other metric in it. Counters and histograms with `_created`, and counters and gauges with a
# unit, are read. OpenMetrics 1.0 has `_created` for all three and a unit for all but info and state sets; the crate's readme says
# that it conforms to all of the format's test cases.
#
# Ends with 1 when others are read, or refused.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prometheus_client==0.26.0
mkdir src texts
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
openmetrics-parser = "=0.5.1"
TOML
cat >src/main.rs <<'RUST'
fn main() {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).unwrap();
        let read = match openmetrics_parser::openmetrics::parse_openmetrics(&text) {
            Ok(_) => "read".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        println!("{}: {read}", path.trim_start_matches("texts/"));
    }
}
RUST
venv/bin/python - <<'PY'
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.openmetrics.exposition import generate_latest


def write(name, kinds, **options):
    registry = CollectorRegistry()
    for kind in kinds:
        metric = kind(kind.__name__.lower(), "h", registry=registry, **options)
        metric.observe(1) if hasattr(metric, "observe") else metric.inc()
    with open(f"texts/{name}", "wb") as text:
        text.write(generate_latest(registry))


write("1 counter and histogram", [Counter, Histogram])
write("2 counter and gauge in seconds", [Counter, Gauge], unit="seconds")
write("3 counter and summary", [Counter, Summary])
write("4 counter and histogram in seconds", [Counter, Histogram], unit="seconds")
PY
cargo run --quiet texts/* | tee seen
cat >before <<'TEXT'
1 counter and histogram: read
2 counter and gauge in seconds: read
3 counter and summary: InvalidMetric("Missing mandatory label for metric: quantile")
4 counter and histogram in seconds: InvalidMetric("Some(Histogram) metrics can't have units")
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
