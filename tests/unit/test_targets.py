"""Which nodes targets mean: names, patterns, roles, labels, and what is left out."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.names import NodeName
from appliance.core.specs import NodeTraits
from appliance.core.targets import MAX_PATTERNS, choose, compile_pattern, natural_key, read_targets
from appliance.errors import TargetsUnclear


def node(*roles: str, **labels: str) -> NodeTraits:
    return NodeTraits(roles=roles, labels=tuple(sorted(labels.items())))


FLEET = {
    NodeName(name): traits
    for name, traits in {
        "central": node("hub"),
        "ship10": node("ship", "edge", site="oslo", tier="edge"),
        "ship2": node("ship", site="rotterdam"),
        "ship1": node("ship", "edge", site="rotterdam"),
        "gate.north": node("edge", site="rome"),
    }.items()
}


def chosen(*texts: str, without: tuple[str, ...] = ()) -> list[str]:
    return list(choose(read_targets(texts, without), FLEET).nodes)


def refusal(*texts: str, without: tuple[str, ...] = ()) -> str:
    with pytest.raises(TargetsUnclear) as caught:
        chosen(*texts, without=without)
    return str(caught.value)


@pytest.mark.parametrize(
    ("texts", "nodes"),
    [
        (("ship2", "central"), ["ship2", "central"]),
        (("ship2,central", "ship2"), ["ship2", "central"]),
        # as people count, and not as letters sort
        (("ship*",), ["ship1", "ship2", "ship10"]),
        (("ship?",), ["ship1", "ship2"]),
        (("*.north",), ["gate.north"]),
        (("@edge",), ["gate.north", "ship1", "ship10"]),
        (("@e*",), ["gate.north", "ship1", "ship10"]),
        (("site=rotterdam",), ["ship1", "ship2"]),
        (("site=ro*",), ["gate.north", "ship1", "ship2"]),
        (("site=*",), ["gate.north", "ship1", "ship2", "ship10"]),
        (("all",), ["central", "gate.north", "ship1", "ship2", "ship10"]),
        (("all", "!@edge"), ["central", "ship2"]),
        (("!ship1", "@ship", "!site=oslo"), ["ship2"]),
        (("@ship,!ship2", "central"), ["ship1", "ship10", "central"]),
        (("ship2", "ship*"), ["ship2", "ship1", "ship10"]),
    ],
)
def test_targets_are_joined_and_what_is_left_out_goes_last(texts, nodes):
    assert chosen(*texts) == nodes


def test_what_is_left_out_may_be_said_beside_the_targets_without_the_mark():
    assert chosen("all", without=("@ship", "central")) == ["gate.north"]
    assert chosen("all,!central", without=("@ship",)) == ["gate.north"]


def test_a_plain_name_that_no_config_knows_is_taken_as_it_is_and_can_be_left_out_again():
    assert chosen("shipX") == ["shipX"]
    assert chosen("shipX", "ship1", "!shipX") == ["ship1"]
    choice = choose(read_targets(["ship*", "shipX", "ship2"]), FLEET)
    assert choice.named == {"shipX", "ship2"}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("shp*",), 'no node matches "shp*"; did you mean ship'),
        (("@edg",), 'no node has the role "edg"; did you mean @edge?'),
        (("sit=oslo",), 'no node has a label "sit"; did you mean site?'),
        (("site=osl",), 'no node has "site=osl"; did you mean site=oslo?'),
        # what is not left out because of a slip would be asked
        (("all", "!shp1"), 'no node is called "shp1"; did you mean ship1?'),
        (("all", "!@edg"), 'no node has the role "edg"'),
        (("ship1", "!ship1"), "no node is left: the only node that matches is left out again"),
        (("@ship", "!ship*"), "no node is left: all 3 are left out again"),
        (("!ship1",), "no node is named: say first which nodes"),
        ((), "no node is named"),
        (("",), "no node is named"),
        (("!",), "nothing stands behind the !"),
        (("all", "!!ship1"), "written without a !"),
        (("@",), "does not hold a role"),
        (("site=",), "does not hold a value"),
        (("=oslo",), "begins with no label's name"),
        (("s*e=oslo",), "begins with no label's name"),
        (("ship@edge",), "does not hold a name"),
        # another program's pattern would quietly mean one character of these
        (("ship[1-10]",), "patterns know * and ? only"),
        (("ship{1,2}",), "patterns know * and ? only"),
        (("x" * 301,), "is longer than 300 characters"),
    ],
)
def test_what_means_no_node_is_refused_with_the_word_that_was_meant(texts, words):
    assert words in refusal(*texts)


def test_a_slip_in_what_is_left_out_beside_the_targets_is_refused_too():
    assert "did you mean ship1?" in refusal("all", without=("shp1",))
    assert "written without a !" in refusal("all", without=("!ship1",))


def test_the_word_for_every_node_is_refused_where_a_node_is_called_so():
    fleet = {NodeName("all"): node(), NodeName("ship1"): node()}
    with pytest.raises(TargetsUnclear, match=r"write '\*' for every node"):
        choose(read_targets(["all"]), fleet)
    assert choose(read_targets(["*"]), fleet).nodes == ("all", "ship1")
    assert choose(read_targets(["?ll"]), fleet).nodes == ("all",)


def test_a_label_that_nobody_has_is_told_with_where_labels_are_given():
    with pytest.raises(TargetsUnclear, match="`labels:` of a node gives it some"):
        choose(read_targets(["site=oslo"]), {NodeName("ship1"): node()})


def test_only_names_need_nobody_to_be_asked():
    assert read_targets(["ship1,ship2"]).are_plain
    for texts, without in ((["ship*"], []), (["ship1"], ["ship2"]), (["all"], []), (["@x"], [])):
        assert not read_targets(texts, without).are_plain


def test_targets_and_patterns_are_bounded():
    with pytest.raises(TargetsUnclear, match="exceed the limit of 10000"):
        read_targets([f"n{number}" for number in range(10_001)])
    with pytest.raises(TargetsUnclear, match=f"exceed the limit of {MAX_PATTERNS}"):
        read_targets([f"n{number}*" for number in range(MAX_PATTERNS + 1)])


def test_no_pattern_takes_long_whatever_the_name():
    fits = compile_pattern("*a" * 100 + "*b")
    began = time.process_time()
    assert not fits("a" * 200)
    assert time.process_time() - began < 1.0


@given(st.lists(st.text("ab01.", max_size=6), min_size=2, max_size=2, unique=True))
def test_every_two_names_have_an_order(names):
    one, other = map(natural_key, names)
    assert (one < other) != (other < one)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_means_what_its_marks_say(pattern, text):
    def fits(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])

    assert compile_pattern(pattern)(text) == fits(pattern, text)
