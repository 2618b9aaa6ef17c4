"""What a config took from the environment, and how it is written there: whatever shows values shows that instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

MIN_WITHIN_CHARACTERS = 3
"""A shorter text from the environment is hidden where it is the whole value only: it is a part of too much else."""
MIN_ANYWHERE_CHARACTERS = 6
"""One of at least this many is hidden in the middle of words, too."""


@dataclass(frozen=True)
class Hidden:
    """Values to hide. Looked for where they are shown, as what is built from them (a URL, JSON) tells them, too.

    `texts` maps a variable's value to how it is written, `settings` the name and the whole value of a setting.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[tuple[str, object], str] = field(default_factory=dict)

    def joined(self, other: Hidden) -> Hidden:
        """What either of them hides."""
        if not other.texts and not other.settings:
            return self
        return Hidden({**self.texts, **other.texts}, {**self.settings, **other.settings})

    def value(self, value: object, name: str = "") -> object:
        """A plain value of JSON without them; `name` is the setting's."""
        if isinstance(value, list):
            return [self.value(item, name) for item in value]
        if isinstance(value, dict):
            return {key: self.value(item, key) for key, item in value.items()}
        if value is None:
            return None
        written = self.settings.get((name, value))
        if written is not None:
            return written
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """A text without them."""
        if not self.texts:
            return text
        whole = self.texts.get(text)
        if whole is not None:
            return whole
        return self._pattern.sub(lambda match: self._written[match[0]], text)

    @cached_property
    def _written(self) -> dict[str, str]:
        return {form: written for text, written in self.texts.items() for form in _forms(text)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # the longest first: of a text and a part of it the whole is meant
        known = sorted(self._written, key=lambda text: (-len(text), text))
        return re.compile("|".join(filter(None, map(_find_within, known))) or r"(?!)")


def _forms(text: str) -> Iterator[str]:
    """The text, as it stands in JSON and other quotes, and its lines."""
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    for line in text.splitlines():
        if len(line.strip()) >= MIN_ANYWHERE_CHARACTERS:
            yield line.strip()


def _find_within(text: str) -> str:
    if len(text) >= MIN_ANYWHERE_CHARACTERS:
        return re.escape(text)
    if len(text) < MIN_WITHIN_CHARACTERS:
        return ""
    return rf"(?<!\w){re.escape(text)}(?!\w)"


NOTHING_HIDDEN = Hidden()
