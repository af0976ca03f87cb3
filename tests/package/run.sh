#!/usr/bin/env bash
# The Debian package under a real systemd: a booted machine in QEMU installs, starts, upgrades and purges it.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/package/run.sh [--whole] [--here] [--help]

Makes packages of dist/pandaproxy-generic-x86_64 (boards/build.sh makes it), looks at them with lintian,
makes one of them twice and compares the bytes, and boots Debian with systemd in QEMU, where they are
installed, started before simulated printers, upgraded, removed and purged. Prints a line a test, and
`N passed, N failed`. Needs root: it installs what it needs.

  --whole   also a hung service, two printers, a full disk, no network, settings that an upgrade changes as
            well, a package for another processor, upgrades that dpkg gives up or that are interrupted, what
            `pandaproxy check` says to wrong settings, an installation by install.sh, and a restart of the machine
  --here    with systemd in namespaces of this machine and its kernel, in place of QEMU
END
}

whole='' here=''
for word in "$@"; do
    case $word in
    --help) usage; exit 0 ;;
    --whole) whole=whole ;;
    --here) here=1 ;;
    *) echo "run.sh: '$word' is unknown; --help shows the options" >&2; exit 2 ;;
    esac
done

cd "$(dirname "$0")/../.."
# shellcheck source=/dev/null
. boards/board.sh
binary=dist/pandaproxy-generic-x86_64
[ -f "$binary" ] || die "there is no $binary: boards/build.sh generic-x86_64"
need lintian lintian
# An idle machine needs some 20 minutes for all of it, emulated.
[ -z "$whole" ] || MACHINE_TIMEOUT=${MACHINE_TIMEOUT:-3600}
# shellcheck source=tests/package/machine.sh
. tests/package/machine.sh
: >"$results"

# ---- the packages ------------------------------------------------------------------------------

boards/package.sh 1.0.0 amd64
package=dist/release/pandaproxy_1.0.0_amd64.deb
mv "$package" "$work/first.deb"
boards/package.sh 1.0.0 amd64
check "two builds give the same bytes" cmp "$work/first.deb" "$package"
check "lintian finds no fault" lintian --fail-on error,warning --suppress-tags-from-file tests/package/lintian.txt "$package"

# Each crate that is linked into the program, with its licence's text.
has_licences() {
    local crate
    dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/doc/pandaproxy/licences.txt.gz | gzip -d >"$work/licences.txt"
    cargo tree --locked --quiet --edges normal,no-proc-macro --target x86_64-unknown-linux-musl --prefix none \
        --format '{p}' | sed 's/ (.*//; s/ v/ /; /^pandaproxy /d' | sort -u >"$work/crates.txt"
    [ "$(wc -l <"$work/crates.txt")" -gt 50 ] || return 1
    while read -r crate; do
        grep -qx "$crate" "$work/licences.txt" || { printf 'no licence of %s\n' "$crate"; return 1; }
    done <"$work/crates.txt"
    grep -q 'Copyright 2015-2025 Brian Smith' "$work/licences.txt"
}
check "the licences of all crates are in it" has_licences

# later VERSION [COMMAND]: this package as another version, which a command in its files has changed. What dpkg unpacks is
# not compressed: an emulated processor takes its time over it.
later() {
    local files=$work/later name=$work/pandaproxy_$1_amd64.deb
    rm -rf "$files"
    dpkg-deb -R "$package" "$files"
    sed -i "s/^Version: .*/Version: $1/" "$files/DEBIAN/control"
    (cd "$files" && eval "${2:-:}")
    dpkg-deb --root-owner-group -Znone -b "$files" "$name" >/dev/null
}
ends_at_once="printf '#!/bin/sh\nexit 1\n' >usr/bin/pandaproxy"
rm -f "$work"/pandaproxy_*.deb
later 1.1.0
later 1.1.1
later 1.2.0 "$ends_at_once"
# One with another example of the settings.
later 1.3.0 'echo "# A line of the new version." >>etc/pandaproxy/pandaproxy.conf'
if [ -n "$whole" ]; then
    later 1.4.0
    later 1.4.1
    # One for another processor.
    later 1.5.0 'sed -i "s/^Architecture: .*/Architecture: arm64/" DEBIAN/control'
    # Those that dpkg gives up: before it unpacks, while it does, and before that.
    later 1.6.0 'echo "exit 1" >>DEBIAN/preinst'
    later 1.6.1
    truncate -s 2M "$work/pandaproxy_1.6.1_amd64.deb"
    later 1.6.2 'printf "#!/bin/sh\nexit 1\n" >DEBIAN/prerm'
    # shellcheck disable=SC2016 # it expands in the package
    # One that gets ready, and looks for its printer at a wrong address.
    later 1.6.3 'mv usr/bin/pandaproxy usr/bin/pandaproxy.real
        printf "#!/bin/sh\n%s\n" "case \$1 in --config) set -- \"\$@\" --printer-ip 10.9.0.9 ;; esac" \
            "exec /usr/bin/pandaproxy.real \"\$@\"" >usr/bin/pandaproxy
        chmod 755 usr/bin/pandaproxy'
    # shellcheck disable=SC2016
    # One that does not start, and fills the disk.
    later 1.6.4 "$ends_at_once"'
        sed -i "s/^set -e\$/&\n[ \$1 != configure ] || dd if=\/dev\/zero of=\/fill bs=1M 2>\/dev\/null || true/" DEBIAN/postinst'
    # shellcheck disable=SC2016
    # One whose configuration is interrupted, as by a power failure; and the next one.
    later 1.7.0 "$ends_at_once"'
        sed -i "s/^set -e\$/[ -e \/proof\/interrupted ] || { touch \/proof\/interrupted; kill -9 \$PPID \$\$; }\n&/" DEBIAN/postinst'
    later 1.7.1 "$ends_at_once"
fi

debian root "$systemd_packages"

# ---- the repository ----------------------------------------------------------------------------

# In a copy of the system, as boards/apt.sh says: with a key that was made for it, and with another one.
need gpgconf gnupg
copy=$work/copy keys=$work/keys
rm -rf "$copy" "$keys"
cp -a --reflink=auto "$work/root" "$copy"
mkdir -m 700 "$keys"
export GNUPGHOME=$PWD/$keys
for name in publisher stranger; do gpg --batch --quiet --passphrase '' --quick-gen-key "$name" ed25519 sign never 2>/dev/null; done
gpg --batch --export stranger >"$copy/etc/apt/keyrings/stranger.gpg"
inside() { chroot "$copy" env DEBIAN_FRONTEND=noninteractive "$@"; }
# repository [OPTION...]: as it was made just now; trust KEY: asks it for its lists, and has none of before.
repository() {
    boards/apt.sh "$@" >/dev/null
    rm -rf "$copy/srv/apt"
    cp -r dist/apt "$copy/srv/apt"
}
trust() {
    echo "deb [signed-by=/etc/apt/keyrings/$1.gpg] file:///srv/apt stable main" >"$copy/etc/apt/sources.list"
    rm -rf "$copy/var/lib/apt/lists"
    inside apt-get update
}
gpg --batch --quiet --export-secret-keys publisher >"$work/publisher.key"
repository --key - <"$work/publisher.key"
rm "$work/publisher.key"
cp dist/apt/pandaproxy.gpg "$copy/etc/apt/keyrings/publisher.gpg"
check "apt takes a repository that its publisher signed" trust publisher
check "and installs the package of it" inside apt-get install -y pandaproxy=1.0.0
check "which runs" inside pandaproxy --version
printf 'x' >>"$copy/srv/apt/pool/main/$(basename "$package")"
check "a package that was changed is refused" refused inside apt-get install -y --reinstall pandaproxy=1.0.0
check "for its size" grep -qi 'unexpected size\|hash sum mismatch' "$work/said.txt"
check "a repository of another key is refused" refused trust stranger
check "for its signature" grep -q 'NO_PUBKEY' "$work/said.txt"
sed -i 's/^Description: .*/Description: something else/' "$copy"/srv/apt/dists/stable/main/binary-amd64/Packages
gzip -9nkf "$copy"/srv/apt/dists/stable/main/binary-amd64/Packages
check "and one with a changed list" refused trust publisher
sed -i 's/^Label: .*/Label: something else/' "$copy"/srv/apt/dists/stable/{InRelease,Release}
check "and one that was changed after the signature" refused trust publisher
check "for its signature" grep -q 'BADSIG' "$work/said.txt"
repository
check "and one without a signature" refused trust publisher
gpgconf --kill all
unset GNUPGHOME
rm -rf "$copy" "$keys"

# ---- the machine -------------------------------------------------------------------------------

proof root
root=$work/root
if [ -n "$whole" ]; then
    # What install.sh makes a service, in place of the package.
    boards/release.sh test generic-x86_64 >/dev/null
    tar -xzf dist/release/pandaproxy-test-generic-x86_64.tar.gz -C "$root/proof"
    mv "$root/proof/pandaproxy-test-generic-x86_64" "$root/proof/tarball"
fi
cp "$package" "$work"/pandaproxy_1.*_amd64.deb "$root/proof/"
install -m 755 tests/package/guest.sh "$root/proof/guest.sh"
install -m 644 README.md tests/readme.sh "$root/proof/"
# What flash.sh copies to a host that takes packages.
mkdir "$root/proof/flash"
install -m 755 boards/service/install.sh "$root/proof/flash/"
install -m 644 boards/generic-x86_64/board.env "$root/proof/flash/"
cp dist/release/pandaproxy_1.0.0_amd64.deb "$root/proof/flash/pandaproxy.deb"
echo "first $whole" >"$root/proof/part"
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
machine root
summary
