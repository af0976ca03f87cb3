#!/usr/bin/env bash
# Runs libFuzzer on the parsers and sessions, with the stable compiler.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/fuzz/run.sh [--help] [--seconds N] [--seed N] [TARGET...]
       tests/fuzz/run.sh TARGET FILE...

Fuzzes each TARGET, all of them if none is named, as many at a time as there are processors: N seconds each, or
60, and 20 for those that have few branches. Bytes that break something are kept as target/fuzz/found/TARGET-*,
and the exit status is 1. They are printed as Base64 as well.

Without --seed the inputs are random, and what was learnt on the way is kept in target/fuzz/corpus for the next time.

With --seed the same commit is given the same inputs each time, on a slow machine as on a fast one: libFuzzer begins
with the seed N and tests/fuzz/corpus alone, does not look at the operands of comparisons (some are addresses), and
ends after a number of inputs, not at a time: as many as the target takes in so many --seconds on one core of a PC.
CI does this with --seed 1, so that a pass can be repeated. What it has not looked at is found without --seed.
tls_chain alone differs by a few inputs: the X.509 parser has a hash set with random keys.

With FILEs, runs these once. What broke something belongs into tests/fuzz/corpus, under a name that says what it was.
END
}

seconds='' seed='' names=() files=()
while [ "$#" -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --seconds) seconds=$2; shift ;;
    --seed) seed=$2; shift ;;
    -*) echo "run.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
    */*) files+=("$(realpath "$1")") ;;
    *) names+=("$1") ;;
    esac
    shift
done

cd "$(dirname "$0")"
out=$(realpath ../..)/target/fuzz
mkdir -p "$out/found" "$out/log"
if [ "${#names[@]}" -eq 0 ]; then
    mapfile -t names < <(sed -n 's/^    ("\(.*\)", .*),$/\1/p' targets/mod.rs)
fi

# What cargo-fuzz passes, without what only a nightly compiler takes: -C options are stable. The counters of
# branches and the operands of comparisons are what libFuzzer steers by.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
# A named target keeps the flags from build scripts and macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
CARGO_TARGET_DIR=$out cargo build --locked --release --target "$triple"
binary=$out/$triple/release/fuzz

if [ "${#files[@]}" -gt 0 ]; then
    TARGET=${names[0]} exec "$binary" "${files[@]}"
fi

# Inputs that a target is given in a second, measured on one core of a PC.
rate() {
    case $1 in
    chamber_wire) echo 100000 ;;
    mqtt_wire | mqtt_topic | rtsp_rtp) echo 60000 ;;
    rtsp_wire | rtsp_sdp | rtsp_digest | trace_password) echo 20000 ;;
    mqtt_json | chamber_client | ftp_wire | tls_chain | update_file | update_keys | config_json) echo 10000 ;;
    mqtt_state | chamber_upstream) echo 4000 ;;
    trace_redact | trace_login) echo 2000 ;;
    mqtt_client | rtsp_client | ftp_client | ftp_upstream) echo 1000 ;;
    mqtt_upstream | rtsp_upstream) echo 200 ;;
    *) echo 1000 ;;
    esac
}

fuzz() {
    local name=$1 each=$seconds log=$out/log/$1 how=()
    case $name in
    mqtt_topic | chamber_wire | rtsp_sdp | rtsp_rtp | rtsp_digest | config_json) each=${each:-20} ;;
    *) each=${each:-60} ;;
    esac
    if [ -n "$seed" ]; then
        # The files are listed in the same order everywhere, and new inputs go into a separate folder.
        local learnt=$out/seeded/$name
        rm -rf "$learnt"
        mkdir -p "$learnt"
        (LC_ALL=C; files=(corpus/"$name"/*); IFS=,; printf '%s' "${files[*]}") >"$learnt.list"
        how=(-seed="$seed" -runs=$((each * $(rate "$name"))) -reload=0 -use_cmp=0 -seed_inputs="@$learnt.list" "$learnt")
    else
        mkdir -p "$out/corpus/$name"
        how=(-max_total_time="$each" "$out/corpus/$name" "corpus/$name")
    fi
    if ! TARGET=$name "$binary" -max_len=8192 -timeout=10 -rss_limit_mb=512 \
        -dict="dictionaries/${name%%_*}.dict" -artifact_prefix="$out/found/$name-" \
        "${how[@]}" > "$log" 2>&1; then
        printf '%s: broken\n' "$name"
        grep -aE 'panicked at|ERROR|left:|right:|Test unit written' -A1 "$log" | cut -c1-1000
        return 1
    fi
    printf '%s: %s\n' "$name" "$(grep -a DONE "$log")"
}

status=0 running=0
for name in "${names[@]}"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || status=1
        running=$((running - 1))
    fi
    fuzz "$name" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || status=1
    running=$((running - 1))
done

exit "$status"
