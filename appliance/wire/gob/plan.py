"""How to read the values of a stream: its types matched with the fields of `Message`, once.

Fields are matched by name. One that a message does not have is skipped, whatever its type; one that
it has must be of the very type, as Go demands. The plan of a type is a tuple per field of the
stream, in order: what to read, which field of the message it is, and what more is needed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.core.message import Message
from appliance.errors import DecodeError
from appliance.wire.gob.types import (
    BOOL,
    BUILT_IN_TYPES,
    INT,
    STRING,
    ArrayType,
    MapType,
    SliceType,
    StructType,
    WireType,
    read_types,
)

READ_TEXT, READ_INT, READ_TEXTS, READ_BOOL, READ_MESSAGE, SKIP = range(6)

GO_NAMES = (
    *("ToNode", "ToNodes", "ID", "Data", "Method", "MethodArgs", "ReplyMethod", "ReplyMethodArgs"),
    *("IsReply", "FromNode", "ACKTimeout", "Retries", "ReplyACKTimeout", "ReplyRetries"),
    *("MethodTimeout", "ReplyMethodTimeout", "Directory", "FileName", "PreviousMessage"),
    *("RelayViaNode", "RelayOriginalViaNode", "RelayFromNode", "RelayToNode"),
    *("RelayOriginalMethod", "RelayReplyMethod"),
)
"""The names of the seed's struct, in the order of `Message`."""

_READ_BY_NAME = {"Data": READ_TEXTS, "IsReply": READ_BOOL, "PreviousMessage": READ_MESSAGE}
_READ_BY_NAME |= dict.fromkeys(("ToNodes", "MethodArgs", "ReplyMethodArgs"), READ_TEXTS)
_READ_BY_NAME |= dict.fromkeys(
    (name for name in GO_NAMES if name.endswith(("ID", "Timeout", "Retries"))), READ_INT
)
FIELD_READS = tuple(_READ_BY_NAME.get(name, READ_TEXT) for name in GO_NAMES)
"""What each field of `Message` is on the wire."""
assert len(GO_NAMES) == len(Message._fields)

_SLOTS = {name.encode(): slot for slot, name in enumerate(GO_NAMES)}

PlanField = tuple[int, int, Any]
"""What to read; which field of the message; for a message its plan, for a skipped one its type."""


class Plan:
    """How to read one struct of the stream as a message. Filled after it is made: it may hold itself."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: tuple[PlanField, ...] = ()


class Descriptor:
    """The types of a stream and the plans made of them so far."""

    __slots__ = ("_plans", "raw", "size_bytes", "types")

    def __init__(self, raw: bytes) -> None:
        """Read the definitions.

        Raises:
            DecodeError: they are none.
        """
        self.raw = raw
        self.size_bytes = len(raw)
        self.types: Mapping[int, WireType] = read_types(raw)
        self._plans: dict[int, Plan] = {}

    def plan_for(self, type_id: int) -> Plan:
        """The plan for a value of this type.

        Raises:
            DecodeError: the type is no struct, or one of its fields does not fit.
        """
        return self._plans.get(type_id) or self._compile(type_id)

    def _compile(self, type_id: int) -> Plan:
        plans = {type_id: Plan()}
        pending = [type_id]
        skipped: set[int] = set()
        while pending:
            struct_id = pending.pop()
            struct = self.types.get(struct_id)
            if not isinstance(struct, StructType):
                reason = "never defined" if struct is None else "no struct"
                raise DecodeError(f"the message is of type {struct_id}, which is {reason}")
            fields: list[PlanField] = []
            for name, field_id in struct.fields:
                slot = _SLOTS.get(name, -1)
                if slot < 0:
                    skipped.add(field_id)
                    fields.append((SKIP, -1, field_id))
                    continue
                read = FIELD_READS[slot]
                more: Plan | None = None
                if read == READ_MESSAGE:
                    if field_id not in plans:
                        plans[field_id] = Plan()
                        pending.append(field_id)
                    more = plans[field_id]
                elif not self._fits(read, field_id):
                    raise DecodeError(f"field {GO_NAMES[slot]} is of another type than a message's")
                fields.append((read, slot, more))
            _refuse_same_name_twice(fields)
            plans[struct_id].fields = tuple(fields)
        self._check_defined(skipped)
        self._plans |= plans
        return plans[type_id]

    def _fits(self, read: int, type_id: int) -> bool:
        if read == READ_TEXT:
            return type_id == STRING
        if read == READ_INT:
            return type_id == INT
        if read == READ_BOOL:
            return type_id == BOOL
        return self.types.get(type_id) == SliceType(STRING)

    def _check_defined(self, type_ids: set[int]) -> None:
        """All types that skipping may meet are there; whether they end is seen when skipping."""
        seen = set(type_ids)
        pending = list(type_ids)
        while pending:
            type_id = pending.pop()
            definition = self.types.get(type_id)
            if definition is None:
                if type_id not in BUILT_IN_TYPES:
                    raise DecodeError(f"the gob stream uses type {type_id}, which is never defined")
                continue
            for child in _children(definition):
                if child not in seen:
                    seen.add(child)
                    pending.append(child)


def _children(definition: WireType) -> tuple[int, ...]:
    if isinstance(definition, StructType):
        return tuple(type_id for _, type_id in definition.fields)
    if isinstance(definition, MapType):
        return (definition.key, definition.element)
    if isinstance(definition, SliceType | ArrayType):
        return (definition.element,)
    return ()


def _refuse_same_name_twice(fields: list[PlanField]) -> None:
    slots = [slot for _, slot, _ in fields if slot >= 0]
    if len(set(slots)) != len(slots):
        twice = next(slot for slot in slots if slots.count(slot) > 1)
        raise DecodeError(f"the message's type has two fields named {GO_NAMES[twice]}")
