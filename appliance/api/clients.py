"""Who asks, as far as a connection tells, and how much of what is bounded each of them may hold.

Without shares whoever comes first has it all: a few connections of somebody without any rights would keep an operator
from the events of his own machine. So each kind of client has a bound of its own, and one client at most half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_CREDENTIALS = struct.Struct("3I")
_V6_NETWORK_BITS = 64
"""One machine has as many addresses of version 6 as it likes; a network is what somebody has to be given."""


class Client(NamedTuple):
    """A kind of client, and which one of them."""

    kind: str
    """``unix``, ``token`` or ``stranger``: a user of this machine, who brings the token, everybody else."""
    name: str


class Shares:
    """Counts what clients hold of something that is bounded."""

    def __init__(self) -> None:
        self._held: Counter[Client] = Counter()

    def has_room(self, client: Client, most: int) -> bool:
        """Whether this client may hold one more of what its kind may hold `most` of."""
        of_kind = sum(count for held, count in self._held.items() if held.kind == client.kind)
        return of_kind < most and self._held[client] < max(1, most // 2)

    @contextlib.contextmanager
    def held(self, client: Client) -> Iterator[None]:
        """One more, until the block ends."""
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]


def find_uid(transport: asyncio.BaseTransport | None) -> int | None:
    """The user at the other end of a unix socket; None where it cannot be told."""
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        return None
    try:
        # NB: a descriptor of our own, since the event loop's stand-in for the socket knows no options
        with socket.socket(fileno=os.dup(peer.fileno())) as own:
            raw = own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def find_address(transport: asyncio.BaseTransport | None) -> str:
    """The machine at the other end of a TCP connection, or its network; "" where it cannot be told."""
    name = transport.get_extra_info("peername") if transport is not None else None
    if not isinstance(name, tuple):
        return ""
    try:
        address = ipaddress.ip_address(name[0].partition("%")[0])
    except ValueError:
        return str(name[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _V6_NETWORK_BITS), strict=False))
    return str(address)
