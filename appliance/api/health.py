"""What is the matter with the parts that carry messages, in words, and what follows for the probes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from appliance.outbox.records import HealthState, StoreHealth
from appliance.outbox.store import MessageStore
from appliance.telemetry.report import Telemetry

MAX_NAMED = 3
"""Of one kind of trouble; the rest is a number."""

WATCH_INTERVAL_S = 1.0

_STORE_WORDS = {
    HealthState.FULL: "the store takes nothing more",
    HealthState.READ_ONLY: "the store cannot be written",
    HealthState.DAMAGED: "the store is damaged",
    HealthState.BEHIND: "the store is behind",
    HealthState.BROKEN: "the store has failed and needs a restart",
}
_ACCEPTS_NOTHING = frozenset({HealthState.FULL, HealthState.READ_ONLY, HealthState.BROKEN})


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


async def watch_store(store: MessageStore, telemetry: Telemetry) -> None:
    """Tell every change of the store's state, until cancelled. Other words for the same state are no change."""
    told = HealthState.OK
    while True:
        found = store.health()
        # by state and not by words, which change with every number in them
        if found.state is not told:
            trouble = describe_store(found)
            if trouble is not None:
                telemetry.store_troubled(str(found.state), trouble)
            else:
                telemetry.store_recovered(str(told))
            told = found.state
        await asyncio.sleep(WATCH_INTERVAL_S)


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
