"""Facts as the API's client reads them from the wire."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def read(facts: Any, kind: type[T]) -> T:
    """What the command line gets of an answer with these facts."""
    return msgspec.json.decode(json.dumps(facts), type=kind)
