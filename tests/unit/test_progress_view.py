"""How far a copy is, as a person sees it and as a log does."""

import io
import threading

import pytest

from appliance.cli import progress_view
from appliance.cli.progress_view import ProgressView, describe_amount, say_bytes

MB = 1_000_000


class Screen(io.StringIO):
    """Keeps what was drawn, one entry for each time."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal

    @property
    def drawn(self):
        return [text.rstrip() for text in self.getvalue().split("\r\x1b[K")[1:]]


class Bench:
    def __init__(self, *, is_terminal=True, is_quiet=False):
        self.now = 100.0
        self.screen = Screen(is_terminal)
        self.view = ProgressView(stream=self.screen, is_quiet=is_quiet, clock=lambda: self.now)

    def show(self, after_s, done, total=200 * MB):
        self.now += after_s
        self.view.show(done, total)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def test_a_terminal_shows_share_sizes_speed_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    bench = Bench()
    bench.view.begin("backup.tar")
    bench.show(0.5, 0)
    bench.show(0.5, 20 * MB)
    bench.show(1, 100 * MB)
    bench.now += 2
    bench.view.finish(200 * MB)
    name = f"{'backup.tar':30s}"
    assert bench.screen.drawn == [
        f"{name}  [....................]   0%  0 B of 200 MB",
        f"{name}  [##..................]  10%  20.0 MB of 200 MB  40.0 MB/s  0:05 left",
        f"{name}  [##########..........]  50%  100 MB of 200 MB  66.7 MB/s  0:02 left",
        f"{name}  [####################] 100%  200 MB  50.0 MB/s  in 0:04",
    ]
    assert bench.screen.getvalue().endswith("\n")


def test_a_copy_that_was_quick_tells_no_speed():
    bench = Bench()
    bench.view.begin("a")
    bench.now += 0.2
    bench.view.finish(7)
    assert bench.screen.drawn[-1].endswith("] 100%  7 B")


def test_nothing_is_drawn_where_no_size_is_known_and_nothing_twice_in_a_moment():
    bench = Bench()
    bench.view.begin("a")
    bench.show(0, 0, 0)
    for step in range(340):
        bench.show(0.001, step * MB)
    assert len(bench.screen.drawn) == 1


def test_before_the_first_byte_it_waits_and_in_the_middle_it_stalls():
    bench = Bench()
    bench.view.begin("a")
    bench.show(3, 0)
    assert bench.screen.drawn[-1].endswith("0 B of 200 MB  waiting")
    bench.show(1, 50 * MB)
    assert "MB/s" in bench.screen.drawn[-1]
    bench.show(7, 50 * MB)
    assert bench.screen.drawn[-1].endswith("50.0 MB of 200 MB  stalled")
    bench.show(1, 60 * MB)
    assert "MB/s" in bench.screen.drawn[-1]


def test_it_stalls_too_when_nothing_at_all_is_heard():
    bench = Bench()
    bench.view.begin("a")
    bench.view.tick()
    bench.now += 9
    bench.view.tick()
    assert bench.screen.drawn == []
    bench.show(1, 50 * MB)
    bench.now += 4
    bench.view.tick()
    assert len(bench.screen.drawn) == 1
    bench.now += 2
    bench.view.tick()
    assert bench.screen.drawn[-1].endswith("50.0 MB of 200 MB  stalled")
    bench.view.end()
    bench.view.tick()
    assert len(bench.screen.drawn) == 2


def test_while_somebody_waits_it_ticks_by_itself_and_not_afterwards(monkeypatch):
    monkeypatch.setattr(progress_view, "TICK_S", 0.001)
    bench = Bench()
    ticks = threading.Semaphore(0)
    monkeypatch.setattr(bench.view, "tick", ticks.release)
    with bench.view.ticking():
        assert all(ticks.acquire(timeout=10) for _ in range(3))
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_the_speed_is_that_of_the_last_seconds():
    bench = Bench()
    bench.view.begin("a")
    bench.show(0, 0, 1_000 * MB)
    bench.show(1, 100 * MB, 1_000 * MB)
    for step in range(1, 21):
        bench.show(1, 100 * MB + step * MB, 1_000 * MB)
    assert "1.0 MB/s" in bench.screen.drawn[-1]


def test_a_long_name_is_cut_so_that_the_facts_are_seen():
    bench = Bench()
    bench.view.begin("/a/very/long/path" * 20 + "/the-end.tar")
    bench.show(1, 20 * MB)
    (line,) = bench.screen.drawn
    assert "/the-end.tar  [##" in line
    assert line.startswith("…")
    assert len(line) < 100


@pytest.mark.parametrize("width", ["20", "40", "60", "80", "100", "200"])
def test_a_line_never_is_wider_than_the_terminal(monkeypatch, width):
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", width)
    bench = Bench()
    for name in ("x", "x" * 200, "船" * 100):
        bench.view.begin(name)
        bench.show(1, 0)
        bench.show(1, 123 * MB)
        bench.view.finish(200 * MB)
    assert all(cell_len(line) < int(width) for line in bench.screen.drawn)
    assert int(width) < 80 or all("%" in line for line in bench.screen.drawn)


def test_control_characters_of_a_name_do_nothing_to_the_terminal():
    bench = Bench()
    bench.view.begin("a\x1b[31m\nb\r")
    bench.show(1, 1 * MB)
    assert "\x1b[31m" not in bench.screen.getvalue()
    assert "\n" not in bench.screen.getvalue()


def test_other_lines_get_room_and_the_bar_comes_back():
    bench = Bench()
    bench.view.begin("a")
    bench.show(1, 1 * MB)
    bench.view.clear()
    assert bench.screen.getvalue().endswith("\r\x1b[K")
    bench.view.clear()
    bench.view.end()
    assert bench.screen.getvalue().endswith("\r\x1b[K")


def test_elsewhere_a_line_comes_now_and_then():
    bench = Bench(is_terminal=False)
    bench.view.begin("backup.tar")
    for second in range(1, 26):
        bench.show(1, second * MB)
    bench.view.finish(200 * MB)
    assert bench.screen.getvalue().splitlines() == [
        "backup.tar: 5% 10.0 MB of 200 MB 1.0 MB/s 3:10 left",
        "backup.tar: 10% 20.0 MB of 200 MB 1.0 MB/s 3:00 left",
    ]


def test_what_is_read_beforehand_is_shown_to_people_who_wait():
    bench = Bench()
    bench.view.begin("a")
    bench.view.show_reading(1 * MB, 4 * MB)
    assert bench.screen.drawn == []
    bench.now += 2
    bench.view.show_reading(3 * MB, 4 * MB)
    assert bench.screen.drawn[-1].endswith("75% of 4.0 MB  read")
    other = Bench(is_terminal=False)
    other.view.begin("a")
    other.now += 60
    other.view.show_reading(3 * MB, 4 * MB)
    assert other.screen.getvalue() == ""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_quiet_is_quiet(is_terminal):
    bench = Bench(is_terminal=is_terminal, is_quiet=True)
    bench.view.begin("a")
    bench.view.show_reading(1, 2)
    bench.show(60, 1 * MB)
    bench.view.finish(200 * MB)
    assert bench.screen.getvalue() == ""


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1_000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1.5e9, "1.5 GB"),
        (2e12, "2.0 TB"),
        (3e15, "3000 TB"),
    ],
)
def test_sizes_are_short_and_never_round_to_a_thousand(count, said):
    assert say_bytes(count) == said


def test_all_is_only_said_when_it_is_all():
    assert describe_amount(199 * MB + 999_999, 200 * MB).startswith(" 99%")
    assert describe_amount(200 * MB, 200 * MB).startswith("100%")


def test_more_than_all_fills_the_bar_and_no_memory(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bench = Bench()
    bench.view.begin("x")
    bench.show(1, 10**25, total=1)
    assert "[####################]" in bench.screen.drawn[-1]
