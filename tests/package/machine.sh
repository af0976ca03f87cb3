# shellcheck shell=bash
# Sourced by the scripts beside it, behind boards/board.sh: machines with Debian, booted in QEMU or, with `here` set, in
# namespaces, whose tests say "ok" or "not ok" on their second serial port.

# Seconds that the emulated machine may take; an idle one takes a quarter of it.
readonly MACHINE_TIMEOUT=${MACHINE_TIMEOUT:-1200}

# What a system with systemd needs for the tests.
# shellcheck disable=SC2034 # the scripts that source this read it
readonly systemd_packages=systemd-sysv,udev,dbus,adduser,init-system-helpers,iproute2,procps,mosquitto-clients,openssl

work=target/package
mkdir -p "$work"
results=$work/results.txt

ok() { printf 'ok %s\n' "$1" | tee -a "$results"; }
not_ok() { printf 'not ok %s\n' "$1" | tee -a "$results"; }

# check WHAT COMMAND...: the command has to succeed.
check() {
    local what=$1
    shift
    local code=0
    # What was said before can be looked at until then.
    "$@" >"$work/said.new" 2>&1 || code=$?
    mv "$work/said.new" "$work/said.txt"
    if [ "$code" = 0 ]; then ok "$what"; else
        not_ok "$what"
        sed 's/^/    /' "$work/said.txt"
    fi
}
refused() { ! "$@"; }

# debian NAME PACKAGE,...: Debian with these packages in $work/NAME, once. Its kernel is not installed there.
debian() {
    local root=$work/$1
    need mmdebstrap mmdebstrap
    [ ! -e "$root.unpacked" ] || return 0
    rm -rf "$root"
    mmdebstrap --quiet --variant=minbase --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --include="$2" bookworm "$root"
    touch "$root.unpacked"
}

# Debian's kernel, and a first root with the modules that the machines need: $work/kernel and $work/initramfs.
kernel() {
    local image version module what path packages=$work/linux root=$work/first
    need cpio cpio
    need modprobe kmod
    need busybox busybox-static
    if [ ! -e "$packages/unpacked" ]; then
        image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
        [ -n "$image" ] || die "apt knows no linux-image-cloud-amd64; apt-get update?"
        rm -rf "$packages"
        mkdir -p "$packages"
        (cd "$packages" && apt-get download -qq "$image" && dpkg -x "$image"_*.deb . && rm "$image"_*.deb && touch unpacked)
    fi
    version=$(basename "$packages"/lib/modules/*)
    depmod -b "$packages" "$version"
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,modules,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    {
        printf '#!/bin/busybox sh\n'
        for module in virtio_pci virtio_blk veth; do
            modprobe -d "$packages" -S "$version" --show-depends "$module" | while read -r what path _; do
                if [ "$what" != insmod ] || [ -e "$root/modules/$(basename "$path")" ]; then continue; fi
                cp "$path" "$root/modules/"
                printf '/bin/busybox insmod /modules/%s\n' "$(basename "$path")"
            done
        done
        # Drivers find their devices after they are loaded.
        printf '/bin/busybox %s\n' 'mount -t devtmpfs dev /dev' 'timeout 60 /bin/busybox sh -c "until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done"' \
            'mount -t ext4 /dev/vda /root' 'mount --move /dev /root/dev'
        printf 'exec /bin/busybox switch_root /root /sbin/init\n'
    } >"$root/init"
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
    cp "$packages/boot/vmlinuz-$version" "$work/kernel"
}

# What every machine has in /proof: the printer, its authority, and what the tests need to know.
proof() {
    local root=$work/$1 printer=target/debug/examples/printer
    cargo build --locked --quiet --example printer
    rm -rf "$root/proof"
    mkdir "$root/proof"
    cp "$printer" tests/package/inside.sh "$root/proof/"
    cp tests/printer/pki/ca.pem "$root/proof/pki.pem"
    echo 01P00A3C1200417 >"$root/proof/serial"
    echo 00M00A2B0700218 >"$root/proof/other_serial"
    echo pandaproxy-test >"$root/etc/hostname"
}

# machine NAME: boots $work/NAME. What its second serial port says are results, up to "# end".
machine() {
    local console=$work/$1.log said=$work/$1.txt begun=$SECONDS
    : >"$said"
    if [ -n "${here-}" ]; then boot_here "$1"; else boot_in_qemu "$1"; fi
    tr -d '\r' <"$said" | tee -a "$results"
    grep -q '^# end' "$said" || not_ok "the machine came to the end of its tests (see $console)"
    printf 'the machine took %d s\n' "$((SECONDS - begun))"
}

boot_in_qemu() {
    local root=$work/$1 disk=$work/$1.img
    need qemu-system-x86_64 qemu-system-x86
    need setpriv util-linux
    need mkfs.ext4 e2fsprogs
    rm -f "$disk"
    truncate -s 1500M "$disk"
    mkfs.ext4 -q -m 0 -O ^has_journal -E lazy_itable_init=1 -d "$root" "$disk"
    kernel
    : >"$console"
    power_on "$disk" $((SECONDS + MACHINE_TIMEOUT))
    rm -f "$disk"
}

# How often a machine is switched on at most: twice for its tests, and again after starts that hang.
readonly MAX_BOOTS=5
# Seconds after which a start has come to the tests, also where this machine is busy.
readonly BOOT_TIMEOUT=300

# power_on DISK UNTIL: switches the machine on until its tests have ended. It is switched off and on again where it restarts:
# the kernel has been seen to hang in a start behind QEMU's reset, and such a start is tried again, too.
power_on() {
    local disk=$1 until=$2 boots=0 before pid started
    while [ $boots -lt $MAX_BOOTS ] && [ $SECONDS -lt "$until" ] && ! grep -q '^# end' "$said"; do
        # One that was switched off has not unmounted it.
        [ $boots = 0 ] || e2fsck -fy "$disk" >/dev/null 2>&1 || true
        # `timeout 0` would wait for ever.
        [ $SECONDS -lt "$until" ] || break
        boots=$((boots + 1)) started=$SECONDS before=$(grep -c '^# started' "$said" || true)
        # It ends with this script, however that ends.
        setpriv --pdeathsig TERM timeout $((until - SECONDS)) qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -no-reboot \
            -display none -monitor none -nic none -chardev "file,id=console,path=$console,append=on" -serial chardev:console \
            -chardev "file,id=said,path=$said,append=on" -serial chardev:said \
            -drive "file=$disk,format=raw,if=virtio,cache=unsafe" -kernel "$work/kernel" -initrd "$work/initramfs" \
            -append 'console=ttyS0 quiet mitigations=off no_timer_check systemd.getty_auto=no panic=-1' &
        pid=$!
        while kill -0 $pid 2>/dev/null; do
            if [ $((SECONDS - started)) -ge $BOOT_TIMEOUT ] &&
                [ "$(grep -c '^# started' "$said" || true)" = "$before" ]; then
                printf '# start %d has hung for %d s: the machine is switched on again\n' $boots $BOOT_TIMEOUT
                # It may end just now.
                kill $pid || true
                break
            fi
            sleep 1
        done
        wait $pid || true
    done
}

# The same init as the first process of namespaces, with this machine's kernel and a disk in memory.
boot_here() {
    local disk=$work/here code=129 until=$((SECONDS + MACHINE_TIMEOUT)) group
    group=$(findmnt -nt cgroup2 -o TARGET | tail -n 1)/pandaproxy-test-$$
    need setpriv util-linux
    : >"$console"
    umount "$disk" 2>/dev/null || true
    mkdir -p "$disk" "$group"
    mount -t tmpfs -o size=1000M tmpfs "$disk"
    cp -a "$work/$1/." "$disk"
    # What looks for devices and disks, and sets the clock. They are this machine's.
    rm -f "$disk"/etc/{rc?.d,runlevels/*}/*{udev,hwclock.sh,checkroot.sh,checkfs.sh,cgroups,urandom,mountkernfs.sh,mountdevsubfs.sh,mount-configfs,mountall.sh,brightness}
    # A first process that restarts the machine ends by SIGHUP.
    while [ "$code" = 129 ] && [ "$SECONDS" -lt "$until" ]; do
        code=0
        # shellcheck disable=SC2016 # the inner shell expands it
        setpriv --pdeathsig TERM timeout --kill-after=5 $((until - SECONDS)) bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' bash "$group" \
            unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child \
            bash tests/package/namespaces.sh "$disk" "$said" </dev/null >>"$console" 2>&1 || code=$?
    done
    umount -l "$disk"
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# The last line: fails if a test did.
summary() {
    local passed failed
    passed=$(grep -c '^ok' "$results" || true) failed=$(grep -c '^not ok' "$results" || true)
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}
