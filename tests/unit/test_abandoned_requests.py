"""Who has left is remembered, and only pieces of answers for a caller alone are unwanted then."""

import pytest

from appliance.core.message import CALLER_FILE, Message
from appliance.core.specs import AckOn
from appliance.dialect.headers import MORE_HEADER, NOBODY
from appliance.dialect.spoken import make_dialect
from appliance.wire.headers import encode_headers
from appliance.workers.incoming import Incoming
from appliance.workers.waiters import MAX_REMEMBERED, AbandonedRequests

REQUEST = Message(id=7, file_name=CALLER_FILE)
PIECE = Message(is_reply=True, previous_message=REQUEST)
MORE = {MORE_HEADER: "1"}


def make_work(message, headers):
    return Incoming(
        message, NOBODY, AckOn.RECEIVED, None, b"", encode_headers(headers), "", make_dialect()
    )


@pytest.mark.parametrize(
    ("message", "headers", "expected"),
    [
        (PIECE, MORE, True),
        (PIECE, {}, False),
        (PIECE._replace(is_reply=False), MORE, False),
        (PIECE._replace(previous_message=None), MORE, False),
        (PIECE._replace(previous_message=REQUEST._replace(id=8)), MORE, False),
        (PIECE._replace(previous_message=REQUEST._replace(file_name="log")), MORE, False),
    ],
)
def test_only_a_piece_of_an_answer_whose_caller_has_left_is_unwanted(message, headers, expected):
    abandoned = AbandonedRequests()
    assert not abandoned.is_unwanted(make_work(PIECE, MORE), PIECE)
    abandoned.left([7])
    assert abandoned.is_unwanted(make_work(message, headers), message) is expected


def test_the_newest_are_remembered():
    abandoned = AbandonedRequests()
    abandoned.left(range(7, 7 + MAX_REMEMBERED + 1))
    assert not abandoned.is_unwanted(make_work(PIECE, MORE), PIECE)
    newest = REQUEST._replace(id=7 + MAX_REMEMBERED)
    piece = PIECE._replace(previous_message=newest)
    assert abandoned.is_unwanted(make_work(piece, MORE), piece)
