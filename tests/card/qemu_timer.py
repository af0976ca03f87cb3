#!/usr/bin/env python3
"""Gives a raspi0 of QEMU the events of its timer that the model loses: qemu_timer.py SOCKET, where SOCKET is that of `-qtest`.

The only timer of raspi0 counts in microseconds. Its kernel reads the counter, adds as little as 15 us, and writes the sum to
the compare register. If the machine that runs QEMU takes the processor from it between the two, that moment is over, and
QEMU's model waits until the counter is there again: 71 minutes, in which nothing happens.
"""

import contextlib
import os
import socket
import sys
import threading
import time


class Registers:
    """The registers of an emulated board, past its processor."""

    def __init__(self, path):
        self.path, self.lock, self.lines = path, threading.Lock(), None

    def ask(self, words):
        with self.lock:
            if not self.lines:
                while not os.path.exists(self.path):
                    time.sleep(0.1)
                machine = socket.socket(socket.AF_UNIX)
                machine.connect(str(self.path))
                self.lines = machine.makefile("rw")
            self.lines.write(words + "\n")
            self.lines.flush()
            return self.lines.readline().split()

    def read(self, address):
        return int(self.ask(f"readl {address:#x}")[1], 16)

    def write(self, address, value):
        self.ask(f"writel {address:#x} {value:#x}")


class Timer(threading.Thread):
    """Gives raspi0 the events of its timer that QEMU's model loses. A board's timer loses none: nothing stops a kernel for 15 us there."""

    COUNTER, CONTROL, COMPARE, FIRED = 0x20003004, 0x20003000, 0x20003018, 8
    LOST_FOR = 200_000
    lost = 0

    def __init__(self, registers):
        super().__init__(daemon=True)
        self.registers = registers

    def run(self):
        with contextlib.suppress(OSError, ValueError, IndexError):
            while True:
                fired = self.registers.read(self.CONTROL) & self.FIRED
                compare = self.registers.read(self.COMPARE)
                now = self.registers.read(self.COUNTER)
                if not fired and self.LOST_FOR < (now - compare) % (1 << 32) < 1 << 31:
                    Timer.lost += 1
                    self.registers.write(self.COMPARE, (now + 50_000) % (1 << 32))
                time.sleep(0.3)


def main():
    """Goes on until QEMU ends."""
    timer = Timer(Registers(sys.argv[1]))
    timer.start()
    timer.join()
    print(f"{Timer.lost} events of the emulated timer were lost, and made good")


if __name__ == "__main__":
    main()
