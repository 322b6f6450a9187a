#!/usr/bin/env bash
# npm parse-sse 0.1.0: does an event depend on where the network cut it?
#
# Seen: yes, when lines end with CRLF. Where a part of the body ends between the CR and the LF, the LF at the head of the next one
# is taken for an empty line, which ends the event: a cut behind the `event` line loses the event's name, one between two `data`
# lines makes two events of the one. The HTML standard (section 9.2.5) has CR LF end one line, wherever it was cut. Of the 33
# places to cut the stream below in two these two differ; in one part, or with LF alone, all is well. Where a body is
# cut is up to the network, so the same stream is read right this time and wrong the next.
#
# Ends with 1 when other cuts, or none, make a difference.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . parse-sse@0.1.0 >/dev/null
cat >check.mjs <<'JS'
import { parseServerSentEvents } from "parse-sse";

/** The events of a body that comes in these parts, as text. */
async function events(...parts) {
  const body = new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
      controller.close();
    },
  });
  const found = [];
  const answer = new Response(body, { headers: { "content-type": "text/event-stream" } });
  for await (const { type, data } of parseServerSentEvents(answer)) found.push({ type, data });
  return JSON.stringify(found);
}

const differ = {};
for (const [name, end] of Object.entries({ LF: "\n", CRLF: "\r\n" })) {
  const stream = ["event: sum", "data: 12", "data: 34", "", ""].join(end);
  const whole = await events(stream);
  console.log(`${name}, whole: ${whole}`);
  differ[name] = [];
  for (let cut = 1; cut < stream.length; cut += 1) {
    const seen = await events(stream.slice(0, cut), stream.slice(cut));
    if (seen === whole) continue;
    differ[name].push(cut);
    console.log(`${name}, after ${JSON.stringify(stream.slice(0, cut))}: ${seen}`);
  }
  console.log(`${name}: ${differ[name].length} of ${stream.length - 1} cuts differ`);
}
if (JSON.stringify(differ) !== JSON.stringify({ LF: [], CRLF: [11, 21] })) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
