#!/usr/bin/env bash
# flash.sh against scratch hosts: an sshd on loopback whose root is a folder, with and without
# systemd, with the real binary serving on its real ports as its own user.
#
# All of it happens in namespaces of its own (network, mounts, processes), so ports are fixed, nobody
# else hears of it, and nothing is left when it ends.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/flash/run.sh [--help]

Needs root, dist/pandaproxy-generic-x86_64 (boards/build.sh makes it), openssh-server, sudo,
busybox-static, openssl, python3 and iproute2. Prints a line a test, and `N passed, N failed`.
END
}

cd "$(dirname "$0")/../.."
case ${1-} in
--help) usage; exit 0 ;;
--inside) ;;
'') exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside ;;
*) usage >&2; exit 2 ;;
esac

# shellcheck source=tests/flash/host.sh
. tests/flash/host.sh
ip link set lo up

readonly BOARD=generic-x86_64 CODE=7Kq2xW9p
scratch=$(mktemp -d)
trap 'switch_off; umount -R "$scratch/bare" "$scratch/debian" 2>/dev/null || true; rm -rf "$scratch"' EXIT
keys=$scratch/keys
mkdir "$keys"
ssh-keygen -q -t ed25519 -N '' -f "$keys/key"
ssh-keygen -q -t ed25519 -N '' -f "$keys/host"
cat >"$scratch/ssh_config" <<END
Host board
    HostName 127.0.0.1
    User root
    IdentityFile $keys/key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
Host gone
    HostName 127.0.0.1
    Port 9
END
# With the line ends of an editor on Windows.
printf '\xef\xbb\xbfPRINTER_IP=127.0.0.9\r\nACCESS_CODE=%s\r\nSERIAL_NUMBER=01P00A000000001\r\nBIND_ADDRESS=127.0.0.1\r\n' \
    "$CODE" >"$scratch/given.conf"
cp "$scratch/given.conf" "$scratch/changed.conf"
printf 'DEBUG=1\r\n' >>"$scratch/changed.conf"

# Every argument of ssh and scp is recorded: arguments are visible to all users, so no secret may be in them.
mkdir "$scratch/path"
for program in ssh scp; do
    printf '#!/bin/sh\nprintf "%%s\\n" "$*" >>%q\nexec %q "$@"\n' "$scratch/argv" "$(command -v $program)" \
        >"$scratch/path/$program"
    chmod 755 "$scratch/path/$program"
done
export PATH=$scratch/path:$PATH
: >"$scratch/everything"

# A copy of the project to flash from: what one test puts in its dist/ is not what others find there.
mkdir "$scratch/project"
cp -r flash.sh boards src Cargo.toml Cargo.lock "$scratch/project/"
mkdir "$scratch/project/dist"
fresh_binary() {
    cp "dist/pandaproxy-$BOARD" "$scratch/project/dist/"
}
fresh_binary

# Runs flash.sh; its output is in $said, its exit status in $code.
flash() {
    code=0
    said=$("$scratch/project/flash.sh" --ssh-config "$scratch/ssh_config" "$@" 2>&1) || code=$?
    printf '%s\n' "$said" >>"$scratch/everything"
}

# ---- what is expected --------------------------------------------------------------------------

passed=0 failed=0 test=''
check() {
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED %s: %s\n%s\n' "$test" "$what" "${said-}"
    fi
}
begin() {
    test=$1
    printf 'test %s\n' "$test"
}
ends_with() { [ "$code" = "$1" ]; }
says() { grep -qF -- "$1" <<<"$said"; }
# One sentence, on the last line.
refuses() { [ "$code" = 1 ] && tail -n 1 <<<"$said" | grep -q '^flash.sh: ' && says "$1"; }
contents() {
    (cd "$running" && find . -xdev \( -path ./tmp -o -path ./var/log -o -name '*.pid' \) -prune -o -type f -exec sha256sum {} + | sort)
}
unchanged() { [ "$(contents)" = "$before" ]; }
nothing_staged() { [ -z "$(ls -A "$running/tmp")" ]; }
serves() { chroot "$running" /usr/local/bin/pandaproxy health --config /etc/pandaproxy/pandaproxy.conf --state-dir /var/lib/pandaproxy >/dev/null 2>&1; }
process() { for id in /proc/[0-9]*; do if [ "$(readlink "$id/exe")" = "$running/usr/local/bin/pandaproxy" ]; then basename "$id"; fi; done; }
is_same() { cmp -s "$1" "$2"; }
has_mode() { [ "$(stat -c %a "$running$1")" = "$2" ]; }
not() { ! "$@"; }
is() { [ "$1" = "$2" ]; }
find_any() { [ -n "$(find "$1" -xdev -path "$1/proc" -prune -o -name "*pandaproxy*" -print)" ]; }

# A stand-in for a program on the host, found before the real one.
pretend() {
    printf '#!/bin/sh\n%s\n' "$2" >"$running/usr/local/bin/$1"
    chmod 755 "$running/usr/local/bin/$1"
}

# Has another program listen on a port until `kill $taken`.
take_port() {
    python3 -c 'import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(120)' "$1" &
    taken=$!
    for _ in $(seq 1 100); do
        if ss -ltn | grep -q "127.0.0.1:$1 "; then return; fi
        sleep 0.1
    done
    return 1
}

# ---- what never reaches a host -----------------------------------------------------------------

make_host "$scratch/bare" script
make_host "$scratch/debian" systemd
# BusyBox's shell prefers its own commands to those that pretend.
switch_to "$scratch/debian"
before=$(contents)

begin "an unknown board, and words that mean nothing"
flash rpi-99 board
check "names the boards there are" refuses "known: generic-aarch64"
flash ../boards board
check "takes no path for a board" refuses "there is no board"
flash $BOARD
check "wants a host" ends_with 2
flash $BOARD '-oProxyCommand=x'
check "takes no option for a host" ends_with 2
flash $BOARD board --repair --uninstall
check "does not repair and remove at once" ends_with 2
flash $BOARD board --config /no/such/file
check "names the settings it cannot read" refuses "/no/such/file cannot be read"
"$scratch/project/flash.sh" --help >"$scratch/help"
check "--help shows the command" grep -q 'flash.sh BOARD' "$scratch/help"

begin "a host that is not there"
flash $BOARD gone
check "is said" refuses "cannot be reached by ssh: ssh: connect to host 127.0.0.1 port 9: Connection refused"

begin "a wrong architecture is refused before anything is built or copied"
pretend uname 'echo armv6l'
flash $BOARD board
check "by the kernel" refuses "this is armv6l with a 64-bit x86 system"
flash rpi-zero-2w board
check "by the kernel, for a binary that is not built" refuses "wrong architecture"
rm "$running/usr/local/bin/uname"
flash rpi-4 board
check "and names the boards that fit" refuses "boards for it: generic-x86_64"
# The first bytes of a program for 32-bit ARM, under a 64-bit kernel.
printf '\177ELF\001\001\001\000\000\000\000\000\000\000\000\000\002\000\050\000' >"$running/tmp/armhf"
pretend uname 'echo aarch64'
pretend readlink 'echo /tmp/armhf'
flash rpi-4 board
check "by the system under a 64-bit kernel" refuses "this is aarch64 with a 32-bit ARM system; boards for it: generic-armv7"
flash generic-armv7 board --dry-run --config "$scratch/given.conf"
check "whose 32-bit board is taken" ends_with 0
rm "$running/usr/local/bin/uname" "$running/usr/local/bin/readlink" "$running/tmp/armhf"
check "nothing was changed" unchanged
check "nothing was built" is "$(ls "$scratch/project/dist")" "pandaproxy-$BOARD"

switch_to "$scratch/bare"
before=$(contents)

begin "no settings, or invalid settings"
flash $BOARD board
check "none" refuses "there are no settings yet: give --config FILE"
printf 'PRINTR_IP=127.0.0.9\n' >"$scratch/typo.conf"
flash $BOARD board --config "$scratch/typo.conf"
check "a mistyped name" refuses "invalid settings: "
check "which is named" says "unknown setting PRINTR_IP"
check "nothing was changed" unchanged
check "nothing was left" nothing_staged

begin "a dry run"
flash $BOARD board --config "$scratch/given.conf" --dry-run
check "says what would be done" says "would put in place, start with script, and wait for: /usr/local/bin/pandaproxy"
check "ends well" ends_with 0
check "changes nothing" unchanged
check "leaves nothing" nothing_staged

begin "no space, a read-only root, no right to be root"
mount -t tmpfs -o size=2m tmpfs "$running/usr/local/bin"
flash $BOARD board --config "$scratch/given.conf"
check "no space" refuses "no space: /usr/local/bin has"
mount -o remount,ro "$running/usr/local/bin"
flash $BOARD board --config "$scratch/given.conf"
check "read-only" refuses "/usr/local/bin cannot be written to: Read-only file system"
umount "$running/usr/local/bin"
flash $BOARD pi@board --config "$scratch/given.conf"
check "no sudo" refuses "is not root and cannot use sudo"
check "nothing was changed" unchanged
check "nothing was left" nothing_staged

begin "a binary that does not run"
printf '\177ELF\002\001\001 and nothing behind it' >"$scratch/project/dist/pandaproxy-$BOARD"
flash $BOARD board --config "$scratch/given.conf"
check "is refused" refuses "the binary does not run here"
check "nothing was changed" unchanged
fresh_binary

begin "a port that is taken at a first installation"
take_port 990
flash $BOARD board --config "$scratch/given.conf"
kill $taken
check "is named, and nothing stays" refuses "cannot bind port 990: in use by another program"
check "and that is said" says "nothing was installed"
check "no user stays" not grep -q pandaproxy "$running/etc/passwd"
check "no file stays" not find_any "$running"

# ---- without systemd, as root ------------------------------------------------------------------

begin "a first installation by the init script"
flash $BOARD board --config "$scratch/given.conf"
check "ends well" ends_with 0
check "says where the services are" says "  ftp at 127.0.0.1:990"
check "all of them" says "  mqtt at 127.0.0.1:8883"
check "it serves" serves
id=$(process)
check "as its own user" is "$(stat -c %u "/proc/$id")" "$(stat -c %u "$running/var/lib/pandaproxy")"
check "who is not root" not is "$(stat -c %u "/proc/$id")" 0
check "with the right to low ports alone" is "$(sed -n 's/^CapPrm:\t//p' "/proc/$id/status")" 0000000000000400
check "that nothing can add to" is "$(sed -n 's/^CapBnd:\t//p' "/proc/$id/status") $(sed -n 's/^NoNewPrivs:\t//p' "/proc/$id/status")" "0000000000000400 1"
check "settings are private" has_mode /etc/pandaproxy/pandaproxy.conf 640
check "state is private" has_mode /var/lib/pandaproxy 700
check "its key is private" has_mode /var/lib/pandaproxy/rsa.key 600
check "nothing was left" nothing_staged

begin "doing it again"
before=$(contents)
flash $BOARD board --config "$scratch/given.conf"
check "changes nothing" says "nothing to do"
check "to the file" unchanged
flash $BOARD board
check "the settings that are there stay" says "nothing to do"
check "it was not restarted" is "$(process)" "$id"

begin "links that the service's user has put into its directory"
: >"$running/etc/of-root"
ln "$running/etc/of-root" "$running/var/lib/pandaproxy/hard"
ln -s /etc/of-root "$running/var/lib/pandaproxy/soft"
flash $BOARD board --repair
check "give it no file" is "$(stat -c %u "$running/etc/of-root")" 0
rm "$running/etc/of-root" "$running/var/lib/pandaproxy/hard" "$running/var/lib/pandaproxy/soft"
id=$(process)

begin "other settings"
cp "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem" || true
flash $BOARD board --config "$scratch/changed.conf"
check "are taken" is_same "$running/etc/pandaproxy/pandaproxy.conf" "$scratch/changed.conf"
check "by a restart" not is "$(process)" "$id"
check "and its authority stays" is_same "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem"

begin "a new binary"
printf 'newer' >>"$scratch/project/dist/pandaproxy-$BOARD"
flash $BOARD board
check "takes the place of the old one" is_same "$running/usr/local/bin/pandaproxy" "$scratch/project/dist/pandaproxy-$BOARD"
check "which is kept" is_same "$running/usr/local/lib/pandaproxy/previous/usr/local/bin/pandaproxy" "dist/pandaproxy-$BOARD"
check "it serves" serves

begin "a binary that is never ready"
before=$(contents)
cat >"$scratch/project/dist/pandaproxy-$BOARD" <<'END'
#!/bin/sh
case $* in
--version) echo 'pandaproxy that does nothing' ;;
health*) echo 'pandaproxy health: not yet' >&2; exit 1 ;;
*) echo 'it starts'; sleep 600 ;;
esac
END
flash $BOARD board
check "is told from one that is" refuses "not ready within 30 s"
check "the one before is back" says "the previous version is restored, and healthy"
check "to the byte" unchanged
check "and serves" serves
fresh_binary

begin "a port that is taken by another program"
take_port 9900
cp "$scratch/given.conf" "$scratch/taken.conf"
printf 'PORTS=ftp=9900\n' >>"$scratch/taken.conf"
flash $BOARD board --config "$scratch/taken.conf"
kill $taken
check "is named" refuses "cannot bind port 9900: in use by another program"
check "what was there is back" unchanged
check "and serves" serves

begin "--repair"
rm "$running/etc/init.d/pandaproxy"
chmod 777 "$running/var/lib/pandaproxy" "$running/etc/pandaproxy/pandaproxy.conf"
id=$(process)
flash $BOARD board --repair
check "ends well" ends_with 0
check "the script is back" test -x "$running/etc/init.d/pandaproxy"
check "state is private again" has_mode /var/lib/pandaproxy 700
check "settings are private again" has_mode /etc/pandaproxy/pandaproxy.conf 640
check "it was started anew" not is "$(process)" "$id"
check "with its authority" is_same "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem"

begin "it is started again when it fails"
id=$(process)
kill -9 "$id"
for _ in $(seq 1 100); do if [ -n "$(process)" ] && serves; then break; fi; sleep 0.1; done
check "by another process" not is "$(process)" "$id"
check "and serves" serves

begin "--uninstall"
flash $BOARD board --uninstall --dry-run
check "says what would go" says "would stop and remove: /usr/local/bin/pandaproxy"
check "and it serves on" serves
flash $BOARD board --uninstall
check "ends well" ends_with 0
check "nobody serves" is "$(process)" ''
check "the binary is gone" not test -e "$running/usr/local/bin/pandaproxy"
check "the script is gone" not test -e "$running/etc/init.d/pandaproxy"
check "the settings stay" test -e "$running/etc/pandaproxy/pandaproxy.conf"
check "the authority stays" is_same "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem"
flash $BOARD board --uninstall
check "twice is once" says "nothing to do"

# ---- with systemd, by sudo ---------------------------------------------------------------------

switch_to "$scratch/debian"
calls() { cat "$running/var/log/systemctl" 2>/dev/null || true; }

begin "a first installation by sudo, under systemd"
flash $BOARD pi@board --config "$scratch/given.conf"
check "not without the right to" refuses "cannot use sudo"
printf 'pi ALL=(ALL) NOPASSWD: ALL\n' >>"$running/etc/sudoers"
flash $BOARD pi@board --config "$scratch/given.conf"
check "ends well" ends_with 0
check "it serves" serves
check "as its own user" not is "$(stat -c %u "/proc/$(process)")" 0
check "systemd was told in order" is "$(calls | grep -vE 'is-failed|list-units' | tr '\n' ';')" \
    "daemon-reload;--quiet enable pandaproxy;reset-failed pandaproxy;restart pandaproxy;"
check "the unit is there" is_same "$running/etc/systemd/system/pandaproxy.service" boards/service/pandaproxy.service
check "and the board's limit" grep -qx 'MemoryMax=128M' "$running/etc/systemd/system/pandaproxy.service.d/board.conf"
check "nothing was left" nothing_staged

begin "doing it again, under systemd"
: >"$running/var/log/systemctl"
flash $BOARD pi@board
check "changes nothing" says "nothing to do"
check "and asks systemd for nothing" is "$(calls)" ''

begin "a unit that systemd does not start"
before=$(contents)
# shellcheck disable=SC2016 # it is the stub that expands it
printf '#!/bin/sh\ncase $1 in --version) echo stub ;; health) exit 1 ;; *) echo "ERROR it breaks at once"; exit 1 ;; esac\n' \
    >"$scratch/project/dist/pandaproxy-$BOARD"
flash $BOARD pi@board
check "is told with its last word" refuses "ERROR it breaks at once"
check "what was there is back" unchanged
check "and serves" serves
fresh_binary

begin "a sudo that asks for a password"
# shellcheck disable=SC2016 # it is the stand-in that expands it
pretend sudo '[ "$1" != -n ] || exit 1
printf "[sudo] password for pi: " >/dev/tty
read -r password </dev/tty
[ "$password" = open ] || { echo "sudo: no" >&2; exit 1; }
exec /usr/bin/sudo "$@"'
# A user at a terminal, who answers questions.
at_a_terminal() {
    code=0
    said=$(timeout 60 python3 -c 'import os, pty, sys
asked, told = False, b""
def read(fd):
    global asked, told
    got = os.read(fd, 1024)
    told += got
    if not asked and b"password for pi: " in told:
        asked = True
        os.write(fd, b"open\n")
    return got
status = pty.spawn(sys.argv[1:], read, lambda fd: b"")
sys.exit(os.waitstatus_to_exitcode(status))' \
        "$scratch/project/flash.sh" --ssh-config "$scratch/ssh_config" "$@" 2>&1 | tr -d '\r') || code=$?
    printf '%s\n' "$said" >>"$scratch/everything"
}
at_a_terminal $BOARD pi@board --repair
check "ends well" ends_with 0
check "asks where it can be seen" says "password for pi: "
check "and says where it serves" says "mqtt at 127.0.0.1:8883"
at_a_terminal $BOARD pi@board --config "$scratch/none.conf"
check "says what is wrong with what is given" refuses "cannot be read"
printf 'PRINTER_IP=127.0.0.9\n' >"$scratch/none.conf"
at_a_terminal $BOARD pi@board --config "$scratch/none.conf"
check "and what the host finds wrong" refuses "invalid settings"
rm "$running/usr/local/bin/sudo"

begin "a second printer"
cp "$scratch/given.conf" "$scratch/garage.conf"
flash $BOARD pi@board --printer Garage --config "$scratch/garage.conf"
check "has a name that a unit can have" refuses "is no name for a printer"
sed -i '/^BIND_ADDRESS/d' "$scratch/garage.conf"
flash $BOARD pi@board --printer garage --config "$scratch/garage.conf"
check "needs an address of its own" refuses "need a BIND_ADDRESS"
printf 'BIND_ADDRESS=127.0.0.5\r\n' >>"$scratch/garage.conf"
flash $BOARD pi@board --printer garage --config "$scratch/garage.conf"
check "ends well" ends_with 0
garage_serves() {
    chroot "$running" /usr/local/bin/pandaproxy health --config /etc/pandaproxy/garage.conf \
        --state-dir /var/lib/pandaproxy/garage --ca-dir /var/lib/pandaproxy >/dev/null 2>&1
}
check "is served" garage_serves
check "beside the first" serves
check "by the same authority" not test -e "$running/var/lib/pandaproxy/garage/ca.pem"
check "settings are private" has_mode /etc/pandaproxy/garage.conf 640
flash $BOARD pi@board --printer garage --uninstall
check "is removed" ends_with 0
check "and not served" not garage_serves
check "while the first is" serves
check "and its settings stay" test -e "$running/etc/pandaproxy/garage.conf"

begin "over a Debian package"
mkdir -p "$running/lib/systemd/system"
: >"$running/lib/systemd/system/pandaproxy.service"
before=$(contents)
flash $BOARD pi@board --repair
check "is refused, with what to do" refuses "the Debian package is installed here"
check "nothing was changed" unchanged
rm "$running/lib/systemd/system/pandaproxy.service"

begin "--uninstall, under systemd"
flash $BOARD pi@board --uninstall
check "ends well" ends_with 0
check "the unit is gone" not test -e "$running/etc/systemd/system/pandaproxy.service"
check "with what stood beside it" not test -e "$running/etc/systemd/system/pandaproxy.service.d"
check "nobody serves" is "$(process)" ''

# ---- what none of it may have done -------------------------------------------------------------

begin "the access code"
check "was in no output" not grep -q "$CODE" "$scratch/everything"
check "was in no argument" not grep -q "$CODE" "$scratch/argv"
check "is in no log of the host" not grep -rq "$CODE" "$scratch/bare/var/log" "$scratch/debian/var/log"
check "and would have been found" grep -q "$CODE" "$scratch/given.conf"

begin "the example of all settings"
sed 's/^PRINTER_IP=.*/PRINTER_IP=127.0.0.9/; s/^ACCESS_CODE=.*/ACCESS_CODE=12345678/; s/^SERIAL_NUMBER=.*/SERIAL_NUMBER=01P/' \
    boards/service/pandaproxy.conf >"$scratch/example.conf"
code=0
said=$("dist/pandaproxy-$BOARD" health --config "$scratch/example.conf" --state-dir "$scratch" 2>&1) || code=$?
check "is understood with the first three filled in" ends_with 1
sed -i 's/^#\([A-Z_]*=\)/\1/' "$scratch/example.conf"
code=0
said=$("dist/pandaproxy-$BOARD" health --config "$scratch/example.conf" --state-dir "$scratch" 2>&1) || code=$?
check "and with every line of it" ends_with 1
for name in $("dist/pandaproxy-$BOARD" --help | grep -o '\[[A-Z_]*\]' | tr -d '[]' | grep -vxE 'PANDAPROXY_CONFIG|OPTIONS|COMMAND'); do
    check "has $name" grep -q "^#\?$name=" boards/service/pandaproxy.conf
done

if command -v systemd-analyze >/dev/null; then
    begin "the unit in systemd's own eyes"
    install -m 755 "dist/pandaproxy-$BOARD" "$scratch/pandaproxy"
    sed "s|/usr/local/bin/pandaproxy|$scratch/pandaproxy|" boards/service/pandaproxy.service >"$scratch/pandaproxy.service"
    said=$(systemd-analyze verify "$scratch/pandaproxy.service" 2>&1) || true
    check "nothing to complain of" is "$said" ''
    code=0
    said=$(systemd-analyze security --offline=yes --threshold=20 boards/service/pandaproxy.service 2>&1) || code=$?
    check "exposed by at most 2.0 of 10" ends_with 0
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
