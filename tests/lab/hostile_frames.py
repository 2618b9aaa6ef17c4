"""Frames that no friend would send: mutated, nested, forged, in either serialization, knowing the wire alone.

Nothing of the product is used to make them. All come from one seeded generator, so a run can be had again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import cbor2
import zstandard

from tests.support import gob_streams as gob
from tests.support.bare_publisher import seed_message
from tests.support.wire_cases import GO_NAMES

TO, ID, DATA, METHOD, ARGS, REPLY_METHOD, REPLY_ARGS, IS_REPLY, FROM = 0, 2, 3, 4, 5, 6, 7, 8, 9
DIRECTORY, FILE, PREVIOUS, VIA, ORIGINAL_VIA, RELAY_FROM, RELAY_TO, RELAY_METHOD = range(16, 24)
TIMES = range(10, 16)

COMMANDS = (
    "REQCliCommand",
    "REQCliCommandCont",
    "REQOpProcessList",
    "REQOpProcessStart",
    "REQOpProcessStop",
)
EVENTS = ("REQToFile", "REQToFileAppend", "REQToConsole", "REQPing", "REQPong", "REQTailFile", "REQHttpGet",
          "REQCopyFileFrom", "REQCopyFileTo", "REQCopyFileChunk", "REQToSocket", "REQRelayInitial")  # fmt: skip
HELLO = "REQHello"
ERROR_LOG = "REQErrorLog"
TEXTS = ("", "x", "..", "../../etc/passwd", "/etc/passwd", "@caller", "a/b", ".appliance", "x" * 300, "x" * 5000,
         "\r\nPUB evil 1\r\nx\r\n", "\x00", "\x1b[2J", "ship1", "central", "ghost", "%s%n{}", "é" * 200, "*", ">", ".",
         "errorCentral", "local", "ship1.REQCliCommand.CommandACK", "{{STEWARD_DATA}}", "-1", "--help")  # fmt: skip
NUMBERS = (0, 1, -1, 2, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 2**70, 86_400, 1_000_000)
ODD: tuple[Any, ...] = (None, True, b"\xff" * 9, 1.5, float("nan"), float("inf"), [], [[]], {}, {"a": 1}, [None], [1],
                        cbor2.CBORTag(1, 0), cbor2.CBORTag(258, [1]), cbor2.undefined, -(2**64))  # fmt: skip


class Frame(NamedTuple):
    """What is published."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    reply_to: str


class Hostile:
    """An endless source of frames for the nodes of a fleet."""

    def __init__(self, seed: int, *, work: str, recorded: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._work = work
        self._recorded = recorded
        self._zstd = zstandard.ZstdCompressor(level=1)
        self._bomb = self._zstd.compress(bytes(60_000_000))
        self._past: list[Frame] = []
        self._number = 0

    def frames(self) -> Iterator[Frame]:
        """One after the other, for ever; some come again, alone or many times."""
        choose = self._random
        while True:
            roll = choose.random()
            if roll < 0.15 and self._past:
                frame = choose.choice(self._past)
                yield from [frame] * choose.choice((1, 1, 2, 30))
                continue
            frame = self._frame()
            if len(self._past) < 500:
                self._past.append(frame)
            else:
                self._past[choose.randrange(500)] = frame
            yield frame

    def _frame(self) -> Frame:
        choose = self._random
        subject, message = self._message()
        kind = choose.randrange(10)
        if kind < 5:
            payload, headers = cbor2.dumps(message), {"serial": "cbor"}
        elif kind < 8:
            payload, headers = encode_gob(message), {}
        elif kind == 8:
            type_id, content = choose.choice(list(gob.UNKNOWN.values()))
            payload, headers = gob.stream_with(type_id, content), {}
        else:
            payload, headers = choose.choice(self._recorded), {}
        payload = self._damage(payload)
        if choose.random() < 0.3:
            payload, headers = self._compress(payload), {**headers, "cmp": "z"}
        headers |= self._headers()
        return Frame(self._bend(subject), payload, headers, self._reply_to(subject))

    # -- messages ---------------------------------------------------------------------------------

    def _message(self) -> tuple[str, list[Any]]:
        choose = self._random
        node = choose.choice(("ship1", "ship1", "central"))
        method = choose.choice((*COMMANDS, *EVENTS, *EVENTS, HELLO, ERROR_LOG))
        if method == HELLO:
            node = "central"
        elif method == ERROR_LOG:
            node = "errorCentral"
        kind = {True: "CommandACK", False: "EventACK"}[method in COMMANDS]
        subject = f"{node}.{method}.{'EventNACK' if method == HELLO else kind}"
        message = seed_message(node, choose.choice(("central", "central", "ship1", "ghost", "pirate")), method,
                               self._data(), method_args=self._arguments(method), id=choose.choice(NUMBERS[:4]),
                               directory=choose.choice(("evil", "evil", *TEXTS)),
                               file_name=choose.choice(("f", "f", *TEXTS)))  # fmt: skip
        if choose.random() < 0.3:
            message[REPLY_METHOD] = choose.choice((*COMMANDS, *EVENTS, "REQRelay", *TEXTS))
        if choose.random() < 0.3:
            message[IS_REPLY] = True
            message[PREVIOUS] = self._previous(choose.choice((1, 1, 2, 5, 12, 40)))
        if choose.random() < 0.1:
            for position in range(VIA, 25):
                message[position] = choose.choice((*EVENTS, *TEXTS))
        for position in TIMES:
            message[position] = choose.choice((1, 2, 3))
            if choose.random() < 0.05:
                message[position] = choose.choice(NUMBERS)
        if choose.random() < 0.25:
            message[choose.randrange(25)] = choose.choice((*ODD, *TEXTS, *NUMBERS))
        return subject, message

    def _data(self) -> list[str] | None:
        choose = self._random
        return choose.choice(
            (None, [], ["x"], ["evil\n"] * 3, [choose.choice(TEXTS)], ["y" * 40_000], [""] * 300)
        )

    def _arguments(self, method: str) -> list[str] | None:
        choose, work = self._random, self._work
        path = f"{work}/{choose.choice(('a', 'b', 'c/d', '..', '', 'a' * 300))}"
        usual = {
            "REQCliCommand": ["echo", "x"],
            "REQCliCommandCont": [
                "sh",
                "-c",
                choose.choice(("echo a; echo b", "exit 3", "yes | head -c 200000")),
            ],
            "REQTailFile": [path],
            "REQHttpGet": ["http://127.0.0.1:1/"],
            "REQCopyFileFrom": [path, choose.choice(("ship1", "ghost", "")), f"{work}/to"],
            "REQCopyFileTo": ["x", "ship1", path],
            "REQCopyFileChunk": ["x", "ship1", path],
            "REQToSocket": [path],
            "REQOpProcessStart": [choose.choice(EVENTS)],
            "REQOpProcessStop": [choose.choice((*EVENTS, *COMMANDS)), "ship1", "subscriber"],
        }.get(method)
        if choose.random() < 0.7:
            return usual
        return choose.choice(
            (
                None,
                [],
                [choose.choice(TEXTS)],
                [choose.choice(TEXTS) for _ in range(4)],
                ["x"] * 2000,
            )
        )

    def _previous(self, depth: int) -> list[Any] | None:
        if not depth:
            return None
        choose = self._random
        previous = seed_message(choose.choice(TEXTS), choose.choice(TEXTS), choose.choice(EVENTS), None,
                                directory=choose.choice(TEXTS), file_name=choose.choice(TEXTS))  # fmt: skip
        previous[PREVIOUS] = self._previous(depth - 1)
        return previous

    # -- bytes ------------------------------------------------------------------------------------

    def _damage(self, payload: bytes) -> bytes:
        choose = self._random
        roll = choose.random()
        raw = bytearray(payload)
        if roll < 0.55 or not raw:
            return payload
        if roll < 0.75:
            for _ in range(choose.choice((1, 1, 3, 20))):
                raw[choose.randrange(len(raw))] ^= 1 << choose.randrange(8)
        elif roll < 0.85:
            del raw[choose.randrange(len(raw)) :]
        elif roll < 0.92:
            at = choose.randrange(len(raw))
            raw[at:at] = choose.randbytes(choose.choice((1, 5, 200)))
        elif roll < 0.97:
            return choose.randbytes(choose.choice((0, 1, 30, 3000)))
        else:
            return choose.choice(
                (
                    b"\x81" * 20_000,
                    b"\x9f" * 20_000,
                    b"\xd8\x40" * 9_000,
                    b"\x98\x19" + b"\xa1" * 900,
                )
            )
        return bytes(raw)

    def _compress(self, payload: bytes) -> bytes:
        roll = self._random.random()
        if roll < 0.03:
            return self._bomb
        packed = self._zstd.compress(payload)
        return packed[: len(packed) // 2] if roll < 0.1 else packed * 2 if roll < 0.15 else packed

    # -- around the message -----------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        choose = self._random
        headers = {}
        self._number += 1
        roll = choose.random()
        if roll < 0.5:
            headers["appl-id"] = f"{'ee' * 8}-{self._number}"
        elif roll < 0.6:
            headers["appl-id"] = f"{'ee' * 8}-{choose.randrange(1, 50)}"
        if choose.random() < 0.2:
            headers["appl-turn"] = f"{choose.choice(('s', 't', 'u' * 200))}.{choose.randrange(5)}"
            if choose.random() < 0.7:
                headers["appl-more"] = "1"
        if choose.random() < 0.15:
            piece = {"id": "ab" * 16, "offset": choose.choice((0, 262_144, 2**49)),
                     "size": choose.choice((0, 1, 300_000, 2**50)), "sha256": "cd" * 32}  # fmt: skip
            headers["appl-copy"] = json.dumps(piece)
        if choose.random() < 0.15:
            names = ("appl-id", "appl-exit", "appl-stderr", "appl-stream", "appl-progress", "appl-refused", "appl-hello",
                     "appl-done", "appl-sha256", "appl-unwanted", "serial", "cmp", "Status", "Nats-Msg-Id")  # fmt: skip
            headers[choose.choice(names)] = choose.choice(
                ("1", "503", "x" * 3000, "9" * 400, '{"a":' * 300, "z", "gob")
            )
        return headers

    def _bend(self, subject: str) -> str:
        roll = self._random.random()
        if roll < 0.9:
            return subject
        node, method, kind = subject.split(".")
        return self._random.choice(
            (f"{node}.{method}.EventNACK", f"{node}.{method}", f"{subject}.reply.x.y", f"{subject}.reply",
             f"ghost.{method}.{kind}", f"x.{node}.REQRelay.EventACK")
        )  # fmt: skip

    def _reply_to(self, subject: str) -> str:
        return self._random.choice(("", "", f"{subject}.reply", f"{subject}.reply.evil.{self._number}", "_INBOX.x",
                                    "ship1.REQCliCommand.CommandACK", "central.REQToFile.EventACK.reply.a.b",
                                    "$SYS.REQ.USER.INFO", "evil." + "y" * 2000))  # fmt: skip


_STRINGS = 66
_TYPES = {DATA: _STRINGS, ARGS: _STRINGS, REPLY_ARGS: _STRINGS, 1: _STRINGS, PREVIOUS: 65, IS_REPLY: gob.BOOL, ID: gob.INT,
          **dict.fromkeys(TIMES, gob.INT)}  # fmt: skip
_DEFINITIONS = gob.struct_type(
    65, *[(name, _TYPES.get(position, gob.STRING)) for position, name in enumerate(GO_NAMES)]
) + gob.slice_type(_STRINGS, gob.STRING)


def encode_gob(message: list[Any]) -> bytes:
    """As Go would write it; what has no place in Go's struct is left out."""
    return _DEFINITIONS + gob.value(65, _gob_fields(message))


def _gob_fields(message: list[Any]) -> bytes:
    fields = []
    for position, value in enumerate(message):
        wanted = _TYPES.get(position, gob.STRING)
        if wanted == gob.STRING and isinstance(value, str) and value:
            fields.append((position, gob.text(value)))
        elif wanted == gob.INT and type(value) is int and value and -(2**63) <= value < 2**63:
            fields.append((position, gob.sint(value)))
        elif wanted == gob.BOOL and value is True:
            fields.append((position, b"\x01"))
        elif (
            wanted == _STRINGS
            and isinstance(value, list)
            and all(isinstance(item, str) for item in value)
        ):
            fields.append((position, gob.texts(*value)))
        elif wanted == 65 and isinstance(value, list) and len(value) == 25:
            fields.append((position, _gob_fields(value)))
    return gob.struct(*fields)
