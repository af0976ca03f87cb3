#!/usr/bin/env bash
# An apt repository of the packages in dist/release, in dist/apt: of the same packages the same bytes, but for signatures.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/apt.sh [--key ID|-] [--dry-run]

Makes dist/apt of dist/release/*.deb (boards/package.sh makes those): pool/, and dists/stable/ with Packages, Release and, with
a key, InRelease and Release.gpg and the public key in pandaproxy.gpg. Any web server can serve the folder. On a machine that
installs from it:

    sudo install -d -m 755 /etc/apt/keyrings
    curl -fsSL URL/pandaproxy.gpg | sudo tee /etc/apt/keyrings/pandaproxy.gpg >/dev/null
    echo "deb [signed-by=/etc/apt/keyrings/pandaproxy.gpg] URL stable main" | sudo tee /etc/apt/sources.list.d/pandaproxy.list
    sudo apt update && sudo apt install pandaproxy

  --key ID    sign with this key of gpg's key ring; without it apt refuses the repository
  --key -     sign with the secret key that is read from the standard input, which no other program sees
  --dry-run   say what would be made, and make nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

key='' dry=''
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --key)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        key=$2
        shift
        ;;
    -*) misuse "the option $1 is unknown" ;;
    *) misuse "'$1' is one word too many" ;;
    esac
    shift
done

cd "$(dirname "$0")/.."
shopt -s nullglob
packages=(dist/release/*.deb)
[ "${#packages[@]}" -gt 0 ] || die "there are no packages in dist/release: boards/package.sh VERSION"
if [ -n "$dry" ]; then
    printf 'would make dist/apt of %s\n' "${packages[*]}"
    exit 0
fi
need apt-ftparchive apt-utils
signed=''
if [ -n "$key" ]; then
    need gpg gnupg
    signed=", signed by $key"
fi
if [ "$key" = - ]; then
    GNUPGHOME=$(mktemp -d)
    export GNUPGHOME
    trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
    gpg --batch --quiet --import
    key=$(gpg --batch --with-colons --list-secret-keys | awk -F: '$1 == "fpr" { print $10; exit }')
    [ -n "$key" ] || die "what was read is not a secret key"
    signed=", signed by $key"
fi

rm -rf dist/apt
mkdir -p dist/apt/pool/main
cp -p "${packages[@]}" dist/apt/pool/main/
cd dist/apt
for arch in amd64 arm64 armhf; do
    folder=dists/stable/main/binary-$arch
    mkdir -p "$folder"
    apt-ftparchive --arch "$arch" packages pool >"$folder/Packages"
    gzip -9nk "$folder/Packages"
done
# The date of the newest package, so that the same packages give the same file.
newest=$(stat -c %Y pool/main/*.deb | sort -n | tail -n 1)
apt-ftparchive -o APT::FTPArchive::Release::Origin=PandaProxy -o APT::FTPArchive::Release::Label=PandaProxy \
    -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
    -o APT::FTPArchive::Release::Components=main -o 'APT::FTPArchive::Release::Architectures=amd64 arm64 armhf' \
    release dists/stable |
    sed "s/^Date: .*/Date: $(LC_ALL=C date --utc --rfc-email --date="@$newest" | sed 's/+0000/UTC/')/" >Release.new
mv Release.new dists/stable/Release
if [ -n "$key" ]; then
    gpg --batch --yes --local-user "$key" --clearsign --output dists/stable/InRelease dists/stable/Release
    gpg --batch --yes --local-user "$key" --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
    gpg --batch --yes --export "$key" >pandaproxy.gpg
fi
printf 'dist/apt: %d packages%s\n' "${#packages[@]}" "$signed"
