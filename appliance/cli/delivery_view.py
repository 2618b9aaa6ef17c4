"""What `send` knows of its messages, in words and as facts. Pure: lines of the API in, lines of
text out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from appliance.api.model import Line
from appliance.cli.answer_view import NOT_ASKED
from appliance.cli.progress_view import say_bytes
from appliance.cli.standing import Progress
from appliance.core.delivery import DELIVERED
from appliance.core.escape import escape_controls, escape_line
from appliance.core.outcome import Kind, say_signal
from appliance.core.times import say_again, say_short

Words = list[tuple[str, bool]]
"""Lines, and whether each belongs to the result (stdout) or tells of the way there (stderr)."""

ERROR_OUTPUT_HINT = (
    "its error output is in errorCentral's log: errorLog/errorCentral/error.log on the node that"
    " subscribes REQErrorLog"
)


@dataclass(slots=True)
class _Delivery:
    to: str
    id: int | None = None
    via: str | None = None
    """The node that passes it on: what is delivered is delivered to that one."""
    progress: Progress = field(default_factory=Progress)
    seconds: float | None = None
    note: str | None = None
    why_not_asked: str = ""
    said_stderr: bool = False
    tenths: int = 0
    """Of the way that was told of last."""
    replies: list[Line] = field(default_factory=list)
    rests: dict[str, str] = field(default_factory=dict)
    """Of each stream the line that a piece ended in the middle of."""

    @property
    def has_failed(self) -> bool:
        return not self.why_not_asked and self._is_bad()

    def _is_bad(self) -> bool:
        return self.progress.judge() is Kind.FAILED


class Deliveries:
    """All messages of one call. With `follows` False only their acceptance counts."""

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._all: list[_Delivery] = []
        self._by_id: dict[int, _Delivery] = {}
        self._width = 0
        self._speaker: _Delivery | None = None
        """Whose lines were the last ones, so that a change is marked."""
        self.is_interrupted = False
        self.job: str | None = None
        """Where what comes of it is kept."""
        self.misuse: str | None = None
        """Why the arguments are none that the method takes; it is the same for every node."""

    @property
    def failed(self) -> list[str]:
        """Nodes that refused, failed or could not be sent to."""
        return [item.to for item in self._all if item.has_failed]

    @property
    def accepted(self) -> list[str]:
        """Nodes whose messages were accepted."""
        return [item.to for item in self._all if item.id is not None]

    @property
    def silent(self) -> list[str]:
        """Nodes that have neither acknowledged nor, where the method answers, answered."""
        if not self._follows:
            return []
        return [item.to for item in self._all if not item.has_failed and self._is_silent(item)]

    @property
    def not_asked(self) -> list[str]:
        """Nodes that were chosen and not sent anything any more."""
        return [item.to for item in self._all if item.why_not_asked]

    def skip(self, nodes: Iterable[str], why: str) -> None:
        """These are not asked any more."""
        self._all += [_Delivery(node, why_not_asked=why) for node in nodes]

    def interrupt(self) -> None:
        """The one who waited has stopped waiting."""
        self.is_interrupted = True

    def take(self, line: Line) -> Words:
        """Note one line of the API; what is to be said about it."""
        if line.event in ("accepted", "rejected"):
            return self._open(line)
        item = self._by_id.get(line.id or 0)
        if item is None:
            return []
        match line.event:
            case "delivered":
                return self._deliver(item, line)
            case "missed":
                return self._miss(item, line)
            case "waits" | "sent" | "working":
                is_news = item.progress.take(line) and line.event != "sent"
                return self._say(item, _at_via(item, item.progress.describe())) if is_news else []
            case "refused" | "dead":
                item.progress.take(line)
                return self._say(item, item.progress.describe())
            case "reply":
                return self._answer(item, line)
        return []

    def summary(self) -> str:
        """The last line."""
        total = len(self._all)
        failed, silent = len(self.failed), len(self.silent)
        good = total - failed - silent - len(self.not_asked)
        done = "accepted" if not self._follows else "done"
        parts = [f"{good} of {total} {done}"]
        if failed:
            parts.append(f"{failed} failed: {_list(self.failed)}")
        if silent:
            parts.append(f"{silent} silent: {_list(self.silent)}")
        if self.not_asked:
            why = self._all[-1].why_not_asked
            parts.append(f"{len(self.not_asked)} not asked ({why}): {_list(self.not_asked)}")
        asked = [item for item in self._all if not item.why_not_asked]
        if self._follows and any(not item.progress.is_settled for item in asked):
            parts.append("what waits stays in the outbox")
        return "; ".join(parts)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "job": self.job,
            "messages": [
                {
                    "to": item.to,
                    "id": item.id,
                    "id_text": None if item.id is None else str(item.id),
                    "state": NOT_ASKED if item.why_not_asked else item.progress.word,
                    "why": item.why_not_asked or item.progress.why,
                    "is_delivered": item.progress.is_delivered,
                    "seconds": item.seconds,
                    "reason": item.progress.why if item.progress.has_failed else None,
                    **({"note": item.note} if item.note else {}),
                    "replies": [_reply_facts(reply) for reply in item.replies],
                }
                for item in self._all
            ],
            "summary": {
                "total": len(self._all),
                "failed": self.failed,
                "silent": self.silent,
                "interrupted": self.is_interrupted,
            },
        }

    def _is_silent(self, item: _Delivery) -> bool:
        return not item.why_not_asked and not item.progress.is_over

    def _open(self, line: Line) -> Words:
        item = _Delivery(line.to or "", line.id or None, line.via or None)
        item.progress.wants_answer = bool(line.replies)
        self.job = line.job or self.job
        self._all.append(item)
        self._width = min(40, max(self._width, len(item.to)))
        if line.event == "rejected":
            item.progress.reject(line.reason or "")
            if line.code == "arguments":
                self.misuse = item.progress.why
                return []
            return self._say(item, f"not accepted: {item.progress.why}")
        if item.id is not None:
            self._by_id[item.id] = item
        words = self._say(item, f"accepted as {item.id}")
        if line.note:
            item.note = line.note
            words.append((f"note: {escape_line(item.note)}", False))
        return words

    def _deliver(self, item: _Delivery, line: Line) -> Words:
        is_news = item.progress.take(line)
        item.seconds = line.seconds or 0.0
        if not is_news:
            return []
        took = f"in {say_short(item.seconds)}"
        said = f"(delivered {took})" if item.progress.state in DELIVERED else took
        return self._say(item, _at_via(item, f"{item.progress.word} {said}"))

    def _miss(self, item: _Delivery, line: Line) -> Words:
        """A node that is away is said once, however often it is tried."""
        is_news = item.progress.take(line)
        if line.outcome == "no_responder":
            return self._say(item, _at_via(item, item.progress.describe())) if is_news else []
        again = say_again(line.next_in_seconds)
        return self._say(item, f"waiting: try {line.attempt or 0} not acknowledged{again}")

    def _answer(self, item: _Delivery, line: Line) -> Words:
        if line.progress:
            return self._tell_progress(item, *line.progress)
        item.replies.append(line)
        stream = "stderr" if line.stream == "stderr" else "stdout"
        body = self._lines(item, stream, line.data or "")
        body += self._lines(item, "stderr", line.stderr or "")
        if not item.progress.hear(line, is_filed=True):
            return self._head(item, "") + body if body else []
        status = line.exit_status or ""
        said = (
            ""
            if status in ("", "0")
            else f" (exit {status})"
            if status.isdecimal()
            else f" ({status})"
        )
        body += [_mark(name, rest) for name, rest in item.rests.items()]
        item.rests.clear()
        was_in_pieces = len(item.replies) > 1
        says_why = status.startswith("failed:")
        if not body and not was_in_pieces and not says_why:
            body = [("    (answered, empty)", True)]
        words = self._head(item, said) + body if body or said else []
        if line.stopped_after_seconds:
            words += self._say(
                item, f"stopped after {line.stopped_after_seconds:g} s, when its time was over"
            )
        elif line.signal:
            words += self._say(item, say_signal(line.signal))
        if line.is_held:
            words += self._say(item, "what the program left behind held its output and was ended")
        if line.truncated:
            words += self._say(item, "the output is not complete: it was cut at max_output_bytes")
        if line.is_stderr_cut:
            words += self._say(item, "of its error output only the end is shown")
        if line.not_filed:
            words += self._say(item, f"its answer is not filed here: {line.not_filed}")
        if line.is_cut:
            words.append(("    … cut here; the whole is in the reply's file", True))
        if said and not says_why and not item.said_stderr:
            words += self._say(item, ERROR_OUTPUT_HINT)
        return words

    def _tell_progress(self, item: _Delivery, done: int, total: int) -> Words:
        """A line for every tenth of the way."""
        tenth = done * 10 // total if total else 10
        if tenth <= item.tenths or tenth >= 10:
            return []
        item.tenths = tenth
        share = f"{done * 100 // total}%"
        return self._say(item, f"{share} of {say_bytes(total)}")

    def _head(self, item: _Delivery, said: str) -> Words:
        """Whose lines follow, unless that is plain."""
        if self._speaker is item and not said:
            return []
        self._speaker = item
        return [(f"{escape_line(item.to)}:{escape_line(said)}", True)]

    def _lines(self, item: _Delivery, stream: str, text: str) -> Words:
        """The whole lines of a piece, behind what the one before left unfinished."""
        if not text:
            return []
        item.said_stderr |= stream == "stderr"
        *whole, rest = (item.rests.pop(stream, "") + escape_controls(text)).split("\n")
        if rest:
            item.rests[stream] = rest
        return [_mark(stream, part) for part in whole]

    def _say(self, item: _Delivery, text: str) -> Words:
        return [(f"{escape_line(item.to):{self._width}s}  {escape_line(text)}", False)]


def _at_via(item: _Delivery, words: str) -> str:
    """What is said of a message that another node passes on is true of that one only."""
    return f"at {item.via}: {words}" if item.via else words


_ALWAYS = ("from", "method", "data", "is_cut", "exit_status")
_SOMETIMES = (
    "data_base64",
    "stderr",
    "stderr_base64",
    "stream",
    "has_more",
    "progress",
    "truncated",
    "is_stderr_cut",
    "stopped_after_seconds",
    "is_held",
    "signal",
    "not_filed",
)


def _reply_facts(reply: Line) -> dict[str, Any]:
    told = msgspec.to_builtins(reply)
    facts = {name: told.get(name) for name in _ALWAYS}
    return facts | {name: told[name] for name in _SOMETIMES if told.get(name)}


def _mark(stream: str, text: str) -> tuple[str, bool]:
    """A line of an answer; what was written to stderr is marked."""
    margin = "  ! " if stream == "stderr" else "    "
    return (f"{margin}{text}" if text else "", True)


def _list(names: list[str]) -> str:
    shown = ", ".join(escape_line(name) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
