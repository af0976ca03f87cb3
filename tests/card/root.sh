#!/usr/bin/env bash
# What runs on a memory card, in a root of its own on this machine: its scripts with busybox and the program for this machine, on files in
# place of the card, the LED, the watchdog and the clock. The shell is dash: busybox's would run its own programs where a test has
# put others. tests/card/run.py boots the image with busybox's.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/card/root.sh [--help] [NAME...]

Needs root, busybox-static, dash, dosfstools, e2fsprogs, mtools, util-linux and dist/pandaproxy-generic-x86_64 (boards/build.sh makes it). Runs the tests whose
function is named, or all; prints a line for each that fails, and `N passed, N failed`.
END
}

cd "$(dirname "$0")/../.."
case ${1-} in
--help) usage; exit 0 ;;
--inside) shift ;;
-*) echo "root.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
*) exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@" ;;
esac
ip link set lo up

readonly CODE=7Kq2xW9p SERIAL=01P00A000000001
work=$(mktemp -d)
# What is still running ends with the last of this PID namespace.
trap 'cd /; umount -l "$work" || true; rmdir "$work" || true' EXIT
mount -t tmpfs tmpfs "$work"
passed=0 failed=0 name=''

ok() {
    passed=$((passed + 1))
}
# fails WHAT: the running test's answer.
fails() {
    failed=$((failed + 1))
    printf 'FAILED %s: %s\n' "$name" "$*"
}
# is WHAT GOT WANTED
is() {
    if [ "$2" = "$3" ]; then ok; else fails "$1: got '$2', wanted '$3'"; fi
}
# has WHAT TEXT PATTERN
has() {
    if grep -qE -- "$3" <<<"$2"; then ok; else fails "$1: no '$3' in '$2'"; fi
}
# lacks WHAT TEXT PATTERN
lacks() {
    if ! grep -qE -- "$3" <<<"$2"; then ok; else fails "$1: '$3' in '$2'"; fi
}

# until_it COMMAND...: waits until that succeeds, a minute at most, however slow the machine is.
until_it() {
    local end=$((SECONDS + 60))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return
        sleep 0.05
    done
}
# ended PID: a child of this script is not there any more.
ended() {
    ! kill -0 "$1" 2>/dev/null
}
# answers ADDRESS: sets `answer` to what that answers; fails without one.
answers() {
    answer=$(curl -s --max-time 60 "$1" || true)
    [ -n "$answer" ]
}
listens() {
    curl -s --max-time 60 "$1" >/dev/null
}

# ---- the root --------------------------------------------------------------------------------------

# with PROGRAM FOLDER: copies a program of this machine with its libraries.
with() {
    rm -f "$pristine$2/$1"
    with_libraries "$(PATH=$PATH:/usr/sbin:/sbin command -v "$1")" "$2"
}
with_libraries() {
    local file
    cp -L "$1" "$pristine$2/"
    # One without has no libraries.
    for file in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$pristine$(dirname "$file")"
        cp -Ln "$file" "$pristine$file"
    done
}

pristine=$work/pristine
mkdir -p "$pristine"/{bin,boot,data/secrets,data/settings,data/log,data/pandaproxy,dev,proc,run/card,run/tmp,slot,sys/class/leds/ACT,usr/bin}
cp -a boards/card/root/. "$pristine/"
cp "$(command -v busybox)" "$pristine/bin/busybox"
chroot "$pristine" /bin/busybox --install -s /bin
with e2fsck /sbin
with mke2fs /sbin
with setpriv /usr/bin
with flock /usr/bin
with dash /bin
ln -sf dash "$pristine/bin/sh"
with_libraries dist/pandaproxy-generic-x86_64 /usr/bin
mv "$pristine/usr/bin/pandaproxy-generic-x86_64" "$pristine/usr/bin/pandaproxy"
echo card-test >"$pristine/etc/card/board"
echo 1.2.3 >"$pristine/etc/card/version"
echo 'console=tty1' >"$pristine/proc/cmdline"
echo '100.00 50.00' >"$pristine/proc/uptime"
touch "$pristine/sys/class/leds/ACT"/{trigger,delay_on,delay_off,brightness}
echo 1 >"$pristine/sys/class/leds/ACT/max_brightness"
: >"$pristine/dev/null"
chmod 666 "$pristine/dev/null"
# The log and the console, as a file.
cat >"$pristine/bin/logger.new" <<'END'
#!/bin/sh
shift 2
echo "${*#-- }" >>/run/log
END
# What the card's scripts mount is there already.
cat >"$pristine/bin/mount.new" <<'END'
#!/bin/sh
echo "mount $*" >>/run/log
END
cat >"$pristine/bin/reboot.new" <<'END'
#!/bin/sh
echo "reboot $*" >>/run/log
END
# It would be that of all of this machine's disks.
cat >"$pristine/bin/sync.new" <<'END'
#!/bin/sh
END
for stub in logger mount reboot sync; do
    rm "$pristine/bin/$stub"
    mv "$pristine/bin/$stub.new" "$pristine/bin/$stub"
    chmod 755 "$pristine/bin/$stub"
done

# is_alone: ends what runs in the root, which a test may have left behind; fails if there was anything.
is_alone() {
    local path found=''
    for path in /proc/[0-9]*; do
        if [ "$path/root" -ef "$root" ]; then
            found=1
            kill -9 "${path#/proc/}" 2>/dev/null || true
        fi
    done
    [ -z "$found" ]
}
# fresh: a new root for a test, in $root.
fresh() {
    root=$work/root
    until_it is_alone || fails 'what the test before has started does not end'
    for path in data slot proc sys; do
        while umount -l "$root/$path" 2>/dev/null; do :; done
    done
    rm -rf "$root"
    cp -a "$pristine" "$root"
}

# at COMMAND...: runs it in the root.
at() {
    env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" "$@"
}

# becomes COMMAND...: the same in place of the shell that calls it, which is one in the background: its process is the command's.
becomes() {
    exec env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" "$@"
}

# replaces PROGRAM: standard input is a script in its place.
replaces() {
    rm -f "$root/bin/$1" "$root/usr/bin/$1"
    cat >"$root/bin/$1"
    chmod 755 "$root/bin/$1"
}

settings() {
    printf '%s\n' "PRINTER_IP=192.0.2.9" "ACCESS_CODE=$CODE" "SERIAL_NUMBER=$SERIAL" "$@" >"$root/boot/pandaproxy.txt"
}

# ---- settings --------------------------------------------------------------------------------------

a_valid_file_serves() {
    settings
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" ''
    has 'the code' "$(cat "$root/run/card/pandaproxy.conf")" "^ACCESS_CODE=\"$CODE\"$"
    has 'the status page is on' "$(cat "$root/run/card/pandaproxy.conf")" '^SERVICES=.*http'
    is 'who reads it' "$(stat -c '%a %u:%g' "$root/run/card/pandaproxy.conf")" '640 0:101'
}

the_template_is_valid_once_filled_in() {
    sed "s/^PRINTER_IP=/&192.0.2.9/; s/^ACCESS_CODE=/&$CODE/; s/^SERIAL_NUMBER=/&$SERIAL/" boards/card/pandaproxy.txt \
        >"$root/boot/pandaproxy.txt"
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" ''
    # Every commented setting is one.
    sed 's/^#\([A-Z_]*=..*\)/\1/' "$root/boot/pandaproxy.txt" >"$root/boot/new"
    mv "$root/boot/new" "$root/boot/pandaproxy.txt"
    at /lib/card/settings
    is 'errors of the examples' "$(cat "$root/run/card/errors")" ''
}

as_windows_saves_it() {
    settings 'WIFI_SSID=Büro 5' 'WIFI_PSK=secret pass' WIFI_COUNTRY=DE
    sed -i '1s/^/\xef\xbb\xbf/; s/$/\r/' "$root/boot/pandaproxy.txt"
    size=$(stat -c %s "$root/boot/pandaproxy.txt")
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" ''
    is 'the name of the Wi-Fi' "$(cat "$root/run/card/keys/WIFI_SSID")" 'Büro 5'
    is 'its password' "$(cat "$root/run/card/keys/WIFI_PSK")" 'secret pass'
    is 'the size on the card' "$(stat -c %s "$root/boot/pandaproxy.txt")" "$size"
    is 'lines that end as before' "$(grep -c $'\r$' "$root/boot/pandaproxy.txt")" 6
}

# The first line's key has the mark before it, and no line break ends the file.
marks_and_ends() {
    printf '\xef\xbb\xbfACCESS_CODE="%s"\r\nPRINTER_IP = 192.0.2.9 \r\nSERIAL_NUMBER=%s\r\nHTTP_TOKEN=abcdefgh' "$CODE" "$SERIAL" \
        >"$root/boot/pandaproxy.txt"
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" ''
    is 'the code' "$(cat "$root/data/secrets/ACCESS_CODE")" "$CODE"
    is 'the token' "$(cat "$root/data/secrets/HTTP_TOKEN")" abcdefgh
    is 'the file' "$(cat "$root/boot/pandaproxy.txt")" \
        "$(printf '\xef\xbb\xbfACCESS_CODE=          \r\nPRINTER_IP = 192.0.2.9 \r\nSERIAL_NUMBER=%s\r\nHTTP_TOKEN=        ' "$SERIAL")"
}

secrets_leave_the_first_partition() {
    settings VIEW_CODE=lookhere ADMIN_CODE=letmein-now WIFI_SSID=home WIFI_PSK=12345678 WIFI_COUNTRY=DE HTTP_TOKEN=tokentoken
    at /lib/card/settings
    lacks 'the file' "$(cat "$root/boot/pandaproxy.txt")" "$CODE|lookhere|letmein|12345678|tokentoken"
    is modes "$(stat -c %a "$root"/data/secrets/* | sort -u)" 600
    is 'how many' "$(find "$root/data/secrets" -type f | wc -l)" 5
    lacks 'what is kept for a start without the file' "$(cat "$root/data/settings/last.txt")" "$CODE|lookhere|letmein"
    before=$(cat "$root/run/card/pandaproxy.conf")
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings
    is 'the next start' "$(cat "$root/run/card/pandaproxy.conf")" "$before"
    is 'its errors' "$(cat "$root/run/card/errors")" ''
    is 'its admin code' "$(cat "$root/run/card/keys/ADMIN_CODE")" letmein-now
}

a_new_value_replaces_the_stored_one() {
    settings VIEW_CODE=lookhere
    at /lib/card/settings
    sed -i 's/^ACCESS_CODE=.*/ACCESS_CODE=newcode1/; s/^VIEW_CODE=.*/VIEW_CODE=off/' "$root/boot/pandaproxy.txt"
    at /lib/card/settings
    is 'the code' "$(cat "$root/data/secrets/ACCESS_CODE")" newcode1
    is 'a code that is off' "$(find "$root/data/secrets" -name VIEW_CODE)" ''
    lacks 'settings' "$(cat "$root/run/card/pandaproxy.conf")" "$CODE|lookhere|off"
    is errors "$(cat "$root/run/card/errors")" ''
}

# Power fails before or after each step that changes something: nothing is lost, and the next start ends it.
power_fails_at_each_step() {
    local when step
    for when in before after; do
        step=0
        while :; do
            step=$((step + 1))
            fresh
            settings VIEW_CODE=lookhere
            for program in cp mv dd sync mount rm; do
                replaces "$program" <<END
#!/bin/sh
step=\$((\$(/bin/busybox cat /run/step 2>/dev/null || echo 0) + 1))
echo \$step >/run/step
[ $when = after ] || [ \$step != $step ] || kill -9 \$PPID
case $program in mount | sync) ;; *) /bin/busybox $program "\$@" || exit ;; esac
[ $when = before ] || [ \$step != $step ] || kill -9 \$PPID
END
            done
            at /lib/card/settings-secrets >/dev/null 2>&1 || true
            [ "$(cat "$root/run/step")" -ge "$step" ] || break
            found=$(cat "$root/boot/pandaproxy.txt" "$root"/data/secrets/* 2>/dev/null | grep -cE "$CODE|lookhere" || true)
            [ "$found" -ge 2 ] || fails "$when step $step: a secret is lost"
            rm -rf "$root/run/card"
            mkdir "$root/run/card"
            for program in cp mv dd sync rm; do
                cp -a --remove-destination "$pristine/bin/$program" "$root/bin/"
            done
            at /lib/card/settings >/dev/null
            is "$when step $step: the next start" \
                "$(cat "$root/data/secrets/ACCESS_CODE" "$root/data/secrets/VIEW_CODE" | tr '\n' ' ')" "$CODE lookhere "
            lacks "$when step $step: the file" "$(cat "$root/boot/pandaproxy.txt")" "$CODE|lookhere"
        done
        [ "$step" -gt 10 ] || fails "only $step steps"
    done
}

# straddling: settings of four sectors, with a secret's value across each of their ends.
straddling() {
    local key name file=$root/boot/pandaproxy.txt before
    printf 'PRINTER_IP=192.0.2.9\nSERIAL_NUMBER=%s\n' "$SERIAL" >"$file"
    for key in "ACCESS_CODE=$CODE" VIEW_CODE=lookhere HTTP_TOKEN=tokentoken; do
        # The value's fourth character is the last of its sector.
        name=${key%%=*}=
        before=$(($(stat -c %s "$file") + 2 + ${#name} + 4))
        printf '#%*s\n%s\n' $((512 - before % 512)) '' "$key" >>"$file"
    done
    printf '#%300s\n' '' >>"$file"
}
# writes_sectors SECTOR...: dd writes these sectors of what it is to write, then power fails.
writes_sectors() {
    echo "$*" >"$root/run/sectors"
    replaces dd <<'END'
#!/bin/sh
for word; do
    case $word in if=*) from=${word#if=} ;; of=*) to=${word#of=} ;; esac
done
for sector in $(cat /run/sectors); do
    /bin/busybox dd if="$from" of="$to" bs=512 skip="$sector" seek="$sector" count=1 conv=notrunc 2>/dev/null
done
kill -9 $PPID
END
}
# is_cut: moves secrets until power fails.
is_cut() {
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings-secrets >/dev/null 2>&1 || true
}
# starts_again: power is back.
starts_again() {
    rm "$root/bin/dd"
    ln -s busybox "$root/bin/dd"
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings >/dev/null
}
stored_secrets() {
    cat "$root"/data/secrets/{ACCESS_CODE,VIEW_CODE,HTTP_TOKEN} | tr '\n' ' '
}
is_moved() {
    is "$1: stored" "$(stored_secrets)" "$2"
    is "$1: errors" "$(cat "$root/run/card/errors")" ''
    lacks "$1: the file" "$(tr -d '\r' <"$root/boot/pandaproxy.txt")" '^(ACCESS_CODE|VIEW_CODE|HTTP_TOKEN)=.*[^ ]'
    is "$1: no copy is left" "$(find "$root/data/settings" -name 'blanking*')" ''
}

# Within the one write: whatever part of its sectors the card took, and again in the start that is to end it.
power_fails_within_the_write() {
    local bits sector sectors others whole="$CODE lookhere tokentoken "
    straddling
    for sector in 1 2 3; do
        has 'the test has values across their ends' "$(dd if="$root/boot/pandaproxy.txt" bs=1 skip=$((sector * 512 - 4)) count=8 \
            status=none)" "^($CODE|lookhere|tokentok)\$"
    done
    for bits in $(seq 0 15); do
        sectors='' others=''
        for sector in 0 1 2 3; do
            if [ $((bits >> sector & 1)) = 1 ]; then sectors+=" $sector"; else others+=" $sector"; fi
        done
        fresh
        straddling
        writes_sectors "$sectors"
        is_cut
        is "sectors$sectors: a copy is kept" "$(stat -c %a "$root/data/settings/blanking")" 600
        starts_again
        is_moved "sectors$sectors" "$whole"
        fresh
        straddling
        writes_sectors "$sectors"
        is_cut
        writes_sectors "$others"
        is_cut
        is "sectors$sectors, then$others: stored" "$(stored_secrets)" "$whole"
        starts_again
        is_moved "sectors$sectors, then$others" "$whole"
    done
}

# What is typed in after such a power cut counts, and the other secrets are whole.
a_file_changed_after_the_cut_counts() {
    straddling
    writes_sectors 1 3
    is_cut
    echo HOSTNAME=shelf >>"$root/boot/pandaproxy.txt"
    starts_again
    is_moved 'another line' "$CODE lookhere tokentoken "
    is 'that line' "$(cat "$root/run/card/keys/HOSTNAME")" shelf
    fresh
    straddling
    writes_sectors 1 3
    is_cut
    sed -i 's/^VIEW_CODE=.*/VIEW_CODE=newlook5/' "$root/boot/pandaproxy.txt"
    starts_again
    is_moved 'a secret' "$CODE newlook5 tokentoken "
    fresh
    straddling
    writes_sectors 0 1 2
    is_cut
    printf 'PRINTER_IP=192.0.2.9\r\nSERIAL_NUMBER=%s\r\nACCESS_CODE=87654321\r\n' "$SERIAL" >"$root/boot/pandaproxy.txt"
    starts_again
    is_moved 'another file' '87654321 lookhere tokentoken '
}

# Without a power cut: what the card does not take, or does not keep, is done again at the next start.
a_card_that_is_not_written_keeps_the_copy() {
    local how
    for how in 'exit 1' 'exit 0'; do
        fresh
        straddling
        writes_sectors 1
        sed -i "s/^kill .*/$how/" "$root/bin/dd"
        at /lib/card/settings >/dev/null 2>&1
        is "$how: errors" "$(cat "$root/run/card/errors")" ''
        has "$how: it is said" "$(cat "$root/run/log")" 'secrets stay'
        has "$how: the program has the whole code" "$(cat "$root/run/card/pandaproxy.conf")" "^ACCESS_CODE=\"$CODE\"\$"
        starts_again
        is_moved "$how" "$CODE lookhere tokentoken "
    done
    # A sector that cannot be read is written again.
    fresh
    straddling
    writes_sectors 1
    is_cut
    replaces cat <<'END'
#!/bin/sh
case $* in /boot/pandaproxy.txt) [ -e /run/written ] || exit 1 ;; esac
exec /bin/busybox cat "$@"
END
    replaces dd <<'END'
#!/bin/sh
touch /run/written
exec /bin/busybox dd "$@"
END
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings >/dev/null
    is_moved 'a sector that cannot be read' "$CODE lookhere tokentoken "
}

# first_partition: one of a card in $fat, with pandaproxy.txt and 40 other files, and an older pandaproxy.txt between and behind them, in no file any more.
first_partition() {
    local number
    fat=$root/dev/fat
    rm -f "$fat"
    mkfs.fat -C -F 32 -s 1 "$fat" 40960 >/dev/null
    mknod "$root/dev/zero" c 1 5
    touch "$root/run/card/state"
    # unused-blank leaves the card to others for a second after each part.
    replaces sleep </dev/null
    head -c 3000 /dev/zero | tr '\0' x >"$root/run/other"
    for number in $(seq 40); do
        mcopy -i "$fat" "$root/run/other" "::before$number"
        mcopy -i "$fat" "$root/boot/pandaproxy.txt" "::was$number"
        mcopy -i "$fat" "$root/run/other" "::after$number"
        mdel -i "$fat" "::was$number" "::before$number"
    done
    mcopy -i "$fat" "$root/boot/pandaproxy.txt" ::saved
    mdel -i "$fat" ::saved
    at /lib/card/settings-secrets
    mcopy -i "$fat" "$root/boot/pandaproxy.txt" ::pandaproxy.txt
    # pandaproxy.txt has none by now.
    is 'the test has codes that are in no file' "$(grep -qF "$CODE" "$fat"; echo $?)" 0
}
# Many editors save a file as a new one: what they leave of the old one is blanked, and no file changes.
codes_that_an_editor_has_left_behind_are_blanked() {
    local fat number sectors second before
    settings VIEW_CODE=lookhere
    first_partition
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    before=$(sha256sum <"$fat")
    at /lib/card/unused-blank /dev/fat
    is 'in the trial of an update: nothing changes' "$(sha256sum <"$fat")" "$before"
    echo console=tty1 >"$root/proc/cmdline"
    # As a PC does from which it is pulled.
    printf '\367' | dd of="$fat" bs=1 seek=$((32 * 512 + 7)) conv=notrunc status=none
    says renice
    at /lib/card/unused-blank /dev/fat || true
    printf '\017' | dd of="$fat" bs=1 seek=$((32 * 512 + 7)) conv=notrunc status=none
    is 'codes on the partition' "$(grep -acE "$CODE|lookhere" "$fat" || true)" 0
    is 'the file system' "$(fsck.fat -n "$fat" >"$root/run/fsck"; echo $?)" 0
    is 'the settings' "$(mcopy -n -i "$fat" ::pandaproxy.txt - | sha256sum)" "$(sha256sum <"$root/boot/pandaproxy.txt")"
    for number in $(seq 40); do
        mcopy -n -i "$fat" "::after$number" - | cmp -s - "$root/run/other" || fails "file $number has changed"
    done
    has 'it is said' "$(tail -n 1 "$root/run/log")" '^unused: [1-9][0-9]* KiB of the first partition were blanked$'
    has 'at the lowest priority' "$(cat "$root/run/log")" '^renice -n 19 -p [0-9]+$'
    is 'and not done again' "$(find "$root/data/settings" -name unblanked)" ''
    # Where the tables do not say what a file has, nothing is written.
    for sectors in 34 32 '32 second'; do
        fresh
        settings VIEW_CODE=lookhere
        first_partition
        second=$((32 + $(od -An -v -tu4 -j 36 -N 4 "$fat")))
        for number in ${sectors/second/$second}; do
            dd if=/dev/zero of="$fat" bs=512 seek="$number" count=1 conv=notrunc status=none
        done
        before=$(sha256sum <"$fat")
        at /lib/card/unused-blank /dev/fat 2>/dev/null || true
        is "damaged tables, $sectors: nothing changes" "$(sha256sum <"$fat")" "$before"
        is "damaged tables, $sectors: the next start looks again" "$(find "$root/data/settings" -name unblanked | wc -l)" 1
    done
}

without_a_data_partition_secrets_stay() {
    touch "$root/run/card/data-in-ram"
    settings
    at /lib/card/settings 2>/dev/null
    has 'the file' "$(cat "$root/boot/pandaproxy.txt")" "^ACCESS_CODE=$CODE$"
    is errors "$(cat "$root/run/card/errors")" ''
    has 'the code' "$(cat "$root/run/card/pandaproxy.conf")" "^ACCESS_CODE=\"$CODE\"$"
}

a_full_data_partition_keeps_secrets_on_the_first() {
    settings
    replaces cp <<'END'
#!/bin/sh
case $* in */data/*) echo "cp: No space left on device" >&2; exit 1 ;; esac
exec /bin/busybox cp "$@"
END
    at /lib/card/settings 2>/dev/null
    has 'the file' "$(cat "$root/boot/pandaproxy.txt")" "^ACCESS_CODE=$CODE$"
    is errors "$(cat "$root/run/card/errors")" ''
    has 'the code' "$(cat "$root/run/card/pandaproxy.conf")" "^ACCESS_CODE=\"$CODE\"$"
}

every_error_is_named_and_no_secret() {
    printf '%s\n' '# comment' PRINTER_IP= 'ACCESS_CODE=geheim geheim' "SERIAL_NUMBER=$SERIAL" 'PRINTER_PI=1' FTP_MODE=sometimes 'no setting' \
        HTTP_TOKEN=kurz WIFI_SSID=x WIFI_PSK=short ADDRESS=192.168.1.300/24 >"$root/boot/pandaproxy.txt"
    at /lib/card/settings
    errors=$(cat "$root/run/card/errors")
    has errors "$errors" '^pandaproxy.txt, line 5: unknown setting PRINTER_PI; did you mean PRINTER_IP'
    has errors "$errors" '^pandaproxy.txt, line 6: .*FTP_MODE'
    has errors "$errors" '^pandaproxy.txt, line 7: expected KEY=VALUE'
    has errors "$errors" '^pandaproxy.txt, line 8: .*HTTP_TOKEN'
    has errors "$errors" 'PRINTER_IP. is required'
    has errors "$errors" '^WIFI_PSK has to be'
    has errors "$errors" '^WIFI_COUNTRY is needed'
    has errors "$errors" '^ADDRESS has to be'
    page=$(cat "$root/run/card/www/index.html")
    has page "$page" '<li>pandaproxy.txt, line 6'
    lacks 'errors and page' "$errors$page" 'geheim|kurz|short'
    is 'nothing is kept of it' "$(find "$root/data/settings" -type f -not -name unblanked)" ''
}

# Each line is named that an editor has saved in its own way, also one of the machine's.
what_is_not_utf_8_is_named() {
    local wanted=': not UTF-8 text; have the editor save the file as UTF-8'
    settings "$(printf 'WIFI_SSID=B\374ro')" WIFI_PSK=secretpass WIFI_COUNTRY=DE 'PRINTER_NAME=Büro €' "$(printf '# f\374r\nHTTP_TOKEN=12')" FTP_MODE=sometimes
    at /lib/card/settings
    is errors "$(head -n 2 "$root/run/card/errors")" "$(printf 'pandaproxy.txt, line %s\n' "4$wanted" "8$wanted")"
    has 'and what else is wrong' "$(tail -n 2 "$root/run/card/errors" | sort -k 3n | tr '\n' ';')" 'line 9: .*HTTP_TOKEN.*line 10: .*FTP_MODE'
    is 'nothing else' "$(wc -l <"$root/run/card/errors")" 4
    settings
    iconv -t utf-16 "$root/boot/pandaproxy.txt" >"$root/boot/new"
    mv "$root/boot/new" "$root/boot/pandaproxy.txt"
    at /lib/card/settings
    is 'UTF-16' "$(head -n 1 "$root/run/card/errors")" "pandaproxy.txt, line 1$wanted"
    lacks 'no option of a command line' "$(cat "$root/run/card/errors")" '--config'
    # More than are named.
    settings "$(yes "$(printf '# f\374r')" | head -n 30)"
    at /lib/card/settings
    is 'how many' "$(grep -c "$wanted" "$root/run/card/errors")" 20
    lacks 'and nothing that is none' "$(cat "$root/run/card/errors")" '--config|required'
}

# With one of them wrong the machine is in the network all the same, and open to nothing that the setting would not have allowed.
a_wrong_setting_of_the_machine_counts_as_absent() {
    settings WIFI_SSID=home WIFI_PSK=short WIFI_COUNTRY=D ADDRESS=192.168.1.300/24 GATEWAY=192.168.1 DNS=none HOSTNAME=a_b 'NTP_SERVER=a b' ADMIN_CODE=short7x \
        DEBUG_SHELL_MINUTES=600
    at /lib/card/settings
    is errors "$(wc -l <"$root/run/card/errors")" 9
    is 'what is left' "$(cd "$root/run/card/keys" && echo *)" 'WIFI_PSK WIFI_SSID'
    says ip iw wpa_supplicant httpd
    replaces sleep <<'END'
#!/bin/sh
echo "sleep $1" >>/run/log
kill -9 $PPID
END
    : >"$root/run/log"
    at /lib/card/wifi wlan0 2>/dev/null || true
    # With it, wpa_supplicant would end at once.
    lacks 'a country' "$(cat "$root/run/card/wpa.conf")" country
    lacks 'an open Wi-Fi' "$(cat "$root/run/card/wpa.conf")" NONE
    : >"$root/run/log"
    at /lib/card/upload 2>/dev/null || true
    is 'no port for updates' "$(logged)" 'sleep 86400;'
}

# told FOLDER LINE...: what flash.sh of a project says of these settings, before it would write a card.
told() {
    local project=$1
    shift
    printf '\xef\xbb\xbf' >"$work/given.conf"
    printf '%s\r\n' "$@" >>"$work/given.conf"
    "$project/flash.sh" rpi-zero card "$work/card.img" --image "$work/given.conf" --config "$work/given.conf" --dry-run 2>&1 || echo "status $?"
}
flash_sh_refuses_what_the_card_would() {
    local project=$work/project right=("PRINTER_IP=192.0.2.9" "ACCESS_CODE=$CODE" "SERIAL_NUMBER=$SERIAL")
    mkdir -p "$project/dist" "$project/src"
    cp -a flash.sh boards "$project/"
    cp -a src/config "$project/src/"
    is 'names, without a program' "$(told "$project" "${right[@]}" PRINTR_IP=1)" "flash.sh: invalid settings: $work/given.conf, line 4: unknown setting PRINTR_IP
status 1"
    has 'and this is told' "$(told "$project" "${right[@]}" FTP_MODE=none HOSTNAME=workshop)" '^note: only the names of the settings were checked'
    # Newer than its source.
    cp dist/pandaproxy-generic-x86_64 "$project/dist/pandaproxy-generic-$(uname -m)"
    for wrong in 'PRINTR_IP=1|line 4: unknown setting PRINTR_IP; did you mean PRINTER_IP[?]' 'printer_ip=1|line 4: unknown setting printer_ip' \
        'FTP_MODE=none|line 4: invalid value "none" for FTP_MODE' 'HOSTNAME=-x|HOSTNAME has to be' 'ADMIN_CODE=short|ADMIN_CODE has to be' \
        'DEBUG_SHELL_MINUTES=61|DEBUG_SHELL_MINUTES has to be' 'ADDRESS=192.168.1.5|ADDRESS has to be' 'WIFI_SSID=home|WIFI_COUNTRY is needed'; do
        has "${wrong%%|*}" "$(told "$project" "${right[@]}" "${wrong%%|*}")" "^flash.sh: invalid settings: $work/given.conf, ${wrong#*|}"
    done
    is 'one line, and no code in it' "$(told "$project" "${right[@]}" "ACCESS_COD=$CODE" | grep -c "^flash.sh: invalid\|$CODE")" 1
    has 'the right ones are taken' "$(told "$project" "${right[@]}" FTP_MODE=auto)" '^would write'
    has 'and those that are typed in later' "$(told "$project" PRINTER_IP= VIEW_CODE=off HOSTNAME=workshop 'WIFI_PSK="a pass"word"' ADMIN_CODE=12345678 \
        DNS=192.168.1.1,192.168.1.2)" '^would write'
    is 'nothing was written' "$(find "$work" -maxdepth 1 -name card.img)" ''
    rm -r "$project"
}

a_file_that_cannot_be_read() {
    settings HOSTNAME=shelf
    at /lib/card/settings
    rm "$root/boot/pandaproxy.txt"
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings
    has errors "$(cat "$root/run/card/errors")" 'pandaproxy.txt cannot be read'
    is 'the name, as before' "$(cat "$root/run/card/keys/HOSTNAME")" shelf
}

the_page_answers() {
    settings FTP_MODE=sometimes
    at /lib/card/settings
    # dash calls it -p.
    sed -i 's/ulimit -u/ulimit -p/' "$root/lib/card/page"
    mount --bind /proc "$root/proc"
    becomes /lib/card/page &
    local pid=$! answer=''
    until_it answers http://127.0.0.1:8080/ || true
    has page "$answer" 'line 4: '
    if at /lib/card/answers; then ok; else fails "the page does not count as an answer"; fi
    # One that has no time for another client is there all the same.
    kill -STOP "$pid"
    if at /lib/card/answers; then ok; else fails "a busy page does not count"; fi
    kill -CONT "$pid"
    is 'its user' "$(ps -o uid= -p "$pid" | tr -d ' ')" 103
    kill "$pid" || true
    wait "$pid" 2>/dev/null || true
    umount -l "$root/proc"
    if at /lib/card/answers; then fails "an answer without a server"; else ok; fi
}

a_key_is_taken_once() {
    local key
    head -c 100000 /dev/zero >"$root/dev/zero"
    key=$(printf -- '-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----')
    echo "$key" >"$root/boot/rsa.key"
    at /lib/card/key
    is 'the key' "$(cat "$root/data/pandaproxy/rsa.key")" "$key"
    is 'its owner and mode' "$(stat -c '%a %u' "$root/data/pandaproxy/rsa.key")" '600 101'
    is 'is not left where it was' "$(find "$root/boot" -name 'rsa*')" ''
    # Another one, or one that was overwritten as power failed.
    echo other >"$root/boot/rsa.key"
    at /lib/card/key
    is 'the key stays' "$(cat "$root/data/pandaproxy/rsa.key")" "$key"
    rm "$root/data/pandaproxy/rsa.key"
    head -c 100 /dev/zero >"$root/boot/rsa.key"
    at /lib/card/key
    is 'zeros are none' "$(find "$root/data/pandaproxy" "$root/boot" -name 'rsa*')" ''
}

# ---- data ------------------------------------------------------------------------------------------

# On a file in place of the partition: what would be mounted is said, not done.
data_is_made_repaired_and_replaced() {
    local image=$root/data.img
    truncate -s 32M "$image"
    # shellcheck disable=SC2016 # The script's variable.
    sed -i 's/-b "\$device"/-e "$device"/' "$root/lib/card/mount-data"
    at /lib/card/mount-data /data.img
    has 'a blank one' "$(cat "$root/run/log")" 'data: made'
    at /lib/card/mount-data /data.img
    has 'the next start' "$(tail -n 1 "$root/run/log")" 'data: mounted'
    # Not unmounted, with a superblock that says so and a bitmap that is wrong.
    printf '\0\0' | dd of="$image" bs=1 seek=$((1024 + 58)) conv=notrunc status=none
    dd if=/dev/zero of="$image" bs=1024 seek=260 count=4 conv=notrunc status=none
    at /lib/card/mount-data /data.img
    has 'a damaged one' "$(tail -n 1 "$root/run/log")" 'data: (repaired|replaced)'
    is 'is whole again' "$(at /sbin/e2fsck -fn /data.img >/dev/null 2>&1; echo $?)" 0
    dd if=/dev/urandom of="$image" bs=1M count=32 conv=notrunc status=none
    at /lib/card/mount-data /data.img
    has 'what is none' "$(tail -n 1 "$root/run/log")" 'data: replaced'
    is 'most of what was there is not erased for it' "$(($(stat -c %b "$image") > 32768))" 1
    is 'is whole' "$(at /sbin/e2fsck -fn /data.img >/dev/null 2>&1; echo $?)" 0
    at /lib/card/mount-data /nothing
    has 'no partition' "$(tail -n 1 "$root/run/log")" 'data: in RAM'
    is 'is known' "$(find "$root/run/card/data-in-ram" | wc -l)" 1
    is 'the proxy owns its folder' "$(stat -c %u:%g "$root/data/pandaproxy")" 101:101
}

# Where a kernel gives the Wi-Fi the first number, as on a 4.
the_card_may_have_the_second_number() {
    is 'without a card' "$(at /lib/card/disk)" /dev/mmcblk0
    replaces usleep <<'END'
#!/bin/sh
echo waited >>/run/log
[ "$(grep -c waited /run/log)" != 3 ] || mknod /dev/mmcblk1p1 b 1 0
END
    at /lib/card/mount-card >/dev/null || true
    is 'it is waited for, and mounted' "$(tr '\n' ';' <"$root/run/log")" \
        'waited;waited;waited;mount -t vfat -o ro,nosuid,nodev,noexec,umask=077 /dev/mmcblk1p1 /boot;'
    is 'the other slot' "$(at /lib/card/slot-other)" /dev/mmcblk1p3
    at /lib/card/mount-data
    has 'the data partition' "$(tail -n 1 "$root/run/log")" 'data: in RAM: there is no /dev/mmcblk1p4'
    mknod "$root/dev/mmcblk0p1" b 1 0
    is 'the first one that is there counts' "$(at /lib/card/disk)" /dev/mmcblk0
}

# The identifier of a file system, which another mke2fs changes and e2fsck does not.
uuid() {
    od -An -v -tx1 -j 1128 -N 16 "$1"
}
# On a file in place of the partition, as above: only what e2fsck gives up is made anew.
data_that_cannot_be_mounted_stays() {
    local image=$root/data.img before
    truncate -s 32M "$image"
    # shellcheck disable=SC2016 # The script's variable.
    sed -i 's/-b "\$device"/-e "$device"/' "$root/lib/card/mount-data"
    at /lib/card/mount-data /data.img
    before=$(uuid "$image")
    replaces mount <<'END'
#!/bin/sh
case $* in *ext4*) echo "unknown filesystem type" >&2; exit 255 ;; esac
END
    at /lib/card/mount-data /data.img
    has 'a kernel without ext4' "$(tail -n 1 "$root/run/log")" 'data: in RAM: unknown filesystem type'
    is 'is in RAM' "$(find "$root/run/card/data-in-ram" | wc -l)" 1
    is 'the partition' "$(uuid "$image")" "$before"
    # An e2fsck that does not run, or was ended, says nothing about the partition.
    mv "$root/sbin/e2fsck" "$root/sbin/e2fsck.whole"
    for status in 32 127 137; do
        printf '#!/bin/sh\nexit %s\n' "$status" >"$root/sbin/e2fsck"
        chmod 755 "$root/sbin/e2fsck"
        at /lib/card/mount-data /data.img
        is "after status $status of e2fsck" "$(uuid "$image")" "$before"
    done
    mv "$root/sbin/e2fsck.whole" "$root/sbin/e2fsck"
    # What a trial cannot read may be whole for the slot to which it returns.
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    dd if=/dev/urandom of="$image" bs=1M count=32 conv=notrunc status=none
    before=$(uuid "$image")
    at /lib/card/mount-data /data.img
    has 'in a trial' "$(tail -n 1 "$root/run/log")" 'data: in RAM'
    is 'the partition in a trial' "$(uuid "$image")" "$before"
}

# attach [OPTION]: a block device in $loop. The kernel detaches it with the last process that has it open, however this script ends.
attach() {
    loop=$(losetup --find --show "$@" "$work/partition.img")
    exec 9<"$loop"
    losetup -d "$loop"
    rm -f "$root$loop"
    mknod "$root$loop" b "$(stat -c '0x%t' "$loop")" "$(stat -c '0x%T' "$loop")"
}
# a_partition: a block device in place of the card's data partition, in $loop, that is really mounted; with the card's secrets on it.
a_partition() {
    truncate -s 16M "$work/partition.img"
    settings VIEW_CODE=lookhere
    attach
    ln -sf busybox "$root/bin/mount"
    sed -i 's/^mount -o remount.*boot$/:/' "$root/lib/card/settings-secrets"
    # busybox's umount reads it.
    mount --bind /proc "$root/proc"
    starts
    at /lib/card/settings
    echo key >"$root/data/pandaproxy/rsa.key"
    chown 101:101 "$root/data/pandaproxy/rsa.key"
    is 'the test has its secrets there' "$(stored_codes)" "$CODE lookhere "
}
stored_codes() {
    cat "$root/data/secrets"/{ACCESS_CODE,VIEW_CODE} 2>/dev/null | tr '\n' ' '
}
# switched_off: what is mounted in the root is not any more.
switched_off() {
    while umount "$root/data" 2>/dev/null; do :; done
    while umount "$root/slot" 2>/dev/null; do :; done
}
# starts: the machine starts, as far as its data partition.
starts() {
    switched_off
    rm -rf "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/mount-data "$loop"
}
no_partition() {
    switched_off
    exec 9<&-
    rm "$work/partition.img"
}
# fills FILE [KIB]: writes that much, or until nothing fits.
fills() {
    head -c "${2:-100000}K" /dev/zero >"$1" 2>/dev/null || true
}

# What is found without a name takes all room, and a folder that is needed is missing.
a_full_partition_that_was_damaged_has_room_again() {
    a_partition
    for number in 1 2 3; do fills "$root/data/log/filler$number" 3000; done
    echo old >"$root/data/log/this.txt"
    fills "$root/data/log/last"
    : >"$root/data/log/empty"
    switched_off
    debugfs -w -R 'clri log' "$loop" 2>/dev/null
    : >"$root/run/log"
    starts
    has 'it is repaired, and used' "$(tail -n 1 "$root/run/log")" '^data: repaired$'
    has 'what was removed is counted' "$(cat "$root/run/log")" '^room: [0-9]+ files and folders were removed from a full data partition$'
    is 'it is no RAM' "$(find "$root/run/card" -name 'data-in-ram' -o -name notice)" ''
    is 'the secrets' "$(stored_codes)" "$CODE lookhere "
    is 'the key' "$(cat "$root/data/pandaproxy/rsa.key")" key
    is 'the folder for logs' "$(stat -c '%F %a' "$root/data/log")" 'directory 700'
    is 'room' "$(at /lib/card/data-room && echo yes)" yes
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" ''
    no_partition
}

# In this order, the oldest first, and no more than is needed.
room_is_made_of_what_can_be_done_without() {
    local order=(lost+found/#12 lost+found/#11 sent log/before.txt log/this.txt) count path
    a_partition
    for count in 1 2 3 4 5; do
        for path in "${order[@]}"; do fills "$root/data/$path" 300; done
        touch -d @100 "$root/data/lost+found/#12" "$root/data/log/before.txt" "$root/data/log/this.new"
        # As much as leaves less than a MiB for the proxy, by what has been removed before.
        rm -f "$root/data/pandaproxy/much"
        fills "$root/data/pandaproxy/much" $((($(stat -f -c '%a * %S' "$root/data")) / 1024 - 900 + (count - 1) * 300))
        at /lib/card/data-room || fails "no room after $count"
        for path in "${order[@]:0:count}"; do [ ! -e "$root/data/$path" ] || fails "$count: $path is still there"; done
        for path in "${order[@]:count}"; do [ -e "$root/data/$path" ] || fails "$count: $path is not there"; done
        is "$count: what is kept" "$(stored_codes)$(cat "$root/data/pandaproxy/rsa.key")" "$CODE lookhere key"
    done
    no_partition
}

# What power failing has left unfinished goes, and a file in a folder's place.
what_is_unfinished_goes() {
    a_partition
    touch "$root/data/secrets/ACCESS_CODE.new" "$root/data/settings/blanking.new" "$root/data/log/this.new" "$root/data/settings/last.txt"
    rmdir "$root/data/log" 2>/dev/null || rm -r "$root/data/log"
    echo text >"$root/data/log"
    starts
    is 'what is left' "$(cd "$root/data" && find . -name '*.new')" ''
    is 'the folder' "$(stat -c %F "$root/data/log")" directory
    is 'the settings' "$(find "$root/data/settings" -name last.txt | wc -l)" 1
    no_partition
}

# After damage a file in a folder's place may be one that cannot be removed.
a_folder_that_cannot_be_made_is_told() {
    a_partition
    rm -r "$root/data/log"
    echo text >"$root/data/log"
    chattr +i "$root/data/log"
    starts
    from_ram 'without the folder' '.*log'
    no_partition
}

# from_ram WHAT REASON: the partition is not used, and the machine serves with what was on it.
from_ram() {
    has "$1: it is said" "$(tail -n 1 "$root/run/log")" "^data: in RAM: $2"
    is "$1: what is mounted" "$(stat -f -c %T "$root/data")" tmpfs
    is "$1: the secrets" "$(stored_codes)" "$CODE lookhere "
    is "$1: the key" "$(cat "$root/data/pandaproxy/rsa.key") $(stat -c '%a %u' "$root/data/pandaproxy/rsa.key" "$root/data/pandaproxy" | tr '\n' ' ')" \
        'key 644 101 700 101 '
    at /lib/card/settings 2>/dev/null
    is "$1: errors" "$(cat "$root/run/card/errors")" ''
    has "$1: the code" "$(cat "$root/run/card/pandaproxy.conf")" "^ACCESS_CODE=\"$CODE\"$"
    has "$1: the page says it" "$(cat "$root/run/card/notice")" '^The card.s data partition cannot be used'
}
a_partition_that_takes_nothing_is_read() {
    a_partition
    fills "$root/data/pandaproxy/much"
    starts
    from_ram 'nothing can be removed' 'the data partition is full'
    is 'what is large is not taken' "$(find "$root/data/pandaproxy" -name much)" ''
    settings VIEW_CODE=another1
    at /lib/card/settings 2>/dev/null
    has 'new codes stay where they are' "$(cat "$root/boot/pandaproxy.txt")" '^VIEW_CODE=another1$'
    switched_off
    exec 9<&-
    attach --read-only
    settings 'VIEW_CODE=        '
    sed -i 's/^ACCESS_CODE=.*/ACCESS_CODE=        /' "$root/boot/pandaproxy.txt"
    starts
    from_ram 'a card that is not written any more' ''
    switched_off
    is 'the partition is as it was' "$(debugfs -R 'cat secrets/ACCESS_CODE' "$loop" 2>/dev/null)" "$CODE"
    no_partition
}

# Of random bytes where it matters most.
a_partition_that_was_damaged_is_used_again() {
    local what block blocks
    for what in superblock journal inodes; do
        fresh
        a_partition
        switched_off
        case $what in
        superblock) block=1 blocks=1 ;;
        journal) block=$(debugfs -R 'bmap <8> 0' "$loop" 2>/dev/null | tail -n 1) blocks=64 ;;
        inodes) block=$(dumpe2fs "$loop" 2>/dev/null | sed -n 's/^ *Inode table at \([0-9]*\)-.*/\1/p' | head -n 1) blocks=200 ;;
        esac
        dd if=/dev/urandom of="$work/partition.img" bs=1024 seek="$block" count="$blocks" conv=notrunc status=none
        dd if=/dev/urandom of="$loop" bs=1024 seek="$block" count="$blocks" conv=notrunc status=none
        : >"$root/run/log"
        starts
        has "$what" "$(tail -n 1 "$root/run/log")" '^data: (repaired|replaced)$'
        is "$what: is mounted" "$(stat -f -c %T "$root/data")" ext2/ext3
        at /lib/card/settings
        if [ "$(stored_codes)" = "$CODE lookhere " ]; then
            is "$what: errors" "$(cat "$root/run/card/errors")" ''
        else
            has "$what: its codes are lost, which is said" "$(cat "$root/run/card/errors")" '^ACCESS_CODE was moved .* and is lost: type it in again$'
            is "$what: nothing else is" "$(wc -l <"$root/run/card/errors")" 1
        fi
        [ "$what" = inodes ] || is "$what: the codes" "$(stored_codes)" "$CODE lookhere "
        switched_off
        is "$what: is whole" "$(e2fsck -fn "$loop" >/dev/null 2>&1; echo $?)" 0
        no_partition
    done
}

# Codes that were moved, and are not there any more: what has to be typed in again is said, and nothing is taken for something else.
codes_that_are_lost_are_named() {
    settings VIEW_CODE=lookhere HTTP_TOKEN=off WIFI_SSID=home WIFI_PSK=12345678 WIFI_COUNTRY=DE ADMIN_CODE=letmein-now
    at /lib/card/settings
    rm -r "$root/data/secrets" "$root/run/card"
    mkdir "$root/data/secrets" "$root/run/card"
    echo 'The data partition was damaged.' >"$root/run/card/notice"
    at /lib/card/settings
    is errors "$(cat "$root/run/card/errors")" "ACCESS_CODE was moved from pandaproxy.txt to the card's data partition, and is lost: type it in again"
    is 'all of them' "$(sort "$root/run/card/lost" | tr '\n' ' ')" 'ACCESS_CODE ADMIN_CODE VIEW_CODE WIFI_PSK '
    has 'the page' "$(cat "$root/run/card/www/index.html")" '^<p>The data partition was damaged[.]$'
    has 'names them' "$(cat "$root/run/card/www/index.html")" '^<p>Not stored any more: .*WIFI_PSK'
    says ip udhcpc sleep
    mkdir -p "$root/sys/class/net/wlan0/phy80211"
    echo 3 >"$root/sys/class/net/wlan0/ifindex"
    at /lib/card/interface wlan0
    has 'no open network of that name is joined' "$(tr '\n' ';' <"$root/run/log")" 'sleep 86400;$'
    lacks 'nor anything else' "$(cat "$root/run/log")" '^(ip|udhcpc)'
    sed -i "s/^ACCESS_CODE=.*/ACCESS_CODE=$CODE/; s/^WIFI_PSK=.*/WIFI_PSK=87654321/" "$root/boot/pandaproxy.txt"
    rm -r "$root/run/card"
    mkdir "$root/run/card"
    at /lib/card/settings
    is 'typed in again' "$(cat "$root/run/card/errors")" ''
    has 'the others are named on the status page' "$(cat "$root/run/card/notice")" \
        '^Not stored any more: (ADMIN_CODE, VIEW_CODE|VIEW_CODE, ADMIN_CODE)[.] Type'
}

# e2fsck may say a line for each of many thousand files, and may not end.
a_check_without_end_is_ended() {
    local image=$root/data.img
    truncate -s 8M "$image"
    # shellcheck disable=SC2016 # The script's variable.
    sed -i 's/-b "\$device"/-e "$device"/; s/longest=30$/longest=1/; s/longest=300/longest=1/' "$root/lib/card/mount-data"
    mv "$root/sbin/e2fsck" "$root/sbin/e2fsck.whole"
    printf '#!/bin/sh\nexec yes "a line of what e2fsck says"\n' >"$root/sbin/e2fsck"
    chmod 755 "$root/sbin/e2fsck"
    at /lib/card/mount-data /data.img
    has 'it is said' "$(tail -n 1 "$root/run/log")" 'data: in RAM: e2fsck did not finish: status 1[34][0-9]'
    is 'what it says is bounded' "$(($(stat -c %s "$root/run/card/e2fsck") < 10000))" 1
    is 'the partition' "$(tr -d '\0' <"$image" | wc -c)" 0
}

# full_data KIB: data with that much room, and not a byte more.
full_data() {
    mount -t tmpfs -o "size=${1}k" full "$root/data"
    mkdir -p "$root/data"/{secrets,settings,log,pandaproxy}
    chmod 777 "$root/data"
    fills "$root/data/fill"
}
a_full_data_partition_stops_nothing() {
    full_data 64
    replaces logread <<'END'
#!/bin/sh
yes 'a line' | head -n 15000
END
    if at /lib/card/log-save 2>/dev/null; then fails 'the log was kept'; else ok; fi
    is 'what did not fit' "$(ls "$root/data/log" "$root/run/card")" "$(printf '%s:\n\n%s:' "$root/data/log" "$root/run/card")"
    replaces sleep <<'END'
#!/bin/sh
echo "sleep $1" >>/run/log
[ "$1" = 180 ] || kill -9 $PPID
END
    replaces mv <<'END'
#!/bin/sh
exit 1
END
    touch "$root/data/log/this.txt"
    at /lib/card/log-keep 2>/dev/null || true
    has 'the log goes on' "$(tr '\n' ';' <"$root/run/log")" 'sleep 180;.*cannot be kept.*sleep 3600;'
    ln -sf busybox "$root/bin/mv"
    an_update
    at /lib/card/update 2>/dev/null
    has 'an update is refused' "$(cat "$root/run/card/said")" '^refused: the data partition cannot be written$'
    lacks 'and not tried' "$(cat "$root/run/log")" '^tried'
    is 'the next one is taken' "$(ls -A "$root/run/upload") $(stat -c %u "$root/run/upload")" ' 103'
    umount -l "$root/data"
}

# ---- clock, name, LED, watchdog --------------------------------------------------------------------

the_clock_has_a_floor() {
    replaces date <<'END'
#!/bin/sh
[ "$1" != -s ] || echo "set $2" >>/run/log
echo 100
END
    touch -d @1700000000 "$root/etc/card/version"
    touch -d @1800000000 "$root/data/clock"
    at /lib/card/clock-floor
    is 'the later one counts' "$(tail -n 1 "$root/run/log")" 'set @1800000000'
    rm "$root/data/clock"
    at /lib/card/clock-floor
    is 'without it, the image' "$(tail -n 1 "$root/run/log")" 'set @1700000000'
}

the_name_is_the_boards() {
    local given
    replaces hostname <<'END'
#!/bin/sh
echo "name $1" >>/run/log
END
    settings
    at /lib/card/settings
    mkdir -p "$root/proc/device-tree"
    printf '00000000ABCD12EF\0' >"$root/proc/device-tree/serial-number"
    at /lib/card/name
    is 'of the serial number' "$(tail -n 1 "$root/run/log")" 'name pandaproxy-12ef'
    has 'the certificate' "$(cat "$root/run/card/pandaproxy.conf")" '^ADVERTISE_NAME=pandaproxy-12ef.local,pandaproxy-12ef-2.local$'
    settings HOSTNAME=shelf
    at /lib/card/settings
    at /lib/card/name
    is 'of the settings' "$(tail -n 1 "$root/run/log")" 'name shelf'
    settings HOSTNAME=-x_
    at /lib/card/settings
    at /lib/card/name
    is 'a wrong one' "$(tail -n 1 "$root/run/log")" 'name pandaproxy-12ef'
    # Of two machines with one name, avahi gives the second one the next: its page and certificate have that, too, and the program takes them.
    for given in shelf=shelf-2 shelf-7=shelf-8 pandaproxy-1299=pandaproxy-1300 shelf-09=shelf-09-2 a-b3=a-b3-2 \
        "$(printf '%063d' 1)=$(printf '%063d' 1)" shelf-99999999=shelf-100000000 shelf-999999999=shelf-1000000000; do
        settings "HOSTNAME=${given%=*}"
        at /lib/card/settings
        at /lib/card/name
        has "$given" "$(cat "$root/run/card/pandaproxy.conf")" "^ADVERTISE_NAME=${given%=*}[.]local,${given#*=}[.]local\$"
        is "$given: the program" "$(at pandaproxy health --config /run/card/pandaproxy.conf --state-dir /run/none >/dev/null 2>&1; echo $?)" 1
    done
    settings ADVERTISE_NAME=proxy.lan
    at /lib/card/settings
    at /lib/card/name
    is 'names of the settings' "$(grep -c ADVERTISE_NAME "$root/run/card/pandaproxy.conf")" 1
}

led_of() {
    at /lib/card/led "$1"
    (cd "$root/sys/class/leds/ACT" && echo "$(cat trigger)" "$(cat delay_on)" "$(cat brightness)")
}
the_led_shows_the_state() {
    is error "$(led_of error)" 'timer 100 '
    is waiting "$(led_of waiting)" 'timer 1000 '
    is serving "$(led_of serving)" 'none 1000 1'
}

# guarded SECONDS...: runs the guard for a round at each of these times, and prints how often it fed the watchdog in each. A look
# that a round begins has ended before the next, unless /run/hangs is there.
guarded() {
    rm -f "$root/run/card/silent" "$root/run/card/missed"
    guarded_on "$@"
}
# guarded_on SECONDS...: the same after a guard that was ended.
guarded_on() {
    : >"$root/dev/watchdog"
    rm -f "$root/run/card/guard-began" "$root/run/fed" "$root/run/card/look"
    touch "$root/run/card/watchdog-is-file"
    echo "$1.00 0" >"$root/proc/uptime"
    shift
    printf '%s\n' "$@" >"$root/run/times"
    # Ends each round, and the guard after the last.
    replaces sleep <<'END'
#!/bin/sh
wc -c </dev/watchdog >>/run/fed
for _ in $(seq 6000); do
    if [ -e /run/card/look ] || [ -e /run/hangs ]; then break; fi
    usleep 10000
done
next=$(head -n 1 /run/times)
# What follows would be done to the times of the next guard.
[ -n "$next" ] || { kill -9 $PPID; exit; }
[ ! -e "/run/at-$next" ] || . "/run/at-$next"
sed -i 1d /run/times
echo "$next.00 0" >/proc/uptime
END
    # An answer takes as long as a file says that it hangs.
    replaces timeout <<'END'
#!/bin/sh
[ "$1" != -s ] || shift 2
shift
for _ in $(seq 600); do
    [ -e /run/hangs ] || break
    usleep 100000
done
exec "$@"
END
    at /lib/card/guard >/dev/null 2>&1 || true
    awk '{ printf "%d ", $1 - before; before = $1 }' "$root/run/fed"
}
# fed TIMES [NOT]: what `guarded` prints where it was fed so often, and then so often not.
fed() {
    printf '%.0s1 ' $(seq "$1")
    [ "${2:-0}" = 0 ] || printf '%.0s0 ' $(seq "$2")
}

# The program's part for the guard: says that it is healthy while a file says so.
a_program() {
    replaces pandaproxy <<'END'
#!/bin/sh
case "$*" in
*--printer*) [ -e /run/printer ] ;;
*) [ -e /run/healthy ] ;;
esac
END
    touch "$root/data/pandaproxy/rsa.key"
    : >"$root/run/card/errors"
}
# a_proxy: a process in the proxy's place.
a_proxy() {
    sleep 1000 >/dev/null 2>&1 &
    echo $! >"$root/run/card/proxy.pid"
}
# is_ended WHAT yes|no: whether that process was ended.
is_ended() {
    local pid ended=yes
    pid=$(cat "$root/run/card/proxy.pid")
    # The guard has ended before: what it has sent is there already, and a busy machine may take a moment to act on it.
    if [ "$2" = yes ]; then
        until_it ended "$pid" || ended=no
    elif ! ended "$pid"; then
        ended=no
    fi
    is "$1: ended" "$ended" "$2"
}

the_watchdog_is_fed_while_there_are_answers() {
    a_program
    touch "$root/run/healthy"
    is healthy "$(guarded 10 20 30 40)" "$(fed 4)"
    has 'said once' "$(grep -c 'ready after' "$root/run/log")" '^1$'
    is 'no printer' "$(cat "$root/run/card/state")" waiting
    touch "$root/run/printer"
    guarded 50 60 >/dev/null
    is 'with its printer' "$(cat "$root/run/card/state")" serving
    rm "$root/run/healthy"
    # shellcheck disable=SC2046 # a list of numbers
    is 'none since the start' "$(guarded $(seq 100 10 310))" "$(fed 18 4)"
    has 'it is said' "$(cat "$root/run/log")" 'nothing answers for'
    has 'without a watchdog it starts again by itself' "$(cat "$root/run/log")" '^reboot -f$'
}

the_proxy_is_ended_before_the_machine() {
    a_program
    a_proxy
    guarded 100 110 120 130 140 150 >/dev/null
    is_ended 'after 50 s' no
    guarded 100 110 120 130 140 150 160 >/dev/null
    is_ended 'after 60 s' yes
    # Where looks take long, two that fail say little.
    a_proxy
    guarded 100 135 170 >/dev/null
    is_ended 'after 70 s and two looks' no
    guarded 100 135 170 205 >/dev/null
    is_ended 'after three' yes
    # As long as one takes whose ports stall.
    a_proxy
    guarded 100 120 140 >/dev/null
    is_ended 'after 40 s of ports that stall' no
    guarded 100 120 140 160 >/dev/null
    is_ended 'after 60 s of them' yes
    a_proxy
    echo 'touch /run/healthy' >"$root/run/at-170"
    echo 'rm -f /run/healthy' >"$root/run/at-205"
    guarded 100 135 170 205 240 275 >/dev/null
    is_ended 'with an answer among them' no
}

# A guard that was stuck has not seen anything meanwhile: the watchdog resets the machine then, or it goes on.
a_stuck_guard_ends_no_proxy() {
    a_program
    a_proxy
    touch "$root/run/healthy"
    is 'it goes on' "$(guarded 100 110 120 500 510)" "$(fed 5)"
    is_ended 'after that' no
    # The first look after that fails, as may happen: those of a whole minute have to.
    echo 'rm /run/healthy' >"$root/run/at-120"
    is 'with silence after that' "$(guarded 100 110 120 500 510)" "$(fed 5)"
    is_ended 'after that with silence' no
    touch "$root/run/healthy"
    guarded 100 110 120 500 510 520 530 >/dev/null
    is_ended 'after a minute of silence' yes
}

# The look goes on beside the feeding, and counts by how it ends.
a_slow_answer_is_one() {
    a_program
    a_proxy
    touch "$root/run/healthy" "$root/run/hangs"
    echo 'rm /run/hangs' >"$root/run/at-120"
    is 'fed meanwhile' "$(guarded 100 103 106 109 112 115 118 120 123)" "$(fed 9)"
    is 'it is one' "$(cat "$root/run/card/silent") $(cat "$root/run/card/state")" '0 waiting'
    rm "$root/run/at-120"
    # One that never ends is none, and another is begun.
    touch "$root/run/hangs"
    # shellcheck disable=SC2046 # a list of numbers
    is 'fed while there may be one' "$(guarded $(seq 100 10 200))" "$(fed 11)"
    is_ended 'after two of them' no
    # shellcheck disable=SC2046 # a list of numbers
    guarded $(seq 100 10 250) >/dev/null
    is_ended 'after three of them' yes
    rm "$root/run/hangs"
}

# What has been counted stays when the guard is started again.
a_guard_that_ends_counts_on() {
    a_program
    a_proxy
    guarded 100 110 120 130 140 >/dev/null
    guarded_on 141 151 >/dev/null
    is_ended 'after 50 s' no
    guarded_on 152 162 >/dev/null
    is_ended 'after 60 s' yes
    # Its look does not have the watchdog, which only one process can open.
    cat >"$root/lib/card/look" <<'END'
#!/bin/sh
if (: >&3) 2>/dev/null; then echo "the look has the watchdog" >>/run/log; fi
# In one step, as the card's own: what is there is whole.
echo waiting >/run/card/look.new
mv /run/card/look.new /run/card/look
END
    guarded_on 100 110 >/dev/null
    is 'the look ran' "$(cat "$root/run/card/state")" waiting
    lacks 'the watchdog' "$(cat "$root/run/log")" 'has the watchdog'
}

# An LED, a log or a file system in RAM that takes nothing is no reason to start again.
what_only_shows_does_not_end_the_guard() {
    local script
    a_program
    touch "$root/run/healthy"
    for script in led say memory log-save trial; do
        printf '#!/bin/sh\nexit 1\n' >"$root/lib/card/$script"
    done
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    is 'they fail' "$(guarded 100 110 120 130)" "$(fed 4)"
    rm "$root/run/card/state" "$root/run/card/silent"
    mkdir "$root/run/card/state" "$root/run/card/silent"
    is 'no file can be written' "$(guarded_on 100 110 120 130)" "$(fed 4)"
}

keys_take_their_time_at_the_first_start() {
    a_program
    rm "$root/data/pandaproxy/rsa.key"
    # shellcheck disable=SC2046 # a list of numbers
    is 'seventeen minutes' "$(guarded $(seq 10 30 1090))" "$(fed 34 3)"
}

# ---- network, time, logs ---------------------------------------------------------------------------

# keys NAME=VALUE...: the machine's own settings, as they are read.
keys() {
    local key
    rm -rf "$root/run/card/keys"
    mkdir "$root/run/card/keys"
    for key; do printf '%s\n' "${key#*=}" >"$root/run/card/keys/${key%%=*}"; done
    : >"$root/run/log"
}
# says PROGRAM...: each only writes into the log how it was called.
says() {
    local program
    for program; do
        replaces "$program" <<END
#!/bin/sh
echo "$program \$*" >>/run/log
END
    done
}
logged() {
    tr '\n' ';' <"$root/run/log"
}

the_wifi_is_joined_without_power_saving() {
    says ip iw wpa_supplicant
    # Ends the loop.
    replaces sleep <<'END'
#!/bin/sh
kill -9 $PPID
END
    keys 'WIFI_SSID=Büro 5' 'WIFI_PSK=secret "pass' WIFI_COUNTRY=DE
    at /lib/card/wifi wlan0 2>/dev/null || true
    is 'the steps' "$(logged)" "iw reg set DE;ip link set wlan0 up;iw dev wlan0 set power_save off;$(
        )wpa_supplicant -i wlan0 -c /run/card/wpa.conf -D nl80211,wext;"
    is 'who reads it' "$(stat -c %a "$root/run/card/wpa.conf")" 600
    has 'the name' "$(cat "$root/run/card/wpa.conf")" "ssid=$(printf 'Büro 5' | od -An -v -tx1 | tr -d ' \n')\$"
    has 'the password' "$(cat "$root/run/card/wpa.conf")" '^ *psk="secret "pass"$'
    has 'the country' "$(cat "$root/run/card/wpa.conf")" '^country=DE$'
    keys WIFI_SSID=home "WIFI_PSK=$(printf '%064d' 7)" WIFI_COUNTRY=DE
    at /lib/card/wifi wlan0 2>/dev/null || true
    has 'a key in place of a password' "$(cat "$root/run/card/wpa.conf")" '^ *psk=0*7$'
    keys WIFI_SSID=home WIFI_COUNTRY=DE
    at /lib/card/wifi wlan0 2>/dev/null || true
    has 'an open one' "$(cat "$root/run/card/wpa.conf")" 'key_mgmt=NONE'
}

an_interface_has_dhcp_or_its_address() {
    local dhcp="udhcpc -f -i eth0 -s /lib/card/dhcp"
    mkdir -p "$root/sys/class/net/eth0" "$root/sys/class/net/wlan0/phy80211"
    echo 2 | tee "$root/sys/class/net/eth0/ifindex" >"$root/sys/class/net/wlan0/ifindex"
    says ip udhcpc
    # Ends the loop of a fixed address.
    replaces sleep <<'END'
#!/bin/sh
if [ "$1" = 10 ]; then
    kill -9 $PPID
    exit
fi
echo "sleep $*" >>/run/log
END
    cat >"$root/lib/card/wifi" <<'END'
#!/bin/sh
echo "wifi $1" >>/run/log
exec /bin/busybox sleep 600
END
    keys
    at /lib/card/interface eth0
    has 'a cable, by DHCP' "$(logged)" "^ip link set eth0 up;$dhcp "
    at /lib/card/interface wlan0
    has 'Wi-Fi without a name waits' "$(logged)" ';sleep 86400;$'
    keys ADDRESS=192.168.1.5/24 GATEWAY=192.168.1.1 DNS=9.9.9.9,1.1.1.1
    at /lib/card/interface eth0 2>/dev/null || true
    is 'a cable, by its address' "$(logged)" "ip link set eth0 up;ip link set eth0 up;ip -4 addr show dev eth0;$(
        )ip addr add 192.168.1.5/24 dev eth0;ip route replace default via 192.168.1.1 dev eth0;"
    is 'name servers' "$(tr '\n' ';' <"$root/run/resolv.conf")" 'nameserver 9.9.9.9;nameserver 1.1.1.1;'
    keys ADDRESS=192.168.1.5/24 WIFI_SSID=home
    at /lib/card/interface wlan0 2>/dev/null || true
    until_it grep -q wifi "$root/run/log" || true
    has 'Wi-Fi, joined' "$(logged)" 'wifi wlan0;'
    has 'by its address' "$(logged)" 'ip addr add 192.168.1.5/24 dev wlan0;'
    at /lib/card/interface eth0
    has 'the cable beside it, by DHCP' "$(logged)" "$dhcp "
    # Its DHCP client has ended: another is started, once the log of the last one ends.
    keys WIFI_SSID=home
    timeout 60 env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" /lib/card/interface wlan0 | cat || true
    has 'Wi-Fi by DHCP' "$(logged)" 'udhcpc -f -i wlan0 '
    lacks 'joined again beside the first' "$(logged)" wifi
    rm "$root/run/card/wifi.wlan0"
    is 'while it is joined' "$(timeout 60 env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" \
        /bin/sh -c '/lib/card/interface wlan0 | cat' || echo "$?")" ''
    replaces ip <<'END'
#!/bin/sh
[ "$1" != addr ]
END
    keys ADDRESS=1.2.3.4/99
    at /lib/card/interface eth0
    has 'an address that the kernel does not take' "$(logged)" "$dhcp "
}

what_dhcp_gives_is_set() {
    local given=(interface=eth0 ip=192.168.1.7 mask=24 'router=192.168.1.1 192.168.1.2' 'dns=192.168.1.1 2.2.2.2 3.3.3.3 4.4.4.4' ntpsrv=192.168.1.3)
    mkdir -p "$root/sys/class/net/eth0"
    echo b8:27:eb:12:ab:cd >"$root/sys/class/net/eth0/address"
    replaces ip <<'END'
#!/bin/sh
case $* in *show*) cat /run/has 2>/dev/null ;; *) echo "ip $*" >>/run/log ;; esac
END
    keys
    at env "${given[@]}" /lib/card/dhcp bound
    is 'an address and a router' "$(logged)" "ip -4 addr flush dev eth0;ip addr add 192.168.1.7/24 dev eth0;$(
        )ip route replace default via 192.168.1.1 dev eth0 metric 100;"
    is 'name servers' "$(tr '\n' ';' <"$root/run/resolv.conf")" 'nameserver 192.168.1.1;nameserver 2.2.2.2;nameserver 3.3.3.3;'
    is 'a time server' "$(cat "$root/run/card/ntp")" 192.168.1.3
    echo '    inet 192.168.1.7/24 brd' >"$root/run/has"
    keys DNS=9.9.9.9
    at env "${given[@]}" /lib/card/dhcp renew
    lacks 'the same again' "$(logged)" 'flush|addr add'
    is 'name servers of the settings' "$(cat "$root/run/resolv.conf")" 'nameserver 9.9.9.9'
    at env interface=eth1 ip=10.1.1.7 mask=24 /lib/card/dhcp bound
    is 'a server that names none' "$(cat "$root/run/resolv.conf")" 'nameserver 9.9.9.9'
    keys
    at env interface=eth1 ip=10.1.1.7 mask=24 /lib/card/dhcp bound
    is 'nor in the settings' "$(cat "$root/run/resolv.conf")" 'nameserver 9.9.9.9'
    keys
    at env interface=eth0 /lib/card/dhcp leasefail
    is 'no answer, with an address' "$(logged)" ''
    rm "$root/run/has"
    at env interface=eth0 /lib/card/dhcp leasefail
    is 'no answer, without one' "$(logged)" "ip addr add 169.254.$((0xab % 254 + 1)).$((0xcd))/16 dev eth0 scope link;"
    keys
    at env interface=eth0 /lib/card/dhcp deconfig
    is 'the end of it' "$(logged)" 'ip -4 addr flush dev eth0;'
}

# a_wire: an interface of this machine with a wire to another one, and the card's scripts without their patience.
a_wire() {
    ip link add wire type veth peer name other
    ip link set other up
    # What is there has a size that it has not.
    mount -t sysfs sys "$root/sys"
    mknod "$root/dev/urandom" c 1 9
    sed -i 's/-t 5 -T 3 -A 10/-t 1 -T 1 -A 1/; s/sleep 10$/sleep 1/' "$root/lib/card/interface"
    keys
    # The card's own shell, which counts differently.
    ln -sf busybox "$root/bin/sh"
}
# wired: the interface's script, in the background.
wired() {
    becomes /lib/card/interface wire >"$root/run/wired" 2>&1 &
    wired=$!
}
addresses() {
    ip -4 -o addr show dev wire 2>/dev/null | sed 's/.* inet \([^ ]*\) .*/\1/' | tr '\n' ' '
}
# has_address PATTERN: the interface has such addresses.
has_address() {
    [[ $(addresses) =~ $1 ]]
}
# reaches WHAT PATTERN: the same, within a minute.
reaches() {
    until_it has_address "$2" || true
    has "$1" "$(addresses)" "$2"
}
has_route() {
    [ -n "$(ip route show default)" ]
}
ends() {
    kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Without a DHCP server there is an address for the link alone, until one answers.
a_server_that_appears_late_gives_an_address() {
    local server
    a_wire
    wired
    reaches 'without a server' '^169[.]254[.][0-9.]+/16 $'
    ip addr add 192.168.77.1/24 dev other
    : >"$root/run/leases"
    printf 'interface other\nstart 192.168.77.10\nend 192.168.77.10\nlease_file /run/leases\npidfile /run/udhcpd.pid\nopt subnet 255.255.255.0\nopt dns 192.168.77.1\n' \
        >"$root/run/udhcpd.conf"
    becomes /bin/busybox udhcpd -f /run/udhcpd.conf >/dev/null 2>&1 &
    server=$!
    reaches 'once it is there' '^192[.]168[.]77[.]10/24 $'
    is 'its name server' "$(cat "$root/run/resolv.conf")" 'nameserver 192.168.77.1'
    ends "$server"
    # An adapter that is plugged in again: the script ends, and is started again for it.
    ip link del wire
    ip link add wire type veth peer name other
    if until_it ended "$wired"; then ok; else fails 'the script of an adapter that is gone goes on'; fi
    ends "$wired"
    ip link del wire
}

# Also if its script is started again, as it is when it has ended, and if the driver forgets it.
a_fixed_address_is_kept() {
    a_wire
    keys ADDRESS=192.168.78.5/24 GATEWAY=192.168.78.1
    wired
    reaches 'at first' '^192[.]168[.]78[.]5/24 $'
    ends "$wired"
    wired
    # DHCP would have taken it away by now.
    sleep 2
    is 'started again' "$(addresses)" '192.168.78.5/24 '
    ip addr flush dev wire
    ip link set wire down
    reaches 'after the driver has forgotten it' '^192[.]168[.]78[.]5/24 $'
    until_it has_route || true
    has 'its router' "$(ip route show default)" '^default via 192[.]168[.]78[.]1 dev wire'
    ip link del wire
    wait "$wired" || true
    ok
}

# The name and the addresses, and nothing of what else avahi can tell.
the_name_is_told_by_mdns() {
    says avahi-daemon
    mkdir -p "$root/run/avahi-daemon"
    echo 7 >"$root/run/avahi-daemon/pid"
    : >"$root/run/log"
    at /lib/card/mdns
    is 'how it is called' "$(logged)" 'avahi-daemon --no-chroot --syslog;'
    is 'what an earlier one left' "$(find "$root/run/avahi-daemon" -type f)" ''
    is 'whose folder it is' "$(stat -c %u "$root/run/avahi-daemon")" 102
    is 'what it tells' "$(sed -n 's/^publish-//p; s/^enable-//p' "$root/etc/avahi/avahi-daemon.conf" | tr '\n' ' ')" \
        'dbus=no wide-area=no addresses=yes hinfo=no workstation=no reflector=no '
}

the_clock_is_set_by_a_server() {
    replaces rdate <<'END'
#!/bin/sh
echo "rdate $*" >>/run/log
[ "$(grep -c rdate /run/log)" -ge 6 ]
END
    replaces sleep <<'END'
#!/bin/sh
echo "sleep $1" >>/run/log
[ "$1" = 10 ] || [ "$(grep -c 'sleep 3600' /run/log)" -lt 2 ] || kill -9 $PPID
END
    ln -sf busybox "$root/bin/timeout"
    keys NTP_SERVER=time.lan
    echo 192.168.1.3 >"$root/run/card/ntp"
    at /lib/card/clock 2>/dev/null || true
    is 'who is asked, until one answers, and then hourly' "$(grep -v '^clock' "$root/run/log" | tr '\n' ';')" \
        "rdate -n -s time.lan;rdate -n -s 192.168.1.3;rdate -n -s 0.debian.pool.ntp.org;rdate -n -s 1.debian.pool.ntp.org;sleep 10;$(
        )rdate -n -s time.lan;rdate -n -s 192.168.1.3;sleep 3600;rdate -n -s -a time.lan;sleep 3600;"
    is 'the time is kept' "$(find "$root/data/clock" | wc -l)" 1
}

the_debug_shell_has_an_end() {
    local minutes
    says timeout sleep
    mknod "$root/dev/ttyAMA0" c 1 3
    echo 'console=tty1 console=ttyS1,115200 console=ttyAMA0,115200' >"$root/proc/cmdline"
    for minutes in '' 0 61 -1 10x '1 0'; do
        keys "DEBUG_SHELL_MINUTES=$minutes"
        at /lib/card/shell
        is "'$minutes'" "$(logged)" 'sleep 86400;'
    done
    keys DEBUG_SHELL_MINUTES=10
    at /lib/card/shell
    has '100 s after the start' "$(logged)" '^a shell is on ttyAMA0 for 500 s;timeout .*timeout -s KILL 500 setsid sh '
    # Bluetooth has the other one: it has no device.
    rm "$root/dev/ttyAMA0"
    mknod "$root/dev/ttyS1" c 1 3
    keys DEBUG_SHELL_MINUTES=10
    at /lib/card/shell
    has 'on a Zero W' "$(logged)" '^a shell is on ttyS1 for 500 s;'
    echo '600.50 0' >"$root/proc/uptime"
    keys DEBUG_SHELL_MINUTES=10
    at /lib/card/shell
    is 'after ten minutes' "$(logged)" 'sleep 86400;'
    rm "$root/dev/ttyS1"
    echo '1.00 0' >"$root/proc/uptime"
    at /lib/card/shell
    lacks 'without a serial port' "$(logged)" timeout
}

the_proxy_has_one_right_and_waits_longer_each_time() {
    local waits=''
    touch "$root/run/caps" "$root/run/card/errors"
    chmod 666 "$root/run/caps" "$root/proc/uptime"
    chmod 755 "$root/run/card"
    says sleep
    replaces pandaproxy <<'END'
#!/bin/sh
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status >/run/caps
env | grep -E '^(NOTICE|MACHINE_PORT)=' >>/run/caps
END
    mount --bind /proc "$root/proc"
    at /lib/card/proxy
    umount -l "$root/proc"
    # CAP_NET_BIND_SERVICE is the tenth.
    is 'its user and rights' "$(tr -d '\t\n ' <"$root/run/caps")" "Uid:101101101101Gid:101101101101Groups:$(
        )CapInh:0000000000000400CapPrm:0000000000000400CapEff:0000000000000400CapBnd:0000000000000400$(
        )CapAmb:0000000000000400NoNewPrivs:1"
    has 'and waits' "$(logged)" 'sleep 1;$'
    rm -f "$root/run/card/proxy.wait"
    for _ in 1 2 3 4 5 6 7 8; do
        keys
        at /lib/card/proxy
        waits+=" $(sed -n 's/^sleep //p' "$root/run/log")"
    done
    is 'how long' "$waits" ' 1 2 4 8 16 32 60 60'
    is 'which process it was' "$(find "$root/run/card" -name proxy.pid)" ''
    lacks 'what the status page shows' "$(cat "$root/run/caps")" 'NOTICE|MACHINE_PORT'
    replaces pandaproxy <<'END'
#!/bin/sh
env >/run/caps
[ -s /run/card/proxy.pid ] && echo '170.00 0' >/proc/uptime
END
    keys
    at /lib/card/proxy
    has 'after a minute of work' "$(logged)" 'sleep 1;$'
    keys ADMIN_CODE=letmein-now
    printf 'The data is in RAM.\nWrite the card again.\n' >"$root/run/card/notice"
    echo '100.00 0' >"$root/proc/uptime"
    at /lib/card/proxy
    is 'what the status page shows' "$(grep -E '^(NOTICE|MACHINE_PORT)=' "$root/run/caps" | sort)" \
        "$(printf 'MACHINE_PORT=8081\nNOTICE=The data is in RAM. Write the card again.')"
}

# a_log: what the program says is the log.
a_log() {
    replaces logger <<'END'
#!/bin/sh
case $* in
'-t pandaproxy') sed 's/^/Jan  1 00:00:00 user.notice pandaproxy: /' >>/run/messages ;;
*) echo "${*#-t card -- }" >>/run/log ;;
esac
END
    replaces logread <<'END'
#!/bin/sh
cat /run/messages
END
}
# Without a page, the machine would start again every three minutes, and say nothing to its user.
a_fault_that_shows_in_a_start_is_on_the_page() {
    local pid answer='' busy
    a_log
    says sleep
    chmod 755 "$root/run/card"
    mount --bind /proc "$root/proc"
    settings SERVICES=mqtt,http PORTS=mqtt=18883
    echo garbage >"$root/boot/printer-ca.pem"
    at /lib/card/settings
    is 'the settings are read' "$(cat "$root/run/card/errors")" ''
    # It is there before anything is wrong.
    sed -i 's/ulimit -u/ulimit -p/; s/sleep 5/usleep 100000/' "$root/lib/card/page"
    becomes /lib/card/page &
    pid=$!
    at /lib/card/proxy
    is 'a file without certificates' "$(cat "$root/run/card/errors")" \
        'printer-ca.pem on the card, or the file of PRINTER_CA: no certificate found; expected authorities as PEM'
    until_it answers http://127.0.0.1:8080/ || true
    has 'the page' "$answer" '<li>printer-ca.pem on the card'
    has 'counts as an answer' "$(at /lib/card/answers && echo yes)" yes
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    rm "$root/boot/printer-ca.pem"
    settings SERVICES=mqtt PORTS=mqtt=18081
    at /lib/card/settings
    becomes /bin/busybox httpd -f -p 18081 -h /run &
    busy=$!
    until_it listens http://127.0.0.1:18081/ || fails 'nothing has the port'
    at /lib/card/proxy
    at /lib/card/proxy
    is 'a port that may not be free yet' "$(cat "$root/run/card/errors")" ''
    at /lib/card/proxy
    has 'a port that is taken' "$(cat "$root/run/card/errors")" '^cannot bind port 18081: in use by .*[(]PORTS[)].* SERVICES$'
    ends "$busy"
    umount "$root/proc"
    # In a trial, the version before it starts again.
    at /lib/card/settings
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    is 'in a trial' "$(at /lib/card/settings-fault 2; echo $?) $(cat "$root/run/card/errors")" '1 '
    touch "$root/run/card/trial-over"
    echo 'Jan  1 user.notice pandaproxy: ERROR out of memory' >>"$root/run/messages"
    is 'another end' "$(at /lib/card/settings-fault 1; echo $?) $(cat "$root/run/card/errors")" '1 '
    is 'after the trial' "$(at /lib/card/settings-fault 2; echo $?) $(cat "$root/run/card/errors")" '0 out of memory'
}

the_end_of_the_log_is_kept() {
    replaces logread <<'END'
#!/bin/sh
yes 'a line' | head -n 15000
echo the end
END
    at /lib/card/log-save
    is 'its size' "$(stat -c '%s %a' "$root/data/log/this.txt")" '65536 600'
    is 'its end' "$(tail -n 1 "$root/data/log/this.txt")" 'the end'
    replaces sleep <<'END'
#!/bin/sh
[ "$1" = 180 ] || kill -9 $PPID
END
    echo before >"$root/data/log/this.txt"
    at /lib/card/log-keep || true
    is 'that of the start before' "$(cat "$root/data/log/before.txt")" before
    is 'that of this one' "$(tail -n 1 "$root/data/log/this.txt")" 'the end'
    rm "$root/data/log/this.txt"
    touch "$root/run/card/data-in-ram"
    at /lib/card/log-save
    is 'without a data partition' "$(find "$root/data/log/" -name 'this*')" ''
    rm "$root/run/card/data-in-ram"
    sleep 1000 >/dev/null 2>&1 &
    echo $! >"$root/run/card/proxy.pid"
    ln -sf busybox "$root/bin/sleep"
    at /lib/card/stop
    is 'before the machine is switched off' "$(tail -n 1 "$root/data/log/this.txt")" 'the end'
    if until_it ended "$(cat "$root/run/card/proxy.pid")"; then ok; else fails "the proxy goes on"; fi
    has 'data is not written any more' "$(cat "$root/run/log")" 'mount -o remount,ro /data'
}

# ---- updates ---------------------------------------------------------------------------------------

slots() {
    { printf '[all]\nboot_partition=%s\n' "$1"; printf '#%.0s' {1..488}; echo; } >"$root/boot/autoboot.txt"
}

a_trial_is_good_or_taken_back() {
    slots 2
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    is 'the slot of the trial' "$(at /lib/card/slot-current)" b
    echo serving >"$root/data/settings/trial"
    is 'not yet' "$(at /lib/card/trial b waiting 60)" ''
    is 'never' "$(at /lib/card/trial b waiting 120)" back
    has why "$(cat "$root/data/settings/update")" 'printer was not reached'
    has 'the old slot' "$(cat "$root/boot/autoboot.txt")" 'boot_partition=2'
    # One and the same proxy has to serve for thirty seconds.
    echo 70 >"$root/run/card/proxy.pid"
    is 'one look' "$(at /lib/card/trial b serving 10)" ''
    echo 71 >"$root/run/card/proxy.pid"
    is 'another proxy' "$(at /lib/card/trial b serving 45)" ''
    is 'a pause' "$(at /lib/card/trial b waiting 60)" ''
    is 'after it' "$(at /lib/card/trial b serving 76)" ''
    # One that ends at once is not there when the guard looks.
    rm "$root/run/card/proxy.pid"
    echo 8 >"$root/run/card/proxy.wait"
    is 'at the end' "$(at /lib/card/trial b silent 120)" back
    has 'what it did' "$(cat "$root/data/settings/update")" 'the proxy ended again and again'
    rm -f "$root/run/card"/trial-* "$root/run/card/proxy.wait"
    echo 72 >"$root/run/card/proxy.pid"
    is 'from now on' "$(at /lib/card/trial b serving 60)" ''
    is 'good' "$(at /lib/card/trial b serving 90)" good
    rm -f "$root/run/card"/trial-*
    has 'the new slot' "$(cat "$root/boot/autoboot.txt")" 'boot_partition=3'
    is 'still a sector' "$(stat -c %s "$root/boot/autoboot.txt")" 512
    echo waiting >"$root/data/settings/trial"
    slots 2
    is 'as before, without a printer, from now on' "$(at /lib/card/trial b waiting 110)" ''
    is 'begun in time' "$(at /lib/card/trial b waiting 125)" ''
    is 'as before, without a printer' "$(at /lib/card/trial b waiting 140)" good
    # What the version before could write has to be written by this one.
    rm -f "$root/run/card"/trial-*
    slots 2
    touch "$root/run/card/data-in-ram"
    is 'from RAM' "$(at /lib/card/trial b serving 10)$(at /lib/card/trial b serving 45)" ''
    is 'from RAM until the end' "$(at /lib/card/trial b serving 120)" back
    has 'why' "$(cat "$root/data/settings/update")" 'the data partition cannot be used'
    has 'not selected' "$(cat "$root/boot/autoboot.txt")" 'boot_partition=2'
    rm "$root/run/card/data-in-ram"
    slots 2
    is 'no answer' "$(at /lib/card/trial b silent 120)" back
    has 'that is said' "$(cat "$root/data/settings/update")" 'no answer within 120 s'
    is 'invalid settings' "$(at /lib/card/trial b error 121)" back
    has 'the old slot' "$(cat "$root/boot/autoboot.txt")" 'boot_partition=2'
}

# begins: what a start does about the choice of a slot.
begins() {
    rm -f "$root/run/card/slot" "$root/run/card/notice"
    at /lib/card/slot-keep
}
an_unreadable_choice_of_a_slot_is_written_anew() {
    local autoboot=$root/boot/autoboot.txt broken
    touch "$root/boot/bootcode.bin"
    slots 3
    begins
    is 'the selected slot is kept' "$(cat "$root/data/settings/slot")" b
    for broken in "$(printf '%512s' '' | tr ' ' '\377')" '' "$(printf '[all]\nboot_partiti\n%900s' '')"; do
        printf '%s' "$broken" >"$autoboot"
        begins
        is 'it is selected again' "$(sed -n 's/^boot_partition=//p' "$autoboot") $(stat -c %s "$autoboot")" '3 512'
        is 'this start is from slot a' "$(at /lib/card/slot-current)" a
        has 'which is told' "$(cat "$root/run/card/notice")" 'pull the plug'
        begins
        is 'the next is from slot b' "$(at /lib/card/slot-current)" b
        is 'without a word' "$(find "$root/run/card" -name notice)" ''
    done
    rm "$autoboot"
    begins
    is 'one that is gone is made' "$(sed -n 's/^boot_partition=//p' "$autoboot")" 3
    # By hand, or by an update.
    slots 2
    begins
    is 'another choice counts' "$(cat "$root/data/settings/slot")" a
    : >"$autoboot"
    begins
    is 'slot a' "$(sed -n 's/^boot_partition=//p' "$autoboot")" 2
    rm "$root/data/settings/slot" "$autoboot"
    begins
    is 'without a record, the slot that was started' "$(sed -n 's/^boot_partition=//p' "$autoboot")" 2
    # A good trial selects its slot whatever was there before; one that is not good, nothing.
    printf garbage >"$autoboot"
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    begins
    is 'a trial changes nothing' "$(cat "$autoboot")" garbage
    at /lib/card/slot-good b
    is 'once it is good' "$(sed -n 's/^boot_partition=//p' "$autoboot") $(cat "$root/data/settings/slot")" '3 b'
    rm -f "$root/boot/bootcode.bin" "$autoboot"
    echo 'console=tty1' >"$root/proc/cmdline"
    begins
    is 'without a first partition nothing is made' "$(find "$root/boot" -name autoboot.txt)" ''
}

a_slot_is_written_and_read_back() {
    local content=$root/content update=$root/update hash
    head -c 300000 /dev/urandom >"$content"
    hash=$(sha256sum "$content" | cut -d' ' -f1)
    { printf 'pandaproxy-update 1\nboard card-test\nversion 2\nsize 300000\nsha256 %s\nsignature x\n\n' "$hash"; cat "$content"; } >"$update"
    mkdir -p "$root/sys/class/block/slot.img"
    echo 1000 >"$root/sys/class/block/slot.img/size"
    truncate -s 512000 "$root/dev/slot.img"
    is written "$(at /lib/card/slot-write /update /dev/slot.img 300000 "$hash"; echo $?)" 0
    is 'the slot' "$(head -c 300000 "$root/dev/slot.img" | sha256sum | cut -d' ' -f1)" "$hash"
    is 'its size' "$(stat -c %s "$root/dev/slot.img")" 512000
    # What was verified counts, not what the file says since.
    sed -i "1,/^$/s/^sha256 .*/sha256 $(head -c 300000 /dev/zero | sha256sum | cut -d' ' -f1)/" "$update"
    tail -c 300000 "$update" | cmp -s - "$content" || fails 'the test changed the content'
    truncate -s 300 "$update"
    head -c 300000 /dev/zero >>"$update"
    is 'another content' "$(at /lib/card/slot-write /update /dev/slot.img 300000 "$hash" >/dev/null; echo $?)" 1
    echo 500 >"$root/sys/class/block/slot.img/size"
    has 'too large' "$(at /lib/card/slot-write /update /dev/slot.img 300000 "$hash" || true)" 'the slot 256000'
    echo 1000 >"$root/sys/class/block/slot.img/size"
    replaces dd <<'END'
#!/bin/sh
exec cat >/dev/null
END
    head -c 512000 /dev/zero >"$root/dev/slot.img"
    has 'a card that forgets' "$(at /lib/card/slot-write /update /dev/slot.img 300000 "$hash" || true)" 'does not keep'
}

# An update as it has arrived, and what the script that takes it finds: a program that verifies everything, as version 2.
an_update() {
    slots 2
    rm -rf "$root/run/upload"
    mkdir "$root/run/upload"
    chown 103:103 "$root/run/upload"
    echo update >"$root/run/upload/complete"
    chown 103:103 "$root/run/upload/complete"
    echo 2 >"$root/run/version"
    replaces pandaproxy <<'END'
#!/bin/sh
echo "verified $(stat -c '%F %a %u %h' /run/upload/complete)" >>/run/log
printf 'board card-test\nversion %s\nsize 7\nsha256 abc\nkey def\n' "$(cat /run/version)"
END
    replaces sleep <<'END'
#!/bin/sh
END
    printf '#!/bin/sh\necho "written $*" >>/run/log\n' >"$root/lib/card/slot-write"
    printf '#!/bin/sh\necho "tried $*" >>/run/log\necho "no kernel"\nexit 1\n' >"$root/lib/card/slot-try"
}

an_update_is_verified_written_and_tried() {
    an_update
    at /lib/card/update
    has 'its file is the system'"'"'s alone' "$(cat "$root/run/log")" '^verified regular file 600 0 1$'
    has 'written, as verified' "$(cat "$root/run/log")" '^written /run/upload/complete /dev/mmcblk0p3 7 abc$'
    has tried "$(cat "$root/run/log")" '^tried /dev/mmcblk0p3 b$'
    has 'what became of it' "$(cat "$root/data/settings/update")" '^refused: .*no kernel$'
    is 'the folder is free again' "$(ls -A "$root/run/upload") $(stat -c %u "$root/run/upload")" ' 103'
}

the_slot_of_the_next_start_is_not_written_to() {
    touch "$root/boot/bootcode.bin"
    an_update
    echo b >"$root/data/settings/slot"
    printf garbage >"$root/boot/autoboot.txt"
    begins
    at /lib/card/update
    lacks 'started from slot a, with slot b selected' "$(cat "$root/run/log")" '^written'
    has 'what to do is said' "$(cat "$root/data/settings/update")" '^refused: slot b is started from next.*pull the plug'
    begins
    an_update
    slots 3
    at /lib/card/update
    has 'after that start, slot a is' "$(cat "$root/run/log")" '^written /run/upload/complete /dev/mmcblk0p2 '
}

# What is sent comes from a user who may have other plans.
what_the_pages_user_leaves_is_not_followed() {
    an_update
    echo secret >"$root/run/card/secret"
    ln -sf /run/card/secret "$root/run/upload/said"
    ln -sf /run/card/secret "$root/run/upload/complete"
    at /lib/card/update
    lacks 'a link' "$(cat "$root/run/log")" '^(verified|written)'
    has 'is refused' "$(cat "$root/data/settings/update")" '^refused: .*no plain file'
    is 'where both pointed' "$(cat "$root/run/card/secret") $(stat -c %u "$root/run/card/secret")" 'secret 0'
    is 'the page says it' "$(cat "$root/run/card/said")" "$(cat "$root/data/settings/update")"
    is 'and its user reads that' "$(stat -c '%a %u' "$root/run/card/said")" '644 0'
    : >"$root/run/log"
    an_update
    ln "$root/run/upload/complete" "$root/run/upload/second"
    at /lib/card/update
    lacks 'a second name' "$(cat "$root/run/log")" '^(verified|written)'
    : >"$root/run/log"
    an_update
    rm "$root/run/upload/complete"
    mkdir "$root/run/upload/complete"
    at /lib/card/update
    lacks 'a folder' "$(cat "$root/run/log")" '^(verified|written)'
}

# chain_runs: sets `seen` to the users of what runs.
chain_runs() {
    seen=$(at ps -o user)
    [[ $seen = *page* ]]
}
# A chain of processes, each of which has the file open, outruns a list of them.
what_the_pages_user_runs_ends_before() {
    an_update
    replaces chain <<'END'
#!/bin/sh
/bin/chain &
END
    replaces pandaproxy <<'END'
#!/bin/sh
# One that has ended may not have been waited for yet.
echo "still there: $(ps -o user,stat | grep -c '^page *[^Z ]')" >>/run/log
exit 1
END
    ln -sf busybox "$root/bin/sleep"
    mount --bind /proc "$root/proc"
    at /usr/bin/setpriv --reuid=page --regid=page --clear-groups /bin/chain 3>>"$root/run/upload/complete"
    # A look can miss the one that there is.
    local seen=''
    until_it chain_runs || true
    has 'the chain runs' "$seen" '^page'
    timeout 60 env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" /lib/card/update || true
    has 'then none does' "$(cat "$root/run/log")" '^still there: 0$'
    umount -l "$root/proc"
}

what_init_starts_is_there() {
    local program
    is 'how many' "$(sed -n 's/^::[a-z]*:\([^ ]*\).*/\1/p' "$root/etc/inittab" | wc -l)" 16
    while read -r program; do
        is "$program" "$(test -x "$root$program" && echo yes)" yes
    done < <(sed -n 's/^::[a-z]*:\([^ ]*\).*/\1/p' "$root/etc/inittab")
}

a_device_that_appears_before_announcements_are_heard_gets_its_driver() {
    mkdir -p "$root/sys/devices/usb1/1-1.1" "$root/proc/net"
    echo usb:v0424pEC00 >"$root/sys/devices/usb1/1-1.1/modalias"
    : >"$root/proc/net/netlink"
    # busybox's would run its own modprobe.
    replaces xargs <<'END'
#!/bin/sh
echo "$* $(tr '\0' ' ')" >>/run/log
END
    # It listens only after a second.
    replaces uevent <<'END'
#!/bin/sh
sleep 1
echo "listens" >>/run/log
echo "0000000000000000 15  $$ 00000001 0 0 0 2 0 1" >/proc/net/netlink
for _ in $(seq 600); do
    if grep -q modprobe /run/log; then break; fi
    usleep 100000
done
END
    at /lib/card/devices
    has 'after that, its driver is loaded' "$(tr '\n' ' ' <"$root/run/log")" '^listens -0 modprobe -qa .* usb:v0424pEC00 +$'
}

a_kernel_that_does_not_start_leaves_data_writable() {
    replaces kexec <<'END'
#!/bin/sh
echo "kexec $*" >>/run/log
END
    replaces umount </dev/null
    printf '#!/bin/sh\necho stop >>/run/log\n' >"$root/lib/card/stop"
    # As the image has it.
    sed -n "s/^printf '%s \\(panic=.*\\)\\\\n' .*/console=tty1 \\1/p" boards/card/build.sh >"$root/proc/cmdline"
    at /lib/card/slot-try /dev/mmcblk0p3 b || true
    has 'it is loaded' "$(cat "$root/run/log")" '^kexec -l --no-checks /slot/kernel.img '
    has 'it starts again if it panics, and has the watchdog that counts' "$(cat "$root/run/log")" \
        '--append=console=tty1 panic=10 watchdog.stop_on_reboot=0 pandaproxy.trial=b watchdog.open_timeout=120$'
    is 'the last steps' "$(tail -n 3 "$root/run/log" | tr '\n' ' ')" 'stop kexec -e mount -o remount,rw /data '
}

# A slot that is tried, on a board with a USB controller; its kexec writes down what the driver was told.
usb_controller() {
    mkdir -p "$root/sys/bus/platform/drivers/dwc2/20980000.usb"
    replaces umount </dev/null
    printf '#!/bin/sh\necho stop >>/run/log\n' >"$root/lib/card/stop"
    replaces kexec <<'END'
#!/bin/sh
[ "$1" = -e ] || exit 0
echo "jumps, unbound: $(cat /sys/bus/platform/drivers/dwc2/unbind)" >>/run/log
END
}

the_usb_controller_stops_before_the_next_kernel_starts() {
    usb_controller
    at /lib/card/slot-try /dev/mmcblk0p3 b || true
    has 'its driver lets go of it, and then' "$(cat "$root/run/log")" '^jumps, unbound: 20980000.usb$'
    is 'a kernel that does not start gets it back' "$(cat "$root/sys/bus/platform/drivers/dwc2/bind")" 20980000.usb
}

a_usb_driver_that_hangs_stops_no_update() {
    usb_controller
    mkfifo "$root/sys/bus/platform/drivers/dwc2/unbind"
    replaces usleep </dev/null
    replaces kexec <<'END'
#!/bin/sh
echo "kexec $1" >>/run/log
END
    timeout 60 env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin chroot "$root" /lib/card/slot-try /dev/mmcblk0p3 b || true
    has 'the next kernel is started' "$(cat "$root/run/log")" '^kexec -e$'
}

a_jump_that_hangs_ends_in_the_old_slot() {
    usb_controller
    : >"$root/proc/sysrq-trigger"
    replaces sleep </dev/null
    replaces kexec <<'END'
#!/bin/sh
[ "$1" = -e ] || exit 0
for _ in $(seq 600); do
    [ ! -s /proc/sysrq-trigger ] || break
    usleep 100000
done
END
    at /lib/card/slot-try /dev/mmcblk0p3 b || true
    is 'the machine starts again' "$(cat "$root/proc/sysrq-trigger")" b
}

an_older_version_is_refused() {
    local version
    for version in 1.2.2 0.99.0 1.2.3-rc1 1.2.3-rc1+7; do
        an_update
        echo "$version" >"$root/run/version"
        at /lib/card/update
        has "$version" "$(cat "$root/data/settings/update")" "^refused: version ${version/+/[+]} is older than 1.2.3"
        lacks "$version is written" "$(cat "$root/run/log")" '^written'
        : >"$root/run/log"
    done
    for version in 1.2.3 1.2.3+8 1.2.10 1.10.0 10.0.0 1.3.0-rc1; do
        an_update
        echo "$version" >"$root/run/version"
        at /lib/card/update
        has "$version" "$(cat "$root/run/log")" '^written'
        : >"$root/run/log"
    done
    echo 2.0.0-rc2 >"$root/etc/card/version"
    an_update
    echo 2.0.0 >"$root/run/version"
    at /lib/card/update
    has 'a release after its candidate' "$(cat "$root/run/log")" '^written'
}

cgi() {
    local body=$1
    shift
    printf '%s' "$body" | env -i "PATH=$PATH" REQUEST_METHOD=POST "$@" chroot "$root" /lib/card/www/cgi-bin/update | tr -d '\r'
}
an_upload_needs_the_code_and_a_length() {
    mkdir -p "$root/run/upload"
    echo letmein-now >"$root/run/card/admin-code"
    replaces sleep <<'END'
#!/bin/sh
echo "sleep $1" >>/run/log
END
    has 'no code' "$(cgi x CONTENT_LENGTH=1)" '^Status: 403'
    has 'a wrong one' "$(cgi x CONTENT_LENGTH=1 HTTP_X_ADMIN_CODE=guess)" '^Status: 403'
    is 'which takes time' "$(cat "$root/run/log")" "$(printf 'sleep 5\nsleep 5')"
    has 'no length' "$(cgi x HTTP_X_ADMIN_CODE=letmein-now)" '^Status: 411'
    has 'a length that is none' "$(cgi x HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=1x)" '^Status: 411'
    has 'too much' "$(cgi x HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=100663297)" '^Status: 413'
    has 'too little' "$(cgi x HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=9)" '^Status: 400'
    is 'nothing is left' "$(cd "$root/run/upload" && find . -size +0)" .
    has 'whole' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)" '^Status: 202'
    is 'it is there' "$(cat "$root/run/upload/complete")" update
    has 'one at a time' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)" '^Status: 503'
    rm -rf "$root/run/upload/complete"
    echo 'console=tty1 pandaproxy.trial=b' >"$root/proc/cmdline"
    has 'in a trial' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)" '^the last update is still being tried'
    is 'and nothing of it is taken' "$(find "$root/run/upload" -size +0 -type f)" ''
    touch "$root/run/card/trial-over"
    has 'after it' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)" '^Status: 202'
    # While a wrong code waits, a right one is taken.
    rm -rf "$root/run/upload/complete" "$root/run/upload/lock"
    replaces sleep <<'END'
#!/bin/sh
REQUEST_METHOD=POST HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=0 /lib/card/www/cgi-bin/update </dev/null >/run/meanwhile
END
    has 'a wrong one' "$(cgi x CONTENT_LENGTH=1 HTTP_X_ADMIN_CODE=guess)" '^Status: 403'
    has 'a right one meanwhile' "$(cat "$root/run/meanwhile")" '^Status: 202'
}

# takes_one: sets `answer` to that for an upload.
takes_one() {
    answer=$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)
    [[ $answer = *'Status: 202'* ]]
}
# What is left of an upload whose process was killed keeps no other one out, and does not write into its file.
an_upload_that_was_killed_leaves_no_lock() {
    mkdir -p "$root/run/upload"
    echo letmein-now >"$root/run/card/admin-code"
    mkfifo "$root/run/sent"
    env -i "PATH=$PATH" REQUEST_METHOD=POST HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=600000 \
        chroot "$root" /lib/card/www/cgi-bin/update <"$root/run/sent" >/dev/null 2>&1 &
    local pid=$! program answer=''
    exec 4>"$root/run/sent"
    head -c 300000 /dev/zero >&4
    until_it test -s "$root/run/upload/partial" || fails 'nothing of it arrives'
    has 'while one is sent' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6 4>&-)" '^Status: 503'
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    has 'after it' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6 4>&-)" '^Status: 202'
    head -c 300000 /dev/zero >&4
    exec 4>&-
    is 'its file' "$(cat "$root/run/upload/complete")" update
    # As soon as it has the lock, and after each further program that it calls.
    for program in mkdir flock rm timeout wc; do
        rm -rf "$root/run/upload/complete"
        mv "$root/bin/$program" "$root/run/whole" 2>/dev/null || mv "$root/usr/bin/$program" "$root/run/whole"
        # shellcheck disable=SC2016 # the script's own
        printf '#!/bin/sh\n%s "$@"\nkill -9 $PPID\n' "$(case $program in flock) echo /run/whole ;; *) echo "/bin/busybox $program" ;; esac)" |
            replaces "$program"
        cp "$root/bin/$program" "$root/usr/bin/$program"
        cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6 >/dev/null 2>&1 || true
        rm "$root/bin/$program"
        mv "$root/run/whole" "$root/usr/bin/$program"
        rm -f "$root/run/upload/complete"
        # The program itself, which has the lock as well, may take a moment more.
        until_it takes_one || true
        has "killed after $program" "$answer" '^Status: 202'
    done
    rm -rf "$root/run/upload"
    has 'while an update is installed' "$(cgi update HTTP_X_ADMIN_CODE=letmein-now CONTENT_LENGTH=6)" '^Status: 503.*'
}

# A browser may send all of it before it reads: if what it sends is not taken, it is shown a connection that was reset.
a_refused_upload_is_answered_once_it_was_sent() {
    local pid sent=no
    sed -i 's/ulimit -u/ulimit -p/' "$root/lib/card/upload"
    mkdir -p "$root/run/card/keys" "$root/run/upload"
    echo letmein-now >"$root/run/card/keys/ADMIN_CODE"
    replaces sleep </dev/null
    becomes /lib/card/upload &
    pid=$!
    until_it listens http://127.0.0.1:8081/ || fails 'nothing has the port'
    exec 5<>/dev/tcp/127.0.0.1/8081
    if (
        trap '' PIPE
        printf 'POST /cgi-bin/update HTTP/1.1\r\nHost: card\r\nX-Admin-Code: guess\r\nContent-Length: 20000000\r\n\r\n'
        head -c 20000000 /dev/zero
    ) >&5 2>/dev/null; then sent=yes; fi
    is 'all of it was sent' "$sent" yes
    has 'and answered' "$(timeout 100 cat <&5 || true)" '^wrong admin code$'
    exec 5>&-
    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

# What became of the last update is on the page after each start, and the port is open only with a code.
the_update_page_tells_what_became_of_the_last() {
    local pid answer=''
    sed -i 's/ulimit -u/ulimit -p/' "$root/lib/card/upload"
    echo 'good, slot b, version 2' >"$root/data/settings/update"
    replaces sleep <<'END'
#!/bin/sh
echo "sleep $1" >>/run/log
END
    mkdir -p "$root/run/card/keys" "$root/run/upload"
    at /lib/card/upload
    is 'without a code' "$(cat "$root/run/log")" 'sleep 86400'
    echo letmein-now >"$root/run/card/keys/ADMIN_CODE"
    becomes /lib/card/upload &
    pid=$!
    until_it answers http://127.0.0.1:8081/cgi-bin/update || true
    is 'what became of it' "$answer" 'good, slot b, version 2'
    has 'the page' "$(curl -s --max-time 60 http://127.0.0.1:8081/)" 'Admin code'
    is 'its user' "$(ps -o uid= -p "$pid" | tr -d ' ')" 103
    is 'who reads the code' "$(stat -c '%a %u' "$root/run/card/admin-code")" '400 103'
    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

# If power failed between the choice of a slot and its being told, the next start tells it; a trial that goes on is not yet taken back.
the_update_page_tells_of_the_slot_that_runs() {
    local before='taken back: slot b did not start, or ended'
    sed -i 's/ulimit -u/ulimit -p/' "$root/lib/card/upload"
    echo '#!/bin/sh' >"$root/usr/bin/setpriv"
    touch "$root/proc/mounts"
    mkdir -p "$root/run/card/keys" "$root/run/upload"
    echo letmein-now >"$root/run/card/keys/ADMIN_CODE"
    # tells WHAT SLOT COMMAND-LINE ON-THE-PAGE KEPT
    tells() {
        rm -f "$root/run/card/said"
        printf 'boot_partition=%s\n' "$2" >"$root/boot/autoboot.txt"
        echo "$3" >"$root/proc/cmdline"
        at /lib/card/upload
        is "$1" "$(cat "$root/run/card/said")" "$4"
        is "$1, kept" "$(cat "$root/data/settings/update")" "$5"
    }
    echo "$before" >"$root/data/settings/update"
    tells 'a trial that ended' 2 console=tty1 "$before" "$before"
    tells 'a trial' 2 'console=tty1 pandaproxy.trial=b' 'slot b is tried, version 1.2.3' "$before"
    tells 'a trial that was good' 3 console=tty1 'good, slot b, version 1.2.3' 'good, slot b, version 1.2.3'
    tells 'the start after it' 3 console=tty1 'good, slot b, version 1.2.3' 'good, slot b, version 1.2.3'
}

# ---- all of them -----------------------------------------------------------------------------------

# A test's name has three words or more, a helper's fewer.
tests=("$@")
[ $# -gt 0 ] || mapfile -t tests < <(sed -n 's/^\([a-z]*_[a-z]*_[a-z_]*\)() {$/\1/p' tests/card/root.sh)
for name in "${tests[@]}"; do
    fresh
    "$name"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
