"""The receiving side, a process of its own as a second daemon would be; here also as the sending one sees it.

Its input is the order: it says when it is ready. It ends with its input: it does not outlive who started it.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec
import uvloop

from appliance.bench.sides import BenchOrder, find_cause, open_receiver, settle_process
from appliance.errors import (
    ApplianceError,
    BenchDenied,
    BenchFailed,
    BusError,
    BusUnauthorized,
    BusUnavailable,
)
from appliance.telemetry.logs import setup_logging

READY, DENIED, FAILED = "ready", "denied", "failed"
"""How its lines begin; after the last two it ends."""


class Receiver:
    """The other process, as the sending side has it. Life: `start` -> `hear` while it works -> the stack closes."""

    def __init__(self, order: BenchOrder) -> None:
        self._order = order
        self._process: Process

    async def start(self, stack: AsyncExitStack, state_dir: Path) -> None:
        """Returns when it takes messages. Raises BenchDenied, BenchFailed."""
        isolation = "-I" if sys.flags.isolated else "-P"
        command = (sys.executable, isolation, "-m", __name__, str(state_dir))
        # NB: in a session of its own, so that a Ctrl-C does not end it before the sending side
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        stack.push_async_callback(self._end)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._order) + b"\n")
        await self.hear()

    async def hear(self) -> None:
        """Returns when it is ready. Raises BenchDenied, BenchFailed when it ends by itself."""
        assert self._process.stdout is not None
        words = (await self._process.stdout.readline()).decode().rstrip()
        kind, _, text = words.partition(" ")
        if kind == DENIED:
            raise BenchDenied(self._order.pattern, text)
        if kind != READY:
            raise BenchFailed(f"the receiving side ended: {text}")

    async def _end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()  # NB: what it has on disk is thrown away
        await self._process.wait()


async def _serve(state_dir: Path) -> None:
    asked = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(asked)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    order = msgspec.json.decode(await asked.readline(), type=BenchOrder)
    async with AsyncExitStack() as stack:
        subscriber = await open_receiver(stack, order, state_dir)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(subscriber.run(), name="subscriber")
            await asyncio.sleep(0)  # a denial that came with the subscription ends it here
            print(READY, flush=True)  # noqa: T201
            await asked.readline()
            working.cancel()


def main() -> int:
    """Run as `python -m appliance.bench.receiver DIR`."""
    setup_logging("warning")
    settle_process()
    try:
        uvloop.run(_serve(Path(sys.argv[1])))
    except (ApplianceError, OSError, BaseExceptionGroup) as group:
        error = find_cause(group)
        is_away = isinstance(error, BusUnavailable | BusUnauthorized)
        is_denied = isinstance(error, BusError) and not is_away
        print(DENIED if is_denied else FAILED, " ".join(str(error).split()))  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
