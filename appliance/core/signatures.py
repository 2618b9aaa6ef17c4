"""Whether a signature is of use: what may be wrong with it, and how old it may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from appliance.core.names import NodeName
from appliance.core.public_keys import raw_user_key
from appliance.core.specs import NO_TRAITS, DesiredState

VALID_S = 900.0
"""How long after it was signed a message may arrive that no stream keeps. Each resend is signed anew; what comes later lay
with a broker that had not noticed that a line was dead."""


class Fault(StrEnum):
    """Why a message or an answer does not count, as metrics and status name it."""

    UNSIGNED = "unsigned"
    DOWNGRADE = "downgrade"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    FORGED = "forged"
    OTHER_SENDER = "other_sender"
    REDIRECTED = "redirected"
    NOT_ASKED = "not_asked"
    EXPIRED = "expired"
    AHEAD = "ahead"


FAULT_WORDS = {
    Fault.UNSIGNED: "it is not signed, and `signatures` is require here",
    Fault.DOWNGRADE: "it is not signed, and its sender signs",
    Fault.MALFORMED: "its signature cannot be read",
    Fault.UNKNOWN_KEY: "it is signed by a key that the config does not give to this node",
    Fault.FORGED: "its signature is not of these bytes",
    Fault.OTHER_SENDER: "its body names another sender than the one who signed it",
    Fault.REDIRECTED: "its answer would go elsewhere than its sender signed",
    Fault.NOT_ASKED: "it is about a message that was not proved to be from here",
    Fault.EXPIRED: "its signature has expired",
    Fault.AHEAD: "it was signed in the future, by the clock here",
}
"""What a refusal says."""

PASSING = frozenset({Fault.EXPIRED, Fault.AHEAD, Fault.DOWNGRADE, Fault.UNKNOWN_KEY})
"""Faults that may be over with a later try, when a clock is set or a commit has reached the other node: nobody is told that
it is useless.
"""


def longest_age_s(dedupe_window_s: float, skew_s: float) -> float:
    """How old a message may be by its own words, so that its id is surely remembered if it came before.

    A sender whose clock is ahead was heard that much before the time it names, and one whose clock is behind is given
    as much.
    """
    return dedupe_window_s - 2 * skew_s


def find_time_fault(
    created_ms: int, expires_ms: int, *, now_s: float, skew_s: float, most_s: float
) -> Fault | None:
    """What is wrong with the times of a signature, by a clock that may differ by `skew_s` from the signer's.

    Args:
        created_ms: when it was signed, as the signer says.
        expires_ms: until when it is to be good.
        now_s: the time here, in seconds since the epoch.
        skew_s: by how much clocks may differ.
        most_s: how old it may be in any case.
    """
    if created_ms / 1000 > now_s + skew_s:
        return Fault.AHEAD
    if min(expires_ms / 1000, created_ms / 1000 + most_s) < now_s - skew_s:
        return Fault.EXPIRED
    return None


def find_strange_key(desired: DesiredState, nodes: Iterable[NodeName], public: bytes) -> str | None:
    """That some of these nodes sign by a key that the config does not give them, in words."""
    strange = [
        node
        for node in sorted(nodes)
        if (keys := desired.traits.get(node, NO_TRAITS).public_keys)
        and public not in map(raw_user_key, keys)
    ]
    if not strange:
        return None
    return (
        f"the key to sign with is not among the `public_keys` of {', '.join(strange[:5])}: nothing of it counts where "
        "signatures are checked"
    )
