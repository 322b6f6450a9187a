#!/usr/bin/env bash
# npm launchdarkly-eventsource 2.2.0, eventsource-client 1.2.0, undici 7.30.2 and eventsource 5.1.5: from where does a client of an
# event stream go on that was given an id without data?
#
# Seen: the first two from the id before. A server says `id: 2` in a block of its own when all up to there is seen and none of it
# was for this client; the next connection then asks for what came after 1, and gets it again. `id` alone, which takes the id back,
# these two do not hear either, nor does undici: all three go on to name an id that the server has withdrawn. Only
# eventsource does both. The HTML standard (section 9.2.6) sets the id at the end of each block, and only then looks whether it
# has data.
#
# Ends with 1 when one of them names another id.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . launchdarkly-eventsource@2.2.0 eventsource-client@1.2.0 undici@7.30.2 eventsource@5.1.5 >/dev/null
cat >check.mjs <<'JS'
import http from "node:http";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import launchdarkly from "launchdarkly-eventsource";
import { EventSource as Undici } from "undici";

/** A client whose messages do not matter here. */
const listening = (source) => {
  source.onmessage = source.onerror = () => {};
  return source;
};
const clients = {
  "launchdarkly-eventsource": (url) => listening(new launchdarkly.EventSource(url, { initialRetryDelayMillis: 50 })),
  "eventsource-client": (url) => createEventSource(url),
  undici: (url) => listening(new Undici(url)),
  eventsource: (url) => listening(new EventSource(url)),
};

/** The ids that a client names as it comes again, after `id: 2` alone, and after `id` alone. */
async function named(client) {
  const ids = [];
  const answers = ["retry: 50\nid: 1\ndata: a\n\nid: 2\n\n", "data: b\n\nid\n\n"];
  let done;
  const came = new Promise((resolve) => (done = resolve));
  const server = http.createServer((request, answer) => {
    ids.push(request.headers["last-event-id"] ?? null);
    answer.writeHead(200, { "content-type": "text/event-stream" });
    if (ids.length <= answers.length) answer.end(answers[ids.length - 1]);
    else done();
  });
  await new Promise((listen) => server.listen(0, "127.0.0.1", listen));
  const source = client(`http://127.0.0.1:${server.address().port}/`);
  await Promise.race([came, new Promise((resolve) => setTimeout(resolve, 20_000).unref())]);
  source.close();
  server.closeAllConnections();
  server.close();
  return ids.slice(1);
}

const before = {
  "launchdarkly-eventsource": ["1", "1"],
  "eventsource-client": ["1", "1"],
  undici: ["2", "2"],
  eventsource: ["2", null],
};
let differs = false;
for (const [name, client] of Object.entries(clients)) {
  const ids = await named(client);
  console.log(`${name}: after id: 2 alone ${JSON.stringify(ids[0])}, after id alone ${JSON.stringify(ids[1])}`);
  differs ||= JSON.stringify(ids) !== JSON.stringify(before[name]);
}
if (differs) console.error("this is not what was seen");
process.exit(differs ? 1 : 0);
JS
node --no-warnings check.mjs
