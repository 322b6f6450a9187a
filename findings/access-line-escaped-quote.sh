#!/usr/bin/env bash
# PyPI apache-log-parser 1.7.0, clfparser 0.3 and parser201 1.6.0, npm clf-parser 0.0.2: which user agent has a line in which it
# holds a quotation mark?
#
# Seen: what stands before the mark, with the backslash that escapes it. Apache's httpd writes a quotation mark within a quoted
# value as \" (nginx as \x22). All four end the value there, without an error, and reports by agent are wrong. PyPI's
# apachelogs 0.6.1 gives the whole value, and so does npm's alpine 0.2.1, with its escapes.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v npm >/dev/null && command -v python3 >/dev/null || { echo "needs npm, and Python 3.8 or newer with venv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check apache-log-parser==1.7.0 clfparser==0.3 parser201==1.6.0 apachelogs==0.6.1
npm install --silent --no-audit --no-fund --prefix . clf-parser@0.0.2 alpine@0.2.1 >/dev/null
cat >line <<'LINE'
203.0.113.7 - - [28/Nov/2026:10:00:01 +0000] "GET /a HTTP/1.1" 200 5 "-" "a \"b\" c"
LINE
cat >check.py <<'PY'
import apache_log_parser
import apachelogs
import clfparser
import parser201

line = open("line", encoding="ascii").read().strip()
form = '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"'
print("apachelogs:", apachelogs.LogParser(apachelogs.COMBINED).parse(line).headers_in["User-Agent"])
print("apache-log-parser:", apache_log_parser.make_parser(form)(line)["request_header_user_agent"])
print("clfparser:", clfparser.CLFParser.logDict(line)["Useragent"])
print("parser201:", parser201.LogParser(line).useragent)
PY
cat >check.mjs <<'JS'
import { readFileSync } from "node:fs";
import Alpine from "alpine";
import clf from "clf-parser";

const line = readFileSync("line", "ascii").trim();
console.log("alpine:", new Alpine().parseLine(line)["RequestHeader User-agent"]);
console.log("clf-parser:", clf(line).http_user_agent);
JS
{ venv/bin/python -W ignore check.py; node check.mjs; } | tee seen
cat >expected <<'EXPECTED'
apachelogs: a "b" c
apache-log-parser: a \
clfparser: "a \"
parser201: a \
alpine: a \"b\" c
clf-parser: a \
EXPECTED
cmp -s seen expected || { echo "this is not what was seen" >&2; exit 1; }
