"""Whether one node may have another do something, as the config of the fleet says, and which of its lines says so. Pure.

The questions are the ones that a subscriber asks, put by the same functions; what only the node itself can know (where a
link leads, what its runner allows) is named beside the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from appliance.core.admission import find_refusal
from appliance.core.allow import is_command_allowed, is_path_allowed
from appliance.core.message import Message
from appliance.core.method import MethodInfo, MethodTable
from appliance.core.names import MethodName, NodeName
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.core.urls import find_permission, parse_url

FindArgumentProblem = Callable[[str, Sequence[str]], str | None]


class Question(NamedTuple):
    """`sender` asks `node` for a method with these arguments."""

    node: str
    method: str
    arguments: tuple[str, ...]
    sender: str


class Verdict(NamedTuple):
    """The answer, and the setting of the subscription that gives it: "" where that is the entry itself or its absence."""

    is_allowed: bool
    because: str
    setting: str = ""
    item: int | None = None
    """Which of the setting's patterns covers it."""
    notes: tuple[str, ...] = ()
    """What is decided at the node, beside the config."""


def judge(
    question: Question,
    fleet: DesiredState,
    methods: MethodTable,
    find_argument_problem: FindArgumentProblem,
) -> Verdict:
    """Answer a question by a config that was compiled for the node."""
    info = methods.get(MethodName(question.method))
    if info is None:
        nearest = find_nearest(question.method, methods)
        return _no(f"there is no method {question.method[:60]}{did_you_mean(nearest)}")
    if question.node not in fleet.declared_nodes:
        nearest = find_nearest(question.node, sorted(fleet.declared_nodes))
        return _no(f"{question.node[:60]} is not declared{did_you_mean(nearest)}")
    found = [
        spec
        for spec in fleet.workers.values()
        if isinstance(spec, SubscriberSpec)
        and (spec.node, spec.method) == (question.node, question.method)
    ]
    if not found:
        return _no(f"{question.node} does not subscribe {question.method}")
    spec = found[0]
    refusal = _refusal_of(question, spec, info, fleet)
    if refusal is not None:
        return _no(refusal, "accept_from" if spec.accept_from is not None else "")
    return _judge_arguments(question, spec, info, find_argument_problem)


def _refusal_of(
    question: Question, spec: SubscriberSpec, info: MethodInfo, fleet: DesiredState
) -> str | None:
    subject_node = info.subject_node or spec.node
    message = Message(
        to_node=subject_node, from_node=NodeName(question.sender), method=question.method
    )
    return find_refusal(spec, subject_node, message, fleet.declared_nodes)


def _judge_arguments(
    question: Question,
    spec: SubscriberSpec,
    info: MethodInfo,
    find_argument_problem: FindArgumentProblem,
) -> Verdict:
    arguments = question.arguments
    if spec.definition is not None:
        problem = find_argument_problem(spec.definition.args, arguments)
        if problem is not None:
            return _no(problem, "args")
        return Verdict(True, f"{question.node} takes it from {question.sender}")
    if "allow_commands" in info.options:
        return _judge_command(spec, arguments)
    if "allow_urls" in info.options:
        return _judge_url(spec, arguments)
    if info.path_argument is not None:
        return _judge_path(spec, arguments, info.path_argument)
    return Verdict(True, f"{question.node} takes it from {question.sender}")


def _judge_command(spec: SubscriberSpec, arguments: tuple[str, ...]) -> Verdict:
    if not arguments:
        return _no("no program is named")
    notes = (f"the allow list of the runner at {spec.runner} decides, too",) if spec.runner else ()
    if spec.allow_commands is None:
        return Verdict(True, "any command is allowed", "allow_commands", notes=notes)
    for item, pattern in enumerate(spec.allow_commands):
        if is_command_allowed(arguments, [pattern]):
            return Verdict(True, "a pattern covers it", "allow_commands", item, notes)
    return _no("no pattern covers it", "allow_commands")


def _judge_path(spec: SubscriberSpec, arguments: tuple[str, ...], at: int) -> Verdict:
    if len(arguments) <= at:
        return _no("the path is missing")
    notes = ("links are followed first: what counts is where the path leads at the node",)
    if spec.allow_paths is None:
        return Verdict(True, "any path is allowed", "allow_paths")
    path = arguments[at]
    if any(name in (".", "..") for name in path.split("/")):
        return _no("write the path without . and .., as it is where it leads", "allow_paths")
    for item, pattern in enumerate(spec.allow_paths):
        if is_path_allowed(path, [pattern]):
            return Verdict(True, "a pattern covers it", "allow_paths", item, notes)
    return _no("no pattern covers it", "allow_paths")


def _judge_url(spec: SubscriberSpec, arguments: tuple[str, ...]) -> Verdict:
    if not arguments:
        return _no("the URL is missing")
    url = parse_url(arguments[0])
    if isinstance(url, str):
        return _no(url)
    if spec.allow_urls is None:
        note = "an address that is not on the open internet is refused at the node"
        return Verdict(True, "any public address is allowed", "allow_urls", notes=(note,))
    for item, pattern in enumerate(spec.allow_urls):
        if find_permission(url, [pattern]) is not None:
            return Verdict(True, "a pattern covers it", "allow_urls", item)
    return _no("no pattern covers it", "allow_urls")


def _no(because: str, setting: str = "") -> Verdict:
    return Verdict(False, because, setting)
