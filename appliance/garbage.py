"""Building something large whole: the interpreter looks for no garbage meanwhile, since all of it stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_look_for_garbage() -> Iterator[None]:
    """For work with an end that is near: of the check of 110,000 subscriptions half the time went into looks."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
