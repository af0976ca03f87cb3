#!/usr/bin/env bash
# The image of a memory card with which a Raspberry Pi is a PandaProxy: of the same commit and the same packages the
# same bytes wherever and whenever it is built.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/card/build.sh [--refresh] [--update-key FILE] [--dry-run] BOARD [FILE.img]

Makes the image of a memory card, with dist/pandaproxy-BOARD (boards/build.sh makes it), in
dist/pandaproxy-card-BOARD.img or FILE.img, and beside it

  FILE.slot          one slot, which is what an update carries
  FILE.contents.txt  what is in it: packages, versions, licences
  FILE.cdx.json      the same for programs (CycloneDX), with sources, hashes, and the crates in the program

rpi-zero is for Raspberry Pi 1, Zero and Zero W. rpi-zero-2w, rpi-3 and rpi-4 boot on a Zero 2 W, 3 and 4
alike, and differ in how much memory the proxy plans with; a Zero 2 W needs a
USB network adapter, since Debian has no firmware for its Wi-Fi. This needs cargo and no root: packages of
Debian are downloaded and unpacked into target/card, and not installed. boards/card/README.md says what is where.

  --refresh          ask for newer packages, and take them
  --update-key FILE  whose updates are taken, in place of the publisher's: a public key
  --dry-run          print the commands and run nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/../board.sh"

# Where the partitions begin, in MiB: settings, slot a, slot b, data, and the end.
readonly P1=4 P2=64 P3=160 P4=256 END=512
# The largest slot and the largest compressed image of a board, in bytes.
readonly LARGEST_SLOT=$(((P3 - P2) * 1048576)) LARGEST_ARMEL=$((96 * 1048576)) LARGEST_ARM64=$((128 * 1048576))

dry='' refresh='' board='' image='' key=''
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --refresh) refresh=1 ;;
    --update-key)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        key=$(realpath -m "$2")
        shift ;;
    -*) misuse "the option $1 is unknown" ;;
    *)
        if [ -z "$board" ]; then board=$1; elif [ -z "$image" ]; then image=$(realpath -m "$1"); else
            misuse "'$1' is one word too many"
        fi ;;
    esac
    shift
done
[ -n "$board" ] || misuse "the board is missing"

cd "$(dirname "$0")/../.."
read_board "$board"
binary=dist/pandaproxy-$board
[ -n "$image" ] || image=$PWD/dist/pandaproxy-card-$board.img
[[ $image = *.img ]] || die "$image does not end in .img"
out=${image%.img}
case $board in
rpi-zero)
    arch=armel kernel=linux-image-rpi largest=$LARGEST_ARMEL trees='' pi4=''
    # A Zero W has ttyS1 on its pins, since its ttyAMA0 is Bluetooth's.
    console='console=tty1 console=ttyS1,115200 console=ttyAMA0,115200' ;;
rpi-zero-2w | rpi-3 | rpi-4)
    arch=arm64 kernel=linux-image-arm64 largest=$LARGEST_ARM64 trees=broadcom/ pi4=1
    console='console=tty1 console=ttyAMA0,115200 console=ttyS1,115200 nr_cpus=1' ;;
*) die "there is no card for $board: rpi-zero, rpi-zero-2w, rpi-3, rpi-4" ;;
esac
[ -f "$binary" ] || [ -n "$dry" ] || die "there is no $binary: boards/build.sh $board"

PATH=$PATH:/usr/sbin:/sbin
need mcopy mtools
need mkfs.fat dosfstools
need sfdisk fdisk
need cpio cpio
need depmod kmod
need "$QEMU_USER" qemu-user-static
need readelf binutils
need python3 python3
command -v cargo >/dev/null || [ -n "$dry" ] || die "there is no cargo, which knows the crates in the program and their licences; flash.sh --image takes a release's image"
need /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring

# Every time stamp in the image.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
umask 022

# ---- Debian's packages -----------------------------------------------------------------------------

store=$PWD/target/card/$arch
mkdir -p "$store"/{lists/partial,archives/partial,sources,unpacked}
cat >"$store/sources/debian.sources" <<END
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
: >"$store/status"
# Nothing of this machine's own apt is read or changed, but for what says how to reach the network.
cat >"$store/apt.conf" <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$store/sources";
Dir::State::lists "$store/lists";
Dir::State::status "$store/status";
Dir::Cache "$store";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
END
export APT_CONFIG=$store/apt.conf

# The lines of packages.txt that are for this architecture, without their mark.
list() {
    sed -E "/^ *(#|$)/d; /^\[$arch\]/s/^\[[a-z0-9]*\] *//; /^\[/d" boards/card/packages.txt
}

if [ -n "$refresh" ] || [ ! -e "$store/listed" ]; then
    run apt-get update -q
    run touch "$store/listed"
fi
if [ -n "$dry" ]; then
    run apt-get download "$kernel" raspi-firmware
    run mkfs.fat -C "$out.slot"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The card's version is its program's, which is that of the tag, by which updates are signed.
version=$("$QEMU_USER" -cpu "$QEMU_CPU" "$binary" --version | sed -n 's/^pandaproxy \([^ ]*\) .*/\1/p') || version=''
[ -n "$version" ] || die "$binary does not say which version it is"
kernel_image=$(apt-cache depends "$kernel" | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
[ -n "$kernel_image" ] || die "apt knows no $kernel"
mapfile -t packages < <({
    printf '%s\n' "$kernel_image" raspi-firmware
    list | sed -n 's/^lib //p' | tr ' ' '\n'
    list | grep -vE '^(lib|module) ' | cut -d' ' -f1
} | sort -u)

declare -A version_of
# fetch PACKAGE...: unpacks each in a folder of its own, once for each version.
fetch() {
    local package candidate file missing=()
    while read -r package candidate; do
        version_of[${package%%:*}]=$candidate
    done < <(apt-cache policy "$@" | sed -n '/^[^ ]/{s/:$//;h}; s/^ *Candidate: //;T; x;G; s/\n/ /p')
    for package in "$@"; do
        [ -n "${version_of[$package]:-}" ] || die "apt knows no package $package for $arch"
        [ -s "$store/unpacked/$package/${version_of[$package]}" ] || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    (cd "$store/archives" && rm -f ./*.deb && run apt-get download -q "${missing[@]}")
    for file in "$store/archives"/*.deb; do
        package=$(dpkg-deb -f "$file" Package)
        rm -rf "$store/unpacked/$package"
        mkdir -p "$store/unpacked/$package"
        dpkg -x "$file" "$store/unpacked/$package/files"
        # Architecture, source package, its version, and the hash of the package.
        # shellcheck disable=SC2016 # dpkg's, not the shell's
        dpkg-deb --showformat='${Architecture}\t${source:Package}\t${source:Version}' --show "$file" >"$work/about"
        printf '\t%s\n' "$(sha256sum <"$file" | cut -d' ' -f1)" >>"$work/about"
        mv "$work/about" "$store/unpacked/$package/$(dpkg-deb -f "$file" Version)"
        rm "$file"
    done
}
fetch "${packages[@]}"

# files_of PACKAGE: the folder with what it would install.
files_of() {
    printf '%s' "$store/unpacked/$1/files"
}

# ---- the root --------------------------------------------------------------------------------------

root=$work/root
mkdir -p "$root"
cp -a boards/card/root/. "$root/"
find "$root" -name .gitkeep -delete
mkdir -p "$root"/{bin,boot,data,dev,etc/card,lib,proc,run,slot,sys,tmp,usr/bin,var}
: >"$work/taken"

# take PACKAGE PATH: a file, link or folder of a package, where the package has it.
take() {
    local package=$1 path=${2#/} from
    from=$(files_of "$package")
    [ -e "$from/$path" ] || [ -L "$from/$path" ] || die "$package ${version_of[$package]} has no /$path"
    mkdir -p "$root/$(dirname "$path")"
    cp -a --no-preserve=ownership "$from/$path" "$root/$(dirname "$path")/"
    printf '%s /%s\n' "$package" "$path" >>"$work/taken"
}

modules=()
while read -r package paths; do
    case $package in
    lib) continue ;;
    module)
        read -ra names <<<"$paths"
        modules+=("${names[@]}")
        continue ;;
    esac
    for path in $paths; do
        take "$package" "$path"
    done
done < <(list)

# What the programs are linked with, of the packages that packages.txt calls lib.
mapfile -t libraries < <(list | sed -n 's/^lib //p' | tr ' ' '\n')
for package in "${libraries[@]}"; do
    (cd "$(files_of "$package")" && find . \( -name '*.so' -o -name '*.so.*' \) -printf "$package %P\n") | sort
done >"$work/libraries"
# library NAME: takes it, unless that is done. A loader is named with its folder, the others are without.
library() {
    local name=$1 package path
    read -r package path < <(awk -v "name=$name" '
        { base = $2; sub(".*/", "", base) }
        name ~ "^/" ? "/" $2 == name : base == name { print; exit }' "$work/libraries") ||
        die "no package of packages.txt has the library $name"
    [ ! -e "$root/$path" ] && [ ! -L "$root/$path" ] || return 0
    take "$package" "$path"
    pending+=("$root/$path")
    # A library's name is a link to its file.
    if [ -L "$root/$path" ]; then
        local to
        to=$(dirname "$path")/$(readlink "$root/$path")
        [ -e "$root/$to" ] || take "$package" "$to"
    fi
}
mapfile -t pending < <(find "$root" -type f -not -name '*.ko' -size +2k)
while [ "${#pending[@]}" -gt 0 ]; do
    files=("${pending[@]}")
    pending=()
    while read -r name; do
        library "$name"
    done < <(readelf -ld "${files[@]}" 2>/dev/null | sed -n \
        -e 's/.*Requesting program interpreter: \(.*\)\]$/\1/p' -e 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | sort -u)
done

take_from_kernel() {
    local release from name what path
    from=$(files_of "$kernel_image")
    release=$(basename "$from"/lib/modules/*)
    [ -e "$from/lib/modules/$release/modules.dep" ] || depmod -b "$from" "$release"
    for name in "${modules[@]}"; do
        # A driver that is built in has no module.
        modprobe -d "$from" -S "$release" --show-depends "$name" >"$work/depends" 2>/dev/null ||
            die "$kernel_image has no module $name"
        while read -r what path _; do
            [ "$what" = insmod ] || continue
            path=lib/modules/${path##*/lib/modules/}
            [ -e "$root/$path" ] || take "$kernel_image" "$path"
        done <"$work/depends"
    done
    mkdir -p "$root/lib/modules/$release"
    cp "$from/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$release/"
    depmod -b "$root" "$release"
    kernel_release=$release
}
take_from_kernel

cp "$binary" "$root/usr/bin/pandaproxy"
chmod 755 "$root/usr/bin/pandaproxy"
printf 'card-%s\n' "$board" >"$root/etc/card/board"
printf '%s\n' "$version" >"$root/etc/card/version"
if [ -n "$key" ]; then
    mkdir -p "$root/etc/pandaproxy"
    cp "$key" "$root/etc/pandaproxy/update.pem"
    chmod 644 "$root/etc/pandaproxy/update.pem"
fi
# A link for each of busybox's programs, unless something else is there. QEMU runs the foreign one, if need be.
"$QEMU_USER" "$root/bin/busybox" --list >"$work/applets"
while read -r applet; do
    [ -e "$root/bin/$applet" ] || [ -e "$root/sbin/$applet" ] || [ -e "$root/usr/bin/$applet" ] ||
        [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/bin/$applet"
done <"$work/applets"

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
chmod -R u+rwX,go+rX,go-w "$root"
(cd "$root" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --reproducible) >"$work/initramfs"
gzip -9n <"$work/initramfs" >"$work/initramfs.img"

# ---- what is in it ---------------------------------------------------------------------------------

# copyright PACKAGE: its file, which may be that of another package of the same source.
copyright() {
    local doc other
    doc=$(files_of "$1")/usr/share/doc/$1
    if [ -L "$doc" ]; then
        other=$(readlink "$doc")
        fetch "$other" >&2
        doc=$(files_of "$other")/usr/share/doc/$other
    fi
    [ -f "$doc/copyright" ] || die "$1 says no licence"
    printf '%s' "$doc/copyright"
}
# licences PACKAGE FILE: the short names in its copyright file; where programs cannot read that, the licences of Debian's own
# folder that it names.
licences() {
    local names
    names=$(sed -n 's/^License: *//p' "$2" | tr -d '\r' | sed '/^$/d' | sort -u | paste -sd';' | sed 's/;/; /g')
    [ -n "$names" ] || names=$(grep -o '/usr/share/common-licenses/[A-Za-z0-9.+-]*' "$2" | sed 's#.*/##; s/[.]$//' |
        sort -u | paste -sd';' | sed 's/;/; /g')
    printf '%s' "${names:-see licences/$1.txt}"
}
mkdir -p "$work/licences"
boards/licences.py "$TARGET" >"$work/licences/pandaproxy.txt"
{
    printf 'PandaProxy %s for %s, and what else is on the card.\n\n' "$version" "$board"
    printf '%s %s: MIT; the crates in it and their licences: licences/pandaproxy.txt, and the .cdx.json beside the image\n' pandaproxy "$version"
    printf 'card (settings, scripts) %s: MIT\n\n' "$version"
    printf 'Packages of Debian 12, of which the files below are taken. Their sources are at deb.debian.org,\n'
    printf 'and snapshot.debian.org for older versions; the whole text of a licence is in licences/PACKAGE.txt.\n\n'
    for package in "${packages[@]}"; do
        grep -q "^$package " "$work/taken" || [ "$package" = raspi-firmware ] || continue
        file=$(copyright "$package")
        cp -L "$file" "$work/licences/$package.txt"
        licences=$(licences "$package" "$file")
        printf '%s %s: %s\n' "$package" "${version_of[$package]}" "$licences"
        printf '%s\t%s\t%s\t%s\n' "$package" "${version_of[$package]}" \
            "$(cat "$store/unpacked/$package/${version_of[$package]}")" "$licences" >>"$work/packages"
    done
    printf '\nFiles\n\n'
    sort -k2 "$work/taken"
} >"$work/contents.txt"

# ---- a slot ----------------------------------------------------------------------------------------

slot=$work/slot
mkdir -p "$slot/licences"
firmware=$(files_of raspi-firmware)/usr/lib/raspi-firmware
cp "$(files_of "$kernel_image")/boot/vmlinuz-$kernel_release" "$slot/kernel.img"
cp "$work/initramfs.img" "$slot/"
if [ -n "$pi4" ]; then
    cp "$(files_of "$kernel_image")/usr/lib/linux-image-$kernel_release/$trees"bcm2{837,711}-rpi-*.dtb "$slot/"
    cp "$firmware"/{start4,start4cd}.elf "$firmware"/{fixup4,fixup4cd}.dat "$slot/"
else
    cp "$(files_of "$kernel_image")/usr/lib/linux-image-$kernel_release/$trees"bcm2835-rpi-*.dtb "$slot/"
fi
# With gpu_mem=16 the firmware takes the cut-down ones; a partition is bootable if it has a start.elf.
cp "$firmware"/{start,start_cd}.elf "$firmware"/{fixup,fixup_cd}.dat "$slot/"
cp "$work/contents.txt" "$slot/"
cp "$work/licences"/* "$slot/licences/"
printf 'card-%s\n' "$board" >"$slot/board"
# The driver of the boards' watchdog would stop it before a kexec: the kernel of an update that panics or hangs before it has one would stay so.
printf '%s panic=10 watchdog.open_timeout=120 watchdog.stop_on_reboot=0\n' "$console" >"$slot/cmdline.txt"
{
    printf '# Part of a slot: an update replaces it. Settings are in pandaproxy.txt of the first partition.\n'
    [ -z "$pi4" ] || printf 'arm_64bit=1\n'
    cat <<'END'
enable_uart=1
upstream_kernel=1
gpu_mem=16
disable_splash=1
boot_delay=0
kernel=kernel.img
initramfs initramfs.img followkernel
END
} >"$slot/config.txt"

# fat FILE MIB FAT-SIZE SECTORS-PER-CLUSTER LABEL ID FOLDER: a file system with what is in the folder.
fat() {
    local file=$1 mib=$2 bits=$3 cluster=$4 label=$5 id=$6 folder=$7
    rm -f "$file"
    find "$folder" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    mkfs.fat -C --invariant -F "$bits" -s "$cluster" -n "$label" -i "$id" "$file" $((mib * 1024)) >/dev/null
    (
        cd "$folder"
        find . -mindepth 1 -type d | sort | while read -r path; do mmd -i "$file" "::${path#.}"; done
        find . -type f | sort | while read -r path; do mcopy -m -i "$file" "$path" "::${path#.}"; done
    )
}

# Of the files alone: a folder's own size is another one on each file system.
mib=$(find "$slot" -type f -printf '%s\n' | awk '{ bytes += $1 } END { print int(bytes / 1048576) + 5 }')
fat "$work/slot.fat" "$mib" 16 8 CARD 0e0a0001 "$slot"
[ "$(stat -c %s "$work/slot.fat")" -le "$LARGEST_SLOT" ] || die "the slot has $mib MiB, more than its partition"

# ---- the card --------------------------------------------------------------------------------------

first=$work/first
mkdir -p "$first"
cp "$firmware/bootcode.bin" boards/card/pandaproxy.txt "$work/contents.txt" "$first/"
cp "$work/licences/raspi-firmware.txt" "$first/LICENCE.bootcode.txt"
# One sector, so that the choice of a slot is written by one write.
{
    printf '[all]\nboot_partition=2\n'
    printf '#%.0s' {1..488}
    printf '\n'
} >"$first/autoboot.txt"
[ "$(stat -c %s "$first/autoboot.txt")" = 512 ] || die "autoboot.txt is not a sector"
fat "$work/first.fat" $((P2 - P1)) 32 1 PANDAPROXY 0e0a0000 "$first"

mkdir -p "$(dirname "$image")"
rm -f "$image.new"
truncate -s "${END}M" "$image.new"
sfdisk --quiet "$image.new" <<END
label: dos
label-id: 0x70616e64
start=$((P1 * 2048)), size=$(((P2 - P1) * 2048)), type=c, bootable
start=$((P2 * 2048)), size=$(((P3 - P2) * 2048)), type=e
start=$((P3 * 2048)), size=$(((P4 - P3) * 2048)), type=e
start=$((P4 * 2048)), size=$(((END - P4) * 2048)), type=83
END
put() {
    dd if="$1" of="$image.new" bs=1M seek="$2" conv=notrunc,sparse status=none
}
put "$work/first.fat" "$P1"
put "$work/slot.fat" "$P2"
put "$work/slot.fat" "$P3"

compressed=$(gzip -9n <"$image.new" | wc -c)
[ "$compressed" -le "$largest" ] || die "$image: $compressed bytes compressed, more than $largest"
mv "$image.new" "$image"
cp "$work/slot.fat" "$out.slot"
cp "$work/contents.txt" "$out.contents.txt"
boards/card/sbom.py --board "$board" --version "$version" --target "$TARGET" --program "$binary" --image "$image" \
    --packages "$work/packages" --epoch "$SOURCE_DATE_EPOCH" >"$work/sbom"
mv "$work/sbom" "$out.cdx.json"
printf '%s: %d MiB compressed, a slot %d MiB, root %d MiB, kernel %s, sha256 %s\n' "$image" $((compressed / 1048576 + 1)) \
    "$mib" $(($(stat -c %s "$work/initramfs") / 1048576 + 1)) "$kernel_release" "$(sha256sum "$image" | cut -d' ' -f1)"
