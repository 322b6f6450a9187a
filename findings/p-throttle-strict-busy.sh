#!/usr/bin/env bash
# npm p-throttle 8.1.1 with `strict`, 10 calls in 500 ms: how many calls start within 450 ms, if the process is busy for a while?
#
# Seen: 17. The readme has strict mode ensure that the limit is not exceeded for any interval. But it plans each call from when the
# calls before it were due, not from when they started: 40 calls are queued, the process computes for 400 ms just as
# the second ten are due, these start late, and the next ones on time, right behind them. Without the pause it is 10. p-ratelimit
# 1.0.1 keeps to 10 either way. Any long computation is such a pause, and a server that really allows 10 refuses some after it.
#
# Ends with 1 when strict keeps to its limit under the pause, or does not without it.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . p-throttle@8.1.1 p-ratelimit@1.0.1 >/dev/null
cat >check.mjs <<'JS'
import pThrottle from "p-throttle";
import { pRateLimit } from "p-ratelimit";

const LIMIT = 10;
const limiters = {
  "p-throttle, strict": () => pThrottle({ limit: LIMIT, interval: 500, strict: true })((call) => call()),
  "p-ratelimit": () => pRateLimit({ rate: LIMIT, interval: 500 }),
};

/** The most of 40 calls, queued at once, that start within 450 ms of each other, with a pause of so many ms. */
async function most(limited, pause) {
  const started = [];
  const calls = Array.from({ length: 40 }, () => limited(async () => started.push(performance.now())));
  await new Promise((wait) => setTimeout(wait, 450));
  const end = performance.now() + pause;
  while (performance.now() < end);
  await Promise.all(calls);
  return Math.max(...started.map((from) => started.filter((at) => at >= from && at - from < 450).length));
}

const seen = {};
for (const [name, make] of Object.entries(limiters)) {
  seen[name] = [await most(make(), 0), await most(make(), 400)];
  console.log(`${name}: ${seen[name][0]} calls within 450 ms, ${seen[name][1]} with the pause`);
}
const [strict, other] = Object.values(seen);
if (strict[0] > LIMIT || strict[1] < LIMIT + 3 || other[0] > LIMIT || other[1] > LIMIT) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
