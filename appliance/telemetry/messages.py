"""Facts of single messages: frequent, so they cost next to nothing while nobody listens."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.core.escape import escape_controls
from appliance.core.names import WorkerKey, is_node_name
from appliance.dialect.headers import PLAIN_END, Ending
from appliance.telemetry.events import EventHub
from appliance.telemetry.logs import ROOT
from appliance.telemetry.stats import TelemetryCounts

# How a fact is told: one log line, held back in a storm, and one event.

# Holds back log lines that a storm would repeat, and tells afterwards how many there were.

BURST = 5
WINDOW_S = 30.0
MAX_NAMES = 1_000
"""Storms followed at once. Beyond it the oldest is forgotten, after its count was told."""


@dataclass(slots=True)
class _Window:
    started_mono: float
    told: int = 0
    suppressed: int = 0


class LogRateLimit:
    """Lets `burst` lines per name and window through.

    The count of the others is told when the window ends, by a timer if an event loop runs, else
    with the next line of that name.
    """

    def __init__(
        self,
        tell: Callable[[str, int], None],
        *,
        mono: Callable[[], float] = time.monotonic,
        burst: int = BURST,
        window_s: float = WINDOW_S,
    ) -> None:
        self._tell = tell
        self._mono = mono
        self._burst = burst
        self._window_s = window_s
        self._windows: dict[str, _Window] = {}
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, name: str, burst: int | None = None) -> bool:
        """Whether a line of this name may be written now; `burst` where the usual number does not fit."""
        now_mono = self._mono()
        window = self._windows.get(name)
        if window is not None and now_mono - window.started_mono >= self._window_s:
            self._end(name)
            window = None
        if window is None:
            if len(self._windows) >= MAX_NAMES:
                self._end(next(iter(self._windows)))
            window = self._windows[name] = _Window(now_mono)
        if window.told < (self._burst if burst is None else burst):
            window.told += 1
            return True
        window.suppressed += 1
        if self._timer is None:
            self._schedule()
        return False

    def flush(self) -> None:
        """Tell the counts of every window that is over."""
        self._timer = None
        now_mono = self._mono()
        for name, window in list(self._windows.items()):
            if now_mono - window.started_mono >= self._window_s:
                self._end(name)
        if any(window.suppressed for window in self._windows.values()):
            self._schedule()

    def _end(self, name: str) -> None:
        suppressed = self._windows.pop(name).suppressed
        if suppressed:
            self._tell(name, suppressed)

    def _schedule(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(self._window_s, self.flush)


MAX_LIFE_LINES = 200
"""Starts (stops, updates, swaps) of workers told one by one within half a minute; the rest is a number."""

QUIET_KINDS = frozenset({"worker_started", "worker_updated", "worker_swapped", "worker_stopped"})
"""Facts whose lines are for those who debug; so is the number of those held back."""


class EventLog:
    """Owns the ways out. Used on the event loop only."""

    def __init__(
        self,
        events: EventHub,
        logger: logging.Logger | None = None,
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._logger = logger or logging.getLogger(ROOT)
        self._wall = wall
        self.counts = TelemetryCounts()
        self._storms = LogRateLimit(self._suppressed_told, mono=mono)

    def _log(self, level: int, sentence: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, sentence, extra={"fields": fields})

    def _worker(
        self,
        level: int,
        sentence: str,
        kind: str,
        key: WorkerKey,
        fields: Mapping[str, object] | None = None,
        *,
        storm: str | None = None,
    ) -> None:
        """Log and emit a fact of one worker; with `storm` the line is held back when repeated."""
        told = dict(fields or {})
        emit = self._events.emit
        if storm is not None:
            self._held_back(storm, level, sentence, key, told)
        elif level > logging.INFO or self._storms.allows(f"{kind} *", MAX_LIFE_LINES):
            self._log(level, sentence, {"worker": key.name, "node": key.node, **told})
        else:
            # thousands of starts would push all else out of the ring
            emit = self._events.emit_frequent
        emit(kind, node=key.node, worker=key.name, **told)

    def _held_back(
        self,
        storm: str,
        level: int,
        sentence: str,
        key: WorkerKey,
        fields: Mapping[str, object],
        burst: int | None = None,
    ) -> None:
        name = key.name
        if self._storms.allows(f"{storm} {name}", burst):
            self._log(level, sentence, {"worker": name, "node": key.node, **fields})

    def _suppressed_told(self, name: str, count: int) -> None:
        self.counts.lines_suppressed += count
        kind, _, worker = name.partition(" ")
        fields = {"worker": worker, "kind": kind, "count": count}
        level = logging.DEBUG if kind in QUIET_KINDS else logging.WARNING
        self._log(level, "similar lines suppressed", fields)


MAX_REPLY_CHARACTERS = 1_048_576
"""Of a reply's text in an event; the whole reply is where its handler put it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFacts:
    """What a reply says beside its data. `has_more` tells that it is a piece of an answer and others follow."""

    exit_status: str | None = None
    stderr: bytes = b""
    stream: str | None = None
    has_more: bool = False
    is_truncated: bool = False
    """The answerer threw output away that exceeded its bound."""
    is_stderr_cut: bool = False
    """`stderr` is the end of more."""
    progress: tuple[int, int] | None = None
    ending: Ending = PLAIN_END
    """How the program ended beside its status."""
    place: str = ""
    """Where in a file it ends."""
    not_filed: str = ""
    """Why it could not be filed here, where it was to be."""


NO_FACTS = ReplyFacts()


class MessageTelemetry(EventLog):
    """What happens to messages."""

    @property
    def events_dropped(self) -> int:
        """Events that slow listeners lost."""
        return self._events.dropped

    @property
    def follows_messages(self) -> bool:
        """Whether facts of single messages go anywhere: to listeners, or to the log of who debugs."""
        return self._events.has_listeners or self._logger.isEnabledFor(logging.DEBUG)

    def messages_accepted(self, count: int) -> None:
        """Messages from a caller are on disk."""
        self.counts.messages_accepted += count
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, "messages accepted", {"count": count})
        if self._events.has_listeners:
            self._events.emit_frequent("messages_accepted", count=count)

    def message_delivered(
        self,
        node: str,
        id_: int,
        to_node: str,
        method: str,
        seconds: float,
        state: DeliveryState = DeliveryState.TAKEN,
    ) -> None:
        """Acknowledged, or `SENT` where no acknowledgement is asked for; `DONE` when after the work."""
        if self._events.has_listeners:
            self._events.emit_frequent(
                "message_delivered",
                node=node,
                id=id_,
                to=to_node,
                method=method,
                seconds=round(seconds, 6),
                state=str(state),
            )
        if self._logger.isEnabledFor(logging.DEBUG):
            fields = {"node": node, "id": id_, "to": to_node, "method": method, "seconds": seconds}
            self._log(logging.DEBUG, f"message {state}", fields)

    def message_waits(self, node: str, id_: int, to_node: str, why: str) -> None:
        """A message waits, for another reason than before. `node` sends it."""
        if self._events.has_listeners:
            self._events.emit_frequent("message_waits", node=node, id=id_, to=to_node, why=why)

    def message_working(self, node: str, id_: int, to_node: str, taker: str = "") -> None:
        """The other side says that it has the message and is not done; `taker` is its daemon's instance.

        Told with every such word, so that whoever waits knows that the other side lives.
        """
        if self._events.has_listeners:
            self._events.emit_frequent(
                "message_working", node=node, id=id_, to=to_node, taker=taker
            )

    def attempt_missed(
        self,
        key: WorkerKey,
        id_: int,
        outcome: str,
        attempt: int,
        next_in_s: float,
        *,
        is_known: bool = False,
    ) -> None:
        """An attempt got no acknowledgement; the message stays and is tried again.

        That nobody is there is news once: `is_known` says that it has been told.
        """
        if self._events.has_listeners:
            self._events.emit_frequent(
                "attempt_missed",
                node=key.node,
                worker=key.name,
                id=id_,
                outcome=outcome,
                attempt=attempt,
                next_in_seconds=round(next_in_s, 3),
            )
        fields = {
            "id": id_,
            "outcome": outcome,
            "attempt": attempt,
            "next_in_s": round(next_in_s, 3),
        }
        said = "message not acknowledged"
        if is_known:
            self._log(logging.DEBUG, said, {"worker": key.name, "node": key.node, **fields})
            return
        self._held_back("missed", logging.WARNING, said, key, fields, burst=1)

    def message_dead(
        self, key: WorkerKey, id_: int, to_node: str, method: str, reason: str
    ) -> None:
        """A message was parked as a dead letter; its reason begins with how it ended."""
        state = str(state_of_reason(reason))
        self.counts.dead_letters[state] += 1
        fields: dict[str, object] = {"id": id_, "to": to_node, "method": method}
        fields |= {"reason": reason, "state": state}
        self._worker(logging.ERROR, "dead letter", "message_dead", key, fields, storm="dead")

    def message_taken_back(self, node: str, id_: int, to_node: str, reason: str) -> None:
        """An operator took a message out of the outbox; the reason begins with the word for its end."""
        if self._events.has_listeners:
            self._events.emit_frequent(
                "message_taken_back", node=node, id=id_, to=to_node, reason=reason
            )

    def foreign_answer(self, key: WorkerKey, said: str) -> None:
        """Something answered a message of ours that is not the node asked; the message goes on waiting for that."""
        fields = {"said": said or "no acknowledgement of the node that was asked"}
        self._worker(
            logging.WARNING, "answer of a stranger", "foreign_answer", key, fields, storm="foreign"
        )

    def node_not_declared(self, key: WorkerKey, to_node: str) -> None:
        """The node that is asked refuses what ours sends, as no config there declares it."""
        fields: dict[str, object] = {"to": to_node}
        self._worker(
            logging.WARNING, "this node is not declared there", "node_not_declared", key, fields
        )

    def node_declared_again(self, key: WorkerKey, to_node: str) -> None:
        """That is over."""
        fields: dict[str, object] = {"to": to_node}
        self._worker(
            logging.INFO, "this node is declared there again", "node_declared_again", key, fields
        )

    def undeclared_hello(self, node: str) -> None:
        """A node that no config declares said hello, for the first time as far as is known."""
        self._log(logging.WARNING, "hello of a node that is not declared", {"node": node})
        self._events.emit("undeclared_hello", node=node)

    def node_asks(self, node: str, fingerprint: str, warnings: tuple[str, ...]) -> None:
        """A new node asks to be let in, by a key that has not asked before."""
        fields: dict[str, object] = {"node": node, "fingerprint": fingerprint}
        if warnings:
            fields["beware"] = "; ".join(warnings)
        self._log(logging.WARNING, "a node asks to be let in", fields)
        self._events.emit("node_asks", **fields)

    def enrolment_troubled(self, trouble: str) -> None:
        """New nodes cannot ask, or what they asked cannot be kept."""
        self._log(logging.WARNING, "enrolment troubled", {"error": trouble})
        self._events.emit("enrolment_troubled", error=trouble)

    def streams_troubled(self, trouble: str) -> None:
        """Streams of the fleet, which this daemon keeps, cannot be made or changed."""
        self._log(logging.WARNING, "streams of the fleet troubled", {"error": trouble})
        self._events.emit("streams_troubled", error=trouble)

    def answers_denied(self, key: WorkerKey, text: str) -> None:
        """The broker keeps a subscriber's acknowledgements from going out: senders never hear that it did its work."""
        self._worker(
            logging.ERROR,
            "acknowledgements denied",
            "answers_denied",
            key,
            {"error": text},
            storm="answers_denied",
        )

    def message_refused(self, key: WorkerKey, sender: str, reason: str) -> None:
        """An incoming message was not admitted."""
        fields = {"sender": sender, "reason": reason}
        self._worker(
            logging.WARNING, "message refused", "message_refused", key, fields, storm="refused"
        )

    def message_dropped(self, key: WorkerKey) -> None:
        """Too many messages wait: one was dropped unacknowledged, so its sender sends it again."""
        if self._events.has_listeners:
            self._events.emit_frequent("message_dropped", node=key.node, worker=key.name)
        self._held_back("dropped", logging.WARNING, "message dropped: too many wait", key, {})

    def handler_failed(self, key: WorkerKey, sender: str, id_: int, error: str) -> None:
        """A handler refused or broke."""
        fields: dict[str, object] = {"sender": sender, "id": id_, "error": error}
        self._worker(
            logging.WARNING, "handler failed", "handler_failed", key, fields, storm="handler"
        )

    def message_interrupted(self, key: WorkerKey, sender: str, id_: int) -> None:
        """The daemon had died while this message was handled; it was not run again."""
        fields: dict[str, object] = {"sender": sender, "id": id_}
        self._worker(logging.ERROR, "message interrupted", "message_interrupted", key, fields)

    def orphans_given_up(self, scope: str, count: int) -> None:
        """Messages for a node's method (`scope`) were taken in, and no worker took them until their time was over."""
        self._log(
            logging.ERROR, "messages without a worker given up", {"for": scope, "count": count}
        )
        self._events.emit("orphans_given_up", scope=scope, count=count)

    def reply_received(
        self,
        node: str,
        from_node: str,
        previous_id: int,
        id_: int,
        method: str,
        data: str,
        facts: ReplyFacts = NO_FACTS,
        *,
        asked: str = "",
        relayed_by: str = "",
    ) -> None:
        """A reply to a message of ours arrived; `asked` is the node that it says the message was for, `relayed_by` the Go
        node that passed it on.
        """
        if self._events.has_listeners:
            shown = escape_controls(data[:MAX_REPLY_CHARACTERS])
            more: dict[str, object] = {}
            if asked != from_node and is_node_name(asked):
                more["asked"] = asked
            if relayed_by and is_node_name(relayed_by):
                more["relayed_by"] = relayed_by
            if shown != data[:MAX_REPLY_CHARACTERS]:
                raw = data[:MAX_REPLY_CHARACTERS].encode("utf-8", "surrogateescape")
                more["data_base64"] = base64.b64encode(raw).decode()
            if facts.stderr:
                text = facts.stderr.decode("utf-8", "surrogateescape")
                more["stderr"] = escape_controls(text)
                if more["stderr"] != text:
                    more["stderr_base64"] = base64.b64encode(facts.stderr).decode()
            if facts.is_truncated:
                more["truncated"] = True
            if facts.is_stderr_cut:
                more["is_stderr_cut"] = True
            stopped_after_s, is_held, number = facts.ending
            if stopped_after_s is not None:
                more["stopped_after_seconds"] = stopped_after_s
            if is_held:
                more["is_held"] = True
            if number is not None:
                more["signal"] = number
            if facts.stream is not None:
                more["stream"] = facts.stream
            if facts.place:
                more["place"] = facts.place
            if facts.not_filed:
                more["not_filed"] = facts.not_filed
            if facts.progress is not None:
                more["progress"] = list(facts.progress)
            self._events.emit_frequent(
                "reply_received",
                **{"from": from_node},
                node=node,
                previous_id=previous_id,
                id=id_,
                method=method,
                # JSON holds no bytes that are not UTF-8, so those are shown as escapes here
                data=shown,
                is_cut=len(data) > MAX_REPLY_CHARACTERS,
                exit_status=facts.exit_status,
                has_more=facts.has_more,
                **more,
            )
        if self._logger.isEnabledFor(logging.DEBUG):
            fields = {"node": node, "from": from_node, "previous_id": previous_id, "id": id_}
            self._log(logging.DEBUG, "reply received", fields)

    def error_report_held_back(self) -> None:
        """A report to errorCentral was one too many; counted now, told with the next that goes."""
        self.counts.error_reports_suppressed += 1

    def error_report_suppressed(self, count: int) -> None:
        """Reports to errorCentral were held back by the rate limit, and it is time to say so."""
        self._log(logging.WARNING, "error reports suppressed", {"count": count})
        self._events.emit("error_reports_suppressed", count=count)

    def error_report_expired(self, node: str, reason: str) -> None:
        """Nobody took a report to errorCentral as long as it waited. It is counted, and no dead letter."""
        self.counts.error_reports_lost += 1
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, "error report expired", {"node": node, "reason": reason})

    def error_report_lost(self, node: str, error: str) -> None:
        """A report to errorCentral could not even be stored."""
        self.counts.error_reports_lost += 1
        if self._storms.allows(f"report_lost {node}"):
            self._log(logging.ERROR, "error report lost", {"node": node, "error": error})
        self._events.emit("error_report_lost", node=node, error=error)
