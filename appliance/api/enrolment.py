"""New nodes that ask to be let in, as operators see them: listed, and turned away. They are let in by the config alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from appliance.api import model
from appliance.core.enrolment import Shown, Waiting
from appliance.core.times import rfc3339
from appliance.errors import StoreError


class Desk(Protocol):
    """Who keeps what they ask."""

    turned_away: int

    @property
    def pending(self) -> int:
        """How many wait."""
        ...

    def show(self) -> list[Shown]:
        """Who waits."""
        ...

    async def reject(self, public_keys: Sequence[str]) -> list[Waiting]:
        """Turn some away. Raises OSError."""
        ...


class Enrolment:
    """What can be seen and asked of it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def list(self) -> model.Enrolment:
        """Who asks."""
        return model.Enrolment(
            requests=[_describe(one) for one in self._desk.show()],
            turned_away=self._desk.turned_away,
        )

    async def reject(self, public_keys: Sequence[str]) -> model.Count:
        """Turn keys away; how many of them had asked. Raises StoreError."""
        try:
            return model.Count(count=len(await self._desk.reject(public_keys)))
        except OSError as error:
            raise StoreError(
                f"that they are turned away cannot be kept: {error.strerror}"
            ) from None


def _describe(one: Shown) -> model.EnrolmentRequest:
    return model.EnrolmentRequest(
        node=one.waiting.node,
        public_key=one.waiting.public_key,
        fingerprint=one.fingerprint,
        first_at=rfc3339(one.waiting.first_at),
        last_at=rfc3339(one.waiting.last_at),
        count=one.waiting.count,
        warnings=list(one.warnings),
    )
