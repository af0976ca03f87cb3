#!/usr/bin/env bash
# Update files for `pandaproxy update`, signed with the publisher's key: of the same files the same bytes.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/sign.sh [--key FILE] [--dry-run] VERSION [BOARD...]
       boards/sign.sh [--key FILE] [--dry-run] --content FILE --out FILE VERSION BOARD

Makes dist/release/pandaproxy-VERSION-BOARD.update of the binary in dist/release/pandaproxy-VERSION-BOARD.tar.gz, for each
board that has one (boards/release.sh makes those), or for those that are named. For BOARD card-NAME, a memory card, it is that of
the slot in dist/release/pandaproxy-VERSION-card-NAME.slot.

  --key FILE      the publisher's private key, PEM; without it the environment variable UPDATE_SIGNING_KEY has the key itself.
                  Made once, and kept where no build can read it: openssl genpkey -algorithm ed25519 -out FILE
  --content FILE  sign this file for BOARD instead, a memory card's image for example
  --out FILE      where to write that
  --dry-run       say what would be made, and make nothing

Programs accept a file if they know the public key. They have it built in if boards/update.pem was in the checkout that they
were built from (openssl pkey -in FILE -pubout), and else read it from /etc/pandaproxy/update.pem. To change the key: put both
into these files, and sign with the new one once all have both. A line `revoked FINGERPRINT` revokes a key; the fingerprint is
what this script prints. Binaries are signed only with a key that boards/update.pem has and does not revoke.
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

key='' dry='' content='' out='' words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --key | --content | --out)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        case $1 in
        --key) key=$(realpath "$2") ;;
        --content) content=$(realpath "$2") ;;
        *) out=$(realpath "$2") ;;
        esac
        shift
        ;;
    -*) misuse "the option $1 is unknown" ;;
    *) words+=("$1") ;;
    esac
    shift
done
[ "${#words[@]}" -gt 0 ] || misuse "the version is missing"
[ -z "$content$out" ] || { [ -n "$content" ] && [ -n "$out" ] && [ "${#words[@]}" = 2 ]; } ||
    misuse "--content and --out go together, with VERSION and one BOARD"
release=${words[0]}
boards=("${words[@]:1}")

cd "$(dirname "$0")/.."
[[ $release =~ ^[A-Za-z0-9.+~-]{1,64}$ ]] || die "$release is no version"
if [ "${#boards[@]}" = 0 ]; then
    shopt -s nullglob
    for tarball in "dist/release/pandaproxy-$release"-*.tar.gz; do
        board=${tarball#"dist/release/pandaproxy-$release-"}
        boards+=("${board%.tar.gz}")
    done
    for slot in "dist/release/pandaproxy-$release-card"-*.slot; do
        board=${slot#"dist/release/pandaproxy-$release-"}
        boards+=("${board%.slot}")
    done
    [ "${#boards[@]}" -gt 0 ] || die "there is no dist/release/pandaproxy-$release-BOARD.tar.gz: boards/release.sh $release"
fi
for board in "${boards[@]}"; do
    [[ $board =~ ^[a-z0-9_-]{1,32}$ ]] || die "'$board' is no name of a board"
    [ -z "$dry" ] || printf 'would make %s\n' "${out:-dist/release/pandaproxy-$release-$board.update}"
done
[ -z "$dry" ] || exit 0
need openssl openssl

# Everything is private until it is moved to its place; the key of the environment is in no argument.
umask 077
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
if [ -z "$key" ]; then
    [ -n "${UPDATE_SIGNING_KEY-}" ] || die "no key to sign with: --key FILE, or UPDATE_SIGNING_KEY"
    key=$parts/key.pem
    printf '%s\n' "$UPDATE_SIGNING_KEY" >"$key"
fi
openssl pkey -in "$key" -pubout -out "$parts/public.pem" 2>/dev/null || die "the key cannot be read: is it PEM?"
openssl pkey -in "$key" -noout -text 2>/dev/null | head -n 1 | grep -qi '^ed25519' || die "the key is not an Ed25519 key"
fingerprint=$(openssl pkey -pubin -in "$parts/public.pem" -pubout -outform DER | sha256sum | cut -d' ' -f1)
line=$(sed -n 2p "$parts/public.pem")
if [ -f boards/update.pem ]; then
    # As programs read it: without spaces around a line.
    sed 's/^[[:space:]]*//; s/[[:space:]]*$//' boards/update.pem >"$parts/keys"
    grep -qxF "$line" "$parts/keys" ||
        die "boards/update.pem does not have the public key of this one: programs built from here would refuse the files"
    if grep -qxE "revoked +$fingerprint" "$parts/keys"; then
        die "boards/update.pem revokes this key, $fingerprint: programs built from here would refuse the files"
    fi
elif [ -z "$content" ]; then
    die "there is no boards/update.pem, which has the public key: programs built from here would refuse the files"
fi

for board in "${boards[@]}"; do
    to=${out:-dist/release/pandaproxy-$release-$board.update}
    file=$content
    if [ -z "$file" ] && [[ $board = card-* ]]; then
        file=dist/release/pandaproxy-$release-$board.slot
    elif [ -z "$file" ]; then
        file=$parts/pandaproxy
        tar -xzOf "dist/release/pandaproxy-$release-$board.tar.gz" "pandaproxy-$release-$board/pandaproxy" >"$file"
    fi
    # A program calls itself by the tag without its v.
    printf 'pandaproxy-update 1\nboard %s\nversion %s\nsize %d\nsha256 %s\n' "$board" "${release#v}" \
        "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d' ' -f1)" >"$parts/header"
    openssl pkeyutl -sign -rawin -inkey "$key" -in "$parts/header" -out "$parts/signature"
    printf 'signature %s\n\n' "$(base64 -w 0 "$parts/signature")" >>"$parts/header"
    cat "$parts/header" "$file" >"$parts/update"
    install -m 644 "$parts/update" "$to.new"
    mv "$to.new" "$to"
    printf '%s\n' "$to"
done
printf 'signed by key %s\n' "$fingerprint"
