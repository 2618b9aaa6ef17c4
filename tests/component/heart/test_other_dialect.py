"""Everything above the dialect works whatever its words are: nobody else writes or reads a header or a text of the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.dialect.steward import StewardDialect
from tests.component.heart.worlds import add_pair, config, numbered, play
from tests.support.heart_world import Behaviour, Daemon, End, World

CONSOLE = "REQToConsole"
_WORDS = (
    (b"\r\nappl-", b"\r\nother-"),
    (b"confirmed from: ", b"yes: "),
    (b"refused by: ", b"no: "),
)
_NOISE = b"\r\nnoise-"


class OtherDialect:
    """Steward's meaning in words that Steward's nodes do not know, names of headers among them."""

    def __init__(self) -> None:
        self._steward = StewardDialect()

    def __getattr__(self, name: str) -> Any:
        said = getattr(self._steward, name)

        def say(*given: Any, **more: Any) -> Any:
            found = said(*(_translate(one, is_ours=False) for one in given), **more)
            # NB: an answer is a named tuple, and has no words of the wire in it
            parts = found if type(found) is tuple else (found,)
            told = tuple(_translate(one, is_ours=True) for one in parts)
            return told if type(found) is tuple else told[0]

        return say


def _translate(value: Any, *, is_ours: bool) -> Any:
    if isinstance(value, bytes):
        for ours, others in _WORDS:
            if not is_ours:
                # deaf to Steward's own words: whoever wrote them knows what is the dialect's alone
                value = value.replace(ours, _NOISE)
            value = value.replace(*((ours, others) if is_ours else (others, ours)))
    return value


@pytest.fixture
def other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.heart_world.make_dialect", OtherDialect)


async def _all_are_taken(_world: World, alpha: Daemon) -> list[str]:
    texts = numbered(20)
    await alpha.submit(texts, method=CONSOLE)
    return texts


async def _there_is_no_room(world: World, alpha: Daemon) -> list[str]:
    world.default_behaviour = Behaviour(2.0)
    texts = numbered(8)
    await alpha.submit(texts, method=CONSOLE)
    await asyncio.sleep(5)
    assert any("other-busy" in sent.headers for sent in world.sent)
    return texts


async def _acknowledgements_are_lost(world: World, alpha: Daemon) -> list[str]:
    texts = numbered(8)
    world.swallows["beta"] = lambda sent: ".reply." in sent.subject
    await alpha.submit(texts, method=CONSOLE)
    await asyncio.sleep(20)
    assert len(alpha.disk.records) == len(texts)
    # the resend is known by its id, in whatever header that stands
    del world.swallows["beta"]
    return texts


async def _one_is_answered(world: World, alpha: Daemon) -> list[str]:
    await alpha.submit(["command"], method="REQCliCommand", reply_method="REQToFileAppend")
    assert await world.settle(60, until=lambda: len(world.log.texts()) == 2)
    return ["command", next(text for text in world.log.texts() if text.startswith("answer"))]


@pytest.mark.usefixtures("other_words")
@pytest.mark.parametrize(
    "what", [_all_are_taken, _there_is_no_room, _acknowledgements_are_lost, _one_is_answered]
)
def test_each_message_is_done_once_in_other_words(what: Any) -> None:
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(events=", concurrency: 1, backlog: 2"))
        texts = await what(world, alpha)
        assert await world.settle(400, until=world.is_quiet)
        assert sorted(world.log.texts()) == sorted(texts)
        assert not alpha.disk.dead
        assert not [sent for sent in world.sent if any("appl" in name for name in sent.headers)]

    play(scenario)


@pytest.mark.usefixtures("other_words")
def test_a_failure_is_heard_in_other_words() -> None:
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.behaviour["m"] = Behaviour(ends=(End.HANDLER_ERROR,))
        await alpha.submit(["m"], method="REQCliCommand")
        assert await world.settle(60, until=lambda: bool(alpha.disk.dead))
        (dead,) = alpha.disk.dead.values()
        assert state_of_reason(dead.reason) is DeliveryState.FAILED
        assert "as the test wished" in dead.reason

    play(scenario)
