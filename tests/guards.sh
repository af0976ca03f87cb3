#!/usr/bin/env bash
# Lists the faults of other programs that tests here guard against.
#
# Faults of the field that need no test, because this proxy cannot have them:
#   the address is only rewritten for printers given by address: what is put in its place is the proxy's own
#   a model's old name makes a slicer refuse its presets: no model is named to clients
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/guards.sh [--help]

Lists the faults of other programs that tests here guard against: the test, where it is, and the fault.

A test's doc comment says so in lines that begin with "Guards:", with the numbers of the field's issues where
they are known. A "Guards:" that belongs to no test ends this with status 1.
END
}

case ${1-} in
--help) usage; exit 0 ;;
'') ;;
*) echo "guards.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016 # awk's, not the shell's
git grep -lz '/// Guards: ' -- '*.rs' | xargs -0 awk '
    # The text of one or several "Guards:" above a test, until its name is known.
    function lost() {
        if (count) {
            printf "%s:%d: Guards: without a test\n", file, first > "/dev/stderr"
            failed = 1
        }
        count = 0
    }
    FNR == 1 { lost(); file = FILENAME }
    /^ *\/\/\/ Guards: / {
        if (!count) first = FNR
        sub(/^ *\/\/\/ Guards: /, "")
        guards[++count] = $0
        open = 1
        next
    }
    /^ *\/\/\// && count {
        sub(/^ *\/\/\/ ?/, "")
        if ($0 == "") open = 0
        else if (open) guards[count] = guards[count] " " $0
        next
    }
    /^ *#\[/ { next }
    /^ *(async )?fn / && count {
        sub(/^ *(async )?fn /, "")
        sub(/\(.*/, "")
        for (n = 1; n <= count; n++) printf "%-75s %-40s %s\n", $0, file, guards[n]
        listed += count
        count = 0
        next
    }
    { lost() }
    END {
        lost()
        printf "%d faults are guarded against\n", listed
        exit failed || !listed
    }'
