"""What is said of troubles with the delivery of messages, and what probes and the watchdog make of them."""

import asyncio
from types import SimpleNamespace

import pytest

from appliance.api.health import (
    WATCH_INTERVAL_S,
    can_accept,
    describe_store,
    find_delivery_troubles,
    needs_restart,
    watch_store,
)
from appliance.api.outbox import describe_dead, describe_record
from appliance.api.status import describe_state
from appliance.core.delivery import DeliveryState, Standing
from appliance.outbox.records import DeadLetter, HealthState, OutboxRecord, StoreHealth
from appliance.telemetry.metrics import STORE_STATES
from tests.support.virtual_time import run_virtual

WELL = StoreHealth(HealthState.OK)


def store(state, text=""):
    return StoreHealth(HealthState(state), text)


def find(**facts):
    nothing = {"store": WELL, "orphaned": 0, "silent_lanes": [], "worker_troubles": []}
    return find_delivery_troubles(**nothing | facts)


@pytest.mark.parametrize(
    ("state", "accepts", "restarts"),
    [
        ("ok", True, False),
        ("behind", True, False),
        ("damaged", True, False),
        ("full", False, False),
        ("read_only", False, False),
        ("broken", False, True),
    ],
)
def test_unready_is_what_accepts_nothing_and_a_restart_is_asked_for_only_where_it_helps(
    state, accepts, restarts
):
    assert (can_accept(store(state)), needs_restart(store(state))) == (accepts, restarts)


@pytest.mark.parametrize("state", STORE_STATES[1:])
def test_every_trouble_of_the_store_is_a_reason_not_to_be_healthy(state):
    (said,) = find(store=store(state, "No space left on device"))
    assert said == describe_store(store(state, "No space left on device"))
    assert said.startswith("the store ")
    assert said.endswith(": No space left on device")
    assert find(store=store(state)) == [said.removesuffix(": No space left on device")]


def test_a_store_that_is_well_is_none_even_with_a_word_of_warning():
    assert find(store=store("ok", "the ballast could not be made")) == []


def test_silence_denied_acknowledgements_and_orphans_are_reasons_too():
    assert find(
        silent_lanes=[("ship1.REQPing.EventACK", "silent since 14:02:11")],
        worker_troubles=[("boat.REQPing.EventACK_subscriber", "the broker denies its acknowledgements")],
        orphaned=2,
    ) == [
        "worker boat.REQPing.EventACK_subscriber: the broker denies its acknowledgements",
        "messages on ship1.REQPing.EventACK: silent since 14:02:11",
        "2 messages taken in have no worker (appliance inbox list)",
    ]  # fmt: skip
    assert find(orphaned=1) == ["1 message taken in has no worker (appliance inbox list)"]


def test_of_many_troubles_of_one_kind_a_few_are_named():
    said = find(silent_lanes=[(f"n{number}", "silent") for number in range(300)])
    assert said == [
        "messages on n0: silent",
        "messages on n1: silent",
        "messages on n2: silent (and 297 more like it)",
    ]


def test_the_service_manager_hears_of_the_store():
    line = describe_state(
        generation=3, revision=None, running=1, workers=1, connected=True, result="applied", at=0.0,
        problems=(), store_trouble=describe_store(store("full", "No space left on device")),
    )  # fmt: skip
    assert (
        "1 of 1 workers running, the store takes nothing more: No space left on device; config"
        in line
    )


def test_every_change_of_the_stores_state_is_told_once():
    told = []

    class Telemetry:
        def store_troubled(self, state, trouble):
            told.append((state, trouble))

        def store_recovered(self, state):
            told.append(("well again", state))

    looks = [
        store("ok"), store("full", "1 byte left"), store("full", "0 bytes left"), store("behind"),
        store("ok", "a word of warning"), store("ok"), store("broken", "I/O error"),
    ]  # fmt: skip

    async def scenario():
        watching = asyncio.create_task(
            watch_store(SimpleNamespace(health=lambda: looks.pop(0)), Telemetry())
        )
        await asyncio.sleep(WATCH_INTERVAL_S * (len(looks) - 0.5))
        watching.cancel()
        await asyncio.wait({watching})

    run_virtual(scenario())
    assert told == [
        ("full", "the store takes nothing more: 1 byte left"),
        ("behind", "the store is behind"),
        ("well again", "behind"),
        ("broken", "the store has failed and needs a restart: I/O error"),
    ]


def test_the_metrics_know_every_state_of_the_store():
    assert tuple(map(str, HealthState)) == STORE_STATES


def make_record(**changes):
    return OutboxRecord(
        **{
            "id": 2**60, "node": "hub", "subject": "ship1.REQPing.EventACK", "to_node": "ship1",
            "method": "REQPing", "payload": b"xyz", "encoding": "cbor", "wants_ack": True,
            "created_at": 940.0, "expires_at": 2_000.0, **changes,
        }
    )  # fmt: skip


def test_ages_are_of_the_stores_clock_and_times_are_shown_by_the_wall():
    shown = describe_record(
        make_record(),
        Standing(DeliveryState.WAITING, "nobody there"),
        now=1_000.0,
        wall_of=lambda steady: steady + 3_600.0,
    )
    assert (shown.state, shown.why, shown.age_seconds) == ("waiting", "nobody there", 60.0)
    assert shown.accepted_at == "1970-01-01T01:15:40.000+00:00"
    assert shown.expires_at == "1970-01-01T01:33:20.000+00:00"
    assert shown.next_at is None


@pytest.mark.parametrize(
    ("reason", "state", "why"),
    [
        ("failed: disk full", "failed", "disk full"),
        ("refused by the receiver: no", "refused", "no"),
        ("expired: silent since 14:02:11", "expired", "silent since 14:02:11"),
    ],
)
def test_a_dead_letter_tells_how_it_ended_and_why(reason, state, why):
    letter = DeadLetter(make_record(), reason, died_at=970.0)
    shown = describe_dead(letter, now=1_000.0, wall_of=float)
    assert (shown.state, shown.why, shown.reason) == (state, why, reason)
    assert (shown.age_seconds, shown.dead_seconds) == (60.0, 30.0)
