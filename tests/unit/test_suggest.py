"""Which known word was meant."""

import pytest

from appliance.core.suggest import find_nearest


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("REQPnig", ["REQPing", "REQPong"], "REQPing"),
        ("REQPnog", ["REQPing", "REQPong"], "REQPong"),
        ("subscirbe", ["subscribe", "publish"], "subscribe"),
        ("reqpnig", ["REQPing", "REQPong"], "REQPing"),
        ("subscrib", ["subscribe", "publish"], "subscribe"),
        ("REQPing", ["REQPing", "REQPong"], "REQPing"),
        ("entirely else", ["subscribe", "publish"], None),
        ("", [], None),
    ],
)
def test_letters_that_changed_places_are_the_likeliest_slip(word, known, meant):
    assert find_nearest(word, known) == meant
