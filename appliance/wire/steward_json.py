"""A message as JSON under Steward's own key names, all 25 of them. Pure; `appliance wire` speaks it.

As Go's decoder reads JSON, so does this one: keys in any case, null leaves the zero value, what is
left out is zero. Unlike Go it refuses an unknown key, a key given twice and a value of a wrong type
by name. A text that is not UTF-8 is ``{"base64": "…"}``, in either direction.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from appliance.core.message import Message, Texts, bytes_to_text, text_to_bytes
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.errors import DecodeError
from appliance.wire.layout import MAX_NESTED_MESSAGES, MAX_TEXTS

Json = dict[str, Any]

KEYS = (
    *("toNode", "toNodes", "id", "data", "method", "methodArgs"),
    *("replyMethod", "replyMethodArgs", "isReply", "FromNode"),
    *("ACKTimeout", "retries", "replyACKTimeout", "replyRetries"),
    *("methodTimeout", "replyMethodTimeout", "directory", "fileName", "PreviousMessage"),
    *("relayViaNode", "relayOriginalViaNode", "relayFromNode", "relayToNode"),
    *("relayOriginalMethod", "relayReplyMethod"),
)
"""The seed's JSON tags, in the order of its struct; the two without a tag are as Go writes them."""

_FIELDS = dict(zip(KEYS, Message._fields, strict=True))
_KEYS_BY_CASE = {key.lower(): key for key in KEYS}
_TEXT_LISTS = frozenset({"toNodes", "data", "methodArgs", "replyMethodArgs"})
_ZERO = Message()
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


def message_to_json(message: Message) -> Json:
    """All 25 keys, in the order of the wire."""
    return {key: _show(value) for key, value in zip(KEYS, message, strict=True)}


def message_from_json(value: object) -> Message:
    """The message that a parsed JSON value stands for.

    Raises:
        DecodeError: it is none; the text names the key.
    """
    return _read_message(value, "", 1)


def parse_message(text: str) -> Message:
    """The message of one JSON document.

    Raises:
        DecodeError: no JSON, a key given twice, or no message.
    """
    try:
        value = json.loads(text, object_pairs_hook=_refuse_twice)
    except ValueError as error:
        raise DecodeError(f"no JSON: {error}") from error
    except RecursionError:
        raise DecodeError("no JSON of a message: nested too deep") from None
    return message_from_json(value)


def _show(value: object) -> object:
    match value:
        case Message():
            return message_to_json(value)
        case tuple():
            return [_show(item) for item in value]
        case str() if not _is_plain(value):
            return {"base64": base64.b64encode(text_to_bytes(value)).decode()}
        case _:
            return value


def _is_plain(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse_twice(pairs: Sequence[tuple[str, object]]) -> Json:
    """An object; Go would let the last of two equal keys win, which hides a slip."""
    found: Json = {}
    for key, value in pairs:
        if key in found:
            raise DecodeError(f"the key {_quote(key)} is given twice")
        found[key] = value
    return found


def _read_message(value: object, place: str, depth: int) -> Message:
    if not isinstance(value, dict):
        raise DecodeError(f"{place or 'a message'} must be a JSON object, not {_name_kind(value)}")
    if depth > MAX_NESTED_MESSAGES:
        raise DecodeError(f"more than {MAX_NESTED_MESSAGES} messages inside one another")
    values: Json = {}
    for given, item in value.items():
        key = _KEYS_BY_CASE.get(given.lower())
        if key is None:
            nearest = find_nearest(given, KEYS)
            raise DecodeError(f"unknown key {_quote(place + given)}{did_you_mean(nearest)}")
        field = _FIELDS[key]
        if field in values:
            raise DecodeError(f"the key {_quote(place + key)} is given twice, in different case")
        values[field] = _read_value(key, item, place + key, depth)
    return Message(**values)


def _read_value(key: str, value: object, place: str, depth: int) -> object:
    zero = getattr(_ZERO, _FIELDS[key])
    if value is None:
        return zero
    if key == "PreviousMessage":
        return _read_message(value, f"{place}.", depth + 1)
    if key in _TEXT_LISTS:
        return _read_texts(value, place)
    if isinstance(zero, bool):
        if not isinstance(value, bool):
            raise DecodeError(f"{place} must be true or false, not {_name_kind(value)}")
        return value
    if isinstance(zero, int):
        if isinstance(value, bool) or not isinstance(value, int):
            raise DecodeError(f"{place} must be a whole number, not {_name_kind(value)}")
        if not _INT_MIN <= value <= _INT_MAX:
            raise DecodeError(f"{place} exceeds 64 bits")
        return value
    return _read_text(value, place)


def _read_texts(value: object, place: str) -> Texts:
    if not isinstance(value, list):
        raise DecodeError(f"{place} must be a list of texts, not {_name_kind(value)}")
    if len(value) > MAX_TEXTS:
        raise DecodeError(f"{place} holds {len(value)} texts, more than {MAX_TEXTS}")
    return tuple(
        "" if item is None else _read_text(item, f"{place}[{number}]")
        for number, item in enumerate(value)
    )


def _read_text(value: object, place: str) -> str:
    if isinstance(value, str):
        if not _is_plain(value):
            raise DecodeError(
                f'{place} holds half of a surrogate pair; bytes are written {{"base64": "…"}}'
            )
        return value
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        try:
            return bytes_to_text(base64.b64decode(value["base64"], validate=True))
        except (binascii.Error, ValueError) as error:
            raise DecodeError(f"{place} is no base64: {error}") from error
    raise DecodeError(f'{place} must be a text or {{"base64": "…"}}, not {_name_kind(value)}')


def _quote(text: str) -> str:
    return json.dumps(text[:80], ensure_ascii=False)


_KINDS = {
    type(None): "null",
    bool: "a bool",
    int: "a number",
    float: "a number with a fraction",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _name_kind(value: object) -> str:
    return _KINDS.get(type(value), "something else")
