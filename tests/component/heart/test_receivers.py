"""The receiving side: it says that it works and that it has no room, and shares a node with others without doubling work."""

from __future__ import annotations

import asyncio

import cbor2
import pytest

from appliance.bus.memory import Permissions
from appliance.core.delivery import DeliveryState, state_of_reason
from appliance.wire.headers import encode_headers
from appliance.workers.known_senders import SENDER_FACT_KIND
from tests.component.heart.worlds import add_pair, config, numbered, play
from tests.support.bare_publisher import seed_message
from tests.support.heart_checks import find_violations
from tests.support.heart_world import Behaviour, Daemon, World

CONSOLE, COMMAND = "REQToConsole", "REQCliCommand"
CONSOLE_SUBJECT = "beta.REQToConsole.EventACK"
INSTANCE = "abcdef0123456789"
MINUTE_S = 60.0


def test_word_that_somebody_works_keeps_the_sender_quiet():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        world.default_behaviour = Behaviour(30 * MINUTE_S)
        await alpha.submit(["long"], method=COMMAND)
        assert await world.settle(40 * MINUTE_S, until=lambda: "long" in world.log.texts())
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        assert len(world.sends("long")) == 1
        assert find_violations(world) == []

    play(scenario)


def test_full_backlog_turns_messages_away_and_drops_none():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=", concurrency: 1, backlog: 8"))
        world.default_behaviour = Behaviour(1.0)
        texts = numbered(60)
        await alpha.submit(texts, method=COMMAND)
        assert await world.settle(600, until=world.is_quiet)
        stats = _stats(beta, COMMAND)
        assert stats.turned_away > 0
        assert stats.dropped == 0
        sends = sorted(at for text in texts for at in world.sends(text))
        late = [at for at in sends if at > sends[0] + 10]
        # one is handled each second, and the receiver has told how long it takes
        assert len(late) < 4 * (sends[-1] - late[0]), "a lane that is told to wait slows down"
        assert find_violations(world) == []
        # the receiver was never idle: what it does in a minute is done in little more
        assert world.log.runs[-1].ended_at - world.log.runs[0].began_at < 1.5 * len(texts)

    play(scenario)


def test_backlog_that_fills_while_messages_are_being_stored_leaves_the_loop_to_others():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=", concurrency: 1, backlog: 1"))
        world.default_behaviour = Behaviour(1.0)
        texts = numbered(20)
        for text in texts:
            await alpha.submit([text], method=COMMAND)
        assert await world.settle(600, until=world.is_quiet)
        assert all(len(world.log.of(text)) == 1 for text in texts)
        assert _stats(beta, COMMAND).dropped == 0
        assert find_violations(world) == []

    play(scenario)


def _stats(daemon: Daemon, method: str):
    return _worker(daemon, method).stats


def _worker(daemon: Daemon, method: str):
    return next(
        handle.worker
        for key, handle in daemon.pool.handles.items()
        if method in key.subject and key.kind == "subscriber"
    )


def test_overload_of_a_receiver_loses_and_doubles_nothing_and_slows_no_other_lane():
    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world, config(commands=", concurrency: 4"))
        texts = numbered(1_500)  # 5,000 on real parts: tests/lab, R4b
        world.default_behaviour = Behaviour(0.1)
        for first in range(0, len(texts), 500):
            await alpha.submit(texts[first : first + 500], method=COMMAND)
        for number in range(8):
            text = f"other{number}"
            world.behaviour[text] = Behaviour()
            submitted_at = world.clocks.steady()
            await alpha.submit([text], method=CONSOLE)
            assert await world.settle(2.0, until=lambda text=text: text in world.log.by_text)
            assert world.log.of(text)[0].began_at - submitted_at < 0.5
            await asyncio.sleep(4)
        assert await world.settle(600, until=world.is_quiet)
        wanted = set(texts)
        done = [run for run in world.log.runs if run.text in wanted]
        assert len(done) == len(texts)
        assert not alpha.disk.dead
        assert done[-1].ended_at - done[0].began_at < 1.5 * len(texts) * 0.1 / 4

    play(scenario)


@pytest.mark.parametrize("method", [CONSOLE, COMMAND])
def test_line_that_is_dark_for_seven_minutes_delivers_a_thousand_messages_once(method: str):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        texts = numbered(1_000)
        dark = asyncio.get_running_loop().create_task(world.go_dark(beta, 7 * MINUTE_S))
        for first in range(0, len(texts), 100):
            await alpha.submit(texts[first : first + 100], method=method)
            await asyncio.sleep(30)
        await dark
        assert await world.settle(3 * MINUTE_S, until=world.is_quiet)
        assert sorted(set(world.log.texts()) & set(texts)) == sorted(texts)
        assert find_violations(world) == []

    play(scenario)


def test_changed_uplink_with_the_old_connection_still_in_the_queue_group():
    """The client is back after half a minute; for four more the broker gives the dead connection its share."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        texts = numbered(100)
        dark = asyncio.get_running_loop().create_task(world.go_dark(beta, 30.0))
        for text in texts:
            await alpha.submit([text], method=CONSOLE)
            await asyncio.sleep(2)
        await dark
        assert await world.settle(20 * MINUTE_S, until=world.is_quiet)
        assert find_violations(world) == []

    play(scenario)


async def _two_takers(world: World, *, defaults: str = "") -> tuple[Daemon, Daemon, Daemon]:
    """Alpha, and two daemons of node beta: the one that began the command, and the other."""
    text = config(defaults=defaults)
    alpha, beta = await add_pair(world, text)
    gamma = await world.add_daemon("gamma", text, ["beta"])
    world.default_behaviour = Behaviour(20 * MINUTE_S)
    await alpha.submit(["the command"], method=COMMAND)
    await asyncio.sleep(5)
    (run,) = world.log.runs
    taker = world.daemons[run.daemon]
    return alpha, taker, gamma if taker is beta else beta


def test_command_is_left_to_the_daemon_that_began_it_while_its_line_is_dark():
    async def scenario(world: World) -> None:
        _, taker, _ = await _two_takers(world)
        await world.go_dark(taker, 10 * MINUTE_S)
        assert len(world.sends("the command")) > 1, "nothing was resent: the scenario is too tame"
        assert await world.settle(30 * MINUTE_S, until=world.is_quiet)
        assert len(world.log.of("the command")) == 1
        assert world.log.texts()[0] == "the command"
        assert find_violations(world) == []

    play(scenario)


def test_command_whose_daemon_died_is_reported_as_interrupted_when_it_comes_back():
    async def scenario(world: World) -> None:
        alpha, taker, _ = await _two_takers(world)
        taker.kill()
        await asyncio.sleep(10 * MINUTE_S)
        assert not alpha.disk.dead
        await taker.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert len(world.log.of("the command")) == 1
        (dead,) = alpha.disk.dead.values()
        assert state_of_reason(dead.reason) is DeliveryState.FAILED
        assert "interrupted" in dead.reason

    play(scenario)


def test_command_whose_daemon_never_comes_back_expires():
    async def scenario(world: World) -> None:
        alpha, taker, _ = await _two_takers(world, defaults="ack: {expires: 3h}")
        taker.kill()
        await asyncio.sleep(4 * 3_600)
        assert len(world.log.of("the command")) == 1
        (dead,) = alpha.disk.dead.values()
        assert state_of_reason(dead.reason) is DeliveryState.EXPIRED
        await taker.start()

    play(scenario)


def test_message_that_may_run_twice_goes_to_the_other_daemon():
    async def scenario(world: World) -> None:
        text = config(events=", ack: {on: done}")
        alpha, beta = await add_pair(world, text)
        gamma = await world.add_daemon("gamma", text, ["beta"])
        world.default_behaviour = Behaviour(5.0)
        await alpha.submit(["event"], method=CONSOLE)
        await asyncio.sleep(1)
        (run,) = world.log.runs
        world.daemons[run.daemon].kill()
        assert await world.settle(5 * MINUTE_S, until=lambda: "event" in world.log.texts())
        other = beta if run.daemon == "gamma" else gamma
        assert world.log.of("event")[-1].daemon == other.name
        await world.daemons[run.daemon].start()
        assert await world.settle(5 * MINUTE_S, until=world.is_quiet)

    play(scenario)


def test_rows_of_the_inbox_go_to_the_worker_that_took_over_another_kind_of_subject():
    async def scenario(world: World) -> None:
        world.has_prompt_handlers = False
        alpha, beta = await add_pair(world, config(events=", concurrency: 1"))
        world.default_behaviour = Behaviour(8.0)
        texts = numbered(5)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(5)
        assert len(beta.disk.inbox) == len(texts)
        beta.kill()
        beta.reload(world.desired(config(events=", concurrency: 1, ack: {mode: none}"), "beta"))
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert sorted(world.log.texts()) == texts

    play(scenario)


def test_reload_that_cancels_a_worker_leaves_its_messages_to_the_next_one():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=", concurrency: 1"))
        world.default_behaviour = Behaviour(7.0)
        texts = numbered(6)
        await alpha.submit(texts, method=COMMAND)
        await asyncio.sleep(3)
        everything = beta.desired
        beta.reload(world.without(everything, COMMAND))
        await asyncio.sleep(MINUTE_S)
        assert len(world.log.texts()) < len(texts)
        beta.reload(everything)
        assert await world.settle(10 * MINUTE_S, until=world.is_quiet)
        assert find_violations(world) == []
        done = set(world.log.texts())
        cut = {run.text for run in world.log.runs if run.was_cut}
        assert {text for text in texts if text not in done} <= cut

    play(scenario)


def test_rows_whose_takeover_failed_are_taken_over_later():
    """A full disk keeps a restarted receiver from reporting what was interrupted; with room it does."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        world.default_behaviour = Behaviour(MINUTE_S)
        texts = numbered(3)
        await alpha.submit(texts, method=COMMAND)
        await asyncio.sleep(5)
        beta.kill()
        beta.disk.is_full = True
        await beta.start()
        await asyncio.sleep(30)
        beta.disk.is_full = False
        assert await world.settle(5 * MINUTE_S, until=world.is_quiet)
        assert len(alpha.disk.dead) == len(texts)
        assert all("interrupted" in dead.reason for dead in alpha.disk.dead.values())
        assert find_violations(world) == []

    play(scenario)


@pytest.mark.parametrize("days", [0.5, 4.0])
def test_message_without_a_worker_runs_when_its_subject_is_soon_back_and_not_days_later(
    days: float,
):
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(events=", concurrency: 1"))
        world.default_behaviour = Behaviour(5.0)
        texts = numbered(3)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(1)
        beta.kill()
        everything = beta.desired
        beta.reload(world.without(everything, CONSOLE))
        await beta.start()
        await asyncio.sleep(days * 86_400)
        beta.reload(everything)
        await asyncio.sleep(MINUTE_S)
        assert sorted(world.log.texts()) == (texts if days < 1 else _reports(world))
        assert not beta.disk.inbox

    def _reports(world: World) -> list[str]:
        reports = [run.text for run in world.log.runs if run.method == "REQErrorLog"]
        assert any("given up" in text for text in reports), "nobody was told"
        return sorted(reports)


async def _publish_as_a_stranger(
    world: World, texts: list[str], *, window: int, sender: str = "alpha"
) -> None:
    """Lines of a client that writes no headers of ours, keeps so many unacknowledged, and resends nothing."""
    bus = await world.connect(f"{sender}, a stranger")
    acked: set[str] = set()
    prefix = f"beta.REQToConsole.EventACK.reply.{sender}."
    await bus.subscribe(f"{prefix}*", lambda got: acked.update(one.subject for one in got))
    for number, text in enumerate(texts):
        assert await world.settle(
            MINUTE_S, until=lambda number=number: number - len(acked) < window
        )
        message = seed_message("beta", sender, CONSOLE, [text], id=number)
        frame = (f"{prefix}{number}", encode_headers({"serial": "cbor"}), cbor2.dumps(message))
        bus.send([("beta.REQToConsole.EventACK", *frame)])


def test_sender_that_cannot_be_told_to_wait_is_kept_waiting_and_nothing_of_it_is_dropped():
    """It is acknowledged faster than handled: what it sends on top of its share waits, unacknowledged and in order."""

    async def scenario(world: World) -> None:
        _, beta = await add_pair(world, config(events=", concurrency: 1, backlog: 40"))
        world.default_behaviour = Behaviour(0.01)
        texts = numbered(400)
        await _publish_as_a_stranger(world, texts, window=10)
        assert await world.settle(MINUTE_S, until=lambda: len(world.log.texts()) == len(texts))
        assert world.log.texts() == texts
        assert _stats(beta, CONSOLE).dropped == 0

    play(scenario)


def test_a_daemon_that_was_stopped_begins_no_command_that_another_one_has_done_meanwhile():
    """What lay in its socket it asks for again; the sender, who has his answer, does not send it."""

    async def scenario(world: World) -> None:
        alpha, _ = await add_pair(world)
        gamma = await world.add_daemon("gamma", config(), ["beta"])
        gamma.stall.tick()
        gamma.line.bus.stall()
        texts = numbered(30)
        await alpha.submit(texts, method=COMMAND)
        assert await world.settle(20 * MINUTE_S, until=lambda: not alpha.disk.records)
        gamma.line.bus.resume()
        ticking = asyncio.create_task(gamma.stall.run())
        await asyncio.sleep(MINUTE_S)
        ran = [run.text for run in world.log.runs if run.text in texts]
        assert sorted(ran) == sorted(texts)
        assert _stats(gamma, COMMAND).turned_away > 0, "nothing lay there"
        # and it works again
        world.daemons["beta"].kill()
        await alpha.submit(["next"], method=COMMAND)
        assert await world.settle(MINUTE_S, until=lambda: "next" in world.log.texts())
        ticking.cancel()
        await asyncio.wait({ticking})

    play(scenario)


def test_denied_answers_are_the_workers_trouble_until_the_broker_lets_them_through():
    """Also where it does so without a new connection, as after a reload of its accounts."""

    async def scenario(world: World) -> None:
        denied = Permissions(publish_deny=["beta.REQToConsole.*.reply.>"])
        world.permissions["beta"] = denied
        alpha, beta = await add_pair(world)
        worker = _worker(beta, CONSOLE)
        assert worker.trouble is None
        await alpha.submit(["first"], method=CONSOLE)
        await asyncio.sleep(5 * MINUTE_S)
        assert "denies its acknowledgements" in worker.trouble
        assert len(alpha.disk.records) == 1
        beta.line.bus.session.permissions = Permissions()
        assert await world.settle(10 * MINUTE_S, until=lambda: not alpha.disk.records)
        await asyncio.sleep(MINUTE_S)
        assert worker.trouble is None
        assert len([run for run in world.log.runs if run.text == "first"]) == 1

    play(scenario)


def test_a_worker_that_ends_begins_no_command_that_it_would_have_to_cut_off():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(commands=", concurrency: 1"))
        world.default_behaviour = Behaviour(3.0)
        texts = numbered(6)
        await alpha.submit(texts, method=COMMAND)
        await asyncio.sleep(4)
        await beta.stop()
        assert 1 < len([text for text in world.log.texts() if text in texts]) < 6
        await beta.start()
        assert await world.settle(10 * MINUTE_S, until=lambda: not alpha.disk.records)
        assert sorted(text for text in world.log.texts() if text in texts) == sorted(texts)
        assert not alpha.disk.dead

    play(scenario)


def test_a_node_that_starts_wakes_lanes_for_which_somebody_else_stood_in_meanwhile():
    """A stream records its subjects, say: the broker never says that nobody is there, and the lane is silent."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        await world.add_stranger("beta.>", answers=False)
        await alpha.submit(["before"], method=CONSOLE)
        assert await world.settle(10.0, until=lambda: not alpha.disk.records)
        await asyncio.sleep(1)
        await beta.stop()
        texts = numbered(5)
        await alpha.submit(texts, method=CONSOLE)
        await asyncio.sleep(60 * MINUTE_S)
        sends = len(world.sends("m0"))
        assert sends < 30, "it is tried seldom by now"
        await beta.start()
        assert await world.settle(3.0, until=lambda: not alpha.disk.records)
        assert sorted(world.log.texts()) == sorted(["before", *texts])


def test_full_queue_beside_messages_that_are_not_taken_yet_leaves_the_loop_to_others():
    async def scenario(world: World) -> None:
        text = config(events=", concurrency: 1, backlog: 40")
        text = text.replace(
            "REQToConsole: {accept_from: [alpha]", "REQToConsole: {accept_from: any"
        )
        _, beta = await add_pair(world, text)
        world.default_behaviour = Behaviour(0.01)
        texts = {sender: numbered(200, sender) for sender in ("one", "two", "three")}
        async with asyncio.TaskGroup() as group:
            for sender, own in texts.items():
                group.create_task(_publish_as_a_stranger(world, own, window=12, sender=sender))
        assert await world.settle(MINUTE_S, until=lambda: len(world.log.texts()) == 600)
        for sender, own in texts.items():
            assert [text for text in world.log.texts() if text.startswith(sender)] == own
        assert _stats(beta, CONSOLE).dropped == 0

    play(scenario)


def test_handlers_that_run_while_the_process_stands_still_have_their_time_afterwards():
    """All timers are due when it goes on, before anything that came meanwhile has been seen."""

    async def scenario(world: World) -> None:
        text = config(commands=", concurrency: 1").replace(
            "method_timeout: 2h", "method_timeout: 10s"
        )
        alpha, _ = await add_pair(world, text)
        world.default_behaviour = Behaviour(3.0)
        await alpha.submit(["long"], method=COMMAND)
        assert await world.settle(MINUTE_S, until=lambda: bool(world.log.runs))
        asyncio.get_running_loop().pass_time(60.0)
        assert await world.settle(MINUTE_S, until=lambda: "long" in world.log.texts())
        assert await world.settle(MINUTE_S, until=world.is_quiet)
        assert not alpha.disk.dead
        assert find_violations(world) == []

    play(scenario)


def test_a_node_back_from_the_dark_wakes_those_who_never_reached_it_before():
    """Nothing is known of either at the other, and it says no hello."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, met=False)
        texts = numbered(1_000)
        dark = asyncio.get_running_loop().create_task(world.go_dark(beta, 7 * MINUTE_S))
        await asyncio.sleep(1)
        await alpha.submit(texts, method=CONSOLE)
        await dark
        assert await world.settle(10.0, until=lambda: not alpha.disk.records)
        assert sorted(world.log.texts()) == sorted(texts)
        assert find_violations(world) == []

    play(scenario)


@pytest.mark.parametrize("is_done_first", [False, True], ids=["received", "done"])
def test_what_was_kept_back_behind_nothing_but_repeats_goes_on(is_done_first: bool):
    async def scenario(world: World) -> None:
        on = ", ack: {on: done}" if is_done_first else ""
        await add_pair(world, config(events=f", backlog: 40{on}"))
        sender = await world.connect("an appliance that knows no word for busy")
        prefix = f"{CONSOLE_SUBJECT}.reply.old."
        answered: set[str] = set()
        await sender.subscribe(f"{prefix}*", lambda got: answered.update(m.subject for m in got))

        def send(numbers: range, again: str = "") -> None:
            sender.send([_frame(number, f"{prefix}{number}{again}") for number in numbers])

        send(range(1, 21))
        await asyncio.sleep(1)
        send(range(21, 41))
        await asyncio.sleep(1)
        assert len(answered) == 40
        send(range(1, 41), "again")
        await asyncio.sleep(60)
        assert len(answered) == 80

    play(scenario)


@pytest.mark.parametrize("version", [{"appl-v": "2"}, {}], ids=["knows busy", "does not"])
def test_what_is_handled_and_cannot_be_committed_takes_room_of_the_backlog(version):
    async def scenario(world: World) -> None:
        _, beta = await add_pair(world, config(events=", backlog: 40, ack: {on: done}"))
        sender = await world.connect("sender")
        prefix = f"{CONSOLE_SUBJECT}.reply.s."
        done: set[str] = set()

        def hear(messages) -> None:
            done.update(m.subject for m in messages if m.payload.startswith(b"confirmed"))

        await sender.subscribe(f"{prefix}*", hear)
        beta.disk.is_full = True
        for number in range(1, 2_001):
            sender.send([_frame(number, f"{prefix}{number}", version)])
            if not number % 20:
                await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        worker = _worker(beta, CONSOLE)
        assert worker._executor.held_count <= 40 + 20
        assert worker.unfinished <= 2 * 40 + 20
        assert worker.stats.turned_away + worker.stats.dropped > 1_800
        assert not done
        beta.disk.is_full = False
        await asyncio.sleep(30)
        assert len(done) >= 40

    play(scenario)


def test_who_is_turned_away_for_his_share_is_not_named_to_whoever_listens():
    """By the number of a message that comes again its id could be found out, and be used up before."""

    async def scenario(world: World) -> None:
        await add_pair(world, config(commands=", concurrency: 1, backlog: 40"))
        world.default_behaviour = Behaviour(MINUTE_S)
        sender = await world.connect("sender")
        subject = f"beta.{COMMAND}.CommandACK"
        busy: list[bytes] = []

        def hear(messages) -> None:
            busy.extend(m.payload for m in messages if m.payload.startswith(b"busy"))

        await sender.subscribe(f"{subject}.reply.s.*", hear)
        for number in range(1, 40):
            message = seed_message("beta", "alpha", COMMAND, [f"m{number}"], id=number)
            headers = {"serial": "cbor", "appl-id": f"{INSTANCE}-{number}", "appl-v": "2"}
            frame = cbor2.dumps(message)
            sender.send([(subject, f"{subject}.reply.s.{number}", encode_headers(headers), frame)])
        await asyncio.sleep(1)
        assert set(busy) == {b"busy at: beta: 0"}

    play(scenario)


def test_a_takeover_that_a_full_disk_breaks_off_is_made_up_when_there_is_room():
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world)
        world.default_behaviour = Behaviour(10 * MINUTE_S)
        await alpha.submit(numbered(3), method=COMMAND)
        await asyncio.sleep(2)
        changed = config().replace("ack: {on: done}", "ack: {mode: none}")
        beta.reload(world.desired(changed, "beta"))
        await asyncio.sleep(5)
        beta.disk.is_full = True
        await asyncio.sleep(30)
        beta.disk.is_full = False
        await asyncio.sleep(60 * MINUTE_S)
        assert not beta.disk.inbox
        assert not beta.inbox_owners.held

    play(scenario)


def test_two_nodes_of_one_daemon_are_two_senders_that_are_noted_once_each():
    text = """
version: 1
broker: {servers: ["nats://127.0.0.1:4222"]}
nodes:
  alpha: {subscribe: {REQErrorLog: {accept_from: any}}}
  gamma: {}
  beta: {subscribe: {REQToConsole: {accept_from: any}}}
"""

    async def scenario(world: World) -> None:
        alpha = await world.add_daemon("alpha", text, ["alpha", "gamma"])
        beta = await world.add_daemon("beta", text, ["beta"])
        noted: list[str] = []
        remember = beta.store.remember

        async def spy(kind, changes) -> None:
            noted.extend(changes if kind == SENDER_FACT_KIND else ())
            await remember(kind, changes)

        beta.store.remember = spy
        for number in range(20):
            sender = ["alpha", "gamma"][number % 2]
            await alpha.submit([f"m{number}"], method=CONSOLE, from_node=sender)
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert len(world.log.texts()) == 20
        assert len(noted) == 2
        # each of the lanes hears when the node is back
        before = len(world.sent)
        await beta.stop()
        await beta.start()
        await asyncio.sleep(1)
        greeted = [sent.subject for sent in world.sent[before:] if sent.subject.endswith(".here")]
        assert len({subject for subject in greeted if not subject.endswith(".here.here")}) == 2

    play(scenario)


def _frame(number: int, reply_to: str, more: dict[str, str] | None = None):
    block = encode_headers({"serial": "cbor", "appl-id": f"{INSTANCE}-{number}", **(more or {})})
    text = cbor2.dumps(seed_message("beta", "alpha", CONSOLE, [f"m{number}"], id=number))
    return CONSOLE_SUBJECT, reply_to, block, text
