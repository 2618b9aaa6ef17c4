"""What `send` says and concludes from the lines of the API."""

import pytest

from appliance.api.model import Line
from appliance.cli.delivery_view import Deliveries
from tests.support.api_answers import read


def follow(*lines, follows=True):
    deliveries = Deliveries(follows=follows)
    said = [words for line in lines for words in deliveries.take(read(line, Line))]
    return deliveries, said


def accepted(to, id_, replies=False):
    return {"event": "accepted", "to": to, "id": id_, "replies": replies}


def test_delivery_is_told_per_node():
    deliveries, said = follow(
        accepted("ship1", 1),
        accepted("ship2", 2),
        {"event": "delivered", "id": 1, "to": "ship1", "seconds": 0.003},
    )
    assert said[-1] == ("ship1  taken (delivered in 3 ms)", False)
    assert (deliveries.failed, deliveries.silent) == ([], ["ship2"])


def test_an_absent_node_is_mentioned_once_however_often_it_is_tried():
    missed = {
        "event": "missed",
        "id": 1,
        "outcome": "no_responder",
        "attempt": 0,
        "next_in_seconds": 0.2,
    }
    _, said = follow(accepted("ship1", 1), missed, missed, missed)
    assert [text for text, _ in said[1:]] == ["ship1  waiting: nobody there"]


def test_every_unacknowledged_try_is_told():
    missed = {
        "event": "missed",
        "id": 1,
        "outcome": "ack_timeout",
        "attempt": 2,
        "next_in_seconds": 0.4,
    }
    _, said = follow(accepted("ship1", 1), missed)
    assert said[-1][0] == "ship1  waiting: try 2 not acknowledged, again in 400 ms"
    _, said = follow(accepted("ship1", 1), {**missed, "next_in_seconds": 0.0})
    assert said[-1][0] == "ship1  waiting: try 2 not acknowledged"


@pytest.mark.parametrize("kind", ["refused", "dead"])
def test_a_node_that_refused_or_could_not_be_reached_has_failed(kind):
    deliveries, said = follow(
        accepted("ship1", 1), {"event": kind, "id": 1, "reason": "not allowed"}
    )
    assert deliveries.failed == ["ship1"]
    assert "not allowed" in said[-1][0]


def test_a_reply_is_a_result_with_its_text_indented():
    deliveries, said = follow(
        accepted("ship1", 1, replies=True),
        {"event": "delivered", "id": 1, "seconds": 0.1},
        {
            "event": "reply",
            "id": 1,
            "from": "ship1",
            "data": "up 3 days\nload 0.1\n",
            "exit_status": "0",
        },
    )
    assert said[-3:] == [("ship1:", True), ("    up 3 days", True), ("    load 0.1", True)]
    assert (deliveries.failed, deliveries.silent) == ([], [])
    assert deliveries.summary() == "1 of 1 done"


def test_a_command_that_failed_on_its_node_has_failed():
    deliveries, said = follow(
        accepted("ship1", 1, replies=True),
        {"event": "reply", "id": 1, "from": "ship1", "data": "", "exit_status": "2"},
    )
    assert said[-3:-1] == [("ship1: (exit 2)", True), ("    (answered, empty)", True)]
    where, is_result = said[-1]
    assert "errorLog/errorCentral/error.log" in where
    assert not is_result
    assert deliveries.failed == ["ship1"]


def test_an_answer_that_says_why_it_failed_needs_no_more_words():
    deliveries, said = follow(
        accepted("ship1", 1, replies=True),
        {"event": "reply", "id": 1, "from": "ship1", "data": "", "exit_status": "failed: no such"},
    )
    assert said[1:] == [("ship1: (failed: no such)", True)]
    assert deliveries.failed == ["ship1"]


def test_what_another_node_passes_on_is_delivered_to_that_one_only():
    _, said = follow(
        accepted("ship2", 1, replies=True) | {"via": "ship1"},
        {"event": "missed", "id": 1, "outcome": "no_responder"},
        {"event": "delivered", "id": 1, "to": "ship2", "seconds": 0.003},
    )
    assert [text for text, _ in said[1:]] == [
        "ship2  at ship1: waiting: nobody there",
        "ship2  at ship1: taken (delivered in 3 ms)",
    ]


def test_a_node_that_took_the_message_and_does_not_answer_is_silent():
    deliveries, _ = follow(
        accepted("ship1", 1, replies=True), {"event": "delivered", "id": 1, "seconds": 0.1}
    )
    assert deliveries.silent == ["ship1"]


def test_without_following_acceptance_is_all():
    deliveries, _ = follow(accepted("ship1", 1), follows=False)
    assert (deliveries.failed, deliveries.silent, deliveries.summary()) == (
        [],
        [],
        "1 of 1 accepted",
    )


def test_text_from_nodes_cannot_command_the_terminal():
    _, said = follow(
        accepted("ship1", 1),
        {"event": "refused", "id": 1, "reason": "\x1b]0;owned\x07\nship2  delivered"},
        {
            "event": "reply",
            "id": 1,
            "from": "ship1",
            "data": "\x1b[2J\x9b31m\u202e",
            "exit_status": None,
        },
    )
    text = "".join(words for words, _ in said)
    assert not any(character in text for character in "\x1b\x07\x9b\u202e\n")


def piece(id_, data, **more):
    return {"event": "reply", "id": id_, "data": data, "has_more": True, "stream": "stdout", **more}


def results(said):
    return [text for text, is_result in said if is_result]


def test_an_answer_in_pieces_is_joined_under_one_name_with_stderr_marked():
    deliveries, said = follow(
        accepted("ship1", 1, replies=True),
        piece(1, "one\ntw"),
        piece(1, "oh no\n", stream="stderr"),
        piece(1, "o\nrest"),
        {"event": "reply", "id": 1, "data": "", "exit_status": "0"},
    )
    assert results(said) == ["ship1:", "    one", "  ! oh no", "    two", "    rest"]
    assert (deliveries.failed, deliveries.silent) == ([], [])


def test_pieces_of_two_nodes_are_told_apart():
    _, said = follow(
        accepted("ship1", 1, replies=True),
        accepted("ship2", 2, replies=True),
        piece(1, "a\n"),
        piece(2, "b\n"),
        piece(1, "c\n"),
        {"event": "reply", "id": 1, "data": "", "exit_status": "3"},
    )
    assert results(said) == [
        *("ship1:", "    a", "ship2:", "    b", "ship1:", "    c"),
        "ship1: (exit 3)",
    ]


def test_an_answer_that_has_begun_and_not_ended_is_silent():
    deliveries, _ = follow(
        accepted("ship1", 1, replies=True),
        {"event": "delivered", "id": 1, "seconds": 0.1},
        piece(1, "a\n"),
    )
    assert deliveries.silent == ["ship1"]


def test_where_stderr_came_along_nobody_is_sent_to_look_for_it():
    _, said = follow(
        accepted("ship1", 1, replies=True),
        {"event": "reply", "id": 1, "data": "out\n", "exit_status": "2", "stderr": "why\n"},
    )
    assert said[-3:] == [("ship1: (exit 2)", True), ("    out", True), ("  ! why", True)]


def test_as_json_everything_of_a_piece_is_there_and_ids_as_text():
    big = 2**60 + 1
    deliveries, _ = follow(
        accepted("ship1", big, replies=True) | {"note": "'shp1' is not declared"},
        piece(big, "\\xff", data_base64="/w=="),
        {"event": "reply", "id": big, "data": "", "exit_status": "1", "stderr": "e"},
    )
    (message,) = deliveries.facts()["messages"]
    assert (message["id"], message["id_text"]) == (big, str(big))
    assert message["note"] == "'shp1' is not declared"
    first, last = message["replies"]
    assert (first["data_base64"], first["stream"], first["has_more"]) == ("/w==", "stdout", True)
    assert last["stderr"] == "e"


def test_a_name_that_looks_like_a_slip_is_noted():
    _, said = follow(accepted("shp1", 1) | {"note": "'shp1' is not declared\x1b"})
    assert said[-1] == ("note: 'shp1' is not declared\\x1b", False)


def line(event, state, why="", **more):
    return {"event": event, "id": 1, "to": "ship1", "state": state, "why": why, **more}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (line("delivered", "taken", seconds=0.5), "ship1  taken (delivered in 500 ms)"),
        (line("delivered", "done", seconds=2), "ship1  done (delivered in 2 s)"),
        (line("delivered", "sent", seconds=0.5), "ship1  sent in 500 ms"),
        (line("waits", "waiting", "silent since 14:02:11"), "ship1  waiting: silent since 14:02:11"),
        (line("waits", "waiting", "behind others"), "ship1  waiting: behind others"),
        (line("working", "working"), "ship1  working"),
        (line("dead", "failed", "disk full", reason="failed: disk full"), "ship1  failed: disk full"),
        (line("dead", "expired", "nobody there", reason="expired: nobody there"), "ship1  expired: nobody there"),
        (line("refused", "refused", "not in accept_from"), "ship1  refused: not in accept_from"),
    ],
)  # fmt: skip
def test_what_became_of_a_message_is_said_in_one_vocabulary(told, said):
    deliveries, words = follow(accepted("ship1", 1), told)
    assert words[1:] == [(said, False)]
    (message,) = deliveries.facts()["messages"]
    assert (message["state"], message["why"]) == (told["state"], told["why"])


@pytest.mark.parametrize(
    ("state", "event", "is_silent", "is_delivered"),
    [
        ("taken", "delivered", False, True),
        ("done", "delivered", False, True),
        ("sent", "delivered", False, True),
        ("sent", "sent", True, False),
        ("waiting", "waits", True, False),
        ("working", "working", True, True),
    ],
)
def test_a_message_is_silent_until_it_is_settled_and_delivered_once_the_other_side_has_it(
    state, event, is_silent, is_delivered
):
    deliveries, _ = follow(accepted("ship1", 1), line(event, state))
    assert deliveries.silent == (["ship1"] if is_silent else [])
    assert deliveries.facts()["messages"][0]["is_delivered"] is is_delivered


def test_a_reason_to_wait_is_said_when_it_changes_and_not_again():
    lines = [
        line("missed", "waiting", "nobody there", outcome="no_responder"),
        line("waits", "waiting", "nobody there"),
        line("sent", "sent"),
        line("waits", "waiting", "silent since 14:02:11"),
        line("waits", "waiting", "silent since 14:02:11"),
    ]
    _, said = follow(accepted("ship1", 1), *lines)
    assert [text for text, _ in said[1:]] == [
        "ship1  waiting: nobody there",
        "ship1  waiting: silent since 14:02:11",
    ]


def test_the_acknowledgement_that_follows_an_answer_takes_nothing_back():
    deliveries, said = follow(
        accepted("ship1", 1, replies=True),
        {"event": "reply", "id": 1, "from": "ship1", "data": "", "exit_status": "failed: no"},
        line("delivered", "taken", seconds=1),
    )
    assert "ship1  taken" not in str(said)
    (message,) = deliveries.facts()["messages"]
    assert (message["state"], message["why"]) == ("failed", "no")


def test_a_daemon_of_an_earlier_version_which_tells_no_states_is_understood():
    for told, word in (
        ({"event": "delivered", "seconds": 0.1}, "taken"),
        ({"event": "dead", "reason": "expired after 1 s without acknowledgement"}, "expired"),
        ({"event": "dead", "reason": "no acknowledgement after 4 tries of 5 s"}, "failed"),
        ({"event": "refused", "reason": "no"}, "refused"),
        ({"event": "missed", "outcome": "ack_timeout", "attempt": 1}, "waiting"),
    ):
        deliveries, _ = follow(accepted("ship1", 1), {"id": 1, **told})
        assert deliveries.facts()["messages"][0]["state"] == word
