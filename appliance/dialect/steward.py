"""The dialect of Steward's seed generation, with the words that appliances add in headers.

A Go node confirms with the text ``confirmed from: <node>: <id>`` after its handler returned, and with an empty text when
that failed; it reads no headers of ours. Between appliances the same text comes with headers, and further words say what
a receiver does (see `dialect.headers`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

from appliance.core.names import ERROR_CENTRAL
from appliance.core.relay import RELAY_METHOD
from appliance.dialect.base import Answer, AnswerKind, Asked, Received
from appliance.dialect.headers import (
    ATTEMPT_HEADER,
    BUSY_HEADER,
    DONE_HEADER,
    FAILED_HEADER,
    HERE_HEADER,
    ID_HEADER,
    MAX_REASON_CHARACTERS,
    NOBODY,
    REFUSED_HEADER,
    TAKER_HEADER,
    UNDECLARED_HEADER,
    UNWANTED_HEADER,
    VERSION,
    VERSION_HEADER,
    WORKING_HEADER,
    Identity,
    header_text,
    parse_identity,
)
from appliance.wire.alike import AlikeReader
from appliance.wire.codecs import COMPRESSION_OF_HEADER, SERIALIZATION_OF_HEADER
from appliance.wire.frame import (
    COMPRESSION_HEADER,
    WireLimits,
    decode_frame,
    decode_payload,
    frame_headers,
    split_encoding,
)
from appliance.wire.headers import encode_headers, parse_headers

MAX_BUSY_MS = 60_000

_PLAIN = re.compile(
    rb"NATS/1\.0\r\n(?:serial: ([a-z0-9]+)\r\n)?(?:cmp: ([a-z0-9]+)\r\n)?appl-v: 2\r\n"
    rb"appl-id: ([0-9a-f]{16})-([1-9][0-9]{0,18})(-m)?\r\n\r\n"
).fullmatch
"""The block that nearly all messages of appliances come with."""
_ENCODINGS = {
    tuple(word and word.encode() for word in (serial, compression)): (
        SERIALIZATION_OF_HEADER[serial],
        COMPRESSION_OF_HEADER[compression],
    )
    for serial in SERIALIZATION_OF_HEADER
    for compression in COMPRESSION_OF_HEADER
}
"""What its first two words stand for."""

_FILLED = b"m\r\n\r\n"
"""How it ends where methodTimeout was filled in, as nearly always."""
_ZERO = 0x30
_MAX_SENDERS = 1_024
"""That are remembered; peers choose what they write, so it begins anew when there are more."""

_SAYS = re.compile(
    rb"(?:confirmed(?: REQRelay)? from|working at|busy at|refused by|here): ([A-Za-z0-9_.-]{1,200})(?:: |$)"
).match
_NUMBER = re.compile(
    rb"(?:confirmed(?: REQRelay)? from|working at|busy at|refused by): [A-Za-z0-9_.-]{1,200}: ([0-9]{1,19})(?:: |$)"
).match

_VERSION_MARK = VERSION_HEADER.encode()
_ID_MARK = f"{ID_HEADER}: ".encode()
_INSTANCE_LENGTH = 16
_COMPRESSION_MARK = f"{COMPRESSION_HEADER}:".encode()

_CONFIRMED = b"confirmed "
_NO_RESPONDERS = b"NATS/1.0 503"

_TAKEN = Answer(AnswerKind.TAKEN, from_appliance=True)
_DONE = Answer(AnswerKind.DONE, from_appliance=True)
_TAKEN_SEED = Answer(AnswerKind.TAKEN)
_NOBODY_THERE = Answer(AnswerKind.NOBODY)
_FOREIGN = Answer(AnswerKind.FOREIGN)
_FAILED_SEED = Answer(AnswerKind.FAILED, detail="its handler failed, as its empty answer says")

_TAKEN_BLOCK = encode_headers({VERSION_HEADER: VERSION})
_DONE_BLOCK = encode_headers({VERSION_HEADER: VERSION, DONE_HEADER: "1"})


class StewardDialect:
    """Implements `base.Dialect`; without state but for what is the same for many messages."""

    def __init__(self) -> None:
        self._prefixes: dict[tuple[str, str], bytes] = {}
        self._alike = AlikeReader()
        self._senders: dict[bytes, tuple[str, tuple[str, str] | None]] = {}
        """Instance and encoding of those who send, by how their header blocks begin."""

    def asked(self, to_node: str, method: str) -> Asked:
        """Error reports are taken by whichever node is errorCentral, relayed messages by the last part of the name."""
        if to_node == ERROR_CENTRAL:
            return Asked(b"", lambda _name: True)
        if method == RELAY_METHOD:
            return Asked(b"", lambda name: to_node == name or to_node.endswith(f".{name}"))
        return Asked(f"confirmed from: {to_node}: ".encode(), lambda name: name == to_node)

    def write_headers(
        self,
        encoding: str,
        instance: str,
        message_id: int,
        headers: Mapping[str, str] | None,
        *,
        taker: str = "",
        attempt: int = 0,
    ) -> bytes:
        """See `base.Dialect`. Without headers of its own a message is one whose methodTimeout was filled in."""
        if headers or taker or attempt:
            return self._write_all(encoding, instance, message_id, headers, taker, attempt)
        prefix = self._prefixes.get((encoding, instance))
        if prefix is None:
            prefix = self._prefixes[encoding, instance] = self._prefix(encoding, instance)
        return b"%b%d-m\r\n\r\n" % (prefix, message_id)

    def _prefix(self, encoding: str, instance: str) -> bytes:
        known = {**frame_headers(*split_encoding(encoding)), VERSION_HEADER: VERSION}
        return encode_headers(known)[:-2] + f"{ID_HEADER}: {instance}-".encode()

    @staticmethod
    def _write_all(
        encoding: str,
        instance: str,
        message_id: int,
        headers: Mapping[str, str] | None,
        taker: str,
        attempt: int,
    ) -> bytes:
        written = {**frame_headers(*split_encoding(encoding)), VERSION_HEADER: VERSION}
        written[ID_HEADER] = f"{instance}-{message_id}-m"
        if headers:
            written.update(headers)
        if taker:
            written[TAKER_HEADER] = taker
        if attempt:
            written[ATTEMPT_HEADER] = str(attempt)
        return encode_headers(written)

    def read_headers(self, block: bytes) -> Mapping[str, str]:
        """See `base.Dialect`."""
        return parse_headers(block)

    def hears(self, block: bytes) -> bool:
        """See `base.Dialect`."""
        return _VERSION_MARK in block

    def sender_of(self, block: bytes) -> str:
        """See `base.Dialect`."""
        _, found, rest = block.partition(_ID_MARK)
        instance = rest[:_INSTANCE_LENGTH] if found else b""
        return instance.decode() if instance.isalnum() else ""

    def is_compressed(self, block: bytes) -> bool:
        """See `base.Dialect`."""
        return _COMPRESSION_MARK in block

    def identify(self, block: bytes) -> Identity:
        """See `base.Dialect`."""
        if not block:
            return NOBODY
        plain = self._read_plain(block)
        return parse_identity(parse_headers(block)) if plain is None else plain[0]

    def read(self, block: bytes, payload: bytes, limits: WireLimits) -> Received:
        """See `base.Dialect`."""
        plain = self._read_plain(block)
        if plain is not None:
            identity, encoding = plain
            if encoding is not None:  # other words are refused below, by name
                serialization, compression = encoding
                message = decode_payload(
                    payload,
                    serialization,
                    compression,
                    limits,
                    alike=self._alike,
                    number=identity[1],
                )
                return message, identity
        headers = parse_headers(block) if block else {}
        message, sender = decode_frame(payload, headers, limits), parse_identity(headers)
        if sender.instance is not None:
            message = message._replace(id=sender.message_id)
        return message, sender

    def _read_plain(self, block: bytes) -> tuple[Identity, tuple[str, str] | None] | None:
        """What the block says that nearly all messages of appliances come with; None for another one."""
        parts = block.rsplit(b"-", 2)
        if len(parts) != 3 or parts[2] != _FILLED:
            return self._match_plain(block)
        begins, digits, _ = parts
        known = self._senders.get(begins)
        # NB: isdigit is of ASCII alone for bytes
        if known is None or not digits.isdigit() or len(digits) > 18 or digits[0] == _ZERO:
            return self._match_plain(block)
        instance, encoding = known
        # NB: as Identity(...), which costs twice as much
        identity = tuple.__new__(Identity, (instance, int(digits), True, True, "", 0))
        return identity, encoding

    def _match_plain(self, block: bytes) -> tuple[Identity, tuple[str, str] | None] | None:
        found = _PLAIN(block)
        if found is None or len(found[4]) > 18:
            return None
        serial, compression, instance, number, filled = found.groups()
        encoding = _ENCODINGS.get((serial, compression))
        name = instance.decode()
        if filled is not None:
            if len(self._senders) >= _MAX_SENDERS:
                self._senders.clear()
            self._senders[block[: found.start(4) - 1]] = (name, encoding)
        return Identity(name, int(number), filled is not None, True), encoding

    def read_answer(self, block: bytes, payload: bytes, asked: Asked) -> Answer:
        """See `base.Dialect`."""
        confirmed = asked.confirmed
        # nearly all answers: told by comparing bytes, without reading headers
        if confirmed and payload.startswith(confirmed):
            if block == _TAKEN_BLOCK:
                return _TAKEN
            if block == _DONE_BLOCK:
                return _DONE
            if not block:
                return _TAKEN_SEED
        if not block:
            if not payload:
                return _FAILED_SEED
            is_taken = payload.startswith(_CONFIRMED) and _names(payload, asked)
            return _TAKEN_SEED if is_taken else _foreign(payload)
        if not payload and block.startswith(_NO_RESPONDERS):
            return _NOBODY_THERE
        headers = parse_headers(block)
        # before what it says: only the node asked can say it
        if not _names(payload, asked):
            return _foreign(payload)
        return _read_words(headers, payload)

    def read_name(self, payload: bytes) -> str | None:
        """See `base.Dialect`."""
        found = _SAYS(payload)
        return None if found is None else found[1].decode()

    def read_number(self, payload: bytes) -> int | None:
        """See `base.Dialect`."""
        found = _NUMBER(payload)
        return None if found is None else int(found[1])

    def write_answer(
        self, answer: Answer, node: str, message_id: int, *, to_appliance: bool
    ) -> tuple[bytes, bytes]:
        """See `base.Dialect`. What a Go node cannot understand is never written for one."""
        kind = answer.kind
        if kind is AnswerKind.TAKEN or kind is AnswerKind.DONE:
            payload = b"confirmed from: %b: %d" % (node.encode(), message_id)
            if not to_appliance:
                return b"", payload
            if not answer.is_unwanted:
                return (_TAKEN_BLOCK if kind is AnswerKind.TAKEN else _DONE_BLOCK), payload
            headers = {VERSION_HEADER: VERSION, UNWANTED_HEADER: "1"}
            if kind is AnswerKind.DONE:
                headers[DONE_HEADER] = "1"
            return encode_headers(headers), payload
        headers = {VERSION_HEADER: VERSION}
        reason = header_text(answer.detail)
        if kind is AnswerKind.WORKING:
            said = "working at"
            headers[WORKING_HEADER] = answer.detail
        elif kind is AnswerKind.BUSY:
            said = "busy at"
            headers[BUSY_HEADER] = str(answer.wait_ms)
        elif kind is AnswerKind.HERE:
            said = "here"
            headers[HERE_HEADER] = "1"
        else:
            said = "refused by"
            if kind is AnswerKind.FAILED:
                headers[FAILED_HEADER] = reason
            # NB: earlier appliances know this header only, and would take anything else for an acknowledgement
            headers[REFUSED_HEADER] = reason
            if answer.is_undeclared:
                headers[UNDECLARED_HEADER] = "1"
        text = f"{said}: {node}: {message_id}"
        if kind in (AnswerKind.REFUSED, AnswerKind.FAILED):
            text += f": {answer.detail}"
        return encode_headers(headers), text.encode("utf-8", "backslashreplace")


def _names(payload: bytes, asked: Asked) -> bool:
    found = _SAYS(payload)
    return found is not None and asked.accepts(found[1].decode())


def _foreign(payload: bytes) -> Answer:
    """A stream that records the subject answers every message with its own acknowledgement, which says its name."""
    if payload.startswith(b"{") and len(payload) < 1_024:
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(payload)
            if isinstance(said, dict) and isinstance(said.get("stream"), str):
                name = header_text(said["stream"])
                return Answer(
                    AnswerKind.FOREIGN,
                    detail=f"the stream {name} records this subject and answers in the node's place",
                )
    found = _SAYS(payload)
    if found is not None:
        return Answer(AnswerKind.FOREIGN, detail=f"answered by {found[1].decode()[:60]}")
    return _FOREIGN


def _read_words(headers: Mapping[str, str], payload: bytes) -> Answer:
    """What the headers of an answer say that names the node asked."""
    is_ours = VERSION_HEADER in headers
    is_unwanted = UNWANTED_HEADER in headers
    # first, as it comes with REFUSED_HEADER beside it for older appliances
    failed = headers.get(FAILED_HEADER)
    if failed is not None:
        return Answer(AnswerKind.FAILED, True, failed[:MAX_REASON_CHARACTERS])
    refused = headers.get(REFUSED_HEADER)
    if refused is not None:
        return Answer(
            AnswerKind.REFUSED,
            True,
            refused[:MAX_REASON_CHARACTERS],
            is_undeclared=UNDECLARED_HEADER in headers,
        )
    working = headers.get(WORKING_HEADER)
    if working is not None:
        return Answer(AnswerKind.WORKING, True, working[:40])
    busy = headers.get(BUSY_HEADER)
    if busy is not None:
        wait_ms = int(busy) if len(busy) < 8 and busy.isascii() and busy.isdecimal() else 0
        return Answer(AnswerKind.BUSY, True, "", min(wait_ms, MAX_BUSY_MS))
    if HERE_HEADER in headers:
        return Answer(AnswerKind.HERE, True)
    if DONE_HEADER in headers:
        return Answer(AnswerKind.DONE, True, "", 0, is_unwanted)
    if "Status" in headers or not payload.startswith(_CONFIRMED):
        return _FOREIGN
    return Answer(AnswerKind.TAKEN, is_ours or is_unwanted, "", 0, is_unwanted)
