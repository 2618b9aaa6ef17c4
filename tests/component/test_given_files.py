"""Files that a caller sent to be planned see no more of the daemon's environment than they are let."""

import pytest

from appliance.errors import ConfigInvalid
from appliance.reconcile.reload_result import LoadedSet
from appliance.reconcile.source import FileConfigSource

TEXT = b"""
version: 1
broker: {embedded: true}
nodes: {n1: {subscribe: {REQPing: {}}, publish: {p: {to: n1, method: REQPing, every: 1h, data: ["${CANARY_NAME}"]}}}}
"""


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setenv("CANARY_NAME", "canary-value")
    return FileConfigSource(["/nowhere"], nodes=(), all_nodes=True, hostname="")


def test_a_variable_that_they_may_not_see_is_not_set_for_them(source):
    with pytest.raises(ConfigInvalid) as caught:
        source.load_given({"/x.yaml": TEXT}, "", frozenset({"OTHER"}))
    assert "CANARY_NAME is not set" in str(caught.value.problems)
    assert "canary-value" not in str(caught.value.problems)


@pytest.mark.parametrize("variables", [None, frozenset({"CANARY_NAME"})])
def test_a_variable_that_they_may_see_is_filled_in(source, variables):
    assert "canary-value" in str(source.load_given({"/x.yaml": TEXT}, "", variables).desired)


def test_a_set_knows_the_variables_that_its_files_refer_to(source):
    loaded = source.load_given({"/x.yaml": TEXT}, "", None)
    assert isinstance(loaded, LoadedSet)
    assert loaded.variables == {"CANARY_NAME"}
