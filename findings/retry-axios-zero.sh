#!/usr/bin/env bash
# npm's retry-axios 3.2.1 with axios 1.13.0: what does it make of `Retry-After: 0`?
#
# RFC 9110 section 10.2.3 takes any number of seconds that is not negative, and 0 says that a request may come again at once. A server
# answers 429 once and 200 from then on. Seen: with `Retry-After: 1` there is a second try after a second, and without the header after
# half a second; with `Retry-After: 0` there is none, and the caller gets the 429. ky 1.14.0 tries again at once.
#
# Takes 10 s, most of it for the installation. Ends with 1 when that changes.
set -euo pipefail
command -v npm >/dev/null || { echo "needs node and npm" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit --prefix . retry-axios@3.2.1 axios@1.13.0 ky@1.14.0 >/dev/null
cat >seen.mjs <<'JS'
import http from 'node:http';
import axios from 'axios';
import ky from 'ky';
import * as rax from 'retry-axios';

let tries = 0, headers = {};
const server = http.createServer((request, response) => {
  tries += 1;
  response.writeHead(tries === 1 ? 429 : 200, tries === 1 ? headers : {}).end();
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const url = `http://127.0.0.1:${server.address().port}/`;
const client = axios.create();
client.defaults.raxConfig = {instance: client, statusCodesToRetry: [[429, 429]], retry: 3};
rax.attach(client);

async function seen(name, call, sent) {
  [tries, headers] = [0, sent];
  const status = await call().then((answer) => answer.status, (error) => error.response.status);
  console.log(`${name}, ${JSON.stringify(sent)}: ${tries} tries, the caller gets ${status}`);
  return `${tries} ${status}`;
}
const got = [
  await seen('retry-axios', () => client.get(url), {}),
  await seen('retry-axios', () => client.get(url), {'retry-after': '1'}),
  await seen('retry-axios', () => client.get(url), {'retry-after': '0'}),
  await seen('ky', () => ky(url), {'retry-after': '0'}),
];
server.closeAllConnections();
server.close();
if (got.join() !== '2 200,2 200,1 429,2 200') throw new Error(`it has changed: ${got}`);
JS
node seen.mjs
