"""A peer that means harm beside one that does not: `python -m tests.lab.hostile_peer [seconds] [seed]`.

Two daemons subscribe every method. One peer with the right to publish anything throws mutated, nested, forged and
repeated frames at them, the other node's daemon goes on sending numbered lines. At the end each line must stand there
exactly once, both daemons must be the processes that they were, small, quick to answer, and no log may hold a traceback.
"""

from __future__ import annotations

import asyncio
import collections
import sys
import tempfile
import threading
import time
from pathlib import Path

import nats
import nats.errors

from tests.lab.hostile_frames import Hostile
from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer
from tests.support.waiting import until
from tests.support.wire_cases import load_vectors

COMMON = """
      REQToFile: {{}}
      REQToFileAppend: {{}}
      REQToConsole: {{}}
      REQPing: {{}}
      REQPong: {{}}
      REQCopyFileFrom: {{allow_paths: ["{work}/**"]}}
      REQCopyFileTo: {{allow_paths: ["{work}/**"]}}
      REQToSocket: {{allow_paths: ["{work}/**"]}}
      REQTailFile: {{allow_paths: ["{work}/**"]}}
      REQHttpGet: {{allow_urls: ["http://127.0.0.1:1/**"]}}
      REQOpProcessList: {{}}
      REQOpProcessStart: {{}}
      REQOpProcessStop: {{}}
      REQRelay: {{relay_to: [ghost], relay_methods: any}}
      REQRelayInitial: {{}}
      REQCliCommand: {{allow_commands: [[echo, "**"]], allow_reply_methods: any}}
      REQCliCommandCont: {{allow_commands: [[sh, -c, "*"]], method_timeout: 2s}}
"""
CONFIG = (
    """
version: 1
broker: {{servers: ["{url}"]}}
reload: {{settle: 20ms}}
state: {{max_messages: 20000}}
defaults: {{ack: {{timeout: 2s, retries: 1000, expires: 1h}}}}
nodes:
  central:
    publish: {{lines: {{to: ship1, method: REQToFileAppend}}}}
    subscribe:
      REQErrorLog: {{}}
      REQHello: {{}}"""
    + COMMON
    + """
  ship1:
    subscribe:"""
    + COMMON
    + """
  ghost: {{}}
"""
)
LINES_PER_SECOND = 50
RELOAD_EVERY_S = 5.0
MAX_RSS_MIB = 400
SETTLE_S = 180.0


class GoodSender(threading.Thread):
    """Hands numbered lines to central, and reloads now and then, which heals what was stopped from afar."""

    def __init__(self, central: Appliance, ship1: Appliance) -> None:
        super().__init__(daemon=True)
        self.daemons = (central, ship1)
        self.accepted: list[str] = []
        self.refused = 0
        self.slowest_s = 0.0
        self.stopping = threading.Event()

    def run(self) -> None:
        number, reload_due = 0, time.monotonic() + RELOAD_EVERY_S
        while not self.stopping.wait(0.2):
            names = [f"line-{number + n}" for n in range(LINES_PER_SECOND // 5)]
            number += len(names)
            started = time.monotonic()
            code, body = self.daemons[0].request(
                "POST", "/api/v1/messages", list(map(_line, names)), timeout_s=120
            )
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            if code == 202:
                self.accepted += names
            else:
                self.refused += len(names)
                print("refused:", str(body)[:200], flush=True)
            if time.monotonic() > reload_due:
                reload_due = time.monotonic() + RELOAD_EVERY_S
                for daemon in self.daemons:
                    daemon.reload()


def _line(name: str) -> dict[str, object]:
    return {"from_node": "central", "to_nodes": ["ship1"], "method": "REQToFileAppend", "data": [f"{name}\n"],
            "directory": "good", "file_name": "lines"}  # fmt: skip


async def attack(url: str, hostile: Hostile, seconds: float, most: int, watch: Watch) -> int:
    """Publish as fast as the broker takes it, for so long or so many; how many frames that were."""

    async def ignore(_: Exception) -> None:
        pass

    client = await nats.connect(url, error_cb=ignore, pending_size=64 * 1024 * 1024)
    sent = refused = 0
    deadline = time.monotonic() + seconds
    for frame in hostile.frames():
        try:
            await client.publish(
                frame.subject, frame.payload, reply=frame.reply_to, headers=frame.headers or None
            )
            sent += 1
        except (nats.errors.Error, ValueError):
            refused += 1
        if (sent + refused) % 200 == 0:
            await client.flush(timeout=60)
            await asyncio.to_thread(watch.look)
            if time.monotonic() > deadline or sent >= most:
                break
    await client.flush(timeout=60)
    await client.close()
    return sent


class Watch:
    """Sizes of the daemons, and whether they live."""

    def __init__(self, daemons: tuple[Appliance, ...]) -> None:
        self.daemons = daemons
        self.peak_mib: dict[str, int] = {}
        self.due = 0.0
        self.slowest_answer_s = 0.0

    def look(self) -> None:
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + 1.0
        for daemon in self.daemons:
            assert daemon.process is not None
            assert daemon.process.poll() is None, daemon.log()
            facts = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
            rss_kib = next(int(line.split()[1]) for line in facts if line.startswith("VmHWM"))
            self.peak_mib[daemon.state.parent.name] = rss_kib // 1024
            started = time.monotonic()
            daemon.request("GET", "/livez", timeout_s=120)
            self.slowest_answer_s = max(self.slowest_answer_s, time.monotonic() - started)


def run(directory: Path, seed: int, *, seconds: float = 3600.0, most: int = 10**12) -> list[str]:
    """What went wrong."""
    work = directory / "work"
    work.mkdir()
    recorded = [
        raw for vector in load_vectors() for raw in (vector.cbor, vector.gob, vector.gob_zstd)
    ]
    with NatsServer() as broker:
        text = CONFIG.format(url=broker.url, work=work)
        central, ship1 = daemons = tuple(
            Appliance(text, directory / name, args=[f"--node={name}"])
            for name in ("central", "ship1")
        )
        central.only_named = ship1.only_named = True
        with central, ship1:
            watch, good = Watch(daemons), GoodSender(central, ship1)
            good.start()
            sent = asyncio.run(
                attack(
                    broker.url,
                    Hostile(seed, work=str(work), recorded=recorded),
                    seconds,
                    most,
                    watch,
                )
            )
            good.stopping.set()
            good.join()
            waiting = [daemon.status()["outbox"]["pending"] for daemon in daemons]
            problems = settle(good, daemons)
            watch.look()
            found = ship1.data("good", "ship1", "lines").read_text().splitlines()
            workers = [
                worker
                for daemon in daemons
                for node in daemon.status()["nodes"].values()
                for worker in node["workers"]
            ]
        counts = {
            name: sum(worker.get(name, 0) for worker in workers)
            for name in ("handled", "failed", "refused", "dropped")
        }
        print(
            f"{sent} frames, {len(good.accepted)} lines, {counts}",
            f"peak {watch.peak_mib} MiB, waiting for nodes that are away {waiting}",
            f"slowest accept {good.slowest_s:.2f} s, slowest answer {watch.slowest_answer_s:.2f} s",
            sep=", ",
        )
    return problems + judge(good, found, daemons, watch)


def settle(good: GoodSender, daemons: tuple[Appliance, ...]) -> list[str]:
    """Heal what was stopped, then wait until the last line is delivered and written.

    What the hostile peer had begun beside them, as a tail, may last as long as it asked for.
    """
    central, ship1 = daemons

    def is_settled() -> bool:
        for daemon in daemons:
            daemon.reload()
        waiting = central.request("GET", "/api/v1/outbox?limit=1000")[1]["records"]
        # delivered means taken: the handler comes after that
        at_work = ship1.request("GET", "/api/v1/inbox?limit=1000")[1]["records"]
        lines = [record for record in waiting if record["to"] == "ship1"] + at_work
        return not any(record["method"] == "REQToFileAppend" for record in lines)

    try:
        until(is_settled, timeout_s=SETTLE_S, every_s=0.1)
    except AssertionError as error:
        worker = central.worker("ship1.REQToFileAppend.EventACK_publisher")
        return [f"{error}: {worker}"]
    return []


def judge(
    good: GoodSender, found: list[str], daemons: tuple[Appliance, ...], watch: Watch
) -> list[str]:
    """Every reason why this run is no good one."""
    counts = collections.Counter(found)
    problems = []
    lost = [name for name in good.accepted if not counts[name]]
    doubled = [name for name in good.accepted if counts[name] > 1]
    if lost or doubled:
        problems.append(f"{len(lost)} lost {lost[:3]}, {len(doubled)} doubled {doubled[:3]}")
    if good.refused:
        problems.append(f"{good.refused} lines were not accepted")
    for daemon in daemons:
        log = daemon.log_path.read_text(errors="replace")
        problems += [f"{daemon.state.parent.name}: {line[:300]}" for line in log.splitlines()
                     if "Traceback" in line or "internal error" in line or "never awaited" in line][:20]  # fmt: skip
    problems += [f"{name}: {mib} MiB" for name, mib in watch.peak_mib.items() if mib > MAX_RSS_MIB]
    return problems


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 180.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as directory:
        problems = run(Path(directory), seed, seconds=seconds)
    print(*problems, sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
