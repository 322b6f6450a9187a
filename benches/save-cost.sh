#!/usr/bin/env bash
# What saving buckets costs those who wait: the latency of requests while a million buckets are saved, and while none is.
#
#   cargo build --release --locked && benches/save-cost.sh [ROUNDS] [SECONDS]
#
# Needs wrk. A million anonymous callers get a bucket each and are saved. Then the proxy starts anew, twice a round: once as it
# is, so that it saves all of them again from the first second on, and once with nothing to save (persist_interval 1m and a
# database of its own that holds no buckets; the callers are made first). wrk measures the same seconds after both starts, from
# 32 connections that ask as random ones of the million.
set -euo pipefail
rounds=${1:-5} seconds=${2:-3}
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
config() { # persist_interval
  cat >"$work/$1.yaml" <<YAML
listeners: [{address: "127.0.0.1:18083"}]
pingora: {threads: 2}
access_log: {path: null}
admin: {address: "127.0.0.1:18084"}
database: $work/$1.db
identity: {trusted_proxies: [127.0.0.1]}
rate_limit: {persist_interval: $1, max_buckets: 2000000, default: {capacity: 1000000, rate_per_sec: 0.001}}
upstreams: [{name: app, backends: [{address: 127.0.0.1:19002}], health_check: {type: none}}]
YAML
}
start() { # persist_interval
  "$tollgate" run -c "$work/$1.yaml" >/dev/null 2>"$work/log" & proxy=$!
  pids+=("$proxy")
  for _ in $(seq 2000); do curl -s -o "$work/out" http://127.0.0.1:18083/ && return; sleep 0.02; done
}
stop() { kill "$proxy"; wait "$proxy" || true; }
fill() { # until a million buckets are in use
  for _ in $(seq 60); do
    wrk -t2 -c64 -d5s -s "$work/each.lua" http://127.0.0.1:18083/ >/dev/null
    [ "$(curl -s http://127.0.0.1:18084/status | grep -o '"buckets":[0-9]*' | cut -d: -f2)" -lt 999000 ] || return 0
  done
}
p99() { # microseconds
  SEED=$RANDOM wrk -t2 -c32 -d"${seconds}s" --latency -s "$work/random.lua" http://127.0.0.1:18083/ >"$work/wrk"
  awk '$1 == "99%" {v = $2; u = 1; if (v ~ /ms$/) u = 1000; else if (v ~ /[0-9]s$/) u = 1000000; sub(/[a-z]+$/, "", v); print v * u}' "$work/wrk"
}

"$tollgate" echo --listen 127.0.0.1:19002 --name one >/dev/null 2>&1 & pids+=($!)
config 1s; config 1m
start 1s; fill; stop
for n in $(seq "$rounds"); do
  start 1s; saving=$(p99); stop
  start 1m; fill; idle=$(p99); stop; rm -f "$work/1m.db"
  echo "round $n: 99 % within $saving µs while a million are saved, $idle µs while none is"
  echo "$saving" >>"$work/saving"; echo "$idle" >>"$work/idle"
done
median() { sort -n | awk '{v[NR] = $1} END{print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
a=$(median <"$work/saving") b=$(median <"$work/idle")
awk -v a="$a" -v b="$b" 'BEGIN{printf "median: %.0f µs saving, %.0f µs idle, ratio %.2f\n", a, b, a / b}'
