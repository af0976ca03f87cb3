#!/usr/bin/env bash
# How long the 226 follows the last byte of an upload to a slow printer, directly and through the proxy.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/bench/ftp/paced.sh [--help] [--dry-run] [--runs N] [MODEL RATE BYTES]...

A client, the proxy and the simulated printer, each in a network namespace of its own, with MTU 1500 and without
segmentation offload. The printer stores RATE bytes a second and its receive buffer is 16 KiB; the client's buffers are
Linux's own. Direct and proxied uploads take turns, N of each (5). Prints a line for each MODEL RATE BYTES: the median of the
seconds from the client's last byte to the 226, directly and through the proxy, all that were measured, and the medians of the
whole uploads, from the client's first byte to the 226. The exit code is 1 if the proxy's median after the last byte is more
than 2 s above the direct one.
Models are p1s (proxy mode) and x1c (relay mode). Needs root, iproute2 and python3; builds the programs, unless PANDAPROXY
and PRINTER name them. On a busy machine: chrt -r 20 tests/bench/ftp/paced.sh

Without MODEL RATE BYTES: p1s at 75, 100, 150 and 300 kB/s and 2 MB/s, x1c at 300 kB/s and 2 MB/s.
END
}

dry='' runs=5
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1; shift ;;
    --runs)
        case ${2-} in
        '' | 0* | *[!0-9]*) usage >&2; exit 2 ;;
        esac
        runs=$2
        shift 2 ;;
    -*) echo "paced.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || set -- p1s 75000 2000000 p1s 100000 2000000 p1s 150000 2000000 p1s 300000 2000000 \
    p1s 2000000 10000000 x1c 300000 3000000 x1c 2000000 10000000
[ $(($# % 3)) = 0 ] || { usage >&2; exit 2; }
readonly MAX_MORE=2

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
if [ -n "$dry" ]; then
    printf 'would build the programs, and measure %s times: %s\n' "$runs" "$*"
    exit 0
fi
[ -n "${PANDAPROXY-}" ] || cargo build --locked --quiet --release --bin pandaproxy
[ -n "${PRINTER-}" ] || cargo build --locked --quiet --release --example printer
proxy=${PANDAPROXY-target/release/pandaproxy}
printer=${PRINTER-target/release/examples/printer}

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

# start END LINE COMMAND...: starts a program, and waits until its output has a line. Its process is the last of `pids`.
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

# put HOST BYTES: an upload; `after` is then the seconds from the client's last byte to the 226, `whole` those of all of it.
put() {
    local bytes
    after=''
    read -r bytes after < <(within c python3 "$here/put.py" "$1" "$CODE" "$2") || true
    [ -n "$after" ] || { echo "an upload to $1 failed" >&2; cat "$work"/[xp] >&2; exit 1; }
    whole=$(awk "BEGIN { printf \"%.2f\", $bytes + $after }")
}

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

printf '%s' "$CODE" >"$work/code"
too_late=''
while [ $# -gt 0 ]; do
    case $1 in
    p1s) serial=01P00A000000001 ;;
    x1c) serial=00M00A000000001 ;;
    *) usage >&2; exit 2 ;;
    esac
    set_up
    start p 'ftp' "$printer" --model "$1" --bind 10.88.2.2 --access-code "$CODE" --ftp-port 990 \
        --ftp-rate "$2" --ftp-data-ports 50000-50010
    direct=() proxied=() wholes=() wholes_proxied=()
    for _ in $(seq "$runs"); do
        put 10.88.2.2 "$3"
        direct+=("$after") wholes+=("$whole")
        # A proxy that went on running would keep the only session of a P1S.
        start x 'ftp .*listening' "$proxy" -p 10.88.2.2 -s "$serial" --access-code-file "$work/code" \
            --services ftp --bind 10.88.1.1 --state-dir "$work/state" --insecure-printer
        put 10.88.1.1 "$3"
        proxied+=("$after") wholes_proxied+=("$whole")
        kill "${pids[-1]}"
        wait "${pids[-1]}" || true
        unset 'pids[-1]'
    done
    d=$(median "${direct[@]}") p=$(median "${proxied[@]}")
    more=$(awk "BEGIN { printf \"%.2f\", $p - $d }")
    printf '%s at %s bytes a second: 226 after %s s directly, %s s by the proxy, %s s more (%s; %s)\n' \
        "$1" "$2" "$d" "$p" "$more" "${direct[*]}" "${proxied[*]}"
    printf '  whole upload of %s bytes: %s s directly, %s s by the proxy\n' \
        "$3" "$(median "${wholes[@]}")" "$(median "${wholes_proxied[@]}")"
    if awk "BEGIN { exit !($more > $MAX_MORE) }"; then too_late=1; fi
    clear
    shift 3
done
if [ -n "$too_late" ]; then
    echo "more than $MAX_MORE s later by the proxy than directly" >&2
    exit 1
fi
