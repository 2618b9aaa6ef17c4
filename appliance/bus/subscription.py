"""One subscription of the bus: what was asked for, independent of the connection that carries it now.

There is no queue between the socket and `on_messages`: it is a plain function called as the bytes arrive, and the
caller bounds what waits behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from appliance.bus.base import OnDenied, OnMessages

OVERLAP_S = 0.1
"""How long a new member of a queue group is beside the one it replaces before that leaves.

A message for which nats-server has just picked the group's members may find the old one gone and does not know the new
one yet: it is dropped, without a word. That takes a thread of the server that stands still for so long.
"""


class NatsSubscription:
    """Implements `base.Subscription`. Made by `NatsBus.subscribe`, which owns the table it stands in."""

    __slots__ = (
        "_stop",
        "confirmed_mono",
        "is_closing",
        "is_confirmed",
        "on_denied",
        "on_messages",
        "queue",
        "sid",
        "subject",
    )

    def __init__(
        self,
        *,
        sid: str,
        subject: str,
        queue: str,
        on_messages: OnMessages,
        on_denied: OnDenied | None,
        stop: Callable[[NatsSubscription], Awaitable[None]],
    ) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.on_messages = on_messages
        self.on_denied = on_denied
        self.is_closing = False
        self.is_confirmed = False
        """Whether a barrier has passed since it was last announced."""
        self.confirmed_mono = float("-inf")
        """When that was first so, on the event loop's clock."""
        self._stop = stop

    def note_confirmed(self) -> None:
        """A barrier has passed: the broker has it."""
        if not self.is_confirmed and self.confirmed_mono < 0:
            self.confirmed_mono = asyncio.get_running_loop().time()
        self.is_confirmed = True

    async def stop_intake(self) -> None:
        """Unsubscribe; on return every message that arrived has been handed over. A second call returns at once.

        Cancellation: the subscription is unsubscribed all the same, only unconfirmed.
        """
        await self._stop(self)


class SubscriptionTable:
    """What a bus is subscribed to, found by id and by what was asked for: neither costs more when there are more."""

    def __init__(self) -> None:
        self.by_sid: dict[str, NatsSubscription] = {}
        """For those who read frames: a plain dictionary, since each message looks in it."""
        self._by_interest: dict[tuple[str, str], list[NatsSubscription]] = {}

    def add(self, subscription: NatsSubscription) -> None:
        """Enter a subscription under its id."""
        self.by_sid[subscription.sid] = subscription
        interest = (subscription.subject, subscription.queue)
        self._by_interest.setdefault(interest, []).append(subscription)

    def remove(self, subscription: NatsSubscription) -> None:
        """Take it out; nothing happens if it is not in."""
        if self.by_sid.pop(subscription.sid, None) is None:
            return
        interest = (subscription.subject, subscription.queue)
        others = self._by_interest[interest]
        others.remove(subscription)
        if not others:
            del self._by_interest[interest]

    def clear(self) -> None:
        """Take out all."""
        self.by_sid.clear()
        self._by_interest.clear()

    def same_interest(self, subject: str, queue: str) -> tuple[NatsSubscription, ...]:
        """Those of this subject and queue group: what the broker shares messages among, or denies together."""
        return tuple(self._by_interest.get((subject, queue), ()))

    def joined_with(self, subscription: NatsSubscription) -> tuple[NatsSubscription, ...]:
        """The others that take over from it when it goes: members of its queue group."""
        if not subscription.queue:
            return ()
        group = self.same_interest(subscription.subject, subscription.queue)
        return tuple(other for other in group if other is not subscription)
