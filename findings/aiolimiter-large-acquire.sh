#!/usr/bin/env bash
# Python aiolimiter 1.2.1: who waits for much is passed by everybody who wants less, however late they come.
#
# A limiter of 5 a second is used up. One task then waits for 5, and every 100 ms another one comes and waits for 1, twenty of them.
# Seen: all twenty are served before the one that came first, which waits for 5 s where a bucket that serves in turn lets
# it go after 1. Those who wait are kept in a heap by their amounts, and by their order only among equals, so a steady trickle of
# small ones keeps a large one waiting for good. The readme does not say in which order waiting tasks are served.
#
# Takes 6 s. Ends with 1 when the first one is served before the last of the others.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check aiolimiter==1.2.1
venv/bin/python - <<'PY'
import asyncio, time

from aiolimiter import AsyncLimiter

SMALL, EVERY = 20, 0.1


async def main():
    limiter, served = AsyncLimiter(5, 1), []
    await limiter.acquire(5)
    begun = time.monotonic()

    async def wait(name, amount):
        await limiter.acquire(amount)
        served.append((name, time.monotonic() - begun))

    tasks = [asyncio.create_task(wait("five", 5))]
    for number in range(SMALL):
        await asyncio.sleep(EVERY)
        tasks.append(asyncio.create_task(wait(f"one {number}", 1)))
    await asyncio.gather(*tasks)
    return served


served = asyncio.run(main())
for name, after in served:
    print(f"{name}: after {after:.1f} s")
names = [name for name, _ in served]
if names[-1] != "five" or served[-1][1] < 4:
    raise SystemExit("it has changed: who came first is served before others that want less")
PY
