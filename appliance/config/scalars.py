"""Plain scalars by the core rules of YAML 1.2, and the ones a YAML 1.1 reader would read otherwise.

Most tools still read YAML 1.1, where ``no`` is false, ``012`` ten and ``22:22`` a number. A config
that two tools read differently is a trap, so such scalars are recognised here and told.
"""

from __future__ import annotations

import math
import re

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
