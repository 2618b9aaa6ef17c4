"""Errors of the broker, brought to the worker they concern.

nats-server answers a denied PUB or SUB with a text only, after the call has long returned. The text names the
subject; this is where it finds its way back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from appliance.bus.base import Denial, OnDenied
from appliance.bus.frames import parse_denial
from appliance.bus.subscription import SubscriptionTable
from appliance.core.names import REPLY_TOKEN

_REPLY_PART = f".{REPLY_TOKEN}."
"""Stands between the subject of a message and the rest of the subject for its answers."""


class DenialRouter:
    """Owned by the bus. What belongs to nobody goes to `report`, and so do denied answers.

    `report` takes a text and its kind. Reply subjects are chosen by peers and differ for every message, so denied
    answers to one subject are one kind, and all other subjects that nobody here publishes on are one kind together.
    """

    def __init__(
        self, subscriptions: SubscriptionTable, report: Callable[[str, str], None]
    ) -> None:
        self._subscriptions = subscriptions
        self._report = report
        self._publishers: dict[str, list[OnDenied]] = {}

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when a publish on `subject` or an answer below it is denied; returns a function that ends it."""
        self._publishers.setdefault(subject, []).append(callback)

        def end() -> None:
            callbacks = self._publishers.get(subject, [])
            with suppress(ValueError):
                callbacks.remove(callback)
            if not callbacks:
                self._publishers.pop(subject, None)

        return end

    def handle(self, text: str) -> None:
        """Take the text of an ``-ERR`` line."""
        denial = parse_denial(text)
        told: list[tuple[OnDenied, Denial]] = []
        kind = text
        is_answer = False
        if denial is None:
            if "maximum subscriptions" in text.lower():
                told = self._deny_unconfirmed(text)
        elif denial.is_publish:
            owner = self._find_publisher(denial.subject)
            told = [(callback, denial) for callback in self._publishers.get(owner, ())]
            kind = f"denied below {owner}"
            is_answer = denial.subject != owner
        else:
            told = self._deny_subscribers(denial)
        if is_answer or not told:
            self._report(f"the broker says: {text}", kind)
        for callback, its_denial in told:
            try:
                callback(its_denial)
            except Exception as error:  # noqa: BLE001 - a callback's bug must not end the reader
                self._report(f"handling a denial failed: {type(error).__name__}: {error}", "")

    def _find_publisher(self, subject: str) -> str:
        """The registered subject that a publish on `subject` was one of, or an answer to one of; "" for none."""
        if subject in self._publishers:
            return subject
        closed = f"{subject}."  # the answers of the seed end with the word
        at = closed.find(_REPLY_PART)
        while at >= 0:
            if closed[:at] in self._publishers:
                return closed[:at]
            at = closed.find(_REPLY_PART, at + 1)
        return ""

    def _deny_subscribers(self, denial: Denial) -> list[tuple[OnDenied, Denial]]:
        interested = self._subscriptions.same_interest(denial.subject, denial.queue)
        return [(item.on_denied, denial) for item in interested if item.on_denied is not None]

    def _deny_unconfirmed(self, text: str) -> list[tuple[OnDenied, Denial]]:
        return [
            (item.on_denied, Denial(text, False, item.subject, item.queue))
            for item in self._subscriptions.by_sid.values()
            if not item.is_confirmed and item.on_denied is not None
        ]
