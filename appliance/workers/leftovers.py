"""What an earlier run or another worker took in and did not finish: claimed, and run or reported as interrupted."""

from __future__ import annotations

import asyncio

from appliance.bus.base import BusMessage
from appliance.core.message import make_reply
from appliance.core.outcome import INTERRUPTED
from appliance.core.specs import AckOn
from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.headers import LENT_PREFIX
from appliance.errors import BusError, StoreError
from appliance.methods.base import FilePosition
from appliance.methods.programs.running import CALLED_OFF
from appliance.outbox.records import (
    CALLED_OFF_NOTE,
    DONE_VERDICT,
    FinishItem,
    InboxRow,
    OutboxRecord,
)
from appliance.workers.executor import Executor
from appliance.workers.first_answers import FirstAnswers
from appliance.workers.incoming import Entrance, Incoming, Refusal
from appliance.workers.reply_policy import Turns
from appliance.workers.services import STORE_RETRY_S, WorkerServices

INTERRUPTED_WORDS = f"{INTERRUPTED}the appliance stopped while it ran; it was not run again"
CALLED_OFF_IN_VAIN = (
    "cancelled; the appliance stopped before it had ended, and did not run it again"
)
"""Of what would have run again: whether it had begun is on no disk."""


class Leftovers:
    """Of one subscriber: rows of the inbox for its node and method, in whose hands they are not yet."""

    def __init__(
        self,
        executor: Executor,
        services: WorkerServices,
        *,
        intake: Intake,
        entrance: Entrance,
        answers: FirstAnswers,
    ) -> None:
        self._executor = executor
        self._services = services
        self._intake = intake
        self._entrance = entrance
        self._answers = answers
        self._adopting: set[asyncio.Task[None]] = set()

    def watch(self) -> None:
        """From now on rows that another worker leaves are ours."""
        self._services.inbox.own(self._executor.scope, self._adopt)

    def stop(self) -> None:
        """Claim nothing more."""
        for task in self._adopting:
            task.cancel()

    def unwatch(self) -> None:
        """Rows that are left from now on are another worker's."""
        self._services.inbox.disown(self._executor.scope, self._adopt)

    def _adopt(self) -> None:
        """Another worker has left rows of ours on disk."""
        task = asyncio.get_running_loop().create_task(
            self._claim_guarded(), name=f"adopt rows for {self._executor.spec.key.name}"
        )
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _claim_guarded(self) -> None:
        while True:
            try:
                await self.claim()
                return
            except (StoreError, BusError) as error:
                self._services.telemetry.worker_troubled(
                    self._executor.spec.key, f"cannot take over messages: {error}"
                )
                if not error.retryable:
                    return
            await asyncio.sleep(STORE_RETRY_S)

    async def claim(self) -> None:
        """Take what nobody has in hand. Raises StoreError, BusError."""
        spec = self._executor.spec
        rows = await self._services.inbox.claim(spec.node, spec.method, self._executor.scope)
        rows = await self._those_of_ours(rows)
        self._executor.finishing.rows.update(row.row_id for row in rows)
        for at, row in enumerate(rows):
            try:
                await self._resume(row)
            except StoreError:
                left = {one.row_id for one in rows[at:]}
                # what was not resumed stays on disk for the next claim
                self._services.inbox.held -= left
                self._executor.finishing.rows -= left
                raise

    async def _those_of_ours(self, rows: list[InboxRow]) -> list[InboxRow]:
        """Leave out, and forget, what another daemon of this node has taken over since."""
        asked = [row for row in rows if row.reply_to]
        if not asked:
            return rows
        try:
            ours = await self._intake.claim([row.reply_to for row in asked])
        except BusError:
            self._services.inbox.held -= {row.row_id for row in rows}
            raise
        gone = {row.row_id for row, is_ours in zip(asked, ours, strict=True) if not is_ours}
        for row in asked:
            if row.row_id in gone:
                await self._end_row(row, DONE_VERDICT, ())
        return [row for row in rows if row.row_id not in gone]

    async def _resume(self, row: InboxRow) -> None:
        executor = self._executor
        spec = executor.spec
        work = self._admit(row)
        if isinstance(work, Refusal):
            self._answers.refuse(work, "", [])
            await self._end_row(row, f"refused: {work.reason}", ())
            return
        work.row_id = row.row_id
        work.is_taken = True
        if row.reply_to:
            work.reply_tos.append(row.reply_to)
        if row.note and row.note != CALLED_OFF_NOTE:
            work.resume = FilePosition.from_note(row.note)
        if row.started and executor.runs_once:
            self._services.telemetry.message_interrupted(spec.key, row.sender, work.message_id)
            await self._end_with(row, work, INTERRUPTED_WORDS)
            return
        if row.note == CALLED_OFF_NOTE:
            why = CALLED_OFF if executor.runs_once else CALLED_OFF_IN_VAIN
            await self._end_with(row, work, why)
            return
        key = work.key
        if key is not None and spec.dedupe:
            self._executor.finishing.active[key] = work
        if work.ack_on is AckOn.RECEIVED:
            work.reply_tos.clear()
        else:
            self._executor.will_tell(work, [])
        work.measure()
        work.put_aside()
        self._executor.waiting.add(work)
        self._executor.enqueue([work])

    def _admit(self, row: InboxRow) -> Incoming | Refusal:
        # NB: without its reply subject, which may stand below a subject of another kind and was admitted with that
        delivery = BusMessage(self._executor.spec.subject, row.payload, row.block)
        if row.instance is not None and row.instance.startswith(LENT_PREFIX):
            delivery.origin = (row.instance, row.message_id)
        entrance = self._entrance
        return entrance.current().admit(delivery, entrance.handler, is_known=True)

    async def _end_with(self, row: InboxRow, work: Incoming, text: str) -> None:
        """This is not run, or not again: say why, to errorCentral and to the requester."""
        message = work.message
        assert message is not None
        self._services.error_reports.report(
            self._executor.spec.node, f"{message.method} {message.id} {text}", method=message.method
        )
        replies: tuple[OutboxRecord, ...] = ()
        if self._executor.method.value.info.replies and not message.is_reply:
            reply = make_reply(message, self._executor.spec.node, "")
            replies = self._executor.reply_builder.failure_records(reply, text, Turns())
        await self._end_row(row, f"failed: {text}", replies)
        if work.ack_on is AckOn.DONE and work.identity.instance is not None and work.reply_tos:
            answer = Answer(AnswerKind.FAILED, detail=text)
            hears = work.identity.hears
            said = Confirmation(work.reply_tos[0], work.message_id, answer, hears, work.signer)
            self._intake.confirm([said])

    async def _end_row(
        self, row: InboxRow, verdict: str, replies: tuple[OutboxRecord, ...]
    ) -> None:
        scope, message_id = self._executor.scope, row.message_id
        item = FinishItem(
            row.row_id, scope, row.sender, row.instance, message_id, row.attempt, verdict
        )
        await self._services.store.finish([item], replies)
        self._services.inbox.held.discard(row.row_id)
        self._executor.finishing.rows.discard(row.row_id)
