"""Two daemons, `central` and `ship1`, on one broker, for copies between them; ship1's link can be cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support import forked
from tests.support.appliance import Appliance, settle
from tests.support.cut_link import CutLink
from tests.support.nats_server import NatsServer

CONFIG = """
version: 1
broker: {{servers: ["{url}"], ping_interval: 1s, reconnect_wait: 100ms}}
defaults: {{serialization: {serialization}, compression: {compression}, ack: {{timeout: 1s}}}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m}}
nodes:
  central:
    subscribe:
      REQErrorLog: {{}}
      REQToFileAppend: {{}}
      REQCopyFileTo: {{accept_from: [ship1, away, bare, goer], allow_paths: ["{root}/central/**"]}}
      REQCopyFileFrom: {{allow_paths: ["{root}/central/**"]}}
  ship1:
    subscribe:
      REQPing: {{}}
      REQToFileAppend: {{}}
      REQCopyFileTo: {{allow_paths: ["{root}/ship1/**"]}}
      REQCopyFileFrom: {{allow_paths: ["{root}/ship1/**"]}}
  away: {{subscribe: {{REQPing: {{}}, REQCopyFileTo: {{}}, REQCopyFileFrom: {{}}}}}}
  bare: {{subscribe: {{REQPing: {{}}}}}}
  goer: {{}}
"""


class CopyFleet:
    """Both daemons, the link between ship1 and the broker, and the directories that may be copied from and to."""

    def __init__(
        self, central: Appliance, ship: Appliance, link: CutLink, root: Path, url: str
    ) -> None:
        self.central, self.ship, self.link, self.root = central, ship, link, root
        self.url = url

    def at(self, node: str, name: str) -> Path:
        """A file of a node."""
        return self.root / node / name

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        """A command of ours, talking to central."""
        environment = {**os.environ, "APPLIANCE_STATE_DIR": str(self.central.state)}
        return forked.run(arguments, env=environment, timeout=100, **options)

    def settle(self) -> None:
        """Until nothing is on its way any more."""
        settle(self.central, self.ship)

    def leftovers(self) -> list[str]:
        """Parts of files and files on their way that nobody needs any more."""
        places = [self.root, self.central.state / "copies", self.ship.state / "copies"]
        parts = [path for path in self.root.rglob("*") if ".appl-part-" in path.name]
        parts += [path for place in places[1:] for path in place.rglob("*") if path.is_file()]
        return sorted(map(str, parts))


@contextlib.contextmanager
def copy_fleet(
    directory: Path, *, serialization: str = "cbor", compression: str = "none", broker: str = ""
) -> Iterator[CopyFleet]:
    """Start everything; end it in the end."""
    with NatsServer(broker) as server, CutLink(server.port) as link:
        for node in ("central", "ship1"):
            (directory / "files" / node).mkdir(parents=True)

        def make(node: str, url: str) -> Appliance:
            text = CONFIG.format(
                url=url,
                serialization=serialization,
                compression=compression,
                root=directory / "files",
            )
            daemon = Appliance(text, directory / node, args=["--node", node])
            daemon.only_named = True
            return daemon

        central = make("central", server.url)
        ship = make("ship1", f"nats://127.0.0.1:{link.port}")
        with central, ship:
            yield CopyFleet(central, ship, link, directory / "files", server.url)


def write_random(path: Path, size: int, seed: int = 1) -> str:
    """A file that no compression makes smaller; its SHA-256."""
    rng = random.Random(seed)
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        while size > 0:
            block = rng.randbytes(min(size, 1_048_576))
            file.write(block)
            hasher.update(block)
            size -= len(block)
    return hasher.hexdigest()


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
