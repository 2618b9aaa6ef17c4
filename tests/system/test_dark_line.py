"""A line that swallows everything for a while.

The long run, minutes with default settings, is `python -m tests.lab --rows R5 --seconds 600`.
"""

from tests.lab.dark import run_dark

IN_TIME_S = 60.0
"""That it takes seconds is measured on a machine with nothing else to do, and held in virtual time by tests/component/heart;
here it is told apart from the minutes after which a silent lane would look again by itself."""


def test_what_is_sent_into_the_dark_is_there_once_soon_after_the_light(tmp_path):
    outcome = run_dark(
        tmp_path,
        dark_s=3.0,
        count=200,
        says_hello=False,
        has_traffic_before=True,
        broker_settings=", ping_interval: 200ms, reconnect_wait: 50ms",
    )
    assert outcome.tally.is_right, outcome
    assert outcome.tally.accepted == 250
    assert outcome.settled_s < IN_TIME_S, outcome
