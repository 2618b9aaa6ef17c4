"""The receiving process of a benchmark as the sending one sees it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance.daemon.bench.order import BenchOrder, Facts, Word
from appliance.errors import ApplianceError, BenchDenied, BenchFailed

START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0


class BenchPeer:
    """Life: `start` -> `ask` any number of times -> `close`. What ends it early goes to `on_trouble`."""

    def __init__(self, on_trouble: Callable[[ApplianceError], None], pattern: str) -> None:
        self._on_trouble = on_trouble
        self._pattern = pattern
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._words: asyncio.Queue[Word] = asyncio.Queue()
        self._is_closing = False

    async def start(self, order: BenchOrder, directory: Path) -> None:
        """Start it and return when it takes messages. Raises what keeps it from that.

        NB: in a session of its own, so that a Ctrl-C at the terminal does not end it before everything is settled.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "appliance.daemon.bench.receiver",
            str(directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(), name="words of the receiving side")
        self._write(msgspec.json.encode(order))
        await self._next_word(START_TIMEOUT_S)

    async def ask(self) -> Facts:
        """What it has done so far."""
        self._write(b"facts")
        word = await self._next_word(ANSWER_TIMEOUT_S)
        assert word.facts is not None
        return word.facts

    async def close(self) -> None:
        """End it; killed when it does not end by itself."""
        self._is_closing = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader})

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def _next_word(self, limit_s: float) -> Word:
        try:
            async with asyncio.timeout(limit_s):
                word = await self._words.get()
        except TimeoutError:
            raise BenchFailed(f"the receiving side said nothing for {limit_s:g} s") from None
        error = self._error_of(word)
        if error is not None:
            raise error
        return word

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        last = Word(kind="failed", text="it ended without a word")
        while line := await self._process.stdout.readline():
            word = msgspec.json.decode(line, type=Word)
            if self._error_of(word) is None:
                self._words.put_nowait(word)
            else:
                last = word
        self._words.put_nowait(last)
        error = self._error_of(last)
        if not self._is_closing and error is not None:
            self._on_trouble(error)

    def _error_of(self, word: Word) -> ApplianceError | None:
        if word.kind == "denied":
            return BenchDenied(self._pattern, word.text)
        if word.kind == "failed":
            return BenchFailed(f"the receiving side: {word.text}")
        return None
