"""What a config took from the environment, and its secrets, and how they are written there: whatever shows values shows
that instead.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

MIN_WITHIN_CHARACTERS = 3
"""A shorter text from the environment is hidden where it is the whole value only: it is a part of too much else."""
MIN_ANYWHERE_CHARACTERS = 6
"""One of at least this many is hidden in the middle of words, too."""
CUT_CHARACTERS = 16
"""So many of its first characters give a longer text away, wherever it was cut off."""
MIN_CUT_CHARACTERS = 4
"""So many do right before an ellipsis."""
ELLIPSIS = "…"
_IN_WORD = re.compile(r"\w")
NAMES = frozenset({
    "at", "code", "data", "data_base64", "entry", "event", "from", "method", "node", "stderr", "stderr_base64", "to",
    "worker",
})  # fmt: skip
"""Fields of facts that name a part of the system, by which a reader finds it, or hold what a message brought."""


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
        return self._without_cut(self._pattern.sub(self._write, self._without_long(text)))

    def _write(self, match: re.Match[str]) -> str:
        return self._written[match[0]]

    def _without_long(self, text: str) -> str:
        """Long ones are known by how they begin: whoever shows a text may have cut it off."""
        shown, done = [], 0
        for match in self._beginnings.finditer(text):
            start = match.start()
            if start < done:
                continue
            # of a text and a part of it the whole is meant
            form, length = max(
                ((form, _common(form, text, start)) for form in self._long[match[0]]),
                key=lambda found: found[1],
            )
            if length < len(form) and _IN_WORD.match(text, start + length):
                continue  # it goes on otherwise: it only begins alike, as addresses do
            shown += [text[done:start], self._written[form]]
            done = start + length
        return "".join((*shown, text[done:])) if shown else text

    def _without_cut(self, text: str) -> str:
        """What is left of one that ran into an ellipsis; of a long one, `_without_long` has seen to that."""
        if ELLIPSIS not in text:
            return text
        pieces = text.split(ELLIPSIS)
        for at, piece in enumerate(pieces[:-1]):
            for size in range(CUT_CHARACTERS, MIN_CUT_CHARACTERS - 1, -1):
                written = self._stumps.get(piece[-size:])
                if written is not None:
                    pieces[at] = piece[:-size] + written
                    break
        return ELLIPSIS.join(pieces)

    @cached_property
    def _stumps(self) -> dict[str, str]:
        """Short beginnings of all forms."""
        return {
            form[:size]: written
            for form, written in self._written.items()
            for size in range(MIN_CUT_CHARACTERS, min(len(form), CUT_CHARACTERS + 1))
        }

    @cached_property
    def _written(self) -> dict[str, str]:
        return {form: written for text, written in self.texts.items() for form in _forms(text)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # the longest first: of a text and a part of it the whole is meant
        known = sorted(self._written, key=lambda text: (-len(text), text))
        return _any_of(filter(None, map(_find_within, known)))

    @cached_property
    def _long(self) -> dict[str, list[str]]:
        """Long forms by how they begin."""
        found: dict[str, list[str]] = {}
        for form in self._written:
            if len(form) > CUT_CHARACTERS:
                found.setdefault(form[:CUT_CHARACTERS], []).append(form)
        return found

    @cached_property
    def _beginnings(self) -> re.Pattern[str]:
        return _any_of(map(re.escape, self._long))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or r"(?!)")


def _common(form: str, text: str, start: int) -> int:
    """How many characters of `form` stand at `start`."""
    length = min(len(form), len(text) - start)
    return next((at for at in range(length) if form[at] != text[start + at]), length)


def _forms(text: str) -> Iterator[str]:
    """The text, as it stands in JSON, in other quotes and in addresses, and its lines."""
    yield text
    if len(text) >= MIN_ANYWHERE_CHARACTERS:
        yield text.lower()  # as the host of an address is
    yield quote(text)
    yield quote(text, safe="")
    yield shlex.quote(text)[1:-1] if "'" in text else text
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


class Hiding:
    """What this process hides in the texts that leave it.

    That is what any of its sets took from the environment, since a worker may still tell of the set before, and the
    secrets as they were read last and the time before.
    """

    def __init__(self, hidden: Hidden = NOTHING_HIDDEN) -> None:
        self._of_sets = hidden
        self._secrets: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        self._all = hidden

    def add_set(self, hidden: Hidden) -> None:
        """Another set is in force. Bounded by the environment, which stays as it is."""
        self._of_sets = self._of_sets.joined(hidden)
        self._join()

    def put_secrets(self, texts: Mapping[str, str]) -> None:
        """The secrets of the set in force, and how they are written."""
        if texts != self._secrets[0]:
            self._secrets = (texts, self._secrets[0])
            self._join()

    def _join(self) -> None:
        new, old = self._secrets
        self._all = Hidden({**old, **new, **self._of_sets.texts})

    def text(self, text: str) -> str:
        """A text as it may leave."""
        return self._all.text(text)

    def fields(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        """The fields of a fact; names stay."""
        if not self._all.texts:
            return fields
        hide = self._all.value
        return {name: item if name in NAMES else hide(item) for name, item in fields.items()}
