"""Which ids are remembered, by scope, sender and instance, each with its verdict.

An id is remembered by the commit that says so; from time to time all ids of such commits are written as *blocks*:
sorted arrays of 8 bytes an id. In memory are the ids that are in no block yet, the bounds of every block, and the
blocks used last. An id above the highest of its sender, as every new message has, costs one comparison.

Names are those that the config declares, instances are whatever a peer writes, so each crowd (one name in one scope)
has a bound of its own: who invents instances shortens the memory of the name that he uses, and of no other.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.outbox.blobs import Damaged, SeenKey, Verdict
from appliance.outbox.records import DONE_VERDICT

MAX_INSTANCES = 64
"""Instances that are remembered in one crowd. Beyond it those that were not heard of for longest go."""
MAX_IN_MEMORY = 250_000
"""Ids of blocks that are kept in memory, 8 bytes each."""
BLOCK_IDS = 4_096
MERGE_COUNT = 8
"""So many small blocks of one sender in a row become one."""
SPAN_SHARE = 16
"""A block's ids are forgotten together, so they span at most this part of the window."""
SENDERS_AT_ONCE = 500
"""Senders that are looked at in one slice of forgetting, in turn."""
FORGET_SLICE = 64
"""Blocks that are forgotten at once."""


@dataclass(slots=True)
class Block:
    """Ids on disk. `exceptions` counts those whose verdict is not plainly done."""

    number: int
    low: int
    high: int
    count: int
    oldest: float
    newest: float
    exceptions: int


@dataclass(slots=True)
class Sender:
    """Who made messages, and which of them are remembered."""

    number: int
    key: SeenKey
    highest: int = -1
    recent: dict[int, Verdict | None] = field(default_factory=dict)
    """Ids that are in no block yet; None for plainly done."""
    recent_oldest: float = 0.0
    recent_newest: float = 0.0
    blocks: list[Block] = field(default_factory=list)
    is_on_disk: bool = False


@dataclass(slots=True)
class NewBlock:
    """A block to be written."""

    sender: Sender
    block: Block
    ids: array[int]
    verdicts: list[tuple[int, int, str]] = field(default_factory=list)
    """Id, attempt, verdict of the exceptions."""


@dataclass(slots=True)
class Change:
    """What one commit does to the blocks; told to the index when it is committed."""

    new: list[NewBlock] = field(default_factory=list)
    gone: list[tuple[Sender, Block]] = field(default_factory=list)
    ended: list[Sender] = field(default_factory=list)
    flushes: bool = False

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.ended)


ReadBlock = Callable[[int], bytes]
"""The bytes of a block by number. Raises Damaged."""
ReadVerdict = Callable[[int, int], "Verdict | None"]
"""The exceptional verdict of an id (sender number, id), if there is one."""


class Dedupe:
    """Changed by the writer's thread only. `newness` reads it on another thread."""

    def __init__(self, read_block: ReadBlock, read_verdict: ReadVerdict) -> None:
        self._read_block = read_block
        self._read_verdict = read_verdict
        self.senders: dict[SeenKey, Sender] = {}
        self.next_sender = 1
        self.next_block = 1
        self.recent_count = 0
        self.block_bytes = 0
        self._crowds: dict[tuple[str, str], dict[SeenKey, None]] = {}
        self._cache: OrderedDict[int, array[int]] = OrderedDict()
        self._cached_ids = 0
        self._round: deque[Sender] = deque()

    # Asking.

    def find(self, key: SeenKey, message_id: int) -> Verdict | None:
        """Attempt and verdict of a remembered id; None for one that is not remembered."""
        sender = self.senders.get(key)
        if sender is None or message_id > sender.highest:
            return None
        if message_id in sender.recent:
            return sender.recent[message_id] or (0, DONE_VERDICT)
        for block in reversed(sender.blocks):
            # bounds are in memory; only a block that may hold it is read
            if block.low <= message_id <= block.high and self._is_in(block, message_id):
                found = self._read_verdict(sender.number, message_id) if block.exceptions else None
                return found or (0, DONE_VERDICT)
        return None

    def _is_in(self, block: Block, message_id: int) -> bool:
        try:
            ids = self._load(block)
        except Damaged:
            return True  # NB: to run a command twice is worse than to leave one message unhandled, which its sender hears
        at = bisect_left(ids, message_id)
        return at < len(ids) and ids[at] == message_id

    def _load(self, block: Block) -> array[int]:
        ids = self._cache.get(block.number)
        if ids is not None:
            self._cache.move_to_end(block.number)
            return ids
        ids = array("Q")
        ids.frombytes(self._read_block(block.number))
        self._keep(block.number, ids)
        return ids

    def _keep(self, number: int, ids: array[int]) -> None:
        self._cache[number] = ids
        self._cached_ids += len(ids)
        while self._cached_ids > MAX_IN_MEMORY and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_ids -= len(dropped)

    # Learning.

    def learn(self, key: SeenKey, ids: dict[int, Verdict | None], now: float) -> None:
        """Ids are remembered from now on: their commit is on disk."""
        sender = self.senders.get(key)
        if sender is None:
            sender = self._add(key, self.next_sender)
        if not sender.recent:
            sender.recent_oldest = now
        sender.recent_newest = now
        before = len(sender.recent)
        sender.recent.update(ids)
        self.recent_count += len(sender.recent) - before
        sender.highest = max(sender.highest, max(ids))
        crowd = self._crowds[sender.key[:2]]
        if next(reversed(crowd)) != sender.key:
            # to the end: those at the front were not heard of for longest
            del crowd[sender.key]
            crowd[sender.key] = None

    def load_sender(self, number: int, key: SeenKey) -> Sender:
        """A sender of an earlier run, in the order of numbers."""
        sender = self._add(key, number)
        sender.is_on_disk = True
        return sender

    def load_block(self, sender: Sender, block: Block) -> None:
        """A block of an earlier run, in the order of numbers."""
        sender.blocks.append(block)
        sender.highest = max(sender.highest, block.high)
        self.next_block = max(self.next_block, block.number + 1)
        self.block_bytes += 8 * block.count

    def _add(self, key: SeenKey, number: int) -> Sender:
        scope, name, instance = key
        key = (sys.intern(scope), sys.intern(name), instance)  # NB: few names, many senders
        sender = self.senders[key] = Sender(number, key)
        self._crowds.setdefault(key[:2], {})[key] = None
        self.next_sender = max(self.next_sender, number + 1)
        return sender

    # Writing blocks, and forgetting them.

    def plan_flush(self, window_s: float) -> Change:
        """Everything that is in no block becomes one; small blocks in a row become one."""
        change = Change(flushes=True)
        number = self.next_block
        for sender in self.senders.values():
            if not sender.recent:
                continue
            verdicts = {i: verdict for i, verdict in sender.recent.items() if verdict is not None}
            ids = array("Q", sorted(sender.recent))
            oldest, newest = sender.recent_oldest, sender.recent_newest
            merged = self._choose_merged(sender, len(ids), newest, window_s / SPAN_SHARE)
            exceptions = 0
            try:
                for block in merged:
                    ids.extend(self._load(block))
                    oldest = min(oldest, block.oldest)
                    exceptions += block.exceptions
            except Damaged:
                merged, ids = [], array("Q", sorted(sender.recent))
            if merged:
                ids = array("Q", sorted(set(ids)))
            change.gone += [(sender, block) for block in merged]
            for first in range(0, len(ids), BLOCK_IDS):
                part = ids[first : first + BLOCK_IDS]
                own = [(i, *verdict) for i, verdict in verdicts.items() if part[0] <= i <= part[-1]]
                block = Block(
                    number, part[0], part[-1], len(part), oldest, newest, exceptions + len(own)
                )
                change.new.append(NewBlock(sender, block, part, own))
                number += 1
        return change

    def _choose_merged(
        self, sender: Sender, new_count: int, newest: float, span_s: float
    ) -> list[Block]:
        chosen: list[Block] = []
        total = new_count
        for block in reversed(sender.blocks):
            if total + block.count > BLOCK_IDS or newest - block.oldest > span_s:
                break
            chosen.append(block)
            total += block.count
        return chosen if len(chosen) >= MERGE_COUNT - 1 else []

    def plan_forgetting(self, before: float, max_bytes: int, change: Change) -> list[str]:
        """Blocks whose time is over, a slice of them; warnings about what goes early."""
        warnings: list[str] = []
        for sender in self._crowded_out():
            if len(change.gone) >= FORGET_SLICE:
                return warnings
            self._end(sender, change)
            scope, name, _ = sender.key
            warnings.append(
                f"ids of {name} at {scope} are forgotten early: it has more than"
                f" {MAX_INSTANCES} instances"
            )
        room = FORGET_SLICE - len(change.gone)
        if self.block_bytes > max_bytes:
            sender = max(self.senders.values(), key=lambda one: sum(b.count for b in one.blocks))
            oldest = sender.blocks[:room]
            change.gone += [(sender, block) for block in oldest[: max(1, len(oldest) // 2)]]
            warnings.append(
                f"ids of {sender.key[1]} at {sender.key[0]} are forgotten early:"
                " remembered ids use up their share of state.max_bytes"
            )
            return warnings
        turn = self._next_of_round()
        for at, sender in enumerate(turn):
            if len(change.gone) >= FORGET_SLICE:
                self._round.extendleft(reversed(turn[at - 1 if at else at :]))
                break
            # forgotten, or known anew, since the round began
            if self.senders.get(sender.key) is not sender:
                continue
            room = FORGET_SLICE - len(change.gone)
            old = [block for block in sender.blocks if block.newest < before][:room]
            change.gone += [(sender, block) for block in old]
            if len(old) == len(sender.blocks) and not sender.recent:
                # instances come and go with reinstalled peers: without this their list would only grow
                change.ended.append(sender)
        return warnings

    def _crowded_out(self) -> list[Sender]:
        found: list[Sender] = []
        for crowd in self._crowds.values():
            excess = len(crowd) - MAX_INSTANCES
            if excess > 0:
                found += [self.senders[key] for key, _ in zip(crowd, range(excess), strict=False)]
        return found

    @staticmethod
    def _end(sender: Sender, change: Change) -> None:
        part = sender.blocks[: FORGET_SLICE - len(change.gone)]
        change.gone += [(sender, block) for block in part]
        if len(part) == len(sender.blocks):
            change.ended.append(sender)

    def _next_of_round(self) -> list[Sender]:
        if not self._round:
            self._round.extend(self.senders.values())
        return [self._round.popleft() for _ in range(min(SENDERS_AT_ONCE, len(self._round)))]

    def apply(self, change: Change) -> None:
        """It is committed."""
        gone = {block.number for _, block in change.gone}
        for sender in {id(one): one for one, _ in change.gone}.values():
            sender.blocks = [block for block in sender.blocks if block.number not in gone]
        for _, block in change.gone:
            self.block_bytes -= 8 * block.count
            dropped = self._cache.pop(block.number, None)
            if dropped is not None:
                self._cached_ids -= len(dropped)
        for new in change.new:
            new.sender.blocks.append(new.block)
            new.sender.is_on_disk = True
            self.block_bytes += 8 * new.block.count
            self.next_block = max(self.next_block, new.block.number + 1)
            self._keep(new.block.number, new.ids)
        if change.flushes:
            for sender in self.senders.values():
                sender.recent.clear()
            self.recent_count = 0
        for sender in change.ended:
            self._forget_sender(sender)

    def _forget_sender(self, sender: Sender) -> None:
        if self.senders.get(sender.key) is not sender:
            return
        self.recent_count -= len(sender.recent)
        del self.senders[sender.key]
        crowd = self._crowds[sender.key[:2]]
        del crowd[sender.key]
        if not crowd:
            del self._crowds[sender.key[:2]]


def seal_block(ids: array[int]) -> tuple[bytes, int]:
    """A block's bytes and checksum."""
    raw = ids.tobytes()
    return raw, zlib.crc32(raw)
