#!/usr/bin/env bash
# boards/slicer/trust.sh against folders laid out as the slicers' packages lay them out; openssl reads the results.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/slicer/run.sh [--help]

Needs openssl and python3. Prints a line for each test that fails, and `N passed, N failed`.
END
}

case ${1-} in
--help) usage; exit 0 ;;
'') ;;
*) echo "run.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/../.."
# shellcheck source=tests/readme.sh
. tests/readme.sh
trust=$PWD/boards/slicer/trust.sh
t=$(mktemp -d)
pids=()
finish() {
    [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    # One of those may be writing there while it ends.
    chmod -R u+w "$t" || true
    rm -rf "$t" || true
}
trap finish EXIT

passed=0 failed=0
check() {
    if "${@:2}"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED %s\n' "$1"
        sed 's/^/    /' "$t/out"
    fi
}
refuses() { ! "$@"; }

# authority FILE NAME: a certificate of its own, as the proxy makes one.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1" -days 3650 \
        -subj "/CN=$2" 2>/dev/null
}
authority "$t/ours.pem" 'PandaProxy CA 0123abcd'
authority "$t/old.pem" 'PandaProxy CA 89abcdef'
authority "$t/printer.pem" 'BBL Device CA N7-V2'
for n in 1 2 3 4 5; do authority "$t/stock$n.pem" "Stock CA $n"; done
sum=$(openssl x509 -in "$t/ours.pem" -noout -fingerprint -sha256 | sed 's/.*=//')

# The slicers' file as it is shipped: five certificates, no newline at its end.
cat "$t"/stock[1-5].pem | perl -pe 'chomp if eof' >"$t/stock.cer"

export HOME=/home/user
# tree: each package's layout below $t/root, with the file as it is shipped.
tree() {
    [ ! -d "$t/root" ] || chmod -R u+w "$t/root"
    rm -rf "$t/root"
    local place
    for place in usr/share/BambuStudio/cert opt/bambustudio-bin/resources/cert usr/share/OrcaSlicer/resources/cert \
        var/lib/flatpak/app/com.orcaslicer.OrcaSlicer/x86_64/stable/0a1b/files/share/OrcaSlicer/cert \
        home/user/.local/share/flatpak/app/com.bambulab.BambuStudio/x86_64/stable/9f/files/share/BambuStudio/cert \
        'Applications/Bambu Studio 2.app/Contents/Resources/cert' \
        home/user/squashfs-root/resources/cert; do
        mkdir -p "$t/root/$place"
        cp "$t/stock.cer" "$t/root/$place/printer.cer"
    done
}
files() { find "$t/root" -name printer.cer | sort; }
run() { "$trust" "$@" >"$t/out" 2>&1; }
system() { run "$@" --root "$t/root"; }
# sums FILE: the SHA-256 of each certificate that openssl reads from a bundle, in order.
sums() {
    openssl crl2pkcs7 -nocrl -certfile "$1" | openssl pkcs7 -print_certs | python3 -c '
import base64, hashlib, re, sys
for block in re.findall("BEGIN CERTIFICATE-----(.*?)-----END", sys.stdin.read(), re.S):
    print(hashlib.sha256(base64.b64decode(block)).hexdigest())'
}
# holds FILE PEM...: whether a bundle has exactly these certificates.
holds() {
    local file=$1
    shift
    cat "$@" >"$t/wanted.pem"
    sums "$t/wanted.pem" >"$t/wanted"
    sums "$file" >"$t/got"
    cmp -s "$t/wanted" "$t/got"
}
stock=("$t"/stock[1-5].pem)
all_hold() {
    local file
    while IFS= read -r file; do holds "$file" "$@" || return 1; done < <(files)
}
count_is() { [ "$(grep -c "$1" "$t/out" || true)" = "$2" ]; }
# bundle FILE...: one printer.cer of its own, from these files.
bundle() {
    mkdir -p "$t/one"
    rm -f "$t/one"/*
    cat "$@" >"$t/one/printer.cer"
}
one=$t/one/printer.cer
all_are_stock() {
    local file
    while IFS= read -r file; do cmp -s "$file" "$t/stock.cer" || return 1; done < <(files)
}
no_backup() { [ -z "$(find "$t/root" -name '*pandaproxy*')" ]; }
from_input() { system - <"$t/ours.pem"; }
begins_with_crlf_stock() {
    sed 's/$/\r/' "$t/stock.cer" >"$t/crlf.cer"
    cmp -s -n "$(wc -c <"$t/crlf.cer")" "$t/crlf.cer" "$one"
}
once_more() { run "$t/two.pem" --bundle "$one" && holds "$one" "${stock[@]}" "$t/ours.pem" "$t/printer.pem"; }
backup_is() { cmp -s "$1" "$one.before-pandaproxy"; }
resigned() { PATH=$t/bin:$PATH run "$t/ours.pem" --bundle "$app" --resign; }
mode_is() { [ "$(stat -c %a "$one")" = "$1" ]; }

tree
check 'a slicer without it is named by --check' refuses system --check
check 'each of the seven is checked' count_is 'lacks the authority' 7
check '--dry-run says what it would do' system "$t/ours.pem" --dry-run
check 'for each of the seven' count_is 'would add CN=PandaProxy CA 0123abcd' 7
check '--dry-run changes nothing' all_hold "${stock[@]}"
check 'it is added' system "$t/ours.pem" --sha256 "$sum"
check 'behind the others, which stay' all_hold "${stock[@]}" "$t/ours.pem"
check '--check is content' system --check "$t/ours.pem"
files | xargs -d '\n' sha256sum >"$t/before"
check 'a second run succeeds' system "$t/ours.pem"
check 'and changes nothing' sha256sum --quiet -c "$t/before"
check '--remove succeeds' system --remove
check 'and leaves the file as it was shipped' \
    all_are_stock
check 'and no backup' no_backup

check 'another SHA-256 is refused' refuses system "$t/ours.pem" --sha256 "${sum%??}00"
check 'and nothing was changed' all_hold "${stock[@]}"
check 'an authority on standard input is taken' from_input
check 'and is in every file' all_hold "${stock[@]}" "$t/ours.pem"

bundle "$t/stock.cer"
(cat "$t/stock.cer"; printf '\n'; cat "$t/old.pem") >"$one"
check 'the authority of an earlier installation is replaced' run "$t/ours.pem" --bundle "$one"
check 'by the one given' holds "$one" "${stock[@]}" "$t/ours.pem"
(cat "$t/stock.cer"; printf '\n'; cat "$t/old.pem") >"$one"
check '--keep-others keeps it' run "$t/ours.pem" --bundle "$one" --keep-others
check 'beside the one given' holds "$one" "${stock[@]}" "$t/old.pem" "$t/ours.pem"

bundle "${stock[@]}" "$t/ours.pem" "$t/ours.pem" "$t/ours.pem"
check 'duplicates are removed' run "$t/ours.pem" --bundle "$one"
check 'but for one' holds "$one" "${stock[@]}" "$t/ours.pem"

# Appended by hand without a newline: two certificates share a line, and the slicer reads neither.
bundle "$t/stock.cer" "$t/ours.pem"
check 'a missing newline between two certificates is a fault' refuses run --check "$t/ours.pem" --bundle "$one"
check 'that is repaired' run "$t/ours.pem" --bundle "$one"
check 'so that both are read' holds "$one" "${stock[@]}" "$t/ours.pem"

bundle "$t/stock.cer"
sed 's/$/\r/' "$t/stock.cer" >"$one"
check 'a file with CRLF is changed' run "$t/ours.pem" --bundle "$one"
check 'and read' holds "$one" "${stock[@]}" "$t/ours.pem"
check 'what it had stays byte for byte' begins_with_crlf_stock
sed 's/$/\r/' "$t/ours.pem" >"$t/crlf.pem"
bundle "$t/stock.cer"
check 'an authority with CRLF is taken' run "$t/crlf.pem" --bundle "$one"
check 'and added' holds "$one" "${stock[@]}" "$t/ours.pem"

bundle "$t/stock.cer"
{ printf '\357\273\277'; cat "$t/stock.cer"; } >"$one"
check 'a byte order mark is dropped' run "$t/ours.pem" --bundle "$one"
check 'so that the first certificate is read' holds "$one" "${stock[@]}" "$t/ours.pem"

bundle "$t/stock.cer"
cat "$t/ours.pem" "$t/printer.pem" >"$t/two.pem"
check "a printer's authority comes with the proxy's" run "$t/two.pem" --bundle "$one"
check 'behind it' holds "$one" "${stock[@]}" "$t/ours.pem" "$t/printer.pem"
check 'once' once_more
check 'and goes with it' run --remove --bundle "$one"
check 'but nothing else' cmp -s "$one" "$t/stock.cer"
# As the proxy prints it: with a line before each certificate of a printer.
{ cat "$t/ours.pem"; echo '# PandaProxy: printer 22E00A000000001: BBL Device CA N7-V2'; cat "$t/printer.pem"; } >"$t/two.pem"
bundle "$t/stock.cer"
check "what the proxy says of a printer's authority" run "$t/two.pem" --bundle "$one"
check 'comes with it' grep -Fqx '# PandaProxy: printer 22E00A000000001: BBL Device CA N7-V2' "$one"
check 'and its SHA-256 is shown' count_is '^SHA-256:' 2
check 'a second run finds nothing to do' run "$t/two.pem" --bundle "$one"
check 'as it says' count_is 'nothing to do' 1
check 'and --check is content' run --check "$t/two.pem" --bundle "$one"
check 'without it --check says what to do' refuses run --check "$t/ours.pem" --bundle "$one"
check 'both go' run --remove --bundle "$one"
check 'with the line' cmp -s "$one" "$t/stock.cer"
cat "$t/stock.cer" <(echo) "$t/two.pem" >"$one"
check 'what was appended by hand goes too' run --remove --bundle "$one"
check 'and leaves the others' holds "$one" "${stock[@]}"
cat "$t/two.pem" "$t/two.pem" >"$t/twice.pem"
bundle "$t/stock.cer"
check 'two outputs of the proxy in one are taken' run "$t/twice.pem" --bundle "$one"
check 'each certificate once' holds "$one" "${stock[@]}" "$t/ours.pem" "$t/printer.pem"
bundle "$t/stock.cer"
check '--sha256 is asked of the second certificate too' refuses run "$t/two.pem" --sha256 "$sum" --bundle "$one"
check 'so that nothing is added unseen' cmp -s "$one" "$t/stock.cer"
second=$(openssl x509 -in "$t/printer.pem" -noout -fingerprint -sha256 | sed 's/.*=//')
check 'with both it is added' run "$t/two.pem" --sha256 "$sum" --sha256 "$second" --bundle "$one"
check 'behind the authority' holds "$one" "${stock[@]}" "$t/ours.pem" "$t/printer.pem"
check 'six digits are no SHA-256' refuses run "$t/two.pem" --sha256 4abcde --bundle "$one"

bundle "$t/stock.cer"
run "$t/old.pem" --bundle "$one"
cp "$t/stock.cer" "$one"
cat "$t/stock1.pem" "$t/stock2.pem" >"$t/updated"
cp "$t/updated" "$one"
check 'after an update of the slicer it is added again' run "$t/ours.pem" --bundle "$one"
check 'to the new file' holds "$one" "$t/stock1.pem" "$t/stock2.pem" "$t/ours.pem"
check 'whose backup is the new one' backup_is "$t/updated"

printf '{\\rtf1 saved by a word processor}' >"$one"
check 'a file that is no PEM is left alone' refuses run "$t/ours.pem" --bundle "$one"
check 'and the reason is said' count_is 'install the slicer again' 1
{ cat "$t/stock1.pem"; printf -- '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'; } >"$one"
cp "$one" "$t/damaged"
check 'a file with a damaged certificate is left alone' refuses run "$t/ours.pem" --bundle "$one"
check 'byte for byte' cmp -s "$one" "$t/damaged"
check "a slicer's own certificate is not taken for a proxy's authority" refuses run "$t/stock1.pem" --bundle "$one"
check 'a private key alone is no authority' refuses run "$t/ours.pem.key" --bundle "$one"
check 'an empty input is no authority' refuses run /dev/null --bundle "$one"
check 'what is not there is said' refuses run "$t/ours.pem" --bundle "$t/nothing"

bundle "$t/stock.cer"
chmod 640 "$one"
ln -s "$one" "$t/link.cer"
check 'a link is followed' run "$t/ours.pem" --bundle "$t/link.cer"
check 'and stays' test -L "$t/link.cer"
check 'the mode stays' mode_is 640
# Flatpak's files are hard links into its repository, which must not change.
bundle "$t/stock.cer"
ln "$one" "$t/repository"
check 'a file with a second name is changed' run "$t/ours.pem" --bundle "$one"
check 'under one name only' cmp -s "$t/repository" "$t/stock.cer"

# A folder that cannot be written, for a user other than root.
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$t"
    user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$trust" "$@" >"$t/out" 2>&1; }
else
    user() { run "$@"; }
fi
bundle "$t/stock.cer"
chmod 555 "$t/one"
check "without the right to write, it fails" refuses user "$t/ours.pem" --bundle "$one"
check 'naming sudo' count_is 'with sudo in front' 1
check 'and leaves the file' cmp -s "$one" "$t/stock.cer"
check '--check needs no right' refuses user --check --bundle "$one"
chmod 755 "$t/one"

# macOS: a sealed application.
tree
mkdir "$t/bin"
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$@" >>"$SIGNED"\n' >"$t/bin/codesign"
chmod +x "$t/bin/codesign"
export SIGNED=$t/signed
app="$t/root/Applications/Bambu Studio 2.app"
check 'an application is changed' run "$t/ours.pem" --bundle "$app"
check 'and its signature is spoken of' count_is 'run this again with --resign' 1
check '--resign signs it' resigned
check 'ad hoc' grep -Fqx -- "--force --deep --sign - $app" "$SIGNED"

# An AppImage that was not extracted.
mkdir -p "$t/root/home/user/Downloads"
: >"$t/root/home/user/Downloads/OrcaSlicer_Linux_V2.3.0.AppImage"
check 'an AppImage does not stop it' system "$t/ours.pem"
check 'and is explained' count_is 'appimage-extract' 1

# From a running proxy: a server whose chain ends in the authority, and one that never answers.
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$t/leaf.key" -out "$t/leaf.csr" -subj /CN=01P00A000000001 2>/dev/null
openssl x509 -req -in "$t/leaf.csr" -CA "$t/ours.pem" -CAkey "$t/ours.pem.key" -CAcreateserial -out "$t/leaf.pem" -days 30 2>/dev/null
port=$((20000 + $$ % 10000))
openssl s_server -accept "127.0.0.1:$port" -cert "$t/leaf.pem" -key "$t/leaf.key" -cert_chain "$t/ours.pem" -quiet >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 50); do
    if openssl s_client -connect "127.0.0.1:$port" </dev/null >/dev/null 2>&1; then break; fi
    sleep 0.1
done
bundle "$t/stock.cer"
as_readme() { readme 'boards/slicer/trust.sh' "s|pandaproxy-ca.pem|$t/ours.pem|" "--bundle $one" >"$t/out" 2>&1; }
check "README's command adds the authority" as_readme
check 'of its file' holds "$one" "${stock[@]}" "$t/ours.pem"
bundle "$t/stock.cer"
check '--from without --sha256 is refused' refuses run --from "127.0.0.1:$port" --bundle "$one"
check '--from takes what has the SHA-256' run --from "127.0.0.1:$port" --sha256 "$sum" --bundle "$one"
check 'and adds it' holds "$one" "${stock[@]}" "$t/ours.pem"
check '--from takes nothing else' refuses run --from "127.0.0.1:$port" --sha256 "${sum%??}00" --bundle "$one"
check 'a closed port is an error' refuses run --from 127.0.0.1:1 --sha256 "$sum" --bundle "$one"

check '--help prints the options' run --help
check 'an unknown option is refused' refuses run --nonsense
check 'nothing to add is refused' refuses run

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
