"""Which nodes of the fleet a command is for: names, patterns, roles, labels, and what is left out of them. Pure.

A target is one of these; several are a union, in the order they are given, each in the order that people count in:

    ship1            a node, whether or not the config knows it
    ship*  sh?p1     nodes by name: `*` is anything, `?` one character
    @edge            nodes that have the role, which may be a pattern, too
    site=oslo        nodes with that label of that value, which may be a pattern, too
    all              every node that the config declares
    !TARGET          none of those

A target that means no node at all is refused, one that is left out most of all: it may be a slip for a node that is then
not left out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.core.names import NodeName
from appliance.core.specs import NodeTraits
from appliance.core.suggest import did_you_mean, find_nearest, shorten
from appliance.errors import TargetsUnclear

MAX_TARGETS = 10_000
"""Targets of one choice."""
MAX_PATTERNS = 256
"""Of them all that are not plain names: each is held against every node."""
MAX_TARGET_CHARACTERS = 300

EVERYTHING = "all"
_WILD = frozenset("*?")
_MARKS = frozenset("*?@=!")
_FOREIGN = frozenset("[]{}()^~&|;<>\\'\"")
"""What other programs' patterns hold: taken as a part of a name it would quietly mean something else."""


class TargetKind(StrEnum):
    """What a target is held against."""

    NAME = "name"
    ROLE = "role"
    LABEL = "label"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Target:
    """One target: `pattern` is held against the name, a role, or the value of `label`; `text` is as it was written."""

    text: str
    kind: TargetKind
    pattern: str = ""
    label: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it names one node, known or not."""
        return self.kind is TargetKind.NAME and not _WILD & set(self.pattern)


@dataclass(frozen=True, slots=True)
class Targets:
    """What is wanted, and what is left out of it."""

    wanted: tuple[Target, ...]
    left_out: tuple[Target, ...] = ()

    @property
    def are_plain(self) -> bool:
        """Whether they are names and nothing else, for which nobody must be asked."""
        return not self.left_out and all(target.is_plain for target in self.wanted)


@dataclass(frozen=True, slots=True)
class Choice:
    """The nodes, each once; of those in `named` a target said the name itself."""

    nodes: tuple[str, ...]
    named: frozenset[str]


def is_selector(text: str) -> bool:
    """Whether it may mean several nodes: a pattern, a role or a label, and no plain name."""
    return bool(_MARKS & set(text))


def split_targets(texts: Iterable[str]) -> list[str]:
    """Targets given one by one or separated by commas."""
    return [part for text in texts for part in map(str.strip, text.split(",")) if part]


def read_targets(texts: Iterable[str], excluded: Iterable[str] = ()) -> Targets:
    """Targets as they are written; those of `excluded` are left out, without the mark `!`.

    Raises:
        TargetsUnclear: one is none, there are too many, or none says which nodes are wanted at all.
    """
    wanted: list[Target] = []
    left_out = [_read(text) for text in split_targets(excluded)]
    for text in split_targets(texts):
        if text.startswith("!"):
            left_out.append(_read(text[1:], f"behind the ! of {shorten(text)}"))
        else:
            wanted.append(_read(text))
    if not wanted:
        tail = ": say first which nodes, `all` for instance, then which of them not" * bool(
            left_out
        )
        raise TargetsUnclear(f"no node is named{tail}")
    found = [*wanted, *left_out]
    if len(found) > MAX_TARGETS:
        raise TargetsUnclear(f"{len(found)} targets exceed the limit of {MAX_TARGETS}")
    patterns = sum(not target.is_plain for target in found)
    if patterns > MAX_PATTERNS:
        raise TargetsUnclear(f"{patterns} patterns exceed the limit of {MAX_PATTERNS}")
    return Targets(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(left_out)))


def _read(text: str, where: str = "") -> Target:
    shown = shorten(text)
    if not text:
        raise TargetsUnclear(f"nothing stands {where}" if where else "a target is empty")
    if len(text) > MAX_TARGET_CHARACTERS:
        raise TargetsUnclear(f"{shown} is longer than {MAX_TARGET_CHARACTERS} characters")
    if text.startswith("!"):
        raise TargetsUnclear(f"{shown}: what is left out is written without a !")
    if strange := sorted(_FOREIGN & set(text)):
        raise TargetsUnclear(
            f"{shown} holds {strange[0]!r}: patterns know * and ? only, and several targets stand one after the other"
        )
    if text == EVERYTHING:
        return Target(text, TargetKind.ALL)
    if text.startswith("@"):
        return Target(text, TargetKind.ROLE, _pattern(text[1:], text, "a role, as in @edge"))
    label, equals, value = text.partition("=")
    if equals:
        if not label or _MARKS & set(label):
            raise TargetsUnclear(f"{shown} begins with no label's name, as in site=oslo")
        return Target(
            text, TargetKind.LABEL, _pattern(value, text, "a value, as in site=oslo"), label
        )
    return Target(text, TargetKind.NAME, _pattern(text, text, "a name"))


def _pattern(pattern: str, text: str, what: str) -> str:
    if not pattern or (_MARKS - _WILD) & set(pattern):
        raise TargetsUnclear(f"{shorten(text)} does not hold {what}")
    return pattern


def choose(targets: Targets, nodes: Mapping[NodeName, NodeTraits]) -> Choice:
    """The nodes that are meant, of those that the config declares; plain names may be of others.

    Raises:
        TargetsUnclear: a target means none of them, or none is left.
    """
    in_order = sorted(nodes, key=natural_key)
    if EVERYTHING in nodes and any(
        target.kind is TargetKind.ALL for target in (*targets.wanted, *targets.left_out)
    ):
        raise TargetsUnclear(
            f"`{EVERYTHING}` stands for every node, and one is called so here, too: write '*' for every node, and for"
            f" that one a pattern that it alone matches, such as '?{EVERYTHING[1:]}'"
        )
    chosen: dict[str, None] = {}
    for target in targets.wanted:
        chosen |= dict.fromkeys(_meant(target, nodes, in_order, is_open=True))
    named = frozenset(target.pattern for target in targets.wanted if target.is_plain)
    left_out: set[str] = set()
    for target in targets.left_out:
        # one that no config knows can be left out where it was named
        is_named = target.is_plain and target.pattern in named
        left_out.update(_meant(target, nodes, in_order, is_open=is_named))
    found = tuple(node for node in chosen if node not in left_out)
    if not found:
        count = "the only node that matches is" if len(chosen) == 1 else f"all {len(chosen)} are"
        raise TargetsUnclear(f"no node is left: {count} left out again")
    return Choice(found, named & frozenset(found))


def _meant(
    target: Target,
    nodes: Mapping[NodeName, NodeTraits],
    in_order: Sequence[NodeName],
    *,
    is_open: bool,
) -> Sequence[str]:
    """The declared nodes that a target means; with `is_open` a plain name is taken as it is."""
    if target.is_plain and (is_open or target.pattern in nodes):
        return [target.pattern]
    fits = compile_pattern(target.pattern)
    found: Sequence[str]
    match target.kind:
        case TargetKind.ALL:
            found = in_order
        case TargetKind.NAME:
            found = [node for node in in_order if fits(node)]
        case TargetKind.ROLE:
            found = [node for node in in_order if any(map(fits, nodes[node].roles))]
        case TargetKind.LABEL:
            wanted = target.label
            found = [
                node
                for node in in_order
                if any(name == wanted and fits(value) for name, value in nodes[node].labels)
            ]
    if not found:
        raise TargetsUnclear(_explain_nothing(target, nodes))
    return found


def _explain_nothing(target: Target, nodes: Mapping[NodeName, NodeTraits]) -> str:
    plain = target.pattern.translate({ord(mark): None for mark in _WILD})
    match target.kind:
        case TargetKind.ALL:
            return "the config declares no node"
        case TargetKind.NAME:
            what = "is called" if target.is_plain else "matches"
            return f"no node {what} {shorten(target.pattern)}{_nearest(plain, nodes)}"
        case TargetKind.ROLE:
            roles = {role for traits in nodes.values() for role in traits.roles}
            return f"no node has the role {shorten(target.pattern)}{_nearest(plain, roles, '@')}"
    labels = {name for traits in nodes.values() for name, _ in traits.labels}
    if target.label not in labels:
        # without a hint where there are none at all: then it is said how to give them
        hint = _nearest(target.label, labels) if labels else " (`labels:` of a node gives it some)"
        return f"no node has a label {shorten(target.label)}{hint}"
    values = {
        value for traits in nodes.values() for name, value in traits.labels if name == target.label
    }
    return f"no node has {shorten(target.text)}{_nearest(plain, values, f'{target.label}=')}"


def _nearest(word: str, known: Iterable[str], mark: str = "") -> str:
    nearest = find_nearest(word, sorted(known)) if word else None
    return did_you_mean(f"{mark}{nearest}" if nearest else None)


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text is as the pattern says."""
    if not _WILD & set(pattern):
        return lambda text: text == pattern
    # the library's own: no text makes the search long, however many stars; brackets, which it knows, were refused
    made = re.compile(fnmatch.translate(pattern))
    return lambda text: made.match(text) is not None


_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts as people count: ship2 before ship10."""
    # every second part is digits, so that texts meet texts and numbers numbers
    parts = enumerate(_DIGITS.split(name))
    return tuple(int(part) if index % 2 else part for index, part in parts), name
