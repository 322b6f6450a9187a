#!/usr/bin/env python3
"""How many POSTs are lost to connections that their backend closes because they are idle.

  cargo build --release --locked && benches/servers/idle_close.py [--binary target/release/tollgate] [--delay MS]

Node, uvicorn, gunicorn (gthread), lighttpd and Apache as they come, each behind nginx, HAProxy and tollgate, which keep
connections for a minute. First each server is asked without a proxy when it closes an idle connection. Then the proxies get
a minute of requests that leave connections idle for about as long. Then 300 POSTs: fifty connections at a time are made idle at
one moment by fifty requests at once, and get a POST each at ages that sweep from half a second before the closing to half a
second after it. A POST takes longer than a sweep, so that none comes over a connection that another one has just used.

Between proxies and servers bytes, and ends of connections, take a while in both directions, as between two machines:
`--delay`, in milliseconds. Installs what is missing, into `$TMPDIR` or /tmp. Takes three minutes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import proxies

LEARNING = 60
BATCHES = 6
AT_ONCE = 50
PRIME = 0.5
POST = 1.2

NODE = f"""
require('http').createServer((request, response) => {{
  request.resume();
  const wait = request.url === '/prime.sh' ? {PRIME * 1000} : request.url === '/post.sh' ? {POST * 1000} : 0;
  setTimeout(() => response.end('ok'), wait);
}}).listen(process.argv[2], '127.0.0.1');
"""
ASGI = f"""
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep({{"/prime.sh": {PRIME}, "/post.sh": {POST}}}.get(scope["path"], 0))
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"ok"}})
"""
WSGI = f"""
import time
def app(environ, start_response):
    environ["wsgi.input"].read()
    time.sleep({{"/prime.sh": {PRIME}, "/post.sh": {POST}}}.get(environ["PATH_INFO"], 0))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
CGI = "#!/bin/sh\ncat >/dev/null\nsleep {}\nprintf 'Content-Length: 2\\r\\n\\r\\nok'\n"
LIGHTTPD = """
server.modules = ("mod_cgi")
server.document-root = "{directory}/www"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{directory}/lighttpd.log"
cgi.assign = (".sh" => "/bin/sh")
"""
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {directory}/apache.pid
ErrorLog {directory}/apache.log
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so
ScriptSock {directory}/www/cgisock
TypesConfig /etc/mime.types
DocumentRoot {directory}/www
<Directory {directory}/www>
  Require all granted
  Options ExecCGI
  AddHandler cgi-script .sh
</Directory>
"""


def start_servers(processes, directory, tools):
    """Starts the servers; their ports."""
    ports = {name: proxies.free_port() for name in ("node", "uvicorn", "gunicorn", "lighttpd", "apache")}
    www = f"{directory}/www"
    os.makedirs(www)
    for name, seconds in (("prime", PRIME), ("post", POST)):
        os.chmod(proxies.write(f"{www}/{name}.sh", CGI.format(seconds)), 0o755)
    proxies.write(f"{www}/index.html", "ok")
    # Apache's workers are another user.
    os.chmod(directory, 0o755)
    os.chmod(www, 0o777)
    proxies.write(f"{directory}/asgi.py", ASGI)
    proxies.write(f"{directory}/wsgi.py", WSGI)
    bind = f"127.0.0.1:{ports['gunicorn']}"
    commands = {
        "node": ["node", proxies.write(f"{directory}/node.js", NODE), str(ports["node"])],
        "uvicorn": [f"{tools}/venv/bin/uvicorn", "asgi:app", "--port", str(ports["uvicorn"]), "--log-level", "critical"],
        "gunicorn": [f"{tools}/venv/bin/gunicorn", "-k", "gthread", "--threads", "256", "-b", bind, "wsgi:app"],
        "lighttpd": ["lighttpd", "-D", "-f", ""],
        "apache": ["apache2", "-X", "-f", ""],
    }
    commands["apache"][1] = "-DFOREGROUND"
    for name, text in (("lighttpd", LIGHTTPD), ("apache", APACHE)):
        filled = text.format(directory=directory, port=ports[name])
        commands[name][-1] = proxies.write(f"{directory}/{name}.conf", filled)
    path = f"{os.environ['PATH']}:/usr/sbin"
    for name, command in commands.items():
        environment = {**os.environ, "PATH": path}
        processes.start(command, ports[name], f"{directory}/{name}.out", cwd=directory, env=environment)
    return ports


async def relay(port, delay):
    """Listens in front of `port` and passes everything on late; the port."""
    tasks = set()

    async def one_way(reader, writer):
        late = asyncio.Queue()

        async def deliver():
            while True:
                when, part = await late.get()
                await asyncio.sleep(max(0, when - time.monotonic()))
                if not part:
                    return writer.close()
                writer.write(part)

        delivery = asyncio.ensure_future(deliver())
        tasks.add(delivery)
        while True:
            try:
                part = await reader.read(65536)
            except OSError:
                part = b""
            await late.put((time.monotonic() + delay, part))
            if not part:
                await delivery
                return tasks.discard(delivery)

    async def connected(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return writer.close()
        with contextlib.suppress(asyncio.CancelledError):  # the end of it all
            await asyncio.gather(one_way(reader, far_writer), one_way(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]


class Client:
    """One connection, opened again when it was closed."""

    def __init__(self, port, host):
        self.port, self.host, self.streams = port, host, None

    async def ask(self, method, path):
        """The status, or 0 when there is no answer."""
        try:
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            length = "Content-Length: 1\r\n\r\nx" if method == "POST" else "\r\n"
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{length}".encode())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
            if "transfer-encoding: chunked" in head:
                while (size := int((await reader.readline()).split(b";")[0], 16)) > 0:
                    await reader.readexactly(size + 2)
                await reader.readline()
            else:
                length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
                await reader.readexactly(int(length.split(":")[1]))
            if "connection: close" in head:
                self.close()
            return int(head.split()[1])
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, StopIteration):
            self.close()
            return 0

    async def closed(self):
        """Waits until the other side closes."""
        await self.streams[0].read()
        self.close()

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


async def closes_after(port):
    """The least, the median and the most age at which a server closes an idle connection."""

    async def once(n):
        await asyncio.sleep(n * 0.13)
        client = Client(port, "direct")
        assert await client.ask("GET", "/prime.sh") == 200
        start = time.monotonic()
        await client.closed()
        return time.monotonic() - start

    ages = sorted(await asyncio.gather(*(once(n) for n in range(8))))
    return ages[0], statistics.median(ages), ages[-1]


async def learn(port, host, age):
    end = time.monotonic() + LEARNING

    async def one(n):
        client = Client(port, host)
        await asyncio.sleep(n * age / 4)
        while time.monotonic() < end:
            await client.ask("GET", "/prime.sh")
            await asyncio.sleep(random.uniform(0.8, 1.5) * age)
        client.close()

    await asyncio.gather(*(one(n) for n in range(4)))


async def measure(port, host, age):
    """The statuses of the POSTs."""
    clients = [Client(port, host) for _ in range(AT_ONCE)]
    statuses = []

    async def primes(client):
        # A proxy that sends nothing again may lose these, too.
        for _ in range(5):
            if (status := await client.ask("GET", "/prime.sh")) == 200:
                break
        return status

    async def one(client, start, at):
        await asyncio.sleep(max(0, start + at - time.monotonic()))
        return await client.ask("POST", "/post.sh")

    for batch in range(BATCHES):
        primed = await asyncio.gather(*(primes(client) for client in clients))
        if set(primed) != {200}:
            print(f"{host}, port {port}: made idle by {sorted(set(primed))}", file=sys.stderr)
        start = time.monotonic()
        ages = [age - 0.5 + (n * BATCHES + batch) / (BATCHES * AT_ONCE) for n in range(AT_ONCE)]
        statuses += await asyncio.gather(*(one(client, start, at) for client, at in zip(clients, ages)))
    return statuses


async def run(options, work, tools, processes):
    servers = start_servers(processes, work, tools)
    behind = {name: await relay(port, options.delay / 1000) for name, port in servers.items()}
    ports, admin = proxies.start(processes, options.binary, work, behind)
    names = list(servers)
    timers = dict(zip(names, await asyncio.gather(*(closes_after(port) for port in servers.values()))))
    pairs = [(proxy, name) for proxy in ports for name in names]
    await asyncio.gather(*(learn(ports[proxy], name, timers[name][1]) for proxy, name in pairs))
    told = json.load(urllib.request.urlopen(f"http://127.0.0.1:{admin}/upstreams"))
    learned = {pool["name"]: pool["backends"][0]["idle_closes_after_ms"] for pool in told["items"]}
    statuses = await asyncio.gather(*(measure(ports[proxy], name, timers[name][1]) for proxy, name in pairs))
    statuses = dict(zip(pairs, statuses))
    print("| | closes after, s | learned, ms | " + " | ".join(ports) + " |\n|---|---|---:|" + "---:|" * len(ports))
    for name in names:
        lost = [sum(status != 200 for status in statuses[proxy, name]) for proxy in ports]
        least, _, most = timers[name]
        learned_ms = learned[name] if learned[name] is not None else "–"
        cells = " | ".join(f"{lost} of {len(statuses[proxy, name])}" for proxy, lost in zip(ports, lost))
        print(f"| {name} | {least:.2f}–{most:.2f} | {learned_ms} | {cells} |")
    for pair, got in statuses.items():
        if unusual := sorted(set(got) - {200, 502}):
            print(f"{pair}: also {unusual}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=f"{proxies.ROOT}/target/release/tollgate")
    parser.add_argument("--delay", type=float, default=10, help="milliseconds one way between proxies and servers")
    options = parser.parse_args()
    tools = os.environ.get("TMPDIR", "/tmp") + "/tollgate-bench-servers"
    os.makedirs(tools, exist_ok=True)
    subprocess.run(["sh", f"{proxies.HERE}/setup.sh", tools], check=True)
    work = tempfile.mkdtemp(prefix="tollgate-idle-close-")
    processes = proxies.Processes()
    try:
        asyncio.run(run(options, work, tools, processes))
    finally:
        processes.stop()
    print(proxies.versions(options.binary), f"files in {work}", file=sys.stderr)


if __name__ == "__main__":
    main()
