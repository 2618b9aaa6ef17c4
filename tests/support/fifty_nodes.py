"""Fifty nodes in five daemons around one embedded broker: five are away, two are slow, one fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.appliance import Appliance

SHIPS = [f"ship{number}" for number in range(1, 51)]
AWAY = SHIPS[45:]
SLOW = ["ship7", "ship31"]
FAILING = ["ship13"]
WELL = [ship for ship in SHIPS if ship not in {*AWAY, *SLOW, *FAILING}]
DAEMONS = {"central": ["central"], "one": WELL[:21], "two": WELL[21:], "slow": SLOW, "bad": FAILING}
PROGRAM = [
    "sh",
    "-c",
    'case $KIND in slow) sleep 1;; bad) echo "disk full" >&2; exit 2;; esac; echo restarted',
]

FLEET = """
version: 1
broker: {{BROKER}}
reload: {{watch: false, poll_interval: 10m}}
roles:
  ship:
    subscribe:
      REQCliCommand: {{accept_from: [central], allow_commands: any, pass_environment: [KIND]}}
nodes:
  central: {{subscribe: {{REQToFileAppend: {{}}, REQErrorLog: {{}}, REQHello: {{}}}}}}
{ships}
"""


@contextlib.contextmanager
def fifty_nodes(directory: Path) -> Iterator[Appliance]:
    """All five daemons; gives the one that asks."""
    ships = "\n".join(
        f"  {ship}: {{roles: [ship], labels: {{site: {'oslo' if at % 2 else 'rome'}}}}}"
        for at, ship in enumerate(SHIPS)
    )
    text = FLEET.format(ships=ships)
    broker = "embedded: true"
    with contextlib.ExitStack() as stack:
        daemons = {}
        for name, nodes in DAEMONS.items():
            args = [word for node in nodes for word in ("--node", node)]
            daemon = Appliance(text.replace("BROKER", broker), directory / name, args=args)
            daemon.only_named = True
            daemon.environment = {"KIND": name}
            daemons[name] = stack.enter_context(daemon)
            broker = f'servers: ["{daemons["central"].status()["broker"]["server"]}"]'
        yield daemons["central"]
