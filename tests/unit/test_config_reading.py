"""Scalars, references, durations: how the text of a config becomes values."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import parse
from appliance.config.merge import read_config
from appliance.config.parse import parse_file
from appliance.config.scalars import NumberRefused, find_old_reading, resolve_plain, substitute
from appliance.core.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("nULL", "nULL"),
        ("true", True), ("False", False), ("tRUE", "tRUE"),
        ("no", "no"), ("yes", "yes"), ("off", "off"), ("on", "on"), ("y", "y"),
        ("12", 12), ("-7", -7), ("+3", 3), ("012", 12), ("0o17", 15), ("0x1F", 31), ("-0x1F", "-0x1F"),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("1_000", "1_000"), ("1.5.0", "1.5.0"),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("5s", "5s"), ("127.0.0.1:80", "127.0.0.1:80"),
        (".", "."), ("-", "-"), ("+", "+"), ("e3", "e3"), ("0b1", "0b1"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_rules_of_yaml_1_2(text: str, value: object) -> None:
    resolved = resolve_plain(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", ".nan", "1e999", "9" * 19, "9" * 5000, "0x" + "f" * 50]
)
def test_numbers_that_no_setting_can_hold_are_refused(text: str) -> None:
    with pytest.raises(NumberRefused):
        resolve_plain(text)


@given(st.text("0123456789_:.+-eExobyYnNOof T~=<", max_size=12))
def test_whatever_a_yaml_1_1_reader_sees_otherwise_is_noticed(text: str) -> None:
    # PyYAML reads YAML 1.1. Where it would take another value than we do, there must be a warning.
    resolver = yaml.resolver.Resolver()
    try:
        old_tag = resolver.resolve(yaml.ScalarNode, text, (True, False))
        old = yaml.SafeLoader("").construct_object(yaml.ScalarNode(old_tag, text))
    except (ValueError, yaml.YAMLError, IndexError, KeyError):
        old = object()
    try:
        ours = resolve_plain(text)
    except NumberRefused:
        return
    if (type(ours), ours) != (type(old), old):
        assert find_old_reading(text) is not None


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"), ("${A}", "one"), ("x${A}y${B}z", "xoneytwoz"), ("${C:-d}", "d"),
        ("${C:-}", ""), ("${E}", ""), ("${E:-d}", "d"), ("${A:-d}", "one"), ("$${A}", "${A}"),
        ("$A", "$A"), ("$", "$"), ("${node}", "${node}"), ("$${node}", "$${node}"), ("a$$b", "a$$b"),
        ("${C:-a: [b]}", "a: [b]"), ("${C:-:-}", ":-"),
    ],
)  # fmt: skip
def test_references_are_replaced(text: str, result: str) -> None:
    outcome = substitute(text, {"A": "one", "B": "two", "E": ""})
    assert (outcome.code, outcome.text) == ("", result)


@pytest.mark.parametrize(
    ("text", "code", "offset"),
    [
        ("${C}", "E013", 0), ("a${C}", "E013", 1), ("${A}${C}", "E013", 4), ("${", "E014", 0),
        ("${}", "E014", 0), ("${1}", "E014", 0), ("${A-b}", "E014", 0), ("x ${A", "E014", 2),
        ("${BAD}", "E013", 0), ("${NUL}", "E013", 0),
    ],
)  # fmt: skip
def test_references_that_cannot_be_replaced_have_a_code(text: str, code: str, offset: int) -> None:
    outcome = substitute(text, {"A": "one", "BAD": "\udcff", "NUL": "a\0"})
    assert (outcome.code, outcome.offset) == (code, offset)


def test_value_of_a_variable_cannot_change_the_structure(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("log: ${X}\nstate:\n  dir: a${X}\n")
    raw = read_config([tmp_path / "a.yaml"], {"X": "{level: debug}\nnodes: {}"})
    assert raw.tree["log"] == "{level: debug}\nnodes: {}"
    assert set(raw.tree) == {"log", "state"}


def test_whole_unquoted_reference_takes_the_type_of_its_value_and_a_quoted_one_stays_text(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text(
        'a: ${PORT}\nb: "${PORT}"\nc: ${PORT}0\nd: ${YES}\ne: ${NO}\nf: ${EMPTY}\n'
    )
    raw = read_config([tmp_path / "a.yaml"], {"PORT": "42", "YES": "true", "NO": "no", "EMPTY": ""})
    assert raw.tree == {"a": 42, "b": "42", "c": "420", "d": True, "e": "no", "f": ""}
    assert raw.traps == []


def test_keys_are_not_substituted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("${X}: 1\n")
    assert read_config([tmp_path / "a.yaml"], {"X": "log"}).tree == {"${X}": 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("5s", 5), ("1m30s", 90), ("1h", 3600), ("1.5h", 5400), ("0s", 0), ("7us", 7e-6),
        ("7µs", 7e-6), ("1ns", 1e-9), ("1h1h", 7200), (5, 5), (0.5, 0.5), (0, 0),
    ],
)  # fmt: skip
def test_durations_are_written_as_in_go(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "-5s", "1d", "5 s", "5s ", "5s\n", "1e3s", "5S", ".5s", "5.s", "1:30", "٥s",
     -1, float("inf"), float("nan"), True, "1" * 70 + "s"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(text)


@given(st.floats(0, 1e7) | st.integers(0, 10**7) | st.sampled_from([0.25, 90.0, 5400, 1e-9, 1e-4]))
def test_durations_survive_writing_and_reading(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5, abs=1e-9)


def test_pure_and_compiled_yaml_parsers_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "version: 1\nnodes:\n  ship1: {a: [1, 'two', \"three\", no], ü: x}\n"
        "  ship2:\n    - a\n    - b: |\n        text\n  bad: *x\n"
    )
    outcomes = []
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        monkeypatch.setattr(parse, "_LOADER", loader)
        document = parse_file("f", text.encode(), {})
        outcomes.append((document.tree, document.problems, document.traps, document.damaged))
    assert outcomes[0] == outcomes[1]


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_otherwise_than_by_a_problem(text: str) -> None:
    document = parse_file("f", text.encode("utf-8", "surrogatepass"), {})
    assert document.tree is None or isinstance(document.tree, dict)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_fail_otherwise_than_by_a_problem(raw: bytes) -> None:
    parse_file("f", raw, {})


def test_no_mutilation_of_a_real_config_makes_the_reader_fail() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "configs" / "demo" / "appliance.yaml").read_text()
    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(text))
        cut = text[:at] + chance.choice(
            ["", "&a ", "*a", "{", "]", "\t", "${", "'", "!!x ", "\0", "- "]
        )
        document = parse_file("f", (cut + text[at + chance.randrange(3) :]).encode(), os.environ)
        for problem in document.problems:
            assert problem.line >= 1
            assert problem.column >= 1


def test_billion_laughs_and_bottomless_brackets_are_refused_at_once() -> None:
    laughs = "a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(1000))
    assert {problem.code for problem in parse_file("f", laughs.encode(), {}).problems} == {"E007"}
    deep = parse_file("f", b"[" * 100 + b"]" * 100, {})
    assert [problem.code for problem in deep.problems] == ["E012"]
    bottomless = parse_file("f", b"[" * 1_000_000, {})
    assert [problem.code for problem in bottomless.problems] in (["E005"], ["E012"])
