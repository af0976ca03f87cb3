#!/usr/bin/env bash
# The Debian packages for ARM: installed, run on emulated processors, and purged.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/package/foreign.sh [--dry-run] [arm64|armhf...]

Installs boards/package.sh's packages for ARM into a Debian system of this machine's architecture that takes packages
of the others, too: the program is static, so it needs nothing of theirs. It runs in qemu-user as the oldest processor
it is for, an ARM1176 (ARMv6) for armhf and a Cortex-A53 for arm64, before a simulated printer, and is purged. Without
that permission dpkg has to refuse the package. Prints a line a test, and `N passed, N failed`. Needs root: it installs
what it needs. CI does not run it.

  --dry-run   say what would be run, and run nothing
END
}

dry='' archs=() given=("$@")
for word in "$@"; do
    case $word in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    arm64 | armhf) archs+=("$word") ;;
    *) echo "foreign.sh: '$word' is unknown; --help shows the options" >&2; exit 2 ;;
    esac
done
[ "${#archs[@]}" -gt 0 ] || archs=(arm64 armhf)
if [ -n "$dry" ]; then
    printf 'would install the package of %s\n' "${archs[@]}"
    exit 0
fi

cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. boards/board.sh
# shellcheck source=tests/package/machine.sh
. tests/package/machine.sh
if [ -z "${FOREIGN_INSIDE-}" ]; then
    : >"$results"
    need qemu-arm-static qemu-user-static
    need readelf binutils
    need ip iproute2
    cargo build --locked --quiet --example printer
    for arch in "${archs[@]}"; do boards/package.sh 1.0.0 "$arch" >/dev/null; done
    debian root "$systemd_packages"
    # Networks, mounts and processes of its own.
    FOREIGN_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "${given[@]}"
fi

# The kernel starts programs of these architectures by the emulator, for as long as the tests take.
emulators=/proc/sys/fs/binfmt_misc registered=()
end() { for name in "${registered[@]}"; do echo -1 >"$emulators/$name"; done; }
trap end EXIT
[ -e $emulators/register ] || mount -t binfmt_misc binfmt_misc $emulators
for name in qemu-arm qemu-aarch64; do
    [ ! -e "$emulators/$name" ] || continue
    grep '^:' "/usr/lib/binfmt.d/$name.conf" >$emulators/register
    registered+=("$name")
done

# The printer is another machine.
ip link set lo up
mkdir -p /run/netns
mount -t tmpfs netns /run/netns
ip netns add printer
ip link add here type veth peer name there netns printer
ip addr add 10.9.0.1/24 dev here
ip link set here up
ip -n printer addr add 10.9.0.2/24 dev there
ip -n printer link set there up
ip netns exec printer target/debug/examples/printer --model p1s --access-code 12345678 --bind 10.9.0.2 \
    --camera-port 6000 --ftp-port 990 --detect-port 3000 >"$work/printer.txt" 2>&1 &
for _ in $(seq 100); do
    if grep -q '^ftp on' "$work/printer.txt"; then break; fi
    sleep 0.2
done

root=$work/foreign
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }
# The program alone, on the oldest processor that it is for.
pandaproxy() { env "QEMU_CPU=$cpu" chroot "$root" /usr/bin/pandaproxy "$@"; }
is_v6() { readelf -A "$1" | grep -E 'Tag_CPU_arch: v6$'; }

for arch in "${archs[@]}"; do
    cpu=cortex-a53
    [ "$arch" = arm64 ] || cpu=arm1176
    rm -rf "$root"
    cp -a --reflink=auto "$work/root" "$root"
    mount -t proc proc "$root/proc"
    package=pandaproxy_1.0.0_$arch.deb
    cp "dist/release/$package" "$root/"
    cp tests/printer/pki/ca.pem "$root/etc/simulated.pem"
    check "$arch: another architecture's dpkg refuses the package" refused inside dpkg -i "/$package"
    sed 's/^/# /' "$work/said.txt" | grep architecture || true
    check "$arch: and leaves nothing of it" refused test -e "$root/usr/bin/pandaproxy"
    inside dpkg --add-architecture "$arch"
    inside dpkg --purge pandaproxy >/dev/null 2>&1 || true
    check "$arch: apt installs it" inside apt-get install -y "/$package"
    [ "$arch" != armhf ] || check "armhf: the program is for ARMv6" is_v6 "$root/usr/bin/pandaproxy"
    check "$arch: it runs on $cpu" pandaproxy --version
    sed 's/^/# /' "$work/said.txt"
    sed -i "s|^#\?PRINTER_IP=.*|PRINTER_IP=10.9.0.2|; s|^#\?ACCESS_CODE=.*|ACCESS_CODE=12345678|; \
        s|^#\?SERIAL_NUMBER=.*|SERIAL_NUMBER=$(sed -n 's/^serial //p' "$work/printer.txt")|; \
        s|^#\?PRINTER_CA=.*|PRINTER_CA=/etc/simulated.pem|" "$root/etc/pandaproxy/pandaproxy.conf"
    check "$arch: its check reaches the printer" pandaproxy check --config /etc/pandaproxy/pandaproxy.conf \
        --state-dir /var/lib/pandaproxy
    sed 's/^/# /' "$work/said.txt"
    check "$arch: purging" inside apt-get purge -y "pandaproxy:$arch"
    check "$arch: leaves nothing" refused test -e "$root/var/lib/pandaproxy" -o -e "$root/etc/pandaproxy" -o \
        -e "$root/usr/bin/pandaproxy"
    umount "$root/proc"
    rm -rf "$root"
done
summary
