"""What is the matter with the parts that carry messages, in words, and what follows for the probes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from appliance.outbox.records import HealthState, StoreHealth

MAX_NAMED = 3
"""Of one kind of trouble; the rest is a number."""

_STORE_WORDS = {
    HealthState.FULL: "the store has no room",
    HealthState.READ_ONLY: "the store cannot be written",
    HealthState.DAMAGED: "the store is damaged",
    HealthState.BEHIND: "the store is behind",
    HealthState.BROKEN: "the store has failed and needs a restart",
}
_ACCEPTS_NOTHING = frozenset({HealthState.FULL, HealthState.READ_ONLY, HealthState.BROKEN})


@runtime_checkable
class TellsTrouble(Protocol):
    """A worker that knows what keeps it from doing all of its work while it runs; None where nothing does."""

    @property
    def trouble(self) -> str | None: ...


def describe_store(health: StoreHealth) -> str | None:
    """What is the matter with the store; None where nothing is."""
    words = _STORE_WORDS.get(health.state)
    if words is None:
        return None
    return f"{words}: {health.text}" if health.text else words


def can_accept(health: StoreHealth) -> bool:
    """Whether the store takes new messages."""
    return health.state not in _ACCEPTS_NOTHING


def needs_restart(health: StoreHealth) -> bool:
    """Whether only a restart helps: whatever else is the matter ends by itself or by an operator's hand."""
    return health.state is HealthState.BROKEN


def find_delivery_troubles(
    *,
    store: StoreHealth,
    orphaned: int,
    silent_lanes: Sequence[tuple[str, str]],
    worker_troubles: Sequence[tuple[str, str]],
) -> list[str]:
    """Why messages do not get on, in words; empty when they do.

    `silent_lanes` are subjects on which nothing is answered, `worker_troubles` names of running workers, each with
    words.
    """
    reasons = []
    trouble = describe_store(store)
    if trouble is not None:
        reasons.append(trouble)
    reasons += _name_some("worker", worker_troubles)
    reasons += _name_some("messages on", silent_lanes)
    if orphaned:
        they = "1 message" if orphaned == 1 else f"{orphaned} messages"
        has = "has" if orphaned == 1 else "have"
        reasons.append(f"{they} taken in {has} no worker (appliance inbox list)")
    return reasons


def _name_some(what: str, found: Sequence[tuple[str, str]]) -> list[str]:
    more = len(found) - MAX_NAMED
    named = [f"{what} {name}: {why}" for name, why in found[:MAX_NAMED]]
    if more > 0:
        named[-1] += f" (and {more} more like it)"
    return named
