"""Batches: which nodes are asked, and which are not any more, whatever ends it."""

import pytest
import typer

from appliance.api.model import Line
from appliance.cli.answer_view import Answers, Style
from appliance.cli.choosing import Rollout, waits_for_absent
from appliance.cli.exec_command import jobs_under_way
from appliance.errors import DaemonUnreachable
from tests.support.api_answers import read

NAMES = ["a", "b", "c", "d", "e"]


def run(rollout, ends=(), breaks=(), fails=()):
    """What was asked, and which nodes were not, with the reason."""
    answers, asked = Answers(Style(prefixes=True, escapes=frozenset())), []

    def ask(names):
        asked.append(names)
        if set(names) & set(breaks):
            raise DaemonUnreachable("gone")
        for name in names:
            item = {"to": name, "id": ord(name), "replies": False}
            event = "rejected" if name in fails else "accepted"
            answers.take(read({"event": event, **item}, Line))
            if name not in fails:
                answers.take(read({"event": "delivered", **item}, Line))
        return "interrupted" if set(names) & set(ends) else ""

    try:
        rollout.run(ask, answers)
    except DaemonUnreachable:
        asked.append("broken")
    return asked, {item.node: item.why_not_asked for item in answers.not_asked}


def test_without_batches_all_are_asked_at_once():
    assert run(Rollout.plan(NAMES, None, None)) == ([NAMES], {})


def test_who_interrupts_leaves_the_rest_alone():
    asked, rest = run(Rollout.plan(NAMES, "2", None), ends=["c"])
    assert asked == [["a", "b"], ["c", "d"]]
    assert rest == {"e": "interrupted"}


def test_a_daemon_that_goes_away_ends_it_and_the_rest_is_told():
    asked, rest = run(Rollout.plan(NAMES, "2", None), breaks=["a"])
    assert asked == [["a", "b"], "broken"]
    assert rest == dict.fromkeys("cde", "the daemon did not answer")


@pytest.mark.parametrize(
    ("max_fail", "fails", "why"),
    [
        ("0", "a", "one failed"),
        ("1", "ab", "more than 1 failed"),
        ("39%", "ab", "more than 1 failed"),
        ("1", "a", None),
        ("40%", "ab", None),
    ],
)
def test_more_failures_than_are_allowed_end_it(max_fail, fails, why):
    _, rest = run(Rollout.plan(NAMES, "40%", max_fail), fails=fails)
    assert rest == ({} if why is None else dict.fromkeys("cde", why))


def test_a_bound_on_failures_needs_batches():
    with pytest.raises(typer.BadParameter, match="goes with --batch"):
        Rollout.plan(NAMES, None, "1")


def test_one_node_is_waited_for_and_of_several_none_unless_somebody_says_so():
    assert [waits_for_absent(None, count) for count in (1, 2, 50)] == [True, False, False]
    assert [waits_for_absent(asked, 2) for asked in (True, False)] == [True, False]


def test_interrupted_before_the_daemon_has_answered_it_is_said_that_nobody_knows_here(capsys):
    answers = Answers(Style(prefixes=True, escapes=frozenset()))

    def ask(names):
        if names != ["a", "b"]:
            # its line is not there yet; the job is, and so a first Ctrl-C has something to tell
            assert jobs_under_way(answers) == ["k3f9q2xa"]
            return "interrupted"
        for name in names:
            line = {"event": "accepted", "to": name, "id": ord(name), "job": "k3f9q2xa"}
            answers.take(read({**line, "replies": False}, Line))
        assert jobs_under_way(answers) == ["k3f9q2xa"]
        for name in names:
            answers.take(read({"event": "delivered", "id": ord(name)}, Line))
        assert jobs_under_way(answers) == []
        return ""

    Rollout.plan(NAMES, "2", None).run(ask, answers)
    said = capsys.readouterr().err
    assert "2 nodes: c, d: it was interrupted before it was known" in said
    assert "appliance jobs show k3f9q2xa" in said
    assert [item.node for item in answers.not_asked] == ["e"]
