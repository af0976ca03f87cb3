#!/usr/bin/env bash
# The first process of the namespaces that machine.sh makes: namespaces.sh ROOT FILE starts the init of ROOT, whose second
# serial port is FILE. It sees no device of this machine, and cannot change its kernel's settings, modules and clock.
set -euo pipefail

# Not for a machine's own namespaces.
if [ $# != 2 ] || [ $$ != 1 ]; then
    printf 'usage: unshare --mount --uts --ipc --net --pid --cgroup --fork tests/package/namespaces.sh ROOT FILE\n' >&2
    exit 2
fi
said=$(realpath "$2")
mount --make-rprivate /
# The init before it left its disk to be read only.
mount -o remount,rw "$1"
cd "$1"
mount --bind . .
cd "$PWD"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mkfifo dev/ttyS1
cat <>dev/ttyS1 >>"$said" &
mkdir run/before
pivot_root . run/before
umount -l /run/before
rmdir /run/before
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb /sbin/init
