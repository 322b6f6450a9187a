#!/usr/bin/env bash
# crate opentelemetry-proto 0.33.1 (`with-serde`) with Python opentelemetry-proto 1.45.2: does one read the OTLP JSON of the other?
#
# Seen: not an attribute that is an empty list, an empty map, or a number that is none. Protobuf's JSON leaves an empty list out, so the
# first is `{"arrayValue":{}}`; the crate wants the field `values` in it and refuses the whole request, with all its spans. NaN
# is the text `"NaN"` in that mapping, and refused too; the crate itself writes it as `null`, and reads that back as an
# attribute without a value. OTLP's JSON is that mapping, but for ids in hex and enums as numbers. 0.33 reads other omitted lists
# (an empty `resourceSpans`, say) since it was reported; this one is known to receivers that use the crate, and is still so.
#
# Ends with 1 when others are read, or refused.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentelemetry-proto==1.45.2
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
opentelemetry-proto = { version = "=0.33.1", default-features = false, features = ["gen-tonic-messages", "trace", "with-serde"] }
serde_json = "1"
TOML
cat >src/main.rs <<'RUST'
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

/// Of each request, a line each: the value of its first attribute, or why it is not read; then what becomes of a NaN.
fn main() {
    for line in std::io::stdin().lines() {
        let read = |text: &str| serde_json::from_str::<ExportTraceServiceRequest>(text);
        match read(&line.unwrap()) {
            Err(error) => println!("refused: {}", error.to_string().split(" at line").next().unwrap()),
            Ok(request) => {
                let attributes = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
                println!("read: {:?}", attributes[0].value.as_ref().and_then(|value| value.value.as_ref()));
            }
        }
    }
    use opentelemetry_proto::tonic::common::v1::{any_value::Value, AnyValue};
    let text = serde_json::to_string(&AnyValue { value: Some(Value::DoubleValue(f64::NAN)) }).unwrap();
    let again: AnyValue = serde_json::from_str(&text).unwrap();
    println!("its own NaN: {text}, read: {:?}", again.value);
}
RUST
venv/bin/python - >requests <<'PY'
import math

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

full = ArrayValue(values=[AnyValue(int_value=1)])
for value in (
    AnyValue(array_value=full),
    AnyValue(double_value=0.5),
    AnyValue(array_value=ArrayValue()),
    AnyValue(kvlist_value=KeyValueList()),
    AnyValue(double_value=math.nan),
):
    resource = Resource(attributes=[KeyValue(key="a", value=value)])
    print(MessageToJson(ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource)]), indent=None))
PY
cargo run --quiet <requests >seen
paste -d '\n' requests <(head -n -1 seen)
tail -n 1 seen
cat >before <<'TEXT'
read: Some(ArrayValue(ArrayValue { values: [AnyValue { value: Some(IntValue(1)) }] }))
read: Some(DoubleValue(0.5))
refused: missing field `values`
refused: missing field `values`
refused: invalid type: string "NaN", expected f64
its own NaN: {"doubleValue":null}, read: None
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
