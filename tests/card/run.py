#!/usr/bin/env python3
"""The memory card: its image is looked at, filled in by flash.sh, and booted in QEMU as a Raspberry Pi would boot it."""

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import drivers
import firmware
from qemu_timer import Registers, Timer

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/card-test"
CODE = "7Kq2xW9p"
ADMIN = "a-code-for-updates"
# How long anything may take, in seconds: two processors emulate an old one, beside whatever else runs. What is waited for on the
# console may take as long after each line there, and time in which the emulator waits for a processor does not count.
BOOT_WITHIN, ANSWER_WITHIN, UPDATE_WITHIN = 420, 120, 900
# An image ends at 512 MiB. The emulated card is larger: behind the image lies the content of an update.
CARD, BEHIND = 1 << 30, 512 << 20

# QEMU's machine, what the firmware calls it, its device tree, and its serial port as the last of these.
#
# The timer of raspi0 loses events in QEMU, which `Timer` makes good.
#
# The emulated USB network carries 64 bytes a millisecond at best, and so an update of the Zero in seven minutes, and one of AArch64
# in a quarter of an hour: the content lies on the card, behind its partitions, and what is sent is a line that stands for it.
#
# QEMU has no model for what one driver of raspi0 wants. All its Raspberry Pis reset as soon as their watchdog is started: `watchdog` is
# a driver that takes its place, and counts in the kernel. It has a minute and not a board's 15 s: beside much else, QEMU's Zero gets a tenth of a
# processor.
AARCH64 = {
    "program": "qemu-system-aarch64", "machine": "raspi3b", "model": "pi3", "tree": "bcm2837-rpi-3-b.dtb",
    "append": "", "timer": False, "usb": 0x3f980000, "serial": ["-serial", "null"], "accel": "tcg,thread=single", "watchdog": "softdog", "packages": "target/card/arm64",
    "firmware": ["start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat",
                 "start4.elf", "fixup4.dat", "start4cd.elf", "fixup4cd.dat"],
    "trees": ["bcm2837-rpi-zero-2-w.dtb", "bcm2837-rpi-3-b.dtb", "bcm2837-rpi-3-b-plus.dtb", "bcm2711-rpi-4-b.dtb"],
}
# The last three images differ in the memory that the proxy plans with; each is for all of their boards, and QEMU's is a 3.
MACHINES = {
    "rpi-zero": {
        "program": "qemu-system-arm", "machine": "raspi0", "model": "pi0", "tree": "bcm2835-rpi-zero.dtb",
        "append": "initcall_blacklist=bcm2835_power_driver_init",
        "timer": True, "usb": 0x20980000, "serial": [], "accel": "tcg", "watchdog": "softdog", "packages": "target/card/armel",
        "firmware": ["start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat"],
        "trees": ["bcm2835-rpi-b.dtb", "bcm2835-rpi-b-plus.dtb", "bcm2835-rpi-zero.dtb", "bcm2835-rpi-zero-w.dtb"],
    },
    "rpi-3": AARCH64, "rpi-zero-2w": AARCH64, "rpi-4": AARCH64,
}

passed, failed = 0, []
begun = time.monotonic()


def said(text):
    print(f"{time.monotonic() - begun:5.0f} s {text}", flush=True)


def check(what, holds, machine=None):
    """Counts what holds. Of a machine with which it does not, the console's end is shown."""
    global passed
    if holds:
        passed += 1
        said(f"ok      {what}")
    else:
        failed.append(what)
        said(f"FAILED  {what}")
        if machine:
            machine.shows_console()
    return bool(holds)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, cwd=ROOT, **options)


def beside(*command, **options):
    """Starts a program that is ended with this one, however this one ends."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *(str(word) for word in command)], **options)


def ends_in_order():
    """A signal that ends this program ends it as an exception does. One that is ignored stays so."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda caught, _: sys.exit(128 + caught))


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


HELD = []


def free_port():
    """A TCP port that is held until the end: QEMU can listen at one that is held like this, and no other program is given it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    HELD.append(one)
    return one.getsockname()[1]


class Printer:
    """A simulated P1S on this machine, which the emulated one reaches as 10.0.2.2."""

    def __init__(self, program):
        self.program, self.port = program, 0
        self.serial = self.start()

    def start(self):
        with open(WORK / "printer.log", "w") as log:
            self.process = beside(self.program, "--model", "p1s", "--access-code", CODE, "--port", self.port, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            text = (WORK / "printer.log").read_text()
            port = re.search(r"^listening on 127\.0\.0\.1:(\d+)", text, re.M)
            serial = re.search(r"^serial (\S+)", text, re.M)
            if port and serial:
                self.port = int(port[1])
                return serial[1]
            time.sleep(0.1)
        raise SystemExit("the simulated printer does not start: " + (WORK / "printer.log").read_text()[-500:])

    def stop(self):
        self.process.kill()
        self.process.wait()


def archive(files):
    """An archive of files, as bytes or text; the kernel unpacks what follows an initramfs over it."""
    tree = WORK / "added"
    shutil.rmtree(tree, ignore_errors=True)
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        (tree / path).chmod(0o755)
    return subprocess.run("find . -mindepth 1 -type f | cpio --quiet -o -H newc -R 0:0 | gzip", shell=True, cwd=tree,
                          capture_output=True, check=True).stdout


def watchdog(kind, image):
    """The files with which an emulated board has a watchdog: the first driver that is there has the one that is fed."""
    kernel = re.search(r"^(linux-image-\S+) ", firmware.Card(image).read(1, "contents.txt").decode(), re.M)[1]
    module = f"lib/modules/{kernel.removeprefix('linux-image-')}/kernel/drivers/watchdog/{kind['watchdog']}.ko"
    # It waits longer than a board's, since what runs beside QEMU may take the processor from it for a quarter of a minute.
    # One that is built into the kernel was there before, and comes after it now: it is what resets the machine.
    first = """#!/bin/sh
mount -t sysfs sys /sys
cd /sys/bus/platform/drivers/bcm2835-wdt 2>/dev/null && echo bcm2835-wdt >unbind
insmod /lib/watchdog.ko soft_margin=60
[ ! -e bind ] || echo bcm2835-wdt >bind
cd /
umount /sys
"""
    return {
        "lib/watchdog.ko": (ROOT / kind["packages"] / "unpacked" / kernel / "files" / module).read_bytes(),
        "lib/watchdog": first,
        "etc/inittab": "::sysinit:/lib/watchdog\n" + (ROOT / "boards/card/root/etc/inittab").read_text(),
    }


def carried():
    """The files with which a machine takes an update from behind the card's partitions, if what was sent is a line that says how many bytes it has."""
    script = (ROOT / "boards/card/root/lib/card/update").read_text()
    arrived = re.search(r"^until .*done\n", script, re.M)[0]
    # Where the next one lies, the last one was: what the kernel remembers of that is forgotten.
    taken = f"""read -r what bytes <$folder/complete || true
if [ "$what" = carried ]; then
    blockdev --flushbufs /dev/mmcblk0
    dd if=/dev/mmcblk0 bs=1048576 skip={BEHIND >> 20} count=$(((bytes >> 20) + 1)) 2>/dev/null | head -c "$bytes" >$folder/carried
    mv $folder/carried $folder/complete
fi
"""
    return {"lib/card/update": script.replace(arrived, arrived + taken)}


class Adapter(threading.Thread):
    """Does for the USB controller, once its driver has let go of it, what QEMU's model leaves out. A board's stops what was under way, and is reset by
    the driver of the next kernel, which then finds what is plugged in. The model goes on with what was under way, and tells of a
    device only when that is plugged in: so what is under way ends, and the network adapter is plugged in anew."""

    CHANNELS, TYPE, INTERRUPT, ENABLE = 8, 3 << 18, 3 << 18, 1 << 31

    def __init__(self, machine, registers, path):
        super().__init__(daemon=True)
        self.machine, self.process, self.registers, self.path = machine, machine.process, registers, path

    def run(self):
        with socket.socket(socket.AF_UNIX) as control, contextlib.suppress(OSError, ValueError, IndexError):
            while not re.search(r"USB bus \d+ deregistered", self.machine.text()):
                if self.process.poll() is not None:
                    return
                time.sleep(0.1)
            for channel in range(self.CHANNELS):
                # In its place a transfer of no bytes, as of an interrupt, which the model does not try again.
                first = self.machine.kind["usb"] + 0x500 + channel * 0x20
                self.registers.write(first + 0x10, 0)
                self.registers.write(first, self.registers.read(first) & ~self.TYPE | self.INTERRUPT | self.ENABLE)
            control.connect(str(self.path))
            self.lines = control.makefile("rw")
            self.lines.readline()
            self.ask("qmp_capabilities")
            self.ask("device_del", id="adapter")
            self.ask("device_add", driver="usb-net", netdev="n0", id="adapter", port="1")
            said("        the USB driver has let go: the network adapter was plugged in anew")

    def ask(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}))
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                said(f"FAILED  {command}: {answer['error']['desc']}")
            if "event" not in answer:
                return


class Machine:
    """An emulated board with a card in it."""

    def __init__(self, board, image):
        self.board, self.kind, self.image, self.admin = board, MACHINES[board], image, ADMIN
        os.truncate(image, CARD)
        self.adds({})
        self.console = WORK / f"{board}.console"
        self.process, self.first_authority = None, None

    def adds(self, files):
        """What its root has besides what the image has, from the next start on."""
        self.added = archive(watchdog(self.kind, self.image) | carried() | files)

    def plug_in(self, **devices):
        """Starts it as the firmware would. `address` is the one that it will have, if not by DHCP. `wire` has two ports of this machine, between
        which frames are UDP packets."""
        self.loaded = loaded = firmware.Card(self.image).load(self.kind["model"], self.kind["tree"])
        if self.console.exists():
            self.console.replace(self.console.with_suffix(".before"))
        for what, added in (("kernel", b""), ("initramfs", self.added), ("tree", b"")):
            (WORK / what).write_bytes(loaded[what] + added)
        self.ports = {port: free_port() for port in (8883, 8080, 8081)}
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-{devices.get('address', '')}:{port}" for port, ours in self.ports.items())
        network = "user,id=n0" + forwards
        if "wire" in devices:
            ours, its = devices["wire"]
            network = f"socket,id=n0,udp=127.0.0.1:{ours},localaddr=127.0.0.1:{its}"
        registers, control = WORK / "registers.socket", WORK / "control.socket"
        for path in (registers, control):
            path.unlink(missing_ok=True)
        self.started, self.sent = time.monotonic(), 0
        self.process = beside(
            self.kind["program"], "-M", self.kind["machine"], "-kernel", WORK / "kernel", "-initrd", WORK / "initramfs",
            "-dtb", WORK / "tree", "-append", f"{loaded['cmdline']} {self.kind['append']}",
            "-drive", f"if=sd,file={self.image},format=raw", "-display", "none", "-monitor", "none", "-no-reboot",
            *self.clock, *self.kind["serial"], "-serial", f"file:{self.console}", "-netdev", network,
            "-device", "usb-net,netdev=n0,id=adapter,port=1", "-accel", self.kind["accel"], "-qtest-log", "none",
            "-qtest", f"unix:{registers},server=on,wait=off", "-qmp", f"unix:{control},server=on,wait=off",
            stdout=open(WORK / "qemu.log", "a"), stderr=subprocess.STDOUT)
        registers = Registers(registers)
        Adapter(self, registers, control).start()
        if self.kind["timer"]:
            Timer(registers).start()

    def text(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def shows_console(self):
        """The end of its console, and of that of its start before."""
        before = self.console.with_suffix(".before")
        if before.exists():
            print("---- the start before this ended so:\n" + "\n".join(before.read_text(errors="replace").split("\n")[-12:]))
        state = "runs" if self.runs() else "has ended"
        print(f"---- the machine {state}; its console:\n" + "\n".join(self.text().split("\n")[-60:]) + "\n----", flush=True)

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def seconds_given(self):
        """Seconds without those in which the emulator waited for a processor, which are many on a machine that has much else to do."""
        starved = 0
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
                starved = max(starved, int((task / "schedstat").read_text().split()[1]))
        return time.monotonic() - starved / 1e9

    def waits_for(self, pattern, seconds):
        """The first place of the console, from when an update was sent on, with the pattern; or None if no line was added for so many seconds,
        or a few were for four times as long. Ends early if the machine does."""
        begun = last = self.seconds_given()
        length = 0
        while True:
            ended, text, now = not self.runs(), self.text()[self.sent:], self.seconds_given()
            found = re.search(pattern, text)
            if found:
                return found
            if len(text) > length:
                length, last = len(text), now
            if ended or now - last > seconds or now - begun > 4 * seconds:
                return None
            time.sleep(0.2)

    def is_ready(self):
        """Whether it serves: by its console, or by its page, since QEMU's serial port has been seen to stop taking lines."""
        begun = self.seconds_given()
        while self.runs() and self.seconds_given() - begun < BOOT_WITHIN:
            if self.waits_for(r"card: ready after \d+ s", 2) or self.page(8080, "/readyz", 5).strip() == "ready":
                return True
        return False

    def cut(self):
        """Its plug is pulled."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def authority(self):
        """Whether the authority's certificate is to be had, once the network is there, and is that of the first time."""
        begun = self.seconds_given()
        while self.runs() and self.seconds_given() - begun < ANSWER_WITHIN:
            found = self.page(8080, "/ca.pem", 20)
            (WORK / "ca.pem").write_text(found)
            if "BEGIN CERTIFICATE" in found:
                self.first_authority = self.first_authority or found
                return found == self.first_authority
            time.sleep(1)
        return False

    def state(self, serial):
        """Whether a client that checks the certificate is told of the printer."""
        begun = self.seconds_given()
        while self.runs() and self.seconds_given() - begun < ANSWER_WITHIN:
            report = subprocess.run(
                ["mosquitto_sub", "-h", "localhost", "-p", str(self.ports[8883]), "-u", "bblp", "-P", CODE, "--cafile",
                 WORK / "ca.pem", "-t", f"device/{serial}/report", "-C", "1", "-W", "40"], capture_output=True, text=True)
            if '"gcode_state"' in report.stdout:
                return True
            time.sleep(1)
        return False

    def page(self, port, path="/", seconds=ANSWER_WITHIN):
        return subprocess.run(["curl", "-sS", "--max-time", str(seconds), f"http://localhost:{self.ports[port]}{path}"],
                              capture_output=True, text=True).stdout

    def send_update(self, update):
        """Sends it as a user would, and returns the answer. The content of a large one is put behind the partitions."""
        size, self.sent = update.stat().st_size, len(self.text())
        if size > 1 << 20 and not self.by_network:
            with open(self.image, "r+b") as card:
                card.seek(BEHIND)
                card.write(update.read_bytes())
            update = WORK / "carried.update"
            update.write_text(f"carried {size}\n")
        return self.posts("--data-binary", f"@{update}")

    def posts(self, *options):
        return subprocess.run(
            ["curl", "-sS", "--max-time", str(UPDATE_WITHIN), "-K", "-", *options, f"http://localhost:{self.ports[8081]}/cgi-bin/update"],
            input=f'header = "X-Admin-Code: {self.admin}"\nheader = "Expect:"\n', capture_output=True, text=True).stdout

    def takes_code(self):
        """Whether the admin code of its settings is the one it takes: with it, an update that would be too large is refused for that."""
        return "at most" in self.posts("-H", "Content-Length: 200000000", "--data-binary", "")

    def has_settings(self):
        """Whether its settings are those that it was given last, and no code is left where a PC shows it."""
        return bool(self.waits_for(r"card: settings: 0 errors", 5)) and self.takes_code() and not any(
            has_secret(self.image, secret) for secret in (CODE, self.admin))


# ---- without booting -------------------------------------------------------------------------------


def build(board, key):
    """The same image twice, the second time in RAM where there is room, whose folders have other sizes and another order, or its hash differs."""
    images = [WORK / f"{board}-{number}.img" for number in (1, 2)]
    has_room = pathlib.Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 1 << 30
    for image, folder in zip(images, ({}, {"TMPDIR": "/dev/shm"} if has_room else {})):
        run("boards/card/build.sh", "--update-key", key, board, image, env={**os.environ, **folder})
    check(f"{board}: two builds are the same bytes", sha256(images[0]) == sha256(images[1]))
    check(f"{board}: and list the same parts", len({sha256(image.with_suffix(".cdx.json")) for image in images}) == 1)
    images[1].unlink()
    return images[0]


def look_at(board, image):
    """Everything is where the firmware's documentation has it."""
    kind, card = MACHINES[board], firmware.Card(image)
    table = subprocess.run(["/sbin/fdisk", "-l", image], capture_output=True, text=True).stdout
    check(f"{board}: fdisk sees four partitions, the first one FAT32 and bootable",
          len(re.findall(rf"^{re.escape(str(image))}[1-4] ", table, re.M)) == 4
          and re.search(rf"^{re.escape(str(image))}1 +\* .* c W95 FAT32", table, re.M))
    first = card.names(1)
    check(f"{board}: the first partition has bootcode.bin, autoboot.txt and the settings",
          {"bootcode.bin", "autoboot.txt", "pandaproxy.txt", "contents.txt"} <= set(first))
    check(f"{board}: autoboot.txt is one sector and names slot a", len(card.read(1, "autoboot.txt")) == 512
          and card.selected() == 2)
    for number in (2, 3):
        names = set(card.names(number))
        check(f"{board}: partition {number} can be booted, and has all firmware and device trees",
              card.boots_from(number) and set(kind["firmware"] + kind["trees"]) <= names)
        loaded = card.load(kind["model"], kind["tree"])
        check(f"{board}: config.txt of partition {number} names files that are there", loaded["kernel"] and loaded["initramfs"])
        # In a trial, the watchdog of the system before it ends a kernel that panics, or hangs, before it has one of its own.
        words = loaded["cmdline"].split()
        check(f"{board}: a kernel that panics starts again, and a trial has the watchdog of the system before it",
              {"panic=10", "watchdog.stop_on_reboot=0", "watchdog.open_timeout=120"} <= set(words))
    packaged = ROOT / kind["packages"] / "unpacked/raspi-firmware/files/usr/lib/raspi-firmware"
    check(f"{board}: the firmware is that of the package, to the byte",
          card.read(1, "bootcode.bin") == (packaged / "bootcode.bin").read_bytes()
          and all(card.read(2, name) == (packaged / name).read_bytes() for name in kind["firmware"]))
    contents = card.read(1, "contents.txt").decode()
    has_drivers(board, card, contents)
    licences = {name.removeprefix("licences/").removesuffix(".txt") for name in card.names(2) if name.startswith("licences/")}
    taken = {line.split()[0] for line in contents.split("\nFiles\n")[1].split("\n") if line}
    check(f"{board}: each package that a file is of has its version and licence", taken <= licences
          and all(re.search(rf"^{re.escape(name)} \S+: ", contents, re.M) for name in taken))


def has_drivers(board, card, contents):
    """For each device of each board that an image boots on, the driver is in its root, if the kernel has it as a module."""
    kernel = re.search(r"^linux-image-(\S+) ", contents, re.M)[1]
    package = ROOT / MACHINES[board]["packages"] / f"unpacked/linux-image-{kernel}/files/lib/modules/{kernel}"
    aliases = (package / "modules.alias").read_text()
    names = subprocess.run(["cpio", "--quiet", "-t"], input=gzip.decompress(card.read(2, "initramfs.img")), capture_output=True).stdout
    names = set(names.decode().split("\n"))
    modules = {pathlib.PurePath(name).stem for name in names if name.endswith(".ko")}
    trees = sorted(name for name in card.names(2) if name.endswith(".dtb"))
    for name in trees:
        tree = card.read(2, name)
        missing = drivers.missing(tree, aliases, modules)
        check(f"{board}: {name}: the root has the drivers of {len(drivers.devices(tree))} devices {missing or ''}".rstrip(),
              len(drivers.devices(tree)) > 30 and not missing)
        model = drivers.wifi(tree)
        if model and model not in drivers.WITHOUT_FIRMWARE:
            chip = drivers.CHIPS.get(model, "?")
            wanted = {f"lib/firmware/brcm/brcmfmac{chip}-sdio.{end}" for end in ("bin", "clm_blob", f"{model}.txt")}
            wanted |= {f"lib/firmware/cypress/cyfmac{chip}-sdio.{end}" for end in ("bin", "clm_blob")}
            check(f"{board}: {name}: and the firmware of its Wi-Fi, {chip}", wanted <= names)
    check(f"{board}: and that of Wi-Fi, which no tree names", "brcmfmac" in modules and len(trees) >= 5)


def version_of(board, program):
    """What a program for a board says that it is."""
    file = WORK / "program"
    file.write_bytes(program)
    file.chmod(0o755)
    emulator, processor = (re.search(rf"^{name}=(.*)$", (ROOT / f"boards/{board}/board.env").read_text(), re.M)[1]
                           for name in ("QEMU_USER", "QEMU_CPU"))
    told = subprocess.run([emulator, "-cpu", processor, file, "--version"], capture_output=True, text=True).stdout
    return told.split(" ")[1] if told.startswith("pandaproxy ") else ""


def lists_its_parts(board, image):
    """The bill of materials beside an image names everything in it, with versions, licences, sources and hashes."""
    bill = json.loads(image.with_suffix(".cdx.json").read_text())
    card, image_hash = firmware.Card(image), [{"alg": "SHA-256", "content": sha256(image)}]
    parts = {part["bom-ref"]: part for part in bill["components"]}
    check(f"{board}: the bill of materials is that of this image",
          bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["hashes"] == image_hash)
    check(f"{board}: each of its parts has a version and a licence",
          all(part["version"] and part["licenses"] for part in parts.values()))
    listed = re.findall(r"^(\S+) (\S+): .", card.read(1, "contents.txt").decode().split("Packages of Debian")[1], re.M)
    debian = {(part["name"], part["version"]): part for ref, part in parts.items() if ref.startswith("pkg:deb/")}
    check(f"{board}: its packages are those of contents.txt, each with its source and hash", set(listed) == set(debian)
          and len(listed) > 30 and all(len(part["hashes"][0]["content"]) == 64 and len(part["properties"]) == 2
                                       and part["licenses"][0]["license"]["name"] for part in debian.values()))
    initramfs = gzip.decompress(card.read(2, "initramfs.img"))
    in_root = lambda path: subprocess.run(["cpio", "--quiet", "-i", "--to-stdout", path], input=initramfs, capture_output=True).stdout
    program = in_root("usr/bin/pandaproxy")
    ours = [part for part in parts.values() if part["name"] == "pandaproxy"]
    check(f"{board}: its program is the one in the image", len(ours) == 1
          and ours[0]["hashes"][0]["content"] == hashlib.sha256(program).hexdigest())
    told = version_of(board, program)
    check(f"{board}: the card, its list and its program say the same version: {told}", told
          == in_root("etc/card/version").decode().strip() == bill["metadata"]["component"]["version"])
    locked = (ROOT / "Cargo.lock").read_text()
    crates = [part for ref, part in parts.items() if ref.startswith("pkg:cargo/")]
    check(f"{board}: its crates are those of Cargo.lock, to the hash", len(crates) > 30 and all(
        f'name = "{part["name"]}"\nversion = "{part["version"]}"' in locked and part["hashes"][0]["content"] in locked
        for part in crates))
    texts = card.read(2, "licences/pandaproxy.txt").decode()
    check(f"{board}: the image has the licences of each of them", all(part["name"] in texts for part in crates))
    needed = re.search(r"\n\[dependencies\]\n(.*?)\n\[", (ROOT / "Cargo.toml").read_text(), re.S)[1]
    check(f"{board}: what the program is made of is among them", set(re.findall(r"^([a-z0-9_-]+) *=", needed, re.M))
          <= {part["name"] for part in crates})
    named = {ref for edge in bill["dependencies"] for ref in (edge["ref"], *edge["dependsOn"])}
    check(f"{board}: all of them depend on each other", named == {*parts, bill["metadata"]["component"]["bom-ref"]})


def select(board, image):
    """autoboot.txt alone decides, and a broken one is survived."""
    copy = WORK / "selected.img"
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    card = firmware.Card(copy)
    slot_b = card.read(1, "autoboot.txt").replace(b"boot_partition=2", b"boot_partition=3")
    card.write(1, "autoboot.txt", slot_b)
    check(f"{board}: autoboot.txt selects slot b", card.selected() == 3)
    card.write(1, "autoboot.txt", b"\xff" * 512)
    check(f"{board}: an unreadable autoboot.txt leaves slot a", card.selected() == 2)
    copy.unlink()


def fill_in(board, image, printer, name="card", **more):
    """A card with settings, as flash.sh makes it."""
    card, settings = WORK / f"{board}-{name}.img", WORK / "settings.conf"
    lines = {
        "PRINTER_IP": "10.0.2.2", "ACCESS_CODE": CODE, "SERIAL_NUMBER": printer.serial, "SERVICES": "mqtt,http",
        "PRINTER_PORTS": f"mqtt={printer.port}", "ADMIN_CODE": ADMIN, **more,
    }
    # As a PC's editor may save it.
    settings.write_bytes(b"\xef\xbb\xbf" + "".join(f"{name}={value}\r\n" for name, value in lines.items()).encode())
    run("boards/card/write.sh", board, card, "--image", image, "--config", settings, "--yes", stdout=subprocess.DEVNULL)
    firmware.Card(card).write(1, "printer-ca.pem", (ROOT / "tests/printer/pki/ca.pem").read_bytes())
    return card


def has_secret(image, secret):
    """Whether a code is anywhere on the partition that a PC shows, in use or not."""
    _, first, size = firmware.Card(image).partitions[1]
    with open(image, "rb") as file:
        file.seek(first)
        return secret.encode() in file.read(size)


# ---- booted ----------------------------------------------------------------------------------------


def boots(board, machine, printer):
    machine.plug_in()
    ready = machine.is_ready()
    if not check(f"{board}: the card boots and serves", ready, machine):
        return False
    machine.seconds = time.monotonic() - machine.started
    own = machine.waits_for(r"card: ready after (\d+) s", 5)
    said(f"        ready {own[1] if own else '?'} s after the kernel's start by its own clock, {machine.seconds:.0f} s after the plug by ours")
    check(f"{board}: it says which slot, version and board it is",
          machine.waits_for(rf"card: slot a version \S+ board card-{board}", 5))
    check(f"{board}: the settings have no error", machine.waits_for(r"card: settings: 0 errors", 5))
    check(f"{board}: the data partition was made", machine.waits_for(r"card: data: made", 5))
    check(f"{board}: the authority is downloaded", machine.authority())
    check(f"{board}: a client that checks the certificate gets the printer's state",
          machine.state(printer.serial))
    memory = machine.waits_for(r"card: memory total (\d+) used (\d+)", 60)
    check(f"{board}: memory: {f'{int(memory[2]) // 1024} of {int(memory[1]) // 1024} MiB are used' if memory else '?'}",
          memory and int(memory[2]) < 128 * 1024)
    check(f"{board}: the codes have left the partition that a PC shows",
          not any(has_secret(machine.image, secret) for secret in (CODE, ADMIN, "PRIVATE KEY")))
    return True


# What a start may find on the data partition after a cut; a first start may have been cut while it made it.
KEPT, MADE = "mounted|repaired", "mounted|repaired|made|replaced"


def comes_back(board, what, machine, printer, slot, data=KEPT):
    """After whatever was done to it, it serves, from this slot, with the authority that it had, its data, and its settings."""
    machine.cut()
    machine.plug_in()
    good = machine.is_ready() and machine.authority() and machine.state(printer.serial)
    found = machine.waits_for(r"card: data: (.*)", 5)
    return check(f"{board}: {what}: it serves again, from slot {slot}, data {found[1].strip() if found else '?'}, settings as they were",
                 good and machine.waits_for(rf"card: slot {slot} ", 5) and found and re.match(data, found[1]) and machine.has_settings(),
                 machine)


# In place of a log that is kept once an hour: the data partition is written to every other second.
WRITES = "#!/bin/sh\nwhile :; do /lib/card/log-save; sleep 1; done\n"
TRIED = r"card: update: slot \w is tried"
# When the plug is pulled: a line of the console, or a change of the card, and between how many seconds after it. Those of a start are
# in parts of what one takes here.
MOMENTS = {
    "a first start": ("", 0.0, 1.1),
    "a first start's moving of codes": ("card: data: ", 0.0, 0.3),
    "a start": ("", 0.0, 1.1),
    "a start with a new code": ("card: data: ", 0.0, 0.3),
    "work": ("", 0, 20),
    "the writing of a slot": ("card: update: verified", 0, 8),
    "the jump to the slot's kernel": (TRIED, 0, 8),
    "a trial": (rf"(?s){TRIED}.*Linux version", 0, 15),
    "a trial that serves": (rf"(?s){TRIED}.*card: ready after", 0, 25),
    "the moment before a trial is good": ("is_opened", 0, 0),
    "the moment in which a trial is good": ("is_switched", 0, 0),
    "the moment after a trial was good": ("card: update: good", 0, 3),
}
SHORT = ["a start with a new code", "work", "the writing of a slot"]
WHOLE = ["a first start"] + ["a first start's moving of codes"] * 2 + ["a start"] * 2 + ["a start with a new code"] * 2 + ["work"] * 3 + [
    "the writing of a slot"] * 3 + ["a trial"] * 2 + [moment for moment in MOMENTS if re.search("jump|serves|moment", moment)]


class Switch:
    """What the image's first partition says: whether it can be written to, and which slot is selected."""

    def __init__(self, image):
        _, self.first, size = firmware.Card(image).partitions[1]
        self.file = open(image, "rb")
        self.file.seek(self.first)
        self.choice = self.first + re.search(rb"\nboot_partition=(?=\d\n#)", self.file.read(size)).end()
        self.selected = self.byte(self.choice)

    def closes(self):
        """As a PC does that has repaired the file system: Linux does not mark one that was marked already."""
        with open(self.file.name, "r+b") as image:
            image.seek(self.first + 65)
            image.write(b"\0")

    def byte(self, at):
        return os.pread(self.file.fileno(), 1, at)

    def is_opened(self):
        """Linux marks a FAT32 that is mounted to be written to."""
        return self.byte(self.first + 65)[0] & 1 or self.is_switched()

    def is_switched(self):
        return self.byte(self.choice) != self.selected


def reaches(machine, switch, line, seconds):
    """Waits for a moment, and says whether it has come."""
    if line.startswith("is_"):
        begun = machine.seconds_given()
        while not getattr(switch, line)():
            if not machine.runs() or machine.seconds_given() - begun > UPDATE_WITHIN:
                return False
            time.sleep(0.001)
    elif line and not machine.waits_for(line, UPDATE_WITHIN):
        return False
    time.sleep(seconds)
    return True


def cuts(board, image, machine, printer, count, first, seed, key):
    """The plug is pulled at random moments: of a first start, of a later one, of the work after it, and of an update."""
    dice = random.Random(seed)
    moments = SHORT[:count] if count <= len(SHORT) else dice.sample(WHOLE, len(WHOLE))
    while len(moments) < count:
        moments.append(dice.choice(WHOLE))
    # Those of another card come first: the other ones need no further start between them.
    moments.sort(key=lambda moment: "first" not in moment)
    said(f"        {count} power cuts, with --seed {seed}: {', '.join(moments[:count])}")
    machine.adds({"lib/card/log-keep": WRITES})
    survived = lost = 0
    for number in range(first, count + 1):
        if pulls(board, image, machine, printer, key, dice, f"power cut {number} of {count}", moments[number - 1]):
            survived += 1
        else:
            lost += 1
        if lost == 3:
            break
    machine.adds({})
    said(f"        {survived} of {count - first + 1} power cuts were survived")


def pulls(board, image, machine, printer, key, dice, what, moment):
    """Pulls the plug at a moment, and says whether all is well afterwards."""
    line, least, most = MOMENTS[moment]
    of_start, of_update = "start" in moment, line.startswith("is_") or "update" in line
    seconds, subject = dice.uniform(least, most) * (machine.seconds if of_start else 1), machine
    if of_start:
        machine.cut()
        if "first" in moment:
            subject = Machine(board, fill_in(board, image, printer, name="fresh"))
            subject.added = machine.added
        elif "code" in moment:
            types_code(machine, f"a-new-code-{dice.randrange(10 ** 8)}")
        subject.plug_in()
    elif not machine.runs() and not comes_back(board, f"before {what}", machine, printer, selected(machine)):
        return False
    slot, other, switch, version = selected(subject), "ba"["ab".index(selected(subject))], Switch(subject.image), None
    if line == "is_opened" and switch.is_opened():
        subject.cut()
        switch.closes()
        if not comes_back(board, f"before {what}", subject, printer, slot):
            return False
    if of_update:
        version = sends_update(board, image, machine, key)
    if not check(f"{board}: {what}: {moment} is reached", reaches(subject, switch, line, seconds), subject):
        return False
    subject.cut()
    reached = (re.findall("card: .*", subject.text()) or ["kernel"])[-1].strip()[:60]
    now = selected(subject)
    good = check(f"{board}: {what}: slot {now} is selected", now == slot or "good" in moment or "serves" in moment)
    good &= comes_back(board, f"{what}, in {moment}, {seconds:.1f} s after {line or 'its begin'!r} ({reached})",
                       subject, printer, now, MADE if "first" in moment else KEPT)
    if of_update:
        tried = "writing" not in moment
        verdict = subject.page(8081, "/cgi-bin/update").strip()
        good &= check(f"{board}: and its page says what became of the update: {verdict}", not tried or verdict.startswith(
            f"good, slot {other}" if now == other else "taken back: "), subject)
        if now == other:
            good &= check(f"{board}: and its version is that of the update", subject.waits_for(rf"card: slot \w version {re.escape(version)} ", 5))
    if subject is not machine:
        subject.cut()
        subject.image.unlink()
    return good


def selected(machine):
    return "ab"[firmware.Card(machine.image).selected() - 2]


def types_code(machine, code):
    """A new admin code is typed into pandaproxy.txt on a PC."""
    card = firmware.Card(machine.image)
    text, found = re.subn(rb"(?m)^ADMIN_CODE=.*?(?=\r?$)", b"ADMIN_CODE=" + code.encode(), card.read(1, "pandaproxy.txt"))
    assert found == 1
    card.write(1, "pandaproxy.txt", text)
    machine.admin = code


def slot_file(image):
    return pathlib.Path(str(image).removesuffix(".img") + ".slot")


def slot_with(board, image, name, files):
    """A slot as the image has it, with other files in its root."""
    slot = WORK / f"{name}.slot"
    shutil.copy(slot_file(image), slot)
    initramfs = WORK / "initramfs.added"
    run("mcopy", "-n", "-D", "o", "-i", slot, "::initramfs.img", initramfs)
    with open(initramfs, "ab") as file:
        file.write(archive(watchdog(MACHINES[board], image) | files))
    run("mcopy", "-D", "o", "-i", slot, initramfs, "::initramfs.img")
    return slot


def signed(slot, key, board, version):
    update = slot.with_suffix(".update")
    run("boards/sign.sh", "--key", key, "--content", slot, "--out", update, version, f"card-{board}", stdout=subprocess.DEVNULL)
    return update


def next_version():
    next_version.last += 1
    return f"99.{next_version.last}.0"


next_version.last = 0


def patient():
    """The files with which the trial of an update has eight minutes: beside much else, QEMU takes longer than a board's two for a start."""
    script = (ROOT / "boards/card/root/lib/card/trial").read_text()
    assert "-ge 120 ]" in script and "-lt 120 ]" in script
    return {"lib/card/trial": script.replace("120", "480")}


def sends_update(board, image, machine, key, files=None):
    """Sends an update with these files in its root, or one that is good, to a machine that serves; returns its version."""
    version = next_version()
    files = {"etc/card/version": version + "\n"} | (patient() if files is None else files)
    update = signed(slot_with(board, image, "update", files), key, board, version)
    answer = machine.send_update(update)
    check(f"{board}: an update is accepted: {answer.strip()[:60]}", "being verified" in answer, machine)
    return version


def update_is_taken(board, image, machine, printer, key):
    slot = selected(machine)
    other = "ba"["ab".index(slot)]
    if not machine.runs() and not comes_back(board, "before an update", machine, printer, slot):
        return
    begun = time.monotonic()
    version = sends_update(board, image, machine, key)
    verdict = becomes(machine, f"good, slot {other}, version {version}")
    check(f"{board}: an update is tried, serves, reaches the printer, and after {time.monotonic() - begun:.0f} s it is {verdict}",
          verdict.startswith("good, "), machine)
    check(f"{board}: autoboot.txt names slot {other}", selected(machine) == other)
    comes_back(board, "after the update", machine, printer, other)
    check(f"{board}: with the new version", machine.waits_for(rf"card: slot {other} version {re.escape(version)} ", 5), machine)


def becomes(machine, good):
    """What became of an update: by its console, or by its page if that says what is hoped for."""
    begun = machine.seconds_given()
    while machine.runs() and machine.seconds_given() - begun < UPDATE_WITHIN:
        if found := machine.waits_for(r"card: update: ((?:good|taken back|refused).*)", 5):
            return found[1].strip()
        if machine.page(8081, "/cgi-bin/update", 5).strip() == good:
            return good
    return "not known"


def updates_are_refused(board, image, machine, printer, key):
    """Updates that must not be tried. Nothing on the card changes but what became of them, and the same proxy goes on."""
    if not machine.runs() and not comes_back(board, "before updates that are refused", machine, printer, selected(machine)):
        return
    own, other = WORK / "own.slot", "rpi-3" if board == "rpi-zero" else "rpi-zero"
    own.write_bytes(os.urandom(4096))
    stranger = WORK / "stranger.pem"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", stranger, stderr=subprocess.DEVNULL)

    def altered(change):
        update = signed(own, key, board, "99.99.0")
        update.write_bytes(change(update.read_bytes()))
        return update

    def sent(update):
        """The first one in a while: the machine takes the next one a moment after it has refused one."""
        begun = machine.seconds_given()
        while "being verified" not in (answer := machine.send_update(update)) and machine.seconds_given() - begun < ANSWER_WITHIN:
            time.sleep(1)
        return answer

    def installed():
        # What no file of the first partition uses is blanked in the meantime.
        choice = firmware.Card(machine.image).read(1, "autoboot.txt")
        return [choice] + [hashlib.sha256(partition(machine.image, number)).digest() for number in (2, 3)]

    before = installed()
    for what, update, why in (
        ("another board", lambda: signed(own, key, other, "99.99.0"), "for board card-.*, not card-"),
        ("another key", lambda: signed(own, stranger, board, "99.99.0"), "signature not made by an accepted key"),
        ("an older version", lambda: signed(own, key, board, "0.0.1"), r"version 0\.0\.1 is older"),
        ("a changed header", lambda: altered(lambda update: update.replace(b"99.99.0", b"99.99.1")), "signature not made by an accepted key"),
        ("changed content", lambda: altered(lambda update: update[:-1] + bytes([update[-1] ^ 1])), "content is not what was signed"),
        ("an end that is missing", lambda: altered(lambda update: update[:-1]), "file has 4095 of 4096 bytes"),
        ("no header", lambda: own, "not an update file"),
    ):
        sent(update())
        found = machine.waits_for(r"card: update: (refused: .*)\n", UPDATE_WITHIN)
        said_so = found[1].strip() if found else "nothing"
        check(f"{board}: an update with {what} is refused: {said_so}", re.match(f"refused: .*{why}", said_so), machine)
        begun = machine.seconds_given()
        while (page := machine.page(8081, "/cgi-bin/update").strip()) != said_so and machine.seconds_given() - begun < ANSWER_WITHIN:
            time.sleep(1)
        check(f"{board}: and the page says so", page == said_so, machine)
    check(f"{board}: after updates that were refused, no slot and no choice of one has changed", installed() == before)
    check(f"{board}: and it serves as before", machine.runs() and machine.state(printer.serial) and "the proxy ended" not in machine.text(), machine)


def partition(image, number):
    _, first, size = firmware.Card(image).partitions[number]
    with open(image, "rb") as file:
        file.seek(first)
        return file.read(size)


def update_goes_back(board, image, machine, printer, key, what, files, pattern, stop_printer=False):
    """An update that is not good: the slot that was there before serves again."""
    letter = selected(machine)
    if not machine.runs() and not comes_back(board, f"before an update that {what}", machine, printer, letter):
        return
    sends_update(board, image, machine, key, files)
    check(f"{board}: an update that {what} is tried", machine.waits_for(TRIED, UPDATE_WITHIN), machine)
    if stop_printer:
        printer.stop()
    check(f"{board}: an update that {what} ends", machine.waits_for(pattern, UPDATE_WITHIN), machine)
    if stop_printer:
        printer.start()
    check(f"{board}: and the machine resets itself", wait_for_end(machine, 120), machine)
    comes_back(board, f"after an update that {what}", machine, printer, letter)
    check(f"{board}: and its page says so", machine.page(8081, "/cgi-bin/update").startswith("taken back: "), machine)


def wait_for_end(machine, seconds):
    begun = machine.seconds_given()
    while machine.runs() and machine.seconds_given() - begun < seconds:
        time.sleep(0.2)
    return not machine.runs()


def broken_data(board, machine, printer):
    machine.cut()
    _, first, size = firmware.Card(machine.image).partitions[4]
    with open(machine.image, "r+b") as file:
        file.seek(first)
        file.write(os.urandom(8 * 1048576))
    machine.plug_in()
    # The codes were there, and are gone: it says so, and is reached.
    check(f"{board}: a corrupt data partition: it comes up and says what it did",
          machine.waits_for(r"card: data: (repaired|replaced)", BOOT_WITHIN))
    check(f"{board}: and a page says that the access code is lost",
          machine.waits_for(r"card: settings: [1-9]\d* errors", 120) and page_within(machine, "ACCESS_CODE was moved"))
    # What its user does then; the key would be made anew, which takes an emulated board too long.
    machine.cut()
    card = firmware.Card(machine.image)
    blanked = card.read(1, "pandaproxy.txt")
    codes = {b"ACCESS_CODE": CODE, b"ADMIN_CODE": machine.admin}
    typed = re.sub(rb"(?m)^(A\w+_CODE)= +", lambda found: found[1] + b"=" + codes[found[1]].encode(), blanked)
    check(f"{board}: the codes had left the settings", all(b"%s=%s" % (name, code.encode()) in typed for name, code in codes.items()))
    card.write(1, "pandaproxy.txt", typed)
    key = (ROOT / "tests/printer/pki/x1c.key").read_bytes()
    card.write(1, "rsa.key", key[key.index(b"-----BEGIN"):])
    machine.first_authority = None
    comes_back(board, "the codes typed in again", machine, printer, "ab"[card.selected() - 2])


def page_within(machine, words, seconds=BOOT_WITHIN):
    begun = machine.seconds_given()
    while machine.runs() and machine.seconds_given() - begun < seconds:
        if words in machine.page(8080):
            return True
        time.sleep(2)
    return False


def broken_settings(board, image, printer):
    card = fill_in(board, image, printer)
    firmware.Card(card).write(1, "pandaproxy.txt", b"\xff\xfe\x00PRINTER_IP=nonsense here\r\nNO SUCH LINE\x00\r\n" * 20)
    machine = Machine(board, card)
    machine.plug_in()
    check(f"{board}: unreadable settings: it comes up with a page that names a line",
          machine.waits_for(r"card: settings: [1-9]\d* errors", BOOT_WITHIN) and page_within(machine, "line"))
    machine.cut()


def leased(frame, address):
    """The answer of a DHCP server to a frame, if that asks for an address: an offer, and then a lease of this one."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[36:38] != b"\x00\x43" or len(frame) < 285:
        return None
    kind = re.search(rb"\x35\x01([\x01\x03])", frame[282:])
    if not kind:
        return None
    client, server = socket.inet_aton(address), socket.inet_aton(address.rsplit(".", 1)[0] + ".1")
    told = {53: b"\x02" if kind[1] == b"\x01" else b"\x05", 54: server, 51: b"\x00\x00\x0e\x10", 1: b"\xff\xff\xff\x00"}
    options = b"".join(bytes([code, len(value)]) + value for code, value in told.items())
    bootp = (b"\x02\x01\x06\x00" + frame[46:54] + bytes(4) + client + bytes(8) + frame[70:86] + bytes(192)
             + b"\x63\x82\x53\x63" + options + b"\xff").ljust(300, b"\x00")
    datagram = struct.pack(">HHHH", 67, 68, 8 + len(bootp), 0) + bootp
    head = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, server, b"\xff" * 4))
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xffff) + (total >> 16)
    struct.pack_into(">H", head, 10, ~(total + (total >> 16)) & 0xffff)
    return b"\xff" * 6 + b"\x52\x54\x00\x00\x00\x01\x08\x00" + bytes(head) + datagram


def tells_its_name(wire, board_end, network, serve=None):
    """The name that it tells by mDNS from an address that begins like this, while `serve` answers what it asks."""
    deadline = time.monotonic() + BOOT_WITHIN
    while time.monotonic() < deadline:
        frame = wire.recv(2048)
        answer = serve and serve(frame)
        if answer:
            wire.sendto(answer, board_end)
        # Ethernet, IPv4, UDP to mDNS' port, a name of its own.
        if frame[12:14] == b"\x08\x00" and frame[26:26 + len(network)] == network and frame[36:38] == b"\x14\xe9":
            found = re.search(rb"pandaproxy-\w{4}\x05local", frame)
            if found:
                return found
    return None


def no_dhcp(board, image, printer):
    card = fill_in(board, image, printer, ADDRESS="10.0.2.50/24", GATEWAY="10.0.2.2")
    machine = Machine(board, card)
    # QEMU's own DHCP hands out another one: the settings' address is what has to count.
    machine.plug_in(address="10.0.2.50")
    check(f"{board}: an address of the settings is used",
          machine.is_ready() and machine.authority() and machine.state(printer.serial))
    machine.cut()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        wire.settimeout(BOOT_WITHIN)
        board_end = ("127.0.0.1", free_port())
        machine = Machine(board, fill_in(board, image, printer))
        machine.plug_in(wire=(wire.getsockname()[1], board_end[1]))
        check(f"{board}: without a DHCP server it has a link-local address, and tells its name",
              tells_its_name(wire, board_end, b"\xa9\xfe"))
        check(f"{board}: and serves", machine.waits_for(r"card: ready after", BOOT_WITHIN))
        check(f"{board}: a DHCP server that appears then gives it an address, at which it tells its name",
              tells_its_name(wire, board_end, socket.inet_aton("10.9.8.7"), lambda frame: leased(frame, "10.9.8.7")))
    machine.cut()


def edit_data(image, commands):
    """Has debugfs change the data partition; returns how many blocks are free then."""
    _, first, size = firmware.Card(image).partitions[4]
    part = WORK / "data.part"
    with open(image, "rb") as file:
        file.seek(first)
        part.write_bytes(file.read(size))
    # What the plug left in the journal comes first: debugfs does not read it.
    subprocess.run(["/sbin/e2fsck", "-fy", part], capture_output=True)
    subprocess.run(["/sbin/debugfs", "-w", "-f", "-", part], input=commands, text=True, capture_output=True)
    told = subprocess.run(["/sbin/dumpe2fs", "-h", part], capture_output=True, text=True, check=True).stdout
    with open(image, "r+b") as file:
        file.seek(first)
        file.write(part.read_bytes())
    return int(re.search(r"^Free blocks: +(\d+)$", told, re.M)[1])


def full_data(board, machine, printer):
    """As much as fits in the data partition is written there, from outside."""
    machine.cut()
    filler = WORK / "filler"
    filler.write_bytes(os.urandom(1 << 20))
    free = edit_data(machine.image, "cd log\n" + "".join(f"write {filler} filler{number}\n" for number in range(256)))
    check(f"{board}: the data partition is full: {free} blocks are free", free < 1024)
    letter = "ab"[firmware.Card(machine.image).selected() - 2]
    comes_back(board, "a full data partition", machine, printer, letter)


PHASES = ("image", "boot", "cuts", "update", "refused", "bad-updates", "data", "settings", "network")


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog="Without --whole it takes some five minutes.")
    parser.add_argument("--whole", action="store_true", help="rpi-zero and rpi-3, twenty power cuts, and all that can be wrong")
    parser.add_argument("--board", action="append", choices=MACHINES, help="this one; more than once for more")
    parser.add_argument("--cuts", type=int, help="how many power cuts (3, or 20)")
    parser.add_argument("--first", type=int, default=1, help="the first of them, with those before left out")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of power cuts")
    parser.add_argument("--by-network", action="store_true", help="updates are sent through the emulated network, whole")
    parser.add_argument("--by-instructions", action="store_true", help="the emulated clock counts instructions: for a machine that "
                        "has too much else to do for one that counts seconds; slow")
    parser.add_argument("--printer", help="the simulated printer, if it is built")
    parser.add_argument("--image", type=pathlib.Path, help="this image, in place of building one twice; its updates need --key")
    parser.add_argument("--key", type=pathlib.Path, help="the private key of the updates that the image takes")
    parser.add_argument("--only", action="append", choices=PHASES, help="this phase, also one of --whole; more than once for more. image boots nothing")
    arguments = parser.parse_args()
    Machine.by_network, Machine.clock = arguments.by_network, ["-icount", "shift=1"] if arguments.by_instructions else []
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for program, package in (("mcopy", "mtools"), ("qemu-system-arm", "qemu-system-arm ipxe-qemu"), ("fdisk", "fdisk"),
                             ("mosquitto_sub", "mosquitto-clients"), ("curl", "curl"), ("debugfs", "e2fsprogs")):
        if not shutil.which(program):
            subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *package.split()], check=True,
                           env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    key, public = arguments.key or WORK / "key.pem", WORK / "update.pem"
    if not arguments.key:
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key, stderr=subprocess.DEVNULL)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", public)

    printer_program = arguments.printer
    if not printer_program:
        run("cargo", "build", "--locked", "--quiet", "--example", "printer")
        printer_program = ROOT / "target/debug/examples/printer"
    usual = PHASES if arguments.whole else ("boot", "cuts", "update")
    wanted = lambda name: name in (arguments.only or usual)
    count = arguments.cuts if arguments.cuts is not None else 20 if arguments.whole else 3
    printer, machine = None, None
    try:
        printer = Printer(printer_program)
        for board in arguments.board or (["rpi-zero", "rpi-3"] if arguments.whole else ["rpi-zero"]):
            image = arguments.image.resolve() if arguments.image else build(board, public)
            look_at(board, image)
            if not arguments.image or image.with_suffix(".cdx.json").exists():
                lists_its_parts(board, image)
            select(board, image)
            machine = Machine(board, fill_in(board, image, printer))
            if any(wanted(name) for name in ("boot", "cuts", "update", "refused", "bad-updates", "data")) and not boots(board, machine, printer):
                machine.cut()
                continue
            if wanted("cuts"):
                cuts(board, image, machine, printer, count, arguments.first, arguments.seed, key)
            if wanted("update"):
                update_is_taken(board, image, machine, printer, key)
            if wanted("refused"):
                updates_are_refused(board, image, machine, printer, key)
            if wanted("bad-updates"):
                update_goes_back(board, image, machine, printer, key, "crashes",
                                 {"lib/card/boot": "#!/bin/sh\n/lib/card/mount-kernel\necho c >/proc/sysrq-trigger\n"}, r"Kernel panic")
                update_goes_back(board, image, machine, printer, key, "has a proxy that ends",
                                 {"usr/bin/pandaproxy": "#!/bin/sh\nexit 1\n"}, r"card: update: taken back: the proxy ended")
                update_goes_back(board, image, machine, printer, key, "does not reach the printer",
                                 {}, r"card: update: taken back: the printer was not", stop_printer=True)
            if wanted("data"):
                full_data(board, machine, printer)
                broken_data(board, machine, printer)
            machine.cut()
            if wanted("settings"):
                broken_settings(board, image, printer)
            if wanted("network"):
                no_dhcp(board, image, printer)
    finally:
        if machine:
            machine.cut()
        if printer:
            printer.stop()
    print(f"{Timer.lost} events of the emulated timer were lost, and made good")
    print(f"{passed} passed, {len(failed)} failed")
    for what in failed:
        print(f"FAILED  {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    ends_in_order()
    sys.exit(main())
