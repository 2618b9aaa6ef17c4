"""A small file that follows a value in memory: the pin, the trial, the newest signed commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class OnDisk(Generic[_Value]):
    """Writes the newest value. A disk that takes nothing holds nobody up: it is tried again, and told once."""

    def __init__(
        self, what: str, save: Callable[[_Value], None], on_trouble: Callable[[str], None]
    ) -> None:
        """`save` blocks, raises OSError, and is called in threads; `on_trouble` is told what a restart would not know."""
        self._what = what
        self._save = save
        self._on_trouble = on_trouble
        self._behind: tuple[_Value] | None = None
        self._told = ""

    @property
    def is_kept(self) -> bool:
        """Whether a restart would find the newest value."""
        return self._behind is None

    async def put(self, value: _Value) -> None:
        """Write this one, now or as soon as the disk takes it."""
        self.expect(value)
        await self.catch_up()

    def expect(self, value: _Value) -> None:
        """The disk says something else; the next `catch_up` writes this one."""
        self._behind = (value,)

    async def catch_up(self) -> None:
        """Write what could not be written before."""
        behind = self._behind
        if behind is None:
            return
        try:
            await asyncio.to_thread(self._save, *behind)
        except OSError as error:
            # NB: not the whole text, where a temporary file has another name each time
            why = error.strerror or str(error)
            if why != self._told:
                self._told = why
                self._on_trouble(f"{self._what} is not on disk, where a restart looks: {error}")
            return
        self._told = ""
        if self._behind is behind:  # another may have come meanwhile
            self._behind = None
