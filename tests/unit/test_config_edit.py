"""A change that a command writes for somebody to commit touches one place, and says what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.edit import Edit, EditImpossible, add_key, remove_key

K1, K2 = "U" + "A" * 55, "U" + "B" * 55
A, A2 = f"public_keys: [{K1}]", f"public_keys: [{K2}]"
BOTH, TURNED = f"public_keys: [{K1}, {K2}]", f"public_keys: [{K2}, {K1}]"


def changed(edit: Edit) -> list[str]:
    """The lines that a patch takes out and puts in."""
    return [
        line
        for line in edit.patch().splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("nodes:\n  a:  # ours\n    roles: [x]  # here\n  b: {}\n", [f"+    {A}"]),
        ("nodes:\n  a: {roles: [x]}  # c\n", ["-  a: {roles: [x]}  # c", f"+  a: {{{A}, roles: [x]}}  # c"]),
        ("nodes:\n  a: {}\n", ["-  a: {}", f"+  a: {{{A}}}"]),
        ("nodes:\n  a:\n  b: {}\n", ["-  a:", f"+  a: {{{A}}}"]),
        ("nodes:\n  a: ~ # x\n", ["-  a: ~ # x", f"+  a: {{{A}}} # x"]),
        (f"nodes:\n  a: {{{A2}}}\n", [f"-  a: {{{A2}}}", f"+  a: {{{TURNED}}}"]),
        (f"nodes:\n  a:\n    public_keys:\n    - {K2}  # old\n    roles: []\n", [f"+    - {K1}"]),
        (f"nodes:\n  a:\n    public_keys:\n      - {K2}", [f"-      - {K2}", f"+      - {K2}", f"+      - {K1}"]),
        ("nodes:\n  a:\n    public_keys: []\n", ["-    public_keys: []", f"+    {A}"]),
        ("nodes: {a: {}, b: {}}\n", ["-nodes: {a: {}, b: {}}", f"+nodes: {{a: {{{A}}}, b: {{}}}}"]),
        # not declared yet
        ("nodes:\n  b: {}  # last\n\n# of roles\nroles: {}\n", [f"+  a: {{roles: [x], {A}}}"]),
        ("nodes:\n  b:\n    subscribe:\n      REQPing: {}\n", [f"+  a: {{roles: [x], {A}}}"]),
        ("nodes: {b: {}}\n", ["-nodes: {b: {}}", f"+nodes: {{b: {{}}, a: {{roles: [x], {A}}}}}"]),
        ("nodes: {}\n", ["-nodes: {}", f"+nodes: {{a: {{roles: [x], {A}}}}}"]),
    ],
)  # fmt: skip
def test_a_key_is_added_at_one_place(text: str, lines: list[str]) -> None:
    edit = add_key({"fleet.yaml": text}, "a", K1, roles=["x"])
    found = [line for line in changed(edit) if line != r"\ No newline at end of file"]
    assert found == lines
    assert yaml.safe_load(edit.new)["nodes"]["a"]["public_keys"][-1] == K1


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"nodes:\n  a: {{{BOTH}}}\n", [f"-  a: {{{BOTH}}}", f"+  a: {{{A2}}}"]),
        (f"nodes:\n  a: {{{TURNED}}}\n", [f"-  a: {{{TURNED}}}", f"+  a: {{{A2}}}"]),
        (f"nodes:\n  a:\n    public_keys:\n      - {K1}  # old\n      - {K2}  # new\n", [f"-      - {K1}  # old"]),
    ],
)  # fmt: skip
def test_a_key_is_taken_out_at_one_place(text: str, lines: list[str]) -> None:
    assert changed(remove_key({"fleet.yaml": text}, "a", K1)) == lines


def test_of_several_files_the_one_that_declares_the_node_is_changed() -> None:
    files = {"a.yaml": "nodes: {a: {}}\n", "b.yaml": "nodes:\n  b: {}\n", "c.yaml": "log: {}\n"}
    assert add_key(files, "a", K1).name == "a.yaml"
    assert add_key(files, "c", K1).name == "b.yaml"
    assert add_key(files, "c", K1, into="a.yaml").name == "a.yaml"
    new = add_key(files, "c", K1, into="nodes/c.yaml")
    assert new.patch().startswith("--- /dev/null\n+++ b/nodes/c.yaml\n")
    into = add_key(files, "c", K1, into="c.yaml")
    assert yaml.safe_load(into.new) == {"log": {}, "nodes": {"c": {"public_keys": [K1]}}}


@pytest.mark.parametrize("name", ["null", "1", "true", "no", "0x1", "1e3", "2026-01-01", "-1"])
def test_a_node_whose_name_reads_as_something_else_is_declared_by_its_name(name: str) -> None:
    edit = add_key({"a.yaml": "version: 1\nnodes:\n  a: {}\n"}, name, K1)
    assert yaml.safe_load(edit.new)["nodes"] == {"a": {}, name: {"public_keys": [K1]}}
    assert changed(edit) == [f'+  "{name}": {{{A}}}']


def test_what_cannot_be_changed_at_one_place_is_said_in_words() -> None:
    with pytest.raises(EditImpossible, match="no list"):
        add_key({"f": "nodes: {a: {public_keys: any}}"}, "a", K1)
    with pytest.raises(EditImpossible, match="--into"):
        add_key({"f": "log: {}"}, "a", K1)
    with pytest.raises(EditImpossible, match="no such key"):
        remove_key({"f": "nodes: {a: {}}"}, "a", K1)
    with pytest.raises(EditImpossible, match="no YAML"):
        add_key({"f": "nodes: ["}, "a", K1)


def test_git_takes_the_patch(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for text in ("nodes:\n  a:\n    roles: []\n", "nodes: {a: {}}"):
        (tmp_path / "fleet.yaml").write_text(text)
        edit = add_key({"fleet.yaml": text}, "a", K1)
        subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=edit.patch().encode(), check=True)
        assert (tmp_path / "fleet.yaml").read_text() == edit.new


_NAMES = st.sampled_from(["a", "b", "ship1", "north.buoy"])
_OWN = st.fixed_dictionaries(
    {},
    optional={
        "roles": st.lists(st.sampled_from(["x", "y"]), unique=True, max_size=2),
        "public_keys": st.lists(st.sampled_from([K2, "U" + "C" * 55]), unique=True, max_size=2),
        "subscribe": st.dictionaries(st.sampled_from(["REQPing"]), st.none() | st.just({})),
    },
)


@settings(max_examples=200, deadline=None)
@given(
    nodes=st.dictionaries(_NAMES, _OWN | st.none(), min_size=1),
    flow=st.sampled_from([True, False, None]),
    indent=st.integers(2, 5),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_the_style_one_key_is_what_changes(
    nodes: dict[str, dict[str, object] | None], flow: bool | None, indent: int, newline: str
) -> None:
    tree = {"version": 1, "nodes": nodes, "log": {"level": "info"}}
    text = yaml.safe_dump(tree, default_flow_style=flow, indent=indent, sort_keys=False)
    text = text.replace("\n", newline)
    edit = add_key({"f": text}, "a", K1)
    found = yaml.safe_load(edit.new)
    keys = found["nodes"]["a"].pop("public_keys")
    old = dict(nodes.get("a") or {})
    assert keys == [*(old.pop("public_keys", None) or []), K1]  # type: ignore[misc]
    assert found["nodes"].pop("a") == old
    assert found == {**tree, "nodes": {name: own for name, own in nodes.items() if name != "a"}}
    if len(keys) > 1:
        assert yaml.safe_load(remove_key({"f": edit.new}, "a", K1).new) == tree
