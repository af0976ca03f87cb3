#!/usr/bin/env python3
"""Moves files as programs do that are written with Python's ftplib: implicit TLS on one connection.

usage: files.py HOST PORT CA reuse|anew     the access code is the first line of standard input

Data connections come back to the control connection's TLS session, or begin anew. Each further line
of standard input is a JSON array: ["put", FILE, NAME], ["get", NAME, FILE], ["list"], and
["put-by-halves", FILE, NAME], which says "half" when half of it is sent and goes on after another line.
Each is answered by a line of JSON. The first failure ends it with status 1, and says what it was.
"""

import ftplib
import json
import os
import ssl
import sys


class ImplicitTls(ftplib.FTP_TLS):
    """TLS from the first byte, and on data connections the same session if it is wanted."""

    reuse = True
    _sock = None

    @property
    def sock(self):
        return self._sock

    @sock.setter
    def sock(self, value):
        if value is not None and not isinstance(value, ssl.SSLSocket):
            value = self.context.wrap_socket(value, server_hostname=self.host)
        self._sock = value

    def ntransfercmd(self, cmd, rest=None):
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        session = self.sock.session if self.reuse else None
        return self.context.wrap_socket(conn, server_hostname=self.host, session=session), size


def main():
    host, port, ca, reuse = sys.argv[1:]
    code = sys.stdin.readline().strip()
    context = ssl.create_default_context(cafile=ca)
    # A printer's certificate names its serial number, not its address.
    context.check_hostname = False
    with ImplicitTls(context=context, timeout=60) as server:
        server.reuse = reuse == "reuse"
        server.connect(host, int(port))
        server.login("bblp", code)
        server.prot_p()
        for line in sys.stdin:
            print(json.dumps(obey(server, *json.loads(line))), flush=True)


def obey(server, verb, *names):
    if verb == "put":
        with open(names[0], "rb") as given:
            return server.storbinary(f"STOR {names[1]}", given)
    if verb == "put-by-halves":
        left = os.path.getsize(names[0]) // 2

        def sent(block):
            nonlocal left
            if left > 0 >= left - len(block):
                print(json.dumps("half"), flush=True)
                sys.stdin.readline()
            left -= len(block)

        with open(names[0], "rb") as given:
            return server.storbinary(f"STOR {names[1]}", given, callback=sent)
    if verb == "get":
        with open(names[1], "wb") as taken:
            return server.retrbinary(f"RETR {names[0]}", taken.write)
    if verb == "list":
        return server.nlst()
    raise ValueError(verb)


try:
    main()
except (OSError, EOFError, ftplib.Error) as failure:
    sys.exit(f"{type(failure).__name__}: {failure}")
