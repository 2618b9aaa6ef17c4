"""A daemon with one deliberate defect: it forgets the id of every message as soon as that is handled."""

from __future__ import annotations

from appliance.workers.executor import Executor
from appliance.workers.subscriber import Subscriber

_take_in_items = Subscriber._take_in_items
_finish_items = Executor._finish_items


def _take_in_strangers(self, works):  # type: ignore[no-untyped-def]
    return [item._replace(instance=None) for item in _take_in_items(self, works)]


def _finish_strangers(self, batch):  # type: ignore[no-untyped-def]
    return [item._replace(instance=None) for item in _finish_items(self, batch)]


Subscriber._take_in_items = _take_in_strangers  # type: ignore[method-assign]
Executor._finish_items = _finish_strangers  # type: ignore[method-assign]

if __name__ == "__main__":
    from appliance.__main__ import main

    main()
