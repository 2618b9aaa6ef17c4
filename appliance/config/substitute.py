"""``${NAME}`` and ``${NAME:-default}`` in scalars, after parsing: a value can never change the
structure.

As in a shell the default also stands in for an empty variable. ``$${`` is a literal ``${``.
``${node}`` is not of the environment: it stays, for the compiler to fill in per node (and so does
``$${node}``, its escape).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
OWN_NODE = "node"


@dataclass(frozen=True, slots=True)
class Substituted:
    """The outcome. `offset` is where in the text the first problem stands, `is_whole` whether the
    text was one
    reference and nothing else, `changed` whether anything came from the environment."""

    text: str
    code: str = ""
    reason: str = ""
    offset: int = 0
    is_whole: bool = False
    changed: bool = False


def substitute(text: str, environ: Mapping[str, str]) -> Substituted:
    """Replace every reference in `text`; the first that cannot be replaced ends it with a code."""
    parts: list[str] = []
    end = 0
    changed = False
    is_whole = False
    for match in _REFERENCE.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        escaped, inner, closed = match.groups()
        if escaped:
            keeps_escape = inner == OWN_NODE and bool(closed)
            parts.append(match.group() if keeps_escape else match.group()[1:])
            continue
        if inner == OWN_NODE and closed:
            parts.append(match.group())
            continue
        name = _NAME.fullmatch(inner)
        if not closed or name is None:
            reason = "a reference is written ${NAME} or ${NAME:-default}"
            return Substituted(text, "E014", reason, match.start())
        value = environ.get(name[1]) or name[2]
        if value is None:
            value = environ.get(name[1])
        if value is None:
            reason = (
                f"the environment variable {name[1]} is not set and the reference has no default"
            )
            return Substituted(text, "E013", reason, match.start())
        if not _is_clean(value):
            reason = f"the value of {name[1]} is not UTF-8 text"
            return Substituted(text, "E013", reason, match.start())
        parts.append(value)
        changed = True
        is_whole = match.start() == 0 and end == len(text)
    parts.append(text[end:])
    return Substituted("".join(parts), is_whole=is_whole, changed=changed)


def _is_clean(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
