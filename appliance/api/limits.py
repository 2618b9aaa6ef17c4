"""How often one may ask, and how often guess, before it is to wait."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable

_log = logging.getLogger(__name__)

MAX_FAILED_LOGINS = 10
"""From one address in a row; then one more every `FAILED_LOGIN_S`."""
FAILED_LOGIN_S = 6.0
MAX_STRANGE_REQUESTS, STRANGE_REQUESTS_PER_S = 300, 50.0
"""Of one address without a name: in a row, and from then on. A page that is opened asks some thirty times."""
MAX_KNOWN_REQUESTS, KNOWN_REQUESTS_PER_S = 5_000, 1_000.0
"""Of one name at one address: a program that sends one message a request is quicker than a person."""
MAX_REMEMBERED = 4_096
"""Addresses and names that are counted; beyond it the one that was quiet the longest is forgotten."""


class Limits:
    """Counts requests and failed logins by who asks, and says how long one is to wait."""

    def __init__(self, mono: Callable[[], float]) -> None:
        self._mono = mono
        self._failed = Buckets(MAX_FAILED_LOGINS, 1 / FAILED_LOGIN_S)
        self._strangers = Buckets(MAX_STRANGE_REQUESTS, STRANGE_REQUESTS_PER_S)
        self._known = Buckets(MAX_KNOWN_REQUESTS, KNOWN_REQUESTS_PER_S)
        self._guesses: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()
        """The newest of each address, as digests."""
        self._let_in: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        """Who was known at which address: others who guess there do not shut them out."""

    def count(self, who: tuple[str, str] | None, address: str, *, guess: bytes = b"") -> float:
        """Count a request of somebody known, or of a stranger: the seconds to wait, 0 where it may be served."""
        if guess and not self._is_repeated(address, guess):
            return self._count_guess(address)
        if who is None:
            return self._strangers.take(address, self._mono())
        return self._let_in_s(who, address) or self._known.take((*who, address), self._mono())

    def count_login(self, who: tuple[str, str] | None, address: str, *, guess: bytes) -> float:
        """As `count`, of a token that was brought, where requests are bounded by other means."""
        if who is not None:
            return self._let_in_s(who, address)
        return 0.0 if self._is_repeated(address, guess) else self._count_guess(address)

    def _count_guess(self, address: str) -> float:
        wait_s = self._failed.take(address, self._mono())
        if wait_s > 0 and self._failed.is_news(address):
            _log.warning("too many failed logins", extra={"fields": {"from": address}})
        return wait_s

    def _let_in_s(self, who: tuple[str, str], address: str) -> float:
        """How long somebody known waits since others guess there: a right guess is told no earlier than a wrong one."""
        there = (*who, address)
        if there not in self._let_in and (wait_s := self._failed.wait_s(address, self._mono())):
            return wait_s
        self._let_in[there] = None
        self._let_in.move_to_end(there)
        if len(self._let_in) > MAX_REMEMBERED:
            self._let_in.popitem(last=False)
        return 0.0

    def _is_repeated(self, address: str, guess: bytes) -> bool:
        """Whether it was told already that this is no token: who asks again with it finds nothing out."""
        known = self._guesses.setdefault(address, OrderedDict())
        self._guesses.move_to_end(address)
        if guess in known:
            known.move_to_end(guess)
            return True
        if self._failed.wait_s(address, self._mono()) > 0:
            return False  # it is not looked at
        known[guess] = None
        if len(known) > MAX_FAILED_LOGINS:
            known.popitem(last=False)
        if len(self._guesses) > MAX_REMEMBERED:
            self._guesses.popitem(last=False)
        return False


class Logins:
    """Of a listener that has one token: how long who brings one has to wait, for as many others were wrong."""

    def __init__(self, mono: Callable[[], float]) -> None:
        self._limits = Limits(mono)
        self._salt = os.urandom(16)

    def wait_s(self, address: str, given: str, *, is_right: bool) -> float:
        """Count it; 0 where it may be looked at."""
        raw = given.encode("utf-8", "surrogateescape")
        guess = hashlib.blake2b(raw, digest_size=16, key=self._salt).digest()
        # who knew the one before is a stranger to the token that came in its place
        who = ("token", guess.hex()) if is_right else None
        return self._limits.count_login(who, address, guess=guess)


def say_too_many(wait_s: float) -> str:
    """To somebody who has to wait since too many tokens were wrong."""
    return f"too many failed logins from here; try again in {max(1, math.ceil(wait_s))} s"


class Buckets:
    """For each key so many at once, and so many per second."""

    def __init__(self, most: float, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """What is left, and since when."""
        self._told: set[Hashable] = set()

    def take(self, key: Hashable, now_mono: float) -> float:
        """Take one; 0, or the seconds until there is one."""
        left = self._look(key, now_mono)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[key] = (left - 1 if wait_s == 0 else left, now_mono)
        self._left.move_to_end(key)
        if wait_s == 0:
            self._told.discard(key)
        if len(self._left) > MAX_REMEMBERED:
            gone, _ = self._left.popitem(last=False)
            self._told.discard(gone)
        return wait_s

    def wait_s(self, key: Hashable, now_mono: float) -> float:
        """The seconds until there is one; nothing is taken."""
        return max(0.0, 1 - self._look(key, now_mono)) / self._per_s

    def is_news(self, key: Hashable) -> bool:
        """Whether nobody asked since there was one."""
        is_new = key not in self._told
        self._told.add(key)
        return is_new

    def _look(self, key: Hashable, now_mono: float) -> float:
        left, since_mono = self._left.get(key, (self._most, now_mono))
        return min(self._most, left + (now_mono - since_mono) * self._per_s)
