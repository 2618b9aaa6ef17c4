"""Facts become log lines, counts and events; storms are held back; nothing from outside can forge a line."""

import io
import json
import logging

import pytest

from appliance.core.delivery import DeliveryState
from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.problems import Problem
from appliance.telemetry import logs
from appliance.telemetry.events import LISTENER_CHARACTERS, EventHub
from appliance.telemetry.messages import LogRateLimit, ReplyFacts
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import DrainReport

KEY = WorkerKey(NodeName("ship1"), Subject("ship1.REQPing.EventACK"), WorkerKind.SUBSCRIBER)


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stream():
    """A log of its own, as text; the process's logging is put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    kept = (root.handlers[:], root.level, ours.level, logging.raiseExceptions)
    written = io.StringIO()
    logs.setup_logging("info", "text", written)
    yield written
    root.handlers[:], root.level, _, logging.raiseExceptions = kept
    ours.setLevel(kept[2])
    root.setLevel(kept[1])


@pytest.fixture
def telemetry(clock, stream):
    return Telemetry(EventHub(wall=clock), wall=clock, mono=clock)


def test_a_line_is_a_fixed_sentence_with_fields(telemetry, stream):
    telemetry.worker_failed(KEY, "no room = none", 1.5)
    line = stream.getvalue()
    assert "WARNING worker failed worker=ship1.REQPing.EventACK_subscriber node=ship1" in line
    assert 'error="no room = none" retry_in_s=1.5\n' in line


def test_a_worker_that_fails_as_before_is_an_event_and_no_line(clock, stream):
    hub = EventHub(wall=clock)
    Telemetry(hub, wall=clock, mono=clock).worker_failed(KEY, "as before", 1.5, is_news=False)
    assert stream.getvalue() == ""
    assert [event["event"] for event in hub.recent()] == ["worker_failed"]


def test_a_set_that_comes_from_no_repository_is_logged_without_a_revision(telemetry, stream):
    telemetry.config_applied(1, "sha256:1", None, {"spawn": 2}, 0.1, "start")
    assert "config applied generation=1 digest=sha256:1 trigger=start duration_s=0.1 spawn=2\n" in (
        stream.getvalue()
    )


def test_text_from_outside_cannot_forge_a_line_or_command_a_terminal(telemetry, stream):
    telemetry.message_refused(KEY, "evil\n2026 ERROR forged", '\x1b[31m\udcff\u202e"')
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    stream.getvalue().encode()


def test_json_lines_hold_the_fields_and_cannot_lose_the_fixed_ones(telemetry, stream):
    logs.setup_logging("info", "json", stream)
    telemetry.config_refused(
        [Problem(code="E021", message="bad\udcff", file="a.yaml", line=3)], "watch"
    )
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["error", "error"]
    assert lines[1]["code"] == "E021"
    assert lines[1]["place"] == "a.yaml:3:0"
    assert lines[1]["message"] == "config problem"


def test_the_level_can_change_while_running(telemetry, stream):
    telemetry.messages_accepted(3)
    assert stream.getvalue() == ""
    logs.set_log_level("debug")
    telemetry.messages_accepted(3)
    assert "DEBUG   messages accepted count=3" in stream.getvalue()
    logs.set_log_level("error")
    telemetry.worker_started(KEY)
    assert "worker started" not in stream.getvalue()


def test_the_journal_gets_priorities_in_place_of_times(stream):
    formatter = logs.TextFormatter(for_journal=True)
    record = logging.LogRecord("appliance", logging.ERROR, "", 0, "dead letter", (), None)
    assert formatter.format(record) == "<3>dead letter"


def test_a_storm_of_one_worker_is_held_back_and_its_size_told(telemetry, stream, clock):
    for _ in range(1_000):
        telemetry.message_refused(KEY, "stranger", "not in accept_from")
    assert stream.getvalue().count("message refused") == 5
    clock.now += 31
    telemetry.message_refused(KEY, "stranger", "not in accept_from")
    assert "similar lines suppressed" in stream.getvalue()
    assert "count=995" in stream.getvalue()
    assert telemetry.counts.lines_suppressed == 995


def test_a_storm_of_one_worker_does_not_silence_another(telemetry, stream):
    other = KEY._replace(node=NodeName("ship2"), subject=Subject("ship2.REQPing.EventACK"))
    for _ in range(10):
        telemetry.handler_failed(KEY, "central", 1, "boom")
    telemetry.handler_failed(other, "central", 2, "boom")
    assert "ship2.REQPing.EventACK_subscriber" in stream.getvalue()


def test_a_fleet_that_starts_does_not_fill_the_log_and_the_ring(telemetry, stream):
    for _ in range(1_000):
        telemetry.worker_started(KEY)
    assert "worker started" not in stream.getvalue()  # a line of its own only for those who debug
    assert len(telemetry._events.recent()) == 200


async def test_the_size_of_a_storm_is_told_when_it_ends_without_another_line(clock):
    told = []
    guard = LogRateLimit(lambda *facts: told.append(facts), mono=clock, burst=1, window_s=0.01)
    assert [guard.allows("refused x") for _ in range(3)] == [True, False, False]
    clock.now += 1
    guard.flush()
    assert told == [("refused x", 2)]


def test_the_number_of_storms_followed_is_bounded(clock):
    guard = LogRateLimit(lambda *_: None, mono=clock)
    assert all(guard.allows(f"kind {number}") for number in range(5_000))
    assert len(guard._windows) <= 1_000


def test_reloads_are_counted_by_verdict_and_a_good_look_clears_a_refusal(telemetry, clock):
    telemetry.config_applied(1, "sha256:a", None, {"spawn": 2}, 0.2, "start")
    telemetry.config_refused([Problem(code="E001", message="bad")], "watch")
    assert not telemetry.counts.last_reload_successful
    clock.now += 10
    telemetry.config_unchanged("watch")
    counts = telemetry.counts
    assert counts.reloads == {"applied": 1, "unchanged": 1, "refused": 1, "reverted": 0}
    assert (counts.last_reload_successful, counts.last_reload_success_at) == (True, clock.now)


def test_no_look_is_good_while_the_files_hold_a_set_that_was_taken_back(telemetry, stream):
    failed = Problem(code="E310", message="it does not run")
    telemetry.config_applied(3, "sha256:a", None, {}, 0.1, "trial", "reverted")
    telemetry.config_reverted([failed])
    telemetry.config_unchanged("watch", is_taken_back=True)
    assert not telemetry.counts.last_reload_successful
    assert "config good again" not in stream.getvalue()
    telemetry.config_applied(3, "sha256:a", None, {}, 0.1, "start", is_taken_back=True)
    assert not telemetry.counts.last_reload_successful
    telemetry.config_unchanged("watch")
    assert telemetry.counts.last_reload_successful
    assert "config good again" in stream.getvalue()


def test_an_unchanged_config_is_told_to_who_asked_and_when_it_clears_a_refusal(clock, stream):
    hub = EventHub(wall=clock)
    telemetry = Telemetry(hub, wall=clock, mono=clock)
    for trigger in ("watch", "poll", "lane", "worker"):
        telemetry.config_unchanged(trigger)
    assert stream.getvalue() == ""
    assert hub.recent() == []
    telemetry.config_unchanged("request")
    telemetry.config_unchanged("signal")
    assert stream.getvalue().count("INFO    config unchanged") == 2
    telemetry.config_refused([Problem(code="E001", message="bad")], "watch")
    telemetry.config_unchanged("watch")
    telemetry.config_unchanged("watch")
    assert stream.getvalue().count("INFO    config good again trigger=watch") == 1
    told = [event["event"] for event in hub.recent()]
    assert told == ["config_unchanged"] * 2 + ["config_refused", "config_unchanged"]


def test_the_lives_of_a_large_fleet_leave_no_line_about_lines(telemetry, stream, clock):
    for _ in range(1_000):
        telemetry.worker_started(KEY)
        telemetry.worker_stopped(KEY, None)
    clock.now += 60
    telemetry.worker_started(KEY)
    telemetry.worker_stopped(KEY, None)
    assert stream.getvalue() == ""


def test_what_a_drain_cut_off_is_an_error_and_counted_once(telemetry, stream):
    report = DrainReport(worker=KEY.name, finished=3, handed_back=2, abandoned=1)
    telemetry.worker_stopped(KEY, report)
    telemetry.drain_finished([report])
    assert telemetry.counts.drain_abandoned == 1
    assert "ERROR   worker stopped" in stream.getvalue()


def test_the_ring_keeps_the_last_rare_facts_and_no_frequent_ones(clock):
    hub = EventHub(wall=clock, ring_size=3)
    telemetry = Telemetry(hub, wall=clock, mono=clock)
    for _ in range(10):
        telemetry.message_delivered("ship1", 1, "central", "REQPing", 0.1)
    for _ in range(4):
        telemetry.worker_started(KEY)
    assert [event["event"] for event in hub.recent()] == ["worker_started"] * 3
    assert hub.recent()[0]["at"] == "1970-01-01T00:16:40.000Z"
    last = hub.recent()[-1]["seq"]
    assert hub.recent(after=last) == []


async def test_a_listener_hears_what_it_wants_from_the_moment_it_listens():
    hub = EventHub()
    hub.emit("before")
    with hub.listen(lambda event: event["event"] != "unwanted") as listener:
        hub.emit("unwanted")
        hub.emit("wanted", n=1)
        hub.emit_frequent("frequent")
        assert [(await listener.next())["event"] for _ in range(2)] == ["wanted", "frequent"]
        assert await listener.next(0.0) is None
    assert not hub.has_listeners


async def test_a_slow_listener_loses_events_and_learns_how_many():
    hub = EventHub()
    with hub.listen(limit=2) as listener:
        for number in range(5):
            hub.emit("fact", n=number)
        assert (listener.dropped, hub.dropped) == (3, 3)
        listener.close()
        assert [event["n"] async for event in listener] == [0, 1]


async def test_a_listener_that_does_not_read_cannot_fill_the_memory():
    hub = EventHub()
    big = "x" * (LISTENER_CHARACTERS // 4)
    with hub.listen() as listener:
        for _ in range(6):
            hub.emit_frequent("reply_received", data=big)
        assert listener.dropped == 1
        for _ in range(3):
            assert (await listener.next())["data"] is big
        hub.emit_frequent("reply_received", data=big)
        assert listener.dropped == 1


def test_what_became_of_a_message_is_told_in_the_words_that_all_share(telemetry):
    with telemetry._events.listen() as listener:
        for state in (DeliveryState.SENT, DeliveryState.TAKEN, DeliveryState.DONE):
            telemetry.message_delivered("central", 1, "ship1", "REQPing", 0.1, state)
        for reason in ("refused: no", "failed: disk full", "expired: nobody there"):
            telemetry.message_dead(KEY, 1, "ship1", "REQPing", reason)
        states = [event["state"] for event in listener._waiting]
    assert states == ["sent", "taken", "done", "refused", "failed", "expired"]


async def test_ending_all_listeners_ends_their_iteration():
    hub = EventHub()
    with hub.listen() as listener:
        hub.close_listeners()
        assert [event async for event in listener] == []


def test_a_node_that_is_away_is_logged_once_and_told_to_listeners_each_time(
    telemetry, stream, clock
):
    with telemetry._events.listen() as listener:
        for tries in range(5):
            is_known = tries > 0
            telemetry.attempt_missed(KEY, 1, "no_responder", 0, next_in_s=5.0, is_known=is_known)
            clock.now += 60
        assert len(listener._waiting) == 5
    assert stream.getvalue().count("message not acknowledged") == 1


def test_every_fact_can_be_told_and_becomes_json(telemetry, stream):
    events = []
    hub = telemetry._events
    with hub.listen() as listener:
        telemetry.daemon_ready("generation 1")
        telemetry.daemon_stopping("SIGTERM")
        telemetry.status_dumped({"pid": 1})
        telemetry.worker_updated(KEY, ["concurrency"])
        telemetry.worker_swapped(KEY, ["ack_on"])
        telemetry.worker_recovered(KEY)
        telemetry.worker_troubled(KEY, "disk full")
        telemetry.broker_connected("nats://x")
        telemetry.broker_disconnected("eof")
        telemetry.broker_error("slow consumer")
        telemetry.broker_error_again("slow consumer")
        telemetry.history_not_written("disk full")
        telemetry.store_troubled("full", "the store has no room")
        telemetry.store_recovered("full")
        telemetry.orphans_given_up("boat.REQCliCommand", 3)
        telemetry.answers_denied(KEY, "Permissions Violation")
        telemetry.foreign_answer(KEY, "")
        telemetry.attempt_missed(KEY, 1, "ack_timeout", attempt=1, next_in_s=0.2)
        telemetry.message_dead(KEY, 1, "ship2", "REQPing", "expired")
        telemetry.message_waits("central", 1, "ship2", "nobody there")
        telemetry.message_working("central", 1, "ship2", "0123456789abcdef")
        telemetry.message_dropped(KEY)
        telemetry.message_interrupted(KEY, "central", 1)
        telemetry.reply_received(
            "central", "ship1", 1, 2, "REQToFile", "bytes \udcff\x1b", ReplyFacts(exit_status="0")
        )
        telemetry.error_report_suppressed(3)
        telemetry.error_report_lost("ship1", "disk full")
        events += list(listener._waiting)
    json.dumps(events).encode()
    assert len({event["event"] for event in events}) == 24
    reply = next(event for event in events if event["event"] == "reply_received")
    assert (reply["data"], reply["from"], reply["exit_status"]) == (
        "bytes \\xff\\x1b",
        "ship1",
        "0",
    )


def test_a_message_costs_next_to_nothing_while_nobody_listens(telemetry):
    import timeit

    seconds = min(
        timeit.repeat(
            lambda: telemetry.message_delivered("ship1", 1, "central", "REQPing", 0.1),
            number=10_000,
            repeat=5,
        )
    )
    assert seconds / 10_000 < 20e-6  # measured: below 1 µs


def test_what_asyncio_remarks_on_every_end_of_a_tls_connection_is_no_line():
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    try:
        logs.setup_logging("info", "text", stream)
        logging.getLogger("asyncio").warning(
            "returning true from eof_received() has no effect when using ssl"
        )
        logging.getLogger("asyncio").warning("something else")
    finally:
        logging.getLogger().handlers[:] = before
    assert [line.split()[-2:] for line in stream.getvalue().splitlines()] == [["something", "else"]]
