"""How many nodes are asked at a time, and how many may fail."""

import pytest

from appliance.core.batches import Amount, split


@pytest.mark.parametrize(
    ("text", "total", "size", "allowed"),
    [
        ("5", 50, 5, 5),
        ("0", 50, 1, 0),
        ("10%", 50, 5, 5),
        # a batch has a node at least, and a part of a node is none that may fail
        ("10%", 9, 1, 0),
        ("33.3%", 10, 4, 3),
        ("100%", 7, 7, 7),
        ("0%", 7, 1, 0),
        (" 12 ", 7, 12, 12),
    ],
)
def test_an_amount_is_a_number_or_a_part_of_all(text, total, size, allowed):
    amount = Amount.read(text)
    assert (amount.at_least_one_of(total), amount.at_most_of(total)) == (size, allowed)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "5 %", "x", "٣", "1e3", "1" * 7])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"is no number|is more than"):
        Amount.read(text)


def test_batches_hold_everything_once_and_in_order():
    assert split("abcdefg", 3) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert split("", 3) == []
