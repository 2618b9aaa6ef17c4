"""Texts with placeholders, as methods of the user's own write them: ``{args.0}``, ``{data}``, ``{from}`` and the like.

A template is parsed once; rendering only joins, so that nothing in a value is ever read as a placeholder. Braces
that are meant as such are doubled. ``${node}`` is filled in first, when the node is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from appliance.core.message import Message
from appliance.core.names import NodeName


class Source(StrEnum):
    """What a placeholder stands for."""

    ARGUMENT = "args"
    REST = "args.*"
    DATA = "data"
    FROM = "from"
    TO = "to"
    ID = "id"


class Placeholder(NamedTuple):
    """One placeholder; `number` counts for an argument only."""

    source: Source
    number: int = 0

    def __str__(self) -> str:
        if self.source is Source.ARGUMENT:
            return f"{{args.{self.number}}}"
        return f"{{{self.source}}}"


Template = tuple[str | Placeholder, ...]
"""Literal texts and placeholders, in order; no two literals side by side."""

_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_ARGUMENT = re.compile(r"args\.(0|[1-9][0-9]{0,3})")
_WORDS = {str(source): source for source in Source if source is not Source.ARGUMENT}
KNOWN = "{args.N}, {args.*}, {data}, {from}, {to}, {id}"

_NODE = "${node}"
_ESCAPED_NODE = "$${node}"


def fill_node(text: str, node: NodeName) -> str:
    """Put the own node's name in; ``$${node}`` comes to stand for itself."""
    if _NODE not in text:
        return text
    parts = text.split(_ESCAPED_NODE)
    return "${{node}}".join(part.replace(_NODE, node) for part in parts)


def parse_template(text: str) -> Template:
    """Take a text apart.

    Raises:
        ValueError: a placeholder is unknown, or a brace stands alone; the text says which.
    """
    parts: list[str | Placeholder] = []
    literal = ""
    end = 0
    for match in _TOKEN.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        token = match.group()
        if token in ("{{", "}}"):
            literal += token[0]
            continue
        if len(token) < 2:
            raise ValueError(f"a single `{token}`; one that is meant as such is doubled")
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_read(token[1:-1]))
    literal += text[end:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def _read(word: str) -> Placeholder:
    argument = _ARGUMENT.fullmatch(word)
    if argument is not None:
        return Placeholder(Source.ARGUMENT, int(argument[1]))
    source = _WORDS.get(word)
    if source is None:
        shown = word if len(word) <= 20 else f"{word[:19]}…"
        raise ValueError(f"{{{shown}}} is no placeholder")
    return Placeholder(source)


def placeholders_of(template: Template) -> list[Placeholder]:
    """Those of a template, in order."""
    return [part for part in template if isinstance(part, Placeholder)]


def highest_argument(templates: Iterable[Template]) -> int:
    """The highest argument that is named by its number; -1 when none is."""
    return max(
        (
            part.number
            for template in templates
            for part in placeholders_of(template)
            if part.source is Source.ARGUMENT
        ),
        default=-1,
    )


class Values(NamedTuple):
    """What the placeholders stand for in one message."""

    args: tuple[str, ...]
    data: str
    from_node: str
    to_node: str
    id: int


def values_of(message: Message, node: NodeName) -> Values:
    """The values in `message`, handled on `node`."""
    return Values(
        args=message.method_args or (),
        data="".join(message.data or ()),
        from_node=message.from_node,
        to_node=node,
        id=message.id,
    )


def render(template: Template, values: Values, quote: Callable[[str], str] = str) -> str | None:
    """The text, each value quoted by `quote`; None when it names an argument that the message does not have."""
    parts: list[str] = []
    for part in template:
        if isinstance(part, str):
            parts.append(part)
            continue
        value = _value(part, values)
        if value is None:
            return None
        parts.append(quote(value))
    return "".join(parts)


def _value(placeholder: Placeholder, values: Values) -> str | None:
    match placeholder.source:
        case Source.ARGUMENT:
            number = placeholder.number
            return values.args[number] if number < len(values.args) else None
        case Source.DATA:
            return values.data
        case Source.FROM:
            return values.from_node
        case Source.TO:
            return values.to_node
        case Source.ID:
            return str(values.id)
        case Source.REST:
            raise ValueError("the rest of the arguments stands for several texts")
