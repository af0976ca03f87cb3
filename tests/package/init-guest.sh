#!/bin/bash
# What a booted machine of inits.sh does, started by its inittab: one part before a restart of the machine, one behind it.
# Each line of the second serial port is a test: "ok WHAT", or "not ok WHAT" with the reason below it.
set -uo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /proof || exit
# shellcheck source=tests/package/inside.sh
. ./inside.sh
read -r part <./part
if [ -x /sbin/openrc-run ]; then init=openrc dot=.; else init=sysvinit dot=-; fi
readonly GARAGE=/etc/init.d/pandaproxy${dot}garage

service_log() {
    tail -n 5 /var/log/pandaproxy*.log /run/pandaproxy*/last 2>/dev/null
    /etc/init.d/pandaproxy status
}

# The id of the first printer's process, or of another's.
process() {
    local id
    for id in /proc/[0-9]*; do
        if [ "$(readlink "$id/exe")" = /usr/local/bin/pandaproxy ] &&
            tr '\0' ' ' <"$id/cmdline" 2>/dev/null | grep -q -- "^[^ ]* --config /etc/pandaproxy/${1:-pandaproxy}.conf"; then
            basename "$id"
        fi
    done
}
has_new_process() { [ -n "$(process)" ] && [ "$(process)" != "$1" ]; }
install_it() { ./tarball/install.sh "$@"; }
garage_healthy() {
    pandaproxy health --config /etc/pandaproxy/garage.conf --state-dir /var/lib/pandaproxy/garage \
        --ca-dir /var/lib/pandaproxy
}
is_unprivileged() {
    local id
    id=$(process)
    [ "$(stat -c %U "/proc/$id")" = pandaproxy ] && grep -q '^CapBnd:.*0000000000000400$' "/proc/$id/status" &&
        grep -q '^NoNewPrivs:.*1$' "/proc/$id/status"
}

first_part() {
    local pid
    cp tarball/pandaproxy.conf given.conf
    first_settings given.conf
    check "install.sh makes it a service" install_it --config given.conf
    sed 's/^/# /' said
    check "by this init" grep -q "started by $([ $init = openrc ] && echo openrc || echo script)" said
    check "a client gets the state, with the authority" within 60 state 127.0.0.1
    check "it is its own user, with the right to low ports alone" is_unprivileged
    check "a second time there is nothing to do" sh -c './tarball/install.sh | grep "nothing to do"'

    pid=$(process)
    kill -9 "$pid"
    check "a crash is followed by a start" within 60 has_new_process "$pid"
    check "and it is healthy" within 60 healthy
    pid=$(process)
    kill -STOP "$pid"
    check "so is a hang" within 180 has_new_process "$pid"
    check "and it is healthy" within 60 healthy

    # Another program of the same behaviour, so that install.sh has something to do.
    cp tarball/pandaproxy good
    printf 'another version' >>tarball/pandaproxy
    pid=$(process)
    check "an upgrade" install_it
    check "is run by a new process" has_new_process "$pid"
    check "and healthy" within 60 healthy
    cp good tarball/pandaproxy
    # shellcheck disable=SC2016 # it is the stub that expands it
    printf '#!/bin/sh\ncase $1 in --version) echo stub ;; health) exit 1 ;; *) echo "it ends at once"; exit 1 ;; esac\n' \
        >tarball/pandaproxy
    check "an upgrade to one that does not start fails" refused install_it
    sed 's/^/# /' said
    # The next test reads what this one prints.
    check "with its last word" grep 'it ends at once' said
    check "and how long it took" grep -q 'it does not start: given up after [0-9]* s (' said
    check "and the old one serves" within 60 healthy
    check "and a client gets the state" within 60 state 127.0.0.1
    cp good tarball/pandaproxy
    several_printers
}

several_printers() {
    local pid begun took
    cp given.conf garage.conf
    setting garage.conf PRINTER_IP $OTHER_PRINTER
    setting garage.conf SERIAL_NUMBER "$(cat other_serial)"
    check "a second printer without an address of its own is refused" refused install_it --printer garage --config garage.conf
    setting garage.conf BIND_ADDRESS 10.9.0.1
    begun=$SECONDS
    check "and one on an address of the first" refused install_it --printer garage --config garage.conf
    sed 's/^/# /' said
    took=$((SECONDS - begun))
    check "which it says" grep -q 'given up after [0-9]* s (.*the log has more: ' said
    check "as soon as it is given up" [ $took -lt 300 ]
    check "of which nothing is left" refused test -e "$GARAGE" -o -e /etc/pandaproxy/garage.conf
    check "while the first is healthy" healthy
    setting given.conf BIND_ADDRESS 10.9.0.1
    setting garage.conf BIND_ADDRESS 10.9.0.5
    check "each has an address of its own" install_it --config given.conf
    check "and the second is installed" install_it --printer garage --config garage.conf
    sed 's/^/# /' said
    check "which says what the first lacks" grep -q 'STRICT_SERIAL=true' said
    setting given.conf STRICT_SERIAL true
    check "the first gets it" install_it --config given.conf
    check "and nothing is lacking" refused grep -q STRICT_SERIAL said
    check "a client of the first is served" within 60 state 10.9.0.1
    check "a client of the second is served, by the same authority" within 60 state 10.9.0.5
    check "by its own serial number" is_served 10.9.0.5 "$(cat other_serial)"
    check "the first has no reports under the second's serial number" is_denied 10.9.0.1 "$(cat other_serial)"
    check "nor the second under the first's" is_denied 10.9.0.5 "$(cat serial)"
    pid=$(process garage)
    check "the next version" sh -c 'printf "another version" >>tarball/pandaproxy && ./tarball/install.sh'
    check "restarts the second, too" sh -c "[ -n '$(process garage)' ] && [ '$pid' != '$(process garage)' ]"
    check "and both are healthy" within 60 eval 'healthy && garage_healthy'
}

# install.sh is killed in its trial, as by a power failure, and the machine starts again.
interrupted_trial() {
    local pid
    sha256sum /usr/local/bin/pandaproxy >before
    # shellcheck disable=SC2016 # it is the stub that expands it
    printf '#!/bin/sh\ncase $1 in --version) echo stub ;; health) exit 1 ;; *) sleep 600 ;; esac\n' >tarball/pandaproxy
    ./tarball/install.sh >trial 2>&1 &
    pid=$!
    check "a version that is never ready is tried" within 60 cmp tarball/pandaproxy /usr/local/bin/pandaproxy
    kill -9 $pid
    check "and is there when the trial has ended" cmp tarball/pandaproxy /usr/local/bin/pandaproxy
}

second_part() {
    check "after a trial that was interrupted the version from before is back" within 60 sha256sum -c before
    check "and nothing is left of the trial" refused test -e /usr/local/lib/pandaproxy/trying
    check "it starts with the machine" within 90 state 10.9.0.1
    check "and so does the second" within 60 state 10.9.0.5
    check "the second is removed" install_it --printer garage --uninstall
    check "and is gone" sh -c "[ ! -e $GARAGE ] && [ -z '$(process garage)' ]"
    check "while the first serves" state 10.9.0.1
    check "the first is removed" install_it --uninstall
    check "and is gone" sh -c "! [ -e /etc/init.d/pandaproxy -o -e /usr/local/bin/pandaproxy ] && [ -z '$(process)' ]"
    check "its settings and certificates stay" test -f $CONF -a -d /var/lib/pandaproxy
    check "nothing starts it" sh -c '! ls /etc/rc?.d/*pandaproxy* /etc/runlevels/*/pandaproxy* 2>/dev/null'
}

printers
if [ "$part" = first ]; then
    first_part
    interrupted_trial
    echo second >part
    sync
    reboot
    exit
fi
second_part
echo "# end"
sync
poweroff
