#!/usr/bin/env bash
# Python sseclient-py 1.9.0, beside httpx-sse 0.4.3: what becomes of the first and of the last event of a stream?
#
# Seen: where the connection ends within an event, the part that came is handed over as if it were all of it: half a document of JSON,
# or an event without the lines that were to follow. HTML has readers throw away what no empty line ended (section 9.2.6), since
# this is what a stream looks like whose server or proxy went away. And where a stream begins with a byte order mark, which HTML has
# readers skip, the first field is not known by its name, and the first event is lost with it. The other library waits for the empty
# line; it too does not know the mark. Both get the same bytes from one server here.
#
# Ends with 1 when the part is kept back, or the mark is skipped.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sseclient-py==1.9.0 requests==2.34.2 httpx-sse==0.4.3 httpx==0.28.1
cat >check.py <<'PY'
import http.server
import sys
import threading

import httpx
import httpx_sse
import requests
import sseclient

STREAMS = {
    "/whole": b'data: {"price": 1}\n\ndata: {"price": 15}\n\n',
    "/cut": b'data: {"price": 1}\n\ndata: {"price": 1',
    "/mark": b'\xef\xbb\xbfdata: {"price": 1}\n\ndata: {"price": 15}\n\n',
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.wfile.write(STREAMS[self.path])

    def log_message(self, *_):
        pass


def first(url):
    with requests.get(url, stream=True, timeout=10) as answer:
        return [event.data for event in sseclient.SSEClient(answer).events()]


def second(url):
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as source:
        return [event.data for event in source.iter_sse()]


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {}
for path in STREAMS:
    for name, read in (("sseclient-py", first), ("httpx-sse", second)):
        seen[name, path] = read(f"http://127.0.0.1:{server.server_port}{path}")
        print(f"{name}, {path[1:]}: {seen[name, path]}")
server.shutdown()
whole = ['{"price": 1}', '{"price": 15}']
before = {
    ("sseclient-py", "/whole"): whole,
    ("httpx-sse", "/whole"): whole,
    ("sseclient-py", "/cut"): ['{"price": 1}', '{"price": 1'],
    ("httpx-sse", "/cut"): whole[:1],
    ("sseclient-py", "/mark"): whole[1:],
    ("httpx-sse", "/mark"): whole[1:],
}
sys.exit("this is not what was seen" if seen != before else 0)
PY
venv/bin/python check.py
