"""Following what was submitted, and what happens at all."""

import asyncio
import json
from functools import partial

import aiohttp
import pytest

from appliance.api import following as following_module
from appliance.api.delivery import DeliveryWatch
from appliance.api.following import Following
from appliance.api.model import Submitted
from appliance.api.requests import SubmitRequest
from appliance.core.delivery import DeliveryState, Standing
from appliance.telemetry.messages import ReplyFacts
from tests.component.api.conftest import TOKEN
from tests.support.fake_control import FakeControl
from tests.support.virtual_time import run_virtual
from tests.support.waiting import until_async

MESSAGE = {"to_nodes": ["ship1", "ship2"], "method": "REQCliCommand"}
NDJSON = {"Accept": "application/x-ndjson"}


async def follow(unix, wait="5s", message=MESSAGE):
    answer = await unix.post(f"/api/v1/messages?wait={wait}", json=message, headers=NDJSON)
    assert answer.status == 202, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def summary(lines):
    return [(line["event"], line.get("to")) for line in lines]


async def test_submitting_answers_with_an_id_per_node(unix):
    answer = await unix.post("/api/v1/messages", json=[MESSAGE, MESSAGE])
    assert answer.status == 202
    messages = (answer.json())["messages"]
    assert [message["to"] for message in messages] == ["ship1", "ship2"] * 2
    assert len({message["id"] for message in messages}) == 4


async def test_what_nobody_accepts_is_an_error(unix):
    answer = await unix.post(
        "/api/v1/messages", json={"to_nodes": ["nowhere"], "method": "REQPing"}
    )
    body = answer.json()
    assert (answer.status, body["error"], body["messages"][0]["accepted"]) == (
        422,
        "no such node",
        False,
    )


async def test_the_stream_ends_when_every_node_is_settled(unix, control):
    def after(submitted):
        control.deliver(submitted[0])
        control.miss(submitted[1])
        control.die(submitted[1], "expired after 1 s")

    control.after_submit = after
    lines = await follow(unix)
    assert summary(lines) == [
        ("accepted", "ship1"), ("accepted", "ship2"), ("delivered", "ship1"),
        ("missed", "ship2"), ("dead", "ship2"), ("end", None),
    ]  # fmt: skip
    assert lines[-1] == {
        "event": "end",
        "delivered": 1,
        "failed": 1,
        "waiting": [],
        "unanswered": [],
    }


async def test_a_refusal_by_the_receiver_is_told_as_such(unix, control):
    control.after_submit = lambda sent: control.die(
        sent[0], "refused by the receiver: not in accept_from"
    )
    lines = await follow(unix, message={**MESSAGE, "to_nodes": ["ship1"]})
    assert lines[1] == {
        "event": "refused",
        "id": 101,
        "id_text": "101",
        "to": "ship1",
        "reason": "not in accept_from",
        "state": "refused",
        "why": "not in accept_from",
    }


async def test_every_line_says_where_its_message_stands_and_why(unix, control):
    def after(submitted):
        one, two, three, four = submitted
        control.miss(one)
        control.miss(one, "ack_timeout")
        control.deliver(one)
        control.telemetry.message_working("central", two.id, two.to, "0123456789abcdef")
        control.telemetry.message_working("central", two.id, two.to, "0123456789abcdef")
        control.deliver(two, state=DeliveryState.DONE)
        control.telemetry.message_waits("central", three.id, three.to, "silent since 14:02:11")
        control.die(three, "expired: silent since 14:02:11")
        control.die(four, "failed: disk full")

    control.after_submit = after
    nodes = ["one", "two", "three", "four"]
    lines = await follow(unix, message={**MESSAGE, "to_nodes": nodes})
    told = [(line["to"], line["event"], line["state"], line["why"]) for line in lines[4:-1]]
    assert told == [
        ("one", "missed", "waiting", "nobody there"),
        ("one", "missed", "waiting", "no acknowledgement"),
        ("one", "delivered", "taken", ""),
        ("two", "working", "working", ""),
        ("two", "delivered", "done", ""),
        ("three", "waits", "waiting", "silent since 14:02:11"),
        ("three", "dead", "expired", "silent since 14:02:11"),
        ("four", "dead", "failed", "disk full"),
    ]
    assert [line["state"] for line in lines[:4]] == ["accepted"] * 4
    assert (lines[-1]["delivered"], lines[-1]["failed"]) == (2, 2)


async def test_whoever_waits_in_vain_is_told_why_at_the_latest_at_the_end(unix, control):
    control.stands = {
        "ship1": Standing(DeliveryState.WAITING, "denied: Permissions Violation for Publish"),
        "ship2": Standing(DeliveryState.SENT),
    }
    lines = await follow(unix, "50ms")
    told = [(line["to"], line["event"], line["state"], line["why"]) for line in lines[2:-1]]
    assert sorted(told) == [
        ("ship1", "waits", "waiting", "denied: Permissions Violation for Publish"),
        ("ship2", "sent", "sent", ""),
    ]


async def test_a_wait_that_was_told_of_is_not_told_again(unix, control):
    control.stands = {"ship1": Standing(DeliveryState.WAITING, "nobody there")}
    control.after_submit = lambda submitted: control.miss(submitted[0])
    lines = await follow(unix, "50ms", message={**MESSAGE, "to_nodes": ["ship1"]})
    assert [line["event"] for line in lines] == ["accepted", "missed", "end"]


class Reader(dict):
    """Whoever follows, without a socket: stays, and keeps the lines."""

    transport = type("Open", (), {"is_closing": lambda self: False})()

    def __init__(self):
        self.lines = []

    async def write(self, data):
        self.lines += [json.loads(line) for line in data.splitlines()]

    async def write_eof(self):
        pass


@pytest.mark.parametrize(
    ("fact", "lasts_s"),
    [("message_working", 60.0), ("message_waits", 10.0), ("attempt_missed", 10.0)],
)
def test_only_what_the_other_side_says_is_a_sign_of_life(fact, lasts_s):
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1)
        reader, watch = Reader(), DeliveryWatch([item])
        loop = asyncio.get_running_loop()

        async def tell():
            for number in range(15):
                await asyncio.sleep(4.0)
                control.events.emit_frequent(fact, id=1, to="ship1", why=f"{number}")

        telling = asyncio.create_task(tell())
        with control.events.listen() as listener:
            began = loop.time()
            following = Following(control)
            await following._tell_fates(reader, reader, watch, listener, began + 60.0, 10.0)
        telling.cancel()
        await asyncio.wait({telling})
        return loop.time() - began

    assert run_virtual(scenario()) == pytest.approx(lasts_s, abs=0.1)


def test_what_happened_before_a_wait_was_over_is_told_by_a_daemon_that_comes_to_it_later():
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1, replies=True)
        reader, watch = Reader(), DeliveryWatch([item])
        with control.events.listen() as listener:
            control.events.emit_frequent("message_delivered", id=1, to="ship1", seconds=0.1)
            over_mono = asyncio.get_running_loop().time()
            await Following(control)._tell_fates(reader, reader, watch, listener, over_mono, None)
        return reader.lines

    lines = run_virtual(scenario())
    assert summary(lines) == [("accepted", "ship1"), ("delivered", "ship1"), ("end", None)]
    assert lines[-1]["waiting"] == []


def test_who_speaks_without_end_does_not_hold_up_the_end_of_a_wait():
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1, replies=True, streams=True)
        reader, watch = Reader(), DeliveryWatch([item])

        def speak():
            said = {"previous_id": 1, "from": "ship1", "data": "x", "has_more": True}
            control.events.emit_frequent("reply_received", **said)

        write = reader.write

        async def write_while_more_comes(data):
            await write(data)
            assert len(reader.lines) < 20
            speak()

        reader.write = write_while_more_comes
        with control.events.listen() as listener:
            speak()
            over_mono = asyncio.get_running_loop().time()
            await Following(control)._tell_fates(reader, reader, watch, listener, over_mono, None)
        return reader.lines

    assert run_virtual(scenario())[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("is_taken", "lasts_s"),
    # by default nobody waits longer for a node that has not taken it, whatever its handler may take
    [(True, 90.0), (False, 30.0)],
)
def test_what_was_taken_is_waited_for_as_long_as_its_handler_may_take(is_taken, lasts_s):
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1, replies=True)
        reader, watch = Reader(), DeliveryWatch([item])
        loop = asyncio.get_running_loop()
        with control.events.listen() as listener:
            began = loop.time()
            if is_taken:
                control.events.emit_frequent("message_delivered", id=1, to="ship1", seconds=0.1)
            following = Following(control)
            telling = following._tell_fates(
                reader, reader, watch, listener, began + 30.0, None, work_mono=began + 90.0
            )
            await telling
        return loop.time() - began

    assert run_virtual(scenario()) == pytest.approx(lasts_s, abs=0.2)


def test_what_has_been_answered_is_not_taken_for_what_nobody_has_heard():
    watch = DeliveryWatch(
        Submitted(to="ship1", accepted=True, id=id_, replies=True, streams=True) for id_ in (1, 2)
    )
    said = {"event": "reply_received", "previous_id": 1, "from": "ship1", "data": "x"}
    watch.take({**said, "has_more": True})
    assert watch.unheard() == [2]


@pytest.mark.parametrize(
    ("state", "streams", "is_appliance", "lasts_s"),
    [
        ("taken", True, False, 8.0),
        ("taken", True, True, 30.0),
        ("taken", False, False, 30.0),
        ("stored", True, False, 30.0),
    ],
)
def test_what_a_go_node_runs_without_a_word_is_over_when_its_time_is(
    state, streams, is_appliance, lasts_s
):
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1, replies=True, streams=streams)
        reader, watch = Reader(), DeliveryWatch([item], lambda _node: is_appliance)
        loop = asyncio.get_running_loop()
        with control.events.listen() as listener:
            began = loop.time()
            control.events.emit_frequent(
                "message_delivered", id=1, to="ship1", seconds=0.1, state=state
            )
            await Following(control)._tell_fates(
                reader, reader, watch, listener, began + 30.0, None, seed_s=8.0
            )
        by_go_node = state == "taken" and not is_appliance
        assert reader.lines[-1].get("go_nodes") == (["ship1"] if by_go_node else None)
        return loop.time() - began

    assert run_virtual(scenario()) == pytest.approx(lasts_s, abs=0.2)


def test_a_file_that_is_followed_on_is_followed_no_longer_than_it_was_to_be():
    async def scenario():
        control = FakeControl()
        control.goes_on_with = lambda method: "-a"
        item = Submitted(to="ship1", accepted=True, id=1, replies=True, streams=True)
        asked = SubmitRequest(to_nodes=["ship1"], method="REQTailFile", method_args=["/x"], method_timeout=20.0)  # fmt: skip
        reader, watch = Reader(), DeliveryWatch([item])
        loop = asyncio.get_running_loop()
        said = {"previous_id": 1, "from": "ship1", "data": ""}
        with control.events.listen() as listener:
            control.events.emit_frequent("reply_received", **said, place="7", has_more=True)

            async def stop_its_node():
                await asyncio.sleep(5.0)
                control.events.emit_frequent("reply_received", **said, exit_status="interrupted: x")

            stopping = asyncio.create_task(stop_its_node())
            await Following(control)._tell_fates(
                reader, reader, watch, listener, loop.time() + 50.0, None, asked={1: asked}
            )
            await stopping
        return control.calls

    (call,) = run_virtual(scenario())
    assert call[1].method_timeout == 15


async def test_where_the_method_answers_the_stream_waits_for_the_replies(unix, control):
    control.replies = True

    def after(submitted):
        for item in submitted:
            control.deliver(item)
        asyncio.get_running_loop().call_later(0.01, control.answer, submitted[0], "up 3 days\n")
        asyncio.get_running_loop().call_later(
            0.02, control.answer, submitted[1], "", "failed: no such"
        )

    control.after_submit = after
    lines = await follow(unix)
    replies = [line for line in lines if line["event"] == "reply"]
    assert [(line["from"], line["data"], line["exit_status"]) for line in replies] == [
        ("ship1", "up 3 days\n", "0"), ("ship2", "", "failed: no such"),
    ]  # fmt: skip
    assert lines[-1]["unanswered"] == []


async def test_a_reply_that_overtakes_the_acknowledgement_counts(unix, control):
    control.replies = True

    def after(submitted):
        control.answer(submitted[0], "first")
        control.deliver(submitted[0])

    control.after_submit = after
    lines = await follow(unix, message={**MESSAGE, "to_nodes": ["ship1"]})
    assert summary(lines) == [
        ("accepted", "ship1"),
        ("reply", "ship1"),
        ("delivered", "ship1"),
        ("end", None),
    ]


async def test_a_reply_in_the_name_of_another_node_is_not_taken_for_the_answer(unix, control):
    control.replies = True

    def after(submitted):
        control.deliver(submitted[0])
        control.telemetry.reply_received(
            "central",
            "ship9",
            submitted[0].id,
            1,
            "REQToFile",
            "forged",
            ReplyFacts(exit_status="0"),
        )

    control.after_submit = after
    lines = await follow(unix, "50ms", message={**MESSAGE, "to_nodes": ["ship1"]})
    assert summary(lines) == [("accepted", "ship1"), ("delivered", "ship1"), ("end", None)]
    assert lines[-1]["unanswered"] == ["ship1"]


async def test_the_wait_is_a_bound_and_tells_who_was_silent(unix, control):
    control.after_submit = lambda submitted: control.deliver(submitted[0])
    lines = await follow(unix, "50ms")
    assert lines[-1]["waiting"] == ["ship2"]


async def test_facts_about_other_messages_are_not_told(unix, control):
    control.after_submit = lambda submitted: [
        control.telemetry.message_delivered("central", 5, "ship9", "REQPing", 0.1),
        *[control.deliver(item) for item in submitted],
    ]
    assert "ship9" not in str(await follow(unix))


async def test_without_asking_for_lines_a_wait_is_an_ordinary_submit(unix):
    answer = await unix.post("/api/v1/messages?wait=10s", json=MESSAGE)
    assert len((answer.json())["messages"]) == 2


@pytest.mark.parametrize("wait", ["soon", "-1s", "48h", "1e99", "nan"])
async def test_an_unusable_wait_is_refused_before_anything_is_sent(unix, control, wait):
    answer = await unix.post(f"/api/v1/messages?wait={wait}", json=MESSAGE, headers=NDJSON)
    assert answer.status == 400
    assert control.calls == []


async def test_one_who_goes_away_leaves_nothing_behind(unix, control):
    async with unix.session.post(
        "/api/v1/messages?wait=60s", json=MESSAGE, headers=NDJSON
    ) as answer:
        await answer.content.readline()
        answer.close()
    await until_async(lambda: not control.events.has_listeners)


async def read_event(answer):
    lines = []
    async with asyncio.timeout(60):
        while (line := (await answer.content.readline()).decode().rstrip("\n")) or not lines:
            if line and not line.startswith(":"):
                lines.append(line)
    return dict(line.split(": ", 1) for line in lines)


async def test_events_are_told_as_they_happen(unix, control):
    async with unix.session.get("/api/v1/events?kinds=broker_error") as answer:
        assert answer.content_type == "text/event-stream"
        control.telemetry.broker_connected("nats://x")
        control.telemetry.broker_error("trouble")
        event = await read_event(answer)
        assert event["event"] == "broker_error"
        assert json.loads(event["data"])["error"] == "trouble"
        assert json.loads(event["data"])["seq"] == int(event["id"])


async def test_a_reader_that_comes_back_misses_nothing(unix, control):
    for number in range(3):
        control.events.emit("fact", n=number)
    async with unix.session.get("/api/v1/events", headers={"Last-Event-ID": "2"}) as answer:
        assert json.loads((await read_event(answer))["data"])["n"] == 2
    async with unix.session.get("/api/v1/events?recent=1") as answer:
        assert json.loads((await read_event(answer))["data"])["n"] == 2


async def test_a_number_too_long_to_be_an_events_reaches_back_nowhere(unix):
    async with unix.session.get("/api/v1/events", headers={"Last-Event-ID": "9" * 5_000}) as answer:
        assert answer.status == 200


async def test_contents_of_messages_are_not_told_over_tcp(tcp, control):
    async with tcp.session.get("/api/v1/events?kinds=reply_received") as answer:
        facts = ReplyFacts(exit_status="0", stderr=b"secret")
        control.telemetry.reply_received(
            "central", "ship1", 1, 2, "REQToFile", "\x1b secret", facts
        )
        data = json.loads((await read_event(answer))["data"])
        assert data["from"] == "ship1"
        assert "secret" not in str(data)
        assert not {"data", "data_base64", "stderr"} & data.keys()


async def test_closing_the_server_ends_the_streams(server, unix, control):
    async with unix.session.get("/api/v1/events") as answer:
        await answer.content.readline()
        async with asyncio.timeout(1.5):
            await server.close()
            await answer.content.read()


async def is_open(unix):
    async with unix.session.get("/api/v1/events") as answer:
        return answer.status == 200


async def test_the_number_of_streams_is_bounded(unix, monkeypatch):
    monkeypatch.setattr(following_module, "MAX_STREAMS", 1)
    async with unix.session.get("/api/v1/events") as first:
        assert first.status == 200
        assert (await unix.get("/api/v1/events")).status == 503
    async with asyncio.timeout(60):
        while not await is_open(unix):
            pass


@pytest.mark.parametrize("for_caller", [True, False])
async def test_when_a_caller_leaves_it_is_told_whose_answers_nobody_waits_for(
    unix, control, for_caller
):
    control.replies = True
    body = {"to_nodes": ["ship1", "ship2"], "method": "REQTailFile", "for_caller": for_caller}
    async with unix.session.post(
        "/api/v1/messages?wait=60s", json=body, headers={"Accept": "application/x-ndjson"}
    ) as answer:
        await answer.content.readline()
        await answer.content.readline()
        item = Submitted(to="ship1", accepted=True, id=101)
        control.deliver(item)
        control.answer(item, "all", exit_status="0")
        await answer.content.readline()
        await answer.content.readline()
        answer.close()
    await until_async(lambda: not control.events.has_listeners)
    assert [call for call in control.calls if call[0] == "left"] == (
        [("left", [102])] if for_caller else []
    )


async def test_strangers_take_no_stream_from_who_brings_the_token_nor_from_the_unix_socket(
    unix, tcp, monkeypatch
):
    monkeypatch.setattr(following_module, "MAX_STREAMS", 1)
    async with tcp.session.get("/api/v1/events") as first:
        assert first.status == 200
        assert (await tcp.get("/api/v1/events")).status == 503
        authorized = {"Authorization": f"Bearer {TOKEN}"}
        async with tcp.session.get("/api/v1/events", headers=authorized) as second:
            assert second.status == 200
        assert await is_open(unix)


async def test_one_client_takes_at_most_half_of_the_streams(tcp, monkeypatch):
    monkeypatch.setattr(following_module, "MAX_STREAMS", 4)
    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with (
        tcp.session.get("/api/v1/events"),
        tcp.session.get("/api/v1/events"),
        aiohttp.ClientSession(tcp.session._base_url, connector=elsewhere) as other,
    ):
        assert (await tcp.get("/api/v1/events")).status == 503
        async with other.get("/api/v1/events") as answer:
            assert answer.status == 200


async def test_requests_that_wait_for_their_messages_are_bounded(unix, control, monkeypatch):
    monkeypatch.setattr(following_module, "MAX_FOLLOWED", 1)
    body = {"to_nodes": ["ship1"], "method": "REQHello"}
    ask = partial(
        unix.session.post,
        "/api/v1/messages?wait=60s",
        json=body,
        headers={"Accept": "application/x-ndjson"},
    )
    async with ask() as first:
        await first.content.readline()
        async with ask() as second:
            assert second.status == 503
    assert sum(call[0] == "submit" for call in control.calls) == 1


async def test_whoever_does_not_wait_for_the_absent_hears_the_end_when_nobody_is_there_for_the_rest(
    unix, control
):
    def after(submitted):
        control.miss(submitted[0])
        control.deliver(submitted[1])

    control.after_submit = after
    control.stands = {"ship1": Standing(DeliveryState.WAITING, "nobody there")}
    lines = await follow(unix, "60s&absent=10ms")
    assert lines[-1]["event"] == "end"
    assert lines[-1]["waiting"] == ["ship1"]


@pytest.mark.parametrize(
    ("said", "lasts_s"),
    [
        (["nobody there"] * 9, 3.0),
        # somebody is there: waited for, and the patience begins anew when nobody is again
        (["nobody there", "silent", "nobody there", "nobody there"], 7.0),
        # a try that is under way, where nobody was there before, says nothing yet
        (["nobody there", "", "", ""], 3.0),
        (["silent"] * 9, 60.0),
        (["broker away"] * 9, 60.0),
    ],
)
def test_only_where_nobody_is_there_for_a_while_the_wait_ends_early(said, lasts_s):
    async def scenario():
        control = FakeControl()
        item = Submitted(to="ship1", accepted=True, id=1)
        control.stands = {"ship1": Standing(DeliveryState.WAITING, said[0])}
        reader, watch = Reader(), DeliveryWatch([item])
        loop = asyncio.get_running_loop()

        async def tell():
            for why in said:
                state = DeliveryState.WAITING if why else DeliveryState.SENT
                control.stands = {"ship1": Standing(state, why)}
                if why:
                    control.events.emit_frequent("message_waits", id=1, to="ship1", why=why)
                await asyncio.sleep(2.0)

        telling = asyncio.create_task(tell())
        with control.events.listen() as listener:
            began = loop.time()
            following = Following(control)
            await following._tell_fates(reader, reader, watch, listener, began + 60.0, None, 3.0)
        telling.cancel()
        await asyncio.wait({telling})
        return loop.time() - began

    assert run_virtual(scenario()) == pytest.approx(lasts_s, abs=0.2)


def test_of_very_many_messages_each_is_asked_after_in_turn():
    watch = DeliveryWatch(Submitted(to=f"s{id_}", accepted=True, id=id_) for id_ in range(1, 601))
    asked = [item.id for _ in range(3) for item in watch.unsettled()]
    assert set(asked) == set(range(1, 601))
    for item in [item for _ in range(3) for item in watch.unsettled()]:
        watch.note(item, Standing(DeliveryState.WAITING, "nobody there"))
    assert watch.is_rest_absent
