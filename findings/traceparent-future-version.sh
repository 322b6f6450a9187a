#!/usr/bin/env bash
# npm traceparent 1.0.0: what does it send on when a traceparent of a later version comes?
#
# Seen: W3C's Trace Context has whoever knows version 00 read the four fields that it knows of a later one, whatever comes behind
# them, and send its own header as version 00. This package begins a new trace where a later version has more fields, so that the
# trace breaks in two there; where it has not, it goes on with the trace and sends the version that came, 01 say, which it does
# not know. `tctx` goes on with the trace and sends 00 in both cases.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . traceparent@1.0.0 tctx@0.2.6 >/dev/null
cat >check.mjs <<'JS'
import { parse } from "tctx/traceparent";
import TraceParent from "traceparent";

const fields = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const seen = [];
for (const header of [`00-${fields}`, `01-${fields}`, `cc-${fields}-what-comes-later`]) {
  const child = TraceParent.startOrResume(header, { transactionSampleRate: 1 }).toString();
  const other = String(parse(header).child());
  console.log(`${header}\n  traceparent: ${child}\n  tctx:        ${other}`);
  seen.push([child.slice(0, 2), child.slice(3, 35) === fields.slice(0, 32), child.split("-").length, other.slice(0, 2)]);
}
const expected = [["00", true, 4, "00"], ["01", true, 4, "00"], ["00", false, 4, "00"]];
if (JSON.stringify(seen) !== JSON.stringify(expected)) {
  console.error(`this is not what was seen: ${JSON.stringify(seen)}`);
  process.exit(1);
}
JS
node check.mjs
