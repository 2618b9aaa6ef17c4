"""JetStream within one process, by its rules as far as appliances use it: work queues, durable pull consumers, claims.

`StreamingBroker` is a `MemoryBroker` that keeps streams: its API (`$JS.API.…`) in JSON, acknowledgements of publishes with
`Nats-Msg-Id`, `Nats-Expected-Stream` and `Nats-Expected-Last-Subject-Sequence`, pulls with expiry and heartbeats, `+ACK`,
`+WPI`, `-NAK`, `+TERM`, redelivery after `ack_wait`. What is stored outlives `stop` and `start`, as with `sync_interval:
always`. Held to nats-server by tests that run on both.

Not here: push consumers, replicas, limits but of bytes, ages, `max_deliver`.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from appliance.bus.base import BusMessage, Frame
from appliance.bus.frames import is_covered
from appliance.bus.memory import MemoryBroker, _Session, is_heard
from appliance.wire.headers import encode_headers, parse_headers

_NANOSECONDS = 1_000_000_000
_FIXED = ("retention", "storage")
_EPOCH_NS = 1_767_225_600 * _NANOSECONDS


@dataclass(slots=True)
class Pull:
    """One asking for messages."""

    inbox: str
    left: int
    expires_at: float
    heartbeat_s: float
    heard_at: float


@dataclass(slots=True)
class Consumer:
    """A durable pull consumer."""

    config: dict[str, Any]
    next_sequence: int = 1
    deliveries: dict[int, int] = field(default_factory=dict)
    delivered: int = 0
    """How often each message in hand was delivered."""
    pending: dict[int, float] = field(default_factory=dict)
    """When each message in hand is delivered again."""
    again: deque[int] = field(default_factory=deque)
    pulls: deque[Pull] = field(default_factory=deque)
    sent: int = 0


@dataclass(slots=True)
class Stream:
    """A work queue."""

    config: dict[str, Any]
    created: str
    last: int = 0
    messages: dict[int, tuple[str, bytes, bytes]] = field(default_factory=dict)
    stored_ns: dict[int, int] = field(default_factory=dict)
    last_of: dict[str, int] = field(default_factory=dict)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return sum(len(block) + len(payload) + 40 for _, block, payload in self.messages.values())


class StreamingBroker(MemoryBroker):
    """See the module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.has_streams = True
        self.streams: dict[str, Stream] = {}
        self._lives = itertools.count(1)
        self._is_recorded = False
        self._ticking = False
        self._stored_ns = 0
        self.purges = 0
        """How often somebody had a stream let go of messages."""

    def stop(self) -> None:
        """As `MemoryBroker.stop`; who asked for messages asks again."""
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.pulls.clear()
        super().stop()

    # -- what clients send ------------------------------------------------------------------------

    def route(self, sender: _Session, frame: Frame) -> None:
        """Keep what a stream records, answer what is JetStream's, pass everything else on."""
        subject, reply_to, block, payload = frame
        if not sender.permissions.may_publish(subject):
            super().route(sender, frame)
        elif subject.startswith("$JS.ACK."):
            self._take_ack(subject, payload)
            if reply_to:
                self._send(reply_to, b"")
        elif subject.startswith("$JS.API.CONSUMER.MSG.NEXT."):
            self._take_pull(subject, reply_to, payload)
        elif subject.startswith("$JS.API."):
            found = self._answer(subject.split(".")[2:], payload)
            self._send(reply_to, json.dumps(found).encode())
        else:
            stream = self._recording(subject)
            self._is_recorded = stream is not None
            super().route(sender, frame)
            self._is_recorded = False
            if stream is not None:
                said = self._store(stream, subject, block, payload)
                if reply_to:
                    self._send(reply_to, json.dumps(said).encode())
                self._deliver_all(stream)

    def _answer_nobody(self, sender: _Session, subject: str, reply_to: str) -> None:
        if not self._is_recorded:
            super()._answer_nobody(sender, subject, reply_to)

    def _recording(self, subject: str) -> Stream | None:
        for stream in self.streams.values():
            if any(is_heard(subject, one) for one in stream.config["subjects"]):
                return stream
        return None

    def _store(
        self, stream: Stream, subject: str, block: bytes, payload: bytes
    ) -> Mapping[str, Any]:
        name = stream.config["name"]
        headers = parse_headers(block) if block else {}
        now = asyncio.get_running_loop().time()
        expected = headers.get("Nats-Expected-Stream", name)
        if expected != name:
            return _error(10060, "expected stream does not match")
        last = headers.get("Nats-Expected-Last-Subject-Sequence")
        if last is not None and int(last) != stream.last_of.get(subject, 0):
            return _error(10071, "wrong last sequence")
        message_id = headers.get("Nats-Msg-Id", "")
        window_s = stream.config.get("duplicate_window", 0) / _NANOSECONDS
        if message_id in stream.ids and now - stream.ids[message_id][1] < window_s:
            return {"stream": name, "seq": stream.ids[message_id][0], "duplicate": True}
        limit = stream.config.get("max_bytes", -1)
        if limit > 0 and stream.size + len(block) + len(payload) + 40 > limit:
            return _error(10077, "maximum bytes exceeded")
        stream.last += 1
        stream.messages[stream.last] = (subject, block, payload)
        self._stored_ns = max(self._stored_ns + 1, _EPOCH_NS + round(now * _NANOSECONDS))
        stream.stored_ns[stream.last] = self._stored_ns
        stream.last_of[subject] = stream.last
        if message_id:
            stream.ids[message_id] = (stream.last, now)
        return {"stream": name, "seq": stream.last}

    # -- the API ----------------------------------------------------------------------------------

    def _answer(self, words: list[str], payload: bytes) -> Mapping[str, Any]:
        body = json.loads(payload) if payload else {}
        kind, verb, name = words[0], words[1], words[2] if len(words) > 2 else ""
        if kind == "STREAM" and verb == "MSG":
            return self._read(self.streams.get(words[3]), body)
        stream = self.streams.get(name)
        if kind == "STREAM" and verb == "CREATE":
            return self._make_stream(name, body)
        if stream is None:
            return _error(10059, "stream not found")
        if kind == "CONSUMER":
            return self._answer_consumer(stream, verb, words[3], body)
        if verb == "UPDATE":
            if any(body.get(key) != stream.config.get(key) for key in _FIXED):
                return _error(10052, "stream configuration update can not change retention policy")
            if self._overlaps(name, body):
                return _error(10065, "subjects overlap with an existing stream")
            stream.config = body
        elif verb == "PURGE":
            for at, (subject, _, _) in tuple(stream.messages.items()):
                if is_covered(subject, by=body["filter"]) and at < body.get("seq", at + 1):
                    del stream.messages[at]
                    if stream.last_of.get(subject) == at:
                        del stream.last_of[subject]
            self.purges += 1
            # nothing is delivered for that, though there is room for more in hand now
            first = min(stream.messages, default=stream.last + 1)
            for consumer in stream.consumers.values():
                for at in [at for at in consumer.deliveries if at < first]:
                    consumer.pending.pop(at, None)
                    consumer.deliveries.pop(at, None)
            return {"success": True}
        elif verb == "DELETE":
            del self.streams[name]
            return {"success": True}
        return self._describe(stream)

    def _make_stream(self, name: str, body: dict[str, Any]) -> Mapping[str, Any]:
        if name in self.streams:
            return _error(10058, "stream name already in use")
        if self._overlaps(name, body):
            return _error(10065, "subjects overlap with an existing stream")
        self.streams[name] = Stream(body, f"life {next(self._lives)}")
        return self._describe(self.streams[name])

    def _overlaps(self, name: str, body: dict[str, Any]) -> bool:
        taken = {
            subject
            for other, stream in self.streams.items()
            if other != name
            for subject in stream.config["subjects"]
        }
        return not taken.isdisjoint(body["subjects"]) if body["subjects"] != ["unused"] else False

    def _describe(self, stream: Stream) -> Mapping[str, Any]:
        subjects = Counter(one[0] for one in stream.messages.values())
        state = {"messages": len(stream.messages), "last_seq": stream.last, "subjects": subjects}
        return {"config": stream.config, "state": state, "created": stream.created}

    def _read(self, stream: Stream | None, body: dict[str, Any]) -> Mapping[str, Any]:
        if stream is None:
            return _error(10059, "stream not found")
        if "next_by_subj" in body:
            wanted = body["next_by_subj"]
            found = (
                at for at, one in stream.messages.items() if at >= body["seq"] and one[0] == wanted
            )
            at = next(found, 0)
        else:
            at = stream.last_of.get(body["last_by_subj"], 0)
        if at not in stream.messages:
            return _error(10037, "no message found")
        data = base64.b64encode(stream.messages[at][2]).decode()
        seconds, fraction = divmod(stream.stored_ns[at], _NANOSECONDS)
        moment = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"
        return {"message": {"seq": at, "data": data, "time": moment}}

    def _answer_consumer(
        self, stream: Stream, verb: str, name: str, body: dict[str, Any]
    ) -> Mapping[str, Any]:
        consumer = stream.consumers.get(name)
        if verb == "CREATE":
            if consumer is None:
                consumer = stream.consumers[name] = Consumer(body["config"])
            elif body.get("action") == "create":
                return _error(10148, "consumer already exists")
            consumer.config = body["config"]
        if consumer is None:
            return _error(10014, "consumer not found")
        if verb == "DELETE":
            for pull in consumer.pulls:
                self._send(pull.inbox, b"", "NATS/1.0 409 Consumer Deleted")
            del stream.consumers[name]
            return {"success": True}
        if verb == "PAUSE":
            consumer.config = {**consumer.config, "pause_until": body.get("pause_until")}
            self._deliver(stream, consumer)
        waiting = [at for at in stream.messages if self._is_next(stream, consumer, at)]
        return {
            "config": consumer.config,
            "paused": bool(consumer.config.get("pause_until")),
            "num_pending": len(waiting),
            "num_ack_pending": len(consumer.pending) + len(consumer.again),
            "num_redelivered": sum(count > 1 for count in consumer.deliveries.values()),
            "delivered": {"consumer_seq": consumer.delivered},
            "ack_floor": {"stream_seq": min(stream.messages, default=stream.last + 1) - 1},
        }

    @staticmethod
    def _is_next(stream: Stream, consumer: Consumer, at: int) -> bool:
        subject = stream.messages[at][0]
        return at >= consumer.next_sequence and subject == consumer.config["filter_subject"]

    # -- delivering -------------------------------------------------------------------------------

    def _take_pull(self, subject: str, inbox: str, payload: bytes) -> None:
        words = subject.split(".")
        stream = self.streams.get(words[5])
        consumer = None if stream is None else stream.consumers.get(words[6])
        if stream is None or consumer is None:
            self._send(inbox, b"", "NATS/1.0 503")
            return
        body = json.loads(payload)
        now = asyncio.get_running_loop().time()
        if body["expires"] < _NANOSECONDS // 1_000:  # over before anything is served
            left = {"Nats-Pending-Messages": str(body["batch"])}
            self._send(inbox, b"", "NATS/1.0 408 Request Timeout", left)
            self._deliver(stream, consumer)
            return
        consumer.pulls.append(
            Pull(
                inbox,
                body["batch"],
                now + body["expires"] / _NANOSECONDS,
                body.get("idle_heartbeat", 0) / _NANOSECONDS,
                now,
            )
        )
        self._deliver(stream, consumer)
        self._tick_later()

    def _deliver_all(self, stream: Stream) -> None:
        for consumer in stream.consumers.values():
            self._deliver(stream, consumer)

    def _deliver(self, stream: Stream, consumer: Consumer) -> None:
        now = asyncio.get_running_loop().time()
        while consumer.pulls and not consumer.config.get("pause_until"):
            pull = consumer.pulls[0]
            if pull.left <= 0 or not self._hears(pull.inbox):
                consumer.pulls.popleft()
                continue
            in_hand = len(consumer.pending) + len(consumer.again)
            if len(consumer.pending) >= consumer.config["max_ack_pending"] or (
                in_hand >= consumer.config["max_ack_pending"] and not consumer.again
            ):
                return
            at = self._choose(stream, consumer)
            if at is None:
                return
            pull.left -= 1
            pull.heard_at = now
            consumer.pulls.rotate(-1)  # in turns, whoever asked for more
            consumer.sent += 1
            count = consumer.deliveries[at] = consumer.deliveries.get(at, 0) + 1
            consumer.delivered += 1
            consumer.pending[at] = now + consumer.config["ack_wait"] / _NANOSECONDS
            name, durable = stream.config["name"], consumer.config["durable_name"]
            left = len(consumer.again) + sum(
                self._is_next(stream, consumer, other) for other in stream.messages
            )
            stored_ns = stream.stored_ns[at]
            ack = f"$JS.ACK.{name}.{durable}.{count}.{at}.{consumer.sent}.{stored_ns}.{left}"
            subject, block, payload = stream.messages[at]
            self._pass(pull.inbox, BusMessage(subject, payload, block, ack))
            self._tick_later()

    def _choose(self, stream: Stream, consumer: Consumer) -> int | None:
        while consumer.again:
            at = consumer.again.popleft()
            if at in stream.messages:
                return at
        for at in stream.messages:
            if self._is_next(stream, consumer, at):
                consumer.next_sequence = at + 1
                return at
        return None

    def _take_ack(self, subject: str, payload: bytes) -> None:
        words = subject.split(".")
        stream = self.streams.get(words[2])
        consumer = None if stream is None else stream.consumers.get(words[3])
        at = int(words[5])
        if stream is None or consumer is None or at not in consumer.deliveries:
            return
        loop = asyncio.get_running_loop()
        wait_s = consumer.config["ack_wait"] / _NANOSECONDS
        if payload.startswith(b"+WPI"):
            if at in consumer.pending:
                consumer.pending[at] = loop.time() + wait_s
        elif payload.startswith(b"-NAK"):
            delay_s = json.loads(payload[4:] or b"{}").get("delay", 0) / _NANOSECONDS
            if at in consumer.pending:
                consumer.pending[at] = loop.time() + delay_s
                self._tick_later()
        else:  # +ACK and +TERM: a work queue forgets it
            consumer.pending.pop(at, None)
            consumer.deliveries.pop(at, None)
            stream.messages.pop(at, None)
            self._deliver(stream, consumer)

    # -- time -------------------------------------------------------------------------------------

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(0.5, self._tick)

    def _tick(self) -> None:
        """Deliver again what is due, end what has expired, say that somebody is there."""
        self._ticking = False
        now = asyncio.get_running_loop().time()
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                due = [at for at, when in consumer.pending.items() if when <= now]
                for at in due:
                    del consumer.pending[at]
                    consumer.again.append(at)
                for pull in tuple(consumer.pulls):
                    if pull.expires_at <= now:
                        consumer.pulls.remove(pull)
                        left = {"Nats-Pending-Messages": str(pull.left)}
                        self._send(pull.inbox, b"", "NATS/1.0 408 Request Timeout", left)
                    elif pull.heartbeat_s and now - pull.heard_at >= pull.heartbeat_s:
                        pull.heard_at = now
                        self._send(pull.inbox, b"", "NATS/1.0 100 Idle Heartbeat")
                if self.is_up:
                    self._deliver(stream, consumer)
                if consumer.pulls or consumer.pending:
                    self._tick_later()

    # -- to clients -------------------------------------------------------------------------------

    def _hears(self, subject: str) -> bool:
        return any(
            is_heard(subject, pattern)
            for session in self._sessions
            for pattern, _ in session.subscriptions.values()
        )

    def _send(
        self, to: str, payload: bytes, status: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        block = b""
        if status:
            plain = encode_headers(headers) if headers else b"NATS/1.0\r\n\r\n"
            block = status.encode() + plain[len("NATS/1.0") :]
        self._pass(to, BusMessage(to, payload, block))

    def _pass(self, to: str, message: BusMessage) -> None:
        for session in tuple(self._sessions):
            for sid, (pattern, queue) in tuple(session.subscriptions.items()):
                if not queue and is_heard(to, pattern):
                    self._pass_on("", session, sid, message)


def _error(code: int, description: str) -> dict[str, Any]:
    return {"error": {"code": 400, "err_code": code, "description": description}}
