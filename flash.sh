#!/usr/bin/env bash
# One command from a checkout to a board that serves: find the binary or build it, copy it over ssh, install, start, wait.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./flash.sh [BOARD] [user@]HOST [--config FILE] [--from FILE|DIR | --build] [--printer NAME] [--repair] [--dry-run]
       ./flash.sh [BOARD] [user@]HOST [--printer NAME] --uninstall [--dry-run]
       ./flash.sh BOARD card DEVICE|FILE.img ...

Puts PandaProxy on a board that runs Linux and is reached by ssh, as a service that starts at boot:

    ./flash.sh pi@raspberrypi.local --config pandaproxy.conf

It asks the host which board it is, takes a binary or a package for it from dist/ or dist/release, or builds
one, copies it, installs it as root (by sudo for other users), waits until the services answer, and prints
what `pandaproxy check` finds and what to do next. If it is not ready within 30 s, the previous version is
restored. A second run changes nothing that is up to date.

  BOARD              a folder of boards/, if it is to be another than the one that is found
  --config FILE      the settings, boards/service/pandaproxy.conf with your printer in it; needed the
                     first time. It is copied and read, and never shown
  --from FILE|DIR    install this: a tarball or a Debian package of a release, a binary, or a folder with them
  --build            build it here, whatever dist/ has (needs Rust)
  --printer NAME     one of several printers on that host: its settings become /etc/pandaproxy/NAME.conf, and
                     have a BIND_ADDRESS of their own
  --repair           install every file again, and restart
  --uninstall        remove it from the host; settings and certificates stay
  --ssh-config FILE  for ssh and scp, in place of ~/.ssh/config
  --dry-run          check the host, print what would be done, and do nothing

Where both fit, a Debian package goes to a host with apt and systemd, unless a binary was installed there before.
With `card` in place of a host it writes a memory card that needs no operating system: ./flash.sh rpi-zero card --help
END
}

# shellcheck source=boards/board.sh
. "$(dirname "$0")/boards/board.sh"

# A command line that is not understood.
misuse() {
    printf 'flash.sh: %s; --help shows the options\n' "$*" >&2
    exit 2
}

say() {
    printf '%s\n' "$*"
}

# A memory card instead of a host: its own options, and its own help.
[ "${1:-}" != card ] || misuse "the board is missing: ./flash.sh BOARD card DEVICE|FILE.img"
if [ "${2:-}" = card ]; then
    exec "$(dirname "$0")/boards/card/write.sh" "$1" "${@:3}"
fi

board='' host='' config='' printer='' ssh_config='' from='' build='' repair='' uninstall='' dry='' words=()
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --config | --printer | --ssh-config | --from)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        case $1 in
        --config) config=$2 ;;
        --printer) printer=$2 ;;
        --from) from=$2 ;;
        *) ssh_config=$2 ;;
        esac
        shift
        ;;
    --build) build=1 ;;
    --repair) repair=1 ;;
    --uninstall) uninstall=1 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $1 is unknown" ;;
    *) words+=("$1") ;;
    esac
    shift
done
case ${#words[@]} in
0) misuse "the host is missing: ./flash.sh [user@]HOST" ;;
1) host=${words[0]} ;;
2) board=${words[0]} host=${words[1]} ;;
*) misuse "'${words[2]}' is one word too many: ./flash.sh [BOARD] [user@]HOST" ;;
esac
[ -z "$uninstall" ] || [ -z "$repair$config$from$build" ] || misuse "--uninstall goes with --printer and --dry-run only"
[ -z "$from" ] || [ -z "$build" ] || misuse "--from and --build exclude each other"
[ -z "$config" ] || [ -r "$config" ] || die "the settings in $config cannot be read"
[ -z "$from" ] || [ -r "$from" ] || die "$from cannot be read"
[ -z "$config" ] || config=$(realpath "$config")
[ -z "$from" ] || from=$(realpath "$from")
[ -z "$ssh_config" ] || ssh_config=$(realpath "$ssh_config")

cd "$(dirname "$0")"
[ -z "$board" ] || (read_board "$board") || exit 1
if [ -z "$board" ] && [ -f "boards/$host/board.env" ]; then
    misuse "$host is a board, and the host is missing: ./flash.sh $host [user@]HOST"
fi
[[ $printer =~ ^[a-z0-9_-]*$ && $printer != -* ]] || die "'$printer' is no name for a printer: small letters, digits, - and _"
[[ $host =~ ^[A-Za-z0-9_.:%@-]+$ && $host != -* ]] || die "'$host' is no [user@]HOST"

# One connection for all that follows, so that a password is asked for once.
ours=$(mktemp -d)
stage=''
options=(-o ConnectTimeout=10 -o ControlMaster=auto -o "ControlPath=$ours/%C" -o ControlPersist=60)
[ -z "$ssh_config" ] || options+=(-F "$ssh_config")
on_host() {
    # shellcheck disable=SC2029 # what it expands to here is what is meant
    ssh "${options[@]}" "$host" "$@"
}
leave() {
    if [ -n "$stage" ] && ! on_host "rm -rf $stage" 2>/dev/null; then
        printf 'flash.sh: %s with a copy of the settings could not be removed from %s\n' "$stage" "$host" >&2
    fi
    ssh "${options[@]}" -O exit "$host" 2>/dev/null || true
    rm -rf "$ours"
}
trap leave EXIT
trap 'exit 129' HUP INT TERM

# ---- what is there -----------------------------------------------------------------------------

say "asking $host what it is"
if ! on_host true 2>"$ours/why"; then
    die "$host cannot be reached by ssh: $(tail -n 1 "$ours/why" | tr -d '\r')"
fi
# What install.sh finds out there, before anything is built or copied.
on_host /bin/sh -s -- --facts <boards/service/install.sh >"$ours/facts" 2>"$ours/why" ||
    die "$host cannot be asked what it is: $(tail -n 1 "$ours/why" | tr -d '\r')"
fact() {
    sed -n "s/^$1=//p" "$ours/facts" | head -n 1 | tr -cd ' -~'
}
kernel=$(fact kernel) elf=$(fact elf) model=$(fact model) memory=$(fact memory) debian=$(fact debian)
[[ $kernel =~ ^[A-Za-z0-9_]+$ && $elf =~ ^[a-z0-9]+$ ]] || die "$host is no Linux system that can be asked what it is"
about="${model:-a machine without a model}, $kernel with a $(fact made_of) system"
[[ ! $memory =~ ^[0-9]+$ ]] || about+=", $((memory / 1024)) MiB of memory"
if [ -z "$uninstall" ]; then
    find_boards "$model" "$kernel" "$elf"
    if [ -z "$board" ]; then
        [ -n "$found" ] || die "there is no board for $host, which is $about; give one as BOARD: ${fitting[*]:-none fits}"
        board=$found
        say "  $about: $board"
    elif ! why=$(fits_board "$board" "$kernel" "$elf" 2>&1); then
        die "$board is not for $host: ${why#install.sh: }; boards for it: ${fitting[*]:-none}"
    elif [ "$board" != "$found" ]; then
        say "  note: $host is $about, whose board is ${found:-unknown}; $board runs there too, and is installed as you say"
    else
        say "  $about"
    fi
    limit=$(board_value "$board" SERVICE_MEMORY_MAX)
    if [[ $memory =~ ^[0-9]+$ && $((memory / 1024)) -lt $((${limit%M} * 3)) ]]; then
        say "  note: $board may take $limit of this host's $((memory / 1024)) MiB of memory"
    fi
fi
if [ "$(on_host id -u)" = 0 ]; then
    as_root=''
elif on_host sudo -n true 2>/dev/null; then
    as_root='sudo -n '
elif on_host doas -n true 2>/dev/null; then
    as_root='doas -n '
elif [ -t 0 ] && on_host command -v sudo >/dev/null; then
    # It asks for a password, on this terminal.
    as_root='sudo '
else
    die "the user on $host is not root and cannot use sudo: give root@HOST, or allow sudo"
fi

# ---- what goes there ---------------------------------------------------------------------------

# Sets `package` to the newest Debian package for the host in a folder, `tarball` to the newest tarball for the board, and
# `binary` to the board's binary. With a version, only to those of it.
look_into() {
    local folder=$1 of=${2:-}
    package='' tarball='' binary=''
    for folder in "$1" "$1/release"; do
        [ -z "$debian" ] || package=$(newest "$folder/pandaproxy_${of:-*}_$debian.deb" "$package")
        tarball=$(newest "$folder/pandaproxy-${of:-*}-$board.tar.gz" "$tarball")
        [ -z "$of" ] || tarball=$(newest "$folder/pandaproxy-v$of-$board.tar.gz" "$tarball")
    done
    [ ! -f "$1/pandaproxy-$board" ] || binary=$1/pandaproxy-$board
}

# The last of the files of a pattern in the order of their versions, or $2.
newest() {
    local last
    # shellcheck disable=SC2086 # a pattern
    last=$(compgen -G "$1" | sort -V | tail -n 1) || true
    echo "${last:-$2}"
}

is_older_than_source() {
    [ -n "$(find src boards/build.rs boards/build.sh "boards/$board" Cargo.toml Cargo.lock -newer "$1" -print -quit)" ]
}

# How old a file is, in words.
age() {
    local seconds
    seconds=$(($(date +%s) - $(date -r "$1" +%s)))
    if [ $seconds -lt 7200 ]; then echo "$((seconds / 60)) minutes old"
    elif [ $seconds -lt 172800 ]; then echo "$((seconds / 3600)) hours old"
    else echo "$((seconds / 86400)) days old"; fi
}

# Whether the host takes packages: not where a binary was installed by hand.
takes_package() {
    [ -n "$debian" ] && { [ -z "$(fact by_hand)" ] || [ -n "$(fact package)" ]; }
}

# What goes there; sets `taken`.
choose() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    if [ -f "$from" ]; then
        taken=$from
        say "taking $from, $(age "$from")"
        return
    elif [ -n "$from" ]; then
        look_into "$from"
        taken=$tarball
        [ -n "$taken" ] || taken=$binary
        if [ -n "$package" ] && takes_package; then taken=$package; fi
        [ -n "$taken" ] || die "$from has nothing for $board: pandaproxy-VERSION-$board.tar.gz, a package for ${debian:-apt}, or pandaproxy-$board"
        say "taking $taken, $(age "$taken")"
        return
    fi
    taken=dist/pandaproxy-$board
    if [ -z "$build" ]; then
        look_into dist "$version"
        local released=$tarball
        if [ -n "$package" ] && takes_package; then released=$package; fi
        if [ -n "$binary" ] && ! is_older_than_source "$binary"; then
            say "taking $binary, version $version, $(age "$binary"): newer than its source"
            return
        elif [ -n "$released" ] && ! is_older_than_source "$released"; then
            taken=$released
            say "taking $taken, version $version, $(age "$taken")"
            return
        elif ! command -v cargo >/dev/null; then
            taken=${released:-$binary}
            [ -n "$taken" ] || die "nothing for $board is in dist/ or dist/release, and there is no Rust to build it: \
download pandaproxy-VERSION-$board.tar.gz from the releases and give it with --from, or install Rust"
            say "taking $taken, version $version, $(age "$taken"): older than the source here, and there is no Rust to build it"
            return
        fi
    fi
    if [ -n "$dry" ]; then say "would build $taken"; else
        say "building $taken"
        boards/build.sh "$board"
    fi
}

umask 077
mkdir "$ours/pandaproxy"
service=(boards/service/{install.sh,pandaproxy.service,pandaproxy@.service,pandaproxy.openrc,pandaproxy.init})
if [ -n "$uninstall" ]; then
    cp boards/service/install.sh "$ours/pandaproxy/"
else
    choose
    case $taken in
    *.tar.gz)
        mkdir "$ours/unpacked"
        tar -xzf "$taken" -C "$ours/unpacked" || die "$taken cannot be unpacked"
        unpacked=("$ours"/unpacked/*/install.sh)
        [ -f "${unpacked[0]}" ] || die "$taken is no release of PandaProxy: it has no install.sh"
        # All of it is of one version.
        rmdir "$ours/pandaproxy"
        mv "$(dirname "${unpacked[0]}")" "$ours/pandaproxy"
        cat "$ours/pandaproxy/board.env" "$ours/pandaproxy/install.sh" | /bin/sh -s -- --fits "$kernel" "$elf" \
            >/dev/null 2>"$ours/why" || die "$taken is not for $host: $(sed -n 's/^install\.sh: //p' "$ours/why")"
        ;;
    *.deb)
        [ -n "$debian" ] || die "$taken is a Debian package, and $host has no apt and systemd: give a tarball"
        [[ $taken == *_"$debian".deb ]] || die "$taken is not for $host, whose packages are for $debian"
        cp "boards/$board/board.env" "${service[@]}" "$ours/pandaproxy/"
        cp "$taken" "$ours/pandaproxy/pandaproxy.deb"
        ;;
    *)
        cp "boards/$board/board.env" "${service[@]}" "$ours/pandaproxy/"
        if [ -f "$taken" ]; then cp "$taken" "$ours/pandaproxy/pandaproxy"; else : >"$ours/pandaproxy/pandaproxy"; fi
        ;;
    esac
    # A dry run copies no settings and no key.
    [ -z "$config" ] || : >"$ours/pandaproxy/given.conf"
    if [ -z "$dry" ]; then
        [ -z "$config" ] || cp "$config" "$ours/pandaproxy/given.conf"
        # An RSA key takes a Pi Zero minutes, and this machine no time. The host's own stays if it has one.
        if command -v openssl >/dev/null; then
            openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$ours/pandaproxy/rsa.key" \
                2>/dev/null || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 \
                -out "$ours/pandaproxy/rsa.key" 2>/dev/null || rm -f "$ours/pandaproxy/rsa.key"
        fi
    fi
fi

say "copying to $host"
if ! stage=$(on_host 'umask 077 && mktemp -d' 2>"$ours/why") || [[ ! $stage =~ ^/[A-Za-z0-9/._-]+$ ]]; then
    stage=''
    die "$host has no place for files to install from: $(tail -n 1 "$ours/why" | tr -d '\r')"
fi
# -O is for hosts without an SFTP server, such as those with dropbear.
# scp wants an IPv6 address in brackets.
case $host in
*:*:*) to=${host%"${host##*@}"}[${host##*@}]:$stage/ ;;
*) to=$host:$stage/ ;;
esac
if ! scp "${options[@]}" -q -r "$ours/pandaproxy" "$to" 2>"$ours/why" &&
    ! scp -O "${options[@]}" -q -r "$ours/pandaproxy" "$to" 2>>"$ours/why"; then
    die "copying to $host failed: $(tail -n 1 "$ours/why" | tr -d '\r')"
fi

# ---- there -------------------------------------------------------------------------------------

at=$(ssh "${options[@]}" -G "$host" | sed -n 's/^hostname //p')
for_host=(--from "$host" "$at")
[ -z "$repair" ] || for_host+=(--repair)
[ -z "$uninstall" ] || for_host+=(--uninstall)
[ -z "$config" ] || for_host+=(--config "$stage/pandaproxy/given.conf")
[ -z "$printer" ] || for_host+=(--printer "$printer")
[ -z "$dry" ] || for_host+=(--dry-run)
if [ -n "$uninstall" ]; then say "removing"; else say "installing"; fi
command="${as_root}/bin/sh $stage/pandaproxy/install.sh ${for_host[*]}"
if [ "$as_root" = 'sudo ' ]; then
    # A terminal there has one output, with the question for the password in it: all of it is shown as it comes.
    # shellcheck disable=SC2029 # what it expands to here is what is meant
    if ! ssh "${options[@]}" -t "$host" "$command" 2>"$ours/why" | tee "$ours/said"; then
        tr -d '\r' <"$ours/said" | sed -n 's/^install\.sh: //p' >>"$ours/why"
        die "$host: $(tail -n 1 "$ours/why" | tr -d '\r')"
    fi
elif on_host "$command" >"$ours/said" 2>"$ours/why"; then
    cat "$ours/said"
else
    cat "$ours/said"
    sed '$d' "$ours/why" >&2
    die "$host: $(sed 's/^install\.sh: //' "$ours/why" | tail -n 1 | tr -d '\r')"
fi
