"""How a new node asks to be let in, before it has a login: what it says, and what is kept of it. Pure.

It logs in by an invitation, a key that may ask and nothing else, and says its name and public key, signed by the key that
it wants to be known by. What is kept of that is bounded in number; nobody is let in by it: a key is let in by the config.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from appliance.core.names import ENROLMENT_TOKEN, NodeName, find_taken, is_node_name
from appliance.core.public_keys import fingerprint_of, is_public_key

REQUESTS = f"{ENROLMENT_TOKEN}.request"
"""The subject on which new nodes ask."""
REPLIES = f"{ENROLMENT_TOKEN}.reply"
"""They are answered below it, and below their public key."""
MAX_REQUEST_BYTES = 1_024
MAX_PER_NODE = 4
"""Keys that may wait for one name: whoever asks for it again and again takes no other's place."""
MAX_REJECTED = 1_000
"""Keys that are remembered as turned away; the oldest go."""
_SIGNED = b"steward-appliance/enrolment/1"

Verify = Callable[[str, bytes, bytes], bool]
"""Whether the holder of a public key signed some bytes."""


class EnrolmentRequest(NamedTuple):
    """A node and the public key by which it wants to log in."""

    node: str
    public_key: str


class _Body(msgspec.Struct):
    node: str
    public_key: str
    nonce: str
    signature: bytes


class Result(StrEnum):
    """What a request came to."""

    PENDING = "pending"
    """It waits for somebody who accepts or rejects it."""
    ACCEPTED = "accepted"
    """The key stands in the config."""
    REJECTED = "rejected"
    FULL = "full"
    """Too many wait; somebody has to look at them first."""


_DECODER = msgspec.json.Decoder(_Body)


def signed_bytes(request: EnrolmentRequest, nonce: str) -> bytes:
    """What the signature of a request is made over; none of the parts can hold the byte between them."""
    return b"\0".join([_SIGNED, *(part.encode() for part in (*request, nonce))])


def write_request(request: EnrolmentRequest, nonce: str, signature: bytes) -> bytes:
    """The bytes of a request."""
    return msgspec.json.encode(_Body(*request, nonce, signature))


def read_request(payload: bytes, verify: Verify) -> EnrolmentRequest | None:
    """What a stranger asks; None for anything that is no request, or not signed by its key."""
    if len(payload) > MAX_REQUEST_BYTES:
        return None
    try:
        body = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    request = EnrolmentRequest(body.node, body.public_key)
    if (
        not is_node_name(body.node)
        or find_taken(body.node)
        or not is_public_key(body.public_key)
        or "\0" in body.nonce
    ):
        return None
    try:
        signed = signed_bytes(request, body.nonce)
    except UnicodeEncodeError:
        return None
    return request if verify(body.public_key, signed, body.signature) else None


class Waiting(msgspec.Struct):
    """One that asks to be let in."""

    node: str
    public_key: str
    first_at: float
    last_at: float
    count: int = 1


class Shown(NamedTuple):
    """One that asks, and what to look at before it is accepted."""

    waiting: Waiting
    fingerprint: str
    warnings: tuple[str, ...]


class _File(msgspec.Struct):
    waiting: list[Waiting] = []
    rejected: list[str] = []


Keys = Mapping[NodeName, Collection[str]]
"""The public keys that the config declares, by node."""


class EnrolmentBook:
    """Who waits and who was turned away. `keys` are always those of the config in force."""

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        """By public key, in the order in which they came."""
        self._rejected: dict[str, None] = {}

    def take(
        self, request: EnrolmentRequest, keys: Keys, now: float, most: int
    ) -> tuple[Result, bool]:
        """What a request comes to, and whether it is one more that waits."""
        node, key = request
        if key in keys.get(NodeName(node), ()):
            return Result.ACCEPTED, False
        # a key that stands for another node would make one of two
        if key in self._rejected or any(key in known for known in keys.values()):
            return Result.REJECTED, False
        known = self._waiting.get(key)
        if known is not None:
            if known.node != node:
                return Result.REJECTED, False
            known.last_at = now
            known.count += 1
            return Result.PENDING, False
        of_node = sum(one.node == node for one in self._waiting.values())
        if len(self._waiting) >= most or of_node >= MAX_PER_NODE:
            return Result.FULL, False
        self._waiting[key] = Waiting(node, key, now, now)
        return Result.PENDING, True

    def reject(self, public_keys: Iterable[str]) -> list[Waiting]:
        """Turn some away: they are remembered, so that they do not come back."""
        gone = [self._waiting.pop(key) for key in public_keys if key in self._waiting]
        for one in gone:
            self._rejected[one.public_key] = None
        while len(self._rejected) > MAX_REJECTED:
            del self._rejected[next(iter(self._rejected))]
        return gone

    def prune(self, keys: Keys, now: float, keep_s: float) -> bool:
        """Forget who is let in by now, and who has not asked for long; whether anybody was."""
        gone = [
            one.public_key
            for one in self._waiting.values()
            if one.public_key in keys.get(NodeName(one.node), ()) or now - one.last_at > keep_s
        ]
        for key in gone:
            del self._waiting[key]
        return bool(gone)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def show(self, keys: Keys) -> list[Shown]:
        """All that wait, in the order in which they came."""
        asking: defaultdict[str, int] = defaultdict(int)
        for one in self._waiting.values():
            asking[one.node] += 1
        return [
            Shown(
                one, fingerprint_of(one.public_key), tuple(_warnings(one, keys, asking[one.node]))
            )
            for one in self._waiting.values()
        ]

    def dump(self) -> bytes:
        """For a file."""
        return msgspec.json.encode(_File(list(self._waiting.values()), list(self._rejected)))

    def load(self, raw: bytes) -> None:
        """What `dump` wrote. Raises ValueError."""
        try:
            found = msgspec.json.decode(raw, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        self._waiting = {one.public_key: one for one in found.waiting}
        self._rejected = dict.fromkeys(found.rejected)


def _warnings(one: Waiting, keys: Keys, asking: int) -> Iterable[str]:
    if asking > 1:
        yield f"{asking} keys are asked for in this name: at most one is the node's"
    if keys.get(NodeName(one.node)):
        yield "this node has another key already"


def describe_answer(result: Result, fingerprint: str) -> bytes:
    """The answer to whoever asked."""
    return json.dumps({"result": result, "fingerprint": fingerprint}).encode()


def read_answer(payload: bytes) -> Result | None:
    """What came of a request; None where it is no answer to one."""
    try:
        return Result(json.loads(payload)["result"])
    except (ValueError, LookupError, TypeError):
        return None
