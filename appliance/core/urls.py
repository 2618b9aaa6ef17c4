"""Which addresses a subscriber may fetch, as pure questions: about the URL, and about the machine behind it.

Beside them, what can be said about a broker's address without asking anybody.

One strict reading of a URL is used for judging it and for asking it: what two parsers could understand in two ways
(user names, backslashes, paths that climb) is refused and not interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote

from appliance.core.message import text_to_bytes

ANY_REST = "**"
MAX_URL_CHARACTERS = 8_192

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://"
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*)|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?"
    r"(?:\?(?P<query>[^#]*))?"
    r"(?:#.*)?",
    re.DOTALL,
)
_KEPT = "/:@!$&'()*+,;=-._~%?"
"""What stays as it is in path and query; everything else is percent-encoded as browsers do."""
_MAX_UNQUOTES = 3
_MAX_LABEL_CHARACTERS = 63
"""Of one part of a host's name, by DNS."""
_EMBEDDING = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""IPv6 addresses that lead to the IPv4 address in their last four bytes."""
_ALSO_PRIVATE = frozenset({IPv4Address("168.63.129.16")})
"""Public by number, yet a cloud's own services to the machines in it (Azure)."""


class Url(NamedTuple):
    """A URL taken apart; `host` in one spelling, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def text(self) -> str:
        """The URL as it is asked for."""
        return f"{self.place}{self.path}{'' if self.query is None else '?' + self.query}"

    @property
    def place(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


class Permission(NamedTuple):
    """That a URL may be fetched; `names_host` tells that the config names its host, whatever address that has."""

    names_host: bool


def parse_url(text: str) -> Url | str:
    """Take a URL apart; a text says why it is none that can be fetched."""
    if len(text) > MAX_URL_CHARACTERS:
        return f"longer than {MAX_URL_CHARACTERS} characters"
    found = _URL.fullmatch(text)
    if found is None:
        if "@" in text.partition("://")[2].partition("/")[0]:
            return "a user name or password does not belong into a URL"
        return "not of the form http[s]://host[:port]/path"
    scheme = found["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        return f"scheme {scheme[:20]} is neither http nor https"
    port = _DEFAULT_PORTS[scheme] if found["port"] is None else int(found["port"])
    if not 0 < port < 65_536:
        return f"{port} is no port"
    host = _one_spelling(found["host"])
    if host is None:
        return f"{found['host'][:80]} is no host"
    try:
        path, query = _encode(found["path"] or "/"), found["query"]
        query = None if query is None else _encode(query)
    except UnicodeEncodeError:
        return "it holds characters that no encoding can carry"
    # servers and proxies read such paths each in a way of their own, and the pattern was judged by one
    if _climbs(path):
        return "a path with . or .. is read in different ways"
    return Url(scheme, host, port, path, query)


def find_pattern_problem(pattern: str) -> str | None:
    """Why `pattern` is none; None when it is one. ``${…}`` may stand for a part of a name."""
    text = re.sub(r"\$\{[^}]*\}", "x", pattern)
    if "*" in text.partition("://")[2].partition("/")[0]:
        return "scheme, host and port must be written out, without wildcards"
    if "#" in text:
        return "what follows a # is never sent"
    url = parse_url(text)
    if isinstance(url, str):
        return url
    if ANY_REST in url.path.removesuffix("/" + ANY_REST):
        return "** stands for a whole rest, as the last part of the path"
    return None


def find_broker_address_problem(address: str) -> str | None:
    """Why ``nats://host:port`` can never be reached, whatever network and names there are; None where it may.

    The schema has seen to its form.
    """
    place = address.partition("://")[2]
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        return f"{port} is no port"
    if host.startswith("["):
        return None if _one_spelling(host) else f"{host} is no IPv6 address"
    labels = host.removesuffix(".").split(".")
    if not all(0 < len(label) <= _MAX_LABEL_CHARACTERS for label in labels):
        return f"{host} is no host"
    is_number = all(label.isdecimal() for label in labels)
    # Fewer than four parts are an address, too, of an old kind (127.1).
    if is_number and (len(labels) > 4 or (len(labels) == 4 and max(map(int, labels)) > 255)):
        return f"{host} is no IPv4 address"
    return None


def find_permission(url: Url, patterns: Sequence[str] | None) -> Permission | None:
    """Whether one of `patterns` covers `url`; None as patterns covers everything and names no host.

    Scheme, host and port must agree. ``*`` in the path stands for anything within one part, a last ``**`` for
    everything below, with any query. Without it a query must be in the pattern, where ``*`` is anything.
    """
    if patterns is None:
        return Permission(names_host=False)
    return Permission(names_host=True) if any(_covers(text, url) for text in patterns) else None


def is_public_address(text: str) -> bool:
    """Whether an IP address belongs to the open internet, and not to this machine or its network."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        # an address of the own network may be written as one of IPv6
        if inner is not None:
            address = inner
    return address.is_global and not (
        address.is_multicast
        or address.is_loopback
        or address.is_link_local
        or address.is_private
        or address.is_unspecified
        or address.is_reserved
        or address in _ALSO_PRIVATE
    )


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _EMBEDDING) and int(address) > 1:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _covers(pattern: str, url: Url) -> bool:
    wanted = parse_url(pattern)
    if isinstance(wanted, str) or wanted[:3] != url[:3]:
        return False
    wanted_parts, parts = wanted.path.split("/"), url.path.split("/")
    is_open = wanted_parts[-1] == ANY_REST
    if is_open:
        wanted_parts.pop()
        # `**` stands for something: `/a/**` covers `/a/` and not `/a`
        if len(parts) <= len(wanted_parts):
            return False
        parts = parts[: len(wanted_parts)]
    if len(parts) != len(wanted_parts) or not all(map(_matches, parts, wanted_parts)):
        return False
    if wanted.query is None:
        return url.query is None or is_open
    return url.query is not None and _matches(url.query, wanted.query)


def _matches(text: str, pattern: str) -> bool:
    plain, text = (unquote(part, errors="surrogateescape") for part in (pattern, text))
    if "/" in text and "/" not in plain:
        return False  # an encoded slash: who reads it as one sees another path
    return fnmatchcase(text, plain.replace("[", "[[]").replace("?", "[?]"))


def _one_spelling(host: str) -> str | None:
    """Lower case, no last dot, an IP address in its own words."""
    if host.startswith("["):
        try:
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            return None
    host = host.lower().removesuffix(".")
    return host if host and ".." not in host else None


def _encode(text: str) -> str:
    return quote_from_bytes(text_to_bytes(text), safe=_KEPT)


def _climbs(path: str) -> bool:
    """Whether somebody could read a step up in it: encoded, twice encoded, with parameters, with backslashes."""
    for _ in range(_MAX_UNQUOTES):
        parts = re.split(r"[/\\]", path)
        if any(part.partition(";")[0] in (".", "..") for part in parts):
            return True
        path = unquote(path)
    return False
