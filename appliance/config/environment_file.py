"""Environment files as systemd reads them for a service (`EnvironmentFile=`, see systemd.exec(5)). Pure."""

from __future__ import annotations

import re
from enum import Enum, auto

MAX_FILE_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEWLINES = "\n\r"
_SPACES = " \t\n\r"
_NEEDS_ESCAPE = '"\\`$'
"""What a backslash within double quotes stands before; any other character keeps its backslash there."""


class _State(Enum):
    BEFORE_NAME = auto()
    NAME = auto()
    BEFORE_VALUE = auto()
    VALUE = auto()
    VALUE_ESCAPE = auto()
    SINGLE = auto()
    DOUBLE = auto()
    DOUBLE_ESCAPE = auto()
    COMMENT = auto()
    COMMENT_ESCAPE = auto()


class _Reader:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._state = _State.BEFORE_NAME
        self._name = ""
        self._value: list[str] = []
        self._kept = 0
        """Characters of the value that are no space at its end: quoted ones, escaped ones, and all before them."""

    def take(self, character: str) -> None:
        """One more character."""
        match self._state:
            case _State.BEFORE_NAME:
                if character in "#;":
                    self._state = _State.COMMENT
                elif character not in _SPACES:
                    self._state, self._name = _State.NAME, character
            case _State.NAME:
                if character in _NEWLINES:
                    self._state = _State.BEFORE_NAME
                elif character == "=":
                    self._state, self._value, self._kept = _State.BEFORE_VALUE, [], 0
                else:
                    self._name += character
            case _State.BEFORE_VALUE:
                self._begin_value(character)
            case _State.VALUE:
                if character in _NEWLINES:
                    self.end()
                elif character == "\\":
                    self._state, self._kept = _State.VALUE_ESCAPE, len(self._value)
                else:
                    self._add(character, is_kept=character not in _SPACES)
            case _State.VALUE_ESCAPE:
                self._state = _State.VALUE
                if character not in _NEWLINES:
                    self._add(character)
            case _State.SINGLE:
                if character == "'":
                    self._state = _State.BEFORE_VALUE
                else:
                    self._add(character)
            case _State.DOUBLE:
                if character == '"':
                    self._state = _State.BEFORE_VALUE
                elif character == "\\":
                    self._state = _State.DOUBLE_ESCAPE
                else:
                    self._add(character)
            case _State.DOUBLE_ESCAPE:
                self._state = _State.DOUBLE
                if character in _NEEDS_ESCAPE:
                    self._add(character)
                elif character != "\n":
                    self._add("\\")
                    self._add(character)
            case _State.COMMENT:
                if character == "\\":
                    self._state = _State.COMMENT_ESCAPE
                elif character in _NEWLINES:
                    self._state = _State.BEFORE_NAME
            case _State.COMMENT_ESCAPE:
                is_over = character in _NEWLINES
                self._state = _State.BEFORE_NAME if is_over else _State.COMMENT

    def end(self) -> None:
        """The end of a line, or of the file: what was read of an assignment counts."""
        if self._state not in (
            _State.BEFORE_NAME,
            _State.NAME,
            _State.COMMENT,
            _State.COMMENT_ESCAPE,
        ):
            name = self._name.rstrip(_SPACES)
            value = "".join(self._value[: self._kept])
            if _NAME.fullmatch(name) and "\0" not in value:
                self.found[name] = value
        self._state = _State.BEFORE_NAME

    def _begin_value(self, character: str) -> None:
        if character in _NEWLINES:
            self.end()
        elif character == "'":
            self._state = _State.SINGLE
        elif character == '"':
            self._state = _State.DOUBLE
        elif character == "\\":
            self._state = _State.VALUE_ESCAPE
        elif character not in _SPACES:
            self._state = _State.VALUE
            self._add(character)

    def _add(self, character: str, *, is_kept: bool = True) -> None:
        self._value.append(character)
        if is_kept:
            self._kept = len(self._value)


def parse_environment_file(text: str) -> dict[str, str]:
    """The variables that a service gets of this text: the last assignment of a name counts, what is none is left out.

    Values may stand in single or double quotes or in pieces of both, over several lines within quotes; a backslash
    at the end of a line continues it. Lines that begin with `#` or `;` are comments. Nothing is expanded.
    """
    reader = _Reader()
    for character in text:
        reader.take(character)
    reader.end()
    return reader.found
