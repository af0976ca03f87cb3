#!/usr/bin/env bash
# How long the 226 follows the last byte of an upload to a slow printer, directly and through the proxy.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/bench/ftp/paced.sh [--help] [--dry-run] [MODEL RATE BYTES]...

A client, the proxy and the simulated printer, each in a network namespace of its own, with MTU 1500 and without
segmentation offload. The printer stores RATE bytes a second and its receive buffer is 16 KiB; the client's buffers are
Linux's own. Prints a line for each: seconds from the client's last byte to the 226, directly and by the proxy.
Models are p1s (proxy mode) and x1c (relay mode). Needs root, iproute2 and python3; builds the program.

Without arguments: p1s at 75, 100, 150 and 300 kB/s, x1c at 300 kB/s and 2 MB/s.
END
}

dry=''
case ${1-} in
--help) usage; exit 0 ;;
--dry-run) dry=1; shift ;;
-*) usage >&2; exit 2 ;;
esac
[ $# -gt 0 ] || set -- p1s 75000 2000000 p1s 100000 2000000 p1s 150000 2000000 p1s 300000 2000000 \
    x1c 300000 3000000 x1c 2000000 10000000
[ $(($# % 3)) = 0 ] || { usage >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
if [ -n "$dry" ]; then
    printf 'would build the program, and measure: %s\n' "$*"
    exit 0
fi
cargo build --locked --quiet --release --bin pandaproxy --example printer

readonly CODE=12345678
work=$(mktemp -d)
name=paced$$
pids=()
# Ends the programs and removes the networks.
clear() {
    if [ "${#pids[@]}" -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    pids=()
    for end in c x p; do ip netns del "$name$end" 2>/dev/null || true; done
}
trap 'clear; rm -rf "$work"' EXIT

within() { ip netns exec "$name$1" "${@:2}"; }

# join END NETWORK: a cable between an end and the proxy's machine.
join() {
    ip link add "$name" netns "$name$1" type veth peer name "to-$1" netns "${name}x"
    within "$1" ip addr add "10.88.$2.2/24" dev "$name"
    within x ip addr add "10.88.$2.1/24" dev "to-$1"
    within "$1" ip link set "$name" up
    within x ip link set "to-$1" up
    within "$1" ip route add default via "10.88.$2.1"
    # Packets as an Ethernet card sends them, not of 64 KiB.
    within "$1" ip link set "$name" gso_max_segs 1
    within x ip link set "to-$1" gso_max_segs 1
}
# Makes the three machines and their networks.
set_up() {
    for end in c x p; do
        ip netns add "$name$end"
        within "$end" ip link set lo up
    done
    join c 1
    join p 2
    within x sysctl -qw net.ipv4.ip_forward=1
    within p sysctl -qw net.ipv4.tcp_rmem='4096 16384 16384'
}

# start END LINE COMMAND...: starts a program, and waits until its output has a line.
start() {
    local end=$1 line=$2
    shift 2
    : >"$work/$end"
    ip netns exec "$name$end" "$@" >"$work/$end" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        if grep -q "$line" "$work/$end"; then return; fi
        sleep 0.1
    done
    cat "$work/$end" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    p1s) serial=01P00A000000001 ;;
    x1c) serial=00M00A000000001 ;;
    *) usage >&2; exit 2 ;;
    esac
    set_up
    start p 'ftp' target/release/examples/printer --model "$1" --bind 10.88.2.2 --access-code "$CODE" --ftp-port 990 \
        --ftp-rate "$2" --ftp-data-ports 50000-50010
    printf '%s' "$CODE" >"$work/code"
    start x 'ftp .*listening' target/release/pandaproxy -p 10.88.2.2 -s "$serial" --access-code-file "$work/code" \
        --services ftp --bind 10.88.1.1 --state-dir "$work/state" --insecure-printer
    read -r _ direct < <(within c python3 "$here/put.py" 10.88.2.2 "$CODE" "$3")
    read -r _ proxy < <(within c python3 "$here/put.py" 10.88.1.1 "$CODE" "$3")
    printf '%s at %s bytes a second: 226 after %s s directly, %s s by the proxy\n' "$1" "$2" "$direct" "$proxy"
    clear
    shift 3
done
