"""A daemon with one deliberate defect: it acknowledges before anything is committed, and keeps nothing on disk."""

from __future__ import annotations

import asyncio

from appliance.core.specs import AckOn
from appliance.delivery.base import Confirmation
from appliance.dialect.base import Answer, AnswerKind
from appliance.workers.taking_in import TakingIn


async def _take_in_after_acknowledging(self, works):  # type: ignore[no-untyped-def]
    taken = Answer(AnswerKind.TAKEN)
    self._intake.confirm(
        [
            Confirmation(reply_to, work.message_id, taken, work.identity.hears, work.signer)
            for work in works
            for reply_to in work.reply_tos
        ]
    )
    for work in works:
        work.reply_tos.clear()
        work.is_taken = True
        work.ack_on = AckOn.RECEIVED
    # the wider the window between the promise and the effect, the surer the harness meets it
    self._committing = 0
    asyncio.get_running_loop().call_later(0.3, self._executor.enqueue, works)


TakingIn._take_in = _take_in_after_acknowledging  # type: ignore[method-assign]

if __name__ == "__main__":
    from appliance.__main__ import main

    main()
