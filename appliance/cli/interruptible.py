"""Waits for what a daemon says so that Ctrl-C is never held back.

A signal that comes just before a read has Python note it and then wait in the read, for as long as nothing is said: it
cannot do anything about it (PEP 475 is about those that come during one). So nobody waits long in one read.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from typing import Any

SLICE_S = 0.5
"""For so long at most a signal may be held back."""


class InterruptibleResponse(http.client.HTTPResponse):
    """An answer that is read in slices of time; the timeout of the connection stays what it is."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_InSlices(sock, self.fp.detach()))


class _InSlices(io.RawIOBase):
    def __init__(self, connection: socket.socket, held: io.RawIOBase) -> None:
        self._connection = connection
        self._held = held
        """Keeps the connection open until this is closed."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        connection = self._connection
        timeout_s = connection.gettimeout()
        due_mono = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while True:
                left_s = SLICE_S if due_mono is None else due_mono - time.monotonic()
                # a timeout of nothing would be no timeout, but a read that does not wait
                connection.settimeout(min(SLICE_S, max(left_s, 0.001)))
                with contextlib.suppress(TimeoutError):
                    return connection.recv_into(buffer)
                if left_s <= SLICE_S and due_mono is not None:
                    raise TimeoutError("timed out")
        finally:
            connection.settimeout(timeout_s)

    def close(self) -> None:
        self._held.close()
        super().close()
