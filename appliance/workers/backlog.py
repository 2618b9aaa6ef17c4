"""What has arrived at one subscriber and is not decoded yet, within its bounds, and who is told to come again instead.

Everything waits as the bytes it came in, not taken in and so not acknowledged. Messages of senders that have their share
here already, and cannot be told to ask again later, are kept back, each sender's in order: a sender that keeps a window of
unacknowledged messages stands still by that, and loses nothing.
"""

from __future__ import annotations

from collections import deque

from appliance.bus.base import BusMessage
from appliance.core.specs import SubscriberSpec
from appliance.dialect.base import Dialect
from appliance.telemetry.report import Telemetry
from appliance.telemetry.stats import WorkerStats
from appliance.workers.executor import Executor
from appliance.workers.first_answers import FirstAnswers
from appliance.workers.incoming import Incoming

MAX_BATCH = 256
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
"""Memory that waiting messages may hold, beside the count that `backlog` sets."""
MAX_SENDER_SHARE = 0.75
"""Of either bound for any one sender."""
ASKED_SHARE = 0.5
"""Of either bound for what is asked for: below every other share, so that nothing of it is turned away."""
RESUMED_SHARE = 0.5
"""A sender that was kept waiting goes on when it holds less than this: what is kept back is decoded anew."""


class Backlog:
    """Of one subscriber. What is decoded and waits for its handler is the executor's, and takes of the same room."""

    def __init__(
        self,
        spec: SubscriberSpec,
        *,
        executor: Executor,
        answers: FirstAnswers,
        dialect: Dialect,
        telemetry: Telemetry,
        stats: WorkerStats,
    ) -> None:
        self._spec = spec
        self._executor = executor
        self._answers = answers
        self._dialect = dialect
        self._telemetry = telemetry
        self._stats = stats
        self._messages: deque[BusMessage] = deque()
        self.kept_back: dict[str, deque[BusMessage]] = {}
        """By sender."""
        self._kept_count = 0
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages) + self._kept_count

    def use(self, spec: SubscriberSpec) -> None:
        """More room holds for what comes next."""
        self._spec = spec

    @property
    def has_next(self) -> bool:
        """Whether there is a message to be decoded, other than those that are kept back."""
        return bool(self._messages)

    @property
    def may_resume(self) -> bool:
        """Whether a sender of what is kept back has room again."""
        return any(map(self._may_resume, self.kept_back))

    def room_to_ask_for(self, unfinished: int) -> int:
        """How many more messages may be asked for while so many are not done: never so many that one is turned away."""
        held_bytes = self._size_bytes + self._executor.waiting.size_bytes
        if held_bytes >= MAX_BACKLOG_BYTES * ASKED_SHARE:
            return 0
        return max(0, int(self._spec.backlog * ASKED_SHARE) - unfinished)

    def put(self, messages: list[BusMessage]) -> None:
        """Queue what has arrived.

        Without room for all, appliances are told when to ask again, and others wait until that is too much, too.
        """
        executor, backlog = self._executor, self._spec.backlog
        # mostly all fit, and one look is enough; only else each is looked at
        size_bytes = sum([len(message.payload) for message in messages])
        if (
            len(self) + len(messages) + executor.held_count <= backlog
            and self._size_bytes + size_bytes + executor.waiting.size_bytes <= MAX_BACKLOG_BYTES
        ):
            self._messages.extend(messages)
            self._size_bytes += size_bytes
            return
        hears = self._dialect.hears
        turned_away: list[BusMessage] = []
        for message in messages:
            held_bytes = self._size_bytes + executor.waiting.size_bytes
            has_memory = held_bytes < MAX_BACKLOG_BYTES
            has_room = len(self) + executor.held_count < backlog and has_memory
            if not has_room and (hears(message.block) or message.origin is not None):
                turned_away.append(message)
            elif len(self) < backlog and has_memory:
                self._messages.append(message)
                self._size_bytes += len(message.payload)
            else:
                self._drop()
        if turned_away:
            self._answers.say_busy([message.reply_to for message in turned_away])

    def next_batch(self) -> list[BusMessage]:
        """The oldest messages, which do not wait here any more."""
        take = self._messages.popleft
        batch = [take() for _ in range(min(len(self._messages), MAX_BATCH))]
        self._size_bytes -= sum([len(message.payload) for message in batch])
        return batch

    # -- shares ------------------------------------------------------------------------------------------

    def has_share_left(self, sender: str) -> bool:
        """Whether the sender may have one more message in hand here, and none of it is kept back."""
        return sender not in self.kept_back and self._has_room(sender, MAX_SENDER_SHARE)

    def turn_away(self, work: Incoming, delivery: BusMessage) -> None:
        """One sender has more here than any one may have.

        What is kept back of it keeps back all that it sends from then on, which would overtake that else.
        """
        if (work.identity.hears or delivery.origin is not None) and work.reply_tos:
            self._answers.say_busy([work.reply_tos[0]])
        elif (
            self._kept_count < self._spec.backlog * MAX_SENDER_SHARE
            and self._size_bytes < MAX_BACKLOG_BYTES * MAX_SENDER_SHARE
        ):
            self.kept_back.setdefault(work.sender, deque()).append(delivery)
            self._kept_count += 1
            self._size_bytes += len(delivery.payload)
        else:
            self._drop()

    def resume(self) -> None:
        """Senders that have room again go on where they were, before what came of them since."""
        if not self.kept_back:
            return
        found: list[BusMessage] = []
        for sender in [one for one in self.kept_back if self._may_resume(one)]:
            found += self.kept_back.pop(sender)
        self._kept_count -= len(found)
        self._messages.extendleft(reversed(found))

    def _may_resume(self, sender: str) -> bool:
        return self._has_room(sender, RESUMED_SHARE)

    def _has_room(self, sender: str, share: float) -> bool:
        waiting, backlog = self._executor.waiting, self._spec.backlog
        return waiting.leaves_room(sender, backlog, share, MAX_BACKLOG_BYTES)

    def _drop(self) -> None:
        self._stats.dropped += 1
        self._telemetry.message_dropped(self._spec.key)
