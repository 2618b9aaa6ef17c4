"""What became of messages, counted by id: every one was handled once, in order where that is promised, and none is dead."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.appliance import Appliance

MAX_NAMED = 5


@dataclass
class Tally:
    """The verdict on one run. `reported` are those that ended as dead letters or interrupted where that is allowed."""

    accepted: int
    handled: int
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    invented: int = 0
    dead: int = 0
    reported: int = 0
    named: list[str] = field(default_factory=list)
    """Some of those that went wrong."""

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.invented or self.dead)

    def __str__(self) -> str:
        said = (
            f"accepted {self.accepted}, handled {self.handled}, lost {self.lost}, doubled {self.doubled},"
            f" out of order {self.disordered}, invented {self.invented}, dead {self.dead}"
        )
        if self.reported:
            said += f", reported as interrupted {self.reported}"
        if self.named:
            said += f" ({', '.join(self.named)})"
        return f"{'RIGHT' if self.is_right else 'WRONG'}: {said}"


def tally(
    accepted: Collection[str],
    handled: Sequence[str],
    *,
    offered: Collection[str] | None = None,
    reported: Collection[str] = (),
    dead: int = 0,
    order: Iterable[int] | None = None,
) -> Tally:
    """Count. Those that were offered and got no answer may be handled or not; `order` are numbers that must rise."""
    counts = collections.Counter(handled)
    allowed = set(accepted) if offered is None else set(offered)
    lost = set(accepted) - counts.keys() - set(reported)
    doubled = {line: count for line, count in counts.items() if count > 1}
    invented = counts.keys() - allowed
    numbers = list(order or ())
    return Tally(
        accepted=len(accepted),
        handled=len(handled),
        lost=len(lost),
        doubled=sum(count - 1 for count in doubled.values()),
        disordered=sum(1 for before, after in itertools.pairwise(numbers) if after < before),
        invented=len(invented),
        dead=dead,
        reported=len(reported),
        named=[
            *(f"lost {line}" for line in sorted(lost)[:MAX_NAMED]),
            *(f"doubled {line}" for line in sorted(doubled)[:MAX_NAMED]),
            *(f"invented {line}" for line in sorted(invented)[:MAX_NAMED]),
        ],
    )


DIRECTORY, FILE = "load", "lines.log"


def line_message(line: str, *, to_node: str = "beta", from_node: str = "alpha") -> dict:
    """A message whose effect is one line at the end of a file of the node."""
    return {
        "from_node": from_node,
        "to_nodes": [to_node],
        "method": "REQToFileAppend",
        "directory": DIRECTORY,
        "file_name": FILE,
        "data": [f"{line}\n"],
    }


def lines_of(appliance: Appliance, node: str = "beta") -> list[str]:
    """The lines that came of `line_message`."""
    path = appliance.data(DIRECTORY, node, FILE)
    return path.read_text().splitlines() if path.exists() else []


def is_settled(appliance: Appliance) -> bool:
    """Whether nothing waits, is on its way, or is unfinished."""
    status = appliance.status()
    outbox = status["outbox"]
    return not (outbox["pending"] or outbox["in_flight"] or status["inbox"]["unfinished"])


def dead_of(appliance: Appliance) -> int:
    return appliance.status()["outbox"]["dead"]
