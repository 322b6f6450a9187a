#!/usr/bin/env bash
# npm fast-ratelimit 3.0.1: does asking whether a token is left cost anything?
#
# Seen: it costs the window. `hasToken` of a name that has none yet sets the timer which ends its window, but begins no window; the next
# `consume` begins one and sets another. The first timer then ends that window early, be it a tenth of a second old: with 2 a second, 4
# get through within a fifth of a second, and each further question before the first `consume` leaves one more such timer. Without
# the question 2 get through. The readme has `hasToken` for asking without consuming.
#
# Ends with 1 when a question costs nothing.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . fast-ratelimit@3.0.1 >/dev/null
cat >check.mjs <<'JS'
import fast from "fast-ratelimit";

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** How many of eight calls get through: four at 900 ms of a second, four at 1,100 ms. */
async function through(ask) {
  const limit = new fast.FastRateLimit({ threshold: 2, ttl: 1 });
  const start = performance.now();
  if (ask) limit.hasTokenSync("client");
  let calls = 0;
  for (const at of [900, 1100]) {
    await sleep(start + at - performance.now());
    for (let call = 0; call < 4; call += 1) calls += limit.consumeSync("client");
  }
  return calls;
}

const seen = { asked: await through(true), unasked: await through(false) };
console.log(seen);
if (JSON.stringify(seen) !== JSON.stringify({ asked: 4, unasked: 2 })) {
  console.error("this is not what was seen");
  process.exit(1);
}
process.exit(0);
JS
node check.mjs
