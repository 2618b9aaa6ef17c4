"""What counts as a jump of the wall clock, and what moves with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from appliance.api.fleet import Presence
from appliance.core.current import Current
from appliance.core.names import NodeName
from appliance.daemon.clock_watch import MAX_READING_S, MIN_JUMP_S, ClockWatch


class Machine:
    """Two clocks. `stops` holds how long the process is stopped before each of the next readings."""

    def __init__(self) -> None:
        self.wall_s = 1e9
        self.passed_s = 50.0
        self.stops: list[float] = []
        self.jumps: list[float] = []
        self.watch = ClockWatch(wall=self.wall, passed=self.passed)
        self.watch.on_jump.append(self.jumps.append)

    def go_on(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds

    def _read(self) -> None:
        if self.stops:
            self.go_on(self.stops.pop(0))

    def wall(self) -> float:
        self._read()
        return self.wall_s

    def passed(self) -> float:
        self._read()
        return self.passed_s

    def look_after(self, seconds: float) -> None:
        self.go_on(seconds)
        self.watch.look()


@pytest.mark.parametrize("by_s", [MIN_JUMP_S + 0.1, 3_600.0, -2.5, -50 * 365 * 86_400.0])
def test_a_jump_is_told_once_with_its_size(by_s: float) -> None:
    machine = Machine()
    machine.look_after(1)
    machine.wall_s += by_s
    for _ in range(3):
        machine.look_after(1)
    assert machine.jumps == [pytest.approx(by_s, abs=1e-3)]


def test_being_stopped_or_asleep_is_no_jump() -> None:
    machine = Machine()
    for seconds in (1.0, 600.0, 86_400.0, 1.0):
        machine.look_after(seconds)
    assert machine.jumps == []


def test_being_stopped_while_the_clocks_are_read_is_no_jump() -> None:
    machine = Machine()
    machine.stops = [0.0, 100.0, 0.0]
    machine.look_after(1)
    assert machine.jumps == []
    machine.stops = [MAX_READING_S + 1] * 100  # it never gets on: the next look tells
    machine.look_after(1)
    machine.stops = []
    machine.wall_s += 10
    machine.look_after(1)
    assert machine.jumps == [pytest.approx(10)]


def test_a_clock_that_is_slewed_does_not_jump() -> None:
    machine = Machine()
    for _ in range(10_000):
        machine.wall_s += 0.0005
        machine.look_after(1)
    assert machine.jumps == []


def test_hellos_keep_their_age_when_the_wall_clock_is_set() -> None:
    clocks = SimpleNamespace(wall=1_000.0, mono=5.0)
    node = NodeName("ship1")
    fleet = SimpleNamespace(declared_nodes=frozenset({node}))
    presence = Presence(
        Current(fleet),  # type: ignore[arg-type]
        lambda: clocks.wall,
        mono=lambda: clocks.mono,
    )
    presence.saw_hello(node, None)
    clocks.wall += 86_400.0
    presence.clock_jumped(86_400.0)
    assert presence.sightings()[node].at == 87_400.0
    assert presence.sightings()[node].heard_mono == 5.0
