"""The sending side of a lane: what it does while nobody answers, what wakes it, and what ends a message."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from appliance.api.standings import Standings
from appliance.bus.memory import Permissions
from appliance.core.delivery import (
    DeliveryState,
    Standing,
    WaitReason,
    kind_of_wait,
    state_of_reason,
)
from tests.component.heart.worlds import add_pair, config, numbered, play
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, World

CONSOLE = "REQToConsole"
AT_ONCE_S = 1.5
"""Within what time a lane that was woken has done its work: no timer of the lane is that short."""


async def _fall_silent(world: World, alpha_sends: int = 50) -> list[str]:
    """Alpha's lane to beta is silent for ten minutes; texts of what waits behind the probe."""
    alpha, _ = await add_pair(world)
    world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
    await alpha.submit(["probe"], method=CONSOLE)
    await asyncio.sleep(20)
    waiting = numbered(alpha_sends)
    await alpha.submit(waiting, method=CONSOLE)
    await asyncio.sleep(600)
    return waiting


async def _all_done_at_once(world: World, texts: list[str]) -> None:
    await asyncio.sleep(AT_ONCE_S)
    wanted = {"probe", *texts}
    assert wanted <= set(world.log.texts())
    assert await world.settle(60, until=world.is_quiet)
    assert find_violations(world) == []


def test_silent_lane_probes_with_one_record_and_spends_no_other():
    async def scenario(world: World) -> None:
        waiting = await _fall_silent(world)
        probed = [text for text in ["probe", *waiting] if world.sends(text)]
        assert probed == ["probe"]
        records = world.daemons["alpha"].disk.records
        spent = {world.offered[text] for text in waiting if records[world.offered[text]].attempts}
        assert spent == set()
        world.policy = lambda _: (0.0,)
        assert await world.settle(330, until=world.is_quiet), "the next probe is five minutes away"
        assert find_violations(world) == []

    play(scenario)


def test_answer_to_the_probe_wakes_the_whole_lane():
    async def scenario(world: World) -> None:
        waiting = await _fall_silent(world)
        world.policy = lambda _: (0.0,)
        count = len(world.sends("probe"))
        assert await world.settle(330, until=lambda: len(world.sends("probe")) > count)
        await _all_done_at_once(world, waiting)

    play(scenario)


def test_hello_of_the_node_wakes_the_lane():
    async def scenario(world: World) -> None:
        waiting = await _fall_silent(world)
        world.policy = lambda _: (0.0,)
        await world.daemons["beta"].submit(["hello"], to="alpha", method="REQHello")
        await _all_done_at_once(world, waiting)

    play(scenario)


@pytest.mark.parametrize("who", ["alpha", "beta"])
def test_reconnect_of_either_side_wakes_the_lane(who: str):
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        await alpha.submit(["probe"], method=CONSOLE)  # so that beta knows who sends to it
        await asyncio.sleep(1)
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        texts = numbered(20)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(600)
        world.policy = lambda _: (0.0,)
        world.daemons[who].line.stay_away(0.05)
        await _all_done_at_once(world, texts)

    play(scenario)


def test_full_window_that_is_lost_in_a_short_dark_is_there_soon_after_it():
    """Nobody's connection is lost by it, as with a link between brokers, so nothing but the probe tells that it is over."""

    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        texts = numbered(300)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(6)  # five seconds until they are missed: the first probe is lost, too
        world.policy = lambda _: (0.0,)
        assert await world.settle(15, until=world.is_quiet)
        assert set(texts) <= set(world.log.texts())
        assert find_violations(world) == []

    play(scenario)


def test_probes_of_a_silent_lane_become_rare_up_to_five_minutes():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        await alpha.submit(["probe"], method=CONSOLE)
        await asyncio.sleep(3 * 3_600)
        gaps = [later - earlier for earlier, later in pairwise(world.sends("probe"))]
        assert 4.9 <= gaps[0] <= 11
        assert all(later >= earlier * 0.9 for earlier, later in pairwise(gaps))
        assert max(gaps) <= 331
        assert gaps[-1] >= 270
        world.policy = lambda _: (0.0,)
        assert await world.settle(331, until=world.is_quiet)

    play(scenario)


def test_absent_node_is_asked_for_with_one_record_and_costs_no_try():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        beta.kill()
        texts = numbered(50)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(3_600)
        assert all(record.attempts == record.sends == 0 for record in alpha.disk.records.values())
        assert sum(len(world.sends(text)) for text in texts) < 1_500  # one in some seconds
        await beta.start()
        assert await world.settle(10, until=world.is_quiet)
        assert sorted(world.log.texts()) == sorted(texts)

    play(scenario)


def test_node_that_never_said_it_is_an_appliance_gets_four_sends_over_ten_minutes():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, met=False)
        go = await world.add_stranger(f"go.{CONSOLE}.EventACK", answers=False)
        texts = numbered(3)
        numbers = await alpha.submit(texts, to="go", method=CONSOLE)
        assert await world.settle(7_200, until=lambda: len(alpha.disk.dead) == len(texts))
        for text, number in zip(texts, numbers, strict=True):
            sends = world.sends(text)
            assert len(sends) <= 4
            assert (
                alpha.disk.dead[number].died_at - alpha.disk.dead[number].record.created_at >= 600
            )
            assert state_of_reason(alpha.disk.dead[number].reason) is DeliveryState.EXPIRED
        assert len(go.heard) <= 4 * len(texts)
        assert len(world.sends(texts[0])) == 4
        assert world.sends(texts[0])[-1] - world.sends(texts[0])[0] >= 400

    play(scenario)


def test_node_in_go_that_answers_is_sent_each_message_once():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, met=False)
        go = await world.add_stranger(f"go.{CONSOLE}.EventACK", answers=True)
        texts = numbered(100)
        await alpha.submit(texts, to="go", method=CONSOLE)
        assert await world.settle(60, until=world.is_quiet)
        assert len(go.heard) == len(texts)

    play(scenario)


def test_number_of_retries_that_somebody_set_is_obeyed():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        await alpha.submit(["counted"], method=CONSOLE, retries=2)
        assert await world.settle(600, until=lambda: len(alpha.disk.dead) == 1)
        assert len(world.sends("counted")) == 3
        (dead,) = alpha.disk.dead
        assert await world.settle(
            60, until=lambda: any(f"gave up message {dead}" in text for text in world.log.texts())
        ), "dead letters are news"

    play(scenario)


def test_number_of_retries_in_the_config_is_obeyed():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(defaults="ack: {timeout: 1s, retries: 1}"))
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        await alpha.submit(numbered(5), method=CONSOLE)
        assert await world.settle(600, until=lambda: len(alpha.disk.dead) == 5)
        assert all(len(world.sends(text)) == 2 for text in numbered(5))

    play(scenario)


@pytest.mark.parametrize("broker", ["up", "down", "down before its lane was ever used"])
def test_message_expires_at_its_time_with_and_without_a_broker(broker: str):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        is_up = broker == "up"
        if "before" not in broker:
            await alpha.submit(["first"], method=CONSOLE)
            await asyncio.sleep(1)
        beta.kill()
        if not is_up:
            world.broker.stop()
        (number,) = await alpha.submit(["short-lived"], method=CONSOLE, expires_s=60)
        await asyncio.sleep(59)
        assert number in alpha.disk.records
        # a lane without a publisher is looked at when the pool tries to start one
        await asyncio.sleep(40 if "before" in broker else 3)
        reason = alpha.disk.dead[number].reason
        assert state_of_reason(reason) is DeliveryState.EXPIRED
        assert ("broker" in reason) is not is_up
        world.broker.start()

    play(scenario)


@pytest.mark.parametrize("days", [-40, 40])
def test_wall_clock_that_is_set_expires_nothing_and_resends_nothing(days: int):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        beta.kill()
        (number,) = await alpha.submit(["m"], method=CONSOLE)
        await asyncio.sleep(10)
        before = len(world.sends("m"))
        world.clocks.jump_wall(days * 86_400)
        await asyncio.sleep(60)
        assert number in alpha.disk.records
        assert len(world.sends("m")) - before <= 60 / 2.5 + 1
        await alpha.stop()
        await alpha.start()
        assert number in alpha.disk.records
        await beta.start()
        assert await world.settle(10, until=world.is_quiet)
        assert world.log.texts() == ["m"]

    play(scenario)


def test_message_outlives_a_day_of_wall_clock_jumps_and_expires_after_a_real_one():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)
        (number,) = await alpha.submit(["m"], method=CONSOLE)
        for _ in range(22):
            world.clocks.jump_wall(86_400)
            await asyncio.sleep(3_600)
        assert number in alpha.disk.records
        await asyncio.sleep(2 * 3_600 + 60)
        assert state_of_reason(alpha.disk.dead[number].reason) is DeliveryState.EXPIRED

    play(scenario)


def test_messages_keep_their_order_with_a_window_of_one_whatever_happens():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(defaults="window: 1", events=", concurrency: 1"))
        texts = numbered(60)
        nurse = asyncio.get_running_loop().create_task(world.revive_the_dead(2.0))
        rng = world.rng
        world.policy = lambda _: () if rng.random() < 0.2 else (rng.uniform(0, 0.5),)
        for at, text in enumerate(texts):
            await alpha.submit([text], method=CONSOLE)
            await asyncio.sleep(rng.uniform(0, 0.5))
            if at % 10 == 5:
                beta.kill()
            if at % 10 == 9:
                beta.line.stay_away(3.0)
        world.policy = lambda _: (0.0,)
        assert await world.settle(1_800, until=world.is_quiet)
        nurse.cancel()
        firsts = [run.text for run in world.log.runs if world.log.of(run.text)[0] is run]
        assert firsts == texts
        assert find_violations(world) == []

    play(scenario)


def test_waiting_records_follow_a_destination_whose_subject_changes():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        beta.kill()
        texts = numbered(5)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(5)
        unacknowledged = config(events=", ack: {mode: none}")
        alpha.reload(world.desired(unacknowledged, "alpha"))
        beta.reload(world.desired(unacknowledged, "beta"))
        await beta.start()
        assert await world.settle(60, until=world.is_quiet)
        assert sorted(world.log.texts()) == texts

    play(scenario)


def _standing(daemon: Daemon, number: int) -> Standing:
    record = daemon.disk.records[number]
    standings = Standings(daemon.pool.handles, daemon.store, daemon.line)
    return standings.of_record(record.node, record.subject, number)


async def _nobody(world: World, alpha: Daemon, beta: Daemon) -> None:
    beta.kill()


async def _silent(world: World, alpha: Daemon, beta: Daemon) -> None:
    world.policy = lambda passage: () if passage.receiver == "beta" else (0.0,)


async def _broker_away(world: World, alpha: Daemon, beta: Daemon) -> None:
    world.broker.stop()


async def _denied(world: World, alpha: Daemon, beta: Daemon) -> None:
    alpha.line.bus.permissions = Permissions(publish_deny=["beta.>"])
    alpha.line.stay_away(0.05)


async def _busy(world: World, alpha: Daemon, beta: Daemon) -> None:
    # one at work, one waiting, and no room for others
    world.default_behaviour = Behaviour(10.0)
    await alpha.submit(["at work", "waiting"], method=CONSOLE)
    await asyncio.sleep(1)


WAITS = {
    WaitReason.NOBODY: _nobody,
    WaitReason.SILENT: _silent,
    WaitReason.BROKER_AWAY: _broker_away,
    WaitReason.DENIED: _denied,
    WaitReason.BUSY: _busy,
}


@pytest.mark.parametrize("reason", WAITS)
def test_what_waits_says_why_and_goes_out_when_that_has_an_end(reason: WaitReason):
    async def scenario(world: World) -> None:
        text = config(events=", concurrency: 1, backlog: 1, ack: {on: done}")
        alpha, beta = await add_pair(world, text)
        await alpha.submit(["first"], method=CONSOLE)
        await asyncio.sleep(1)
        await WAITS[reason](world, alpha, beta)
        await alpha.submit(["m"], method=CONSOLE)
        await asyncio.sleep(6)
        (number,) = await alpha.submit(["looked at"], method=CONSOLE)
        await asyncio.sleep(1)
        standing = _standing(alpha, number)
        assert standing.state is DeliveryState.WAITING
        assert kind_of_wait(standing.why) is reason, standing
        await _mend(world, alpha, beta)
        assert await world.settle(400, until=world.is_quiet)
        assert {"m", "looked at"} <= set(world.log.texts())
        assert find_violations(world) == []

    play(scenario)


async def _mend(world: World, alpha: Daemon, beta: Daemon) -> None:
    world.policy = lambda _: (0.0,)
    world.broker.start()
    if beta.is_dead:
        await beta.start()
    if alpha.line.bus.permissions != Permissions():
        alpha.line.bus.permissions = Permissions()
        alpha.line.stay_away(0.05)


def test_message_behind_others_says_so_and_one_that_is_worked_on_too():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(defaults="window: 1"))
        world.default_behaviour = Behaviour(60.0)
        first, behind = await alpha.submit(["first", "behind"], method="REQCliCommand")
        await asyncio.sleep(20)
        assert _standing(alpha, first).state is DeliveryState.WORKING
        standing = _standing(alpha, behind)
        assert (standing.state, kind_of_wait(standing.why)) == (
            DeliveryState.WAITING,
            WaitReason.BEHIND,
        )

    play(scenario)


WILDCARD_DENIED = Permissions(subscribe_deny=[f"beta.{CONSOLE}.EventACK.reply.>"])


async def _add_pair_without_wildcard(
    world: World, permissions: Permissions
) -> tuple[Daemon, Daemon]:
    alpha, beta = await add_pair(world)
    alpha.line.bus.permissions = permissions
    alpha.line.stay_away(0.05)
    await asyncio.sleep(1)
    return alpha, beta


def test_a_lane_whose_wildcard_is_denied_hears_its_answers_where_steward_does():
    async def scenario(world: World) -> None:
        alpha, beta = await _add_pair_without_wildcard(world, WILDCARD_DENIED)
        texts = numbered(50)
        await alpha.submit(texts, method=CONSOLE)
        assert await world.settle(30, until=world.is_quiet)
        assert sorted(world.log.texts()) == sorted(texts)
        beta.kill()
        await alpha.submit(["kept"], method=CONSOLE)
        await asyncio.sleep(5)
        (number,) = await alpha.submit(["looked at"], method=CONSOLE)
        await asyncio.sleep(1)
        assert kind_of_wait(_standing(alpha, number).why) is WaitReason.NOBODY
        await beta.start()
        assert await world.settle(400, until=world.is_quiet)
        assert {"kept", "looked at"} <= set(world.log.texts())
        assert find_violations(world) == []

    play(scenario)


def test_a_lane_that_may_hear_no_answers_at_all_still_says_that_it_is_denied():
    async def scenario(world: World) -> None:
        nothing = Permissions(subscribe_deny=["beta.>"])
        alpha, beta = await _add_pair_without_wildcard(world, nothing)
        await alpha.submit(["m"], method=CONSOLE)
        await asyncio.sleep(6)
        (number,) = await alpha.submit(["looked at"], method=CONSOLE)
        await asyncio.sleep(1)
        assert kind_of_wait(_standing(alpha, number).why) is WaitReason.DENIED
        await _mend(world, alpha, beta)
        assert await world.settle(400, until=world.is_quiet)
        assert find_violations(world) == []

    play(scenario)


def test_on_a_shared_reply_subject_only_what_names_a_message_of_ours_says_anything_of_it():
    async def scenario(world: World) -> None:
        alpha, beta = await _add_pair_without_wildcard(world, WILDCARD_DENIED)
        beta.kill()
        deaf = await world.connect(
            "deaf"
        )  # hears the subject, so that the broker does not say that nobody does
        await deaf.subscribe(f"beta.{CONSOLE}.EventACK", lambda _: None)
        (number,) = await alpha.submit(["m"], method=CONSOLE)
        await asyncio.sleep(1)
        others = (
            b"",
            b"confirmed from: beta: 7",
            b"confirmed from: beta",
            b"refused by: beta: 7: no",
        )
        for payload in others:
            deaf.send([(f"beta.{CONSOLE}.EventACK.reply", "", b"", payload)])
        await asyncio.sleep(1)
        assert _standing(alpha, number).state is DeliveryState.SENT
        deaf.send(
            [(f"beta.{CONSOLE}.EventACK.reply", "", b"", b"confirmed from: beta: %d" % number)]
        )
        assert await world.settle(5, until=lambda: not alpha.disk.records)

    play(scenario)
