#!/usr/bin/env bash
# One tarball a board, in dist/release: the binary, and what installs it as a service; beside them the scripts that make
# slicers trust it.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/release.sh [--dry-run] [--image NAME] [--cards] VERSION [BOARD...]

Makes dist/release/pandaproxy-VERSION-BOARD.tar.gz for each board (all but `host` if none is named):
binary, its licence and those of its crates, README, SETTINGS, TROUBLESHOOTING, units, example settings,
board.env and install.sh; and copies trust.sh and trust.ps1, for the machines that slicers run on. If no BOARD is named and VERSION
is one as Debian knows them (a digit first, or a v and a digit), boards/package.sh makes the Debian
packages as well. Binaries that dist/ does not have are built. The same files give the same bytes.

  --image NAME  where the container images are published; makes pandaproxy-VERSION-compose.tar.gz and
                pandaproxy-VERSION-home-assistant.tar.gz, with the image of this version in them
  --cards       also makes memory cards (boards/card/build.sh) of those boards that have one, as
                pandaproxy-VERSION-card-BOARD.img.xz, .contents.txt and .cdx.json, and .slot, which boards/sign.sh signs
  --dry-run     say what would be made, and make nothing

MAINTAINER in the environment names who publishes the packages: NAME <ADDRESS>.
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

dry='' image='' cards='' words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --cards) cards=1 ;;
    --image)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        image=$2
        shift ;;
    -*) misuse "the option $1 is unknown" ;;
    *) words+=("$1") ;;
    esac
    shift
done
[ "${#words[@]}" -gt 0 ] || misuse "the version is missing"
version=${words[0]}
[[ $version =~ ^[A-Za-z0-9.+-]+$ ]] || misuse "'$version' is no version"
boards=("${words[@]:1}")
# As registries know it: no capitals in the name, no v before the version.
[ -z "$image" ] || image=${image,,}:${version#v}
[[ $image =~ ^([a-z0-9][a-z0-9./_-]*:[A-Za-z0-9.-]+)?$ ]] ||
    misuse "'$image' is no image"

cd "$(dirname "$0")/.."
if [ "${#boards[@]}" = 0 ]; then
    for board in boards/*/board.env; do
        board=$(basename "$(dirname "$board")")
        [ "$board" = host ] || boards+=("$board")
    done
fi

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
pack() {
    tar --sort=name --mode=go-w --owner=0 --group=0 --numeric-owner --mtime='2000-01-01 00:00Z' -C "$parts" -cf - "$1" |
        gzip -9n >"dist/release/$1.tar.gz"
    printf 'dist/release/%s.tar.gz\n' "$1"
}
for board in "${boards[@]}"; do
    name=pandaproxy-$version-$board
    if [ -n "$dry" ]; then
        printf 'would make dist/release/%s.tar.gz\n' "$name"
        continue
    fi
    [ -f "dist/pandaproxy-$board" ] || boards/build.sh "$board"
    mkdir -p "$parts/$name" dist/release
    install -m 755 "dist/pandaproxy-$board" "$parts/$name/pandaproxy"
    install -m 755 boards/service/install.sh boards/service/pandaproxy.{init,openrc} "$parts/$name"
    install -m 644 LICENSE README.md boards/{SETTINGS,TROUBLESHOOTING}.md "boards/$board/board.env" boards/service/{pandaproxy.service,pandaproxy@.service,pandaproxy.conf} \
        "$parts/$name"
    boards/licences.py "$(sed -n 's/^TARGET=//p' "boards/$board/board.env")" >"$parts/$name/licences.txt"
    pack "$name"
done
# of_card BOARD: its memory card.
of_card() {
    local name=pandaproxy-$version-card-$1 kind
    if [ -n "$dry" ]; then
        printf 'would make dist/release/%s.img.xz\n' "$name"
        return
    fi
    boards/card/build.sh "$1"
    xz --threads=1 --stdout "dist/pandaproxy-card-$1.img" >"dist/release/$name.img.xz"
    for kind in slot contents.txt cdx.json; do
        install -m 644 "dist/pandaproxy-card-$1.$kind" "dist/release/$name.$kind"
    done
    printf 'dist/release/%s.img.xz\n' "$name"
}
for board in ${cards:+"${boards[@]}"}; do
    case $board in rpi-zero | rpi-zero-2w | rpi-3 | rpi-4) of_card "$board" ;; esac
done
if [ "${#words[@]}" = 1 ] && [[ $version =~ ^v?[0-9] ]]; then boards/package.sh ${dry:+--dry-run} ${MAINTAINER:+--maintainer "$MAINTAINER"} "$version"; fi
if [ -z "$dry" ]; then
    install -m 755 boards/slicer/trust.sh dist/release
    install -m 644 boards/slicer/trust.ps1 dist/release
fi

# fill_in FILE FOLDER: a copy of the file with this version and its image.
fill_in() {
    # shellcheck disable=SC2016 # compose's, not the shell's
    sed -e 's|\${PANDAPROXY_IMAGE:?[^}]*}|${PANDAPROXY_IMAGE:-'"$image"'}|' \
        -e "s|^ARG PANDAPROXY_IMAGE=.*|ARG PANDAPROXY_IMAGE=$image|" \
        -e "s|^version: .*|version: \"${version#v}\"|" "$1" >"$2/${1##*/}"
    if cmp -s "$1" "$2/${1##*/}"; then
        printf 'release.sh: neither image nor version is named in %s\n' "$1" >&2
        exit 1
    fi
}
# of_image NAME: the folder NAME, which is packed.
of_image() {
    case $1 in
    *-compose)
        fill_in compose.yaml "$parts/$1"
        fill_in boards/compose-two-printers.yaml "$parts/$1"
        install -m 644 .env.example LICENSE boards/TROUBLESHOOTING.md "$parts/$1" ;;
    *-home-assistant)
        fill_in boards/home-assistant/config.yaml "$parts/$1"
        fill_in boards/home-assistant/Dockerfile "$parts/$1"
        install -m 644 CHANGELOG.md LICENSE boards/TROUBLESHOOTING.md boards/home-assistant/{README,DOCS}.md "$parts/$1"
        install -Dm 644 -t "$parts/$1/translations" boards/home-assistant/translations/en.yaml ;;
    esac
}
for name in ${image:+"pandaproxy-$version-compose" "pandaproxy-$version-home-assistant"}; do
    if [ -n "$dry" ]; then
        printf 'would make dist/release/%s.tar.gz, with %s\n' "$name" "$image"
        continue
    fi
    mkdir -p "$parts/$name"
    of_image "$name"
    pack "$name"
done
