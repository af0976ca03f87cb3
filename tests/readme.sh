#!/usr/bin/env bash
# README.md's commands, for the tests that run them: a changed README is what is run.
#
# Sourced, it gives `readme KEY [SED [MORE]]`, which runs the one command of README that begins with KEY: with its
# placeholders replaced by a script for sed, and with MORE words behind it. `readme_line` prints it instead.
# Which test runs which command stands in tests/program/readme.rs, which refuses commands that no test runs.

# Where README is; a test's machine may have another place for it.
: "${README:=$(dirname "${BASH_SOURCE[0]}")/../README.md}"

# Prints README's commands, one a line, without comments: the lines of blocks, and what stands between back-quotes. Of
# that, some are names, paths, options and the log's lines; readme.rs knows.
readme_commands() {
    # The diagram's lines are indented by more than four spaces.
    sed -n 's/^    \([^ ].*\)/\1/p' "$README" | sed 's/  *# .*//' | sed 's/ && /\n/g'
    # shellcheck disable=SC2016 # back-quotes
    grep -v '^    ' "$README" | grep -o '`[^`]*`' | tr -d '`'
}

# The command that is KEY, or the only one that begins with it.
readme_line() {
    local found
    found=$(readme_commands | awk -v key="$1" 'index($0, key) == 1' | sort -u)
    if grep -qxF -- "$1" <<<"$found"; then found=$1; fi
    if [ -z "$found" ] || [ "$(wc -l <<<"$found")" != 1 ]; then
        printf 'README.md does not have one command that begins with "%s":\n%s\n' "$1" "$found" >&2
        return 1
    fi
    found=$(sed "${2-}" <<<"$found")
    printf '%s%s\n' "$found" "${3:+ $3}"
}

readme() {
    local line
    line=$(readme_line "$@") || return
    printf '+ %s\n' "$line" >&2
    eval "$line"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case ${1-} in
    --list) readme_commands ;;
    *) printf 'usage: tests/readme.sh --list\n\nPrints the commands of README.md, one a line.\n' ;;
    esac
fi
