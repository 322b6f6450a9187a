#!/usr/bin/env bash
# npm limiter 4.1.0: does getTokensRemaining of a RateLimiter tell what may still be taken?
#
# The readme names it as the way to ask for the tokens that are left without taking any. Ten of ten a second are taken, and half a
# second later it is asked, and then one is tried. Seen: 5 remain, and not one is given. A RateLimiter is a token bucket with a count for
# each interval beside it, and both must allow a take; the getter looks at the bucket alone. So whoever tells callers what it says
# (in RateLimit headers, say) sends them to be refused, for up to an interval. What `removeTokens` answers as
# remaining is the bucket alone, too.
#
# Takes a few seconds. Ends with 1 when the two agree.
set -euo pipefail
command -v npm >/dev/null || { echo "needs node and npm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit --prefix . limiter@4.1.0 >/dev/null
cat >seen.mjs <<'JS'
import {setTimeout as sleep} from 'node:timers/promises';
import {RateLimiter} from 'limiter';

const limiter = new RateLimiter({tokensPerInterval: 10, interval: 1000});
// So that the interval begins now.
let taken = 0;
while (limiter.tryRemoveTokens(1)) taken++;
await sleep(500);
const remaining = limiter.getTokensRemaining();
const given = limiter.tryRemoveTokens(1);
await sleep(600);
const later = limiter.tryRemoveTokens(1);
console.log(`${taken} taken; 500 ms later ${remaining.toFixed(1)} remain, and one is ${given ? '' : 'not '}given; 600 ms after that it is ${later ? '' : 'not '}given`);
if (taken !== 10 || remaining < 4 || given || !later) {
  console.log('it has changed: what remains can be taken');
  process.exit(1);
}
JS
node seen.mjs
