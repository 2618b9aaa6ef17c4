"""What is advised where a config is wrong leads to one that is right."""

import pytest

from appliance.config.loader import load_desired
from appliance.errors import ConfigInvalid
from appliance.methods.registry import METHOD_TABLE

CONFIG = """
version: 1
broker: {{embedded: true}}
inputs: {{socket: {{path: x.sock, mode: {mode}}}}}
nodes:
  a:
    labels: {{rack: {rack}}}
    subscribe:
      REQErrorLog: {{}}
      REQCliCommand: {{allow_commands: [[chmod, {rights}, "*"]], ack: {{retries: {retries}}}}}
"""
RIGHT = {"mode": '"0660"', "rack": "r12", "rights": '"0755"', "retries": "12"}


def load(tmp_path, **values):
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG.format(**{**RIGHT, **values}))
    return load_desired([str(path)], environ={}, methods=METHOD_TABLE)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("mode", "0660"),
        ("rack", "012"),
        ("rights", "0755"),
        ("retries", "012"),
        ("retries", "0o14"),
    ],
)
def test_what_is_advised_for_a_number_that_readers_take_differently_is_taken(
    tmp_path, name, written
):
    with pytest.raises(ConfigInvalid) as refused:
        load(tmp_path, **{name: written})
    (problem,) = refused.value.problems
    assert problem.code == "E017"
    advice = problem.hint.removeprefix("write ").removeprefix("quote it: ")
    assert load(tmp_path, **{name: advice}).desired is not None


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", ""),
    ],
)
def test_a_file_in_another_encoding_is_named(tmp_path, encoding, named):
    path = tmp_path / "fleet.yaml"
    path.write_bytes("version: 1 # für alle\n".encode(encoding))
    with pytest.raises(ConfigInvalid) as refused:
        load_desired([str(path)], environ={}, methods=METHOD_TABLE)
    (problem,) = refused.value.problems
    assert problem.code == "E004"
    assert problem.message == (
        f"the file is {named}, not UTF-8" if named else "the file is not UTF-8"
    )
