#!/bin/sh
# Makes a machine ready for `make bench`, or says what to install. Says nothing when there is nothing to do.
#
# nginx, HAProxy, wrk and h2load come from the system's packages: on Debian and Ubuntu as root, or through a sudo that asks
# for no password. Their services are not started. Never fails for a missing one: the benchmark leaves it out and says so.
set -eu

say() { echo "benches/peers/setup.sh: $*" >&2; }

# The program, and its package in Debian and Ubuntu.
programs="nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client taskset:util-linux setpriv:util-linux"

find_missing() {
    missing='' packages=''
    for pair in $programs; do
        # Debian keeps servers in sbin, which is not on everybody's path.
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null && continue
        missing="$missing ${pair%%:*}"
        packages="$packages ${pair#*:}"
    done
    [ -n "$missing" ]
}

give_up() {
    say "missing:$missing. $1"
    say "To have all of them in the benchmark:"
    say "  Debian, Ubuntu:  sudo apt-get update && sudo apt-get install -y nginx haproxy wrk nghttp2-client util-linux"
    say "  Fedora:          sudo dnf install -y nginx haproxy wrk nghttp2 util-linux"
    say "  Alpine:          sudo apk add nginx haproxy wrk nghttp2 util-linux-misc setpriv"
    exit 0
}

find_missing || exit 0
[ "$(uname)" = Linux ] || give_up "The benchmark reads /proc and pins processes, so it needs Linux."
command -v apt-get >/dev/null || give_up "There is no apt-get here."
as_root=''
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || give_up "Installing takes root or a sudo that asks for no password."
    as_root="sudo -n"
fi
say "missing:$missing; installing$packages with apt-get"

# Installing a server starts its service, which is of no use here and would take port 80. A policy that is there already is
# the owner's, and stays.
policy=/usr/sbin/policy-rc.d ours=''
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
log=$(mktemp)
trap '[ -z "$ours" ] || $as_root rm -f "$policy"; rm -f "$log"' EXIT
trap 'exit 130' INT TERM
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120"
$apt update </dev/null >"$log" 2>&1 || true # lists that are only partly fresh may still do
# One at a time: a system without one of them has the others.
for package in $packages; do
    # shellcheck disable=SC2086 # the words of $apt are words
    $apt install --no-install-recommends "$package" </dev/null >>"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        say "apt-get could not install $package (its last lines are above)"
    }
done
! find_missing || give_up "apt-get installed what it could."
