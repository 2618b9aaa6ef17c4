"""Jumps of the wall clock under load, with schedules on both sides, told by libfaketime; the monotonic clock goes on.

What may not happen: a message that is lost, doubled or expired by a jump; an id that is forgotten, so that a resend runs
again; a beat of `every` that a jump adds or leaves out; a time of `cron` that fires elsewhere than at its minute.
"""

from __future__ import annotations

import asyncio
import collections
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
import nats

from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.bare_publisher import seed_message
from tests.support.exactly_once import Load
from tests.support.nats_server import NatsServer
from tests.support.tally import Tally, dead_of, lines_of, tally
from tests.support.waiting import LONG_S, pace, until

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR_S, DAY_S = 3_600.0, 86_400.0
BEFORE_NTP = "before NTP"
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
"""


class Clock:
    """The wall clock of daemons: so many seconds off that of this machine."""

    def __init__(self, path: Path, offset_s: float) -> None:
        self._path = path
        self.set(offset_s)

    def set(self, offset_s: float) -> None:
        """Jump; whoever has this clock sees it within a second. (A look at the file for every call costs a core.)"""
        self.offset_s = offset_s
        new = self._path.with_name("new-clock")
        new.write_text(f"{offset_s:+.0f}s\n")
        new.replace(self._path)

    def now(self) -> float:
        return time.time() + self.offset_s

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


class Seen(threading.Thread):
    """Notes when something comes to a file: this machine's monotonic time, and the daemon's wall clock.

    A line each to a file that grows; one that is written anew counts as one more.
    """

    def __init__(self, path: Path, clock: Clock, *, grows: bool) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._clock = clock
        self._grows = grows
        self._last: tuple[int, int] | None = None
        self.at: list[tuple[float, float]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            self.at += [(time.monotonic(), self._clock.now())] * self._new()
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
    stray_crons: list[str]
    cron_counts: dict[str, int]
    accepted_per_s: float
    wrong: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return not (self.wrong or self.stray_crons) and self.lines.is_right and self.resent.is_right

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{'RIGHT' if self.is_right else 'WRONG'}: {self.accepted_per_s:.0f}/s",
                f"  lines: {self.lines}",
                f"  resent after every jump: {self.resent}",
                f"  beats of 1 s (count, seconds): {self.beats}",
                f"  messages of cron: {self.cron_counts}, at a wrong time: {self.stray_crons or 0}",
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
    with NatsServer() as broker:
        clock = Clock(directory / "clock", -time.time() + 30.0 if starts_before_ntp else 0.0)
        text = CONFIG.format(url=broker.url)
        pair = []
        for node in ("alpha", "beta"):
            one = Appliance(text, directory / node, args=["--node", node], command=PLAIN_COMMAND)
            one.only_named = True
            one.environment = clock.environment
            pair.append(one)
        sender, receiver = pair
        seen = {
            (node, kind): Seen(other.data("beats", node, kind), clock, grows=kind == "every")
            for node, other in (("beta", receiver), ("alpha", sender))
            for kind in ("every", "cron")
        }
        standstill_s = 0.0
        with sender, receiver:
            for one in seen.values():
                one.start()
            until(lambda: all(seen[node, "every"].at for node in ("alpha", "beta")))
            load = Load(sender, per_second)
            load_since = time.monotonic()
            load.start()
            asyncio.run(_send_again(broker.url, 0))
            steps = [-clock.offset_s, *jumps] if starts_before_ntp else list(jumps)
            for number, jump in enumerate(steps):
                pace(time.monotonic() + stay_s)
                if jump == SUSPEND:
                    standstill_s += _suspend(pair, suspend_s)
                else:
                    clock.set(clock.offset_s + float(jump))
                if kills and number % 3 == 2:
                    for one in pair:
                        one.kill()
                        one.start()
                asyncio.run(_send_again(broker.url, number + 1))
            pace(time.monotonic() + stay_s)
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
            resent = receiver.data("resent", "beta", "log").read_text().splitlines()
            dead = dead_of(sender) + dead_of(receiver)
            lines = tally(load.accepted, lines_of(receiver), offered=load.offered, dead=dead)
    outcome = JumpOutcome(
        lines=lines,
        resent=tally([f"resent-{number}" for number in range(len(steps) + 1)], resent),
        beats={},
        stray_crons=[],
        cron_counts={},
        accepted_per_s=rate,
    )
    if not lines.is_right:
        outcome.wrong.append(f"left: {undelivered}; dead: {died}")
    for node in ("alpha", "beta"):
        _judge_beats(outcome, node, [mono for mono, _ in seen[node, "every"].at], standstill_s)
        _judge_crons(outcome, node, [wall for _, wall in seen[node, "cron"].at])
    return outcome


def _suspend(pair: list[Appliance], seconds: float) -> float:
    for one in pair:
        one.signal(signal.SIGSTOP)
    pace(time.monotonic() + seconds)
    for one in pair:
        one.signal(signal.SIGCONT)
    return seconds


def _judge_beats(outcome: JumpOutcome, node: str, at: list[float], standstill_s: float) -> None:
    passed_s = at[-1] - at[0]
    outcome.beats[f"at {node}"] = (len(at), round(passed_s, 1))
    most = passed_s / EVERY_S + BEAT_SLACK
    # beats that passed in a standstill, or while one of both starts, are not made up for
    least = (passed_s - standstill_s) * 0.6 / EVERY_S - BEAT_SLACK
    if not least <= len(at) <= most:
        outcome.wrong.append(
            f"{len(at)} beats at {node} in {passed_s:.1f} s: {least:.0f} to {most:.0f} were due"
        )


def _judge_crons(outcome: JumpOutcome, node: str, walls: list[float]) -> None:
    """Each shows up soon after a full minute, by the clock that the daemon had; `catch_up: once` may add one a jump."""
    outcome.cron_counts[f"at {node}"] = len(walls)
    late = [wall for wall in walls if wall % 60 > CRON_LATE_S]
    caught_up = 0 if node == "beta" else len(JUMPS)
    if len(late) > caught_up:
        outcome.stray_crons += [f"{node} {wall % 60:.1f} s after the minute" for wall in late]
    minutes = collections.Counter(int(wall // 60) for wall in walls)
    # a minute that the clock was set back to comes again, and may fire again
    outcome.stray_crons += [
        f"{node} {count} times in a minute" for count in minutes.values() if count > 3
    ]
