"""Stores a file of zeros by implicit FTPS, and prints how long its bytes and then the 226 took, in seconds."""

import socket
import ssl
import sys
import time

host, code, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
PIECE = 16384

context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion.TLSv1_2

control = context.wrap_socket(socket.create_connection((host, 990)))
lines = control.makefile("rb")


def reply(expected: str) -> str:
    while True:
        line = lines.readline().decode()
        if not line:
            sys.exit("the control connection was closed")
        if line[3:4] == " ":
            if not line.startswith(expected):
                sys.exit(line.strip())
            return line


def command(line: str, expected: str) -> str:
    control.sendall(f"{line}\r\n".encode())
    return reply(expected)


reply("220")
command("USER bblp", "331")
command(f"PASS {code}", "230")
command("PBSZ 0", "200")
command("PROT P", "200")
command("TYPE I", "200")
numbers = command("PASV", "227").partition("(")[2].partition(")")[0].split(",")
raw = socket.create_connection((host, int(numbers[4]) * 256 + int(numbers[5])))
control.sendall(b"STOR paced.bin\r\n")
data = context.wrap_socket(raw, session=control.session)
reply("150")

began = time.monotonic()
for _ in range(size // PIECE):
    data.sendall(bytes(PIECE))
sent = time.monotonic()
data.close()
reply("226")
print(f"{sent - began:.2f} {time.monotonic() - sent:.2f}")
