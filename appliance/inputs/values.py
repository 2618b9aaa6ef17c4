"""Values of one key: text, lists of texts, data in its four forms, whole numbers.

A value comes from JSON with its type, or from YAML as `PlainText` where nothing was quoted; what
such a scalar is depends on the key it stands at (`methodArgs: [sleep, 5]` is two texts).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from appliance.api.requests import EncodedData
from appliance.config.parse import PlainText
from appliance.config.scalars import NumberRefused, resolve_plain
from appliance.core.suggest import shorten
from appliance.core.value_kinds import describe_kind


class ValueRefused(ValueError):
    """The value is not what its key takes; the text says what it takes."""


def is_empty(value: Any) -> bool:
    """Whether a key with this value says nothing."""
    plain = _settle(value)
    return plain is None or plain == "" or plain is False or plain in (0, [], {})


def read_text(value: Any) -> str | None:
    """One text; None where nothing is said.

    Raises:
        ValueRefused: it is none.
    """
    if isinstance(value, PlainText):
        return None if _settle(value) is None else _checked(str(value))
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueRefused(f"expected text, found {describe(value)}")
    return _checked(value)


def read_texts(value: Any) -> list[str] | None:
    """A list of texts; None where nothing is said.

    Raises:
        ValueRefused: it is none.
    """
    if _settle(value) is None:
        return None
    if not isinstance(value, list):
        raise ValueRefused(f"expected a list of texts, found {describe(value)}")
    texts = []
    for number, item in enumerate(value, start=1):
        text = _checked(str(item)) if isinstance(item, PlainText) else item
        if not isinstance(text, str):
            raise ValueRefused(f"expected a list of texts, item {number} is {describe(item)}")
        texts.append(_checked(text))
    return texts


def read_data(value: Any) -> list[str | EncodedData] | None:
    """Data: a text, texts, ``{"base64": …}``, or the bytes as a list of numbers.

    Raises:
        ValueRefused: it is none of them.
    """
    if _settle(value) is None:
        return None
    if isinstance(value, str | Mapping):
        return [_read_piece(value)]
    if not isinstance(value, list):
        raise ValueRefused(f"{_DATA}, found {describe(value)}")
    numbers = [_settle(item) for item in value]
    if value and all(isinstance(item, int) and not isinstance(item, bool) for item in numbers):
        return [_read_bytes(numbers)]
    return [_read_piece(item) for item in value]


def read_whole(value: Any, maximum: int) -> int | None:
    """A whole number of at most `maximum`; negative ones are the caller's business.

    Raises:
        ValueRefused: it is none, or too large.
    """
    number = _settle(value)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueRefused(f"expected a whole number, found {describe(value)}")
    if number > maximum:
        raise ValueRefused(f"{shorten(number, 24)} is above the limit of {maximum}")
    return number


def describe(value: Any) -> str:
    """What a value is, by kind."""
    return describe_kind(_settle(value))


_DATA = 'expected text, a list of texts, the bytes as numbers from 0 to 255, or {"base64": "…"}'


def _settle(value: Any) -> Any:
    """The value of an unquoted scalar by the rules of YAML 1.2; anything else as it is."""
    if not isinstance(value, PlainText):
        return value
    try:
        return resolve_plain(value)
    except NumberRefused:
        return str(value)


def _checked(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueRefused(
                'the text holds half a character (a lone surrogate); bytes go as {"base64": "…"}'
            ) from None
    return text


def _read_piece(value: Any) -> str | EncodedData:
    if isinstance(value, Mapping):
        return _read_encoded(value)
    if not isinstance(value, str):
        raise ValueRefused(f"{_DATA}, found {describe(value)} in it")
    return _checked(str(value))


def _read_encoded(value: Mapping[str, Any]) -> EncodedData:
    text = value.get("base64")
    if set(value) != {"base64"} or not isinstance(text, str):
        raise ValueRefused(f"{_DATA}, found another map")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueRefused("what stands at `base64` is no base64") from None
    return EncodedData(base64=str(text))


def _read_bytes(numbers: list[Any]) -> EncodedData:
    try:
        raw = bytes(numbers)
    except (ValueError, OverflowError):
        raise ValueRefused("bytes are numbers from 0 to 255") from None
    return EncodedData(base64=base64.b64encode(raw).decode("ascii"))
