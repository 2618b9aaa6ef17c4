"""Who may enter how much in the audit trail, so that nobody pushes out what others did, nor what he did before. Pure.

The files of a trail hold so many bytes. Of these each *crowd* (operators, nodes) has a part, and each sender half of his
crowd's: half of that at once, the other half evenly in `keep_s`, and so on. So whatever all of them send, an entry stays for
`keep_s`, and what one sender leaves of his crowd's room is more than half.

Who has used up half of what he may enter at once has what *repeats* summed up: the same asked by the same, about the same,
with the same outcome, and what came to nothing. Something new that was done is entered all the same, until little is left;
only then it is summed up, too: who floods with what is refused hides nothing by it.
A sum is an entry with a count and its times; of more different things than are summed up one by one only the first are
named. Sums are entered at the cost of whose they are, so they wait where he can bear no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

CROWD_SHARE = 3 / 8
"""Of the files for each crowd; what is left is for what the trail says of itself."""
SENDER_SHARE = 1 / 2
"""Of a crowd's for one sender."""
REPEATS_ABOVE = 1 / 2
"""A repeat is entered while so much is left of what may be entered at once."""
NEWS_ABOVE = 1 / 8
"""The same for something new; the rest is for sums."""
SUM_EVERY_S = 600.0
"""A sum is entered after this time, and nothing of it later."""
MAX_SUMS = 64
"""Of one sender. What is more, and different, is counted."""
MAX_CROWD_SUMS = 1_024
MAX_NEWS = 256
"""Different things that are remembered of one sender to know a repeat."""
MAX_SENDERS = 1_024
OTHERS = "and others"
"""The name of those who are too many to be known one by one."""
MAX_NAMES = 20
"""Things that are named of those that are only counted."""
MAX_NAME_CHARACTERS = 200
PASSING = frozenset({"job", "ids", "generation"})
"""What differs in every repeat."""

NO_DEEDS = frozenset({"refused", "unwanted", "failed", "unchanged"})


class Crowd(StrEnum):
    """Who shares room with whom."""

    OPERATORS = "operators"
    """By the API; and the files of the config, whoever changes them."""
    NODES = "nodes"


class Sender(NamedTuple):
    """Whose room an entry takes; `name` is what is proved of him, "" where nothing is: those have one room together."""

    crowd: Crowd
    name: str

    def label(self) -> str:
        """In words."""
        if self.crowd is Crowd.OPERATORS:
            return self.name
        return f"node {self.name}" if self.name else "nodes that do not sign"


class Bounds(NamedTuple):
    """How large the room is: bytes of all full files, and for how long an entry stays at least."""

    total_bytes: int
    keep_s: float

    def at_once(self, sender: Sender | None) -> float:
        """Bytes that a sender may enter at once, None: a whole crowd; and as much again in `keep_s`."""
        crowd = max(1.0, self.total_bytes * CROWD_SHARE / 2)
        return crowd if sender is None else crowd * SENDER_SHARE


class _Level:
    """What is left of what may be entered at once, as a part of it: a config that changes the room changes the bytes."""

    __slots__ = ("_at", "_left")

    def __init__(self, left: float, at: float) -> None:
        self._left = left
        self._at = at

    def look(self, now: float, keep_s: float) -> float:
        return min(1.0, self._left + max(0.0, now - self._at) / keep_s)

    def spend(self, part: float, now: float, keep_s: float) -> None:
        self._left = self.look(now, keep_s) - part
        self._at = now


@dataclass(slots=True)
class _Sum:
    """Entries that are told by one; `names` of the first ones where they differ."""

    first: Mapping[str, Any]
    began: float
    count: int = 0
    until: str = ""
    names: dict[str, None] | None = None


@dataclass(slots=True)
class _Standing:
    """One sender."""

    level: _Level
    known: OrderedDict[int, None] = field(default_factory=OrderedDict)
    sums: dict[int, _Sum] = field(default_factory=dict)
    rest: _Sum | None = None
    is_marked: bool = False
    """Whether the trail says that his entries are summed up."""

    def pending(self) -> Iterator[tuple[int | None, _Sum]]:
        """Sums that are to be entered, each by its key; None for what is only counted."""
        yield from self.sums.items()
        if self.rest is not None:
            yield None, self.rest


class AuditRoom:
    """Of one trail. `now` is seconds that never jump, over restarts, too."""

    def __init__(self, left: Mapping[str, float] = {}, now: float = 0.0) -> None:
        """`left` is what `left()` of an earlier run said; what has come back since then is the caller's to add."""
        self._crowds = {crowd: _Level(1.0, now) for crowd in Crowd}
        self._senders: OrderedDict[Sender, _Standing] = OrderedDict()
        self.summed = 0
        """Entries that are told by a sum."""
        self.unnamed = 0
        """Of these those of which not even the name is told."""
        self.spent_bytes = 0
        self._sums_held = dict.fromkeys(Crowd, 0)
        for crowd in Crowd:
            for text, part in left.items():
                if text == crowd:
                    self._crowds[crowd] = _Level(part, now)
                elif text.startswith(f"{crowd}/"):
                    sender = Sender(crowd, text.removeprefix(f"{crowd}/"))
                    self._senders[sender] = _Standing(_Level(part, now))

    def left(self, now: float, bounds: Bounds) -> dict[str, float]:
        """What is left to whom, by name, of those to whom not all is."""
        found: dict[str, float] = {
            crowd: level.look(now, bounds.keep_s) for crowd, level in self._crowds.items()
        }
        found |= {
            f"{sender.crowd}/{sender.name}": standing.level.look(now, bounds.keep_s)
            for sender, standing in self._senders.items()
        }
        return {name: round(part, 6) for name, part in found.items() if part < 1.0}

    @property
    def summing(self) -> list[str]:
        """Whose entries are summed up now, in words."""
        return [one.label() for one, standing in self._senders.items() if standing.is_marked]

    @property
    def counting(self) -> list[str]:
        """Of these those of whom different things are counted, and no more than the first ones named."""
        return [one.label() for one, standing in self._senders.items() if standing.rest is not None]

    @property
    def has_sums(self) -> bool:
        """Whether something is to be told later."""
        return any(one.is_marked for one in self._senders.values())

    def may_enter(
        self, sender: Sender, facts: Mapping[str, Any], size: int, now: float, bounds: Bounds
    ) -> bool:
        """Whether an entry of so many bytes is to be made; where not, it is to be summed up (`sum_up`)."""
        standing = self._standing(sender, now)
        left = self._left_after(sender, standing, size, now, bounds)
        known = standing.known
        if left > REPEATS_ABOVE:
            known.clear()
        else:
            if left < NEWS_ABOVE or not _is_deed(facts):
                return False
            key = _key_of(facts)
            if key in known:
                known.move_to_end(key)
                return False
            known[key] = None
            if len(known) > MAX_NEWS:
                known.popitem(last=False)
        self._spend(sender, standing, size, now, bounds)
        return True

    def sum_up(self, sender: Sender, facts: Mapping[str, Any], now: float) -> bool:
        """Have an entry told by a sum; whether that is news of its sender, which is to be entered (`mark_of`)."""
        standing = self._standing(sender, now)
        self.summed += 1
        key = _key_of(facts)
        found = standing.sums.get(key)
        if found is None:
            most = MAX_SUMS if _is_deed(facts) else MAX_SUMS // 2
            if len(standing.sums) < most and self._sums_held[sender.crowd] < MAX_CROWD_SUMS:
                found = standing.sums[key] = _Sum(facts, now)
                self._sums_held[sender.crowd] += 1
            else:
                if standing.rest is None:
                    standing.rest = _Sum(facts, now, names={})
                found = standing.rest
                self._name(found, facts)
        found.count += 1
        found.until = facts["at"]
        is_news = not standing.is_marked
        standing.is_marked = True
        return is_news

    def take_due(
        self,
        now: float,
        bounds: Bounds,
        size_of: Callable[[Mapping[str, Any]], int],
        *,
        of_every_age: bool = False,
    ) -> list[tuple[Sender, Mapping[str, Any]]]:
        """Sums whose time has come and that their senders can bear: entries, at their cost."""
        found: list[tuple[Sender, Mapping[str, Any]]] = []
        for sender, standing in self._senders.items():
            for key, one in list(standing.pending()):
                if not of_every_age and now - one.began < SUM_EVERY_S:
                    continue
                facts = _facts_of(sender, one)
                if self.can_bear(sender, size_of(facts), now, bounds):
                    found.append((sender, facts))
                    self._drop(sender, standing, key)
            if not (standing.sums or standing.rest):
                standing.is_marked = False
        return found

    def take_untold(self, at: str) -> list[Mapping[str, Any]]:
        """What nobody can bear to have told, and would be forgotten now: an entry for each crowd at most."""
        found: list[Mapping[str, Any]] = []
        for crowd in Crowd:
            counts: dict[str, int] = {}
            for sender, standing in self._senders.items():
                if sender.crowd is not crowd:
                    continue
                for key, one in list(standing.pending()):
                    counts[sender.label()] = counts.get(sender.label(), 0) + one.count
                    self._drop(sender, standing, key)
            if counts:
                among = list(counts)[:MAX_NAMES]
                what = {"of": crowd, "counted": sum(counts.values()), "among": among, "until": at}
                found.append({"by": "", "asked": "audit", "what": what, "outcome": "counted"})
        return found

    def can_bear(self, sender: Sender, size: int, now: float, bounds: Bounds) -> bool:
        """Whether the sender has room for a word about him; if so it is taken."""
        standing = self._standing(sender, now)
        if self._left_after(sender, standing, size, now, bounds) < 0:
            return False
        self._spend(sender, standing, size, now, bounds)
        return True

    def _left_after(
        self, sender: Sender, standing: _Standing, size: int, now: float, bounds: Bounds
    ) -> float:
        """What would be left to him, or to another one of his crowd if that is less."""
        own = standing.level.look(now, bounds.keep_s) - size / bounds.at_once(sender)
        crowd = self._crowds[sender.crowd].look(now, bounds.keep_s) - size / bounds.at_once(None)
        # one who has used up all of his has taken half of the crowd's: that is nothing for the others to feel
        return min(own, crowd / SENDER_SHARE)

    def _spend(
        self, sender: Sender, standing: _Standing, size: int, now: float, bounds: Bounds
    ) -> None:
        standing.level.spend(size / bounds.at_once(sender), now, bounds.keep_s)
        self._crowds[sender.crowd].spend(size / bounds.at_once(None), now, bounds.keep_s)
        self.spent_bytes += size

    def _drop(self, sender: Sender, standing: _Standing, key: int | None) -> None:
        if key is None:
            standing.rest = None
        else:
            del standing.sums[key]
            self._sums_held[sender.crowd] -= 1

    def _standing(self, sender: Sender, now: float) -> _Standing:
        standing = self._senders.get(sender)
        if standing is not None:
            return standing
        if len(self._senders) >= MAX_SENDERS:
            # their crowd's room bounds them all the same
            others = Sender(sender.crowd, OTHERS)
            known = self._senders.items()
            idle = (one for one, its in known if not its.is_marked and one.name != OTHERS)
            if (longest := next(idle, None)) is None:
                return self._senders.setdefault(others, _Standing(_Level(1.0, now)))
            del self._senders[longest]
        standing = self._senders[sender] = _Standing(_Level(1.0, now))
        return standing

    def _name(self, rest: _Sum, facts: Mapping[str, Any]) -> None:
        assert rest.names is not None
        what = facts["what"]
        about = what.get("program") or what.get("path") or what.get("methods") or ""
        name = f"{facts['by']} {facts['asked']} {about}".strip()[:MAX_NAME_CHARACTERS]
        if len(rest.names) < MAX_NAMES:
            rest.names[name] = None
        elif name not in rest.names:
            self.unnamed += 1


def mark_of(sender: Sender) -> dict[str, Any]:
    """What the trail says when a sender's entries begin to be summed up."""
    return {"by": "", "asked": "audit", "what": {"of": sender.label()}, "outcome": "summing"}


def _facts_of(sender: Sender, one: _Sum) -> dict[str, Any]:
    times = {"since": one.first["at"], "until": one.until}
    if one.names is None:
        what = {name: value for name, value in one.first["what"].items() if name not in PASSING}
        entry = {name: value for name, value in one.first.items() if name != "at"}
        return {**entry, "what": {**what, "summed": one.count, **times}}
    what = {"of": sender.label(), "counted": one.count, "among": list(one.names), **times}
    return {"by": "", "asked": "audit", "what": what, "outcome": "counted"}


def _is_deed(facts: Mapping[str, Any]) -> bool:
    """Whether something was done, or begun: a status of HTTP tells of requests."""
    outcome = facts["outcome"]
    if isinstance(outcome, int):
        return outcome < 400
    return outcome not in NO_DEEDS


def _key_of(facts: Mapping[str, Any]) -> int:
    what = {name: value for name, value in facts["what"].items() if name not in PASSING}
    return hash((facts["by"], facts["asked"], str(facts["outcome"]), repr(what)))
