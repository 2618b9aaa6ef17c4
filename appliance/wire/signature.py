"""What a signature covers, and how it travels. Pure.

A signature covers the bytes that travel: the subject, the whole header block before it, the payload, and its own facts
(who signs, by which key, when, until when, where the answer goes). Each of them stands with its length, so that no two
messages have the same bytes. Nothing is encoded anew to check it, and it is checked before anything is decompressed.

It travels as the last line of the header block:

    appl-sig: 1 <signer> <key> <created> <expires> <reply> <turns> <proof>

`key` is the first 16 hex digits of the SHA-256 of the public key, times are milliseconds since the epoch, `reply` the first
16 hex digits of the SHA-256 of the reply subject (`-` for none). What comes after the line is nobody's word and cut off.

Messages that are sent together are signed together: their digests are the leaves of a tree, and its root is what is
signed. `proof` is base64 of the signature and of the digests beside the way from leaf to root; `turns` is a number whose
bits, lowest first, say on which side each of these stands. A message alone is its own root.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from enum import Enum
from struct import pack
from typing import NamedTuple

from appliance.wire.ed25519 import SIGNATURE_BYTES

SIGNATURE_HEADER = "appl-sig"
_LINE = f"\r\n{SIGNATURE_HEADER}: ".encode()
VERSION = b"1"
MOST_TOGETHER = 16
"""Messages under one signature: more would save little and weigh more on the wire."""
MAX_DEPTH = 4
_DIGEST_BYTES = 32
MAX_LINE_BYTES = 600
"""Of a signature as the last line: a node's name has 200 characters at most."""
NO_REPLY = b"-"
_MAX_TIME_DIGITS = 15
_SEAL = b"steward-appliance/seal/1\0"


class Kind(Enum):
    """What is signed: none can be taken for another."""

    MESSAGE = b"steward-appliance/msg/1\0"
    ANSWER = b"steward-appliance/answer/1\0"


class Claim(NamedTuple):
    """A signature as it came, not checked yet.

    `block` are the headers that it covers, `facts` its own words as they travelled.
    """

    block: bytes
    facts: bytes
    signer: str
    key_id: str
    created_ms: int
    expires_ms: int
    reply: bytes
    turns: int
    signature: bytes
    beside: tuple[bytes, ...]


def key_id_of(public: bytes) -> str:
    """How a signature names a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def reply_mark(reply_to: str) -> bytes:
    """How a signature names the subject that the answer goes to."""
    if not reply_to:
        return NO_REPLY
    raw = reply_to.encode("utf-8", "surrogatepass")
    return hashlib.sha256(raw).hexdigest()[:16].encode()


def write_facts(signer: str, key_id: str, created_ms: int, expires_ms: int, reply: bytes) -> bytes:
    """The words of a signature about itself."""
    return b"%b %b %b %d %d %b" % (
        VERSION, signer.encode(), key_id.encode(), created_ms, expires_ms, reply
    )  # fmt: skip


def digest(kind: Kind, facts: bytes, subject: str, block: bytes, payload: bytes) -> bytes:
    """What stands for one message in what is signed: equal for equal bytes only."""
    named = subject.encode("utf-8", "surrogatepass")
    return hashlib.sha256(
        b"\0%b%b%b%b%b%b"
        % (
            kind.value,
            pack(">III", len(facts), len(named), len(block)),
            facts,
            named,
            block,
            hashlib.sha256(payload).digest(),
        )
    ).digest()


def sealed_bytes(root: bytes) -> bytes:
    """What is signed of messages with this root."""
    return _SEAL + root


def grow(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The root over digests, and for each of them its turns and what stands beside its way."""
    turns, beside, depth = [0] * len(leaves), [b""] * len(leaves), [0] * len(leaves)
    row = [(leaf, [number]) for number, leaf in enumerate(leaves)]
    while len(row) > 1:
        above = []
        for at in range(0, len(row) - 1, 2):
            (left, below_left), (right, below_right) = row[at], row[at + 1]
            for below, other, side in ((below_left, right, 0), (below_right, left, 1)):
                for number in below:
                    turns[number] |= side << depth[number]
                    depth[number] += 1
                    beside[number] += other
            above.append((_join(left, right), below_left + below_right))
        if len(row) % 2:
            above.append(row[-1])
        row = above
    return row[0][0], list(zip(turns, beside, strict=True))


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def find_root(claim: Claim, leaf: bytes) -> bytes:
    """The root that a message with this digest is said to be under."""
    turns = claim.turns
    for other in claim.beside:
        leaf = _join(other, leaf) if turns & 1 else _join(leaf, other)
        turns >>= 1
    return leaf


def write_line(block: bytes, facts: bytes, turns: int, signature: bytes, beside: bytes) -> bytes:
    """The header block with its signature."""
    proof = binascii.b2a_base64(signature + beside, newline=False)
    return b"%b%b%b %d %b\r\n\r\n" % (block[:-4], _LINE, facts, turns, proof)


def cut_behind(block: bytes) -> bytes:
    """The block without what stands behind its signature, which is nobody's word; as it is where there is none."""
    at = block.find(_LINE)
    end = block.find(b"\r\n", at + 2) if at >= 0 else -1
    return block if end < 0 else block[: end + 2] + b"\r\n"


def find_claim(block: bytes) -> Claim | None:
    """The signature that a block comes with; None where it has none.

    Raises:
        ValueError: there is one, and it is malformed.
    """
    at = block.find(_LINE)
    if at < 0:
        return None
    start = at + len(_LINE)
    end = block.find(b"\r\n", start)
    line = block[start:end]
    if end < 0 or len(line) > MAX_LINE_BYTES or not line.isascii():
        raise ValueError("no line of its own")
    words = line.split(b" ")
    if len(words) != 8 or words[0] != VERSION or not words[1]:
        raise ValueError("not of this version")
    _, signer, key_id, created, expires, reply, turns, proof = words
    for number in (created, expires, turns):
        if not number.isdigit() or len(number) > _MAX_TIME_DIGITS:
            raise ValueError("no number")
    raw = binascii.a2b_base64(proof, strict_mode=True)
    beside = raw[SIGNATURE_BYTES:]
    if len(raw) < SIGNATURE_BYTES or len(beside) % _DIGEST_BYTES:
        raise ValueError("no proof")
    if len(beside) > MAX_DEPTH * _DIGEST_BYTES:
        raise ValueError("under too many")
    return Claim(
        block[: at + 2] + b"\r\n",
        b" ".join(words[:6]),
        signer.decode(),
        key_id.decode(),
        int(created),
        int(expires),
        reply,
        int(turns),
        raw[:SIGNATURE_BYTES],
        tuple(
            beside[start : start + _DIGEST_BYTES] for start in range(0, len(beside), _DIGEST_BYTES)
        ),
    )
