"""Sees, while bytes still arrive, where a JSON text ends. Pure."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(rb'["\[\]{}]')
_INSIDE = re.compile(rb'["\\]')
_BLANK = b" \t\r\n\0"
_MAX_DEPTH = 1_000
_BOM = b"\xef\xbb\xbf"


class JsonEnd:
    """Fed with pieces of a text. `is_complete` while all of them together are one closed value.

    Only a text that begins with a bracket is judged; anything else never counts as complete.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._depth = 0
        self._in_text = False
        self._is_escaped = False
        self._is_hopeless = False

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        place = 0
        if self._depth == 0 and not self._is_hopeless:
            rest = piece.removeprefix(_BOM).lstrip(_BLANK)
            if not rest:
                return
            if self.is_complete or rest[:1] not in (b"[", b"{"):
                self._is_hopeless = True
            place = len(piece) - len(rest)
        if self._is_hopeless:
            self.is_complete = False
            return
        self._scan(piece, place)

    def _scan(self, piece: bytes, place: int) -> None:
        while place < len(piece):
            if self._is_escaped:
                self._is_escaped = False
                place += 1
                continue
            found = (_INSIDE if self._in_text else _OUTSIDE).search(piece, place)
            if found is None:
                return
            sign, place = found[0], found.end()
            if self._in_text:
                self._in_text = sign != b'"'
                self._is_escaped = sign == b"\\"
                continue
            self._in_text = sign == b'"'
            self._depth += (sign in b"[{") - (sign in b"]}")
            if self._depth > _MAX_DEPTH:
                self._is_hopeless = True
                return
            if self._depth == 0:
                self.is_complete = True
                self._is_hopeless = bool(piece[place:].strip(_BLANK))
                if self._is_hopeless:
                    self.is_complete = False
                return
