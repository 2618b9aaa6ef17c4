"""Cuts the broker's byte stream into messages and control lines. No sockets, no event loop.

Pieces may be cut anywhere. A message that spans many pieces is joined once, when it is whole, so that its cost grows
with its size and not with the number of pieces.
"""

from __future__ import annotations

from collections.abc import Callable

_MAX_LINE_BYTES = 64 * 1024
"""A longer control line is no control line; INFO with hundreds of cluster addresses stays below."""

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""nats-server's own ceiling of max_payload."""

OnMessage = Callable[[bytes, bytes, bytes, bytes, bytes], None]
"""Takes subject, subscription id, reply subject, header block and payload; b"" where there is none."""


class FrameParser:
    """Feed it bytes; it calls `on_message` and `on_control` in the order of the stream."""

    def __init__(self, on_message: OnMessage, on_control: Callable[[bytes], None]) -> None:
        self._on_message = on_message
        self._on_control = on_control
        self._chunks: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ValueError: this is no NATS protocol; nothing sensible can follow.
        """
        if self._chunks:
            self._chunks.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self._need_bytes:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        used, self._need_bytes = self._consume(data)
        if used < len(data):
            rest = data[used:]
            self._chunks.append(rest)
            self._have_bytes = len(rest)

    def _consume(self, data: bytes) -> tuple[int, int]:
        """Handle every complete frame in `data`; say how many bytes that was and how many the next one needs."""
        position = 0
        end = len(data)
        while position < end:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if end - position > _MAX_LINE_BYTES:
                    raise ValueError("a control line without end")
                return position, end - position + 1
            first = data[position]
            if first == 0x4D or first == 0x48:  # M(SG), H(MSG)
                # By single spaces, as the server writes them: other white space may be part of a subject.
                parts = data[position:line_end].split(b" ")
                start = line_end + 2
                stop = start + int(parts[-1])
                if not start <= stop <= start + _MAX_MESSAGE_BYTES:
                    raise ValueError("a message of impossible size")
                if stop + 2 > end:
                    return position, stop + 2 - position
                self._take_message(first, parts, data, start, stop)
                position = stop + 2
            else:
                self._on_control(data[position:line_end])
                position = line_end + 2
        return position, 0

    def _take_message(
        self, first: int, parts: list[bytes], data: bytes, start: int, stop: int
    ) -> None:
        count = len(parts)
        if first == 0x4D:
            if not 4 <= count <= 5:
                raise ValueError("a MSG line of another shape")
            reply = parts[3] if count == 5 else b""
            self._on_message(parts[1], parts[2], reply, b"", data[start:stop])
            return
        body = start + int(parts[-2])
        if not (5 <= count <= 6 and start <= body <= stop):
            raise ValueError("an HMSG line of another shape")
        reply = parts[3] if count == 6 else b""
        self._on_message(parts[1], parts[2], reply, data[start:body], data[body:stop])
