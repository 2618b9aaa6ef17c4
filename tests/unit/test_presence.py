"""Who says hello without being declared is remembered within bounds."""

from dataclasses import replace

from appliance.api.fleet import FORGOTTEN_AFTER_S, MAX_STRANGERS, Presence
from appliance.config.loader import load_given
from appliance.core.current import Current
from appliance.core.names import NodeName
from appliance.methods.registry import METHOD_TABLE

TEXT = b"version: 1\nbroker: {embedded: true}\nnodes: {a: {}, b: {}, c: {}}"


class World:
    def __init__(self):
        self.now = 0.0
        self.told = []
        desired = load_given({"/x.yaml": TEXT}, "", environ={}, methods=METHOD_TABLE).desired
        self.desired = Current(desired)
        self.presence = Presence(
            self.desired,
            lambda: self.now,
            on_undeclared=self.told.append,
            mono=lambda: self.now,
        )

    def declare(self, *names):
        nodes = frozenset(map(NodeName, names))
        self.desired.put(replace(self.desired.value, declared_nodes=nodes))

    def hear(self, *names):
        for name in names:
            self.presence.saw_hello(NodeName(name), None)


def test_a_node_that_is_removed_and_still_says_hello_moves_to_the_undeclared_ones_and_back():
    world = World()
    world.hear("a", "b")
    assert world.presence.undeclared() == {}
    world.declare("a", "c")
    assert set(world.presence.sightings()) == {"a"}
    assert world.presence.undeclared() == {}  # nothing says yet that it still runs
    world.hear("b", "b")
    assert set(world.presence.undeclared()) == {"b"}
    assert world.told == ["b"]
    world.declare("a", "b", "c")
    assert world.presence.undeclared() == {}
    assert set(world.presence.sightings()) == {"a"}


def test_invented_names_fill_no_memory_and_leave_room_for_removed_nodes():
    world = World()
    world.hear(*(f"invented{number}" for number in range(10 * MAX_STRANGERS)))
    assert len(world.presence.undeclared()) == len(world.told) == MAX_STRANGERS
    world.declare("a", "c")
    world.hear("b")
    assert "b" in world.presence.undeclared()
    assert len(world.presence._undeclared) == MAX_STRANGERS + 1


def test_who_is_not_declared_and_silent_is_forgotten():
    world = World()
    world.hear("x", "y")
    world.now = FORGOTTEN_AFTER_S
    world.hear("y")
    world.now += 1.0
    assert set(world.presence.undeclared()) == {"y"}
    world.hear("x")
    assert world.told == ["x", "y", "x"]


def test_a_clock_that_is_set_moves_what_is_shown():
    world = World()
    world.hear("x")
    world.presence.clock_jumped(3_600.0)
    assert world.presence.undeclared()[NodeName("x")].at == 3_600.0
