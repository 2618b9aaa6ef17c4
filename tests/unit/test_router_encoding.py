"""What the router writes is what the record says it is, also where the message decides the encoding."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from typing import Any

import pytest

from appliance.core.message import Message
from appliance.core.names import NodeName
from appliance.core.specs import (
    AckSettings,
    Delivery,
    DesiredState,
    PublisherDefaults,
    PublisherSettings,
    PublisherSpec,
    StreamSettings,
)
from appliance.errors import RequestInvalid
from appliance.methods.registry import METHOD_TABLE
from appliance.wire.frame import decode_frame, frame_headers, split_encoding
from appliance.workers.router import MAX_SENT_NUMBERS, Router

BINARY = "\udcff\x00"


def make_router(serialization: str, compression: str) -> Router:
    router = Router(METHOD_TABLE, instance="0" * 16, next_id=lambda: 7, wall=lambda: 1.0)
    spec = router.publisher_for("central", "ship1", "REQToConsole")
    assert type(spec) is PublisherSpec
    router._specs["central", "ship1", "REQToConsole"] = dataclasses.replace(
        spec, serialization=serialization, compression=compression
    )
    return router


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(
    ("serialization", "data", "used"),
    [("cbor", "text", "cbor"), ("cbor", BINARY, "gob"), ("gob", "text", "gob"), ("gob", BINARY, "gob")],
)  # fmt: skip
def test_record_names_the_encoding_that_it_is_in(
    serialization: str, compression: str, data: str, used: str
):
    router = make_router(serialization, compression)
    message = Message("ship1", data=(data,), method="REQToConsole", from_node="central")
    record = router.make_record(message)
    assert split_encoding(record.encoding) == (used, compression)
    assert decode_frame(record.payload, frame_headers(used, compression)).data == (data,)


@pytest.mark.parametrize(
    ("on_wire", "asked", "kept"), [(0, None, None), (0, 0, 0), (2, 2, 2), (2, None, 2)]
)
def test_record_tells_no_retry_from_nothing_asked_for(
    on_wire: int, asked: int | None, kept: int | None
):
    router = make_router("cbor", "none")
    message = Message(
        "ship1", data=("x",), method="REQToConsole", from_node="central", retries=on_wire
    )
    assert router.make_record(message, retries=asked).retries == kept


def test_newest_numbers_are_known_and_older_ones_forgotten_at_no_growing_cost():
    ids = itertools.count(1)
    router = Router(METHOD_TABLE, instance="0" * 16, next_id=lambda: next(ids), wall=lambda: 1.0)
    message = Message("ship1", data=("x",), method="REQToConsole", from_node="central")

    def make_many(count: int) -> float:
        """Processor seconds of a thousand, as most of them cost."""
        costs = []
        for _ in range(count // 1_000):
            begun = time.thread_time()
            for _ in range(1_000):
                router.make_record(message)
            costs.append(time.thread_time() - begun)
        return statistics.median(costs)

    before = make_many(MAX_SENT_NUMBERS)
    assert make_many(2 * MAX_SENT_NUMBERS) < 1.4 * before
    assert len(router._sent_numbers) == MAX_SENT_NUMBERS
    assert min(router._sent_numbers) == 2 * MAX_SENT_NUMBERS + 1


def test_settings_of_a_reload_hold_for_messages_like_those_before():
    router = make_router("cbor", "none")
    message = Message("ship1", data=("x",), method="REQToConsole", from_node="central")
    assert router.make_record(message).encoding == "cbor"
    defaults = PublisherDefaults(
        serialization="gob", compression="none", ack=AckSettings(timeout_s=77.0)
    )
    router.route_by(
        DesiredState(
            run_nodes=(NodeName("central"),),
            declared_nodes=frozenset({NodeName("central")}),
            workers={},
            publisher_defaults={NodeName("central"): defaults},
        )
    )
    record = router.make_record(message)
    assert record.encoding == "gob"
    assert decode_frame(record.payload, frame_headers("gob", "none")).ack_timeout_s == 77


@pytest.mark.parametrize("wants_ack", [True, False])
def test_publisher_made_on_demand_has_every_setting_of_its_node(wants_ack: bool):
    """Whatever settings there are: one that is new is handed on without a word of the router's."""
    said: dict[str, Any] = {item.name: object() for item in dataclasses.fields(PublisherSettings)}
    central = NodeName("central")
    defaults = PublisherDefaults(**said, ack_mode="required" if wants_ack else "none")
    router = Router(METHOD_TABLE, instance="0" * 16, next_id=lambda: 7, wall=lambda: 1.0)
    router.route_by(
        DesiredState(
            run_nodes=(central,),
            declared_nodes=frozenset({central}),
            workers={},
            publisher_defaults={central: defaults},
        )
    )
    spec = router.publisher_for("central", "ship1", "REQToConsole")
    # what nothing acknowledges is kept by no stream
    carried = {} if wants_ack else {"delivery": Delivery.CORE, "stream": StreamSettings()}
    assert {name: getattr(spec, name) for name in said} == said | carried


@pytest.mark.parametrize("wrong", [["x"], 7, b"x"])
def test_field_of_a_wrong_type_is_refused_in_messages_of_any_number(wrong: object):
    router = make_router("cbor", "none")
    good = Message("ship1", data=("x",), method="REQToConsole", from_node="central")
    for message in (good._replace(method_args=wrong), good._replace(data=wrong)):
        router.make_record(good)
        with pytest.raises(RequestInvalid):
            router.make_record(message)
