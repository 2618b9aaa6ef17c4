"""The header block of a message: written and read. Pure.

Nothing here trusts the other side: a block of any shape gives a mapping, because an exception in the reader would
take the connection (and with it every subscription) down.

Source: nats.io client protocol (HPUB, HMSG); of names and values, what nats-server and the Go client take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from appliance.errors import BusError

HEADER_LINE = "NATS/1.0"
STATUS_HEADER = "Status"
DESCRIPTION_HEADER = "Description"
MAX_HEADERS = 64
"""More lines than this in one received block are ignored; ours and Steward's use fewer than ten."""

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


@lru_cache(maxsize=256)
def _is_header_name(name: str) -> bool:
    return _HEADER_NAME(name) is not None


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Write a header block. Line breaks in a value become spaces, so that a value can never add a line.

    Raises:
        BusError: a name is no header name.
    """
    text = f"{HEADER_LINE}\r\n"
    for name, value in headers.items():
        if not _is_header_name(name):
            raise BusError(f"invalid header name {name[:40]!r}")
        if "\n" in value or "\r" in value:
            value = value.replace("\r", " ").replace("\n", " ")
        text += f"{name}: {value}\r\n"
    return f"{text}\r\n".encode("utf-8", "surrogatepass")


def parse_headers(block: bytes) -> dict[str, str]:
    """Read a received header block as far as it makes sense; b"" has no headers.

    Of a name given twice the first value counts, as for the peers written in Go; names that differ in case are
    kept apart and left to whoever reads them. A status line (``NATS/1.0 503``) gives `Status` and `Description`.
    """
    lines = block.decode("utf-8", "replace").split("\r\n", MAX_HEADERS + 1)
    headers: dict[str, str] = {}
    first = lines[0]
    if len(first) > len(HEADER_LINE):
        status, _, description = first[len(HEADER_LINE) :].strip().partition(" ")
        if status.isdecimal() and len(status) == 3:
            headers[STATUS_HEADER] = status
            if description:
                headers[DESCRIPTION_HEADER] = description.strip()
    for line in lines[1 : MAX_HEADERS + 1]:
        name, colon, value = line.partition(":")
        if colon and name not in headers and _is_header_name(name):
            headers[name] = value.strip()
    return headers
