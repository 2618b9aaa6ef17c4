"""Messages that a stream takes together: all of them or none, and on its disk by one write.

A broker that writes each message through to the disk before it says that it has it (`sync_interval: always`) does so once
for a batch. Where it need not, a batch costs it more than its messages do alone. So both ways are tried, and the faster
one is taken, as long as it is. Brokers before 2.12 know no batches, and take the messages as they come; a stream that
refuses one, for whatever is in it, is sent its messages alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from enum import Enum

from appliance.bus.base import BusMessage, Frame
from appliance.core.streams import PubAck, read_puback, write_puback
from appliance.dialect.headers import with_line

LEAST, MOST = 32, 512
"""Messages that are worth a batch, and that one holds; the broker takes no more than a thousand."""
MOST_BYTES = 4 * 1024 * 1024
LINES_BYTES = 128
"""What a batch adds to the headers of a message, at most."""
LOOKED_AT_EVERY = 256
"""After so many lists the other way is tried again."""
ALONE_FIRST, ALONE_MOST = 64, 16_384
"""Lists that go alone after a batch that was refused; four times as many with each one after it."""
UNDER_WAY, FORGOTTEN_S = 64, 30.0
"""Lists whose answers are waited for, and how long."""
SMOOTHING = 0.3


class Way(Enum):
    """How a list of messages goes out."""

    ALONE = "alone"
    TOGETHER = "together"


class Sent:
    """A list of messages under way."""

    __slots__ = ("frames", "sent_mono", "way")

    def __init__(self, frames: Sequence[Frame], way: Way, sent_mono: float) -> None:
        self.frames = frames
        self.way = way
        self.sent_mono = sent_mono


class Batches:
    """Of one lane: which lists go as a batch, and what the stream's answer to one means for its messages."""

    def __init__(self, mono: Callable[[], float]) -> None:
        self._mono = mono
        self._under_way: dict[str, Sent] = {}
        """By the reply subject of the last message of each list."""
        self._cost_s: dict[Way, float] = {}
        """Of a message, as lists took lately."""
        self._lists = 0
        self._alone_for = ALONE_FIRST
        self._alone_until = 0

    def prepare(self, frames: Sequence[Frame], max_payload: int) -> Sequence[Frame]:
        """The frames as they are to be sent; `max_payload` is the broker's bound of one."""
        if not LEAST <= len(frames) <= MOST:
            return frames
        sizes = [len(block) + len(payload) for _, _, block, payload in frames]
        if sum(sizes) > MOST_BYTES or max(sizes) + LINES_BYTES > max_payload:
            return frames
        self._lists += 1
        now = self._mono()
        oldest = next(iter(self._under_way), None)
        if oldest is not None and now - self._under_way[oldest].sent_mono > FORGOTTEN_S:
            del self._under_way[oldest]
        if self._lists <= self._alone_until or len(self._under_way) >= UNDER_WAY:
            return frames
        way = self._choose()
        self._under_way[frames[-1][1]] = Sent(frames, way, now)
        return frames if way is Way.ALONE else _as_batch(frames)

    def _choose(self) -> Way:
        known = self._cost_s
        under_way = {sent.way for sent in self._under_way.values()}
        for way in (Way.ALONE, Way.TOGETHER):
            # each is tried once before the first answer; until then the broker is not given more of what may be dear
            if way not in known and way not in under_way:
                return way
        if len(known) < len(Way):
            return next(iter(known), Way.TOGETHER)
        alone, together = known[Way.ALONE], known[Way.TOGETHER]
        best = Way.TOGETHER if together < alone else Way.ALONE
        if self._lists % LOOKED_AT_EVERY == 0:
            return Way.ALONE if best is Way.TOGETHER else Way.TOGETHER
        return best

    def _learn(self, way: Way, cost_s: float) -> None:
        before_s = self._cost_s.get(way, cost_s)
        self._cost_s[way] = before_s + SMOOTHING * (cost_s - before_s)

    def open(self, answer: BusMessage) -> tuple[list[BusMessage], Sequence[Frame]]:
        """What an answer says to each message, and what has to be sent alone because of it."""
        sent = self._under_way.pop(answer.subject, None)
        if sent is None:
            return [answer], ()
        count = len(sent.frames)
        cost_s = (self._mono() - sent.sent_mono) / count
        if sent.way is Way.ALONE:
            self._learn(Way.ALONE, cost_s)
            return [answer], ()
        said = read_puback(answer.payload)
        if said is None or said.error is not None or said.count != count or said.seq < count:
            # refused for one of them, or by a broker that knows no batches and has taken each alone: it knows their ids
            self._alone_until = self._lists + self._alone_for
            self._alone_for = min(4 * self._alone_for, ALONE_MOST)
            return [], sent.frames
        self._learn(Way.TOGETHER, cost_s)
        self._alone_for = ALONE_FIRST
        first = said.seq - count + 1
        return [
            BusMessage(reply_to, write_puback(PubAck(said.stream, said.domain, first + at)))
            for at, (_, reply_to, _, _) in enumerate(sent.frames)
        ], ()

    def forget_all(self) -> None:
        """The connection is lost: what was under way is sent again, perhaps to another broker."""
        self._under_way.clear()
        self._cost_s.clear()
        self._alone_for, self._alone_until = ALONE_FIRST, 0


def _as_batch(frames: Sequence[Frame]) -> list[Frame]:
    name = secrets.token_hex(8)
    made: list[Frame] = []
    for number, (subject, reply_to, block, payload) in enumerate(frames, 1):
        line = b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (name.encode(), number)
        if number < len(frames):
            reply_to = ""
        else:
            line += b"Nats-Batch-Commit: 1\r\n"
        made.append((subject, reply_to, with_line(block, line), payload))
    return made
