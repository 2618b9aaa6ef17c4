"""What the headers of a reply say of it, whoever wrote them."""

import pytest

from appliance.dialect.headers import PROGRESS_HEADER
from appliance.workers.replies import read_reply_facts


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("5/9", (5, 9)),
        ("9/9", (9, 9)),
        ("0/0", (0, 0)),
        ("1/0", None),
        ("10000000000000000000/1", None),
        ("-1/5", None),
        ("5", None),
        ("9" * 30 + "/" + "9" * 30, None),
    ],
)
def test_progress_is_a_part_of_a_whole_or_none_at_all(text, progress):
    assert read_reply_facts({PROGRESS_HEADER: text}).progress == progress
