"""Ids of messages: in the order of time, and such that nobody can tell the next ones beforehand."""

from appliance.outbox.ids import IdSource, begin_anywhere, id_time

NOW = 1_800_000_000.0


def test_ids_ascend_over_a_clock_that_stands_still_goes_on_and_steps_back():
    times = iter([NOW, NOW, NOW + 0.001, NOW - 60, NOW + 0.002])
    ids = IdSource(0, lambda: next(times), begin_anywhere)
    given = [ids.next() for _ in range(5)]
    assert given == sorted(set(given))
    assert [round(id_time(one) - NOW, 3) for one in given] == [0, 0, 0.001, 0.001, 0.002]


def test_nobody_who_knows_the_time_knows_the_next_id():
    """With it he could use it up: the message that gets it would be taken for a repeat of his."""
    given = {IdSource(0, lambda: NOW, begin_anywhere).next() for _ in range(50)}
    assert len(given) > 40
