#!/usr/bin/env bash
# npm leaky-bucket 4.1.4: how many items wait in a bucket whose capacity is used elsewhere too?
#
# Seen: more with each `pay`. The cost that `pay` takes out of the bucket is taken off the sum of what waits as well, though it never
# waited, and is never put back: each `pay(10)` of a bucket of 10 makes room for 10 more waiting items for good. With a timeout
# of a second, within which the bucket is to have items done or refuse them, 10 of 60 are taken at first, none of which waits; after three
# payments, each long made up for by the bucket's filling, 40 are taken, the last of which is done after 3 s. The readme has `pay` reduce
# the current capacity, and nothing else.
#
# Takes 8 s. Ends with 1 when payments do not add up.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . leaky-bucket@4.1.4 >/dev/null
cat >check.mjs <<'JS'
import LeakyBucket from "leaky-bucket";

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Of 60 items of cost 1 at once, after so many payments: how many are taken, and how many seconds the last one waits. */
async function items(payments) {
  const bucket = new LeakyBucket({ capacity: 10, interval: 1, timeout: 1 });
  for (let payment = 0; payment < payments; payment += 1) {
    bucket.pay(10);
    await sleep(1200);
  }
  const start = performance.now();
  let taken = 0;
  let last = 0;
  const item = async () => {
    await bucket.throttle(1);
    taken += 1;
    last = Math.round((performance.now() - start) / 1000);
  };
  await Promise.allSettled(Array.from({ length: 60 }, item));
  return { payments, taken, last };
}

const seen = await Promise.all([0, 1, 3].map(items));
for (const { payments, taken, last } of seen) console.log(`after ${payments} payments: ${taken} of 60 taken, the last waits ${last} s`);
const before = [{ payments: 0, taken: 10, last: 0 }, { payments: 1, taken: 20, last: 1 }, { payments: 3, taken: 40, last: 3 }];
if (JSON.stringify(seen) !== JSON.stringify(before)) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
