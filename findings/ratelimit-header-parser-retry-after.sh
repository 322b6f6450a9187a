#!/usr/bin/env bash
# npm ratelimit-header-parser 0.1.0: when may one ask again whose answer has `Retry-After: 120` and no reset of its own?
#
# Seen: in 1970. Without a reset header the parser falls back on Retry-After, and takes its number for seconds since the
# epoch: 120 becomes two minutes past midnight on the 1st of January 1970, long past, so that a client which waits until `reset` does
# not wait at all. Retry-After has no such form: RFC 9110 section 10.2.3 has it a delay in seconds or a date. The date comes
# out as an invalid one, since its first letters are read for a number. The same 120 in a reset header is read as a
# delay. Nothing in the readme or the options speaks of Retry-After, nor changes how it is read.
#
# Ends with 1 when Retry-After is read otherwise, or the reset header is.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . ratelimit-header-parser@0.1.0 >/dev/null
cat >check.mjs <<'JS'
import { parseRateLimit } from "ratelimit-header-parser";

const counts = { "x-ratelimit-limit": "100", "x-ratelimit-remaining": "0" };
const reset = (header, value) => parseRateLimit({ ...counts, [header]: value }).reset;
const delay = reset("retry-after", "120");
const date = reset("retry-after", new Date(Date.now() + 120_000).toUTCString());
const own = reset("x-ratelimit-reset", "120");
console.log("Retry-After, delay:", delay, "| Retry-After, date:", date, "| reset header, delay:", own);
if (delay.getTime() !== 120_000 || !Number.isNaN(date.getTime()) || Math.abs(own - Date.now() - 120_000) > 10_000) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
