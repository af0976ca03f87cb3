#!/usr/bin/env bash
# The container image under a real Docker daemon, with compose.yaml and the commands of README and boards/README.md.
set -euo pipefail

usage() {
    cat <<'END'
usage: tests/container/run.sh [--help] [--dry-run]

Builds the image of dist/pandaproxy-generic-x86_64 (boards/build.sh makes it), starts a Docker daemon
in namespaces and folders of its own, and runs containers before simulated printers: in the host's
network as compose.yaml does, bridged, two printers, other users; restarts, upgrades, invalid settings
and a hung program. Clients are in a network of their own, as in a LAN. Prints a line a test, and
`N passed, N failed`.

Needs root, buildah, dockerd, docker, docker compose or docker-compose, iptables, iproute2, openssl,
curl, python3, mosquitto_sub, and target/debug/examples/printer.

  --dry-run   say which commands of the documents would be run, and run nothing
END
}

cd "$(dirname "$0")/../.."
repository=$PWD

# The commands of README's paragraph on containers.
of_readme() {
    awk '/^\*\*A container\*\*/ { on = 1; next } on && /^    / { seen = 1; sub(/^    /, ""); print; next } on && seen { exit }' README.md
}
# The section of boards/README.md, its block, and the compose commands of its table.
section() { awk -v title="## $1" '/^## / { on = $0 == title } on' boards/README.md; }
of_section() { section Containers | sed -n 's/^    //p'; }
# shellcheck disable=SC2016 # Markdown's quotes
of_table() { section Containers | grep '^|' | grep -o '`docker compose [^`]*`' | tr -d '`'; }

case ${1-} in
--help) usage; exit 0 ;;
--dry-run) of_readme; of_table; of_section; exit 0 ;;
--inside) ;;
'')
    for program in buildah dockerd docker iptables ip openssl curl python3 mosquitto_sub; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null ||
            { printf 'run.sh: %s is missing\n' "$program" >&2; exit 1; }
    done
    for file in dist/pandaproxy-generic-x86_64 target/debug/examples/printer; do
        [ -x "$file" ] || { printf 'run.sh: there is no %s\n' "$file" >&2; exit 1; }
    done
    # What is started ends with it, also the daemon and its containers.
    exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside
    ;;
*) echo "run.sh: '$1' is unknown; --help shows the options" >&2; exit 2 ;;
esac
export PATH=$PATH:/usr/sbin:/sbin

work=$(mktemp -d)
daemon='' passed=0 failed=0
end() {
    local status=$?
    if [ "$status" != 0 ]; then tail -n 20 "$work"/*.log 2>/dev/null | cut -c1-300 || true; fi
    # Containers are removed, which leaves no cgroups behind.
    if [ -n "$daemon" ]; then
        # shellcheck disable=SC2046 # one word each
        command docker rm -f $(command docker ps -aq) >/dev/null 2>&1 || true
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    umount "$work/data" "$work" 2>/dev/null || true
    rm -rf "$work" || true
    exit "$status"
}
trap end EXIT

check() {
    if "${@:2}" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        printf 'ok %s\n' "$1"
    else
        failed=$((failed + 1))
        printf 'FAILED %s\n' "$1"
        tail -n 15 "$work/said" | cut -c1-300
    fi
}
is() { [ "$1" = "$2" ] || { printf 'got %s, wanted %s\n' "$1" "$2"; return 1; }; }
has() { case $1 in *"$2"*) ;; *) printf 'no "%s" in: %s\n' "$2" "$1"; return 1 ;; esac }
# within SECONDS COMMAND...: the command has to succeed at last.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.2
    done
}

# ---- a LAN: this machine has two addresses, printers and clients have theirs ----------------------

readonly HOST=10.77.0.2 SECOND=10.77.0.3 PRINTER=10.77.0.9 OTHER=10.77.0.10 CLIENT=10.77.0.20 CODE=12345678
readonly SERIAL=01P00A3C1200417
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
ip link set lo up
ip link add lan type bridge
ip addr add $HOST/24 dev lan
ip addr add $SECOND/24 dev lan
ip link set lan up
for name in printers clients; do
    ip netns add $name
    ip link add $name type veth peer name eth0 netns $name
    ip link set $name master lan up
    ip -n $name link set lo up
    ip -n $name link set eth0 up
done
ip -n printers addr add $PRINTER/24 dev eth0
ip -n printers addr add $OTHER/24 dev eth0
ip -n clients addr add $CLIENT/24 dev eth0

printer=''
switch_on() {
    ip netns exec printers "$repository/target/debug/examples/printer" --model p1s --bind $PRINTER --deltas-every 500 \
        --camera-port 6000 --ftp-port 990 --detect-port 3000 >"$work/printer.log" 2>&1 &
    printer=$!
}
switch_on
ip netns exec printers "$repository/target/debug/examples/printer" --model x1c --bind $OTHER --deltas-every 500 --rtsp-port 322 \
    --tunnel-port 6000 --ftp-port 990 --detect-port 3000 >"$work/other.log" 2>&1 &
within 10 grep -q '^serial ' "$work/other.log"
other_serial=$(sed -n 's/^serial //p' "$work/other.log")

# ---- the daemon, and two versions of the image ------------------------------------------------------

export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=0 COMPOSE_PROJECT_NAME=printers
dockerd --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs --data-root "$work/data" \
    --exec-root /run/docker --pidfile "$work/docker.pid" --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 &
daemon=$!
answers() { command docker info >/dev/null 2>&1; }
within 60 answers || { printf 'run.sh: dockerd does not start\n' >&2; exit 1; }

# `docker compose` is a plugin, or Debian's docker-compose.
compose=(env docker compose)
"${compose[@]}" version >/dev/null 2>&1 || compose=(docker-compose)
docker() {
    if [ "$1" = compose ]; then "${compose[@]}" "${@:2}"; else command docker "$@"; fi
}

boards/image.sh generic-x86_64 >"$work/image.log" 2>&1
buildah --storage-driver vfs push pandaproxy:generic-x86_64 "docker-archive:$work/image.tar:pandaproxy:1" 2>>"$work/image.log"
docker load --quiet --input "$work/image.tar" >/dev/null
rm "$work/image.tar"
docker create --name first pandaproxy:1 >/dev/null
docker commit --change 'LABEL version=2' first pandaproxy:2 >/dev/null
docker rm first >/dev/null

# ---- clients ------------------------------------------------------------------------------------------

client() { ip netns exec clients "$@"; }
# A report, with the certificate verified for the address: reports HOST SERIAL [CA].
reports() {
    client timeout 10 mosquitto_sub -h "$1" -p 8883 -u bblp -P $CODE --cafile "${3-$work/ca.pem}" \
        -t "device/$2/report" -C 1
}
lists_files() { client curl -sS --max-time 10 --cacert "$work/ca.pem" --user bblp:$CODE "ftps://$1:990/"; }
names() {
    client openssl s_client -connect "$1:8883" </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName
}
state_of() { docker inspect --format "$2" "$1"; }
is_health() { [ "$(state_of "$1" '{{.State.Health.Status}}')" = "$2" ]; }
sum() { sha256sum "$1" | cut -d' ' -f1; }

# A copy of this folder as a user has it, with the three settings filled in.
setting() { sed -i "s|^#\?$2=.*|$2=$3|" "$1"; }
fill_in() {
    setting "$1" PRINTER_IP "$2"
    setting "$1" ACCESS_CODE $CODE
    setting "$1" SERIAL_NUMBER "$3"
    # The simulated printers' authority is not Bambu Lab's.
    setting "$1" INSECURE_PRINTER true
}
mkdir "$work/user"
cp compose.yaml .env.example "$work/user"
cd "$work/user"

# ---- compose.yaml, in the host's network --------------------------------------------------------------

no_image() {
    if docker compose config 2>&1; then return 1; fi
}
run_line() { eval "$1" </dev/null; }
follows() {
    "${compose[@]}" logs -f >"$work/follows.txt" 2>&1 </dev/null &
    local pid=$! status=0
    within 30 grep -q "the printer is connected" "$work/follows.txt" || status=$?
    kill "$pid"
    return "$status"
}
cp .env.example .env
check "compose without an image fails" no_image
has_hint() { has "$(docker compose config 2>&1)" "set it in .env to the image to run"; }
check "and says where to name it" has_hint

# Certificates of an earlier compose.yaml, which had this volume at /state.
docker run --detach --name before --user 0:0 --cap-drop ALL --cap-add NET_BIND_SERVICE --read-only --network host \
    --env-file .env --env PRINTER_IP=$PRINTER --env ACCESS_CODE=$CODE --env SERIAL_NUMBER=$SERIAL \
    --env PANDAPROXY_STATE_DIR=/state --volume printers_state:/state pandaproxy:1 >/dev/null
serves() { docker exec "$1" /pandaproxy health; }
check "an earlier version serves, with its certificates in /state" within 60 serves before
docker exec before /pandaproxy ca 2>/dev/null >"$work/ca.pem"
docker rm -f before >/dev/null

rm .env
while read -r line; do
    line=${line%% #*}
    check "README: $line" run_line "$line"
    if [ "$line" != "${line#cp }" ]; then
        fill_in .env $PRINTER $SERIAL
        setting .env PANDAPROXY_IMAGE pandaproxy:1
    fi
done < <(cd "$repository" && of_readme | sed 's/  *#.*//')
container=$(docker compose ps -q)
check "it serves" within 60 serves "$container"
docker exec "$container" /pandaproxy ca 2>/dev/null >"$work/now.pem"
check "with the certificate authority of the earlier version" is "$(sum "$work/now.pem")" "$(sum "$work/ca.pem")"
check "a client gets reports, and the certificate is this machine's" reports $HOST $SERIAL
check "a client lists the printer's files" lists_files $HOST
snapshot() {
    client curl -sS --fail --max-time 15 --user bblp:$CODE --output "$work/snapshot.jpg" "http://$HOST:8080/snapshot.jpg" &&
        [ "$(head -c 3 "$work/snapshot.jpg" | od -An -tx1)" = " ff d8 ff" ]
}
check "a client gets a picture" within 20 snapshot
rights() { grep "^$1:" "/proc/$(state_of "$container" '{{.State.Pid}}')/status" | cut -f2; }
check "it has the right to low ports and no other" is "$(rights CapEff)" 0000000000000400
check "nor can it get one" is "$(rights CapBnd)" 0000000000000400
check "its root is read-only" is "$(state_of "$container" '{{.HostConfig.ReadonlyRootfs}}')" true

# It asks the running service, which has the printer's connections.
sees_printer() {
    local stage said
    said=$(run_line "$1") || return 1
    printf '%s\n' "$said"
    for stage in printer certificate login report; do grep -qE "^(✓|!) +[0-9]+ $stage " <<<"$said" || return 1; done
}
while read -r line; do
    case $line in
    *" logs -f") check "boards/README.md: $line" follows ;;
    *" down") last=$line ;;
    *" check") check "boards/README.md: $line" sees_printer "$line" ;;
    *) check "boards/README.md: $line" run_line "$line" ;;
    esac
done < <(cd "$repository" && of_table)

# A client that stays, and comes back each time.
ip netns exec clients mosquitto_sub -h $HOST -p 8883 -u bblp -P $CODE --cafile "$work/ca.pem" -t "device/$SERIAL/report" \
    >"$work/stays.txt" 2>/dev/null &
stays=$!
lines() { wc -l <"$work/stays.txt"; }
has_more() { [ "$(lines)" -gt "$1" ]; }
check "a client stays" within 15 has_more 1

docker compose restart >/dev/null 2>&1
before=$(lines)
check "after a restart the client is back by itself" within 30 has_more "$before"
check "and still trusts it" reports $HOST $SERIAL

# How long the port is closed while the image is replaced.
cat >"$work/closed.py" <<'END'
import socket, sys, time
host, ends = sys.argv[1], time.time() + 60
closed = opened = None
while time.time() < ends and not opened:
    try:
        socket.create_connection((host, 8883), 1).close()
        opened = time.time() if closed else None
    except OSError:
        closed = closed or time.time()
    time.sleep(0.02)
print(f"{opened - closed:.1f}" if opened else "for ever")
END
client python3 "$work/closed.py" $HOST >"$work/closed.txt" &
closed=$!
setting .env PANDAPROXY_IMAGE pandaproxy:2
docker compose up -d >"$work/upgrade.txt" 2>&1
wait $closed
container=$(docker compose ps -q)
check "an upgrade of the image replaces the container" is "$(state_of "$container" '{{.Config.Labels.version}}')" 2
printf 'port 8883 was closed for %s s\n' "$(cat "$work/closed.txt")"
before=$(lines)
check "after the upgrade the client is back by itself" within 30 has_more "$before"
check "with the same authority" reports $HOST $SERIAL
kill $stays

# As many clients as the board has slots.
crowd=()
for _ in $(seq 72); do
    ip netns exec clients mosquitto_sub -h $HOST -p 8883 -u bblp -P $CODE --cafile "$work/ca.pem" \
        -t "device/$SERIAL/report" >/dev/null 2>&1 &
    crowd+=($!)
    sleep 0.05
done
clients() { client curl -sS --max-time 5 --user bblp:$CODE "http://$HOST:8080/metrics" | tee "$work/metrics.txt"; }
is_full() { clients | grep -q "^pandaproxy_clients{service=\"mqtt\"} 72$"; }
check "72 MQTT clients at once" within 30 is_full
check "fit the memory limit" is "$(state_of "$container" '{{.State.OOMKilled}} {{.RestartCount}}')" "false 0"
printf 'memory: %s\n' "$(docker stats --no-stream --format '{{.MemUsage}}' "$container")"
kill "${crowd[@]}"
# The image's own interval is 30 s.
check "Docker has found it healthy" within 40 is_health "$container" healthy
check "boards/README.md: $last" run_line "$last"
check "removing keeps the certificates" docker volume inspect printers_state

# ---- bridged, as boards/README.md says --------------------------------------------------------------

bridged=$(cd "$repository" && of_section | sed "s/192\.168\.1\.60/$HOST/; s/192\.168\.1\.20/$CLIENT/; s/IMAGE/pandaproxy:1/")
bridged=${bridged/docker run/docker run --health-interval=1s --health-retries=1}
timeout 60 ip netns exec clients python3 - >"$work/announced.txt" <<'END' &
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 2021))
print(s.recv(2000).decode())
END
announced=$!
check "boards/README.md: docker run, bridged" run_line "$bridged"
check "it is healthy" within 60 is_health pandaproxy healthy
docker exec pandaproxy /pandaproxy ca 2>/dev/null >"$work/ca.pem"
check "clients get reports by published ports" reports $HOST $SERIAL
check "and files" lists_files $HOST
check "and the status page" client curl -sS --fail --max-time 5 --user bblp:$CODE "http://$HOST:8080/status"
check "the certificate names the advertised address" has "$(names $HOST)" "IP Address:$HOST"
wait $announced || true
check "which is announced" grep -q "Location: $HOST" "$work/announced.txt"
check "its own user has no right at all" is \
    "$(grep '^CapEff:' "/proc/$(state_of pandaproxy '{{.State.Pid}}')/status" | cut -f2)" 0000000000000000

# ---- health --------------------------------------------------------------------------------------------

kill "$printer"
wait "$printer" || true
gone() { docker logs pandaproxy 2>&1 | grep -q 'mqtt.*printer.*\(lost\|closed\|refused\|disconnected\)'; }
check "the printer is switched off" within 20 gone
sleep 3
check "which is not unhealthy" is_health pandaproxy healthy
check "nor a reason to restart" is "$(state_of pandaproxy '{{.RestartCount}}')" 0
switch_on
docker kill --signal STOP pandaproxy >/dev/null
check "a hung program is unhealthy" within 20 is_health pandaproxy unhealthy
docker kill --signal CONT pandaproxy >/dev/null
check "and healthy when it goes on" within 20 is_health pandaproxy healthy
check "reports come again" within 20 reports $HOST $SERIAL
docker rm -f pandaproxy >/dev/null

# ---- the Home Assistant add-on, as its Supervisor builds and runs it -------------------------------------

docker build --quiet --build-arg PANDAPROXY_IMAGE=pandaproxy:1 --tag add-on "$repository/boards/home-assistant" >>"$work/image.log" 2>&1
mkdir "$work/add-on"
cat >"$work/add-on/options.json" <<END
{
  "printer_ip": "$PRINTER",
  "access_code": "$CODE",
  "serial_number": "$SERIAL",
  "services": "$(sed -n 's/^  services: \(mqtt.*\)/\1/p' "$repository/boards/home-assistant/config.yaml")",
  "insecure_printer": true
}
END
chmod 600 "$work/add-on/options.json"
docker run --detach --name add-on --network host --volume "$work/add-on:/data" add-on >/dev/null
check "the Home Assistant add-on serves" within 60 serves add-on
docker exec add-on /pandaproxy ca 2>/dev/null >"$work/ca.pem"
check "with the options as its settings" reports $HOST $SERIAL
check "and the status page" client curl -sS --fail --max-time 5 --user bblp:$CODE "http://$HOST:8080/status"
check "and its certificates beside them" is "$(stat -c %a "$work/add-on/ca.key")" 600
docker rm -f add-on >/dev/null

# ---- other users -----------------------------------------------------------------------------------------

for user in 1000:1000 65532:65532 0:0; do
    docker run --detach --name user --user "$user" --read-only --cap-drop ALL --env-file .env \
        --volume "of-${user%:*}:/var/lib/pandaproxy" pandaproxy:1 >/dev/null
    check "user $user without rights has a new volume" within 60 serves user
    check "whose files are its own" is "$(stat -c '%u %a' "$work/data/volumes/of-${user%:*}/_data/ca.key")" "${user%:*} 600"
    docker rm -f user >/dev/null
done

# ---- invalid settings --------------------------------------------------------------------------------------

docker run --detach --name wrong --restart unless-stopped --env-file .env --env FTP_MODE=fast pandaproxy:1 >/dev/null
sleep 10
says() { has "$(docker logs wrong 2>&1 | head -n 1)" "$1"; }
check "invalid settings end the container with the reason" says 'FTP_MODE: expected auto, proxy or relay'
# While it is started again the status is 0.
has_status_2() { [ "$(state_of wrong '{{.State.ExitCode}}')" = 2 ]; }
check "and status 2" within 10 has_status_2
restarts=$(state_of wrong '{{.RestartCount}}')
printf 'restarts in 10 s: %s\n' "$restarts"
# After 0.1 s, 0.2 s, 0.4 s and so on.
check "Docker starts it less and less often" [ "$restarts" -le 8 ]
docker rm -f wrong >/dev/null

# ---- two printers --------------------------------------------------------------------------------------------

mkdir "$work/two"
cp "$repository/boards/compose-two-printers.yaml" "$work/two/compose.yaml"
cp "$repository/.env.example" "$work/two/garage.env"
cp "$repository/.env.example" "$work/two/attic.env"
cd "$work/two"
printf 'PANDAPROXY_IMAGE=pandaproxy:1\n' >.env
fill_in garage.env $PRINTER $SERIAL
setting garage.env BIND_ADDRESS $HOST
fill_in attic.env $OTHER "$other_serial"
setting attic.env BIND_ADDRESS $SECOND
check "two printers: docker compose up -d" run_line "COMPOSE_PROJECT_NAME=two docker compose up -d"
of() { COMPOSE_PROJECT_NAME=two docker compose ps -q "$1"; }
check "one serves" within 60 serves "$(of garage)"
check "the other serves" within 60 serves "$(of attic)"
docker exec "$(of attic)" /pandaproxy ca 2>/dev/null >"$work/two.pem"
check "a client gets one printer's reports" reports $HOST $SERIAL "$work/two.pem"
check "and the other's, with the same authority" reports $SECOND "$other_serial" "$work/two.pem"

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
