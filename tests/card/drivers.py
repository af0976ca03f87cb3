"""Which drivers of a kernel the devices of a board want, by the board's device tree, as the kernel itself finds them."""

import re
import struct

# A card has no use for these: Bluetooth, sensors, pulses for sound, the two halves of the graphics processor, and its mailbox for media.
NOT_NEEDED = {"hci_uart", "i2c_bcm2835", "bcm2711_thermal", "bcm2835_thermal", "pwm_bcm2835", "vc4", "v3d", "vchiq"}
# The chip for Wi-Fi of each model, and the models for whose chip Debian has no firmware: 43436 and 43456, and a module's own settings.
CHIPS = {"raspberrypi,model-zero-w": "43430", "raspberrypi,3-model-b": "43430", "raspberrypi,3-model-a-plus": "43455",
         "raspberrypi,3-model-b-plus": "43455", "raspberrypi,4-model-b": "43455"}
WITHOUT_FIRMWARE = {"raspberrypi,model-zero-2-w", "raspberrypi,400", "raspberrypi,4-compute-module"}
BEGIN_NODE, END_NODE, PROPERTY, NOP, END = 1, 2, 3, 4, 9


def nodes(tree):
    """The nodes of a device tree, as its binary form has them: path and properties, parents first."""
    offset, names = struct.unpack_from(">II", tree, 8)
    found, path = {}, []
    while True:
        (token,) = struct.unpack_from(">I", tree, offset)
        offset += 4
        if token == BEGIN_NODE:
            end = tree.index(b"\0", offset)
            path.append(tree[offset:end].decode())
            found["/".join(path)] = {}
            offset = end + 4 & ~3
        elif token == END_NODE:
            path.pop()
        elif token == PROPERTY:
            length, name = struct.unpack_from(">II", tree, offset)
            name = tree[names + name : tree.index(b"\0", names + name)].decode()
            found["/".join(path)][name] = tree[offset + 8 : offset + 8 + length]
            offset = offset + 8 + length + 3 & ~3
        elif token == END:
            return found
        elif token != NOP:
            raise ValueError(f"no device tree: token {token}")


def devices(tree):
    """The devices that are there: path and what each is compatible with. One below a disabled one is not."""
    found, disabled = {}, []
    for path, properties in nodes(tree).items():
        if properties.get("status", b"okay\0") not in (b"okay\0", b"ok\0"):
            disabled.append(path + "/")
        if "compatible" in properties and path and not any((path + "/").startswith(above) for above in disabled):
            found[path] = properties["compatible"].decode().rstrip("\0").split("\0")
    return found


def wifi(tree):
    """The model of the board, if it has Wi-Fi."""
    if not any("brcm,bcm4329-fmac" in kinds for kinds in devices(tree).values()):
        return None
    return nodes(tree)[""]["compatible"].decode().split("\0")[0]


def by_device(aliases):
    """For each kind of device of device trees the modules that say they are for it: lines of a kernel's modules.alias."""
    found = {}
    for kind, module in re.findall(r"^alias of:N\*T\*C([^*\s]+?)(?:C\*)? (\S+)$", aliases, re.M):
        found.setdefault(kind, set()).add(module)
    return found


def missing(tree, aliases, modules):
    """What devices of a tree want and is not among the modules: `PATH: MODULE`."""
    wanted, there = by_device(aliases), {module.replace("-", "_") for module in modules}
    return sorted(f"{path}: {module}" for path, kinds in devices(tree).items() for kind in kinds
                  for module in wanted.get(kind, set()) if module not in there | NOT_NEEDED)
