"""Who keeps the requests of new nodes answers nobody elsewhere, looks at a flood at its own pace, and forgets nobody."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.api import enrolment as enrolment_module
from appliance.api.enrolment import MAX_QUEUED, EnrolmentDesk
from appliance.bus.base import BusMessage
from appliance.bus.memory import MemoryBroker, MemoryBus, Permissions
from appliance.bus.node_keys import sign
from appliance.core.current import Current
from appliance.core.enrolment import (
    REPLIES,
    REQUESTS,
    EnrolmentRequest,
    Result,
    read_answer,
    signed_bytes,
    write_request,
)
from appliance.core.specs import DesiredState, EnrolmentSettings
from tests.support.config_files import load_text
from tests.support.nats_login import Nkey, make_nkey
from tests.support.waiting import until_async

INVITATION = make_nkey()
TEXT = f"""
version: 1
broker: {{embedded: true}}
enrolment: {{node: central, invitations: [{INVITATION.public}]}}
nodes: {{central: {{subscribe: {{REQErrorLog: {{}}}}}}}}
"""


class Told:
    """What the desk tells."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.troubles: list[str] = []

    def node_asks(self, node: str, fingerprint: str, warnings: tuple[str, ...]) -> None:
        self.asked.append(node)

    def enrolment_troubled(self, trouble: str) -> None:
        self.troubles.append(trouble)


class Scene:
    """A desk at a broker, and a stranger."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "enrolment.json"
        self.broker = MemoryBroker(rng=random.Random(1))
        self.desired = Current[DesiredState](load_text(directory, TEXT).desired)
        self.told = Told()
        self.wall = 1_000.0
        self.heard: list[BusMessage] = []

    @contextlib.asynccontextmanager
    async def desk(self) -> AsyncIterator[EnrolmentDesk]:
        """One that runs."""
        bus = await MemoryBus.open(self.broker, name="central")
        desk = EnrolmentDesk(bus, self.desired, self.path, self.told, lambda: self.wall)
        await desk.open()
        running = asyncio.create_task(desk.run())
        try:
            yield desk
        finally:
            running.cancel()
            await asyncio.wait({running})
            await bus.close()

    async def stranger(self) -> MemoryBus:
        """Who hears every answer."""
        bus = await MemoryBus.open(self.broker, name="stranger")
        await bus.subscribe(">", self.heard.extend)
        return bus

    def answers(self) -> list[tuple[str, Result | None]]:
        """Those heard, with their subjects."""
        return [
            (message.subject, read_answer(message.payload))
            for message in self.heard
            if message.subject != REQUESTS
        ]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(enrolment_module, "PAUSE_S", 0.0)
    return Scene(tmp_path)


def ask(node: str, key: Nkey) -> bytes:
    request, nonce = EnrolmentRequest(node, key.public), secrets.token_hex(4)
    return write_request(request, nonce, sign(key.seed, signed_bytes(request, nonce)))


def reply_of(key: Nkey) -> str:
    return f"{REPLIES}.{key.public}.1"


async def test_a_request_waits_over_a_restart_until_the_config_has_the_key(scene: Scene) -> None:
    ship = make_nkey()
    async with scene.desk():
        stranger = await scene.stranger()
        await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
        await until_async(lambda: scene.answers() == [(reply_of(ship), Result.PENDING)])
        await stranger.close()
    assert scene.told.asked == ["ship7"]
    assert scene.path.stat().st_mode & 0o777 == 0o600
    scene.heard.clear()
    async with scene.desk() as desk:
        assert [one.waiting.node for one in desk.show()] == ["ship7"]
        own = f"{{public_keys: [{ship.public}]}}"
        text = TEXT.replace("nodes: {", f"nodes: {{ship7: {own}, ")
        scene.desired.put(load_text(scene.path.parent, text).desired)
        await until_async(lambda: desk.show() == [])
        stranger = await scene.stranger()
        await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
        await until_async(lambda: scene.answers() == [(reply_of(ship), Result.ACCEPTED)])
        await stranger.close()


async def test_nobody_is_answered_where_new_nodes_do_not_listen(scene: Scene) -> None:
    ship, other = make_nkey(), make_nkey()
    elsewhere = [
        "ship1.REQCliCommand.CommandACK",
        "",
        reply_of(other),
        f"{REPLIES}.{ship.public}",
        f"{reply_of(ship)}.{'x' * 200}",
    ]
    async with scene.desk():
        stranger = await scene.stranger()
        for subject in elsewhere:
            await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=subject)
        await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
        await until_async(lambda: len(scene.answers()) > 0)
        assert scene.answers() == [(reply_of(ship), Result.PENDING)]
        await stranger.close()


async def test_a_flood_is_counted_and_left_and_the_next_honest_one_is_heard(scene: Scene) -> None:
    async with scene.desk() as desk:
        stranger = await scene.stranger()
        ship = make_nkey()
        for size in (10, 2_000, 100_000):
            for _ in range(MAX_QUEUED * 3):
                await stranger.publish(REQUESTS, b"\0" * size, reply_to=reply_of(ship))
        await until_async(lambda: desk.turned_away >= MAX_QUEUED * 9)
        await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
        await until_async(lambda: scene.answers() == [(reply_of(ship), Result.PENDING)])
        assert desk.turned_away == MAX_QUEUED * 9
        assert scene.told.asked == ["ship7"]
        await stranger.close()


async def test_when_the_config_has_no_enrolment_any_more_nobody_listens(scene: Scene) -> None:
    ship = make_nkey()
    async with scene.desk() as desk:
        asker = await MemoryBus.open(scene.broker, name="asker")
        await asker.subscribe(reply_of(ship), scene.heard.extend)

        async def hears_nobody() -> None:
            while not any("503" in message.block.decode() for message in scene.heard):
                await asker.publish(REQUESTS, b"", reply_to=reply_of(ship))
                await asyncio.sleep(0)

        on = scene.desired.value
        scene.desired.put(replace(on, enrolment=EnrolmentSettings()))
        async with asyncio.timeout(60):
            await hears_nobody()
        assert desk.show() == []
        scene.desired.put(on)
        scene.heard.clear()

        async def is_answered() -> None:
            while not scene.answers() or not scene.answers()[-1][1]:
                await asker.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
                await asyncio.sleep(0)

        async with asyncio.timeout(60):
            await is_answered()
        assert [one.waiting.node for one in desk.show()] == ["ship7"]
        await asker.close()


async def test_a_file_that_is_damaged_is_told_and_left_behind(scene: Scene) -> None:
    scene.path.write_bytes(b"\0\0\0")
    async with scene.desk() as desk:
        assert desk.show() == []
        (trouble,) = scene.told.troubles
        assert trouble.startswith("enrolment.json is unusable")


async def test_what_the_broker_denies_is_told_once_and_asked_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment_module, "LOOK_EVERY_S", 0.01)
    bus = await MemoryBus.open(
        scene.broker, name="central", permissions=Permissions(subscribe_deny=(REQUESTS,))
    )
    desk = EnrolmentDesk(bus, scene.desired, scene.path, scene.told, lambda: scene.wall)
    running = asyncio.create_task(desk.run())
    await until_async(lambda: scene.told.troubles)
    # the broker reads other rights, and the connection goes on
    assert bus.session is not None
    bus.session.permissions = Permissions()
    ship, stranger = make_nkey(), await scene.stranger()

    async def is_answered() -> None:
        while not scene.answers():
            await stranger.publish(REQUESTS, ask("ship7", ship), reply_to=reply_of(ship))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await is_answered()
    (trouble,) = scene.told.troubles
    assert "broker-conf" in trouble
    running.cancel()
    await asyncio.wait({running})
    await stranger.close()
    await bus.close()
