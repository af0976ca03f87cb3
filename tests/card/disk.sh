#!/usr/bin/env bash
# Which disks flash.sh writes a memory card to, and what it writes.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/card/disk.sh IMAGE

Looks at which disks flash.sh writes a memory card to, with loop devices, what it writes, and what a release has for it.
Needs root, and any image of boards/card/build.sh. Prints a line a test.
END
}
case ${1-} in
--help) usage; exit 0 ;;
-*) echo "disk.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac
[ $# = 1 ] || { usage >&2; exit 2; }
image=$(realpath "$1")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/readme.sh
. tests/readme.sh
work=$(mktemp -d)
loops=()
leave() {
    # Tests that have passed have passed, whatever still reads what was mounted.
    umount -l "$work/mounted" 2>/dev/null || true
    for loop in "${loops[@]}"; do losetup -d "$loop" || true; done
    rm -rf --one-file-system "$work" || true
}
trap leave EXIT

passed=0 failed=0
check() {
    local what=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$what"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$what"
        cat "$work/said"
    fi
}
# card TARGET OPTION...: writes the image there.
card() {
    ./flash.sh rpi-zero card "$@" --image "$image"
}
# refused WORDS TARGET OPTION...: it ends with these words, and without writing.
refused() {
    local words=$1 before after
    shift
    before=$(head -c 1048576 "$1" | sha256sum)
    if card "$@" </dev/null; then return 1; fi >"$work/why" 2>&1
    cat "$work/why"
    grep -q -- "$words" "$work/why" || return 1
    after=$(head -c 1048576 "$1" | sha256sum)
    [ "$before" = "$after" ]
}

for number in 1 2; do
    truncate -s $((number * 400))M "$work/disk$number"
    loops+=("$(losetup --find --show "$work/disk$number")")
done
small=${loops[0]} disk=${loops[1]}

check 'a disk that is not removable is refused' refused 'is not removable' "$disk" --yes
check 'one that is too small is refused' refused 'are needed' "$small" --yes --fixed-disk
check 'without its name typed nothing is written' refused 'nothing was written' "$disk" --fixed-disk
mkfs.ext4 -q "$disk"
mkdir "$work/mounted"
if mount "$disk" "$work/mounted" 2>/dev/null; then
    check 'one that is mounted is refused' refused 'is in use' "$disk" --yes --fixed-disk
    # What looks at new file systems may be looking at this one.
    for _ in $(seq 100); do
        if umount "$work/mounted" 2>/dev/null; then break; fi
        sleep 0.1
    done
    ! findmnt "$work/mounted" >/dev/null || { printf 'what was mounted for a test stays in use\n' >&2; exit 1; }
else
    printf 'skipped: nothing can be mounted here\n'
fi
system=/dev/$(lsblk -no PKNAME "$(findmnt -no SOURCE /)" 2>/dev/null | head -n 1)
[ -b "$system" ] || system=$(findmnt -no SOURCE /)
if [ -b "$system" ]; then
    check 'the disk of the running system is refused' refused "own system" "$system" --dry-run --fixed-disk
else
    printf 'skipped: this machine has its root on no disk\n'
fi

# One line with what is wrong, and no help; what is no use to a card without a network is refused before it is written.
misunderstood() {
    local words=$1 code=0
    shift
    ./flash.sh rpi-zero card "$@" >"$work/why" 2>&1 || code=$?
    cat "$work/why"
    [ "$code" = 2 ] && [ "$(wc -l <"$work/why")" = 1 ] && grep -q -- "$words.*card --help shows the options$" "$work/why"
}
check 'an unknown option is named' misunderstood 'option --wifi is unknown' "$work/x.img" --wifi x
check 'and one without its value' misunderstood '--config needs a value' "$work/x.img" --config
check 'and a word too many' misunderstood "'y.img' is one word too many" "$work/x.img" y.img
check 'and a missing target' misunderstood 'where the card is'
for password in short "$(printf '%064d' 1)z" ''; do
    printf '%s\n' "$password" >"$work/psk"
    check "a password of ${#password} characters is refused" refused 'no password of a Wi-Fi' "$disk" --yes --fixed-disk \
        --wifi-ssid home --wifi-psk-file "$work/psk" --wifi-country DE
done

# shellcheck disable=SC2016 # nothing of it is to be expanded
secret='a pass"word \with $all'
printf '%s\n' "$secret" >"$work/psk"
printf '\xef\xbb\xbfPRINTER_IP=192.0.2.7\r\nSTRICT_SERIAL=true\r\n' >"$work/settings"
# By README's line, after its name is typed.
written() {
    local line
    read -ra line < <(readme_line 'sudo ./flash.sh rpi-zero card' "s#^sudo ##; s#/dev/sdX#$disk#") || return
    "${line[@]}" --image "$image" --fixed-disk --config "$work/settings" --hostname workshop \
        --wifi-ssid 'Caf\e 1 ' --wifi-psk-file "$work/psk" --wifi-country DE <<<"$1" >"$work/told" 2>&1
}
not_written() {
    ! written /dev/other || return
    cat "$work/told"
    grep -q 'nothing was written' "$work/told" && cmp -n $((4 * 1048576)) "$disk" "$work/before"
}
head -c $((4 * 1048576)) "$disk" >"$work/before"
check 'with the name of another one typed nothing is written' not_written
check 'a disk is written and compared' written "$(basename "$disk")"
told() {
    cat "$work/told"
    grep -q "^$disk: .*800M" "$work/told" && grep -q 'Type its name' "$work/told" && grep -q '^comparing' "$work/told" &&
        grep -q 'safe to remove$' "$work/told"
}
check 'its size is told, and when it is safe to remove' told
# After that what to do next: of the settings two are missing, and Wi-Fi is there.
next_steps() {
    sed '1,/safe to remove/d' "$work/told" >"$work/next"
    cat "$work/next"
    [ "$(head -n 1 "$work/next")" = next: ] && grep -q '^  fill in  *ACCESS_CODE, SERIAL_NUMBER in pandaproxy.txt on its first' "$work/next" &&
        grep -q '^  page  *http://workshop.local:8080' "$work/next" && ! grep -q 'Wi-Fi\|XXXX' "$work/next"
}
check 'and what to do next' next_steps
settings() {
    mcopy -n -i "$disk@@4194304" ::pandaproxy.txt "$work/found"
    cat "$work/found"
    for line in 'PRINTER_IP=192.0.2.7' 'HOSTNAME=workshop' 'WIFI_SSID="Caf\e 1 "' "WIFI_PSK=\"$secret\"" WIFI_COUNTRY=DE STRICT_SERIAL=true; do
        grep -qxF -- "$line" "$work/found" || { printf 'missing: %s\n' "$line"; return 1; }
    done
    [ "$(grep -c '^PRINTER_IP=' "$work/found")" = 1 ]
}
check 'the settings are in it as they were given' settings
check 'the slots are those of the image' cmp -n $((192 * 1048576)) -i $((64 * 1048576)) "$disk" "$image"
# A card that does not keep what is written to it, as it shows once it is read back.
mkdir "$work/bin"
cat >"$work/bin/blockdev" <<END
#!/bin/sh
[ "\$1" != --flushbufs ] || printf x | dd of="$disk" bs=1 seek=$((300 * 1048576)) conv=notrunc,fsync status=none
exec /sbin/blockdev "\$@"
END
chmod 755 "$work/bin/blockdev"
forgetful() {
    if PATH=$work/bin:$PATH card "$disk" --yes --fixed-disk >"$work/told" 2>&1; then return 1; fi
    cat "$work/told"
    grep -q 'the card is broken' "$work/told" && ! grep -q 'safe to remove' "$work/told"
}
check 'one that does not keep it is named' forgetful
losetup -P "$disk" 2>/dev/null || true
partition=$(lsblk -rno NAME,TYPE "$disk" | sed -n 's/ part$//p' | head -n 1)
if [ -n "$partition" ] && [ -b "/dev/$partition" ]; then
    check 'a partition is refused' refused 'is a partition' "/dev/$partition" --yes --fixed-disk
else
    printf 'skipped: loop devices have no partitions here\n'
fi

# What release.sh makes, in a project whose build.sh has this image, as far as its first slot.
project=$work/project
mkdir -p "$project/dist"
cp -a boards LICENSE README.md "$project/"
cat >"$project/boards/card/build.sh" <<END
#!/bin/sh
set -e
head -c $((80 * 1048576)) "$image" >"dist/pandaproxy-card-\$1.img"
truncate -s 512M "dist/pandaproxy-card-\$1.img"
for kind in slot contents.txt cdx.json; do echo "\$kind of \$1" >"dist/pandaproxy-card-\$1.\$kind"; done
END
printf '#!/bin/sh\necho licences\n' >"$project/boards/licences.py"
for board in rpi-zero rpi-2; do echo "$board" >"$project/dist/pandaproxy-$board"; done
openssl genpkey -algorithm ed25519 -out "$work/key.pem" 2>/dev/null
openssl pkey -in "$work/key.pem" -pubout -out "$project/boards/update.pem"
release=$project/dist/release/pandaproxy-v9.9.9
released() {
    (cd "$project" && boards/release.sh --cards v9.9.9 rpi-zero rpi-2 && boards/sign.sh --key "$work/key.pem" v9.9.9) || return
    (cd "$project/dist/release" && ls) >"$work/released"
    cat "$work/released"
    printf 'pandaproxy-v9.9.9-%s\n' card-rpi-zero.{cdx.json,contents.txt,img.xz,slot,update} rpi-{2,zero}.{tar.gz,update} |
        cmp - <(grep -v trust "$work/released")
}
check 'a release has the card of the board that has one' released
updated() {
    head -n 3 "$release-card-rpi-zero.update"
    [ "$(sed -n '2,3p;/^$/q' "$release-card-rpi-zero.update")" = "$(printf 'board card-rpi-zero\nversion 9.9.9\n')" ] &&
        [ "$(tail -n 1 "$release-card-rpi-zero.update")" = 'slot of rpi-zero' ]
}
check 'its update file is its slot, signed for this kind of card' updated
file=$work/card.img
of_release() {
    ./flash.sh rpi-zero card "$file" --image "$release-card-rpi-zero.img.xz" --hostname released >"$work/told" &&
        grep -q '^  fill in  *PRINTER_IP, ACCESS_CODE, SERIAL_NUMBER in pandaproxy.txt on it' "$work/told" &&
        grep -q 'Wi-Fi' "$work/told" && ! grep -q 'has the access code' "$work/told" &&
        [ "$(stat -c %s "$file")" = $((512 * 1048576)) ] &&
        cmp -n $((16 * 1048576)) -i $((64 * 1048576)) "$file" "$image" &&
        mcopy -n -i "$file@@4194304" ::pandaproxy.txt - | grep -x 'HOSTNAME=released'
}
check 'flash.sh takes its image as it is' of_release
rm "$file"
head -c 100000 "$release-card-rpi-zero.img.xz" >"$work/cut.img.xz"
echo text >"$work/text.img"
damaged() {
    local words=$1
    if ./flash.sh rpi-zero card "$file" --image "$2" >"$work/why" 2>&1; then return 1; fi
    cat "$work/why"
    grep -q -- "$words" "$work/why" && [ ! -e "$file" ]
}
check 'one that is cut off is refused' damaged 'is damaged' "$work/cut.img.xz"
check 'another file is refused' damaged 'is no image of a card' "$work/text.img"

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
