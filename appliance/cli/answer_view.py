"""What a remote command or file says, put together again per node. Pure: lines of the API in, chunks out.

`exec` and `tail` share it. With one node its bytes pass as they are; with several each line is put
behind the node's name, and a line that is not finished waits for its end.
"""

from __future__ import annotations

import base64
import codecs
from collections import deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType

from appliance.api.model import Line
from appliance.cli.standing import Progress
from appliance.core.escape import escape_controls, escape_line
from appliance.core.outcome import REJECTED, STATUS_UNKNOWN, Kind
from appliance.core.times import say_again

MAX_LINE_BYTES = 65_536
"""A line longer than this is broken, so that one without an end cannot fill the memory."""

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""What is kept of all nodes until the end; what comes beyond it is cut, and told."""


class Stream(StrEnum):
    """Where a chunk goes."""

    OUT = "stdout"
    ERR = "stderr"
    NOTE = "note"
    """Words of ours, for stderr."""


class Chunk(NamedTuple):
    """Something to write at once."""

    stream: Stream
    data: bytes


class Said(NamedTuple):
    """All that one node wrote."""

    out: bytes
    err: bytes

    def show(self, stream: Stream) -> str | dict[str, str]:
        """One of the two for JSON: text, or base64 where it is none."""
        raw = self.out if stream is Stream.OUT else self.err
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}


CUT_OFF = "its answer was cut off"
GOES_ON = "goes on where it was as soon as that can be"
NOT_ASKED = "not asked"
"""Where a node stands that was chosen and never sent anything."""


@dataclass(slots=True)
class NodeAnswer:
    """One node and what it said."""

    node: str
    id: int | None = None
    progress: Progress = field(default_factory=Progress)
    job: str = ""
    batch: int = 1
    why_not_asked: str = ""
    seconds: float | None = None
    """Until it was delivered."""
    wants_status: bool = False
    """Whether it is told as failed where it does not say how its program ended."""
    pending: dict[Stream, bytes] = field(default_factory=dict)
    is_shown_in_part: bool = False
    """Whether what is shown of it is the beginning of what is filed."""
    place: str = ""
    """Where in a file its answer has come to."""
    is_go_node: bool = False
    """Whether it has taken what was asked, gave no answer, and never said that it is an appliance."""

    @property
    def has_failed(self) -> bool:
        """Whether it could not be sent, was refused, or ended with another status than 0."""
        return self.progress.judge(wants_status=self.wants_status) is Kind.FAILED

    @property
    def reason(self) -> str | None:
        """Why it failed, where it did and that was told."""
        if self.progress.has_failed:
            return self.progress.why or self.progress.word
        if self.progress.not_filed:
            return f"its answer is not filed here: {self.progress.not_filed}"
        return STATUS_UNKNOWN if self.wants_status and self.progress.is_status_unknown else None

    @property
    def is_not_asked(self) -> bool:
        """Whether it was chosen, and others kept it from being sent anything."""
        return bool(self.why_not_asked)

    @property
    def word(self) -> str:
        """Where its message stands, as a word."""
        return NOT_ASKED if self.is_not_asked else self.progress.word

    @property
    def is_pending(self) -> bool:
        """Whether anything may still come."""
        return not self.is_not_asked and not self.progress.is_over

    @property
    def is_absent(self) -> bool:
        """Whether nobody is there who could take it."""
        return self.is_pending and self.progress.is_absent

    @property
    def is_silent(self) -> bool:
        """Whether its answer is still to come, as far as anybody can tell."""
        return not self.is_not_asked and self.progress.is_silent

    def describe(self) -> str:
        """Words for what went wrong."""
        if self.is_not_asked:
            return f"{NOT_ASKED}: {self.why_not_asked}"
        if self.progress.has_failed:
            is_told = self.progress.word == REJECTED and self.progress.why
            return self.progress.why if is_told else self.progress.describe()
        if self.progress.exit_status:
            return f"exit {self.progress.exit_status}"
        if self.progress.is_incomplete:
            return "the output is not complete"
        if self.progress.not_filed:
            return f"its answer is not filed here: {self.progress.not_filed}"
        if self.wants_status and self.progress.is_status_unknown:
            return STATUS_UNKNOWN
        return "no answer yet" if self.progress.is_delivered else self.progress.describe_silence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How what nodes say is shown."""

    escapes: Set[Stream]
    """The streams that are shown on a terminal."""
    prefixes: bool = False
    """Each line stands behind its node's name."""
    in_lines: bool = False
    """Lines of several nodes are kept apart, with prefixes or without."""
    keeps: bool = False
    """Everything is collected for `facts` and `said`, and nothing shown meanwhile."""
    streams: bool = False
    """An answer may come in pieces."""
    for_appliances: bool = False
    """Whoever answers as no appliance does has not done it."""
    wants_status: bool = False
    """A node has failed that does not say how its program ended."""
    tells_absence: bool = True
    """It is told at once that nobody is there."""
    is_filed: bool = False
    """An answer that is too long to be shown is whole in its file."""


class _Kept:
    """What all nodes wrote, within a bound."""

    def __init__(self) -> None:
        self._bytes = 0
        self._by_node: dict[str, dict[Stream, bytearray]] = {}

    def add(self, node: str, stream: Stream, data: bytes) -> bool:
        """Keep a piece; False where it is beyond the bound and not kept."""
        self._bytes += len(data)
        if self._bytes > MAX_KEPT_BYTES:
            return False
        self._by_node.setdefault(node, {}).setdefault(stream, bytearray()).extend(data)
        return True

    def said(self, node: str) -> Said:
        """All that a node wrote."""
        kept = self._by_node.get(node, {})
        return Said(bytes(kept.get(Stream.OUT, b"")), bytes(kept.get(Stream.ERR, b"")))


class Answers:
    """All nodes of one call."""

    def __init__(self, style: Style, labels: Sequence[str] = ()) -> None:
        self._style = style
        self._labels = labels
        """What each is called, in the order in which they are asked, where that is not its node's name."""
        self.batch = 1
        """The one that is asked now."""
        self._decoders: dict[tuple[str, Stream], codecs.IncrementalDecoder] = {}
        """Of characters that a piece may end in the middle of."""
        self._kept = _Kept()
        self.nodes: list[NodeAnswer] = []
        self._by_id: dict[int, NodeAnswer] = {}
        self._again: deque[NodeAnswer] = deque()
        """Those that are asked once more, in this order."""
        self.lost_events = 0
        self.is_interrupted = False

    @property
    def failed(self) -> list[NodeAnswer]:
        """Those that failed."""
        return [item for item in self.nodes if item.has_failed]

    @property
    def silent(self) -> list[NodeAnswer]:
        """Those that have not answered."""
        return [item for item in self.nodes if not item.has_failed and item.is_silent]

    @property
    def absent(self) -> list[NodeAnswer]:
        """Those of the silent at which nobody is there."""
        return [item for item in self.silent if item.is_absent]

    @property
    def not_asked(self) -> list[NodeAnswer]:
        """Those that were chosen and not asked."""
        return [item for item in self.nodes if item.is_not_asked]

    @property
    def jobs_to_come(self) -> list[str]:
        """Where what is still to come is kept."""
        return _jobs(self.silent)

    @property
    def first_job(self) -> str | None:
        """The job that keeps what came of it; None where none does."""
        return next(iter(_jobs(self.nodes)), None)

    @property
    def troubled_count(self) -> int:
        """How many failed, or were there and gave no answer in time: what speaks against asking others."""
        return len(self.failed) + len(self.silent) - len(self.absent)

    def begin_batch(self, number: int) -> None:
        """Those that are asked from now on are asked together."""
        self.batch = number

    @property
    def again_count(self) -> int:
        """Of how many it is not known yet that they are asked once more."""
        return len(self._again)

    def ask_again(self, items: Iterable[NodeAnswer]) -> None:
        """What is asked next goes on for these, in this order; what was asked for them before counts no more."""
        self._again = deque(items)
        ids = {item.id for item in self._again}
        self._by_id = {id_: item for id_, item in self._by_id.items() if id_ not in ids}

    def skip(self, nodes: Iterable[str], why: str) -> None:
        """These are not asked any more."""
        for name in nodes:
            self.nodes.append(NodeAnswer(name, batch=0, why_not_asked=why))

    def said(self, item: NodeAnswer) -> Said:
        """All that a node wrote, once `keeps` was asked for."""
        return self._kept.said(item.node)

    def are_complete(self, node_count: int) -> bool:
        """Whether nothing more can come from so many nodes."""
        return len(self.nodes) >= node_count and not any(item.is_pending for item in self.nodes)

    def take(self, line: Line) -> list[Chunk]:
        """Note one line of the API; what is to be written for it."""
        if line.event in ("accepted", "rejected"):
            return self._open(line)
        if line.event in ("end", "events_lost"):
            self.lost_events = max(self.lost_events, line.count or line.lost_events or 0)
            self._note_go_nodes(line.go_nodes or ())
            return []
        item = self._by_id.get(line.id or 0)
        if item is None:
            return []
        match line.event:
            case "missed":
                return self._miss(item, line)
            case "waits":
                return self._tell_standing(item, is_news=item.progress.take(line))
            case "delivered" | "sent" | "working" | "refused" | "dead":
                item.progress.take(line)
                item.seconds = line.seconds or item.seconds
            case "reply":
                item.place = line.place or item.place
                return self._answer(item, line)
            case "resumes":
                return [_note(f"{item.node}: {line.why or CUT_OFF}; it {GOES_ON}")]
        return []

    def finish(self) -> list[Chunk]:
        """What still waits for the end of its line."""
        return [chunk for item in self.nodes for chunk in self._flush(item)]

    def facts(self) -> dict[str, Any]:
        """Everything as JSON, once `keeps` was asked for."""
        return {
            "job": self.first_job,
            "jobs": _jobs(self.nodes),
            "nodes": [self._facts_of(item) for item in self.nodes],
            "summary": self.summary(),
        }

    def summary(self) -> dict[str, Any]:
        """How many there are, and which of them did not do well."""
        return {
            "total": len(self.nodes),
            "failed": [item.node for item in self.failed],
            "silent": [item.node for item in self.silent],
            "absent": [item.node for item in self.absent],
            "not_asked": [item.node for item in self.not_asked],
            "interrupted": self.is_interrupted,
            "lost_pieces": self.lost_events,
        }

    # -- lines ------------------------------------------------------------------------------------

    def _open(self, line: Line) -> list[Chunk]:
        if self._again:
            item = self._again.popleft()
            item.id = line.id or None
            if line.event == "rejected":
                item.progress.reject(line.reason or "not accepted")
            elif item.id is not None:
                self._by_id[item.id] = item
            return []
        at = len(self.nodes)
        name = self._labels[at] if at < len(self._labels) else line.to or ""
        item = NodeAnswer(name, line.id or None, batch=self.batch)
        item.progress.wants_answer = line.replies is UNSET or bool(line.replies)
        item.progress.streams, item.wants_status = self._style.streams, self._style.wants_status
        item.progress.for_appliances = self._style.for_appliances
        item.job = line.job or ""
        self.nodes.append(item)
        if line.event == "rejected":
            item.progress.reject(line.reason or "not accepted")
        elif item.id is not None:
            self._by_id[item.id] = item
        return [_note(line.note)] if line.note else []

    def _note_go_nodes(self, names: Iterable[str]) -> None:
        for name in names:
            for item in self._by_id.values():
                item.is_go_node |= item.node == name

    def _miss(self, item: NodeAnswer, line: Line) -> list[Chunk]:
        is_news = item.progress.take(line)
        if line.outcome != "no_responder":
            said = f"try {line.attempt or 0} not acknowledged{say_again(line.next_in_seconds)}"
            return [_note(f"{item.node}: {said}")]
        return self._tell_standing(item, is_news=is_news)

    def _tell_standing(self, item: NodeAnswer, *, is_news: bool) -> list[Chunk]:
        if not is_news or (item.progress.is_absent and not self._style.tells_absence):
            return []
        return [_note(f"{item.node}: {item.progress.describe()}")]

    def _answer(self, item: NodeAnswer, line: Line) -> list[Chunk]:
        stream = Stream.ERR if line.stream == "stderr" else Stream.OUT
        is_complete = item.progress.hear(line, is_filed=self._style.is_filed)
        item.is_shown_in_part |= self._style.is_filed and bool(line.is_cut)
        chunks = self._write(item, stream, _read_bytes(line.data, line.data_base64))
        chunks += self._write(item, Stream.ERR, _read_bytes(line.stderr, line.stderr_base64))
        if not is_complete:
            return chunks
        return chunks + self._flush(item)

    # -- bytes ------------------------------------------------------------------------------------

    def _write(self, item: NodeAnswer, stream: Stream, data: bytes) -> list[Chunk]:
        if not data:
            return []
        if self._style.keeps:
            if not self._kept.add(item.node, stream, data):
                item.is_shown_in_part |= self._style.is_filed
                item.progress.is_cut |= not self._style.is_filed
            return []
        if not (self._style.in_lines or self._style.prefixes):
            return self._pass(item, stream, data)
        *whole, rest = (item.pending.pop(stream, b"") + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            whole.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            item.pending[stream] = rest
        lines = b"".join(self._prefixed(item, stream, part) for part in whole)
        return [Chunk(stream, lines)] if lines else []

    def _pass(
        self, item: NodeAnswer, stream: Stream, data: bytes, *, ends: bool = False
    ) -> list[Chunk]:
        """Without a prefix: as it is, or what of it is whole characters."""
        if stream not in self._style.escapes:
            return [Chunk(stream, data)] if data else []
        decoder = self._decoders.setdefault((item.node, stream), _new_decoder())
        text = escape_controls(decoder.decode(data, ends))
        return [Chunk(stream, text.encode())] if text else []

    def _flush(self, item: NodeAnswer) -> list[Chunk]:
        chunks = [
            Chunk(stream, self._prefixed(item, stream, rest))
            for stream, rest in item.pending.items()
        ]
        item.pending.clear()
        if not (self._style.in_lines or self._style.prefixes):
            for stream in self._style.escapes:
                chunks += self._pass(item, stream, b"", ends=True)
        return chunks

    def _prefixed(self, item: NodeAnswer, stream: Stream, part: bytes) -> bytes:
        if stream in self._style.escapes:
            part = escape_controls(part.decode("utf-8", "surrogateescape")).encode()
        name = f"{escape_line(item.node)}: ".encode() if self._style.prefixes else b""
        return name + part + b"\n"

    def _facts_of(self, item: NodeAnswer) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "node": item.node,
            "id": item.id,
            "id_text": None if item.id is None else str(item.id),
            "state": item.word,
            "why": item.why_not_asked or item.progress.why,
            "batch": item.batch,
            "seconds": item.seconds,
            "is_delivered": item.progress.is_delivered,
            "is_answered": item.progress.is_answered,
            "exit_status": item.progress.exit_status,
            "is_status_unknown": item.progress.is_status_unknown,
            "reason": item.why_not_asked or item.reason or item.progress.describe_ending(),
            "is_cut": item.progress.is_cut,
            "is_truncated": item.progress.is_truncated,
            "is_stderr_cut": item.progress.is_stderr_cut,
            "stopped_after_seconds": item.progress.stopped_after_s,
            "is_held": item.progress.is_held,
            "signal": item.progress.signal,
        }
        said = self.said(item)
        for stream in (Stream.OUT, Stream.ERR):
            facts[stream.value] = said.show(stream)
        return facts


def _jobs(items: Iterable[NodeAnswer]) -> list[str]:
    return list(dict.fromkeys(item.job for item in items if item.job))


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")


def _read_bytes(text: str | UnsetType | None, encoded: str | UnsetType) -> bytes:
    """The bytes of a field that is shown escaped where it is not fit for a terminal."""
    if encoded:
        return base64.b64decode(encoded)
    return (text or "").encode("utf-8", "backslashreplace")


def _note(text: str) -> Chunk:
    return Chunk(Stream.NOTE, escape_line(text).encode())
