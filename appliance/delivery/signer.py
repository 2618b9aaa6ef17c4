"""Signs what goes out, in the name of the nodes of this daemon: messages, and what is said about messages.

The key for it is read at the start, and again when its file or the config changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from appliance.bus.auth import read_secret
from appliance.bus.base import Frame
from appliance.bus.node_keys import read_seed
from appliance.core.current import Current
from appliance.core.secret_refs import find_signing_ref
from appliance.core.signatures import VALID_S, find_strange_key
from appliance.core.specs import DesiredState, SecretRef, SignaturePolicy
from appliance.errors import BusUnauthorized
from appliance.wire.ed25519 import key_pair, sign
from appliance.wire.signature import (
    MOST_TOGETHER,
    Kind,
    digest,
    grow,
    key_id_of,
    reply_mark,
    sealed_bytes,
    write_facts,
    write_line,
)


class SigningKey(NamedTuple):
    """A key pair; `secret` is in the form that the library takes."""

    key_id: str
    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


def make_signing_key(seed: bytes) -> SigningKey:
    """The key pair of a seed of 32 bytes."""
    public, secret = key_pair(seed)
    return SigningKey(key_id_of(public), public, secret)


class Signer:
    """One for a daemon. Without a key everything goes out as it is."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.key: SigningKey | None = None

    def sign_messages(
        self, frames: Sequence[Frame], node: str, valid_s: float = VALID_S
    ) -> list[Frame]:
        """Messages of one node, signed together; their answers count where they are asked for, and nowhere else."""
        return self._sign(Kind.MESSAGE, frames, node, valid_s)

    def sign_answers(self, frames: Sequence[Frame], node: str) -> list[Frame]:
        """What one node says about messages, all of it with headers. Each is good for the subject that it goes to.

        The place of the reply subject, which an answer has none of, holds the node that is proved to have asked.
        """
        signed = self._sign(Kind.ANSWER, frames, node, VALID_S)
        return [(subject, "", block, payload) for subject, _, block, payload in signed]

    def _sign(self, kind: Kind, frames: Sequence[Frame], node: str, valid_s: float) -> list[Frame]:
        key = self.key
        if key is None:
            return list(frames)
        created_ms = int(self._wall() * 1000)
        expires_ms = created_ms + int(valid_s * 1000)
        signed: list[Frame] = []
        for start in range(0, len(frames), MOST_TOGETHER):
            together = frames[start : start + MOST_TOGETHER]
            facts = [
                write_facts(node, key.key_id, created_ms, expires_ms, reply_mark(reply_to))
                for _, reply_to, _, _ in together
            ]
            leaves = [
                digest(kind, fact, subject, block, payload)
                for fact, (subject, _, block, payload) in zip(facts, together, strict=True)
            ]
            root, ways = grow(leaves)
            signature = sign(sealed_bytes(root), key.secret)
            for fact, (turns, beside), (subject, reply_to, block, payload) in zip(
                facts, ways, together, strict=True
            ):
                line = write_line(block, fact, turns, signature, beside)
                signed.append((subject, reply_to, line, payload))
        return signed


READ_TIMEOUT_S = 10.0


class SigningKeys:
    """Gives the signer its key. What cannot be read leaves the key that is there."""

    def __init__(self, desired: Current[DesiredState], signer: Signer) -> None:
        self._desired = desired
        self._signer = signer
        self._ref = find_signing_ref(desired.value)
        self._loading: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        desired.follow(self._follow)

    async def load(self) -> None:
        """Read it now."""
        ref = self._ref
        if ref is None:
            self._signer.key = self._trouble = None
            return
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                seed = await asyncio.to_thread(_read, ref)
        except (BusUnauthorized, ValueError) as error:
            self._trouble = f"the key to sign with: {error}"
        except TimeoutError:
            self._trouble = f"the key to sign with: {ref.kind} {ref.name} cannot be read in time"
        else:
            self._signer.key = make_signing_key(seed)
            self._trouble = None

    def troubles(self) -> list[str]:
        """What keeps messages of the own nodes from counting elsewhere, in words."""
        fleet = self._desired.value
        signing = {
            spec.node
            for spec in fleet.workers.values()
            if spec.signatures is not SignaturePolicy.OFF
        }
        if not signing:
            return []
        key = self._signer.key
        if key is None or self._trouble is not None:
            return [self._trouble or "messages are to be signed, and there is no key to sign with"]
        strange = find_strange_key(fleet, signing, key.public)
        return [] if strange is None else [strange]

    async def close(self) -> None:
        """Read no more."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    def _follow(self, desired: DesiredState) -> None:
        ref = find_signing_ref(desired)
        if ref != self._ref:
            self._ref = ref
            self._loading = asyncio.get_running_loop().create_task(
                self.load(), name="read the key to sign with"
            )


def _read(ref: SecretRef) -> bytes:
    return read_seed(read_secret(ref, "the seed"))
