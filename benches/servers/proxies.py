"""nginx, HAProxy and tollgate in front of the same backends, told apart by the request's Host, with connections kept."""

import contextlib
import os
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Processes:
    """What was started, until the end."""

    def __init__(self):
        self.running = []

    def start(self, command, port, log, **more):
        """Starts a command and waits until it listens."""
        with open(log, "ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **more)
        self.running.append(process)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not listen; see {log}")
            time.sleep(0.05)

    def stop(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def nginx(directory, backends, port):
    parts = [
        f"""
  upstream {name} {{ server 127.0.0.1:{at}; keepalive 256; }}
  server {{ listen 127.0.0.1:{port}; server_name {name}; location / {{ proxy_pass http://{name}; }} }}"""
        for name, at in backends.items()
    ]
    path = write(
        f"{directory}/nginx.conf",
        f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 300s; client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy; proxy_http_version 1.1; proxy_set_header Connection ""; {''.join(parts)}
}}
""",
    )
    return ["nginx", "-c", path, "-e", f"{directory}/nginx.log"]


def haproxy(directory, backends, port):
    use = "".join(f"  use_backend {name} if {{ hdr(host) {name} }}\n" for name in backends)
    parts = "".join(f"backend {name}\n  server one 127.0.0.1:{at}\n" for name, at in backends.items())
    path = write(
        f"{directory}/haproxy.cfg",
        f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  default-server pool-purge-delay 60s
frontend all
  bind 127.0.0.1:{port}
{use}{parts}""",
    )
    return ["haproxy", "-db", "-f", path]


def tollgate(binary, directory, backends, port, admin):
    pools = "".join(
        f'  - {{name: {name}, backends: [{{address: "127.0.0.1:{at}"}}], health_check: {{type: none}}}}\n'
        for name, at in backends.items()
    )
    routes = ", ".join(f"{{host: {name}, path: /, upstream: {name}}}" for name in backends)
    path = write(
        f"{directory}/tollgate.yaml",
        f"""listeners: [{{address: "127.0.0.1:{port}"}}]
pingora: {{threads: 1}}
admin: {{address: "127.0.0.1:{admin}"}}
database: {directory}/tollgate.db
access_log: {{path: null}}
rate_limit: {{enabled: false}}
limits: {{keepalive_timeout: 5m}}
upstreams:
{pools}routes: [{routes}]
""",
    )
    return [binary, "run", "-c", path]


def start(processes, binary, directory, backends):
    """Starts all three before these backends; their ports by name, and tollgate's admin port."""
    ports = {name: free_port() for name in ("nginx", "haproxy", "tollgate")}
    admin = free_port()
    commands = {
        "nginx": nginx(directory, backends, ports["nginx"]),
        "haproxy": haproxy(directory, backends, ports["haproxy"]),
        "tollgate": tollgate(binary, directory, backends, ports["tollgate"], admin),
    }
    for name, command in commands.items():
        processes.start(command, ports[name], f"{directory}/{name}.out")
    return ports, admin


def versions(binary):
    def first(*command):
        said = subprocess.run(command, capture_output=True, text=True)
        return (said.stdout + said.stderr).strip().splitlines()[0]

    return ", ".join((first("nginx", "-v"), first("haproxy", "-v").split(" 20")[0], first(binary, "--version")))
