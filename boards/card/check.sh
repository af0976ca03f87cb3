#!/usr/bin/env bash
# boards/card/check.sh FILE: what is wrong with the settings in FILE, as a card would find once it is started: a line for the first fault, and
# status 1. The machine's own are checked by the card's script, the others by the program, if there is one for this machine that
# is as new as its source; else by their names alone, which is said on the standard error. Settings that are blank may be typed in later.
set -euo pipefail
file=$(realpath "$1")
cd "$(dirname "$0")/../.."
lib=boards/card/root/lib/card
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# as_card NAME=VALUE...: what the awk program of the standard input makes of the settings, each line read as the card reads it.
as_card() {
    cat >"$work/program.awk"
    LC_ALL=C awk -f "$lib/settings.awk" -f "$work/program.awk" "$@" "$file"
}
wrong() {
    printf '%s\n' "$*"
    exit 1
}

# ---- the machine's own, a file for each ------------------------------------------------------------

mkdir "$work/keys"
as_card folder="$work/keys" <<'AWK'
{ read_line($0); if (key in is_of_card) own[key] = value }
END { for (key in own) if (own[key] != "" && !(key in is_secret && own[key] == "off")) print own[key] >(folder "/" key) }
AWK
told=$(sh "$lib/settings-card" "$work/keys")
[ -z "$told" ] || wrong "$(head -n 1 <<<"$told")"

# ---- the program's ---------------------------------------------------------------------------------

# The newest one that runs here.
by=''
for program in "dist/pandaproxy-generic-$(uname -m | sed 's/^armv7l$/armv7/')" target/{release,debug}/pandaproxy; do
    if [ -x "$program" ] && { [ -z "$by" ] || [ "$program" -nt "$by" ]; } && "$program" --version >/dev/null 2>&1; then by=$program; fi
done
if [ -z "$by" ] || [ -n "$(find src/config -newer "$by" -print -quit)" ]; then
    # shellcheck disable=SC2016 # Markdown's
    known=$(sed -n 's/^| `[^|]*| `\([A-Z0-9_]*\)` |.*/\1/p' boards/SETTINGS.md | tr '\n' ' ')
    told=$(as_card known=" $known" <<'AWK'
{ read_line($0); if (key != "" && !(key in is_of_card) && !index(known, " " key " ")) { print "line " NR ": unknown setting " key; exit } }
AWK
    )
    [ -z "$told" ] || wrong "$told"
    printf 'note: only the names of the settings were checked: there is no pandaproxy for this machine in dist/ or target/ that is newer than its source\n' >&2
    exit 0
fi
# Without those of the machine, and with something in place of what may be typed in later; each stays on its line.
as_card <<'AWK' >"$work/settings"
BEGIN { form["PRINTER_IP"] = "192.0.2.1"; form["SERIAL_NUMBER"] = form["ACCESS_CODE"] = "0" }
{
    read_line($0)
    if (key == "ACCESS_CODE_FILE" && value != "") got["ACCESS_CODE"] = 1
    if (key in is_of_card || (key in form && value == "") || (key in is_secret && key != "ACCESS_CODE" && value == "off")) $0 = "#"
    else if (key in form) got[key] = 1
    print
}
END { for (key in form) if (!(key in got)) print key "=" form[key] }
AWK
code=0
told=$(env -i timeout 60 "$by" health --config "$work/settings" --state-dir "$work/none" 2>&1) || code=$?
# Whether its services answer here is no matter.
[ "$code" = 2 ] || exit 0
told=${told#pandaproxy: } told=${told#"$work/settings":}
[[ ! $told =~ ^[0-9]+: ]] || told="line $told"
wrong "$told"
