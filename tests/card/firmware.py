"""What the firmware of a Raspberry Pi does with a memory card, as far as its documentation says: which partition and which
files it takes. QEMU does not run the firmware, and is given what this finds."""

import re
import struct
import subprocess

SECTOR = 512


class Unbootable(Exception):
    """A board with this card in it would not start."""


class Card:
    def __init__(self, image):
        self.image = image
        with open(image, "rb") as file:
            sector = file.read(SECTOR)
        if sector[510:512] != b"\x55\xaa":
            raise Unbootable("no partition table")
        # For each number from 1 on: type, first byte, bytes.
        self.partitions = {}
        for number in range(1, 5):
            entry = sector[446 + (number - 1) * 16 : 446 + number * 16]
            first, sectors = struct.unpack("<II", entry[8:16])
            if sectors:
                self.partitions[number] = (entry[4], first * SECTOR, sectors * SECTOR)

    def drive(self, number):
        """How mtools is told of a partition."""
        return f"{self.image}@@{self.partitions[number][1]}"

    def read(self, number, name):
        """A file's bytes, or None if the partition has no such file or no file system."""
        found = subprocess.run(["mcopy", "-n", "-i", self.drive(number), f"::{name}", "-"], capture_output=True)
        return found.stdout if found.returncode == 0 else None

    def write(self, number, name, content):
        subprocess.run(["mcopy", "-D", "o", "-i", self.drive(number), "-", f"::{name}"], input=content, check=True)

    def names(self, number):
        """All files of a partition, with their folders."""
        found = subprocess.run(["mdir", "-/", "-b", "-i", self.drive(number)], capture_output=True, text=True, check=True)
        return [line.removeprefix("::/") for line in found.stdout.split("\n") if line and not line.endswith("/")]

    def boots_from(self, number):
        """Whether the firmware would start from a partition: a FAT file system with start.elf in it."""
        return self.partitions.get(number, (0,))[0] in (0x0B, 0x0C, 0x0E) and bool(self.read(number, "start.elf"))

    def selected(self):
        """The partition of autoboot.txt; without one, the first that can be booted."""
        text = self.read(1, "autoboot.txt") or b""
        named = settings(text[:SECTOR].decode("ascii", "replace"), {"all"}).get("boot_partition", "0")
        number = int(named) if named.isdigit() else 0
        if self.boots_from(number):
            return number
        for number in sorted(self.partitions):
            if self.boots_from(number):
                return number
        raise Unbootable("no partition has a start.elf")

    def load(self, model, tree):
        """What a board of this model is started with: the partition, and the content of the files."""
        number = self.selected()
        text = self.read(number, "config.txt")
        if text is None:
            raise Unbootable(f"partition {number} has no config.txt")
        found = settings(text.decode(), {"all", model})
        wanted = {
            "kernel": found["kernel"],
            "initramfs": found["initramfs"],
            "cmdline": found.get("cmdline", "cmdline.txt"),
            "tree": tree,
        }
        loaded = {"partition": number}
        for what, name in wanted.items():
            loaded[what] = self.read(number, name)
            if not loaded[what]:
                raise Unbootable(f"partition {number} has no {name}")
        loaded["cmdline"] = loaded["cmdline"].decode().split("\n")[0]
        return loaded


def settings(text, filters):
    """The lines of a config.txt that apply under these filters, the last of a name."""
    found, applies = {}, True
    for line in text.split("\n"):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        section = re.fullmatch(r"\[(.+)\]", line)
        if section:
            applies = section[1] in filters
        elif applies and line.startswith("initramfs "):
            found["initramfs"] = line.split()[1]
        elif applies and "=" in line:
            name, value = line.split("=", 1)
            found[name] = value
    return found
