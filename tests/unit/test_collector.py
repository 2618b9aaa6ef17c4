"""Garbage is looked for when workers have come and gone, not while they are made."""

import gc
from collections.abc import Iterator

import pytest

from appliance.garbage import TURNOVER_WORKERS, Collector


class Circle:
    """Only a look of the collector frees it."""

    def __init__(self, freed: list[str]) -> None:
        self.me = self
        self._freed = freed

    def __del__(self) -> None:
        self._freed.append("freed")


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def started_and_one_gone(workers: int) -> tuple[Collector, list[str]]:
    """After a start of so many workers, of which one that only a look frees has gone; what was freed so far."""
    freed: list[str] = []
    collector = Collector()
    with collector.starting():
        circle = Circle(freed)
    collector.settle(moves=workers, workers=workers)
    del circle
    return collector, freed


def test_nothing_is_looked_at_while_the_daemon_starts() -> None:
    collector = Collector()
    with collector.starting():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_start_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(RuntimeError), Collector().starting():
        raise RuntimeError
    assert gc.isenabled()


def test_what_the_start_made_is_not_looked_at_again_while_few_workers_move() -> None:
    collector, freed = started_and_one_gone(workers=20)
    collector.settle(moves=20 + TURNOVER_WORKERS, workers=20)
    gc.collect()
    assert freed == []


def test_workers_of_the_start_that_went_are_freed_once_many_have_moved() -> None:
    collector, freed = started_and_one_gone(workers=20)
    collector.settle(moves=21 + TURNOVER_WORKERS, workers=20)
    assert freed == ["freed"]


def test_a_large_fleet_moves_a_tenth_of_itself_before_all_is_looked_at_again() -> None:
    collector, freed = started_and_one_gone(workers=50_000)
    collector.settle(moves=55_000, workers=50_000)
    assert freed == []
    collector.settle(moves=55_001, workers=50_000)
    assert freed == ["freed"]
