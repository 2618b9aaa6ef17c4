"""Cuts the broker's byte stream into messages and control lines. No sockets, no event loop.

Pieces may be cut anywhere. A message that spans many pieces is joined once, when it is whole, so that its cost grows
with its size and not with the number of pieces. What one piece completes is handed over in lists, one for each
subscription; a control line is handled after the messages before it were handed over, so a PONG overtakes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.bus.base import BusMessage

_MAX_LINE_BYTES = 64 * 1024
"""A longer control line is no control line; INFO with hundreds of cluster addresses stays below."""

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""nats-server's own ceiling of max_payload."""

OnBatch = Callable[[str, list[BusMessage]], None]
"""Takes a subscription id and its messages, in order."""


class FrameParser:
    """Feed it bytes; it calls `on_batch` and `on_control`, neither of which may raise anything but ValueError."""

    def __init__(self, on_batch: OnBatch, on_control: Callable[[bytes], None]) -> None:
        self._on_batch = on_batch
        self._on_control = on_control
        self._chunks: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = 0
        self._gathered: dict[str, list[BusMessage]] = {}
        """Messages not yet handed over, by subscription id; empty between two calls of `feed`."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ValueError: this is no NATS protocol; what came before it was handed over, nothing sensible can follow.
        """
        if self._chunks:
            self._chunks.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self._need_bytes:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            used, self._need_bytes = self._consume(data)
        finally:
            self._hand_over()
        if used < len(data):
            rest = data[used:]
            self._chunks.append(rest)
            self._have_bytes = len(rest)

    def _hand_over(self) -> None:
        gathered = self._gathered
        if gathered:
            self._gathered = {}
            for sid, batch in gathered.items():
                self._on_batch(sid, batch)

    def _consume(self, data: bytes) -> tuple[int, int]:
        """Handle every complete frame in `data`; say how many bytes that was and how many the next one needs."""
        position = 0
        end = len(data)
        last_sid: str | None = None
        batch: list[BusMessage] = []
        while position < end:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if end - position > _MAX_LINE_BYTES:
                    raise ValueError("a control line without end")
                return position, end - position + 1
            first = data[position]
            if first != 0x4D and first != 0x48:  # M(SG), H(MSG)
                self._hand_over()
                last_sid = None
                self._on_control(data[position:line_end])
                position = line_end + 2
                continue
            # Decoded as a whole, which is cheaper than in parts; bytes that are no UTF-8 survive as surrogates.
            # Parted by single spaces, as the server writes them: other white space may be part of a subject.
            parts = data[position:line_end].decode("utf-8", "surrogateescape").split(" ")
            start = line_end + 2
            stop = start + int(parts[-1])
            if not start <= stop <= start + _MAX_MESSAGE_BYTES:
                raise ValueError("a message of impossible size")
            if stop + 2 > end:
                return position, stop + 2 - position
            count = len(parts)
            if first == 0x48:
                body = start + int(parts[-2])
                if not (5 <= count <= 6 and start <= body <= stop):
                    raise ValueError("an HMSG line of another shape")
                reply_to = parts[3] if count == 6 else ""
                message = BusMessage(parts[1], data[body:stop], data[start:body], reply_to)
            else:
                if not 4 <= count <= 5:
                    raise ValueError("a MSG line of another shape")
                message = BusMessage(
                    parts[1], data[start:stop], b"", parts[3] if count == 5 else ""
                )
            sid = parts[2]
            if sid != last_sid:
                last_sid = sid
                batch = self._gathered.setdefault(sid, [])
            batch.append(message)
            position = stop + 2
        return position, 0
