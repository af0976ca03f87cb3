#!/bin/bash
# What the booted machine of run.sh does, as a service of its systemd: one part before a restart of the machine, one behind
# it. Each line of the second serial port is a test: "ok WHAT", or "not ok WHAT" with the reason below it.
set -uo pipefail
cd /proof || exit
# shellcheck source=tests/package/inside.sh
. ./inside.sh
# shellcheck disable=SC2034 # readme.sh reads it
README=/proof/README.md
# shellcheck source=tests/readme.sh
. /proof/readme.sh
# Root needs no sudo, and an editor fills in the first settings.
sudo() { "$@"; }
sudoedit() { first_settings "$1"; }
# Everything, or what one boot shows.
IFS=' ' read -r part whole <./part

service_log() { journalctl --no-pager -q -n 5 -u 'pandaproxy*' -o cat; }

# The command, with what it prints in a file that the next check does not overwrite.
kept() { "$@" >/proof/kept_said 2>&1 || { cat /proof/kept_said; return 1; }; }

# README's command follows the log until it is ended.
follows() {
    local line
    line=$(readme_line 'journalctl') || return
    timeout 5 sh -c "$line" >/proof/log
    grep -q 'listening on' /proof/log
}

main_pid() { systemctl show --property MainPID --value "$1"; }
has_new_pid() { [ "$(main_pid "$1")" != 0 ] && [ "$(main_pid "$1")" != "$2" ]; }
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
        no_network
        full_disk
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
    check "and dpkg does not call the new version installed" refused dpkg --configure -a
    check "but says which binary is there" grep -q 'the binary is still that of version 1.1.1' said
    check "which serves" within 60 healthy
    check "the next good version repairs it" apt-get install -y -o Dpkg::Options::=--force-confold ./pandaproxy_1.3.0_amd64.deb
    check "and is installed" version 1.3.0
    check "and it is healthy" within 60 healthy
    if [ -n "$whole" ]; then changed_settings; fi
}

# The printers' network is gone when the service starts.
no_network() {
    ip link set printers down
    check "without a network it starts" systemctl restart pandaproxy
    check "and is healthy" within 60 healthy
    ip link set printers up
    check "and serves once the network is there" within 120 state 127.0.0.1
}

# Leaves this many KiB of the disk, or all of it.
leave_free() {
    rm -f /fill
    [ -z "${1-}" ] || fallocate -l "$(($(df -k --output=avail / | tail -n 1) - $1))K" /fill
}

# The disk is full at one step of an upgrade after the other: keeping the old binary, unpacking, the package's lists.
full_disk() {
    local pid free
    pid=$(main_pid pandaproxy)
    for free in 0 1000 4500 7000; do
        leave_free $free
        if apt-get install -y ./pandaproxy_1.1.0_amd64.deb >said 2>&1; then
            leave_free
            printf '# with %s KiB free the upgrade succeeds\n' $free
            break
        fi
        sed 's/^/# /' said | grep -i 'space' | tail -n 1
        leave_free
        check "with $free KiB free an upgrade leaves the service as it is" \
            sh -c "[ '$pid' = \"\$(systemctl show --property MainPID --value pandaproxy)\" ]"
        check "and its version" version 1.0.0
        check "and its binary" pandaproxy --version
        check "and nothing beside it" refused test -e /var/lib/pandaproxy-upgrade
    done
    check "with space again the version is installed" apt-get install -y --allow-downgrades ./pandaproxy_1.0.0_amd64.deb
    check "and it is healthy" within 60 healthy
}

# Settings that were changed here, and are others in the new version, too (1.3.0 has one line more).
changed_settings() {
    local before
    check "the example of the new version is beside the settings" test -e $CONF.dpkg-dist -o -e $CONF.dpkg-new
    before=$(sha256sum <$CONF)
    check "an upgrade whose question about them nobody answers is refused or keeps them" \
        sh -c "apt-get install -y ./pandaproxy_1.4.0_amd64.deb </dev/null; [ '$before' = \"\$(sha256sum <$CONF)\" ]"
    check "one that is to keep them does" apt-get install -y -o Dpkg::Options::=--force-confold ./pandaproxy_1.4.0_amd64.deb
    check "and they are the same" sh -c "[ '$before' = \"\$(sha256sum <$CONF)\" ]"
    check "and it is healthy" within 60 healthy
    check "a package for another processor is refused" refused dpkg -i ./pandaproxy_1.5.0_amd64.deb
    sed 's/^/# /' said | grep architecture
    check "and changes nothing" version 1.4.0
    check "and it is healthy" within 60 healthy
}

# An installation by install.sh, the package over it, and back.
by_hand() {
    local authority pid
    cp tarball/pandaproxy.conf given.conf
    first_settings given.conf
    check "install.sh makes it a service" ./tarball/install.sh --config given.conf
    authority=$(pandaproxy ca --state-dir /var/lib/pandaproxy | sha256sum)
    pid=$(main_pid pandaproxy)
    check "the package is installed over it" apt-get install -y -o Dpkg::Options::=--force-confold ./pandaproxy_1.4.0_amd64.deb
    check "and says that the other one stays" grep -q 'an installation by install.sh' said
    check "which it does" sh -c "[ '$pid' = \"\$(systemctl show --property MainPID --value pandaproxy)\" ]"
    check "that one is removed" ./tarball/install.sh --uninstall
    check "and the package's starts" systemctl enable --now pandaproxy
    hash -r
    check "and is the package's" sh -c 'systemctl show --property ExecStart pandaproxy | grep -q path=/usr/bin/pandaproxy'
    check "a client gets the state" within 60 state 127.0.0.1
    check "install.sh says what is to be done first" refused ./tarball/install.sh
    check "which is to remove the package" grep -q 'apt remove pandaproxy' said
    check "that one is removed" apt-get remove -y pandaproxy
    check "and install.sh makes it a service again" ./tarball/install.sh
    hash -r
    check "a client gets the state" within 60 state 127.0.0.1
    check "by the same authority" sh -c "[ '$authority' = \"\$(pandaproxy ca --state-dir /var/lib/pandaproxy | sha256sum)\" ]"
    check "purging what is left of the package" apt-get purge -y pandaproxy
    check "leaves the service alone" within 60 healthy
    check "and its settings" test -s $CONF
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
    if [ -n "$whole" ]; then by_hand; fi
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
    setting $CONF STRICT_SERIAL true
    check "by its own serial number" is_served 10.9.0.5 "$(cat other_serial)"
    check "the first has no reports under the second's serial number" is_denied 10.9.0.1 "$(cat other_serial)"
    check "nor the second under the first's" is_denied 10.9.0.5 "$(cat serial)"
    setting $CONF STRICT_SERIAL false
