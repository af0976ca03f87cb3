#!/bin/busybox sh
# shellcheck shell=dash
# What runs first in the emulated Raspberry Pi of qemu-system.sh: brings up its network, starts the
# proxy, and says on the console what the host wants to know. The host ends the machine.

bb() {
    /bin/busybox "$@"
}

say() {
    echo "guest: $*"
}

bb mount -t proc proc /proc
bb mount -t sysfs sys /sys
bb mount -t devtmpfs dev /dev
bb mount -t tmpfs tmp /state

say "year $(bb date +%Y), kernel $(bb uname -r) $(bb uname -m)"

while read -r module; do
    bb insmod "/modules/$module" || say "module $module does not load"
done </modules/order

# The adapter is found some seconds after its driver is there.
until [ -e /sys/class/net/usb0 ]; do
    bb sleep 1
done
bb ip link set lo up
bb ip addr add 10.0.2.15/24 dev usb0
bb ip link set usb0 up
bb ip route add default via 10.0.2.2

/pandaproxy --budget | while read -r line; do
    say "budget $line"
done

/pandaproxy --config /pandaproxy.conf --state-dir /state &
proxy=$!

until [ -s /state/ca.pem ]; do
    bb sleep 1
done
# Clients that verify certificates need the authority.
bb sed 's/^/guest: ca /' /state/ca.pem

# A second proxy, before a printer with the other camera, with the same authority.
bb cp -r /state /state-x1c
/pandaproxy --config /x1c.conf --state-dir /state-x1c &

# Answers on port 7 with the first proxy's peak memory, until that ends.
bb nc -ll -p 7 -e /bin/busybox sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$proxy/status"
