"""Settling places: however they come, the same as one after the other."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from appliance.outbox.blobs import SLOT_BITS
from appliance.outbox.segments import Segments

SIZES = {1: 5, 2: 1, 4: 9}
"""Messages of the commits that there are."""


def make_segments() -> Segments:
    segments = Segments()
    for seq, count in SIZES.items():
        ends = array("I", [10 * (at + 1) * (at + 2) for at in range(count)])
        segments.add(seq, 1_000, ends, remembers=False)
    return segments


def facts_of(segments: Segments):
    return (
        segments.live_bytes,
        sorted(segments.free),
        segments.free_bytes,
        dict(segments.tries),
        [(one.live, one.live_bytes, bytes(one.state)) for one in segments.by_seq.values()],
    )


def place(seq: int, slot: int) -> int:
    return seq << SLOT_BITS | slot


def of_commit(seq: int) -> list[int]:
    return [place(seq, slot) for slot in range(SIZES[seq])]


ANY_PLACE = st.builds(place, st.integers(1, 5), st.integers(0, 11))
RUN = st.builds(
    lambda seq, slot, count: [place(seq, slot + at) for at in range(count)],
    st.integers(1, 5),
    st.integers(0, 9),
    st.integers(1, 10),
)
PIECES = st.one_of(RUN, st.lists(ANY_PLACE, max_size=6), RUN.flatmap(st.permutations))


@given(st.lists(st.lists(PIECES, max_size=4), max_size=3), st.sets(ANY_PLACE))
def test_a_list_of_places_is_settled_as_they_would_be_one_by_one(batches, tried):
    together, alone = make_segments(), make_segments()
    tries = (1, 0.0, "", 1, "")
    for segments in (together, alone):
        segments.tries.update({one: tries for one in tried if segments.is_live(one)})
    for batch in batches:
        places = [one for piece in batch for one in piece]
        together.settle(places)
        for one in places:
            alone.settle([one])
        assert facts_of(together) == facts_of(alone)
        assert not any(together.is_live(one) for one in places)


def test_what_is_left_of_one_commit_and_the_beginning_of_the_next_go_together():
    segments = make_segments()
    first, last = of_commit(1), of_commit(4)
    segments.settle(first[:2])
    segments.settle([*first[2:], *of_commit(2), *last[:4]])
    assert list(segments.free) == [1, 2]
    assert [segments.is_live(one) for one in last] == [False] * 4 + [True] * 5
