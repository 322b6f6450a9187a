#!/usr/bin/env bash
# gunicorn 23.0.0, worker class gthread, with `--keep-alive 2`: when does it close a connection that is idle?
#
# Seen: not after 2 s, and not after any other fixed time. The worker looks for idle connections about once a second, so
# connections that became idle at different moments are closed at ages between 2.0 and about 3 s, those of one second
# together. It says nothing of it: its answers have no `Keep-Alive` line. Whoever keeps connections to it and wants to be
# sure to close first has to stay below the configured time, not near it, and cannot learn the time from one closing.
#
# Ends with 1 when the answers announce a time, when one is closed before 1.9 s, or when all are closed within 0.3 s of each
# other, as an exact timer would.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill "${pid:-0}" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==23.0.0
cat >"$work/app.py" <<'PY'
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$work"
"$work/venv/bin/gunicorn" --worker-class gthread --threads 4 --keep-alive 2 --bind "127.0.0.1:$port" app:app >log 2>&1 &
pid=$!
python3 - "$port" <<'PY'
import select, socket, sys, time

port = int(sys.argv[1])
end = time.monotonic() + 20
while True:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        if time.monotonic() > end:
            sys.exit("gunicorn does not listen")

idle, ages, announced = {}, [], False
for number in range(10):
    began = time.monotonic()
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = b""
    while not answer.endswith(b"ok"):
        answer += s.recv(4096)
    announced |= b"keep-alive:" in answer.lower()
    idle[s] = time.monotonic()
    # The next one becomes idle at another part of a second.
    select.select([], [], [], max(0, 0.11 - (time.monotonic() - began)))
while idle and time.monotonic() < end:
    for s in select.select(list(idle), [], [], 1)[0]:
        assert s.recv(1) == b""
        ages.append(time.monotonic() - idle.pop(s))
print("ages in s:", " ".join(f"{age:.2f}" for age in sorted(ages)), "| Keep-Alive line:", announced)
if len(ages) != 10 or announced or min(ages) < 1.9 or max(ages) - min(ages) < 0.3:
    sys.exit("this is not what was seen")
PY
