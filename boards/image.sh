#!/usr/bin/env bash
# Images from the binaries in dist/: one a platform, by buildah, without any registry.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/image.sh [--dry-run] [BOARD...]

Builds the image pandaproxy:BOARD for each board's platform from dist/pandaproxy-BOARD, which is made
if it is not there. Without a BOARD: generic-x86_64, generic-aarch64, generic-armv7, rpi-zero.

  --dry-run   say what would be run, and run nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

dry='' boards=()
for word in "$@"; do
    case $word in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $word is unknown" ;;
    *) boards+=("$word") ;;
    esac
done
[ "${#boards[@]}" -gt 0 ] || boards=(generic-x86_64 generic-aarch64 generic-armv7 rpi-zero)

cd "$(dirname "$0")/.."
for board in "${boards[@]}"; do
    [ -f "boards/$board/board.env" ] || { printf 'image.sh: there is no board %s\n' "$board" >&2; exit 1; }
    # shellcheck source=/dev/null
    . "boards/$board/board.env"
    [ -f "dist/pandaproxy-$board" ] || run boards/build.sh "$board"
    # Where the Dockerfile looks for it: linux/arm/v7 is armv7.
    folder=${PLATFORM#linux/}
    folder=dist/image/${folder//\//}
    run mkdir -p "$folder"
    run cp "dist/pandaproxy-$board" "$folder/pandaproxy"
    [ -n "$dry" ] || { cat LICENSE && boards/licences.py "$TARGET"; } >"$folder/licences.txt"
    run mkdir -p dist/image/state
    run install -d -m 1777 dist/image/state/pandaproxy
    run buildah --storage-driver vfs bud --isolation chroot --format docker --platform "$PLATFORM" \
        --build-context "binary=$PWD/dist/image" --tag "pandaproxy:$board" .
done
