"""Descriptors read before, kept by their bytes.

Peers of one build send the same descriptor with every message; reading it costs ten times as much
as the value. What is kept is bounded, and one peer that makes up new ones all the time does not
push out those that others really use: newcomers have places of their own, become regulars only by
being used, and the regular that goes is the least used one.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.wire.gob.plan import Descriptor

MAX_KEPT_BYTES = 4_096
MAX_NEWCOMERS = 16
MAX_REGULARS = 16
USES_TO_STAY = 8


class DescriptorCache:
    """Not locked: each step is one operation of a dict, and a lost entry is read again."""

    def __init__(self, pinned: Iterable[bytes]) -> None:
        """`pinned` are kept for good; the first is the `latest` to begin with."""
        self._pinned = {raw: Descriptor(raw) for raw in pinned}
        self._newcomers: dict[bytes, Descriptor] = {}
        self._regulars: dict[bytes, Descriptor] = {}
        self._uses: dict[bytes, float] = {}
        self.latest = next(iter(self._pinned.values()))
        """The one that was used last: the next message begins with the same bytes, most likely."""

    def __len__(self) -> int:
        return len(self._pinned) + len(self._newcomers) + len(self._regulars)

    def get(self, raw: bytes) -> Descriptor:
        """The descriptor of these bytes, read now if need be.

        Raises:
            DecodeError: the bytes are none.
        """
        known = self._pinned.get(raw)
        if known is not None:
            self.latest = known
            return known
        known = self._regulars.get(raw)
        if known is None:
            return self._newcomers.get(raw) or Descriptor(raw)
        self._uses[raw] = self._uses.get(raw, 0.0) + 1.0
        self.latest = known
        return known

    def keep(self, descriptor: Descriptor) -> None:
        """Remember one that led to a message; called for every message that it leads to."""
        raw = descriptor.raw
        if descriptor.size_bytes > MAX_KEPT_BYTES or raw in self._pinned or raw in self._regulars:
            return
        uses = self._uses.get(raw, 0.0) + 1.0
        self._newcomers.pop(raw, None)
        if uses >= USES_TO_STAY:
            self._make_room()
            self._regulars[raw] = descriptor
        else:
            self._newcomers[raw] = descriptor
            for oldest in list(self._newcomers)[:-MAX_NEWCOMERS]:
                self._newcomers.pop(oldest, None)
                self._uses.pop(oldest, None)
        self._uses[raw] = uses

    def _make_room(self) -> None:
        """Let the least used regular go if there is no room, and what all did long ago count less."""
        if len(self._regulars) < MAX_REGULARS:
            return
        regulars = list(self._regulars)
        least = min(regulars, key=lambda raw: self._uses.get(raw, 0.0))
        self._regulars.pop(least, None)
        self._uses.pop(least, None)
        for raw in regulars:
            if raw != least:
                self._uses[raw] = self._uses.get(raw, 0.0) / 2
