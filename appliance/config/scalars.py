"""Plain scalars by the core rules of YAML 1.2, and the ones a YAML 1.1 reader would read otherwise.

Most tools still read YAML 1.1, where ``no`` is false, ``012`` ten and ``22:22`` a number. A config
that two tools read differently is a trap, so such scalars are recognised here and told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

Scalar = str | int | float | bool | None

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {
    word: value
    for value, words in ((True, ("true", "True", "TRUE")), (False, ("false", "False", "FALSE")))
    for word in words
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_START = frozenset("+-.0123456789")
_MAX_DIGITS = 40
_MAX_INT = 2**63 - 1


class NumberRefused(ValueError):
    """A number that no setting can hold."""


def resolve_plain(text: str) -> Scalar:
    """The value of an unquoted scalar.

    Raises:
        NumberRefused: not finite, or too large.
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise NumberRefused(f"{text} is no finite number")
    number: int | float
    if _INT.fullmatch(text):
        number = int(text) if len(text) <= _MAX_DIGITS else math.inf
    elif _OCTAL.fullmatch(text):
        number = int(text[2:], 8) if len(text) <= _MAX_DIGITS else math.inf
    elif _HEX.fullmatch(text):
        number = int(text[2:], 16) if len(text) <= _MAX_DIGITS else math.inf
    elif _FLOAT.fullmatch(text):
        number = float(text)
    else:
        return text
    if not math.isfinite(number) or abs(number) > _MAX_INT:
        raise NumberRefused("a number beyond 64 bits")
    return number


_OLD_BOOLS = {
    form: value
    for value, words in (("true", ("yes", "on")), ("false", ("no", "off")))
    for word in words
    for form in (word, word.capitalize(), word.upper())
}
_OLD = (
    (re.compile(r"[-+]?0[0-9_]+"), "an octal number or text"),
    (re.compile(r"0o[0-7]+"), "text"),
    (re.compile(r"[-+]?0b[01_]+"), "a binary number"),
    (re.compile(r"[-+]?(?:[1-9][0-9]*_[0-9_]*|0x[0-9a-fA-F]*_[0-9a-fA-F_]*)"), "a number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "a number to base 60"),
    (
        re.compile(r"(?=[^_]*_)(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"),
        "a number",
    ),
    (re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][0-9]+|[-+]?[0-9]+[eE][-+][0-9]+"), "text"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"), "a date"),
)


def find_old_reading(text: str) -> str | None:
    """How a YAML 1.1 reader would understand an unquoted scalar that YAML 1.2 reads otherwise;

    None if alike.
    """
    if not text:
        return None
    if text in _OLD_BOOLS:
        return f"the truth value {_OLD_BOOLS[text]}"
    if text in ("=", "<<"):
        return "a special sign"
    if text[0] not in _NUMBER_START:
        return None
    for pattern, reading in _OLD:
        if pattern.fullmatch(text):
            return reading
    return None


# ``${NAME}`` and ``${NAME:-default}`` in scalars, after parsing: a value can never change the
# structure.
#
# As in a shell the default also stands in for an empty variable. ``$${`` is a literal ``${``.
# ``${node}`` is not of the environment: it stays, for the compiler to fill in per node (and so does
# ``$${node}``, its escape).

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
