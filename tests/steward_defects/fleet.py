"""A fleet of real daemons and a client that knows only the wire, for provoking the original's defects."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import cbor2
import nats

from tests.support.appliance import Appliance
from tests.support.bare_publisher import seed_message

CONFIG = """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 1ms, watch: false, poll_interval: 10m, drain_timeout: 3s}}
limits: {{max_decompressed_bytes: 2000000, error_reports_per_minute: 10000}}
defaults: {{ack: {{timeout: 5s}}}}
nodes:
  central:
    subscribe:
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQErrorLog: {{}}
      REQHello: {{}}
      REQPong: {{}}
      REQToConsole: {{}}
      REQOpProcessStart: {{}}
      REQOpProcessStop: {{}}
    publish:
      files: {{to: ship1, method: REQToFile}}
      impatient: {{to: mute, method: REQToFile, ack: {{timeout: 100ms, retries: 1}}}}
      hesitant: {{to: mute, method: REQToFileAppend, ack: {{timeout: 100ms, retries: 2, retry_wait: 400ms}}}}
      lines: {{to: strict, method: REQToFileAppend, window: 1}}
      hello: {{to: central, method: REQHello, every: 1h}}
  ship1:
    subscribe:
      REQCliCommand:
        accept_from: [central]
        allow_commands: [[echo, "**"], [sh, -c, "*"], [sleep, "*"], [env]]
        method_timeout: 10s
      REQCliCommandCont: {{allow_commands: [[sh, -c, "*"]]}}
      REQTailFile: {{allow_paths: ["{work}/**"]}}
      REQHttpGet: {{allow_urls: ["http://127.0.0.1:{port}/**"], method_timeout: 10s}}
      REQCopyFileFrom: {{allow_paths: ["{work}/**"]}}
      REQCopyFileTo: {{allow_paths: ["{work}/**"]}}
      REQToSocket: {{allow_paths: ["{work}/**"]}}
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQToConsole: {{}}
      REQPing: {{}}
      REQOpProcessList: {{}}
      REQOpProcessStart: {{}}
      REQOpProcessStop: {{}}
  careful: {{subscribe: {{REQToFile: {{ack: {{on: done}}}}}}}}
  narrow: {{subscribe: {{REQCliCommand: {{concurrency: 2, allow_commands: [[sh, -c, "*"]]}}}}}}
  strict: {{subscribe: {{REQToFileAppend: {{concurrency: 1}}}}}}
  gateway: {{subscribe: {{REQRelay: {{relay_to: [ship8], relay_methods: any}}}}}}
  ship8: {{}}
  ship9: {{}}
  via.one: {{subscribe: {{REQRelay: {{relay_to: [end.two.three], relay_methods: any}}}}}}
  end.two.three: {{subscribe: {{REQToFile: {{}}}}}}
  ghost: {{}}
  mute: {{subscribe: {{REQToFile: {{}}, REQToFileAppend: {{}}}}}}
"""

NODES = (
    "central",
    "ship1",
    "careful",
    "narrow",
    "strict",
    "gateway",
    "via.one",
    "end.two.three",
    "ghost",
)
"""What the daemon runs; `mute` is a node of somebody else's."""
MUTE = "mute.REQToFile.EventACK"


class Fleet:
    """One daemon with all nodes, its broker, and a folder that its methods may work in."""

    def __init__(self, daemon: Appliance, url: str, work: Path) -> None:
        self.daemon = daemon
        self.url = url
        self.work = work

    # -- as an operator -----------------------------------------------------------------------------

    def send(self, method: str, *arguments: str, to: str = "ship1", **fields: object) -> list[dict]:
        """Hand a message of central's over."""
        return self.daemon.send(self._message(method, arguments, to, fields))

    def ask(self, method: str, *arguments: str, to: str = "ship1", **fields: object) -> str:
        """Send and follow to the end: the lines that tell it."""
        return self.daemon.follow(self._message(method, arguments, to, fields))

    def _message(self, method, arguments, to, fields):
        return {"from_node": "central", "to_nodes": [to], "method": method, "method_args": list(arguments),
                "directory": "out", "file_name": f"{method}.out", **fields}  # fmt: skip

    def pending(self) -> list[int]:
        """Ids of what waits in the outbox."""
        return [record["id"] for record in self._outbox("pending")]

    def dead(self) -> list[int]:
        """Ids of dead letters."""
        return [record["id"] for record in self._outbox("dead")]

    def _outbox(self, state: str) -> list[dict]:
        return self.daemon.request("GET", f"/api/v1/outbox?state={state}&limit=1000")[1]["records"]

    def wait_dead(self, *sent: dict) -> list[dict]:
        """The dead letters that these messages became, once they have."""
        ids = {item["id"] for item in sent}

        def letters():
            return [record for record in self._outbox("dead") if record["id"] in ids]

        self.daemon.wait_until(lambda _: len(letters()) == len(ids))
        return letters()

    def drop(self, *sent: dict) -> None:
        """Take messages back."""
        ids = [item["id"] for item in sent]
        self.daemon.request("POST", "/api/v1/outbox/drop", {"ids": ids, "pending": True})

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self.daemon.wait_until(
            lambda status: status["outbox"]["pending"] == 0 and status["inbox"]["unfinished"] == 0
        )

    def file(self, *parts: str) -> Path:
        """A file of the data directory."""
        return self.daemon.data(*parts)

    def wait_for(self, path: Path, text: str = "") -> str:
        """The content of a file once it is there and holds `text`."""
        self.daemon.wait_until(lambda _: path.exists() and text in path.read_text(errors="replace"))
        return path.read_text(errors="replace")

    def error_log(self, text: str) -> str:
        """The error log once it holds `text`."""
        return self.wait_for(self.file("errorLog", "errorCentral", "error.log"), text)

    def assert_alive(self) -> None:
        """A command still runs and answers."""
        assert '"exit_status":"0"' in self.ask(
            "REQCliCommand", "echo", "alive", file_name="alive.out"
        )

    # -- as a peer on the bus ------------------------------------------------------------------------

    def publish(
        self, subject: str, message: list, *, wait_s: float = 0.0, headers=None
    ) -> str | None:
        """Publish one message in the seed's layout; the acknowledgement, or None when none came in `wait_s`."""
        return asyncio.run(
            self.exchange(subject, cbor2.dumps(message), wait_s=wait_s, headers=headers)
        )

    async def exchange(self, subject, payload, *, wait_s=0.0, headers=None) -> str | None:
        async with self.client() as client:
            reply = f"{subject}.reply"
            answers: asyncio.Queue = asyncio.Queue()
            await client.subscribe(reply, cb=answers.put)
            await client.publish(
                subject, payload, reply=reply, headers={"serial": "cbor", **(headers or {})}
            )
            await client.flush()
            if not wait_s:
                return None
            try:
                async with asyncio.timeout(wait_s):
                    return (await answers.get()).data.decode()
            except TimeoutError:
                return None

    def give_up(self, **fields):
        """A message that `mute` hears and never acknowledges: its dead letter, and the attempts that were heard."""
        return self.listen(
            MUTE,
            lambda: self.wait_dead(*self.send("REQToFile", data=["x"], to="mute", **fields))[0],
        )

    @contextlib.asynccontextmanager
    async def client(self):
        """A peer without manners: the wire and nothing else."""
        client = await nats.connect(self.url)
        try:
            yield client
        finally:
            await client.close()

    def listen(self, subject: str, act, *, wait_s: float = 30.0):
        """What `act` gives, called in a thread while a peer hears a subject and answers nothing; and what it heard."""

        async def hear_and_act():
            heard = []

            async def hear(message):
                heard.append(message)

            async with self.client() as client:
                await client.subscribe(subject, cb=hear)
                await client.flush()
                async with asyncio.timeout(wait_s):
                    found = await asyncio.to_thread(act)
                await client.flush()
            return found, heard

        return asyncio.run(hear_and_act())


def body(to: str, sender: str, method: str, data=None, **fields: object) -> list:
    """A message in the seed's layout; `previous` and relay fields by name."""
    named = {"is_reply": 8, "previous": 18, "via": 19, "original_via": 20, "relay_from": 21, "relay_to": 22,
             "original_method": 23, "relay_reply": 24, "reply_method_args": 7}  # fmt: skip
    late = {named[name]: fields.pop(name) for name in list(fields) if name in named}
    message = seed_message(to, sender, method, data, **fields)
    for position, value in late.items():
        message[position] = value
    return message


def line(number, to="b"):
    return {
        "to_nodes": [to],
        "method": "REQToFileAppend",
        "data": [f"{number}\n"],
        "file_name": "order",
    }


def wait_for_lines(daemon, file, count):
    daemon.wait_until(lambda _: file.exists() and len(file.read_text().split()) >= count)
    return file.read_text().split()


def numbers(count):
    return [str(number) for number in range(count)]
