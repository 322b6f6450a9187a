#!/usr/bin/env bash
# What saving buckets costs those who wait: the latency of requests while a million buckets are saved, and while none is.
#
#   cargo build --release --locked && benches/save-cost.sh [ROUNDS] [SECONDS]
#
# Needs wrk. Each round starts a proxy that saves once a minute. A million anonymous callers get a bucket each in its first
# minute; then wrk measures some seconds before the save and as many during it, from 32 connections that ask as random ones
# of the million. A round takes a bit more than a minute.
set -euo pipefail
rounds=${1:-5} seconds=${2:-2}
tollgate=target/release/tollgate
work=$(mktemp -d)
trap 'kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
pids=()

cat >"$work/random.lua" <<'LUA'
local n = 0
function setup(thread) n = n + 1; thread:set("seed", n * tonumber(os.getenv("SEED") or 1)) end
function init() math.randomseed(seed) end
function request()
  local r = math.random(0, 999999)
  return wrk.format("GET", "/", {["X-Forwarded-For"] = "10." .. math.floor(r / 65536) .. "." .. math.floor(r / 256) % 256 .. "." .. r % 256})
end
LUA
cat >"$work/each.lua" <<'LUA'
local threads = 0
function setup(thread) thread:set("r", threads); threads = threads + 1 end
function request()
  local now = r % 1000000
  r = r + 2
  return wrk.format("GET", "/", {["X-Forwarded-For"] = "10." .. math.floor(now / 65536) .. "." .. math.floor(now / 256) % 256 .. "." .. now % 256})
end
LUA
cat >"$work/conf.yaml" <<YAML
listeners: [{address: "127.0.0.1:18083"}]
pingora: {threads: 2}
access_log: {path: null}
admin: {address: "127.0.0.1:18084"}
database: $work/tollgate.db
identity: {trusted_proxies: [127.0.0.1]}
rate_limit: {persist_interval: 1m, max_buckets: 2000000, default: {capacity: 1000000, rate_per_sec: 0.001}}
upstreams: [{name: app, backends: [{address: 127.0.0.1:19002}], health_check: {type: none}}]
YAML
start() {
  rm -f "$work"/tollgate.db*
  "$tollgate" run -c "$work/conf.yaml" >/dev/null 2>"$work/log" & proxy=$!
  pids+=("$proxy")
  for _ in $(seq 2000); do curl -s -o "$work/out" http://127.0.0.1:18083/ && break; sleep 0.02; done
  save_at=$(($(date +%s%N) + 60 * 1000000000))
}
stop() { kill "$proxy"; wait "$proxy" || true; }
fill() { # until a million buckets are in use
  wrk -t2 -c64 -d600s -s "$work/each.lua" http://127.0.0.1:18083/ >/dev/null & local wrk=$!
  until [ "$(curl -s http://127.0.0.1:18084/status | grep -o '"buckets":[0-9]*' | cut -d: -f2)" -ge 1000000 ]; do sleep 0.2; done
  kill "$wrk"; wait "$wrk" || true
}
p99() { # microseconds
  SEED=$RANDOM wrk -t2 -c32 -d"${seconds}s" --latency -s "$work/random.lua" http://127.0.0.1:18083/ >"$work/wrk"
  awk '$1 == "99%" {v = $2; u = 1; if (v ~ /ms$/) u = 1000; else if (v ~ /[0-9]s$/) u = 1000000; sub(/[a-z]+$/, "", v); print v * u}' "$work/wrk"
}

"$tollgate" echo --listen 127.0.0.1:19002 --name one >/dev/null 2>&1 & pids+=($!)
for n in $(seq "$rounds"); do
  start; fill
  idle=$(p99)
  left=$((save_at - $(date +%s%N)))
  [ $left -gt 0 ] || { echo "round $n: filling took more than a minute"; stop; continue; }
  sleep "$(awk -v ns=$left 'BEGIN{print ns / 1e9}')"
  saving=$(p99)
  stop
  echo "round $n: 99 % within $saving µs while a million are saved, $idle µs while none is"
  echo "$saving" >>"$work/saving"; echo "$idle" >>"$work/idle"
done
median() { sort -n | awk '{v[NR] = $1} END{print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
a=$(median <"$work/saving") b=$(median <"$work/idle")
awk -v a="$a" -v b="$b" 'BEGIN{printf "median: %.0f µs saving, %.0f µs idle, ratio %.2f\n", a, b, a / b}'
