"""What goes between the daemon and a process that computes for it: orders there, outcomes back.

An order is the daemon's own word, and read as such. Whoever answers has worked on what strangers sent, so an outcome is
data of a known shape, bounded, and nothing in it is obeyed: neither names of classes nor of other nodes.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import msgspec

from appliance.core.message import Message, bytes_to_text, text_to_bytes
from appliance.core.names import NodeName
from appliance.core.specs import SubscriberSpec
from appliance.errors import (
    REFUSALS,
    ApplianceError,
    ArgumentsInvalid,
    DecodeError,
    EncodeError,
    HandlerError,
)
from appliance.methods.base import HandlerContext, Outgoing, Result
from appliance.wire.gob import decode_gob, encode_gob

MAX_OUTCOME_BYTES = 64 * 1024 * 1024
"""As much as a message may hold."""
MAX_MESSAGES = 10_000
MAX_ERROR_CHARACTERS = 4_096
MAX_DEPTH = 16
HEAD = struct.Struct(">I")
"""What stands before every frame: its length."""
READY = b"ready"
"""The first word of a process: it has loaded what it needs."""


class BadOutcome(Exception):
    """What a process answered is no outcome."""


class Greeting(NamedTuple):
    """What a process is told first. `modules` hold the methods that it is likely to be asked for."""

    search_path: tuple[str, ...]
    method_paths: tuple[str, ...]
    modules: tuple[str, ...]
    max_bytes: int

    def encode(self) -> bytes:
        """As a frame."""
        return pickle.dumps(tuple(self), pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a handler that computes may know beside its message: the part of `HandlerContext` that is values."""

    node: NodeName
    spec: SubscriberSpec
    timeout_s: float
    now: float
    headers: Mapping[str, str] = field(default_factory=dict)
    asker_is_appliance: bool = False
    signer: str = ""
    max_payload_bytes: int = 1_048_576

    @classmethod
    def of(cls, context: HandlerContext) -> Facts:
        """Those of a context."""
        return cls(
            node=context.node,
            spec=context.spec,
            timeout_s=context.timeout_s,
            now=context.now,
            headers=dict(context.headers),
            asker_is_appliance=context.asker_is_appliance,
            signer=context.signer,
            max_payload_bytes=context.max_payload_bytes,
        )


class OrderWriter:
    """Makes orders of one method. The settings are written when they change, which costs more than all the rest."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._spec: SubscriberSpec | None = None
        self._raw_spec = b""

    def encode(self, message: Message, facts: Facts) -> bytes:
        """An order to handle a message."""
        if facts.spec is not self._spec:
            self._spec = facts.spec
            self._raw_spec = pickle.dumps(facts.spec, pickle.HIGHEST_PROTOCOL)
        values = (
            facts.node,
            facts.timeout_s,
            facts.now,
            facts.headers,
            facts.asker_is_appliance,
            facts.signer,
            facts.max_payload_bytes,
        )
        order = (self._module, self._raw_spec, message, values)
        return pickle.dumps(order, pickle.HIGHEST_PROTOCOL)


class Order(NamedTuple):
    """One message to handle, by the `METHOD` of a module."""

    module: str
    message: Message
    facts: Facts


class OrderReader:
    """Reads orders, in the process that they are for."""

    def __init__(self) -> None:
        self._raw_spec = b""
        self._spec: SubscriberSpec | None = None

    def decode(self, raw: bytes) -> Order:
        """One order."""
        module, raw_spec, message, facts = pickle.loads(raw)  # noqa: S301 - the daemon wrote it
        if self._spec is None or raw_spec != self._raw_spec:
            self._raw_spec, self._spec = raw_spec, pickle.loads(raw_spec)  # noqa: S301 - likewise
        assert self._spec is not None
        node, timeout_s, now, headers, asker_is_appliance, signer, max_payload_bytes = facts
        return Order(
            module,
            message,
            Facts(
                node=node,
                spec=self._spec,
                timeout_s=timeout_s,
                now=now,
                headers=headers,
                asker_is_appliance=asker_is_appliance,
                signer=signer,
                max_payload_bytes=max_payload_bytes,
            ),
        )


# -- outcomes ---------------------------------------------------------------------------------------


class _Sent(msgspec.Struct, array_like=True, frozen=True):
    message: bytes
    expires_s: float | None
    keeps_dead: bool


class _Done(msgspec.Struct, array_like=True, frozen=True, tag="done"):
    output: bytes | None
    report: bytes | None
    exit_status: int | None
    stderr: bytes
    is_truncated: bool
    messages: Annotated[list[_Sent], msgspec.Meta(max_length=MAX_MESSAGES)]


class _Failed(msgspec.Struct, array_like=True, frozen=True, tag="failed"):
    is_refusal: bool
    text: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Done | _Failed)


def encode_result(result: Result) -> bytes:
    """What a handler made of a message.

    Raises:
        HandlerError: it holds what cannot be carried from here, or more than may be.
    """
    if result.ending is not None:
        raise HandlerError("a handler that computes runs no program, and tells of the end of none")
    raw = _encoder.encode(
        _Done(
            output=result.output,
            report=None if result.report is None else text_to_bytes(result.report),
            exit_status=result.exit_status,
            stderr=result.stderr,
            is_truncated=result.is_truncated,
            messages=[_encode_outgoing(one) for one in result.messages],
        )
    )
    if len(raw) > MAX_OUTCOME_BYTES:
        raise HandlerError(f"the handler's result is larger than {MAX_OUTCOME_BYTES} bytes")
    return raw


def _encode_outgoing(outgoing: Outgoing) -> _Sent:
    if outgoing.headers or outgoing.in_name_of:
        raise HandlerError("a handler that computes sends in the name of its node, without headers")
    try:
        raw = encode_gob(outgoing.message)
    except EncodeError as error:
        raise HandlerError(
            f"a message that the handler sends cannot be written: {error}"
        ) from error
    return _Sent(raw, outgoing.expires_s, outgoing.keeps_dead)


def encode_failure(error: Exception) -> bytes:
    """Why a handler made nothing of a message."""
    is_ours = isinstance(error, ApplianceError)
    text = str(error) if is_ours else f"internal error: {type(error).__name__}: {error}"
    return _encoder.encode(
        _Failed(isinstance(error, REFUSALS), text_to_bytes(text[:MAX_ERROR_CHARACTERS]))
    )


def read_outcome(raw: bytes) -> Result:
    """What a process made of an order.

    Raises:
        HandlerError: refused or failed, in the handler's words.
        BadOutcome: it is none.
    """
    try:
        outcome = _decoder.decode(raw)
        if isinstance(outcome, _Done):
            return Result(
                output=outcome.output,
                report=None if outcome.report is None else bytes_to_text(outcome.report),
                exit_status=outcome.exit_status,
                stderr=outcome.stderr,
                is_truncated=outcome.is_truncated,
                messages=tuple(map(_read_outgoing, outcome.messages)),
            )
    except (msgspec.DecodeError, DecodeError) as error:
        raise BadOutcome(str(error)) from error
    text = bytes_to_text(outcome.text[: 4 * MAX_ERROR_CHARACTERS])
    raise (ArgumentsInvalid if outcome.is_refusal else HandlerError)(text)


def _read_outgoing(sent: _Sent) -> Outgoing:
    message = decode_gob(sent.message, max_depth=MAX_DEPTH)
    return Outgoing(message=message, expires_s=sent.expires_s, keeps_dead=sent.keeps_dead)
