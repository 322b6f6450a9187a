#!/bin/sh
# Builds the image with the Dockerfile, runs docker-compose.yml, and tries what docs/operations.md says of containers.
#
#   packaging/test-docker.sh
#
# Needs a Docker engine, compose, and curl. RUST_IMAGE and RUNTIME_IMAGE name base images in place of the Dockerfile's, for
# machines that reach no public registry; PGO=off builds without a profile, in half the time; DOCKER names the client. The
# image, the project and its volume have names of their own and free ports on loopback, and are removed at the end; the cache
# of the build stays.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'test-docker: %s\n' "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
passed() { say "ok: $*"; }

# The Dockerfile has cache mounts: a client of Docker 23 or newer needs the buildx plugin for them, an older one has them.
can_build() {
    "$1" buildx version >/dev/null 2>&1 && return 0
    major=$("$1" version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1)
    [ "${major:-99}" -lt 23 ]
}

find_docker() {
    for client in ${DOCKER:-docker /usr/bin/docker}; do
        client=$(unset -f docker; command -v "$client") || continue # the program, not the function below
        found=$client
        "$client" info >/dev/null 2>&1 || continue
        ! can_build "$client" || { docker=$client; return 0; }
        found="$client, which has no buildx plugin"
    done
    say "no Docker engine that can be used (client: ${found:-none}). Debian: apt-get install docker.io docker-compose"
    say "nothing was tested"
    exit 1
}

find_compose() {
    if "$docker" compose version >/dev/null 2>&1; then
        compose_version=2
    elif command -v docker-compose >/dev/null; then
        compose_version=1
    else
        say "neither 'docker compose' nor docker-compose is installed; nothing was tested"
        exit 1
    fi
}

# What the page's lines call, whichever client and compose there are. The image is there already, and the old compose cannot
# wait for health.
docker() {
    case " $* " in
        " compose up "*"--wait "*)
            docker compose up --detach --no-build && wait_until_healthy
            return
            ;;
    esac
    if [ "$1" = compose ] && [ "$compose_version" = 1 ]; then
        shift
        docker-compose "$@"
    else
        "$docker" "$@"
    fi
}

proxy() { docker compose ps -q proxy; }

wait_until_healthy() {
    tries=60
    until [ "$(docker inspect -f '{{.State.Health.Status}}' "$(proxy)")" = healthy ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { docker compose logs --tail 20 proxy >&2; fail "the proxy is not healthy after 60 s"; }
        sleep 1
    done
}

# A port that nobody answers on; curl says 7 when it cannot connect.
free_port() {
    port=$1
    while :; do
        status=0
        curl -s -o /dev/null "http://127.0.0.1:$port/" || status=$?
        [ "$status" -ne 7 ] || { echo "$port"; return; }
        port=$((port + 1))
    done
}

finish() {
    status=$?
    trap - EXIT
    docker compose down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1 || true
    docker rmi "$TOLLGATE_IMAGE" >/dev/null 2>&1 || true
    rm -rf "$work"
    [ "$status" -ne 0 ] || say "all passed"
    exit "$status"
}

build() {
    set --
    [ -z "${RUST_IMAGE:-}" ] || set -- "$@" --build-arg "RUST_IMAGE=$RUST_IMAGE"
    [ -z "${RUNTIME_IMAGE:-}" ] || set -- "$@" --build-arg "RUNTIME_IMAGE=$RUNTIME_IMAGE"
    [ -z "${PGO:-}" ] || set -- "$@" --build-arg "PGO=$PGO"
    say "building the image; the first time takes some minutes"
    DOCKER_BUILDKIT=1 "$docker" build --progress plain -t "$TOLLGATE_IMAGE" "$@" . >"$work/build" 2>&1 || {
        tail -n 20 "$work/build" >&2
        say "RUST_IMAGE and RUNTIME_IMAGE name other base images, where the public ones cannot be reached"
        fail "the image does not build"
    }
    passed "the image builds: $("$docker" image inspect -f '{{.Size}}' "$TOLLGATE_IMAGE") bytes, $(profile_of "$work/build")"
}

# How the binary was built, by the build's log. What is missing for a profile is not a failure, but not to be overlooked.
profile_of() {
    if grep -q 'pgo: .*/tollgate is ready' "$1"; then
        echo "by a profile"
    elif [ "${PGO:-on}" != on ]; then
        echo "without a profile, as PGO says"
    elif grep -q 'pgo: ' "$1"; then
        sed -n 's/^#[0-9]* [0-9.]* \(pgo: .*\)/  \1/p' "$1" >&2
        echo "WITHOUT a profile (why: above)"
    else
        echo "from the cache"
    fi
}

shells_in() {
    container=$("$docker" create "$1" true)
    "$docker" export "$container" >"$work/image.tar"
    "$docker" rm "$container" >/dev/null
    tar -tf "$work/image.tar" | grep -E '(^|/)bin/(sh|ash|bash|dash|busybox)$' | tr '\n' ' ' || true
    rm "$work/image.tar"
}

# The image as it is, before anything runs.
check_image() {
    inspect() { "$docker" image inspect -f "$1" "$TOLLGATE_IMAGE"; }
    [ "$(inspect '{{.Config.User}}')" = 65532:65532 ] || fail "the image's user is $(inspect '{{.Config.User}}')"
    [ "$(inspect '{{.Config.StopSignal}}')" = SIGTERM ] || fail "the image's stop signal is not SIGTERM"
    case $(inspect '{{json .Config.Healthcheck.Test}}{{json .Config.Entrypoint}}') in
        '["CMD","/usr/local/bin/tollgate","healthcheck"]["/usr/local/bin/tollgate"]') ;;
        *) fail "the image's health check or entry point goes over a shell" ;;
    esac
    ours=$(shells_in "$TOLLGATE_IMAGE")
    if [ -n "$ours" ]; then
        base=${RUNTIME_IMAGE:-$(sed -n 's/^ARG RUNTIME_IMAGE=//p' Dockerfile)}
        [ "$ours" = "$(shells_in "$base")" ] || fail "the image has a shell that its base image has not: $ours"
        say "note: the base image here has a shell ($ours), so this is a stand-in for the public one; below it is hidden"
    fi
    # Whatever the base has: no program but ours, nothing to write, no network, no capability, and it runs.
    "$docker" run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
        --tmpfs /usr/bin --tmpfs /usr/sbin "$TOLLGATE_IMAGE" check -c /etc/tollgate/compose.yaml >/dev/null ||
        fail "the binary does not run without a shell on a read-only root"
    ! "$docker" run --rm --network none --tmpfs /usr/bin --tmpfs /usr/sbin --entrypoint /bin/sh "$TOLLGATE_IMAGE" -c : \
        >/dev/null 2>&1 || fail "a shell was left"
    passed "user 65532, SIGTERM, health check by the binary; runs without a shell, a network, a capability"
}

# The lines of docs/operations.md on containers: each `$ command` with what it prints, where … is anything.
page_steps() {
    # shellcheck disable=SC2016 # these are the page's fences, not commands
    sed -n '/^## In containers$/,/^## /p' docs/operations.md | sed -n '/^```sh$/,/^```$/p' | grep -v '^```'
}

as_pattern() {
    # Pattern characters are quoted one by one, and then … becomes a *.
    printf '%s' "$1" | sed -e 's/[][*?\\]/\\&/g' -e 's/…/*/g'
}

check_output() {
    [ -n "$command" ] || return 0
    [ -n "$expected" ] || { passed "$command"; return 0; }
    printed=$(tr -d '\r' <"$work/printed")
    pattern=$(as_pattern "$expected")
    # shellcheck disable=SC2254 # it is a pattern
    case $printed in
        $pattern) passed "$command" ;;
        *) fail "'$command' printed '$printed' and not '$expected'" ;;
    esac
}

run_page() {
    page_steps >"$work/steps"
    command='' expected='' count=0
    while IFS= read -r line <&3; do
        case $line in
            '$ '*)
                check_output
                command=${line#'$ '} expected='' count=$((count + 1))
                typed=$(printf '%s' "$command" | sed -e "s/:8080/:$TOLLGATE_PROXY_PORT/g" -e "s/:9901/:$TOLLGATE_ADMIN_PORT/g")
                eval "$typed" >"$work/printed" 2>"$work/errors" </dev/null ||
                    { status=$?; cat "$work/errors" >&2; fail "'$typed' failed with exit code $status"; }
                ;;
            'export TOLLGATE_ADMIN_TOKEN='*) eval "$line" ;;
            'docker compose up '*) eval "$line" >"$work/up" 2>&1 || { tail -n 20 "$work/up" >&2; fail "'$line' failed"; } ;;
            *) expected="$expected$line" ;;
        esac
    done 3<"$work/steps"
    check_output
    [ "$count" -ge 5 ] || fail "only $count commands were found in docs/operations.md"
}

# What the running container may do, by what Docker says and by trying.
check_container() {
    container=$(proxy)
    [ "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "$container")" = true ] || fail "the root file system is writable"
    case $(docker top "$container" -eo pid,uid,args) in
        *" 65532 "*tollgate*) ;;
        *) fail "it runs as another user: $(docker top "$container" -eo pid,uid,args)" ;;
    esac
    pid=$(docker inspect -f '{{.State.Pid}}' "$container")
    if [ -r "/proc/$pid/status" ]; then # not where the engine runs in a machine of its own
        grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || fail "it has capabilities: $(grep ^Cap "/proc/$pid/status")"
        grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || fail "it may gain privileges"
    fi
    # A directory of its own user's, beside the volume with the real one, so that only the read-only root forbids it.
    said=$(timeout 20 "$docker" exec "$container" tollgate run --listen 127.0.0.1:18080 --admin 127.0.0.1:19901 \
        --backend 127.0.0.1:9 --database /var/lib/tollgate/probe.db 2>&1) && fail "it wrote to its root file system"
    case $said in
        *'probe.db cannot be made'*) ;;
        *) fail "a database on the root failed for another reason: $said" ;;
    esac
    passed "user 65532, no capabilities, no new privileges, read-only root"
}

# A stop waits for the request that runs, and for nothing else.
check_stop() {
    curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$TOLLGATE_PROXY_PORT/?delay_ms=4000" >"$work/slow" &
    slow=$!
    container=$(proxy)
    tries=50
    until docker exec "$container" tollgate healthcheck >/dev/null 2>&1 &&
        curl -s -H "Authorization: Bearer $TOLLGATE_ADMIN_TOKEN" "http://127.0.0.1:$TOLLGATE_ADMIN_PORT/upstreams" |
        grep -q '"in_flight":1'; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "the slow request does not show in GET /upstreams"
    done
    before=$(date +%s)
    docker compose stop proxy >/dev/null 2>&1
    took=$(($(date +%s) - before))
    wait "$slow" || fail "the request that ran was cut by the stop"
    [ "$(cat "$work/slow")" = 200 ] || fail "the request that ran during the stop got $(cat "$work/slow")"
    [ "$(docker inspect -f '{{.State.ExitCode}}' "$container")" = 0 ] || fail "the stop was not a clean one"
    [ "$took" -le 10 ] || fail "the stop took $took s for a request of 4 s"
    docker compose up --wait >/dev/null 2>&1 || fail "it does not start again"
    before=$(date +%s)
    docker compose stop proxy >/dev/null 2>&1
    idle=$(($(date +%s) - before))
    [ "$idle" -le 3 ] || fail "the stop of an idle proxy took $idle s"
    passed "stopped in $took s with a request of 4 s, in $idle s without"
}

# New containers over the same volume: the client is there, and so are its spent tokens.
check_volume() {
    docker compose down >/dev/null 2>&1
    docker compose up --wait >/dev/null 2>&1 || fail "it does not come up on its old volume"
    client=$(docker compose exec -T proxy tollgate clients get user1 --json)
    case $client in
        *'"tokens":4'*) passed "a new container has the clients and the spent tokens of the old one" ;;
        *) fail "the client after down and up: $client" ;;
    esac
}

find_docker
find_compose
work=$(mktemp -d)
COMPOSE_PROJECT_NAME=tollgate-test-$$
TOLLGATE_IMAGE=tollgate-test:$$
TOLLGATE_PROXY_PORT=$(free_port $((20000 + $$ % 5000)))
TOLLGATE_ADMIN_PORT=$(free_port $((26000 + $$ % 5000)))
TOLLGATE_ADMIN_TOKEN=unset-before-the-page-does
export COMPOSE_PROJECT_NAME TOLLGATE_IMAGE TOLLGATE_PROXY_PORT TOLLGATE_ADMIN_PORT TOLLGATE_ADMIN_TOKEN
trap finish EXIT
trap 'exit 130' INT TERM
build
check_image
run_page
check_container
check_stop
check_volume
