"""Messages whose handler never waits are taken in and done in one commit, and keep every promise of the two."""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Iterator

import pytest

from appliance.core.method import MethodInfo, OnCrash
from appliance.core.names import Category, MethodName
from appliance.methods.registry import METHODS
from tests.component.heart.worlds import add_pair, numbered, play
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, End, World
from tests.support.memory_store import CrashPoint

CONSOLE, APPEND = "REQToConsole", "REQToFileAppend"
MINUTE_S = 60.0
PROMPT = sorted(name for name, method in METHODS.items() if method.info.is_prompt)


def facts(daemon: Daemon, what: str) -> list[int]:
    """Ids of messages of which something is on the daemon's disk."""
    return [one.message_id for one in daemon.disk.evidence if one.what == what]


def acknowledgements(world: World, daemon: Daemon) -> list[int]:
    return [
        int(sent.payload.rpartition(b" ")[2])
        for sent in world.sent
        if sent.daemon == daemon.name and sent.payload.startswith(b"confirmed from: ")
    ]


def test_message_is_taken_and_done_in_one_commit():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        await alpha.submit(numbered(20), method=CONSOLE)
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        assert facts(beta, "taken") == []
        assert len(facts(beta, "finished")) == len(set(acknowledgements(world, beta))) == 20
        assert world.log.texts() == numbered(20)
        assert find_violations(world) == []

    play(scenario)


@pytest.mark.parametrize("is_durable", [False, True])
def test_crash_between_effect_and_acknowledgement_is_made_good_by_the_resend(is_durable: bool):
    """Before the commit nothing is known and it is done once more; after it only the acknowledgement is missing."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        await alpha.submit(["before"], method=CONSOLE)
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        beta.disk.crash_at = CrashPoint(beta.disk.commits + 1, is_durable)
        await alpha.submit(["m"], method=CONSOLE)
        assert await world.settle(MINUTE_S, until=lambda: not beta.is_up)
        (number,) = [number for text, (_, number) in world.accepted.items() if text == "m"]
        assert number not in acknowledgements(world, beta)
        assert len(world.log.of("m")) == 1
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert len(world.log.of("m")) == (1 if is_durable else 2)
        assert number in acknowledgements(world, beta)
        assert find_violations(world) == []

    play(scenario)


def test_repeat_is_looked_up_before_its_handler_begins():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        await alpha.submit(["m"], method=CONSOLE)
        await world.settle(MINUTE_S, until=lambda: bool(facts(beta, "finished")))
        # the acknowledgement is lost, and newer messages are done before the resend
        await world.go_dark(alpha, 30.0)
        await alpha.submit(numbered(3), method=CONSOLE)
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert len(world.log.of("m")) == 1
        assert find_violations(world) == []

    play(scenario)


def test_nothing_is_begun_while_the_store_cannot_say_that_it_ended():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        await alpha.submit(["before"], method=CONSOLE)
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        beta.disk.is_full = True
        await alpha.submit(numbered(5), method=CONSOLE)
        await asyncio.sleep(5 * MINUTE_S)
        assert world.log.texts() == ["before"]
        beta.disk.is_full = False
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert sorted(world.log.texts()) == ["before", *numbered(5)]
        assert find_violations(world) == []

    play(scenario)


def test_what_comes_behind_a_handler_that_waits_all_the_same_is_acknowledged_meanwhile():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        world.behaviour["slow"] = Behaviour(10 * MINUTE_S)
        await alpha.submit(["slow"], method=CONSOLE)
        await world.settle(MINUTE_S, until=lambda: bool(world.log.of("slow")))
        await alpha.submit(["behind"], method=CONSOLE)
        (number,) = [number for text, (_, number) in world.accepted.items() if text == "behind"]
        assert await world.settle(5.0, until=lambda: number in facts(beta, "taken"))
        assert await world.settle(20 * MINUTE_S, until=world.is_quiet)
        # its sender hears that somebody works on it, and asks no second time
        assert len(world.sends("slow")) == len(world.log.of("slow")) == 1
        assert find_violations(world) == []

    play(scenario)


@pytest.mark.parametrize("end", [End.HANDLER_ERROR, End.EXCEPTION])
def test_failure_is_remembered_and_was_received_all_the_same(end: End):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        world.behaviour["m"] = Behaviour(ends=(end,))
        await alpha.submit(["m"], method=CONSOLE)
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        verdicts = [one.text for one in beta.disk.evidence if one.what == "finished"]
        assert len(verdicts) == len(world.log.of("m")) == 1
        assert verdicts[0].startswith("failed: ")
        assert not alpha.disk.dead
        assert find_violations(world) == []

    play(scenario)


def test_what_is_journaled_keeps_its_body_on_disk_until_it_is_done():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        await world.daemons["beta"].submit(["line"], method=APPEND, to="alpha")
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        assert len(facts(alpha, "taken")) == 1

    play(scenario)


def test_only_what_may_be_done_twice_says_that_it_is_prompt():
    name, category = MethodName("REQMade"), Category.EVENT
    for wrong in ({"journals": True}, {"on_crash": OnCrash.INTERRUPT}):
        with pytest.raises(AssertionError):
            MethodInfo(name=name, summary="", category=category, is_prompt=True, **wrong)


def _waits(tree: ast.AST) -> Iterator[ast.AST]:
    return (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor)
    )


@pytest.mark.parametrize("name", PROMPT)
def test_handler_that_says_so_never_waits(name: MethodName):
    handler = METHODS[name].make()
    source = textwrap.dedent(inspect.getsource(type(handler).handle))
    assert not list(_waits(ast.parse(source)))


def test_there_are_prompt_methods():
    assert CONSOLE in PROMPT
