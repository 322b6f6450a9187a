#!/usr/bin/env bash
# Python logfmter 0.0.12 with npm logfmt 1.4.0 and @jclem/logfmt2 2.4.3: does a message of two lines come through logfmt?
#
# Seen: no. The writer puts `\n` and `\t` between quotation marks, as it has to where a line break would end the record, and as the
# libraries of Go do. Both readers take the backslash away and keep the letter, so that `one`, a line break and `two` become
# `onentwo`, and nothing tells it from a message that was so. They decode the two escapes that they write themselves, of a
# quotation mark and of a backslash, and neither readme names a narrower form of logfmt.
#
# Ends with 1 when a line break or a tab comes through.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.8 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . logfmt@1.4.0 @jclem/logfmt2@2.4.3 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check logfmter==0.0.12
cat >write.py <<'PY'
import logging

from logfmter import Logfmter

for text in ("one two", 'say "two"', "C:\\two dir", "one\ntwo", "one\ttwo"):
    print(Logfmter(keys=[]).format(logging.LogRecord("check", logging.INFO, "check", 1, {"msg": text, "n": 1}, None, None)))
PY
cat >read.cjs <<'JS'
const logfmt = require("logfmt");
const logfmt2 = require("@jclem/logfmt2");

for (const line of require("node:fs").readFileSync(0, "utf8").trim().split("\n")) {
  console.log(`${line} -> logfmt: ${JSON.stringify(logfmt.parse(line).msg)}, logfmt2: ${JSON.stringify(logfmt2.decode(line).msg)}`);
}
JS
venv/bin/python write.py | node read.cjs | tee seen
cat >before <<'TEXT'
msg="one two" n=1 -> logfmt: "one two", logfmt2: "one two"
msg="say \"two\"" n=1 -> logfmt: "say \"two\"", logfmt2: "say \"two\""
msg="C:\\two dir" n=1 -> logfmt: "C:\\two dir", logfmt2: "C:\\two dir"
msg="one\ntwo" n=1 -> logfmt: "onentwo", logfmt2: "onentwo"
msg="one\ttwo" n=1 -> logfmt: "onettwo", logfmt2: "onettwo"
TEXT
diff before seen || { echo "this is not what was seen" >&2; exit 1; }
