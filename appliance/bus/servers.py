"""The brokers we may connect to: the configured ones in turn, and those the cluster announced.

Addresses are shown without user info. The order is shuffled once, so that a fleet spreads over a cluster.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

_MAX_DISCOVERED = 64
"""Announced addresses that are remembered; a cluster has a handful of servers."""


class Address(NamedTuple):
    """One broker. `tls_name` is the name its certificate must bear where the address itself is only a number."""

    url: str
    tls_name: str | None = None


def hide_userinfo(url: str) -> str:
    """The address as it may be shown: with scheme, without user, password or token."""
    full = url if "://" in url else f"nats://{url}"
    try:
        parts = urlsplit(full)
    except ValueError:
        return full.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class ServerPool:
    """Gives the next address to try. Configured addresses keep their turn; discovered ones come after them."""

    def __init__(self, configured: Sequence[str]) -> None:
        self._configured = [Address(url) for url in configured]
        random.shuffle(self._configured)
        self._discovered: list[Address] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._configured) + len(self._discovered)

    @property
    def first(self) -> str:
        """The address to show while none was ever connected."""
        return hide_userinfo(self._configured[0].url) if self._configured else ""

    def take(self) -> Address:
        """The address whose turn it is.

        Raises:
            LookupError: there is none.
        """
        addresses = self._configured + self._discovered
        if not addresses:
            raise LookupError("no broker address is configured")
        address = addresses[self._next % len(addresses)]
        self._next = (self._next + 1) % len(addresses)
        return address

    def stay(self) -> None:
        """Make the address taken last the next one again: after a loss the same broker is asked first."""
        self._next = (self._next - 1) % max(1, len(self))

    def discover(self, announced: Iterable[str], like: Address) -> None:
        """Note `host:port` texts that the broker `like` announced, with the scheme and user info of that one."""
        scheme, _, rest = like.url.rpartition("://")
        userinfo = f"{rest.rpartition('@')[0]}@" if "@" in rest else ""
        name = like.tls_name or urlsplit(f"nats://{rest}").hostname
        known = {hide_userinfo(address.url).rpartition("://")[2] for address in self._configured}
        fresh = [text for text in announced if text not in known][:_MAX_DISCOVERED]
        self._discovered = [
            Address(f"{scheme or 'nats'}://{userinfo}{text}", name if _is_number(text) else None)
            for text in fresh
        ]


def _is_number(host_and_port: str) -> bool:
    try:
        ipaddress.ip_address(host_and_port.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
