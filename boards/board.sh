# shellcheck shell=bash
# Sourced by the scripts beside it: a board's settings, and what this machine has to have for them.

# Ends with one sentence.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# A command line that is not understood.
misuse() {
    printf '%s: %s; --help shows the options\n' "$(basename "$0")" "$*" >&2
    exit 2
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

# One setting of a board.
board_value() {
    (
        # shellcheck source=/dev/null
        . "boards/$1/board.env"
        printf '%s' "${!2}"
    )
}

# fits_board BOARD KERNEL ELF: whether the board's binary is for a machine with such a kernel (`uname -m`) and a system of
# such programs (class and machine of their ELF header). install.sh knows.
fits_board() {
    cat "boards/$1/board.env" boards/service/install.sh | /bin/sh -s -- --fits "$2" "$3" >/dev/null
}

# find_boards MODEL KERNEL ELF: sets `fitting` to the boards whose binaries are for such a machine, and `found` to the one
# that is its own: the one that has the longest beginning of the model in MODELS, else the generic one, else the only one.
find_boards() {
    local name prefix prefixes longest=0 generic=''
    fitting=() found=''
    for name in boards/*/board.env; do
        name=$(basename "$(dirname "$name")")
        # That of the machine that builds.
        [ "$name" != host ] || continue
        fits_board "$name" "$2" "$3" 2>/dev/null || continue
        fitting+=("$name")
        [[ $name != generic-* ]] || generic=$name
        IFS='|' read -r -a prefixes <<<"$(board_value "$name" MODELS)"
        for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
            if [[ $1 == "$prefix"* && ${#prefix} -gt $longest ]]; then
                found=$name longest=${#prefix}
            fi
        done
    done
    [ -n "$found" ] || found=$generic
    if [ -z "$found" ] && [ "${#fitting[@]}" = 1 ]; then found=${fitting[0]}; fi
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
