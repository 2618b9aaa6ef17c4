"""Checks what comes in signed, and remembers who signs.

Whose signature counts is the config's to say: `public_keys` of the node, whichever of them. What was signed together is
checked by one look at the signature, and by hashes from there on.

A node that was once heard to sign, and has a key in the config, is not heard without any more, whatever the config says of
those who never did; that is remembered on disk, with the newest time that the node itself has named. By that time it is
known that a message is old even where the clock here has been set back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from appliance.bus.base import BusMessage
from appliance.core.current import Current
from appliance.core.names import NodeName
from appliance.core.public_keys import raw_user_key
from appliance.core.signatures import Fault, find_time_fault, longest_age_s
from appliance.core.specs import NO_TRAITS, DesiredState, SignaturePolicy
from appliance.delivery.base import Notes
from appliance.errors import StoreError
from appliance.wire.ed25519 import is_signature
from appliance.wire.signature import (
    NO_REPLY,
    Claim,
    Kind,
    digest,
    find_claim,
    find_root,
    key_id_of,
    reply_mark,
    sealed_bytes,
)

FACT_KIND = "signs"
"""Of the facts that tell which nodes were heard to sign: the newest time they named, and when that was, steadily."""
NOTED_EVERY_S = 600.0
MAX_ROOTS = 256
MAX_KEYS = 4_096
MAX_SIGNERS = 10_000
TOLD_SKEW_S = 5.0
"""Clocks that differ by less are as good as equal: a message takes a while."""


class Opened(NamedTuple):
    """What came, without its signature. `signer` is "" where it has none; with a `fault` it is not to count."""

    block: bytes
    signer: str
    fault: Fault | None = None
    mark: bytes = NO_REPLY

    def is_for(self, asker: str) -> bool:
        """Whether an answer is about something that `asker` is proved to have sent."""
        return self.mark == reply_mark(asker)


class _Heard:
    """What is known of one signer."""

    __slots__ = ("newest_ms", "noted_at", "seen_at")

    def __init__(self, newest_ms: int, seen_at: float) -> None:
        self.newest_ms = newest_ms
        self.seen_at = self.noted_at = seen_at


class Verifier:
    """One for a daemon. `wall` is the time of day, `steady` seconds that never jump, over restarts, too."""

    def __init__(
        self,
        desired: Current[DesiredState],
        notes: Notes,
        *,
        wall: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._desired = desired
        self._notes = notes
        self._wall = wall
        self._steady = steady
        self.refused = dict.fromkeys(Fault, 0)
        """How much did not count, by why."""
        self.skews_s: dict[str, float] = {}
        """By how much the clocks of signers are ahead of ours, where that is worth telling."""
        self._fleet: DesiredState | None = None
        self._keys: dict[tuple[str, str], bytes] = {}
        self._roots: dict[tuple[bytes, bytes, bytes], None] = {}
        """Roots that were found to be signed: signature, root and key."""
        self._heard = {node: _read_fact(text) for node, text in notes.facts(FACT_KIND).items()}
        self._saving: set[asyncio.Task[None]] = set()

    def open_message(self, message: BusMessage, subject: str, policy: SignaturePolicy) -> Opened:
        """Check a message for `subject`, before anything of it is decoded.

        One without a signature comes back as it is: whether its sender may do without, `find_unsigned_fault` tells.
        """
        try:
            claim = find_claim(message.block)
        except ValueError:
            return self._refuse(message.block, "", Fault.MALFORMED)
        if claim is None:
            if policy is SignaturePolicy.REQUIRE:
                return self._refuse(message.block, "", Fault.UNSIGNED)
            return Opened(message.block, "")
        fault = self._find_fault(Kind.MESSAGE, claim, subject, message.payload)
        if fault is None and message.origin is None and claim.reply != reply_mark(message.reply_to):
            fault = Fault.REDIRECTED
        if fault is None:
            fault = self._find_time_fault(claim)
        if fault is not None:
            return self._refuse(claim.block, claim.signer, fault)
        self._note(claim, is_fresh=message.origin is None)
        return Opened(claim.block, claim.signer)

    def open_answer(self, message: BusMessage) -> Opened:
        """Check what was said on a reply subject. Most of these are of one message, and a copy says nothing there."""
        try:
            claim = find_claim(message.block)
        except ValueError:
            return self._refuse(message.block, "", Fault.MALFORMED)
        if claim is None:
            return Opened(message.block, "")
        fault = self._find_fault(Kind.ANSWER, claim, message.subject, message.payload)
        if fault is None:
            fault = self._find_time_fault(claim)
        if fault is not None:
            return self._refuse(claim.block, claim.signer, fault)
        self._note(claim, is_fresh=False)
        return Opened(claim.block, claim.signer, None, claim.reply)

    def find_unsigned_fault(self, node: str, policy: SignaturePolicy) -> Fault | None:
        """Why something does not count that `node` is said to have sent, and that is not signed."""
        if not self.must_sign(node, policy):
            return None
        is_all = policy is SignaturePolicy.REQUIRE
        return self.count(Fault.UNSIGNED if is_all else Fault.DOWNGRADE)

    def must_sign(self, node: str, policy: SignaturePolicy) -> bool:
        """Whether nothing counts that comes from a node unsigned."""
        if policy is SignaturePolicy.REQUIRE:
            return True
        return node in self._heard and bool(self._traits_keys(node))

    def may_hear_reports(self, node: str) -> bool:
        """Whether a node is errorCentral, as far as the config says who is."""
        found = self._desired.value.error_centrals
        return not found or node in found

    def count(self, fault: Fault) -> Fault:
        """Something did not count."""
        self.refused[fault] += 1
        return fault

    async def close(self) -> None:
        """Wait for what is being remembered."""
        if self._saving:
            await asyncio.wait(self._saving)

    def _refuse(self, block: bytes, signer: str, fault: Fault) -> Opened:
        return Opened(block, signer, self.count(fault))

    def _find_fault(self, kind: Kind, claim: Claim, subject: str, payload: bytes) -> Fault | None:
        key = self._key_of(claim)
        if key is None:
            return Fault.UNKNOWN_KEY
        root = find_root(claim, digest(kind, claim.facts, subject, claim.block, payload))
        known = (claim.signature, root, key)
        if known in self._roots:
            return None
        if not is_signature(claim.signature, sealed_bytes(root), key):
            return Fault.FORGED
        if len(self._roots) >= MAX_ROOTS:
            del self._roots[next(iter(self._roots))]
        self._roots[known] = None
        return None

    def _find_time_fault(self, claim: Claim) -> Fault | None:
        fleet = self._desired.value
        skew_s = fleet.signing.clock_skew_s
        most_s = longest_age_s(fleet.state.dedupe_window_s, skew_s)
        heard = self._heard.get(claim.signer)
        # NB: not for ever: clocks of a whole fleet may have been wrong together, and be right again
        if (
            heard is not None
            and claim.created_ms < heard.newest_ms - most_s * 1000
            and self._steady() - heard.seen_at < fleet.state.dedupe_window_s
        ):
            return Fault.EXPIRED
        return find_time_fault(
            claim.created_ms,
            claim.expires_ms,
            now_s=self._wall(),
            skew_s=skew_s,
            most_s=most_s,
        )

    # -- keys -------------------------------------------------------------------------------------

    def _traits_keys(self, node: str) -> tuple[str, ...]:
        return self._desired.value.traits.get(NodeName(node), NO_TRAITS).public_keys

    def _key_of(self, claim: Claim) -> bytes | None:
        fleet = self._desired.value
        if fleet is not self._fleet:
            # a key that the config has no more signs nothing from now on
            self._fleet = fleet
            self._keys.clear()
        wanted = (claim.signer, claim.key_id)
        key = self._keys.get(wanted)
        if key is None:
            for text in self._traits_keys(claim.signer):
                raw = raw_user_key(text)
                if key_id_of(raw) == claim.key_id:
                    if len(self._keys) >= MAX_KEYS:
                        self._keys.clear()
                    key = self._keys[wanted] = raw
        return key

    # -- who signs --------------------------------------------------------------------------------

    def _note(self, claim: Claim, *, is_fresh: bool) -> None:
        """What counts was signed; `is_fresh` where it has come as soon as it was sent."""
        signer = claim.signer
        heard = self._heard.get(signer)
        if heard is not None and claim.created_ms <= heard.newest_ms:
            return
        now = self._steady()
        if heard is None:
            if len(self._heard) >= MAX_SIGNERS:
                return
            heard = self._heard[signer] = _Heard(claim.created_ms, now)
            self._save(signer, heard)
        heard.newest_ms, heard.seen_at = claim.created_ms, now
        if now - heard.noted_at > NOTED_EVERY_S:
            heard.noted_at = now
            self._save(signer, heard)
        if is_fresh:
            self._note_skew(signer, claim.created_ms / 1000 - self._wall())

    def _note_skew(self, signer: str, ahead_s: float) -> None:
        if abs(ahead_s) >= TOLD_SKEW_S:
            self.skews_s[signer] = ahead_s
        elif signer in self.skews_s:
            del self.skews_s[signer]

    def _save(self, signer: str, heard: _Heard) -> None:
        text = f"{heard.newest_ms} {heard.seen_at:.0f}"
        task = asyncio.get_running_loop().create_task(
            self._remember(signer, text), name=f"remember that {signer} signs"
        )
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _remember(self, signer: str, text: str) -> None:
        # a full disk only means that a later run has to hear it again
        with contextlib.suppress(StoreError):
            await self._notes.remember(FACT_KIND, {signer: text})


def _read_fact(text: str) -> _Heard:
    newest, _, seen = text.partition(" ")
    try:
        return _Heard(int(newest), float(seen))
    except ValueError:
        return _Heard(0, 0.0)
