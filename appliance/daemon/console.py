"""Standard output and error for REQToConsole, written by a thread so that a reader who stops reading stops nobody else."""

from __future__ import annotations

import queue
import sys
import threading
from itertools import groupby
from typing import NamedTuple

from appliance.errors import OutputLost

MAX_WAITING = 10_000


class _Text(NamedTuple):
    text: str
    to_stderr: bool


class StdoutConsole:
    """Lines beyond `MAX_WAITING` are dropped and counted."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Text | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self.dropped = 0
        self._thread.start()

    def write(self, text: str, *, to_stderr: bool = False) -> None:
        """Hand text over without waiting."""
        if self._queue.qsize() >= MAX_WAITING:
            self.dropped += 1
            return
        self._queue.put(_Text(text, to_stderr))

    def close(self) -> None:
        """Write what waits, for at most a second."""
        self._queue.put(None)
        self._thread.join(timeout=1.0)

    def _write_all(self) -> None:
        while (first := self._queue.get()) is not None:
            texts = [first]
            while len(texts) < 256:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._flush(texts)
                    return
                texts.append(more)
            self._flush(texts)

    def _flush(self, texts: list[_Text]) -> None:
        for to_stderr, group in groupby(texts, key=lambda item: item.to_stderr):
            parts = [item.text for item in group]
            stream = sys.stderr if to_stderr else sys.stdout
            try:
                stream.write("".join(parts))
                stream.flush()
            except (OSError, ValueError, OutputLost):
                self.dropped += len(parts)
