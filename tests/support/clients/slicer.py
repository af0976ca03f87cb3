#!/usr/bin/env python3
"""Goes the whole way of a slicer, from the announcement to the camera, with Python's own sockets, TLS, FTP and JSON.

usage: slicer.py SERIAL BUNDLE JOB EXPECTED    the access code is the first line of standard input

BUNDLE is the slicer's printer.cer, the only certificates that it trusts. EXPECTED is the address that the job has to go
to. It says each step on a line of its own, and the reason with status 1 if one fails.
"""

import ftplib
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
import time

URN = "urn:bambulab-com:device:3dprinter:1"
TUNNEL_MODELS = ("O1D", "N7", "N6", "O1E", "O1S", "O1C", "O1C2", "N8")


def say(*words):
    print(*words, flush=True)


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            sys.exit(f"closed after {len(data)} of {count} bytes")
        data += piece
    return data


def discover(serial, expected):
    """The address of the printer by the rules of Bambu Studio's list of devices, once it is the one expected."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 2021))
    listener.settimeout(30)
    address, interface, others, heard = None, "", 0, 0
    end = time.monotonic() + 60
    # Until the printer itself has been heard twice, and the address is right after it.
    while address != expected or others < 2:
        if time.monotonic() > end:
            sys.exit(f"the address is {address} after {heard} announcements, {others} of them by others")
        lines = listener.recv(2048).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if headers.get("USN") != serial or "Location" not in headers:
            continue
        heard += 1
        location, name = headers["Location"], headers.get("DevInf.bambu.com", "").strip()
        others += location != expected
        if headers.get("NT") != URN or headers["DevBind.bambu.com"] != "free":
            sys.exit(f"announced as {headers}")
        if address is None:
            address, interface = location, name
        elif location != address and not name:
            address = location
        elif location != address and interface in ("", name):
            address, interface = location, name
    say("heard", serial, "at", address)
    return address


def trusting(bundle):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    # As libcurl and open plug-ins have it: what is in the bundle is trusted, be it a root or not.
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)
    # Names are addresses; the printer's certificate has its serial number alone.
    context.check_hostname = False
    return context


class Slicer:
    def __init__(self, serial, code, bundle, address):
        self.serial, self.code, self.address = serial, code, address
        self.context = trusting(bundle)

    def connect(self, port):
        return socket.create_connection((self.address, port), timeout=30)

    def secure(self, stream, session=None):
        """TLS, whose certificate has to be the printer's by its common name."""
        stream = self.context.wrap_socket(stream, server_hostname=self.serial, session=session)
        name = dict(item[0] for item in stream.getpeercert()["subject"])["commonName"]
        if name != self.serial:
            sys.exit(f"the certificate is of {name}")
        return stream

    def tls(self, port):
        try:
            return self.secure(self.connect(port))
        except ssl.SSLError as failure:
            sys.exit(f"port {port}: {failure}")

    def detect(self):
        for stream in (self.connect(3000), self.tls(3002)):
            body = json.dumps({"login": {"command": "detect", "sequence_id": "20000"}}).encode()
            stream.sendall(b"\xa5\xa5" + struct.pack("<H", len(body) + 6) + body + b"\xa7\xa7")
            magic, length = struct.unpack("<2sH", read_exactly(stream, 4))
            rest = read_exactly(stream, length - 4)
            if magic != b"\xa5\xa5" or rest[-2:] != b"\xa7\xa7":
                sys.exit(f"no frame: {magic!r} {rest!r}")
            answer = json.loads(rest[:-2])["login"]
            if (answer["id"], answer["bind"], answer["connect"]) != (self.serial, "free", "lan"):
                sys.exit(f"detected {answer}")
        say("detected", answer["model"], answer["name"])
        return answer["model"]

    def print_over(self, model, job):
        """What is done before a job, and the job: the tunnel if the model has one, else a probe file by FTPS."""
        data = open(job, "rb").read()
        if model in TUNNEL_MODELS:
            self.tunnel(data)
        self.store("verify_job", b"check")
        self.store("job.gcode.3mf", data)

    def tunnel(self, data):
        stream = self.tls(6000)
        stream.sendall(struct.pack("<IIII8s8s", 16, 0x0101013F, 0, 0, b"bblp", self.code.encode()))
        length, magic, _, _ = struct.unpack("<IIII", read_exactly(stream, 16))
        if magic != 0x0001013F:
            sys.exit(f"the tunnel answers {magic:#x}")
        read_exactly(stream, length)
        stream.sendall(data)
        stream.close()
        say("tunnel", hashlib.sha256(data).hexdigest())

    def store(self, name, data):
        slicer = self

        class Implicit(ftplib.FTP_TLS):
            _sock = None

            @property
            def sock(self):
                return self._sock

            @sock.setter
            def sock(self, value):
                if value is not None and not isinstance(value, ssl.SSLSocket):
                    value = slicer.secure(value)
                self._sock = value

            def ntransfercmd(self, cmd, rest=None):
                conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
                return slicer.secure(conn, self.sock.session), size

        with Implicit(context=self.context, timeout=60) as server:
            server.connect(self.address, 990)
            server.login("bblp", self.code)
            server.prot_p()
            server.voidcmd("TYPE I")
            conn = server.transfercmd(f"STOR {name}")
            conn.sendall(data)
            # Printers do not answer close_notify.
            conn.close()
            server.voidresp()
        say("stored", name, hashlib.sha256(data).hexdigest())


class Mqtt:
    def __init__(self, slicer):
        self.slicer = slicer
        self.stream = slicer.tls(8883)
        text = lambda value: struct.pack(">H", len(value)) + value  # noqa: E731
        body = text(b"MQTT") + b"\x04\xc2" + struct.pack(">H", 20)
        body += text(b"slicer") + text(b"bblp") + text(slicer.code.encode())
        self.send(0x10, body)
        kind, answer = self.receive()
        if (kind, answer[1]) != (0x20, 0):
            sys.exit(f"connect: {kind:#x} {answer!r}")
        self.send(0x82, b"\x00\x01" + text(f"device/{slicer.serial}/report".encode()) + b"\x00")
        while self.receive()[0] != 0x90:
            pass

    def send(self, kind, body):
        length, encoded = len(body), b""
        while True:
            length, digit = divmod(length, 128)
            encoded += bytes([digit | (0x80 if length else 0)])
            if not length:
                break
        self.stream.sendall(bytes([kind]) + encoded + body)

    def receive(self):
        kind = read_exactly(self.stream, 1)[0]
        length, shift = 0, 0
        while True:
            digit = read_exactly(self.stream, 1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, read_exactly(self.stream, length)

    def publish(self, request):
        topic = f"device/{self.slicer.serial}/request".encode()
        self.send(0x30, struct.pack(">H", len(topic)) + topic + json.dumps(request).encode())

    def state(self):
        self.publish({"pushing": {"sequence_id": "0", "command": "pushall"}})
        while True:
            kind, body = self.receive()
            if kind & 0xF0 != 0x30:
                continue
            (length,) = struct.unpack(">H", body[:2])
            shown = json.loads(body[2 + length :]).get("print", {})
            if shown.get("command") == "push_status" and "gcode_state" in shown and "net" in shown:
                break
        own = struct.unpack("<I", socket.inet_aton(self.slicer.address))[0]
        addresses = [one["ip"] for one in shown["net"]["info"] if one["ip"]]
        if addresses != [own] * len(addresses):
            sys.exit(f"the state has the addresses {addresses}, not {own}")
        say("state", shown["gcode_state"])

    def print_job(self):
        job = {"command": "project_file", "sequence_id": "20001", "url": "ftp://job.gcode.3mf"}
        self.publish({"print": job})
        # The answer to a ping comes after what was read before it.
        self.send(0xC0, b"")
        while self.receive()[0] != 0xD0:
            pass
        say("printed")


def chamber(slicer):
    stream = slicer.tls(6000)
    head = struct.pack("<IIII", 0x40, 0x3000, 0, 0)
    stream.sendall(head + struct.pack("32s32s", b"bblp", slicer.code.encode()))
    (length,) = struct.unpack("<I", read_exactly(stream, 16)[:4])
    picture = read_exactly(stream, length)
    if picture[:2] != b"\xff\xd8" or picture[-2:] != b"\xff\xd9":
        sys.exit(f"no picture: {picture[:16]!r}")
    say("picture", length)


class Rtsp:
    def __init__(self, slicer):
        self.slicer, self.stream, self.sequence = slicer, slicer.tls(322), 0
        self.url = f"rtsps://{slicer.address}:322/streaming/live/1"
        self.headers = {}

    def line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            line += read_exactly(self.stream, 1)
        return line.decode().strip()

    def packet(self):
        channel, length = struct.unpack(">BH", read_exactly(self.stream, 3))
        return channel, read_exactly(self.stream, length)

    def ask(self, method, url, **headers):
        self.sequence += 1
        challenge = re.search('realm="(.*?)", nonce="(.*?)"', self.headers.get("www-authenticate", ""))
        if challenge:
            realm, nonce = challenge.groups()
            md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
            ours = md5(f"bblp:{realm}:{self.slicer.code}")
            response = md5(f"{ours}:{nonce}:{md5(f'{method}:{url}')}")
            headers["Authorization"] = (
                f'Digest username="bblp", realm="{realm}", nonce="{nonce}", uri="{url}", response="{response}"'
            )
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self.sequence}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.stream.sendall("\r\n".join([*lines, "", ""]).encode())
        while True:
            first = read_exactly(self.stream, 1)
            if first != b"$":
                break
            self.packet()
        status = int((first.decode() + self.line()).split(" ")[1])
        found = {}
        while line := self.line():
            name, value = line.split(":", 1)
            found.setdefault(name.lower(), value.strip())
        body = read_exactly(self.stream, int(found.get("content-length", 0))).decode()
        if "www-authenticate" in found or "www-authenticate" not in self.headers:
            self.headers = found
        return status, found, body

    def expect(self, method, url, **headers):
        status, found, body = self.ask(method, url, **headers)
        if status == 401:
            status, found, body = self.ask(method, url, **headers)
        if status != 200:
            sys.exit(f"{method}: {status}")
        return found, body

    def watch(self):
        self.expect("OPTIONS", self.url)
        found, body = self.expect("DESCRIBE", self.url, Accept="application/sdp")
        control = re.findall("a=control:(.*)", body)[-1].strip()
        base = found.get("content-base", self.url + "/")
        track = control if "://" in control else base.rstrip("/") + "/" + control
        found, _ = self.expect("SETUP", track, Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        session = found["session"].split(";")[0]
        self.expect("PLAY", self.url, Session=session, Range="npt=0.000-")
        packets = 0
        while packets < 20:
            if read_exactly(self.stream, 1) != b"$":
                sys.exit("no packet")
            channel, packet = self.packet()
            packets += channel == 0 and packet[0] == 0x80
        say("stream", packets)


def main():
    serial, bundle, job, expected = sys.argv[1:]
    code = sys.stdin.readline().strip()
    slicer = Slicer(serial, code, bundle, discover(serial, expected))
    model = slicer.detect()
    mqtt = Mqtt(slicer)
    mqtt.state()
    slicer.print_over(model, job)
    mqtt.print_job()
    if serial[:3] in ("01P", "01S", "030", "039"):
        chamber(slicer)
    else:
        Rtsp(slicer).watch()
    say("done")


main()
