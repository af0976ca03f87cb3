#!/bin/sh
# Puts PandaProxy on the machine this runs on, from the folder this lies in: flash.sh copies that
# folder there, a release is that folder. Needs nothing but a POSIX shell and the usual tools, BusyBox's
# will do.
set -eu

usage() {
    cat <<'END'
usage: install.sh [--printer NAME] [--config FILE] [--repair] [--dry-run]
       install.sh [--printer NAME] --uninstall [--dry-run]
       install.sh --check

Installs the binary beside this script as a service of systemd, OpenRC, or the enclosed init script;
starts it, waits until its ports answer, and prints what `pandaproxy check` finds and what to do next.
The previous version is kept, and restored if the new one is not ready within 30 s. Files that are up
to date are not touched. Where pandaproxy.deb lies beside this script, apt installs that instead.

  --config FILE  install these settings; without it /etc/pandaproxy/pandaproxy.conf stays
  --printer NAME the service of one of several printers: its settings are /etc/pandaproxy/NAME.conf, with
                 a BIND_ADDRESS of its own; the service is pandaproxy@NAME (systemd), pandaproxy.NAME
                 (OpenRC) or pandaproxy-NAME (init script)
  --repair       install every file again, and restart
  --uninstall    remove the service; settings and certificates stay
  --check        only check that the binary is for this machine
  --dry-run      print what would be done, and do nothing

flash.sh uses as well: --facts prints what this machine is; --fits KERNEL ELF, whether the binary is
for another one; --from DESTINATION NAME is how this machine is reached, for what is printed at the end.
Each start of the service uses --undo: after a run that was interrupted, the version from before it returns.
END
}

readonly ETC=/etc/pandaproxy
readonly STATE=/var/lib/pandaproxy
readonly KEPT=/usr/local/lib/pandaproxy
# Of OpenRC, for all printers.
readonly RC_CONF=/etc/conf.d/pandaproxy
# The service's user.
readonly NAME=pandaproxy
# Seconds until it has to be ready; and at a first start that has to make an RSA key, on a slow board.
readonly READY_WITHIN=30 KEYS_WITHIN=900
# Seconds that a check may take.
readonly CHECK_WITHIN=60
# Seconds that the service has to dial the printer before the check.
readonly DIALS_WITHIN=10

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# A command line that is not understood.
misuse() {
    printf 'install.sh: %s; --help shows the options\n' "$*" >&2
    exit 2
}

say() {
    printf '  %s\n' "$*"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

here=$(dirname "$0")
config='' printer='' repair='' uninstall='' check='' facts='' undo='' dry='' kernel='' system='' over='' reached_as=''
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --config)
        [ $# -gt 1 ] || misuse "--config needs a FILE"
        config=$2
        shift
        ;;
    --printer)
        [ $# -gt 1 ] || misuse "--printer needs a NAME"
        printer=$2
        shift
        ;;
    --repair) repair=1 ;;
    --uninstall) uninstall=1 ;;
    --check) check=1 ;;
    --facts) facts=1 ;;
    --undo) undo=1 ;;
    --fits)
        [ $# -gt 2 ] || misuse "--fits needs a KERNEL and an ELF class"
        kernel=$2 system=$3 check=1
        shift 2
        ;;
    --from)
        [ $# -gt 2 ] || misuse "--from needs a DESTINATION and a NAME"
        over=$2 reached_as=$3
        shift 2
        ;;
    --dry-run) dry=1 ;;
    *) misuse "'$1' is unknown" ;;
    esac
    shift
done
[ -z "$uninstall" ] || [ -z "$repair$config" ] || misuse "--uninstall goes with neither --config nor --repair"

# A Debian package, or a binary.
BIN=/usr/local/bin/pandaproxy
packaged=''
if [ -f "$here/pandaproxy.deb" ]; then packaged=1; fi
has_package() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' pandaproxy 2>/dev/null)" = installed ]
}
[ -z "$packaged" ] || BIN=/usr/bin/pandaproxy
readonly BIN packaged

# The init system of this machine.
init=script
if [ -d /run/systemd/system ] && has systemctl; then
    init=systemd
elif [ -x /sbin/openrc-run ]; then
    init=openrc
fi

# What differs for one of several printers: its service, its settings, and where its own certificates are.
if [ -n "$printer" ]; then
    case $printer in
    *[!a-z0-9_-]* | -* | pandaproxy) die "'$printer' is no name for a printer: small letters, digits, - and _" ;;
    esac
    case $init in
    systemd) SERVICE=$NAME@$printer ;;
    # OpenRC reads conf.d/pandaproxy for pandaproxy.NAME as well.
    openrc) SERVICE=$NAME.$printer ;;
    # A file of init.d that ends in .old or .sh is not a script for every init.
    script) SERVICE=$NAME-$printer ;;
    esac
    TEMPLATE=$NAME@.service CONF=$ETC/$printer.conf OWN=$STATE/$printer
else
    SERVICE=$NAME TEMPLATE=$NAME.service CONF=$ETC/pandaproxy.conf OWN=$STATE
fi
readonly SERVICE TEMPLATE CONF OWN
readonly INIT="/etc/init.d/$SERVICE" RUN="/run/$SERVICE"
readonly UNIT=/etc/systemd/system/$TEMPLATE
readonly BOARD_CONF=$UNIT.d/board.conf

# ---- what this machine is ----------------------------------------------------------------------

# Class and machine of an ELF file, as its header has them: 02b700 is 64 bits, AArch64.
elf() {
    bytes=$(head -c 20 "$1" | od -An -v -tx1 | tr -d ' \n')
    case $bytes in
    7f454c46*) printf '%s' "$bytes" | cut -c9-10,37-40 ;;
    *) echo none ;;
    esac
}

# Sets the kernel's name for the processor, unless it is given, and what the system is made of.
look() {
    [ -n "$kernel" ] || kernel=$(uname -m) system=$(elf "$(readlink -f /bin/sh)")
    case $system in
    012800) made_of="32-bit ARM" ;;
    02b700) made_of="64-bit ARM" ;;
    010300) made_of="32-bit x86" ;;
    023e00) made_of="64-bit x86" ;;
    *) made_of="unknown ($system)" ;;
    esac
}

# Refuses a machine that the binary is not for. The kernel says what the processor is; the shell,
# what the system is made of: 32-bit systems under a 64-bit kernel are common on Raspberry Pis, and
# their systemd lets no 64-bit service make a system call (SystemCallArchitectures=native).
check_machine() {
    case $TARGET in
    arm*) wanted=012800 ;;
    aarch64-*) wanted=02b700 ;;
    x86_64-*) wanted=023e00 ;;
    *) die "there is no telling which machines $TARGET is for" ;;
    esac
    look
    fits=''
    for word in $UNAME_M; do
        [ "$word" != "$kernel" ] || fits=1
    done
    # A 64-bit kernel with a 32-bit system shows that it runs 32-bit programs.
    [ "$kernel/$wanted/$system" != aarch64/012800/012800 ] || fits=1
    [ "$system" = "$wanted" ] || fits=''
    [ -n "$fits" ] ||
        die "wrong architecture: the binary is for $TARGET ($UNAME_M), and this is $kernel with a $made_of system"
}

# A line of text that something else wrote, without what a terminal would obey.
first_line() {
    tr -d '\000' <"$1" 2>/dev/null | head -n 1 | tr -cd ' -~' | cut -c1-80
}

# What this machine is, a line for each fact that is known.
print_facts() {
    look
    echo "kernel=$kernel"
    echo "elf=$system"
    echo "made_of=$made_of"
    for file in /proc/device-tree/model /sys/firmware/devicetree/base/model /sys/class/dmi/id/product_name; do
        if [ -r "$file" ]; then
            echo "model=$(first_line "$file")"
            break
        fi
    done
    sed -n 's/^MemTotal: *\([0-9]*\) kB$/memory=\1/p' /proc/meminfo
    echo "init=$init"
    if has apt-get && has dpkg && [ $init = systemd ]; then echo "debian=$(dpkg --print-architecture)"; fi
    if has_package; then echo "package=$(dpkg-query -W -f '${Version}' pandaproxy)"; fi
    if [ -e /usr/local/bin/pandaproxy ]; then echo "by_hand=1"; fi
}

# ---- the service -------------------------------------------------------------------------------

service() {
    case $init/$1 in
    systemd/start) timeout "$2" systemctl restart "$SERVICE" ;;
    systemd/stop) systemctl stop "$SERVICE" ;;
    openrc/start) rc-service "$SERVICE" restart ;;
    openrc/stop) rc-service "$SERVICE" stop ;;
    script/start) "$INIT" restart ;;
    script/stop) "$INIT" stop ;;
    esac >/dev/null 2>&1
}

# Whether it has been given up: then there is nothing to wait for.
given_up() {
    case $init in
    systemd) systemctl is-failed --quiet "$SERVICE" ;;
    # The supervisor that gives up leaves a service that is stopped.
    openrc) rc-service "$SERVICE" status 2>/dev/null | grep -qE 'crashed|stopped' ;;
    script) ! "$INIT" status >/dev/null 2>&1 ;;
    esac
}

enable_service() {
    case $init in
    systemd)
        systemctl daemon-reload
        systemctl --quiet enable "$SERVICE"
        ;;
    openrc) rc-update --quiet add "$SERVICE" default ;;
    script)
        if has update-rc.d; then
            update-rc.d "$SERVICE" defaults >/dev/null
        elif [ -e /etc/init.d/rcS ]; then
            ln -sf "$SERVICE" "/etc/init.d/S90$SERVICE"
        else
            say "nothing here starts services at boot: have it run \`$INIT start\`"
        fi
        ;;
    esac
}

disable_service() {
    case $init in
    # systemd knows one that has failed until this.
    systemd) systemctl --quiet disable "$SERVICE" || true; systemctl reset-failed "$SERVICE" || true ;;
    openrc) rc-update --quiet delete "$SERVICE" default || true ;;
    script)
        if has update-rc.d; then update-rc.d "$SERVICE" remove >/dev/null || true; fi
        rm -f "/etc/init.d/S90$SERVICE"
        ;;
    esac >/dev/null 2>&1
}

# The service's own last word.
last_word() {
    case $init in
    systemd) journalctl --quiet --output=cat --lines=1 _SYSTEMD_UNIT="$SERVICE.service" ;;
    openrc) { grep -hF "$SERVICE" /var/log/messages || cat "/var/log/$SERVICE.log"; } | tail -n 1 ;;
    script) cat "$RUN/last" ;;
    esac 2>/dev/null || true
}

health() {
    "$1" health --config "$2" --state-dir "$OWN" --ca-dir "$STATE" 2>&1
}

# How this machine is called by those who connect to it.
own_name() {
    if [ -n "$reached_as" ]; then
        echo "$reached_as"
        return
    fi
    bound=$(sed -n 's/^[[:space:]]*BIND_ADDRESS=\([0-9.]*\).*/\1/p' "$CONF" | tail -n 1)
    case $bound in
    '' | 0.0.0.0) ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' ;;
    *) echo "$bound" ;;
    esac
}

# Where the log is, in this machine's words.
log_command() {
    case $init in
    systemd) echo "journalctl -u $SERVICE -f" ;;
    *) if [ -e "/var/log/$SERVICE.log" ]; then echo "tail -f /var/log/$SERVICE.log"; elif has logread; then echo "logread -f"; else echo "tail -f /var/log/messages"; fi ;;
    esac
}

# How the service is restarted.
restart_command() {
    case $init in
    systemd) echo "systemctl restart $SERVICE" ;;
    openrc) echo "rc-service $SERVICE restart" ;;
    script) echo "$INIT restart" ;;
    esac
}

# Shows what `pandaproxy check` has to say against the installation, which stays all the same: the printer may be off.
check_printer() {
    # The service dials the printer at its start, and knows more a little later. Without its status nothing is waited for.
    until=$(($(uptime_now) + DIALS_WITHIN))
    while [ "$(uptime_now)" -lt $until ] && "$BIN" status --json --config "$CONF" --state-dir "$OWN" --ca-dir "$STATE" \
        2>/dev/null | grep -qE '"reachable":null|"upstream":"connecting"'; do
        sleep 1
    done
    found=$(timeout $CHECK_WITHIN "$BIN" check --config "$CONF" --state-dir "$OWN" --ca-dir "$STATE" 2>&1) || true
    say "check: $(printf '%s\n' "$found" | tail -n 1)"
    # What is not known as well: the service may not tell how the printer is.
    printf '%s\n' "$found" | sed -n -e 's/^! /    ! /p' -e 's/^✗ /    ✗ /p' -e 's/^? /    ? /p'
}

# Says that the first of several printers is served under the serial numbers of the others, unless its settings say no.
note_serials() {
    for conf in "$ETC"/*.conf; do
        if [ ! -f "$conf" ] || [ "$conf" = $ETC/$NAME.conf ]; then continue; fi
        [ ! -f $ETC/$NAME.conf ] || grep -q '^[[:space:]]*STRICT_SERIAL=true' $ETC/$NAME.conf ||
            say "note: several printers: set STRICT_SERIAL=true in $ETC/$NAME.conf, or that printer is served as the others, too"
        return 0
    done
}

# The end of every installation: what to do next.
finish() {
    note_serials
    port=$(sed -n 's/^[[:space:]]*PORTS=\(.*[, ]\)\{0,1\}http=\([0-9]*\).*/\2/p' "$CONF" | tail -n 1)
    page=$(own_name)
    sudo='' there=''
    ! has sudo || sudo='sudo '
    [ -z "$over" ] || there="ssh -t $over "
    say "next:"
    if grep -qs '^[[:space:]]*SERVICES=.*http' "$CONF"; then
        say "  page      http://${page:-THIS-MACHINE}:${port:-8080}  (user bblp and the access code)"
    fi
    say "  log       $there$sudo$(log_command)"
    say "  restart   $there$sudo$(restart_command)  (after a change in $CONF)"
    say "  trust     ${there% -t *}${there:+ $over }${sudo}pandaproxy ca > pandaproxy-ca.pem  (for clients that verify certificates)"
    say "  check     $there${sudo}pandaproxy check${printer:+ --config $CONF --state-dir $OWN --ca-dir $STATE}"
}

# Seconds since boot: a board's clock may jump from 1970 to today meanwhile.
uptime_now() {
    cut -d. -f1 /proc/uptime
}

# Waits until the service is healthy; the last output of `health` is in $told.
wait_ready() {
    until=$(($(uptime_now) + $1))
    while :; do
        if told=$(health "$BIN" "$CONF"); then return 0; fi
        if given_up || [ "$(uptime_now)" -ge $until ]; then return 1; fi
        sleep 1
    done
}

# Starts the service and waits until it is healthy, $1 seconds at most; why it is not is in $why_not.
start_ready() {
    begun=$(uptime_now)
    if service start "$1" && wait_ready "$1"; then return 0; fi
    why_not="not ready within $1 s"
    waited=$(($(uptime_now) - begun))
    [ $waited -ge "$1" ] || why_not="it does not start: given up after $waited s"
    return 1
}

# others --state=active|--all: services of other printers that have the same binary; with --all also those that are to run and do not.
others() {
    case $init in
    systemd)
        for unit in $(systemctl list-units --plain --no-legend "$1" $NAME.service "$NAME@*.service" | cut -d' ' -f1); do
            [ "$unit" != "$SERVICE.service" ] || continue
            # Those of the Debian package have a binary of their own.
            case $(systemctl show --property ExecStart --value "$unit") in *"path=$BIN "*) echo "$unit" ;; esac
        done
        ;;
    *)
        for script in /etc/init.d/pandaproxy /etc/init.d/pandaproxy[.-]*; do
            case $script in
            "$INIT" | *.new) ;;
            *) [ ! -x "$script" ] || basename "$script" ;;
            esac
        done
        ;;
    esac
}

# Restarts one of these, unless it does not run.
restart_other() {
    case $init in
    systemd) systemctl restart "$1" || say "$1 did not restart: journalctl -u $1 says why" ;;
    *)
        if "/etc/init.d/$1" status >/dev/null 2>&1; then
            "/etc/init.d/$1" restart >/dev/null 2>&1 || say "$1 did not restart: its log says why"
        fi
        ;;
    esac
}

# ---- files -------------------------------------------------------------------------------------

# The files that this puts somewhere, for this machine's init.
files() {
    echo "$BIN"
    echo "$CONF"
    case $init in
    systemd)
        echo "$UNIT"
        echo "$BOARD_CONF"
        ;;
    openrc)
        echo "$INIT"
        echo "$RC_CONF"
        ;;
    script) echo "$INIT" ;;
    esac
}

# The content for one of these files; the folder `made` holds those that are generated.
wanted() {
    case $1 in
    "$BIN") echo "$here/pandaproxy" ;;
    "$CONF") echo "${config:-$CONF}" ;;
    "$UNIT") echo "$here/$TEMPLATE" ;;
    "$BOARD_CONF" | "$RC_CONF") echo "$made/limits" ;;
    "$INIT") if [ $init = openrc ]; then echo "$here/pandaproxy.openrc"; else echo "$made/script"; fi ;;
    esac
}

mode() {
    case $1 in
    "$BIN" | "$INIT") echo 755 ;;
    "$CONF") echo 640 ;;
    *) echo 644 ;;
    esac
}

# Replaces a file by the one beside it, NAME.new. Some file systems write the name before the content: where the power
# fails in between, the file is empty unless it was synced.
replace() {
    sync "$1.new" && mv "$1.new" "$1"
}

# Replaces a file whole, or leaves it as it is.
place() {
    mkdir -p "$(dirname "$2")"
    if [ "$1" != "$2" ]; then
        cp "$1" "$2.new"
        chmod "$(mode "$2")" "$2.new"
        if [ "$2" = "$CONF" ]; then chown root:$NAME "$2.new"; fi
        replace "$2"
    else
        chmod "$(mode "$2")" "$2"
        if [ "$2" = "$CONF" ]; then chown root:$NAME "$2"; fi
    fi
}

write_limits() {
    if [ $init = openrc ]; then
        printf '# What the board may spend on it.\nrc_cgroup_settings="memory.max %s"\n' "$SERVICE_MEMORY_MAX"
    else
        printf '# What the board may spend on it.\n[Service]\nMemoryMax=%s\n' "$SERVICE_MEMORY_MAX"
    fi >"$made/limits"
}

# The init script of this printer: such scripts are told apart by what they provide.
write_script() {
    sed "s/^\(# Provides: *\).*/\1$SERVICE/; s/^printer=.*/printer='$printer'/" "$here/pandaproxy.init" >"$made/script"
}

# Says whether the system limits the service's memory. Raspberry Pi OS starts without memory cgroups.
memory_limit() {
    if [ $init = script ]; then
        echo "no memory limit by the system"
    elif grep -qsw memory /sys/fs/cgroup/cgroup.controllers; then
        echo "at most $SERVICE_MEMORY_MAX"
    else
        echo "no systemd memory limit (the kernel has no memory cgroup: boot with cgroup_enable=memory)"
    fi
}

# Gives the service's user what is in its directory, but for links of both kinds: they may lead to others' files.
own_state() {
    chown -h $NAME:$NAME "$STATE"
    find "$STATE" -xdev -mindepth 1 \( -type d -o -type f -links 1 \) -exec chown -h $NAME:$NAME {} +
}

make_user() {
    if id $NAME >/dev/null 2>&1; then return; fi
    if has useradd; then
        grep -q "^$NAME:" /etc/group || groupadd --system $NAME
        useradd --system --gid $NAME --no-create-home --home-dir "$STATE" --shell /bin/false $NAME
    else
        addgroup -S $NAME
        adduser -S -D -H -h "$STATE" -s /bin/false -G $NAME $NAME
    fi
}

remove_user() {
    if has userdel; then userdel $NAME; else deluser $NAME; fi >/dev/null 2>&1 || true
    if has groupdel; then groupdel $NAME; else delgroup $NAME; fi >/dev/null 2>&1 || true
}

# ---- undoing -----------------------------------------------------------------------------------

# Puts a file back as it was before, or removes it if it was not there. Fails if it stays another one.
put_back() {
    if [ ! -e "$KEPT/trying$1" ]; then
        rm -f "$1" "$1.new"
    elif ! { cp -p "$KEPT/trying$1" "$1.new" && replace "$1"; } 2>/dev/null; then
        rm -f "$1.new"
        # Where there is no space for a copy, it may not have been replaced.
        cmp -s "$KEPT/trying$1" "$1"
    fi
}

# Keeps every file as it is, and notes what takes its place.
keep_files() {
    rm -rf "$KEPT/trying" "$KEPT/trying.new"
    (
        umask 077
        mkdir -p "$KEPT/trying.new"
        for file in $(files); do
            if [ -e "$file" ]; then
                mkdir -p "$KEPT/trying.new$(dirname "$file")"
                cp -p "$file" "$KEPT/trying.new$file"
            fi
            sum=$(sha256sum <"$(wanted "$file")")
            echo "$sum $file" >>"$KEPT/trying.new/placed"
        done
        [ -z "$was_here" ] || : >"$KEPT/trying.new/was_here"
        echo $$ >"$KEPT/trying.new/process"
        cp "$0" "$KEPT/trying.new/install.sh"
        find "$KEPT/trying.new" -type f -exec sync {} +
    )
    mv "$KEPT/trying.new" "$KEPT/trying"
}

# Whether a file is the one that a run before this one has placed.
is_placed() {
    sum=$(sha256sum <"$1") && grep -qxF "$sum $1" "$KEPT/trying/placed"
}

# Whether a run before this one was ended in its trial, as by a power loss: each file is one that it has placed, or that it
# has kept. What it has kept worked last; what is there now may not.
was_interrupted() {
    [ -e "$KEPT/trying/placed" ] || return 1
    for file in $(files); do
        if [ ! -e "$file" ]; then
            [ ! -e "$KEPT/trying$file" ] || return 1
        elif ! is_placed "$file"; then
            cmp -s "$KEPT/trying$file" "$file" || return 1
        fi
    done
}

# Restores every file as it was before; removes files that were not there.
restore() {
    trap '' HUP INT TERM
    placed='' lost=''
    service stop || true
    for file in $(files); do
        put_back "$file" || lost="$lost $file"
    done
    if [ -n "$was_here" ]; then
        if [ -n "$lost" ]; then
            rm -rf "$KEPT/previous"
            mv "$KEPT/trying" "$KEPT/previous"
        fi
        rm -rf "$KEPT/trying"
        if [ $init = systemd ]; then
            systemctl daemon-reload
            systemctl reset-failed "$SERVICE" 2>/dev/null || true
        fi
        service start $READY_WITHIN || true
        undone="the previous version is restored"
        [ -z "$lost" ] || undone="$undone but for$lost, which could not be written and are kept in $KEPT/previous"
        if wait_ready $READY_WITHIN; then
            undone="$undone, and $told"
        else
            undone="$undone, and is not healthy either: $told"
        fi
    else
        disable_service
        rm -rf "$KEPT/trying" "$RUN"
        if [ $init = systemd ]; then
            rmdir "$UNIT.d" 2>/dev/null || true
            systemctl daemon-reload
        fi
        [ -z "$made_own" ] || rm -rf "$OWN"
        [ -z "$made_state" ] || rm -rf "$STATE"
        [ -z "$made_user" ] || remove_user
        # The binary is there if other printers have it.
        [ -e "$BIN" ] || rm -rf "$KEPT"
        rmdir "$ETC" 2>/dev/null || true
        undone="nothing was installed"
    fi
}

# Run before each start of a service. After a run that was ended in its trial, as by a power loss, the files from before it
# return, unless they were changed since. A first installation stays, since there is no version to return to.
undo_interrupted() {
    process=$(cat "$KEPT/trying/process" 2>/dev/null) || return 0
    case $({ tr '\000' ' ' <"/proc/$process/cmdline"; } 2>/dev/null) in
    *--undo*) ;;
    # That run is in its trial.
    *install.sh*) return 0 ;;
    esac
    [ -e "$KEPT/trying$BIN" ] || return 0
    back='' lost='' reload=''
    while read -r _ _ file; do
        old=$KEPT/trying$file
        if [ ! -e "$old" ] || cmp -s "$old" "$file" || ! is_placed "$file"; then continue; fi
        # Other services may do the same at this time. A link needs no space.
        new=$file.$$.new
        if { ln "$old" "$new" || { cp -p "$old" "$new" && sync "$new"; }; } 2>/dev/null && mv -f "$new" "$file"; then
            back=1
        else
            lost="$lost $file"
        fi
        rm -f "$new"
        case $file in /etc/systemd/*) reload=1 ;; esac
    done <"$KEPT/trying/placed"
    if [ -z "$lost" ]; then
        rm -rf "$KEPT/undone"
        { mv "$KEPT/trying" "$KEPT/undone" && rm -rf "$KEPT/undone"; } 2>/dev/null || true
    fi
    [ -z "$reload" ] || systemctl daemon-reload
    [ -n "$back$lost" ] || return 0
    told="an installation was interrupted; the version from before it is back"
    [ -z "$lost" ] || told="$told but for$lost, which could not be written"
    echo "WARN  install.sh: $told"
    [ $init = systemd ] || logger -t $NAME -- "WARN  install.sh: $told" 2>/dev/null || true
}

undo_and_end() {
    [ -z "$made" ] || rm -rf "$made"
    if [ -n "$placed" ]; then
        restore
        printf 'install.sh: aborted; %s\n' "$undone" >&2
    else
        rm -rf "$BIN.new" "$KEPT/trying.new"
    fi
}

# ---- what is to be done ------------------------------------------------------------------------

do_uninstall() {
    if [ ! -e "$BIN" ] && [ ! -e "$UNIT" ] && [ ! -e "$INIT" ] && has_package; then
        remove_package
        return
    fi
    if [ ! -e "$BIN" ] && [ ! -e "$UNIT" ] && [ ! -e "$INIT" ]; then
        say "pandaproxy is not installed here: nothing to do"
        return
    fi
    if [ -n "$dry" ]; then
        say "would stop and remove: $(files | grep -vxF "$CONF" | tr '\n' ' ')$KEPT"
        return
    fi
    service stop || true
    disable_service
    left=$(others --all)
    # The binary, OpenRC's limit, and the unit of all but the first printer, are others' as well.
    files | grep -vxF "$CONF" | while read -r file; do
        case $left in
        '') rm -f "$file" ;;
        *@*) case $file in "$BIN" | *@.service | *@.service.d/*) ;; *) rm -f "$file" ;; esac ;;
        *) case $file in "$BIN" | "$RC_CONF") ;; *) rm -f "$file" ;; esac ;;
        esac
    done
    rm -rf "$RUN" "/var/log/$SERVICE.log" "/var/log/$SERVICE.log.1"
    rmdir "$UNIT.d" 2>/dev/null || true
    [ $init != systemd ] || systemctl daemon-reload
    [ -n "$left" ] || rm -rf "$KEPT" "$BIN.old" "$BIN.updating"
    say "removed; settings and certificates stay in $ETC and $STATE,"
    say "and so does their owner, the user $NAME: remove them by hand if they are not needed"
}

# Removes the Debian package; of one printer among several, only its service.
remove_package() {
    what="the Debian package"
    [ -z "$printer" ] || what="the service $SERVICE of the Debian package"
    if [ -n "$dry" ]; then
        say "would remove $what"
    elif [ -n "$printer" ]; then
        systemctl --quiet disable --now "$SERVICE"
        say "$what is stopped and disabled; its settings stay in $CONF"
    else
        said=$(DEBIAN_FRONTEND=noninteractive apt-get remove -y pandaproxy 2>&1) ||
            die "apt-get could not remove it: $(printf '%s\n' "$said" | tail -n 1)"
        say "$what is removed; settings and certificates stay in $ETC and $STATE"
    fi
}

# What is left of a Debian package that was removed has the same settings, and dpkg would delete them at a later purge. So
# it is purged now, while a copy is kept. Certificates stay: its postrm sees the unit.
forget_package() {
    if [ "$(dpkg-query -W -f '${db:Status-Status}' pandaproxy 2>/dev/null)" != config-files ]; then return; fi
    if [ $init != systemd ] || [ -n "$printer" ]; then return; fi
    cp -p "$CONF" "$CONF.new" && sync "$CONF.new" || return 0
    dpkg --purge pandaproxy >/dev/null 2>&1 || true
    replace "$CONF"
    say "what was left of the removed Debian package is purged; settings and certificates stay"
}

# Sets the settings, as its owner wants them, from a file.
put_settings() {
    if cmp -s "$1" "$CONF"; then return 0; fi
    cp "$1" "$CONF.new" && chmod 640 "$CONF.new" && chown root:$NAME "$CONF.new" && replace "$CONF"
}

# The Debian package beside this script, by apt. An upgrade that does not get ready is undone by the package itself;
# settings that it does not get ready with are undone here.
do_package() {
    if [ $init != systemd ] || ! has apt-get; then die "a Debian package needs apt and systemd"; fi
    [ ! -e /usr/local/bin/pandaproxy ] || [ ! -e "$UNIT" ] ||
        die "an installation by install.sh is here: \`install.sh --uninstall\` first (settings stay), or install a tarball"
    [ -n "$config" ] || [ -f "$CONF" ] ||
        die "there are no settings yet: give --config FILE (pandaproxy.conf is an example)"
    [ -z "$config" ] || [ -r "$config" ] || die "the settings in $config cannot be read"
    new=$(dpkg-deb -f "$here/pandaproxy.deb" Version 2>&1) || die "this is no Debian package: $new"
    if [ -n "$dry" ]; then
        say "would install the Debian package, version $new, with apt, put $CONF in place, and start $SERVICE"
        return
    fi
    # Settings that the new binary does not understand change nothing.
    dpkg-deb --fsys-tarfile "$here/pandaproxy.deb" | tar -x -C "$made" ./usr/bin/pandaproxy ||
        die "the binary cannot be read from the package"
    version=$("$made/usr/bin/pandaproxy" --version 2>&1) || die "the binary does not run here: $version"
    code=0
    told=$(health "$made/usr/bin/pandaproxy" "${config:-$CONF}") || code=$?
    [ $code != 2 ] || die "invalid settings: ${told#pandaproxy: }"
    if [ -z "$repair" ] && [ $code = 0 ] && cmp -s "$made/usr/bin/pandaproxy" "$BIN" &&
        cmp -s "${config:-$CONF}" "$CONF"; then
        say "$version is here already, with these settings: nothing to do"
        finish
        return
    fi
    kept=''
    if [ -n "$config" ] && [ -f "$CONF" ]; then
        kept=$made/kept.conf
        (umask 077 && cp "$CONF" "$kept")
    fi
    again=''
    if [ -n "$repair" ] && has_package; then again=--reinstall; fi
    # apt's own user reads it.
    cp "$here/pandaproxy.deb" "$made/pandaproxy.deb"
    chmod 755 "$made"
    chmod 644 "$made/pandaproxy.deb"
    DEBIAN_FRONTEND=noninteractive apt-get install -y $again --allow-downgrades -o Dpkg::Options::=--force-confold \
        "$made/pandaproxy.deb" >"$made/apt" 2>&1 ||
        die "apt-get could not install it: $(grep -v '^N: ' "$made/apt" | tail -n 3 | tr '\n' ' ')"
    [ -z "$config" ] || put_settings "$config"
    systemctl --quiet enable "$SERVICE"
    within=$READY_WITHIN
    [ -e "$OWN/rsa.key" ] || within=$KEYS_WITHIN
    systemctl reset-failed "$SERVICE" 2>/dev/null || true
    if ! start_ready "$within"; then
        said=$(last_word)
        undone="version $new stays installed"
        if [ -n "$kept" ] && put_settings "$kept" && service start $READY_WITHIN; then
            undone="$undone, and the settings from before are back"
        fi
        die "$why_not (${said:-$told}); $undone; the log has more: $(log_command)"
    fi
    say "$version, installed by apt, started by systemd, $(memory_limit)"
    check_printer
    finish
}

do_install() {
    [ -f "$here/pandaproxy" ] || die "no binary beside install.sh"
    [ -z "$printer" ] || grep -qs '^[[:space:]]*BIND_ADDRESS=..*' "${config:-$CONF}" ||
        die "the settings of $printer need a BIND_ADDRESS: an address of this machine for this printer alone"
    # Its unit would be hidden by the one that this puts into /etc.
    [ ! -e /lib/systemd/system/$NAME.service ] ||
        die "the Debian package is installed here: upgrade that, or \`apt remove pandaproxy\` first (settings stay)"
    [ -n "$config" ] || [ -f "$CONF" ] ||
        die "there are no settings yet: give --config FILE (pandaproxy.conf is an example)"
    [ -z "$config" ] || [ -r "$config" ] || die "the settings in $config cannot be read"
    [ $init != script ] || /bin/sh "$here/pandaproxy.init" check 2>/dev/null ||
        die "this machine has neither systemd nor OpenRC; the init script needs util-linux's setpriv"
    if [ -n "$dry" ]; then
        say "would put in place, start with $init, and wait for: $(files | tr '\n' ' ')"
        return
    fi

    # Nothing is changed before all of this has held.
    for folder in /usr/local/bin /usr/local/lib /etc /var/lib; do
        why=$({ mkdir -p "$folder" && probe=$(mktemp "$folder/.pandaproxy.XXXXXX") && rm "$probe"; } 2>&1) ||
            die "$folder cannot be written to: ${why##*: }"
    done
    # The new binary beside the old one, and the old one kept.
    need=$(($(wc -c <"$here/pandaproxy") * 2 / 1024 + 512))
    free=$(df -Pk /usr/local/bin | awk 'NR == 2 { print $4 }')
    # A host whose df knows nothing of it finds out below.
    [ "${free:-$need}" -ge "$need" ] ||
        die "no space: /usr/local/bin has $free KiB free, and $need KiB are needed"
    why=$({ cp "$here/pandaproxy" "$BIN.new" && chmod 755 "$BIN.new"; } 2>&1) || {
        rm -f "$BIN.new"
        die "the binary cannot be written: ${why##*: }"
    }
    version=$("$BIN.new" --version 2>&1) || {
        rm -f "$BIN.new"
        die "the binary does not run here: $version"
    }
    code=0
    told=$(health "$BIN.new" "${config:-$CONF}") || code=$?
    rm -f "$BIN.new"
    [ $code != 2 ] || die "invalid settings: ${told#pandaproxy: }"
    write_limits
    write_script

    changed=''
    for file in $(files); do
        cmp -s "$(wanted "$file")" "$file" || changed=1
    done
    if [ -z "$changed$repair" ] && [ $code = 0 ]; then
        say "$version is here already, with these settings: nothing to do"
        finish
        return
    fi

    case $init in
    systemd) [ ! -e "/etc/systemd/system/multi-user.target.wants/$SERVICE.service" ] || was_here=1 ;;
    *) [ ! -e "$INIT" ] || was_here=1 ;;
    esac
    # Without other printers the binary says it, too.
    [ -n "$printer" ] || [ ! -e "$BIN" ] || was_here=1
    if was_interrupted; then
        [ -e "$KEPT/trying/was_here" ] || was_here=''
        echo $$ >"$KEPT/trying/process"
        say "note: the installation before this one was interrupted; if this one fails, what was there before both is restored"
    else
        keep_files
    fi
    [ -d "$STATE" ] || made_state=1
    [ -d "$OWN" ] || made_own=1
    id $NAME >/dev/null 2>&1 || made_user=1
    placed=1
    make_user
    # The binary comes after the units and scripts, which look for a trial that was interrupted.
    for file in $(files | grep -vxF -e "$BIN" -e "$CONF") "$BIN" "$CONF"; do place "$(wanted "$file")" "$file"; done
    # An interrupted `pandaproxy update` is settled by this.
    rm -f "$BIN.updating"
    mkdir -p "$STATE"
    chmod 700 "$STATE"
    [ ! -h "$OWN" ] || die "$OWN is a link"
    mkdir -p "$OWN"
    if [ -f "$here/rsa.key" ] && [ ! -e "$OWN/rsa.key" ] && [ ! -h "$OWN/rsa.key" ]; then
        # Made beside the directory, which is the service's, and moved: nothing is written through a link in there.
        (umask 077 && key=$(mktemp "$STATE.XXXXXX") && cp "$here/rsa.key" "$key" && mv -f "$key" "$OWN/rsa.key")
    fi
    own_state
    chmod 750 "$ETC"
    chown root:$NAME "$ETC"
    enable_service
    within=$READY_WITHIN
    if [ ! -e "$OWN/rsa.key" ]; then
        within=$KEYS_WITHIN
        say "creating the RSA key first; that takes minutes on a slow board"
    fi
    [ $init != systemd ] || systemctl reset-failed "$SERVICE" 2>/dev/null || true
    if ! start_ready "$within"; then
        said=$(last_word)
        log=$(log_command)
        restore
        die "$why_not (${said:-$told}); $undone; the log has more: $log"
    fi
    placed=''
    rm -rf "$KEPT/previous"
    if [ -e "$KEPT/trying$BIN" ]; then
        mv "$KEPT/trying" "$KEPT/previous"
        say "the previous version is kept in $KEPT/previous"
    else
        rm -rf "$KEPT/trying"
    fi
    say "$version, started by $init, $(memory_limit)"
    forget_package
    for other in $(others --state=active); do restart_other "$other"; done
    check_printer
    finish
}

if [ -n "$facts" ]; then
    print_facts
    exit 0
fi
if [ -n "$undo" ]; then
    undo_interrupted
    exit 0
fi
if [ -z "${TARGET-}${uninstall}" ]; then
    # shellcheck source=/dev/null
    . "$here/board.env"
fi
if [ -n "$check" ]; then
    check_machine
    say "$kernel, $made_of, $init"
    exit 0
fi
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "this has to be done by root: use sudo"
made='' placed='' was_here='' made_state='' made_own='' made_user=''
if [ -n "$uninstall" ]; then
    do_uninstall
    exit 0
fi
check_machine
made=$(mktemp -d)
trap undo_and_end EXIT
trap 'exit 129' HUP INT TERM
# A closed output ends the script like every other failure, by a failed write.
trap '' PIPE
if [ -n "$packaged" ]; then do_package; else do_install; fi
