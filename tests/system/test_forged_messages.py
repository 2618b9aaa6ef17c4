"""Two daemons that sign, on a broker where everybody may do everything, and somebody who has heard what they said.

Whatever he makes of it does not count, for a reason that metrics and status tell, and what is honest goes on.
"""

import asyncio
import contextlib
import time

import pytest

from appliance.bus.nats import NatsBus
from appliance.core.signatures import Fault
from appliance.core.specs import BrokerSettings
from tests.support.appliance import PLAIN_COMMAND, Appliance
from tests.support.faked_clock import FakedClock, find_library
from tests.support.forgery import ATTACKS, COMMANDS, DAY_S, HOUR_S, KEYS, SEEDS, unsigned
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

CONFIG = """
version: 1
broker: {{servers: ["{url}"], reconnect_wait: 50ms}}
signing: {{key: {{file: {seed}}}}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
defaults: {{signatures: {policy}, ack: {{timeout: 1s}}}}
nodes:
  alpha: {{public_keys: [{alpha}], subscribe: {{REQErrorLog: {{}}, REQToFileAppend: {{}}}}}}
  beta:
    public_keys: [{beta}]
    subscribe:
      REQCliCommand: {{accept_from: [alpha, gamma], allow_commands: [[echo, "**"]]}}
      REQToConsole: {{accept_from: [alpha, gamma]}}
  gamma: {{public_keys: [{gamma}]}}
"""


class Scene:
    """alpha, beta and their broker."""

    def __init__(self, directory, policy):
        self.directory = directory
        self.policy = policy
        self.commands = 0

    @contextlib.contextmanager
    def started(self, **of_beta):
        with contextlib.ExitStack() as stack:
            self.broker = stack.enter_context(NatsServer())
            daemons = []
            for node in ("alpha", "beta"):
                seed = self.directory / f"{node}.nk"
                seed.write_text(SEEDS[node])
                seed.chmod(0o600)
                text = CONFIG.format(url=self.broker.url, seed=seed, policy=self.policy, **KEYS)
                daemon = Appliance(
                    text,
                    self.directory / node,
                    args=["--node", node],
                    command=of_beta.get("command") if node == "beta" else None,
                )
                daemon.environment = of_beta.get("environment", {}) if node == "beta" else {}
                daemon.only_named = True
                daemons.append(stack.enter_context(daemon))
            self.alpha, self.beta = daemons
            yield self

    @contextlib.asynccontextmanager
    async def mallory(self):
        """A bus with every right, and what it hears of commands."""
        bus = await NatsBus.open(BrokerSettings(servers=(self.broker.url,)), name="mallory")
        heard = []
        try:
            await bus.subscribe(COMMANDS, heard.extend)
            yield bus, heard
        finally:
            await bus.close()

    async def command(self):
        """An honest one is done."""
        before = self.handled()
        self.alpha.send(
            {
                "from_node": "alpha",
                "to_nodes": ["beta"],
                "method": "REQCliCommand",
                "method_args": ["echo", "a", "b"],
            }
        )
        await until_async(lambda: self.handled() == before + 1, every_s=0.02, tell=self.beta.log)
        await until_async(lambda: not self.alpha.status()["outbox"]["pending"], every_s=0.02)

    async def heard_command(self, heard):
        await self.command()
        await until_async(lambda: heard)
        one = heard[-1]
        return (COMMANDS, one.reply_to, one.block, one.payload)

    def handled(self):
        return self.beta.worker(f"{COMMANDS}_subscriber")["handled"]

    def repeats(self):
        return self.beta.worker(f"{COMMANDS}_subscriber")["repeats"]

    def refused(self):
        counts = self.beta.status()["signatures"]["refused"]
        return {reason: count for reason, count in counts.items() if count}

    async def refuses(self, bus, frame, fault):
        """It does not count, and that is told."""
        before, handled = self.refused(), self.handled()
        bus.send([frame])
        wanted = {**before, fault.value: before.get(fault.value, 0) + 1}
        await until_async(lambda: self.refused() == wanted, every_s=0.02, tell=self.beta.log)
        assert self.handled() == handled
        metrics = self.beta.request("GET", "/metrics")[1]
        assert f'appliance_signatures_refused_total{{reason="{fault.value}"}} ' in metrics

    async def repeats_one(self, bus, frame):
        """It is known, and done no second time."""
        repeats, handled = self.repeats(), self.handled()
        bus.send([frame])
        await until_async(lambda: self.repeats() == repeats + 1, every_s=0.02, tell=self.beta.log)
        assert self.handled() == handled


@pytest.fixture(scope="module", params=["prefer", "require"])
def scene(request, tmp_path_factory):
    with Scene(tmp_path_factory.mktemp("forged"), request.param).started() as found:
        yield found


@pytest.mark.parametrize("name", ATTACKS)
async def test_what_is_made_of_a_message_does_not_count_and_is_told(scene, name):
    attack = ATTACKS[name]
    async with scene.mallory() as (bus, heard):
        frame = await scene.heard_command(heard)
        await scene.refuses(bus, attack.make(frame, time.time()), attack.fault)
        await scene.command()
    assert scene.beta.status()["healthy"]


async def test_a_signature_taken_away_is_told_as_that(scene):
    fault = Fault.UNSIGNED if scene.policy == "require" else Fault.DOWNGRADE
    async with scene.mallory() as (bus, heard):
        subject, reply_to, block, payload = await scene.heard_command(heard)
        await scene.refuses(bus, (subject, reply_to, unsigned(block), payload), fault)
        await scene.command()


@pytest.mark.skipif(find_library() is None, reason="no libfaketime")
async def test_what_was_heard_is_good_once_over_restarts_and_whatever_the_clock_does(tmp_path):
    clock = FakedClock(tmp_path / "clock")
    scene = Scene(tmp_path, "require")
    with scene.started(command=PLAIN_COMMAND, environment=clock.environment):
        async with scene.mallory() as (bus, heard):
            frame = await scene.heard_command(heard)
            await scene.repeats_one(bus, frame)
            await asyncio.to_thread(restart, scene.beta)
            await scene.repeats_one(bus, frame)
            clock.set(-HOUR_S)
            await scene.refuses(bus, frame, Fault.AHEAD)
            for later_s in (HOUR_S, 3 * DAY_S):
                clock.set(later_s)
                await scene.refuses(bus, frame, Fault.EXPIRED)
            await asyncio.to_thread(restart, scene.beta)
            await scene.refuses(bus, frame, Fault.EXPIRED)
            clock.set(0)
            await scene.command()
            await scene.repeats_one(bus, frame)


def restart(daemon):
    assert daemon.stop() == 0
    daemon.start()
