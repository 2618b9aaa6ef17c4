"""What rides along with an answer: the request as a Go node would send it back."""

import pytest

from appliance.core.message import DEFAULT_REPLY_METHOD, Message, make_reply


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
