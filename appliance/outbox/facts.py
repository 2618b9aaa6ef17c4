"""Small durable facts: texts by kind and key, bounded, all in memory."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.errors import StoreUnusable

FactChanges = Mapping[tuple[str, str], str | None]
"""By kind and key; None forgets."""
MAX_PER_KIND = 20_000
"""Beyond it those that were not changed for longest are forgotten."""
MAX_KEY_CHARS = 1_000
MAX_VALUE_CHARS = 10_000


class Facts:
    """What is committed. Changed on the event loop, in the order of commits."""

    def __init__(self, stored: Mapping[tuple[str, str], str]) -> None:
        self._kinds: dict[str, dict[str, str]] = {}
        self.learn(stored)

    def of(self, kind: str) -> Mapping[str, str]:
        """The facts of a kind."""
        return self._kinds.get(kind, {})

    def learn(self, changes: FactChanges) -> None:
        """These are committed."""
        for (kind, key), value in changes.items():
            known = self._kinds.setdefault(kind, {})
            # taken out first, so that what was changed last stands last and is forgotten last
            known.pop(key, None)
            if value is not None:
                known[key] = value

    def bound(self, changes: FactChanges) -> FactChanges:
        """The changes with those that make room for them."""
        forgotten: dict[tuple[str, str], str | None] = {}
        for kind in {kind for kind, _ in changes}:
            known = self._kinds.get(kind, {})
            new = sum(
                1
                for (other, key), value in changes.items()
                if other == kind and value is not None and key not in known
            )
            excess = len(known) + new - MAX_PER_KIND
            if excess > 0:
                candidates = (key for key in known if (kind, key) not in changes)
                forgotten.update(
                    {(kind, key): None for key, _ in zip(candidates, range(excess), strict=False)}
                )
        return {**forgotten, **changes} if forgotten else changes

    @staticmethod
    def check(changes: FactChanges) -> None:
        """Refuse what cannot be kept.

        Raises:
            StoreUnusable: a key or value is too long, or no text that can be stored.
        """
        for (kind, key), value in changes.items():
            if len(kind) > MAX_KEY_CHARS or len(key) > MAX_KEY_CHARS:
                raise StoreUnusable(f"the key of a fact is longer than {MAX_KEY_CHARS} characters")
            if value is not None and len(value) > MAX_VALUE_CHARS:
                raise StoreUnusable(f"a fact is longer than {MAX_VALUE_CHARS} characters")
            try:
                f"{kind}{key}{value}".encode()
            except UnicodeEncodeError as error:
                raise StoreUnusable(f"a fact cannot be stored: {error}") from error
