"""Where config sets come from, and what somebody may ask the reconciler for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.config.revision import Revision
from appliance.core.specs import DesiredState
from appliance.reconcile.verdicts import LoadedSet, Verdict


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

    def load_from(self, paths: Sequence[str]) -> LoadedSet:
        """Read, check and compile other paths. Raises ConfigInvalid or ConfigUnreadable."""
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
    future: asyncio.Future[Verdict]
    to: str | None = None
