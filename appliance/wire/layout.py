"""The positional record of 25 fields, and the checks between it and a `Message`.

Knows the order and the types of the fields, and no encoding. The common shapes are checked flat and
fast; anything else goes through a slow check that keeps Go's leniency (null leaves the zero value)
and names the field it refuses.

Source: the seed's `Message` struct with its `toarray` tag; `Message` keeps the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.core.message import Message, Texts
from appliance.errors import DecodeError, EncodeError

FIELD_COUNT = 25
PREVIOUS_MESSAGE = Message._fields.index("previous_message")
assert len(Message._fields) == FIELD_COUNT

MAX_NESTED_MESSAGES = 30
"""Messages inside one another that we send at most: Go's decoder allows 32 levels of arrays, slices
included.
"""

MAX_TEXTS = 65_536
"""Elements of one field: a small compressed frame can claim millions of empty ones."""
MAX_VALUES = 4 * MAX_TEXTS
"""Values of one frame, however nested: each costs more time than the byte that it takes."""

_INT_MIN = -(2**63)
_INT_END = 2**63

TEXTS_FIELDS = frozenset({"to_nodes", "data", "method_args", "reply_method_args"})
_NUMBERS = frozenset(
    {
        "id",
        "ack_timeout_s",
        "retries",
        "reply_ack_timeout_s",
        "reply_retries",
        "method_timeout_s",
        "reply_method_timeout_s",
    }
)


def is_plain(record: Sequence[Any]) -> bool:
    """Whether the 25 values have their fields' exact types and ranges, previous message aside.

    NB: written flat because it runs for every message in both directions; a loop over the fields
    costs four times as much. `type(x) is int` also keeps bools out.
    """
    # fmt: off
    (
        to_node, to_nodes, number, data, method, method_args, reply_method, reply_method_args,
        is_reply, from_node, ack_timeout, retries, reply_ack_timeout, reply_retries,
        method_timeout, reply_method_timeout, directory, file_name, _previous, via, original_via,
        relay_from, relay_to, original_method, relay_reply,
    ) = record
    # fmt: on
    kind = type
    return (
        kind(to_node) is str
        and kind(method) is str
        and kind(reply_method) is str
        and kind(from_node) is str
        and kind(directory) is str
        and kind(file_name) is str
        and kind(via) is str
        and kind(original_via) is str
        and kind(relay_from) is str
        and kind(relay_to) is str
        and kind(original_method) is str
        and kind(relay_reply) is str
        and kind(is_reply) is bool
        and kind(number) is int
        and kind(ack_timeout) is int
        and kind(retries) is int
        and kind(reply_ack_timeout) is int
        and kind(reply_retries) is int
        and kind(method_timeout) is int
        and kind(reply_method_timeout) is int
        and _INT_MIN <= number < _INT_END
        and _INT_MIN <= ack_timeout < _INT_END
        and _INT_MIN <= retries < _INT_END
        and _INT_MIN <= reply_ack_timeout < _INT_END
        and _INT_MIN <= reply_retries < _INT_END
        and _INT_MIN <= method_timeout < _INT_END
        and _INT_MIN <= reply_method_timeout < _INT_END
        and (data is None or _is_texts(data))
        and (method_args is None or _is_texts(method_args))
        and (to_nodes is None or _is_texts(to_nodes))
        and (reply_method_args is None or _is_texts(reply_method_args))
    )


def _is_texts(value: object) -> bool:
    if type(value) is not tuple or len(value) > MAX_TEXTS:
        return False
    for text in value:  # noqa: SIM110 - a generator costs more than it checks
        if type(text) is not str:
            return False
    return True


def message_of_record(record: object) -> Message:
    """Make a message of 25 decoded values. Arrays inside must be tuples.

    The depth of nesting is the decoder's to bound; this recurses once per previous message.

    Raises:
        DecodeError: not an array, not 25 values, or a value of the wrong type or range; it names
        the field.
    """
    if type(record) is not tuple:
        raise DecodeError(f"a message must be an array, not {_name_kind(record)}")
    if len(record) != FIELD_COUNT:
        raise DecodeError(f"an array of {len(record)} elements where a message has {FIELD_COUNT}")
    if is_plain(record):
        if record[18] is None:
            return Message._make(record)
        values = list(record)
        values[18] = message_of_record(record[18])
        return Message._make(values)
    return Message._make(map(_read_field, Message._fields, record))


def _read_field(name: str, value: object) -> object:
    """One field with Go's leniency: null keeps the zero value."""
    if name in TEXTS_FIELDS:
        return _read_texts(name, value)
    if name == "previous_message":
        return None if value is None else message_of_record(value)
    if name in _NUMBERS:
        if value is None:
            return 0
        if type(value) is not int:
            raise DecodeError(f"field {name} must be an integer, not {_name_kind(value)}")
        if not _INT_MIN <= value < _INT_END:
            raise DecodeError(f"field {name} exceeds 64 bits")
        return value
    if name == "is_reply":
        if value is None:
            return False
        if type(value) is not bool:
            raise DecodeError(f"field {name} must be true or false, not {_name_kind(value)}")
        return value
    if value is None:
        return ""
    if type(value) is not str:
        raise DecodeError(f"field {name} must be text, not {_name_kind(value)}")
    return value


def _read_texts(name: str, value: object) -> Texts:
    if value is None:
        return None
    if type(value) is not tuple:
        raise DecodeError(f"field {name} must be an array of texts, not {_name_kind(value)}")
    if len(value) > MAX_TEXTS:
        raise DecodeError(f"field {name} holds {len(value)} texts, more than {MAX_TEXTS}")
    texts = []
    for text in value:
        if text is not None and type(text) is not str:
            raise DecodeError(f"field {name} must hold texts only, not {_name_kind(text)}")
        texts.append(text or "")
    return tuple(texts)


_KINDS = {
    type(None): "null",
    bool: "a bool",
    int: "an integer",
    float: "a float",
    str: "text",
    bytes: "bytes",
    tuple: "an array",
}


def _name_kind(value: object) -> str:
    """A word for the type; never the value, which may be secret or huge."""
    return _KINDS.get(type(value), "something else")


def check_encodable(message: Message) -> None:
    """Refuse a message that the wire cannot carry.

    Raises:
        EncodeError: a field of the wrong type or range, or too many messages inside one another.
    """
    nested = 0
    current: Message | None = message
    while current is not None:
        if not is_plain(current):
            raise EncodeError(_find_unencodable(current))
        current = current.previous_message
        nested += 1
        if nested > MAX_NESTED_MESSAGES:
            raise EncodeError(f"more than {MAX_NESTED_MESSAGES} messages inside one another")
        if current is not None and type(current) is not Message:
            raise EncodeError("field previous_message must be a message")


def _find_unencodable(message: Message) -> str:
    values: tuple[object, ...] = message  # NB: not of their declared types, or nobody would ask
    for name, value in zip(Message._fields, values, strict=True):
        if name == "previous_message":
            continue
        probe: list[object] = list(Message())
        probe[Message._fields.index(name)] = value
        if not is_plain(probe):
            return f"field {name} is {_name_kind(value)} or out of range and cannot be sent"
    return "the message cannot be sent"
