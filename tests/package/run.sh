#!/usr/bin/env bash
# The Debian package under a real systemd: a booted machine in QEMU installs, starts, upgrades and purges it.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/package/run.sh [--whole] [--help]

Makes packages of dist/pandaproxy-generic-x86_64 (boards/build.sh makes it), looks at them with lintian,
makes one of them twice and compares the bytes, and boots Debian with systemd in QEMU, where they are
installed, started before simulated printers, upgraded, removed and purged. Prints a line a test, and
`N passed, N failed`. Needs root: it installs what it needs.

  --whole   also a hung service, two printers, and a restart of the machine
END
}

whole=''
case ${1-} in
--help) usage; exit 0 ;;
--whole) whole=whole ;;
'') ;;
*) usage >&2; exit 2 ;;
esac

# Seconds that the emulated machine may take; an idle one takes a quarter of it.
readonly MACHINE_TIMEOUT=1200

cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. boards/board.sh
binary=dist/pandaproxy-generic-x86_64
[ -f "$binary" ] || die "there is no $binary: boards/build.sh generic-x86_64"
need qemu-system-x86_64 qemu-system-x86
need mmdebstrap mmdebstrap
need mkfs.ext4 e2fsprogs
need lintian lintian

work=target/package
mkdir -p "$work"
results=$work/results.txt
: >"$results"
ok() { printf 'ok %s\n' "$1" | tee -a "$results"; }
not_ok() { printf 'not ok %s\n' "$1" | tee -a "$results"; }
check() {
    local what=$1
    shift
    if "$@" >"$work/said.txt" 2>&1; then ok "$what"; else
        not_ok "$what"
        sed 's/^/    /' "$work/said.txt"
    fi
}

# ---- the packages ------------------------------------------------------------------------------

for version in 1.0.0 1.1.0 1.1.1 1.2.0 1.3.0; do boards/package.sh "$version" amd64; done
mv dist/release/pandaproxy_1.0.0_amd64.deb "$work/first.deb"
boards/package.sh 1.0.0 amd64
check "two builds give the same bytes" cmp "$work/first.deb" dist/release/pandaproxy_1.0.0_amd64.deb
check "lintian finds no fault" lintian --fail-on error,warning --suppress-tags-from-file tests/package/lintian.txt \
    dist/release/pandaproxy_1.0.0_amd64.deb
# One whose binary ends at once.
rm -rf "$work/broken"
dpkg-deb -R dist/release/pandaproxy_1.2.0_amd64.deb "$work/broken"
printf '#!/bin/sh\nexit 1\n' >"$work/broken/usr/bin/pandaproxy"
dpkg-deb --root-owner-group -b "$work/broken" dist/release/pandaproxy_1.2.0_amd64.deb >/dev/null

# ---- the machine -------------------------------------------------------------------------------

printer=target/debug/examples/printer
cargo build --locked --quiet --example printer
root=$work/root
if [ ! -e "$work/unpacked" ]; then
    rm -rf "$root"
    mmdebstrap --quiet --variant=minbase --aptopt='Apt::Install-Recommends "false"' \
        --include=systemd-sysv,linux-image-cloud-amd64,initramfs-tools,udev,kmod,dbus,adduser,init-system-helpers \
        --include=iproute2,mosquitto-clients,openssl bookworm "$root"
    touch "$work/unpacked"
fi
rm -rf "$root/proof" "$work/disk.img"
mkdir "$root/proof"
cp dist/release/pandaproxy_1.*_amd64.deb "$printer" "$root/proof/"
cp tests/printer/pki/ca.pem "$root/proof/pki.pem"
install -m 755 tests/package/guest.sh "$root/proof/guest.sh"
install -m 644 README.md tests/readme.sh "$root/proof/"
# What flash.sh copies to a host that takes packages.
mkdir "$root/proof/flash"
install -m 755 boards/service/install.sh "$root/proof/flash/"
install -m 644 boards/generic-x86_64/board.env "$root/proof/flash/"
cp dist/release/pandaproxy_1.0.0_amd64.deb "$root/proof/flash/pandaproxy.deb"
echo "first $whole" >"$root/proof/part"
echo 01P00A3C1200417 >"$root/proof/serial"
echo 00M00A2B0700218 >"$root/proof/other_serial"
cat >"$root/etc/systemd/system/proof.service" <<'END'
[Unit]
After=multi-user.target
[Service]
ExecStart=/proof/guest.sh
KillMode=process
[Install]
WantedBy=default.target
END
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -sf ../proof.service "$root/etc/systemd/system/default.target.wants/proof.service"
echo pandaproxy-test >"$root/etc/hostname"
truncate -s 1500M "$work/disk.img"
mkfs.ext4 -q -d "$root" "$work/disk.img"
kernel=$(ls "$root"/boot/vmlinuz-*) initrd=$(ls "$root"/boot/initrd.img-*)
console=$work/console.log
: >"$work/guest.txt"
begun=$SECONDS
timeout "$MACHINE_TIMEOUT" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 2 -m 1024 \
    -display none -monitor none -nic none -serial "file:$console" -serial "file:$work/guest.txt" \
    -drive "file=$work/disk.img,format=raw,if=virtio,cache=unsafe" -kernel "$kernel" -initrd "$initrd" \
    -append 'root=/dev/vda rw console=ttyS0 panic=-1' || true
tr -d '\r' <"$work/guest.txt" | tee -a "$results"
grep -q '^# end' "$results" || not_ok "the machine came to the end of its tests (see $console)"
printf 'the machine took %d s\n' "$((SECONDS - begun))"
passed=$(grep -c '^ok' "$results") failed=$(grep -c '^not ok' "$results" || true)
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
