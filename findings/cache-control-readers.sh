#!/usr/bin/env bash
# npm http-cache-semantics 4.3.0, parse-cache-control 1.0.1 and cache-control-parser 2.2.0, beside @tusbar/cache-control 3.0.1: for
# how long may an answer be kept?
#
# Seen: each but the last has one valid way of writing 60 seconds that it does not read. To http-cache-semantics (below the caches of
# `got` and npm) and parse-cache-control the names of directives have small letters, so that `Max-Age=60` is none; parse-cache-control
# gives up the whole header at an empty element; and cache-control-parser passes over a number in quotation marks. RFC 9111
# section 5.2 has names compare without case and readers take both forms of a value, and RFC 9110 section 5.6.1.2 has
# them skip empty elements. Nothing is raised or said: the answer is just not kept.
#
# Ends with 1 when more, or less, is read.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . http-cache-semantics@4.3.0 parse-cache-control@1.0.1 cache-control-parser@2.2.0 \
    @tusbar/cache-control@3.0.1 >/dev/null
cat >check.cjs <<'JS'
const tusbar = require("@tusbar/cache-control");
const CachePolicy = require("http-cache-semantics");
const parser = require("cache-control-parser");
const parse = require("parse-cache-control");

const request = { url: "/", method: "GET", headers: {} };
const readers = {
  "http-cache-semantics": (header) => new CachePolicy(request, { status: 200, headers: { "cache-control": header } }).maxAge(),
  "parse-cache-control": (header) => parse(header)?.["max-age"],
  "cache-control-parser": (header) => parser.parse(header)["max-age"],
  "@tusbar/cache-control": (header) => tusbar.parse(header).maxAge,
};
const before = {
  "public, max-age=60": ["60", "60", "60", "60"],
  "Public, Max-Age=60": ["0", "undefined", "60", "60"],
  "public,, max-age=60": ["60", "undefined", "60", "60"],
  'public, max-age="60"': ["60", "60", "undefined", "60"],
};
let differs = false;
for (const [header, seconds] of Object.entries(before)) {
  const seen = Object.values(readers).map((read) => String(read(header)));
  console.log(`${header}: ${Object.keys(readers).map((name, index) => `${name} ${seen[index]}`).join(", ")}`);
  differs ||= seen.join() !== seconds.join();
}
if (differs) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.cjs
