#!/usr/bin/env bash
# What limits cost: CPU time of the proxy for each request, with limits on and off, in alternating rounds.
#
#   cargo build --release --locked && benches/limits-cost.sh [ROUNDS] [SECONDS]
#
# Needs wrk. Both proxies run at the same time, pinned to one core, in front of the same backend; wrk loads one of them at a
# time from 64 connections. Prints a line for each round and the ratio of the medians.
set -euo pipefail
rounds=${1:-11} seconds=${2:-4}
tollgate=target/release/tollgate
work=$(mktemp -d)
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$work"' EXIT
pids=()
last=$(($(nproc) - 1))

run() { taskset -c "$1" "$tollgate" "${@:2}" >/dev/null 2>"$work/log" & pids+=($!); }

run 0 echo --listen 127.0.0.1:19001 --name one
for state in on off; do
  limit='enabled: false'
  [ $state = off ] || limit='default: {capacity: 1000000000, rate_per_sec: 1000000000}'
  cat >"$work/$state.yaml" <<YAML
listeners: [{address: "127.0.0.1:$([ $state = on ] && echo 18081 || echo 18082)"}]
pingora: {threads: 1}
access_log: {path: null}
admin: {address: null}
database: null
rate_limit: {$limit}
upstreams: [{name: app, backends: [{address: 127.0.0.1:19001}]}]
YAML
  run "$last" run -c "$work/$state.yaml"
done
on=${pids[1]} off=${pids[2]}
for port in 18081 18082; do
  for _ in $(seq 100); do curl -s -o "$work/out" "http://127.0.0.1:$port/" && break; done
done

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

round() { # pid, port: microseconds of CPU for each request
  local before after requests
  before=$(ticks "$1")
  requests=$(taskset -c "0-$((last - 1))" wrk -t2 -c64 -d"${seconds}s" "http://127.0.0.1:$2/?bytes=100" | awk '/requests in/{print $1}')
  after=$(ticks "$1")
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN{printf "%.3f", t / hz * 1e6 / n}'
}

median() { sort -n | awk '{v[NR] = $1} END{print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

for n in $(seq "$rounds"); do
  # Who goes first alternates too.
  if [ $((n % 2)) = 1 ]; then a=$(round "$on" 18081) b=$(round "$off" 18082)
  else b=$(round "$off" 18082) a=$(round "$on" 18081); fi
  echo "round $n: limits on $a µs, off $b µs of CPU a request"
  echo "$a" >>"$work/on"; echo "$b" >>"$work/off"
done
a=$(median <"$work/on") b=$(median <"$work/off")
awk -v a="$a" -v b="$b" 'BEGIN{printf "median: limits on %.2f µs, off %.2f µs, ratio %.3f\n", a, b, a / b}'
