"""The text of the runner's allow list. What its patterns cover is told in `core.allow`."""

from __future__ import annotations

import shlex

from appliance.core.allow import WILDCARDS


def parse_allow_list(text: str) -> tuple[tuple[str, ...], ...]:
    """One command a line, in words as a shell reads them; ``#`` begins a comment. Nothing is expanded.

    Raises:
        ValueError: a line cannot be read, or would allow any program; the text names the line.
    """
    patterns = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"line {number}: {str(error).lower()}") from None
        if not words:
            continue
        if not words[0] or WILDCARDS & set(words[0]):
            raise ValueError(f"line {number}: the program must be written out, without wildcards")
        patterns.append(tuple(words))
    return tuple(patterns)
