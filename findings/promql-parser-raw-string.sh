#!/usr/bin/env bash
# PyPI promql-parser 0.12.0 (over the crate of that name): are strings between backticks raw?
#
# Seen: half. PromQL processes no escapes between backticks, which is what regular expressions are written in them for. Where
# a backslash and its letter make an escape of a quoted string, as in `\n`, they are kept as they are, as they should be; where
# they make none, as in `\d` or `\.`, the whole query is refused for an "unknown escape sequence". Prometheus takes
# each of them. Who writes `\d` in double quotes is refused by both, and has to write `\\d` there.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs Python 3.10 or newer with venv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check promql-parser==0.12.0
"$work/venv/bin/python" - <<'PY'
import promql_parser

seen = {}
for query in ["up{job=~`a\\nb`}", "up{job=~`v\\d+`}", "up{job=~`a\\.b`}", 'up{job=~"a\\\\.b"}']:
    try:
        [matcher] = promql_parser.parse(query).matchers.matchers
        seen[query] = matcher.value
    except ValueError as error:
        seen[query] = f"refused: {error}"
    print(f"{query} -> {seen[query]}")
assert list(seen.values()) == [
    "a\\nb",
    "refused: unknown escape sequence 'd'",
    "refused: unknown escape sequence '.'",
    "a\\.b",
], "this is not what was seen"
PY
