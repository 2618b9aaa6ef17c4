"""What the routes for copies and the daemon agree on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import msgspec


class CopyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A copy to begin: `from_node` sends a file that the caller fetches, or `to_node` gets one at `path`."""

    from_node: str | None = None
    to_node: str | None = None
    path: str | None = None
    name: str = ""
    """What the file is called at the caller's, for texts."""
    node: str | None = None
    """The own node that takes part."""


class CopyPlace(Protocol):
    """A file on its way, as far as the routes need it."""

    @property
    def path(self) -> Path:
        """Where it lies in the meantime."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of the content, once it is there."""
        ...


class Copies(Protocol):
    """What the daemon offers for copies. What cannot be done is raised as an `ApplianceError`."""

    def begin(self, request: CopyRequest) -> dict[str, Any]:
        """Make a token; the own node and the word that the other node is given as the path."""
        ...

    async def store(self, token: str, size: int, blocks: AsyncIterator[bytes]) -> str:
        """Keep what the caller brings; its SHA-256."""
        ...

    def send(self, token: str, wait_s: float) -> AsyncGenerator[dict[str, Any], None]:
        """Send what was brought; how far it is, and at last what came of it."""
        ...

    async def wait_for(self, token: str, wait_s: float) -> CopyPlace | None:
        """The file of a token once it is there; None when it is not yet."""
        ...

    def end(self, token: str) -> bool:
        """Forget a token and its file."""
        ...
