"""What the page makes of numbers and times; its modules are asked where they live, in the browser."""

import pytest

from tests.page.conftest import ONE_WORKER

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = ONE_WORKER

TOTALS = {
    "handled": 0, "acked": 0, "accepted": 0, "failed": 0, "missed": 0, "dead": 0, "in_flight": 0,
    "delivery_seconds": {"buckets": [[0.001, 0], [0.01, 0], [None, 0]]},
}  # fmt: skip


def ask(page, module, body):
    return page.evaluate(f"async () => {{ const m = await import('/page/{module}.js'); {body} }}")


def test_a_percentile_is_read_within_its_bucket_and_of_the_time_between_two_polls_only(page):
    body = """
      const at = (...counts) => ({ buckets: counts.map((count, index) => [[0.001, 0.01, null][index], count]) });
      return [
        m.percentile(at(0, 0, 0), at(0, 0, 0), 0.5),
        m.percentile(at(0, 0, 0), at(10, 10, 10), 0.5),
        m.percentile(at(10, 10, 10), at(10, 20, 20), 0.5),
        m.percentile(at(0, 0, 0), at(0, 0, 4), 0.95),
      ];
    """
    nothing, fast, slower, beyond = ask(page, "series", body)
    assert nothing is None
    assert fast == pytest.approx(0.0005)
    assert slower == pytest.approx(0.0055)
    assert beyond == 0.01  # all that is known of the last bucket


def test_a_rate_is_what_happened_between_two_polls_and_a_restart_or_a_long_sleep_is_none(page):
    body = f"""
      const totals = (handled) => ({{ ...{str(TOTALS).replace("None", "null")}, handled, acked: handled }});
      const traffic = new m.Traffic();
      const rates = (handled, atMs) => traffic.take(totals(handled), {{ pending: 3 }}, atMs).map((point) => point.handled);
      const polls = [[100, 0], [120, 2000], [125, 2100], [160, 4000], [5, 6000], [9, 8000], [999, 60000]];
      return polls.map((poll) => rates(...poll));
    """
    first, second, too_soon, third, restarted, after, slept = ask(page, "series", body)
    assert first == []
    assert second == too_soon == [10]
    assert third == restarted == [10, 20]
    assert after == slept == [10, 20, 2]


def test_times_and_numbers_are_said_shortly(page):
    body = """
      return [
        [0, 59.6, 119, 120, 7199, 7200, 172800].map(m.span),
        [null, 0.0005, 0.0234, 0.9, 1.26, 42, 3600].map(m.duration),
        [null, 0, 0.04, 2.04, 9.96, 1234567].map(m.rate),
        m.shortDigest("sha256:0123456789abcdef"), m.plural(1, "node"), m.plural(1000, "node"),
      ];
    """
    spans, durations, rates, *words = ask(page, "words", body)
    assert spans == ["0 s", "60 s", "119 s", "2 min", "120 min", "2 h", "2 d"]
    assert durations == ["–", "0.5 ms", "23.4 ms", "900 ms", "1.3 s", "42 s", "60 min"]
    assert rates == ["–", "0", "0.04", "2.0", "10", "1,234,567"]
    assert words == ["0123456789ab", "1 node", "1,000 nodes"]
