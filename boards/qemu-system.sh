#!/usr/bin/env bash
# A whole emulated Raspberry Pi, from its kernel on, with the board's own binary between a simulated printer
# and real clients.
set -euo pipefail

usage() {
    cat <<'END'
usage: boards/qemu-system.sh [--dry-run] BOARD

Boots Debian's kernel for that Raspberry Pi in QEMU with dist/pandaproxy-BOARD (boards/build.sh makes it)
and nothing else but busybox, its clock in 1970. The printer is a simulated P1S on this machine;
clients on this machine use every service that the proxy says it serves, through the emulated USB
network. A second proxy stands before a simulated X1C, for the other camera. Then the first one's peak
memory is compared with its budget. Ends with one line, `N passed, N failed`. The console is kept in
target/qemu-system/BOARD/console.log.

  --dry-run   say what would be run, and run nothing
END
}
# shellcheck source=/dev/null
. "$(dirname "$0")/board.sh"

# How long the machine may take to serve, and what is asked of it after that, in seconds.
readonly BOOT_WITHIN=240 ANSWER_WITHIN=90

dry='' board=''
for option in "$@"; do
    case $option in
    --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    -*) misuse "the option $option is unknown" ;;
    *) [ -z "$board" ] || misuse "'$option' is one word too many"
       board=$option ;;
    esac
done
[ -n "$board" ] || misuse "the board is missing"

cd "$(dirname "$0")/.."
read_board "$board"
binary=dist/pandaproxy-$board
[ -f "$binary" ] || [ -n "$dry" ] || die "there is no $binary: boards/build.sh $board"

# What differs between the machines: Debian's architecture and kernel, the device tree, the modules
# that the emulated network needs, the drivers that QEMU has no model for, and the serial port.
case $QEMU_MACHINE in
raspi0)
    arch=armel kernel=linux-image-rpi emulator=qemu-system-arm tree=bcm2835-rpi-zero.dtb
    # An ARMv6 without a cycle counter may wait for random numbers for ever, unless the Pi's generator is there.
    modules=(bcm2835-rng cdc_ether)
    append='initcall_blacklist=bcm2835_power_driver_init,bcm2835_pm_driver_init console=ttyAMA0,115200'
    serials=(-serial) ;;
raspi3b)
    arch=arm64 kernel=linux-image-arm64 emulator=qemu-system-aarch64
    tree=broadcom/bcm2837-rpi-3-b.dtb
    modules=(phy-generic dwc2 cdc_ether)
    append='console=ttyS1,115200'
    serials=(-serial null -serial) ;;
*) die "no machine of QEMU is known for $board" ;;
esac

need "$emulator" qemu-system-arm ipxe-qemu
need cpio cpio
need modprobe kmod
need python3 python3
need mosquitto_sub mosquitto-clients
need curl curl
need openssl openssl
need ffmpeg ffmpeg

work=target/qemu-system/$board
packages=target/qemu-system/$arch
console=$work/console.log

# ---- the machine's software ------------------------------------------------------------------------

if [ ! -e "$packages/unpacked" ]; then
    dpkg --print-foreign-architectures | grep -qx "$arch" || {
        [ "$(id -u)" = 0 ] || die "as root: dpkg --add-architecture $arch && apt-get update"
        run dpkg --add-architecture "$arch"
        run apt-get update || true
    }
    image=$(apt-cache depends "$kernel:$arch" | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p')
    [ -n "$image" ] || [ -n "$dry" ] || die "apt knows no $kernel:$arch; apt-get update?"
    run rm -rf "$packages"
    run mkdir -p "$packages"
    (
        [ -n "$dry" ] || cd "$packages"
        run apt-get download "$image:$arch" "busybox-static:$arch"
        for package in *.deb; do
            run dpkg -x "$package" .
        done
        run rm -f ./*.deb
        run touch unpacked
    )
fi
if [ -n "$dry" ]; then
    run "$emulator" -M "$QEMU_MACHINE" -append "$append"
    exit 0
fi
version=$(basename "$packages"/lib/modules/*)

rm -rf "$work"
mkdir -p "$work/root"/{bin,dev,modules,proc,state,sys}
cp "$packages/bin/busybox" "$work/root/bin/"
cp boards/qemu-guest.sh "$work/root/init"
cp "$binary" "$work/root/pandaproxy"
chmod 755 "$work/root/init"
depmod -b "$packages" "$version"
: >"$work/root/modules/order"
for module in "${modules[@]}"; do
    modprobe -d "$packages" -S "$version" --show-depends "$module" | while read -r what path _; do
        [ "$what" = insmod ] || continue
        grep -qx "$(basename "$path")" "$work/root/modules/order" && continue
        cp "$path" "$work/root/modules/"
        basename "$path" >>"$work/root/modules/order"
    done
done

# ---- the printer -----------------------------------------------------------------------------------

children=()
end() {
    for child in "${children[@]}"; do
        kill "$child" 2>/dev/null || true
    done
}
trap end EXIT

# until_in FILE SECONDS PATTERN: waits for a line, and prints the first.
until_in() {
    local file=$1 seconds=$2 pattern=$3
    for ((waited = 0; waited < seconds * 5; waited++)); do
        grep -m1 -aE -- "$pattern" "$file" 2>/dev/null && return
        sleep 0.2
    done
    return 1
}

code=7Kq2xW9p
cargo build --locked --quiet --example printer

# printer MODEL LINE OPTION...: starts a simulated printer and waits for a line that begins with LINE.
printer() {
    local model=$1 line=$2
    shift 2
    target/debug/examples/printer --model "$model" --access-code "$code" --port 0 "$@" >"$work/$model.log" 2>&1 &
    children+=($!)
    until_in "$work/$model.log" 20 "^$line " >/dev/null || die "the simulated $model does not start"
}
serial_of() {
    sed -n 's/^serial //p' "$work/$1.log"
}
port_of() {
    sed -n "s/^$2 127.0.0.1://p" "$work/$1.log"
}

printer p1s 'ftp on' --camera-port 0 --ftp-port 0
printer x1c ca --rtsp-port 0 --tunnel-port 0
serial=$(serial_of p1s)

# ---- the machine -----------------------------------------------------------------------------------

# Free ports of this machine; a transfer's has the same number inside. They are held until the end: QEMU can listen at a port that is
# held like this, and nothing else is given it.
python3 -c '
import signal, socket
held = [socket.socket() for _ in range(8)]
for one in held:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held), flush=True)
signal.pause()' >"$work/ports" &
children+=($!)
until_in "$work/ports" 20 . >/dev/null || die "no ports are free"
read -r mqtt chamber ftp data x1c memory detect detect_tls <"$work/ports"
# UDP ports cannot be held: this one is free now.
ssdp=$(python3 -c 'import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("127.0.0.1", 0))
print(one.getsockname()[1])')
forward="hostfwd=tcp:127.0.0.1:$mqtt-:8883,hostfwd=tcp:127.0.0.1:$chamber-:6000"
forward+=",hostfwd=tcp:127.0.0.1:$ftp-:990,hostfwd=tcp:127.0.0.1:$data-:$data"
forward+=",hostfwd=tcp:127.0.0.1:$detect-:3000,hostfwd=tcp:127.0.0.1:$detect_tls-:3002"
forward+=",hostfwd=udp:127.0.0.1:$ssdp-:2021"
forward+=",hostfwd=tcp:127.0.0.1:$x1c-:3220,hostfwd=tcp:127.0.0.1:$memory-:7"

cat >"$work/root/pandaproxy.conf" <<END
PRINTER_IP=10.0.2.2
ACCESS_CODE=$code
SERIAL_NUMBER=$serial
PRINTER_PORTS=mqtt=$(port_of p1s 'listening on'),chamber=$(port_of p1s 'camera listening on'),ftp=$(port_of p1s 'ftp on')
FTP_DATA_PORTS=$data
PRINTER_CA=/printer-ca.pem
END
cat >"$work/root/x1c.conf" <<END
PRINTER_IP=10.0.2.2
ACCESS_CODE=$code
SERIAL_NUMBER=$(serial_of x1c)
SERVICES=camera
PORTS=chamber=6001,rtsp=3220
PRINTER_PORTS=chamber=$(port_of x1c 'tunnel listening on'),rtsp=$(port_of x1c 'rtsp listening on')
PRINTER_CA=/printer-ca.pem
END
cp tests/printer/pki/ca.pem "$work/root/printer-ca.pem"
(cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/initramfs.gz"

# Its timer's model loses events; what makes them good ends with the machine.
timer=()
if [ "$QEMU_MACHINE" = raspi0 ]; then
    rm -f "$work/registers.socket"
    timer=(-accel tcg -qtest-log none -qtest "unix:$work/registers.socket,server=on,wait=off")
    python3 tests/card/qemu_timer.py "$work/registers.socket" >"$work/timer.log" 2>&1 &
    children+=($!)
fi
begun=$SECONDS
"$emulator" -M "$QEMU_MACHINE" -kernel "$packages/boot/vmlinuz-$version" \
    -dtb "$packages/usr/lib/linux-image-$version/$tree" -initrd "$work/initramfs.gz" \
    -append "$append panic=-1 rdinit=/init" -display none -monitor none -no-reboot \
    "${serials[@]}" "file:$console" \
    "${timer[@]}" -netdev "user,id=n0,$forward" -device usb-net,netdev=n0 >"$work/qemu.log" 2>&1 &
machine=$!
children+=("$machine")

# ---- what is asked of it ---------------------------------------------------------------------------

passed=0 failed=0
# check WHAT COMMAND...: the command's success is the answer.
check() {
    local what=$1
    shift
    if "$@" >>"$work/clients.log" 2>&1; then
        passed=$((passed + 1))
        printf '%4d s ok      %s\n' "$((SECONDS - begun))" "$what"
    else
        failed=$((failed + 1))
        printf '%4d s FAILED  %s\n' "$((SECONDS - begun))" "$what"
    fi
}

starts_in_1970() {
    grep -qa 'guest: year 1970, ' "$console"
}

# The full state comes first, from a proxy whose authority is trusted.
mqtt_state() {
    timeout "$ANSWER_WITHIN" mosquitto_sub -h localhost -p "$mqtt" -u bblp -P "$code" \
        --cafile "$work/ca.pem" -t "device/$serial/report" -C 1 | grep -q '"gcode_state"'
}

mqtt_request() {
    timeout "$ANSWER_WITHIN" mosquitto_pub -h localhost -p "$mqtt" -u bblp -P "$code" \
        --cafile "$work/ca.pem" -t "device/$serial/request" -q 1 -m "{\"from\":\"$board\"}"
    until_in "$work/p1s.log" "$ANSWER_WITHIN" "request of .*from.*$board"
}

chamber_pictures() {
    timeout "$ANSWER_WITHIN" python3 tests/support/clients/viewer.py localhost "$chamber" 2 "$work/ca.pem" <<<"$code"
}

# The X1C's: a P1S has no RTSPS camera, and so its proxy has that port closed.
rtsp_options() {
    {
        printf 'OPTIONS rtsps://localhost/streaming/live/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n'
        sleep 10
    } | timeout "$ANSWER_WITHIN" openssl s_client -quiet -no_ign_eof -connect "localhost:$x1c" \
        -CAfile "$work/ca.pem" -verify_return_error -verify_hostname localhost | grep -m1 '^RTSP/1.0 200'
}

# is_detected PORT [CA]: asks the proxy by detect for the printer's serial number.
is_detected() {
    timeout "$ANSWER_WITHIN" python3 tests/support/clients/detect.py localhost "$@" | grep -q "\"id\": \"$serial\""
}

# A search is answered with the serial number, once the printer is announced.
is_found() {
    timeout "$ANSWER_WITHIN" python3 -c '
import socket, sys
search = (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1990\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n"
          b"ST: urn:bambulab-com:device:3dprinter:1\r\n\r\n")
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(2)
while True:
    client.sendto(search, ("127.0.0.1", int(sys.argv[1])))
    try:
        answer = client.recv(4096).decode()
    except TimeoutError:
        continue
    print(answer)
    sys.exit("USN: " + sys.argv[2] not in answer)
' "$ssdp" "$serial"
}

# The hash of each picture of a stream.
hashes() {
    ffmpeg -nostdin -hide_banner -loglevel error "$@" -fps_mode passthrough -f framemd5 - | grep -v '^#' | sed 's/.*, *//'
}

# A player's pictures are the camera's, to the bit.
rtsp_pictures() {
    local recorded seen
    recorded=$(hashes -i tests/traces/rtsp/camera.h264) || return
    seen=$(timeout "$ANSWER_WITHIN" bash -c "$(declare -f hashes); hashes \"\$@\"" - -rtsp_transport tcp \
        -i "rtsps://bblp:$code@localhost:$x1c/streaming/live/1" -frames:v 30) || return
    [ "$(wc -l <<<"$seen")" = 30 ] && ! grep -qvxFf <(printf '%s' "$recorded") <<<"$seen"
}

curl_ftps() {
    curl -sS --max-time "$ANSWER_WITHIN" --cacert "$work/ca.pem" -K - "$@" <<<"user = \"bblp:$code\""
}

# Uploads 300 KB of the binary, downloads them and compares.
ftp_there_and_back() {
    head -c 300000 "$binary" >"$work/sent.3mf"
    curl_ftps -T "$work/sent.3mf" "ftps://localhost:$ftp/"
    curl_ftps -o "$work/back.3mf" "ftps://localhost:$ftp/sent.3mf"
    cmp "$work/sent.3mf" "$work/back.3mf"
}

# The pages of its own file are counted in, though the budget does not name them.
memory_within_budget() {
    [ -n "$peak" ] && [ "$peak" -le "$budget" ]
}

nothing_broke() {
    ! grep -qaE 'panicked|heap limit of' "$console"
}

give_up() {
    tail -n 60 "$console" || true
    cat "$work/qemu.log"
    die "$1; the console is in $console"
}

ready="mqtt     listening on "
if ! until_in "$console" "$BOOT_WITHIN" "$ready" >/dev/null; then
    give_up "the emulated $board does not serve within $BOOT_WITHIN s"
fi
until_in "$console" 20 'guest: ca -----END' >/dev/null || give_up "the proxy's CA was not printed"
until_in "$console" 60 'the printer is connected' >/dev/null || give_up "the proxy does not find its printer"
tr -d '\r' <"$console" | sed -n 's/^guest: ca //p' >"$work/ca.pem"
printf 'serves after %d s, kernel and all\n' "$((SECONDS - begun))"

check 'the clock starts in 1970' starts_in_1970
mapfile -t services < <(sed -n "s/.* \([a-z][a-z-]*\)  *listening on .*/\1/p" "$console" | sort -u)
for service in "${services[@]}"; do
    case $service in
    mqtt)
        check 'mqtt: a client that checks the certificate gets the full state' mqtt_state
        check 'mqtt: a request reaches the printer' mqtt_request ;;
    chamber) check 'chamber: a viewer sees two pictures' chamber_pictures ;;
    rtsp) check 'rtsp: a player that checks the certificate is answered' rtsp_options ;;
    ftp) check 'ftp: a file there and back' ftp_there_and_back ;;
    ssdp) check 'ssdp: a search finds the printer' is_found ;;
    detect) check 'detect: the serial number is told' is_detected "$detect" ;;
    detect-tls) check 'detect: and over TLS' is_detected "$detect_tls" "$work/ca.pem" ;;
    *) check "$service: this script has no client for it" false ;;
    esac
done

check 'rtsp: ffmpeg decodes 30 pictures of an X1C, each as it was recorded' rtsp_pictures

# In KiB; nothing if the proxy has ended.
peak=$(timeout "$ANSWER_WITHIN" cat <"/dev/tcp/127.0.0.1/$memory" || true)
budget=$(tr -d '\r' <"$console" | sed -n 's/.*guest: budget sum: the most this build holds *\([0-9]*\)$/\1/p')
check "memory: the proxy is still there, and had at most ${peak:-?} KiB resident; the budget is $budget KiB" \
    memory_within_budget
check 'no proxy met a bound that ends it' nothing_broke

[ "$failed" = 0 ] || tail -n 60 "$console" "$work/clients.log"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
