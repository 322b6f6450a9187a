#!/usr/bin/env bash
# httpx-sse 0.4.3: is a comment that keeps a stream alive an event?
#
# Seen: yes, from the first event with an `id` on. Each `: comment` with a blank line behind it then comes as an event of its own, with the
# last id and no data; before that id the same comment comes as nothing. The HTML standard (section 9.2.6) drops a block
# whose data is empty and keeps the id for what follows; its own advice is a comment each 15 s against proxies that close idle
# connections. Who reads the data as JSON fails at the first pause of the stream, and only with servers that send ids.
# Known upstream, and open.
#
# Ends with 1 when the events are others.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3
venv/bin/python - <<'PY'
import http.server, json, sys, threading

import httpx
from httpx_sse import connect_sse

STREAM = {
    "/plain": 'data: {"n": 1}\n\n: alive\n\n: alive\n\ndata: {"n": 2}\n\n',
    "/ids": 'id: 7\ndata: {"n": 1}\n\n: alive\n\n: alive\n\ndata: {"n": 2}\n\n',
}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(STREAM[self.path].encode())

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {}
with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
    for path in STREAM:
        with connect_sse(client, "GET", path) as source:
            seen[path] = [(event.id, event.data) for event in source.iter_sse()]
        print(path, seen[path])
one, two = json.dumps({"n": 1}), json.dumps({"n": 2})
if seen != {"/plain": [("", one), ("", two)], "/ids": [("7", one), ("7", ""), ("7", ""), ("7", two)]}:
    sys.exit("this is not what was seen")
PY
