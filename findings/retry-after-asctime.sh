#!/usr/bin/env bash
# npm got 14.6.6, undici 7.30.2 (RetryAgent), axios-retry 4.5.0, ky 1.14.3 and 2.1.0: when does each come again after a
# Retry-After that is a date?
#
# Seen: all but ky 2.1.0 take the date for one of the machine's own time zone if it has the form of asctime (`Sun Nov  6
# 08:49:37 1994`). RFC 9110 section 5.6.7 has a recipient take all three forms of a date, each of them in UTC. In Tokyo a date 3 s
# ahead is thus nine hours past: got, axios-retry and ky 1 come again at once, undici after its own half second; west of Greenwich the
# same date would be hours ahead. ky 2 reads it right, and all five do so with the other two forms, which name their zone. Under TZ=UTC
# nothing of it is to be seen, and test machines mostly run under that.
#
# Ends with 1 when one comes earlier or later than that.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . got@14.6.6 undici@7.30.2 axios@1.13.2 axios-retry@4.5.0 ky1@npm:ky@1.14.3 ky2@npm:ky@2.1.0 >/dev/null
cat >check.mjs <<'JS'
import http from "node:http";
import got from "got";
import { fetch, Agent, RetryAgent } from "undici";
import axios from "axios";
import axiosRetry from "axios-retry";
import ky1 from "ky1";
import ky2 from "ky2";

const WEEK = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const forms = {
  imf: (date) => date.toUTCString(),
  rfc850: (date) => {
    const [, day, month, year, time] = date.toUTCString().split(" ");
    return `${WEEK[date.getUTCDay()]}, ${day}-${month}-${year.slice(2)} ${time} GMT`;
  },
  asctime: (date) => {
    const [week, day, month, year, time] = date.toUTCString().split(" ");
    return `${week.slice(0, 3)} ${month} ${String(Number(day)).padStart(2)} ${time} ${year}`;
  },
};
const patient = axios.create();
axiosRetry(patient, { retries: 1, retryCondition: () => true });
const dispatcher = new RetryAgent(new Agent(), { maxRetries: 1, statusCodes: [429] });
const clients = {
  got: (url) => got(url, { retry: { limit: 1 } }).text(),
  undici: async (url) => (await fetch(url, { dispatcher })).text(),
  "axios-retry": (url) => patient.get(url),
  "ky 1": (url) => ky1(url, { retry: { limit: 1 } }).text(),
  "ky 2": (url) => ky2(url, { retry: { limit: 1 } }).text(),
};

/** How many seconds after the refusal, whose date is 2 to 3 s ahead, the second request comes. */
async function waits(client, form) {
  const came = [];
  const server = http.createServer((_, answer) => {
    came.push(Date.now());
    if (came.length > 1) return answer.end("ok");
    answer.writeHead(429, { "Retry-After": form(new Date(Date.now() + 3000)) }).end();
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  await client(`http://127.0.0.1:${server.address().port}/`);
  server.close();
  return (came[1] - came[0]) / 1000;
}

let differs = false;
for (const [name, client] of Object.entries(clients)) {
  const seen = await Promise.all(Object.values(forms).map((form) => waits(client, form)));
  console.log(process.env.TZ, name, Object.keys(forms).map((form, at) => `${form}: ${seen[at].toFixed(1)} s`).join(", "));
  const right = seen.map((wait) => wait > 1.9);
  differs ||= String(right) !== String([true, true, name === "ky 2" || process.env.TZ === "UTC"]);
}
if (differs) console.error("this is not what was seen");
process.exit(differs ? 1 : 0);
JS
TZ=UTC node check.mjs
TZ=Asia/Tokyo node check.mjs
