"""What `cp` concludes from the lines of the API, and how it tells what came of it all."""

import pytest

from appliance.api.model import Line
from appliance.cli.api_client import Answer
from appliance.cli.copy_command import FleetFinder
from appliance.cli.copy_job import CopyAsked
from appliance.cli.copy_places import Job, Place
from appliance.cli.copy_plan import NotListed
from appliance.cli.copy_report import CopyOutcome, CopyState, exit_code_of, facts_of, summary_of
from appliance.core.copying import Copied, describe_copied
from tests.support.api_answers import read

SOURCE = Place("ship1", "/a")
ACCEPTED = {"event": "accepted", "id": 7, "to": "ship1"}
DELIVERED = {"event": "delivered", "id": 7}
COPIED = Copied(12, "0f" * 32, True)


def ask(*lines):
    asked = CopyAsked(SOURCE)
    for line in lines:
        asked.take(read(line, Line))
    return asked


def reply(**facts):
    return {"event": "reply", "id": 7, "data": "", "exit_status": None, **facts}


def outcome(state, reason=None):
    copied = COPIED if state is CopyState.COPIED else None
    return CopyOutcome(Job(SOURCE, Place(None, "b")), state, copied, reason, 1.23456)


def test_progress_is_told_from_answers():
    asked = ask(ACCEPTED, DELIVERED, reply(has_more=True, progress=[1, 2]), reply(has_more=True))
    assert (asked.id, asked.is_delivered, asked.is_answered) == (7, True, False)


def test_the_answer_says_what_was_copied():
    asked = ask(ACCEPTED, reply(exit_status="0", data=describe_copied("/a", "b:/c", COPIED)))
    assert (asked.is_answered, asked.problem, asked.copied) == (True, None, COPIED)


def test_what_the_config_says_of_the_node_is_kept_for_the_case_of_silence():
    note = "the config here names no REQCopyFileFrom of ship1"
    asked = ask({**ACCEPTED, "note": f"{note}; it waits in the outbox until somebody takes it"})
    assert asked.note == note
    assert ask(ACCEPTED).note is None


def test_a_go_node_does_not_say_what_it_copied():
    asked = ask(ACCEPTED, reply(data="copy initiated: source node: ship1"))
    assert (asked.is_answered, asked.problem, asked.copied) == (True, None, None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (reply(exit_status="failed: /a is not in allow_paths"), "/a is not in allow_paths"),
        ({"event": "refused", "reason": "sender not accepted"}, "refused: sender not accepted"),
        ({"event": "dead", "reason": "expired"}, "expired"),
        ({"event": "rejected", "reason": "unknown method"}, "unknown method"),
        ({"event": "rejected"}, "not accepted"),
    ],
)
def test_failures_keep_their_words(line, problem):
    asked = ask(line)
    assert asked.problem == problem


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ACCEPTED], "ship1 did not answer within 30 s"),
        (
            [ACCEPTED, {"event": "missed", "outcome": "no_responder"}],
            "ship1 is away, or does not subscribe REQCopyFileFrom",
        ),
        ([ACCEPTED, {"event": "missed", "outcome": "ack_timeout"}], "ship1 did not answer"),
        ([ACCEPTED, DELIVERED], "ship1 was asked and gave no sign for 30 s"),
    ],
)
def test_silence_is_told_by_what_is_known_of_it(lines, said):
    assert said in ask(*lines).describe_silence(30.0)


class Told:
    """The API's client: these lines come of every message."""

    def __init__(self, *lines):
        self._lines = lines

    def stream(self, path, kind, body, query, wait_s):
        return iter([Answer.of(kind, line) for line in self._lines])

    def post(self, path, kind, body):
        return Answer.of(kind, {})


NOBODY = "no acknowledgement within 1 s: nobody there takes it"


@pytest.mark.parametrize(
    ("lines", "is_silent"),
    [
        ([{"event": "waits", "id": 7, "state": "waiting", "why": "nobody there"}], True),
        ([{"event": "dead", "id": 7, "state": "expired", "why": NOBODY}], True),
        ([{"event": "dead", "id": 7, "reason": f"expired: {NOBODY}"}], True),
        ([{"event": "dead", "id": 7, "state": "failed", "why": "dropped"}], False),
        ([{"event": "refused", "id": 7, "reason": "sender not accepted"}], False),
    ],
)
def test_a_node_that_is_away_is_silent_whoever_gives_up_first_the_message_or_who_waits(
    lines, is_silent
):
    finder = FleetFinder(Told(ACCEPTED, *lines), node=None, wait_s=1.0)
    with pytest.raises(NotListed) as raised:
        finder.files("ship1", "/a/*", is_recursive=False)
    assert raised.value.is_silent is is_silent
    assert ask(ACCEPTED, *lines).progress.is_expired is (is_silent and lines[0]["event"] == "dead")


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        (["copied"], 0, ""),
        (["copied", "copied"], 0, ""),
        (["copied", "failed"], 1, "1 of 2 copied, 1 failed"),
        (["silent", "copied"], 3, "1 of 2 copied, 1 silent"),
        (["silent", "failed", "copied"], 1, "1 of 3 copied, 1 failed, 1 silent"),
        (["silent"], 3, "0 of 1 copied, 1 silent"),
    ],
)
def test_one_failure_counts_more_than_any_silence(states, code, said):
    outcomes = [outcome(CopyState(state)) for state in states]
    assert exit_code_of(outcomes) == code
    assert summary_of(outcomes, len(outcomes)) == said


def test_what_was_not_begun_is_told():
    outcomes = [outcome(CopyState.COPIED), outcome(CopyState.INTERRUPTED)]
    assert summary_of(outcomes, 4) == "1 of 4 copied, 1 interrupted, 2 not begun"


def test_machines_get_every_fact():
    outcomes = [outcome(CopyState.COPIED), outcome(CopyState.FAILED, "why")]
    facts = facts_of(outcomes, 3, "k3f9", ["ship2"])
    assert facts == {
        "job": "k3f9",
        "copies": [
            {
                "source": "ship1:/a",
                "target": "b",
                "state": "copied",
                "size": 12,
                "sha256": "0f" * 32,
                "is_confirmed": True,
                "seconds": 1.235,
                "reason": None,
            },
            {
                "source": "ship1:/a",
                "target": "b",
                "state": "failed",
                "size": None,
                "sha256": None,
                "is_confirmed": False,
                "seconds": 1.235,
                "reason": "why",
            },
        ],
        "summary": {
            "total": 3,
            "not_asked": ["ship2"],
            "copied": ["ship1:/a"],
            "failed": ["ship1:/a"],
            "silent": [],
            "interrupted": [],
            "skipped": [],
        },
    }
