"""A daemon with one deliberate defect: it forgets the id of every message as soon as that is handled."""

from __future__ import annotations

from dataclasses import replace

from appliance.workers.executor import Executor
from appliance.workers.subscriber import Subscriber

_take_in_items = Subscriber._take_in_items
_sort_out = Executor._sort_out


def _take_in_strangers(self, works):  # type: ignore[no-untyped-def]
    return [item._replace(instance=None) for item in _take_in_items(self, works)]


def _finish_strangers(self, batch):  # type: ignore[no-untyped-def]
    done, items = _sort_out(self, batch)
    strangers = [replace(run, instance=None, message_ids=[]) for run in done]
    return strangers, [item._replace(instance=None) for item in items]


Subscriber._take_in_items = _take_in_strangers  # type: ignore[method-assign]
Executor._sort_out = _finish_strangers  # type: ignore[method-assign]

if __name__ == "__main__":
    from appliance.__main__ import main

    main()
