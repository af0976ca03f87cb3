#!/usr/bin/env bash
# Whether the scripts that start QEMU end it when they are ended by a signal.
set -euo pipefail

case ${1-} in
'') ;;
--help)
    printf 'usage: tests/emulators.sh\n\n%s\n' "Ends the scripts that start QEMU by signals, with a program that does nothing in QEMU's place. Prints \`N passed, N failed\`."
    exit 0 ;;
*) printf '%s is no option; tests/emulators.sh --help shows what it does\n' "$1" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/.."
checkout=$PWD
work=$(mktemp -d)
started=$work/started
leave() {
    # One that a script left.
    [ ! -s "$started" ] || kill -9 "$(cat "$started")" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT

mkdir "$work/bin"
stub() {
    cat >"$work/bin/$1"
    chmod 755 "$work/bin/$1"
}
stub emulator <<END
#!/bin/sh
echo \$\$ >"$started.new"
mv "$started.new" "$started"
exec sleep 1000
END
for name in qemu-system-x86_64 qemu-system-arm; do ln -s emulator "$work/bin/$name"; done
export PATH=$work/bin:$PATH

# runs PID: whether a process is there, and has not just ended.
runs() {
    [[ $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) =~ ^[^ZX] ]]
}

passed=0 failed=0
# ends WHAT SIGNAL COMMAND...: starts it, sends the signal once it has started the emulator, and counts if that ends.
ends() {
    local what=$1 signal=$2 script emulator=''
    shift 2
    rm -f "$started"
    # A shell ignores SIGINT in what it starts beside itself.
    env --default-signal=INT "$@" >"$work/said" 2>&1 &
    script=$!
    # What the shell would say of its end is no matter.
    disown "$script"
    for _ in {1..1200}; do
        [ ! -e "$started" ] || break
        sleep 0.1
    done
    if [ -e "$started" ]; then
        emulator=$(cat "$started")
        kill -s "$signal" "$script"
        for _ in {1..600}; do
            runs "$emulator" || break
            sleep 0.1
        done
    fi
    if [ -n "$emulator" ] && ! runs "$emulator"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED  %s, SIG%s: %s\n' "$what" "$signal" "${emulator:+the emulator runs}"
        cat "$work/said"
        [ -z "$emulator" ] || kill -9 "$emulator"
    fi
    kill -9 "$script" 2>/dev/null || true
}

# ---- tests/card/run.py: a machine with a card, and nothing that looks at it
cat >"$work/card.py" <<'END'
import pathlib, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1] + "/tests/card")
import run

class Nothing:
    def __init__(self, *_): pass
    def start(self): pass
    def load(self, *_): return {"kernel": b"", "initramfs": b"", "tree": b"", "cmdline": ""}

run.WORK, run.firmware.Card = pathlib.Path(sys.argv[2]), Nothing
run.Registers = run.Adapter = run.Timer = Nothing
run.Machine.clock = []
machine = run.Machine.__new__(run.Machine)
machine.kind, machine.image, machine.added, machine.console = run.MACHINES["rpi-zero"], "none", b"", run.WORK / "console"
run.ends_in_order()
try:
    machine.plug_in()
    time.sleep(1000)
finally:
    (run.WORK / "ended").touch()
END
for signal in TERM INT HUP KILL; do
    rm -f "$work/ended"
    ends 'tests/card/run.py' "$signal" python3 "$work/card.py" "$checkout" "$work"
    if [ "$signal" = KILL ] || [ -e "$work/ended" ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED  tests/card/run.py, SIG%s: not ended in order\n' "$signal"
    fi
done

# ---- tests/package/machine.sh: what switches a machine on
cat >"$work/package.sh" <<'END'
set -euo pipefail
cd "$2"
. "$1/tests/package/machine.sh"
console=$2/console said=$2/said-by
: >"$said"
power_on none $((SECONDS + 600))
END
for signal in TERM HUP KILL; do
    ends 'tests/package/machine.sh' "$signal" bash "$work/package.sh" "$checkout" "$work"
done

# ---- boards/qemu-user.sh: a test that waits for the program it has started
mkdir -p "$work/project/dist"
cp -a boards "$work/project/"
touch "$work/project/dist/pandaproxy-rpi-2"
mkdir "$work/project/target"
stub qemu-arm-static <<'END'
#!/bin/sh
END
stub cargo <<'END'
#!/bin/sh
case "$*" in
*--ignored*) ;;
*--list*) echo 'a_test: test' ;;
*) emulator & wait ;;
esac
END
for signal in TERM HUP; do
    ends 'boards/qemu-user.sh' "$signal" "$work/project/boards/qemu-user.sh" rpi-2
done

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
