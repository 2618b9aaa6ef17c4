"""A daemon with one deliberate defect: it acknowledges before anything is committed, and keeps nothing on disk."""

from __future__ import annotations

from appliance.core.specs import AckOn
from appliance.outbox.records import TakeInResult
from appliance.workers.subscriber import Subscriber


async def _take_in_after_acknowledging(self, works):  # type: ignore[no-untyped-def]
    for work in works:
        await self._handling.acknowledge(work)
        work.payload = b""
        work.is_taken = True
        work.ack_on = AckOn.RECEIVED
    self._handling.enqueue(works)
    return TakeInResult.FRESH


Subscriber._take_in = _take_in_after_acknowledging  # type: ignore[method-assign]

if __name__ == "__main__":
    from appliance.__main__ import main

    main()
