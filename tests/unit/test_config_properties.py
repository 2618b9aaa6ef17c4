"""Over generated configs: what is valid loads, what is not is refused with problems that have places."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings

from appliance.config.error_codes import ERROR_CODES
from appliance.config.shape import prune
from appliance.core.names import parse_subject
from appliance.core.problems import Problem, Severity
from appliance.core.specs import PublisherSpec, SubscriberSpec
from appliance.errors import ConfigInvalid
from tests.support.config_files import BATTERY, ROOT, WARNINGS, load, load_text
from tests.support.config_strategies import slightly_broken_configs, to_yaml, valid_configs

SETTINGS = settings(max_examples=50)
ROLE_METHODS = ("REQPing", "REQPong", "REQCliCommand", "REQToFile", "REQToFileAppend", "REQToConsole",
                "REQHello", "REQOpProcessList", "REQErrorLog")  # fmt: skip


def refusal_of(directory: Path, text: str) -> tuple[Problem, ...]:
    try:
        load_text(directory, text)
    except ConfigInvalid as error:
        return error.problems
    return ()


@SETTINGS
@given(valid_configs())
def test_a_valid_config_loads_and_every_worker_fits_its_subject(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        loaded = load_text(Path(directory), to_yaml(tree))
    assert loaded.desired.declared_nodes == set(tree["nodes"])
    for key, spec in loaded.desired.workers.items():
        parts = parse_subject(spec.subject)
        assert key == spec.key
        assert parts.kind.wants_ack == spec.wants_ack
        assert parts.method == spec.method
        if isinstance(spec, PublisherSpec):
            assert parts.node == spec.to_node
        else:
            assert isinstance(spec, SubscriberSpec)
            assert parts.node in (spec.node, "errorCentral")


def keys_within(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of a tree of maps."""
    if isinstance(tree, dict):
        for key, below in tree.items():
            yield (*path, key)
            yield from keys_within(below, (*path, key))


def small_trees() -> Iterator[Any]:
    """Configs that are shown or refused, as far as they are YAML."""
    paths = [*(ROOT / "configs").rglob("*.yaml"), *BATTERY.glob("*.yaml"), *WARNINGS.glob("*.yaml")]
    for path in sorted(paths):
        raw = path.read_bytes()
        if len(raw) < 4_000:
            with contextlib.suppress(yaml.YAMLError, ValueError, TypeError):
                yield yaml.safe_load(raw)


def test_a_key_that_is_misspelt_anywhere_is_told_as_that_and_hides_no_other_fault(
    tmp_path: Path,
) -> None:
    """What is cut out with it leaves maps that nobody wrote, such as a secret without a source."""
    seen: set[tuple[str, ...]] = set()
    for tree in small_trees():
        for keys in keys_within(tree):
            if keys[:1] + keys[2:] in seen:  # whatever the node, role or method is called
                continue
            seen.add(keys[:1] + keys[2:])
            broken = copy.deepcopy(tree)
            holder = functools.reduce(dict.__getitem__, keys[:-1], broken)
            holder[f"{keys[-1]}x"] = holder.pop(keys[-1])
            found = refusal_of(tmp_path, to_yaml(broken))
            assert all(problem.code in ERROR_CODES for problem in found)
    assert len(seen) > 200


@SETTINGS
@given(slightly_broken_configs())
def test_a_broken_config_is_refused_with_problems_that_have_places(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = refusal_of(Path(directory), to_yaml(tree))
    if not found:
        event("valid still")
        return
    assert any(problem.severity is Severity.ERROR for problem in found)
    for problem in found:
        assert problem.code in ERROR_CODES
        assert problem.line >= 1
        assert problem.column >= 1
        for word in ("Python", "dict", "NoneType", "'str'", "instance of", "\0"):
            assert word not in problem.message + problem.hint


@SETTINGS
@given(valid_configs())
def test_loading_twice_gives_equal_states(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        first = load_text(Path(directory), to_yaml(tree))
        second = load_text(Path(directory), to_yaml(tree))
    assert first == second


def fleet(*, with_roles: bool) -> str:
    lines = ["version: 1", "broker: {embedded: true}"]
    central = "  central: {subscribe: {REQHello: , REQErrorLog: }}"
    entries = "".join(f"      {method}: {{accept_from: [central]}}\n" for method in ROLE_METHODS)
    hello = "    publish: {hello: {to: central, method: REQHello, every: 30s}}"
    if with_roles:
        lines += ["roles:", "  r:", "    subscribe:", entries.rstrip("\n"), hello]
        lines += ["nodes:", central]
        lines += [f"  ship{i}: {{roles: [r], window: {i % 9 + 1}}}" for i in range(1112)]
    else:
        lines += ["nodes:", central]
        for i in range(1112):
            own = entries.replace("[central]}", f"[central], concurrency: {i % 99 + 1}}}")
            lines += [f"  ship{i}:", "    subscribe:", own.rstrip("\n"), hello]
    return "\n".join(lines)


def test_a_fleet_of_a_thousand_nodes_is_checked_in_seconds_with_and_without_roles(
    tmp_path: Path,
) -> None:
    for with_roles in (True, False):
        path = tmp_path / f"{with_roles}.yaml"
        path.write_text(fleet(with_roles=with_roles))
        started = time.process_time()
        loaded = load(path)
        taken_s = time.process_time() - started
        subscribers = [key for key in loaded.desired.workers if key.kind == "subscriber"]
        assert len(subscribers) >= 10_000
        assert taken_s < 10  # about one second; the bound is for a machine that does other things


def test_a_file_of_unknown_keys_is_refused_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "another.yaml"
    path.write_text(fleet(with_roles=True) + "".join(f"\nkey{i}: 1" for i in range(20_000)))
    started = time.process_time()
    with pytest.raises(ConfigInvalid) as caught:
        load(path)
    assert time.process_time() - started < 15
    assert {problem.code for problem in caught.value.problems} == {"E101"}
    assert len(caught.value.problems) == 20_000


def test_what_is_left_out_is_left_out_of_a_copy() -> None:
    tree = {"a": {"b": {"c": 1, "d": 2}, "e": [1, {"f": 1}]}, "g": 1}
    before = copy.deepcopy(tree)
    bad_paths = [("a", "b", "c"), ("a", "e", 1, "f"), ("a", "b", "x", "y"), ("h",), ("a", "b", "c")]
    assert prune(tree, bad_paths) == {"a": {"b": {"d": 2}}, "g": 1}
    assert prune(tree, [*bad_paths, ("a",), ("a", "b", "d")]) == {"g": 1}
    assert tree == before


def test_a_fleet_full_of_mistakes_is_refused_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    numbers = itertools.count()
    text = re.sub(r"\[central\]", lambda _: f"[centrall{next(numbers)}]", fleet(with_roles=False))
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(ConfigInvalid) as caught:
        load(path)
    assert time.process_time() - started < 15
    assert len(caught.value.problems) >= 10_000
    assert 'closest: "central"' in caught.value.problems[0].message
