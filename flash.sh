#!/usr/bin/env bash
# One command from a checkout to a board that serves: build, copy over ssh, install, start, wait.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./flash.sh BOARD [user@]HOST [--printer NAME] [--config FILE] [--repair] [--dry-run]
       ./flash.sh BOARD [user@]HOST [--printer NAME] --uninstall [--dry-run]
       ./flash.sh BOARD card DEVICE|FILE.img ...

Puts PandaProxy on a board that runs Linux and is reached by ssh, as a service that starts at boot:

    ./flash.sh rpi-zero-2w pi@raspberrypi.local --config pandaproxy.conf

It checks that the board's binary is for this host, builds the binary unless dist/ has it, copies it,
installs it as root (by sudo for other users), waits until the services answer, and prints where
they are. If it is not ready within 30 s, the previous version is restored. A second run changes
nothing that is up to date.

  BOARD              a folder of boards/
  --config FILE      the settings, boards/service/pandaproxy.conf with your printer in it; needed the
                     first time. It is copied and read, and never shown
  --printer NAME     one of several printers on that host: its settings become /etc/pandaproxy/NAME.conf, and
                     have a BIND_ADDRESS of their own
  --repair           install every file again, and restart
  --uninstall        remove it from the host; settings and certificates stay
  --ssh-config FILE  for ssh and scp, in place of ~/.ssh/config
  --dry-run          check the host, print what would be done, and do nothing

With `card` in place of a host it writes a memory card that needs no operating system: ./flash.sh rpi-zero card --help
END
}

die() {
    printf 'flash.sh: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '%s\n' "$*"
}

# A memory card instead of a host: its own options, and its own help.
if [ "${2:-}" = card ]; then
    exec "$(dirname "$0")/boards/card/write.sh" "$1" "${@:3}"
fi

board='' host='' config='' printer='' ssh_config='' dry='' for_host=()
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --config | --printer | --ssh-config)
        [ $# -gt 1 ] || { usage >&2; exit 2; }
        case $1 in
        --config) config=$2 ;;
        --printer) printer=$2 ;;
        *) ssh_config=$2 ;;
        esac
        shift
        ;;
    --repair | --uninstall) for_host+=("$1") ;;
    --dry-run) dry=1 ;;
    -*) usage >&2; exit 2 ;;
    *)
        if [ -z "$board" ]; then board=$1; elif [ -z "$host" ]; then host=$1; else
            usage >&2
            exit 2
        fi
        ;;
    esac
    shift
done
[ -n "$host" ] || { usage >&2; exit 2; }
[ "${#for_host[@]}" -le 1 ] || { usage >&2; exit 2; }
uninstall=''
[ "${for_host[*]-}" != --uninstall ] || uninstall=1
[ -z "$config" ] || [ -z "$uninstall" ] || { usage >&2; exit 2; }
[ -z "$config" ] || [ -r "$config" ] || die "the settings in $config cannot be read"
[ -z "$config" ] || config=$(realpath "$config")
[ -z "$ssh_config" ] || ssh_config=$(realpath "$ssh_config")

cd "$(dirname "$0")"
if [[ ! $board =~ ^[a-z0-9_-]+$ || ! -f boards/$board/board.env ]]; then
    known=(boards/*/board.env)
    known=("${known[@]#boards/}")
    die "there is no board '$board'; known: ${known[*]%/board.env}"
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
if [ -z "$uninstall" ]; then
    # install.sh itself, and what it has to know, before anything is built or copied.
    if ! cat "boards/$board/board.env" boards/service/install.sh |
        on_host /bin/sh -s -- --check 2>"$ours/why"; then
        fitting=()
        for other in boards/*/board.env; do
            other=$(basename "$(dirname "$other")")
            [ "$other" != host ] || continue
            if cat "boards/$other/board.env" boards/service/install.sh |
                on_host /bin/sh -s -- --check >/dev/null 2>&1; then
                fitting+=("$other")
            fi
        done
        why=$(sed -n 's/^install\.sh: //p' "$ours/why")
        die "$board is not for $host: ${why:-it cannot be asked}; boards for it: ${fitting[*]:-none}"
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

binary=dist/pandaproxy-$board
if [ -z "$uninstall" ]; then
    if [ ! -f "$binary" ] ||
        [ -n "$(find src boards/build.rs boards/build.sh "boards/$board" Cargo.toml Cargo.lock \
            -newer "$binary" -print -quit)" ]; then
        if [ -n "$dry" ]; then say "would build $binary"; else boards/build.sh "$board"; fi
    else
        say "$binary is newer than its source: taken as it is"
    fi
fi

umask 077
mkdir "$ours/pandaproxy"
cp "boards/$board/board.env" boards/service/{install.sh,pandaproxy.service,pandaproxy@.service,pandaproxy.openrc,pandaproxy.init} \
    "$ours/pandaproxy/"
[ -z "$config" ] || : >"$ours/pandaproxy/given.conf"
if [ -z "$uninstall$dry" ]; then
    [ -z "$config" ] || cp "$config" "$ours/pandaproxy/given.conf"
    cp "$binary" "$ours/pandaproxy/pandaproxy"
    # An RSA key takes a Pi Zero minutes, and this machine no time. The host's own stays if it has one.
    if command -v openssl >/dev/null; then
        openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$ours/pandaproxy/rsa.key" \
            2>/dev/null || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 \
            -out "$ours/pandaproxy/rsa.key" 2>/dev/null || rm -f "$ours/pandaproxy/rsa.key"
    fi
elif [ -n "$dry" ]; then
    : >"$ours/pandaproxy/pandaproxy"
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
[ -z "$uninstall$dry" ] || exit 0

at=$(ssh "${options[@]}" -G "$host" | sed -n 's/^hostname //p')
say "$host serves:"
sed -n 's/^ *healthy: //p' "$ours/said" | tr -d '\r' | tr ',' '\n' |
    sed -n "s/^ *\([a-z]*\) on \([0-9]*\)\$/  \1 at $at:\2/p"
say "for clients that check certificates: ssh $host ${as_root}pandaproxy ca"
