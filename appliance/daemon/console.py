"""Standard output for REQToConsole, written by a thread so that a reader who stops reading stops nobody else."""

from __future__ import annotations

import queue
import sys
import threading

MAX_WAITING = 10_000


class StdoutConsole:
    """Lines beyond `MAX_WAITING` are dropped and counted."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self.dropped = 0
        self._thread.start()

    def write(self, text: str) -> None:
        """Hand text over without waiting."""
        if self._queue.qsize() >= MAX_WAITING:
            self.dropped += 1
            return
        self._queue.put(text)

    def close(self) -> None:
        """Write what waits, for at most a second."""
        self._queue.put(None)
        self._thread.join(timeout=1.0)

    def _write_all(self) -> None:
        while (text := self._queue.get()) is not None:
            parts = [text]
            while len(parts) < 256:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._flush(parts)
                    return
                parts.append(more)
            self._flush(parts)

    def _flush(self, parts: list[str]) -> None:
        try:
            sys.stdout.write("".join(parts))
            sys.stdout.flush()
        except (OSError, ValueError):
            self.dropped += len(parts)
