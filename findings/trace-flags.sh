#!/usr/bin/env bash
# npm @opentelemetry/core 2.12.1 and tctx 0.2.6: what becomes of flags in a traceparent that are not known yet?
#
# Seen: W3C's Trace Context has eight bits of flags, written as two hexadecimal digits, of which it gives a meaning to two; whoever
# does not know a bit sends it on as 0. The propagator of OpenTelemetry keeps all of them and writes `0` before what it thinks is
# one digit: from 0x10 on the header that it sends has three digits behind its last dash, and is no traceparent, so that the trace
# ends there. `tctx` takes the digits for decimal ones and refuses a header with a letter among them: 156 of the 256 values.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . @opentelemetry/core@2.12.1 @opentelemetry/api@1.9.1 tctx@0.2.6 >/dev/null
cat >check.mjs <<'JS'
import { ROOT_CONTEXT, defaultTextMapGetter, defaultTextMapSetter } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { parse } from "tctx/traceparent";

const propagator = new W3CTraceContextPropagator();
const sent = {};
let refused = 0;
for (let flags = 0; flags < 256; flags += 1) {
  const digits = flags.toString(16).padStart(2, "0");
  const traceparent = `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-${digits}`;
  const carrier = {};
  propagator.inject(propagator.extract(ROOT_CONTEXT, { traceparent }, defaultTextMapGetter), carrier, defaultTextMapSetter);
  sent[digits] = carrier.traceparent.split("-")[3];
  refused += parse(traceparent) === null;
}
const three = Object.values(sent).filter((digits) => digits.length === 3).length;
for (const digits of ["01", "0f", "10", "81", "ff"]) console.log(`OpenTelemetry: flags ${digits} are sent on as ${sent[digits]}`);
console.log(`OpenTelemetry: three digits for ${three} of 256; tctx refuses ${refused}`);
if (three !== 240 || sent["10"] !== "010" || sent["0f"] !== "0f" || refused !== 156) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
