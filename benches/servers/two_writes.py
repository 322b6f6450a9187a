#!/usr/bin/env python3
"""What a request costs whose backend writes header and body apart, with Nagle's algorithm on.

  cargo build --release --locked && benches/servers/two_writes.py [--binary target/release/tollgate] [--requests N]

The backend is Python's `http.server` with HTTP/1.1, which does so by itself. Each contender gets its requests over one
connection, one after the other, in alternating rounds; the figures are of all of them but each round's first ten. Installs nginx and HAProxy
where they are missing.
"""

import argparse
import http.server
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import proxies

ROUNDS = 5
WARM = 10


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


def ask(port, requests):
    """The seconds that each of so many requests takes."""
    times = []
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            start = time.perf_counter()
            sock.sendall(b"GET / HTTP/1.1\r\nHost: python\r\n\r\n")
            got = b""
            while not got.endswith(b"hello"):
                part = sock.recv(4096)
                if not part:
                    raise SystemExit(f"the answer ends with {got!r}")
                got += part
            times.append(time.perf_counter() - start)
    return times[WARM:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=f"{proxies.ROOT}/target/release/tollgate")
    parser.add_argument("--requests", type=int, default=110, help="for each contender and round")
    options = parser.parse_args()
    work = tempfile.mkdtemp(prefix="tollgate-two-writes-")
    subprocess.run(["sh", f"{proxies.HERE}/setup.sh"], check=True)
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    processes = proxies.Processes()
    try:
        ports, _ = proxies.start(processes, options.binary, work, {"python": backend.server_address[1]})
        ports["without a proxy"] = backend.server_address[1]
        times = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, port in ports.items():
                times[name] += ask(port, options.requests)
    finally:
        processes.stop()
    print(proxies.versions(options.binary), file=sys.stderr)
    print("| p50 and p99 in ms | " + " | ".join(times) + " |\n|---|" + "---:|" * len(times))
    for label, part in (("p50", 50), ("p99", 99)):
        of = [statistics.quantiles(all, n=100)[part - 1] * 1000 for all in times.values()]
        print(f"| {label} | " + " | ".join(f"{time:.2f}" for time in of) + " |")


if __name__ == "__main__":
    main()
