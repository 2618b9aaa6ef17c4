"""Whether one node may have another do something, as the config of the fleet says, and which of its lines says so. Pure.

The questions are the ones that a subscriber asks, put by the same functions; what only the node itself can know (where a
link leads, what its runner allows) is named beside the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from appliance.core.admission import find_refusal
from appliance.core.allow import is_command_allowed, is_path_allowed
from appliance.core.message import Message
from appliance.core.method import MethodInfo, MethodTable
from appliance.core.names import MethodName, NodeName
from appliance.core.relay import RELAY_METHOD, relay_token, unwrap, wrap
from appliance.core.specs import DesiredState, SubscriberSpec
from appliance.core.suggest import did_you_mean, find_nearest
from appliance.core.urls import find_permission, parse_url

FindArgumentProblem = Callable[[str, Sequence[str]], str | None]

ANY_WAY = "any"
"""In place of a relay: directly, or by way of whichever node passes it on."""


class Question(NamedTuple):
    """`sender` asks `node` for a method with these arguments, by way of the node `via` where one is named."""

    node: str
    method: str
    arguments: tuple[str, ...]
    sender: str
    via: str = ""


class Verdict(NamedTuple):
    """The answer, and the setting of the subscription that gives it: "" where that is the entry itself or its absence."""

    is_allowed: bool
    because: str
    setting: str = ""
    item: int | None = None
    """Which of the setting's patterns covers it."""
    notes: tuple[str, ...] = ()
    """What is decided at the node, beside the config."""
    by_relay: bool = False
    """Whether it is the relay's entry that gives the answer, and not the one of the node that is asked."""
    via: str = ""
    """The relay by way of which it is so; "" where it is so directly."""


def judge(
    question: Question,
    fleet: DesiredState,
    methods: MethodTable,
    find_argument_problem: FindArgumentProblem,
) -> Verdict:
    """Answer a question by a config that was compiled for all of its nodes."""
    info = methods.get(MethodName(question.method))
    if info is None:
        nearest = find_nearest(question.method, methods)
        return _no(f"there is no method {question.method[:60]}{did_you_mean(nearest)}")
    if question.via == ANY_WAY:
        return _judge_any_way(question, fleet, methods, find_argument_problem)
    if question.via:
        return _judge_relayed(question, fleet, methods, find_argument_problem)
    if (unknown := _undeclared(question.node, fleet)) is not None:
        return _no(unknown)
    spec = next(_entries(fleet, question.node, question.method), None)
    if spec is None:
        return _no(f"{question.node} does not subscribe {question.method}")
    subject_node = info.subject_node or spec.node
    asked = Message(
        to_node=subject_node, from_node=NodeName(question.sender), method=question.method
    )
    refusal = find_refusal(spec, subject_node, asked, fleet.declared_nodes)
    if refusal is not None:
        return _no(refusal, "accept_from" if spec.accept_from is not None else "")
    return _judge_arguments(question, spec, info, find_argument_problem)


def find_relays(
    question: Question,
    fleet: DesiredState,
    methods: MethodTable,
    find_argument_problem: FindArgumentProblem,
) -> dict[str, Verdict]:
    """The nodes by way of which it may be had all the same, each with its answer."""
    ending = f".{RELAY_METHOD}."
    relays = dict.fromkeys(
        spec.node
        for spec in fleet.workers.values()
        if isinstance(spec, SubscriberSpec)
        and spec.method == RELAY_METHOD
        and spec.subject.startswith(relay_token(question.node, spec.node) + ending)
    )
    found = {
        via: judge(question._replace(via=via), fleet, methods, find_argument_problem)
        for via in sorted(relays)
    }
    return {via: verdict for via, verdict in found.items() if verdict.is_allowed}


def _judge_any_way(
    question: Question,
    fleet: DesiredState,
    methods: MethodTable,
    find_argument_problem: FindArgumentProblem,
) -> Verdict:
    question = question._replace(via="")
    directly = judge(question, fleet, methods, find_argument_problem)
    if directly.is_allowed:
        return directly
    relays = find_relays(question, fleet, methods, find_argument_problem)
    note = "nor does it get there by way of another node"
    return next(iter(relays.values()), directly._replace(notes=(*directly.notes, note)))


def _judge_relayed(
    question: Question,
    fleet: DesiredState,
    methods: MethodTable,
    find_argument_problem: FindArgumentProblem,
) -> Verdict:
    """Each step as it is taken: by the asking node, by the relay, by the node behind it, who hears the relay ask."""
    via, final = question.via, question.node
    for name in (via, final):
        if (unknown := _undeclared(name, fleet)) is not None:
            return _no(unknown)
    wrapped = wrap(
        Message(
            to_node=final,
            from_node=question.sender,
            method=question.method,
            relay_via_node=via,
        )
    )
    if isinstance(wrapped, str):
        return _no(wrapped)
    entries = list(_entries(fleet, via, RELAY_METHOD))
    if not entries:
        return _no(f"{via} does not subscribe {RELAY_METHOD}")
    subject = f"{wrapped.to_node}.{RELAY_METHOD}."
    spec = next((entry for entry in entries if entry.subject.startswith(subject)), None)
    if spec is None:
        return _by_relay(f"{via} passes nothing on to {final}", "relay_to")
    refusal = find_refusal(spec, wrapped.to_node, wrapped, fleet.declared_nodes)
    if refusal is not None:
        return _by_relay(refusal, "accept_from" if spec.accept_from is not None else "")
    relayed = unwrap(wrapped, spec)
    if isinstance(relayed, str):
        return _by_relay(relayed, "relay_methods")
    there = question._replace(sender=relayed.from_node, via="")
    return judge(there, fleet, methods, find_argument_problem)._replace(via=via)


def _undeclared(name: str, fleet: DesiredState) -> str | None:
    if name in fleet.declared_nodes:
        return None
    return f"{name[:60]} is not declared{did_you_mean(find_nearest(name, sorted(fleet.declared_nodes)))}"


def _entries(fleet: DesiredState, node: str, method: str) -> Iterator[SubscriberSpec]:
    for spec in fleet.workers.values():
        if isinstance(spec, SubscriberSpec) and (spec.node, spec.method) == (node, method):
            yield spec


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


def _by_relay(because: str, setting: str) -> Verdict:
    return Verdict(False, because, setting, by_relay=True)
