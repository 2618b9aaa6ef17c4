"""The history on disk: what is kept, what is forgotten, and which record a name stands for."""

import contextlib
import errno
import time

import pytest

import appliance.reconcile.history
from appliance.errors import RequestInvalid
from appliance.reconcile.history import (
    KEEP_RECORDS,
    MAX_CHARACTERS,
    MAX_LINES,
    MAX_UNWRITTEN,
    History,
    Recorder,
    find_differences,
)
from appliance.reconcile.reload_result import ReloadResult
from tests.component.test_pool import Recorder as Telemetry

FIRST, SECOND, THIRD = (f"sha256:{letter * 64}" for letter in "abc")
COMMIT, NEWER = "1234abcd" + "0" * 32, "1234ffff" + "0" * 32


@pytest.fixture
def history(tmp_path):
    found = History(tmp_path / "history")
    found.open()
    return found


def keep(history, digest, result="applied", *, text="", generation=1, previous=None, **more):
    record = {
        "result": result,
        "digest": digest,
        "generation": generation,
        "previous_digest": previous,
    }
    files = {"/etc/a.yaml": text or digest}
    if result == "refused":
        history.append(record | more, {}, files)
    else:
        history.append(record | more, files)


class Disk:
    """Takes so many files more, or any number."""

    def __init__(self, write):
        self._write = write
        self.room = None
        self.before = lambda: None

    def write(self, path, content):
        self.before()
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if self.room is not None:
            self.room -= 1
        self._write(path, content)


@pytest.fixture
def disk(monkeypatch):
    found = Disk(appliance.reconcile.history.write_private)
    monkeypatch.setattr(appliance.reconcile.history, "write_private", found.write)
    return found


def opened_anew(history):
    found = History(history._directory)
    found.open()
    return found


def shown(history):
    """What others see of a history with three sets, of which the second was refused."""
    return (
        [record["number"] for record in history.newest()],
        [record["number"] for record in history.newest(1)],
        history.last_applied()["digest"],
        [one.digest for one in history.sets_before(THIRD)],
        history.find_kept("cccc").files,
        history.find_kept("g1").revision,
        history.difference(history.find("#2")),
        history.difference(history.find("#3")),
    )


def keep_three(history):
    keep(history, FIRST, revision=COMMIT)
    keep(history, SECOND, "refused", text="b: 1", previous=FIRST)
    keep(history, THIRD, generation=2, previous=FIRST)


@pytest.mark.parametrize("room", range(6))
def test_what_the_disk_does_not_take_counts_all_the_same_and_is_written_later(
    tmp_path, history, disk, room
):
    expected = History(tmp_path / "other")
    expected.open()
    keep_three(expected)
    disk.room = room
    for digest, result, more in [
        (FIRST, "applied", {"revision": COMMIT}),
        (SECOND, "refused", {"text": "b: 1", "previous": FIRST}),
        (THIRD, "applied", {"generation": 2, "previous": FIRST}),
    ]:
        with contextlib.suppress(OSError):
            keep(history, digest, result, **more)
    assert (history.unwritten > 0) == (room < 5)
    assert shown(history) == shown(expected)
    disk.room = None
    history.write()
    assert history.unwritten == 0
    assert shown(history) == shown(opened_anew(history)) == shown(expected)


async def test_a_record_that_is_just_being_written_is_none_that_the_disk_does_not_take(
    history, disk
):
    recorder = Recorder(history, Telemetry())
    seen = []
    disk.before = lambda: seen.append((history.unwritten, recorder.unwritten))
    verdict = ReloadResult(result="applied", trigger="start", at=0.0)
    await recorder.record(verdict, revision=None, previous_digest=None, files={})
    assert seen == [(1, 0)]
    disk.room = 0
    await recorder.record(verdict, revision=None, previous_digest=None, files={})
    assert recorder.unwritten == 1
    disk.room = None
    await recorder.catch_up()
    assert (history.unwritten, recorder.unwritten) == (0, 0)


def test_of_what_waits_for_room_the_newest_set_in_force_is_never_forgotten(history, disk):
    disk.room = 0
    for digest in (FIRST, SECOND):
        with pytest.raises(OSError, match="No space"):
            keep(history, digest)
    for number in range(2 * MAX_UNWRITTEN):
        with pytest.raises(OSError, match="No space"):
            keep(history, f"sha256:{number:064x}", "refused")
    assert history.unwritten == MAX_UNWRITTEN
    assert history.last_applied()["digest"] == SECOND
    assert history.find_kept("bbbb").files
    disk.room = None
    history.write()
    assert opened_anew(history).last_applied()["digest"] == SECOND


def test_the_newest_fifty_are_kept_and_their_files(history):
    for number in range(KEEP_RECORDS + 10):
        keep(history, f"sha256:{number:064x}")
    numbers = [record["number"] for record in history.newest()]
    assert numbers == list(range(60, 10, -1))
    assert history.files_of(f"sha256:{9:064x}") is None
    assert history.files_of(f"sha256:{10:064x}") is not None


def test_a_hundred_refused_sets_do_not_push_out_the_way_back(history):
    keep(history, FIRST)
    keep(history, SECOND, generation=2)
    for number in range(2 * KEEP_RECORDS):
        keep(history, f"sha256:{number:064x}", "refused", generation=2)
    assert history.last_applied()["digest"] == SECOND
    assert history.sets_before(SECOND)[0].digest == FIRST
    assert len(history.newest()) == KEEP_RECORDS + 2


def test_a_number_a_generation_and_starts_of_digest_and_revision_name_a_record(history):
    keep(history, FIRST, generation=1, revision=COMMIT)
    keep(history, SECOND, "refused", generation=1)
    keep(history, THIRD, generation=2)
    for key, number in [("1", 1), ("#2", 2), ("g2", 3), ("generation 2", 3), ("aaaa", 1),
                        ("sha256:aaaa", 1), ("1234", 1), (COMMIT, 1), ("bbbb", 2)]:  # fmt: skip
        assert history.find(key)["number"] == number, key
    for key in ("aaa", "9", "g9", "", "sha256:", "dddd", "sha256:1234"):
        assert history.find(key) is None, key


def test_a_revision_means_the_set_as_the_commit_has_it(history):
    keep(history, FIRST, revision=COMMIT, dirty=False)
    keep(history, SECOND, revision=COMMIT, dirty=True)
    keep(history, THIRD, "refused", revision=COMMIT, dirty=None)
    assert history.find_kept(COMMIT).digest == FIRST


def test_a_start_that_several_sets_share_is_refused(history):
    keep(history, FIRST, revision=COMMIT)
    keep(history, SECOND, revision=NEWER)
    with pytest.raises(RequestInvalid, match=f"start of several: {COMMIT}, {NEWER}"):
        history.find_kept("1234")
    assert history.find_kept("1234a").digest == FIRST


def test_what_a_refused_set_would_have_changed_is_kept_and_bounded(history):
    keep(history, FIRST, text="a: 1\n")
    keep(history, SECOND, "refused", text="a: 2\n", previous=FIRST)
    shown = history.difference(history.find("2"))
    assert shown.splitlines() == ["--- a/etc/a.yaml", "+++ b/etc/a.yaml", "@@ -1 +1 @@", "-a: 1", "+a: 2"]  # fmt: skip
    with pytest.raises(RequestInvalid, match="refused"):
        history.find_kept("2")


def test_differences_name_files_that_come_and_go():
    shown = find_differences({"b.yaml": "b\n", "same": "x"}, {"/c.yaml": "c\n", "same": "x"})
    assert shown.splitlines() == [
        "--- /dev/null", "+++ b/c.yaml", "@@ -0,0 +1 @@", "+c",
        "--- a/b.yaml", "+++ /dev/null", "@@ -1 +0,0 @@", "-b",
    ]  # fmt: skip


def test_differences_are_bounded_in_lines_in_characters_and_in_time():
    many = "".join(f"{number}\n" for number in range(15_000))
    assert len(find_differences({}, {"a": many}).splitlines()) == MAX_LINES + 1
    assert len(find_differences({}, {"a": "x" * 10_000_000})) < MAX_CHARACTERS
    # lines that repeat are what makes a comparison slow
    started = time.monotonic()
    shown = find_differences({"a": "x\ny\n" * 500_000}, {"a": "y\nx\nx\n" * 500_000})
    assert "too long to compare" in shown
    assert time.monotonic() - started < 10.0
