"""Asks which printer is at an address, as slicers do, with Python's own sockets, TLS and JSON.

usage: detect.py HOST PORT [CA]    With CA over TLS, whose certificate has to be for HOST.

Prints the answer's JSON on one line. Ends with 1 if there is none.
"""

import json
import socket
import ssl
import struct
import sys


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            sys.exit(f"closed after {len(data)} of {count} bytes")
        data += piece
    return data


host, port = sys.argv[1], int(sys.argv[2])
stream = socket.create_connection((host, port), timeout=30)
if len(sys.argv) > 3:
    context = ssl.create_default_context(cafile=sys.argv[3])
    # The authority is the user's own; what newer versions of Python want of public ones is not asked of it.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    stream = context.wrap_socket(stream, server_hostname=host)
    print(dict(item[0] for item in stream.getpeercert()["subject"])["commonName"])
body = json.dumps({"login": {"command": "detect", "sequence_id": "20123"}}).encode()
stream.sendall(b"\xa5\xa5" + struct.pack("<H", len(body) + 6) + body + b"\xa7\xa7")
magic, length = struct.unpack("<2sH", read_exactly(stream, 4))
if magic != b"\xa5\xa5":
    sys.exit(f"not a frame: {magic!r}")
rest = read_exactly(stream, length - 4)
if rest[-2:] != b"\xa7\xa7":
    sys.exit(f"no end: {rest!r}")
if stream.recv(1):
    sys.exit("more than one answer")
print(json.dumps(json.loads(rest[:-2])["login"], sort_keys=True))
