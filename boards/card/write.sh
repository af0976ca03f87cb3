#!/usr/bin/env bash
# ./flash.sh BOARD card: a memory card, or a file with its image, with the settings in it.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./flash.sh BOARD card DEVICE|FILE.img [--config FILE] [--hostname NAME]
                  [--wifi-ssid NAME --wifi-psk-file FILE --wifi-country CC]
                  [--image FILE | --update-key FILE] [--fixed-disk] [--yes] [--dry-run]

Writes a memory card from which a Raspberry Pi boots as a PandaProxy and nothing else:

    sudo ./flash.sh rpi-zero card /dev/sdX --config pandaproxy.conf

or makes a file with the card's image, which needs no root. The image is built unless dist/ has it. Settings can
be given here, or be typed into pandaproxy.txt on the card afterwards, on any PC.

  BOARD              rpi-zero (1, Zero, Zero W), rpi-zero-2w, rpi-3 or rpi-4
  DEVICE             a whole disk that is removable and has nothing mounted
  --config FILE      KEY=VALUE lines for pandaproxy.txt; nothing is written if one is wrong
  --hostname NAME    the machine's name in the network, in place of pandaproxy-XXXX
  --wifi-ssid NAME, --wifi-psk-file FILE, --wifi-country CC
                     the Wi-Fi to join, a file with its password, and the country the machine is in
  --image FILE       the card's image, for example a release's .img.xz, in place of building it
  --update-key FILE  whose updates are taken, in place of the publisher's: a public key
  --fixed-disk       DEVICE need not be removable
  --yes              ask nothing: DEVICE is erased, FILE.img is replaced
  --dry-run          look at everything, and write nothing
END
}

die() {
    printf 'flash.sh: %s\n' "$*" >&2
    exit 1
}
say() {
    printf '%s\n' "$*"
}
# A command line that is not understood.
misuse() {
    printf 'flash.sh: %s; ./flash.sh BOARD card --help shows the options\n' "$*" >&2
    exit 2
}

# The image's first partition begins here, in bytes.
readonly FIRST=$((4 * 1048576))
# The whole of it.
readonly SIZE=$((512 * 1048576))

board='' target='' config='' hostname='' ssid='' psk='' country='' key='' image='' fixed='' yes='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --config | --hostname | --wifi-ssid | --wifi-psk-file | --wifi-country | --image | --update-key)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        case $1 in
        --config) config=$2 ;;
        --hostname) hostname=$2 ;;
        --wifi-ssid) ssid=$2 ;;
        --wifi-psk-file) psk=$2 ;;
        --wifi-country) country=$2 ;;
        --image) image=$2 ;;
        *) key=$2 ;;
        esac
        shift ;;
    --fixed-disk) fixed=1 ;;
    --yes) yes=1 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $1 is unknown" ;;
    *)
        if [ -z "$board" ]; then board=$1; elif [ -z "$target" ]; then target=$1; else misuse "'$1' is one word too many"; fi ;;
    esac
    shift
done
[ -n "$target" ] || misuse "where the card is, or a file for its image, is missing: ./flash.sh ${board:-BOARD} card DEVICE|FILE.img"

readable() {
    [ -z "$2" ] || { [ -f "$2" ] && [ -r "$2" ]; } || die "the $1 in $2 cannot be read"
}
readable settings "$config"
readable password "$psk"
readable 'public key' "$key"
readable image "$image"
[ -z "$image" ] || [ -z "$key" ] || die "--update-key is for an image that is built here"
[ -z "$config" ] || config=$(realpath "$config")
[ -z "$psk" ] || psk=$(realpath "$psk")
[ -z "$key" ] || key=$(realpath "$key")
[ -z "$image" ] || image=$(realpath "$image")
target=$(realpath -m "$target")
[[ $hostname =~ ^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)?$ ]] || die "'$hostname' is no name of a host: letters, digits and -"
[[ $country =~ ^([A-Z]{2})?$ ]] || die "'$country' is no country: two capital letters, such as DE"
[ -z "$ssid$psk$country" ] || { [ -n "$ssid" ] && [ -n "$psk" ] && [ -n "$country" ]; } ||
    die "Wi-Fi needs all of --wifi-ssid, --wifi-psk-file and --wifi-country"
[[ $ssid != *[$'\r\n']* ]] || die "the Wi-Fi's name has two lines"
# A card whose machine does not get into the network cannot say why.
bytes() { printf '%s' "$1" | wc -c; }
[ "$(bytes "$ssid")" -le 32 ] || die "the Wi-Fi's name is longer than 32 bytes"
secret=''
if [ -n "$psk" ]; then
    secret=$(head -n 1 "$psk" | tr -d '\r')
    [[ $secret =~ ^[0-9A-Fa-f]{64}$ ]] || { [ "$(bytes "$secret")" -ge 8 ] && [ "$(bytes "$secret")" -le 63 ]; } ||
        die "the first line of $psk is no password of a Wi-Fi: 8 to 63 characters, or 64 hexadecimal digits"
fi
case $board in
rpi-zero | rpi-zero-2w | rpi-3 | rpi-4) ;;
*) die "there is no card for '$board': rpi-zero, rpi-zero-2w, rpi-3, rpi-4" ;;
esac

cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

# ---- where it goes ---------------------------------------------------------------------------------

# one COLUMN: what lsblk says of the target itself.
one() {
    lsblk --nodeps --noheadings --raw --output "$1" "$target" | head -n 1
}

kind='file'
if [ -b "$target" ]; then
    kind=device
    command -v lsblk >/dev/null || die "lsblk is missing: it tells which disks are removable"
    type=$(one TYPE)
    case $type in
    disk | loop) ;;
    part) die "$target is a partition; the whole disk is /dev/$(one PKNAME)" ;;
    *) die "$target is not a disk but: $type" ;;
    esac
    [ "$(one RO)" = 0 ] || die "$target cannot be written to; the switch at the card's side?"
    # Also what of it is an array, is encrypted or is a logical volume.
    if lsblk --noheadings --raw --output MOUNTPOINTS "$target" | sed 's/\\x0a/\n/g' | grep -qx /; then
        die "$target holds this machine's own system"
    fi
    mounted=$(lsblk --noheadings --raw --output MOUNTPOINTS "$target" | sed 's/\\x0a/\n/g' | grep . | head -n 1 || true)
    [ -z "$mounted" ] || die "$target is in use: $mounted; unmount it first"
    in_use=$(lsblk --noheadings --raw --output TYPE "$target" | grep -vE '^(disk|part|loop)$' | head -n 1 || true)
    [ -z "$in_use" ] || die "$target is in use: a part of it is $in_use"
    if [ "$(one RM)" != 1 ] && [ "$(one HOTPLUG)" != 1 ] && [ -z "$fixed" ]; then
        die "$target is not removable: a memory card's reader is; if it is the right one, --fixed-disk"
    fi
    size=$(lsblk --nodeps --noheadings --bytes --raw --output SIZE "$target")
    [ "$size" -ge "$SIZE" ] || die "$target has $((size / 1048576)) MiB, and 512 are needed"
    [ -w "$target" ] || [ -n "$dry" ] || die "you may not write to $target; with sudo?"
    say "$target: $(lsblk --nodeps --noheadings --output MODEL,SIZE,TRAN "$target" | tr -s ' ' | sed 's/^ //')"
    lsblk --noheadings --output NAME,SIZE,FSTYPE,LABEL "$target" | sed 's/^/    /'
elif [ -e "$target" ] && [ ! -f "$target" ]; then
    die "$target is neither a disk nor a file"
else
    [[ $target = *.img ]] || die "$target is no disk, and does not end in .img"
    [ -d "$(dirname "$target")" ] || die "there is no folder $(dirname "$target")"
    [ ! -e "$target" ] || [ -n "$yes" ] || [ -n "$dry" ] || die "there is a $target already; --yes replaces it"
fi

# ---- what it is told -------------------------------------------------------------------------------

ours=$(mktemp -d)
trap 'rm -rf "$ours"' EXIT
trap 'exit 129' HUP INT TERM
# Names and passwords pass through files: they may have any character, and are no arguments that others see.
given=$ours/given
{
    [ -z "$config" ] || { cat "$config"; printf '\n'; }
    [ -z "$hostname" ] || printf 'HOSTNAME=%s\n' "$hostname"
    # In quotes, which are not part of it, while a space at an end is.
    [ -z "$ssid" ] || printf 'WIFI_SSID="%s"\nWIFI_COUNTRY=%s\nWIFI_PSK="%s"\n' "$ssid" "$country" "$secret"
} | sed -e '1s/^\xef\xbb\xbf//' -e 's/\r$//' >"$given"
# Else a board would find it, once it has started.
[ -z "$config" ] || told=$(boards/card/check.sh "$given") || die "invalid settings: $config, $told"

# ---- what goes there -------------------------------------------------------------------------------

# A binary that is older than its source is built again, and so is an image.
make_image() {
    local binary=dist/pandaproxy-$board
    image=dist/pandaproxy-card-$board.img
    if [ ! -f "$binary" ] || [ -n "$(find src boards/build.rs boards/build.sh "boards/$board" Cargo.toml Cargo.lock \
        -newer "$binary" -print -quit)" ]; then
        if [ -n "$dry" ]; then say "would build $binary"; else boards/build.sh "$board"; fi
    fi
    if [ -n "$key" ]; then
        # Not the image that others are given.
        image=target/card/own-$board.img
        if [ -n "$dry" ]; then say "would build $image"; else boards/card/build.sh --update-key "$key" "$board" "$image"; fi
    elif [ ! -f "$image" ] || [ "$binary" -nt "$image" ] ||
        [ -n "$(find boards/card -newer "$image" -print -quit)" ]; then
        if [ -n "$dry" ]; then say "would build $image"; else boards/card/build.sh "$board"; fi
    fi
}
[ -n "$image" ] || make_image
if [ -n "$dry" ]; then
    say "would write $image with these settings to $target, and compare"
    exit 0
fi

if [ "$kind" = device ] && [ -z "$yes" ]; then
    printf 'All that is on %s will be lost. Type its name to go on: ' "$target"
    read -r answer || answer=''
    [ "$answer" = "$target" ] || [ "$answer" = "$(basename "$target")" ] || die "nothing was written"
fi

umask 077
case $image in
*.xz)
    command -v xz >/dev/null || die "xz is missing; the package is xz-utils"
    xz -dc "$image" | dd of="$ours/card.img" bs=1M iflag=fullblock conv=sparse status=none || die "$image is damaged" ;;
*) cp --sparse=always "$image" "$ours/card.img" ;;
esac
[ "$(stat -c %s "$ours/card.img")" = "$SIZE" ] || die "$image is no image of a card: it has to have $((SIZE / 1048576)) MiB"
command -v mcopy >/dev/null || die "mcopy is missing; the package is mtools"
settings=$ours/pandaproxy.txt
mcopy -n -i "$ours/card.img@@$FIRST" ::pandaproxy.txt "$settings"

# A line of the template with the same name gives way, in its place; what it does not have is added.
awk -v given="$given" '
    BEGIN {
        while ((getline line < given) > 0) {
            if (line !~ /^[ \t]*[A-Z][A-Z0-9_]*[ \t]*=/) continue
            name = line
            sub(/[ \t]*=.*/, "", name)
            sub(/^[ \t]*/, "", name)
            if (!(name in value)) order[++count] = name
            value[name] = line
        }
    }
    {
        name = $0
        sub(/\r$/, "", name)
        if (name ~ /^#?[A-Z][A-Z0-9_]*=/) {
            sub(/^#/, "", name)
            sub(/=.*/, "", name)
            if (name in value && !(name in done)) { print value[name]; done[name] = 1; next }
        }
        print
    }
    END { for (at = 1; at <= count; at++) if (!(order[at] in done)) print value[order[at]] }
' "$settings" >"$ours/filled"
mcopy -o -i "$ours/card.img@@$FIRST" "$ours/filled" ::pandaproxy.txt
# An RSA key takes a Pi Zero minutes, and this machine no time. A first start moves it to the data partition.
if command -v openssl >/dev/null && openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 \
    -out "$ours/rsa.key" 2>/dev/null; then
    mcopy -o -i "$ours/card.img@@$FIRST" "$ours/rsa.key" ::rsa.key
fi
# value KEY: what the card has for it, without quotes.
value() {
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*[\"']\{0,1\}\([^\"']*\).*/\1/p" "$ours/filled" | tail -n 1
}
missing=''
for needed in PRINTER_IP ACCESS_CODE SERIAL_NUMBER; do
    [ -n "$(value $needed)" ] || missing+=${missing:+, }$needed
done
name=$(value HOSTNAME) wifi=$(value WIFI_SSID)
rm -f "$settings" "$given" "$ours/filled"

# say_next PLACE: what to do with it.
say_next() {
    say "next:"
    [ -z "$missing" ] || say "  fill in     $missing in pandaproxy.txt on $1, with any text editor"
    [ -n "$wifi" ] || say "  Wi-Fi       if there is no cable: WIFI_SSID, WIFI_PSK and WIFI_COUNTRY in the same file"
    say "  start       put the card into the Raspberry Pi and switch it on; the first start may take some minutes"
    say "  page        http://${name:-pandaproxy-XXXX}.local:8080  (user bblp and the access code)"
    [ -n "$name" ] || say "              XXXX is shown by your router; HOSTNAME in pandaproxy.txt sets the name"
}

# ---- written, and compared -------------------------------------------------------------------------

if [ "$kind" = file ]; then
    cp --sparse=always "$ours/card.img" "$target.new"
    sync "$target.new"
    cmp "$ours/card.img" "$target.new" || die "what was written to $target is not what is read there"
    mv "$target.new" "$target"
    say "$target: a card for $board${missing:+, which wants settings}"
    [[ $missing = *ACCESS_CODE* ]] || say "It has the access code in it: keep it to yourself, and remove it once it is on a card."
    say_next "it or on the card that it is written to"
    exit 0
fi
say "writing $(($(stat -c %s "$ours/card.img") / 1048576)) MiB to $target"
dd if="$ours/card.img" of="$target" bs=4M conv=fsync,nocreat status=none || die "writing to $target failed; nothing on it can be used"
# What is compared is read from the card, and not from this machine's memory.
blockdev --flushbufs "$target"
say "comparing"
dd if="$target" iflag=direct bs=4M count=$(($(stat -c %s "$ours/card.img") / 4194304)) status=none |
    cmp - "$ours/card.img" || die "what was written to $target is not what is read there: the card is broken"
blockdev --rereadpt "$target" 2>/dev/null || true
if command -v udevadm >/dev/null; then udevadm settle --timeout=10 2>/dev/null || true; fi
sync
say "$target is written and compared: it is safe to remove"
say_next "its first partition"
