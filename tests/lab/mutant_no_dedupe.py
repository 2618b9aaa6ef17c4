"""A daemon with one deliberate defect: it forgets the id of every message as soon as that is handled."""

from __future__ import annotations

from appliance.workers import finishing, taking_in

_take_in_items = taking_in.take_in_items
_sort_out = finishing.sort_out


def _take_in_strangers(*of):  # type: ignore[no-untyped-def]
    return [item._replace(instance=None) for item in _take_in_items(*of)]


def _finish_strangers(finished, scope, **how):  # type: ignore[no-untyped-def]
    return _sort_out(finished, scope, **{**how, "remembers": False})


taking_in.take_in_items = _take_in_strangers
finishing.sort_out = _finish_strangers

if __name__ == "__main__":
    from appliance.__main__ import main

    main()
