"""A real Chromium without a window, a daemon for it to look at, and what the page said on its console."""

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cbor2
import nats

from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message

TOKEN = "open, sesame"
DESKTOP = {"width": 1360, "height": 900}
PHONE = {"width": 360, "height": 740}


def find_chromium() -> str | None:
    """Debian's Chromium, or what stands under its names elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def find_free_port() -> int:
    """A port that is free now; a daemon that is started again must be found where it was."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def open_browser() -> Iterator:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # NB: the sandbox needs rights that a container's root does not have; the page is our own
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--process-per-site"],
        )
        try:
            yield browser
        finally:
            browser.close()


FLEET = """
version: 1
broker: {{embedded: true}}
reload: {{settle: 20ms}}
admin: {{listen: "127.0.0.1:{port}", token: {{file: {token}}}}}
defaults: {{ack: {{timeout: 1s, retries: 1}}}}
methods:
  Echo:
    summary: Say it again
    exec: [echo, "{{args.0}}"]
    allow_options: true
    args: {{type: array, prefixItems: [{{title: words}}], minItems: 1, items: false}}
  Moan: {{summary: Fail with a word, exec: [sh, -c, "echo moan >&2; exit 3"]}}
  Slow: {{summary: Take its time, exec: [sleep, "3"]}}
roles:
  ship:
    subscribe:
      REQPing: {{}}
      REQToFileAppend: {{}}
      Echo: {{accept_from: [central]}}
      Moan: {{accept_from: [central]}}{ship}
    publish: {{hello: {{to: central, method: REQHello, every: 1s, data: ["Hello\\n"]}}}}
nodes:
  central:
    subscribe: {{REQErrorLog: {{}}, REQHello: {{}}, REQToFileAppend: {{}}, REQPong: {{}}{central}}}
  ship1: {{roles: [ship]}}
  ship2: {{roles: [ship]}}
  ship3: {{roles: [ship]}}  # runs elsewhere, if at all
"""


class WatchedFleet:
    """A daemon with three nodes and a page, whose config is written by part."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.token = directory / "token"
        self.token.write_text(TOKEN)
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.daemon = Appliance(self.text(), directory)
        self.daemon.only_named = True
        self.daemon.args = [
            word for node in ("central", "ship1", "ship2") for word in ("--node", node)
        ]

    def text(self, *, ship: str = "", central: str = "") -> str:
        """The config, with more subjects of the ships (as lines) or of central (inline)."""
        ship = "".join(f"\n      {line}" for line in ship.splitlines())
        return FLEET.format(
            port=self.port, token=self.token, ship=ship, central=f", {central}" if central else ""
        )

    def bare_text(self) -> str:
        """The config with ships that subscribe nothing: more workers would go than may go at once."""
        return re.sub(r"    subscribe:\n(      .*\n)+", "", self.text())

    def write(self, **more: str) -> None:
        """Bring this config into force, or into the files at least."""
        self.daemon.write_config(self.text(**more))

    def restore(self) -> None:
        """Back to the plain config, nothing pinned, nothing refused, no dead letters."""
        self.write()
        self.daemon.reload(force=True)
        _, found = self.daemon.request("GET", "/api/v1/outbox")
        ids = [record["id_text"] for record in found["records"] if record["to"] == "ghost"]
        self.daemon.request("POST", "/api/v1/outbox/drop", {"ids": ids, "pending": True})
        self.daemon.request("POST", "/api/v1/outbox/drop", {})
        self.daemon.wait_until(lambda status: status["healthy"] and not status["config"]["pinned"])

    def hello(self, node: str, report: str) -> None:
        """Say hello as a node that runs elsewhere, with this report of its config."""
        url = self.daemon.status()["broker"]["server"]
        message = cbor2.dumps(seed_message("central", node, "REQHello", ["Hello\n"]))
        headers = {"serial": "cbor", "appl-hello": report}

        async def publish() -> None:
            client = await nats.connect(url)
            await client.publish("central.REQHello.EventNACK", message, headers=headers)
            await client.drain()

        # NB: Playwright's loop runs in this thread
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(publish())).result()


class Console:
    """What a page complained about."""

    def __init__(self, page) -> None:
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")
