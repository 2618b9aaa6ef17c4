"""Settings that keep a promise only together.

*Handled once* needs two: a sender resends a message until its `ack.expires`, and the receiver must know its id for
as long. So the memory of ids (`state.dedupe_window`) follows the longest `ack.expires` of the whole fleet unless
somebody sets it, and a number that is set must not be shorter. A signed message that a stream keeps is good for as long as
the stream keeps it (`stream.max_age`), so its id is remembered for as long, or who has a copy could bring it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from appliance.config.compiler.expand import Base, Publication, Subscription
from appliance.config.compiler.findings import PLACE, Findings, KeyPath
from appliance.config.compiler.layers import Tree, find_origin, find_value
from appliance.core.durations import format_duration, parse_duration
from appliance.core.specs import AckSettings, Delivery, SignaturePolicy, StreamSettings

RETRY_ALLOWANCE_S = 3_600.0
"""Ids outlive the last resend by this: time for an operator to retry what has just become a dead letter."""
_LEAST_EXPIRY_S = AckSettings().expires_s
DEDUPE_WINDOW = ("state", "dedupe_window")
_EXPIRES = ("ack", "expires")
_MAX_AGE = ("stream", "max_age")


class Expiry(NamedTuple):
    """The longest time that a message of the fleet may come again, by which setting, and where that is written (None: the
    default).
    """

    seconds: float
    origin: KeyPath | None
    setting: str = "ack.expires"


def find_longest_expiry(
    bases: Iterable[Base],
    publications: Iterable[Publication],
    subscriptions: Iterable[Subscription] = (),
) -> Expiry:
    """Over all publishers that are declared, all that may be made on demand, and all streams of signed messages."""
    longest = Expiry(0.0, None)
    for base in bases:
        if base.defaults.ack.expires_s > longest.seconds:
            longest = Expiry(base.defaults.ack.expires_s, find_origin(base.layers, _EXPIRES))
    for entry in publications:
        if entry.resolved.settings.ack.expires_s > longest.seconds:
            # NB: what an entry inherits stands in its node's base, which was seen above
            longest = Expiry(
                entry.resolved.settings.ack.expires_s, find_origin(entry.layers, _EXPIRES)
            )
    for item in subscriptions:
        settings = item.resolved.settings
        max_age_s = settings.get("stream", StreamSettings()).max_age_s
        if (
            settings.get("delivery") is Delivery.JETSTREAM
            and settings.get("signatures", SignaturePolicy.OFF) is not SignaturePolicy.OFF
            and max_age_s > longest.seconds
        ):
            longest = Expiry(max_age_s, find_origin(item.layers, _MAX_AGE), "stream.max_age")
    return longest


def check_dedupe_window(findings: Findings, tree: Tree, longest: Expiry) -> None:
    """Refuse a `state.dedupe_window` that was set shorter than a resend may come."""
    written = find_value(tree, DEDUPE_WINDOW)
    if written is None:
        return
    try:
        window_s = parse_duration(written)
    except ValueError:
        return  # told as a bad duration
    if window_s >= longest.seconds:
        return
    window, expires = format_duration(window_s), format_duration(longest.seconds)
    name = f"`{longest.setting}`"
    where = f"{name} at {PLACE}" if longest.origin else f"{name}, which nothing sets,"
    findings.add(
        "E242",
        DEDUPE_WINDOW,
        f"ids are remembered for {window}, but {where} lets messages come again for {expires}: "
        f"what comes in between would be handled twice",
        hint=f"drop `dedupe_window`, which then is {format_duration(derive_dedupe_window_s(longest))}, "
        f"or shorten {name}",
        also=longest.origin,
    )


def derive_dedupe_window_s(longest: Expiry) -> float:
    """How long ids are remembered where nobody says so, in seconds."""
    return max(_LEAST_EXPIRY_S, longest.seconds) + RETRY_ALLOWANCE_S
