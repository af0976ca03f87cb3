#!/usr/bin/env bash
# The integration tests that start the real program, with a board's own binary on its own processor.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/qemu-user.sh [--dry-run] BOARD [TEST...]

Runs dist/pandaproxy-BOARD (boards/build.sh makes it) inside qemu-user with exactly the board's
processor, between the simulated printer and the tests' clients, which run natively: every integration
test that starts the real program, or those whose names begin with one of TEST. Ends with one line,
`N passed, N failed`.

  --dry-run   say what would be run, and run nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

dry='' board='' tests=()
for option in "$@"; do
    case $option in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $option is unknown" ;;
    *) if [ -z "$board" ]; then board=$option; else tests+=("$option"); fi ;;
    esac
done
[ -n "$board" ] || misuse "the board is missing"

cd "$(dirname "$0")/.."
read_board "$board"
[ -n "$QEMU_USER" ] || die "$board needs no emulator: cargo test"
binary=$PWD/dist/pandaproxy-$board
[ -f "$binary" ] || [ -n "$dry" ] || die "there is no $binary: boards/build.sh $board"
need "$QEMU_USER" qemu-user-static
emulator=$(command -v "$QEMU_USER" || printf '%s' "$QEMU_USER")

# A test that would be skipped because a client is missing fails instead. The tests know their limits from
# the board that they are built for.
export CI=1 BOARD=$board
# An emulated program computes where a native one waits: fewer at a time than .cargo/config.toml has.
export RUST_TEST_THREADS=8
export PANDAPROXY_BIN=$binary PANDAPROXY_RUNNER="$emulator -cpu $QEMU_CPU"
run "$emulator" -cpu "$QEMU_CPU" "$binary" --version
test=(cargo test --locked --no-fail-fast --test program --)
if [ -n "$dry" ]; then
    run "${test[@]}" "${tests[@]}"
    exit 0
fi
pattern=''
[ "${#tests[@]}" = 0 ] || pattern=$(IFS='|'; printf '^(%s)' "${tests[*]}")
# list [OPTION]: the tests by name.
list() { run "${test[@]}" --list "$@" --format terse | sed -n 's/: test$//p'; }
# Those that are ignored are started by others, in processes of their own.
mapfile -t names < <(list | grep -vxFf <(list --ignored) | grep -E -- "${pattern:-.}")
[ "${#names[@]}" -gt 0 ] || die "no test's name begins like that: ${tests[*]}"
log=target/qemu-user-$board.log
status=0
# The tests and the programs that they emulate are a process group, which ends with this script.
set -m
{ run "${test[@]}" --exact "${names[@]}" 2>&1 | tee "$log"; } </dev/null &
tests_run=$!
set +m
trap 'kill -- -$tests_run 2>/dev/null || true' EXIT
trap 'exit 129' HUP INT TERM
wait "$tests_run" || status=$?

if [[ ! $(grep '^test result: ' "$log") =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed ]]; then
    die "the tests were not run"
fi
passed=${BASH_REMATCH[1]} failed=${BASH_REMATCH[2]}
[ "$((passed + failed))" = "${#names[@]}" ] || die "$((passed + failed)) of ${#names[@]} tests were run"
printf '%d passed, %d failed\n' "$passed" "$failed"
exit "$status"
