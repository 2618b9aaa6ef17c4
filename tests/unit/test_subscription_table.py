"""What a bus is subscribed to is found by what was asked for, however much there is."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.bus.subscription import NatsSubscription, SubscriptionTable


async def never(_: NatsSubscription) -> None:
    raise AssertionError


def make(sid: int, subject: str, queue: str) -> NatsSubscription:
    return NatsSubscription(
        sid=str(sid),
        subject=subject,
        queue=queue,
        on_messages=lambda _: None,
        on_denied=None,
        stop=never,
    )


interests = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["", "q", "r"]))


@given(st.lists(interests, max_size=20), st.lists(st.integers(0, 19), max_size=25))
def test_the_table_finds_what_a_search_of_all_finds(
    asked_for: list[tuple[str, str]], leaving: list[int]
) -> None:
    table = SubscriptionTable()
    made = [make(sid, *interest) for sid, interest in enumerate(asked_for)]
    for item in made:
        table.add(item)
    for number in leaving:
        if number < len(made):
            table.remove(made[number])  # some twice
    left = [item for number, item in enumerate(made) if number not in leaving]
    assert list(table.by_sid.values()) == left
    for item in made:
        same = [o for o in left if (o.subject, o.queue) == (item.subject, item.queue)]
        assert list(table.same_interest(item.subject, item.queue)) == same
        joined = [o for o in same if o is not item and item.queue]
        assert list(table.joined_with(item)) == joined


def test_an_emptied_table_has_nobody_left() -> None:
    table = SubscriptionTable()
    item = make(1, "a", "q")
    table.add(item)
    table.clear()
    assert table.same_interest("a", "q") == ()
    assert not table.by_sid
    table.remove(item)
