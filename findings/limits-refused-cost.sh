#!/usr/bin/env bash
# Python limits 5.6.0, in memory: does a request that is refused use anything up?
#
# Ten in two seconds, of which 4 are used; then a request that costs 8 is refused, and one that costs 6 is tried, which is what is
# left. Seen: by the fixed window the 6 are refused, too, and the statistics say that nothing remains; a first request that costs more
# than the whole limit, which can never be let in, shuts its caller out until the window ends. By the moving window and by the sliding
# window counter the 6 are let in. `hit` says of all of them alike that it tells whether the cost could be deducted.
#
# Takes 5 s, most of it for the installation. Ends with 1 when one of the three does otherwise.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check limits==5.6.0
venv/bin/python - <<'PY'
import time

from limits import parse, storage, strategies

WANTED = {
    "FixedWindowRateLimiter": (False, False, False),
    "MovingWindowRateLimiter": (False, True, True),
    "SlidingWindowCounterRateLimiter": (False, True, True),
}
limit = parse("10 per 2 seconds")
for name, wanted in WANTED.items():
    # At the start of a window of the clock, so that all of it is within one.
    time.sleep(2 - time.time() % 2 + 0.01)
    limiter = getattr(strategies, name)(storage.MemoryStorage())
    assert limiter.hit(limit, "a", cost=4)
    refused = limiter.hit(limit, "a", cost=8)
    rest = limiter.hit(limit, "a", cost=6)
    assert not limiter.hit(limit, "b", cost=11)
    seen = (refused, rest, limiter.hit(limit, "b"))
    print(f"{name}: 8 of 6 {refused}, then 6 of 6 {rest}; after 11 of 10, 1 of 10 {seen[2]}")
    if seen != wanted:
        raise SystemExit(f"it has changed: {name} was {wanted}")
PY
