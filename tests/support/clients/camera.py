"""An RTSPS camera made of GStreamer's RTSP server: TLS, Digest, one stream of H.264 from a Matroska file.

usage: camera.py FILE CERTIFICATE KEY

The access code is read from standard input. It says on standard error where it listens, on a loopback
port of the system's choice, and shows the file from its beginning to each player, until it is ended.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main():
    file, certificate, key = sys.argv[1:]
    code = sys.stdin.readline().strip()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")

    auth = GstRtspServer.RTSPAuth()
    with open(certificate, encoding="ascii") as its, open(key, encoding="ascii") as other:
        pem = its.read() + other.read()
    auth.set_tls_certificate(Gio.TlsCertificate.new_from_pem(pem, len(pem)))
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest("bblp", code, token)
    server.set_auth(auth)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( filesrc location={file} ! matroskademux ! h264parse "
        "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    )
    factory.set_shared(True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/streaming/live/1", factory)

    server.attach(None)
    print(f"listening on {server.get_bound_port()}", file=sys.stderr, flush=True)
    GLib.MainLoop().run()


main()
