"""What nodes say of their config in every hello, and what a node that hears them concludes about the fleet. Pure.

The report rides in a header of the hello, which Go nodes ignore. It is bounded, and whatever is malformed counts as
no report: then a node is known to live and no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from appliance.core.names import NodeName

MAX_REPORT_BYTES = 2_048
MAX_PROBLEM_CHARACTERS = 300
MAX_WORD_CHARACTERS = 100
SILENT_AFTER_HELLOS = 3
"""Hellos in a row that may be missed before a node counts as silent."""
GRACE_S = 2.0
DEFAULT_INTERVAL_S = 30.0


class NodeState(StrEnum):
    """Where a node stands, seen from the node that hears its hellos."""

    IN_SYNC = "in_sync"
    BEHIND = "behind"
    """Another config is in force there (older, or newer: digests have no order)."""
    REFUSED = "refused"
    """It refused, or took back, the config that its files hold."""
    SILENT = "silent"
    UNKNOWN = "unknown"
    """It says hello and nothing of its config: a Go node, or an older version."""
    UNDECLARED = "undeclared"
    """It says hello, and no config here declares it: it was removed and still runs, or never belonged here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node says of itself. `applied` is the digest in force, `desired` that of its files at the last look."""

    version: str = ""
    generation: int = 0
    applied: str = ""
    desired: str = ""
    revision: str = ""
    branch: str = ""
    dirty: bool | None = None
    result: str = ""
    problems: int = 0
    first_problem: str = ""


_KEYS = {
    "version": "v",
    "generation": "g",
    "applied": "a",
    "desired": "d",
    "revision": "r",
    "branch": "b",
    "dirty": "m",
    "result": "o",
    "problems": "n",
    "first_problem": "p",
}


def encode_report(report: NodeReport) -> str:
    """As a header's value: compact JSON in ASCII."""
    values = {key: getattr(report, name) for name, key in _KEYS.items()}
    # NB: "not dirty" is said, for silence means "not known"
    found = {key: _cut(value) for key, value in values.items() if value or value is False}
    found.pop("p", None)
    problem = report.first_problem
    while True:
        shown = {**found, "p": problem} if problem else found
        text = json.dumps(shown, ensure_ascii=True, separators=(",", ":"))
        if len(text) <= MAX_REPORT_BYTES or not problem:
            return text
        problem = problem[: len(problem) // 2]


def _cut(value: object) -> object:
    return value[:MAX_WORD_CHARACTERS] if isinstance(value, str) else value


def parse_report(text: str | None) -> NodeReport | None:
    """Read a header's value; None for what is no report."""
    if not text or len(text) > MAX_REPORT_BYTES:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    dirty = found.get("m")
    return NodeReport(
        version=_word(found.get("v")),
        generation=_count(found.get("g")),
        applied=_word(found.get("a")),
        desired=_word(found.get("d")),
        revision=_word(found.get("r")),
        branch=_word(found.get("b")),
        dirty=dirty if isinstance(dirty, bool) else None,
        result=_word(found.get("o")),
        problems=_count(found.get("n")),
        first_problem=_word(found.get("p"), MAX_PROBLEM_CHARACTERS),
    )


def _word(value: object, limit: int = MAX_WORD_CHARACTERS) -> str:
    return value[:limit] if isinstance(value, str) else ""


def _count(value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if is_count and isinstance(value, int) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSighting:
    """The last hello of a node: `at` by the wall clock, to be shown; `heard_mono` by the clock that never jumps."""

    at: float
    heard_mono: float
    report: NodeReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStanding:
    """The conclusion about one node."""

    node: NodeName
    state: NodeState
    last_hello_at: float | None
    report: NodeReport | None


def judge_fleet(
    expected: Mapping[NodeName, float | None],
    sightings: Mapping[NodeName, NodeSighting],
    own: NodeReport,
    now_mono: float,
    started_mono: float,
    undeclared: Mapping[NodeName, NodeSighting] = MappingProxyType({}),
) -> list[NodeStanding]:
    """Where every node stands.

    Args:
        expected: nodes that the config has say hello here, and how often in seconds (None: by cron).
        sightings: last hellos of declared nodes.
        own: the config in force here, which the others are compared with.
        now_mono: monotonic seconds.
        started_mono: since when hellos are heard; before that nobody is silent.
        undeclared: last hellos of nodes that the config does not declare.
    """
    standings = [
        NodeStanding(
            node=node, state=NodeState.UNDECLARED, last_hello_at=seen.at, report=seen.report
        )
        for node, seen in undeclared.items()
    ]
    for node in {*expected, *sightings}:
        interval_s = expected.get(node) or DEFAULT_INTERVAL_S
        silent_after_s = SILENT_AFTER_HELLOS * interval_s + GRACE_S
        seen = sightings.get(node)
        heard_mono = seen.heard_mono if seen is not None else started_mono
        is_silent = now_mono - heard_mono > silent_after_s
        standings.append(
            NodeStanding(
                node=node,
                state=_judge(seen, own, is_silent=is_silent),
                last_hello_at=seen.at if seen is not None else None,
                report=seen.report if seen is not None else None,
            )
        )
    return sorted(standings, key=lambda item: item.node)


def _judge(seen: NodeSighting | None, own: NodeReport, *, is_silent: bool) -> NodeState:
    if is_silent:
        return NodeState.SILENT
    if seen is None or seen.report is None:
        return NodeState.UNKNOWN
    report = seen.report
    if report.result in ("refused", "reverted"):
        return NodeState.REFUSED
    # nodes may be started with different paths of one repository: then the commit decides, if both are as it has them
    is_clean = own.dirty is False and report.dirty is False
    same_commit = bool(own.revision) and report.revision == own.revision and is_clean
    return NodeState.IN_SYNC if report.applied == own.applied or same_commit else NodeState.BEHIND
