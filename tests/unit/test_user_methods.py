"""Methods of the config as others see them: the help text, the list, overrides beside the config."""

from __future__ import annotations

from pathlib import Path

from appliance.api.model import Method
from appliance.cli.method_commands import render_list, render_method, render_usage
from appliance.core.describe_methods import describe_methods
from appliance.core.names import NodeName, Subject, WorkerKey, WorkerKind
from appliance.core.overrides import Override, apply_overrides
from appliance.methods.registry import METHOD_TABLE
from tests.support.api_answers import read
from tests.support.config_files import desired_of

TEXT = r"""
version: 1
broker: {embedded: true}
nodes: {ship1: {subscribe: {Off: {enabled: false, accept_from: [ship1]}}}}
methods:
  Off: {exec: [date]}
  Rotate:
    summary: "Rotate \e[2Jlogs"
    exec: [rotate, "{args.0}", "{args.1}", "{args.2}", "{args.*}"]
    timeout: 90s
    args:
      prefixItems:
        - {title: log name, enum: [access, error], description: Which log.}
        - {title: keep, type: integer, minimum: 1, maximum: 9}
        - {title: now, type: boolean}
        - {pattern: "^[a-z]+$", maxLength: 5}
      minItems: 1
      maxItems: 8
      items: {title: host}
"""


def read_methods(declared) -> list[Method]:
    return read(describe_methods(METHOD_TABLE, declared), list[Method])


def test_help_of_a_method_names_every_argument_and_no_terminal_obeys_it(tmp_path: Path) -> None:
    methods = read_methods(desired_of(tmp_path, TEXT).methods)
    (rotate,) = [method for method in methods if method.name == "Rotate"]
    assert render_usage(rotate) == [
        "usage: appliance send --to NODE Rotate LOG-NAME [KEEP] [NOW] [ARGUMENT-4] [HOST…]",
        "  LOG-NAME    access | error",
        "              Which log.",
        "  KEEP        whole number from 1 to 9, may be left out",
        "  NOW         true or false, may be left out",
        "  ARGUMENT-4  text like ^[a-z]+$ of 0 to 5 characters, may be left out",
        "  HOST        text, may be left out, up to 4 of them",
    ]
    shown = render_method(rotate)
    assert shown.startswith("Rotate: Rotate \\x1b[2Jlogs\n")
    assert shown.endswith("stopped after 1m30s unless a message says more")
    assert "\na command, declared in the config\n" in shown


def test_help_of_an_event_is_english() -> None:
    methods = {method.name: method for method in read_methods({})}
    assert "\nan event, of the program" in render_method(methods["REQPing"])


def test_list_has_the_methods_of_the_config_first(tmp_path: Path) -> None:
    methods = read_methods(desired_of(tmp_path, TEXT).methods)
    lines = render_list(methods).splitlines()
    assert lines[0] == "of the config:"
    assert lines[1].split() == ["Off", "command", "Run", "date."]
    assert lines[2].startswith("  Rotate LOG-NAME")
    assert lines[3:5] == ["", "of the program:"]
    shown = [name for name, info in METHOD_TABLE.items() if not info.is_companion]
    assert len(lines) == 5 + len(shown)
    assert "\x1b" not in "".join(lines)
    assert render_list([]) == ""


def test_method_without_arguments_says_so(tmp_path: Path) -> None:
    (off, *_) = read_methods(desired_of(tmp_path, TEXT).methods)
    assert render_usage(off) == ["usage: appliance send --to NODE Off", "  takes no arguments"]


def test_override_performs_what_the_config_switched_off_or_nothing_for_anybody(
    tmp_path: Path,
) -> None:
    desired = desired_of(tmp_path, TEXT)

    def started(method: str):
        subject = Subject(f"ship1.{method}.CommandACK")
        key = WorkerKey(NodeName("ship1"), subject, WorkerKind.SUBSCRIBER)
        override = Override(key=key, starts=True, by="central", at=0.0)
        return apply_overrides(desired.workers, {key: override}, desired).get(key)

    switched_off, undeclared = started("Off"), started("Rotate")
    assert switched_off.accept_from == {"ship1"}
    assert switched_off.definition.exec.argv == ("date",)
    assert undeclared.accept_from == frozenset()
    assert undeclared.definition is not None
    assert started("Gone") is None


def test_list_fits_a_narrow_terminal(tmp_path: Path) -> None:
    methods = read_methods(desired_of(tmp_path, TEXT).methods)
    lines = render_list(methods, 80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1:3] == ["  Off, a command", "      Run date."]
    assert render_list(methods, 200) == render_list(methods)
