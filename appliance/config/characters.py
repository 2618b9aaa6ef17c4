"""Characters that make a config look other than it is read.

Reviewers, git and editors end lines at newlines; readers of YAML also at U+0085, U+2028 and U+2029, so that what a review
shows as a comment is live. Direction controls reorder what is seen. Blanks that are none and characters without width
make two words that look the same.
"""

from __future__ import annotations

import re
import unicodedata

ALWAYS_REFUSED = re.compile("[\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""In comments and within quotes too; there, an escape says the same: ``"\\u2028"``."""

INVISIBLE = re.compile(
    "[\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u202f\u205f-\u2065\u3000\u3164\ufe00-\ufe0f\ufeff]"
)
"""In words that stand without quotes: blanks other than the space, marks, and what has no width."""

_BOTH = re.compile(f"{ALWAYS_REFUSED.pattern}|{INVISIBLE.pattern}")


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def split_reviewed(text: str) -> list[str]:
    """The lines of a list that somebody wrote and others review: they end where git and editors end them, at newlines.

    Raises:
        ValueError: a character makes a line look other than it is read, as a line break that is none to an editor; those
            without width or of unusual width may stand in a comment of its own. The text names line and character.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        found = ALWAYS_REFUSED.search(line) or _CONTROL.search(line)
        if found is None and not line.lstrip(" \t").startswith("#"):
            found = INVISIBLE.search(line)
        if found is not None:
            named = name_character(found[0])
            raise ValueError(f"line {number}: {named}, makes it look other than it is read")
    return lines


def name_character(character: str) -> str:
    """Its code and name: ``U+200B, zero width space``."""
    name = unicodedata.name(character, "").lower() or "a control character"
    return f"U+{ord(character):04X}, {name}"


def show_invisible(text: str) -> str:
    """The text with such characters as escapes that can be seen."""
    return _BOTH.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
