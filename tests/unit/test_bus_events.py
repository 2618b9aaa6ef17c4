"""A broker that is away for days is told once; tries that fail with the same words are lines for who looks for them."""

from appliance.bus.events import BusEvents, Repeats, Reporter


class Told:
    def __init__(self) -> None:
        self.now_mono = 0.0
        self.news: list[str] = []
        self.repeats: list[str] = []
        events = BusEvents(on_error=self.news.append, on_repeated_error=self.repeats.append)
        self.reporter = Reporter(events, Repeats(lambda: self.now_mono))

    def report_for(self, seconds: int, text: str, kind: str = "") -> None:
        """Every five seconds."""
        for _ in range(0, seconds, 5):
            self.now_mono += 5.0
            self.reporter.report(text, kind)


def test_the_same_failure_is_news_once_however_long_it_lasts():
    told = Told()
    told.report_for(3 * 86_400, "connection refused")
    assert told.news == ["connection refused"]
    assert len(told.repeats) == 3 * 86_400 / 5 - 1


def test_another_failure_is_news_and_so_is_the_first_once_a_connection_was_there():
    told = Told()
    told.report_for(60, "connection refused")
    told.report_for(60, "login refused")
    told.reporter.connected(is_first=False)
    told.report_for(60, "connection refused")
    assert told.news == ["connection refused", "login refused", "connection refused"]


def test_servers_that_fail_in_turns_are_news_once_each():
    told = Told()
    for _ in range(1_000):
        told.report_for(5, "one refuses")
        told.report_for(5, "two is not found")
    assert told.news == ["one refuses", "two is not found"]


def test_what_was_quiet_for_ten_minutes_is_news_again():
    told = Told()
    told.report_for(60, "denied: a", kind="denied")
    told.now_mono += 600
    told.report_for(60, "denied: b", kind="denied")
    assert told.news == ["denied: a", "denied: b"]
