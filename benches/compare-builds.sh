#!/usr/bin/env bash
# What a request costs in one build of tollgate and in others: two commits, two profiles, two allocators.
#
#   benches/compare-builds.sh [--rounds N] [--requests N] [--case NAME]... BINARY...
#   benches/compare-builds.sh --instructions [--case NAME]... BINARY...
#
# All proxies run at the same time, each with one thread, all on the last core, in front of one backend; load and backend have
# the other cores. In each round every proxy in turn answers the same number of requests, and the kernel says what CPU time that
# took. Who goes first changes from round to round. A line for each case and binary: the median of the rounds in µs of CPU a
# request, and the ratio to the first binary's in the same round: median, least, most.
#
# With --instructions each binary runs under callgrind, which counts the instructions of user code and is not moved by what else
# the machine does. A run with few requests is taken off one with many, so that start and stop do not count.
#
# The cases: `get`, `post` (16 KiB) and `large` (100 KB) over kept connections; `client`, a GET with the API key of a client
# that is in the database, with a line in the access log; `refused` (429); `tls` over kept connections, `http2` over TLS, and
# `handshakes`, a new TLS connection for each request.
#
# The backend is the first binary's `tollgate echo`. Needs h2load (Debian: nghttp2-client), openssl; valgrind for --instructions.
# `make pgo` trains with these cases, too.
set -euo pipefail

die() { echo "compare-builds: $*" >&2; exit 2; }

rounds=7 requests=30000 instructions='' cases=() binaries=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?}; shift 2 ;;
    --requests) requests=${2:?}; shift 2 ;;
    --case) cases+=("${2:?}"); shift 2 ;;
    --instructions) instructions=yes; shift ;;
    -*) die "no option $1; see the head of this file" ;;
    *) [ -x "$1" ] || die "$1 is not a binary"; binaries+=("$1"); shift ;;
  esac
done
[ ${#cases[@]} -gt 0 ] || cases=(get post large client refused tls http2 handshakes)
[ ${#binaries[@]} -gt 0 ] || die "which binaries?"
for tool in h2load openssl taskset ${instructions:+valgrind}; do
  command -v "$tool" >/dev/null || die "$tool is missing (Debian: apt-get install nghttp2-client openssl util-linux valgrind)"
done

work=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # the trap calls it
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The cores that this shell may use, which in a container need not be the first ones. With one core, all share it.
mapfile -t cores < <(awk '/^Cpus_allowed_list:/{n = split($2, parts, ","); for (i = 1; i <= n; i++) {
  m = split(parts[i], ends, "-"); for (c = ends[1]; c <= ends[m]; c++) print c}}' /proc/self/status)
last=${cores[-1]}
others=$(IFS=,; echo "${cores[*]:0:${#cores[@]}-1}")
others=${others:-$last}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
next_port=$((20000 + $$ % 8000))
free_port() { # sets `port`
  while port=$next_port; next_port=$((next_port + 1)); answers "$port"; do :; done
}
wait_for() { # port, pid, log
  for _ in $(seq 600); do
    answers "$1" && return
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  cat "$3" >&2
  die "a server did not start"
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
head -c 16384 /dev/zero >"$work/16k"

free_port
backend=$port
# What a binary built for profiling writes about its backend's side is of no use.
LLVM_PROFILE_FILE="$work/backend.profraw" taskset -c "$others" \
  "${binaries[0]}" echo --listen "127.0.0.1:$backend" --name one >/dev/null 2>"$work/backend.log" &
pids+=($!)
wait_for "$backend" "$!" "$work/backend.log"

start() { # case, name, binary, command to run it with...; sets pid, plain, tls
  local name=$2 binary=$3 quota=1000000000 log=null admin=null database=null
  [ "$1" != refused ] || quota=1
  free_port; plain=$port
  free_port; tls=$port
  if [ "$1" = client ]; then
    free_port; admin="127.0.0.1:$port"
    log=$work/$name.access database=$work/$name.db
    rm -f "$log" "$database"*
  fi
  cat >"$work/$name.yaml" <<YAML
listeners:
  - {address: "127.0.0.1:$plain"}
  - {address: "127.0.0.1:$tls", tls: {cert: $work/cert.pem, key: $work/key.pem}}
pingora: {threads: 1, upstream_keepalive_pool_size: 1024}
access_log: {path: $log}
admin: {address: $admin}
database: $database
rate_limit: {default: {capacity: $quota, rate_per_sec: $quota}}
upstreams: [{name: app, backends: [{address: 127.0.0.1:$backend}], health_check: {type: none}}]
YAML
  taskset -c "$last" "${@:4}" "$binary" run -c "$work/$name.yaml" >/dev/null 2>"$work/$name.log" &
  pid=$!
  pids+=("$pid")
  wait_for "$plain" "$pid" "$work/$name.log"
  [ "$1" = client ] || return 0
  wait_for "${admin#*:}" "$pid" "$work/$name.log"
  "$binary" clients add known --admin "$admin" --capacity $quota --rate $quota --api-key known-by-this-key >/dev/null
}

load() { # case, plain port, TLS port, requests; sets answered
  local plain="http://127.0.0.1:$2" tls="https://127.0.0.1:$3" args runs=1
  answered=$4
  case $1 in
    get | refused) args=(--h1 -c 64 "$plain/") ;;
    post) args=(--h1 -c 64 -d "$work/16k" "$plain/") ;;
    large) args=(--h1 -c 64 "$plain/?bytes=100000") answered=$((answered / 4)) ;;
    client) args=(--h1 -c 64 -H "X-Api-Key: known-by-this-key" "$plain/") ;;
    tls) args=(--h1 -c 64 "$tls/") ;;
    http2) args=(-c 16 -m 4 "$tls/") ;;
    # h2load has no new connection for each request; but a run with as many connections as requests is that.
    handshakes) args=(--h1 -c 100 "$tls/") answered=100 runs=$(($4 / 1500 + 1)) ;;
    *) die "no case $1" ;;
  esac
  local good="$answered done, $answered succeeded, 0 failed"
  [ "$1" != refused ] || good="$answered done"
  for _ in $(seq "$runs"); do
    if ! taskset -c "$others" h2load -t 1 -n "$answered" "${args[@]}" >"$work/load.log" 2>&1 ||
      ! grep -q " $good" "$work/load.log"; then
      cat "$work/load.log" >&2
      die "$1: not every request got its answer"
    fi
  done
  answered=$((answered * runs))
}

median() { sort -n | awk '{v[NR] = $1} END{print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

if [ -n "$instructions" ]; then
  counted() { # case, binary, requests: instructions of the whole process
    start "$1" counted "$2" valgrind --tool=callgrind --callgrind-out-file="$work/callgrind" --quiet
    load "$1" "$plain" "$tls" "$3"
    kill "$pid"
    wait "$pid" || true
    unset 'pids[-1]'
    sum=$(awk '/^(totals|summary):/{print $2; exit}' "$work/callgrind")
  }
  few=1000 many=5000
  printf '%-8s  %14s  %6s  %s\n' case instructions ratio binary
  for case in "${cases[@]}"; do
    first=
    for binary in "${binaries[@]}"; do
      counted "$case" "$binary" $few; low=$sum low_answered=$answered
      counted "$case" "$binary" $many
      each=$(((sum - low) / (answered - low_answered)))
      first=${first:-$each}
      awk -v c="$case" -v i="$each" -v f="$first" -v b="$binary" 'BEGIN{printf "%-8s  %14d  %6.3f  %s\n", c, i, i / f, b}'
    done
  done
  exit
fi

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

round() { # case, number of the binary: adds µs of CPU a request to its file
  local before after
  before=$(ticks "${at_pid[$2]}")
  load "$1" "${at_plain[$2]}" "${at_tls[$2]}" "$requests"
  after=$(ticks "${at_pid[$2]}")
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$answered" 'BEGIN{printf "%.4f\n", t / hz * 1e6 / n}' >>"$work/us.$2"
}

printf '%-8s  %8s  %s\n' case 'µs' 'ratio: median (least to most)  binary'
for case in "${cases[@]}"; do
  at_pid=() at_plain=() at_tls=()
  for n in "${!binaries[@]}"; do
    start "$case" "$case.$n" "${binaries[n]}"
    at_pid[n]=$pid at_plain[n]=$plain at_tls[n]=$tls
    : >"$work/us.$n"
    load "$case" "$plain" "$tls" 2000
  done
  for r in $(seq "$rounds"); do
    for n in "${!binaries[@]}"; do round "$case" $(((n + r) % ${#binaries[@]})); done
  done
  for n in "${!binaries[@]}"; do
    paste "$work/us.0" "$work/us.$n" | awk '{print $2 / $1}' | sort -n >"$work/ratios"
    printf '%-8s  %8.2f  %.3f (%.3f to %.3f)  %s\n' "$case" "$(median <"$work/us.$n")" "$(median <"$work/ratios")" \
      "$(head -n 1 "$work/ratios")" "$(tail -n 1 "$work/ratios")" "${binaries[n]}"
    kill "${at_pid[n]}"
    wait "${at_pid[n]}" || true
  done
  pids=("${pids[0]}")
done
