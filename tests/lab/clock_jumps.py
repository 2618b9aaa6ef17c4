"""Jumps of the wall clock under load, with schedules on both sides.

What may not happen: a message that is lost, doubled or expired by a jump; an id that is forgotten, so that a resend runs
again; a beat of `every` that a jump adds or leaves out; a time of `cron` that fires elsewhere than at its minute, or does
not; a jump that is not told, or one told that was none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
import nats

from tests.lab.chaos import Load
from tests.lab.tally import Tally, dead_of, line_message, lines_of, tally
from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.bare_publisher import seed_message
from tests.support.faked_clock import FakedClock, clear_after_kill
from tests.support.nats_server import NatsServer
from tests.support.waiting import LONG_S, pace, until

HOUR_S, DAY_S = 3_600.0, 86_400.0
SUSPEND = "suspend"
JUMPS: tuple[str | float, ...] = (
    2 * DAY_S,
    -2 * DAY_S,
    HOUR_S,
    -HOUR_S,
    SUSPEND,
    -HOUR_S,
    -DAY_S,
    HOUR_S,
)
EVERY_S = 1.0
BEAT_SLACK = 2
"""Beats more or less than the seconds that passed: one at each end."""
CRON_LATE_S = 5.0
"""How long after its minute a message of `cron` may have been seen here, on a slow machine."""
SET_BACK_S = 3 * HOUR_S
"""A clock that is set back by less makes no time of `cron` come again."""
MOST_AT_ONCE = 3
"""Messages of `cron` around a jump or a standstill: of the minute before, of the one that it is then, and of the next."""

CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 100ms}}
reload: {{watch: false, poll_interval: 10m}}
roles:
  both:
    subscribe:
      REQToFileAppend: {{ack: {{on: done}}}}
      REQToFile: {{}}
      REQErrorLog: {{}}
nodes:
  alpha:
    roles: [both]
    publish:
      beats: {{to: beta, method: REQToFileAppend, every: 1s, data: ["x\\n"], directory: beats, file_name: every}}
      minutes: {{to: beta, method: REQToFile, cron: "* * * * *", timezone: UTC, directory: beats, file_name: cron}}
  beta:
    roles: [both]
    publish:
      beats: {{to: alpha, method: REQToFileAppend, every: 1s, data: ["x\\n"], directory: beats, file_name: every}}
      minutes:
        to: alpha
        method: REQToFile
        cron: "* * * * *"
        timezone: UTC
        catch_up: once
        directory: beats
        file_name: cron
  gamma:
    roles: [both]
"""
"""Nobody runs gamma: what is for it waits, over all jumps."""


class Seen(threading.Thread):
    """Notes when something comes to a file, by the monotonic clock.

    A line each to a file that grows; one that is written anew counts as one more.
    """

    def __init__(self, path: Path, *, grows: bool) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._grows = grows
        self._last: tuple[int, int] | None = None
        self.at: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            self.at += [time.monotonic()] * self._new()
            pace(time.monotonic() + 0.02)

    def _new(self) -> int:
        if not self._path.exists():
            return 0
        if self._grows:
            return len(self._path.read_text().splitlines()) - len(self.at)
        stat = self._path.stat()
        last, self._last = self._last, (stat.st_ino, stat.st_mtime_ns)
        return int(self._last != last)


@dataclass
class JumpOutcome:
    lines: Tally
    resent: Tally
    beats: dict[str, tuple[int, float]]
    """Of each side: how many came, and in how many seconds."""
    crons: dict[str, tuple[int, int]]
    """Of each side: how many came, and how many had to come for a minute that nothing disturbed."""
    jumps_told: int
    """By daemons that were not killed at that moment."""
    accepted_per_s: float
    wrong: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not self.wrong and self.lines.is_right and self.resent.is_right

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{'RIGHT' if self.is_right else 'WRONG'}: {self.accepted_per_s:.0f}/s",
                f"  lines: {self.lines}",
                f"  resent after every jump: {self.resent}",
                f"  beats of 1 s (count, seconds): {self.beats}",
                f"  messages of cron (count, due with nothing else going on): {self.crons}",
                f"  jumps told: {self.jumps_told}",
                *(f"  {text}" for text in self.wrong),
            ]
        )


async def _send_again(url: str, number: int) -> None:
    """Messages of a peer with ids of its own, all from the first to this one: the earlier ones are resends."""
    client = await nats.connect(url)
    for one in range(number + 1):
        message = seed_message(
            "beta",
            "alpha",
            "REQToFileAppend",
            [f"resent-{one}\n"],
            directory="resent",
            file_name="log",
        )
        headers = {"serial": "cbor", "appl-v": "2", "appl-id": f"00112233445566aa-{one + 1}"}
        await client.request(
            "beta.REQToFileAppend.EventACK",
            cbor2.dumps(message),
            timeout=20.0,
            headers=headers,
        )
    await client.close()


def run_jumps(
    directory: Path,
    *,
    per_second: int,
    stay_s: float,
    jumps: tuple[str | float, ...] = JUMPS,
    starts_before_ntp: bool = False,
    kills: bool = True,
    suspend_s: float = 20.0,
) -> JumpOutcome:
    """Let the clock jump under load, and stay there for a while each time; every third time both are killed, too."""
    clock = FakedClock(directory / "clock", -time.time() + 30.0 if starts_before_ntp else 0.0)
    clock.prove()
    steps = [-clock.offset_s, *jumps] if starts_before_ntp else list(jumps)
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url)
        pair = []
        for node in ("alpha", "beta"):
            one = Appliance(text, directory / node, args=["--node", node], command=PLAIN_COMMAND)
            one.only_named = True
            one.environment = clock.environment
            pair.append(one)
        sender, receiver = pair
        seen = {
            (node, kind): Seen(other.data("beats", node, kind), grows=kind == "every")
            for node, other in (("beta", receiver), ("alpha", sender))
            for kind in ("every", "cron")
        }
        begin_mono = time.monotonic()
        wrong: list[str] = []
        jumps_told = jumps_since_start = 0
        with contextlib.closing(sender), contextlib.closing(receiver):
            _start(pair)
            for one in seen.values():
                one.start()
            until(lambda: all(seen[node, "every"].at for node in ("alpha", "beta")))
            disturbed = [(begin_mono, time.monotonic())]
            load = Load(sender, per_second)
            load_since = time.monotonic()
            load.start()
            sender.send(line_message("waits", to_node="gamma"))
            asyncio.run(_send_again(broker.url, 0))
            for number, step in enumerate(steps):
                pace(time.monotonic() + stay_s)
                wrong += _told_wrongly(pair, jumps_since_start)
                since_mono = time.monotonic()
                if step == SUSPEND:
                    _suspend(pair, suspend_s)
                else:
                    clock.set(clock.offset_s + float(step))
                if kills and number % 3 == 2:
                    for one in pair:
                        _kill(one)
                    _start(pair)
                    jumps_since_start = 0
                elif step != SUSPEND:
                    jumps_since_start += 1
                    jumps_told += 1
                _until_told(pair, jumps_since_start)
                _until_beats(seen)
                disturbed.append((since_mono, time.monotonic()))
                asyncio.run(_send_again(broker.url, number + 1))
            pace(time.monotonic() + stay_s)
            wrong += _told_wrongly(pair, jumps_since_start)
            load.stopped.set()
            load.join(60)
            rate = len(load.accepted) / (time.monotonic() - load_since)
            # what comes on schedule never ends: it is enough that what was accepted before is handled
            deadline_mono = time.monotonic() + LONG_S
            until(
                lambda: (
                    load.accepted <= set(lines_of(receiver)) or time.monotonic() > deadline_mono
                ),
                timeout_s=2 * LONG_S,
                every_s=0.1,
            )
            undelivered = sender.request("GET", "/api/v1/outbox?limit=5")[1]
            died = sender.request("GET", "/api/v1/outbox?state=dead&limit=5")[1]
            for one in seen.values():
                one.stopped.set()
                one.join()
            ended_mono = time.monotonic()
            resent = receiver.data("resent", "beta", "log").read_text().splitlines()
            dead = dead_of(sender) + dead_of(receiver)
            if (waiting := _waiting_for(sender, "gamma")) != 1:
                wrong.append(f"{waiting} messages wait for the node that is away")
            lines = tally(load.accepted, lines_of(receiver), offered=load.offered, dead=dead)
    outcome = JumpOutcome(
        lines=lines,
        resent=tally([f"resent-{number}" for number in range(len(steps) + 1)], resent),
        beats={},
        crons={},
        jumps_told=jumps_told,
        accepted_per_s=rate,
        wrong=wrong,
    )
    if not lines.is_right:
        outcome.wrong.append(f"left: {undelivered}; dead: {died}")
    stretches = clock.stretches(ended_mono)
    for node in ("alpha", "beta"):
        _judge_beats(outcome, node, seen[node, "every"].at, disturbed)
        required, faults = judge_minutes(
            seen[node, "cron"].at, minutes_due(stretches), [*disturbed, (ended_mono, ended_mono)]
        )
        outcome.crons[f"at {node}"] = len(seen[node, "cron"].at), required
        outcome.wrong += [f"cron at {node}: {fault}" for fault in faults]
    return outcome


def _start(pair: list[Appliance]) -> None:
    for one in pair:
        one.spawn()
    for one in pair:
        one.wait_ready()


def _kill(one: Appliance) -> None:
    assert one.process is not None
    one.kill()
    clear_after_kill(one.process.pid)


def _jumps_told(one: Appliance) -> int:
    name = "appliance_clock_jumps_total "
    lines = one.request("GET", "/metrics")[1].splitlines()
    return int(float(next(line for line in lines if line.startswith(name)).removeprefix(name)))


def _until_told(pair: list[Appliance], jumps: int) -> None:
    until(lambda: all(_jumps_told(one) >= jumps for one in pair))


def _until_beats(seen: dict[tuple[str, str], Seen]) -> None:
    """Until both schedules are seen to go on: a beat of each that was not there before."""
    before = {one: len(one.at) for (_, kind), one in seen.items() if kind == "every"}
    until(lambda: all(len(one.at) > count for one, count in before.items()))


def _waiting_for(sender: Appliance, node: str) -> int:
    records = sender.request("GET", "/api/v1/outbox")[1]["records"]
    return sum(record["to"] == node for record in records)


def _told_wrongly(pair: list[Appliance], jumps: int) -> list[str]:
    told = [_jumps_told(one) for one in pair]
    return [] if told == [jumps] * len(pair) else [f"{told} jumps told, not {jumps} by each"]


def _suspend(pair: list[Appliance], seconds: float) -> None:
    for one in pair:
        one.signal(signal.SIGSTOP)
    pace(time.monotonic() + seconds)
    for one in pair:
        one.signal(signal.SIGCONT)


def _judge_beats(
    outcome: JumpOutcome, node: str, at: list[float], disturbed: list[tuple[float, float]]
) -> None:
    passed_s = at[-1] - at[0]
    outcome.beats[f"at {node}"] = (len(at), round(passed_s, 1))
    most = passed_s / EVERY_S + BEAT_SLACK
    # beats that passed in a standstill, or while one of both starts, are not made up for
    standstill_s = sum(to_mono - from_mono for from_mono, to_mono in disturbed)
    least = (passed_s - standstill_s) * 0.8 / EVERY_S - BEAT_SLACK
    if not least <= len(at) <= most:
        outcome.wrong.append(
            f"{len(at)} beats at {node} in {passed_s:.1f} s: {least:.0f} to {most:.0f} were due"
        )


def minutes_due(stretches: list[tuple[float, float, float]]) -> list[tuple[float, bool]]:
    """When full minutes come on the wall, by the monotonic clock, and whether that minute is one that was not before.

    `stretches` are as `FakedClock.stretches` gives them.
    """
    due = []
    dealt_wall = -math.inf
    for from_mono, to_mono, ahead_s in stretches:
        if from_mono + ahead_s < dealt_wall - SET_BACK_S:
            dealt_wall = from_mono + ahead_s
        wall = math.ceil((from_mono + ahead_s) / 60) * 60
        while wall - ahead_s < to_mono:
            due.append((wall - ahead_s, wall > dealt_wall))
            wall += 60
        dealt_wall = max(dealt_wall, to_mono + ahead_s)
    return due


def judge_minutes(
    at: list[float], due: list[tuple[float, bool]], disturbed: list[tuple[float, float]]
) -> tuple[int, list[str]]:
    """How many messages had to come in quiet times, and what is wrong: each comes soon after its minute, and once.

    Around a jump and after a standstill one may come at any second: a minute is served as long as it lasts, and one that
    was missed is made up for where the schedule says so.
    """
    faults = []
    left = sorted(at)

    def take(from_mono: float, to_mono: float) -> int:
        nonlocal left
        count = len(left)
        left = [mono for mono in left if not from_mono <= mono <= to_mono]
        return count - len(left)

    wide = [(from_mono - CRON_LATE_S, to_mono + CRON_LATE_S) for from_mono, to_mono in disturbed]
    for from_mono, to_mono in wide:
        if (count := take(from_mono, to_mono)) > MOST_AT_ONCE:
            faults.append(f"{count} messages around one jump or standstill")
    required = 0
    for mono, is_new in due:
        if any(from_mono <= mono <= to_mono for from_mono, to_mono in wide):
            continue
        required += is_new
        if (count := take(mono, mono + CRON_LATE_S)) != is_new:
            faults.append(f"{count} messages of a minute, not {int(is_new)}")
    faults += [f"one {mono - disturbed[0][0]:.1f} s after the start, at no minute" for mono in left]
    return required, faults
