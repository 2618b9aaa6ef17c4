"""A wake-up that merges: many causes, one look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.config.revision import Revision, SignedCommit
from appliance.core.specs import DesiredState
from appliance.reconcile.reload_result import LoadedSet, ReloadResult


class Trigger:
    """Holds the reasons given since the last look. Setting is safe from callbacks of the loop."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._event = asyncio.Event()
        self._woke_mono: float | None = None

    def set(self, reason: str) -> None:
        """Ask for a look."""
        self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self._event.set()

    @property
    def pending(self) -> int:
        """How often a look was asked for since the last `take`."""
        return sum(self._reasons.values())

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until somebody asks, or the time is over."""
        self._woke_mono = None
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        self._woke_mono = asyncio.get_running_loop().time()

    @property
    def busy_s(self) -> float:
        """How long whoever waits here has been at work since it was woken; 0 while it waits."""
        if self._woke_mono is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._woke_mono

    def take(self) -> frozenset[str]:
        """The reasons so far; forgets them."""
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        self._event.clear()
        return reasons


# Where config sets come from, and what somebody may ask the reconciler for.


class ConfigSource(Protocol):
    """Where the config comes from. All calls block and run in a thread."""

    def fingerprint(self) -> str:
        """Digest of the content as it is now, without parsing; "" when it cannot be read."""
        ...

    def revision(self) -> Revision | None:
        """The commit that the files stand at, if they are in a git work tree."""
        ...

    def signers(self) -> str:
        """Digest of what says, beside the config, whose signature a commit needs; "" where nothing does."""
        ...

    def texts(self) -> dict[str, str]:
        """The files as they are now, whatever is in them; empty when they cannot be read."""
        ...

    def load(self) -> LoadedSet:
        """Read, check and compile. Raises ConfigInvalid or ConfigUnreadable."""
        ...

    def follow(self, desired: DesiredState) -> None:
        """The set in force decides whose signature the next one needs."""
        ...

    def compare_with(self, find_newest: Callable[[], SignedCommit | None]) -> None:
        """What finds the newest commit that was in force, which no signed commit may come before."""
        ...

    def load_from(self, paths: Sequence[str]) -> LoadedSet:
        """Read, check and compile other paths. Raises ConfigInvalid or ConfigUnreadable."""
        ...

    def load_given(
        self, files: Mapping[str, bytes], digest: str, variables: Collection[str] | None
    ) -> LoadedSet:
        """Check and compile texts that a caller sent; of the environment they see `variables` (None: all of it).

        Raises ConfigInvalid.
        """
        ...

    def load_kept(
        self, files: Mapping[str, str], digest: str, revision: Revision | None
    ) -> LoadedSet:
        """Check and compile a set that the history kept. Raises ConfigInvalid."""
        ...


@dataclass(slots=True)
class Request:
    """Somebody waits for a verdict. `to` is None for a look, else the set to go back to (\"\": the one before)."""

    force: bool
    trigger: str
    by: str
    future: asyncio.Future[ReloadResult]
    to: str | None = None
