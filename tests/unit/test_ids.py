"""Ids of messages: in the order of time, and such that nobody can tell the next ones beforehand."""

from appliance.outbox.ids import EPOCH_MS, IdSource, RandomBits, id_time

NOW = 1_800_000_000.0


def test_ids_ascend_over_a_clock_that_stands_still_goes_on_and_steps_back():
    times = iter([NOW, NOW, NOW + 0.001, NOW - 60, NOW + 0.002])
    ids = IdSource(0, lambda: next(times), RandomBits().draw)
    given = [ids.next() for _ in range(5)]
    assert given == sorted(set(given))
    assert all(-0.001 <= id_time(one) - NOW < 0.005 for one in given)


def test_nobody_who_knows_the_time_knows_the_next_id():
    """With it he could use it up: the message that gets it would be taken for a repeat of his."""
    given = {IdSource(0, lambda: NOW, RandomBits().draw).next() for _ in range(50)}
    assert len(given) > 40


def test_nobody_who_has_one_of_several_messages_knows_the_id_of_the_next_one():
    """Each node has one of a message to several: the one that is there would know what those that are away will get."""
    steps = []
    for _ in range(50):
        ids = IdSource(0, lambda: NOW, RandomBits().draw)
        for _ in range(5):
            first = ids.next()
        steps.append(ids.next() - first)
    assert len(set(steps)) > 45
    assert max(steps) > 1 << 16


def test_ids_come_no_further_ahead_of_the_clock_than_a_burst_takes_them_and_the_clock_comes_after():
    now = NOW
    ids = IdSource(0, lambda: now, RandomBits().draw)
    for _ in range(20_000):
        last = ids.next()
    assert id_time(last) - now < 3.0
    for _ in range(4_000):
        now += 0.001
        for _ in range(8):
            last = ids.next()
    assert id_time(last) - now < 1.5
    now = NOW - 3_600.0
    behind = id_time(ids.next()) - now
    for _ in range(4_000):
        now += 0.001
        for _ in range(8):
            last = ids.next()
    assert id_time(last) - now < behind, "a clock that was set back comes after them"
    assert last > (int(now * 1_000) - EPOCH_MS) << 20


def test_random_numbers_are_within_their_bits_and_all_of_these_occur():
    bits = RandomBits()
    for width in (1, 10, 19):
        found = [bits.draw(width) for _ in range(5_000)]
        assert max(found) < 1 << width
        assert max(found) >> (width - 1) == 1
        assert min(found) >> (width - 1) == 0
