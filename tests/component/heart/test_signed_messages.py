"""Signed messages: what is honest gets through, what somebody else made, changed or kept changes nothing and is counted.

`mallory` is a client of the broker with every right there: it hears everything and may publish anywhere. Nodes are alpha,
who sends, beta, who takes, and gamma, whose key somebody has taken.
"""

from __future__ import annotations

import asyncio

import pytest

from appliance.bus.base import BusMessage, Frame
from appliance.bus.memory import MemoryBus
from appliance.core.message import Message
from appliance.core.signatures import Fault
from appliance.delivery.signer import Signer
from appliance.wire.frame import encode_frame
from appliance.wire.headers import encode_headers
from tests.component.heart.worlds import numbered, play
from tests.support.forgery import (
    ATTACKS,
    COMMAND,
    COMMANDS,
    CONSOLE,
    DAY_S,
    HOUR_S,
    KEYS,
    PAIRS,
    SUBJECT,
    resigned,
    unsigned,
    with_body,
)
from tests.support.heart_world import Behaviour, Daemon, End, World, desired_of

REPORTS = "errorCentral.REQErrorLog.EventACK"
HELLO = "alpha.REQHello.EventNACK"
TOLD_S = 60.0

CONFIG = """
version: 1
broker: {{servers: ["nats://127.0.0.1:4222"]}}
signing: {{key: {{file: seed.nk}}}}
defaults: {{signatures: {policy}{defaults}}}
nodes:
  alpha:
    public_keys: [{alpha}]
    subscribe:
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQHello: {{}}
  beta:
    public_keys: [{beta}]
    subscribe:
      REQToConsole: {{accept_from: [alpha, gamma]}}
      REQCliCommand: {{accept_from: [alpha, gamma], allow_commands: any, ack: {{on: done}}}}
    publish:
      hello: {{to: alpha, method: REQHello, every: 6h}}
  gamma:
    public_keys: [{gamma}]
    subscribe: {{REQToConsole: {{}}}}
  go: {{}}
"""


def config(policy: str = "require", *, alpha: str = "", defaults: str = "", gamma: str = "") -> str:
    """The fleet; nodes' public keys are those of their names unless told otherwise."""
    return CONFIG.format(
        policy=policy,
        defaults=defaults,
        alpha=alpha or KEYS["alpha"],
        beta=KEYS["beta"],
        gamma=gamma or KEYS["gamma"],
    )


async def add_signing(world: World, name: str, text: str, key: str = "") -> Daemon:
    """A daemon of the node of its name."""
    daemon = await world.add_daemon(name, text, [name], start=False)
    daemon.signing_key = PAIRS[key or name]
    await daemon.start()
    return daemon


async def add_pair(world: World, text: str) -> tuple[Daemon, Daemon]:
    return await add_signing(world, "alpha", text), await add_signing(world, "beta", text)


def reload(daemon: Daemon, text: str) -> None:
    daemon.reload(desired_of(text, (daemon.name,)))


def counted(daemon: Daemon) -> dict[Fault, int]:
    """What did not count, without what never happened."""
    return {fault: count for fault, count in daemon.verifier.refused.items() if count}


def runs(world: World) -> list[str]:
    """Texts of everything that was done, in order, but for reports about what was not."""
    return [run.text for run in world.log.runs if run.method not in ("REQErrorLog", "REQHello")]


class Mallory:
    """Hears everything, publishes anywhere."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.heard: list[BusMessage] = []

    async def last(self, subject: str, *, after: int = 0) -> BusMessage:
        """The newest message on a subject, waiting for one."""
        for _ in range(1_000):
            found = [message for message in self.heard[after:] if message.subject == subject]
            if found:
                return found[-1]
            await asyncio.sleep(0.05)
        raise AssertionError(f"nothing came on {subject}")

    async def say(self, *frames: Frame) -> None:
        self.bus.send(frames)
        await asyncio.sleep(2.0)


async def add_mallory(world: World) -> Mallory:
    mallory = Mallory(await world.connect("mallory"))
    await mallory.bus.subscribe(">", mallory.heard.extend)
    return mallory


# -- what is honest --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["off", "prefer", "require"])
def test_messages_answers_hellos_and_reports_get_through(policy: str) -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        world.behaviour["bad"] = Behaviour(ends=(End.HANDLER_ERROR,))
        await alpha.submit(numbered(40), method=CONSOLE)
        await alpha.submit(["uptime"], method=COMMAND, method_args=("uptime",))
        await alpha.submit(["bad"], method=COMMAND, method_args=("bad",))
        await asyncio.sleep(HOUR_S)
        assert {run.text for run in world.log.runs} >= {*numbered(40), "uptime", "bad"}
        assert any(run.text.startswith("answer ") for run in world.log.runs)
        assert any(run.method == "REQErrorLog" for run in world.log.runs)
        assert alpha.presence.sightings().keys() == {"beta"}
        assert not alpha.disk.records
        assert [letter.reason for letter in alpha.disk.dead.values()] == [
            "failed: as the test wished"
        ]
        assert counted(alpha) == counted(beta) == {}
        # what is asked of the broker itself no node signs
        said = [sent for sent in world.sent if not sent.subject.startswith("$JS.API.")]
        signed = {"appl-sig" in sent.headers for sent in said}
        assert signed == {policy != "off"}

    play(scenario)


def test_who_has_no_key_is_taken_unsigned_where_signatures_are_only_preferred() -> None:
    async def scenario(world: World) -> None:
        beta = await add_signing(world, "beta", config("prefer"))
        go = await world.connect("go")
        plain = Message(to_node="beta", from_node="go", method=CONSOLE, data=("hi",))
        answers: list[BusMessage] = []
        await go.subscribe("beta.REQToConsole.EventACK.reply", answers.extend)
        text = config("prefer").replace("[alpha, gamma]", "[alpha, gamma, go]")
        reload(beta, text)
        await asyncio.sleep(5)
        payload, headers = encode_frame(plain, "gob", "none")
        go.send([(SUBJECT, f"{SUBJECT}.reply", encode_headers(headers), payload)])
        await asyncio.sleep(5)
        assert world.log.texts() == ["hi"]
        assert [answer.payload for answer in answers] == [b"confirmed from: beta: 0"]
        assert counted(beta) == {}
        reload(beta, config("require"))
        await asyncio.sleep(5)
        go.send([(SUBJECT, f"{SUBJECT}.reply", encode_headers(headers), payload)])
        await asyncio.sleep(5)
        assert world.log.texts() == ["hi"]
        assert counted(beta) == {Fault.UNSIGNED: 1}

    play(scenario)


# -- attacks on messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["prefer", "require"])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_somebody_made_of_a_message_changes_nothing_and_is_counted(
    name: str, policy: str
) -> None:
    attack = ATTACKS[name]

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        mallory = await add_mallory(world)
        await alpha.submit(["first"], method=COMMAND, method_args=("echo", "a", "b"))
        heard = await mallory.last(COMMANDS)
        await asyncio.sleep(TOLD_S)
        before = runs(world)
        frame = (COMMANDS, heard.reply_to, heard.block, heard.payload)
        await mallory.say(attack.make(frame, world.clocks.wall()))
        assert runs(world) == before
        assert counted(beta) == {attack.fault: 1}
        assert counted(alpha).keys() <= {Fault.NOT_ASKED}
        # and what is honest is done as ever
        await alpha.submit(["next"], method=COMMAND, method_args=("echo", "a", "b"))
        await asyncio.sleep(TOLD_S)
        assert len(world.log.of("next")) == 1
        assert not alpha.disk.dead
        assert not alpha.disk.records

    play(scenario)


@pytest.mark.parametrize(
    ("policy", "fault"), [("require", Fault.UNSIGNED), ("prefer", Fault.DOWNGRADE)]
)
def test_a_signature_taken_away_makes_no_unsigned_message(policy: str, fault: Fault) -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        mallory = await add_mallory(world)
        await alpha.submit(["first"], method=COMMAND, method_args=("a", "b"))
        heard = await mallory.last(COMMANDS)
        await asyncio.sleep(TOLD_S)
        plain = (COMMANDS, heard.reply_to, unsigned(heard.block), heard.payload)
        await mallory.say(plain, with_body(plain, method_args=("rm",)))
        gob = Message(to_node="beta", from_node="alpha", method=COMMAND, method_args=("rm",))
        payload, headers = encode_frame(gob, "gob", "none")
        await mallory.say((COMMANDS, "", encode_headers(headers), payload))
        assert counted(beta) == {fault: 3}
        assert [run.text for run in world.log.runs if run.node == "beta"] == ["first"]
        # nor does it where the config asks for less from here on, or the daemon begins anew
        if policy == "require":
            reload(beta, config("prefer"))
            await asyncio.sleep(TOLD_S)
            await mallory.say(plain)
            assert counted(beta) == {fault: 3, Fault.DOWNGRADE: 1}
        await beta.stop()
        await beta.start()
        await mallory.say(plain)
        assert counted(beta) == {
            (Fault.DOWNGRADE if policy == "prefer" or counted(beta) else fault): 1
        }
        assert [run.text for run in world.log.runs if run.node == "beta"] == ["first"]

    play(scenario)


# -- replays -----------------------------------------------------------------------------------------


async def _replay(world: World, mallory: Mallory, subject: str, beta: Daemon) -> int:
    """Bring again what was heard; how many runs that made."""
    heard = [message for message in mallory.heard if message.subject == subject]
    before = runs(world)
    await mallory.say(
        *((subject, message.reply_to, message.block, message.payload) for message in heard)
    )
    assert beta.is_up
    return len(runs(world)) - len(before)


@pytest.mark.parametrize(
    ("jump_s", "restarts"),
    [(0.0, False), (0.0, True), (-2 * DAY_S, True), (600.0, True), (2 * DAY_S, True)],
)
def test_a_message_that_comes_again_is_not_done_again(jump_s: float, restarts: bool) -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        mallory = await add_mallory(world)
        await alpha.submit(["once"], method=COMMAND, method_args=("a",))
        await alpha.submit(["twice"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        if restarts:
            await beta.stop()
            await beta.start()
        world.clocks.jump_wall(jump_s)
        assert await _replay(world, mallory, COMMANDS, beta) == 0
        assert await _replay(world, mallory, SUBJECT, beta) == 0
        # from here on nobody remembers its id any more
        await asyncio.sleep(26 * HOUR_S)
        assert await _replay(world, mallory, COMMANDS, beta) == 0
        assert counted(beta).keys() <= {Fault.EXPIRED, Fault.AHEAD}
        assert counted(beta)

    play(scenario)


def test_a_clock_set_back_brings_back_no_message_that_was_forgotten() -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        mallory = await add_mallory(world)
        await alpha.submit(["old"], method=COMMAND, method_args=("a",))
        await asyncio.sleep(TOLD_S)
        old = list(mallory.heard)
        for _ in range(3):
            await asyncio.sleep(DAY_S)
            await alpha.submit(["daily"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        await beta.stop()
        await beta.start()
        # by what alpha has said since, this is old, whatever the clock here says now
        world.clocks.jump_wall(-3 * DAY_S)
        mallory.heard = old
        assert await _replay(world, mallory, COMMANDS, beta) == 0
        assert counted(beta) == {Fault.EXPIRED: 1}

    play(scenario)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_hello_that_comes_again_says_nothing(restarts: bool) -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        mallory = await add_mallory(world)
        await mallory.last(HELLO)
        await asyncio.sleep(1)
        await beta.stop()
        if restarts:
            await alpha.stop()
            await alpha.start()
        seen = alpha.presence.sightings().get("beta")
        await _replay(world, mallory, HELLO, alpha)
        assert alpha.presence.sightings().get("beta") == seen
        await asyncio.sleep(HOUR_S)
        await _replay(world, mallory, HELLO, alpha)
        assert alpha.presence.sightings().get("beta") == seen
        assert Fault.EXPIRED in counted(alpha)
        await beta.start()

    play(scenario)


def test_a_forged_hello_is_no_hello() -> None:
    async def scenario(world: World) -> None:
        alpha = await add_signing(world, "alpha", config())
        mallory = await add_mallory(world)
        hello = Message(to_node="alpha", from_node="beta", method="REQHello", data=("hi",))
        payload, headers = encode_frame(hello, "cbor", "none")
        headers["appl-hello"] = "{}"
        frame = (HELLO, "", encode_headers(headers), payload)
        wall = world.clocks.wall()
        await mallory.say(frame, resigned(frame, PAIRS["gamma"], "beta", wall=wall))
        await mallory.say(resigned(frame, PAIRS["gamma"], "gamma", wall=wall))
        assert alpha.presence.sightings() == {}
        assert counted(alpha) == {
            Fault.UNSIGNED: 1, Fault.UNKNOWN_KEY: 1, Fault.OTHER_SENDER: 1
        }  # fmt: skip

    play(scenario)


@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_the_id_of_another_nodes_message_is_none_of_ones_own(policy: str) -> None:
    """Used before that message comes: it is done all the same, and so is it when it was used after."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        await beta.stop()
        mallory = await add_mallory(world)
        taking = await mallory.bus.subscribe(SUBJECT, lambda _: None, queue=SUBJECT)
        await alpha.submit(["asked"], method=CONSOLE)
        heard = await mallory.last(SUBJECT)
        await taking.stop_intake()
        await beta.start()
        frame = (SUBJECT, "", heard.block, heard.payload)
        own = with_body(frame, from_node="gamma", data=("own",))
        wall = world.clocks.wall()
        await mallory.say(resigned(own, PAIRS["gamma"], "gamma", wall=wall))
        await asyncio.sleep(HOUR_S)
        assert sorted(runs(world)) == ["asked", "own"]
        wall = world.clocks.wall()
        await mallory.say(resigned(own, PAIRS["gamma"], "gamma", wall=wall))
        assert len(runs(world)) == 2

    play(scenario)


# -- attacks on answers ------------------------------------------------------------------------------

_ANSWERS = {
    "done": (b"confirmed from: beta: %d", {"appl-v": "2", "appl-done": "1"}),
    "taken": (b"confirmed from: beta: %d", {"appl-v": "2"}),
    "taken by a Go node": (b"confirmed from: beta: %d", {}),
    "refused": (b"refused by: beta: %d: no", {"appl-v": "2", "appl-refused": "no"}),
    "failed": (b"refused by: beta: %d: no", {"appl-failed": "no", "appl-refused": "no"}),
    "failed by a Go node": (b"", {}),
    "working": (b"working at: beta: %d", {"appl-v": "2", "appl-working": "0" * 16}),
    "busy": (b"busy at: beta: %d", {"appl-v": "2", "appl-busy": "60000"}),
}


@pytest.mark.parametrize("policy", ["prefer", "require"])
@pytest.mark.parametrize("key", ["", "gamma", "stolen name"])
@pytest.mark.parametrize("said", _ANSWERS)
def test_a_forged_answer_changes_nothing(said: str, key: str, policy: str) -> None:
    text, headers = _ANSWERS[said]

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        # alpha has heard beta sign
        await alpha.submit(["before"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        await beta.stop()
        mallory = await add_mallory(world)
        await mallory.bus.subscribe(SUBJECT, lambda _: None, queue=SUBJECT)
        after = len(mallory.heard)
        (number,) = await alpha.submit(["asked"], method=CONSOLE)
        heard = await mallory.last(SUBJECT, after=after)
        payload = text.replace(b"%d", str(number).encode())
        frame = (heard.reply_to, "", encode_headers(headers) if headers else b"", payload)
        if key and not headers:
            pytest.skip("a Go node's answer has no headers to sign")
        if key:
            signer = Signer(world.clocks.wall)
            signer.key = PAIRS["gamma"]
            name = "gamma" if key == "gamma" else "beta"
            (frame,) = signer.sign_answers([(heard.reply_to, "alpha", *frame[2:])], name)
        await mallory.say(frame)
        assert alpha.disk.records.keys() >= {number}
        assert not alpha.disk.dead
        assert sum(counted(alpha).values()) == 1
        await beta.start()
        await asyncio.sleep(HOUR_S)
        assert len(world.log.of("asked")) == 1
        assert not alpha.disk.records

    play(scenario)


@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_nobody_but_error_central_takes_a_report(policy: str) -> None:
    """Else one node could take everybody's, and say in its own name that they have arrived."""

    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config(policy))
        await alpha.stop()
        mallory = await add_mallory(world)
        await mallory.bus.subscribe(REPORTS, lambda _: None, queue=REPORTS)
        after = len(mallory.heard)
        await mallory.say((SUBJECT, "", b"", b"\xff"))
        heard = await mallory.last(REPORTS, after=after)
        (number,) = beta.disk.records
        block = encode_headers({"appl-v": "2", "appl-done": "1"})
        signer = Signer(world.clocks.wall)
        signer.key = PAIRS["gamma"]
        answer = (heard.reply_to, "beta", block, b"confirmed from: gamma: %d" % number)
        await mallory.say(*signer.sign_answers([answer], "gamma"))
        assert list(beta.disk.records) == [number]
        assert counted(beta)[Fault.OTHER_SENDER] == 1
        await alpha.start()
        await asyncio.sleep(HOUR_S)
        assert not beta.disk.records

    play(scenario)


def test_an_answer_is_good_for_the_message_that_it_was_given_to_alone() -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        mallory = await add_mallory(world)
        await alpha.submit(["before"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        before = [one for one in mallory.heard if one.payload.startswith(b"confirmed from: beta")]
        await beta.stop()
        await mallory.bus.subscribe(SUBJECT, lambda _: None, queue=SUBJECT)
        after = len(mallory.heard)
        (number,) = await alpha.submit(["asked"], method=CONSOLE)
        heard = await mallory.last(SUBJECT, after=after)
        await mallory.say(*((heard.reply_to, "", one.block, one.payload) for one in before))
        assert alpha.disk.records.keys() >= {number}
        assert counted(alpha) == {Fault.FORGED: len(before)}
        await beta.start()
        await asyncio.sleep(HOUR_S)
        assert len(world.log.of("asked")) == 1

    play(scenario)


@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_nobody_can_have_a_message_of_somebody_else_refused(policy: str) -> None:
    """A copy with something wrong in it, and the same reply subject: the refusal of that is none of the message."""

    async def scenario(world: World) -> None:
        alpha, _beta = await add_pair(world, config(policy))
        mallory = await add_mallory(world)
        world.behaviour["slow"] = Behaviour(work_s=5.0)
        (_number,) = await alpha.submit(["slow"], method=COMMAND, method_args=("sleep", "20"))
        heard = await mallory.last(COMMANDS)
        frame = (COMMANDS, heard.reply_to, heard.block, heard.payload)
        wall = world.clocks.wall()
        bad_body = (*frame[:3], b"\xff\xff")
        plain = unsigned(heard.block)
        await mallory.say(
            with_body(frame, method_args=("rm",)),
            bad_body,
            (COMMANDS, heard.reply_to, plain, b"\xff\xff"),
            resigned(with_body(frame, from_node="gamma"), PAIRS["gamma"], "gamma", wall=wall),
        )
        assert not alpha.disk.dead
        await asyncio.sleep(HOUR_S)
        assert not alpha.disk.dead
        assert not alpha.disk.records
        assert [run.end for run in world.log.of("slow")][:1] == [End.DONE]
        assert counted(alpha).get(Fault.NOT_ASKED, 0) >= 2

    play(scenario)


# -- keys, clocks, ways ------------------------------------------------------------------------------


def test_a_key_is_changed_while_messages_flow() -> None:
    async def scenario(world: World) -> None:
        both = f"{KEYS['alpha']}, {KEYS['new']}"
        alpha, beta = await add_pair(world, config())
        await alpha.submit(["by the old"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        for daemon in (alpha, beta):
            reload(daemon, config(alpha=both))
        alpha.signer.key = PAIRS["new"]
        await alpha.submit(["by the new"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        for daemon in (alpha, beta):
            reload(daemon, config(alpha=KEYS["new"]))
        await alpha.submit(["by the new alone"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        assert counted(beta) == {}
        texts = [text for text in world.log.texts() if text.startswith("by")]
        assert texts == ["by the old", "by the new", "by the new alone"]
        # the old one is nobody's key any more; what is signed by it waits, for the config may be late
        alpha.signer.key = PAIRS["alpha"]
        await alpha.submit(["late"], method=CONSOLE)
        await asyncio.sleep(HOUR_S)
        assert counted(beta).keys() == {Fault.UNKNOWN_KEY}
        assert not alpha.disk.dead
        assert alpha.disk.records
        reload(beta, config(alpha=both))
        await asyncio.sleep(HOUR_S)
        assert world.log.texts().count("late") == 1
        assert not alpha.disk.records

    play(scenario)


def test_a_clock_that_differs_within_bounds_is_told_and_beyond_them_waited_for() -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        alpha.signer._wall = lambda: world.clocks.wall() + 240.0
        await alpha.submit(["a little ahead"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        assert 235 < beta.verifier.skews_s["alpha"] < 245
        assert counted(beta) == {}
        alpha.signer._wall = lambda: world.clocks.wall() + HOUR_S
        await alpha.submit(["far ahead"], method=CONSOLE)
        await asyncio.sleep(2 * HOUR_S)
        assert counted(beta).keys() == {Fault.AHEAD}
        assert not alpha.disk.dead
        alpha.signer._wall = world.clocks.wall
        await asyncio.sleep(HOUR_S)
        assert world.log.texts().count("far ahead") == 1
        await alpha.submit(["right"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        assert beta.verifier.skews_s == {}

    play(scenario)


def test_a_stream_keeps_what_is_signed_for_days_and_brings_it_once() -> None:
    streams = ", delivery: jetstream, stream: {max_age: 240h}"

    async def scenario(world: World) -> None:
        text = config(defaults=streams)
        alpha, beta = await add_pair(world, text)
        await beta.stop()
        await alpha.submit(["kept"], method=CONSOLE)
        await alpha.submit(["bad"], method=COMMAND, method_args=("a",))
        world.behaviour["bad"] = Behaviour(ends=(End.HANDLER_ERROR,))
        await asyncio.sleep(2 * HOUR_S)
        assert not alpha.disk.records
        await beta.start()
        await asyncio.sleep(TOLD_S)
        assert counted(beta) == counted(alpha) == {}
        assert len(world.log.of("kept")) == len(world.log.of("bad")) == 1
        mallory = await add_mallory(world)
        after = len(world.log.runs)
        await alpha.submit(["honest"], method=CONSOLE)
        heard = await mallory.last(SUBJECT)
        # with other words for the stream, which would know them again
        blocks = [heard.block.replace(b"Msg-Id: ", b"Msg-Id: %d" % number) for number in (1, 2)]
        again = (SUBJECT, "", blocks[0], heard.payload)
        changed = (SUBJECT, "", blocks[1], heard.payload)
        await mallory.say(with_body(changed, data=("forged",)), again)
        await asyncio.sleep(10 * TOLD_S)
        assert [run.text for run in world.log.runs[after:] if run.method == CONSOLE] == ["honest"]
        assert counted(beta) == {Fault.FORGED: 1}
        # a stream brings again what is not acknowledged: what does not count is gone for good
        assert not any(subject == SUBJECT for subject in world.kept_messages())

    play(scenario)


def test_without_a_key_nothing_goes_out_that_would_not_count() -> None:
    async def scenario(world: World) -> None:
        beta = await add_signing(world, "beta", config())
        alpha = await world.add_daemon("alpha", config(), ["alpha"])
        await alpha.submit(["asked"], method=CONSOLE)
        await asyncio.sleep(HOUR_S)
        assert counted(beta) == {}
        assert not alpha.disk.dead
        alpha.signer.key = PAIRS["alpha"]
        await asyncio.sleep(HOUR_S)
        assert len(world.log.of("asked")) == 1

    play(scenario)


def test_what_was_let_in_is_done_after_a_restart_whatever_has_become_of_its_key() -> None:
    async def scenario(world: World) -> None:
        world.has_prompt_handlers = False
        alpha, beta = await add_pair(world, config())
        world.behaviour["slow"] = Behaviour(work_s=10.0)
        world.default_behaviour = Behaviour(work_s=5.0)
        await alpha.submit(["slow", *numbered(20)], method=CONSOLE)
        await asyncio.sleep(2)
        beta.kill()
        beta.desired = desired_of(config(alpha=KEYS["new"]), ("beta",))
        await asyncio.sleep(2 * HOUR_S)
        await beta.start()
        await asyncio.sleep(HOUR_S)
        assert set(numbered(20)) <= {run.text for run in world.log.runs if run.end is End.DONE}
        assert counted(beta).keys() <= {Fault.UNKNOWN_KEY}

    play(scenario)


def test_a_config_that_asks_for_signatures_is_followed_while_messages_flow() -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config("off"))
        for number, policy in enumerate(("prefer", "require", "prefer", "off")):
            await alpha.submit(numbered(5, f"{number}-"), method=CONSOLE)
            # one after the other, as commits reach nodes
            for daemon in (alpha, beta) if number % 2 else (beta, alpha):
                reload(daemon, config(policy))
                await asyncio.sleep(TOLD_S)
                await alpha.submit([f"{number} {daemon.name}"], method=CONSOLE)
                await asyncio.sleep(TOLD_S)
        await asyncio.sleep(HOUR_S)
        texts = [text for text in world.log.texts() if text[:1].isdigit() and len(text) < 12]
        assert len(texts) == len(set(texts)) == 28
        assert not alpha.disk.records

    play(scenario)


def test_a_word_that_a_node_is_back_is_good_for_a_while_only() -> None:
    async def scenario(world: World) -> None:
        alpha, beta = await add_pair(world, config())
        mallory = await add_mallory(world)
        await alpha.submit(["before"], method=CONSOLE)
        await asyncio.sleep(TOLD_S)
        await beta.stop()
        await beta.start()
        said = await mallory.last(f"{SUBJECT}.reply.here.here")
        await beta.stop()
        await asyncio.sleep(HOUR_S)
        await alpha.submit(["asked"], method=CONSOLE)
        await asyncio.sleep(HOUR_S)
        sends = len(world.sends("asked"))
        for _ in range(10):
            await mallory.say((said.subject, "", said.block, said.payload))
        assert len(world.sends("asked")) <= sends + 1
        assert counted(alpha) == {Fault.EXPIRED: 10}
        await beta.start()

    play(scenario)
