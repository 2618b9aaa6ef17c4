"""Go's gob encoding of one message, as a Go node of the seed reads and writes it."""

from __future__ import annotations

from typing import Any

from appliance.core.message import Message
from appliance.wire.base import Serialization
from appliance.wire.gob.decode import decode_gob
from appliance.wire.gob.encode import encode_gob

__all__ = ["SERIALIZATION", "decode_gob", "encode_gob"]


def _encode_fields(fields: list[Any]) -> bytes:
    return encode_gob(Message._make(fields))


def _no_stencil(_fields: list[Any]) -> None:
    return None


def _begins(_first: int) -> bool:
    return False


SERIALIZATION = Serialization(
    None, encode_gob, encode_gob, _encode_fields, _no_stencil, decode_gob, _begins
)
"""See `codecs`."""
