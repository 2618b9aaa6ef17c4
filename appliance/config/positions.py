"""Where every key and value of a config stands: a tree beside the tree of values."""

from __future__ import annotations

from typing import NamedTuple

from appliance.config.characters import show_invisible
from appliance.core.problems import Problem, Severity

KeyPath = tuple[str | int, ...]


class Place(NamedTuple):
    """A source_map in a file; line and column count from 1."""

    file: str
    line: int
    column: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceMap:
    """One value's place, and those of what is inside it.

    `keys` and `children` are filled for maps, `children` alone for lists. `written` is the text of
    a scalar as it stands in the file, where a reference in it was replaced: only that may be shown,
    never what it became.
    """

    __slots__ = ("children", "dropped", "keys", "place", "written")

    def __init__(self, place: Place, written: str | None = None) -> None:
        self.place = place
        self.written = written
        self.keys: dict[str, Place] = {}
        self.children: dict[str | int, SourceMap] = {}
        self.dropped: list[tuple[str, object, SourceMap]] = []
        """What stood below a key that was there before."""

    def find(self, path: KeyPath) -> SourceMap | None:
        """The source_map at `path` below this one."""
        source_map: SourceMap | None = self
        for part in path:
            if source_map is None:
                return None
            source_map = source_map.children.get(part)
        return source_map

    def place_of(self, path: KeyPath, *, on_key: bool = False) -> Place | None:
        """The place to show for `path`: its value's, or its key's for maps and lists and when
        asked.

        Where the path leads to nothing, the nearest thing above it is shown. None: nothing was read
        at all.
        """
        source_map = self
        shown: Place | None = None
        for index, part in enumerate(path):
            child = source_map.children.get(part)
            key = source_map.keys.get(part) if isinstance(part, str) else None
            is_last = index == len(path) - 1
            if child is None:
                return key or shown or self._first()
            by_key = not is_last or on_key or child.children or child.keys
            shown = key if key is not None and by_key else child.place
            source_map = child
        return shown or self._first()

    def _first(self) -> Place | None:
        return next(iter(self.keys.values()), self.place if self.place.file else None)


# Problems with their place, and key paths as they are shown.


def make_problem(
    code: str,
    place: Place | None,
    message: str,
    *,
    hint: str = "",
    path: KeyPath = (),
) -> Problem:
    """A problem at a place; the excerpt is added when all are together."""
    return Problem(
        code=code,
        message=show_invisible(message),
        severity=Severity.WARNING if code.startswith("W") else Severity.ERROR,
        file=place.file if place else "",
        line=place.line if place else 0,
        column=place.column if place else 0,
        length=place.length if place else 1,
        path=show_invisible(show_path(path)),
        hint=show_invisible(hint),
    )


def show_path(path: KeyPath) -> str:
    """The dotted form: ``nodes.ship1.publish.hello.to[0]``."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{part}" if shown else part
    return shown
