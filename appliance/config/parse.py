"""One YAML file to plain values and their places. The only importer of the YAML library.

The library's parser gives events; composing values from them is done here, since a config needs
what the library's own constructors do not give: YAML 1.2 scalars, text keys, no doubled keys, no
anchors, no tags, a bound on depth, and a place for everything. It is also five times as fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from appliance.config.characters import ALWAYS_REFUSED, INVISIBLE, name_character
from appliance.config.positions import KeyPath, Place, SourceMap, make_problem
from appliance.config.scalars import NumberRefused, find_old_reading, resolve_plain, substitute
from appliance.core.problems import Problem
from appliance.core.suggest import shorten

MAX_DEPTH = 32
MAX_FOREIGN_VALUES = 200_000
"""Of a text that is no config; each costs some 400 bytes with its place."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
_KEYS_OF_OURS = frozenset({"on"})
"""Old truth values among our own keys; a warning on each `ack: {on: done}` would help nobody."""
_WORDS_OF_OURS = frozenset({("signatures", "off")})
"""And among the words of our settings, by the key that they stand under."""

_CONFLICT_BEGINS = re.compile(r"^<{7}(?: .*)?$", re.MULTILINE)
_CONFLICT_ENDS = re.compile(r"^>{7}(?: .*)?$", re.MULTILINE)

MISSING: Any = object()
"""The value of something that was refused."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A scalar that YAML 1.1 reads otherwise: as what."""

    path: KeyPath
    place: Place
    text: str
    value: object
    reading: str


@dataclass(slots=True)
class Document:
    """What came out of one file. `damaged` are the paths at which something was refused."""

    tree: Any = None
    source_map: SourceMap = field(default_factory=lambda: SourceMap(Place("", 0, 0, 0)))
    problems: list[Problem] = field(default_factory=list)
    traps: list[Trap] = field(default_factory=list)
    damaged: list[KeyPath] = field(default_factory=list)
    is_whole: bool = True
    """False when reading stopped in the middle."""


_WIDE = (
    # NB: the longer ones first, which begin as the shorter ones do
    *((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32")),
    *((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")),
)
"""Marks that a file begins with which was saved in another encoding."""


def _find_wide_encoding(raw: bytes) -> str:
    """The encoding of a text whose characters are all of two bytes or more; "" for any other."""
    for mark, name in _WIDE:
        if raw.startswith(mark):
            return name
    # without a mark: letters and signs of ASCII have zeros beside them
    zeros = raw[:8].count(0) if any(raw[:8]) else 0
    return "UTF-32" if zeros >= 5 else "UTF-16" if zeros >= 3 else ""


class _GaveUp(Exception):
    """Reading this file ends here."""


class PlainText(str):
    """An unquoted scalar of a text that is no config: what it is depends on what it is for."""

    __slots__ = ()


def parse_file(name: str, raw: bytes, environ: Mapping[str, str]) -> Document:
    """Read one file; every problem found is in the outcome, nothing is raised."""
    return _parse(name, raw, environ)


def parse_foreign(name: str, raw: bytes) -> Document:
    """Read a YAML text that is no config: any value at its root, no references replaced.

    Unquoted scalars are `PlainText`; what was refused in a list stands there as `MISSING`.
    """
    return _parse(name, raw, None)


def _parse(name: str, raw: bytes, environ: Mapping[str, str] | None) -> Document:
    document = Document()
    reader = _Reader(name, document, environ)
    try:
        reader.read(raw)
    except _GaveUp:
        document.is_whole = False
    return document


class _Reader:
    """Builds the values of one file from its events."""

    def __init__(self, name: str, document: Document, environ: Mapping[str, str] | None) -> None:
        self._name = name
        self._document = document
        self._environ = environ
        """None: the text is no config."""
        self._lines: list[str] = []
        self._events: Iterator[Any] = iter(())
        self._values_left = MAX_FOREIGN_VALUES

    def read(self, raw: bytes) -> None:
        text = self._decode(raw)
        self._lines = text.split("\n")
        self._check_printable(text)
        if self._environ is not None:
            self._check_readable(text)
        try:
            self._read_events(text)
        except yaml.MarkedYAMLError as error:
            line, column, message, hint = _tell_syntax(error, self._lines)
            if self._is_told_above(line):
                raise _GaveUp from None  # told already: to the parser, too, it is no blank
            self._check_mark(line)
            self._give_up("E005", line, column, f"not valid YAML: {message}", hint)
        except yaml.YAMLError as error:
            self._give_up("E005", 1, 1, f"not valid YAML: {str(error).splitlines()[0][:120]}")

    def _decode(self, raw: bytes) -> str:
        encoding = _find_wide_encoding(raw)
        if encoding:
            reason = f"the file is {encoding}, not UTF-8"
            self._give_up("E004", 1, 1, reason, "save it as UTF-8")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start]
            line = before.count(b"\n") + 1
            column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
            self._give_up("E004", line, column, "the file is not UTF-8", "save it as UTF-8")
            raise AssertionError from error

    def _check_printable(self, text: str) -> None:
        found = _UNPRINTABLE.search(text)
        if found is not None:
            line, column = _line_and_column(text, found.start())
            what = f"the character U+{ord(found[0]):04X} may not stand in a file"
            is_rest = found[0] == "\0" and not text[found.start() :].strip("\0")
            if is_rest:
                # as file systems leave a file whose blocks were not on the disk yet
                what = f"{'from here on ' if found.start() else ''}the file holds nothing but zeros"
            self._give_up("E016", line, column, what, _CUT_OFF if is_rest else "")

    def _check_readable(self, text: str) -> None:
        """A config is read as it is reviewed: nothing in it may look other than it is."""
        found = ALWAYS_REFUSED.search(text)
        if found is not None:
            self._give_up(
                "E016",
                *_line_and_column(text, found.start()),
                f"the character {name_character(found[0])}, may not stand in a config: it looks other than it is read",
                f'remove it; where it is meant, within quotes, write "\\u{ord(found[0]):04x}"',
            )
        marker = _CONFLICT_BEGINS.search(text)
        if marker is not None and _CONFLICT_ENDS.search(text, marker.end()):
            self._give_up(
                "E019",
                *_line_and_column(text, marker.start()),
                "a merge conflict is left in the file",
                "resolve it: keep one side, and remove the lines <<<<<<<, ======= and >>>>>>>",
                length=len(marker[0]),
            )

    def _check_mark(self, line: int) -> None:
        """A mark that files begin with, where two were put together: the parser stumbles over it, and nobody sees it."""
        at = self._lines[line - 1].find("\ufeff") if line <= len(self._lines) else -1
        if at >= 0:
            self._give_up(
                "E016",
                line,
                at + 1,
                "the character U+FEFF, a byte order mark, may stand at the beginning of a file only",
                "were two files put together here? remove it",
            )

    def _is_visible(self, event: Any, path: KeyPath) -> bool:
        """Whether an unquoted scalar is what it looks like; else it is refused."""
        text = str(event.value)
        found = INVISIBLE.search(text) if self._environ is not None else None
        if found is None:
            return True
        place = self._place(event)
        if event.start_mark.line == event.end_mark.line:
            place = place._replace(column=place.column + found.start(), length=1)
        self._document.damaged.append(path)
        self._add(
            "E016",
            place,
            f"the character {name_character(found[0])}, is in {shorten(text)}",
            "remove it; where it is meant, write the text in quotes",
            path=path[:-1] if event.value in path else path,
        )
        return False

    def _is_told_above(self, line: int) -> bool:
        """Whether what the parser stumbles over was refused before it: a character that looks like a blank and is none, or
        braces for a key.
        """
        return any(
            problem.code in ("E009", "E016") and 0 <= line - problem.line <= 1
            for problem in self._document.problems
        )

    def _read_events(self, text: str) -> None:
        self._events = iter(yaml.parse(text, Loader=_LOADER))
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return
        root = next(self._events)
        tree, source_map = self._build(root, (), 1)
        next(self._events)
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            self._add(
                "E006",
                self._place(after),
                "a second document begins here",
                "one document per file: move it to a file of its own",
            )
            # The rest is still read for errors of syntax.
            for _ in self._events:
                pass
        if tree is None or tree is MISSING:
            return
        if self._environ is not None and not isinstance(tree, dict):
            self._add("E018", source_map.place, "a config file holds a map, such as `version: 1`")
            return
        self._document.tree = tree
        self._document.source_map = source_map

    def _build(self, event: Any, path: KeyPath, depth: int) -> tuple[Any, SourceMap]:
        if self._environ is None:
            self._count(event)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(path, "E007", event, "an alias (*) may not be used", _NO_ANCHORS)
            return MISSING, SourceMap(self._place(event))
        if event.anchor is not None:
            # The value itself is whole, so nothing below it is called damaged.
            self._add("E007", self._place(event), _ANCHOR, _NO_ANCHORS, path=path)
        if event.tag is not None:
            self._refuse(path, "E008", event, "a tag (!) may not be used", "drop it")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth > MAX_DEPTH:
            mark = event.start_mark
            self._give_up(
                "E012", mark.line + 1, mark.column + 1, f"nested deeper than {MAX_DEPTH} levels"
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, path, depth)
        return self._sequence(event, path, depth)

    def _mapping(self, start: Any, path: KeyPath, depth: int) -> tuple[dict[str, Any], SourceMap]:
        values: dict[str, Any] = {}
        source_map = SourceMap(self._place(start))
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, path, depth)
            value_event = next(self._events)
            if key is None:
                told = len(self._document.problems)
                self._build(value_event, (*path, "?"), depth + 1)
                if getattr(event, "value", None) == "<<":
                    del self._document.problems[told:]  # what is merged is a part of the mistake
                continue
            value, child = self._build(value_event, (*path, key), depth + 1)
            place = self._place(event)
            if key in values or key in source_map.keys:
                first = source_map.keys[key]
                source_map.dropped.append((key, value, child))
                self._add(
                    "E010",
                    place,
                    f"{shorten(key)} stands twice in this map, first in line {first.line}",
                    "drop one of the two",
                    path=(*path, key),
                )
                continue
            source_map.keys[key] = place
            source_map.children[key] = child
            if value is not MISSING:
                values[key] = value
        return values, source_map

    def _key(self, event: Any, path: KeyPath, depth: int) -> str | None:
        """The key's text; None when it cannot be one (already told)."""
        if not isinstance(event, yaml.ScalarEvent):
            is_braced = isinstance(event, yaml.MappingStartEvent) and event.flow_style
            self._refuse(path, "E009", event, "a key must be text", _BRACES if is_braced else "")
            told = len(self._document.problems)
            if not isinstance(event, yaml.AliasEvent):
                self._build(event, (*path, "?"), depth + 1)
            del self._document.problems[told:]  # what the key is made of is a part of the mistake
            return None
        if event.anchor is not None:
            # The value itself is whole, so nothing below it is called damaged.
            self._add("E007", self._place(event), _ANCHOR, _NO_ANCHORS, path=path)
        if event.tag is not None:
            self._refuse(path, "E008", event, "a tag (!) may not be used", "drop it")
        text = str(event.value)
        if event.style is not None and event.style != "":
            return text
        if not self._is_visible(event, (*path, text)):
            return None
        if text == "<<":
            self._refuse(path, "E007", event, "a merge key (<<) may not be used", _NO_ANCHORS)
            return None
        try:
            is_text = isinstance(resolve_plain(text), str)
        except NumberRefused:
            is_text = False
        if not is_text:
            shown = text or "an empty key"
            self._refuse(
                (*path, text), "E009", event, f"a key must be text, {shown} is not", _key_hint(text)
            )
        elif text not in _KEYS_OF_OURS:
            self._note_trap(event, (*path, text), text, text)
        return text

    def _sequence(self, start: Any, path: KeyPath, depth: int) -> tuple[list[Any], SourceMap]:
        values: list[Any] = []
        source_map = SourceMap(self._place(start))
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            index = len(values)
            value, child = self._build(event, (*path, index), depth + 1)
            if value is not MISSING or self._environ is None:
                source_map.children[index] = child
                values.append(value)
        return values, source_map

    def _scalar(self, event: Any, path: KeyPath) -> tuple[Any, SourceMap]:
        text = str(event.value)
        is_plain = not event.style
        written = None
        if self._environ is None:
            return (PlainText(text) if is_plain else text), SourceMap(self._place(event))
        if is_plain and not self._is_visible(event, path):
            return MISSING, SourceMap(self._place(event))
        if "${" in text:
            result = substitute(text, self._environ)
            if result.code:
                place = self._place(event)
                if place.length > result.offset and "\n" not in text:
                    quoted = 0 if is_plain else 1
                    place = place._replace(
                        column=place.column + result.offset + quoted,
                        length=max(1, place.length - result.offset - quoted),
                    )
                self._add(result.code, place, result.reason, path=path)
                self._document.damaged.append(path)
                return MISSING, SourceMap(place)
            is_plain = is_plain and result.is_whole and result.text != ""
            written = text if result.changed else None
            text = result.text
        elif "\0" in text:
            self._refuse(path, "E016", event, "the character U+0000 may not stand in a config", "")
            return MISSING, SourceMap(self._place(event))
        source_map = SourceMap(self._place(event), written)
        if not is_plain:
            return text, source_map
        try:
            value = resolve_plain(text)
        except NumberRefused as error:
            self._refuse(path, "E015", event, str(error) if written is None else _TOO_LARGE, "")
            return MISSING, source_map
        if written is None:
            self._note_trap(event, path, text, value)
        return value, source_map

    def _count(self, event: Any) -> None:
        self._values_left -= 1
        if self._values_left < 0:
            mark = event.start_mark
            line, column = mark.line + 1, mark.column + 1
            self._give_up("E003", line, column, f"more than {MAX_FOREIGN_VALUES} values")

    def _note_trap(self, event: Any, path: KeyPath, text: str, value: object) -> None:
        reading = find_old_reading(text)
        if reading is not None and (*path[-1:], text) not in _WORDS_OF_OURS:
            self._document.traps.append(Trap(path, self._place(event), text, value, reading))

    def _place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        same_line = end.line == start.line
        length = end.column - start.column if same_line else 1
        return Place(self._name, start.line + 1, start.column + 1, max(1, length))

    def _refuse(self, path: KeyPath, code: str, event: Any, message: str, hint: str) -> None:
        self._document.damaged.append(path)
        self._add(code, self._place(event), message, hint, path=path)

    def _give_up(
        self, code: str, line: int, column: int, message: str, hint: str = "", *, length: int = 1
    ) -> None:
        self._add(code, Place(self._name, line, column, length), message, hint)
        raise _GaveUp

    def _add(
        self, code: str, place: Place, message: str, hint: str = "", path: KeyPath = ()
    ) -> None:
        self._document.problems.append(make_problem(code, place, message, hint=hint, path=path))


def _line_and_column(text: str, at: int) -> tuple[int, int]:
    """As editors count them, from 1."""
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def _key_hint(text: str) -> str:
    if text.lower() == "true":
        # NB: Ansible, PyYAML and Helm write our key `on` so
        return "is it `on`? a tool for YAML 1.1 turns that key into true"
    return "quote it"


_CUT_OFF = "was the machine cut off while it was written? write it anew, or restore it"
_ANCHOR = "an anchor (&) may not be used"
_BRACES = "is it a template's {{ … }} that nobody has filled in? a config takes ${NAME}, from the environment"
_NO_ANCHORS = "write the value out; what many nodes share belongs into a role or into `defaults`"
_TOO_LARGE = "a number beyond 64 bits, or not finite"


def _tell_syntax(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, int, str, str]:
    """Line, column, message and hint: the library's own words speak of tokens and blocks.

    Where something was opened and not closed, the library's place is where it noticed, often lines below.
    """
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return 1, 1, str(error.problem), ""
    opened = error.context_mark or mark
    text = lines[mark.line] if mark.line < len(lines) else ""
    problem, context = str(error.problem), str(error.context)
    message, hint = problem, ""
    if "quoted scalar" in context and "end of stream" in problem:
        mark, message = opened, "the quote that opens here is not closed"
    elif "cannot start any token" in problem:
        if "\t" in text[: mark.column + 1] and not text[: mark.column].strip():
            message, hint = "this line is indented by a tab", "indent with spaces"
        else:
            message = f"{text[mark.column : mark.column + 1]} cannot begin a text"
            hint = "put the text in quotes"
    elif "mapping values are not allowed" in problem:
        message = "a colon is not expected here"
        hint = (
            "is the colon of the line above missing, a quote around a text with a colon,"
            " or the indentation off?"
        )
    elif "could not find expected ':'" in problem:
        mark, message = opened, "a colon is missing after this"
    elif closing := re.match(r"did not find expected ',' or '([]}])'", problem):
        bracket = "{" if closing[1] == "}" else "["
        where = f"line {opened.line + 1}, column {opened.column + 1}"
        message = (
            f"a comma or {closing[1]} is expected here: the {bracket} of {where} is still open"
        )
        if _ends_at(mark, lines):
            # nothing is to be seen in a line that may not even exist
            mark, message = opened, f"the {bracket} that opens here is not closed"
            hint = "was the file cut off while it was written?"
    elif "expected node content" in problem and _ends_at(mark, lines):
        last = max((at for at, line in enumerate(lines) if line.strip()), default=0)
        message = "the file ends here, and a [ or { is not closed"
        return last + 1, len(lines[last].rstrip()), message, "was it cut off while it was written?"
    elif "did not find expected key" in problem and "block mapping" in context:
        message, hint = _tell_misplaced(mark, opened, text)
    elif "expected '-' indicator" in problem:
        message = f"this is no item of the list of dashes that begins in line {opened.line + 1}"
        hint = "begin it with a dash, or indent it as what the list belongs to"
    if "${" in text[: mark.column + 2] and mark is error.problem_mark:
        hint = 'within [ ] or { } a text with ${…} needs quotes: "${NAME}"'
    return mark.line + 1, mark.column + 1, message, hint


def _ends_at(mark: Any, lines: list[str]) -> bool:
    """Whether nothing follows."""
    return not "\n".join(lines[mark.line :])[mark.column :].strip()


def _tell_misplaced(mark: Any, opened: Any, text: str) -> tuple[str, str]:
    """Message and hint for what stands where a key of the map that begins at `opened` should."""
    if text[: mark.column].strip():
        return "nothing is expected after the value", "put the whole text in quotes"
    around = f"the map around it, from line {opened.line + 1} on, by {opened.column}"
    return (
        f"this line is indented by {mark.column}, and {around}",
        "indent it as what it stands beside",
    )
