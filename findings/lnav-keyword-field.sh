#!/usr/bin/env bash
# lnav 0.11.1, of Debian 12: may a field of a log in JSON have any name?
#
# Seen: not in SQL. A format that names a field like a word of SQL's, such as `limit`, `order`, `group` or `index`, passes
# lnav's check of formats and shows its lines, but has no table: every query over it ends with "no such table", and nothing says
# why. With the name `state` in its place all is well. The name cannot be put in quotes by who writes the format.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v apt-get >/dev/null || { echo "needs Debian 12, to download its package" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq lnav=0.11.1-3 2>/dev/null
dpkg -x lnav_*.deb .
export HOME=$work TERM=dumb
tables=
for field in state limit order group index; do
    mkdir -p "$field/formats/test"
    cat >"$field/formats/test/test.json" <<JSON
{"test_log": {"title": "A test", "description": "A log in JSON", "json": true, "timestamp-field": "ts", "body-field": "path",
 "value": {"path": {"kind": "string"}, "$field": {"kind": "string"}}, "line-format": [{"field": "ts"}, " ", {"field": "path"}]}}
JSON
    for second in 0 1; do
        echo "{\"ts\":\"2026-11-28T10:00:0$second.000Z\",\"path\":\"/a\",\"$field\":\"x\"}"
    done >"$field/test.log"
    checked=right
    ./usr/bin/lnav -I "$field" -C >checked 2>&1 || checked=wrong
    said=$(./usr/bin/lnav -I "$field" -n -c ';SELECT count(*) AS lines FROM test_log' "$field/test.log" 2>&1 || true)
    case $said in
    *"no such table"*) table=none ;;
    *2*) table=there ;;
    *) table="?" ;;
    esac
    echo "a field called $field: the format is $checked, its table is $table"
    tables="$tables $field=$checked/$table"
done
expected=" state=right/there limit=right/none order=right/none group=right/none index=right/none"
[ "$tables" = "$expected" ] || { echo "this is not what was seen" >&2; exit 1; }
