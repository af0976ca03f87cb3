# shellcheck shell=bash
# Sourced by the scripts beside it: a board's settings, and what this machine has to have for them.

# Ends with one sentence.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Takes over the settings of boards/$1/board.env; the folder boards/ is in the working directory.
read_board() {
    if [[ ! $1 =~ ^[a-z0-9_-]+$ || ! -f boards/$1/board.env ]]; then
        local known=(boards/*/board.env)
        known=("${known[@]#boards/}")
        die "there is no board '$1'; known: ${known[*]%/board.env}"
    fi
    # shellcheck source=/dev/null
    . "boards/$1/board.env"
}

# Says what is run and runs it, unless `dry` is set.
run() {
    printf '+ %s\n' "$*" >&2
    [ -n "${dry:-}" ] || "$@"
}

# need PROGRAM-OR-FILE PACKAGE...: installs Debian packages unless it is there, or says which they are.
need() {
    local what=$1
    shift
    if [ -e "$what" ] || command -v "$what" >/dev/null; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "$what is missing; as root: apt-get install $*"
    fi
    # Lists of repositories that do not matter here may fail to load.
    run apt-get update || true
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}
