#!/bin/bash
# What the booted machine of run.sh does, as a service of its systemd: one part before a restart of the machine, one behind
# it. Each line of the second serial port is a test: "ok WHAT", or "not ok WHAT" with the reason below it.
set -uo pipefail
exec >/dev/ttyS1 2>&1

readonly PRINTER=10.9.0.2 OTHER_PRINTER=10.9.0.3 CODE=12345678
readonly CONF=/etc/pandaproxy/pandaproxy.conf
cd /proof || exit
# shellcheck disable=SC2034 # readme.sh reads it
README=/proof/README.md
# shellcheck source=tests/readme.sh
. /proof/readme.sh
# Root needs no sudo, and an editor fills in the first three settings.
sudo() { "$@"; }
sudoedit() {
    setting "$1" PRINTER_IP $PRINTER
    setting "$1" ACCESS_CODE $CODE
    setting "$1" SERIAL_NUMBER "$(cat serial)"
}
# Everything, or what one boot shows.
IFS=' ' read -r part whole <./part

ok() { printf 'ok %s\n' "$1"; }

# check WHAT COMMAND...: the command has to succeed.
check() {
    local what=$1
    shift
    if "$@" >/proof/said 2>&1; then ok "$what"; else
        printf 'not ok %s\n' "$what"
        sed 's/^/    /' /proof/said | tail -n 15
        journalctl --no-pager -q -n 5 -u 'pandaproxy*' -o cat | sed 's/^/    log: /'
    fi
}

# within SECONDS COMMAND...: the command has to succeed at last.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 1
    done
}

# The command, with what it prints in a file that the next check does not overwrite.
kept() { "$@" >/proof/kept_said 2>&1 || { cat /proof/kept_said; return 1; }; }

refused() { ! "$@"; }

setting() { sed -i "s|^#\?$2=.*|$2=$3|" "$1"; }

# The printers, in a network namespace of their own: they have the ports that the proxies have.
printers() {
    ip link set lo up
    ip netns add printers
    ip link add printers type veth peer name eth0 netns printers
    ip addr add 10.9.0.1/24 dev printers
    ip addr add 10.9.0.5/24 dev printers
    ip link set printers up
    ip -n printers link set lo up
    ip -n printers addr add $PRINTER/24 dev eth0
    ip -n printers addr add $OTHER_PRINTER/24 dev eth0
    ip -n printers link set eth0 up
    ip netns exec printers ./printer --model p1s --bind $PRINTER --camera-port 6000 --ftp-port 990 \
        --detect-port 3000 >printer.log 2>&1 &
    ip netns exec printers ./printer --model x1c --bind $OTHER_PRINTER --rtsp-port 322 --tunnel-port 6000 \
        --ftp-port 990 --detect-port 3000 >other.log 2>&1 &
}

# The state that a client gets with the certificate authority of `pandaproxy ca`.
state() {
    pandaproxy ca --state-dir /var/lib/pandaproxy >/proof/ca.pem &&
        mosquitto_sub -h "$1" -p 8883 -u bblp -P $CODE --cafile /proof/ca.pem -t 'device/+/report' -C 1 -W 20 >/dev/null
}

# README's command follows the log until it is ended.
follows() {
    local line
    line=$(readme_line 'journalctl') || return
    timeout 5 sh -c "$line" >/proof/log
    grep -q 'listening on' /proof/log
}

main_pid() { systemctl show --property MainPID --value "$1"; }
has_new_pid() { [ "$(main_pid "$1")" != 0 ] && [ "$(main_pid "$1")" != "$2" ]; }
healthy() { pandaproxy health --config $CONF --state-dir /var/lib/pandaproxy; }
version() { [ "$(dpkg-query -W -f '${Version}' pandaproxy)" = "$1" ]; }

first_part() {
    # There is one for this machine, with other versions beside it.
    check "apt installs the package, as README says" readme 'sudo apt install' 's/_\*_arm64/_1.0.0_amd64/' -y
    check "its user has no shell and no home" \
        sh -c 'getent passwd pandaproxy | grep -q ":/var/lib/pandaproxy:/usr/sbin/nologin$"'
    check "the settings are the service's and root's alone" \
        sh -c "[ \"\$(stat -c '%a %U:%G' $CONF)\" = '640 root:pandaproxy' ]"
    check "it does not start without settings" refused systemctl is-active pandaproxy
    check "the man page is there" test -s /usr/share/man/man1/pandaproxy.1.gz

    # The three lines of every newcomer, and the authority of printers that are simulated.
    check "its settings are where README says" readme 'sudoedit'
    setting $CONF PRINTER_CA /etc/pandaproxy/simulated.pem
    cp pki.pem /etc/pandaproxy/simulated.pem
    check "it starts once it has three settings" readme 'sudo systemctl enable'
    check "it is healthy" within 60 healthy
    check "a client gets the state, with the authority" within 60 state 127.0.0.1
    check "systemd's verdict on its rights is good" \
        sh -c 'systemd-analyze security --no-pager pandaproxy | tail -n 1 | tee /dev/ttyS1 | grep -q OK'

    check "its log is where README says" follows
    check "recent events are logged as README says" readme 'sudo pkill'
    check "in the log" within 10 sh -c 'journalctl -q -u pandaproxy -o cat | grep -q "^journal, the last"'

    local pid
    pid=$(main_pid pandaproxy)
    kill -9 "$pid"
    check "a crash is followed by a start" within 60 has_new_pid pandaproxy "$pid"
    check "and it is healthy" within 60 healthy

    if [ -n "$whole" ]; then
        pid=$(main_pid pandaproxy)
        kill -STOP "$pid"
        check "the watchdog restarts one that hangs" within 120 has_new_pid pandaproxy "$pid"
        check "and it is healthy" within 60 healthy
        several_printers
    fi

    pid=$(main_pid pandaproxy)
    check "a restart is as README says" readme 'sudo systemctl restart'
    check "by a new process" has_new_pid pandaproxy "$pid"
    check "and it is healthy" within 60 healthy
    by_install_script

    pid=$(main_pid pandaproxy)
    echo '# A local change.' >>$CONF
    local authority before
    authority=$(pandaproxy ca --state-dir /var/lib/pandaproxy | sha256sum)
    before=$(sha256sum <$CONF)
    outage &
    check "an upgrade restarts it" apt-get install -y ./pandaproxy_1.1.0_amd64.deb
    check "by the new process" has_new_pid pandaproxy "$pid"
    check "and it is healthy" within 60 healthy
    kill %+ 2>/dev/null
    printf '# the port was closed for %s tenths of a second during the upgrade\n' "$(cat /proof/outage)"
    check "with its certificate authority" \
        sh -c "[ '$authority' = \"\$(pandaproxy ca --state-dir /var/lib/pandaproxy | sha256sum)\" ]"
    check "and local changes to the settings" sh -c "[ '$before' = \"\$(sha256sum <$CONF)\" ]"

    pid=$(main_pid pandaproxy)
    cp $CONF /proof/kept.conf
    echo 'PRINTER_I' >>$CONF
    check "an upgrade with half-written settings ends well" apt-get install -y ./pandaproxy_1.1.1_amd64.deb
    check "and leaves the service as it is" sh -c "[ '$pid' = \"\$(systemctl show --property MainPID --value pandaproxy)\" ]"
    cat /proof/kept.conf >$CONF
    check "whose clients are served" within 60 state 127.0.0.1

    check "an upgrade to one that does not start fails" refused apt-get install -y ./pandaproxy_1.2.0_amd64.deb
    check "and the old binary serves" within 60 healthy
    check "and a client gets the state" within 60 state 127.0.0.1
    check "the next good version repairs it" apt-get install -y ./pandaproxy_1.3.0_amd64.deb
    check "and is installed" version 1.3.0
    check "and it is healthy" within 60 healthy
}

# install.sh with a package beside it, as flash.sh copies it: real apt, and nothing to do or a repair.
by_install_script() {
    check "install.sh finds the package as it is" kept ./flash/install.sh
    check "and says so" grep -q 'nothing to do' kept_said
    check "install.sh installs the package again" kept ./flash/install.sh --repair
    sed 's/^/# /' kept_said
    check "by apt" grep -q 'installed by apt, started by systemd' kept_said
    check "and shows what check says" grep -q 'check: .* stages work' kept_said
    check "and what to do next" grep -q '^    page      http://' kept_said
}

# Tenths of a second for which the port is closed.
outage() {
    local tenths=0
    while :; do
        if ! (exec 3<>/dev/tcp/127.0.0.1/8883) 2>/dev/null; then tenths=$((tenths + 1)); fi
        echo $tenths >/proof/outage
        sleep 0.1
    done
}

several_printers() {
    local conf=/etc/pandaproxy/garage.conf
    cp $CONF $conf
    chown root:pandaproxy $conf
    setting $conf PRINTER_IP $OTHER_PRINTER
    setting $conf SERIAL_NUMBER "$(cat other_serial)"
    setting $conf BIND_ADDRESS 10.9.0.1
    check "a second printer on an address of the first is refused" \
        sh -c 'systemctl start pandaproxy@garage; ! systemctl is-active pandaproxy@garage'
    journalctl --no-pager -q -u pandaproxy@garage -o cat | grep -m 1 'in use' | sed 's/^/# /'
    setting $CONF BIND_ADDRESS 10.9.0.1
    setting $conf BIND_ADDRESS 10.9.0.5
    systemctl reset-failed pandaproxy@garage
    check "each has an address of its own" systemctl restart pandaproxy
    check "and the second starts" systemctl enable --now pandaproxy@garage
    check "a client of the first is served" within 60 state 10.9.0.1
    check "a client of the second is served, by the same authority" within 60 state 10.9.0.5
    check "the authority's key is its owner's alone" \
        sh -c "[ -z \"\$(find /var/lib/pandaproxy -name '*.key' -perm /077)\" ]"
    setting $CONF BIND_ADDRESS 0.0.0.0
    systemctl disable --now pandaproxy@garage
    systemctl restart pandaproxy
}

second_part() {
    check "it starts with the machine" within 60 systemctl is-active pandaproxy
    check "a client gets the state" within 60 state 127.0.0.1
    check "removing ends it, as README says" readme 'sudo apt remove' '' -y
    check "and its settings and certificates stay" test -f $CONF -a -d /var/lib/pandaproxy
    check "purging" apt-get purge -y pandaproxy
    check "leaves no certificates and no settings of the package" \
        sh -c "! [ -e /var/lib/pandaproxy -o -e $CONF ]"
    check "and no unit" refused systemctl cat pandaproxy
}

printers
if [ "$part" = first ]; then
    first_part
    if [ -n "$whole" ]; then
        echo second whole >part
        sync
        systemctl reboot
        exit
    fi
fi
second_part
echo "# end"
sync
systemctl poweroff
