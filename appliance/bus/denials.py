"""Errors of the broker, brought to the worker they concern.

nats-server answers a denied PUB or SUB with a text only, after the call has long returned. The text names the
subject; this is where it finds its way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from appliance.bus.base import OnDenied
from appliance.bus.frames import Denial, parse_denial
from appliance.bus.subscription import NatsSubscription


class DenialRouter:
    """Owned by `NatsBus`. What belongs to nobody goes to `report`."""

    def __init__(
        self, subscriptions: Mapping[bytes, NatsSubscription], report: Callable[[str], None]
    ) -> None:
        self._subscriptions = subscriptions
        self._report = report
        self._publishers: dict[str, list[OnDenied]] = {}

    def on_publish_denied(self, subject: str, callback: OnDenied) -> Callable[[], None]:
        """Call `callback` when a publish on `subject` is denied; returns a function that ends it."""
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
        if denial is not None:
            callbacks = (
                self._find_publishers(denial)
                if denial.is_publish
                else self._find_subscribers(denial, text)
            )
        elif "maximum subscriptions" in text.lower():
            callbacks = self._deny_unconfirmed(text)
        else:
            callbacks = []
        if not callbacks:
            self._report(f"the broker says: {text}")
        for callback in callbacks:
            try:
                callback(text)
            except Exception as error:  # noqa: BLE001 - a callback's bug must not end the reader
                self._report(f"handling a denial failed: {type(error).__name__}: {error}")

    def _find_publishers(self, denial: Denial) -> list[OnDenied]:
        exact = self._publishers.get(denial.subject)
        if exact:
            return list(exact)
        # A denial may name the reply subject; ours stand below the subject of the publisher.
        return [
            callback
            for subject, callbacks in self._publishers.items()
            if denial.subject.startswith(f"{subject}.")
            for callback in callbacks
        ]

    def _find_subscribers(self, denial: Denial, text: str) -> list[OnDenied]:
        return self._deny(
            [
                item
                for item in self._subscriptions.values()
                if item.subject == denial.subject and item.queue == denial.queue
            ],
            text,
        )

    def _deny_unconfirmed(self, text: str) -> list[OnDenied]:
        return self._deny(
            [item for item in self._subscriptions.values() if not item.is_confirmed], text
        )

    def _deny(self, denied: list[NatsSubscription], text: str) -> list[OnDenied]:
        for item in denied:
            item.denied_text = text
        return [item.on_denied for item in denied if item.on_denied is not None]
