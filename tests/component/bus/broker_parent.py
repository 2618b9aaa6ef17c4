"""Starts an embedded broker, prints its pid and address, and waits to be killed (run by test_broker)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from appliance.bus.broker import EmbeddedBroker


async def main() -> None:
    broker = EmbeddedBroker(Path(sys.argv[1]))
    await broker.start()
    print(broker.pid, broker.url, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
