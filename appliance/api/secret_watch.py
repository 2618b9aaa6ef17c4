"""Keeps an eye on what the config names as secrets and certificates: told when they cannot be used or end soon, taken
when they change.

What is read for every request (tokens, headers) needs no more than that. A connection to the broker, and a listener with
TLS, go on with what they were made with; so when that has changed, and can be used, another takes its place, as with a
change of `broker` or `admin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from appliance.bus.inspection import Inspected, expires_soon, inspect_secrets, texts_to_hide
from appliance.core.current import Current
from appliance.core.hidden import Hiding
from appliance.core.secret_refs import find_secret_ends, find_secret_refs
from appliance.core.specs import DesiredState, SecretRef
from appliance.errors import ApplianceError
from appliance.telemetry.report import Telemetry

LOOK_EVERY_S = 2.0
READ_TIMEOUT_S = 10.0
"""A file system that hangs must not keep us from telling so."""
RETRY_BROKER_S = 60.0
"""A broker that does not take what is new is asked again after this long, whatever else changes at once."""


Renew = Callable[[], Awaitable[None]]
"""Take what is new. Raises an `ApplianceError` where that fails."""


class Follower:
    """One who goes on with the secrets it was made with, those whose places begin with `prefix`."""

    def __init__(self, name: str, prefix: str, renew: Renew) -> None:
        self.name = name
        self._prefix = prefix
        self._renew = renew
        self._used: dict[str, Inspected] = {}
        """What it was made with, as far as it is known."""
        self._retry_mono = float("-inf")

    async def follow(
        self,
        before: Mapping[str, Inspected],
        found: Mapping[str, Inspected],
        mono: Callable[[], float],
    ) -> None:
        """Have it take what changed, once that can be used.

        Raises:
            ApplianceError: it was not taken; that is tried again after a while.
        """
        mine = {place: item for place, item in found.items() if place.startswith(self._prefix)}
        if any(item.trouble is not None for item in mine.values()):
            return  # what is there goes on; certificate and key may come one after the other
        if any(before.get(place) != item for place, item in mine.items()):
            return  # it is taken when a second look finds the same: whoever writes them may not be done
        used = self._used
        if _digests(used) == _digests(mine):
            return
        if {place: item.ref for place, item in used.items()} != {
            place: item.ref for place, item in mine.items()
        }:
            self._used = mine  # another set names others, and was made with them
            return
        now_mono = mono()
        if now_mono < self._retry_mono:
            return
        # kept until it went well: what failed is due again
        self._retry_mono = now_mono + RETRY_BROKER_S
        await self._renew()
        self._retry_mono = float("-inf")
        self._used = mine


class SecretWatch:
    """Life: `run` in a task. `found` is what the newest look has seen, by the place in the config that names it."""

    def __init__(
        self,
        desired: Current[DesiredState],
        telemetry: Telemetry,
        *,
        followers: Sequence[Follower],
        wall: Callable[[], float],
        mono: Callable[[], float],
        hiding: Hiding | None = None,
    ) -> None:
        self._hiding = hiding or Hiding()
        self._desired = desired
        self._telemetry = telemetry
        self._followers = followers
        self._wall = wall
        self._mono = mono
        self.found: Mapping[str, Inspected] = {}
        self._told_soon: dict[str, float] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once."""
        desired = self._desired.value
        refs, ends = find_secret_refs(desired), find_secret_ends(desired)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                found = await asyncio.to_thread(inspect_secrets, refs, self._wall(), ends)
        except TimeoutError:
            found = self._hanging(refs)
        before, self.found = self.found, found
        self._hiding.put_secrets(texts_to_hide(found.values()))
        self._tell(before, found)
        for follower in self._followers:
            try:
                await follower.follow(before, found, self._mono)
            except ApplianceError as error:
                self._telemetry.secret_not_taken(follower.name, str(error))

    def troubles(self) -> list[str]:
        """What cannot be used, in words."""
        return [item.trouble for item in self.found.values() if item.trouble is not None]

    def _hanging(self, refs: Mapping[str, SecretRef]) -> Mapping[str, Inspected]:
        """Files that do not answer: which of them it is cannot be told."""
        trouble = f"cannot be read within {READ_TIMEOUT_S:g} s"
        return {
            place: Inspected(ref, "", f"{place} from {ref.kind} {ref.name} {trouble}")
            for place, ref in refs.items()
            if ref.kind != "env"
        }

    def _tell(self, before: Mapping[str, Inspected], found: Mapping[str, Inspected]) -> None:
        changed = []
        for place, item in found.items():
            old = before.get(place)
            if old is not None and item.digest and old.digest and item.digest != old.digest:
                changed.append(place)
            if item.trouble is not None:
                if old is None or old.trouble != item.trouble:
                    self._telemetry.secret_troubled(place, item.trouble)
            elif old is not None and old.trouble is not None:
                self._telemetry.secret_recovered(place)
            at = item.expires_at
            if at is None or not expires_soon(item, self._wall()):
                continue
            if self._told_soon.get(place) != at:
                self._told_soon[place] = at
                self._telemetry.secret_expires_soon(place, at)
        if changed:
            self._telemetry.secret_changed(tuple(changed))


def _digests(found: Mapping[str, Inspected]) -> dict[str, str]:
    return {place: item.digest for place, item in found.items()}
