"""Worlds that the component tests of the heart share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from appliance.workers.peers import FACT_KIND as PEERS
from tests.support.heart_world import Daemon, World, quiet_logs
from tests.support.virtual_time import run_virtual

CONFIG = """
version: 1
broker: {{servers: ["nats://127.0.0.1:4222"]}}
defaults: {{{defaults}}}
nodes:
  alpha:
    subscribe:
      REQToFileAppend: {{accept_from: any}}
      REQErrorLog: {{accept_from: any}}
      REQHello: {{accept_from: any}}
  beta:
    subscribe:
      REQToConsole: {{accept_from: [alpha]{events}}}
      REQCliCommand: {{accept_from: [alpha], allow_commands: any, method_timeout: 2h, ack: {{on: done}}{commands}}}
  go: {{}}
"""
"""`alpha` sends, `beta` takes: events acknowledged when received, commands when done. `go` is somebody else's node."""

Scenario = Callable[[World], Coroutine[Any, Any, None]]


def config(*, defaults: str = "", events: str = "", commands: str = "") -> str:
    """The config with more settings in some places; those of subscriptions begin with a comma."""
    return CONFIG.format(defaults=defaults, events=events, commands=commands)


async def add_pair(
    world: World, text: str | None = None, *, met: bool = True
) -> tuple[Daemon, Daemon]:
    """The two daemons. With `met` each knows already that the other is an appliance."""
    text = text or config()
    alpha = await world.add_daemon("alpha", text, ["alpha"], start=False)
    beta = await world.add_daemon("beta", text, ["beta"], start=False)
    for daemon, peer in ((alpha, "beta"), (beta, "alpha")):
        if met:
            daemon.disk.facts[PEERS] = {peer: "1"}
        await daemon.start()
    return alpha, beta


def play(scenario: Scenario, *, seed: int = 1) -> None:
    """Run a scenario in a world of its own."""

    async def run() -> None:
        async with World(seed) as world:
            await scenario(world)

    with quiet_logs():
        run_virtual(run(), seed=seed)


def numbered(count: int, name: str = "m") -> list[str]:
    """Texts of so many messages."""
    return [f"{name}{number}" for number in range(count)]
