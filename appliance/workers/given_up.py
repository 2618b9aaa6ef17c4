"""Dead letters are news: the errorCentral of the node that asked hears of what was given up, with the reason.

Through the same queue as other reports and with a rate of its own, so that a node which is away for good silences
nothing else. A report that is given up is not reported: nobody would hear it, and errors must not cause one another.
"""

from __future__ import annotations

from appliance.core.escape import escape_line
from appliance.outbox.records import OutboxRecord
from appliance.workers.answers import ERROR_LOG_METHOD, REPORT_ORIGIN, Answers

MAX_REASON_CHARACTERS = 1_000


def is_report(record: OutboxRecord) -> bool:
    """Whether a record is a report of this daemon to errorCentral. Where nobody takes it, it leaves no dead letter."""
    return record.origin == REPORT_ORIGIN


class GivenUp:
    """Told of every record that becomes a dead letter."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def report_given_up(self, record: OutboxRecord, reason: str) -> None:
        """Call once, when a record of a publisher has ended without delivery. `reason` is the dead letter's."""
        if is_report(record) or record.method == ERROR_LOG_METHOD:
            return
        # NB: a reason may quote the other side
        words = escape_line(reason[:MAX_REASON_CHARACTERS])
        self._answers.report(
            record.node,
            f"gave up message {record.id}, {record.method} to {record.to_node} on {record.subject}: {words}",
            method=record.method,
            is_given_up=True,
        )
