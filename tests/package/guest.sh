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
    local line shown=0
    line=$(readme_line 'journalctl') || return
    sh -c "exec $line" >/proof/log &
    within 60 grep -q 'listening on' /proof/log || shown=1
    kill $!
    return $shown
}

main_pid() { systemctl show --property MainPID --value "$1"; }
has_new_pid() { [ "$(main_pid "$1")" != 0 ] && [ "$(main_pid "$1")" != "$2" ]; }
version() { [ "$(dpkg-query -W -f '${Version}' pandaproxy)" = "$1" ]; }

# deb-systemd-invoke as Debian 11 has it, which passes options on to systemctl.
old_helper() {
    mv /usr/bin/deb-systemd-invoke /usr/bin/deb-systemd-invoke.real
    # shellcheck disable=SC2016 # the stub expands it
    printf '#!/bin/sh\ncase $1 in -*) exec systemctl "$@" ;; esac\nexec /usr/bin/deb-systemd-invoke.real "$@"\n' >/usr/bin/deb-systemd-invoke
    chmod 755 /usr/bin/deb-systemd-invoke
}

first_part() {
    old_helper
    # There is one for this machine, with other versions beside it.
    check "apt installs the package, as README says" readme 'sudo apt install' 's/_\*_arm64/_1.0.0_amd64/' -y
    check "its user has no shell and no home" \
        sh -c 'getent passwd pandaproxy | grep -q ":/var/lib/pandaproxy:/usr/sbin/nologin$"'
    check "the settings are the service's and root's alone" \
        sh -c "[ \"\$(stat -c '%a %U:%G' $CONF)\" = '640 root:pandaproxy' ]"
    check "it does not start without settings" refused systemctl is-active pandaproxy
    check "the man page is there" test -s /usr/share/man/man1/pandaproxy.1.gz
    check "and what explains the words of check" test -s /usr/share/doc/pandaproxy/TROUBLESHOOTING.md

    # The three lines of every newcomer, and the authority of printers that are simulated.
    check "its settings are where README says" readme 'sudoedit'
    check "it starts once it has three settings" readme 'sudo systemctl enable'
    check "it is healthy" within 60 healthy
    check "a client gets the state, with the authority" within 60 state 127.0.0.1
    check "check finds that all works, as README has it" by_check 0
    check "the printer, its certificate, the login and its reports" [ "$(grep -c '^✓  [3-6] ' verdict)" = 4 ]
    check "systemd's verdict on its rights is good" \
        sh -c 'systemd-analyze security --no-pager pandaproxy | tail -n 1 | tee /dev/ttyS1 | grep -q OK'

    check "its log is where README says" follows
    check "recent events are logged as README says" readme 'sudo pkill'
    check "in the log" within 60 sh -c 'journalctl -q -u pandaproxy -o cat | grep -q "^journal, the last"'

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
        verdicts
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

    # Started by hand, and not with the machine: it is not to stay down either.
    systemctl disable pandaproxy
    check "an upgrade to one that does not start fails" refused apt-get install -y ./pandaproxy_1.2.0_amd64.deb
    check "and the old binary serves" within 60 healthy
    check "and a client gets the state" within 60 state 127.0.0.1
    check "and dpkg does not call the new version installed" refused dpkg --configure -a
    check "but says which binary is there" grep -q 'the binary is still that of version 1.1.1' said
    check "which serves" within 60 healthy
    systemctl enable pandaproxy
    check "the next good version repairs it" apt-get install -y -o Dpkg::Options::=--force-confold ./pandaproxy_1.3.0_amd64.deb
    check "and is installed" version 1.3.0
    check "and it is healthy" within 60 healthy
    if [ -n "$whole" ]; then
        changed_settings
        no_printer
        full_return
        given_up
        interrupted
    fi
}

# README's command to find out what is wrong has this exit status; what it says is shown.
by_check() {
    local code=0
    # The service dials its printer when it starts.
    within 10 sh -c "! pandaproxy status --json | grep -qE '\"reachable\":null|\"upstream\":\"connecting\"'"
    readme 'sudo pandaproxy check' >verdict 2>/dev/null || code=$?
    sed 's/^/#   /' verdict >/dev/ttyS1
    [ $code = "$1" ]
}

# verdict WHAT CODE [KEY VALUE]...: what it says to a service with these settings.
verdict() {
    local what=$1 code=$2
    shift 2
    cp $CONF kept.conf
    while [ $# -gt 1 ]; do
        setting $CONF "$1" "$2"
        shift 2
    done
    systemctl reset-failed pandaproxy
    systemctl restart pandaproxy
    check "check finds $what: exit status $code" by_check "$code"
    cat kept.conf >$CONF
}

verdicts() {
    verdict "a line that is no setting" 2 PRINTER_IP "$PRINTER\\
PRINTER_CODE=1"
    verdict "a name that is not known" 13 PRINTER_IP printer.invalid
    verdict "an address that nothing has" 13 PRINTER_IP 10.9.0.9
    verdict "another printer's serial number" 14 SERIAL_NUMBER "$(cat other_serial)"
    verdict "a printer whose authority is unknown" 14 PRINTER_CA ''
    verdict "a wrong access code" 15 ACCESS_CODE 87654321
    systemctl stop pandaproxy
    # It serves as long as it can read.
    sleep 600 | openssl s_server -accept 8883 -nocert >/dev/null 2>&1 &
    within 60 sh -c 'ss -lnt | grep -q :8883'
    verdict "a port that another program has" 12
    kill %sleep
    systemctl reset-failed pandaproxy
    systemctl restart pandaproxy
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
    for free in 0 1000 4500 7000; do
        pid=$(main_pid pandaproxy)
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
        # Where it could not write down what it had done, it asks for this.
        check "and dpkg goes on once there is space" dpkg --configure -a
        check "and its version stays" version 1.0.0
        check "and its binary" pandaproxy --version
        check "and nothing beside it" refused test -e /var/lib/pandaproxy-upgrade
        check "and it is healthy" within 60 healthy
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

# A version that gets ready, and does not reach the printer that the old one reached.
no_printer() {
    check "a client gets the state" within 60 state 127.0.0.1
    check "an upgrade to one that does not reach its printer fails" refused apt-get install -y ./pandaproxy_1.6.3_amd64.deb
    grep '^pandaproxy: ' said | sed 's/^/# /'
    check "for that reason" grep -q 'is not connected to its printer, which it was before' said
    check "and the old binary serves" within 60 state 127.0.0.1
    check "the version before is installed again" dpkg -i --force-confold ./pandaproxy_1.4.0_amd64.deb
    check "and is connected to its printer" within 60 pandaproxy health --printer
}

# The disk is full when the old binary is to be put back.
full_return() {
    local before
    before=$(sha256sum </usr/bin/pandaproxy)
    check "an upgrade to one that does not start and fills the disk fails" refused apt-get install -y ./pandaproxy_1.6.4_amd64.deb
    # The new binary has left its place.
    check "which is full" [ "$(df -k --output=avail / | tail -n 1)" -lt 6000 ]
    leave_free
    check "and the old binary is back" [ "$before" = "$(sha256sum </usr/bin/pandaproxy)" ]
    check "and serves" within 60 state 127.0.0.1
    check "and dpkg does not call the new version installed" refused dpkg --configure -a
    # It has filled the disk again.
    leave_free
    check "but says which binary is there" grep -q 'the binary is still that of version 1.4.0' said
    check "the version before is installed again" dpkg -i --force-confold ./pandaproxy_1.4.0_amd64.deb
    check "and it is healthy" within 60 healthy
}

# Whether version $1 is installed, with the binary $before and the process $pid.
is_untouched() {
    [ "$(dpkg-query -W -f '${Version} ${db:Status-Status}' pandaproxy)" = "$1 installed" ] &&
        [ "$before" = "$(sha256sum </usr/bin/pandaproxy)" ] && [ "$pid" = "$(main_pid pandaproxy)" ]
}

# Upgrades, an installation and a removal that dpkg gives up: it calls the scripts of both versions to undo them.
given_up() {
    local version how pid before prerm=/var/lib/dpkg/info/pandaproxy.prerm
    pid=$(main_pid pandaproxy)
    before=$(sha256sum </usr/bin/pandaproxy)
    cp -p $prerm kept.prerm
    while read -r version how; do
        [ "$version" != 1.6.2 ] || echo 'exit 1' >>$prerm
        check "an upgrade $how is refused" refused dpkg -i ./pandaproxy_"$version"_amd64.deb
        check "and the service is what it was" is_untouched 1.4.0
        check "and nothing is beside it" refused test -e /var/lib/pandaproxy-upgrade
    done <<'END'
1.6.0 whose preinst fails
1.6.1 whose file ends too early
1.6.2 between two versions whose prerm fails
END
    systemctl disable pandaproxy
    check "a removal whose prerm fails is refused" refused apt-get remove -y pandaproxy
    cp -p kept.prerm $prerm
    check "and the service is started again, though it does not start with the machine" within 60 healthy
    systemctl enable pandaproxy
    pid=$(main_pid pandaproxy)
    check "and is installed" is_untouched 1.4.0
    check "and nothing is beside it" refused test -e /var/lib/pandaproxy-upgrade
}

# Whether what the failed service has started has ended.
gone_on() {
    journalctl -q -u pandaproxy-upgrade -o cat | grep -q 'the binary of version .* is back' &&
        [ "$(systemctl show --property ActiveState --value pandaproxy-upgrade)" = inactive ]
}

# dpkg and the script of the new version are killed after unpacking: the binary that worked last is not forgotten.
interrupted() {
    local pid before
    pid=$(main_pid pandaproxy)
    before=$(sha256sum </usr/bin/pandaproxy)
    check "an upgrade is interrupted" refused dpkg -i ./pandaproxy_1.7.0_amd64.deb
    check "with the new binary unpacked" grep -q 'exit 1' /usr/bin/pandaproxy
    check "while the old one serves" has_new_pid pandaproxy 0
    # As a start of the machine after that.
    systemctl restart pandaproxy
    check "one that does not start has dpkg go on by itself" within 120 gone_on
    check "and the binary that worked last is back" sh -c "[ '$before' = \"\$(sha256sum </usr/bin/pandaproxy)\" ]"
    check "and serves" within 60 state 127.0.0.1
    check "a version that does not start either is refused" refused dpkg -i ./pandaproxy_1.7.1_amd64.deb
    check "and the binary that worked last is back" sh -c "[ '$before' = \"\$(sha256sum </usr/bin/pandaproxy)\" ]"
    check "and serves" within 60 state 127.0.0.1
    check "an upgrade that is given up then" refused dpkg -i ./pandaproxy_1.6.0_amd64.deb
    check "does not call the version installed" refused grep -q '^installed' <(dpkg-query -W -f '${db:Status-Status}' pandaproxy)
    check "nor is it when dpkg tries again" refused dpkg --configure -a
    check "which says which binary is there" grep -q 'the binary is still that of version 1.4.0' said
    check "which serves" within 60 state 127.0.0.1
    check "the next good version repairs it" dpkg -i --force-confold ./pandaproxy_1.4.0_amd64.deb
    pid=$(main_pid pandaproxy)
    check "and is installed" is_untouched 1.4.0
    check "and it is healthy" within 60 healthy
    check "and nothing is beside it" refused test -e /var/lib/pandaproxy-upgrade
}

# An installation by install.sh, the package over it, and back.
by_hand() {
    local authority pid garage
    cp tarball/pandaproxy.conf given.conf
    first_settings given.conf
    setting given.conf BIND_ADDRESS 127.0.0.1
    check "install.sh makes it a service" ./tarball/install.sh --config given.conf
    hash -r
    cp given.conf garage.conf
    setting garage.conf PRINTER_IP $OTHER_PRINTER
    setting garage.conf SERIAL_NUMBER "$(cat other_serial)"
    setting garage.conf BIND_ADDRESS 10.9.0.5
    check "and another one for a second printer" ./tarball/install.sh --printer garage --config garage.conf
    garage=$(main_pid pandaproxy@garage)
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
    check "an upgrade of the package" apt-get install -y ./pandaproxy_1.4.1_amd64.deb
    check "and the package's removal" apt-get remove -y pandaproxy
    check "leave install.sh's second service alone" [ "$garage" = "$(main_pid pandaproxy@garage)" ]
    check "and install.sh makes it a service again" ./tarball/install.sh
    check "and purges what is left of the package" refused grep -q config-files <(dpkg-query -W -f '${db:Status-Status}' pandaproxy)
    hash -r
    check "a client gets the state" within 60 state 127.0.0.1
    check "by the same authority" sh -c "[ '$authority' = \"\$(pandaproxy ca --state-dir /var/lib/pandaproxy | sha256sum)\" ]"
    check "purging the package now" dpkg --purge pandaproxy
    check "leaves the service alone" within 60 healthy
    check "and its settings" test -s $CONF -a -s /etc/pandaproxy/garage.conf
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
    setting $CONF STRICT_SERIAL true
    setting $conf BIND_ADDRESS 10.9.0.5
    systemctl reset-failed pandaproxy@garage
    check "each has an address of its own" systemctl restart pandaproxy
    check "and the second starts" systemctl enable --now pandaproxy@garage
    check "a client of the first is served" within 60 state 10.9.0.1
    check "a client of the second is served, by the same authority" within 60 state 10.9.0.5
    check "by its own serial number" is_served 10.9.0.5 "$(cat other_serial)"
    check "the first has no reports under the second's serial number" is_denied 10.9.0.1 "$(cat other_serial)"
    check "nor the second under the first's" is_denied 10.9.0.5 "$(cat serial)"
    check "the authority's key is its owner's alone" \
        sh -c "[ -z \"\$(find /var/lib/pandaproxy -name '*.key' -perm /077)\" ]"
    setting $CONF BIND_ADDRESS 0.0.0.0
    setting $CONF STRICT_SERIAL false
    systemctl disable --now pandaproxy@garage
    systemctl restart pandaproxy
}

second_part() {
    check "it starts with the machine" within 60 systemctl is-active pandaproxy
    check "a client gets the state" within 60 state 127.0.0.1
    check "removing ends it, as README says" readme 'sudo apt remove' '' -y
    check "and its settings and certificates stay" test -f $CONF -a -d /var/lib/pandaproxy
    # Of a further printer, and a key that the administrator has put there.
    install -m 640 -g pandaproxy $CONF /etc/pandaproxy/attic.conf
    install -m 640 -g pandaproxy pki.pem /etc/pandaproxy/update.pem
    check "purging" apt-get purge -y pandaproxy
    check "leaves no certificates and no settings" sh -c "! [ -e /var/lib/pandaproxy -o -e $CONF -o -e /etc/pandaproxy/attic.conf ]"
    check "and nothing for the next group with this number" [ -z "$(find /etc/pandaproxy ! -group root)" ]
    check "but what the administrator has put there" test -s /etc/pandaproxy/update.pem
    check "and no unit" refused systemctl cat pandaproxy
    if [ -n "$whole" ]; then
        check "an installation whose preinst fails is refused" refused dpkg -i ./pandaproxy_1.6.0_amd64.deb
        check "and leaves nothing" refused test -e /usr/bin/pandaproxy -o -e /var/lib/pandaproxy -o -e /var/lib/pandaproxy-upgrade
        by_hand
    fi
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
