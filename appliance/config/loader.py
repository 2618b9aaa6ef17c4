"""The one way from paths to a desired state, for `check` and for the daemon alike."""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from croniter import CroniterError, croniter

from appliance.config.arguments import find_argument_problem, find_schema_problem
from appliance.config.compiler.compile import ChooseNodes, Compiled, compile_settings
from appliance.config.compiler.findings import CASCADING, PLACE, Finding
from appliance.config.compiler.layers import as_map, find_value
from appliance.config.compiler.local_checks import ZoneTable
from appliance.config.files import FileSet
from appliance.config.merge import RawConfig, compose, read_config
from appliance.config.positions import Place, make_problem
from appliance.config.secrets import add_excerpts
from appliance.config.shape import find_problems, prune
from appliance.core.method import MethodTable
from appliance.core.names import is_method_name
from appliance.core.problems import Problem, Severity
from appliance.core.schedule import SPELLED_OUT, spell_out
from appliance.core.specs import DesiredState
from appliance.errors import ConfigInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A config without errors. `files` holds its texts by name."""

    desired: DesiredState
    digest: str
    files: Mapping[str, str]
    blank: frozenset[str] = frozenset()
    """Names of files that hold nothing."""
    warnings: tuple[Problem, ...] = ()
    place: Callable[[Problem], Problem] = field(default=lambda problem: problem, compare=False)
    """Gives a problem that was found later, and knows its path only, its place in the files."""
    find_setting: Callable[[str, str, str], Place | None] = field(
        default=lambda _node, _method, _setting: None, compare=False
    )
    """Where the setting in force of a node's subscription stands; the entry for "", None where nothing says it."""


def load_desired(
    paths: Sequence[str | os.PathLike[str]],
    *,
    environ: Mapping[str, str],
    methods: MethodTable,
    run_nodes: Sequence[str] | ChooseNodes | None = None,
) -> LoadedConfig:
    """Read, check and compile a config.

    Args:
        run_nodes: nodes to run, or a function that chooses them from the declared ones; None for
        all.

    Raises:
        ConfigUnreadable: a path given cannot be read at all.
        ConfigInvalid: with every problem, in the order of files and lines.
        RunNodesUnclear: raised by `run_nodes`, if it does.
    """
    return _compile(read_config(paths, environ), methods, run_nodes)


def load_kept(
    files: Mapping[str, str],
    digest: str,
    *,
    environ: Mapping[str, str],
    methods: MethodTable,
    run_nodes: Sequence[str] | ChooseNodes | None = None,
) -> LoadedConfig:
    """Check and compile texts that were kept by name, whatever the files hold now.

    Raises:
        ConfigInvalid: they are no good config any more (another version, a variable that is gone).
        RunNodesUnclear: raised by `run_nodes`, if it does.
    """
    contents = {name: text.encode() for name, text in files.items()}
    return load_given(contents, digest, environ=environ, methods=methods, run_nodes=run_nodes)


def load_given(
    files: Mapping[str, bytes],
    digest: str,
    *,
    environ: Mapping[str, str],
    methods: MethodTable,
    run_nodes: Sequence[str] | ChooseNodes | None = None,
) -> LoadedConfig:
    """Check and compile files that somebody else has read. Raises as `load_desired`, but never ConfigUnreadable."""
    raw = compose(FileSet(contents=dict(files), digest=digest), environ)
    return _compile(raw, methods, run_nodes)


def _compile(
    raw: RawConfig, methods: MethodTable, run_nodes: Sequence[str] | ChooseNodes | None
) -> LoadedConfig:
    shape_problems, bad_paths = find_problems(raw)
    problems = raw.problems + shape_problems
    compiled: Compiled | None = None
    if raw.is_whole:
        is_partial = _has_errors(problems)
        compiled = compile_settings(
            # with what is broken cut out the rest is still judged, so that one look tells all faults
            _keep_names(prune(raw.tree, bad_paths), raw.tree) if bad_paths else raw.tree,
            methods,
            # the node to run may be among what was cut out, which is no fault of its own
            () if is_partial else run_nodes,
            find_cron_error=find_cron_error,
            zones=ZONES,
            find_schema_problem=find_schema_problem,
            find_argument_problem=find_argument_problem,
        )
        problems = problems + [
            _place_finding(raw, finding)
            for finding in compiled.findings
            # these may only follow from what was cut out
            if not (is_partial and finding.code in CASCADING)
        ]
    problems = _in_order([_hide(raw, problem) for problem in problems], raw.files)
    if problems:
        problems = add_excerpts(problems, raw.shown_files(keep_columns=True))
    if compiled is None or compiled.desired is None or _has_errors(problems):
        raise ConfigInvalid(problems)
    return LoadedConfig(
        desired=replace(compiled.desired, hidden=raw.hidden),
        digest=raw.digest,
        files=raw.files,
        blank=raw.blank,
        warnings=tuple(problems),
        place=partial(_place_problem, raw),
        find_setting=partial(_find_setting, raw),
    )


def _find_setting(raw: RawConfig, node: str, method: str, setting: str) -> Place | None:
    if setting == "args":
        return raw.place_of(("methods", method, setting), on_key=True)
    own = as_map(find_value(raw.tree, ("nodes", node)))
    # the nearest layer wins: the node's own entry, then its roles, the last one first
    owners = [("nodes", node)]
    owners += [("roles", role) for role in reversed(own.get("roles") or ())]
    for owner in owners:
        path = (*owner, "subscribe", method, *((setting,) if setting else ()))
        subscribed = as_map(find_value(raw.tree, (*owner, "subscribe")))
        if method in subscribed and (not setting or setting in as_map(subscribed[method])):
            return raw.place_of(path, on_key=True)
    return None


def _hide(raw: RawConfig, problem: Problem) -> Problem:
    hide = raw.hidden.text
    return replace(
        problem, message=hide(problem.message), hint=hide(problem.hint), path=hide(problem.path)
    )


def _place_problem(raw: RawConfig, problem: Problem) -> Problem:
    problem = _hide(raw, problem)
    path = tuple(problem.path.split("."))
    if problem.line or path[0] not in raw.source_map.children:
        return problem  # what the files do not mention at all has no place in them
    place = raw.place_of(path)
    if place is None:
        return problem
    placed = replace(
        problem, file=place.file, line=place.line, column=place.column, length=place.length
    )
    return add_excerpts([placed], raw.shown_files(keep_columns=True))[0]


def _has_errors(problems: Sequence[Problem]) -> bool:
    return any(problem.severity is Severity.ERROR for problem in problems)


def _keep_names(pruned: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Leave the names of methods that were cut out: what refers to one has no fault of its own."""
    names = as_map(whole.get("methods"))
    kept = as_map(pruned.get("methods"))
    lost: dict[str, Any] = {
        name: {} for name in names if name not in kept and is_method_name(str(name))
    }
    return {**pruned, "methods": {**kept, **lost}} if lost else pruned


def _place_finding(raw: RawConfig, finding: Finding) -> Problem:
    problem = make_problem(
        finding.code,
        raw.place_of(finding.path, on_key=finding.on_key),
        finding.message,
        hint=finding.hint,
        path=finding.path,
    )
    if finding.also is not None:
        there = str(raw.place_of(finding.also, on_key=True) or "?")
        problem = replace(
            problem,
            message=problem.message.replace(PLACE, there),
            hint=problem.hint.replace(PLACE, there),
        )
    return problem


def _in_order(problems: Sequence[Problem], files: Mapping[str, str]) -> list[Problem]:
    """By file as they were read, then by line and column; the same problem told once."""
    order = {name: index for index, name in enumerate(files)}
    return sorted(
        dict.fromkeys(problems),
        key=lambda problem: (
            order.get(problem.file, len(order)),
            problem.line,
            problem.column,
            problem.code,
        ),
    )


# The time zones that this machine knows, from its own database or from the package `tzdata`.


def has_zone(name: str) -> bool:
    """Whether `name` is a time zone; names that are no names at all, such as paths, are none."""
    try:
        zoneinfo.ZoneInfo(name)
    except (
        KeyError,
        ValueError,
        OSError,
    ):  # NB: a directory of the database, or a text too long for a path
        return False
    return True


@cache
def list_zones() -> tuple[str, ...]:
    """Every name, in order."""
    return tuple(sorted(zoneinfo.available_timezones()))


ZONES = ZoneTable(has_zone, list_zones)


# Whether a text is a cron expression; the library answers, and nothing of it leaves this file.

_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_FIELDS = 5


def find_cron_error(text: str) -> str | None:
    """Why `text` is no cron expression that ever comes due; None if it is one."""
    written = spell_out(text)
    parts = written.split()
    if written.startswith("@"):
        return f"none of {', '.join(sorted(SPELLED_OUT))}"
    if len(parts) != _FIELDS:
        return f"{len(parts)} fields instead of {_FIELDS}"
    if any(part[0] in "hHrR" for part in parts):  # the library would throw dice, anew for each look
        return "times by chance are not supported"
    if _comes_due(parts):
        return None
    for index, (name, bounds) in enumerate(_FIELD_WORDS):
        alone = ["*"] * _FIELDS
        alone[index] = parts[index]
        if not _comes_due(alone):
            return f"its {name} ({bounds}) is wrong"  # the text itself may be a secret
    return "it never comes due"  # each field is one, and there is no such day


_FIELD_WORDS = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12, jan to dec"),
    ("day of the week", "0 to 7, sun to sat"),
)


def _comes_due(parts: Sequence[str]) -> bool:
    try:
        croniter(" ".join(parts), _SOME_DAY).get_next(float)
    except (CroniterError, ValueError, KeyError, AttributeError, IndexError):
        return False
    return True
