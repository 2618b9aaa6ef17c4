"""The facade that the daemon offers to its API: everything an operator can see or ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from appliance.admin.copy_contracts import Copies
from appliance.admin.requests import Once, SubmitRequest, Submitted
from appliance.core.delivery import Standing
from appliance.telemetry.events import EventHub
from appliance.telemetry.metrics import MetricsSource

Json = dict[str, Any]


class Control(Protocol):
    """Called on the event loop. What cannot be done is raised as an `ApplianceError`."""

    @property
    def copies(self) -> Copies:
        """Files that callers bring and fetch."""
        ...

    @property
    def events(self) -> EventHub:
        """The hub of the daemon."""
        ...

    def status(self) -> Json:
        """The status JSON of the product's contract."""
        ...

    def methods(self) -> list[Json]:
        """Every method that this daemon knows, with its arguments."""
        ...

    def liveness(self) -> tuple[bool, str]:
        """Whether the daemon lives, and words for it."""
        ...

    def readiness(self) -> tuple[bool, str]:
        """Whether the daemon does its work, and words for it."""
        ...

    def metrics(self) -> MetricsSource:
        """Where a scrape takes its facts from."""
        ...

    async def plan(self, paths: Sequence[str] | None, *, force: bool = False) -> Json:
        """What a reload would do, with the daemon's own paths or others."""
        ...

    async def reload(self, *, force: bool, trigger: str, by: str = "") -> Json:
        """Look at the config now; the verdict."""
        ...

    async def roll_back(self, *, to: str | None, force: bool, by: str = "") -> Json:
        """Go back to a set that was in force, and pin it; the verdict.

        Raises:
            RequestInvalid: there is no such set.
        """
        ...

    async def submit(
        self,
        requests: Sequence[SubmitRequest],
        *,
        atomic: bool = False,
        once: Once | None = None,
    ) -> list[Submitted]:
        """Accept messages; returns when they are on disk.

        With `atomic` one that is refused refuses all. `once` is committed together with the messages.

        Raises:
            RequestInvalid: the request as a whole cannot be used.
            StoreError: nothing was accepted.
        """
        ...

    def standing(self, item: Submitted) -> Standing | None:
        """Where a message that was accepted stands now; None once it has left the outbox, or is none of ours."""
        ...

    def left(self, ids: Sequence[int]) -> None:
        """Nobody waits for the answers to these messages any more."""
        ...

    async def is_accepted(self, once: Once) -> bool:
        """Whether messages were accepted under this mark."""
        ...

    async def outbox_list(self, state: str, limit: int) -> list[Json]:
        """Pending records or dead letters, oldest first."""
        ...

    async def outbox_retry(self, ids: Sequence[int] | None) -> int:
        """Try dead letters (None: all) again, as new attempts; how many."""
        ...

    async def outbox_drop(self, ids: Sequence[int] | None, *, dead_only: bool = True) -> int:
        """Forget dead letters (None: all of them), or with ids also pending records; how many."""
        ...

    async def inbox_list(self, limit: int) -> list[Json]:
        """Messages taken in and not finished, oldest first."""
        ...

    async def inbox_drop(self, ids: Sequence[int] | None) -> Json:
        """Forget messages that no worker takes (None: all of them): how many as `count`, and as `held` how many of
        those asked for a worker has in hand, which stay.
        """
        ...

    def history(self, limit: int) -> list[Json]:
        """Records of config sets, newest first. Reads files: called in a thread."""
        ...

    def history_record(self, key: str) -> Json | None:
        """One record by number, generation, digest or revision. Reads files: called in a thread."""
        ...
