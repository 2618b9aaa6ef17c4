"""Who is at the other end of a request, for the record."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import struct

from aiohttp import web

from appliance.admin.guards import FACE

_CREDENTIALS = struct.Struct("3i")


def name_peer(request: web.Request) -> str:
    """A user of this machine on the unix socket, an address on TCP; "" where it cannot be told."""
    transport = request.transport
    if transport is None:
        return ""
    if request.app[FACE].is_tcp:
        return f"token, from {request.remote}"
    peer = transport.get_extra_info("socket")
    if peer is None:
        return ""
    try:
        # NB: a descriptor of our own, since the event loop's stand-in for the socket knows no options
        with socket.socket(fileno=os.dup(peer.fileno())) as own:
            raw = own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return ""
    _, uid, _ = _CREDENTIALS.unpack(raw)
    name = ""
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(uid).pw_name
    return f"{name} (uid {uid})" if name else f"uid {uid}"
