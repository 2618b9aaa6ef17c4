"""What a serialization and a compression are: each is the file here that is named as its word in `core.specs`.

Each has the word that stands in the message's header; None where the header is left out, as the seed does for gob and for
what is not compressed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from appliance.core.message import Message
from appliance.wire.alike import Stencil
from appliance.wire.layout import MAX_VALUES


class Decode(Protocol):
    """Reads a message, within bounds.

    Raises:
        DecodeError: whatever is wrong with it; nothing else is raised.
    """

    def __call__(
        self, payload: bytes, /, *, max_depth: int, max_values: int = MAX_VALUES
    ) -> Message:
        """The message that a payload holds."""
        ...


class Decompress(Protocol):
    """Unpacks a payload.

    Raises:
        DecodeError: it is none, or larger than the limit.
    """

    def __call__(self, payload: bytes, /, *, limit_bytes: int) -> bytes:
        """What was packed."""
        ...


class Serialization(NamedTuple):
    """How a message becomes bytes. `encode` writes what it is given; the three others give None where some peer could
    not read the result, and take a message or its values in the wire's order. `begins` tells by its first byte whether
    a payload is in it, and is False for what every peer reads: that is what none of the others is.
    """

    header: str | None
    encode: Callable[[Message], bytes]
    encode_for_all: Callable[[Message], bytes | None]
    encode_fields: Callable[[list[Any]], bytes | None]
    make_stencil: Callable[[list[Any]], Stencil | None]
    decode: Decode
    begins: Callable[[int], bool]


class Compression(NamedTuple):
    """How bytes become fewer. `begins` tells whether a payload begins as what `compress` writes."""

    header: str | None
    compress: Callable[[bytes], bytes]
    decompress: Decompress
    begins: Callable[[bytes], bool]
