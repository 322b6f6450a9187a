#!/usr/bin/env bash
# npm express-rate-limit 8.7.5 with ratelimit-header-parser 0.1.0 and structured-headers 2.1.0: who reads its RateLimit of draft 8?
#
# Seen: nobody, where the policy's name, an option with any text as its value, has a quotation mark or a letter outside ASCII. It is
# put between quotation marks as it is, so that `RateLimit` and `RateLimit-Policy` are no structured fields, and a reader
# has to drop both whole (RFC 9651 section 4.2); a text in such a field has a backslash before a quotation mark, and other letters
# only as a display string. The parser of the same maintainers, whose readme names draft 7, takes the header of draft 8 for one of
# it: it answers NaN for limit, remaining and used, and an invalid date for reset, where it could say that it found nothing.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . express-rate-limit@8.7.5 express@5.3.0 ratelimit-header-parser@0.1.0 \
    structured-headers@2.1.0 >/dev/null
cat >check.mjs <<'JS'
import express from "express";
import { rateLimit } from "express-rate-limit";
import { parseRateLimit } from "ratelimit-header-parser";
import { parseList } from "structured-headers";

const limits = {
  "draft 7": { standardHeaders: "draft-7" },
  "draft 8": { standardHeaders: "draft-8" },
  "draft 8, quotation marks": { standardHeaders: "draft-8", identifier: 'per "user"' },
  "draft 8, umlaut": { standardHeaders: "draft-8", identifier: "Täglich" },
};
const app = express();
Object.values(limits).forEach((limit, index) => {
  app.get(`/${index}`, rateLimit({ windowMs: 60_000, limit: 5, legacyHeaders: false, ...limit }), (_, answer) => answer.send(""));
});
const server = app.listen(0, "127.0.0.1");
await new Promise((listening) => server.once("listening", listening));
const seen = [];
for (const [index, name] of Object.keys(limits).entries()) {
  const { headers } = await fetch(`http://127.0.0.1:${server.address().port}/${index}`);
  let field = "a structured field";
  try {
    parseList(headers.get("ratelimit-policy"));
  } catch {
    field = "no structured field";
  }
  seen.push(`${name}: ${field}, the parser reads a remaining of ${parseRateLimit(headers)?.remaining}`);
  console.log(`${seen.at(-1)}, of ${headers.get("ratelimit")}`);
}
server.close();
const before = [
  "draft 7: a structured field, the parser reads a remaining of 4",
  "draft 8: a structured field, the parser reads a remaining of NaN",
  "draft 8, quotation marks: no structured field, the parser reads a remaining of NaN",
  "draft 8, umlaut: no structured field, the parser reads a remaining of NaN",
];
if (seen.join() !== before.join()) {
  console.error("this is not what was seen");
  process.exit(1);
}
process.exit(0);
JS
node check.mjs
