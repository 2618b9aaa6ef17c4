"""Why messages wait, told by publishers that know it and for lanes whose publisher does not run."""

from types import SimpleNamespace

import pytest

from appliance.api.standings import Standings
from appliance.core.delivery import DeliveryState, Standing, WaitReason
from appliance.core.specs import Phase
from appliance.reconcile.pool import Handle
from appliance.telemetry.metrics import OTHER_REASON
from appliance.workers.router import publisher_key

SUBJECT = "ship1.REQPing.EventACK"
DENIED = 'Permissions Violation for Publish to "ship1.REQPing.EventACK"'


class FakePublisher:
    """Knows what the test tells it."""

    def __init__(self, reason="", **known):
        self.reason = reason
        self.known = known

    def standing(self, record_id):
        return self.known.get(f"record{record_id}")

    def lane_reason(self):
        return self.reason


class FakeLanes:
    def __init__(self, **sizes):
        self.sizes = {("hub", f"{node}.REQPing.EventACK"): size for node, size in sizes.items()}

    def lanes_with_records(self):
        return set(self.sizes)

    def lane(self, key):
        depth, held = self.sizes[key]
        return SimpleNamespace(depth=depth, held=held)


def make(*, connected=True, lanes=None, **workers):
    """`workers` by node: a publisher, or the error of one that does not run."""
    handles = {}
    for node, worker in workers.items():
        is_error = worker is None or isinstance(worker, str)
        handle = Handle(
            spec=None,
            worker=None if is_error else worker,
            phase=Phase.BACKING_OFF if is_error else Phase.RUNNING,
            last_error=worker if is_error else None,
        )
        handles[publisher_key("hub", f"{node}.REQPing.EventACK")] = handle
    link = SimpleNamespace(is_connected=connected)
    return Standings(handles, lanes or FakeLanes(), link)


def test_a_publisher_knows_where_its_records_stand():
    worker = FakePublisher("nobody there", record1=Standing(DeliveryState.WORKING))
    standings = make(ship1=worker)
    assert standings.of_record("hub", SUBJECT, 1) == Standing(DeliveryState.WORKING)
    assert standings.of_record("hub", SUBJECT, 2) == Standing(DeliveryState.WAITING, "nobody there")


@pytest.mark.parametrize("why", ["nobody there", "silent since 10:00:00", "stream: it is full"])
def test_one_more_try_of_a_lane_that_stands_still_is_no_other_state_to_whoever_looks_on(why):
    standings = make(ship1=FakePublisher(why, record1=Standing(DeliveryState.SENT)))
    assert standings.as_shown("hub", SUBJECT, 1) == Standing(DeliveryState.WAITING, why)
    # it is under way all the same: who takes it back has to know that
    assert standings.of_record("hub", SUBJECT, 1) == Standing(DeliveryState.SENT)


@pytest.mark.parametrize("why", ["", "busy"])
@pytest.mark.parametrize("state", [DeliveryState.SENT, DeliveryState.WORKING])
def test_a_record_that_is_under_way_is_shown_as_that(why, state):
    standings = make(ship1=FakePublisher(why, record1=Standing(state)))
    assert standings.as_shown("hub", SUBJECT, 1) == Standing(state)


def test_a_record_of_which_nothing_special_is_known_waits_behind_others():
    found = make(ship1=FakePublisher()).of_record("hub", SUBJECT, 1)
    assert found == Standing(DeliveryState.WAITING, "behind others")


def test_a_reason_is_the_same_at_every_try_whatever_the_token_of_its_answers():
    worker = FakePublisher('denied: Permissions Violation for "a.reply.e24dc82c5569.*"')
    assert make(ship1=worker).lane_reason("hub", SUBJECT).endswith('"a.reply.*"')


def test_without_a_broker_everything_waits_for_it():
    worker = FakePublisher(record1=Standing(DeliveryState.SENT))
    found = make(connected=False, ship1=worker).of_record("hub", SUBJECT, 1)
    assert found == Standing(DeliveryState.WAITING, "broker away")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (DENIED, f"denied: {DENIED}"),
        (f"denied: {DENIED}", f"denied: {DENIED}"),
        (
            'Permissions Violation for "a.reply.e24dc82c5569.*"',
            'denied: Permissions Violation for "a.reply.*"',
        ),
        ("'Authorization Violation'", "denied: 'Authorization Violation'"),
        ("the subject is not what it was", "the subject is not what it was"),
        (None, "its publisher does not run"),
    ],
)
def test_a_lane_whose_publisher_does_not_run_waits_for_what_keeps_it(error, why):
    assert make(ship1=error).lane_reason("hub", SUBJECT) == why


def test_a_lane_without_a_publisher_says_so():
    assert make().lane_reason("hub", SUBJECT) == "no publisher yet"


def test_waiting_messages_are_counted_by_why_and_what_is_under_way_is_none():
    lanes = FakeLanes(away=(7, 1), quiet=(20, 1), open=(5, 256), shut=(3, 0), lost=(2, 0))
    standings = make(
        lanes=lanes,
        away=FakePublisher("nobody there"),
        quiet=FakePublisher("silent since 14:02:11"),
        open=FakePublisher(),
        shut=DENIED,
    )
    assert standings.waiting() == {
        **dict.fromkeys(map(str, WaitReason), 0),
        "nobody there": 8,
        "silent": 21,
        "behind others": 5,
        "denied": 3,
        OTHER_REASON: 2,
    }
    assert standings.silent_lanes() == [("quiet.REQPing.EventACK", "silent since 14:02:11")]
