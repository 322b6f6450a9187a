#!/bin/sh
# Checks what is shipped, and runs it as it is shipped: scripts, manual page, systemd unit, Debian package.
#
#   packaging/test-package.sh
#
# What only reads comes first; a tool that is not installed is named and left out. Then, as root with debootstrap,
# systemd-nspawn and cargo-deb, the package is built, and a small Debian with a systemd of its own and no network boots and
# runs packaging/test-package-inside.sh: install, start, reload under load, upgrade, stop, purge. Without them this says that
# it was not run, and fails. All of it stays below target/test-package.
set -eu
cd "$(dirname "$0")/.."

work=target/test-package
unit=packaging/tollgate.service
# In tenths, what `systemd-analyze security` may find: 2.0 of 10, where an ordinary unit has 9.6.
EXPOSURE=20

say() { printf 'test-package: %s\n' "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
passed() { say "ok: $*"; }
has() { command -v "$1" >/dev/null || { say "left out: $2 ($1 is not installed)"; false; }; }

check_scripts() {
    for script in packaging/*.sh packaging/debian/postinst packaging/debian/postrm; do
        sh -n "$script" || fail "$script"
    done
    ! has shellcheck "the lint of the scripts" ||
        shellcheck packaging/*.sh packaging/debian/postinst packaging/debian/postrm || fail "shellcheck"
    passed "scripts"
}

check_manual() {
    page=packaging/man/tollgate.1
    if has mandoc "the lint of the manual page"; then
        said=$(mandoc -T lint "$page" 2>&1) || true
        [ -z "$said" ] || fail "mandoc: $said"
    fi
    if has groff "the formatting of the manual page"; then
        said=$(groff -man -ww -z -Tutf8 "$page" 2>&1) || true
        [ -z "$said" ] || fail "groff: $said"
    fi
    passed "manual page"
}

# The unit as it is, but for programs that are not installed here.
check_unit() {
    has systemd-analyze "the check of the unit" || return 0
    sed 's|=/usr/bin/tollgate |=/bin/true |' "$unit" >"$work/tollgate.service"
    said=$(systemd-analyze verify --man=no "$work/tollgate.service" 2>&1) || fail "systemd-analyze verify: $said"
    [ -z "$said" ] || fail "systemd-analyze verify: $said"
    systemd-analyze security --offline=true --threshold=$EXPOSURE "$work/tollgate.service" >"$work/security" 2>&1 ||
        { grep '✗' "$work/security" >&2; fail "systemd-analyze security: more than $EXPOSURE tenths"; }
    passed "unit: $(tail -n 1 "$work/security" | sed 's/^[^A-Za-z]*//; s/ [^ ]*$//')"
}

check_configuration() {
    cargo run --quiet --locked -- check -c packaging/tollgate.yaml || fail "packaging/tollgate.yaml"
    ! has logrotate "the check of the rotation" || logrotate --debug packaging/tollgate.logrotate >"$work/logrotate" 2>&1 ||
        fail "logrotate: $(tail -n 1 "$work/logrotate")"
    passed "configuration of a fresh installation"
}

build_package() {
    rm -rf "$work/packages"
    for revision in 1 2; do
        cargo deb --quiet --locked --deb-revision "$revision" --output "$work/packages/" >&2 || fail "cargo deb"
    done
    package=$(echo "$work"/packages/*-1_*.deb)
    newer=$(echo "$work"/packages/*-2_*.deb)
    dpkg-deb -c "$package" | awk '{print $6}' >"$work/content"
    for path in usr/bin/tollgate usr/lib/systemd/system/tollgate.service etc/tollgate/tollgate.yaml \
        etc/logrotate.d/tollgate usr/lib/sysusers.d/tollgate.conf usr/share/man/man1/tollgate.1.gz \
        usr/share/doc/tollgate/copyright usr/share/doc/tollgate/examples/tollgate.yaml \
        usr/share/doc/tollgate/examples/tollgate.schema.json; do
        grep -qx "./$path" "$work/content" || fail "the package has no $path"
    done
    dpkg-deb -I "$package" conffiles | grep -qx /etc/tollgate/tollgate.yaml || fail "the configuration is no conffile"
    passed "package: $(du -k "$package" | cut -f 1) KiB"
}

# The release that the package was built on, so that its C library is there.
debian() {
    [ ! -e "$work/base/.complete" ] || return 0
    rm -rf "$work/base"
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    say "making a $suite with debootstrap, once"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,logrotate,procps "$suite" "$work/base" \
        >"$work/debootstrap" 2>&1 || { tail -n 5 "$work/debootstrap" >&2; fail "debootstrap"; }
    : >"$work/base/.complete"
}

run_inside() {
    debian
    root=$PWD/$work/root
    rm -rf "$root"
    cp -a "$work/base" "$root"
    install -m 755 packaging/test-package-inside.sh "$root/root/inside.sh"
    cp "$package" "$root/root/first.deb"
    cp "$newer" "$root/root/second.deb"
    cat >"$root/etc/systemd/system/inside.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/root/inside.sh
TimeoutStartSec=300
StandardOutput=file:/root/report
StandardError=file:/root/report
[Install]
WantedBy=multi-user.target
UNIT
    ln -s /etc/systemd/system/inside.service "$root/etc/systemd/system/multi-user.target.wants/inside.service"
    set --
    [ -d /run/systemd/system ] || set -- --keep-unit # no systemd here to make a unit for it
    say "booting a systemd of its own"
    timeout 400 systemd-nspawn --quiet --directory="$root" --boot --register=no --private-network --console=pipe "$@" \
        </dev/null >"$work/console" 2>&1 || true
    cat "$root/root/report" >&2 || { tail -n 5 "$work/console" >&2; fail "it does not boot"; }
    grep -qx 'all passed' "$root/root/report" || fail "see above; the journal: journalctl --directory $work/root/var/log/journal"
    rm -rf "$root"
}

mkdir -p "$work"
check_scripts
check_manual
check_unit
check_configuration
ready=yes
has cargo-deb "the package (cargo install cargo-deb --locked)" || ready=
has debootstrap "the installation" || ready=
has systemd-nspawn "the service under systemd (Debian: apt-get install systemd-container)" || ready=
[ "$(id -u)" -eq 0 ] || { say "left out: the installation (it takes root)"; ready=; }
[ -n "$ready" ] || fail "the package was not installed and the service was not run"
build_package
run_inside
say "all passed"
