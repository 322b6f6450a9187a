#!/bin/sh
# Sends a running tollgate what its admin API's description allows, and what it does not, and fails on any answer that is a
# server error or that the description does not have.
#
#   packaging/fuzz-api.sh BINARY [SECONDS]
#
# schemathesis makes the requests from /openapi.json. It is installed below target/, in an environment of its own, at the
# version named here. The server gets free ports on loopback, a database and a token of its own, and a backend that does not
# exist: nothing here is about traffic.
set -eu
cd "$(dirname "$0")/.."

SCHEMATHESIS=4.32.5

binary=${1:?usage: packaging/fuzz-api.sh BINARY [SECONDS]}
seconds=${2:-120}
tools=target/fuzz-api
python=$tools/venv/bin/python

say() { echo "fuzz-api: $*" >&2; }

if ! "$python" -c "import importlib.metadata as m; assert m.version('schemathesis') == '$SCHEMATHESIS'" 2>/dev/null; then
    say "installing schemathesis $SCHEMATHESIS below $tools"
    python3 -m venv --clear "$tools/venv" || { say "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
    "$python" -m pip install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS"
fi

work=$(mktemp -d)
server=
# shellcheck disable=SC2317 # the trap calls it
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

free_ports() {
    "$python" -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))'
}

token=$("$python" -c 'import secrets; print(secrets.token_hex(16))')
read -r proxy admin <<PORTS
$(free_ports)
PORTS
cat >"$work/tollgate.yaml" <<YAML
listeners: [{address: 127.0.0.1:$proxy}]
admin: {address: 127.0.0.1:$admin}
database: $work/tollgate.db
upstreams:
  - name: app
    backends: [{address: 127.0.0.1:9001}, {address: "[::1]:9002"}]
    health_check: {type: none}
access_log: {path: null}
YAML

TOLLGATE_ADMIN_TOKEN=$token TOLLGATE_LOG=warn "$binary" run -c "$work/tollgate.yaml" &
server=$!

run() {
    status=0
    "$tools/venv/bin/schemathesis" --config-file packaging/fuzz-api.toml run "http://127.0.0.1:$admin/openapi.json" \
        --header "Authorization: Bearer $token" --wait-for-schema 10 --max-time "$seconds" "$@" >"$work/report" 2>&1 || status=$?
    # Its own crashes come with sources of a megabyte.
    cut -c 1-2000 "$work/report"
}

run
# Older Pythons lose count of their own recursion in one phase, which is nothing of ours. What that phase found until then counts.
if grep -q 'SystemError: AST constructor recursion depth mismatch' "$work/report" && ! grep -q '^Failures:' "$work/report"; then
    say "schemathesis' coverage phase crashed over a bug of Python's; once more without it"
    run --phases examples,fuzzing,stateful
fi
kill -0 "$server" 2>/dev/null || { say "the server has ended"; exit 1; }
exit "${status:-0}"
