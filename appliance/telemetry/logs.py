"""Log lines on stderr, as text for people or JSON for machines; the level can change while the
daemon runs.

A record's message is a fixed sentence; what varies is in `fields` (`extra={"fields": {...}}`).
Everything from outside is escaped here, so no text of a message or a broker can forge a line or
command a terminal; and what the config hides is hidden here, whoever writes the line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from appliance.core.escape import escape_line
from appliance.core.hidden import Hiding
from appliance.core.times import log_stamp

ROOT = "appliance"
MAX_FIELD_CHARACTERS = 2_000

_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
"""Levels as the journal counts them."""


class _Formatter(logging.Formatter):
    hiding = Hiding()

    def shown_fields(self, record: logging.LogRecord) -> Mapping[str, object]:
        """What varies in a record, as it may be shown."""
        return self.hiding.fields(fields_of(record))

    def shown_sentence(self, record: logging.LogRecord) -> str:
        """Our own sentences are fixed, as far as nothing is filled in; those of libraries may hold anything."""
        sentence = record.getMessage()
        is_fixed = not record.args and _is_ours(record.name)
        return sentence if is_fixed else self.hiding.text(sentence)

    def formatException(self, ei: Any) -> str:
        """The traceback as it may be shown."""
        return self.hiding.text(super().formatException(ei))


def _is_ours(logger: str) -> bool:
    return logger == ROOT or logger.startswith(f"{ROOT}.")


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What varies in a record."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _shorten(text: str) -> str:
    if len(text) <= MAX_FIELD_CHARACTERS:
        return text
    return f"{text[:MAX_FIELD_CHARACTERS]}… ({len(text)} characters)"


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = escape_line(_shorten(str(value)))
    if text and not any(character in ' "=' for character in text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


class TextFormatter(_Formatter):
    """``time LEVEL sentence key=value …``; the journal gets a priority instead of time and level."""

    def __init__(self, *, for_journal: bool = False) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record; a traceback adds lines of its own, indented."""
        sentence = escape_line(_shorten(self.shown_sentence(record)))
        shown = self.shown_fields(record)
        fields = "".join(f" {key}={_show(value)}" for key, value in shown.items())
        if self._for_journal:
            prefix = f"<{_PRIORITIES.get(record.levelname, 6)}>"
            head = prefix
        else:
            prefix = ""
            head = f"{log_stamp(record.created)} {record.levelname:7s} "
        line = f"{head}{sentence}{fields}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n{prefix}  {escape_line(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(_Formatter):
    """One object per line: at, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Fields never replace the four fixed keys."""
        line: dict[str, object] = {
            key: _shorten(value) if isinstance(value, str) else value
            for key, value in self.shown_fields(record).items()
        }
        line |= {
            "at": log_stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _shorten(self.shown_sentence(record)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        ordered = {key: line.pop(key) for key in ("at", "level", "logger", "message")}
        return json.dumps({**ordered, **line}, default=str)


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream is the one that systemd connected to the journal."""
    wanted = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return wanted == f"{status.st_dev}:{status.st_ino}"


def setup_logging(level: str = "info", format_: str = "text", stream: TextIO | None = None) -> None:
    """Send every record of the process to one handler; called again it changes level and format."""
    target = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(target)
    formatter: logging.Formatter = JsonFormatter()
    if format_ != "json":
        formatter = TextFormatter(for_journal=_is_journal(target))
    handler.setFormatter(formatter)
    handler.addFilter(_is_worth_a_line)
    # a closed stderr must not make the daemon write about it, to stderr
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_log_level(level)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """nats-py makes the second half of a TLS connection itself, and asyncio remarks on it whenever one ends."""
    return "eof_received() has no effect" not in str(record.msg)


def hide_in_logs(hiding: Hiding) -> None:
    """From now on no line shows what `hiding` hides, our own as little as those of libraries."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.hiding = hiding


def set_log_level(level: str) -> None:
    """Change what of ours is logged, from now on. Libraries stay at WARNING: their chatter is not
    our interface.
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.getLogger(ROOT).setLevel(number)
