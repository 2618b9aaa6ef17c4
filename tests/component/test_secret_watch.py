"""Secrets and certificates that change: told, and taken by the connection to the broker, once they can be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.api.secret_watch import RETRY_BROKER_S, Follower, SecretWatch
from appliance.core.current import Current
from appliance.core.specs import (
    AdminSettings,
    AuthSettings,
    BrokerSettings,
    DesiredState,
    SecretRef,
)
from appliance.errors import BusUnauthorized


class Told:
    """What was told, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.lines.append((name.removeprefix("secret_"), *values))


class World:
    def __init__(self, directory: Path) -> None:
        self.token = directory / "token"
        self.token.write_text("one")
        settings = BrokerSettings(auth=AuthSettings(token=self._ref(self.token)))
        self.desired = Current(
            DesiredState(
                run_nodes=(),
                declared_nodes=frozenset(),
                workers={},
                publisher_defaults={},
                broker=settings,
            )
        )
        self.told = Told()
        self.renewals = 0
        self.refuses: str | None = None
        self.mono = 0.0
        self.watch = SecretWatch(
            self.desired,
            self.told,
            followers=[Follower("broker", "broker.", self._renew)],
            wall=lambda: 1e9,
            mono=lambda: self.mono,
        )

    @staticmethod
    def _ref(path: Path) -> SecretRef:
        return SecretRef(kind="file", name=str(path))

    async def _renew(self) -> None:
        self.renewals += 1
        if self.refuses is not None:
            raise BusUnauthorized(self.refuses)

    async def looks(self, count: int = 2) -> None:
        for _ in range(count):
            await self.watch.look()

    def take(self) -> list[tuple[Any, ...]]:
        found, self.told.lines = self.told.lines, []
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_connection_is_made_anew_once_what_it_was_made_with_holds_something_else(
    world: World,
) -> None:
    await world.looks()
    assert world.renewals == 0
    world.token.write_text("two")
    await world.looks(1)
    assert world.renewals == 0  # whoever writes may not be done
    await world.looks(3)
    assert world.renewals == 1
    assert world.take() == [("changed", ("broker.auth.token",))]


async def test_what_cannot_be_used_is_told_once_and_the_connection_goes_on(world: World) -> None:
    await world.looks()
    world.token.write_text("")
    await world.looks(3)
    words = f"broker.auth.token from file {world.token} is empty"
    assert world.take() == [("troubled", "broker.auth.token", words)]
    assert world.watch.troubles() == [words]
    assert world.renewals == 0
    world.token.write_text("two")
    await world.looks()
    assert world.take() == [("recovered", "broker.auth.token")]
    assert world.watch.troubles() == []
    assert world.renewals == 1


async def test_another_set_brings_its_own_connection(world: World, tmp_path: Path) -> None:
    await world.looks()
    other = tmp_path / "other"
    other.write_text("three")
    broker = BrokerSettings(auth=AuthSettings(token=SecretRef(kind="file", name=str(other))))
    world.desired.put(replace(world.desired.value, broker=broker))
    await world.looks(3)
    assert world.renewals == 0
    other.write_text("four")
    await world.looks()
    assert world.renewals == 1


async def test_a_token_of_the_listener_needs_no_new_connection(
    world: World, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("one")
    admin = AdminSettings(token=SecretRef(kind="file", name=str(mine)))
    world.desired.put(replace(world.desired.value, admin=admin))
    await world.looks()
    mine.write_text("two")
    await world.looks(3)
    assert world.take() == [("changed", ("admin.token",))]
    assert world.renewals == 0


async def test_a_broker_that_refuses_what_is_new_is_asked_again_after_a_while(world: World) -> None:
    await world.looks()
    world.token.write_text("two")
    world.refuses = "authorization violation"
    await world.looks(5)
    assert world.renewals == 1
    assert world.take()[-1] == ("not_taken", "broker", "authorization violation")
    world.refuses = None
    world.mono += RETRY_BROKER_S + 1.0
    await world.looks()
    assert world.renewals == 2
    await world.looks(3)
    assert world.renewals == 2
