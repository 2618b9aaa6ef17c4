"""Messages for the wire's tests: the recorded vectors, and strategies for any message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from appliance.core.message import Message, bytes_to_text

VECTORS_PATH = Path(__file__).parent.parent / "vectors" / "steward-2022.json"

GO_NAMES = tuple(
    "ToNode ToNodes ID Data Method MethodArgs ReplyMethod ReplyMethodArgs IsReply FromNode"  # noqa: SIM905
    " ACKTimeout Retries ReplyACKTimeout ReplyRetries MethodTimeout ReplyMethodTimeout Directory"
    " FileName PreviousMessage RelayViaNode RelayOriginalViaNode RelayFromNode RelayToNode"
    " RelayOriginalMethod RelayReplyMethod".split()
)


class Vector(NamedTuple):
    """One recorded message and the bytes a Go node makes of it."""

    name: str
    message: Message
    cbor: bytes
    cbor_zstd: bytes
    gob: bytes
    gob_zstd: bytes


def _message(fields: dict[str, Any], data_hex: list[str] | None) -> Message:
    values: list[Any] = [fields[name] for name in GO_NAMES]
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    if data_hex is not None:
        values[3] = tuple(bytes_to_text(bytes.fromhex(item)) for item in data_hex)
    if values[18] is not None:
        values[18] = _message(values[18], None)
    return Message._make(values)


def load_vectors() -> list[Vector]:
    """All recorded vectors."""
    return [
        Vector(
            entry["name"],
            _message(entry["message"], entry["data_hex"]),
            bytes.fromhex(entry["cbor_hex"]),
            bytes.fromhex(entry["cbor_zstd_hex"]),
            bytes.fromhex(entry["gob_hex"]),
            bytes.fromhex(entry["gob_zstd_hex"]),
        )
        for entry in json.loads(VECTORS_PATH.read_text())
    ]


def as_gob_can(message: Message) -> Message:
    """The message as it comes back from gob, which cannot tell an empty list from none."""
    values = [None if value == () else value for value in message]
    if message.previous_message is not None:
        values[18] = as_gob_can(message.previous_message)
    return Message._make(values)


any_text = st.binary(max_size=40).map(bytes_to_text) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
any_texts = st.none() | st.lists(any_text, max_size=4).map(tuple)
any_int = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300)


def messages(previous: st.SearchStrategy[Message | None]) -> st.SearchStrategy[Message]:
    """Messages with any content; `previous` makes the inner one."""
    kinds: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(Message._fields, any_text)
    kinds |= dict.fromkeys(("to_nodes", "data", "method_args", "reply_method_args"), any_texts)
    numbers = [name for name in Message._fields if name.endswith(("_s", "retries")) or name == "id"]
    kinds |= dict.fromkeys(numbers, any_int)
    kinds["is_reply"] = st.booleans()
    kinds["previous_message"] = previous
    return st.builds(Message, **kinds)


any_message = messages(st.none() | messages(st.none() | messages(st.none())))
