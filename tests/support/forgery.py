"""What somebody makes of a signed message that he has heard, or of nothing, and why that does not count.

Nodes are alpha, who sends, beta, who takes, and gamma, whose key somebody has taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from appliance.bus.base import Frame
from appliance.bus.node_keys import make_seed, public_key_of, read_seed
from appliance.core.message import Message
from appliance.core.signatures import Fault
from appliance.delivery.signer import Signer, SigningKey, make_signing_key
from appliance.wire.frame import WireLimits, decode_frame, encode_frame
from appliance.wire.headers import encode_headers, parse_headers

SEEDS = {name: make_seed() for name in ("alpha", "beta", "gamma", "new")}
KEYS = {name: public_key_of(seed) for name, seed in SEEDS.items()}
PAIRS: dict[str, SigningKey] = {
    name: make_signing_key(read_seed(seed)) for name, seed in SEEDS.items()
}
CONSOLE, COMMAND = "REQToConsole", "REQCliCommand"
SUBJECT = "beta.REQToConsole.EventACK"
COMMANDS = "beta.REQCliCommand.CommandACK"
HOUR_S, DAY_S = 3_600.0, 86_400.0


def resigned(frame: Frame, key: SigningKey, name: str, *, wall: float) -> Frame:
    """The frame without its signature, signed by somebody."""
    subject, reply_to, block, payload = frame
    signer = Signer(lambda: wall)
    signer.key = key
    return signer.sign_messages([(subject, reply_to, unsigned(block), payload)], name)[0]


def unsigned(block: bytes) -> bytes:
    headers = parse_headers(block)
    headers.pop("appl-sig", None)
    return encode_headers(headers)


def with_body(frame: Frame, **fields: object) -> Frame:
    """The frame with something else in its body; its headers, the signature among them, stay."""
    subject, reply_to, block, payload = frame
    headers = parse_headers(block)
    message = decode_frame(payload, headers, WireLimits())
    changed: Message = message._replace(**fields)  # type: ignore[arg-type]
    compression = "zstd" if "cmp" in headers else "none"
    return (subject, reply_to, block, encode_frame(changed, "cbor", compression)[0])


class Attack(NamedTuple):
    """What mallory makes of a command of alpha's that it has heard, and why that does not count."""

    make: Callable[[Frame, float], Frame]
    fault: Fault


def _moved_block(frame: Frame, old: bytes, new: bytes) -> Frame:
    assert old in frame[2]
    return (*frame[:2], frame[2].replace(old, new), frame[3])


ATTACKS = {
    "made anew by a stranger": Attack(
        lambda frame, wall: resigned(frame, make_signing_key(bytes(32)), "alpha", wall=wall),
        Fault.UNKNOWN_KEY,
    ),
    "signed by another node's key in alpha's name": Attack(
        lambda frame, wall: resigned(frame, PAIRS["gamma"], "alpha", wall=wall),
        Fault.UNKNOWN_KEY,
    ),
    "signed by another node, with alpha in the body": Attack(
        lambda frame, wall: resigned(frame, PAIRS["gamma"], "gamma", wall=wall),
        Fault.OTHER_SENDER,
    ),
    "in the name of a node that there is not": Attack(
        lambda frame, wall: resigned(frame, PAIRS["gamma"], "nobody", wall=wall),
        Fault.UNKNOWN_KEY,
    ),
    "other arguments": Attack(
        lambda frame, wall: with_body(frame, method_args=("rm", "-rf", "/")), Fault.FORGED
    ),
    "arguments with other boundaries": Attack(
        lambda frame, wall: with_body(frame, method_args=("echo a", "b")), Fault.FORGED
    ),
    "arguments with no boundaries": Attack(
        lambda frame, wall: with_body(frame, method_args=("echo a b",)), Fault.FORGED
    ),
    "an argument moved to the data": Attack(
        lambda frame, wall: with_body(frame, method_args=("echo", "a"), data=("b",)), Fault.FORGED
    ),
    "another directory": Attack(
        lambda frame, wall: with_body(frame, directory="/etc"), Fault.FORGED
    ),
    "another asker to answer": Attack(
        lambda frame, wall: with_body(frame, relay_from_node="gamma"), Fault.FORGED
    ),
    "another encoding": Attack(
        lambda frame, wall: _moved_block(frame, b"serial: cbor\r\n", b""), Fault.FORGED
    ),
    "another id": Attack(
        lambda frame, wall: _moved_block(frame, b"appl-id: ", b"appl-id: 1"), Fault.FORGED
    ),
    "a new attempt": Attack(
        lambda frame, wall: _moved_block(frame, b"appl-v: 2", b"appl-attempt: 7\r\nappl-v: 2"),
        Fault.FORGED,
    ),
    "on another subject": Attack(lambda frame, wall: (SUBJECT, *frame[1:]), Fault.FORGED),
    "with the answer sent elsewhere": Attack(
        lambda frame, wall: (frame[0], f"{frame[0]}.reply.mallory.1", *frame[2:]),
        Fault.REDIRECTED,
    ),
    "with the answer sent nowhere": Attack(
        lambda frame, wall: (frame[0], "", *frame[2:]), Fault.REDIRECTED
    ),
    "another time": Attack(
        lambda frame, wall: _moved_block(frame, b" alpha ", b" alpha "[:-1] + b"  "),
        Fault.MALFORMED,
    ),
    "a signature of nothing": Attack(
        lambda frame, wall: (
            *frame[:2],
            unsigned(frame[2])[:-2] + b"appl-sig: 1 alpha\r\n\r\n",
            frame[3],
        ),
        Fault.MALFORMED,
    ),
    "signed long ago": Attack(
        lambda frame, wall: resigned(frame, PAIRS["alpha"], "alpha", wall=wall - DAY_S),
        Fault.EXPIRED,
    ),
    "signed in the future": Attack(
        lambda frame, wall: resigned(frame, PAIRS["alpha"], "alpha", wall=wall + HOUR_S),
        Fault.AHEAD,
    ),
}
