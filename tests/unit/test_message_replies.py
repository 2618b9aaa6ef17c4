"""What rides along with an answer: the request as a Go node would send it back."""

import pytest

from appliance.core.message import (
    DEFAULT_REPLY_METHOD,
    MAX_BODY_NUMBER,
    Message,
    body_number,
    make_reply,
)
from appliance.outbox.ids import IdSource


@pytest.mark.parametrize(
    ("asked_for", "named"), [("", DEFAULT_REPLY_METHOD), ("REQPong", "REQPong")]
)
def test_the_request_beside_an_answer_names_the_reply_method_that_was_used(asked_for, named):
    reply = make_reply(
        Message(from_node="central", data=("x",), reply_method=asked_for), "ship1", "y"
    )
    assert reply.method == named
    assert reply.previous_message is not None
    assert (reply.previous_message.reply_method, reply.previous_message.data) == (named, None)


def test_the_number_in_a_body_is_one_that_a_32_bit_node_can_read_and_ids_rarely_share_it():
    ids = IdSource(0, lambda: 1_800_000_000.0)
    burst = [ids.next() for _ in range(5_000)]
    spaced = [burst[0] + (second * 1_000 << 20) for second in range(1, 5_000)]
    numbers = [body_number(message_id) for message_id in burst + spaced]
    assert all(0 < number <= MAX_BODY_NUMBER for number in numbers)
    assert len(set(numbers)) >= len(numbers) - 2  # as few as of random ones


def test_what_is_a_number_already_stays_as_it_is():
    assert [body_number(number) for number in (0, 1, 7, MAX_BODY_NUMBER)] == [
        0,
        1,
        7,
        MAX_BODY_NUMBER,
    ]
    assert body_number(body_number(2**61)) == body_number(2**61)
