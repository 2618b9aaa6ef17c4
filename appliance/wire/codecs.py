"""Finds the serializations and compressions: each is the file here that is named as its word in `core.specs`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from appliance.core import specs
from appliance.wire.base import Compression, Serialization


def _as_it_is(payload: bytes) -> bytes:
    return payload


def _as_it_came(payload: bytes, *, limit_bytes: int) -> bytes:
    return payload


def _is_no_other(_payload: bytes) -> bool:
    return True


def _module(name: str) -> Any:
    return importlib.import_module(f"appliance.wire.{name}")


READ_BY_ALL = "gob"
"""What every peer reads, whatever a message holds."""
UNCOMPRESSED = "none"
READ_ALIKE = "cbor"
"""What `alike.AlikeReader` reads."""

# NB: all of them at the import: by the first use of one an upgrade may have taken its file away
SERIALIZATIONS: Mapping[str, Serialization] = {
    name.value: _module(name.value).SERIALIZATION for name in specs.Serialization
}
COMPRESSIONS: Mapping[str, Compression] = {
    **{
        name.value: _module(name.value).COMPRESSION
        for name in specs.Compression
        if name.value != UNCOMPRESSED
    },
    UNCOMPRESSED: Compression(None, _as_it_is, _as_it_came, _is_no_other),
}

SERIALIZATION_OF_HEADER: Mapping[str | None, str] = {
    serialization.header: name for name, serialization in SERIALIZATIONS.items()
}
COMPRESSION_OF_HEADER: Mapping[str | None, str] = {
    compression.header: name for name, compression in COMPRESSIONS.items()
}


def guess_serialization(payload: bytes) -> str:
    """What a payload that is not compressed is in, told by its first byte."""
    first = payload[0] if payload else 0
    named = (name for name, serialization in SERIALIZATIONS.items() if serialization.begins(first))
    return next(named, READ_BY_ALL)


def guess_compression(payload: bytes) -> str:
    """What is around a payload, told by its first bytes: no gob and no CBOR of a message begins as what is compressed."""
    return next(name for name, compression in COMPRESSIONS.items() if compression.begins(payload))
