#!/usr/bin/env python3
"""Watches a chamber camera as Home Assistant's integration does it.

usage: viewer.py HOST PORT PICTURES [CA]    the access code is read from standard input

One recv(4096) has to bring a picture's head and nothing else: 16 bytes. Then recv(4096) as often as
it takes, and none of them may bring bytes of the next picture. Each picture's length and SHA-256 are
printed; a connection that is closed before the first byte ends with status 3.
"""

import hashlib
import socket
import ssl
import struct
import sys

host, port, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
code = sys.stdin.readline().strip().encode()

context = ssl.create_default_context(cafile=sys.argv[4] if len(sys.argv) > 4 else None)
if len(sys.argv) <= 4:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

login = struct.pack("<IIII", 0x40, 0x3000, 0, 0) + b"bblp".ljust(32, b"\0") + code.ljust(32, b"\0")

with socket.create_connection((host, port), timeout=60) as plain:
    with context.wrap_socket(plain, server_hostname=host) as stream:
        stream.sendall(login)
        for seen in range(wanted):
            head = stream.recv(4096)
            if not head and not seen:
                print("closed without a byte")
                sys.exit(3)
            if len(head) != 16:
                sys.exit(f"a head of {len(head)} bytes")
            length, track, flags, rest = struct.unpack("<IIII", head)
            if (track, flags, rest) != (0, 1, 0):
                sys.exit(f"an odd head: {head.hex()}")
            picture = bytearray()
            while len(picture) < length:
                part = stream.recv(4096)
                if not part:
                    sys.exit("closed in the middle of a picture")
                picture += part
            if len(picture) != length:
                sys.exit(f"{len(picture) - length} bytes too many")
            if picture[:4] != b"\xff\xd8\xff\xe0" or picture[-2:] != b"\xff\xd9":
                sys.exit("no JPEG")
            print(length, hashlib.sha256(picture).hexdigest(), flush=True)
