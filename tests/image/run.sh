#!/usr/bin/env bash
# The container image, built by buildah, inspected, and run from its root directory by chroot.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/image/run.sh [--help]

Needs root, buildah, util-linux, openssl and dist/pandaproxy-generic-x86_64. Prints a line a test, and
`N passed, N failed`.
END
}

cd "$(dirname "$0")/../.."
case ${1-} in
--help) usage; exit 0 ;;
--inside) ;;
'') exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside ;;
*) echo "run.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac

ip link set lo up
passed=0 failed=0
check() {
    if "${@:2}"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        printf 'FAILED %s\n' "$1"
    fi
}
is() { [ "$1" = "$2" ] || { printf 'got %s, wanted %s\n' "$1" "$2"; return 1; }; }

storage=(--storage-driver vfs)
boards/image.sh generic-x86_64
# The other platforms, with any binaries that dist/ has: only the build is checked.
for board in generic-aarch64 generic-armv7 rpi-zero; do
    if [ -f "dist/pandaproxy-$board" ]; then boards/image.sh "$board"; fi
done

for board in generic-x86_64 generic-aarch64 generic-armv7 rpi-zero; do
    [ -f "dist/pandaproxy-$board" ] || continue
    # shellcheck source=/dev/null
    . "boards/$board/board.env"
    of() { buildah "${storage[@]}" inspect --type image --format "$1" "pandaproxy:$board"; }
    check "$board: nobody's user" is "$(of '{{.Docker.Config.User}}')" 65532:65532
    check "$board: the program" is "$(of '{{.Docker.Config.Entrypoint}}')" '[/pandaproxy]'
    check "$board: asks itself" is "$(of '{{.Docker.Config.Healthcheck.Test}}')" '[CMD /pandaproxy health]'
    # Of the variant buildah says v7 for every ARM; the published images are BuildKit's.
    check "$board: its processor" is "linux/$(of '{{.Docker.Architecture}}')" "$(cut -d/ -f1-2 <<<"$PLATFORM")"
done

root=$(mktemp -d)
container=$(buildah "${storage[@]}" from --pull-never pandaproxy:generic-x86_64)
# What cannot be removed is said, and fails no run that has passed.
end() {
    umount -l "$root" 2>/dev/null || true
    rmdir "$root" || true
    buildah "${storage[@]}" rm "$container" >/dev/null || true
}
trap end EXIT
mount --bind "$(buildah "${storage[@]}" mount "$container")" "$root"
check "nothing but the binary, its licences and a place for certificates" is \
    "$(cd "$root" && find . -type f -not -path './var/lib/pandaproxy/*' | sort | tr '\n' ' ')" "./licences.txt ./pandaproxy "
check "which any user may write into" is "$(stat -c '%a %u:%g' "$root/var/lib/pandaproxy")" "1777 0:0"
environment=(PRINTER_IP=192.0.2.9 ACCESS_CODE=7Kq2xW9p SERIAL_NUMBER=01P00A000000001)

# Gives a folder of the container an owner and an RSA key, since making one takes long.
with_key() {
    mkdir -p "$1"
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null >"$1/rsa.key"
    chown -R "$2" "$1"
    chmod 600 "$1/rsa.key"
}
with_key "$root/var/lib/pandaproxy" 0:0

# As compose.yaml runs it: uid 0, one right, none to be had.
# shellcheck disable=SC2054 # setpriv wants commas
as_compose=(env -i "${environment[@]}" PANDAPROXY_STATE_DIR=/var/lib/pandaproxy /usr/bin/setpriv --bounding-set=-all,+net_bind_service,+sys_chroot
    --no-new-privs /usr/sbin/chroot "$root" /pandaproxy)
check "--version" grep -q 'board generic-x86_64' <<<"$("${as_compose[@]}" --version)"
code=0
said=$("${as_compose[@]}" health 2>&1) || code=$?
check "not healthy before it serves" is "$code" 1
check "which is said" grep -q 'mqtt on 127.0.0.1:8883: ' <<<"$said"

serves() {
    for _ in $(seq 1 200); do
        if said=$("$@" health 2>&1); then return 0; fi
        sleep 0.1
    done
    printf '%s\n' "$said"
    return 1
}
"${as_compose[@]}" 2>"$root.log" &
served=$!
check "healthy as compose.yaml runs it, on ports 8883, 6000 and 990" serves "${as_compose[@]}"
kill "$served" || true
wait "$served" || true

# As the image has it, where all ports are everybody's: in a network of its own, as Docker gives it.
with_key "$root/var/lib/pandaproxy" 65532:65532
sysctl -qw net.ipv4.ip_unprivileged_port_start=0
as_image=(env -i "${environment[@]}" PANDAPROXY_STATE_DIR=/var/lib/pandaproxy /usr/sbin/chroot --userspec=65532:65532 --groups=65532 "$root" /pandaproxy)
"${as_image[@]}" 2>>"$root.log" &
served=$!
check "healthy as its own user" serves "${as_image[@]}"
check "who has no right at all" is "$(sed -n 's/^CapEff:\t//p' "/proc/$served/status")" 0000000000000000
kill "$served" || true
wait "$served" || true
check "its log has no code" is "$(grep -c 7Kq2xW9p "$root.log" || true)" 0
rm -f "$root.log"

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
