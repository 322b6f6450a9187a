#!/bin/sh
# A fleet on loopback: a store, a sample backend, three nodes. Prints what to try; Ctrl-C ends all of them.
#
#   packaging/fleet.sh [TOLLGATE]
#
# TOLLGATE is the binary, target/debug/tollgate by default. The store is a redis-server or valkey-server of the system, or what
# `make setup-tests` installs below target/; VALKEY_SERVER names another.
set -eu
cd "$(dirname "$0")/.."
tollgate=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/tollgate}")
[ -x "$tollgate" ] || { echo "fleet: there is no $tollgate: cargo build makes it" >&2; exit 1; }

# The first of these that is there.
store=
for server in "${VALKEY_SERVER:-}" redis-server valkey-server "${CARGO_TARGET_DIR:-target}/tmp/valkey/valkey-server"; do
    [ -n "$server" ] && store=$(command -v "$server") && break
done
[ -n "$store" ] || {
    echo "fleet: there is no redis-server or valkey-server. On Debian and Ubuntu: sudo apt-get install redis-server" >&2
    exit 1
}
# Not resolved: a redis-server that is another name of a tool goes by how it is called.
case $store in /*) ;; *) store=$PWD/$store ;; esac

# Each process writes into a file of its own; all of it goes at the end.
dir=$(mktemp -d)
pids=
end() {
    trap - EXIT INT TERM
    # shellcheck disable=SC2086
    [ -z "$pids" ] || { kill $pids 2>/dev/null || true; wait $pids 2>/dev/null || true; }
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 0' INT TERM

start() { # NAME COMMAND...
    name=$1; shift
    (cd "$dir" && exec "$@") >"$dir/$name.log" 2>&1 </dev/null &
    pids="$pids $!"
}

# Until COMMAND succeeds, for ten seconds.
until_it() { # NAME COMMAND...
    name=$1; shift
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "fleet: $name does not start:" >&2
    tail -n 20 "$dir/$name.log" >&2
    exit 1
}

start store "$store" --port 6399 --bind 127.0.0.1 --save '' --appendonly no --maxmemory-policy noeviction
pid_of_store=$!
start backend "$tollgate" echo --listen 127.0.0.1:9001 --name sample
for node in 1 2 3; do
    mkdir "$dir/$node"
    cat >"$dir/$node/tollgate.yaml" <<EOF
listeners: [{address: 127.0.0.1:808$node}]
admin: {address: 127.0.0.1:991$node}
database: $dir/$node/tollgate.db
access_log: {path: null}
pingora: {pid_file: $dir/$node/tollgate.pid, upgrade_sock: $dir/$node/upgrade.sock}
fleet: {store: redis://127.0.0.1:6399, node: node-$node}
upstreams:
  - {name: app, backends: [{address: 127.0.0.1:9001}]}
EOF
    start "node-$node" "$tollgate" run -c "$dir/$node/tollgate.yaml"
done
for node in 1 2 3; do
    until_it "node-$node" "$tollgate" healthcheck --admin "127.0.0.1:991$node"
done
until_it store kill -0 "$pid_of_store"

cat <<EOF
A fleet of three nodes over $(basename "$store"), logs in $dir:

  node-1  http://127.0.0.1:8081  admin http://127.0.0.1:9911
  node-2  http://127.0.0.1:8082  admin http://127.0.0.1:9912
  node-3  http://127.0.0.1:8083  admin http://127.0.0.1:9913

A client that is made on one node is on all of them:

  curl -s http://127.0.0.1:9911/clients -d '{"client_id":"user1","capacity":100,"rate_per_sec":1}'
  curl -s http://127.0.0.1:9913/clients/user1

It has one budget, however many nodes it asks: some 100 of these 300 are answered 200:

  curl -s -o /dev/null -w '%{http_code}\n' -H 'X-Api-Key: user1' 'http://127.0.0.1:808[1-3]/?[1-100]' | sort | uniq -c

Who belongs to the fleet, and how its store is:

  curl -s http://127.0.0.1:9912/fleet

The store stands still, and goes on: each node enforces its share meanwhile, and no request fails:

  kill -STOP $pid_of_store
  kill -CONT $pid_of_store

Ctrl-C ends all of it.
EOF
wait
