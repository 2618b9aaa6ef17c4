"""A process that stood still knows it by the clock, for the reads that come first and for a moment after."""

from types import SimpleNamespace

from appliance.workers.stall import AFTER_S, STALL_S, TICK_S, StallWatch


def test_without_ticks_nothing_is_ever_a_stall():
    clock = SimpleNamespace(now=5.0)
    watch = StallWatch(lambda: clock.now)
    clock.now = 1e9
    assert not watch.may_be_stale


def test_a_loop_that_goes_round_is_none():
    clock = SimpleNamespace(now=5.0)
    watch = StallWatch(lambda: clock.now)
    for _ in range(100):
        watch.tick()
        clock.now += 2 * TICK_S
        assert not watch.may_be_stale


def test_what_is_read_before_the_first_tick_and_soon_after_may_be_stale():
    clock = SimpleNamespace(now=5.0)
    watch = StallWatch(lambda: clock.now)
    watch.tick()
    clock.now += STALL_S + 0.1
    assert watch.may_be_stale
    watch.tick()
    assert watch.may_be_stale
    for _ in range(5):
        clock.now += AFTER_S / 4
        watch.tick()
    assert not watch.may_be_stale
