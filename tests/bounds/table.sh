#!/usr/bin/env bash
# What each board's program holds at most under siege, as rows of the table in the README.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/bounds/table.sh [--help] [--seconds N] [BOARD...]

Builds the program with the capacities of each BOARD (host, rpi-zero, rpi-2, rpi-zero-2w and rpi-4 if none is
named) for this machine's processor, and besieges it for N seconds, or 600, as a P1S's and as an X1C's proxy.
END
}

seconds=600 boards=()
while [ "$#" -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --seconds) seconds=$2; shift ;;
    -*) echo "table.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
    *) boards+=("$1") ;;
    esac
    shift
done
[ "${#boards[@]}" -gt 0 ] || boards=(host rpi-zero rpi-2 rpi-zero-2w rpi-4)

cd "$(dirname "$0")/../.."
echo '| board | printer | time | named | heap, peak | resident, idle | resident, peak | of it the file | open files |'
echo '|---|---|---:|---:|---:|---:|---:|---:|---:|'
status=0
for board in "${boards[@]}"; do
    export BOARD=$board
    cargo build --locked --quiet --release --bin pandaproxy
    said=$(PANDAPROXY_BIN=$PWD/target/release/pandaproxy SIEGE_SECONDS=$seconds \
        cargo test --locked --quiet --test bounds siege -- --nocapture --test-threads=1 2>&1) || {
        status=1
        printf '%s\n' "$said" >&2
    }
    printf '%s\n' "$said" | grep '^| `' || true
done
exit "$status"
