#!/usr/bin/env bash
# flash.sh against scratch hosts: an sshd on loopback whose root is a folder, with and without
# systemd, with the real binary serving on its real ports as its own user.
#
# All of it happens in namespaces of its own (network, mounts, processes), so ports are fixed, no
# other machine hears of it, and nothing is left when it ends.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/flash/run.sh [--help]

Needs root, dist/pandaproxy-generic-x86_64 (boards/build.sh makes it), openssh-server, sudo,
busybox-static, openssl, python3, dpkg and iproute2. Prints a line a test, and `N passed, N failed`.
END
}

cd "$(dirname "$0")/../.."
case ${1-} in
--help) usage; exit 0 ;;
--inside) ;;
'')
    # Removed when the namespaces are gone, and with them every process and mount in it.
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch" || true' EXIT
    unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$scratch"
    exit
    ;;
*) echo "run.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac

# shellcheck source=tests/flash/host.sh
. tests/flash/host.sh
# shellcheck source=tests/readme.sh
. tests/readme.sh
README=$PWD/README.md
ip link set lo up

readonly BOARD=generic-x86_64 CODE=7Kq2xW9p
scratch=$2
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
printf '\xef\xbb\xbfPRINTER_IP=127.0.0.9\r\nACCESS_CODE=%s\r\nSERIAL_NUMBER=01P00A000000001\r\nBIND_ADDRESS=127.0.0.1\r\nSERVICES=mqtt,chamber,ftp,http\r\n' \
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
cp -r flash.sh boards src tests Cargo.toml Cargo.lock README.md LICENSE "$scratch/project/"
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

# The same for a command of README, in that copy of the project.
as_readme() {
    code=0
    said=$(cd "$scratch/project" && readme "$1" "${2-}" "--ssh-config $scratch/ssh_config" 2>&1) || code=$?
    printf '%s\n' "$said" >>"$scratch/everything"
}
# Fills in the first three settings of a file, as README says, with an address that a scratch host has.
readonly FILL_IN="s/^PRINTER_IP=.*/PRINTER_IP=127.0.0.9/; s/^ACCESS_CODE=.*/ACCESS_CODE=$CODE/
s/^SERIAL_NUMBER=.*/SERIAL_NUMBER=01P00A000000001/; s/^#BIND_ADDRESS=.*/BIND_ADDRESS=127.0.0.1/"

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
# One line, with where help is, and no help.
misuse() { [ "$code" = 2 ] && [ "$(wc -l <<<"$said")" = 1 ] && says "$1" && says "--help shows the options"; }
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
check "wants a host" misuse "$BOARD is a board, and the host is missing"
flash
check "wants a host at least" misuse "the host is missing"
code=0
said=$("$scratch/project/flash.sh" card /dev/sdX --yes 2>&1) || code=$?
check "wants the board of a card" misuse "the board is missing: ./flash.sh BOARD card"
flash $BOARD board other
check "wants no third word" misuse "'other' is one word too many"
flash $BOARD '-oProxyCommand=x'
check "takes no option for a host" misuse "the option -oProxyCommand=x is unknown"
flash $BOARD board --config
check "wants a file behind --config" misuse "--config needs a value"
flash $BOARD board --repair --uninstall
check "does not repair and remove at once" misuse "--uninstall goes with"
flash board --from "$scratch/given.conf" --build
check "does not take and build at once" misuse "--from and --build exclude each other"
flash board --from /no/such/file
check "names what it cannot read" refuses "/no/such/file cannot be read"
flash $BOARD board --config /no/such/file
check "names the settings it cannot read" refuses "/no/such/file cannot be read"
"$scratch/project/flash.sh" --help >"$scratch/help"
check "--help shows the command" grep -qF 'flash.sh [BOARD] [user@]HOST' "$scratch/help"

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

begin "the board is found by itself"
mkdir -p "$running/sys/firmware/devicetree/base"
model="$running/sys/firmware/devicetree/base/model"
printf 'Raspberry Pi 4 Model B Rev 1.4\0' >"$model"
flash board --dry-run --config "$scratch/given.conf"
check "by the system under a 64-bit kernel" says "  Raspberry Pi 4 Model B Rev 1.4, aarch64 with a 32-bit ARM system, "
check "for a 32-bit system a 32-bit binary" says "MiB of memory: generic-armv7"
printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000\267\000' >"$running/tmp/armhf"
flash board --dry-run --config "$scratch/given.conf"
check "for a 64-bit system that of the model" says "MiB of memory: rpi-4"
check "which would be built" says "would build dist/pandaproxy-rpi-4"
printf 'Raspberry Pi 3 Model A Plus Rev 1.0\0' >"$model"
flash rpi-4 board --dry-run --config "$scratch/given.conf"
check "and another that runs there is spoken of" says "note: board is Raspberry Pi 3 Model A Plus Rev 1.0, aarch64"
check "with the one of the model" says "whose board is rpi-zero-2w; rpi-4 runs there too"
# What a host says of itself is shown on a terminal.
printf 'Raspberry \033[31mPi 5 Model\nB\0' >"$model"
flash board --dry-run --config "$scratch/given.conf"
check "without what a terminal would obey" not grep -q $'\033' <<<"$said"
check "an unknown model gets the generic board" says "MiB of memory: generic-aarch64"
pretend uname 'echo riscv64'
flash board --dry-run
check "no board is said, with the reason" refuses "there is no board for board, which is Raspberry"
rm -r "$running/usr/local/bin/uname" "$running/usr/local/bin/readlink" "$running/tmp/armhf" "$running/sys"
flash board --dry-run --config "$scratch/given.conf"
check "a PC is one as well" says "MiB of memory: generic-x86_64"
check "and what is taken is said, with its age" says "taking dist/pandaproxy-$BOARD, version $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1), "
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
umount -l "$running/usr/local/bin"
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
check "says what is wrong with the printer" says "    ✗ "
check "and not that all is well" not says "healthy"
check "and what to do next" says "  next:"
check "where the log is" says "    log       ssh -t board "
check "how it is restarted" says "    restart   ssh -t board /etc/init.d/pandaproxy restart"
check "and how clients come to trust it" says "    trust     ssh board pandaproxy ca > pandaproxy-ca.pem"
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

begin "what a release has, without Rust"
project=$scratch/project version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
tarball=dist/release/pandaproxy-$version-$BOARD.tar.gz
"$project/boards/release.sh" "$version" $BOARD >/dev/null
touch -d '3 days ago' "$project/$tarball"
check "what check says is explained in it" tar -tf "$project/$tarball" "pandaproxy-$version-$BOARD/TROUBLESHOOTING.md"
flash board --from "$project/$tarball"
check "a tarball is taken" says "taking $project/$tarball, 3 days old"
touch "$project/$tarball"
check "and is what is there already" says "nothing to do"
flash board --from "$project/dist/release"
check "or the folder with it" says "taking $project/$tarball"
flash board --from "$project/dist"
check "or the folder above" says "taking $project/$tarball"
rm "$project/dist/pandaproxy-$BOARD"
flash board
check "that of this version is found" says "taking $tarball, version $version, "
check "and is what is there already" says "nothing to do"
flash board --dry-run --build
check "unless one is to be built" says "would build dist/pandaproxy-$BOARD"
touch "$project/src/lib.rs"
flash board --dry-run
check "one that is older than the source is built anew" says "would build dist/pandaproxy-$BOARD"
# Every program but cargo.
mkdir "$scratch/without"
IFS=: read -r -a folders <<<"$PATH"
for folder in "${folders[@]}"; do ln -s "$folder"/* "$scratch/without/" 2>/dev/null || true; done
rm -f "$scratch/without/cargo"
PATH=$scratch/without flash board
check "but taken where there is no Rust, and that is said" says "older than the source here, and there is no Rust"
check "and is what is there already" says "nothing to do"
rm "$project/$tarball"
PATH=$scratch/without flash board
check "without any, it is said what to do" refuses "give it with --from, or install Rust"
flash board --from "$project/dist"
check "an empty folder is refused" refuses "$project/dist has nothing for $BOARD"
printf 'no archive' >"$scratch/broken.tar.gz"
flash board --from "$scratch/broken.tar.gz"
check "a broken tarball is refused" refuses "broken.tar.gz cannot be unpacked"
fresh_binary
cp "$project/dist/pandaproxy-$BOARD" "$project/dist/pandaproxy-rpi-3"
"$project/boards/release.sh" "$version" rpi-3 >/dev/null
flash board --from "$project/dist/release/pandaproxy-$version-rpi-3.tar.gz"
check "another board's tarball is refused" refuses "is not for board: wrong architecture: the binary is for aarch64"
rm -r "$project/dist/release" "$project/dist/pandaproxy-rpi-3"
flash board --from "dist/pandaproxy-$BOARD"
check "a binary is taken" says "nothing to do"
flash board --from "$scratch/pandaproxy_1.deb"
check "a file that is not there is said" refuses "cannot be read"
: >"$scratch/pandaproxy_1_amd64.deb"
flash board --from "$scratch/pandaproxy_1_amd64.deb"
check "a package needs apt" refuses "board has no apt and systemd"
check "nothing was changed" unchanged
check "nothing was left" nothing_staged

begin "links that the service's user has put into its directory, and other settings"
: >"$running/etc/of-root"
ln "$running/etc/of-root" "$running/var/lib/pandaproxy/hard"
ln -s /etc/of-root "$running/var/lib/pandaproxy/soft"
cp "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem" || true
flash $BOARD board --config "$scratch/changed.conf"
check "are taken" is_same "$running/etc/pandaproxy/pandaproxy.conf" "$scratch/changed.conf"
check "by a restart" not is "$(process)" "$id"
check "and its authority stays" is_same "$running/var/lib/pandaproxy/ca.pem" "$scratch/ca.pem"
check "the links give it no file" is "$(stat -c %u "$running/etc/of-root")" 0
rm "$running/etc/of-root" "$running/var/lib/pandaproxy/hard" "$running/var/lib/pandaproxy/soft"

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

begin "an installation that is ended in its trial"
before=$(contents)
# shellcheck disable=SC2016 # it is the stub that expands it
stub='#!/bin/sh
case $* in
--version) echo "pandaproxy that does nothing" ;;
health*) echo "pandaproxy health: not yet" >&2; exit 1 ;;
*) echo "it starts"; sleep 600 ;;
esac'
is_on_trial() { is_new && grep -qs 'it starts' "$running/run/pandaproxy/last" "$running/var/log/service"; }
is_new() { grep -qs 'that does nothing' "$running/usr/local/bin/pandaproxy"; }
# Runs flash.sh with these words until a binary that is never ready is on trial.
begin_trial() {
    printf '%s\n' "$stub" >"$scratch/project/dist/pandaproxy-$BOARD"
    "$scratch/project/flash.sh" --ssh-config "$scratch/ssh_config" $BOARD "$@" >/dev/null 2>&1 &
    flashing=$!
    for _ in $(seq 1 1200); do if is_on_trial; then break; fi; sleep 0.1; done
    check "is on trial" is_on_trial
}
begin_trial board
for id in $(ps -eo pid=,args= | awk '/pandaproxy\/install\.sh/ && !/ssh|awk/ { print $1 }'); do
    # One may have ended with the one before it.
    kill -9 "$id" 2>/dev/null || true
done
wait $flashing || true
check "leaves the new binary" is_new
printf '%s\n# another\n' "$stub" >"$scratch/project/dist/pandaproxy-$BOARD"
flash $BOARD board
check "the next one says so" says "note: the installation before this one was interrupted"
check "and restores what worked last if it fails" says "the previous version is restored, and healthy"
check "to the byte" unchanged
check "which serves" serves
rm -rf "$running"/tmp/tmp.*

# Ends all that runs on the host, and runs a command that its next start runs; what that says is in $said.
cut_power() {
    # What was running has this root.
    switch_to "$running"
    wait $flashing || true
    rm -rf "$running/run/pandaproxy" "$running"/tmp/tmp.*
    said=$(chroot "$running" "$@" 2>&1) || true
    for _ in $(seq 1 100); do if serves; then break; fi; sleep 0.1; done
}
nothing_kept() { [ -z "$(find "$running/usr/local/lib/pandaproxy" "$running/usr/local/bin" "$running/etc" -name 'trying*' -o -name undone -o -name '*.new')" ]; }
begin "a power failure in the trial"
begin_trial board --config "$scratch/given.conf"
check "with other settings" not is_same "$running/etc/pandaproxy/pandaproxy.conf" "$scratch/changed.conf"
# As whatever has the same process id then.
echo 1 >"$running/usr/local/lib/pandaproxy/trying/process"
cut_power /etc/init.d/pandaproxy start
check "the next start has the version from before" unchanged
check "which it says" says "WARN  install.sh: an installation was interrupted; the version from before it is back"
check "and serves" serves
check "and nothing is left of the trial" nothing_kept
begin_trial board
cp "$running/usr/local/lib/pandaproxy/trying/usr/local/bin/pandaproxy" "$running/usr/local/bin/by_hand"
printf 'by hand' >>"$running/usr/local/bin/by_hand"
mv "$running/usr/local/bin/by_hand" "$running/usr/local/bin/pandaproxy"
cut_power /etc/init.d/pandaproxy start
check "a binary that was put there since stays" grep -q 'by hand' "$running/usr/local/bin/pandaproxy"
check "and nothing is left of the trial, either" nothing_kept
fresh_binary
flash $BOARD board
check "the next installation has no interruption to speak of" not says interrupted
check "and ends well" ends_with 0

begin "no space for the settings, when the binary is in its place already"
folder=$running/etc/pandaproxy
cp -a "$folder" "$scratch/settings"
mount -t tmpfs -o "size=16k,mode=750,gid=$(stat -c %g "$folder")" tmpfs "$folder"
cp -a "$scratch/settings/." "$folder"
dd if=/dev/zero of="$folder/fill" bs=4k status=none 2>/dev/null || true
before=$(contents)
flash $BOARD board --config "$scratch/given.conf"
check "is said" says "No space left on device"
check "and what became of it" refuses "aborted; the previous version is restored, and healthy"
check "the settings are those from before" is_same "$folder/pandaproxy.conf" "$scratch/settings/pandaproxy.conf"
check "nothing is left beside them" not test -e "$folder/pandaproxy.conf.new"
check "nothing else was changed" unchanged
check "and it serves" serves
# The script asks its service now and then, which reads there.
umount -l "$folder"

begin "a port that is taken by another program"
before=$(contents)
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

begin "its log, by README's command"
chroot "$running" /bin/busybox syslogd -C64
line=$(readme_line 'logread')
ssh -F "$scratch/ssh_config" board "$line" >"$scratch/followed" 2>&1 &
following=$!
# It shows what comes from now on.
followed() {
    local try
    for try in $(seq 1 100); do
        if grep -q "$1" "$scratch/followed"; then return; fi
        # Only the first lines are those of the test.
        [ -n "${2-}" ] || chroot "$running" /bin/busybox logger "is it followed? $try"
        sleep 0.2
    done
    return 1
}
followed 'is it followed' || true
kill -9 "$(process)"
check "has its lines" followed 'pandaproxy: .*listening on' only
kill $following

begin "--uninstall"
flash $BOARD board --uninstall --dry-run
check "says what would go" says "would stop and remove: /usr/local/bin/pandaproxy"
check "and it serves on" serves
flash $BOARD board --uninstall
check "ends well" ends_with 0
check "no process serves" is "$(process)" ''
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
(cd "$scratch/project" && readme 'cp boards/service/pandaproxy.conf')
sed -i "$FILL_IN" "$scratch/project/pandaproxy.conf"
as_readme './flash.sh pi@' 's/raspberrypi.local/board/'
check "ends well, by README's command" ends_with 0
check "says what is wrong with the printer" says "    ✗ "
check "and where the page is" says "    page      http://127.0.0.1:8080  (user bblp and the access code)"
check "it serves" serves
check "as its own user" not is "$(stat -c %u "/proc/$(process)")" 0
check "systemd was told in order" is "$(calls | grep -vE 'is-failed|list-units' | tr '\n' ';')" \
    "daemon-reload;--quiet enable pandaproxy;reset-failed pandaproxy;restart pandaproxy;"
check "the unit is there" is_same "$running/etc/systemd/system/pandaproxy.service" boards/service/pandaproxy.service
check "and the board's limit" grep -qx 'MemoryMax=128M' "$running/etc/systemd/system/pandaproxy.service.d/board.conf"
check "nothing was left" nothing_staged

# A check takes six seconds, and one was made.
# shellcheck disable=SC2016 # it is the substitute that expands it
pretend timeout 'case " $* " in *" check "*) echo "no check" ;; *) exec busybox timeout "$@" ;; esac'

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

begin "a power failure in the trial, under systemd"
before=$(contents)
begin_trial pi@board
cut_power systemctl restart pandaproxy
check "the next start has the version from before" unchanged
check "and serves" serves
check "and nothing is left of the trial" nothing_kept
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
check "and says what to do next" says "    log       ssh -t pi@board sudo journalctl -u pandaproxy -f"
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
# One that has failed, as systemd knows it.
kill "$(cat "$running/run/service.pid")"
flash $BOARD pi@board --printer garage --uninstall
check "is removed" ends_with 0
check "but not the binary, which the first needs, though that does not run" test -e "$running/usr/local/bin/pandaproxy"
chroot "$running" systemctl restart pandaproxy
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

begin "--uninstall, under systemd, while a printer is served by the Debian package"
cp "$running/usr/local/bin/pandaproxy" "$running/usr/bin/pandaproxy"
sed 's|/usr/local/bin/|/usr/bin/|g' boards/service/pandaproxy@.service >"$running/lib/systemd/system/pandaproxy@.service"
chroot "$running" systemctl restart pandaproxy@garage
garage=$(cat "$running/run/servicegarage.pid")
of_package() { [ "$(readlink "/proc/$garage/exe")" = "$running/usr/bin/pandaproxy" ]; }
check "that one serves" of_package
as_readme './flash.sh HOST --uninstall' 's/HOST/pi@board/'
check "ends well, by README's command" ends_with 0
check "its binary is gone" not test -e "$running/usr/local/bin/pandaproxy"
check "with what it kept" not test -e "$running/usr/local/lib/pandaproxy"
check "the package's serves on" of_package
kill "$garage"
rm "$running/usr/bin/pandaproxy" "$running/lib/systemd/system/pandaproxy@.service"
check "the unit is gone" not test -e "$running/etc/systemd/system/pandaproxy.service"
check "with what stood beside it" not test -e "$running/etc/systemd/system/pandaproxy.service.d"
check "no process serves" is "$(process)" ''

begin "a tarball, by README's commands"
"$project/boards/release.sh" 9.9.9 $BOARD >/dev/null
mkdir "$running/home/pi/downloads"
cp "$project/dist/release/pandaproxy-9.9.9-$BOARD.tar.gz" "$running/home/pi/downloads/"
printf '%s\n' "$FILL_IN" >"$running/home/pi/downloads/fill_in"
chown -R 1000:1000 "$running/home/pi/downloads"
rm -r "$project/dist/release"
on_board() {
    code=0
    said=$(ssh -F "$scratch/ssh_config" pi@board "$1" 2>&1) || code=$?
    printf '%s\n' "$said" >>"$scratch/everything"
}
unpack="cd downloads && $(readme_line 'tar xzf' "s/rpi-zero-2w/$BOARD/") && $(readme_line 'cd pandaproxy-')"
on_board "$unpack && sed -i -f ../fill_in pandaproxy.conf && $(readme_line 'sudo ./install.sh --config')"
check "is installed" ends_with 0
check "says what to do next" says "    page      http://127.0.0.1:8080"
check "in this machine's own words" says "    restart   sudo systemctl restart pandaproxy"
check "it serves" serves
on_board "cd downloads && $(readme_line 'cd pandaproxy-') && $(readme_line 'sudo ./install.sh --uninstall')"
check "is removed" ends_with 0
check "no process serves" is "$(process)" ''

# ---- a Debian package --------------------------------------------------------------------------

# What install.sh asks apt and dpkg for, with substitutes that unpack: the package's own scripts, and apt itself, are
# run by tests/package.
begin "a Debian package by apt"
mkdir -p "$scratch/deb/DEBIAN" "$scratch/deb/usr/bin" "$scratch/deb/lib/systemd/system" "$project/dist/release"
printf 'Package: pandaproxy\nVersion: %s\nArchitecture: amd64\nMaintainer: none\nDescription: a test\n' "$version" \
    >"$scratch/deb/DEBIAN/control"
cp "dist/pandaproxy-$BOARD" "$scratch/deb/usr/bin/pandaproxy"
for unit in boards/service/*.service; do
    sed 's|/usr/local/bin/|/usr/bin/|' "$unit" >"$scratch/deb/lib/systemd/system/$(basename "$unit")"
done
package=dist/release/pandaproxy_${version}_amd64.deb
dpkg-deb -Znone --root-owner-group -b "$scratch/deb" "$project/$package" >/dev/null
bring "$running" /usr/bin/dpkg-deb
rm -f "$running/bin/tar"
bring "$running" /bin/tar
# shellcheck disable=SC2016 # it is the substitute that expands it
pretend apt-get 'for file in "$@"; do :; done
case " $* " in
*" remove "*) rm /usr/bin/pandaproxy /lib/systemd/system/pandaproxy* ;;
*" install "*)
    [ ! -e /tmp/full ] || { echo "E: no space left" >&2; exit 100; }
    dpkg-deb -x "$file" / && { id pandaproxy >/dev/null 2>&1 || useradd --system --user-group pandaproxy; }
    mkdir -p /etc/pandaproxy /var/lib/pandaproxy && chown pandaproxy: /var/lib/pandaproxy && chmod 700 /var/lib/pandaproxy ;;
esac'
pretend dpkg 'echo amd64'
# shellcheck disable=SC2016
pretend dpkg-query '[ -e /usr/bin/pandaproxy ] || exit 1
case $* in *Status*) echo installed ;; *) echo '"$version"' ;; esac'
packaged() { for id in /proc/[0-9]*; do if [ "$(readlink "$id/exe")" = "$running/usr/bin/pandaproxy" ]; then basename "$id"; fi; done; }
rm "$running/etc/pandaproxy/pandaproxy.conf" "$project/dist/pandaproxy-$BOARD"
flash pi@board
check "needs settings at first" refuses "there are no settings yet: give --config FILE"
flash pi@board --config "$scratch/typo.conf"
check "understands the settings before it is installed" refuses "unknown setting PRINTR_IP"
: >"$running/tmp/full"
flash pi@board --config "$scratch/given.conf"
check "an apt that fails is said" refuses "apt-get could not install it: E: no space left"
rm "$running/tmp/full"
check "and nothing is there" not test -e "$running/etc/pandaproxy/pandaproxy.conf"
rm "$running/usr/local/bin/timeout"
flash pi@board --config "$scratch/given.conf"
check "ends well" ends_with 0
check "that of this version is found" says "taking $package, version $version, "
check "is installed by apt" says "installed by apt, started by systemd"
check "serves" test -n "$(packaged)"
check "with its settings, which are private" has_mode /etc/pandaproxy/pandaproxy.conf 640
check "says what is wrong with the printer" says "    ✗ "
check "and what to do next" says "    restart   ssh -t pi@board sudo systemctl restart pandaproxy"
id=$(packaged)
flash pi@board
check "a second run has nothing to do" says "nothing to do"
check "and restarts nothing" is "$(packaged)" "$id"
take_port 9900
flash pi@board --config "$scratch/taken.conf"
kill $taken
check "settings that it does not start with are undone" refuses "and the settings from before are back"
check "to the byte" is_same "$running/etc/pandaproxy/pandaproxy.conf" "$scratch/given.conf"
check "and it serves" test -n "$(packaged)"
fresh_binary
flash pi@board --from "dist/pandaproxy-$BOARD"
check "no binary is put beside it" refuses "the Debian package is installed here"
flash pi@board --uninstall
check "is removed by apt" says "the Debian package is removed; settings and certificates stay"
check "and no program is left to serve" not test -e "$running/usr/bin/pandaproxy"
rm "$running"/usr/local/bin/{apt-get,dpkg,dpkg-query}

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
