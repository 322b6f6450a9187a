#!/usr/bin/env bash
# Python pyrate-limiter 4.5.1: the rate of its TokenBucket where units are small, say bytes.
#
# A rate of so many a second is asked for 4 s of the bucket's time, in pieces of a hundredth of it, as fast as they are given; what comes
# beyond the burst is what it earns. Seen: of 1,000 a second all of it; of 700,000 a second 500,000, and of 10,000,000 a second 1,000,000.
# The time that a unit takes is kept in whole microseconds, rounded up, and is never less than one. The source says that the rounding is
# on the strict side; that nothing is above a million a second, and that 700,000 lose 29 %, is said nowhere. The default, a log of all
# takes, gives the right rate.
#
# Takes some 10 s. Ends with 1 when the bucket earns its rate.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyrate-limiter==4.5.1
venv/bin/python - <<'PY'
from pyrate_limiter import Rate, RateItem, StateBucket, TokenBucket

SECONDS = 4
earns = {}
for limit in (1_000, 700_000, 10_000_000):
    bucket, given, piece = StateBucket([Rate(limit, 1_000)], TokenBucket()), 0, limit // 100
    for now in range(1_000_000, 1_000_000 + SECONDS * 1_000 + 1):
        while bucket.put(RateItem("one", now, weight=piece)):
            given += piece
    earns[limit] = (given - limit) / SECONDS
    print(f"{limit} a second: earns {earns[limit]:.0f} a second")
if [round(of / limit, 1) for limit, of in earns.items()] != [1.0, 0.7, 0.1]:
    raise SystemExit("it has changed: a bucket earns its rate, or something else")
PY
