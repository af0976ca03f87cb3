# shellcheck shell=bash disable=SC2154 # run.sh says where the keys are
# A scratch host: a root directory with BusyBox, sshd and what else its kind has, entered by chroot.
# Sourced by run.sh, inside namespaces of their own: nothing here touches the machine.

# Copies a program and the libraries it needs.
bring() {
    local root=$1 program=$2 library
    mkdir -p "$root$(dirname "$program")"
    cp -L "$program" "$root$program"
    while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -Ln "$library" "$root$library"
    done < <(ldd "$program" 2>/dev/null | grep -o '/[^ ]*')
}

# Makes a host of a kind: `script` has BusyBox and setpriv; `systemd` has besides Debian's own shell,
# useradd and sudo, and a systemctl that only stands in for the real one.
make_host() {
    local root=$1 kind=$2 applet
    mkdir -p "$root"
    # A file system of its own in df's eyes.
    mount --bind "$root" "$root"
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,usr/local/bin,etc/init.d,dev,proc,tmp,root/.ssh,run/sshd,var/log,var/empty}
    mkdir -p "$root/home/pi/.ssh"
    chmod 1777 "$root/tmp"
    bring "$root" /bin/busybox
    while read -r applet; do
        ln -sf /bin/busybox "$root/bin/$applet"
    done < <(busybox --list | grep -vx busybox)
    for program in /usr/sbin/sshd /usr/lib/openssh/sftp-server /usr/bin/scp /usr/bin/setpriv \
        /usr/sbin/useradd /usr/sbin/userdel /usr/sbin/groupadd /usr/sbin/groupdel; do
        bring "$root" "$program"
    done
    mknod -m 666 "$root/dev/null" c 1 3
    mknod -m 444 "$root/dev/urandom" c 1 9
    # Terminals, for a sudo that asks for a password.
    mknod -m 666 "$root/dev/tty" c 5 0
    mkdir "$root/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/run"
    mkdir "$root/run/sshd"
    cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/bin/false
pi:x:1000:1000::/home/pi:/bin/sh
END
    printf 'root:x:0:\nnogroup:x:65534:\npi:x:1000:\n' >"$root/etc/group"
    printf 'root:*:1::::::\nsshd:*:1::::::\npi:*:1::::::\n' >"$root/etc/shadow"
    printf 'root:x:::\n' >"$root/etc/gshadow"
    cp "$keys/key.pub" "$root/root/.ssh/authorized_keys"
    cp "$keys/key.pub" "$root/home/pi/.ssh/authorized_keys"
    chown -R 1000:1000 "$root/home/pi"
    cp "$keys/host" "$root/etc/ssh_host_key"
    chmod 600 "$root/etc/ssh_host_key"
    cat >"$root/etc/sshd_config" <<'END'
ListenAddress 127.0.0.1:22
HostKey /etc/ssh_host_key
PidFile /run/sshd.pid
PasswordAuthentication no
UsePAM no
StrictModes no
Subsystem sftp /usr/lib/openssh/sftp-server
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
    if [ "$kind" = systemd ]; then
        rm "$root/bin/sh"
        bring "$root" /bin/dash
        ln -s dash "$root/bin/sh"
        mkdir -p "$root/run/systemd/system" "$root/etc/systemd/system" "$root/etc/pam.d"
        cp tests/flash/systemctl "$root/usr/bin/systemctl"
        printf '#!/bin/sh\ntail -n 1 /var/log/service\n' >"$root/usr/bin/journalctl"
        chmod 755 "$root/usr/bin/systemctl" "$root/usr/bin/journalctl"
        bring_sudo "$root"
    fi
}

# Debian's sudo with its plug-ins; no user may use it before /etc/sudoers has a line for it.
bring_sudo() {
    local root=$1 part
    bring "$root" /usr/bin/sudo
    chmod 4755 "$root/usr/bin/sudo"
    for part in /usr/libexec/sudo/*.so* /lib/x86_64-linux-gnu/security/pam_permit.so \
        /usr/lib/x86_64-linux-gnu/libnss_files.so.2; do
        [ ! -f "$part" ] || bring "$root" "$part"
    done
    printf 'auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n' \
        >"$root/etc/pam.d/sudo"
    cp "$root/etc/pam.d/sudo" "$root/etc/pam.d/other"
    printf 'root ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers"
    chmod 440 "$root/etc/sudoers"
}

# Starts its sshd, and ends the one of the host before it with everything it runs.
switch_to() {
    switch_off
    running=$1
    # As at a boot of a host without anything that keeps its services across the tests.
    chroot "$running" /usr/sbin/sshd -f /etc/sshd_config -E /var/log/sshd || {
        cat "$running/var/log/sshd" >&2
        return 1
    }
}

switch_off() {
    local id
    [ -n "${running-}" ] || return 0
    # In this process namespace no other process has this root.
    for id in /proc/[0-9]*; do
        if [ "$(readlink "$id/root")" = "$running" ]; then kill -9 "${id#/proc/}" 2>/dev/null || true; fi
    done
    running=''
}
