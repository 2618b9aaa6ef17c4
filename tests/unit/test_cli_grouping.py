"""Nodes that answered the same are shown together, in an order that a reader wants."""

from appliance.api.model import Line
from appliance.cli.answer_view import Answers, Stream, Style
from appliance.cli.grouping import describe_groups, make_groups, show_groups
from tests.support.api_answers import read

TERMINAL = frozenset({Stream.OUT, Stream.ERR})


def group(*lines, nodes, skipped=(), **more):
    more = {"wants_status": True, **more}
    answers = Answers(Style(escapes=frozenset(), keeps=True, **more))
    opening = [
        {"event": "accepted", "to": node, "id": id_, "replies": True}
        for id_, node in enumerate(nodes, 1)
    ]
    for line in [*opening, *lines]:
        answers.take(read(line, Line))
    answers.skip(skipped, "more than 1 failed")
    return make_groups((item, answers.said(item)) for item in answers.nodes)


def end(id_, data="", status="0", **more):
    return {"event": "reply", "id": id_, "data": data, "exit_status": status, **more}


def shown(groups, escapes=frozenset(), width=80):
    return b"".join(data for _, data in show_groups(groups, escapes, width)).decode()


def test_equal_answers_stand_together_below_the_names_as_people_count():
    groups = group(end(1, "up\n"), end(2, "up\n"), end(3, "down\n"), nodes=["s10", "s2", "s1"])
    assert shown(groups) == "s1:\n    down\n\ns2, s10 (2 nodes):\n    up\n"


def test_output_error_output_and_exit_status_are_parts_of_an_answer():
    groups = group(
        end(1, "x"),
        end(2, "x", stderr="oh\n"),
        end(3, "x", "1"),
        end(4, "x", "2"),
        end(5, "x"),
        nodes="abcde",
    )
    assert [item.nodes for item in groups] == [["a", "e"], ["b"], ["c"], ["d"]]
    assert shown(groups[1:3]) == "b:\n    x\n  ! oh\n\nc (exit 1):\n    x\n"


def test_what_failed_comes_behind_what_went_well_then_who_is_silent_and_who_was_not_asked():
    groups = group(
        {"event": "missed", "id": 1, "outcome": "no_responder"},
        end(2, "", "failed: not in allow_commands"),
        end(3, "fine"),
        end(4),
        {"event": "missed", "id": 5, "outcome": "no_responder"},
        nodes=["a", "b", "c", "d", "e"],
        skipped=["z", "y"],
    )
    assert shown(groups) == (
        "c:\n    fine\n\n"
        "d:\n    (answered, empty)\n\n"
        "b (failed: not in allow_commands):\n\n"
        "a, e (2 nodes, waiting: nobody there):\n\n"
        "y, z (2 nodes, not asked: more than 1 failed):\n"
    )
    facts = describe_groups(groups)
    assert [item["nodes"] for item in facts] == [["c"], ["d"], ["b"], ["a", "e"], ["y", "z"]]
    assert [item["state"] for item in facts] == ["done", "done", "failed", "waiting", "not asked"]


def test_many_names_stand_in_lines_that_fit():
    nodes = [f"ship-{number}.of.the.fleet" for number in range(1, 30)]
    text = shown(group(*(end(id_, "x") for id_ in range(1, 30)), nodes=nodes))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.replace("\n", " ").count(".of.the.fleet") == 29
    assert text.splitlines()[-2].endswith("(29 nodes):")


def test_bytes_of_nodes_command_no_terminal_and_stay_as_they_are_elsewhere():
    groups = group(end(1, "\x1b[31mred\n"), nodes=["a"])
    assert shown(groups) == "a:\n    \x1b[31mred\n"
    assert shown(groups, TERMINAL) == "a:\n    \\x1b[31mred\n"
    groups = group(end(1, "", "failed: \x1b[2J"), nodes=["a"])
    assert "\x1b" not in shown(groups)


def test_an_answer_that_is_filed_whole_and_too_long_to_be_shown_has_gone_well():
    lines = (end(1, "fine\n"), end(2, "long\n", is_cut=True), end(3, "bad\n", "2"))
    groups = group(*lines, nodes="abc", is_filed=True, wants_status=False)
    assert shown(groups) == (
        "a:\n    fine\n\n"
        "b (cut here; the whole is in the reply's file):\n    long\n\n"
        "c (exit 2):\n    bad\n"
    )
    assert [item["nodes"] for item in describe_groups(groups)] == [["a"], ["b"], ["c"]]


def test_what_is_beyond_the_memory_for_filed_answers_is_shown_in_part_and_has_not_failed(
    monkeypatch,
):
    monkeypatch.setattr("appliance.cli.answer_view.MAX_KEPT_BYTES", 6)
    groups = group(end(1, "fine\n"), end(2, "more\n"), nodes="ab", is_filed=True)
    assert "b (cut here" in shown(groups)
    assert not groups[1].first.has_failed
