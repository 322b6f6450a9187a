#!/usr/bin/env bash
# What belonging to a fleet costs a node: the tables of docs/fleet.md.
#
#   cargo build --release --locked && benches/fleet-cost.sh [busy] [instructions] [paced] [away] [million]
#
# Needs wrk, h2load, redis-server, curl, taskset, and valgrind for the instructions. One node is alone and one is of a fleet whose store is a redis-server on
# loopback; both have the same clients, and are loaded in turns, in rounds. Without a table's name all of them.
#
# busy: processor time a request, as the kernel counts it for the process, since nothing counts instructions in most virtual
#   machines; and round trips to the store a request, less those that a node makes when nobody asks (pings, signs of life).
# instructions: those of user code for each request, by cachegrind; a short run is taken off a long one. A node is some fifteen
#   times as slow under it, so there is a fifteenth of the clients, each of which asks as often as one of 1,000 or 10,000 otherwise.
# paced: the 99th percentile at fixed rates, some way below what a node can do, in turns.
# away: how long requests wait while the store stands still, from callers that each find no lease.
# million: three nodes with a million clients each.
set -euo pipefail
tables=("$@")
[ ${#tables[@]} -gt 0 ] || tables=(busy instructions paced away million)
tollgate=${TOLLGATE:-target/release/tollgate}
rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}
cores=$(nproc)
node_core=$((cores - 1)) others=0-$((cores > 1 ? cores - 2 : 0))
work=$(mktemp -d)
pids=() under=()
trap 'kill -CONT "${pids[@]}" 2>/dev/null; kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

cat >"$work/turns.lua" <<'LUA'
local threads = 0
function setup(thread) thread:set("n", threads * 4999); threads = threads + 1 end
local clients = tonumber(os.getenv("CLIENTS"))
function request()
  n = n + 1
  return wrk.format("GET", "/", {["X-Api-Key"] = "c" .. n % clients})
end
function done(summary, latency)
  io.write(string.format("MEASURED %d %d %f %f %f %f\n", summary.requests, summary.errors.status, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), latency.max))
end
LUA
conf() { # NAME PORT MORE
  printf '%s\n' "listeners: [{address: \"127.0.0.1:$2\"}]" "admin: {address: \"127.0.0.1:$(($2 + 1))\"}" \
    "pingora: {threads: 1, pid_file: $work/$1.pid, upgrade_sock: $work/$1.sock}" "access_log: {path: null}" \
    "database: $work/$1.db" "upstreams: [{name: app, backends: [{address: 127.0.0.1:19002}], health_check: {type: none}}]" \
    "$3" >"$work/$1.yaml"
}
start() { # NAME PORT: in the background, until it serves; its process id in $started, and the milliseconds in $took
  local began
  began=$(date +%s%3N)
  taskset -c "$node_core" "${under[@]}" "$tollgate" run -c "$work/$1.yaml" >/dev/null 2>>"$work/$1.log" & started=$!
  pids+=("$started")
  until curl -sf -o /dev/null "http://127.0.0.1:$(($2 + 1))/readyz"; do
    kill -0 "$started" || { cat "$work/$1.log" >&2; exit 1; }
    sleep 0.02
  done
  took=$(($(date +%s%3N) - began))
}
clients() { # COUNT PORT
  seq 0 $(($1 - 1)) | awk '{printf "{\"client_id\":\"c%d\",\"capacity\":1000,\"rate_per_sec\":100}\n", $1}' >"$work/list"
  echo '{"client_id":"paced","capacity":1000000,"rate_per_sec":100000}' >>"$work/list"
  curl -sf -o /dev/null -X PUT -H 'Content-Type: application/x-ndjson' --data-binary "@$work/list" "http://127.0.0.1:$(($2 + 1))/clients"
}
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
trips() { curl -s "http://127.0.0.1:$(($1 + 1))/metrics" | awk '$1 == "tollgate_fleet_store_seconds_count" {print $2}'; }
resident() { awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$1/status"; }
load() { # CLIENTS SECONDS CONNECTIONS PORT
  CLIENTS=$1 taskset -c "$others" wrk -t1 "-c$3" "-d$2s" --latency -s "$work/turns.lua" "http://127.0.0.1:$4/" | awk '/^MEASURED/ {print $2, $3, $4, $5, $6, $7}'
}
median() { sort -n | awk '{v[NR] = $1} END{print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
store() { # PORT
  mkdir -p "$work/store"
  taskset -c "$others" redis-server --port "$1" --bind 127.0.0.1 --save '' --dir "$work/store" >"$work/store.log" & store=$!
  pids+=("$store")
  until redis-cli -p "$1" ping >/dev/null 2>&1; do sleep 0.05; done
}
cost() { # NAME PORT PID CLIENTS: adds µs a request, and round trips a request, to files
  local before asked after way
  before=$(ticks "$3")
  way=$(trips "$2")
  read -r asked refused _ < <(load "$4" "$seconds" 32 "$2")
  after=$(ticks "$3")
  [ "$refused" -eq 0 ] || echo "$1: $refused of $asked refused" >&2
  awk -v t=$((after - before)) -v n="$asked" 'BEGIN{print t * 10000 / n}' >>"$work/$1.$4.cost"
  awk -v b="$way" -v a="$(trips "$2")" -v i="${idle:-0}" -v s="$seconds" -v n="$asked" 'BEGIN{print (a - b - i * s) / n, (a - b) / n}' >>"$work/$1.$4.trips"
}
counted() { # NAME PORT MORE CLIENTS SECONDS: sets $asked, and the instructions of the whole process in $sum
  rm -f "$work/$1".db* "$work/$1.log"
  conf "$1" "$2" "$3"
  under=(valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null); start "$1" "$2"; under=()
  clients "$4" "$2"
  sleep 2
  read -r asked _ < <(load "$4" "$5" 32 "$2")
  kill "$started"; wait "$started" || true
  sum=$(awk '/I +refs/ {gsub(",", ""); print $NF}' "$work/$1.log")
}
each() { # as counted, without seconds: the instructions a request in $each
  counted "$@" 3; local few=$asked low=$sum
  counted "$@" 18; each=$(((sum - low) / (asked - few)))
}
paced() { # PORT CONNECTIONS, 50 a second each: the 99th percentile in µs
  rm -f "$work/h2load.log"
  taskset -c "$others" h2load --h1 -t1 "-c$2" -m1 -D"$seconds" --rps=50 -H 'X-Api-Key: paced' --log-file="$work/h2load.log" "http://127.0.0.1:$1/" >/dev/null
  awk '{print $3}' "$work/h2load.log" | sort -n | awk '{v[NR] = $1} END{print v[int(NR * 0.99)]}'
}

taskset -c "$others" "$tollgate" echo --listen 127.0.0.1:19002 --name one >/dev/null 2>&1 & pids+=($!)
store 19379
fleet() { echo "fleet: {store: \"redis://127.0.0.1:19379\", node: $1, prefix: ${2:-small}}"; }

wants() { for table in "${tables[@]}"; do [ "$table" != "$1" ] || return 0; done; return 1; }

if wants busy || wants paced || wants away; then
  conf alone 18083 ""; start alone 18083; alone=$started
  conf member 18085 "$(fleet member)"; start member 18085; member=$started
  clients 10000 18083; clients 10000 18085
  sleep 2
  before=$(trips 18085); sleep 5
  idle=$(awk -v a="$(trips 18085)" -v b="$before" 'BEGIN{print (a - b) / 5}')
fi
if wants busy; then
  echo "A node of which nobody asks anything makes $idle round trips a second."
  printf '\n| busy clients | µs of CPU a request, alone | of a fleet | ratio, median (least–most) | requests for each round trip, without and with those |\n|---:|---:|---:|---:|---:|\n'
  for count in 1000 10000; do
    load "$count" 3 32 18083 >/dev/null; load "$count" 3 32 18085 >/dev/null
    for _ in $(seq "$rounds"); do cost alone 18083 "$alone" "$count"; cost member 18085 "$member" "$count"; done
    paste "$work/alone.$count.cost" "$work/member.$count.cost" | awk '{print $2 / $1}' | sort -n >"$work/ratios"
    awk -v c="$count" -v a="$(median <"$work/alone.$count.cost")" -v m="$(median <"$work/member.$count.cost")" -v r="$(median <"$work/ratios")" \
      -v l="$(head -n 1 "$work/ratios")" -v h="$(tail -n 1 "$work/ratios")" -v t="$(awk '{print $1}' "$work/member.$count.trips" | median)" \
      -v w="$(awk '{print $2}' "$work/member.$count.trips" | median)" \
      'BEGIN{printf "| %d | %.1f | %.1f | %.3f (%.3f–%.3f) | %.0f and %.0f |\n", c, a, m, r, l, h, 1 / t, 1 / w}'
  done
fi
if wants paced; then
  echo
  for connections in 8 32; do
    rm -f "$work"/paced.*
    for _ in $(seq "$rounds"); do paced 18083 "$connections" >>"$work/paced.alone"; paced 18085 "$connections" >>"$work/paced.member"; done
    awk -v r=$((connections * 50)) -v a="$(median <"$work/paced.alone")" -v m="$(median <"$work/paced.member")" \
      'BEGIN{printf "%d requests a second: 99 %% within %d µs alone, %d µs in a fleet, %d µs more (medians of the rounds)\n", r, a, m, m - a}'
  done
fi
if wants away; then
  echo; echo "The store stands still for 3 s; two connections ask for 10,000 callers in turn:"
  load 10000 3 2 18085 | awk '{printf "before: %d requests, %d refused; 50 %% within %.0f µs, 99 %% %.0f, 99.9 %% %.0f, the longest %.1f ms\n", $1, $2, $3, $4, $5, $6 / 1000}'
  for _ in 1 2 3; do
    ( sleep 0.5; kill -STOP "$store"; sleep 3; kill -CONT "$store" ) & stopping=$!
    load 10000 5 2 18085 | awk '{printf "while: %d requests, %d refused; 50 %% within %.0f µs, 99 %% %.0f, 99.9 %% %.0f, the longest %.1f ms\n", $1, $2, $3, $4, $5, $6 / 1000}'
    wait "$stopping"; sleep 2
  done
fi
if wants busy || wants paced || wants away; then kill "$alone" "$member"; wait "$alone" "$member" || true; fi
if wants instructions; then
  printf '\n| clients | instructions a request, alone | of a fleet | ratio |\n|---:|---:|---:|---:|\n'
  for count in 66 660; do
    redis-cli -p 19379 flushall >/dev/null
    each alone 18083 "" "$count"; of_alone=$each
    each member 18085 "$(fleet counted counted)" "$count"
    awk -v c="$count" -v a="$of_alone" -v m="$each" 'BEGIN{printf "| %d | %d | %d | %.3f |\n", c, a, m, m / a}'
  done
fi
if wants million; then
  redis-cli -p 19379 flushall >/dev/null
  conf alone 18083 ""; start alone 18083; clients 1000000 18083; kill "$started"; wait "$started" || true
  start alone 18083; echo; echo "a million clients, alone: serves after $took ms, $(resident "$started") MiB"; of_alone=$(resident "$started")
  kill "$started"; wait "$started" || true
  for name in a b c; do
    port=$((18083 + 2 * $(printf '%d' "'$name") - 194))
    conf "$name" "$port" "$(fleet "$name" million)"
    [ "$name" != a ] || { start a "$port"; clients 1000000 "$port"; kill "$started"; wait "$started" || true; }
    start "$name" "$port"
    echo "node $name: first serves after $took ms"
    until [ "$(curl -s "http://127.0.0.1:$((port + 1))/clients?limit=1" | grep -o '"total":[0-9]*' | cut -d: -f2)" = 1000001 ]; do sleep 0.1; done
    # Until then it takes them in, of which this is the end.
    until curl -s "http://127.0.0.1:$((port + 1))/fleet" | grep -q '"reason":null'; do sleep 0.1; done
    declare "pid_$name=$started" "port_$name=$port"
  done
  for name in b c; do
    pid=pid_$name port=port_$name
    kill "${!pid}"; wait "${!pid}" || true
    start "$name" "${!port}"; declare "pid_$name=$started"
    echo "node $name: started again, serves after $took ms"
  done
  for name in a b c; do
    pid=pid_$name
    echo "node $name: $(resident "${!pid}") MiB, $(awk -v n="$(resident "${!pid}")" -v a="$of_alone" 'BEGIN{printf "%.2f", n / a}') of one alone"
  done
  began=$(date +%s%3N)
  curl -sf -o /dev/null -X PATCH -H 'Content-Type: application/json' -d '{"capacity":999}' "http://127.0.0.1:$((port_a + 1))/clients/c777777"
  for name in b c; do port=port_$name; until curl -s "http://127.0.0.1:$((${!port} + 1))/clients/c777777" | grep -q '"capacity":999'; do sleep 0.005; done; done
  echo "a changed client is everywhere after $(($(date +%s%3N) - began)) ms"
fi
