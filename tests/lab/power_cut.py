"""Copies of both state directories at random instants under load, as a power cut would leave them, each started anew.

Both daemons are stopped (one a moment after the other), copied and let go on. What was written is on the disk then, so
every third copy also loses what may be lost because nothing syncs it: its mark is an older one.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.chaos import Load
from tests.lab.tally import Tally, dead_of, is_settled, line_message, lines_of, tally
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import LONG_S, at_a_random_moment, pace, until

CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 100ms}}
reload: {{watch: false, poll_interval: 10m}}
nodes:
  alpha: {{subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{accept_from: [beta]}}}}}}
  beta:
    subscribe:
      REQToFileAppend: {{accept_from: [alpha], ack: {{on: {ack_on}}}}}
      REQCliCommand: {{accept_from: [alpha], ack: {{on: done}}, allow_commands: [[sh, -c, "*"]],
                      pass_environment: [APPEND_EFFECTS_TO]}}
"""
EFFECTS = "APPEND_EFFECTS_TO"
COMMANDS_PER_S = 10
AFTERWARDS = 20
"""Messages that every copy is given when it has settled: an id that is used twice would lose one."""
_MARK = "store.mark"


def command_message(name: str) -> dict:
    """A command that takes a moment, and leaves its name."""
    return {
        "from_node": "alpha",
        "to_nodes": ["beta"],
        "method": "REQCliCommand",
        "method_args": ["sh", "-c", f'sleep 0.05; echo {name} >> "${EFFECTS}"'],
        "directory": "replies",
        "file_name": "replies.log",
    }


class _Commands(threading.Thread):
    def __init__(self, appliance: Appliance) -> None:
        super().__init__(daemon=True)
        self.appliance = appliance
        self.accepted: set[str] = set()
        self.offered: set[str] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        due_mono = time.monotonic()
        for number in itertools.count():
            if self.stopped.is_set():
                return
            name = f"command-{number}"
            self.offered.add(name)
            if self.appliance.send(command_message(name))[0]["accepted"]:
                self.accepted.add(name)
            due_mono += 1 / COMMANDS_PER_S
            pace(due_mono)


@dataclass
class Cut:
    """One copy, and what had been accepted before it was taken."""

    directory: Path
    lines: set[str]
    commands: set[str]
    has_old_marks: bool


@dataclass
class Verdict:
    lines: Tally
    commands: Tally
    settle_s: float

    @property
    def is_right(self) -> bool:
        return self.lines.is_right and self.commands.is_right


@dataclass
class PowerCuts:
    accepted_per_s: float
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return all(verdict.is_right for verdict in self.verdicts)

    def __str__(self) -> str:
        wrong = [verdict for verdict in self.verdicts if not verdict.is_right]
        lines = sum(verdict.lines.accepted for verdict in self.verdicts)
        commands = sum(verdict.commands.accepted for verdict in self.verdicts)
        cut_off = sum(verdict.commands.reported for verdict in self.verdicts)
        slowest_s = max(verdict.settle_s for verdict in self.verdicts)
        said = (
            f"{'WRONG' if wrong else 'RIGHT'}: {len(self.verdicts)} copies at {self.accepted_per_s:.0f}/s,"
            f" {len(wrong)} wrong;"
            f" {lines} lines and {commands} commands in them, {cut_off} commands reported as cut off;"
            f" settled in {slowest_s:.1f} s at most"
        )
        return "\n".join([said, *(f"  {one.lines}\n  {one.commands}" for one in wrong[:5])])


def run_cuts(
    directory: Path, *, cuts: int, seed: int, per_second: int, ack_on: str = "done"
) -> PowerCuts:
    """Take the copies under load, then start one after the other against a broker of its own."""
    rng = random.Random(seed)
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url, ack_on=ack_on)
        sender, receiver = _pair(text, directory / "running")
        with sender, receiver:
            load, commands = Load(sender, per_second), _Commands(sender)
            load.start()
            commands.start()
            began = time.monotonic()
            until(lambda: len(load.accepted) > load.batch and commands.accepted)
            taken = list(_take(cuts, rng, sender, receiver, load, commands, directory))
            load.stopped.set()
            commands.stopped.set()
            load.join(30)
            commands.join(30)
            rate = len(load.accepted) / (time.monotonic() - began)
    outcome = PowerCuts(rate)
    for cut in taken:
        outcome.verdicts.append(_judge(cut, load.offered, commands.offered, ack_on))
        shutil.rmtree(cut.directory)
    return outcome


def _pair(text: str, directory: Path) -> tuple[Appliance, Appliance]:
    pair = []
    for node in ("alpha", "beta"):
        one = Appliance(text, directory / node, args=["--node", node])
        one.only_named = True
        one.environment = {EFFECTS: str(one.data("effects"))}
        pair.append(one)
    return pair[0], pair[1]


def _take(
    cuts: int,
    rng: random.Random,
    sender: Appliance,
    receiver: Appliance,
    load: Load,
    commands: _Commands,
    directory: Path,
) -> Iterator[Cut]:
    old_marks: dict[str, bytes] = {}
    for number in range(cuts):
        at_a_random_moment(rng, 0.02, 0.4)
        pair = [sender, receiver]
        rng.shuffle(pair)
        _stop(pair[0])
        at_a_random_moment(rng, 0.0, 0.02)
        _stop(pair[1])
        has_old_marks = bool(old_marks) and not number % 3
        cut = Cut(
            directory / f"cut-{number}",
            load.accepted.copy(),
            commands.accepted.copy(),
            has_old_marks,
        )
        marks = {}
        for one in pair:
            node = one.state.parent.name
            copy = cut.directory / node / "state"
            shutil.copytree(one.state, copy, ignore=shutil.ignore_patterns("*.sock"))
            marks[node] = (copy / _MARK).read_bytes()
            if has_old_marks:
                (copy / _MARK).write_bytes(old_marks[node])
        for one in pair:
            one.signal(signal.SIGCONT)
        old_marks = marks
        yield cut


def _stop(appliance: Appliance) -> None:
    """SIGSTOP, and wait until no thread of it runs any more."""
    assert appliance.process is not None
    appliance.signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{appliance.process.pid}/task")

    def stands_still() -> bool:
        stats = [(task / "stat").read_text() for task in tasks.iterdir()]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    until(stands_still, every_s=0.001)


def _settle(sender: Appliance, receiver: Appliance) -> None:
    """Until nothing waits; a copy that was taken late may hold all that a slow machine had left waiting."""
    until(
        lambda: is_settled(sender) and is_settled(receiver),
        timeout_s=10 * LONG_S,
        tell=sender.log,
    )


def _judge(cut: Cut, offered: set[str], offered_commands: set[str], ack_on: str) -> Verdict:
    with NatsServer() as broker:
        sender, receiver = _pair(CONFIG.format(url=broker.url, ack_on=ack_on), cut.directory)
        began = time.monotonic()
        with sender, receiver:
            _settle(sender, receiver)
            settle_s = time.monotonic() - began
            more = [f"afterwards-{number}" for number in range(AFTERWARDS)]
            sender.send(*map(line_message, more))
            _settle(sender, receiver)
            effects = receiver.data("effects")
            done = effects.read_text().splitlines() if effects.exists() else []
            # a command that had begun is not run again, and that is what its dead letter says
            dead = dead_of(sender)
            cut_off = cut.commands - set(done)
            return Verdict(
                lines=tally(cut.lines | set(more), lines_of(receiver), offered=offered | set(more)),
                commands=tally(
                    cut.commands,
                    done,
                    offered=offered_commands,
                    reported=cut_off if len(cut_off) <= dead else (),
                ),
                settle_s=settle_s,
            )
