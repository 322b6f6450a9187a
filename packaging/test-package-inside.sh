#!/bin/bash
# The half of packaging/test-package.sh that runs in a Debian of its own, as root, under its systemd.
set -u

fail() { echo "FAILED: $*"; journalctl -u tollgate --no-pager -n 25 -o cat; exit 1; }
passed() { echo "ok: $*"; }
show() { systemctl show tollgate --value -p "$1"; }
status() { curl -s -o /dev/null -m 10 -w '%{http_code}' "$1"; }

answers() { [ "$(status http://127.0.0.1/)" = 200 ]; }
active_and_not() { [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$1" ]; }
in_flight() { curl -s http://127.0.0.1:9901/upstreams | grep -q '"in_flight":[1-9]'; }
writes_after() { status http://127.0.0.1/after >/dev/null; grep -q '"/after"' /var/log/tollgate/access.log; }

# until_it TENTHS COMMAND...: whether the command succeeds within so many tenths of a second.
until_it() {
    local tries=$1
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# Requests one after the other, each over a connection of its own, until told to stop; every one that is not 200 is kept.
load() {
    rm -f /root/stop
    : >/root/failed
    echo 0 >/root/sent
    (
        sent=0
        while [ ! -e /root/stop ]; do
            code=$(status http://127.0.0.1/)
            [ "$code" = 200 ] || echo "$code" >>/root/failed
            sent=$((sent + 1))
            echo "$sent" >/root/sent
        done
    ) &
    load=$!
    until_it 50 grep -qv '^0$' /root/sent || fail "no load"
}

end_load() {
    : >/root/stop
    wait "$load"
    [ ! -s /root/failed ] || fail "$1: $(sort /root/failed | uniq -c | tr '\n' ' ')of $(cat /root/sent) requests failed"
    passed "$1: $(cat /root/sent) requests, none failed"
}

install_it() {
    dpkg -i /root/first.deb || fail "dpkg -i"
    [ "$(show ActiveState)" = active ] || fail "it does not run after the installation"
    systemctl --quiet is-enabled tollgate || fail "it is not enabled"
    # No waiting here: a unit that is active has its listeners.
    [ "$(status http://127.0.0.1:9901/readyz)" = 200 ] || fail "it is active and not ready"
    [ "$(status http://127.0.0.1:8080/)" = 503 ] || fail "the first configuration does not answer as it should"
    tollgate check -c /etc/tollgate/tollgate.yaml || fail "check"
    man_page=$(zcat /usr/share/man/man1/tollgate.1.gz | head -n 2)
    [[ $man_page == *TOLLGATE* ]] || fail "no manual page"
    passed "installed, enabled, running"
}

check_rights() {
    local proc
    proc=/proc/$(show MainPID)/status
    [ "$(stat -c %U "$proc")" = tollgate ] || fail "it runs as $(stat -c %U "$proc")"
    grep -q '^CapEff:\s*0000000000000400$' "$proc" || fail "$(grep ^CapEff "$proc"), and not CAP_NET_BIND_SERVICE alone"
    grep -q '^CapBnd:\s*0000000000000400$' "$proc" || fail "$(grep ^CapBnd "$proc")"
    grep -q '^NoNewPrivs:\s*1$' "$proc" || fail "it may gain privileges"
    grep -q '^Seccomp:\s*2$' "$proc" || fail "system calls are not filtered"
    [ "$(stat -c '%U %a' /var/lib/tollgate/tollgate.db)" = 'tollgate 600' ] || fail "the database can be read by others"
    passed "its own user, one capability, filtered system calls"
}

low_port() {
    sed -i 's/127.0.0.1:8080/0.0.0.0:80/' /etc/tollgate/tollgate.yaml
    cat >>/etc/tollgate/tollgate.yaml <<'YAML'
rate_limit: {enabled: false}
YAML
    systemctl restart tollgate || fail "it does not start on port 80"
    tollgate echo --listen 127.0.0.1:9001 --name one 2>/dev/null >&2 &
    until_it 150 answers || fail "port 80 does not answer"
    passed "port 80"
}

# A reload is an upgrade: another process, and no request lost. What comes after the old one has ended counts as well.
reload() {
    local old
    for _ in 1 2 3; do
        old=$(show MainPID)
        curl -s -o /dev/null -w '%{http_code}' 'http://127.0.0.1/?delay_ms=8000' >/root/slow &
        slow=$!
        until_it 20 in_flight || fail "the slow request is not seen"
        load
        systemctl reload tollgate || fail "systemctl reload"
        [ "$(show MainPID)" != "$old" ] || fail "the main process is still $old"
        until_it 300 test ! -e "/proc/$old" || fail "the old process $old is still there after 30 s"
        wait "$slow"
        [ "$(cat /root/slow)" = 200 ] || fail "the request that ran during the reload got $(cat /root/slow)"
        end_load "reload, with a request of 8 s in flight"
        [ "$(show ActiveState)/$(show SubState)" = active/running ] || fail "after a reload: $(systemctl is-active tollgate)"
    done
}

reload_of_nonsense() {
    local old
    old=$(show MainPID)
    cp /etc/tollgate/tollgate.yaml /root/good.yaml
    echo 'nonsense: 1' >>/etc/tollgate/tollgate.yaml
    load
    ! systemctl reload tollgate 2>/dev/null || fail "a reload of a wrong file succeeds"
    [ "$(show MainPID)/$(show ActiveState)" = "$old/active" ] || fail "a reload of a wrong file changed the process"
    end_load "reload of a wrong file, refused"
    ! systemctl restart tollgate 2>/dev/null || fail "a start with a wrong file succeeds"
    [ "$(show NRestarts)/$(show ExecMainStatus)" = 0/2 ] || fail "a wrong file is tried again and again"
    cp /root/good.yaml /etc/tollgate/tollgate.yaml
    systemctl restart tollgate || fail "it does not start with the good file"
    until_it 150 answers || fail "no answer after the good file is back"
}

crash() {
    local old
    systemctl reload tollgate || fail "systemctl reload"
    old=$(show MainPID)
    kill -KILL "$old"
    until_it 100 active_and_not "$old" || fail "not restarted"
    until_it 150 answers || fail "no answer after a crash"
    passed "restarted after kill -9 of a process that a reload had started"
}

upgrade_package() {
    local old
    old=$(show MainPID)
    load
    dpkg -i /root/second.deb || fail "dpkg -i of the next version"
    [ "$(show MainPID)" != "$old" ] || fail "the old version still runs"
    end_load "upgrade of the package"
}

rotate() {
    status http://127.0.0.1/before >/dev/null
    until_it 50 grep -q '"/before"' /var/log/tollgate/access.log || fail "no access line"
    logrotate -f /etc/logrotate.d/tollgate || fail "logrotate"
    until_it 50 writes_after ||
        fail "nothing is written after a rotation"
    ! grep -q '"/before"' /var/log/tollgate/access.log || fail "the access log was not rotated"
    passed "access log rotated"
}

stop() {
    local started took
    curl -s -o /dev/null -w '%{http_code}' 'http://127.0.0.1/?delay_ms=3000' >/root/slow &
    slow=$!
    until_it 20 in_flight || fail "the slow request is not seen"
    started=$(date +%s)
    systemctl stop tollgate || fail "systemctl stop"
    took=$(($(date +%s) - started))
    wait "$slow"
    [ "$(cat /root/slow)" = 200 ] || fail "the request that ran during the stop got $(cat /root/slow)"
    [ "$took" -le 10 ] || fail "the stop took $took s"
    [ "$(show Result)" = success ] || fail "the stop was not a clean one: $(show Result)"
    [ ! -e /run/tollgate ] || fail "/run/tollgate is left: $(ls /run/tollgate)"
    passed "stopped in $took s with a request of 3 s"
}

purge() {
    systemctl start tollgate || fail "it does not start"
    dpkg -r tollgate >/dev/null || fail "dpkg -r"
    [ -e /var/lib/tollgate/tollgate.db ] || fail "the removal took the database along"
    ! pgrep -f 'tollgate run' >/dev/null || fail "it runs after the removal"
    dpkg -P tollgate || fail "dpkg -P"
    left=$(find / -xdev -name '*tollgate*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/var/log/journal/*')
    [ -z "$left" ] || fail "left after the purge: $left"
    passed "removed and purged"
}

mkdir -p /var/log/journal
systemctl restart systemd-journald
install_it
check_rights
low_port
reload
reload_of_nonsense
crash
upgrade_package
rotate
stop
purge
echo 'all passed'
