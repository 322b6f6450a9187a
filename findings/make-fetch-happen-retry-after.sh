#!/usr/bin/env bash
# npm's make-fetch-happen 15.0.3, by which npm itself asks registries: does it wait as long as a 429 says?
#
# Seen: it tries again after a 429, up to `retries` times, but after its own back-off alone. `Retry-After: 2` and none at all are the
# same to it: with a `minTimeout` of 100 ms the three further tries come within a second, all of them too early, and the caller gets
# the 429. undici 7.16.0's RetryAgent, with the same settings, waits the two seconds. The readme lists 429 among what is tried again.
#
# Takes 12 s, most of it for the installation. Ends with 1 when the one waits or the other does not.
set -euo pipefail
command -v npm >/dev/null || { echo "needs node and npm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit --prefix . make-fetch-happen@15.0.3 undici@7.16.0 >/dev/null
cat >seen.mjs <<'JS'
import http from 'node:http';
import fetch from 'make-fetch-happen';
import {Agent, RetryAgent, request} from 'undici';

let began = 0, tries = [];
const server = http.createServer((request, response) => {
  const now = Date.now();
  began ||= now;
  tries.push(now - began);
  // As a limiter does: nobody is let in before the two seconds are over.
  const early = now - began < 1990;
  response.writeHead(early ? 429 : 200, early ? {'Retry-After': '2'} : {}).end();
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const url = `http://127.0.0.1:${server.address().port}/`;
const agent = new RetryAgent(new Agent(), {statusCodes: [429], maxRetries: 3, minTimeout: 100});

async function seen(name, call) {
  [began, tries] = [0, []];
  const status = await call();
  console.log(`${name}: tries after ${tries.join(', ')} ms, the caller gets ${status}`);
  return `${tries.length} ${status}`;
}
const got = [
  await seen('make-fetch-happen', async () => (await fetch(url, {retry: {retries: 3, minTimeout: 100, randomize: false}})).status),
  await seen('undici', async () => (await request(url, {dispatcher: agent})).statusCode),
];
server.closeAllConnections();
server.close();
if (got.join() !== '4 429,2 200') throw new Error(`it has changed: ${got}`);
JS
node seen.mjs
