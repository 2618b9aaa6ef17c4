"""What senders hear of their messages before these are handled: that they are taken, known already, refused, or too many.

Senders that are appliances hear more than others: that there is no room and when to ask again, that a message is taken and
worked on, that it failed. A resend is answered with what is remembered of the message.
"""

from __future__ import annotations

from appliance.bus.base import BusMessage
from appliance.core.admission import is_reply_subject_safe
from appliance.core.names import NodeName
from appliance.core.signatures import PASSING, Fault
from appliance.core.specs import AckOn, SubscriberSpec
from appliance.delivery.base import Confirmation, Intake
from appliance.dialect.base import Answer, AnswerKind
from appliance.dialect.headers import HELLO_HEADER
from appliance.outbox.records import DONE_VERDICT, TakeInResult, Taken
from appliance.telemetry.stats import WorkerStats
from appliance.workers.executor import Executor
from appliance.workers.finishing import verdict_answer
from appliance.workers.incoming import Incoming, Refusal
from appliance.workers.known_senders import KnownSenders
from appliance.workers.schedule import HELLO_METHOD
from appliance.workers.services import WorkerServices

MAX_REPLY_TOS = 16
"""Senders of copies of one message that are answered together."""
MIN_BUSY_MS, MAX_BUSY_MS = 100, 5_000
AHEAD_AGAIN_MS = 60_000
"""After this a stream brings a message again that was signed in the future: by then a clock may have been set."""

TAKEN = Answer(AnswerKind.TAKEN)


class FirstAnswers:
    """Of one subscriber. Of the spec it uses only what stays."""

    def __init__(
        self,
        spec: SubscriberSpec,
        services: WorkerServices,
        *,
        intake: Intake,
        executor: Executor,
        senders: KnownSenders,
        stats: WorkerStats,
    ) -> None:
        self._spec = spec
        self._services = services
        self._intake = intake
        self._executor = executor
        self.senders = senders
        self._stats = stats
        self._working = Answer(AnswerKind.WORKING, detail=services.store.instance)

    # -- no room -----------------------------------------------------------------------------------------

    def say_busy(self, reply_tos: list[str]) -> None:
        """No try of theirs is spent, and their lanes slow down.

        NB: no number of a message is named: others may hear it, and find out by it the id under which it will come again.
        """
        self._stats.turned_away += len(reply_tos)
        answer = Answer(AnswerKind.BUSY, wait_ms=self._executor.busy_ms(MIN_BUSY_MS, MAX_BUSY_MS))
        self._intake.confirm(
            [
                Confirmation(reply_to, 0, answer, True)
                for reply_to in reply_tos
                if reply_to and is_reply_subject_safe(reply_to, self._spec.subject)
            ]
        )

    def ask_again(self, messages: list[BusMessage]) -> list[BusMessage]:
        """These may have lain here while the process stood still, and be done by another daemon; those that cannot be
        asked for again remain.
        """
        hears = self._services.dialect.hears
        stale: list[str] = []
        left: list[BusMessage] = []
        for message in messages:
            if message.reply_to and hears(message.block):
                stale.append(message.reply_to)
            else:
                left.append(message)
        self.say_busy(stale)
        return left

    # -- taken, or known ---------------------------------------------------------------------------------

    def note_in_hand(self, first: Incoming, repeat: Incoming, said: list[Confirmation]) -> None:
        """A resend while the first copy is still in hand: confirm it as soon as, and only if, the first is."""
        self._stats.repeats += 1
        if first.ack_on is AckOn.RECEIVED:
            if first.is_taken:
                said.append(_about(repeat, TAKEN))
            elif len(first.reply_tos) < MAX_REPLY_TOS:
                first.reply_tos.extend(repeat.reply_tos)
            return
        if len(first.reply_tos) >= MAX_REPLY_TOS:
            del first.reply_tos[0]  # the newest is the one that is listened to
        first.reply_tos.extend(repeat.reply_tos)
        if first.is_taken and repeat.identity.hears:
            said.append(_about(repeat, self._working))

    def note_known(self, work: Incoming, taken: Taken, said: list[Confirmation]) -> None:
        """The store knows this message: its sender hears the verdict, however the first answer got lost."""
        self._stats.repeats += 1
        if not work.reply_tos:
            return
        if work.ack_on is AckOn.RECEIVED:
            # what was promised with this acknowledgement is that it is durably taken, and it was
            said.append(_about(work, TAKEN))
        elif taken.result is TakeInResult.REPEAT_UNFINISHED:
            if work.identity.hears:
                said.append(_about(work, self._working))
        else:
            answer = verdict_answer(taken.verdict or DONE_VERDICT)
            if answer.kind is AnswerKind.DONE or work.identity.hears or work.identity.instance:
                said.append(_about(work, answer))

    def is_left_to_its_taker(self, work: Incoming, said: list[Confirmation]) -> bool:
        """Whether another daemon of this node began it: only what may run twice is done here as well."""
        taker = work.identity.taker
        if taker == self._services.store.instance or not self._executor.runs_once:
            return False
        said.append(_about(work, Answer(AnswerKind.WORKING, detail=taker)))
        return True

    # -- refused -----------------------------------------------------------------------------------------

    def refuse(
        self, refusal: Refusal, reply_to: str, said: list[Confirmation], block: bytes = b""
    ) -> None:
        """It does not enter: whoever minds hears why, and its sender where he may be answered."""
        spec, services = self._spec, self._services
        self._stats.refused += 1
        # once, for everybody who hears of it
        refusal.reason = services.hiding.text(refusal.reason)
        if refusal.is_undeclared and spec.method == HELLO_METHOD:
            # a node that was removed says it every half minute: it shows in the fleet, and is told of once
            headers = services.dialect.read_headers(block) if block else {}
            report = headers.get(HELLO_HEADER)
            services.for_handlers.hellos.saw_hello(NodeName(refusal.sender), report)
        else:
            services.telemetry.message_refused(spec.key, refusal.sender, refusal.reason)
            services.error_reports.report(
                spec.node,
                f"{spec.subject}: message refused: {refusal.reason}",
                method=spec.method,
                is_refusal=True,
            )
        if refusal.identity.instance is None or not reply_to.startswith(f"{spec.subject}.reply."):
            return
        answer = answer_of_refusal(refusal, is_asked=self._intake.is_asked)
        if answer is not None:
            number = refusal.message_id
            said.append(Confirmation(reply_to, number, answer, True, refusal.signer))


def answer_of_refusal(refusal: Refusal, *, is_asked: bool) -> Answer | None:
    """What the sender hears; nothing where his next try may go better, unless it is a stream's to make (`is_asked`)."""
    if refusal.fault in PASSING:
        if not is_asked:
            return None
        if refusal.fault is Fault.AHEAD:
            return Answer(AnswerKind.BUSY, wait_ms=AHEAD_AGAIN_MS)
    return Answer(AnswerKind.REFUSED, detail=refusal.reason, is_undeclared=refusal.is_undeclared)


def _about(work: Incoming, answer: Answer) -> Confirmation:
    reply_to = work.reply_tos[0] if work.reply_tos else ""
    return Confirmation(reply_to, work.message_id, answer, work.identity.hears, work.signer)
