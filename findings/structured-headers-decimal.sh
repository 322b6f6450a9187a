#!/usr/bin/env bash
# npm structured-headers 2.1.0: is what it writes for a decimal a structured field?
#
# Seen: not for one that rounds to a whole number. 1.0004 is written `1.` and 0.0001 `0.`, with nothing behind the point; RFC
# 9651 section 4.1.5 has `1.0` and `0.0`, and section 4.2.4 has a field fail to parse whose decimal ends on a point. The library's own
# parser refuses what the library wrote, and as a field is refused whole, so are all its other members. Its readme names
# two ways in which its numbers differ from the RFC (1.0 written as the integer 1, the rounding of ties); this is neither.
# Whoever puts a computed share or a wait in seconds into a field meets it now and then only.
#
# Ends with 1 when these are written otherwise, or are read.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . structured-headers@2.1.0 >/dev/null
cat >check.mjs <<'JS'
import { parseDictionary, serializeDictionary } from "structured-headers";

const read = (field) => {
  try {
    return parseDictionary(field).size + " members";
  } catch (error) {
    return error.message;
  }
};
const written = [1.25, 1.0004, 0.0001].map((load) => serializeDictionary({ node: "a", load }));
for (const field of written) console.log(`${field} => ${read(field)}`);
const right = written.map((field) => field.replace(/\.$/, ".0"));
for (const field of right) console.log(`${field} => ${read(field)}`);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
if (!same(written, ['node="a", load=1.25', 'node="a", load=1.', 'node="a", load=0.'])
  || !same(written.map((field) => read(field) === "2 members"), [true, false, false])
  || !right.every((field) => read(field) === "2 members")) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.mjs
