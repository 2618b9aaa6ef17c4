"""What a caller is told before anything is sent."""

import os

import pytest

from appliance.api.submission import (
    choose_answer_method,
    describe_lost_answer,
    describe_unknown,
    describe_unsubscribed,
)
from appliance.config.loader import load_desired
from appliance.errors import RequestInvalid
from appliance.methods.registry import METHOD_TABLE

CONFIG = """
version: 1
broker: {embedded: true}
nodes:
  central: {subscribe: {REQErrorLog: {}, REQToConsole: {}, REQToFileAppend: {accept_from: [ship2]}}}
  lonely: {subscribe: {REQPing: {}}}
  picky: {subscribe: {REQToFile: {accept_from: [ship2]}}}
  open: {subscribe: {REQToFile: {accept_from: any}}}
  ship1: {subscribe: {REQPing: {}}}
  ship2: {subscribe: {REQPing: {}, REQRelay: {relay_to: [ship1], relay_methods: [REQPing]}}}
"""


@pytest.fixture(scope="module")
def desired(tmp_path_factory):
    path = tmp_path_factory.mktemp("callers") / "fleet.yaml"
    path.write_text(CONFIG)
    return load_desired([path], environ=os.environ, methods=METHOD_TABLE).desired


@pytest.mark.parametrize(
    ("node", "to_node", "method"),
    [
        ("central", "ship2", "REQToFileAppend"),
        ("central", "ship1", "REQToConsole"),
        ("picky", "ship2", "REQToFile"),
        ("open", "unknown", "REQToFile"),
    ],
)
def test_an_answer_arrives_as_a_method_that_takes_it(desired, node, to_node, method):
    assert choose_answer_method(desired, node, to_node) == method


@pytest.mark.parametrize(
    ("node", "to_node", "said"),
    [
        ("lonely", "ship1", "add `REQToFileAppend: {}` to nodes.lonely.subscribe"),
        ("picky", "ship1", "add ship1 to its accept_from"),
        ("central", "shp1", "'shp1' is not declared (did you mean ship1?); add it to `nodes`"),
    ],
)
def test_where_no_answer_could_come_the_config_to_write_is_told(desired, node, to_node, said):
    with pytest.raises(RequestInvalid) as caught:
        choose_answer_method(desired, node, to_node)
    assert said in str(caught.value)


def test_a_name_far_from_all_others_gets_no_hint(desired):
    assert describe_unknown(desired, "ship1") is None
    assert describe_unknown(desired, "zzzzzzzzzz") == "'zzzzzzzzzz' is not declared"


def test_a_method_that_no_config_has_a_declared_node_subscribe_is_told(desired):
    assert describe_unsubscribed(desired, "ship1", "REQPing") is None
    assert describe_unsubscribed(desired, "unknown", "REQToFile") is None
    assert describe_unsubscribed(desired, "ship1", "REQToFile") == (
        "the config here names no REQToFile of ship1"
    )


def test_a_node_that_passes_nothing_on_to_where_a_message_goes_is_told(desired):
    assert describe_unsubscribed(desired, "ship2", "REQRelay", final="ship1") is None
    assert describe_unsubscribed(desired, "ship2", "REQRelay", final="picky") == (
        "the config here names no REQRelay of ship2 that leads to picky"
    )


@pytest.mark.parametrize(
    ("node", "answerer", "method", "said"),
    [
        ("open", "unknown", "REQToFile", None),
        ("central", "ship2", "REQToFileAppend", None),
        (
            "central",
            "ship1",
            "REQToFileAppend",
            "refused here: add ship1 to accept_from of REQToFileAppend",
        ),
        ("central", "buoy", "REQToConsole", "refused here: add buoy to `nodes`"),
        (
            "lonely",
            "ship1",
            "REQToFileAppend",
            "nobody here: lonely does not subscribe REQToFileAppend",
        ),
    ],
)
def test_whoever_sends_is_told_when_the_answer_will_be_lost(desired, node, answerer, method, said):
    words = describe_lost_answer(desired, node, answerer, method)
    assert words is None if said is None else said in words
