# shellcheck shell=bash
# Sourced in the booted machines of machine.sh, in /proof: what a test says and what all of them do.

exec >/dev/ttyS1 2>&1
# A start that comes as far as this does not hang.
echo "# started"
readonly PRINTER=10.9.0.2 OTHER_PRINTER=10.9.0.3 CODE=12345678
readonly CONF=/etc/pandaproxy/pandaproxy.conf

# With the seconds that it took, and what was done before it, if these were many.
said_at=0
ok() {
    local took=$((SECONDS - said_at))
    said_at=$SECONDS
    if [ $took -ge 5 ]; then printf 'ok %s (%d s)\n' "$1" $took; else printf 'ok %s\n' "$1"; fi
}

# check WHAT COMMAND...: the command has to succeed; service_log is what the service said, if not.
check() {
    local what=$1
    shift
    local code=0
    # What was said before can be looked at until then.
    "$@" >/proof/said.new 2>&1 || code=$?
    mv /proof/said.new /proof/said
    if [ $code = 0 ]; then ok "$what"; else
        printf 'not ok %s\n' "$what"
        said_at=$SECONDS
        sed 's/^/    /' /proof/said | tail -n 15
        service_log | sed 's/^/    log: /'
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

refused() { ! "$@"; }

setting() { sed -i "s|^#\?$2=.*|$2=$3|" "$1"; }

# The settings of the first printer, and the authority of printers that are simulated.
first_settings() {
    setting "$1" PRINTER_IP $PRINTER
    setting "$1" ACCESS_CODE $CODE
    setting "$1" SERIAL_NUMBER "$(cat serial)"
    setting "$1" PRINTER_CA /etc/pandaproxy/simulated.pem
    mkdir -p /etc/pandaproxy
    cp pki.pem /etc/pandaproxy/simulated.pem
}

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

# What a client gets that asks for the reports of printer $2.
state_of() {
    mosquitto_sub -h "$1" -p 8883 -u bblp -P $CODE --cafile /proof/ca.pem -t "device/$2/report" -C 1 -W 20 2>&1
}
is_served() { state_of "$@" | grep -q '"print"'; }
is_denied() { state_of "$@" | grep -q 'denied'; }

healthy() { pandaproxy health --config $CONF --state-dir /var/lib/pandaproxy; }
