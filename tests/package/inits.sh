#!/usr/bin/env bash
# The service of install.sh under OpenRC and under System V's init: booted machines in QEMU.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/package/inits.sh [--here] [--dry-run] [openrc|sysvinit...]

Boots Debian in QEMU with OpenRC, and with the init of System V, where the tarball's install.sh makes PandaProxy a
service (dist/pandaproxy-generic-x86_64; boards/build.sh makes it). It is started, crashes, hangs, is upgraded to a
version that works and to one that does not, serves two printers, starts again with the machine after a trial that was
interrupted, and is removed.
Prints a line a test, and `N passed, N failed`. Needs root: it installs what it needs. CI does not run it.

  --here      with these inits in namespaces of this machine and its kernel, in place of QEMU: minutes, not an hour
  --dry-run   say what would be run, and run nothing
END
}

dry='' here='' inits=()
for word in "$@"; do
    case $word in
    --help) usage; exit 0 ;;
    --here) here=1 ;;
    --dry-run) dry=1 ;;
    openrc | sysvinit) inits+=("$word") ;;
    *) echo "inits.sh: '$word' is unknown; --help shows the options" >&2; exit 2 ;;
    esac
done
[ "${#inits[@]}" -gt 0 ] || inits=(openrc sysvinit)

cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. boards/board.sh
binary=dist/pandaproxy-generic-x86_64
[ -n "$dry" ] || [ -f "$binary" ] || die "there is no $binary: boards/build.sh generic-x86_64"
if [ -n "$dry" ]; then
    printf 'would boot a machine with %s\n' "${inits[@]}"
    exit 0
fi
# shellcheck source=tests/package/machine.sh
. tests/package/machine.sh
: >"$results"

for init in "${inits[@]}"; do
    printf '# %s\n' "$init"
    packages=sysvinit-core,udev,adduser,iproute2,mosquitto-clients,openssl,bsdutils
    [ "$init" = sysvinit ] || packages+=,openrc
    debian "$init" "$packages"
    proof "$init"
    root=$work/$init
    boards/release.sh test generic-x86_64 >/dev/null
    tar -xzf dist/release/pandaproxy-test-generic-x86_64.tar.gz -C "$root/proof"
    mv "$root/proof/pandaproxy-test-generic-x86_64" "$root/proof/tarball"
    install -m 755 tests/package/init-guest.sh "$root/proof/guest.sh"
    echo first >"$root/proof/part"
    # Nobody logs in there; the tests begin behind everything that starts with the machine.
    sed -i '/getty/d; /^pp:/d' "$root/etc/inittab"
    echo 'pp:2345:once:/proof/guest.sh' >>"$root/etc/inittab"
    machine "$init"
done
summary
