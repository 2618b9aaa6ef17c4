"""What an injector is told: problems and warnings, each with the element it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from appliance.api.requests import SubmitRequest


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem or warning. Without `index` it is about the text as a whole."""

    index: int | None = None
    key: str | None = None
    to: str | None = None
    line: int | None = None
    column: int | None = None
    message: str = msgspec.field()


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message that is on disk. `id_text` repeats the id for readers whose numbers are floats."""

    index: int = msgspec.field()
    to: str = msgspec.field()
    id: int = msgspec.field()
    id_text: str = msgspec.field()
    from_node: str | None = msgspec.field(name="from", default=None)


LineOf = Callable[[str | None], int | None]
"""Where a key of an element stands, or with None the element itself."""

MAX_NOTES = 1_000
"""Problems, and warnings, of one text that are told; the others are counted."""


@dataclass(slots=True)
class Reading:
    """A text taken apart: the usable elements with their index, and what is wrong with the others."""

    requests: list[tuple[int, SubmitRequest]] = field(default_factory=list)
    problems: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    is_whole: bool = True
    """False when the text as a whole cannot be used."""
    is_too_large: bool = False
    places: dict[int, LineOf] = field(default_factory=dict)
    """For each usable element, where its keys stand."""
    untold: int = 0
    """Problems and warnings beyond the bound."""

    def has_room_in(self, notes: list[Note]) -> bool:
        """Whether one more is told; else it is counted, and the work of wording it is spared."""
        if len(notes) < MAX_NOTES:
            return True
        self.untold += 1
        return False

    def refuse(self, message: str, *, line: int | None = None, column: int | None = None) -> None:
        """The text as a whole cannot be used."""
        self.is_whole = False
        self.requests.clear()
        self.problems.append(Note(message=message, line=line, column=column))
