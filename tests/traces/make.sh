#!/usr/bin/env bash
# Makes the recordings that tests replay: real clients, through the program, to the simulated printer.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/traces/make.sh [--help] [--out DIR] [NAME...]

Records conversations of mosquitto, curl, lftp, ffmpeg and openssl through a proxy with the simulated
printer, and puts them into DIR (tests/traces, if it is not given) as <service>/<NAME>.pcapng. Builds the
program first. `BLESS=1 cargo test --test simulated replay` then writes what is expected of each.

  p1s-joins    mqtt      full state and deltas of a P1S, for two clients that come one after another
  p1s-requests mqtt      requests, one with a wrong code, one for another printer
  x1c-joins    mqtt      the same of an X1C
  x1c-signed   mqtt      signed commands to an X1C
  pictures     chamber   a viewer, and one with a wrong code
  player       rtsp      ffmpeg
  curl         ftp       uploads and a listing
  lftp         ftp       the same
END
}

names=() out=tests/traces
while [ "$#" -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --out) out=$(realpath -m "$2"); shift ;;
    p1s-joins | p1s-requests | x1c-joins | x1c-signed | pictures | player | curl | lftp) names+=("$1") ;;
    *) echo "make.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
    esac
    shift
done
[ "${#names[@]}" -gt 0 ] ||
    names=(p1s-joins p1s-requests x1c-joins x1c-signed pictures player curl lftp)

cd "$(dirname "$0")/../.."
for program in mosquitto_sub mosquitto_pub curl lftp ffmpeg openssl; do
    command -v "$program" >/dev/null || { printf '%s is not installed\n' "$program" >&2; exit 1; }
done
cargo build --quiet --locked --bin pandaproxy --example printer

code=84736251
printer_at=127.0.0.2 proxy_at=127.0.0.3
scratch=$(mktemp -d) running=()
trap 'kill "${running[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT

# Waits for a line in a log, 20 seconds at most, and prints the last part of it that matches.
line() {
    local log=$1 pattern=$2
    for _ in {1..200}; do
        if grep -q "$pattern" "$log"; then
            grep -m1 -o "$pattern" "$log"
            return
        fi
        sleep 0.1
    done
    printf 'no %s in:\n' "$pattern" >&2
    cat "$log" >&2
    return 1
}

# The number at the end of such a line.
port() { line "$1" "$2" | sed 's/.*[^0-9]//'; }

# Starts a printer and the program before it, which records.
#   set_up MODEL SERVICES PRINTER_OPTION...
set_up() {
    local model=$1 services=$2
    shift 2
    rm -rf "${scratch:?}"/*
    mkdir "$scratch/state"
    touch "$scratch/printer.log" "$scratch/proxy.log"
    cp tests/printer/pki/x1c.key "$scratch/state/rsa.key"
    target/debug/examples/printer --model "$model" --access-code "$code" --bind "$printer_at" --port 0 "$@" \
        >"$scratch/printer.log" 2>&1 &
    running+=("$!")
    serial=$(line "$scratch/printer.log" 'serial [0-9A-Z]*' | cut -d' ' -f2)
    local ports
    ports="mqtt=$(port "$scratch/printer.log" '^listening on [0-9.]*:[0-9]*')"
    case " $* " in *" --camera-port "*) ports+=",chamber=$(port "$scratch/printer.log" 'camera listening on [0-9.]*:[0-9]*')" ;; esac
    case " $* " in *" --rtsp-port "*) ports+=",rtsp=$(port "$scratch/printer.log" 'rtsp listening on [0-9.]*:[0-9]*')" ;; esac
    case " $* " in *" --ftp-port "*) ports+=",ftp=$(port "$scratch/printer.log" 'ftp on [0-9.]*:[0-9]*')" ;; esac
    ACCESS_CODE=$code target/debug/pandaproxy -p "$printer_at" -s "$serial" --bind "$proxy_at" \
        --printer-port "$ports" --port mqtt=0,chamber=0,rtsp=0,ftp=0 --ftp-mode proxy --ftp-data-ports 0 \
        --printer-ca tests/printer/pki/ca.pem --state-dir "$scratch/state" --services "$services" \
        record --out "$scratch/out" >"$scratch/proxy.log" 2>&1 &
    proxy=$!
    running+=("$proxy")
    at=$(port "$scratch/proxy.log" "$asked  *listening on [0-9.]*:[0-9]*")
}

# Ends both, and keeps the recording.
keep() {
    local service=$1 name=$2
    kill "$proxy"
    wait "$proxy" || true
    kill "${running[@]}" 2>/dev/null || true
    wait
    running=()
    mkdir -p "$out/$service"
    cp "$scratch/out/pandaproxy-000001.pcapng" "$out/$service/$name.pcapng"
    printf '%s: %d bytes\n' "$service/$name" "$(stat -c %s "$out/$service/$name.pcapng")"
}

mqtt() {
    local program=$1
    shift
    timeout 20 "$program" -h "$proxy_at" -p "$at" --cafile "$scratch/state/ca.pem" --insecure -u bblp -P "$code" \
        -q 0 "$@"
}

reads() { mqtt mosquitto_sub -t "device/$serial/report" "$@" >/dev/null & }

asks() { mqtt mosquitto_pub -t "device/$serial/request" -m "$1"; }

joins() {
    asked=mqtt
    set_up "$1" mqtt --deltas-every 400
    line "$scratch/proxy.log" 'the printer is connected' >/dev/null
    reads -i first -C 6
    sleep 1
    reads -i second -C 3
    sleep 1.5
    keep mqtt "$1-joins"
}

requests() {
    asked=mqtt
    set_up p1s mqtt
    line "$scratch/proxy.log" 'the printer is connected' >/dev/null
    reads -i reader -C 30
    sleep 0.5
    asks '{"pushing":{"sequence_id":"1","command":"pushall"}}'
    asks '{"info":{"sequence_id":"2","command":"get_version"}}'
    asks '{"print":{"sequence_id":"3","command":"pause","param":""}}'
    asks '{"print":{"sequence_id":"4","command":"gcode_line","param":"M104 S200\n"}}'
    timeout 5 mosquitto_pub -h "$proxy_at" -p "$at" --cafile "$scratch/state/ca.pem" --insecure -u bblp -P 12121212 \
        -t "device/$serial/request" -m '{}' 2>/dev/null || true
    mqtt mosquitto_pub -t "device/00M00A000000000/request" -m '{"print":{"command":"stop"}}' || true
    sleep 1
    keep mqtt p1s-requests
}

signed() {
    asked=mqtt
    set_up x1c mqtt
    line "$scratch/proxy.log" 'the printer is connected' >/dev/null
    reads -i reader -C 30
    sleep 0.5
    local header='"header":{"sign_ver":"v1.0","sign_alg":"RSA_SHA256","cert_id":"0123456789abcdef","payload_len":83,"sign_string":"bm90IGEgc2lnbmF0dXJlLCBidXQgYXMgbG9uZyBhcyBvbmUgaXM="}'
    asks "{$header,\"print\":{\"sequence_id\":\"20001\",\"command\":\"gcode_line\",\"param\":\"G28 \\n\"}}"
    asks "{$header, \"print\": {\"sequence_id\": \"20002\", \"command\": \"resume\"} }"
    sleep 1
    keep mqtt x1c-signed
}

# Logs in to the chamber camera with this code, and receives pictures for some seconds.
looks() {
    local shown=$1 seconds=$2
    { printf '\x40\0\0\0\0\x30\0\0\0\0\0\0\0\0\0\0bblp'
      head -c 28 /dev/zero
      printf %s "$shown"
      head -c 24 /dev/zero
      sleep "$seconds"; } |
        timeout 20 openssl s_client -quiet -connect "$proxy_at:$at" >/dev/null 2>&1 || true
}

pictures() {
    asked=chamber
    set_up p1s camera,mqtt --camera-port 0 --fps 0.4
    looks "$code" 0.9 &
    sleep 0.3
    looks 12121212 0.5
    sleep 0.5
    keep chamber pictures
}

player() {
    asked=rtsp
    set_up x1c camera,mqtt --rtsp-port 0
    timeout 30 ffmpeg -nostdin -loglevel error -analyzeduration 100000 -rtsp_transport tcp \
        -i "rtsps://bblp:$code@$proxy_at:$at/streaming/live/1" -frames:v 4 -c copy -f null - || true
    sleep 0.1
    keep rtsp player
}

# A file of so many bytes.
file() { head -c "$2" /dev/zero | openssl enc -aes-128-ctr -K "$(printf '%032d' "$2")" -iv "$(printf '%032d' 0)" >"$scratch/$1"; }

with_curl() {
    asked=ftp
    set_up p1s ftp --ftp-port 0
    file small.3mf 3000
    file larger.3mf 12000
    local curl=(curl --silent --show-error --insecure --user "bblp:$code" --max-time 20)
    "${curl[@]}" --upload-file "$scratch/small.3mf" "ftps://$proxy_at:$at/"
    "${curl[@]}" --upload-file "$scratch/larger.3mf" "ftps://$proxy_at:$at/cache/"
    "${curl[@]}" "ftps://$proxy_at:$at/" >/dev/null
    curl --silent --insecure --user "bblp:12121212" --max-time 20 "ftps://$proxy_at:$at/" >/dev/null || true
    sleep 0.5
    keep ftp curl
}

with_lftp() {
    asked=ftp
    set_up p1s ftp --ftp-port 0
    file one.3mf 2000
    file two.3mf 8000
    timeout 40 lftp -u "bblp,$code" -e "set ssl:verify-certificate no; set cmd:fail-exit yes; set net:max-retries 2; \
        cd /; put $scratch/one.3mf; mput -O /cache $scratch/two.3mf; cls /; bye" "ftps://$proxy_at:$at" >/dev/null
    sleep 0.5
    keep ftp lftp
}

for name in "${names[@]}"; do
    case $name in
    p1s-joins) joins p1s ;;
    x1c-joins) joins x1c ;;
    p1s-requests) requests ;;
    x1c-signed) signed ;;
    pictures) pictures ;;
    player) player ;;
    curl) with_curl ;;
    lftp) with_lftp ;;
    esac
done
