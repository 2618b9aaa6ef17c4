"""What a node reports of its config in a hello, and how the one who hears it judges."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.fleet import (
    MAX_REPORT_BYTES,
    NodeReport,
    NodeSighting,
    NodeState,
    encode_report,
    judge_fleet,
    parse_report,
)

OWN = NodeReport(applied="sha256:aa", revision="c0ffee", branch="main", dirty=False)
words = st.text(max_size=90)


@given(
    st.builds(
        NodeReport,
        version=words,
        generation=st.integers(0, 2**50),
        applied=words,
        desired=words,
        revision=words,
        branch=words,
        dirty=st.sampled_from([None, True, False]),
        result=words,
        problems=st.integers(0, 10**6),
        first_problem=st.text(max_size=2_000),
    )
)
def test_a_report_fits_into_a_header_and_comes_back(report):
    text = encode_report(report)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= MAX_REPORT_BYTES or len(report.first_problem) == 0
    if len(text) <= MAX_REPORT_BYTES:
        found = parse_report(text)
        assert found is not None
        assert report.first_problem.startswith(found.first_problem)
        assert (found.applied, found.generation) == (report.applied, report.generation)
        assert (found.branch, found.dirty) == (report.branch, report.dirty)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_whatever_is_no_report_is_none_and_no_error(text):
    found = parse_report(text)
    assert found is None or isinstance(found, NodeReport)


@pytest.mark.parametrize(
    "value", [[], 3, None, {"a": ["x"], "g": -1, "n": True, "m": "yes", "p": {}}, {"g": 2**70}]
)
def test_fields_of_a_wrong_kind_count_as_absent(value):
    assert parse_report(json.dumps(value)) in (None, NodeReport())


def judge(*, at=100.0, now=101.0, every=10.0, started=0.0, **report):
    seen = {"n": NodeSighting(at=5e8, heard_mono=at, report=NodeReport(**report))}
    (standing,) = judge_fleet({"n": every}, seen, OWN, now, started)
    return standing.state


@pytest.mark.parametrize(
    ("state", "report"),
    [
        (NodeState.IN_SYNC, {"applied": "sha256:aa"}),
        (NodeState.IN_SYNC, {"applied": "sha256:bb", "revision": "c0ffee", "dirty": False}),
        # whether its files are as the commit has them is not known: the digest alone counts
        (NodeState.BEHIND, {"applied": "sha256:bb", "revision": "c0ffee"}),
        (NodeState.BEHIND, {"applied": "sha256:bb", "revision": "c0ffee", "dirty": True}),
        (NodeState.BEHIND, {"applied": "sha256:bb"}),
        (NodeState.REFUSED, {"applied": "sha256:aa", "result": "refused"}),
        (NodeState.REFUSED, {"applied": "sha256:aa", "result": "reverted"}),
    ],
)
def test_a_node_is_judged_by_what_is_in_force_there(state, report):
    assert judge(**report) == state


def test_three_missed_hellos_are_silence_whatever_was_said_before():
    assert judge(applied="sha256:aa", now=131.0) == NodeState.IN_SYNC
    assert judge(applied="sha256:aa", now=133.0) == NodeState.SILENT


def test_a_node_that_never_spoke_is_silent_only_once_it_had_time_to():
    (early,) = judge_fleet({"n": 10.0}, {}, OWN, 20.0, 0.0)
    (late,) = judge_fleet({"n": 10.0}, {}, OWN, 40.0, 0.0)
    assert (early.state, late.state) == (NodeState.UNKNOWN, NodeState.SILENT)


def test_a_go_node_says_hello_and_nothing_of_its_config():
    (standing,) = judge_fleet(
        {}, {"go": NodeSighting(at=5e8, heard_mono=1.0, report=None)}, OWN, 2.0, 0.0
    )
    assert standing.state == NodeState.UNKNOWN
